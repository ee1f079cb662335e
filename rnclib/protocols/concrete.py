"""The published table of Concrete: its protocol, its values, and the choice of settings by validation.

The values are those of the analysis behind GAR (arXiv 2402.06104), which has Rank-N-Contrast among its baselines.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pandas as pd

from rnclib.experiment import Run, Selection
from rnclib.recipe import REGRESSION_LOSSES, Recipe, Stage

__all__ = ["FOLDS", "METHODS", "PUBLISHED", "chosen", "runs"]

FOLDS = 5
METHODS = (*REGRESSION_LOSSES.values(), "RnC")

#: Test MAE with its standard deviation over the folds, and RMSE, in MPa; Pearson's and Spearman's correlation.
PUBLISHED = pd.DataFrame.from_dict(
    {
        "L1": (4.976, 0.071, 6.639, 0.919, 0.917),
        "L2": (4.953, 0.139, 6.549, 0.918, 0.923),
        "Huber": (4.698, 0.248, 6.329, 0.922, 0.925),
        "RankSim": (11.753, 0.604, 14.503, 0.673, 0.703),
        "RnC": (4.776, 0.106, 6.383, 0.923, 0.926),
        "ConR": (5.016, 0.131, 6.693, 0.917, 0.918),
        "GAR": (4.603, 0.075, 6.222, 0.929, 0.931),
    },
    orient="index",
    columns=["mae", "mae_sd", "rmse", "pearson", "spearman"],
)

_RATES, _DECAYS, _TEMPERATURES = (0.1, 0.01, 0.001), (1e-3, 1e-4, 1e-5), (1.0, 2.0, 4.0)
_EPOCHS = {"paper": 100, "quick": 20, "smoke": 2}


def _recipes(method: str, profile: str) -> list[Recipe]:
    """One for each combination of settings, in short profiles the middle one alone.

    Batches and a constant rate are not published, and chosen here.
    """
    loss = {name: loss for loss, name in REGRESSION_LOSSES.items()}.get(method, "l1")
    temperatures = _TEMPERATURES if method == "RnC" else (None,)
    settings, epochs = list(itertools.product(_RATES, _DECAYS, temperatures)), _EPOCHS[profile]
    if profile != "paper":
        settings = [settings[len(settings) // 2]]
    found = []
    for number, (rate, decay, temperature) in enumerate(settings):
        same: dict[str, Any] = {
            "batch_size": 64, "learning_rate": rate, "lr_decay_rate": 1.0, "weight_decay": decay, "momentum": 0.9,
        }  # fmt: skip
        network: dict[str, Any] = {
            "model": "perceptron", "widths": (16, 32, 16, 8), "scaling": "standard", "notable": (f"trial {number}",),
        }  # fmt: skip
        if temperature is None:
            found.append(Recipe(fit=Stage(loss, epochs=epochs, **same), **network))
        else:
            contrast: dict[str, Any] = {
                "temperature": temperature,
                "label_diff": "l1",
                "feature_sim": "l2",
                "ties": "rounding",
            }
            stages = Stage("rnc", epochs=epochs // 2, **same, **contrast), Stage(loss, epochs=epochs // 2, **same)
            found.append(Recipe(pretrain=stages[0], fit=stages[1], **network))
    return found


def runs(profile: str) -> list[Run]:
    """Every setting of each method on every fold.

    Parameters
    ----------
    profile : {'paper', 'quick', 'smoke'}
    """
    data = Selection("concrete", "published")
    return [
        Run("concrete", profile, f"{method}, trial {number}", fold, data, recipe, on_pages=False)
        for method in METHODS
        for number, recipe in enumerate(_recipes(method, profile))
        for fold in range(FOLDS)
    ]


def chosen(records: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Of each method the trial with the lowest validation MAE over the folds, and what it is worth.

    Parameters
    ----------
    records : sequence of dict
        Of `runs`. A trial that diverged on a fold is not chosen.

    Returns
    -------
    DataFrame
        By method: ``trial``, and ``mae``, ``mae_sd`` and ``rmse`` of the test rows as in `PUBLISHED`.
    """
    rows = [
        {
            "trial": record["method"],
            **{f"{part}_{name}": values["raw"][name] for part, values in record["metrics"].items()
               for name in ("mae", "rmse")},
        }
        for record in records
        if record["metrics"]
    ]  # fmt: skip
    by_trial = pd.DataFrame(rows).groupby("trial")
    table = by_trial.agg(
        val=("val_mae", "mean"), mae=("test_mae", "mean"), mae_sd=("test_mae", "std"), rmse=("test_rmse", "mean"),
        n=("val_mae", "count"),
    )  # fmt: skip
    table = table[table["n"] == FOLDS].reset_index()
    table["method"] = table["trial"].str.partition(",")[0]
    best = table.loc[table.groupby("method")["val"].idxmin()].set_index("method")
    return best.loc[[method for method in METHODS if method in best.index], ["trial", "mae", "mae_sd", "rmse"]]
