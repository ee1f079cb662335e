"""The way from a number of the book to its records: which runs a table is made of, what they cost, pages and links."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from built_book import extension
from records import record

from rnclib import origins, results, statistics
from rnclib.chapters import NAMES, chapter, experiments, planned
from rnclib.chapters.base import Origin
from rnclib.claims import Claim
from rnclib.experiment import key

ROOT = Path(__file__).resolve().parents[1]
BOOK = ROOT / "book"

pytest.importorskip("jupyter_book")


@pytest.fixture(scope="module")
def pages():
    """The extension of the book that makes the pages."""
    return extension("record_pages")


@pytest.fixture(scope="module")
def book(pages):
    """The published book."""
    return pages.Ledger(BOOK)


@pytest.fixture(scope="module")
def text(book, pages):
    """The generated part of the page of all records."""
    return pages.records_of_chapters(book)


def run(processor="one", *, wall_time=1800.0, threads=1, started="2026-01-02T03:04:05Z", **others):
    made = {"cpu": processor, "threads": threads, "processes": 1, "versions": {"torch": "9.1"}, "started": started}
    return made | {"commit": "c" * 40, "clean": True, "wall_time": wall_time} | others


@pytest.fixture
def store(tmp_path):
    """Three runs of two machines, of which one diverged; the twin of one in the archive; and a measurement."""
    results.write(record("A", 0, profile="paper", mae=0.25, run=run()), tmp_path)
    tied = {"spurious": "tied", "fraction": 0.4}
    results.write(record("A", 1, profile="paper", config=tied, run=run("two", wall_time=3600.0, threads=3)), tmp_path)
    results.write(record("B", 0, profile="paper", split="scaffold", diverged=True, run=run(wall_time=0.0)), tmp_path)
    results.write(record("A", 0, profile="paper", mae=0.35, run=run("two")), tmp_path / "archive")
    (tmp_path / "paper" / "search").mkdir()
    trials = {"cpu": "one", "threads": 2, "trials": [{"seconds": 900.0}, {"seconds": 2700.0}]}
    (tmp_path / "paper" / "search" / "s.json").write_text(json.dumps(trials))
    return tmp_path


# --- which runs, and what they cost ---------------------------------------------------------------------


def test_each_run_of_the_store_is_one_row(store):
    runs = origins.read(store)
    assert len(runs) == 4 and runs["archived"].tolist() == [True, False, False, False]
    assert all((store / file).is_file() for file in runs["file"])
    assert runs["condition"].tolist() == ["", "", "40% of the training set, spurious correlation", ""]
    assert runs["method"].tolist() == ["A", "A", "A", "B"] and not runs["on_page"].any(), "no chapter has these"
    assert runs["processor"].tolist() == ["two", "one", "two", "one"] and set(runs["torch"]) == {"9.1"}


def test_core_hours_are_wall_time_times_threads(store):
    runs = origins.read(store)
    published = runs[~runs["archived"]]
    (total,) = origins.cost(published).to_dict("records")
    assert total == {
        "runs": 3,
        "diverged": 1,
        "core_hours": 0.5 + 3 * 1.0 + 0,
        "first": "2026-01-02",
        "last": "2026-01-02",
    }
    by = origins.cost(published, ["processor"]).set_index("processor")
    assert by["core_hours"].to_dict() == {"one": 0.5, "two": 3.0} and by["runs"].to_dict() == {"one": 2, "two": 1}


def test_a_search_is_no_run_and_has_the_hours_of_its_trials(store):
    (found,) = origins.measurements(store, origins.read(store)).to_dict("records")
    assert (found["file"], found["core_hours"]) == ("paper/search/s.json", 2 * 3600 / 3600)


def test_twins_from_another_machine_are_compared(store):
    (between,) = origins.between_machines(origins.read(store)).reset_index().to_dict("records")
    assert (between["dataset"], between["method"], between["n"]) == ("esol", "A", 1)
    assert between["mean"] == pytest.approx(2 * 0.35 - 2 * 0.25)


def test_the_file_of_all_records_has_each_once_with_what_shows_it(store):
    runs = origins.read(store)
    first = runs["file"].iloc[0]
    table = origins.table(runs, {first: ["one-table", "one-figure"]})
    assert table["file"].tolist() == runs["file"].tolist() and table["file"].is_unique
    assert table["shown_in"].tolist() == ["one-table one-figure", "", "", ""]
    assert table["version_torch"].tolist() == ["9.1"] * 4
    needed = {"key", "experiment", "dataset", "split", "method", "seed", "checksum", "commit", "processor", "started"}
    assert needed | {"wall_time"} <= set(table)


def test_a_store_that_is_missing_has_no_runs(tmp_path):
    runs = origins.read(tmp_path / "none")
    assert len(runs) == 0 and len(origins.cost(runs)) == 0 and len(origins.between_machines(runs)) == 0
    assert len(origins.measurements(tmp_path / "none", runs)) == 0


@pytest.fixture
def shown(store):
    """The runs of the store as if the chapter of ESOL showed them."""
    runs = origins.read(store)
    return runs.assign(on_page=~runs["archived"])


@pytest.mark.parametrize(
    ("origin", "caption", "expected"),
    [
        (Origin(("esol",)), "Errors. Profile paper.", ["A0", "A1", "B0"]),
        (Origin(("esol",)), "Errors. ESOL, random split, profile paper.", ["A0", "A1"]),
        (Origin(("esol",)), "Errors. ESOL, scaffold split, profile paper.", ["B0"]),
        (Origin(("esol",)), "ESOL, profile paper. Errors.", ["A0", "A1", "B0"]),
        (Origin(("esol",), where={"spurious": True}), "", ["A1"]),
        (Origin(("esol",), where={"spurious": None}), "", ["A0", "B0"]),
        (Origin(("esol",), where={"fraction": 0.4}), "ESOL, scaffold split, profile paper", []),
        (Origin(("agedb",)), "", []),
        (Origin(("esol",), archived=True), "", ["A0 archived", "A0"]),
        (Origin(measured="search"), "", []),
        (None, "", []),
    ],
)
def test_a_table_is_made_of_what_its_caption_and_its_origin_say(shown, origin, caption, expected):
    found = origins.made_of(origin, caption, shown)
    names = [f"{row.method}{row.seed}{' archived' * row.archived}" for row in found.itertuples()]
    assert names == expected


def test_verdicts_are_made_of_the_runs_that_their_claims_compare(shown, monkeypatch):
    def claim(method):
        return Claim("text", "paper", "esol", "esol", "random", method, "B", "difference", "link")

    wanted = {"A": [shown["key"].iloc[2]], "C": [shown["key"].iloc[3]]}
    monkeypatch.setattr(origins, "all_claims", lambda: (claim("A"), replace(claim("C"), primary=True)))
    monkeypatch.setattr(origins, "planned", lambda claim, profile: dict.fromkeys(wanted[claim.method], "label"))
    every = origins.made_of(Origin(judged={}), "", shown)
    assert every["key"].tolist() == [*wanted["A"], *wanted["C"]]
    assert origins.made_of(Origin(judged={"primary": (True,)}), "", shown)["key"].tolist() == wanted["C"]


def test_a_chapter_says_what_its_tables_are_made_of():
    esol, claims, loss = chapter("esol"), chapter("claims"), chapter("loss")
    assert esol.origin("esol-mae") == Origin(("esol",))
    assert esol.origin("esol-verdicts").judged == {"experiment": ("esol",)}
    assert claims.origin("claims-control").experiments == ("control",)
    assert loss.origin("loss-bounds") is None


# --- the published book ---------------------------------------------------------------------------------


def test_every_table_and_figure_of_every_published_chapter_is_made_of_records_or_says_that_it_is_not(book):
    assert list(book.items) == list(NAMES)
    for name, items in book.items.items():
        its = chapter(name)
        assert set(items) == {*its.tables, *its.figures}, name
        assert set(its.origins) <= set(items), f"{name}: origins of what is not on the page"
        for item in items:
            origin = its.origin(item)
            if origin is not None and origin.measured is not None:
                assert origin.measured in set(book.measured["folder"]), item
            elif origin is not None and item != "agedb-published":  # of photographs there are no records
                assert len(book.made_of[item]), item


def test_the_splits_of_a_table_are_as_many_as_it_says(book):
    """Tables of errors have a column with the number of splits, seeds or sets of each method."""
    checked = 0
    for name in book.items:
        notebook = json.loads((BOOK / "chapters" / f"{name}.ipynb").read_text(encoding="utf-8"))
        texts = ["".join(out.get("data", {}).get("text/markdown", "")) for cell in notebook["cells"]
                 for out in cell.get("outputs", ())]  # fmt: skip
        for text in texts:
            if not (table := re.match(r":::\{table\} .*\n:name: (\S+)\n\n((?:\|.*\n)+)", text)):
                continue
            head, _, *lines = (
                [cell.strip() for cell in line.strip("|\n").split("|")] for line in table[2].splitlines()
            )
            column = {"Splits", "Seeds", "Sets"} & set(head)
            if not column or head[0] != "Method" or "Diverged" in head or len({line[0] for line in lines}) < len(lines):
                continue
            its = book.made_of[table[1]]
            every, lasting = (of.groupby("method")["seed"].nunique() for of in (its, its[~its["diverged"]]))
            for line in lines:
                said = int(line[head.index(*column)].split(" of ")[-1])
                assert said in (every[line[0]], lasting.get(line[0])), (table[1], line)
                checked += 1
    assert checked > 40


def test_the_runs_of_verdicts_are_those_of_their_claims(book):
    claims = [claim for claim in chapter("claims").claims if claim.primary and claim.dataset == "esol"]
    keys = {one for claim in claims for one in planned(claim, "paper")}
    assert keys == set(book.made_of["claims-esol"]["key"])


def test_every_published_record_is_in_one_fold_and_one_row_of_the_file(book, text):
    table = origins.table(book.runs, book.shown_in())
    paths = [*BOOK.glob("results/paper/*/*.json"), *BOOK.glob("results/archive/paper/*/*.json")]
    every = sorted(path.relative_to(BOOK / "results").as_posix() for path in paths)
    assert sorted([*table["file"], *book.measured["file"]]) == every
    linked = re.findall(r'href="records/([^"]+\.json)"', text)
    assert sorted(linked) == sorted([*book.runs["place"], *book.measured["file"]])
    assert len(set(linked)) == len(linked), "each has a place of its own"


def test_each_link_of_the_page_has_its_place(book, text):
    places = re.findall(r'id="([^"]+)"', text)
    assert len(places) == len(set(places))
    links = set(re.findall(r'href="#([^"]+)"', text))
    assert links <= set(places) and links
    assert {f"records-of-{item}" for items in book.items.values() for item in items} <= set(places)
    labels = re.findall(r"^\((.+)\)=$", text, re.M)
    assert len(labels) == len(book.items) and not any("_" in label for label in labels), "Sphinx would rename them"


def test_the_command_of_a_group_makes_its_runs(book):
    for (experiment, dataset, split), part in book.published.groupby(["experiment", "dataset", "split"]):
        words = shlex.split(origins.command(experiment, dataset, split))
        assert words[:4] == ["python", "-m", "rnclib.protocols", experiment]
        options = dict(zip(words[4::2], words[5::2], strict=True))
        runs = experiments()[experiment].runs(**{name.lstrip("-"): value for name, value in options.items()})
        assert set(part["key"]) <= {key(run) for run in runs}, words


def test_the_hours_of_the_pages_are_the_sum_of_the_records(book, pages):
    seconds = 0.0
    for path in [*BOOK.glob("results/paper/*/*.json"), *BOOK.glob("results/archive/paper/*/*.json")]:
        made = json.loads(path.read_text(encoding="utf-8")).get("run", {})
        seconds += made.get("wall_time", 0.0) * made.get("threads", 1) * made.get("processes", 1)
    assert pages.numbers(book)["hours"] == f"{seconds / 3600:.0f}"
    last = pages.cost_of_chapters(book).splitlines()[-2]
    assert [cell.strip() for cell in last.split("|")][4] == f"{seconds / 3600:.1f}"


def test_a_caption_that_names_a_data_set_alone_leaves_out_the_others(book):
    assert book.items["robustness"]["robustness-shift"].startswith("ESOL. ")
    assert set(book.made_of["robustness-shift"]["dataset"]) == {"esol"}
    assert set(book.made_of["robustness-shift-faces"]["dataset"]) == {"synthetic"}


def test_differences_between_machines_are_those_of_the_verdict_page(book):
    names = {"profile": "paper", "experiment": "esol", "dataset": "esol"}
    labels = dict(zip(book.runs["key"], book.runs["method"], strict=True))

    def labelled(root):
        records = results.load(root, **names)
        return results.labelled(records, [labels[record["key"]] for record in records])

    now, then = (labelled(root) for root in (BOOK / "results", BOOK / "results" / "archive"))
    expected = statistics.between_machines(now, then, "test_mae_raw")
    found = origins.between_machines(book.runs).loc["esol"]
    pd.testing.assert_frame_equal(found.sort_index(), expected.sort_index(), check_names=False, check_dtype=False)


# --- pages and links ------------------------------------------------------------------------------------


def test_the_pages_are_filled_in(book, pages):
    for name in ("provenance", "checklists"):
        text = pages.filled((BOOK / f"{name}.md").read_text(encoding="utf-8"), book)
        assert "<!-- generated" not in text and "{recorded}" not in text
    assert f"of {pages.numbers(book)['runs']} diverged" in text


def test_what_no_part_has_is_refused(book, pages):
    for text in ("<!-- generated: nothing -->", "{recorded}`nothing`"):
        with pytest.raises(pages.ExtensionError, match="allowed: "):
            pages.filled(text, book)


def test_a_copy_of_the_book_without_records_says_so_and_keeps_its_anchors(tmp_path, book, pages):
    shutil.copytree(BOOK / "chapters", tmp_path / "chapters")
    bare = pages.Ledger(tmp_path)
    text = pages.filled((BOOK / "records.md").read_text(encoding="utf-8"), bare)
    assert pages.NOTHING in text and "records.csv" not in text
    for items in book.items.values():
        assert all(f'id="records-of-{item}"' in text for item in items)
    assert 'href="#' not in text, "a link to a group, of which there is none"
    assert "none on record core-hours" in pages.filled((BOOK / "checklists.md").read_text(encoding="utf-8"), bare)
    tables = pages.filled((BOOK / "provenance.md").read_text(encoding="utf-8"), bare)
    assert re.findall(r"^:name: (\S+)$", tables, re.M) == [
        f"provenance-{one}" for one in ("chapters", "machines", "versions")
    ]


def document(*ids):
    from docutils import frontend, nodes, utils

    doctree = utils.new_document("", frontend.get_default_settings())
    section = nodes.section("", nodes.title("", "Title"), nodes.paragraph("", "Text"))
    section += [nodes.table(ids=[one]) for one in ids]
    doctree += section
    return doctree, section


def linked(pages, book, monkeypatch, docname, *ids, name="html"):
    monkeypatch.setattr(pages, "ledger", lambda folder: book)
    builder = SimpleNamespace(format="html", name=name, get_relative_uri=lambda this, other: f"../{other}.html")
    doctree, section = document(*ids)
    pages.link_to_records(SimpleNamespace(builder=builder, srcdir="book"), doctree, docname)
    return section


def test_each_table_of_a_chapter_leads_to_its_records(pages, book, monkeypatch):
    section = linked(pages, book, monkeypatch, "chapters/esol", "esol-mae", "something-else")
    _, command, _, table, link, other = section.children
    assert command.astext().startswith("Made by papermill notebooks/esol.ipynb out.ipynb;")
    assert link.children[0]["refuri"] == "../records.html#records-of-esol-mae" and link["classes"] == ["origin"]
    assert (table["ids"], other["ids"]) == (["esol-mae"], ["something-else"])


def test_in_a_book_on_one_page_links_stay_there(pages, book, monkeypatch):
    link = linked(pages, book, monkeypatch, "chapters/esol", "esol-mae", name="singlehtml").children[-1]
    assert link.children[0]["refuri"] == "#records-of-esol-mae"


def test_other_pages_stay_as_they_are(pages, book, monkeypatch):
    assert len(linked(pages, book, monkeypatch, "data", "data-sets").children) == 3


# --- this machine beside the reference ------------------------------------------------------------------


def quick(method, seed, root, processor, **changes):
    results.write(record(method, seed, profile="quick", run=run(processor), **changes), root)


def test_quick_runs_stand_beside_those_of_the_reference(tmp_path):
    quick("A", 0, tmp_path, "mine", mae=0.5)
    quick("A", 1, tmp_path, "mine", diverged=True)
    quick("B", 0, tmp_path, "mine", mae=0.5)
    for seed in (0, 1, 2):
        quick("A", seed, tmp_path / "reference", "theirs", mae=0.25)
    found = origins.beside_reference(tmp_path, ["esol", "agedb"])
    assert found["seed"].tolist() == [0, 1] and found["method"].tolist() == ["A", "A"]
    assert found["here"].tolist() == [1.0, pytest.approx(float("nan"), nan_ok=True)]
    assert found["reference"].tolist() == [0.5, 0.5]
    assert set(found["machine"]) == {"mine, torch 9.1"} and set(found["reference_machine"]) == {"theirs, torch 9.1"}


@pytest.mark.parametrize(
    ("processor", "mae", "said"),
    [
        ("theirs", 0.25, "should be the same, and they are."),
        ("theirs", 0.26, "should be the same, and they are not;"),
        ("mine", 0.26, "numbers need not be the same"),
    ],
)
def test_a_local_page_says_what_is_expected(tmp_path, pages, book, processor, mae, said):
    quick("A", 0, tmp_path / "results", processor, mae=mae)
    quick("A", 0, tmp_path / "results" / "reference", "theirs", mae=0.25)
    bare = pages.Ledger(tmp_path)
    text = pages.reference(bare, "esol")
    assert said in text and ":name: local-reference-esol" in text
    assert f"{2 * mae - 0.5:.3f} |" in text, "the difference"
    assert pages.reference(bare, "agedb") == pages.reference(bare, "a-page-of-ones-own") == ""


def test_the_reference_is_of_quick_runs_of_one_machine_and_small(pages, tmp_path):
    root = BOOK / "results" / "reference"
    records = results.load(root, profile="quick", experiment="esol", dataset="esol")
    planned_keys = {key(run) for run in experiments()["esol"].runs(dataset="esol", profile="quick", split="random")}
    assert {one["key"] for one in records} == planned_keys
    assert len({results.machine(one) for one in records}) == 1 and all(one["run"]["clean"] for one in records)
    files = [path for path in root.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 300_000 and {path.suffix for path in files} == {".json", ".csv"}
    shutil.copytree(root, tmp_path / "results" / "reference")
    shutil.copytree(root / "quick", tmp_path / "results" / "quick")
    assert "should be the same, and they are." in pages.reference(pages.Ledger(tmp_path), "esol")
