"""Records of many runs: what a grid loads, trains, shares and leaves alone."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from worlds import breaks_at_the_end, face_runs, molecule_runs, molecules, put, watch_training, without_circumstances

from rnclib import experiment, grid, networks, results, statistics
from rnclib.data import catalogue, synthetic
from rnclib.experiment import key, shared
from rnclib.grid import run_grid, run_on_one_machine

pytestmark = pytest.mark.usefixtures("own_cache")


def carry(runs, root, **options):
    return run_grid(runs, results_dir=root, progress=False, **options)


# --- the store ------------------------------------------------------------------------------------------


def test_a_grid_trains_what_is_missing_and_loads_the_rest(tmp_path):
    first = carry(molecule_runs("training mean", "L1"), tmp_path)
    assert str(first) == "0 runs loaded from the store; 2 trained now (1 × training mean, 1 × L1 end to end)"
    every = molecule_runs("L1", "training mean", "RnC(L1)+freeze")
    second = carry(every, tmp_path)
    assert [run.method for run in second.trained] == ["RnC(L1)+freeze"] and second.loaded == every[:2]
    assert str(second) == (
        "2 runs loaded from the store (1 × L1 end to end, 1 × training mean); 1 trained now (1 × RnC frozen, L1)"
    )
    assert [record["key"] for record in second.records] == [key(run) for run in every]
    third = carry(every, tmp_path, refresh=True)
    assert len(third.trained) == 3 and third.loaded == []
    assert list(map(without_circumstances, third.records)) == list(map(without_circumstances, second.records))
    assert len(list(tmp_path.rglob("*.json"))) == 3


def test_records_have_the_labels_of_their_runs_and_the_store_has_not(tmp_path):
    runs = molecule_runs("L1 (lr 0.001)", "RnC(L1)")
    for _ in range(2):  # trained, and loaded
        found = carry(runs, tmp_path)
        assert [record["label"] for record in found.records] == ["L1 end to end, lr 0.001", "RnC fine-tuned, L1"]
        assert [record["method"] for record in found.records] == ["L1 (lr 0.001)", "RnC(L1)"]
    for path in tmp_path.rglob("*.json"):
        assert "label" not in json.loads(path.read_text())
    assert results.frame(found.records)["method"].tolist() == ["L1 end to end, lr 0.001", "RnC fine-tuned, L1"]


def test_a_view_lies_beside_the_record_it_belongs_to(tmp_path):
    carry(molecule_runs("L1", "training mean"), tmp_path)
    views = {path.with_suffix(".json") for path in tmp_path.glob("*/*/*.csv")}
    records = {json.loads(path.read_text())["method"]: path for path in tmp_path.rglob("*.json")}
    assert views == {records["L1"]}


def test_predictions_beside_records_of_a_large_test_set_are_packed_even_after_a_kill(monkeypatch, tmp_path):
    monkeypatch.setitem(catalogue.SOURCES, "standin", replace(catalogue.SOURCES["standin"], keeps=5))
    put(monkeypatch, "standin", lambda: molecules())
    runs = molecule_runs("training mean", "L1")
    with monkeypatch.context() as patch:
        patch.setattr(results, "pack", lambda *_, **__: None)  # it does not come to that
        carry(runs[:1], tmp_path)
    assert list(tmp_path.glob("*/*/*.csv")) and not list(tmp_path.rglob("*.zip"))
    records = carry(runs, tmp_path).records
    assert not list(tmp_path.glob("*/*/*.csv")) and len(list(tmp_path.rglob("*.zip"))) == 1
    for record in records:
        whole = results.all_predictions(record, tmp_path)
        error = (whole["prediction"] - whole["target"]).abs().mean()
        assert len(whole) == record["data"]["n_test"] > len(record["test"]["index"])
        assert error == pytest.approx(record["metrics"]["test"]["raw"]["mae"], abs=1e-4)


def test_many_methods_are_counted_and_not_listed():
    runs = [molecule_runs("L1")[0].but(notable=(f"trial {number}",)) for number in range(21)]
    assert str(grid.Grid(loaded=runs)) == "21 runs loaded from the store (of 21 methods); 0 trained now"


def test_runs_that_are_compared_closely_are_made_on_one_machine(monkeypatch, tmp_path):
    runs = molecule_runs("training mean", "L1", "L1 (lr 0.001)")

    def on(machine):
        monkeypatch.setattr("rnclib.provenance.circumstances", lambda device: circumstances(device) | {"cpu": machine})
        return run_on_one_machine(runs, results_dir=tmp_path)

    def made_by():
        return [record["run"]["cpu"] for record in results.load(tmp_path, profile="smoke", experiment="esol")]

    circumstances = experiment.provenance.circumstances
    monkeypatch.setattr("rnclib.provenance.circumstances", lambda device: circumstances(device) | {"cpu": "far away"})
    carry(runs[:1], tmp_path)
    monkeypatch.setattr("rnclib.provenance.circumstances", lambda device: circumstances(device) | {"cpu": "here"})
    carry(runs[1:], tmp_path)
    before = sorted(tmp_path.rglob("*.json"))
    assert on("far away").startswith("left for here with torch ")  # two of three records are of another machine
    assert sorted(tmp_path.rglob("*.json")) == before and not (tmp_path / "archive").exists()
    assert len(on("here").records) == 3 and made_by() == ["here"] * 3
    (replaced,) = results.load(tmp_path / "archive", profile="smoke", experiment="esol")
    assert replaced["run"]["cpu"] == "far away" and replaced["key"] == key(runs[0])
    assert on("here").trained == [] and made_by() == ["here"] * 3


def test_a_truncated_record_is_named_kept_and_made_again(tmp_path):
    (run,) = molecule_runs("training mean")
    carry([run], tmp_path)
    (path,) = tmp_path.rglob("*.json")
    path.write_text(path.read_text()[:200])
    broken = path.read_text()
    with pytest.warns(UserWarning, match=path.name):
        again = carry([run], tmp_path)
    assert again.trained == [run] and path.read_text() == broken
    with pytest.warns(UserWarning, match=path.name):
        loaded = carry([run], tmp_path)
    assert loaded.loaded == [run]


def test_a_grid_of_two_profiles_or_of_nothing_is_refused(tmp_path):
    (run,) = molecule_runs("training mean")
    for runs in ([run, run.but(profile="quick")], [run, run.but(experiment="other")], []):
        with pytest.raises(ValueError, match=r"^runs: got .*; allowed: one experiment and profile, at least one run"):
            carry(runs, tmp_path)


def test_what_was_done_before_a_kill_is_in_the_store(monkeypatch, tmp_path):
    runs = molecule_runs("training mean", "L1")
    inner = experiment.carry_out

    def killed(run, **options):
        if run.method == "L1":
            raise KeyboardInterrupt
        return inner(run, **options)

    monkeypatch.setattr(grid, "carry_out", killed)
    with pytest.raises(KeyboardInterrupt):
        carry(runs, tmp_path)
    monkeypatch.setattr(grid, "carry_out", inner)
    again = carry(runs, tmp_path)
    assert (again.loaded, again.trained) == (runs[:1], runs[1:])


# --- what runs share ------------------------------------------------------------------------------------


def test_refresh_trains_the_encoder_again_and_once(monkeypatch, tmp_path):
    pair = molecule_runs("RnC(L1)+freeze", "RnC(L2)+freeze")
    carry(pair, tmp_path)
    seen = watch_training(monkeypatch)
    carry(pair, tmp_path, refresh=True)
    assert [one["stage"].loss for one in seen] == ["rnc", "l1", "l2"]


def test_refresh_trains_the_encoder_of_each_size(monkeypatch, tmp_path):
    drawn = {size: synthetic.load_faces(120, size, progress=False) for size in (16, 20)}
    put(monkeypatch, "synthetic", lambda size, **_: drawn[size])
    (one,) = face_runs("RnC(L1)")
    two_sizes = [one.but(size=size) for size in drawn]
    carry(two_sizes, tmp_path)
    seen = watch_training(monkeypatch)
    carry(two_sizes, tmp_path, refresh=True)
    assert [one["stage"].loss for one in seen] == ["rnc", "l1"] * 2


def test_refresh_trains_encoders_with_and_without_a_projection_head_again(monkeypatch, tmp_path):
    (run,) = molecule_runs("RnC(L1)+freeze")
    pair = [run.but(fit=None), run.but(fit=None, projection=7, method="with head")]
    carry(pair, tmp_path)
    seen = watch_training(monkeypatch)
    carry(pair, tmp_path, refresh=True)
    assert len(seen) == 2


def test_refresh_trains_the_encoder_of_each_weight_seed_again(monkeypatch, tmp_path):
    (run,) = molecule_runs("RnC(L1)+freeze")
    pair = [run.but(fit=None), run.but(fit=None, weight_seed=1)]
    first = carry(pair, tmp_path)
    seen = watch_training(monkeypatch)
    carry(pair, tmp_path, refresh=True)
    assert [one["seed"] for one in seen] == [0, 1]
    assert first.records[0]["test"]["prediction"] != first.records[1]["test"]["prediction"]


def test_networks_that_differ_in_their_regressor_only_are_trained_once(monkeypatch, tmp_path):
    seen = watch_training(monkeypatch)
    (run,) = molecule_runs("L1")
    every = [run.but(method=f"L1, {head}", head=head) for head in (None, "ridge", "neighbours")]
    carry(every, tmp_path / "store", n_jobs=2)
    carry(every, tmp_path / "again", n_jobs=1)
    assert len(seen) == 1
    carry(every, tmp_path / "store", n_jobs=1, refresh=True)
    assert len(seen) == 2


def test_runs_that_train_the_same_go_together():
    l1, frozen, tuned, other = molecule_runs("L1", "RnC(L1)+freeze", "RnC(L1)", "L2")
    assert shared(frozen) == shared(tuned) == shared(frozen.but(fit=None)) == shared(frozen.but(corruptions=True))
    assert shared(l1) == shared(l1.but(method="closed", head="ridge")) != shared(other)
    for changes in (
        {"seed": 1}, {"weight_seed": 1}, {"split": "scaffold"}, {"fraction": 0.5}, {"holes": "cut-out"},
        {"wrong_targets": 0.2}, {"spurious": "tied"}, {"projection": 7},
    ):  # fmt: skip
        assert shared(frozen.but(**changes)) != shared(frozen), changes


# --- processes ------------------------------------------------------------------------------------------


def test_two_processes_give_the_same_records(tmp_path):
    """Worker processes draw the 120 faces that the runs ask for."""
    runs = face_runs("L1") + face_runs("L1", seed=1)
    two, one = (carry(runs, tmp_path / str(n), n_jobs=n) for n in (2, 1))
    assert list(map(without_circumstances, two.records)) == list(map(without_circumstances, one.records))
    assert len(two.trained) == 2 and [record["seed"] for record in two.records] == [0, 1]


@pytest.mark.parametrize(
    ("epochs", "n_jobs", "device", "expected"),
    [(50, None, "cpu", 1), (101, None, "cpu", 6), (101, None, "cuda", 1), (50, 3, "cpu", 3), (101, 2, "cuda", 2)],
)
def test_short_work_and_an_accelerator_get_one_process(monkeypatch, epochs, n_jobs, device, expected):
    monkeypatch.setattr(grid.os, "cpu_count", lambda: 6)
    (run,) = molecule_runs("L1")
    run = run.but(fit=replace(run.recipe.fit, epochs=epochs))
    assert grid._jobs([run], n_jobs, device) == expected
    monkeypatch.setattr(grid, "processes", lambda: (4, 0))  # those of torchrun work on one run together
    assert grid._jobs([run], n_jobs, device) == 1


def test_the_bar_ends_full_and_threads_are_as_before(monkeypatch, tmp_path, capsys):
    torch.set_num_threads(2)
    seen = watch_training(monkeypatch)
    threads = []
    monkeypatch.setattr(grid, "carry_out", lambda run, **options: threads.append(torch.get_num_threads()) or (
        experiment.carry_out(run, **options)
    ))  # fmt: skip
    try:
        run_grid(molecule_runs("L1", "RnC(L1)+freeze"), results_dir=tmp_path)
        assert torch.get_num_threads() == 2 and threads == [1, 1] and len(seen) == 3
    finally:
        torch.set_num_threads(1)
    assert "2 runs: 100%" in capsys.readouterr().err


# --- engines --------------------------------------------------------------------------------------------


def test_an_unknown_engine_is_refused_before_anything(monkeypatch, tmp_path):
    runs = molecule_runs("training mean")
    carry(runs, tmp_path)
    with pytest.raises(ValueError, match=r"^engine: got 'spark'; allowed: 'loky', "):
        carry(runs, tmp_path, engine="spark")
    monkeypatch.setenv("RNC_ENGINE", "spark")
    with pytest.raises(ValueError, match=r"^engine: got 'spark'; allowed: "):
        carry(runs, tmp_path)
    assert carry(runs, tmp_path, engine="loky").loaded == runs
    assert run_on_one_machine(runs, results_dir=tmp_path).loaded == runs


def test_a_scheduler_is_not_told_a_number_of_processes_nor_asked_under_torchrun(monkeypatch, tmp_path):
    runs = molecule_runs("training mean")
    with pytest.raises(ValueError, match=r"^engine: got 'tcp://host:8786' and n_jobs; allowed: one of them"):
        carry(runs, tmp_path, engine="tcp://host:8786", n_jobs=2)
    monkeypatch.setattr(grid, "processes", lambda: (4, 0))
    with pytest.raises(ValueError, match=r"^engine: got 'tcp://host:8786' and torchrun; allowed: one of them"):
        carry(runs, tmp_path, engine="tcp://host:8786")


def test_nothing_is_asked_of_a_scheduler_where_nothing_is_missing(tmp_path):
    runs = molecule_runs("training mean")
    carry(runs, tmp_path)
    assert carry(runs, tmp_path, engine="tcp://127.0.0.1:1").loaded == runs
    with pytest.raises(ConnectionError, match=r"^engine: got 'tcp://127.0.0.1:1', where no Dask scheduler answers"):
        carry(runs, tmp_path, engine="tcp://127.0.0.1:1", refresh=True)
    assert len(list(tmp_path.rglob("*.json"))) == 1


# --- runs that diverge ----------------------------------------------------------------------------------


def test_a_run_that_diverges_is_recorded_as_such(tmp_path):
    (run,) = molecule_runs("L2")
    found = carry([run.but(fit=replace(run.recipe.fit, learning_rate=1e8))], tmp_path)
    (record,) = found.records
    assert "became" in record["diverged"] and record["metrics"] == {} and record["test"]["prediction"] == []
    frame = results.frame(found.records)
    assert frame["test_mae"].isna().all()
    assert statistics.summarise(frame, "test_mae").loc["L2 end to end", "diverged"] == 1


def test_a_contrastive_encoder_that_diverges_is_a_result_like_any_other(tmp_path):
    first, second = molecule_runs("RnC(L1)+freeze", "L1")
    wild = first.but(pretrain=replace(first.recipe.pretrain, learning_rate=1e30, epochs=2))
    diverged, other = carry([wild, second], tmp_path).records
    assert diverged["diverged"].startswith("training loss (rnc) became") and diverged["metrics"] == {}
    assert other["diverged"] is None and len(list(tmp_path.rglob("*.json"))) == 2


@pytest.mark.parametrize("closed_form", [True, False])
def test_features_that_are_not_finite_do_not_keep_other_runs_from_their_records(monkeypatch, tmp_path, closed_form):
    broken, other = molecule_runs("RnC(L1)+freeze", "L1")
    broken = broken.but(fit=None) if closed_form else broken

    monkeypatch.setattr(networks, "train", breaks_at_the_end)
    diverged, kept = carry([broken, other], tmp_path).records
    assert diverged["diverged"] and diverged["metrics"] == {} and kept["diverged"] is None


# --- faces ----------------------------------------------------------------------------------------------


def test_a_grid_on_synthetic_faces_is_marked_as_such_and_its_runs_share_an_encoder(monkeypatch, tmp_path, small_faces):
    found = carry(face_runs(), tmp_path / "results")
    records = {record["method"]: record for record in found.records}
    for record in found.records:
        assert record["data"]["synthetic"] is True and record["dataset"] == "synthetic"
        assert record["data"]["unit"] == "years" and "data_dir" not in record["config"]
    split = small_faces.splits["standard"](0)
    assert records["RnC(L1)"]["test"]["index"] == split.test.tolist()
    assert records["RnC(L1)"]["stages"][0] == records["RnC(L2)"]["stages"][0]
    by_the_mean = np.abs(small_faces.targets[split.test] - small_faces.targets[split.train].mean()).mean()
    assert records["training mean"]["metrics"]["test"]["raw"]["mae"] == pytest.approx(by_the_mean, rel=1e-6)
    (run,) = face_runs("RnC(Huber)")
    monkeypatch.setenv("RNC_CACHE", str(tmp_path / "another"))
    again, _ = experiment.carry_out(run)
    assert without_circumstances(again | {"label": run.label}) == without_circumstances(records["RnC(Huber)"])


def test_every_run_is_recorded_once(tmp_path):
    runs = molecule_runs("training mean", "L1") + molecule_runs("training mean", seed=1)
    found = carry(runs, tmp_path)
    assert Counter(run.label for run in found.trained) == {"training mean": 2, "L1 end to end": 1}
    means = [molecules().targets[molecules().splits["random"](seed).train].mean() for seed in (0, 1)]
    assert [found.records[i]["test"]["prediction"][0] for i in (0, 2)] == pytest.approx(means, abs=1e-4)
