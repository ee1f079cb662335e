"""The loss as a literal double loop in float64, and how close another way has to come."""

import math

import torch

from rnclib import rnc_loss


def literal(
    features, labels, temperature=2.0, label_diff="l1", feature_sim="l2", ties="rounding", weights=None, reference=None
):
    """The definition in float64: for every i and j ≠ i, −log(exp s_ij / Σ exp s_ik over k ≠ i, d_ik ≥ d_ij)."""
    counted = labels if weights is None else labels[weights > 0]
    tolerance = literal_tolerance(counted if reference is None else torch.cat([counted, reference[1]]), ties)
    if features.ndim == 3:
        labels = labels.repeat_interleave(features.shape[1], dim=0)
        weights = None if weights is None else weights.repeat_interleave(features.shape[1])
        features = features.flatten(0, 1)
    v, y = features.double(), labels.reshape(len(labels), -1).tolist()
    w = [1.0] * len(v) if weights is None else (weights.double() / weights[weights > 0].double().mean()).tolist()
    anchors = len(v)
    if reference is not None:
        v = torch.cat([v, reference[0].double()])
        y += reference[1].reshape(len(reference[1]), -1).tolist()
        w += [1.0] * len(reference[0])
    total = v.sum() * 0
    for i in range(anchors):
        others = [k for k in range(len(v)) if k != i and w[k] > 0]
        if not w[i] or not others:
            continue
        run = literal_runs({k: literal_distance(y[i], y[k], label_diff) for k in others}, tolerance)
        s = {k: literal_similarity(v[i], v[k], feature_sim) / temperature for k in others}
        for j in others:
            terms = torch.stack([s[k] + math.log(w[k]) for k in others if run[k] >= run[j]])
            total = total + w[i] * w[j] * (torch.logsumexp(terms, 0) - s[j]) / sum(w[k] for k in others)
    return total / sum(w[:anchors])


def literal_tolerance(labels, ties):
    """8 units in the last place of the largest label, counted up from it one by one."""
    if ties == "exact" or not labels.is_floating_point() or (labels == labels.round()).all():
        return 0.0
    power = 1.0
    largest = labels.abs().max().item()
    while power > largest:
        power /= 2
    while 2 * power <= largest:
        power *= 2
    digits = {torch.float64: 52, torch.float32: 23, torch.float16: 10, torch.bfloat16: 7}[labels.dtype]
    return 8 * power / 2**digits


def literal_runs(d, tolerance):
    """The number of the run of each distance, nearest first: a run goes on up to `tolerance` from its first."""
    run, number, first = {}, -1, -math.inf
    for k in sorted(d, key=d.get):
        if d[k] - first > tolerance:
            number, first = number + 1, d[k]
        run[k] = number
    return run


def literal_distance(a, b, label_diff):
    if len(a) == 1:
        return abs(a[0] - b[0])
    if label_diff == "l1":
        return sum(abs(p - q) for p, q in zip(a, b, strict=True))
    return math.sqrt(sum((p - q) * (p - q) for p, q in zip(a, b, strict=True)))


def literal_similarity(a, b, feature_sim):
    if feature_sim == "l2":
        return -torch.linalg.vector_norm(a - b)
    if feature_sim == "l1":
        return -(a - b).abs().sum()
    return torch.dot(a, b) / (torch.linalg.vector_norm(a) * torch.linalg.vector_norm(b))


def plain(features, labels, **options):
    """The plain path in float64: what the fast path is tested against where a loop is too slow."""
    return rnc_loss(features.double(), labels, reduction="none", **options).mean()


def value_and_gradient(function, features, *args, **options):
    features = features.detach().clone().requires_grad_()
    value = function(features, *args, **options)
    (gradient,) = torch.autograd.grad(value, features)
    return value.item(), gradient.double()


def assert_close(got, expected, features, temperature, feature_sim, tolerance, gradient_tolerance):
    (value, gradient), (value0, gradient0) = got, expected
    assert abs(value - value0) <= tolerance * max(1, abs(value0))
    # an embedding is pulled by others with forces of up to 1/(τ M); they may cancel, their errors do not
    lever = 1.0
    if feature_sim == "cosine":
        lever = 1 / features.double().flatten(0, -2).norm(dim=1).min().item()
    M = features.numel() // features.shape[-1]
    scale = max(gradient0.abs().max().item(), lever / (temperature * M))
    assert torch.isfinite(gradient).all()
    assert (gradient - gradient0).abs().max().item() <= gradient_tolerance * scale


def dense(features, labels, temperature=2.0, feature_sim="l2"):
    """The definition with one M × M mask for each anchor, in float64: for batches where a loop is too slow."""
    v, y = features.double(), labels.double().reshape(len(labels), -1)
    M, total = len(v), v.sum() * 0
    if feature_sim == "cosine":
        v = v / v.norm(dim=1, keepdim=True)
    tolerance = literal_tolerance(labels, "rounding")
    for i in range(M):
        others = torch.arange(M) != i
        d = (y[others] - y[i]).abs().sum(dim=1)
        number = literal_runs(dict(enumerate(d.tolist())), tolerance)
        run = torch.tensor([number[k] for k in range(M - 1)])
        if feature_sim == "cosine":
            s = v[others] @ v[i] / temperature
        else:
            s = -torch.linalg.vector_norm(v[others] - v[i], dim=1) / temperature
        terms = torch.where(run >= run[:, None], s, -torch.inf)
        total = total + (terms.logsumexp(dim=1) - s).sum()
    return total / (M * (M - 1))
