"""Which choices matter: one design choice of Rank-N-Contrast changed at a time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from rnclib import statistics
from rnclib.chapters.base import FACES, MOLECULES, Chapter, Experiment, Scope, compared
from rnclib.claims import COURSE, PAPER, Claim
from rnclib.experiment import Run
from rnclib.recipe import Recipe

__all__ = ["CHAPTER", "CHOICES", "PROTOCOL", "changes", "choices_in", "label_of"]

#: The paper's design choices: for each, the values beside the one of the protocol, as changes to the contrastive stage
#: or the recipe. Lengths are fractions of the protocol's epochs; molecules have one view in any case.
CHOICES: dict[str, dict[str, dict[str, Any]]] = {
    "temperature": {f"{value:g}": {"temperature": value} for value in (0.5, 1.0, 5.0, 10.0)},
    "similarity": {
        "cosine, temperature 0.1": {"feature_sim": "cosine", "temperature": 0.1},
        "cosine, temperature 2": {"feature_sim": "cosine"},
        "negative L2, features of length 1": {"unit_features": True},
        "negative L1": {"feature_sim": "l1"},
    },
    "batch size": {f"{value}": {"batch_size": value} for value in (16, 64, 128)},
    "views": {"1": {"n_views": 1}},
    "length": {f"{fraction:g} of the epochs": {"epochs": fraction} for fraction in (0.125, 0.25, 0.5)},
    "projection head": {"64 features": {"projection": 64}},
}
_REGRESSOR = "regressor"
# Value of each choice in the short profiles.
_SHORT = {
    "temperature": "0.5", "similarity": "cosine, temperature 0.1", "batch size": "16", "views": "1",
    "length": "0.125 of the epochs", "projection head": "64 features",
}  # fmt: skip
#: Label of what every change is compared with.
PROTOCOL = "RnC frozen, closed form"


def _changed(recipe: Recipe, changes: dict[str, Any]) -> Recipe:
    """The protocol's recipe with changes, which its label says."""
    assert recipe.pretrain is not None
    if "projection" in changes:
        return replace(recipe, **changes, notable=tuple(changes))
    if "epochs" in changes:
        fraction = changes["epochs"]
        shorter = replace(recipe.pretrain, epochs=max(1, round(fraction * recipe.pretrain.epochs)))
        return replace(recipe, pretrain=shorter, notable=(f"{fraction:g} of the epochs",))
    notable = tuple(f"pretrain.{name}" for name in changes)
    return replace(recipe, pretrain=replace(recipe.pretrain, **changes), notable=notable)


def _variants(scope: Scope) -> list[tuple[str, str, Run]]:
    """Choice, value and run; the protocol's own are of no choice."""
    found = []
    every = compared(scope, "ablations", small=True, fine_tuned=True)
    for run in sorted(every, key=lambda run: run.recipe.pretrain is None):
        run = run.but(precision="bf16-mixed")
        recipe = run.recipe
        if recipe.pretrain is None:
            assert recipe.fit is not None
            jointly = replace(recipe.fit, regulariser="rnc", regulariser_weight=1.0)
            found.append((_REGRESSOR, "L1, trained jointly", run.but(fit=jointly)))
        elif not recipe.freeze:
            found.append((_REGRESSOR, "L1, with fine-tuning", run))
        else:
            protocol = run.but(method="protocol", fit=None, head="ridge")
            found.append(("protocol", "", protocol))
            for choice, values in CHOICES.items():
                if choice == "views" and recipe.pretrain.n_views is None:
                    continue
                for value, changes in values.items():
                    if scope.profile != "paper" and value != _SHORT[choice]:
                        continue
                    changed = replace(protocol, recipe=_changed(protocol.recipe, changes))
                    if changed != protocol:
                        found.append((choice, value, changed))
            found.append((_REGRESSOR, "L1, by gradient descent", run))
    return found


def grid(scope: Scope) -> list[Run]:
    """One choice at a time, with a regressor in closed form, and Rank-N-Contrast with other training schemes.

    All are trained in bfloat16, which takes two thirds of the time. Short profiles have one value of each choice. On
    faces that is the number of views only, of which molecules have one in any case, unless a choice or ``'all'`` is
    asked for.

    Parameters
    ----------
    scope : Scope
    """
    wanted = scope.choice
    if wanted is None:
        wanted = "all" if scope.profile == "paper" or scope.kind == "molecules" else "views"
    chosen = [
        (value, run.but(method=f"{choice}: {value}") if value else run)
        for choice, value, run in _variants(scope)
        if wanted == "all" or choice in ("protocol", wanted)
    ]
    # molecules have no second view to leave out: nothing but the protocol is nothing to compare
    return [run for _, run in chosen] if any(value for value, _ in chosen) else []


def label_of(dataset: str, choice: str, value: str) -> str:
    """Label of the published runs with another value of a choice.

    Parameters
    ----------
    dataset : str
    choice : str
        A key of `CHOICES`, or ``'regressor'``.
    value : str
    """
    scope = Scope(dataset, "paper", n_seeds=1)
    return next(run.label for one, other, run in _variants(scope) if (one, other) == (choice, value))


