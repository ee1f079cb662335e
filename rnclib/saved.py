"""A fitted `RnCRegressor` as one file: weights in the format of safetensors, all else as JSON in its header.

Nothing in the file is code, and nothing of it is run: a model is built from the recipe that it names, out of the layers
of this library, and given the numbers in the file.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialised
from scipy.interpolate import BSpline
from torch import nn
from torch.nn.parameter import is_lazy

from rnclib.data.molecules import Molecules
from rnclib.files import finite_json, whole
from rnclib.inputs import Numbers, preparation, scaling
from rnclib.networks import FittedNetwork, launch, new_encoder
from rnclib.recipe import Recipe, Stage
from rnclib.regressors import chosen_settings, refitted
from rnclib.vectoriser import Vectoriser

if TYPE_CHECKING:
    from rnclib.estimator import RnCRegressor

__all__ = ["FORMAT", "read", "write"]

FORMAT = 1  # raised when a file of before would be read in another way
_NAME = "rnclib"  # of the header's entry
_GIVEN = ("head_", "validation_error_", "n_iter_", "loss_curve_", "n_features_in_", "notes_")
_OURS = "a model that RnCRegressor.save has written"
_LONGEST = 200  # characters of another's message in ours
_ROWS = ("training_", "validation_", "calibration_")


def write(model: RnCRegressor, path: Path) -> None:
    """Write a fitted model, whole or not at all.

    Parameters
    ----------
    model : RnCRegressor
    path : Path

    Raises
    ------
    ValueError
        If a setting cannot be written.
    """
    if not path.parent.is_dir() or path.is_dir():
        raise FileNotFoundError(f"path: got {path}; allowed: a file in a folder that there is")
    network = model._network
    tensors = {f"encoder.{name}": value for name, value in network.encoder.state_dict().items()}
    tensors |= {f"linear.{name}": value for name, value in network.linear.state_dict().items()}
    tensors |= {"features": torch.from_numpy(model._features), "targets": torch.from_numpy(model._targets)}
    tensors |= {name: torch.from_numpy(getattr(model, name)) for name in _ROWS}
    if model._residuals is not None:
        tensors["residuals"] = torch.from_numpy(model._residuals)
    settings = {name: _plain(value) for name, value in model.get_params(deep=False).items() if name != "encoder"}
    if not isinstance(settings["random_state"], int | None):
        settings["random_state"] = None
    mean, std = network.scaler
    told = {
        "format": FORMAT, "settings": settings, "recipe": model.recipe_.described(), "single": model._single,
        "scaler": [np.asarray(mean).tolist(), np.asarray(std).tolist()],
        "names": getattr(model, "feature_names_in_", np.array([])).tolist(),
        "entry": list(getattr(model, "entry_shape_", ())),
        "columns": None if model._vectoriser is None else model._vectoriser.state(),
        "numbers": scaled(network.prepare) if isinstance(network.prepare, Numbers) else None,
        "regressor": None if network.regressor is None else chosen_settings(network.regressor),
    } | {name: _plain(getattr(model, name)) for name in _GIVEN}  # fmt: skip
    if odd := [name for name, value in tensors.items() if not isinstance(value, torch.Tensor)]:
        raise ValueError(f"encoder: got {odd}, which are no tensors; allowed: a state of tensors alone")
    # a copy of each: two that share memory, as tied weights do, cannot be written
    copies = {name: value.detach().cpu().clone().contiguous() for name, value in tensors.items()}
    told["digest"] = _digest(copies)
    try:
        json.dumps(model.notes_, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"notes_: got a value that JSON has not ({error}); allowed: what JSON has") from error
    try:
        content = serialised(copies, metadata={_NAME: json.dumps(told, allow_nan=False)})
    except (SafetensorError, TypeError, ValueError) as error:
        why = str(error)[:_LONGEST]
        raise ValueError(f"model: got one that cannot be saved ({why}); allowed: fewer columns") from error
    with whole(path) as draft:
        draft.write_bytes(content)


def _digest(tensors: dict[str, torch.Tensor]) -> str:
    """Of all numbers, since the format itself has no checksum."""
    every = hashlib.sha256()
    for name in sorted(tensors):
        flat = tensors[name].reshape(-1)
        content = flat.view(torch.uint8).numpy().tobytes() if len(flat) else b""
        every.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
    return every.hexdigest()


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def read(model: RnCRegressor, path: Path) -> RnCRegressor:
    """Fill a model that is not fitted from a file.

    Parameters
    ----------
    model : RnCRegressor
        With the device, and the encoder of one's own where it was trained with such.
    path : Path

    Raises
    ------
    ValueError
        If the file is no such model, or of a later version.
    """
    device = launch(model.device).device
    told, tensors = _opened(path)
    if type(version := told.get("format")) is not int or version != FORMAT:
        later = "; update rnclib" if isinstance(version, int) and version > FORMAT else ""
        raise ValueError(f"path: got {path} of format {version!r}; allowed: {FORMAT}{later}")
    own = told["recipe"].get("model") == "own"
    if own != (model.encoder is not None):
        raise ValueError(f"encoder: got {type(model.encoder).__name__}; allowed: a module for {path}" if own else
                         f"encoder: got a module; allowed: None, since {path} has one")  # fmt: skip
    if own:
        _check_shapes(model.encoder, tensors)
    try:
        with np.errstate(divide="raise", over="raise", invalid="raise"):
            return _filled(model, told, tensors, device)
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        why = " ".join(str(error).split())[:_LONGEST]
        raise ValueError(f"path: got {path}, whose parts do not fit together ({why}); allowed: {_OURS}") from error


def _check_shapes(encoder: Any, tensors: dict[str, torch.Tensor]) -> None:
    """Refuse a module that has not the shapes of the encoder that was saved."""
    allowed = "a module of the same shapes as in training"
    if not isinstance(encoder, nn.Module):
        raise ValueError(f"encoder: got {encoder!r}; allowed: {allowed}")
    saved = {name: tuple(value.shape) for name, value in tensors.items() if name.startswith("encoder.")}
    state = {f"encoder.{name}": value for name, value in encoder.state_dict().items()}
    given = {name: saved.get(name) if is_lazy(value) else tuple(value.shape) for name, value in state.items()}
    for name in sorted({*saved, *given}):
        if saved.get(name) != given.get(name):
            shapes = f"shape {given.get(name, 'none')}, saved {saved.get(name, 'none')}"
            told = f"{type(encoder).__name__}, {name.removeprefix('encoder.')} of {shapes}"
            raise ValueError(f"encoder: got {told}; allowed: {allowed}")


def _opened(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    if path.is_dir():
        raise ValueError(f"path: got {path}, a folder; allowed: a file")
    try:
        with safe_open(path, framework="pt") as file:
            told = finite_json((file.metadata() or {})[_NAME])
            if not isinstance(told, dict) or not isinstance(told.get("recipe"), dict):
                raise KeyError(_NAME)
            return told, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, ValueError, RecursionError) as error:
        why = type(error).__name__
        raise ValueError(f"path: got {path}, which is not to be read ({why}); allowed: {_OURS}") from error


def _filled(
    model: RnCRegressor, told: dict[str, Any], tensors: dict[str, torch.Tensor], device: torch.device
) -> RnCRegressor:
    if told["digest"] != _digest(tensors):
        raise ValueError("its numbers are not those that were saved")
    model.set_params(**{name: value for name, value in told["settings"].items() if name != "device"})
    for name in _GIVEN:
        setattr(model, name, told[name])
    for name in _ROWS:
        setattr(model, name, tensors[name].numpy())
    recipe = model.recipe_ = _recipe(told["recipe"])
    if names := told["names"]:
        if not isinstance(names, list) or [type(name) for name in names] != [str] * model.n_features_in_:
            raise ValueError("names of columns are none, or not as many")
        model.feature_names_in_ = np.array(names, dtype=object)
    if not isinstance(told["single"], bool):
        raise ValueError("whether targets were a column is neither true nor false")
    model._single, model.entry_shape_ = told["single"], tuple(told["entry"])
    model._vectoriser = None if told["columns"] is None else Vectoriser(**told["columns"])
    model._features, model._targets = tensors["features"].numpy(), tensors["targets"].numpy()
    model._residuals = tensors["residuals"].numpy() if "residuals" in tensors else None
    weight, n_features = tensors["linear.weight"], 0
    prepare: Any
    if recipe.widths is None:
        prepare = preparation(recipe, None, device)
    else:
        medians = told["numbers"]["medians"]
        pipeline = unscaled(recipe.scaling, told["numbers"])
        prepare = Numbers(recipe, pipeline, len(medians), device, weight.dtype)
        if not (n_features := len(told["numbers"].get("mean", medians))):
            raise ValueError("the network has no inputs")
    state = {name.removeprefix("encoder."): value for name, value in tensors.items() if name.startswith("encoder.")}
    encoder = _encoder(model.encoder, recipe, n_features, state).to(device).eval()
    linear = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
    linear.load_state_dict({name: tensors[f"linear.{name}"] for name in ("weight", "bias")})
    mean, std = (np.asarray(one) if isinstance(one, list) else one for one in told["scaler"])
    if not np.shape(mean) == np.shape(std) == model._targets.shape[1:]:
        raise ValueError("means and deviations are of other targets")
    if not np.isfinite([np.max(np.square(std)), np.max(np.abs(mean)) * 2]).all():
        raise ValueError("targets are larger than any that fit takes")
    model._network = FittedNetwork(encoder, linear.to(device), prepare, (mean, std), [])
    if told["regressor"] is not None:
        x, y = (one[model.training_] for one in (model._features, model._targets))
        model._network.regressor = refitted(told["regressor"], x, y)
    _try(model, told)
    return model


def _try(model: RnCRegressor, told: dict[str, Any]) -> None:
    """Predict one sample, so that parts which do not fit together are found now."""
    recipe, n = model.recipe_, len(model._targets)
    n_targets = 1 if model._single or model._targets.ndim == 1 else model._targets.shape[1]
    wanted = () if model._residuals is None else (len(model.calibration_), *([n_targets] if n_targets > 1 else []))
    residuals = () if model._residuals is None else model._residuals.shape
    if model._features.ndim != 2 or len(model._features) != n or residuals != wanted:
        raise ValueError("features, targets and residuals are of different samples")
    for rows in (model.training_, model.validation_, model.calibration_):
        if rows.ndim != 1 or rows.dtype != np.int64 or (len(rows) and not 0 <= rows.min() <= rows.max() < n):
            raise ValueError("rows are none of the samples'")
    n_columns = 1 if told["numbers"] is None else len(told["numbers"]["medians"])
    if recipe.model == "own":
        n_columns = math.prod(model.entry_shape_)
    made = recipe.featuriser == "descriptors" or model._vectoriser is not None  # of fewer or more columns
    if type(model.n_features_in_) is not int or not (made or model.n_features_in_ == n_columns):
        raise ValueError("columns are not as many as the network has inputs")
    if told["numbers"] is None:
        return
    example: Any = np.array(told["numbers"]["medians"], float)[None]
    if recipe.featuriser == "descriptors":
        example = Molecules(("CCO",))
    found, features = model._network.predict(example), model._network.features(example)
    if not np.isfinite(found).all() or found.size != n_targets or features.shape[1] != model._features.shape[1]:
        raise ValueError("a prediction is not finite, or not of these targets")


def _recipe(told: dict[str, Any]) -> Recipe:
    fields = dict(told)
    for name in ("pretrain", "fit"):
        if name in fields:
            fields[name] = Stage(**fields[name])
    return Recipe(**fields)


def _encoder(own: nn.Module | None, recipe: Recipe, n_features: int, state: dict[str, torch.Tensor]) -> nn.Module:
    """The network with the weights of the file."""
    if own is not None:
        encoder = copy.deepcopy(own)
        encoder.load_state_dict(state)
        return encoder
    if len(recipe.widths or ()) > len(state):
        raise ValueError("more layers than weights")
    with torch.device("meta"):  # whatever size the recipe says, no memory is taken for it
        encoder = new_encoder(recipe, n_features)
    encoder.load_state_dict(state, assign=True)
    return encoder


# --- the scaling of numbers, which scikit-learn's steps hold --------------------------------------------------


def scaled(numbers: Numbers) -> dict[str, Any]:
    """What the steps of a scaling have learnt, as JSON has it.

    Parameters
    ----------
    numbers : Numbers
    """
    steps = numbers.pipeline.named_steps
    found: dict[str, Any] = {"medians": steps["simpleimputer"].statistics_.tolist()}
    if "quantiletransformer" in steps:
        found["quantiles"] = steps["quantiletransformer"].quantiles_.tolist()
    if "splinetransformer" in steps:
        found["knots"] = [spline.t.tolist() for spline in steps["splinetransformer"].bsplines_]
    if "standardscaler" in steps:
        scaler = steps["standardscaler"]
        found |= {"mean": scaler.mean_.tolist(), "scale": scaler.scale_.tolist()}
    return found


def unscaled(kind: str | None, state: dict[str, Any]) -> Any:
    """The steps again.

    Parameters
    ----------
    kind : {None, 'standard', 'quantile', 'pieces'}
        See `Recipe.scaling`.
    state : dict
        From `scaled`.
    """
    medians = np.array(state["medians"], float)
    # fitted to these two rows the medians are right; the other steps are given what they had learnt
    pipeline = scaling(kind, 2).fit(np.stack([medians - 1, medians + 1]))
    steps = pipeline.named_steps
    steps["simpleimputer"].fit(medians[None])
    if kind == "quantile":
        quantiles = steps["quantiletransformer"]
        if any(len(row) != len(medians) for row in state["quantiles"]):
            raise ValueError("quantiles of another number of columns")
        quantiles.quantiles_ = np.array(state["quantiles"], float)
        quantiles.n_quantiles_ = len(quantiles.quantiles_)
        quantiles.references_ = np.linspace(0, 1, quantiles.n_quantiles_, endpoint=True)
    if kind == "pieces":
        pieces, found = steps["splinetransformer"], []
        for row, old in zip(state["knots"], pieces.bsplines_, strict=True):
            knots = np.array(row, float)
            if knots.shape != old.t.shape or not (np.isfinite(knots).all() and (np.diff(knots) >= 0).all()):
                raise ValueError("knots are not as many, or not in order")
            # as scikit-learn makes them: those of a column of one value are all equal, which BSpline itself refuses
            found.append(BSpline.construct_fast(knots, old.c, old.k, extrapolate=old.extrapolate))
        pieces.bsplines_ = found
    if kind is not None:
        scaler = steps["standardscaler"]
        scaler.mean_, scaler.scale_ = np.array(state["mean"], float), np.array(state["scale"], float)
    return pipeline
