"""Effects and verdicts: what the records say to a claim that compares two methods.

A comparison is between two methods on the same splits or seeds. The claim holds if the whole 95% interval of the paired
effect lies on the claimed side and the p value, corrected by Holm's method for all comparisons that are judged
together, measured or not, is below 0.05; it does not hold if the same is true of the other side; otherwise it is
undecided. Nothing is said before all planned runs of both methods are there. Which claims there are is for the chapters
to say.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from rnclib import results, statistics

__all__ = [
    "BEATS", "COURSE", "EFFECTS", "GROWTH", "LESS", "NO_LONGER", "ORDER", "ORGANISED", "PAPER", "ROBUST", "SPURIOUS",
    "UNLIKE", "UNSEEN", "Claim", "judge",
]  # fmt: skip

LEVEL = 0.05

#: Who claims it.
PAPER, COURSE = "paper", "course project"
#: Claims on which several chapters have comparisons.
BEATS = "lower error than end-to-end training"
ORDER = "features in the order of the targets"
LESS = "fewer training samples for the same error"
ROBUST = "lower error on corrupted inputs"
GROWTH = "error that grows less with corruption"
UNSEEN = "lower error between the targets that training has seen"
SPURIOUS = "predictions that follow a spurious correlation less"
ORGANISED = "features that a spurious correlation organises less"
NO_LONGER = "lower error where a spurious correlation no longer holds"
UNLIKE = "lower error on samples unlike those of training"


@dataclass(frozen=True)
class Claim:
    """One comparison that a claim rests on.

    Attributes
    ----------
    text : str
        What is claimed.
    source : str
        Who claims it.
    experiment, dataset, split : str
        Of the records.
    method, baseline : str
        Labels of the methods compared, see `rnclib.recipe.Recipe.label`.
    effect : str
        A key of `EFFECTS`.
    link : str
        Name of the table that shows it.
    holes, spurious : str, optional
        Of the runs compared, see `rnclib.experiment.Selection`.
    figure : str, optional
        Name of the figure that shows it.
    n_seeds : int, optional
        Splits or seeds that it is judged on; by default those of its chapter.
    primary : bool
        One of those that the verdicts are about in the first place.
    """

    text: str
    source: str
    experiment: str
    dataset: str
    split: str
    method: str
    baseline: str
    effect: str
    link: str
    holes: str | None = None
    spurious: str | None = None
    figure: str | None = None
    n_seeds: int | None = None
    primary: bool = False


def _compared(records: list[dict[str, Any]], claim: Claim, metric: str) -> dict[str, float]:
    return _row(statistics.compare(results.frame(records), metric, claim.baseline, [claim.method]), claim.method)


def _row(table: pd.DataFrame, label: Any) -> dict[str, float]:
    """A row, or nothing where no pair of runs has an effect."""
    return dict(table.loc[label]) if label in table.index else {}


def _difference(records: list[dict[str, Any]], claim: Claim) -> dict[str, float]:
    return _compared(records, claim, "test_mae_raw")


def _agreement(records: list[dict[str, Any]], claim: Claim) -> dict[str, float]:
    return _compared(records, claim, "test_rank_agreement")


def _data(records: list[dict[str, Any]], claim: Claim) -> dict[str, float]:
    ratios = statistics.data_ratio(results.frame(records), "test_mae_raw", claim.baseline, claim.method)
    return _row(ratios, "all")


def _corruption(records: list[dict[str, Any]], claim: Claim) -> dict[str, float]:
    return _row(statistics.corruption_ratio(records, claim.baseline), (claim.method, "mean"))


def _growth(records: list[dict[str, Any]], claim: Claim) -> dict[str, float]:
    return _row(statistics.corruption_growth(records, claim.baseline), claim.method)


def _unseen(records: list[dict[str, Any]], claim: Claim) -> dict[str, float]:
    tests = results.seen_and_unseen(records)
    between = tests[tests["targets"] == "between"]
    return _row(statistics.compare(between, "test_mae_raw", claim.baseline, [claim.method]), claim.method)


def _added(records: list[dict[str, Any]], claim: Claim, measure: str) -> dict[str, float]:
    effects = results.correlation_effects(records)
    added = effects[effects["spurious"] == "added"]
    return _row(statistics.compare(added, measure, claim.baseline, [claim.method]), claim.method) if len(added) else {}


def _coefficient(records: list[dict[str, Any]], claim: Claim) -> dict[str, float]:
    return _added(records, claim, "nuisance_coefficient")


def _organisation(records: list[dict[str, Any]], claim: Claim) -> dict[str, float]:
    return _added(records, claim, "test_nuisance_agreement")


def _on_new_people(records: list[dict[str, Any]], claim: Claim) -> dict[str, float]:
    others = results.on_new_people(records)
    return _row(statistics.compare(others, "test_mae_raw", claim.baseline, [claim.method]), claim.method)


def _standardised(records: list[dict[str, Any]], claim: Claim) -> dict[str, float]:
    return _compared(records, claim, "test_mae")


@dataclass(frozen=True)
class _Effect:
    measure: Callable[[list[dict[str, Any]], Claim], dict[str, float]]
    neutral: float
    better: int  # sign of a deviation from neutral that speaks for the claim
    column: str
    form: str

    @property
    def favourable(self) -> str:
        """Where an effect speaks for the claim."""
        return f"{'above' if self.better > 0 else 'below'} {self.neutral:g}"


#: How each kind of effect is measured, and what it says: differences of test MAE in the unit of the data
#: (``'unseen'``: between the ranges of the target that training has seen) or of rank agreement; ratios of training
#: samples needed, of errors on corrupted inputs, or of their growth over clean ones; what a spurious correlation adds
#: to the nuisance coefficient, or to the agreement of features with the nuisance, see
#: `rnclib.results.correlation_effects`; and, in favour of the baseline, a difference of standardised MAE.
EFFECTS = {
    "difference": _Effect(_difference, 0.0, -1, "mean", "test MAE {:+.3f} {unit}"),
    "agreement": _Effect(_agreement, 0.0, +1, "mean", "rank agreement {:+.3f}"),
    "data": _Effect(_data, 1.0, -1, "ratio", "{:.2f} × the samples"),
    "unseen": _Effect(_unseen, 0.0, -1, "mean", "test MAE {:+.3f} {unit}"),
    "corruption": _Effect(_corruption, 1.0, -1, "ratio", "{:.2f} × the error"),
    "growth": _Effect(_growth, 1.0, -1, "ratio", "{:.2f} × the growth"),
    "nuisance coefficient": _Effect(_coefficient, 0.0, -1, "mean", "nuisance coefficient {:+.2f}"),
    "organisation": _Effect(_organisation, 0.0, -1, "mean", "agreement {:+.2f}"),
    "new people": _Effect(_on_new_people, 0.0, -1, "mean", "test MAE {:+.3f} {unit}"),
    "standardised": _Effect(_standardised, 0.0, +1, "mean", "test MAE {:+.3f} standard deviations"),
}


def judge(
    claims: Sequence[Claim],
    plan: Callable[[Claim, str], dict[str, str]],
    *,
    root: str | os.PathLike | None = None,
    profile: str = "paper",
) -> pd.DataFrame:
    """The verdict on each claim.

    Parameters
    ----------
    claims : sequence of Claim
    plan : callable
        Given a claim and the profile, the keys of the runs that it is judged on, with their labels, such as
        `rnclib.chapters.planned`; other records have no part in it.
    root : path, optional
        Folder of all records; by default `rnclib.results.results_dir`.
    profile : str

    Returns
    -------
    DataFrame
        One row per claim with its fields and ``value``, ``low``, ``high``, ``p``, ``p_holm``, ``n`` (splits or seeds),
        ``runs`` (records there are, and planned, as text), ``complete`` (whether all are there), ``shown`` (effect with
        its interval, as text) and ``verdict``: ``'holds'``, ``'does not hold'``, ``'undecided'`` or, where runs are
        missing, ``'not measured'``.
    """
    root = results.results_dir() if root is None else root
    rows = []
    stored = {
        experiment: results.load(root, profile=profile, experiment=experiment)
        for experiment in {claim.experiment for claim in claims}
    }
    for claim in claims:
        wanted = plan(claim, profile)
        records = [record for record in stored[claim.experiment] if record["key"] in wanted]
        records = results.labelled(records, [wanted[record["key"]] for record in records])
        row: dict[str, Any] = {**claim.__dict__, "value": np.nan, "low": np.nan, "high": np.nan, "p": np.nan, "n": 0}
        row["runs"] = f"{len(records)} of {len(wanted)}"
        row["complete"] = 0 < len(records) == len(wanted)
        if row["complete"]:
            effect = EFFECTS[claim.effect]
            trained = {record["label"] for record in records if record["metrics"]}  # the others diverged
            found = effect.measure(records, claim) if {claim.method, claim.baseline} <= trained else {}
            row |= {name: found[name] for name in ("low", "high", "p", "n") if found}
            row |= {"value": found.get(effect.column, np.nan), "unit": records[0]["data"]["unit"]}
        rows.append(row)
    table = pd.DataFrame(rows)
    table["n"] = table["n"].astype(int)
    table["p_holm"] = statistics.holm(table["p"], family=len(table))
    table["shown"] = [_shown(row) for row in rows]
    table["verdict"] = [_verdict(row) for row in table.to_dict("records")]
    return table


def _verdict(row: dict[str, Any]) -> str:
    if not row["complete"]:
        return "not measured"
    effect = EFFECTS[row["effect"]]
    ends = [effect.better * (row[end] - effect.neutral) for end in ("low", "high")]
    if row["p_holm"] < LEVEL and min(ends) > 0:
        return "holds"
    if row["p_holm"] < LEVEL and max(ends) < 0:
        return "does not hold"
    return "undecided"


def _shown(row: dict[str, Any]) -> str:
    if np.isnan(row["value"]):
        return "–"
    form = EFFECTS[row["effect"]].form
    number = form[form.index("{") : form.index("}") + 1]
    text = form.format(row["value"], unit=row["unit"])
    if not np.isnan(row["low"]):
        text += f" [{number.format(row['low'])}, {number.format(row['high'])}]"
    return text.replace("-", "−")
