"""Tables, figures, the check of notebook parameters, and the way from a notebook to a page."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rnclib.report import (
    DATA,
    Figure,
    Notice,
    ParameterError,
    Table,
    check_parameters,
    clean,
    data_notice,
    differences_table,
    glue,
    main,
    publish,
)

ROOT = Path(__file__).resolve().parents[1]


def frame():
    return pd.DataFrame(
        {
            "method": ["end to end", "RnC"],
            "mae": [0.24649, -0.0001],
            "n": [20, 3],
            "interval": ["0.24 to 0.26", None],
        }
    )


# --- tables ---------------------------------------------------------------------------------------------


def test_table_shows_columns_in_order_with_headings_formats_and_sides():
    table = Table(
        frame(),
        "Errors.",
        name="esol-errors",
        columns={"n": "Runs", "method": "Method", "mae": "MAE", "interval": "95%"},
        format={"mae": ".2f"},
        align={"interval": "right"},
    )
    assert table.headings == ["Runs", "Method", "MAE", "95%"]
    assert table.sides == ["right", "left", "right", "right"]
    assert table.rows == [["20", "end to end", "0.25", "0.24 to 0.26"], ["3", "RnC", "0.00", "–"]]
    lines = table.markdown().splitlines()
    assert lines[:3] == [":::{table} Errors.", ":name: esol-errors", ""]
    assert lines[4].startswith("|-----:|:----") and lines[-1] == ":::"
    assert len({len(line) for line in lines[3:-1]}) == 1, "columns line up"


@pytest.mark.parametrize(
    ("value", "format", "shown"),
    [
        (1.23456, None, "1.235"),
        (1.23456, ".1f", "1.2"),
        (-1.5, ".1f", "−1.5"),
        (-0.0004, ".3f", "0.000"),
        (float("nan"), ".3f", "–"),
        (None, ".3f", "–"),
        (pd.NA, ".3f", "–"),
        (np.float32(0.5), ".2f", "0.50"),
        (np.int64(7), ".2f", "7"),
        (True, None, "True"),
        ("a  b\nc", None, "a b c"),
        (0.5, {"x": lambda value: f"{value:.0%}"}, "50%"),
        (-11.6, {"x": ".3g"}, "−11.6"),
    ],
)
def test_table_cell(value, format, shown):
    table = Table(pd.DataFrame({"x": pd.Series([value], dtype=object)}), "C.", name="c", format=format)
    assert table.rows == [[shown]]


@pytest.mark.parametrize(
    ("cells", "side"),
    [
        (["0.25 [0.24, 0.26]", None], "right"),
        (["−3", "+4", ".5"], "right"),
        ([1, 2.5], "right"),
        (["L1", "2"], "left"),
        ([None, None], "left"),
        (np.array([np.nan, np.nan]), "right"),
    ],
)
def test_table_sets_what_reads_as_numbers_to_the_right(cells, side):
    series = pd.Series(cells, dtype=object) if isinstance(cells, list) else pd.Series(cells)
    assert Table(pd.DataFrame({"x": series}), "C.", name="c").sides == [side]


def test_table_escapes_what_would_break_it():
    odd = pd.DataFrame({"a|b": ["x|y", "<b>&", "$|v|$ \\| z"]})
    table = Table(odd, "Of $|v|$ <i>.", name="odd")
    assert [row.strip("| ") for row in table.markdown().splitlines()[5:-1]] == [
        "x\\|y",
        "<b>&",
        "$\\|v\\|$ \\| z",
    ]
    assert "a\\|b" in table.markdown()
    assert "&lt;b&gt;&amp;" in table.html() and "&lt;i&gt;" in table.html()


def test_table_in_jupyter_is_free_of_the_marks_of_the_book():
    marked = pd.DataFrame({"m": ["**best** `x` {cite:p}`zha2023rnc`, {numref}`as here <other>`"]})
    html = Table(marked, "C.", name="c").html()
    assert "<strong>best</strong> <code>x</code> zha2023rnc, as here" in html


def test_table_gives_every_kind_of_text_and_always_the_same():
    bundles = [Table(frame(), "Errors.", name="t")._repr_mimebundle_() for _ in range(2)]
    assert bundles[0] == bundles[1]
    assert set(bundles[0]) == {"text/plain", "text/html", "text/markdown"}
    assert "id=" not in bundles[0]["text/html"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frame": [1, 2]}, "frame: got list"),
        ({"frame": pd.DataFrame([[1, 2]], columns=["a", "a"])}, "one level of distinct names"),
        ({"frame": pd.DataFrame([[1]], columns=pd.MultiIndex.from_tuples([("a", "b")]))}, "one level"),
        ({"caption": " "}, "caption: got ' '"),
        ({"name": "Bad name"}, "name: got 'Bad name'; allowed: lower-case"),
        ({"columns": ["mae", "rmse"]}, r"columns: got \['rmse'\]; allowed: columns of frame"),
        ({"format": {"rmse": ".2f"}}, r"format: got \['rmse'\]"),
        ({"format": ".2q"}, r"format\['mae'\]: got '.2q'"),
        ({"align": {"mae": "middle"}}, r"align\['mae'\]: got 'middle'; allowed: 'left', 'right'"),
    ],
)
def test_table_says_what_is_wrong(change, message):
    given = {"frame": frame(), "caption": "C.", "name": "c", **change}
    with pytest.raises(ValueError, match=message):
        Table(given.pop("frame"), given.pop("caption"), **given)


# --- figures and notices --------------------------------------------------------------------------------


def drawing():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(2, 1))
    axes.plot([0, 1], [0, 1])
    return figure, axes


@pytest.mark.parametrize("format", ["svg", "png", "jpeg"])
def test_figure_is_the_same_bytes_each_time_and_leaves_nothing_open(format):
    import matplotlib.pyplot as plt

    made = [Figure(drawing()[1], "C.", name="f", alt="A line.", format=format) for _ in range(2)]
    assert made[0].data == made[1].data and len(made[0].data) > 500
    assert plt.get_fignums() == []
    data, metadata = made[0]._repr_mimebundle_()
    assert {"svg": "image/svg+xml", "png": "image/png", "jpeg": "image/jpeg"}[format] in data
    assert metadata["rnclib_figure"] == {"caption": "C.", "name": "f", "alt": "A line."}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"figure": 3}, "figure: got int; allowed: a matplotlib figure or axes"),
        ({"format": "gif"}, "format: got 'gif'"),
        ({"alt": ""}, "alt: got ''"),
        ({"name": "f_1"}, "name: got 'f_1'"),
    ],
)
def test_figure_says_what_is_wrong(change, message):
    given = {"figure": drawing()[0], "caption": "C.", "name": "f", "alt": "A line.", **change}
    with pytest.raises(ValueError, match=message):
        Figure(given.pop("figure"), given.pop("caption"), **given)
    import matplotlib.pyplot as plt

    plt.close("all")


def test_notice_is_a_box_in_the_book():
    bundle = Notice("Some `text`.", kind="tip", title="Look")._repr_mimebundle_()
    assert bundle["text/markdown"] == ":::{admonition} Look\n:class: tip\n\nSome `text`.\n:::"
    assert "<strong>Look.</strong>" in bundle["text/html"]
    with pytest.raises(ValueError, match="kind: got 'danger'"):
        Notice("x", kind="danger")


@pytest.mark.parametrize(
    ("dataset", "profile", "kind"),
    [
        ("esol", "paper", "note"),
        ("esol", "quick", "important"),
        ("standin", "paper", "warning"),
        ("something-generated", "smoke", "warning"),
    ],
)
def test_data_that_was_not_measured_and_short_training_are_said_out_loud(dataset, profile, kind):
    notice = data_notice(dataset, profile, detail="Over 20 splits.")
    assert notice.kind == kind and profile in notice.text and notice.text.endswith("Over 20 splits.")
    assert ("not measured" in notice.title) == (dataset != "esol")


def test_a_table_of_differences_shows_them_with_their_sign():
    one = {"method": "B", "mean": -0.5, "low": -1.0, "high": 0.25, "p": 0.0004, "better": 0.75, "n": 4}
    one["diverged"] = 1
    shown = differences_table(
        pd.DataFrame([one]), "c", name="n", labels={"method": "Method"}, runs="seeds", also=["better", "diverged"]
    )
    text = shown._repr_mimebundle_()["text/markdown"]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    assert cells[0] == ["Method", "Difference", "Low", "High", "p, corrected", "Better on", "Seeds", "Diverged"]
    assert cells[2] == ["B", "−0.500", "−1.000", "+0.250", "<0.001", "75%", "4", "1"]
    plain = differences_table(pd.DataFrame([one]), "c", name="n", labels={"method": "Method"}, runs="seeds")
    text = plain._repr_mimebundle_()["text/markdown"]
    assert "Better on" not in text and "Diverged" not in text
    two = pd.DataFrame([one | {"p": 0.01}, one | {"method": "C", "p": 0.03}])
    text = differences_table(two, "c", name="n", labels={"method": "Method"}, runs="seeds")._repr_mimebundle_()
    assert "| 0.020 |" in " ".join(text["text/markdown"].split())  # twice the smaller of two


def test_every_data_set_has_a_source_for_captions():
    assert DATA["esol"].source("paper") == "ESOL, random split, profile paper"
    assert DATA["synthetic"].source("quick") == "Synthetic drawn faces, standard split, profile quick"


def test_data_notice_refuses_an_unknown_profile():
    with pytest.raises(ValueError, match="profile: got 'fast'"):
        data_notice("esol", "fast")


def test_glued_numbers_are_recorded_but_not_shown():
    pytest.importorskip("IPython")
    from unittest.mock import patch

    with patch("IPython.display.display") as display:
        glue(mae=np.float64(0.25), runs=20, method="RnC")
    prefix = "application/papermill.record/"
    assert [call.args[0] for call in display.call_args_list] == [
        {f"{prefix}text/plain": text} for text in ("0.25", "20", "'RnC'")
    ]
    assert display.call_args_list[0].kwargs["metadata"] == {"scrapbook": {"name": "mae", "mime_prefix": prefix}}
    for bad in (None, float("nan"), [1]):
        with pytest.raises(ValueError, match="mae: got"):
            glue(mae=bad)


# --- parameters -----------------------------------------------------------------------------------------

RULES = {
    "loss": ["all", "l1", "l2"],
    "n_seeds": [None, (1, 100)],
    "temperature": (0.01, 100.0),
    "folder": [None, str],
    "refresh": bool,
    "rate": float,
}
GOOD = {"loss": "l1", "n_seeds": None, "temperature": 2, "folder": None, "refresh": False, "rate": 1}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"n_seeds": 1},
        {"n_seeds": np.int64(100)},
        {"temperature": 0.01},
        {"folder": "here"},
        {"rate": 0.5},
        {"In": ["", "x = 1", '# Parameters\nloss = "l2"\n']},
        {"In": ["", "stray = 3"], "stray": 3},
        {"pd": pd, "_": 4},
    ],
)
def test_allowed_parameters_pass(change):
    check_parameters({**GOOD, **change}, **RULES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "l3"}, "loss: got 'l3'.*; allowed: 'all', 'l1' or 'l2'$"),
        ({"loss": 1}, "loss: got 1; allowed"),
        ({"n_seeds": 0}, "n_seeds: got 0; allowed: None or an integer from 1 to 100"),
        ({"n_seeds": 5.0}, "n_seeds: got 5.0"),
        ({"n_seeds": True}, "n_seeds: got True"),
        ({"n_seeds": "5"}, "n_seeds: got '5'"),
        ({"temperature": 0}, "temperature: got 0; allowed: a number from 0.01 to 100.0"),
        ({"temperature": float("nan")}, "temperature: got nan"),
        ({"folder": 3}, "folder: got 3; allowed: None or a text"),
        ({"refresh": "true"}, "refresh: got 'true'; allowed: True or False"),
        ({"refresh": 1}, "refresh: got 1"),
        ({"rate": float("inf")}, "rate: got inf; allowed: a finite number"),
        ({"rate": True}, "rate: got True"),
        (
            {"In": ["", "# Parameters\nlos = 'l2'\n"]},
            r"unknown parameter 'los' \(did you mean 'loss'\?\); allowed: loss",
        ),
        ({"loss": "l3", "n_seeds": 0}, r"loss: got .* \| n_seeds: got"),
    ],
)
def test_other_parameters_end_the_notebook_with_one_line(change, message):
    with pytest.raises(ParameterError, match=message) as caught:
        check_parameters({**GOOD, **change}, **RULES)
    assert "\n" not in str(caught.value)
    assert caught.value._render_traceback_() == [f"ParameterError: {caught.value}"]


def test_a_parameter_without_a_default_is_named():
    with pytest.raises(ParameterError, match="parameter 'loss' is not set"):
        check_parameters({}, loss=str)


def test_the_check_does_not_wait_for_torch():
    code = "import sys, rnclib.report; print(sorted({'torch', 'pandas', 'matplotlib', 'papermill'} & set(sys.modules)))"
    started = time.monotonic()
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.strip() == "[]"
    assert time.monotonic() - started < 5


def test_the_package_still_offers_the_loss():
    import rnclib
    from rnclib.loss import RnCLoss

    assert rnclib.RnCLoss is RnCLoss
    assert set(rnclib.__all__) <= set(dir(rnclib))
    with pytest.raises(AttributeError, match="'rnclib' has no attribute 'RncLoss'"):
        _ = rnclib.RncLoss


# --- publishing -----------------------------------------------------------------------------------------


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
    assert len(once.cells[1].outputs) == 2
    assert json.dumps(clean(once)) == text, "cleaning twice changes nothing more"


def test_cleaning_hands_a_figure_to_the_book():
    def figure(name):
        data, metadata = Figure(drawing()[0], "A *line*.", name=name, alt="Line")._repr_mimebundle_()
        return output("display_data", data=data, metadata=metadata)

    page = clean(notebook(("plot()", [], [figure("lines")])))
    assert page.cells[0].metadata["mystnb"] == {
        "figure": {"caption": "A *line*.", "name": "lines"},
        "image": {"alt": "Line"},
    }
    assert "rnclib_figure" not in json.dumps(page)
    with pytest.raises(ValueError, match="one Figure, this one shows lines, dots"):
        clean(notebook(("plot()", [], [figure("lines"), figure("dots")])))


def source_notebook(path, last_cell="print(loss)"):
    v4 = pytest.importorskip("nbformat").v4
    import nbformat

    cells = [
        v4.new_markdown_cell("# Small", id="title"),
        v4.new_code_cell('loss = "l1"\nn = 1', id="parameters", metadata={"tags": ["parameters"]}),
        v4.new_code_cell(
            'from rnclib.report import check_parameters\ncheck_parameters(globals(), loss=["l1", "huber"], n=(1, 9))',
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


def test_publishing_says_what_is_wrong(tmp_path):
    source = source_notebook(tmp_path / "small.ipynb")
    with pytest.raises(FileNotFoundError, match="no notebook"):
        publish(tmp_path / "other.ipynb", tmp_path / "page.ipynb")
    with pytest.raises(ValueError, match=r"ends in \.ipynb"):
        publish(source, tmp_path / "page.html")
    with pytest.raises(ValueError, match="the notebook itself"):
        publish(source, source)


@pytest.mark.parametrize(
    ("text", "value"),
    [("3", 3), ("0.5", 0.5), ("1e-3", 1e-3), ("True", True), ("False", False), ("None", None), ("huber", "huber")],
)
def test_values_from_the_shell_are_read_as_papermill_reads_them(text, value):
    from rnclib.report import _literal

    resolve = pytest.importorskip("papermill.cli")._resolve_type
    assert _literal(text) == value == resolve(text) and type(_literal(text)) is type(value)
