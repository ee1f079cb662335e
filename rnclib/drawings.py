"""A matplotlib figure as a file for the book: readable on light and dark pages, and stacked on a phone."""

from __future__ import annotations

import base64
import io
import re
import textwrap
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.gridspec import GridSpecBase
    from matplotlib.legend import Legend

__all__ = ["PHONE", "encoded", "stack"]

#: Width of a drawing for a phone, inches.
PHONE = 4.2
_FEW = 3  # names of a legend that may stay inside of a panel there
_LONGEST = 20  # characters of a line beside an axis there
# What is drawn in black or grey changes with the page; the colours of methods are seen on both. A browser takes the
# scheme of an image from the page, see book.css.
_GROUND, _INK, _LINE = "#121212", "#ced6dd", "#48566b"
_IN_THE_DARK = "@media (prefers-color-scheme: dark) {" + "".join(
    f"{where} {{{what}: {colour} !important}}"
    for where, what, colour in (
        ('[style*="fill: #ffffff"]', "fill", _GROUND),
        ('[style*="stroke: #ffffff"]', "stroke", _GROUND),
        *((f'[style*="{what}: {ink}"]', what, _INK)
          for what in ("fill", "stroke") for ink in ("#000000", "#1a1a1a", "#262626", "#595959")),
        ("text:not([style*=\"fill\"])", "fill", _INK),
        ('[style*="stroke: #cccccc"]', "stroke", _LINE),
    )
) + "}"  # fmt: skip


def encoded(figure: Figure, format: str, salt: str) -> bytes:
    """The bytes of a drawing's file; the same drawing gives the same bytes.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
    format : {'svg', 'png', 'jpeg'}
        Ink and ground of an SVG follow the colour scheme of the page.
    salt : str
        What sets its marks apart from those of other drawings on a page.
    """
    import matplotlib as mpl

    stamp = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}, "jpeg": None}[format]
    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": salt}):
        figure.savefig(buffer, format=format, dpi=160, bbox_inches="tight", metadata=stamp)
    if format != "svg":
        return buffer.getvalue()
    # a hundredth of a point is finer than any screen
    text = re.sub(
        r'\b(d|x|y)="[^"]*"', lambda places: re.sub(r"(\.\d\d)\d+", r"\1", places[0]), buffer.getvalue().decode()
    )
    text = re.sub(r"(data:image/png;base64,)([A-Za-z0-9+/=\s]+)", lambda m: m[1] + _in_256_colours(m[2]), text)
    return re.sub(r"<defs>", lambda m: f"<style>{_IN_THE_DARK}</style>\n {m[0]}", text, count=1).encode()


def _in_256_colours(encoded_png: str) -> str:
    """A picture within a drawing, in base64, as a quarter of its size; as it was where that is not less.

    Colours of points and fields differ by a hundredth on average.
    """
    from PIL import Image

    png, smaller = base64.b64decode(encoded_png), io.BytesIO()
    with Image.open(io.BytesIO(png)) as picture:
        picture.quantize(256, method=Image.Quantize.FASTOCTREE).save(smaller, "png", optimize=True)
    return base64.b64encode(min(png, smaller.getvalue(), key=len)).decode()


def stack(figure: Figure) -> None:
    """Change a drawing so that it can be read on a phone: narrower, panels below each other, long names in lines.

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        Changed in place.
    """
    panels = [ax for ax in figure.axes if ax.get_subplotspec() is not None and ax.get_visible()]
    panels = [ax for i, ax in enumerate(panels) if not any(_twins(ax, one) for one in panels[:i])]
    width, height = figure.get_size_inches()
    columns = max((_grid(ax).ncols for ax in panels), default=1)
    for ax in panels:
        _break_names(ax)
        ax.set_title(textwrap.fill(ax.get_title(loc="left"), 2 * _LONGEST), loc="left")
        lines = ax.get_xlabel().split("\n")
        ax.set_xlabel("\n".join(textwrap.fill(line, 2 * _LONGEST) for line in lines))
    if columns > 1:
        each = min(2.6, max(1.9, height / max(_grid(ax).nrows for ax in panels)))
        height = 0.8 + _regrid(figure, panels, columns - 1 if columns > 2 else 1, each)
    elif panels:
        height = max(height, 0.8 + sum(0.16 * _n_lines(ax) for ax in panels))
    inside = [one for ax in panels if (one := ax.get_legend()) is not None and len(one.get_texts()) > _FEW]
    height += 0.2 * sum(len(one.get_texts()) for one in inside)
    height += 0.1 * sum(len(one.get_texts()) for one in figure.legends)
    figure.set_size_inches(min(width, PHONE), height)
    for legend in (*figure.legends, *inside):
        _in_columns(figure, legend, legend in inside)


