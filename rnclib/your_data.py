"""From a file of your own to an answer and a model: its columns, honest splits, predictions of a second file."""

from __future__ import annotations

import hashlib
import re
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from rnclib.comparison import split_as_given, splits_in_time, splits_of
from rnclib.data import Split
from rnclib.data.cleaning import clean, leaks
from rnclib.data.csv_files import Format, Table, writing
from rnclib.data.images import unreadable
from rnclib.data.large_tables import MOST, chunks, read
from rnclib.data.molecules import READABLE, canonical_smiles, readable
from rnclib.data.numerals import MISSING, numbers
from rnclib.estimator import RnCRegressor
from rnclib.files import check_writable

__all__ = [
    "SHOWN", "Columns", "Predictions", "YourData", "dates_of", "fit_model", "load", "predict_file", "rejects_of",
    "results_folder",
]  # fmt: skip

#: Tables that a comparison or a fit writes.
RESULTS = ("cleaned.csv", "rejects.csv", "errors.csv", "test_predictions.csv")
FEWEST = 20  # rows: ten splits into train, validation and test need some variety
#: Predictions and rejects that are kept in memory where they are written to a file.
SHOWN = 1000
_LEVEL = 0.9  # of the intervals of predictions
_CALIBRATE = 60  # rows from which on some are held out for them
_CATEGORIES = 40  # distinct texts, up to which one that was never seen is told
_FAR = 0.99  # of held-out samples are nearer to the others than what counts as far
_SAME = 1e-6  # of that distance; nearer ones are the same
_ISO = re.compile(r"\d{4}-\d{2}(-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:?\d{2})?)?)?")


@dataclass(frozen=True)
class Columns:
    """What the columns of a file are.

    Attributes
    ----------
    target : str
        What is to be predicted, numbers.
    smiles, image : str, optional
        The column with SMILES of molecules, or with paths of images, from the folder of the file on. Without either,
        the table itself is the input.
    group : str, optional
        Rows of one group, such as a patient, stay in one set.
    time : str, optional
        Numbers or ISO dates: training on what was before, test on what comes after.
    split : str, optional
        ``train``, ``val`` and ``test``: a split of your own.
    inputs : tuple of str, optional
        Of a table: by default all columns that have no other role.
    leave_out : tuple of str
        Of a table: columns that are no inputs.
    """

    target: str
    smiles: str | None = None
    image: str | None = None
    group: str | None = None
    time: str | None = None
    split: str | None = None
    inputs: tuple[str, ...] | None = None
    leave_out: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.target, str):
            raise ValueError(f"target: got {self.target!r}; allowed: the name of a column")
        for one, other in (("smiles", "image"), ("group", "time"), ("group", "split"), ("time", "split")):
            if getattr(self, one) is not None and getattr(self, other) is not None:
                raise ValueError(f"{other}: got {getattr(self, other)!r} beside {one}; allowed: one of the two")
        for name in ("inputs", "leave_out"):
            if getattr(self, name) and self.kind != "table":
                raise ValueError(f"{name}: got {getattr(self, name)!r} beside {self.kind}; allowed: for a table")

    @property
    def kind(self) -> str:
        """What the inputs are, as `RnCRegressor` calls them."""
        return "smiles" if self.smiles is not None else "images" if self.image is not None else "table"

    @property
    def keys(self) -> tuple[str, ...]:
        """Columns that stay text."""
        return tuple(one for one in (self.smiles, self.image, self.group, self.time, self.split) if one is not None)


