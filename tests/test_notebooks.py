"""Every notebook: a pair without outputs, guarded parameters, and a run in seconds."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import jupytext
import nbformat
import numpy as np
import pytest
from jupytext.compare import compare_notebooks
from PIL import Image

from rnclib import results
from rnclib.experiment import key
from rnclib.protocols import (
    ABLATIONS,
    TUNED,
    ablations_grid,
    agedb_grid,
    best_trials,
    efficiency_grid,
    esol_grid,
    methods_grid,
    robustness_grid,
    tuning_grid,
)

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SMOKE = {
    "esol": ["-p", "profile", "smoke", "-p", "split", "random", "-p", "dataset", "standin"],
    "agedb": ["-p", "profile", "smoke"],
    "benchmark": ["-p", "profile", "smoke"],
    "data_efficiency": ["-p", "profile", "smoke", "-p", "molecules", "standin"],
    "robustness": ["-p", "profile", "smoke", "-p", "molecules", "standin"],
    "claims": ["-p", "profile", "smoke"],
    "ablations": ["-p", "profile", "smoke", "-p", "molecules", "standin"],
    "methods": ["-p", "profile", "smoke", "-p", "molecules", "standin"],
}
TWO_KINDS = ("data_efficiency", "robustness", "ablations", "methods")


def papermill(notebook: Path, out: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "papermill", str(notebook), str(out), "--no-progress-bar", *options],
        cwd=ROOT,
        env=os.environ | {"RNC_CACHE": str(out.parent / "cache"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request) -> Path:
    return request.param


def test_there_are_notebooks():
    assert {"esol", "loss"} <= {path.stem for path in NOTEBOOKS}


def test_both_forms_say_the_same_and_hold_no_outputs(notebook):
    stored = nbformat.read(notebook, as_version=4)
    twin = jupytext.read(notebook.with_suffix(".py"))
    compare_notebooks(stored, twin, fmt="py:percent", compare_outputs=False, raise_on_first_difference=True)
    for cell in stored.cells:
        assert not cell.get("outputs") and not cell.get("execution_count"), cell.source[:80]
    assert stored.metadata.kernelspec.name == "python3"
    prose = [cell.source for cell in stored.cells if cell.cell_type == "markdown"]
    assert sum(text.startswith("# ") for text in prose) == 1 and prose[0].startswith("# ")  # one title, first


def test_the_published_page_has_the_words_of_its_notebook(notebook):
    published = nbformat.read(ROOT / "book" / "chapters" / notebook.name, as_version=4)
    words = [
        [cell.source for cell in nb.cells if cell.cell_type == "markdown"]
        for nb in (nbformat.read(notebook, as_version=4), published)
    ]
    assert words[0] == words[1]  # else: make chapters


def test_parameters_are_literals_and_are_checked_next(notebook):
    cells = nbformat.read(notebook, as_version=4).cells
    (position,) = [i for i, cell in enumerate(cells) if "parameters" in cell.metadata.get("tags", [])]
    names: dict[str, object] = {}
    exec(cells[position].source, {"__builtins__": {"str": str, "int": int, "float": float, "bool": bool}}, names)
    guard = next(cell for cell in cells[position + 1 :] if cell.cell_type == "code")
    assert "check_parameters(" in guard.source
    assert all(f"{name}=" in guard.source for name in names if name != "__annotations__")


def test_the_guard_of_the_design_choices_knows_them_all():
    source = (ROOT / "notebooks" / "ablations.py").read_text()
    assert all(f'"{choice}",' in source for choice in (*ABLATIONS, "regressor"))


def test_no_training_loop_lives_in_a_notebook():
    for path in NOTEBOOKS:
        if path.stem != "loss":  # it moves a handful of points, which is its subject
            source = path.with_suffix(".py").read_text()
            assert "backward(" not in source and "optim." not in source, path.name


def test_a_misspelt_parameter_ends_with_one_clear_line(notebook, tmp_path):
    done = papermill(notebook, tmp_path / "out.ipynb", "-p", "n_seedz", "3")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "n_seedz" in last and "allowed" in last


@pytest.mark.parametrize(
    ("name", "parameter", "value", "meant"),
    [("esol", "loss", "hubber", "huber"), ("agedb", "loss", "hubber", "huber"), ("claims", "profile", "papre", "paper"),
     *((name, "profile", "papre", "paper") for name in TWO_KINDS)],
)  # fmt: skip
def test_a_bad_value_ends_with_one_clear_line(tmp_path, name, parameter, value, meant):
    done = papermill(ROOT / "notebooks" / f"{name}.ipynb", tmp_path / "out.ipynb", "-p", parameter, value)
    assert done.returncode == 1
    assert f"{parameter}: got '{value}' (did you mean '{meant}'?)" in done.stderr.strip().splitlines()[-1]


def test_it_runs_in_seconds(notebook, tmp_path):
    options = SMOKE.get(notebook.stem, [])
    if options:
        options = [*options, "-p", "results_dir", str(tmp_path / "results")]
    done = papermill(notebook, tmp_path / "out.ipynb", *options)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *((name, ["-p", "molecules", "none"]) for name in TWO_KINDS),
        *((name, ["-p", "molecules", "standin", "-p", "faces", "none"]) for name in TWO_KINDS),
        ("robustness", ["-p", "molecules", "none", "-p", "faces", "none"]),
        ("ablations", ["-p", "molecules", "standin", "-p", "choice", "views"]),
    ],
)
def test_it_runs_on_other_data(tmp_path, name, options):
    store = ["-p", "profile", "smoke", "-p", "results_dir", str(tmp_path / "results")]
    done = papermill(ROOT / "notebooks" / f"{name}.ipynb", tmp_path / "out.ipynb", *options, *store)
    assert done.returncode == 0, done.stderr[-2000:]


PUBLISHED = {
    "esol, random": esol_grid(dataset="esol", profile="paper", split="random"),
    "esol, scaffold": esol_grid(dataset="esol", profile="paper", split="scaffold"),
    "agedb, drawn faces": agedb_grid(dataset="synthetic", profile="paper"),
    "data_efficiency, esol": efficiency_grid(dataset="esol", profile="paper"),
    "robustness, esol": robustness_grid(dataset="esol", profile="paper"),
    "robustness, drawn faces": robustness_grid(dataset="synthetic", profile="paper"),
    "ablations, esol": ablations_grid(dataset="esol", profile="paper"),
    "tuning, esol": tuning_grid(dataset="esol", profile="paper"),
    "methods, esol": methods_grid(dataset="esol", profile="paper"),
    "tuning, drawn faces": tuning_grid(dataset="synthetic", profile="paper"),
    "methods, drawn faces": methods_grid(dataset="synthetic", profile="paper"),
    "ablations, drawn faces": ablations_grid(dataset="synthetic", profile="paper"),
    "data_efficiency, drawn faces": efficiency_grid(dataset="synthetic", profile="paper"),
}


@pytest.mark.parametrize("chapter", PUBLISHED)
def test_every_published_run_has_its_record(chapter):
    grid = PUBLISHED[chapter]
    stored = results.load(ROOT / "book" / "results", profile="paper", experiment=grid[0].experiment)
    keys = {record["key"] for record in stored}
    assert [config for config in grid if key(config) not in keys] == []


@pytest.mark.parametrize("dataset", TUNED)
def test_the_methods_have_the_settings_that_the_published_search_chose(dataset):
    keys = {key(config) for config in tuning_grid(dataset=dataset, profile="paper")}
    stored = results.load(ROOT / "book" / "results", profile="paper", experiment="tuning", dataset=dataset)
    assert best_trials([record for record in stored if record["key"] in keys]) == TUNED[dataset]


def printed(notebook: Path) -> str:
    cells = nbformat.read(notebook, as_version=4).cells
    return "".join(output.get("text", "") for cell in cells for output in cell.get("outputs", []))


@pytest.mark.parametrize(
    ("loss", "split"), [("huber", "both"), ("l2", "both"), ("huber", "scaffold"), ("l1", "random")]
)
def test_the_published_runs_of_one_loss_are_loaded_without_training(tmp_path, loss, split):
    for kind in ("random", "scaffold"):
        test_every_published_run_has_its_record(f"esol, {kind}")  # else this would train for hours
    out = tmp_path / "out.ipynb"
    done = papermill(ROOT / "notebooks" / "esol.ipynb", out, "-p", "loss", loss, "-p", "split", split)
    assert done.returncode == 0, done.stderr[-2000:]
    text = printed(out)
    assert f"esol, paper, {'random' if split == 'both' else split} split" in text and " 0 trained now" in text


def test_the_published_runs_with_less_data_are_loaded_without_training(tmp_path):
    for data in ("esol", "drawn faces"):
        test_every_published_run_has_its_record(f"data_efficiency, {data}")
    out = tmp_path / "out.ipynb"
    done = papermill(ROOT / "notebooks" / "data_efficiency.ipynb", out)
    assert done.returncode == 0, done.stderr[-2000:]
    assert [line for line in printed(out).splitlines() if ", paper: " in line and " 0 trained now" not in line] == []
    assert "esol, paper: " in printed(out) and "synthetic, paper: " in printed(out)


@pytest.mark.parametrize("options", [["-p", "seed", "6"], ["-p", "n_samples", "40"], ["-p", "temperature", "0.05"]])
def test_the_statements_on_the_loss_hold_for_other_parameters(tmp_path, options):
    done = papermill(ROOT / "notebooks" / "loss.ipynb", tmp_path / "out.ipynb", *options)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """200 images of noise, named and listed as AgeDB's are."""
    root, rng = tmp_path_factory.mktemp("agedb"), np.random.default_rng(0)
    (root / "AgeDB").mkdir()
    rows = []
    for i in range(200):
        age, side = int(rng.integers(1, 101)), rng.integers(30, 90, 2)
        path = f"AgeDB/{i}_Some{'ABCDEFGHIJ'[i % 10]}body_{age}_{'mf'[i % 2]}.jpg"
        Image.fromarray(rng.integers(0, 256, (*side, 3), dtype=np.uint8)).save(root / path)
        rows.append(f"{age},{path},{'val' if i % 8 == 0 else 'test' if i % 8 == 1 else 'train'}")
    (root / "agedb.csv").write_text("age,path,split\n" + "\n".join(rows) + "\n")
    return root


