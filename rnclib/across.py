"""What can be said over many tasks: an estimate of the effect, a forecast for a new task, ranks and profiles."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats
from statsmodels.stats.meta_analysis import combine_effects

from rnclib.paired import LEVEL, Paired, correlation_of

__all__ = ["OverTasks", "chosen", "critical_difference", "effects", "profile", "ranks"]

_MOST = 10_000  # tasks; what they do not decide, no number does


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
        From `chosen`, with columns ``n_train``, ``n_test`` and ``overlap`` as `rnclib.results.frame` has them.
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
        sizes = one.loc[kept.index]
        paired = Paired(
            kept.to_numpy(),
            correlation_of(sizes["n_train"].mean(), sizes["n_test"].mean(), sizes["overlap"].iloc[0]),
        )
        effect, low, high = paired.interval()
        rows[dataset] = {
            "effect": effect, "low": low, "high": high, "error": paired.error() if paired.n > 1 else math.nan,
            "n": paired.n, "lost": len(differences) - len(kept),
        }  # fmt: skip
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("dataset")


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
    """

    n: int
    mean: float
    error: float
    spread: float

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
        return cls(len(known), float(found.mean_effect_re), error, math.sqrt(tau2))

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

    def helps(self, by: float = 0.0) -> float:
        """Probability that the effect on a new task is below −`by`.

        It comes from the t distribution with n − 2 degrees of freedom (Higgins et al. 2009), with the variance of the
        mean and that of the true effects added.

        Parameters
        ----------
        by : float
            On the scale of the effects, such as ``math.log(1 / 0.95)`` for an error that is lower by 5%.
        """
        return float(stats.t.cdf((-by - self.mean) / math.hypot(self.spread, self.error), self.n - 2))

    def needed(self, margin: float) -> int | None:
        """Tasks at which the interval leaves out 0 or lies within the margin, if mean and spread stay as they are.

        Parameters
        ----------
        margin : float
            Of practical equality.

        Returns
        -------
        int or None
            None where no number up to ten thousand does.
        """
        room = max(abs(self.mean), margin - abs(self.mean))
        for n in range(self.n, _MOST + 1):
            if float(stats.t.ppf(1 - LEVEL / 2, n - 1)) * self.error * math.sqrt(self.n / n) < room:
                return n
        return None


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
