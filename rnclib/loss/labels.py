r"""Distances between labels, their order seen from an anchor, and the bound that follows from them alone.

Distances are computed in float64 (or exactly, in int64) and then compared: looking up :math:`y_i ± d` among the labels
would miss ties by rounding.

Two distances that differ by rounding alone tie. If whole numbers are scaled to a·y + b, as k/10 or by standardising,
each of the two operations rounds by half a unit in the last place of its result. Where neither result is larger than
the largest label, a label is off by at most one unit in the last place of that, and the difference of two distances by
four. With ``ties='rounding'`` distances within eight of those units tie. (Decimals far from 0 carry an error relative
to their size; shifting them to 0 afterwards does not take it away.) Distances over many columns add up their errors.
"""

from __future__ import annotations

import math
from numbers import Integral
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rnclib.loss.checks import Matrix, check_labels, check_options, check_values, square, widest

__all__ = ["LabelOrder", "Labels", "comparable", "farthest_first", "groups_of", "rnc_lower_bound", "seen_from"]

UNITS = 8  # in the last place of the largest label: see above
BLOCK = 2**18  # distances at a time


def rnc_lower_bound(
    labels: Tensor, *, label_diff: str | Matrix = "l1", n_views: int = 1, ties: str = "rounding"
) -> float:
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
    ties : {'rounding', 'exact'}
        As in `rnc_loss`.

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
    if isinstance(n_views, bool) or not isinstance(n_views, Integral) or n_views < 1:
        raise ValueError(f"n_views: got {n_views!r}; allowed: an integer of at least 1")
    check_options(label_diff=label_diff, ties=ties)
    check_labels(labels)
    check_values(labels=labels)
    y = labels.detach().reshape(len(labels), -1).repeat_interleave(n_views, dim=0)
    y, tolerance = comparable(y, label_diff, ties)
    M = len(y)
    total = 0.0
    for anchors in torch.arange(M, device=y.device).split(max(BLOCK // M, 1)):
        _, last = farthest_first(y, anchors, label_diff, tolerance)
        size = torch.zeros_like(last).scatter_add_(1, last, torch.ones_like(last)).to(widest(y))  # of each run
        total += float(torch.special.xlogy(size, size).sum())
    return total / max(1, M * (M - 1))


# ---- Labels whose distances can be compared -------------------------------------------------------------------


def comparable(y: Tensor, label_diff: str | Matrix, ties: str) -> tuple[Tensor, float]:
    """Labels (M, label_dim) in a type whose distances can be compared, and by how much two that tie may differ.

    The type is float64, or int64 where only that keeps the distances exact. Whole numbers are exact in any type, and a
    callable means what it returns: there only equal distances tie.
    """
    if callable(label_diff):
        return y, 0.0
    if not y.is_floating_point():
        return _whole_numbers(y.to(torch.int64), label_diff), 0.0
    wide = y.to(widest(y))
    if ties == "exact" or bool((y == y.round()).all()):
        return wide, 0.0
    _, exponent = math.frexp(float(y.abs().max()))
    kind = torch.finfo(y.dtype)
    return wide, UNITS * kind.eps * max(2.0 ** (exponent - 1), kind.smallest_normal)


def _whole_numbers(y, label_diff):
    low, high = int(y.min()), int(y.max())
    largest = (high - low) * y.shape[1]
    if largest < 2 / torch.finfo(widest(y)).eps:
        return (y - low).to(widest(y))
    if largest < 2**63 and label_diff == "l1":
        return y - low
    return y.to(widest(y))


def _distances(y, anchors, label_diff):
    """From the labels `anchors` to all, added up column by column, as a plain loop does."""
    if callable(label_diff):
        d = square(label_diff(y), len(y), "label_diff")[anchors]
        if d.isnan().any():
            raise ValueError("label_diff: got a callable that returns NaN; allowed: distances")
        return d if d.is_floating_point() else d.to(torch.int64)
    if y.shape[1] == 1:
        return (y[anchors] - y.T).abs_()
    total = torch.zeros((), dtype=y.dtype, device=y.device)
    for column in y.T:
        term = (column[anchors, None] - column).abs_()
        total = total + (term * term if label_diff == "l2" else term)
    return total.sqrt() if label_diff == "l2" else total


# ---- Runs of ties ---------------------------------------------------------------------------------------------


class Runs(NamedTuple):
    """Runs of ties in ascending rows, by flat position: every entry but the first of its run, that first; every entry
    but the last of its run, that last."""

    later: Tensor
    first: Tensor
    earlier: Tensor
    last: Tensor

    def at_first(self, rows: Tensor) -> Tensor:
        """The rows, in place, with the value at the first of its run for each entry."""
        flat = rows.view(-1)
        flat[self.later] = flat[self.first]
        return rows

    def at_last(self, rows: Tensor) -> Tensor:
        """The rows, in place, with the value at the last of its run for each entry."""
        flat = rows.view(-1)
        flat[self.earlier] = flat[self.last]
        return rows


def _runs(d: Tensor, tolerance: float) -> Runs:
    width = d.shape[1]
    row, at = _ties(d, tolerance)
    starts, chain = _chains(row, at)
    first, last = at[starts][chain], at[starts.roll(-1)][chain] + 1
    return Runs(*(row * width + place for place in (at + 1, first, at, last)))


def _ties(d, tolerance):
    """Row and position of each entry whose successor is in the same run."""
    near, far = d[:, :-1], d[:, 1:]
    tie = far - near <= tolerance if tolerance else far == near  # infinite ones too
    where = _positions(tie)
    row, at = where // tie.shape[1], where % tie.shape[1]
    if not tolerance or not len(row):
        return row, at
    starts, chain = _chains(row, at)
    too_far = d[row, at + 1] - d[row, at[starts][chain]] > tolerance
    if not too_far.any():
        return row, at
    long = torch.zeros_like(at[starts]).index_fill_(0, chain[too_far], 1).bool()[chain]
    cut = torch.zeros_like(starts)
    cut[long] = _new_runs(d, tolerance, row[long], at[long])
    return row[~cut], at[~cut]


def _positions(mask):
    """Flat positions of what is true."""
    if mask.device.type == "cpu":
        try:
            return torch.from_numpy(np.flatnonzero(mask.numpy()))  # many times faster where it is little
        except RuntimeError:  # inside of a transform of torch.func
            pass
    return mask.reshape(-1).nonzero()[:, 0]


def _chains(row, at):
    """Which ties begin a chain of ties, each of the next entry, and the number of the chain of each."""
    first = torch.ones_like(row, dtype=torch.bool)
    first[1:] = (row[1:] != row[:-1]) | (at[1:] != at[:-1] + 1)
    return first, first.cumsum(0) - 1


def _new_runs(d, tolerance, row, at):
    """At which ties of long chains a new run begins, as the entry is too far from the first of the run before."""
    first, chain = _chains(row, at)
    # The entries of all chains in a row: of each, the one where it begins and those it leads to.
    place = torch.arange(len(at), device=at.device) + chain + 1
    begin = place[first] - 1
    value = d.new_empty(len(at) + len(begin))
    value[place] = d[row, at + 1]
    value[begin] = d[row[first], at[first]]
    stop = torch.zeros_like(value, dtype=torch.int64)
    stop[begin[1:]] = 1
    stop = torch.cat([begin[1:], begin.new_tensor([len(value)])])[stop.cumsum(0)]  # where the chain of each ends

    end = len(value)
    last = torch.arange(end, device=at.device)  # of the run, if one began here: by steps of halving length
    for power in reversed(range(end.bit_length())):
        ahead = last + 2**power
        within = ahead < stop
        ahead = torch.where(within, ahead, last)
        last = torch.where(within & (value[ahead] - value <= tolerance), ahead, last)
    jump = torch.cat([torch.where(last + 1 < stop, last + 1, end), last.new_tensor([end])])  # to the run after
    begins = torch.zeros(end + 1, dtype=torch.bool, device=at.device)
    begins[begin] = True
    for _ in range(end.bit_length()):  # after n rounds, all that 2**n jumps reach
        begins[jump[begins]] = True
        jump = jump[jump]
    return begins[place]


def farthest_first(y: Tensor, anchors: Tensor, label_diff: str | Matrix, tolerance: float) -> tuple[Tensor, Tensor]:
    """The others in descending distance from each anchor, and where the run of ties that each is in ends."""
    itself = anchors[:, None] == torch.arange(len(y), device=y.device)
    d = _distances(y, anchors, label_diff)
    least = -torch.inf if d.is_floating_point() else torch.iinfo(d.dtype).min
    d, order = d.masked_fill(itself, least).sort(dim=1)
    d, order = d[:, 1:], order[:, 1:].flip(1)  # the anchor itself came first
    last = torch.arange(d.shape[1] - 1, -1, -1, device=y.device).repeat(len(d), 1)
    return order, _runs(d, tolerance).at_first(last).flip(1)


# ---- Groups of equal labels -----------------------------------------------------------------------------------


class Labels(NamedTuple):
    """Distinct labels in ascending order (U, label_dim), the group of each sample, how many each group has."""

    values: Tensor
    group: Tensor
    size: Tensor
    label_diff: str
    tolerance: float


class LabelOrder(NamedTuple):
    """What some anchors (rows) see; positions count the U groups, nearest first."""

    near: Tensor  # the groups
    own: Tensor  # the position of the anchor's own group
    runs: Runs

    def expand(self, rows: Tensor) -> LabelOrder:
        """What anchors see that see the same as the ascending `rows` of these."""
        width = self.near.shape[1]
        lists = []
        for where, what in ((self.runs.later, self.runs.first), (self.runs.earlier, self.runs.last)):
            count = torch.bincount(where // width, minlength=len(self.near))
            copies = count[rows]
            before = (count.cumsum(0) - count)[rows] - (copies.cumsum(0) - copies)
            source = torch.arange(int(copies.sum()), device=rows.device) + before.repeat_interleave(copies)
            shift = (torch.arange(len(rows), device=rows.device) - rows).repeat_interleave(copies) * width
            lists += [where[source] + shift, what[source] + shift]
        return LabelOrder(self.near.index_select(0, rows), self.own[rows], Runs(*lists))


def groups_of(y: Tensor, label_diff: str, ties: str) -> Labels:
    """Gather samples of equal label."""
    y, tolerance = comparable(y, label_diff, ties)
    if y.shape[1] > 1:
        values, group, size = torch.unique(y, dim=0, return_inverse=True, return_counts=True)
    else:
        values, group, size = torch.unique(y[:, 0], return_inverse=True, return_counts=True)
        values = values[:, None]
    return Labels(values, group, size, label_diff, tolerance)


def seen_from(labels: Labels, first: int, last: int) -> LabelOrder:
    """The order of all groups seen from the groups `first` to `last`."""
    anchors = torch.arange(first, last + 1, device=labels.group.device)
    d = _distances(labels.values, anchors, labels.label_diff)
    if labels.tolerance:
        # who is alone with its label has no distance 0 to another: nothing ties with it
        itself = anchors - first, anchors
        d[itself] = torch.where(labels.size[anchors] > 1, d[itself], -torch.inf)
    if d.device.type == "cpu":  # NumPy sorts rows several times faster
        # With one label a row falls, then rises: a stable sort only merges the two runs.
        kind = "stable" if labels.values.shape[1] == 1 else None
        near = torch.from_numpy(d.numpy().argsort(axis=1, kind=kind))
    else:
        near = d.argsort(dim=1)
    own = torch.zeros_like(anchors)
    if not bool((near[:, 0] == anchors).all()):  # another group is at distance 0 by underflow
        own = (near == anchors[:, None]).to(torch.int8).argmax(dim=1)
    return LabelOrder(near, own, _runs(d.gather(1, near), labels.tolerance))
