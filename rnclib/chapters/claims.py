"""The verdict page: what all chapters claim, judged by `rnclib.claims`."""

from __future__ import annotations

from rnclib.chapters.base import Chapter

__all__ = ["CHAPTER"]

CHAPTER = Chapter("claims", tables=("claims", *(f"claims-{number}" for number in range(1, 13))))
