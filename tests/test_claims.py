"""Verdicts follow the records: made-up ones with an effect, with its opposite, with none, and none at all."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rnclib import results
from rnclib.chapters import NAMES, all_claims, chapter, experiments, planned
from rnclib.claims import EFFECTS, Claim, judge
from rnclib.experiment import key

ROOT = Path(__file__).resolve().parents[1]
KINDS = {
    "difference": Claim("lower", "paper", "esol", "esol", "random", "B", "A", "difference", "x"),
    "agreement": Claim("order", "paper", "esol", "esol", "random", "B", "A", "agreement", "x"),
    "data": Claim("data", "paper", "esol", "esol", "random", "B", "A", "data", "x"),
    "growth": Claim("growth", "paper", "esol", "esol", "random", "B", "A", "growth", "x"),
    "corruption": Claim("robust", "paper", "esol", "esol", "random", "B", "A", "corruption", "x"),
    "unseen": Claim("unseen", "paper", "esol", "esol", "random", "B", "A", "unseen", "x", "cut-out"),
    "nuisance coefficient": Claim(
        "follow", "paper", "esol", "esol", "random", "B", "A", "nuisance coefficient", "x", spurious="tied"
    ),
    "organisation": Claim(
        "organised", "paper", "esol", "esol", "random", "B", "A", "organisation", "x", spurious="tied"
    ),
    "standardised": Claim("settings", "paper", "esol", "esol", "random", "A", "B", "standardised", "x"),
}


def write(root: Path, effect: float, *, n_seeds: int = 10, split: str = "random", noise: float = 0.05) -> None:
    """Records in which method B has (1 − `effect`) times A's errors, and more rank agreement by `effect`."""
    rng = np.random.default_rng(0)
    for method in "AB":
        for seed in range(n_seeds):
            conditions = ((0.25, None, None), (None, None, None), (None, "cut-out", None))
            for fraction, holes, tie in (*conditions, (None, None, "tied"), (None, None, "untied")):
                factor = (1 - effect if method == "B" else 1) * np.exp(noise * rng.standard_normal())
                size = 80 if fraction is None else 20
                mae = factor * (1 + 0.1 * seed) * size**-0.5
                scores = {"mae": mae, "rmse": mae, "mse": mae**2}
                agreement = 0.5 + (effect if method == "B" else 0) / 2 + 0.02 * rng.standard_normal()
                nuisance = 0.0 if tie == "untied" else factor
                agreements = {"rank_agreement": agreement, "nuisance_agreement": nuisance}
                scales = {"raw": scores, "standardised": scores | agreements}
                config = {"fit": {"loss": "l1"}} | ({} if fraction is None else {"fraction": fraction})
                config |= ({} if holes is None else {"holes": holes}) | ({} if tie is None else {"spurious": tie})
                name = f"{method} {seed} {split} {fraction} {holes} {tie}"
                follows = 0.0 if tie == "untied" else mae
                results.write(
                    {
                        "schema": results.SCHEMA, "experiment": "esol", "dataset": "esol", "profile": "paper",
                        "split": split, "method": method, "seed": seed,
                        "key": hashlib.sha256(name.encode()).hexdigest()[:16], "config": config,
                        "data": {"checksum": "0" * 64, "n_train": size, "n_val": 10, "n_test": 10, "n_pool": 80,
                                 "unit": "years"} | ({} if holes is None else {"seen": [[0, 1], [2, 3]]}),
                        "metrics": {"val": scales, "test": scales}, "diverged": None, "stages": [], "run": {},
                        "test": {"index": [0, 1, 2, 3], "target": [0.5, 1.5, 0.5, 1.5],
                                 "prediction": [0.5, 1.5 + mae, 0.5 + follows, 1.5 + mae + follows],
                                 "nuisance": [0, 0, 1, 1]},
                        "corrupted": {"fog": [factor * mae] * 5, "snow": [2 * factor * mae] * 5},
                    },
                    root,
                )  # fmt: skip


def plan(claim: Claim, profile: str, n_seeds: int = 10) -> dict[str, str]:
    """All made-up runs that a claim is about; only data efficiency wants several fractions of one method and seed."""
    fractions = (0.25, None) if claim.effect == "data" else (None,)
    ties = ("tied", "untied") if claim.effect in ("nuisance coefficient", "organisation") else (None,)
    names = {
        f"{method} {seed} {claim.split} {fraction} {claim.holes} {tie}": method
        for method in "AB"
        for seed in range(n_seeds)
        for fraction in fractions
        for tie in ties
    }
    return {hashlib.sha256(name.encode()).hexdigest()[:16]: method for name, method in names.items()}


def judged(root: Path, *kinds: str, n_seeds: int = 10) -> pd.DataFrame:
    return judge([KINDS[kind] for kind in kinds], lambda *of: plan(*of, n_seeds), root=root)


def verdict(root: Path, kind: str, n_seeds: int = 10) -> str:
    return judged(root, kind, n_seeds=n_seeds)["verdict"].iloc[0]


@pytest.mark.parametrize("kind", EFFECTS)
@pytest.mark.parametrize(("effect", "expected"), [(0.3, "holds"), (-0.3, "does not hold"), (0.0, "undecided")])
def test_a_verdict_follows_the_effect_in_the_records(tmp_path, kind, effect, expected):
    write(tmp_path, effect)
    assert verdict(tmp_path, kind) == expected


