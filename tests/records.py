"""Small records that the tests of several modules share."""

from __future__ import annotations

import copy
import hashlib

from rnclib import results
from rnclib.data.catalogue import SOURCES


def record(method="RnC(L1)", seed=3, *, mae=0.25, key=None, split="random", diverged=False, **changes):
    """A small record; its metrics are made up from `mae`."""
    target = [round(-3 + 0.5 * i + 0.01 * seed, 4) for i in range(8)]
    scales = {
        scale: {"mae": factor * mae, "rmse": factor * mae * 1.25, "mse": (factor * mae * 1.25) ** 2}
        for scale, factor in (("standardised", 1.0), ("raw", 2.0))
    }
    return {
        "schema": results.SCHEMA,
        "experiment": "esol",
        "dataset": "esol",
        "profile": "smoke",
        "split": split,
        "method": method,
        "seed": seed,
        "key": key or hashlib.sha256(f"{method} {seed} {split}".encode()).hexdigest()[:16],
        "config": {"fit": {"loss": "l1"}},
        "data": {"checksum": SOURCES["esol"].sha256, "n_train": 80, "n_val": 10, "n_test": 8},
        "metrics": {} if diverged else {"val": copy.deepcopy(scales), "test": copy.deepcopy(scales)},
        "diverged": "training loss (l2) became nan in epoch 3" if diverged else None,
        "stages": []
        if diverged
        else [
            {"name": "encoder", "wall_time": 2.5, "curve": {"epoch": [1, 2], "train_loss": [3.0, 2.0]}},
            {
                "name": "regressor",
                "wall_time": 1.0,
                "curve": {"epoch": [1, 3], "train_loss": [0.5, 0.25], "val_loss": [0.6, 0.3]},
            },
        ],
        "run": {"commit": "0" * 40, "clean": True},
        "test": {
            "index": [2 * i for i in range(8)],
            "target": target,
            "prediction": [] if diverged else [round(t + mae * (-1) ** i, 4) for i, t in enumerate(target)],
        },
    } | changes


#: Test MAE by method and seed.
VALUES = {"L1": [0.30, 0.34, 0.26, 0.31, 0.29], "RnC(L1)": [0.28, 0.30, 0.27, 0.27, 0.25], "L2": [0.5, 0.4, 0.6]}


def runs_of(values=VALUES, *, overlap=0.01, one_data_set=True, **changes):
    """As from `rnclib.results.frame`; the test sets of these records are all the same, so the overlap is put in."""
    runs = results.frame(
        [record(m, seed, mae=mae, **changes) for m, maes in values.items() for seed, mae in enumerate(maes)]
    )
    return runs.assign(overlap=overlap, one_data_set=one_data_set)
