"""Effects and verdicts: what the records say to a claim that compares two methods, by the rule of the book.

The page "How we decide" (``book/deciding.md``) states the rule. Which claims there are is for the chapters to say.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pandas as pd

from rnclib import results, statistics
from rnclib.paired import LEVEL

__all__ = [
    "BEATS", "COURSE", "DECIDED", "EFFECTS", "GROWTH", "LESS", "NO_LONGER", "ORDER", "ORGANISED", "PAPER", "ROBUST",
    "SPURIOUS", "UNLIKE", "UNSEEN", "Claim", "decide", "in_margins", "judge", "more",
]  # fmt: skip

#: The verdicts that say something, the first that applies; otherwise a comparison is undecided, or not measured yet.
DECIDED = ("practically equal", "holds", "does not hold")

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


def _compared(records: list[dict[str, Any]], claim: Claim, metric: str) -> dict[str, Any]:
    return _row(statistics.compare(results.frame(records), metric, claim.baseline, [claim.method]), claim.method)


def _row(table: pd.DataFrame, label: Any) -> dict[str, Any]:
    """A row, or nothing where no pair of runs has an effect."""
    return dict(table.loc[label]) if label in table.index else {}


def _difference(records: list[dict[str, Any]], claim: Claim) -> dict[str, Any]:
    return _compared(records, claim, "test_mae_raw")


def _agreement(records: list[dict[str, Any]], claim: Claim) -> dict[str, Any]:
    return _compared(records, claim, "test_rank_agreement")


def _data(records: list[dict[str, Any]], claim: Claim) -> dict[str, Any]:
    """The ratio of all fractions, or, where the learning curves are not parallel, that at one of them."""
    curves = results.frame(records), "test_mae_raw", claim.baseline, claim.method
    ratios, slopes = statistics.data_ratio(*curves), statistics.parallel(*curves)
    if slopes is None:
        return {}
    common = _row(ratios, "all")
    why = f"learning curves are not parallel (p = {slopes.p:.2g})" if slopes.p < LEVEL else None
    if why is None and (not common or common["flat"]):
        why = "more data did not help on every split"
    if why is None:
        return common
    at = _row(ratios, statistics.READ_AT)
    return at and at | {"note": f"{why}: read at {statistics.READ_AT:.0%} of the samples"}


def _corruption(records: list[dict[str, Any]], claim: Claim) -> dict[str, Any]:
    return _row(statistics.corruption_ratio(records, claim.baseline), (claim.method, "mean"))


def _growth(records: list[dict[str, Any]], claim: Claim) -> dict[str, Any]:
    return _row(statistics.corruption_growth(records, claim.baseline), claim.method)


def _unseen(records: list[dict[str, Any]], claim: Claim) -> dict[str, Any]:
    tests = results.seen_and_unseen(records)
    between = tests[tests["targets"] == "between"]
    return _row(statistics.compare(between, "test_mae_raw", claim.baseline, [claim.method]), claim.method)


def _added(records: list[dict[str, Any]], claim: Claim, measure: str) -> dict[str, Any]:
    effects = results.correlation_effects(records)
    added = effects[effects["spurious"] == "added"]
    return _row(statistics.compare(added, measure, claim.baseline, [claim.method]), claim.method) if len(added) else {}


def _coefficient(records: list[dict[str, Any]], claim: Claim) -> dict[str, Any]:
    return _added(records, claim, "nuisance_coefficient")


def _organisation(records: list[dict[str, Any]], claim: Claim) -> dict[str, Any]:
    return _added(records, claim, "test_nuisance_agreement")


def _on_new_people(records: list[dict[str, Any]], claim: Claim) -> dict[str, Any]:
    others = results.on_new_people(records)
    return _row(statistics.compare(others, "test_mae_raw", claim.baseline, [claim.method]), claim.method)


def _standardised(records: list[dict[str, Any]], claim: Claim) -> dict[str, Any]:
    return _compared(records, claim, "test_mae")


@dataclass(frozen=True)
class _Effect:
    measure: Callable[[list[dict[str, Any]], Claim], dict[str, Any]]
    better: int  # sign of a deviation from no effect that speaks for the claim
    form: str
    margin: tuple[float, float] | float  # bounds of practical equality, or a fraction of the baseline's mean
    column: str = "mean"

    @property
    def neutral(self) -> float:
        """No effect."""
        return 1.0 if self.column == "ratio" else 0.0

    def bounds(self, found: dict[str, Any]) -> tuple[float, float]:
        """Of practical equality."""
        if isinstance(self.margin, tuple):
            return self.margin
        return -self.margin * found["baseline"], self.margin * found["baseline"]


_ERROR = 0.05  # of the baseline's
_OF_ERRORS = (1 - _ERROR, 1 / (1 - _ERROR))
_OF_AGREEMENT = (-0.05, 0.05)
_OF_SAMPLES = (0.8, 1.25)

#: How each kind of effect is measured, and what it says: differences of test MAE in the unit of the data
#: (``'unseen'``: between the ranges of the target that training has seen; ``'new people'``: on people whom it has not)
#: or of rank agreement; ratios of training samples needed, of errors on corrupted inputs, or of their growth over clean
#: ones; what a spurious correlation adds to the nuisance coefficient, or to the agreement of features with the
#: nuisance, see `rnclib.results.correlation_effects`; and, in favour of the baseline, a difference of standardised MAE.
EFFECTS = {
    "difference": _Effect(_difference, -1, "test MAE {:+.3f} {unit}", _ERROR),
    "agreement": _Effect(_agreement, +1, "rank agreement {:+.3f}", _OF_AGREEMENT),
    "data": _Effect(_data, -1, "{:.2f} × the samples", _OF_SAMPLES, "ratio"),
    "unseen": _Effect(_unseen, -1, "test MAE {:+.3f} {unit}", _ERROR),
    "corruption": _Effect(_corruption, -1, "{:.2f} × the error", _OF_ERRORS, "ratio"),
    "growth": _Effect(_growth, -1, "{:.2f} × the growth", _OF_ERRORS, "ratio"),
    "nuisance coefficient": _Effect(_coefficient, -1, "nuisance coefficient {:+.2f}", _OF_AGREEMENT),
    "organisation": _Effect(_organisation, -1, "agreement {:+.2f}", _OF_AGREEMENT),
    "new people": _Effect(_on_new_people, -1, "test MAE {:+.3f} {unit}", _ERROR),
    "standardised": _Effect(_standardised, +1, "test MAE {:+.3f} standard deviations", _ERROR),
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
        One row per claim with its fields and

        - ``value``, ``low``, ``high``: the effect with its 95% interval; ``shown`` has them as text;
        - ``margin_low``, ``margin_high``: bounds of practical equality;
        - ``p`` of no effect and ``p_equal`` of practical equality, ``p_corrected`` and ``p_equal_corrected``;
        - ``p_sign_flip``, for ten pairs or fewer; ``within``, the posterior probability of practical equality;
        - ``n``: pairs of runs; ``lost``: those left out since a run diverged, or more data did not help;
        - ``correlation`` between any two pairs;
        - ``one_test_set``: whether all seeds have the same, so that the interval covers training only;
        - ``mixed``: pairs whose two runs come from different machines;
        - ``detectable``: the smallest effect found with a probability of 0.8, and ``detectable_twice`` with twice the
          pairs; ``needed``: pairs that would decide;
        - ``runs`` (records there are, and planned, as text), ``complete`` (whether all are there);
        - ``note``: what was measured in another way than usual; ``unread``: why a comparison is not read;
        - ``verdict``: one of `DECIDED`, ``'undecided'`` or, where runs are missing, ``'not measured'``.
    """
    rows = _rows(claims, plan, results.results_dir() if root is None else root, profile)
    table = decide(pd.DataFrame(rows))
    table["needed"] = [_needed(row, size) for row, size in zip(rows, table.pop("family_size"), strict=True)]
    table.loc[(table["verdict"] != "undecided") | (table["unread"] != ""), "needed"] = np.nan
    return table.drop(columns="paired").astype({"n": int, "lost": int, "mixed": int})


