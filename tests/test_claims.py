"""Verdicts follow the records: made-up ones with an effect, with its opposite, with none, and none at all."""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rnclib import results
from rnclib.chapters import NAMES, all_claims, chapter, experiments, planned
from rnclib.claims import DECIDED, EFFECTS, Claim, in_margins, judge, more
from rnclib.experiment import key
from rnclib.records import read
from rnclib.statistics import holm

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
    "new people": Claim("people", "paper", "esol", "esol", "random", "B", "A", "new people", "x"),
    "standardised": Claim("settings", "paper", "esol", "esol", "random", "A", "B", "standardised", "x"),
}


def write(
    root: Path,
    effect: float,
    *,
    n_seeds: int = 10,
    split: str = "random",
    noise: float = 0.05,
    steeper: float = 0.0,
) -> None:
    """Records in which method B has (1 − `effect`) times A's errors, and more rank agreement by `effect`.

    Test sets of several seeds share one sample of four. The errors of B fall with size by a power that is `steeper`
    than A's.
    """
    rng = np.random.default_rng(0)
    for method in "AB":
        for seed in range(n_seeds):
            conditions = ((0.25, None, None), (0.4, None, None), (None, None, None), (None, "cut-out", None))
            for fraction, holes, tie in (*conditions, (None, None, "tied"), (None, None, "untied")):
                factor = (1 - effect if method == "B" else 1) * np.exp(noise * rng.standard_normal())
                size = round(80 * (fraction or 1))
                mae = factor * (1 + 0.1 * seed) * size**-0.5 * (size / 32) ** (-steeper if method == "B" else 0)
                scores = {"mae": mae, "rmse": mae, "mse": mae**2}
                agreement = 0.5 + (effect if method == "B" else 0) / 2 + 0.4 * noise * rng.standard_normal()
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
                        "metrics": {"val": scales, "test": scales}, "diverged": None, "stages": [],
                        "run": {"cpu": "made up", "versions": {"torch": "0"}},
                        "new_people": {"data_seed": 1, "n_test": 4, "mae": mae, "rmse": mae},
                        "test": {"index": [0, *range(10 * seed + 1, 10 * seed + 4)], "target": [0.5, 1.5, 0.5, 1.5],
                                 "prediction": [0.5, 1.5 + mae, 0.5 + follows, 1.5 + mae + follows]}
                        | ({} if tie is None else {"nuisance": [0, 0, 1, 1]}),
                        "corrupted": {"fog": [factor * mae] * 5, "snow": [2 * factor * mae] * 5},
                    },
                    root,
                )  # fmt: skip


def plan(claim: Claim, profile: str, n_seeds: int = 10) -> dict[str, str]:
    """All made-up runs that a claim is about; only data efficiency wants several fractions of one method and seed."""
    fractions = (0.25, 0.4, None) if claim.effect == "data" else (None,)
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
@pytest.mark.parametrize(
    ("effect", "noise", "expected"),
    [
        (0.3, 0.05, "holds"), (-0.3, 0.05, "does not hold"), (0.0, 0.4, "undecided"),
        (0.0, 0.002, "practically equal"),
        (0.02, 0.002, "practically equal"),  # a difference, smaller than the margin
    ],
)  # fmt: skip
def test_a_verdict_follows_the_effect_in_the_records(tmp_path, kind, effect, noise, expected):
    write(tmp_path, effect, noise=noise)
    assert verdict(tmp_path, kind) == expected


def test_curves_that_cross_get_no_single_ratio_and_a_warning(tmp_path):
    write(tmp_path, 0.0, noise=0.002, steeper=0.3)
    table = judged(tmp_path, "data")
    row = table.iloc[0]
    assert row["note"].startswith("learning curves are not parallel (p = ") and "read at 40%" in row["note"]
    # at 40% of the samples the curves cross: B has A's error with as many
    assert row["value"] == pytest.approx(1.0, abs=0.05) and row["verdict"] == "practically equal"
    write(tmp_path / "parallel", 0.3, noise=0.002)
    assert judged(tmp_path / "parallel", "data")["note"].tolist() == [""]


