"""Input that strangers hand over: SMILES, pictures, parameters of notebooks, and text that ends on a page.

The large numbers of cases are in the tests marked as slow; the others take a sample of the same. Tables are in
`test_csv_files`, files of our own in `test_hostile_files`.
"""

from __future__ import annotations

import ast
import functools
import io
import os
import re
import subprocess
import time
import warnings
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from rnclib import RnCRegressor
from rnclib.data import images, molecules
from rnclib.data.molecules import canonical_smiles, descriptors, graphs_from_smiles, n_heavy_atoms, readable
from rnclib.parameters import Folder, ParameterError, check_parameters
from rnclib.publishing import publish
from rnclib.report import Download, Findings, Notice, Table, literal

SECONDS = 10  # for one case, on a machine that does other things too


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RNC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


# --- SMILES ---------------------------------------------------------------------------------------------

SMILES = [
    "CCO", "c1ccccc1O", "C[C@H](N)C(=O)O", "F/C=C/F", "[Na+].[Cl-]", "O=C1CCC(=O)N1c1ccc2[nH]ccc2c1", "C1CC2CCC1C2",
    "CC(C)(C)OC(=O)N[13C@@H](Cc1ccccc1)C(O)=O", "[Fe+2]", "N#Cc1sc(=S)[se]c1Br", "*CC*",
]  # fmt: skip
SIGNS = [
    *"CNOPSFIBcnosp[]()=#$:/\\@+-.%*0123456789 |>~\0\n", "Cl", "Br", "[nH]", "%99", "[C+9]", "[U]", "[#0]", "(" * 90,
    "[H]", "C" * 60, "\ud800", "é", "{a}", "|$x$|", "@TH1", "[1000000000000H]", "[C:999999999999]",
]  # fmt: skip


def scrambled(rng: np.random.Generator) -> str:
    text = SMILES[rng.integers(len(SMILES))] if rng.random() < 0.8 else ""
    for _ in range(rng.integers(0, 4)):
        at, to = sorted(rng.integers(0, len(text) + 1, 2))
        kind = rng.integers(0, 4)
        put = SIGNS[rng.integers(len(SIGNS))]
        text = [text[:at] + put + text[at:], text[:at] + text[to:], text[:to] + text[at:], text[:at] + put + text[to:]][
            kind
        ]
    return text


def check_smiles(model: RnCRegressor, text: str, *, described: bool) -> bool:
    """A text is a molecule of bounded size, as graph and as numbers, or refused with itself and its row."""
    begun = time.monotonic()
    (fine,) = readable([text])
    if fine:
        # none but hydrogen, and those that stand for any
        no_atoms = not re.search("[A-GI-Za-z]", canonical_smiles([text])[0])
        assert 0 < n_heavy_atoms([text])[0] <= 500 or no_atoms
        try:
            assert len(graphs_from_smiles([text])) == 1
        except ValueError as error:
            assert str(error).startswith(f"smiles: got {text[:100]!r}"), text
        if described:
            assert descriptors([text]).shape == descriptors(["CCO"]).shape
    else:
        for asked in (canonical_smiles, graphs_from_smiles, descriptors):
            with pytest.raises(ValueError) as caught:
                asked(["CCO", text])
            assert str(caught.value).startswith(f"smiles: got 1 that cannot be read ({text[:100]!r}); allowed: "), text
        with pytest.raises(ValueError) as caught:
            model.fit(["CCO", text, "C", "CC", "CCC"], np.arange(5.0))
        assert str(caught.value).startswith(f"X: got {text[:100]!r} in row 1; allowed: SMILES"), text
        assert len(str(caught.value)) < 1500
    assert time.monotonic() - begun < SECONDS, text
    return bool(fine)


def fuzz_smiles(n: int, seed: int, every: int) -> Counter:
    rng, model = np.random.default_rng(seed), RnCRegressor(inputs="smiles")
    return Counter(check_smiles(model, scrambled(rng), described=i % every == 0) for i in range(n))


