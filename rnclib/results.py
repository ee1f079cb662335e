"""The results store, one small JSON record per run, and the tidy frames made from it.

A record is written once, in one step, so that others may read the folder at any time. What cannot be
read, or is no record, is named in a warning and left alone.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import os
import re
import subprocess
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rnclib import records as record_files
from rnclib.files import alone, whole
from rnclib.records import CONDITIONS, IDENTITY, PROFILES, REQUIRED, SCHEMA, named

__all__ = [
    "CONDITIONS",
    "CORRELATION_MEASURES",
    "PROFILES",
    "SCHEMA",
    "all_predictions",
    "commit",
    "correlation_effects",
    "corrupted",
    "curves",
    "exists",
    "folder",
    "frame",
    "labelled",
    "load",
    "machine",
    "machines",
    "on_new_people",
    "pack",
    "predictions",
    "results_dir",
    "seen_and_unseen",
    "view",
    "write",
    "write_text",
]


def results_dir() -> Path:
    """Folder of the records: ``$RNC_RESULTS``, else ``book/results`` of this checkout or of the working folder."""
    if folder := os.environ.get("RNC_RESULTS"):
        return Path(folder)
    checkout = Path(__file__).resolve().parents[1]
    return (checkout if (checkout / "_toc.yml").is_file() else Path.cwd()) / "book" / "results"


@functools.lru_cache(maxsize=1)
def commit() -> tuple[str | None, bool | None]:
    """Commit of the checkout that this code runs from, and whether its tracked files are unchanged.

    Both None where there is no checkout.
    """

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, check=True, timeout=20
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD"), not git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None, None


def folder(root: str | os.PathLike, profile: str, experiment: str) -> Path:
    """Where the records of an experiment lie: ``<root>/<profile>/<experiment>``."""
    if profile not in PROFILES:
        raise ValueError(f"profile: got {profile!r}; allowed: " + ", ".join(map(repr, PROFILES)))
    return Path(root) / profile / named("experiment", experiment)


def write(record: dict[str, Any], root: str | os.PathLike, beside: str | None = None) -> Path:
    """Write a record in one step and return its path.

    A record of the same key is replaced; any other file of that name is left alone, and the record gets
    another name. What it has in common with others, its test set and the versions of packages, goes to other files.

    Parameters
    ----------
    record : dict
    root : path
        Folder of all records, see `results_dir`.
    beside : str, optional
        CSV of a file beside it. That and the other files are written first: where there is the record, all of it is.

    Raises
    ------
    ValueError
        If a field is missing, a number is not finite, or a name would lead elsewhere.
    """
    if missing := [name for name in REQUIRED if name not in record]:
        raise ValueError(f"record: got one without {', '.join(missing)}; allowed: all of {', '.join(REQUIRED)}")
    _written("run", record["run"])  # whole: its versions go elsewhere
    kept, shared = record_files.apart(record)
    lines = [f"{json.dumps(name)}:{_written(name, value)}" for name, value in kept.items()]
    text = "{\n" + ",\n".join(lines) + "\n}\n"  # a line for each field, so that changes can be read
    method = re.sub(r"[^a-z0-9]+", "-", record["method"].lower()).strip("-")
    dataset, split, its_key = (named(name, record[name]) for name in ("dataset", "split", "key"))
    stem = f"{dataset}-{split}-{method}-{record['seed']:02d}-{its_key[:8]}"
    target = folder(root, record["profile"], record["experiment"]) / f"{stem}.json"
    for name, common in shared.items():
        path = target.parent / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.is_file() or path.read_text(encoding="utf-8") != common:
            write_text(path, common)
    number = 2
    same = ("key", "profile", "experiment")
    while target.exists() and not (
        (found := record_files.read(target)) and all(found[name] == record[name] for name in same)
    ):
        target = target.with_name(f"{stem}-{number}.json")
        number += 1
    if beside is not None:
        write_text(target.with_suffix(".csv"), beside)
    write_text(target, text)
    return target


def _written(name: str, value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError:
        raise ValueError(f"{name}: got a number that is NaN or infinite; allowed: finite ones, or None") from None


def write_text(path: Path, text: str) -> None:
    """Write a file so that nobody ever sees a part of it."""
    with whole(path) as draft:
        draft.write_text(text, encoding="utf-8")


def _packed(root: str | os.PathLike, profile: str, experiment: str, dataset: str) -> Path:
    return folder(root, profile, experiment) / f"{named('dataset', dataset)}.zip"


def pack(root: str | os.PathLike, *, profile: str, experiment: str, dataset: str) -> None:
    """Move the predictions beside the records of a data set into one compressed file, which is written in one step.

    Parameters
    ----------
    root : path
        Folder of all records, see `results_dir`.
    profile, experiment, dataset : str

    Warns
    -----
    UserWarning
        If that file is there and cannot be read; then the predictions stay where they are.
    """
    target = _packed(root, profile, experiment, dataset)
    if target.parent.is_dir():
        with alone(target.parent):  # what another process packs meanwhile must not be overwritten
            _pack(target, dataset)


def _pack(target: Path, dataset: str) -> None:
    loose = {
        record["key"]: path
        for record_path in sorted(target.parent.glob(f"{dataset}-*.json"))
        if (path := record_path.with_suffix(".csv")).is_file()
        and (record := record_files.read(record_path)) is not None and record["dataset"] == dataset
    }  # fmt: skip
    if not loose:
        return
    try:
        texts = record_files.unpacked(target) if target.is_file() else {}
    except ValueError:
        warnings.warn(f"left alone, no readable file of predictions: {target}", stacklevel=4)
        return
    texts |= {f"{key}.csv": path.read_bytes() for key, path in loose.items()}
    with whole(target) as draft, zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in sorted(texts):
            packed.writestr(zipfile.ZipInfo(name), texts[name], zipfile.ZIP_DEFLATED)  # of no date: the same bytes
    for path in loose.values():
        path.unlink()


def all_predictions(record: Mapping[str, Any], root: str | os.PathLike | None = None) -> pd.DataFrame | None:
    """Predictions of the whole test set, of a record of seed 0 that keeps a part of it.

    Parameters
    ----------
    record : mapping
    root : path, optional
        Folder of all records, see `results_dir`.

    Returns
    -------
    DataFrame or None
        Columns ``index``, ``target`` and ``prediction``; None where they are not there.
    """
    path = _packed(results_dir() if root is None else root, *(record[n] for n in ("profile", "experiment", "dataset")))
    if not path.is_file():
        return None
    content = record_files.unpacked(path).get(f"{record['key']}.csv")
    return None if content is None else record_files.table(path, content, ("index", "target", "prediction"))


def load(root: str | os.PathLike, *, profile: str, experiment: str, **match: Any) -> list[dict[str, Any]]:
    """Records of one experiment and profile, in the order of their file names.

    Parameters
    ----------
    root : path
        Folder of all records, see `results_dir`.
    profile, experiment : str
    **match
        Only records whose field of that name has that value, such as ``dataset='esol'``.

    Returns
    -------
    list of dict

    Warns
    -----
    UserWarning
        With the names of files that hold no record of this kind; they are left out.
    """
    records, foreign = [], []
    begin = f"{named('dataset', match['dataset'])}-" if "dataset" in match else ""  # as the names of its files do
    for path in sorted(folder(root, profile, experiment).glob(f"{begin}*.json")):
        record = record_files.read(path)
        if record is None or (record["profile"], record["experiment"]) != (profile, experiment):
            foreign.append(path.name)
        elif all(record.get(name) == value for name, value in match.items()):
            records.append(record)
    if foreign:
        warnings.warn(
            f"left out, no readable {profile} record of {experiment!r} (schema {SCHEMA}): {', '.join(foreign)}",
            stacklevel=2,
        )
    return records


def exists(root: str | os.PathLike, *, profile: str, experiment: str, dataset: str) -> bool:
    """Whether there is a record of a data set, told by the names of the files.

    Parameters
    ----------
    root : path
        Folder of all records, see `results_dir`.
    profile, experiment, dataset : str
    """
    return any(folder(root, profile, experiment).glob(f"{named('dataset', dataset)}-*.json"))


def labelled(records: Sequence[dict[str, Any]], labels: Sequence[str]) -> list[dict[str, Any]]:
    """The records with the labels under which pages show their methods, see `rnclib.recipe.Recipe.label`.

    Parameters
    ----------
    records : sequence of dict
    labels : sequence of str
        One for each record.
    """
    if len(records) != len(labels):
        raise ValueError(f"labels: got {len(labels)} for {len(records)} records; allowed: one for each")
    return [record | {"label": label} for record, label in zip(records, labels, strict=True)]


def _identity(record: dict[str, Any]) -> dict[str, Any]:
    """What tells runs of one data set and profile apart; a method is called by its label where it has one."""
    return {"split": record["split"], "method": record.get("label", record["method"]), "seed": record["seed"]}


def _of_one_kind(records: Sequence[dict[str, Any]]) -> None:
    if not records:
        raise ValueError("records: got none; allowed: at least one")
    # data that are generated anew for each seed have as many checksums
    kinds = sorted(
        {
            (record["dataset"], record["profile"], "" if record["config"].get("data_seed") else checksum[:8])
            for record in records
            for checksum in [record["data"]["checksum"]]
        }
    )
    if len(kinds) > 1:
        raise ValueError(f"records: got a mixture of {kinds}; allowed: one data set, checksum and profile")


def frame(records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """One row per run, in their order: identity, key, each metric as a column like ``test_mae`` or ``test_mae_raw``.

    Column ``overlap`` has the mean fraction of a test set that is in that of another seed too, and ``one_data_set``
    whether all seeds draw from the same samples: what `rnclib.paired.correlation_of` asks for.

    Parameters
    ----------
    records : sequence of dict
        From `load`, of one data set and profile.

    Raises
    ------
    ValueError
        If there are no records, or they mix data sets or profiles.
    """
    _of_one_kind(records)
    nothing = {f"{part}_{metric}{scale}": math.nan for part in ("val", "test") for metric in ("mae", "rmse", "mse")
               for scale in ("", "_raw")}  # fmt: skip
    rows, overlaps = [], _overlaps(records)
    for record in records:
        row = {name: record[name] for name in (*IDENTITY, "key")} | _identity(record)
        row |= nothing  # a run that diverged has no metrics
        row |= {f"n_{part}": record["data"][f"n_{part}"] for part in ("train", "test")}
        row["n_pool"] = record["data"].get("n_pool", row["n_train"])
        row["n_test_pool"] = record["data"].get("n_test_pool", row["n_test"])
        named = (*CONDITIONS, "data_seed", "weight_seed")
        row |= {name: record["config"][name] for name in named if name in record["config"]}
        row["overlap"] = overlaps[_kind_of_test(record)]
        row["one_data_set"] = "data_seed" not in record["config"]
        row["baseline"] = not {"fit", "pretrain"} & record["config"].keys()  # not a network of ours
        for part, scales in record["metrics"].items():
            for scale, values in scales.items():
                suffix = "_raw" if scale == "raw" else ""
                row |= {f"{part}_{metric}{suffix}": value for metric, value in values.items()}
        row["wall_time"] = sum(stage["wall_time"] for stage in record["stages"])
        rows.append(row)
    return pd.DataFrame(rows)


def _kind_of_test(record: dict[str, Any]) -> tuple[str, str | None]:
    """What the test sets of several seeds have in common."""
    return record["split"], record["config"].get("spurious")


def _overlaps(records: Sequence[dict[str, Any]]) -> dict[tuple[str, str | None], float]:
    """Mean fraction of a test set that is in that of another seed too, by kind; NaN for a single seed."""
    tests: dict[tuple[str, str | None], dict[int, tuple[str, set[int]]]] = {}
    for record in records:
        test = record["data"]["checksum"], set(record["test"]["index"])
        tests.setdefault(_kind_of_test(record), {}).setdefault(record["seed"], test)
    found = {}
    for kind, by_seed in tests.items():
        shared = [
            len(one & other) / len(one) if checksum == its and one else 0.0
            for (checksum, one), (its, other) in itertools.permutations(by_seed.values(), 2)
        ]
        found[kind] = sum(shared) / len(shared) if shared else math.nan
    return found


def predictions(records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """One row per test sample of each run: identity, ``index``, ``target`` and ``prediction`` in raw units.

    Parameters
    ----------
    records : sequence of dict
        From `load`, of one data set and profile. Runs that diverged have no rows.
    """
    _of_one_kind(records)
    parts = [
        pd.DataFrame(record["test"]).assign(**_identity(record)) for record in records if record["test"]["prediction"]
    ]
    columns = ["index", "target", "prediction", "split", "method", "seed"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def corrupted(records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Test MAE in raw units on corrupted inputs, one row per run, kind and severity; severity 0 is the clean test set.

    Parameters
    ----------
    records : sequence of dict
        From `load`, of one data set and profile. Runs without such errors have no rows.

    Returns
    -------
    DataFrame
        Columns ``split``, ``method``, ``seed``, ``kind``, ``severity`` and ``mae``.
    """
    _of_one_kind(records)
    rows = []
    for record in records:
        clean = record["metrics"].get("test", {}).get("raw", {}).get("mae")
        for kind, errors in record.get("corrupted", {}).items():
            for severity, error in enumerate([clean, *errors]):
                rows.append(
                    _identity(record)
                    | {"kind": kind, "severity": severity, "mae": math.nan if error is None else error}
                )
    return pd.DataFrame(rows, columns=["split", "method", "seed", "kind", "severity", "mae"])


