"""What the loss costs: `rnclib.benchmark` and `rnclib.throughput` measure it."""

from __future__ import annotations

from rnclib.chapters.base import Chapter

__all__ = ["CHAPTER"]

CHAPTER = Chapter(
    "benchmark",
    tables=(
        "benchmark-regimes-table", "benchmark-trained-table", "benchmark-peers", "benchmark-exponents",
        "benchmark-memory-table", "benchmark-training-table", "benchmark-projection",
    ),
    figures=(
        "benchmark-cost", "benchmark-regimes", "benchmark-trained", "benchmark-time", "benchmark-memory",
        "benchmark-training",
    ),
)  # fmt: skip
