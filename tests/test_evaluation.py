"""What a fitted model is worth: errors in two units, order, the loss gap, corrupted inputs, and the view."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from worlds import molecules

from rnclib import evaluation, rnc_loss, rnc_lower_bound
from rnclib.data import Split, corruptions
from rnclib.data.images import Images
from rnclib.metrics import rank_agreement
from rnclib.recipe import Stage

RNC = Stage(
    "rnc", epochs=1, batch_size=8, learning_rate=0.05, lr_decay_rate=0.1, weight_decay=0,
    temperature=0.5, label_diff="l1", feature_sim="l2",
)  # fmt: skip


@dataclass
class Sums:
    """Predicts a sum over each sample's inputs, and remembers what it was given."""

    seen: list[Any]

    def predict(self, inputs: Any) -> np.ndarray:
        self.seen.append(inputs)
        if isinstance(inputs, Images):
            return inputs.cropped(np.arange(len(inputs))).double().mean(dim=(1, 2, 3)).numpy()
        batch = inputs[np.arange(len(inputs))]
        return torch.zeros(len(inputs)).index_add(0, batch.batch, batch.x.sum(dim=1)).double().numpy()


@pytest.mark.parametrize(
    ("value", "digits", "expected"),
    [(1.23456789, 7, 1.234568), (123456.789, 3, 123000.0), (math.nan, 7, None), (math.inf, 7, None), (0.0, 7, 0.0)],
)
def test_numbers_are_rounded_to_digits_and_none_where_not_finite(value, digits, expected):
    assert evaluation.rounded(value, digits) == expected


def test_errors_are_in_standard_deviations_of_the_training_targets_and_in_their_unit():
    target, off = np.array([10.0, 20, 30]), np.array([1.0, -2, 6])
    errors = evaluation.errors(target + off, target, scaler=(15.0, 4.0))
    assert errors["raw"] == pytest.approx({"mae": 3, "mse": 41 / 3, "rmse": math.sqrt(41 / 3)})
    scaled = {"mae": 3 / 4, "mse": 41 / 3 / 16, "rmse": math.sqrt(41 / 3) / 4}
    assert errors["standardised"] == pytest.approx(scaled)


def test_order_compares_distances_of_features_with_those_of_target_and_nuisance():
    rng = np.random.default_rng(0)
    features, target, nuisance = rng.normal(size=(12, 3)), rng.normal(size=12), rng.normal(size=12)
    assert evaluation.order(features, target) == {"rank_agreement": rank_agreement(features, target)}
    both = evaluation.order(features, target, nuisance)
    assert both == {
        "rank_agreement": rank_agreement(features, target), "nuisance_agreement": rank_agreement(features, nuisance),
    }  # fmt: skip
    assert evaluation.order(target[:, None], target)["rank_agreement"] == pytest.approx(1)
    assert evaluation.order(features[:2], target[:2]) == {}


@pytest.mark.parametrize(
    "stage",
    [
        RNC,
        replace(RNC, feature_sim="cosine", label_diff="l2"),
        replace(RNC, unit_features=True),
        replace(RNC, ties="rounding"),
    ],
    ids=["l2", "cosine", "unit", "ties"],
)
def test_the_loss_gap_is_the_loss_less_its_lower_bound(stage):
    rng = np.random.default_rng(0)
    features, labels = rng.normal(size=(10, 4)), torch.linspace(0, 3, 10)
    seen = features / np.linalg.norm(features, axis=1, keepdims=True) if stage.unit_features else features
    ties = stage.ties or "exact"
    options = {"temperature": 0.5, "label_diff": stage.label_diff, "feature_sim": stage.feature_sim, "ties": ties}
    expected = rnc_loss(torch.from_numpy(seen).float(), labels, **options).item()
    expected -= rnc_lower_bound(labels, label_diff=stage.label_diff, ties=ties)
    assert evaluation.loss_gap(stage, features, labels) == pytest.approx(expected, rel=1e-5) and expected > 0


def test_only_rank_n_contrast_has_a_loss_gap():
    supcon = replace(RNC, loss="supcon", label_diff=None, feature_sim=None, n_bins=3)
    assert math.isnan(evaluation.loss_gap(supcon, np.zeros((4, 2)), torch.arange(4.0)))


