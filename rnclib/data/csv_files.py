"""A table that a stranger brings: a text file read without a silent guess, as a whole or by chunks.

What was detected is said; where two readings fit, an error names the option that decides. Nothing is run or fetched.

The parser is Python's `csv`, in its strict mode. `csv.Sniffer` takes any sign that recurs for a separator, letters too.
`pandas.read_csv` fills short rows up, joins what follows a closing quote, and knows no line numbers.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import os
import re
import stat
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from rnclib.data.numerals import MISSING, NUMBER, THOUSANDS, ungrouped, value
from rnclib.files import whole

__all__ = ["MOST_BYTES", "MOST_CELLS", "SEPARATORS", "Format", "Table", "chunks", "read", "write", "writing"]

SEPARATORS = (",", ";", "\t", "|", " ")
#: What is larger is refused: of the text, however small its archive. A cell takes about 90 bytes of memory.
MOST_BYTES, MOST_LINES, MOST_CELLS, LONGEST_LINE = 2**30, 10**7, 10**8, 2**22
_MOST = f"{MOST_BYTES:,} bytes, {MOST_LINES:,} lines, {LONGEST_LINE:,} characters a line, {MOST_CELLS:,} cells"
_PACKED = (b"PK", b"\xd0\xcf\x11\xe0", b"\xfd7zXZ", b"BZh", b"7z\xbc\xaf")
_NO_MARK = "no number has a decimal mark"
_SAMPLE, _BLOCK, _CHUNK = 2**18, 2**20, 200_000
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16",  # after UTF-32, whose mark begins with this one
}  # fmt: skip
_Record = tuple[int, int, list[str] | str]  # first and last line, and the fields or why there are none


@dataclass(frozen=True)
class Format:
    r"""What is known of a file; None is to be detected.

    Attributes
    ----------
    separator : {',', ';', '\t', '|', ' '}, optional
        Between fields; a space stands for any run of spaces and tabs.
    decimal : {'.', ','}, optional
    thousands : {',', '.', ' ', "'"}, optional
        Between groups of three digits; a space stands for those that do not break, too. It is never detected.
    encoding : str, optional
        Any of Python's that contains ASCII, or UTF-16 or UTF-32.
    comment : str, optional
        What begins a line that is a comment, anywhere in the file.
    header : bool
        Whether a line names the columns; otherwise they are called 1, 2 and so on.
    """

    separator: str | None = None
    decimal: str | None = None
    encoding: str | None = None
    comment: str | None = None
    header: bool = True
    thousands: str | None = None

    def __post_init__(self) -> None:
        sign = isinstance(self.comment, str) and re.fullmatch(r"[^\w\s\"]{1,3}", self.comment)
        for name, fine, allowed in (
            ("separator", self.separator in (None, *SEPARATORS), ", ".join(map(repr, SEPARATORS))),
            ("decimal", self.decimal in (None, ".", ","), "'.', ','"),
            ("thousands", self.thousands in (None, *THOUSANDS), ", ".join(map(repr, THOUSANDS))),
            ("encoding", self.encoding is None or _is_encoding(self.encoding), "a name such as 'utf-8' or 'cp1252'"),
            ("comment", self.comment is None or sign, "one to three signs, no letters, digits, spaces or '\"'"),
            ("header", type(self.header) is bool, "True, False"),
        ):
            got = getattr(self, name)
            if not fine:
                raise ValueError(f"{name}: got {got!r}; allowed: {allowed}")
            if name in ("decimal", "comment") and self.separator and (got or "")[:1] == self.separator:
                raise ValueError(f"{name}: got {got!r}; allowed: another sign than the separator")
        if self.thousands and self.thousands == self.decimal:
            raise ValueError(f"thousands: got {self.thousands!r}; allowed: another sign than the decimal mark")

    @property
    def mark(self) -> str | None:
        """The decimal mark, where it is declared, or one sign is left for it."""
        return self.decimal or {",": ".", ".": ","}.get(self.thousands or "")


def _is_encoding(name: Any) -> bool:
    plain = bytes(range(1, 128)).decode("ascii")
    try:
        wide = re.match("utf-(8|16|32)", codecs.lookup(name).name)
        return bool(wide) or plain.encode(name) == plain.encode("ascii")
    except (LookupError, TypeError, ValueError):
        return False


@dataclass(frozen=True)
class Table:
    """A file as it was read.

    Attributes
    ----------
    frame : DataFrame
        Each cell as text, without white space around it. The index is the line on which a row begins, from 1.
    found : tuple of str
        Sentences on what was detected, declared or left out.
    rejected : DataFrame
        Columns ``line`` and ``reason`` of rows that could not be read.
    decimal : {'.', ','}
    """

    frame: pd.DataFrame
    found: tuple[str, ...]
    rejected: pd.DataFrame
    decimal: str


def read(path: str | os.PathLike[str], declared: Format | None = None) -> Table:
    """Read a table with a header from a text file, which may be packed with gzip.

    Parameters
    ----------
    path : path
    declared : Format, optional
        By default all is detected.

    Raises
    ------
    FileNotFoundError, PermissionError
    ValueError
        If there is no table in the file, or more than one reading of it; or if it is too large to be held in memory.
    """
    reading = _Reading.begun(path, declared or Format(), limited=True)
    frames: list[pd.DataFrame] = []
    rejected: list[tuple[int, str]] = []
    for part, faults in reading.parts():
        frames.append(part)
        rejected += faults
        if reading.good * len(reading.names) > MOST_CELLS:
            raise ValueError(f"{path}, line {part.index[-1]}: is too large here; allowed: {_MOST}")
    frame = _numbered(reading, pd.concat(frames))
    decimal, how = _decimal(reading.path, frame, reading.separator, reading.declared.mark)
    return Table(frame, reading.said(how, decimal), pd.DataFrame(rejected, columns=["line", "reason"]), decimal)


def chunks(path: str | os.PathLike[str], declared: Format | None = None, *, progress: bool = False) -> Iterator[Table]:
    """Read a text file of any size as `read` does, some thousands of rows at a time.

    Parameters
    ----------
    path : path
    declared : Format, optional
    progress : bool
        Show a bar with the time left.

    Yields
    ------
    Table
        `Table.found` says what was read so far; that of the last chunk says it of the file.

    Raises
    ------
    FileNotFoundError, PermissionError
    ValueError
        As `read`, but for the size; or if a later chunk has another decimal mark than an earlier one.
    """
    reading = _Reading.begun(path, declared or Format(), limited=False, progress=progress)
    decimal, how = "", ""
    for part, faults in reading.parts(progress):
        frame = _numbered(reading, part)
        mark, how_here = _decimal(reading.path, frame, reading.separator, reading.declared.mark)
        if how_here != _NO_MARK or not how:
            if how not in ("", _NO_MARK) and mark != decimal:
                told = f"line {frame.index[0]} to {frame.index[-1]} have {mark!r}, those before {decimal!r}"
                raise ValueError(f"decimal: in {path} {told}; declare decimal")
            decimal, how = mark, how_here
        said = reading.said(how, decimal)
        yield Table(frame, said, pd.DataFrame(faults, columns=["line", "reason"]), decimal)


@dataclass
class _Reading:
    """A file whose format is known, and how many of its rows have been read."""

    path: Path
    declared: Format
    encoding: str
    damaged: bool  # some of it cannot be decoded
    separator: str
    names: list[str]
    skipped: int  # lines before the first record
    header: int  # the line with the names
    after: int  # the line where they end
    found: list[str]
    good: int = 0
    lost: int = 0
    ended: int = 0
    empty: int = 0
    unread: int = 0

    @classmethod
    def begun(cls, path: str | os.PathLike[str], declared: Format, limited: bool, progress: bool = False) -> _Reading:
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:/", os.fspath(path)):
            raise ValueError(f"path: got {os.fspath(path)!r}; allowed: a file on this machine, no address")
        path = Path(path)
        with _named(path):
            if not stat.S_ISREG(path.stat().st_mode):  # a pipe or a device might never end
                kind = "a folder" if path.is_dir() else "no ordinary file"
                raise ValueError(f"{path}: is {kind}; allowed: a text file")
            encoding, damaged, found = _encoding(path, declared.encoding, limited, progress)
            with _opened(path, encoding) as lines:
                beginning = [*io.StringIO(lines.read(_SAMPLE) + lines.readline(), newline="")]
        separator, names, skipped, header, after, said = _layout(path, beginning, declared)
        return cls(path, declared, encoding, damaged, separator, names, skipped, header, after, [*found, *said])

    def parts(self, progress: bool = False) -> Iterator[tuple[pd.DataFrame, list[tuple[int, str]]]]:
        """Rows as they are, and lines that are none with their reasons."""
        rows: list[list[str]] = []
        at: list[int] = []
        rejected: list[tuple[int, str]] = []
        with _named(self.path), _opened(self.path, self.encoding) as lines, _bar(self.path, lines, progress) as moved:
            records = _records(islice(lines, self.skipped, None), self.separator, self.declared.comment, self.skipped)
            for first, last, fields in records:
                if first <= self.after or not any(fields):
                    self.empty += first > self.after and len(fields) > 0
                    continue
                fields, fault = self._row(fields)
                if fault:
                    rejected.append((first, fault + f", to line {last}" * (last > first)))
                    self.lost, self.unread = self.lost + last - first + 1, self.unread + 1
                    continue
                rows.append(fields)
                at.append(first)
                self.good += 1
                if len(rows) * len(self.names) >= _CHUNK:
                    moved()
                    yield self._frame(rows, at), rejected
                    rows, at, rejected = [], [], []
            if not self.good and not self.lost:
                raise ValueError(f"{self.path}: has no rows; allowed: a line with names, and rows")
            if self.lost > self.good:
                told = f"has {self.good:,} rows that fit the header and {self.lost:,} lines that do not"
                such = "".join(f", such as line {line}: {why}" for line, why in rejected[:1])
                allowed = "allowed: more rows than others; declare separator or comment"
                raise ValueError(f"{self.path}: {told}{such}; {allowed}")
            moved()
        yield self._frame(rows, at), rejected

    def _row(self, fields: list[str] | str) -> tuple[list[str], str]:
        """The cells of a record, or why they are no row."""
        if isinstance(fields, str):
            return [], fields
        n = len(self.names)
        if len(fields) > n and not any(fields[n:]):
            fields, self.ended = fields[:n], self.ended + 1
        if len(fields) != n:
            return [], f"{len(fields)} fields where the header has {n}"
        lost = self.damaged and any("\ufffd" in field for field in fields)
        return fields, "cannot be decoded" if lost else ""

    def _frame(self, rows: list[list[str]], at: list[int]) -> pd.DataFrame:
        cells = [[*map(str.strip, column)] for column in zip(*rows, strict=True)] or [[] for _ in self.names]
        if sign := self.declared.thousands:
            cells = [[ungrouped(cell, sign) for cell in column] for column in cells]
        columns = {j: np.array(column, object) for j, column in enumerate(cells)}
        frame = pd.DataFrame(columns, index=pd.Index(at, name="line", dtype="int64"), dtype=object)
        frame.columns = pd.Index(self.names)
        return frame

    def said(self, how: str, decimal: str) -> tuple[str, ...]:
        """All that is to be said of what was read so far."""
        counts = {"end in needless separators, which are ignored": self.ended}
        counts |= {"have no value, and are left out": self.empty, "cannot be read": self.unread}
        more = [f"Rows that {what}: {k:,}." for what, k in counts.items() if k]
        n = len(self.names) - (self.names[0] == "")
        more += ["The first column has no name and numbers the rows: left out."] * (self.names[0] == "")
        mark = f"Decimal {'comma' if decimal == ',' else 'point'} ({how})."
        if sign := self.declared.thousands:
            mark += f" Thousands are set apart by {sign!r} (declared), which is taken out of numbers."
        line = f"Line {self.header} names the" if self.header else "No line (declared) names the"
        return (*self.found, mark, *more, f"{line} columns: {n:,}. Rows: {self.good:,}.")


def _numbered(reading: _Reading, frame: pd.DataFrame) -> pd.DataFrame:
    """The columns with a name; the first may have none, if it numbers the rows."""
    if frame.columns[0] != "":
        return frame
    if not all(map(str.isdecimal, frame[""])) or not frame[""].is_unique:
        at = f"{reading.path}, line {reading.header}"
        raise ValueError(f"{at}: column 1 has no name; allowed: a name, or numbers of the rows")
    return frame.iloc[:, 1:]


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Let errors of reading name the file."""
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}: the gzip archive is damaged: {error}") from None
    except OSError as error:
        kind = PermissionError if isinstance(error, PermissionError) else FileNotFoundError
        raise kind(f"{path}: cannot be read: {error.strerror}") from None