@pytest.mark.parametrize("split", ["standard", "identity"])
def test_the_face_chapter_runs_on_a_folder_of_photographs(photographs, tmp_path, split):
    options = [
        "-p",
        "profile",
        "smoke",
        "-p",
        "dataset",
        "agedb",
        "-p",
        "data_dir",
        str(photographs),
        "-p",
        "split",
        split,
    ]
    store = ["-p", "results_dir", str(tmp_path / "results")]
    done = papermill(ROOT / "notebooks" / "agedb.ipynb", tmp_path / "out.ipynb", *options, *store)
    assert done.returncode == 0, done.stderr[-2000:]
    records = results.load(tmp_path / "results", profile="smoke", experiment="agedb", dataset="agedb", split=split)
    assert len(records) == 7 and not any(record["data"]["synthetic"] for record in records)


@pytest.mark.parametrize("name", TWO_KINDS)
def test_the_chapters_on_the_claims_run_on_a_folder_of_photographs(photographs, tmp_path, name):
    options = ["-p", "molecules", "none", "-p", "faces", "agedb", "-p", "data_dir", str(photographs)]
    store = ["-p", "profile", "smoke", "-p", "results_dir", str(tmp_path / "results")]
    done = papermill(ROOT / "notebooks" / f"{name}.ipynb", tmp_path / "out.ipynb", *options, *store)
    assert done.returncode == 0, done.stderr[-2000:]
    records = results.load(tmp_path / "results", profile="smoke", experiment=name)
    assert records and {record["dataset"] for record in records} == {"agedb"}


def test_the_face_chapter_stops_at_a_photograph_that_cannot_be_read(photographs, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(photographs, damaged)
    first, second, *_ = sorted((damaged / "AgeDB").iterdir())
    first.write_bytes(first.read_bytes()[:500])
    second.unlink()
    options = ["-p", "profile", "smoke", "-p", "dataset", "agedb", "-p", "data_dir", str(damaged)]
    done = papermill(ROOT / "notebooks" / "agedb.ipynb", tmp_path / "out.ipynb", *options)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert f"missing: {second.name}" in last and f"cannot be read: {first.name}" in last
