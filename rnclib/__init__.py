"""Rank-N-Contrast for regression: the exact loss, the protocols and the report's machinery."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rnclib.estimator import RnCRegressor
    from rnclib.loss import RnCLoss, rnc_loss, rnc_lower_bound

__all__ = ["RnCLoss", "RnCRegressor", "rnc_loss", "rnc_lower_bound"]
__version__ = "1.0.0"


def __getattr__(name: str) -> Any:
    """Import the loss, and with it torch, on first use: ``import rnclib.report`` takes milliseconds."""
    if name in __all__:
        ours = name == "RnCRegressor"
        module = import_module("rnclib.estimator") if ours else import_module("rnclib.loss")
        value = globals()[name] = getattr(module, name)
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