@contextmanager
def _bar(path: Path, stream: Any, progress: bool, what: str = "reading") -> Iterator[Callable[[], Any]]:
    """What moves a bar to where a stream has been read from a file."""
    stream = getattr(stream, "buffer", stream)
    file = getattr(stream, "fileobj", stream)
    with tqdm(total=path.stat().st_size, desc=what, unit="B", unit_scale=True, disable=not progress, delay=1) as bar:
        yield lambda: bar.update(file.tell() - bar.n)


@contextmanager
def _opened(path: Path, encoding: str | None = None) -> Iterator[Any]:
    """A file, unpacked: its bytes, or its lines with their ends as they are, as one within quotes is of the cell."""
    with open(path, "rb") as file:
        stream: Any = gzip.GzipFile(fileobj=file) if file.peek(2)[:2] == b"\x1f\x8b" else file
        yield io.TextIOWrapper(stream, encoding, "replace", newline="") if encoding else stream


def _encoding(path: Path, declared: str | None, limited: bool, progress: bool) -> tuple[str, bool, list[str]]:
    """The encoding, whether some of the file cannot be decoded by it, and what to say of it."""
    with _opened(path) as file:
        head = file.read(4)
    if not head:
        raise ValueError(f"{path}: is empty; allowed: a table as text")
    mark = next((name for begins, name in _MARKS.items() if head.startswith(begins)), None)
    if mark and declared and not codecs.lookup(declared).name.startswith(mark.removesuffix("-sig")):
        raise ValueError(f"encoding: got {declared!r} for {path}; allowed: {mark!r}, of which it has the mark")
    encoding = mark or declared or "utf-8"
    if not mark and codecs.lookup(encoding).name in ("utf-16", "utf-32"):
        raise ValueError(f"encoding: got {encoding!r}; allowed: '{encoding}-le' or '-be', as {path} has no mark")
    how = "declared" if declared else "detected by its mark" if mark else "detected"
    try:
        _survey(path, encoding, "strict", limited, progress)
        return encoding, False, [f"Encoding {encoding} ({how})."]
    except UnicodeDecodeError:
        wrong, right = _survey(path, encoding, "replace", limited, progress)
    if declared or mark or right > wrong:  # damage, in a file that is otherwise what it seems
        return encoding, True, [f"Encoding {encoding} ({how}); characters that cannot be decoded: {wrong:,}."]
    if _survey(path, "cp1252", "replace", limited, progress)[0]:
        raise ValueError(f"encoding: {path} is valid neither as UTF-8 nor as cp1252; declare encoding")
    return "cp1252", False, ["Encoding cp1252, which contains Latin-1 (detected: not valid UTF-8)."]