def decide(measured: pd.DataFrame) -> pd.DataFrame:
    """The same comparisons with corrected p values and verdicts.

    Parameters
    ----------
    measured : DataFrame
        Columns ``text``, ``primary``, ``effect``, ``complete``, ``mixed``, ``p``, ``p_equal``, ``low``, ``high``,
        ``margin_low`` and ``margin_high`` of `judge`.

    Returns
    -------
    DataFrame
        With ``p_corrected``, ``p_equal_corrected``, ``verdict``, ``unread`` (why a comparison that has its runs is not
        read) and ``family_size``, the number of comparisons corrected together: the primary ones; of the others, those
        of one claim.
    """
    table = measured.copy()
    family = table["text"].where(~table["primary"], "primary")
    table["family_size"] = family.map(family.value_counts())
    for name in ("p", "p_equal"):
        table[f"{name}_corrected"] = table.groupby(family)[name].transform(lambda p: statistics.holm(p, family=len(p)))
    table["verdict"] = [_verdict(row) for row in table.to_dict("records")]
    table["unread"] = ""

    def close(which: pd.Series, why: str) -> None:
        table.loc[which & table["complete"], ["verdict", "unread"]] = ["undecided", why]

    close(table["mixed"] > 0, "the two runs of some pairs come from two machines")
    primary = table[table["primary"]]
    gates = set(primary["text"]) - set(primary.loc[primary["verdict"].isin(DECIDED), "text"])
    close(~table["primary"] & table["text"].isin(gates), "no primary comparison of this claim is decided")
    return table


