"""The book as the tests build it: with one more chapter, which has everything that chapters use."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import unittest.mock
from html.parser import HTMLParser
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BOOK = ROOT / "book"
DEMO = "demo-of-the-tests"


def pages_in(toc):
    """The names of a book's pages, in the order of its contents."""
    return [toc["root"], *(one["file"] for part in toc["parts"] for one in part["chapters"])]


def chapter(name="demo"):
    """A small chapter with everything that chapters use: table, figure, formula, notice, references."""
    import matplotlib

    matplotlib.use("Agg")
    import nbformat
    import pandas as pd
    from matplotlib.figure import Figure as Drawing

    from rnclib.publishing import clean
    from rnclib.report import Figure, Notice, Table, glue

    frame = pd.DataFrame(
        {"method": ["end to end", "RnC $|x|$ {cite:p}`zha2023rnc`"], "error": [0.5, -0.25], "runs": [3, 20]}
    )
    drawing = Drawing(figsize=(5, 3))
    axes = drawing.add_subplot()
    axes.plot([0, 1, 2], [0, 1, 4], "o-")
    axes.set_xlabel("x")

    def shown(thing):
        data, metadata = bundle if isinstance(bundle := thing._repr_mimebundle_(), tuple) else (bundle, {})
        return nbformat.v4.new_output("execute_result", data=data, metadata=metadata, execution_count=1)

    def glued(**values):
        with unittest.mock.patch("IPython.display.display") as display:
            glue(**values)
        return [
            nbformat.v4.new_output("display_data", data=call.args[0], metadata=call.kwargs["metadata"])
            for call in display.call_args_list
        ]

    v4 = nbformat.v4
    notebook = v4.new_notebook(
        cells=[
            v4.new_markdown_cell(
                f"({name}-start)=\n# A demonstration\n\nSee {{numref}}`{name}-table`, "
                f"{{numref}}`drawing {{number}} <{name}-dots>` and {{eq}}`{name}-sum`, "
                f"from [the start](#{name}-start); `{name}-table` as code.\n\n"
                f"```{{math}}\n:label: {name}-sum\n\\sum_i \\boldsymbol x_i = 1\n```"
            ),
            v4.new_code_cell(
                "table",
                outputs=[
                    shown(
                        Table(
                            frame,
                            "Errors of $L$ in *demo* units.",
                            name=f"{name}-table",
                            columns={"method": "Method", "error": "Error", "runs": "Runs"},
                        )
                    )
                ],
            ),
            v4.new_code_cell(
                "figure",
                outputs=[
                    shown(
                        Figure(
                            drawing,
                            f"A *curve*, as in {{numref}}`{name}-table`.",
                            name=f"{name}-dots",
                            alt="A rising curve",
                        )
                    )
                ],
            ),
            v4.new_code_cell("glue", outputs=glued(error=0.98765, best="RnC")),
            v4.new_code_cell("notice", outputs=[shown(Notice("All `demo` data.", kind="warning", title="Demo"))]),
        ]
    )
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
    return json.loads(nbformat.writes(clean(notebook)))


def lay_out(root):
    """Copy the book to a folder, with one more chapter, published and on this machine."""
    import yaml

    shutil.copy(ROOT / "_config.yml", root)
    skip = shutil.ignore_patterns("local", "results", "__pycache__")
    shutil.copytree(BOOK, root / "book", ignore=skip)
    (root / "rnclib").symlink_to(ROOT / "rnclib")
    (root / "book" / "results").symlink_to(BOOK / "results")
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text())
    (chapters,) = [part for part in toc["parts"] if part["caption"] == "Chapters"]
    chapters["chapters"].append({"file": f"chapters/{DEMO}"})
    (root / "_toc.yml").write_text(yaml.safe_dump(toc, sort_keys=False))
    for folder in ("chapters", "local"):
        (root / "book" / folder).mkdir(exist_ok=True)
        (root / "book" / folder / f"{DEMO}.ipynb").write_text(json.dumps(chapter()))
    with (root / "book" / "index.md").open("a") as file:
        file.write(f"\nFrom there: {{glue:text}}`chapters/{DEMO}.ipynb::error:.2f`.\n")


def extension(name):
    """A Sphinx extension of the book."""
    spec = importlib.util.spec_from_file_location(name, BOOK / "_ext" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def build(root, *arguments):
    """Build the book in that folder, by default as the README says, and return the site's."""
    run = subprocess.run(
        [
            Path(sys.executable).with_name("jupyter-book"),
            "build",
            *(arguments or ["book/"]),
            "-W",
            "-n",
            "--keep-going",
        ],
        cwd=root,
        env={**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert run.returncode == 0, run.stdout[-3000:] + run.stderr[-6000:]
    return root / "_build" / ("singlehtml" if "singlehtml" in arguments else "html")


# --- the site, as files ---------------------------------------------------------------------------------


class Loads(HTMLParser):
    """Collects what a browser fetches for a page, and what the page links to."""

    def __init__(self):
        super().__init__()
        self.fetched, self.links, self.ids = [], [], set()

    def handle_starttag(self, tag, attributes):
        given = dict(attributes)
        if given.get("id"):
            self.ids.add(given["id"])
        if tag == "a" and given.get("href"):
            self.links.append(given["href"])
        elif tag == "link" and given.get("rel") not in ("canonical", "next", "prev", "index", "search"):
            self.fetched.append(given.get("href") or "")
        elif tag != "a" and given.get("src"):
            self.fetched.append(given["src"])


def html_pages(site):
    return [path for path in sorted(site.rglob("*.html")) if "_static" not in path.parts]


def read(path):
    parser = Loads()
    parser.feed(path.read_text(encoding="utf-8"))
    return parser
