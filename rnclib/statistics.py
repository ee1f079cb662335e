"""Statistics over runs: intervals, paired differences, ratios, corrected p values. Tidy frames in, tidy frames out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

from rnclib.results import corrupted, frame

__all__ = [
    "compare", "corruption_errors", "corruption_growth", "corruption_ratio", "data_ratio", "holm", "interval", "stuck",
    "summarise", "verdicts",
]  # fmt: skip


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
    if not np.isfinite(sample).all():
        raise ValueError("values: got NaN or infinite ones; allowed: finite numbers")
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: got {confidence!r}; allowed: between 0 and 1")
    if not test_train_ratio >= 0:
        raise ValueError(f"test_train_ratio: got {test_train_ratio!r}; allowed: a number of at least 0")
    mean, n = float(sample.mean()), len(sample)
    if n < 2:
        return mean, math.nan, math.nan
    error = math.sqrt((1 / n + test_train_ratio) * sample.var(ddof=1))
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * error
    return mean, mean - half, mean + half


def _ratio(runs: pd.DataFrame) -> float:
    if "seeded" in runs and not runs["seeded"].any():
        return 0.0
    n_train = runs["n_pool"] if "n_pool" in runs else runs["n_train"]  # what subsets are drawn from
    n_test = runs["n_test_pool"] if "n_test_pool" in runs else runs["n_test"]
    return float((n_test / n_train).mean())


def _one_kind_of_split(runs: pd.DataFrame) -> None:
    if runs["split"].nunique() != 1:
        raise ValueError(f"runs: got splits {sorted(runs['split'].unique())}; allowed: one kind")


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


_RATIO = ["ratio", "low", "high", "p", "n"]


def _as_ratio(paired: dict[str, float]) -> dict[str, float]:
    """Differences of logarithms as ratios."""
    return {
        "ratio": math.exp(paired["mean"]), "low": math.exp(paired["low"]), "high": math.exp(paired["high"]),
        "p": paired["p"], "n": paired["n"],
    }  # fmt: skip


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
    """Difference of each method from `baseline` on the same splits: mean, 95% interval and p value.

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
        Indexed by method, with columns ``mean`` (method minus baseline), ``low``, ``high``, ``p`` (two-sided
        corrected resampled t), ``better`` (fraction of splits on which the method has the lower value), ``n`` and
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
        From `rnclib.results.frame`, with a column ``fraction``; missing means all samples.
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
