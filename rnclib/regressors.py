"""Regressors that are no networks of ours: baselines, and heads on the features of a network."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rnclib.data.molecules import descriptors

__all__ = ["BASELINES", "Baseline", "best_regressor", "chosen_settings", "refitted"]


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
    kind: str,
    x: np.ndarray,
    y: np.ndarray,
    x_val: np.ndarray,
    y_val: np.ndarray,
    seed: int = 0,
    weights: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[Any, float]:
    """The regressor that has the lowest mean absolute error on the validation set, and that error.

    Parameters
    ----------
    kind : str
        A key of `rnclib.recipe.PEERS` or `rnclib.recipe.HEADS`: a model with a few settings to choose from. A Gaussian
        process and support vectors learn from `MOST` samples at most.
    x, x_val : ndarray, shape (n, n_features)
    y, y_val : ndarray, shape (n,); or (n, n_targets), for heads
    seed : int
        Of what is random.
    weights : tuple of ndarray, optional
        How much each sample of the training and of the validation set counts; for ridge regression alone.

    Returns
    -------
    regressor : sklearn.pipeline.Pipeline
        A scaler, and the regressor.
    error : float
    """
    from sklearn import config_context
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if kind in _SLOW:
        x, y = _at_most(x, y, seed)
    models = [make_pipeline(StandardScaler(), one) for one in _CANDIDATES[kind](x, y, seed)]
    given = {} if weights is None else {f"{models[0].steps[-1][0]}__sample_weight": weights[0]}
    with config_context(enable_metadata_routing=False):  # which the weights of a pipeline would have to ask for
        fits = [model.fit(x, y, **given) for model in models]
    off = [np.abs(one.predict(x_val) - y_val).reshape(len(y_val), -1).mean(axis=1) for one in fits]
    errors = [float(np.average(one, weights=None if weights is None else weights[1])) for one in off]
    best = int(np.argmin(errors))
    return fits[best], errors[best]


def _at_most(x: np.ndarray, y: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """All samples, or `MOST` of them."""
    if len(x) <= MOST:
        return x, y
    chosen = np.sort(np.random.default_rng(seed).choice(len(x), MOST, replace=False))
    return x[chosen], y[chosen]


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
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.preprocessing import StandardScaler

    kernel = _kernel(x.shape[1])
    some = np.random.default_rng(seed).permutation(len(x))[:_FOR_LENGTHS]
    found = GaussianProcessRegressor(kernel, normalize_y=True)
    with warnings.catch_warnings():  # at the bound of the search
        warnings.simplefilter("ignore", ConvergenceWarning)
        found.fit(StandardScaler().fit(x).transform(x[some]), y[some])
    return [GaussianProcessRegressor(found.kernel_, normalize_y=True, optimizer=None)]


def _kernel(n_features: int) -> Any:
    from sklearn.gaussian_process import kernels

    kernel = kernels.ConstantKernel() * kernels.Matern(np.sqrt(n_features), (1e-2, 1e4), nu=1.5)
    return kernel + kernels.WhiteKernel(0.1, (1e-4, 10))


def chosen_settings(regressor: Any) -> dict[str, Any]:
    """What `refitted` needs to know of a head from `best_regressor`.

    Parameters
    ----------
    regressor : Pipeline
        Nearest neighbours or a Gaussian process.
    """
    model = regressor[-1]
    if hasattr(model, "n_neighbors"):
        return {"n_neighbors": model.n_neighbors}
    return {"theta": model.kernel_.theta.tolist()}


def refitted(settings: dict[str, Any], x: np.ndarray, y: np.ndarray) -> Any:
    """A head with settings that were chosen before, fitted to the features and targets that it was fitted to then.

    Parameters
    ----------
    settings : dict
        From `chosen_settings`.
    x : ndarray, shape (n, n_features)
    y : ndarray, shape (n,) or (n, n_targets)
    """
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.neighbors import KNeighborsRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if "n_neighbors" in settings:
        model: Any = KNeighborsRegressor(settings["n_neighbors"], weights="distance")
    else:
        x, y = _at_most(x, y, 0)
        kernel = _kernel(x.shape[1]).clone_with_theta(np.asarray(settings["theta"]))
        model = GaussianProcessRegressor(kernel, normalize_y=True, optimizer=None)
    return make_pipeline(StandardScaler(), model).fit(x, y)


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
