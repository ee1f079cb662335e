"""From a run to its record: keys, what a fit is given, provenance, repetition, and training unlike the test."""

from __future__ import annotations

import hashlib
import io
import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from worlds import (
    breaks_at_the_end,
    face_runs,
    forbid_training,
    molecule_runs,
    molecules,
    put,
    table,
    watch_training,
    without_circumstances,
)

from rnclib import data, evaluation, experiment, fitting, networks, results, rnc_loss, rnc_lower_bound, training
from rnclib.chapters import experiments
from rnclib.data import Dataset, Split, catalogue, corruptions, synthetic
from rnclib.data.shifts import SEEN
from rnclib.encoders import GIN
from rnclib.experiment import Run, Selection, carry_out, described, key, work
from rnclib.fitting import fit
from rnclib.recipe import Recipe, Stage
from rnclib.training import Samples, predict

pytestmark = pytest.mark.usefixtures("own_cache")


# --- runs and keys --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dataset", "ESOL"), ("profile", "full"), ("split", "time"), ("seed", -1), ("seed", True), ("seed", None),
        ("weight_seed", -1), ("weight_seed", 1.0), ("model", "gcn"), ("freeze", True), ("corruptions", False),
        ("holes", "four peaks"), ("fraction", 0), ("fraction", 1), ("fraction", 1.5), ("wrong_targets", 0),
        ("wrong_targets", 1), ("wrong_targets", -0.1), ("spurious", "loose"), ("size", 16), ("n_samples", 200),
        ("data_seed", 1), ("exclude", ("x.jpg",)), ("model", "small"), ("target", "log"), ("precision", "fp8"),
    ],
)  # fmt: skip
def test_a_bad_run_names_the_argument(name, value):
    (run,) = molecule_runs("L1")
    with pytest.raises(ValueError, match=rf"^{name}: got {re.escape(repr(value))}.*; allowed: .+"):
        run.but(**{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("split", "scaffold"), ("model", "gin"), ("size", None), ("n_samples", None), ("target", "log"),
        ("exclude", ("x.jpg",)), ("size", 3), ("size", 16.0), ("n_samples", 99),
    ],
)  # fmt: skip
def test_a_bad_run_on_faces_names_the_argument(name, value):
    (run,) = face_runs("L1")
    with pytest.raises(ValueError, match=rf"^{name}: got .*; allowed: .+"):
        run.but(**{name: value})


def test_refusals_say_what_is_allowed_here():
    (run,) = molecule_runs("L1")
    for changes, message in (
        ({"fraction": 1.5}, "fraction: got 1.5; allowed: a float above 0, below 1, or None for all and for none"),
        ({"spurious": "loose"}, "spurious: got 'loose'; allowed: None, 'tied', 'untied'"),
        ({"spurious": "tied", "split": "scaffold"}, "spurious: got 'tied'; allowed: None"),
        ({"split": "time"}, "split: got 'time'; allowed: 'random', 'scaffold', 'size'"),
        ({"profile": "full"}, f"profile: got 'full'; allowed: {', '.join(map(repr, results.PROFILES))}"),
        ({"size": 16}, "size: got 16; allowed: None with dataset='standin'"),
        (
            {"model": "small"},
            "model: got 'small' with dataset='standin'; allowed: one for molecules, this one is for images",
        ),
    ):
        with pytest.raises(ValueError) as caught:
            run.but(**changes)
        assert str(caught.value) == message
    with pytest.raises(ValueError, match=r"^spurious: got 'tied'; allowed: None$"):
        Selection("agedb", "standard", size=16, spurious="tied")


def test_an_unknown_option_is_an_error():
    (run,) = molecule_runs("L1")
    with pytest.raises(TypeError, match="learning_rat"):
        Run("esol", "smoke", "L1", 0, run.data, run.recipe, learning_rat=0.1)
    with pytest.raises(ValueError, match=r"^changes: got \['learning_rat'\]; allowed: "):
        run.but(learning_rat=0.1)


def test_changes_of_a_run_reach_its_data_and_its_recipe():
    (run,) = molecule_runs("RnC(L1)")
    changed = run.but(method="other", split="size", fraction=0.5, freeze=True, target="raw", weight_seed=3)
    assert changed == Run(
        "esol", "smoke", "other", 0, replace(run.data, split="size", fraction=0.5),
        replace(run.recipe, freeze=True, target="raw"), weight_seed=3,
    )  # fmt: skip
    assert run.but() == run and run == molecule_runs("RnC(L1)")[0]


def test_the_key_depends_on_everything_that_matters_and_on_nothing_else(monkeypatch):
    (run,) = molecule_runs("RnC(L1)")
    changed = [
        run.but(seed=1), run.but(split="scaffold"), run.but(pretrain=replace(run.recipe.pretrain, temperature=1.0)),
        run.but(fit=replace(run.recipe.fit, learning_rate=0.002)), run.but(freeze=True), run.but(weight_seed=1),
    ]  # fmt: skip
    assert len({key(one) for one in [run, *changed]}) == 7
    assert key(run) == key(replace(run)) == key(run.but(notable=("tuned",))) == key(run.but(data_dir="elsewhere"))
    before = key(run)
    with monkeypatch.context() as patch:
        patch.setattr(results, "commit", lambda: ("another", False))
        assert key(run) == before
    with monkeypatch.context() as patch:
        patch.setattr(catalogue, "checksum", lambda *_, **__: "other data")
        assert key(run) != before
    with monkeypatch.context() as patch:
        patch.setattr(experiment, "PROTOCOL", experiment.PROTOCOL + 1)
        assert key(run) != before
    assert key(run) == before


