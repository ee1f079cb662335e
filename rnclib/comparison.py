"""Does contrastive training help on your own data? All methods on the same splits, and an answer with its interval."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import clone
from tqdm import tqdm

from rnclib.data import Split, group_split, take
from rnclib.estimator import RnCRegressor
from rnclib.fitting import Samples, fit
from rnclib.paired import LEVEL, Paired, correlation_of
from rnclib.recipe import Recipe

__all__ = ["MARGIN", "METHODS", "PEERS", "Answer", "Comparison", "compare"]

METHODS = ("end_to_end", "rnc", "joint")
#: What people would use instead.
PEERS = ("training mean", "ridge", "trees", "gaussian process")
#: Of practical equality, in multiples of the other method's error; that of the book.
MARGIN = 0.05
_MOST = 2000  # samples of a Gaussian process
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
    """

    verdict: str
    effect: float
    low: float
    high: float
    n: int
    needed: float

    def __str__(self) -> str:
        times, low, high = (math.exp(value) for value in (self.effect, self.low, self.high))
        said = f"{self.verdict}: the error is {times:.2f} × that of the other [{low:.2f}, {high:.2f}], {self.n} splits"
        if self.verdict != "undecided" or math.isnan(self.needed):
            return said
        more = "no number of splits of this data would decide; more samples may"
        return f"{said}; {more if math.isinf(self.needed) else f'about {self.needed:.0f} splits would decide'}"


@dataclass(frozen=True)
class Comparison:
    """Errors of all methods on the same splits.

    Attributes
    ----------
    errors : DataFrame
        A row for each split and method: ``split``, ``method``, ``mae`` and ``rmse`` on the test set, in the unit of the
        target, and ``seconds`` of fitting.
    correlation : float
        Between differences on two splits, see `rnclib.paired.correlation_of`.
    """

    errors: pd.DataFrame
    correlation: float

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
        paired = Paired(np.log(table[method] / table[other]).to_numpy(), self.correlation)
        margin = -math.log1p(-MARGIN)
        mean, low, high = paired.interval()
        verdict = "undecided"
        if max(-low, high) < margin and paired.p_equal(-margin, margin) < LEVEL:
            verdict = "practically equal"
        elif paired.p < LEVEL:
            verdict = "helps" if mean < 0 else "harms"
        return Answer(verdict, mean, low, high, paired.n, paired.needed(-margin, margin))

    def table(self) -> pd.DataFrame:
        """Means over splits by method, the lowest MAE first: ``mae``, ``rmse``, ``seconds``."""
        means = self.errors.groupby("method")[["mae", "rmse", "seconds"]].mean()
        return means.sort_values("mae")


def compare(
    model: RnCRegressor,
    X: Any,
    y: Any,
    *,
    groups: Sequence[Any] | None = None,
    n_splits: int = 10,
    peers: Iterable[str] = PEERS,
    progress: bool = True,
) -> Comparison:
    """Fit each method of `RnCRegressor`, and other regressors, on the same splits.

    Of each split 80% of the samples train, 10% validate and 10% test.

    Parameters
    ----------
    model : RnCRegressor
        Its settings are those of all methods; what a method does not have is left out there.
    X, y
        As for its `fit`; one target.
    groups : sequence, length n, optional
        What belongs together and stays in one set, such as the measurements of one patient.
    n_splits : int
        At least 2, with seeds 0, 1, ….
    peers : iterable of str
        Of `PEERS`. The Gaussian process is left out beyond 2000 samples.
    progress : bool
        Show a bar with the time left.

    Raises
    ------
    ValueError
    """
    y, peers = np.asarray(y, float), tuple(peers)
    if y.ndim != 1:
        raise ValueError(f"y: got shape {y.shape}; allowed: (n,), one target")
    if type(n_splits) is not int or n_splits < 2:
        raise ValueError(f"n_splits: got {n_splits!r}; allowed: an integer of at least 2")
    if unknown := [name for name in peers if name not in PEERS]:
        raise ValueError(f"peers: got {unknown}; allowed: {', '.join(map(repr, PEERS))}")
    peers = tuple(name for name in peers if name != "gaussian process" or len(y) <= _MOST)
    belongs = range(len(y)) if groups is None else list(groups)
    if len(belongs) != len(y):
        raise ValueError(f"groups: got {len(belongs)}; allowed: one for each of {len(y)} samples")
    splits = [group_split(belongs, seed) for seed in range(n_splits)]
    rows: list[dict[str, Any]] = []
    with tqdm(total=n_splits * (len(METHODS) + len(peers)), disable=not progress, desc="fits") as bar:
        for number, split in enumerate(splits):
            for row in _on_split(model, X, y, split, peers, number):
                rows.append({"split": number} | row)
                bar.update()
    overlaps = [np.isin(a.test, b.test).mean() for i, a in enumerate(splits) for b in splits[:i]]
    n_train, n_test = (float(np.mean([len(getattr(one, part)) for one in splits])) for part in ("train", "test"))
    return Comparison(pd.DataFrame(rows), correlation_of(n_train, n_test, float(np.mean(overlaps))))


def _on_split(
    model: RnCRegressor, X: Any, y: np.ndarray, split: Split, peers: Sequence[str], seed: int
) -> Iterable[dict[str, Any]]:
    seen = np.sort(np.concatenate([split.train, split.val]))
    for method in METHODS:
        settings = {"method": method, "random_state": seed, "verbose": False}
        settings |= {} if method == "rnc" else {"temperature": None}
        settings |= {} if method == "joint" else {"contrastive_weight": None}
        one = clone(model).set_params(**settings, validation_fraction=len(split.val) / len(seen))
        began = time.monotonic()
        one.fit(_rows(X, seen), y[seen])
        yield _row(method, one.predict(_rows(X, split.test)), y[split.test], time.monotonic() - began)
    inputs = {name: one.inputs_of(_rows(X, getattr(split, name))) for name in ("train", "val", "test")}
    if model.encoder is not None:
        inputs = {name: its.reshape(len(its), -1) for name, its in inputs.items()}
    kind = _FEATURES[model.inputs]
    for name in peers:
        recipe = Recipe(name) if name == "training mean" else Recipe(name, featuriser=kind, scaling="standard")
        train, val = (Samples(inputs[part], y[getattr(split, part)]) for part in ("train", "val"))
        began = time.monotonic()
        fitted = fit(recipe, train, val, seed=seed)
        yield _row(name, fitted.predict(inputs["test"]), y[split.test], time.monotonic() - began)


def _row(method: str, predicted: np.ndarray, measured: np.ndarray, seconds: float) -> dict[str, Any]:
    off = predicted - measured
    mae, rmse = float(np.abs(off).mean()), float(np.sqrt((off**2).mean()))
    return {"method": method, "mae": mae, "rmse": rmse, "seconds": seconds}


def _rows(X: Any, index: np.ndarray) -> Any:
    """Some samples of a table, an array or a sequence."""
    if hasattr(X, "iloc"):
        return X.iloc[index]
    return take(np.asarray(X, dtype=object if isinstance(X, list | tuple) and isinstance(X[0], str) else None), index)
