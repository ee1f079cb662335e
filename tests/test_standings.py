"""Figures across tasks: what is drawn is what the tables say."""

from __future__ import annotations

import math

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest

from rnclib import standings


@pytest.fixture(autouse=True)
def close():
    yield
    plt.close("all")


def effects(values: dict[str, tuple[float, float, float]]) -> pd.DataFrame:
    return pd.DataFrame.from_dict(values, orient="index", columns=["effect", "low", "high"])


def markers(ax) -> dict[float, float]:
    """Where markers are drawn: across, by height."""
    return {round(float(line.get_ydata()[0]), 2): float(line.get_xdata()[0]) for line in ax.lines
            if line.get_marker() not in ("None", None, "") and len(line.get_xdata())}  # fmt: skip


def test_each_task_has_a_marker_for_each_comparison_and_the_estimate_is_last():
    tables = {
        "RnC against end to end": effects({"a": (-0.1, -0.2, 0.0), "b": (0.2, math.nan, math.nan)}),
        "joint against end to end": effects({"a": (0.05, 0.0, 0.1)}),
    }
    pooled = effects({"RnC against end to end": (-0.02, -0.1, 0.06)}).rename(columns={"effect": "mean"}).assign(n=2)
    figure = standings.effects_by_task(
        tables, {"One": ["a"], "Two": ["b"], "None": ["c"]}, {"a": "A", "b": "B"}, pooled, 0.05
    )
    one, two, last = figure.axes
    assert markers(one) == {-0.18: -0.1, 0.18: 0.05} and markers(two) == {-0.18: 0.2}
    assert markers(last) == {-0.18: -0.02}
    assert [label.get_text() for label in one.get_yticklabels()] == ["A"]
    ticks = [label.get_text() for label in last.get_xticklabels()]
    assert "1" in ticks and "0.9" in ticks
    assert len(standings.effects_by_task(tables, {"One": ["a"]}, {"a": "A"}, pd.DataFrame(), 0.05).axes) == 1


def test_an_effect_beyond_the_axis_is_an_arrow_with_its_ratio_and_one_split_has_no_interval():
    far = effects({"a": (math.log(3), 0.9, 1.4), "b": (-0.01, math.nan, math.nan)})
    figure = standings.effects_by_task({"one": far}, {"One": ["a", "b"]}, {"a": "A", "b": "B"}, pd.DataFrame(), 0.05)
    (ax,) = figure.axes
    assert markers(ax) == {0.0: pytest.approx(math.log(2)), 1.0: -0.01}
    assert [text.get_text() for text in ax.texts] == ["3"] and np.isfinite(ax.get_xlim()).all()


def test_ranks_are_drawn_in_their_order_with_the_band_of_what_is_not_told_apart():
    ax = standings.standing(pd.Series({"RnC": 1.5, "joint": 2.25}), 0.5, {"joint": "Joint"})
    assert markers(ax) == {0: 1.5, 1: 2.25}
    assert [label.get_text() for label in ax.get_yticklabels()] == ["RnC", "Joint"]
    (band,) = ax.patches
    assert (band.get_x(), band.get_width()) == (1.5, 0.5)


def test_a_profile_has_a_line_for_each_method():
    ax = standings.profiles(pd.DataFrame({"a": [0.5, 1.0], "b": [0.0, 0.5]}, index=[1.0, 1.1]), {"a": "A"})
    assert {line.get_label(): line.get_ydata().tolist() for line in ax.lines} == {"A": [0.5, 1.0], "b": [0.0, 0.5]}


def test_costs_stand_at_their_time_and_error():
    table = pd.DataFrame({"median": [0.0, 10.0], "behind": [1.2, 1.0]}, index=["mean", "RnC"])
    ax = standings.costs(table, {})
    assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in ax.lines] == [(0.05, 1.2), (10.0, 1.0)]
    assert [line.get_label() for line in ax.lines] == ["mean", "RnC"]


def test_each_property_has_a_panel_and_tasks_searched_on_less_are_hollow():
    properties = pd.DataFrame(
        {"n_train": [100.0, 8000.0], "noise": [0.2, 0.4], "skewness": [-1.0, 1.0]}, index=["a", "b"]
    )
    figure = standings.related(pd.Series({"a": -0.1, "b": 0.1}), properties, dict.fromkeys(properties, "words"), ["b"])
    assert [ax.get_visible() for ax in figure.axes] == [True, True, True, False]
    dots = [line for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert [line.get_markerfacecolor() for line in dots] == [standings.BLUE, "none"]
    assert figure.axes[0].get_xscale() == "log" and np.isclose(dots[1].get_ydata()[0], np.exp(0.1))
