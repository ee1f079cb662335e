"""Tables of numbers from public files, each with a target to predict."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from rnclib.data import Dataset, Split, group_split, public_file
from rnclib.data.catalogue import SOURCES

__all__ = [
    "load_abalone", "load_airfoil", "load_bike", "load_california", "load_concrete", "load_diabetes", "load_kin8nm",
    "load_naval", "load_power_plant", "load_protein", "near_duplicates",
]  # fmt: skip

_GITHUB = "https://raw.githubusercontent.com/"
_UCI = f"{_GITHUB}nnuncert/nnuncert/5480296b1ccab6ecc6bc91934b28398da22ce697/data/uci/"
_SHAPIQ = f"{_GITHUB}mmschlk/shapiq/41d28118b5858a3db2a006773ae36c1bb625653d/src/shapiq/datasets/data/"
#: Rows that are used of a larger table, drawn once.
MOST = 10_000


def near_duplicates(inputs: np.ndarray, distance: float = 0.01) -> np.ndarray:
    """Group of each row: those that nearly repeat each other are in one, and so are their own near repetitions.

    Parameters
    ----------
    inputs : ndarray, shape (n, n_features)
        A missing number equals another missing one alone.
    distance : float
        Two rows nearly repeat each other if no number differs by more than this many standard deviations of its
        column.

    Returns
    -------
    ndarray of int, shape (n,)

    Examples
    --------
    >>> near_duplicates(np.array([[0.0, 1.0], [5.0, 1.0], [0.001, 1.0]])).tolist()
    [0, 1, 0]
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import KDTree

    inputs = inputs[:, ~np.isnan(inputs).all(axis=0)]
    spread = np.nanstd(inputs, axis=0)
    scaled = (inputs - np.nanmean(inputs, axis=0)) / np.where(spread > 0, spread, 1)
    scaled = np.nan_to_num(scaled, nan=1e6)
    pairs = KDTree(scaled).query_pairs(distance, p=np.inf, output_type="ndarray")
    joined = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(len(inputs),) * 2)
    return connected_components(joined, directed=False)[1]


def _whole(groups: Callable[[], np.ndarray]) -> Callable[[int], Split]:
    """Random splits 80:10:10 that keep each group in one set; groups are found when the first split is asked for."""
    found = functools.cache(groups)
    return lambda seed: group_split(found().tolist(), seed)


def _table(
    name: str, file: str, url: str, target: str, *, without: Sequence[str] = (), groups: Any = None, **read: Any
) -> Dataset:
    """The data set `name` of the catalogue from a file, see `rnclib.data.public_file`; text becomes 0 and 1.

    `groups` makes of the table what a split must keep together; by default near duplicates.
    """
    sha256 = str(SOURCES[name].sha256)
    table = pd.read_csv(public_file(file, [url], sha256), **read)
    together = None if groups is None else groups(table)
    if len(table) > MOST:
        rows = np.sort(np.random.default_rng(0).choice(len(table), MOST, replace=False))
        table, together = table.iloc[rows], None if together is None else together[rows]
    inputs = pd.get_dummies(table.drop(columns=[target, *without]), dtype=float).to_numpy(float)
    split = _whole(lambda: near_duplicates(inputs) if together is None else together)
    return Dataset(inputs, table[target].to_numpy(float), sha256, {SOURCES[name].splits[0]: split})


def load_concrete() -> Dataset:
    """Compressive strength of concrete (Yeh 1998), MPa, from what is in it and its age.

    Its ``'published'`` splits are those of the outside table that the book compares with: the same test set for all of
    them, and the other rows in five folds, of which the one numbered by the seed is the validation set.
    """
    url = f"{_UCI}concrete.csv"
    data = _table("concrete", "uci/concrete.csv", url, "Concrete-compressive-strength")
    return replace(data, splits={**data.splits, "published": partial(_published, len(data))})


def _published(n: int, seed: int) -> Split:
    if not 0 <= seed < 5:
        raise ValueError(f"seed: got {seed!r} with split='published'; allowed: 0 to 4")
    test = np.array(_CONCRETE_TEST)
    others = np.setdiff1d(np.arange(n), test)
    folds = np.array_split(np.random.default_rng(0).permutation(others), 5)
    train = np.concatenate([fold for number, fold in enumerate(folds) if number != seed])
    return Split(np.sort(train), np.sort(folds[seed]), test)


def load_power_plant() -> Dataset:
    """Electrical output of a power plant (Tüfekci 2014), MW, from the weather and the vacuum of its condenser."""
    return _table("power-plant", "uci/power-plant.csv", f"{_UCI}power-plant.csv", "PE")


def load_protein() -> Dataset:
    """Root mean square deviation of predicted protein structures (UCI's CASP), Å, from their properties."""
    return _table("protein", "uci/protein-structure.csv", f"{_UCI}protein-structure.csv", "RMSD")


