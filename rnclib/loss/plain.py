"""The loss of each anchor by sorting whole rows: any option, any range, and derivatives of any order by autograd."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rnclib.loss.checks import square, widest
from rnclib.loss.labels import comparable, farthest_first

__all__ = ["anchor_losses", "counting", "normalised", "sums_by_blocks", "unit_vectors"]

BLOCK = 2**18  # entries of the matrix of similarities at a time
ANCHORS = 64  # but at least so many anchors


def anchor_losses(
    v: Tensor,
    y: Tensor,
    rows: Tensor,
    weights: Tensor | None,
    temperature: float | Tensor,
    options: Any,
) -> Tensor:
    """Mean over the others, weighted by `weights`, of each anchor's log D_ij - s_ij.

    `options` name label_diff, feature_sim and ties.
    """
    if len(v) == 1:
        return (v[rows] * 0).sum(dim=1).to(widest(v)) + temperature * 0
    labels, tolerance = comparable(y, options.label_diff, options.ties)
    order, last = farthest_first(labels, rows, options.label_diff, tolerance)
    s = (_similarities(v, rows, options.feature_sim) / temperature).gather(1, order)
    if weights is None:
        return (s.logcumsumexp(dim=1).gather(1, last) - s).mean(dim=1)
    w = weights.to(s.dtype)[order]
    log_D = (s + w.log()).logcumsumexp(dim=1).gather(1, last)
    return ((log_D - s) * w).sum(dim=1) / w.sum(dim=1)


def sums_by_blocks(v, y, weights, rows, temperature, options, need_grad):
    """Sum of the losses of the anchors `rows`, τ times its gradient by v, τ times that by τ; memory linear in M."""
    total, grad = v.new_zeros(()), torch.zeros_like(v)
    grad_temperature = v.new_zeros(())
    v = v.detach().requires_grad_(need_grad)
    t = v.new_tensor(temperature).requires_grad_(need_grad)
    for block in rows.split(max(BLOCK // len(v), ANCHORS)):
        with torch.set_grad_enabled(need_grad):
            losses = anchor_losses(v, y, block, weights, t, options)
            loss = (losses if weights is None else losses * weights[block]).sum()
        total += loss.detach()
        if need_grad:
            by_v, by_t = torch.autograd.grad(loss, (v, t))
            grad += by_v * t.detach()
            grad_temperature += by_t * t.detach()
    return total, grad, grad_temperature


def normalised(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Weights in units of their mean over those above 0, and that unit."""
    unit = weights.sum() / (weights > 0).sum()
    return weights / unit, unit


def counting(weights: Tensor, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The samples of a weight above 0, which of the anchors `rows` are among them, and where."""
    kept = (weights > 0).nonzero()[:, 0]
    place = torch.full_like(weights, -1, dtype=torch.int64)
    place[kept] = torch.arange(len(kept), device=weights.device)
    counted = (place[rows] >= 0).nonzero()[:, 0]
    return kept, counted, place[rows[counted]]


def _similarities(v, rows, feature_sim):
    if callable(feature_sim):
        s = square(feature_sim(v), len(v), "feature_sim")[rows]
        return s.to(widest(v))
    if feature_sim == "cosine":
        v = unit_vectors(v)
        return v[rows] @ v.T
    v = v.to(widest(v))
    if feature_sim == "l1":
        return -torch.cdist(v[rows], v, p=1)
    return -torch.cdist(v[rows], v, compute_mode="donot_use_mm_for_euclid_dist")


def unit_vectors(v: Tensor) -> Tensor:
    """The directions of v in the widest type; one shorter than 1e-12 has none and becomes 0."""
    v = v.to(widest(v))
    # The direction of v is that of v/u. With u a power of two this is exact, and no square can overflow.
    most = 1000 if v.dtype == torch.float64 else 120
    exponent = torch.frexp(v.detach().abs().amax(dim=1, keepdim=True)).exponent
    u = torch.exp2(exponent.clamp(-most, most).to(v.dtype))
    norm = torch.linalg.vector_norm(v / u, dim=1, keepdim=True)
    direction = v / u / norm.clamp_min(torch.finfo(v.dtype).tiny)
    return torch.where(norm * u <= 1e-12, 0, direction)  # NaN stays NaN
