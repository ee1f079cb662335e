"""Faces: does ordering them by age help to tell it?"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from rnclib import protocols
from rnclib.chapters.base import FACES, Chapter, Experiment, Origin, Scope, of_faces
from rnclib.claims import BEATS, ORDER, PAPER, Claim
from rnclib.experiment import Run, described
from rnclib.recipe import MODELS, REGRESSION_LOSSES

__all__ = ["CHAPTER", "PUBLISHED", "by_range", "of_protocol"]

#: Published test MAE on AgeDB's standard split, in years, by the label of each method.
PUBLISHED = pd.DataFrame(
    {
        "paper": [6.63, 6.14, 6.57, 6.19, 6.54, 6.15],
        "course project": [6.544, 6.154, 6.852, 6.439, 6.448, 6.182],
    },
    index=pd.Index(
        [
            f"{method}{loss}{end}"
            for loss in REGRESSION_LOSSES.values()
            for method, end in (("", " end to end"), ("RnC frozen, ", ""))
        ],
        name="method",
    ),
)


def grid(scope: Scope) -> list[Run]:
    """Every loss end to end, and a linear regressor with it on Rank-N-Contrast's frozen encoder.

    On synthetic faces L1 stands beside a run at a smaller learning rate. With all losses, the training mean is added.

    Parameters
    ----------
    scope : Scope
    """
    losses = tuple(REGRESSION_LOSSES) if scope.loss == "all" else (scope.loss,)
    sized = protocols.sized(scope.dataset, scope.profile)
    runs = []
    recipes = protocols.faces(scope.dataset, scope.profile, preset=scope.preset, model=scope.model)
    for name, recipe in recipes.items():
        fine_tuned = recipe.pretrain is not None and not recipe.freeze
        if fine_tuned or not (scope.loss == "all" if recipe.fit is None else recipe.fit.loss in losses):
            continue
        n_seeds = scope.n_seeds or (1 if recipe.fit is None else sized.n_seeds)
        runs += of_faces(scope, "agedb", {name: recipe}, range(n_seeds))
    return [run.but(precision=scope.precision) for run in runs]


def of_protocol(records: Sequence[dict[str, Any]], *, preset: str = "paper") -> list[dict[str, Any]]:
    """Those records of photographs that were made with the full protocol, whatever their seed and precision.

    Parameters
    ----------
    records : sequence of dict
        Of the AgeDB chapter, see `rnclib.results.load`.
    preset : {'paper', 'course'}
        A key of `rnclib.protocols.FACES_PRESETS`.

    Returns
    -------
    list of dict
        Of one checksum, that of most records: other photographs, or others left out, are other data.
    """
    free = ("seed", "precision", "exclude")
    (experiment,) = CHAPTER.experiments
    wanted = {}
    for run in experiment.runs(dataset="agedb", profile="paper", preset=preset, n_seeds=1):
        wanted[run.method] = {name: value for name, value in described(run).items() if name not in free}, run.label
    kept = []
    for record in records:
        config, label = wanted.get(record["method"], (None, None))
        if config == {name: value for name, value in record["config"].items() if name not in free}:
            kept.append(record | {"label": label})
    checksums = Counter(record["data"]["checksum"] for record in kept).most_common(1)
    return [record for record in kept if record["data"]["checksum"] == checksums[0][0]]


def by_range(predictions: pd.DataFrame, ages: np.ndarray, edges: Sequence[float]) -> pd.DataFrame:
    """Mean absolute error of each method in ranges of age, averaged over seeds, and how common these ages are.

    Parameters
    ----------
    predictions : DataFrame
        From `rnclib.results.predictions`.
    ages : array_like
        Of the training faces.
    edges : sequence of float
        Bounds of the ranges, a bound belonging to the range below it, as in `rnclib.plots.error_by_range`.

    Returns
    -------
    DataFrame
        One row for each range with a test face, one column for each method, and ``fraction`` of the training faces.

    Examples
    --------
    >>> rows = [("A", 0, 10, 12), ("A", 0, 20, 23), ("A", 1, 10, 14), ("B", 0, 30, 29)]
    >>> predictions = pd.DataFrame(rows, columns=["method", "seed", "target", "prediction"])
    >>> by_range(predictions, [5, 15, 25, 35], [0, 20, 40])
                 A    B  fraction
    0 to 20   3.25  NaN       0.5
    20 to 40   NaN  1.0       0.5
    """
    labels = [f"{low:g} to {high:g}" for low, high in itertools.pairwise(edges)]

    def ranges(targets: Any) -> pd.Series:
        return pd.Series(pd.cut(np.asarray(targets, float), edges, labels=labels, include_lowest=True))

    errors = (predictions["prediction"] - predictions["target"]).abs()
    keys = [ranges(predictions["target"]).set_axis(errors.index), predictions["method"], predictions["seed"]]
    table = errors.groupby(keys, observed=True).mean().groupby(level=[0, 1], observed=True).mean().unstack()
    fraction = ranges(ages).value_counts(normalize=True).reindex(table.index)
    return table.assign(fraction=fraction).rename_axis(index=None, columns=None)


CHAPTER = Chapter(
    "agedb",
    tables=(
        "agedb-published", "agedb-errors", "agedb-differences", "agedb-rank-agreement", "agedb-verdicts",
        "agedb-machines",
    ),
    figures=(
        "agedb-faces", "agedb-errors-figure", "agedb-ranges", "agedb-curves", "agedb-representations",
        "agedb-neighbours",
    ),
    experiments=(
        Experiment(
            "agedb", grid, FACES,
            options={
                "split": ("standard", "identity"), "loss": ("all", *REGRESSION_LOSSES),
                "model": tuple(name for name, kind in MODELS.items() if kind == "images"),
                "preset": tuple(protocols.FACES_PRESETS), "data_dir": None, "exclude": None, "precision": None,
            },
        ),
    ),
    claims=(
        *(
            Claim(
                BEATS, PAPER, "agedb", "synthetic", "standard", f"RnC frozen, {loss}", baseline, "difference",
                "agedb-differences", figure="agedb-errors-figure",
            )
            for loss, baseline in (
                ("L1", "L1 end to end"), ("L1", protocols.end_to_end("synthetic")), ("L2", "L2 end to end"),
                ("Huber", "Huber end to end"),
            )
        ),
        Claim(
            ORDER, PAPER, "agedb", "synthetic", "standard", "RnC frozen, L1", protocols.end_to_end("synthetic"),
            "agreement", "agedb-rank-agreement", figure="agedb-representations",
        ),
    ),
    origins={
        "agedb-published": Origin(where={"dataset": "agedb"}),
        "agedb-faces": None,
        **{name: Origin(where={"seed": 0}) for name in ("agedb-representations", "agedb-neighbours")},
    },
    published=PUBLISHED,
)  # fmt: skip