def choices_in(runs: Sequence[Run]) -> dict[str, dict[str, str]]:
    """For each choice that runs of this chapter change, the label of each value, the protocol's first.

    Parameters
    ----------
    runs : sequence of Run
        From the grid.
    """
    protocol = next(run for run in runs if run.method == "protocol")
    stage = protocol.recipe.pretrain
    assert stage is not None
    own = {
        "temperature": f"{stage.temperature:g}", "similarity": "negative L2", "batch size": f"{stage.batch_size}",
        "views": f"{stage.n_views or 1}", "length": "all epochs", "projection head": "none",
        _REGRESSOR: "closed form",
    }  # fmt: skip
    scope = Scope(protocol.data.dataset, protocol.profile, n_seeds=1, data_dir=protocol.data.data_dir)
    there = {run.label for run in runs}
    found: dict[str, dict[str, str]] = {}
    for choice, value in own.items():
        others = {value: run.label for one, value, run in _variants(scope) if one == choice and run.label in there}
        if others:
            found[choice] = {f"{value} (protocol)": protocol.label} | others
    return found


def changes(runs: Sequence[Run], frame: pd.DataFrame) -> pd.DataFrame:
    """What each change does beside the protocol's runs on the same splits.

    Parameters
    ----------
    runs : sequence of Run
        From the grid.
    frame : DataFrame
        Of their records, from `rnclib.results.frame`.

    Returns
    -------
    DataFrame
        One row per change with runs to compare: its ``choice``, ``value`` and ``label``; the mean differences of test
        MAE (``error``) and of rank agreement (``order``); the number of pairs ``n``; and in how many of them the error
        is ``higher`` or ``lower``, and the features ``less`` or ``more`` in order.
    """
    error, order = (statistics.compare(frame, metric, PROTOCOL) for metric in ("test_mae", "test_rank_agreement"))
    rows = []
    for choice, values in choices_in(runs).items():
        for value, label in values.items():
            if label not in error.index or label not in order.index:
                continue  # the protocol itself, or a change with which every run diverged
            off, agreement = error.loc[label, "paired"].differences, order.loc[label, "paired"].differences
            row = {"choice": choice, "value": value, "label": label, "error": off.mean(), "order": agreement.mean()}
            row |= {"n": len(off), "higher": (off > 0).sum(), "lower": (off < 0).sum()}
            rows.append(row | {"less": (agreement < 0).sum(), "more": (agreement > 0).sum()})
    return pd.DataFrame(
        rows, columns=["choice", "value", "label", "error", "order", "n", "higher", "lower", "less", "more"]
    )


_SETTINGS = "lower error with the settings that the method comes with than with others"
_SCHEME = "lower error with a linear regressor on the frozen encoder than with other training schemes"

CHAPTER = Chapter(
    "ablations",
    tables=(
        "ablations-table", "ablations-differences", "ablations-table-faces", "ablations-differences-faces",
        "ablations-verdicts", "ablations-machines",
    ),
    figures=("ablations-figure", "ablations-figure-faces"),
    experiments=(
        Experiment(
            "ablations", grid, (*MOLECULES, *FACES),
            n_seeds={
                "molecules": {"paper": 5, "quick": 1, "smoke": 1}, "images": {"paper": 5, "quick": 1, "smoke": 1},
            },
            options={"choice": ("all", *CHOICES, _REGRESSOR), "data_dir": None},
        ),
    ),
    claims=(
        *(
            Claim(
                _SETTINGS, source, "ablations", dataset, split, label_of(dataset, choice, value), PROTOCOL,
                "standardised", link, figure=figure,
            )
            for dataset, split, link, figure in (
                ("esol", "random", "ablations-differences", "ablations-figure"),
                ("synthetic", "standard", "ablations-differences-faces", "ablations-figure-faces"),
            )
            for source, choice, value in (
                (PAPER, "temperature", "1"), (PAPER, "temperature", "5"),
                (PAPER, "similarity", "cosine, temperature 0.1"), (PAPER, "batch size", "64"),
                (PAPER, "projection head", "64 features"),
                (COURSE if dataset == "esol" else PAPER, "length", "0.5 of the epochs"),
                *([] if dataset == "esol" else [(PAPER, "views", "1")]),
            )
        ),
        *(
            Claim(
                _SCHEME, PAPER, "ablations", dataset, split, label_of(dataset, _REGRESSOR, other),
                label_of(dataset, _REGRESSOR, "L1, by gradient descent"), "standardised", link,
            )
            for dataset, split, link in (
                ("esol", "random", "ablations-table"), ("synthetic", "standard", "ablations-table-faces")
            )
            for other in ("L1, with fine-tuning", "L1, trained jointly")
        ),
    ),
    smoke={"profile": "smoke", "molecules": "standin"},
)  # fmt: skip
