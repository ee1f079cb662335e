"""What wins on a task, and whether the aims that were named beforehand are met."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import pandas as pd

from rnclib import across
from rnclib.chapters.tasks import CALLED, EVERY_ARM, TRAINED, frame
from rnclib.paired import Paired
from rnclib.protocols import concrete
from rnclib.protocols.tasks import ARMS, ENSEMBLE, TASKS, parts_of
from rnclib.statistics import correlation

__all__ = ["N_AIMS", "beside_published", "by_network", "not_run", "reached", "ways", "winner"]


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


def _by_network(table: pd.DataFrame, arms: Collection[str] = EVERY_ARM) -> pd.DataFrame:
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
    common = _on_common_splits(_by_network(table[table["dataset"] == dataset], TRAINED))
    means = common.groupby(["network", "arm"], sort=False)[["val_mae_raw", "test_mae_raw", "test_rmse_raw"]].mean()
    counted = common.groupby(["network", "arm"], sort=False)["seed"].nunique()
    means = means.set_axis(["val", "mae", "rmse"], axis=1).assign(n=counted).reset_index()
    return means.assign(arm=means["arm"].str.partition(": ")[2])


def ways(table: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """The runs of every way to predict a task: arms and ensembles of each network, and the other methods.

    Each has the regressors that validation chose.

    Parameters
    ----------
    table : DataFrame
        From `frame`.
    dataset : str

    Returns
    -------
    DataFrame
        Of the columns of `table`; ``method`` is called as on a page, such as ``'RnC (graphs)'``.
    """
    its = table[table["dataset"] == dataset]
    networks = _by_network(its, TRAINED)
    networks, others = networks.assign(method=networks["arm"].map(_called)), its[its["network"].isna()]
    return pd.concat([networks, others.assign(method=others["arm"].map(CALLED))], ignore_index=True)


def _called(name: str) -> str:
    """A network and an arm of it, as pages call them."""
    network, _, arm = name.partition(": ")
    return f"{CALLED.get(arm, arm)} ({network})"


def not_run(table: pd.DataFrame, dataset: str) -> list[str]:
    """Networks of a task that have no runs yet, so that another winner may come.

    Parameters
    ----------
    table : DataFrame
        From `frame`.
    dataset : str
    """
    present = set(table.loc[table["dataset"] == dataset, "network"].dropna())
    return [name for name in TASKS[dataset].networks if name not in present] if present else []


#: How many were named.
N_AIMS = 5
#: What the winner on ESOL is to reach, beside the peers: standardised errors, the best of the course project's table.
_ESOL_AIMS = {"test_mae": 0.212, "test_rmse": 0.297}


def reached(table: pd.DataFrame, published: pd.DataFrame | None = None) -> pd.DataFrame:
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
        A row for each aim whose runs there are: ``task``, ``measure``, ``winner`` (as pages call it), ``alone``
        (whether it is trained end to end, and its own twin), ``value``, ``twin``, ``bound`` and ``than`` (what it is),
        ``low`` and ``high`` (95% interval of value − bound), ``n`` (splits) and ``met``. On the published rows the
        winner is that of the five folds' validation sets, which have no test row in them.
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
            rows.append({"task": "esol", "measure": measure, "than": than} | row)
    if published is not None:
        first, twin, chosen = _winner_and_twin(published, "concrete")
        best = float(concrete.PUBLISHED["mae"].min())
        row = _aim(chosen, first, twin, "test_mae_raw", best)
        told = {"task": "concrete", "measure": "test_mae_raw", "than": "published table"}
        rows.append(told | row)
    return pd.DataFrame(rows)


def _winner_and_twin(table: pd.DataFrame, dataset: str) -> tuple[str, str, dict[str, pd.DataFrame]]:
    """Names of the winner and of its twin, or of their ensembles, and the runs of all arms by name.

    The winner's ensemble stands for it where that has the lower mean validation error.
    """
    network, arm = winner(table, dataset)
    by_arm = _by_network(table, TRAINED).groupby("arm")
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
    told = {"winner": _called(winner), "alone": winner == twin, "value": value, "twin": twins, "bound": value - mean}
    return told | {"low": low, "high": high, "n": len(off), "met": bool(mean <= 0)}


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
        table = pd.concat([table, beside.rename(lambda arm: f"{arm}, this page" if arm in TRAINED else CALLED[arm])])
    others = concrete.PUBLISHED[["mae", "mae_sd", "rmse"]].add_suffix("_published")
    table = table.join(others, how="outer").loc[[*table.index, *others.index.difference(table.index, sort=False)]]
    off = (table["mae"] - table["mae_published"]).abs()
    table["within"] = (off <= 2 * table["mae_sd_published"]).where(off.notna())
    return table.rename_axis("method")
