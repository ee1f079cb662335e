"""What the notebook of a chapter begins with: its runs, loaded or trained, and what captions say of them."""

from __future__ import annotations

import hashlib
import re

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import pytest
from records import record
from worlds import face_runs, forbid_training, molecule_runs

from rnclib import notebook, results
from rnclib.chapters import experiments
from rnclib.chapters.base import Experiment
from rnclib.data import catalogue
from rnclib.experiment import described, key
from rnclib.forest import forest
from rnclib.grid import Grid
from rnclib.notebook import Study, Verdicts, machines, open_experiment, open_several, resolve, stored

# --- the runs of a study --------------------------------------------------------------------------------


def study_of(*runs, profile="smoke"):
    """Made-up records of some runs."""
    records = [
        record(
            run.method,
            run.seed,
            split=run.data.split,
            dataset=run.data.dataset,
            config=described(run),
            key=hashlib.sha256(repr(run).encode()).hexdigest()[:16],
        )
        for run in runs
    ]
    return Study(runs[0].data.source, profile, list(runs), results.labelled(records, [run.label for run in runs]))


def several():
    """Four runs by a name for each."""
    (plain, tuned) = molecule_runs("L1", "RnC(L1)")
    return {
        "plain": plain,
        "half": tuned.but(fraction=0.5),
        "tenth": plain.but(fraction=0.1, seed=1),
        "noisy": tuned.but(wrong_targets=0.2, split="size"),
    }


def kept(**fields):
    """Names of the runs that are left of those."""
    runs = several()
    left = study_of(*runs.values()).where(**fields)
    if left is None:
        return None
    assert [one["config"] for one in left.records] == [described(run) for run in left.runs]
    return [name for run in left.runs for name, one in runs.items() if one == run]


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({}, ["plain", "half", "tenth", "noisy"]),
        ({"fraction": 0.5}, ["half"]),
        ({"fraction": True}, ["half", "tenth"]),
        ({"fraction": None}, ["plain", "noisy"]),
        ({"seed": 1}, ["tenth"]),
        ({"seed": 0}, ["plain", "half", "noisy"]),
        ({"split": "size"}, ["noisy"]),
        ({"fraction": None, "wrong_targets": None}, ["plain"]),
        ({"fraction": True, "pretrain": True}, ["half"]),
        ({"fraction": 0.25}, None),
        ({"fraction": True, "wrong_targets": True}, None),
        ({"holes": True}, None),
    ],
)
def test_a_study_is_narrowed_by_a_value_true_for_any_or_none_for_none(fields, names):
    assert kept(**fields) == names


def test_what_is_left_of_a_study_is_one_of_its_own():
    whole = study_of(*several().values())
    assert len(whole.frame) == 4  # so that a frame is there before
    left = whole.where(fraction=True)
    assert (left.source, left.profile) == (whole.source, whole.profile)
    assert left.frame["fraction"].tolist() == [0.5, 0.1]
    assert left.methods == left.frame["method"].tolist() == ["RnC fine-tuned, L1", "L1 end to end"]
    assert left.where(seed=1).frame["method"].tolist() == ["L1 end to end"]
    assert left.where(seed=2) is None and len(whole.records) == 4


def test_methods_are_labels_in_the_order_of_the_runs():
    first, second = molecule_runs("RnC(L1)", "L1")
    study = study_of(first, second, first.but(seed=1), second.but(seed=1))
    assert study.methods == ["RnC fine-tuned, L1", "L1 end to end"]
    assert study.frame["method"].tolist() == study.methods * 2
    assert study.n == 2  # seeds, not runs


def test_a_study_of_molecules_says_so():
    study = study_of(*(run.but(dataset="esol", split="scaffold") for run in molecule_runs("L1")), profile="quick")
    assert (study.name, study.unit, study.repeats, study.split) == ("esol", "log mol/L", "splits", "scaffold")
    assert study.caption == "ESOL, scaffold split, profile quick"


def test_a_study_of_faces_says_so():
    study = study_of(*(run.but(split="identity") for run in face_runs("L1")))
    assert (study.name, study.unit, study.repeats, study.split) == ("synthetic", "years", "seeds", "identity")
    assert study.caption == "Synthetic faces, identity split, profile smoke"


