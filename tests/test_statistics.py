"""The statistics, against literal computations."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import VALUES, record, runs_of
from statsmodels.stats.multitest import multipletests

from rnclib import results, statistics
from rnclib.paired import Paired

# --- summaries and comparisons --------------------------------------------------------------------------

SHARE = 8 / 80  # n_test / n_train of these records: what Nadeau and Bengio (2003) add to 1/n


def interval(values, ratio):
    return Paired(np.array(values), ratio / (1 + ratio)).interval()


def test_a_summary_is_the_interval_of_each_method_and_the_spread_of_its_runs():
    summary = statistics.summarise(runs_of(), "test_mae")
    for method, values in VALUES.items():
        row = summary.loc[method]
        assert (row["mean"], row["low"], row["high"]) == pytest.approx(interval(values, SHARE))
        assert (row["min"], row["max"], row["n"], row["diverged"]) == (min(values), max(values), len(values), 0)
        assert row["sd"] == pytest.approx(np.std(values, ddof=1))
        assert row["median"] == pytest.approx(sorted(values)[len(values) // 2])
    assert summary.index.name == "method"


def test_a_summary_of_kinds_of_split_keeps_them_apart():
    runs = pd.concat([runs_of(), runs_of({"L1": [0.9, 1.0]}, split="scaffold")])
    summary = statistics.summarise(runs, "test_mae", by=["split", "method"])
    assert summary.index.names == ["split", "method"]
    assert summary.loc[("random", "L1"), "mean"] == pytest.approx(0.3)
    assert summary.loc[("scaffold", "L1"), "mean"] == pytest.approx(0.95)


def test_a_diverged_run_counts_as_diverged_and_in_nothing_else():
    records = [record("L2", 0, mae=0.2), record("L2", 1, diverged=True), record("L2", 2, mae=0.4)]
    summary = statistics.summarise(results.frame(records), "test_mae")
    assert (summary.loc["L2", "n"], summary.loc["L2", "diverged"]) == (2, 1)
    assert summary.loc["L2", "mean"] == pytest.approx(0.3)
    everything = results.frame([record("L2", seed, diverged=True) for seed in range(2)])
    summary = statistics.summarise(everything, "test_mae").loc["L2"]
    assert (summary["n"], summary["diverged"]) == (0, 2) and math.isnan(summary["mean"])


@pytest.mark.parametrize(
    ("changes", "correlation"),
    [
        ({"overlap": 1.0}, 0.0),  # one test set: seeds are independent
        ({"overlap": 0.0}, 8 / 88),  # training sets are shared
        ({"overlap": 0.0, "one_data_set": False}, 0.0),  # data of its own for each seed
        ({"overlap": math.nan}, 8 / 88),
        ({"overlap": 0.2}, 0.2),  # more than is assumed
        ({"split": "standard"}, 8 / 88),  # it is not the name of the split that counts
        ({"data": {"n_pool": 400}}, 8 / 408),  # subsets overlap as the sets do that they are drawn from
        ({"data": {"n_test_pool": 16}}, 16 / 96),
    ],
)
def test_the_correction_is_for_what_splits_share(changes, correlation):
    data = record()["data"] | changes.get("data", {})
    runs = runs_of(**(changes | {"data": data}))
    row = statistics.summarise(runs, "test_mae").loc["L1"]
    expected = Paired(np.array(VALUES["L1"]), correlation).interval()
    assert (row["mean"], row["low"], row["high"]) == pytest.approx(expected)
    row = statistics.compare(runs, "test_mae", "L1").loc["RnC(L1)"]
    assert row["paired"].correlation == pytest.approx(correlation)
    assert row["high"] == pytest.approx(row["paired"].interval()[2])


def test_a_comparison_is_a_paired_corrected_t_test():
    comparison = statistics.compare(runs_of(), "test_mae", "L1")
    difference = [b - a for a, b in zip(VALUES["L1"], VALUES["RnC(L1)"], strict=True)]
    row = comparison.loc["RnC(L1)"]
    assert (row["mean"], row["low"], row["high"]) == pytest.approx(interval(difference, SHARE))
    assert row["mean"] < 0  # lower than the baseline
    assert (row["better"], row["n"], row["baseline"]) == (4 / 5, 5, pytest.approx(np.mean(VALUES["L1"])))
    # L2 has three splits only: compared on those
    difference = [b - a for a, b in zip(VALUES["L1"], VALUES["L2"], strict=False)]
    row = comparison.loc["L2"]
    assert (row["n"], row["better"], row["mean"]) == (3, 0, pytest.approx(np.mean(difference)))
    assert row["baseline"] == pytest.approx(np.mean(VALUES["L1"][:3]))
    assert "L1" not in comparison.index and comparison.index.name == "method"


def test_a_comparison_turned_round_has_the_other_sign():
    values = {method: VALUES[method] for method in ("L1", "RnC(L1)")}
    there, back = (statistics.compare(runs_of(values), "test_mae", baseline).iloc[0] for baseline in values)
    assert there["mean"] == pytest.approx(-back["mean"])
    assert there["paired"].p == pytest.approx(back["paired"].p)
    assert there["low"] == pytest.approx(-back["high"]) and there["better"] == pytest.approx(1 - back["better"])


@given(seed=st.integers(0, 1000))
def test_runs_are_paired_by_their_split_not_by_their_order(seed):
    runs = runs_of()
    shuffled = runs.sample(frac=1, random_state=seed)
    expected = statistics.compare(runs, "test_mae", "L1").drop(columns="paired")
    found = statistics.compare(shuffled, "test_mae", "L1").drop(columns="paired")
    pd.testing.assert_frame_equal(found.loc[expected.index], expected)


def test_splits_that_one_of_the_two_lacks_are_left_out():
    runs = results.frame(
        [record("L1", seed, mae=mae) for seed, mae in ((0, 0.3), (1, 0.4), (2, 0.5), (4, 9.0))]
        + [record("L2", seed, mae=mae) for seed, mae in ((1, 0.3), (2, 0.3), (3, 9.0))]
        + [record("L2", 4, diverged=True)]
    )
    row = statistics.compare(runs, "test_mae", "L1").loc["L2"]
    assert (row["n"], row["mean"], row["better"]) == (2, pytest.approx(-0.15), 1)


def test_a_comparison_without_a_common_split_is_left_out():
    runs = results.frame([record("L1", 0), record("L2", 1), record("RnC(L1)", 0, diverged=True)])
    comparison = statistics.compare(runs, "test_mae", "L1")
    assert len(comparison) == 0 and {"mean", "low", "high", "paired", "better", "n"} <= set(comparison)


def test_one_split_has_no_interval():
    one = statistics.compare(runs_of({"L1": [0.3], "L2": [0.2]}), "test_mae", "L1").loc["L2"]
    assert one["mean"] == pytest.approx(-0.1) and math.isnan(one["low"])
    equal = statistics.compare(runs_of({"L1": [0.3, 0.4], "L2": [0.3, 0.4]}), "test_mae", "L1").loc["L2"]
    assert (equal["mean"], equal["low"], equal["better"]) == (0, 0, 0)


def test_methods_to_compare_can_be_chosen():
    assert statistics.compare(runs_of(), "test_mae", "L1", ["L2"]).index.tolist() == ["L2"]
    assert statistics.compare(runs_of(), "test_mae", "L1", iter(["RnC(L1)", "L2"])).index.tolist() == ["RnC(L1)", "L2"]


def test_what_cannot_be_compared_is_refused_by_name():
    runs = runs_of()
    with pytest.raises(ValueError, match=r"^baseline: got .*'Huber'.*; allowed: .*'L1'"):
        statistics.compare(runs, "test_mae", "Huber")
    with pytest.raises(ValueError, match=r"^methods: got \['Huber'\]; allowed: \['L1', 'L2', 'RnC\(L1\)'\]$"):
        statistics.compare(runs, "test_mae", "L1", ["L2", "Huber"])
    with pytest.raises(ValueError, match=r"^runs: got two of one method and seed; allowed: one each$"):
        statistics.compare(pd.concat([runs, runs[:1]]), "test_mae", "L1")
    with pytest.raises(ValueError, match=r"^runs: got splits \['random', 'scaffold'\]; allowed: one kind$"):
        statistics.compare(pd.concat([runs, runs_of(split="scaffold")]), "test_mae", "L1")


def test_the_corrected_interval_covers_where_the_plain_one_does_not():
    """Means of overlapping samples: repeated random splits of a fixed pool of numbers."""
    rng = np.random.default_rng(0)
    covered = {0.0: 0, 1 / 3: 0}
    for _ in range(400):
        pool = rng.normal(size=40)
        means = [pool[rng.permutation(40)[:10]].mean() for _ in range(15)]
        for ratio in covered:
            _, low, high = interval(means, ratio)
            covered[ratio] += low <= 0 <= high
    assert covered[0.0] / 400 < 0.85 < 0.92 < covered[1 / 3] / 400


# --- data, corruption -----------------------------------------------------------------------------------


def efficiency(shift: float, slope: float = 0.4, noise: float = 0.0, splits: int = 6) -> pd.DataFrame:
    """Errors that fall as (shift · n)^−slope for method B, as n^−slope for method A."""
    rng = np.random.default_rng(0)
    rows = [
        {"split": "random", "method": method, "seed": seed, "fraction": fraction, "n_train": round(800 * fraction),
         "n_test": 100, "n_pool": 800, "n_test_pool": 100, "overlap": 0.05, "one_data_set": True,
         "test_mae": (1 + 0.1 * seed) * (800 * fraction * (shift if method == "B" else 1)) ** -slope
         * np.exp(noise * rng.standard_normal())}
        for method in "AB" for seed in range(splits) for fraction in (0.1, 0.25, 1.0)
    ]  # fmt: skip
    return pd.DataFrame(rows)


@pytest.mark.parametrize("shift", [0.5, 1.0, 3.0])
def test_the_data_ratio_is_the_shift_of_the_learning_curve(shift):
    table = statistics.data_ratio(efficiency(shift), "test_mae", "A", "B")
    assert table.index.tolist() == [0.1, 0.25, 1.0, "all"] and set(table["n"]) == {6}
    np.testing.assert_allclose(table["ratio"], 1 / shift, rtol=1e-9)
    slopes = statistics.parallel(efficiency(shift), "test_mae", "A", "B")
    assert np.allclose(slopes.differences, 0)
    noisy = statistics.data_ratio(efficiency(shift, noise=0.05, splits=20), "test_mae", "A", "B").loc["all"]
    assert noisy["low"] < 1 / shift < noisy["high"] and noisy["low"] < noisy["ratio"] < noisy["high"]


def test_splits_on_which_more_data_did_not_help_are_left_out_of_the_data_ratio():
    runs = efficiency(2.0)
    worse = runs["seed"] == 0
    runs.loc[worse, "test_mae"] = runs.loc[worse, "n_train"] ** 0.2
    table = statistics.data_ratio(runs, "test_mae", "A", "B")
    assert set(table["n"]) == {5} and set(table["flat"]) == {1}
    with pytest.raises(ValueError, match=r"^runs: got fractions \[1\.0\]; allowed: at least two"):
        statistics.data_ratio(runs[runs["fraction"] == 1], "test_mae", "A", "B")
    for baseline, method, named in (("A", "C", "method"), ("C", "B", "baseline")):
        with pytest.raises(ValueError, match=rf"^{named}: got \['C'\]; allowed: \['A', 'B'\]$"):
            statistics.data_ratio(runs, "test_mae", baseline, method)
    with pytest.raises(ValueError, match=r"^runs: got splits \['random', 'size'\]; allowed: one kind$"):
        statistics.data_ratio(pd.concat([runs, runs.assign(split="size")]), "test_mae", "A", "B")


def test_all_samples_may_be_a_missing_fraction_in_the_data_ratio():
    runs = efficiency(2.0)
    missing = runs.assign(fraction=runs["fraction"].where(runs["fraction"] < 1))
    expected = statistics.data_ratio(runs, "test_mae", "A", "B").drop(columns="paired")
    found = statistics.data_ratio(missing, "test_mae", "A", "B").drop(columns="paired")
    pd.testing.assert_frame_equal(found, expected)
    lacking = missing.drop(missing.index[missing["fraction"].isna()][0])  # one run on all samples is not there
    assert set(statistics.data_ratio(lacking, "test_mae", "A", "B")["n"]) == {5}


def test_where_learning_curves_cross_the_ratio_is_read_on_the_methods_own_line():
    """A falls as n^−0.5, B as 30 · n^−1: at n, B needs 30 · n^0.5 samples for the error of A."""
    runs = efficiency(1.0)
    size, split = runs["n_train"], 1 + 0.1 * runs["seed"]
    runs["test_mae"] = split * np.where(runs["method"] == "A", size**-0.5, 30 / size)
    assert np.allclose(statistics.parallel(runs, "test_mae", "A", "B").differences, 0.5)
    table = statistics.data_ratio(runs, "test_mae", "A", "B")
    for fraction in (0.1, 0.25, 1.0):
        n = 800 * fraction
        assert table.loc[fraction, "ratio"] == pytest.approx(30 * n**0.5 / n)


def test_corruption_errors_are_relative_to_the_baseline_of_the_same_seed():
    def corrupted(method, seed, mae, errors):
        return record(method, seed, mae=mae) | {"corrupted": errors}

    records = [
        corrupted("L1", 0, 0.1, {"fog": [1.0, 3.0], "snow": [2.0, 2.0]}),
        corrupted("L1", 1, 0.1, {"fog": [10.0, 30.0], "snow": [20.0, 20.0]}),
        corrupted("RnC(L1)", 1, 0.2, {"fog": [5.0, 15.0], "snow": [20.0, 40.0]}),
        corrupted("RnC(L1)", 0, 0.2, {"fog": [4.0, 4.0], "snow": [2.0, None]}),
        record("training mean", 0),
    ]
    errors = results.corrupted(records)
    assert set(errors["method"]) == {"L1", "RnC(L1)"} and set(errors["severity"]) == {0, 1, 2}
    clean = errors[(errors["severity"] == 0) & (errors["method"] == "RnC(L1)")]
    assert clean["mae"].tolist() == [0.4] * 4  # twice, for each kind: in raw units
    ratio = statistics.corruption_errors(errors, "L1").set_index(["method", "seed", "kind"])["ratio"]
    assert ratio["RnC(L1)", 0, "fog"] == 2.0
    assert math.isnan(ratio["RnC(L1)", 0, "snow"]) and math.isnan(ratio["RnC(L1)", 0, "mean"])  # it failed there
    assert ratio["RnC(L1)", 1, "mean"] == pytest.approx(math.sqrt(0.5 * 1.5))
    assert (ratio["L1"] == 1).all()
    # whichever is the baseline: one is above the other by as much as that is below it
    turned = statistics.corruption_errors(errors, "RnC(L1)").set_index(["method", "seed", "kind"])["ratio"]
    assert turned["L1", 1, "mean"] == pytest.approx(1 / ratio["RnC(L1)", 1, "mean"])
    table = statistics.corruption_ratio(records[:-1], "L1", {"fog": "weather", "snow": "weather"}).xs("RnC(L1)")
    assert table.loc["fog", "ratio"] == pytest.approx(1.0) and table.loc["fog", "n"] == 2
    assert table.loc["mean", "n"] == 1 and table.loc["weather", "ratio"] == pytest.approx(math.sqrt(0.5 * 1.5))
    for summary in (statistics.corruption_ratio, statistics.corruption_growth):
        with pytest.raises(ValueError, match=r"^baseline: got \['Huber'\]; allowed: \['L1', 'RnC\(L1\)'\]$"):
            summary(records, "Huber")
        with pytest.raises(ValueError, match=r"^runs: got splits \['random', 'scaffold'\]; allowed: one kind$"):
            summary([*records, corrupted("L1", 2, 0.1, {"fog": [1.0, 3.0]}) | {"split": "scaffold"}], "L1")
    growth = statistics.corruption_growth(records[:-1], "L1")
    assert growth.index.tolist() == ["L1", "RnC(L1)"]
    # clean 0.2 and 0.4; corrupted 2 and 20, and 20 where nothing failed
    assert growth.loc["L1", "growth"] == pytest.approx(math.sqrt((2 / 0.2) * (20 / 0.2)))
    assert growth.loc["RnC(L1)", "ratio"] == pytest.approx((20 / 0.4) / (20 / 0.2)) and growth.loc["RnC(L1)", "n"] == 1
    # labels, where records have them, are what methods are called by
    names = {"L1": "L1 end to end", "RnC(L1)": "RnC fine-tuned, L1"}
    shown = results.labelled(records[:-1], [names[one["method"]] for one in records[:-1]])
    found = statistics.corruption_growth(shown, "L1 end to end").drop(columns="paired")
    pd.testing.assert_frame_equal(found, growth.drop(columns="paired").rename(index=names))


# --- corrected p values, variance, stuck runs -----------------------------------------------------------


@given(p=st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_its_definition(p):
    corrected = statistics.holm(pd.Series(p, index=[f"claim {i}" for i in range(len(p))]))
    order = sorted(range(len(p)), key=lambda i: p[i])
    for rank, i in enumerate(order):
        expected = min(1.0, max((len(p) - k) * p[order[k]] for k in range(rank + 1)))
        assert corrected.iloc[i] == pytest.approx(expected)


def test_holm_is_that_of_statsmodels():
    p = np.random.default_rng(0).random(30) ** 3
    p[5] = p[7]
    assert statistics.holm(pd.Series(p)).to_numpy() == pytest.approx(multipletests(p, method="holm")[1])


def test_missing_p_values_do_not_count_in_holm():
    assert statistics.holm(pd.Series([0.01, math.nan, 0.04])).iloc[[0, 2]].tolist() == [0.02, 0.04]
    assert math.isnan(statistics.holm(pd.Series([0.01, math.nan])).iloc[1])
    repeated = statistics.holm(pd.Series([0.04, 0.01], index=["RnC(L1)", "RnC(L1)"]))
    assert repeated.tolist() == [0.04, 0.02]
    assert statistics.holm(pd.Series([0.04, math.nan, 0.01]), family=3).tolist()[::2] == [0.08, 0.03]
    with pytest.raises(ValueError, match=r"^family: got 1 with 2 p values; allowed: at least as many$"):
        statistics.holm(pd.Series([0.04, 0.01]), family=1)


def test_variance_components_are_those_that_made_the_table():
    rng = np.random.default_rng(0)
    found = []
    for _ in range(400):
        split, weights = rng.normal(0, 2, (5, 1)), rng.normal(0, 1, (1, 4))
        found.append(statistics.variance_components(pd.DataFrame(split + weights + rng.normal(0, 0.5, (5, 4)))))
    mean = pd.DataFrame(found).mean()
    assert mean["split"] == pytest.approx(4, rel=0.1) and mean["weights"] == pytest.approx(1, rel=0.15)
    assert mean["rest"] == pytest.approx(0.25, rel=0.05)
    for wrong in (pd.DataFrame([[1.0, 2.0]]), pd.DataFrame([[1.0, 2.0], [3.0, math.nan]])):
        with pytest.raises(ValueError, match=r"^values: got shape .*; allowed: at least \(2, 2\), without missing"):
            statistics.variance_components(wrong)


def test_runs_of_two_machines_are_paired_by_their_key():
    now = [record("L1", seed, mae=0.3, key=f"{seed:016}") for seed in range(3)]
    then = [record("L1", seed, mae=0.3 + 0.1 * (seed - 1), key=f"{seed:016}") for seed in (2, 0)]
    row = statistics.between_machines(now, [*then, record("L1", 7, key="f" * 16)], "test_mae").loc["L1"]
    assert (row["n"], row["mean"], row["sd"]) == (2, pytest.approx(0), pytest.approx(0.1 * math.sqrt(2)))


def test_stuck_runs_are_networks_whose_validation_error_stays_high():
    good, stuck, diverged = record("L1", 0, mae=0.2), record("L1", 1, mae=0.8), record("L1", 2, diverged=True)
    baseline = record("training mean", 0, mae=0.8, config={"model": "training mean"})
    runs = results.frame([good, stuck, diverged, record("L2", 0, mae=0.9), baseline])
    stuck = statistics.stuck(runs)
    assert runs[stuck][["method", "seed"]].to_numpy().tolist() == [["L1", 1], ["L2", 0]]
    assert runs[statistics.stuck(runs, threshold=0.85)][["method", "seed"]].to_numpy().tolist() == [["L2", 0]]
