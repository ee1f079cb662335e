"""Other ways to give a regression network an ordered representation, to compare Rank-N-Contrast with.

SupCon on binned targets trains an encoder, as Rank-N-Contrast does. Ordinal Entropy, RankSim and ConR are terms added
to the regression loss of end-to-end training.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["bin_edges", "binned_supcon_loss", "conr", "ordinal_entropy", "ranksim"]


def bin_edges(labels: Tensor, n_bins: int) -> Tensor:
    """Inner edges of bins that hold equally many labels each.

    Parameters
    ----------
    labels : Tensor, shape (n,)
        Of the training set.
    n_bins : int
        At least 2.

    Returns
    -------
    Tensor, shape (at most n_bins − 1,)
        Fewer where labels repeat so often that edges coincide.

    Examples
    --------
    >>> bin_edges(torch.tensor([1.0, 2.0, 3.0, 4.0]), 2)
    tensor([2.5000])
    """
    if not isinstance(n_bins, int) or n_bins < 2:
        raise ValueError(f"n_bins: got {n_bins!r}; allowed: an integer of at least 2")
    shares = torch.arange(1, n_bins, dtype=torch.float64, device=labels.device) / n_bins
    return torch.quantile(labels.double(), shares).unique().to(labels.dtype)


def binned_supcon_loss(features: Tensor, labels: Tensor, edges: Tensor, temperature: float = 0.1) -> Tensor:
    """Supervised contrastive loss with samples of the same bin of the target as positives.

    L_out of Khosla et al. (2020), equation 2, on cosine similarities; anchors without a positive are left out.

    Parameters
    ----------
    features : Tensor, shape (n, feat_dim) or (n, n_views, feat_dim)
    labels : Tensor, shape (n,)
    edges : Tensor
        From `bin_edges`.
    temperature : float
        Above 0.

    Raises
    ------
    ValueError
        If it is not.
    """
    if not temperature > 0:
        raise ValueError(f"temperature: got {temperature!r}; allowed: a number above 0")
    n_views = 1 if features.dim() == 2 else features.shape[1]
    z = F.normalize(features.reshape(-1, features.shape[-1]).float(), dim=1)
    bins = torch.bucketize(labels, edges).repeat_interleave(n_views)
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    similarity = (z @ z.T / temperature).masked_fill(itself, -torch.inf)
    positive = (bins[:, None] == bins) & ~itself
    log_p = (similarity - similarity.logsumexp(dim=1, keepdim=True)).masked_fill(~positive, 0)
    count = positive.sum(1)
    has = count > 0
    return -(log_p.sum(1)[has] / count[has]).sum() / has.sum().clamp_min(1)


def ordinal_entropy(features: Tensor, labels: Tensor) -> Tensor:
    """Ordinal Entropy (Zhang et al., ICLR 2023): feature centres far apart in proportion to their labels, and tight.

    Features are normalised; those of equal labels have a centre. The diversity term is minus the mean distance of two
    centres, weighted by the distance of their labels, in units of the largest in the batch. The tightness term is the
    mean distance of features from their centre, 0 where all labels differ, as measured ones mostly do.

    Parameters
    ----------
    features : Tensor, shape (n, feat_dim)
    labels : Tensor, shape (n,)

    Returns
    -------
    Tensor
        Sum of the two terms; the tightness alone for a single label.
    """
    z = F.normalize(features.float(), dim=1)
    values, group, count = labels.unique(return_inverse=True, return_counts=True)
    centres = torch.zeros(len(values), z.shape[1], device=z.device).index_add(0, group, z) / count[:, None]
    off = z - centres[group]
    # a norm has no gradient at 0, which is where features of a label of its own are
    apart = off.pow(2).sum(1)
    tightness = torch.where(apart > 0, apart, 1.0).sqrt().mul(apart > 0).mean()
    if len(values) < 2:
        return tightness
    first, second = torch.triu_indices(len(values), len(values), offset=1, device=z.device)
    weight = (values[first] - values[second]).abs().float()
    distance = (centres[first] - centres[second]).pow(2).sum(1).clamp_min(1e-12).sqrt()
    return tightness - (weight / weight.max() * distance).mean()


def ranksim(features: Tensor, labels: Tensor, strength: float = 2.0) -> Tensor:
    """RankSim (Gong et al., ICML 2022): neighbours in feature space ranked as neighbours in label space.

    Seen from a sample, all are ranked by label similarity (minus the distance) and by cosine similarity of features;
    the mean squared difference of the two ranks is summed over samples. Ranks are shares from 1/n to 1. Of several
    samples with one label only the first takes part. The gradient through the ranks is that of a linear interpolation
    (Vlastelica et al. 2020).

    Parameters
    ----------
    features : Tensor, shape (n, feat_dim)
    labels : Tensor, shape (n,)
    strength : float
        λ of the interpolation.
    """
    values, group = labels.unique(return_inverse=True)
    first = torch.full((len(values),), len(labels), device=labels.device)
    first = first.scatter_reduce(0, group, torch.arange(len(labels), device=labels.device), "amin")
    z, y = F.normalize(features[first].float(), dim=1), labels[first]
    wanted = _ranks(-(y[:, None] - y).abs())
    return (_DifferentiableRanks.apply(z @ z.T, strength) - wanted).square().mean(dim=1).sum()


def conr(
    features: Tensor,
    labels: Tensor,
    predictions: Tensor,
    window: float,
    *,
    temperature: float = 0.07,
    push: float = 0.2,
) -> Tensor:
    """ConR (Keramati et al., ICLR 2024): a contrast with samples that are predicted alike though their labels differ.

    Seen from a sample, those of labels within the window attract it; those of other labels whose predictions lie within
    the window repel it, with a weight that grows with the distance of the labels, exp(push · distance). A sample
    without one of either kind contributes nothing. Labels count alike, however rare they are.

    Parameters
    ----------
    features : Tensor, shape (n, feat_dim)
        Compared by cosine similarity.
    labels, predictions : Tensor, shape (n,)
        In one unit.
    window : float
        Positive, in that unit.
    temperature, push : float

    Returns
    -------
    Tensor
        Mean over the samples. It follows the equation of the paper; the authors' code adds 1 to the denominator for
        each sample that is no positive.
    """
    z, predictions = F.normalize(features.float(), dim=1), predictions.reshape(labels.shape)
    apart = (labels[:, None] - labels).abs().to(z.dtype)
    itself = torch.eye(len(z), dtype=torch.bool, device=z.device)
    positive = (apart <= window) & ~itself
    negative = (apart > window) & ((predictions[:, None] - predictions).abs() <= window)
    has = positive.any(1) & negative.any(1)
    if not has.any():
        return features.sum() * 0
    positive, negative = positive[has], negative[has]
    similarity = (z @ z.T / temperature)[has]
    exponent = similarity + push * apart[has] * negative
    below = exponent.masked_fill(~(positive | negative), -torch.inf).logsumexp(1, keepdim=True)
    return ((below - similarity) * positive).sum(1).div(positive.sum(1)).sum() / len(z)


def _ranks(rows: Tensor) -> Tensor:
    """Rank of each entry in its row, the largest first, as a fraction."""
    return (rows.argsort(dim=1, descending=True, stable=True).argsort(dim=1) + 1).float() / rows.shape[1]


class _DifferentiableRanks(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, strength: float) -> Tensor:
        ranks = _ranks(rows)
        ctx.strength = strength
        ctx.save_for_backward(rows, ranks)
        return ranks

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        rows, ranks = ctx.saved_tensors
        moved = _ranks(rows + ctx.strength * grad_outputs[0])
        return (moved - ranks) / ctx.strength, None
