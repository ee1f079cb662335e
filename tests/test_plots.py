"""The figures: what is drawn where, read from the axes, not from pixels."""

from __future__ import annotations

import math

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb

from rnclib import plots, results, statistics

MAE = {"RnC frozen, L1": [0.20, 0.22, 0.27], "L1 end to end": [0.30, 0.28, 0.35], "my own": [0.5, 0.6, 0.4]}


@pytest.fixture(autouse=True)
def figures_are_closed():
    with mpl.rc_context():
        mpl.rcdefaults()  # a test before these may have set the style of the book
        yield
    plt.close("all")


def runs_of(values):
    rows = [
        {
            "split": "random",
            "method": method,
            "seed": seed,
            "test_mae": mae,
            "n_test_pool": 10,
            "n_pool": 80,
            "overlap": 0.1,
            "one_data_set": True,
        }
        for method, maes in values.items()
        for seed, mae in enumerate(maes)
    ]
    return pd.DataFrame(rows)


def drawn(figure):
    """Draw it, which is when some mistakes come out."""
    figure.canvas.draw()
    return figure


def rows_of(ax):
    return [label.get_text() for label in ax.get_yticklabels()]


def panels_of(figure):
    return [ax for ax in figure.axes if ax.get_visible()]


# --- errors of each run ---------------------------------------------------------------------------------


def test_errors_shows_every_run_the_mean_and_its_interval():
    published = pd.Series({"L1 end to end": 0.247, "L2 end to end": 0.3})
    ax = plots.errors(runs_of(MAE), "test_mae", label="test MAE", published=published)
    drawn(ax.figure)
    order = ["L1 end to end", "RnC frozen, L1", "my own"]  # the house's order, then strangers
    assert rows_of(ax) == order
    assert ax.get_xlabel() == "test MAE"
    summary = statistics.summarise(runs_of(MAE), "test_mae")
    clouds = [points for points in ax.collections if len(points.get_offsets()) == 3]
    assert len(clouds) == len(ax.containers) == 3
    for row, method in enumerate(order):
        x, y = clouds[row].get_offsets().T
        assert sorted(x) == pytest.approx(sorted(MAE[method]))
        assert np.abs(y - row).max() < 0.3
        point, _, (bar,) = ax.containers[row]
        assert (point.get_xdata()[0], point.get_ydata()[0]) == pytest.approx((summary.loc[method, "mean"], row))
        ends = bar.get_segments()[0]
        assert ends[:, 0] == pytest.approx(summary.loc[method, ["low", "high"]].to_numpy(float))
        assert (ends[:, 1] == row).all()
    diamonds = [line for line in ax.lines if line.get_marker() == "D" and len(line.get_xdata())]
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in diamonds] == [(0.247, 0)]
    (legend,) = [*ax.figure.legends, *filter(None, [ax.get_legend()])]
    assert len(legend.get_texts()) == 2


def test_errors_leaves_out_what_diverged():
    runs = runs_of(
        {
            "L1 end to end": [0.3, math.nan, 0.4],
            "L2 end to end": [math.nan] * 3,
            "Huber end to end": [0.2, math.nan, math.nan],
        }
    )
    ax = plots.errors(runs, "test_mae", label="test MAE")
    drawn(ax.figure)
    assert rows_of(ax) == ["L1 end to end", "Huber end to end"]
    assert [len(points.get_offsets()) for points in ax.collections if len(points.get_offsets())][:1] == [2]
    assert len(ax.containers[1][2]) == 0  # one run has no interval


def test_errors_of_nothing_is_an_empty_figure():
    drawn(plots.errors(runs_of({"L2 end to end": [math.nan] * 3}), "test_mae", label="test MAE").figure)


def test_errors_draws_into_the_axes_it_is_given():
    _, (left, right) = plt.subplots(1, 2)
    assert plots.errors(runs_of(MAE), "test_mae", label="test MAE", ax=right) is right
    drawn(right.figure)
    assert not left.collections and not left.lines