def _survey(path: Path, encoding: str, errors: str, limited: bool, progress: bool) -> tuple[int, int]:
    """Count characters that cannot be decoded, and others beyond ASCII; refuse what is no text, or too large."""
    decoder = codecs.getincrementaldecoder(encoding)(errors)
    n_bytes = n_lines = in_line = wrong = beyond = 0
    with _opened(path) as file, _bar(path, file, progress, "checking") as moved:
        for block in chain(iter(lambda: file.read(_BLOCK), b""), [b""]):
            moved()
            text = decoder.decode(block, not block)
            pieces = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
            control = 0 if n_bytes else len(re.findall(r"[\x01-\x08\x0e-\x1f\x7f]", text))
            if "\0" in text or control > len(text) / 100:
                line = n_lines + next((i for i, piece in enumerate(pieces, 1) if "\0" in piece), 1)
                packed = block.startswith(_PACKED) and not n_bytes
                kind = "a spreadsheet or an archive" if packed else f"no text in {encoding}"
                raise ValueError(f"{path}, line {line}: is {kind}; allowed: a table as text, or declare encoding")
            n_bytes, n_lines, in_line = n_bytes + len(block), n_lines + len(pieces) - 1, in_line + len(pieces[0])
            beyond_all = limited and (n_bytes > MOST_BYTES or n_lines > MOST_LINES)
            if beyond_all or in_line > LONGEST_LINE:
                raise ValueError(f"{path}, line {n_lines + 1}: is too large here; allowed: {_MOST}")
            in_line = len(pieces[-1]) if len(pieces) > 1 else in_line
            wrong += text.count("\ufffd")
            beyond += 0 if text.isascii() else len(text) - len(text.encode("ascii", "ignore"))
    return wrong, beyond - wrong


