"""From a recipe and samples to a fitted model; no test set, store or chapter within reach."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from rnclib.inputs import check_inputs, preparation
from rnclib.networks import (
    Diverged,
    Epoch,
    Execution,
    FittedNetwork,
    Network,
    TrainedStage,
    check_device,
    launch,
    processes,
    scaler_of,
)  # fmt: skip
from rnclib.other_packages import PACKAGES
from rnclib.recipe import MODELS, PEERS, Recipe
from rnclib.regressors import BASELINES, Baseline, best_regressor
from rnclib.training import History, Samples

__all__ = [
    "Diverged", "Epoch", "Execution", "Fitted", "FittedNetwork", "Samples", "TrainedStage", "check_device", "fit",
    "launch", "processes", "scaler_of",
]  # fmt: skip


class Fitted(Protocol):
    """A fitted model of any kind."""

    stages: list[TrainedStage]

    def predict(self, inputs: Any) -> np.ndarray:
        """Predictions, shape (n,), in the unit of the targets."""

    def features(self, inputs: Any) -> np.ndarray | None:
        """Features, shape (n, feat_dim), or None where the model has none."""


def fit(
    recipe: Recipe,
    train: Samples,
    val: Samples,
    *,
    seed: int,
    execution: Execution | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
    encoder: nn.Module | None = None,
) -> Fitted:
    """Fit a model.

    Training that was killed goes on from its last checkpoint, where there is a cache, and ends with the same numbers;
    on a GPU, whose sums have no fixed order, to rounding.

    Parameters
    ----------
    recipe : Recipe
    train, val : Samples
        Inputs (`rnclib.data.molecules.Graphs`, `rnclib.data.images.Images` or an array of numbers) and targets, an
        array of shape (n,) or, for a network, (n, n_targets), in any unit. The validation set chooses epochs and
        settings of a head. Weights above 0 say how much a sample counts in the losses of a network.
    seed : int
        Of initial weights, the order of samples, and all else that is random.
    execution : Execution, optional
    on_epoch : callable, optional
        Told of each epoch; what it raises ends the training, so that a search can give up a trial.
    encoder : Module, optional
        With ``model='own'``: it takes a batch of inputs, float32, and gives features, shape (n, feat_dim). A copy of it
        is trained, from the weights that it has.

    Returns
    -------
    Fitted

    Raises
    ------
    ValueError
        If recipe and samples do not go together.
    Diverged
        If a loss, features or a head are not finite.

    Examples
    --------
    >>> from rnclib.recipe import Stage
    >>> x = np.linspace(-1, 1, 40)[:, None].astype(np.float32)
    >>> sets = Samples(x, 3 * x[:, 0] + 5), Samples(x[::4], 3 * x[::4, 0] + 5)
    >>> stage = Stage("l1", epochs=60, batch_size=8, learning_rate=0.05, lr_decay_rate=0.1, weight_decay=0)
    >>> line = fit(Recipe("perceptron", fit=stage, widths=(8,)), *sets, seed=0)
    >>> bool(abs(line.predict(x)[0] - 2) < 0.2)
    True
    """
    execution = execution or Execution()
    if type(seed) is not int or seed < 0:
        raise ValueError(f"seed: got {seed!r}; allowed: a non-negative integer")
    if (encoder is None) != (recipe.model != "own") or (encoder is not None and execution.cache is not None):
        raise ValueError(f"encoder: got {type(encoder).__name__}; allowed: a module with model='own' and no cache")
    train, val = _checked("train", train, recipe), _checked("val", val, recipe)
    if val.targets.shape[1:] != train.targets.shape[1:]:
        raise ValueError(
            f"val: got {len(val.targets)} inputs and targets of shape {val.targets.shape}; "
            f"allowed: targets as in train, of shape {train.targets.shape}"
        )
    if isinstance(train.inputs, np.ndarray) and train.inputs.shape[1:] != val.inputs.shape[1:]:
        n_features = train.inputs.shape[1]
        raise ValueError(f"val: got inputs of shape {val.inputs.shape}; allowed: {n_features} columns, as in train")
    if recipe.model in BASELINES:
        return BASELINES[recipe.model](train.inputs, train.targets, seed)
    if recipe.model in PEERS:
        return _peer(recipe, train, val, seed, execution.commit)
    if recipe.model in PACKAGES:
        began = time.monotonic()
        model = PACKAGES[recipe.model](train.inputs, train.targets, val.inputs, val.targets, seed)
        history = History(wall_time=time.monotonic() - began)
        model.stages.append(TrainedStage(recipe.model, history, execution.commit))
        return model
    if recipe.ensemble is None:
        return Network(recipe, train, val, seed, execution, on_epoch, encoder=encoder).fitted()
    one = replace(recipe, ensemble=None)
    seeds = [seed, *(int(np.random.SeedSequence([seed, i]).generate_state(1)[0]) for i in range(1, recipe.ensemble))]
    members: list[FittedNetwork] = []
    stages: list[TrainedStage] = []
    for i, member_seed in enumerate(seeds):
        try:
            network = Network(one, train, val, member_seed, execution, on_epoch, member=i, encoder=encoder)
            members.append(network.fitted())
        except Diverged as error:
            raise Diverged(str(error), stages + error.stages) from None
        stages += members[-1].stages
    return _Ensemble(members, stages)


def _peer(recipe: Recipe, train: Samples, val: Samples, seed: int, commit: str | None) -> Baseline:
    prepare = preparation(recipe, train.inputs, torch.device("cpu"))
    x, x_val = (prepare(samples.inputs).double().numpy() for samples in (train, val))
    began = time.monotonic()
    model, _ = best_regressor(recipe.model, x, train.targets, x_val, val.targets, seed)
    took = TrainedStage(recipe.model, History(wall_time=time.monotonic() - began), commit)
    return Baseline(lambda inputs: model.predict(prepare(inputs).double().numpy()), [took])


def _checked(name: str, samples: Samples, recipe: Recipe) -> Samples:
    """The samples with targets in float64, or an error that says what is wrong with them."""
    inputs = samples.inputs
    try:
        targets = np.asarray(samples.targets, dtype=float)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: got targets that are no numbers; allowed: finite numbers") from None
    several = targets.ndim == 2 and targets.shape[1] > 0 and recipe.model in MODELS
    if (targets.ndim != 1 and not several) or len(targets) != len(inputs) or not len(targets):
        raise ValueError(
            f"{name}: got {len(inputs)} inputs and targets of shape {targets.shape}; "
            "allowed: one target for each input, or with a network several, at least one input"
        )
    with np.errstate(over="ignore"):
        if not (np.isfinite(targets).all() and np.isfinite(targets.std(axis=0)).all()):
            raise ValueError(f"{name}: got targets that are NaN, infinite or too large to square; allowed: others")
    check_inputs(recipe, inputs)
    return Samples(inputs, targets, _checked_weights(name, samples.weights, len(targets), recipe))


def _checked_weights(name: str, weights: Any, n: int, recipe: Recipe) -> np.ndarray | None:
    if weights is None:
        return None
    weights = np.asarray(weights, dtype=float)
    if weights.shape != (n,) or not np.isfinite(weights).all() or not (weights > 0).all():
        raise ValueError(f"{name}: got weights that are not {n} finite numbers above 0; allowed: such, or None")
    if recipe.model not in MODELS or recipe.head not in (None, "ridge"):
        raise ValueError(f"{name}: got weights with a regressor that takes none; allowed: a network, or ridge on it")
    return weights


@dataclass
class _Ensemble:
    members: list[FittedNetwork]
    stages: list[TrainedStage]

    def predict(self, inputs: Any) -> np.ndarray:
        return np.mean([member.predict(inputs) for member in self.members], axis=0)

    def features(self, inputs: Any) -> np.ndarray:
        """Those of all members side by side."""
        return np.concatenate([member.features(inputs) for member in self.members], axis=1)
