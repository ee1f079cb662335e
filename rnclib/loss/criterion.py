"""The loss as a function and as a module."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from rnclib.loss import fast, plain, processes
from rnclib.loss.checks import (
    Matrix,
    check_features,
    check_flags,
    check_options,
    check_temperature,
    check_values,
    check_weights,
    widest,
)  # fmt: skip

__all__ = ["RnCLoss", "rnc_loss"]

OPTIONS = ("temperature", "label_diff", "feature_sim", "reduction", "ties", "gather", "group", "validate")


def rnc_loss(
    features: Tensor,
    labels: Tensor,
    *,
    temperature: float | Tensor = 2.0,
    label_diff: str | Matrix = "l1",
    feature_sim: str | Matrix = "l2",
    reduction: str = "mean",
    weights: Tensor | None = None,
    reference: tuple[Tensor, Tensor] | None = None,
    ties: str = "rounding",
    gather: bool = False,
    group: Any = None,
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
    temperature : float or Tensor
        τ > 0. A tensor of one number can be learnt: it gets its gradient.
    label_diff : {'l1', 'l2'} or callable
        Distance of two labels. A callable takes labels (M, label_dim) and returns distances (M, M).
    feature_sim : {'l2', 'cosine', 'l1'} or callable
        Similarity of two embeddings before the division by τ: negative distance, or cosine. A callable takes
        embeddings (M, feat_dim) and returns similarities (M, M).
    reduction : {'mean', 'sum', 'none'}
        'none' gives each anchor's mean over its pairs, shape (n, n_views) or (n,). Their mean is the loss.
    weights : Tensor, optional
        How much each sample counts, shape (n,), at least 0: as an anchor, in its pairs and in denominators (see
        Notes). 0 takes a sample out; equal weights change nothing. They get no gradient.
    reference : (Tensor, Tensor), optional
        Further embeddings (r, feat_dim) and their labels, such as a queue of past batches: each anchor is compared
        with them too, but they are no anchors. They are on the side of the own process with `gather`.
    ties : {'rounding', 'exact'}
        Whether label distances that differ by rounding alone are equal. With 'rounding', in the sorted distances of an
        anchor one ties with the first of its run if they differ by at most 8 units in the last place of the largest
        \|label\| of the batch, in the type of the labels. So k/10, or whole ages standardised in float32, give the
        loss of the whole numbers. Labels that are whole numbers, and distances from a callable, are compared exactly.
    gather : bool
        Take the samples of all processes of `torch.distributed` as one batch. Every process returns the loss of
        the whole batch (with reduction='none', its own anchors'), and averaging parameter gradients over the
        processes, as DistributedDataParallel does, gives exactly the gradient of that loss. Local batches may differ
        in size. Without a process group this changes nothing. A temperature that is learnt has to be the same in all:
        as part of the module that DistributedDataParallel wraps.
    group : ProcessGroup, optional
        The processes that `gather` takes, by default all.
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
        For wrong shapes or types, NaN or infinite values, or an unknown option; with `gather`, in every process, also
        if they do not agree.

    Notes
    -----
    With weights :math:`w_i`, divided by their mean over the samples of a weight above 0 (references have 1),

    .. math::

        ℓ_i = \frac{\sum_{j≠i} w_j (\log D_{ij} - s_{ij})}{\sum_{j≠i} w_j}, \qquad
        D_{ij} = \sum_{k≠i,\; d_{ik} ≥ d_{ij}} w_k e^{s_{ik}}, \qquad
        L = \frac{\sum_i w_i ℓ_i}{\sum_i w_i} ;

    'none' gives the :math:`w_i ℓ_i` with weights as given, 'sum' their sum.

    The named options with reduction='mean' or 'sum' take the fast path (see `rnclib.loss`): at most one M × M matrix
    up to M = 4096, memory linear in M beyond; no second derivatives; `torch.func.grad` and `torch.vmap` work.
    Callables and reduction='none' take the plain path, which sorts M × M matrices and can be differentiated
    twice (where similarities are distances, from PyTorch 2.14 on). feature_sim='l1' is the plain path in blocks.

    The loss is exact to 1e-10 for float64 features; for float32 to 1e-5·max(1, L), its gradient to 1e-4 of its
    largest entry, or of 1/(τ M), the pull of a pair, where the pulls cancel. Where float32 cannot hold that, as with
    embeddings many τ apart, float64 is used inside, and logarithms where its exp leaves its range. Beyond 1e5 τ the
    rounding of a distance in float64 is what remains: about 2e-16 of it. On a device without float64 all is float32,
    and exact to 1e-3 where distances are below 60 τ.
    Two equal embeddings exert no force on each other, and an embedding of length below 1e-12 has cosine 0 to all
    others.

    Examples
    --------
    >>> features = torch.tensor([[0.0], [1.0], [2.0], [4.0]])
    >>> labels = torch.tensor([20, 30, 40, 60])
    >>> round(rnc_loss(features, labels).item(), 4)
    0.498
    """
    check_options(label_diff=label_diff, feature_sim=feature_sim, reduction=reduction, ties=ties)
    check_temperature(temperature, value=not isinstance(temperature, Tensor))
    check_flags(gather=gather, validate=validate)
    _check_group(group, gather)

    options = fast.Options(label_diff, feature_sim, reduction, ties, validate)
    # torch.compile calls the loss as it is: its steps depend on what the embeddings look like.
    compute = torch.compiler.disable(_loss) if torch.compiler.is_compiling() else _loss
    return compute(features, labels, weights, reference, temperature, options, gather, group)