def _records(lines: Iterable[str], separator: str, comment: str | None, before: int) -> Iterator[_Record]:
    """Records of lines, of which `before` have been read already."""
    begins = True

    def fed() -> Iterator[str]:
        nonlocal begins
        for line in lines:
            if begins and comment and line.lstrip().startswith(comment):
                line = "\n"  # no record, but a line that counts
            begins = False
            yield line.replace("\t", " ") if separator == " " else line

    # spaces that begin a field are skipped: as a separator, a space so is a run of them
    source = fed() if comment or separator == " " else lines
    reader = csv.reader(source, delimiter=separator, skipinitialspace=True, strict=True)
    while True:
        first, begins = before + reader.line_num + 1, True
        try:
            fields: list[str] | str = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            long = "field larger" in str(error) or "end of data" in str(error)
            fields = "a quote is not closed, or a field is too long" if long else "text follows a closing quote"
        yield first, before + reader.line_num, fields


def _short(fields: Sequence[str]) -> list[str]:
    """Fields without the empty ones at the end."""
    fields = [field.strip() for field in fields]
    return fields[: max((i for i, field in enumerate(fields, 1) if field), default=0)]


def _share(records: Sequence[_Record], n: int) -> float:
    """Of records, those with `n` fields, not counting empty ones at the end."""
    fit = [not isinstance(fields, str) and len(fields) >= n and not any(fields[n:]) for *_, fields in records]
    return sum(fit) / len(fit) if fit else 1.0


