"""Image files decoded once: the published view, deep, huge and turned photographs; images taken by number."""

from __future__ import annotations

import re
import shutil
import struct
import warnings
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import ExifTags, Image
from torchvision import transforms

from rnclib.data import images
from rnclib.data.augment import Views
from rnclib.data.images import Images

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


# --- files, cache and views ------------------------------------------------------------------------------


def test_the_evaluation_view_is_the_published_one(tmp_path):
    rng = np.random.default_rng(0)
    paths = []
    for width, height in [(300, 300), (311, 287), (260, 391), (500, 201), (90, 123), (257, 256)]:
        paths.append(tmp_path / f"{width}x{height}.png")
        Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(paths[-1])
    published = transforms.Compose(
        [transforms.Resize(256), transforms.CenterCrop(224), transforms.ToTensor(), transforms.Normalize(0.5, 0.5)]
    )
    decoded, _ = images.decode(paths, 224, progress=False)
    views = decoded[[3, 0, 1, 2, 4, 5]]
    assert views.shape == (6, 3, 224, 224) and views.is_contiguous(memory_format=torch.channels_last)
    for view, path in zip(views, [paths[i] for i in (3, 0, 1, 2, 4, 5)], strict=True):
        with Image.open(path) as image:
            torch.testing.assert_close(view, published(image), atol=1e-6, rtol=0)


def test_the_same_files_are_decoded_once_and_changed_ones_again(damageable, monkeypatch, cache):
    paths = sorted((damageable / "AgeDB").iterdir())[:5]
    first, checksum = images.decode(paths, 16, progress=False)
    with monkeypatch.context() as patch:
        patch.setattr(images, "_square", None)  # whoever calls it fails
        again, same = images.decode(paths, 16, progress=False)
    assert same == checksum and torch.equal(first.pixels, again.pixels)
    shutil.copyfile(paths[1], paths[0])
    changed, other = images.decode(paths, 16, progress=False)
    assert other != checksum and torch.equal(changed.pixels[0], first.pixels[1])
    assert len(list(cache.iterdir())) == 2


def test_what_cannot_be_read_is_named_and_nothing_is_cached(damageable, cache):
    paths = sorted((damageable / "AgeDB").iterdir())[:5]
    paths[1].write_bytes(paths[1].read_bytes()[:200])
    paths[3].write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"2 of 5 images cannot be read") as caught:
        images.decode(paths, 16, progress=False)
    assert paths[1].name in str(caught.value) and paths[3].name in str(caught.value)
    assert paths[0].name not in str(caught.value) and not list(cache.iterdir())


def test_a_set_too_large_for_the_device_is_read_batch_by_batch_with_the_same_views(agedb_folder):
    paths = sorted((agedb_folder / "AgeDB").iterdir())[:40]
    mapped, _ = images.decode(paths, 16, progress=False)
    resident, streamed = mapped.to("cpu", room=mapped.pixels.nbytes), mapped.to("cpu", room=mapped.pixels.nbytes - 1)
    assert streamed.pixels is mapped.pixels and streamed.device == torch.device("cpu")
    batch = np.array([3, 0, 31, 3])
    assert torch.equal(streamed[batch], resident[batch])
    views = [Views(held, np.arange(5, 40), seed=2, n_views=2).at_epoch(3)[batch] for held in (resident, streamed)]
    assert torch.equal(*views)
    # where batches are made elsewhere than the pixels lie, they are copied there
    assert mapped.to("meta", room=0)[batch].device.type == "meta"


def test_writing_to_a_batch_leaves_the_file_alone(agedb_folder):
    paths = sorted((agedb_folder / "AgeDB").iterdir())[:3]
    first, _ = images.decode(paths, 16, progress=False)
    first.pixels.zero_()
    again, _ = images.decode(paths, 16, progress=False)
    assert again.pixels.any()


@pytest.mark.parametrize("size", [4, 16.0, "16"])
def test_a_bad_size_is_refused(size):
    with pytest.raises(ValueError, match=r"size: got .*; allowed: an integer of at least 8"):
        images.decode([], size)


# --- images taken by number -----------------------------------------------------------------------------

N = 12
WHOLE = Images(
    torch.randint(0, 256, (N, 16, 16, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)), SIZE
)


@pytest.mark.parametrize("copied", [True, False])
@given(index=st.lists(st.integers(0, N - 1), max_size=15), data=st.data())
def test_a_batch_of_images_taken_is_that_of_the_whole(copied, index, data):
    picks = data.draw(st.lists(st.integers(0, len(index) - 1), max_size=15)) if index else []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "COPIED", 2**30 if copied else -1)
        taken = WHOLE.take(index)
        again = taken.take(picks)
    assert (taken.rows is None) == copied and (taken.pixels is WHOLE.pixels) != copied
    wanted = [index[i] for i in picks]
    assert len(taken) == len(index) and len(again) == len(picks)
    for name in ("__getitem__", "stored", "cropped"):
        expected = getattr(WHOLE, name)(wanted)
        assert torch.equal(getattr(taken, name)(picks), expected)
        assert torch.equal(getattr(again, name)(np.arange(len(picks))), expected)


def test_as_many_bytes_as_allowed_are_copied_and_more_are_not(monkeypatch):
    one = WHOLE.pixels[0].nbytes
    monkeypatch.setattr(images, "COPIED", 3 * one)
    assert WHOLE.take([5, 0, 3]).rows is None
    assert WHOLE.take([5, 0, 3, 3]).rows.tolist() == [5, 0, 3, 3]
    few = WHOLE.take([5, 0, 3, 3]).take([1, 2])  # few enough after all
    assert few.rows is None and torch.equal(few.pixels, WHOLE.pixels[[0, 3]])


def test_images_taken_are_a_copy_of_their_own():
    taken = WHOLE.take([1, 2])
    taken.pixels.zero_()
    assert WHOLE.pixels[1].any()


@pytest.mark.parametrize("copied", [2**30, -1])
def test_images_taken_go_to_a_device_like_others(monkeypatch, copied):
    monkeypatch.setattr(images, "COPIED", copied)
    taken = WHOLE.take([7, 2, 9])
    batch = [2, 0, 0]
    for moved in (taken.to("cpu"), taken.to("cpu", room=0), WHOLE.to("cpu", room=0).take([7, 2, 9])):
        assert len(moved) == 3 and torch.equal(moved[batch], WHOLE[[9, 7, 7]])
    resident, streamed = taken.to("meta"), taken.to("meta", room=0)
    assert resident.pixels.device.type == "meta" and resident.device is None and len(resident) == 3
    assert streamed.pixels is taken.pixels and streamed[batch].device.type == "meta"


@pytest.mark.parametrize("index", [[-1], [0, N], np.ones(N, dtype=bool), [0.0, 1.0], 3, [[0, 1]]])
@pytest.mark.parametrize("rows", [None, np.arange(N)])
def test_what_is_no_list_of_image_numbers_is_refused(index, rows):
    whole = replace(WHOLE, rows=rows)
    for refused in (whole.__getitem__, whole.take, whole.stored):
        with pytest.raises(IndexError, match=r"^index: got .*; allowed: a sequence of sample numbers from 0 to 11"):
            refused(index)


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
    with pytest.raises(ValueError, match=re.escape(f"1 of 2 images cannot be read: odd.tif in row 1 ({reason})")):
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
    reason = f"bomb.png in row 1 (size: got {got}; allowed: at most 300 (PIL.Image.MAX_IMAGE_PIXELS))"
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
    with pytest.raises(ValueError, match=r"1 of 1 images cannot be read: broken\.png in row 0 \(.+\)"):
        pixels(path, upright=True)
