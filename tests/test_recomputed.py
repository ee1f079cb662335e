"""Every verdict of the book, computed a second time by code that shares nothing with the package but the records."""

from __future__ import annotations

import hashlib
import re
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import recomputed
from hypothesis import given, settings
from hypothesis import strategies as st

from rnclib import results
from rnclib.chapters import all_claims, planned
from rnclib.claims import EFFECTS, Claim, judge

ROOT = Path(__file__).resolve().parents[1]
FIELDS = ("text", "experiment", "dataset", "split", "method", "baseline", "effect", "holes", "spurious", "primary")
EXACT = ("verdict", "complete", "n", "lost")
CLOSE = (
    "value", "low", "high", "margin_low", "margin_high", "p", "p_corrected", "p_equal", "p_equal_corrected",
    "p_sign_flip", "within", "correlation",
)  # fmt: skip


def both(
    claims: Sequence[Claim], plan: Callable[[Claim], dict[str, str]], root: Path
) -> tuple[list[dict[str, Any]], list[str]]:
    """The verdicts computed anew, and in what those of the package differ."""
    plans = {claim: plan(claim) for claim in claims}
    ours = judge(claims, lambda claim, profile: plans[claim], root=root).to_dict("records")
    plain = [{name: getattr(claim, name) for name in FIELDS} | {"wanted": plans[claim]} for claim in claims]
    anew = recomputed.verdicts(plain, root / "paper")
    found = []
    for one, other in zip(ours, anew, strict=True):
        apart = [name for name in EXACT if one[name] != other[name]]
        apart += [name for name in CLOSE if not np.isclose(one[name], other[name], 1e-6, 1e-9, equal_nan=True)]
        if other["n"] and other["parallel"] is not None and not one["note"].startswith("not read"):
            apart += ["parallel"] if other["parallel"] == ("read at" in one["note"]) else []
        found += [f"{one['text']}, {one['effect']}: {name} {one.get(name)} {other[name]}" for name in apart]
    return anew, found


def test_every_verdict_of_the_book_is_the_same_when_computed_anew(tmp_path):
    for name in {claim.experiment for claim in all_claims()}:  # records may be added meanwhile
        if (folder := ROOT / "book" / "results" / "paper" / name).is_dir():
            shutil.copytree(folder, tmp_path / "paper" / name, ignore=shutil.ignore_patterns(".*"))
    anew, found = both(all_claims(), lambda claim: planned(claim, "paper"), tmp_path)
    assert not found, "\n".join(found)
    assert sum(row["primary"] for row in anew) == 14
    assert any(row["complete"] for row in anew)


def test_nothing_is_borrowed_from_the_package():
    source = Path(recomputed.__file__).read_text(encoding="utf-8")
    imported = set(re.findall(r"^\s*(?:import|from) (\w+)", source, re.MULTILINE))
    assert {"numpy", "scipy"} <= imported and not imported & {"rnclib", "statsmodels", "baycomp", "pandas"}


# ---------------------------------------------------------------------------------------------------------------------
# made-up records

BASE = Claim("", "paper", "esol", "esol", "random", "B", "A", "difference", "x")
ADDED = ("nuisance coefficient", "organisation")
#: Fraction of the training set, unseen ranges, and spurious correlation of the runs of each method and seed.
CONDITIONS = (
    (0.1, None, None), (0.4, None, None), (None, None, None), (None, "cut-out", None), (None, None, "tied"),
    (None, None, "untied"),
)  # fmt: skip


def key(*of: Any) -> str:
    return hashlib.sha256(repr(of).encode()).hexdigest()[:16]


def plan(claim: Claim, n_seeds: int) -> dict[str, str]:
    fractions = (0.1, 0.4, None) if claim.effect == "data" else (None,)
    ties = ("tied", "untied") if claim.effect in ADDED else (None,)
    wanted = [(fraction, claim.holes, tie) for fraction in fractions for tie in ties]
    methods = (claim.method, claim.baseline)
    return {key(m, seed, which): m for m in methods for seed in range(n_seeds) for which in wanted}


def claims_of(rng: np.random.Generator, share: float) -> list[Claim]:
    """One of each effect, and some beside them, of three claims; some are primary."""
    effects = [(effect, "B") for effect in EFFECTS] + [("difference", "C"), ("agreement", "C"), ("corruption", "C")]
    found = []
    for effect, method in effects:
        text, primary = f"claim {rng.integers(3)}", bool(rng.random() < share)
        claim = replace(BASE, text=text, effect=effect, method=method, primary=primary)
        holes, tie = "cut-out" if effect == "unseen" else None, "tied" if effect in ADDED else None
        found.append(replace(claim, holes=holes, spurious=tie))
    return found


def data_of(rng: np.random.Generator, tests: str, seed: int) -> tuple[dict[str, Any], list[int]]:
    """Of which data a run is, and its test set: one of several that overlap, that of all seeds, of data of its own."""
    size = 12 + 6 * (seed % 2) if tests == "unequal" else 12
    index = list(range(size * seed, size * (seed + 1))) if tests == "apart" else list(range(size))
    if tests in ("splits", "unequal"):  # one sample is common to all, so that no two test sets are apart by chance
        index = [0, *(1 + rng.choice(49, size - 1, replace=False)).tolist()]
    checksum = (str(seed % 10) if tests == "sets" else "x") * 63 + ("1" if tests == "sets" and seed > 9 else "0")
    data = {"checksum": checksum, "n_val": 10, "n_test": len(index), "n_pool": 80, "n_test_pool": 12, "unit": "years"}
    return data, index