@dataclass(frozen=True)
class YourData:
    """A file as it is trained on.

    Attributes
    ----------
    columns : Columns
    X : DataFrame or list of str
        As `RnCRegressor` takes it.
    y : ndarray, shape (n,)
    frame : DataFrame
        The rows that were kept; the index has the lines of the file.
    rejects : DataFrame
        ``line`` and ``reason`` of all others.
    said : tuple of str
        What was read, left out and why.
    warnings : tuple of str
        What may give the target away, or make the error of the test set too small.
    same : ndarray of int, shape (n,)
        Rows with equal inputs have the same number.
    numeric, text : tuple of str
        Inputs of a table.
    times : ndarray, shape (n,), optional
        Moments that can be compared, where a column has them.
    """

    columns: Columns
    X: Any
    y: np.ndarray
    frame: pd.DataFrame
    rejects: pd.DataFrame
    said: tuple[str, ...]
    warnings: tuple[str, ...]
    same: np.ndarray
    numeric: tuple[str, ...] = ()
    text: tuple[str, ...] = ()
    times: np.ndarray | None = None

    @property
    def origin(self) -> str:
        """How splits are made, in words."""
        of = self.columns
        if of.split is not None:
            return f"the split in column {of.split!r}, with other seeds of training"
        if of.time is not None:
            return f"splits in time: test sets come after all that is trained on ({of.time!r})"
        if of.group is not None:
            return f"random splits, 80:10:10, that keep rows of one {of.group!r} together"
        return "random splits, 80:10:10, that keep rows with equal inputs together"

    @property
    def groups(self) -> list[str] | None:
        """What the column of groups says of each row."""
        return None if self.columns.group is None else self.frame[self.columns.group].tolist()

    def splits(self, n_splits: int = 10) -> list[Split]:
        """Splits as the columns ask for; rows with equal inputs are in one set where they are random.

        Parameters
        ----------
        n_splits : int
        """
        of = self.columns
        if of.split is not None:
            return split_as_given(self.frame[of.split].tolist(), n_splits)
        if self.times is not None:
            return splits_in_time(list(self.times), n_splits)
        return splits_of(len(self.y), n_splits, groups=self.groups or self.same.tolist())

    def shared(self, splits: Sequence[Split]) -> str | None:
        """A warning if rows of a test set have the inputs of a row that was trained on.

        Parameters
        ----------
        splits : sequence of Split
        """
        seen = [np.isin(self.same[one.test], self.same[np.r_[one.train, one.val]]).mean() for one in splits]
        if not any(seen):
            return None
        return f"{np.mean(seen):.1%} of the rows of a test set have the inputs of a row that is trained on."


def load(
    path: str | Path, columns: Columns, table: Table | None = None, *, repeats: bool = False, most: int = MOST
) -> YourData:
    """Leave out of a file what cannot be trained on, with a reason for each row.

    Parameters
    ----------
    path : path
    columns : Columns
    table : Table, optional
        What `rnclib.data.large_tables.read` has read; by default it reads the file, and detects how it is written.
    repeats : bool
        Keep rows that repeat another in all inputs and the target.
    most : int
        Rows that are kept at most, chosen at random.

    Raises
    ------
    ValueError
        If the file cannot be read, has no such column, or too few rows are left.
    OSError
    """
    table = read(path, target=columns.target, most=most) if table is None else table
    for role in ("smiles", "image", "group", "time", "split"):
        _known([name] if (name := getattr(columns, role)) is not None else [], table.frame, role)
    inputs: list[str] | None = [] if columns.kind != "table" else None
    if columns.kind == "table":
        inputs = None if columns.inputs is None else list(columns.inputs)
        if columns.leave_out:
            _known(columns.leave_out, table.frame, "leave_out")
            roles = {columns.target, *columns.keys, *columns.leave_out}
            inputs = [name for name in inputs or table.frame.columns if name not in roles]
    lost = _unreadable(table.frame, columns, Path(path).parent)
    cleaned = clean(table, target=columns.target, inputs=inputs, keys=columns.keys, lost=lost, repeats=repeats)
    frame, said = cleaned.frame, [*table.found, *cleaned.said]
    if len(frame) > most:
        said.append(f"Trained on {most:,} of {len(frame):,} rows, chosen at random.")
        frame = frame.sample(most, random_state=0).sort_index()
    if len(frame) < FEWEST:
        first = cleaned.rejects.head(2).itertuples(index=False)
        such = "".join(f"; line {line} is left out: {reason}" for line, reason in first)
        raise ValueError(f"{path}: got {len(frame)} rows that can be trained on; allowed: at least {FEWEST}{such}")
    as_in_file = [name for name in table.frame if name in {*cleaned.numeric, *cleaned.text}]
    X, same = _inputs(frame, columns, Path(path).parent, as_in_file)
    doubts = [*cleaned.doubts, *leaks(frame, columns.target, columns.keys)]
    times = None if columns.time is None else _times(frame[columns.time])
    return YourData(
        columns, X, frame[columns.target].to_numpy(float), frame, cleaned.rejects,
        tuple(said), tuple(doubts), same, cleaned.numeric, cleaned.text, times,
    )  # fmt: skip


