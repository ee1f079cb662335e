"""Synthetic faces: the same files from a seed, ages as in AgeDB's table, nuisances, and the command line."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from rnclib.chapters import experiments
from rnclib.data import agedb, synthetic
from rnclib.data.catalogue import SOURCES
from rnclib.data.synthetic import Person, Scene, draw_face, make_faces
from rnclib.experiment import carry_out


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RNC_CACHE", str(tmp_path / "cache"))


def test_a_seed_gives_the_same_files(agedb_folder, tmp_path):
    make_faces(tmp_path / "again", 300, 24, seed=3, progress=False)
    for path in [*(agedb_folder / "AgeDB").iterdir(), agedb_folder / "agedb.csv"]:
        assert (tmp_path / "again" / path.relative_to(agedb_folder)).read_bytes() == path.read_bytes()
    other = make_faces(tmp_path / "other", 300, 24, seed=4, progress=False)
    assert other["age"].tolist() != pd.read_csv(agedb_folder / "agedb.csv")["age"].tolist()


def test_the_table_is_laid_out_like_agedb(agedb_folder):
    table = agedb.read_table(agedb_folder)
    assert (table["person"] != "").all() and table["sex"].isin(["m", "f"]).all()
    assert len(list((agedb_folder / "AgeDB").iterdir())) == len(table) == 300
    assert table.groupby("person")["sex"].nunique().max() == 1
    counts = table.groupby(["age", "split"]).size().unstack(fill_value=0)
    assert (counts["val"] == counts["test"]).all() and (counts["train"] >= counts["test"]).all()
    assert 0.08 < (table["split"] == "test").mean() <= 0.2


def test_ages_are_distributed_as_in_agedb(public_table):
    ages = synthetic.draw_ages(20000, np.random.default_rng(0))
    at = np.arange(1, 102)
    ours, theirs = ((values[:, None] <= at).mean(0) for values in (ages, public_table["age"].to_numpy()))
    assert np.abs(ours - theirs).max() < 0.03


def test_nuisances_say_nothing_about_the_age(tmp_path):
    table = make_faces(tmp_path, 1500, 16, progress=False)
    for name in ("turn", "tilt", "light", "background"):
        assert abs(np.corrcoef(table["age"], table[name])[0, 1]) < 4 / np.sqrt(1500), name


def test_backgrounds_correlate_with_the_age_in_training_and_not_in_the_test(tmp_path):
    plain = make_faces(tmp_path / "plain", 600, 16, progress=False)
    spurious = make_faces(tmp_path / "spurious", 600, 16, correlated=True, progress=False)
    assert spurious.drop(columns="background").equals(plain.drop(columns="background"))
    for name, least, most in (("train", 0.65, 0.98), ("val", 0.5, 1.0), ("test", -0.3, 0.3)):
        rows = spurious["split"] == name
        assert least < np.corrcoef(spurious["age"][rows], spurious["background"][rows])[0, 1] < most, name
        hue = synthetic.ARC * spurious["age"][rows] / synthetic.OLDEST
        fraction = np.isclose(spurious["background"][rows], hue, atol=1e-3).mean()
        assert fraction == pytest.approx(0.9 * (name != "test"), abs=0.09)
        same = [
            (tmp_path / "plain" / p).read_bytes() == (tmp_path / "spurious" / p).read_bytes()
            for p in spurious["path"][rows]
        ]
        if name == "test":
            assert all(same)
        else:
            assert 0.02 < np.mean(same) < 0.2
    assert synthetic.recipe(600, 16, correlated=True) != synthetic.recipe(600, 16)


def test_a_run_measures_what_a_background_does():
    runs = experiments()["agedb"].runs(dataset="synthetic", profile="smoke", loss="l1")
    plain = next(run for run in runs if run.method == "RnC(L1)")
    outcomes = {kind: carry_out(plain.but(spurious=kind)) for kind in (None, "untied", "tied")}
    record, without, with_it = (outcomes[kind][0] for kind in (None, "untied", "tied"))
    where = np.isin(record["test"]["index"], without["test"]["index"])
    assert np.array(record["test"]["prediction"])[where].tolist() == without["test"]["prediction"]
    assert without["test"]["prediction"] != with_it["test"]["prediction"]
    assert max(without["test"]["nuisance"]) <= synthetic.OLDEST and 0.5 < where.mean() < 0.9  # hues that are an age
    assert without["data"]["n_test_pool"] == record["data"]["n_test"] > without["data"]["n_test"]
    assert record["stages"] == without["stages"]  # trained once, with the weights of both in the cache
    assert without["test"]["nuisance"] == with_it["test"]["nuisance"] and "nuisance" not in record["test"]
    options = {"n_samples": plain.data.n_samples, "size": plain.data.size, "correlated": True}
    faces = synthetic.load_faces(**options, progress=False)
    np.testing.assert_allclose(with_it["test"]["nuisance"], faces.nuisance[with_it["test"]["index"]], atol=1e-4)
    assert with_it["data"]["checksum"] == synthetic.recipe(**options)
    for one in (without, with_it):
        assert -1 <= one["metrics"]["test"]["standardised"]["nuisance_agreement"] <= 1
    assert outcomes["untied"][1] is None and outcomes["tied"][1].splitlines()[0].endswith(",nuisance")


def test_the_drawing_changes_with_every_year_and_more_over_more_years():
    rng = np.random.default_rng(1)
    for _ in range(4):
        person, scene = Person.random(rng), Scene.random(rng)
        faces = [np.asarray(draw_face(age, person, scene, 64), float) for age in range(1, 102, 5)]
        change = np.array([[np.abs(a - b).mean() for a in faces] for b in faces])
        steps = np.diagonal(change, 1)
        assert (steps > 0.1).all() and (steps < 30).all()
        assert np.mean([np.all(np.diff(row[i:]) > -1) for i, row in enumerate(change)]) > 0.7
        year = np.abs(np.asarray(draw_face(50.0, person, scene, 64), float)
                      - np.asarray(draw_face(51.0, person, scene, 64), float)).mean()  # fmt: skip
        assert 0 < year < 4


def test_a_folder_that_holds_a_table_is_left_alone(agedb_folder):
    with pytest.raises(ValueError, match=r"root: got .* holds an agedb\.csv already"):
        make_faces(agedb_folder, 300, 24, progress=False)
    for name, value in (("n", 99), ("size", 8), ("seed", -1), ("n", 200.0)):
        with pytest.raises(ValueError, match=rf"{name}: got {value}; allowed: an integer of at least"):
            make_faces("unused", **({"n": 300, "size": 24} | {name: value}))


@pytest.mark.parametrize("seed", range(8))
def test_few_faces_can_be_divided_whatever_their_ages(seed):
    ages = synthetic.draw_ages(synthetic.FEWEST, np.random.default_rng(seed))
    split = synthetic._balanced_split(ages, np.random.default_rng(seed))
    counts = dict(zip(*np.unique(split.astype(str), return_counts=True), strict=True))
    assert counts["val"] == counts["test"] > 0 and counts["train"] >= counts["test"]


def test_faces_are_marked_as_synthetic_and_made_once(monkeypatch):
    faces, source = synthetic.load_faces(120, 16, progress=False), SOURCES["synthetic"]
    assert (source.measured, source.unit, len(faces)) == (False, "years", 120)
    assert "not photographs" in source.notice and set(faces.splits) == {"standard", "identity"}
    monkeypatch.setattr(synthetic, "make_faces", None)
    assert synthetic.load_faces(120, 16, progress=False).checksum == faces.checksum


def test_the_command_line_makes_a_folder(tmp_path):
    command = [sys.executable, "-m", "rnclib.data.synthetic", str(tmp_path / "out"), "--n", "100", "--size", "16"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "100 synthetic faces" in done.stdout, done.stderr
    digest = hashlib.sha256((tmp_path / "out" / "agedb.csv").read_bytes()).hexdigest()
    again = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert again.returncode == 2 and "holds an agedb.csv already" in again.stderr
    assert hashlib.sha256((tmp_path / "out" / "agedb.csv").read_bytes()).hexdigest() == digest
