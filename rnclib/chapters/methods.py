"""Beside other methods, each tuned with the same effort."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pandas as pd

from rnclib.chapters.base import FACES, MOLECULES, SMALL_FACES, Chapter, Experiment, Origin, Scope, compared
from rnclib.claims import BEATS, COURSE, PAPER, Claim
from rnclib.experiment import Run, key
from rnclib.protocols.search import METHODS, SEARCHES, TUNED, method_of, with_settings

__all__ = ["CHAPTER", "best_trials", "near_bounds", "search_table"]

# kind of inputs, profile: trials, and what is changed in a chapter's run and in its stages to make them short
_TRIALS: dict[str, dict[str, tuple[int, dict[str, Any], dict[str, int]]]] = {
    "molecules": {"paper": (15, {}, {"epochs": 120}), "quick": (2, {}, {"epochs": 20}), "smoke": (1, {}, {})},
    "images": {
        "paper": (15, {"model": "small", "size": SMALL_FACES, "n_samples": 1000}, {"epochs": 30}),
        "quick": (2, {}, {"epochs": 3}),
        "smoke": (1, {}, {}),
    },
}


def _to_tune(scope: Scope, experiment: str) -> list[tuple[Run, Run]]:
    """Of each seed its chapter's two runs to change: end to end, and contrastive with the encoder frozen."""
    runs = compared(scope, experiment, small=True, published=True)
    end_to_end = [run for run in runs if run.recipe.pretrain is None]
    frozen = [run for run in runs if run.recipe.freeze]
    return list(zip(end_to_end, frozen, strict=True))


def _tuned(method: str, settings: Mapping[str, Any], end_to_end: Run, frozen: Run) -> Run:
    """A chapter's run with another method and settings."""
    recipe = with_settings(method, settings, end_to_end.recipe, frozen.recipe)
    return replace(end_to_end if recipe.pretrain is None else frozen, recipe=recipe)


def search_grid(scope: Scope) -> list[Run]:
    """The search for settings: as many trials of each method, on one split, with short training.

    Their test sets have no part in the choice. Trials of a method follow each other, the methods are in the order of
    `rnclib.protocols.search.METHODS`.

    Parameters
    ----------
    scope : Scope
    """
    ((end_to_end, frozen),) = _to_tune(replace(scope, n_seeds=1), "tuning")
    n_trials, changes, stage_changes = _TRIALS[scope.kind][scope.profile]
    if "n_samples" not in end_to_end.data.source.options:  # photographs are as many as there are
        changes = {name: value for name, value in changes.items() if name != "n_samples"}

    def shortened(run: Run) -> Run:
        stages = {
            name: replace(stage, **stage_changes)
            for name in ("pretrain", "fit")
            if (stage := getattr(run.recipe, name)) is not None
        }
        return run.but(**changes, **stages)

    pair = shortened(end_to_end), shortened(frozen)
    return [
        _tuned(method, settings, *pair).but(method=f"{method}, trial {number}", notable=(f"trial {number}",))
        for method in METHODS
        for number, settings in enumerate(SEARCHES[scope.kind][method].trials(n_trials))
    ]