def test_an_undecided_comparison_says_what_it_would_need(tmp_path):
    write(tmp_path, 0.02, noise=0.1)
    row = judged(tmp_path, "difference").iloc[0].to_dict()
    assert row["verdict"] == "undecided" and row["needed"] == math.inf
    assert more(row, "splits") == "more splits of these data might never decide it"
    assert more(row | {"needed": 31.0}, "sets") == "about 31 sets would decide"
    assert more(row | {"needed": 1555.0}, "splits") == "about 1600 splits would decide"
    assert more(row | {"unread": "of that"}, "sets") == "not read, since of that"
    assert more(row | {"verdict": "holds"}, "sets") == ""
    write(tmp_path / "known", 0.3)
    assert math.isnan(judged(tmp_path / "known", "difference")["needed"].iloc[0])


def test_exploratory_comparisons_are_read_only_behind_a_primary_one_that_is_decided(tmp_path):
    write(tmp_path, 0.3)
    unknown = replace(KINDS["agreement"], text="lower", primary=True, split="scaffold")  # it has no records
    aside = KINDS["difference"]
    open_to = replace(aside, primary=True, spurious="tied")

    def verdicts_of(*claims):
        table = judge(claims, plan, root=tmp_path)
        return table["verdict"].tolist(), table["unread"].tolist()

    assert verdicts_of(aside) == (["holds"], [""])  # a claim without a primary comparison stands alone
    found, notes = verdicts_of(unknown, aside)
    assert found == ["not measured", "undecided"] and notes[1].startswith("no primary comparison")
    assert verdicts_of(open_to, aside)[0] == ["holds", "holds"]


def test_primary_comparisons_are_corrected_together_and_the_others_within_their_claim(tmp_path):
    write(tmp_path, 0.12)
    primary = [replace(KINDS[kind], primary=True) for kind in ("difference", "corruption", "growth")]
    others = [replace(KINDS["difference"], text="another"), replace(KINDS["corruption"], text="another")]
    table = judge([*primary, *others], plan, root=tmp_path)
    for part in (table[:3], table[3:]):
        for name in ("p", "p_equal"):
            corrected = holm(part[name])
            assert part[f"{name}_corrected"].tolist() == pytest.approx(corrected.tolist())


def test_runs_of_two_machines_in_a_pair_are_counted(tmp_path):
    write(tmp_path, 0.3)
    for path in list(tmp_path.rglob("*-a-00-*.json")):
        one = read(path)
        results.write(one | {"run": {"cpu": "another", "versions": {"torch": "0"}}}, tmp_path)
    assert judged(tmp_path, "difference")["mixed"].tolist() == [1]


def test_margins_are_the_unit_of_the_forest_plot(tmp_path):
    write(tmp_path, 0.3)
    for kind in ("difference", "corruption", "agreement"):
        row = judged(tmp_path, kind).iloc[0].to_dict()
        value, low, high = in_margins(row)
        assert 1 < low < value < high  # the claim holds
    row = judged(tmp_path, "corruption").iloc[0].to_dict()
    assert in_margins(row)[0] == pytest.approx(math.log(row["value"]) / math.log(0.95))


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
    assert set(table["verdict"]) == {"not measured"} and table["runs"].tolist() == ["18 of 20", "54 of 60"]
    write(tmp_path, 0.3, n_seeds=10)
    assert set(judged(tmp_path, "difference", "data")["verdict"]) == {"holds"}


def test_runs_that_are_not_planned_have_no_part(tmp_path):
    write(tmp_path, 0.3)
    stray = read(next(tmp_path.rglob("*-b-*.json")))
    results.write(stray | {"key": "f" * 16, "data": stray["data"] | {"checksum": "1" * 64}}, tmp_path)
    assert verdict(tmp_path, "difference") == "holds"


