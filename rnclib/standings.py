"""Figures of the comparison across tasks: effects, mean ranks, profiles, costs, and what effects are related to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from rnclib.plots import BLUE, BROWN, GREEN, GREY, OLIVE, ORANGE, PINK, PURPLE, RED, TEAL, styles

__all__ = ["costs", "effects_by_task", "profiles", "related", "standing"]

_LOOKS = ((BLUE, "o"), (PURPLE, "^"), (ORANGE, "s"))  # of the comparisons, in their order
# colour and marker of each other method by its name in records, the same in every figure; the rest get what is left
_STYLES = {
    "end to end, equal time": (BROWN, "P"),
    "gaussian process": (ORANGE, "D"), "svr": (PINK, "v"), "boosting": (GREEN, "*"), "trees": (TEAL, "X"),
    "catboost": (RED, "<"), "chemprop": (RED, ">"), "ridge": (OLIVE, "D"), "neighbours": (OLIVE, "v"),
    "training mean": (GREY, "o"),
}  # fmt: skip
_RATIOS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0)


_PLAIN = FuncFormatter(lambda value, _: f"{value:g}")


def _looks(methods: Iterable[str]) -> dict[str, tuple[str, str]]:
    methods = list(methods)
    return styles(methods) | {method: _STYLES[method] for method in methods if method in _STYLES}


def _ratios(ax: Axes, low: float, high: float) -> None:
    """An axis of logarithms of ratios that shows the ratios."""
    ends = min(low, np.log(0.9)), max(high, np.log(1.1))
    ax.set_xlim(ends[0] - 0.03, ends[1] + 0.03)
    ax.xaxis.set_major_locator(FixedLocator(np.log(_RATIOS).tolist()))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{np.exp(value):g}"))


def effects_by_task(
    effects: Mapping[str, pd.DataFrame], groups: Mapping[str, Sequence[str]], titles: Mapping[str, str],
    pooled: pd.DataFrame, margin: float,
) -> Figure:  # fmt: skip
    """The effect on each task with its interval, one panel for each group of tasks, and what is estimated over tasks.

    What lies beyond half and twice the error is an arrow with its ratio.

    Parameters
    ----------
    effects : mapping of str to DataFrame
        By comparison, from `rnclib.across.effects`.
    groups : mapping of str to sequence of str
        Data sets by the title of their panel.
    titles : mapping of str to str
        Of the data sets.
    pooled : DataFrame
        From `rnclib.across.decide`, by comparison; the last panel, left out where it is empty.
    margin : float
        Of practical equality, drawn as a band.
    """
    present = {words: [name for name in names if any(name in one.index for one in effects.values())]
               for words, names in groups.items()}  # fmt: skip
    present = {words: names for words, names in present.items() if names}
    heights = [len(names) + 0.7 for names in present.values()] + ([1.9] if len(pooled) else [])
    figure, axes = plt.subplots(
        len(heights), 1, figsize=(7.2, 0.42 * sum(heights) + 1.5), height_ratios=heights, sharex=True,
        layout="constrained", squeeze=False,
    )  # fmt: skip
    shift = np.linspace(-0.18, 0.18, len(effects)) if len(effects) > 1 else [0.0]
    every = np.concatenate([table[["effect", "low", "high"]].to_numpy(float).ravel() for table in effects.values()])
    every = every[np.isfinite(every)]
    for ax, (words, names) in zip(axes.flat, present.items(), strict=False):
        _background(ax, margin)
        ax.set_title(words)
        for table, (colour, marker), by in zip(effects.values(), _LOOKS, shift, strict=False):
            for y, name in enumerate(names):
                if name in table.index:
                    _line(ax, y + by, table.loc[name], colour, marker)
        ax.set_yticks(range(len(names)), [titles[name] for name in names])
        ax.set_ylim(len(names) - 0.5, -0.5)
    if len(pooled):
        ax = axes.flat[-1]
        _background(ax, margin)
        ax.set_title(f"Over {pooled['n'].min():.0f} real tasks")
        rows = pooled.rename(columns={"mean": "effect"})
        for words, (colour, _), by in zip(effects, _LOOKS, shift, strict=False):
            if words in rows.index:
                _line(ax, by, rows.loc[words], colour, "D", size=8)
        ax.set_yticks([0], ["mean of true effects"])
        ax.set_ylim(0.5, -0.5)
    for words, (colour, marker) in zip(effects, _LOOKS, strict=False):
        axes.flat[0].plot([], [], marker, color=colour, label=words)
    figure.legend(loc="outside lower center", ncols=len(effects), fontsize="small")
    ends = np.clip([every.min(initial=0), every.max(initial=0)], np.log(_RATIOS[0]), np.log(_RATIOS[-1]))
    _ratios(axes.flat[-1], *ends)
    axes.flat[-1].set_xlabel("ratio of test MAE\n← lower error\u2003\u2003higher error →", fontsize=10)
    return figure


def _background(ax: Axes, margin: float) -> None:
    ax.axvspan(-margin, margin, color=TEAL, alpha=0.15, lw=0)
    ax.axvline(0, color="black", lw=1)
    ax.grid(axis="y", visible=False)


def _line(ax: Axes, y: float, row: pd.Series, colour: str, marker: str, size: float = 6) -> None:
    if np.isfinite(row["low"]):
        ax.plot([row["low"], row["high"]], [y, y], color=colour, lw=2)
    edges = np.log(_RATIOS[0]), np.log(_RATIOS[-1])
    if edges[0] <= row["effect"] <= edges[1]:
        ax.plot(row["effect"], y, marker, color=colour, markersize=size)
        return
    edge, arrow = (edges[0], "<") if row["effect"] < 0 else (edges[1], ">")
    ax.plot(edge, y, arrow, color=colour, markersize=size)
    ax.annotate(f"{np.exp(row['effect']):.2g}", (edge, y), xytext=(-6 if arrow == ">" else 6, 0), va="center",
                textcoords="offset points", ha="right" if arrow == ">" else "left", fontsize="small")  # fmt: skip


def standing(ranks: pd.Series, critical: float, names: Mapping[str, str]) -> Axes:
    """Mean ranks, and how far from the best one a method is not told from it.

    Parameters
    ----------
    ranks : Series
        From `rnclib.across.ranks`.
    critical : float
        From `rnclib.across.critical_difference`.
    names : mapping of str to str
        Of the methods, for the axis.
    """
    ax = plt.subplots(figsize=(7.2, 1.2 + 0.36 * len(ranks)), layout="constrained")[1]
    style = _looks(ranks.index)
    ax.axvspan(ranks.min(), ranks.min() + critical, color=GREY, alpha=0.2, lw=0)
    ax.grid(axis="y", visible=False)
    for y, (method, rank) in enumerate(ranks.items()):
        colour, marker = style[method]
        ax.plot(rank, y, marker, color=colour, markersize=8)
        ax.text(rank, y - 0.28, f"{rank:.1f}", ha="center", va="bottom", fontsize="x-small")
    ax.set_yticks(range(len(ranks)), [names.get(method, method) for method in ranks.index])
    ax.set_ylim(len(ranks) - 0.5, -0.9)
    ax.set(xlabel="mean rank over tasks, 1 for the lowest error")
    return ax


def profiles(profile: pd.DataFrame, names: Mapping[str, str]) -> Axes:
    """Performance profiles: the higher a line, the more tasks on which a method is that close to the best.

    Parameters
    ----------
    profile : DataFrame
        From `rnclib.across.profile`.
    names : mapping of str to str
        Of the methods, for the legend.
    """
    ax = plt.subplots(figsize=(7.2, 4.4), layout="constrained")[1]
    style = _looks(profile.columns)
    for method in profile.columns:
        colour, marker = style[method]
        marked = max(1, len(profile) // 6)
        ax.step(profile.index, profile[method], where="post", color=colour, marker=marker, markevery=marked,
                label=names.get(method, method))  # fmt: skip
    ax.set(xlabel="error ÷ lowest error of the task, at most", ylabel="fraction of tasks", ylim=(-0.02, 1.02))
    ax.figure.legend(loc="outside right upper", fontsize="small")
    return ax


def costs(table: pd.DataFrame, names: Mapping[str, str]) -> Axes:
    """Error against the time of a fit: a dot for each method, both as medians over tasks.

    Parameters
    ----------
    table : DataFrame
        By method: ``median`` (seconds) and ``behind``, the error in multiples of the lowest of each task.
    names : mapping of str to str
        Of the methods, for the legend.
    """
    ax = plt.subplots(figsize=(7.2, 4.4), layout="constrained")[1]
    style = _looks(table.index)
    for method, row in table.iterrows():
        colour, marker = style[method]
        label = names.get(method, method)
        ax.plot(max(row["median"], 0.05), row["behind"], marker, color=colour, markersize=8, label=label)
    ax.set(xscale="log", xlabel="seconds of one fit, median over tasks", ylabel="error ÷ lowest error of the task")
    ax.xaxis.set_major_formatter(_PLAIN)
    ax.figure.legend(loc="outside right upper", fontsize="small")
    return ax


def related(effects: pd.Series, properties: pd.DataFrame, words: Mapping[str, str], hollow: Sequence[str]) -> Figure:
    """The effect against each property of a task, one panel for each.

    Parameters
    ----------
    effects : Series
        By data set, logarithms of ratios.
    properties : DataFrame
        By data set.
    words : mapping of str to str
        Columns of `properties` and what they are called.
    hollow : sequence of str
        Data sets that are drawn hollow.
    """
    rows = -(-len(words) // 2)
    figure, axes = plt.subplots(rows, 2, figsize=(7.2, 2.9 * rows), sharey=True, layout="constrained", squeeze=False)
    for ax, (name, called) in zip(axes.flat, words.items(), strict=False):
        ax.axhline(1, color="black", lw=1)
        for dataset, effect in effects.items():
            fill = "none" if dataset in hollow else BLUE
            ax.plot(properties.loc[dataset, name], np.exp(effect), "o", color=BLUE, markerfacecolor=fill)
        ax.set(xlabel=called)
        if name == "n_train":
            ax.set_xscale("log")
            ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.xaxis.set_minor_locator(NullLocator())
            ax.xaxis.set_major_formatter(_PLAIN)
    for ax in axes.flat[len(words) :]:
        ax.set_visible(False)
    figure.supylabel("ratio of test MAE", fontsize="medium")
    return figure