def seen_and_unseen(records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Test errors of runs with unseen target ranges, by where the test target lies.

    Parameters
    ----------
    records : sequence of dict
        From `load`, of one data set and profile. Runs that have seen all ranges have no rows.

    Returns
    -------
    DataFrame
        As from `frame`, up to three rows per run: column ``targets`` is ``'seen'``, ``'between'`` the ranges seen, or
        ``'beyond'`` them all; ``test_mae_raw`` is that of these test samples, and ``n_targets`` their number.
    """
    holed = [record for record in records if "seen" in record["data"]]
    if not holed:
        return pd.DataFrame()
    rows = []
    for record, row in zip(holed, frame(holed).to_dict("records"), strict=True):
        target, prediction = (np.array(record["test"][name], float) for name in ("target", "prediction"))
        inside = np.any([(target >= low) & (target <= high) for low, high in record["data"]["seen"]], axis=0)
        ends = np.array(record["data"]["seen"])
        beyond = (target < ends.min()) | (target > ends.max())
        for name, part in (("seen", inside), ("between", ~inside & ~beyond), ("beyond", beyond)):
            if not part.any():
                continue
            off = np.abs(prediction - target)[part] if len(prediction) else np.array([math.nan])
            rows.append(row | {"targets": name, "test_mae_raw": float(off.mean()), "n_targets": int(part.sum())})
    return pd.DataFrame(rows)


def on_new_people(records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """As `frame`, with the error on people whom training has not seen for `test_mae_raw`.

    Parameters
    ----------
    records : sequence of dict
        From `load`. Runs that were not tested on new people, see `rnclib.experiment.Run`, have no rows.
    """
    tested = [record for record in records if "new_people" in record]
    if not tested:
        return pd.DataFrame()
    errors = [record["new_people"]["mae"] for record in tested]
    return frame(tested).assign(test_mae_raw=errors)


#: What `correlation_effects` measures.
CORRELATION_MEASURES = ("test_mae_raw", "nuisance_coefficient", "test_rank_agreement", "test_nuisance_agreement")


def correlation_effects(records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """What a nuisance does to networks when it correlates with the target in training, and when it does not.

    Parameters
    ----------
    records : sequence of dict
        From `load`, of one data set and profile but for the correlation. Runs without a nuisance have no rows.

    Returns
    -------
    DataFrame
        As from `frame`, with a column ``nuisance_coefficient``: on the test set, that of the target that the nuisance
        suggests, in a least-squares fit of the prediction on both. It would be 1 if the prediction followed
        the nuisance alone. Where a method and seed has both kinds of run, there is a third row with the differences of
        the `CORRELATION_MEASURES`, with the correlation minus without; its ``spurious`` is ``'added'``.
    """
    with_nuisance = [record for record in records if "nuisance" in record["test"]]
    if not with_nuisance:
        return pd.DataFrame()
    parts = []
    for record in with_nuisance:
        target, prediction, nuisance = (
            np.array(record["test"][name], float) for name in ("target", "prediction", "nuisance")
        )
        coefficient = math.nan
        if len(prediction):
            design = np.column_stack([np.ones(len(target)), target, nuisance])
            coefficient = float(np.linalg.lstsq(design, prediction)[0][2])
        parts.append(frame([record]).assign(nuisance_coefficient=coefficient))
    overlaps = _overlaps(with_nuisance)
    runs = pd.concat(parts, ignore_index=True)
    runs["overlap"] = [overlaps[_kind_of_test(record)] for record in with_nuisance]
    for measure in CORRELATION_MEASURES:
        if measure not in runs:  # every run diverged
            runs[measure] = math.nan
    tied, untied = (runs[runs["spurious"] == tie].set_index(["method", "seed"]) for tie in ("tied", "untied"))
    both = tied.index.intersection(untied.index)
    added = tied.loc[both].assign(spurious="added")
    added[list(CORRELATION_MEASURES)] -= untied.loc[both, list(CORRELATION_MEASURES)]
    return pd.concat([runs, added.reset_index()], ignore_index=True)


def curves(records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """One row per kept epoch of each training stage: identity, ``stage``, ``epoch``, ``train_loss``, ``val_loss``.

    Parameters
    ----------
    records : sequence of dict
        From `load`, of one data set and profile. A stage that diverged has no rows.
    """
    _of_one_kind(records)
    parts = [
        pd.DataFrame({"val_loss": math.nan, **stage["curve"]}).assign(stage=stage["name"], **_identity(record))
        for record in records
        for stage in record["stages"]
    ]
    columns = ["epoch", "train_loss", "val_loss", "stage", "split", "method", "seed"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def machine(record: dict[str, Any]) -> tuple[str, str]:
    """Where a run was made: processor or GPU, and version of torch.

    Parameters
    ----------
    record : dict
    """
    made = record["run"]
    return made.get("gpu", made.get("cpu", "–")), made.get("versions", {}).get("torch", "–")


def machines(records: Sequence[dict[str, Any]] | Mapping[str, Sequence[dict[str, Any]]]) -> pd.DataFrame:
    """Where the runs were made: processor or GPU, version of torch, number of runs, and hours of training in all.

    Parameters
    ----------
    records : sequence of dict, or mapping of str to such
        A mapping has the records of several data sets by what they are called.

    Returns
    -------
    DataFrame
        Columns ``Processor``, ``torch``, ``Runs`` and ``Hours of training``, of a mapping ``Data`` before them. What
        several runs share counts once.
    """
    if isinstance(records, Mapping):
        parts = {name: machines(part) for name, part in records.items()}
        return pd.concat(parts, names=["Data", None]).reset_index("Data").reset_index(drop=True)
    rows, counted = [], set()
    for record in records:
        seconds = 0.0
        for stage in record["stages"]:  # what runs share took the same time in each and ended at the same loss
            ends = {name: values[-1:] for name, values in stage["curve"].items()}  # records keep 10 or 40 points
            which = [record["dataset"], record["split"], record["seed"], stage["name"], stage["wall_time"], ends]
            shared = json.dumps(which, sort_keys=True)
            seconds += stage["wall_time"] if shared not in counted else 0.0
            counted.add(shared)
        processor, version = machine(record)
        rows.append({"Processor": processor, "torch": version, "hours": seconds / 3600})
    hours = pd.DataFrame(rows, columns=["Processor", "torch", "hours"]).groupby(["Processor", "torch"])["hours"]
    return hours.agg(["size", "sum"]).set_axis(["Runs", "Hours of training"], axis=1).reset_index()


def view(records: Sequence[dict[str, Any]], method: str, root: str | os.PathLike | None = None) -> pd.DataFrame | None:
    """Two principal components of the features of every sample, from the file beside the record of seed 0.

    Parameters
    ----------
    records : sequence of dict
    method : str
    root : path, optional
        Folder of all records, see `results_dir`.

    Returns
    -------
    DataFrame or None
        Columns ``index``, ``part``, ``target``, ``pc1`` and ``pc2``; in newer files ``nearest``, the index of the
        training sample with the nearest features; and ``nuisance``, the target that a spurious one suggests, where the
        record has one. None if there is no such file.
    """
    root = results_dir() if root is None else root
    for record in records:
        if (_identity(record)["method"], record["seed"]) == (method, 0):
            where = folder(root, record["profile"], record["experiment"])
            for path in where.glob(f"*{named('key', record['key'])[:8]}*.csv"):
                return record_files.table(path, path.read_bytes(), ())
    return None
