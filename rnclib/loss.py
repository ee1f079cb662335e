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
    rows = torch.arange(len(v), device=v.device)
    dtype = torch.promote_types(features.dtype, torch.float32)
    if len(v) == 1:
        losses = (v * 0).sum(dim=1)
    elif reduction == "mean" and feature_sim in FEATURE_SIMS and label_diff in LABEL_DIFFS:
        with torch.autocast(v.device.type, enabled=False):
            v = v.to(dtype)
            if feature_sim == "cosine":
                v = _unit_vectors(v)
            need_grad = torch.is_grad_enabled() and v.requires_grad
            return _MeanLoss.apply(v, y, rows, temperature, label_diff, feature_sim, need_grad)
    else:
        with torch.autocast(v.device.type, enabled=False):
            losses = _anchor_losses(v, y, rows, temperature, label_diff, feature_sim)
    losses = losses.to(dtype)
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
        d = _label_distances(y, rows, label_diff)
        d[torch.arange(len(rows)), rows] = -1
        start, end = _runs(d.sort(dim=1, descending=True).values[:, :-1])
        total += float((end - start + 1).double().log().sum())
    return total / max(1, M * (M - 1))


def _anchor_losses(v, y, rows, temperature, label_diff, feature_sim):
    """Losses of the anchors `rows`, plainly: sort each row by label distance, cumulate, read ties at their end.

    Differentiable any number of times; O(len(rows)·M·log M) time and O(len(rows)·M) memory.
    """
    s = _similarities(v, rows, feature_sim) / temperature
    d = _label_distances(_comparable(y, label_diff), rows, label_diff)
    itself = rows[:, None] == torch.arange(len(v), device=v.device)
    d, order = d.masked_fill(itself, -1).sort(dim=1, descending=True)
    d, order = d[:, :-1], order[:, :-1]  # without the anchor itself, which came last
    s = s.gather(1, order)
    log_denominator = s.logcumsumexp(dim=1).gather(1, _runs(d)[1])
    return (log_denominator - s).mean(dim=1)


def _similarities(v, rows, feature_sim):
    if callable(feature_sim):
        return feature_sim(v)[rows].double()
    v = v.double()
    if feature_sim == "cosine":
        v = _unit_vectors(v)
        return v[rows] @ v.T
    if feature_sim == "l1":
        return -torch.cdist(v[rows], v, p=1)
    return -torch.cdist(v[rows], v, compute_mode="donot_use_mm_for_euclid_dist")


def _unit_vectors(v):
    norm = torch.linalg.vector_norm(v, dim=1, keepdim=True)
    return torch.where(norm > 1e-12, v / norm.clamp_min(1e-12), 0)


class _MeanLoss(torch.autograd.Function):
    """The mean loss with its gradient made on the way, so that nothing of size M × M outlives a block."""

    @staticmethod
    def forward(ctx, v, y, rows, temperature, label_diff, feature_sim, need_grad):
        loss, grad = _loss_and_gradient(v, y, rows, temperature, label_diff, feature_sim, need_grad)
        ctx.save_for_backward(grad)
        return loss.to(v.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad_output):
        (grad,) = ctx.saved_tensors
        return grad_output * grad, None, None, None, None, None, None


def _loss_and_gradient(v, y, rows, temperature, label_diff, feature_sim, need_grad):
    # The loss of (v, τ) is that of (v/u, τ/u); with u a power of two, this is exact and nothing overflows.
    y = _comparable(y, label_diff)
    largest = float(v.abs().max())
    if not math.isfinite(largest):  # seen with validate=False only: pass it on, as gradient scaling expects
        return torch.full((), torch.nan, device=v.device), torch.full_like(v, torch.nan)
    unit = 1.0 if feature_sim == "cosine" else 2.0 ** max(-120, math.frexp(largest)[1] - 1)
    x = v / unit
    result = None
    if feature_sim != "l1":
        exact_mm = torch.get_float32_matmul_precision() == "highest"
        for dtype, least in ((torch.float32, 128), (torch.float64, 1)):
            if (dtype == torch.float64 or (v.dtype == torch.float32 and exact_mm)) and len(v) >= least:
                z = x.to(dtype)
                if feature_sim == "l2":
                    z = z - z[:1]  # identical embeddings become exactly zero
                    z = z - z.mean(dim=0)
                result = _by_cumulative_sums(z, y, rows, temperature / unit, label_diff, feature_sim, need_grad)
            if result is not None:
                break
    if result is None:
        result = _by_logarithms(x.double(), y, rows, temperature / unit, label_diff, feature_sim, need_grad)
    loss, grad = result
    return loss, None if grad is None else (grad / unit).to(v.dtype)