@pytest.mark.parametrize("kind", EFFECTS)
def test_what_has_no_record_is_not_measured(tmp_path, kind):
    assert verdict(tmp_path, kind) == "not measured"
    write(tmp_path, 0.3, split="scaffold")  # records of another split are not about it
    assert verdict(tmp_path, kind) == "not measured"


def test_one_split_decides_nothing(tmp_path):
    write(tmp_path, 0.9, n_seeds=1)
    for kind in KINDS:
        assert verdict(tmp_path, kind, n_seeds=1) == "undecided"
        assert "nan" not in judged(tmp_path, kind, n_seeds=1)["shown"].iloc[0]


def test_nothing_is_said_before_all_planned_runs_are_there(tmp_path):
    write(tmp_path, 0.3, n_seeds=9)
    table = judged(tmp_path, "difference", "data")
    assert set(table["verdict"]) == {"not measured"} and table["runs"].tolist() == ["18 of 20", "36 of 40"]
    write(tmp_path, 0.3, n_seeds=10)
    assert set(judged(tmp_path, "difference", "data")["verdict"]) == {"holds"}


def test_runs_that_are_not_planned_have_no_part(tmp_path):
    write(tmp_path, 0.3)
    stray = json.loads(next(tmp_path.rglob("*-b-*.json")).read_text())
    results.write(stray | {"key": "f" * 16, "data": stray["data"] | {"checksum": "1" * 64}}, tmp_path)
    assert verdict(tmp_path, "difference") == "holds"


def test_where_no_pair_is_left_nothing_is_decided(tmp_path):
    write(tmp_path, -0.3)
    for method in "ba":
        for path in tmp_path.rglob(f"*-{method}-*.json"):  # every run of B diverged, and then every run
            one = json.loads(path.read_text())
            test = {name: [] if name == "prediction" else values for name, values in one["test"].items()}
            results.write(one | {"metrics": {}, "diverged": "it did", "corrupted": {}, "test": test}, tmp_path)
        for kind in KINDS:
            table = judged(tmp_path, kind)
            assert (table["verdict"].iloc[0], table["shown"].iloc[0]) == ("undecided", "–"), kind


def test_more_comparisons_ask_for_more_evidence(tmp_path):
    write(tmp_path, 0.12, n_seeds=10)
    assert verdict(tmp_path, "difference") == "holds"
    several = judged(tmp_path, *["difference"] * 40)
    assert set(several["verdict"]) == {"undecided"}
    assert several["p_holm"].iloc[0] == pytest.approx(min(1, 40 * several["p"].iloc[0]))


def test_the_effect_is_shown_with_its_interval_and_unit(tmp_path):
    write(tmp_path, 0.3, noise=0.0)
    data, difference, corruption, growth = judged(tmp_path, "data", "difference", "corruption", "growth")["shown"]
    assert data == "0.49 × the samples [0.49, 0.49]"
    assert difference.startswith("test MAE −0.0") and "years [−0." in difference
    assert corruption == "0.49 × the error [0.49, 0.49]"
    assert growth == "0.70 × the growth [0.70, 0.70]"


def test_every_claim_compares_methods_that_its_chapter_has():
    for name in NAMES:
        for claim in chapter(name).claims:
            assert claim.experiment in {experiment.name for experiment in chapter(name).experiments}
            assert claim.effect in EFFECTS
            paper = planned(claim, "paper")
            assert set(paper.values()) == {claim.method, claim.baseline} and len(paper) >= 10, claim
    assert len(set(all_claims())) == len(all_claims()) == 62


def test_the_planned_runs_of_a_claim_are_those_under_its_conditions():
    for claim in all_claims():
        keys = planned(claim, "quick")
        runs = {key(run): run for run in experiments()[claim.experiment].runs(dataset=claim.dataset, profile="quick")}
        adds = claim.effect in ("nuisance coefficient", "organisation")
        for run in map(runs.get, keys):
            assert (run.data.split, run.data.holes, run.data.wrong_targets) == (claim.split, claim.holes, None)
            assert run.data.spurious in (("tied", "untied") if adds else (claim.spurious,))
            assert bool(run.corruptions) == (claim.effect in ("corruption", "growth"))
            assert run.label == keys[key(run)]


def test_a_short_profile_lacks_some_comparisons_and_says_nothing_of_them():
    lacking = [claim for claim in all_claims() if not planned(claim, "quick")]
    # it has one unseen range of three, and of the choices on synthetic faces the number of views
    assert {claim.holes for claim in lacking} == {None, "three peaks", "cut-out"}
    others = {(claim.experiment, claim.dataset) for claim in lacking if claim.holes is None}
    assert others == {("ablations", "synthetic")}


def test_what_the_verdict_page_refers_to_is_on_the_published_pages():
    pages = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "book" / "chapters").glob("*.ipynb"))
    judged = judge(all_claims(), planned, root=ROOT / "book" / "results")
    assert set(judged["verdict"]) <= {"holds", "does not hold", "undecided"}  # every comparison is measured
    for claim in all_claims():
        assert f":name: {claim.link}\\n" in pages, claim.link
        assert claim.figure is None or f'"name": "{claim.figure}"' in pages, claim.figure


def test_comparisons_of_one_claim_follow_each_other():
    texts = [claim.text for claim in all_claims()]
    assert texts == sorted(texts, key=texts.index)
    assert len(chapter("claims").tables) == 1 + len(set(texts))  # a table for each claim, and one of all