def test_the_same_runs_give_the_same_drawing_and_others_random_numbers_stay():
    np.random.seed(7)  # noqa: NPY002
    expected = np.random.random(3)  # noqa: NPY002
    np.random.seed(7)  # noqa: NPY002
    first, second = (plots.errors(runs_of(MAE), "test_mae", label="MAE") for _ in range(2))
    for one, two in zip(first.collections, second.collections, strict=True):
        assert np.array_equal(one.get_offsets(), two.get_offsets())
    assert np.array_equal(np.random.random(3), expected)  # noqa: NPY002


# --- paired differences ---------------------------------------------------------------------------------


def test_differences_shows_each_interval_and_the_line_of_no_difference():
    comparison = statistics.compare(runs_of(MAE), "test_mae", "L1 end to end")
    ax = plots.differences(comparison, label="difference")
    drawn(ax.figure)
    assert rows_of(ax) == ["RnC frozen, L1", "my own"]
    assert ax.yaxis_inverted()  # the first method is on top
    for row, method in enumerate(rows_of(ax)):
        point, _, (bar,) = ax.containers[row]
        assert (point.get_xdata()[0], point.get_ydata()[0]) == pytest.approx((comparison.loc[method, "mean"], row))
        expected = comparison.loc[method, ["low", "high"]].to_numpy(float)
        assert bar.get_segments()[0][:, 0] == pytest.approx(expected)
    drawn_as = [(ax.containers[row][0].get_color(), ax.containers[row][0].get_marker()) for row in range(2)]
    assert drawn_as == list(plots.styles(rows_of(ax)).values())
    assert any(list(line.get_xdata()) == [0, 0] for line in ax.lines)


def test_differences_without_an_interval_or_without_a_method():
    one = statistics.compare(runs_of({"L1 end to end": [0.3], "L2 end to end": [0.25]}), "test_mae", "L1 end to end")
    ax = plots.differences(one, label="difference")
    drawn(ax.figure)
    assert len(ax.containers) == 1 and len(ax.containers[0][2]) == 0
    none = statistics.compare(runs_of({"L1 end to end": [0.3, 0.2]}), "test_mae", "L1 end to end")
    drawn(plots.differences(none, label="difference").figure)


# --- learning curves ------------------------------------------------------------------------------------


def curves_of(methods, seeds=3):
    return pd.DataFrame(
        [
            {
                "method": method, "seed": seed, "stage": "end-to-end", "split": "random", "epoch": epoch,
                "train_loss": 2.0 / epoch + seed, "val_loss": 1.0 / epoch + seed,
            }
            for method in methods for seed in range(seeds) for epoch in (1, 2, 4)
        ]
    )  # fmt: skip


@pytest.mark.parametrize(("value", "top"), [("val_loss", 1.0), ("train_loss", 2.0)])
def test_learning_curves_shows_each_run_and_their_median(value, top):
    figure = drawn(
        plots.learning_curves(
            curves_of(["L1 end to end", "RnC frozen, L1"]),
            ["RnC frozen, L1", "L2 end to end", "L1 end to end"],
            value=value,
        )
    )
    panels = panels_of(figure)
    assert [ax.get_title() for ax in panels] == ["RnC frozen, L1", "L1 end to end"]
    for ax in panels:
        assert ax.get_yscale() == "log"
        *runs, median = ax.lines
        assert len(runs) == 3
        for seed, line in enumerate(runs):
            assert line.get_xdata().tolist() == [1, 2, 4]
            assert line.get_ydata() == pytest.approx([top + seed, top / 2 + seed, top / 4 + seed])
        assert median.get_ydata() == pytest.approx([top + 1, top / 2 + 1, top / 4 + 1])
        assert median.get_linewidth() > 2 * runs[0].get_linewidth()
        assert ax.get_shared_y_axes().joined(ax, panels[0])


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7])
def test_there_is_a_panel_for_each_method(n):
    methods = list(plots.STYLES)[:n]
    figure = drawn(plots.learning_curves(curves_of(methods), methods))
    panels = panels_of(figure)
    assert [ax.get_title() for ax in panels] == methods
    columns = {round(ax.get_position().x0, 2): ax for ax in panels}  # the lowest of each
    for ax in columns.values():
        assert any(label.get_visible() and label.get_text() for label in ax.get_xticklabels())


