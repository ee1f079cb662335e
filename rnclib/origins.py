"""Where the numbers of the book come from: the runs behind each table and figure, and what they cost."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from rnclib import records as record_files
from rnclib import results
from rnclib.chapters import all_claims, experiments, planned
from rnclib.chapters.base import Origin
from rnclib.data import catalogue
from rnclib.experiment import key
from rnclib.files import finite_json

__all__ = ["beside_reference", "between_machines", "command", "cost", "made_of", "measurements", "read", "table"]

_COLUMNS = (
    "key", "file", "archived", "experiment", "dataset", "split", "condition", "method", "seed", "on_page", "config",
    "checksum", "commit", "clean", "processor", "torch", "threads", "processes", "versions", "started", "wall_time",
    "core_hours", "diverged", "test_mae_raw",
)  # fmt: skip


def read(root: str | os.PathLike) -> pd.DataFrame:
    """One row for each published run, and for each run of the archive.

    Parameters
    ----------
    root : path
        Folder of all records, see `rnclib.results.results_dir`. It may be missing.

    Returns
    -------
    DataFrame
        What the record says. Besides: ``file``, relative to `root`; ``method``, the label that pages show;
        ``condition``, what sets the run apart from others of its data set and split, in words; ``on_page``, whether
        the chapter of its experiment shows it; ``core_hours``, wall time × threads × processes. A run that takes
        trained weights from another one counts its own time only.
    """
    root, rows = Path(root), []
    for path in sorted([*root.glob("paper/*/*.json"), *root.glob("archive/paper/*/*.json")]):
        if (record := record_files.read(path)) is not None:
            rows.append(_row(record, path.relative_to(root)))
    found = pd.DataFrame(rows, columns=list(_COLUMNS))
    found = found.astype({"archived": bool, "on_page": bool, "diverged": bool, "core_hours": float})
    for name, dataset in dict.fromkeys(zip(found["experiment"], found["dataset"], strict=True)):
        labels = _labels(name, dataset, "paper")
        its = found.index[(found["experiment"] == name) & (found["dataset"] == dataset) & found["key"].isin(labels)]
        found.loc[its, "method"] = found.loc[its, "key"].map(labels)
        found.loc[its, "on_page"] = ~found.loc[its, "archived"]
    return found


def _row(record: Mapping[str, Any], file: Path) -> dict[str, Any]:
    made, (processor, torch) = record["run"], results.machine(dict(record))
    threads, processes, seconds = made.get("threads", 1), made.get("processes", 1), made.get("wall_time", 0.0)
    return {
        **{name: record[name] for name in ("key", "experiment", "dataset", "split", "method", "seed", "config")},
        "file": file.as_posix(),
        "archived": file.parts[0] == "archive",
        "condition": _in_words(record["config"]),
        "on_page": False,
        "checksum": record["data"]["checksum"],
        **{name: made.get(name) for name in ("commit", "clean", "started")},
        "processor": processor,
        "torch": torch,
        "versions": made.get("versions", {}),
        "threads": threads,
        "processes": processes,
        "wall_time": seconds,
        "core_hours": seconds * threads * processes / 3600,
        "diverged": not record["metrics"],
        "test_mae_raw": record["metrics"].get("test", {}).get("raw", {}).get("mae"),
    }


def _in_words(config: Mapping[str, Any]) -> str:
    """What a run is trained and tested on, beside the whole of its data set."""
    noise = config.get("wrong_targets")
    parts = [
        f"{config['size']} pixels" if "size" in config else None,
        f"{config['fraction']:.0%} of the training set" if "fraction" in config else None,
        f"unseen target ranges, {config['holes']}" if "holes" in config else None,
        None if noise is None else "shuffled targets" if noise == 1 else f"label noise {noise:.0%}",
        {"tied": "spurious correlation", "untied": "no spurious correlation"}.get(config.get("spurious", "")),
        "corrupted inputs" if config.get("corruptions") else None,
        "new people" if config.get("new_people") else None,
    ]
    return ", ".join(part for part in parts if part)


def _labels(experiment: str, dataset: str, profile: str) -> dict[str, str]:
    """Labels by key of the runs that a chapter shows."""
    if experiment not in experiments() or dataset not in experiments()[experiment].datasets:
        return {}
    try:
        return {key(run): run.label for run in experiments()[experiment].runs(dataset=dataset, profile=profile)}
    except FileNotFoundError:  # of a task whose settings are still searched for
        return {}


def measurements(root: str | os.PathLike, runs: pd.DataFrame) -> pd.DataFrame:
    """One row for each published file that holds measurements or a search, and no run.

    Parameters
    ----------
    root : path
    runs : DataFrame
        From `read`.

    Returns
    -------
    DataFrame
        Columns ``file``, ``folder``, ``commit``, ``started``, ``processor`` and ``core_hours`` (of the trials of a
        search); None for what the file does not say.
    """
    root, rows, read_before = Path(root), [], set(runs["file"])
    for path in sorted(root.glob("paper/*/*.json")):
        if path.relative_to(root).as_posix() in read_before:
            continue
        held = finite_json(path.read_text(encoding="utf-8"))
        if isinstance(held, dict) and "key" not in held:
            machine = held.get("machine", held)
            seconds = [trial.get("seconds", 0.0) for trial in held.get("trials", ())]
            rows.append({
                "file": path.relative_to(root).as_posix(), "folder": path.parent.name, "commit": held.get("commit"),
                "started": held.get("started"), "processor": machine.get("gpu", machine.get("cpu")),
                "core_hours": sum(seconds) * held.get("threads", 1) / 3600 if seconds else None,
            })  # fmt: skip
    return pd.DataFrame(rows, columns=["file", "folder", "commit", "started", "processor", "core_hours"])


def made_of(origin: Origin | None, caption: str, runs: pd.DataFrame) -> pd.DataFrame:
    """The runs that a published table or figure is made of.

    Parameters
    ----------
    origin : Origin or None
        From `rnclib.chapters.base.Chapter.origin`.
    caption : str
        Where it names a data set and split as `rnclib.data.catalogue.Source.caption` does, only their runs count.
    runs : DataFrame
        From `read`.
    """
    if origin is None or origin.measured is not None:
        return runs.iloc[:0]
    if origin.judged is not None:
        claims = [
            claim for claim in all_claims() if all(getattr(claim, name) in of for name, of in origin.judged.items())
        ]
        keys = {one for claim in claims for one in planned(claim, "paper")}
        return runs[runs["key"].isin(keys) & ~runs["archived"]]
    found = runs[runs["experiment"].isin(origin.experiments)]
    fits = [_has(config, origin.where) for config in found["config"]]
    found = found[_named(caption, found) & pd.Series(fits, found.index, bool)]
    if not origin.archived:
        return found[found["on_page"]]
    twins = set(found.loc[found["archived"], "key"]) & set(found.loc[found["on_page"], "key"])
    return found[found["key"].isin(twins)]


def _named(caption: str, runs: pd.DataFrame) -> pd.Series:
    """Which runs are of the data sets, and of the splits, that a caption names; all where it names none."""
    every = pd.Series(True, runs.index)
    named = pd.Series(False, runs.index)
    for dataset in runs["dataset"].unique():
        source, of_set = catalogue.source(dataset), runs["dataset"] == dataset
        splits = [split for split in source.splits if source.caption("paper", split) in caption]
        if splits:
            named |= of_set & runs["split"].isin(splits)
        elif re.search(rf"(?:^|\. ){re.escape(source.title)}\.", caption):
            named |= of_set
    return named if named.any() else every


def _has(config: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    values = ((config.get(name), value) for name, value in wanted.items())
    return all(value not in (None, False) if one is True else value == one for value, one in values)


def cost(runs: pd.DataFrame, by: Collection[str] = ()) -> pd.DataFrame:
    """How many runs there are, how many diverged, what they took and when they were made.

    Parameters
    ----------
    runs : DataFrame
        From `read`.
    by : collection of str
        Columns; one row for each of their values.

    Returns
    -------
    DataFrame
        Those columns, and ``runs``, ``diverged``, ``core_hours``, ``first`` and ``last`` (days). Of no runs it is
        empty.
    """
    groups = runs.assign(all="all").groupby(list(by) or ["all"], sort=False, dropna=False)
    found = groups.agg(
        runs=("key", "size"),
        diverged=("diverged", "sum"),
        core_hours=("core_hours", "sum"),
        first=("started", "min"),
        last=("started", "max"),
    ).reset_index()
    found[["first", "last"]] = found[["first", "last"]].apply(lambda column: column.astype("string").str[:10])
    return found if by else found.drop(columns="all")


def command(experiment: str, dataset: str, split: str) -> str:
    """The command that makes the published runs of an experiment.

    Parameters
    ----------
    experiment, dataset, split : str
    """
    narrowed = f" --split {split}" if "split" in experiments()[experiment].options else ""
    return f"python -m rnclib.protocols {experiment} --dataset {dataset} --profile paper{narrowed}"


def between_machines(runs: pd.DataFrame) -> pd.DataFrame:
    """Differences between runs of the archive and published ones of the same configuration.

    Parameters
    ----------
    runs : DataFrame
        From `read`.

    Returns
    -------
    DataFrame
        Indexed by dataset and method: ``n`` pairs, and ``mean`` and ``sd`` of the difference in test MAE, in the unit
        of the data.
    """
    pairs = runs[runs["archived"]].merge(runs[~runs["archived"]], on="key", suffixes=("_then", ""))
    pairs["off"] = pairs["test_mae_raw_then"].astype(float) - pairs["test_mae_raw"].astype(float)
    groups = pairs.dropna(subset="off").groupby(["dataset", "method"], sort=False)["off"]
    return groups.agg(n="count", mean="mean", sd="std")


def table(runs: pd.DataFrame, shown_in: Mapping[str, Collection[str]]) -> pd.DataFrame:
    """All runs in full, for a file: one row for each record.

    Parameters
    ----------
    runs : DataFrame
        From `read`.
    shown_in : mapping of str to collection of str
        Names of the tables and figures by the file of a record.
    """
    packages = sorted({package for versions in runs["versions"] for package in versions})
    versions = {f"version_{one}": [of.get(one) for of in runs["versions"]] for one in packages}
    plain = runs.drop(columns=["config", "versions", "on_page"])
    return plain.assign(shown_in=[" ".join(shown_in.get(file, ())) for file in runs["file"]], **versions)


def beside_reference(root: str | os.PathLike, names: Collection[str]) -> pd.DataFrame:
    """Quick runs of this machine beside those of the reference.

    Parameters
    ----------
    root : path
        Folder of all records. The reference lies in its folder ``reference``.
    names : collection of str
        Experiments.

    Returns
    -------
    DataFrame
        A row for each run that both have: ``dataset``, ``split``, ``method``, ``seed``, ``here`` and ``reference``
        (test MAE in the unit of the data, missing where the run diverged), ``machine`` and ``reference_machine``
        (processor and version of torch).
    """
    rows = []
    for name in names:
        here, there = (
            {record["key"]: record for record in results.load(of, profile="quick", experiment=name)}
            for of in (root, Path(root) / "reference")
        )
        both = [one for one in there if one in here]
        labels = {one: label for of in sorted({here[one]["dataset"] for one in both})
                  for one, label in _labels(name, of, "quick").items()}  # fmt: skip
        for one in both:
            record = here[one]
            rows.append({
                **{field: record[field] for field in ("dataset", "split", "seed")},
                "method": labels.get(one, record["method"]),
                "here": _test_mae(record), "reference": _test_mae(there[one]),
                "machine": ", torch ".join(results.machine(record)),
                "reference_machine": ", torch ".join(results.machine(there[one])),
            })  # fmt: skip
    columns = ["dataset", "split", "method", "seed", "here", "reference", "machine", "reference_machine"]
    return pd.DataFrame(rows, columns=columns).astype({"here": float, "reference": float})


def _test_mae(record: Mapping[str, Any]) -> float | None:
    return record["metrics"].get("test", {}).get("raw", {}).get("mae")
