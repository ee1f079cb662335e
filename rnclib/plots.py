"""The book's figures: a tidy frame in, matplotlib `Axes` out."""

from __future__ import annotations

import contextlib
import itertools
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rnclib import statistics
from rnclib.drawings import PHONE

__all__ = [
    "BLUE",
    "BROWN",
    "GREEN",
    "GREY",
    "OLIVE",
    "ORANGE",
    "PINK",
    "PURPLE",
    "RED",
    "STYLES",
    "TEAL",
    "costs",
    "costs_in_training",
    "costs_of_regimes",
    "differences",
    "error_by_range",
    "errors",
    "errors_by_severity",
    "errors_by_size",
    "learning_curves",
    "organisation",
    "parity",
    "rates",
    "representations",
    "styles",
    "use_style",
]

# Each has a contrast of at least 3.2 on white and on the book's dark background, and the first eight stay apart for
# colour-blind readers. Ten colours cannot all be far apart within such bounds: so every method has a marker too.
BLUE, ORANGE, TEAL, BROWN, PURPLE = "#1191ff", "#e66d07", "#0e7883", "#8e6256", "#745eb8"
GREY, GREEN, PINK, RED, OLIVE = "#8f8f8f", "#629d58", "#cd6eb9", "#e41028", "#70702a"
COLOURS = (BLUE, ORANGE, TEAL, BROWN, PURPLE, GREY, GREEN, PINK, RED, OLIVE)
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")

#: Colour and marker of each method by its label, the same in every figure, and the order of methods in it. Two methods
#: share both only where no figure has the two.
STYLES: dict[str, tuple[str, str]] = {
    "L1 end to end": (GREY, "o"),
    **dict.fromkeys(("L1 end to end, lr 0.001", "L1 end to end, lr 0.01", "L1 end to end, tuned"), (BROWN, "s")),
    "L2 end to end": (GREY, "v"),
    "L2 end to end, lr 0.0001": (BROWN, "v"),
    "Huber end to end": (GREY, "P"),
    "RnC frozen, L1": (BLUE, "o"),
    "end to end": (BROWN, "s"), "RnC": (BLUE, "o"), "joint": (PURPLE, "^"),
    **dict.fromkeys(("RnC fine-tuned, L1", "RnC fine-tuned, L1, lr 0.01"), (TEAL, "^")),
    "RnC frozen, closed form": (ORANGE, "D"),
    "RnC frozen, closed form, tuned": (RED, "X"),
    **dict.fromkeys(
        ("L1 end to end, closed form, lr 0.001", "L1 end to end, closed form, lr 0.01",
         "L1 end to end, closed form, tuned"), (PINK, "D"),
    ),
    "L1 end to end, closed form, lr 0.01, 2.5 × the epochs": (PINK, "P"),
    **dict.fromkeys(("L1 + RnC end to end, lr 0.001", "L1 + RnC end to end, lr 0.01"), (PURPLE, "^")),
    "RnC frozen, L2": (BLUE, "v"),
    "RnC fine-tuned, L2": (TEAL, "v"),
    "RnC frozen, Huber": (BLUE, "P"),
    "RnC fine-tuned, Huber": (TEAL, "P"),
    "L1 + Ordinal Entropy end to end, tuned": (GREEN, "s"),
    "L1 + Ordinal Entropy end to end, closed form, tuned": (GREEN, "D"),
    "L1 + RankSim end to end, tuned": (PURPLE, "s"),
    "L1 + RankSim end to end, closed form, tuned": (PURPLE, "D"),
    "SupCon frozen, closed form, tuned": (OLIVE, "D"),
    **{
        f"RnC frozen, closed form, {change}": style
        for change, style in {
            "temperature 0.5": (PINK, "o"), "temperature 1": (PINK, "s"), "temperature 5": (PINK, "^"),
            "temperature 10": (PINK, "v"), "cosine similarity, temperature 0.1": (PURPLE, "o"),
            "cosine similarity": (PURPLE, "s"), "features of length 1": (PURPLE, "v"),
            "negative L1 similarity": (PURPLE, "D"), "batches of 16": (GREEN, "o"), "batches of 64": (GREEN, "^"),
            "batches of 128": (GREEN, "v"), "1 view": (OLIVE, "^"), "0.125 of the epochs": (RED, "o"),
            "0.25 of the epochs": (RED, "s"), "0.5 of the epochs": (RED, "^"), "projection head of 64": (BROWN, "o"),
        }.items()
    },
    "training mean": (OLIVE, "o"),
    "Delaney's equation": (OLIVE, "P"),
    "extra trees": (GREEN, "*"),
}  # fmt: skip