def _rows(
    claims: Sequence[Claim], plan: Callable[[Claim, str], dict[str, str]], root: str | os.PathLike, profile: str
) -> list[dict[str, Any]]:
    """What the records say of each claim by itself."""
    stored = {
        (experiment, dataset): {
            record["key"]: record
            for record in results.load(root, profile=profile, experiment=experiment, dataset=dataset)
        }
        for experiment, dataset in {(claim.experiment, claim.dataset) for claim in claims}
    }
    rows = []
    for claim in claims:
        wanted, there = plan(claim, profile), stored[claim.experiment, claim.dataset]
        found = [there[key] for key in wanted if key in there]
        records = results.labelled(found, [wanted[record["key"]] for record in found])
        row = {field.name: getattr(claim, field.name) for field in fields(claim)} | _NOTHING
        row["runs"] = f"{len(records)} of {len(wanted)}"
        row["complete"] = 0 < len(records) == len(wanted)
        rows.append(row | _measured(records, claim) if row["complete"] else row)
    return rows


# what a row has of a comparison that is not measured
_NOTHING: dict[str, Any] = {
    **dict.fromkeys(
        ("value", "low", "high", "margin_low", "margin_high", "p", "p_equal", "p_sign_flip", "within", "detectable",
         "detectable_twice", "correlation"), np.nan,
    ),
    "n": 0, "lost": 0, "mixed": 0, "one_test_set": False, "paired": None, "note": "", "shown": "–",
}  # fmt: skip