def _fit(records: Sequence[_Record], separator: str) -> tuple[float, list[str]]:
    """Share of the rows that fit the best of the headers that the first record can be, and that header."""
    if not records or isinstance(records[0][2], str):
        return 0.0, []
    short = _short(records[0][2])
    headers = [short, [name.strip() for name in records[0][2]]]
    # R numbers the rows, but does not name their column; of a comma it would be no sign, as "1,5" may be one number
    if separator != "," and len(short) > 1 and [fields[0] for *_, fields in records[1:3]] == ["1", "2"]:
        headers.append(["", *short])
    rows = records[1:-1] if isinstance(records[-1][2], str) else records[1:]  # the beginning may end within quotes
    return max(((_share(rows, len(names)), names) for names in headers), key=lambda one: one[0])


def _separator(path: Path, lines: list[str], before: int, declared: Format) -> tuple[str, list[str], list, str]:
    """Separator, names in the first record, records, and a sentence."""
    asked = [declared.separator] if declared.separator else [s for s in SEPARATORS if s != declared.decimal]
    records = {s: [one for one in _records(lines, s, declared.comment, before) if any(one[2])] for s in asked}
    fits = {s: _fit(records[s], s) for s in asked}
    good = {s: share for s, (share, names) in fits.items() if share > 0.5 and (len(names) > 1 or declared.separator)}
    if len(good) > 1:
        good.pop(" ", None)  # it serves only where nothing else does
    said = f"The separator is {{!r}} ({'declared' if declared.separator else 'detected'})."
    alone = [not isinstance(one[2], str) and len(_short(one[2])) == 1 for s in asked[:-1] for one in records[s]]
    if not good and alone and all(alone) and records[asked[0]]:
        good, said = {asked[0]: 1.0}, "There is one column, and no separator."
    if not good:
        seen = {s: fit for s, fit in fits.items() if any(s in line for line in lines)}
        told = [f"{s!r} makes {len(n)} fields of line {before + 1}, and of {k:.0%} after" for s, (k, n) in seen.items()]
        mend = "declare separator, decimal or comment, or take out lines that stand above the header"
        raise ValueError("; ".join([f"separator: none fits {path}", *told, mend]))
    best, *rivals = sorted(good, key=lambda s: -good[s])
    if rivals and good[rivals[0]] > good[best] - 0.1:
        raise ValueError(f"separator: {path} can be read with {best!r} and with {rivals[0]!r}; declare separator")
    return best, fits[best][1], records[best], said.format(best)


