"""Drawings for light and dark pages, and for a phone."""

from __future__ import annotations

import base64
import io
import re
import xml.etree.ElementTree as ET

import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

from rnclib import drawings, plots
from rnclib.drawings import PHONE, encoded, stack

SVG = "{http://www.w3.org/2000/svg}"
LONG = "RnC fine-tuned, Huber, with a learning rate of its own"


@pytest.fixture(autouse=True)
def style():
    plt.rcdefaults()
    plots.use_style()
    yield
    plt.close("all")
    plt.rcdefaults()


def panels(rows, columns, legend=True):
    figure, grid = plt.subplots(
        rows, columns, figsize=(3 * columns, 2.5 * rows), sharex=True, sharey=True, layout="constrained", squeeze=False
    )
    for number, ax in enumerate(grid.flat):
        ax.plot([1, 2, 3], [number, 2, 1], label="one")
        ax.plot([1, 2, 3], [2, number, 1], label="two")
        ax.set_title(f"panel {number}")
    grid[0, 0].set_ylabel("error")
    if legend:
        figure.legend(*grid[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure


def luminance(colour):
    """Relative luminance as WCAG defines it."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def seen_in_the_dark(svg):
    """Of each mark of an SVG what it is, and the colour that it has on a dark page: the rules applied by hand."""
    root = ET.fromstring(svg)
    (style,) = (one for one in root.iter(f"{SVG}style") if "prefers" in one.text)
    rules = re.findall(r"([^{}]+?) \{(fill|stroke): (#\w+) !important\}", style.text.partition("{")[2])
    found = []
    for element in root.iter():
        said = element.get("style", "")
        for what in ("fill", "stroke"):
            own = re.search(rf"(?:^|; ){what}: (#\w+)", said)
            colour = own[1] if own else "#000000" if element.tag == f"{SVG}text" and what == "fill" else None
            for selector, changed, new in rules:
                wanted = re.findall(r'\[style\*="(.+?)"\]', selector)
                matches = (
                    element.tag == f"{SVG}text" and "fill" not in said
                    if selector.startswith("text:not")
                    else all(part in said for part in wanted)
                )
                if changed == what and matches:
                    colour = new
            if colour:
                found.append((element.tag.removeprefix(SVG), what, colour))
    return found


def test_all_ink_is_seen_on_a_dark_page():
    figure = panels(1, 2)
    figure.axes[0].axhline(1, color="black")
    figure.axes[0].text(2, 1, "a word")
    figure.supylabel("a label")
    seen = seen_in_the_dark(encoded(figure, "svg", "x").decode())
    ground = "#121212"
    assert ("path", "fill", ground) in seen  # the figure and its panels
    texts = [colour for tag, _, colour in seen if tag == "text"]
    assert len(texts) > 10 and all(contrast(colour, ground) > 7 for colour in texts)
    assert not {colour for *_, colour in seen} & {"#000000", "#262626", "#ffffff", "#cccccc"}


def test_a_drawing_without_colours_of_its_own_for_the_dark_would_be_found():
    plain = encoded(panels(1, 1), "svg", "x").decode()
    without = re.sub(r"<style>.*?</style>", "<style>@media (prefers-color-scheme: dark) {}</style>", plain, count=1)
    assert "#262626" in {colour for *_, colour in seen_in_the_dark(without)}


@pytest.mark.parametrize("format", ["svg", "png", "jpeg"])
def test_the_same_drawing_gives_the_same_bytes(format):
    assert encoded(panels(1, 2), format, "x") == encoded(panels(1, 2), format, "x")


@pytest.mark.parametrize(("rows", "columns", "left"), [(1, 1, 1), (1, 2, 1), (2, 3, 2), (2, 2, 1)])
def test_panels_stand_in_fewer_columns_in_their_order(rows, columns, left):
    figure = panels(rows, columns)
    stack(figure)
    assert figure.get_figwidth() <= PHONE
    figure.canvas.draw()
    boxes = {ax.get_title(loc="left"): ax.get_window_extent() for ax in figure.axes}
    assert len({round(box.x0) for box in boxes.values()}) == left
    in_order = sorted(boxes, key=lambda title: (-round(boxes[title].y0), boxes[title].x0))
    assert in_order == [f"panel {number}" for number in range(rows * columns)]
    for one in boxes.values():
        assert one.width > 60 and one.height > 60  # pixels at 100 dpi: none is squeezed to nothing
        others = [box for box in boxes.values() if box is not one]
        assert not any(one.overlaps(box) for box in others)


def test_every_panel_at_the_left_keeps_label_and_numbers():
    figure = panels(1, 3)
    stack(figure)
    figure.canvas.draw()
    at_left = [ax for ax in figure.axes if ax.get_subplotspec().colspan.start == 0]
    assert [ax.get_ylabel() for ax in at_left] == ["error", "error"]
    assert all(label.get_visible() and label.get_text() for ax in at_left for label in ax.get_yticklabels())


def test_a_long_legend_leaves_the_panel_that_it_covers():
    for n, moved in ((3, False), (4, True)):
        figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
        for number in range(n):
            ax.plot([0, 1], [number, number], label=f"method {number}")
        ax.legend()
        stack(figure)
        assert (ax.get_legend() is None) == moved and len(figure.legends) == moved
        if moved:
            figure.canvas.draw()
            assert figure.legends[0].get_window_extent().y1 < ax.get_window_extent().y0
        plt.close(figure)


@pytest.mark.parametrize("where", ["upper", "lower"])
def test_a_legend_stays_where_it_was_with_all_its_names(where):
    figure = panels(1, 2, legend=False)
    handles, names = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, [LONG, names[1]], loc=f"outside {where} center", ncols=2)
    stack(figure)
    figure.canvas.draw()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [LONG, "two"]
    box = legend.get_window_extent()
    assert (box.y0 > figure.bbox.height / 2) == (where == "upper")
    assert box.width < 1.15 * figure.bbox.width


def test_long_names_are_broken_and_keep_their_words():
    figure, ax = plt.subplots(figsize=(7, 3), layout="constrained")
    ax.plot([1, 2], [LONG, "short"])
    ax.set(xlabel="a label that goes on and on, far beyond the width of what a phone can show of it")
    stack(figure)
    figure.canvas.draw()
    first, second = (label.get_text() for label in ax.get_yticklabels())
    assert first.split() == LONG.split() and max(map(len, first.split("\n"))) <= 20 and second == "short"
    assert "\n" in ax.get_xlabel()


def test_numbers_stay_numbers():
    figure = panels(1, 1)
    (ax,) = figure.axes
    figure.canvas.draw()
    before = [label.get_text() for label in ax.get_xticklabels()]
    ax.set_yscale("symlog")
    stack(figure)
    figure.canvas.draw()
    assert ax.get_yscale() == "symlog" and before
    assert not any(re.search("[a-z]{2}", label.get_text().replace("mathdefault", "")) for label in ax.get_yticklabels())


def test_places_in_a_drawing_have_two_decimals_and_its_texts_all_that_they_had():
    figure, ax = plt.subplots()
    ax.plot([0, 1.23456789, 2], [0.000123, 7.654321, 1])
    ax.set_title("0.123456")
    svg = encoded(figure, "svg", "salt").decode()
    plt.close(figure)
    places = re.findall(r'\b(?:d|x|y)="([^"]*)"', svg)
    assert len(places) > 20 and not any(re.search(r"\.\d{3}", each) for each in places)
    assert "0.123456" in svg


def test_points_drawn_as_pixels_keep_their_colours_in_a_third_of_the_size(monkeypatch):
    rng = np.random.default_rng(0)
    figure, ax = plt.subplots()
    ax.scatter(*rng.normal(size=(2, 600)), c=rng.normal(size=600), s=11, linewidths=0, rasterized=True)
    svg = encoded(figure, "svg", "salt").decode()
    monkeypatch.setattr(drawings, "_in_256_colours", lambda png: png)
    before = encoded(figure, "svg", "salt").decode()
    plt.close(figure)
    (small, now), (large, then) = map(picture_in, (svg, before))
    assert small < large / 3
    off = np.abs(now - then)[then[..., 3] == 255]
    assert off.mean() < 4 and off.max() < 40
    assert now[then[..., 3] == 0, 3].max() == 0


def picture_in(svg):
    """Bytes and pixels of the picture in a drawing."""
    (found,) = re.findall(r"data:image/png;base64,([^\"]*)", svg)
    png = base64.b64decode(found)
    with Image.open(io.BytesIO(png)) as picture:
        return len(png), np.asarray(picture.convert("RGBA"), dtype=int)


def test_a_panel_with_two_axes_stays_one_panel():
    figure, axes = plt.subplots(1, 3, figsize=(10, 3), layout="constrained")
    axes[2].plot([1, 2], [1e-3, 1])
    other = axes[2].twinx()
    other.plot([1, 2], [0.1, 0.5])
    stack(figure)
    figure.canvas.draw()
    assert axes[2].get_position().bounds == other.get_position().bounds
    assert axes[2].get_position().width > 1.5 * axes[0].get_position().width  # alone in its row
    shown = [tick.label1.get_visible() for tick in other.yaxis.get_major_ticks()]
    assert not any(shown)  # its numbers are on the right alone
    plt.close(figure)
