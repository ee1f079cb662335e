"""What the paper claims, and what the records say to it: one row for each claim and comparison.

A claim is about two methods on the same splits or seeds. It holds if the whole 95% interval of the paired effect lies
on the claimed side and the p value, corrected by Holm's method for all comparisons of the page, measured or not, is
below 0.05; it does not hold if the same is true of the other side; otherwise it is undecided. Nothing is said before
all planned runs of both methods are there.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from rnclib import results
from rnclib.data import SEEN
from rnclib.experiment import key
from rnclib.protocols import END_TO_END, END_TO_END_TIED, GRIDS, SHIFTS

__all__ = ["CLAIMS", "EFFECTS", "Claim", "judge", "planned"]

LEVEL = 0.05


@dataclass(frozen=True)
class Claim:
    """One comparison that a claim rests on.

    Attributes
    ----------
    text : str
        What is claimed.
    source : str
        Where.
    experiment, dataset, split : str
        Of the records.
    method, baseline : str
        The methods compared.
    effect : {'difference', 'agreement', 'data', 'corruption', 'growth', 'unseen', 'pull', 'organisation', \
'standardised'}
        Difference of test MAE (raw units), or of rank agreement; ratio of training samples needed, of errors on
        corrupted inputs, or of their growth over clean ones; difference of test MAE between the ranges of the target
        that training has seen; difference of what a tie adds to the pull of a nuisance, or to the agreement of
        features with it, see `rnclib.results.tie_effects`; difference of test MAE in standard deviations, in favour of
        the baseline.
    link : str
        Name of the table that shows it.
    holes, spurious : str, optional
        Of the runs compared, see `rnclib.experiment.Config`.
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

    @property
    def figure(self) -> str | None:
        """Name of the figure that shows it, where there is one."""
        return _FIGURES.get(self.link)


_FIGURES = {
    "esol-differences": "esol-differences-figure", "esol-differences-slower": "esol-differences-figure",
    "agedb-differences": "agedb-errors-figure",
    "methods-differences": "methods-figure", "methods-differences-faces": "methods-figure-faces",
    "esol-rank-agreement": "esol-representations", "agedb-rank-agreement": "agedb-representations",
    "efficiency-ratio": "efficiency-errors", "efficiency-ratio-faces": "efficiency-errors-faces",
    "robustness-ratio-molecules": "robustness-errors-molecules", "robustness-ratio-faces": "robustness-errors-faces",
    "robustness-growth-molecules": "robustness-errors-molecules", "robustness-growth-faces": "robustness-errors-faces",
    "robustness-spurious-molecules": "robustness-organisation-molecules",
    "robustness-spurious-faces": "robustness-organisation-faces",
    "ablations-differences": "ablations-figure", "ablations-differences-faces": "ablations-figure-faces",
}  # fmt: skip


def _compared(records: list[dict[str, Any]], claim: Claim, metric: str) -> dict[str, float]:
    return _row(results.compare(results.frame(records), metric, claim.baseline, [claim.method]), claim.method)


def _row(table: pd.DataFrame, label: Any) -> dict[str, float]:
    """A row, or nothing where no pair of runs has an effect."""
    return dict(table.loc[label]) if label in table.index else {}


def _difference(records: list[dict[str, Any]], claim: Claim) -> dict[str, float]:
    return _compared(records, claim, "test_mae_raw")


def _agreement(records: list[dict[str, Any]], claim: Claim) -> dict[str, float]:
    return _compared(records, claim, "test_rank_agreement")


def _data(records: list[dict[str, Any]], claim: Claim) -> dict[str, float]:
    ratios = results.data_ratio(results.frame(records), "test_mae_raw", claim.baseline, claim.method)
    return _row(ratios, "all")


def _corruption(records: list[dict[str, Any]], claim: Claim) -> dict[str, float]:
    return _row(results.corruption_ratio(records, claim.baseline), (claim.method, "mean"))


def _growth(records: list[dict[str, Any]], claim: Claim) -> dict[str, float]:
    return _row(results.corruption_growth(records, claim.baseline), claim.method)


def _unseen(records: list[dict[str, Any]], claim: Claim) -> dict[str, float]:
    tests = results.seen_and_unseen(records)
    between = tests[tests["targets"] == "between"]
    return _row(results.compare(between, "test_mae_raw", claim.baseline, [claim.method]), claim.method)


def _added(records: list[dict[str, Any]], claim: Claim, measure: str) -> dict[str, float]:
    effects = results.tie_effects(records)
    added = effects[effects["spurious"] == "added"]
    return _row(results.compare(added, measure, claim.baseline, [claim.method]), claim.method) if len(added) else {}


def _pull(records: list[dict[str, Any]], claim: Claim) -> dict[str, float]:
    return _added(records, claim, "pull")


def _organisation(records: list[dict[str, Any]], claim: Claim) -> dict[str, float]:
    return _added(records, claim, "test_nuisance_agreement")


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


