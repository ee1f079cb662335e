"""ESOL as its file has it, its download, Delaney's equation by hand, and the stand-in."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from rnclib.data import cache_dir
from rnclib.data.catalogue import SOURCES
from rnclib.data.esol import delaney_equation, load_esol, load_standin
from rnclib.data.molecules import canonical_smiles, has_nitrogen, n_heavy_atoms

SHA256 = "8c06a76f0c6487d29ab0f903e6a7a7139f189ab3c1178f159c8be8964602f189"


def test_esol_is_what_the_pages_say(esol):
    source = SOURCES["esol"]
    assert (source.measured, source.unit, esol.checksum) == (True, "log mol/L", SHA256)
    assert len(esol) == len(esol.inputs) == len(esol.inputs.smiles) == 1128
    assert len(set(canonical_smiles(esol.inputs.smiles))) == 1117
    assert esol.targets.dtype == np.float64
    assert (esol.targets.min(), esol.targets.max()) == (-11.6, 1.58)
    assert esol.targets.std() == pytest.approx(2.096, abs=1e-3)
    error = esol.inputs.published - esol.targets
    assert np.sqrt(np.mean(error**2)) == pytest.approx(0.910, abs=5e-4)
    assert np.mean(np.abs(error)) == pytest.approx(0.698, abs=5e-4)


def test_esol_keeps_the_order_of_its_file(esol):
    assert esol.inputs.smiles[0] == "OCC3OC(OCC2OC(OC(C#N)c1ccccc1)C(O)C(O)C2O)C(O)C(O)C3O"
    assert (esol.targets[0], esol.inputs.published[0]) == pytest.approx((-0.77, -0.974))
    assert esol.inputs.smiles[-1] == "COP(=O)(OC)OC(=CCl)c1cc(Cl)c(Cl)cc1Cl" and esol.targets[-1] == -4.522


def test_delaneys_equation_on_our_descriptors_is_close_to_the_published_column(esol):
    # Crippen's logP stands for Delaney's ClogP, so the two agree in kind, not in digits
    ours = delaney_equation(esol.inputs.smiles)
    assert np.corrcoef(ours, esol.inputs.published)[0, 1] > 0.9
    assert np.abs(ours - esol.inputs.published).mean() < 0.6


# --- Delaney's equation and the stand-in ----------------------------------------------------------------


def test_delaneys_equation_by_hand():
    from rdkit import Chem
    from rdkit.Chem import Crippen

    # molecular weight, rotatable bonds and fraction of aromatic heavy atoms, counted by hand
    by_hand = {
        "CCCCO": (4 * 12.011 + 10 * 1.008 + 15.999, 2, 0.0),
        "c1ccccc1": (6 * 12.011 + 6 * 1.008, 0, 1.0),
        "CCc1ccccc1": (8 * 12.011 + 10 * 1.008, 1, 6 / 8),
        "C": (12.011 + 4 * 1.008, 0, 0.0),
    }
    expected = []
    for smiles, (weight, rotatable, aromatic) in by_hand.items():
        log_p = Crippen.MolLogP(Chem.MolFromSmiles(smiles))
        expected.append(0.16 - 0.63 * log_p - 0.0062 * weight + 0.066 * rotatable - 0.74 * aromatic)
    np.testing.assert_allclose(delaney_equation(list(by_hand)), expected, atol=1e-5)
    # benzene's Crippen logP is 6 × 0.1581 + 6 × 0.1230 = 1.6866: the whole thing by hand
    assert delaney_equation(["c1ccccc1"])[0] == pytest.approx(0.16 - 0.63 * 1.6866 - 0.0062 * 78.114 - 0.74, abs=1e-4)


def test_the_stand_in_is_deterministic_and_says_what_it_is():
    first, again, other = load_standin(60), load_standin(60), load_standin(60, seed=1)
    assert first.inputs.smiles == again.inputs.smiles and first.checksum == again.checksum
    np.testing.assert_array_equal(first.targets, again.targets)
    assert other.inputs.smiles != first.inputs.smiles and other.checksum != first.checksum
    assert load_standin(61).checksum != first.checksum
    source = SOURCES["standin"]
    assert not source.measured and source.title == "Synthetic stand-in"
    assert "Synthetic" in source.notice and "instead of measurements" in source.notice
    assert first.inputs.published is None


def test_the_stand_ins_molecules_differ_and_its_targets_are_delaneys():
    standin = load_standin(300)
    assert len(standin) == len(standin.inputs) == len(set(canonical_smiles(standin.inputs.smiles))) == 300
    np.testing.assert_allclose(standin.targets, delaney_equation(standin.inputs.smiles), atol=5.1e-5)
    source = "".join(f"{s},{t:.4f}\n" for s, t in zip(standin.inputs.smiles, standin.targets, strict=True))
    assert standin.checksum == hashlib.sha256(source.encode()).hexdigest()
    assert standin.targets.std() > 1  # something to learn


def test_the_stand_in_can_be_split_in_every_way():
    standin = load_standin(300)
    for kind in ("random", "scaffold"):
        split = standin.splits[kind](0)
        assert (len(split.val), len(split.test)) == (30, 30)
    size = n_heavy_atoms(standin.inputs.smiles)
    split = standin.splits["size"](0)
    assert size[split.test].min() > max(size[split.train].max(), size[split.val].max())


@pytest.mark.parametrize("n", [9, 0, -1, 5001])
def test_a_stand_in_of_another_size_is_refused(n):
    with pytest.raises(ValueError, match=rf"^n: got {n}; allowed: 10 to 5000"):
        load_standin(n)


# --- the file -------------------------------------------------------------------------------------------

HEADER = (
    "Compound ID,ESOL predicted log solubility in mols per litre,measured log solubility in mols per litre,smiles\n"
)
GOOD = (HEADER + "methane,-0.5,-0.9,C\nethanol,1.0,1.1,CCO \nphenol,-1.2,0.0,c1ccccc1O\n").encode()
BAD = GOOD.replace(b"1.1", b"9.1")
GOOD_SHA = hashlib.sha256(GOOD).hexdigest()


def is_good(dataset):
    return (
        dataset.inputs.smiles == ("C", "CCO", "c1ccccc1O")
        and dataset.targets.tolist() == [-0.9, 1.1, 0.0]
        and dataset.inputs.published.tolist() == [-0.5, 1.0, -1.2]
        and dataset.checksum == GOOD_SHA
    )


def test_a_file_is_downloaded_once_and_read(server):
    server.script["/a"] = [BAD, GOOD, 500]
    for _ in range(2):
        assert is_good(load_esol(urls=[f"{server.url}/a"], sha256=GOOD_SHA))
    assert server.requests == ["/a", "/a"]  # the second time for a corrupt download
    assert (cache_dir() / "esol/raw/delaney-processed.csv").read_bytes() == GOOD


def test_rnc_data_comes_first(server, tmp_path, monkeypatch):
    path = tmp_path / "data/esol/raw/delaney-processed.csv"
    path.parent.mkdir(parents=True)
    monkeypatch.setenv("RNC_DATA", str(tmp_path / "data"))
    path.write_bytes(GOOD)
    assert is_good(load_esol(urls=[f"{server.url}/a"], sha256=GOOD_SHA)) and server.requests == []


def test_another_file_is_not_taken_for_esol(server):
    server.script["/a"] = [GOOD]
    with pytest.raises(FileNotFoundError, match=SHA256):
        load_esol(urls=[f"{server.url}/a"])
    asked = len(server.requests)
    assert len(load_standin(20)) == 20 and len(server.requests) == asked  # it needs no network


def test_the_nuisance_is_whether_a_molecule_has_nitrogen(server):
    text = HEADER + "pyridine,-0.5,-0.9,c1ccncc1\nethanol,1.0,1.1,CCO\n"
    server.script["/a"] = [text.encode()]
    few = load_esol(urls=[f"{server.url}/a"], sha256=hashlib.sha256(text.encode()).hexdigest())
    assert few.nuisance.tolist() == [1.0, 0.0]
    standin = load_standin(60)
    assert standin.nuisance.tolist() == has_nitrogen(standin.inputs.smiles).astype(float).tolist()


def test_bad_smiles_are_refused_by_name(capfd):
    with pytest.raises(ValueError, match=r"^smiles: got 2 .*'C1CC', 'not a molecule'") as refusal:
        delaney_equation(["CCO", "C1CC", "not a molecule"])
    assert "CCO" not in str(refusal.value)
    with pytest.raises(ValueError, match=r"^smiles: got 1 .*''"):
        delaney_equation(["CCO", ""])
    assert capfd.readouterr().err == ""
