"""Which samples are held out of a training: of other groups, or with other inputs, than those that are trained on."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pandas as pd

from rnclib.data.images import Images
from rnclib.data.molecules import Molecules, canonical_smiles

__all__ = ["alike", "numbered", "together"]


def alike(X: Any) -> list[Any]:
    """What is the same for samples with equal inputs.

    Parameters
    ----------
    X : ndarray, DataFrame, Molecules or Images

    Returns
    -------
    list, length n

    Raises
    ------
    ValueError
        If a cell of a DataFrame is no text, number or date.
    """
    if isinstance(X, Molecules):
        return canonical_smiles(X.smiles)
    if isinstance(X, Images):
        return [hashlib.sha256(X.stored([i]).numpy().tobytes()).digest() for i in range(len(X))]
    if isinstance(X, pd.DataFrame):
        try:
            return pd.util.hash_pandas_object(X, index=False).tolist()
        except TypeError as error:
            raise ValueError(f"X: got a cell of another kind ({error}); allowed: text, numbers, dates") from error
    return [hashlib.sha256((row + 0.0).tobytes()).digest() for row in X]  # −0 is 0


def numbered(groups: Any, n: int) -> np.ndarray:
    """A number for each group.

    Parameters
    ----------
    groups : iterable of hashable
    n : int
        Samples.

    Returns
    -------
    ndarray of int, shape (n,)

    Raises
    ------
    ValueError
        If there is not one group for each sample, or one is missing.
    """
    numbers: dict[Any, int] = {}
    try:
        groups = list(groups)
        found = np.array([numbers.setdefault(group, len(numbers)) for group in groups], int)
    except TypeError as error:
        raise ValueError(f"groups: got {type(groups).__name__} ({error}); allowed: a text or number a sample") from None
    if len(found) != n:
        raise ValueError(f"groups: got {len(found)}; allowed: one for each of {n} samples")
    if n_missing := sum(group is None or group is pd.NA or group != group for group in numbers):
        raise ValueError(f"groups: got {n_missing} missing; allowed: a text or number a sample")
    return found


def together(belongs: np.ndarray, n_val: int, n_cal: int, batch: int | None, strict: bool) -> np.ndarray:
    """For each sample 0 (training), 1 (validation) or 2 (calibration), the same for all of a group.

    A group, from that of the last sample on, is calibration if it still fits there, else validation if it fits there.

    Parameters
    ----------
    belongs : ndarray of int, shape (n,)
        The group of each sample, in random order.
    n_val, n_cal : int
        Samples that are wanted.
    batch : int, optional
        Size of batches, none of which may be left with one sample.
    strict : bool
        Where no group fits, take the smallest, and so more samples than are wanted. Otherwise, where less than half of
        what is wanted would be held out, groups are divided.

    Returns
    -------
    ndarray of int, shape (n,)

    Raises
    ------
    ValueError
        If there are too few groups.
    """
    backwards = belongs[::-1]
    _, first, number, sizes = np.unique(backwards, return_index=True, return_inverse=True, return_counts=True)
    groups, part, room = np.argsort(first), np.zeros(len(sizes), int), {2: n_cal, 1: n_val}
    for group in groups:
        part[group] = next((which for which, left in room.items() if sizes[group] <= left), 0)
        room[part[group]] = room.get(part[group], 0) - sizes[group]
    for which, wanted in ((1, n_val), (2, n_cal)):
        held_out = sizes[part == which].sum()
        if 2 * held_out < wanted and not strict:
            return together(np.arange(len(belongs)), n_val, n_cal, batch, True)
        if wanted and not held_out:
            training = groups[part[groups] == 0]
            if len(training) < 2:
                needed = 3 if n_cal else 2
                raise ValueError(f"groups: got {len(sizes)} distinct; allowed: at least {needed}, some to hold out")
            part[training[np.argmin(sizes[training])]] = which
    if batch is not None:
        n_train = sizes[part == 0].sum()
        if n_train > batch and n_train % batch == 1:
            fits = (group for group in groups if part[group] == 0 and (n_train - sizes[group]) % batch != 1)
            part[next(fits, [])] = 1
    return part[number][::-1]
