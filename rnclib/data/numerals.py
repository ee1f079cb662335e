"""Cells of text that are numbers, in plain digits: what a stranger's table has."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

__all__ = ["MISSING", "NUMBER", "THOUSANDS", "numbers", "ungrouped", "value"]

_WORDS = ("", "-", "?", "na", "n/a", "#n/a", "<na>", "nan", "null", "none")
#: Cells that stand for a missing number.
MISSING = frozenset(f(word) for word in _WORDS for f in (str.lower, str.upper, str.title)) | {"NaN"}
_MINUS = "\u2212"  # as it is set in print
# no digit can be matched in two ways: else a cell of many digits would take the square of their number
#: A number, by its decimal mark: one of the two, or either.
NUMBER = {
    mark: re.compile(rf"[+\-{_MINUS}]?(\d+([{mark}]\d*)?|[{mark}]\d+)([eE][+-]?\d+)?", re.ASCII)
    for mark in (".", ",", ".,")
}
#: Signs between groups of three digits, and all that stand for each.
THOUSANDS = {",": ",", ".": ".", " ": " \u00a0\u202f\u2009", "'": "'\u2019"}
_GROUPED = {
    sign: re.compile(rf"[+\-{_MINUS}]?\d{{1,3}}([{signs}]\d{{3}})+([{'.,'.replace(sign, '')}]\d*)?", re.ASCII)
    for sign, signs in THOUSANDS.items()
}


def value(cell: str, decimal: str = ".") -> float:
    """The number that a cell is.

    Parameters
    ----------
    cell : str
        One that `NUMBER` matches.
    decimal : {'.', ','}
    """
    return float(cell.replace(decimal, ".").replace(_MINUS, "-"))


def ungrouped(cell: str, sign: str) -> str:
    """A number without the signs between its groups of three digits; any other cell as it is.

    Parameters
    ----------
    cell : str
    sign : {',', '.', ' ', "'"}
        A space stands for those that do not break, too.

    Examples
    --------
    >>> ungrouped("-1,234,567.8", ","), ungrouped("12,34", ","), ungrouped("1,234 kg", ",")
    ('-1234567.8', '12,34', '1,234 kg')
    """
    return re.sub(f"[{THOUSANDS[sign]}]", "", cell) if _GROUPED[sign].fullmatch(cell) else cell


def numbers(column: pd.Series, decimal: str = ".") -> tuple[pd.Series, pd.Series]:
    """Numbers that the cells of a column are, in plain digits: no hexadecimals, underscores or thousands.

    Parameters
    ----------
    column : Series of str
        From a `rnclib.data.csv_files.Table`.
    decimal : {'.', ','}

    Returns
    -------
    values : Series of float
        NaN where there is no finite number.
    reasons : Series of str
        For those cells alone: ``'missing'``, or what begins with ``'infinite'`` or ``'no number'``.

    Examples
    --------
    >>> values, reasons = numbers(pd.Series(["1,5", "?", "0x1F"], index=[2, 3, 4]), ",")
    >>> values.tolist(), reasons.to_dict()
    ([1.5, nan, nan], {3: 'missing', 4: "no number: '0x1F'"})
    """
    there = ~column.isin(MISSING).to_numpy()
    values, reasons = np.full(len(column), np.nan), np.full(len(column), "missing", object)
    cells, read = column.to_numpy(object), NUMBER[decimal].fullmatch
    values[there] = [value(cell, decimal) if read(cell) else np.nan for cell in cells[there]]
    for i in np.flatnonzero(there & ~np.isfinite(values)):
        infinite = np.isinf(values[i]) or re.fullmatch(r"[+-]?inf(inity)?", cells[i], re.IGNORECASE)
        values[i], reasons[i] = np.nan, f"{'infinite' if infinite else 'no number'}: {cells[i][:40]!r}"
    flagged = np.isnan(values)
    return pd.Series(values, column.index), pd.Series(reasons[flagged], column.index[flagged], dtype=object)