def _by_method(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """The trials of each method, in their order."""
    return {method: [run for run in runs if method_of(run.recipe) == method] for method in METHODS}


def _errors(runs: Sequence[Run], records: Sequence[dict[str, Any]]) -> pd.Series:
    """Validation MAE by number of the trial; those that diverged have none."""
    errors = {record["key"]: record["metrics"]["val"]["raw"]["mae"] for record in records if record["metrics"]}
    return pd.Series({number: errors.get(key(run)) for number, run in enumerate(runs)}, dtype=float).dropna()


def best_trials(runs: Sequence[Run], records: Sequence[dict[str, Any]]) -> dict[str, int]:
    """The trial of each method that has the lowest validation MAE.

    Parameters
    ----------
    runs : sequence of Run
        From `search_grid`.
    records : sequence of dict
        Of these runs. A method whose trials all diverged is left out.
    """
    errors = {method: _errors(its, records) for method, its in _by_method(runs).items()}
    return {method: int(of.idxmin()) for method, of in errors.items() if len(of)}


def search_table(runs: Sequence[Run], records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """What was searched, and what came out: one row for each setting of each method.

    Parameters
    ----------
    runs, records
        As for `best_trials`.

    Returns
    -------
    DataFrame
        Columns ``method``, ``setting``, ``searched`` (bounds or values), ``chosen``, ``trials`` (such as "14 of 15"
        where one diverged), and validation MAE of the ``first`` trial and of the ``best``.
    """
    best, rows = best_trials(runs, records), []
    for method, its in _by_method(runs).items():
        errors, recipe = _errors(its, records), its[best.get(method, 0)].recipe
        stage = recipe.pretrain or recipe.fit
        for field, among in SEARCHES[its[0].data.source.kind][method].searched.items():
            rows.append(
                {
                    "method": method,
                    "setting": _in_words(field),
                    "searched": ", ".join(map(str, among))
                    if isinstance(among, list)
                    else f"{among[0]:g} to {among[1]:g}",
                    "chosen": f"{getattr(stage, field):g}",
                    "trials": f"{len(errors)}" + (f" of {len(its)}" if len(errors) < len(its) else ""),
                    "first": errors.get(0),
                    "best": errors.min(),
                }
            )
    return pd.DataFrame(rows)


def _in_words(field: str) -> str:
    return field.replace("regulariser", "term").replace("_", " ")


_NEAR = 0.1  # of the range that is searched, on a logarithmic scale


def near_bounds(runs: Sequence[Run], records: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """Method and setting wherever the search chose a value near a bound, or the least or largest of a list.

    Parameters
    ----------
    runs, records
        As for `best_trials`.
    """
    its, found = _by_method(runs), []
    for method, best in best_trials(runs, records).items():
        run = its[method][best]
        for field, among in SEARCHES[run.data.source.kind][method].searched.items():
            value = getattr(run.recipe.pretrain or run.recipe.fit, field)
            position = math.log(value / min(among)) / math.log(max(among) / min(among))
            if not _NEAR <= position <= 1 - _NEAR:
                found.append((method, _in_words(field)))
    return found


def grid(scope: Scope) -> list[Run]:
    """Each method with the settings that a search chose.

    The encoders of SupCon and Rank-N-Contrast have a linear regressor in closed form. The others predict with the
    linear layer that they trained, and once more with one in closed form on the same network.

    Parameters
    ----------
    scope : Scope
        A method for which `tuned` names no trial gets its first.
    """
    chosen = TUNED.get(scope.dataset) if scope.tuned is None else scope.tuned
    if chosen is None:
        raise ValueError(f"tuned: got None with dataset={scope.dataset!r}; allowed: trials of a search of your own")
    trials = {method: SEARCHES[scope.kind][method].trials() for method in METHODS}
    for method, trial in chosen.items():
        if method not in trials or type(trial) is not int or not 0 <= trial < len(trials[method]):
            n_trials = len(trials[METHODS[0]])
            allowed = f"trials from 0 to {n_trials - 1} of {', '.join(map(repr, METHODS))}"
            raise ValueError(f"tuned: got {dict(chosen)}; allowed: {allowed}")
    pairs = _to_tune(scope, "methods")
    runs = []
    for method in METHODS:
        settings = trials[method][chosen.get(method, 0)]
        for pair in pairs:
            run = _tuned(method, settings, *pair)
            if run.recipe.fit is not None:
                runs.append(replace(run, method=method))
            runs.append(run.but(method=f"{method}, closed form", head="ridge"))
    return runs


_SEARCH = Experiment("tuning", search_grid, (*MOLECULES, *FACES), seeded=False, options={"data_dir": None})
_COMPARISON = Experiment(
    "methods", grid, (*MOLECULES, *FACES),
    n_seeds={kind: {"paper": 5, "quick": 1, "smoke": 1} for kind in ("molecules", "images")},
    options={"data_dir": None, "tuned": None},
)  # fmt: skip

CHAPTER = Chapter(
    "methods",
    tables=(
        "methods-search", "methods-search-faces", "methods-errors", "methods-differences", "methods-errors-faces",
        "methods-differences-faces", "methods-verdicts", "methods-machines",
    ),
    figures=("methods-figure", "methods-figure-faces"),
    experiments=(_SEARCH, _COMPARISON),
    claims=tuple(
        Claim(
            BEATS, source, "methods", dataset, split, "RnC frozen, closed form, tuned", baseline, "difference", link,
            figure=figure,
        )
        for source, dataset, split, link, figure in (
            (COURSE, "esol", "random", "methods-differences", "methods-figure"),
            (PAPER, "synthetic", "standard", "methods-differences-faces", "methods-figure-faces"),
        )
        for baseline in ("L1 end to end, tuned", "L1 end to end, closed form, tuned")
    ),
    origins={
        **dict.fromkeys(("methods-search", "methods-search-faces"), Origin(("tuning",))),
        **{
            f"methods-{table}{data}": Origin(("methods",))
            for table in ("errors", "figure", "differences")
            for data in ("", "-faces")
        },
    },
    smoke={"profile": "smoke", "molecules": "standin"},
)  # fmt: skip
