"""`RnCRegressor`: scikit-learn's own checks, every kind of input, weights, intervals, neighbours, and saved models."""

from __future__ import annotations

import json
import math
import pickle
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import save, save_file
from sklearn import config_context
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_score, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from torch import nn

import rnclib
from rnclib.estimator import RnCRegressor
from rnclib.recipe import Recipe
from rnclib.saved import FORMAT
from rnclib.vectoriser import Vectoriser, is_frame

METHODS = ("rnc", "joint", "end_to_end")


def quick(method: str = "rnc", **settings) -> RnCRegressor:
    """A regressor that takes few steps."""
    return RnCRegressor(method, **{"epochs": 6, "batch_size": 256, "random_state": 0} | settings)


def numbers(n: int = 120, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 3))
    return x, 100 + 5 * x[:, 0] + np.sin(2 * x[:, 1]) + 0.1 * rng.normal(size=n)


@pytest.fixture(scope="module")
def fitted() -> RnCRegressor:
    return quick(calibration_fraction=0.2).fit(*numbers())


# --- scikit-learn's contract ------------------------------------------------------------------------------------


def expected_failures(estimator: RnCRegressor) -> dict[str, str]:
    batches = (
        "samples are visited in mini-batches, and the loss compares pairs: twice a sample is a pair, weight 2 none"
    )
    return {"check_sample_weight_equivalence_on_dense_data": batches}


@parametrize_with_checks([quick(epochs=8, head="ridge")], expected_failed_checks=expected_failures)
def test_scikit_learns_own_checks(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks([quick(method, epochs=12) for method in METHODS], expected_failed_checks=expected_failures)
def test_scikit_learns_own_checks_with_every_method_and_regressor(estimator, check):
    check(estimator)


def test_it_stands_in_pipelines_searches_and_cross_validation():
    x, y = numbers()
    pipeline = make_pipeline(StandardScaler(), quick())
    assert cross_val_score(pipeline, x, y, cv=2).min() > 0.3
    search = GridSearchCV(quick(), {"temperature": [0.5, 2.0]}, cv=2, n_jobs=1).fit(x, y)
    assert search.best_estimator_.recipe_.pretrain.temperature == search.best_params_["temperature"]
    assert rnclib.RnCRegressor is RnCRegressor


@pytest.mark.parametrize("method", METHODS)
def test_a_copy_with_the_same_seed_is_the_same(method):
    x, y = numbers(60)
    x[3, 1] = np.nan
    model = quick(method).fit(x, y)
    again = clone(model).fit(x, y)
    np.testing.assert_array_equal(again.predict(x), model.predict(x))
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(model)).predict(x), model.predict(x))
    assert np.abs(clone(model).set_params(random_state=1).fit(x, y).predict(x) - model.predict(x)).max() > 1e-3
    stage, usual = (one.pretrain or one.fit for one in (model.recipe_, Recipe.default("table", method)))
    assert stage == replace(usual, epochs=6, batch_size=256)
    assert len(model.loss_curve_) == model.n_iter_ == 6


def test_it_learns_what_can_be_learnt():
    x, y = numbers(400)
    for method in METHODS:
        assert quick(method, epochs=30).fit(x[:200], y[:200]).score(x[200:], y[200:]) > 0.9, method


@pytest.mark.parametrize("method", METHODS)
def test_several_targets_are_learnt_together(method):
    x, y = numbers()
    both = np.column_stack([y, -3 * y + x[:, 2]])
    model = quick(method, epochs=20, calibration_fraction=0.2).fit(x, both)
    found, low, high = model.predict(x, return_interval=True)
    assert found.shape == low.shape == high.shape == both.shape and model.score(x, both) > 0.6
    assert np.unique(np.round(high - low, 9), axis=0).shape == (1, 2)  # a width for each target


# --- weights ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_samples_of_weight_0_are_as_if_they_were_not_there(method):
    x, y = numbers(60)
    weights = np.random.default_rng(1).random(60) + 0.1
    weights[::4] = 0
    spoilt = np.where(weights == 0, 1e6, y)
    kept = weights > 0
    model = quick(method).fit(x, spoilt, weights)
    np.testing.assert_array_equal(model.predict(x), quick(method).fit(x[kept], y[kept], weights[kept]).predict(x))
    assert model.head_ in ("linear", "ridge")


@pytest.mark.parametrize("method", METHODS)
def test_only_proportions_of_weights_matter_and_they_do(method):
    x, y = numbers(60)
    y = np.where(np.arange(60) % 2, y, y + 20 * x[:, 2])  # two kinds of samples
    heavy = np.where(np.arange(60) % 2, 50.0, 1.0)
    one, two, plain = (quick(method, epochs=20).fit(x, y, w) for w in (heavy, 7 * heavy, np.ones(60)))
    np.testing.assert_allclose(one.predict(x), two.predict(x), atol=1e-2)
    errors = [np.abs(model.predict(x[1::2]) - y[1::2]).mean() for model in (one, plain)]
    assert errors[0] < 0.8 * errors[1]


# --- intervals --------------------------------------------------------------------------------------------------


