"""Statistics over runs: intervals, paired differences, ratios, corrected p values. Tidy frames in, tidy frames out.

Intervals and tests are those of `rnclib.paired`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from rnclib.paired import Paired, correlation_of
from rnclib.results import corrupted, frame

__all__ = [
    "READ_AT", "between_machines", "compare", "correlation", "corruption_errors", "corruption_growth",
    "corruption_ratio", "data_ratio", "holm", "parallel", "stuck", "summarise", "variance_components",
]  # fmt: skip


def _one_kind_of_split(runs: pd.DataFrame) -> None:
    if runs["split"].nunique() != 1:
        raise ValueError(f"runs: got splits {sorted(runs['split'].unique())}; allowed: one kind")


def _check_methods(runs: pd.DataFrame, **arguments: str | Sequence[str]) -> None:
    known = sorted(runs["method"].unique())
    for name, given in arguments.items():
        if unknown := [method for method in ([given] if isinstance(given, str) else given) if method not in known]:
            raise ValueError(f"{name}: got {unknown}; allowed: {known}")


def correlation(runs: pd.DataFrame) -> float:
    """Correlation between the differences on two splits; subsets count as what they are drawn from.

    Parameters
    ----------
    runs : DataFrame
        From `rnclib.results.frame`, of one kind of split. See `rnclib.paired.correlation_of`.
    """
    sizes = runs["n_pool"].mean(), runs["n_test_pool"].mean()
    return correlation_of(*sizes, runs["overlap"].mean(), one_data_set=bool(runs["one_data_set"].all()))


def _row(paired: Paired, **others: Any) -> dict[str, Any]:
    mean, low, high = paired.interval()
    return {"mean": mean, "low": low, "high": high, "n": paired.n, "paired": paired, **others}


_RATIO = ["ratio", "low", "high", "n", "paired"]


def _ratio_row(paired: Paired, **others: Any) -> dict[str, Any]:
    """Differences of logarithms as ratios."""
    with np.errstate(over="ignore"):  # of two splits the interval may have no end
        mean, low, high = (float(np.exp(end)) for end in paired.interval())
    return {"ratio": mean, "low": low, "high": high, "n": paired.n, "paired": paired, **others}


def summarise(runs: pd.DataFrame, metric: str, by: str | list[str] = "method") -> pd.DataFrame:
    """Mean of `metric` over splits with its 95% interval, and the spread of single splits.

    Parameters
    ----------
    runs : DataFrame
        From `rnclib.results.frame`.
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
            mean, low, high = Paired(values, correlation(part)).interval()
            row = {"mean": mean, "low": low, "high": high, "median": float(np.median(values))}
            row |= {"min": values.min(), "max": values.max()}
            row["sd"] = values.std(ddof=1) if len(values) > 1 else math.nan
        rows[group] = row | {"n": len(values), "diverged": len(part) - len(values)}
    columns = ["mean", "low", "high", "median", "min", "max", "sd", "n", "diverged"]
    summary = pd.DataFrame.from_dict(rows, orient="index", columns=columns)
    if isinstance(by, str) or rows:
        summary.index.names = [by] if isinstance(by, str) else by
    return summary


def stuck(runs: pd.DataFrame, threshold: float = 0.5) -> pd.Series:
    """Which runs never left the plateau of a coarse guess: networks whose validation MAE stayed above `threshold`.

    Parameters
    ----------
    runs : DataFrame
        From `rnclib.results.frame`.
    threshold : float
        In standard deviations of the target. The validation set decides, so that the test set stays unseen.

    Returns
    -------
    Series of bool
    """
    return (runs["val_mae"] > threshold) & ~runs["baseline"]