def _numerals(names: Sequence[str]) -> int:
    """How many names are numbers; 0 if some are, and in order, as years or wavelengths are."""
    values = np.array([value(name, ",") for name in names if NUMBER[".,"].fullmatch(name)])
    with np.errstate(all="ignore"):
        steps = np.diff(values)
    sure = len(steps) > 3 or (len(steps) and np.allclose(steps, steps[0]) and (len(steps) > 1 or values[0] > 999))
    in_order = sure and ((steps > 0).all() or (steps < 0).all()) and len(values) < len(names)
    return 0 if in_order else len(values)


def _layout(path: Path, lines: list[str], declared: Format) -> tuple[str, list[str], int, int, int, list[str]]:
    """Separator, names, lines before the first record, line with the names, line where they end, and sentences."""
    beginning = "".join(lines).lstrip()
    sign = declared.comment or next((sign for sign in ("#", "%", "//") if beginning.startswith(sign)), "\n")
    skipped = 0
    while skipped < len(lines) and (not lines[skipped].strip() or lines[skipped].lstrip().startswith(sign)):
        skipped += 1
    if skipped == len(lines):
        raise ValueError(f"{path}: has no rows in {skipped} lines; allowed: a line with names, and rows")
    separator, names, records, said = _separator(path, lines[skipped:], skipped, declared)
    header, last, _ = records[0]
    found, above = [said], [i for i in range(skipped) if lines[i].strip()]
    found += [f"Lines that begin with {declared.comment!r} are comments (declared)."] * bool(declared.comment)
    if not declared.header:
        return separator, [f"{i}" for i in range(1, len(names) + 1)], skipped, 0, skipped, found
    if above:
        ((_, _, fields),) = _records([lines[above[-1]].strip()[len(sign) :] + "\n"], separator, None, 0)
        noted = [] if isinstance(fields, str) else _short(fields)
        others = chain(*(fields for *_, fields in records[1:]))
        here, below = (any(NUMBER[".,"].fullmatch(cell) for cell in row) for row in (names, others))
        if _share(records, len(noted)) > 0.5 and (here or MISSING & {*names[1:]} or not below):
            names, header, last = [noted[0] or sign, *noted[1:]], above[-1] + 1, skipped
        where = "; the header is in the last of them" if last == skipped else ""
        found.append(f"Comment lines before the {'rows' if where else 'header'}: {len(above)}{where}.")
    if last > skipped and (n := _numerals(names)):
        told = f"{n} of the {len(names)} fields of the first row are numbers"
        mend = f"put {len(names)} names before it, or declare that none is there"
        raise ValueError(f"{path}, line {header}: no header: {told}; {mend}")
    faults = [f"column {i} has no name" for i, name in enumerate(names, 1) if not name and i > 1]
    faults += [f"{name!r} is given {n} times" for name, n in Counter(names).items() if n > 1 and name]
    if faults:
        raise ValueError(f"{path}, line {header}: {', '.join(faults)}; allowed: a name of its own for each column")
    return separator, names, skipped, header, last, found