#: How each kind of effect is measured, and what it says.
EFFECTS = {
    "difference": _Effect(_difference, 0.0, -1, "mean", "test MAE {:+.3f} {unit}"),
    "agreement": _Effect(_agreement, 0.0, +1, "mean", "rank agreement {:+.3f}"),
    "data": _Effect(_data, 1.0, -1, "ratio", "{:.2f} × the samples"),
    "unseen": _Effect(_unseen, 0.0, -1, "mean", "test MAE {:+.3f} {unit}"),
    "corruption": _Effect(_corruption, 1.0, -1, "ratio", "{:.2f} × the error"),
    "growth": _Effect(_growth, 1.0, -1, "ratio", "{:.2f} × the growth"),
    "pull": _Effect(_pull, 0.0, -1, "mean", "pull {:+.2f}"),
    "organisation": _Effect(_organisation, 0.0, -1, "mean", "agreement {:+.2f}"),
    "standardised": _Effect(_standardised, 0.0, +1, "mean", "test MAE {:+.3f} standard deviations"),
}

_BEATS = "lower error than end-to-end training"
_ORDER = "features in the order of the targets"
_LESS = "fewer training samples for the same error"
_CORRUPTED = (
    ("lower error on corrupted inputs", "corruption", "ratio"),
    ("error that grows less with corruption", "growth", "growth"),
)
_UNSEEN = "lower error between the targets that training has seen"
_SPURIOUS = (
    ("predictions that follow a spurious target less", "pull"),
    ("features that a spurious target organises less", "organisation"),
    ("lower error where a spurious target no longer holds", "difference"),
)
_SCHEME = "lower error with a linear regressor on the frozen encoder than with other training schemes"
_SETTINGS = "lower error with the settings that the method comes with than with others"
_SHIFTED = "lower error on samples unlike those of training"
_PAPER, _COURSE = "paper", "course project"
_SLOWER, _FACES = END_TO_END["esol"], END_TO_END["synthetic"]

#: Every comparison of the verdict page, in its order.
CLAIMS: tuple[Claim, ...] = (
    *(
        Claim(_BEATS, _COURSE, "esol", "esol", split, method, baseline, "difference", link)
        for split, baseline, link in (
            ("random", "L1", "esol-differences"),
            ("random", _SLOWER, "esol-differences-slower"),
            ("scaffold", "L1", "esol-scaffold-differences"),
        )
        for method in ("RnC(L1)+freeze", "RnC(L1)")
    ),
    *(
        Claim(_BEATS, _PAPER, "agedb", "synthetic", "standard", method, baseline, "difference", "agedb-differences")
        for method, baseline in (("RnC(L1)", "L1"), ("RnC(L1)", _FACES), ("RnC(L2)", "L2"), ("RnC(Huber)", "Huber"))
    ),
    *(
        Claim(_BEATS, source, "methods", dataset, split, "RnC, closed form", baseline, "difference", link)
        for source, dataset, split, link in (
            (_COURSE, "esol", "random", "methods-differences"),
            (_PAPER, "synthetic", "standard", "methods-differences-faces"),
        )
        for baseline in ("L1", "L1, closed form")
    ),
    Claim(
        _ORDER, _PAPER, "esol", "esol", "random", "RnC(L1)+freeze", _SLOWER, "agreement", "esol-rank-agreement"
    ),
    Claim(_ORDER, _PAPER, "agedb", "synthetic", "standard", "RnC(L1)", _FACES, "agreement", "agedb-rank-agreement"),
    *(
        Claim(_LESS, _PAPER, "data_efficiency", "esol", "random", method, baseline, "data", "efficiency-ratio")
        for method, baseline in (("RnC, closed form", "L1, closed form"), ("RnC(L1)", _SLOWER))
    ),
    *(
        Claim(
            _LESS, _PAPER, "data_efficiency", "synthetic", "standard", method, baseline, "data",
            "efficiency-ratio-faces",
        )
        for method, baseline in (
            ("RnC, closed form", "L1, closed form"), ("RnC, tuned, closed form", "L1, closed form"),
            ("RnC(L1)", "L1"), ("RnC(L1)", _FACES),
        )
    ),
    *(
        Claim(text, _PAPER, "robustness", "esol", "random", method, _SLOWER, effect, f"robustness-{table}-molecules")
        for text, effect, table in _CORRUPTED
        for method in ("RnC(L1)+freeze", "RnC(L1)")
    ),
    *(
        Claim(
            text, _PAPER, "robustness", "synthetic", "standard", "RnC(L1)", _FACES, effect, f"robustness-{table}-faces"
        )
        for text, effect, table in _CORRUPTED
    ),
    *(
        Claim(_UNSEEN, _PAPER, "robustness", dataset, split, method, baseline, "unseen", link, holes)
        for dataset, split, method, baseline, link in (
            ("esol", "random", "RnC(L1)+freeze", _SLOWER, "robustness-holes"),
            ("synthetic", "standard", "RnC(L1)", _FACES, "robustness-holes-faces"),
        )
        for holes in SEEN
    ),
    *(
        Claim(
            text, _PAPER, "robustness", dataset, split, method, baseline, effect, f"robustness-spurious-{kind}",
            spurious="tied",
        )
        for text, effect in _SPURIOUS
        for kind, dataset, split, method, baseline in (
            ("molecules", "esol", "random", "RnC(L1)+freeze", _SLOWER),
            ("faces", "synthetic", "standard", "RnC(L1)", END_TO_END_TIED["synthetic"]),
        )
    ),
    *(
        Claim(_SHIFTED, _PAPER, "robustness", "esol", split, method, _SLOWER, "difference", "robustness-shift")
        for split in SHIFTS["molecules"]
        for method in ("RnC(L1)+freeze", "RnC(L1)")
    ),
    Claim(
        _SHIFTED, _PAPER, "robustness", "synthetic", "identity", "RnC(L1)", _FACES, "difference",
        "robustness-shift-faces",
    ),
    *(
        Claim(
            _SETTINGS, source, "ablations", "esol", "random", other, "protocol", "standardised",
            "ablations-differences",
        )
        for source, other in (
            (_PAPER, "temperature: 1"), (_PAPER, "temperature: 5"),
            (_PAPER, "similarity: cosine, temperature 0.1"), (_PAPER, "batch size: 64"),
            (_PAPER, "projection head: 64 features"), (_COURSE, "length: 0.5 of the epochs"),
        )
    ),
    *(
        Claim(
            _SETTINGS, _PAPER, "ablations", "synthetic", "standard", other, "protocol", "standardised",
            "ablations-differences-faces",
        )
        for other in (
            "temperature: 1", "temperature: 5", "similarity: cosine, temperature 0.1", "batch size: 64",
            "projection head: 64 features", "length: 0.5 of the epochs", "views: 1",
        )
    ),
    *(
        Claim(
            _SCHEME, _PAPER, "ablations", dataset, split, f"regressor: L1, {other}",
            "regressor: L1, by gradient descent", "standardised", link,
        )
        for dataset, split, link in (
            ("esol", "random", "ablations-table"), ("synthetic", "standard", "ablations-table-faces")
        )
        for other in ("with fine-tuning", "trained jointly")
    ),
)  # fmt: skip


