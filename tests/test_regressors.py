"""Baselines, and heads on features: which of several settings is taken, and with what error."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.preprocessing import StandardScaler
from worlds import table

from rnclib import recipe, regressors
from rnclib.regressors import best_head

TRAIN, VAL = table(60), table(20, seed=1)
CANDIDATES = {
    "ridge": [Ridge(alpha) for alpha in np.logspace(-3, 4, 15)],
    "neighbours": [KNeighborsRegressor(k, weights="distance") for k in (1, 3, 5, 10, 20)],
}


def test_every_baseline_of_a_recipe_can_be_fitted():
    assert tuple(regressors.BASELINES) == recipe.BASELINES


@pytest.mark.parametrize("head", recipe.HEADS)
def test_every_head_of_a_recipe_predicts_better_than_the_mean(head):
    found, error = best_head(head, TRAIN.inputs, TRAIN.targets, VAL.inputs, VAL.targets)
    assert error == pytest.approx(np.abs(found.predict(VAL.inputs) - VAL.targets).mean())
    assert error < 0.6 * np.abs(VAL.targets - TRAIN.targets.mean()).mean()


@pytest.mark.parametrize("head", CANDIDATES)
def test_the_setting_of_least_validation_error_is_taken(head):
    scaler = StandardScaler().fit(TRAIN.inputs)
    x, x_val = scaler.transform(TRAIN.inputs), scaler.transform(VAL.inputs)
    fits = [one.fit(x, TRAIN.targets) for one in CANDIDATES[head]]
    errors = [np.abs(one.predict(x_val) - VAL.targets).mean() for one in fits]
    found, error = best_head(head, TRAIN.inputs, TRAIN.targets, VAL.inputs, VAL.targets)
    assert error == pytest.approx(min(errors)) and min(errors) < max(errors)
    np.testing.assert_allclose(found.predict(VAL.inputs), fits[int(np.argmin(errors))].predict(x_val))


def test_the_validation_set_chooses_and_teaches_nothing():
    """With other validation targets another of the same candidates is taken."""
    flat = np.full(20, TRAIN.targets.mean())
    found, _ = best_head("ridge", TRAIN.inputs, TRAIN.targets, VAL.inputs, flat)
    assert found[-1].alpha == 1e4  # the strongest penalty, whose predictions are flattest
    np.testing.assert_allclose(
        found.predict(VAL.inputs),
        Ridge(1e4)
        .fit(StandardScaler().fit_transform(TRAIN.inputs), TRAIN.targets)
        .predict(StandardScaler().fit(TRAIN.inputs).transform(VAL.inputs)),
    )