def test_any_text_is_a_molecule_or_refused_with_its_row():
    counts = fuzz_smiles(100, 0, every=15)
    assert min(counts[True], counts[False]) > 15


@pytest.mark.slow
def test_each_of_twenty_thousand_texts_is_a_molecule_or_refused_with_its_row():
    counts = fuzz_smiles(20_000, 1, every=100)
    assert min(counts[True], counts[False]) > 3000


def bonded(n: int) -> str:
    """Atoms each of which is bonded to all others: rings without end."""
    free, opened, atoms = list(range(10, 100)), {}, []
    for i in range(n):
        closed = [opened.pop((j, i)) for j in range(i)]
        free += closed
        for j in range(i + 1, n):
            opened[i, j] = free.pop()
        atoms.append("*" + "".join(f"%{one}" for one in [*closed, *(opened[i, j] for j in range(i + 1, n))]))
    return ".".join(atoms)


@pytest.mark.parametrize(
    "text", ["C" * 501, "C" * 10**7, ".".join("C" * 600), bonded(14), bonded(14) + ".C" * 200, "C(" * 10**5,
             "C\ud800", "", "*" + "(*)" * 11],
    ids=str.__len__,
)  # fmt: skip
def test_what_would_take_for_ever_is_refused_at_once(text):
    begun = time.monotonic()
    with pytest.raises(ValueError, match="that cannot be read"):
        descriptors([text])
    assert time.monotonic() - begun < SECONDS and not readable([text])[0]


def test_the_largest_molecules_are_described_without_a_warning(monkeypatch):
    monkeypatch.setattr(molecules, "_MOST_ATOMS", 500)
    begun = time.monotonic()
    assert np.isfinite(descriptors(["C" * 120, bonded(7)])).any(axis=1).all()
    assert time.monotonic() - begun < SECONDS and readable(["C" * 500])[0]


def test_a_damaged_store_of_descriptors_counts_for_nothing(cache, monkeypatch):
    monkeypatch.setattr(molecules, "_DESCRIBED", {})
    intact = descriptors(["CCO", "CCN"])
    (kept,) = (cache / "descriptors").glob("*.sqlite")
    whole, rng = kept.read_bytes(), np.random.default_rng(0)
    for _ in range(10):
        at = int(rng.integers(100, len(whole) - 1000))
        kept.write_bytes(whole[:at] + rng.bytes(900) + whole[at + 900 :])
        monkeypatch.setattr(molecules, "_DESCRIBED", {})
        assert descriptors(["CCO", "CCN"]).shape == intact.shape


# --- pictures -------------------------------------------------------------------------------------------


def pictures() -> dict[str, bytes]:
    """One of each kind and mode, a few of them turned by their EXIF data."""
    rng, made = np.random.default_rng(0), {}
    colours = Image.fromarray(rng.integers(0, 256, (24, 20, 3), dtype=np.uint8))
    deep = Image.fromarray(rng.integers(0, 65536, (24, 20)).astype(np.uint16))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    kinds = {"PNG": ("RGB", "RGBA", "P", "LA", "1"), "JPEG": ("RGB", "CMYK", "L"), "GIF": ("P",), "BMP": ("RGB",),
             "PPM": ("RGB",), "TIFF": ("RGB", "1", "CMYK"), "WEBP": ("RGBA",)}  # fmt: skip
    for kind, modes in kinds.items():
        for mode in modes:
            file = io.BytesIO()
            colours.convert(mode).save(file, kind, **({"exif": exif} if kind in ("PNG", "JPEG", "TIFF") else {}))
            made[f"{kind} {mode}"] = file.getvalue()
    for kind in ("PNG", "TIFF", "PPM"):
        file = io.BytesIO()
        deep.save(file, kind)
        made[f"{kind} 16"] = file.getvalue()
    return made


