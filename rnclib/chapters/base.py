"""What chapters are made of: experiments with their grids, claims, and names of tables and figures."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import pandas as pd

from rnclib import protocols
from rnclib.claims import Claim
from rnclib.data import catalogue
from rnclib.experiment import Run, Selection
from rnclib.recipe import Recipe
from rnclib.results import PROFILES

__all__ = [
    "FACES", "MOLECULES", "SMALL_FACES", "Chapter", "Experiment", "Origin", "Scope", "check", "compared",
    "of_faces", "of_molecules",
]  # fmt: skip

#: Data sets of the two kinds that most chapters are about.
MOLECULES, FACES = ("esol", "standin"), ("agedb", "synthetic")
#: Side in pixels of synthetic faces in chapters of many runs: half that of their own, for a quarter of the work.
SMALL_FACES = 32


def check(name: str, value: Any, allowed: Collection[Any]) -> None:
    """Refuse a value that is not allowed.

    Parameters
    ----------
    name : str
    value : object
    allowed : collection

    Raises
    ------
    ValueError
    """
    if value not in allowed:
        raise ValueError(f"{name}: got {value!r}; allowed: {', '.join(map(repr, allowed))}")


@dataclass(frozen=True)
class Scope:
    """What a grid is asked for. Every grid takes this; an `Experiment` refuses what its grid has no use for.

    Attributes
    ----------
    dataset : str
    profile : {'paper', 'quick', 'smoke'}
    n_seeds : int, optional
        Splits or seeds 0, 1, … of every method; by default as many as the profile has.
    split : str, optional
        One kind of split; by default all that the chapter has.
    loss : {'all', 'l1', 'l2', 'huber'}
        Methods with that loss.
    choice : str, optional
        One design choice, or one condition.
    model : str, optional
        Network in place of the profile's.
    preset : {'paper', 'course'}
        A key of `rnclib.protocols.FACES_PRESETS`.
    data_dir : str, optional
        Folder of AgeDB's photographs.
    exclude : tuple of str
        Photographs to leave out.
    precision : {'bf16-mixed'}, optional
        Train with autocast to bfloat16, as pays on a GPU.
    tuned : mapping of str to int, optional
        A trial of each method of a search; by default those of the published one.
    """

    dataset: str
    profile: str
    n_seeds: int | None = None
    split: str | None = None
    loss: str = "all"
    choice: str | None = None
    model: str | None = None
    preset: str = "paper"
    data_dir: str | None = None
    exclude: tuple[str, ...] = ()
    precision: str | None = None
    tuned: Mapping[str, int] | None = None

    @property
    def kind(self) -> str:
        """Kind of inputs of the data set."""
        return catalogue.source(self.dataset).kind


@dataclass(frozen=True)
class Experiment:
    """Runs whose records lie in one folder of the store.

    Attributes
    ----------
    name : str
        Of the folder.
    grid : callable
        Gives the runs of a `Scope`.
    datasets : tuple of str
    n_seeds : mapping, optional
        Splits or seeds by kind of inputs and profile; None where the grid itself knows.
    seeded : bool
        Whether another number of splits or seeds can be asked for.
    options : mapping
        Fields of `Scope`, beside data set, profile and number of seeds, that the grid has a use for, with the values
        that each may have; None where runs check them.
    one_machine : bool
        Whether published runs are all made on one machine, see `rnclib.grid.run_on_one_machine`.
    """

    name: str
    grid: Callable[[Scope], list[Run]]
    datasets: tuple[str, ...]
    n_seeds: Mapping[str, Mapping[str, int]] | None = None
    seeded: bool = True
    options: Mapping[str, Collection[Any] | None] = field(default_factory=dict)
    one_machine: bool = False

    def runs(self, *, dataset: str, profile: str, **options: Any) -> list[Run]:
        """The runs of a data set and profile.

        Parameters
        ----------
        dataset, profile : str
        **options
            Fields of `Scope`.

        Raises
        ------
        ValueError
            For a value that is not allowed, or an option that these runs have no use for.
        """
        check("dataset", dataset, self.datasets)
        check("profile", profile, PROFILES)
        given = {name: value for name, value in options.items() if value is not None}
        known = (*(["n_seeds"] if self.seeded else []), *self.options)
        for name, value in given.items():
            if name not in known:
                what = "of these runs" if name in (one.name for one in fields(Scope)) else "of any runs"
                raise ValueError(f"{name}: got {value!r}, which is no option {what}; allowed: {', '.join(known)}")
            if (values := self.options.get(name)) is not None:
                check(name, value, values)
        n_seeds = given.pop("n_seeds", None)
        if n_seeds is not None and (type(n_seeds) is not int or n_seeds < 1):
            raise ValueError(f"n_seeds: got {n_seeds!r}; allowed: an integer of at least 1, or None for the profile's")
        if n_seeds is None and self.n_seeds is not None:
            n_seeds = self.n_seeds[catalogue.source(dataset).kind][profile]
        if "exclude" in given:
            given["exclude"] = tuple(sorted(set(given["exclude"])))
        return self.grid(Scope(dataset=dataset, profile=profile, n_seeds=n_seeds, **given))


@dataclass(frozen=True)
class Origin:
    """Of which runs a table or figure is made, beside what its caption says of data set and split.

    Attributes
    ----------
    experiments : tuple of str
        By default those of the chapter.
    where : mapping
        Fields of the configuration of a run: a value, None for none, True for any.
    judged : mapping, optional
        Instead of these: the runs behind those claims of the verdict page that have these fields, each a tuple of
        values.
    archived : bool
        Those of which the archive has a run of another machine, and the latter.
    measured : str, optional
        Not of runs, but of the measurements in this folder of the store.
    """

    experiments: tuple[str, ...] = ()
    where: Mapping[str, Any] = field(default_factory=dict)
    judged: Mapping[str, tuple[Any, ...]] | None = None
    archived: bool = False
    measured: str | None = None


@dataclass(frozen=True)
class Chapter:
    """A page of the book that comes from a notebook.

    Attributes
    ----------
    name : str
        Of the notebook and the page.
    tables, figures : tuple of str
        Their names, in the order of the page.
    experiments : tuple of Experiment
        Whose records the page shows.
    claims : tuple of Claim
        Of the verdict page, that rest on them.
    origins : mapping of str to Origin or None
        For tables and figures that are not made of all runs of the data set and split that their caption names; None
        for those that the notebook computes without any.
    published : DataFrame, optional
        Numbers that others have published.
    quick, smoke : mapping of str to str
        Parameters of the notebook for a newcomer's first run, and for a test of seconds.
    """

    name: str
    tables: tuple[str, ...] = ()
    figures: tuple[str, ...] = ()
    experiments: tuple[Experiment, ...] = ()
    claims: tuple[Claim, ...] = ()
    origins: Mapping[str, Origin | None] = field(default_factory=dict)
    published: pd.DataFrame | None = None
    quick: Mapping[str, str] = field(default_factory=lambda: {"profile": "quick"})
    smoke: Mapping[str, str] = field(default_factory=lambda: {"profile": "smoke"})

    def origin(self, name: str) -> Origin | None:
        """Of what a table or figure is made; of a table of verdicts, the runs that they rest on.

        Parameters
        ----------
        name : str
        """
        experiments = tuple(experiment.name for experiment in self.experiments)
        usual = Origin(experiments) if experiments else None
        if name.endswith("-verdicts"):
            usual = Origin(judged={"experiment": experiments})
        found = self.origins.get(name, usual)
        return replace(found, experiments=found.experiments or experiments) if found else None


def of_molecules(scope: Scope, experiment: str, split: str, methods: Mapping[str, Recipe], seeds: range) -> list[Run]:
    """Runs of every method on molecules.

    Parameters
    ----------
    scope : Scope
    experiment : str
    split : str
    methods : mapping of str to Recipe
        By the name that records have for them.
    seeds : range
    """
    data = Selection(scope.dataset, split)
    return [
        Run(experiment, scope.profile, method, seed, data, recipe)
        for method, recipe in methods.items()
        for seed in seeds
    ]


def of_faces(
    scope: Scope, experiment: str, methods: Mapping[str, Recipe], seeds: range, *, small: bool = False
) -> list[Run]:
    """Runs of every method on faces.

    Parameters
    ----------
    scope, experiment, methods, seeds
        As in `of_molecules`.
    small : bool
        Make synthetic faces smaller.
    """
    sized = protocols.sized(scope.dataset, scope.profile)
    size = min(sized.size, SMALL_FACES) if small and not catalogue.source(scope.dataset).measured else sized.size
    data = Selection(
        scope.dataset, scope.split or "standard", size=size, n_samples=sized.n_samples, exclude=scope.exclude or None,
        data_dir=scope.data_dir,
    )  # fmt: skip
    return [
        Run(experiment, scope.profile, method, seed, data, recipe)
        for method, recipe in methods.items()
        for seed in seeds
    ]


def compared(
    scope: Scope, experiment: str, *, small: bool = False, published: bool = False, fine_tuned: bool = False
) -> list[Run]:
    """The methods that the claims are about, as their own chapters train them.

    Parameters
    ----------
    scope : Scope
    experiment : str
    small : bool
        Make synthetic faces smaller.
    published : bool
        On faces, end-to-end training at the published rate, not at one at which it trains well.
    fine_tuned : bool
        On faces, fine-tune the encoder too; molecules have that in any case.
    """
    assert scope.n_seeds is not None
    seeds = range(scope.n_seeds)
    if scope.kind == "molecules":
        recipes = protocols.molecules(scope.profile)
        names = ["L1 (lr 0.001)", "RnC(L1)+freeze", "RnC(L1)"]
        return of_molecules(scope, experiment, "random", {name: recipes[name] for name in names}, seeds)
    recipes = protocols.faces(scope.dataset, scope.profile)
    at_published = published or catalogue.source(scope.dataset).measured
    names = ["L1" if at_published else "L1 (lr 0.01)", "RnC(L1)", *(["RnC(L1), fine-tuned"] if fine_tuned else [])]
    return of_faces(scope, experiment, {name: recipes[name] for name in names}, seeds, small=small)
