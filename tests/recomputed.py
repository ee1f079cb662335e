"""The verdicts of the book once more: from its page "How we decide" and the JSON records alone, without rnclib.

A comparison is a plain dictionary: ``text`` (the claim), ``experiment``, ``dataset``, ``split``, ``method``,
``baseline``, ``effect``, ``holes``, ``spurious``, ``primary``, and ``wanted``: labels of the planned runs by keys.

Where the page leaves a choice open, a comment that begins with "open:" says which was made.
"""

from __future__ import annotations

import csv
import itertools
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

Record = dict[str, Any]
#: Numbers of one method by seed.
BySeed = dict[int, float]

LEVEL = 0.05
#: Fraction of the training set at which curves that are not parallel are read.
AT = 0.4
#: Effects that are ratios: differences of logarithms, until they are shown.
RATIOS = ("data", "corruption", "growth")
#: Effects that are what a spurious correlation adds.
ADDED = ("nuisance coefficient", "organisation")
#: Bounds of practical equality; for all other effects a fraction of the baseline's mean.
MARGINS = {
    "agreement": (-0.05, 0.05), "nuisance coefficient": (-0.05, 0.05), "organisation": (-0.05, 0.05),
    "data": (0.8, 1.25), "corruption": (0.95, 1 / 0.95), "growth": (0.95, 1 / 0.95),
}  # fmt: skip
OF_BASELINE = 0.05
#: Claims are of less, but for these: of more order, and of settings (the baseline's) that others are worse than.
OF_MORE = ("agreement", "standardised")


# ---------------------------------------------------------------------------------------------------------------------
# what one run says


def _read(path: Path) -> Record:
    """The record in a file, with the samples of its test set and the versions of packages, which lie beside."""
    record = json.loads(path.read_text(encoding="utf-8"))
    if "set" in record["test"]:
        columns, *rows = csv.reader((path.parent / "test-sets" / record["test"]["set"]).read_text().splitlines())
        record["test"] |= {name: [float(row[i]) for row in rows] for i, name in enumerate(columns)}
    if isinstance(name := record["run"].get("versions"), str):
        _, *rows = csv.reader((path.parent / "versions" / name).read_text().splitlines())
        record["run"]["versions"] = dict(rows)
    return record


def _error(run: Record) -> float:
    return run["metrics"]["test"]["raw"]["mae"]


def _error_between(run: Record) -> float:
    """Of the test targets between two ranges that training has seen."""
    target, prediction = np.array(run["test"]["target"]), np.array(run["test"]["prediction"])
    ranges = sorted(run["data"]["seen"])
    between = np.zeros(len(target), bool)
    for (_, end), (start, _) in itertools.pairwise(ranges):
        between |= (target > end) & (target < start)
    return float(np.abs(prediction - target)[between].mean()) if between.any() else math.nan


def _coefficient(run: Record) -> float:
    """Of the nuisance in prediction ~ 1 + target + nuisance: least squares on what the other two leave of each."""
    target, nuisance, prediction = (np.array(run["test"][of], float) for of in ("target", "nuisance", "prediction"))

    def left(values: np.ndarray) -> np.ndarray:
        line = stats.linregress(target, values)
        return values - line.intercept - line.slope * target

    return float(left(nuisance) @ left(prediction) / (left(nuisance) @ left(nuisance)))


def _corrupted(run: Record) -> np.ndarray:
    """Errors, one row per kind of corruption and one column per severity; NaN where a prediction was not finite."""
    return np.array(list(run["corrupted"].values()), float)