def _in_columns(figure: Figure, legend: Legend, was_inside: bool) -> None:
    """A legend above or below all panels, in as many columns as fit; below where it was inside of one."""
    names = [text.get_text() for text in legend.get_texts()]
    figure.canvas.draw()
    above = not was_inside and legend.get_window_extent().y0 > figure.bbox.height / 2
    columns = 1 if max(map(len, names)) > 1.5 * _LONGEST else 2
    handles = [one for one in legend.legend_handles if one is not None]
    legend.remove()
    where: Literal["outside upper center", "outside lower center"] = "outside lower center"
    if above:
        where = "outside upper center"
    figure.legend(handles, names, loc=where, fontsize="small", ncols=columns)


def _twins(ax: Axes, other: Axes) -> bool:
    """Whether two panels lie upon each other, each with an axis of its own."""
    return ax is not other and ax.get_subplotspec() == other.get_subplotspec()


def _grid(ax: Axes) -> GridSpecBase:
    spec = ax.get_subplotspec()
    assert spec is not None
    return spec.get_gridspec()


def _regrid(figure: Figure, panels: list[Axes], columns: int, each: float) -> float:
    """Put panels into fewer columns, with the numbers and labels that their neighbours had for them.

    A row is `each` inches high, or as high as its names need; returned is the height of all.
    """
    from matplotlib.gridspec import GridSpec

    rows = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    heights = [max(each, *(0.7 + 0.16 * _n_lines(ax) for ax in row)) for row in rows]
    grid = GridSpec(len(rows), columns, figure=figure, height_ratios=heights)
    labels: dict[int, str] = {}  # of each row as it was
    for number, ax in enumerate(panels):
        spec: Any = ax.get_subplotspec()
        label = labels.setdefault(spec.rowspan.start, ax.get_ylabel())
        label = ax.get_ylabel() or label
        twins = [one for one in figure.axes if _twins(one, ax)]
        # alone in its row, a panel with two axes takes all of it
        place = slice(None) if twins and len(rows[number // columns]) == 1 else number % columns
        for one in (ax, *twins):
            one.set_subplotspec(grid[number // columns, place])
        ax.set_ylabel("" if number % columns else label)
        ax.tick_params(labelleft=True)
        if number + columns >= len(panels):
            ax.tick_params(labelbottom=True)
    return sum(heights)


def _n_lines(ax: Axes) -> int:
    """How many lines the names beside an axis take, each row being as high as the longest name needs."""
    lines = [label.get_text().count("\n") + 1 for label in ax.get_yticklabels()]
    return len(lines) * max(lines, default=0)


def _break_names(ax: Axes) -> None:
    """Names beside an axis in short lines, names below it upright where they would run into each other."""
    ax.figure.canvas.draw()  # only then does an axis know its names
    beside, below = ([label.get_text() for label in axis.get_ticklabels()] for axis in (ax.yaxis, ax.xaxis))
    if _are_names(beside):
        ax.set_yticks(ax.get_yticks(), [textwrap.fill(name, _LONGEST) for name in beside])
    if _are_names(below) and sum(max(map(len, name.split("\n"))) for name in below) > 2 * _LONGEST:
        ax.tick_params(axis="x", labelrotation=90)


def _are_names(labels: list[str]) -> bool:
    return any(re.search(r"[a-z]", label) and "$" not in label for label in labels)
