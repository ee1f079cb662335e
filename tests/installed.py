"""Does an installed rnclib do with PyTorch and NumPy alone? `make package` asks, in an environment of these."""

import doctest
import itertools
import pkgutil
import platform
from importlib import import_module
from importlib.metadata import requires
from pathlib import Path

import numpy as np
import torch

from rnclib import loss, rnc_loss


def doctests() -> int:
    names = [loss.__name__, *(found.name for found in pkgutil.iter_modules(loss.__path__, f"{loss.__name__}."))]
    results = [doctest.testmod(import_module(name), raise_on_error=True) for name in names]
    return sum(result.attempted for result in results)


def gradient(features: torch.Tensor, labels: torch.Tensor, **options: str) -> torch.Tensor:
    features = features.clone().requires_grad_()
    rnc_loss(features, labels, **options).mean().backward()
    return features.grad


def both_paths_agree() -> None:
    torch.manual_seed(0)
    features = torch.randn(80, 2, 5, dtype=torch.float64)
    ages, real = torch.randint(100, (80,)), torch.randn(80, 2)
    kinds = (ages, real, real.half(), real[:, 0] > 0)
    types = ((torch.float64, 1e-10), (torch.float32, 1e-4), (torch.bfloat16, 0.01))
    for labels, sim, (dtype, tolerance) in itertools.product(kinds, ("l2", "cosine", "l1"), types):
        batch = features.to(dtype)
        expected = gradient(batch.double(), labels, feature_sim=sim, reduction="none")
        error = (gradient(batch, labels, feature_sim=sim) - expected).abs().max()
        assert error <= tolerance * expected.abs().max(), (sim, labels.dtype, dtype, error)


def transforms_work() -> None:
    batches, labels = torch.randn(3, 20, 5, dtype=torch.float64), torch.randn(20)
    gradients = torch.vmap(torch.func.grad(lambda features: rnc_loss(features, labels)))(batches)
    assert torch.equal(gradients, torch.stack([gradient(features, labels) for features in batches]))


if __name__ == "__main__":
    assert Path(__file__).parents[1] not in Path(loss.__file__).parents, f"{loss.__file__} is the checkout's"
    needed = {line for line in requires("rnclib") or [] if "extra" not in line}
    assert {line[:5] for line in needed} == {"numpy", "torch"}, needed
    n = doctests()
    assert n > 5, n
    both_paths_agree()
    transforms_work()
    print(
        f"Python {platform.python_version()}, torch {torch.__version__}, numpy {np.__version__}: {n} doctest lines pass"
    )
