"""What the loss costs: `rnclib.benchmark` and `rnclib.throughput` measure it."""

from __future__ import annotations

from rnclib.chapters.base import Chapter

__all__ = ["CHAPTER"]

CHAPTER = Chapter(
    "benchmark",
    tables=(
        "benchmark-ratios", "benchmark-exponents", "benchmark-memory-table", "benchmark-spread",
        "benchmark-training-table", "benchmark-projection",
    ),
    figures=("benchmark-time", "benchmark-memory", "benchmark-training"),
)  # fmt: skip
