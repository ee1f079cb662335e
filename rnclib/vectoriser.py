"""Numbers from the mixed columns of a DataFrame, by skrub; what was learnt from them fits in JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from skrub import MinHashEncoder, TableVectorizer

__all__ = ["Vectoriser", "is_frame"]

CARDINALITY = 40  # distinct texts up to which each has a column of its own, as skrub has it
N_HASHES = 30  # columns for texts of more
_EXAMPLES = 50  # values that are kept of a column of dates, of numbers as text, or of many texts


def is_frame(X: Any) -> bool:
    """Whether `X` is a DataFrame with a column that is no plain number or truth value.

    Parameters
    ----------
    X : object
    """
    return isinstance(X, pd.DataFrame) and not all(_is_plain(dtype) for dtype in X.dtypes)


def _is_plain(dtype: Any) -> bool:
    return isinstance(dtype, np.dtype) and dtype.kind in "biuf"


@dataclass
class Vectoriser:
    """What makes numbers of the columns of a DataFrame.

    Numeric columns stay as they are. The others go through skrub's ``TableVectorizer``: a column for each of a few
    categories, hashes of many texts, the parts of a date. It is fitted to a small table of examples, which is all that
    it needs to know, and all that has to be kept of it.

    Attributes
    ----------
    columns : list of str
        All that it takes.
    plain : list of str
        Those that are numbers.
    examples : dict
        By name of another column: some of its values as text, None where one is missing.
    """

    columns: list[str]
    plain: list[str]
    examples: dict[str, list[str | None]]

    def __post_init__(self) -> None:
        self._skrub = None
        if self.examples:
            longest = max(map(len, self.examples.values()))
            table = {name: _repeated(values, longest) for name, values in self.examples.items()}
            self._skrub = _skrub().fit(pd.DataFrame(table, dtype=object))

    @classmethod
    def of(cls, X: pd.DataFrame) -> Vectoriser:
        """Fitted to the table of a training set.

        Parameters
        ----------
        X : DataFrame

        Raises
        ------
        ValueError
            If a column cannot be told from a few of its values.
        """
        if not all(isinstance(name, str) for name in X.columns) or not X.columns.is_unique:
            raise ValueError(f"X: got columns {list(X.columns)[:20]}; allowed: names that are text and distinct")
        plain = [name for name, dtype in X.dtypes.items() if _is_plain(dtype)]
        others = _as_text(X.drop(columns=plain))
        fitted = _skrub().fit(others)
        kinds = fitted.column_to_kind_
        made = cls(list(X.columns), plain, {name: _some(others[name], kinds[name]) for name in kinds})
        again = made._skrub.column_to_kind_ if made._skrub else {}
        if odd := sorted(name for name in kinds if kinds[name] != again.get(name)):
            raise ValueError(
                f"X: got columns {odd} of values that are of several kinds; allowed: numbers, dates or text"
            )
        return made

    def __call__(self, X: Any) -> np.ndarray:
        """The numbers, shape (n, n_numbers), float64, NaN where one is missing."""
        if not isinstance(X, pd.DataFrame) or (missing := sorted(set(self.columns) - set(X.columns))):
            got = f"a table without {missing}" if isinstance(X, pd.DataFrame) else type(X).__name__
            raise ValueError(f"X: got {got}; allowed: a DataFrame with the columns {self.columns}")
        parts = [X[self.plain].to_numpy(float)]
        if self._skrub is not None:
            parts.append(self._skrub.transform(_as_text(X[list(self.examples)])).to_numpy(float))
        values = np.concatenate(parts, axis=1)
        if np.isinf(values).any():
            raise ValueError("X: got an infinite number; allowed: numbers, or NaN where one is missing")
        return values

    def state(self) -> dict[str, Any]:
        """What has to be kept, as JSON has it; ``Vectoriser(**state)`` is the same again."""
        return {"columns": self.columns, "plain": self.plain, "examples": self.examples}


def _skrub() -> TableVectorizer:
    return TableVectorizer(
        cardinality_threshold=CARDINALITY, high_cardinality=MinHashEncoder(n_components=N_HASHES), n_jobs=1
    )  # fmt: skip


def _as_text(X: pd.DataFrame) -> pd.DataFrame:
    """Every value as text, so that a table that was read again gives the same numbers; None where one is missing."""
    return pd.DataFrame(
        {name: [None if missing else str(value) for value, missing in zip(X[name], X[name].isna(), strict=True)]
         for name in X.columns},
        index=X.index, dtype=object,
    )  # fmt: skip


def _some(column: pd.Series, kind: str) -> list[str | None]:
    """The values of a column that tell what it is: all categories, or some of many other values."""
    distinct = list(dict.fromkeys(column.dropna()))
    chosen = sorted(distinct) if kind == "low_cardinality" else distinct[:_EXAMPLES]
    return [*chosen, *([None] if column.isna().any() else [])]


def _repeated(values: list[str | None], n: int) -> list[str | None]:
    return (values * (n // len(values) + 1))[:n]
