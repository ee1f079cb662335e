"""Corruptions do what they say: nothing else changes, more severity changes more, and a seed repeats them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from rnclib.data import corruptions
from rnclib.data.corruptions import (
    IMAGE_CORRUPTIONS,
    MOLECULE_CORRUPTIONS,
    RATES,
    SEVERITIES,
    corrupt_graphs,
    corrupt_images,
)
from rnclib.data.molecules import Graphs, graphs_from_smiles
from rnclib.data.synthetic import Person, Scene, draw_face


@pytest.fixture(scope="module")
def faces() -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.stack(
        [np.asarray(draw_face(age, Person.random(rng), Scene.random(rng), 48)) for age in (3, 20, 35, 50, 64, 80)]
    )


@pytest.fixture(scope="module")
def molecules() -> Graphs:
    smiles = [
        "CCO",
        "c1ccccc1C(=O)O",
        "CC(C)Cc1ccc(cc1)C(C)C(=O)O",
        "C",
        "ClC(Cl)Cl",
        "O=[N+]([O-])c1ccccc1",
        "CCCCCCCC",
    ]
    return graphs_from_smiles(smiles * 12)


@pytest.mark.parametrize("kind", IMAGE_CORRUPTIONS)
def test_pictures_get_worse_with_severity(faces, kind):
    before = faces.copy()
    changes = []
    for severity in SEVERITIES:
        worse = corrupt_images(faces, kind, severity, seed=1)
        assert worse.shape == faces.shape and worse.dtype == np.uint8
        assert np.array_equal(worse, corrupt_images(faces, kind, severity, seed=1))
        changes.append(np.abs(worse.astype(float) - faces).mean())
    assert changes[0] > 0 and np.all(np.diff(changes) > 0), changes
    assert np.array_equal(faces, before)


@pytest.mark.parametrize("kind", IMAGE_CORRUPTIONS)
def test_many_pictures_are_corrupted_in_blocks(faces, kind, monkeypatch):
    whole = corrupt_images(faces, kind, 3, seed=1)
    monkeypatch.setattr(corruptions, "_AT_ONCE", 3 * faces[0].size)
    parts = corrupt_images(faces, kind, 3, seed=1)
    changes = [np.abs(worse.astype(float) - faces).mean(axis=(1, 2, 3)) for worse in (whole, parts)]
    assert parts.shape == whole.shape and (changes[1] > 0).all()
    assert changes[1].mean() == pytest.approx(changes[0].mean(), rel=0.25)
    if kind in ("Gaussian noise", "shot noise", "motion blur", "brightness", "JPEG"):  # drawn in order, or not at all
        assert np.array_equal(parts, whole)


def test_there_are_a_dozen_kinds_in_four_families():
    assert len(IMAGE_CORRUPTIONS) >= 12
    assert set(IMAGE_CORRUPTIONS.values()) == {"noise", "blur", "weather", "digital"}


@pytest.mark.parametrize("kind", ["Gaussian noise", "shot noise", "impulse noise", "snow", "fog", "frost", "elastic"])
def test_another_seed_is_another_corruption(faces, kind):
    assert not np.array_equal(corrupt_images(faces, kind, 3, seed=1), corrupt_images(faces, kind, 3, seed=2))


def test_simple_corruptions_are_their_formulas():
    grey = np.full((1, 16, 16, 3), 102, np.uint8)  # 0.4
    assert (corrupt_images(grey, "brightness", 4, 0) == round(0.6 * 255)).all()
    step = grey.copy()
    step[:, :8] = 204  # 0.8, mean 0.6
    flat = corrupt_images(step, "contrast", 2, 0)
    assert (np.abs(flat[:, :8] / 255 - 0.7) < 1 / 255).all() and (np.abs(flat[:, 8:] / 255 - 0.5) < 1 / 255).all()
    for kind in (
        "defocus blur",
        "motion blur",
        "zoom blur",
        "pixelate",
        "elastic",
    ):  # a flat picture has nothing to blur
        assert (np.abs(corrupt_images(grey, kind, 5, 0).astype(int) - 102) <= 1).all(), kind
    noisy = corrupt_images(np.repeat(grey, 400, 0), "Gaussian noise", 5, 0) / 255 - 0.4
    assert noisy.std() == pytest.approx(0.10, rel=0.02) and abs(noisy.mean()) < 1e-3
    hit = corrupt_images(np.repeat(grey, 400, 0), "impulse noise", 5, 0)
    assert np.mean(hit == 0) == pytest.approx(0.07, rel=0.05) and np.mean(hit == 255) == pytest.approx(0.07, rel=0.05)


@pytest.mark.parametrize("kind", [kind for kind in MOLECULE_CORRUPTIONS if kind != "dropped bonds"])
def test_features_are_hit_as_often_as_the_severity_says_and_what_is_hit_stays_hit(molecules, kind):
    earlier = torch.zeros(len(molecules.x), dtype=torch.bool)
    for severity in SEVERITIES:
        worse = corrupt_graphs(molecules, kind, severity, seed=4)
        assert worse.edge_index is molecules.edge_index and worse.node_start is molecules.node_start
        changed = (worse.x != molecules.x).any(dim=1)
        assert (changed | ~earlier).all()  # atoms hit before are hit now
        # another atom may look the same, so fewer seem changed
        most = RATES[severity - 1] if kind != "flipped features" else 1 - (1 - RATES[severity - 1]) ** 9
        assert changed.float().mean() <= most + 0.04
        earlier = changed
    assert earlier.float().mean() > 0.25
    if kind == "masked atoms":
        assert (worse.x[changed] == 0).all() and changed.float().mean() == pytest.approx(0.5, abs=0.06)


def test_swapped_atoms_come_from_the_same_molecule(molecules):
    worse = corrupt_graphs(molecules, "swapped atoms", 5, seed=0)
    for first, last in itertools.pairwise(molecules.node_start.tolist()):
        own = {tuple(row.tolist()) for row in molecules.x[first:last]}
        assert {tuple(row.tolist()) for row in worse.x[first:last]} <= own


def test_bonds_are_dropped_both_ways_and_the_rest_stays(molecules):
    def bonds(graphs: Graphs) -> list[set[tuple[int, int]]]:
        ranges = itertools.pairwise(graphs.edge_start.tolist())
        return [set(map(tuple, graphs.edge_index[:, a:b].T.tolist())) for a, b in ranges]

    original = earlier = bonds(molecules)
    for severity in SEVERITIES:
        worse = corrupt_graphs(molecules, "dropped bonds", severity, seed=2)
        now = bonds(worse)
        assert all(left <= before for left, before in zip(now, earlier, strict=True))
        assert all((b, a) in left for left in now for a, b in left)
        assert torch.equal(worse.x, molecules.x)
        fraction = 1 - sum(map(len, now)) / sum(map(len, original))
        assert fraction == pytest.approx(RATES[severity - 1], abs=0.06)
        batch = worse[np.arange(len(worse))]
        assert batch.edge_index.shape[1] == sum(map(len, now)) and batch.edge_index.max() < len(worse.x)
        earlier = now


@pytest.mark.parametrize("kind", MOLECULE_CORRUPTIONS)
def test_corrupted_molecules_can_be_taken_and_those_taken_be_corrupted(molecules, kind):
    index = np.array([40, 3, 3, 17, 66])
    worse = corrupt_graphs(molecules, kind, 5, seed=2)
    ours, theirs = worse.take(index)[np.arange(5)], worse[index]
    for name in ("x", "edge_index", "batch"):
        assert torch.equal(getattr(ours, name), getattr(theirs, name))
    assert worse.smiles == molecules.smiles and worse.take(index).smiles == tuple(molecules.smiles[i] for i in index)

    few = molecules.take(index)
    worse = corrupt_graphs(few, kind, 5, seed=2)
    assert len(worse) == 5 and worse.smiles == few.smiles and worse.x.shape == few.x.shape
    batch = worse[np.arange(5)]
    if kind == "dropped bonds":
        assert torch.equal(worse.x, few.x) and 0 < batch.edge_index.shape[1] < few.edge_index.shape[1]
    else:
        assert not torch.equal(batch.x, few.x) and torch.equal(batch.edge_index, few[np.arange(5)].edge_index)
    if kind == "flipped features":  # from these molecules, not from others
        for feature in range(9):
            assert set(worse.x[:, feature].tolist()) <= set(few.x[:, feature].tolist())


def test_an_unknown_kind_or_severity_is_named(faces, molecules):
    with pytest.raises(ValueError, match=r"kind: got 'rain'; allowed: 'Gaussian noise', "):
        corrupt_images(faces, "rain", 1, 0)
    with pytest.raises(ValueError, match=r"severity: got 6; allowed: 1, 2, 3, 4, 5"):
        corrupt_graphs(molecules, "masked atoms", 6, 0)
