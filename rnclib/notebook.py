"""What the notebook of a chapter begins with: its runs, loaded or trained, and what captions say of them."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from rnclib import plots, results
from rnclib.chapters import all_claims, experiments, planned
from rnclib.claims import DECIDED, judge, more
from rnclib.data import catalogue
from rnclib.experiment import Run, Selection, key
from rnclib.grid import run_grid
from rnclib.recipe import Recipe
from rnclib.report import Findings, Notice, Table, data_notice, short_training

__all__ = ["Study", "Verdicts", "machines", "open_experiment", "open_several", "resolve", "stored"]


_PARTS = {"": Run, "data": Selection, "recipe": Recipe}  # what a run consists of


@dataclass(frozen=True, eq=False)
class Study:
    """The runs of an experiment on one data set.

    Attributes
    ----------
    source : Source
        What the catalogue says of the data set.
    profile : str
    runs : list of Run
    records : list of dict
        Of these runs, with their labels.
    """

    source: catalogue.Source
    profile: str
    runs: list[Run]
    records: list[dict[str, Any]]

    @functools.cached_property
    def frame(self) -> pd.DataFrame:
        """One row per run, see `rnclib.results.frame`."""
        return results.frame(self.records)

    @property
    def name(self) -> str:
        """Of the data set, in records."""
        return self.source.name

    @property
    def unit(self) -> str:
        """Of the target."""
        return self.source.unit

    @property
    def repeats(self) -> str:
        """What runs of one method differ in: ``'splits'`` or ``'seeds'``."""
        return self.source.runs

    @property
    def n(self) -> int:
        """How many of these there are."""
        return self.frame["seed"].nunique()

    @property
    def split(self) -> str:
        """Of the first run."""
        return self.runs[0].data.split

    @property
    def caption(self) -> str:
        """Where numbers come from, for the end of a caption."""
        return self.source.caption(self.profile, self.split)

    @property
    def methods(self) -> list[str]:
        """Labels of the methods, in the order of the runs."""
        return list(dict.fromkeys(run.label for run in self.runs))

    def where(self, **fields: Any) -> Study | None:
        """The study of those runs whose configuration has these fields, or None where there are none.

        Parameters
        ----------
        **fields
            Of `rnclib.experiment.Run`, its `Selection` and its `rnclib.recipe.Recipe`: a value, None for none, or, but
            for fields that are True or False, True for any.

        Raises
        ------
        ValueError
            For a field that there is not.
        """
        of = {field.name: part for part, owner in _PARTS.items() for field in dataclasses.fields(owner)}
        if unknown := sorted(set(fields) - set(of)):
            raise ValueError(f"fields: got {unknown}; allowed: {', '.join(sorted(of))}")

        def fits(run: Run) -> bool:
            for name, wanted in fields.items():
                value = getattr(getattr(run, of[name]) if of[name] else run, name)
                if value != wanted and not (wanted is True and value not in (None, False)):
                    return False
            return True

        kept = [number for number, run in enumerate(self.runs) if fits(run)]
        if not kept:
            return None
        return replace(self, runs=[self.runs[i] for i in kept], records=[self.records[i] for i in kept])


def resolve(dataset: str, profile: str, results_dir: str | None = None) -> str:
    """The data set that ``'auto'`` stands for: ESOL if there are published records of it or it can be had.

    Parameters
    ----------
    dataset : str
        Anything but ``'auto'`` is given back.
    profile : str
        Published (``'paper'``) records of ESOL are readable without the data.
    results_dir : path, optional
        The store; by default `rnclib.results.results_dir`.

    Returns
    -------
    str
        ``'esol'`` or ``'standin'`` for ``'auto'``; a sentence printed says why where it is the latter.
    """
    if dataset != "auto":
        return dataset
    root = results_dir or results.results_dir()
    if profile == "paper" and results.exists(root, profile="paper", experiment="esol", dataset="esol"):
        return "esol"
    try:
        catalogue.load("esol")
    except FileNotFoundError as error:
        print(f"using the stand-in. {error}")
        return next(source.name for source in catalogue.SOURCES.values() if source.stands_in_for == "esol")
    return "esol"


def open_experiment(
    name: str,
    *datasets: str,
    profile: str,
    results_dir: str | None = None,
    refresh: bool = False,
    device: str = "cpu",
    by_dataset: Mapping[str, Mapping[str, Any]] | None = None,
    notice: bool = True,
    **options: Any,
) -> list[Study | None]:
    """Load or train an experiment's runs, print how many of each, and show on which data they are.

    Parameters
    ----------
    name : str
        Of the experiment, see `rnclib.chapters.experiments`.
    *datasets : str
        Names of the catalogue, ``'auto'`` (see `resolve`) or ``'none'``.
    profile, results_dir, refresh, device
        See `rnclib.grid.run_grid`.
    by_dataset : mapping, optional
        Options for single data sets, by name.
    notice : bool
        Show on which data they are.
    **options
        See `rnclib.chapters.base.Scope`.

    Returns
    -------
    list of Study or None
        One for each of `datasets`; None for ``'none'``, and where the options leave no runs to compare.
    """
    from IPython.display import display

    if name not in experiments():
        raise ValueError(f"name: got {name!r}; allowed: {', '.join(map(repr, experiments()))}")
    names = [resolve(asked, profile, results_dir) for asked in datasets]
    if unknown := sorted(set(by_dataset or {}) - set(names)):
        raise ValueError(f"by_dataset: got {unknown}; allowed: {', '.join(map(repr, names))}")
    plots.use_style()
    studies: list[Study | None] = []
    for dataset in names:
        if dataset == "none":
            studies.append(None)
            continue
        its = {**options, **(by_dataset or {}).get(dataset, {})}
        runs = experiments()[name].runs(dataset=dataset, profile=profile, **its)
        if not runs:
            studies.append(None)
            continue
        grid = run_grid(runs, results_dir=results_dir, refresh=refresh, device=device)
        print(f"{name}, {dataset}, {profile}: {grid}", file=sys.stderr)  # which a page leaves out
        studies.append(Study(catalogue.source(dataset), profile, runs, grid.records))
    for dataset in dict.fromkeys(study.name for study in studies if study is not None and notice):
        display(data_notice(dataset, profile))
    return studies


def open_several(
    name: str, datasets: Sequence[str], *, profile: str, only_stored: bool = False, results_dir: str | None = None,
    n_seeds: int | None = None, refresh: bool = False, device: str = "cpu",
) -> list[Study]:  # fmt: skip
    """Load or train an experiment's runs on those of several data sets that can be had, and say which cannot.

    Parameters
    ----------
    name : str
        Of the experiment, see `rnclib.chapters.experiments`.
    datasets : sequence of str
    profile, results_dir, refresh, device
        See `rnclib.grid.run_grid`.
    only_stored : bool
        Train nothing: leave out a data set of which the store has not all runs.
    n_seeds : int, optional
        See `rnclib.chapters.base.Scope`.
    """
    plots.use_style()
    studies, missing = [], []
    for dataset in datasets:
        if only_stored:
            study = stored(name, dataset, profile, results_dir)
        else:
            try:
                runs = experiments()[name].runs(dataset=dataset, profile=profile, n_seeds=n_seeds)
                grid = run_grid(runs, results_dir=results_dir, refresh=refresh, device=device)
                study = Study(catalogue.source(dataset), profile, runs, grid.records)
            except FileNotFoundError as error:
                print(f"{dataset} is left out. {error}")
                study = None
        if study is None:
            missing.append(dataset)
        else:
            studies.append(study)
    n_runs = sum(len(study.runs) for study in studies)
    left = f"; left out: {', '.join(missing)}" if missing else ""
    print(f"{name}, {profile}: {n_runs} runs on {len(studies)} of {len(datasets)} data sets{left}", file=sys.stderr)
    return studies


def stored(
    name: str, dataset: str, profile: str, results_dir: str | None = None, *, complete: bool = True
) -> Study | None:
    """The runs of an experiment that the store holds, without training any.

    Parameters
    ----------
    name, dataset, profile : str
    results_dir : path, optional
        The store; by default `rnclib.results.results_dir`.
    complete : bool
        Give nothing unless all runs are there.

    Returns
    -------
    Study or None
        None where there are none.
    """
    root = results_dir or results.results_dir()
    there = {r["key"]: r for r in results.load(root, profile=profile, experiment=name, dataset=dataset)}
    planned_runs = experiments()[name].runs(dataset=dataset, profile=profile)
    runs = [run for run in planned_runs if key(run) in there]
    if not runs or (complete and len(runs) < len(planned_runs)):
        return None
    records = results.labelled([there[key(run)] for run in runs], [run.label for run in runs])
    return Study(catalogue.source(dataset), profile, runs, records)


@dataclass(frozen=True, eq=False)
class Verdicts:
    """What the verdict page decides, for chapters to quote.

    Attributes
    ----------
    profile : str
    results_dir : path, optional
        The store; by default `rnclib.results.results_dir`.
    """

    profile: str
    results_dir: str | None = None

    @functools.cached_property
    def frame(self) -> pd.DataFrame:
        """One row per comparison, see `rnclib.claims.judge`, with text columns for tables.

        ``data`` has the data set, split (of faces, whether each seed has a set of its own) and condition, ``pair`` the
        methods, ``line`` the claim with what sets it apart from others on the same data, ``runs_are`` what pairs of
        runs are called, and ``said`` the verdict and what an undecided one would need.
        """
        judged = judge(all_claims(), planned, root=self.results_dir, profile=self.profile)
        rows = judged.to_dict("records")
        sources = [catalogue.source(row["dataset"]) for row in rows]
        holes, tied = judged["holes"].fillna(""), judged["spurious"].map({"tied": "spurious correlation"}).fillna("")
        judged["data"] = [
            ", ".join(filter(None, [of.title, *conditions]))
            for of, *conditions in zip(sources, _splits(judged), holes, tied, strict=True)
        ]
        judged["pair"] = [f"{row['method']} against {row['baseline']}" for row in rows]
        judged["line"] = _lines(judged)
        judged["runs_are"] = [
            "sets" if row["experiment"] == "face_sets" else "seeds" if row["one_test_set"] else of.runs
            for of, row in zip(sources, rows, strict=True)
        ]
        judged["said"] = [
            "; ".join(
                filter(
                    None, [_marked(row["verdict"]), more(row, its), row["note"], _ONE_TEST_SET * row["one_test_set"]]
                )
            )
            for row, its in zip(rows, judged["runs_are"], strict=True)
        ]
        return judged

    def find(self, method: str, baseline: str, effect: str, *, dataset: str = "esol", **fields: Any) -> Any | None:
        """The row of a comparison, with its columns as attributes; None where it is not measured.

        Parameters
        ----------
        method, baseline, effect, dataset : str
            Of the claim, see `rnclib.claims.Claim`.
        **fields
            Other fields of it, where several claims compare the same, such as ``split='scaffold'``.

        Raises
        ------
        ValueError
            If there is no such comparison, or several.
        """
        wanted = {"method": method, "baseline": baseline, "effect": effect, "dataset": dataset} | fields
        rows = self.frame
        for name, value in wanted.items():
            rows = rows[rows[name].isna() if value is None else rows[name] == value]
        plain = rows[rows["holes"].isna() & rows["spurious"].isna()]  # unless a condition is asked for
        rows = plain if len(rows) > 1 else rows
        if len(rows) != 1:
            raise ValueError(f"fields: got {wanted}, which {len(rows)} comparisons have; allowed: those of one")
        row = next(rows.itertuples(index=False))
        return None if row.verdict == "not measured" else row

    def say(self, method: str, baseline: str, effect: str, **fields: Any) -> str | None:
        """A verdict in words, such as ``**holds** (test MAE −0.5 years [−0.7, −0.3], 16 sets)``; see `find`."""
        row = self.find(method, baseline, effect, **fields)
        if row is None:
            return None
        runs = row.runs_are if row.n != 1 else row.runs_are.removesuffix("s")
        training_only = _ONE_TEST_SET * row.one_test_set
        inside = filter(
            None, [f"{row.shown}, {row.n} {runs}", more(row._asdict(), row.runs_are), row.note, training_only]
        )
        return f"{_marked(row.verdict)} ({'; '.join(inside)})"

    def answer(
        self, *effects: str, datasets: Sequence[str] = ("esol", "synthetic"), also: Sequence[str] = ()
    ) -> Findings | Notice:
        """What the primary comparisons of some effects decide, for the top of a page.

        Parameters
        ----------
        *effects : str
            Keys of `rnclib.claims.EFFECTS`.
        datasets : sequence of str
        also : sequence of str
            Further sentences, which no comparison decides.
        """
        rows = self.frame.query("primary and effect in @effects and dataset in @datasets and verdict != 'not measured'")
        if rows.empty:
            return Notice("These parameters leave no primary comparison to quote.", title="The answer")
        return Findings(
            *(
                f"{catalogue.source(row.dataset).title}: {row.line}: {_marked(row.verdict)} "
                f"({'; '.join(filter(None, [f'{row.shown}, {row.n} {row.runs_are}', row.note]))})."
                for row in rows.itertuples()
            ),
            *_on_face_sets(rows),
            *also,
            *([_CORRECTED] if (rows["verdict"] == "undecided").any() else []),
            title="**The answer**, by the rule of {doc}`/deciding` and against its baseline:",
        )

    def with_equal_time(self) -> str | None:
        """What is decided on synthetic faces where end-to-end training has as much time, if that is measured."""
        rows = self.frame.query("primary and dataset == 'synthetic' and effect == 'difference'")
        rows = rows[rows["baseline"].str.contains(_EQUAL_TIME, regex=False) & (rows["verdict"] != "not measured")]
        for row in rows.itertuples():
            verdict = self.say(row.method, row.baseline, row.effect, dataset=row.dataset, experiment=row.experiment)
            return f"Where end-to-end training has as much time, a lower error on all of the faces is {verdict}."
        return None

    def table(self, *experiments: str, name: str, texts: Collection[str] | None = None) -> Table:
        """The verdicts that rest on some experiments, as the verdict page has them.

        Parameters
        ----------
        *experiments : str
        name : str
        texts : collection of str, optional
            Claims to show, by their texts; by default all.
        """
        rows = self.frame[self.frame["experiment"].isin(experiments)]
        rows = rows if texts is None else rows[rows["text"].isin(texts)]
        rows = rows.assign(
            claim=rows["text"].where(~rows["primary"], "**" + rows["text"] + "**"),
            word=rows["verdict"].map(_marked) + rows["unread"].map(lambda why: ", not read" if why else ""),
        )
        return Table(
            rows,
            "What {doc}`claims` decides on runs of this chapter, claims of primary comparisons in bold, and every "
            "verdict that is not undecided: the effect with its 95% interval, and the number of pairs of runs, which "
            "may be more than in the tables above. "
            f"{{numref}}`claims-all` says what would decide the undecided.{short_training(self.profile)}",
            name=name,
            columns={
                "claim": "Claim", "data": "Measured on", "pair": "Methods", "shown": "Effect", "n": "Pairs",
                "word": "Verdict",
            },
        )  # fmt: skip


def _on_face_sets(rows: pd.DataFrame) -> list[str]:
    """What is compared on synthetic faces, of which a page may show other runs."""
    theirs = rows[rows["experiment"] == "face_sets"]
    theirs = theirs[~theirs["baseline"].str.contains(_EQUAL_TIME, regex=False)]
    return [
        f"On synthetic faces *{method}* is compared with *{baseline}*, each seed on a set of small faces of its own "
        "({doc}`/deciding`), not on those of the tables below. *Closed form* is ridge regression on the features; "
        "*tuned* has settings that a search chose."
        for method, baseline in dict.fromkeys(zip(theirs["method"], theirs["baseline"], strict=True))
    ]


_ONE_TEST_SET = "one test set: the interval covers training only"


def _splits(judged: pd.DataFrame) -> list[str]:
    """The kind of split in words; of faces, which have one kind, on which sets they are."""
    drawn = judged["experiment"] == "face_sets"
    first = (judged["dataset"] == "synthetic") & (judged["split"] == "standard")
    return judged["split"].mask(first, "set 0").mask(drawn, "a set for each seed").tolist()


_CORRECTED = (
    "An interval is that of one comparison, while verdicts are corrected for many: so a verdict may be undecided where "
    "the interval leaves out zero."
)


def _marked(verdict: str) -> str:
    return f"**{verdict}**" if verdict in DECIDED else verdict


_EQUAL_TIME = "2.5 × the epochs"


def _lines(judged: pd.DataFrame) -> list[str]:
    """The claim of each row, with the words that set its methods apart where the same is claimed on the same data."""
    lines = []
    for row in judged.itertuples():
        alike = judged[(judged["text"] == row.text) & (judged["dataset"] == row.dataset)]
        alike = alike[alike["primary"] == row.primary]
        own = []
        for name, before in (("method", ""), ("baseline", "against ")):
            labels = [set(label.split(", ")) for label in alike[name]]
            words = [word for word in getattr(row, name).split(", ") if word not in set.intersection(*labels)]
            if _EQUAL_TIME in words:
                own.append(f"equal time: {_EQUAL_TIME}")
            elif words:
                own.append(before + ", ".join(words))
            elif any(_EQUAL_TIME in label for label in labels):
                own.append("equal epochs")
        lines.append(row.text + (f" ({', '.join(own)})" if own else ""))
    return lines


def machines(*studies: Study | None) -> pd.DataFrame:
    """Where the runs of several studies were made, see `rnclib.results.machines`.

    Parameters
    ----------
    *studies : Study or None
    """
    by_title: dict[str, list[dict[str, Any]]] = {}
    for study in studies:
        if study is not None:
            by_title.setdefault(study.source.title, []).extend(study.records)
    return results.machines(by_title)