def test_published_keys_stay_as_they_are():
    """Changing the description of a run would orphan the committed records."""
    l1 = experiments()["esol"].runs(dataset="esol", profile="paper", split="random", loss="l1", n_seeds=1)
    assert {run.method: key(run) for run in l1} == {
        "L1": "ea9520880169ce63",
        "L1 (lr 0.001)": "ee3cfad31b713b09",
        "RnC(L1)+freeze": "750c5f997644a695",
        "RnC(L1)": "62159bd54f9ceb44",
    }


def test_a_description_has_no_field_that_is_not_set():
    (run,) = molecule_runs("L1")
    assert described(run) == {
        "experiment": "esol", "dataset": "standin", "profile": "smoke", "split": "random", "seed": 0, "method": "L1",
    } | run.recipe.described()  # fmt: skip
    assert not {"weight_seed", "data_seed", "corruptions", "data_dir", "notable"} & set(described(run))
    more = run.but(weight_seed=5, fraction=0.5, corruptions=True, data_dir="here")
    assert described(more) == described(run) | {"weight_seed": 5, "fraction": 0.5, "corruptions": True}


def test_a_key_of_faces_needs_no_drawing_and_no_folder(monkeypatch):
    put(monkeypatch, "synthetic", lambda **_: pytest.fail("it drew faces"))
    run, *_ = face_runs()
    assert key(run) == key(run.but(data_dir="elsewhere"))
    assert len({key(run.but(**other)) for other in ({}, {"size": 18}, {"n_samples": 130}, {"data_seed": 1})}) == 4


def test_photographs_need_their_folder():
    run, *_ = experiments()["agedb"].runs(dataset="agedb", profile="smoke")
    with pytest.raises(ValueError, match=r"^data_dir: got None.*; allowed: the folder"):
        key(run)


# --- the two seeds, and that of the data ----------------------------------------------------------------


def test_the_weight_seed_changes_the_weights_and_leaves_the_split():
    (run,) = molecule_runs("L1")
    first, same, other = (carry_out(one)[0] for one in (run, run.but(weight_seed=0), run.but(weight_seed=1)))
    assert other["test"]["index"] == first["test"]["index"] and other["data"] == first["data"]
    assert other["test"]["target"] == first["test"]["target"]
    assert other["test"]["prediction"] != first["test"]["prediction"]
    assert other["stages"][0]["curve"] != first["stages"][0]["curve"]
    assert same["test"] == first["test"] and same["metrics"] == first["metrics"]  # by default it is the other seed
    split_too, _ = carry_out(run.but(seed=1))
    assert split_too["test"]["index"] != first["test"]["index"]


def test_the_seed_of_the_weights_is_what_fit_is_given(monkeypatch):
    seeds = []
    monkeypatch.setattr(experiment, "fit", lambda *rest, seed, **options: seeds.append(seed) or fitting.fit(
        *rest, seed=seed, **options
    ))  # fmt: skip
    (run,) = molecule_runs("training mean", seed=3)
    for one in (run, run.but(weight_seed=7), run.but(weight_seed=0)):
        carry_out(one)
    assert seeds == [3, 7, 0]


def test_a_data_seed_is_that_of_the_pictures(tmp_path, monkeypatch):
    monkeypatch.setenv("RNC_CACHE", str(tmp_path))
    (run,) = face_runs("training mean")
    other = run.but(data_seed=1)
    assert described(other) == described(run) | {"data_seed": 1} and key(other) != key(run)
    assert "data_seed" not in described(run) and run.data.options == {"size": 16, "n_samples": 120}
    first, second = (catalogue.load("synthetic", **one.data.options) for one in (run, other))
    assert not torch.equal(first.inputs.pixels, second.inputs.pixels) and first.checksum != second.checksum
    assert (first.checksum, second.checksum) == (experiment._checksum(run), experiment._checksum(other))
    assert (first.targets != second.targets).any()


# --- what a fit is given --------------------------------------------------------------------------------


