"""What a notebook shows: tables, figures, notices, and numbers that other pages quote."""

from __future__ import annotations

import base64
import html
import io
import re
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import pytest
from records import VALUES, record, runs_of

from rnclib import results
from rnclib.data import catalogue
from rnclib.paired import Paired
from rnclib.report import Download, Figure, Findings, Notice, Table, data_notice, glue, p_value
from rnclib.tables import differences_table, error_table, side_by_side, stuck_table

ROOT = Path(__file__).resolve().parents[1]
#: How every refusal of these modules reads.
REFUSAL = re.compile(r"[a-z_ ]+(\['\w+'\])?: got .*; allowed: .+")


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
        ({"frame": [1, 2]}, "frame: got list; allowed: a pandas.DataFrame"),
        ({"frame": pd.DataFrame([[1, 2]], columns=["a", "a"])}, "one level of distinct names"),
        ({"frame": pd.DataFrame([[1]], columns=pd.MultiIndex.from_tuples([("a", "b")]))}, "one level"),
        ({"caption": " "}, "caption: got ' '"),
        ({"name": "Bad name"}, "name: got 'Bad name'; allowed: lower-case"),
        ({"columns": {"mae": ""}}, "a column heading: got ''"),
        ({"columns": ["mae", "rmse"]}, r"columns: got \['rmse'\]; allowed: columns of frame"),
        ({"format": {"rmse": ".2f"}}, r"format: got \['rmse'\]"),
        ({"format": ".2q"}, r"format\['mae'\]: got '.2q'"),
        ({"align": {"mae": "middle"}}, r"align\['mae'\]: got 'middle'; allowed: 'left', 'right'"),
    ],
)
def test_table_says_what_is_wrong(change, message):
    given = {"frame": frame(), "caption": "C.", "name": "c", **change}
    with pytest.raises(ValueError, match=message) as refused:
        Table(given.pop("frame"), given.pop("caption"), **given)
    assert REFUSAL.fullmatch(str(refused.value))


def test_a_table_of_differences_shows_them_with_their_sign():
    one = {"method": "B", "mean": -0.5, "low": -1.0, "high": 0.25, "better": 0.75, "n": 4}
    one["diverged"] = 1
    shown = differences_table(
        pd.DataFrame([one]), "c", name="n", labels={"method": "Method"}, runs="seeds", also=["better", "diverged"]
    )
    text = shown._repr_mimebundle_()["text/markdown"]
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    assert cells[0] == ["Method", "Difference", "Low", "High", "Better on", "Seeds", "Diverged"]
    assert cells[2] == ["B", "−0.500", "−1.000", "+0.250", "75%", "4", "1"]
    plain = differences_table(pd.DataFrame([one]), "c", name="n", labels={"method": "Method"}, runs="seeds")
    text = plain._repr_mimebundle_()["text/markdown"]
    assert "Better on" not in text and "Diverged" not in text


@pytest.mark.parametrize(
    ("p", "shown"), [(1.0, "1.000"), (0.0321, "0.032"), (0.001, "0.001"), (0.0009, "<0.001"), (0.0, "<0.001")]
)
def test_small_p_values_are_shown_as_small(p, shown):
    assert p_value(p) == shown


# --- tables of text -------------------------------------------------------------------------------------


def interval_in(text):
    """Mean, low and high of a cell, written with either brackets or a plus-minus sign."""
    numbers = [float(number) for number in re.findall(r"-?[0-9.]+", text.replace("−", "-"))]
    return (numbers[0], numbers[0] - numbers[1], numbers[0] + numbers[1]) if "±" in text else tuple(numbers)