def load_kin8nm() -> Dataset:
    """Distance of a simulated robot arm's end from a target, from its eight joint angles."""
    return _table("kin8nm", "uci/kin8nm.csv", f"{_UCI}kin8nm.csv", "y")


def load_naval() -> Dataset:
    """Decay of a simulated ship's turbine (Coraddu et al. 2016), as a coefficient, from what is measured on board."""
    return _table(
        "naval", "uci/naval-propulsion.csv", f"{_UCI}naval-propulsion.csv", "turb_decay_state",
        without=["comp_decay_state"],
    )  # fmt: skip


def load_california() -> Dataset:
    """Median value of houses in Californian block groups (Pace and Barry 1997), 100 000 US dollars."""
    url = f"{_SHAPIQ}california_housing.csv"
    return _table("california", "uci/california_housing.csv", url, "MedHouseVal")


def load_bike() -> Dataset:
    """Bicycles rented in Washington in an hour (Fanaee-T and Gama 2014), from hour, day and weather.

    Splits keep the hours of a day together.
    """

    def days(table: pd.DataFrame) -> np.ndarray:  # hours are in the order of time
        begins = (table["hour"].diff() < 0) | (table["weekday"].diff().fillna(0) != 0)
        return begins.cumsum().to_numpy()

    return _table("bike", "shapiq/bike.csv", f"{_SHAPIQ}bike.csv", "count", groups=days)


def load_airfoil() -> Dataset:
    """Noise of a wing in a wind tunnel (Brooks et al. 1989), dB, from frequency and flow.

    Splits keep the frequencies of a run together.
    """

    def runs(table: pd.DataFrame) -> np.ndarray:
        return table.groupby(["angle", "chord", "velocity"]).ngroup().to_numpy()

    url = f"{_GITHUB}d2l-ai/d2l-zh/abb4113be45cb2d23adeeb7b0e5a350938d7a650/data/airfoil_self_noise.dat"
    names = ["frequency", "angle", "chord", "velocity", "thickness", "level"]
    return _table(
        "airfoil", "uci/airfoil_self_noise.dat", url, "level", groups=runs, sep="\t", header=None, names=names
    )


def load_abalone() -> Dataset:
    """Rings of the shell of an abalone (Nash et al. 1994), one a year, from its size and weight."""
    url = f"{_GITHUB}jbrownlee/Datasets/d20fcb6402ae34e653d4513b00f39257bb37ed7f/abalone.csv"
    names = ["sex", "length", "diameter", "height", "whole", "shucked", "viscera", "shell", "rings"]
    return _table("abalone", "uci/abalone.csv", url, "rings", header=None, names=names)


def load_diabetes() -> Dataset:
    """Progression of diabetes after a year (Efron et al. 2004), as a score, from age, sex, BMI and blood tests."""
    from sklearn.datasets import load_diabetes as shipped

    inputs, targets = shipped(return_X_y=True, scaled=False)
    checksum = hashlib.sha256(inputs.tobytes() + targets.tobytes()).hexdigest()
    return Dataset(inputs, targets, checksum, {"random": _whole(partial(near_duplicates, inputs))})


# rows, counted from 0, of the test set behind the published table
_CONCRETE_TEST = (
    4, 5, 7, 13, 18, 28, 31, 35, 36, 41, 43, 48, 50, 52, 54, 55, 57, 80, 85, 95, 98, 100, 102, 103, 114, 117, 131,
    137, 138, 145, 147, 156, 161, 162, 167, 169, 171, 172, 182, 184, 188, 196, 200, 203, 204, 209, 210, 221, 226,
    229, 235, 249, 252, 260, 261, 266, 267, 269, 270, 272, 275, 279, 280, 285, 298, 303, 308, 310, 314, 316, 326,
    327, 328, 335, 336, 343, 344, 345, 352, 353, 363, 372, 373, 374, 375, 376, 379, 381, 384, 387, 388, 421, 426,
    431, 457, 461, 462, 463, 469, 476, 482, 487, 499, 505, 511, 512, 517, 522, 527, 534, 541, 560, 561, 567, 586,
    587, 590, 597, 599, 614, 616, 620, 623, 637, 644, 653, 655, 656, 657, 660, 663, 670, 672, 676, 690, 700, 701,
    711, 712, 719, 722, 724, 726, 739, 742, 747, 749, 751, 754, 756, 761, 767, 769, 770, 786, 787, 791, 793, 794,
    798, 800, 804, 809, 820, 828, 835, 838, 841, 845, 847, 852, 859, 881, 882, 892, 894, 897, 906, 909, 914, 916,
    922, 927, 932, 933, 935, 937, 943, 947, 960, 961, 964, 966, 967, 975, 977, 978, 984, 986, 992, 996, 1008, 1009,
    1014, 1015, 1028,
)  # fmt: skip
