"""The chapters of the book: each with its grid, published values, claims, and names of tables and figures.

To add a chapter, write its module here and its notebook, and name it in `NAMES` and in ``_toc.yml``.
``python -m rnclib.chapters`` prints the names.
"""

from __future__ import annotations

import functools
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rnclib.chapters.base import Chapter, Experiment
    from rnclib.claims import Claim
    from rnclib.experiment import Run

__all__ = ["NAMES", "all_claims", "chapter", "experiments", "planned", "runs_of"]

#: Chapters in the order of the book.
NAMES = (
    "loss", "esol", "agedb", "data_efficiency", "robustness", "ablations", "methods", "claims", "tasks", "your_data",
    "benchmark",
)  # fmt: skip


def chapter(name: str) -> Chapter:
    """The chapter of that name.

    Parameters
    ----------
    name : str
        One of `NAMES`.

    Raises
    ------
    ValueError
        If there is none.
    """
    if name not in NAMES:
        raise ValueError(f"name: got {name!r}; allowed: {', '.join(map(repr, NAMES))}")
    return import_module(f"rnclib.chapters.{name}").CHAPTER


def experiments() -> dict[str, Experiment]:
    """All experiments by name."""
    return {experiment.name: experiment for name in NAMES for experiment in chapter(name).experiments}


def all_claims() -> tuple[Claim, ...]:
    """All comparisons that the verdict page is about, the primary ones first in each claim.

    Those of one claim follow each other. What a chapter compares too counts once.
    """
    every: dict[tuple, Claim] = {}
    for name in ("claims", *NAMES):
        for claim in chapter(name).claims:
            compared = (claim.experiment, claim.dataset, claim.split, claim.method, claim.baseline, claim.effect)
            every.setdefault((*compared, claim.holes, claim.spurious), claim)
    order = list(dict.fromkeys(claim.text for claim in every.values()))
    return tuple(sorted(every.values(), key=lambda claim: order.index(claim.text)))


def planned(claim: Claim, profile: str) -> dict[str, str]:
    """Keys of the runs that a claim is judged on, with their labels; see `runs_of`.

    Parameters
    ----------
    claim : Claim
    profile : str
    """
    return {_key(run): run.label for run in runs_of(claim, profile)}


@functools.cache  # many claims rest on the same runs
def _key(run: Run) -> str:
    from rnclib.experiment import key

    return key(run)


@functools.cache
def _grid(experiment: str, dataset: str, profile: str, n_seeds: int | None) -> tuple[Run, ...]:
    return tuple(experiments()[experiment].runs(dataset=dataset, profile=profile, n_seeds=n_seeds))


def runs_of(claim: Claim, profile: str) -> list[Run]:
    """The runs that a claim is judged on.

    What a spurious correlation adds needs the runs without it too. None if the profile lacks one of the two methods,
    as short ones may.

    Parameters
    ----------
    claim : Claim
    profile : str
    """
    n_seeds = claim.n_seeds if profile == "paper" else None
    correlations = ("tied", "untied") if claim.effect in ("nuisance coefficient", "organisation") else (claim.spurious,)
    corrupted = claim.effect in ("corruption", "growth")
    found = [
        run
        for run in _grid(claim.experiment, claim.dataset, profile, n_seeds)
        if run.label in (claim.method, claim.baseline)
        and (run.data.split, run.data.holes) == (claim.split, claim.holes)
        and run.data.spurious in correlations
        and run.data.wrong_targets in (None, 1.0)  # label noise is for tables; all labels wrong for a control
        and (run.data.fraction is None or claim.effect == "data")
        and (run.corruptions or not corrupted)
    ]
    return found if {run.label for run in found} == {claim.method, claim.baseline} else []