def test_the_table_shows_interval_number_and_place_of_the_published_value():
    runs = pd.concat([runs_of(), runs_of({"once": [0.5]})], ignore_index=True)
    published = pd.DataFrame({"test_mae": {"L1": 0.301, "RnC(L1)": 0.2, "once": 0.51}})
    table = error_table(runs, {"test_mae": "MAE", "test_mae_raw": "raw MAE"}).set_index("Method")
    mean, low, high = Paired(np.array(VALUES["L1"]), 1 / 11).interval()
    assert interval_in(table.loc["L1", "MAE"]) == pytest.approx((mean, low, high), abs=1.1e-3)
    assert interval_in(table.loc["L1", "raw MAE"]) == pytest.approx((2 * mean, 2 * low, 2 * high), abs=1.1e-3)
    assert table.loc["once", "MAE"] == "0.500"
    assert table["Splits"].to_dict() == {"L1": "5", "L2": "3", "RnC(L1)": "5", "once": "1"}
    table = error_table(runs, {"test_mae": "MAE"}, published).set_index("Method").iloc[:, -1]
    words = {method: "".join(c for c in text if c.isalpha()) for method, text in table.items()}
    assert words == {"L1": "within", "RnC(L1)": "below", "once": "", "L2": ""}  # one split has no spread
    published = pd.DataFrame({"test_mae": {"L1": 0.341, "RnC(L1)": 0.25}})  # just above, and the very lowest
    places = error_table(runs, {"test_mae": "MAE"}, published).set_index("Method").iloc[:, -1]
    assert places["L1"].endswith(" (above)") and places["RnC(L1)"].endswith(" (within)")
    assert table["L1"].startswith("0.301") and table["L2"] == "–"


def test_the_table_shows_the_median_if_asked():
    runs = runs_of({"L1": [0.1, 0.2, 0.2001, 5.0, 6.0]})
    plain, table = (error_table(runs, {"test_mae": "MAE"}, median=median) for median in (False, True))
    assert len(table.columns) == len(plain.columns) + 1
    assert table.iloc[0, -1] == "0.200" and table.iloc[0, -2] == plain.iloc[0, -1]


def test_the_table_shows_what_diverged_and_what_was_published_of_it():
    runs = results.frame([record("L2", 0, mae=0.2), record("L2", 1, diverged=True), record("L1", 0, diverged=True)])
    published = pd.DataFrame({"test_mae": {"L1": 0.3}})
    table = error_table(runs, {"test_mae": "MAE"}, published).set_index("Method")
    assert table["Splits"].to_dict() == {"L2": "1 of 2", "L1": "0 of 1"}
    assert table.loc["L1"].tolist()[1:] == ["–", "0.300"]
    assert table.loc["L2", "MAE"] == "0.200"
    runs = results.frame([record("L2", seed, diverged=True) for seed in range(2)])
    (row,) = error_table(runs, {"test_mae": "MAE"}).to_numpy().tolist()
    assert row == ["L2", "0 of 2", "–"]


def test_the_table_of_a_mixture_of_splits_is_refused():
    runs = pd.concat([runs_of(), runs_of(split="scaffold")])
    with pytest.raises(ValueError, match=r"^runs: got splits \['random', 'scaffold'\]; allowed: one kind"):
        error_table(runs, {"test_mae": "MAE"})
    assert len(error_table(runs[:0], {"test_mae": "MAE"})) == 0


def test_methods_stand_beside_the_baseline_in_every_group():
    runs = pd.concat(
        [
            results.frame([record(method, seed, mae=mae * (1 + 0.01 * seed)) for seed in range(3)]).assign(group=group)
            for group, errors in (("a", (1.0, 1.5)), ("b", (2.0, 1.0)))
            for method, mae in zip(("L1", "RnC(L1)"), errors, strict=True)
        ]
    )
    table = side_by_side(runs, ["group"], "test_mae", "L1")
    assert table["group"].tolist() == ["a", "b"] and table["method"].tolist() == ["RnC(L1)"] * 2
    assert table["mean"].tolist() == pytest.approx([0.505, -1.01])
    assert [text.split(" ± ")[0] for text in table["theirs"]] == ["1.010", "2.020"]
    assert [text.split(" ± ")[0] for text in table["ours"]] == ["1.515", "1.010"]
    whole = side_by_side(runs.assign(group=runs["group"].where(runs["group"] == "a")), ["group"], "test_mae", "L1")
    assert whole["group"].isna().tolist() == [False, True]  # a group without a name is one too
    with pytest.raises(ValueError, match=r"^baseline: got \['Huber'\]; allowed: \['L1', 'RnC\(L1\)'\]$"):
        side_by_side(runs, ["group"], "test_mae", "Huber")