def test_machines_of_several_studies_are_told_apart_by_the_titles_of_their_data():
    def made(run, cpu):
        study = study_of(run)
        for one in study.records:
            one["run"] = {"cpu": cpu, "versions": {"torch": "2"}}
            one["stages"] = [{"name": "regressor", "wall_time": 3600.0, "curve": {"epoch": [run.seed]}}]
        return study

    (plain,), (face,) = molecule_runs("L1"), face_runs("L1")
    studies = [made(plain, "a"), None, made(face, "b"), made(plain.but(seed=1), "a")]
    expected = pd.DataFrame(
        {
            "Data": ["Synthetic stand-in", "Synthetic faces"],
            "Processor": ["a", "b"],
            "torch": ["2", "2"],
            "Runs": [2, 1],
            "Hours of training": [2.0, 1.0],
        }
    )
    pd.testing.assert_frame_equal(machines(*studies), expected, check_dtype=False)


# --- what the store holds, and what it decides ----------------------------------------------------------


def test_stored_runs_are_given_without_training_any(tmp_path, monkeypatch):
    runs = molecule_runs("training mean", "L1")
    monkeypatch.setattr(notebook, "experiments", lambda: {"esol": Experiment("esol", lambda scope: runs, ("standin",))})
    forbid_training(monkeypatch)
    assert stored("esol", "standin", "smoke", str(tmp_path)) is None
    one = study_of(runs[0]).records[0] | {"key": key(runs[0])}
    results.write({name: value for name, value in one.items() if name != "label"}, tmp_path)
    assert stored("esol", "standin", "smoke", str(tmp_path)) is None  # not all of them
    study = stored("esol", "standin", "smoke", str(tmp_path), complete=False)
    assert study.runs == runs[:1] and study.methods == ["training mean"]


def test_of_several_data_sets_those_are_opened_that_can_be_had(tmp_path, monkeypatch, capsys, shown):
    runs = {"standin": molecule_runs("training mean"), "esol": [one.but(dataset="esol") for one in molecule_runs("L1")]}
    grids = {"esol": Experiment("esol", lambda scope: runs[scope.dataset], tuple(runs))}
    monkeypatch.setattr(notebook, "experiments", lambda: grids)

    def run_grid(asked, **how):
        if asked[0].data.dataset == "esol":
            raise FileNotFoundError("Put it there.")
        assert how == {"results_dir": str(tmp_path), "refresh": False, "device": "cpu"}
        return Grid(study_of(*asked).records)

    monkeypatch.setattr(notebook, "run_grid", run_grid)
    how = {"profile": "smoke", "results_dir": str(tmp_path)}
    (study,) = open_several("esol", ["esol", "standin"], **how)
    assert study.runs == runs["standin"] and study.source.name == "standin"
    said = capsys.readouterr()
    assert said.out == "esol is left out. Put it there.\n"
    assert said.err == "esol, smoke: 1 runs on 1 of 2 data sets; left out: esol\n"
    monkeypatch.setattr(notebook, "run_grid", lambda *_, **__: pytest.fail("it trained"))
    assert open_several("esol", ["esol", "standin"], only_stored=True, **how) == []
    assert "0 runs on 0 of 2 data sets; left out: esol, standin" in capsys.readouterr().err


@pytest.fixture(scope="module")
def published():
    return Verdicts("paper")


def test_a_chapter_quotes_the_verdict_of_the_verdict_page(published):
    row = published.find("RnC frozen, L1", "L1 end to end, lr 0.001", "corruption")
    said = published.say("RnC frozen, L1", "L1 end to end, lr 0.001", "corruption")
    assert row.primary and said == f"**{row.verdict}** ({row.shown}, {row.n} splits)"
    # without a condition, the plain one of several
    plain = published.find("RnC frozen, L1", "L1 end to end, lr 0.001", "difference", split="random")
    assert plain.experiment == "esol" and plain.spurious != "tied"
    with pytest.raises(ValueError, match=r"^fields: got .*, which 0 comparisons have; allowed: those of one$"):
        published.find("RnC frozen, L1", "extra trees", "difference")
    table = published.table("robustness", name="quoted")
    assert len(table.rows) == (published.frame["experiment"] == "robustness").sum()
    rows = published.frame[published.frame["experiment"] == "robustness"]
    assert [row[0].startswith("**") for row in table.rows] == rows["primary"].tolist()
    unread = rows["unread"].map(lambda why: ", not read" if why else "")
    assert [row[-1].replace("*", "") for row in table.rows] == (rows["verdict"] + unread).tolist()
    assert 0 < (unread != "").sum() < len(unread)