def damaged(rng: np.random.Generator, content: bytes) -> bytes:
    """Bytes changed, mostly near the beginning, where sizes, modes and tables are; cut off, left out or put in."""
    for _ in range(rng.integers(1, 3)):
        ends = rng.integers(0, min(len(content), 90) + 1 if rng.random() < 0.4 else len(content) + 1, 2)
        at, to = sorted(int(end) for end in ends)
        kind = rng.integers(0, 9)
        if kind < 6:
            put = [rng.bytes(int(rng.integers(1, 5))), b"\xff\xff\xff\x7f", b"\0\0\0\0", b"\x80"][rng.integers(4)]
            content = content[:at] + put + content[at + len(put) :]
        elif kind == 6:
            content = content[:at] + content[to:]
        elif kind == 7:
            content = content[:at] + rng.bytes(3) + content[at:]
        else:
            content = content[:to]
    return content


def fuzz_pictures(folder: Path, n: int, seed: int) -> Counter:
    """A picture is read, or refused by name and row; that beside it is read as ever, and nothing is left behind."""
    rng, counts, valid = np.random.default_rng(seed), Counter[str](), list(pictures().values())
    good, bad, kept = folder / "good.png", folder / "bad.img", folder / "cache" / "images"
    good.write_bytes(valid[0])
    wanted = images.decode([good], 8, progress=False)[0].pixels[0].numpy().copy()
    for i in range(n):
        content = damaged(rng, valid[i % len(valid)]) if i % 10 else rng.bytes(int(rng.integers(0, 200)))
        bad.write_bytes(content)
        for path in kept.iterdir():
            path.unlink()
        paths = [good, bad] if i % 5 == 0 else [bad]
        begun = time.monotonic()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = images.decode(paths, 8, progress=False, upright=i % 3 == 0)[0].pixels
        except ValueError as error:
            told = f"1 of {len(paths)} images cannot be read: bad.img in row {len(paths) - 1} ("
            assert str(error).startswith(told) and "\n" not in str(error) and len(str(error)) < 250, content
            assert not list(kept.iterdir()), content
            counts["refused"] += 1
        else:
            assert found.shape == (len(paths), 9, 9, 3), content
            assert len(paths) == 1 or i % 3 == 0 or np.array_equal(found[0], wanted), content
            counts["read"] += 1
        assert time.monotonic() - begun < SECONDS, content
    return counts


def test_any_picture_is_read_or_refused_by_name_and_row(tmp_path):
    counts = fuzz_pictures(tmp_path, 90, 0)
    assert min(counts.values()) > 10


@pytest.mark.slow
def test_each_of_ten_thousand_pictures_is_read_or_refused_by_name_and_row(tmp_path):
    counts = fuzz_pictures(tmp_path, 10_000, 1)
    assert min(counts.values()) > 1000


@pytest.mark.parametrize("shape", [(1, 10**6), (10**6, 1), (2, 4 * 10**5)])
def test_a_thin_picture_is_not_blown_up(shape, tmp_path):
    path = tmp_path / "thin.png"
    Image.fromarray(np.zeros(shape, np.uint8)).save(path)
    assert path.stat().st_size < 10**5
    begun = time.monotonic()
    with pytest.raises(
        ValueError, match=r"thin\.png in row 0 \(size: got \d+ × \d+ = \d+ pixels when resized; allowed"
    ):
        images.decode([path], 64, progress=False)
    assert time.monotonic() - begun < SECONDS


def test_no_program_is_started_for_a_picture(tmp_path, monkeypatch):
    path = tmp_path / "my.png"
    Image.new("RGB", (20, 20)).save(path, "EPS")
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program"))
    monkeypatch.setattr("shutil.which", lambda *_, **__: pytest.fail("a program"))
    with pytest.raises(ValueError, match=r"my\.png in row 0 \(cannot identify"):
        images.decode([path], 8, progress=False)


