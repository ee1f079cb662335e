"""From a recipe and samples to a fitted model: what it learns, in which unit it predicts, and what it cannot see."""

from __future__ import annotations

import ast
import hashlib
import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.gaussian_process import GaussianProcessRegressor, kernels
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, QuantileTransformer, SplineTransformer, StandardScaler
from worlds import forbid_training, molecules, table, watch_training

from rnclib import fitting, networks, training
from rnclib.data.molecules import Molecules, descriptors
from rnclib.encoders import GIN
from rnclib.fitting import Diverged, Epoch, Execution, fit
from rnclib.inputs import preparation
from rnclib.recipe import Recipe, Stage
from rnclib.regressors import best_regressor
from rnclib.training import Samples, predict

ROOT = Path(__file__).resolve().parents[1]

L1 = Stage("l1", epochs=8, batch_size=16, learning_rate=0.05, lr_decay_rate=0.1, weight_decay=0.0)
RNC = Stage(
    "rnc", epochs=4, batch_size=16, learning_rate=0.05, lr_decay_rate=0.1, weight_decay=0.0,
    temperature=2.0, label_diff="l1", feature_sim="l2",
)  # fmt: skip
END_TO_END = Recipe("perceptron", fit=L1, widths=(16, 8))
FINE_TUNED = replace(END_TO_END, pretrain=RNC)
FROZEN = replace(FINE_TUNED, freeze=True)
CLOSED = replace(FROZEN, fit=None)

TRAIN, VAL = table(60), table(20, seed=1)
NEW = table(15, seed=2)  # samples that no fit has seen


class Killed(Exception):
    pass


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def parts(standin, seed: int = 0) -> tuple[Samples, Samples]:
    split = standin.splits["random"](seed)
    return tuple(Samples(standin.inputs.take(i), standin.targets[i]) for i in (split.train, split.val))


def weights(fitted) -> torch.Tensor:
    return torch.cat([v.double().reshape(-1) for m in (fitted.encoder, fitted.linear) for v in m.state_dict().values()])


def mae(fitted, samples: Samples = VAL) -> float:
    return float(np.abs(fitted.predict(samples.inputs) - samples.targets).mean())


def losses(fitted) -> list[tuple[list[float], list[float], int]]:
    return [(s.history.train_loss, s.history.val_loss, s.history.best_epoch) for s in fitted.stages]


# --- what is out of reach -------------------------------------------------------------------------------