def test_the_verdict_with_equal_time_is_that_against_the_longer_training(published):
    row = published.find(
        "RnC frozen, closed form, tuned", "L1 end to end, closed form, lr 0.01, 2.5 × the epochs", "difference",
        dataset="synthetic", experiment="face_sets",
    )  # fmt: skip
    said = published.with_equal_time()
    assert row.verdict in said and row.shown in said
    nothing = notebook.Verdicts("smoke", None)
    nothing.__dict__["frame"] = published.frame.assign(verdict="not measured")
    assert nothing.with_equal_time() is None


def test_the_answer_of_a_page_is_that_of_its_primary_comparisons(published):
    said = published.answer("corruption", datasets=["esol"])
    row = published.find("RnC frozen, L1", "L1 end to end, lr 0.001", "corruption")
    assert said.items == [[f"ESOL: {row.line}: **{row.verdict}** ({row.shown}, {row.n} splits)."]]
    both = published.answer("difference")
    rows = published.frame.query("primary and effect == 'difference'")
    texts = [text for (text,) in both.items]
    assert [row.shown in text for row, text in zip(rows.itertuples(), texts, strict=False)] == [True] * len(rows)
    *_, about, corrected = texts
    assert len(texts) == len(rows) + 2 and corrected == notebook._CORRECTED  # since one is undecided
    pair = "*RnC frozen, closed form, tuned* is compared with *L1 end to end, closed form, lr 0.01*"
    assert about.startswith(f"On synthetic faces {pair}, each seed")
    more = published.answer("corruption", datasets=["esol"], also=["Trees too."])
    assert more.items == [*said.items, ["Trees too."]]
    assert "no primary comparison" in published.answer("growth").text


def test_lines_of_one_claim_are_told_apart_by_what_differs(published):
    primary = published.frame[published.frame["primary"]]
    assert not primary.duplicated(["dataset", "line"]).any()
    assert "lower error than end-to-end training (RnC fine-tuned)" in set(primary["line"])
    figure = forest(primary, {"esol": "Molecules", "synthetic": "Faces"})
    above, below = figure.axes
    assert [ax.get_title(loc="left") or ax.get_title() for ax in figure.axes] == ["Molecules", "Faces"]
    for ax, name in ((above, "esol"), (below, "synthetic")):
        part = primary[primary["dataset"] == name]
        lines = [text.get_text().replace("\n", " ") for text in ax.get_yticklabels()]
        assert lines == part["line"].tolist()
        verdicts = [text.get_text() for text in ax.texts]
        assert all(text.startswith(verdict) for text, verdict in zip(verdicts, part["verdict"], strict=True))
    plt.close(figure)


# --- which data -----------------------------------------------------------------------------------------


def absent(name, **options):
    raise FileNotFoundError(f"{name} is not here; put it there.")


def untouched(*_, **__):
    pytest.fail("it loaded data")


@pytest.mark.parametrize("dataset", ["esol", "standin", "agedb", "none", "anything"])
def test_what_is_named_is_not_looked_for(tmp_path, monkeypatch, capsys, dataset):
    monkeypatch.setattr(catalogue, "load", untouched)
    assert resolve(dataset, "paper", tmp_path) == dataset
    assert capsys.readouterr().out == ""


