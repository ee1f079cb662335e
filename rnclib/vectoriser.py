"""Numbers from the mixed columns of a DataFrame, by skrub; what was learnt from them fits in JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from pandas.api import types
from skrub import MinHashEncoder, TableVectorizer

__all__ = ["Vectoriser", "is_frame"]

CARDINALITY = 40  # distinct texts up to which each has a column of its own, as skrub has it
N_HASHES = 30  # columns for texts of more
_COMPARED = 20_000  # values for which they have to do
_EXAMPLES = 50  # values that are kept of a column of dates, of numbers as text, or of many texts


def is_frame(X: Any) -> bool:
    """Whether `X` is a DataFrame with a column that is no plain number or truth value.

    Parameters
    ----------
    X : object
    """
    plain = isinstance(X, pd.DataFrame) and all(
        isinstance(dtype, np.dtype) and dtype.kind in "biuf" for dtype in X.dtypes
    )
    return isinstance(X, pd.DataFrame) and not plain


def _is_number(dtype: Any) -> bool:
    return types.is_numeric_dtype(dtype) or types.is_bool_dtype(dtype) or types.is_timedelta64_dtype(dtype)


@dataclass
class Vectoriser:
    """What makes numbers of the columns of a DataFrame.

    Numeric columns, truth values and durations (in seconds) stay as they are. The others go through skrub's
    ``TableVectorizer``: a column for each of a few categories, hashes of many texts, the parts of a date (in UTC, where
    it has a zone), numbers that are written as text. It is fitted to a small table of examples, which is all that has
    to be kept of it.

    Attributes
    ----------
    columns : list of str
        All that it takes.
    plain : list of str
        Those that are numbers.
    examples : dict
        By name of another column: some of its values as text, None where one is missing.
    categories : list of str
        Those of the others that are declared as categories.
    """

    columns: list[str]
    plain: list[str]
    examples: dict[str, list[str | None]]
    categories: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._skrub = None
        if self.examples:
            longest = max(map(len, self.examples.values()))
            table = {name: _repeated(values, longest) for name, values in self.examples.items()}
            self._skrub = _skrub().fit(self._declared(pd.DataFrame(table, dtype=object)))

    @classmethod
    def of(cls, X: pd.DataFrame) -> Vectoriser:
        """Fitted to the table of a training set.

        Parameters
        ----------
        X : DataFrame
        """
        if not all(isinstance(name, str) for name in X.columns) or not X.columns.is_unique:
            raise ValueError(f"X: got columns {list(X.columns)[:20]}; allowed: names that are text and distinct")
        if X.isna().all(axis=None):
            raise ValueError("X: got a table without any value; allowed: one with some")
        plain = [name for name, dtype in X.dtypes.items() if _is_number(dtype)]
        categories = [name for name, dtype in X.dtypes.items() if isinstance(dtype, pd.CategoricalDtype)]
        others = _as_text(X.drop(columns=plain))
        made = cls(list(X.columns), plain, {}, categories)
        fitted = _skrub().fit(made._declared(others))
        kinds = fitted.column_to_kind_
        examples = {name: _some(others[name], kinds[name]) for name in kinds}
        for name, kind in kinds.items():
            # a few values may look like dates or numbers where all do not: then all have to be kept
            if kind != "low_cardinality" and not made._alike(others[[name]], examples[name]):
                examples[name] = _some(others[name], "low_cardinality")
        return cls(made.columns, plain, examples, categories)

    def _alike(self, column: pd.DataFrame, examples: list[str | None]) -> bool:
        """Whether some values of a column tell as much of it as all of them."""
        (name,) = column
        column = column.drop_duplicates().head(_COMPARED)
        some = pd.DataFrame({name: examples}, dtype=object)
        one, two = (_skrub().fit(self._declared(its)).transform(self._declared(column)) for its in (some, column))
        return list(one) == list(two) and np.array_equal(one.to_numpy(float), two.to_numpy(float), equal_nan=True)

    def _declared(self, text: pd.DataFrame) -> pd.DataFrame:
        """Text with the columns that are categories as such, whatever they look like."""
        return text.astype({name: "category" for name in self.categories if name in text})

    def __call__(self, X: Any) -> np.ndarray:
        """The numbers, shape (n, n_numbers), float64, NaN where one is missing."""
        if not isinstance(X, pd.DataFrame) or (missing := sorted(set(self.columns) - set(X.columns))):
            got = f"a table without {missing}" if isinstance(X, pd.DataFrame) else type(X).__name__
            raise ValueError(f"X: got {got}; allowed: a DataFrame with the columns {self.columns}")
        parts = [_number(X[name])[:, None] for name in self.plain]
        if self._skrub is not None:
            text = self._declared(_as_text(X[list(self.examples)]))
            parts.append(self._skrub.transform(text).to_numpy(float))
        values = np.concatenate(parts, axis=1)
        if np.isinf(values).any():
            raise ValueError("X: got an infinite number; allowed: numbers, or NaN where one is missing")
        return values

    def state(self) -> dict[str, Any]:
        """What has to be kept, as JSON has it; ``Vectoriser(**state)`` is the same again."""
        return {name: getattr(self, name) for name in ("columns", "plain", "examples", "categories")}


def _skrub() -> TableVectorizer:
    hashes = MinHashEncoder(n_components=N_HASHES)
    return TableVectorizer(cardinality_threshold=CARDINALITY, high_cardinality=hashes, n_jobs=1)


def _number(column: pd.Series) -> np.ndarray:
    """A numeric column in float64."""
    if types.is_timedelta64_dtype(column.dtype):
        return column.dt.total_seconds().to_numpy(float)
    try:
        return pd.to_numeric(column).to_numpy(float, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise ValueError(f"X: got column {column.name!r} with {error}; allowed: numbers, as in training") from None


def _as_text(X: pd.DataFrame) -> pd.DataFrame:
    """Every value as text, so that a table that was read again gives the same numbers; None where one is missing."""
    return pd.DataFrame({name: _texts(X[name]) for name in X.columns}, index=X.index, dtype=object)


def _texts(column: pd.Series) -> list[str | None]:
    missing = column.isna()
    if types.is_datetime64_any_dtype(column.dtype):
        if column.dt.tz is not None:
            column = column.dt.tz_convert("UTC")
        column = column.dt.strftime("%Y-%m-%dT%H:%M:%S.%f")  # of one form, whatever the fractions of seconds are
    return [None if none else str(value) for value, none in zip(column, missing, strict=True)]


def _some(column: pd.Series, kind: str) -> list[str | None]:
    """The values of a column that tell what it is: all categories, or some of many other values."""
    distinct = list(dict.fromkeys(column.dropna()))
    chosen = sorted(distinct) if kind == "low_cardinality" else distinct[:_EXAMPLES]
    return [*chosen, *([None] if column.isna().any() else [])]


def _repeated(values: list[str | None], n: int) -> list[str | None]:
    return (values * (n // len(values) + 1))[:n]
