"""How inputs get to a network: checked, turned into numbers and scaled, and as training sees them in each epoch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from rnclib.data.augment import Views
from rnclib.data.images import Images
from rnclib.data.molecules import Graphs, descriptors
from rnclib.recipe import Recipe, Stage
from rnclib.training import predict

__all__ = ["check_inputs", "frozen", "in_training", "preparation"]


def check_inputs(recipe: Recipe, inputs: Any) -> None:
    """Refuse inputs that a recipe's model does not take.

    Parameters
    ----------
    recipe : Recipe
    inputs : object

    Raises
    ------
    ValueError
    """
    kinds = {Graphs: "molecules", Images: "images", np.ndarray: "table"}
    kind = next((name for type_, name in kinds.items() if isinstance(inputs, type_)), None)
    if kind not in recipe.inputs:
        raise ValueError(
            f"model: got {recipe.model!r} with inputs of type {type(inputs).__name__}; "
            f"allowed: with {' or '.join(recipe.inputs)}"
        )
    if kind == "table" and (inputs.ndim != 2 or inputs.dtype.kind not in "biuf" or np.isinf(inputs).any()):
        raise ValueError(
            f"inputs: got an array of {inputs.dtype}, shape {inputs.shape}; "
            "allowed: (n, n_features), numbers or NaN, not infinite"
        )


def preparation(recipe: Recipe, inputs: Any, device: torch.device) -> Callable[[Any], Any]:
    """What brings inputs to the encoder.

    Parameters
    ----------
    recipe : Recipe
    inputs : object
        Of the training set: all that has to be known of the data comes from these.
    device : device
    """
    if not isinstance(inputs, np.ndarray) and recipe.featuriser is None:
        return lambda inputs: inputs.to(device)
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, QuantileTransformer, StandardScaler

    def numbers(inputs: Any) -> np.ndarray:
        if recipe.featuriser is None:
            return np.asarray(inputs, float)
        values = descriptors(inputs.smiles).astype(float)
        return np.sign(values) * np.log1p(np.abs(values))

    steps: list[Any] = [SimpleImputer(strategy="median", keep_empty_features=True)]
    if recipe.scaling == "standard":
        # a descriptor that is rare in training can be hundreds of standard deviations off elsewhere
        steps += [StandardScaler(), FunctionTransformer(np.clip, kw_args={"a_min": -10, "a_max": 10})]
    elif recipe.scaling == "quantile":
        n_quantiles = min(1000, len(inputs))
        steps.append(QuantileTransformer(n_quantiles=n_quantiles, output_distribution="normal", random_state=0))
    fitted_to = numbers(inputs)
    pipeline = make_pipeline(*steps).fit(fitted_to)

    def prepare(inputs: Any) -> torch.Tensor:
        values = numbers(inputs)
        if values.ndim != 2 or values.shape[1] != fitted_to.shape[1] or not len(values):
            wanted = f"(n, {fitted_to.shape[1]}), n ≥ 1, as in training"
            raise ValueError(f"inputs: got shape {values.shape}; allowed: {wanted}")
        return torch.tensor(pipeline.transform(values), dtype=torch.float32, device=device)

    return prepare


def in_training(inputs: Any, stage: Stage, seed: int) -> Any:
    """Prepared inputs as a stage sees them: random views of images, numbers with noise, others as they are.

    Parameters
    ----------
    inputs : object
        From `preparation`.
    stage : Stage
    seed : int
    """
    if isinstance(inputs, Images):
        return Views(inputs, np.arange(len(inputs)), seed, stage.n_views or 1)
    return _Noisy(inputs, seed, stage.input_noise) if stage.input_noise else inputs


def frozen(encoder: nn.Module, inputs: Any) -> Any:
    """Features, as inputs of a linear layer, from an encoder that stays as it is.

    Parameters
    ----------
    encoder : Module
    inputs : object
        From `in_training`.
    """
    return _FrozenFeatures(encoder, inputs) if hasattr(inputs, "at_epoch") else predict(encoder, inputs)


@dataclass(frozen=True)
class _FrozenFeatures:
    """Features, from an encoder that stays as it is, of inputs that are new in each epoch."""

    encoder: nn.Module
    inputs: Views | _Noisy

    def at_epoch(self, epoch: int) -> torch.Tensor:
        return predict(self.encoder, self.inputs.at_epoch(epoch))


@dataclass(frozen=True)
class _Noisy:
    """Numbers with normal noise that is new in each epoch."""

    inputs: torch.Tensor
    seed: int
    std: float

    def at_epoch(self, epoch: int) -> torch.Tensor:
        noise = np.random.default_rng([self.seed, epoch, 1]).standard_normal(tuple(self.inputs.shape), np.float32)
        return self.inputs + self.std * torch.from_numpy(noise).to(self.inputs.device)
