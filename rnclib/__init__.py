"""Rank-N-Contrast for regression: the exact loss, the protocols and the report's machinery."""

from rnclib.loss import RnCLoss, rnc_loss, rnc_lower_bound

__all__ = ["RnCLoss", "rnc_loss", "rnc_lower_bound"]
__version__ = "0.1.0"
