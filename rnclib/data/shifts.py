"""Fewer training samples, unseen target ranges, label noise and spurious correlation."""

from __future__ import annotations

import numpy as np

from rnclib.data import Split

__all__ = [
    "SEEN", "seen_ranges", "spurious_split", "subsample", "with_label_noise", "with_unseen_ranges",
]  # fmt: skip


def subsample(split: Split, fraction: float, seed: int) -> Split:
    """The same split with a random subset of its training samples.

    The subsets of one seed are nested: each holds all smaller ones. Validation and test set stay as they are.

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


#: Ranges of the target that stay in the training set: centre and half width of each, in quantiles of its targets.
SEEN = {
    "two peaks": ((0.25, 0.12), (0.75, 0.12)),
    "three peaks": ((1 / 6, 0.09), (1 / 2, 0.09), (5 / 6, 0.09)),
    "cut-out": ((0.2, 0.2), (0.8, 0.2)),
}


def seen_ranges(split: Split, targets: np.ndarray, kind: str) -> list[tuple[float, float]]:
    """The ranges of the target that `with_unseen_ranges` leaves in the training set, lowest first, ends included.

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


def with_unseen_ranges(split: Split, targets: np.ndarray, kind: str, seed: int) -> Split:
    """The same split without the training and validation samples whose targets lie in certain ranges.

    With peaks, two or three ranges of the target are left, and fewer samples towards the ends of each. With
    ``'cut-out'``, the middle fifth of the targets is taken away. The test set stays as it is.

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

    def kept(index: np.ndarray) -> np.ndarray:
        density = np.zeros(len(index))
        quantile = np.searchsorted(ordered, targets[index]) / len(ordered)
        for (low, high), (centre, half) in zip(ranges, SEEN[kind], strict=True):
            inside = (targets[index] >= low) & (targets[index] <= high)
            bell = 1.0 if kind == "cut-out" else np.exp(-0.5 * ((quantile - centre) / (half / 2)) ** 2)
            density = np.maximum(density, inside * bell)
        return index[chance[index] < density]

    return Split(train=kept(split.train), val=kept(split.val), test=split.test)


def with_label_noise(split: Split, targets: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """The targets with label noise: within training and validation set, a fraction of the targets change places.

    Parameters
    ----------
    split : Split
    targets : ndarray, shape (n,)
    fraction : float
        Of the targets in each of the two sets, from 0 to 1.
    seed : int

    Returns
    -------
    ndarray, shape (n,)
        Targets of the test set are as they were.
    """
    if not 0 <= fraction <= 1:
        raise ValueError(f"fraction: got {fraction!r}; allowed: 0 to 1")
    rng, noisy = np.random.default_rng([seed, len(targets)]), targets.copy()
    for index in (split.train, split.val):
        chosen = rng.permutation(index)[: round(fraction * len(index))]
        noisy[chosen] = targets[np.roll(chosen, 1)]
    return noisy


#: Fraction that `spurious_split` keeps of the training samples which contradict the correlation.
AGAINST = 0.1


def spurious_split(split: Split, targets: np.ndarray, attribute: np.ndarray, seed: int, *, correlated: bool) -> Split:
    """The same split with samples taken away, so that an attribute correlates with the target in training only.

    A target is high if it is at least the median of the training set. Training and validation set keep all samples with
    the attribute and a high target, all with neither, and one in ten of the others. The test set keeps the same number
    of samples of each of the four combinations.

    Parameters
    ----------
    split : Split
    targets : ndarray, shape (n,)
    attribute : ndarray of bool, shape (n,)
    seed : int
    correlated : bool
        If not, for comparison: training and validation set are random subsets of the same sizes, and the test set is
        the same.

    Raises
    ------
    ValueError
        If the test set lacks one of the four combinations.
    """
    high, has = targets >= np.median(targets[split.train]), np.asarray(attribute, bool)
    rng = np.random.default_rng([seed, len(targets)])

    def kept(index: np.ndarray) -> np.ndarray:
        order = rng.permutation(index)
        against = order[high[order] != has[order]]
        chosen = np.setdiff1d(index, against[round(AGAINST * len(against)) :])
        return chosen if correlated else np.sort(order[: len(chosen)])

    train, val = kept(split.train), kept(split.val)
    order = rng.permutation(split.test)
    cells = [order[(high[order] == h) & (has[order] == a)] for h in (False, True) for a in (False, True)]
    each = min(map(len, cells))
    if not each:
        raise ValueError(
            "attribute: got one that lacks a combination with low or high targets in the test set; allowed: all four"
        )
    return Split(train=train, val=val, test=np.sort(np.concatenate([cell[:each] for cell in cells])))
