"""AgeDB (Moschoglou et al. 2017): face photographs with the age of the person, and two ways to split them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from rnclib.data import PARTS, Dataset, Split, public_file
from rnclib.data.images import decode

__all__ = ["SHA256", "URLS", "identity_split", "load_agedb", "read_table", "standard_split"]

SHA256 = "ab9f8d4c7099a9d74ec5094c42b6fe9f1927a166a48d2ab800a88b2fd6081252"
URLS = ("https://raw.githubusercontent.com/YyzHarry/imbalanced-regression/main/agedb-dir/data/agedb.csv",)
FILE = "agedb/agedb.csv"
NAME = re.compile(r"(?P<number>\d+)_(?P<person>.+)_(?P<age>\d+)_(?P<sex>[mf])\.jpg")


def read_table(root: str | Path | None = None, *, urls: Sequence[str] = URLS) -> pd.DataFrame:
    """Labels and standard split of every image.

    Parameters
    ----------
    root : path, optional
        A folder: if it holds an ``agedb.csv``, that is read. Otherwise the public table (Yang et al. 2021) is, see
        `rnclib.data.public_file`.
    urls : sequence of str
        Where to download the public table from.

    Returns
    -------
    DataFrame
        Columns ``age`` (years), ``path`` (``AgeDB/<number>_<Name>_<age>_<sex>.jpg``), ``split``, ``person`` and
        ``sex``; the last two are read from the path, and empty where it is not of that form.

    Raises
    ------
    ValueError
        If the table lacks a column, names an image twice, or holds an age or a split that is not allowed.
    FileNotFoundError
        If the public table cannot be had.
    """
    path = None if root is None else Path(root) / "agedb.csv"
    if path is None or not path.is_file():
        path = public_file(FILE, urls, SHA256)
    table = pd.read_csv(path)
    if missing := [column for column in ("age", "path", "split") if column not in table]:
        raise ValueError(
            f"{path}: got columns {list(table)}; allowed: age, path and split ({', '.join(missing)} missing)"
        )
    if not len(table):
        raise ValueError(f"{path}: got no rows; allowed: one for each image")
    ages = pd.to_numeric(table["age"], errors="coerce")
    faults = {
        "a path that stands twice": table["path"].duplicated(),
        "an age that is no number from 0 to 130": ~ages.between(0, 130),
        f"a split other than {', '.join(PARTS)}": ~table["split"].isin(PARTS),
    }
    for what, rows in faults.items():
        if rows.any():
            raise ValueError(f"{path}: got {what} in {rows.sum()} rows, such as {table[rows].iloc[0].to_dict()}")
    names = table["path"].map(lambda text: Path(text).name).str.extract(NAME)
    return table.assign(age=ages, person=names["person"].fillna(""), sex=names["sex"].fillna(""))


def load_agedb(
    data_dir: str | Path | None = None,
    *,
    size: int = 224,
    exclude: Sequence[str] = (),
    urls: Sequence[str] = URLS,
    progress: bool = True,
) -> Dataset:
    """AgeDB with its images, every one of them accounted for.

    Parameters
    ----------
    data_dir : path
        Folder that holds the images as ``AgeDB/<number>_<Name>_<age>_<sex>.jpg``, and may hold an
        ``agedb.csv`` of its own.
    size : int
        Side of the images that the network sees, in pixels.
    exclude : sequence of str
        Images to leave out, by file name. Each must be in the table.
    urls : sequence of str
        Where to download the public table from.
    progress : bool
        Show a bar while decoding.

    Returns
    -------
    Dataset
        With `splits` ``'standard'`` and ``'identity'``. Its checksum covers the table, and the content of every image.

    Raises
    ------
    FileNotFoundError
        If there are no images at all; the message says how to request them.
    ValueError
        If `data_dir` is None. If files are missing, cannot be read, or have another age in their name than in the
        table: one error lists them all.
    """
    if data_dir is None:
        raise ValueError("data_dir: got None; allowed: the folder that holds AgeDB's images")
    root = Path(data_dir)
    table = read_table(root, urls=urls)
    names = table["path"].map(lambda text: Path(text).name)
    if unknown := sorted(set(exclude) - set(names)):
        raise ValueError(f"exclude: got {unknown}; allowed: file names of the table, such as {names.iloc[0]!r}")
    table = table[~names.isin(exclude)].reset_index(drop=True)
    paths = [root / path for path in table["path"]]
    there = [path.is_file() for path in paths]
    if not any(there):
        raise FileNotFoundError(
            f"no image of AgeDB lies in {root / 'AgeDB'}. Its owners give the images out for non-commercial research: "
            "fill in the request form at https://ibug.doc.ic.ac.uk/resources/agedb/, unpack what they send so that "
            f"{paths[0]} exists, and give its folder as data_dir. Without the images, take the synthetic faces."
        )
    problems = {"missing": [path.name for path, found in zip(paths, there, strict=True) if not found]}
    given = table["path"].map(lambda text: Path(text).name).str.extract(NAME)
    problems["not named as <number>_<Name>_<age>_<sex>.jpg"] = [
        path.name for path, nameless in zip(paths, given["person"].isna(), strict=True) if nameless
    ]
    problems["of another age than the table says"] = [
        f"{path.name} (table: {age:g})"
        for path, named, age in zip(paths, pd.to_numeric(given["age"]), table["age"], strict=True)
        if not np.isnan(named) and named != age
    ]
    present = [path for path, found in zip(paths, there, strict=True) if found]
    try:
        images, checksum = decode(present, size, progress=progress)
    except ValueError as error:
        problems["unreadable"] = [str(error)]
    if any(problems.values()):
        listed = "; ".join(f"{what}: {', '.join(files)}" for what, files in problems.items() if files)
        raise ValueError(
            f"{root}: got images that do not match the table; allowed: all of them, or name those to leave out in "
            f"exclude. {listed}"
        )
    text = table[["age", "path", "split"]].to_csv(index=False)
    return Dataset(
        inputs=images,
        targets=table["age"].to_numpy(float),
        checksum=hashlib.sha256((text + checksum).encode()).hexdigest(),
        # the seed of a run changes neither of them
        splits={"standard": lambda _: standard_split(table), "identity": lambda _: identity_split(table)},
    )


def standard_split(table: pd.DataFrame) -> Split:
    """The split of Yang et al. (2021), as the table has it. The people of its test set are in its training set too."""
    return _as_split(table["split"].to_numpy())


def identity_split(table: pd.DataFrame, seed: int = 0) -> Split:
    """A split in which no person is in two sets, with sizes and ages as in the standard one.

    A search assigns people to the three sets at random. Then it moves one person after the other, or exchanges two, as
    long as that brings the age histograms of validation and test set (in steps of five years) closer to those of the
    standard split. Of several such searches the best result counts.

    Parameters
    ----------
    table : DataFrame
        From `read_table`.
    seed : int
        Of the random assignments, and of the order in which people are tried.

    Returns
    -------
    Split
        Its sets have the sizes of the standard split, within 2% unless single people have too many images.

    Raises
    ------
    ValueError
        If there are fewer than three people.
    """
    persons, person = np.unique(table["person"].to_numpy(str), return_inverse=True)
    if len(persons) < 3:
        raise ValueError(f"table: got {len(persons)} people; allowed: at least three, one for each set")
    age_bin = (table["age"].to_numpy() // 5).astype(int)
    histogram = np.zeros((len(persons), age_bin.max() + 1))
    np.add.at(histogram, (person, age_bin), 1)
    set_of_image = table["split"].to_numpy()
    wanted = np.stack([np.bincount(age_bin[set_of_image == name], minlength=histogram.shape[1]) for name in PARTS[1:]])

    def cost(held: np.ndarray) -> np.ndarray:
        # the size of a set counts like one more bin of its histogram
        off = held - wanted
        return (off**2).sum((-1, -2)) + (off.sum(-1) ** 2).sum(-1)

    # One made-up person without images in each set: to exchange somebody with them is to move that person alone.
    n_people = len(persons)
    histogram = np.concatenate([histogram, np.zeros((3, histogram.shape[1]))])
    everyone = np.arange(len(histogram))
    fractions = np.array([(set_of_image == name).mean() for name in PARTS])
    rng = np.random.default_rng(seed)
    best, least = None, np.inf
    for _ in range(4):
        where = np.append(rng.choice(3, size=n_people, p=fractions), [0, 1, 2])
        # row 0 is the training set, which no cost depends on: its histogram follows from those of the others
        held = np.stack([histogram[where == number].sum(0) for number in range(3)])
        changed = True
        while changed:
            changed = False
            for i in rng.permutation(n_people):
                after = np.repeat(held[None], len(everyone), axis=0)
                exchanged = histogram - histogram[i]
                after[:, where[i]] += exchanged
                after[everyone, where] -= exchanged
                costs = cost(after[:, 1:])
                j = int(costs.argmin())
                if costs[j] < cost(held[1:]):
                    held, changed = after[j], True
                    where[i], where[j] = where[j], where[i] if j < n_people else where[j]
        if cost(held[1:]) < least:
            best, least = where.copy(), float(cost(held[1:]))
    assert best is not None
    return _as_split(np.array(PARTS)[best[person]])


def _as_split(set_of_image: np.ndarray) -> Split:
    return Split(**{name: np.flatnonzero(set_of_image == name) for name in PARTS})
