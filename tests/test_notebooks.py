"""Every notebook: a pair without outputs, guarded parameters, and a run to its end on each kind of data."""

from __future__ import annotations

import ast
import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jupytext
import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
import torch
from jupytext.compare import compare_notebooks
from PIL import Image

from rnclib import results
from rnclib.chapters import NAMES, ablations, chapter, experiments, methods
from rnclib.experiment import key
from rnclib.protocols.search import TUNED
from rnclib.recipe import REGRESSION_LOSSES

ROOT = Path(__file__).resolve().parents[1]
STORE = ROOT / "book" / "results"
TWO_KINDS = ("data_efficiency", "robustness", "ablations", "methods")


def notebook_of(name: str) -> Path:
    return ROOT / "notebooks" / f"{name}.ipynb"


def papermill(name: str, out: Path, **parameters: object) -> subprocess.CompletedProcess[str]:
    options = [word for one in parameters.items() for word in ("-p", *map(str, one))]
    return subprocess.run(
        [sys.executable, "-m", "papermill", str(notebook_of(name)), str(out), "--no-progress-bar", *options],
        cwd=ROOT,
        env=os.environ | {"RNC_CACHE": str(out.parent / "cache"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture
def execute(monkeypatch, tmp_path):
    """Runs the code of a notebook in this process, without the seconds that a kernel takes to start."""
    monkeypatch.setenv("RNC_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(ROOT)
    torch.set_num_threads(1)

    def show(value: object, **options: object) -> None:
        if value is not None and hasattr(value, "_repr_mimebundle_"):
            assert value._repr_mimebundle_()

    monkeypatch.setattr("IPython.display.display", show)

    def run(name: str, **parameters: object) -> str:
        """What it prints."""
        namespace: dict[str, object] = {"__name__": "__main__"}
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            for cell in nbformat.read(notebook_of(name), as_version=4).cells:
                if cell.cell_type != "code":
                    continue
                body = ast.parse(cell.source)
                last = body.body.pop() if body.body and isinstance(body.body[-1], ast.Expr) else None
                exec(compile(body, f"{name}.ipynb", "exec"), namespace)
                if last is not None:
                    show(eval(compile(ast.Expression(last.value), f"{name}.ipynb", "eval"), namespace))
                if "parameters" in cell.metadata.get("tags", []):
                    assert set(parameters) <= set(namespace)
                    namespace |= parameters
        return printed.getvalue()

    yield run
    plt.close("all")


@pytest.fixture(params=NAMES)
def name(request) -> str:
    return request.param


@pytest.fixture(params=NAMES)
def page(request) -> str:
    return request.param


# --- what is committed ----------------------------------------------------------------------------------


def test_there_is_a_notebook_for_each_chapter_and_no_other():
    assert {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")} == set(NAMES)


def test_both_forms_say_the_same_and_hold_no_outputs(name):
    stored = nbformat.read(notebook_of(name), as_version=4)
    twin = jupytext.read(notebook_of(name).with_suffix(".py"))
    compare_notebooks(stored, twin, fmt="py:percent", compare_outputs=False, raise_on_first_difference=True)
    for cell in stored.cells:
        assert not cell.get("outputs") and not cell.get("execution_count"), cell.source[:80]
    assert stored.metadata.kernelspec.name == "python3"
    prose = [cell.source for cell in stored.cells if cell.cell_type == "markdown"]
    assert sum(text.startswith("# ") for text in prose) == 1 and prose[0].startswith("# ")  # one title, first


def test_no_line_is_longer_than_a_page_is_wide(name):
    lines = notebook_of(name).with_suffix(".py").read_text(encoding="utf-8").splitlines()
    long = [line for line in lines if len(line) > 120 and "notebook_metadata_filter" not in line]
    assert long == []


def published(name: str) -> nbformat.NotebookNode:
    return nbformat.read(ROOT / "book" / "chapters" / f"{name}.ipynb", as_version=4)


def test_the_published_page_has_the_words_of_its_notebook(page):
    words = [
        [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]
        for notebook in (nbformat.read(notebook_of(page), as_version=4), published(page))
    ]
    assert words[0] == words[1]  # else: make chapters


def test_the_published_page_has_the_tables_and_figures_of_its_chapter(page):
    tables, figures = [], []
    for cell in published(page).cells:
        for output in cell.get("outputs", ()):
            lines = output.get("data", {}).get("text/markdown", "").splitlines()
            if lines and lines[0].startswith(":::{table}"):
                tables.append(lines[1].removeprefix(":name: "))
        if figure := cell.metadata.get("mystnb", {}).get("figure"):
            figures.append(figure["name"])
    assert tuple(tables) == chapter(page).tables
    assert tuple(figures) == chapter(page).figures


def test_the_published_page_was_made_with_the_parameters_of_its_notebook(page):
    assert not [cell for cell in published(page).cells if "injected-parameters" in cell.metadata.get("tags", [])]


def test_parameters_are_literals_and_are_checked_next(name):
    cells = nbformat.read(notebook_of(name), as_version=4).cells
    (position,) = [i for i, cell in enumerate(cells) if "parameters" in cell.metadata.get("tags", [])]
    names: dict[str, object] = {}
    exec(cells[position].source, {"__builtins__": {"str": str, "int": int, "float": float, "bool": bool}}, names)
    guard = next(cell for cell in cells[position + 1 :] if cell.cell_type == "code")
    assert "check_parameters(" in guard.source
    assert all(f"{one}=" in guard.source for one in names if one != "__annotations__")


def test_the_guard_of_the_design_choices_knows_them_all():
    source = notebook_of("ablations").with_suffix(".py").read_text()
    assert all(f'"{choice}",' in source for choice in (*ablations.CHOICES, "regressor"))


def quoted_labels(source: str) -> list[set[str]]:
    """Labels in the code of a notebook; one with a loss to fill in stands for those of all losses."""
    found, nodes = [], list(ast.walk(ast.parse(source)))
    inside = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            texts = {
                "".join(loss if isinstance(part, ast.FormattedValue) else part.value for part in node.values)
                for loss in REGRESSION_LOSSES.values()
            }
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
            texts = {node.value}
        else:
            continue
        if all(re.match(r"(RnC (frozen|fine-tuned), )|(\w+ end to end)(, |$)", text) for text in texts):
            found.append(texts)
    return found


def test_labels_in_the_code_of_a_notebook_are_those_of_its_methods(name):
    code = "\n".join(c.source for c in nbformat.read(notebook_of(name), as_version=4).cells if c.cell_type == "code")
    labels = {
        run.label
        for experiment in chapter(name).experiments
        for dataset in ("esol", "synthetic")
        if dataset in experiment.datasets
        for run in experiment.runs(dataset=dataset, profile="paper")
    }
    for texts in quoted_labels(code):
        assert texts & labels, f"{sorted(texts)}: no label of this chapter"
    assert quoted_labels('f"RnC frozen, {of}", "L1 end to end", "Test MAE"') == [
        {f"RnC frozen, {loss}" for loss in REGRESSION_LOSSES.values()}, {"L1 end to end"},
    ]  # fmt: skip


# --- numbers in conclusions -----------------------------------------------------------------------------

CONCLUSIONS = "## What this allows one to conclude"
NUMBER_WORDS = re.compile(
    r"\d|\b(one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|fifteen|sixteen|twenty|fifty|hundred|"
    r"half|halves|halved|halving|thirds?|quarters?|fifths?|sixths?|eighths?|tenths?|twentieth|twice|doubles?|doubled|"
    r"triple|dozens?)\b",
    re.IGNORECASE,
)
NO_NUMBERS = re.compile(r"\{\w+\}`[^`]*`|`[^`]*`|\$[^$]*\$|\*[^*\s][^*]*\*|\bL[12]\b")  # references, code, math, labels


def typed_numbers(cells: list) -> list[str]:
    """Sentences of the conclusions of a notebook in which a number, or a word for one, is typed and not computed."""
    at = next((i for i, cell in enumerate(cells) if cell.source.startswith(CONCLUSIONS)), len(cells))
    found = []
    for number, cell in enumerate(cells[at:]):
        if cell.cell_type == "markdown":
            texts = [cell.source.removeprefix(CONCLUSIONS)] if number == 0 else [cell.source]
        else:
            texts = spoken(ast.parse(cell.source))
        found += [text for text in texts if NUMBER_WORDS.search(NO_NUMBERS.sub("", text))]
    return found


def spoken(tree: ast.AST) -> list[str]:
    """The literal parts of the texts of a cell: of several words, no label of a method, docstring or query."""
    grids = [
        one.runs(dataset=dataset, profile="paper")
        for one in experiments().values()
        for dataset in ("esol", "synthetic")
        if dataset in one.datasets
    ]
    silent: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FormattedValue) and node.format_spec:
            silent |= {id(part) for part in ast.walk(node.format_spec)}
        if isinstance(node, ast.FunctionDef) and ast.get_docstring(node):
            silent.add(id(node.body[0].value))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "query":
            silent |= {id(part) for part in ast.walk(node)}
    texts = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in silent
    ]
    labels = {run.label for grid in grids for run in grid}
    return [text for text in texts if " " in text and text not in labels]


def test_conclusions_have_no_typed_number(name):
    cells = nbformat.read(notebook_of(name), as_version=4).cells
    assert typed_numbers(cells) == []


def test_a_typed_number_is_found_in_text_and_in_code():
    cells = [nbformat.v4.new_markdown_cell("Two before it."), nbformat.v4.new_markdown_cell(CONCLUSIONS)]
    assert typed_numbers(cells) == []
    good = 'Findings(f"**Lower** on {n} of {of:d} seeds ({{numref}}`table-2`), by {x:+.2f} years, *lr 0.01*")'
    cells.append(nbformat.v4.new_code_cell(good))
    cells.append(nbformat.v4.new_markdown_cell("That is $2^n$, of `L1` and L2, {doc}`../part-1`."))
    assert typed_numbers(cells) == []
    for bad in ("About half of the lead.", "On 5 splits.", "It is twice as far."):
        assert typed_numbers([*cells, nbformat.v4.new_markdown_cell(bad)]) == [bad]
        code = nbformat.v4.new_code_cell(f'Findings(f"{bad[:-1]} {{x}}")')
        assert typed_numbers([*cells, code]) == [f"{bad[:-1]} "]


def test_no_training_loop_lives_in_a_notebook():
    for name in NAMES:
        if name != "loss":  # it moves a handful of points, which is its subject
            source = notebook_of(name).with_suffix(".py").read_text()
            assert "backward(" not in source and "optim." not in source, name


# --- parameters that are refused ------------------------------------------------------------------------


def test_a_misspelt_parameter_ends_with_one_clear_line(name, tmp_path):
    done = papermill(name, tmp_path / "out.ipynb", n_seedz=3)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "n_seedz" in last and "allowed" in last


@pytest.mark.parametrize(
    ("name", "parameter", "value", "meant"),
    [("esol", "loss", "hubber", "huber"), ("agedb", "loss", "hubber", "huber"), ("claims", "profile", "papre", "paper"),
     *((name, "profile", "papre", "paper") for name in TWO_KINDS)],
)  # fmt: skip
def test_a_bad_value_is_refused_with_what_was_meant(execute, name, parameter, value, meant):
    from rnclib.parameters import ParameterError

    with pytest.raises(ParameterError) as caught:
        execute(name, **{parameter: value})
    assert str(caught.value).startswith(f"{parameter}: got '{value}' (did you mean '{meant}'?); allowed: ")


# --- runs of seconds ------------------------------------------------------------------------------------


# the longest are run in this process below, on one kind of data after the other, or measure what other tests do
LONGEST = ("data_efficiency", "robustness", "ablations", "methods", "benchmark")


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in LONGEST else n for n in NAMES])
def test_papermill_runs_the_profile_of_seconds_to_its_end(name, tmp_path):
    parameters = dict(chapter(name).smoke)
    if "profile" in parameters:
        parameters["results_dir"] = str(tmp_path / "results")
    done = papermill(name, tmp_path / "out.ipynb", **parameters)
    assert done.returncode == 0, done.stderr[-2000:]
    cells = nbformat.read(tmp_path / "out.ipynb", as_version=4).cells
    assert all(cell.execution_count for cell in cells if cell.cell_type == "code" and cell.source)


@pytest.mark.parametrize(
    ("name", "parameters", "left"),
    [
        # each kind of data alone; those that take longest are slow
        *(
            pytest.param(name, parameters, {left}, marks=pytest.mark.slow if slow else ())
            for name in TWO_KINDS
            for parameters, left, slow in (
                ({"molecules": "none"}, "synthetic", name in ("robustness", "methods", "data_efficiency")),
                ({"molecules": "standin", "faces": "none"}, "standin", True),
            )
        ),
        ("robustness", {"molecules": "none", "faces": "none"}, set()),
        ("ablations", {"molecules": "standin", "choice": "views"}, {"synthetic"}),
    ],
)
def test_it_runs_on_other_data(execute, tmp_path, name, parameters, left):
    execute(name, profile="smoke", results_dir=str(tmp_path / "results"), **parameters)
    records = results.load(tmp_path / "results", profile="smoke", experiment=name)
    assert {record["dataset"] for record in records} == left


@pytest.mark.parametrize(
    "parameters",
    [{"seed": 6, "temperature": 0.05}, pytest.param({"n_samples": 40}, marks=pytest.mark.slow)],
    ids=str,
)
def test_the_statements_on_the_loss_hold_for_other_parameters(execute, parameters):
    printed = execute("loss", **parameters)
    assert "all of them in order" in printed and "comparisons out of order" in printed


# --- published records ----------------------------------------------------------------------------------


@pytest.mark.parametrize("experiment", experiments())
@pytest.mark.parametrize("dataset", ["esol", "synthetic"])
def test_every_published_run_has_its_record(experiment, dataset):
    if dataset not in experiments()[experiment].datasets:
        pytest.skip(f"{experiment} is about other data")
    runs = experiments()[experiment].runs(dataset=dataset, profile="paper")
    keys = {record["key"] for record in results.load(STORE, profile="paper", experiment=experiment)}
    missing = {f"{run.label}, seed {run.seed}" for run in runs if key(run) not in keys}
    assert runs and missing == set(), "train them with profile paper, and commit their records"


@pytest.mark.parametrize("dataset", TUNED)
def test_the_methods_have_the_settings_that_the_published_search_chose(dataset):
    runs = experiments()["tuning"].runs(dataset=dataset, profile="paper")
    records = results.load(STORE, profile="paper", experiment="tuning", dataset=dataset)
    assert methods.best_trials(runs, records) == TUNED[dataset]


@pytest.fixture
def no_training(monkeypatch):
    monkeypatch.setattr("rnclib.grid.carry_out", lambda *_, **__: pytest.fail("it trained"))


@pytest.mark.usefixtures("no_training")
@pytest.mark.parametrize(
    ("loss", "split"),
    [
        ("l1", "random"),
        *(
            pytest.param(*it, marks=pytest.mark.slow)
            for it in (("l2", "both"), ("huber", "both"), ("huber", "scaffold"))
        ),
    ],
)
def test_the_published_runs_of_one_loss_are_loaded_without_training(execute, loss, split):
    printed = execute("esol", loss=loss, split=split)
    assert printed.startswith("esol, esol, paper: ") and " 0 trained now" in printed
    assert all(f"{name} end to end" not in printed for of, name in REGRESSION_LOSSES.items() if of != loss)


@pytest.mark.usefixtures("no_training")
def test_the_published_runs_with_less_data_are_loaded_without_training(execute):
    lines = execute("data_efficiency").splitlines()
    assert [line.partition(": ")[0] for line in lines] == [
        "data_efficiency, esol, paper", "data_efficiency, synthetic, paper",
    ]  # fmt: skip
    assert all(" 0 trained now" in line for line in lines)


# --- photographs ----------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("split", ["standard", pytest.param("identity", marks=pytest.mark.slow)])
def test_the_face_chapter_runs_on_a_folder_of_photographs(execute, photographs, tmp_path, split):
    data = {"dataset": "agedb", "data_dir": str(photographs), "split": split}
    execute("agedb", profile="smoke", results_dir=str(tmp_path / "results"), **data)
    records = results.load(tmp_path / "results", profile="smoke", experiment="agedb", dataset="agedb", split=split)
    assert len(records) == 7 and not any(record["data"]["synthetic"] for record in records)


@pytest.mark.parametrize(
    "name",
    [n if n == "ablations" else pytest.param(n, marks=pytest.mark.slow) for n in TWO_KINDS],
)
def test_the_chapters_on_the_claims_run_on_a_folder_of_photographs(execute, photographs, tmp_path, name):
    data = {"molecules": "none", "faces": "agedb", "data_dir": str(photographs)}
    execute(name, profile="smoke", results_dir=str(tmp_path / "results"), **data)
    records = results.load(tmp_path / "results", profile="smoke", experiment=name)
    assert records and {record["dataset"] for record in records} == {"agedb"}


def test_the_face_chapter_stops_at_a_photograph_that_cannot_be_read(photographs, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(photographs, damaged)
    first, second, *_ = sorted((damaged / "AgeDB").iterdir())
    first.write_bytes(first.read_bytes()[:500])
    second.unlink()
    done = papermill("agedb", tmp_path / "out.ipynb", profile="smoke", dataset="agedb", data_dir=damaged)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert f"missing: {second.name}" in last and f"cannot be read: {first.name}" in last