def _known(names: Sequence[str], frame: pd.DataFrame, what: str) -> None:
    for name in names:
        if name not in frame:
            raise ValueError(f"{what}: got {name!r}; allowed: {', '.join(map(repr, frame.columns[:30]))}")


def _unreadable(frame: pd.DataFrame, columns: Columns, folder: Path) -> dict[Any, str]:
    """Lines whose molecule or image cannot be read, and why; where there is none, another says so."""
    if (key := columns.smiles or columns.image) is None:
        return {}
    texts = frame[key][~frame[key].isin(MISSING)]
    if columns.smiles is not None:
        bad = texts[~readable(texts.tolist())]
        return {line: f"{key!r} is no molecule: got {text[:80]!r}; allowed: {READABLE}" for line, text in bad.items()}
    faults = unreadable([folder / text for text in texts], progress=False)
    return {texts.index[i]: f"{key!r} is no image: {why}" for i, why in faults.items()}


def _inputs(frame: pd.DataFrame, columns: Columns, folder: Path, names: Sequence[str]) -> tuple[Any, np.ndarray]:
    """What the estimator takes, and a number for each row, the same for equal inputs."""
    if columns.smiles is not None:
        texts = frame[columns.smiles].tolist()
        return texts, pd.factorize(np.array(canonical_smiles(texts), object))[0]
    if columns.image is not None:
        paths = [folder / text for text in frame[columns.image]]
        digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
        return [str(path) for path in paths], pd.factorize(np.array(digests, object))[0]
    X = frame[list(names)].reset_index(drop=True)
    return X, X.groupby(list(names), dropna=False, sort=False).ngroup().to_numpy()


def _times(column: pd.Series) -> np.ndarray:
    """Moments that can be compared: numbers, or dates of ISO 8601."""
    values, why = numbers(column)
    if why.empty:
        return values.to_numpy()
    wrong = column[[_ISO.fullmatch(text) is None for text in column]]
    if len(wrong):
        line, text = next(iter(wrong.items()))
        raise ValueError(f"time: got {text!r} in line {line}; allowed: numbers alone, or dates such as 2024-03-31")
    try:
        return pd.to_datetime(column, format="ISO8601", utc=True).to_numpy()
    except ValueError as error:
        raise ValueError(f"time: got a date that there is not ({error}); allowed: such as 2024-03-31") from None


def results_folder(path: str | Path, out: str | Path | None = None) -> Path:
    """The folder in which results about a file go; it is made.

    Parameters
    ----------
    path : path
        Of the file.
    out : path, optional
        By default beside the file, with its name.

    Raises
    ------
    OSError
        If it cannot be made or written.
    ValueError
        If results would be written over the file.
    """
    path = Path(path)
    name = path.name if path.is_dir() else Path(path.name.removesuffix(".gz")).stem
    folder = path.with_name(f"{name}.rnclib") if out is None else Path(out)
    if path.resolve() in {(folder / name).resolve() for name in RESULTS}:
        raise ValueError(f"out: got {folder}, where {path} would be overwritten; allowed: another folder")
    check_writable(folder, "out", "results")
    return folder


# --- a model, and a second file -------------------------------------------------------------------------------