class Watched:
    """What `carry_out` gives to `fit`, and what comes back."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.given: list[tuple] = []
        self.options: list[dict] = []
        self.fitted: list = []

        def watched(*given, **options):
            self.given.append(given)
            self.options.append(options)
            self.fitted.append(fitting.fit(*given, **options))
            return self.fitted[-1]

        monkeypatch.setattr(experiment, "fit", watched)


def test_fit_is_given_the_molecules_of_training_and_validation_and_nothing_else(monkeypatch):
    known = replace(molecules().inputs, published=np.arange(120.0))
    dataset = replace(molecules(), inputs=known)
    put(monkeypatch, "standin", lambda: dataset)
    watched = Watched(monkeypatch)
    (run,) = molecule_runs("L1")
    record, _ = carry_out(run)
    split = dataset.splits["random"](0)
    ((recipe, *sets),), (options,) = watched.given, watched.options
    assert recipe == run.recipe and len(sets) == 2
    assert set(options) == {"seed", "execution", "on_epoch"} and options["on_epoch"] is None
    assert not any(isinstance(value, (np.ndarray, torch.Tensor)) for value in vars(options["execution"]).values())
    for samples, index in zip(sets, (split.train, split.val), strict=True):
        graphs = samples.inputs
        assert vars(graphs).keys() == {"x", "edge_index", "node_start", "edge_start", "smiles", "published"}
        assert len(graphs) == len(graphs.smiles) == len(graphs.published) == len(samples.targets) == len(index)
        assert graphs.smiles == tuple(known.smiles[i] for i in index)
        atoms, bonds = (
            np.concatenate([np.arange(starts[i], starts[i + 1]) for i in index])
            for starts in (known.node_start.tolist(), known.edge_start.tolist())
        )
        assert torch.equal(graphs.x, known.x[atoms]) and torch.equal(graphs.edge_index, known.edge_index[:, bonds])
        assert (int(graphs.node_start[-1]), int(graphs.edge_start[-1])) == (len(atoms), len(bonds))
        np.testing.assert_array_equal(graphs.published, index.astype(float))
        np.testing.assert_array_equal(samples.targets, dataset.targets[index])
    assert [len(samples.targets) for samples in sets] == [record["data"]["n_train"], record["data"]["n_val"]]


def test_fit_is_given_the_pixels_of_training_and_validation_and_nothing_else(monkeypatch, small_faces):
    watched = Watched(monkeypatch)
    (run,) = face_runs("L1")
    carry_out(run)
    split = small_faces.splits["standard"](0)
    ((_, *sets),) = watched.given
    for samples, index in zip(sets, (split.train, split.val), strict=True):
        assert samples.inputs.rows is None
        assert torch.equal(samples.inputs.pixels, small_faces.inputs.pixels[index])
        np.testing.assert_array_equal(samples.targets, small_faces.targets[index])


def poisoned(dataset: Dataset, index: np.ndarray, targets: bool) -> Dataset:
    """NaN in the atoms of some molecules, or other targets."""
    if targets:
        values = dataset.targets.copy()
        values[index] = 1e6
        return replace(dataset, targets=values)
    x, start = dataset.inputs.x.clone(), dataset.inputs.node_start
    for i in index:
        x[start[i] : start[i + 1]] = torch.nan
    return replace(dataset, inputs=replace(dataset.inputs, x=x))


@pytest.mark.parametrize("method", ["L1", "RnC(L1)", "RnC(L1)+freeze", "closed form"])
def test_a_poisoned_test_set_changes_neither_weights_nor_validation(monkeypatch, tmp_path, method):
    closed = method == "closed form"
    (run,) = molecule_runs("RnC(L1)+freeze" if closed else method)
    run = run.but(fit=None) if closed else run
    watched, clean = Watched(monkeypatch), molecules()
    expected, _ = carry_out(run)
    split = clean.splits["random"](0)
    for kind in ("inputs", "targets"):
        monkeypatch.setenv("RNC_CACHE", str(tmp_path / kind))
        disturbed = poisoned(clean, split.test, targets=kind == "targets")
        put(monkeypatch, "standin", lambda disturbed=disturbed: disturbed)
        if kind == "targets":
            record, _ = carry_out(run)
            assert record["metrics"]["val"] == expected["metrics"]["val"] and record["data"] == expected["data"]
            assert record["test"]["prediction"] == expected["test"]["prediction"]
            assert record["metrics"]["test"]["raw"]["mae"] > 9e5
        else:  # what cannot be predicted is a run without metrics
            record, _ = carry_out(run)
            assert record["diverged"] == "predictions are not finite" and record["metrics"] == {}
            assert record["data"] == expected["data"]
            assert [stage["curve"] for stage in record["stages"]] == [stage["curve"] for stage in expected["stages"]]
    first, *others = watched.fitted
    val = clean.inputs.take(split.val)
    assert len(others) == 2
    for other in others:
        assert [stage.history.val_loss for stage in other.stages] == [one.history.val_loss for one in first.stages]
        for name in ("encoder", "linear"):
            states = getattr(first, name).state_dict(), getattr(other, name).state_dict()
            assert all(torch.equal(states[0][part], states[1][part]) for part in states[0])
        np.testing.assert_array_equal(other.predict(val), first.predict(val))
        errors = evaluation.errors(other.predict(val), clean.targets[split.val], first.scaler)
        assert expected["metrics"]["val"]["raw"]["mae"] == pytest.approx(errors["raw"]["mae"], rel=1e-6)


def test_the_target_scaler_sees_the_training_set_only(monkeypatch):
    (run,) = molecule_runs("L1")
    record, _ = carry_out(run)
    targets = molecules().targets.copy()
    targets[record["test"]["index"]] += 100.0
    put(monkeypatch, "standin", lambda: replace(molecules(), targets=targets))
    disturbed, _ = carry_out(run)
    assert disturbed["data"] == record["data"]
    assert disturbed["test"]["prediction"] == record["test"]["prediction"]
    assert disturbed["metrics"]["val"] == record["metrics"]["val"]


# --- one run --------------------------------------------------------------------------------------------


def test_a_record_says_what_was_done():
    (run,) = molecule_runs("RnC(L1)")
    record, view = carry_out(run)
    test, dataset = record["test"], molecules()
    assert record["key"] == key(run) and record["dataset"] == "standin" and record["data"]["synthetic"] is True
    assert record["data"]["checksum"] == dataset.checksum and record["data"]["unit"] == "log mol/L"
    assert record["config"] == described(run) and record["method"] == run.method and record["diverged"] is None
    np.testing.assert_allclose(test["target"], dataset.targets[test["index"]], atol=1e-4)
    error = np.abs(np.subtract(test["prediction"], test["target"])).mean()
    assert record["metrics"]["test"]["raw"]["mae"] == pytest.approx(error, abs=1e-4)
    scaled = record["metrics"]["test"]["standardised"]["mae"] * record["data"]["train_std"]
    assert scaled == pytest.approx(error, abs=1e-4)
    assert [stage["name"] for stage in record["stages"]] == ["encoder", "regressor"]
    assert not any("commit" in stage for stage in record["stages"])  # it is the run's
    assert all(stage["wall_time"] > 0 for stage in record["stages"])  # pages divide by it, however fast a machine is
    assert set(record["run"]) >= {"commit", "clean", "device", "threads", "versions", "started", "wall_time"}
    assert {line.split(",")[1] for line in view.splitlines()[1:]} == {"train", "val", "test"}
    assert len(view.splitlines()) == 121
    unseen = replace(run, on_pages=False)
    assert key(unseen) == record["key"] and carry_out(unseen)[1] is None


@pytest.mark.parametrize(("on_pages", "points"), [(True, 40), (False, 10)])
def test_a_record_keeps_some_points_of_a_learning_curve(monkeypatch, on_pages, points):
    def of_ninety_epochs(*args, **options):
        fitted = fit(*args, **options)
        history = fitted.stages[0].history
        history.train_loss = history.val_loss = [float(epoch) for epoch in range(1, 91)]
        return fitted

    monkeypatch.setattr(experiment, "fit", of_ninety_epochs)
    (run,) = molecule_runs("L1")
    (curve,) = (stage["curve"] for stage in carry_out(replace(run, on_pages=on_pages))[0]["stages"])
    assert len(curve["epoch"]) == points and (curve["epoch"][0], curve["epoch"][-1]) == (1, 90)
    assert curve["train_loss"] == curve["epoch"] and np.ptp(np.diff(curve["epoch"])) <= 1


def test_a_table_needs_no_more_than_an_entry_of_the_catalogue(monkeypatch):
    samples = table(100)
    split = Split(train=np.arange(70), val=np.arange(70, 85), test=np.arange(85, 100))
    dataset = Dataset(samples.inputs, samples.targets, "abc", {"random": lambda seed: split})
    numbers = catalogue.Source(
        "numbers", "Numbers", "table", "rows", "kWh", ("random",), True, "Numbers.", "none", lambda: dataset
    )
    monkeypatch.setitem(catalogue.SOURCES, "numbers", numbers)
    stage = Stage("l1", epochs=3, batch_size=16, learning_rate=0.05, lr_decay_rate=0.1, weight_decay=0.0)
    recipe = Recipe("perceptron", fit=stage, widths=(8,), scaling="standard")
    record, view = carry_out(Run("numbers", "quick", "L1", 0, Selection("numbers", "random"), recipe))
    assert record["data"] | {"train_mean": 0, "train_std": 0} == {
        "checksum": "abc", "synthetic": False, "unit": "kWh", "n_train": 70, "n_val": 15, "n_test": 15,
        "train_mean": 0, "train_std": 0,
    }  # fmt: skip
    assert record["test"]["index"] == list(range(85, 100)) and len(view.splitlines()) == 101
    with pytest.raises(ValueError, match=r"^model: got 'gin' with dataset='numbers'; allowed: one for table"):
        Run("numbers", "quick", "L1", 0, Selection("numbers", "random"), Recipe("gin", fit=stage))


def test_a_record_of_a_large_test_set_keeps_a_part_of_it_and_says_how_errors_lie(monkeypatch):
    samples = table(3000)

    def split(seed):
        order = np.random.default_rng(seed).permutation(3000)
        return Split(train=order[:500], val=order[500:1000], test=np.sort(order[1000:]))

    dataset = Dataset(samples.inputs, samples.targets, "abc", {"random": split})
    entry = catalogue.Source(
        "numbers", "Numbers", "table", "rows", "kWh", ("random",), True, "Numbers.", "none", lambda: dataset, keeps=200
    )
    monkeypatch.setitem(catalogue.SOURCES, "numbers", entry)
    runs = [Run("numbers", "quick", "ridge", seed, Selection("numbers", "random"), Recipe("ridge")) for seed in (0, 1)]
    (one, beside), (other, nothing) = map(carry_out, runs)
    tests = [set(split(seed).test.tolist()) for seed in (0, 1)]
    kept = [set(record["test"]["index"]) for record in (one, other)]
    assert nothing is None and all(
        150 < len(some) < 250 and some < all_ for some, all_ in zip(kept, tests, strict=True)
    )
    # a sample that is in both test sets is kept in both or in neither, so their overlap can be told
    assert kept[0] & tests[1] == kept[1] & tests[0]
    overlap = results.frame([one, other])["overlap"].iloc[0]
    assert overlap == pytest.approx(len(tests[0] & tests[1]) / 2000, abs=0.1)
    # metrics are those of the whole test set
    train, val = (Samples(samples.inputs[i], samples.targets[i]) for i in (split(0).train, split(0).val))
    model = fit(Recipe("ridge"), train, val, seed=0)
    off = np.abs(model.predict(samples.inputs) - samples.targets)[split(0).test]
    assert one["metrics"]["test"]["raw"]["mae"] == pytest.approx(off.mean(), rel=1e-4)
    assert one["data"]["n_test"] == 2000 and one["error_quantiles"]["0.5"] == pytest.approx(np.median(off), rel=1e-3)
    assert list(one["error_quantiles"]) == ["0.05", "0.25", "0.5", "0.75", "0.95"]
    # beside the record of seed 0 are all predictions
    whole = pd.read_csv(io.StringIO(beside))
    assert whole["index"].tolist() == split(0).test.tolist()
    np.testing.assert_allclose((whole["prediction"] - whole["target"]).abs(), off, atol=1e-3)


def test_the_same_run_twice_gives_the_same_record(monkeypatch, tmp_path):
    for run in molecule_runs("L1", "RnC(L2)", "RnC(Huber)+freeze"):
        monkeypatch.setenv("RNC_CACHE", str(tmp_path / "first" / run.label))
        first, _ = carry_out(run)
        monkeypatch.setenv("RNC_CACHE", str(tmp_path / "second" / run.label))
        second, _ = carry_out(run)
        assert without_circumstances(first) == without_circumstances(second)


@pytest.mark.parametrize("epoch", [1, 3, 4, 6])
def test_a_killed_run_ends_with_the_record_of_an_undisturbed_one(monkeypatch, tmp_path, epoch):
    """Killed in the first stage, between the stages, in the second stage, and before the record is written."""
    (run,) = molecule_runs("RnC(L1)")
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0)
    expected, _ = carry_out(run)
    monkeypatch.setenv("RNC_CACHE", str(tmp_path / "killed"))
    done = 0

    def kill(passes: float) -> None:
        nonlocal done
        done += passes
        if done == 3 * epoch:  # forward and backward
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        carry_out(run, on_progress=kill)
    seen = watch_training(monkeypatch)
    resumed, _ = carry_out(run)
    assert without_circumstances(resumed) == without_circumstances(expected)
    assert [one["stage"].loss for one in seen] == (["rnc", "l1"] if epoch <= 3 else ["l1"])


@pytest.mark.parametrize("method", ["L1", "RnC(L1)", "RnC(L1)+freeze", "training mean", "ensemble"])
def test_progress_adds_up_to_the_work_of_a_run(method):
    (run,) = molecule_runs("RnC(L1)" if method == "ensemble" else method)
    run = run.but(ensemble=2) if method == "ensemble" else run
    expected = {"L1": 9, "RnC(L1)": 18, "RnC(L1)+freeze": 9 + 3 * 0.02, "training mean": 0, "ensemble": 36}[method]
    done, again = [], []
    carry_out(run, on_progress=done.append)
    carry_out(run, on_progress=again.append)  # from the cache
    assert sum(done) == pytest.approx(work(run)) == pytest.approx(expected) == pytest.approx(sum(again))


def test_work_counts_views_and_samples():
    (run,) = face_runs("RnC(L1)")
    assert work(run) == 3 * 2 + 1  # two views; features of a frozen encoder anew for each random view
    assert work(run.but(fraction=0.5)) == work(run) / 2


def test_freezing_leaves_the_encoder_as_it_was_and_runs_share_it():
    frozen, tuned, other = molecule_runs("RnC(L1)+freeze", "RnC(L1)", "RnC(L2)+freeze")
    records = {run.method: carry_out(run)[0] for run in (frozen, tuned, other)}
    agreement = {name: record["metrics"]["test"]["standardised"]["rank_agreement"] for name, record in records.items()}
    assert agreement["RnC(L1)+freeze"] == agreement["RnC(L2)+freeze"] != agreement["RnC(L1)"]
    curves = [record["stages"][0] for record in records.values()]
    assert curves[0] == curves[1] == curves[2]


def test_a_stage_names_its_commit_where_it_is_not_that_of_the_run(monkeypatch):
    frozen, tuned = molecule_runs("RnC(L1)+freeze", "RnC(L1)")
    for name, run in (("before", frozen), ("after", tuned)):
        monkeypatch.setattr(results, "commit", lambda name=name: (name, True))
        record, _ = carry_out(run)
    assert record["run"]["commit"] == "after"
    first, second = record["stages"]
    assert first["commit"] == "before" and "commit" not in second


def test_a_gpu_that_is_not_there_stops_a_run_before_it_loads_anything(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    put(monkeypatch, "standin", lambda: pytest.fail("it loaded"))
    with pytest.raises(ValueError, match=r"^device: got 'cuda', but torch finds no GPU; allowed here: "):
        carry_out(molecule_runs("L1")[0], device="cuda")


def test_a_cache_that_cannot_be_written_stops_a_run_before_it_trains(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("RNC_CACHE", str(tmp_path / "file" / "cache"))
    (run,) = molecule_runs("L1")
    with pytest.raises(OSError, match=r"^RNC_CACHE: got .*, which cannot be written .*; allowed: a folder"):
        carry_out(run, on_progress=lambda _: pytest.fail("it trained"))


# --- runs that diverge ----------------------------------------------------------------------------------


def test_a_run_that_diverges_is_recorded_with_the_stages_before():
    (run,) = molecule_runs("RnC(L2)")
    record, view = carry_out(run.but(fit=replace(run.recipe.fit, learning_rate=1e8)))
    assert record["diverged"].startswith("training loss (l2) became ") and view is None
    assert [stage["name"] for stage in record["stages"]] == ["encoder"]
    assert record["metrics"] == {} and record["test"]["prediction"] == []
    assert len(record["test"]["target"]) == record["data"]["n_test"]


@pytest.mark.parametrize("closed_form", [True, False])
def test_features_that_are_not_finite_are_a_run_that_diverged(monkeypatch, closed_form):
    (run,) = molecule_runs("RnC(L1)+freeze")
    run = run.but(fit=None) if closed_form else run

    monkeypatch.setattr(networks, "train", breaks_at_the_end)
    record, _ = carry_out(run)
    expected = "features are not finite" if closed_form else "training loss (l1) became nan in epoch 1"
    assert record["diverged"] == expected and record["metrics"] == {}


@pytest.mark.parametrize(("infinite", "best"), [((1, 2), 3), ((1, 2, 3), 1)])
def test_infinite_validation_losses_are_no_reason_to_lose_a_run(monkeypatch, infinite, best):
    (run,) = molecule_runs("L2")
    epochs = iter((1, 2, 3))

    def overflows(model, inputs):
        prediction = predict(model, inputs)
        return prediction * 1e30 if next(epochs) in infinite else prediction

    monkeypatch.setattr(training, "predict", overflows)
    record, _ = carry_out(run.but(fit=replace(run.recipe.fit, learning_rate=1e-3)))
    (stage,) = record["stages"]
    assert [loss is None for loss in stage["curve"]["val_loss"]] == [epoch in infinite for epoch in (1, 2, 3)]
    assert record["diverged"] is None and stage["best_epoch"] == best
    assert np.isfinite(results.frame([record])["test_mae"]).all()


# --- weights in the cache -------------------------------------------------------------------------------


def test_an_encoder_in_the_cache_that_cannot_be_read_is_trained_again(tmp_path):
    (run,) = molecule_runs("RnC(L1)+freeze")
    expected, _ = carry_out(run)
    (cached,) = (tmp_path / "cache" / "encoders").iterdir()
    (weights,) = (tmp_path / "cache" / "models").iterdir()
    for path in (cached, weights):
        path.write_bytes(b"no weights")
    with pytest.warns(UserWarning, match=r"weights .* cannot be read .* trained again") as caught:
        again, _ = carry_out(run)
    assert len(caught) == 2
    assert without_circumstances(again) == without_circumstances(expected)


def test_what_another_experiment_has_trained_is_not_trained_again(monkeypatch):
    (run,) = molecule_runs("RnC(L1)")
    expected, _ = carry_out(run)
    forbid_training(monkeypatch)
    done = []
    again, _ = carry_out(run.but(experiment="another", method="another name"), on_progress=done.append)
    for part in ("metrics", "stages", "test", "data"):
        assert again[part] == expected[part], part
    assert sum(done) == work(run)
    for other in (
        {"fit": replace(run.recipe.fit, momentum=0.5)}, {"seed": 1}, {"weight_seed": 1}, {"split": "scaffold"},
        {"fraction": 0.5}, {"target": "raw"},
    ):  # fmt: skip
        with pytest.raises(pytest.fail.Exception, match="it trained"):
            carry_out(run.but(**other))


def test_weights_of_the_former_cache_are_not_read(tmp_path):
    """Before there were recipes, weights lay under the digest of a whole configuration."""
    (run,) = molecule_runs("RnC(L1)")

    def name(*fields: str) -> str:
        config = {field: value for field, value in described(run).items() if field in fields}
        where = [torch.__version__, "cpu", torch.get_num_threads()]
        told = [config, molecules().checksum, experiment.PROTOCOL, *where]
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]

    trained = ("dataset", "split", "seed", "model", "pretrain")
    zeros = {key: torch.zeros_like(value) for key, value in GIN().state_dict().items()}
    head = {"weight": torch.zeros(1, 200), "bias": torch.zeros(1)}
    history = {"train_loss": [0.0], "val_loss": [], "best_epoch": 1, "wall_time": 0.0}
    cache = data.cache_dir()
    old = {
        cache / "encoders" / f"{name(*trained)}.pt": {"encoder": zeros, "history": history, "commit": None},
        cache / "models" / f"{name(*trained, 'fit', 'freeze')}.pt": {"encoder": zeros, "head": head, "stages": []},
    }
    for path, state in old.items():
        training.write_state(path, state)
    before = {path: path.read_bytes() for path in old}
    record, _ = carry_out(run)
    assert [stage["epochs"] for stage in record["stages"]] == [3, 3] and record["stages"][0]["curve"]["train_loss"][0]
    assert {path: path.read_bytes() for path in old} == before
    for folder in ("encoders", "models"):  # beside each, a new one
        assert len(list((cache / folder).iterdir())) == 2


def test_synthetic_faces_without_a_correlation_are_those_that_a_plain_run_trains_on():
    (run,) = face_runs("L1")
    plain, untied, tied = (experiment._training_data(run.but(spurious=kind)) for kind in (None, "untied", "tied"))
    assert plain == untied != tied
    (molecule,) = molecule_runs("L1")  # of molecules other samples are taken
    assert len({experiment._training_data(molecule.but(spurious=kind)) for kind in (None, "untied", "tied")}) == 3


# --- fewer samples, corrupted inputs --------------------------------------------------------------------


def test_a_fraction_trains_on_some_of_the_training_samples(monkeypatch):
    (run,) = molecule_runs("RnC(L1)")
    seen = watch_training(monkeypatch)
    whole, _ = carry_out(run)
    part, _ = carry_out(run.but(fraction=0.25))
    n = whole["data"]["n_train"]
    assert [(one["stage"].loss, one["stage"].batch_size, len(one["training"].targets)) for one in seen] == [
        ("rnc", 32, n),
        ("l1", 32, n),
        ("rnc", round(n / 4), round(n / 4)),
        ("l1", round(n / 4), round(n / 4)),
    ]
    assert part["data"]["n_train"] == round(n / 4) and part["data"]["n_pool"] == n and "n_pool" not in whole["data"]
    assert part["test"]["index"] == whole["test"]["index"] and part["config"]["fraction"] == 0.25
    assert part["data"]["train_mean"] != whole["data"]["train_mean"]  # the scaler sees these only
    runs = results.frame([whole, part])
    assert runs["n_pool"].tolist() == [n, n] and runs["fraction"].isna().tolist() == [True, False]


def test_errors_on_corrupted_inputs_are_those_of_the_trained_network(monkeypatch):
    (run,) = molecule_runs("L1")
    plain, _ = carry_out(run)
    forbid_training(monkeypatch)
    monkeypatch.setattr(corruptions, "corrupt_graphs", lambda graphs, kind, severity, seed: graphs)
    clean, _ = carry_out(run.but(corruptions=True))
    assert clean["metrics"] == plain["metrics"] and clean["test"] == plain["test"] and "corrupted" not in plain
    mae = plain["metrics"]["test"]["raw"]["mae"]
    assert set(clean["corrupted"]) == set(corruptions.MOLECULE_CORRUPTIONS)
    for errors in clean["corrupted"].values():
        assert errors == pytest.approx([mae] * 5, rel=1e-4)


def test_corrupted_faces_are_those_that_the_network_sees(monkeypatch, small_faces):
    (run,) = face_runs("L1")
    monkeypatch.setattr(corruptions, "corrupt_images", lambda pixels, kind, severity, seed: pixels)
    record, _ = carry_out(run.but(corruptions=True))
    assert set(record["corrupted"]) == set(corruptions.IMAGE_CORRUPTIONS)
    for errors in record["corrupted"].values():
        assert errors == pytest.approx([record["metrics"]["test"]["raw"]["mae"]] * 5, rel=1e-4)


def test_new_people_are_those_of_the_next_set_of_faces(small_faces):
    (run,) = face_runs("L1", data_seed=3)
    record, _ = carry_out(run.but(new_people=True))
    found = record["new_people"]
    assert found["data_seed"] == 4 and found["n_test"] == record["data"]["n_test"]
    # the training mean says the same of anybody: its error is known without a network
    (mean,) = face_runs("training mean", data_seed=3)
    record, _ = carry_out(mean.but(new_people=True))
    others = catalogue.load("synthetic", **(mean.data.options | {"data_seed": 4}))
    off = others.targets[others.splits["standard"](0).test] - record["data"]["train_mean"]
    assert record["new_people"]["mae"] == pytest.approx(np.abs(off).mean(), rel=1e-5)
    assert record["new_people"]["rmse"] == pytest.approx(np.sqrt((off**2).mean()), rel=1e-5)
    (molecule,) = molecule_runs("L1")
    with pytest.raises(ValueError, match=r"^new_people: got True with dataset='standin'; allowed: None; True for"):
        molecule.but(new_people=True)


def test_where_all_labels_are_wrong_no_training_sample_keeps_its_own():
    (run,) = molecule_runs("training mean")
    every, none = (experiment._select(run.but(wrong_targets=fraction)) for fraction in (1.0, None))
    for part in ("train", "val"):
        index = getattr(every.split, part)
        assert not np.isclose(every.dataset.targets[index], none.dataset.targets[index]).mean() > 0.1
        assert sorted(every.dataset.targets[index]) == sorted(none.dataset.targets[index])
    test = every.split.test
    assert (every.dataset.targets[test] == none.dataset.targets[test]).all()


# --- regressors and projection heads --------------------------------------------------------------------


def test_a_closed_form_regressor_takes_no_training_and_has_a_loss_gap():
    (run,) = molecule_runs("RnC(L1)+freeze")
    run = run.but(fit=None)
    record, _ = carry_out(run)
    assert [stage["name"] for stage in record["stages"]] == ["encoder"] and "fit" not in record["config"]
    assert not results.frame([record])["baseline"].any()
    again, _ = carry_out(run)  # from the cache
    assert without_circumstances(again) == without_circumstances(record)

    (cached,) = (data.cache_dir() / "encoders").iterdir()
    encoder = GIN()
    encoder.load_state_dict(torch.load(cached, weights_only=True)["encoder"])
    test = record["test"]["index"]
    features = predict(encoder, molecules().inputs, np.array(test))
    gap = record["metrics"]["test"]["standardised"]["rnc_gap"]
    scaled = torch.tensor(molecules().targets[test] / record["data"]["train_std"]).float()
    expected = rnc_loss(features, scaled).item() - rnc_lower_bound(scaled)
    assert gap == pytest.approx(expected, rel=1e-3) and gap > 0
    for other in (run.but(projection=7), molecule_runs("RnC(L1)+freeze")[0]):  # another loss has seen these
        assert "rnc_gap" not in carry_out(other)[0]["metrics"]["test"]["standardised"]


def test_a_projection_head_is_trained_with_the_encoder_and_left_out(monkeypatch):
    (run,) = molecule_runs("RnC(L1)+freeze")
    run = run.but(fit=None)
    seen = watch_training(monkeypatch)
    record, _ = carry_out(run.but(projection=7))
    without, _ = carry_out(run)
    assert seen[0]["model"][-1].out_features == 7 and isinstance(seen[1]["model"], GIN)
    assert record["metrics"]["test"] != without["metrics"]["test"] and record["config"]["projection"] == 7


def test_a_refitted_regressor_sits_on_the_same_encoder(monkeypatch):
    (run,) = molecule_runs("L1")
    plain, _ = carry_out(run)
    forbid_training(monkeypatch)
    refitted, _ = carry_out(run.but(head="ridge"))
    assert refitted["config"]["refit"] is True and refitted["stages"] == plain["stages"]
    assert refitted["test"]["prediction"] != plain["test"]["prediction"]
    order = [record["metrics"]["test"]["standardised"]["rank_agreement"] for record in (plain, refitted)]
    assert order[0] == order[1]


def test_unit_features_change_the_contrastive_stage():
    (run,) = molecule_runs("RnC(L1)+freeze")
    unit = run.but(pretrain=replace(run.recipe.pretrain, unit_features=True))
    assert key(unit) != key(run) and carry_out(unit)[0]["metrics"] != carry_out(run)[0]["metrics"]


# --- training unlike the test ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", SEEN)
def test_a_run_with_unseen_ranges_sees_no_target_in_them(monkeypatch, kind):
    (run,) = molecule_runs("RnC(L1)+freeze")
    seen = watch_training(monkeypatch)
    record, view = carry_out(run.but(holes=kind))
    sets = [one[name] for one in seen for name in ("training", "validation") if one[name] is not None]
    found = record["data"]
    assert len(sets) == 3 and view is None  # two training sets and a validation set
    for samples in sets:
        values = samples.targets.double().numpy() * found["train_std"] + found["train_mean"]
        inside = [(values >= low - 1e-3) & (values <= high + 1e-3) for low, high in found["seen"]]
        assert np.any(inside, axis=0).all()
    assert found["n_train"] == len(sets[0].targets) < found["n_pool"]
    whole, _ = carry_out(run)
    assert record["test"]["index"] == whole["test"]["index"]
    target = np.array(record["test"]["target"])
    outside = ~np.any([(target >= low) & (target <= high) for low, high in found["seen"]], axis=0)
    assert outside.any()


def test_a_run_with_label_noise_is_tested_with_right_targets():
    (run,) = molecule_runs("L1")
    record, _ = carry_out(run.but(wrong_targets=0.4))
    whole, _ = carry_out(run)
    assert record["test"]["target"] == whole["test"]["target"]
    assert record["test"]["prediction"] != whole["test"]["prediction"]
    assert record["data"]["train_mean"] == pytest.approx(whole["data"]["train_mean"])
    assert record["metrics"]["val"]["raw"] != whole["metrics"]["val"]["raw"]


def test_a_run_with_a_spurious_correlation_is_tested_where_it_is_gone():
    (run,) = molecule_runs("RnC(L1)+freeze")
    tied, untied = (carry_out(run.but(spurious=kind)) for kind in ("tied", "untied"))
    assert tied[0]["test"]["index"] == untied[0]["test"]["index"]
    assert tied[0]["test"]["nuisance"] == untied[0]["test"]["nuisance"]
    assert tied[0]["data"]["n_train"] == untied[0]["data"]["n_train"] < tied[0]["data"]["n_pool"]
    assert tied[0]["test"]["prediction"] != untied[0]["test"]["prediction"]
    assert all("nuisance_agreement" in one["metrics"]["test"]["standardised"] for one, _ in (tied, untied))
    has = molecules().nuisance[tied[0]["test"]["index"]] > 0
    suggested = np.array(tied[0]["test"]["nuisance"])
    assert len(set(suggested)) == 2 and suggested[has].min() > suggested[~has].max()  # with it, more soluble
    view = pd.read_csv(io.StringIO(tied[1])).set_index("index")
    assert len(view) == sum(tied[0]["data"][f"n_{part}"] for part in ("train", "val", "test"))
    np.testing.assert_allclose(view["nuisance"][tied[0]["test"]["index"]], suggested, atol=1e-3)
    assert untied[1] is None


def test_synthetic_faces_with_a_spurious_correlation_are_other_pictures(tmp_path, monkeypatch):
    (run,) = face_runs("training mean")
    tied, untied = run.but(spurious="tied"), run.but(spurious="untied")
    assert tied.data.options == run.data.options | {"correlated": True} and untied.data.options == run.data.options
    assert experiment._checksum(tied) == synthetic.recipe(120, 16, correlated=True)
    records = [carry_out(one)[0] for one in (tied, untied)]
    assert records[0]["test"]["index"] == records[1]["test"]["index"]
    assert max(records[0]["test"]["nuisance"]) <= synthetic.OLDEST  # tested where the hue stands for an age
    assert records[0]["data"]["n_test"] < records[0]["data"]["n_test_pool"]


# --- faces ----------------------------------------------------------------------------------------------


@pytest.mark.gpu
@pytest.mark.parametrize("precision", [None, "bf16-mixed"])
def test_faces_are_trained_on_a_gpu_as_on_a_cpu(precision, small_faces):
    room = small_faces.inputs.pixels.nbytes
    batch = np.arange(10)
    resident, streamed = small_faces.inputs.to("cuda", room), small_faces.inputs.to("cuda", room - 1)
    assert resident.pixels.is_cuda and not streamed.pixels.is_cuda
    assert torch.equal(resident[batch], streamed[batch]) and resident[batch].is_cuda
    torch.testing.assert_close(resident[batch].cpu(), small_faces.inputs[batch])
    for run in face_runs("L1", "RnC(L1)", precision=precision):
        there, here = (carry_out(run, device=device)[0] for device in ("cuda", "cpu"))
        assert there["metrics"]["test"]["raw"]["mae"] == pytest.approx(here["metrics"]["test"]["raw"]["mae"], rel=0.02)


@pytest.mark.parametrize("value", [-1, "x", 1.5])
def test_a_data_seed_is_a_whole_number(value):
    with pytest.raises(ValueError, match=rf"^data_seed: got {value!r}; allowed: "):
        Selection("synthetic", "standard", size=16, n_samples=120, data_seed=value)
