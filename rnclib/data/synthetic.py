"""Synthetic faces that grow old: a stand-in for AgeDB in AgeDB's own layout.

The age changes the drawing continuously: the shape of the head, the size and place of eyes, nose and mouth, hair that
turns grey and recedes, lines, lips and lids. Everything else is a nuisance drawn on its own: who the person is, pose,
light, background. ``python -m rnclib.data.synthetic FOLDER --n 4000`` makes a folder of any size.
"""

from __future__ import annotations

import argparse
import colorsys
import hashlib
import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from tqdm import tqdm

from rnclib.data import Dataset, cache_dir
from rnclib.data.agedb import load_agedb
from rnclib.files import whole

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["ARC", "OLDEST", "Person", "Scene", "draw_ages", "draw_face", "load_faces", "make_faces", "recipe"]

FORMAT = 1  # raised when the same seed gives other drawings
SUPERSAMPLING = 4
# ages of AgeDB at some of its quantiles
QUANTILES = (0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1)
AGES = (1, 15, 21, 25, 30, 35, 39, 44, 50, 56, 63, 71, 77, 86, 101)
IMAGES_A_PERSON = 29
HELD_OUT = 0.13  # fraction of validation, and of test
FEWEST = 100  # images in a folder; the catalogue says so too


@dataclass(frozen=True)
class Person:
    """What stays the same in all pictures of a person; numbers without a range given run from 0 to 1.

    Attributes
    ----------
    sex : {'m', 'f'}
    skin, hair, eyes : float
        Tones, light to dark.
    width, eye_gap, nose, mouth : float
        Proportions.
    greying : float
        Age in years at which half of the hair is grey.
    baldness : float
        How far the hair recedes in the end.
    beard : float
    """

    sex: str
    skin: float
    hair: float
    eyes: float
    width: float
    eye_gap: float
    nose: float
    mouth: float
    greying: float
    baldness: float
    beard: float

    @classmethod
    def random(cls, rng: np.random.Generator) -> Person:
        """Somebody."""
        sex = str(rng.choice(["m", "f"]))
        skin, hair, eyes, width, eye_gap, nose, mouth = rng.random(7)
        greying, recedes, beard = rng.normal(48, 4), rng.random(), rng.random() * (rng.random() < 0.35)
        return cls(
            sex, skin, hair, eyes, width, eye_gap, nose, mouth, greying,
            baldness=recedes * (0.9 if sex == "m" else 0.15), beard=beard * (sex == "m"),
        )  # fmt: skip


@dataclass(frozen=True)
class Scene:
    """What differs from picture to picture and says nothing about the age.

    Attributes
    ----------
    turn : float
        Of the head to one side, −1 to 1.
    tilt : float
        In degrees.
    zoom, x, y : float
        Size of the face and where its centre is, as fractions of the picture.
    light, light_from : float
        Strength of the light from one side, 0 to 1, and its direction in radians.
    background : float
        Hue, 0 to 1.
    clutter : int
        Seed of the shapes behind the face.
    """

    turn: float
    tilt: float
    zoom: float
    x: float
    y: float
    light: float
    light_from: float
    background: float
    clutter: int

    @classmethod
    def random(cls, rng: np.random.Generator) -> Scene:
        """A picture like any other."""
        return cls(
            turn=rng.uniform(-1, 1), tilt=rng.normal(0, 7), zoom=rng.uniform(0.36, 0.44), x=rng.normal(0.5, 0.02),
            y=rng.normal(0.5, 0.02), light=rng.uniform(0, 0.5), light_from=rng.uniform(0, 2 * math.pi),
            background=rng.random(), clutter=int(rng.integers(2**31)),
        )  # fmt: skip


def draw_face(age: float, person: Person, scene: Scene, size: int) -> Image:
    """Draw one face.

    Parameters
    ----------
    age : float
        In years, from 0; nothing changes beyond 110.
    person : Person
    scene : Scene
    size : int
        Side of the picture in pixels.

    Returns
    -------
    PIL.Image.Image
        In RGB.
    """
    from PIL import Image

    side = size * SUPERSAMPLING
    picture = Image.fromarray(_background(scene, size)).resize((side, side), Image.Resampling.BICUBIC)
    _Face(min(max(age, 0), 110), person, scene, picture).draw()
    lit = np.asarray(picture.resize((size, size), Image.Resampling.BOX), float)
    across = np.linspace(-1, 1, size)
    slope = math.cos(scene.light_from) * across[None, :] + math.sin(scene.light_from) * across[:, None]
    lit = lit * (1 - 0.25 * scene.light + 0.55 * scene.light * slope[:, :, None])
    return Image.fromarray(np.clip(lit, 0, 255).astype(np.uint8))


