"""What this book adds to Jupyter Book: the root table of contents, this machine's pages, links to the repository.

What is made from records is in `record_pages`; references by number are in `numbered_references`.

`jupyter-book build book/` reads `_config.yml` from the root of the repository but `_toc.yml` only from
`book/`. `jupyter-book build .` builds the same book into the same place. Pages of this machine's own runs, in
the git-ignored folder `book/local/`, are added as a part of their own when there are any. Links to the
repository are made from its address in `CITATION.cff`, where there is one. MathJax is copied into the site, and
pages get the scripts of their interactive figures.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.errors import ExtensionError

ROOT = Path(__file__).resolve().parents[2]
LOCAL = "local"
# The part of MathJax that its TeX-to-HTML bundle loads: fonts, and extensions on first use of their macros.
MATHJAX = ("tex-chtml.js", "output/chtml/fonts/woff-v2", "input/tex/extensions", "a11y/assistive-mml.js")


def setup(app: Sphinx) -> dict[str, Any]:
    # The API reference describes this checkout, installed or not.
    sys.path.insert(0, str(ROOT))
    app.setup_extension("record_pages")
    app.setup_extension("numbered_references")
    # Jupyter Book sets this value even where sphinx-comments, which defines it, is not loaded.
    app.add_config_value("comments_config", {}, "html")
    app.connect("config-inited", read_from_book, priority=1)  # before anyone looks for a file
    app.connect("config-inited", use_root_toc, priority=850)  # sphinx-external-toc reads it at 900
    app.connect("config-inited", link_to_repository)
    app.connect("config-inited", find_scripts)
    app.connect("builder-inited", copy_mathjax)
    app.connect("html-page-context", add_scripts)
    app.connect("html-page-context", mend_roles)
    app.connect("source-read", read_notebook)
    app.connect("env-purge-doc", forget_phone_drawings)
    app.connect("doctree-resolved", offer_phone_drawings)
    app.connect("source-read", fill_in_citation)
    app.connect("html-page-context", mend_buttons, priority=510)  # the theme makes them at 501
    app.connect("build-finished", leave_out_search)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


# --- table of contents ----------------------------------------------------------------------------------


def read_from_book(app: Sphinx, config: Any) -> None:
    """Let `jupyter-book build .` read `book/`, with the styles and scripts that it would find there by itself."""
    book = app.srcdir / "book"
    if not (book / "_toc.yml").is_file():
        return
    app.srcdir = app.confdir = book
    config.html_static_path = ["_static"]
    for kind, files in (("css", config.html_css_files), ("js", config.html_js_files)):
        files += [path.name for path in sorted((book / "_static").glob(f"*.{kind}"))]


def use_root_toc(app: Sphinx, config: Any) -> None:
    """Read the root `_toc.yml`, with a part for this machine's pages where there are any."""
    toc = complete_toc(Path(app.srcdir))
    written = Path(app.doctreedir).parent / ".toc.yml"
    written.parent.mkdir(parents=True, exist_ok=True)
    written.write_text(yaml.safe_dump(toc, sort_keys=False), encoding="utf-8")
    config["external_toc_path"] = written.as_posix()


def complete_toc(book: Path) -> dict[str, Any]:
    """Return the book's table of contents with the pages that lie in `book/local/`."""
    toc = yaml.safe_load((book.parent / "_toc.yml").read_text(encoding="utf-8"))
    published = [Path(chapter["file"]).name for part in toc.get("parts", []) for chapter in part.get("chapters", [])]
    # In the order of the published chapters, then whatever else there is.
    present = sorted(
        (path.stem for path in (book / LOCAL).glob("*.ipynb")),
        key=lambda stem: (published.index(stem) if stem in published else len(published), stem),
    )
    if present:
        part = {"caption": "Your machine", "chapters": [{"file": f"{LOCAL}/{stem}"} for stem in present]}
        chapters = [i for i, one in enumerate(toc["parts"]) if one.get("caption") == "Chapters"]
        toc["parts"].insert(chapters[-1] + 1 if chapters else 0, part)
    return toc


# --- pages that are notebooks ---------------------------------------------------------------------------


