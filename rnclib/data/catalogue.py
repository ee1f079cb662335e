"""Every data set by name, with all that pages, grids and runs need to know about it. Nothing here imports torch.

To add a data set, write a function that loads it and one entry here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from rnclib.data import Dataset

__all__ = ["KINDS", "SOURCES", "Source", "checksum", "load", "source"]

#: Kinds of inputs.
KINDS = ("molecules", "images", "table")


@dataclass(frozen=True)
class Source:
    """What there is to know about a data set without loading it.

    Attributes
    ----------
    name : str
        In records, file names and options.
    title : str
        On pages.
    kind : {'molecules', 'images', 'table'}
    samples : str
        What a sample is called, in the plural.
    unit : str
        Of the target.
    splits : tuple of str
        The usual one first.
    measured : bool
        Or synthetic: then every table and caption says so.
    notice : str
        A sentence on what the data are, for the head of a page.
    licence : str
    loader : str or callable
        ``'module:function'``; called with the `options`, it gives a `rnclib.data.Dataset`.
    n_samples : int, optional
        Number of samples; None if that is an option.
    sha256 : str or callable, optional
        Checksum of the data, or a function (``'module:function'``) that computes it from the `options` without loading
        the data. If there is neither, the data are loaded to know it.
    seeded : bool
        Whether each seed has a split of its own. If not, all seeds have the same, and only their training differs.
    needs : tuple of (str, int)
        Options of the loader that a run must give, each with the least value that the loader accepts.
    takes : tuple of str
        Options of the loader that a run may give.
    nuisance : {'selected', 'drawn'}, optional
        How a spurious correlation with the target is made: by the choice of samples
        (`rnclib.data.shifts.spurious_split`), or in the data themselves, by the option ``correlated`` of the loader.
        By default there is none.
    stands_in_for : str, optional
        Name of the measured data set that it replaces where that cannot be had.
    training : str
        What the profile ``'paper'`` trains on it.
    """

    name: str
    title: str
    kind: str
    samples: str
    unit: str
    splits: tuple[str, ...]
    measured: bool
    notice: str
    licence: str
    loader: str | Callable[..., Dataset]
    n_samples: int | None = None
    sha256: str | Callable[..., str] | None = None
    seeded: bool = True
    needs: tuple[tuple[str, int], ...] = ()
    takes: tuple[str, ...] = ()
    nuisance: str | None = None
    stands_in_for: str | None = None
    training: str = "the full protocol"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind: got {self.kind!r}; allowed: {', '.join(map(repr, KINDS))}")
        if not self.splits:
            raise ValueError("splits: got none; allowed: at least one name")

    @property
    def runs(self) -> str:
        """What runs of one method differ in: ``'splits'`` or ``'seeds'``."""
        return "splits" if self.seeded else "seeds"

    @property
    def options(self) -> tuple[str, ...]:
        """All options of the loader that a run may set."""
        return (*(name for name, _ in self.needs), *self.takes)

    def caption(self, profile: str, split: str | None = None) -> str:
        """Where numbers come from, as captions say it."""
        return f"{self.title}, {split or self.splits[0]} split, profile {profile}"


_MOLECULES: dict[str, Any] = {
    "kind": "molecules", "samples": "molecules", "unit": "log mol/L", "nuisance": "selected",
}  # fmt: skip
_FACES: dict[str, Any] = {
    "kind": "images", "samples": "faces", "unit": "years", "splits": ("standard", "identity"), "seeded": False,
}  # fmt: skip

#: All data sets.
SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        Source(
            "esol", "ESOL", **_MOLECULES, measured=True,
            notice="ESOL: 1128 molecules with measured solubility in water.",
            licence="MIT, as DeepChem distributes it",
            loader="rnclib.data.esol:load_esol", n_samples=1128, splits=("random", "scaffold", "size"),
            sha256="8c06a76f0c6487d29ab0f903e6a7a7139f189ab3c1178f159c8be8964602f189",
        ),
        Source(
            "standin", "Synthetic stand-in", **_MOLECULES, measured=False,
            notice="Synthetic stand-in, with targets from a published equation instead of measurements.",
            licence="made by rnclib",
            loader="rnclib.data.esol:load_standin", n_samples=1128, splits=("random", "scaffold", "size"),
            stands_in_for="esol",
        ),
        Source(
            "agedb", "AgeDB", **_FACES, measured=True,
            notice="AgeDB: face images with the age of the person shown.",
            licence="labels MIT; images from their owners, for non-commercial research",
            loader="rnclib.data.agedb:load_agedb",
            n_samples=16488, needs=(("size", 8),), takes=("exclude", "data_dir"),
        ),
        Source(
            "synthetic", "Synthetic faces", **_FACES, measured=False,
            notice="Synthetic faces: drawings that grow old, not photographs.",
            licence="made by rnclib",
            loader="rnclib.data.synthetic:load_faces", sha256="rnclib.data.synthetic:recipe",
            needs=(("size", 14), ("n_samples", 100)), takes=("data_seed",), nuisance="drawn", stands_in_for="agedb",
            training="the protocol, sized down for a CPU",
        ),
    )
}  # fmt: skip


def source(name: str) -> Source:
    """The data set of that name.

    Parameters
    ----------
    name : str

    Raises
    ------
    ValueError
        If there is none.
    """
    if name not in SOURCES:
        raise ValueError(f"dataset: got {name!r}; allowed: {', '.join(map(repr, SOURCES))}")
    return SOURCES[name]


def load(name: str, **options: Any) -> Dataset:
    """The data; from memory if they have been loaded before with the same options.

    Parameters
    ----------
    name : str
    **options
        Of its loader, see `Source`.

    Raises
    ------
    ValueError
        If there is no such data set.
    TypeError
        If the loader does not take an option.
    FileNotFoundError
        If the data cannot be had; the message says how to get them.
    """
    return _loaded(source(name), tuple(sorted(options.items())))


def checksum(name: str, **options: Any) -> str:
    """SHA-256 of the data in keys and records, found without loading them where the catalogue says how.

    Parameters
    ----------
    name, **options
        As in `load`.
    """
    of = source(name)
    if of.sha256 is None:
        return load(name, **options).checksum
    if isinstance(of.sha256, str) and ":" not in of.sha256:
        return of.sha256
    return _called(of.sha256, options)


@functools.lru_cache(maxsize=4)
def _loaded(of: Source, options: tuple[tuple[str, Any], ...]) -> Dataset:
    return _called(of.loader, dict(options))


def _called(what: str | Callable[..., Any], options: dict[str, Any]) -> Any:
    if not isinstance(what, str):
        return what(**options)
    module, _, function = what.partition(":")
    return getattr(import_module(module), function)(**options)