def test_where_no_pair_is_left_nothing_is_decided(tmp_path):
    write(tmp_path, -0.3)
    for method in "ba":
        for path in tmp_path.rglob(f"*-{method}-*.json"):  # every run of B diverged, and then every run
            one = read(path)
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
    assert several["p_corrected"].iloc[0] == pytest.approx(min(1, 40 * several["p"].iloc[0]))


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
            where = experiments() if claim.primary else {one.name: one for one in chapter(name).experiments}
            assert claim.experiment in where
            assert claim.effect in EFFECTS
            paper = planned(claim, "paper")
            assert set(paper.values()) == {claim.method, claim.baseline} and len(paper) >= 10, claim
    assert len(set(all_claims())) == len(all_claims())


def test_the_page_how_we_decide_lists_the_primary_comparisons():
    """Each line of its table names two, one on molecules and one on faces, with the number of splits or sets."""
    page = (ROOT / "book" / "deciding.md").read_text(encoding="utf-8")
    lines = [line for line in page.splitlines() if re.match(r"\| \d+ \|", line)]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    primary = [claim for claim in all_claims() if claim.primary]
    assert len(primary) == 2 * len(cells) == 14
    for column, dataset in ((3, "esol"), (4, "synthetic")):
        its = [claim for claim in primary if claim.dataset == dataset]
        for row, claim in zip(cells, its, strict=True):
            assert row[1] == "the same" or row[1].startswith(claim.text)
            assert int(re.search(r"(\d+) (splits|sets)", row[column])[1]) == claim.n_seeds
            assert dataset == "synthetic" or row[column].startswith(claim.method.removesuffix(", L1"))


def test_the_planned_runs_of_a_claim_are_those_under_its_conditions():
    for claim in all_claims():
        keys = planned(claim, "quick")
        runs = {key(run): run for run in experiments()[claim.experiment].runs(dataset=claim.dataset, profile="quick")}
        adds = claim.effect in ("nuisance coefficient", "organisation")
        for run in map(runs.get, keys):
            assert (run.data.split, run.data.holes, run.data.wrong_targets) == (claim.split, claim.holes, None)
            assert run.data.spurious in (("tied", "untied") if adds else (claim.spurious,))
            assert run.corruptions or claim.effect not in ("corruption", "growth")
            assert run.data.fraction is None or claim.effect == "data"
            assert run.label == keys[key(run)]


def test_a_short_profile_lacks_some_comparisons_and_says_nothing_of_them():
    lacking = [claim for claim in all_claims() if not planned(claim, "quick")]
    # it has one unseen range of three, one value of each choice, on synthetic faces the number of views alone, and one
    # shift of molecules of two
    assert {claim.holes for claim in lacking} == {None, "three peaks", "cut-out"}
    others = {(claim.experiment, claim.dataset) for claim in lacking if claim.holes is None}
    assert others == {("ablations", "esol"), ("ablations", "synthetic"), ("robustness", "esol")}
    assert {claim.split for claim in lacking if claim.experiment == "robustness" and not claim.holes} == {"size"}


def test_what_the_verdict_page_refers_to_is_on_the_published_pages():
    pages = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "book" / "chapters").glob("*.ipynb"))
    judged = judge(all_claims(), planned, root=ROOT / "book" / "results")
    assert set(judged["verdict"]) <= {*DECIDED, "undecided"}  # all runs are made
    assert not judged.loc[judged["primary"], "mixed"].any()  # the two runs of a pair come from one machine
    for claim in all_claims():
        assert f":name: {claim.link}\\n" in pages, claim.link
        assert claim.figure is None or f'"name": "{claim.figure}"' in pages, claim.figure


def test_comparisons_of_one_claim_follow_each_other():
    texts = [claim.text for claim in all_claims()]
    assert texts == sorted(texts, key=texts.index)
    compared = [
        (c.experiment, c.dataset, c.split, c.method, c.baseline, c.effect, c.holes, c.spurious) for c in all_claims()
    ]
    assert len(set(compared)) == len(compared)
