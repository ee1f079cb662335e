"""The search for settings of several methods: what is searched, the trials, and what the published search chose."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from rnclib.recipe import Recipe

__all__ = ["METHODS", "SEARCHES", "TUNED", "Search", "method_of", "with_settings"]

#: Methods that are tuned alike and compared: L1 with a term or without, and two losses that train an encoder.
METHODS = ("L1", "Ordinal Entropy", "RankSim", "SupCon", "RnC")


@dataclass(frozen=True)
class Search:
    """Trials of one method.

    Attributes
    ----------
    searched : mapping
        Settings by field of `rnclib.recipe.Stage`: bounds, or a list of values.
    first : mapping
        What the first trial adds to the settings of the method's own chapter.
    drawn : tuple
        Settings of the other trials, in the order of `searched`: drawn once, log-uniformly within the bounds or from
        the list, and frozen here.
    """

    searched: Mapping[str, tuple[float, float] | list[int]]
    first: Mapping[str, float]
    drawn: tuple[tuple[float, ...], ...]

    def trials(self, n: int | None = None) -> list[dict[str, float]]:
        """Settings of the first `n` trials, or of all."""
        every = [dict(self.first), *(dict(zip(self.searched, one, strict=True)) for one in self.drawn)]
        return every[:n]


#: By kind of inputs and method.
SEARCHES: dict[str, dict[str, Search]] = {
    "molecules": {
        "L1": Search(
            {"learning_rate": (0.0001, 0.01), "weight_decay": (1e-06, 0.001)},
            {},
            (
                (0.00188, 6.45e-06), (0.000121, 1.12e-06), (0.00423, 0.000547), (0.00163, 0.000154),
                (0.00122, 0.000639), (0.00428, 1.02e-06), (0.00519, 1.26e-06), (0.00288, 3.36e-06),
                (0.00533, 4.21e-05), (0.000398, 1.85e-05), (0.000114, 2.36e-06), (0.00219, 8.74e-05),
                (0.0017, 1.42e-05), (0.00987, 0.000876),
            ),
        ),
        "Ordinal Entropy": Search(
            {"learning_rate": (0.0001, 0.01), "regulariser_weight": (0.001, 1.0)},
            {"regulariser_weight": 0.01},
            (
                (0.00106, 0.71), (0.000194, 0.701), (0.00042, 0.0186), (0.00452, 0.0169), (0.00126, 0.00121),
                (0.00321, 0.0412), (0.000457, 0.232), (0.000404, 0.0229), (0.000185, 0.0162), (0.000255, 0.00612),
                (0.00317, 0.00694), (0.000934, 0.875), (0.00838, 0.149), (0.00121, 0.00677),
            ),
        ),
        "RankSim": Search(
            {"learning_rate": (0.0001, 0.01), "regulariser_weight": (0.001, 3.0)},
            {"regulariser_weight": 1.0},
            (
                (0.000334, 0.0109), (0.00425, 0.00209), (0.00159, 0.341), (0.000238, 0.00156), (0.000355, 0.193),
                (0.00133, 0.00332), (0.000733, 0.212), (0.000701, 0.159), (0.00861, 0.237), (0.000607, 0.00448),
                (0.000492, 0.0598), (0.00606, 0.497), (0.000433, 1.64), (0.000875, 0.258),
            ),
        ),
        "SupCon": Search(
            {"learning_rate": (0.001, 0.1), "temperature": (0.05, 1.0), "n_bins": [4, 8, 16, 32]},
            {"temperature": 0.1, "n_bins": 8},
            (
                (0.00148, 0.102, 4), (0.0146, 0.0663, 32), (0.00735, 0.21, 8), (0.0295, 0.0703, 4),
                (0.00606, 0.235, 8), (0.0149, 0.456, 8), (0.0818, 0.117, 8), (0.0247, 0.12, 16),
                (0.00101, 0.924, 32), (0.00425, 0.723, 8), (0.0148, 0.205, 4), (0.00115, 0.416, 32),
                (0.0056, 0.0656, 16), (0.0729, 0.093, 16),
            ),
        ),
        "RnC": Search(
            {"learning_rate": (0.001, 0.1), "temperature": (0.3, 10.0)},
            {},
            (
                (0.0769, 1.8), (0.0896, 0.398), (0.0164, 1.12), (0.0402, 0.553), (0.0554, 2.02), (0.0637, 1.6),
                (0.00726, 4.77), (0.093, 1.1), (0.0867, 7.8), (0.00227, 2.54), (0.0257, 8.18), (0.0214, 0.479),
                (0.0099, 1.69), (0.01, 8.65),
            ),
        ),
    },
    "images": {
        "L1": Search(
            {"learning_rate": (0.002, 0.2), "weight_decay": (1e-06, 0.001)},
            {},
            (
                (0.0376, 6.45e-06), (0.00242, 1.12e-06), (0.0846, 0.000547), (0.0327, 0.000154), (0.0245, 0.000639),
                (0.0857, 1.02e-06), (0.104, 1.26e-06), (0.0576, 3.36e-06), (0.107, 4.21e-05), (0.00795, 1.85e-05),
                (0.00228, 2.36e-06), (0.0439, 8.74e-05), (0.034, 1.42e-05), (0.197, 0.000876),
            ),
        ),
        "Ordinal Entropy": Search(
            {"learning_rate": (0.002, 0.2), "regulariser_weight": (0.01, 100.0)},
            {"regulariser_weight": 1.0},
            (
                (0.0211, 63.4), (0.00388, 62.3), (0.00841, 0.494), (0.0905, 0.433), (0.0251, 0.0129), (0.0643, 1.42),
                (0.00913, 14.2), (0.00808, 0.652), (0.00371, 0.41), (0.0051, 0.112), (0.0634, 0.132), (0.0187, 83.7),
                (0.168, 7.93), (0.0242, 0.128),
            ),
        ),
        "RankSim": Search(
            {"learning_rate": (0.002, 0.2), "regulariser_weight": (0.01, 100.0)},
            {"regulariser_weight": 100.0},
            (
                (0.00667, 0.156), (0.085, 0.0233), (0.0317, 8.21), (0.00475, 0.0166), (0.0071, 4.26),
                (0.0266, 0.0398), (0.0147, 4.76), (0.014, 3.41), (0.172, 5.4), (0.0121, 0.0561), (0.00984, 1.11),
                (0.121, 12.7), (0.00866, 49.8), (0.0175, 5.96),
            ),
        ),
        "SupCon": Search(
            {"learning_rate": (0.02, 1.0), "temperature": (0.05, 1.0), "n_bins": [5, 10, 20, 40]},
            {"temperature": 0.1, "n_bins": 10},
            (
                (0.028, 0.102, 5), (0.195, 0.0663, 40), (0.109, 0.21, 10), (0.354, 0.0703, 5), (0.0924, 0.235, 10),
                (0.199, 0.456, 10), (0.843, 0.117, 10), (0.305, 0.12, 20), (0.0201, 0.924, 40), (0.0683, 0.723, 10),
                (0.197, 0.205, 5), (0.0225, 0.416, 40), (0.0865, 0.0656, 20), (0.765, 0.093, 20),
            ),
        ),
        "RnC": Search(
            {"learning_rate": (0.02, 1.0), "temperature": (0.3, 10.0)},
            {},
            (
                (0.8, 1.8), (0.911, 0.398), (0.215, 1.12), (0.461, 0.553), (0.605, 2.02), (0.682, 1.6),
                (0.108, 4.77), (0.94, 1.1), (0.886, 7.8), (0.0401, 2.54), (0.315, 8.18), (0.27, 0.479), (0.14, 1.69),
                (0.142, 8.65),
            ),
        ),
    },
}  # fmt: skip

#: By data set the trial of the published search that has the lowest validation MAE, counted from 0; a test compares the
#: records. No search on photographs is published.
TUNED: dict[str, dict[str, int]] = {
    "esol": {"L1": 13, "Ordinal Entropy": 5, "RankSim": 14, "SupCon": 11, "RnC": 11},
    "synthetic": {"L1": 10, "Ordinal Entropy": 9, "RankSim": 10, "SupCon": 11, "RnC": 13},
}


def with_settings(method: str, settings: Mapping[str, Any], end_to_end: Recipe, frozen: Recipe) -> Recipe:
    """A method with given settings; one that trains an encoder gets a linear regressor in closed form.

    Parameters
    ----------
    method : str
        One of `METHODS`.
    settings : mapping
        Fields of the stage that makes the method what it is.
    end_to_end, frozen : Recipe
        What is changed: end-to-end training, or contrastive training.
    """
    if method in ("SupCon", "RnC"):
        assert frozen.pretrain is not None
        others: dict[str, Any] = {}
        if method == "SupCon":
            others = {"loss": "supcon", "label_diff": None, "feature_sim": None}
        pretrain = replace(frozen.pretrain, **others, **settings)
        return replace(frozen, pretrain=pretrain, fit=None, head="ridge", notable=("tuned",))
    assert end_to_end.fit is not None
    term = {"Ordinal Entropy": "ordinal entropy", "RankSim": "ranksim"}.get(method)
    return replace(end_to_end, fit=replace(end_to_end.fit, regulariser=term, **settings), notable=("tuned",))


def method_of(recipe: Recipe) -> str:
    """Which of `METHODS` a recipe is, told by its stages.

    Parameters
    ----------
    recipe : Recipe
        From `with_settings`.
    """
    if recipe.pretrain is not None:
        return {"rnc": "RnC", "supcon": "SupCon"}[recipe.pretrain.loss]
    assert recipe.fit is not None
    return {None: "L1", "ordinal entropy": "Ordinal Entropy", "ranksim": "RankSim"}[recipe.fit.regulariser]