def _by_logarithms(x, y, rows, temperature, label_diff, feature_sim, need_grad):
    """Block by block over the plain path: slower, at home with any range."""
    total, grad = x.new_zeros(()), torch.zeros_like(x)
    x = x.detach().requires_grad_(need_grad)
    for block in rows.split(max(1, BLOCK // len(x))):
        with torch.set_grad_enabled(need_grad):
            loss = _anchor_losses(x, y, block, temperature, label_diff, feature_sim).sum() / len(x)
        if need_grad:
            grad += torch.autograd.grad(loss, x)[0]
        total += loss.detach()
    return total, grad if need_grad else None


# Where float32 and float64 serve: reach is (largest distance to the mean)/τ, bounded for accuracy and so that
# exp(-2 reach) is far from underflow. Pairs closer than a share of the radius are recomputed from differences.
REACH = {torch.float32: 16.0, torch.float64: 300.0}
CLOSE = {torch.float32: (0.03, 6e-3), torch.float64: (3e-3, 2.5e-5)}
BLOCK = 2**22


def _by_cumulative_sums(x, y, rows, temperature, label_diff, feature_sim, need_grad):
    M, device = len(x), x.device
    euclidean = feature_sim == "l2"
    square = (x * x).sum(dim=1)
    radius = float(square.max().sqrt()) if euclidean else 1.0
    reach = radius / temperature
    if reach > REACH[x.dtype]:
        return None
    share, slope = CLOSE[x.dtype]
    close = max(share, slope * reach) * radius

    # Equal labels form groups; samples are put in the order of their groups.
    if y.shape[1] == 1:
        values, group, count = torch.unique(y[:, 0], return_inverse=True, return_counts=True)
        values = values[:, None]
    else:
        values, group, count = torch.unique(y, dim=0, return_inverse=True, return_counts=True)
    order = group.argsort(stable=True)
    group, x, square = group[order], x.index_select(0, order), square[order]
    rank = torch.empty_like(order)
    rank[order] = torch.arange(M, device=device)
    rows = rank[rows].sort().values
    blocks = rows.split(max(1, min(BLOCK // M, len(rows))))
    limits = torch.stack([group[b[[0, -1]]] for b in blocks]).tolist()
    U = len(values)

    one = torch.ones((), dtype=x.dtype, device=device)
    total = torch.zeros((), dtype=torch.float64, device=device)
    grad = torch.zeros_like(x)
    for block, (first, last) in zip(blocks, limits, strict=True):
        whole = len(block) == M
        xb = x if whole else x.index_select(0, block)
        itself = block, torch.arange(len(block), device=device)
        # distance[k, i] of sample k to anchor i, and e = exp(s_ik) up to a constant factor
        if euclidean:
            distance = torch.addmm(square[:, None] + square[block], x, xb.T, alpha=-2)
            distance[itself] = torch.inf
            pairs = (distance < close * close).nonzero()
            if len(pairs) > distance.numel() // 64 and x.dtype == torch.float32:
                return None
            distance[itself] = 0
            distance = distance.clamp_(min=torch.finfo(x.dtype).tiny).sqrt_()
            pairs = [p.unbind(1) for p in pairs.split(max(1, BLOCK // x.shape[1]))]
            for k, i in pairs:
                distance[k, i] = torch.linalg.vector_norm(x[k] - xb[i], dim=1)
        else:
            distance = 1 - x @ xb.T
            distance[itself] = 0
        e = (distance * (-1 / temperature)).exp_()
        e[itself] = 0

        # Label geometry of the anchors' groups: nearest group first, and the runs of equal distances.
        anchor_groups = torch.arange(first, last + 1, device=device)
        d = _label_distances(values, anchor_groups, label_diff)
        near = _argsort(d)
        start, end = _runs(d.gather(1, near))
        n = count[near] - (near == anchor_groups[:, None]).to(count.dtype)
        position = torch.empty_like(near).scatter_(1, near, end)
        a = group[block] - first

        by_group = torch.zeros(U, len(block), dtype=x.dtype, device=device).index_add_(0, group, e).T
        D = by_group.gather(1, near.flip(1).index_select(0, a)).cumsum(1)
        D = D.gather(1, (U - 1 - start).index_select(0, a))
        n = n.to(x.dtype).index_select(0, a)
        total += (n * D.log()).sum(1).sum(dtype=torch.float64)
        total += distance.sum(1).sum(dtype=torch.float64) / temperature
        if not need_grad:
            continue
        W = (n / D).cumsum(1).gather(1, position.index_select(0, a)).T.contiguous()
        coefficient = torch.addcmul(one, e, W.index_select(0, group), value=-1)
        coefficient[itself] = 0
        if euclidean:
            coefficient /= distance
            for k, i in pairs:
                pull = coefficient[k, i][:, None] * (x[k] - xb[i])
                pull = torch.where(distance[k, i][:, None] > 0, pull, 0)
                coefficient[k, i] = 0
                grad.index_add_(0, k, pull)
                grad.index_add_(0, block[i], pull, alpha=-1)
        if whole:  # x and xb are the same: one product with the symmetric part will do
            coefficient = coefficient + coefficient.T
            if euclidean:
                grad += coefficient.sum(1)[:, None] * x
            grad -= coefficient @ x
        else:
            if euclidean:
                grad += coefficient.sum(1)[:, None] * x
                grad.index_add_(0, block, coefficient.sum(0)[:, None] * xb)
            grad -= coefficient @ xb
            grad.index_add_(0, block, coefficient.T @ x, alpha=-1)
    grad = grad[rank] / (temperature * M * (M - 1)) if need_grad else None
    return total / (M * (M - 1)), grad


def _argsort(d):
    if d.device.type == "cpu":
        return torch.from_numpy(d.numpy().argsort(axis=1, kind="stable"))
    return d.argsort(dim=1, stable=True)


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


def _label_distances(y, rows, label_diff):
    """Distances from the labels `rows` to all, added up over label_dim from the left, as a literal loop does."""
    if callable(label_diff):
        return label_diff(y)[rows]
    total = None
    for column in y.T:
        term = (column[rows, None] - column).abs()
        term = term * term if label_diff == "l2" and y.shape[1] > 1 else term
        total = term if total is None else total + term
    return total.sqrt() if label_diff == "l2" and y.shape[1] > 1 else total


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