def fit_model(data: YourData, model: RnCRegressor) -> RnCRegressor:
    """Fit a model to all rows, some of them held out for the intervals of predictions if there are enough.

    Parameters
    ----------
    data : YourData
    model : RnCRegressor
        Its settings; it is fitted. Its `notes_` then say what `predict_file` needs.
    """
    n = len(data.y)
    if n >= _CALIBRATE and not model.calibration_fraction:
        model.set_params(calibration_fraction=max(0.1, 12 / n))
    model.fit(data.X, data.y, groups=data.groups)
    distances = np.asarray(model.kneighbors(n_neighbors=1)[0])[:, 0]
    held_out = np.r_[model.validation_, model.calibration_]
    numeric = data.frame[list(data.numeric)]
    model.notes_ = {
        "columns": {one.name: getattr(data.columns, one.name) for one in fields(Columns)},
        "numeric": list(data.numeric),
        "text": list(data.text),
        "gaps": [name for name in (*data.numeric, *data.text) if data.frame[name].isna().any()],
        "ranges": {name: [float(column.min()), float(column.max())] for name, column in numeric.items()},
        "categories": {
            name: sorted(data.frame[name].dropna().unique())
            for name in data.text
            if data.frame[name].nunique() <= _CATEGORIES
        },
        "far": float(np.quantile(distances[held_out], _FAR)),
    }
    return model


def dates_of(model: RnCRegressor) -> list[str]:
    """Sentences on columns that were read as dates.

    Parameters
    ----------
    model : RnCRegressor
        Fitted.
    """
    forms = {} if model._vectoriser is None else model._vectoriser.dates
    return [f"Column {name!r} is read as dates, written as {form}." for name, form in forms.items()]


@dataclass(frozen=True)
class Predictions:
    """What a model says of a second file.

    Attributes
    ----------
    frame : DataFrame
        Indexed by line: ``prediction``; where the model has intervals, ``low`` and ``high``, which hold the target of
        90% of such samples; and ``unlike``: how the row differs from all that the model was fitted to, or nothing.
    rejects : DataFrame
        ``line`` and ``reason`` of rows without a prediction.
    said : tuple of str
        What was read, left out, and found.
    """

    frame: pd.DataFrame
    rejects: pd.DataFrame
    said: tuple[str, ...]


def predict_file(
    model: RnCRegressor,
    path: str | Path,
    declared: Format | None = None,
    *,
    out: str | Path | None = None,
    progress: bool = False,
) -> Predictions:
    """Predict each row of a file that has the columns of that which the model was fitted to.

    Rows are read, predicted and written some thousands at a time, so the file may be larger than the memory.

    Parameters
    ----------
    model : RnCRegressor
        From `fit_model`, perhaps saved and loaded.
    path : path
        Of a text file, a Parquet file, or a folder of those.
    declared : Format, optional
        Of a text file.
    out : path, optional
        Where predictions go as CSV, with the rejects beside it, as ``NAME.rejects.csv``; the frames that are returned
        then hold the first rows alone, up to `SHOWN`.
    progress : bool
        Show a bar with the time left.

    Raises
    ------
    ValueError
        If the file cannot be read, or lacks a column; or if the model does not say what its columns are.
    OSError
    """
    columns, notes = _noted(model)
    if out is not None and Path(out).resolve() == Path(path).resolve():
        raise ValueError(f"out: got {out}, the file that is predicted; allowed: another")
    key = columns.smiles or columns.image
    needed = [key] if key else [*notes["numeric"], *notes["text"]]
    tally, path = _Tally(columns.target), Path(path)
    with ExitStack() as files:
        kept = _Rows(files, None if out is None else Path(out))
        lost = _Rows(files, None if out is None else rejects_of(out))
        for table in chunks(path, declared, columns=[*needed, columns.target], progress=progress):
            if missing := [name for name in needed if name not in table.frame]:
                told = f"got no column {', '.join(map(repr, missing))}"
                raise ValueError(f"{path}: {told}; allowed: all of {needed}")
            found, rejects = _predicted(model, table, columns, notes, path.parent, tally)
            kept.add(found)
            lost.add(rejects)
        if not tally.rows:
            raise ValueError(f"{path}: got no row that can be predicted; allowed: at least one")
    if out is not None and not tally.left_out:
        rejects_of(out).unlink(missing_ok=True)  # of an earlier file
    return Predictions(pd.concat(kept.parts), pd.concat(lost.parts, ignore_index=True), (*table.found, *tally.said()))


