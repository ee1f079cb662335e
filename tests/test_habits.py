"""What people try with such a book without reading how: parameters, folders, a build at the root, a page to print."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from rnclib.chapters import NAMES
from rnclib.chapters import chapter as chapter_of
from rnclib.parameters import ParameterError

ROOT = Path(__file__).resolve().parents[1]

yaml = pytest.importorskip("yaml")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("jupyter_book")

from built_book import build, chapter, extension, html_pages, read  # noqa: E402  (it needs these packages)

# --- parameters of every notebook -----------------------------------------------------------------------


def guarded(name: str, **given: object) -> dict[str, object]:
    """The parameters of a notebook after its guard, which comes before anything heavy."""
    cells = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4).cells
    (position,) = [i for i, cell in enumerate(cells) if "parameters" in cell.metadata.get("tags", [])]
    guard = next(cell for cell in cells[position + 1 :] if cell.cell_type == "code")
    names: dict[str, object] = {}
    exec(compile(cells[position].source, name, "exec", dont_inherit=True), names)
    assert set(given) <= set(names)
    names |= given
    exec(guard.source, names)
    return names


def parameters_of(name: str) -> dict[str, object]:
    return guarded(name)["__annotations__"]


SWITCHES = [(name, switch) for name in NAMES for switch, kind in parameters_of(name).items() if kind is bool]
STORES = [(name, of) for name in NAMES for of in parameters_of(name) if of in ("results_dir", "out")]


def test_the_notebooks_that_train_have_a_switch_and_a_store():
    assert {name for name, _ in STORES} == {*NAMES} - {"loss"}
    assert ("esol", "refresh") in SWITCHES and len(SWITCHES) >= 8


@pytest.mark.parametrize(("name", "switch"), SWITCHES)
def test_switches_read_what_the_shell_says(name, switch):
    # papermill's -p gives True, and the texts true and false; -r gives a text for each
    for text, meant in ((True, True), ("true", True), ("True", True), ("false", False)):
        assert guarded(name, **{switch: text})[switch] is meant
    with pytest.raises(ParameterError, match=rf"^{switch}: got 'tru'; allowed: True or False$"):
        guarded(name, **{switch: "tru"})


@pytest.mark.parametrize(("name", "store"), STORES)
def test_a_store_that_cannot_be_written_is_refused_at_once(name, store, tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ParameterError, match=rf"^{store}: got {place}, which cannot be written .*; allowed: "):
            guarded(name, **{store: str(place)})


# --- the book's commands --------------------------------------------------------------------------------

ADDRESS = "https://github.com/someone/somewhere"


def small_book(root: Path, address: str | None = None) -> Path:
    """A book of a few pages with the settings of ours, in a repository with much beside it that is no page."""
    for name in ("_config.yml", "CITATION.cff", "README.md"):
        shutil.copy(ROOT / name, root)
    book = root / "book"
    for folder in ("_ext", "_interactive", "_static"):
        shutil.copytree(ROOT / "book" / folder, book / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("_toc.yml", "cite.md", "references.bib"):
        shutil.copy(ROOT / "book" / name, book)
    (book / "index.md").write_text("# A book\n\n$x$ in {doc}`chapters/demo`.\n\n```{image} _static/idea.svg\n```\n")
    (book / "data.md").write_text("# Data\n")
    (book / "bibliography.md").write_text("# Bibliography\n\n```{bibliography}\n```\n")
    for folder in ("book/chapters", "book/local", "book/results/paper", "notebooks", "tests"):
        (root / folder).mkdir(parents=True)
        if folder in ("book/chapters", "book/local", "notebooks"):
            (root / folder / "demo.ipynb").write_text(json.dumps(chapter()))
        else:
            (root / folder / "no_page.md").write_text("No page.")
    pages = [{"file": name} for name in ("chapters/demo", "cite", "data", "bibliography")]
    toc = {"format": "jb-book", "root": "index", "parts": [{"caption": "Chapters", "chapters": pages}]}
    (root / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False))
    (root / "rnclib").symlink_to(ROOT / "rnclib")
    if address is not None:
        with (root / "CITATION.cff").open("a") as file:
            file.write(f"repository-code: {address}\n")
    return root


@pytest.fixture(scope="module")
def sites(tmp_path_factory) -> dict[str, Path]:
    """The same small book, built as the README says, at the root of the repository, and with an address."""
    made = {name: small_book(tmp_path_factory.mktemp(name)) for name in ("book", "root")}
    made["linked"] = small_book(tmp_path_factory.mktemp("linked"), ADDRESS)
    return {name: build(root, "." if name == "root" else "book/") for name, root in made.items()}


@pytest.mark.slow
def test_a_build_at_the_root_makes_the_same_book_in_the_same_place(sites):
    files = [sorted(path.relative_to(site) for path in site.rglob("*") if path.is_file()) for site in
             (sites["book"], sites["root"])]  # fmt: skip
    assert files[0] == files[1]
    assert {"index.html", "cite.html", "chapters/demo.html", "local/demo.html", "_static/book.css"} <= {
        *map(str, files[0])
    }
    different = [
        name for name in files[0] if (sites["book"] / name).read_bytes() != (sites["root"] / name).read_bytes()
    ]
    assert [name for name in different if name.suffix in (".html", ".css", ".js")] == []
    assert not [name for name in files[0] if "no_page" in name.name or "README" in name.name]


@pytest.mark.slow
def test_without_an_address_no_page_leads_to_a_repository(sites):
    for path in html_pages(sites["book"]):
        text = path.read_text(encoding="utf-8")
        for name in ("mybinder", "colab", "source-file-button", "source-repository-button", "REPOSITORY", "OWNER/NAME"):
            assert name not in text, f"{path.name}: {name}"
    assert "The repository" not in (sites["book"] / "cite.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_with_an_address_pages_lead_to_their_sources_and_load_nothing_from_elsewhere(sites):
    site = sites["linked"]
    pages = {path.relative_to(site).as_posix(): read(path) for path in html_pages(site)}
    for name, page in pages.items():
        assert not [url for url in page.fetched if re.match(r"(?:https?:)?//", url)], name
        assert ("thebe" in (site / name).read_text(encoding="utf-8")) is False
    links = pages["chapters/demo.html"].links
    assert ADDRESS in links and f"{ADDRESS}/blob/main/notebooks/demo.py" in links
    assert "https://mybinder.org/v2/gh/someone/somewhere/main?urlpath=lab/tree/notebooks/demo.ipynb" in links
    assert "https://colab.research.google.com/github/someone/somewhere/blob/main/notebooks/demo.ipynb" in links
    assert f"{ADDRESS}/blob/main/book/data.md?plain=1" in pages["data.html"].links
    assert not [link for link in pages["data.html"].links if "mybinder" in link or "colab" in link]
    assert not [link for link in pages["local/demo.html"].links if "somewhere" in link]  # it lies nowhere but here
    cite = re.sub(r"<[^>]+>", "", (site / "cite.html").read_text(encoding="utf-8"))
    assert f"url     = {{{ADDRESS}}}" in cite and f"git clone {ADDRESS}" in cite


@pytest.mark.slow
def test_the_whole_book_on_a_single_page_is_whole(tmp_path):
    for name in ("_config.yml", "_toc.yml", "CITATION.cff"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "book", tmp_path / "book", ignore=shutil.ignore_patterns("local", "results", "__pycache__"))
    (tmp_path / "rnclib").symlink_to(ROOT / "rnclib")
    page = build(tmp_path, "book/", "--builder", "singlehtml") / "index.html"
    found = read(page)
    for url in found.fetched:
        assert not re.match(r"(?:https?:)?//", url), url
        assert url.startswith("data:") or (page.parent / url.split("?")[0]).is_file(), url
    assert [url for url in found.fetched if "mathjax" in url]
    for link in found.links:
        file, _, anchor = link.partition("#")
        if not re.match(r"[a-z]+:", link):
            assert file in ("", "index.html") and (not anchor or anchor in found.ids), link
    text = page.read_text(encoding="utf-8")
    for name in NAMES:
        assert all(f'id="{one}"' in text for one in (*chapter_of(name).tables, *chapter_of(name).figures)), name
    assert '<table class="table" id="esol-mae">' in text  # a numbered table of the book


# --- publishing -----------------------------------------------------------------------------------------


def citation() -> dict:
    return yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))


def test_the_workflow_may_do_no_more_than_it_needs_and_pins_what_it_uses():
    text = (ROOT / ".github" / "workflows" / "book.yml").read_text(encoding="utf-8")
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {"contents": "read"}
    jobs = workflow["jobs"]
    assert "permissions" not in jobs["build"]
    assert jobs["publish"]["permissions"] == {"pages": "write", "id-token": "write"}
    assert jobs["publish"]["needs"] == "build" and "refs/heads/main" in jobs["publish"]["if"]
    used = [step["uses"] for job in jobs.values() for step in job["steps"] if "uses" in step]
    assert len(used) == 4 and all(re.fullmatch(r"actions/[a-z-]+@v\d+", one) for one in used)
    commands = [step["run"] for step in jobs["build"]["steps"] if "run" in step]
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M)
    assert {"make check", "make test", "make book"} <= set(commands)
    assert all(command.removeprefix("make ") in targets for command in commands)
    assert "secrets" not in text and "${{ github.event" not in text  # nothing that others write is run


def test_the_address_of_the_repository_has_one_place():
    address = citation().get("repository-code")
    assert address is None or re.fullmatch(r"https://(github|gitlab)\.com/[\w.-]+/[\w.-]+", address)
    for path in (ROOT / "_config.yml", ROOT / "pyproject.toml", ROOT / "README.md", *(ROOT / "book").glob("*.md")):
        text = path.read_text(encoding="utf-8")
        assert "repository_url" not in text and (address is None or address not in text), path.name


def test_the_paper_comes_first_and_is_cited_as_in_the_bibliography():
    page = (ROOT / "book" / "cite.md").read_text(encoding="utf-8")
    first, second = re.findall(r"```bibtex\n(.*?)```", page, re.S)
    assert first in (ROOT / "book" / "references.bib").read_text(encoding="utf-8")
    said = citation()
    (paper,) = said["references"]
    assert all(f"{one['family-names']}, {one['given-names']}" in first for one in paper["authors"])
    assert re.sub(r"[{}]", "", first).count(paper["title"]) == 1 and f"{{{paper['year']}}}" in first
    assert re.sub(r"[{}]", "", second).count(said["title"]) == 1 and said["authors"][0]["name"] in second


def test_the_citation_has_what_its_schema_asks_for():
    said = citation()
    assert {"cff-version", "message", "title", "authors"} <= set(said) and said["cff-version"] == "1.2.0"
    assert said["license"] == "MIT" and said["type"] == "software"
    for one in said["references"]:
        assert {"type", "title", "authors"} <= set(one)


@pytest.mark.parametrize(
    ("said", "lines"),
    [
        ({}, []),
        ({"version": "0.1.0"}, ["  version = {0.1.0}"]),
        (
            {"version": "1.0.0", "date-released": "2027-01-31", "repository-code": ADDRESS},
            ["  year    = {2027},", f"  url     = {{{ADDRESS}}},", "  version = {1.0.0}"],
        ),
    ],
)
def test_the_page_on_citing_says_what_the_citation_file_says(book_setup, said, lines, tmp_path):
    (tmp_path / "CITATION.cff").write_text(yaml.safe_dump(said))
    app = SimpleNamespace(srcdir=tmp_path / "book", env=SimpleNamespace(note_dependency=lambda file: None))
    source = [(ROOT / "book" / "cite.md").read_text(encoding="utf-8")]
    book_setup.fill_in_citation(app, "cite", source)
    entry = source[0].split("@software")[1].split("}\n```")[0].splitlines()
    assert entry[3:] == lines
    assert not re.search("REPOSITORY|VERSION|YEAR", source[0])


@pytest.fixture
def book_setup():
    return extension("book_setup")


def test_an_address_that_no_button_can_be_made_of_is_refused(book_setup, tmp_path):
    from sphinx.errors import ExtensionError

    for address, fine in ((ADDRESS, True), ("https://gitlab.com/a/b-c.d", True), ("github.com/a/b", False), (3, False)):
        (tmp_path / "CITATION.cff").write_text(yaml.safe_dump({"repository-code": address}))
        app = SimpleNamespace(srcdir=tmp_path / "book", tags=set())
        config = SimpleNamespace(html_theme_options={"kept": 1})
        if fine:
            book_setup.link_to_repository(app, config)
            assert config.html_theme_options["repository_url"] == address and config.html_theme_options["kept"] == 1
            assert ("colab_url" in config.html_theme_options["launch_buttons"]) is ("github" in address)
        else:
            with pytest.raises(ExtensionError, match=r"repository-code: got .*; allowed: https://"):
                book_setup.link_to_repository(app, config)


def test_the_changelog_ends_in_the_version_and_a_release_has_one_day():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    top, *others = re.findall(r"^## \[(.+?)\](?: - (\S+))?$", text, re.M)
    version, day = citation()["version"], citation().get("date-released")
    assert top == ("Unreleased", "") or top == (version, str(day)), "a release: its version and day, in both files"
    if top[0] == "Unreleased":
        assert day is None or (version, str(day)) in others
    assert set(re.findall(r"^### (.+)$", text, re.M)) <= {
        "Added",
        "Changed",
        "Deprecated",
        "Removed",
        "Fixed",
        "Security",
    }


def test_the_book_can_be_printed():
    css = (ROOT / "book" / "_static" / "book.css").read_text(encoding="utf-8")
    assert css.count("{") == css.count("}")
    printed = css.partition("@media print {")[2]
    for rule in ("white-space: pre-wrap", "break-inside: auto", "details.hide:not([open])", "container-type: normal"):
        assert rule in printed, rule