def test_an_interval_is_the_quantile_of_the_held_out_residuals(fitted):
    x, y = numbers()
    held = fitted.calibration_
    residuals = sorted(abs(float(one)) for one in fitted.predict(x[held]) - y[held])
    assert len(residuals) == 24
    for level, rank in ((0.9, math.ceil(25 * 0.9)), (0.5, 13), (0.96, 24)):
        found, low, high = fitted.predict(x[:7], return_interval=True, level=level)
        np.testing.assert_allclose(high - found, residuals[rank - 1], rtol=1e-9)
        np.testing.assert_allclose(found - low, residuals[rank - 1], rtol=1e-9)
    # ranks that floating point takes for one more: (n + 1) · level is whole
    for n, level, rank in ((29, 0.5, 15), (35, 0.8, 29), (9, 0.9, 9), (99, 0.55, 55)):
        model = copy(fitted)
        model._residuals = np.random.default_rng(0).permutation(np.arange(1.0, n + 1))
        found, low, high = model.predict(x[:2], return_interval=True, level=level)
        np.testing.assert_allclose(high - found, rank)
    model._residuals = np.arange(8.0)
    with pytest.raises(ValueError, match=r"^level: got 0\.9 with 8 samples to calibrate; allowed: with at least 9"):
        model.predict(x, return_interval=True, level=0.9)
    with pytest.raises(ValueError, match=r"^level: got 0\.97 with 24 samples to calibrate; allowed: with at least 33"):
        fitted.predict(x, return_interval=True, level=0.97)
    with pytest.raises(ValueError, match=r"^return_interval: got True; allowed: after fit with a calibration_fraction"):
        quick().fit(x, y).predict(x, return_interval=True)
    parts = np.concatenate([fitted.training_, fitted.validation_, held])
    assert sorted(parts) == list(range(120)) and len(fitted.validation_) == 12


@pytest.mark.slow
def test_intervals_cover_what_they_say():
    """Over 50 training sets; the mean over them of the coverage of 1000 new samples."""
    for level in (0.8, 0.9):
        covered = []
        for seed in range(50):
            x, y = numbers(1240, seed)
            model = quick(calibration_fraction=0.4, head="ridge").fit(x[:240], y[:240])
            _, low, high = model.predict(x[240:], return_interval=True, level=level)
            covered.append(np.mean((low <= y[240:]) & (y[240:] <= high)))
        assert abs(np.mean(covered) - level) < 0.02, level


@pytest.mark.slow
def test_intervals_cover_what_they_say_where_many_inputs_are_equal():
    """A control sample, measured again and again with much noise, is too large a group to be held out as a whole."""
    covered = []
    for seed in range(50):
        rng = np.random.default_rng(seed)
        x, control = rng.normal(size=(1240, 3)), rng.random(1240) < 0.4
        x[control] = 0
        y = x[:, 0] + np.where(control, 5.0, 0.1) * rng.normal(size=1240)
        model = quick(calibration_fraction=0.4, random_state=seed).fit(x[:240], y[:240])
        _, low, high = model.predict(x[240:], return_interval=True, level=0.9)
        covered.append(np.mean((low <= y[240:]) & (y[240:] <= high)))
    assert abs(np.mean(covered) - 0.9) < 0.02


# --- groups -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3, 17])
def test_what_is_held_out_is_of_other_groups(size):
    x, y = numbers(120)
    groups = np.random.default_rng(0).permutation([f"p{i // size}" for i in range(120)])
    model = quick(calibration_fraction=0.2).fit(x, y, groups=groups)
    parts = model.training_, model.validation_, model.calibration_
    assert sorted(np.concatenate(parts)) == list(range(120)) and all(map(len, parts))
    patients = [set(groups[part]) for part in parts]
    assert sum(map(len, patients)) == len(set(groups))  # none is in two parts
    if size == 1:  # as if there were no groups
        again = quick(calibration_fraction=0.2).fit(x, y)
        np.testing.assert_array_equal(again.validation_, model.validation_)
        np.testing.assert_array_equal(again.predict(x), model.predict(x))


def test_groups_that_leave_nothing_to_hold_out_are_refused():
    x, y = numbers(40)
    with pytest.raises(ValueError, match=r"^groups: got 1 distinct; allowed: at least 2, some to hold out"):
        quick().fit(x, y, groups=["a"] * 40)
    with pytest.raises(ValueError, match=r"^groups: got 39; allowed: one for each of 40 samples"):
        quick().fit(x, y, groups=["a"] * 39)
    with pytest.raises(ValueError, match=r"^groups: got int .*; allowed: a text or number a sample"):
        quick().fit(x, y, groups=3)
    with pytest.raises(ValueError, match=r"^groups: got 2 missing; allowed: a text or number a sample"):
        quick().fit(x, y, groups=[np.nan, None] + ["a", "b"] * 19)
    model = quick(epochs=8).fit(x, y, groups=[0] * 25 + [1] * 15)
    assert model.validation_.tolist() == list(range(25, 40))  # the smaller one