def test_published_records_of_esol_need_no_data(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(catalogue, "load", untouched)
    results.write(record(profile="paper"), tmp_path)
    assert resolve("auto", "paper", tmp_path) == "esol"
    monkeypatch.setenv("RNC_RESULTS", str(tmp_path))  # where the store is by default
    assert resolve("auto", "paper") == "esol"
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("stored", "profile"),
    [
        ([], "paper"),
        ([{"profile": "paper"}], "quick"),
        ([{"profile": "quick"}], "quick"),
        ([{"profile": "quick"}, {"profile": "paper", "dataset": "standin"}], "paper"),
        ([{"profile": "paper", "experiment": "robustness"}], "paper"),
    ],
)
def test_without_published_records_esol_is_taken_where_it_can_be_had(tmp_path, monkeypatch, capsys, stored, profile):
    for changes in stored:
        results.write(record(**changes), tmp_path)
    loaded = []
    monkeypatch.setattr(catalogue, "load", loaded.append)
    assert resolve("auto", profile, tmp_path) == "esol" and loaded == ["esol"]
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(catalogue, "load", absent)
    assert resolve("auto", profile, tmp_path) == "standin"
    assert capsys.readouterr().out == "using the stand-in. esol is not here; put it there.\n"


# --- opened in one call ---------------------------------------------------------------------------------


@pytest.fixture
def shown(monkeypatch):
    """What a notebook is given to show; style of plots as before afterwards."""
    objects = []
    monkeypatch.setattr("IPython.display.display", objects.append)
    with mpl.rc_context():
        yield objects


HUBER = ["Huber end to end", "RnC frozen, Huber", "RnC fine-tuned, Huber"]


def test_an_experiment_is_trained_once_and_loaded_from_then_on(tmp_path, monkeypatch, capsys, shown, small_world):
    asked = {"profile": "smoke", "results_dir": tmp_path / "store", "loss": "huber"}
    study, nothing = open_experiment("esol", "standin", "none", split="random", **asked)
    assert nothing is None
    counted = ", ".join(f"1 × {label}" for label in HUBER)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.endswith(f"\nesol, standin, smoke: 0 runs loaded from the store; 3 trained now ({counted})\n")
    (notice,) = shown
    assert notice.kind == "warning" and "stand-in" in notice.text and "cut to seconds" in notice.text

    assert study.methods == study.frame["method"].tolist() == HUBER
    assert study.runs == experiments()["esol"].runs(dataset="standin", profile="smoke", split="random", loss="huber")
    assert study.caption == "Synthetic stand-in, random split, profile smoke" and study.n == 1
    assert {one["data"]["checksum"] for one in study.records} == {small_world.checksum}
    assert results.exists(tmp_path / "store", profile="smoke", experiment="esol", dataset="standin")
    stored = results.load(tmp_path / "store", profile="smoke", experiment="esol")
    assert sorted(one["key"] for one in stored) == sorted(study.frame["key"])
    assert not any("label" in one for one in stored)

    with monkeypatch.context() as patch:
        forbid_training(patch)
        (again,) = open_experiment("esol", "standin", split="random", **asked)
        assert capsys.readouterr().err == (
            f"esol, standin, smoke: 3 runs loaded from the store ({counted}); 0 trained now\n"
        )
        pd.testing.assert_frame_equal(again.frame, study.frame)
    (anew,) = open_experiment("esol", "standin", split="random", refresh=True, **asked)
    assert "0 runs loaded from the store; 3 trained now" in capsys.readouterr().err
    assert anew.frame["key"].tolist() == study.frame["key"].tolist()


def test_where_esol_cannot_be_had_an_experiment_is_of_the_stand_in(tmp_path, monkeypatch, capsys, shown, small_world):
    def load(name, **options):
        return absent(name) if name == "esol" else small_world

    monkeypatch.setattr(catalogue, "load", load)
    (study,) = open_experiment("esol", "auto", profile="smoke", results_dir=tmp_path, split="random", loss="l2")
    said = capsys.readouterr()
    assert said.out == "using the stand-in. esol is not here; put it there.\n"
    assert "\nesol, standin, smoke: 0 runs loaded" in said.err
    assert study.name == "standin" and set(study.frame["dataset"]) == {"standin"}
    assert [notice.title for notice in shown] == ["These are not measured data"]


