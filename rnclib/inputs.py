"""How inputs get to a network: checked, turned into numbers and scaled, and as training sees them in each epoch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from rnclib.data.augment import Views
from rnclib.data.images import Images
from rnclib.data.molecules import Graphs, Molecules, descriptors
from rnclib.recipe import Recipe, Stage
from rnclib.training import predict

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline

__all__ = ["Numbers", "check_inputs", "frozen", "in_training", "preparation", "scaling"]


PIECES = 16  # of a column between its quantiles, see `Recipe.scaling`


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
    kinds = {Graphs: "molecules", Molecules: "molecules", Images: "images", np.ndarray: "table"}
    kind = next((name for type_, name in kinds.items() if isinstance(inputs, type_)), None)
    if recipe.model == "own":
        if kind != "table" or not inputs.ndim or inputs.dtype.kind not in "biuf" or not np.isfinite(inputs).all():
            raise ValueError("inputs: got no array of finite numbers; allowed: one, with an encoder of your own")
        return
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
    if recipe.model == "own":
        return partial(torch.tensor, dtype=torch.float32, device=device)
    if not isinstance(inputs, np.ndarray) and recipe.featuriser is None:
        return partial(_on_device, device=device)
    numbers = Numbers.of(recipe, inputs, device)
    if recipe.model == "gin and perceptron":
        return partial(_both, numbers=numbers)
    return numbers


@dataclass
class Numbers:
    """Inputs as the numbers that a network takes, scaled as its recipe says.

    Attributes
    ----------
    recipe : Recipe
    pipeline : Pipeline
        Scikit-learn's, fitted to the training set.
    n_features : int
        Numbers of an input before they are scaled.
    device : device
    dtype : dtype
    """

    recipe: Recipe
    pipeline: Pipeline
    n_features: int
    device: torch.device
    dtype: torch.dtype = torch.float32

    @classmethod
    def of(cls, recipe: Recipe, inputs: Any, device: torch.device) -> Numbers:
        """Fitted to the inputs of a training set.

        Parameters
        ----------
        recipe : Recipe
        inputs : object
        device : device
        """
        values = _numbers(recipe, inputs)
        return cls(recipe, scaling(recipe.scaling, len(values)).fit(values), values.shape[1], device)

    def __call__(self, inputs: Any) -> torch.Tensor:
        values = _numbers(self.recipe, inputs)
        if values.ndim != 2 or values.shape[1] != self.n_features or not len(values):
            wanted = f"(n, {self.n_features}), n ≥ 1, as in training"
            raise ValueError(f"inputs: got shape {values.shape}; allowed: {wanted}")
        return torch.tensor(self.pipeline.transform(values), dtype=self.dtype, device=self.device)


def scaling(kind: str | None, n: int) -> Pipeline:
    """Steps that fill missing numbers and scale them, not fitted yet.

    Parameters
    ----------
    kind : {None, 'standard', 'quantile', 'pieces'}
        See `Recipe.scaling`.
    n : int
        Samples that the steps will be fitted to.
    """
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, QuantileTransformer, SplineTransformer, StandardScaler

    steps: list[Any] = [SimpleImputer(strategy="median", keep_empty_features=True)]
    if kind == "quantile":
        n_quantiles = min(1000, n)
        steps.append(QuantileTransformer(n_quantiles=n_quantiles, output_distribution="normal", random_state=0))
    elif kind == "pieces":
        steps.append(SplineTransformer(PIECES + 1, degree=1, knots="quantile", extrapolation="constant"))
    if kind is not None:
        # a descriptor that is rare in training can be hundreds of standard deviations off elsewhere
        steps += [StandardScaler(), FunctionTransformer(np.clip, kw_args={"a_min": -10, "a_max": 10})]
    return make_pipeline(*steps)


def _on_device(inputs: Any, device: torch.device) -> Any:
    """Molecules as graphs, or images."""
    return (inputs.graphs() if isinstance(inputs, Molecules) else inputs).to(device)


def _both(inputs: Any, numbers: Numbers) -> _Both:
    return _Both(_on_device(inputs, numbers.device), numbers(inputs))


@dataclass(frozen=True)
class _Both:
    """Molecules as graphs and as numbers."""

    graphs: Graphs
    numbers: torch.Tensor

    def __len__(self) -> int:
        return len(self.graphs)

    def __getitem__(self, index: np.ndarray) -> tuple[Any, torch.Tensor]:
        return self.graphs[index], self.numbers[index]


def _numbers(recipe: Recipe, inputs: Any) -> np.ndarray:
    """Inputs as numbers, shape (n, n_features), float64."""
    if recipe.featuriser is None:
        return np.asarray(inputs, float)
    if recipe.featuriser == "descriptors":
        values = descriptors(inputs.smiles).astype(float)
        return np.sign(values) * np.log1p(np.abs(values))
    pixels = inputs.cropped(np.arange(len(inputs))).cpu().numpy().reshape(len(inputs), -1, 3)
    if recipe.featuriser == "pixels":
        return pixels.reshape(len(pixels), -1) / 255
    # fractions of the pixels in each of 6 × 6 × 6 colours; the root makes rare ones count
    colour = (pixels // 43) @ np.array([36, 6, 1])
    counts = np.stack([np.bincount(one, minlength=216) for one in colour])
    return np.sqrt(counts / pixels.shape[1])


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
        shifts = stage.augmentation == "shifts"
        return Views(inputs, np.arange(len(inputs)), seed, stage.n_views or 1, shifts_only=shifts)
    if not stage.input_noise:
        return inputs
    if isinstance(inputs, _Both):
        return _NoisyBoth(inputs.graphs, _Noisy(inputs.numbers, seed, stage.input_noise))
    return _Noisy(inputs, seed, stage.input_noise)


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
    inputs: Views | _Noisy | _NoisyBoth

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


@dataclass(frozen=True)
class _NoisyBoth:
    """Graphs as they are, and numbers with noise."""

    graphs: Graphs
    noisy: _Noisy

    def at_epoch(self, epoch: int) -> _Both:
        return _Both(self.graphs, self.noisy.at_epoch(epoch))
