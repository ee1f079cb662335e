"""The training of one network: an encoder and a regressor on its features, with their checkpoints and devices."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import nn

from rnclib.inputs import frozen, in_training, preparation
from rnclib.recipe import Recipe, Stage, given
from rnclib.regressors import best_regressor
from rnclib.training import History, Samples, parts_of, predict, read_state, seeded, train, write_state

if TYPE_CHECKING:
    from lightning_fabric import Fabric  # takes seconds to import, and predicting does without

__all__ = [
    "DEVICES", "Diverged", "Epoch", "Execution", "FittedNetwork", "Network", "TrainedStage", "check_device", "fold",
    "launch", "new_encoder", "processes", "scaler_of",
]  # fmt: skip

DEVICES = ("cpu", "cuda", "auto")
FORMAT = 2  # raised when cached weights of the same recipe and data would be read or trained in another way


@dataclass(frozen=True)
class TrainedStage:
    """A stage that was trained: its name, what happened, and the commit of the code that did it, where known.

    Regressors that have no epochs have a stage for their time; ridge regression, which takes none to speak of, has not.
    """

    name: str
    history: History
    commit: str | None = None


class Diverged(FloatingPointError):
    """Training or its result is no longer finite; `stages` are those that were trained before."""

    def __init__(self, message: str, stages: list[TrainedStage]) -> None:
        super().__init__(message)
        self.stages = stages


@dataclass(frozen=True)
class Execution:
    """How training is carried out. Nothing of it changes what is trained, but for rounding.

    Attributes
    ----------
    device : str
        An accelerator of Lightning Fabric, such as ``'cpu'``, ``'cuda'`` or ``'auto'``.
    cache : Path, optional
        Folder for checkpoints and trained weights, from which a killed training goes on; None: keep nothing.
    data : str
        What tells these training and validation samples from others in the cache.
    refresh : bool
        Take neither weights nor a checkpoint from the cache.
    keep_encoder : bool
        With `refresh`, still take the contrastively trained encoder from there.
    commit : str, optional
        Of the code, noted beside the weights.
    """

    device: str = "cpu"
    cache: Path | None = None
    data: str = ""
    refresh: bool = False
    keep_encoder: bool = False
    commit: str | None = None

    def __post_init__(self) -> None:
        if self.cache is not None and not self.data:
            raise ValueError("data: got '' with a cache; allowed: a text that tells these samples from others")


@dataclass(frozen=True)
class Epoch:
    """What `fit` tells after each epoch.

    Attributes
    ----------
    stage : {'encoder', 'regressor', 'end-to-end'}
    number : int
        Counted from 1; after a resumption the first one told is the last that was done before.
    member : int
        Number of the network in an ensemble, from 0.
    """

    stage: str
    number: int
    member: int
    _val_error: Callable[[], float | None]
    _ridge_error: Callable[[], float | None]

    def ridge_error(self) -> float | None:
        """Mean absolute error on the validation set of a ridge regression on the features as they are now.

        It is fitted for the purpose, and in the unit of the targets. None where the stage was not trained now.
        """
        return self._ridge_error()

    def val_error(self) -> float | None:
        """Mean absolute error on the validation set, in the unit of the targets.

        After an epoch of the contrastive stage that of a ridge regression, see `ridge_error`. None where the stage was
        not trained now.
        """
        return self._val_error()


def scaler_of(targets: np.ndarray) -> tuple[Any, Any]:
    """Mean and standard deviation of targets; the latter exactly 0 where all are equal.

    Parameters
    ----------
    targets : ndarray, shape (n,) or (n, n_targets)

    Returns
    -------
    tuple
        Two floats, or two arrays of shape (n_targets,).
    """
    if targets.ndim == 2:
        std = targets.std(axis=0)
        return targets.mean(axis=0), np.where(targets.min(axis=0) == targets.max(axis=0), 0.0, std)
    std = 0.0 if targets.min() == targets.max() else float(targets.std())
    return float(targets.mean()), std


@dataclass
class FittedNetwork:
    """An encoder and a regressor on its features.

    Attributes
    ----------
    encoder, linear : Module
        The latter predicts scaled targets from features.
    prepare : callable
        Inputs as the data have them to inputs as the encoder takes them.
    scaler : tuple of float
        Mean and standard deviation by which targets were scaled; arrays of shape (n_targets,) where there are several.
    regressor : object, optional
        Predicts scaled targets from features, in place of `linear`; as scikit-learn's have it.
    stages : list of TrainedStage
    """

    encoder: nn.Module
    linear: nn.Linear
    prepare: Callable[[Any], Any]
    scaler: tuple[Any, Any]
    stages: list[TrainedStage]
    regressor: Any = None

    def scaled(self, targets: np.ndarray) -> torch.Tensor:
        """Targets in the unit in which the network learnt to predict, float32."""
        mean, std = self.scaler
        return torch.tensor((targets - mean) / std, dtype=torch.float32)

    def features(self, inputs: Any) -> np.ndarray:
        """Features of inputs as `fit` takes them, shape (n, feat_dim), float64."""
        return predict(self.encoder, self.prepare(inputs)).double().cpu().numpy()

    def predict(self, inputs: Any) -> np.ndarray:
        """Predictions for inputs as `fit` takes them, shape as targets have it, float64, in the unit of the targets."""
        features = predict(self.encoder, self.prepare(inputs))
        if self.regressor is not None:
            scaled = self.regressor.predict(features.double().cpu().numpy())
        else:
            scaled = predict(self.linear, features).double().cpu().numpy()
            scaled = scaled[:, 0] if np.ndim(self.scaler[0]) == 0 else scaled
        mean, std = self.scaler
        return scaled * std + mean


class _Float32Linear(nn.Linear):
    """Stays in float32 under autocast: bfloat16 would round ages to quarters and halves."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.to(self.weight.dtype))


