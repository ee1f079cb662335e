"""The catalogue against what its loaders give, and a new data set of each kind from its entry to a caption."""

from __future__ import annotations

import hashlib
import inspect
import json
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import ExifTags, Image

from rnclib import results
from rnclib.data import PARTS, Dataset, agedb, cache_dir, catalogue, group_split, public_file, synthetic, take
from rnclib.data.catalogue import KINDS, SOURCES, Source
from rnclib.data.images import Images, decode
from rnclib.data.molecules import Graphs, Molecules, graphs_from_smiles, inchi_skeletons
from rnclib.data.tables import near_duplicates
from rnclib.experiment import Run, Selection
from rnclib.fitting import fit
from rnclib.grid import run_grid
from rnclib.recipe import Recipe, Stage
from rnclib.training import Samples

ROOT = Path(__file__).resolve().parents[1]
TYPES = {"molecules": Graphs | Molecules, "images": Images, "table": np.ndarray}
MADE = ("standin", "agedb", "synthetic", "diabetes")  # here, or by what is installed in any case


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    """On disk and in memory: no test sees what another has loaded."""
    monkeypatch.setenv("RNC_CACHE", str(tmp_path / "cache"))
    catalogue._loaded.cache_clear()
    yield
    catalogue._loaded.cache_clear()


def found(reference):
    """What ``'module:function'`` names."""
    module, _, function = reference.partition(":")
    return getattr(import_module(module), function)


# --- entries and loaders --------------------------------------------------------------------------------


