"""Inputs made worse in graded steps, to see what a trained model still gets right.

For images the families of ImageNet-C (Hendrycks and Dietterich 2019): noise, blur, weather and digital artefacts. Their
strengths are set for small images, as fractions of a picture's side; those of the published code are in pixels of large
photographs (the package `imagenet-c` takes 224 only; `imagecorruptions` needs OpenCV and scikit-image too). For
molecules: hidden, wrong and exchanged atoms, and missing bonds.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from scipy import ndimage

from rnclib.data.molecules import Graphs

__all__ = ["IMAGE_CORRUPTIONS", "MOLECULE_CORRUPTIONS", "SEVERITIES", "corrupt_graphs", "corrupt_images"]

SEVERITIES = (1, 2, 3, 4, 5)
_AT_ONCE = 2**25  # bytes of pictures that are corrupted together; as floats, they take eight times the memory

# --- images: each takes values from 0 to 1, shape (n, side, side, 3), a strength and a generator --------------------


def _gaussian_noise(x: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    return x + strength * rng.standard_normal(x.shape)


def _shot_noise(x: np.ndarray, photons: float, rng: np.random.Generator) -> np.ndarray:
    return rng.poisson(x * photons) / photons


def _impulse_noise(x: np.ndarray, fraction: float, rng: np.random.Generator) -> np.ndarray:
    hit = rng.random(x.shape)
    return np.where(hit < fraction / 2, 0.0, np.where(hit < fraction, 1.0, x))


def _defocus_blur(x: np.ndarray, radius: float, rng: np.random.Generator) -> np.ndarray:
    reach = radius * x.shape[1]
    at = np.arange(-int(np.ceil(reach)), int(np.ceil(reach)) + 1)
    disk = np.clip(reach + 1 - np.hypot(at[:, None], at), 0, 1)  # fading by a pixel along its rim
    return _convolved(x, disk)


def _motion_blur(x: np.ndarray, length: float, rng: np.random.Generator) -> np.ndarray:
    reach = length * x.shape[1] / 2
    side = 2 * int(np.ceil(reach)) + 1
    blurred = np.empty_like(x)
    for i, angle in enumerate(rng.uniform(-np.pi / 4, np.pi / 4, len(x))):
        path = np.zeros((side, side))
        for t in np.linspace(-reach, reach, 8 * side):
            row, column = t * np.sin(angle) + side // 2, t * np.cos(angle) + side // 2
            path[round(row), round(column)] += 1
        blurred[i] = _convolved(x[i : i + 1], path)[0]
    return blurred


def _zoom_blur(x: np.ndarray, zoom: float, rng: np.random.Generator) -> np.ndarray:
    side, total, steps = x.shape[1], x.copy(), 8
    centre = (side - 1) / 2
    for factor in 1 + zoom * np.arange(1, steps + 1) / steps:
        at = centre + (np.arange(side) - centre) / factor
        low = np.clip(at.astype(int), 0, side - 2)
        above = at - low
        rows = x[:, low] * (1 - above)[None, :, None, None] + x[:, low + 1] * above[None, :, None, None]
        total += rows[:, :, low] * (1 - above)[:, None] + rows[:, :, low + 1] * above[:, None]
    return total / (steps + 1)


def _fog(x: np.ndarray, density: float, rng: np.random.Generator) -> np.ndarray:
    clouds = _clouds(len(x), x.shape[1], rng)[..., None]
    brightest = x.max(axis=(1, 2, 3), keepdims=True)
    return (x + density * clouds) * brightest / (brightest + density)


def _snow(x: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    side = x.shape[1]
    flakes = ndimage.gaussian_filter(rng.standard_normal(x.shape[:3]), (0, side / 90, side / 90))
    flakes /= flakes.std(axis=(1, 2), keepdims=True)
    flakes = ndimage.uniform_filter1d(np.clip(flakes - 1.5, 0, None), max(3, side // 16), axis=1)
    veil = x + 0.6 * amount * (1 - x) * x.mean(axis=3, keepdims=True)
    return veil + 3 * amount * flakes[..., None]


def _frost(x: np.ndarray, amount: float, rng: np.random.Generator) -> np.ndarray:
    ice = np.abs(_clouds(len(x), x.shape[1], rng) - 0.5)  # ridges where clouds meet
    ice = np.clip(1 - 8 * ice, 0, 1)[..., None]
    return x * (1 - 0.5 * amount) + amount * ice * np.array([0.75, 0.85, 0.95])


def _brightness(x: np.ndarray, added: float, rng: np.random.Generator) -> np.ndarray:
    return x + added


def _contrast(x: np.ndarray, factor: float, rng: np.random.Generator) -> np.ndarray:
    mean = x.mean(axis=(1, 2), keepdims=True)
    return mean + factor * (x - mean)


def _elastic(x: np.ndarray, reach: float, rng: np.random.Generator) -> np.ndarray:
    side = x.shape[1]
    moved = np.empty_like(x)
    shift = ndimage.gaussian_filter(rng.uniform(-1, 1, (len(x), 2, side, side)), (0, 0, side / 20, side / 20))
    shift *= reach * side / np.abs(shift).max(axis=(2, 3), keepdims=True)
    grid = np.mgrid[:side, :side]
    for i in range(len(x)):
        for channel in range(3):
            moved[i, ..., channel] = ndimage.map_coordinates(
                x[i, ..., channel], grid + shift[i], order=1, mode="reflect"
            )
    return moved


def _pixelate(x: np.ndarray, scale: float, rng: np.random.Generator) -> np.ndarray:
    from PIL import Image

    side, few = x.shape[1], max(1, round(scale * x.shape[1]))
    return _each(
        x, lambda image: image.resize((few, few), Image.Resampling.BOX).resize((side, side), Image.Resampling.NEAREST)
    )


def _jpeg(x: np.ndarray, quality: float, rng: np.random.Generator) -> np.ndarray:
    from PIL import Image

    def compressed(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=int(quality))
        return Image.open(file)

    return _each(x, compressed)


def _each(x: np.ndarray, change: Callable) -> np.ndarray:
    from PIL import Image

    pictures = (np.clip(x, 0, 1) * 255).round().astype(np.uint8)
    return np.stack([np.asarray(change(Image.fromarray(picture))) for picture in pictures]) / 255


def _convolved(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    return ndimage.convolve(x, (kernel / kernel.sum())[None, :, :, None], mode="reflect")


def _clouds(n: int, side: int, rng: np.random.Generator) -> np.ndarray:
    """Smooth random fields from 0 to 1 with structure at every scale."""
    total = np.zeros((n, side, side))
    for octave in range(5):
        total += ndimage.gaussian_filter(
            rng.standard_normal(total.shape) * 2.0**-octave, (0, *2 * [side / 4 / 2**octave]), mode="wrap"
        ) * (side / 4 / 2**octave)
    low, high = total.min(axis=(1, 2), keepdims=True), total.max(axis=(1, 2), keepdims=True)
    return (total - low) / (high - low)


# kind: family, how, strength at severity 1 to 5. Lengths are fractions of the picture's side.
_IMAGES: dict[str, tuple[str, Callable[..., np.ndarray], tuple[float, ...]]] = {
    "Gaussian noise": ("noise", _gaussian_noise, (0.04, 0.06, 0.08, 0.09, 0.10)),
    "shot noise": ("noise", _shot_noise, (500, 250, 100, 75, 50)),
    "impulse noise": ("noise", _impulse_noise, (0.01, 0.02, 0.05, 0.08, 0.14)),
    "defocus blur": ("blur", _defocus_blur, (0.005, 0.01, 0.015, 0.022, 0.03)),
    "motion blur": ("blur", _motion_blur, (0.06, 0.09, 0.12, 0.15, 0.19)),
    "zoom blur": ("blur", _zoom_blur, (0.06, 0.11, 0.16, 0.21, 0.26)),
    "fog": ("weather", _fog, (0.2, 0.5, 0.75, 1.0, 1.5)),
    "snow": ("weather", _snow, (0.1, 0.2, 0.35, 0.5, 0.7)),
    "frost": ("weather", _frost, (0.15, 0.25, 0.35, 0.45, 0.6)),
    "brightness": ("weather", _brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
    "contrast": ("digital", _contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
    "elastic": ("digital", _elastic, (0.01, 0.02, 0.03, 0.04, 0.05)),
    "pixelate": ("digital", _pixelate, (0.8, 0.6, 0.5, 0.4, 0.3)),
    "JPEG": ("digital", _jpeg, (80, 65, 58, 50, 40)),
}
#: Kinds of corruption of images, with their family.
IMAGE_CORRUPTIONS = {kind: family for kind, (family, _, _) in _IMAGES.items()}


def corrupt_images(pixels: np.ndarray, kind: str, severity: int, seed: int) -> np.ndarray:
    """Corrupt pictures; the same seed gives the same corruption.

    Parameters
    ----------
    pixels : ndarray, shape (n, side, side, 3), uint8
    kind : str
        A key of `IMAGE_CORRUPTIONS`.
    severity : {1, 2, 3, 4, 5}
    seed : int

    Returns
    -------
    ndarray, shape (n, side, side, 3), uint8
    """
    _check(kind, severity, IMAGE_CORRUPTIONS)
    _, change, strengths = _IMAGES[kind]
    rng = np.random.default_rng([seed, list(_IMAGES).index(kind)])
    block = max(1, _AT_ONCE // max(1, pixels[:1].size))
    corrupted = np.empty_like(pixels)
    for start in range(0, len(pixels), block):
        changed = change(pixels[start : start + block] / 255, strengths[severity - 1], rng)
        corrupted[start : start + block] = (np.clip(changed, 0, 1) * 255).round()
    return corrupted


# --- molecules ------------------------------------------------------------------------------------------------------

RATES = (0.05, 0.1, 0.2, 0.3, 0.5)

#: Kinds of corruption of molecules, and what each does to the fraction of atoms or bonds that the severity gives.
MOLECULE_CORRUPTIONS = {
    "masked atoms": "all features of an atom are 0",
    "flipped features": "a feature of an atom is that of another atom, anywhere in the set",
    "dropped bonds": "a bond is missing, both ways",
    "swapped atoms": "an atom has the features of another atom of its molecule",
}


def corrupt_graphs(graphs: Graphs, kind: str, severity: int, seed: int) -> Graphs:
    """Corrupt molecules; what is hit at one severity is hit at all higher ones too.

    Parameters
    ----------
    graphs : Graphs
    kind : str
        A key of `MOLECULE_CORRUPTIONS`.
    severity : {1, 2, 3, 4, 5}
        5, 10, 20, 30 or 50% of the atoms, features or bonds.
    seed : int
    """
    _check(kind, severity, MOLECULE_CORRUPTIONS)
    rng = np.random.default_rng([seed, list(MOLECULE_CORRUPTIONS).index(kind)])
    rate = RATES[severity - 1]
    n_atoms = len(graphs.x)
    if kind == "masked atoms":
        hit = torch.from_numpy(rng.random(n_atoms) < rate)
        return replace(graphs, x=torch.where(hit[:, None], 0.0, graphs.x))
    if kind == "flipped features":
        hit = torch.from_numpy(rng.random(tuple(graphs.x.shape)) < rate)
        other = torch.from_numpy(rng.integers(n_atoms, size=tuple(graphs.x.shape)))
        return replace(graphs, x=torch.where(hit, graphs.x.gather(0, other), graphs.x))
    if kind == "swapped atoms":
        hit = torch.from_numpy(rng.random(n_atoms) < rate)
        start = graphs.node_start.numpy()
        first, length = np.repeat(start[:-1], np.diff(start)), np.repeat(np.diff(start), np.diff(start))
        steps = 1 + (rng.random(n_atoms) * (length - 1)).astype(int)  # to any other, going round
        other = torch.from_numpy(first + (np.arange(n_atoms) - first + steps) % length)
        return replace(graphs, x=torch.where(hit[:, None], graphs.x[other], graphs.x))
    # one random number for both directions of a bond, which are recognised by having the same two atoms
    molecule = torch.repeat_interleave(graphs.edge_start.diff())
    ends = (graphs.edge_index + graphs.node_start[molecule]).sort(dim=0).values.T.numpy()
    bonds, bond_of = np.unique(ends, axis=0, return_inverse=True)
    kept = torch.from_numpy((rng.random(len(bonds)) >= rate)[bond_of.reshape(-1)])
    lengths = torch.zeros(len(graphs), dtype=torch.int64).index_add_(0, molecule, kept.long())
    edge_start = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    return replace(graphs, edge_index=graphs.edge_index[:, kept], edge_start=edge_start)


def _check(kind: str, severity: int, kinds: dict[str, str]) -> None:
    if kind not in kinds:
        raise ValueError(f"kind: got {kind!r}; allowed: {', '.join(map(repr, kinds))}")
    if severity not in SEVERITIES:
        raise ValueError(f"severity: got {severity!r}; allowed: 1, 2, 3, 4, 5")
