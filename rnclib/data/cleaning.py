"""What can be learnt from a table that a stranger brings: rows left out, each with its reason; warnings of leaks."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from rnclib.data.csv_files import Table
from rnclib.data.numerals import MISSING, THOUSANDS, numbers, ungrouped

__all__ = ["Cleaned", "clean", "leaks"]

_AGAIN = "repeats an earlier row"
# a number with a sign of currency, thousands, another decimal mark or a unit; neither a date nor a code
_LIKE_A_NUMBER = re.compile(r"[^\w\s]?\s?\d[\d.,'\s_]*(\s?[^\W\d]\D*\d?|\s?%)?")
_LIKE_A_DATE = re.compile(r"\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}(\D.*)?")


@dataclass(frozen=True)
class Cleaned:
    """Rows and columns that a model can be fitted to.

    Attributes
    ----------
    frame : DataFrame
        Keys as text, inputs as numbers or text, the target last; missing cells are NaN. The index has the lines.
    numeric, text : tuple of str
        Inputs of each kind.
    rejects : DataFrame
        Columns ``line`` and ``reason`` of all rows that are left out, those of `Table.rejected` among them.
    said : tuple of str
        Sentences on what was left out.
    doubts : tuple of str
        Warnings of cells that may have been read otherwise than they were meant.
    """

    frame: pd.DataFrame
    numeric: tuple[str, ...]
    text: tuple[str, ...]
    rejects: pd.DataFrame
    said: tuple[str, ...]
    doubts: tuple[str, ...] = ()


def clean(
    table: Table,
    *,
    target: str,
    inputs: Sequence[str] | None = None,
    keys: Sequence[str] = (),
    lost: Mapping[Any, str] | None = None,
    repeats: bool = False,
) -> Cleaned:
    """Leave out rows without a target and exact repetitions, and columns that say nothing.

    A column is one of numbers if at least 95 % of its cells that are not missing are; the others then count as missing,
    which is said. In a column of text only an empty cell is missing: a country may be called NA.

    Parameters
    ----------
    table : Table
    target : str
    inputs : sequence of str, optional
        By default all columns but the target and `keys`.
    keys : sequence of str
        Columns, such as SMILES, that stay text; a row needs them all.
    lost : mapping, optional
        Lines that are left out beside those, with their reasons.
    repeats : bool
        Keep rows that repeat another in all inputs and the target; where inputs are few and coarse, they can be
        measurements in their own right.

    Raises
    ------
    ValueError
        If there is no such column, most cells of the target are no numbers, or there is nothing to learn.
    """
    frame = table.frame.rename_axis("line" if "line" not in table.frame else "line of the file")
    inputs = [name for name in frame if name not in (target, *keys)] if inputs is None else list(inputs)
    _check_roles(frame, target, keys, inputs)
    values, why, doubts = _target(frame[target], table.decimal)
    lost = dict(lost or {}) | {line: f"{target!r} is {reason}" for line, reason in why.items()}
    for key in keys:
        lost = dict.fromkeys(frame.index[frame[key].isin(MISSING)], f"{key!r} is missing") | lost
    rest = frame.drop(index=list(lost))
    read = {name: _input(rest[name], table.decimal) for name in inputs}
    columns = {key: rest[key] for key in keys} | {name: one for name, (one, *_) in read.items() if one is not None}
    rest = pd.DataFrame({**columns, target: values.loc[rest.index]}, rest.index)
    if not columns or rest[target].nunique() < 2:
        told = f"{target!r}: rows left: {len(rest)}, values: {rest[target].nunique()}, inputs: {len(columns)}"
        such = "".join(f"; line {line} is left out: {reason}" for line, reason in list(lost.items())[:2])
        raise ValueError(f"target: got {told}; allowed: at least two values and an input{such}")
    again, differ = _repeated(rest, list(columns), target)
    if not repeats:
        lost, rest = lost | again, rest.drop(index=list(again))
    numeric = tuple(name for name in inputs if name in rest and rest[name].dtype == float)
    text = tuple(name for name in inputs if name in rest and name not in numeric)
    said = _said(rest, len(frame), lost, numeric, text) + [one for _, one, _ in read.values() if one] + differ
    doubts += [one for *_, one in read.values() if one] + _far(rest[[*numeric, target]])
    faults = sorted([*table.rejected.itertuples(index=False, name=None), *lost.items()])
    rejects = pd.DataFrame(faults, columns=["line", "reason"])
    return Cleaned(rest, numeric, text, rejects, tuple(said), tuple(doubts))


def _check_roles(frame: pd.DataFrame, target: str, keys: Sequence[str], inputs: Sequence[str]) -> None:
    """Refuse a column that there is not, or that has two roles."""
    uses = Counter([target, *keys, *inputs])
    for what, asked in (("target", [target]), ("keys", keys), ("inputs", inputs)):
        for name in asked:
            if name not in frame or uses[name] > 1:
                twice = ", which is named twice" * (uses[name] > 1)
                allowed = ", ".join(map(repr, frame.columns[:30])) + ", …" * (frame.shape[1] > 30)
                raise ValueError(f"{what}: got {name!r}{twice}; allowed: one of {allowed}, in one role")


def _target(column: pd.Series, decimal: str) -> tuple[pd.Series, pd.Series, list[str]]:
    """Its numbers, why other cells are none, and a warning if some are neither numbers nor missing."""
    values, why = numbers(column, decimal)
    wrong = why[why.str.startswith("no number")]
    if not len(wrong):
        return values, why, []
    there, line = len(column) - int((why == "missing").sum()), wrong.index[0]
    told = f"{len(wrong):,} of {there:,} cells that are no number, such as {column.loc[line][:40]!r} in line {line}"
    if len(wrong) > 0.5 * there:
        allowed = f"numbers, or an empty cell where one is missing{_thousands(column.loc[wrong.index])}"
        raise ValueError(f"target: got {column.name!r} with {told}; allowed: {allowed}")
    of = f"the target {column.name!r} has {told}{_thousands(column.loc[wrong.index])}"
    return values, why, [f"{of[:1].upper()}{of[1:]}. Their rows are left out, and the others may be no fair sample."]


def _thousands(cells: pd.Series) -> str:
    """What to declare, if most of these cells are numbers with a sign between thousands."""
    marks = [sign for sign in THOUSANDS if np.mean([ungrouped(cell, sign) != cell for cell in cells]) > 0.5]
    return f"; declare thousands ({marks[0]!r}), if that is what they have" if marks else ""


def _said(
    rest: pd.DataFrame, n: int, lost: Mapping[Any, str], numeric: Sequence[str], text: Sequence[str]
) -> list[str]:
    """How many rows are used and left out, and what the inputs are."""
    said = [f"Rows used: {len(rest):,} of {n:,}."]
    for reason, k in Counter(reason.partition(": ")[0] for reason in lost.values()).items():
        asked = "; 'repeats' keeps them" * (reason == _AGAIN)
        said.append(f"Rows left out: {k:,} ({reason}{asked}).")
    kinds = {"numbers": numeric, "text, dates among it": text}
    each = [f"{what}: {_named(names)}" for what, names in kinds.items() if names]
    gaps = ", ".join(f"{name!r} {k:,}" for name, k in rest.isna().sum().items() if k)
    said += [f"Inputs that are {'; '.join(each)}."] * bool(each)
    return said + [f"Missing cells, which stay: {gaps}."] * bool(gaps)


def _far(table: pd.DataFrame) -> list[str]:
    """Warnings of a lowest or highest number far from all others, as marks of missing ones and slips of the pen are."""
    said = []
    for name, column in table.items():
        values = np.unique(column.dropna())
        for end, rest in ((values[:1], values[1:]), (values[-1:], values[:-1])):
            n = int((column == end[:1].sum()).sum())
            # more than once the same number so far away is no tail of a distribution
            if len(rest) < 5 or not np.abs(rest - end).min() > (3 if n > 1 else 10) * np.ptp(rest):
                continue
            said.append(
                f"Column {name!r} is {end[0]:.6g} in {n:,} row{'s' * (n > 1)}, far from all its other numbers. Where "
                "that stands for a missing one, leave the cell empty."
            )
    return said


def _named(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:20])) + f" and {len(names) - 20} more" * (len(names) > 20)


def _input(column: pd.Series, decimal: str) -> tuple[pd.Series | None, str, str]:
    """A column as numbers or text, or None if it says nothing; a sentence and a warning, which may be empty."""
    values, why = numbers(column, decimal)
    wrong = why[why != "missing"]
    present, strange = len(column) - len(why) + len(wrong), wrong.str.startswith("no number").sum()
    is_text = strange > 0.05 * present
    kept = column.mask(column == "") if is_text else values
    told = ", ".join(f"line {line}: {reason}" for line, reason in wrong.head(3).items())
    of = f"Column {column.name!r}"
    if (n := kept.nunique()) < 2:
        rounded = ", to sixteen digits" * (bool(n) and not is_text and bool(values.abs().max() > 2**53))
        return None, f"{of} is left out: it {f'has one value{rounded}' if n else 'is empty'}.", ""
    if is_text and strange < 0.5 * present:
        said = f"{of} is taken as text: {strange:,} of {present:,} cells are no number ({told})."
        return kept, said, _look(column.loc[wrong.index])
    if is_text:
        return kept, "", _look(column.loc[wrong.index])
    said = f"{of}: {len(wrong):,} cells are no finite number and count as missing ({told})."
    return kept, said if len(wrong) else "", ""


def _look(cells: pd.Series) -> str:
    """A warning, if most cells that are no numbers look like numbers with something beside."""
    alike = cells[[bool(_LIKE_A_NUMBER.fullmatch(cell)) and not _LIKE_A_DATE.fullmatch(cell) for cell in cells]]
    if len(alike) <= 0.5 * len(cells):
        return ""
    of = f"Column {cells.name!r} is taken as text, though its cells look like numbers with something beside"
    return f"{of}: {alike.iloc[0]!r}{_thousands(alike)}."


def _repeated(rest: pd.DataFrame, same: list[str], target: str) -> tuple[dict[Any, str], list[str]]:
    """Rows that repeat an earlier one; and a warning of rows with equal inputs and another target."""
    twice = rest[rest.duplicated(same, keep=False)]
    alike = twice.groupby(same, dropna=False, sort=False)[target]
    lines = pd.Series(twice.index, twice.index)
    first = lines.groupby([alike.ngroup(), twice[target]], sort=False).transform("first")
    again = {line: f"{_AGAIN}: line {of}" for line, of in first.items() if line != of}
    spread = alike.transform("max") - alike.transform("min")
    other = lines[spread > 0]
    such = f"{len(other):,}, such as lines {', '.join(map(str, other.head(3)))}"
    said = f"Rows with all inputs of another but not its target: {such}; these differ by up to {spread.max():.4g}."
    return again, [said] if len(other) else []


def leaks(frame: pd.DataFrame, target: str, keys: Sequence[str] = ()) -> list[str]:
    """Warnings of columns that may give the target away, or merely name or count the rows.

    Parameters
    ----------
    frame : DataFrame
        Of a `Cleaned`.
    target : str
    keys : sequence of str
        Columns that are to name the rows.
    """
    said = []
    for name in frame.columns.drop([target, *keys]):
        pair = frame[[name, target]].dropna()
        if pair[name].dtype == float and len(pair) >= 10:
            linear, ranks = (abs(both.corr().iloc[0, 1]) for both in (pair, pair.rank()))  # nan if one is constant
            if max(linear, ranks) >= 0.9999:
                same = "is the target but for scale and offset" if linear >= 0.9999 else "has the order of the target"
                said.append(f"Column {name!r} {same} (correlation {max(linear, ranks):.6f}).")
            steps = np.diff(pair[name])
            if abs(np.median(steps)) == 1 and (steps % 1 == 0).all() and ((steps > 0).all() or (steps < 0).all()):
                said.append(f"Column {name!r} counts the rows: as an input, it is their order in the file.")
        elif len(pair) >= 10 and pair[name].is_unique and not all(map(_LIKE_A_DATE.fullmatch, pair[name])):
            said.append(f"Column {name!r} differs in every row, as a name does: little can be learnt from it.")
        one, other = (set(re.findall(r"[^\W_]+", text.casefold())) for text in (name, target))
        if other <= one or difflib.SequenceMatcher(None, name[:99].lower(), target[:99].lower()).ratio() >= 0.8:
            said.append(f"Column {name!r} has nearly the name of the target {target!r}: is it known beforehand?")
    return said