def _loss(features, labels, weights, reference, temperature, options, gather, group):
    def own() -> processes.Part:
        _check_shapes(features, labels, weights, reference)
        finite = options.validate and _check_values(temperature, features, labels, weights, reference)
        return _embeddings(features, labels, weights, finite)

    shared = gather and processes.are_there()
    part, rows = processes.gathered(own, group, temperature) if shared else (own(), None)
    v, y, w, finite = part
    count: int | Tensor = len(v)  # of anchors
    unit: int | Tensor = 1  # of weights
    if w is not None:
        w, unit = plain.normalised(w)
        count = w.sum().to(v.dtype)
    if rows is None:
        rows = torch.arange(len(v), device=v.device)
    if reference is not None:
        v = torch.cat([v, reference[0].to(v.dtype)])
        y = torch.cat([y, _whole(reference[1]).reshape(len(reference[1]), -1)])
        w = None if w is None else torch.cat([w, w.new_ones(len(reference[0]))])
    options = options._replace(finite=finite, accuracy=v.dtype)
    with torch.autocast(v.device.type, enabled=False):
        if options.reduction == "none" or callable(options.label_diff) or callable(options.feature_sim):
            losses = _anchor_losses(v, temperature, y, w, rows, options)
            if options.reduction == "none":
                return (losses * unit).to(v.dtype).reshape(features.shape[:-1])
            total = losses.sum().to(v.dtype)
        else:
            x = plain.unit_vectors(v) if options.feature_sim == "cosine" else v
            total, *_ = fast.SumOfLosses.apply(x, temperature, y, w, rows, options, fast.needs(x, temperature))
            total = total.to(v.dtype)
    if shared:
        total = processes.total(total, group)
    return (total * unit).to(v.dtype) if options.reduction == "sum" else total / count


def _embeddings(features, labels, weights, finite):
    """Every view on its own: v (M, feat_dim), y (M, label_dim), weights (M,)."""
    n_views = features.shape[1] if features.ndim == 3 else 1
    v = features.reshape(-1, features.shape[-1]).to(torch.promote_types(features.dtype, torch.float32))
    y = _whole(labels).reshape(len(labels), -1).repeat_interleave(n_views, dim=0)
    if weights is not None:
        weights = weights.detach().to(widest(v)).repeat_interleave(n_views)
    return processes.Part(v, y, weights, finite)


def _whole(labels):
    """Labels without gradient, in a type for which PyTorch has the operations."""
    unsigned = labels.dtype in (torch.uint16, torch.uint32, torch.uint64)
    return labels.detach().to(torch.int64) if unsigned else labels.detach()


