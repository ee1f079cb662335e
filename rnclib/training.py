"""One training loop for every stage: contrastive, end-to-end, fine-tuning and linear probing.

Random numbers are keyed by seed and epoch, never by what ran before, so a run that was killed and
resumed, or divided among several processes, visits the same samples in the same order.
"""

from __future__ import annotations

import io
import itertools
import math
import os
import threading
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import nn

from rnclib.files import whole
from rnclib.loss import RnCLoss, rnc_loss
from rnclib.other_losses import bin_edges, binned_supcon_loss, conr, ordinal_entropy, ranksim
from rnclib.recipe import ENCODER_LOSSES, Stage, given

if TYPE_CHECKING:
    from lightning_fabric import Fabric  # takes seconds to import, and predicting does without

__all__ = [
    "FEWEST_STEPS", "History", "Samples", "learning_rate", "parts_of", "predict", "read_state", "seeded", "train",
    "write_state",
]  # fmt: skip

_REGRESSION: dict[str, Callable[..., torch.Tensor]] = {
    "l1": nn.functional.l1_loss,
    "l2": nn.functional.mse_loss,
    "huber": nn.functional.smooth_l1_loss,  # β = 1
}
_REGULARISERS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "ordinal entropy": ordinal_entropy,
    "ranksim": ranksim,
}
CHECKPOINT_SECONDS = 20.0  # least time between two checkpoints
FEWEST_STEPS = 5  # of a one-cycle schedule: with fewer its rates are near 0


class Samples(NamedTuple):
    """Inputs, which an integer array indexes to give a batch, the target or targets of each, and how much it counts.

    Weights are at least 0, and None where all count alike.
    """

    inputs: Any
    targets: Any
    weights: Any = None


@dataclass
class History:
    """What happened in a training stage.

    Attributes
    ----------
    train_loss : list of float
        Mean loss of each epoch's batches.
    val_loss : list of float
        The same loss on the validation set after each epoch; empty without one.
    best_epoch : int
        Epoch (counted from 1) whose weights the model has now.
    wall_time : float
        Seconds, pauses between a kill and its resumption left out.
    """

    train_loss: list[float] = field(default_factory=list)
    val_loss: list[float] = field(default_factory=list)
    best_epoch: int = 0
    wall_time: float = 0.0

    def __post_init__(self) -> None:
        losses = self.train_loss, self.val_loss
        if not all(isinstance(one, list) and all(isinstance(loss, float) for loss in one) for one in losses):
            raise TypeError(f"train_loss, val_loss: got {type(losses[0])}, {type(losses[1])}; allowed: lists of float")
        if not isinstance(self.best_epoch, int) or not isinstance(self.wall_time, int | float):
            raise TypeError(f"wall_time: got {type(self.wall_time)}; allowed: a number, and an integer for best_epoch")


