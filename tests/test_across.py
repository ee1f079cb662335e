"""What is said over tasks, against literal formulas, closed forms and simulation."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import optimize, stats

from rnclib.across import (
    OverTasks,
    chosen,
    critical_difference,
    decide,
    effects,
    errors,
    lost,
    profile,
    ranks,
    weights,
)


def runs_of(errors: dict[tuple[str, str], list[float]], overlap: float = 0.1) -> pd.DataFrame:
    """A run for each number, by task and arm; the test set is an eighth of the training set."""
    return pd.DataFrame(
        {"dataset": dataset, "arm": arm, "seed": seed, "val_mae_raw": 1.0, "test_mae_raw": error, "n_pool": 80,
         "n_test_pool": 10, "overlap": overlap, "one_data_set": True}
        for (dataset, arm), values in errors.items() for seed, error in enumerate(values)
    )  # fmt: skip


# --- choice and effects ---------------------------------------------------------------------------------


def test_validation_chooses_the_regressor_on_each_split_and_the_test_set_has_no_say():
    runs = pd.DataFrame(
        [("a", "RnC", 0, "ridge", 2.0, 1.0), ("a", "RnC", 0, "own", 1.0, 9.0), ("a", "RnC", 1, "ridge", 1.0, 3.0),
         ("a", "RnC", 1, "own", math.nan, math.nan), ("a", "joint", 0, "own", math.nan, math.nan),
         ("b", "RnC", 0, "own", 3.0, 4.0)],
        columns=["dataset", "arm", "seed", "head", "val_mae_raw", "test_mae_raw"],
    )  # fmt: skip
    found = chosen(runs).set_index(["dataset", "arm", "seed"])
    assert found["head"].to_dict() == {
        ("a", "RnC", 0): "own", ("a", "RnC", 1): "ridge", ("a", "joint", 0): "own", ("b", "RnC", 0): "own",
    }  # fmt: skip
    assert found.loc[("a", "RnC", 0), "test_mae_raw"] == 9.0
    assert math.isnan(found.loc[("a", "joint", 0), "test_mae_raw"])
    again = chosen(runs.assign(test_mae_raw=runs["test_mae_raw"].iloc[::-1].to_numpy()))
    assert again["head"].tolist() == chosen(runs)["head"].tolist()


def test_an_effect_is_the_mean_of_log_ratios_with_the_corrected_interval():
    one, two = [1.0, 1.2, 0.9, 1.1], [1.1, 1.1, 1.1, 1.3]
    found = effects(runs_of({("a", "RnC"): one, ("a", "end to end"): two}), "RnC", "end to end").loc["a"]
    d = np.log(np.array(one) / two)
    # n_test/n_train = 1/8: correlation 1/9, above the overlap of 0.1
    error = d.std(ddof=1) * math.sqrt(1 / 4 + 1 / 8)
    half = stats.t.ppf(0.975, 3) * error
    assert found["effect"] == pytest.approx(d.mean()) and found["error"] == pytest.approx(error)
    assert (found["low"], found["high"]) == pytest.approx((d.mean() - half, d.mean() + half))
    assert (found["n"], found["lost"]) == (4, 0)
    # a measured overlap above that takes its place
    wider = effects(runs_of({("a", "RnC"): one, ("a", "end to end"): two}, overlap=0.5), "RnC", "end to end").loc["a"]
    assert wider["error"] == pytest.approx(d.std(ddof=1) * math.sqrt(1 / 4 + 1))


def test_what_diverged_is_lost_for_both_and_counted():
    runs = runs_of({("a", "RnC"): [1.0, math.nan, 1.0], ("a", "joint"): [1.0, 1.0, 2.0, 5.0], ("b", "RnC"): [1.0],
                    ("c", "RnC"): [math.nan], ("c", "joint"): [1.0], ("b", "joint"): [2.0]})  # fmt: skip
    found = effects(runs, "RnC", "joint")
    assert found.index.tolist() == ["a", "b"]
    assert found.loc["a", ["n", "lost"]].tolist() == [2, 1]
    assert found.loc["b", "effect"] == pytest.approx(-math.log(2)) and math.isnan(found.loc["b", "error"])
    with pytest.raises(ValueError, match=r"^runs: got none of \['joint'\] on 'b'; allowed: both arms on every task$"):
        effects(runs[(runs["dataset"] != "b") | (runs["arm"] != "joint")], "RnC", "joint")


# --- over tasks -----------------------------------------------------------------------------------------


def table_of(effect, error) -> pd.DataFrame:
    return pd.DataFrame({"effect": effect, "error": error})


def paule_mandel(effect, variance) -> float:
    def excess(tau2):
        weights = 1 / (variance + tau2)
        return (weights * (effect - np.average(effect, weights=weights)) ** 2).sum() - (len(effect) - 1)

    return 0.0 if excess(0.0) <= 0 else optimize.brentq(excess, 0, 100)


@pytest.mark.parametrize("spread", [0.0, 0.1, 0.5])
def test_the_model_is_that_of_paule_and_mandel_with_the_interval_of_hartung_and_knapp(spread):
    rng = np.random.default_rng(4)
    error = rng.uniform(0.02, 0.2, size=12)
    effect = rng.normal(-0.05, spread, size=12) + error * rng.normal(size=12)
    found = OverTasks.of(table_of(effect, error))
    tau2 = paule_mandel(effect, error**2)
    weights = 1 / (error**2 + tau2)
    mean = np.average(effect, weights=weights)
    scale = (weights * (effect - mean) ** 2).sum() / 11
    assert found.spread == pytest.approx(math.sqrt(tau2), abs=1e-4)
    assert (found.n, found.mean) == (12, pytest.approx(mean, abs=1e-5))
    assert found.error == pytest.approx(math.sqrt(max(scale, 1) / weights.sum()), rel=1e-3)
    half = stats.t.ppf(0.975, 11) * found.error
    assert found.interval == pytest.approx((found.mean - half, found.mean + half))
    assert found.p == pytest.approx(2 * stats.t.sf(abs(found.mean) / found.error, 11))


def test_tasks_of_equal_precision_are_a_plain_t_test():
    effect = np.array([-0.1, 0.02, -0.3, 0.05, -0.12])
    found = OverTasks.of(table_of(effect, np.full(5, 0.05)))
    plain = stats.ttest_1samp(effect, 0)
    assert (found.mean, found.p) == pytest.approx((effect.mean(), plain.pvalue), rel=1e-4)
    assert found.interval == pytest.approx(tuple(plain.confidence_interval()), rel=1e-3)
    assert found.p_equal(0.2) == pytest.approx(
        max(stats.ttest_1samp(effect, -0.2, alternative="greater").pvalue,
            stats.ttest_1samp(effect, 0.2, alternative="less").pvalue), rel=1e-3,
    )  # fmt: skip


def test_effects_that_differ_less_than_their_errors_do_not_make_the_interval_narrower():
    """Standard errors of overlapping splits are on the safe side, so effects can be too alike by chance."""
    alike = table_of(np.linspace(-0.021, -0.019, 10), np.full(10, 0.05))
    found = OverTasks.of(alike)
    assert found.spread == 0 and found.error == pytest.approx(0.05 / math.sqrt(10))
    with pytest.raises(ValueError, match=r"^effects: got a standard error of 0; allowed: positive ones$"):
        OverTasks.of(alike.assign(error=[0.0] + [0.05] * 9))


def test_the_interval_of_the_spread_covers_it_and_closes_on_it_with_many_exact_tasks():
    rng = np.random.default_rng(3)
    inside = 0
    for _ in range(400):
        error = rng.uniform(0.02, 0.1, size=10)
        low, high = OverTasks.of(table_of(rng.normal(0, 0.06, 10) + error * rng.normal(size=10), error)).spread_interval
        inside += low <= 0.06 <= high
    assert 0.92 <= inside / 400 <= 0.98
    # without errors of their own the squares are those of a sample: the interval of a variance
    effect = rng.normal(0, 0.06, 50)
    low, high = OverTasks.of(table_of(effect, np.full(50, 1e-6))).spread_interval
    squares = ((effect - effect.mean()) ** 2).sum()
    assert (low, high) == pytest.approx(tuple(np.sqrt(squares / stats.chi2.ppf([0.975, 0.025], 49))), rel=1e-6)
    alike = OverTasks.of(table_of(np.linspace(-0.021, -0.019, 10), np.full(10, 0.05)))
    assert alike.spread_interval == (0.0, 0.0)  # effects more alike than their errors let one expect


def test_a_task_counts_by_its_precision():
    even = weights(table_of(np.array([0.1, 0.2, 0.3]), np.full(3, 0.05)))
    assert even.tolist() == pytest.approx([1 / 3] * 3)
    effects = table_of(np.array([0.0, 0.001, -0.001, 0.4]), np.array([0.01, 0.02, 0.02, 1.0]))
    found = weights(effects)
    assert found.tolist() == pytest.approx((np.array([10000, 2500, 2500, 1]) / 15001).tolist(), rel=1e-6)
    assert (found * effects["effect"]).sum() == pytest.approx(OverTasks.of(effects).mean)


def test_a_new_task_is_forecast_with_both_variances():
    model = OverTasks(n=12, mean=-0.04, error=0.03, spread=0.04)
    lower, alike, higher = model.new_task(0.06)
    assert (lower, higher) == pytest.approx((stats.t.cdf(-0.02 / 0.05, 10), stats.t.sf(0.1 / 0.05, 10)))
    assert lower + alike + higher == pytest.approx(1)
    assert model.new_task(0.0) == pytest.approx((stats.t.cdf(0.04 / 0.05, 10), 0, stats.t.sf(0.04 / 0.05, 10)))
    assert OverTasks(12, 0.0, 0.01, 0.2).new_task(0.0) == pytest.approx((0.5, 0, 0.5))
    assert model.new_task(0.06, 0.3) == OverTasks(n=12, mean=-0.04, error=0.03, spread=0.3).new_task(0.06)


def test_intervals_and_forecasts_are_right_as_often_as_they_say():
    rng = np.random.default_rng(0)
    covered = helped = said = 0.0
    for _ in range(400):
        error = rng.uniform(0.02, 0.1, size=15)
        effect = rng.normal(-0.03, 0.06, size=15) + error * rng.normal(size=15)
        model = OverTasks.of(table_of(effect, error))
        covered += model.interval[0] <= -0.03 <= model.interval[1]
        helped += rng.normal(-0.03, 0.06) < 0
        said += model.new_task(0.0)[0]
    assert 0.93 < covered / 400 < 0.98
    assert said / 400 == pytest.approx(helped / 400, abs=0.06)


def test_tasks_without_a_standard_error_are_left_out_and_two_are_too_few():
    some = table_of([-0.1, 0.0, 0.1, 5.0], [0.1, 0.1, 0.1, math.nan])
    assert OverTasks.of(some).n == 3 and OverTasks.of(some).mean == pytest.approx(0, abs=1e-9)
    with pytest.raises(ValueError, match=r"^effects: got 2 tasks with a standard error; allowed: at least 3$"):
        OverTasks.of(some.iloc[1:])


def test_the_number_of_tasks_that_would_decide():
    model = OverTasks(n=10, mean=-0.03, error=0.02, spread=0.05)
    n = int(model.needed(margin=0.05))
    interval = [stats.t.ppf(0.975, k - 1) * 0.02 * math.sqrt(10 / k) for k in (n - 1, n)]
    assert interval[1] < 0.03 <= interval[0]
    # one that is nearly equal is decided by the margin
    assert OverTasks(10, 0.001, 0.02, 0.05).needed(0.05) < 20
    assert OverTasks(10, 0.025, 50.0, 0.05).needed(0.05) == math.inf
    # a corrected level asks for more; equality is tested from one side
    equal = OverTasks(10, 0.0, 0.05, 0.05)
    for level in (0.05, 0.05 / 3, 0.2):
        n = int(equal.needed(0.05, level))
        half = [stats.t.ppf(1 - min(level, 0.025), k - 1) * 0.05 * math.sqrt(10 / k) for k in (n - 1, n)]
        assert half[1] < 0.05 <= half[0]


MARGIN = math.log(1 / 0.95)


def test_verdicts_over_tasks_are_corrected_together():
    models = {
        "better": OverTasks(15, -0.10, 0.03, 0.05), "worse": OverTasks(15, 0.10, 0.03, 0.05),
        "equal": OverTasks(15, 0.01, 0.01, 0.0), "open": OverTasks(15, -0.04, 0.02, 0.05),
    }  # fmt: skip
    found = decide(models, MARGIN, 4)
    assert found["verdict"].to_dict() == {
        "better": "holds", "worse": "does not hold", "equal": "practically equal", "open": "undecided",
    }  # fmt: skip
    plain = np.array([model.p for model in models.values()])
    order = np.argsort(plain)
    stepped = np.maximum.accumulate(plain[order] * (4 - np.arange(4)))
    assert found["p"].to_numpy()[order] == pytest.approx(np.minimum(stepped, 1))
    assert found["needed"].isna().tolist() == [True, True, True, False]
    assert found.loc["open", "needed"] == models["open"].needed(MARGIN, 0.05 / 4) > models["open"].needed(MARGIN)
    # those to come count, too
    later = decide({"open": models["open"]}, MARGIN, 4).loc["open"]
    assert later["p"] == pytest.approx(4 * models["open"].p) and later["verdict"] == "undecided"
    # an interval that leaves the margin is not practical equality, whatever its p value
    wide = OverTasks(4, 0.0, 0.017, 0.0)
    assert wide.p_equal(MARGIN) < 0.05 and decide({"wide": wide}, MARGIN, 1)["verdict"].item() == "undecided"


# --- ranks and profiles ---------------------------------------------------------------------------------

ERRORS = pd.DataFrame({"a": [1.0, 2.0, 3.0], "b": [2.0, 2.0, 1.0], "c": [4.0, math.inf, 1.1]})


def test_a_split_on_which_an_arm_diverged_is_left_out_for_all_and_an_arm_that_fails_is_last():
    nan = math.nan
    runs = runs_of({("b", "RnC"): [1.0, nan, 3.0], ("b", "joint"): [1.0, 9.0, 3.0],
                    ("a", "RnC"): [1.0, nan, nan], ("a", "joint"): [4.0, 5.0, 6.0], ("c", "joint"): [1.0]})  # fmt: skip
    found = errors(runs)
    assert found.index.tolist() == ["b", "a", "c"] and found.columns.tolist() == ["RnC", "joint"]
    assert found.loc["b"].tolist() == [2.0, 2.0]
    assert found.loc["a"].tolist() == [math.inf, 5.0]  # which has its splits to itself
    assert math.isnan(found.loc["c", "RnC"]) and found.loc["c", "joint"] == 1.0  # it did not run there
    assert lost(runs).loc["a"].tolist() == [2, 0] or lost(runs).loc["a", "RnC"] == 2


def test_a_method_that_did_not_run_on_a_task_has_no_rank():
    for function in (ranks, lambda errors: profile(errors, np.array([1.0]))):
        with pytest.raises(ValueError, match=r"^errors: got none of \['c'\] on some tasks; allowed: methods that ran"):
            function(ERRORS.replace(math.inf, math.nan))


def test_ranks_share_ties_and_put_what_failed_last():
    assert ranks(ERRORS).to_dict() == pytest.approx(
        {"a": (1 + 1.5 + 3) / 3, "b": (2 + 1.5 + 1) / 3, "c": (3 + 3 + 2) / 3}
    )


def test_the_critical_difference_is_that_of_the_published_table():
    # q for 0.05 of Demšar's table 5a, for 2 to 10 classifiers
    published = [1.960, 2.343, 2.569, 2.728, 2.850, 2.949, 3.031, 3.102, 3.164]
    for k, q in enumerate(published, start=2):
        assert critical_difference(k, 30) == pytest.approx(q * math.sqrt(k * (k + 1) / 180), rel=1e-3)


def test_a_profile_counts_the_tasks_within_a_ratio_of_the_best():
    found = profile(ERRORS, np.array([1.0, 1.1, 2.0, 4.0]))
    assert found["a"].tolist() == pytest.approx([2 / 3, 2 / 3, 2 / 3, 1])
    assert found["b"].tolist() == pytest.approx([2 / 3, 2 / 3, 1, 1])
    assert found["c"].tolist() == pytest.approx([0, 1 / 3, 1 / 3, 2 / 3])
