"""Models of other packages, trained as those packages train them by default."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from rnclib.regressors import Baseline

__all__ = ["PACKAGES"]


def _chemprop(inputs: Any, targets: np.ndarray, inputs_val: Any, targets_val: np.ndarray, seed: int) -> Baseline:
    """What ``chemprop train`` does without further options, in version 2.2.4, but on the CPU.

    A directed message-passing network (three steps, width 300), the sum over atoms divided by 100, a perceptron of one
    hidden layer; no dropout or batch norm. Adam with batches of 64 for 50 epochs, of which the one with the lowest
    validation loss (MSE) is kept; the learning rate rises from 0.0001 to 0.001 in two epochs and falls to 0.0001.
    With both of its seeds set, that command gives the same predictions.
    """
    try:
        from chemprop import data, models, nn
        from lightning.pytorch import Trainer
        from lightning.pytorch.callbacks import ModelCheckpoint
    except ImportError:
        raise ModuleNotFoundError("model: got 'chemprop'; allowed: with the package, pip install '.[peers]'") from None

    def dataset(smiles: Sequence[str], y: np.ndarray) -> Any:
        points = zip(smiles, y[:, None].astype(np.float32), strict=True)
        return data.MoleculeDataset([data.MoleculeDatapoint.from_smi(one, value) for one, value in points])

    def batches(among: Any, **order: Any) -> Any:  # of all samples: by default a last batch of one is left out
        return data.build_dataloader(among, batch_size=64, drop_last=False, **order)

    train, val = dataset(inputs.smiles, targets), dataset(inputs_val.smiles, targets_val)
    scaler = train.normalize_targets()
    val.normalize_targets(scaler)
    train.cache = val.cache = True  # the graphs
    with _alone(), TemporaryDirectory() as folder:
        torch.manual_seed(seed)
        unscale = nn.UnscaleTransform.from_standard_scaler(scaler)
        model = models.MPNN(nn.BondMessagePassing(), nn.NormAggregation(), nn.RegressionFFN(output_transform=unscale))
        best = ModelCheckpoint(folder, monitor="val_loss", mode="min", save_weights_only=True)
        trainer = Trainer(
            accelerator="cpu", devices=1, max_epochs=50, callbacks=[best], logger=False, enable_progress_bar=False,
            enable_model_summary=False,
        )  # fmt: skip
        trainer.fit(model, batches(train, seed=seed), batches(val, shuffle=False))
        model.load_state_dict(torch.load(best.best_model_path, weights_only=False)["state_dict"])
    model.eval()

    def predict(inputs: Any) -> np.ndarray:
        asked = batches(dataset(inputs.smiles, np.zeros(len(inputs))), shuffle=False)
        with _alone(), torch.inference_mode():
            return torch.cat([model(*batch[:3]) for batch in asked]).reshape(-1).double().numpy()

    return Baseline(predict)


@contextmanager
def _alone() -> Iterator[None]:
    """One thread, no word from Lightning, and the random numbers of PyTorch as they were before."""
    said, threads = logging.getLogger("lightning.pytorch"), torch.get_num_threads()
    level = said.level
    said.setLevel(logging.ERROR)
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            # Lightning 2.6 asks PyTorch in an old way, and for more processes than one
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning)
            warnings.filterwarnings("ignore", "The '.*_dataloader' does not have many workers", UserWarning)
            yield
    finally:
        torch.set_num_threads(threads)
        said.setLevel(level)


#: By name of the model: what fits it to inputs and targets for training and for validation, with a seed.
PACKAGES: dict[str, Callable[[Any, np.ndarray, Any, np.ndarray, int], Baseline]] = {"chemprop": _chemprop}
