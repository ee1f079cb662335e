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
from rnclib.paired import Paired
from rnclib.protocols import concrete
from rnclib.protocols.tasks import (
    ARMS,
    ENSEMBLE,
    EQUAL_TIME,
    HEADS,
    OTHERS,
    TASKS,
    parts_of,
    runs,
    same_as,
    settings_of,
)  # fmt: skip
from rnclib.statistics import correlation

__all__ = [
    "CALLED", "CHAPTER", "KINDS", "MARGIN", "PRIMARY", "PROPERTIES", "REAL", "against", "aims", "answers",
    "beside_published", "by_network", "compared", "costs", "frame", "groups", "named", "of_few", "over_groups",
    "properties", "regressors", "related", "same_regressor", "winner",
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
    "end to end": "end to end", EQUAL_TIME: "end to end, equal time", "RnC": "RnC", "joint": "joint",
    "gaussian process": "Gaussian process", "svr": "support vectors", "boosting": "gradient boosting",
    "trees": "extra trees", "catboost": "CatBoost", "chemprop": "chemprop", "ridge": "ridge",
    "neighbours": "nearest neighbours", "ridge on pixels": "ridge on pixels", "training mean": "mean",
}  # fmt: skip
_ARMS = (*ARMS, EQUAL_TIME)
_ENSEMBLES = tuple(f"{arm}, {ENSEMBLE}" for arm in _ARMS)

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
        if parts_of(run.method)[1] in (*_ARMS, *_ENSEMBLES, "boosting")
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
    return across.chosen(table[_first(table) & ~table["arm"].isin(_ENSEMBLES)])


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
        As from `rnclib.across.decide`, by ``'RnC against end to end'``, with the plain mean of the same effects and its
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
        models[f"{arm} against {other}"] = OverTasks.of(found)
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

    Parameters
    ----------
    chosen : DataFrame
        From `compared`.
    arm, other : str
    """
    effects, rows = against(chosen, arm, other), {}
    for words, names in groups().items():
        part = effects[effects.index.isin(names)]
        if part["error"].notna().sum() >= 3:
            rows[words] = _estimate(part)
    return pd.DataFrame.from_dict(rows, orient="index")


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
    its = table[_first(table) & table["measured"] & table["arm"].isin(_ARMS)]
    chosen, by = across.chosen(its), ["dataset", "arm", "seed"]
    lowest = its.groupby(by)["test_mae_raw"].min()
    ratios = np.log(chosen.set_index(by)["test_mae_raw"] / lowest)
    cost = np.exp(ratios.groupby(["dataset", "arm"]).mean().groupby("arm").mean())
    shares = chosen.groupby("arm")["head"].value_counts(normalize=True).unstack(fill_value=0.0)
    return pd.DataFrame({"cost": cost}).join(shares).reindex([arm for arm in _ARMS if arm in cost])


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
    """Spearman's correlation of the effect with each property, over tasks: ``rho`` and ``n`` by property.

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
            rho = stats.spearmanr(both.loc[known, name], effects.loc[known, "effect"]).statistic
            rows[name] = {"rho": float(rho), "n": int(known.sum())}
    return pd.DataFrame.from_dict(rows, orient="index")


# --- by themselves ----------------------------------------------------------------------------------------


def winner(table: pd.DataFrame, dataset: str) -> tuple[str, str]:
    """Network and arm with the lowest mean validation error on a task, on the splits that all networks have.

    Each has the regressors that validation chose.

    Parameters
    ----------
    table : DataFrame
        From `frame`.
    dataset : str
    """
    chosen = _on_common_splits(_by_network(table[table["dataset"] == dataset]))
    network, _, arm = across.errors(chosen, "val_mae_raw").loc[dataset].idxmin().partition(": ")
    return network, arm


def _on_common_splits(chosen: pd.DataFrame) -> pd.DataFrame:
    """The runs on the splits that all networks have."""
    splits = [set(its["seed"]) for _, its in chosen.groupby("network")]
    return chosen[chosen["seed"].isin(set.intersection(*splits))]


def _by_network(table: pd.DataFrame, arms: Collection[str] = _ARMS) -> pd.DataFrame:
    """The arms of each network with the regressors that validation chose; arms are called ``'graphs: RnC'``."""
    its = table[table["arm"].isin(arms)]
    return across.chosen(its.assign(arm=its["network"] + ": " + its["arm"]))


