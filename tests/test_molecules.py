"""Molecules divided by name, scaffold and size, and their graphs against PyTorch Geometric's own."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections import Counter
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rnclib.data import PARTS, molecules, take
from rnclib.data.molecules import (
    Graphs,
    Molecules,
    canonical_smiles,
    descriptors,
    graphs_from_smiles,
    has_nitrogen,
    inchi_skeletons,
    murcko_scaffold,
    n_heavy_atoms,
    split,
)

# --- splits ---------------------------------------------------------------------------------------------


def set_of_each(split, n):
    where = np.full(n, "", dtype="<U5")
    for name in PARTS:
        where[getattr(split, name)] = name
    return where


@pytest.mark.parametrize("seed", [0, 1])
def test_the_size_split_tests_molecules_larger_than_any_other(esol, seed):
    chosen, other = (split(esol.inputs.smiles, "size", s) for s in (seed, seed + 1))
    size = n_heavy_atoms(esol.inputs.smiles)
    assert size[chosen.test].min() > max(size[chosen.train].max(), size[chosen.val].max())
    assert 0.08 <= len(chosen.test) / len(esol) <= 0.1 and abs(len(chosen.val) / len(esol) - 0.1) < 0.01
    assert sorted(np.concatenate([chosen.train, chosen.val, chosen.test])) == list(range(len(esol)))
    assert np.array_equal(chosen.test, other.test) and not np.array_equal(chosen.val, other.val)
    names = np.array(canonical_smiles(esol.inputs.smiles))
    assert not set(names[chosen.train]) & set(names[chosen.val])


def test_molecules_written_differently_are_kept_in_one_set():
    names = ["CCO", "OCC", "C(O)C"] + ["C" * n + "N" for n in range(1, 60)] + ["c1ccccc1", "C1=CC=CC=C1"]
    tested = 0
    for seed in range(30):
        where = set_of_each(split(names, "random", seed), len(names))
        assert len(set(where[:3])) == 1 and len(set(where[-2:])) == 1
        tested += where[0] == "test"
    assert 0 < tested < 30


def test_scaffolds_are_kept_in_one_set():
    rings = ["c1ccccc1", "C1CCCCC1", "c1ccncc1", "C1CCOC1", "c1ccoc1", "C1CCNC1", "c1ccsc1", "C1CCC1"]
    names = [ring + "C" * n for ring in rings for n in range(2)] + ["C" * n for n in range(1, 31)]
    assert set(murcko_scaffold(names)) == {*rings, ""}  # 2 of each ring, 30 without: half a test set is 2.5
    seen = set()
    for seed in range(40):
        where = set_of_each(split(names, "scaffold", seed), len(names))
        for ring in range(len(rings)):
            assert len(set(where[2 * ring : 2 * ring + 2])) == 1
        assert set(where[-30:]) == {"train"}
        seen |= {str(where[0])}
    assert seen == set(PARTS)


def test_a_scaffold_larger_than_half_a_set_goes_to_training_though_it_would_fit():
    six, five = ["c1ccccc1" + "C" * n for n in range(6)], ["C1CCCCC1" + "C" * n for n in range(5)]
    single = ["C1CC1" + "C" * n + "C1CC1" for n in range(1, 30)]  # each linker makes a scaffold of its own
    names = six + five + single + ["C" * n for n in range(1, 61)]
    assert len(names) == 100 and len(set(murcko_scaffold(single))) == 29
    seen_six, seen_five = set(), set()
    for seed in range(60):
        where = set_of_each(split(names, "scaffold", seed), 100)
        seen_six |= set(where[:6].tolist())
        seen_five |= set(where[6:11].tolist())
    assert seen_six == {"train"} and seen_five == set(PARTS)


def test_an_unknown_kind_of_split_is_refused():
    with pytest.raises(ValueError, match=r"^kind: got 'time'; allowed: 'random', 'scaffold'"):
        split(["C", "CC"], "time", 0)


def test_random_splits_of_esol(esol):
    names = canonical_smiles(esol.inputs.smiles)
    for seed in range(20):
        chosen = split(esol.inputs.smiles, "random", seed)
        assert (len(chosen.train), len(chosen.val), len(chosen.test)) == (902, 113, 113)
        where = set_of_each(chosen, 1128)
        together: dict[str, set] = {}
        for name, one in zip(names, where, strict=True):
            together.setdefault(name, set()).add(str(one))
        assert all(len(sets) == 1 for sets in together.values())


def test_scaffold_splits_of_esol(esol):
    scaffolds = np.array(murcko_scaffold(esol.inputs.smiles))
    largest = Counter(scaffolds.tolist()).most_common(3)
    assert {name for name, _ in largest[:2]} == {"", "c1ccccc1"}
    never = largest[0][1] + largest[1][1]
    assert (never, round(100 * never / 1128)) == (571, 51)  # as the book says
    assert largest[2][1] <= 113 / 2
    in_large = np.isin(scaffolds, ["", "c1ccccc1"])
    ever_tested = np.zeros(1128, dtype=bool)
    for seed in range(100):
        chosen = split(esol.inputs.smiles, "scaffold", seed)
        where = set_of_each(chosen, 1128)
        assert (len(chosen.val), len(chosen.test)) == (113, 113)
        in_sets = [set(scaffolds[where == name]) for name in PARTS]
        assert not (in_sets[0] & in_sets[1] or in_sets[0] & in_sets[2] or in_sets[1] & in_sets[2])
        assert (where[in_large] == "train").all()
        ever_tested |= where == "test"
    assert not (ever_tested & in_large).any()
    assert ever_tested[~in_large].mean() > 0.99


# --- molecular graphs -----------------------------------------------------------------------------------

SMILES = ["C", "CC", "c1ccccc1O", "[Na+].[Cl-]", "C/C=C/C", "N[C@@H](C)C(=O)O", "C", "CC(C)(C)c1ccc2[nH]ccc2c1"]


def same_as_collated(graphs: Graphs, smiles, index):
    from torch_geometric.data import Batch
    from torch_geometric.utils import from_smiles

    ours = graphs[index]
    theirs = Batch.from_data_list([from_smiles(smiles[i]) for i in index])
    assert ours.x.dtype == torch.float32 and ours.edge_index.dtype == torch.int64
    assert torch.equal(ours.x, theirs.x.float())
    assert torch.equal(ours.edge_index, theirs.edge_index)
    assert torch.equal(ours.batch, theirs.batch)
    assert ours.batch_size == theirs.num_graphs == len(index)


GRAPHS = graphs_from_smiles(SMILES)
PUBLISHED = replace(GRAPHS, published=np.arange(len(SMILES)) / 4)


@given(st.lists(st.integers(0, len(SMILES) - 1), min_size=1, max_size=12))
def test_a_batch_is_the_one_that_torch_geometric_makes(index):
    same_as_collated(GRAPHS, SMILES, np.array(index))


def test_batches_of_esol_are_those_that_torch_geometric_makes(esol):
    methane = esol.inputs.smiles.index("C")
    rng = np.random.default_rng(0)
    for size in (1, 2, 64):
        index = rng.integers(0, 1128, size)
        same_as_collated(esol.inputs, esol.inputs.smiles, np.concatenate([[methane], index, index[:3], [methane]]))


def test_an_empty_batch_holds_nothing():
    empty = GRAPHS[np.array([], dtype=int)]
    assert (empty.x.shape, empty.edge_index.shape, empty.batch_size) == ((0, 9), (2, 0), 0)


@pytest.mark.parametrize(
    "index", [[-1], [-2], [0, len(SMILES)], np.ones(len(SMILES), dtype=bool), [0.0, 1.0], 3, [[0, 1]]]
)
def test_what_is_no_list_of_molecule_numbers_is_refused(index):
    # a mask or a negative number would otherwise give other molecules than those meant
    for refused in (GRAPHS.__getitem__, GRAPHS.take):
        with pytest.raises(IndexError, match=r"^index: got .*; allowed: a sequence of sample numbers from 0 to 7"):
            refused(index)


def test_graphs_go_to_a_device_whole():
    moved = PUBLISHED.to("meta")
    tensors = [value for value in vars(moved).values() if isinstance(value, torch.Tensor)]
    assert len(tensors) == 4 and {tensor.device.type for tensor in tensors} == {"meta"}
    assert moved.smiles == PUBLISHED.smiles and moved.published is PUBLISHED.published


indices = st.lists(st.integers(0, len(SMILES) - 1), max_size=12)


@given(index=indices, data=st.data())
def test_a_batch_of_molecules_taken_is_that_of_the_whole(index, data):
    taken = PUBLISHED.take(index)
    assert len(taken) == len(index) and taken.smiles == tuple(SMILES[i] for i in index)
    assert taken.published.tolist() == [i / 4 for i in index]
    picks = data.draw(st.lists(st.integers(0, len(index) - 1), max_size=12)) if index else []
    batch, whole = taken[picks], PUBLISHED[[index[i] for i in picks]]
    for name in ("x", "edge_index", "batch"):
        ours, theirs = getattr(batch, name), getattr(whole, name)
        assert ours.dtype == theirs.dtype and torch.equal(ours, theirs)
    assert batch.batch_size == whole.batch_size == len(picks)
    again = taken.take(picks)
    assert torch.equal(again[np.arange(len(picks))].x, batch.x) and again.smiles == tuple(
        taken.smiles[i] for i in picks
    )


def test_molecules_taken_are_those_that_are_parsed_alone():
    index = [5, 0, 3]
    taken, alone = GRAPHS.take(index), graphs_from_smiles([SMILES[i] for i in index])
    for name, value in vars(alone).items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(getattr(taken, name), value)
    assert taken.smiles == alone.smiles and taken.published is None
    assert replace(GRAPHS, smiles=()).take(index).smiles == ()


def test_one_molecule_of_esol_has_no_bond(esol):
    bonds = np.diff(esol.inputs.edge_start)
    assert [esol.inputs.smiles[i] for i in np.flatnonzero(bonds == 0)] == ["C"]
    assert esol.inputs.x.dtype == torch.float32 and esol.inputs.x.shape[1] == 9


# --- molecules as their source writes them --------------------------------------------------------------


@given(indices)
def test_molecules_are_taken_in_the_order_asked_for(index):
    chosen = take(Molecules(tuple(SMILES)), index)
    assert isinstance(chosen, Molecules) and chosen.smiles == tuple(SMILES[i] for i in index)
    assert len(chosen) == len(index)


@pytest.mark.parametrize("index", [[-1], [0, len(SMILES)], np.ones(len(SMILES), dtype=bool), [0.0, 1.0], 3])
def test_molecules_are_taken_by_their_numbers_alone(index):
    with pytest.raises(IndexError, match=r"^index: got .*; allowed: a sequence of sample numbers from 0 to 7"):
        Molecules(tuple(SMILES)).take(index)


def test_molecules_become_the_graphs_of_their_smiles():
    graphs = Molecules(tuple(SMILES)).take([5, 0, 3]).graphs()
    for name, value in vars(GRAPHS.take([5, 0, 3])).items():
        ours = getattr(graphs, name)
        assert torch.equal(ours, value) if isinstance(value, torch.Tensor) else ours == value
    with pytest.raises(ValueError, match=r"^smiles: got 1 .*'C1CC'"):
        Molecules(("CCO", "C1CC")).graphs()


def test_skeletons_differ_with_the_bonds_and_not_with_the_arrangement_in_space():
    alike = [
        ["OCC", "CCO", "C(O)C"],
        ["C[C@H](O)CC", "C[C@@H](O)CC", "CC(O)CC"],
        ["C/C=C/C", "C/C=C\\C"],
        ["c1ccccc1C", "CC1=CC=CC=C1"],
        ["CCCO"],
        ["COC"],
    ]
    found = [inchi_skeletons(names) for names in alike]
    assert all(len(set(names)) == 1 for names in found)
    assert len({names[0] for names in found}) == len(alike)
    assert all(len(name) == 14 and name.isupper() for names in found for name in names)
    assert found[0][0] == "LFQSCWFLJHTTHZ"  # of ethanol


# --- SMILES and descriptors -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "function", [canonical_smiles, graphs_from_smiles, murcko_scaffold, has_nitrogen, inchi_skeletons]
)
def test_bad_smiles_are_refused_by_name(function, capfd):
    with pytest.raises(ValueError, match=r"^smiles: got 2 .*'C1CC', 'not a molecule'") as refusal:
        function(["CCO", "C1CC", "not a molecule"])
    assert "CCO" not in str(refusal.value)
    with pytest.raises(ValueError, match=r"^smiles: got 1 .*''"):
        function(["CCO", ""])  # RDKit makes a molecule without atoms of it
    assert capfd.readouterr().err == ""  # and RDKit does not shout


def test_a_long_list_of_bad_smiles_is_cut():
    with pytest.raises(ValueError, match=r"got 9 .*'x4', …\)"):
        canonical_smiles([f"x{i}" for i in range(9)])


def test_descriptors_are_finite_or_missing():
    values = descriptors(["CCO", "C", "[Na+].[Cl-]", "CC(=O)Oc1ccccc1C(=O)O"])
    assert values.dtype == np.float32 and len(values) == 4 and values.shape[1] > 200
    assert not np.isinf(values).any()
    from rdkit.Chem import Descriptors

    weight = [name for name, _ in Descriptors._descList].index("MolWt")
    assert values[0, weight] == pytest.approx(46.069, abs=1e-3)


def test_descriptors_of_a_molecule_do_not_depend_on_the_others():
    together = descriptors(["CCN", "CCO", "CCN"])
    assert np.array_equal(together[[1]], descriptors(["CCO"]), equal_nan=True)
    assert np.array_equal(together[0], together[2], equal_nan=True)


def test_a_molecule_without_descriptors_is_refused(empty_cache):
    with pytest.raises(ValueError, match=r"^smiles: got 1 .*'C1CC'"):
        descriptors(["CCO", "C1CC"])


def test_nitrogen_is_found_in_rings_and_chains():
    assert has_nitrogen(["CCN", "c1ccncc1", "C[N+](=O)[O-]", "c1ccccc1", "CCO", "[Na+].[Cl-]"]).tolist() == [
        True, True, True, False, False, False,
    ]  # fmt: skip


# --- descriptors that are kept --------------------------------------------------------------------------

FEW = ["CCO", "C", "[Na+].[Cl-]", "CC(=O)Oc1ccccc1C(=O)O", "CCO"]


@pytest.fixture
def empty_cache(tmp_path, monkeypatch) -> Path:
    """A cache of its own, on disk and in memory."""
    monkeypatch.setenv("RNC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(molecules, "_DESCRIBED", {})
    return tmp_path / "cache"


@pytest.fixture
def asked(monkeypatch) -> list[str]:
    """The molecules whose descriptors are computed; here these are made of the length of the name, and NaN."""
    names = []

    def describe(smiles):
        names.append(smiles)
        return np.array([len(smiles), np.nan, 0.1], dtype=np.float32)

    monkeypatch.setattr(molecules, "_describe", describe)
    return names


def forget(monkeypatch) -> None:
    """As in another process."""
    monkeypatch.setattr(molecules, "_DESCRIBED", {})


def test_descriptors_that_were_kept_are_those_computed(empty_cache, monkeypatch):
    from rdkit import Chem
    from rdkit.Chem import Descriptors

    direct = [list(Descriptors.CalcMolDescriptors(Chem.MolFromSmiles(s), missingVal=np.nan).values()) for s in FEW]
    first = descriptors(FEW)
    forget(monkeypatch)
    monkeypatch.setattr(molecules, "_describe", lambda _: pytest.fail("it was computed"))
    again = descriptors(FEW)
    assert again.dtype == first.dtype == np.float32 and again.flags.writeable
    np.testing.assert_array_equal(again, first)
    np.testing.assert_array_equal(first, np.array(direct, dtype=np.float32))


def test_another_process_reads_what_this_one_kept(empty_cache):
    ours = descriptors(FEW)
    program = f"""