def imported(path: Path, known: set[str]) -> set[str]:
    """Modules of rnclib that a module imports anywhere in its code, but for type checking."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = [ast.Pass()]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports are not followed here"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found & known


def closure(start: str) -> set[str]:
    files = {}
    for path in (ROOT / "rnclib").rglob("*.py"):
        words = path.relative_to(ROOT).with_suffix("").parts
        files[".".join(words[:-1] if words[-1] == "__init__" else words)] = path
    seen, waiting = {start}, [start]
    while waiting:
        for name in imported(files[waiting.pop()], set(files)) - seen:
            seen.add(name)
            waiting.append(name)
    return seen


OUT_OF_REACH = {"results", "experiment", "grid", "chapters", "protocols", "data.catalogue", "statistics", "claims"}


def test_no_store_chapter_or_catalogue_is_within_reach():
    reached = closure("rnclib.fitting")
    assert {"rnclib.training", "rnclib.encoders", "rnclib.data.molecules"} <= reached
    out_of_reach = tuple(f"rnclib.{name}" for name in OUT_OF_REACH)
    assert not [
        name for name in reached if name in out_of_reach or name.startswith(tuple(f"{o}." for o in out_of_reach))
    ]
    # that this finds something where there is something
    assert {"rnclib.results", "rnclib.data.catalogue", "rnclib.fitting"} <= closure("rnclib.experiment")


@pytest.mark.slow
def test_fitting_loads_none_of_them_either():
    program = (
        "import sys, numpy as np; sys.path.insert(0, 'tests')\n"
        "import rnclib.fitting\nfrom rnclib.recipe import Recipe\nfrom rnclib.fitting import Samples, fit\n"
        "x = np.zeros((4, 1)); fit(Recipe('training mean'), Samples(x, x[:, 0]), Samples(x, x[:, 0]), seed=0)\n"
        f"print(sorted(name for name in {sorted(OUT_OF_REACH)} if 'rnclib.' + name in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "[]"


# --- what is fitted -------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", [END_TO_END, FINE_TUNED, FROZEN, CLOSED], ids=lambda recipe: recipe.label())
def test_a_network_learns_a_small_table_and_predicts_in_the_unit_of_its_targets(recipe):
    stages = {"pretrain": recipe.pretrain and replace(RNC, epochs=30), "fit": recipe.fit and replace(L1, epochs=60)}
    longer = replace(recipe, **stages)
    fitted = fit(longer, TRAIN, VAL, seed=0)
    by_the_mean = np.abs(VAL.targets - TRAIN.targets.mean()).mean()
    assert mae(fitted) < 0.6 * by_the_mean and mae(fitted, NEW) < 0.8 * np.abs(NEW.targets - NEW.targets.mean()).mean()
    assert fitted.features(NEW.inputs).shape == (15, 8) and fitted.predict(NEW.inputs).shape == (15,)
    names = {"end to end": ["end-to-end"], "closed form": ["encoder"]}
    said = next((names[word] for word in names if word in recipe.label()), ["encoder", "regressor"])
    assert [stage.name for stage in fitted.stages] == said


@pytest.mark.parametrize("recipe", [END_TO_END, FINE_TUNED, CLOSED], ids=lambda recipe: recipe.label())
def test_predictions_follow_the_unit_and_the_origin_of_the_targets(recipe):
    """Targets in other units are the same problem to a network that scales them."""
    fitted = fit(recipe, TRAIN, VAL, seed=0).predict(NEW.inputs)
    other = [Samples(s.inputs, 1000 * s.targets - 7) for s in (TRAIN, VAL)]
    np.testing.assert_allclose(fit(recipe, *other, seed=0).predict(NEW.inputs), 1000 * fitted - 7, rtol=1e-3)


def test_the_scaler_is_that_of_the_training_targets():
    fitted = fit(END_TO_END, TRAIN, VAL, seed=0)
    assert fitted.scaler == pytest.approx((TRAIN.targets.mean(), TRAIN.targets.std()))
    assert fit(replace(END_TO_END, target="raw"), TRAIN, VAL, seed=0).scaler == (0.0, 1.0)
    scaled = fitted.scaled(TRAIN.targets)
    assert scaled.dtype == torch.float32
    assert (float(scaled.mean()), float(scaled.std(correction=0))) == pytest.approx((0, 1), abs=1e-5)
    same = Samples(TRAIN.inputs, np.full(60, 3.0))
    assert fit(END_TO_END, same, same, seed=0).scaler == (3.0, 1.0)  # nothing to scale by


def test_freezing_leaves_the_encoder_as_the_first_stage_left_it():
    closed, frozen, tuned = (fit(recipe, TRAIN, VAL, seed=0) for recipe in (CLOSED, FROZEN, FINE_TUNED))
    np.testing.assert_array_equal(frozen.features(NEW.inputs), closed.features(NEW.inputs))
    assert not np.allclose(tuned.features(NEW.inputs), closed.features(NEW.inputs))
    assert not np.allclose(frozen.predict(NEW.inputs), closed.predict(NEW.inputs))
    assert losses(frozen)[0] == losses(tuned)[0] == losses(closed)[0]


def test_the_seed_decides_everything():
    first = fit(FINE_TUNED, TRAIN, VAL, seed=3)
    torch.manual_seed(77)
    again, other = fit(FINE_TUNED, TRAIN, VAL, seed=3), fit(FINE_TUNED, TRAIN, VAL, seed=4)
    assert torch.equal(weights(first), weights(again)) and losses(first) == losses(again)
    assert not torch.equal(weights(first), weights(other))
    before = torch.random.get_rng_state()
    fit(END_TO_END, TRAIN, VAL, seed=3)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_batches_are_no_larger_than_the_training_set(monkeypatch):
    seen = watch_training(monkeypatch)
    few = Samples(TRAIN.inputs[:10], TRAIN.targets[:10])
    fit(FINE_TUNED, few, VAL, seed=0)
    assert [one["stage"].batch_size for one in seen] == [10, 10]
    assert [one["stage"] for one in seen] == [replace(stage, batch_size=10) for stage in (RNC, L1)]


def test_each_stage_is_given_its_own_samples(monkeypatch):
    seen = watch_training(monkeypatch)
    fitted = fit(FROZEN, TRAIN, VAL, seed=0)
    encoder, regressor = seen
    assert encoder["validation"] is None and encoder["seed"] == regressor["seed"] == 0
    torch.testing.assert_close(encoder["training"].inputs, torch.tensor(TRAIN.inputs))
    for one, samples in (("training", TRAIN), ("validation", VAL)):  # the frozen features of these
        np.testing.assert_allclose(regressor[one].inputs, fitted.features(samples.inputs), atol=1e-6)
        assert torch.equal(regressor[one].targets, fitted.scaled(samples.targets))


def test_a_projection_head_is_trained_with_the_encoder_and_left_out(monkeypatch):
    seen = watch_training(monkeypatch)
    fitted = fit(replace(CLOSED, projection=7), TRAIN, VAL, seed=0)
    (one,) = seen
    assert [type(layer).__name__ for layer in one["model"]] == ["Perceptron", "Linear", "ReLU", "Linear"]
    assert one["model"][0] is fitted.encoder and one["model"][-1].out_features == 7
    assert fitted.features(NEW.inputs).shape == (15, 8)
    assert not np.allclose(fitted.features(NEW.inputs), fit(CLOSED, TRAIN, VAL, seed=0).features(NEW.inputs))


def test_ages_keep_their_precision_in_bfloat16():
    head = networks._Float32Linear(8, 1)
    features = torch.randn(500, 8)
    with torch.no_grad():
        head.bias.fill_(70.0)
        exact = head(features)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = head(features.bfloat16())
    assert rounded.dtype == torch.float32 and (rounded - exact).abs().max() < 0.02


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": Samples(TRAIN.inputs, TRAIN.targets[:5])}, r"train: got 60 inputs and targets of shape \(5,\)"),
        ({"val": Samples(VAL.inputs, VAL.targets[:, None])}, r"val: got 20 inputs and targets of shape \(20, 1\)"),
        ({"val": Samples(VAL.inputs[:0], VAL.targets[:0])}, r"val: got 0 inputs"),
        (
            {"train": Samples(TRAIN.inputs, np.full(60, np.nan))},
            "train: got targets that are NaN, infinite or too large",
        ),
        (
            {"train": Samples(TRAIN.inputs[:, 0], TRAIN.targets)},
            r"inputs: got an array of float\d+, shape \(60,\); allowed: ",
        ),
        (
            {"val": Samples(np.full((20, 4), np.inf), VAL.targets)},
            r"inputs: got an array of float\d+, shape \(20, 4\); allowed: ",
        ),
        ({"recipe": Recipe("gin", fit=L1)}, "model: got 'gin' with inputs of type ndarray; allowed: with molecules"),
        (
            {"recipe": Recipe("extra trees")},
            "model: got 'extra trees' with inputs of type ndarray; allowed: with molecules",
        ),
    ],
)
def test_samples_and_recipes_that_do_not_go_together_are_refused(change, message):
    given = {"recipe": END_TO_END, "train": TRAIN, "val": VAL} | change
    with pytest.raises(ValueError, match=rf"^{message}") as caught:
        fit(given["recipe"], given["train"], given["val"], seed=0)
    assert "; allowed: " in str(caught.value)


def test_a_gpu_that_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"device: got 'cuda', but torch finds no GPU; allowed here: 'cpu', 'auto'"):
        fitting.check_device("cuda")
    fitting.check_device("cpu")


# --- options --------------------------------------------------------------------------------------------

OPTIONS = {
    "adamw": replace(END_TO_END, fit=replace(L1, optimizer="adamw", learning_rate=0.02)),
    "one-cycle": replace(END_TO_END, fit=replace(L1, schedule="one-cycle", lr_decay_rate=0.0)),
    "average": replace(END_TO_END, fit=replace(L1, average=0.8)),
    "noise": replace(END_TO_END, fit=replace(L1, input_noise=0.1)),
    "dropout": replace(END_TO_END, dropout=0.1),
    "all": replace(
        END_TO_END, dropout=0.1, scaling="quantile",
        fit=replace(
            L1, optimizer="adamw", learning_rate=0.05, schedule="one-cycle", lr_decay_rate=0.0, average=0.8,
            input_noise=0.1,
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_trains_is_reproducible_and_resumes(tmp_path, monkeypatch, name):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0)
    recipe = OPTIONS[name]
    plain, expected = fit(END_TO_END, TRAIN, VAL, seed=0), fit(recipe, TRAIN, VAL, seed=0)
    assert mae(expected) < 0.6 * np.abs(VAL.targets - TRAIN.targets.mean()).mean()
    assert losses(expected) != losses(plain)
    again, other = fit(recipe, TRAIN, VAL, seed=0), fit(recipe, TRAIN, VAL, seed=1)
    assert losses(again) == losses(expected) != losses(other)
    assert torch.equal(weights(again), weights(expected))

    told = []

    def kill(epoch: Epoch) -> None:
        told.append(epoch.number)
        if epoch.number == 5:
            raise Killed

    execution = Execution(cache=tmp_path, data="table")
    with pytest.raises(Killed):
        fit(recipe, TRAIN, VAL, seed=0, execution=execution, on_epoch=kill)
    torch.manual_seed(77)
    resumed = fit(recipe, TRAIN, VAL, seed=0, execution=execution, on_epoch=lambda epoch: told.append(epoch.number))
    assert told == [1, 2, 3, 4, 5, 4, 5, 6, 7, 8]
    assert torch.equal(weights(resumed), weights(expected)) and losses(resumed) == losses(expected)
    np.testing.assert_array_equal(resumed.predict(NEW.inputs), expected.predict(NEW.inputs))


def test_noise_has_its_standard_deviation_is_new_each_epoch_and_only_in_training(monkeypatch):
    seen = watch_training(monkeypatch)
    many = table(2000)
    fitted = fit(replace(OPTIONS["noise"], fit=replace(L1, input_noise=0.3, epochs=1)), many, VAL, seed=0)
    (one,) = seen
    first, second, again = (one["training"].inputs.at_epoch(epoch).numpy() - many.inputs for epoch in (1, 2, 1))
    for noise in (first, second):
        assert noise.std() == pytest.approx(0.3, rel=0.03) and abs(noise.mean()) < 0.01
    np.testing.assert_array_equal(first, again)
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.05
    np.testing.assert_allclose(one["validation"].inputs, VAL.inputs, atol=1e-6)
    np.testing.assert_array_equal(fitted.predict(NEW.inputs), fitted.predict(NEW.inputs))


def test_dropout_drops_in_training_and_not_in_prediction():
    recipe = replace(END_TO_END, dropout=0.5)
    fitted = fit(recipe, TRAIN, VAL, seed=0)
    x = torch.tensor(NEW.inputs)
    layers = [module for module in fitted.encoder.modules() if isinstance(module, torch.nn.Dropout)]
    assert [layer.p for layer in layers] == [0.5]  # the last layer gives the features as they are
    fitted.encoder.train()
    inside = []
    layers[0].register_forward_hook(lambda module, given, got: inside.append((given[0], got)))
    fitted.encoder(x)
    ((given, got),) = inside
    kept = got != 0
    assert 0.3 < kept.float().mean() < 0.7
    torch.testing.assert_close(got[kept], 2 * given[kept])
    fitted.encoder.eval()
    np.testing.assert_array_equal(fitted.features(NEW.inputs), fitted.encoder(x).detach().double().numpy())


# --- heads ----------------------------------------------------------------------------------------------


def best(candidates, x: np.ndarray, x_val: np.ndarray):
    """Of sklearn's regressors, fitted to targets as they are, the one with the least error on the validation set."""
    fits = [one.fit(x, TRAIN.targets) for one in candidates]
    return min(fits, key=lambda one: np.abs(one.predict(x_val) - VAL.targets).mean())


