"""The published protocols as configurations, and the numbers that were published with them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pandas as pd

from rnclib.experiment import Config
from rnclib.training import Stage

__all__ = ["ESOL_METHODS", "ESOL_PUBLISHED", "esol_grid", "esol_seeds"]

# The course project's graph protocol. Its end-to-end L2 and Huber do not exist: they get L1's settings here.
_ENCODER = Stage(
    "rnc", epochs=800, batch_size=256, learning_rate=0.01, lr_decay_rate=0.0, weight_decay=1e-5, drop_last=True,
    temperature=2.0, label_diff="l1", feature_sim="l2",
)  # fmt: skip
_REGRESSOR = Stage(
    "l1", epochs=300, batch_size=128, learning_rate=0.001, lr_decay_rate=0.1, weight_decay=0.0, batch_norm="eval"
)
_END_TO_END = Stage("l1", epochs=800, batch_size=128, learning_rate=0.01, lr_decay_rate=0.0, weight_decay=1e-6)

_LOSS_NAMES = {"l1": "L1", "l2": "L2", "huber": "Huber"}

#: Trained methods of the ESOL chapter, and the loss parameter that selects them.
ESOL_METHODS: dict[str, str] = {
    method: loss
    for loss, name in _LOSS_NAMES.items()
    for method in (name, f"RnC({name})+freeze", f"RnC({name})")
}
_BASELINES = ("training mean", "Delaney's equation", "extra trees")

#: The course project's table: one random split, one seed, standardised units.
ESOL_PUBLISHED = pd.DataFrame(
    [
        ("L1", 0.247, 0.326, 0.106, 0.224, 0.325, 0.106),
        ("RnC(L1)+freeze", 0.219, 0.297, 0.088, 0.255, 0.359, 0.129),
        ("RnC(L1)", 0.212, 0.314, 0.099, 0.235, 0.345, 0.119),
        ("RnC(L2)", 0.266, 0.342, 0.117, 0.276, 0.366, 0.134),
        ("RnC(Huber)", 0.242, 0.326, 0.106, 0.245, 0.317, 0.101),
    ],
    columns=["method", "test_mae", "test_rmse", "test_mse", "val_mae", "val_rmse", "val_mse"],
).set_index("method")

# profile: epochs of the encoder, end to end, and of the regressor
_ESOL_EPOCHS = {"paper": (800, 800, 300), "quick": (80, 80, 40), "smoke": (2, 2, 1)}


def esol_seeds(profile: str, split: str) -> int:
    """Number of splits of the ESOL chapter."""
    return {"paper": {"random": 20, "scaffold": 10}[split], "quick": 3, "smoke": 1}[profile]


def esol_grid(
    *,
    dataset: str,
    profile: str,
    split: str,
    loss: str = "all",
    n_seeds: int | None = None,
    baselines: bool | None = None,
) -> list[Config]:
    """Configurations of the ESOL chapter.

    Parameters
    ----------
    dataset : {'esol', 'standin'}
    profile : {'paper', 'quick', 'smoke'}
        ``'paper'`` is the full protocol; the others shorten the schedules.
    split : {'random', 'scaffold'}
    loss : {'all', 'l1', 'l2', 'huber'}
        ``'all'``: the five methods of the course project, and end-to-end L2 and Huber. Else the end-to-end
        method of that loss, and Rank-N-Contrast with its regressor, frozen and fine-tuned.
    n_seeds : int, optional
        Splits 0, 1, …; by default as many as the profile has.
    baselines : bool, optional
        Add the training mean, Delaney's equation (ESOL only) and extra trees on RDKit's descriptors; by
        default with ``loss='all'``.
    """
    if loss not in ("all", *_LOSS_NAMES):
        raise ValueError(f"loss: got {loss!r}; allowed: 'all', 'l1', 'l2', 'huber'")
    encoder_epochs, end_to_end_epochs, regressor_epochs = _ESOL_EPOCHS[profile]
    five = ("L1", "RnC(L1)+freeze", "RnC(L1)", "RnC(L2)", "RnC(Huber)", "L2", "Huber")
    methods: Iterable[str] = five if loss == "all" else [m for m, of in ESOL_METHODS.items() if of == loss]
    grid = []
    for seed in range(n_seeds if n_seeds is not None else esol_seeds(profile, split)):
        base = Config(
            experiment="esol", dataset=dataset, profile=profile, split=split, seed=seed, method="", model="gin"
        )
        for method in methods:
            fit = replace(_REGRESSOR, loss=ESOL_METHODS[method], epochs=regressor_epochs)
            pretrain = replace(_ENCODER, epochs=encoder_epochs)
            if not method.startswith("RnC"):
                fit = replace(_END_TO_END, loss=ESOL_METHODS[method], epochs=end_to_end_epochs)
                pretrain = None
            freeze = method.endswith("+freeze")
            grid.append(replace(base, method=method, pretrain=pretrain, fit=fit, freeze=freeze))
        if baselines or (baselines is None and loss == "all"):
            grid += [
                replace(base, method=method, model=method)
                for method in _BASELINES
                if not (method == "Delaney's equation" and dataset != "esol")
                and not (method == "extra trees" and profile == "smoke")
            ]
    return grid
