"""Pages and links made from the records when the book is built: what each number rests on, and what it cost.

Where a Markdown page says ``<!-- generated: NAME -->``, a part of `PARTS` is put, and ``{recorded}`NAME` `` becomes one
of `numbers`. Below each table and figure of a chapter stands a link to its records, and the records lie in the site.
"""

from __future__ import annotations

import functools
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

from rnclib import origins
from rnclib.chapters import NAMES, chapter
from rnclib.data import catalogue
from rnclib.records import SHARED
from rnclib.report import Table, literal

PAGE = "records"
PAGES = (PAGE, "provenance", "checklists")
#: What makes the files of the store that hold no runs, by their folder.
MEASURED = {
    "benchmark": "python -m rnclib.benchmark --profile paper",
    "throughput": "python -m rnclib.throughput --profile paper",
    "simulation": "python -m rnclib.simulation",
    "search": "python -m rnclib.protocols search",
}
_GROUP = ["experiment", "dataset", "split", "condition", "archived"]  # what runs of one fold have in common
NOTHING = "There are no records in this copy of the book.\n"


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect(
        "env-get-outdated", lambda app, env, added, changed, removed: [one for one in PAGES if one in env.all_docs]
    )
    app.connect("source-read", fill_in)
    app.connect("doctree-resolved", link_to_records)
    app.connect("build-finished", write_records)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


# --- what there is --------------------------------------------------------------------------------------


class Ledger:
    """The runs of a book, and which of them each table and figure of its chapters is made of.

    Parameters
    ----------
    book : Path
        The folder that holds ``chapters/`` and ``results/``.
    """

    def __init__(self, book: Path) -> None:
        self.results = book / "results"
        runs = origins.read(self.results)
        # where they lie in the site's folder of records: under their keys, which keeps thousands of links short
        places = (
            f"{'archive/' * archived}{key}.json" for archived, key in zip(runs["archived"], runs["key"], strict=True)
        )
        self.runs = runs.assign(place=list(places))
        self.groups = {where: part["method"] for where, part in self.runs.groupby(_GROUP, sort=False)}
        self.measured = origins.measurements(self.results, self.runs)
        notebooks = {
            name: json.loads(path.read_text(encoding="utf-8"))
            for name in NAMES
            if (path := book / "chapters" / f"{name}.ipynb").is_file()
        }
        self.titles = {name: title_of(notebook) for name, notebook in notebooks.items()}
        self.items = {name: captions_of(notebook) for name, notebook in notebooks.items()}
        self.made_of = {
            item: origins.made_of(chapter(name).origin(item), caption, self.runs)
            for name, items in self.items.items()
            for item, caption in items.items()
        }

    @property
    def published(self) -> pd.DataFrame:
        """Runs without those of the archive."""
        return self.runs[~self.runs["archived"]]

    def shown_in(self) -> dict[str, list[str]]:
        """Names of the tables and figures by the file of a record."""
        found: dict[str, list[str]] = {}
        for item, runs in self.made_of.items():
            for file in runs["file"]:
                found.setdefault(file, []).append(item)
        return found


@functools.cache
def ledger(book: Path) -> Ledger:
    """That of a folder, read once in a build."""
    return Ledger(book)


def _text(source: str | list[str]) -> str:
    return source if isinstance(source, str) else "".join(source)