@pytest.mark.parametrize("recipe", [CLOSED, END_TO_END], ids=lambda recipe: recipe.label())
@pytest.mark.parametrize("head", ["ridge", "neighbours"])
def test_a_head_predicts_in_target_units_what_sklearn_does(recipe, head):
    plain, fitted = (fit(replace(recipe, head=one), TRAIN, VAL, seed=0) for one in (recipe.head, head))
    np.testing.assert_array_equal(fitted.features(NEW.inputs), plain.features(NEW.inputs))
    scaler = StandardScaler().fit(fitted.features(TRAIN.inputs))
    x, x_val, x_new = (scaler.transform(fitted.features(samples.inputs)) for samples in (TRAIN, VAL, NEW))
    candidates = {
        "ridge": [Ridge(alpha) for alpha in np.logspace(-3, 4, 15)],
        "neighbours": [KNeighborsRegressor(k, weights="distance") for k in (1, 3, 5, 10, 20)],
    }[head]
    np.testing.assert_allclose(fitted.predict(NEW.inputs), best(candidates, x, x_val).predict(x_new), rtol=1e-4)


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")  # a value at its bound
def test_a_gaussian_process_predicts_in_target_units_what_sklearn_does():
    fitted = fit(replace(CLOSED, head="gaussian process"), TRAIN, VAL, seed=0)
    scaler = StandardScaler().fit(fitted.features(TRAIN.inputs))
    x, x_new = (scaler.transform(fitted.features(samples.inputs)) for samples in (TRAIN, NEW))
    kernel = kernels.ConstantKernel() * kernels.Matern(np.sqrt(8), (1e-2, 1e4), nu=1.5)
    kernel += kernels.WhiteKernel(0.1, (1e-4, 10))
    expected = GaussianProcessRegressor(kernel, normalize_y=True).fit(x, TRAIN.targets).predict(x_new)
    np.testing.assert_allclose(fitted.predict(NEW.inputs), expected, rtol=1e-3)
    assert np.abs(fitted.predict(NEW.inputs) - NEW.targets).mean() < np.abs(NEW.targets - NEW.targets.mean()).mean()


def test_fewer_samples_than_neighbours_are_enough():
    few = Samples(TRAIN.inputs[:4], TRAIN.targets[:4])
    fitted = fit(replace(CLOSED, head="neighbours"), few, VAL, seed=0)
    np.testing.assert_allclose(fitted.predict(few.inputs), few.targets, rtol=1e-5)  # each is its own nearest


