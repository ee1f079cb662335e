"""Numbers from the mixed columns of a DataFrame, by skrub; what was learnt from them fits in JSON."""

from __future__ import annotations

import warnings
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
    dates : dict
        By name of a column of dates, the form in which they were written; later ones may be of ISO 8601 too.
    """

    columns: list[str]
    plain: list[str]
    examples: dict[str, list[str | None]]
    categories: list[str] = field(default_factory=list)
    dates: dict[str, str] = field(default_factory=dict)

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

        Warns
        -----
        UserWarning
            If the day of dates may come first or the month; the month is taken.
        """
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
        dates = {name: _form(fitted, others[name]) for name, kind in kinds.items() if kind == "datetime"}
        return cls(made.columns, plain, examples, categories, dates)

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
        """The numbers, shape (n, n_numbers), float64, NaN where one is missing.

        Warns
        -----
        UserWarning
            If a cell is no date, or no number, in a column of those; it counts as missing. If it is none of the
            categories of a column.
        """
        if not isinstance(X, pd.DataFrame) or (missing := sorted(set(self.columns) - set(X.columns))):
            got = f"a table without {missing}" if isinstance(X, pd.DataFrame) else type(X).__name__
            raise ValueError(f"X: got {got}; allowed: a DataFrame with the columns {self.columns}")
        parts = [_number(X[name])[:, None] for name in self.plain]
        if self._skrub is not None:
            text = _as_text(X[list(self.examples)])
            text = text.assign(**{name: _in_form(text[name], form) for name, form in self.dates.items()})
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Found unknown categories")  # without the names of columns
                made = self._skrub.transform(self._declared(text))
            _tell_lost(self._skrub, text, made, self.examples)
            parts.append(made.to_numpy(float))
        values = np.concatenate(parts, axis=1)
        if np.isinf(values).any():
            raise ValueError("X: got an infinite number; allowed: numbers, or NaN where one is missing")
        return values

    def undated(self, X: pd.DataFrame) -> dict[str, np.ndarray]:
        """Which cells of each column of dates are there, and are no dates as in training."""
        texts = _as_text(X[list(self.dates)])
        return {
            name: (texts[name].notna() & _dates(_in_form(texts[name], form), form).isna()).to_numpy()
            for name, form in self.dates.items()
        }

    def state(self) -> dict[str, Any]:
        """What has to be kept, as JSON has it; ``Vectoriser(**state)`` is the same again."""
        return {name: getattr(self, name) for name in ("columns", "plain", "examples", "categories", "dates")}


def _skrub() -> TableVectorizer:
    hashes = MinHashEncoder(n_components=N_HASHES)
    return TableVectorizer(cardinality_threshold=CARDINALITY, high_cardinality=hashes, n_jobs=1)


_LOST = {
    "datetime": "no date as in training: they count as missing",
    "numeric": "no number as in training: they count as missing",
    "low_cardinality": "no category of training: they count as none of them",
}


def _tell_lost(
    fitted: TableVectorizer, text: pd.DataFrame, made: pd.DataFrame, examples: dict[str, list[str | None]]
) -> None:
    """Warn of cells that say nothing to the columns made of them."""
    for name, kind in fitted.column_to_kind_.items():
        if kind not in _LOST:
            continue
        if kind == "low_cardinality":
            lost = ~text[name].isin(examples[name])
        else:
            lost = made[fitted.input_to_outputs_[name]].isna().all(axis=1)
        lost &= text[name].notna()
        if lost.any():
            warnings.warn(
                f"X: got {lost.sum():,} cells such as {text.loc[lost, name].iloc[0][:40]!r} in column {name!r} "
                f"that are {_LOST[kind]}",
                stacklevel=3,
            )


def _form(fitted: TableVectorizer, column: pd.Series) -> str:
    """How the dates of a column are written, as ``strftime`` has it."""
    form = next(step.format_ for step in fitted.all_processing_steps_[column.name] if hasattr(step, "format_"))
    if form.find("%m") < form.find("%d"):
        day_first = form.replace("%m", "%_").replace("%d", "%m").replace("%_", "%d")
        if "%Y-%m" not in form and _dates(column.dropna(), day_first).notna().all():
            warnings.warn(
                f"X: dates of column {column.name!r}, such as {column.dropna().iloc[0]!r}, are read with the month "
                "first, and could have the day first; ISO dates such as 2024-03-31 leave no doubt",
                stacklevel=4,
            )
    return form


def _in_form(column: pd.Series, form: str) -> pd.Series:
    """Dates as text in that form, those of ISO 8601 brought to it."""
    texts = column.reset_index(drop=True)
    moments = _dates(texts[texts.notna() & _dates(texts, form).isna()], "ISO8601").dropna()
    return texts.mask(texts.index.isin(moments.index), moments.dt.strftime(form)).set_axis(column.index)


def _dates(column: pd.Series, form: str) -> pd.Series:
    return pd.to_datetime(column, format=form, errors="coerce", utc=True)


def _number(column: pd.Series) -> np.ndarray:
    """A numeric column in float64."""
    if types.is_timedelta64_dtype(column.dtype):
        return column.dt.total_seconds().to_numpy(float)
    try:
        if column.dtype.kind in "Mc":
            raise TypeError(f"values of {column.dtype}")
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
    return [None if none else _text(value) for value, none in zip(column, missing, strict=True)]


def _text(value: Any) -> str:
    """A whole number is the same text in columns of integers and of floats, which a missing number makes of them."""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value)


def _some(column: pd.Series, kind: str) -> list[str | None]:
    """The values of a column that tell what it is: all categories, or some of many other values."""
    distinct = list(dict.fromkeys(column.dropna()))
    chosen = sorted(distinct) if kind == "low_cardinality" else distinct[:_EXAMPLES]
    return [*chosen, *([None] if column.isna().any() else [])]


def _repeated(values: list[str | None], n: int) -> list[str | None]:
    return (values * (n // len(values) + 1))[:n]