def test_what_is_no_file_of_a_picture_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")  # whoever opens it waits for ever
    for path in (tmp_path / "pipe.png", tmp_path, Path("/dev/zero")):
        with pytest.raises(ValueError, match=r"^paths: got .*, which is no ordinary file; allowed: image files"):
            images.decode([path], 8, progress=False)
    with pytest.raises(FileNotFoundError, match=r"none\.png"):
        images.decode([tmp_path / "none.png"], 8, progress=False)
    with pytest.raises(ValueError, match=r"^size: got 100000; allowed: an integer of at least 8, and at most 4096"):
        images.decode([], 100_000)


# --- parameters of notebooks ----------------------------------------------------------------------------

ROOT = Path(__file__).resolve().parents[1]


def guards() -> dict[str, tuple[dict[str, Any], dict[str, Any]]]:
    """The parameters of each notebook with their defaults, and what its guard allows."""
    found = {}
    for path in sorted((ROOT / "notebooks").glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        call = next(
            one for one in ast.walk(tree) if isinstance(one, ast.Call) and ast.unparse(one.func) == "check_parameters"
        )
        types = {"str": str, "bool": bool, "int": int, "float": float, "Folder": Folder}
        rules = {one.arg: eval(ast.unparse(one.value), {"__builtins__": {}}, types) for one in call.keywords}  # ours
        given = {one.target.id: ast.literal_eval(one.value) for one in tree.body
                 if isinstance(one, ast.AnnAssign) and isinstance(one.target, ast.Name)}  # fmt: skip
        found[path.stem] = ({name: given[name] for name in rules}, rules)
    return found


GUARDS = guards()


class Trap:
    """It tells whoever calls, compares or shows it otherwise than as a value of some type."""

    def __bool__(self):
        raise AssertionError("it was run")

    __call__ = __eq__ = __lt__ = __le__ = __ge__ = __len__ = __iter__ = __str__ = __float__ = __bool__
    __hash__ = None

    def __repr__(self):
        return "a trap\n" * 100


VALUES: list[Any] = [
    None, True, False, 0, 1, 5, -3, 101, 10**400, -(10**5000), 0.5, -0.0, 1e308, float("nan"), float("inf"), 1j, b"x",
    "", "all", "paper", "l1", "\n", "x" * 10**5, "__import__('os').system('touch sentinel')", "../../etc", "'; x = 1 #",
    "\ud800", "\0", [], [1] * 10**4, {}, {"a": [[]]}, {1, 2}, (1, 2), np.int64(3), np.float32(0.5), np.array([1, 2]),
    pd.NA, Trap(), Trap, print, range(10**9), pd.DataFrame({"a": [1, 2]}), type,
]  # fmt: skip
CELLS = [
    "{} = 1\n", "{} = x\n", "{} = [\n", "import {}\n", "{0}: int = {0}()\n", "{} = '''", "{} = " + "[" * 3000,
    "x.{} = 1", "%{}\n", "{} = \0", "*{}, = 1, 2", "{} = __import__('os').system('touch sentinel')\n",
]  # fmt: skip


def check_guard(rng: np.random.Generator, name: str) -> bool:
    """Parameters pass, with each as its rule has it, or one error of one line says which does not."""
    given, rules = GUARDS[name]
    given = dict(given)
    for _ in range(rng.integers(0, 3)):
        one = list(given)[rng.integers(len(given))]
        given[one] = VALUES[rng.integers(len(VALUES))]
    kind = rng.integers(0, 8)
    if kind == 0:
        del given[list(given)[rng.integers(len(given))]]
    if kind in (1, 2):
        named = [*rules, "los", "In", "x" * 1000, "_", "profile "][rng.integers(len(rules) + 5)]
        given["In"] = ["", "# Parameters\n" + CELLS[rng.integers(len(CELLS))].format(named)]
    if kind == 3:
        given["In"] = VALUES[rng.integers(len(VALUES))]
    before = set(given)
    try:
        check_parameters(given, **rules)
    except ParameterError as error:
        (told,) = error._render_traceback_()
        assert "\n" not in told and len(told) < 4000, told
        assert "; allowed: " in told or "is not set" in told, told
        return False
    assert set(given) == before
    for one, rule in rules.items():
        value, allowed = given[one], rule if isinstance(rule, list) else [rule]
        if isinstance(value, str):
            assert str in allowed or Folder in allowed or value in allowed
        else:
            assert value is None or isinstance(value, int | float | np.number)
    return True


def fuzz_guards(n: int, seed: int) -> Counter:
    rng, names = np.random.default_rng(seed), list(GUARDS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Python, about the source of a cell
        return Counter(check_guard(rng, names[i % len(names)]) for i in range(n))


def test_any_parameters_pass_or_end_a_notebook_with_one_line(tmp_path, monkeypatch):
    (tmp_path / "a" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a" / "b")
    begun = time.monotonic()
    counts = fuzz_guards(600, 0)
    assert min(counts.values()) > 50 and time.monotonic() - begun < 600 * 0.1
    assert not (tmp_path / "sentinel").exists()


@pytest.mark.slow
def test_each_of_hundred_thousand_sets_of_parameters_passes_or_ends_a_notebook_with_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    counts = fuzz_guards(100_000, 1)
    assert min(counts.values()) > 5000 and not (tmp_path / "sentinel").exists()


@settings(max_examples=60)
@given(st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers() | st.text()))
def test_any_value_from_a_file_of_parameters_passes_or_is_told_in_one_line(value):
    try:
        check_parameters({"a": value}, a=["l1", None, (1, 100), (0.5, 0.7)])
    except ParameterError as error:
        assert str(error).startswith("a: got ") and "\n" not in str(error)
    else:
        assert value in ("l1", None) or (type(value) is int and 1 <= value <= 100) or 0.5 <= value <= 0.7


@pytest.mark.parametrize(
    ("change", "told"), [
        ({"rate": 10**400}, None), ({"rate": -(10**5000)}, None), ({"n": 10**5000}, "n: got an integer of 16610 bits"),
        ({"In": 5}, "unknown parameter 'In'"), ({"In": ["", "# Parameters\nx = [\n"]}, "parameters: got no Python"),
        ({"n": "9" * 10**6}, "n: got '999"), ({"n": pd.DataFrame({"a": [1, 2]})}, "n: got a 0 1 1 2"),
    ],
)  # fmt: skip
def test_odd_parameters_are_told_in_one_line(change, told):
    given = {"rate": 1.0, "n": 1} | change
    if told is None:  # a whole number, however large, is a finite one
        check_parameters(given, rate=float, n=(1, 5))
        return
    with pytest.raises(ParameterError, match=f"^{told}") as caught:
        check_parameters(given, rate=float, n=(1, 5))
    assert len(str(caught.value)) < 400 and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["import os; os.abort()", "a b", "", "class", "x=1\ny"])
def test_the_name_of_a_parameter_is_no_code(name, tmp_path):
    with pytest.raises(ValueError, match=r"^parameters: got the names \[.*\]; allowed: those of variables"):
        publish(ROOT / "notebooks" / "loss.ipynb", tmp_path / "out.ipynb", **{name: 1})
    assert not list(tmp_path.iterdir())


# --- text from data on pages ----------------------------------------------------------------------------

MARKS = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "&lt;b&gt;", "[x](javascript:alert(1))", "![](http://x)",
    "**b**", "*e*", "_e_", "`c`", "$x$", "$$x$$", "\\", "\\\\", "|", "\\|", "{eval}`1`", "{doc}`/etc/passwd`",
    ":::", "{raw} html", "\n", "\r\n\r\n", "# h", "- x", "1. x", "> q", "~~~", "---", "===", "+++", "% c", "(t)=",
    "[^1]", "{{ x }}", "<!--", "]]>", "é", "名", "\u202e", "\0", "\ue021", "'", '"', "x", " ", "http://a.b", "<http://a.b>",
    "\t", "[]: x", "{#a .b}", "```",
]  # fmt: skip
texts = st.lists(st.sampled_from(MARKS) | st.text(max_size=4), min_size=1, max_size=6).map("".join)