def test_a_closed_form_regressor_is_ridge_regression_on_the_frozen_encoder(tmp_path):
    standin = molecules()
    train, val = parts(standin)
    stage = replace(RNC, batch_size=32, epochs=2)
    recipe = Recipe("gin", pretrain=stage, freeze=True)
    fitted = fit(recipe, train, val, seed=0, execution=Execution(cache=tmp_path, data="table"))

    (cached,) = (tmp_path / "encoders").iterdir()
    encoder = GIN()
    encoder.load_state_dict(torch.load(cached, weights_only=True)["encoder"])
    features = predict(encoder, standin.inputs, np.arange(len(standin))).double().numpy()
    split = standin.splits["random"](0)
    scaler = StandardScaler().fit(features[split.train])
    x, y = scaler.transform(features), standin.targets
    fits = [Ridge(alpha).fit(x[split.train], y[split.train]) for alpha in np.logspace(-3, 4, 15)]
    ridge = min(fits, key=lambda one: np.abs(one.predict(x[split.val]) - y[split.val]).mean())
    predicted = fitted.predict(standin.inputs.take(split.test))
    np.testing.assert_allclose(predicted, ridge.predict(x[split.test]), atol=2e-3)


# --- ensembles ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", [END_TO_END, CLOSED], ids=lambda recipe: recipe.label())
def test_an_ensemble_is_the_mean_of_networks_that_differ_in_their_seed(recipe):
    told = []
    ensemble = fit(
        replace(recipe, ensemble=3), TRAIN, VAL, seed=5, on_epoch=lambda e: told.append((e.member, e.number))
    )
    members = [member.predict(NEW.inputs) for member in ensemble.members]
    np.testing.assert_allclose(ensemble.predict(NEW.inputs), np.mean(members, axis=0), rtol=1e-12)
    single = fit(recipe, TRAIN, VAL, seed=5)
    np.testing.assert_array_equal(members[0], single.predict(NEW.inputs))
    assert not np.allclose(members[0], members[1]) and not np.allclose(members[1], members[2])
    assert ensemble.features(NEW.inputs).shape == (15, 24)
    np.testing.assert_array_equal(ensemble.features(NEW.inputs)[:, :8], single.features(NEW.inputs))
    assert len(ensemble.stages) == 3 and losses(ensemble)[0] == losses(single)[0]
    epochs = (recipe.fit or recipe.pretrain).epochs
    assert told == [(member, number) for member in range(3) for number in range(1, epochs + 1)]
    again = fit(replace(recipe, ensemble=3), TRAIN, VAL, seed=5)
    np.testing.assert_array_equal(again.predict(NEW.inputs), ensemble.predict(NEW.inputs))


def test_a_killed_ensemble_goes_on_with_the_network_it_was_at(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CHECKPOINT_SECONDS", 0)
    recipe = replace(END_TO_END, ensemble=2)
    expected = fit(recipe, TRAIN, VAL, seed=0)

    def kill(epoch: Epoch) -> None:
        if (epoch.member, epoch.number) == (1, 5):
            raise Killed

    execution, told = Execution(cache=tmp_path, data="table"), []
    with pytest.raises(Killed):
        fit(recipe, TRAIN, VAL, seed=0, execution=execution, on_epoch=kill)
    resumed = fit(recipe, TRAIN, VAL, seed=0, execution=execution, on_epoch=lambda e: told.append((e.member, e.number)))
    np.testing.assert_array_equal(resumed.predict(NEW.inputs), expected.predict(NEW.inputs))
    assert told == [(0, 8), (1, 4), (1, 5), (1, 6), (1, 7), (1, 8)]


# --- inputs that are prepared ---------------------------------------------------------------------------


def test_descriptors_of_molecules_are_fitted_and_predicted():
    standin = molecules()
    train, val = parts(standin)
    stage = replace(L1, epochs=40, batch_size=32, optimizer="adamw", learning_rate=0.003)
    recipe = Recipe("perceptron", fit=stage, widths=(32, 8), featuriser="descriptors", scaling="standard")
    fitted = fit(recipe, train, val, seed=0)
    test = standin.splits["random"](0).test
    error = np.abs(fitted.predict(standin.inputs.take(test)) - standin.targets[test]).mean()
    assert error < 0.6 * np.abs(standin.targets[test] - train.targets.mean()).mean()


def test_descriptors_are_on_a_logarithmic_scale_scaled_and_clipped_by_the_training_set(monkeypatch):
    seen = watch_training(monkeypatch)
    train, val = parts(molecules())
    recipe = Recipe("perceptron", fit=replace(L1, epochs=1), widths=(4,), featuriser="descriptors", scaling="standard")
    fit(recipe, train, val, seed=0)

    def logarithmic(samples: Samples) -> np.ndarray:
        values = descriptors(samples.inputs.smiles).astype(float)
        return np.sign(values) * np.log1p(np.abs(values))

    x, x_val = logarithmic(train), logarithmic(val)
    median = np.nanmedian(x, axis=0)
    x, x_val = np.where(np.isnan(x), median, x), np.where(np.isnan(x_val), median, x_val)
    mean, std = x.mean(axis=0), x.std(axis=0)
    std[std < 1e-12] = 1.0
    for name, values in (("training", x), ("validation", x_val)):
        expected = np.clip((values - mean) / std, -10, 10)
        np.testing.assert_allclose(seen[0][name].inputs.numpy(), expected, atol=1e-3)


def test_pieces_are_hats_over_quantiles():
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.normal(size=400), np.r_[np.zeros(300), rng.random(100)], np.ones(400)])
    pieces = preparation(Recipe("ridge", scaling="pieces"), x, torch.device("cpu"))
    knots = np.quantile(x[:, 0], np.linspace(0, 1, 17))

    def hats(values):
        return np.array([[np.interp(value, knots, np.eye(17)[k]) for k in range(17)] for value in values])

    mean, std = hats(x[:, 0]).mean(axis=0), hats(x[:, 0]).std(axis=0)
    scaled = np.clip((hats(x[:, 0]) - mean) / std, -10, 10)
    np.testing.assert_allclose(pieces(x).numpy()[:, :17], scaled, atol=1e-4)
    # beyond the ends they stay as they are at the ends; columns that repeat a value do no harm
    outside = pieces(np.array([[-99.0, -1, 5], [99.0, 2, -5]])).numpy()
    expected = np.clip((np.eye(17)[[0, 16]] - mean) / std, -10, 10)
    np.testing.assert_allclose(outside[:, :17], expected, atol=1e-4)
    assert np.isfinite(pieces(x).numpy()).all() and np.isfinite(outside).all()


