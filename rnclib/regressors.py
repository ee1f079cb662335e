"""Regressors that are no networks of ours: baselines, and heads on the features of a network."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rnclib.data.molecules import descriptors

__all__ = ["BASELINES", "Baseline", "best_regressor"]


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


def best_regressor(
    kind: str, x: np.ndarray, y: np.ndarray, x_val: np.ndarray, y_val: np.ndarray, seed: int = 0
) -> tuple[Any, float]:
    """The regressor that has the lowest mean absolute error on the validation set, and that error.

    Parameters
    ----------
    kind : str
        A key of `rnclib.recipe.PEERS` or `rnclib.recipe.HEADS`: a model with a few settings to choose from. A Gaussian
        process and support vectors learn from `MOST` samples at most.
    x, x_val : ndarray, shape (n, n_features)
    y, y_val : ndarray, shape (n,)
    seed : int
        Of what is random.

    Returns
    -------
    regressor : sklearn.pipeline.Pipeline
        A scaler, and the regressor.
    error : float
    """
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if kind in _SLOW and len(x) > MOST:
        chosen = np.sort(np.random.default_rng(seed).choice(len(x), MOST, replace=False))
        x, y = x[chosen], y[chosen]
    fits = [make_pipeline(StandardScaler(), one).fit(x, y) for one in _CANDIDATES[kind](x, y, seed)]
    errors = [float(np.abs(one.predict(x_val) - y_val).mean()) for one in fits]
    best = int(np.argmin(errors))
    return fits[best], errors[best]


MOST = 4000  # samples that a model learns from whose cost grows faster than their number
_SLOW = ("gaussian process", "svr")


def _ridges(x: np.ndarray, y: np.ndarray, seed: int) -> list[Any]:
    from sklearn.linear_model import Ridge

    return [Ridge(alpha) for alpha in np.logspace(-3, 4, 15)]


def _neighbours(x: np.ndarray, y: np.ndarray, seed: int) -> list[Any]:
    from sklearn.neighbors import KNeighborsRegressor

    return [KNeighborsRegressor(min(k, len(x)), weights="distance") for k in (1, 3, 5, 10, 20)]


def _gaussian_processes(x: np.ndarray, y: np.ndarray, seed: int) -> list[Any]:
    """One: length, variance and noise are those of greatest likelihood."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor, kernels
    from sklearn.preprocessing import StandardScaler

    kernel = kernels.ConstantKernel() * kernels.Matern(np.sqrt(x.shape[1]), (1e-2, 1e4), nu=1.5)
    kernel += kernels.WhiteKernel(0.1, (1e-4, 10))
    some = np.random.default_rng(seed).permutation(len(x))[:_FOR_LENGTHS]
    found = GaussianProcessRegressor(kernel, normalize_y=True)
    with warnings.catch_warnings():  # at the bound of the search
        warnings.simplefilter("ignore", ConvergenceWarning)
        found.fit(StandardScaler().fit(x).transform(x[some]), y[some])
    return [GaussianProcessRegressor(found.kernel_, normalize_y=True, optimizer=None)]


_FOR_LENGTHS = 1000  # samples on which the likelihood is maximised


def _support_vectors(x: np.ndarray, y: np.ndarray, seed: int) -> list[Any]:
    from sklearn.compose import TransformedTargetRegressor
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVR

    width = 1 / x.shape[1]
    return [
        TransformedTargetRegressor(SVR(C=c, gamma=gamma * width, epsilon=0.05), transformer=StandardScaler())
        for c in (1, 10, 100)
        for gamma in (0.1, 0.3, 1)
    ]


def _boosted_trees(x: np.ndarray, y: np.ndarray, seed: int) -> list[Any]:
    from sklearn.ensemble import HistGradientBoostingRegressor

    return [
        HistGradientBoostingRegressor(
            learning_rate=rate, max_iter=n, max_leaf_nodes=leaves, min_samples_leaf=5, random_state=seed
        )
        for rate, n in ((0.1, 200), (0.03, 700))
        for leaves in (8, 31)
    ]


def _extra_tree_ensembles(x: np.ndarray, y: np.ndarray, seed: int) -> list[Any]:
    from sklearn.ensemble import ExtraTreesRegressor

    return [
        ExtraTreesRegressor(300, max_features=1 / 3, min_samples_leaf=least, random_state=seed, n_jobs=1)
        for least in (1, 3)
    ]


def _catboost(x: np.ndarray, y: np.ndarray, seed: int) -> list[Any]:
    try:
        from catboost import CatBoostRegressor
    except ImportError:
        raise ModuleNotFoundError("model: got 'catboost'; allowed: with the package, pip install '.[peers]'") from None
    return [CatBoostRegressor(random_seed=seed, thread_count=1, verbose=False, allow_writing_files=False)]


_CANDIDATES: dict[str, Callable[[np.ndarray, np.ndarray, int], list[Any]]] = {
    "ridge": _ridges,
    "neighbours": _neighbours,
    "gaussian process": _gaussian_processes,
    "svr": _support_vectors,
    "boosting": _boosted_trees,
    "trees": _extra_tree_ensembles,
    "catboost": _catboost,
}
