"""Training views against torchvision's transforms: the same picture from the same numbers, the same distribution."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision import transforms
from torchvision.transforms import functional as reference
from torchvision.transforms.functional import InterpolationMode

from rnclib.data import augment as module
from rnclib.data import images as stored
from rnclib.data.augment import N_UNIFORMS, Parameters, Views, augment, draw, shift
from rnclib.data.images import Images

SIDE, SIZE = 40, 35


@pytest.fixture
def pixels() -> torch.Tensor:
    smooth = torch.rand(64, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    image = torch.nn.functional.interpolate(smooth, SIDE, mode="bicubic").clamp(0, 1)
    return (255 * image).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def by_torchvision(pixels: torch.Tensor, size: int, how: Parameters, i: int) -> torch.Tensor:
    """One view made by torchvision's functions, one after the other."""
    x = pixels[i].permute(2, 0, 1).float() / 255
    x = reference.resized_crop(x, *how.box[i].tolist(), [size, size], InterpolationMode.BILINEAR, antialias=False)
    if how.flip[i]:
        x = reference.hflip(x)
    if how.jitter[i]:
        changes = [
            reference.adjust_brightness, reference.adjust_contrast, reference.adjust_saturation, reference.adjust_hue,
        ]  # fmt: skip
        for kind in how.order[i]:
            x = changes[kind](x, how.factor[i, kind])
    if how.greyscale[i]:
        x = reference.rgb_to_grayscale(x, 3)
    return reference.normalize(x, [0.5] * 3, [0.5] * 3)


def test_views_are_those_that_torchvision_makes_of_the_same_numbers(pixels):
    uniforms = np.random.default_rng(0).random((64, N_UNIFORMS))
    how = draw(uniforms, SIDE)
    for flags in (how.flip, how.jitter, how.greyscale):
        assert flags.any() and not flags.all()
    assert len({tuple(order) for order in how.order}) > 15
    views = augment(pixels, SIZE, uniforms)
    assert views.shape == (64, 3, SIZE, SIZE) and views.is_contiguous(memory_format=torch.channels_last)
    for i, view in enumerate(views):
        torch.testing.assert_close(view, by_torchvision(pixels, SIZE, how, i), atol=2e-3, rtol=0)


def test_smoothing_against_aliasing_would_change_little(pixels):
    """The deviation from the published transforms that the module states, measured on smooth pictures."""
    uniforms = np.random.default_rng(1).random((64, N_UNIFORMS))
    uniforms[:, 22:25] = 0.9  # no flip, no jitter, no greyscale
    how = draw(uniforms, SIDE)
    views = augment(pixels, SIZE, uniforms)
    published = torch.stack(
        [
            reference.resized_crop(
                pixels[i].permute(2, 0, 1).float() / 255, *how.box[i].tolist(), [SIZE, SIZE], antialias=True
            )
            for i in range(64)
        ]
    )
    assert (views - (2 * published - 1)).abs().mean() < 0.01


@pytest.fixture(scope="module")
def many() -> Parameters:
    return draw(np.random.default_rng(2).random((20000, N_UNIFORMS)), 256)


def test_crops_are_distributed_as_torchvisions(many):
    torch.manual_seed(0)
    image = torch.empty(3, 256, 256)
    theirs = np.array([transforms.RandomResizedCrop.get_params(image, module.AREA, module.ASPECT) for _ in range(4000)])
    for column in range(4):
        assert stats.ks_2samp(many.box[:, column], theirs[:, column]).pvalue > 1e-3
    area = many.box[:, 2] * many.box[:, 3] / 256**2
    assert area.min() > 0.195 and area.max() <= 1
    assert (many.box[:, 0] >= 0).all() and (many.box[:, 0] + many.box[:, 2] <= 256).all()
    assert (many.box[:, 1] >= 0).all() and (many.box[:, 1] + many.box[:, 3] <= 256).all()


def test_chances_and_ranges_are_the_published_ones(many):
    for flags, chance in ((many.flip, 0.5), (many.jitter, 0.8), (many.greyscale, 0.2)):
        assert stats.binomtest(int(flags.sum()), len(flags), chance).pvalue > 1e-3
    for column, (low, high) in enumerate([(0.6, 1.4), (0.6, 1.4), (0.6, 1.4), (-0.1, 0.1)]):
        assert stats.kstest(many.factor[:, column], stats.uniform(low, high - low).cdf).pvalue > 1e-3
    _, counts = np.unique(many.order, axis=0, return_counts=True)
    assert len(counts) == 24 and stats.chisquare(counts).pvalue > 1e-3


