"""One batch of what several processes of `torch.distributed` hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from rnclib.loss.checks import widest

__all__ = ["Part", "are_there", "gathered", "total"]

MESSAGE = 2048  # bytes that each process says about its part


class Part(NamedTuple):
    """Embeddings v (M, feat_dim), labels y (M, label_dim) and weights (M,) of a process."""

    v: Tensor
    y: Tensor
    weights: Tensor | None
    finite: bool  # known to have no NaN or infinite values


def are_there() -> bool:
    """Whether this process is one of several that know of each other."""
    return dist.is_available() and dist.is_initialized()


def gathered(own: Callable[[], Part], group: Any, temperature: float | Tensor) -> tuple[Part, Tensor]:
    """The parts of all processes one after the other, and the rows of this process.

    Raises
    ------
    ValueError
        In every process, if `own` raises one in any of them, or if the parts do not fit together, or the temperatures.
    """
    if dist.get_rank(group) < 0:
        raise ValueError("group: got one that this process is not in; allowed: a group of this process")
    try:
        part = own()
    except ValueError as error:
        device = torch.cuda.current_device() if dist.get_backend(group) == "nccl" else "cpu"
        everyone = _exchanged({"error": str(error)[: MESSAGE // 8]}, torch.device(device), group)
    else:
        everyone = _exchanged(_facts(part, temperature), part.v.device, group)
    _check_agreement(everyone)
    sizes = [said["n"] for said in everyone]
    v, y, weights, finite = part
    wide = widest(v) if y.is_floating_point() else torch.int64
    whole = Part(
        _AllGather.apply(v, sizes, group),
        _AllGather.apply(y.to(wide), sizes, group).to(y.dtype),
        None if weights is None else _AllGather.apply(weights, sizes, group),
        finite,
    )
    return whole, torch.arange(sum(sizes), device=v.device).split(sizes)[dist.get_rank(group)]


def total(value: Tensor, group: Any) -> Tensor:
    """Sum of a number over all processes, with the gradient that averaging over processes makes right."""
    return _AllGather.apply(value[None], [1] * dist.get_world_size(group), group).sum()


def _facts(part, temperature):
    """What has to be the same everywhere, by argument and property, and the number of rows."""
    return {
        "n": len(part.v),
        "features": {"feat_dim": part.v.shape[1], "type": str(part.v.dtype)},
        "labels": {"label_dim": part.y.shape[1], "type": str(part.y.dtype)},
        "weights": {"given": part.weights is not None},
        "temperature": {"value": float(temperature)},
    }


def _exchanged(facts, device, group):
    """What every process says, by rank."""
    text = json.dumps(facts).encode().ljust(MESSAGE)
    said = torch.frombuffer(bytearray(text), dtype=torch.uint8).to(device)
    everyone = [torch.empty_like(said) for _ in range(dist.get_world_size(group))]
    dist.all_gather(everyone, said, group=group)
    return [json.loads(bytes(one.tolist())) for one in everyone]


def _check_agreement(everyone):
    for process, said in enumerate(everyone):
        if "error" in said:
            raise ValueError(f"{said['error']} (in process {process})")
    for name in ("features", "labels", "weights", "temperature"):
        for what in everyone[0][name]:
            got = [str(said[name][what]) for said in everyone]
            if len(set(got)) > 1:
                raise ValueError(f"{name}: got {what} {', '.join(got)} by process; allowed: the same in all")


class _AllGather(torch.autograd.Function):
    """Rows of all processes, in the order of their ranks; backward adds up the gradients of all processes."""

    @staticmethod
    def forward(rows, sizes, group):
        padded = rows.new_zeros(max(sizes), *rows.shape[1:])
        padded[: len(rows)] = rows
        parts = [torch.empty_like(padded) for _ in sizes]
        dist.all_gather(parts, padded, group=group)
        return torch.cat([part[:size] for part, size in zip(parts, sizes, strict=True)])

    @staticmethod
    def setup_context(ctx, inputs, output):
        _, ctx.sizes, ctx.group = inputs

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, grad):
        grad = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad, group=ctx.group)
        return grad.split(ctx.sizes)[dist.get_rank(ctx.group)], None, None
