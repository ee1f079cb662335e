"""With less data: how much less does Rank-N-Contrast need for the same error?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pandas as pd

from rnclib import protocols
from rnclib.chapters.base import FACES, MOLECULES, Chapter, Experiment, Scope, compared
from rnclib.claims import LESS, PAPER, Claim
from rnclib.experiment import Run
from rnclib.protocols.search import SEARCHES, TUNED, with_settings

__all__ = ["CHAPTER", "in_words", "pairs", "steps"]

_FRACTIONS = {"paper": (0.05, 0.1, 0.2, 0.4, 0.7, 1.0), "quick": (0.1, 0.3, 1.0), "smoke": (0.2, 1.0)}


def grid(scope: Scope) -> list[Run]:
    """Each method on nested subsets of the training samples.

    Epochs are those of the full training set, so that fewer samples make fewer steps. The encoders get regressors
    in closed form too, which take no steps. Synthetic faces have two more methods: end-to-end training as published,
    and Rank-N-Contrast with tuned settings.

    Parameters
    ----------
    scope : Scope
    """
    runs = compared(scope, "data_efficiency", small=True, fine_tuned=True)
    runs += [
        run.but(method="L1, closed form", head="ridge")
        if run.recipe.pretrain is None
        else run.but(method="RnC, closed form", fit=None, head="ridge")
        for run in runs
        if run.recipe.freeze or run.recipe.pretrain is None
    ]
    if scope.dataset == "synthetic":
        published = compared(scope, "data_efficiency", small=True, published=True)
        end_to_end, frozen = ([run for run in published if run.recipe.freeze == freeze] for freeze in (False, True))
        settings = SEARCHES["images"]["RnC"].trials()[TUNED[scope.dataset]["RnC"]]
        for one, other in zip(end_to_end, frozen, strict=True):
            tuned = with_settings("RnC", settings, one.recipe, other.recipe)
            runs += [one, replace(other, method="RnC, tuned, closed form", recipe=tuned)]
    return [
        run.but(fraction=None if fraction == 1 else fraction) for run in runs for fraction in _FRACTIONS[scope.profile]
    ]


def pairs(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Labels of each contrastive method and of the end-to-end training with the same kind of regressor.

    Where end-to-end training is there as published too, the two as published come first.

    Parameters
    ----------
    runs : sequence of Run
        From the grid, of one data set.
    """
    well = protocols.end_to_end(runs[0].data.dataset)
    closed_form = next(run.label for run in runs if run.recipe.pretrain is None and run.recipe.head is not None)
    published = ("RnC frozen, L1", "L1 end to end")
    contrastive = {run.label: run.recipe for run in runs if run.recipe.pretrain is not None}
    found = [(method, well if recipe.head is None else closed_form) for method, recipe in contrastive.items()]
    as_published = published[1] != well and published[1] in {run.label for run in runs}
    return [published, *found] if as_published else found


def steps(runs: Sequence[Run], n_train: Mapping[float, int]) -> pd.DataFrame:
    """Optimiser steps that each stage of each method takes, by fraction of the training set.

    Parameters
    ----------
    runs : sequence of Run
    n_train : mapping of float to int
        Training samples of each fraction, 1 for all.

    Returns
    -------
    DataFrame
        Columns ``Method``, ``Stage``, and one for each fraction.
    """
    rows: dict[tuple[str, str], dict[str, int]] = {}
    for run in runs:
        recipe, fraction = run.recipe, run.data.fraction or 1.0
        second = "regressor" if recipe.pretrain else "end to end"
        for name, stage in (("encoder", recipe.pretrain), (second, recipe.fit)):
            if stage is not None:
                n = n_train[fraction]
                batches = n / min(stage.batch_size, n)
                taken = stage.epochs * (math.floor(batches) if stage.drop_last else math.ceil(batches))
                rows.setdefault((run.label, name), {})[f"{fraction:.0%}"] = taken
    table = pd.DataFrame.from_dict(rows, orient="index")
    table.index = pd.MultiIndex.from_tuples(rows, names=["Method", "Stage"])
    return table.reset_index()


def in_words(fractions: Sequence[float], every: Sequence[float]) -> str:
    """Some of the fractions as a phrase, as short as it can be.

    Parameters
    ----------
    fractions : sequence of float
        At least one, rising.
    every : sequence of float
        All that there are, rising.

    Examples
    --------
    >>> every = (0.05, 0.1, 0.2, 1.0)
    >>> in_words([0.1, 0.2, 1.0], every), in_words([0.05, 0.1], every), in_words([0.05, 0.2], every)
    ('from 10% on', 'up to 10%', 'at 5% and 20%')
    """
    first, last = (every.index(end) for end in (fractions[0], fractions[-1]))
    if len(fractions) == len(every):
        return "at every fraction"
    if len(fractions) == 1 or len(fractions) < last - first + 1:
        *others, end = (f"{fraction:.0%}" for fraction in fractions)
        return f"at {', '.join(others)} and {end}" if others else f"at {end}"
    if not first:
        return f"up to {fractions[-1]:.0%}"
    if last == len(every) - 1:
        return f"from {fractions[0]:.0%} on"
    return f"from {fractions[0]:.0%} to {fractions[-1]:.0%}"


_SLOWER = {dataset: protocols.end_to_end(dataset) for dataset in ("esol", "synthetic")}

CHAPTER = Chapter(
    "data_efficiency",
    tables=(
        "efficiency-steps", "efficiency-steps-faces", "efficiency-table", "efficiency-table-faces",
        "efficiency-differences", "efficiency-differences-faces", "efficiency-ratio", "efficiency-slopes",
        "efficiency-ratio-faces", "efficiency-slopes-faces", "efficiency-verdicts", "efficiency-machines",
    ),
    figures=("efficiency-errors", "efficiency-errors-faces"),
    experiments=(
        Experiment(
            "data_efficiency", grid, (*MOLECULES, *FACES),
            n_seeds={
                "molecules": {"paper": 22, "quick": 2, "smoke": 1}, "images": {"paper": 5, "quick": 1, "smoke": 1},
            },
            options={"data_dir": None},
        ),
    ),
    claims=(
        *(
            Claim(
                LESS, PAPER, "data_efficiency", "esol", "random", method, baseline, "data", "efficiency-ratio",
                figure="efficiency-errors",
            )
            for method, baseline in (
                ("RnC frozen, closed form", "L1 end to end, closed form, lr 0.001"),
                ("RnC fine-tuned, L1", _SLOWER["esol"]),
            )
        ),
        *(
            Claim(
                LESS, PAPER, "data_efficiency", "synthetic", "standard", method, baseline, "data",
                "efficiency-ratio-faces", figure="efficiency-errors-faces",
            )
            for method, baseline in (
                ("RnC frozen, closed form", "L1 end to end, closed form, lr 0.01"),
                ("RnC frozen, closed form, tuned", "L1 end to end, closed form, lr 0.01"),
                ("RnC frozen, L1", "L1 end to end"),
                ("RnC frozen, L1", _SLOWER["synthetic"]),
            )
        ),
    ),
    smoke={"profile": "smoke", "molecules": "standin"},
)  # fmt: skip
