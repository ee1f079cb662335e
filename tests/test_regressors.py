"""Baselines, and heads on features: which of several settings is taken, and with what error."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.preprocessing import StandardScaler
from worlds import table

from rnclib import recipe, regressors
from rnclib.regressors import best_regressor

TRAIN, VAL = table(60), table(20, seed=1)
CANDIDATES = {
    "ridge": [Ridge(alpha) for alpha in np.logspace(-3, 4, 15)],
    "neighbours": [KNeighborsRegressor(k, weights="distance") for k in (1, 3, 5, 10, 20)],
}


def test_every_baseline_of_a_recipe_can_be_fitted():
    assert tuple(regressors.BASELINES) == recipe.BASELINES


@pytest.mark.parametrize("head", recipe.HEADS)
def test_every_head_of_a_recipe_predicts_better_than_the_mean(head):
    found, error = best_regressor(head, TRAIN.inputs, TRAIN.targets, VAL.inputs, VAL.targets)
    assert error == pytest.approx(np.abs(found.predict(VAL.inputs) - VAL.targets).mean())
    assert error < 0.6 * np.abs(VAL.targets - TRAIN.targets.mean()).mean()


@pytest.mark.parametrize("head", CANDIDATES)
def test_the_setting_of_least_validation_error_is_taken(head):
    scaler = StandardScaler().fit(TRAIN.inputs)
    x, x_val = scaler.transform(TRAIN.inputs), scaler.transform(VAL.inputs)
    fits = [one.fit(x, TRAIN.targets) for one in CANDIDATES[head]]
    errors = [np.abs(one.predict(x_val) - VAL.targets).mean() for one in fits]
    found, error = best_regressor(head, TRAIN.inputs, TRAIN.targets, VAL.inputs, VAL.targets)
    assert error == pytest.approx(min(errors)) and min(errors) < max(errors)
    np.testing.assert_allclose(found.predict(VAL.inputs), fits[int(np.argmin(errors))].predict(x_val))


def test_the_validation_set_chooses_and_teaches_nothing():
    """With other validation targets another of the same candidates is taken."""
    flat = np.full(20, TRAIN.targets.mean())
    found, _ = best_regressor("ridge", TRAIN.inputs, TRAIN.targets, VAL.inputs, flat)
    assert found[-1].alpha == 1e4  # the strongest penalty, whose predictions are flattest
    np.testing.assert_allclose(
        found.predict(VAL.inputs),
        Ridge(1e4)
        .fit(StandardScaler().fit_transform(TRAIN.inputs), TRAIN.targets)
        .predict(StandardScaler().fit(TRAIN.inputs).transform(VAL.inputs)),
    )


PEERS = [name for name in recipe.PEERS if name != "catboost"]


@pytest.mark.parametrize("kind", PEERS)
def test_every_peer_of_a_recipe_predicts_better_than_the_mean(kind):
    found, error = best_regressor(kind, TRAIN.inputs, TRAIN.targets, VAL.inputs, VAL.targets, 3)
    assert error == pytest.approx(np.abs(found.predict(VAL.inputs) - VAL.targets).mean())
    assert error < 0.75 * np.abs(VAL.targets - TRAIN.targets.mean()).mean()


def test_models_that_scale_badly_learn_from_some_of_the_samples(monkeypatch):
    monkeypatch.setattr(regressors, "MOST", 20)
    used = np.sort(np.random.default_rng(3).choice(60, 20, replace=False))
    for kind in ("svr", "gaussian process"):
        found, _ = best_regressor(kind, TRAIN.inputs, TRAIN.targets, VAL.inputs, VAL.targets, 3)
        same, _ = best_regressor(kind, TRAIN.inputs[used], TRAIN.targets[used], VAL.inputs, VAL.targets, 3)
        np.testing.assert_array_equal(found.predict(VAL.inputs), same.predict(VAL.inputs))
    ridge, _ = best_regressor("ridge", TRAIN.inputs, TRAIN.targets, VAL.inputs, VAL.targets, 3)
    assert ridge[0].n_samples_seen_ == 60


def test_a_gaussian_process_has_the_length_and_noise_of_greatest_likelihood():
    """On data drawn from one, its predictions are as good as those of the process they were drawn from."""
    from sklearn.gaussian_process import GaussianProcessRegressor, kernels

    truth = kernels.Matern(1.5, nu=1.5) + kernels.WhiteKernel(0.01)
    x = np.random.default_rng(0).normal(size=(150, 2))
    y = GaussianProcessRegressor(truth).sample_y(x, random_state=1)[:, 0]
    found, error = best_regressor("gaussian process", x[:100], y[:100], x[100:], y[100:])
    known = GaussianProcessRegressor(truth, optimizer=None).fit(x[:100], y[:100])
    assert error < 1.1 * np.abs(known.predict(x[100:]) - y[100:]).mean()
    length, noise = found[-1].kernel_.get_params()["k1__k2__length_scale"], found[-1].kernel_.k2.noise_level
    assert 0.5 < length / 1.5 < 3 and 0.2 < noise * np.var(y[:100]) / 0.01 < 5


def test_what_a_missing_package_would_do_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "catboost", None)
    with pytest.raises(ModuleNotFoundError, match=r"^model: got 'catboost'; allowed: with the package, pip install"):
        best_regressor("catboost", TRAIN.inputs, TRAIN.targets, VAL.inputs, VAL.targets)