def test_findings_are_a_list_on_a_page_and_lines_elsewhere():
    findings = Findings("**Level**: see {numref}`a-table`, *L1*.", None, "a < b &\n more.", title="Found:")
    bundle = findings._repr_mimebundle_()
    assert bundle["text/plain"] == "Found:\n- Level: see a-table, L1.\n- a < b & more."
    assert bundle["text/markdown"] == "Found:\n\n- **Level**: see {numref}`a-table`, *L1*.\n- a < b & more."
    assert (
        "<li><strong>Level</strong>: see a-table, <em>L1</em>.</li><li>a &lt; b &amp; more.</li>" in bundle["text/html"]
    )
    assert Findings(None)._repr_mimebundle_()["text/markdown"] == ""
    nested = Findings(("First", "*second* <", "third"), "fourth")._repr_mimebundle_()
    assert nested["text/plain"] == "- First\n  - second <\n  - third\n- fourth"
    assert nested["text/markdown"] == "- First\n  - *second* <\n  - third\n- fourth"
    inner = "<ul><li><em>second</em> &lt;</li><li>third</li></ul>"
    assert nested["text/html"] == f"<ul><li>First{inner}</li><li>fourth</li></ul>"
    with pytest.raises(ValueError, match=r"^sentence: got ''; allowed: a text that is not empty$"):
        Findings("")


def test_a_download_carries_its_table():
    frame = pd.DataFrame({"method": ["L1 & <b>", "RnC"], "mae": [0.1 + 0.2, None]})
    bundle = Download(frame, "a.csv", "All <numbers>")._repr_mimebundle_()
    href = re.search(r'href="data:text/csv;base64,([^"]*)"', bundle["text/html"])[1]
    found = pd.read_csv(io.BytesIO(base64.b64decode(href)))
    pd.testing.assert_frame_equal(found, frame, check_dtype=False)
    assert "All &lt;numbers&gt;" in bundle["text/html"] and bundle["text/plain"] == "All <numbers>: a.csv"


def test_stuck_runs_are_counted_and_left_out_of_the_errors():
    good, stuck, diverged = record("L1", 0, mae=0.2), record("L1", 1, mae=0.8), record("L1", 2, diverged=True)
    baseline = record("training mean", 0, mae=0.8, config={"model": "training mean"})
    runs = results.frame([good, stuck, diverged, record("L2", 0, mae=0.9), baseline])
    table = stuck_table(runs).set_index("Method")
    assert set(table.index) == {"L1", "L2"}
    assert table["Stuck"].to_dict() == {"L1": 1, "L2": 1} and table["Diverged"].to_dict() == {"L1": 1, "L2": 0}
    others = table.drop(columns=["Stuck", "Diverged"])
    assert set(others.loc["L1"]) == {"0.200"}  # of one run, mean and median are the same
    assert others.loc["L2"].isna().all()
    everything_stuck = stuck_table(runs[runs["method"] == "L2"])
    assert everything_stuck["Stuck"].tolist() == [1]


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

    plt.close("all")  # those of other tests
    made = [Figure(drawing()[1], "C.", name="f", alt="A line.", format=format) for _ in range(2)]
    assert made[0].data == made[1].data and len(made[0].data) > 500
    assert plt.get_fignums() == []
    data, metadata = made[0]._repr_mimebundle_()
    assert {"svg": "image/svg+xml", "png": "image/png", "jpeg": "image/jpeg"}[format] in data
    phone = metadata["rnclib_figure"].pop("phone")
    assert metadata["rnclib_figure"] == {"caption": "C.", "name": "f", "alt": "A line."}
    assert phone == made[1].phone


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
    with pytest.raises(ValueError, match=message) as refused:
        Figure(given.pop("figure"), given.pop("caption"), **given)
    assert REFUSAL.fullmatch(str(refused.value))
    import matplotlib.pyplot as plt

    plt.close("all")


