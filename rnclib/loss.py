r"""The Rank-N-Contrast loss: exact, finite for every finite batch, at one to two times the cost of SupCon.

For embeddings :math:`v_1 … v_M` with labels :math:`y_i`, similarities
:math:`s_{ij} = -\lVert v_i - v_j\rVert_2 / τ` and label distances :math:`d_{ij} = \lVert y_i - y_j\rVert_1`,
the loss of Zha et al. (2023) is

.. math::

    L = \frac{1}{M(M-1)} \sum_i \sum_{j≠i} \bigl(\log D_{ij} - s_{ij}\bigr), \qquad
    D_{ij} = \sum_{k≠i,\; d_{ik} ≥ d_{ij}} e^{s_{ik}} .

**Cumulative sums.** Fix an anchor i and order the others by label distance, farthest first. Then
:math:`D_{ij}` is the running sum of :math:`e^{s_{ik}}` up to j: one sort and one cumulative sum give all
denominators of the anchor, where the definition asks for M − 1 sums of up to M − 1 terms.

**Ties.** The condition is "greater *or equal*", so the running sum is read at the end of the run of equal
distances. Distances are computed in float64 (or exactly, in int64) and then compared; looking up :math:`y_i ± d`
among the labels would miss ties by rounding. Samples of equal label are equally far from every anchor and form one
group: sums run over U groups instead of M samples, and the anchors of a group share one sort.

**Gradient.** :math:`e^{s_{ik}}` is a term of :math:`D_{ij}` for all j that are as near or nearer than k, so

.. math::

    \frac{∂L}{∂s_{ik}} = \frac{1}{M(M-1)} \bigl( e^{s_{ik}} W_{ik} - 1 \bigr), \qquad
    W_{ik} = \sum_{j≠i,\; d_{ij} ≤ d_{ik}} \frac{1}{D_{ij}} ,

another running sum, from the nearest outwards. The chain rule through the distances is a matrix product. So loss and
gradient come from one pass over blocks of anchors, in O(M² feat_dim) time and memory linear in M; the backward
pass only scales the stored gradient.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable

import torch
import torch.distributed
from torch import Tensor, nn

__all__ = ["RnCLoss", "rnc_loss", "rnc_lower_bound"]

LABEL_DIFFS = ("l1", "l2")
FEATURE_SIMS = ("l2", "cosine", "l1")
REDUCTIONS = ("mean", "none")

# Anchors are taken in blocks.
BLOCK = 2**18  # entries of the M × M matrix in a block: they fit the cache
ANCHORS = 64  # but at least so many anchors, since thin matrix products are slow
TABLE = 2**20  # and fewer again where a table of ANCHORS × U groups would be larger than this

# `reach` is the radius of the batch over τ, so |s_ij| ≤ 2 reach. Up to REACH, exp(s) keeps its accuracy and range.
# CLOSE holds (share, slope): pairs closer than max(share, slope × reach) × radius are subtracted directly, because
# |a|² + |b|² − 2ab has lost too many digits there.
FLOAT32_FROM = 128  # smaller batches cost next to nothing in float64
REACH = {torch.float32: 16.0, torch.float64: 300.0}
CLOSE = {torch.float32: (0.05, 6e-3), torch.float64: (3e-3, 2.5e-5)}

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
    r"""Rank-N-Contrast loss of a batch.

    For each anchor i and each other sample j, it asks that j be more similar to i than every sample k
    whose label is as far from i's label as j's, or farther.

    Parameters
    ----------
    features : Tensor
        Embeddings v, shape (n, n_views, feat_dim), with any number of views of each sample, or
        (n, feat_dim) for one view. Every view is an embedding of its own: M = n · n_views. Any floating type; half
        precision is computed in float32 or better.
    labels : Tensor
        Targets y, shape (n,) or (n, label_dim): one row a sample, which its views share. Integer or float.
    temperature : float
        τ > 0.
    label_diff : {'l1', 'l2'} or callable
        Distance of two labels. A callable takes labels (M, label_dim) and returns distances (M, M).
    feature_sim : {'l2', 'cosine', 'l1'} or callable
        Similarity of two embeddings before the division by τ: negative distance, or cosine. A callable takes
        embeddings (M, feat_dim) and returns similarities (M, M).
    reduction : {'mean', 'none'}
        'none' gives each anchor's mean over its pairs, shape (n, n_views) or (n,); their mean is the loss.
    gather : bool
        Take the samples of all processes of `torch.distributed` as one batch. Every process returns the loss of
        the whole batch (with reduction='none', its own anchors'), and averaging parameter gradients over the
        processes, as DistributedDataParallel does, gives exactly the gradient of that loss. Local batches may differ
        in size. Without a process group this changes nothing.
    validate : bool
        Refuse NaN and infinite values. With False they make the loss and all of its gradient NaN, as gradient scaling
        expects.

    Returns
    -------
    Tensor
        The loss, 0-dimensional, float32 or float64. It is 0 for a single embedding.

    Raises
    ------
    ValueError
        For wrong shapes or types, NaN or infinite values, or an unknown option.

    Notes
    -----
    The named options with reduction='mean' take the fast path (see the module's docstring): memory linear in M, no
    second derivatives. Callables and reduction='none' take the plain path, which sorts M × M matrices
    and can be differentiated twice. feature_sim='l1' is the plain path in blocks.

    The loss is exact to 1e-10 for float64 features; for float32 to 1e-5·max(1, L), its gradient to 1e-4 of the
    largest entry. Where float32 cannot hold that, as with embeddings many τ apart, float64 is used inside, and
    logarithms where its exp leaves its range. Only distances beyond 1e10 τ reach the limits of float64 itself.
    Two equal embeddings exert no force on each other, and an embedding of length below 1e-12 has cosine 0 to all
    others.

    Examples
    --------
    >>> features = torch.tensor([[0.0], [1.0], [2.0], [4.0]])
    >>> labels = torch.tensor([20, 30, 40, 60])
    >>> round(rnc_loss(features, labels).item(), 4)
    0.498
    """
    _check_options(temperature, label_diff, feature_sim, reduction)
    _check_shapes(features, labels)
    if validate:
        _check_values(features, labels)
    n_views = features.shape[1] if features.ndim == 3 else 1
    dtype = torch.promote_types(features.dtype, torch.float32)
    v = features.reshape(-1, features.shape[-1]).to(dtype)
    y = labels.detach().reshape(len(labels), -1).repeat_interleave(n_views, dim=0)
    rows = torch.arange(len(v), device=v.device)
    shared = gather and torch.distributed.is_available() and torch.distributed.is_initialized()
    if shared:
        v, y, rows = _gather_batch(v, y)

    fast = reduction == "mean" and not callable(label_diff) and not callable(feature_sim)
    with torch.autocast(v.device.type, enabled=False):
        if not (validate or (torch.isfinite(v).all() and torch.isfinite(y).all())):
            losses = (v[rows] * torch.nan).sum(dim=1)  # its gradient is NaN too, so that a gradient scaler sees it
        elif len(v) == 1:
            losses = (v * 0).sum(dim=1)
        elif fast:
            v = _unit_vectors(v) if feature_sim == "cosine" else v
            need_grad = torch.is_grad_enabled() and v.requires_grad
            loss = _MeanLoss.apply(v, y, rows, float(temperature), label_diff, feature_sim, need_grad)
            losses = loss[None] * (len(v) / len(rows))
        else:
            losses = _anchor_losses(v, y, rows, float(temperature), label_diff, feature_sim).to(dtype)
    if reduction == "none":
        return losses.reshape(features.shape[:-1])
    if not shared:
        return losses.mean()
    # The own anchors' part of the loss; every process adds up the parts of all.
    return _AllGather.apply(losses.mean()[None] * (len(rows) / len(v)), [1] * torch.distributed.get_world_size()).sum()


class RnCLoss(nn.Module):
    """Rank-N-Contrast loss as a module, called as the official class is.

    Parameters
    ----------
    temperature, label_diff, feature_sim, reduction, gather, validate
        As in `rnc_loss`.

    Examples
    --------
    >>> criterion = RnCLoss(temperature=2, label_diff='l1', feature_sim='l2')
    >>> features = torch.zeros(8, 2, 16, requires_grad=True)  # two views of 8 samples
    >>> labels = torch.arange(8.0)[:, None]
    >>> loss = criterion(features, labels)
    >>> loss.backward()
    """

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
        """Loss of features (n, n_views, feat_dim) or (n, feat_dim) with labels (n,) or (n, label_dim)."""
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
        """Options shown by ``print(criterion)``."""
        names = ("temperature", "label_diff", "feature_sim", "reduction", "gather", "validate")
        return ", ".join(f"{name}={getattr(self, name)!r}" for name in names)


def rnc_lower_bound(labels: Tensor, *, label_diff: str | Matrix = "l1", n_views: int = 1) -> float:
    r"""Greatest lower bound L* of the loss over all embeddings of samples with these labels.

    Let :math:`n_{i,m}` count the samples j ≠ i at the m-th distinct label distance from anchor i. The denominator of
    each of them contains at least these :math:`n_{i,m}`, and they cannot all be the most similar, hence

    .. math:: L ≥ L^* = \frac{1}{M(M-1)} \sum_i \sum_m n_{i,m} \log n_{i,m} .

    Embeddings spread far enough, in the order of the labels, come as close to it as one likes.

    Parameters
    ----------
    labels : Tensor
        Shape (n,) or (n, label_dim).
    label_diff : {'l1', 'l2'} or callable
        As in `rnc_loss`.
    n_views : int
        Views of each sample; M = n · n_views.

    Returns
    -------
    float

    Examples
    --------
    >>> round(rnc_lower_bound(torch.tensor([20, 30, 40, 70])), 4)  # seen from 30, 20 and 40 tie: 2 log 2 / 12
    0.1155
    >>> rnc_lower_bound(torch.tensor([20, 31, 40, 70]))
    0.0
    """
    if n_views < 1:
        raise ValueError(f"n_views: got {n_views!r}; allowed: an integer of at least 1")
    _check_options(1.0, label_diff, "l2", "mean")
    _check_labels(labels)
    _check_values(labels=labels)
    y = _comparable(labels.detach().reshape(len(labels), -1).repeat_interleave(n_views, dim=0), label_diff)
    M = len(y)
    total = 0.0
    for rows in torch.arange(M, device=y.device).split(max(BLOCK // M, ANCHORS)):
        start, end = _runs(_others_farthest_first(y, rows, label_diff)[0])
        total += float((end - start + 1).double().log().sum())
    return total / max(1, M * (M - 1))


# ---- The plain path -------------------------------------------------------------------------------------------


def _anchor_losses(v, y, rows, temperature, label_diff, feature_sim):
    """Losses of the anchors `rows`: order the others, farthest label first, and read the running sum after ties."""
    s = _similarities(v, rows, feature_sim) / temperature
    d, order = _others_farthest_first(_comparable(y, label_diff), rows, label_diff)
    s = s.gather(1, order)
    log_D = s.logcumsumexp(dim=1).gather(1, _runs(d)[1])
    return (log_D - s).mean(dim=1)


def _others_farthest_first(y, rows, label_diff):
    """Label distances of the anchors `rows` to all others in descending order, and that order."""
    itself = rows[:, None] == torch.arange(len(y), device=y.device)
    d, order = _label_distances(y, rows, label_diff).masked_fill(itself, -1).sort(dim=1, descending=True)
    return d[:, :-1], order[:, :-1]  # the anchor itself, at -1, came last


def _similarities(v, rows, feature_sim):
    if callable(feature_sim):
        return _square(feature_sim(v), len(v), "feature_sim")[rows].double()
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


def _comparable(y, label_diff):
    """Labels (M, label_dim) in float64, or int64 where only that keeps their distances exact."""
    if callable(label_diff):
        return y
    if y.dtype == torch.int64:
        low, high = int(y.min()), int(y.max())
        largest = (high - low) * y.shape[1]
        if largest < 2**53:
            return (y - low).double()
        if largest < 2**63 and label_diff == "l1":
            return y - low
    return y.double()


def _label_distances(y, rows, label_diff):
    """Distances from the labels `rows` to all, added up column by column: equal where a plain loop has them equal."""
    if callable(label_diff):
        return _square(label_diff(y), len(y), "label_diff")[rows]
    if y.shape[1] == 1:
        return (y[rows] - y.T).abs()
    total = torch.zeros((), dtype=y.dtype, device=y.device)
    for column in y.T:
        term = (column[rows, None] - column).abs()
        total = total + (term * term if label_diff == "l2" else term)
    return total.sqrt() if label_diff == "l2" else total


def _runs(sorted_rows):
    """First and last position of the run of equal values that each entry of a sorted row belongs to."""
    n = sorted_rows.shape[1]
    position = torch.arange(n, device=sorted_rows.device).expand_as(sorted_rows)
    step = sorted_rows[:, 1:] != sorted_rows[:, :-1]
    edge = torch.ones_like(sorted_rows[:, :1], dtype=torch.bool)
    start = torch.where(torch.cat([edge, step], 1), position, 0).cummax(dim=1).values
    end = torch.where(torch.cat([step, edge], 1), position, n).flip(1).cummin(dim=1).values.flip(1)
    return start, end


# ---- The fast path --------------------------------------------------------------------------------------------


class _MeanLoss(torch.autograd.Function):
    """Sum of the losses of the anchors `rows`, divided by M. The forward pass makes the gradient as well."""

    @staticmethod
    def forward(ctx, v, y, rows, temperature, label_diff, feature_sim, need_grad):
        M = len(v)
        total, grad = _sums(v, _comparable(y, label_diff), rows, temperature, label_diff, feature_sim, need_grad)
        ctx.save_for_backward(grad.div_(temperature * M * (M - 1)).to(v.dtype) if need_grad else None)
        return (total / (M * (M - 1))).to(v.dtype)

    @staticmethod
    def backward(ctx, grad_output):
        if torch.is_grad_enabled():  # create_graph=True would take the gradient for a constant
            raise RuntimeError(
                "this path of rnc_loss has no second derivatives; rnc_loss(..., reduction='none').mean() has them"
            )
        (grad,) = ctx.saved_tensors
        return grad_output * grad, None, None, None, None, None, None


def _sums(v, y, rows, temperature, label_diff, feature_sim, need_grad):
    """Loss summed over pairs (i in `rows`, j), and τ times its gradient by v, in the least precision that suffices."""
    largest = float(v.abs().max())
    # The loss of (v, τ) is that of (v/u, τ/u). With u a power of two this is exact, and no square can overflow.
    u = 1.0 if feature_sim == "cosine" else 2.0 ** max(-120, math.frexp(largest)[1] - 1)
    x, temperature = v / u, max(temperature / u, 1e-300)
    arguments = y, rows, temperature, label_diff, feature_sim, need_grad
    result = None
    if feature_sim != "l1" and v.dtype == torch.float32 and len(v) >= FLOAT32_FROM and _products_keep_float32():
        result = _sums_by_exponentials(x, *arguments)
    if feature_sim != "l1" and result is None:
        result = _sums_by_exponentials(x.double(), *arguments)
    return result or _sums_by_logarithms(x.double(), *arguments)


def _products_keep_float32():
    """Whether matrix products of float32 are not reduced to TF32 or bfloat16."""
    try:
        return torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:  # set by torch's newer switches, which this one cannot read
        return False


def _sums_by_logarithms(x, y, rows, temperature, label_diff, feature_sim, need_grad):
    """The plain path, block by block: slower, but for any range."""
    total, grad = x.new_zeros(()), torch.zeros_like(x)
    x = x.detach().requires_grad_(need_grad)
    for block in rows.split(max(BLOCK // len(x), ANCHORS)):
        with torch.set_grad_enabled(need_grad):
            loss = _anchor_losses(x, y, block, temperature, label_diff, feature_sim).sum() * (len(x) - 1)
        total += loss.detach()
        if need_grad:
            grad += torch.autograd.grad(loss, x)[0] * temperature
    return total, grad


def _sums_by_exponentials(x, y, rows, temperature, label_diff, feature_sim, need_grad):
    """The cumulative sums of the module's docstring; None where x's precision does not suffice.

    Index k runs over samples, i over the anchors of a block, g over groups of equal labels. Cosines are lowered
    by 1, so that they are at most 0 as -distance is; this cancels in the loss.
    """
    M, v = len(x), x
    if feature_sim == "l2":
        x = x - x[:1]  # if all are equal, exactly 0, where the mean may round
        x = x - x.mean(dim=0)
    square = (x * x).sum(dim=1)
    radius = float(square.max().sqrt()) if feature_sim == "l2" else 1.0
    if (reach := radius / temperature) > REACH[x.dtype]:
        return None
    share, slope = CLOSE[x.dtype]
    close = max(share, slope * reach) * radius

    # Put the samples in the order of their labels, so that the anchors of a block share few groups.
    values, group, count = _groups(y)
    order = group.argsort(stable=True)
    rank = order.argsort()
    v, x, square, group = v[order], x.index_select(0, order), square[order], group[order]
    blocks = rank[rows].sort().values.split(max(BLOCK // M, min(ANCHORS, TABLE // len(values)), 1))
    group_ranges = torch.stack([group[block[[0, -1]]] for block in blocks]).tolist()

    one = torch.ones((), dtype=x.dtype, device=x.device)
    total = torch.zeros((), dtype=torch.float64, device=x.device)
    grad, weight = torch.zeros_like(x), torch.zeros_like(square)
    for block, (first, last) in zip(blocks, group_ranges, strict=True):
        anchors = x if len(block) == M else x.index_select(0, block)
        itself = block, torch.arange(len(block), device=x.device)
        pairs = []
        if feature_sim == "l2":
            distance = (square[:, None] + square[block]).addmm_(x, anchors.T, alpha=-2)
            if (pairs := _corrected(distance, itself, v, close)) is None:
                return None
        else:
            distance = 1 - x @ anchors.T
            distance[itself] = 0
        exp_s = (distance * (-1 / temperature)).exp_()
        exp_s[itself] = 0

        tables = _group_order(values, count, range(first, last + 1), label_diff)
        if len(block) > last - first + 1 or len(rows) < M:  # else: one anchor for each group
            tables = [table.index_select(0, group[block] - first) for table in tables]
        farthest_first, D_at, W_at, n = tables
        n = n.to(x.dtype)
        exp_sum = torch.zeros(len(values), len(block), dtype=x.dtype, device=x.device)
        exp_sum = exp_sum.index_add_(0, group, exp_s).T
        D = exp_sum.gather(1, farthest_first).cumsum(1).gather(1, D_at)  # from here on, nearest first
        total += (n * D.log()).sum(1).sum(dtype=torch.float64)
        total += distance.sum(1).sum(dtype=torch.float64) / temperature
        if not need_grad:
            continue

        W = (n / D).cumsum(1).gather(1, W_at).T.contiguous()
        force = torch.addcmul(one, exp_s, W.index_select(0, group), value=-1)  # -∂L/∂s_ik, times M(M-1)
        force[itself] = 0
        if feature_sim == "l2":  # ∂distance/∂anchor = (anchor - x_k)/distance
            force /= distance
            _add_close_pairs(grad, force, distance, pairs, v, block)
        _add_forces(grad, weight, force, x, anchors, block, feature_sim)
    if feature_sim == "l2":
        grad += weight[:, None] * x
    return total, grad[rank]


def _corrected(distance, itself, v, close):
    """Turn squared distances (M, anchors) into distances, in place, and give the close pairs back in portions.

    A small difference of large squares has lost its digits: close pairs are computed from the embeddings `v`.
    None where so many pairs are close that another precision is the quicker way.
    """
    block, _ = itself
    distance[itself] = torch.inf
    pairs = (distance < close * close).nonzero()
    if len(pairs) > distance.numel() // 64 and distance.dtype == torch.float32:
        return None
    distance[itself] = 0
    distance.clamp_(min=torch.finfo(distance.dtype).tiny).sqrt_()
    pairs = [pair.unbind(1) for pair in pairs.split(8 * BLOCK // v.shape[1] + 1)]
    for k, i in pairs:
        distance[k, i] = torch.linalg.vector_norm(v[k] - v[block[i]], dim=1)
    return pairs


def _add_close_pairs(grad, force, distance, pairs, v, block):
    """Move the force between close pairs from `force` to `grad`; where two embeddings are equal there is none."""
    for k, i in pairs:
        pull = force[k, i][:, None] * (v[k] - v[block[i]])
        pull = torch.where(distance[k, i][:, None] > 0, pull, 0)
        force[k, i] = 0
        grad.index_add_(0, k, pull)
        grad.index_add_(0, block[i], pull, alpha=-1)


def _add_forces(grad, weight, force, x, anchors, block, feature_sim):
    """Add the forces between all samples and the anchors of a block; `weight` collects their part along x."""
    if anchors is x:  # one product serves both sides of every pair
        force = force + force.T
        if feature_sim == "l2":
            grad += force.sum(1)[:, None] * x
        grad -= force @ x
    else:
        weight += force.sum(1)
        weight.index_add_(0, block, force.sum(0))
        grad.addmm_(force, anchors, alpha=-1)
        grad.index_add_(0, block, force.T @ x, alpha=-1)


def _groups(y):
    """Distinct labels (U, label_dim) in ascending order, the group of each sample, the size of each group."""
    if y.shape[1] > 1:
        return torch.unique(y, dim=0, return_inverse=True, return_counts=True)
    values, group, count = torch.unique(y[:, 0], return_inverse=True, return_counts=True)
    return values[:, None], group, count


def _group_order(values, count, anchors, label_diff):
    """Four tables, one row for each anchor group, one column for each group.

    - the groups, farthest first
    - D_at: where to read D in the sums farthest first, for the groups nearest first
    - W_at: where to read W in the sums nearest first, for the groups as numbered
    - n: the size of each group, nearest first, without the anchor itself
    """
    anchors = torch.arange(anchors.start, anchors.stop, device=values.device)
    d = _label_distances(values, anchors, label_diff)
    if d.device.type == "cpu":  # NumPy sorts rows several times faster
        # With one label a row falls, then rises: a stable sort only merges the two runs.
        kind = "stable" if values.shape[1] == 1 else None
        near = torch.from_numpy(d.numpy().argsort(axis=1, kind=kind))
    else:
        near = d.argsort(dim=1)
    run_start, run_end = _runs(d.gather(1, near))
    W_at = torch.empty_like(near).scatter_(1, near, run_end)
    n = count.take(near) - (near == anchors[:, None]).to(count.dtype)
    return near.flip(1), len(values) - 1 - run_start, W_at, n


# ---- Several processes ----------------------------------------------------------------------------------------


class _AllGather(torch.autograd.Function):
    """Rows of all processes, in the order of their ranks; backward adds up the gradients of all processes."""

    @staticmethod
    def forward(ctx, rows, sizes):
        ctx.sizes = sizes
        padded = rows.new_zeros(max(sizes), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in sizes]
        torch.distributed.all_gather(parts, padded)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        grad = grad.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(grad)
        return grad.split(ctx.sizes)[torch.distributed.get_rank()], None


def _gather_batch(v, y):
    """The whole batch, and which of its rows are this process's own."""
    world, rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
    shape = torch.tensor([len(v), v.shape[1], y.shape[1]], device=v.device)
    shapes = [torch.empty_like(shape) for _ in range(world)]
    torch.distributed.all_gather(shapes, shape)
    shapes = torch.stack(shapes).tolist()
    if len({(feat_dim, label_dim) for _, feat_dim, label_dim in shapes}) > 1:
        got = ", ".join(f"({feat_dim}, {label_dim})" for _, feat_dim, label_dim in shapes)
        raise ValueError(f"features, labels: got (feat_dim, label_dim) {got}; allowed: the same in every process")
    sizes = [n for n, _, _ in shapes]
    wide = torch.float64 if y.is_floating_point() else torch.int64
    everyone = _AllGather.apply(y.to(wide), sizes).to(y.dtype)
    rows = torch.arange(sum(sizes), device=v.device).split(sizes)[rank]
    return _AllGather.apply(v, sizes), everyone, rows


# ---- Checks ---------------------------------------------------------------------------------------------------


def _check_options(temperature, label_diff, feature_sim, reduction):
    number = isinstance(temperature, numbers.Real) and not isinstance(temperature, bool)
    if not number or not 0 < temperature < math.inf:
        raise ValueError(f"temperature: got {temperature!r}; allowed: a finite number above 0")
    for name, value, allowed in (
        ("label_diff", label_diff, LABEL_DIFFS),
        ("feature_sim", feature_sim, FEATURE_SIMS),
    ):
        if not callable(value) and value not in allowed:
            raise ValueError(f"{name}: got {value!r}; allowed: {_listed(allowed)} or a callable")
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction: got {reduction!r}; allowed: {_listed(REDUCTIONS)}")


def _listed(allowed):
    return ", ".join(map(repr, allowed))


def _check_labels(labels):
    if not isinstance(labels, Tensor):
        raise ValueError(f"labels: got {type(labels).__name__}; allowed: a torch.Tensor")
    if labels.ndim not in (1, 2) or 0 in labels.shape or labels.is_complex():
        raise ValueError(
            f"labels: got shape {tuple(labels.shape)}, {labels.dtype}; "
            "allowed: (n,) or (n, label_dim), non-empty, of real numbers"
        )


def _check_shapes(features, labels):
    if not isinstance(features, Tensor):
        raise ValueError(f"features: got {type(features).__name__}; allowed: a torch.Tensor")
    if features.ndim not in (2, 3) or 0 in features.shape or not features.is_floating_point():
        raise ValueError(
            f"features: got shape {tuple(features.shape)}, {features.dtype}; "
            "allowed: (n, feat_dim) or (n, n_views, feat_dim), non-empty, of floating-point numbers"
        )
    _check_labels(labels)
    if len(labels) != len(features):
        raise ValueError(
            f"labels: got shape {tuple(labels.shape)}; allowed: one row for each of the {len(features)} rows of "
            "features (one label per sample, not per view)"
        )
    if labels.device != features.device:
        raise ValueError(f"labels: got device {labels.device}; allowed: {features.device}, where features is")


def _check_values(features=None, labels=None):
    for name, value in (("features", features), ("labels", labels)):
        if value is not None and not torch.isfinite(value).all():
            bad = int((~torch.isfinite(value)).sum())
            raise ValueError(f"{name}: got {bad} NaN or infinite among {value.numel()} values; allowed: finite numbers")


def _square(matrix, M, name):
    if not isinstance(matrix, Tensor) or matrix.shape != (M, M):
        got = f"shape {tuple(matrix.shape)}" if isinstance(matrix, Tensor) else type(matrix).__name__
        raise ValueError(f"{name}: got a callable that returns {got}; allowed: a tensor of shape ({M}, {M})")
    return matrix
