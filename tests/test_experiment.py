"""From configuration to record: keys, provenance, repetition, and what a grid loads, trains and leaves alone."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from rnclib import data, experiment, protocols, results, rnc_loss, rnc_lower_bound
from rnclib.data import SEEN, Split, corruptions, esol, synthetic
from rnclib.encoders import GIN
from rnclib.experiment import Config, described, key, run, run_grid, work
from rnclib.protocols import (
    ABLATIONS,
    AGEDB_METHODS,
    AGEDB_PUBLISHED,
    END_TO_END,
    ESOL_METHODS,
    ESOL_PUBLISHED,
    SHIFTS,
    TUNED_METHODS,
    ablations_grid,
    agedb_grid,
    best_trials,
    efficiency_grid,
    efficiency_steps,
    esol_grid,
    methods_grid,
    of_protocol,
    protocol_values,
    robustness_grid,
    searched,
    tuning_grid,
)
from rnclib.training import predict

THE_DATASETS = experiment._dataset


@pytest.fixture(autouse=True)
def small_world(tmp_path, monkeypatch):
    """A stand-in of 120 molecules, a cache and a store of its own."""
    standin = esol.load_standin(120)
    monkeypatch.setenv("RNC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(experiment, "_dataset", lambda *_: standin)
    torch.set_num_threads(1)
    return standin


def configs(*methods: str, **options) -> list[Config]:
    grid = esol_grid(dataset="standin", profile="smoke", split="random", n_seeds=1, baselines=True)
    small = []
    for config in grid:
        if config.method in methods:
            stages = {
                name: replace(stage, batch_size=32, epochs=3)
                for name in ("pretrain", "fit")
                if (stage := getattr(config, name)) is not None
            }
            small.append(replace(config, **stages, **options))
    assert len(small) == len(methods)
    return small


def without_circumstances(record: dict) -> dict:
    record = json.loads(json.dumps(record))
    del record["run"]
    for stage in record["stages"]:
        del stage["wall_time"]
    return record


# --- configurations and keys ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dataset", "ESOL"),
        ("profile", "full"),
        ("split", "time"),
        ("seed", -1),
        ("seed", True),
        ("model", "gcn"),
        ("freeze", True),
    ],
)
def test_a_bad_configuration_names_the_argument(name, value):
    (config,) = configs("L1")
    with pytest.raises(ValueError, match=rf"{name}: got "):
        replace(config, **{name: value})


def test_an_unknown_option_is_an_error():
    with pytest.raises(TypeError, match="learning_rat"):
        Config("esol", "standin", "smoke", "random", 0, "L1", "gin", learning_rat=0.1)


def test_the_key_depends_on_everything_that_matters_and_on_nothing_else(monkeypatch):
    (config,) = configs("RnC(L1)")
    changed = [
        replace(config, seed=1),
        replace(config, split="scaffold"),
        replace(config, pretrain=replace(config.pretrain, temperature=1.0)),
        replace(config, fit=replace(config.fit, learning_rate=0.002)),
        replace(config, freeze=True),
    ]
    assert len({key(one) for one in [config, *changed]}) == 6
    assert key(config) == key(replace(config))
    before = key(config)
    monkeypatch.setattr(results, "commit", lambda: ("another", False))
    assert key(config) == before
    monkeypatch.setattr(experiment, "_checksum", lambda name: "other data")
    assert key(config) != before
    monkeypatch.undo()
    monkeypatch.setattr(experiment, "PROTOCOL", experiment.PROTOCOL + 1)
    assert key(config) != before


def test_published_keys_stay_as_they_are():
    """Changing the description of a run would orphan the committed records."""
    l1 = esol_grid(dataset="esol", profile="paper", split="random", loss="l1", n_seeds=1)
    assert {config.method: key(config) for config in l1} == {
        "L1": "ea9520880169ce63",
        "L1 (lr 0.001)": "ee3cfad31b713b09",
        "RnC(L1)+freeze": "750c5f997644a695",
        "RnC(L1)": "62159bd54f9ceb44",
    }


def test_the_grid_is_the_published_protocol():
    grid = {c.method: c for c in esol_grid(dataset="esol", profile="paper", split="random", n_seeds=1)}
    assert set(ESOL_PUBLISHED.index) < set(ESOL_METHODS) < set(grid)
    rnc, end_to_end = grid["RnC(Huber)"], grid["L1"]
    encoder, regressor = rnc.pretrain, rnc.fit
    assert (encoder.epochs, encoder.batch_size, encoder.learning_rate, encoder.lr_decay_rate) == (800, 256, 0.01, 0)
    assert (encoder.weight_decay, encoder.drop_last, encoder.temperature) == (1e-5, True, 2.0)
    assert (regressor.epochs, regressor.batch_size, regressor.learning_rate) == (300, 128, 0.001)
    assert (regressor.lr_decay_rate, regressor.weight_decay, regressor.batch_norm) == (0.1, 0.0, "eval")
    fit = end_to_end.fit
    assert (fit.epochs, fit.batch_size, fit.learning_rate, fit.weight_decay) == (800, 128, 0.01, 1e-6)
    assert end_to_end.pretrain is None and regressor.loss == "huber"
    assert [m for m, c in grid.items() if c.freeze] == ["RnC(L1)+freeze", "RnC(L2)+freeze", "RnC(Huber)+freeze"]


@pytest.mark.parametrize("loss", ["l1", "l2", "huber"])
def test_a_loss_selects_end_to_end_frozen_and_fine_tuned(loss):
    grid = esol_grid(dataset="esol", profile="quick", split="random", loss=loss, n_seeds=1)
    assert {config.fit.loss for config in grid} == {loss}
    assert {(config.pretrain is not None, config.freeze) for config in grid} == {
        (False, False), (True, False), (True, True),
    }  # fmt: skip


def test_the_stand_in_has_no_row_for_the_equation_that_made_it():
    methods = {c.method for c in esol_grid(dataset="standin", profile="quick", split="random")}
    assert "Delaney's equation" not in methods and "extra trees" in methods


# --- one run --------------------------------------------------------------------------------------------


def test_a_record_says_what_was_done(small_world):
    (config,) = configs("RnC(L1)")
    record, view = run(config)
    test = record["test"]
    assert record["key"] == key(config) and record["dataset"] == "standin" and record["data"]["synthetic"] is True
    assert record["data"]["checksum"] == small_world.checksum
    np.testing.assert_allclose(test["target"], small_world.targets[test["index"]], atol=1e-4)
    error = np.abs(np.subtract(test["prediction"], test["target"])).mean()
    assert record["metrics"]["test"]["raw"]["mae"] == pytest.approx(error, abs=1e-4)
    scaled = record["metrics"]["test"]["standardised"]["mae"] * record["data"]["train_std"]
    assert scaled == pytest.approx(error, abs=1e-4)
    assert [stage["name"] for stage in record["stages"]] == ["encoder", "regressor"]
    assert set(record["run"]) >= {"commit", "clean", "device", "threads", "versions", "started", "wall_time"}
    assert {line.split(",")[1] for line in view.splitlines()[1:]} == {"train", "val", "test"}
    assert len(view.splitlines()) == 121


def test_the_view_names_each_samples_nearest_training_sample():
    features = np.array([[0.0, 0], [1, 0], [5, 0], [5.5, 0], [1.2, 0], [20, 1]])
    split = Split(train=np.array([0, 2, 3, 5]), val=np.array([1]), test=np.array([4]))
    view = pd.read_csv(io.StringIO(experiment._view(features, split, np.arange(6.0))))
    assert view["nearest"].tolist() == [2, 0, 3, 2, 0, 3]
    assert view["part"].tolist() == ["train", "val", "train", "train", "test", "train"]


def test_the_same_run_twice_gives_the_same_record(monkeypatch, tmp_path):
    for config in configs("L1", "RnC(L2)", "RnC(Huber)+freeze"):
        monkeypatch.setenv("RNC_CACHE", str(tmp_path / "first"))
        first, _ = run(config)
        monkeypatch.setenv("RNC_CACHE", str(tmp_path / f"second-{config.seed}-{config.model}"))
        second, _ = run(config)
        assert without_circumstances(first) == without_circumstances(second)


@pytest.mark.parametrize("epoch", [1, 3, 4, 6])
def test_a_killed_run_ends_with_the_record_of_an_undisturbed_one(monkeypatch, tmp_path, epoch):
    """Killed in the first stage, between the stages, in the second stage, and before the record is written."""
    (config,) = configs("RnC(L1)")
    monkeypatch.setattr(
        experiment.train, "__kwdefaults__", {**experiment.train.__kwdefaults__, "checkpoint_seconds": 0}
    )
    expected, _ = run(config)
    monkeypatch.setenv("RNC_CACHE", str(tmp_path / "killed"))
    done = 0

    def kill(passes: float) -> None:
        nonlocal done
        done += passes
        if done == 3 * epoch:  # forward and backward
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(config, on_progress=kill)
    resumed, _ = run(config)
    assert without_circumstances(resumed) == without_circumstances(expected)


def test_the_target_scaler_sees_the_training_part_only(monkeypatch, small_world):
    (config,) = configs("L1")
    record, _ = run(config)
    targets = small_world.targets.copy()
    targets[record["test"]["index"]] += 100.0
    monkeypatch.setattr(experiment, "_dataset", lambda *_: replace(small_world, targets=targets))
    disturbed, _ = run(config)
    assert disturbed["data"] == record["data"]
    assert disturbed["test"]["prediction"] == record["test"]["prediction"]
    assert disturbed["metrics"]["val"] == record["metrics"]["val"]


def test_freezing_leaves_the_encoder_as_it_was_and_runs_share_it():
    frozen, tuned, other = configs("RnC(L1)+freeze", "RnC(L1)", "RnC(L2)+freeze")
    records = {config.method: run(config)[0] for config in (frozen, tuned, other)}
    agreement = {name: record["metrics"]["test"]["standardised"]["rank_agreement"] for name, record in records.items()}
    assert agreement["RnC(L1)+freeze"] == agreement["RnC(L2)+freeze"] != agreement["RnC(L1)"]
    curves = [record["stages"][0] for record in records.values()]
    assert curves[0] == curves[1] == curves[2]


def test_a_run_that_diverges_is_recorded_as_such(tmp_path):
    (config,) = configs("L2")
    config = replace(config, fit=replace(config.fit, learning_rate=1e8))
    grid = run_grid([config], results_dir=tmp_path, progress=False)
    (record,) = grid.records
    assert "became" in record["diverged"] and record["metrics"] == {} and record["test"]["prediction"] == []
    frame = results.frame(grid.records)
    assert frame["test_mae"].isna().all()
    assert results.summarise(frame, "test_mae").loc["L2", "diverged"] == 1


# --- the grid -------------------------------------------------------------------------------------------


def test_a_grid_trains_what_is_missing_and_loads_the_rest(tmp_path):
    first = run_grid(configs("training mean", "L1"), results_dir=tmp_path, progress=False)
    assert str(first) == "0 runs loaded from the store; 2 trained now (1 × L1, 1 × training mean)"
    every = configs("L1", "training mean", "RnC(L1)+freeze")
    second = run_grid(every, results_dir=tmp_path, progress=False)
    assert [config.method for config in second.trained] == ["RnC(L1)+freeze"]
    assert [record["key"] for record in second.records] == [key(config) for config in every]
    third = run_grid(every, results_dir=tmp_path, progress=False, refresh=True)
    assert len(third.trained) == 3
    assert list(map(without_circumstances, third.records)) == list(map(without_circumstances, second.records))
    assert len(list(tmp_path.rglob("*.json"))) == 3


def test_refresh_trains_the_encoder_again_and_once(monkeypatch, tmp_path):
    pair = configs("RnC(L1)+freeze", "RnC(L2)+freeze")
    run_grid(pair, results_dir=tmp_path, progress=False)
    trained = []
    inner = experiment.train
    monkeypatch.setattr(
        experiment,
        "train",
        lambda model, stage, *args, **kw: trained.append(stage.loss) or inner(model, stage, *args, **kw),
    )
    run_grid(pair, results_dir=tmp_path, progress=False, refresh=True)
    assert trained == ["rnc", "l1", "l2"]


def test_refresh_trains_the_encoder_of_each_size(monkeypatch, tmp_path):
    drawn = {size: synthetic.load_faces(120, size, progress=False) for size in (16, 20)}
    monkeypatch.setattr(experiment, "_dataset", lambda name, size, *_: drawn[size])
    (one,) = [c for c in face_configs() if c.method == "RnC(L1)"]
    two_sizes = [replace(one, size=size) for size in drawn]
    run_grid(two_sizes, results_dir=tmp_path, progress=False)
    trained, inner = [], experiment.train
    monkeypatch.setattr(
        experiment,
        "train",
        lambda model, stage, *rest, **kw: trained.append(stage.loss) or inner(model, stage, *rest, **kw),
    )
    run_grid(two_sizes, results_dir=tmp_path, progress=False, refresh=True)
    assert trained == ["rnc", "l1"] * 2


def test_an_encoder_that_predicts_another_unit_is_another_encoder():
    (config,) = configs("RnC(L1)+freeze")
    assert experiment._encoder(config) != experiment._encoder(replace(config, target="raw"))
    assert experiment._encoder(config) == experiment._encoder(replace(config, fit=replace(config.fit, epochs=9)))


def test_an_encoder_in_the_cache_that_cannot_be_read_is_trained_again(tmp_path):
    (config,) = configs("RnC(L1)+freeze")
    expected, _ = run(config)
    (cached,) = (tmp_path / "cache" / "encoders").iterdir()
    (weights,) = (tmp_path / "cache" / "models").iterdir()
    for path in (cached, weights):
        path.write_bytes(b"no weights")
    with pytest.warns(UserWarning, match=r"weights .* cannot be read .* trained again") as caught:
        again, _ = run(config)
    assert len(caught) == 2
    assert without_circumstances(again) == without_circumstances(expected)


def test_what_another_experiment_has_trained_is_not_trained_again(monkeypatch, tmp_path):
    (config,) = configs("RnC(L1)")
    expected, _ = run(config)
    monkeypatch.setattr(experiment, "train", lambda *_, **__: pytest.fail("it trained"))
    done = []
    again, _ = run(replace(config, experiment="another", method="another name"), on_progress=done.append)
    for part in ("metrics", "stages", "test", "data"):
        assert again[part] == expected[part], part
    assert sum(done) == work(config)
    with pytest.raises(pytest.fail.Exception, match="it trained"):
        run(replace(config, fit=replace(config.fit, momentum=0.5)))


def test_a_cache_that_cannot_be_written_stops_a_run_before_it_trains(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RNC_CACHE", str(tmp_path / "file" / "cache"))
    (config,) = configs("L1")
    with pytest.raises(OSError, match=r"RNC_CACHE: got .*, which cannot be written"):
        run(config, on_progress=lambda _: pytest.fail("it trained"))


def test_a_contrastive_encoder_that_diverges_is_a_result_like_any_other(tmp_path):
    second, first = configs("RnC(L1)+freeze", "L1")
    wild = replace(first, pretrain=replace(first.pretrain, learning_rate=1e30, epochs=2))
    diverged, other = run_grid([wild, second], results_dir=tmp_path, progress=False).records
    assert diverged["diverged"].startswith("training loss (rnc) became") and diverged["metrics"] == {}
    assert other["diverged"] is None and len(list(tmp_path.rglob("*.json"))) == 2


@pytest.mark.parametrize("fit", ["closed form", "trained"])
def test_features_that_are_not_finite_are_a_run_that_diverged(monkeypatch, tmp_path, fit):
    other, config = configs("L1", "RnC(L1)+freeze")
    config = replace(config, fit=None) if fit == "closed form" else config
    inner = experiment.train

    def breaks_at_the_end(model, stage, *rest, **options):
        history = inner(model, stage, *rest, **options)
        if stage.loss == "rnc":
            with torch.no_grad():
                next(model.parameters()).fill_(torch.nan)
        return history

    monkeypatch.setattr(experiment, "train", breaks_at_the_end)
    diverged, kept = run_grid([config, other], results_dir=tmp_path, progress=False).records
    assert diverged["diverged"] and diverged["metrics"] == {} and kept["diverged"] is None


def test_infinite_validation_losses_are_no_reason_to_lose_a_run(tmp_path):
    (config,) = configs("L2")
    config = replace(config, fit=replace(config.fit, learning_rate=1e4, epochs=2))
    (record,) = run_grid([config], results_dir=tmp_path, progress=False).records
    losses = results.curves([record])["val_loss"]
    assert record["diverged"] or not losses.max() < 1e6
    results.frame([record])


def test_two_processes_give_the_same_records(tmp_path, monkeypatch):
    monkeypatch.undo()  # worker processes do not see the small stand-in
    monkeypatch.setenv("RNC_CACHE", str(tmp_path / "cache"))
    grid = esol_grid(dataset="standin", profile="smoke", split="random", n_seeds=2, baselines=False, loss="huber")
    grid = [config for config in grid if config.method == "Huber"]
    two = run_grid(grid, results_dir=tmp_path / "two", n_jobs=2, progress=False)
    one = run_grid(grid, results_dir=tmp_path / "one", n_jobs=1, progress=False)
    assert list(map(without_circumstances, two.records)) == list(map(without_circumstances, one.records))


def test_a_truncated_record_is_named_kept_and_made_again(tmp_path):
    (config,) = configs("training mean")
    run_grid([config], results_dir=tmp_path, progress=False)
    (path,) = tmp_path.rglob("*.json")
    path.write_text(path.read_text()[:200])
    broken = path.read_text()
    with pytest.warns(UserWarning, match=path.name):
        again = run_grid([config], results_dir=tmp_path, progress=False)
    assert again.trained == [config] and path.read_text() == broken
    with pytest.warns(UserWarning, match=path.name):
        loaded = run_grid([config], results_dir=tmp_path, progress=False)
    assert loaded.loaded == [config]


def test_a_grid_of_two_profiles_is_refused(tmp_path):
    (config,) = configs("training mean")
    with pytest.raises(ValueError, match=r"configs: got .*allowed: one experiment and profile"):
        run_grid([config, replace(config, profile="quick")], results_dir=tmp_path)


def test_auto_is_esol_where_its_published_records_are_and_else_what_can_be_had(tmp_path, monkeypatch):
    assert experiment.resolve_dataset("standin", "paper", tmp_path) == "standin"
    monkeypatch.setattr(esol, "load", lambda name: esol.load_standin(10))
    assert experiment.resolve_dataset("auto", "quick", tmp_path) == "standin"
    record, _ = run(configs("training mean")[0])
    results.write(record | {"profile": "paper", "dataset": "esol"}, tmp_path)
    assert experiment.resolve_dataset("auto", "paper", tmp_path) == "esol"
    assert experiment.resolve_dataset("auto", "quick", tmp_path) == "standin"


# --- fewer samples, corrupted inputs --------------------------------------------------------------------


def test_a_fraction_trains_on_part_of_the_training_samples(monkeypatch):
    (config,) = configs("RnC(L1)")
    seen = []
    inner = experiment.train

    def watched(model, stage, inputs, labels, *rest, **options):
        seen.append((stage.loss, stage.batch_size, len(labels)))
        return inner(model, stage, inputs, labels, *rest, **options)

    monkeypatch.setattr(experiment, "train", watched)
    whole, _ = run(config)
    part, _ = run(replace(config, fraction=0.25))
    n = whole["data"]["n_train"]
    assert seen == [
        ("rnc", 32, n),
        ("l1", 32, n),
        ("rnc", round(n / 4), round(n / 4)),
        ("l1", round(n / 4), round(n / 4)),
    ]
    assert part["data"]["n_train"] == round(n / 4) and part["data"]["n_pool"] == n and "n_pool" not in whole["data"]
    assert part["test"]["index"] == whole["test"]["index"] and part["config"]["fraction"] == 0.25
    assert part["data"]["train_mean"] != whole["data"]["train_mean"]  # the scaler sees the part only
    runs = results.frame([whole, part])
    assert runs["n_pool"].tolist() == [n, n] and runs["fraction"].isna().tolist() == [True, False]
    for fraction in (0, 1, 1.5):
        with pytest.raises(ValueError, match=r"fraction: got .*; allowed: between 0 and 1, or None for all"):
            replace(config, fraction=fraction)


def test_errors_on_corrupted_inputs_are_those_of_the_trained_network(monkeypatch):
    (config,) = configs("L1")
    plain, _ = run(config)
    monkeypatch.setattr(experiment, "train", lambda *_, **__: pytest.fail("it trained"))
    monkeypatch.setattr(corruptions, "corrupt_graphs", lambda graphs, kind, severity, seed: graphs)
    clean, _ = run(replace(config, corruptions=True))
    assert clean["metrics"] == plain["metrics"] and clean["test"] == plain["test"] and "corrupted" not in plain
    mae = plain["metrics"]["test"]["raw"]["mae"]
    assert set(clean["corrupted"]) == set(corruptions.MOLECULE_CORRUPTIONS)
    for errors in clean["corrupted"].values():
        assert errors == pytest.approx([mae] * 5, rel=1e-4)
    monkeypatch.undo()


def test_a_closed_form_regressor_is_ridge_regression_on_the_frozen_encoder(small_world):
    from sklearn.linear_model import Ridge
    from sklearn.preprocessing import StandardScaler

    (config,) = configs("RnC(L1)+freeze")
    config = replace(config, fit=None)
    record, _ = run(config)
    assert [stage["name"] for stage in record["stages"]] == ["encoder"] and "fit" not in record["config"]
    assert not results.frame([record])["baseline"].any()
    again, _ = run(config)  # from the cache
    assert without_circumstances(again) == without_circumstances(record)

    (cached,) = (data.cache_dir() / "encoders").iterdir()
    encoder = GIN()
    encoder.load_state_dict(torch.load(cached, weights_only=True)["encoder"])
    features = predict(encoder, small_world.inputs, np.arange(len(small_world))).double().numpy()
    split = small_world.splits["random"](0)
    scaler = StandardScaler().fit(features[split.train])
    x, y = scaler.transform(features), small_world.targets
    fits = [Ridge(alpha).fit(x[split.train], y[split.train]) for alpha in np.logspace(-3, 4, 15)]
    best = min(fits, key=lambda fit: np.abs(fit.predict(x[split.val]) - y[split.val]).mean())
    np.testing.assert_allclose(record["test"]["prediction"], best.predict(x[split.test]), atol=2e-3)

    gap = record["metrics"]["test"]["standardised"]["rnc_gap"]
    part = torch.tensor(features[split.test]).float(), torch.tensor(y[split.test] / record["data"]["train_std"]).float()
    expected = rnc_loss(*part).item() - rnc_lower_bound(part[1])
    assert gap == pytest.approx(expected, rel=1e-3) and gap > 0


def test_a_projection_head_is_trained_with_the_encoder_and_left_out(monkeypatch):
    (config,) = configs("RnC(L1)+freeze")
    config = replace(config, fit=None)
    seen, inner = [], experiment.train
    monkeypatch.setattr(experiment, "train", lambda model, *rest, **kw: seen.append(model) or inner(model, *rest, **kw))
    record, _ = run(replace(config, projection=7))
    without, _ = run(config)
    assert seen[0][-1].out_features == 7 and isinstance(seen[1], GIN)
    assert record["metrics"]["test"] != without["metrics"]["test"] and record["config"]["projection"] == 7
    with pytest.raises(ValueError, match=r"projection: got 0; allowed: a positive size, with pretrain, or None"):
        replace(config, projection=0)
    with pytest.raises(ValueError, match=r"freeze: got False with pretrain but without fit"):
        replace(config, freeze=False)


def test_a_refitted_head_sits_on_the_same_encoder(monkeypatch):
    (config,) = configs("L1")
    plain, _ = run(config)
    monkeypatch.setattr(experiment, "train", lambda *_, **__: pytest.fail("it trained"))
    refitted, _ = run(replace(config, refit=True))
    assert refitted["stages"] == plain["stages"] and refitted["test"]["prediction"] != plain["test"]["prediction"]
    order = [record["metrics"]["test"]["standardised"]["rank_agreement"] for record in (plain, refitted)]
    assert order[0] == order[1]
    with pytest.raises(ValueError, match=r"refit: got True without fit"):
        replace(configs("training mean")[0], refit=True)


def test_refresh_trains_encoders_with_and_without_a_projection_head_again(monkeypatch, tmp_path):
    (config,) = configs("RnC(L1)+freeze")
    pair = [replace(config, fit=None), replace(config, fit=None, projection=7, method="with head")]
    run_grid(pair, results_dir=tmp_path, progress=False)
    trained, inner = [], experiment.train
    monkeypatch.setattr(experiment, "train", lambda model, *rest, **kw: trained.append(1) or inner(model, *rest, **kw))
    run_grid(pair, results_dir=tmp_path, progress=False, refresh=True)
    assert len(trained) == 2


def test_steps_are_counted_as_training_takes_them():
    grid = efficiency_grid(dataset="esol", profile="paper", n_seeds=1)
    sizes = {0.05: 45, 0.1: 90, 0.2: 180, 0.4: 361, 0.7: 631, 1.0: 902}
    steps = efficiency_steps(grid, sizes).set_index(["Method", "Stage"])
    assert steps.loc["RnC(L1)", "encoder"].tolist() == [800 * k for k in (1, 1, 1, 1, 2, 3)]
    assert steps.loc["L1 (lr 0.001)", "end to end"].tolist() == [800 * k for k in (1, 1, 2, 3, 5, 8)]
    assert steps.loc["RnC(L1)+freeze", "regressor"].tolist() == [300 * k for k in (1, 1, 2, 3, 5, 8)]
    assert ("RnC, closed form", "regressor") not in steps.index


def test_unit_features_change_the_contrastive_stage_only():
    (config,) = configs("RnC(L1)+freeze")
    unit = replace(config, pretrain=replace(config.pretrain, unit_features=True))
    assert key(unit) != key(config) and run(unit)[0]["metrics"] != run(config)[0]["metrics"]
    with pytest.raises(ValueError, match=r"unit_features: got True; allowed: True with loss='rnc', or None"):
        replace(config.fit, unit_features=True)


@pytest.mark.parametrize("kind", SEEN)
def test_a_run_with_holes_sees_no_target_in_them(monkeypatch, small_world, kind):
    (config,) = configs("RnC(L1)+freeze")
    seen = []
    inner = experiment.train

    def watched(model, stage, inputs, labels, *rest, **options):
        seen.extend([labels, *(part for part in rest[1:2] if part is not None)])
        return inner(model, stage, inputs, labels, *rest, **options)

    monkeypatch.setattr(experiment, "train", watched)
    record, view = run(replace(config, holes=kind))
    data = record["data"]
    assert len(seen) == 3 and view is None  # two training parts and a validation part
    for labels in seen:
        values = labels.double().numpy() * data["train_std"] + data["train_mean"]
        inside = [(values >= low - 1e-3) & (values <= high + 1e-3) for low, high in data["seen"]]
        assert np.any(inside, axis=0).all()
    assert data["n_train"] == len(seen[0]) < data["n_pool"]
    whole, _ = run(config)
    assert record["test"]["index"] == whole["test"]["index"]
    target = np.array(record["test"]["target"])
    outside = ~np.any([(target >= low) & (target <= high) for low, high in data["seen"]], axis=0)
    assert outside.any()


def test_a_run_with_wrong_targets_is_tested_with_right_ones(small_world):
    (config,) = configs("L1")
    record, _ = run(replace(config, wrong_targets=0.4))
    whole, _ = run(config)
    assert record["test"]["target"] == whole["test"]["target"]
    assert record["test"]["prediction"] != whole["test"]["prediction"]
    assert record["data"]["train_mean"] == pytest.approx(whole["data"]["train_mean"])
    assert record["metrics"]["val"]["raw"] != whole["metrics"]["val"]["raw"]
    for share in (0, 1, -0.1):
        with pytest.raises(ValueError, match=r"wrong_targets: got .*; allowed: between 0 and 1, or None for none"):
            replace(config, wrong_targets=share)


def test_a_run_with_a_spurious_target_is_tested_where_the_tie_is_gone(small_world):
    (config,) = configs("RnC(L1)+freeze")
    tied, untied = (run(replace(config, spurious=tie)) for tie in ("tied", "untied"))
    assert tied[0]["test"]["index"] == untied[0]["test"]["index"]
    assert tied[0]["test"]["nuisance"] == untied[0]["test"]["nuisance"]
    assert tied[0]["data"]["n_train"] == untied[0]["data"]["n_train"] < tied[0]["data"]["n_pool"]
    assert tied[0]["test"]["prediction"] != untied[0]["test"]["prediction"]
    has = small_world.nuisance[tied[0]["test"]["index"]] > 0
    suggested = np.array(tied[0]["test"]["nuisance"])
    assert len(set(suggested)) == 2 and suggested[has].min() > suggested[~has].max()  # with it, more soluble
    view = pd.read_csv(io.StringIO(tied[1])).set_index("index")
    assert len(view) == sum(tied[0]["data"][f"n_{part}"] for part in ("train", "val", "test"))
    np.testing.assert_allclose(view["nuisance"][tied[0]["test"]["index"]], suggested, atol=1e-3)
    with pytest.raises(ValueError, match=r"spurious: got 'loose'; allowed: None, 'tied', 'untied'"):
        replace(config, spurious="loose")
    with pytest.raises(ValueError, match=r"spurious: got 'tied'; allowed: None"):
        replace(config, spurious="tied", split="scaffold")


def test_the_search_has_as_many_trials_for_every_method_and_does_not_read_the_test_part():
    grid = tuning_grid(dataset="esol", profile="paper")
    counts = pd.Series([config.method.partition(", ")[0] for config in grid]).value_counts()
    assert counts.to_dict() == dict.fromkeys(TUNED_METHODS, 15) and len(set(map(key, grid))) == len(grid)
    assert {config.seed for config in grid} == {0}
    few = tuning_grid(dataset="standin", profile="quick")
    for config in few:  # a shorter search has the first trials of the longer one
        whole = next(one for one in grid if one.method == config.method)
        stages = [one.pretrain or one.fit for one in (config, whole)]
        assert replace(stages[0], epochs=1) == replace(stages[1], epochs=1)
    records = [
        {"method": f"{method}, trial {i}", "metrics": {} if i == 3 else {"val": {"raw": {"mae": errors[i]}}}}
        for method, errors in (("L1", [3.0, 1.0, 2.0, 0.0]), ("RnC", [0.5, 0.7, 0.6, 0.0]))
        for i in range(4)
    ]
    assert best_trials(records) == {"L1": 1, "RnC": 0}  # the fourth diverged
    drawn_faces = tuning_grid(dataset="synthetic", profile="paper")
    for config in [*grid, *drawn_faces]:  # within the bounds that are shown
        stage = config.pretrain or config.fit
        for field, bounds in searched(config.dataset, config.method.partition(", trial ")[0]).items():
            value = getattr(stage, field)
            if ", " in bounds:
                assert str(value) in bounds.split(", ")
            else:
                low, high = map(float, bounds.split(" to "))
                assert low <= value <= high
    drawn = [config.pretrain.temperature for config in grid if config.method.startswith("RnC, trial")]
    assert len(set(drawn)) == 15


def test_the_methods_are_compared_with_the_settings_that_the_search_chose():
    trials = {c.method: c for c in tuning_grid(dataset="esol", profile="paper")}
    tuned = dict.fromkeys(TUNED_METHODS, 4)
    grid = methods_grid(dataset="esol", profile="paper", n_seeds=2, tuned=tuned)
    assert len(grid) == 16 and len(set(map(key, grid))) == 16
    for config in grid:
        method, closed = config.method.removesuffix(", closed form"), config.method.endswith("closed form")
        stage, trial = (one.pretrain or one.fit for one in (config, trials[f"{method}, trial 4"]))
        assert stage.epochs == 800 and replace(stage, epochs=120) == trial
        assert closed == (config.fit is None or config.refit is True)
    for dataset in ("agedb", "synthetic"):
        faces = methods_grid(dataset=dataset, profile="paper", data_dir="faces", tuned={"L1": 3})
        assert {config.model for config in faces} == {"resnet18" if dataset == "agedb" else "small"}
        search = tuning_grid(dataset=dataset, profile="paper", data_dir="faces")
        assert {(c.size, c.n_samples) for c in search} == {(32, None if dataset == "agedb" else 1000)}
        first, fourth = (next(c for c in search if c.method == f"L1, trial {i}").fit for i in (0, 3))
        assert first != fourth == replace(faces[0].fit, epochs=30)
        assert first.learning_rate == 0.2  # as published, whatever the chapter has beside it
    for wrong in ({"Huber": 1}, {"L1": -1}):
        with pytest.raises(ValueError, match=r"tuned: got .*; allowed: trials, from 0, of 'L1', "):
            methods_grid(dataset="esol", profile="paper", tuned=wrong)
    with pytest.raises(ValueError, match=r"method: got 'Huber'; allowed: 'L1', "):
        searched("esol", "Huber")
    with pytest.raises(ValueError, match=r"tuned: got None with dataset='agedb'; allowed: trials of a search"):
        methods_grid(dataset="agedb", profile="paper", data_dir="faces")
    for dataset, published in protocols.TUNED.items():
        by_default, given = (methods_grid(dataset=dataset, profile="paper", tuned=tuned) for tuned in (None, published))
        assert by_default == given
    for grid_of in (methods_grid, tuning_grid):
        with pytest.raises(ValueError, match=r"profile: got 'long'"):
            grid_of(dataset="esol", profile="long")
        with pytest.raises(ValueError, match=r"dataset: got 'mnist'; allowed: 'esol', 'standin', 'agedb', 'synthetic'"):
            grid_of(dataset="mnist", profile="paper")


def test_networks_that_differ_in_their_regressor_only_are_trained_once(monkeypatch, tmp_path):
    trained = []
    inner = experiment.train
    monkeypatch.setattr(experiment, "train", lambda *rest, **options: trained.append(1) or inner(*rest, **options))
    (config,) = configs("L1")
    closed = replace(config, method="L1, closed form", refit=True)
    run_grid([config, closed], results_dir=tmp_path / "store", progress=False, n_jobs=2)
    run_grid([config, closed], results_dir=tmp_path / "again", progress=False, n_jobs=1)
    assert len(trained) == 1
    run_grid([config, closed], results_dir=tmp_path / "store", progress=False, n_jobs=1, refresh=True)
    assert len(trained) == 2


def test_the_claims_are_tested_with_the_methods_of_the_chapters():
    for dataset, runs_of_a_fraction in (("esol", 10), ("synthetic", 5)):
        grid = efficiency_grid(dataset=dataset, profile="paper")
        assert {config.fraction for config in grid} == {0.05, 0.1, 0.2, 0.4, 0.7, None}
        methods = {config.method for config in grid}
        assert len(grid) == 6 * len(methods) * runs_of_a_fraction and END_TO_END[dataset] in methods
        corrupted = robustness_grid(dataset=dataset, profile="paper")
        chapter = [c for c in grid if c.fraction is None and not c.method.endswith("closed form")]
        if dataset == "synthetic":
            chapter = [c for c in chapter if c.method in (END_TO_END[dataset], "RnC(L1)")]
        size = 64 if dataset == "synthetic" else None  # half of it where many runs are made
        assert {c.size for c in chapter} == {32 if size else None}
        whole = [replace(c, experiment="robustness", corruptions=True, size=size) for c in chapter]
        seeds = {config.seed for config in grid}
        assert set(map(key, whole)) == {key(c) for c in corrupted if c.corruptions and c.seed in seeds}
        for shift in SHIFTS["molecules" if dataset == "esol" else "faces"]:
            changed = [c for c in corrupted if c.split == shift]  # each has a run on samples alike, of the same size
            alike = [replace(c, split="random" if dataset == "esol" else "standard") for c in changed]
            plain = {replace(c, corruptions=None) for c in corrupted if not (c.holes or c.wrong_targets or c.spurious)}
            assert changed and set(alike) <= plain
    with pytest.raises(ValueError, match=r"profile: got 'long'; allowed: 'paper', 'quick', 'smoke'"):
        efficiency_grid(dataset="esol", profile="long")


@pytest.mark.parametrize(("dataset", "profile"), [("esol", "paper"), ("synthetic", "paper"), ("synthetic", "quick")])
def test_an_ablation_changes_one_choice_of_the_protocol(dataset, profile):
    grid = {c.method: c for c in ablations_grid(dataset=dataset, profile=profile, choice="all", n_seeds=1)}
    values = protocol_values(list(grid.values()))
    assert len(ablations_grid(dataset=dataset, profile=profile, choice="all", n_seeds=5)) == 5 * len(grid)
    for choice in values:
        part = ablations_grid(dataset=dataset, profile=profile, choice=choice, n_seeds=1)
        assert part == [c for m, c in grid.items() if m == "protocol" or m.startswith(f"{choice}: ")] and len(part) > 1
        assert set(protocol_values(part)) == {choice}
    by_default = ablations_grid(dataset=dataset, profile=profile, n_seeds=1)
    short_faces = dataset == "synthetic" and profile != "paper"
    assert [c.method for c in by_default] == (["protocol", "views: 1"] if short_faces else list(grid))
    protocol = grid.pop("protocol")
    assert protocol.fit is None and protocol.freeze
    for method, config in grid.items():
        choice, _, value = method.partition(": ")
        if value == "L1, trained jointly":
            assert config.pretrain is None and config.fit.loss == "l1"
            assert (config.fit.regulariser, config.fit.regulariser_weight) == ("rnc", 1.0)
            continue
        if choice == "regressor":
            assert config.pretrain == protocol.pretrain and config.fit is not None
            continue
        assert value in ABLATIONS[choice] and values[choice] != value
        stages = vars(config.pretrain), vars(protocol.pretrain)
        changed = {name for name, setting in stages[0].items() if setting != stages[1][name]}
        others = {name for name in vars(config) if getattr(config, name) != getattr(protocol, name)}
        assert others <= {"method", "pretrain", "projection"}
        expected = set(ABLATIONS[choice][value])
        assert changed | (others & {"projection"}) == expected
    assert grid["length: 0.25 of the epochs"].pretrain.epochs == round(0.25 * protocol.pretrain.epochs)
    assert ("views" in values) == (dataset == "synthetic") and values["batch size"] == str(protocol.pretrain.batch_size)
    with pytest.raises(ValueError, match=r"profile: got 'long'; allowed: 'paper', 'quick', 'smoke'"):
        ablations_grid(dataset="esol", profile="long")
    with pytest.raises(ValueError, match=r"choice: got 'colour'; allowed: 'all', 'temperature', .*'regressor'"):
        ablations_grid(dataset="esol", profile="paper", choice="colour")


# --- faces ----------------------------------------------------------------------------------------------


def face_configs(**options) -> list[Config]:
    return [replace(config, **options) for config in agedb_grid(dataset="synthetic", profile="smoke")]


def test_the_face_grid_is_the_published_protocol():
    grid = {c.method: c for c in agedb_grid(dataset="agedb", profile="paper", data_dir="somewhere")}
    assert set(AGEDB_PUBLISHED.index) == set(AGEDB_METHODS) == set(grid) - {"training mean"}
    rnc, end_to_end = grid["RnC(L1)"], grid["L1"].fit
    assert (rnc.model, rnc.size, rnc.freeze, rnc.target, rnc.pretrain.n_views) == ("resnet18", 224, True, "raw", 2)
    assert (rnc.pretrain.batch_size, rnc.pretrain.epochs, rnc.pretrain.learning_rate) == (256, 400, 0.5)
    assert (rnc.pretrain.lr_decay_rate, rnc.pretrain.weight_decay) == (0.1, 1e-4)
    assert (rnc.fit.batch_size, rnc.fit.epochs, rnc.fit.learning_rate, rnc.fit.lr_decay_rate) == (64, 100, 0.05, 0.2)
    assert (rnc.fit.weight_decay, rnc.fit.batch_norm) == (0.0, "eval")
    assert (end_to_end.batch_size, end_to_end.epochs, end_to_end.learning_rate) == (256, 400, 0.2)
    course = {c.method: c for c in agedb_grid(dataset="agedb", profile="paper", data_dir="x", preset="course")}
    assert {c.fit.batch_size for c in course.values() if c.fit} == {128}
    assert [course[m].fit.learning_rate for m in ("L1", "L2", "Huber")] == [0.2, 0.005, 0.05]
    assert [course[m].fit.learning_rate for m in ("RnC(L1)", "RnC(L2)", "RnC(Huber)")] == [0.05, 0.01, 0.05]
    drawn = {c.method: c for c in agedb_grid(dataset="synthetic", profile="paper", n_seeds=1)}
    (slower,) = set(drawn) - set(grid)
    assert slower == END_TO_END["synthetic"] == f"L1 (lr {drawn[slower].fit.learning_rate:g})"
    assert replace(drawn[slower], method="L1", fit=replace(drawn[slower].fit, learning_rate=0.2)) == drawn["L1"]
    assert slower not in {c.method for c in agedb_grid(dataset="synthetic", profile="paper", loss="huber")}


@pytest.mark.parametrize(
    ("name", "value"),
    [("split", "scaffold"), ("model", "gin"), ("size", None), ("n_samples", None), ("target", "log"),
     ("exclude", ("x.jpg",)), ("size", 3), ("size", 16.0), ("n_samples", 99)],
)  # fmt: skip
def test_a_bad_configuration_of_faces_names_the_argument(name, value):
    with pytest.raises(ValueError, match=rf"{name}: got "):
        face_configs(**{name: value})


def test_a_key_of_faces_needs_no_drawing_and_no_folder(monkeypatch):
    monkeypatch.setattr(experiment, "_dataset", None)
    config = face_configs()[0]
    assert key(config) == key(replace(config, data_dir="elsewhere"))
    assert len({key(replace(config, **other)) for other in ({}, {"size": 18}, {"n_samples": 130})}) == 3


def test_a_run_on_faces_is_marked_as_synthetic_and_its_runs_share_an_encoder(monkeypatch, tmp_path):
    drawn = synthetic.load_faces(120, 16, progress=False)
    monkeypatch.setattr(experiment, "_dataset", lambda *_: drawn)
    grid = run_grid(face_configs(), results_dir=tmp_path / "results", progress=False)
    records = {record["method"]: record for record in grid.records}
    assert all(
        r["data"]["synthetic"] and r["dataset"] == "synthetic" and r["data"]["unit"] == "years" for r in grid.records
    )
    assert "data_dir" not in records["L1"]["config"]
    split = drawn.splits["standard"](0)
    assert records["RnC(L1)"]["test"]["index"] == split.test.tolist()
    assert records["RnC(L1)"]["stages"][0] == records["RnC(L2)"]["stages"][0]
    assert records["training mean"]["metrics"]["test"]["raw"]["mae"] == pytest.approx(
        np.abs(drawn.targets[split.test] - drawn.targets[split.train].mean()).mean(), rel=1e-6
    )
    first = records["RnC(Huber)"]
    (config,) = [c for c in face_configs() if c.method == "RnC(Huber)"]
    monkeypatch.setenv("RNC_CACHE", str(tmp_path / "another"))
    again, _ = run(config)
    assert without_circumstances(again) == without_circumstances(first)


def test_corrupted_faces_are_those_that_the_network_sees(monkeypatch):
    drawn = synthetic.load_faces(120, 16, progress=False)
    monkeypatch.setattr(experiment, "_dataset", lambda *_: drawn)
    (config,) = [c for c in face_configs() if c.method == "L1"]
    monkeypatch.setattr(corruptions, "corrupt_images", lambda pixels, kind, severity, seed: pixels)
    record, _ = run(replace(config, corruptions=True))
    assert set(record["corrupted"]) == set(corruptions.IMAGE_CORRUPTIONS)
    for errors in record["corrupted"].values():
        assert errors == pytest.approx([record["metrics"]["test"]["raw"]["mae"]] * 5, rel=1e-4)


def test_photographs_need_their_folder(monkeypatch, small_world):
    monkeypatch.undo()
    (config, *_) = agedb_grid(dataset="agedb", profile="smoke")
    with pytest.raises(ValueError, match=r"data_dir: got None with dataset='agedb'; allowed: the folder"):
        key(config)


def test_photographs_made_with_other_settings_are_not_put_beside_the_published_ones():
    def made(checksum="a", **options):
        configs = agedb_grid(dataset="agedb", profile="paper", data_dir="x", loss="l1", **options)
        return [{"config": described(config), "data": {"checksum": checksum}} for config in configs]

    ours = made(n_seeds=2) + made(n_seeds=1, precision="bf16-mixed")
    others = made(preset="course") + made(model="resnet50") + made("b", exclude=["1_A_2_m.jpg"])
    assert of_protocol(others[:4] + ours + others[4:]) == ours
    assert of_protocol(others, preset="course") == others[:2]
    assert of_protocol(others[:4]) == []


def test_the_order_of_photographs_left_out_does_not_matter():
    one, other = (
        agedb_grid(dataset="agedb", profile="paper", data_dir="x", exclude=names)[0]
        for names in (["b.jpg", "a.jpg"], ["a.jpg", "b.jpg", "a.jpg"])
    )
    assert one == other


def test_ages_keep_their_precision_in_bfloat16():
    head = experiment._Float32Linear(8, 1)
    features = torch.randn(500, 8)
    with torch.no_grad():
        head.bias.fill_(70.0)
        exact = head(features)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = head(features.bfloat16())
    assert rounded.dtype == torch.float32 and (rounded - exact).abs().max() < 0.02


@pytest.mark.parametrize("processes", [1, 2])
def test_a_grid_is_trained_from_the_command_line_by_one_process_or_several(tmp_path, processes):
    program = ["-m", "rnclib.protocols", "agedb", "--dataset", "synthetic", "--profile", "smoke", "--loss", "l1"]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"] if processes == 2 else []
    done = subprocess.run(
        [sys.executable, *launcher, *program, "--results-dir", str(tmp_path)],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "3 trained now (1 × L1, 1 × L1 (lr 0.01), 1 × RnC(L1))" in done.stdout
    records = results.load(tmp_path, profile="smoke", experiment="agedb")
    assert {record["method"] for record in records} == {"L1", "L1 (lr 0.01)", "RnC(L1)"}
    assert {record["run"]["processes"] for record in records} == {processes}
    # what the cache keeps is what the record was made with, whichever process wrote it
    first = {record["method"]: record for record in records}
    again = subprocess.run(
        [sys.executable, *launcher, *program, "--results-dir", str(tmp_path / "again")],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert again.returncode == 0, again.stderr[-2000:]
    for record in results.load(tmp_path / "again", profile="smoke", experiment="agedb"):
        assert record["test"] == first[record["method"]]["test"]
    assert done.stdout.count("trained now") == 1


@pytest.mark.parametrize("grid_of", protocols.GRIDS.values())
def test_every_grid_names_a_bad_profile_and_number_of_runs(grid_of):
    options = {"dataset": "synthetic" if grid_of is agedb_grid else "esol"}
    options |= {"split": "random"} if grid_of is esol_grid else {}
    with pytest.raises(ValueError, match=r"profile: got 'papr'; allowed: 'paper', 'quick', 'smoke'"):
        grid_of(profile="papr", **options)
    if grid_of is not tuning_grid:
        with pytest.raises(ValueError, match=r"n_seeds: got 0; allowed: an integer of at least 1"):
            grid_of(profile="smoke", n_seeds=0, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [(["--profile", "long"], "profile: got 'long'; allowed: 'paper', 'quick', 'smoke'"),
     (["--profile", "smoke", "--loss", "l3"], "loss: got 'l3'; allowed: "),
     (["--profile", "smoke", "--n-seeds", "0"], "--n-seeds: got '0'; allowed: an integer of at least 1"),
     (["--profile", "smoke", "--precision", "fp8"], "precision: got 'fp8'; allowed: None, 'bf16-mixed'")],
)  # fmt: skip
def test_the_command_line_refuses_what_the_grid_refuses(capsys, options, message):
    with pytest.raises(SystemExit):
        protocols.main(["agedb", "--dataset", "synthetic", *options])
    assert message in capsys.readouterr().err


def test_the_command_line_says_what_photographs_and_a_gpu_it_lacks(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(experiment, "_dataset", THE_DATASETS)
    monkeypatch.setattr(synthetic, "make_faces", lambda *_, **__: pytest.fail("it drew faces"))
    for options, message in (
        (["--dataset", "agedb", "--device", "cpu"], "data_dir: got None with dataset='agedb'"),
        (["--dataset", "synthetic", "--device", "cuda"], "device: got 'cuda', but torch finds no GPU"),
    ):
        with pytest.raises(SystemExit):
            protocols.main(["agedb", "--profile", "smoke", "--results-dir", str(tmp_path), *options])
        assert message in capsys.readouterr().err


@pytest.mark.gpu
@pytest.mark.parametrize("precision", [None, "bf16-mixed"])
def test_faces_are_trained_on_a_gpu_as_on_a_cpu(precision):
    drawn = synthetic.load_faces(120, 16, progress=False)
    room = drawn.inputs.pixels.nbytes
    batch = np.arange(10)
    resident, streamed = drawn.inputs.to("cuda", room), drawn.inputs.to("cuda", room - 1)
    assert resident.pixels.is_cuda and not streamed.pixels.is_cuda
    assert torch.equal(resident[batch], streamed[batch]) and resident[batch].is_cuda
    torch.testing.assert_close(resident[batch].cpu(), drawn.inputs[batch])
    for config in face_configs(precision=precision):
        if config.method in ("L1", "RnC(L1)"):
            there, here = (run(config, device=device)[0] for device in ("cuda", "cpu"))
            assert there["metrics"]["test"]["raw"]["mae"] == pytest.approx(
                here["metrics"]["test"]["raw"]["mae"], rel=0.02
            )