def fold(regressor: Any, linear: nn.Linear) -> None:
    """Make a linear layer of a linear regression on scaled features.

    Parameters
    ----------
    regressor : Pipeline
        Scikit-learn's, of a scaler and a linear model.
    linear : Linear
        Which gets its weights.
    """
    slope = np.atleast_2d(regressor[-1].coef_) / regressor[0].scale_
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(slope))
        linear.bias.copy_(torch.from_numpy(np.atleast_1d(regressor[-1].intercept_ - slope @ regressor[0].mean_)))


class Network:
    """Training of one network; `fitted` carries it out."""

    def __init__(
        self,
        recipe: Recipe,
        train: Samples,
        val: Samples,
        seed: int,
        execution: Execution,
        on_epoch: Callable[[Epoch], None] | None,
        member: int = 0,
        encoder: nn.Module | None = None,
    ) -> None:
        self.recipe, self.seed, self.execution, self.on_epoch, self.member = recipe, seed, execution, on_epoch, member
        self.fabric = launch(execution.device, recipe.precision)
        device = self.fabric.device
        prepare = preparation(recipe, train.inputs, device)
        self.train_inputs, self.val_inputs = prepare(train.inputs), prepare(val.inputs)
        mean, std = scaler_of(train.targets)
        scaler = (0.0, 1.0) if recipe.target == "raw" else (mean, std + (std == 0))
        with seeded(seed):
            if encoder is None:
                numbers = getattr(self.train_inputs, "numbers", self.train_inputs)
                encoder = new_encoder(recipe, numbers.shape[1] if isinstance(numbers, torch.Tensor) else 0)
                self.width = cast(int, encoder.out_features)
            else:
                encoder = copy.deepcopy(encoder).to(device)
                self.width = _width(encoder, self.train_inputs)
            n_targets = 1 if train.targets.ndim == 1 else train.targets.shape[1]
            linear = _Float32Linear(self.width, n_targets, dtype=torch.float32)
        if self.fabric.world_size > 1 and device.type == "cuda":
            encoder = nn.SyncBatchNorm.convert_sync_batchnorm(encoder)
        self.model = FittedNetwork(encoder.to(device), linear.to(device), prepare, scaler, [])
        self.train_targets, self.val_targets = (self.model.scaled(one.targets).to(device) for one in (train, val))
        self.train_weights, self.val_weights = (
            None if one.weights is None else torch.tensor(one.weights, dtype=torch.float32) for one in (train, val)
        )
        both = train.targets.tobytes() + b"|" + val.targets.tobytes()
        if train.weights is not None:
            both += b"|" + train.weights.tobytes()
        self.targets_digest = hashlib.sha256(both).hexdigest()[:16]  # that nobody's weights are taken for another's

    def fitted(self) -> FittedNetwork:
        """The network, trained now or from the cache."""
        recipe, model, execution = self.recipe, self.model, self.execution
        path = self._cached("models", self._trained)
        if path is not None and execution.refresh:
            path.unlink(missing_ok=True)
        try:
            if recipe.fit is None:
                self._pretrain()
            elif (state := self._read(path)) is not None:
                with parts_of("weights", path):
                    model.encoder.load_state_dict(state["encoder"])
                    model.linear.load_state_dict(state["linear"])
                    model.stages += [
                        TrainedStage(one["name"], History(**one["history"]), one["commit"]) for one in state["stages"]
                    ]
                for one in model.stages:
                    self._tell_of_cached(one)
            else:
                self._pretrain()
                self._regress()
                stages = [asdict(one) for one in model.stages]
                weights = {"encoder": model.encoder.state_dict(), "linear": model.linear.state_dict()}
                self._write(path, weights | {"stages": stages})
            if recipe.head is not None:
                self._fit_head()
        except FloatingPointError as error:
            raise Diverged(str(error), model.stages) from None
        return model

    def _pretrain(self) -> None:
        """Train the encoder contrastively, or take it from the cache if another training has made it."""
        recipe, encoder, execution = self.recipe, self.model.encoder, self.execution
        if recipe.pretrain is None:
            return
        others = (
            "model",
            "pretrain",
            "projection",
            "target",
            "precision",
            "featuriser",
            "scaling",
            "widths",
            "dropout",
        )
        fields = {name: value for name, value in recipe.described().items() if name in others}
        path = self._cached("encoders", fields)
        checkpoint = self._cached("checkpoints", fields, "encoder-")
        if path is not None and checkpoint is not None and execution.refresh and not execution.keep_encoder:
            path.unlink(missing_ok=True)
            checkpoint.unlink(missing_ok=True)
        if (state := self._read(path)) is not None:
            with parts_of("weights", path):
                encoder.load_state_dict(state["encoder"])
                stage = TrainedStage("encoder", History(**state["history"]), state["commit"])
            self._tell_of_cached(stage)
        else:
            history = train(
                self._with_projection_head(),
                self._filled(recipe.pretrain),
                Samples(
                    in_training(self.train_inputs, recipe.pretrain, self.seed), self.train_targets, self.train_weights
                ),
                Samples(self.val_inputs, self.val_targets, self.val_weights) if recipe.pretrain.patience else None,
                seed=self.seed,
                fabric=self.fabric,
                checkpoint=checkpoint,
                on_epoch=self._tell("encoder"),
            )
            stage = TrainedStage("encoder", history, execution.commit)
            state = {"encoder": encoder.state_dict(), "history": asdict(history), "commit": execution.commit}
            self._write(path, state, checkpoint)
        self.model.stages.append(stage)

    def _with_projection_head(self) -> nn.Module:
        encoder, size = self.model.encoder, self.recipe.projection
        if size is None:
            return encoder
        with seeded(self.seed):
            linear = partial(nn.Linear, self.width, dtype=torch.float32)
            layers = (linear(self.width), nn.ReLU(), linear(size))
        return nn.Sequential(encoder, *layers).to(self.fabric.device)

    def _regress(self) -> None:
        """Train the linear layer, alone or with the encoder."""
        recipe, model, stage = self.recipe, self.model, self.recipe.fit
        assert stage is not None
        network: nn.Module = model.linear if recipe.freeze else nn.Sequential(model.encoder, model.linear)
        inputs, val_inputs = in_training(self.train_inputs, stage, self.seed), self.val_inputs
        if recipe.freeze:
            inputs = frozen(model.encoder, inputs)
            val_inputs = predict(model.encoder, val_inputs)
        name = "regressor" if recipe.pretrain else "end-to-end"
        checkpoint = self._cached("checkpoints", self._trained)
        if checkpoint is not None and self.execution.refresh:
            checkpoint.unlink(missing_ok=True)
        history = train(
            network,
            self._filled(stage),
            Samples(inputs, self.train_targets, self.train_weights),
            Samples(val_inputs, self.val_targets, self.val_weights),
            seed=self.seed,
            fabric=self.fabric,
            checkpoint=checkpoint,
            on_epoch=self._tell(name),
        )
        if checkpoint is not None and self.fabric.is_global_zero:
            checkpoint.unlink(missing_ok=True)
        model.stages.append(TrainedStage(name, history, self.execution.commit))

    def _fit_head(self) -> None:
        """Fit the recipe's head to the features; the validation set chooses among its settings."""
        model, began = self.model, time.monotonic()
        best, _ = self._best_head(cast(str, self.recipe.head), model.encoder)
        if self.recipe.head == "ridge":  # a linear layer, and so a part of the network
            fold(best, model.linear)
        else:
            model.regressor = best
            took = History(wall_time=time.monotonic() - began)
            model.stages.append(TrainedStage(cast(str, self.recipe.head), took, self.execution.commit))

    def _tell(self, stage: str) -> Callable[[int, float | None, nn.Module], None]:
        """What tells `on_epoch` of the epochs of a stage."""

        def on_epoch(number: int, error: float | None, kept: nn.Module) -> None:
            if self.on_epoch is None:
                return

            def ridge_error() -> float:
                nested = stage == "end-to-end" or not (self.recipe.freeze or stage == "encoder")
                if nested or (stage == "encoder" and self.recipe.projection is not None):
                    return self._error_of(next(kept.children()))
                return self._error_of(kept if stage == "encoder" else self.model.encoder)

            def val_error() -> float | None:
                if stage == "encoder":
                    return ridge_error()
                return None if error is None else error * float(np.mean(self.model.scaler[1]))

            self.on_epoch(Epoch(stage, number, self.member, val_error, ridge_error))

        return on_epoch

    def _tell_of_cached(self, stage: TrainedStage) -> None:
        if self.on_epoch is not None:
            nothing = (lambda: None, lambda: None)
            self.on_epoch(Epoch(stage.name, len(stage.history.train_loss), self.member, *nothing))

    def _error_of(self, encoder: nn.Module) -> float:
        """Error of a ridge regression on the features of an encoder."""
        return self._best_head("ridge", encoder)[1] * float(np.mean(self.model.scaler[1]))

    def _best_head(self, head: str, encoder: nn.Module) -> tuple[Any, float]:
        """The head on the features of an encoder that the validation set chooses, and its scaled error."""
        x, x_val = (predict(encoder, inputs).double().cpu().numpy() for inputs in (self.train_inputs, self.val_inputs))
        if not (np.isfinite(x).all() and np.isfinite(x_val).all()):
            raise FloatingPointError("features are not finite")
        y, y_val = (targets.double().cpu().numpy() for targets in (self.train_targets, self.val_targets))
        weights = None
        if self.train_weights is not None and self.val_weights is not None:
            weights = self.train_weights.double().numpy(), self.val_weights.double().numpy()
        return best_regressor(head, x, y, x_val, y_val, weights=weights)

    def _filled(self, stage: Stage) -> Stage:
        """The stage with batches that the training set can fill."""
        return replace(stage, batch_size=min(stage.batch_size, len(self.train_targets)))

    # --- weights that others have trained ---

    @property
    def _trained(self) -> dict[str, Any]:
        """What of the recipe the trained weights depend on."""
        return {name: value for name, value in self.recipe.described().items() if name not in ("refit", "head")}

    def _cached(self, folder: str, fields: dict[str, Any], prefix: str = "") -> Path | None:
        """Where weights lie that depend on these fields of the recipe, on the seed and the data."""
        if self.execution.cache is None:
            return None
        fabric = self.fabric
        where = [str(fabric.device), torch.get_num_threads()]  # where the same training may end in other roundings
        if fabric.world_size > 1:
            where = [fabric.device.type, fabric.world_size]
        told = [FORMAT, given(fields), self.seed, self.execution.data, self.targets_digest, torch.__version__, *where]
        digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]
        return self.execution.cache / folder / f"{prefix}{digest}.pt"

    def _read(self, path: Path | None) -> dict[str, Any] | None:
        state = None
        if path is not None and self.fabric.is_global_zero:
            state = read_state(path, "weights {path} cannot be read ({error}): they are trained again")
        return self.fabric.broadcast(state)

    def _write(self, path: Path | None, state: dict[str, Any], checkpoint: Path | None = None) -> None:
        if path is not None and self.fabric.is_global_zero:
            write_state(path, state)
            if checkpoint is not None:
                checkpoint.unlink(missing_ok=True)


