"""What makes training unlike the test: fewer samples, unseen target ranges, label noise, spurious correlation."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnclib.data import Split
from rnclib.data.shifts import SEEN, seen_ranges, spurious_split, subsample, with_label_noise, with_unseen_ranges


def whole_split(n=900, seed=0):
    sets = np.split(np.random.default_rng(seed).permutation(n), [round(0.8 * n), round(0.9 * n)])
    return Split(*map(np.sort, sets))


# --- fewer samples --------------------------------------------------------------------------------------


@given(n=st.integers(2, 60), seed=st.integers(0, 9), low=st.floats(0.01, 0.5), high=st.floats(0.5, 0.99))
def test_a_subsample_is_nested_and_leaves_validation_and_test_alone(n, seed, low, high):
    split = Split(train=np.arange(0, 3 * n, 3), val=np.array([1, 4]), test=np.array([2]))
    few, many, every = (subsample(split, fraction, seed) for fraction in (low, high, 1.0))
    assert set(few.train) <= set(many.train) <= set(split.train)
    assert len(few.train) == max(1, round(low * n)) and len(many.train) == max(1, round(high * n))
    assert np.array_equal(every.train, split.train)
    for one in (few, many, every):
        assert np.array_equal(one.val, split.val) and np.array_equal(one.test, split.test)
        assert np.all(np.diff(one.train) > 0)


def test_a_subsample_depends_on_the_seed_and_refuses_other_fractions():
    split = Split(train=np.arange(100), val=np.array([100]), test=np.array([101]))
    assert not np.array_equal(subsample(split, 0.5, 0).train, subsample(split, 0.5, 1).train)
    for fraction in (0, -0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match=r"fraction: got .*; allowed: above 0, at most 1"):
            subsample(split, fraction, 0)


# --- unseen target ranges -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SEEN)
@pytest.mark.parametrize("ages", [False, True])
def test_an_unseen_range_is_empty_in_training_and_full_in_the_test(kind, ages):
    targets = np.random.default_rng(1).normal(40, 15, 900)
    targets = targets.round() if ages else targets
    split = whole_split()
    cut = with_unseen_ranges(split, targets, kind, seed=3)
    ranges = seen_ranges(split, targets, kind)
    assert len(ranges) == len(SEEN[kind])

    def inside(index):
        return np.array([(targets[index] >= low) & (targets[index] <= high) for low, high in ranges])

    for name in ("train", "val"):
        left, before = getattr(cut, name), getattr(split, name)
        assert set(left) <= set(before) and inside(left).any(axis=0).all() and inside(left).any(axis=1).all()
    assert np.array_equal(cut.test, split.test) and (~inside(split.test).any(axis=0)).mean() > 0.1
    if kind == "cut-out":  # all samples in the ranges seen stay
        assert set(split.train[inside(split.train).any(axis=0)]) == set(cut.train)
    else:  # peaks: dense in the middle, thin at the ends
        middle, ends = [], []
        for low, high in ranges:
            for result, a, b in ((middle, 0.35, 0.65), (ends, 0.0, 0.15)):
                bounds = low + a * (high - low), low + b * (high - low)
                there = [
                    ((targets[p] >= bounds[0]) & (targets[p] <= bounds[1])).sum() for p in (cut.train, split.train)
                ]
                result.append(there)
        fractions = [np.sum(counts, axis=0)[0] / np.sum(counts, axis=0)[1] for counts in (middle, ends)]
        assert fractions[0] > 0.7 and fractions[1] < 0.5
    again, other = (with_unseen_ranges(split, targets, kind, seed=seed) for seed in (3, 4))
    assert np.array_equal(again.train, cut.train)
    assert kind == "cut-out" or not np.array_equal(other.train, cut.train)


def test_an_unknown_kind_of_ranges_is_named():
    with pytest.raises(ValueError, match=r"kind: got 'one peak'; allowed: 'two peaks', 'three peaks', 'cut-out'"):
        with_unseen_ranges(whole_split(), np.zeros(900), "one peak", 0)


# --- label noise ----------------------------------------------------------------------------------------


@given(fraction=st.floats(0, 1), seed=st.integers(0, 5))
def test_label_noise_exchanges_a_fraction_of_the_targets_within_each_set(fraction, seed):
    split, targets = whole_split(200), np.arange(200.0)
    noisy = with_label_noise(split, targets, fraction, seed)
    assert np.array_equal(targets, np.arange(200.0))  # those given are left alone
    assert np.array_equal(noisy[split.test], targets[split.test])
    for index in (split.train, split.val):
        moved = (noisy[index] != targets[index]).sum()
        assert moved == (round(fraction * len(index)) if round(fraction * len(index)) > 1 else 0)
        assert sorted(noisy[index]) == sorted(targets[index])


@pytest.mark.parametrize("fraction", [1.5, -0.1, float("nan")])
def test_another_fraction_of_label_noise_is_refused(fraction):
    with pytest.raises(ValueError, match=rf"fraction: got {fraction}; allowed: 0 to 1"):
        with_label_noise(whole_split(200), np.arange(200.0), fraction, 0)


# --- spurious correlation -------------------------------------------------------------------------------


def correlation(index, targets, attribute, threshold):
    """Of the attribute with an upper-half target."""
    return np.corrcoef(targets[index] >= threshold, attribute[index])[0, 1]


@pytest.mark.parametrize("seed", range(4))
def test_an_attribute_correlates_with_the_target_in_training_and_not_in_the_test(seed):
    rng = np.random.default_rng(seed)
    targets = rng.normal(size=900)
    attribute = rng.random(900) < 0.4
    split = whole_split()
    with_it, without = (
        spurious_split(split, targets, attribute, seed, correlated=correlated) for correlated in (True, False)
    )
    threshold = np.median(targets[split.train])
    for name in ("train", "val"):
        kept, free, before = getattr(with_it, name), getattr(without, name), getattr(split, name)
        assert correlation(kept, targets, attribute, threshold) > 0.7
        assert abs(correlation(free, targets, attribute, threshold)) < 4 / np.sqrt(len(free))
        assert len(kept) == len(free) and set(kept) <= set(before) and set(free) <= set(before)
        in_favour = before[(targets[before] >= threshold) == attribute[before]]
        assert set(in_favour) <= set(kept)  # of the others one in ten is left
        assert len(kept) - len(in_favour) == round(0.1 * (len(before) - len(in_favour)))
    assert np.array_equal(with_it.test, without.test) and set(with_it.test) <= set(split.test)
    counts = pd.crosstab(targets[with_it.test] >= threshold, attribute[with_it.test]).to_numpy().ravel()
    assert len(counts) == 4 and len(set(counts)) == 1
    assert correlation(with_it.test, targets, attribute, threshold) == 0
    again = spurious_split(split, targets, attribute, seed, correlated=True)
    assert np.array_equal(again.train, with_it.train) and np.array_equal(again.test, with_it.test)


def test_an_attribute_that_leaves_a_combination_out_is_refused():
    with pytest.raises(ValueError, match=r"attribute: got one that lacks a combination .*; allowed: all four"):
        spurious_split(whole_split(), np.arange(900.0), np.zeros(900, bool), 0, correlated=True)
