"""One training loop for every stage: contrastive, end-to-end, fine-tuning and linear probing.

Random numbers are keyed by seed and epoch, never by what ran before, so a run that was killed and
resumed, or divided among several processes, visits the same samples in the same order.
"""

from __future__ import annotations

import math
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn

from rnclib.loss import RnCLoss, rnc_loss
from rnclib.other_losses import bin_edges, binned_supcon_loss, ordinal_entropy, ranksim

__all__ = ["REGRESSION_LOSSES", "History", "Stage", "learning_rate", "predict", "train", "write_state"]

REGRESSION_LOSSES: dict[str, Callable[..., torch.Tensor]] = {
    "l1": nn.functional.l1_loss,
    "l2": nn.functional.mse_loss,
    "huber": nn.functional.smooth_l1_loss,  # β = 1
}

# The losses that train an encoder, with the options that each needs.
ENCODER_LOSSES = {"rnc": ("temperature", "label_diff", "feature_sim"), "supcon": ("temperature", "n_bins")}
REGULARISERS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "ordinal entropy": ordinal_entropy,
    "ranksim": ranksim,
    "rnc": partial(rnc_loss, validate=False),  # with its own defaults
}


@dataclass(frozen=True)
class Stage:
    """Hyperparameters of one training stage, in the words of the published tables.

    Attributes
    ----------
    loss : {'rnc', 'supcon', 'l1', 'l2', 'huber'}
        ``'rnc'`` and ``'supcon'`` (on binned targets) train an encoder; the others compare predictions with targets.
    epochs, batch_size : int
    learning_rate, momentum, weight_decay : float
        Of stochastic gradient descent.
    lr_decay_rate : float
        r: the learning rate falls along a cosine to ``learning_rate · r³``.
    drop_last : bool
        Leave out the incomplete last batch of an epoch.
    batch_norm : {'train', 'eval'}
        ``'eval'``: batch norm uses and keeps its running statistics.
    temperature : float, optional
        Of the losses that train an encoder, where it must be given.
    label_diff, feature_sim : str, optional
        Options of `rnclib.RnCLoss`; only with ``loss='rnc'``, where they must be given.
    n_bins : int, optional
        Of the target; only with ``loss='supcon'``, where it must be given.
    regulariser : {'ordinal entropy', 'ranksim', 'rnc'}, optional
        Added to a regression loss, on the features that the model's last module is given: see `rnclib.other_losses`,
        or `rnclib.rnc_loss` with its defaults.
    regulariser_weight : float, optional
        Given with a regulariser.
    unit_features : {True}, optional
        Scale features to length 1 before the loss; only with ``loss='rnc'``.
    n_views : int, optional
        Random views of each image in a batch; one if not given.
    """

    loss: str
    epochs: int
    batch_size: int
    learning_rate: float
    lr_decay_rate: float
    weight_decay: float
    momentum: float = 0.9
    drop_last: bool = False
    batch_norm: str = "train"
    temperature: float | None = None
    label_diff: str | None = None
    feature_sim: str | None = None
    unit_features: bool | None = None
    n_views: int | None = None
    n_bins: int | None = None
    regulariser: str | None = None
    regulariser_weight: float | None = None

    def __post_init__(self) -> None:
        def refuse(name: str, allowed: str) -> None:
            raise ValueError(f"{name}: got {getattr(self, name)!r}; allowed: {allowed}")

        if self.loss not in (*ENCODER_LOSSES, *REGRESSION_LOSSES):
            refuse("loss", ", ".join(map(repr, (*ENCODER_LOSSES, *REGRESSION_LOSSES))))
        for name in ("epochs", "batch_size"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                refuse(name, "an integer of at least 1")
        for name in ("learning_rate", "lr_decay_rate", "weight_decay", "momentum", "regulariser_weight"):
            value = getattr(self, name)
            if name == "regulariser_weight" and value is None:
                continue
            if not isinstance(value, (int, float)) or not 0 <= value < math.inf:
                refuse(name, "a finite number of at least 0")
        if self.batch_norm not in ("train", "eval"):
            refuse("batch_norm", "'train', 'eval'")
        for name in ("temperature", "label_diff", "feature_sim", "n_bins"):
            losses = [loss for loss, options in ENCODER_LOSSES.items() if name in options]
            if (getattr(self, name) is None) == (self.loss in losses):
                refuse(name, f"a value with loss={' or '.join(map(repr, losses))}, None with the others")
        if self.temperature is not None and not 0 < self.temperature < math.inf:
            refuse("temperature", "a finite number above 0")
        if self.label_diff not in (None, "l1", "l2"):
            refuse("label_diff", "'l1', 'l2'")
        if self.feature_sim not in (None, "l1", "l2", "cosine"):
            refuse("feature_sim", "'l1', 'l2', 'cosine'")
        if self.n_bins is not None and (not isinstance(self.n_bins, int) or self.n_bins < 2):
            refuse("n_bins", "an integer of at least 2")
        if self.regulariser is not None and (self.regulariser not in REGULARISERS or self.loss in ENCODER_LOSSES):
            refuse("regulariser", ", ".join(map(repr, REGULARISERS)) + " with a regression loss, or None")
        if (self.regulariser is None) != (self.regulariser_weight is None):
            refuse("regulariser_weight", "a number with a regulariser, None without")
        if self.unit_features not in (None, True) or (self.unit_features and self.loss != "rnc"):
            refuse("unit_features", "True with loss='rnc', or None")
        if self.n_views is not None and (not isinstance(self.n_views, int) or self.n_views < 1):
            refuse("n_views", "an integer of at least 1, or None")


@dataclass
class History:
    """What happened in a training stage.

    Attributes
    ----------
    train_loss : list of float
        Mean loss of each epoch's batches.
    val_loss : list of float
        The same loss on the validation part after each epoch; empty without one.
    best_epoch : int
        Epoch (counted from 1) whose weights the model has now.
    wall_time : float
        Seconds, pauses between a kill and its resumption left out.
    """

    train_loss: list[float] = field(default_factory=list)
    val_loss: list[float] = field(default_factory=list)
    best_epoch: int = 0
    wall_time: float = 0.0


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
    inputs: Any,
    labels: torch.Tensor,
    val_inputs: Any = None,
    val_labels: torch.Tensor | None = None,
    *,
    seed: int,
    fabric: Fabric | None = None,
    checkpoint: str | os.PathLike | None = None,
    checkpoint_seconds: float = 20.0,
    on_epoch: Callable[[int], None] | None = None,
) -> History:
    """Train `model` in place.

    Parameters
    ----------
    model : Module
        Maps a batch of inputs to features, shape (n, feat_dim) or (n, n_views, feat_dim), for a loss that trains an
        encoder; else to predictions, shape (n,) or (n, 1).
    stage : Stage
    inputs : object
        Training inputs; indexing with an integer array gives a batch on the model's device. If they have a
        method ``at_epoch``, as `rnclib.data.augment.Views` have, an epoch takes its batches from what it returns.
    labels : Tensor, shape (n,)
        Targets in the unit in which the model predicts.
    val_inputs, val_labels : optional
        Indexed in the same way. If given, the model ends with the weights of the epoch of least validation loss, else
        with the last.
    seed : int
        Keys the order of samples, together with the epoch.
    fabric : Fabric, optional
        Device, precision and processes; by default the CPU in full precision. With several processes each
        takes its share of every batch, losses and gradients are those of the whole batch, and all end with the
        weights of the first; only that reads and writes the checkpoint.
    checkpoint : path, optional
        Written at the end of an epoch; if the file exists, training resumes from it.
    checkpoint_seconds : float
        Least time between two writings.
    on_epoch : callable, optional
        Called with the number of epochs newly done, for a progress bar.

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
    fabric = fabric or Fabric(accelerator="cpu", devices=1)
    n, world = len(labels), fabric.world_size
    stop = n - n % stage.batch_size if stage.drop_last else n
    starts = range(0, stop, stage.batch_size)
    if not starts:
        raise ValueError(
            f"batch_size: got {stage.batch_size} with drop_last and {n} samples, which leaves no batch; "
            f"allowed: at most {n}"
        )
    if (smallest := stop - starts[-1]) < world:
        raise ValueError(f"labels: the last batch has {smallest} samples for {world} processes; allowed: ≥ {world}")

    if world > 1 and (stage.loss == "supcon" or stage.regulariser):
        what = stage.regulariser or stage.loss
        raise ValueError(f"fabric: got {world} processes with {what!r}; allowed: one, which sees the whole batch")
    features: list[torch.Tensor] = []
    if stage.regulariser is not None:
        last = list(model.children())[-1]
        hook = last.register_forward_pre_hook(lambda _, given: features.append(given[0]))

    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=stage.learning_rate,
        momentum=stage.momentum,
        weight_decay=stage.weight_decay,
        fused=True,
    )
    model, optimizer = fabric.setup(model, optimizer)
    labels = labels.to(fabric.device)
    loss_of, val_loss_of = _loss_function(stage, labels, distributed=world > 1), _loss_function(stage, labels)
    identity = {"stage": _given(stage), "seed": seed, "n": n}
    history, best = History(), None
    state = None
    if checkpoint is not None and fabric.is_global_zero:
        state = _read_checkpoint(Path(checkpoint), identity)
    if (state := fabric.broadcast(state)) is not None:  # where one process resumes, all do
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        history, best = History(**state["history"]), state["best"]
        if on_epoch:
            on_epoch(len(history.train_loss))

    began = saved = time.monotonic()
    earlier = history.wall_time
    for epoch in range(len(history.train_loss) + 1, stage.epochs + 1):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(stage, epoch)
        model.train(stage.batch_norm == "train")
        order = np.random.default_rng([seed, epoch]).permutation(n)
        epoch_inputs = inputs.at_epoch(epoch) if hasattr(inputs, "at_epoch") else inputs
        total = torch.zeros((), device=fabric.device, dtype=torch.float64)
        for start in starts:
            batch = order[start : min(start + stage.batch_size, stop)]
            mine = batch[fabric.global_rank :: world]
            # scaled so that the mean over processes is the loss of the whole batch
            scale = 1.0 if stage.loss == "rnc" else len(mine) * world / len(batch)
            features.clear()
            loss = scale * loss_of(model(epoch_inputs[mine]), labels[mine])
            if stage.regulariser is not None:
                term = REGULARISERS[stage.regulariser](features[0], labels[mine])
                loss = loss + (stage.regulariser_weight or 0.0) * term
            optimizer.zero_grad(set_to_none=True)
            fabric.backward(loss)
            optimizer.step()
            total += loss.detach() * len(batch)
        mean_total = fabric.all_reduce(total, reduce_op="mean")
        assert isinstance(mean_total, torch.Tensor)
        train_loss = mean_total.item() / stop
        if not math.isfinite(train_loss):
            raise FloatingPointError(f"training loss ({stage.loss}) became {train_loss} in epoch {epoch}")
        history.train_loss.append(train_loss)
        if val_labels is not None:
            prediction = predict(model, val_inputs, np.arange(len(val_labels)))
            val_loss = float(val_loss_of(prediction, val_labels.to(prediction.device)))
            if best is None or val_loss < min(filter(math.isfinite, history.val_loss), default=math.inf):
                history.best_epoch = epoch
                best = {name: value.detach().clone() for name, value in model.state_dict().items()}
            history.val_loss.append(val_loss)
        else:
            history.best_epoch = epoch
        history.wall_time = earlier + time.monotonic() - began
        if on_epoch:
            on_epoch(1)
        if checkpoint is not None and time.monotonic() - saved >= checkpoint_seconds:
            if fabric.is_global_zero:
                write_state(
                    Path(checkpoint),
                    {
                        "identity": identity,
                        "model": model.state_dict(),
                        "optimizer": optimizer.state_dict(),
                        "history": asdict(history),
                        "best": best,
                    },
                )
            saved = time.monotonic()
    if stage.regulariser is not None:
        hook.remove()
    if best is not None:
        model.load_state_dict(best)
    if world > 1:  # buffers, such as batch norm's, and roundings are each process's own
        model.load_state_dict(fabric.broadcast(model.state_dict()))
        history = fabric.broadcast(history)
    return history


def _loss_function(
    stage: Stage, labels: torch.Tensor, distributed: bool = False
) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    if stage.loss == "rnc":
        assert stage.temperature is not None and stage.label_diff is not None and stage.feature_sim is not None
        # unchecked: features that are not finite give a loss that is not, which ends training in every process
        rnc = RnCLoss(stage.temperature, stage.label_diff, stage.feature_sim, gather=distributed, validate=False)
        if stage.unit_features:
            return lambda output, target: rnc(nn.functional.normalize(output, dim=-1), target)
        return rnc
    if stage.loss == "supcon":
        assert stage.temperature is not None and stage.n_bins is not None
        edges, temperature = bin_edges(labels, stage.n_bins), stage.temperature
        return lambda output, target: binned_supcon_loss(output, target, edges, temperature)
    regression_loss = REGRESSION_LOSSES[stage.loss]
    return lambda prediction, target: regression_loss(prediction.reshape(target.shape), target.to(prediction.dtype))


@torch.no_grad()
def _forward(model: nn.Module, batch: Any) -> torch.Tensor:
    was_training = model.training
    try:
        return model.eval()(batch)
    finally:
        model.train(was_training)


def predict(model: nn.Module, inputs: Any, index: np.ndarray, batch_size: int = 512) -> torch.Tensor:
    """Output of `model` in evaluation mode for the samples `index`, in their order.

    Parameters
    ----------
    model : Module
    inputs : object
        Indexed with an integer array, it gives a batch.
    index : ndarray of int
    batch_size : int

    Returns
    -------
    Tensor
        One row for each sample, float32, without a graph.
    """
    parts = [index[start : start + batch_size] for start in range(0, len(index), batch_size)]
    return torch.cat([_forward(model, inputs[part]).float() for part in parts])


def _given(stage: Stage) -> dict[str, Any]:
    """Its hyperparameters without those that do not apply, so that new ones leave old checkpoints readable."""
    return {name: value for name, value in asdict(stage).items() if value is not None}


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Write weights or a checkpoint so that nobody ever sees a part of it.

    Parameters
    ----------
    path : Path
    state : dict
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.tmp")
    torch.save(state, unfinished)
    os.replace(unfinished, path)


def _read_checkpoint(path: Path, identity: dict) -> dict | None:
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except FileNotFoundError:
        return None
    except Exception as error:
        warnings.warn(f"checkpoint {path} cannot be read ({type(error).__name__}): training starts again", stacklevel=3)
        return None
    if state.get("identity") != identity:
        raise ValueError(f"checkpoint: {path} belongs to another run; allowed: one of this stage, seed and data")
    return state