def test_learning_curves_of_nothing_is_an_empty_figure():
    nothing = curves_of(["L2 end to end"]).assign(val_loss=math.nan)
    for curves in (nothing, nothing[:0], results.curves([diverged()])):
        figure = drawn(plots.learning_curves(curves, ["L1 end to end", "L2 end to end"]))
        assert not any(ax.lines for ax in figure.axes)


def diverged():
    return {
        "experiment": "esol", "dataset": "esol", "profile": "quick", "split": "random", "seed": 0,
        "method": "L2 end to end",
        "data": {"checksum": "0" * 64}, "config": {}, "stages": [], "metrics": {},
        "test": {"index": [1], "target": [0.5], "prediction": []},
    }  # fmt: skip


# --- parity and error by range --------------------------------------------------------------------------

PREDICTIONS = pd.DataFrame(
    [
        {"method": method, "split": "random", "seed": seed, "index": i, "target": target, "prediction": target + gap}
        for method, gap in (("L1 end to end", 1.0), ("RnC frozen, L1", -0.5))
        for seed in range(2)
        for i, target in enumerate([-5.0, -3.5, -1.0, 0.5])
    ]
)


def test_parity_shows_every_prediction_and_the_diagonal():
    figure = drawn(plots.parity(PREDICTIONS, ["RnC frozen, L1", "Huber end to end", "L1 end to end"], unit="log mol/L"))
    panels = panels_of(figure)
    assert [ax.get_title() for ax in panels] == ["RnC frozen, L1", "L1 end to end"]
    for ax, gap in zip(panels, (-0.5, 1.0), strict=True):
        (points,) = ax.collections
        x, y = points.get_offsets().T
        assert sorted(x) == sorted([-5.0, -3.5, -1.0, 0.5] * 2)
        np.testing.assert_allclose(y - x, gap)
        (diagonal,) = ax.lines
        assert list(diagonal.get_xdata()) == list(diagonal.get_ydata()) == [-5.0, 0.5]
        assert ax.get_aspect() == 1


def test_parity_of_nothing_is_an_empty_figure():
    for predictions in (PREDICTIONS, results.predictions([diverged()])):
        assert not any(ax.collections for ax in drawn(plots.parity(predictions, ["Huber end to end"], unit="u")).axes)


def test_error_by_range_is_the_mean_over_runs_of_each_runs_mean():
    predictions = PREDICTIONS.copy()
    predictions.loc[(predictions["method"] == "L1 end to end") & (predictions["seed"] == 1), "prediction"] += 1.0
    ax = plots.error_by_range(
        predictions, ["L1 end to end", "RnC frozen, L1", "L2 end to end"], [-6, -3, 0, 2], unit="log mol/L"
    )
    drawn(ax.figure)
    assert [line.get_label() for line in ax.lines] == ["L1 end to end", "RnC frozen, L1"]
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [1.5, 1.5, 1.5])  # 1 in one run, 2 in the other
    np.testing.assert_allclose(ax.lines[1].get_ydata(), [0.5, 0.5, 0.5])
    counts = [label.get_text().split("\n")[1].split()[0] for label in ax.get_xticklabels()]
    assert counts == ["2", "1", "1"]  # each molecule once, however many runs tested it
    band = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == pytest.approx((1.25, 1.75))  # the quartiles of 1 and 2
    assert ax.get_ylim()[0] == 0


def test_ranges_include_their_upper_bound_and_the_first_its_lower():
    ax = plots.error_by_range(PREDICTIONS, ["L1 end to end"], [-5, -3.5, 0.5], unit="u")
    counts = [label.get_text().split("\n")[1].split()[0] for label in ax.get_xticklabels()]
    assert counts == ["2", "2"]


