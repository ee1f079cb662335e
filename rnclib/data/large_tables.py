"""Tables that may be larger than the memory, as text or Parquet: a random sample of their rows, or chunk by chunk."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from rnclib.data import csv_files
from rnclib.data.csv_files import MOST_CELLS, Format, Table
from rnclib.data.numerals import MISSING

__all__ = ["MOST", "chunks", "is_parquet", "read"]

#: Rows that are used of a table, unless one asks for more.
MOST = 20_000
_ROWS = 2**14  # of a chunk
_BUFFER = 2**20  # bytes that are read of a column at a time
_LISTED = 100_000  # rejected lines of a sample
_INDEX = re.compile(r"__index_level_\d+__")  # what pandas calls a column that numbers the rows
_NOTHING = pd.DataFrame({"line": [], "reason": []})


def is_parquet(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as Parquet does, or a folder has files that are called so.

    Parameters
    ----------
    path : path
    """
    path = Path(path)
    if path.is_dir():
        return next(path.rglob("*.parquet"), None) is not None
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(4) == b"PAR1"


def read(
    path: str | os.PathLike[str],
    declared: Format | None = None,
    *,
    target: str,
    most: int = MOST,
    progress: bool = False,
) -> Table:
    """A table, or at most `most` of its rows, chosen at random, if it is Parquet or too large a text.

    Parameters
    ----------
    path : path
        Of a text file, as `rnclib.data.csv_files.read` takes it, a Parquet file, or a folder of Parquet files.
    declared : Format, optional
        Of a text file.
    target : str
        Column; where rows are chosen, they are of those that have a value in it.
    most : int
    progress : bool
        Show a bar with the time left where rows are chosen.

    Returns
    -------
    Table
        Of Parquet, the index has the number of each row, from 1.

    Raises
    ------
    OSError
    ValueError
        If there is no table, no such column, or it is Parquet and there is no pyarrow.
    """
    if is_parquet(path):
        with _named(path):
            return _Parquet.of(path).sample(target, most, progress)
    if os.path.isfile(path) and os.path.getsize(path) > csv_files.MOST_BYTES:
        return _sample(csv_files.chunks(path, declared, progress=progress), target, most)
    return csv_files.read(path, declared)


def chunks(
    path: str | os.PathLike[str],
    declared: Format | None = None,
    *,
    columns: Sequence[str] | None = None,
    progress: bool = False,
) -> Iterator[Table]:
    """A table, some thousands of rows at a time.

    Parameters
    ----------
    path : path
        As for `read`.
    declared : Format, optional
    columns : sequence of str, optional
        Those that are read of Parquet, if they are there; by default all.
    progress : bool
        Show a bar with the time left.

    Yields
    ------
    Table
        `Table.found` says what was read so far; that of the last chunk says it of all.

    Raises
    ------
    OSError
    ValueError
        As `read`.
    """
    if not is_parquet(path):
        yield from csv_files.chunks(path, declared, progress=progress)
        return
    with _named(path):
        source = _Parquet.of(path)
        wanted = [name for name in source.types if columns is None or name in columns]
        for start, batch in source.batches(wanted, progress):
            yield Table(_texts(batch, np.arange(start, start + len(batch))), source.found, _NOTHING, ".")


def _sample(tables: Iterable[Table], target: str, most: int) -> Table:
    """Rows with a target, each as likely as the others: those with the lowest of random numbers."""
    rng, keys, n, n_listed = np.random.default_rng(0), np.empty(0), 0, 0
    kept, rejected = pd.DataFrame(), []
    for table in tables:
        _check(target, most, list(table.frame))
        part = table.frame[~table.frame[target].isin(MISSING)]
        kept, keys, n = pd.concat([kept, part]), np.r_[keys, rng.random(len(part))], n + len(part)
        chosen = _lowest(keys, most)
        kept, keys = kept.iloc[chosen], keys[chosen]
        rejected.append(table.rejected.head(max(0, _LISTED - n_listed)))
        n_listed += len(rejected[-1])
    listed = f"Rejected rows are listed up to {_LISTED:,}."
    found = (*table.found, _drawn(len(kept), n), *[listed] * (n_listed == _LISTED))
    return Table(kept, found, pd.concat(rejected, ignore_index=True), table.decimal)


def _lowest(keys: np.ndarray, most: int) -> np.ndarray:
    """Positions of the `most` lowest, ascending."""
    return np.arange(len(keys)) if len(keys) <= most else np.sort(np.argpartition(keys, most)[:most])


def _drawn(n: int, of: int) -> str:
    return f"Read {n:,} of {of:,} rows that have a target{', chosen at random' if n < of else ''}."


def _check(target: str, most: int, names: Sequence[str]) -> None:
    if target not in names:
        allowed = ", ".join(map(repr, names[:30])) + ", …" * (len(names) > 30)
        raise ValueError(f"target: got {target!r}; allowed: one of {allowed}")
    if most * len(names) > MOST_CELLS:
        allowed = f"{MOST_CELLS // len(names):,}, which are {MOST_CELLS:,} cells"
        raise ValueError(f"most: got {most:,} rows of {len(names):,} columns; allowed: at most {allowed}")


# --- Parquet --------------------------------------------------------------------------------------------------


@contextmanager
def _named(path: str | os.PathLike[str]) -> Iterator[None]:
    """Let errors of reading Parquet name the file, in one line."""
    try:
        import pyarrow as pa
    except ModuleNotFoundError:
        needs = "with pyarrow, which the extra 'parquet' brings"
        raise ValueError(f"path: got {os.fspath(path)}, which is Parquet; allowed: {needs}") from None
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(path)) from None
        why = " ".join(str(error).split())[:200]
        raise ValueError(f"{path}: is no Parquet that can be read ({why}); allowed: a whole file") from None