def _marked(column: np.ndarray, mark: str) -> list[str]:
    """Numbers with this decimal mark, if it makes nearly all of a column numbers."""
    if not any(mark in cell for cell in column):
        return []
    read = [cell for cell in column if NUMBER[mark].fullmatch(cell)]
    enough = len(read) >= 0.95 * sum(cell not in MISSING for cell in column)
    return [cell for cell in read if mark in cell] if enough else []


def _mixed(frame: pd.DataFrame, marked: list[tuple[Any, list[str]]]) -> bool:
    """Whether numbers without a mark stand in these columns beside those that have one."""
    return any(len(cells) < (~frame[name].isin(MISSING)).sum() for name, cells in marked)


def _decimal(path: Path, frame: pd.DataFrame, separator: str, declared: str | None) -> tuple[str, str]:
    if declared or separator == ",":
        return declared or ".", "declared" if declared else "a comma would separate fields"
    for part in (frame.head(1000), frame):
        columns = list(zip(part, part.to_numpy().T, strict=True))
        dot, comma = ([(n, cells) for n, column in columns if (cells := _marked(column, mark))] for mark in ".,")
        told = f" and column {dot[0][0]!r} has {dot[0][1][0]!r}" if dot and comma else ""
        marked = comma or (dot if separator == ";" and _mixed(part, dot) else [])
        if marked and all(re.fullmatch(r"[+-]?[1-9]\d{0,2}[.,]\d{3}", cell) for _, cells in marked for cell in cells):
            told += ", a decimal number or thousands"
        if told:
            name, cells = marked[0]
            mend = "declare decimal, or thousands" if told.endswith("thousands") else "declare decimal"
            raise ValueError(f"decimal: in {path} column {name!r} has {cells[0]!r}{told}; {mend}")
        if dot or comma:
            return "," if comma else ".", "detected"
    return ".", _NO_MARK


def write(frame: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write rows or rejects as CSV in one step, with the index if it has a name; text is quoted.

    A spreadsheet runs a cell of text that begins with ``=``, ``+``, ``-`` or ``@`` as a formula, and the text is a
    stranger's. Such a cell gets an apostrophe before it, unless it is a number or a single sign.

    Parameters
    ----------
    frame : DataFrame
    path : path
    """
    with writing(path) as put:
        put(frame)


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[Callable[[pd.DataFrame], None]]:
    """Write rows as `write` does, some at a time; the file is there once all are written.

    Parameters
    ----------
    path : path

    Yields
    ------
    callable
        Takes the next rows, of the same columns.
    """
    with whole(Path(path)) as draft:
        yield lambda frame: _append(frame, draft)


def _append(frame: pd.DataFrame, draft: Path) -> None:
    def harmless(cell: Any) -> Any:
        risky = isinstance(cell, str) and re.match(r"[=+\-@\t\r].", cell, re.DOTALL)
        return f"'{cell}" if risky and not NUMBER[".,"].fullmatch(cell) else cell

    texts = [name for name, column in frame.items() if not pd.api.types.is_numeric_dtype(column)]
    safe = frame.assign(**{name: frame[name].map(harmless) for name in texts}).rename(columns=harmless)
    begun = draft.exists()
    how: dict[str, Any] = {"quoting": csv.QUOTE_NONNUMERIC, "lineterminator": "\n"}
    safe.to_csv(draft, mode="a" if begun else "w", header=not begun, index=bool(frame.index.name), **how)