def _width(encoder: nn.Module, inputs: Any) -> int:
    """Length of a feature vector, or an error where a module does not do as an encoder."""
    try:
        features = predict(encoder, inputs, np.arange(min(2, len(inputs))))
    except Exception as error:  # whatever the module raises
        raise ValueError(
            f"encoder: got a module that fails on two inputs ({error}); allowed: one that takes them"
        ) from error
    if features.ndim != 2:
        raise ValueError(f"encoder: got features of shape {tuple(features.shape)}; allowed: (n, feat_dim)")
    return features.shape[1]


def new_encoder(recipe: Recipe, n_features: int) -> nn.Module:
    """An encoder that is not trained yet.

    Parameters
    ----------
    recipe : Recipe
    n_features : int
        Numbers of an input, where the network takes numbers.
    """
    from rnclib.encoders import GIN, GraphsAndNumbers, ImageEncoder, Perceptron

    encoder: nn.Module
    if recipe.widths is not None:
        kind = GraphsAndNumbers if recipe.model == "gin and perceptron" else Perceptron
        encoder = kind(n_features, recipe.widths, recipe.dropout or 0.0)
    else:
        encoder = GIN() if recipe.model == "gin" else ImageEncoder(recipe.model)
    return encoder.float()


# --- processes and devices --------------------------------------------------------------------------------


def processes() -> tuple[int, int]:
    """Number of processes that ``torchrun`` has started, and which of them this is."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return 1, 0
    return int(os.environ["WORLD_SIZE"]), int(os.environ["RANK"])


def launch(device: str, precision: str | None = None) -> Fabric:
    """Join the processes that ``torchrun`` has started, or work alone.

    Parameters
    ----------
    device : str
        See `Execution`.
    precision : {'bf16-mixed'}, optional
    """
    from lightning_fabric import Fabric

    check_device(device)
    world, _ = processes()
    here = int(os.environ["LOCAL_WORLD_SIZE"]) if world > 1 else 1
    fabric = Fabric(
        accelerator=device,
        devices=here,
        num_nodes=world // here,
        precision="32-true" if precision is None else "bf16-mixed",
    )
    fabric.launch()
    return fabric


def check_device(device: str) -> None:
    """Refuse a device of another name, or a GPU where there is none.

    Parameters
    ----------
    device : str
        See `Execution`.

    Raises
    ------
    ValueError
    """
    if device not in DEVICES:
        raise ValueError(f"device: got {device!r}; allowed: {', '.join(map(repr, DEVICES))}")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device: got 'cuda', but torch finds no GPU; allowed here: 'cpu', 'auto'")
