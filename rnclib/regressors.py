"""Regressors that are no networks of ours: baselines, and heads on the features of a network."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rnclib.data.molecules import descriptors

__all__ = ["BASELINES", "Baseline", "best_head"]


@dataclass
class Baseline:
    """A model without features or stages."""

    predict_with: Callable[[Any], np.ndarray]
    stages: list[Any] = field(default_factory=list)

    def predict(self, inputs: Any) -> np.ndarray:
        return self.predict_with(inputs)

    def features(self, inputs: Any) -> None:
        return None


def _training_mean(inputs: Any, targets: np.ndarray, seed: int) -> Baseline:
    mean = targets.mean()
    return Baseline(lambda inputs: np.full(len(inputs), mean))


def _published_equation(inputs: Any, targets: np.ndarray, seed: int) -> Baseline:
    """Delaney's own predictions, which come with the data."""

    def look_up(inputs: Any) -> np.ndarray:
        if inputs.published is None:
            raise ValueError('model: got "Delaney\'s equation" with data that bring no prediction; allowed: ESOL')
        return inputs.published

    look_up(inputs)
    return Baseline(look_up)


def _extra_trees(inputs: Any, targets: np.ndarray, seed: int) -> Baseline:
    from sklearn.ensemble import ExtraTreesRegressor
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(
        SimpleImputer(strategy="median", keep_empty_features=True),
        ExtraTreesRegressor(n_estimators=500, random_state=seed, n_jobs=1),
    )
    model.fit(descriptors(inputs.smiles), targets)
    return Baseline(lambda inputs: model.predict(descriptors(inputs.smiles)))


#: By name of the model: what fits it to inputs and targets, with a seed.
BASELINES: dict[str, Callable[[Any, np.ndarray, int], Baseline]] = {
    "training mean": _training_mean,
    "Delaney's equation": _published_equation,
    "extra trees": _extra_trees,
}


def best_head(head: str, x: np.ndarray, y: np.ndarray, x_val: np.ndarray, y_val: np.ndarray) -> tuple[Any, float]:
    """The regressor on features that has the lowest mean absolute error on the validation set, and that error.

    Parameters
    ----------
    head : {'ridge', 'neighbours', 'gaussian process'}
        Each with a few settings to choose from.
    x, x_val : ndarray, shape (n, feat_dim)
    y, y_val : ndarray, shape (n,)

    Returns
    -------
    regressor : sklearn.pipeline.Pipeline
        A scaler, and the regressor.
    error : float
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor, kernels
    from sklearn.linear_model import Ridge
    from sklearn.neighbors import KNeighborsRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def process(noise: float) -> GaussianProcessRegressor:
        kernel = kernels.ConstantKernel() * kernels.Matern(np.sqrt(x.shape[1]), nu=1.5)
        return GaussianProcessRegressor(kernel, alpha=noise, normalize_y=True, random_state=0)

    candidates: list[Any] = {
        "ridge": [Ridge(alpha) for alpha in np.logspace(-3, 4, 15)],
        "neighbours": [KNeighborsRegressor(min(k, len(x)), weights="distance") for k in (1, 3, 5, 10, 20)],
        "gaussian process": [process(noise) for noise in (0.001, 0.01, 0.1)],
    }[head]
    with warnings.catch_warnings():  # a length at the bound of its search is for the validation set to judge
        warnings.simplefilter("ignore", ConvergenceWarning)
        fits = [make_pipeline(StandardScaler(), candidate).fit(x, y) for candidate in candidates]
    errors = [float(np.abs(one.predict(x_val) - y_val).mean()) for one in fits]
    best = int(np.argmin(errors))
    return fits[best], errors[best]
