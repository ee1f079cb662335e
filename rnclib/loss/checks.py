"""What the loss accepts, and the errors that say so."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

__all__ = [
    "FEATURE_SIMS", "LABEL_DIFFS", "REDUCTIONS", "TIES", "Matrix",
    "all_finite", "check_features", "check_flags", "check_labels", "check_options", "check_temperature", "check_values",
    "check_weights", "square", "widest",
]  # fmt: skip

Matrix = Callable[[Tensor], Tensor]

LABEL_DIFFS = ("l1", "l2")
FEATURE_SIMS = ("l2", "cosine", "l1")
REDUCTIONS = ("mean", "sum", "none")
TIES = ("rounding", "exact")
OPTIONS = {"label_diff": LABEL_DIFFS, "feature_sim": FEATURE_SIMS, "reduction": REDUCTIONS, "ties": TIES}
CALLABLE = ("label_diff", "feature_sim")

#: Types of devices that have no float64: there everything is computed in float32.
WITHOUT_FLOAT64 = {"mps"}


def widest(tensor: Tensor) -> torch.dtype:
    """The floating type of most digits on the tensor's device."""
    return torch.float32 if tensor.device.type in WITHOUT_FLOAT64 else torch.float64


def check_options(**options: Any) -> None:
    """Raise ValueError for a value that is not among those its option allows."""
    for name, value in options.items():
        if not (isinstance(value, str) and value in OPTIONS[name]) and not (name in CALLABLE and callable(value)):
            allowed = ", ".join(map(repr, OPTIONS[name])) + (" or a callable" if name in CALLABLE else "")
            raise ValueError(f"{name}: got {value!r}; allowed: {allowed}")


def check_flags(**flags: Any) -> None:
    """Raise ValueError for a value that is neither True nor False: a text such as 'no' would count as True."""
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise ValueError(f"{name}: got {value!r}; allowed: True or False")


def check_temperature(temperature: Any, value: bool = True) -> None:
    """Raise ValueError unless it is a finite number above 0, or a tensor of one, or with `value` False of any."""
    if isinstance(temperature, Tensor):
        temperature = temperature.detach()
        number = temperature.numel() == 1 and temperature.is_floating_point()
    else:
        number = isinstance(temperature, numbers.Real) and not isinstance(temperature, bool)
    if not number or (value and not 0 < float(temperature) < math.inf):
        allowed = "a finite number above 0, or a floating-point tensor of one"
        raise ValueError(f"temperature: got {temperature!r}; allowed: {allowed}")


def check_labels(labels: Any, name: str = "labels") -> None:
    """Raise ValueError unless it is a tensor of real numbers, (n,) or (n, label_dim)."""
    if not isinstance(labels, Tensor):
        raise ValueError(f"{name}: got {type(labels).__name__}; allowed: a torch.Tensor")
    if labels.ndim not in (1, 2) or 0 in labels.shape or labels.is_complex():
        raise ValueError(
            f"{name}: got shape {tuple(labels.shape)}, {labels.dtype}; "
            "allowed: (n,) or (n, label_dim), non-empty, of real numbers"
        )


def check_features(features: Any, labels: Any, name: str = "features", labels_name: str = "labels") -> None:
    """Raise ValueError unless the shapes, types and devices of features and labels fit together."""
    if not isinstance(features, Tensor):
        raise ValueError(f"{name}: got {type(features).__name__}; allowed: a torch.Tensor")
    if features.ndim not in (2, 3) or 0 in features.shape or not features.is_floating_point():
        raise ValueError(
            f"{name}: got shape {tuple(features.shape)}, {features.dtype}; "
            "allowed: (n, feat_dim) or (n, n_views, feat_dim), non-empty, of floating-point numbers"
        )
    check_labels(labels, labels_name)
    if len(labels) != len(features):
        raise ValueError(
            f"{labels_name}: got shape {tuple(labels.shape)}; allowed: one row for each of the {len(features)} rows of "
            f"{name} (one label per sample, not per view)"
        )
    if labels.device != features.device:
        raise ValueError(f"{labels_name}: got device {labels.device}; allowed: {features.device}, where {name} is")


def check_weights(weights: Any, features: Tensor) -> None:
    """Raise ValueError unless it is one number for each sample."""
    if not isinstance(weights, Tensor) or weights.shape != features.shape[:1] or weights.is_complex():
        tensor = isinstance(weights, Tensor)
        got = f"shape {tuple(weights.shape)}, {weights.dtype}" if tensor else type(weights).__name__
        raise ValueError(f"weights: got {got}; allowed: a tensor of shape ({len(features)},), a number for each sample")
    if weights.device != features.device:
        raise ValueError(f"weights: got device {weights.device}; allowed: {features.device}, where features is")


def all_finite(value: Tensor) -> bool:
    """Whether there is no NaN or infinite value: its extremes tell, in one pass."""
    if not value.is_floating_point():
        return True
    return bool(torch.isfinite(torch.stack(torch.aminmax(value))).all())


def check_values(**tensors: Tensor | None) -> None:
    """Raise ValueError for NaN or infinite values, and for weights below 0 or none above it."""
    for name, value in tensors.items():
        if value is not None and not all_finite(value):
            bad = int((~torch.isfinite(value)).sum())
            raise ValueError(f"{name}: got {bad} NaN or infinite among {value.numel()} values; allowed: finite numbers")
    if (weights := tensors.get("weights")) is not None and not (weights.min() >= 0 and weights.max() > 0):
        low, high = weights.min().item(), weights.max().item()
        raise ValueError(f"weights: got {low:g} to {high:g}; allowed: numbers of at least 0, one of them above 0")


def square(matrix: Any, M: int, name: str) -> Tensor:
    """What a callable returned, if it is an M × M tensor."""
    if not isinstance(matrix, Tensor) or matrix.shape != (M, M):
        got = f"shape {tuple(matrix.shape)}" if isinstance(matrix, Tensor) else type(matrix).__name__
        raise ValueError(f"{name}: got a callable that returns {got}; allowed: a tensor of shape ({M}, {M})")
    return matrix