def _anchor_losses(v, temperature, y, weights, rows, options):
    """Losses of the anchors on the plain path, each times its weight."""
    try:
        finite = options.finite or fast.usable(v, temperature, y, weights)
    except RuntimeError as error:
        if "vmap" not in str(error):
            raise
        raise RuntimeError(
            "torch.vmap over rnc_loss needs reduction='mean' or 'sum' and named options; else loop over the problems"
        ) from error
    if not finite:
        # all of its gradient is NaN too, so that a gradient scaler sees it
        return (v[rows] * torch.nan).sum(dim=1) + v.sum() * torch.nan + temperature * torch.nan
    if weights is None:
        return plain.anchor_losses(v, y, rows, None, temperature, options)
    kept, counted, place = plain.counting(weights, rows)
    some = plain.anchor_losses(v[kept], y[kept], place, weights[kept], temperature, options)
    return torch.zeros_like(weights[rows]).index_put((counted,), some * weights[rows[counted]])


def _check_group(group, gather):
    if group is not None and not gather:
        raise ValueError(f"group: got {group!r}; allowed: None without gather=True")


def _check_values(temperature, features, labels, weights, reference):
    """Whether they could be checked: torch.vmap shows them only to autograd functions, which check them then."""
    try:
        check_temperature(temperature)
        check_values(features=features, labels=labels, weights=weights)
        if reference is not None:
            check_values(**{"reference[0]": reference[0], "reference[1]": reference[1]})
    except RuntimeError as error:
        if "vmap" not in str(error):
            raise
        return False
    return True


def _check_shapes(features, labels, weights, reference):
    check_features(features, labels)
    if weights is not None:
        check_weights(weights, features)
    if reference is None:
        return
    if not isinstance(reference, (tuple, list)) or len(reference) != 2:
        raise ValueError(f"reference: got {type(reference).__name__}; allowed: a pair of embeddings and labels")
    check_features(reference[0], reference[1], "reference[0]", "reference[1]")
    for name, got, allowed in (
        ("reference[0]: got shape", tuple(reference[0].shape), (len(reference[0]), features.shape[-1])),
        ("reference[1]: got labels of shape", tuple(reference[1].shape[1:]), tuple(labels.shape[1:])),
        ("reference[1]: got", reference[1].dtype, labels.dtype),
        ("reference[0]: got device", reference[0].device, features.device),
    ):
        if got != allowed:
            raise ValueError(f"{name} {got}; allowed: {allowed}, as in the batch")


class RnCLoss(nn.Module):
    """Rank-N-Contrast loss as a module, called as the official class is.

    Parameters
    ----------
    temperature, label_diff, feature_sim, reduction, ties, gather, group, validate
        As in `rnc_loss`. A ``temperature`` that is an `nn.Parameter` is one of the module's.

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
        temperature: float | Tensor = 2,
        label_diff: str | Matrix = "l1",
        feature_sim: str | Matrix = "l2",
        *,
        reduction: str = "mean",
        ties: str = "rounding",
        gather: bool = False,
        group: Any = None,
        validate: bool = True,
    ) -> None:
        super().__init__()
        check_options(label_diff=label_diff, feature_sim=feature_sim, reduction=reduction, ties=ties)
        check_temperature(temperature)
        check_flags(gather=gather, validate=validate)
        _check_group(group, gather)
        self.temperature = temperature
        self.label_diff = label_diff
        self.feature_sim = feature_sim
        self.reduction = reduction
        self.ties = ties
        self.gather = gather
        self.group = group
        self.validate = validate

    def forward(
        self,
        features: Tensor,
        labels: Tensor,
        *,
        weights: Tensor | None = None,
        reference: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Loss of features (n, n_views, feat_dim) or (n, feat_dim) with labels (n,) or (n, label_dim)."""
        options = {name: getattr(self, name) for name in OPTIONS}
        return rnc_loss(features, labels, weights=weights, reference=reference, **options)

    def extra_repr(self) -> str:
        """Options shown by ``print(criterion)``."""
        values = {name: getattr(self, name) for name in OPTIONS}
        if isinstance(self.temperature, Tensor):
            values["temperature"] = self.temperature.item()
        return ", ".join(f"{name}={value!r}" for name, value in values.items())