def record(
    rng: np.random.Generator, data: dict[str, Any], test: dict[str, Any], which: tuple, factor: float, turn: float
) -> dict[str, Any]:
    """What a run has measured, with `factor` times the error, and `turn` of the slope of the learning curve."""
    fraction, holes, tie = which
    n_train = round(80 * (fraction or 1))
    mae = factor * (n_train / 80) ** -(0.5 + turn)
    agreement = 0.5 - 0.3 * np.log(factor) + 0.02 * rng.standard_normal()
    more = {"rank_agreement": agreement, "nuisance_agreement": (tie != "untied") * factor}
    target = np.array(test["target"])
    nuisance = rng.uniform(-1, 6, len(target))
    off = factor * rng.choice([-1, 1], len(target)) + (tie == "tied") * factor * nuisance
    scores = {"mae": mae, "rmse": mae, "mse": mae**2}
    return {
        "data": data | {"n_train": n_train} | ({"seen": [[0, 1], [4, 5], [2, 3]]} if holes else {}),
        "metrics": {part: {"raw": scores, "standardised": scores | more} for part in ("val", "test")},
        "test": test | {"prediction": (target + off).tolist()} | ({"nuisance": nuisance.tolist()} if tie else {}),
        "corrupted": {kind: (mae * factor * rng.uniform(1, 3, 5)).tolist() for kind in ("fog", "snow", "frost")},
        "new_people": {"mae": mae * factor}, "diverged": None,
    }  # fmt: skip


def write(root: Path, world: dict[str, Any], rng: np.random.Generator) -> None:
    """Records of three methods: A, B with another error and another slope, and C, of which a run may be missing."""
    for seed in range(world["n_seeds"]):
        data, index = data_of(rng, world["tests"], seed)
        test = {"index": index, "target": [1.5, *rng.uniform(-1, 6, len(index) - 1).tolist()]}
        for method in "ABC":
            for which in CONDITIONS:
                factor = (1 + world["effect"] * (method == "B")) * np.exp(world["noise"] * rng.standard_normal())
                one = record(rng, data, test, which, factor, world["turn"] * (method == "B"))
                if seed < world["lost"] and rng.random() < 0.3:
                    one |= {"metrics": {}, "diverged": "it did", "corrupted": {}, "new_people": {"mae": None}}
                    one["test"] = one["test"] | {"prediction": []}
                elif seed < world["lost"] and rng.random() < 0.3:
                    one["corrupted"]["fog"][2] = None
                config = {"fit": {}} | ({"data_seed": seed + 1} if world["tests"] == "sets" else {})
                config |= zip(("fraction", "holes", "spurious"), which, strict=True)
                one["config"] = {name: value for name, value in config.items() if value is not None}
                one |= {"schema": results.SCHEMA, "experiment": "esol", "dataset": "esol", "profile": "paper"}
                one |= {"split": "random", "method": method, "seed": seed, "key": key(method, seed, which)}
                one |= {"stages": [], "run": {"cpu": "a", "versions": {}}}
                if not (world["missing"] and (method, seed, which) == ("C", 0, CONDITIONS[2])):
                    results.write(one, root)


WORLDS = {
    "n_seeds": st.integers(4, 13), "effect": st.sampled_from([-0.3, 0.0, 0.0, 0.3]),
    "noise": st.sampled_from([0.01, 0.1]), "tests": st.sampled_from(["splits", "one", "sets"]),
    "turn": st.sampled_from([0.0, 0.2, -0.45]), "lost": st.integers(0, 2), "missing": st.booleans(),
    "share": st.sampled_from([0.0, 0.3, 1.0]), "seed": st.integers(0, 2**32 - 1),
}  # fmt: skip


def differing(world: dict[str, Any]) -> list[str]:
    rng = np.random.default_rng(world["seed"])
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), world, rng)
        claims = claims_of(rng, world["share"])
        return both(claims, lambda claim: plan(claim, world["n_seeds"]), Path(folder))[1]


@given(st.fixed_dictionaries(WORLDS))
@settings(max_examples=6)
def test_verdicts_on_made_up_records_are_the_same_when_computed_anew(world):
    assert not (found := differing(world)), "\n".join(found)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param({"n_seeds": 1}, id="one pair"),
        pytest.param({"turn": -0.7}, id="no split can be read where curves are not parallel"),
        pytest.param({"tests": "apart"}, id="test sets of one data set that share nothing"),
        pytest.param({"tests": "unequal"}, id="test sets of two sizes"),
    ],
)
def test_a_rare_case_is_the_same_when_computed_anew(case):
    world = {"n_seeds": 6, "effect": 0.3, "noise": 0.01, "tests": "splits", "turn": 0.0, "lost": 0, "missing": False}
    assert not (found := differing(world | {"share": 0.3, "seed": 0} | case)), "\n".join(found)