def test_notice_is_a_box_in_the_book():
    bundle = Notice("Some `text`.", kind="tip", title="Look")._repr_mimebundle_()
    assert bundle["text/markdown"] == ":::{admonition} Look\n:class: tip\n\nSome `text`.\n:::"
    assert "<strong>Look.</strong>" in bundle["text/html"]
    assert Notice("Some text.", kind="warning").title == "Warning"
    for change, message in (
        ({"kind": "danger"}, "kind: got 'danger'"),
        ({"text": " "}, "text: got ' '"),
        ({"title": ""}, "title: got ''"),
    ):
        with pytest.raises(ValueError, match=message) as refused:
            Notice(**{"text": "x", **change})
        assert REFUSAL.fullmatch(str(refused.value))


@pytest.mark.parametrize(
    ("dataset", "profile", "kind"),
    [
        ("esol", "paper", "note"),
        ("esol", "quick", "important"),
        ("standin", "paper", "warning"),
        ("synthetic", "smoke", "warning"),
        ("agedb", "smoke", "important"),
    ],
)
def test_data_that_was_not_measured_and_short_training_are_said_out_loud(dataset, profile, kind):
    notice = data_notice(dataset, profile, detail="Over 20 splits.")
    assert notice.kind == kind and notice.text.endswith("Over 20 splits.")
    assert (f"(profile `{profile}`)" in notice.text) == (profile != "paper")
    assert ("not measured" in notice.title) == (dataset not in ("esol", "agedb"))
    assert catalogue.source(dataset).notice in notice.text


def test_the_full_length_of_training_is_that_of_the_data_set():
    for source in catalogue.SOURCES.values():
        assert f"Training followed {source.training}." in data_notice(source.name, "paper").text
    assert "sized down" in data_notice("synthetic", "paper").text


def test_every_data_set_has_a_source_for_captions():
    assert catalogue.source("esol").caption("paper") == "ESOL, random split"
    assert catalogue.source("synthetic").caption("quick") == "Synthetic faces, standard split, profile quick"


def test_data_notice_refuses_what_it_does_not_know():
    with pytest.raises(ValueError, match=r"^profile: got 'fast'; allowed: 'paper', 'quick', 'smoke'$"):
        data_notice("esol", "fast")
    with pytest.raises(ValueError, match=r"^dataset: got 'something-generated'; allowed: 'esol', .*'synthetic'"):
        data_notice("something-generated", "paper")


def test_glued_numbers_are_recorded_but_not_shown():
    pytest.importorskip("IPython")
    with patch("IPython.display.display") as display:
        glue(mae=np.float64(0.25), runs=20, method="RnC")
    prefix = "application/papermill.record/"
    assert [call.args[0] for call in display.call_args_list] == [
        {f"{prefix}text/plain": text} for text in ("0.25", "20", "'RnC'")
    ]
    assert display.call_args_list[0].kwargs["metadata"] == {"scrapbook": {"name": "mae", "mime_prefix": prefix}}
    allowed = "a number that is not missing, a text or a Figure"
    for bad in (None, float("nan"), [1]):
        with pytest.raises(ValueError, match=rf"^mae: got .*; allowed: {allowed}$"):
            glue(mae=bad)


def test_a_glued_figure_is_a_picture_with_its_text_alternative():
    pytest.importorskip("IPython")
    plt = pytest.importorskip("matplotlib.pyplot")
    figure = Figure(plt.figure(), "A caption.", name="one", alt='Lines of "a" & b.')
    with patch("IPython.display.display") as display:
        glue(one=figure)
    (call,) = display.call_args_list
    (picture,) = call.args[0].values()
    assert list(call.args[0]) == ["application/papermill.record/text/html"]
    url = 'data:image/svg\\+xml;base64,([^"]*)'
    second, alt, first = re.fullmatch(
        rf'<picture><source media="\(max-width: 600px\)" srcset="{url}"><img alt="(.*?)" src="{url}"></picture>',
        picture,
    ).groups()
    assert html.unescape(alt) == figure.alt
    assert base64.b64decode(first) == figure.data and base64.b64decode(second).decode() == figure.phone


def test_a_page_can_be_begun_without_waiting_for_torch():
    heavy = {"torch", "numpy", "pandas", "matplotlib", "papermill"}
    code = f"import sys, rnclib.report; print(sorted({heavy} & set(sys.modules)))"
    started = time.monotonic()
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.strip() == "[]"
    assert time.monotonic() - started < 5
