"""The published table of Concrete: what its protocol trains, and how validation chooses."""

from __future__ import annotations

import math

import pytest

from rnclib.protocols.concrete import FOLDS, METHODS, PUBLISHED, chosen, runs


def test_every_setting_is_trained_on_every_fold():
    made = runs("paper")
    assert len(made) == (3 * 9 + 27) * FOLDS and len({(run.method, run.seed) for run in made}) == len(made)
    assert {run.data.split for run in made} == {"published"} and {run.seed for run in made} == set(range(5))
    for run in made:
        recipe = run.recipe
        assert recipe.widths == (16, 32, 16, 8) and recipe.scaling == "standard"
        stages = [stage for stage in (recipe.pretrain, recipe.fit) if stage]
        assert sum(stage.epochs for stage in stages) == 100 and all(stage.optimizer is None for stage in stages)
        if run.method.startswith("RnC"):
            assert recipe.pretrain.loss == "rnc" and recipe.fit.loss == "l1" and not recipe.freeze
        else:
            assert recipe.pretrain is None
    assert METHODS == ("L1", "L2", "Huber", "RnC") and set(METHODS) <= set(PUBLISHED.index)


def record(method: str, val: float, test: float) -> dict:
    metrics = {part: {"raw": {"mae": mae, "rmse": 2 * mae}} for part, mae in (("val", val), ("test", test))}
    return {"method": method, "metrics": {} if math.isnan(val) else metrics}


def test_validation_chooses_over_all_folds_and_a_trial_that_diverged_is_out():
    records = [record("L1, trial 0", 3.0, 1.0 + fold) for fold in range(5)]
    records += [record("L1, trial 1", 4.0, 0.1) for _ in range(5)]
    records += [record("L1, trial 2", 1.0 if fold else math.nan, 0.1) for fold in range(5)]
    records += [record("RnC, trial 7", 2.0, 6.0) for _ in range(5)]
    found = chosen(records)
    assert found.index.tolist() == ["L1", "RnC"] and found["trial"].tolist() == ["L1, trial 0", "RnC, trial 7"]
    assert found.loc["L1", ["mae", "mae_sd", "rmse"]].tolist() == pytest.approx([3.0, math.sqrt(2.5), 6.0])