def test_corrupted_molecules_are_those_of_the_samples_asked_for():
    standin, index, fitted = molecules(), np.array([7, 3, 50]), Sums([])
    target = np.array([1.0, 2.0, 3.0])
    found = evaluation.corrupted_errors(fitted, standin.inputs, target, index, seed=4)
    assert set(found) == set(corruptions.MOLECULE_CORRUPTIONS)
    for kind, errors in found.items():
        assert len(errors) == len(corruptions.SEVERITIES)
        for severity, error in zip(corruptions.SEVERITIES, errors, strict=True):
            corrupted = corruptions.corrupt_graphs(standin.inputs, kind, severity, 4)[index]
            sums = [float(corrupted.x[corrupted.batch == i].sum()) for i in range(3)]
            assert error == pytest.approx(np.abs(np.subtract(sums, target)).mean(), rel=1e-4)
    assert all(graphs.smiles == tuple(standin.inputs.smiles[i] for i in index) for graphs in fitted.seen)


def test_corrupted_images_are_made_of_what_the_network_sees(faces):
    index, fitted = np.array([5, 2]), Sums([])
    found = evaluation.corrupted_errors(fitted, faces.inputs, faces.targets[index], index, seed=4)
    assert set(found) == set(corruptions.IMAGE_CORRUPTIONS)
    seen = faces.inputs.cropped(index).numpy()
    assert seen.shape == (2, 16, 16, 3)  # the pixels that are stored around them are no part of it
    for kind, errors in found.items():
        for severity, error in zip(corruptions.SEVERITIES, errors, strict=True):
            pixels = corruptions.corrupt_images(seen, kind, severity, 4).astype(float).mean(axis=(1, 2, 3))
            assert error == pytest.approx(np.abs(pixels - faces.targets[index]).mean(), rel=1e-4)


def test_an_error_on_corrupted_inputs_that_is_not_finite_is_none():
    class Broken:
        def predict(self, inputs: Any) -> np.ndarray:
            return np.full(len(inputs), np.nan)

    found = evaluation.corrupted_errors(Broken(), molecules().inputs, np.zeros(2), np.array([0, 1]), seed=0)
    assert {error for errors in found.values() for error in errors} == {None}


def test_the_view_names_each_samples_nearest_training_sample():
    features = np.array([[0.0, 0], [1, 0], [5, 0], [5.5, 0], [1.2, 0], [20, 1]])
    split = Split(train=np.array([0, 2, 3, 5]), val=np.array([1]), test=np.array([4]))
    view = pd.read_csv(io.StringIO(evaluation.view(features, split, np.arange(6.0))))
    assert view["nearest"].tolist() == [2, 0, 3, 2, 0, 3]
    assert view["part"].tolist() == ["train", "val", "train", "train", "test", "train"]


def test_the_view_has_principal_components_of_the_training_set():
    rng = np.random.default_rng(1)
    features, targets = rng.normal(size=(30, 5)) * [5, 3, 1, 1, 1], np.arange(30.0)
    split = Split(train=np.arange(20), val=np.arange(20, 25), test=np.arange(25, 29))  # 29 is in none
    nuisance = rng.normal(size=30)
    view = pd.read_csv(io.StringIO(evaluation.view(features, split, targets, nuisance)))
    assert view["index"].tolist() == list(range(29))
    assert np.allclose(view["nuisance"], nuisance[:29], atol=1e-3) and view["target"].tolist() == list(range(29))
    centred = features - features[:20].mean(axis=0)
    _, _, axes = np.linalg.svd(centred[:20])
    scores = (centred @ axes[:2].T)[:29]
    scores /= scores[:20, 0].std()
    for name, column in (("pc1", scores[:, 0]), ("pc2", scores[:, 1])):
        sign = np.sign(np.corrcoef(column, view[name])[0, 1])
        np.testing.assert_allclose(view[name], sign * column, atol=1e-3)
    assert np.corrcoef(view["pc1"][:20], targets[:20])[0, 1] > 0  # the target grows to the right
    assert view["pc2"][view["pc2"].abs().argmax()] > 0  # and the extreme point is on top
