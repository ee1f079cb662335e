"""Splits, molecular graphs, ESOL with its download, and the stand-in."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rnclib.data import (
    SEEN,
    Split,
    cache_dir,
    group_split,
    seen_ranges,
    spurious_split,
    subsample,
    with_holes,
    with_wrong_targets,
)
from rnclib.data.esol import SHA256, delaney_equation, load, load_esol, load_standin
from rnclib.data.molecules import (
    Graphs,
    canonical_smiles,
    descriptors,
    graphs_from_smiles,
    murcko_scaffold,
    n_heavy_atoms,
    split,
)

PARTS = ("train", "val", "test")


# --- splits ---------------------------------------------------------------------------------------------


def part_of_each(parts, n):
    where = np.full(n, "", dtype="<U5")
    for name in PARTS:
        where[getattr(parts, name)] = name
    return where


# groups of one to three samples among at least forty: small enough to fill every part exactly
small_groups = st.lists(st.integers(1, 3), min_size=40, max_size=120).flatmap(
    lambda sizes: st.permutations([i for i, size in enumerate(sizes) for _ in range(size)])
)


@given(groups=small_groups, seed=st.integers(0, 2**32))
def test_a_split_holds_every_sample_once_and_tears_no_group(groups, seed):
    parts = group_split(groups, seed)
    everything = np.concatenate([parts.train, parts.val, parts.test])
    np.testing.assert_array_equal(np.sort(everything), np.arange(len(groups)))
    where = part_of_each(parts, len(groups))
    for group in set(groups):
        assert len({where[i] for i, g in enumerate(groups) if g == group}) == 1
    for name in PARTS:
        indices = getattr(parts, name)
        assert indices.dtype.kind == "i" and (np.diff(indices) > 0).all()


@given(
    n_groups=st.integers(60, 150),
    pairs=st.integers(0, 20),
    seed=st.integers(0, 1000),
    fractions=st.sampled_from([(0.8, 0.1, 0.1), (0.6, 0.2, 0.2), (0.5, 0.2, 0.3)]),
)
def test_the_parts_have_their_sizes_when_the_groups_are_small(n_groups, pairs, seed, fractions):
    groups = [*range(n_groups), *range(pairs)]  # single samples and some pairs
    parts = group_split(groups, seed, fractions=fractions)
    n = len(groups)
    assert len(parts.val) == round(fractions[1] * n)
    assert len(parts.test) == round(fractions[2] * n)
    assert len(parts.train) == n - len(parts.val) - len(parts.test)


@given(seed=st.integers(0, 1000), large=st.integers(6, 40), largest=st.sampled_from([5, 5.5]))
def test_a_large_group_goes_to_training_for_every_seed(seed, large, largest):
    groups = ["large"] * large + [f"five {i // 5}" for i in range(25)] + [f"single {i}" for i in range(50)]
    where = part_of_each(group_split(groups, seed, largest=largest), len(groups))
    assert set(where[:large]) == {"train"}


def test_groups_of_exactly_the_limit_are_drawn():
    groups = [f"five {i // 5}" for i in range(500)]
    tested = {group_split(groups, seed, largest=5).test[0] // 5 for seed in range(20)}
    assert len(tested) > 5


@given(n=st.integers(2, 60), seed=st.integers(0, 9), low=st.floats(0.01, 0.5), high=st.floats(0.5, 0.99))
def test_a_subsample_is_nested_and_leaves_validation_and_test_alone(n, seed, low, high):
    split = Split(train=np.arange(0, 3 * n, 3), val=np.array([1, 4]), test=np.array([2]))
    few, many, every = (subsample(split, fraction, seed) for fraction in (low, high, 1.0))
    assert set(few.train) <= set(many.train) <= set(split.train)
    assert len(few.train) == max(1, round(low * n)) and len(many.train) == max(1, round(high * n))
    assert np.array_equal(every.train, split.train)
    for part in (few, many, every):
        assert np.array_equal(part.val, split.val) and np.array_equal(part.test, split.test)
        assert np.all(np.diff(part.train) > 0)


def whole_split(n=900, seed=0):
    parts = np.split(np.random.default_rng(seed).permutation(n), [round(0.8 * n), round(0.9 * n)])
    return Split(*map(np.sort, parts))


@pytest.mark.parametrize("kind", SEEN)
@pytest.mark.parametrize("ages", [False, True])
def test_a_hole_is_empty_in_training_and_full_in_the_test(kind, ages):
    targets = np.random.default_rng(1).normal(40, 15, 900)
    targets = targets.round() if ages else targets
    split = whole_split()
    holed = with_holes(split, targets, kind, seed=3)
    ranges = seen_ranges(split, targets, kind)
    assert len(ranges) == len(SEEN[kind])

    def inside(part):
        return np.array([(targets[part] >= low) & (targets[part] <= high) for low, high in ranges])

    for part in ("train", "val"):
        left, before = getattr(holed, part), getattr(split, part)
        assert set(left) <= set(before) and inside(left).any(axis=0).all() and inside(left).any(axis=1).all()
    assert np.array_equal(holed.test, split.test) and (~inside(split.test).any(axis=0)).mean() > 0.1
    if kind == "cut-out":  # what is outside of the hole all stays
        assert set(split.train[inside(split.train).any(axis=0)]) == set(holed.train)
    else:  # peaks: dense in the middle, thin at the ends
        middle, ends = [], []
        for low, high in ranges:
            for result, a, b in ((middle, 0.35, 0.65), (ends, 0.0, 0.15)):
                bounds = low + a * (high - low), low + b * (high - low)
                there = [
                    ((targets[p] >= bounds[0]) & (targets[p] <= bounds[1])).sum() for p in (holed.train, split.train)
                ]
                result.append(there)
        shares = [np.sum(part, axis=0)[0] / np.sum(part, axis=0)[1] for part in (middle, ends)]
        assert shares[0] > 0.7 and shares[1] < 0.5
    again, other = (with_holes(split, targets, kind, seed=seed) for seed in (3, 4))
    assert np.array_equal(again.train, holed.train)
    assert kind == "cut-out" or not np.array_equal(other.train, holed.train)


def test_an_unknown_kind_of_holes_is_named():
    with pytest.raises(ValueError, match=r"kind: got 'one peak'; allowed: 'two peaks', 'three peaks', 'cut-out'"):
        with_holes(whole_split(), np.zeros(900), "one peak", 0)


@given(share=st.floats(0, 1), seed=st.integers(0, 5))
def test_wrong_targets_are_a_share_dealt_out_within_each_part(share, seed):
    split, targets = whole_split(200), np.arange(200.0)
    wrong = with_wrong_targets(split, targets, share, seed)
    assert np.array_equal(wrong[split.test], targets[split.test])
    for part in (split.train, split.val):
        moved = (wrong[part] != targets[part]).sum()
        assert moved == (round(share * len(part)) if round(share * len(part)) > 1 else 0)
        assert sorted(wrong[part]) == sorted(targets[part])
    with pytest.raises(ValueError, match=r"share: got 1\.5; allowed: 0 to 1"):
        with_wrong_targets(split, targets, 1.5, seed)


def tie(part, targets, attribute, threshold):
    """Correlation of the attribute with an upper-half target."""
    return np.corrcoef(targets[part] >= threshold, attribute[part])[0, 1]


@pytest.mark.parametrize("seed", range(4))
def test_a_nuisance_goes_with_the_target_in_training_and_not_in_the_test(seed):
    rng = np.random.default_rng(seed)
    targets = rng.normal(size=900)
    attribute = rng.random(900) < 0.4
    split = whole_split()
    tied, untied = (spurious_split(split, targets, attribute, seed, tied=tied) for tied in (True, False))
    threshold = np.median(targets[split.train])
    for part in ("train", "val"):
        kept, free, before = getattr(tied, part), getattr(untied, part), getattr(split, part)
        assert tie(kept, targets, attribute, threshold) > 0.7
        assert abs(tie(free, targets, attribute, threshold)) < 4 / np.sqrt(len(free))
        assert len(kept) == len(free) and set(kept) <= set(before) and set(free) <= set(before)
        with_the_tie = before[(targets[before] >= threshold) == attribute[before]]
        assert set(with_the_tie) <= set(kept)  # of the others one in ten is left
        assert len(kept) - len(with_the_tie) == round(0.1 * (len(before) - len(with_the_tie)))
    assert np.array_equal(tied.test, untied.test) and set(tied.test) <= set(split.test)
    counts = pd.crosstab(targets[tied.test] >= threshold, attribute[tied.test]).to_numpy().ravel()
    assert len(counts) == 4 and len(set(counts)) == 1 and tie(tied.test, targets, attribute, threshold) == 0
    again = spurious_split(split, targets, attribute, seed, tied=True)
    assert np.array_equal(again.train, tied.train) and np.array_equal(again.test, tied.test)


def test_a_nuisance_that_leaves_a_combination_out_is_refused():
    with pytest.raises(ValueError, match=r"attribute: got one without every combination"):
        spurious_split(whole_split(), np.arange(900.0), np.zeros(900, bool), 0, tied=True)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_size_split_tests_molecules_larger_than_any_other(esol, seed):
    parts, other = (split(esol.smiles, "size", s) for s in (seed, seed + 1))
    size = n_heavy_atoms(esol.smiles)
    assert size[parts.test].min() > max(size[parts.train].max(), size[parts.val].max())
    assert 0.08 <= len(parts.test) / len(esol) <= 0.1 and abs(len(parts.val) / len(esol) - 0.1) < 0.01
    assert sorted(np.concatenate([parts.train, parts.val, parts.test])) == list(range(len(esol)))
    assert np.array_equal(parts.test, other.test) and not np.array_equal(parts.val, other.val)
    names = np.array(canonical_smiles(esol.smiles))
    assert not set(names[parts.train]) & set(names[parts.val])


def test_a_subsample_depends_on_the_seed_and_refuses_other_fractions():
    split = Split(train=np.arange(100), val=np.array([100]), test=np.array([101]))
    assert not np.array_equal(subsample(split, 0.5, 0).train, subsample(split, 0.5, 1).train)
    for fraction in (0, -0.1, 1.5, float("nan")):
        with pytest.raises(ValueError, match=r"fraction: got .*; allowed: above 0, at most 1"):
            subsample(split, fraction, 0)


def test_a_split_is_the_seed_and_nothing_else():
    groups = [i // 2 for i in range(200)]
    splits = [group_split(groups, seed) for seed in range(10)]
    for seed, parts in enumerate(splits):
        np.random.seed(seed + 77)  # noqa: NPY002 - the global state must not matter
        again = group_split(list(map(str, groups)), seed)
        for name in PARTS:
            np.testing.assert_array_equal(getattr(parts, name), getattr(again, name))
    assert len({tuple(parts.test) for parts in splits}) == 10
    assert len({tuple(parts.val) for parts in splits}) == 10


def test_every_sample_is_tested_in_its_share_of_the_seeds():
    n, seeds = 100, 2000
    counts = Counter(int(i) for seed in range(seeds) for i in group_split(range(n), seed).test)
    share = np.array([counts[i] for i in range(n)]) / seeds
    assert abs(share.mean() - 0.1) < 1e-12
    assert np.abs(share - 0.1).max() < 5 * np.sqrt(0.1 * 0.9 / seeds)  # five standard errors


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"fractions": (0.8, 0.1)}, "fractions"),
        ({"fractions": (0.8, 0.2, 0.2)}, "fractions"),
        ({"fractions": (0.9, 0.1, 0.0)}, "fractions"),
        ({"fractions": (1.2, -0.1, -0.1)}, "fractions"),
        ({"seed": -1}, "seed"),
        ({"groups": []}, "groups"),
        ({"groups": range(3)}, "groups"),  # a tenth of three is no sample
        ({"groups": ["a"] * 100}, "groups"),
        ({"groups": range(100), "largest": 0}, "groups"),
    ],
)
def test_what_cannot_be_split_is_refused_by_name(arguments, named):
    with pytest.raises(ValueError, match=rf"^{named}: got .*; allowed: "):
        group_split(**({"groups": range(50), "seed": 0} | arguments))


def test_molecules_written_differently_are_kept_in_one_part():
    names = ["CCO", "OCC", "C(O)C"] + ["C" * n + "N" for n in range(1, 60)] + ["c1ccccc1", "C1=CC=CC=C1"]
    tested = 0
    for seed in range(30):
        where = part_of_each(split(names, "random", seed), len(names))
        assert len(set(where[:3])) == 1 and len(set(where[-2:])) == 1
        tested += where[0] == "test"
    assert 0 < tested < 30


def test_scaffolds_are_kept_in_one_part():
    rings = ["c1ccccc1", "C1CCCCC1", "c1ccncc1", "C1CCOC1", "c1ccoc1", "C1CCNC1", "c1ccsc1", "C1CCC1"]
    names = [ring + "C" * n for ring in rings for n in range(2)] + ["C" * n for n in range(1, 31)]
    assert set(murcko_scaffold(names)) == {*rings, ""}  # 2 of each ring, 30 without: half a part is 2.5
    seen = set()
    for seed in range(40):
        where = part_of_each(split(names, "scaffold", seed), len(names))
        for ring in range(len(rings)):
            assert len(set(where[2 * ring : 2 * ring + 2])) == 1
        assert set(where[-30:]) == {"train"}
        seen |= {str(where[0])}
    assert seen == set(PARTS)


def test_a_scaffold_larger_than_half_a_part_goes_to_training_though_it_would_fit():
    six, five = ["c1ccccc1" + "C" * n for n in range(6)], ["C1CCCCC1" + "C" * n for n in range(5)]
    single = ["C1CC1" + "C" * n + "C1CC1" for n in range(1, 30)]  # each linker makes a scaffold of its own
    names = six + five + single + ["C" * n for n in range(1, 61)]
    assert len(names) == 100 and len(set(murcko_scaffold(single))) == 29
    seen_six, seen_five = set(), set()
    for seed in range(60):
        where = part_of_each(split(names, "scaffold", seed), 100)
        seen_six |= set(where[:6].tolist())
        seen_five |= set(where[6:11].tolist())
    assert seen_six == {"train"} and seen_five == set(PARTS)


def test_an_unknown_kind_of_split_is_refused():
    with pytest.raises(ValueError, match=r"^kind: got 'time'; allowed: 'random', 'scaffold'"):
        split(["C", "CC"], "time", 0)


# --- ESOL itself ----------------------------------------------------------------------------------------


def test_esol_is_what_the_pages_say(esol):
    assert (esol.name, esol.synthetic, esol.checksum, esol.unit) == ("esol", False, SHA256, "log mol/L")
    assert len(esol) == len(esol.inputs) == len(esol.smiles) == 1128
    assert len(set(canonical_smiles(esol.smiles))) == 1117
    assert esol.targets.dtype == np.float64
    assert (esol.targets.min(), esol.targets.max()) == (-11.6, 1.58)
    assert esol.targets.std() == pytest.approx(2.096, abs=1e-3)
    error = esol.published_prediction - esol.targets
    assert np.sqrt(np.mean(error**2)) == pytest.approx(0.910, abs=5e-4)
    assert np.mean(np.abs(error)) == pytest.approx(0.698, abs=5e-4)


def test_esol_keeps_the_order_of_its_file(esol):
    assert esol.smiles[0] == "OCC3OC(OCC2OC(OC(C#N)c1ccccc1)C(O)C(O)C2O)C(O)C(O)C3O"
    assert (esol.targets[0], esol.published_prediction[0]) == pytest.approx((-0.77, -0.974))
    assert esol.smiles[-1] == "COP(=O)(OC)OC(=CCl)c1cc(Cl)c(Cl)cc1Cl" and esol.targets[-1] == -4.522


def test_one_molecule_of_esol_has_no_bond(esol):
    bonds = np.diff(esol.inputs.edge_start)
    assert [esol.smiles[i] for i in np.flatnonzero(bonds == 0)] == ["C"]
    assert esol.inputs.x.dtype == torch.float32 and esol.inputs.x.shape[1] == 9


def test_delaneys_equation_on_our_descriptors_is_close_to_the_published_column(esol):
    # Crippen's logP stands for Delaney's ClogP, so the two agree in kind, not in digits
    ours = delaney_equation(esol.smiles)
    assert np.corrcoef(ours, esol.published_prediction)[0, 1] > 0.9
    assert np.abs(ours - esol.published_prediction).mean() < 0.6


def test_random_splits_of_esol(esol):
    names = canonical_smiles(esol.smiles)
    for seed in range(20):
        parts = split(esol.smiles, "random", seed)
        assert (len(parts.train), len(parts.val), len(parts.test)) == (902, 113, 113)
        where = part_of_each(parts, 1128)
        together: dict[str, set] = {}
        for name, part in zip(names, where, strict=True):
            together.setdefault(name, set()).add(str(part))
        assert all(len(parts) == 1 for parts in together.values())


def test_scaffold_splits_of_esol(esol):
    scaffolds = np.array(murcko_scaffold(esol.smiles))
    largest = Counter(scaffolds.tolist()).most_common(3)
    assert {name for name, _ in largest[:2]} == {"", "c1ccccc1"}
    never = largest[0][1] + largest[1][1]
    assert (never, round(100 * never / 1128)) == (571, 51)  # as the book says
    assert largest[2][1] <= 113 / 2
    in_large = np.isin(scaffolds, ["", "c1ccccc1"])
    ever_tested = np.zeros(1128, dtype=bool)
    for seed in range(100):
        parts = split(esol.smiles, "scaffold", seed)
        where = part_of_each(parts, 1128)
        assert (len(parts.val), len(parts.test)) == (113, 113)
        in_parts = [set(scaffolds[where == name]) for name in PARTS]
        assert not (in_parts[0] & in_parts[1] or in_parts[0] & in_parts[2] or in_parts[1] & in_parts[2])
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


@given(st.lists(st.integers(0, len(SMILES) - 1), min_size=1, max_size=12))
def test_a_batch_is_the_one_that_torch_geometric_makes(index):
    same_as_collated(GRAPHS, SMILES, np.array(index))


def test_batches_of_esol_are_those_that_torch_geometric_makes(esol):
    methane = esol.smiles.index("C")
    rng = np.random.default_rng(0)
    for size in (1, 2, 64):
        index = rng.integers(0, 1128, size)
        same_as_collated(esol.inputs, esol.smiles, np.concatenate([[methane], index, index[:3], [methane]]))


def test_an_empty_batch_holds_nothing():
    empty = GRAPHS[np.array([], dtype=int)]
    assert (empty.x.shape, empty.edge_index.shape, empty.batch_size) == ((0, 9), (2, 0), 0)


@pytest.mark.parametrize(
    "index", [[-1], [-2], [0, len(SMILES)], np.ones(len(SMILES), dtype=bool), [0.0, 1.0], 3, [[0, 1]]]
)
def test_what_is_no_list_of_molecule_numbers_is_refused(index):
    # a mask or a negative number would otherwise give other molecules than those meant
    with pytest.raises(IndexError):
        GRAPHS[index]


def test_graphs_go_to_a_device_whole():
    moved = GRAPHS.to("meta")
    assert {getattr(moved, name).device.type for name in Graphs.__dataclass_fields__} == {"meta"}


@pytest.mark.parametrize("function", [canonical_smiles, graphs_from_smiles, murcko_scaffold, delaney_equation])
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


# --- Delaney's equation and the stand-in ----------------------------------------------------------------


def test_delaneys_equation_by_hand():
    from rdkit import Chem
    from rdkit.Chem import Crippen

    # molecular weight, rotatable bonds and aromatic share of the heavy atoms, counted by hand
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
    assert first.smiles == again.smiles and first.checksum == again.checksum
    np.testing.assert_array_equal(first.targets, again.targets)
    assert other.smiles != first.smiles and other.checksum != first.checksum
    assert load_standin(61).checksum != first.checksum
    assert (first.name, first.synthetic) == ("standin", True)
    assert "synthetic" in first.provenance and "not measured" in first.provenance
    assert first.published_prediction is None


def test_the_stand_ins_molecules_differ_and_its_targets_are_delaneys():
    standin = load_standin(300)
    assert len(standin) == len(standin.inputs) == len(set(canonical_smiles(standin.smiles))) == 300
    np.testing.assert_allclose(standin.targets, delaney_equation(standin.smiles), atol=5.1e-5)
    source = "".join(f"{s},{t:.4f}\n" for s, t in zip(standin.smiles, standin.targets, strict=True))
    assert standin.checksum == hashlib.sha256(source.encode()).hexdigest()
    assert standin.targets.std() > 1  # something to learn


def test_the_stand_in_can_be_split_both_ways():
    standin = load_standin(300)
    for kind in ("random", "scaffold"):
        parts = split(standin.smiles, kind, 0)
        assert (len(parts.val), len(parts.test)) == (30, 30)


@pytest.mark.parametrize("n", [9, 0, -1, 5001])
def test_a_stand_in_of_another_size_is_refused(n):
    with pytest.raises(ValueError, match=rf"^n: got {n}; allowed: 10 to 5000"):
        load_standin(n)


# --- the download ---------------------------------------------------------------------------------------

HEADER = (
    "Compound ID,ESOL predicted log solubility in mols per litre,measured log solubility in mols per litre,smiles\n"
)
GOOD = (HEADER + "methane,-0.5,-0.9,C\nethanol,1.0,1.1,CCO \nphenol,-1.2,0.0,c1ccccc1O\n").encode()
BAD = GOOD.replace(b"1.1", b"9.1")
GOOD_SHA = hashlib.sha256(GOOD).hexdigest()


@dataclass
class Server:
    """A web server on this machine that answers each path by a script, and counts."""

    url: str = ""
    script: dict[str, list] = field(default_factory=dict)  # the last answer is given again and again
    requests: list[str] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    down: bool = False

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        self.requests.append(handler.path)
        answers = self.script.get(handler.path, [404])
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, int):
            handler.send_error(answer)
            return
        body, claimed = answer if isinstance(answer, tuple) else (answer, len(answer))
        handler.send_response(200)
        handler.send_header("Content-Length", str(claimed))
        handler.end_headers()
        handler.wfile.write(body)


@pytest.fixture
def server(tmp_path, monkeypatch):
    import pooch

    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            state.answer(self)

        def log_message(self, *arguments):
            pass

    monkeypatch.delenv("RNC_DATA", raising=False)
    monkeypatch.setenv("RNC_CACHE", str(tmp_path / "cache"))
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "127.0.0.1")
    monkeypatch.setattr(pooch.core, "time", SimpleNamespace(sleep=state.waits.append))  # retries need no rest here
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        state.url = f"http://127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield state
        http.shutdown()
        thread.join()


def get(server, *paths):
    return load_esol(urls=[server.url + path for path in paths], sha256=GOOD_SHA)


def cached_files():
    return sorted(path.name for path in cache_dir().rglob("*") if path.is_file())


def is_good(dataset):
    return dataset.smiles == ("C", "CCO", "c1ccccc1O") and dataset.targets.tolist() == [-0.9, 1.1, 0.0]


def test_a_file_is_downloaded_once(server):
    server.script["/a"] = [GOOD, 500]
    dataset = get(server, "/a")
    assert is_good(dataset) and dataset.checksum == GOOD_SHA
    assert dataset.published_prediction.tolist() == [-0.5, 1.0, -1.2]
    assert is_good(get(server, "/a")) and is_good(get(server, "/dead"))
    assert server.requests == ["/a"]
    assert cached_files() == ["delaney-processed.csv"]


def test_a_corrupt_download_is_tried_again(server):
    server.script["/a"] = [BAD, GOOD]
    assert is_good(get(server, "/a"))
    assert server.requests == ["/a", "/a"] and len(server.waits) == 1
    assert cached_files() == ["delaney-processed.csv"]


def test_a_partial_download_is_tried_again(server):
    server.script["/a"] = [(GOOD[:100], len(GOOD)), GOOD]
    assert is_good(get(server, "/a"))
    assert server.requests == ["/a", "/a"]
    assert cached_files() == ["delaney-processed.csv"]


@pytest.mark.parametrize("answer", [BAD, b"", (GOOD[:100], len(GOOD)), (GOOD[:100], 100), 404, 500])
def test_a_download_that_stays_bad_is_refused_and_nothing_is_left_behind(server, answer):
    server.script["/a"] = [answer]
    with pytest.raises(FileNotFoundError) as refusal:
        get(server, "/a")
    message = str(refusal.value)
    target = cache_dir() / "esol/raw/delaney-processed.csv"
    assert GOOD_SHA in message and str(target) in message and "RNC_DATA" in message and server.url in message
    assert cached_files() == []
    assert server.requests == ["/a", "/a"]
    server.script["/a"] = [GOOD]
    assert is_good(get(server, "/a"))  # and the next try can succeed


def test_a_corrupted_file_in_the_cache_is_replaced(server):
    server.script["/a"] = [GOOD]
    target = cache_dir() / "esol/raw/delaney-processed.csv"
    target.parent.mkdir(parents=True)
    target.write_bytes(GOOD[:50])
    assert is_good(get(server, "/a"))
    assert target.read_bytes() == GOOD


def test_a_corrupted_file_in_the_cache_is_never_used(server):
    target = cache_dir() / "esol/raw/delaney-processed.csv"
    target.parent.mkdir(parents=True)
    target.write_bytes(BAD)
    for paths in ([], ["/dead"]):
        with pytest.raises(FileNotFoundError, match="could not be downloaded"):
            get(server, *paths)


def test_the_second_address_is_used_where_the_first_is_dead(server):
    server.script["/b"] = [GOOD]
    assert is_good(get(server, "/dead", "/b"))
    assert server.requests == ["/dead", "/dead", "/b"]


def test_an_address_where_nobody_listens_is_passed_over(server):
    import socket

    with socket.socket() as probe:  # a port that is free
        probe.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{probe.getsockname()[1]}/a"
    server.script["/b"] = [GOOD]
    assert is_good(load_esol(urls=[nobody, server.url + "/b"], sha256=GOOD_SHA))


def test_a_cache_that_cannot_be_written_is_an_error_that_helps(server, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("RNC_CACHE", str(tmp_path / "file"))
    server.script["/a"] = [GOOD]
    with pytest.raises(FileNotFoundError, match="RNC_DATA"):
        get(server, "/a")


def test_rnc_data_comes_first(server, tmp_path, monkeypatch):
    path = tmp_path / "data/esol/raw/delaney-processed.csv"
    path.parent.mkdir(parents=True)
    monkeypatch.setenv("RNC_DATA", str(tmp_path / "data"))
    server.script["/a"] = [GOOD]

    path.write_bytes(GOOD)
    assert is_good(get(server, "/a")) and server.requests == [] and cached_files() == []

    path.write_bytes(BAD)
    with pytest.raises(FileNotFoundError) as refusal:
        get(server, "/a")
    for part in (str(path), hashlib.sha256(BAD).hexdigest(), GOOD_SHA, "RNC_DATA"):
        assert part in str(refusal.value)
    assert server.requests == []
    assert path.read_bytes() == BAD  # left alone

    path.unlink()  # a folder without the file: as if it were unset
    assert is_good(get(server, "/a"))
    assert not path.exists()


def test_auto_says_which_data_set_it_got(server, monkeypatch):
    monkeypatch.setattr("rnclib.data.esol.load_standin", lambda: load_standin(20))  # the whole takes a while
    server.script["/a"] = [GOOD]
    urls = [server.url + "/a"]  # not ESOL: its checksum is another
    with pytest.warns(UserWarning, match="using the stand-in. delaney-processed.csv is not at hand"):
        standin = load("auto", urls=urls)
    assert (standin.name, standin.synthetic) == ("standin", True)
    assert load("standin", urls=urls).checksum == standin.checksum
    asked = len(server.requests)
    load("standin", urls=urls)
    assert len(server.requests) == asked  # it needs no network
    with pytest.raises(FileNotFoundError, match=SHA256):
        load("esol", urls=urls)


@pytest.mark.parametrize("name", ["x", "ESOL", ""])
def test_an_unknown_data_set_is_refused(name):
    with pytest.raises(ValueError, match=rf"^dataset: got '{name}'; allowed: 'auto', 'esol', 'standin'"):
        load(name, urls=())


def test_auto_is_esol_where_it_can_be_had(esol):
    assert load("auto", urls=()).name == load("esol", urls=()).name == "esol"


def test_the_cache_is_where_rnc_cache_says(monkeypatch, tmp_path):
    monkeypatch.setenv("RNC_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.setenv("RNC_CACHE", "")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_dir() == tmp_path / "home" / ".cache" / "rnclib"