def planned(claim: Claim, profile: str) -> dict[str, str]:
    """Keys of the runs that a claim is judged on, with their methods; what a tie adds needs those without it too.

    Empty if the profile lacks one of the two methods, as short ones may.

    Parameters
    ----------
    claim : Claim
    profile : str

    Returns
    -------
    dict of str to str
    """
    options = {"split": claim.split} if claim.experiment in ("esol", "agedb") else {}
    runs = {
        key(config): config.method
        for config in GRIDS[claim.experiment](dataset=claim.dataset, profile=profile, **options)
        if config.method in (claim.method, claim.baseline)
        and (config.split, config.holes) == (claim.split, claim.holes)
        and config.spurious in (("tied", "untied") if claim.effect in ("pull", "organisation") else (claim.spurious,))
        and config.wrong_targets is None
        and bool(config.corruptions) == (claim.effect in ("corruption", "growth"))
    }
    return runs if {claim.method, claim.baseline} <= set(runs.values()) else {}


def judge(
    root: str | os.PathLike | None = None,
    profile: str = "paper",
    claims: Sequence[Claim] = CLAIMS,
    plan: Callable[[Claim, str], dict[str, str]] = planned,
) -> pd.DataFrame:
    """The verdict on each claim.

    Parameters
    ----------
    root : path, optional
        Folder of all records; by default `rnclib.results.results_dir`.
    profile : str
    claims : sequence of Claim
    plan : callable
        Gives the runs that a claim is judged on, see `planned`; other records have no part in it.

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
        row: dict[str, Any] = {**claim.__dict__, "value": np.nan, "low": np.nan, "high": np.nan, "p": np.nan, "n": 0}
        row["runs"] = f"{len(records)} of {len(wanted)}"
        row["complete"] = 0 < len(records) == len(wanted)
        if row["complete"]:
            effect = EFFECTS[claim.effect]
            trained = {record["method"] for record in records if record["metrics"]}  # the others diverged
            found = effect.measure(records, claim) if {claim.method, claim.baseline} <= trained else {}
            row |= {name: found[name] for name in ("low", "high", "p", "n") if found}
            row |= {"value": found.get(effect.column, np.nan), "unit": records[0]["data"]["unit"]}
        rows.append(row)
    table = pd.DataFrame(rows)
    table["n"] = table["n"].astype(int)
    table["p_holm"] = results.holm(table["p"], family=len(table))
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