def test_a_crop_that_never_fits_is_the_whole_image():
    uniforms = np.full((3, N_UNIFORMS), 0.999)  # the largest area at the widest aspect, ten times
    assert draw(uniforms, 100).box.tolist() == [[0, 0, 100, 100]] * 3


def test_a_view_depends_on_its_own_keys_only(pixels):
    images, index = Images(pixels, SIZE), np.arange(10, 50)
    views = Views(images, index, seed=1, n_views=2).at_epoch(3)
    some = views[[4, 9, 0]]
    assert some.shape == (3, 2, 3, SIZE, SIZE) and len(views) == 40
    for position, sample in enumerate((4, 9, 0)):
        torch.testing.assert_close(views[[sample]][0], some[position])
    assert not torch.equal(some[:, 0], some[:, 1])
    for other in (views.at_epoch(4), Views(images, index, seed=2, n_views=2, epoch=3)):
        assert not torch.equal(other[[4, 9, 0]], some)
    torch.testing.assert_close(views.at_epoch(3)[[4, 9, 0]], some)
    single = Views(images, index, seed=1, epoch=3)
    torch.testing.assert_close(single[[4]], some[:1, 0])


@pytest.mark.parametrize("copied", [2**30, -1])
def test_views_of_images_taken_are_those_of_the_whole(pixels, monkeypatch, copied):
    monkeypatch.setattr(stored, "COPIED", copied)
    images, index = Images(pixels, SIZE), np.random.default_rng(0).permutation(64)[:40]
    whole = Views(images, index, seed=1, n_views=2, epoch=3)
    taken = Views(images.take(index), np.arange(40), seed=1, n_views=2, epoch=3)
    assert torch.equal(taken[[39, 4, 9]], whole[[39, 4, 9]])


def test_grey_and_flat_images_stay_finite():
    flat = torch.full((32, SIDE, SIDE, 3), 128, dtype=torch.uint8)
    flat[:8] = 0
    flat[8:16] = 255
    views = augment(flat, SIZE, np.random.default_rng(3).random((32, N_UNIFORMS)))
    assert torch.isfinite(views).all() and views.abs().max() <= 1
    assert (views.amax((2, 3)) - views.amin((2, 3))).max() < 1e-5


# --- shifts alone ---------------------------------------------------------------------------------------


def test_shifted_views_are_crops_at_the_size_that_is_seen_mirrored_or_not(pixels):
    uniforms = np.random.default_rng(0).random((64, N_UNIFORMS))
    views = shift(pixels, SIZE, uniforms)
    assert views.shape == (64, 3, SIZE, SIZE) and views.is_contiguous(memory_format=torch.channels_last)
    seen = set()
    for view, image, (top, left, chance, *_) in zip(views, pixels, uniforms, strict=True):
        top, left = int(top * (SIDE - SIZE + 1)), int(left * (SIDE - SIZE + 1))
        cropped = image[top : top + SIZE, left : left + SIZE].permute(2, 0, 1).float() / 127.5 - 1
        mirrored = chance < 0.5
        torch.testing.assert_close(view, cropped.flip(2) if mirrored else cropped)
        seen.add((top, left, bool(mirrored)))
    assert len({top for top, *_ in seen}) == len({left for _, left, _ in seen}) == SIDE - SIZE + 1
    assert len({mirrored for *_, mirrored in seen}) == 2


def test_shifted_views_depend_on_seed_epoch_sample_and_number_of_the_view_alone(pixels):
    views = Views(Images(pixels, SIZE), np.arange(64), seed=0, n_views=2, shifts_only=True)
    later = views.at_epoch(3)
    whole = later[np.arange(64)]
    assert whole.shape == (64, 2, 3, SIZE, SIZE)
    torch.testing.assert_close(later[np.array([9, 4])], whole[[9, 4]])
    assert not torch.equal(whole[:, 0], whole[:, 1]) and not torch.equal(whole, views.at_epoch(4)[np.arange(64)])
    # colours stay: the mean of a picture changes by what is cropped alone
    assert (whole.mean((3, 4)) - views.images[np.arange(64)].mean((2, 3))[:, None]).abs().max() < 0.2
