"""Data sets, and the index lists that divide them into training, validation and test."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

__all__ = [
    "Dataset",
    "Split",
    "cache_dir",
    "group_split",
    "public_file",
]

PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Dataset:
    """Inputs with a scalar target each. What they are called and where they come from is in `rnclib.data.catalogue`.

    Attributes
    ----------
    inputs : object
        Indexable by an integer array of sample numbers, which gives a batch that an encoder takes; its method ``take``
        gives some of the samples as inputs of their own.
    targets : ndarray, shape (n,), float64
        In the unit of the source.
    checksum : str
        SHA-256 of the source the data was made from.
    splits : mapping of str to callable
        Ways to divide the samples, by name; each takes a seed and returns a `Split`.
    nuisance : ndarray, shape (n,), or None
        An attribute of each sample that is no reason for its target: whether a molecule has nitrogen (0 or 1), or the
        hue of a synthetic face's background, as the age that it stands for where the two are correlated.
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
    """Sample numbers of the three sets, each sorted, no sample in two of them; some may be in none.

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
    """Divide samples at random into three parts without tearing a group apart.

    The groups are shuffled, then each goes to the test part if it still fits there, else to the
    validation part if it fits there, else to training.

    Parameters
    ----------
    groups : sequence of hashable, length n
        Group of each sample.
    seed : int
        Non-negative; the same seed gives the same split.
    fractions : tuple of float
        Shares of training, validation and test; they sum to 1.
    largest : float, optional
        Groups of more than `largest` samples go to training without a draw.

    Returns
    -------
    Split
        Validation and test have ``round(fraction · n)`` samples each wherever the group sizes allow.

    Raises
    ------
    ValueError
        If the fractions are not positive or do not sum to 1, the seed is negative, or a part stays empty.

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
    parts: dict[str, list[int]] = {part: [] for part in PARTS}
    candidates = []
    for indices in members.values():
        if largest is not None and len(indices) > largest:
            parts["train"] += indices
        else:
            candidates.append(indices)
    for g in np.random.default_rng(seed).permutation(len(candidates)):
        part = next(part for part, free in room.items() if len(candidates[g]) <= free)
        parts[part] += candidates[g]
        room[part] -= len(candidates[g])

    for part, indices in parts.items():
        if not indices:
            raise ValueError(
                f"groups: got {n} samples in {len(members)} groups, which leaves the {part} part empty; "
                "allowed: enough small groups to fill each part"
            )
    return Split(**{part: np.sort(np.array(indices)) for part, indices in parts.items()})


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
