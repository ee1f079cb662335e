"""Your data: a file, an honest comparison on it, a model, and predictions of a second file."""

from __future__ import annotations

from pathlib import Path

from rnclib.chapters.base import Chapter

__all__ = ["CHAPTER", "TARGET", "example_file"]

#: Target of the example.
TARGET = "target"


def example_file() -> Path:
    """A file of measured data that needs no network: the patients of scikit-learn's diabetes, in units of measurement.

    Progression of diabetes after a year (Efron et al. 2004), as a score.
    """
    from sklearn.datasets import load_diabetes

    from rnclib.data import cache_dir, csv_files

    path = cache_dir() / "examples" / "diabetes.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    csv_files.write(load_diabetes(as_frame=True, scaled=False).frame, path)
    return path


CHAPTER = Chapter(
    "your_data",
    tables=("your-data-errors", "your-data-neighbours", "your-data-molecules"),
    figures=("your-data-runs", "your-data-parity", "your-data-features"),
    quick={"n_splits": "3"},
    smoke={"n_splits": "2", "epochs": "3", "molecules": "False"},
)