def rejects_of(out: str | Path) -> Path:
    """Where rows without a prediction go.

    Parameters
    ----------
    out : path
        Of the predictions.
    """
    return Path(out).with_name(f"{Path(out).stem}.rejects.csv")


@dataclass
class _Rows:
    """Rows in memory, or in a file with the first of them in memory."""

    files: ExitStack
    path: Path | None
    parts: list[pd.DataFrame] = field(default_factory=list)
    put: Callable[[pd.DataFrame], None] | None = None

    def add(self, frame: pd.DataFrame) -> None:
        if self.path is not None and len(frame):
            self.put = self.put or self.files.enter_context(writing(self.path))
            self.put(frame)
            frame = frame.head(SHOWN - sum(map(len, self.parts)))
        if len(frame) or not self.parts:
            self.parts.append(frame)


def _predicted(
    model: RnCRegressor, table: Table, columns: Columns, notes: dict[str, Any], folder: Path, tally: _Tally
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Predictions of some rows, and those that have none."""
    frame, key = table.frame, columns.smiles or columns.image
    lost: dict[Any, str] = {}
    if key:
        lost = dict.fromkeys(frame.index[frame[key].isin(MISSING)], f"{key!r} is missing")
        lost |= _unreadable(frame, columns, folder)
        frame = frame.drop(index=list(lost))
    rejected = sorted([*table.rejected.itertuples(index=False, name=None), *lost.items()])
    rejects = pd.DataFrame(rejected, columns=["line", "reason"])
    tally.left_out += len(rejects)
    found = pd.DataFrame(index=frame.index)
    if frame.empty:
        return found, rejects
    rows = _as_fitted(frame, notes, table.decimal, tally)
    undated = {} if key else _undated(model, rows, tally)
    if key:
        X: Any = [str(folder / text) if columns.image else text for text in frame[key]]
    else:
        X = rows[list(model.feature_names_in_)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "X: got .* as in training|X: got .* category of training")  # said below
        X = model.inputs_of(X) if key else X  # images are decoded once
        if model.calibration_fraction:
            found["prediction"], found["low"], found["high"] = model.predict(X, return_interval=True, level=_LEVEL)
        else:
            found["prediction"] = model.predict(X)
        distance = np.asarray(model.kneighbors(X, n_neighbors=1)[0])[:, 0] / notes["far"]
    found["unlike"] = _unlike(rows, distance, notes, undated)
    # scaling by quantiles makes a number out of range the same as the last within
    fitted = (distance < _SAME) & (found["unlike"] == "").to_numpy()
    measured = numbers(frame[columns.target], table.decimal)[0] if columns.target in frame else None
    tally.count(found, fitted, measured)
    return found, rejects


@dataclass
class _Tally:
    """What is to be said of predictions."""

    target: str
    rows: int = 0
    left_out: int = 0
    unlike: int = 0
    fitted: int = 0
    compared: int = 0
    off: float = 0.0
    wrong: dict[tuple[str, str], tuple[int, list[str]]] = field(default_factory=dict)
    gaps: Counter[str] = field(default_factory=Counter)

    def lost(self, name: str, what: str, told: pd.Series) -> None:
        """Cells of a column that count as missing, by their lines, with what is told of them."""
        if len(told):
            n, such = self.wrong.get((name, what), (0, []))
            such += [f"line {line}: {one}" for line, one in told.head(3 - len(such)).items()]
            self.wrong[name, what] = n + len(told), such

    def count(self, found: pd.DataFrame, fitted: np.ndarray, measured: pd.Series | None) -> None:
        self.rows += len(found)
        self.unlike += int((found["unlike"] != "").sum())
        self.fitted += int(fitted.sum())
        if measured is not None:
            off = (found["prediction"] - measured)[~fitted].abs().dropna()
            self.compared, self.off = self.compared + len(off), self.off + float(off.sum())

    def said(self) -> list[str]:
        said = []
        for (name, what), (n, such) in self.wrong.items():
            said.append(f"Column {name!r}: {n:,} cells are {what} and count as missing ({', '.join(such)}).")
        gaps = ", ".join(f"{name!r} {n:,}" for name, n in self.gaps.items())
        said += [f"Missing cells: {gaps}."] * bool(gaps)
        said.append(f"Rows predicted: {self.rows:,}; left out: {self.left_out:,}.")
        if self.unlike:
            said.append(f"Rows unlike all that the model was fitted to: {self.unlike:,}; column 'unlike' says how.")
        if self.fitted:
            said.append(f"Rows that the model was fitted to: {self.fitted:,}.")
        if self.compared:
            told = f"The file has {self.target!r} too, for {self.compared:,} other rows"
            said.append(f"{told}: mean absolute error {self.off / self.compared:.4g}.")
        return said


def _noted(model: RnCRegressor) -> tuple[Columns, dict[str, Any]]:
    notes = getattr(model, "notes_", {})
    try:
        told = dict(notes["columns"])
        told |= {name: tuple(value) for name, value in told.items() if isinstance(value, list)}
        of = Columns(**told)
        _ = notes["numeric"], notes["text"], notes["ranges"], notes["categories"], float(notes["far"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            "model: got one that does not say its columns; allowed: from rnclib.your_data.fit_model"
        ) from error
    return replace(of, split=None, group=None, time=None), notes


def _as_fitted(frame: pd.DataFrame, notes: dict[str, Any], decimal: str, tally: _Tally) -> pd.DataFrame:
    """The inputs of a table as the model was fitted to them; what is no number counts as missing, which is said."""
    parts, gaps = {}, {}
    for name in notes["numeric"]:
        parts[name], why = numbers(frame[name], decimal)
        wrong, gaps[name] = why[why != "missing"], int((why == "missing").sum())
        tally.lost(name, "no finite number", wrong)
    for name in notes["text"]:
        parts[name] = frame[name].mask(frame[name] == "")
        gaps[name] = int(parts[name].isna().sum())
    tally.gaps.update({name: n for name, n in gaps.items() if n})
    return pd.DataFrame(parts, index=frame.index)


def _undated(model: RnCRegressor, rows: pd.DataFrame, tally: _Tally) -> dict[str, np.ndarray]:
    """Of columns of dates, which cells are none as in training; they count as missing, which is said."""
    found = {} if model._vectoriser is None else model._vectoriser.undated(rows)
    for name, none in found.items():
        tally.lost(name, "no date as in training", rows.loc[none, name].map(repr))
    return found


def _unlike(
    rows: pd.DataFrame, distance: np.ndarray, notes: dict[str, Any], undated: dict[str, np.ndarray]
) -> list[str]:
    """How each row differs from all that the model was fitted to; distances are in multiples of what counts as far."""
    found: list[list[str]] = [[] for _ in range(len(rows))]
    for name in rows.columns.difference(notes.get("gaps", rows.columns), sort=False):  # earlier models do not say
        for i in np.flatnonzero(rows[name].isna()):
            found[i].append(f"{name} is missing, never so before")
    for name, none in undated.items():
        for i in np.flatnonzero(none):
            found[i].append(f"{name} = {rows[name].iloc[i][:40]!r}, no date as before")
    for name, (low, high) in notes["ranges"].items():
        for i in np.flatnonzero((rows[name] < low) | (rows[name] > high)):
            found[i].append(f"{name} = {rows[name].iloc[i]:.6g}, outside {low:.6g} to {high:.6g}")
    for name, known in notes["categories"].items():
        for i in np.flatnonzero(rows[name].notna() & ~rows[name].isin(known)):
            found[i].append(f"{name} = {rows[name].iloc[i][:40]!r}, never seen")
    for i in np.flatnonzero(distance > 1):
        found[i].append(f"features far from all others: {distance[i]:.1f} × what is usual")
    return ["; ".join(one) for one in found]
