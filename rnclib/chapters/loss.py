"""The loss, derived and checked."""

from __future__ import annotations

from rnclib.chapters.base import Chapter

__all__ = ["CHAPTER"]

CHAPTER = Chapter(
    "loss",
    tables=("loss-terms", "loss-bounds"),
    figures=("loss-four", "loss-tight", "loss-descent", "loss-forces", "loss-playground"),
    quick={},
    smoke={},
)