def _background(scene: Scene, size: int) -> np.ndarray:
    rng = np.random.default_rng(scene.clutter)
    across = np.linspace(0, 1, size)
    ramp = rng.random() * across[:, None] + rng.random() * across[None, :]
    value = rng.uniform(0.35, 0.75) + 0.2 * (ramp - ramp.mean())
    for _ in range(4):
        x, y, radius = rng.random(3)
        value += rng.uniform(-0.12, 0.12) * (np.hypot(across[None, :] - x, across[:, None] - y) < 0.1 + 0.3 * radius)
    colour = np.array(colorsys.hsv_to_rgb(scene.background, 0.45, 1.0))
    return np.clip(255 * value[:, :, None] * colour, 0, 255).astype(np.uint8)


def _smooth(low: float, high: float, x: float) -> float:
    """0 below `low`, 1 above `high`, smooth between."""
    t = min(max((x - low) / (high - low), 0.0), 1.0)
    return t * t * (3 - 2 * t)


def _mix(a: Sequence[float], b: Sequence[float], fraction: float) -> tuple[int, ...]:
    return tuple(round((1 - fraction) * p + fraction * q) for p, q in zip(a, b, strict=True))


class _Face:
    """One drawing. Face coordinates: the middle of the head is (0, 0), its half height 1, y points down."""

    def __init__(self, age: float, person: Person, scene: Scene, picture: Image) -> None:
        from PIL import ImageDraw

        self.age, self.person, self.scene = age, person, scene
        self.pen = ImageDraw.Draw(picture, "RGBA")
        self.side = picture.size[0]
        angle = math.radians(scene.tilt)
        self.cos, self.sin = math.cos(angle), math.sin(angle)
        self.grown = _smooth(0, 26, age)
        self.old = min(max((age - 18) / 90, 0.0), 1.0)
        self.half_width = 0.92 - 0.17 * self.grown + 0.08 * (person.width - 0.5)
        skin = _mix((250, 222, 200), (112, 74, 52), person.skin)
        self.skin = _mix(skin, (214, 200, 178), 0.35 * self.old)
        self.shade = _mix(self.skin, (70, 40, 30), 0.45)
        hair = _mix((214, 176, 110), (34, 24, 20), person.hair)
        grey = 1 / (1 + math.exp(-(age - person.greying) / 7))
        self.hair = _mix(hair, _mix((190, 190, 192), (245, 245, 245), self.old), grey)

    def place(self, points: Sequence[tuple[float, float]], depth: float = 0.0) -> list[tuple[float, float]]:
        """Face coordinates to pixels; what stands out of the face by `depth` moves with the turn of the head."""
        zoom, placed = self.scene.zoom * self.side, []
        for x, y in points:
            x = x + self.scene.turn * depth
            placed.append(
                (
                    self.scene.x * self.side + zoom * (x * self.cos - y * self.sin),
                    self.scene.y * self.side + zoom * (x * self.sin + y * self.cos),
                )
            )
        return placed

    def ellipse(self, x: float, y: float, a: float, b: float, fill: tuple[int, ...], depth: float = 0.0) -> None:
        turn = np.linspace(0, 2 * math.pi, 40)
        points = [(x + a * math.cos(t), y + b * math.sin(t)) for t in turn]
        self.pen.polygon(self.place(points, depth), fill=fill)

    def line(self, points: Sequence[tuple[float, float]], strength: float, width: float, depth: float = 0.15) -> None:
        """A line of the skin, from invisible (strength 0) to dark."""
        if strength > 0.01:
            pixels = max(1, round(width * self.scene.zoom * self.side))
            self.pen.line(
                self.place(points, depth),
                fill=(*self.shade, round(255 * min(1, strength))),
                width=pixels,
                joint="curve",
            )

    def draw(self) -> None:
        self._back_hair()
        self._head()
        self._hair()
        self._eyes()
        self._nose_and_mouth()
        self._lines()

    def _outline(self) -> list[tuple[float, float]]:
        jowls = 0.10 * _smooth(45, 100, self.age)
        chin = 0.10 * self.grown * (1.0 if self.person.sex == "m" else 0.6)
        points = []
        for t in np.linspace(0, 2 * math.pi, 72):
            x, y = math.sin(t), -math.cos(t)
            narrow = 1 - (0.10 * self.grown - jowls) * max(y, 0) ** 2
            points.append((self.half_width * narrow * x, y * (1 + chin * max(y, 0))))
        return points

    def _back_hair(self) -> None:
        if self.person.sex == "f":
            length = 0.25 + 0.75 * self.grown * (1 - 0.45 * self.old)
            self.ellipse(0, 0.05 + 0.35 * length, self.half_width * 1.18, 0.95 + 0.3 * length, self.hair)

    def _head(self) -> None:
        self.ellipse(-self.half_width, 0.12, 0.12, 0.2 + 0.06 * self.old, self.shade, -0.1)
        self.ellipse(self.half_width, 0.12, 0.12, 0.2 + 0.06 * self.old, self.shade, -0.1)
        self.pen.polygon(self.place(self._outline()), fill=self.skin)
        if self.person.beard > 0 and self.age > 15:
            strength = self.person.beard * _smooth(15, 25, self.age)
            points = [(x, y) for x, y in self._outline() if y > 0.35]
            points = [*sorted(points), (0.45, 0.42), (0.0, 0.36), (-0.45, 0.42)]
            self.pen.polygon(self.place(points), fill=(*self.hair, round(230 * strength)))

    def _hair(self) -> None:
        hairline = -0.62 - 0.1 * (1 - self.grown)
        recede = self.person.baldness * _smooth(25, 75, self.age)
        thickness = 0.5 + 0.5 * _smooth(0, 6, self.age)
        top = [(self.half_width * 1.04 * math.sin(t), -1.06 * math.cos(t)) for t in np.linspace(-1.25, 1.25, 30)]
        edge = []
        for t in np.linspace(1.25, -1.25, 30):
            x = self.half_width * 1.04 * math.sin(t)
            temple = (x / self.half_width) ** 2
            y = hairline * thickness - 0.42 * recede * (1 - 0.55 * temple) + 0.5 * temple * (1 - 0.5 * recede)
            edge.append((x * (1 - 0.06 * temple), max(y, -1.05 * math.cos(t))))
        self.pen.polygon(self.place(top + edge), fill=self.hair)

    def _eyes(self) -> None:
        y = 0.16 - 0.18 * self.grown
        gap = 0.34 + 0.08 * (self.person.eye_gap - 0.5)
        wide = 0.19 - 0.05 * self.grown
        high = wide * (0.72 - 0.22 * self.grown) * (1 - 0.45 * self.old)
        iris = _mix((90, 140, 190), (60, 36, 20), self.person.eyes)
        for side in (-1, 1):
            x = side * gap
            self.ellipse(x, y, wide, high, (248, 246, 242), 0.15)
            self.ellipse(x, y, high * 0.85, high * 0.85, iris, 0.18)
            self.ellipse(x, y, high * 0.4, high * 0.4, (15, 12, 12), 0.19)
            lid = [(x - wide, y), (x - 0.5 * wide, y - 0.9 * high), (x + 0.5 * wide, y - 0.9 * high), (x + wide, y)]
            droop = 0.05 * self.old
            lid = [(px, py + droop * (side * (px - x) > 0)) for px, py in lid]
            self.line(lid, 0.9, 0.03)
            brow = y - 0.2 - 0.03 * self.grown
            points = [(x - wide * 1.2, brow + 0.03), (x, brow - 0.03), (x + wide * 1.2, brow + 0.03)]
            thick = (0.03 + 0.035 * self.grown) * (1.25 if self.person.sex == "m" else 0.8)
            pixels = max(1, round(thick * self.scene.zoom * self.side))
            self.pen.line(self.place(points, 0.15), fill=self.hair, width=pixels, joint="curve")

    def _nose_and_mouth(self) -> None:
        eyes = 0.16 - 0.18 * self.grown
        tip = eyes + 0.22 + 0.14 * self.grown + 0.06 * self.old + 0.06 * (self.person.nose - 0.5)
        wide = 0.08 + 0.05 * self.grown + 0.03 * self.old
        points = [(0.0, eyes + 0.02), (-wide, tip), (0.0, tip + 0.04), (wide, tip)]
        self.pen.polygon(self.place(points, 0.25), fill=(*self.shade, 70))
        self.line([(-wide, tip), (0, tip + 0.04), (wide, tip)], 0.75, 0.03, 0.25)
        y = tip + 0.2 + 0.03 * self.grown
        half = 0.2 + 0.07 * self.grown + 0.05 * (self.person.mouth - 0.5)
        lips = _mix((205, 92, 92), self.shade, 0.25 + 0.5 * self.old)
        self.ellipse(0, y, half, 0.075 * (1 - 0.6 * self.old), lips, 0.17)
        self.line([(-half, y + 0.03 * self.old), (0, y), (half, y + 0.03 * self.old)], 0.8, 0.02, 0.17)

    def _lines(self) -> None:
        eyes = 0.16 - 0.18 * self.grown
        gap = 0.34 + 0.08 * (self.person.eye_gap - 0.5)
        for k in range(3):  # forehead
            strength = 0.75 * _smooth(22 + 8 * k, 85, self.age)
            y, half = eyes - 0.34 - 0.085 * k, 0.38 - 0.05 * k
            self.line([(-half, y + 0.02), (0, y), (half, y + 0.02)], strength, 0.022)
        for side in (-1, 1):
            for k in (-1, 0, 1):  # corners of the eyes
                strength = 0.8 * _smooth(24, 80, self.age)
                x = side * (gap + 0.17)
                self.line([(x, eyes + 0.03 * k), (x + side * 0.13, eyes + 0.08 * k)], strength, 0.02)
            strength = 0.8 * _smooth(18, 75, self.age)  # from the nose to the mouth
            self.line(
                [(side * 0.16, eyes + 0.34), (side * 0.3, eyes + 0.5), (side * 0.31, eyes + 0.66)], strength, 0.025
            )
            bags = 0.6 * _smooth(40, 85, self.age)
            y = eyes + 0.12
            self.line([(side * gap - 0.12, y), (side * gap, y + 0.05), (side * gap + 0.12, y)], bags, 0.02)


