"""The Rank-N-Contrast loss, exact and finite for every finite batch.

``rnc_loss`` is the function, ``RnCLoss`` the module around it, ``rnc_lower_bound`` the least value the
loss can approach for given labels.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["RnCLoss", "rnc_loss", "rnc_lower_bound"]

LABEL_DIFFS = ("l1", "l2")
FEATURE_SIMS = ("l2", "cosine", "l1")
REDUCTIONS = ("mean", "none")

Matrix = Callable[[Tensor], Tensor]


def rnc_loss(
    features: Tensor,
    labels: Tensor,
    *,
    temperature: float = 2.0,
    label_diff: str | Matrix = "l1",
    feature_sim: str | Matrix = "l2",
    reduction: str = "mean",
    gather: bool = False,
    validate: bool = True,
) -> Tensor:
    """Rank-N-Contrast loss of a batch."""
    _check_options(temperature, label_diff, feature_sim, reduction)
    _check_shapes(features, labels)
    if validate:
        _check_values(features, labels)
    if gather:
        raise NotImplementedError
    n_views = features.shape[1] if features.ndim == 3 else 1
    v = features.reshape(-1, features.shape[-1])
    y = labels.detach().reshape(labels.shape[0], -1).repeat_interleave(n_views, dim=0)
    with torch.autocast(features.device.type, enabled=False):
        losses = _reference(v, y, temperature, label_diff, feature_sim)
    losses = losses.to(torch.promote_types(features.dtype, torch.float32))
    return losses.mean() if reduction == "mean" else losses.reshape(features.shape[:-1])


class RnCLoss(nn.Module):
    """Rank-N-Contrast loss as a module; see `rnc_loss`."""

    def __init__(
        self,
        temperature: float = 2,
        label_diff: str | Matrix = "l1",
        feature_sim: str | Matrix = "l2",
        *,
        reduction: str = "mean",
        gather: bool = False,
        validate: bool = True,
    ) -> None:
        super().__init__()
        _check_options(temperature, label_diff, feature_sim, reduction)
        self.temperature = temperature
        self.label_diff = label_diff
        self.feature_sim = feature_sim
        self.reduction = reduction
        self.gather = gather
        self.validate = validate

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        return rnc_loss(
            features,
            labels,
            temperature=self.temperature,
            label_diff=self.label_diff,
            feature_sim=self.feature_sim,
            reduction=self.reduction,
            gather=self.gather,
            validate=self.validate,
        )

    def extra_repr(self) -> str:
        return f"temperature={self.temperature}, label_diff={self.label_diff!r}, feature_sim={self.feature_sim!r}"


def rnc_lower_bound(labels: Tensor, *, label_diff: str | Matrix = "l1", n_views: int = 1) -> float:
    """Greatest lower bound L* of the loss over all embeddings."""
    y = _comparable(labels.detach().reshape(labels.shape[0], -1).repeat_interleave(n_views, dim=0), label_diff)
    M = len(y)
    total = 0.0
    for rows in torch.arange(M).split(max(1, 2**20 // M)):
        d = label_diff(y)[rows] if callable(label_diff) else _label_distances(y[rows], y, label_diff)
        d[torch.arange(len(rows)), rows] = -1
        start, end = _runs(d.sort(dim=1, descending=True).values[:, :-1])
        total += float((end - start + 1).double().log().sum())
    return total / max(1, M * (M - 1))


def _reference(v, y, temperature, label_diff, feature_sim):
    """Per-anchor losses, written to be obviously right: sort each row, cumulate, read at the end of ties."""
    M = len(v)
    if M == 1:
        return v.double().sum(dim=1) * 0
    s = _similarities(v, feature_sim) / temperature
    d = label_diff(y) if callable(label_diff) else _label_distances(*2 * (_comparable(y, label_diff),), label_diff)
    d = d.clone()
    d.fill_diagonal_(-1)  # the anchor itself comes last, and is cut off
    d, order = d.sort(dim=1, descending=True)
    d, order = d[:, :-1], order[:, :-1]
    s = s.gather(1, order)
    log_denominator = s.logcumsumexp(dim=1).gather(1, _runs(d)[1])
    return (log_denominator - s).mean(dim=1)


def _similarities(v, feature_sim):
    if callable(feature_sim):
        return feature_sim(v).double()
    v = v.double()
    if feature_sim == "cosine":
        norm = torch.linalg.vector_norm(v, dim=1, keepdim=True)
        v = torch.where(norm > 1e-12, v / norm.clamp_min(1e-12), 0)
        return v @ v.T
    if feature_sim == "l1":
        return -torch.cdist(v, v, p=1)
    return -torch.cdist(v, v, compute_mode="donot_use_mm_for_euclid_dist")


def _comparable(y, label_diff):
    """Labels in a type in which their differences are exact or at least float64's."""
    if callable(label_diff):
        return y
    if y.dtype == torch.int64 and y.numel():
        low, high = int(y.min()), int(y.max())
        reach = (high - low) * y.shape[1]
        if reach < 2**53:
            return (y - low).double()
        if reach < 2**63 and label_diff == "l1":
            return y - low
    return y.double()


