"""What can be said over many tasks: an estimate of the effect, a forecast for a new task, ranks and profiles."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import optimize, stats
from statsmodels.stats.meta_analysis import combine_effects

from rnclib.paired import LEVEL, Paired
from rnclib.statistics import correlation, holm

__all__ = [
    "OverTasks", "chosen", "critical_difference", "decide", "effects", "errors", "lost", "profile", "ranks", "weights",
]  # fmt: skip

_MOST = 10_000  # tasks; what they do not decide, no number does
_LOST = 1  # splits of a task on which an arm may diverge; with more it has failed there


def chosen(runs: pd.DataFrame) -> pd.DataFrame:
    """Of the regressors of each arm the one with the lowest validation error, on each split anew.

    Parameters
    ----------
    runs : DataFrame
        A row for each run: ``dataset``, ``arm``, ``seed`` and ``val_mae_raw``, beside what is wanted of it. A run that
        diverged has no error and is not chosen, unless all of its arm on that split have diverged.
    """
    by_error = runs.sort_values("val_mae_raw", kind="stable", na_position="last")
    return by_error.drop_duplicates(["dataset", "arm", "seed"]).sort_index()


def effects(runs: pd.DataFrame, arm: str, other: str, metric: str = "test_mae_raw") -> pd.DataFrame:
    """Effect of one arm against another on each task: mean of log(error ÷ the other's error) over splits.

    Parameters
    ----------
    runs : DataFrame
        From `chosen`, with the columns of `rnclib.results.frame` that `rnclib.statistics.correlation` asks for.
    arm, other : str
    metric : str
        An error.

    Returns
    -------
    DataFrame
        By ``dataset``: ``effect``, ``low``, ``high`` (95% interval of the corrected resampled t), ``error`` (standard
        error), ``n`` (pairs) and ``lost`` (splits on which an arm has no error). A task with fewer than two pairs has
        no interval.

    Raises
    ------
    ValueError
        If an arm has no run on a task, which would leave that task out unseen.
    """
    rows = {}
    for dataset, part in runs.groupby("dataset", sort=False):
        one, two = (part[part["arm"] == name].set_index("seed") for name in (arm, other))
        if missing := [name for name, its in ((arm, one), (other, two)) if its.empty]:
            raise ValueError(f"runs: got none of {missing} on {dataset!r}; allowed: both arms on every task")
        both = one.index.intersection(two.index)
        differences = np.log(one.loc[both, metric] / two.loc[both, metric])
        kept = differences.dropna()
        if kept.empty:
            continue
        paired = Paired(kept.to_numpy(), correlation(one.loc[kept.index]))
        effect, low, high = paired.interval()
        error = paired.error() if paired.n > 1 else math.nan
        rows[dataset] = [effect, low, high, error, paired.n, len(differences) - len(kept)]
    columns = ["effect", "low", "high", "error", "n", "lost"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("dataset")


@dataclass(frozen=True)
class OverTasks:
    """A random-effects model: the true effects of tasks are normal around a mean.

    Attributes
    ----------
    n : int
        Tasks.
    mean : float
        Of the true effects.
    error : float
        Standard error of the mean: the larger of Hartung and Knapp's (2001) and that of the weights alone, since the
        first can be too small where tasks differ little (Röver et al. 2015).
    spread : float
        Standard deviation of the true effects, by Paule and Mandel (1982).
    spread_interval : tuple of float
        Its 95% interval, by the Q profile (Viechtbauer 2007).
    """

    n: int
    mean: float
    error: float
    spread: float
    spread_interval: tuple[float, float] = (math.nan, math.nan)

    @classmethod
    def of(cls, effects: pd.DataFrame) -> OverTasks:
        """The model of the effects of several tasks.

        Parameters
        ----------
        effects : DataFrame
            From `effects`; tasks without a standard error are left out.

        Raises
        ------
        ValueError
            With fewer than three tasks, or an effect without any spread over splits.
        """
        known = effects[effects["error"].notna()]
        if len(known) < 3:
            raise ValueError(f"effects: got {len(known)} tasks with a standard error; allowed: at least 3")
        if not (known["error"] > 0).all():
            raise ValueError("effects: got a standard error of 0; allowed: positive ones")
        variance = known["error"].to_numpy() ** 2
        found = combine_effects(known["effect"].to_numpy(), variance, "pm", use_t=True)
        tau2 = max(float(found.tau2), 0.0)
        error = max(float(found.sd_eff_w_re_hksj), 1 / math.sqrt((1 / (variance + tau2)).sum()))
        interval = _spread_interval(known["effect"].to_numpy(), variance)
        return cls(len(known), float(found.mean_effect_re), error, math.sqrt(tau2), interval)

    @property
    def interval(self) -> tuple[float, float]:
        """95% interval of the mean."""
        half = float(stats.t.ppf(1 - LEVEL / 2, self.n - 1)) * self.error
        return self.mean - half, self.mean + half

    @property
    def p(self) -> float:
        """Two-sided p value of a mean of 0."""
        return float(2 * stats.t.sf(abs(self.mean) / self.error, self.n - 1))

    def p_equal(self, margin: float) -> float:
        """P value of the two one-sided tests that the mean lies within ± `margin`."""
        return float(stats.t.sf((margin - abs(self.mean)) / self.error, self.n - 1))

    def new_task(self, margin: float, spread: float | None = None) -> tuple[float, float, float]:
        """Probabilities that the effect on a new task is at most −`margin`, between the two, and at least `margin`.

        They come from the t distribution with n − 2 degrees of freedom (Higgins et al. 2009), with the variance of the
        mean and that of the true effects added.

        Parameters
        ----------
        margin : float
            On the scale of the effects, such as ``math.log(1 / 0.95)`` for an error that is lower by 5%.
        spread : float, optional
            Of the true effects, by default the estimate.
        """
        width = math.hypot(self.spread if spread is None else spread, self.error)
        lower = float(stats.t.cdf((-margin - self.mean) / width, self.n - 2))
        higher = float(stats.t.sf((margin - self.mean) / width, self.n - 2))
        return lower, 1 - lower - higher, higher

    def needed(self, margin: float, level: float = LEVEL) -> float:
        """Tasks with which it would be decided, if mean and spread stay as they are.

        Parameters
        ----------
        margin : float
            Of practical equality.
        level : float
            Of the test that decides; a corrected one asks for more.

        Returns
        -------
        float
            The least number with which the two-sided test of no difference, or the two one-sided ones of practical
            equality, have a p value below `level`; infinite where no number up to ten thousand has.
        """
        one_sided = min(level, LEVEL / 2)  # the 95% interval must lie within the margin too
        for n in range(self.n, _MOST + 1):
            error = self.error * math.sqrt(self.n / n)
            different, equal = stats.t.ppf([1 - level / 2, 1 - one_sided], n - 1) * error
            if different < abs(self.mean) or equal < margin - abs(self.mean):
                return float(n)
        return math.inf


def _spread_interval(effect: np.ndarray, variance: np.ndarray) -> tuple[float, float]:
    """Standard deviations with which the weighted squares about the mean are as large as chance makes them."""

    def squares(tau2: float) -> float:
        weights = 1 / (variance + tau2)
        return float((weights * (effect - np.average(effect, weights=weights)) ** 2).sum())

    largest = float(variance.max() + np.ptp(effect) ** 2) * 1e6
    ends = []
    for quantile in stats.chi2.ppf([1 - LEVEL / 2, LEVEL / 2], len(effect) - 1):
        above = squares(0.0) > quantile
        ends.append(
            math.sqrt(optimize.brentq(lambda tau2, q=quantile: squares(tau2) - q, 0, largest)) if above else 0.0
        )
    return ends[0], ends[1]


def weights(effects: pd.DataFrame) -> pd.Series:
    """How much each task counts in the mean of the model, as a fraction.

    Parameters
    ----------
    effects : DataFrame
        As for `OverTasks.of`.
    """
    known = effects[effects["error"].notna()]
    weight = 1 / (known["error"] ** 2 + OverTasks.of(effects).spread ** 2)
    return weight / weight.sum()


def decide(models: Mapping[str, OverTasks], margin: float, family: int) -> pd.DataFrame:
    """Verdicts on several comparisons over tasks: does the first of two methods have the lower error?

    Parameters
    ----------
    models : mapping of str to OverTasks
        By comparison.
    margin : float
        Of practical equality, as in `OverTasks.p_equal`.
    family : int
        Comparisons whose p values are corrected together, those included that are still to come.

    Returns
    -------
    DataFrame
        By comparison: ``mean``, ``low``, ``high``, ``n``; ``spread``, ``spread_low`` and ``spread_high``; ``lower``,
        ``alike`` and ``higher`` of `OverTasks.new_task`, and ``lower_most`` and ``higher_most``, the same at the upper
        end of the spread's interval; corrected ``p`` and ``p_equal``; ``verdict`` as on the verdict page; ``needed``,
        tasks that would decide what is undecided, whatever the others say.
    """
    rows = []
    for model in models.values():
        spread_low, spread_high = model.spread_interval
        lower, alike, higher = model.new_task(margin)
        lower_most, _, higher_most = model.new_task(margin, spread_high)
        rows.append(
            {
                "mean": model.mean, "low": model.interval[0], "high": model.interval[1], "n": model.n,
                "spread": model.spread, "spread_low": spread_low, "spread_high": spread_high,
                "lower": lower, "alike": alike, "higher": higher, "lower_most": lower_most, "higher_most": higher_most,
                "p": model.p, "p_equal": model.p_equal(margin),
            }
        )  # fmt: skip
    table = pd.DataFrame(rows, index=pd.Index(models, name="comparison"))
    table["p"], table["p_equal"] = holm(table["p"], family), holm(table["p_equal"], family)
    table["verdict"] = [_verdict(row, margin) for row in table.itertuples()]
    needed = [model.needed(margin, LEVEL / family) for model in models.values()]
    table["needed"] = np.where(table["verdict"] == "undecided", needed, np.nan)
    return table


def _verdict(row: Any, margin: float) -> str:
    if row.p_equal < LEVEL and -margin < row.low and row.high < margin:
        return "practically equal"
    if row.p < LEVEL:
        return "holds" if row.mean < 0 else "does not hold"
    return "undecided"


def lost(runs: pd.DataFrame, metric: str = "test_mae_raw") -> pd.DataFrame:
    """Splits on which an arm diverged: a row for each task, a column for each arm.

    Parameters
    ----------
    runs : DataFrame
        From `chosen`.
    metric : str
        An error.
    """
    by = [runs[name] for name in ("dataset", "arm")]
    return runs[metric].isna().groupby(by, sort=False).sum().unstack("arm")


def errors(runs: pd.DataFrame, metric: str = "test_mae_raw") -> pd.DataFrame:
    """Mean error over splits: a row for each task, a column for each arm.

    A split on which an arm diverged is left out for all arms of that task. Where an arm diverged on more than one, it
    has failed: its error is infinite, and the others keep their splits.

    Parameters
    ----------
    runs : DataFrame
        From `chosen`.
    metric : str
        An error.
    """
    failed = lost(runs, metric) > _LOST
    its = failed.stack()[pd.MultiIndex.from_frame(runs[["dataset", "arm"]])].to_numpy()
    out = runs.loc[runs[metric].isna() & ~its, ["dataset", "seed"]]
    kept = runs[~pd.MultiIndex.from_frame(runs[["dataset", "seed"]]).isin(pd.MultiIndex.from_frame(out))]
    table = kept.groupby(["dataset", "arm"], sort=False)[metric].mean().unstack("arm")
    table = table.reindex(index=runs["dataset"].unique(), columns=runs["arm"].unique())
    return table.mask(failed.reindex_like(table).fillna(False).astype(bool), math.inf)


def ranks(errors: pd.DataFrame) -> pd.Series:
    """Mean rank of each method over tasks, 1 for the lowest error; equal errors share their ranks.

    Parameters
    ----------
    errors : DataFrame
        A row for each task, a column for each method. An infinite one stands for a method that failed, which comes
        last there; a missing one is refused.
    """
    _all_there(errors)
    return errors.rank(axis=1).mean().sort_values()


def critical_difference(n_methods: int, n_tasks: int) -> float:
    """Difference of mean ranks above which two methods differ, by Nemenyi's test (Demšar 2006) at a level of 0.05.

    Parameters
    ----------
    n_methods, n_tasks : int

    Examples
    --------
    >>> round(critical_difference(4, 14), 2)  # Demšar's own example
    1.25
    """
    quantile = float(stats.studentized_range.ppf(1 - LEVEL, n_methods, math.inf)) / math.sqrt(2)
    return quantile * math.sqrt(n_methods * (n_methods + 1) / (6 * n_tasks))


def profile(errors: pd.DataFrame, ratios: np.ndarray) -> pd.DataFrame:
    """Performance profile (Dolan and Moré 2002): fraction of tasks on which a method is within a ratio of the best.

    Parameters
    ----------
    errors : DataFrame
        As for `ranks`.
    ratios : ndarray, shape (m,)
        At least 1.

    Returns
    -------
    DataFrame, shape (m, n_methods)
        By ratio.
    """
    _all_there(errors)
    behind = errors.div(errors.min(axis=1), axis=0)
    rows = [(behind <= ratio * (1 + 1e-12)).mean() for ratio in ratios]
    return pd.DataFrame(rows, index=pd.Index(ratios, name="ratio"))


def _all_there(errors: pd.DataFrame) -> None:
    if errors.isna().any(axis=None):
        missing = errors.columns[errors.isna().any()].tolist()
        raise ValueError(f"errors: got none of {missing} on some tasks; allowed: methods that ran on all")
