"""The results store, one small JSON record per run, and the statistics made from it.

A record is written once, in one step, so that others may read the folder at any time. What cannot be
read, or is no record, is named in a warning and left alone.
"""

from __future__ import annotations

import functools
import json
import math
import os
import re
import subprocess
import threading
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from rnclib.data.catalogue import SOURCES

__all__ = [
    "PROFILES",
    "commit",
    "compare",
    "corrupted",
    "corruption_errors",
    "corruption_growth",
    "correlation_effects",
    "corruption_ratio",
    "curves",
    "data_ratio",
    "exists",
    "frame",
    "holm",
    "interval",
    "labelled",
    "load",
    "machines",
    "predictions",
    "results_dir",
    "seen_and_unseen",
    "stuck",
    "summarise",
    "verdicts",
    "view",
    "write",
]

SCHEMA = 1
PROFILES = ("smoke", "quick", "paper")
# Splits that are the same for every seed. Seeds differ in weights, order, and what is drawn from the training set:
# given the data, their runs are independent.
FIXED_SPLITS = tuple(split for source in SOURCES.values() if not source.seeded for split in source.splits)
IDENTITY = ("experiment", "dataset", "profile", "split", "method", "seed")
# Fields of a configuration, beside those of its identity, that set runs of one method apart.
CONDITIONS = ("fraction", "holes", "wrong_targets", "spurious")
REQUIRED = (*IDENTITY, "schema", "key", "config", "data", "metrics", "test", "stages", "run")


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
    return Path(root) / profile / experiment


def write(record: dict[str, Any], root: str | os.PathLike) -> Path:
    """Write a record in one step and return its path.

    A record of the same key is replaced; any other file of that name is left alone, and the record gets
    another name.

    Parameters
    ----------
    record : dict
    root : path
        Folder of all records, see `results_dir`.

    Raises
    ------
    ValueError
        If a field is missing or a number is not finite.
    """
    if missing := [name for name in REQUIRED if name not in record]:
        raise ValueError(f"record: got one without {', '.join(missing)}; allowed: all of {', '.join(REQUIRED)}")
    fields = [
        json.dumps(name) + ":" + json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        for name, value in record.items()
    ]
    text = "{\n" + ",\n".join(fields) + "\n}\n"  # a line for each field, so that changes can be read
    method = re.sub(r"[^a-z0-9]+", "-", record["method"].lower()).strip("-")
    stem = f"{record['dataset']}-{record['split']}-{method}-{record['seed']:02d}-{record['key'][:8]}"
    target = folder(root, record["profile"], record["experiment"]) / f"{stem}.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    number = 2
    same = ("key", "profile", "experiment")
    while target.exists() and not ((found := _read(target)) and all(found[name] == record[name] for name in same)):
        target = target.with_name(f"{stem}-{number}.json")
        number += 1
    write_text(target, text)
    return target


def write_text(path: Path, text: str) -> None:
    """Write a file so that nobody ever sees a part of it."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        unfinished.write_text(text, encoding="utf-8")
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _read(path: Path) -> dict[str, Any] | None:
    """The record in a file, or None if it holds none."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    try:
        readable = record["schema"] == SCHEMA and all(name in record for name in REQUIRED)
        readable &= all(isinstance(record["data"][name], int) for name in ("n_train", "n_val", "n_test"))
        readable &= isinstance(record["data"]["checksum"], str) and isinstance(record["config"], dict)
        readable &= all(isinstance(values, dict) for part in record["metrics"].values() for values in part.values())
        readable &= all(isinstance(stage["curve"], dict) and stage["name"] for stage in record["stages"])
        readable &= all(math.isfinite(stage["wall_time"]) for stage in record["stages"])
        readable &= all(isinstance(record["test"][name], list) for name in ("index", "target", "prediction"))
    except (KeyError, TypeError, AttributeError):
        return None
    return record if readable else None


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
    for path in sorted(folder(root, profile, experiment).glob("*.json")):
        record = _read(path)
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
    return any(folder(root, profile, experiment).glob(f"{dataset}-*.json"))


def labelled(records: Sequence[dict[str, Any]], labels: Sequence[str]) -> list[dict[str, Any]]:
    """The records with the labels under which pages show their methods, see `rnclib.recipe.Recipe.label`.

    Parameters
    ----------
    records : sequence of dict
    labels : sequence of str
        One for each record.
    """
    return [record | {"label": label} for record, label in zip(records, labels, strict=True)]