def _measured(records: list[dict[str, Any]], claim: Claim) -> dict[str, Any]:
    """What the records say of a claim, but for what depends on other claims."""
    seeds = {record["seed"] for record in records}
    trained = {record["label"] for record in records if record["metrics"]}  # the others diverged
    effect = EFFECTS[claim.effect]
    found = effect.measure(records, claim) if {claim.method, claim.baseline} <= trained else {}
    if not found:
        return {"lost": len(seeds)}
    paired, bounds = found["paired"], effect.bounds(found)
    low, high = np.log(bounds) if effect.column == "ratio" else bounds
    row = {name: found[name] for name in ("low", "high", "n", "paired")} | {"value": found[effect.column]}
    row |= {"note": found.get("note", ""), "lost": len(seeds) - paired.n, "mixed": _mixed(records)}
    row |= {"margin_low": bounds[0], "margin_high": bounds[1]}
    row |= {"p": paired.p, "p_equal": paired.p_equal(low, high), "p_sign_flip": paired.p_sign_flip()}
    row |= {"within": paired.probabilities(low, high)[1], "correlation": paired.correlation}
    for name, n in (("detectable", paired.n), ("detectable_twice", 2 * paired.n)):
        least = paired.detectable(n=n)
        row[name] = float(np.exp(least)) if effect.column == "ratio" else least
    overlap = results.frame([r for r in records if r["label"] == claim.method])["overlap"]
    row["one_test_set"] = bool((overlap == 1).all())
    return row | {"shown": _shown(row, effect.form, records[0]["data"]["unit"])}


def _mixed(records: list[dict[str, Any]]) -> int:
    """Seeds whose runs come from several machines."""
    machines: dict[int, set[tuple[str, str]]] = {}
    for record in records:
        machines.setdefault(record["seed"], set()).add(results.machine(record))
    return sum(len(its) > 1 for its in machines.values())


def _needed(row: dict[str, Any], family: int) -> float:
    """Pairs that would decide whatever the others say: at the strictest level of the correction."""
    if row["paired"] is None:
        return np.nan
    bounds = row["margin_low"], row["margin_high"]
    low, high = np.log(bounds) if EFFECTS[row["effect"]].column == "ratio" else bounds
    return row["paired"].needed(low, high, level=LEVEL / family)


def _verdict(row: dict[str, Any]) -> str:
    if not row["complete"]:
        return "not measured"
    effect = EFFECTS[row["effect"]]
    if row["p_equal_corrected"] < LEVEL and row["margin_low"] < row["low"] and row["high"] < row["margin_high"]:
        return "practically equal"
    ends = [effect.better * (row[end] - effect.neutral) for end in ("low", "high")]
    if row["p_corrected"] < LEVEL and min(ends) > 0:
        return "holds"
    if row["p_corrected"] < LEVEL and max(ends) < 0:
        return "does not hold"
    return "undecided"


def in_margins(row: dict[str, Any]) -> tuple[float, float, float]:
    """Effect and interval in units of the margin of practical equality; above 0 speaks for the claim.

    Parameters
    ----------
    row : dict
        Of `judge`.
    """
    effect = EFFECTS[row["effect"]]
    scale = np.log if effect.column == "ratio" else np.asarray
    margin = float(scale(row["margin_high"]))
    value, *ends = (effect.better * float(scale(row[name])) / margin for name in ("value", "low", "high"))
    return value, min(ends), max(ends)


def more(row: dict[str, Any], runs: str) -> str:
    """What an undecided comparison would need, or why it is not read; empty for others.

    Parameters
    ----------
    row : dict
        Of `judge`.
    runs : str
        What pairs are called, such as ``'splits'``.
    """
    if row["verdict"] != "undecided":
        return ""
    if row["unread"]:
        return f"not read, since {row['unread']}"
    if row["n"] == 0:
        return "every run of one method diverged"
    if np.isnan(row["needed"]):
        return f"the spread over {runs} is unknown"
    if np.isinf(row["needed"]):
        return f"more {runs} of these data might never decide it"
    needed = row["needed"]
    return f"about {needed if needed < 100 else float(f'{needed:.1e}'):.0f} {runs} would decide"


def _shown(row: dict[str, Any], form: str, unit: str) -> str:
    number = form[form.index("{") : form.index("}") + 1]
    text = form.format(row["value"], unit=unit)
    if not np.isnan(row["low"]):
        text += f" [{number.format(row['low'])}, {number.format(row['high'])}]"
    return text.replace("-", "−")
