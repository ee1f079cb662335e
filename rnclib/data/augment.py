"""The random views of images that the paper trains on, made for whole batches on their device."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from rnclib.data.images import Images

__all__ = ["Views", "augment", "draw", "shift"]

# The paper's: random resized crop, horizontal flip, colour jitter, greyscale.
AREA, ASPECT, TRIES = (0.2, 1.0), (3 / 4, 4 / 3), 10
FLIP, JITTER, GREYSCALE = 0.5, 0.8, 0.2
BRIGHTNESS, CONTRAST, SATURATION, HUE = 0.4, 0.4, 0.4, 0.1
LUMA = (0.2989, 0.587, 0.114)


@dataclass(frozen=True)
class Views:
    """Some of a set's images as random views.

    What a view looks like depends on seed, epoch, sample and number of the view alone: not on the batch that it comes
    in, nor on how many processes share the batches.

    Attributes
    ----------
    images : Images
    index : ndarray of int
        The images used, numbered anew from 0.
    seed : int
    n_views : int
        With one, batches have shape (n, 3, size, size), else (n, n_views, 3, size, size).
    epoch : int
    shifts_only : bool
        Crop at the size that the network sees, and mirror; leave size and colours as they are.
    """

    images: Images
    index: np.ndarray
    seed: int
    n_views: int = 1
    epoch: int = 0
    shifts_only: bool = False

    def at_epoch(self, epoch: int) -> Views:
        """The views of another epoch."""
        return replace(self, epoch=epoch)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, samples: np.ndarray | Sequence[int]) -> Tensor:
        """Views of the samples, scaled to [−1, 1]."""
        samples = np.asarray(samples)
        pixels = self.images.stored(self.index[samples])
        change = shift if self.shifts_only else augment
        views = [
            change(pixels, self.images.size, _uniforms(self.seed, self.epoch, view, len(self))[samples])
            for view in range(self.n_views)
        ]
        return views[0] if self.n_views == 1 else torch.stack(views, dim=1)


N_UNIFORMS = 2 * TRIES + 2 + 3 + 4 + 4


@functools.lru_cache(maxsize=4)
def _uniforms(seed: int, epoch: int, view: int, n: int) -> np.ndarray:
    """The random numbers of all samples in one epoch."""
    return np.random.default_rng([seed, epoch, view]).random((n, N_UNIFORMS))


@dataclass(frozen=True)
class Parameters:
    """How each of n views is made.

    Attributes
    ----------
    box : ndarray, shape (n, 4), int
        Top, left, height and width of the crop.
    flip, jitter, greyscale : ndarray, shape (n,), bool
    factor : ndarray, shape (n, 4)
        Of brightness, contrast and saturation; turns of the hue.
    order : ndarray, shape (n, 4), int
        In which these four are applied.
    """

    box: np.ndarray
    flip: np.ndarray
    jitter: np.ndarray
    greyscale: np.ndarray
    factor: np.ndarray
    order: np.ndarray


def draw(uniforms: np.ndarray, side: int) -> Parameters:
    """Turn uniform random numbers into views of square images, distributed as torchvision draws them.

    Parameters
    ----------
    uniforms : ndarray, shape (n, N_UNIFORMS)
        In [0, 1).
    side : int
        Of the images, in pixels.
    """
    area, aspect, place, chance, factor, order = np.split(uniforms, np.cumsum([TRIES, TRIES, 2, 3, 4]), axis=1)
    area = (AREA[0] + (AREA[1] - AREA[0]) * area) * side**2
    aspect = np.exp(np.log(ASPECT[0]) + (np.log(ASPECT[1]) - np.log(ASPECT[0])) * aspect)
    width, height = np.sqrt(area * aspect).round(), np.sqrt(area / aspect).round()
    fits = (width > 0) & (width <= side) & (height > 0) & (height <= side)
    first = (np.arange(len(uniforms)), fits.argmax(axis=1))  # the first try that fits, else the whole image
    any_fits = fits.any(axis=1)
    height = np.where(any_fits, height[first], side).astype(int)
    width = np.where(any_fits, width[first], side).astype(int)
    top = (place[:, 0] * (side - height + 1)).astype(int)
    left = (place[:, 1] * (side - width + 1)).astype(int)
    spread = np.array([BRIGHTNESS, CONTRAST, SATURATION, HUE])
    return Parameters(
        box=np.stack([top, left, height, width], axis=1),
        flip=chance[:, 0] < FLIP,
        jitter=chance[:, 1] < JITTER,
        greyscale=chance[:, 2] < GREYSCALE,
        factor=np.array([1, 1, 1, 0]) + spread * (2 * factor - 1),
        order=order.argsort(axis=1),
    )


def augment(pixels: Tensor, size: int, uniforms: np.ndarray) -> Tensor:
    """Random views of a batch of images.

    Each view is cropped and resized (bilinear, without the smoothing by which torchvision avoids aliasing: the
    images are at most 8/7 of the size), perhaps mirrored, its colours perhaps changed, perhaps made grey.

    Parameters
    ----------
    pixels : Tensor, shape (n, side, side, 3), uint8
    size : int
        Side of the views.
    uniforms : ndarray, shape (n, N_UNIFORMS)
        Random numbers in [0, 1), see `draw`.

    Returns
    -------
    Tensor, shape (n, 3, size, size), float32
        Scaled to [−1, 1], channels last, on the device of `pixels`.
    """
    how = draw(uniforms, pixels.shape[1])
    x = pixels.permute(0, 3, 1, 2).float().div_(255)
    x = _crop(x, size, how)
    for slot in range(4):
        for kind, change in enumerate((_brightness, _contrast, _saturation, _hue)):
            chosen = np.flatnonzero(how.jitter & (how.order[:, slot] == kind))
            if len(chosen):
                where = torch.from_numpy(chosen).to(x.device)
                factor = torch.tensor(how.factor[chosen, kind], dtype=x.dtype, device=x.device)[:, None, None, None]
                x[where] = change(x[where], factor)
    grey = torch.from_numpy(np.flatnonzero(how.greyscale)).to(x.device)
    x[grey] = _grey(x[grey]).expand(-1, 3, -1, -1)
    return x.mul_(2).sub_(1)


def shift(pixels: Tensor, size: int, uniforms: np.ndarray) -> Tensor:
    """A batch of images, each cropped at a random place and perhaps mirrored.

    Parameters
    ----------
    pixels, size, uniforms
        As for `augment`.

    Returns
    -------
    Tensor, shape (n, 3, size, size), float32
        As from `augment`.
    """
    top, left, mirrored = uniforms[:, :3].T
    n_places = pixels.shape[1] - size + 1
    places = np.arange(size)
    down = (top * n_places).astype(int)[:, None] + places
    across = (left * n_places).astype(int)[:, None] + np.where(mirrored[:, None] < FLIP, places[::-1], places)
    rows, columns = (torch.from_numpy(one).to(pixels.device) for one in (down[:, :, None], across[:, None, :]))
    sample = torch.arange(len(pixels), device=pixels.device)[:, None, None]
    cropped = pixels[sample, rows, columns].permute(0, 3, 1, 2)
    return cropped.float().div_(127.5).sub_(1).contiguous(memory_format=torch.channels_last)


def _crop(x: Tensor, size: int, how: Parameters) -> Tensor:
    side = x.shape[-1]
    box = torch.tensor(how.box, dtype=x.dtype, device=x.device)
    centre = (torch.arange(size, dtype=x.dtype, device=x.device) + 0.5) / size

    def positions(start: Tensor, length: Tensor, mirrored: Tensor | None = None) -> Tensor:
        along = centre.expand(len(start), -1)
        if mirrored is not None:
            along = torch.where(mirrored[:, None], 1 - along, along)
        # in pixels, from the centre of the first; nothing outside of the crop is looked at
        at = (along * length[:, None] - 0.5).clamp(torch.zeros_like(length)[:, None], length[:, None] - 1)
        return (2 * (start[:, None] + at) + 1) / side - 1

    top, left, height, width = box.unbind(1)
    mirrored = torch.from_numpy(how.flip).to(x.device)
    across = positions(left, width, mirrored)[:, None, :].expand(-1, size, -1)
    down = positions(top, height)[:, :, None].expand(-1, -1, size)
    grid = torch.stack([across, down], dim=-1)
    x = grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return x.contiguous(memory_format=torch.channels_last)


def _grey(x: Tensor) -> Tensor:
    red, green, blue = x.unbind(1)
    return (LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue)[:, None]


def _brightness(x: Tensor, factor: Tensor) -> Tensor:
    return (x * factor).clamp_(0, 1)


def _contrast(x: Tensor, factor: Tensor) -> Tensor:
    mean = _grey(x).mean((1, 2, 3), keepdim=True)
    return (mean + factor * (x - mean)).clamp_(0, 1)


def _saturation(x: Tensor, factor: Tensor) -> Tensor:
    grey = _grey(x)
    return (grey + factor * (x - grey)).clamp_(0, 1)


def _hue(x: Tensor, turns: Tensor) -> Tensor:
    """Turn the hue in HSV; value and saturation stay."""
    red, green, blue = x.unbind(1)
    value, low = x.amax(1), x.amin(1)
    chroma = value - low
    safe = torch.where(chroma > 0, chroma, 1)
    sixths = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, 2 + (blue - red) / safe, 4 + (red - green) / safe),
    )
    sixths = sixths + 6 * turns[:, 0]
    channels = []
    for offset in (5, 3, 1):
        k = (offset + sixths) % 6
        channels.append(value - chroma * torch.minimum(k, 4 - k).clamp_(0, 1))
    return torch.stack(channels, dim=1)
