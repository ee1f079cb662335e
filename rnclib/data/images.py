"""Image files decoded once into an array of bytes, on disk or on a device, from which batches are made."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from tqdm import tqdm

from rnclib.data import cache_dir, sample_numbers
from rnclib.files import whole

if TYPE_CHECKING:
    from PIL import Image as PILImage

__all__ = ["Images", "decode", "digest", "unreadable"]

# raised when the same files would be stored differently; 2: 16-bit images are scaled, 1 clipped them to white
FORMAT = 2
COPIED = 2**30  # bytes of images that a subset may copy into memory
LARGEST = 4096  # side of an evaluation view
# those that Pillow decodes itself; for others it starts programs, such as Ghostscript
KINDS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")


@dataclass(frozen=True)
class Images:
    """Square images, stored a little larger than the network sees them.

    Attributes
    ----------
    pixels : Tensor, shape (n, stored, stored, 3), uint8
        May be mapped from a file, so that a set larger than the memory can be used.
    size : int
        Side of the evaluation view, and of the crops that training takes.
    device : device, optional
        Where batches are made; by default where the pixels are. If that is elsewhere, pixels are copied there batch by
        batch.
    rows : ndarray of int, optional
        Which of the pixels are these images, in their order; by default all.
    """

    pixels: torch.Tensor
    size: int
    device: torch.device | None = None
    rows: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.pixels if self.rows is None else self.rows)

    def stored(self, index: np.ndarray | Sequence[int]) -> torch.Tensor:
        """Pixels of the images `index` as they are stored, on `device`."""
        rows = sample_numbers(index, len(self))
        rows = rows if self.rows is None else self.rows[rows]
        stored = self.pixels[torch.as_tensor(rows, dtype=torch.int64, device=self.pixels.device)]
        return stored if self.device is None else stored.to(self.device)

    def cropped(self, index: np.ndarray | Sequence[int]) -> torch.Tensor:
        """Pixels of the centre crops of the images `index`, shape (len(index), size, size, 3), on `device`."""
        # a half is rounded to even, as torchvision's CenterCrop does
        start = round((self.pixels.shape[1] - self.size) / 2)
        inside = slice(start, start + self.size)
        return self.stored(index)[:, inside, inside]

    def __getitem__(self, index: np.ndarray | Sequence[int]) -> torch.Tensor:
        """Centre crops of the images `index`, shape (len(index), 3, size, size), scaled to [−1, 1], channels last."""
        return self.cropped(index).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)

    def take(self, index: np.ndarray | Sequence[int]) -> Images:
        """The images `index`, in that order, as images of their own.

        Up to `COPIED` bytes are copied into memory. Of a larger set the pixels stay where they are, and `rows` says
        which of them are used.
        """
        rows = sample_numbers(index, len(self))
        rows = rows if self.rows is None else self.rows[rows]
        if len(rows) * self.pixels[:1].nbytes > COPIED:
            return replace(self, rows=rows)
        return replace(self, pixels=self.pixels[torch.from_numpy(rows).to(self.pixels.device)], rows=None)

    def to(self, device: torch.device | str, room: int | None = None) -> Images:
        """The same images with batches on `device`.

        Parameters
        ----------
        device : device or str
        room : int, optional
            Bytes that the pixels may take there, by default half of a GPU's free memory. Pixels that need more stay
            where they are, such as in a file, and are read batch by batch.
        """
        device = torch.device(device)
        if room is None and device.type == "cuda":
            room = torch.cuda.mem_get_info(device)[0] // 2
        if room is not None and len(self) * self.pixels[:1].nbytes > room:
            return replace(self, device=device)
        if self.rows is not None and device != self.pixels.device:  # not those of other sets
            return replace(self, pixels=self.pixels[torch.from_numpy(self.rows)].to(device), device=None, rows=None)
        return replace(self, pixels=self.pixels.to(device), device=None)


def digest(paths: Sequence[Path]) -> str:
    """SHA-256 of the names and contents of files, in their order."""
    whole = hashlib.sha256()
    for path in paths:
        if path.exists() and not path.is_file():  # such as a pipe, which has no end
            raise ValueError(f"paths: got {path}, which is no ordinary file; allowed: image files")
        with path.open("rb") as file:
            whole.update(path.name.encode() + b"\0" + hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()


def decode(
    paths: Sequence[Path], size: int, *, progress: bool = True, upright: bool = False, keep: bool = True
) -> tuple[Images, str]:
    """Images of all files, decoded now or taken from the cache if the same files have been decoded before.

    Each image is resized so that its shorter side is 8/7 of `size` (256 for 224), and cropped to the square in
    its middle. Its evaluation view is then that of the published protocol exactly; random crops are taken from the
    square, where the protocol takes them from the whole image.

    Grey images of 16 bits are scaled to 8. An image whose range of values is unknown, or that has more pixels than
    ``PIL.Image.MAX_IMAGE_PIXELS``, as it is or resized, is refused; so is a file of another kind than `KINDS`.

    Parameters
    ----------
    paths : sequence of Path
    size : int
        Side of the evaluation view, in pixels.
    progress : bool
        Show a bar.
    upright : bool
        Turn each image as its EXIF orientation says. AgeDB's protocol takes the pixels as they are stored. TIFF and
        AVIF files are turned in any case, by Pillow itself.
    keep : bool
        Leave what was decoded in the cache. Otherwise it is on disk for as long as it is used.

    Returns
    -------
    images : Images
        Mapped from the disk, not loaded into memory.
    checksum : str
        `digest` of the files.

    Raises
    ------
    ValueError
        With the names of all files that cannot be decoded; nothing is cached then.
    """
    if not isinstance(size, int) or not 8 <= size <= LARGEST:
        raise ValueError(f"size: got {size!r}; allowed: an integer of at least 8, and at most {LARGEST}")
    stored = round(size * 8 / 7)
    checksum = digest(paths)
    # the checksum says which files these are; the name in the cache, what has been made of them
    kind = f"{FORMAT} upright" if upright else f"{FORMAT}"
    name = hashlib.sha256(f"{checksum} {stored} {kind}".encode()).hexdigest()[:16]
    target = cache_dir() / "images" / f"{name}.npy"
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        if not keep:
            with tempfile.TemporaryFile(dir=target.parent) as file:
                pixels = np.memmap(file, np.uint8, "w+", shape=(len(paths), stored, stored, 3))
                _decode_all(paths, pixels, file.fileno(), progress, upright)
            return Images(torch.from_numpy(pixels), size), checksum
        with whole(target) as draft, open(draft, "w+b") as file:
            pixels = np.lib.format.open_memmap(draft, "w+", np.uint8, (len(paths), stored, stored, 3))
            _decode_all(paths, pixels, file.fileno(), progress, upright)
    # copy on write: torch wants memory it may write to, the file stays as it is
    return Images(torch.from_numpy(np.load(target, mmap_mode="c")), size), checksum


def _decode_all(paths: Sequence[Path], pixels: np.memmap, file: int, progress: bool, upright: bool) -> None:
    """Fill an array that is mapped from a file."""
    if hasattr(os, "posix_fallocate"):  # what memory is mapped to on a full disk kills the process
        os.posix_fallocate(file, 0, os.fstat(file).st_size)

    def decode_one(i: int) -> str | None:
        found = _square_or_reason(paths[i], pixels.shape[1], upright)
        if isinstance(found, str):
            return f"{paths[i].name} in row {i} ({found})"
        pixels[i] = found
        return None

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = pool.map(decode_one, range(len(paths)))
        bad = [text for text in tqdm(found, "decoding", len(paths), disable=not progress, unit="image") if text]
    if bad:
        raise ValueError(f"{len(bad)} of {len(paths)} images cannot be read: {', '.join(bad)}")
    pixels.flush()


def unreadable(paths: Sequence[Path], *, progress: bool = True) -> dict[int, str]:
    """Which images cannot be decoded, and why; a loader leaves them out.

    Parameters
    ----------
    paths : sequence of Path
    progress : bool
        Show a bar.
    """

    def reason(path: Path) -> str | None:
        found = _square_or_reason(path, 8, True)
        return found if isinstance(found, str) else None

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        reasons = tqdm(pool.map(reason, paths), "checking", len(paths), disable=not progress, unit="image")
        return {i: text for i, text in enumerate(reasons) if text}


def _square_or_reason(path: Path, stored: int, upright: bool) -> np.ndarray | str:
    from PIL import Image

    try:
        return _square(path, stored, upright)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        # Pillow looks at the size before `_square` can: it raises beyond twice the limit, and beyond the limit where
        # warnings are errors
        got = re.search(r"\d+ pixels", str(error))
        reason = _too_many(got.group() if got else str(error))
    except Exception as error:  # whatever Pillow raises for a broken file
        reason = str(error) or type(error).__name__
    return " ".join(reason.split())[:120]


def _too_many(got: str) -> str:
    from PIL import Image

    return f"size: got {got}; allowed: at most {Image.MAX_IMAGE_PIXELS} (PIL.Image.MAX_IMAGE_PIXELS)"


def _square(path: Path, stored: int, upright: bool) -> np.ndarray:
    from PIL import Image, ImageOps

    Image.init()
    with Image.open(path, formats=[kind for kind in KINDS if kind in Image.OPEN]) as file:
        # Pillow only warns here, without the file's name; warnings cannot be caught safely in threads
        if Image.MAX_IMAGE_PIXELS is not None and file.width * file.height > Image.MAX_IMAGE_PIXELS:
            raise ValueError(_too_many(f"{file.width} × {file.height} = {file.width * file.height} pixels"))
        image = ImageOps.exif_transpose(file) if upright else file
        if image.mode.startswith(("I", "F")):
            # TIFF files of 12 bits are opened as 16-bit ones, with their values as they are
            bits = getattr(file, "tag_v2", {}).get(258, (16,))[0]
            image = _in_8_bits(image, 4095 if bits == 12 else 65535)
        image = image.convert("RGB")
        width, height = image.size
        scale = stored / min(width, height)
        # the longer side is cut down to a whole number, as torchvision's Resize does
        width, height = (stored if side == min(width, height) else int(side * scale) for side in (width, height))
        if Image.MAX_IMAGE_PIXELS is not None and width * height > max(Image.MAX_IMAGE_PIXELS, stored**2):
            raise ValueError(_too_many(f"{width} × {height} = {width * height} pixels when resized"))
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        left, top = round((width - stored) / 2), round((height - stored) / 2)
        return np.asarray(image.crop((left, top, left + stored, top + stored)))


def _in_8_bits(image: PILImage.Image, white: int) -> PILImage.Image:
    """A grey image of more than 8 bits, scaled so that `white` becomes 255; Pillow's ``convert`` would clip it."""
    from PIL import Image

    if image.mode == "F":
        raise ValueError("mode: got 'F', whose range is unknown; allowed: whole numbers of 8 or 16 bits")
    values = np.asarray(image)
    low, high = int(values.min()), int(values.max())
    if low < 0 or high > white:
        raise ValueError(f"values: got {low} to {high}, whose range is unknown; allowed: 0 to {white}")
    return Image.fromarray(np.rint(values * (255 / white)).astype(np.uint8))