def compare(runs: pd.DataFrame, metric: str, baseline: str, methods: Iterable[str] | None = None) -> pd.DataFrame:
    """Difference of each method from `baseline` on the same splits: mean and 95% interval.

    Parameters
    ----------
    runs : DataFrame
        From `rnclib.results.frame`, of one kind of split.
    metric : str
    baseline : str
        A method of `runs`.
    methods : iterable of str, optional
        By default every other method.

    Returns
    -------
    DataFrame
        Indexed by method, with columns ``mean`` (method minus baseline), ``low``, ``high``, ``n``, ``paired`` (see
        `rnclib.paired.Paired`), ``baseline`` (its mean on the same splits), ``better`` (fraction of splits on which
        the method has the lower value) and ``diverged`` (runs of the method that have no value, and so no part in the
        others).

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
        both = values[[method, baseline]].dropna()
        if not len(both):
            continue
        difference = both[method] - both[baseline]
        rows[method] = _row(
            Paired(difference.to_numpy(), correlation(runs)),
            baseline=float(both[baseline].mean()),
            better=float((difference < 0).mean()),
            diverged=int(runs.loc[runs["method"] == method, metric].isna().sum()),
        )
    columns = ["mean", "low", "high", "n", "paired", "baseline", "better", "diverged"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("method")


#: Fraction of the training set at which the need of data is read where learning curves are not parallel.
READ_AT = 0.4


def data_ratio(runs: pd.DataFrame, metric: str, baseline: str, method: str) -> pd.DataFrame:
    """How much data `method` needs for the error that `baseline` reaches, as a multiple of the baseline's data.

    On each split, log error is taken to fall along a line in log training size. Where the lines of the two methods are
    parallel, a difference of log errors is the same shift along that size everywhere: the ratio is exp(difference / β),
    with the slope −β of both. Below 1, `method` needs less data. Where they are not parallel, the ratio differs from
    size to size. At one fraction, it is the size at which the method's own line has the error that the baseline has
    there, divided by the size there.

    Parameters
    ----------
    runs : DataFrame
        From `rnclib.results.frame`, with a column ``fraction``; missing means all samples.
    metric : str
        A positive error.
    baseline, method : str

    Returns
    -------
    DataFrame
        Indexed by fraction, and ``'all'`` for the common shift: the geometric mean of the ratios over splits with its
        95% interval, columns ``ratio``, ``low``, ``high``, ``n``, ``paired`` (of log ratios) and ``flat`` (splits left
        out since more data did not help there, so that no amount of data stands for a difference). Splits that lack a
        fraction are left out too.

    Raises
    ------
    ValueError
        If there are fewer than two fractions, or a method has no runs.
    """
    curves = _learning_curves(runs, metric, baseline, method)
    shifts: dict[Any, list[float]] = {key: [] for key in (*sorted(_fractions(runs)), "all")}
    for size, errors in curves:
        slope = _slope(size, errors)
        own = float(slope[method])
        common = float(slope.mean())
        if common > 0:
            shifts["all"].append(float((errors[method] - errors[baseline]).mean()) / common)
        for fraction, at in zip(errors.index, size, strict=True):
            if own > 0:  # where on its own line the method has the baseline's error
                reached = size.mean() + (float(errors[method].mean()) - float(errors.loc[fraction, baseline])) / own
                shifts[fraction].append(reached - at)
    between_splits = correlation(runs)
    rows = {
        fraction: _ratio_row(Paired(np.array(values), between_splits), flat=len(curves) - len(values))
        for fraction, values in shifts.items()
        if values
    }
    return pd.DataFrame.from_dict(rows, orient="index", columns=[*_RATIO, "flat"]).rename_axis("fraction")


def parallel(runs: pd.DataFrame, metric: str, baseline: str, method: str) -> Paired | None:
    """Differences of the slopes of two learning curves, for a test that these are parallel; None without any pair.

    Parameters
    ----------
    runs, metric, baseline, method
        As for `data_ratio`.
    """
    slopes = [_slope(size, errors) for size, errors in _learning_curves(runs, metric, baseline, method)]
    differences = [float(slope[method] - slope[baseline]) for slope in slopes]
    return Paired(np.array(differences), correlation(runs)) if differences else None


def _fractions(runs: pd.DataFrame) -> set[float]:
    return set(runs["fraction"].fillna(1.0)) if "fraction" in runs else {1.0}


def _learning_curves(
    runs: pd.DataFrame, metric: str, baseline: str, method: str
) -> list[tuple[np.ndarray, pd.DataFrame]]:
    """Of each split that has all fractions: log training sizes, and log errors by fraction and method."""
    _one_kind_of_split(runs)
    _check_methods(runs, baseline=baseline, method=method)
    fractions = _fractions(runs)
    if len(fractions) < 2:
        raise ValueError(f"runs: got fractions {sorted(fractions)}; allowed: at least two")
    runs = runs.assign(fraction=runs["fraction"].fillna(1.0))
    both = runs[runs["method"].isin([baseline, method])].dropna(subset=[metric])
    curves = []
    for _, one in both.groupby("seed"):
        errors = np.log(one.pivot(index="fraction", columns="method", values=metric).dropna())
        if len(errors) == len(fractions) and errors.shape[1] == 2:
            size = one.groupby("fraction")["n_train"].first().reindex(errors.index)
            curves.append((np.log(size.to_numpy(float)), errors))
    return curves


def _slope(size: np.ndarray, errors: pd.DataFrame) -> pd.Series:
    """How steeply the log error of each method falls with log size, by least squares."""
    centred = size - size.mean()
    return -(errors.mul(centred, axis=0)).sum() / (centred**2).sum()


def corruption_errors(errors: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """Each run's error on corrupted inputs relative to the baseline's of the same seed, by kind.

    The corruption error of a kind is the run's error summed over severities, divided by the baseline's
    (Hendrycks and Dietterich 2019). Their mean over kinds is a geometric one here: the plain mean of ratios can put
    each of two methods above the other.

    Parameters
    ----------
    errors : DataFrame
        From `rnclib.results.corrupted`.
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