@pytest.mark.parametrize("recipe", [
    Recipe("gin and perceptron", fit=replace(L1, epochs=40, batch_size=32, optimizer="adamw", learning_rate=0.003,
                                            input_noise=0.1), widths=(16, 8), featuriser="descriptors",
           scaling="standard", dropout=0.1),
    Recipe("gin and perceptron", pretrain=replace(RNC, epochs=20, batch_size=32, optimizer="adamw", learning_rate=0.003,
                                                 input_noise=0.1), freeze=True, widths=(16, 8),
           featuriser="descriptors", scaling="standard"),
], ids=["end to end", "RnC"])  # fmt: skip
def test_molecules_are_learnt_as_graphs_and_numbers_together(recipe):
    standin = molecules()
    train, val = parts(standin)
    fitted = fit(recipe, train, val, seed=0)
    assert mae(fitted, val) < 0.6 * np.abs(val.targets - train.targets.mean()).mean()
    assert fitted.features(val.inputs).shape == (len(val.targets), 8)
    assert np.array_equal(fitted.predict(val.inputs), fit(recipe, train, val, seed=0).predict(val.inputs))


def test_molecules_without_graphs_are_made_into_them_where_a_network_needs_them():
    train, val = parts(molecules())
    recipe = Recipe("gin", fit=replace(L1, epochs=2, batch_size=32))
    written = [Samples(Molecules(samples.inputs.smiles), samples.targets) for samples in (train, val)]
    expected = fit(recipe, train, val, seed=0).predict(val.inputs)
    np.testing.assert_array_equal(fit(recipe, *written, seed=0).predict(written[1].inputs), expected)


@pytest.mark.parametrize("scaling", [None, "standard", "quantile", "pieces"])
def test_statistics_come_from_the_training_set_alone(monkeypatch, scaling):
    seen = watch_training(monkeypatch)
    recipe = replace(END_TO_END, scaling=scaling, fit=replace(L1, epochs=2))
    holes = TRAIN.inputs.copy()
    holes[::7, 1] = np.nan
    train = Samples(holes, TRAIN.targets)
    poisoned = Samples(1000 * VAL.inputs, VAL.targets + 1e6)
    clean, other = (fit(recipe, train, val, seed=0) for val in (VAL, poisoned))
    one, two = seen
    assert torch.equal(one["training"].inputs, two["training"].inputs)
    assert torch.equal(one["training"].targets, two["training"].targets)
    assert clean.scaler == other.scaler and losses(clean)[0][0] == losses(other)[0][0]

    filled = np.where(np.isnan(holes), np.nanmedian(holes, axis=0), holes).astype(float)
    first = {
        "standard": FunctionTransformer(),
        "quantile": QuantileTransformer(n_quantiles=60, output_distribution="normal"),
        "pieces": SplineTransformer(17, degree=1, knots="quantile", extrapolation="constant"),
    }
    scaler = make_pipeline(first[scaling], StandardScaler()).fit(filled).transform if scaling else np.asarray
    for found, values in ((one["training"], filled), (one["validation"], VAL.inputs.astype(float))):
        np.testing.assert_allclose(found.inputs.numpy(), np.clip(scaler(values), -10, 10), atol=1e-5)


def test_quantiles_of_the_training_set_are_normal(monkeypatch):
    seen = watch_training(monkeypatch)
    skewed = Samples(np.exp(2 * table(500).inputs), table(500).targets)
    fit(replace(END_TO_END, scaling="quantile", fit=replace(L1, epochs=1)), skewed, VAL, seed=0)
    inside = np.sort(seen[0]["training"].inputs.numpy(), axis=0)[5:-5]  # the ends of the scale are a matter of taste
    every = torch.special.ndtri(torch.linspace(0, 1, 500).clamp(1e-7, 1 - 1e-7).double()).numpy()  # as sklearn ends it
    expected = every[5:-5] / every.std()
    np.testing.assert_allclose(inside, np.repeat(expected[:, None], 4, axis=1), rtol=1e-3, atol=1e-3)


# --- what is told of an epoch ---------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", [END_TO_END, CLOSED, FROZEN, FINE_TUNED, replace(CLOSED, projection=4)],
                         ids=lambda recipe: f"{recipe.label()} {recipe.projection}")  # fmt: skip
def test_ridge_regression_judges_the_features_of_an_epoch_whatever_is_trained(recipe):
    told = []
    fitted = fit(recipe, TRAIN, VAL, seed=0, on_epoch=lambda epoch: told.append((epoch.stage, epoch.ridge_error())))
    last = recipe if recipe.fit is None or recipe.freeze else replace(recipe, fit=replace(recipe.fit, keep="last"))
    fitted = fit(last, TRAIN, VAL, seed=0)
    x, x_val = (fitted.features(samples.inputs) for samples in (TRAIN, VAL))
    _, expected = best_regressor("ridge", x, TRAIN.targets, x_val, VAL.targets)
    assert told[-1][1] == pytest.approx(expected, rel=1e-3)
    assert len({round(error, 6) for stage, error in told if stage != "regressor"}) > 1


def test_an_epoch_is_told_with_the_validation_error_in_the_unit_of_the_targets(monkeypatch):
    seen, told = watch_training(monkeypatch), []

    def on_epoch(epoch: Epoch) -> None:
        network = torch.nn.Sequential(*seen[-1]["model"])
        mean, std = TRAIN.targets.mean(), TRAIN.targets.std()
        prediction = predict(network, torch.tensor(VAL.inputs)).reshape(-1).numpy() * std + mean
        told.append((epoch.stage, epoch.number, epoch.val_error(), np.abs(prediction - VAL.targets).mean()))

    fitted = fit(END_TO_END, TRAIN, VAL, seed=0, on_epoch=on_epoch)
    assert [(stage, number) for stage, number, *_ in told] == [("end-to-end", number) for number in range(1, 9)]
    np.testing.assert_allclose(*zip(*[(said, found) for *_, said, found in told], strict=True), rtol=1e-4)
    best_epoch = fitted.stages[0].history.best_epoch
    assert told[best_epoch - 1][2] == pytest.approx(mae(fitted), rel=1e-4)