def test_ranges_without_a_sample_are_gaps():
    ax = plots.error_by_range(PREDICTIONS, ["L1 end to end"], [-12, -8, -6, -4, 2, 4], unit="u")
    drawn(ax.figure)
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [math.nan, math.nan, 1, 1, math.nan])
    assert len(ax.get_xticklabels()) == 5
    for predictions, methods in (
        (PREDICTIONS, ["Huber end to end"]),
        (results.predictions([diverged()]), ["L2 end to end"]),
    ):
        ax = plots.error_by_range(predictions, methods, [-6, 0, 2], unit="u")
        assert not drawn(ax.figure).axes[0].lines


# --- representations ------------------------------------------------------------------------------------


def test_representations_shows_each_part_in_one_scale_of_colours():
    def view(shift):
        return pd.DataFrame(
            {"part": ["train"] * 5 + ["val"] * 2 + ["test"] * 3, "target": np.arange(10.0) + shift,
             "pc1": np.arange(10.0), "pc2": -np.arange(10.0)}
        )  # fmt: skip

    figure = drawn(plots.representations({"one": view(0), "two": view(5)}, label="solubility"))
    by_title = {ax.get_title(): ax for ax in figure.axes if ax.get_title()}
    assert list(by_title) == ["one: training set", "two: training set",
                              "one: test set", "two: test set"]  # fmt: skip
    for title, rows in (("one: training set", range(5)), ("two: test set", range(7, 10))):
        (points,) = by_title[title].collections
        assert points.get_offsets().tolist() == [[float(i), -float(i)] for i in rows]
        assert points.get_array().tolist() == [float(i) + (5 if "two" in title else 0) for i in rows]
        assert points.get_clim() == (0.0, 14.0)
    assert any(ax.get_ylabel() == "solubility" for ax in figure.axes)


def test_representations_of_nothing_is_an_empty_figure():
    assert not any(ax.collections for ax in drawn(plots.representations({}, label="solubility")).axes)


# --- data efficiency, corruption, speed -----------------------------------------------------------------


def test_errors_by_size_draws_the_mean_at_each_size_on_logarithmic_axes():
    runs = pd.DataFrame(
        [
            {
                "method": method,
                "split": "random",
                "seed": seed,
                "n_train": n,
                "n_test_pool": 10,
                "overlap": 0.1,
                "one_data_set": True,
                "n_test": 10,
                "n_pool": 80,
                "mae": mae + seed,
            }
            for method, mae in (("L1 end to end", 1.0), ("RnC frozen, L1", 2.0))
            for seed in (0, 1)
            for n in (20, 80)
        ]
    )
    ax = plots.errors_by_size(runs, "mae", label="MAE", samples="molecules")
    drawn(ax.figure)
    assert (ax.get_xscale(), ax.get_yscale(), ax.get_xlabel()) == ("log", "log", "training molecules")
    lines = {line.get_label(): line.get_xydata().tolist() for line in ax.lines}
    assert lines == {"L1 end to end": [[20, 1.5], [80, 1.5]], "RnC frozen, L1": [[20, 2.5], [80, 2.5]]}
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["20", "80"]
    low, high = ax.get_ylim()
    assert low < 1.0 and high > 3.0  # every run, whatever its interval


def test_errors_by_severity_has_a_panel_for_each_kind():
    rows = [
        {"method": method, "seed": seed, "kind": kind, "severity": severity, "mae": scale * severity + seed}
        for method, scale in (("L1 end to end", 1.0), ("RnC frozen, L1", 3.0))
        for seed in (0, 2)
        for kind in ("fog", "snow")
        for severity in range(6)
    ]
    figure = drawn(plots.errors_by_severity(pd.DataFrame(rows), ["snow", "fog"], label="MAE"))
    panels = [ax for ax in figure.axes if ax.get_visible()]
    assert [ax.get_title() for ax in panels] == ["snow", "fog"]
    for ax in panels:
        lines = {line.get_label(): line.get_ydata().tolist() for line in ax.lines}
        assert lines == {
            "L1 end to end": [1.0 + s for s in range(6)],
            "RnC frozen, L1": [1.0 + 3 * s for s in range(6)],
        }


