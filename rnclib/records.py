"""What a record is, and what may lie in its files: whatever else is found there counts for nothing.

Of a record's names paths are made, and of its values tables, so both are looked at before anything is done with them.
What many would repeat, the samples and targets of a test set and the versions of packages, lies once in a file of its
own. A stage of training names its commit where it is not that of the run; None is one that is not known.
"""

from __future__ import annotations

import functools
import hashlib
import io
import json
import re
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from rnclib.files import finite_json

__all__ = [
    "CONDITIONS", "IDENTITY", "LARGEST", "PROFILES", "REQUIRED", "SCHEMA", "SHARED", "TEST_SETS", "VERSIONS", "apart",
    "named", "read", "table", "unpacked",
]  # fmt: skip

SCHEMA = 1
PROFILES = ("smoke", "quick", "paper")
IDENTITY = ("experiment", "dataset", "profile", "split", "method", "seed")
#: Fields of a configuration, beside those of its identity, that set runs of one method apart.
CONDITIONS = ("fraction", "holes", "wrong_targets", "spurious")
REQUIRED = (*IDENTITY, "schema", "key", "config", "data", "metrics", "test", "stages", "run")
#: Bytes of a file that is read.
LARGEST = 2**24
#: Folders beside the records of an experiment with what these name: test sets, and versions of packages.
SHARED = TEST_SETS, VERSIONS = ("test-sets", "versions")
_NAMES = ("experiment", "dataset", "split", "key")  # of which paths are made
_SHOWN = ("cpu", "gpu", "commit", "device", "started")  # and the versions of packages


def named(name: str, value: Any) -> str:
    """A value that may be part of a path, or an error.

    Parameters
    ----------
    name : str
        Of the field, for the message.
    value : object

    Raises
    ------
    ValueError
    """
    if not _is_name(value):
        got = repr(value)[:120]
        raise ValueError(f"{name}: got {got}; allowed: up to 80 letters, digits, underscores, hyphens and spaces")
    return value


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"\w[\w -]{0,79}", value, re.ASCII) is not None