def read_notebook(app: Sphinx, docname: str, source: list[str]) -> None:
    """Make a page of a notebook: mark it as this machine's own, put it in order, keep its drawings for a phone."""
    if not docname.startswith(("chapters/", f"{LOCAL}/")):
        return
    notebook = json.loads(source[0])
    if docname.startswith(f"{LOCAL}/"):
        published = f"chapters/{docname.removeprefix(f'{LOCAL}/')}"
        there = (Path(app.srcdir) / f"{published}.ipynb").is_file()
        notebook = local_page(notebook, published if there else None)
    _phone_drawings(app.env)[docname] = phone_drawings(notebook)  # under the names that the page has now
    source[0] = json.dumps(laid_out(notebook))


# --- this machine's pages -------------------------------------------------------------------------------


def local_page(notebook: dict[str, Any], published: str | None) -> dict[str, Any]:
    """Return the notebook as a page of this machine's own results.

    Its labels get the prefix `local-`, in their definitions and in the references to them, since the
    published page of the same notebook defines them too.
    """
    texts = [_text(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown"]
    figures = []
    for cell in notebook["cells"]:
        for output in cell.get("outputs", ()):
            texts.append(_text(output.get("data", {}).get("text/markdown", "")))
        figure = cell["metadata"].get("mystnb", {}).get("figure", {})
        if "name" in figure:
            figures.append(figure["name"])
    labels = {a or b for text in texts for a, b in _DEFINITION.findall(text)} | set(figures)
    rename = _renamer(labels)
    title_due = True
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown":
            text = rename(_text(cell["source"]))
            if title_due and (heading := re.search(r"^# .*$", text, re.M)):
                title_due = False
                text = (
                    f"{text[: heading.start()]}{heading[0].rstrip()} (this machine)\n\n"
                    f"{_notice(published)}\n{text[heading.end() :]}"
                )
            cell["source"] = text
        for output in cell.get("outputs", ()):
            if "text/markdown" in output.get("data", {}):
                output["data"]["text/markdown"] = rename(_text(output["data"]["text/markdown"]))
        figure = cell["metadata"].get("mystnb", {}).get("figure")
        if figure:
            figure["caption"] = rename(figure.get("caption", ""))
            if "name" in figure:
                figure["name"] = f"{LOCAL}-{figure['name']}"
    return notebook


_DEFINITION = re.compile(r"^[ \t]*(?:\(([\w-]+)\)=|:(?:name|label):[ \t]*([\w-]+))[ \t]*$", re.M)


def _renamer(labels: set[str]) -> Any:
    if not labels:
        return lambda text: text
    names = "|".join(sorted(map(re.escape, labels), key=len, reverse=True))
    place = re.compile(
        # a definition, an option, a role with or without a text of its own, a link
        rf"(^[ \t]*\(|^[ \t]*:(?:name|label):[ \t]*|\{{(?:numref|ref|eq)\}}`(?:[^`<]*<)?|\]\(#?)"
        rf"({names})(?=\)=|[ \t]*$|`|>`|\))",
        re.M,
    )
    return lambda text: place.sub(rf"\g<1>{LOCAL}-\g<2>", text)


def _notice(published: str | None) -> str:
    text = (
        "These numbers were computed on this machine, with the settings shown in the parameters below. "
        "They are for trying things out."
    )
    if published:
        text += f" The report's own numbers are in {{doc}}`the published chapter </{published}>`."
    return f":::{{admonition}} This machine's own run\n:class: important\n\n{text}\n:::\n"


def _text(source: str | list[str]) -> str:
    return source if isinstance(source, str) else "".join(source)


# --- the order of a page --------------------------------------------------------------------------------


def laid_out(notebook: dict[str, Any]) -> dict[str, Any]:
    """Return the notebook with its cells tagged ``answer`` below the first, and tables of those tagged ``fold`` folded.

    A notebook computes its answer last; a reader wants it first.
    """
    cells = notebook["cells"]
    tags = [cell["metadata"].get("tags", ()) for cell in cells]
    answers, others = (
        [cell for cell, its in zip(cells[1:], tags[1:], strict=True) if ("answer" in its) == sought]
        for sought in (True, False)
    )
    notebook["cells"] = [*cells[:1], *answers, *others]
    for cell, its in zip(cells, tags, strict=True):
        for output in cell.get("outputs", ()) if "fold" in its else ():
            text = _text(output.get("data", {}).get("text/markdown", ""))
            if table := re.match(r":::\{table\} (.+?)(?:[:;.](?: .*)?)?$", text, re.M):
                output["data"]["text/markdown"] = f"::::{{dropdown}} {table[1]}\n{text}\n::::"
    return notebook


# --- drawings for a phone -------------------------------------------------------------------------------


def phone_drawings(notebook: dict[str, Any]) -> dict[str, str]:
    """Return the second drawing of each figure, which `rnclib.report.Figure` has made, by the name of the figure."""
    return {
        cell["metadata"]["mystnb"]["figure"]["name"]: cell["metadata"]["rnclib"]["phone"]
        for cell in notebook["cells"]
        if "phone" in cell["metadata"].get("rnclib", {})
    }


def forget_phone_drawings(app: Sphinx, env: BuildEnvironment, docname: str) -> None:
    _phone_drawings(env).pop(docname, None)


def offer_phone_drawings(app: Sphinx, doctree: nodes.document, docname: str) -> None:
    """Let a narrow screen take the second drawing of a figure."""
    if app.builder.format != "html":
        return
    drawings = _phone_drawings(app.env).get(docname, {})
    for figure in doctree.findall(nodes.figure):
        if not (names := [name for name in figure["ids"] if name in drawings]):
            continue
        (image,) = figure.findall(nodes.image)
        folder = Path(app.outdir) / "_images"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{names[0]}-phone.svg").write_text(drawings[names[0]], encoding="utf-8")
        path = "../" * docname.count("/") + f"_images/{names[0]}-phone.svg"
        before = f'<picture><source media="(max-width: 600px)" srcset="{path}">'
        at = image.parent.index(image)
        image.parent.insert(at + 1, nodes.raw("", "</picture>", format="html"))
        image.parent.insert(at, nodes.raw("", before, format="html"))


def _phone_drawings(env: BuildEnvironment) -> dict[str, dict[str, str]]:
    """By page, by name of the figure; kept with the pages that a later build does not read again."""
    if not hasattr(env, "phone_drawings"):
        env.phone_drawings = {}
    return env.phone_drawings


# --- the repository -------------------------------------------------------------------------------------


def link_to_repository(app: Sphinx, config: Any) -> None:
    """Add buttons for the source, Binder and Colab where `CITATION.cff` has the repository's address."""
    address = citation(Path(app.srcdir)).get("repository-code")
    if address is None:
        return
    if not re.fullmatch(r"https://(github|gitlab)\.com/[\w.-]+/[\w.-]+", str(address)):
        raise ExtensionError(
            f"CITATION.cff, repository-code: got {address!r}; allowed: https://github.com/OWNER/NAME, the same on "
            "gitlab.com, or none"
        )
    app.tags.add("repository")
    launch = {"binderhub_url": "https://mybinder.org", "notebook_interface": "jupyterlab"}
    if "//github.com/" in address:
        launch["colab_url"] = "https://colab.research.google.com"
    config.html_theme_options = {
        **config.html_theme_options,
        "repository_url": address,
        "repository_branch": "main",
        "path_to_docs": "book",
        "use_repository_button": True,
        "use_source_button": True,
        "launch_buttons": launch,
    }


def citation(book: Path) -> dict[str, Any]:
    """Return what the repository's `CITATION.cff` says, nothing where there is none."""
    file = book.parent / "CITATION.cff"
    return yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else {}


def mend_buttons(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Lead from a chapter to its notebook without outputs, and from this machine's own pages nowhere."""
    kept = []
    for one in context.get("header_buttons", ()):
        own_page = pagename.startswith(f"{LOCAL}/")
        if own_page and one.get("label") in ("launch-buttons", "source-buttons"):
            continue
        kept.append(one)
        for button in one.get("buttons", ()):
            url = button.get("url", "")
            if one.get("label") == "launch-buttons":
                button["url"] = url.replace("book/chapters/", "notebooks/")
                button["tooltip"] += " (untried)"
            elif button.get("label") == "source-file-button":
                button["url"] = re.sub(r"book/chapters/(\w+)\.ipynb\?plain=1$", r"notebooks/\1.py", url)
    context["header_buttons"] = kept


def fill_in_citation(app: Sphinx, docname: str, source: list[str]) -> None:
    """Put what `CITATION.cff` says into the page on citing; a line that asks for what it does not say is left out."""
    if docname != "cite":
        return
    said = citation(Path(app.srcdir))
    app.env.note_dependency(str(Path(app.srcdir).parent / "CITATION.cff"))
    values = {
        "YEAR": str(said.get("date-released", ""))[:4],
        "REPOSITORY": said.get("repository-code", ""),
        "VERSION": said.get("version", ""),
    }
    lines = source[0].split("\n")
    for name, value in values.items():
        lines = [line.replace(name, str(value)) for line in lines if value or not re.search(rf"\b{name}\b", line)]
    source[0] = "\n".join(lines)


# --- one page to print ----------------------------------------------------------------------------------


def leave_out_search(app: Sphinx, exception: Exception | None) -> None:
    """Take the search out of the book on a single page, which has no index to search: a browser finds words there."""
    if exception or app.builder.name != "singlehtml":
        return
    page = Path(app.outdir) / "index.html"
    text = page.read_text(encoding="utf-8")
    text = re.sub(r'<link rel="search"[^>]*>', "", text)
    text = re.sub(
        r'<script src="searchindex\.js"></script>',
        "<style>.search-button__button, #pst-search-dialog { display: none !important; }</style>",
        text,
    )
    page.write_text(text, encoding="utf-8")


# --- interactive figures --------------------------------------------------------------------------------

# what each kind of `rnclib.interactive.Interactive` needs; Jupyter Book puts what lies in _static on every page
SCRIPTS = {"molecules": ("molecules.js",), "playground": ("rnc_loss.js", "playground.js")}


def find_scripts(app: Sphinx, config: Any) -> None:
    """Let the site have the files of `book/_interactive/`, and pages load those of `book/_static/` by their names."""
    config["html_static_path"].append(str(Path(app.srcdir) / "_interactive"))
    for files in (config.html_css_files, config.html_js_files):
        files.sort(key=str)  # Jupyter Book lists them as the file system does, which differs from one to the next


def add_scripts(app: Sphinx, pagename: str, templatename: str, context: dict[str, Any], doctree: Any) -> None:
    """Give a page the scripts of its interactive figures, in the order in which they need each other."""
    kinds = set(re.findall(r'<div class="interactive" data-figure="(\w+)">', context.get("body", "")))
    if not kinds:
        return
    app.add_css_file("interactive.css")
    for name in ("interactive.js", *(name for kind in sorted(kinds) for name in SCRIPTS[kind])):
        app.add_js_file(name, loading_method="defer")


# --- offline --------------------------------------------------------------------------------------------


def copy_mathjax(app: Sphinx) -> None:
    """Put MathJax into the site, so that formulas need no other host."""
    if app.builder.format != "html":
        return
    try:
        home = Path(str(distribution("sphinx-mathjax-offline").locate_file("sphinx-mathjax-offline")))
    except PackageNotFoundError:
        home = Path("missing")
    home = home / "static" / "mathjax"
    if not home.is_dir():
        raise ExtensionError("MathJax is missing: install the book's requirements (pip install -e '.[book]')")
    target = Path(app.outdir) / "_static" / "mathjax"
    for part in MATHJAX:
        if (home / part).is_dir():
            shutil.copytree(home / part, target / part, dirs_exist_ok=True)
        else:
            (target / part).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(home / part, target / part)


# --- for screen readers ---------------------------------------------------------------------------------

# What myst-nb and docutils write, and what it is here: "Show the code" is called as it reads, and the entries of the
# bibliography, whose role has been given up since, are items of a list.
ROLES = {
    '<summary aria-label="Toggle hidden content">': "<summary>",
    'role="doc-biblioentry"': 'role="listitem"',
}


def mend_roles(app: Sphinx, pagename: str, template: str, context: dict[str, Any], doctree: Any) -> None:
    """Give folded code and the bibliography the names and roles that assistive technology expects."""
    for written, meant in ROLES.items():
        if "body" in context:
            context["body"] = context["body"].replace(written, meant)