def _label_distances(a, b, label_diff):
    """Distances between label rows, added up over label_dim from the left, as a literal loop does."""
    total = None
    for p, q in zip(a.T, b.T, strict=True):
        term = (p[:, None] - q[None, :]).abs()
        term = term * term if label_diff == "l2" and a.shape[1] > 1 else term
        total = term if total is None else total + term
    return total.sqrt() if label_diff == "l2" and a.shape[1] > 1 else total


def _runs(sorted_rows):
    """First and last position of the run of equal values that each entry of a sorted row belongs to."""
    n = sorted_rows.shape[1]
    position = torch.arange(n, device=sorted_rows.device).expand_as(sorted_rows)
    step = sorted_rows[:, 1:] != sorted_rows[:, :-1]
    edge = torch.ones_like(sorted_rows[:, :1], dtype=torch.bool)
    start = torch.where(torch.cat([edge, step], 1), position, 0).cummax(dim=1).values
    end = torch.where(torch.cat([step, edge], 1), position, n).flip(1).cummin(dim=1).values.flip(1)
    return start, end


def _check_options(temperature, label_diff, feature_sim, reduction):
    if (
        isinstance(temperature, bool)
        or not isinstance(temperature, numbers.Real)
        or not (0 < temperature < math.inf)
    ):
        raise ValueError(f"temperature must be a positive finite number, got {temperature!r}")
    for name, value, allowed in (
        ("label_diff", label_diff, LABEL_DIFFS),
        ("feature_sim", feature_sim, FEATURE_SIMS),
    ):
        if not callable(value) and value not in allowed:
            raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))} or a callable, got {value!r}")
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {', '.join(map(repr, REDUCTIONS))}, got {reduction!r}")


def _check_shapes(features, labels):
    for name, value in (("features", features), ("labels", labels)):
        if not isinstance(value, Tensor):
            raise ValueError(f"{name} must be a torch.Tensor, got {type(value).__name__}")
    if features.ndim not in (2, 3) or 0 in features.shape or not features.is_floating_point():
        raise ValueError(
            "features must be a floating-point tensor of shape (bs, n_views, feat_dim) or (n, feat_dim), "
            f"none of them zero, got {features.dtype} of shape {tuple(features.shape)}"
        )
    if labels.ndim not in (1, 2) or 0 in labels.shape or labels.is_complex():
        raise ValueError(
            "labels must be a real tensor of shape (bs,) or (bs, label_dim), none of them zero, "
            f"got {labels.dtype} of shape {tuple(labels.shape)}"
        )
    if labels.shape[0] != features.shape[0]:
        raise ValueError(
            f"labels must have one row per row of features ({features.shape[0]}; views of a sample share its "
            f"label), got shape {tuple(labels.shape)}"
        )


def _check_values(features, labels):
    for name, value in (("features", features), ("labels", labels)):
        if not torch.isfinite(value).all():
            bad = int((~torch.isfinite(value)).sum())
            raise ValueError(f"{name} must be finite, got {bad} NaN or infinite of {value.numel()} values")