def apart(record: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """A record as its file has it, and what it has in common with others.

    Parameters
    ----------
    record : mapping
        With samples, targets and predictions in ``test``.

    Returns
    -------
    record : dict
        ``test`` has the name of the ``set`` and the ``prediction``; ``versions`` in ``run`` is the name of a file.
    shared : dict
        Texts in CSV by path beside the record, in `SHARED`: the test set and the versions. A name ends with the
        beginning of the text's SHA-256.

    Raises
    ------
    ValueError
        If samples, targets or predictions are missing.
    """
    test, run = dict(record["test"]), dict(record["run"])
    if not {"index", "target", "prediction"} <= test.keys():
        raise ValueError(f"test: got {', '.join(test)}; allowed: index, target and prediction, and what lies beside")
    prediction = test.pop("prediction")
    rows = [list(test), *zip(*test.values(), strict=True)]
    text = "".join(",".join(map(str, row)) + "\n" for row in rows)
    name = f"{named('dataset', record['dataset'])}-{_digest(text)}.csv"
    shared = {f"{TEST_SETS}/{name}": text}
    if "versions" in run:
        lines = [f"{json.dumps(package)},{json.dumps(version)}\n" for package, version in run["versions"].items()]
        text = "".join(["package,version\n", *lines])
        run["versions"] = f"versions-{_digest(text)}.csv"
        shared[f"{VERSIONS}/{run['versions']}"] = text
    return {**record, "test": {"set": name, "prediction": prediction}, "run": run}, shared


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read(path: Path) -> dict[str, Any] | None:
    """The record in a file with what lies apart, or None if it holds none, or what lies apart is not what it was.

    Parameters
    ----------
    path : Path
    """
    try:
        record = finite_json(_text(path))
        if "set" in (test := record["test"]):
            record["test"] = _shared(path.parent / TEST_SETS, test["set"]) | {"prediction": test["prediction"]}
        if isinstance(name := record["run"].get("versions"), str):
            columns = _shared(path.parent / VERSIONS, name)
            record["run"]["versions"] = dict(zip(columns["package"], columns["version"], strict=True))
        return record if all(check(record) for check in (_has_names, _has_data, _has_results, _has_stages)) else None
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return None


def _text(path: Path) -> str:
    if not path.is_file() or path.stat().st_size > LARGEST:
        raise ValueError("it is no file, or larger than any that is written here")
    return path.read_text(encoding="utf-8")


def _shared(folder: Path, name: str) -> dict[str, list]:
    if not re.fullmatch(r"\w[\w -]*-[0-9a-f]{16}\.csv", name, re.ASCII):
        raise ValueError("it is no name of a file that records share")
    of = (folder / name).stat()
    return _read_shared(folder / name, of.st_mtime_ns, of.st_size)


@functools.lru_cache(maxsize=1024)
def _read_shared(path: Path, mtime: int, size: int) -> dict[str, list]:
    """Columns of a file that records share, read once as long as it is the same."""
    text = _text(path)
    if path.stem.rpartition("-")[2] != _digest(text):
        raise ValueError("it is another file")
    columns, *rows = text.splitlines()
    values = finite_json(f"[{','.join(f'[{row}]' for row in rows)}]")
    return {name: [row[number] for row in values] for number, name in enumerate(columns.split(","))}


def _has_names(record: Any) -> bool:
    return (
        (type(record["schema"]), record["schema"]) == (int, SCHEMA)
        and all(name in record for name in REQUIRED)
        and all(_is_name(record[name]) for name in _NAMES)
        and record["profile"] in PROFILES
        and isinstance(record["method"], str)
        and _is_count(record["seed"])
    )


def _has_data(record: Mapping[str, Any]) -> bool:
    data, config, run = record["data"], record["config"], record["run"]
    said = [config[name] for name in (*CONDITIONS, "data_seed", "weight_seed") if name in config]
    return (
        isinstance(data["checksum"], str)
        and all(_is_count(data[name]) for name in ("n_train", "n_val", "n_test"))
        and all(_is_count(data[name]) for name in ("n_pool", "n_test_pool") if name in data)
        and all(len(ends) == 2 and _are_numbers(ends) for ends in data.get("seen", []))
        and isinstance(config, dict)
        and ("nuisance" not in record["test"] or config["spurious"] in ("tied", "untied"))
        and all(isinstance(value, str) or _are_numbers([value]) for value in said)
        and all(_is_plain(run.get(name, "")) for name in _SHOWN)
        and all(_is_plain(of) and (its is None or _is_plain(its)) for of, its in run.get("versions", {}).items())
    )


def _has_results(record: Mapping[str, Any]) -> bool:
    test, metrics = record["test"], record["metrics"]
    n = len(test["index"])
    others = ("target", "nuisance") if "nuisance" in test else ("target",)
    scales = [(scale, values) for part in metrics.values() for scale, values in part.items()]
    measured = [
        *record.get("corrupted", {}).values(),
        *([[record["new_people"]["mae"]]] if "new_people" in record else []),
    ]
    return (
        all(_is_count(number) for number in test["index"])
        and all(len(test[name]) == n and _are_numbers(test[name]) for name in others)
        and len(test["prediction"]) in (0, n)
        and _are_numbers(test["prediction"])
        and set(metrics) <= {"val", "test"}
        and {scale for scale, _ in scales} <= {"standardised", "raw"}
        and all(_are_numbers(values.values(), or_none=True) for _, values in scales)
        and all(isinstance(values, list) and _are_numbers(values, or_none=True) for values in measured)
    )


def _has_stages(record: Mapping[str, Any]) -> bool:
    return isinstance(record["stages"], list) and all(
        isinstance(stage["name"], str)
        and stage["name"] != ""
        and _are_numbers([stage["wall_time"]])
        and "epoch" in (curve := stage["curve"])
        and set(curve) <= {"epoch", "train_loss", "val_loss"}
        and all(isinstance(values, list) and len(values) == len(curve["epoch"]) for values in curve.values())
        and all(_are_numbers(values, or_none=True) for values in curve.values())
        for stage in record["stages"]
    )


def _is_plain(value: Any) -> bool:
    """Whether it is a text without signs that mark something up on a page."""
    return isinstance(value, str) and value.isprintable() and not re.search(r"[\\`*{}\[\]<>$|&~^]", value)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _are_numbers(values: Iterable[Any], or_none: bool = False) -> bool:
    """Whether all are finite numbers; of an integer of many digits, float would not have it."""
    return all((type(one) in (int, float) and abs(one) < 1e300) or (or_none and one is None) for one in values)


def table(path: Path, content: bytes, columns: Iterable[str]) -> pd.DataFrame:
    """The table in a CSV file beside a record.

    Parameters
    ----------
    path : Path
        For the message.
    content : bytes
    columns : iterable of str
        That it has to have.

    Raises
    ------
    ValueError
        If it is none.
    """
    try:
        found = pd.read_csv(io.BytesIO(content))
    except ValueError as error:  # as pandas' own are
        why = " ".join(str(error).split())[:120]
        raise ValueError(f"file: got {path}, which is no table ({why}); allowed: one that a run has written") from None
    numeric = [name for name in columns if name in found and (name == "part" or found[name].dtype.kind in "iuf")]
    if wrong := sorted(set(columns) - set(numeric)):
        raise ValueError(f"file: got {path} without numbers in {wrong}; allowed: one that a run has written")
    return found


def unpacked(path: Path) -> dict[str, bytes]:
    """What is in a compressed file, by name.

    Parameters
    ----------
    path : Path

    Raises
    ------
    ValueError
        If it cannot be read, or is much larger than what runs write.
    """
    try:
        with zipfile.ZipFile(path) as packed:
            parts = packed.infolist()
            if sum(part.file_size for part in parts) > 64 * LARGEST:
                raise zipfile.BadZipFile("it is too large")
            return {part.filename: packed.read(part) for part in parts}
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError, RuntimeError, ValueError) as error:
        why = " ".join(str(error).split())[:120]
        raise ValueError(
            f"file: got {path}, which cannot be unpacked ({why}); allowed: one that `pack` wrote"
        ) from None
