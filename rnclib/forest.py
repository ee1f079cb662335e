"""The forest plot of the verdict page: each primary comparison as one line, in units of what matters."""

from __future__ import annotations

import textwrap

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rnclib.claims import in_margins
from rnclib.drawings import PHONE
from rnclib.plots import BLUE, GREY, ORANGE, TEAL

__all__ = ["forest"]

#: Colour and marker of each verdict.
_LOOKS = {
    "holds": (BLUE, "o"), "does not hold": (ORANGE, "X"), "practically equal": (TEAL, "s"), "undecided": (GREY, "D"),
}  # fmt: skip
_REACH = 6.0  # margins; what lies beyond ends in an arrow


def forest(judged: pd.DataFrame, groups: dict[str, str], narrow: bool = False) -> Figure:
    """Effect and interval of each comparison; right of zero speaks for the claim, the band is practical equality.

    Parameters
    ----------
    judged : DataFrame
        From `rnclib.claims.judge`, with a column ``line`` that says what is compared.
    groups : dict of str to str
        Data set to the heading of its panel.
    narrow : bool
        For a phone: what is compared stands above each interval, with the verdict alone.
    """
    parts = {title: part for name, title in groups.items() if len(part := judged[judged["dataset"] == name])}
    heights = [len(part) + 0.8 for part in parts.values()]
    figure, axes = plt.subplots(
        len(parts), 1, figsize=(PHONE if narrow else 8, (0.8 if narrow else 0.56) * sum(heights) + 0.7),
        height_ratios=heights, layout="constrained", sharex=True, squeeze=False,
    )  # fmt: skip
    for ax, (title, part) in zip(axes.flat, parts.items(), strict=True):
        _panel(ax, part, narrow)
        ax.set_title(title)
    between = "\n" if narrow else "\u2003"
    axes.flat[-1].set_xlabel(
        f"← against the claim{between}in margins of practical equality{between}for the claim →", fontsize=10
    )
    return figure


def _panel(ax: Axes, part: pd.DataFrame, narrow: bool) -> None:
    ax.axvspan(-1, 1, color=TEAL, alpha=0.15, lw=0)
    ax.axvline(0, color="black", lw=1)
    for y, row in enumerate(part.to_dict("records")):
        beside = ax.get_yaxis_transform()
        colour, marker = _LOOKS.get(row["verdict"], (GREY, "D"))
        if narrow:
            text = textwrap.fill(f"{row['line']}: {row['verdict']}", 50)
            ax.text(0.01, y - 0.17, text, transform=beside, va="bottom", fontsize=9)
        else:
            text = row["verdict"] if row["n"] == 0 else f"{row['verdict']}, n = {row['n']}\n{row['shown']}"
            ax.text(1.02, y, text, transform=beside, va="center", fontsize=9)
        if row["n"] == 0:
            continue
        value, low, high = in_margins(row)
        inside = [min(max(end, -_REACH), _REACH) for end in (low, high)]
        ax.plot(inside, [y, y], color=colour, lw=2)
        for end, edge, arrow in ((low, -_REACH, "<"), (high, _REACH, ">")):
            if abs(end) > _REACH and end * edge > 0:
                ax.plot(edge, y, arrow, color=colour, markersize=7, clip_on=False)
        if abs(value) <= _REACH:
            ax.plot(value, y, marker, color=colour, markersize=7)
    lines = [] if narrow else [textwrap.fill(line, 34) for line in part["line"]]
    ax.set_yticks(range(len(lines)), lines, fontsize=9)
    ax.set_ylim(len(part) - (0.7 if narrow else 0.5), -0.8 if narrow else -0.5)
    ax.set_xlim(-_REACH, _REACH)
    ax.grid(axis="y", visible=False)
