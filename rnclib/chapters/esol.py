"""Molecules (ESOL): does ordering them by solubility help to predict it?"""

from __future__ import annotations

import pandas as pd

from rnclib import protocols
from rnclib.chapters.base import MOLECULES, Chapter, Experiment, Origin, Scope, of_molecules
from rnclib.claims import BEATS, COURSE, ORDER, PAPER, Claim
from rnclib.experiment import Run
from rnclib.recipe import REGRESSION_LOSSES

__all__ = ["CHAPTER", "PUBLISHED"]

# splits that are published of each method; fewer of those that only this book compares
_PUBLISHED_SPLITS = {"random": 20, "scaffold": 10}
_FEWER_SPLITS: dict[str, dict[str, int]] = {
    "random": {"L2": 10, "L2 (lr 0.0001)": 10, "Huber": 10},
    "scaffold": {"L1 (lr 0.001)": 0, "L2": 0, "L2 (lr 0.0001)": 0, "Huber": 0},
}
_SHORT_SPLITS = {"quick": 3, "smoke": 1}

#: The course project's table by the label of each method: one random split, one seed, standardised units.
PUBLISHED = pd.DataFrame(
    [
        ("L1 end to end", 0.247, 0.326, 0.106, 0.224, 0.325, 0.106),
        ("RnC frozen, L1", 0.219, 0.297, 0.088, 0.255, 0.359, 0.129),
        ("RnC fine-tuned, L1", 0.212, 0.314, 0.099, 0.235, 0.345, 0.119),
        ("RnC fine-tuned, L2", 0.266, 0.342, 0.117, 0.276, 0.366, 0.134),
        ("RnC fine-tuned, Huber", 0.242, 0.326, 0.106, 0.245, 0.317, 0.101),
    ],
    columns=["method", "test_mae", "test_rmse", "test_mse", "val_mae", "val_rmse", "val_mse"],
).set_index("method")


def grid(scope: Scope) -> list[Run]:
    """Every loss end to end, and on Rank-N-Contrast's encoder, frozen and fine-tuned; and, with all losses, baselines.

    Parameters
    ----------
    scope : Scope
    """
    losses = tuple(REGRESSION_LOSSES) if scope.loss == "all" else (scope.loss,)
    methods = {
        name: recipe
        for name, recipe in protocols.molecules(scope.profile).items()
        if (scope.loss == "all" if recipe.fit is None else recipe.fit.loss in losses)
        and not (name == "Delaney's equation" and scope.dataset != "esol")  # the stand-in is made by that equation
        and not (name == "extra trees" and scope.profile == "smoke")
    }
    runs = []
    for split in _PUBLISHED_SPLITS if scope.split is None else (scope.split,):
        for name, recipe in methods.items():
            n_seeds = scope.n_seeds
            if n_seeds is None and scope.profile == "paper":
                n_seeds = _FEWER_SPLITS[split].get(name, _PUBLISHED_SPLITS[split])
            elif n_seeds is None:
                n_seeds = _SHORT_SPLITS[scope.profile]
            runs += of_molecules(scope, "esol", split, {name: recipe}, range(n_seeds))
    return runs


_SLOWER = protocols.end_to_end("esol")

CHAPTER = Chapter(
    "esol",
    tables=(
        "esol-mae", "esol-rmse", "esol-mse", "esol-test-raw", "esol-validation-raw", "esol-stuck", "esol-differences",
        "esol-differences-slower", "esol-rank-agreement", "esol-scaffold", "esol-scaffold-differences", "esol-verdicts",
        "esol-best", "esol-machines",
    ),
    figures=(
        "esol-errors", "esol-differences-figure", "esol-parity", "esol-ranges", "esol-curves", "esol-representations",
    ),
    experiments=(
        Experiment(
            "esol", grid, MOLECULES,
            options={"split": tuple(_PUBLISHED_SPLITS), "loss": ("all", *REGRESSION_LOSSES)},
        ),
    ),
    claims=(
        *(
            Claim(
                BEATS, COURSE, "esol", "esol", split, method, baseline, "difference", link,
                figure="esol-differences-figure" if split == "random" else None,
            )
            for split, baseline, link in (
                ("random", "L1 end to end", "esol-differences"),
                ("random", _SLOWER, "esol-differences-slower"),
                ("scaffold", "L1 end to end", "esol-scaffold-differences"),
            )
            for method in ("RnC frozen, L1", "RnC fine-tuned, L1")
        ),
        Claim(
            ORDER, PAPER, "esol", "esol", "random", "RnC frozen, L1", _SLOWER, "agreement", "esol-rank-agreement",
            figure="esol-representations",
        ),
    ),
    origins={
        "esol-representations": Origin(where={"seed": 0}),
        "esol-best": Origin(("tasks",)),
    },
    published=PUBLISHED,
    quick={"profile": "quick", "split": "random"},
    smoke={"profile": "smoke", "split": "random", "dataset": "standin"},
)  # fmt: skip
