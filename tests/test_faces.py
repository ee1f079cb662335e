"""AgeDB's files and splits, images decoded once, and the drawn faces that stand in for them."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torchvision import transforms

from rnclib.data import PARTS, agedb, images, synthetic
from rnclib.data.augment import Views
from rnclib.data.synthetic import Person, Scene, draw_face, make_faces
from rnclib.experiment import run
from rnclib.protocols import agedb_grid


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RNC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def drawn(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("faces")
    make_faces(root, 300, 24, seed=3, progress=False)
    return root


@pytest.fixture
def folder(drawn, tmp_path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(drawn, tmp_path / "copy"))


def load(root, **options):
    return agedb.load_agedb(root, size=21, progress=False, **options)


# --- images ---------------------------------------------------------------------------------------------


def test_the_evaluation_view_is_the_published_one(tmp_path):
    rng = np.random.default_rng(0)
    paths = []
    for width, height in [(300, 300), (311, 287), (260, 391), (500, 201), (90, 123), (257, 256)]:
        paths.append(tmp_path / f"{width}x{height}.png")
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(paths[-1])
    published = transforms.Compose(
        [transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(), transforms.Normalize(0.5, 0.5)]
    )
    decoded, _ = images.decode(paths, 224, progress=False)
    views = decoded[[3, 0, 1, 2, 4, 5]]
    assert views.shape == (6, 3, 224, 224) and views.is_contiguous(memory_format=torch.channels_last)
    for view, path in zip(views, [paths[i] for i in (3, 0, 1, 2, 4, 5)], strict=True):
        with Image.open(path) as image:
            torch.testing.assert_close(view, published(image), atol=1e-6, rtol=0)


def test_the_same_files_are_decoded_once_and_changed_ones_again(folder, monkeypatch, cache):
    paths = sorted((folder / "AgeDB").iterdir())[:5]
    first, checksum = images.decode(paths, 16, progress=False)
    with monkeypatch.context() as patch:
        patch.setattr(images, "_square", None)  # whoever calls it fails
        again, same = images.decode(paths, 16, progress=False)
    assert same == checksum and torch.equal(first.pixels, again.pixels)
    shutil.copyfile(paths[1], paths[0])
    changed, other = images.decode(paths, 16, progress=False)
    assert other != checksum and torch.equal(changed.pixels[0], first.pixels[1])
    assert len(list((cache / "images").iterdir())) == 2


def test_what_cannot_be_read_is_named_and_nothing_is_cached(folder, cache):
    paths = sorted((folder / "AgeDB").iterdir())[:5]
    paths[1].write_bytes(paths[1].read_bytes()[:200])
    paths[3].write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"2 of 5 images cannot be read") as caught:
        images.decode(paths, 16, progress=False)
    assert paths[1].name in str(caught.value) and paths[3].name in str(caught.value)
    assert paths[0].name not in str(caught.value) and not list((cache / "images").iterdir())


def test_a_set_too_large_for_the_device_is_read_batch_by_batch_with_the_same_views(drawn):
    paths = sorted((drawn / "AgeDB").iterdir())[:40]
    mapped, _ = images.decode(paths, 16, progress=False)
    resident, streamed = mapped.to("cpu", room=mapped.pixels.nbytes), mapped.to("cpu", room=mapped.pixels.nbytes - 1)
    assert streamed.pixels is mapped.pixels and streamed.device == torch.device("cpu")
    batch = np.array([3, 0, 31, 3])
    assert torch.equal(streamed[batch], resident[batch])
    views = [Views(held, np.arange(5, 40), seed=2, n_views=2).at_epoch(3)[batch] for held in (resident, streamed)]
    assert torch.equal(*views)
    # where batches are made elsewhere than the pixels lie, they are copied there
    assert mapped.to("meta", room=0)[batch].device.type == "meta"


def test_writing_to_a_batch_leaves_the_file_alone(drawn):
    paths = sorted((drawn / "AgeDB").iterdir())[:3]
    first, _ = images.decode(paths, 16, progress=False)
    first.pixels.zero_()
    again, _ = images.decode(paths, 16, progress=False)
    assert again.pixels.any()


@pytest.mark.parametrize("size", [4, 16.0, "16"])
def test_a_bad_size_is_refused(size):
    with pytest.raises(ValueError, match=r"size: got .*; allowed: an integer of at least 8"):
        images.decode([], size)


# --- AgeDB's layout -------------------------------------------------------------------------------------


def test_a_folder_is_loaded_as_its_table_says(drawn):
    faces, table = load(drawn), pd.read_csv(drawn / "agedb.csv")
    assert (faces.name, faces.unit, faces.synthetic, len(faces)) == ("agedb", "years", False, 300)
    assert faces.targets.tolist() == table["age"].tolist() and len(faces.inputs) == 300
    with Image.open(drawn / table["path"][7]) as image:
        assert np.array_equal(faces.inputs.pixels[7].numpy(), np.asarray(image))
    split = faces.splits["standard"](0)
    assert {part: getattr(split, part).tolist() for part in PARTS} == {
        part: np.flatnonzero(table["split"] == part).tolist() for part in PARTS
    }


def test_every_problem_is_listed_in_one_error(folder):
    names = [Path(path).name for path in pd.read_csv(folder / "agedb.csv")["path"]]
    (folder / "AgeDB" / names[0]).unlink()
    truncated = folder / "AgeDB" / names[1]
    truncated.write_bytes(truncated.read_bytes()[:300])
    table = pd.read_csv(folder / "agedb.csv")
    table.loc[2, "age"] += 1
    table.to_csv(folder / "agedb.csv", index=False)
    with pytest.raises(ValueError, match="got images that do not match the table") as caught:
        load(folder)
    text = str(caught.value)
    assert f"missing: {names[0]}" in text and f"unreadable: 1 of 299 images cannot be read: {names[1]}" in text
    assert f"of another age than the table says: {names[2]} (table: {table.loc[2, 'age']})" in text
    assert names[3] not in text
    without = load(folder, exclude=names[:3])
    assert len(without) == 297 and names[0] in without.provenance
    assert without.targets.tolist() == table["age"].tolist()[3:]


def test_the_checksum_covers_table_and_images(drawn, folder):
    before = load(drawn).checksum
    assert load(folder).checksum == before
    paths = sorted((folder / "AgeDB").iterdir())
    shutil.copyfile(paths[1], paths[0])
    changed = load(folder).checksum
    table = pd.read_csv(folder / "agedb.csv")
    table.loc[0, "split"] = "val" if table.loc[0, "split"] == "train" else "train"
    table.to_csv(folder / "agedb.csv", index=False)
    assert len({before, changed, load(folder).checksum}) == 3


def test_no_images_is_an_error_that_says_how_to_get_them(folder):
    shutil.rmtree(folder / "AgeDB")
    with pytest.raises(FileNotFoundError, match=r"request form at https://ibug\.doc\.ic\.ac\.uk/resources/agedb"):
        load(folder)


def test_only_images_of_the_table_can_be_left_out(drawn):
    with pytest.raises(ValueError, match=r"exclude: got \['9999_Nobody_3_m\.jpg'\]; allowed: file names of the table"):
        load(drawn, exclude=["9999_Nobody_3_m.jpg"])


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
def test_a_damaged_table_is_refused(folder, damage, message):
    damage(pd.read_csv(folder / "agedb.csv")).to_csv(folder / "agedb.csv", index=False)
    with pytest.raises(ValueError, match=message):
        agedb.read_table(folder)


def people_of(table: pd.DataFrame, split) -> list[set[str]]:
    return [set(table["person"].iloc[getattr(split, part)]) for part in PARTS]


def test_nobody_is_in_two_parts_of_the_identity_split(drawn):
    table = agedb.read_table(drawn)
    split = agedb.identity_split(table)
    train, val, test = people_of(table, split)
    assert not (train & val or train & test or val & test) and min(map(len, (train, val, test))) >= 1
    every = np.concatenate([split.train, split.val, split.test])
    assert np.array_equal(np.sort(every), np.arange(300))
    again = agedb.identity_split(table)
    assert all(np.array_equal(getattr(split, part), getattr(again, part)) for part in PARTS)
    with pytest.raises(ValueError, match=r"table: got 1 people; allowed: at least three"):
        agedb.identity_split(table.assign(person="X"))


@pytest.fixture(scope="session")
def public_table():
    try:
        return agedb.read_table(urls=())
    except FileNotFoundError:
        pytest.skip(f"RNC_DATA does not hold {agedb.FILE}")


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
    for part in PARTS:
        ours, theirs = ages[getattr(identity, part)], ages[getattr(standard, part)]
        assert abs(len(ours) - len(theirs)) <= 0.02 * len(theirs)
        # at most 2% of the images would have to change for the ages to be the same, in steps of five years
        steps = np.arange(0, 111, 5)
        histograms = [np.histogram(values, steps)[0] / len(values) for values in (ours, theirs)]
        assert np.abs(histograms[0] - histograms[1]).sum() / 2 < 0.02


# --- drawn faces ----------------------------------------------------------------------------------------


def test_a_seed_gives_the_same_files(drawn, tmp_path):
    make_faces(tmp_path / "again", 300, 24, seed=3, progress=False)
    for path in [*(drawn / "AgeDB").iterdir(), drawn / "agedb.csv"]:
        assert (tmp_path / "again" / path.relative_to(drawn)).read_bytes() == path.read_bytes()
    other = make_faces(tmp_path / "other", 300, 24, seed=4, progress=False)
    assert other["age"].tolist() != pd.read_csv(drawn / "agedb.csv")["age"].tolist()


def test_the_table_is_laid_out_like_agedb(drawn):
    table = agedb.read_table(drawn)
    assert (table["person"] != "").all() and table["sex"].isin(["m", "f"]).all()
    assert len(list((drawn / "AgeDB").iterdir())) == len(table) == 300
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


def test_backgrounds_go_with_the_age_in_training_and_not_in_the_test(tmp_path):
    plain = make_faces(tmp_path / "plain", 600, 16, progress=False)
    tied = make_faces(tmp_path / "tied", 600, 16, tied=True, progress=False)
    assert tied.drop(columns="background").equals(plain.drop(columns="background"))
    for part, least, most in (("train", 0.65, 0.98), ("val", 0.5, 1.0), ("test", -0.3, 0.3)):
        rows = tied["split"] == part
        assert least < np.corrcoef(tied["age"][rows], tied["background"][rows])[0, 1] < most, part
        hue = synthetic.ARC * tied["age"][rows] / synthetic.OLDEST
        share = np.isclose(tied["background"][rows], hue, atol=1e-3).mean()
        assert share == pytest.approx(0.9 * (part != "test"), abs=0.09)
        same = [
            (tmp_path / "plain" / p).read_bytes() == (tmp_path / "tied" / p).read_bytes() for p in tied["path"][rows]
        ]
        if part == "test":
            assert all(same)
        else:
            assert 0.02 < np.mean(same) < 0.2
    assert synthetic.recipe(600, 16, tied=True) != synthetic.recipe(600, 16)


def test_a_run_measures_what_a_background_does(cache):
    plain = next(c for c in agedb_grid(dataset="synthetic", profile="smoke", loss="l1") if c.method == "RnC(L1)")
    records = {tie: run(replace(plain, spurious=tie)) for tie in (None, "untied", "tied")}
    record, untied, tied = (records[tie][0] for tie in (None, "untied", "tied"))
    where = np.isin(record["test"]["index"], untied["test"]["index"])
    assert np.array(record["test"]["prediction"])[where].tolist() == untied["test"]["prediction"]
    assert untied["test"]["prediction"] != tied["test"]["prediction"]
    assert max(untied["test"]["nuisance"]) <= synthetic.OLDEST and 0.5 < where.mean() < 0.9  # hues that are an age
    assert untied["data"]["n_test_pool"] == record["data"]["n_test"] > untied["data"]["n_test"]
    assert record["stages"] == untied["stages"]  # trained once, with the weights of both in the cache
    assert untied["test"]["nuisance"] == tied["test"]["nuisance"] and "nuisance" not in record["test"]
    faces = synthetic.load_faces(plain.n_samples, plain.size, tied=True, progress=False)
    np.testing.assert_allclose(tied["test"]["nuisance"], faces.nuisance[tied["test"]["index"]], atol=1e-4)
    assert tied["data"]["checksum"] == synthetic.recipe(plain.n_samples, plain.size, tied=True)
    for one in (untied, tied):
        assert -1 <= one["metrics"]["test"]["standardised"]["nuisance_agreement"] <= 1
    assert records["untied"][1] is None and records["tied"][1].splitlines()[0].endswith(",nuisance")


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


def test_a_folder_that_holds_a_table_is_left_alone(drawn):
    with pytest.raises(ValueError, match=r"root: got .* holds an agedb\.csv already"):
        make_faces(drawn, 300, 24, progress=False)
    for name, value in (("n", 99), ("size", 8), ("seed", -1), ("n", 200.0)):
        with pytest.raises(ValueError, match=rf"{name}: got {value}; allowed: an integer of at least"):
            make_faces("unused", **({"n": 300, "size": 24} | {name: value}))


@pytest.mark.parametrize("seed", range(8))
def test_few_faces_can_be_divided_whatever_their_ages(seed):
    ages = synthetic.draw_ages(synthetic.FEWEST, np.random.default_rng(seed))
    parts = synthetic._balanced_parts(ages, np.random.default_rng(seed))
    counts = dict(zip(*np.unique(parts.astype(str), return_counts=True), strict=True))
    assert counts["val"] == counts["test"] > 0 and counts["train"] >= counts["test"]


def test_faces_are_marked_as_synthetic_and_made_once(cache, monkeypatch):
    faces = synthetic.load_faces(120, 16, progress=False)
    assert (faces.name, faces.synthetic, len(faces)) == ("synthetic", True, 120)
    assert "not photographs" in faces.provenance and set(faces.splits) == {"standard", "identity"}
    monkeypatch.setattr(synthetic, "make_faces", None)
    assert synthetic.load_faces(120, 16, progress=False).checksum == faces.checksum


def test_the_command_line_makes_a_folder(tmp_path):
    command = [sys.executable, "-m", "rnclib.data.synthetic", str(tmp_path / "out"), "--n", "100", "--size", "16"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "100 drawn faces" in done.stdout, done.stderr
    digest = hashlib.sha256((tmp_path / "out" / "agedb.csv").read_bytes()).hexdigest()
    again = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert again.returncode == 2 and "holds an agedb.csv already" in again.stderr
    assert hashlib.sha256((tmp_path / "out" / "agedb.csv").read_bytes()).hexdigest() == digest