_GENERATOR = threading.RLock()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random numbers of PyTorch from a seed, and afterwards as they were; one thread at a time, since all share them.

    Parameters
    ----------
    seed : int
    """
    with _GENERATOR, torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def learning_rate(stage: Stage, epoch: int) -> float:
    """Learning rate during `epoch` (1 to E): η + (lr − η)(1 + cos(π·epoch/E))/2 with η = lr·r³.

    Parameters
    ----------
    stage : Stage
    epoch : int

    Examples
    --------
    >>> stage = Stage("l1", epochs=2, batch_size=8, learning_rate=1.0, lr_decay_rate=0.1, weight_decay=0)
    >>> [round(learning_rate(stage, epoch), 4) for epoch in (1, 2)]
    [0.5005, 0.001]
    """
    floor = stage.learning_rate * stage.lr_decay_rate**3
    return floor + (stage.learning_rate - floor) * (1 + math.cos(math.pi * epoch / stage.epochs)) / 2


def train(
    model: nn.Module,
    stage: Stage,
    training: Samples,
    validation: Samples | None = None,
    *,
    seed: int,
    fabric: Fabric | None = None,
    checkpoint: str | os.PathLike | None = None,
    on_epoch: Callable[[int, float | None, nn.Module], None] | None = None,
) -> History:
    """Train `model` in place.

    Parameters
    ----------
    model : Module
        Maps a batch of inputs to features, shape (n, feat_dim) or (n, n_views, feat_dim), for a loss that trains an
        encoder; else to predictions, shape (n,) or (n, n_targets).
    stage : Stage
    training : Samples
        Inputs give batches on the model's device. If they have a method ``at_epoch``, as `rnclib.data.augment.Views`
        have, an epoch takes its batches from what it returns. Targets are a tensor, shape (n,) or (n, n_targets), in
        the unit in which the model predicts; weights a tensor, shape (n,).
    validation : Samples, optional
        If given, the model ends with the weights of the epoch of least validation loss, unless the stage keeps the
        last; else with the last. Weights of samples count there as in training.
    seed : int
        Keys the order of samples and all other random numbers, together with the epoch.
    fabric : Fabric, optional
        Device, precision and processes; by default the CPU in full precision. With several processes each
        takes its part of every batch, losses and gradients are those of the whole batch, and all end with the
        weights of the first; only that reads and writes the checkpoint.
    checkpoint : path, optional
        Written at the end of an epoch, if `CHECKPOINT_SECONDS` have passed since the last; if the file exists,
        training resumes from it.
    on_epoch : callable, optional
        Called after each epoch with its number, the mean absolute error on the validation set (None without one), and
        the model whose weights are kept; after a resumption with the last epoch done. What it raises ends the
        training.

    Returns
    -------
    History

    Raises
    ------
    ValueError
        If there are too few samples for one step, or the checkpoint belongs to another run.
    FloatingPointError
        If the training loss is no longer finite.
    """
    if fabric is None:
        from lightning_fabric import Fabric

        fabric = Fabric(accelerator="cpu", devices=1)
    loop = _Loop(model, stage, training, validation, seed, fabric)
    path = None if checkpoint is None else Path(checkpoint)
    if path is not None:
        loop.resume(path)
    history = loop.history
    began = saved = time.monotonic()
    earlier = history.wall_time
    try:
        if on_epoch and history.train_loss:
            on_epoch(len(history.train_loss), None, loop.kept)
        for epoch in range(len(history.train_loss) + 1, stage.epochs + 1):
            if stage.patience is not None and epoch - 1 - history.best_epoch >= stage.patience:
                break
            error = loop.run_epoch(epoch)
            history.wall_time = earlier + time.monotonic() - began
            if on_epoch:
                on_epoch(epoch, error, loop.kept)
            if path is not None and time.monotonic() - saved >= CHECKPOINT_SECONDS:
                loop.save(path)
                saved = time.monotonic()
    finally:
        loop.let_go()
    return loop.finish()


class _Loop:
    """Model, optimiser, history and best weights of one stage while it is trained."""

    def __init__(
        self,
        model: nn.Module,
        stage: Stage,
        training: Samples,
        validation: Samples | None,
        seed: int,
        fabric: Fabric,
    ) -> None:
        self.stage, self.seed, self.fabric = stage, seed, fabric
        self.inputs, self.validation = training.inputs, validation
        self.n = len(training.targets)
        self.stop, self.batches = _batches(stage, self.n, fabric.world_size)
        self.features: list[torch.Tensor] = []
        self.hook = None
        if stage.regulariser is not None:
            last = list(model.children())[-1]
            self.hook = last.register_forward_pre_hook(lambda _, given: self.features.append(given[0]))
        self.module = model
        self.model, self.optimizer = fabric.setup(model, _optimizer(stage, model))
        self.schedule = None
        if stage.schedule == "one-cycle":
            if stage.epochs * len(self.batches) < FEWEST_STEPS:
                n_steps = stage.epochs * len(self.batches)
                raise ValueError(f"schedule: got 'one-cycle' for {n_steps} steps; allowed: at least {FEWEST_STEPS}")
            self.schedule = torch.optim.lr_scheduler.OneCycleLR(
                self.optimizer, stage.learning_rate, total_steps=stage.epochs * len(self.batches), cycle_momentum=False
            )
        self.average = None
        if stage.average is not None:
            fn = _ramped_average(stage.average)
            self.average = torch.optim.swa_utils.AveragedModel(model, multi_avg_fn=fn, use_buffers=True)
        self.labels = training.targets.to(fabric.device)
        self.weights = _weights(training, stage, fabric)
        self.loss_of = _loss_function(stage, self.labels, distributed=fabric.world_size > 1)
        self.val_loss_of = _loss_function(stage, self.labels)
        self.val_weights = None if validation is None else _weights(validation, stage, fabric)
        self.history = History()
        self.best: dict[str, Any] | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """What a checkpoint must belong to."""
        return {"stage": given(asdict(self.stage)), "seed": self.seed, "n": self.n}

    @property
    def judged(self) -> nn.Module:
        """The model that is validated, with the precision and processes of training."""
        return self.model if self.average is None else self.average.module

    @property
    def kept(self) -> nn.Module:
        """The model whose weights are kept."""
        return self.module if self.average is None else self.average.module

    def run_epoch(self, epoch: int) -> float | None:
        """Train for an epoch, validate, and return the mean absolute error on the validation set."""
        # what dropout draws depends on seed and epoch alone; each process has its own samples, and so its own draws
        keyed = [self.seed, epoch, *([self.fabric.global_rank] if self.fabric.global_rank else [])]
        with seeded(int(np.random.SeedSequence(keyed).generate_state(1)[0])):
            train_loss = self._train_epoch(epoch)
        if not math.isfinite(train_loss):
            raise FloatingPointError(f"training loss ({self.stage.loss}) became {train_loss} in epoch {epoch}")
        history = self.history
        history.train_loss.append(train_loss)
        if self.validation is None:
            history.best_epoch = epoch
            return None
        prediction = predict(self.judged, self.validation.inputs)
        target = self.validation.targets.to(prediction.device)
        val_loss = float(self.val_loss_of(prediction, target, self.val_weights))
        if self.stage.keep == "last":
            history.best_epoch = epoch
        elif self.best is None or val_loss < min(filter(math.isfinite, history.val_loss), default=math.inf):
            history.best_epoch = epoch
            self.best = {name: value.detach().clone() for name, value in self.judged.state_dict().items()}
        history.val_loss.append(val_loss)
        if self.stage.loss in ENCODER_LOSSES:
            return None
        return float((prediction.reshape(target.shape) - target).abs().mean())

    def _train_epoch(self, epoch: int) -> float:
        """Mean loss of the epoch's batches."""
        stage, fabric, world = self.stage, self.fabric, self.fabric.world_size
        if self.schedule is None:
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(stage, epoch)
        self.model.train(stage.batch_norm == "train")
        order = np.random.default_rng([self.seed, epoch]).permutation(self.n)
        inputs = self.inputs.at_epoch(epoch) if hasattr(self.inputs, "at_epoch") else self.inputs
        total = torch.zeros((), device=fabric.device, dtype=torch.float64)
        for start, stop in self.batches:
            batch = order[start:stop]
            mine = batch[fabric.global_rank :: world]
            # scaled so that the mean over processes is the loss of the whole batch
            scale = 1.0 if stage.loss == "rnc" else len(mine) * world / len(batch)
            self.features.clear()
            output = self.model(inputs[mine])
            weights = None if self.weights is None else self.weights[mine]
            loss = scale * self.loss_of(output, self.labels[mine], weights)
            if stage.regulariser is not None:
                term = _regulariser(stage, output, self.features[0], self.labels[mine], weights)
                loss = loss + (stage.regulariser_weight or 0.0) * term
            self.optimizer.zero_grad(set_to_none=True)
            fabric.backward(loss)
            self.optimizer.step()
            if self.schedule is not None:
                self.schedule.step()
            if self.average is not None:
                self.average.update_parameters(self.model)
            total += loss.detach() * len(batch)
        mean_total = fabric.all_reduce(total, reduce_op="mean")
        assert isinstance(mean_total, torch.Tensor)
        return mean_total.item() / self.stop

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint, if there is one; where one process resumes, all do."""
        state = None
        if self.fabric.is_global_zero:
            state = read_state(path, "checkpoint {path} cannot be read ({error}): training starts again")
            with parts_of("checkpoint", path):
                another = state is not None and state.get("identity") != self.identity
            if another:
                raise ValueError(f"checkpoint: got {path}, of another run; allowed: one of this stage, seed and data")
        if (state := self.fabric.broadcast(state)) is not None:
            with parts_of("checkpoint", path):
                self._check(state)
                self.model.load_state_dict(state["model"])
                self.optimizer.load_state_dict(state["optimizer"])
                for name in ("schedule", "average"):
                    if (part := getattr(self, name)) is not None:
                        part.load_state_dict(state[name])
                self.history, self.best = History(**state["history"]), state["best"]

    def _check(self, state: dict[str, Any]) -> None:
        """Refuse what would be found out later, or be copied whatever its size."""
        theirs, ours = state["optimizer"], self.optimizer.state_dict()
        groups = [[{name: int if isinstance(value, float) else type(value) for name, value in one.items()}
                   for one in its["param_groups"]] for its in (theirs, ours)]  # fmt: skip
        shapes = [one.shape for group in self.optimizer.param_groups for one in group["params"]]
        for number, remembered in theirs["state"].items():
            if set(remembered) not in (set(), {"momentum_buffer"}, {"step", "exp_avg", "exp_avg_sq"}):
                raise ValueError("what the optimiser remembers is of another kind")
            if any(value.shape != (() if name == "step" else shapes[number]) for name, value in remembered.items()):
                raise ValueError("what the optimiser remembers is of other parameters")
        best, judged = state["best"], self.judged.state_dict()
        if groups[0] != groups[1] or not (best is None or _shapes(best) == _shapes(judged)):
            raise ValueError("optimiser or best weights are of another network")

    def save(self, path: Path) -> None:
        """Write a checkpoint, from the first process."""
        if self.fabric.is_global_zero:
            parts = {name: part.state_dict() for name in ("schedule", "average") if (part := getattr(self, name))}
            state = {
                "identity": self.identity,
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "history": asdict(self.history),
                "best": self.best,
            }
            write_state(path, state | parts)

    def let_go(self) -> None:
        """Leave nothing on the model that is not its own."""
        if self.hook is not None:
            self.hook.remove()

    def finish(self) -> History:
        """Give the model its best weights."""
        if self.best is not None:
            self.model.load_state_dict(self.best)
        elif self.average is not None:
            self.model.load_state_dict(self.average.module.state_dict())
        if self.fabric.world_size > 1:  # buffers, such as batch norm's, and roundings are each process's own
            self.model.load_state_dict(self.fabric.broadcast(self.model.state_dict()))
            self.history = self.fabric.broadcast(self.history)
        return self.history


def _batches(stage: Stage, n: int, processes: int) -> tuple[int, list[tuple[int, int]]]:
    """Number of samples that an epoch uses, and where its batches start and stop.

    With a one-cycle schedule, whose every step counts, batches are as equal as can be; else the last has the rest.
    """
    stop = n - n % stage.batch_size if stage.drop_last else n
    ends = [*range(0, stop, stage.batch_size), stop]
    if stage.schedule == "one-cycle" and stop:
        ends = np.linspace(0, stop, len(ends)).round().astype(int).tolist()
    batches = list(itertools.pairwise(ends))
    if not batches:
        raise ValueError(
            f"batch_size: got {stage.batch_size} with drop_last and {n} samples, which leaves no batch; "
            f"allowed: at most {n}"
        )
    if (smallest := min(stop - start for start, stop in batches)) < processes:
        raise ValueError(
            f"targets: got {smallest} samples in the last batch for {processes} processes; allowed: at least one each"
        )
    if processes > 1 and (stage.loss == "supcon" or stage.regulariser):
        what = stage.regulariser or stage.loss
        raise ValueError(f"fabric: got {processes} processes with {what!r}; allowed: one, which sees the whole batch")
    return stop, batches


def _weights(samples: Samples, stage: Stage, fabric: Fabric) -> torch.Tensor | None:
    """Weights of samples with mean 1; and an error where a loss cannot take them, or several targets."""
    single = stage.regulariser or stage.loss
    if single not in ("rnc", *_REGRESSION):
        if samples.targets.ndim > 1:
            raise ValueError(f"targets: got shape {tuple(samples.targets.shape)} with {single!r}; allowed: (n,)")
        if samples.weights is not None:
            raise ValueError(f"weights: got some with {single!r}; allowed: None")
    if samples.weights is None:
        return None
    weights = samples.weights.to(fabric.device)
    return weights / weights.mean()


def _optimizer(stage: Stage, model: nn.Module) -> torch.optim.Optimizer:
    settings: dict[str, Any] = {"lr": stage.learning_rate, "weight_decay": stage.weight_decay, "fused": True}
    if stage.optimizer == "adamw":
        return torch.optim.AdamW(model.parameters(), **settings)
    return torch.optim.SGD(model.parameters(), momentum=stage.momentum, **settings)


def _ramped_average(decay: float) -> Callable[[Any, Any, torch.Tensor | int], None]:
    """An exponential moving average that forgets early weights: decay rises from 1/10 to its value with the steps."""

    def average(averaged: Any, current: Any, n_averaged: torch.Tensor | int) -> None:
        done = int(n_averaged)
        torch.optim.swa_utils.get_ema_multi_avg_fn(min(decay, (1 + done) / (10 + done)))(averaged, current, n_averaged)

    return average


def _loss_function(
    stage: Stage, labels: torch.Tensor, distributed: bool = False
) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]:
    """Loss of outputs with their targets and weights."""
    if stage.loss == "rnc":
        assert stage.temperature is not None and stage.label_diff is not None and stage.feature_sim is not None
        # unchecked: features that are not finite give a loss that is not, which ends training in every process
        names = stage.temperature, stage.label_diff, stage.feature_sim
        rnc = RnCLoss(*names, ties=stage.ties or "exact", gather=distributed, validate=False)
        if stage.unit_features:
            return lambda output, target, weights: rnc(nn.functional.normalize(output, dim=-1), target, weights=weights)
        return lambda output, target, weights: rnc(output, target, weights=weights)
    if stage.loss == "supcon":
        assert stage.temperature is not None and stage.n_bins is not None
        edges, temperature = bin_edges(labels, stage.n_bins), stage.temperature
        return lambda output, target, _: binned_supcon_loss(output, target, edges, temperature)
    regression_loss = _REGRESSION[stage.loss]

    def of_predictions(prediction: torch.Tensor, target: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        n_views = _n_views(target, prediction)
        target = target.repeat_interleave(n_views, dim=0)
        prediction, target = prediction.reshape(target.shape), target.to(prediction.dtype)
        if weights is None:
            return regression_loss(prediction, target)
        each = regression_loss(prediction, target, reduction="none").reshape(len(target), -1).mean(dim=1)
        return (each * weights.repeat_interleave(n_views).to(each.dtype)).mean()

    return of_predictions


def _n_views(labels: torch.Tensor, predictions: torch.Tensor) -> int:
    """How many predictions there are for each sample."""
    return predictions.numel() // labels.numel()


def _regulariser(
    stage: Stage,
    predictions: torch.Tensor,
    features: torch.Tensor,
    labels: torch.Tensor,
    weights: torch.Tensor | None,
) -> torch.Tensor:
    if stage.regulariser == "rnc":
        return rnc_loss(features, labels, weights=weights, ties=stage.ties or "exact", validate=False)
    labels = labels.repeat_interleave(_n_views(labels, predictions))
    features = features.reshape(-1, features.shape[-1])
    if stage.regulariser == "conr":
        # which samples are predicted alike is looked up; the term moves features, not predictions
        return conr(features, labels, predictions.detach().reshape(-1), stage.window or 0.0)
    return _REGULARISERS[stage.regulariser or ""](features, labels)


@torch.no_grad()
def _forward(model: nn.Module, batch: Any) -> torch.Tensor:
    was_training = model.training
    try:
        return model.eval()(batch)
    finally:
        model.train(was_training)


def predict(model: nn.Module, inputs: Any, index: np.ndarray | None = None, batch_size: int = 512) -> torch.Tensor:
    """Output of `model` in evaluation mode.

    Parameters
    ----------
    model : Module
    inputs : object
        Indexed with an integer array, it gives a batch.
    index : ndarray of int, optional
        Samples, in their order; by default all.
    batch_size : int

    Returns
    -------
    Tensor
        One row for each sample, without a graph; float32, or float64 where the model is.
    """
    index = np.arange(len(inputs)) if index is None else index
    parts = [index[start : start + batch_size] for start in range(0, len(index), batch_size)]
    outputs = [_forward(model, inputs[part]) for part in parts]
    return torch.cat([one if one.dtype == torch.float64 else one.float() for one in outputs])


def _shapes(weights: dict[str, torch.Tensor]) -> dict[str, Any]:
    return {name: value.shape for name, value in weights.items()}


@contextmanager
def parts_of(what: str, path: Path | None) -> Iterator[None]:
    """Name the file whose parts, though each can be read, do not fit what they are taken for.

    Parameters
    ----------
    what : str
    path : Path

    Raises
    ------
    ValueError
    """
    try:
        yield
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        why = " ".join(str(error).split())[:200]
        allowed = "what training has written there, or no file"
        raise ValueError(f"{what}: got {path}, whose parts do not fit ({why}); allowed: {allowed}") from error


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Write weights or a checkpoint so that nobody ever sees a part of it.

    Parameters
    ----------
    path : Path
    state : dict
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    torch.save(state, content)
    with whole(path) as draft:
        draft.write_bytes(content.getbuffer())


def read_state(path: Path, warning: str) -> dict[str, Any] | None:
    """What `write_state` has left there, or None. A file that cannot be read counts for nothing, with a warning.

    Parameters
    ----------
    path : Path
    warning : str
        Its text, with places for ``{path}`` and ``{error}``.
    """
    try:
        with zipfile.ZipFile(path) as packed:  # torch neither compares checksums, nor bounds what it unpacks
            if sum(part.file_size for part in packed.infolist()) > path.stat().st_size or packed.testzip():
                raise zipfile.BadZipFile(path)
        state = torch.load(path, weights_only=True, map_location="cpu")
        if not isinstance(state, dict):
            raise TypeError(path)
        return state
    except FileNotFoundError:
        return None
    except Exception as error:
        warnings.warn(warning.format(path=path, error=type(error).__name__), stacklevel=3)
        return None
