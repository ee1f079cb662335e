"""The book: what it is built from, and that the built site is whole and asks no other host for anything."""

from __future__ import annotations

import json
import re
import shutil
from hashlib import sha256
from pathlib import Path

import pandas as pd
import pytest
from built_book import BOOK, ROOT, build, chapter, extension, html_pages, lay_out, pages_in, read

from rnclib import records

yaml = pytest.importorskip("yaml")
nbformat = pytest.importorskip("nbformat")
pytest.importorskip("jupyter_book")
Sphinx = pytest.importorskip("sphinx.application").Sphinx


@pytest.fixture(scope="module")
def setup_module():
    """The book's own Sphinx extension."""
    return extension("book_setup")


def cell(number, *tags, output=None):
    outputs = [{"data": {"text/markdown": output}}] if output else []
    return {"cell_type": "code", "source": f"cell {number}", "metadata": {"tags": list(tags)}, "outputs": outputs}


def test_the_answer_stands_first_and_what_is_looked_up_is_folded(setup_module):
    table = ":::{table} Mean error, in years: mean over seeds.\n:name: a-table\n\n| a |\n|:--|\n| 1 |\n:::"
    title = {"cell_type": "markdown", "source": "# Title", "metadata": {}}
    cells = [title, cell(1), cell(2, "fold", output=table), cell(3, output=table), cell(4, "hide-input", "answer")]
    cells += [cell(5, "fold", output="No table here."), cell(6, "fold")]
    page = setup_module.laid_out({"cells": cells})["cells"]
    order = ["# Title", "cell 4", "cell 1", "cell 2", "cell 3", "cell 5", "cell 6"]
    assert [one["source"] for one in page] == order
    shown = {one["source"]: one["outputs"][0]["data"]["text/markdown"] for one in page[1:] if one["outputs"]}
    assert shown["cell 2"] == f"::::{{dropdown}} Mean error, in years\n{table}\n::::"
    assert (shown["cell 3"], shown["cell 5"]) == (table, "No table here.")


def test_references_by_number_read_a_page_once_and_are_what_sphinx_makes(tmp_path, monkeypatch):
    from sphinx.environment import BuildEnvironment
    from sphinx.util.docutils import docutils_namespace

    monkeypatch.syspath_prepend(BOOK / "_ext")
    (tmp_path / "conf.py").write_text("numfig = True\n")
    (tmp_path / "index.rst").write_text(
        "Top\n===\n\n.. toctree::\n\n   other\n\n" + ":numref:`one` :numref:`two`\n" * 3
    )
    tables = (f".. _{name}:\n\n.. table:: {name}\n\n   === ===\n   a   b\n   === ===\n\n" for name in ("one", "two"))
    (tmp_path / "other.rst").write_text("Other\n=====\n\n" + "".join(tables))
    read_page, pages, reads = BuildEnvironment.get_doctree, {}, {}
    for extensions in ((), ("numbered_references",)):
        found = reads[extensions] = []
        monkeypatch.setattr(
            BuildEnvironment, "get_doctree", lambda env, name, found=found: found.append(name) or read_page(env, name)
        )
        out = tmp_path / f"out-{len(extensions)}"
        changed = {"extensions": list(extensions)}
        with docutils_namespace():
            Sphinx(tmp_path, tmp_path, out, out / "trees", "html", changed, status=None, warningiserror=True).build()
        pages[extensions] = (out / "index.html").read_text()
    with_ours, without = pages[("numbered_references",)], pages[()]
    assert with_ours == without and "Table 2" in without
    # once to write it, and once, or for each reference, to number what is referred to
    assert [reads[one].count("other") for one in pages] == [7, 2]


# --- sources --------------------------------------------------------------------------------------------


