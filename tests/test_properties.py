"""Measured properties of molecules: each loader on a small file of its layout."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from worlds import check_public_file

from rnclib.data import PARTS, Dataset, catalogue, properties
from rnclib.data.catalogue import SOURCES
from rnclib.data.molecules import Molecules, graphs_from_smiles, inchi_skeletons

NAMES = [name for name, source in SOURCES.items() if str(source.loader).startswith("rnclib.data.properties:")]

# three pairs differ in stereochemistry alone; one has a triple bond
MIRRORED = [("C[C@H](O)CC", "C[C@@H](O)CC"), ("C/C=C/C", "C/C=C\\C"), ("N[C@@H](C)C(=O)O", "CC(N)C(O)=O")]
MOLECULES = [one for pair in MIRRORED for one in pair] + ["CC#N", *("C" * n + "O" for n in range(1, 24))]
VALUES = np.arange(len(MOLECULES)) / 8 - 1


@pytest.fixture(autouse=True)
def nothing_loaded():
    catalogue._loaded.cache_clear()
    yield
    catalogue._loaded.cache_clear()


@pytest.fixture
def put(monkeypatch, tmp_path):
    """Give a text as the file that a loader reads; what it asks for is listed."""

    def given(text: str) -> list:
        path, asked = tmp_path / "file", []
        path.write_text(text, encoding="utf-8")
        monkeypatch.setattr(properties, "public_file", lambda *what: asked.append(what) or path)
        return asked

    return given


@pytest.fixture
def esol_of(monkeypatch):
    """Let ESOL be these molecules."""

    def given(smiles: list[str]) -> None:
        graphs = graphs_from_smiles(smiles)
        monkeypatch.setattr(properties, "load_esol", lambda: Dataset(graphs, np.zeros(len(graphs)), "0" * 64))

    return given


def freesolv(smiles: list[str], values) -> str:
    """The file's text, whose lines end in a note; three lines before say what is in it."""
    head = "#Hydration free energy database.\n#Semicolon-delimited text file:\n# compound id; SMILES; name; values\n"
    lines = [
        f"mobley_{i}; {one}; name, of {i}; {value}; 0.60; -3.30; 0.03; 10.1021/a; 10.1021/b; A note, as it is.  \n"
        for i, (one, value) in enumerate(zip(smiles, values, strict=True))
    ]
    return head + "".join(lines)


def lipophilicity(smiles: list[str], values) -> str:
    return pd.DataFrame({"smiles": smiles, "exp": values}).to_csv(index=False)


def efflux(smiles: list[str], values) -> str:
    return pd.DataFrame(
        {
            "Internal ID": [f"Mol{i}" for i in range(len(smiles))], "SMILES": smiles,
            "LOG HLM_CLint (mL/min/kg)": 0.5, "LOG MDR1-MDCK ER (B-A/A-B)": values,
            "LOG SOLUBILITY PH 6.8 (ug/mL)": 1.5,
        }
    ).to_csv(index=False)  # fmt: skip


def logbb(smiles: list[str], values) -> str:
    """With tabs; names hold commas and semicolons."""
    names = [f"2,3-name; {i}" for i in range(len(smiles))]
    table = {"NO.": range(len(smiles)), "compound_name": names, "SMILES": smiles, "CID": "1.0|", "logBB": values}
    return pd.DataFrame(table | {"group": "A", "comments": ""}).to_csv(index=False, sep="\t")


def aqsoldb(smiles: list[str], values, keys: list[str] | None = None) -> str:
    keys = [f"{skeleton}-UHFFFAOYSA-N" for skeleton in inchi_skeletons(smiles)] if keys is None else keys
    table = {"ID": "A-3", "Name": "N,N-name", "InChIKey": keys, "SMILES": smiles, "Solubility": values, "SD": 0.0}
    return pd.DataFrame(table).to_csv(index=False)


TEXTS = {"freesolv": freesolv, "lipophilicity": lipophilicity, "efflux": efflux, "logbb": logbb, "aqsoldb": aqsoldb}


# --- loaders --------------------------------------------------------------------------------------------