def test_cross_validation_hands_groups_on():
    x, y = numbers(60)
    groups = [i // 4 for i in range(60)]
    with config_context(enable_metadata_routing=True):
        model = quick("end_to_end").set_fit_request(groups=True)
        given = {"cv": GroupKFold(2), "params": {"groups": groups}, "return_estimator": True, "return_indices": True}
        found = cross_validate(model, x, y, **given)
    for one, rows in zip(found["estimator"], found["indices"]["train"], strict=True):
        of = np.array(groups)[rows]
        assert not set(of[one.training_]) & set(of[one.validation_])


def test_equal_inputs_are_held_out_together_unless_few_differ(tmp_path, monkeypatch):
    monkeypatch.setenv("RNC_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    y, number = rng.normal(size=80), rng.permutation(np.arange(80) // 2)
    x = rng.normal(size=(40, 2))
    mixed = pd.DataFrame({"a": x[:, 0], "b": [f"t{i % 7}" for i in range(40)]})
    smiles = ["C" * (i // 2 + 1) + ("O" if i % 2 else "N") for i in range(40)]
    turned = [one[::-1] for one in smiles]  # the same molecule
    for i in range(40):
        picture = rng.integers(0, 255, (9, 9, 3), np.uint8)
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
        Image.fromarray(picture).save(tmp_path / f"{i}.bmp")
    first = np.array([i not in number[:k] for k, i in enumerate(number)])
    names = [f"{tmp_path}/{i}.{'png' if one else 'bmp'}" for i, one in zip(number, first, strict=True)]
    for X, settings in (
        (x[number], {}), (x[number], {"encoder": nn.Linear(2, 4)}), (mixed.iloc[number], {}),
        ([(smiles if one else turned)[i] for i, one in zip(number, first, strict=True)], {"inputs": "smiles"}),
        (names, {"inputs": "images", "image_size": 8, "batch_size": 32}),
    ):  # fmt: skip
        model = quick("end_to_end", validation_fraction=0.3, **settings).fit(X, y)
        assert len(model.validation_) == 24 and not set(number[model.validation_]) & set(number[model.training_])
    few = quick("end_to_end", validation_fraction=0.3).fit(x[number % 2], y)
    assert len(few.validation_) == 24
    # what calibrates is a random sample of all rows, as new ones are
    model = quick("end_to_end", validation_fraction=0.2, calibration_fraction=0.3).fit(x[number], y)
    assert len(model.calibration_) == 24 and set(number[model.calibration_]) & set(number[model.training_])
    assert len(model.validation_) == 16 and not set(number[model.validation_]) & set(number[model.training_])


def test_images_of_predictions_do_not_stay_in_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("RNC_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for i in range(24):
        Image.fromarray(rng.integers(0, 255, (9, 9, 3), np.uint8)).save(tmp_path / f"{i}.png")
    paths = [str(tmp_path / f"{i}.png") for i in range(24)]
    model = quick("end_to_end", inputs="images", image_size=8).fit(paths[:20], np.arange(20.0))
    kept = list((tmp_path / "cache" / "images").iterdir())
    found = model.predict(paths[18:])
    read = model.inputs_of(paths[18:])
    np.testing.assert_array_equal(model.predict(read), found)
    assert model.transform(read).shape[0] == 6 and model.kneighbors(read, n_neighbors=1)[1][:2, 0].tolist() == [18, 19]
    assert len(kept) == 1 and list((tmp_path / "cache" / "images").iterdir()) == kept


# --- features ---------------------------------------------------------------------------------------------------


def test_neighbours_are_the_nearest_features(fitted):
    x, _ = numbers()
    features = fitted.transform(x)
    distances = np.linalg.norm(features[:, None] - features[None], axis=2)
    found, rows = fitted.kneighbors(x[:9], n_neighbors=3)
    np.testing.assert_allclose(found, np.sort(distances[:9], axis=1)[:, :3], atol=1e-6)
    assert rows[:, 0].tolist() == list(range(9))
    others = fitted.kneighbors(n_neighbors=2, return_distance=False)
    np.fill_diagonal(distances, np.inf)
    assert others[:, 0].tolist() == distances.argmin(axis=1).tolist()


def test_no_batch_of_one_is_left_for_batch_norm():
    x, y = numbers(50)
    own = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU())
    settings = {"epochs": 5, "batch_size": 4, "early_stopping": True, "encoder": own}
    model = RnCRegressor("end_to_end", random_state=0, **settings).fit(x, y)  # 45 of 50 would train
    assert len(model.training_) == 44 and len(model.validation_) == 6


def test_early_stopping_keeps_the_best_epoch():
    x, y = numbers(60)
    for method in METHODS:
        model = quick(method, epochs=300, early_stopping=True, n_iter_no_change=4).fit(x, y)
        assert model.recipe_.pretrain is None or model.recipe_.pretrain.patience == 4
        assert 5 <= model.n_iter_ < 300, method
        losses = model._network.stages[0].history
        assert losses.best_epoch == model.n_iter_ - 4 == 1 + int(np.argmin(losses.val_loss)), method


# --- other inputs -----------------------------------------------------------------------------------------------

SMILES = ["C" * n for n in range(1, 9)] + ["C" * n + "O" for n in range(1, 9)] + ["C" * n + "N" for n in range(1, 9)]


def test_molecules_are_read_from_smiles(tmp_path):
    y = np.array([len(one) for one in SMILES], float)
    model = quick("joint", inputs="smiles", epochs=30).fit(pd.DataFrame({"smiles": SMILES}), y)
    assert model.score(SMILES, y) > 0.5 and model.transform(SMILES).shape == (24, 128)
    model.save(tmp_path / "m.safetensors")
    again = RnCRegressor.load(tmp_path / "m.safetensors")
    np.testing.assert_allclose(again.predict(SMILES), model.predict(SMILES), rtol=1e-12)
    with pytest.raises(ValueError, match=r"^X: got 'C\(C' in row 1; allowed: SMILES that RDKit can read"):
        model.predict(["CC", "C(C"])
    with pytest.raises(ValueError, match=r"^X: got 3 in row 0; allowed: text"):
        model.predict([3])


def test_images_are_read_from_paths(tmp_path, monkeypatch):
    monkeypatch.setenv("RNC_CACHE", str(tmp_path / "cache"))
    rng, paths, y = np.random.default_rng(0), [], []
    for i in range(12):
        pixels = np.clip(rng.normal(20 * i, 5, (20, 20, 3)), 0, 255).astype(np.uint8)
        paths.append(str(tmp_path / f"{i}.png"))
        Image.fromarray(pixels).save(paths[-1])
        y.append(float(i))
    model = quick("end_to_end", encoder=Waves()).fit(np.random.default_rng(0).normal(size=(len(y), 2, 5)), y)
    # of the network that it had before nothing is left, in a file neither
    model.set_params(encoder=None, inputs="images", image_size=16, epochs=5).fit(paths, y)
    assert model.predict(paths[:2]).shape == (2,)
    model.save(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(RnCRegressor.load(tmp_path / "m.safetensors").predict(paths), model.predict(paths))


class Waves(nn.Module):
    """A network of one's own, on arrays of shape (n, 2, 5)."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.linear = nn.Linear(10, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.sin(self.linear(x.flatten(1)))


@pytest.mark.parametrize("method", METHODS)
def test_a_network_of_ones_own_is_trained_from_its_weights_and_not_changed(method, tmp_path):
    x = np.random.default_rng(0).normal(size=(50, 2, 5))
    y = x[:, 0, 0] - x[:, 1, 1]
    encoder = Waves()
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    model = quick(method, encoder=encoder).fit(x, y)
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())
    assert model.transform(x).shape == (50, 6) and model.score(x, y) > 0
    model.save(tmp_path / "m.safetensors")
    again = RnCRegressor.load(tmp_path / "m.safetensors", encoder=Waves())
    np.testing.assert_array_equal(again.predict(x), model.predict(x))
    with pytest.raises(ValueError, match=r"^encoder: got NoneType; allowed: a module for .*m\.safetensors"):
        RnCRegressor.load(tmp_path / "m.safetensors")
    with pytest.raises(
        ValueError, match=r"^encoder: got Linear, bias of shape \(6,\), saved none; allowed: a module of"
    ):
        RnCRegressor.load(tmp_path / "m.safetensors", encoder=nn.Linear(10, 6))
    for wrong in (x[:, :, :4], x.reshape(50, 5, 2), x.reshape(50, 10)):
        with pytest.raises(ValueError, match=r"^X: got shape \(50, .*\); allowed: n entries of shape \(2, 5\)"):
            again.predict(wrong)
    np.testing.assert_allclose(model.predict(x[::-1]), model.predict(x)[::-1], rtol=1e-5)
    with pytest.raises(ValueError, match=r"^X: got NaN or infinite numbers; allowed: finite ones"):
        model.predict(x * np.nan)


def test_a_table_for_a_network_of_ones_own_has_its_columns_in_order():
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(30, 3)), columns=list("abc"))
    model = quick("joint", encoder=nn.Linear(3, 4)).fit(table, table["a"])
    assert model.feature_names_in_.tolist() == list("abc")
    with pytest.raises(ValueError, match="feature names"):
        model.predict(table[["b", "a", "c"]])


class Odd(nn.Linear):
    """A module that is no encoder."""

    def forward(self, x: torch.Tensor) -> tuple:
        return (x,)


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (nn.Linear, "got type; allowed: an instance of torch.nn.Module"),
        (nn.Identity(), "got a module without parameters to train"),
        (torch.compile(nn.Linear(3, 2)), "got a module from torch.compile; allowed: the module itself"),
        (nn.Linear(7, 2), r"got a module that fails on two inputs \(mat1"),
        (Odd(3, 2), "got a module that fails on two inputs"),
        (nn.Sequential(nn.Linear(3, 4), nn.Unflatten(1, (2, 2))), r"got features of shape \(2, 2, 2\)"),
    ],
)
def test_a_module_that_is_no_encoder_is_named(encoder, message):
    with pytest.raises(ValueError, match=f"^encoder: {message}"):
        quick(encoder=encoder).fit(*numbers(20))


# --- tables of mixed columns ------------------------------------------------------------------------------------


def mixed(n: int = 80, seed: int = 0) -> tuple[pd.DataFrame, np.ndarray]:
    rng = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "size": rng.normal(size=n),
            "new": rng.random(n) > 0.5,
            "colour": rng.choice(["red", "green", "blue"], n),
            "name": [f"number {i} of {rng.integers(1000)}" for i in range(n)],
            "when": pd.date_range("2024-01-01", periods=n, freq="D").strftime("%Y-%m-%d"),
            "grade": pd.Categorical(rng.choice(["a", "b"], n)),
            "count": pd.array(rng.integers(0, 9, n), dtype="Int64"),
        }
    )
    table.loc[2, "colour"] = None
    table.loc[3, "size"] = np.nan
    table.loc[4, "count"] = pd.NA
    y = table["size"].fillna(0) + 3 * (table["colour"] == "red")
    return table, y.to_numpy(float)


def test_a_table_may_have_text_dates_and_truth_values(tmp_path):
    table, y = mixed()
    model = quick("joint", epochs=60).fit(table, y)
    assert model.score(table, y) > 0.5
    assert model.feature_names_in_.tolist() == list(table) and model.n_features_in_ == 7
    model.save(tmp_path / "m.safetensors")
    again = RnCRegressor.load(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(again.predict(table), model.predict(table))
    np.testing.assert_allclose(again.predict(table.iloc[5:6]), model.predict(table)[5:6], rtol=1e-6)
    with pytest.warns(UserWarning, match=r"no category of training"):
        assert np.isfinite(model.predict(table.assign(colour="mauve"))).all()
    with pytest.raises(ValueError, match="feature names"):
        model.predict(table.drop(columns="when"))


def test_a_vectoriser_is_all_in_its_state():
    table, _ = mixed()
    made = Vectoriser.of(table)
    again = Vectoriser(**json.loads(json.dumps(made.state())))
    np.testing.assert_array_equal(again(table), made(table))
    assert made.plain == ["size", "new", "count"] and sorted(made.examples["colour"], key=str) == [
        None,
        "blue",
        "green",
        "red",
    ]
    shuffled = table.sample(frac=1, random_state=0)
    np.testing.assert_array_equal(made(shuffled), made(table)[shuffled.index])
    assert is_frame(table) and not is_frame(table[["size", "new"]]) and not is_frame(np.zeros((2, 2)))
    with pytest.raises(ValueError, match=r"^X: got a table without \['size'\]; allowed: a DataFrame with the columns"):
        made(table.drop(columns="size"))
    with pytest.raises(ValueError, match=r"^X: got ndarray; allowed: a DataFrame"):
        made(np.zeros((2, 7)))
    with pytest.raises(ValueError, match=r"^X: got an infinite number"):
        made(table.assign(size=np.inf))


@pytest.mark.parametrize("trained_on", ["text", "moments"])
def test_a_date_means_the_same_in_every_form_that_can_be_read(trained_on):
    rng = np.random.default_rng(0)
    days = pd.Series(pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 1400, 60), unit="D"))
    forms = {"text": days.dt.strftime("%Y-%m-%d"), "moments": days, "long": days.dt.strftime("%Y-%m-%d 00:00:00")}
    forms |= {"zone": days.dt.strftime("%Y-%m-%dT00:00:00Z")}
    made = Vectoriser.of(pd.DataFrame({"day": forms[trained_on], "x": np.arange(60.0)}))
    expected = np.c_[np.arange(60), days.dt.year, days.dt.month, days.dt.day]
    for form in forms.values():
        found = made(pd.DataFrame({"day": form.to_numpy(), "x": np.arange(60.0)}, index=np.arange(60) // 2))
        np.testing.assert_array_equal(found[:, :4], expected)
        np.testing.assert_allclose(found[:, 4], (days - pd.Timestamp(0)).dt.total_seconds(), rtol=1e-6)
    with pytest.warns(
        UserWarning, match=r"^X: got 2 cells such as '31\.12\.2020' in column 'day' that are no date as in"
    ):
        found = made(pd.DataFrame({"day": ["31.12.2020", "2020-12-31", "?", None], "x": 0.0}))
    np.testing.assert_array_equal(np.isnan(found).any(axis=1), [True, False, True, True])


def test_dates_that_may_have_day_or_month_first_are_named():
    first_of_month = pd.DataFrame({"day": [f"01/{month:02}/20{year}" for year in (20, 21) for month in range(1, 13)]})
    with pytest.warns(
        UserWarning, match=r"^X: dates of column 'day', such as '01/01/2020', are read with the month first"
    ):
        Vectoriser.of(first_of_month)
    Vectoriser.of(first_of_month.assign(day=first_of_month["day"].str.replace("01/", "13/", n=1)))  # no month
    with pytest.warns(UserWarning, match=r"^X: got 1 cells such as '1,5' in column 'x' that are no number"):
        Vectoriser.of(pd.DataFrame({"x": [f"{i}.5" for i in range(50)]}))(pd.DataFrame({"x": ["1,5"]}))


# --- saved models -----------------------------------------------------------------------------------------------


def test_columns_are_read_as_what_they_are():
    n, rng = 300, np.random.default_rng(0)
    days = pd.Series(pd.date_range("2024-01-01", periods=n, freq="D"))
    table = pd.DataFrame(
        {
            "code": pd.Categorical(rng.integers(0, 20, n)),  # numbers that are names
            "seconds": pd.array(1_700_000_000 + np.arange(n), dtype="Int64"),
            "flag": pd.array(rng.random(n) > 0.5, dtype="boolean"),
            "took": pd.to_timedelta(np.arange(n), unit="min"),
            "day first": days.dt.strftime("%d/%m/%Y"),
            "fine": pd.to_datetime(rng.integers(0, 10**12, n), unit="ms"),
            "zone": days.dt.tz_localize("Europe/Berlin"),
            "late": [*map(str, range(n - 1)), "A1"],  # text that begins like numbers
        }
    )
    table.loc[5, "seconds"] = pd.NA
    made = Vectoriser.of(table)
    values = pd.DataFrame(made(table), columns=[*made.plain, *made._skrub.get_feature_names_out()])
    assert made.plain == ["seconds", "flag", "took"] and values["seconds"].nunique() == n - 1
    assert values["took"].tolist() == (60.0 * np.arange(n)).tolist()
    kinds = made._skrub.column_to_kind_
    assert kinds["code"] == "low_cardinality" and kinds["late"] == "high_cardinality"
    assert values["day first_day"].tolist() == days.dt.day.tolist() and values["day first_month"].tolist() == (
        days.dt.month.tolist()
    )
    np.testing.assert_allclose(
        values["fine_total_seconds"], (table["fine"] - pd.Timestamp(0)).dt.total_seconds(), rtol=1e-6
    )
    assert (values["zone_hour"] == table["zone"].dt.tz_convert("UTC").dt.hour).all()
    np.testing.assert_array_equal(made(table.iloc[7:8]), made(table)[7:8])
    np.testing.assert_array_equal(Vectoriser(**json.loads(json.dumps(made.state())))(table), made(table))


def test_what_calibrates_is_as_unknown_as_a_new_sample():
    table, y = mixed()
    model = quick(calibration_fraction=0.2, head="linear").fit(table, y)
    alone = table.assign(colour=table["colour"].astype(object))
    alone.loc[model.calibration_[0], "colour"] = "mauve"
    with pytest.warns(UserWarning, match=r"^X: got 1 cells such as 'mauve' in column 'colour' that are no category"):
        again = quick(calibration_fraction=0.2, head="linear").fit(alone, y)
    assert "mauve" not in again._vectoriser.examples["colour"]
    kept = np.setdiff1d(np.arange(len(y)), model.calibration_[:1])
    np.testing.assert_array_equal(again.predict(table.iloc[kept]), model.predict(table.iloc[kept]))


def test_a_model_can_be_fitted_again_to_something_else():
    x, y = numbers(40)
    model = quick(calibration_fraction=0.2).fit(pd.DataFrame(x, columns=list("abc")), y)
    model.set_params(calibration_fraction=0.0).fit(x[:, :2], y)
    assert not hasattr(model, "feature_names_in_") and model.n_features_in_ == 2 and model._residuals is None
    before = model.predict(x[:, :2])
    with pytest.raises(ValueError, match="infinity"):
        model.fit(x, y * np.inf)
    np.testing.assert_array_equal(model.predict(x[:, :2]), before)


def test_the_validation_error_of_several_targets_is_their_mean():
    x, y = numbers()
    both = np.column_stack([y, 1000 * x[:, 2]])
    for method in METHODS:
        model = quick(method).fit(x, both)
        rows = model.validation_
        assert model.validation_error_ == pytest.approx(np.abs(model.predict(x[rows]) - both[rows]).mean(), rel=1e-6)


def test_threads_do_not_change_each_others_random_numbers():
    x, y = numbers(60)

    def found(seed: int) -> np.ndarray:
        return quick("end_to_end", random_state=seed).fit(x, y).predict(x)

    alone = [found(seed) for seed in range(4)]
    before = torch.random.get_rng_state()
    with ThreadPoolExecutor(3) as pool:
        np.testing.assert_array_equal(list(pool.map(found, range(4))), alone)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("method", METHODS)
def test_another_default_type_of_pytorch_changes_nothing(method):
    x, y = numbers(40)
    found = quick(method).fit(x, y).predict(x)
    torch.set_default_dtype(torch.float64)
    try:
        again = quick(method).fit(x, y)
    finally:
        torch.set_default_dtype(torch.float32)
    assert again._network.linear.weight.dtype == torch.float64  # as ever: a prediction is in float64
    assert np.abs(again.predict(x) - found).max() < 3 * np.std(y)  # initial weights are drawn in another type


def test_weights_need_no_request_of_scikit_learns_routing():
    x, y = numbers(40)
    weights = np.linspace(0.5, 1.5, 40)
    found = quick().fit(x, y, weights).predict(x)
    with config_context(enable_metadata_routing=True):
        np.testing.assert_array_equal(quick().fit(x, y, weights).predict(x), found)


def test_numbers_of_numpy_are_numbers(tmp_path):
    x, y = numbers(40)
    settings = {"epochs": np.int64(6), "learning_rate": np.float32(0.003), "random_state": np.int64(3),
                "validation_fraction": np.float64(0.2)}  # fmt: skip
    model = quick(**settings).fit(x, y)
    model.save(tmp_path / "m.safetensors")
    assert RnCRegressor.load(tmp_path / "m.safetensors").random_state == 3


@pytest.mark.parametrize("head", ["linear", "ridge", "neighbours", "gaussian process"])
@pytest.mark.parametrize("scaling", ["standard", "quantile", "pieces"])
def test_a_loaded_model_is_the_same(head, scaling, tmp_path, monkeypatch):
    default = Recipe.default
    monkeypatch.setattr(Recipe, "default", lambda *given: replace(default(*given), scaling=scaling))
    x, y = numbers(50)
    x[4, 1], x[:, 2] = np.nan, np.round(x[:, 2])  # ties
    model = quick("joint", head=head, calibration_fraction=0.3).fit(x, y)
    model.save(tmp_path / "m.safetensors")
    again = RnCRegressor.load(tmp_path / "m.safetensors")
    new = np.random.default_rng(5).normal(size=(30, 3)) * 5
    for mine, theirs in zip(
        model.predict(new, return_interval=True), again.predict(new, return_interval=True), strict=True
    ):
        np.testing.assert_allclose(theirs, mine, rtol=1e-12)
    np.testing.assert_allclose(again.transform(new), model.transform(new), rtol=1e-10, atol=1e-12)
    assert again.get_params() == model.get_params() and again.recipe_ == model.recipe_
    assert (again.head_, again.validation_error_, again.n_iter_) == (model.head_, model.validation_error_, 6)
    assert again.kneighbors(new[:3])[1].tolist() == model.kneighbors(new[:3])[1].tolist()
    again.save(tmp_path / "again.safetensors")  # and can be saved again, to the same bytes
    assert (tmp_path / "again.safetensors").read_bytes() == (tmp_path / "m.safetensors").read_bytes()


def changed(path, where, **told) -> None:
    """The saved model with other entries in its header, or without a tensor."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header = json.loads(file.metadata()["rnclib"])
    for name in told.pop("without", ()):
        del tensors[name]
    save_file(tensors, where, metadata={"rnclib": json.dumps(header | told)})


def test_a_file_that_is_no_model_is_refused_in_one_line(fitted, tmp_path):
    path, bad = tmp_path / "m.safetensors", tmp_path / "bad.safetensors"
    fitted.save(path)
    whole = path.read_bytes()
    for content in (
        b"",
        whole[:100],
        whole[: len(whole) // 2],
        b"\x80\x04" + whole,
        pickle.dumps([1, 2]),
        b"PK\x03\x04",
    ):
        bad.write_bytes(content)
        with pytest.raises(ValueError, match=r"^path: got .*bad\.safetensors, which is not to be read"):
            RnCRegressor.load(bad)
    save_file({"x": torch.zeros(2)}, bad)  # somebody else's
    with pytest.raises(ValueError, match="which is not to be read"):
        RnCRegressor.load(bad)
    bad.write_bytes(save({"x": torch.zeros(2)}, metadata={"rnclib": '{"recipe": {}, "format": NaN}'}))
    with pytest.raises(ValueError, match="which is not to be read"):
        RnCRegressor.load(bad)
    with pytest.raises(ValueError, match=r"^path: got .*, a folder; allowed: a file"):
        RnCRegressor.load(tmp_path)
    changed(path, bad, format=FORMAT - 1)
    with pytest.raises(ValueError, match=rf"of format {FORMAT - 1}; allowed: {FORMAT}$"):
        RnCRegressor.load(bad)
    changed(path, bad, format=FORMAT + 1)
    with pytest.raises(ValueError, match=rf"of format {FORMAT + 1}; allowed: {FORMAT}; update rnclib"):
        RnCRegressor.load(bad)
    with pytest.raises(FileNotFoundError):
        RnCRegressor.load(tmp_path / "none")
    for told in (
        {"without": ["linear.bias"]}, {"without": ["features"]}, {"settings": {"no_such": 1}}, {"numbers": {}},
        {"recipe": fitted.recipe_.described() | {"widths": [10**7, 10**7, 10**7]}},  # of no memory here
        {"recipe": fitted.recipe_.described() | {"model": "os.system"}}, {"settings": 3}, {"scaler": "x"},
        {"numbers": {"medians": [0.0]}}, {"recipe": fitted.recipe_.described() | {"widths": [1] * 20000}},
        {"scaler": [0.0, 0.0, 1.0]}, {"single": 3, "scaler": [[0.0, 1.0], [1.0, 1.0]]},
        {"numbers": {"medians": [0.0] * 30000, "quantiles": [[]] * 30000, "mean": [], "scale": []}},
        {"regressor": {"n_neighbors": 10**6}}, {"recipe": {}},
    ):  # fmt: skip
        changed(path, bad, **told)
        with pytest.raises(ValueError, match=r"^path: got .* do not fit together"):
            RnCRegressor.load(bad)
    with pytest.raises(ValueError, match=r"^encoder: got a module; allowed: None"):
        RnCRegressor.load(path, encoder=nn.Linear(2, 2))


def test_a_model_is_written_whole_or_not_at_all(fitted, tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    fitted.save(path)
    before = path.read_bytes()

    write = type(path).write_bytes

    def full(self, content):
        write(self, content[:100])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space left"):
        patched.setattr(type(path), "write_bytes", full)
        fitted.save(path)
    assert path.read_bytes() == before and [one.name for one in tmp_path.iterdir()] == ["m.safetensors"]
    with pytest.raises(NotFittedError):
        quick().save(path)
    for wrong in (tmp_path / "none" / "m.safetensors", tmp_path):
        with pytest.raises(FileNotFoundError, match=r"^path: got .*; allowed: a file in a folder that there is"):
            fitted.save(wrong)


def test_what_is_wrong_with_a_model_that_is_saved_or_loaded_is_named(tmp_path):
    x, y = numbers(40)
    model, path = quick(encoder=nn.Linear(3, 4)).fit(x, y), tmp_path / "m.safetensors"
    model.save(path)
    for given, message in (
        ({"encoder": nn.Linear(3, 5)}, r"encoder: got Linear, bias of shape \(5,\), saved \(4,\); allowed"),
        ({"encoder": nn.Identity()}, r"encoder: got Identity, bias of shape none, saved \(4,\); allowed"),
        ({"encoder": nn.Linear}, r"encoder: got <class .*Linear'>; allowed: a module of the same shapes"),
        ({"encoder": nn.Linear(3, 4), "device": "gpu"}, r"device: got 'gpu'; allowed: 'cpu', 'cuda', 'auto'"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            RnCRegressor.load(path, **given)
    model.notes_ = {"mean": np.zeros(3)}
    with pytest.raises(ValueError, match=r"^notes_: got a value that JSON has not .*; allowed: what JSON has"):
        model.save(path)


def test_a_lazy_network_of_ones_own_is_loaded(tmp_path):
    x, y = numbers(40)
    encoder = nn.Sequential(nn.LazyLinear(4), nn.Tanh(), nn.Linear(4, 4))
    encoder(torch.zeros(1, 3))
    model = quick(encoder=encoder).fit(x, y)
    model.save(tmp_path / "m.safetensors")
    lazy = nn.Sequential(nn.LazyLinear(4), nn.Tanh(), nn.Linear(4, 4))
    np.testing.assert_array_equal(
        RnCRegressor.load(tmp_path / "m.safetensors", encoder=lazy).predict(x), model.predict(x)
    )


def test_weights_that_are_tied_are_saved(tmp_path):
    x, y = numbers(30)
    encoder = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))
    encoder[2].weight = encoder[0].weight
    model = quick("joint", encoder=encoder).fit(x, y)
    model.save(tmp_path / "m.safetensors")
    again = RnCRegressor.load(tmp_path / "m.safetensors", encoder=encoder)
    np.testing.assert_array_equal(again.predict(x), model.predict(x))


# --- errors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "simclr"}, r"method: got 'simclr'; allowed: 'rnc', 'joint', 'end_to_end'"),
        ({"method": None}, r"method: got None; allowed: 'rnc', 'joint', 'end_to_end'"),
        ({"early_stopping": "no"}, r"early_stopping: got 'no'; allowed: True or False"),
        ({"verbose": 2}, r"verbose: got 2; allowed: True or False"),
        ({"image_size": 0}, r"image_size: got 0; allowed: an integer of at least 1"),
        ({"inputs": "audio"}, r"inputs: got 'audio'; allowed: 'table', 'smiles', 'images'"),
        ({"head": "svm"}, r"head: got 'svm'; allowed: 'auto', 'linear', "),
        ({"epochs": 0}, r"epochs: got 0; allowed: an integer of at least 1"),
        ({"temperature": 0}, r"temperature: got 0; allowed"),
        ({"method": "joint", "temperature": 1.0}, r"temperature: got 1\.0 with method='joint'; allowed: with 'rnc'"),
        ({"contrastive_weight": 1.0}, r"contrastive_weight: got 1\.0 with method='rnc'; allowed: with 'joint'"),
        ({"validation_fraction": 0.0}, r"validation_fraction: got 0\.0; allowed: a number above 0 and below 1"),
        ({"calibration_fraction": 1.0}, r"calibration_fraction: got 1\.0; allowed: a number of at least 0 and below 1"),
        ({"contrastive_weight": -1.0, "method": "joint"}, r"contrastive_weight: got -1\.0; allowed"),
        ({"epochs": 2}, r"epochs: got 2, which are 2 batches; allowed: at least 5 in all"),
        ({"batch_size": 2}, r"batch_size: got 2; allowed: at least 3, since the loss compares pairs"),
        (
            {"early_stopping": True, "n_iter_no_change": 0},
            r"n_iter_no_change: got 0; allowed: an integer of at least 1",
        ),
        ({"early_stopping": True}, r"validation_fraction: got 0\.1, 2 of 20 samples, with early_stopping; allowed"),
        ({"device": "gpu"}, r"device: got 'gpu'; allowed: 'cpu', 'cuda', 'auto'"),
        ({"inputs": ["table"]}, r"inputs: got \['table'\]; allowed: 'table', 'smiles', 'images'"),
        ({"validation_fraction": 0.9, "calibration_fraction": 0.5}, r"validation_fraction: got 0\.9 and calibration"),
        ({"inputs": "smiles", "encoder": nn.Linear(2, 2)}, r"encoder: got a module with inputs='smiles'"),
    ],
)
def test_a_wrong_setting_is_named(settings, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        quick(**settings).fit(*numbers(20))


def test_a_wrong_table_is_named():
    x, y = numbers(20)
    table = pd.DataFrame({"colour": ["red", "blue"] * 10, "size": x[:, 0]})
    for X, message in (
        (table.to_numpy(), r"got text in an array; allowed: numbers, or a DataFrame with columns of text"),
        (table.set_axis(["a", "a"], axis=1), r"got columns \['a', 'a'\]; allowed: names that are text and distinct"),
        (table.assign(colour=[[1]] * 20), r"got a cell of another kind \(.*list.*\); allowed: text, numbers, dates"),
        (x[:3], r".*minimum of 4 is required by RnCRegressor"),
    ):
        with pytest.raises(ValueError, match=message if "minimum" in message else f"^X: {message}"):
            quick().fit(X, y[: len(X)])
    model, plain = quick().fit(table, y), quick().fit(table[["size"]], y)
    day = pd.Timestamp("2020-01-01")
    for one, X, message in (
        (model, {"colour": ["red"]}, r"got dict; allowed: a DataFrame, as in training"),
        (model, table.assign(size=day), r"got column 'size' with values of datetime64.*; allowed: numbers"),
        (model, table.assign(size=1j), r"got column 'size' with values of complex128; allowed: numbers"),
        (plain, table[["size"]].assign(size=day), r"got datetime64.*; allowed: numbers"),
    ):
        with pytest.raises(ValueError, match=f"^X: {message}"):
            one.predict(X)


def test_a_whole_number_is_the_same_category_with_a_missing_one_beside_it():
    x, y = numbers(60)
    table = pd.DataFrame({"region": pd.Categorical(np.arange(60) % 3), "size": x[:, 0]})
    model = quick().fit(table, y + 5 * (np.arange(60) % 3))
    found, later = model.predict(table), table.astype({"region": float})
    np.testing.assert_array_equal(model.predict(later), found)
    later.loc[0, "region"] = np.nan  # for which pandas makes floats of integers
    np.testing.assert_array_equal(model.predict(later)[1:], found[1:])
    with pytest.warns(UserWarning, match=r"^X: got 20 cells such as '7' in column 'region' that are no category"):
        model.predict(later.replace({"region": {1.0: 7.0}}))


def test_a_table_of_nullable_numbers_is_one_for_a_network_of_ones_own():
    x, y = numbers(40)
    model = quick(encoder=nn.Linear(3, 4))
    table = pd.DataFrame(x, columns=list("abc")).convert_dtypes()
    np.testing.assert_array_equal(model.fit(table, y).predict(table), model.fit(x, y).predict(x))
    table.loc[3, "b"] = pd.NA
    with pytest.raises(ValueError, match=r"^X: got NaN or infinite numbers; allowed: finite ones"):
        model.fit(table, y)


def test_wrong_weights_are_refused():
    x, y = numbers(20)
    with pytest.raises(ValueError, match=r"^sample_weight: got a negative weight; allowed: numbers of at least 0"):
        quick().fit(x, y, np.r_[-1.0, np.ones(19)])
    with pytest.raises(ValueError, match=r"^sample_weight: got 2 samples above 0; allowed: at least 4"):
        quick().fit(x, y, np.r_[1.0, 1.0, np.zeros(18)])
    with pytest.raises(
        ValueError, match=r"^head: got 'neighbours' with sample_weight; allowed: 'auto', 'linear', 'ridge'"
    ):
        quick(head="neighbours").fit(x, y, np.ones(20))


def test_progress_is_shown_when_asked_for(capfd):
    quick("end_to_end", verbose=True).fit(*numbers(20))
    told = capfd.readouterr().err
    assert "L1 end to end" in told and "6/6" in told and "epoch/s" in told.replace("s/epoch", "epoch/s")
    quick().fit(*numbers(20))
    assert capfd.readouterr().err == ""