def test_the_catalogue_needs_no_torch():
    program = (
        "import sys; from rnclib.data import catalogue; catalogue.checksum('esol'); "
        "sys.exit(', '.join({'torch', 'pandas', 'rdkit'} & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("source", SOURCES.values(), ids=list(SOURCES))
def test_an_entry_speaks_of_its_loader(source):
    assert SOURCES[source.name] is source is catalogue.source(source.name)
    assert source.kind in KINDS and source.title and source.notice.startswith(source.title) and source.licence
    loader = inspect.signature(found(source.loader)).parameters
    correlated = {"correlated"} if source.nuisance == "drawn" else set()
    assert {*source.options} | correlated <= set(loader)
    assert all(loader[name].default is not inspect.Parameter.empty for name in set(loader) - {*dict(source.needs)})
    if source.sha256 and ":" in source.sha256:
        assert set(inspect.signature(found(source.sha256)).parameters) == {*source.options} | correlated
    if source.stands_in_for:
        measured = SOURCES[source.stands_in_for]
        assert measured.measured and not source.measured
        assert (source.kind, source.unit, source.splits) == (measured.kind, measured.unit, measured.splits)
    assert source.measured == ("ynthetic" not in source.title and "imulated" not in source.title)


@pytest.fixture
def options(agedb_folder):
    """The least that each loader needs; synthetic faces take the place of photographs."""
    return {
        "agedb": {"size": 21, "data_dir": str(agedb_folder)},
        "synthetic": {"size": 14, "n_samples": 100},
        "latitude": {"n": 100},
    }


@pytest.fixture(scope="module")
def usual_cache() -> Path | None:
    """The cache from before a test has one of its own."""
    try:
        return cache_dir()
    except FileNotFoundError:
        return None


@pytest.fixture
def at_hand(usual_cache, monkeypatch):
    """Load a data set from the files that this machine has; a test that needs others is left out."""
    import pooch

    def no_download(*_, **__):
        raise OSError("tests download nothing")

    def found(file, urls, sha256):
        mine, usual = cache_dir() / file, usual_cache and usual_cache / file
        if usual and usual.is_file():
            mine.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(usual, mine)
        return public_file(file, urls, sha256)

    def load(name: str, **options) -> Dataset:
        try:
            return catalogue.load(name, **options)
        except FileNotFoundError as error:
            if name in MADE or "is not at hand" not in str(error):
                raise
            pytest.skip(str(error).partition(".")[0])

    monkeypatch.setattr(pooch, "HTTPDownloader", lambda **_: no_download)
    for module in ("esol", "properties", "tables"):
        monkeypatch.setattr(f"rnclib.data.{module}.public_file", found)
    return load


def test_a_file_that_is_not_at_hand_leaves_a_test_out_and_another_file_does_not(at_hand, monkeypatch, tmp_path):
    monkeypatch.setenv("RNC_DATA", str(tmp_path))
    monkeypatch.setattr("rnclib.data.tables.public_file", public_file)
    with pytest.raises(pytest.skip.Exception, match="concrete"):
        at_hand("concrete")
    (tmp_path / "uci").mkdir()
    (tmp_path / "uci" / "concrete.csv").write_text("1,2\n")
    with pytest.raises(FileNotFoundError, match="is not the expected file"):
        at_hand("concrete")


@pytest.mark.parametrize("name", SOURCES)
def test_data_are_what_their_entry_says(name, options, at_hand):
    source, asked = SOURCES[name], options.get(name, {})
    data = at_hand(name, **asked)
    n = {"agedb": 300, "synthetic": 100, "latitude": 100}.get(name, source.n_samples)
    assert len(data) == len(data.inputs) == n
    assert data.targets.shape == (n,) and data.targets.dtype == np.float64 and np.isfinite(data.targets).all()
    assert isinstance(data.inputs, TYPES[source.kind])
    assert tuple(data.splits) == source.splits
    for make in data.splits.values():
        first, second = make(0), make(1)
        together = np.concatenate([getattr(first, part) for part in PARTS])
        assert len(set(together.tolist())) == len(together) and set(together) <= set(range(n))
        assert source.seeded != all(np.array_equal(getattr(first, part), getattr(second, part)) for part in PARTS)
    assert catalogue.checksum(name, **asked) == data.checksum and len(data.checksum) == 64
    assert (data.nuisance is None) == (source.nuisance is None)
    if source.nuisance == "selected":
        assert set(data.nuisance) == {0.0, 1.0}


def test_units_are_those_of_the_files():
    units = {
        "esol": "log mol/L", "standin": "log mol/L", "agedb": "years", "synthetic": "years", "aqsoldb": "log mol/L",
        "lipophilicity": "log D", "freesolv": "kcal/mol", "efflux": "log ratio", "logbb": "log ratio",
        "concrete": "MPa", "power-plant": "MW", "protein": "Å", "california": "100 000 $", "bike": "rentals",
        "airfoil": "dB", "abalone": "rings", "diabetes": "points", "kin8nm": "length", "naval": "coefficient",
        "latitude": "degrees",
    }  # fmt: skip
    assert {name: source.unit for name, source in SOURCES.items()} == units


def test_there_are_as_many_photographs_as_labels(public_table):
    assert SOURCES["agedb"].n_samples == len(public_table)


def test_the_least_values_of_options_are_those_of_the_loaders(agedb_folder, options):
    assert dict(SOURCES["synthetic"].needs)["n_samples"] == synthetic.FEWEST
    for name in ("agedb", "synthetic"):
        for option, least in SOURCES[name].needs:
            assert len(catalogue.load(name, **options[name] | {option: least})) > 0
            with pytest.raises(ValueError, match=r"allowed: an integer of at least"):
                catalogue.load(name, **options[name] | {option: least - 1})


def test_runs_of_seeds_or_of_splits_and_the_caption():
    assert (SOURCES["esol"].runs, SOURCES["agedb"].runs) == ("splits", "seeds")
    assert SOURCES["esol"].caption("paper") == "ESOL, random split"
    assert SOURCES["esol"].caption("quick", "size") == "ESOL, size split, profile quick"
    assert SOURCES["synthetic"].caption("smoke", "identity") == "Synthetic faces, identity split, profile smoke"
    assert SOURCES["agedb"].options == ("size", "exclude", "data_dir")


@pytest.mark.parametrize("name", ["x", "ESOL", "auto", ""])
def test_an_unknown_data_set_is_refused(name):
    known = ", ".join(repr(one) for one in SOURCES)
    assert known.startswith("'esol', 'standin', 'agedb', 'synthetic', 'aqsoldb', ")
    message = rf"^dataset: got '{name}'; allowed: {known}$"
    for ask in (catalogue.source, catalogue.load, catalogue.checksum):
        with pytest.raises(ValueError, match=message):
            ask(name)


def toy(loader, name="toy", **changes) -> Source:
    """An entry for a loader."""
    entry = {
        "title": "Toy table", "kind": "table", "samples": "rows", "unit": "mm", "splits": ("random",), "measured": True,
        "notice": "Toy table: numbers.", "licence": "none",
    }  # fmt: skip
    return Source(name, loader=loader, **entry | changes)


@pytest.mark.parametrize(("name", "value"), [("kind", "text"), ("splits", ())])
def test_a_bad_entry_is_refused(name, value):
    with pytest.raises(ValueError, match=rf"^{name}: got .*; allowed: "):
        toy(lambda: None, **{name: value})


def test_an_option_that_the_loader_does_not_take_is_an_error():
    with pytest.raises(TypeError, match="unexpected keyword argument 'colour'"):
        catalogue.load("synthetic", size=16, n_samples=100, colour="red")


# --- loading --------------------------------------------------------------------------------------------


def test_data_are_loaded_once_for_each_source_and_options(monkeypatch):
    asked = []

    def load(n: int = 3, factor: float = 1.0) -> Dataset:
        asked.append((n, factor))
        return Dataset(np.ones((n, 2)), np.full(n, factor), checksum=f"{n} {factor}")

    monkeypatch.setitem(SOURCES, "toy", toy(load))
    first = catalogue.load("toy", n=4, factor=2.0)
    assert catalogue.load("toy", factor=2.0, n=4) is first  # in whatever order
    assert catalogue.checksum("toy", n=4, factor=2.0) == "4 2.0"
    assert asked == [(4, 2.0)]
    assert len(catalogue.load("toy")) == 3 and len(catalogue.load("toy", n=5)) == 5
    assert asked == [(4, 2.0), (3, 1.0), (5, 1.0)]
    monkeypatch.setitem(SOURCES, "toy", toy(lambda **_: first, unit="cm"))  # another source of the same name
    assert catalogue.load("toy") is first


def test_data_that_could_not_be_loaded_are_tried_again(monkeypatch):
    answers = [FileNotFoundError("not yet"), Dataset(np.ones((3, 2)), np.ones(3), checksum="0")]

    def load() -> Dataset:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setitem(SOURCES, "toy", toy(load))
    with pytest.raises(FileNotFoundError, match="not yet"):
        catalogue.load("toy")
    assert len(catalogue.load("toy")) == 3


def test_a_checksum_is_found_without_loading_where_it_can_be(monkeypatch):
    for name in ("rnclib.data.esol.load_esol", "rnclib.data.synthetic.load_faces", "rnclib.data.synthetic.make_faces"):
        monkeypatch.setattr(name, lambda *_, **__: pytest.fail("it was loaded"))
    assert catalogue.checksum("esol") == "8c06a76f0c6487d29ab0f903e6a7a7139f189ab3c1178f159c8be8964602f189"
    asked = {"n_samples": 120, "size": 16}
    plain = catalogue.checksum("synthetic", **asked)
    assert plain == synthetic.recipe(120, 16) == hashlib.sha256(b"faces 1 120 16 0").hexdigest()
    others = [catalogue.checksum("synthetic", **asked | {"data_seed": 1}),
              catalogue.checksum("synthetic", **asked, correlated=True)]  # fmt: skip
    assert others[1] == hashlib.sha256(b"faces 1 120 16 0 tied").hexdigest() and len({plain, *others}) == 3
    monkeypatch.setitem(SOURCES, "toy", toy(lambda: pytest.fail("it was loaded"), sha256=lambda: "ff"))
    assert catalogue.checksum("toy") == "ff"


# --- a new data set: a function that loads it and one entry ----------------------------------------------

ALCOHOLS = [f"{'C' * n}{end}" for n in range(1, 13) for end in ("O", "(C)O", "C(O)CO")]


def load_alcohols() -> Dataset:
    targets = np.array([smiles.count("C") - 0.5 * smiles.count("O") for smiles in ALCOHOLS])
    text = "\n".join(ALCOHOLS)
    return Dataset(
        inputs=graphs_from_smiles(ALCOHOLS),
        targets=targets,
        checksum=hashlib.sha256(text.encode()).hexdigest(),
        splits={"random": lambda seed: group_split(ALCOHOLS, seed, fractions=(0.6, 0.2, 0.2))},
    )


def load_bars(size: int, data_dir: str) -> Dataset:
    """Pictures with a bright bar; the target, its height, is in the name of the file."""
    paths = sorted(Path(data_dir).glob("*.jpg"))
    images, checksum = decode(paths, size, progress=False, upright=True)
    targets = np.array([float(path.stem.split("_")[1]) for path in paths])
    splits = {"random": lambda seed: group_split(range(len(paths)), seed, fractions=(0.6, 0.2, 0.2))}
    return Dataset(images, targets, checksum, splits)


def load_rows() -> Dataset:
    x = np.random.default_rng(0).normal(size=(60, 3))
    x[::7, 1] = np.nan  # a value that is missing
    splits = {"random": lambda seed: group_split(range(60), seed, fractions=(0.6, 0.2, 0.2))}
    return Dataset(x, 10 + 3 * x[:, 0] - x[:, 2], hashlib.sha256(x.tobytes()).hexdigest(), splits)


def bars(folder: Path) -> None:
    """40 pictures of 16 pixels; every other one lies on its side and says so."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for i in range(40):
        height = int(rng.integers(1, 16))
        picture = rng.integers(0, 40, (16, 16, 3), dtype=np.uint8)
        picture[:height] = 220
        exif = Image.Exif()
        if i % 2:  # turned back to the right by whoever heeds the orientation
            picture = np.rot90(picture)
            exif[ExifTags.Base.Orientation] = 6
        Image.fromarray(picture).save(folder / f"{i:02d}_{height}.jpg", exif=exif, quality=95)


STAGE = Stage("l1", epochs=2, batch_size=16, learning_rate=0.01, lr_decay_rate=0.1, weight_decay=0.0)
CONTRASTIVE = Stage(
    "rnc", epochs=2, batch_size=16, learning_rate=0.01, lr_decay_rate=0.1, weight_decay=0.0,
    temperature=2.0, label_diff="l1", feature_sim="l2",
)  # fmt: skip


def road(name: str, model: str, tmp_path: Path, data: Selection, **settings):
    """Runs of three methods from the entry to the table, all through the store; gives the data."""
    recipes = [
        Recipe(model, fit=STAGE, **settings),
        Recipe(model, pretrain=CONTRASTIVE, fit=STAGE, freeze=True, **settings),
        Recipe("training mean"),
    ]
    runs = [Run("toys", "smoke", recipe.label(), 0, data, recipe) for recipe in recipes]
    grid = run_grid(runs, results_dir=tmp_path / "store", progress=False)
    assert (len(grid.trained), len(grid.loaded)) == (3, 0)
    again = run_grid(runs, results_dir=tmp_path / "store", progress=False)
    assert (len(again.trained), len(again.loaded)) == (0, 3)
    assert again.records == json.loads(json.dumps(grid.records))  # tuples are lists in the store

    stored = results.load(tmp_path / "store", profile="smoke", experiment="toys", dataset=name)
    assert sorted(record["key"] for record in stored) == sorted(record["key"] for record in grid.records)
    runs_frame = results.frame(grid.records)
    assert runs_frame["method"].tolist() == ["L1 end to end", "RnC frozen, L1", "training mean"]
    assert set(runs_frame["dataset"]) == {name} and runs_frame["test_mae_raw"].notna().all()

    loaded, source = catalogue.load(name, **data.options), catalogue.source(name)
    split = loaded.splits["random"](0)
    for record in grid.records:
        assert record["data"]["checksum"] == loaded.checksum and record["data"]["unit"] == source.unit
        assert record["data"]["synthetic"] == (not source.measured)
        assert record["test"]["index"] == split.test.tolist() and record["diverged"] is None
        np.testing.assert_allclose(record["test"]["target"], loaded.targets[split.test], atol=1e-4)
    constant = np.abs(loaded.targets[split.train].mean() - loaded.targets[split.test]).mean()
    assert runs_frame["test_mae_raw"].iloc[-1] == pytest.approx(constant, rel=1e-5)
    # each network saw the samples of its own set, as if they were handed to it without any store
    torch.set_num_threads(1)  # as runs of a grid have
    train, val = (Samples(take(loaded.inputs, index), loaded.targets[index]) for index in (split.train, split.val))
    for record, recipe in zip(grid.records[:2], recipes, strict=False):
        prediction = fit(recipe, train, val, seed=0).predict(take(loaded.inputs, split.test))
        np.testing.assert_allclose(record["test"]["prediction"], prediction, atol=2e-3)
    return loaded


def test_new_molecules_from_an_entry_to_a_caption(monkeypatch, tmp_path):
    entry = toy(f"{__name__}:load_alcohols", "alcohols", title="Alcohols", kind="molecules", n_samples=len(ALCOHOLS))
    monkeypatch.setitem(catalogue.SOURCES, "alcohols", entry)
    loaded = road("alcohols", "gin", tmp_path, Selection("alcohols", "random"))
    assert len(loaded) == entry.n_samples == 36
    assert entry.caption("smoke") == "Alcohols, random split, profile smoke"


def test_new_images_from_an_entry_to_a_caption(monkeypatch, tmp_path):
    entry = toy(
        f"{__name__}:load_bars", "bars", title="Bars", kind="images", needs=(("size", 8),), takes=("data_dir",),
        measured=False,
    )  # fmt: skip
    monkeypatch.setitem(catalogue.SOURCES, "bars", entry)
    bars(tmp_path / "pictures")
    data = Selection("bars", "random", size=14, data_dir=str(tmp_path / "pictures"))
    loaded = road("bars", "small", tmp_path, data)
    bright = (loaded.inputs.pixels.float().mean((2, 3)) > 128).sum(1)
    assert np.abs(bright.numpy() - loaded.targets).max() <= 1  # all were turned upright
    assert entry.caption("smoke") == "Bars, random split, profile smoke"
    with pytest.raises(ValueError, match=r"^size: got 7; allowed: an integer of at least 8 with dataset='bars'"):
        Selection("bars", "random", size=7)


def test_a_new_table_from_an_entry_to_a_caption(monkeypatch, tmp_path):
    monkeypatch.setitem(catalogue.SOURCES, "rows", toy(f"{__name__}:load_rows", "rows", n_samples=60))
    road("rows", "perceptron", tmp_path, Selection("rows", "random"), widths=(8, 4), scaling="standard")
    assert catalogue.source("rows").caption("smoke") == "Toy table, random split, profile smoke"
    with pytest.raises(ValueError, match=r"model: got 'gin' with dataset='rows'; allowed: one for table"):
        Run("toys", "smoke", "x", 0, Selection("rows", "random"), Recipe("gin", fit=STAGE))


# --- the page -------------------------------------------------------------------------------------------


FIRST = ("esol", "agedb", "standin", "synthetic")  # each of them has a section of its own


def rows_of(label: str) -> dict[str, list[str]]:
    """The table of the page by that name: what stands beside each title, without citations and thin spaces."""
    page = (ROOT / "book" / "data.md").read_text(encoding="utf-8")
    (table,) = [one.split("\n:::", 1)[0] for one in page.split(":::{table}")[1:] if f"\n:name: {label}\n" in one]
    lines = [line for line in table.splitlines() if line.startswith("|")]
    rows = [[cell.strip().replace("\u202f", "") for cell in line.strip("|").split("|")] for line in lines]
    assert len({len(row) for row in rows}) == 1
    return {row[0].split(" {cite")[0]: row[1:] for row in rows[2:]}


def test_the_tables_of_the_book_have_every_data_set_as_the_catalogue_does():
    first, tasks = rows_of("data-sets"), rows_of("task-sets")
    assert list(first) == [SOURCES[name].title for name in FIRST]
    assert list(tasks) == [source.title for name, source in SOURCES.items() if name not in FIRST]
    files = {name: source.sha256 for name, source in SOURCES.items() if source.sha256 and ":" not in source.sha256}
    files |= {"agedb": agedb.SHA256}
    for name, source in SOURCES.items():
        samples, target, *further, licence, checksum = first[source.title] if name in FIRST else tasks[source.title]
        assert len(further) == (0 if name in FIRST else 3)
        assert licence == source.licence and target.endswith(f", {source.unit}")
        assert target.startswith("not measured") == (not source.measured)
        assert samples == str(source.n_samples or "any number")
        assert checksum == (f"`{files[name][:12]}`" if name in files else "")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name in ("aqsoldb", "lipophilicity", "latitude") else name
        for name in SOURCES
        if name not in FIRST[1:]
    ],
)
def test_counts_on_the_page_are_those_of_the_data(name, at_hand):
    """How many values the target has, and how many samples nearly repeat another: those beyond the first of a group."""
    data = at_hand(name)
    n_values, n_repeats = len(np.unique(data.targets)), None
    if isinstance(data.inputs, Graphs | Molecules):
        n_repeats = len(data) - len(set(inchi_skeletons(data.inputs.smiles)))
    elif isinstance(data.inputs, np.ndarray):
        n_repeats = len(data) - len(np.unique(near_duplicates(data.inputs)))
    if name == "esol":
        assert (n_values, n_repeats) == (734, 13)
        return
    _, _, values, _, repeats, _, _ = rows_of("task-sets")[SOURCES[name].title]
    assert (values, repeats) == (str(n_values), "–" if n_repeats is None else str(n_repeats))


@pytest.mark.slow
def test_what_the_page_says_of_molecules_that_data_sets_share(at_hand):
    esol, aqsoldb, freesolv = (
        set(inchi_skeletons(at_hand(name).inputs.smiles)) for name in ("esol", "aqsoldb", "freesolv")
    )
    assert not esol & aqsoldb
    assert len(freesolv & (esol | aqsoldb)) == 564 and len(freesolv & aqsoldb) == 199


def test_what_the_page_says_of_noise(at_hand):
    data = at_hand("logbb")
    targets = pd.Series(data.targets).groupby(inchi_skeletons(data.inputs.smiles))
    spread = targets.max() - targets.min()
    assert (targets.size() > 1).sum() == 111 and (spread > 0).sum() == 40 and spread.max() == pytest.approx(1.4)


def test_what_the_page_says_of_concrete(at_hand):
    data = at_hand("concrete")
    _, mixture = np.unique(data.inputs[:, :-1], axis=0, return_inverse=True)  # all but the age
    assert mixture.max() + 1 == 427
    published, random = data.splits["published"](0), data.splits["random"](0)
    learnt = np.concatenate([published.train, published.val])
    assert np.isin(mixture[published.test], mixture[learnt]).sum() == 160
    near = near_duplicates(data.inputs)
    assert np.isin(near[published.test], near[learnt]).sum() == 11
    assert np.isin(mixture[random.test], mixture[random.train]).mean() > 0.7
