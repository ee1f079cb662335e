"""The batches on which the benchmark times a loss: random ones, ones of every kind, and those of a training.

What embeddings look like depends on the network and on how far it is trained. `REGIMES` names the kinds that may slow
a loss down; `trained_batches` takes them from a network while it learns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator

import torch
from torch import Tensor

from rnclib.loss import rnc_loss

__all__ = ["LABELS", "REGIMES", "TEMPERATURE", "make_batch", "make_regime", "reach", "trained_batches"]

TEMPERATURE = 2.0
LABELS = ("ages", "continuous")
OLDEST = 101  # years

Batch = tuple[Tensor, Tensor]


def make_batch(M: int, d: int, labels: str, seed: int = 0) -> Batch:
    """Normal embeddings of M/2 samples in two views, or of M samples with distinct labels.

    Parameters
    ----------
    M, d : int
        Embeddings in the batch, and their length.
    labels : {'ages', 'continuous'}
    seed : int
    """
    generator = torch.Generator().manual_seed(seed)
    v = torch.randn(M, d, generator=generator).requires_grad_()
    if labels == "ages":
        return v, torch.randint(1, OLDEST + 1, (M // 2,), generator=generator).repeat(2)
    return v, torch.randn(M, generator=generator)


def reach(v: Tensor) -> float:
    """Radius of a batch, the largest distance of an embedding from the mean, over τ.

    Parameters
    ----------
    v : Tensor, shape (M, d)

    Examples
    --------
    >>> reach(torch.tensor([[-6.0], [0.0], [6.0]]))
    3.0
    """
    v = v.detach().double()
    return float((v - v.mean(dim=0)).norm(dim=1).max()) / TEMPERATURE


# --- kinds of batches: each is made of normal embeddings and ages -------------------------------------------------


def _reaching(radius: float) -> Callable[[Tensor, Tensor], Batch]:
    return lambda v, y: (v * (radius / reach(v)), y)


def _one_outlier(v: Tensor, y: Tensor) -> Batch:
    return torch.cat([200 * v[:1], v[1:]]), y


def _collapsed(v: Tensor, y: Tensor) -> Batch:
    return torch.cat([3 * v[:1], 1e-3 * v[1:]]), y


def _half_zero(v: Tensor, y: Tensor) -> Batch:
    return v * (torch.arange(len(v)) % 2)[:, None], y


def _on_a_line(v: Tensor, y: Tensor) -> Batch:
    along = torch.nn.functional.normalize(v[:1], dim=1)
    return _reaching(50)(y[:, None] * along + 0.05 * v, y)


def _all_different(v: Tensor, y: Tensor) -> Batch:
    return v, torch.randn(len(y), generator=torch.Generator().manual_seed(1))


#: How each kind of batch is made of normal embeddings and ages. A number after "reach" is that of the batch.
REGIMES: dict[str, Callable[[Tensor, Tensor], Batch]] = {
    "as drawn": lambda v, y: (v, y),
    **{f"reach {radius}": _reaching(radius) for radius in (1, 3, 10, 30, 100, 300, 1000)},
    "one outlier": _one_outlier,  # × 200
    "collapsed": _collapsed,  # all × 0.001 but one × 3
    "half of the embeddings zero": _half_zero,  # as behind a ReLU that is dead for them
    "ordered along a line": _on_a_line,
    "labels with decimals": lambda v, y: (v, y.float() / 10),
    "all labels equal": lambda v, y: (v, torch.full_like(y, 50)),
    "all labels different": _all_different,
    "all labels different, reach 300": lambda v, y: _reaching(300)(*_all_different(v, y)),
}


def make_regime(name: str, M: int, d: int) -> Batch:
    """A batch of a kind.

    Parameters
    ----------
    name : str
        A key of `REGIMES`.
    M, d : int
        As in `make_batch`.
    """
    v, y = make_batch(M, d, "ages")
    v, y = REGIMES[name](v.detach(), y)
    return v.requires_grad_(), y


# --- batches of a training --------------------------------------------------------------------------------------


def trained_batches(M: int, d: int, steps: Collection[int]) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Features and labels of the batches at some steps of a training with `rnc_loss`.

    A perceptron of two layers learns the ages of a synthetic table: 32 waves of the age with noise. A batch is M/2
    samples in two views that differ in noise. The optimiser is that of the published protocol for faces, at its
    first rate.

    Parameters
    ----------
    M, d : int
        Features in the batch, and their length.
    steps : collection of int
        Counted from 0, which is before the first update.

    Yields
    ------
    step : int
    v : Tensor, shape (M, d)
    y : Tensor, shape (M,)
    """
    # where a batch is all that is needed, as where memory is measured, these stay unloaded
    from rnclib.encoders import Perceptron
    from rnclib.protocols import FACES_PRESETS

    stage = FACES_PRESETS["paper"]["encoder"]["rnc"]
    generator = torch.Generator().manual_seed(0)
    ages = torch.randint(1, OLDEST + 1, (2 * M,), generator=generator)
    frequency, phase = 6 * torch.randn(32, generator=generator), 2 * math.pi * torch.rand(32, generator=generator)
    table = torch.sin(ages[:, None] / OLDEST * frequency + phase)
    table += 0.1 * torch.randn(table.shape, generator=generator)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Perceptron(table.shape[1], (d, d))
    optimizer = torch.optim.SGD(
        network.parameters(), stage.learning_rate, momentum=stage.momentum, weight_decay=stage.weight_decay
    )
    for step in range(max(steps) + 1):
        drawn = torch.randperm(len(ages), generator=generator)[: M // 2].repeat(2)
        views = table[drawn] + 0.03 * torch.randn(M, table.shape[1], generator=generator)
        features, labels = network(views), ages[drawn]
        if step in steps:
            yield step, features.detach().requires_grad_(), labels
        optimizer.zero_grad()
        rnc_loss(features, labels, temperature=TEMPERATURE).backward()
        optimizer.step()
