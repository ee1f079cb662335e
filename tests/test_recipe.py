"""Stages and recipes: what they refuse, how records hold them, and what pages call them."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from rnclib.protocols import tasks
from rnclib.protocols.settings import default_settings
from rnclib.recipe import BASELINES, FEATURISERS, HEADS, MODELS, PACKAGES, PEERS, REGULARISERS, Recipe, Stage, given

STORE = Path(__file__).resolve().parents[1] / "book" / "results"
L1 = Stage("l1", epochs=6, batch_size=8, learning_rate=0.05, lr_decay_rate=0.1, weight_decay=1e-4)
RNC = Stage(
    "rnc", epochs=6, batch_size=8, learning_rate=0.05, lr_decay_rate=0.1, weight_decay=1e-4, drop_last=True,
    temperature=2.0, label_diff="l1", feature_sim="l2",
)  # fmt: skip
SUPCON = replace(RNC, loss="supcon", label_diff=None, feature_sim=None, n_bins=3)
RANKSIM = replace(L1, regulariser="ranksim", regulariser_weight=1.0)
ONE_CYCLE = replace(L1, lr_decay_rate=0.0, schedule="one-cycle")

END_TO_END = Recipe("gin", fit=L1)
FINE_TUNED = Recipe("gin", pretrain=RNC, fit=L1)
FROZEN = replace(FINE_TUNED, freeze=True)
CLOSED = Recipe("gin", pretrain=RNC, freeze=True)
PERCEPTRON = Recipe("perceptron", fit=L1, widths=(8, 4))
BASELINE = Recipe("training mean")


def refused(message: str):
    """An error in the form that all have: the argument, what was given, and what is allowed."""
    return pytest.raises(ValueError, match=rf"^{message}.*; allowed: .+")


# --- the stage ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("loss", "L1"), ("epochs", 0), ("epochs", True), ("batch_size", 2.5), ("learning_rate", math.nan),
        ("weight_decay", -1e-5), ("lr_decay_rate", math.inf), ("batch_norm", "frozen"), ("temperature", 2.0),
        ("momentum", "0.9"), ("optimizer", "adam"), ("schedule", "cosine"), ("average", 1.0), ("average", 0.0),
        ("input_noise", -0.1), ("input_noise", "0.1"), ("n_views", 0), ("n_views", 1.5),
    ],
)  # fmt: skip
def test_a_bad_hyperparameter_is_named(name, value):
    with refused(f"{name}: got {value!r}"):
        replace(L1, **{name: value})


@pytest.mark.parametrize(
    ("stage", "name", "value"),
    [
        (RNC, "temperature", 0.0), (RNC, "temperature", -1.0), (RNC, "temperature", math.inf),
        (RNC, "label_diff", "l7"), (RNC, "feature_sim", "dot"), (SUPCON, "n_bins", 1), (SUPCON, "n_bins", 2.5),
        (RANKSIM, "regulariser_weight", math.nan), (RANKSIM, "regulariser_weight", -1.0),
        (ONE_CYCLE, "lr_decay_rate", 0.1),
    ],
)  # fmt: skip
def test_a_bad_option_of_a_loss_or_a_schedule_is_named(stage, name, value):
    with refused(f"{name}: got {value!r}"):
        replace(stage, **{name: value})


@pytest.mark.parametrize("name", ["temperature", "label_diff", "feature_sim"])
def test_contrastive_options_are_required_with_rnc(name):
    with refused(f"{name}: got None"):
        replace(RNC, **{name: None})


@pytest.mark.parametrize(
    ("stage", "options", "message"),
    [
        (L1, {"regulariser": "ranksim"}, "regulariser_weight: got None"),
        (L1, {"regulariser": "conr", "regulariser_weight": 1.0}, "window: got None; allowed: a number above 0 with"),
        (L1, {"window": 0.1}, "window: got 0.1; allowed: a number above 0 with regulariser='conr', None without"),
        (L1, {"regulariser_weight": 1.0}, "regulariser_weight: got 1.0"),
        (
            L1,
            {"regulariser": "rank", "regulariser_weight": 1.0},
            "regulariser: got 'rank'; allowed: 'ordinal entropy', 'ranksim', 'rnc', 'conr' with a regression loss, or",
        ),
        (RNC, {"regulariser": "ranksim", "regulariser_weight": 1.0}, "regulariser: got 'ranksim'"),
        (RNC, {"n_bins": 3}, "n_bins: got 3; allowed: a value with loss='supcon', None with the others"),
        (RNC, {"loss": "supcon"}, "label_diff: got 'l1'"),
        (L1, {"unit_features": True}, "unit_features: got True; allowed: True with loss='rnc', or None"),
        (RNC, {"unit_features": False}, "unit_features: got False; allowed: True with loss='rnc', or None"),
    ],
)
def test_options_that_do_not_go_with_the_loss_are_refused(stage, options, message):
    with pytest.raises(ValueError, match=rf"^{message}") as caught:
        replace(stage, **options)
    assert "; allowed: " in str(caught.value)


# --- the recipe -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipe", "name", "value"),
    [
        (END_TO_END, "model", "gcn"), (END_TO_END, "target", "log"), (END_TO_END, "precision", "fp8"),
        (PERCEPTRON, "featuriser", "fingerprints"), (END_TO_END, "featuriser", "descriptors"),
        (PERCEPTRON, "scaling", "minmax"), (END_TO_END, "scaling", "standard"), (END_TO_END, "head", "svm"),
        (BASELINE, "head", "ridge"), (BASELINE, "fit", L1), (BASELINE, "pretrain", RNC), (END_TO_END, "fit", None),
        (END_TO_END, "freeze", True), (FROZEN, "fit", RANKSIM), (FINE_TUNED, "pretrain", L1), (END_TO_END, "fit", RNC),
        (CLOSED, "freeze", False), (CLOSED, "projection", 0), (END_TO_END, "projection", 7),
        (END_TO_END, "widths", (8,)), (PERCEPTRON, "widths", None), (PERCEPTRON, "widths", ()),
        (PERCEPTRON, "widths", (8, 0)), (PERCEPTRON, "widths", (8.0,)), (END_TO_END, "dropout", 0.1),
        (PERCEPTRON, "dropout", 1.0), (PERCEPTRON, "dropout", -0.1), (END_TO_END, "ensemble", 1),
        (END_TO_END, "ensemble", 2.5),
    ],
)  # fmt: skip
def test_a_bad_part_of_a_recipe_is_named(recipe, name, value):
    with refused(f"{name}: got "):
        replace(recipe, **{name: value})


def test_the_allowed_values_are_in_the_message():
    for name, allowed in (("model", (*MODELS, *BASELINES, *PEERS, *PACKAGES)), ("head", (None, *HEADS))):
        with pytest.raises(ValueError) as caught:
            replace(PERCEPTRON, **{name: "other"})
        assert str(caught.value) == f"{name}: got 'other'; allowed: {', '.join(map(repr, allowed))}"
    with pytest.raises(ValueError, match=r"projection: got 0; allowed: an integer of at least 1, or None"):
        replace(CLOSED, projection=0)


@pytest.mark.parametrize(
    ("recipe", "kinds"),
    [
        (END_TO_END, ("molecules",)),
        (PERCEPTRON, ("table",)),
        (replace(PERCEPTRON, featuriser="descriptors"), ("molecules",)),
        (Recipe("small", fit=L1), ("images",)),
        (BASELINE, ("molecules", "images", "table")),
        (Recipe("extra trees"), ("molecules",)),
        (Recipe("Delaney's equation"), ("molecules",)),
    ],
)
def test_a_recipe_says_which_inputs_it_takes(recipe, kinds):
    assert recipe.inputs == kinds


def test_records_hold_what_applies():
    assert BASELINE.described() == {"model": "training mean", "freeze": False}
    described = replace(FROZEN, notable=("tuned",), target="raw").described()
    assert set(described) == {"model", "pretrain", "fit", "freeze", "target"} and "n_bins" not in described["pretrain"]
    assert described["fit"] == {
        "loss": "l1", "epochs": 6, "batch_size": 8, "learning_rate": 0.05, "lr_decay_rate": 0.1, "weight_decay": 1e-4,
        "momentum": 0.9, "drop_last": False, "batch_norm": "train",
    }  # fmt: skip
    # a ridge regression is what records have called refit, or nothing where there is no fit
    assert replace(END_TO_END, head="ridge").described() == END_TO_END.described() | {"refit": True}
    assert CLOSED.head == "ridge" and not {"head", "refit", "fit"} & set(CLOSED.described())
    assert replace(CLOSED, head="neighbours").described()["head"] == "neighbours"


def test_what_is_none_is_left_out_at_every_depth():
    assert given({"a": None, "b": {"c": None, "d": 0}, "e": False}) == {"b": {"d": 0}, "e": False}


def test_what_a_label_says_besides_does_not_make_another_recipe():
    said = replace(END_TO_END, notable=("tuned",))
    assert said == END_TO_END and hash(said) == hash(END_TO_END) and said.label() != END_TO_END.label()


# --- labels ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("recipe", "label"),
    [
        (BASELINE, "training mean"),
        (Recipe("Delaney's equation"), "Delaney's equation"),
        (END_TO_END, "L1 end to end"),
        (replace(END_TO_END, fit=replace(L1, loss="huber")), "Huber end to end"),
        (replace(END_TO_END, fit=replace(L1, loss="l2"), notable=("fit.learning_rate",)), "L2 end to end, lr 0.05"),
        (replace(END_TO_END, fit=RANKSIM), "L1 + RankSim end to end"),
        (replace(END_TO_END, fit=replace(RANKSIM, regulariser="rnc")), "L1 + RnC end to end"),
        (
            replace(END_TO_END, fit=replace(RANKSIM, regulariser="ordinal entropy"), notable=("tuned",)),
            "L1 + Ordinal Entropy end to end, tuned",
        ),
        (replace(END_TO_END, head="ridge"), "L1 end to end, closed form"),
        (replace(END_TO_END, ensemble=5), "L1 end to end, ensemble of 5"),
        (FROZEN, "RnC frozen, L1"),
        (FINE_TUNED, "RnC fine-tuned, L1"),
        (CLOSED, "RnC frozen, closed form"),
        (replace(FROZEN, head="neighbours"), "RnC frozen, L1, nearest neighbours"),
        (replace(CLOSED, head="gaussian process"), "RnC frozen, Gaussian process"),
        (replace(CLOSED, pretrain=SUPCON, notable=("tuned",)), "SupCon frozen, closed form, tuned"),
        (replace(CLOSED, notable=("pretrain.temperature",)), "RnC frozen, closed form, temperature 2"),
        (
            replace(CLOSED, pretrain=replace(RNC, feature_sim="cosine"), notable=("pretrain.feature_sim",)),
            "RnC frozen, closed form, cosine similarity",
        ),
        (replace(CLOSED, notable=("pretrain.batch_size",)), "RnC frozen, closed form, batches of 8"),
        (replace(CLOSED, notable=("0.25 of the epochs",)), "RnC frozen, closed form, 0.25 of the epochs"),
        (
            replace(CLOSED, pretrain=replace(RNC, feature_sim="l1"), notable=("pretrain.feature_sim",)),
            "RnC frozen, closed form, negative L1 similarity",
        ),
        (
            replace(CLOSED, model="small", pretrain=replace(RNC, n_views=1), notable=("pretrain.n_views",)),
            "RnC frozen, closed form, 1 view",
        ),
        (
            replace(CLOSED, pretrain=replace(RNC, unit_features=True), notable=("pretrain.unit_features",)),
            "RnC frozen, closed form, features of length 1",
        ),
        (replace(CLOSED, projection=64, notable=("projection",)), "RnC frozen, closed form, projection head of 64"),
    ],
)
def test_a_label_says_how_a_method_is_trained(recipe, label):
    assert recipe.label() == label


@pytest.mark.parametrize("regulariser", REGULARISERS)
def test_every_regulariser_has_a_name_of_its_own(regulariser):
    window = 0.1 if regulariser == "conr" else None
    label = replace(END_TO_END, fit=replace(RANKSIM, regulariser=regulariser, window=window)).label()
    assert label == f"L1 + {REGULARISERS[regulariser]} end to end"
    assert len(set(REGULARISERS.values())) == len(REGULARISERS)


def test_recipes_need_no_torch():
    program = "import sys, rnclib.recipe; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("model", ["gin", "small"])
def test_noise_is_for_numbers(model):
    with pytest.raises(ValueError, match=r"^input_noise: got 0.1; allowed: |^fit: got .*; allowed: "):
        Recipe(model, fit=replace(L1, input_noise=0.1))


@pytest.mark.parametrize(("name", "value"), [("projection", 7.5), ("projection", "7")])
def test_a_projection_is_whole(name, value):
    with pytest.raises(ValueError, match=rf"^{name}: got {value!r}; allowed: "):
        replace(CLOSED, **{name: value})


@pytest.mark.parametrize("value", ["0.9"])
def test_an_average_is_a_number(value):
    with pytest.raises(ValueError, match=rf"^average: got {value!r}; allowed: "):
        replace(L1, average=value)


# --- other regressors, and molecules as graphs and numbers ----------------------------------------------


def test_a_peer_is_called_by_its_name_and_takes_numbers_or_what_becomes_numbers():
    peer = Recipe("gaussian process", scaling="standard")
    assert peer.label() == "Gaussian process" and peer.inputs == ("table",) and not peer.reads_graph_or_pixels
    for featuriser, kind in FEATURISERS.items():
        assert replace(peer, featuriser=featuriser).inputs == (kind,)
    assert Recipe("ridge", featuriser="pixels", notable=("on pixels",)).label() == "ridge, on pixels"
    with pytest.raises(ValueError, match=r"^fit: got Stage\(.*; allowed: None with model='svr'"):
        Recipe("svr", fit=L1)
    with pytest.raises(ValueError, match=r"^head: got 'ridge'; allowed: None with model='svr'"):
        Recipe("svr", head="ridge")


def test_a_model_of_another_package_takes_the_inputs_of_that_package_and_no_settings():
    for name, kind in PACKAGES.items():
        model = Recipe(name)
        assert model.label() == name and model.inputs == (kind,) and not model.reads_graph_or_pixels
        for setting, value in {"fit": L1, "head": "ridge", "scaling": "standard", "featuriser": "descriptors"}.items():
            with refused(f"{setting}: got "):
                replace(model, **{setting: value})


def test_graphs_and_numbers_need_descriptors_and_widths():
    both = {"model": "gin and perceptron", "fit": replace(L1, input_noise=0.1), "widths": (8, 4), "scaling": "standard"}
    recipe = Recipe(**both, featuriser="descriptors")
    assert recipe.inputs == ("molecules",) and recipe.label() == "L1 end to end"
    with pytest.raises(ValueError, match=r"^featuriser: got None; allowed: 'descriptors' with model='gin and perc"):
        Recipe(**both)
    with pytest.raises(ValueError, match=r"^widths: got None; allowed: at least one positive integer with model='gin"):
        Recipe(**both | {"widths": None}, featuriser="descriptors")
    with pytest.raises(ValueError, match=r"^featuriser: got 'descriptors'; allowed: None but with a model for numbers"):
        Recipe("gin", fit=L1, featuriser="descriptors")


def test_shifts_are_for_pictures():
    assert Recipe("residual", fit=replace(L1, augmentation="shifts")).inputs == ("images",)
    with pytest.raises(ValueError, match=r"^fit: got augmentation='shifts' with model='gin'; allowed: only with one"):
        Recipe("gin", fit=replace(L1, augmentation="shifts"))
    with pytest.raises(ValueError, match=r"^augmentation: got 'mirrors'; allowed: None, 'shifts'"):
        replace(L1, augmentation="mirrors")


@pytest.mark.parametrize("method", ["rnc", "joint", "end_to_end"])
def test_the_default_recipe_is_typical_of_what_searches_found(method):
    arm = {"rnc": "RnC", "joint": "joint", "end_to_end": "end to end"}[method]
    for kind, network in (("table", "numbers"), ("molecules", "descriptors"), ("images", "pictures")):
        found = default_settings(STORE, kind)[arm]
        recipe = tasks.recipe(network, arm, found, "ridge" if method == "rnc" else None)
        assert Recipe.default(kind, method) == recipe
        assert found != tasks.space(network, arm)[1]
    own = Recipe.default("array", method)
    assert own.model == "own" and (own.pretrain or own.fit).input_noise is None
    with pytest.raises(ValueError, match=r"^kind: got 'text'; allowed: 'table', 'molecules', 'images', 'array'"):
        Recipe.default("text", method)
    with pytest.raises(ValueError, match=r"^method: got 'RnC'; allowed: 'rnc', 'joint', 'end_to_end'"):
        Recipe.default("table", "RnC")