@dataclass(frozen=True)
class _Parquet:
    """Files of one table."""

    files: list[Any]  # ParquetFile
    types: dict[str, Any]  # of the columns that can be read
    found: tuple[str, ...]

    @classmethod
    def of(cls, path: str | os.PathLike[str]) -> _Parquet:
        import pyarrow.parquet as pq

        paths = sorted(Path(path).rglob("*.parquet")) if Path(path).is_dir() else [Path(path)]
        files = [pq.ParquetFile(one, buffer_size=_BUFFER, pre_buffer=False) for one in paths]
        schema = files[0].schema_arrow
        for one, its in zip(paths, files, strict=True):
            if not its.schema_arrow.equals(schema):
                raise ValueError(f"{one}: got other columns than {paths[0]}; allowed: the same, of the same kinds")
        if twice := [name for name, n in Counter(schema.names).items() if n > 1]:
            raise ValueError(f"{path}: {twice[0]!r} is given twice; allowed: a name of its own for each column")
        types = {one.name: one.type for one in schema}
        odd = {name: f"{type_}"[:40] for name, type_ in types.items() if not _is_cell(type_)}
        odd |= {name: "the index of pandas" for name in types if _INDEX.fullmatch(name)}
        n, groups = sum(its.metadata.num_rows for its in files), sum(its.num_row_groups for its in files)
        told = f"Parquet: files {len(files):,}, row groups {groups:,}, rows {n:,}, columns {len(types):,}."
        said = [told, "A line is the number of a row, from 1."]
        said += [f"Column {name!r} is left out: it holds {kind}." for name, kind in odd.items()]
        if not n or len(odd) == len(types):
            raise ValueError(f"{path}: has {n:,} rows, and {len(types) - len(odd):,} columns of cells; allowed: some")
        return cls(files, {name: type_ for name, type_ in types.items() if name not in odd}, tuple(said))

    def batches(self, columns: Sequence[str], progress: bool, what: str = "reading") -> Iterator[tuple[int, Any]]:
        """Number of the first row, and rows as Arrow has them."""
        start, n = 1, sum(file.metadata.num_rows for file in self.files)
        with tqdm(total=n, desc=what, unit="row", unit_scale=True, disable=not progress, delay=1) as bar:
            for file in self.files:
                for batch in file.iter_batches(_ROWS, columns=list(columns)):
                    yield start, batch.select(list(columns))  # a name with a dot asks for parts of others too
                    start += len(batch)
                    bar.update(len(batch))

    def sample(self, target: str, most: int, progress: bool) -> Table:
        """Rows with a target, each as likely as the others; the target is read first, the rest of these rows then."""
        _check(target, min(most, sum(file.metadata.num_rows for file in self.files)), list(self.types))
        rng, lines, keys, n = np.random.default_rng(0), np.empty(0, int), np.empty(0), 0
        for start, batch in self.batches([target], progress, "choosing"):
            there = start + np.flatnonzero(_there(batch.column(0)))
            lines, keys, n = np.r_[lines, there], np.r_[keys, rng.random(len(there))], n + len(there)
            chosen = _lowest(keys, most)
            lines, keys = lines[chosen], keys[chosen]
        parts: list[pd.DataFrame] = []
        for start, batch in self.batches(list(self.types), progress):
            here = lines[np.searchsorted(lines, start) : np.searchsorted(lines, start + len(batch))]
            if len(here) or not parts:
                parts.append(_texts(batch.take(here - start), here))
        return Table(pd.concat(parts), (*self.found, _drawn(len(lines), n)), _NOTHING, ".")


def _is_cell(type_: Any) -> bool:
    """Whether a value is a number, a text, a truth value or a moment."""
    import pyarrow.types as kinds

    type_ = type_.value_type if kinds.is_dictionary(type_) else type_
    return not kinds.is_nested(type_) and "binary" not in f"{type_}"


def _there(column: Any) -> np.ndarray:
    """Which cells have a value."""
    import pyarrow.types as kinds

    if kinds.is_integer(column.type) or kinds.is_floating(column.type):
        valid = column.is_valid().to_numpy(zero_copy_only=False)
        return valid & ~np.isnan(column.to_numpy(zero_copy_only=False).astype(float))
    return ~np.isin(np.array(_cells(column), object), list(MISSING))


def _texts(batch: Any, lines: np.ndarray) -> pd.DataFrame:
    """Cells as a text file has them, empty where one is missing."""
    columns = {name: np.array(_cells(batch.column(i)), object) for i, name in enumerate(batch.schema.names)}
    return pd.DataFrame(columns, index=pd.Index(lines, name="line"), dtype=object)


def _cells(column: Any) -> list[str]:
    import pyarrow as pa
    import pyarrow.types as kinds

    if kinds.is_dictionary(column.type):
        column = column.dictionary_decode()
    if kinds.is_floating(column.type):
        # the shortest text that is this number in float64
        return ["" if x is None or x != x else repr(x) for x in column.cast(pa.float64()).to_pylist()]
    if kinds.is_duration(column.type):
        column = column.cast(pa.int64())
    if kinds.is_temporal(column.type) or kinds.is_decimal(column.type):
        column = column.cast(pa.string())
    return ["" if x is None else str(x).strip() for x in column.to_pylist()]
