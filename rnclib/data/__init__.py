"""Data sets, and the sample numbers that divide them into training, validation and test set."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

__all__ = [
    "PARTS",
    "Dataset",
    "Split",
    "cache_dir",
    "group_split",
    "public_file",
    "sample_numbers",
    "take",
]

#: Names of the three sets, in records and as attributes of a `Split`.
PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Dataset:
    """Inputs with a scalar target each. What they are called and where they come from is in `rnclib.data.catalogue`.

    Attributes
    ----------
    inputs : object
        `rnclib.data.molecules.Graphs` or `Molecules`, `rnclib.data.images.Images`, or an array of numbers, shape
        (n, n_features). An array of sample numbers as index gives a batch that an encoder takes; `take` gives inputs
        with fewer samples.
    targets : ndarray, shape (n,), float64
        In the unit of the source.
    checksum : str
        SHA-256 of the source the data was made from.
    splits : mapping of str to callable
        Ways to divide the samples, by name; each takes a seed and returns a `Split`.
    nuisance : ndarray, shape (n,), or None
        An attribute of each sample that has no influence on its target: whether a molecule has nitrogen (0 or 1); the
        hue of a synthetic face's background, given as the age that it stands for where hue and age are correlated.
    """

    inputs: Any
    targets: np.ndarray
    checksum: str
    splits: Mapping[str, Callable[[int], Split]] = field(default_factory=dict)
    nuisance: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True)
class Split:
    """Sample numbers of the three sets, sorted. No sample is in two of them; some may be in none.

    Attributes
    ----------
    train, val, test : ndarray of int
    """

    train: np.ndarray
    val: np.ndarray
    test: np.ndarray


def group_split(
    groups: Sequence[Hashable],
    seed: int,
    *,
    fractions: tuple[float, float, float] = (0.8, 0.1, 0.1),
    largest: float | None = None,
) -> Split:
    """Divide samples at random into the three sets; all samples of a group go to the same one.

    The groups are shuffled. Each then goes to the test set if it still fits there, else to the validation set if it
    fits there, else to the training set.

    Parameters
    ----------
    groups : sequence of hashable, length n
        Group of each sample.
    seed : int
        Non-negative; the same seed gives the same split.
    fractions : tuple of float
        Of the samples, for training, validation and test set; they sum to 1.
    largest : float, optional
        Groups of more than `largest` samples always go to the training set.

    Returns
    -------
    Split
        Validation and test have ``round(fraction · n)`` samples each wherever the group sizes allow.

    Raises
    ------
    ValueError
        If the fractions are not positive or do not sum to 1, the seed is negative, or a set stays empty.

    Examples
    --------
    >>> split = group_split(["a", "a", "b", "c", "d", "e", "f", "g", "h", "i"], seed=0)
    >>> len(split.train), len(split.val), len(split.test)
    (8, 1, 1)
    """
    if len(fractions) != 3 or min(fractions) <= 0 or abs(sum(fractions) - 1) > 1e-9:
        raise ValueError(f"fractions: got {fractions!r}; allowed: three positive numbers that sum to 1")
    if seed < 0:
        raise ValueError(f"seed: got {seed!r}; allowed: a non-negative integer")
    members: dict[Hashable, list[int]] = {}
    for i, group in enumerate(groups):
        members.setdefault(group, []).append(i)

    n = len(groups)
    room = {"test": round(fractions[2] * n), "val": round(fractions[1] * n), "train": n}
    sets: dict[str, list[int]] = {name: [] for name in PARTS}
    candidates = []
    for indices in members.values():
        if largest is not None and len(indices) > largest:
            sets["train"] += indices
        else:
            candidates.append(indices)
    for g in np.random.default_rng(seed).permutation(len(candidates)):
        name = next(name for name, free in room.items() if len(candidates[g]) <= free)
        sets[name] += candidates[g]
        room[name] -= len(candidates[g])

    for name, indices in sets.items():
        if not indices:
            raise ValueError(
                f"groups: got {n} samples in {len(members)} groups, which leaves the set {name!r} empty; "
                "allowed: enough small groups to fill each set"
            )
    return Split(**{name: np.sort(np.array(indices)) for name, indices in sets.items()})


def take(inputs: Any, index: np.ndarray | Sequence[int]) -> Any:
    """Some of the samples, in the order of `index`, as inputs of the same type.

    Parameters
    ----------
    inputs : object
        See `Dataset`.
    index : sequence of int
        Sample numbers.

    Examples
    --------
    >>> take(np.array([[1, 2], [3, 4], [5, 6]]), [2, 0]).tolist()
    [[5, 6], [1, 2]]
    """
    if isinstance(inputs, np.ndarray):  # its own ``take`` would count single numbers, not rows
        return inputs[sample_numbers(index, len(inputs))]
    return inputs.take(index)


def sample_numbers(index: np.ndarray | Sequence[int], n: int) -> np.ndarray:
    """The index as an array of sample numbers; a mask or negative numbers, which could be misread, are refused.

    Parameters
    ----------
    index : sequence of int
    n : int
        Number of samples.

    Raises
    ------
    IndexError
    """
    numbers = np.asarray(index)
    if numbers.ndim == 1 and not numbers.size:
        return numbers.astype(np.int64)
    if numbers.ndim != 1 or numbers.dtype.kind not in "iu" or numbers.min() < 0 or numbers.max() >= n:
        got = " ".join(repr(index).split())  # on one line
        raise IndexError(f"index: got {got}; allowed: a sequence of sample numbers from 0 to {n - 1}")
    return numbers


def cache_dir() -> Path:
    """Folder for downloads, checkpoints and trained encoders: ``$RNC_CACHE``, else ``~/.cache/rnclib``.

    Raises
    ------
    FileNotFoundError
        If ``RNC_CACHE`` is unset and there is no home directory.
    """
    if folder := os.environ.get("RNC_CACHE"):
        return Path(folder)
    try:
        return Path.home() / ".cache" / "rnclib"
    except RuntimeError:
        raise FileNotFoundError("RNC_CACHE is unset and there is no home directory: let it name a folder") from None


def public_file(file: str, urls: Sequence[str], sha256: str) -> Path:
    """Path of a public data file whose checksum has been verified.

    It is read from ``$RNC_DATA`` if that folder holds it, else from the cache, else downloaded there.

    Parameters
    ----------
    file : str
        Where it lies within ``$RNC_DATA`` and within the cache, such as ``'agedb/agedb.csv'``.
    urls : sequence of str
        Where to download it from, tried in order. A download that breaks off, or is not the file it should be, is
        tried once more and never used.
    sha256 : str
        Its checksum, verified every time.

    Raises
    ------
    FileNotFoundError
        If the file is nowhere and cannot be downloaded, or is not the file it should be. The message
        says how to get it.
    """
    root = os.environ.get("RNC_DATA")
    if root and (path := Path(root) / file).is_file():
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != sha256:
            raise FileNotFoundError(
                f"{path} is not the expected file: its SHA-256 is {found}, allowed is {sha256}. "
                f"Replace it, or unset RNC_DATA to download {Path(file).name}."
            )
        return path

    import pooch

    target = cache_dir() / file
    reasons = []
    for url in urls:
        fetcher = pooch.create(
            path=target.parent,
            base_url="",
            registry={target.name: f"sha256:{sha256}"},
            urls={target.name: url},
            retry_if_failed=1,  # a bad connection or a wrong checksum
        )
        try:
            # pooch writes to a temporary file and moves it into place once the checksum is right
            return Path(fetcher.fetch(target.name, downloader=pooch.HTTPDownloader(timeout=(5, 30))))
        except (OSError, ValueError) as error:  # requests' errors are OSErrors; a wrong checksum is a ValueError
            message = " ".join(str(error).split())
            reasons.append(f"{url}: {type(error).__name__}: …{message[-120:]}")
    raise FileNotFoundError(
        f"{target.name} is not at hand and could not be downloaded. Put it (SHA-256 {sha256}) at {target}, "
        f"or at <folder>/{file} and set RNC_DATA=<folder>. Tried: " + "; ".join(reasons)
    )