class Page(HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags, self.text, self.attributes = set[str](), "", set[str]()
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data):
        self.text += data

    def handle_comment(self, data):
        self.tags.add("!--")


@functools.cache
def markdown():
    """Markdown as the book reads it, but for Sphinx."""
    pytest.importorskip("mdit_py_plugins")
    from markdown_it import MarkdownIt
    from mdit_py_plugins import attrs, colon_fence, deflist, dollarmath, field_list, footnote, myst_blocks, myst_role

    parser = MarkdownIt("commonmark").enable("table")
    for plugin in (
        colon_fence.colon_fence_plugin, deflist.deflist_plugin, dollarmath.dollarmath_plugin,
        field_list.fieldlist_plugin, attrs.attrs_plugin, footnote.footnote_plugin, myst_blocks.myst_block_plugin,
        myst_role.myst_role_plugin,
    ):  # fmt: skip
        parser.use(plugin)
    return parser


def shown(text: str) -> str:
    """What a reader should see of a text."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def check_page(parser: Any, text: str) -> None:
    wanted = shown(text)
    if not wanted:
        return
    escaped = literal(text)
    page = Page(parser.render(f"Of {escaped}."))
    assert page.tags == {"p"} and page.text.strip() == f"Of {wanted}.", text
    ((item,),) = Findings(escaped).items
    assert Page(parser.render(item)).tags <= {"p", "ol", "li"}, text  # a number at the beginning begins a list
    table = Table(
        pd.DataFrame({"a": [escaped], "b": ["end"]}),
        f"Of {escaped}.",
        name="t",
        columns={"a": f"x {escaped}", "b": "b"},
    )
    rows = "\n".join(table.markdown().splitlines()[3:-1])
    page = Page(parser.render(rows))
    assert page.tags <= {"table", "thead", "tbody", "tr", "th", "td"} and page.attributes <= {"style"}, text
    cells = [cell.strip() for cell in page.text.split("\n") if cell.strip()]
    assert cells == [
        f"x {wanted}",
        "b",
        wanted.replace("-", "−", 1) if re.match(r"-[\d.]", wanted) else wanted,
        "end",
    ], text
    for made in (table.html(), Notice(f"Of {escaped}.")._repr_mimebundle_()["text/html"],
                 Findings(f"Of {escaped}.")._repr_mimebundle_()["text/html"]):  # fmt: skip
        page = Page(made)
        assert page.tags <= {"table", "caption", "thead", "tbody", "tr", "th", "td", "p", "strong", "ul", "li"}, text
        if not re.search("[\ue000-\uf8ff]", wanted):
            assert f"Of {wanted}." in page.text, text


MARKED = {"table", "caption", "thead", "tbody", "tr", "th", "td", "p", "strong", "em", "code", "ul", "li", "a"}


def check_raw(text: str) -> None:
    """Even text that nobody has made literal is no HTML where pages are HTML."""
    frame, caption = pd.DataFrame({"a": [text]}), f"C {text}"
    made = [Table(frame, caption, name="t").html()]
    for one in (Notice(caption, title=caption), Findings(caption), Download(frame, f"{text}.csv", caption)):
        made.append(one._repr_mimebundle_()["text/html"])
    for one in made:
        page = Page(one)
        assert page.tags <= MARKED and page.attributes <= {"style", "href", "download"}, text


@settings(max_examples=50)
@given(texts)
def test_text_from_data_is_shown_as_it_is(text):
    check_page(markdown(), text)
    check_raw(text)


@pytest.mark.slow
def test_each_of_twenty_thousand_texts_is_shown_as_it_is():
    rng, parser = np.random.default_rng(1), markdown()
    for _ in range(20_000):
        text = "".join(MARKS[i] for i in rng.integers(0, len(MARKS), rng.integers(1, 8)))
        check_page(parser, text)
        check_raw(text)
