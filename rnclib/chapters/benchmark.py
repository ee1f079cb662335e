"""What the loss costs: `rnclib.benchmark` and `rnclib.throughput` measure it."""

from __future__ import annotations

from rnclib.chapters.base import Chapter, Origin

__all__ = ["CHAPTER"]

_TABLES = (
    "benchmark-regimes-table", "benchmark-trained-table", "benchmark-peers", "benchmark-exponents",
    "benchmark-memory-table", "benchmark-training-table", "benchmark-projection",
)  # fmt: skip
_FIGURES = (
    "benchmark-cost", "benchmark-regimes", "benchmark-trained", "benchmark-time", "benchmark-memory",
    "benchmark-training",
)  # fmt: skip
_TRAINING = ("benchmark-training-table", "benchmark-projection", "benchmark-training")

CHAPTER = Chapter(
    "benchmark",
    tables=_TABLES,
    figures=_FIGURES,
    origins={
        name: Origin(measured="throughput" if name in _TRAINING else "benchmark") for name in (*_TABLES, *_FIGURES)
    },
)