def test_an_organisation_is_coloured_by_target_and_by_nuisance():
    view = pd.DataFrame(
        {"part": ["train", "test", "test"], "target": [9.0, 1.0, 2.0], "nuisance": [9.0, 5.0, 4.0],
         "pc1": [0.0, 1.0, 2.0], "pc2": [0.0, 3.0, 4.0]}
    )  # fmt: skip
    figure = drawn(plots.organisation({"L1 end to end": view, "RnC frozen, L1": view}, label="age", nuisance="hue"))
    panels, bars = figure.axes[:4], figure.axes[4:]
    assert [ax.get_title() for ax in panels] == ["L1 end to end", "RnC frozen, L1", "", ""]
    for ax, column in zip(panels, ("target", "target", "nuisance", "nuisance"), strict=True):
        (points,) = ax.collections
        assert points.get_array().tolist() == view[column][1:].tolist()  # of the test set
        assert points.get_offsets().tolist() == [[1, 3], [2, 4]]
    assert [bar.get_ylabel() for bar in bars] == ["age", "hue"]
    plots.organisation({}, label="age", nuisance="hue")


def test_costs_are_drawn_for_each_size_with_lines_at_one_and_two():
    sizes = (64, 128, 256)
    rows = [
        {"labels": labels, "d": d, "M": M, "rnc_loss": cost + 0.001 * d}
        for labels, cost in (("ages", 1.0), ("continuous", 2.5))
        for d in (8, 16)
        for M in sizes
    ]
    figure = drawn(plots.costs(pd.DataFrame(rows)))
    assert [ax.get_title() for ax in figure.axes] == ["ages", "continuous"]
    for ax, cost in zip(figure.axes, (1.0, 2.5), strict=True):
        small, large, one, two = ax.get_lines()
        assert list(small.get_xdata()) == list(sizes) and list(large.get_ydata()) == pytest.approx(3 * [cost + 0.016])
        assert one.get_ydata() == [1, 1] and two.get_ydata() == [2, 2]
        assert ax.get_ylim()[0] == 0 and ax.get_ylim()[1] > 2.516  # nothing is cut off


def test_costs_of_regimes_are_lines_over_reach_and_dots_for_the_others():
    rows = [
        {"regime": name, "d": d, "M": 64, "reach": reach, "SupCon": same, "SupCon as drawn": as_drawn}
        for d in (8, 16)
        for name, reach, same, as_drawn in (
            ("as drawn", 5.0, 1.1, 1.1), ("reach 100", 100.0, 0.4, 3.0), ("reach 1", 1.0, 1.2, 1.3),
            ("all different, reach 300", 300.0, 1.9, 1.8),
        )
    ]  # fmt: skip
    figure = drawn(plots.costs_of_regimes(pd.DataFrame(rows)))
    same, as_drawn, others = figure.axes
    for ax, expected in ((same, [1.2, 0.4]), (as_drawn, [1.3, 3.0])):
        first, second, *_ = ax.get_lines()
        assert list(first.get_xdata()) == [1, 100] and list(first.get_ydata()) == expected
        assert second.get_marker() != first.get_marker() and ax.get_ylim()[1] > 3
    assert rows_of(others) == ["as drawn", "all different, reach 300"]
    for dots in others.get_lines()[:2]:
        assert list(dots.get_xdata()) == [1.1, 1.9] and np.round(dots.get_ydata()).tolist() == [0, 1]
    assert [line.get_xdata() for line in others.get_lines()[2:]] == [[1, 1], [2, 2]]


def test_costs_in_training_stand_above_the_reach():
    frame = pd.DataFrame(
        {"step": [0, 5, 50], "reach": [1.0, 20.0, 40.0], "SupCon": [1.2, 0.9, 0.5], "SupCon at step 0": [1.2, 1.3, 1.4]}
    )
    above, below = drawn(plots.costs_in_training(frame)).axes
    same, first, *_ = above.get_lines()
    assert list(same.get_ydata()) == [1.2, 0.9, 0.5] and list(first.get_ydata()) == [1.2, 1.3, 1.4]
    (reach,) = below.get_lines()
    assert list(reach.get_ydata()) == [1.0, 20.0, 40.0]
    assert [label.get_text() for label in below.get_xticklabels()] == ["0", "5", "50"]