class Asked:
    """Stands for an experiment's grid and for the carrying out of runs, and keeps what each is asked for."""

    def __init__(self, monkeypatch, empty=()):
        self.scopes, self.carried = [], []
        self.empty = empty
        tiny = Experiment("tiny", self.grid, ("esol", "standin", "synthetic"), options={"split": None, "choice": None})
        monkeypatch.setattr(notebook, "experiments", lambda: {"tiny": tiny})
        monkeypatch.setattr(notebook, "run_grid", self.run_grid)

    def grid(self, scope):
        self.scopes.append(scope)
        of = {"molecules": molecule_runs, "images": face_runs}[scope.kind]
        return [] if scope.dataset in self.empty else [run.but(dataset=scope.dataset) for run in of("L1")]

    def run_grid(self, runs, **options):
        self.carried.append(options)
        study = study_of(*runs)

        class Done:
            records = study.records

            def __str__(self):
                return f"{len(runs)} done"

        return Done()


def test_each_data_set_is_asked_for_what_is_meant_for_it(tmp_path, monkeypatch, capsys, shown):
    asked = Asked(monkeypatch)
    studies = open_experiment(
        "tiny", "esol", "none", "synthetic", profile="smoke", results_dir=tmp_path, refresh=True, device="cuda",
        by_dataset={"synthetic": {"split": "identity", "n_seeds": 3}}, split="size", choice="one",
    )  # fmt: skip
    assert [study and study.name for study in studies] == ["esol", None, "synthetic"]
    assert [(one.dataset, one.profile, one.split, one.n_seeds, one.choice) for one in asked.scopes] == [
        ("esol", "smoke", "size", None, "one"),
        ("synthetic", "smoke", "identity", 3, "one"),
    ]
    assert asked.carried == [{"results_dir": tmp_path, "refresh": True, "device": "cuda"}] * 2
    assert capsys.readouterr().err == "tiny, esol, smoke: 1 done\ntiny, synthetic, smoke: 1 done\n"
    assert [notice.kind for notice in shown] == ["important", "warning"]


def test_one_notice_is_shown_for_each_data_set(monkeypatch, capsys, shown):
    Asked(monkeypatch)
    studies = open_experiment("tiny", "standin", "synthetic", "standin", profile="quick")
    assert [study.name for study in studies] == ["standin", "synthetic", "standin"]
    assert {study.profile for study in studies} == {"quick"}
    assert ["stand-in" in notice.text for notice in shown] == [True, False]
    assert all("shortened" in notice.text for notice in shown)


@pytest.mark.parametrize("datasets", [("none",), ("none", "esol"), ()])
def test_without_runs_there_is_no_study_and_nothing_is_said(monkeypatch, capsys, shown, datasets):
    asked = Asked(monkeypatch, empty=("esol",))
    assert open_experiment("tiny", *datasets, profile="smoke") == [None] * len(datasets)
    assert asked.carried == [] and shown == []
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dataset": "lipo"}, r"dataset: got 'lipo'; allowed: 'esol', 'standin'"),
        ({"dataset": "synthetic"}, r"dataset: got 'synthetic'; allowed: 'esol', 'standin'"),
        ({"profile": "fast"}, r"profile: got 'fast'; allowed: 'smoke', 'quick', 'paper'"),
        ({"loss": "l3"}, r"loss: got 'l3'; allowed: 'all', 'l1', 'l2', 'huber'"),
        ({"n_seeds": 0}, r"n_seeds: got 0; allowed: an integer of at least 1.*"),
        ({"choice": "x"}, r"choice: got 'x', which is no option of these runs; allowed: n_seeds, split, loss"),
        ({"sead": 1}, r"sead: got 1, which is no option of any runs; allowed: n_seeds, split, loss"),
        ({"by_dataset": {"standin": {"loss": "l3"}}}, r"loss: got 'l3'; allowed: 'all', 'l1', 'l2', 'huber'"),
    ],
)
def test_what_an_experiment_does_not_take_is_refused_before_anything_runs(
    monkeypatch, tmp_path, shown, change, message
):
    monkeypatch.setattr(notebook, "run_grid", lambda *_, **__: pytest.fail("it ran"))
    given = {"dataset": "standin", "profile": "smoke", "results_dir": tmp_path, **change}
    with pytest.raises(ValueError) as refused:
        open_experiment("esol", given.pop("dataset"), **given)
    assert re.fullmatch(message, str(refused.value))
    assert shown == [] and list(tmp_path.iterdir()) == []
