"""What the paper claims, and what the records say to it: one row for each claim and comparison.

A claim is about two methods on the same splits or seeds. It holds if the whole 95% interval of the paired effect lies
on the claimed side and the p value, corrected by Holm's method for all comparisons made, is below 0.05; it does not
hold if the same is true of the other side; otherwise it is undecided. What has no record is not measured.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from rnclib import results
from rnclib.data import SEEN

__all__ = ["CLAIMS", "Claim", "judge"]

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
    effect : {'difference', 'agreement', 'data', 'corruption', 'unseen'}
        Difference of test MAE (raw units), or of rank agreement; ratio of training samples needed, or of errors on
        corrupted inputs; difference of test MAE on targets that training has not seen.
    link : str
        Name of the table that shows it.
    holes : str, optional
        Of the runs compared, see `rnclib.data.with_holes`.
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


def _compared(records: list[dict[str, Any]], claim: Claim, metric: str) -> dict[str, float]:
    table = results.compare(results.frame(records), metric, claim.baseline, [claim.method])
    return dict(table.loc[claim.method])


def _difference(records: list[dict[str, Any]], claim: Claim) -> dict[str, float]:
    return _compared(records, claim, "test_mae_raw")


def _agreement(records: list[dict[str, Any]], claim: Claim) -> dict[str, float]:
    return _compared(records, claim, "test_rank_agreement")


def _data(records: list[dict[str, Any]], claim: Claim) -> dict[str, float]:
    runs = results.frame(records)
    runs["fraction"] = runs["fraction"].fillna(1.0)
    return dict(results.data_ratio(runs, "test_mae_raw", claim.baseline, claim.method).loc["all"])


def _corruption(records: list[dict[str, Any]], claim: Claim) -> dict[str, float]:
    return dict(results.corruption_ratio(records, claim.baseline).loc[claim.method, "mean"])


def _unseen(records: list[dict[str, Any]], claim: Claim) -> dict[str, float]:
    tests = results.seen_and_unseen(records)
    table = results.compare(tests[tests["targets"] == "unseen"], "test_mae_raw", claim.baseline, [claim.method])
    return dict(table.loc[claim.method])


@dataclass(frozen=True)
class _Effect:
    measure: Callable[[list[dict[str, Any]], Claim], dict[str, float]]
    neutral: float
    better: int  # sign of a deviation from neutral that speaks for the claim
    column: str
    form: str


EFFECTS = {
    "difference": _Effect(_difference, 0.0, -1, "mean", "test MAE {:+.3f} {unit}"),
    "agreement": _Effect(_agreement, 0.0, +1, "mean", "rank agreement {:+.3f}"),
    "data": _Effect(_data, 1.0, -1, "ratio", "{:.2f} × the samples"),
    "unseen": _Effect(_unseen, 0.0, -1, "mean", "test MAE {:+.3f} {unit}"),
    "corruption": _Effect(_corruption, 1.0, -1, "ratio", "{:.2f} × the error"),
}

_BEATS = "lower error than end-to-end training"
_ORDER = "features in the order of the targets"
_LESS = "fewer training samples for the same error"
_ROBUST = "lower error on corrupted inputs"
_UNSEEN = "lower error on targets that training has not seen"
_PAPER, _COURSE = "paper", "course project"
_SLOWER, _RATIO = "L1 (lr 0.001)", "robustness-ratio"

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
        Claim(_BEATS, _PAPER, "agedb", "synthetic", "standard", f"RnC({of})", of, "difference", "agedb-differences")
        for of in ("L1", "L2", "Huber")
    ),
    Claim(
        _ORDER, _PAPER, "esol", "esol", "random", "RnC(L1)+freeze", _SLOWER, "agreement", "esol-rank-agreement"
    ),
    Claim(_ORDER, _PAPER, "agedb", "synthetic", "standard", "RnC(L1)", "L1", "agreement", "agedb-rank-agreement"),
    *(
        Claim(_LESS, _PAPER, "data_efficiency", "esol", "random", method, _SLOWER, "data", "efficiency-ratio")
        for method in ("RnC, closed form", "RnC(L1)+freeze", "RnC(L1)")
    ),
    *(
        Claim(_ROBUST, _PAPER, "robustness", "esol", "random", method, _SLOWER, "corruption", f"{_RATIO}-molecules")
        for method in ("RnC(L1)+freeze", "RnC(L1)")
    ),
    Claim(
        _ROBUST, _PAPER, "robustness", "synthetic", "standard", "RnC(L1)", "L1", "corruption",
        f"{_RATIO}-faces",
    ),
    *(
        Claim(
            f"{_UNSEEN} ({holes})", _PAPER, "robustness", "esol", "random", "RnC(L1)+freeze", _SLOWER, "unseen",
            "robustness-holes", holes,
        )
        for holes in SEEN
    ),
)  # fmt: skip


def judge(
    root: str | os.PathLike | None = None, profile: str = "paper", claims: tuple[Claim, ...] = CLAIMS
) -> pd.DataFrame:
    """The verdict on each claim.

    Parameters
    ----------
    root : path, optional
        Folder of all records; by default `rnclib.results.results_dir`.
    profile : str
    claims : tuple of Claim

    Returns
    -------
    DataFrame
        One row per claim with its fields and ``value``, ``low``, ``high``, ``p``, ``p_holm``, ``n`` (splits or seeds),
        ``shown`` (effect with its interval, as text) and ``verdict``: ``'holds'``, ``'does not hold'``,
        ``'undecided'`` or ``'not measured'``.
    """
    root = results.results_dir() if root is None else root
    rows = []
    for claim in claims:
        records = results.load(
            root, profile=profile, experiment=claim.experiment, dataset=claim.dataset, split=claim.split
        )
        records = [
            record
            for record in records
            if record["method"] in (claim.method, claim.baseline)
            and record["config"].get("holes") == claim.holes
            and "wrong_targets" not in record["config"]
        ]
        row: dict[str, Any] = {**claim.__dict__, "value": np.nan, "low": np.nan, "high": np.nan, "p": np.nan, "n": 0}
        if {record["method"] for record in records} == {claim.method, claim.baseline}:
            found = EFFECTS[claim.effect].measure(records, claim)
            row |= {name: found[name] for name in ("low", "high", "p", "n")}
            row |= {"value": found[EFFECTS[claim.effect].column], "unit": records[0]["data"]["unit"]}
        rows.append(row)
    table = pd.DataFrame(rows)
    table["n"] = table["n"].astype(int)
    table["p_holm"] = results.holm(table["p"])
    table["shown"] = [_shown(row) for row in rows]
    table["verdict"] = [_verdict(row) for row in table.to_dict("records")]
    return table


def _verdict(row: dict[str, Any]) -> str:
    if not row["n"]:
        return "not measured"
    effect = EFFECTS[row["effect"]]
    ends = [effect.better * (row[end] - effect.neutral) for end in ("low", "high")]
    if row["p_holm"] < LEVEL and min(ends) > 0:
        return "holds"
    if row["p_holm"] < LEVEL and max(ends) < 0:
        return "does not hold"
    return "undecided"


def _shown(row: dict[str, Any]) -> str:
    if not row["n"]:
        return "–"
    form = EFFECTS[row["effect"]].form
    number = form[form.index("{") : form.index("}") + 1]
    value = form.format(row["value"], unit=row["unit"])
    return f"{value} [{number.format(row['low'])}, {number.format(row['high'])}]".replace("-", "−")
