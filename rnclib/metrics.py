"""Errors of a regression, and how well a representation is ordered by the target."""

from __future__ import annotations

import numpy as np
from scipy import stats
from scipy.spatial.distance import cdist

__all__ = ["rank_agreement", "regression_errors"]


def regression_errors(prediction: np.ndarray, target: np.ndarray) -> dict[str, float]:
    """Mean absolute error, root mean squared error and mean squared error.

    Parameters
    ----------
    prediction, target : array_like, shape (n,)
        In the same unit; n is at least 1.

    Returns
    -------
    dict
        ``'mae'`` and ``'rmse'`` in the unit of the target, ``'mse'`` in its square.

    Raises
    ------
    ValueError
        If the shapes differ, nothing is given, or a value is not finite.

    Examples
    --------
    >>> regression_errors([1.0, 2.0], [1.0, 4.0])
    {'mae': 1.0, 'rmse': 1.4142135623730951, 'mse': 2.0}
    """
    prediction, target = np.asarray(prediction, float), np.asarray(target, float)
    if prediction.shape != target.shape or prediction.ndim != 1 or not len(target):
        raise ValueError(
            f"prediction, target: got shapes {prediction.shape} and {target.shape}; allowed: the same (n,), n ≥ 1"
        )
    for name, values in (("prediction", prediction), ("target", target)):
        if not np.isfinite(values).all():
            raise ValueError(f"{name}: got NaN or infinite values; allowed: finite numbers")
    error = prediction - target
    mse = float(np.mean(error**2))
    return {"mae": float(np.mean(np.abs(error))), "rmse": mse**0.5, "mse": mse}


def rank_agreement(features: np.ndarray, target: np.ndarray) -> float:
    """Mean over anchors of Spearman's ρ between label distance and feature distance.

    1 means that seen from every sample the others are in the order of their labels, which is what
    Rank-N-Contrast asks for; 0 means no relation. Anchors from which all others are equally far, in
    labels or features, are left out.

    Parameters
    ----------
    features : array_like, shape (n, feat_dim)
    target : array_like, shape (n,)

    Returns
    -------
    float
        From −1 to 1; NaN if no anchor is left.

    Raises
    ------
    ValueError
        If the shapes do not fit or there are fewer than three samples.

    Examples
    --------
    >>> rank_agreement([[0.0], [1.0], [2.0], [4.0]], [10, 20, 30, 50])
    1.0
    """
    features, target = np.asarray(features, float), np.asarray(target, float)
    n = len(target)
    if features.ndim != 2 or target.shape != (len(features),) or n < 3:
        raise ValueError(
            f"features, target: got shapes {features.shape} and {target.shape}; allowed: (n, feat_dim) and (n,), n ≥ 3"
        )
    others = ~np.eye(n, dtype=bool)
    feature_distance = cdist(features, features)[others].reshape(n, n - 1)
    label_distance = np.abs(target[:, None] - target)[others].reshape(n, n - 1)
    feature_rank, label_rank = (
        stats.rankdata(distance, axis=1) - n / 2 for distance in (feature_distance, label_distance)
    )
    spread = np.sqrt((feature_rank**2).sum(1) * (label_rank**2).sum(1))
    told = spread > 0
    return float(np.mean((feature_rank * label_rank).sum(1)[told] / spread[told])) if told.any() else float("nan")
