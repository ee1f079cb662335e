"""The chapters' grids: which runs, what each changes, under which names, and what chapters compute from their runs."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from rnclib import chapters, protocols, results
from rnclib.chapters import ablations, agedb, data_efficiency, esol, experiments, methods, robustness
from rnclib.chapters.base import Scope
from rnclib.chapters.claims import PRIMARY
from rnclib.claims import SPURIOUS
from rnclib.experiment import Run, Selection, described, key
from rnclib.protocols.search import METHODS, SEARCHES, TUNED, method_of
from rnclib.recipe import PEERS

PROFILES = ("paper", "quick", "smoke")


def runs(experiment: str, dataset: str, profile: str = "paper", **options: Any) -> list[Run]:
    return experiments()[experiment].runs(dataset=dataset, profile=profile, **options)


def every_grid() -> dict[tuple[str, str, str], list[Run]]:
    """The runs of each experiment, data set and profile."""
    found = {}
    for name, experiment in experiments().items():
        for dataset in experiment.datasets:
            for profile in PROFILES:
                options = {"tuned": {}} if name == "methods" and dataset not in TUNED else {}
                found[name, dataset, profile] = runs(name, dataset, profile, **options)
    return found


GRIDS = every_grid()


# --- all chapters ---------------------------------------------------------------------------------------


def test_every_chapter_is_known_by_its_name():
    for name in chapters.NAMES:
        assert chapters.chapter(name).name == name
    with pytest.raises(ValueError, match=r"^name: got 'esl'; allowed: 'loss', 'esol', "):
        chapters.chapter("esl")
    names = [experiment.name for name in chapters.NAMES for experiment in chapters.chapter(name).experiments]
    assert list(experiments()) == names and len(set(names)) == len(names)


def test_tables_and_figures_have_names_of_their_own():
    names = [name for one in chapters.NAMES for name in (*chapters.chapter(one).tables, *chapters.chapter(one).figures)]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(("experiment", "dataset", "profile"), GRIDS)
def test_runs_are_of_what_was_asked_for_and_no_two_are_the_same(experiment, dataset, profile):
    grid = GRIDS[experiment, dataset, profile]
    assert grid and {(run.experiment, run.data.dataset, run.profile) for run in grid} == {
        (experiment, dataset, profile)
    }
    described_once = [repr(sorted(described(run).items())) for run in grid]
    assert len(set(described_once)) == len(grid)


# labels of trials, and of arms whose settings a search found, name a loss that differs from profile to profile
SEARCHED = ("tuning", "tasks", "concrete")
NAMED = [(name, dataset) for name, one in experiments().items() for dataset in one.datasets if name not in SEARCHED]


@pytest.mark.parametrize(("experiment", "dataset"), NAMED)
def test_a_name_in_records_and_a_label_on_pages_are_one_to_one(experiment, dataset):
    grid = [run for profile in PROFILES for run in GRIDS[experiment, dataset, profile]]
    pairs = {(run.method, run.label) for run in grid}
    assert max(Counter(method for method, _ in pairs).values()) == 1
    assert max(Counter(label for _, label in pairs).values()) == 1


@pytest.mark.parametrize("dataset", experiments()["tuning"].datasets)
def test_trials_of_a_search_say_which_they_are(dataset):
    for profile in PROFILES:
        runs = GRIDS["tuning", dataset, profile]
        n_trials = len(runs) // len(METHODS)
        assert [method_of(run.recipe) for run in runs] == [method for method in METHODS for _ in range(n_trials)]
        for number, run in enumerate(runs):
            assert run.method == f"{method_of(run.recipe)}, trial {number % n_trials}"
            assert run.label.endswith(f", trial {number % n_trials}")
        assert len({run.label for run in runs}) == len(runs)


# the published rates, by kind of inputs and loss: end to end, and of the regressor on an encoder
RATES = {
    "molecules": {"l1": (0.01, 0.001), "l2": (0.01, 0.001), "huber": (0.01, 0.001)},
    "images": {"l1": (0.2, 0.05), "l2": (0.005, 0.01), "huber": (0.05, 0.05)},
}


@pytest.mark.parametrize(("experiment", "dataset", "profile"), GRIDS)
def test_a_label_names_the_rate_exactly_where_it_is_not_the_published_one(experiment, dataset, profile):
    for run in GRIDS[experiment, dataset, profile]:
        recipe = run.recipe
        searched = experiment in ("tuning", "concrete") or "tuned" in recipe.notable
        if recipe.fit is None or searched:
            assert "fit.learning_rate" not in recipe.notable and ", lr " not in run.label
            continue
        published = RATES[run.data.source.kind][recipe.fit.loss][recipe.pretrain is not None]
        differs = recipe.fit.learning_rate != published
        assert ("fit.learning_rate" in recipe.notable) == differs, run.label
        assert (f", lr {recipe.fit.learning_rate:g}" in run.label) == differs


@pytest.mark.parametrize(("experiment", "dataset", "profile"), GRIDS)
def test_a_label_says_whether_the_encoder_is_trained_end_to_end_frozen_or_fine_tuned(experiment, dataset, profile):
    for run in GRIDS[experiment, dataset, profile]:
        recipe = run.recipe
        if recipe.fit is None and recipe.pretrain is None:
            assert run.label.startswith(PEERS.get(recipe.model, recipe.model))
            continue
        how = "end to end" if recipe.pretrain is None else "frozen" if recipe.freeze else "fine-tuned"
        assert [word for word in ("end to end", "frozen", "fine-tuned") if word in run.label] == [how]


@pytest.mark.parametrize("experiment", experiments())
def test_every_grid_names_what_it_refuses(experiment):
    dataset = experiments()[experiment].datasets[0]
    profiles = ", ".join(map(repr, results.PROFILES))
    datasets = ", ".join(map(repr, experiments()[experiment].datasets))
    for options, message in (
        ({"profile": "papr"}, f"profile: got 'papr'; allowed: {profiles}"),
        ({"dataset": "mnist"}, f"dataset: got 'mnist'; allowed: {datasets}"),
        ({"n_seeds": 0}, "n_seeds: got 0; allowed: an integer of at least 1, or None for the profile's"),
        ({"n_seeds": True}, "n_seeds: got True; allowed: an integer of at least 1, or None for the profile's"),
        ({"n_seeds": "3"}, "n_seeds: got '3'; allowed: an integer of at least 1, or None for the profile's"),
        ({"colour": "red"}, "colour: got 'red', which is no option of any runs; allowed: "),
    ):
        if "n_seeds" in options and not experiments()[experiment].seeded:
            message = f"n_seeds: got {options['n_seeds']!r}, which is no option of these runs; allowed: "
        with pytest.raises(ValueError, match=rf"^{re.escape(message)}"):
            runs(experiment, **({"dataset": dataset, "profile": "smoke"} | options))


@pytest.mark.parametrize(
    ("experiment", "options", "message"),
    [
        ("esol", {"split": "size"}, "split: got 'size'; allowed: 'random', 'scaffold'"),
        ("esol", {"loss": "l3"}, "loss: got 'l3'; allowed: 'all', 'l1', 'l2', 'huber'"),
        ("esol", {"preset": "paper"}, "preset: got 'paper', which is no option of these runs; allowed: n_seeds, split"),
        ("ablations", {"choice": "colour"}, "choice: got 'colour'; allowed: 'all', 'temperature', "),
        ("methods", {"tuned": {"Huber": 1}}, "tuned: got {'Huber': 1}; allowed: trials from 0 to 14 of 'L1', "),
        ("methods", {"tuned": {"L1": -1}}, "tuned: got {'L1': -1}; allowed: trials from 0 to 14 of 'L1', "),
    ],
)
def test_options_of_a_grid_are_checked(experiment, options, message):
    with pytest.raises(ValueError, match=rf"^{re.escape(message)}"):
        runs(experiment, "esol", **options)


@pytest.mark.parametrize(("experiment", "dataset"), NAMED)
@pytest.mark.parametrize("profile", PROFILES)
def test_the_number_of_seeds_can_be_chosen(experiment, dataset, profile):
    options = {"tuned": {}} if experiment == "methods" else {}
    two, one = (runs(experiment, dataset, profile, n_seeds=n, **options) for n in (2, 1))
    first = 1 if experiment == "face_sets" else 0  # set 0 is the one that settings were searched on
    assert {run.seed for run in one} == {first} and {run.seed for run in two} == {first, first + 1}
    assert len(two) == 2 * len(one) and [run for run in two if run.seed == first] == one


def test_claims_are_about_runs_that_there_are():
    for claim in chapters.all_claims():
        planned = chapters.planned(claim, "paper")
        assert set(planned.values()) == {claim.method, claim.baseline}, claim
        grid = GRIDS[claim.experiment, claim.dataset, "paper"]
        if claim.n_seeds is not None:
            grid = runs(claim.experiment, claim.dataset, "paper", n_seeds=claim.n_seeds)
        assert set(planned) <= {key(run) for run in grid}


# --- ESOL -----------------------------------------------------------------------------------------------


def test_the_grid_of_molecules_has_the_published_methods():
    grid = {run.method: run for run in runs("esol", "esol", split="random", n_seeds=1)}
    assert {name: run.recipe for name, run in grid.items()} == protocols.molecules("paper")
    assert set(esol.PUBLISHED.index) < {run.label for run in grid.values()}
    assert [run.method for run in grid.values() if run.recipe.freeze] == [
        "RnC(L1)+freeze", "RnC(L2)+freeze", "RnC(Huber)+freeze",
    ]  # fmt: skip


@pytest.mark.parametrize("loss", ["l1", "l2", "huber"])
def test_a_loss_selects_end_to_end_frozen_and_fine_tuned(loss):
    grid = runs("esol", "esol", "quick", split="random", loss=loss, n_seeds=1)
    assert {run.recipe.fit.loss for run in grid} == {loss}
    assert {(run.recipe.pretrain is not None, run.recipe.freeze) for run in grid} == {
        (False, False), (True, False), (True, True),
    }  # fmt: skip


def test_the_stand_in_has_no_row_for_the_equation_that_made_it():
    names = {run.method for run in runs("esol", "standin", "quick", split="random")}
    assert "Delaney's equation" not in names and "extra trees" in names
    assert "Delaney's equation" in {run.method for run in runs("esol", "esol", "quick", split="random")}


def test_methods_that_are_published_have_more_splits():
    counts = Counter((run.data.split, run.method) for run in GRIDS["esol", "esol", "paper"])
    assert counts["random", "L1"] == counts["random", "RnC(L2)"] == 20 and counts["random", "Huber"] == 10
    assert counts["scaffold", "L1"] == 10 and counts["scaffold", "L1 (lr 0.001)"] == 0
    assert runs("esol", "esol", split="scaffold") == [
        r for r in GRIDS["esol", "esol", "paper"] if r.data.split == "scaffold"
    ]


# --- faces ----------------------------------------------------------------------------------------------


def test_the_grid_of_photographs_has_the_published_methods():
    grid = {run.method: run for run in runs("agedb", "agedb", data_dir="somewhere")}
    labels = {run.label for run in grid.values()}
    assert set(agedb.PUBLISHED.index) == labels - {"training mean"} and len(grid) == 7
    for name, run in grid.items():
        assert run.recipe == protocols.faces("agedb", "paper")[name]
        assert run.data == Selection("agedb", "standard", size=224) and run.data.data_dir == "somewhere"
    course = {run.method: run.recipe for run in runs("agedb", "agedb", preset="course")}
    assert course == {name: protocols.faces("agedb", "paper", preset="course")[name] for name in grid}
    resnet50 = runs("agedb", "agedb", model="resnet50", precision="bf16-mixed")
    assert {run.recipe.model for run in resnet50} == {"resnet50", "training mean"}
    assert {run.recipe.precision for run in resnet50} == {"bf16-mixed"}


def test_synthetic_faces_have_end_to_end_l1_at_a_second_rate():
    photographs = {run.method: run for run in runs("agedb", "agedb")}
    drawn = {run.method: run for run in runs("agedb", "synthetic", n_seeds=1)}
    (slower,) = set(drawn) - set(photographs)
    assert drawn[slower].label == protocols.end_to_end("synthetic")
    rate = replace(drawn[slower].recipe.fit, learning_rate=0.2)
    assert drawn[slower].but(method="L1", fit=rate) == drawn["L1"]
    assert slower == f"L1 (lr {drawn[slower].recipe.fit.learning_rate:g})"
    assert slower not in {run.method for run in runs("agedb", "synthetic", loss="huber")}


def test_photographs_made_with_other_settings_are_not_put_beside_the_published_ones():
    def made(checksum="a", **options):
        grid = runs("agedb", "agedb", data_dir="x", loss="l1", **options)
        return [{"method": run.method, "config": described(run), "data": {"checksum": checksum}} for run in grid]

    def without_labels(records):
        return [{name: value for name, value in record.items() if name != "label"} for record in records]

    ours = made(n_seeds=2) + made(n_seeds=1, precision="bf16-mixed")
    others = made(preset="course") + made(model="resnet50") + made("b", exclude=["1_A_2_m.jpg"])
    found = agedb.of_protocol(others[:4] + ours + others[4:])
    assert without_labels(found) == ours
    labels = {"L1": "L1 end to end", "RnC(L1)": "RnC frozen, L1"}
    assert [record["label"] for record in found] == [labels[record["method"]] for record in ours]
    assert without_labels(agedb.of_protocol(others, preset="course")) == others[:2]
    assert agedb.of_protocol(others[:4]) == []


def test_the_order_of_photographs_left_out_does_not_matter():
    one, other = (
        runs("agedb", "agedb", data_dir="x", exclude=names)[0]
        for names in (["b.jpg", "a.jpg"], ["a.jpg", "b.jpg", "a.jpg"])
    )
    assert one == other and one.data.exclude == ("a.jpg", "b.jpg")


# --- less data ------------------------------------------------------------------------------------------


def test_steps_are_counted_as_training_takes_them():
    sizes = {0.05: 45, 0.1: 90, 0.2: 180, 0.4: 361, 0.7: 631, 1.0: 902}
    steps = data_efficiency.steps(runs("data_efficiency", "esol", n_seeds=1), sizes).set_index(["Method", "Stage"])
    assert list(steps.columns) == ["5%", "10%", "20%", "40%", "70%", "100%"]
    assert steps.loc[("RnC fine-tuned, L1", "encoder")].tolist() == [800 * k for k in (1, 1, 1, 1, 2, 3)]
    assert steps.loc[("L1 end to end, lr 0.001", "end to end")].tolist() == [800 * k for k in (1, 1, 2, 3, 5, 8)]
    assert steps.loc[("RnC frozen, L1", "regressor")].tolist() == [300 * k for k in (1, 1, 2, 3, 5, 8)]
    assert ("RnC frozen, closed form", "regressor") not in steps.index


@pytest.mark.parametrize(("dataset", "n_seeds"), [("esol", 22), ("synthetic", 5)])
def test_every_method_has_every_fraction(dataset, n_seeds):
    grid = GRIDS["data_efficiency", dataset, "paper"]
    assert {run.data.fraction for run in grid} == {0.05, 0.1, 0.2, 0.4, 0.7, None}
    names = {run.method for run in grid}
    assert len(grid) == 6 * len(names) * n_seeds
    assert protocols.end_to_end(dataset) in {run.label for run in grid}


def test_fractions_in_words_say_the_same_as_the_list_of_them():
    every = [0.05, 0.1, 0.2, 0.4, 1.0]
    expected = {
        (0, 1, 2, 3, 4): "at every fraction", (0,): "at 5%", (4,): "at 100%", (0, 1): "up to 10%",
        (2, 3, 4): "from 20% on", (1, 2, 3): "from 10% to 40%", (0, 4): "at 5% and 100%",
        (0, 2, 3): "at 5%, 20% and 40%", (1, 3, 4): "at 10%, 40% and 100%",
    }  # fmt: skip
    for these, words in expected.items():
        assert data_efficiency.in_words([every[i] for i in these], every) == words
    assert data_efficiency.in_words([1.0], [1.0]) == "at every fraction"


def test_methods_are_compared_with_the_same_kind_of_regressor():
    assert data_efficiency.pairs(GRIDS["data_efficiency", "esol", "paper"]) == [
        ("RnC frozen, L1", "L1 end to end, lr 0.001"),
        ("RnC fine-tuned, L1", "L1 end to end, lr 0.001"),
        ("RnC frozen, closed form", "L1 end to end, closed form, lr 0.001"),
    ]
    faces = data_efficiency.pairs(GRIDS["data_efficiency", "synthetic", "paper"])
    assert faces[0] == ("RnC frozen, L1", "L1 end to end")  # as published
    assert ("RnC frozen, closed form, tuned", "L1 end to end, closed form, lr 0.01") in faces
    labels = {run.label for run in GRIDS["data_efficiency", "synthetic", "paper"]}
    assert {label for pair in faces for label in pair} <= labels


# --- robustness -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dataset", ["esol", "synthetic"])
def test_robustness_is_tested_with_the_methods_of_the_other_chapters(dataset):
    grid, disturbed = (GRIDS[name, dataset, "paper"] for name in ("data_efficiency", "robustness"))
    seeds = {run.seed for run in grid} & {run.seed for run in disturbed if run.corruptions}
    chapter = [run for run in grid if run.data.fraction is None and run.recipe.head is None and run.seed in seeds]
    if dataset == "synthetic":
        labels = (protocols.end_to_end(dataset), "RnC frozen, L1")
        chapter = [run for run in chapter if run.label in labels]
    size = 64 if dataset == "synthetic" else None  # half of it where many runs are made
    assert {run.data.size for run in chapter} == {32 if size else None}
    whole = [run.but(experiment="robustness", corruptions=True, size=size) for run in chapter]
    assert set(map(key, whole)) == {key(run) for run in disturbed if run.corruptions and run.seed in seeds}
    changed_training = ("holes", "wrong_targets", "spurious")
    plain = {
        run.but(corruptions=None) for run in disturbed if not any(getattr(run.data, name) for name in changed_training)
    }
    for shift in robustness.SHIFTS["molecules" if dataset == "esol" else "images"]:
        changed = [run for run in disturbed if run.data.split == shift]
        # each has a run on samples alike, of the same size
        alike = [run.but(split="random" if dataset == "esol" else "standard") for run in changed]
        assert changed and set(alike) <= plain


def test_photographs_have_no_spurious_correlation():
    kinds = {
        dataset: {run.data.spurious for run in GRIDS["robustness", dataset, "paper"]}
        for dataset in experiments()["robustness"].datasets
    }
    assert kinds == {
        "esol": {None, "tied", "untied"}, "standin": {None, "tied", "untied"}, "agedb": {None},
        "synthetic": {None},  # of these the face sets have it
    }  # fmt: skip


def test_the_four_kinds_of_molecules_are_those_that_the_runs_are_trained_and_tested_on():
    from rnclib.chapters.robustness import four_kinds
    from rnclib.data import catalogue, shifts

    kinds = four_kinds("standin")
    data = catalogue.load("standin")
    split = data.splits["random"](0)
    chosen = shifts.spurious_split(split, data.targets, data.nuisance > 0, 0, correlated=True)
    assert kinds.sum().to_dict() == {"before": len(split.train), "train": len(chosen.train), "test": len(chosen.test)}
    assert kinds["test"].nunique() == 1
    agreeing = [high == has for high, has in kinds.index]
    assert (kinds["train"] == kinds["before"])[agreeing].all()
    against = kinds[np.logical_not(agreeing)]
    assert against["train"].sum() == round(shifts.AGAINST * against["before"].sum())


@pytest.mark.parametrize(("experiment", "dataset"), [("robustness", "esol"), ("face_sets", "synthetic")])
def test_under_a_spurious_correlation_methods_are_those_of_the_primary_comparison(experiment, dataset):
    (claim,) = (claim for claim in PRIMARY if claim.text == SPURIOUS and claim.dataset == dataset)
    correlated = [run for run in GRIDS[experiment, dataset, "paper"] if run.data.spurious]
    assert {run.label for run in correlated} == {claim.method, claim.baseline}
    assert {run.data.spurious for run in correlated} == {"tied", "untied"}


# --- ablations ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dataset", "profile"), [("esol", "paper"), ("synthetic", "paper"), ("synthetic", "quick")])
def test_an_ablation_changes_one_choice_of_the_protocol(dataset, profile):
    grid = {run.method: run for run in runs("ablations", dataset, profile, choice="all", n_seeds=1)}
    choices = ablations.choices_in(list(grid.values()))
    assert len(runs("ablations", dataset, profile, choice="all", n_seeds=5)) == 5 * len(grid)
    for choice in choices:
        part = runs("ablations", dataset, profile, choice=choice, n_seeds=1)
        assert part == [run for name, run in grid.items() if name == "protocol" or name.startswith(f"{choice}: ")]
        assert len(part) > 1 and set(ablations.choices_in(part)) == {choice}
    by_default = [run.method for run in runs("ablations", dataset, profile, n_seeds=1)]
    short_faces = dataset == "synthetic" and profile != "paper"
    assert by_default == (["protocol", "views: 1"] if short_faces else list(grid))
    protocol = grid.pop("protocol")
    assert protocol.recipe.fit is None and protocol.recipe.freeze and protocol.label == ablations.PROTOCOL
    for name, run in grid.items():
        choice, _, value = name.partition(": ")
        recipe = run.recipe
        assert run.data == protocol.data and run.seed == protocol.seed
        if value == "L1, trained jointly":
            assert recipe.pretrain is None and recipe.fit.loss == "l1"
            assert (recipe.fit.regulariser, recipe.fit.regulariser_weight) == ("rnc", 1.0)
            continue
        if choice == "regressor":
            assert recipe.pretrain == protocol.recipe.pretrain and recipe.fit is not None
            continue
        assert f"{value} (protocol)" not in choices[choice] and choices[choice][value] == run.label
        stages = vars(recipe.pretrain), vars(protocol.recipe.pretrain)
        changed = {field for field, setting in stages[0].items() if setting != stages[1][field]}
        parts = vars(recipe), vars(protocol.recipe)
        others = {field for field in parts[0] if parts[0][field] != parts[1][field]}
        assert others <= {"pretrain", "projection", "notable"}
        assert changed | (others & {"projection"}) == set(ablations.CHOICES[choice][value])
    shorter = grid["length: 0.125 of the epochs"].recipe.pretrain
    assert shorter.epochs == round(0.125 * protocol.recipe.pretrain.epochs)
    assert ("views" in choices) == (dataset == "synthetic")


@pytest.mark.parametrize("dataset", ["esol", "synthetic"])
def test_the_choices_of_runs_have_the_protocol_first_and_the_label_of_each_value(dataset):
    grid = runs("ablations", dataset, n_seeds=1)
    choices = ablations.choices_in(grid)
    assert list(choices) == [name for name in (*ablations.CHOICES, "regressor") if name != "views" or dataset != "esol"]
    labels = {run.method: run.label for run in grid}
    for choice, values in choices.items():
        (first, label), *others = values.items()
        assert first.endswith(" (protocol)") and label == labels["protocol"] == ablations.PROTOCOL
        assert dict(others) == {
            name.removeprefix(f"{choice}: "): said for name, said in labels.items() if name.startswith(f"{choice}: ")
        }
        for value, said in others:
            assert ablations.label_of(dataset, choice, value) == said
    own = {choice: next(iter(values)).removesuffix(" (protocol)") for choice, values in choices.items()}
    views = {"views": "2"} if dataset == "synthetic" else {}
    assert own == {
        "temperature": "2", "similarity": "negative L2", "batch size": "256", "length": "all epochs",
        "projection head": "none", "regressor": "closed form",
    } | views  # fmt: skip


def test_changes_are_compared_with_the_protocol_on_the_same_splits():
    grid = runs("ablations", "esol", choice="length", n_seeds=2)
    shift = {"0.125 of the epochs": (0.3, -0.2), "0.25 of the epochs": (-0.1, 0.1), "0.5 of the epochs": (0.1, 0.0)}
    rows = []
    for run in grid:
        error, order = shift.get(run.method.removeprefix("length: "), (0.0, 0.0))
        measured = {"test_mae": 0.5 + error * run.seed, "test_rank_agreement": 0.5 + order}
        rows.append({"method": run.label, "seed": run.seed, "split": "random"} | measured)
    frame = pd.DataFrame(rows).assign(n_pool=900, n_test_pool=100, overlap=np.nan, one_data_set=True)
    changes = ablations.changes(grid, frame).set_index("value")
    assert list(changes.index) == list(shift) and set(changes["choice"]) == {"length"} and set(changes["n"]) == {2}
    assert changes["label"].tolist() == [f"{ablations.PROTOCOL}, {value}" for value in shift]
    assert np.allclose(changes["error"], [0.15, -0.05, 0.05]) and np.allclose(changes["order"], [-0.2, 0.1, 0.0])
    counts = changes[["higher", "lower", "less", "more"]].to_numpy().tolist()
    assert counts == [[1, 0, 2, 0], [0, 1, 0, 2], [1, 0, 0, 0]]


def test_molecules_have_no_views_to_compare():
    assert runs("ablations", "esol", choice="views") == []


# --- other methods --------------------------------------------------------------------------------------


def test_the_search_has_as_many_trials_for_every_method():
    grid = GRIDS["tuning", "esol", "paper"]
    counts = pd.Series([run.method.partition(", ")[0] for run in grid]).value_counts()
    assert counts.to_dict() == dict.fromkeys(METHODS, 15) and len(set(map(key, grid))) == len(grid)
    assert {run.seed for run in grid} == {0}
    for run in GRIDS["tuning", "standin", "quick"]:  # a shorter search has the first trials of the longer one
        whole = next(one for one in grid if one.method == run.method)
        stages = [one.recipe.pretrain or one.recipe.fit for one in (run, whole)]
        assert replace(stages[0], epochs=1) == replace(stages[1], epochs=1)
    for run in [*grid, *GRIDS["tuning", "synthetic", "paper"]]:
        method, _, number = run.method.partition(", trial ")
        stage = run.recipe.pretrain or run.recipe.fit
        for field, value in SEARCHES[run.data.source.kind][method].trials()[int(number)].items():
            assert getattr(stage, field) == value
    drawn = [run.recipe.pretrain.temperature for run in grid if run.method.startswith("RnC, trial")]
    assert len(set(drawn)) == 15


def searched(grid: list[Run], errors: dict[str, list[float | None]]) -> list[dict[str, Any]]:
    """Records of a search with these validation errors, None where a trial diverged; the test set has no say."""
    records = []
    for run in grid:
        method, _, number = run.method.partition(", trial ")
        error = errors[method][int(number)]
        found = {"val": {"raw": {"mae": error}}, "test": {"raw": {"mae": -error}}} if error is not None else {}
        records.append({"key": key(run), "method": run.method, "metrics": found})
    return records


def test_the_best_trial_has_the_lowest_validation_error_and_its_test_set_has_no_say():
    grid = GRIDS["tuning", "synthetic", "quick"]
    errors: dict = {method: [None, None] for method in METHODS}
    errors |= {"L1": [3.0, 1.0], "RnC": [0.5, None], "RankSim": [0.5, 0.7]}
    records = searched(grid, errors)
    best = {"L1": 1, "RnC": 0, "RankSim": 0}
    assert methods.best_trials(grid, records) == methods.best_trials(grid, records[::-1]) == best
    assert methods.best_trials(grid, []) == {}


def test_the_table_of_a_search_shows_bounds_choice_and_trials():
    grid = GRIDS["tuning", "synthetic", "quick"]
    errors = {method: [3.0, 1.0] for method in METHODS} | {"SupCon": [None, 3.0]}
    table = methods.search_table(grid, searched(grid, errors)).set_index(["method", "setting"])
    assert table.loc[("L1", "learning rate")].to_dict() == {
        "searched": "0.002 to 0.2", "chosen": "0.0376", "trials": "2", "first": 3.0, "best": 1.0,
    }  # fmt: skip
    supcon = table.loc[("SupCon", "n bins")]
    assert (supcon["searched"], supcon["chosen"], supcon["trials"]) == ("5, 10, 20, 40", "5", "1 of 2")
    assert np.isnan(supcon["first"]) and supcon["best"] == 3.0
    assert ("RankSim", "term weight") in table.index and len(table) == 11
    for (method, setting), row in table.iterrows():  # what is chosen lies within what is shown
        name = setting.replace("term", "regulariser").replace(" ", "_")
        assert name in SEARCHES["images"][method].searched
        if ", " in row["searched"]:
            assert row["chosen"] in row["searched"].split(", ")
        else:
            low, high = map(float, row["searched"].split(" to "))
            assert low <= float(row["chosen"]) <= high


def test_settings_near_a_bound_of_the_search_are_named():
    grid = GRIDS["tuning", "synthetic", "paper"]
    errors: dict[str, list[float | None]] = {method: [None] * 15 for method in METHODS}
    chosen = {"L1": 14, "Ordinal Entropy": 3, "SupCon": 2, "RnC": 13}  # with RankSim diverged in all trials
    for method, trial in chosen.items():
        errors[method][trial] = 1.0
    found = methods.near_bounds(grid, searched(grid, errors))
    assert found == [
        ("L1", "learning rate"), ("L1", "weight decay"),  # 0.197 of 0.002 to 0.2, 0.000876 of 1e-06 to 0.001
        ("SupCon", "temperature"), ("SupCon", "n bins"),  # 0.0663 of 0.05 to 1, 40 of 5, 10, 20, 40
    ]  # fmt: skip


def test_the_methods_are_compared_with_the_settings_that_the_search_chose():
    trials = {run.method: run for run in GRIDS["tuning", "esol", "paper"]}
    grid = runs("methods", "esol", n_seeds=2, tuned=dict.fromkeys(METHODS, 4))
    assert len(grid) == 16 and len(set(map(key, grid))) == 16
    for run in grid:
        method, closed = run.method.removesuffix(", closed form"), run.method.endswith("closed form")
        recipes = run.recipe, trials[f"{method}, trial 4"].recipe
        stage, trial = (one.pretrain or one.fit for one in recipes)
        assert stage.epochs == 800 and replace(stage, epochs=120) == trial
        assert closed == (run.recipe.head == "ridge")
        assert run.label.endswith("tuned") and ("closed form" in run.label) == closed


@pytest.mark.parametrize("dataset", ["agedb", "synthetic"])
def test_searches_on_faces_are_on_smaller_ones(dataset):
    faces = runs("methods", dataset, data_dir="faces", tuned={"L1": 3})
    assert {run.recipe.model for run in faces} == {"resnet18" if dataset == "agedb" else "small"}
    search = runs("tuning", dataset, data_dir="faces")
    assert {(run.data.size, run.data.n_samples) for run in search} == {(32, None if dataset == "agedb" else 1000)}
    first, fourth = (next(run for run in search if run.method == f"L1, trial {i}").recipe.fit for i in (0, 3))
    assert first != fourth == replace(faces[0].recipe.fit, epochs=30)
    assert first.learning_rate == 0.2  # as published, whatever the chapter has beside it


def test_the_settings_are_by_default_those_of_the_published_search():
    for dataset, published in TUNED.items():
        assert runs("methods", dataset) == runs("methods", dataset, tuned=published)
    with pytest.raises(ValueError, match=r"^tuned: got None with dataset='agedb'; allowed: trials of a search"):
        runs("methods", "agedb", data_dir="faces")


# --- what a grid is asked for ---------------------------------------------------------------------------


def test_a_scope_knows_the_kind_of_its_data_set():
    kinds = {name: Scope(name, "paper").kind for name in ("esol", "standin", "agedb", "synthetic", "concrete")}
    assert list(kinds.values()) == ["molecules", "molecules", "images", "images", "table"]


def test_the_search_is_on_one_split_and_refuses_more():
    with pytest.raises(ValueError, match=r"^n_seeds: got 3, which is no option of these runs"):
        experiments()["tuning"].runs(dataset="esol", profile="smoke", n_seeds=3)
