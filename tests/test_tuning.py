"""The search for settings: what it keeps, how it goes on, and when it gives up."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from worlds import table

from rnclib import tuning
from rnclib.fitting import Diverged, Samples
from rnclib.recipe import Recipe, Stage
from rnclib.tuning import Plan, best_settings, search, typical_settings

TRAIN, VAL = table(60), table(20, seed=1)
SEARCHED = {"learning_rate": (1e-4, 1.0), "epochs": [8, 16]}


def recipe_of(settings):
    stage = Stage("l1", batch_size=16, lr_decay_rate=0.1, weight_decay=0, **settings)
    return Recipe("perceptron", fit=stage, widths=(4,))


def pretend(monkeypatch, error_of, fails=lambda settings: False):
    """Training that takes no time: the network is off by `error_of` its learning rate, on the way and at the end."""
    fitted = []

    def fit(recipe, train, val, *, seed, execution, on_epoch):
        error = error_of(recipe.fit.learning_rate)
        for number in range(1, recipe.fit.epochs + 1):
            on_epoch(SimpleNamespace(number=number, ridge_error=lambda: error))
        if fails(recipe.fit):
            raise Diverged("it does", [])
        fitted.append(recipe)
        return SimpleNamespace(
            predict=lambda inputs: (val.targets if inputs is val.inputs else train.targets) + error,
            features=lambda inputs: np.ones((len(inputs), 2)),
        )

    monkeypatch.setattr(tuning, "fit", fit)
    return fitted


def far_from_a_hundredth(rate):
    return abs(np.log10(rate) + 2)


def searched(n_trials, *, heads=(None,), first=None, sets=((TRAIN, VAL),), **options):
    return search(Plan(SEARCHED, recipe_of, heads, first), sets, n_trials=n_trials, **options)


def without_times(trials):
    return [{name: value for name, value in trial.items() if name != "seconds"} for trial in trials]


def test_a_search_comes_nearer_to_the_best_setting_than_chance(monkeypatch):
    pretend(monkeypatch, far_from_a_hundredth)
    trials = searched(30)
    assert far_from_a_hundredth(best_settings(trials)["learning_rate"]) < 0.1
    early, late = trials[:8], trials[-8:]
    middle = [np.median([far_from_a_hundredth(t["settings"]["learning_rate"]) for t in part]) for part in (early, late)]
    assert middle[1] < 0.5 * middle[0]
    assert all(1e-4 <= t["settings"]["learning_rate"] <= 1 and t["settings"]["epochs"] in (8, 16) for t in trials)


def test_a_trial_that_lags_behind_is_given_up_and_teaches_where_not_to_look(monkeypatch):
    fitted = pretend(monkeypatch, far_from_a_hundredth)
    trials = searched(30)
    pruned = [trial for trial in trials if trial["state"] == "pruned"]
    assert pruned and len(fitted) == 30 - len(pruned) and all(trial["errors"] == {} for trial in pruned)
    # by the median of the others at the same step, once there are enough of them
    number = trials.index(pruned[0])
    others = [trial["seen"]["0"] for trial in trials[:number] if trial["state"] == "complete"]
    assert number >= 8 and pruned[0]["seen"]["0"] > np.median(others)
    ended = [trial for trial in trials if trial["state"] == "complete"]
    assert all(sorted(trial["seen"]) == ["0", "1"] for trial in ended)


def test_on_several_sets_a_trial_is_compared_at_the_same_step_and_an_easy_set_hides_nothing(monkeypatch):
    """The second set is harder, and only there a trial can lag."""
    calls = []

    def fit(recipe, train, val, *, seed, execution, on_epoch):
        calls.append(val)
        hard = val is HARD[1]
        error = 10 + far_from_a_hundredth(recipe.fit.learning_rate) if hard else 1.0
        for number in range(1, recipe.fit.epochs + 1):
            on_epoch(SimpleNamespace(number=number, ridge_error=lambda: error))
        features = np.ones((60, 2))
        return SimpleNamespace(
            predict=lambda inputs: val.targets + error, features=lambda inputs: features[: len(inputs)]
        )

    HARD = TRAIN, Samples(VAL.inputs.copy(), VAL.targets.copy())
    monkeypatch.setattr(tuning, "fit", fit)
    trials = searched(30, sets=((TRAIN, VAL), HARD))
    pruned = [trial for trial in trials if trial["state"] == "pruned"]
    assert pruned and all(max(trial["seen"]) == "2" for trial in pruned)  # at the first step on the second set


def test_features_that_are_not_finite_are_a_trial_that_diverged(monkeypatch):
    pretend(monkeypatch, far_from_a_hundredth)
    inner = tuning.fit

    def fit(*of, **options):
        fitted = inner(*of, **options)
        fitted.features, fitted.stages = lambda inputs: np.full((len(inputs), 2), np.nan), []
        return fitted

    monkeypatch.setattr(tuning, "fit", fit)
    assert [trial["state"] for trial in searched(2, heads=(None, "ridge"))] == ["diverged", "diverged"]


def test_a_search_that_was_stopped_goes_on_as_it_would_have(monkeypatch, tmp_path):
    pretend(monkeypatch, far_from_a_hundredth)
    whole = searched(14)
    path = tmp_path / "new" / "search.json"
    searched(5, path=path, told={"arm": "one"})
    assert len(json.loads(path.read_text())["trials"]) == 5
    assert without_times(searched(14, path=path, told={"arm": "one"})) == without_times(whole)
    kept = json.loads(path.read_text())
    assert (kept["arm"], kept["sets"]) == ("one", [{"n_train": 60, "n_val": 20}]) and len(kept["trials"]) == 14
    assert {name: tuple(among) for name, among in kept["searched"].items()} == {
        "learning_rate": (1e-4, 1.0), "epochs": (8, 16),
    }  # fmt: skip


def test_trials_are_kept_one_by_one(monkeypatch, tmp_path):
    path = tmp_path / "search.json"

    def killed(rate):
        if path.is_file() and len(json.loads(path.read_text())["trials"]) == 2:
            raise KeyboardInterrupt
        return 1.0

    pretend(monkeypatch, killed)
    with pytest.raises(KeyboardInterrupt):
        searched(5, path=path)
    assert len(json.loads(path.read_text())["trials"]) == 2


def test_the_first_trial_has_the_settings_that_are_named(monkeypatch):
    pretend(monkeypatch, far_from_a_hundredth)
    first = {"learning_rate": 0.005, "epochs": 8}
    assert searched(2, first=first)[0]["settings"] == first


def test_no_trial_begins_once_the_time_is_up(monkeypatch):
    pretend(monkeypatch, far_from_a_hundredth)
    clock = iter(range(0, 1000, 5))
    monkeypatch.setattr(tuning.time, "process_time", lambda: next(clock))
    trials = searched(50, seconds=12)
    assert [trial["seconds"] for trial in trials] == [5, 5, 5]


def test_what_diverges_is_said_and_does_not_end_the_search(monkeypatch):
    pretend(monkeypatch, far_from_a_hundredth, fails=lambda stage: stage.epochs == 16)
    trials = searched(12)
    diverged = [trial for trial in trials if trial["state"] == "diverged"]
    assert diverged and {trial["settings"]["epochs"] for trial in diverged} == {16}
    assert best_settings(trials)["epochs"] == 8
    with pytest.raises(ValueError, match=r"^trials: got 2, none of them complete; allowed: at least one that is$"):
        best_settings(diverged[:2])


def test_a_trial_is_worth_its_best_head():
    errors = [{"own": 3.0, "ridge": 1.0}, {"own": 2.0, "ridge": 2.0}]
    trials = [{"state": "complete", "errors": one, "settings": {"number": i}} for i, one in enumerate(errors)]
    assert best_settings(trials) == {"number": 0}
    trials.append({"state": "pruned", "errors": {}, "settings": {"number": 2}})
    assert best_settings(trials) == {"number": 0}


def test_typical_settings_are_medians_of_ranges_and_modes_of_lists():
    searched = {"rate": (1e-4, 1.0), "average": [None, 0.99], "width": [128, 256, 512]}
    rates, averages, widths = (1e-3, 1e-1, 1e-2), (0.99, None, 0.99), (512, 256, 512)
    found = [dict(zip(searched, each, strict=True)) for each in zip(rates, averages, widths, strict=True)]
    assert typical_settings(found, searched) == {"rate": 0.01, "average": 0.99, "width": 512}
    assert typical_settings(found[::-1], searched) == typical_settings(found, searched)
    # of an even number the middle of the two in the middle, on the logarithmic scale; of equally many the first
    assert typical_settings(found[:2], searched) == {"rate": 0.01, "average": None, "width": 256}
    assert typical_settings(found[:1], searched) == found[0]
    with pytest.raises(ValueError, match=r"^found: got no settings; allowed: those of at least one task$"):
        typical_settings([], searched)


def test_errors_of_several_sets_are_averaged_and_each_can_end_a_trial(monkeypatch):
    def fit(recipe, train, val, *, seed, execution, on_epoch):
        error = float(len(val.targets)) + far_from_a_hundredth(recipe.fit.learning_rate)
        for number in range(1, recipe.fit.epochs + 1):
            on_epoch(SimpleNamespace(number=number, ridge_error=lambda: error))
        return SimpleNamespace(predict=lambda inputs: val.targets + error, features=lambda inputs: np.ones((9, 1)))

    monkeypatch.setattr(tuning, "fit", fit)
    sets = [(TRAIN, table(n, seed=n)) for n in (10, 20)]
    trials = searched(30, sets=sets)
    for trial in trials:
        off = far_from_a_hundredth(trial["settings"]["learning_rate"])
        assert trial["seen"] == pytest.approx(
            {"0": 10 + off, "1": 10 + off, "2": 20 + off, "3": 20 + off}
            if trial["state"] == "complete"
            else {str(step): (10, 10, 20, 20)[step] + off for step in range(len(trial["seen"]))}
        )
        if trial["state"] == "complete":
            assert trial["errors"]["own"] == pytest.approx(15 + off, rel=1e-4)
    assert {trial["state"] for trial in trials} == {"complete", "pruned"}


def test_heads_are_judged_on_a_network_that_is_really_trained():
    trials = searched(1, heads=[None, "ridge", "neighbours"], first={"learning_rate": 0.05, "epochs": 16})
    (trial,) = trials
    assert trial["state"] == "complete" and list(trial["errors"]) == ["own", "ridge", "neighbours"]
    spread = np.abs(VAL.targets - np.median(TRAIN.targets)).mean()
    assert all(0 < error < spread for error in trial["errors"].values()) and trial["seconds"] >= 0