def title_of(notebook: dict[str, Any]) -> str:
    """The first heading of a notebook."""
    texts = (_text(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    return next(found[1].strip() for text in texts if (found := re.search(r"^# (.*)$", text, re.M)))


def captions_of(notebook: dict[str, Any]) -> dict[str, str]:
    """Captions of the tables and figures of a published notebook, by their names, in their order."""
    found = {}
    for cell in notebook["cells"]:
        for output in cell.get("outputs", ()):
            text = _text(output.get("data", {}).get("text/markdown", ""))
            if table := re.match(r":::\{table\} (.*)\n:name: (\S+)\n", text):
                found[table[2]] = table[1]
        figure = cell["metadata"].get("mystnb", {}).get("figure", {})
        if "name" in figure:
            found[figure["name"]] = figure["caption"]
    return found


# --- Markdown -------------------------------------------------------------------------------------------


def fill_in(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put the generated parts where a page asks for them, and beside this machine's runs those of the reference."""
    book = ledger(Path(app.srcdir))
    if docname.startswith("local/"):
        if text := reference(book, docname.removeprefix("local/")):
            notebook = json.loads(source[0])
            cell = {"cell_type": "markdown", "id": "beside-the-reference", "metadata": {}, "source": text}
            source[0] = json.dumps(notebook | {"cells": [*notebook["cells"], cell]})
    elif docname in PAGES:
        source[0] = filled(source[0], book)


def filled(text: str, book: Ledger) -> str:
    """A page with its generated parts and numbers."""
    words = numbers(book)

    def one(of: dict[str, Any]) -> Callable[[re.Match], Any]:
        def look_up(found: re.Match) -> Any:
            if found[1] not in of:
                raise ExtensionError(f"got {found[0]!r}; allowed: {', '.join(of)}")
            return of[found[1]]

        return look_up

    text = re.sub(r"^<!-- generated: ([\w-]+) -->$", lambda found: one(PARTS)(found)(book), text, flags=re.M)
    return re.sub(r"\{recorded\}`([\w-]+)`", one(words), text)


def numbers(book: Ledger) -> dict[str, str]:
    """What pages quote: numbers of runs, hours and machines as words of a sentence."""
    every, (archived, hours, searched) = origins.cost(book.published), (
        int(book.runs["archived"].sum()), book.runs["core_hours"].sum(), book.measured["core_hours"].sum()
    )  # fmt: skip
    if not len(every):
        return dict.fromkeys(
            ("runs", "diverged", "hours", "search-hours", "archived", "machines", "first", "last"), "none on record"
        )
    (total,) = every.itertuples()
    machines = book.runs[["processor", "torch"]].drop_duplicates()
    return {
        "runs": f"{total.runs}", "diverged": f"{total.diverged}", "hours": f"{hours:.0f}",
        "search-hours": f"{searched:.0f}", "archived": f"{archived}", "machines": f"{machines['processor'].nunique()}",
        "first": str(total.first), "last": str(total.last),
    }  # fmt: skip


def records_of_chapters(book: Ledger) -> str:
    """For each chapter its command, its tables and figures with what they are made of, and the runs in folds."""
    parts = []
    if len(book.runs):
        parts.append(
            f"All {len(book.runs)} records, those of the archive too, are rows of "
            '<a href="records/records.csv" download>one table</a> (CSV): key, file in the repository and place beside '
            "the table, data set, split, method and seed, checksum of the data, commit, machine, versions of packages, "
            "time, and the tables and figures that use them.\n"
        )
    else:
        parts.append(NOTHING)
    for name, title in book.titles.items():
        parts.append(f"({_section(name)})=\n## {title}\n\nThe page {{doc}}`chapters/{name}` is made by\n")
        parts.append(f"```bash\n{page_command(name)}\n```\n")
        parts.append(_items(book, name))
        owned = [experiment.name for experiment in chapter(name).experiments]
        parts += _groups(book.published[book.published["experiment"].isin(owned)])
    if len(archive := book.runs[book.runs["archived"]]):
        parts += ["## The archive\n", "Runs that others have replaced; only {numref}`claims-machines` shows them.\n"]
        parts += _groups(archive)
    if len(book.measured):
        parts.append("## Measurements and searches\n")
        parts += [_measured(book, folder) for folder in book.measured["folder"].unique()]
    return "\n".join(parts)


def _section(name: str) -> str:
    """Anchor of a chapter; Sphinx makes hyphens of underscores in labels, so it has none."""
    return f"{PAGE}-{name.replace('_', '-')}"


def page_command(name: str) -> str:
    """The command that makes a chapter's page from the store, and trains what the store lacks."""
    return f"papermill notebooks/{name}.ipynb out.ipynb"


def _items(book: Ledger, name: str) -> str:
    """The tables and figures of a chapter, each with what it is made of."""
    items = book.items[name]
    if all(chapter(name).origin(item) is None for item in items):
        anchors = "".join(f'<span id="{PAGE}-of-{item}"></span>' for item in items)
        return f"{anchors}The notebook computes all of its tables and figures itself, so there are no records.\n"
    head = "| | Name | Made of | Runs | Diverged | Core-hours |\n|:--|:--|:--|--:|--:|--:|\n"
    return head + "\n".join(_item(book, name, item) for item in items) + "\n"


def _item(book: Ledger, name: str, item: str) -> str:
    runs, origin = book.made_of[item], chapter(name).origin(item)
    anchor = f'<span id="{PAGE}-of-{item}"></span>{{numref}}`{item}` | `{item}`'
    if origin is None:
        return f"| {anchor} | no records: the notebook computes it | | | |"
    if origin.measured in set(book.measured["folder"]):
        return f'| {anchor} | <a href="#measured-{origin.measured}">measurements, {origin.measured}</a> | | | |'
    if not len(runs):
        return f"| {anchor} | no records | 0 | | |"
    groups = [
        f'<a href="#{_anchor(where)}">{_named(where)}</a>{_share(book.groups[tuple(where.values())], part)}'
        for where, part in _grouped(runs)
    ]
    hours = runs["core_hours"].sum()
    return f"| {anchor} | {'<br>'.join(groups)} | {len(runs)} | {runs['diverged'].sum()} | {hours:.1f} |"


def _grouped(runs: pd.DataFrame) -> list[tuple[dict[str, Any], pd.DataFrame]]:
    return [(dict(zip(_GROUP, values, strict=True)), part) for values, part in runs.groupby(_GROUP, sort=False)]


def _anchor(where: dict[str, Any]) -> str:
    words = ("archive" if where["archived"] else "runs", *(where[name] for name in _GROUP[:4]))
    return re.sub(r"[^a-z0-9]+", "-", " ".join(words).lower()).strip("-")


def _named(where: dict[str, Any]) -> str:
    title = catalogue.source(where["dataset"]).title
    parts = [title, f"{where['split']} split", where["condition"], "archive" if where["archived"] else ""]
    return f"{where['experiment'].replace('_', ' ')}: {', '.join(filter(None, parts))}"


def _share(group: pd.Series, part: pd.DataFrame) -> str:
    """Which of a group's runs, given as their methods, where it is not all of them."""
    if len(part) == len(group):
        return ""
    methods = part["method"].unique()
    named = f": {'; '.join(map(literal, methods))}" if len(methods) < min(5, group.nunique()) else ""
    return f" ({len(part)} of {len(group)}{named})"


def _groups(runs: pd.DataFrame) -> list[str]:
    """A fold for each group of runs: what they have in common, and a line for each method."""
    found = []
    for where, part in _grouped(runs):
        checksums = part["checksum"].unique()
        data = f"`{checksums[0]}`" if len(checksums) == 1 else f"{len(checksums)} data sets, each with its own"
        found.append(
            f":::{{dropdown}} {_named(where)}: {len(part)} runs, {part['core_hours'].sum():.1f} core-hours\n"
            f'<p id="{_anchor(where)}">Made by</p>\n\n'
            f"```bash\n{origins.command(where['experiment'], where['dataset'], where['split'])}\n```\n\n"
            f"Checksum (SHA-256) of the data: {data}.\n\n"
            "| Method | Records, by split or seed | Made on | Days | Commit | Core-hours |\n|:--|:--|:--|:--|:--|--:|\n"
            + "\n".join(_method(method, its) for method, its in part.groupby("method", sort=False))
            + "\n:::\n"
        )
    return found


def _method(method: str, runs: pd.DataFrame) -> str:
    runs = runs.assign(weights=[config.get("weight_seed", -1) for config in runs["config"]])
    links = [
        f'<a href="records/{of.place}">{of.seed}{"" if of.weights < 0 else f"·{of.weights}"}</a>{"†" * of.diverged}'
        for of in runs.sort_values(["seed", "weights"]).itertuples()
    ]
    machines = (
        f"{processor}, torch {torch}" for processor, torch in zip(runs["processor"], runs["torch"], strict=True)
    )
    days = " to ".join(dict.fromkeys(str(day)[:10] for day in (runs["started"].min(), runs["started"].max())))
    commits = ", ".join(f"<code>{str(one)[:7]}</code>" for one in runs["commit"].unique())  # a light page
    cells = [literal(method), " ".join(links), "; ".join(dict.fromkeys(machines)), days, commits]
    return f"| {' | '.join(cells)} | {runs['core_hours'].sum():.2f} |"


def _measured(book: Ledger, folder: str) -> str:
    of = book.measured[book.measured["folder"] == folder]
    links = ", ".join(f'<a href="records/{file}">{Path(file).stem}</a>' for file in of["file"])
    made = f", made by `{MEASURED[folder]}`" if folder in MEASURED else ""
    return f'<p id="measured-{folder}"></p>\n\n**{folder.capitalize()}**{made}: {links}.\n'


# --- what it cost ---------------------------------------------------------------------------------------

_COST = {"runs": "Runs", "diverged": "Diverged", "core_hours": "Core-hours", "first": "From", "last": "To"}


def cost_of_chapters(book: Ledger) -> str:
    """Runs and hours of each chapter's experiments, and of the archive."""
    owner = {experiment.name: name for name in NAMES for experiment in chapter(name).experiments}
    named = {name: f"{{doc}}`chapters/{name}`" if name in book.titles else name for name in NAMES}
    chapters = pd.Series([owner.get(name, name) for name in book.runs["experiment"]], book.runs.index)
    by = book.runs.assign(chapter=chapters.mask(book.runs["archived"], "the archive"))
    order = [*NAMES, *sorted(set(by["chapter"]) - {*NAMES, "the archive"}), "the archive"]
    rows = origins.cost(by, ["chapter"]).sort_values("chapter", key=lambda names: names.map(order.index))
    rows = pd.concat([rows, origins.cost(by).assign(chapter="in all")], ignore_index=True)
    rows["chapter"] = rows["chapter"].replace(named)
    return _table(
        rows, "chapters", {"chapter": "Experiments of", **_COST},
        "Runs by the chapter whose experiments they belong to; other chapters may show them too. Core-hours are wall "
        "time × threads × processes.",
    )  # fmt: skip


def machines(book: Ledger) -> str:
    """Runs and hours by processor and version of torch."""
    rows = origins.cost(book.runs, ["processor", "torch", "threads"])
    columns = {"processor": "Processor", "torch": "torch", "threads": "Threads of a run", **_COST}
    return _table(rows, "machines", columns, "Machines that made the runs, with those of the archive.")


def versions(book: Ledger) -> str:
    """Versions of packages, with the number of runs that each made."""
    columns = {"package": "Package", "versions": "Versions (runs)"}
    rows = pd.DataFrame(list(book.runs["versions"]))
    counted = [
        {"package": package, "versions": "; ".join(f"{one} ({n})" for one, n in rows[package].value_counts().items())}
        for package in sorted(rows)
    ]
    return _table(
        pd.DataFrame(counted, columns=list(columns)), "versions", columns, "Versions of packages in the records."
    )


def noise(book: Ledger) -> str:
    """What another machine changes."""
    between = origins.between_machines(book.runs)
    if not len(between):
        return "No run is recorded from two machines.\n"
    return (
        f"The archive holds {between['n'].sum()} runs of which another machine has made the published twin: same "
        "configuration, data and seed. The test errors of twins differ. The standard deviation of the difference is "
        f"{_spread(between)}. {{numref}}`claims-machines` has the methods.\n"
    )


def _spread(between: pd.DataFrame) -> str:
    """Standard deviations of differences between machines, from the smallest method's to the largest, by data set."""
    said = []
    for dataset, of in between.groupby(level="dataset", sort=False):
        source = catalogue.source(str(dataset))
        sizes = " to ".join(dict.fromkeys(f"{sd:.3f}" for sd in (of["sd"].min(), of["sd"].max())))
        said.append(f"{sizes} {source.unit} on {source.title}, by method")
    return "; ".join(said)


def _table(rows: pd.DataFrame, name: str, columns: dict[str, str], caption: str) -> str:
    form = {"core_hours": ".1f"} if "core_hours" in columns else None
    said = caption if len(rows) else f"{caption} {NOTHING}"
    return Table(rows, said, name=f"provenance-{name}", columns=columns, format=form).markdown()


PARTS: dict[str, Callable[[Ledger], str]] = {
    "records": records_of_chapters, "chapters": cost_of_chapters, "machines": machines, "versions": versions,
    "noise": noise,
}  # fmt: skip


# --- this machine beside the reference ------------------------------------------------------------------


def reference(book: Ledger, name: str) -> str:
    """This machine's quick runs of a chapter beside those of the reference; empty where there are none of both."""
    experiments = [experiment.name for experiment in chapter(name).experiments] if name in NAMES else []
    runs = origins.beside_reference(book.results, experiments)
    if not len(runs):
        return ""
    runs["off"] = runs["here"] - runs["reference"]
    titles = [catalogue.source(dataset).title for dataset in runs["dataset"]]
    runs["data"] = [f"{title}, {split} split" for title, split in zip(titles, runs["split"], strict=True)]
    rows = runs.groupby(["data", "method"], sort=False).agg(
        n=("seed", "size"), here=("here", "mean"), reference=("reference", "mean"), mean=("off", "mean"),
        largest=("off", lambda of: of.abs().max()),
    ).reset_index()  # fmt: skip
    units = {catalogue.source(dataset).unit for dataset in runs["dataset"]}
    shown = Table(
        rows,
        f"Test MAE ({', '.join(sorted(units))}) of quick runs on this machine and of the reference, which the book "
        f"carries: means, mean difference, and largest difference of a run. {'; '.join(runs['data'].unique())}.",
        name=f"local-reference-{name.replace('_', '-')}",
        columns={
            **({"data": "Data"} if runs["data"].nunique() > 1 else {}), "method": "Method", "n": "Runs", "here": "Here",
            "reference": "Reference", "mean": "Difference", "largest": "Largest",
        },
    )  # fmt: skip
    return f"## Beside the reference\n\n{_expected(book, runs)}\n\n{shown.markdown()}\n"


def _expected(book: Ledger, runs: pd.DataFrame) -> str:
    alike = (runs["machine"] == runs["reference_machine"]).all()
    same = (runs["here"].eq(runs["reference"]) | (runs["here"].isna() & runs["reference"].isna())).all()
    theirs = "; ".join(runs["reference_machine"].unique())
    if alike:
        outcome = "and they are" if same else "and they are not; a later commit, other packages or threads may be why"
        return (
            f"The reference was made on the same processor and version of torch ({theirs}). The numbers should be the "
            f"same, {outcome}."
        )
    between = origins.between_machines(book.runs)
    size = f" with a standard deviation of {_spread(between)}" if len(between) else ""
    return (
        f"The reference was made on {theirs}; these runs on {'; '.join(runs['machine'].unique())}. Rounding in another "
        "order sends a training elsewhere, so numbers need not be the same. Between the machines of this book, test "
        f"errors of full runs differed{size} ({{doc}}`/provenance`). Short runs may differ more."
    )


# --- the site -------------------------------------------------------------------------------------------


def link_to_records(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Put a link to its records below each table and figure of a chapter, and the chapter's command below its title."""
    book, name = ledger(Path(app.srcdir)), docname.removeprefix("chapters/")
    if app.builder.format != "html" or docname != f"chapters/{name}" or name not in book.titles:
        return
    page = "" if app.builder.name == "singlehtml" else app.builder.get_relative_uri(docname, PAGE)
    for node in list(doctree.findall(lambda node: isinstance(node, nodes.table | nodes.figure))):
        for item in set(node["ids"]) & set(book.items[name]):
            link = _link("records and command", f"{page}#{PAGE}-of-{item}")
            node.parent.insert(node.parent.index(node) + 1, nodes.paragraph("", "", link, classes=["origin"]))
    line = nodes.paragraph(classes=["origin"])
    line += [nodes.Text("Made by "), nodes.literal("", page_command(name)), nodes.Text("; see the ")]
    line += [_link("records and commands", f"{page}#{_section(name)}"), nodes.Text(" behind it.")]
    title = next(iter(doctree.findall(nodes.title)))
    title.parent.insert(title.parent.index(title) + 1, line)


def _link(text: str, to: str) -> nodes.reference:
    return nodes.reference("", text, refuri=to, internal=True)


def write_records(app: Sphinx, exception: Exception | None) -> None:
    """Put the records into the site, and all of them as one table."""
    if exception is not None or app.builder.format != "html":
        return
    book, target = ledger(Path(app.srcdir)), Path(app.outdir) / "records"
    shutil.rmtree(target, ignore_errors=True)
    if not len(book.runs):
        return
    to = dict(zip(book.runs["file"], book.runs["place"], strict=True)) | {file: file for file in book.measured["file"]}
    for folder, place in {Path(file).parent: Path(place).parent for file, place in to.items()}.items():
        shared = (path for name in SHARED for path in (book.results / folder / name).glob("*.csv"))
        to |= {(folder / path.parent.name / path.name): place / path.parent.name / path.name for path in shared}
    for file, place in to.items():
        (target / place).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(book.results / file, target / place)
    origins.table(book.runs, book.shown_in()).to_csv(target / "records.csv", index=False)
