"""Figures to explore: what a page holds of them, and molecules as numbers."""

from __future__ import annotations

import json
from html.parser import HTMLParser

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rnclib.interactive import UNIT, Interactive, depiction, molecule_map, playground
from rnclib.publishing import clean


def figure(data, **changes):
    given = {"name": "a-name", "alt": "A drawing", "kind": "playground"} | changes
    return Interactive(plt.figure(figsize=(1, 1)), "A caption.", data=data, **given)


class Page(HTMLParser):
    """Tags in their order, attributes of the last of each, and the text of scripts."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.given, self.script = [], {}, ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.given[tag] = dict(attributes)

    def handle_data(self, data):
        self.script += data if self.tags[-1:] == ["script"] else ""


# --- on the page ----------------------------------------------------------------------------------------


def test_a_page_has_the_drawing_and_the_data():
    bundle, note = figure({"a": [1, 2.5]})._repr_mimebundle_()
    page = Page(bundle["text/html"])
    assert set(bundle) == {"text/plain", "text/html"} and page.tags == ["div", "img", "script"]
    assert page.given["div"] == {"class": "interactive", "data-figure": "playground"}
    assert page.given["img"]["alt"] == "A drawing" and page.given["script"] == {"type": "application/json"}
    assert json.loads(page.script) == {"a": [1, 2.5]}
    assert note == {"rnclib_figure": {"caption": "A caption.", "name": "a-name", "alt": "A drawing", "phone": ""}}


@given(st.text() | st.sampled_from(["</script>", "<!--<script>", "&lt;", "]]>", "\u2028", "<b onclick='x'>"]))
def test_no_text_of_the_data_leaves_its_place(text):
    page = Page(figure({text: text})._repr_mimebundle_()[0]["text/html"])
    assert page.tags == ["div", "img", "script"] and json.loads(page.script) == {text: text}


def test_the_second_drawing_for_a_phone_stands_beside_the_first():
    bundle, note = figure({"a": 1}, phone=plt.figure(figsize=(1, 2)))._repr_mimebundle_()
    assert Page(bundle["text/html"]).tags == ["div", "picture", "source", "img", "script"]
    assert note["rnclib_figure"]["phone"] == ""  # which the book would set beside an image of its own


def test_without_data_it_is_a_figure():
    bundle, note = figure(None)._repr_mimebundle_()
    assert set(bundle) == {"text/plain", "image/svg+xml"} and note["rnclib_figure"]["name"] == "a-name"


def test_the_book_numbers_it_as_a_figure():
    v4 = pytest.importorskip("nbformat").v4
    data, metadata = figure({"a": 1})._repr_mimebundle_()
    output = v4.new_output("execute_result", data=data, metadata=metadata, execution_count=1)
    notebook = clean(v4.new_notebook(cells=[v4.new_code_cell("a", id="c", outputs=[output])]))
    assert notebook.cells[0].metadata["mystnb"]["figure"] == {"caption": "A caption.", "name": "a-name"}


def test_the_same_figure_gives_the_same_page():
    assert figure({"a": 1})._repr_mimebundle_() == figure({"a": 1})._repr_mimebundle_()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: figure({}, kind="map"), "kind: got 'map'; allowed: 'molecules', 'playground'"),
        (lambda: playground(np.zeros((2, 2)), [1, 2], 1), "points: got shape (2, 2); allowed: (n, 2), n from 3 to 8"),
        (lambda: playground(np.zeros((3, 2)), [1, 2], 1), "labels: got [1.0, 2.0]; allowed: 3 numbers from 0 to 100"),
        (lambda: playground(np.zeros((3, 2)), [1, 2, 101], 1), "labels: got [1.0, 2.0, 101.0]; allowed: 3 numbers"),
        (lambda: molecule_map({}, None, None, "u"), "views: got none; allowed: at least one"),
    ],
)
def test_other_arguments_are_refused(make, message):
    with pytest.raises(ValueError) as caught:
        make()
    assert str(caught.value).startswith(message)


# --- molecules ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("smiles", "texts"),
    [
        ("c1ccccc1", []), ("C", ["CH₄"]), ("CCl", ["Cl"]), ("OCC", ["HO", "OH"]), ("C[NH3+]", ["NH₃⁺", "H₃N⁺"]),
        ("C#N", ["N"]), ("CC(=O)[O-]", ["O", "O⁻"]),
    ],
)  # fmt: skip
def test_only_other_atoms_than_carbon_have_a_text(smiles, texts):
    shown = depiction(smiles)[2][1::3]
    assert shown == texts or (len(shown) == 1 and shown[0] in texts)


@pytest.mark.parametrize("smiles", ["CO", "c1ccccc1", "CC(C)C#N", "C1CCC1", "OC1OC(CO)C(O)C1O"])
def test_bonds_are_of_one_length(smiles):
    places, bonds, _ = depiction(smiles)
    at = np.array(places).reshape(-1, 2)
    ends = np.array(bonds).reshape(-1, 3)[:, :2]
    lengths = np.linalg.norm(at[ends[:, 0]] - at[ends[:, 1]], axis=1)
    assert np.abs(lengths - 1.5 * UNIT).max() < 2


def test_the_second_line_of_a_double_bond_lies_within_its_ring():
    places, bonds, _ = depiction("c1ccccc1")
    at = np.array(places).reshape(-1, 2)
    kinds = []
    for a, b, kind in np.array(bonds).reshape(-1, 3):
        kinds.append(int(kind))
        if kind == 1:
            continue
        along, inside = at[b] - at[a], at.mean(axis=0) - at[a]
        to_the_right = along[0] * inside[1] - along[1] * inside[0] > 0  # y grows downwards
        assert kind == (5 if to_the_right else 4)
    assert sorted(kinds)[:3] == [1, 1, 1] and len(kinds) == 6
    assert [kind for kind in depiction("CC(=O)O")[1][2::3] if kind != 1] == [2]  # at its end, in the middle
    assert depiction("CC#N")[1][2::3] == [1, 3]


TABLE = pd.DataFrame({"name": ["a", "b", "c"], "smiles": ["C", "CC", "CO"], "target": [1.0, 2.0, 3.0]})
VIEW = pd.DataFrame(
    {"index": [2, 0, 1], "part": ["test", "train", "val"], "target": [3.0, 1.0, 2.0], "pc1": [2, 0, 1.0], "pc2": 0.0}
)
PREDICTIONS = pd.DataFrame({"method": ["m", "n"], "index": [2, 2], "prediction": [2.9, 1.0]})


def test_a_map_has_an_entry_for_each_molecule_in_the_order_of_the_table():
    found = molecule_map({"m": VIEW}, PREDICTIONS, TABLE, "u")
    assert found["names"] == ["a", "b", "c"] and found["set"] == ["train", "val", "test"]
    assert found["measured"] == [1, 2, 3] and len(found["drawings"]) == 3
    (network,) = found["networks"]
    assert network == {"name": "m", "x": [0, 1, 2], "y": [0, 0, 0], "predicted": {"2": 2.9}}


def test_a_map_is_of_one_split_and_of_these_molecules():
    other = VIEW.assign(part=["train", "test", "val"])
    with pytest.raises(ValueError, match=r"^views\['n'\]: got another split than the first; allowed: "):
        molecule_map({"m": VIEW, "n": other}, PREDICTIONS, TABLE, "u")
    with pytest.raises(ValueError, match=r"^table: got other targets than the views; allowed: "):
        molecule_map({"m": VIEW}, PREDICTIONS, TABLE.assign(target=0.0), "u")
    with pytest.raises(ValueError, match=r"^table: got 2 rows; allowed: one for each index to 2"):
        molecule_map({"m": VIEW}, PREDICTIONS, TABLE[:2], "u")


def test_every_molecule_of_esol_can_be_drawn(esol):
    for smiles in esol.inputs.smiles[::9]:
        places, bonds, texts = depiction(smiles)
        assert len(places) % 2 == len(bonds) % 3 == len(texts) % 3 == 0
        assert {*bonds[0::3], *bonds[1::3], *texts[::3]} <= set(range(len(places) // 2))
