"""Photographs decoded once: uint8 arrays on disk or on a device, from which batches are made without touching files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from rnclib.data import cache_dir

__all__ = ["Images", "decode", "digest"]

FORMAT = 1  # raised when the same files would be stored differently


@dataclass(frozen=True)
class Images:
    """Square images, stored a little larger than they are used.

    Attributes
    ----------
    pixels : Tensor, shape (n, stored, stored, 3), uint8
        May be mapped from a file, so that a set larger than the memory can be used.
    size : int
        Side of the evaluation view, and of the crops that training takes.
    device : device, optional
        Where batches are made; by default where the pixels are. Pixels that are elsewhere are copied batch by batch.
    """

    pixels: torch.Tensor
    size: int
    device: torch.device | None = None

    def __len__(self) -> int:
        return len(self.pixels)

    def stored(self, index: np.ndarray | Sequence[int]) -> torch.Tensor:
        """Pixels of the images `index` as they are stored, on `device`."""
        rows = self.pixels[torch.as_tensor(np.asarray(index), dtype=torch.int64, device=self.pixels.device)]
        return rows if self.device is None else rows.to(self.device)

    def cropped(self, index: np.ndarray | Sequence[int]) -> torch.Tensor:
        """Pixels of the centre crops of the images `index`, shape (len(index), size, size, 3), on `device`."""
        # a half is rounded to even, as torchvision's CenterCrop does
        start = round((self.pixels.shape[1] - self.size) / 2)
        inside = slice(start, start + self.size)
        return self.stored(index)[:, inside, inside]

    def __getitem__(self, index: np.ndarray | Sequence[int]) -> torch.Tensor:
        """Centre crops of the images `index`, shape (len(index), 3, size, size), scaled to [−1, 1], channels last."""
        return self.cropped(index).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)

    def to(self, device: torch.device | str, room: int | None = None) -> Images:
        """The same images with batches on `device`.

        Parameters
        ----------
        device : device or str
        room : int, optional
            Bytes that the pixels may take there, by default half of a GPU's free memory. A set that needs more stays
            where it is, such as in a file, and is read batch by batch.
        """
        device = torch.device(device)
        if room is None and device.type == "cuda":
            room = torch.cuda.mem_get_info(device)[0] // 2
        if room is not None and self.pixels.nbytes > room:
            return Images(self.pixels, self.size, device)
        return Images(self.pixels.to(device), self.size)


def digest(paths: Sequence[Path]) -> str:
    """SHA-256 of the names and contents of files, in their order."""
    whole = hashlib.sha256()
    for path in paths:
        whole.update(path.name.encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()


def decode(paths: Sequence[Path], size: int, *, progress: bool = True) -> tuple[Images, str]:
    """Images of all files, decoded now or taken from the cache if the same files have been decoded before.

    Each image is resized so that its shorter side is 8/7 of `size` (256 for 224), and cropped to the square in
    its middle. Its evaluation view is then that of the published protocol exactly; random crops are taken from the
    square, where the protocol takes them from the whole image.

    Parameters
    ----------
    paths : sequence of Path
    size : int
        Side of the evaluation view, in pixels.
    progress : bool
        Show a bar.

    Returns
    -------
    images : Images
        Mapped from the cache, not loaded into memory.
    checksum : str
        `digest` of the files.

    Raises
    ------
    ValueError
        With the names of all files that cannot be decoded; nothing is cached then.
    """
    if not isinstance(size, int) or size < 8:
        raise ValueError(f"size: got {size!r}; allowed: an integer of at least 8")
    stored = round(size * 8 / 7)
    checksum = digest(paths)
    name = hashlib.sha256(f"{checksum} {stored} {FORMAT}".encode()).hexdigest()[:16]
    target = cache_dir() / "images" / f"{name}.npy"
    if not target.is_file():
        _decode_all(paths, stored, target, progress)
    # copy on write: torch wants memory it may write to, the file stays as it is
    return Images(torch.from_numpy(np.load(target, mmap_mode="c")), size), checksum


def _decode_all(paths: Sequence[Path], stored: int, target: Path, progress: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_suffix(f".{os.getpid()}.tmp")
    try:
        pixels = np.lib.format.open_memmap(unfinished, "w+", np.uint8, (len(paths), stored, stored, 3))

        def decode_one(i: int) -> str | None:
            try:
                pixels[i] = _square(paths[i], stored)
            except (OSError, SyntaxError, ValueError) as error:  # what PIL raises for a broken file
                return f"{paths[i].name} ({' '.join(str(error).split())[:80]})"
            return None

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            found = pool.map(decode_one, range(len(paths)))
            bad = [text for text in tqdm(found, "decoding", len(paths), disable=not progress, unit="image") if text]
        if bad:
            raise ValueError(f"{len(bad)} of {len(paths)} images cannot be read: {', '.join(bad)}")
        pixels.flush()
        os.replace(unfinished, target)
    finally:
        unfinished.unlink(missing_ok=True)


def _square(path: Path, stored: int) -> np.ndarray:
    from PIL import Image

    with Image.open(path) as file:
        image = file.convert("RGB")
        width, height = image.size
        scale = stored / min(width, height)
        # the longer side is cut down to a whole number, as torchvision's Resize does
        width, height = (stored if side == min(width, height) else int(side * scale) for side in (width, height))
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        left, top = round((width - stored) / 2), round((height - stored) / 2)
        return np.asarray(image.crop((left, top, left + stored, top + stored)))
