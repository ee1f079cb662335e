"""Inference on paired differences whose test sets may overlap: interval, tests, practical equality, power.

Differences d_1 … d_n of two methods on n splits of one data set are correlated, since splits share samples. With a
correlation ρ between any two of them, the variance of their mean is (1/n + ρ/(1 − ρ))·s², where s is their standard
deviation (Nadeau and Bengio 2003). Everything here is the Student t with that variance and n − 1 degrees of freedom;
with ρ = 0 it is the plain paired t.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from baycomp.single import Posterior
from scipy import stats
from statsmodels.stats.power import TTestPower

__all__ = ["LEVEL", "Paired", "correlation_of"]

#: Of all tests and intervals.
LEVEL = 0.05
_MOST = 10_000  # splits; what they do not decide, no number does
_EXACT = 10  # pairs, up to which signs are flipped


def correlation_of(n_train: float, n_test: float, overlap: float, *, one_data_set: bool = True) -> float:
    """Correlation between the differences on two splits.

    Parameters
    ----------
    n_train, n_test : float
        Samples of the two sets.
    overlap : float
        Mean fraction of a test set that is in another one too; NaN where there is no other.
    one_data_set : bool
        Or each split has data of its own.

    Returns
    -------
    float
        The larger of ``n_test / (n_train + n_test)``, as Nadeau and Bengio (2003) have it, and the overlap. It is 0
        where splits have data of their own, and where all test sets are the same: then it is training that differs, and
        intervals cover training only.
    """
    if overlap == 1 or not one_data_set:
        return 0.0
    assumed = n_test / (n_train + n_test)
    return assumed if math.isnan(overlap) else max(assumed, overlap)


@dataclass(frozen=True)
class Paired:
    """Differences of two methods, one for each pair of runs.

    Attributes
    ----------
    differences : array_like, shape (n,)
        Finite numbers, at least one; kept as an array.
    correlation : float
        Between any two of them, at least 0 and below 1; see `correlation_of`.

    Examples
    --------
    >>> paired = Paired([1.0, 2.0, 3.0], correlation=1 / 9)
    >>> mean, low, high = paired.interval()
    >>> round(mean, 3), round(low, 3), round(high, 3)
    (2.0, -0.913, 4.913)
    """

    differences: np.ndarray
    correlation: float = 0.0

    def __post_init__(self) -> None:
        values = np.asarray(self.differences, float)
        if values.ndim != 1 or not len(values):
            raise ValueError(f"differences: got shape {values.shape}; allowed: (n,), at least one")
        if not np.isfinite(values).all():
            raise ValueError("differences: got NaN or infinite ones; allowed: finite numbers")
        if not 0 <= self.correlation < 1:
            raise ValueError(f"correlation: got {self.correlation!r}; allowed: at least 0 and below 1")
        object.__setattr__(self, "differences", values)

    @cached_property
    def mean(self) -> float:
        """Of the differences."""
        return float(np.mean(self.differences))

    @property
    def n(self) -> int:
        """Number of pairs."""
        return len(self.differences)

    @cached_property
    def sd(self) -> float:
        """Standard deviation of the differences; NaN for one."""
        return float(np.std(self.differences, ddof=1)) if self.n > 1 else math.nan

    @property
    def share(self) -> float:
        """What the overlap adds to 1/n in the variance of the mean: ρ/(1 − ρ)."""
        return self.correlation / (1 - self.correlation)

    def error(self, n: int | None = None) -> float:
        """Standard error of the mean, with as many pairs as there are or with `n` of the same spread."""
        return self.sd * math.sqrt(1 / (n or self.n) + self.share)

    def interval(self, confidence: float = 1 - LEVEL) -> tuple[float, float, float]:
        """Mean, and bounds of its interval: the corrected resampled t; bounds are NaN for one pair.

        Parameters
        ----------
        confidence : float
            Between 0 and 1.
        """
        if not 0 < confidence < 1:
            raise ValueError(f"confidence: got {confidence!r}; allowed: between 0 and 1")
        if self.n < 2:
            return self.mean, math.nan, math.nan
        half = float(stats.t.ppf((1 + confidence) / 2, self.n - 1)) * self.error()
        return self.mean, self.mean - half, self.mean + half

    def _tail(self, bound: float) -> float:
        """P value of the mean being above `bound`, one-sided."""
        if self.n < 2 or not self.sd > 0:
            return math.nan
        return float(stats.t.sf((self.mean - bound) / self.error(), self.n - 1))

    @property
    def p(self) -> float:
        """Two-sided p value of no difference; NaN for one pair, or for differences that are all the same."""
        above = self._tail(0.0)
        return 2 * min(above, 1 - above) if not math.isnan(above) else math.nan

    def p_equal(self, low: float, high: float) -> float:
        """P value of the two one-sided tests that the mean lies between two bounds (Schuirmann 1987).

        Parameters
        ----------
        low, high : float
        """
        return max(self._tail(low), 1 - self._tail(high))

    def probabilities(self, low: float, high: float) -> tuple[float, float, float]:
        """Posterior probability that the mean lies below, between and above two bounds.

        The Bayesian correlated t (Benavoli et al. 2017), with a flat prior.

        Parameters
        ----------
        low, high : float
        """
        if self.n < 2 or not self.sd > 0:
            return math.nan, math.nan, math.nan
        middle, half = (low + high) / 2, (high - low) / 2
        posterior = Posterior(self.mean - middle, self.error() ** 2, self.n - 1, rope=half)
        below, between, above = (float(p) for p in posterior.probs())
        return below, between, above

    def p_sign_flip(self) -> float:
        """Two-sided p value of the exact test that flips signs; NaN for one pair, and for more than ten.

        It supposes independent pairs with symmetric differences, and cannot fall below 2/2ⁿ. Where splits overlap it is
        too small.
        """
        if not 2 <= self.n <= _EXACT:
            return math.nan
        test = stats.permutation_test(
            (self.differences,), np.mean, permutation_type="samples", n_resamples=np.inf, vectorized=True
        )
        return float(test.pvalue)

    def detectable(self, power: float = 0.8, *, n: int | None = None, level: float = LEVEL) -> float:
        """The smallest mean difference that the two-sided test finds with a probability of `power`.

        Parameters
        ----------
        power : float
        n : int, optional
            Pairs; by default as many as there are.
        level : float
            Of the test; a corrected one asks for more.
        """
        n = n or self.n
        if n < 2 or math.isnan(self.sd):
            return math.nan
        effect = TTestPower().solve_power(nobs=n, alpha=level, power=power, alternative="two-sided")
        return float(effect) * math.sqrt(n) * self.error(n)

    def needed(self, low: float, high: float, *, level: float = LEVEL) -> float:
        """How many pairs would decide, if mean and spread stay as they are.

        Parameters
        ----------
        low, high : float
            Bounds of practical equality.
        level : float
            Of the test that decides; a corrected one asks for more.

        Returns
        -------
        float
            The least number with which the two-sided test of no difference, or the two one-sided ones of practical
            equality, have a p value below `level`; infinite if no number has, NaN where the spread is unknown.
        """
        if self.n < 2 or not self.sd > 0:
            return math.nan
        to_bounds = min(self.mean - low, high - self.mean)
        one_sided = min(level, LEVEL / 2)  # the 95% interval must lie between the bounds too

        def decides(n: int) -> bool:
            different, equal = stats.t.ppf([1 - level / 2, 1 - one_sided], n - 1) * self.error(n)
            return bool(different < abs(self.mean) or equal < to_bounds)

        if not decides(_MOST):
            return math.inf
        few, many = 1, _MOST
        while many - few > 1:  # the interval shrinks with every pair
            middle = (few + many) // 2
            few, many = (few, middle) if decides(middle) else (middle, many)
        return float(many)