def test_rates_are_bars_with_their_multiples():
    rates = pd.DataFrame(
        {"setting": ["a", "a", "b", "b"], "pipeline": ["plain", "rnclib"] * 2,
         "images_per_second": [10.0, 35.0, 2.0, 3.0], "times": [1.0, 3.5, 1.0, 1.5]}
    )  # fmt: skip
    figure = drawn(plots.rates(rates))
    assert [ax.get_title() for ax in figure.axes] == ["a", "b"]
    assert [bar.get_width() for bar in figure.axes[0].patches] == [10.0, 35.0]
    assert [text.get_text() for text in figure.axes[1].texts] == ["1.0×", "1.5×"]


# --- the house's style ----------------------------------------------------------------------------------


def shown_together():
    """Labels by experiment and data set: what a figure of a chapter may show side by side."""
    from rnclib.chapters import experiments

    for name, experiment in experiments().items():
        for dataset in ("esol", "synthetic"):
            if dataset in experiment.datasets and name != "tuning":  # no figure shows the trials of the search
                runs = experiment.runs(dataset=dataset, profile="paper")
                yield name, dataset, list(dict.fromkeys(run.label for run in runs))


def test_no_two_methods_of_a_figure_share_colour_and_marker():
    found = list(shown_together())
    assert found
    for name, dataset, labels in found:
        styles = plots.styles(labels)
        assert list(styles) == labels
        assert len(set(styles.values())) == len(labels), (name, dataset)


def test_every_method_has_a_style_of_its_own_but_for_changed_design_choices():
    for name, _, labels in shown_together():
        strangers = [label for label in labels if label not in plots.STYLES]
        # the figure of the first names each in a row of its own, those of the others have styles of their own
        assert not strangers or name in ("ablations", "tasks", "concrete"), strangers


def test_a_method_looks_the_same_beside_any_others():
    alone = plots.styles(["RnC frozen, L1"])
    beside = plots.styles(["my own", "RnC frozen, L1", "another"])
    assert beside["RnC frozen, L1"] == alone["RnC frozen, L1"] == plots.STYLES["RnC frozen, L1"]
    assert len(set(beside.values())) == 3


def luminance(colour):
    """Relative luminance as WCAG 2 defines it."""
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one, other):
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


@pytest.mark.parametrize("background", ["#ffffff", "#121212", "#1e1e1e"])
def test_colours_are_legible_on_light_and_dark_pages(background):
    assert {colour for colour, _ in plots.STYLES.values()} <= set(plots.COLOURS)
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert min(contrast(colour, background) for colour in plots.COLOURS) >= 3


# What a colour-blind reader sees, for linear RGB: Machado et al. (2009), severity 1.
COLOUR_BLIND = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


def lab(colour, blindness=None):
    """CIELAB of a colour, as a reader sees it."""
    rgb = np.array(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    if blindness is not None:
        linear = np.clip(np.array(COLOUR_BLIND[blindness]) @ linear, 0, 1)
    to_xyz = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x, y, z = np.cbrt(np.array(to_xyz) @ linear / [0.9505, 1.0, 1.089])
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("blindness", [None, *COLOUR_BLIND])
def test_colours_of_one_figure_can_be_told_apart_or_have_another_marker(blindness):
    far = 10  # CIELAB units; about 2 can just be told apart side by side
    for name, dataset, labels in shown_together():
        styles = list(plots.styles(labels).values())
        for i, (colour, marker) in enumerate(styles):
            for other, its_marker in styles[:i]:
                alike = np.linalg.norm(lab(colour, blindness) - lab(other, blindness)) < far
                assert not alike or marker != its_marker, (name, dataset, colour, other)


def test_the_style_is_set_for_all_figures():
    plots.use_style()
    assert mpl.rcParams["axes.grid"] and mpl.rcParams["figure.facecolor"] == "white"