def test_every_page_of_the_contents_exists_and_every_page_is_in_the_contents(setup_module):
    listed = pages_in(yaml.safe_load((ROOT / "_toc.yml").read_text()))
    assert len(listed) == len(set(listed))
    there = {
        path.relative_to(BOOK).with_suffix("").as_posix()
        for path in [*BOOK.glob("*.md"), *BOOK.glob("api/*.md"), *BOOK.glob("chapters/*.ipynb")]
    }
    assert set(listed) == there


def test_the_contents_list_the_chapters_in_their_order():
    from rnclib.chapters import NAMES

    (part,) = [one for one in yaml.safe_load((ROOT / "_toc.yml").read_text())["parts"] if one["caption"] == "Chapters"]
    files = [chapter["file"] for chapter in part["chapters"]]
    assert files.index("deciding") + 1 == files.index("chapters/claims")  # the rule, then what it decides
    assert files.index("comparing") + 1 == files.index("chapters/tasks")
    assert [file for file in files if file not in ("deciding", "comparing")] == [f"chapters/{name}" for name in NAMES]


def test_the_reference_describes_every_module():
    pages = "".join(path.read_text(encoding="utf-8") for path in sorted(BOOK.glob("api/*.md")))
    described = re.findall(r"automodule:: (\S+)", pages)
    assert len(described) == len(set(described))
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in (ROOT / "rnclib").rglob("*.py")
        if path.stem != "__main__"
    }
    chapters = {name for name in modules if name.startswith("rnclib.chapters.") and not name.endswith(".base")}
    assert set(described) == modules - chapters - {"rnclib"}, "book/api/: an automodule for each"
    listed = re.findall(r"^   (rnclib\S*)$", (BOOK / "api.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(listed) == sorted(described), "book/api.md: a line for each"


def test_building_runs_no_notebook():
    assert yaml.safe_load((ROOT / "_config.yml").read_text())["execute"]["execute_notebooks"] == "off"


def test_published_chapters_are_clean():
    from rnclib.publishing import clean

    for path in sorted((BOOK / "chapters").glob("*.ipynb")):
        text = path.read_text(encoding="utf-8")
        notebook = nbformat.reads(text, as_version=4)
        assert nbformat.writes(clean(notebook)).strip() == text.strip(), f"{path.name} was not published"
        assert str(Path.home()) + "/" not in text, f"{path.name} names a home folder"
        code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
        assert any(cell.outputs for cell in code), f"{path.name} was not run"
        errors = [out for cell in code for out in cell.outputs if out.output_type == "error"]
        assert not errors, f"{path.name} holds an error"


def test_no_page_names_another_host_to_load_from():
    loads = re.compile(r"""(?:src=|@import|url\(|mathjax_path:)\s*["']?\s*(?:https?:)?//""")
    for path in [ROOT / "_config.yml", *BOOK.glob("*.md"), *BOOK.glob("_static/*.css")]:
        assert not loads.search(path.read_text(encoding="utf-8")), path.name


# --- this machine's pages -------------------------------------------------------------------------------


def test_contents_without_local_pages_are_those_of_the_root(setup_module, tmp_path):
    (tmp_path / "book").mkdir()
    shutil.copy(ROOT / "_toc.yml", tmp_path)
    expected = yaml.safe_load((ROOT / "_toc.yml").read_text())
    assert setup_module.complete_toc(tmp_path / "book") == expected


def test_local_pages_follow_the_chapters_in_their_order(setup_module, tmp_path):
    toc = {
        "root": "index",
        "parts": [
            {"caption": "Chapters", "chapters": [{"file": "chapters/loss"}, {"file": "chapters/esol"}]},
            {"caption": "Reference", "chapters": [{"file": "data"}]},
        ],
    }
    (tmp_path / "_toc.yml").write_text(yaml.safe_dump(toc))
    local = tmp_path / "book" / "local"
    local.mkdir(parents=True)
    for name in ("another", "esol", "loss"):
        (local / f"{name}.ipynb").write_text("{}")
    parts = setup_module.complete_toc(tmp_path / "book")["parts"]
    assert [part["caption"] for part in parts] == ["Chapters", "Your machine", "Reference"]
    assert [one["file"] for one in parts[1]["chapters"]] == ["local/loss", "local/esol", "local/another"]


def test_local_page_has_its_own_labels_title_and_notice(setup_module):
    page = setup_module.local_page(chapter(), "chapters/demo-of-the-tests")
    texts = [cell["source"] for cell in page["cells"] if cell["cell_type"] == "markdown"]
    assert texts[0].startswith("(local-demo-start)=\n# A demonstration (this machine)\n\n:::{admonition}")
    assert "</chapters/demo-of-the-tests>" in texts[0]
    text = "\n".join(texts)
    assert "(local-demo-start)=" in text and ":label: local-demo-sum" in text
    for reference in (
        "{numref}`local-demo-table`",
        "{numref}`drawing {number} <local-demo-dots>`",
        "{eq}`local-demo-sum`",
    ):
        assert reference in text
    assert "[the start](#local-demo-start)" in text
    assert "`demo-table` as code" in text, "only references change, not other words"
    code = [cell for cell in page["cells"] if cell["cell_type"] == "code"]
    assert code[0]["outputs"][0]["data"]["text/markdown"].splitlines()[1] == ":name: local-demo-table"
    assert code[1]["metadata"]["mystnb"]["figure"]["name"] == "local-demo-dots"


def test_local_page_without_labels_is_left_alone_but_for_its_title(setup_module):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# Title\n\nText (demo)=no.")])
    page = setup_module.local_page(json.loads(nbformat.writes(notebook)), None)
    assert page["cells"][0]["source"].startswith("# Title (this machine)\n")
    assert page["cells"][0]["source"].endswith("Text (demo)=no.")
    assert "published chapter" not in page["cells"][0]["source"]


# --- the site -------------------------------------------------------------------------------------------


def test_site_asks_no_other_host_for_anything(site):
    pages = html_pages(site)
    assert {"index.html", "data.html", "api.html", "search.html"} <= {path.name for path in pages}
    for path in pages:
        for url in read(path).fetched:
            assert not re.match(r"(?:https?:)?//", url), f"{path.name} loads {url}"
            if not url.startswith("data:"):
                target = (path.parent / url.split("?")[0].split("#")[0]).resolve()
                assert target.exists(), f"{path.name} loads {url}, which is missing"
        text = path.read_text(encoding="utf-8")
        for name in ("require.js", "thebe", "unpkg.com", "jsdelivr", "cdnjs", "googleapis"):
            assert name not in text, f"{path.name} mentions {name}"
    for path in site.rglob("*.css"):
        found = re.search(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//[^)\"']*", path.read_text(encoding="utf-8"))
        assert not found, f"{path.name} loads {found[0]}"


def test_site_carries_the_mathjax_it_uses(site):
    page = site / "chapters" / "demo-of-the-tests.html"
    (script,) = [url for url in read(page).fetched if "mathjax" in url]
    folder = (page.parent / script.split("?")[0]).resolve().parent
    assert (folder / "tex-chtml.js").stat().st_size > 500_000
    assert (folder / "output/chtml/fonts/woff-v2/MathJax_Main-Regular.woff").is_file()
    assert (folder / "input/tex/extensions/boldsymbol.js").is_file()


def test_interactive_figures_have_their_scripts_and_no_other_page_has_them(site):
    scripts = {path.name for path in (BOOK / "_interactive").iterdir()}
    wanted = {"loss.html": {"playground.js", "rnc_loss.js"}, "esol.html": {"molecules.js"}}
    for path in html_pages(site):
        loaded = {Path(url.split("?")[0]).name for url in read(path).fetched} & scripts
        given = wanted.get(path.name, set()) if path.parent.name == "chapters" else set()
        assert loaded == (given | {"interactive.js", "interactive.css"} if given else set()), path
        text = path.read_text(encoding="utf-8")
        assert text.count('<div class="interactive" data-figure=') == bool(given)
        assert len(text.encode()) < 1_500_000, path


def test_links_within_the_site_lead_somewhere(site):
    pages = {path: read(path) for path in html_pages(site)}
    for path, page in pages.items():
        for link in page.links:
            if re.match(r"[a-z]+:", link):
                continue
            file, _, anchor = link.partition("#")
            target = (path.parent / file.split("?")[0]).resolve() if file else path
            assert target.exists(), f"{path.name} links to {link}"
            if anchor and target in pages and not target.name.startswith("search"):
                assert anchor in pages[target].ids, f"{path.name} links to {link}"


def test_records_in_the_site_have_beside_them_what_they_name(site):
    paths = [*(site / "records").glob("*.json"), *(site / "records" / "archive").glob("*.json")]
    assert len(paths) > 1000
    for path in paths:
        record = records.read(path)
        assert record is not None and record["key"] == path.stem, path
    table = pd.read_csv(site / "records" / "records.csv", low_memory=False)
    assert sorted(site / "records" / place for place in table["place"]) == sorted(paths)


def test_tables_and_figures_are_numbered_and_referred_to(site):
    text = (site / "chapters" / "demo-of-the-tests.html").read_text(encoding="utf-8")
    plain = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", text))
    table = re.search(r'id="demo-table">\s*<caption><span class="caption-number">(Table \d+) ', text)
    figure = re.search(r'id="demo-dots">.*?<span class="caption-number">(Fig\. \d+) ', text, re.S)
    assert table and figure
    assert f"See {table[1]}, drawing {figure[1].split()[1]} and (" in plain
    assert 'class="text-right"><p>−0.250</p>' in text
    assert 'alt="A rising curve"' in text
    # The same chapter on this machine: other numbers of its own, which its references use.
    local = (site / "local" / "demo-of-the-tests.html").read_text(encoding="utf-8")
    other = re.search(r'id="local-demo-table">\s*<caption><span class="caption-number">(Table \d+) ', local)
    assert other and other[1] != table[1]
    assert f"See {other[1]}," in re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", local))
    assert "A demonstration (this machine)" in local


def test_local_pages_are_a_part_of_their_own(site):
    text = (site / "index.html").read_text(encoding="utf-8")
    assert '<span class="caption-text">Your machine</span>' in text
    assert "A demonstration (this machine)" in text


def test_quoted_numbers_arrive(site):
    assert "From there: 0.99." in re.sub(r"<[^>]+>", "", (site / "index.html").read_text(encoding="utf-8"))
    for path in html_pages(site):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r'<span class="pasted-text">\s*</span>', text), path.name
        prose = re.sub(r"<(code|pre)\b.*?</\1>", "", text, flags=re.S)
        assert "{glue" not in prose and "{numref}" not in prose and "{cite" not in prose, path.name


def test_folded_code_is_called_as_it_reads_and_the_bibliography_is_a_list(site):
    text = (site / "chapters" / "loss.html").read_text(encoding="utf-8")
    assert re.search(r"<summary>\s*<p[^>]*>Show the code</p>", text)
    assert "Toggle hidden content" not in text
    text = (site / "bibliography.html").read_text(encoding="utf-8")
    entries = re.findall(r'<div class="citation" [^>]*role="([a-z-]+)"', text)
    assert len(entries) > 20 and set(entries) == {"listitem"}


@pytest.mark.slow
def test_two_clean_builds_of_a_folder_are_the_same(tmp_path):
    lay_out(tmp_path)

    def built():
        site = build(tmp_path)
        sums = {path.relative_to(site): sha256(path.read_bytes()).hexdigest() for path in site.rglob("*.*")}
        shutil.rmtree(site.parent)
        return sums

    first = built()
    assert {".html", ".js", ".css", ".svg"} <= {path.suffix for path in first}
    assert built() == first