from rnclib.data import molecules
molecules._describe = lambda _: 1 / 0
print(molecules.descriptors({FEW!r}).tobytes().hex())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, ours.tobytes().hex()), done.stderr


def test_each_molecule_is_described_once(empty_cache, asked, monkeypatch):
    descriptors(["CCO", "C", "CCO"])
    descriptors(["C", "CCN"])
    forget(monkeypatch)
    values = descriptors(["CN", "CCN", "CCO", "CN"])
    assert asked == ["CCO", "C", "CCN", "CN"]
    assert values[:, 0].tolist() == [2, 3, 3, 2]


def test_work_that_was_interrupted_is_kept(empty_cache, asked, monkeypatch):
    names = ["C" * n for n in range(1, 251)]
    describe = molecules._describe

    def interrupted(smiles):
        if len(smiles) == 230:
            raise KeyboardInterrupt
        return describe(smiles)

    monkeypatch.setattr(molecules, "_describe", interrupted)
    with pytest.raises(KeyboardInterrupt):
        descriptors(names)
    assert len(asked) == 229
    monkeypatch.setattr(molecules, "_describe", describe)
    forget(monkeypatch)
    asked.clear()
    assert descriptors(names)[:, 0].tolist() == list(range(1, 251))
    assert asked == names[200:]  # what was done goes to disk a hundred at a time


