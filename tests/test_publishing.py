"""The way from a notebook to a page of the book: run, cleaned, written."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rnclib.publishing import _literal, clean, main, publish
from rnclib.report import Figure

ROOT = Path(__file__).resolve().parents[1]


def notebook(*cells, **metadata):
    v4 = pytest.importorskip("nbformat").v4
    made = v4.new_notebook(metadata=metadata)
    for number, (source, tags, outputs) in enumerate(cells):
        made.cells.append(
            v4.new_code_cell(
                source,
                id=f"c{number}",
                metadata={"tags": tags, "papermill": {"duration": 1.0}, "execution": {"x": "y"}},
                outputs=outputs,
                execution_count=number + 7,
            )
        )
    return made


def output(kind, **content):
    from nbformat.v4 import new_output

    return new_output(kind, **content)


def test_cleaning_takes_off_what_differs_from_run_to_run():
    widget = {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": "  0%| "}
    here = Path.cwd()
    made = notebook(
        ("a = 1", ["injected-parameters"], []),
        (
            "run()",
            ["hide-input"],
            [
                output("stream", name="stderr", text=" 10%|#\r 20%|##"),
                output("stream", name="stdout", text="one\r"),
                output("stream", name="stdout", text="two\rthree\n"),
                output("stream", name="stdout", text=f"read {here}/x.json and {here}\n"),
                output("display_data", data=widget),
                output("display_data", data={"text/plain": "a", "text/html": "b", "text/markdown": "c"}),
                output("execute_result", data={"text/plain": "<Axes at 0x7f00deadbeef>"}, execution_count=9),
            ],
        ),
        ("", [], []),
        widgets={"state": {}},
        papermill={"input_path": "/somewhere/x.ipynb"},
        language_info={"name": "python", "version": "3.11.7"},
    )
    made.cells[0].id = "drawn-at-random"
    once = clean(made)
    text = json.dumps(once)
    for gone in ("widget", "papermill", "3.11.7", "10%", "two", "deadbeef", str(here), "drawn-at-random"):
        assert gone not in text
    assert [cell.execution_count for cell in once.cells] == [1, 2, None]
    assert once.cells[1].metadata == {"tags": ["hide-input"]} and once.cells[2].metadata == {}
    assert once.cells[1].outputs[0].text == "three\nread x.json and .\n"
    assert len(once.cells[1].outputs) == 3
    assert once.cells[1].outputs[1].data == {"text/html": "b", "text/markdown": "c"}
    assert json.dumps(clean(once)) == text, "cleaning twice changes nothing more"


def test_cleaning_hands_a_figure_to_the_book():
    pyplot = pytest.importorskip("matplotlib.pyplot")

    def figure(name):
        drawing, axes = pyplot.subplots(figsize=(2, 1))
        axes.plot([0, 1], [0, 1])
        data, metadata = Figure(drawing, "A *line*.", name=name, alt="Line")._repr_mimebundle_()
        return output("display_data", data=data, metadata=metadata)

    page = clean(notebook(("plot()", [], [figure("lines")])))
    assert page.cells[0].metadata["mystnb"] == {
        "figure": {"caption": "A *line*.", "name": "lines"},
        "image": {"alt": "Line"},
    }
    assert "rnclib_figure" not in json.dumps(page)
    with pytest.raises(ValueError, match=r"^cell: got several figures, lines, dots; allowed: one in a cell"):
        clean(notebook(("plot()", [], [figure("lines"), figure("dots")])))


def source_notebook(path, last_cell="print(loss)"):
    v4 = pytest.importorskip("nbformat").v4
    import nbformat

    cells = [
        v4.new_markdown_cell("# Small", id="title"),
        v4.new_code_cell('loss = "l1"\nn = 1', id="parameters", metadata={"tags": ["parameters"]}),
        v4.new_code_cell(
            "from rnclib.parameters import check_parameters\n"
            'check_parameters(globals(), loss=["l1", "huber"], n=(1, 9))',
            id="check",
        ),
        v4.new_code_cell(last_cell, id="last"),
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(v4.new_notebook(cells=cells, metadata=kernel), path)
    return path


@pytest.mark.filterwarnings("default")  # of the kernel's machinery
def test_publishing_runs_cleans_and_writes_the_same_page_twice(tmp_path, capfd):
    pytest.importorskip("papermill")
    source = source_notebook(tmp_path / "small.ipynb", "import sys\nprint(loss)\nprint('ha' + 'lf', file=sys.stderr)")
    page = publish(source, tmp_path / "book" / "local" / "small.ipynb", loss="huber")
    first = page.read_bytes()
    assert b"huber" in first and b"half" not in first and str(tmp_path).encode() not in first
    shown = capfd.readouterr().err
    assert "running" in shown and "half" in shown and "wrote" in shown and "IPKernelApp" not in shown
    assert [path.name for path in page.parent.iterdir()] == ["small.ipynb"]
    # From the shell; and a run that fails leaves the page as it was.
    assert main([str(source), str(page), "-p", "loss", "huber"]) == 0
    assert page.read_bytes() == first
    capfd.readouterr()
    assert main([str(source), str(page), "-p", "los", "huber"]) == 1
    last = capfd.readouterr().err.strip().splitlines()[-1]
    assert last == "ParameterError: unknown parameter 'los' (did you mean 'loss'?); allowed: loss, n"
    assert page.read_bytes() == first and [path.name for path in page.parent.iterdir()] == ["small.ipynb"]


def test_papermill_itself_ends_with_status_1_and_one_line(tmp_path):
    pytest.importorskip("papermill")
    source = source_notebook(tmp_path / "small.ipynb")
    started = time.monotonic()
    run = subprocess.run(
        [sys.executable, "-m", "papermill", str(source), str(tmp_path / "out.ipynb"), "-p", "loss", "hubber"],
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1
    assert time.monotonic() - started < 30
    last = run.stderr.strip().splitlines()[-1]
    assert last == "ParameterError: loss: got 'hubber' (did you mean 'huber'?); allowed: 'l1' or 'huber'"


def test_publishing_from_the_shell_goes_by_the_report(tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "rnclib.report", str(tmp_path / "absent.ipynb"), str(tmp_path / "page.ipynb")],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert (run.returncode, run.stdout) == (1, "")
    (line,) = run.stderr.splitlines()
    assert str(tmp_path / "absent.ipynb") in line
    assert list(tmp_path.iterdir()) == []
    usage = subprocess.run([sys.executable, "-m", "rnclib.report", "--help"], capture_output=True, text=True, cwd=ROOT)
    assert usage.returncode == 0 and usage.stdout.startswith("usage: python -m rnclib.report ")


def test_publishing_says_what_is_wrong(tmp_path):
    source = source_notebook(tmp_path / "small.ipynb")
    with pytest.raises(FileNotFoundError, match=r"^(no notebook|notebook: got) .*other\.ipynb"):
        publish(tmp_path / "other.ipynb", tmp_path / "page.ipynb")
    with pytest.raises(ValueError, match=r"^to: got '.*page\.html'; allowed: a path that ends in \.ipynb$"):
        publish(source, tmp_path / "page.html")
    before = source.read_bytes()
    with pytest.raises(ValueError, match=r"^to: got '.*small\.ipynb', the notebook itself; allowed: another file$"):
        publish(source, source)
    assert source.read_bytes() == before and [path.name for path in tmp_path.iterdir()] == ["small.ipynb"]


@pytest.mark.parametrize(
    ("text", "value"),
    [("3", 3), ("0.5", 0.5), ("1e-3", 1e-3), ("True", True), ("False", False), ("None", None), ("huber", "huber")],
)
def test_values_from_the_shell_are_read_as_papermill_reads_them(text, value):
    resolve = pytest.importorskip("papermill.cli")._resolve_type
    assert _literal(text) == value == resolve(text) and type(_literal(text)) is type(value)