def styles(methods: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each method of a figure; no two methods share both.

    Parameters
    ----------
    methods : iterable of str
        Labels. Those without an entry in `STYLES`, or whose entry another has, get what is left, in their order.
    """
    methods = list(dict.fromkeys(methods))
    owners = {STYLES[method]: method for method in reversed(methods) if method in STYLES}  # the first has it
    left = ((colour, marker) for marker in MARKERS for colour in COLOURS if (colour, marker) not in owners)
    return {
        method: STYLES[method] if method in STYLES and owners[STYLES[method]] == method else next(left)
        for method in methods
    }


def use_style() -> None:
    """Set seaborn's theme as every figure of the book has it."""
    sns.set_theme(context="notebook", style="whitegrid", palette="colorblind", rc={
        "figure.figsize": (7.2, 4.2), "figure.dpi": 100, "figure.facecolor": "white", "savefig.facecolor": "white",
        "axes.titlesize": "medium", "axes.titlelocation": "left", "legend.frameon": False, "svg.fonttype": "none",
        "font.family": "sans-serif", "font.sans-serif": ["DejaVu Sans", "Arial", "sans-serif"],
    })  # fmt: skip


def _axes(ax: Axes | None, rows: int | None = None) -> Axes:
    """The axes given, or new ones; `rows` methods below each other set their height."""
    if ax is not None:
        return ax
    size = None if rows is None else (7.2, 1.3 + 0.38 * rows)
    return plt.subplots(figsize=size, layout="constrained")[1]


def _present(frame: pd.DataFrame) -> list[str]:
    known = [method for method in STYLES if (frame["method"] == method).any()]
    return known + sorted(set(frame["method"]) - set(known))


@contextlib.contextmanager
def _fixed_jitter() -> Iterator[None]:
    """The same drawing of the same runs: seaborn takes its jitter from NumPy's global state."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002


def errors(
    runs: pd.DataFrame, metric: str, *, label: str, published: pd.Series | None = None, ax: Axes | None = None
) -> Axes:
    """Each run as a dot, the mean with its 95% interval, and published values as diamonds; one line per method.

    Parameters
    ----------
    runs : DataFrame
        From `rnclib.results.frame`, of one kind of split.
    metric : str
    label : str
        Of the axis.
    published : Series, optional
        Indexed by method.
    ax : Axes, optional
        By default those of a new figure.
    """
    runs = runs.dropna(subset=[metric])
    order = _present(runs)
    ax = _axes(ax, len(order))
    style = styles(order)
    palette = {method: colour for method, (colour, _) in style.items()}
    with _fixed_jitter():
        sns.stripplot(
            runs, x=metric, y="method", hue="method", order=order, palette=palette, alpha=0.45, size=4,
            jitter=0.22, legend=False, ax=ax, zorder=1,
        )  # fmt: skip
    summary = statistics.summarise(runs, metric)
    for row, method in enumerate(order):
        mean, low, high = summary.loc[method, ["mean", "low", "high"]]
        spread = None if np.isnan(low) else [[mean - low], [high - mean]]
        marker = style[method][1]
        ax.errorbar(mean, row, xerr=spread, fmt=marker, color="black", capsize=4, markersize=5, zorder=3)
        if published is not None and method in published:
            ax.plot(published[method], row, "D", mfc="white", mec="crimson", mew=1.6, markersize=7, zorder=4)
    ax.plot([], [], "ko", label="mean, 95% interval")
    if published is not None:
        ax.plot([], [], "D", mfc="white", mec="crimson", mew=1.6, label="published, one split")
    ax.figure.legend(loc="outside lower center", ncols=2, fontsize="small")
    ax.set(xlabel=label, ylabel="")
    return ax


def differences(comparison: pd.DataFrame, *, label: str, ax: Axes | None = None) -> Axes:
    """Paired differences from a baseline with their 95% intervals; left of the line is better.

    Parameters
    ----------
    comparison : DataFrame
        From `rnclib.statistics.compare`.
    label : str
        Of the axis.
    ax : Axes, optional
        By default those of a new figure.
    """
    order = _present(comparison.reset_index())
    ax, style = _axes(ax, len(order)), styles(order)
    for row, method in enumerate(order):
        mean, low, high = comparison.loc[method, ["mean", "low", "high"]]
        spread = None if np.isnan(low) else [[mean - low], [high - mean]]
        colour, marker = style[method]
        ax.errorbar(mean, row, xerr=spread, fmt=marker, color=colour, capsize=4)
    ax.axvline(0, color="black", linewidth=1)
    ax.set_yticks(range(len(order)), [textwrap.fill(method, 32) for method in order])
    ax.invert_yaxis()
    ax.set(xlabel=label)
    return ax


def _panels(
    n: int, width: float, height: float, sharey: bool | Literal["row", "col"] = True
) -> tuple[Figure, list[Axes]]:
    """A figure of `n` panels with common axes, three to a row so that they stay readable on a phone."""
    columns = min(max(n, 1), 3)
    rows = max(-(-n // columns), 1)  # one blank panel where there is nothing to show
    figure, grid = plt.subplots(
        rows, columns, figsize=(width * columns, height * rows), sharex=True, sharey=sharey, layout="constrained",
        squeeze=False,
    )  # fmt: skip
    for ax in grid.flat[n:]:
        ax.set_visible(False)
    for ax in grid.flat[max(n - columns, 0) : n]:  # the lowest of each column has the numbers
        ax.tick_params(labelbottom=True)
    return figure, list(grid.flat[:n])


def learning_curves(
    curves: pd.DataFrame,
    methods: Sequence[str],
    *,
    value: str = "val_loss",
    sharey: bool | Literal["row", "col"] = True,
) -> Figure:
    """A stage's loss against epochs, one panel per method: each run thin, their median thick.

    Parameters
    ----------
    curves : DataFrame
        From `rnclib.results.curves`.
    methods : sequence of str
        Those without a curve are left out.
    value : {'val_loss', 'train_loss'}
    sharey : bool or {'row', 'col'}
        Which panels, three to a row, have a common vertical axis, as in `matplotlib.pyplot.subplots`.
    """
    curves = curves[curves["method"].isin(methods)].dropna(subset=[value])
    panels = [method for method in methods if (curves["method"] == method).any()]
    figure, axes = _panels(len(panels), 2.6, 2.4, sharey)
    for ax, method in zip(axes, panels, strict=True):
        part = curves[curves["method"] == method]
        colour, _ = styles(panels)[method]
        for _, run in part.groupby("seed"):
            ax.plot(run["epoch"], run[value], color=colour, alpha=0.2, linewidth=0.8)
        ax.plot(part.groupby("epoch")[value].median(), color=colour, linewidth=2)
        ax.set(title=method, yscale="log")
    figure.supxlabel("epoch", fontsize="medium")
    figure.supylabel({"val_loss": "validation loss", "train_loss": "training loss"}[value], fontsize="medium")
    return figure


def parity(predictions: pd.DataFrame, methods: Sequence[str], *, unit: str) -> Figure:
    """Prediction against measurement of every test sample of every run, one panel per method.

    Parameters
    ----------
    predictions : DataFrame
        From `rnclib.results.predictions`.
    methods : sequence of str
        Those without predictions are left out.
    unit : str
    """
    panels = [method for method in methods if (predictions["method"] == method).any()]
    figure, axes = _panels(len(panels), 2.6, 2.7)
    ends = [predictions["target"].min(), predictions["target"].max()]
    for ax, method in zip(axes, panels, strict=True):
        part = predictions[predictions["method"] == method]
        colour, _ = styles(panels)[method]
        ax.scatter(part["target"], part["prediction"], s=7, alpha=0.3, color=colour, linewidths=0, rasterized=True)
        ax.plot(ends, ends, color="black", linewidth=1)
        ax.set(title=method, aspect="equal")
    figure.supxlabel(f"measured, {unit}", fontsize="medium")
    figure.supylabel(f"predicted, {unit}", fontsize="medium")
    return figure


def error_by_range(
    predictions: pd.DataFrame,
    methods: Sequence[str],
    edges: Sequence[float],
    *,
    unit: str,
    samples: str = "molecules",
    ax: Axes | None = None,
) -> Axes:
    """Mean absolute error in ranges of the target: mean over runs, and their middle half as a band.

    Parameters
    ----------
    predictions : DataFrame
        From `rnclib.results.predictions`.
    edges : sequence of float
        Bounds of the ranges, a bound belonging to the range below it; samples outside are left out.
    unit : str
    samples : str
        What they are called on the axis.
    ax : Axes, optional
        By default those of a new figure.
    """
    ax = _axes(ax)
    labels = [f"{low:g} to {high:g}" for low, high in itertools.pairwise(edges)]
    frame = predictions.assign(
        error=(predictions["prediction"] - predictions["target"]).abs(),
        range=pd.cut(predictions["target"].astype(float), edges, labels=labels, include_lowest=True),
    ).dropna(subset=["range"])
    shown = [m for m in methods if (frame["method"] == m).any()]
    for method in shown:
        per_run = (
            frame[frame["method"] == method]
            .pivot_table(index="range", columns="seed", values="error", aggfunc="mean", observed=False)
            .reindex(labels)
        )
        colour, marker = styles(shown)[method]
        ax.plot(labels, per_run.mean(axis=1), marker=marker, color=colour, label=method)
        ax.fill_between(
            labels, per_run.quantile(0.25, axis=1), per_run.quantile(0.75, axis=1), color=colour, alpha=0.15
        )
    counts = frame.drop_duplicates("index").groupby("range", observed=False).size()
    ax.set_xticks(range(len(labels)), [f"{label}\n{counts[label]} {samples}" for label in labels], fontsize="small")
    ax.set(xlabel=f"measured, {unit}", ylabel=f"mean absolute error, {unit}")
    ax.set_ylim(bottom=0)
    if ax.lines:
        ax.legend(fontsize="small")
    return ax


def _pairs(n: int, narrow: bool) -> tuple[Figure, np.ndarray]:
    """Two panels for each representation, one above the other, or beside each other on a phone; `n` columns of axes."""
    n = max(1, n)
    figure, grid = plt.subplots(
        *((n, 2) if narrow else (2, n)), figsize=(PHONE, 1.9 * n + 0.9) if narrow else (3.4 * n + 0.9, 5.6),
        sharex="row" if narrow else "col", sharey="row" if narrow else "col", layout="constrained", squeeze=False,
    )  # fmt: skip
    for ax in grid.flat:  # components have no unit
        ax.set(xticklabels=[], yticklabels=[])
    return figure, grid.T if narrow else grid


def representations(views: dict[str, pd.DataFrame], *, label: str, narrow: bool = False) -> Figure:
    """Two principal components of the features, training above and test below, coloured by the target.

    Parameters
    ----------
    views : dict
        Name to a frame with columns ``part``, ``target``, ``pc1`` and ``pc2``.
    label : str
        Of the colour bar.
    narrow : bool
        For a phone.
    """
    figure, grid = _pairs(len(views), narrow)
    if not views:
        return figure
    every = pd.concat(views.values())
    colours: dict[str, Any] = {"cmap": "viridis", "vmin": every["target"].min(), "vmax": every["target"].max()}
    for column, (name, view) in enumerate(views.items()):
        for row, (part, title) in enumerate((("train", "training set"), ("test", "test set"))):
            shown, ax = view[view["part"] == part], grid[row][column]
            points = ax.scatter(
                shown["pc1"], shown["pc2"], c=shown["target"], s=11, linewidths=0, rasterized=True, **colours
            )
            ax.set_title(f"{name}:\n{title}" if narrow else f"{name}: {title}")
    figure.supxlabel("first component", fontsize="medium")
    figure.supylabel("second component", fontsize="medium")
    figure.colorbar(points, ax=grid, label=label, shrink=0.7, location="bottom" if narrow else "right")
    return figure


def organisation(views: dict[str, pd.DataFrame], *, label: str, nuisance: str, narrow: bool = False) -> Figure:
    """Two principal components of the features of the test set, coloured by target above, and by nuisance below.

    Parameters
    ----------
    views : dict
        Name to a frame with columns ``part``, ``target``, ``nuisance``, ``pc1`` and ``pc2``.
    label, nuisance : str
        Of the two colour bars.
    narrow : bool
        For a phone.
    """
    figure, grid = _pairs(len(views), narrow)
    for row, (column, text, colours) in enumerate((("target", label, "viridis"), ("nuisance", nuisance, "cividis"))):
        every = pd.concat(views.values())[column] if views else pd.Series([0.0, 1.0])
        for ax, (name, view) in zip(grid[row], views.items(), strict=False):
            shown = view[view["part"] == "test"]
            points = ax.scatter(
                shown["pc1"], shown["pc2"], c=shown[column], s=11, linewidths=0, cmap=colours, rasterized=True,
                vmin=every.min(), vmax=every.max(),
            )  # fmt: skip
            ax.set_title("" if row else textwrap.fill(name, 20) if narrow else name)
        if views:
            where = "bottom" if narrow else "right"
            figure.colorbar(points, ax=grid[row], label=textwrap.fill(text, 24), shrink=0.8, location=where)
    figure.supxlabel("first component", fontsize="medium")
    figure.supylabel("second component", fontsize="medium")
    return figure


def errors_by_size(runs: pd.DataFrame, metric: str, *, label: str, samples: str, ax: Axes | None = None) -> Axes:
    """Error against the number of training samples, both on logarithmic axes: mean over splits with its 95% interval.

    Parameters
    ----------
    runs : DataFrame
        From `rnclib.results.frame`, of one kind of split, with runs of several fractions of the training set.
    metric : str
    label : str
        Of the vertical axis.
    samples : str
        What they are called on the horizontal one.
    ax : Axes, optional
        By default those of a new figure.
    """
    ax = _axes(ax)
    sizes = sorted(runs["n_train"].unique())
    style = styles(_present(runs))
    for method in _present(runs):
        summary = statistics.summarise(runs[runs["method"] == method], metric, by="n_train").sort_index()
        colour, marker = style[method]
        ax.plot(summary.index, summary["mean"], marker=marker, color=colour, label=method)
        ax.fill_between(summary.index, summary["low"], summary["high"], color=colour, alpha=0.15, linewidth=0)
    ax.set(xscale="log", yscale="log", xlabel=f"training {samples}", ylabel=label)
    ax.set_xticks(sizes, [str(n) for n in sizes])
    ax.set_xticks([], minor=True)
    low, high = 0.8 * runs[metric].min(), 1.25 * runs[metric].max()  # intervals may reach below 0
    ax.set_ylim(low, high)
    ticks = [t for t in (0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5, 7, 10, 15, 20, 30, 50, 70) if low <= t <= high]
    ax.set_yticks(ticks, [f"{t:g}" for t in ticks])
    ax.set_yticks([], minor=True)
    ax.legend(fontsize="small")
    return ax


def errors_by_severity(errors: pd.DataFrame, kinds: Sequence[str], *, label: str) -> Figure:
    """Error against the severity of a corruption, one panel per kind: mean over runs, and their range as a band.

    Each panel has a scale of its own: some kinds raise the error by years, others hardly.

    Parameters
    ----------
    errors : DataFrame
        From `rnclib.results.corrupted`.
    kinds : sequence of str
    label : str
        Of the vertical axes.
    """
    figure, axes = _panels(len(kinds), 2.6, 2.1, False)
    methods = _present(errors)
    for ax, kind in zip(axes, kinds, strict=True):
        for method in methods:
            part = errors[(errors["kind"] == kind) & (errors["method"] == method)].groupby("severity")["mae"]
            colour, marker = styles(methods)[method]
            ax.plot(part.mean(), marker=marker, markersize=4, color=colour, label=method)
            ax.fill_between(part.mean().index, part.min(), part.max(), color=colour, alpha=0.15, linewidth=0)
        ax.set(title=kind, xticks=range(0, 6))
    figure.supxlabel("severity (0: clean)", fontsize="medium")
    figure.supylabel(label, fontsize="medium")
    if axes:
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize="small")
    return figure


def rates(rates: pd.DataFrame) -> Figure:
    """Images per second of each pipeline as bars, with their multiples of the first; one panel per setting.

    Parameters
    ----------
    rates : DataFrame
        From `rnclib.throughput.rates`, with a column ``setting``.
    """
    panels = list(rates.groupby("setting", sort=False))
    figure, axes = plt.subplots(1, len(panels), figsize=(9, 3), sharey=True, layout="constrained", squeeze=False)
    for ax, (setting, part) in zip(axes[0], panels, strict=True):
        bars = ax.barh(part["pipeline"], part["images_per_second"], color=BLUE)
        bars[0].set_color("0.6")
        ax.bar_label(bars, [f"{times:.1f}×" for times in part["times"]], padding=3)
        ax.set(title=setting, xlabel="images per second")
        ax.margins(x=0.15)
    axes[0, 0].invert_yaxis()
    return figure


# --- the cost of the loss ---------------------------------------------------------------------------------


def _in_multiples_of_supcon(ax: Axes, values: Iterable[float]) -> None:
    """A vertical axis from 0 to a little above 2, or above the values, with lines at 1 and 2."""
    ax.axhline(1, color="0.35", linewidth=1.2)
    ax.axhline(2, color="0.35", linewidth=1.2, linestyle="--")
    ax.set_ylim(0, 1.08 * max(2.2, *values))


def costs(ratios: pd.DataFrame) -> Figure:
    """Time of rnc_loss in multiples of SupCon's against the batch size; one panel for each kind of labels.

    Parameters
    ----------
    ratios : DataFrame
        From `rnclib.benchmark.ratios`.
    """
    panels = list(ratios.groupby("labels", sort=False))
    figure, axes = plt.subplots(
        1, len(panels), figsize=(4.3 * len(panels), 3.4), sharey=True, layout="constrained", squeeze=False
    )
    for ax, (labels, part) in zip(axes[0], panels, strict=True):
        for (d, line), colour, marker in zip(part.groupby("d"), COLOURS, MARKERS, strict=False):
            ax.plot(line["M"], line["rnc_loss"], color=colour, marker=marker, label=f"d = {d}")
        ax.set_xscale("log", base=2)
        ax.set_xticks(sorted(part["M"].unique()), [str(M) for M in sorted(part["M"].unique())])
        _in_multiples_of_supcon(ax, ratios["rnc_loss"])
        ax.set(title=labels, xlabel="embeddings in the batch, M")
    axes[0, 0].set_ylabel("time of rnc_loss / SupCon")
    axes[0, 0].legend(fontsize="small")
    return figure


def costs_of_regimes(regimes: pd.DataFrame) -> Figure:
    """Time of rnc_loss in multiples of SupCon's: against the reach of the batch, and for other kinds of batches.

    The first panel has the time of SupCon on the same batch below, the second that on the batch as drawn.

    Parameters
    ----------
    regimes : DataFrame
        From `rnclib.benchmark.regimes`.
    """
    figure, axes = plt.subplot_mosaic(
        [["SupCon", "SupCon as drawn"], ["others", "others"]],
        figsize=(9, 7.4), height_ratios=(1, 1.3), layout="constrained",
    )  # fmt: skip
    is_scaled = regimes["regime"].str.fullmatch(r"reach [\d.]+")
    scaled, special = regimes[is_scaled], regimes[~is_scaled]
    names = list(dict.fromkeys(special["regime"]))
    sizes, settings = sorted(regimes["M"].unique()), [setting for setting, _ in regimes.groupby(["d", "M"])]
    for n, (d, M) in enumerate(settings):
        style: dict[str, Any] = {
            "color": COLOURS[sizes.index(M)], "marker": MARKERS[n // len(sizes)], "label": f"d = {d}, M = {M}",
        }  # fmt: skip
        line = scaled[(scaled["d"] == d) & (scaled["M"] == M)].sort_values("reach")
        for column, title in (("SupCon", "SupCon on the same batch"), ("SupCon as drawn", "SupCon as drawn")):
            axes[column].plot(line["reach"], line[column], linestyle="--" if n // len(sizes) else "-", **style)
            axes[column].set(xscale="log", xlabel="reach", title=f"over {title}")
        dots = special[(special["d"] == d) & (special["M"] == M)]
        rows = dots["regime"].map(names.index) + 0.5 * (n / max(1, len(settings) - 1) - 0.5)
        axes["others"].plot(dots["SupCon"], rows, linestyle="", **style)
    for column in ("SupCon", "SupCon as drawn"):
        _in_multiples_of_supcon(axes[column], scaled[["SupCon", "SupCon as drawn"]].max())
    axes["SupCon"].set_ylabel("time of rnc_loss / SupCon")
    axes["others"].set_title("over SupCon on the same batch")
    axes["others"].set_yticks(range(len(names)), names)
    axes["others"].invert_yaxis()
    for value, line_style in ((1, "-"), (2, "--")):
        axes["others"].axvline(value, color="0.35", linewidth=1.2, linestyle=line_style)
    axes["others"].set(xlim=(0, 1.08 * max(2.2, special["SupCon"].max())), xlabel="time of rnc_loss / SupCon")
    figure.legend(
        *axes["others"].get_legend_handles_labels(), loc="outside lower center", ncols=len(sizes), fontsize="small"
    )
    return figure


def costs_in_training(trained: pd.DataFrame) -> Figure:
    """Time of rnc_loss in multiples of SupCon's on the batches of a training, and the reach of these, step by step.

    Parameters
    ----------
    trained : DataFrame
        From `rnclib.benchmark.trained`.
    """
    figure, (above, below) = plt.subplots(2, 1, figsize=(7.2, 5), sharex=True, layout="constrained")
    steps = [str(step) for step in trained["step"]]
    columns = {"SupCon": "over SupCon on the same batch", "SupCon at step 0": "over SupCon at step 0"}
    for (column, label), colour, marker in zip(columns.items(), COLOURS, MARKERS, strict=False):
        above.plot(steps, trained[column], color=colour, marker=marker, label=label)
    _in_multiples_of_supcon(above, trained[list(columns)].max())
    above.set_ylabel("time of rnc_loss / SupCon")
    figure.legend(loc="outside upper center", ncols=2, fontsize="small")
    below.plot(steps, trained["reach"], color=TEAL, marker="D")
    below.set(xlabel="step of the training", ylabel="reach")
    below.set_ylim(bottom=0)
    return figure