def test_every_loader_has_a_test_of_its_layout():
    assert set(TEXTS) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_molecules_and_targets_are_those_of_the_file(name, put, esol_of):
    esol_of(["c1ccccc1"])
    put(TEXTS[name](MOLECULES, VALUES))
    data = catalogue.load(name)
    assert isinstance(data.inputs, Molecules) and data.inputs.smiles == tuple(MOLECULES)
    np.testing.assert_allclose(data.targets, VALUES)
    assert data.targets.dtype == np.float64 and data.checksum == SOURCES[name].sha256
    assert tuple(data.splits) == SOURCES[name].splits


@pytest.mark.parametrize("name", NAMES)
def test_stereo_isomers_stay_in_one_set(name, put, esol_of):
    esol_of(["c1ccccc1"])
    put(TEXTS[name](MOLECULES, VALUES))
    data = catalogue.load(name)
    tested = 0
    for seed in range(20):
        split = data.splits["random"](seed)
        where = np.full(len(data), "", dtype="<U5")
        for part in PARTS:
            where[getattr(split, part)] = part
        assert set(where) == set(PARTS)
        assert all(where[2 * pair] == where[2 * pair + 1] for pair in range(len(MIRRORED)))
        tested += where[0] == "test"
    assert 0 < tested < 20


@pytest.mark.parametrize("name", NAMES)
def test_files_are_those_of_a_fixed_commit_with_the_checksum_of_the_catalogue(name, monkeypatch):
    check_public_file(monkeypatch, properties, name)


def test_a_triple_bond_of_freesolv_is_no_comment(put):
    put(freesolv(["CC#N", "C#C", "CCO"], [-3.88, -0.01, -5.0]))
    data = catalogue.load("freesolv")
    assert data.inputs.smiles == ("CC#N", "C#C", "CCO") and data.targets.tolist() == [-3.88, -0.01, -5.0]


@pytest.mark.parametrize("name", ["lipophilicity", "efflux", "logbb", "freesolv"])
def test_molecules_without_a_target_are_left_out(name, put):
    put(
        TEXTS[name](
            ["CCO", "CCN", "CC", "CCCC"], [1.5, np.nan, 0.0, np.nan] if name != "freesolv" else [1.5, "", 0.0, ""]
        )
    )
    data = catalogue.load(name)
    assert data.inputs.smiles == ("CCO", "CC") and data.targets.tolist() == [1.5, 0.0]


@pytest.mark.parametrize("name", ["lipophilicity", "efflux", "logbb", "freesolv"])
def test_a_molecule_that_cannot_be_read_is_an_error(name, put):
    """None is expected in these files, so none is left out in silence."""
    put(TEXTS[name](["CCO", "C1CC"], [1.5, 2.5]))
    with pytest.raises(ValueError, match=r"^smiles: got 1 that cannot be read \('C1CC'\)"):
        catalogue.load(name)


# --- AqSolDB and ESOL -----------------------------------------------------------------------------------


def test_the_molecules_of_esol_are_left_out_however_they_are_written(put, esol_of):
    esol_of(["OCC", "C1=CC=CC=C1", "C[C@H](O)CC", "CC(=O)[O-]"])
    put(aqsoldb(["CCO", "CCN", "c1ccccc1", "CC(O)CC", "C[C@@H](O)CC", "CCCCO", "CC(=O)O"], np.arange(7.0)))
    data = catalogue.load("aqsoldb")
    assert data.inputs.smiles == ("CCN", "CCCCO") and data.targets.tolist() == [1.0, 5.0]


def test_molecules_of_aqsoldb_that_cannot_be_read_are_left_out(put, esol_of):
    esol_of(["c1ccccc1"])
    smiles = ["CCO", "CC(C)(C)(C)C", "C1CC", "CCN"]
    put(aqsoldb(smiles, np.arange(4.0), keys=[f"{letter * 14}-UHFFFAOYSA-N" for letter in "ABCD"]))
    data = catalogue.load("aqsoldb")
    assert data.inputs.smiles == ("CCO", "CCN") and data.targets.tolist() == [0.0, 3.0]


def test_without_esol_there_is_no_aqsoldb(put, monkeypatch):
    """Rather than one with ESOL's molecules in it."""

    def absent():
        raise FileNotFoundError("delaney-processed.csv is not at hand")

    monkeypatch.setattr(properties, "load_esol", absent)
    put(aqsoldb(["CCO"], [1.0]))
    with pytest.raises(FileNotFoundError, match=r"delaney-processed\.csv is not at hand"):
        catalogue.load("aqsoldb")
