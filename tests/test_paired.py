"""Paired inference, against literal formulas, closed forms, scipy's own tests, and simulation."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from baycomp import two_on_single
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from rnclib.paired import LEVEL, Paired, correlation_of
from rnclib.simulation import family_errors, one_comparison

# Student's t in closed form for 1, 2 and 4 degrees of freedom: its quantile and its upper tail
QUANTILE = {
    1: lambda p: math.tan(math.pi * (p - 0.5)),
    2: lambda p: (2 * p - 1) / math.sqrt(2 * p * (1 - p)),
    4: lambda p: 2 * math.sqrt(math.cos(math.acos(math.sqrt(4 * p * (1 - p))) / 3) / math.sqrt(4 * p * (1 - p)) - 1),
}
TAIL = {
    1: lambda t: 0.5 - math.atan(t) / math.pi,
    2: lambda t: 0.5 - t / (2 * math.sqrt(2 + t * t)),
    4: lambda t: 0.5 - 3 / 8 * t / math.sqrt(1 + t * t / 4) * (1 - t * t / (1 + t * t / 4) / 12),
}
NUMBERS = st.lists(st.floats(-10, 10, width=16), min_size=2, max_size=30)


def corrected_error(values, ratio):
    """Mean and standard error of Nadeau and Bengio (2003), term by term; `ratio` is their n_test / n_train."""
    n = len(values)
    mean = math.fsum(values) / n
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    return mean, math.sqrt(variance * (1 / n + ratio))


def sample(n, mean=0.3, seed=0):
    return np.random.default_rng([seed, n]).normal(mean, 1.0, n)


@pytest.mark.parametrize(
    ("n_train", "n_test", "overlap", "expected"),
    [
        (902, 113, 0.1, 113 / 1015),  # of random splits, what Nadeau and Bengio assume is the larger
        (902, 113, 0.21, 0.21),  # of scaffold splits, what is measured
        (902, 113, math.nan, 113 / 1015),  # a single split
        (902, 113, 1, 0.0),  # one test set: training differs only
        (902, 113, 0, 113 / 1015),  # test sets that share nothing, with training sets that share much
    ],
)
def test_the_correlation_is_the_larger_of_assumed_and_measured(n_train, n_test, overlap, expected):
    assert correlation_of(n_train, n_test, overlap) == pytest.approx(expected)
    assert correlation_of(n_train, n_test, overlap, one_data_set=False) == 0
    assert Paired([1.0, 2.0], 113 / 1015).share == pytest.approx(113 / 902)


@pytest.mark.parametrize("n", [2, 3, 5])
@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95])
def test_the_interval_is_the_corrected_resampled_t(n, confidence):
    values = sample(n)
    mean, error = corrected_error(values, 113 / 902)
    half = QUANTILE[n - 1]((1 + confidence) / 2) * error
    paired = Paired(values, 113 / 1015)
    assert paired.interval(confidence) == pytest.approx((mean, mean - half, mean + half))
    assert paired.p == pytest.approx(2 * TAIL[n - 1](abs(mean) / error))


@given(NUMBERS, st.floats(0.01, 0.5), st.floats(0.1, 10))
def test_the_interval_follows_the_values(values, correlation, scale):
    mean, low, high = Paired(values, correlation).interval()
    assert low <= mean <= high
    moved = Paired([scale * value + 1 for value in values[::-1]], correlation).interval()
    assert moved == pytest.approx([scale * x + 1 for x in (mean, low, high)], abs=1e-6)
    assert Paired(values, min(0.9, 1.5 * correlation)).interval()[2] >= high
    assert Paired(values, correlation).interval(0.99)[2] >= high


@pytest.mark.parametrize("n", [2, 7, 20])
def test_without_correlation_it_is_the_plain_paired_t(n):
    values = sample(n)
    plain = stats.ttest_1samp(values, 0.0)
    paired = Paired(values)
    assert paired.p == pytest.approx(plain.pvalue)
    assert paired.interval()[1:] == pytest.approx(tuple(plain.confidence_interval()))
    below, above = (
        stats.ttest_1samp(values, bound, alternative=side).pvalue for bound, side in ((-1, "greater"), (1, "less"))
    )
    assert paired.p_equal(-1, 1) == pytest.approx(max(below, above))


@given(NUMBERS, st.floats(0, 0.5), st.floats(0.01, 5))
def test_practical_equality_is_an_interval_within_the_margin(values, correlation, margin):
    paired = Paired(values, correlation)
    p = paired.p_equal(-margin, margin)
    if not paired.sd > 0:
        assert math.isnan(p)
        return
    _, low, high = paired.interval(1 - 2 * LEVEL)
    if min(abs(low + margin), abs(high - margin)) > 1e-9:
        assert (p < LEVEL) == (-margin < low and high < margin)
    # the flat prior makes the posterior mirror the tests
    below, within, above = paired.probabilities(-margin, margin)
    assert below + within + above == pytest.approx(1)
    assert max(below, above) == pytest.approx(p, abs=1e-9)


def test_the_posterior_is_a_literal_integral_and_that_of_baycomp():
    values = sample(10, 0.2)
    paired = Paired(values, 1 / 10)  # what baycomp assumes of ten folds of one run of cross-validation
    assert paired.probabilities(-0.5, 0.5) == pytest.approx(two_on_single(np.zeros(10), values, rope=0.5))
    mean, error = corrected_error(values, 1 / 9)

    def density(x):  # of Student's t with 9 degrees of freedom
        t = (x - mean) / error
        return math.gamma(5) / (math.sqrt(9 * math.pi) * math.gamma(4.5)) * (1 + t * t / 9) ** -5 / error

    literal = [integrate.quad(density, *ends)[0] for ends in ((-np.inf, -0.5), (-0.5, 0.5), (0.5, np.inf))]
    assert paired.probabilities(-0.5, 0.5) == pytest.approx(literal, abs=1e-7)
    # bounds that are not symmetric
    assert paired.probabilities(-0.5, 0.2)[0] == pytest.approx(literal[0], abs=1e-7)


@pytest.mark.parametrize("n", [2, 5, 8])
def test_the_sign_flip_test_counts_all_signs(n):
    values = sample(n, 0.8)
    means = [abs(np.mean(np.array(signs) * values)) for signs in itertools.product((-1, 1), repeat=n)]
    assert Paired(values).p_sign_flip() == pytest.approx(np.mean(np.array(means) >= abs(values.mean()) - 1e-12))


def test_five_pairs_of_one_sign_have_the_least_p_value_that_five_can_have():
    assert Paired([1.0, 2.0, 3.0, 4.0, 5.0]).p_sign_flip() == pytest.approx(0.0625)
    assert math.isnan(Paired(sample(11)).p_sign_flip())


@pytest.mark.parametrize("correlation", [0.0, 0.2])
def test_the_smallest_detectable_effect_is_found_as_often_as_it_says(correlation):
    n, rng = 12, np.random.default_rng(0)
    draws = np.sqrt(correlation) * rng.normal(size=(4000, 1)) + np.sqrt(1 - correlation) * rng.normal(size=(4000, n))
    known = Paired(sample(n), correlation)
    effect = known.detectable() / known.sd * np.sqrt(1 - correlation)  # of differences whose spread is known
    found = np.mean([Paired(draw + effect, correlation).p < LEVEL for draw in draws])
    assert found == pytest.approx(0.8, abs=0.025)
    assert known.detectable(n=50) < known.detectable() < known.detectable(power=0.9)


@pytest.mark.parametrize(("mean", "bounds"), [(0.4, (-0.2, 0.2)), (0.05, (-0.6, 0.6)), (-0.4, (-0.2, 0.2))])
@pytest.mark.parametrize("level", [0.05, 0.05 / 14])
def test_the_number_of_pairs_that_would_decide_is_the_least_that_does(mean, bounds, level):
    values = sample(8, 0.0)
    values = (values - values.mean()) / values.std(ddof=1) + mean
    needed = Paired(values, 0.01).needed(*bounds, level=level)

    def decides(n):
        error = math.sqrt(1 / n + 0.01 / 0.99)
        different = stats.t.ppf(1 - level / 2, n - 1) * error < abs(mean)
        equal = stats.t.ppf(1 - min(level, LEVEL / 2), n - 1) * error < min(mean - bounds[0], bounds[1] - mean)
        return different or equal

    assert needed == int(needed) and decides(int(needed)) and not decides(int(needed) - 1)


def test_no_number_of_overlapping_splits_decides_a_small_effect():
    values = sample(20, 0.0)
    values = (values - values.mean()) / values.std(ddof=1) + 0.3
    assert math.isinf(Paired(values, 1 / 9).needed(-0.1, 0.1))  # 1.96 / sqrt(8) is more than 0.3
    assert math.isfinite(Paired(values).needed(-0.1, 0.1))


def test_one_pair_and_equal_differences_have_no_test():
    one, equal = Paired([0.4]), Paired([0.4, 0.4])
    assert one.interval()[0] == 0.4 and math.isnan(one.interval()[1])
    for paired in (one, equal):
        values = [paired.p, paired.p_equal(-1, 1), *paired.probabilities(-1, 1), paired.needed(-1, 1)]
        assert all(map(math.isnan, values))
    assert math.isnan(one.detectable()) and equal.interval() == (0.4, 0.4, 0.4)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (([],), "differences"), (([[1.0]],), "differences"), (([1.0, math.nan],), "differences"),
        (([1.0, 2.0], 1.0), "correlation"), (([1.0, 2.0], -0.1), "correlation"),
        (([1.0, 2.0], math.nan), "correlation"),
    ],
)  # fmt: skip
def test_what_has_no_inference_is_refused_by_name(arguments, named):
    with pytest.raises(ValueError, match=rf"^{named}: got .*; allowed: "):
        Paired(*arguments)
    with pytest.raises(ValueError, match=r"^confidence: got 1; allowed: between 0 and 1$"):
        Paired([1.0, 2.0]).interval(1)


# --- error rates ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("n", [10, 20])
@pytest.mark.parametrize("correlation", [0.1, 0.2, 0.3])
def test_intervals_cover_and_tests_err_as_often_as_they_say(n, correlation):
    right = one_comparison(n, correlation, correlation, repeats=10_000, seed=1)
    assert right["coverage"] == pytest.approx(0.95, abs=0.02)
    assert right["type_1"] == pytest.approx(LEVEL, abs=0.02)
    if correlation > 0.1:  # and err more often where splits share more than is assumed
        wrong = one_comparison(n, correlation, 0.1, repeats=10_000, seed=1)
        assert wrong["type_1"] > LEVEL + 0.02 > right["type_1"]


@pytest.mark.slow
def test_the_family_of_primary_comparisons_errs_no_more_often_than_one():
    errors = family_errors(0.0, repeats=500, seed=1)
    assert errors["different"] <= LEVEL + 0.02
    assert errors["equal"] <= LEVEL + 0.02