def test_an_epoch_of_the_encoder_is_told_with_the_error_of_a_ridge_regression(monkeypatch):
    seen, told = watch_training(monkeypatch), []

    def on_epoch(epoch: Epoch) -> None:
        if epoch.stage == "encoder":
            x, x_val = (predict(seen[0]["model"], torch.tensor(s.inputs)).double().numpy() for s in (TRAIN, VAL))
            scaler = StandardScaler().fit(x)
            x, x_val = scaler.transform(x), scaler.transform(x_val)
            ridge = best([Ridge(alpha) for alpha in np.logspace(-3, 4, 15)], x, x_val)
            told.append((epoch.val_error(), np.abs(ridge.predict(x_val) - VAL.targets).mean()))

    fit(FINE_TUNED, TRAIN, VAL, seed=0, on_epoch=on_epoch)
    assert len(told) == RNC.epochs and len({error for error, _ in told}) == RNC.epochs
    np.testing.assert_allclose(*zip(*told, strict=True), rtol=1e-4)
    assert told[-1][0] == pytest.approx(mae(fit(CLOSED, TRAIN, VAL, seed=0)), rel=1e-4)


def test_asking_for_the_error_changes_nothing():
    asked = fit(FINE_TUNED, TRAIN, VAL, seed=0, on_epoch=lambda epoch: epoch.val_error())
    assert torch.equal(weights(asked), weights(fit(FINE_TUNED, TRAIN, VAL, seed=0)))


@pytest.mark.parametrize(("stage", "number"), [("encoder", 2), ("regressor", 3)])
def test_raising_in_on_epoch_prunes_a_trial(stage, number):
    told = []

    def prune(epoch: Epoch) -> None:
        told.append((epoch.stage, epoch.number))
        if told[-1] == (stage, number):
            raise Killed

    with pytest.raises(Killed):
        fit(FINE_TUNED, TRAIN, VAL, seed=0, on_epoch=prune)
    every = [("encoder", one) for one in range(1, 5)] + [("regressor", one) for one in range(1, 9)]
    assert told == every[: every.index((stage, number)) + 1]


def test_the_error_of_an_epoch_that_was_trained_before_is_not_known(tmp_path):
    execution, told = Execution(cache=tmp_path, data="table"), []
    fit(END_TO_END, TRAIN, VAL, seed=0, execution=execution)
    fit(
        END_TO_END, TRAIN, VAL, seed=0, execution=execution,
        on_epoch=lambda epoch: told.append((epoch.stage, epoch.number, epoch.val_error())),
    )  # fmt: skip
    assert told == [("end-to-end", 8, None)]


# --- baselines ------------------------------------------------------------------------------------------


def test_the_training_mean_is_that_of_the_training_targets_for_any_inputs():
    for train, val in ((TRAIN, VAL), parts(molecules())):
        fitted = fit(Recipe("training mean"), train, val, seed=0)
        np.testing.assert_array_equal(fitted.predict(val.inputs), np.full(len(val.targets), train.targets.mean()))
        assert fitted.features(val.inputs) is None and fitted.stages == []


def test_delaneys_equation_is_what_comes_with_the_data():
    train, val = parts(molecules())
    published = [
        Samples(replace(s.inputs, published=np.linspace(start, start + 1, len(s.targets))), s.targets)
        for s, start in ((train, 0), (val, 5))
    ]
    fitted = fit(Recipe("Delaney's equation"), *published, seed=0)
    np.testing.assert_array_equal(fitted.predict(published[1].inputs), np.linspace(5, 6, len(val.targets)))
    with pytest.raises(ValueError, match=r"^model: got \"Delaney's equation\" with data that bring .*; allowed: ESOL"):
        fit(Recipe("Delaney's equation"), train, val, seed=0)


def test_extra_trees_are_sklearns_on_descriptors():
    train, val = parts(molecules())
    fitted = fit(Recipe("extra trees"), train, val, seed=3)
    x, x_val = (np.nan_to_num(descriptors(samples.inputs.smiles)) for samples in (train, val))
    assert not np.isnan(descriptors(train.inputs.smiles)).any()
    trees = ExtraTreesRegressor(n_estimators=500, random_state=3).fit(x, train.targets)
    np.testing.assert_allclose(fitted.predict(val.inputs), trees.predict(x_val), rtol=1e-6)
    assert mae(fitted, val) < 0.6 * np.abs(val.targets - train.targets.mean()).mean()


def test_a_peer_is_the_regressor_on_prepared_numbers():
    fitted = fit(Recipe("ridge", scaling="quantile"), TRAIN, VAL, seed=0)
    scaler = make_pipeline(QuantileTransformer(n_quantiles=60, output_distribution="normal"), StandardScaler())
    scaler.fit(TRAIN.inputs)
    x, x_val = (scaler.transform(samples.inputs) for samples in (TRAIN, VAL))
    expected, _ = best_regressor("ridge", x, TRAIN.targets, x_val, VAL.targets)
    np.testing.assert_allclose(fitted.predict(VAL.inputs), expected.predict(x_val), rtol=1e-4)
    (stage,) = fitted.stages
    assert fitted.features(VAL.inputs) is None and stage.name == "ridge" and stage.history.wall_time > 0


