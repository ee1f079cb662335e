"""Does contrastive training help on your own data? All methods on the same splits, and an answer with its interval."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from pandas.util import hash_array, hash_pandas_object
from sklearn.base import clone
from sklearn.model_selection import TimeSeriesSplit
from tqdm import tqdm

import rnclib
from rnclib.data import Split, group_split, take
from rnclib.estimator import RnCRegressor
from rnclib.files import check_writable, finite_json, whole
from rnclib.fitting import Samples, fit
from rnclib.held_out import numbered
from rnclib.paired import LEVEL, Paired, correlation_of
from rnclib.recipe import Recipe

__all__ = [
    "MARGIN", "METHODS", "PEERS", "Answer", "Comparison", "compare", "split_as_given", "splits_in_time", "splits_of",
]  # fmt: skip

METHODS = ("end_to_end", "rnc", "joint")
#: What people would use instead.
PEERS = ("training mean", "ridge", "trees", "gaussian process")
#: Of practical equality, in multiples of the other method's error; that of the book.
MARGIN = 0.05
_ROUNDING = 1e-9  # of the largest error of any method: one below is none
_MOST = 2000  # samples of a Gaussian process
_PARTS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
#: Settings that a comparison makes by itself.
_OURS = ("method", "random_state", "verbose", "validation_fraction", "calibration_fraction")
_FEATURES = {"table": None, "smiles": "descriptors", "images": "colours"}


@dataclass(frozen=True)
class Answer:
    """Whether one method has the lower error.

    Attributes
    ----------
    verdict : {'helps', 'harms', 'practically equal', 'undecided'}
        By the rule of the book: different, where the corrected resampled t has a p value below 0.05; practically equal,
        where the whole interval lies within the margin and two one-sided tests say so too.
    effect, low, high : float
        Mean of log(error ÷ error of the other method) over splits, with its 95% interval.
    n : int
        Splits.
    needed : float
        Splits that would decide if mean and spread stay as they are; infinite if no number of splits of this data can.
    one_test_set : bool
        All splits are the same, and training differs: the interval is that of training, for this test set.
    without_error : int
        Splits on which one of the two has no error but rounding: there is no ratio, and the numbers are NaN.
    """

    verdict: str
    effect: float
    low: float
    high: float
    n: int
    needed: float
    one_test_set: bool = False
    without_error: int = 0

    def __str__(self) -> str:
        if self.without_error:
            of = f"{self.without_error} of {self.n} {'runs' if self.one_test_set else 'splits'}"
            return f"{self.verdict}: on {of} a method has no error but rounding, so that there is no ratio of errors"
        times, low, high = (math.exp(value) for value in (self.effect, self.low, self.high))
        of = "runs on one test set" if self.one_test_set else "splits"
        said = f"{self.verdict}: the error is {times:.2f} × that of the other [{low:.2f}, {high:.2f}], {self.n} {of}"
        if self.verdict != "undecided" or math.isnan(self.needed):
            return said
        of = "runs" if self.one_test_set else "splits"
        more = f"more {of} of this data might never decide it; more samples may"
        return f"{said}; {more if math.isinf(self.needed) else f'about {self.needed:.0f} {of} would decide'}"


@dataclass(frozen=True)
class Comparison:
    """Errors of all methods on the same splits.

    Attributes
    ----------
    errors : DataFrame
        A row for each split and method: ``split``, ``method``, ``n_train`` and ``n_test``, ``mae`` and ``rmse`` on the
        test set, in the unit of the target, ``val_mae``, NaN where a method has no validation error, and ``seconds`` of
        fitting.
    predictions : DataFrame
        A row for each test sample of each split and method: ``split``, ``method``, ``row``, ``target`` and
        ``prediction``.
    overlap : float
        Mean fraction of a test set that is in another one too.
    """

    errors: pd.DataFrame
    predictions: pd.DataFrame
    overlap: float

    @property
    def correlation(self) -> float:
        """Between differences on two splits, see `rnclib.paired.correlation_of`."""
        return correlation_of(self.errors["n_train"].mean(), self.errors["n_test"].mean(), self.overlap)

    def answer(self, method: str = "rnc", other: str = "end_to_end") -> Answer:
        """Whether a method has a lower MAE than another.

        Parameters
        ----------
        method, other : str
        """
        table = self.errors.pivot(index="split", columns="method", values="mae")
        for name, given in (("method", method), ("other", other)):
            if given not in table:
                raise ValueError(f"{name}: got {given!r}; allowed: {', '.join(map(repr, table))}")
        rounding = _ROUNDING * self.errors["mae"].max()
        if n := int((table[[method, other]] <= rounding).any(axis=1).sum()):
            none = math.nan
            return Answer("undecided", none, none, none, len(table), none, self.overlap == 1, n)
        paired = Paired(np.log(table[method] / table[other]).to_numpy(), self.correlation)
        margin = -math.log1p(-MARGIN)
        mean, low, high = paired.interval()
        verdict = "undecided"
        if max(-low, high) < margin and paired.p_equal(-margin, margin) < LEVEL:
            verdict = "practically equal"
        elif paired.p < LEVEL:
            verdict = "helps" if mean < 0 else "harms"
        needed = paired.needed(-margin, margin)
        return Answer(verdict, mean, low, high, paired.n, needed, self.overlap == 1)

    def table(self) -> pd.DataFrame:
        """A row for each method, the lowest MAE first.

        Columns ``mae``, with the bounds ``low`` and ``high`` of its 95% interval, ``rmse`` and ``seconds``: means over
        splits.
        """
        rows = {}
        for method, part in self.errors.groupby("method"):
            mean, low, high = Paired(part["mae"].to_numpy(), self.correlation).interval()
            others = part[["rmse", "seconds"]].mean()
            rows[method] = {"mae": mean, "low": low, "high": high, **others}
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("method").sort_values("mae")

    def better(self) -> str:
        """The method with a network whose validation error is lowest, as a mean over splits."""
        return str(self.errors.groupby("method")["val_mae"].mean().idxmin())


def splits_of(n: int, n_splits: int = 10, *, groups: Sequence[Any] | None = None) -> list[Split]:
    """Random splits: 80% of the samples train, 10% validate and 10% test.

    Parameters
    ----------
    n : int
        Samples.
    n_splits : int
        At least 2, with seeds 0, 1, ….
    groups : sequence, length n, optional
        What belongs together and stays in one set, such as the measurements of one patient.

    Raises
    ------
    ValueError
    """
    _check_number(n_splits)
    belongs = range(n) if groups is None else list(groups)
    if len(belongs) != n:
        raise ValueError(f"groups: got {len(belongs)}; allowed: one for each of {n} samples")
    return [group_split(belongs, seed) for seed in range(n_splits)]


def splits_in_time(times: Sequence[Any], n_splits: int = 10) -> list[Split]:
    """Splits that test on what comes after: training on all before, at least half of the samples.

    The later half is cut into blocks; each is tested once. The last ninth of the samples before it validate. Samples of
    one time stay together.

    Parameters
    ----------
    times : sequence, length n
        Numbers, or dates that can be compared.
    n_splits : int
        At least 2.

    Raises
    ------
    ValueError
        If there are fewer times than that needs.
    """
    _check_number(n_splits)
    if n_missing := int(pd.isna(np.asarray(times)).sum()):
        raise ValueError(f"times: got {n_missing} missing; allowed: numbers, or dates that can be compared")
    moments, number = np.unique(np.asarray(times), return_inverse=True)
    if len(moments) < 4 * n_splits:
        raise ValueError(
            f"times: got {len(moments)} distinct ones for {n_splits} splits; allowed: at least {4 * n_splits}"
        )
    found = []
    for before, test in TimeSeriesSplit(n_splits, test_size=len(moments) // (2 * n_splits)).split(moments):
        held_out = max(1, len(before) // 9)
        parts = before[:-held_out], before[-held_out:], test
        found.append(Split(*(np.flatnonzero(np.isin(number, part)) for part in parts)))
    return found


def split_as_given(parts: Sequence[str], n_splits: int = 10) -> list[Split]:
    """One split, as often as training is to be repeated with other seeds.

    Parameters
    ----------
    parts : sequence of str, length n
        ``train``, ``test`` and ``val`` (or ``valid``, ``validation``). Without ``val``, a ninth of ``train`` validates.
    n_splits : int
        At least 2.

    Raises
    ------
    ValueError
        If a part is none of these, or one is missing.
    """
    _check_number(n_splits)
    parts = list(parts)
    named = np.array([_PARTS.get(str(part).strip().lower(), "") for part in parts])
    if (named == "").any():
        wrong = parts[int(np.argmax(named == ""))]
        raise ValueError(f"split: got {wrong!r}; allowed: {', '.join(map(repr, _PARTS))}")
    train, val, test = (np.flatnonzero(named == part) for part in ("train", "val", "test"))
    if not len(val) and len(train) > 1:
        order = np.random.default_rng(0).permutation(train)
        n_val = max(1, len(train) // 9)
        train, val = np.sort(order[n_val:]), np.sort(order[:n_val])
    for name, rows in (("train", train), ("val", val), ("test", test)):
        if not len(rows):
            raise ValueError(f"split: got no row of {name!r}; allowed: at least one")
    return [Split(train, val, test)] * n_splits


def _check_number(n_splits: Any) -> None:
    if not isinstance(n_splits, int | np.integer) or isinstance(n_splits, bool) or n_splits < 2:
        raise ValueError(f"n_splits: got {n_splits!r}; allowed: an integer of at least 2")


def compare(
    model: RnCRegressor,
    X: Any,
    y: Any,
    splits: Sequence[Split] | None = None,
    *,
    groups: Sequence[Any] | None = None,
    peers: str | Iterable[str] = PEERS,
    progress: bool = True,
    keep: str | Path | None = None,
) -> Comparison:
    """Fit each method of `RnCRegressor`, and other regressors, on the same splits.

    Parameters
    ----------
    model : RnCRegressor
        Its settings are those of all methods; what a method does not have is left out there. No samples are held out
        to calibrate intervals, so that all methods learn from the same.
    X, y
        As for its `fit`; one target.
    splits : sequence of Split, optional
        At least two: from `splits_of` (by default ten), `splits_in_time` or `split_as_given`. A network trains on the
        samples of the first two sets of a split, some of which, chosen at random, are its validation set.
    groups : sequence, length n, optional
        What belongs together, as for `splits_of`: in validation sets, and in splits if none are given.
    peers : str or iterable of str
        Of `PEERS`. The Gaussian process is left out beyond 2000 samples.
    progress : bool
        Show a bar with the time left.
    keep : path, optional
        Folder that gets the errors and predictions of each fit when it is done: where a comparison was stopped, the
        same one goes on from there. Fits to other data, of other settings or by other versions are made anew.

    Raises
    ------
    ValueError
    OSError
        If the folder cannot be written.
    """
    groups = None if groups is None else list(groups)
    y, peers = np.asarray(y, float), (peers,) if isinstance(peers, str) else tuple(peers)
    _check(model, X, y, peers, groups)
    splits = splits_of(len(y), groups=groups) if splits is None else _checked(splits, len(y))
    peers = tuple(name for name in peers if name != "gaussian process" or len(y) <= _MOST)
    kept = None if keep is None else _Kept.at(Path(keep), model, X, y, groups, peers)
    rows, tested = [], []
    with tqdm(total=len(splits) * (len(METHODS) + len(peers)), disable=not progress, desc="fits") as bar:
        for number, split in enumerate(splits):
            for one in _on_split(model, X, y, split, peers, number, groups, kept):
                its, target = {"split": number, "method": one.method}, y[split.test]
                rows.append(its | one.errors(target) | {"n_train": len(split.train), "n_test": len(split.test)})
                tested.append(pd.DataFrame({**its, "row": split.test, "target": target, "prediction": one.predicted}))
                bar.update()
    if progress and kept is not None and kept.taken:
        print(f"{kept.taken} of {len(rows)} fits are from an earlier run, kept in {kept.folder}.", flush=True)
    overlaps = [np.isin(a.test, b.test).mean() for i, a in enumerate(splits) for b in splits[:i]]
    return Comparison(pd.DataFrame(rows), pd.concat(tested, ignore_index=True), float(np.mean(overlaps)))


def _check(model: Any, X: Any, y: np.ndarray, peers: Sequence[str], groups: list[Any] | None) -> None:
    if not isinstance(model, RnCRegressor):
        raise ValueError(f"model: got {type(model).__name__}; allowed: RnCRegressor")
    if y.ndim != 1:
        raise ValueError(f"y: got shape {y.shape}; allowed: (n,), one target")
    n = X.shape[0] if hasattr(X, "shape") else len(X)
    if n != len(y):
        raise ValueError(f"y: got {len(y)} targets of {n} samples; allowed: one of each")
    if groups is not None:
        numbered(groups, n)
    if unknown := [name for name in peers if name not in PEERS]:
        raise ValueError(f"peers: got {unknown}; allowed: {', '.join(map(repr, PEERS))}")


def _checked(splits: Any, n: int) -> list[Split]:
    """Splits of n samples."""
    allowed = "at least 2 of rnclib.data.Split, such as those of splits_of"
    if not isinstance(splits, Iterable):
        raise ValueError(f"splits: got {type(splits).__name__}; allowed: {allowed}")
    found = list(splits)
    if wrong := [one for one in found if not isinstance(one, Split)]:
        raise ValueError(f"splits: got {type(wrong[0]).__name__}; allowed: {allowed}")
    if len(found) < 2:
        raise ValueError(f"splits: got {len(found)}; allowed: {allowed}")
    if (last := max(int(part.max()) for one in found for part in (one.train, one.val, one.test) if len(part))) >= n:
        raise ValueError(f"splits: got sample {last} of {n}; allowed: 0 to {n - 1}")
    for one in found:
        if min(map(len, (one.train, one.val, one.test))) < 1:
            raise ValueError("splits: got a set without samples; allowed: some for training, validation and test")
        if len(np.unique(rows := np.concatenate([one.train, one.val, one.test]))) < len(rows):
            raise ValueError("splits: got a sample in two sets; allowed: each in one at most")
    return found


@dataclass(frozen=True)
class _Fit:
    """What one method fitted to a split says of its test set."""

    method: str
    seconds: float
    val_mae: float | None
    predicted: np.ndarray

    def errors(self, target: np.ndarray) -> dict[str, float]:
        off = self.predicted - target
        mae, rmse = float(np.abs(off).mean()), float(np.sqrt((off**2).mean()))
        val_mae = math.nan if self.val_mae is None else self.val_mae
        return {"mae": mae, "rmse": rmse, "seconds": self.seconds, "val_mae": val_mae}


@dataclass
class _Kept:
    """Fits in a folder, in files with a digest of all that they depend on."""

    folder: Path
    of: str
    taken: int = 0

    @classmethod
    def at(cls, folder: Path, model: RnCRegressor, X: Any, y: np.ndarray, groups: Any, peers: Sequence[str]) -> _Kept:
        if model.encoder is not None:
            raise ValueError("keep: got a folder with an encoder of your own; allowed: None, since its code may change")
        check_writable(folder, "keep", "fits")
        settings = {name: repr(value) for name, value in model.get_params().items() if name not in _OURS}
        told = hashlib.sha256(repr((rnclib.__version__, torch.__version__, settings, peers)).encode())
        told.update(_contents(X, model.inputs))
        for one in (y, np.asarray([] if groups is None else groups, object)):
            told.update(hash_array(one).tobytes() + b";")
        return cls(folder, told.hexdigest())

    def _file(self, split: Split, number: int, method: str) -> tuple[Path, str]:
        rows = [np.asarray(part, np.int64) for part in (split.train, split.val, split.test)]
        of = hashlib.sha256(f"{self.of} {[len(part) for part in rows]}".encode() + np.concatenate(rows).tobytes())
        return self.folder / f"{number}-{method}.json", of.hexdigest()

    def read(self, split: Split, number: int, method: str) -> list[_Fit]:
        """Nothing, where the file is of other fits, or damaged."""
        path, of = self._file(split, number, method)
        with suppress(OSError, ValueError, KeyError, TypeError):
            kept = finite_json(path.read_text(encoding="utf-8"))
            found = [_Fit(**one | {"predicted": np.array(one["predicted"], float)}) for one in kept["fits"]]
            if kept["of"] == of:
                self.taken += len(found)
                return found
        return []

    def write(self, split: Split, number: int, method: str, fits: Sequence[_Fit]) -> None:
        path, of = self._file(split, number, method)
        told = [vars(one) | {"predicted": one.predicted.tolist()} for one in fits]
        with whole(path) as draft:
            draft.write_text(json.dumps({"of": of, "fits": told}), encoding="utf-8")


def _contents(X: Any, kind: str) -> bytes:
    """A digest of inputs: of images their bytes, not their names."""
    if hasattr(X, "columns") and kind == "table":
        columns = repr([(name, str(dtype)) for name, dtype in X.dtypes.items()])
        return columns.encode() + hash_pandas_object(X, index=False).to_numpy().tobytes()
    values = np.asarray(X, dtype=object if kind != "table" else None)
    if kind == "images":
        values = np.array([hashlib.sha256(Path(one).read_bytes()).hexdigest() for one in values.ravel()], object)
    return repr((values.dtype, values.shape)).encode() + hash_array(values.ravel()).tobytes()


def _on_split(
    model: RnCRegressor, X: Any, y: np.ndarray, split: Split, peers: Sequence[str], seed: int, groups: Any,
    kept: _Kept | None,
) -> Iterator[_Fit]:  # fmt: skip
    """The fits of all methods, those that are kept as they are; the peers go with the last network, which reads."""
    for method in METHODS:
        found = [] if kept is None else kept.read(split, seed, method)
        if found:
            yield from found
            continue
        for one in _fits(model, method, X, y, split, peers if method == METHODS[-1] else (), seed, groups):
            found.append(one)
            yield one
        if kept is not None:
            kept.write(split, seed, method, found)


def _fits(
    model: RnCRegressor, method: str, X: Any, y: np.ndarray, split: Split, peers: Sequence[str], seed: int, groups: Any
) -> Iterator[_Fit]:
    """A network, then peers on the inputs as it reads them."""
    seen = np.sort(np.concatenate([split.train, split.val]))
    settings = {"method": method, "random_state": seed, "verbose": False, "calibration_fraction": 0.0}
    settings |= {} if method == "rnc" else {"temperature": None}
    settings |= {} if method == "joint" else {"contrastive_weight": None}
    one = clone(model).set_params(**settings, validation_fraction=len(split.val) / len(seen))
    began = time.monotonic()
    one.fit(_rows(X, seen), y[seen], groups=None if groups is None else [groups[i] for i in seen])
    yield _Fit(method, time.monotonic() - began, one.validation_error_, one.predict(_rows(X, split.test)))
    inputs = {name: one.inputs_of(_rows(X, getattr(split, name))) for name in ("train", "val", "test") if peers}
    if model.encoder is not None:
        inputs = {name: its.reshape(len(its), -1) for name, its in inputs.items()}
    kind = _FEATURES[model.inputs]
    for name in peers:
        recipe = Recipe(name) if name == "training mean" else Recipe(name, featuriser=kind, scaling="standard")
        train, val = (Samples(inputs[part], y[getattr(split, part)]) for part in ("train", "val"))
        began = time.monotonic()
        fitted = fit(recipe, train, val, seed=seed)
        yield _Fit(name, time.monotonic() - began, None, fitted.predict(inputs["test"]))


def _rows(X: Any, index: np.ndarray) -> Any:
    """Some samples of a table, an array or a sequence."""
    if hasattr(X, "iloc"):
        return X.iloc[index]
    return take(np.asarray(X, dtype=object if isinstance(X, list | tuple) and isinstance(X[0], str) else None), index)
