"""What `rnclib.data.images.decode` does with deep, huge and turned photographs."""

from __future__ import annotations

import re
import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image

from rnclib.data import images

SIZE = 14  # stored as 16 × 16
GREY = np.rint(np.linspace(0, 65535, 16)).astype(np.uint16)[None].repeat(16, 0)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RNC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "images"


def pixels(*paths, **options) -> torch.Tensor:
    return images.decode(paths, SIZE, progress=False, **options)[0].pixels


def png_of_16_bits(values: np.ndarray) -> bytes:
    """A colour PNG, which Pillow reads but does not write."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff_of_12_bits(values: np.ndarray) -> bytes:
    """A grey TIFF with two values in three bytes, which Pillow reads but does not write."""
    height, width = values.shape
    even, odd = values.reshape(-1, 2).astype(int).T
    data = np.stack([even >> 4, (even & 15) << 4 | odd >> 8, odd & 255], 1).astype(np.uint8).tobytes()
    entries = [(256, width), (257, height), (258, 12), (259, 1), (262, 1), (273, 0), (277, 1), (278, height)]
    entries.append((279, len(data)))
    start = 8 + 2 + 12 * len(entries) + 4
    table = b"".join(struct.pack("<HHII", tag, 4, 1, start if tag == 273 else value) for tag, value in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + struct.pack("<I", 0) + data


# --- more than 8 bits -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["grey.png", "grey.tif", "big-endian.tif", "whole.tif", "grey.pgm", "colour.png"])
def test_a_gradient_of_16_bits_becomes_that_of_8(tmp_path, kind):
    path = tmp_path / kind
    if kind == "colour.png":
        path.write_bytes(png_of_16_bits(GREY[..., None].repeat(3, -1)))
    else:
        values = {"big-endian.tif": GREY.astype(">u2"), "whole.tif": GREY.astype(np.int32)}.get(kind, GREY)
        Image.fromarray(values).save(path)
    shallow = tmp_path / "8-bit.png"
    Image.fromarray(np.rint(GREY / 257).astype(np.uint8)).save(shallow)
    deep, expected = pixels(path, shallow).int()
    assert (deep - expected).abs().max() <= 1
    assert deep.min() == 0 and deep.max() == 255
    assert torch.equal(pixels(path, upright=True)[0].int(), deep)


def test_a_tiff_of_12_bits_is_scaled_by_its_own_range(tmp_path):
    path = tmp_path / "deep.tif"
    path.write_bytes(tiff_of_12_bits(GREY >> 4))
    with Image.open(path) as file:
        assert file.mode.startswith("I;16") and np.asarray(file).max() == 4095
    expected = np.rint(GREY / 257).astype(int)[..., None]
    for upright in (False, True):
        assert np.abs(pixels(path, upright=upright)[0].numpy().astype(int) - expected).max() <= 1


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (GREY / np.float32(65535), "mode: got 'F', whose range is unknown; allowed: whole numbers of 8 or 16 bits"),
        (GREY.astype(np.int32) + 1, "values: got 1 to 65536, whose range is unknown; allowed: 0 to 65535"),
        (GREY.astype(np.int32) - 1, "values: got -1 to 65534, whose range is unknown; allowed: 0 to 65535"),
    ],
)
def test_an_image_of_unknown_range_is_refused_by_name(tmp_path, cache, values, reason):
    Image.fromarray(values).save(tmp_path / "odd.tif")
    Image.fromarray(GREY).save(tmp_path / "good.png")
    with pytest.raises(ValueError, match=re.escape(f"1 of 2 images cannot be read: odd.tif ({reason})")):
        pixels(tmp_path / "good.png", tmp_path / "odd.tif")
    assert not list(cache.iterdir())


def test_what_was_clipped_to_white_is_not_taken_from_an_old_cache(tmp_path, monkeypatch, cache):
    path = tmp_path / "deep.png"
    Image.fromarray(GREY).save(path)
    with monkeypatch.context() as patch:
        patch.setattr(images, "FORMAT", 1)
        patch.setattr(images, "_square", lambda path, stored, upright: np.full((16, 16, 3), 255, np.uint8))
        assert pixels(path).min() == 255
    assert pixels(path).min() == 0 and len(list(cache.iterdir())) == 2


# --- too many pixels ------------------------------------------------------------------------------------


@pytest.mark.parametrize("action", ["ignore", "error"])
@pytest.mark.parametrize(("side", "opened"), [(20, True), (40, False)])  # Pillow itself refuses twice the limit
def test_a_bomb_is_refused_by_name(tmp_path, monkeypatch, cache, side, opened, action):
    for name, pixels_a_side in [("small.png", 16), ("bomb.png", side)]:
        Image.fromarray(np.zeros((pixels_a_side, pixels_a_side), np.uint8)).save(tmp_path / name)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)
    got = f"{side} × {side} = {side**2} pixels" if opened and action == "ignore" else f"{side**2} pixels"
    reason = f"bomb.png (size: got {got}; allowed: at most 300 (PIL.Image.MAX_IMAGE_PIXELS))"
    with (
        warnings.catch_warnings(),
        pytest.raises(ValueError, match=re.escape(f"1 of 2 images cannot be read: {reason}")),
    ):
        warnings.simplefilter(action, Image.DecompressionBombWarning)
        pixels(tmp_path / "small.png", tmp_path / "bomb.png")
    assert not list(cache.iterdir())


@pytest.mark.parametrize("limit", [400, None])
def test_an_image_of_as_many_pixels_as_allowed_is_read(tmp_path, monkeypatch, limit):
    Image.fromarray(np.full((20, 20), 7, np.uint8)).save(tmp_path / "full.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    assert (pixels(tmp_path / "full.png") == 7).all()


# --- EXIF orientation -----------------------------------------------------------------------------------


def turned(path, orientation: int = 6, **options):
    """Writes a picture that is white in its upper half as stored, with an EXIF orientation."""
    picture = np.zeros((32, 32, 3), np.uint8)
    picture[:16] = 255
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    Image.fromarray(picture).save(path, exif=exif, **options)
    return path


def test_an_image_is_turned_only_on_request_and_the_caches_do_not_mix(tmp_path, cache):
    path = turned(tmp_path / "turned.jpg", quality=95)
    for _ in range(2):  # decoded, then taken from the cache
        stored, checksum = images.decode([path], SIZE, progress=False)
        upright, same = images.decode([path], SIZE, progress=False, upright=True)
        above, right = stored.pixels[0].float(), upright.pixels[0].float()
        assert above[:6].min() > 240 and above[-6:].max() < 15
        # orientation 6: what is stored as the upper edge is the right one
        assert right[:, -6:].min() > 240 and right[:, :6].max() < 15
        assert checksum == same == images.digest([path])
        assert len(list(cache.iterdir())) == 2


def test_a_tiff_is_turned_once_whatever_is_asked_for(tmp_path):
    path = turned(tmp_path / "turned.tif")
    stored, upright = pixels(path), pixels(path, upright=True)
    assert torch.equal(stored, upright) and stored[0, :, -6:].min() == 255


def test_without_an_orientation_nothing_is_turned(tmp_path):
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(tmp_path / "plain.jpg")
    assert torch.equal(pixels(tmp_path / "plain.jpg"), pixels(tmp_path / "plain.jpg", upright=True))


@pytest.mark.parametrize("data", [b"no table", b"MM\0*\0"])
def test_broken_orientation_data_are_refused_by_name_where_they_matter(tmp_path, data):
    path = tmp_path / "broken.png"  # of a JPEG, Pillow leaves such data out
    Image.fromarray(np.full((20, 20), 7, np.uint8)).save(path, exif=b"Exif\0\0" + data)
    assert (pixels(path) == 7).all()
    with pytest.raises(ValueError, match=r"1 of 1 images cannot be read: broken\.png \(.+\)"):
        pixels(path, upright=True)