def _identity(record: dict[str, Any]) -> dict[str, Any]:
    """What tells runs of one data set and profile apart; a method is called by its label where it has one."""
    return {"split": record["split"], "method": record.get("label", record["method"]), "seed": record["seed"]}


def _of_one_kind(records: Sequence[dict[str, Any]]) -> None:
    if not records:
        raise ValueError("records: got none; allowed: at least one")
    kinds = sorted({(record["dataset"], record["profile"], record["data"]["checksum"][:8]) for record in records})
    if len(kinds) > 1:
        raise ValueError(f"records: got a mixture of {kinds}; allowed: one data set, checksum and profile")


def frame(records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """One row per run, in their order: identity, key, each metric as a column like ``test_mae`` or ``test_mae_raw``.

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
    rows = []
    for record in records:
        row = {name: record[name] for name in (*IDENTITY, "key")} | _identity(record)
        row |= nothing  # a run that diverged has no metrics
        row |= {f"n_{part}": record["data"][f"n_{part}"] for part in ("train", "test")}
        row["n_pool"] = record["data"].get("n_pool", row["n_train"])
        row["n_test_pool"] = record["data"].get("n_test_pool", row["n_test"])
        row |= {name: record["config"][name] for name in CONDITIONS if name in record["config"]}
        row["baseline"] = not {"fit", "pretrain"} & record["config"].keys()  # not a network of ours
        for part, scales in record["metrics"].items():
            for scale, values in scales.items():
                suffix = "_raw" if scale == "raw" else ""
                row |= {f"{part}_{metric}{suffix}": value for metric, value in values.items()}
        row["wall_time"] = sum(stage["wall_time"] for stage in record["stages"])
        rows.append(row)
    return pd.DataFrame(rows)


def predictions(records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """One row per test sample of each run: identity, ``index``, ``target`` and ``prediction`` in raw units.

    Parameters
    ----------
    records : sequence of dict
        From `load`, of one data set and profile. Runs that diverged have no rows.
    """
    _of_one_kind(records)
    parts = [
        pd.DataFrame(record["test"]).assign(**_identity(record))
        for record in records
        if record["test"]["prediction"]
    ]
    columns = ["index", "target", "prediction", "split", "method", "seed"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def corrupted(records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Test MAE in raw units on corrupted inputs, one row per run, kind and severity; severity 0 is the clean test part.

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
    """Test errors of runs with holes in the range of their training targets, by where the test target lies.

    Parameters
    ----------
    records : sequence of dict
        From `load`, of one data set and profile. Runs without holes have no rows.

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
        As from `frame`, with a column ``nuisance_coefficient``: over the test set, that of the target which the nuisance
        suggests, in a least-squares fit of the prediction on it and the target. It would be 1 if the prediction followed
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
    runs = pd.concat(parts, ignore_index=True)
    for measure in CORRELATION_MEASURES:
        if measure not in runs:  # every run diverged
            runs[measure] = math.nan
    tied, untied = (runs[runs["spurious"] == tie].set_index(["method", "seed"]) for tie in ("tied", "untied"))
    both = tied.index.intersection(untied.index)
    added = tied.loc[both].assign(spurious="added")
    added[list(CORRELATION_MEASURES)] -= untied.loc[both, list(CORRELATION_MEASURES)]
    return pd.concat([runs, added.reset_index()], ignore_index=True)


def corruption_ratio(
    records: Sequence[dict[str, Any]], baseline: str, by: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """Corruption errors of each method relative to `baseline`, over seeds: by kind, and their mean.

    Parameters
    ----------
    records : sequence of dict
        From `load`, of one data set and profile, and one kind of split.
    baseline : str
        A method.
    by : mapping of str to str, optional
        Kind to family: adds the mean over the kinds of each family.

    Returns
    -------
    DataFrame
        Indexed by method and kind, with ``'mean'`` for the mean over all kinds: the geometric mean of the ratios over
        seeds with its 95% interval, columns ``ratio``, ``low``, ``high``, ``p`` and ``n`` as in `data_ratio`.

    Raises
    ------
    ValueError
        If the baseline has no errors on corrupted inputs.
    """
    errors = corruption_errors(corrupted(records), baseline)
    families = errors.assign(kind=errors["kind"].map(by or {})).dropna(subset=["kind"])
    means = families.groupby(["method", "seed", "kind"], sort=False)["ratio"].agg(_geometric_mean).reset_index()
    errors = pd.concat([errors, means])
    runs = frame(records)
    _one_kind_of_split(runs)
    rows = {
        group: _as_ratio(_paired(np.log(part["ratio"].dropna().to_numpy()), _ratio(runs)))
        for group, part in errors[errors["method"] != baseline].groupby(["method", "kind"], sort=False)
        if part["ratio"].notna().any()
    }
    table = pd.DataFrame.from_dict(rows, orient="index", columns=_RATIO)
    table.index = pd.MultiIndex.from_tuples(rows, names=["method", "kind"]) if rows else table.index
    return table


def corruption_errors(errors: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Each run's error on corrupted inputs relative to the baseline's of the same seed, by kind.

    The corruption error of a kind is the run's error summed over severities, divided by the baseline's
    (Hendrycks and Dietterich 2019). Their mean over kinds is a geometric one here: the plain mean of ratios can put
    each of two methods above the other.

    Parameters
    ----------
    errors : DataFrame
        From `corrupted`.
    baseline : str
        A method.

    Returns
    -------
    DataFrame
        Columns ``method``, ``seed``, ``kind`` and ``ratio``; kind ``'mean'`` is the mean over kinds. A kind with a
        prediction that is not finite has no ratio, nor has a mean over it.

    Raises
    ------
    ValueError
        If the baseline has none.
    """
    _check_methods(errors, baseline=baseline)
    groups = ["method", "seed", "kind"]
    corrupt = errors[errors["severity"] > 0].groupby(groups, sort=False)["mae"]
    sums = corrupt.sum().where(corrupt.count() == corrupt.size())  # with a severity that failed there is no sum
    of_baseline = sums.xs(baseline, level="method").reindex(sums.index.droplevel("method")).to_numpy()
    ratio = (sums / of_baseline).rename("ratio")
    mean = ratio.groupby(["method", "seed"], sort=False).agg(_geometric_mean).reset_index().assign(kind="mean")
    return pd.concat([ratio.reset_index(), mean], ignore_index=True)


def _geometric_mean(ratios: pd.Series) -> float:
    """The same whichever of the two methods is divided by; missing if one is."""
    return math.exp(np.log(ratios).mean(skipna=False))


def corruption_growth(records: Sequence[dict[str, Any]], baseline: str) -> pd.DataFrame:
    """How much more a method's error grows under corruption than the baseline's.

    A run's growth is its error on corrupted inputs, averaged over kinds and severities, divided by its error on clean
    ones.

    Parameters
    ----------
    records : sequence of dict
        From `load`, of one data set and profile, and one kind of split.
    baseline : str
        A method.

    Returns
    -------
    DataFrame
        Indexed by method, the baseline first: ``clean``, ``corrupted`` and ``growth`` (means over runs; the growth is a
        geometric one), and the geometric mean of the growth divided by the baseline's of the same seed with its 95%
        interval, ``ratio``, ``low``, ``high``, ``p``, ``n`` as in `data_ratio`.

    Raises
    ------
    ValueError
        If the baseline has no errors on corrupted inputs.
    """
    errors, runs = corrupted(records), frame(records)
    _one_kind_of_split(runs)
    _check_methods(errors, baseline=baseline)
    by_run = errors.groupby([errors["severity"] > 0, "method", "seed"], sort=False)["mae"].agg(
        lambda mae: mae.mean(skipna=False)
    )
    table = by_run.unstack(0).rename(columns={False: "clean", True: "corrupted"})
    log_growth = np.log(table["corrupted"] / table["clean"])
    rows = {}
    methods = [m for m in dict.fromkeys(errors["method"]) if m != baseline]
    for method in [baseline, *methods]:
        row = table.loc[method].mean().to_dict() | {"growth": math.exp(log_growth[method].mean())}
        if method != baseline and len(shared := (log_growth[method] - log_growth[baseline]).dropna()):
            row |= _as_ratio(_paired(shared.to_numpy(), _ratio(runs)))
        rows[method] = row
    return pd.DataFrame.from_dict(rows, orient="index", columns=["clean", "corrupted", "growth", *_RATIO])


def curves(records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """One row per kept epoch of each training stage: identity, ``stage``, ``epoch``, ``train_loss``, ``val_loss``.

    Parameters
    ----------
    records : sequence of dict
        From `load`, of one data set and profile. A stage that diverged has no rows.
    """
    _of_one_kind(records)
    parts = [
        pd.DataFrame({"val_loss": math.nan, **stage["curve"]}).assign(
            stage=stage["name"], **_identity(record)
        )
        for record in records
        for stage in record["stages"]
    ]
    columns = ["epoch", "train_loss", "val_loss", "stage", "split", "method", "seed"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


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
        for stage in record["stages"]:  # runs that share what is trained have the same time and curve of it
            shared = json.dumps([record["dataset"], record["split"], record["seed"], stage], sort_keys=True)
            seconds += stage["wall_time"] if shared not in counted else 0.0
            counted.add(shared)
        versions = record["run"]["versions"]
        where = record["run"].get("gpu", record["run"]["cpu"])
        rows.append({"Processor": where, "torch": versions.get("torch", "–"), "hours": seconds / 3600})
    hours = pd.DataFrame(rows, columns=["Processor", "torch", "hours"]).groupby(["Processor", "torch"])["hours"]
    return hours.agg(["size", "sum"]).set_axis(["Runs", "Hours of training"], axis=1).reset_index()


def view(records: Sequence[dict[str, Any]], method: str, root: str | os.PathLike | None = None) -> pd.DataFrame | None:
    """Two principal components of the features of every sample in a part, from the file beside the record of seed 0.

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
            for path in where.glob(f"*{record['key'][:8]}*.csv"):
                return pd.read_csv(path)
    return None


def interval(values: ArrayLike, test_train_ratio: float, confidence: float = 0.95) -> tuple[float, float, float]:
    """Mean and confidence interval over random splits of one data set: the corrected resampled t.

    Splits of one data set share samples, so the plain t interval is too narrow. Nadeau and Bengio (2003)
    correct it: the variance of the mean of J splits is estimated by (1/J + n_test/n_train)·s². Runs that are
    independent, such as those of several seeds on one split, need no correction.

    Parameters
    ----------
    values : array_like, shape (n_splits,)
        One per split.
    test_train_ratio : float
        n_test / n_train; 0 for independent runs.
    confidence : float

    Returns
    -------
    mean, low, high : float
        The bounds are NaN for fewer than two splits.

    Examples
    --------
    >>> mean, low, high = interval([1.0, 2.0, 3.0], test_train_ratio=0.125)
    >>> round(mean, 3), round(low, 3), round(high, 3)
    (2.0, -0.913, 4.913)
    """
    sample = np.asarray(values, float)
    if sample.ndim != 1 or not len(sample):
        raise ValueError(f"values: got shape {sample.shape}; allowed: (n_splits,), at least one")
    if not test_train_ratio >= 0:
        raise ValueError(f"test_train_ratio: got {test_train_ratio!r}; allowed: a number of at least 0")
    mean, n = float(sample.mean()), len(sample)
    if n < 2:
        return mean, math.nan, math.nan
    error = math.sqrt((1 / n + test_train_ratio) * sample.var(ddof=1))
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * error
    return mean, mean - half, mean + half


def _ratio(runs: pd.DataFrame) -> float:
    if runs["split"].isin(FIXED_SPLITS).all():
        return 0.0
    n_train = runs["n_pool"] if "n_pool" in runs else runs["n_train"]  # what subsets are drawn from
    n_test = runs["n_test_pool"] if "n_test_pool" in runs else runs["n_test"]
    return float((n_test / n_train).mean())


def summarise(runs: pd.DataFrame, metric: str, by: str | list[str] = "method") -> pd.DataFrame:
    """Mean of `metric` over splits with its 95% interval, and the spread of single splits.

    Parameters
    ----------
    runs : DataFrame
        From `frame`.
    metric : str
        One of its columns.
    by : str or list of str

    Returns
    -------
    DataFrame
        Indexed by `by`, with columns ``mean``, ``low``, ``high``, ``median``, ``min``, ``max``, ``sd``, ``n`` and
        ``diverged``; runs that diverged count in the last only.
    """
    rows = {}
    for group, part in runs.groupby(by, sort=False):
        values = part[metric].dropna().to_numpy()
        row = dict.fromkeys(("mean", "low", "high", "median", "min", "max", "sd"), math.nan)
        if len(values):
            mean, low, high = interval(values, _ratio(part))
            row = {"mean": mean, "low": low, "high": high, "median": float(np.median(values))}
            row |= {"min": values.min(), "max": values.max()}
            row["sd"] = values.std(ddof=1) if len(values) > 1 else math.nan
        rows[group] = row | {"n": len(values), "diverged": len(part) - len(values)}
    columns = ["mean", "low", "high", "median", "min", "max", "sd", "n", "diverged"]
    summary = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    if isinstance(by, str) or rows:
        summary.index.names = [by] if isinstance(by, str) else by
    return summary


def _one_kind_of_split(runs: pd.DataFrame) -> None:
    if runs["split"].nunique() != 1:
        raise ValueError(f"runs: got splits {sorted(runs['split'].unique())}; allowed: one kind")


def stuck(runs: pd.DataFrame, threshold: float = 0.5) -> pd.Series:
    """Which runs never left the plateau of a coarse guess: networks whose validation MAE stayed above `threshold`.

    Parameters
    ----------
    runs : DataFrame
        From `frame`.
    threshold : float
        In standard deviations of the target. The validation part decides, so that the test part stays unseen.

    Returns
    -------
    Series of bool
    """
    return (runs["val_mae"] > threshold) & ~runs["baseline"]


def _check_methods(runs: pd.DataFrame, **arguments: str | Sequence[str]) -> None:
    known = sorted(runs["method"].unique())
    for name, given in arguments.items():
        if unknown := [method for method in ([given] if isinstance(given, str) else given) if method not in known]:
            raise ValueError(f"{name}: got {unknown}; allowed: {known}")


def _paired(differences: np.ndarray, test_train_ratio: float) -> dict[str, float]:
    """Mean and interval (see `interval`) of differences, two-sided p value of the same t, and their number."""
    mean, low, high = interval(differences, test_train_ratio)
    n, p = len(differences), math.nan
    if n > 1 and (spread := differences.std(ddof=1)) > 0:
        t = mean / (spread * math.sqrt(1 / n + test_train_ratio))
        p = float(2 * stats.t.sf(abs(t), n - 1))
    return {"mean": mean, "low": low, "high": high, "p": p, "n": n}


def compare(runs: pd.DataFrame, metric: str, baseline: str, methods: Iterable[str] | None = None) -> pd.DataFrame:
    """Difference of each method from `baseline` on the same splits: mean, 95% interval and p value.

    Parameters
    ----------
    runs : DataFrame
        From `frame`, of one kind of split.
    metric : str
    baseline : str
        A method of `runs`.
    methods : iterable of str, optional
        By default every other method.

    Returns
    -------
    DataFrame
        Indexed by method, with columns ``mean`` (method minus baseline), ``low``, ``high``, ``p`` (two-sided
        corrected resampled t), ``better`` (share of splits on which the method has the lower value), ``n`` and
        ``diverged`` (runs of the method that have no value, and so no part in the others).

    Raises
    ------
    ValueError
        If a method has no runs, or `runs` holds several kinds of split or two runs of one method and seed.
    """
    _one_kind_of_split(runs)
    if runs.duplicated(["method", "seed"]).any():
        raise ValueError("runs: got two of one method and seed; allowed: one each")
    values = runs.pivot(index="seed", columns="method", values=metric)
    wanted = [m for m in runs["method"].unique() if m != baseline] if methods is None else list(methods)
    _check_methods(runs, baseline=baseline, methods=wanted)
    rows = {}
    for method in wanted:
        difference = (values[method] - values[baseline]).dropna().to_numpy()
        if not len(difference):
            continue
        rows[method] = _paired(difference, _ratio(runs)) | {
            "better": float((difference < 0).mean()),
            "diverged": int(runs.loc[runs["method"] == method, metric].isna().sum()),
        }  # fmt: skip
    columns = ["mean", "low", "high", "p", "better", "n", "diverged"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("method")


def data_ratio(runs: pd.DataFrame, metric: str, baseline: str, method: str) -> pd.DataFrame:
    """How much data `method` needs for the error that `baseline` reaches, as a multiple of the baseline's data.

    On each split, log error is taken to fall along parallel lines in log training size, of slope −β (fitted to both
    methods). A difference of log errors at one size is then a shift along that size: the ratio is
    exp((log error of `method` − log error of `baseline`) / β). Below 1, `method` needs less data. Splits on which more
    data did not help (β ≤ 0), or that lack a fraction, are left out. Where the lines are not parallel, the ratio
    differs from fraction to fraction, and that of all is a summary only.

    Parameters
    ----------
    runs : DataFrame
        From `frame`, with a column ``fraction``; missing means all samples.
    metric : str
        A positive error.
    baseline, method : str

    Returns
    -------
    DataFrame
        Indexed by fraction, and ``'all'`` for the mean shift: the geometric mean of the ratios over splits with its 95%
        interval (corrected resampled t on their logarithms), columns ``ratio``, ``low``, ``high``, ``p`` (two-sided,
        for a ratio of 1) and ``n``.

    Raises
    ------
    ValueError
        If there are fewer than two fractions, or a method has no runs.
    """
    _one_kind_of_split(runs)
    _check_methods(runs, baseline=baseline, method=method)
    runs = runs.assign(fraction=runs["fraction"].fillna(1.0))
    if runs["fraction"].nunique() < 2:
        raise ValueError(f"runs: got fractions {sorted(runs['fraction'].unique().tolist())}; allowed: at least two")
    both = runs[runs["method"].isin([baseline, method])].dropna(subset=[metric])
    shifts = []
    for _, one in both.groupby("seed"):
        errors = np.log(one.pivot(index="n_train", columns="method", values=metric).dropna())
        if len(errors) < runs["fraction"].nunique() or errors.shape[1] < 2:
            continue
        size = np.log(errors.index.to_numpy())
        size = size - size.mean()
        centred = errors - errors.mean()
        slope = -float((centred.mul(size, axis=0)).to_numpy().sum() / (2 * (size**2).sum()))
        if slope <= 0:  # more data did not help: no amount of data stands for a difference
            continue
        fraction = one.drop_duplicates("n_train").set_index("n_train")["fraction"].reindex(errors.index)
        shift = ((errors[method] - errors[baseline]) / slope).set_axis(fraction)
        shifts.append(pd.concat([shift, pd.Series({"all": shift.mean()})]))
    table = pd.DataFrame(shifts)
    rows = {}
    for fraction in table:
        values = table[fraction].dropna()
        if len(values):
            rows[fraction] = _as_ratio(_paired(values.to_numpy(), _ratio(runs)))
    return pd.DataFrame.from_dict(rows, orient="index", columns=_RATIO).rename_axis("fraction")


_RATIO = ["ratio", "low", "high", "p", "n"]


def _as_ratio(paired: dict[str, float]) -> dict[str, float]:
    """Differences of logarithms as ratios."""
    return {
        "ratio": math.exp(paired["mean"]), "low": math.exp(paired["low"]), "high": math.exp(paired["high"]),
        "p": paired["p"], "n": paired["n"],
    }  # fmt: skip


def holm(p: pd.Series, family: int | None = None) -> pd.Series:
    """P values corrected for being several, by Holm's (1979) step-down method.

    Parameters
    ----------
    p : Series
        Missing values stay missing.
    family : int, optional
        How many comparisons there are, if some are still to come; by default as many as are not missing.

    Raises
    ------
    ValueError
        If there are more than that.

    Examples
    --------
    >>> holm(pd.Series([0.01, 0.04, 0.03])).tolist()
    [0.03, 0.06, 0.06]
    """
    values = p.to_numpy(float)
    known = np.flatnonzero(~np.isnan(values))
    if family is not None and family < len(known):
        raise ValueError(f"family: got {family} with {len(known)} p values; allowed: at least as many")
    order = known[np.argsort(values[known], kind="stable")]
    corrected = np.full(len(values), math.nan)
    factors = (len(order) if family is None else family) - np.arange(len(order))
    corrected[order] = np.minimum(np.maximum.accumulate(values[order] * factors), 1.0)
    return pd.Series(corrected, index=p.index)


def verdicts(comparison: pd.DataFrame) -> pd.Series:
    """What each row of `compare` allows one to say: ``'lower'``, ``'higher'`` or ``'undecided'``.

    Lower or higher than the baseline only if the p value is below 0.05 after correction for all comparisons of the
    table (see `holm`); then the whole 95% interval lies on that side of zero.

    Parameters
    ----------
    comparison : DataFrame
        From `compare`.
    """
    sure = holm(comparison["p"]) < 0.05
    mean = comparison["mean"]
    decided = np.select([sure & (mean < 0), sure & (mean > 0)], ["lower", "higher"], "undecided")
    return pd.Series(decided, index=comparison.index, name="verdict")