MEASURES: dict[str, Callable[[Record], float]] = {
    "difference": _error,
    "data": lambda run: math.log(_error(run)),
    "unseen": _error_between,
    "new people": lambda run: run["new_people"]["mae"],
    "standardised": lambda run: run["metrics"]["test"]["standardised"]["mae"],
    "agreement": lambda run: run["metrics"]["test"]["standardised"]["rank_agreement"],
    "organisation": lambda run: run["metrics"]["test"]["standardised"]["nuisance_agreement"],
    "nuisance coefficient": _coefficient,
    "corruption": lambda run: float(np.log(_corrupted(run).sum(axis=1)).mean()),
    # open: growth is the plain mean over kinds and severities, divided by the error on clean inputs
    "growth": lambda run: math.log(_corrupted(run).mean() / _error(run)),
}


# ---------------------------------------------------------------------------------------------------------------------
# what the runs of a method say


def _by_seed(runs: Iterable[Record], effect: str) -> BySeed:
    """A number for each seed of a method, from the runs that did not diverge."""
    found: dict[tuple[int, str | None], float] = {}
    for run in runs:
        which = run["seed"], run["config"].get("spurious")
        assert which not in found, f"two runs of one method, seed and condition: {run['key']}"
        found[which] = MEASURES[effect](run)
    if effect not in ADDED:
        return {seed: value for (seed, _), value in found.items()}
    both = {seed for seed, tie in found if tie == "tied" and (seed, "untied") in found}
    return {seed: found[seed, "tied"] - found[seed, "untied"] for seed in both}


def _points(runs: Iterable[Record]) -> dict[int, dict[float, tuple[float, float]]]:
    """Log size and log error by seed and fraction of the training set."""
    found: dict[int, dict[float, tuple[float, float]]] = {}
    for run in runs:
        point = math.log(run["data"]["n_train"]), MEASURES["data"](run)
        found.setdefault(run["seed"], {})[run["config"].get("fraction", 1.0)] = point
    return found


def _line(points: Mapping[float, tuple[float, float]]) -> tuple[float, float]:
    """Intercept and slope of one learning curve."""
    line = stats.linregress(*zip(*points.values(), strict=True))
    return float(line.intercept), float(line.slope)


def _parallel(method: Mapping[float, tuple[float, float]], baseline: Mapping) -> tuple[float, float]:
    """The common slope of two learning curves, and how much higher the method's is."""
    curves = [np.array(list(points.values())) for points in (method, baseline)]
    centred = np.concatenate([points - points.mean(axis=0) for points in curves])
    slope = float(centred[:, 0] @ centred[:, 1] / (centred[:, 0] @ centred[:, 0]))
    (size, error), (its_size, its_error) = (points.mean(axis=0) for points in curves)
    return slope, float(error - its_error - slope * (size - its_size))


def _log_samples(of_method: list[Record], of_baseline: list[Record], correlation: float) -> tuple[BySeed, bool]:
    """Logarithms of the ratio of samples by seed, and whether one ratio describes the curves."""
    method, baseline = _points(of_method), _points(of_baseline)
    # open: a split on which a run of either curve diverged is left out as a whole
    whole = {fraction for points in (*method.values(), *baseline.values()) for fraction in points}
    seeds = [seed for seed in method if method[seed].keys() == baseline.get(seed, {}).keys() == whole]
    slopes = [_line(method[seed])[1] - _line(baseline[seed])[1] for seed in seeds]
    common = {seed: _parallel(method[seed], baseline[seed]) for seed in seeds}
    if not Paired(slopes, correlation).p < LEVEL and all(slope < 0 for slope, _ in common.values()):
        return {seed: higher / -slope for seed, (slope, higher) in common.items()}, True
    ratios = {}
    for seed in seeds:
        intercept, slope = _line(method[seed])
        if AT in whole and slope < 0:  # open: without a fall, no number of samples answers, and the split is left out
            size, error = baseline[seed][AT]  # open: the baseline's error is the measured one, not that on its line
            ratios[seed] = (error - intercept) / slope - size
    return ratios, False


# ---------------------------------------------------------------------------------------------------------------------
# the test