def by_network(table: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """Mean errors of every network and arm, and of ensembles, on the splits that all networks have.

    Parameters
    ----------
    table : DataFrame
        From `frame`.
    dataset : str

    Returns
    -------
    DataFrame
        A row for each network and arm: ``network``, ``arm``, ``val`` and ``mae`` (MAE), ``rmse``, ``n``.
    """
    common = _on_common_splits(_by_network(table[table["dataset"] == dataset], (*_ARMS, *_ENSEMBLES)))
    means = common.groupby(["network", "arm"], sort=False)[["val_mae_raw", "test_mae_raw", "test_rmse_raw"]].mean()
    counted = common.groupby(["network", "arm"], sort=False)["seed"].nunique()
    means = means.set_axis(["val", "mae", "rmse"], axis=1).assign(n=counted).reset_index()
    return means.assign(arm=means["arm"].str.partition(": ")[2])


#: What the winner on ESOL is to reach, beside the peers: standardised errors, the best of the course project's table.
_ESOL_AIMS = {"test_mae": 0.212, "test_rmse": 0.297}


def aims(table: pd.DataFrame, published: pd.DataFrame | None = None) -> pd.DataFrame:
    """The aims that were named beforehand: what the winner reached, and its twin that was trained end to end.

    Parameters
    ----------
    table : DataFrame
        From `frame`.
    published : DataFrame, optional
        From `frame` too, of our runs on the test rows of the published table of Concrete.

    Returns
    -------
    DataFrame
        A row for each aim whose runs there are: ``task``, ``measure``, ``winner`` (network and arm), ``value``,
        ``twin``, ``bound`` and ``than`` (what it is), ``low`` and ``high`` (95% interval of value − bound), ``n``
        (splits) and ``met``. On the published rows the winner is that of the five folds' validation sets, which have no
        test row in them.
    """
    rows = []
    its = table[table["dataset"] == "esol"]
    if its["arm"].isin(ARMS).any():
        first, twin, chosen = _winner_and_twin(its, "esol")
        peers = {name: part.set_index("seed") for name, part in its[its["network"].isna()].groupby("arm")}
        rmse = "test_rmse_raw"
        bounds: list[tuple[str, Any, str]] = [(rmse, peers["gaussian process"][rmse], "Gaussian process")]
        if "chemprop" in peers:
            bounds.append((rmse, 0.9 * peers["chemprop"][rmse], "0.9 × chemprop"))
        bounds += [(measure, bound, "course project") for measure, bound in _ESOL_AIMS.items()]
        for measure, bound, than in bounds:
            row = _aim(chosen, first, twin, measure, bound)
            rows.append({"task": "esol", "measure": measure, "winner": first, "than": than} | row)
    if published is not None:
        first, twin, chosen = _winner_and_twin(published, "concrete")
        best = float(concrete.PUBLISHED["mae"].min())
        row = _aim(chosen, first, twin, "test_mae_raw", best)
        told = {"task": "concrete", "measure": "test_mae_raw", "winner": first, "than": "published table"}
        rows.append(told | row)
    return pd.DataFrame(rows)


def _winner_and_twin(table: pd.DataFrame, dataset: str) -> tuple[str, str, dict[str, pd.DataFrame]]:
    """Names of the winner and of its twin, or of their ensembles, and the runs of all arms by name.

    The winner's ensemble stands for it where that has the lower mean validation error.
    """
    network, arm = winner(table, dataset)
    by_arm = _by_network(table, (*_ARMS, *_ENSEMBLES)).groupby("arm")
    chosen = {str(name): part.set_index("seed") for name, part in by_arm}
    names = [f"{network}: {one}" for one in (arm, "end to end")]
    many = [f"{name}, {ENSEMBLE}" for name in names]
    if set(many) <= chosen.keys():
        alone, together = (chosen[one[0]]["val_mae_raw"] for one in (names, many))
        if together.mean() < alone.reindex(together.index).mean():
            names = many
    return names[0], names[1], chosen


def _aim(chosen: dict[str, pd.DataFrame], winner: str, twin: str, measure: str, bound: Any) -> dict[str, Any]:
    ours = chosen[winner]
    off = (ours[measure] - bound).dropna()
    mean, low, high = Paired(off.to_numpy(), correlation(ours)).interval()
    value, twins = ours.loc[off.index, measure].mean(), chosen[twin].reindex(off.index)[measure].mean()
    return {"value": value, "twin": twins, "bound": value - mean, "low": low, "high": high, "n": len(off),
            "met": bool(mean <= 0)}  # fmt: skip


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


def beside_published(records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """The published table of Concrete beside our runs of its protocol, and of ours on the same rows.

    Parameters
    ----------
    records : sequence of dict
        Of `published`.

    Returns
    -------
    DataFrame
        By method: ``trial``, ``mae``, ``mae_sd``, ``rmse``, and ``mae_published``, ``mae_sd_published``,
        ``rmse_published``; and ``within``, whether the mean MAE lies within twice the published standard deviation.
    """
    trials = [record for record in records if ", trial " in record["method"]]
    ours = [record for record in records if ", trial " not in record["method"]]
    table = concrete.chosen(trials)
    if ours:
        chosen = across.chosen(frame(ours))
        chosen = chosen[chosen["arm"].isin({parts_of(record["method"])[1] for record in ours})]
        by_arm = chosen.groupby("arm", sort=False)
        beside = pd.DataFrame(
            {"mae": by_arm["test_mae_raw"].mean(), "mae_sd": by_arm["test_mae_raw"].std(),
             "rmse": by_arm["test_rmse_raw"].mean()}
        )  # fmt: skip
        trained = (*_ARMS, *_ENSEMBLES)
        table = pd.concat([table, beside.rename(lambda arm: f"{arm}, this page" if arm in trained else CALLED[arm])])
    others = concrete.PUBLISHED[["mae", "mae_sd", "rmse"]].add_suffix("_published")
    table = table.join(others, how="outer").loc[[*table.index, *others.index.difference(table.index, sort=False)]]
    off = (table["mae"] - table["mae_published"]).abs()
    table["within"] = (off <= 2 * table["mae_sd_published"]).where(off.notna())
    return table.rename_axis("method")


_OVER_TASKS = (
    "tasks-errors", "tasks-rmse", "tasks-estimates", "tasks-groups", "tasks-peers", "tasks-costs", "tasks-chosen",
    "tasks-regressors", "tasks-losses",
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