def test_a_version_of_rdkit_has_descriptors_of_its_own(empty_cache, asked, monkeypatch):
    from rdkit import rdBase

    descriptors(["CCO"])
    monkeypatch.setattr(rdBase, "rdkitVersion", "1.2.3")
    forget(monkeypatch)
    descriptors(["CCO"])
    assert asked == ["CCO", "CCO"]
    assert len(list((empty_cache / "descriptors").glob("rdkit-*.sqlite"))) == 2


def no_folder(cache: Path) -> None:
    cache.write_text("a file where the folder should be")


def no_database(cache: Path) -> None:
    kept_in(cache).write_bytes(b"no database, but some text that is long enough to be taken for one" * 100)


def read_only(cache: Path) -> None:
    """What refuses the writing is the database: a file's permissions do not bind the one who may do everything."""
    with closing(sqlite3.connect(kept_in(cache))) as kept:
        kept.execute("CREATE TRIGGER refuse BEFORE INSERT ON descriptors BEGIN SELECT RAISE(FAIL, 'read only'); END")


def kept_in(cache: Path) -> Path:
    """The file in which descriptors are kept, without any."""
    molecules._kept().close()
    (file,) = (cache / "descriptors").glob("*.sqlite")
    return file


@pytest.mark.parametrize("damage", [no_folder, no_database, read_only])
def test_descriptors_are_computed_where_none_can_be_kept(damage, empty_cache, asked, monkeypatch):
    damage(empty_cache)
    assert descriptors(["CCO", "C"])[:, 0].tolist() == [3, 1]
    forget(monkeypatch)
    assert descriptors(["CCO", "CCN"])[:, 0].tolist() == [3, 3]
    assert asked == ["CCO", "C", "CCO", "CCN"]
