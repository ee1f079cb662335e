"""What a fitted model is worth on the samples it is given: errors, order, loss gap, corrupted inputs, a view."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import nn

from rnclib import metrics
from rnclib.data import PARTS, Split, corruptions
from rnclib.data.images import Images
from rnclib.fitting import Fitted
from rnclib.loss import RnCLoss, rnc_lower_bound
from rnclib.recipe import Stage

__all__ = ["corrupted_errors", "errors", "loss_gap", "order", "rounded", "view"]


def rounded(value: float, digits: int = 7) -> float | None:
    """A number as records hold it: None where it is infinite or NaN.

    Parameters
    ----------
    value : float
    digits : int
        Significant ones.
    """
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None


def errors(prediction: np.ndarray, target: np.ndarray, scaler: tuple[float, float]) -> dict[str, dict[str, float]]:
    """Errors in standard deviations of the training targets (``'standardised'``), and in their unit (``'raw'``).

    Parameters
    ----------
    prediction, target : ndarray, shape (n,)
    scaler : tuple of float
        Mean and standard deviation of the training targets.
    """
    mean, std = scaler
    raw = metrics.regression_errors(prediction, target)
    if std == 0:  # training saw one target only
        return {"standardised": dict.fromkeys(raw, math.nan), "raw": raw}
    scaled = metrics.regression_errors((prediction - mean) / std, (target - mean) / std)
    return {"standardised": scaled, "raw": raw}


def order(features: np.ndarray, target: np.ndarray, nuisance: np.ndarray | None = None) -> dict[str, float]:
    """Rank agreement of feature distances with those of the target, and of a nuisance, if there is one.

    Parameters
    ----------
    features : ndarray, shape (n, feat_dim)
    target, nuisance : ndarray, shape (n,)
        With fewer than three samples nothing is said.
    """
    if len(target) < 3:
        return {}
    found = {"rank_agreement": metrics.rank_agreement(features, target)}
    if nuisance is not None:
        found["nuisance_agreement"] = metrics.rank_agreement(features, nuisance)
    return found


def loss_gap(stage: Stage, features: np.ndarray, labels: torch.Tensor) -> float:
    """How far a contrastive loss is from its lower bound, on features of one view; NaN for another loss.

    Parameters
    ----------
    stage : Stage
        That trained the encoder.
    features : ndarray, shape (n, feat_dim)
    labels : Tensor, shape (n,)
        As training saw them.
    """
    if stage.loss != "rnc":
        return math.nan
    assert stage.temperature is not None and stage.label_diff is not None and stage.feature_sim is not None
    embeddings = torch.from_numpy(features).float()
    if stage.unit_features:
        embeddings = nn.functional.normalize(embeddings, dim=1)
    criterion = RnCLoss(stage.temperature, stage.label_diff, stage.feature_sim, ties=stage.ties or "exact")
    bound = rnc_lower_bound(labels, label_diff=criterion.label_diff, ties=criterion.ties)
    return criterion(embeddings, labels).item() - bound


def corrupted_errors(
    fitted: Fitted, inputs: Any, target: np.ndarray, index: np.ndarray, seed: int
) -> dict[str, list[float | None]]:
    """Mean absolute error on corrupted inputs, by kind of corruption, from the lowest severity to the highest.

    Parameters
    ----------
    fitted : Fitted
    inputs : Graphs or Images
        Of the whole data set: molecules exchange features with others, in any set.
    target : ndarray, shape (n,)
        Of the samples `index`.
    index : ndarray of int
        Samples that are predicted.
    seed : int
        Of the corruptions.
    """

    def error(corrupted: Any) -> float | None:
        return rounded(float(np.abs(fitted.predict(corrupted) - target).mean()), 5)

    kinds = corruptions.MOLECULE_CORRUPTIONS
    if isinstance(inputs, Images):
        kinds, seen = corruptions.IMAGE_CORRUPTIONS, inputs.cropped(index).cpu().numpy()
    found: dict[str, list[float | None]] = {}
    for kind in kinds:
        found[kind] = []
        for severity in corruptions.SEVERITIES:
            if isinstance(inputs, Images):
                pixels = torch.from_numpy(corruptions.corrupt_images(seen, kind, severity, seed))
                found[kind].append(error(Images(pixels, inputs.size)))
            else:
                found[kind].append(error(corruptions.corrupt_graphs(inputs, kind, severity, seed).take(index)))
    return found


def view(features: np.ndarray, split: Split, targets: np.ndarray, nuisance: np.ndarray | None = None) -> str:
    """The features of every sample in two dimensions, as CSV.

    Parameters
    ----------
    features : ndarray, shape (n, feat_dim)
    split : Split
    targets, nuisance : ndarray, shape (n,)

    Returns
    -------
    str
        ``index``, ``part`` (the set), ``target``, the first two principal components ``pc1`` and ``pc2``, found on the
        training set, ``nearest`` (the training sample with the nearest features) and, where given, ``nuisance``.
    """
    from sklearn.decomposition import PCA
    from sklearn.neighbors import NearestNeighbors

    components = PCA(n_components=2, svd_solver="full").fit(features[split.train]).transform(features)
    components /= components[split.train, 0].std() or 1.0
    # the sign of a component means nothing: let the target grow to the right, the extreme point be on top
    if np.corrcoef(components[split.train, 0], targets[split.train])[0, 1] < 0:
        components[:, 0] *= -1
    if components[np.abs(components[:, 1]).argmax(), 1] < 0:
        components[:, 1] *= -1
    part = np.full(len(targets), None, dtype=object)
    for name in PARTS:
        part[getattr(split, name)] = name
    two = split.train[NearestNeighbors(n_neighbors=2).fit(features[split.train]).kneighbors(features)[1]]
    nearest = np.where(two[:, 0] == np.arange(len(targets)), two[:, 1], two[:, 0])  # other than itself
    columns = ["index", "part", "target", "pc1", "pc2", "nearest", *([] if nuisance is None else ["nuisance"])]
    suggested = np.full(len(targets), "") if nuisance is None else np.char.mod(",%.3f", nuisance)
    rows = [
        f"{i},{part[i]},{targets[i]:.3f},{x:.3f},{y:.3f},{nearest[i]}{suggested[i]}"
        for i, (x, y) in enumerate(components)
        if part[i] is not None
    ]
    return "\n".join([",".join(columns), *rows]) + "\n"
