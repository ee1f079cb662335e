"""Across tasks: does Rank-N-Contrast help on real tasks of many kinds, beside what people would use instead?"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from rnclib import across, results
from rnclib.across import OverTasks
from rnclib.chapters.base import Chapter, Experiment, Origin, Scope
from rnclib.data import catalogue
from rnclib.experiment import Run
from rnclib.protocols import concrete
from rnclib.protocols.settings import settings_of
from rnclib.protocols.tasks import ARMS, ENSEMBLE, EQUAL_TIME, HEADS, OTHERS, TASKS, parts_of, runs, same_as

__all__ = [
    "CALLED", "CHAPTER", "ENSEMBLES", "EVERY_ARM", "KINDS", "MARGIN", "PRIMARY", "PROPERTIES", "REAL", "TRAINED",
    "against", "answers", "compared", "costs", "frame", "groups", "named", "of_few", "over_groups", "pair",
    "properties", "regressors", "related", "same_regressor",
]  # fmt: skip

#: Of practical equality, on the scale of logarithms: 5% of the error.
MARGIN = math.log(1 / 0.95)
#: The comparisons that are decided, each over all real tasks.
PRIMARY = (("RnC", "end to end"), ("joint", "end to end"), ("RnC", EQUAL_TIME))
#: Tasks with measured data; the others are outside every estimate.
REAL = tuple(name for name, task in TASKS.items() if task.source.measured)
#: Kinds of tasks, as the page calls them.
KINDS = {"molecules": "molecules", "table": "tables", "images": "pictures"}
#: Arms and peers, as the page calls them.
CALLED = {
    "end to end": "end to end", EQUAL_TIME: "end to end, longer search", "RnC": "RnC", "joint": "joint",
    "gaussian process": "Gaussian process", "svr": "support vectors", "boosting": "gradient boosting",
    "trees": "extra trees", "catboost": "CatBoost", "chemprop": "chemprop", "ridge": "ridge",
    "neighbours": "nearest neighbours", "ridge on pixels": "ridge on pixels", "training mean": "mean",
}  # fmt: skip
#: The arms, and end-to-end training with equal time.
EVERY_ARM = (*ARMS, EQUAL_TIME)
#: Names of their ensembles.
ENSEMBLES = tuple(f"{arm}, {ENSEMBLE}" for arm in EVERY_ARM)
#: Whatever is trained here, alone or five together.
TRAINED = (*EVERY_ARM, *ENSEMBLES)

_SHORT_SPLITS = {"quick": 2, "smoke": 1}


def grid(scope: Scope) -> list[Run]:
    """Three arms of the same network with every regressor, other losses, and peers, on one task.

    Parameters
    ----------
    scope : Scope
        Profile ``'paper'`` has the settings that the search found; arms that have not been searched are left out.
    """
    settings = settings_of(scope.dataset, scope.profile, results.results_dir())
    n_splits = scope.n_seeds or _SHORT_SPLITS.get(scope.profile)
    return runs(scope.dataset, settings, profile=scope.profile, n_splits=n_splits)


def published(scope: Scope) -> list[Run]:
    """The published table of Concrete with its own protocol, and the arms and gradient boosting on the same rows.

    Parameters
    ----------
    scope : Scope
    """
    ours = [
        run.but(experiment="concrete", split="published")
        for run in grid(Scope("concrete", scope.profile, n_seeds=concrete.FOLDS))
        if parts_of(run.method)[1] in (*TRAINED, "boosting")
    ]
    return [*concrete.runs(scope.profile), *ours]


def named(tasks: str) -> list[str]:
    """The data sets that a parameter asks for.

    Parameters
    ----------
    tasks : str
        ``'all'``, or names separated by commas.

    Raises
    ------
    ValueError
        If there is no such task.

    Examples
    --------
    >>> named("diabetes, esol")
    ['diabetes', 'esol']
    """
    names = list(TASKS) if tasks == "all" else [name.strip() for name in tasks.split(",") if name.strip()]
    if not names or (unknown := [name for name in names if name not in TASKS]):
        raise ValueError(f"tasks: got {unknown if names else tasks!r}; allowed: 'all', or {', '.join(TASKS)}")
    return names


# --- from records to what is compared ---------------------------------------------------------------------


def frame(records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """One row for each run, of all tasks.

    Parameters
    ----------
    records : sequence of dict
        Of `grid`, of one profile.

    Returns
    -------
    DataFrame
        As from `rnclib.results.frame`, with ``network``, ``arm`` and ``head`` as from
        `rnclib.protocols.tasks.parts_of`, ``kind``, ``measured`` and ``peak_mb``, the memory that the run took. Arms of
        another effort that found the same settings have the same rows.
    """
    if not records:
        return pd.DataFrame(columns=["dataset", "network", "arm", "head", "seed", "measured", "kind", "val_mae_raw",
                                     "test_mae_raw", "test_rmse_raw", "wall_time", "peak_mb"]
                            ).astype({"measured": bool})  # fmt: skip
    by_task: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        by_task.setdefault(record["dataset"], []).append(record)
    parts = []
    for dataset, its in by_task.items():
        source = catalogue.source(dataset)
        of = results.frame(its).assign(kind=source.kind, measured=source.measured)
        of["peak_mb"] = [record["run"].get("peak_mb", math.nan) for record in its]
        parted = zip(*(parts_of(record["method"]) for record in its), strict=True)
        of = of.assign(**dict(zip(("network", "arm", "head"), map(list, parted), strict=True)))
        parts.append(of)
        for network, by_arm in settings_of(dataset, its[0]["profile"], results.results_dir()).items():
            for arm, chosen in by_arm.items():
                if (same := same_as(arm)) is not None and chosen == by_arm.get(same):
                    parts.append(of[(of["network"] == network) & (of["arm"] == same)].assign(arm=arm))
    return pd.concat(parts, ignore_index=True)


def compared(table: pd.DataFrame) -> pd.DataFrame:
    """The runs that are compared over tasks: of the first network, with the regressor that validation chose; and peers.

    Ensembles are no part of it.

    Parameters
    ----------
    table : DataFrame
        From `frame`.
    """
    return across.chosen(table[_first(table) & ~table["arm"].isin(ENSEMBLES)])


def _first(table: pd.DataFrame) -> pd.Series:
    """Whether a run is of a peer, or of the network on which tasks are compared."""
    first = table["dataset"].map({name: task.networks[0] for name, task in TASKS.items()})
    return table["network"].isna() | (table["network"] == first)


# --- over tasks -------------------------------------------------------------------------------------------


def answers(chosen: pd.DataFrame, pairs: Sequence[tuple[str, str]] = PRIMARY) -> pd.DataFrame:
    """The estimate over real tasks of each comparison, corrected together, with its verdict.

    Parameters
    ----------
    chosen : DataFrame
        From `compared`.
    pairs : sequence of (str, str)
        Arms; the first is hoped to have the lower error.

    Returns
    -------
    DataFrame
        As from `rnclib.across.decide`, by the name of `pair`, with the plain mean of the same effects and its
        interval: ``plain``, ``plain_low``, ``plain_high``; and ``failed``, data sets on which one of the two arms has
        failed. The verdict is ``'not measured'`` where a real task lacks runs, and ``'undecided'`` where the first arm
        has failed on a task and would have held, or been equal. Comparisons of fewer than three tasks are left out.
    """
    real = chosen[chosen["measured"]]
    if real.empty:
        return pd.DataFrame()
    models, rows, every = {}, [], across.errors(real)
    for arm, other in pairs:
        found = against(real, arm, other)
        known = found.loc[found["error"].notna(), "effect"]
        if len(known) < 3:
            continue
        models[pair(arm, other)] = OverTasks.of(found)
        half = stats.t.ppf(0.975, len(known) - 1) * stats.sem(known)
        errors = every[[arm, other]]
        failed = np.isinf(errors)
        rows.append(
            {
                "plain": known.mean(), "plain_low": known.mean() - half, "plain_high": known.mean() + half,
                "failed": tuple(errors.index[failed.any(axis=1)]), "lame": bool(failed[arm].any()),
                "complete": bool(errors.notna().all(axis=1).reindex(REAL, fill_value=False).all()),
            }
        )  # fmt: skip
    if not models:
        return pd.DataFrame()
    table = across.decide(models, MARGIN, len(pairs)).join(pd.DataFrame(rows, index=list(models)))
    table.loc[table["lame"] & table["verdict"].isin(["holds", "practically equal"]), "verdict"] = "undecided"
    table.loc[~table["complete"], ["verdict", "needed"]] = ["not measured", np.nan]
    return table.drop(columns=["lame", "complete"])


def pair(arm: str, other: str) -> str:
    """What a comparison is called.

    Parameters
    ----------
    arm, other : str

    Examples
    --------
    >>> pair("RnC", "end to end, equal time")
    'RnC against end to end, longer search'
    """
    return f"{CALLED[arm]} against {CALLED[other]}"


def against(chosen: pd.DataFrame, arm: str, other: str) -> pd.DataFrame:
    """The effect of an arm on each task that has both, see `rnclib.across.effects`.

    Parameters
    ----------
    chosen : DataFrame
        From `compared`.
    arm, other : str
    """
    both = chosen.groupby("dataset")["arm"].transform(lambda arms: {arm, other} <= set(arms)).astype(bool)
    return across.effects(chosen[both], arm, other)


def groups() -> dict[str, tuple[str, ...]]:
    """Real tasks by the words for a choice of them: of one kind, and all without some."""
    of_kind = {kind: [name for name in REAL if TASKS[name].source.kind == kind] for kind in KINDS}
    repeated = ("aqsoldb", "freesolv")
    found: dict[str, Collection[str]] = {"all": REAL}
    found |= {f"{KINDS[kind]} alone": of_kind[kind] for kind in ("molecules", "table")}
    found |= {f"without {word}": [name for name in REAL if name not in of_kind[kind]] for kind, word in KINDS.items()}
    found["without AqSolDB and FreeSolv"] = [name for name in REAL if name not in repeated]
    return {words: tuple(names) for words, names in found.items()}


def over_groups(chosen: pd.DataFrame, arm: str, other: str) -> pd.DataFrame:
    """The estimate for each of `groups`: ``mean``, ``low``, ``high``, ``spread``, ``n`` and ``lower``, by group.

    A group with the tasks of one before it is left out; last is that without the task that counts most. With fewer than
    five tasks ``lower`` is missing: two degrees of freedom forecast nothing.

    Parameters
    ----------
    chosen : DataFrame
        From `compared`.
    arm, other : str
    """
    effects, rows, seen = against(chosen, arm, other), {}, []
    real = effects[effects.index.isin(REAL)]
    some = dict(groups())
    if real["error"].notna().sum() > 3:
        heaviest = across.weights(real).idxmax()
        some[f"without {TASKS[heaviest].source.title}, which counts most"] = tuple(set(REAL) - {heaviest})
    for words, names in some.items():
        part = effects[effects.index.isin(names)]
        if part["error"].notna().sum() >= 3 and set(part.index) not in seen:
            seen.append(set(part.index))
            rows[words] = _estimate(part)
    found = pd.DataFrame.from_dict(rows, orient="index")
    return found.assign(lower=found["lower"].where(found["n"] >= 5)) if len(found) else found


def _estimate(effects: pd.DataFrame) -> dict[str, float]:
    model = OverTasks.of(effects)
    low, high = model.interval
    lower = model.new_task(MARGIN)[0]
    return {"mean": model.mean, "low": low, "high": high, "spread": model.spread, "n": model.n, "lower": lower}


def same_regressor(table: pd.DataFrame) -> pd.DataFrame:
    """The estimate over real tasks with one regressor in both arms: a row for each comparison and regressor.

    Parameters
    ----------
    table : DataFrame
        From `frame`.
    """
    first = table[_first(table) & table["measured"]]
    rows = []
    for arm, other in PRIMARY[:2]:
        for head in (one or "own layer" for one in HEADS[arm]):
            effects = against(first[first["head"] == head], arm, other)
            if effects["error"].notna().sum() >= 3:
                rows.append({"arm": arm, "other": other, "head": head} | _estimate(effects))
    return pd.DataFrame(rows)


def regressors(table: pd.DataFrame) -> pd.DataFrame:
    """What choosing a regressor on the validation set costs: a row for each arm.

    Parameters
    ----------
    table : DataFrame
        From `frame`.

    Returns
    -------
    DataFrame
        By arm: ``cost``, the test MAE of the chosen regressor in multiples of the lowest of all, as geometric mean over
        real tasks of the means over splits; and for each regressor the fraction of splits on which it was chosen.
    """
    its = table[_first(table) & table["measured"] & table["arm"].isin(EVERY_ARM)]
    chosen, by = across.chosen(its), ["dataset", "arm", "seed"]
    lowest = its.groupby(by)["test_mae_raw"].min()
    ratios = np.log(chosen.set_index(by)["test_mae_raw"] / lowest)
    cost = np.exp(ratios.groupby(["dataset", "arm"]).mean().groupby("arm").mean())
    shares = chosen.groupby("arm")["head"].value_counts(normalize=True).unstack(fill_value=0.0)
    return pd.DataFrame({"cost": cost}).join(shares).reindex([arm for arm in EVERY_ARM if arm in cost])


# --- where it helps ---------------------------------------------------------------------------------------

#: Properties of a task to which the effect may be related, in words.
PROPERTIES = {
    "n_train": "training samples", "noise": "error of extra trees, standard deviations",
    "ties": "pairs with equal targets, fraction", "skewness": "skewness of the target",
}  # fmt: skip


def properties(records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """What sets tasks apart, by data set: the columns of `PROPERTIES`.

    The distribution of targets is that of the test samples which records keep.

    Parameters
    ----------
    records : sequence of dict
        Of `grid`.
    """
    targets: dict[str, dict[int, float]] = {}
    rows: dict[str, dict[str, list[float]]] = {}
    for record in records:
        name = record["dataset"]
        its = rows.setdefault(name, {"n_train": [], "noise": []})
        its["n_train"].append(record["data"]["n_train"])
        targets.setdefault(name, {}).update(zip(record["test"]["index"], record["test"]["target"], strict=True))
        if record["method"] == "trees" and record["metrics"]:
            its["noise"].append(record["metrics"]["test"]["standardised"]["mae"])
    means = {name: {one: np.mean(of) if of else np.nan for one, of in its.items()} for name, its in rows.items()}
    known = {name: np.array(list(by_index.values())) for name, by_index in targets.items()}
    ties = {name: _ties(values) for name, values in known.items()}
    skewness = {name: stats.skew(values) for name, values in known.items()}
    found = pd.DataFrame.from_dict(means, orient="index").reindex(columns=["n_train", "noise"])
    return found.assign(ties=pd.Series(ties), skewness=pd.Series(skewness))


def _ties(values: np.ndarray) -> float:
    """Fraction of pairs that are equal, which does not depend on how many values there are."""
    counts = np.unique(values, return_counts=True)[1]
    return float((counts * (counts - 1)).sum() / (len(values) * (len(values) - 1)))


def related(effects: pd.DataFrame, of: pd.DataFrame) -> pd.DataFrame:
    """Spearman's correlation of the effect with each property, over tasks: ``rho``, ``p`` and ``n`` by property.

    Parameters
    ----------
    effects : DataFrame
        From `against`.
    of : DataFrame
        From `properties`.
    """
    both = of.loc[effects.index]
    rows = {}
    for name in PROPERTIES:
        known = both[name].notna()
        if known.sum() >= 3:
            rho, p = stats.spearmanr(both.loc[known, name], effects.loc[known, "effect"])
            rows[name] = {"rho": float(rho), "p": float(p), "n": int(known.sum())}
    return pd.DataFrame.from_dict(rows, orient="index")


# --- by themselves ----------------------------------------------------------------------------------------


def of_few(table: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """The other losses, and the arms after as many trials, on a task: runs with the regressor that validation chose.

    Parameters
    ----------
    table : DataFrame
        From `frame`.
    dataset : str
    """
    chosen = compared(table[table["dataset"] == dataset])
    return chosen[chosen["arm"].isin(OTHERS) | chosen["arm"].str.endswith(" trials")]


def costs(table: pd.DataFrame) -> pd.DataFrame:
    """Time and memory of one fit, its regressor included: medians over real tasks of means over splits, and extremes.

    Parameters
    ----------
    table : DataFrame
        From `frame`.

    Returns
    -------
    DataFrame
        By arm of `compared`: ``median``, ``least`` and ``most`` in seconds, ``ratio``, the median over tasks of the
        time against end-to-end training, ``memory``, the median in MB, and ``n``, the number of tasks. Of the runs that
        share a network the first has trained it, so the largest memory among them counts.
    """
    table = table[table["measured"]]
    if table.empty:
        return pd.DataFrame(columns=["median", "least", "most", "ratio", "memory", "n"])
    seconds = across.errors(compared(table), "wall_time")
    ratio = seconds.div(seconds["end to end"], axis=0) if "end to end" in seconds else seconds * np.nan
    most = table[_first(table)].groupby(["dataset", "arm", "seed"])["peak_mb"].max()
    memory = most.groupby(["dataset", "arm"]).mean().groupby("arm").median()
    measures = {"median": seconds.median(), "least": seconds.min(), "most": seconds.max(), "ratio": ratio.median()}
    return pd.DataFrame(measures).assign(memory=memory, n=seconds.notna().sum()).rename_axis("arm")


_OVER_TASKS = (
    "tasks-by-task", "tasks-errors", "tasks-rmse", "tasks-estimates", "tasks-groups", "tasks-peers", "tasks-costs",
    "tasks-chosen", "tasks-regressors", "tasks-losses", "tasks-networks",
)  # fmt: skip
_FIGURES = ("tasks-effects", "tasks-ranks", "tasks-profile", "tasks-cost-figure", "tasks-related")

CHAPTER = Chapter(
    "tasks",
    tables=(*_OVER_TASKS, "tasks-published", "tasks-aims", "tasks-search", "tasks-machines"),
    figures=_FIGURES,
    experiments=(
        Experiment("tasks", grid, tuple(TASKS), one_machine=True),
        Experiment("concrete", published, ("concrete",), seeded=False, one_machine=True),
    ),
    origins={
        **dict.fromkeys((*_OVER_TASKS, *_FIGURES), Origin(("tasks",))),
        "tasks-published": Origin(("concrete",)),
        "tasks-search": Origin(measured="search"),
    },
    quick={"profile": "quick", "tasks": "diabetes,concrete,esol"},
    smoke={"profile": "smoke", "tasks": "diabetes"},
)
