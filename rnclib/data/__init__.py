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
    "seen_ranges",
    "spurious_split",
    "subsample",
    "with_holes",
    "with_wrong_targets",
]

PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Dataset:
    """Inputs with a scalar target each, and where they come from.

    Attributes
    ----------
    name : str
        Name used in records and captions, such as ``'esol'``.
    inputs : object
        Indexable by an integer array of sample numbers; gives a batch an encoder takes.
    targets : ndarray, shape (n,), float64
        Targets in `unit`.
    unit : str
        Unit of the targets.
    checksum : str
        SHA-256 of the source the data was made from.
    provenance : str
        One sentence: where the data comes from.
    synthetic : bool
        True for a stand-in. Every table and caption says so.
    smiles : tuple of str
        SMILES as the source gives them (molecules only).
    published_prediction : ndarray, shape (n,), or None
        Prediction that the source itself publishes, in `unit`.
    splits : mapping of str to callable
        Ways to divide the samples, by name; each takes a seed and returns a `Split`.
    nuisance : ndarray, shape (n,), or None
        An attribute of each sample that is no reason for its target: whether a molecule has nitrogen (0 or 1), or the
        hue of a drawn face's background, as the age that it stands for where the two are tied.
    """

    name: str
    inputs: Any
    targets: np.ndarray
    unit: str
    checksum: str
    provenance: str
    synthetic: bool
    smiles: tuple[str, ...] = ()
    published_prediction: np.ndarray | None = None
    splits: Mapping[str, Callable[[int], Split]] = field(default_factory=dict)
    nuisance: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.targets)


@dataclass(frozen=True)
class Split:
    """Sample numbers of the three parts, each sorted, no sample in two of them; some may be in none.

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


def subsample(split: Split, fraction: float, seed: int) -> Split:
    """The same split with a random part of its training samples.

    The subsets of one seed are nested: each holds all smaller ones. Validation and test stay as they are.

    Parameters
    ----------
    split : Split
    fraction : float
        Of the training samples, above 0, at most 1; at least one sample is kept.
    seed : int

    Examples
    --------
    >>> split = Split(train=np.arange(10), val=np.array([10]), test=np.array([11]))
    >>> len(subsample(split, 0.3, seed=0).train)
    3
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction: got {fraction!r}; allowed: above 0, at most 1")
    kept = max(1, round(fraction * len(split.train)))
    order = np.random.default_rng([seed, len(split.train)]).permutation(split.train)
    return Split(train=np.sort(order[:kept]), val=split.val, test=split.test)


#: Training targets with holes: centres and half widths, in quantiles of the training part, of the ranges that stay.
SEEN = {
    "two peaks": ((0.25, 0.12), (0.75, 0.12)),
    "three peaks": ((1 / 6, 0.09), (1 / 2, 0.09), (5 / 6, 0.09)),
    "cut-out": ((0.2, 0.2), (0.8, 0.2)),
}


def seen_ranges(split: Split, targets: np.ndarray, kind: str) -> list[tuple[float, float]]:
    """The ranges of the target that `with_holes` leaves in training, from below, both ends included.

    Parameters
    ----------
    split : Split
    targets : ndarray, shape (n,)
    kind : {'two peaks', 'three peaks', 'cut-out'}
    """
    if kind not in SEEN:
        raise ValueError(f"kind: got {kind!r}; allowed: {', '.join(map(repr, SEEN))}")
    train = targets[split.train]
    return [(float(np.quantile(train, c - h)), float(np.quantile(train, c + h))) for c, h in SEEN[kind]]


def with_holes(split: Split, targets: np.ndarray, kind: str, seed: int) -> Split:
    """The same split with training and validation samples taken away, so that ranges of the target stay unseen.

    Two or three ranges stay as bell-shaped peaks, dense in the middle and thin at their ends; ``'cut-out'`` takes the
    middle fifth away and leaves the rest as it is. The test part stays as it is.

    Parameters
    ----------
    split : Split
    targets : ndarray, shape (n,)
    kind : {'two peaks', 'three peaks', 'cut-out'}
    seed : int
    """
    ranges = seen_ranges(split, targets, kind)
    ordered = np.sort(targets[split.train])
    chance = np.random.default_rng([seed, len(targets)]).random(len(targets))

    def kept(part: np.ndarray) -> np.ndarray:
        density = np.zeros(len(part))
        quantile = np.searchsorted(ordered, targets[part]) / len(ordered)
        for (low, high), (centre, half) in zip(ranges, SEEN[kind], strict=True):
            inside = (targets[part] >= low) & (targets[part] <= high)
            bell = 1.0 if kind == "cut-out" else np.exp(-0.5 * ((quantile - centre) / (half / 2)) ** 2)
            density = np.maximum(density, inside * bell)
        return part[chance[part] < density]

    return Split(train=kept(split.train), val=kept(split.val), test=split.test)


def with_wrong_targets(split: Split, targets: np.ndarray, share: float, seed: int) -> np.ndarray:
    """The targets, with a share of those of training and validation dealt out anew among themselves.

    Parameters
    ----------
    split : Split
    targets : ndarray, shape (n,)
    share : float
        Of each part, from 0 to 1.
    seed : int

    Returns
    -------
    ndarray, shape (n,)
        Those of the test part are as they were.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"share: got {share!r}; allowed: 0 to 1")
    rng, wrong = np.random.default_rng([seed, len(targets)]), targets.copy()
    for part in (split.train, split.val):
        chosen = rng.permutation(part)[: round(share * len(part))]
        wrong[chosen] = targets[np.roll(chosen, 1)]
    return wrong


#: Share of the samples against the tie that `spurious_split` leaves in training.
AGAINST = 0.1


def spurious_split(split: Split, targets: np.ndarray, attribute: np.ndarray, seed: int, *, tied: bool) -> Split:
    """The same split with samples taken away, so that an attribute goes with the target in training, but not in test.

    With the tie are the samples that have the attribute and a target of at least the training median, and those that
    have neither. Training and validation keep all of these, and one in ten of the others. The test part keeps equally
    many samples of each of the four combinations.

    Parameters
    ----------
    split : Split
    targets : ndarray, shape (n,)
    attribute : ndarray of bool, shape (n,)
    seed : int
    tied : bool
        If not, training and validation are random parts of the same sizes, for comparison; the test part is the same.

    Raises
    ------
    ValueError
        If the test part lacks one of the four combinations.
    """
    high, has = targets >= np.median(targets[split.train]), np.asarray(attribute, bool)
    rng = np.random.default_rng([seed, len(targets)])

    def kept(part: np.ndarray) -> np.ndarray:
        order = rng.permutation(part)
        against = order[high[order] != has[order]]
        chosen = np.setdiff1d(part, against[round(AGAINST * len(against)) :])
        return chosen if tied else np.sort(order[: len(chosen)])

    train, val = kept(split.train), kept(split.val)
    order = rng.permutation(split.test)
    cells = [order[(high[order] == h) & (has[order] == a)] for h in (False, True) for a in (False, True)]
    each = min(map(len, cells))
    if not each:
        raise ValueError("attribute: got one without every combination with low and high targets in the test part")
    return Split(train=train, val=val, test=np.sort(np.concatenate([cell[:each] for cell in cells])))


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