def draw_ages(n: int, rng: np.random.Generator) -> np.ndarray:
    """Ages in whole years, distributed as in AgeDB."""
    return np.interp(rng.random(n), QUANTILES, AGES).round().astype(int)


#: Spurious correlation of background and age: the hue that stands for the age `OLDEST` (0 stands for age 0), and the
#: fraction of the pictures that have the hue of their age.
ARC, OLDEST, CORRELATED = 0.7, 101, 0.9


def make_faces(
    root: str | Path, n: int = 4000, size: int = 73, seed: int = 0, *, correlated: bool = False, progress: bool = True
) -> pd.DataFrame:
    """Make a folder of synthetic faces as AgeDB has them, with a table of its own.

    Parameters
    ----------
    root : path
        The images go to ``root/AgeDB``, the table to ``root/agedb.csv``, which is written last.
    n : int
        Number of images, at least 100.
    size : int
        Side of the images in pixels, at least 16.
    seed : int
        Decides everything.
    correlated : bool
        Give nine in ten pictures of training and validation set a background whose hue stands for the age. The
        others, and the whole test set, are the same pictures as without.
    progress : bool
        Show a bar.

    Returns
    -------
    DataFrame
        As in ``agedb.csv``: ``age``, ``path`` and ``split`` as AgeDB's own table has them, then the nuisances of the
        picture (see `Scene`). Validation and test are balanced over age; people are in several sets, as in
        AgeDB's standard split.

    Raises
    ------
    ValueError
        If a number is out of range, or `root` holds a table already.
    """
    for name, value, least in (("n", n, FEWEST), ("size", size, 16), ("seed", seed, 0)):
        if not isinstance(value, int) or value < least:
            raise ValueError(f"{name}: got {value!r}; allowed: an integer of at least {least}")
    root = Path(root)
    if (root / "agedb.csv").exists():
        raise ValueError(f"root: got {str(root)!r}, which holds an agedb.csv already; allowed: another folder")
    rng = np.random.default_rng([seed, FORMAT])
    ages = draw_ages(n, rng)
    # Pictures in the order of their ages, give or take some years, are dealt out in runs: one run to each person.
    # So the pictures of a person span some decades, not a whole life.
    n_people = max(6, n // IMAGES_A_PERSON)
    person = np.empty(n, int)
    person[np.argsort(ages + rng.normal(0, 15, n))] = np.arange(n) * n_people // n
    people = [Person.random(np.random.default_rng([seed, FORMAT, 1, p])) for p in range(n_people)]
    split = _balanced_split(ages, rng)
    (root / "AgeDB").mkdir(parents=True, exist_ok=True)
    rows = []
    for i in tqdm(range(n), "drawing", disable=not progress, unit="face"):
        scene = Scene.random(np.random.default_rng([seed, FORMAT, 2, i]))
        if correlated and split[i] != "test" and np.random.default_rng([seed, FORMAT, 3, i]).random() < CORRELATED:
            scene = replace(scene, background=ARC * ages[i] / OLDEST)
        who = people[person[i]]
        path = f"AgeDB/{i}_Drawn{person[i]:04d}_{ages[i]}_{who.sex}.jpg"
        draw_face(float(ages[i]), who, scene, size).save(root / path, quality=92)
        nuisances = {name: round(float(getattr(scene, name)), 4) for name in ("turn", "tilt", "light", "background")}
        rows.append({"age": int(ages[i]), "path": path, "split": split[i], **nuisances})
    table = pd.DataFrame(rows)
    with whole(root / "agedb.csv") as draft:
        table.to_csv(draft, index=False)
    return table


def _balanced_split(ages: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The set of each image: validation and test set have the same number of images of every age.

    That number is the same for all ages, or a third of an age's images where these are too few.
    """
    counts = np.bincount(ages)
    wanted = min(HELD_OUT * len(ages), (counts // 3).sum())  # few images may not reach it
    quota = next(k for k in range(1, len(ages)) if np.minimum(k, counts // 3).sum() >= wanted)
    name = np.full(len(ages), "train", dtype=object)
    for age in np.flatnonzero(counts):
        members = rng.permutation(np.flatnonzero(ages == age))
        each = min(quota, len(members) // 3)
        name[members[:each]] = "val"
        name[members[each : 2 * each]] = "test"
    return name


def recipe(n_samples: int, size: int, data_seed: int = 0, correlated: bool = False) -> str:
    """Stands in for the checksum of synthetic faces: a digest of the options that they are made with, not of pixels.

    Another version of Pillow may draw a line or write a JPEG a little differently. Records name the version.
    """
    asked = f"faces {FORMAT} {n_samples} {size} {data_seed}{' tied' if correlated else ''}"
    return hashlib.sha256(asked.encode()).hexdigest()


def load_faces(
    n_samples: int = 4000, size: int = 64, data_seed: int = 0, *, correlated: bool = False, progress: bool = True
) -> Dataset:
    """Synthetic faces, loaded like the images of AgeDB; on first use they are made, in the cache.

    Parameters
    ----------
    n_samples, data_seed : int
        Number of faces, and the seed of `make_faces`.
    size : int
        Side of the images that the network sees; they are drawn a little larger, see `rnclib.data.images.decode`.
    correlated : bool
        As in `make_faces`.
    progress : bool
        Show bars.

    Returns
    -------
    Dataset
        Its checksum is `recipe`.
    """
    stored = round(size * 8 / 7)
    root = cache_dir() / "faces" / f"{FORMAT}-{n_samples}-{stored}-{data_seed}{'-tied' if correlated else ''}"
    if not root.is_dir():
        unfinished = root.with_name(f".{root.name}-{os.getpid()}")
        shutil.rmtree(unfinished, ignore_errors=True)
        make_faces(unfinished, n_samples, stored, data_seed, correlated=correlated, progress=progress)
        try:
            os.rename(unfinished, root)
        except OSError:  # another process was faster; its faces are the same
            shutil.rmtree(unfinished)
    return replace(
        load_agedb(root, size=size, progress=progress),
        checksum=recipe(n_samples, size, data_seed, correlated),
        nuisance=OLDEST / ARC * pd.read_csv(root / "agedb.csv")["background"].to_numpy(),
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Command line: make a folder."""
    parser = argparse.ArgumentParser(
        prog="python -m rnclib.data.synthetic",
        description="Draw faces of all ages into a folder laid out like AgeDB: a stand-in, not measured data.",
    )
    parser.add_argument("folder", help="made if need be; must not hold an agedb.csv")
    parser.add_argument("--n", type=int, default=4000, help="number of faces (default: 4000)")
    parser.add_argument("--size", type=int, default=256, help="side of a picture in pixels (default: 256)")
    parser.add_argument("--seed", type=int, default=0, help="decides everything (default: 0)")
    arguments = parser.parse_args(argv)
    try:
        table = make_faces(arguments.folder, arguments.n, arguments.size, arguments.seed)
    except ValueError as error:
        parser.error(str(error))
    sizes = ", ".join(f"{count} {name}" for name, count in table["split"].value_counts().items())
    print(f"{len(table)} synthetic faces in {arguments.folder} ({sizes}); its agedb.csv names them all")


if __name__ == "__main__":
    main()