def corruption_ratio(
    records: Sequence[dict[str, Any]], baseline: str, by: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """Corruption errors of each method relative to `baseline`, over seeds: by kind, and their mean.

    Parameters
    ----------
    records : sequence of dict
        From `rnclib.results.load`, of one data set and profile, and one kind of split.
    baseline : str
        A method.
    by : mapping of str to str, optional
        Kind to family: adds the mean over the kinds of each family.

    Returns
    -------
    DataFrame
        Indexed by method and kind, with ``'mean'`` for the mean over all kinds: the geometric mean of the ratios over
        seeds with its 95% interval, columns ``ratio``, ``low``, ``high``, ``n`` and ``paired`` as in `data_ratio`.

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
    between_splits = correlation(runs)
    rows = {
        group: _ratio_row(Paired(np.log(part["ratio"].dropna().to_numpy()), between_splits))
        for group, part in errors[errors["method"] != baseline].groupby(["method", "kind"], sort=False)
        if part["ratio"].notna().any()
    }
    table = pd.DataFrame.from_dict(rows, orient="index", columns=_RATIO)
    table.index = pd.MultiIndex.from_tuples(rows, names=["method", "kind"]) if rows else table.index
    return table


def corruption_growth(records: Sequence[dict[str, Any]], baseline: str) -> pd.DataFrame:
    """How much more a method's error grows under corruption than the baseline's.

    A run's growth is its error on corrupted inputs, averaged over kinds and severities, divided by its error on clean
    ones.

    Parameters
    ----------
    records : sequence of dict
        From `rnclib.results.load`, of one data set and profile, and one kind of split.
    baseline : str
        A method.

    Returns
    -------
    DataFrame
        Indexed by method, the baseline first: ``clean``, ``corrupted`` and ``growth`` (means over runs; the growth is a
        geometric one), and the geometric mean of the growth divided by the baseline's of the same seed with its 95%
        interval, ``ratio``, ``low``, ``high``, ``n`` and ``paired`` as in `data_ratio`.

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
            row |= _ratio_row(Paired(shared.to_numpy(), correlation(runs)))
        rows[method] = row
    return pd.DataFrame.from_dict(rows, orient="index", columns=["clean", "corrupted", "growth", *_RATIO])


def variance_components(values: pd.DataFrame) -> pd.Series:
    """How much of the variance of single runs is whose, in a crossed design: two-way random effects.

    Parameters
    ----------
    values : DataFrame
        One row per split, one column per seed of initial weights, none missing; at least two of each.

    Returns
    -------
    Series
        Variances ``split``, ``weights`` and ``rest`` (of the two together, which one run a cell cannot tell from
        chance), by the method of moments; what would be negative is 0.

    Raises
    ------
    ValueError
        If there are fewer than two of one, or a value is missing.
    """
    if min(values.shape) < 2 or values.isna().any(axis=None):
        raise ValueError(f"values: got shape {values.shape}; allowed: at least (2, 2), without missing values")
    n_splits, n_weights = values.shape
    table = values.to_numpy(float)
    rows, columns, mean = table.mean(1), table.mean(0), table.mean()
    rest = ((table - rows[:, None] - columns + mean) ** 2).sum() / ((n_splits - 1) * (n_weights - 1))
    split = max(0.0, rows.var(ddof=1) - rest / n_weights)
    weights = max(0.0, columns.var(ddof=1) - rest / n_splits)
    return pd.Series({"split": split, "weights": weights, "rest": rest})


def between_machines(records: Sequence[dict[str, Any]], others: Sequence[dict[str, Any]], metric: str) -> pd.DataFrame:
    """How far runs of one configuration differ when another machine makes them.

    Parameters
    ----------
    records, others : sequence of dict
        With labels; those of one key in both are a pair.
    metric : str
        A column of `rnclib.results.frame`.

    Returns
    -------
    DataFrame
        Indexed by method: ``n`` pairs, ``mean`` difference (others minus records), and ``sd``, the standard deviation
        of the differences.
    """
    now, then = (frame(part).set_index("key") for part in (records, others))
    both = now.index.intersection(then.index)
    difference = (then.loc[both, metric] - now.loc[both, metric]).dropna()
    return (
        difference.groupby(now.loc[difference.index, "method"], sort=False)
        .agg(["count", "mean", "std"])
        .set_axis(["n", "mean", "sd"], axis=1)
    )


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
    known = p.dropna()
    if family is not None and family < len(known):
        raise ValueError(f"family: got {family} with {len(known)} p values; allowed: at least as many")
    count = len(known) if family is None else family
    order = np.argsort(known.to_numpy(), kind="stable")
    stepped = np.maximum.accumulate(known.to_numpy()[order] * (count - np.arange(len(known))))
    corrected = np.full(len(p), math.nan)
    corrected[np.flatnonzero(p.notna())[order]] = np.minimum(stepped, 1)
    return pd.Series(corrected, index=p.index)