def test_pictures_become_histograms_of_their_colours_or_rows_of_pixels(faces):
    images = faces.inputs.take(np.arange(12))
    samples = Samples(images, faces.targets[:12])
    prepared = {
        name: preparation(Recipe("ridge", featuriser=name), images, torch.device("cpu"))(images).numpy()
        for name in ("colours", "pixels")
    }
    seen = images.cropped(np.arange(12)).numpy()
    for number, picture in enumerate(seen):
        counts = np.zeros((6, 6, 6))
        for colour in picture.reshape(-1, 3):
            counts[tuple(min(int(value) // 43, 5) for value in colour)] += 1
        expected = np.sqrt(counts.ravel() / counts.sum())
        np.testing.assert_allclose(prepared["colours"][number], expected, atol=1e-6)
        np.testing.assert_allclose(prepared["pixels"][number], picture.ravel() / 255, atol=1e-6)
    fitted = fit(Recipe("ridge", featuriser="colours"), samples, samples, seed=0)
    assert fitted.predict(images).shape == (12,)


# --- divergence -----------------------------------------------------------------------------------------


def test_a_loss_that_is_not_finite_is_a_fit_that_diverged_after_the_stages_before():
    wild = replace(L1, loss="l2", learning_rate=1e8, epochs=6)
    with pytest.raises(Diverged, match=r"training loss \(l2\) became (inf|nan) in epoch \d") as caught:
        fit(replace(END_TO_END, fit=wild), TRAIN, VAL, seed=0)
    assert caught.value.stages == []
    with pytest.raises(Diverged, match=r"training loss \(l2\) became") as caught:
        fit(replace(FINE_TUNED, fit=wild), TRAIN, VAL, seed=0)
    (encoder,) = caught.value.stages
    assert encoder.name == "encoder"
    assert encoder.history.train_loss == fit(CLOSED, TRAIN, VAL, seed=0).stages[0].history.train_loss


@pytest.mark.parametrize("head", ["ridge", "neighbours", "gaussian process"])
def test_features_that_are_not_finite_are_a_fit_that_diverged(monkeypatch, head):
    def breaks_at_the_end(model, stage, *rest, **options):
        history = training.train(model, stage, *rest, **options)
        with torch.no_grad():
            next(model.parameters()).fill_(torch.nan)
        return history

    monkeypatch.setattr(networks, "train", breaks_at_the_end)
    with pytest.raises(Diverged, match=r"^features are not finite$") as caught:
        fit(replace(CLOSED, head=head), TRAIN, VAL, seed=0)
    assert [stage.name for stage in caught.value.stages] == ["encoder"]


# --- weights in the cache -------------------------------------------------------------------------------


def kept(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*.pt")}


def test_what_was_trained_before_is_taken_from_the_cache(tmp_path, monkeypatch):
    execution = Execution(cache=tmp_path, data="table", commit="abc")
    first = fit(FINE_TUNED, TRAIN, VAL, seed=0, execution=execution)
    assert {Path(name).parts[0] for name in kept(tmp_path)} == {"encoders", "models"}  # no checkpoint is left
    forbid_training(monkeypatch)
    again = fit(FINE_TUNED, TRAIN, VAL, seed=0, execution=replace(execution, commit="another"))
    np.testing.assert_array_equal(again.predict(NEW.inputs), first.predict(NEW.inputs))
    assert again.stages == first.stages and {stage.commit for stage in again.stages} == {"abc"}
    peer = fit(Recipe("ridge"), TRAIN, VAL, seed=0, execution=execution)
    assert {stage.commit for stage in peer.stages} == {"abc"}
    head = fit(replace(FINE_TUNED, head="neighbours"), TRAIN, VAL, seed=0, execution=execution)  # on that network
    np.testing.assert_array_equal(head.features(NEW.inputs), first.features(NEW.inputs))
    closed = fit(CLOSED, TRAIN, VAL, seed=0, execution=execution)  # on that encoder
    assert closed.stages == first.stages[:1]
    for other in (
        {"recipe": replace(FINE_TUNED, fit=replace(L1, momentum=0.5))}, {"seed": 1},
        {"execution": Execution(cache=tmp_path, data="other")},
        {"recipe": replace(FINE_TUNED, scaling="standard")}, {"recipe": replace(FINE_TUNED, target="raw")},
    ):  # fmt: skip
        options = {"recipe": FINE_TUNED, "seed": 0, "execution": execution} | other
        with pytest.raises(pytest.fail.Exception, match="it trained"):
            fit(options["recipe"], TRAIN, VAL, seed=options["seed"], execution=options["execution"])


@pytest.mark.parametrize("changes", [{"target": "raw"}, {"projection": 5}, {"scaling": "standard"}, {"widths": (8,)}])
def test_an_encoder_is_shared_by_recipes_that_train_it_alike(tmp_path, changes):
    execution = Execution(cache=tmp_path, data="table")
    fit(CLOSED, TRAIN, VAL, seed=0, execution=execution)
    (one,) = kept(tmp_path)
    fit(FROZEN, TRAIN, VAL, seed=0, execution=execution)
    fit(replace(FROZEN, fit=replace(L1, epochs=9)), TRAIN, VAL, seed=0, execution=execution)
    assert {name for name in kept(tmp_path) if name.startswith("encoders")} == {one}
    fit(replace(CLOSED, **changes), TRAIN, VAL, seed=0, execution=execution)
    assert len({name for name in kept(tmp_path) if name.startswith("encoders")}) == 2


def test_refresh_trains_again_and_keeps_the_encoder_if_told_so(tmp_path, monkeypatch):
    execution = Execution(cache=tmp_path, data="table")
    fit(FINE_TUNED, TRAIN, VAL, seed=0, execution=execution)
    seen = watch_training(monkeypatch)
    fit(FINE_TUNED, TRAIN, VAL, seed=0, execution=replace(execution, refresh=True, keep_encoder=True))
    assert [one["stage"].loss for one in seen] == ["l1"]
    fit(FINE_TUNED, TRAIN, VAL, seed=0, execution=replace(execution, refresh=True))
    assert [one["stage"].loss for one in seen] == ["l1", "rnc", "l1"]


def test_weights_that_cannot_be_read_are_trained_again(tmp_path):
    execution = Execution(cache=tmp_path, data="table")
    expected = fit(FROZEN, TRAIN, VAL, seed=0, execution=execution)
    for name in kept(tmp_path):
        (tmp_path / name).write_bytes(b"no weights")
    with pytest.warns(UserWarning, match=r"weights .* cannot be read .* trained again") as caught:
        again = fit(FROZEN, TRAIN, VAL, seed=0, execution=execution)
    assert len(caught) == 2
    np.testing.assert_array_equal(again.predict(NEW.inputs), expected.predict(NEW.inputs))
    assert losses(again) == losses(expected)


def test_without_a_cache_nothing_is_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RNC_CACHE", str(tmp_path))
    fit(FROZEN, TRAIN, VAL, seed=0)
    assert list(tmp_path.iterdir()) == []


def test_encoders_of_the_former_format_are_not_read(tmp_path):
    """Before there were recipes, an encoder lay under the digest of a whole configuration."""
    standin = molecules()
    stage = replace(RNC, batch_size=32, epochs=1)
    recipe = Recipe("gin", pretrain=stage, freeze=True)
    config = {
        "dataset": "standin", "split": "random", "seed": 0, "model": "gin",
        "pretrain": {name: value for name, value in asdict(stage).items() if value is not None},
    }  # fmt: skip
    told = [config, standin.checksum, 1, torch.__version__, "cpu", torch.get_num_threads()]
    name = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]
    zeros = {key: torch.zeros_like(value) for key, value in GIN().state_dict().items()}
    old = {"encoder": zeros, "history": {"train_loss": [0.0], "best_epoch": 1}, "commit": None}
    path = tmp_path / "encoders" / f"{name}.pt"
    training.write_state(path, old)
    before = path.read_bytes()
    train, val = parts(standin)
    found = fit(recipe, train, val, seed=0, execution=Execution(cache=tmp_path, data=standin.checksum))
    assert losses(found) == losses(fit(recipe, train, val, seed=0)) and found.stages[0].history.train_loss != [0.0]
    assert path.read_bytes() == before and len(kept(tmp_path)) == 2


def test_another_format_is_another_file(tmp_path, monkeypatch):
    execution = Execution(cache=tmp_path, data="table")
    fit(FROZEN, TRAIN, VAL, seed=0, execution=execution)
    before = kept(tmp_path)
    monkeypatch.setattr(networks, "FORMAT", networks.FORMAT + 1)
    fit(FROZEN, TRAIN, VAL, seed=0, execution=execution)
    assert len(before) == 2 and len(kept(tmp_path)) == 4


def test_the_error_of_an_encoder_that_was_trained_before_is_not_known(tmp_path):
    execution, told = Execution(cache=tmp_path, data="table"), []
    fit(FINE_TUNED, TRAIN, VAL, seed=0, execution=execution)
    fit(
        FINE_TUNED, TRAIN, VAL, seed=0, execution=execution,
        on_epoch=lambda epoch: told.append((epoch.stage, epoch.number, epoch.val_error())),
    )  # fmt: skip
    assert told == [("encoder", 4, None), ("regressor", 8, None)]


def test_the_error_of_an_encoder_is_that_of_the_weights_that_are_kept():
    told = []
    recipe = replace(CLOSED, pretrain=replace(RNC, average=0.99))
    fitted = fit(recipe, TRAIN, VAL, seed=0, on_epoch=lambda epoch: told.append(epoch.val_error()))
    assert told[-1] == pytest.approx(mae(fitted), rel=1e-4)


def test_noise_reaches_a_frozen_encoder_anew_in_each_epoch():
    fitted = fit(replace(FROZEN, fit=replace(L1, input_noise=0.1)), TRAIN, VAL, seed=0)
    assert mae(fitted) != mae(fit(FROZEN, TRAIN, VAL, seed=0))


def test_the_stages_before_a_divergence_are_those_of_all_networks(monkeypatch):
    calls = []

    def second_diverges(*rest, **options):
        calls.append(1)
        if len(calls) == 2:
            raise FloatingPointError("became nan")
        return training.train(*rest, **options)

    monkeypatch.setattr(networks, "train", second_diverges)
    with pytest.raises(Diverged) as caught:
        fit(replace(END_TO_END, ensemble=2), TRAIN, VAL, seed=0)
    assert len(caught.value.stages) == 1


def test_a_cache_asks_what_tells_the_samples_from_others(tmp_path):
    with pytest.raises(ValueError, match=r"^data: got '' with a cache; allowed: "):
        Execution(cache=tmp_path)


# --- several targets, weights, and a network of one's own ---------------------------------------------------------


def several(samples: Samples) -> Samples:
    return Samples(samples.inputs, np.column_stack([samples.targets, 1e3 * samples.targets + 7]))


@pytest.mark.parametrize("recipe", [END_TO_END, FINE_TUNED, FROZEN, CLOSED, replace(CLOSED, head="neighbours")])
def test_several_targets_are_each_predicted_in_their_own_unit(recipe):
    fitted = fit(recipe, several(TRAIN), several(VAL), seed=0)
    predicted = fitted.predict(NEW.inputs)
    assert predicted.shape == (15, 2)
    # the second is the first in another unit
    np.testing.assert_allclose(predicted[:, 1], 1e3 * predicted[:, 0] + 7, rtol=0.3)
    assert np.corrcoef(predicted[:, 0], NEW.targets)[0, 1] > 0.3
    with pytest.raises(ValueError, match=r"^train: got 60 inputs and targets of shape \(60, 2\); allowed: one target"):
        fit(Recipe("training mean"), several(TRAIN), several(VAL), seed=0)


def test_ridge_regression_on_features_has_the_weights_of_the_samples():
    w = np.random.default_rng(0).random(60) + 0.1
    fitted = fit(CLOSED, TRAIN._replace(weights=w), VAL._replace(weights=np.ones(20)), seed=0)
    x, y = fitted.features(TRAIN.inputs), TRAIN.targets
    x_val, scaled = fitted.features(VAL.inputs), (y - y.mean()) / y.std()
    literal = min(
        (make_pipeline(StandardScaler(), Ridge(alpha)).fit(x, scaled, ridge__sample_weight=w)
         for alpha in np.logspace(-3, 4, 15)),
        key=lambda model: np.abs(model.predict(x_val) * y.std() + y.mean() - VAL.targets).mean(),
    )  # fmt: skip
    expected = literal.predict(fitted.features(NEW.inputs)) * y.std() + y.mean()
    np.testing.assert_allclose(fitted.predict(NEW.inputs), expected, rtol=1e-4)
    for wrong in (w[:-1], -w, w * np.nan, np.zeros(60)):
        with pytest.raises(ValueError, match=r"^train: got weights that are not 60 finite numbers above 0"):
            fit(CLOSED, TRAIN._replace(weights=wrong), VAL, seed=0)
    with pytest.raises(ValueError, match=r"^train: got weights with a regressor that takes none"):
        fit(replace(CLOSED, head="neighbours"), TRAIN._replace(weights=w), VAL, seed=0)


def test_a_network_of_ones_own_is_copied_and_trained():
    encoder = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh())
    before = [parameter.clone() for parameter in encoder.parameters()]
    own = Recipe("own", fit=L1)
    fitted = fit(own, TRAIN, VAL, seed=0, encoder=encoder)
    assert all(torch.equal(a, b) for a, b in zip(encoder.parameters(), before, strict=True))
    assert fitted.features(NEW.inputs).shape == (15, 8)
    assert np.corrcoef(fitted.predict(NEW.inputs), NEW.targets)[0, 1] > 0.8
    for recipe, given in ((own, None), (END_TO_END, encoder)):
        with pytest.raises(ValueError, match=r"^encoder: got .*; allowed: a module with model='own' and no cache"):
            fit(recipe, TRAIN, VAL, seed=0, encoder=given)
    with pytest.raises(ValueError, match=r"^encoder: got features of shape \(2, 4, 1\); allowed: \(n, feat_dim\)"):
        fit(own, TRAIN, VAL, seed=0, encoder=torch.nn.Unflatten(1, (4, 1)))
