"""Verdicts follow the records: made-up ones with an effect, with its opposite, with none, and none at all."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from rnclib import results
from rnclib.claims import CLAIMS, EFFECTS, Claim, judge

ROOT = Path(__file__).resolve().parents[1]
KINDS = {
    "difference": Claim("lower", "paper", "esol", "esol", "random", "B", "A", "difference", "x"),
    "agreement": Claim("order", "paper", "esol", "esol", "random", "B", "A", "agreement", "x"),
    "data": Claim("data", "paper", "esol", "esol", "random", "B", "A", "data", "x"),
    "corruption": Claim("robust", "paper", "esol", "esol", "random", "B", "A", "corruption", "x"),
    "unseen": Claim("unseen", "paper", "esol", "esol", "random", "B", "A", "unseen", "x", "cut-out"),
}


def write(root: Path, effect: float, *, n_seeds: int = 10, split: str = "random", noise: float = 0.05) -> None:
    """Records in which method B has (1 − `effect`) times A's errors, and more rank agreement by `effect`."""
    rng = np.random.default_rng(0)
    for method in "AB":
        for seed in range(n_seeds):
            for fraction, holes in ((0.25, None), (None, None), (None, "cut-out")):
                factor = (1 - effect if method == "B" else 1) * np.exp(noise * rng.standard_normal())
                size = 80 if fraction is None else 20
                mae = factor * (1 + 0.1 * seed) * size**-0.5
                scores = {"mae": mae, "rmse": mae, "mse": mae**2}
                agreement = 0.5 + (effect if method == "B" else 0) / 2 + 0.02 * rng.standard_normal()
                scales = {"raw": scores, "standardised": scores | {"rank_agreement": agreement}}
                config = {"fit": {"loss": "l1"}} | ({} if fraction is None else {"fraction": fraction})
                config |= {} if holes is None else {"holes": holes}
                name = f"{method} {seed} {split} {fraction} {holes}"
                results.write(
                    {
                        "schema": results.SCHEMA, "experiment": "esol", "dataset": "esol", "profile": "paper",
                        "split": split, "method": method, "seed": seed,
                        "key": hashlib.sha256(name.encode()).hexdigest()[:16], "config": config,
                        "data": {"checksum": "0" * 64, "n_train": size, "n_val": 10, "n_test": 10, "n_pool": 80,
                                 "unit": "years"} | ({} if holes is None else {"seen": [[0, 1], [2, 3]]}),
                        "metrics": {"val": scales, "test": scales}, "diverged": None, "stages": [], "run": {},
                        "test": {"index": [0, 1], "target": [0.5, 1.5], "prediction": [0.5, 1.5 + mae]},
                        "corrupted": {"fog": [mae] * 5, "snow": [2 * mae] * 5},
                    },
                    root,
                )  # fmt: skip


def verdict(root: Path, kind: str) -> str:
    """Of one comparison; only data efficiency wants several fractions of one method and seed."""
    if kind != "data":
        for path in root.rglob("*.json"):
            if '"fraction"' in path.read_text():
                path.unlink()
    (row,) = judge(root, claims=(KINDS[kind],)).to_dict("records")
    return row["verdict"]


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
    assert verdict(tmp_path, "difference") == "undecided"


def test_more_comparisons_ask_for_more_evidence(tmp_path):
    write(tmp_path, 0.12, n_seeds=10)
    assert verdict(tmp_path, "difference") == "holds"
    several = judge(tmp_path, claims=(KINDS["difference"],) * 40)
    assert set(several["verdict"]) == {"undecided"}
    assert several["p_holm"].iloc[0] == pytest.approx(min(1, 40 * several["p"].iloc[0]))


def test_the_effect_is_shown_with_its_interval_and_unit(tmp_path):
    write(tmp_path, 0.3, noise=0.0)
    shown = {kind: judge(tmp_path, claims=(claim,))["shown"].iloc[0] for kind, claim in KINDS.items() if kind == "data"}
    assert shown["data"].startswith("0.49 × the samples [0.49, 0.49]")
    assert verdict(tmp_path, "difference") == "holds"
    text = judge(tmp_path, claims=(KINDS["difference"],))["shown"].iloc[0]
    assert text.startswith("test MAE −0.0") and "years [−0." in text
    text = judge(tmp_path, claims=(KINDS["corruption"],))["shown"].iloc[0]
    assert text == "0.70 × the error [0.70, 0.70]"


def test_the_published_claims_name_what_is_there():
    from rnclib.experiment import DATASETS
    from rnclib.protocols import AGEDB_METHODS, ESOL_METHODS, GRIDS

    pages = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "book" / "chapters").glob("*.ipynb"))
    for claim in CLAIMS:
        assert {claim.method, claim.baseline} <= {*AGEDB_METHODS, *ESOL_METHODS, "RnC, closed form"}
        assert claim.experiment in GRIDS and claim.split in DATASETS[claim.dataset][0]
        measured = judge(ROOT / "book" / "results", claims=(claim,))["verdict"].iloc[0] != "not measured"
        assert claim.effect in EFFECTS and (f":name: {claim.link}\\n" in pages or not measured), claim.link
    assert len(set(CLAIMS)) == len(CLAIMS)
