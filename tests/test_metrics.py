"""Regression errors and rank agreement: closed forms, invariances, and SciPy's own Spearman correlation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from rnclib.metrics import rank_agreement, regression_errors

finite = st.floats(-1e6, 1e6, allow_nan=False, width=32)


# --- errors ---------------------------------------------------------------------------------------------


def test_errors_by_hand():
    assert regression_errors([3.0, -1.0, 2.0, 0.0], [0.0, 3.0, 2.0, 0.0]) == {
        "mae": 7 / 4, "rmse": 2.5, "mse": 25 / 4,
    }  # fmt: skip
    assert regression_errors([5], [5]) == {"mae": 0.0, "rmse": 0.0, "mse": 0.0}


@given(st.lists(st.tuples(finite, finite), min_size=1, max_size=30), st.floats(0.25, 4), finite)
def test_errors_follow_their_definitions(pairs, scale, shift):
    prediction, target = map(np.array, zip(*pairs, strict=True))
    errors = regression_errors(prediction, target)
    gaps = [abs(a - b) for a, b in pairs]
    assert errors["mae"] == pytest.approx(math.fsum(gaps) / len(gaps), rel=1e-12)
    assert errors["mse"] == pytest.approx(math.fsum(g * g for g in gaps) / len(gaps), rel=1e-12)
    assert errors["rmse"] == pytest.approx(math.sqrt(errors["mse"]), rel=1e-12)
    assert errors["mae"] <= errors["rmse"] * (1 + 1e-12) <= max(gaps) * (1 + 1e-9)
    assert regression_errors(target, prediction) == errors
    # standardised and raw errors differ by the unit alone
    scaled = regression_errors(prediction * scale + shift, target * scale + shift)
    assert scaled["mae"] == pytest.approx(errors["mae"] * scale, rel=1e-6, abs=1e-8 * (1 + abs(shift)))


@pytest.mark.parametrize(
    ("prediction", "target", "named"),
    [
        ([1.0], [1.0, 2.0], "prediction, target"),
        ([[1.0]], [[1.0]], "prediction, target"),  # (n, 1) would be averaged in silence
        ([[1.0], [2.0]], [1.0, 2.0], "prediction, target"),  # or broadcast to (n, n)
        ([], [], "prediction, target"),
        (1.0, 1.0, "prediction, target"),
        ([math.nan], [1.0], "prediction"),
        ([1.0, 2.0], [1.0, math.inf], "target"),
    ],
)
def test_what_has_no_error_is_refused_by_name(prediction, target, named):
    with pytest.raises(ValueError, match=rf"^{named}: got .*; allowed: "):
        regression_errors(prediction, target)


# --- rank agreement -------------------------------------------------------------------------------------


def literal(features, target):
    """Mean of SciPy's Spearman correlation over the anchors for which it is defined."""
    correlations = []
    for i in range(len(target)):
        others = [j for j in range(len(target)) if j != i]
        feature_distance = [math.dist(features[i], features[j]) for j in others]
        label_distance = [abs(target[i] - target[j]) for j in others]
        if len(set(feature_distance)) > 1 and len(set(label_distance)) > 1:
            correlations.append(stats.spearmanr(feature_distance, label_distance).statistic)
    return float(np.mean(correlations)) if correlations else math.nan


@pytest.mark.parametrize("n", [3, 4, 17, 60])
@pytest.mark.parametrize("dim", [1, 5])
def test_rank_agreement_is_spearmans_correlation_from_each_anchor(n, dim):
    rng = np.random.default_rng([n, dim])
    features, target = rng.normal(size=(n, dim)), rng.normal(size=n)
    features[:, 0] += target
    assert rank_agreement(features, target) == pytest.approx(literal(features, target), abs=1e-12)


@given(
    st.lists(st.tuples(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), st.integers(-2, 2)), min_size=3, max_size=15)
)
def test_ties_are_shared_and_anchors_without_an_order_are_left_out(samples):
    features, target = map(np.array, zip(*samples, strict=True))
    ours, expected = rank_agreement(features, target), literal(features.tolist(), target.tolist())
    assert math.isnan(ours) == math.isnan(expected)
    if not math.isnan(expected):
        assert ours == pytest.approx(expected, abs=1e-9)
        assert -1 - 1e-12 <= ours <= 1 + 1e-12


@given(
    seed=st.integers(0, 10**6),
    n=st.integers(4, 25),
    dim=st.integers(1, 6),
    scale=st.floats(1e-3, 1e3),
    slope=st.floats(1e-3, 1e3).flatmap(lambda value: st.sampled_from([value, -value])),
)
def test_rotations_shifts_and_units_change_nothing(seed, n, dim, scale, slope):
    rng = np.random.default_rng(seed)
    features, target = rng.normal(size=(n, dim)), rng.normal(size=n)
    rotation = np.linalg.qr(rng.normal(size=(dim, dim)))[0]
    moved = scale * features @ rotation + rng.normal(size=dim)
    order = rng.permutation(n)
    expected = rank_agreement(features, target)
    assert rank_agreement(moved, slope * target + 3) == pytest.approx(expected, abs=1e-9)
    assert rank_agreement(features[order], target[order]) == pytest.approx(expected, abs=1e-9)


@given(seed=st.integers(0, 10**6), n=st.integers(3, 40))
def test_features_in_the_order_of_the_labels_agree_wholly(seed, n):
    rng = np.random.default_rng(seed)
    target = rng.normal(size=n)
    line = np.outer(target, rng.normal(size=4))  # along a line, in the labels' own spacing
    assert rank_agreement(line, target) == pytest.approx(1.0, abs=1e-9)
    if n > 20:  # by chance so many samples do not come near it
        assert rank_agreement(line, rng.permutation(target)) < 0.8


def test_features_against_the_order_disagree():
    # of three samples each sees two others, in the right order (1) or the wrong one (-1)
    assert rank_agreement([[0.0], [2.0], [0.9]], [0.0, 1.0, 2.5]) == -1.0
    assert rank_agreement([[0.0], [2.0], [1.1]], [0.0, 1.0, 2.5]) == pytest.approx(-1 / 3)


def test_unrelated_features_agree_by_chance_only():
    rng = np.random.default_rng(0)
    values = [rank_agreement(rng.normal(size=(100, 8)), rng.normal(size=100)) for _ in range(40)]
    assert abs(np.mean(values)) < 4 * np.std(values) / math.sqrt(40) < 0.05


def test_without_any_order_there_is_no_agreement():
    assert math.isnan(rank_agreement(np.zeros((5, 2)), np.arange(5)))
    assert math.isnan(rank_agreement(np.random.default_rng(0).normal(size=(5, 2)), np.ones(5)))


@pytest.mark.parametrize(
    ("features", "target"),
    [
        ([0.0, 1.0, 2.0], [0.0, 1.0, 2.0]),
        ([[0.0], [1.0]], [0.0, 1.0]),
        ([[0.0], [1.0], [2.0]], [0.0, 1.0]),
        ([[0.0], [1.0], [2.0]], [[0.0], [1.0], [2.0]]),
        ([[0.0], [1.0]], [0.0, 1.0, 2.0]),
    ],
)
def test_shapes_that_do_not_fit_are_refused(features, target):
    with pytest.raises(ValueError, match=r"^features, target: got shapes .*; allowed: \(n, feat_dim\) and \(n,\)"):
        rank_agreement(features, target)