def correlation_of(records: Sequence[Record]) -> float:
    """Between the differences of two splits; none where the seeds share no data, or all have one test set."""
    tests: dict[int, tuple[str, frozenset[int]]] = {}
    for record in records:
        if record["config"].get("spurious") != "untied" or record["seed"] not in tests:
            tests[record["seed"]] = record["data"]["checksum"], frozenset(record["test"]["index"])
    pairs = list(itertools.permutations(tests.values(), 2))
    shared = [len(one & its) / len(one) if same == other else 0.0 for (same, one), (other, its) in pairs]
    own = len({checksum for checksum, _ in tests.values()}) == len(tests)
    if pairs and (own or len(set(tests.values())) == 1):
        return 0.0
    fractions = []
    for data in (record["data"] for record in records):  # open: subsets count as what they are drawn from
        n_train, n_test = data.get("n_pool", data["n_train"]), data.get("n_test_pool", data["n_test"])
        fractions.append(n_test / (n_train + n_test))
    return max(float(np.mean(fractions)), float(np.mean(shared or [0.0])))


class Paired:
    """The paired t of differences of which any two have a correlation."""

    def __init__(self, differences: Iterable[float], correlation: float) -> None:
        self.differences = np.array(list(differences), float)
        self.n = len(self.differences)
        self.mean = float(self.differences.mean()) if self.n else math.nan
        if self.n > 1:
            wider = 1 / self.n + correlation / (1 - correlation)
            self.t = stats.t(self.n - 1, self.mean, float(self.differences.std(ddof=1)) * math.sqrt(wider))

    @property
    def p(self) -> float:
        """Of no effect."""
        return 2 * min(self.t.cdf(0), self.t.sf(0)) if self.n > 1 else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval."""
        return self.t.interval(1 - LEVEL) if self.n > 1 else (math.nan, math.nan)

    def p_equal(self, low: float, high: float) -> float:
        """The larger p value of two one-sided tests: that the effect is at most `low`, at least `high`."""
        return max(self.t.cdf(low), self.t.sf(high)) if self.n > 1 else math.nan

    def within(self, low: float, high: float) -> float:
        """Posterior probability of an effect within the margin, in the Bayesian correlated t."""
        return self.t.cdf(high) - self.t.cdf(low) if self.n > 1 else math.nan

    def p_sign_flip(self) -> float:
        """Exact, for ten pairs or fewer."""
        if not 2 <= self.n <= 10:  # open: one pair has no test
            return math.nan
        signs = np.array(list(itertools.product((-1, 1), repeat=self.n)))
        sums = np.abs(signs @ self.differences)
        return float((sums >= abs(self.differences.sum()) * (1 - 1e-12)).mean())


def holm(values: Sequence[float]) -> list[float]:
    """P values corrected together; a missing one counts as one comparison, and stays missing."""
    order = sorted((index for index, p in enumerate(values) if not math.isnan(p)), key=lambda index: values[index])
    corrected, largest = [math.nan] * len(values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(values) - rank) * values[index]))
        corrected[index] = largest
    return corrected


# ---------------------------------------------------------------------------------------------------------------------
# the verdicts


def _judged_alone(comparison: Mapping[str, Any], stored: Mapping[str, Record]) -> dict[str, Any]:
    """What the records say of one comparison, before any correction."""
    effect, wanted = comparison["effect"], comparison["wanted"]
    records = [stored[key] for key in wanted if key in stored]
    complete = 0 < len(records) == len(wanted)
    nothing = dict.fromkeys(("value", "low", "high", "margin_low", "margin_high", "p", "p_equal", "p_sign_flip",
                             "within", "correlation"), math.nan)  # fmt: skip
    found: dict[str, Any] = {"complete": complete, "parallel": None, "n": 0, "lost": 0, "mixed": 0} | nothing
    if not complete:
        return found
    machines: dict[int, set[tuple[str, str]]] = {}
    for record in records:
        made = record["run"]
        machines.setdefault(record["seed"], set()).add((made["cpu"], made["versions"].get("torch", "–")))
    found["mixed"] = sum(len(its) > 1 for its in machines.values())
    correlation = correlation_of(records)
    of_method, of_baseline = (
        [run for run in records if run["metrics"] and wanted[run["key"]] == comparison[side]]
        for side in ("method", "baseline")
    )
    if effect == "data":
        differences, found["parallel"] = _log_samples(of_method, of_baseline, correlation)
        of_pairs: list[float] = []
    else:
        method, baseline = _by_seed(of_method, effect), _by_seed(of_baseline, effect)
        differences = {seed: method[seed] - baseline[seed] for seed in method.keys() & baseline.keys()}
        differences = {seed: value for seed, value in differences.items() if not math.isnan(value)}
        of_pairs = [baseline[seed] for seed in differences]
    found |= {"n": len(differences), "lost": len({record["seed"] for record in records}) - len(differences)}
    if not differences:
        return found
    # open: the baseline's mean is that of the pairs, of the error compared (such as that between the ranges seen)
    equal = OF_BASELINE * float(np.mean(of_pairs)) if of_pairs else math.nan
    margin = MARGINS.get(effect, (-equal, equal))
    bounds = [math.log(bound) for bound in margin] if effect in RATIOS else margin
    paired = Paired([differences[seed] for seed in sorted(differences)], correlation)
    numbers = (paired.mean, *paired.interval)
    found |= zip(("value", "low", "high"), map(math.exp, numbers) if effect in RATIOS else numbers, strict=True)
    found |= {"margin_low": margin[0], "margin_high": margin[1], "correlation": correlation}
    found |= {"p": paired.p, "p_equal": paired.p_equal(*bounds), "p_sign_flip": paired.p_sign_flip()}
    return found | {"within": paired.within(*bounds)}


def _verdict(row: Mapping[str, Any]) -> str:
    if not row["complete"]:
        return "not measured"
    inside = row["margin_low"] < row["low"] and row["high"] < row["margin_high"]
    if inside and row["p_equal_corrected"] < LEVEL:
        return "practically equal"
    no_effect = 1.0 if row["effect"] in RATIOS else 0.0
    if row["p_corrected"] < LEVEL and (row["low"] > no_effect or row["high"] < no_effect):
        more = row["low"] > no_effect
        return "holds" if more == (row["effect"] in OF_MORE) else "does not hold"
    return "undecided"


def verdicts(comparisons: Sequence[Mapping[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """One dictionary for each comparison: its own fields, the numbers, and the verdict.

    Parameters
    ----------
    comparisons : sequence of dict
    folder : path
        It has a folder of records for each experiment.
    """
    stored: dict[str, dict[str, Record]] = {}
    for name in {comparison["experiment"] for comparison in comparisons}:
        records = [_read(path) for path in sorted((folder / name).glob("*.json"))]
        stored[name] = {record["key"]: record for record in records}
    rows = [{**one, **_judged_alone(one, stored[one["experiment"]])} for one in comparisons]
    families: dict[str | None, list[dict[str, Any]]] = {}
    for row in rows:
        families.setdefault(None if row["primary"] else row["text"], []).append(row)
    for family, name in itertools.product(families.values(), ("p", "p_equal")):
        for row, corrected in zip(family, holm([row[name] for row in family]), strict=True):
            row[f"{name}_corrected"] = corrected
    for row in rows:
        row["verdict"] = "undecided" if row["complete"] and row["mixed"] else _verdict(row)  # not read
    primary = [row for row in rows if row["primary"]]
    decided = {row["text"] for row in primary if row["verdict"] in ("practically equal", "holds", "does not hold")}
    closed = {row["text"] for row in primary} - decided
    for row in rows:
        if row["text"] in closed and not row["primary"] and row["complete"]:
            row["verdict"] = "undecided"  # not read
    return rows
