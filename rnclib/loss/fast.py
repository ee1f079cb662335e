"""Loss and gradient in one pass over blocks of anchors: see the equations in `rnclib.loss`.

**Label order.** Samples are put in the order of their labels, so that the anchors of a block share few groups. Index k
runs over samples, i over the anchors of a block, g over groups of equal labels.

**Precision.** Distances come from matrix products, in float32 where that suffices and else in float64. What follows
them runs over numbers of moderate size, and stays in float32 as long as no denominator leaves its range.

**Layout.** The distances of a batch of moderate size fill one M × M matrix, which then holds the forces; they are
computed once for both sides of each pair, and one product gives the gradient. Larger batches, and anchors that are
not the whole batch, go strip by strip.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from rnclib.loss import labels as label_order
from rnclib.loss import plain
from rnclib.loss.checks import Matrix, all_finite, check_temperature, check_values, widest

__all__ = ["Options", "SumOfLosses", "needs", "usable"]

# Anchors are taken in blocks.
BLOCK = {"cpu": 2**18}  # entries of the M × M matrix in a block: they fit the cache
BLOCK_ELSEWHERE = 2**24  # on a GPU few large steps are better than many small ones
ANCHORS = 64  # but at least so many anchors, since thin matrix products are slow
TABLE = 2**20  # and fewer again where a table of ANCHORS × U groups would be larger than this
TILES = 8  # distances are computed in at least so many stripes, since the first settles whether float32 will do
WHOLE = 4096  # largest batch whose distances are kept in one M × M matrix

FLOAT32_FROM = 128  # smaller batches cost next to nothing in float64

# `reach` is the radius of the batch over τ, so that |s| is at most 2 reach. Rounding to float32 leaves an error of up
# to 2 reach × 6e-8 in s: at 64 less than 8e-6 in a pair, and much less in the mean of many.
REACH = {torch.float32: 64.0, torch.float64: 1e12}

# |a|² + |b|² - 2ab has an error of about eps n², where n² = |a|² + |b|². So a distance r from it has a relative error
# of eps n²/(2r²), which the force of the pair inherits, and s one of eps n²/(2rτ). Where these exceed the two numbers
# of CLOSE, whose key is the type of the features, pairs are subtracted directly: where r² < eps/(2 CLOSE[0]) n², or
# r < eps/(2 CLOSE[1] τ) n².
CLOSE = {torch.float32: (2e-5, 1e-5), torch.float64: (1e-11, 5e-12)}
NEAR = torch.finfo(torch.float32).eps / 2 / CLOSE[torch.float32][0]  # of r²/n² for float32
# At most one pair in so many is subtracted directly. If more are close, more digits are quicker, then the plain path.
FEW = {torch.float32: 256, torch.float64: 4}

# Exponentials are scaled so that the largest one of an anchor is exp(TOP). Those below exp(-87) are lost in float32,
# and those below exp(-708) in float64: a denominator of at least exp(FLOOR) misses less than M exp(-22), or M exp(-28).
TOP = {torch.float32: 60.0, torch.float64: 600.0}
FLOOR = {torch.float32: -65.0, torch.float64: -680.0}

SECOND = "this path of rnc_loss has no second derivatives; rnc_loss(..., reduction='none').mean() has them"


class Options(NamedTuple):
    """What the loss depends on besides tensors."""

    label_diff: str | Matrix
    feature_sim: str | Matrix
    reduction: str
    ties: str
    validate: bool  # refuse NaN and infinite values
    finite: bool = False  # known to have none
    accuracy: torch.dtype = torch.float32  # that of the features


class SumOfLosses(torch.autograd.Function):
    """Sum of the losses of the anchors `rows`, each times its weight. The forward pass makes the gradients as well."""

    @staticmethod
    def forward(v, temperature, y, weights, rows, options, needed):
        check_temperature(temperature, value=not options.finite and options.validate)
        if options.validate and not options.finite:
            check_values(features=v, labels=y, weights=weights)
        elif not options.finite and not usable(v, temperature, y, weights):
            return v.new_tensor(torch.nan), torch.full_like(v, torch.nan), v.new_tensor(torch.nan)
        t = float(temperature)
        if weights is None:
            total, grad, grad_t = _sums(v, y, None, rows, t, options, needed)
        else:
            kept, _, anchors = plain.counting(weights, rows)
            total, some, grad_t = _sums(v[kept], y[kept], weights[kept], anchors, t, options, needed)
            grad = torch.zeros_like(v).index_copy_(0, kept, some)
        return total.to(v.dtype), grad, grad_t.to(v.dtype)

    @staticmethod
    def setup_context(ctx, inputs, output):
        v, temperature, *_ = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.learnt = isinstance(temperature, Tensor)
        ctx.save_for_backward(v, *output[1:], *([temperature] if ctx.learnt else []))

    @staticmethod
    def backward(ctx, grad_output, *_):
        v, grad, grad_t, *temperature = ctx.saved_tensors
        by_v, by_t = _Constant.apply(grad_output * grad, v), None
        if ctx.learnt:
            by_t = _Constant.apply(grad_output * grad_t, *temperature).reshape(temperature[0].shape)
        return by_v, by_t, None, None, None, None, None

    @staticmethod
    def jvp(ctx, *_):
        raise RuntimeError("rnc_loss has no forward-mode derivatives; torch.func.grad and torch.func.jacrev work")

    @staticmethod
    def vmap(info, in_dims, *inputs):
        results = []
        for b in range(info.batch_size):
            one = [x.select(dim, b) if isinstance(dim, int) else x for x, dim in zip(inputs, in_dims, strict=True)]
            needed = tuple(map(max, inputs[-1], needs(*one[:2])))
            results.append(SumOfLosses.apply(*one[:-1], needed))
        return tuple(torch.stack(column) for column in zip(*results, strict=True)), (0, 0, 0)


def usable(v: Tensor, temperature: float | Tensor, y: Tensor, weights: Tensor | None) -> bool:
    """Whether no value is NaN or infinite, and the temperature is above 0."""
    tensors = [one for one in (v, y, weights) if one is not None]
    return 0 < float(torch.as_tensor(temperature).detach()) < math.inf and all(all_finite(one) for one in tensors)


def needs(v: Tensor, temperature: float | Tensor) -> tuple[bool, bool]:
    """Which gradients are asked for."""
    on = torch.is_grad_enabled()
    return on and v.requires_grad, on and isinstance(temperature, Tensor) and temperature.requires_grad


class _Constant(torch.autograd.Function):
    """A gradient that the forward pass has made: whoever differentiates it learns that this is not possible."""

    generate_vmap_rule = True

    @staticmethod
    def forward(value, of):
        return value.clone()

    @staticmethod
    def setup_context(ctx, inputs, output):
        pass

    @staticmethod
    def backward(ctx, *_):
        raise RuntimeError(SECOND)

    @staticmethod
    def jvp(ctx, *_):
        raise RuntimeError(SECOND)


# ---- Label order ----------------------------------------------------------------------------------------------


class Anchors(NamedTuple):
    """The batch in the order of its labels, and its anchors in blocks."""

    labels: label_order.Labels
    order: Tensor  # puts samples in that order
    weights: Tensor | None  # of samples
    whole: bool  # every sample is an anchor
    blocks: list[tuple[Tensor, int, int]]  # anchors, their first and their last group


def _in_label_order(y, weights, rows, options):
    groups = label_order.groups_of(y, options.label_diff, options.ties)
    order = groups.group.argsort(stable=True)
    groups = groups._replace(group=groups.group[order])
    M, device = len(y), y.device
    step = max(BLOCK.get(device.type, BLOCK_ELSEWHERE) // M, min(ANCHORS, TABLE // len(groups.values)), 1)
    anchors = order.argsort()[rows].sort().values.split(step)
    ends = torch.stack([groups.group[block[[0, -1]]] for block in anchors]).tolist()
    blocks = [(block, *pair) for block, pair in zip(anchors, ends, strict=True)]
    return Anchors(groups, order, None if weights is None else weights[order], len(rows) == M, blocks)


def _order_seen_from(anchors, block, first, last):
    """Tables with a row for each anchor of the block, and n, the weight of each group without the anchor itself."""
    labels = anchors.labels
    seen = label_order.seen_from(labels, first, last)
    if len(block) > last - first + 1 or not anchors.whole:  # else one anchor for each group
        seen = seen.expand(labels.group[block] - first)
    own = torch.arange(len(block), device=block.device), seen.own
    if anchors.weights is not None:
        mass = anchors.weights.new_zeros(len(labels.values)).index_add_(0, labels.group, anchors.weights)
        n = mass[seen.near]
        n[own] -= anchors.weights[block]
    elif len(labels.values) == len(labels.group):
        n = torch.ones(seen.near.shape, device=block.device)
        n[own] = 0
    else:
        n = labels.size.float()[seen.near]
        n[own] -= 1
    return seen, n


# ---- Which precision ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Points:
    """Embeddings in the order of the labels."""

    v: Tensor  # as given, in units of u
    x: Tensor  # about their mean, in the precision of products
    square: Tensor  # their squared lengths
    scale: float  # u/τ: similarities are -scale × distance
    close: tuple[float, float]  # pairs nearer than close[0] n or close[1] n² are subtracted directly
    cosine: bool  # v are unit vectors and distances 1 - cosine
    narrow: bool  # float32 is accurate enough for what follows distances
    ways: list[torch.dtype]  # types of exponentials to try, fastest first; the first goes when it fails

    @cached_property
    def copy(self) -> Tensor:
        """A number for each embedding, the same for equal ones."""
        return torch.unique(self.v, dim=0, return_inverse=True)[1]


def _sums(v, y, weights, rows, temperature, options, needed):
    """Sum of the losses of `rows`, its gradient by v, and by τ, in the least precision that suffices."""
    if len(v) <= 1:
        return v.new_zeros(()), torch.zeros_like(v), v.new_zeros(())
    # The loss of (v, τ) is that of (v/u, τ/u). With u a power of two this is exact, and no square can overflow.
    cosine, largest = options.feature_sim == "cosine", max(abs(float(one)) for one in torch.aminmax(v))
    u = 1.0 if cosine or 1e-9 < largest < 1e9 else 2.0 ** max(-120, math.frexp(largest)[1] - 1)
    w = v if u == 1 else v / u
    scale = 1 / max(temperature / u, 1e-300)
    if options.feature_sim != "l1":
        anchors = _in_label_order(y, weights, rows, options)
        for dtype in _precisions(v, options):
            points = _points(w[anchors.order], dtype, scale, options)
            if float(points.square.max().sqrt()) * scale > REACH[dtype]:
                continue
            sums = _whole if anchors.whole and len(v) <= WHOLE else _strips
            if (result := sums(anchors, points, needed)) is not None:
                total, grad, grad_t = result
                per_pair = 1 / temperature if weights is not None else 1 / temperature / (len(v) - 1)
                grad = torch.empty_like(v).index_copy_(0, anchors.order, grad.mul_(per_pair).to(v.dtype))
                return total, grad, grad_t / temperature
    total, grad, grad_t = plain.sums_by_blocks(w.to(widest(v)), y, weights, rows, 1 / scale, options, any(needed))
    return total, (grad / temperature).to(v.dtype), grad_t / temperature


def _precisions(v, options):
    """Types of matrix products to try, fastest first."""
    wide = widest(v)
    if wide == torch.float32:
        return [torch.float32]
    return [torch.float32, wide] if _narrow(v, options) and _products_keep_float32() else [wide]


def _narrow(v, options):
    return options.accuracy == torch.float32 and len(v) >= FLOAT32_FROM


def _products_keep_float32():
    """Whether matrix products of float32 are not reduced to TF32 or bfloat16."""
    try:
        return torch.get_float32_matmul_precision() == "highest"
    except RuntimeError:  # set by torch's newer switches, which this one cannot read
        return False


def _points(v, dtype, scale, options):
    cosine = options.feature_sim == "cosine"
    x = v.to(torch.promote_types(v.dtype, dtype))
    x = x - x[:1]  # if all are equal, exactly 0, where the mean may round
    x = x.sub_(x.mean(dim=0)).to(dtype)
    square = (x * x).sum(dim=1)
    if cosine:  # half the squared distance of two directions is 1 - cosine; that of a zero vector has cosine 0
        square += (v == 0).all(dim=1)
    narrow = _narrow(v, options)
    ways = [torch.float32, widest(v)] if narrow else [widest(v)]
    r, s = CLOSE[options.accuracy]
    half_eps = torch.finfo(dtype).eps / 2
    close = math.sqrt(half_eps / r), half_eps / s * scale
    return Points(v, x, square, scale, close, cosine, narrow, ways)


# ---- Distances ------------------------------------------------------------------------------------------------


class Pairs(NamedTuple):
    """Pairs that were subtracted directly, and what holds for all pairs."""

    i: Tensor
    k: Tensor
    equal: bool  # some are at distance 0
    apart: bool  # all so far apart that float32 keeps their differences


def _distances(tile, points, i, k):
    """Turn squared distances of the samples i (rows) and k (columns), infinite for a sample itself, into distances.

    Also the pairs whose product had lost its digits, for which the embeddings were subtracted; None if these are so
    many that another precision is quicker.
    """
    v, square = points.v, points.square
    none = i[:0]
    if points.cosine:
        tile.mul_(0.5)
        return Pairs(none, none, False, True)
    near, lost_s = (close * close for close in points.close)
    most, least = 2 * float(square.max()), float(tile.amin())
    apart = least > most * NEAR
    if not apart and tile.dtype != torch.float32:
        apart = bool((tile / (square[i, None] + square[k])).amin() > NEAR)
    if least > most * max(near, lost_s * most):
        tile.sqrt_()
        return Pairs(none, none, False, apart)
    n2 = square[i, None] + square[k]
    lost = tile <= (n2 * lost_s).clamp_(min=near).mul_(n2)
    tile.sqrt_()
    few, equal = tile.numel() // FEW[points.x.dtype], False
    if int(torch.count_nonzero(lost)) > few:
        same = points.copy[i, None] == points.copy[k]
        tile.masked_fill_(same & lost, 0)
        lost, equal = lost & ~same, True
        if int(torch.count_nonzero(lost)) > few:
            return None
    r, q = lost.nonzero().unbind(1)
    for a, b in zip(*(one.split(8 * BLOCK["cpu"] // v.shape[1] + 1) for one in (r, q)), strict=True):
        tile[a, b] = torch.linalg.vector_norm(v[i[a]] - v[k[b]], dim=1).to(tile.dtype)
    differ = tile[r, q] > 0
    return Pairs(i[r[differ]], k[q[differ]], equal or not bool(differ.all()), apart)


def _all_distances(points, step):
    """Matrix of all distances, each computed once; its pairs subtracted directly, each once."""
    x, square = points.x, points.square
    M, number = len(x), torch.arange(len(x), device=x.device)
    matrix = x.new_empty(M, M + 16)[:, :M]  # columns of 2**n rows apart by 2**m bytes would share few cache lines
    found = []
    for start in range(0, M, step):
        stop = min(start + step, M)
        tile = matrix[start:stop, start:]
        torch.add(square[start:stop, None], square[start:], out=tile)
        tile.addmm_(x[start:stop], x[start:].T, alpha=-2)
        corner = tile[:, : stop - start]
        corner.copy_(corner.triu(1) + corner.triu(1).T).fill_diagonal_(torch.inf)
        pairs = _distances(tile, points, number[start:stop], number[start:])
        if pairs is None:
            return None
        found.append(pairs)
        matrix[stop:, start:stop] = tile[:, stop - start :].T
    i, k = torch.cat([pair.i for pair in found]), torch.cat([pair.k for pair in found])
    equal, apart = any(pair.equal for pair in found), all(pair.apart for pair in found)
    return matrix, Pairs(i[i < k], k[i < k], equal, apart)


# ---- The two layouts ------------------------------------------------------------------------------------------


def _whole(anchors, points, needed):
    """Every sample is an anchor: one matrix, and one product for the forces in both directions of each pair."""
    x, step = points.x, len(anchors.blocks[0][0])
    if (done := _all_distances(points, min(step, max(ANCHORS, len(x) // TILES)))) is None:
        return None
    matrix, pairs = done
    total, grad_t = _fill_with_forces(matrix.split(step, dim=1), anchors, points, needed)
    if points.narrow and pairs.apart:
        x = x.float()
    grad = torch.zeros_like(x)
    if not needed[0]:
        return total, grad, grad_t
    _pull_directly(grad, points.v, pairs, matrix[pairs.i, pairs.k] + matrix[pairs.k, pairs.i])
    matrix[pairs.i, pairs.k] = matrix[pairs.k, pairs.i] = 0
    for start in range(0, len(x), step):
        own = slice(start, start + step)
        force = matrix[:, own].T.contiguous().add_(matrix[own])
        if pairs.equal:
            force.nan_to_num_(0, 0, 0)  # two equal embeddings are at distance 0, and exert none
        force = force.to(x.dtype)
        grad[own] += force.sum(1, keepdim=True) * x[own] - force @ x
    return total, grad, grad_t


def _strips(anchors, points, needed):
    """A strip of distances for each block of anchors, and two products, one for each direction of its pairs."""
    x, number = points.x, torch.arange(len(points.x), device=points.x.device)
    total, grad_t = x.new_zeros((), dtype=widest(x)), x.new_zeros((), dtype=widest(x))
    grad, weight = torch.zeros_like(x), torch.zeros_like(points.square)
    for place, (block, *_) in enumerate(anchors.blocks):
        strip = (points.square[:, None] + points.square[block]).addmm_(x, x[block].T, alpha=-2)
        strip[block, number[: len(block)]] = torch.inf
        if (pairs := _distances(strip, points, number, block)) is None:
            return None
        one = anchors._replace(blocks=anchors.blocks[place : place + 1])
        part, part_t = _fill_with_forces([strip], one, points, needed)
        total, grad_t = total + part, grad_t + part_t
        if needed[0]:
            if pairs.equal:
                strip.nan_to_num_(0, 0, 0)
            column = torch.empty_like(number)
            column[block] = number[: len(block)]
            column = column[pairs.k]
            _pull_directly(grad, points.v, pairs, strip[pairs.i, column])
            strip[pairs.i, column] = 0
            weight += strip.sum(1)
            weight.index_add_(0, block, strip.sum(0))
            grad.addmm_(strip, x[block], alpha=-1)
            grad.index_add_(0, block, strip.T @ x, alpha=-1)
    return total, grad + weight[:, None] * x, grad_t


def _pull_directly(grad, v, pairs, force):
    """Add the forces of pairs whose difference has to be taken from the embeddings as given."""
    for i, k, f in zip(
        *(one.split(8 * BLOCK["cpu"] // v.shape[1] + 1) for one in (pairs.i, pairs.k, force)), strict=True
    ):
        pull = f[:, None] * (v[i] - v[k])
        grad.index_add_(0, i, pull.to(grad.dtype))
        grad.index_add_(0, k, pull.to(grad.dtype), alpha=-1)


# ---- Denominators and forces ----------------------------------------------------------------------------------


def _fill_with_forces(strips, anchors, points, needed):
    """Sum of the losses, and of τ ∂L/∂τ; distances (samples, anchors) in each strip become forces over distances.

    A force is -∂L/∂s. For cosines, whose forces act along the difference itself, it is not divided.
    """
    wide, weights = widest(points.x), anchors.weights
    total, grad_t = torch.zeros((2,), dtype=wide, device=points.x.device).unbind()
    for strip, (block, first, last) in zip(strips, anchors.blocks, strict=True):
        itself = block, torch.arange(len(block), device=block.device)
        seen, n = _order_seen_from(anchors, block, first, last)
        log_D, make_force = _log_D_and_force(strip, itself, seen, n, anchors, points)
        if weights is None:
            total = total + (log_D + points.scale * strip.sum(0).to(wide)).sum()
        else:
            share = weights[block] / n.sum(1)
            pull = (weights.to(strip.dtype) @ strip).to(wide)
            total = total + (share * (log_D + points.scale * pull)).sum()
        if not any(needed):
            continue
        force = make_force()
        if weights is not None:
            force = force * weights[:, None] * share
        if needed[1]:
            grad_t = grad_t - points.scale * (force * strip).sum(dtype=wide)
        if needed[0]:
            torch.div(force, 1 if points.cosine else strip, out=strip)
            strip[itself] = 0
    if weights is None:
        total, grad_t = total / (len(points.x) - 1), grad_t / (len(points.x) - 1)
    return total, grad_t


def _log_D_and_force(strip, itself, seen, n, anchors, points):
    """Of each anchor Σ n log D, and a function that makes the force of each pair. `strip` is infinite at `itself`."""
    shift = strip.amin(0) * points.scale
    strip[itself] = 0
    while points.ways:
        result = _by_exponentials(strip, itself, shift, seen, n, anchors, points.scale, points.ways[0])
        if result is not None:
            return result
        points.ways.pop(0)
    return _by_logarithms(strip, itself, seen, n, anchors, points.scale)


def _by_exponentials(strip, itself, shift, seen, n, anchors, scale, dtype):
    """None where a denominator leaves the range of `dtype`."""
    labels, weights = anchors.labels, anchors.weights
    shift = shift + TOP[dtype]
    exp_s = torch.add(shift, strip, alpha=-scale).to(dtype).exp_()
    exp_s[itself] = 0
    mass = exp_s if weights is None else exp_s * weights[:, None].to(dtype)
    if len(labels.values) < len(exp_s):
        mass = mass.new_zeros(len(labels.values), len(shift)).index_add_(0, labels.group, mass)
    mass = mass.T.clone(memory_format=torch.contiguous_format)
    D = mass.gather(1, seen.near).flip(1)
    D = torch.cumsum(D, 1, out=D).flip(1)
    if float(D.amin()) < math.exp(FLOOR[dtype]):
        return None
    D, n = seen.runs.at_first(D), n.to(dtype)
    log_D = D.log().mul_(n).sum(1).to(widest(D)) - n.sum(1).to(widest(D)) * shift.to(widest(D))

    def force():
        W = torch.div(n, D, out=D)
        W = _on_samples(torch.cumsum(W, 1, out=W), seen, labels, mass)
        return torch.addcmul(W.new_ones(()), W, exp_s, value=-1, out=W)

    return log_D, force


def _on_samples(sums, seen, labels, buffer):
    """Running sums (anchors, positions), read at the end of ties, for each sample: (samples, anchors)."""
    W = buffer.scatter_(1, seen.near, seen.runs.at_last(sums)).T.contiguous()
    return W if len(W) == len(labels.group) else W.index_select(0, labels.group)


def _by_logarithms(strip, itself, seen, n, anchors, scale):
    """The same where denominators differ by more than any type holds."""
    labels, weights = anchors.labels, anchors.weights
    s = strip.to(widest(strip)) * -scale
    s[itself] = -torch.inf
    mass = s if weights is None else s + weights[:, None].log()
    if len(labels.values) < len(s):
        group = labels.group[:, None].expand_as(s)
        largest = s.new_full((len(labels.values), s.shape[1]), -torch.inf).scatter_reduce_(0, group, mass, "amax")
        largest.nan_to_num_(neginf=0)  # an anchor alone with its label
        mass = (mass - largest.index_select(0, labels.group)).exp_()
        mass = torch.zeros_like(largest).index_add_(0, labels.group, mass).log_().add_(largest)
    log_D = seen.runs.at_first(_log_cumsum(mass.T.gather(1, seen.near).flip(1)).flip(1))
    n = n.to(s.dtype)

    def force():
        log_W = _on_samples(_log_cumsum(n.log() - log_D), seen, labels, torch.empty_like(log_D))
        return 1 - log_W.add_(s).exp_()

    return (n * log_D).sum(1), force


def _log_cumsum(terms):
    """Logarithm of the running sum of exp(terms) along rows: torch.logcumsumexp, at the cost of a few exponentials.

    With the largest term for a unit, a running sum is right where it is within the range of the type; the sums before,
    which are smaller, are made again in a smaller unit.
    """
    floor = FLOOR[terms.dtype]
    result, missing = torch.full_like(terms, -torch.inf), terms.isfinite().cumsum(1) > 0
    for _ in range(4):
        unit = terms.masked_fill(~missing, -torch.inf).amax(1, keepdim=True).nan_to_num_(neginf=0)
        sums = (terms - unit).clamp_(max=-floor).exp_().cumsum(1)
        right = missing & (sums > math.exp(floor))
        result = torch.where(right, sums.log_().add_(unit), result)
        missing &= ~right
        if not missing.any():
            return result
    return terms.logcumsumexp(1)
