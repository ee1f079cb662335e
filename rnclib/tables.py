"""Tables of runs, ready for a page: errors with intervals, paired differences, methods side by side."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pandas as pd

from rnclib.report import Table
from rnclib.statistics import compare, stuck, summarise

__all__ = ["differences_table", "error_table", "side_by_side", "stuck_table"]


def differences_table(
    comparison: pd.DataFrame,
    caption: str,
    *,
    name: str,
    labels: Mapping[str, str],
    runs: str,
    also: Collection[str] = (),
) -> Table:
    """A table of paired differences: mean, 95% interval, and number of pairs; verdicts are for the verdict page.

    Parameters
    ----------
    comparison : DataFrame
        Columns as from `rnclib.statistics.compare`.
    caption, name : str
        See `Table`.
    labels : mapping of str to str
        Columns that say what is compared, and their headings.
    runs : str
        What the pairs are, such as ``"splits"``.
    also : collection of {'better', 'diverged'}
        Whether to show the fraction of them on which the method is better, and how many runs diverged.
    """
    if unknown := sorted(set(also) - {"better", "diverged"}):
        raise ValueError(f"also: got {unknown}; allowed: 'better', 'diverged'")
    return Table(
        comparison,
        caption,
        name=name,
        columns={
            **labels, "mean": "Difference", "low": "Low", "high": "High",
            **({"better": "Better on"} if "better" in also else {}), "n": runs.capitalize(),
            **({"diverged": "Diverged"} if "diverged" in also else {}),
        },
        format=dict.fromkeys(["mean", "low", "high"], "+.3f") | {"better": ".0%"},
    )  # fmt: skip


def error_table(
    runs: pd.DataFrame, metrics: Mapping[str, str], published: pd.DataFrame | None = None, *, median: bool = False
) -> pd.DataFrame:
    """Errors of each method as text, ready for a page: mean ± half its 95% interval, and what was published.

    Parameters
    ----------
    runs : DataFrame
        From `rnclib.results.frame`, of one kind of split.
    metrics : mapping
        Column of `runs` to heading, such as ``{"test_mae": "MAE"}``.
    published : DataFrame, optional
        Indexed by method, with the same columns. Each of its values is followed by whether it lies "within" the spread
        of our single splits, from the lowest to the highest, "below" or "above" it.
    median : bool
        Add the median over splits, which a few failed runs do not move.

    Returns
    -------
    DataFrame
        Columns ``Method``, ``Splits`` (where runs diverged, such as "11 of 20") and for each metric its heading,
        ``<heading> median`` and ``<heading> published``.

    Raises
    ------
    ValueError
        If `runs` holds several kinds of split.
    """
    if len(runs) and runs["split"].nunique() != 1:
        raise ValueError(f"runs: got splits {sorted(runs['split'].unique())}; allowed: one kind")
    summaries = {metric: summarise(runs, metric) for metric in metrics}
    first = next(iter(summaries.values()))
    table = first.index.to_frame(index=False, name="Method")
    table["Splits"] = [
        f"{n}" + (f" of {n + diverged}" if diverged else "")
        for n, diverged in zip(first["n"], first["diverged"], strict=True)
    ]
    for metric, heading in metrics.items():
        rows = list(summaries[metric].itertuples())
        table[heading] = [_with_interval(row) for row in rows]
        if median:
            table[f"{heading} median"] = ["–" if math.isnan(row.median) else f"{row.median:.3f}" for row in rows]
        if published is not None:
            table[f"{heading} published"] = [
                _against_spread(published[metric].get(row.Index, math.nan), row) for row in rows
            ]
    return table


def stuck_table(runs: pd.DataFrame, threshold: float = 0.5) -> pd.DataFrame:
    """Number of runs of each network that got stuck or diverged, and the test MAE of the others as text.

    Parameters
    ----------
    runs : DataFrame
        From `rnclib.results.frame`, of one kind of split.
    threshold : float
        As in `rnclib.statistics.stuck`.
    """
    networks = runs[~runs["baseline"]]
    counted = networks.assign(Stuck=stuck(networks, threshold), Diverged=networks["val_mae"].isna())
    counts = counted.groupby("method", sort=False)[["Stuck", "Diverged"]].sum()
    others = error_table(networks[~stuck(networks, threshold)], {"test_mae": "Others"}, median=True)
    table = counts.join(others.set_index("Method").drop(columns="Splits"))
    return table.rename_axis("Method").reset_index()


def side_by_side(runs: pd.DataFrame, groups: Sequence[str], metric: str, baseline: str) -> pd.DataFrame:
    """Each method beside the baseline, and their difference, for every value of `groups`.

    Parameters
    ----------
    runs : DataFrame
        From `rnclib.results.frame`, of one kind of split in each group.
    groups : sequence of str
        Columns of `runs`.
    metric : str
    baseline : str
        A method.

    Returns
    -------
    DataFrame
        Columns `groups`, ``method``, ``theirs`` (baseline) and ``ours`` (method) as text, mean ± half the 95% interval;
        and those of `rnclib.statistics.compare` for their difference.
    """
    rows = []
    columns = ["mean", "low", "high", "better", "n", "diverged"]
    for value, part in runs.groupby(list(groups), sort=False, dropna=False):
        errors = error_table(part, {metric: "error"}).set_index("Method")["error"]
        for row in compare(part, metric, baseline).reset_index().to_dict("records"):
            texts = {"theirs": errors[baseline], "ours": errors[row["method"]]}
            rows.append(dict(zip(groups, value, strict=True)) | row | texts)
    return pd.DataFrame(rows, columns=[*groups, "method", "theirs", "ours", *columns])


def _with_interval(row: Any) -> str:
    if math.isnan(row.mean):
        return "–"
    return f"{row.mean:.3f}" if math.isnan(row.low) else f"{row.mean:.3f} ± {row.high - row.mean:.3f}"


def _against_spread(value: float, row: Any) -> str:
    if math.isnan(value):
        return "–"
    if row.n < 2:
        return f"{value:.3f}"
    where = "below" if value < row.min else "above" if value > row.max else "within"
    return f"{value:.3f} ({where})"
