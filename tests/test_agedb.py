"""AgeDB's folder, table and splits; synthetic faces in its layout take the place of photographs."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from rnclib.data import PARTS, agedb
from rnclib.data.catalogue import SOURCES
from rnclib.experiment import Run, Selection, described, key
from rnclib.recipe import Recipe, Stage


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RNC_CACHE", str(tmp_path / "cache"))


def load(root, **options):
    return agedb.load_agedb(root, size=21, progress=False, **options)


def test_a_folder_is_loaded_as_its_table_says(agedb_folder):
    faces, table = load(agedb_folder), pd.read_csv(agedb_folder / "agedb.csv")
    source = SOURCES["agedb"]
    assert (source.unit, source.measured, len(faces)) == ("years", True, 300)
    assert faces.targets.tolist() == table["age"].tolist() and len(faces.inputs) == 300
    with Image.open(agedb_folder / table["path"][7]) as image:
        assert np.array_equal(faces.inputs.pixels[7].numpy(), np.asarray(image))
    split = faces.splits["standard"](0)
    assert {name: getattr(split, name).tolist() for name in PARTS} == {
        name: np.flatnonzero(table["split"] == name).tolist() for name in PARTS
    }


def test_every_problem_is_listed_in_one_error(damageable):
    names = [Path(path).name for path in pd.read_csv(damageable / "agedb.csv")["path"]]
    (damageable / "AgeDB" / names[0]).unlink()
    truncated = damageable / "AgeDB" / names[1]
    truncated.write_bytes(truncated.read_bytes()[:300])
    table = pd.read_csv(damageable / "agedb.csv")
    table.loc[2, "age"] += 1
    table.to_csv(damageable / "agedb.csv", index=False)
    with pytest.raises(ValueError, match="got images that do not match the table") as caught:
        load(damageable)
    text = str(caught.value)
    assert f"missing: {names[0]}" in text and f"unreadable: 1 of 299 images cannot be read: {names[1]}" in text
    assert f"of another age than the table says: {names[2]} (table: {table.loc[2, 'age']})" in text
    assert names[3] not in text
    without = load(damageable, exclude=names[:3])
    assert len(without) == len(without.inputs) == 297
    assert without.targets.tolist() == table["age"].tolist()[3:]


def test_images_left_out_are_named_in_the_record_of_a_run(agedb_folder):
    names = tuple(Path(path).name for path in pd.read_csv(agedb_folder / "agedb.csv")["path"][:3])
    stage = Stage("l1", epochs=1, batch_size=8, learning_rate=0.01, lr_decay_rate=0.1, weight_decay=0.0)
    data = Selection("agedb", "standard", size=21, exclude=names, data_dir=str(agedb_folder))
    run = Run("agedb", "smoke", "L1", 0, data, Recipe("small", fit=stage))
    assert data.options == {"size": 21, "exclude": names, "data_dir": str(agedb_folder)}
    assert described(run)["exclude"] == list(names) and "data_dir" not in described(run)
    assert key(run) != key(run.but(exclude=None))


def test_the_checksum_covers_table_and_images(agedb_folder, damageable):
    before = load(agedb_folder).checksum
    assert load(damageable).checksum == before
    paths = sorted((damageable / "AgeDB").iterdir())
    shutil.copyfile(paths[1], paths[0])
    changed = load(damageable).checksum
    table = pd.read_csv(damageable / "agedb.csv")
    table.loc[0, "split"] = "val" if table.loc[0, "split"] == "train" else "train"
    table.to_csv(damageable / "agedb.csv", index=False)
    assert len({before, changed, load(damageable).checksum}) == 3


def test_no_images_is_an_error_that_says_how_to_get_them(damageable):
    shutil.rmtree(damageable / "AgeDB")
    with pytest.raises(FileNotFoundError, match=r"request form at https://ibug\.doc\.ic\.ac\.uk/resources/agedb"):
        load(damageable)


def test_a_folder_must_be_named():
    with pytest.raises(ValueError, match=r"^data_dir: got None; allowed: the folder that holds AgeDB's images"):
        agedb.load_agedb(size=21)


def test_only_images_of_the_table_can_be_left_out(agedb_folder):
    with pytest.raises(ValueError, match=r"exclude: got \['9999_Nobody_3_m\.jpg'\]; allowed: file names of the table"):
        load(agedb_folder, exclude=["9999_Nobody_3_m.jpg"])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda table: table.drop(columns="split"), r"split missing"),
        (lambda table: table.iloc[:0], r"got no rows"),
        (lambda table: pd.concat([table, table.iloc[:1]]), r"a path that stands twice in 1 rows"),
        (lambda table: table.assign(age=-1), r"an age that is no number"),
        (lambda table: table.assign(age="young"), r"an age that is no number"),
        (lambda table: table.assign(split="dev"), r"a split other than train, val, test"),
    ],
)
def test_a_damaged_table_is_refused(damageable, damage, message):
    damage(pd.read_csv(damageable / "agedb.csv")).to_csv(damageable / "agedb.csv", index=False)
    with pytest.raises(ValueError, match=message):
        agedb.read_table(damageable)


def people_of(table: pd.DataFrame, split) -> list[set[str]]:
    return [set(table["person"].iloc[getattr(split, name)]) for name in PARTS]


def test_nobody_is_in_two_sets_of_the_identity_split(agedb_folder):
    table = agedb.read_table(agedb_folder)
    split = agedb.identity_split(table)
    train, val, test = people_of(table, split)
    assert not (train & val or train & test or val & test) and min(map(len, (train, val, test))) >= 1
    every = np.concatenate([split.train, split.val, split.test])
    assert np.array_equal(np.sort(every), np.arange(300))
    again = agedb.identity_split(table)
    assert all(np.array_equal(getattr(split, name), getattr(again, name)) for name in PARTS)
    with pytest.raises(ValueError, match=r"table: got 1 people; allowed: at least three"):
        agedb.identity_split(table.assign(person="X"))


def test_the_public_table_is_what_the_pages_say(public_table):
    assert public_table["split"].value_counts().to_dict() == {"train": 12208, "val": 2140, "test": 2140}
    assert (public_table["age"].min(), public_table["age"].max()) == (1, 101)
    assert (public_table["person"] != "").all()
    train, _, test = people_of(public_table, agedb.standard_split(public_table))
    assert len(test) == 544 and test <= train


def test_the_identity_split_has_the_size_and_the_ages_of_the_standard_one(public_table):
    identity, standard = agedb.identity_split(public_table), agedb.standard_split(public_table)
    train, val, test = people_of(public_table, identity)
    assert not (train & val or train & test or val & test)
    ages = public_table["age"].to_numpy()
    for name in PARTS:
        ours, theirs = ages[getattr(identity, name)], ages[getattr(standard, name)]
        assert abs(len(ours) - len(theirs)) <= 0.02 * len(theirs)
        # at most 2% of the images would have to change for the ages to be the same, in steps of five years
        steps = np.arange(0, 111, 5)
        histograms = [np.histogram(values, steps)[0] / len(values) for values in (ours, theirs)]
        assert np.abs(histograms[0] - histograms[1]).sum() / 2 < 0.02
