"""The published protocols as recipes, the search for settings, and the command line."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from worlds import forbid_training, put

from rnclib import protocols, results
from rnclib.data import catalogue
from rnclib.protocols import CHOSEN_RATE, FACES_PRESETS, sized
from rnclib.protocols.__main__ import main
from rnclib.protocols.search import METHODS, SEARCHES, TUNED, with_settings
from rnclib.protocols.tasks import TASKS
from rnclib.recipe import BASELINES, REGRESSION_LOSSES

PROFILES = ("paper", "quick", "smoke")


# --- recipes --------------------------------------------------------------------------------------------


def test_recipes_of_molecules_are_the_published_protocol():
    recipes = protocols.molecules("paper")
    rnc, end_to_end = recipes["RnC(Huber)"], recipes["L1"]
    encoder, regressor = rnc.pretrain, rnc.fit
    assert (encoder.epochs, encoder.batch_size, encoder.learning_rate, encoder.lr_decay_rate) == (800, 256, 0.01, 0)
    assert (encoder.weight_decay, encoder.drop_last, encoder.temperature) == (1e-5, True, 2.0)
    assert (encoder.label_diff, encoder.feature_sim, encoder.n_views) == ("l1", "l2", None)
    assert (regressor.epochs, regressor.batch_size, regressor.learning_rate) == (300, 128, 0.001)
    assert (regressor.lr_decay_rate, regressor.weight_decay, regressor.batch_norm) == (0.1, 0.0, "eval")
    fit = end_to_end.fit
    assert (fit.epochs, fit.batch_size, fit.learning_rate, fit.weight_decay) == (800, 128, 0.01, 1e-6)
    assert end_to_end.pretrain is None and regressor.loss == "huber"
    assert [name for name, recipe in recipes.items() if recipe.freeze] == [
        "RnC(L1)+freeze", "RnC(L2)+freeze", "RnC(Huber)+freeze",
    ]  # fmt: skip
    assert {name for name, recipe in recipes.items() if recipe.model in BASELINES} == set(BASELINES)
    assert {recipe.model for recipe in recipes.values()} == {"gin", *BASELINES}


def test_recipes_of_faces_are_the_published_protocol():
    recipes = protocols.faces("agedb", "paper")
    rnc, end_to_end = recipes["RnC(L1)"], recipes["L1"].fit
    assert (rnc.model, rnc.freeze, rnc.target, rnc.pretrain.n_views) == ("resnet18", True, "raw", 2)
    assert (rnc.pretrain.batch_size, rnc.pretrain.epochs, rnc.pretrain.learning_rate) == (256, 400, 0.5)
    assert (rnc.pretrain.lr_decay_rate, rnc.pretrain.weight_decay) == (0.1, 1e-4)
    assert (rnc.fit.batch_size, rnc.fit.epochs, rnc.fit.learning_rate, rnc.fit.lr_decay_rate) == (64, 100, 0.05, 0.2)
    assert (rnc.fit.weight_decay, rnc.fit.batch_norm) == (0.0, "eval")
    assert (end_to_end.batch_size, end_to_end.epochs, end_to_end.learning_rate) == (256, 400, 0.2)
    course = protocols.faces("agedb", "paper", preset="course")
    assert {recipe.fit.batch_size for recipe in course.values() if recipe.fit} == {128}
    assert [course[name].fit.learning_rate for name in ("L1", "L2", "Huber")] == [0.2, 0.005, 0.05]
    assert [course[name].fit.learning_rate for name in ("RnC(L1)", "RnC(L2)", "RnC(Huber)")] == [0.05, 0.01, 0.05]
    drawn = protocols.faces("synthetic", "paper")
    (slower,) = set(drawn) - set(recipes)
    assert drawn[slower].label() == protocols.end_to_end("synthetic") == "L1 end to end, lr 0.01"
    assert replace(drawn[slower], fit=replace(drawn[slower].fit, learning_rate=0.2)) == drawn["L1"]


@pytest.mark.parametrize("profile", PROFILES)
def test_short_profiles_change_epochs_batches_and_network_only(profile):
    for recipes, published in (
        (protocols.molecules(profile), protocols.molecules("paper")),
        (protocols.faces("agedb", profile), protocols.faces("agedb", "paper")),
    ):
        assert list(recipes) == list(published)
        for name, recipe in recipes.items():
            assert recipe.label() == published[name].label()
            for part in ("pretrain", "fit"):
                one, other = getattr(recipe, part), getattr(published[name], part)
                assert (one is None) == (other is None)
                if one is not None:
                    assert one.epochs <= other.epochs
                    assert replace(one, epochs=1, batch_size=1) == replace(other, epochs=1, batch_size=1)


def test_the_sets_of_hyperparameters_differ_in_their_batches():
    for stage, by_loss in FACES_PRESETS["paper"].items():
        for loss, one in by_loss.items():
            assert FACES_PRESETS["course"][stage][loss] == replace(one, batch_size=128)
            assert one.loss == loss


@pytest.mark.parametrize("dataset", ["agedb", "synthetic"])
@pytest.mark.parametrize("profile", PROFILES)
def test_faces_are_sized_as_their_source_needs(dataset, profile):
    size, needs = sized(dataset, profile), dict(catalogue.source(dataset).needs)
    assert (size.n_samples is None) == ("n_samples" not in needs) and size.size >= needs["size"]
    assert size.n_samples is None or size.n_samples >= needs["n_samples"]
    assert {recipe.model for recipe in protocols.faces(dataset, profile).values()} == {size.model, "training mean"}
    assert {recipe.model for recipe in protocols.faces(dataset, profile, model="resnet50").values()} == {
        "resnet50", "training mean",
    }  # fmt: skip


def test_the_baseline_trains_at_the_chosen_rate_and_on_photographs_at_the_published_one():
    assert protocols.end_to_end("esol") == protocols.end_to_end("standin") == "L1 end to end, lr 0.001"
    assert protocols.end_to_end("agedb") == "L1 end to end"
    for kind, recipes in (
        ("molecules", protocols.molecules("paper")),
        ("images", protocols.faces("synthetic", "paper")),
    ):
        for loss, rate in CHOSEN_RATE[kind].items():
            recipe = recipes[f"{REGRESSION_LOSSES[loss]} (lr {rate:g})"]
            assert recipe.fit.learning_rate == rate and recipe.label().endswith(f", lr {rate:g}")


# --- the search -----------------------------------------------------------------------------------------


def drawn_anew(kind: str, method: str, n: int) -> list[dict[str, float]]:
    """Settings as they were drawn before they were frozen."""
    rng = np.random.default_rng(METHODS.index(method))
    found = []
    for _ in range(n):
        one = {}
        for name, among in SEARCHES[kind][method].searched.items():
            if isinstance(among, list):
                one[name] = int(rng.choice(among))
            else:
                low, high = map(math.log, among)
                one[name] = float(f"{math.exp(rng.uniform(low, high)):.3g}")
        found.append(one)
    return found


@pytest.mark.parametrize("kind", SEARCHES)
@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_fifteen_trials_drawn_within_its_bounds(kind, method):
    search = SEARCHES[kind][method]
    first, *others = trials = search.trials()
    assert len(trials) == 15 and first == dict(search.first) and set(first) <= set(search.searched)
    assert search.trials(3) == trials[:3]
    assert others == drawn_anew(kind, method, 14)
    for trial in others:
        assert list(trial) == list(search.searched)
        for name, value in trial.items():
            among = search.searched[name]
            assert value in among if isinstance(among, list) else among[0] <= value <= among[1]
    assert len({tuple(trial.values()) for trial in others}) == 14


def test_the_searches_are_of_the_same_methods_and_tuned_names_trials_of_them():
    for kind, by_method in SEARCHES.items():
        assert tuple(by_method) == METHODS, kind
    for dataset, chosen in TUNED.items():
        assert tuple(chosen) == METHODS and all(0 <= trial < 15 for trial in chosen.values()), dataset


@pytest.mark.parametrize("method", METHODS)
def test_settings_make_a_method_of_the_two_recipes(method):
    recipes = protocols.molecules("smoke")
    end_to_end, frozen = recipes["L1"], recipes["RnC(L1)+freeze"]
    settings = SEARCHES["molecules"][method].trials()[1]
    recipe = with_settings(method, settings, end_to_end, frozen)
    stage = recipe.pretrain or recipe.fit
    assert {name: getattr(stage, name) for name in settings} == settings
    assert recipe.label() == {
        "L1": "L1 end to end, tuned", "Ordinal Entropy": "L1 + Ordinal Entropy end to end, tuned",
        "RankSim": "L1 + RankSim end to end, tuned", "SupCon": "SupCon frozen, closed form, tuned",
        "RnC": "RnC frozen, closed form, tuned",
    }[method]  # fmt: skip
    assert (recipe.fit is None) == (method in ("SupCon", "RnC"))


# --- the command line -----------------------------------------------------------------------------------

L1_ON_FACES = ["agedb", "--dataset", "synthetic", "--profile", "smoke", "--loss", "l1"]


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_grid_is_trained_from_the_command_line_by_one_process_or_several(tmp_path, monkeypatch, processes):
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"] if processes == 2 else []

    def start(folder: str) -> tuple[str, dict]:
        done = subprocess.run(
            [sys.executable, *launcher, "-m", "rnclib.protocols", *L1_ON_FACES, "--results-dir", tmp_path / folder],
            env=os.environ | {"OMP_NUM_THREADS": "1", "RNC_CACHE": str(tmp_path / "cache")},
            capture_output=True, text=True, timeout=240, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-2000:]
        records = results.load(tmp_path / folder, profile="smoke", experiment="agedb")
        return done.stdout, {record["method"]: record for record in records}

    said, records = start("first")
    assert "3 trained now (1 × L1 end to end, 1 × L1 end to end, lr 0.01, 1 × RnC frozen, L1)" in said
    assert set(records) == {"L1", "L1 (lr 0.01)", "RnC(L1)"} and said.count("trained now") == 1
    assert {record["run"]["processes"] for record in records.values()} == {processes}
    # what the cache keeps is what the record was made with, whichever process wrote it
    if processes == 1:
        monkeypatch.setenv("RNC_CACHE", str(tmp_path / "cache"))
        torch.set_num_threads(1)
        forbid_training(monkeypatch)
        main([*L1_ON_FACES, "--results-dir", str(tmp_path / "again")])
        again = {
            record["method"]: record for record in results.load(tmp_path / "again", profile="smoke", experiment="agedb")
        }
    else:
        _, again = start("again")
    assert {name: record["test"] for name, record in again.items()} == {
        name: record["test"] for name, record in records.items()
    }


def test_the_command_line_loads_what_is_there_and_refreshes_when_told_so(small_faces, tmp_path, capsys):
    options = [*L1_ON_FACES, "--n-seeds", "1", "--results-dir", str(tmp_path)]
    for more, message in (
        ([], "0 runs loaded from the store; 3 trained now"), ([], "3 runs loaded from the store"),
        (["--refresh"], "0 runs loaded from the store; 3 trained now"),
    ):  # fmt: skip
        main([*options, *more])
        assert message in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--profile", "long"], f"profile: got 'long'; allowed: {', '.join(map(repr, results.PROFILES))}"),
        (["--profile", "smoke", "--loss", "l3"], "loss: got 'l3'; allowed: 'all', 'l1', 'l2', 'huber'"),
        (["--profile", "smoke", "--n-seeds", "0"], "--n-seeds: got '0'; allowed: an integer of at least 1"),
        (["--profile", "smoke", "--precision", "fp8"], "precision: got 'fp8'; allowed: None, 'bf16-mixed'"),
        (["--profile", "smoke", "--preset", "mine"], "preset: got 'mine'; allowed: 'paper', 'course'"),
        (
            ["--profile", "smoke", "--model", "gin"],
            "model: got 'gin'; allowed: 'resnet18', 'resnet50', 'small'",
        ),
        (["--profile", "smoke", "--split", "random"], "split: got 'random'; allowed: 'standard', 'identity'"),
    ],
)
def test_the_command_line_refuses_what_the_grid_refuses(capsys, options, message):
    with pytest.raises(SystemExit):
        main(["agedb", "--dataset", "synthetic", *options])
    assert message in capsys.readouterr().err


def test_the_command_line_refuses_other_data_sets_and_options_of_other_chapters(capsys):
    for options, message in (
        (["esol", "--dataset", "agedb", "--profile", "smoke"], "dataset: got 'agedb'; allowed: 'esol', 'standin'"),
        (["esol", "--dataset", "esol", "--profile", "smoke", "--preset", "paper"], "unrecognized arguments: --preset"),
        (["tuning", "--dataset", "esol"], "the following arguments are required: --profile"),
        (
            ["ablations", "--dataset", "esol", "--profile", "smoke", "--choice", "views"],
            "which leave no runs; allowed: ",
        ),
    ):
        with pytest.raises(SystemExit):
            main(options)
        assert message in capsys.readouterr().err


def test_the_command_line_says_what_photographs_and_a_gpu_it_lacks(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    put(monkeypatch, "synthetic", lambda **_: pytest.fail("it drew faces"))
    for options, message in (
        (["--dataset", "agedb", "--device", "cpu"], "data_dir: got None"),
        (["--dataset", "synthetic", "--device", "cuda"], "device: got 'cuda', but torch finds no GPU"),
    ):
        with pytest.raises(SystemExit):
            main(["agedb", "--profile", "smoke", "--results-dir", str(tmp_path), *options])
        assert message in capsys.readouterr().err


def test_all_data_sets_of_an_experiment_are_trained_each_on_the_machine_of_its_records(monkeypatch, capsys):
    command, calls = sys.modules[main.__module__], []
    monkeypatch.setattr(command, "run_grid", lambda runs, **_: calls.append(("grid", runs)) or "done")
    monkeypatch.setattr(command, "run_on_one_machine", lambda runs, **_: calls.append(("one machine", runs)) or "done")
    for options, how in (
        (["--profile", "paper"], "one machine"), (["--profile", "paper", "--refresh"], "grid"),
        (["--profile", "quick"], "grid"),
    ):  # fmt: skip
        calls.clear()
        main(["tasks", "--dataset", "all", *options])
        assert {name for name, _ in calls} == {how}
        assert [{run.data.dataset for run in runs} for _, runs in calls] == [{name} for name in TASKS]
        assert capsys.readouterr().out.count("done") == len(TASKS)


@pytest.mark.parametrize("dataset", ["agedb", "synthetic"])
def test_a_fine_tuned_label_names_the_rate_where_it_differs(dataset):
    for name, recipe in protocols.faces(dataset, "paper").items():
        if recipe.pretrain is not None:
            published = protocols.FACES_PRESETS["paper"]["regressor"][recipe.fit.loss].learning_rate
            differs = recipe.fit.learning_rate != published
            assert ("fit.learning_rate" in recipe.notable) == differs, name
