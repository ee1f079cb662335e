"""When test differs from training: corrupted inputs, unseen targets, label noise, spurious correlation, shifts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from rnclib import protocols
from rnclib.chapters.base import FACES, MOLECULES, SMALL_FACES, Chapter, Experiment, Origin, Scope, compared
from rnclib.claims import GROWTH, NO_LONGER, ORGANISED, PAPER, ROBUST, SPURIOUS, UNLIKE, UNSEEN, Claim
from rnclib.data import catalogue
from rnclib.data.shifts import SEEN, spurious_split
from rnclib.experiment import Run

__all__ = ["CHAPTER", "CLAIMED", "SHIFTS", "four_kinds"]

#: Splits by kind of inputs whose test set is unlike training.
SHIFTS = {"molecules": ("scaffold", "size"), "images": ("identity",)}

#: What is claimed of tests that differ from training; other claims rest on the same sets of faces too.
CLAIMED = (ROBUST, GROWTH, UNSEEN, SPURIOUS, ORGANISED, NO_LONGER, UNLIKE)

_PRIMARY = {"holes": "two peaks"}  # what a primary comparison is about
# profile: unseen target ranges and label noise; runs with and without a spurious correlation; splits of SHIFTS
_DISTURBED: dict[str, tuple[dict[str, Any], ...]] = {
    "paper": (
        _PRIMARY, {"holes": "three peaks"}, {"holes": "cut-out"}, {"wrong_targets": 0.2},
        {"wrong_targets": 0.4},
    ),
    "quick": (_PRIMARY, {"wrong_targets": 0.2}),
    "smoke": (_PRIMARY, {"wrong_targets": 0.2}),
}  # fmt: skip
_CORRELATED = {"paper": ("tied", "untied"), "quick": ("tied", "untied"), "smoke": ("tied",)}
_SHIFTED: dict[str, dict[str, tuple[str, ...]]] = {
    "paper": SHIFTS,
    "quick": {"molecules": ("scaffold",), "images": ("identity",)},
    "smoke": {"molecules": ("size",), "images": ("identity",)},
}
# splits or seeds with corrupted inputs, which cost no training of their own, and fewer with all else
_SEEDS = {"molecules": {"paper": 10, "quick": 1, "smoke": 1}, "images": {"paper": 5, "quick": 1, "smoke": 1}}
_FEW = {"paper": 5, "quick": 1, "smoke": 1}
_MANY = {"paper": 20, "quick": 1, "smoke": 1}  # splits of molecules with what the primary comparisons are about


def grid(scope: Scope) -> list[Run]:
    """Each method tested on corrupted inputs, and on molecules or people unlike those of training.

    Those but fine-tuning are also trained with unseen target ranges and with label noise, and on molecules with a
    spurious correlation (on synthetic faces that is part of `rnclib.chapters.claims.face_sets`). With other people,
    unseen ranges and label noise, synthetic faces are smaller; so is a standard split to compare with.

    Parameters
    ----------
    scope : Scope
    """
    source, n_few = catalogue.source(scope.dataset), scope.n_seeds or _FEW[scope.profile]
    asked = scope
    scope = replace(scope, n_seeds=scope.n_seeds or _SEEDS[source.kind][scope.profile])
    every, small = compared(scope, "robustness"), compared(scope, "robustness", small=True)

    def few(runs: list[Run]) -> list[Run]:
        return [run for run in runs if run.seed < n_few]

    disturbed = [(disturbance, few(small)) for disturbance in _DISTURBED[scope.profile]]
    if source.nuisance == "selected":
        many = compared(replace(asked, n_seeds=asked.n_seeds or _MANY[asked.profile]), "robustness")
        disturbed = [(one, many if one == _PRIMARY else runs) for one, runs in disturbed]
        disturbed += [({"spurious": kind}, many) for kind in _CORRELATED[scope.profile]]
    shifts = _SHIFTED[scope.profile][source.kind]
    alike = ("standard",) if small != every else ()
    return [
        *(run.but(corruptions=True) for run in every),
        *(
            run.but(**disturbance)
            for disturbance, runs in disturbed
            for run in runs
            if run.recipe.freeze or run.recipe.pretrain is None
        ),
        *(run.but(split=split) for split in (*alike, *shifts) for run in few(small)),
    ]


def four_kinds(dataset: str) -> pd.DataFrame:
    """Count samples by target and nuisance where the two are correlated in training, in split 0 of molecules.

    Parameters
    ----------
    dataset : str
        Molecules of the catalogue.

    Returns
    -------
    DataFrame
        By ``high``, whether the target is in the upper half of the training set, and ``has``, whether the molecule has
        nitrogen: the number of samples in ``train`` and ``test`` (`rnclib.data.shifts.spurious_split`), and in
        ``before``, the training set that it is taken from.
    """
    data = catalogue.load(dataset)
    assert data.nuisance is not None
    split, has = data.splits["random"](0), data.nuisance > 0
    high = data.targets >= np.median(data.targets[split.train])
    chosen = spurious_split(split, data.targets, has, 0, correlated=True)
    sets = {"before": split.train, "train": chosen.train, "test": chosen.test}
    kinds = pd.DataFrame({"high": high, "has": has})
    counts = {name: kinds.iloc[index].value_counts() for name, index in sets.items()}
    every = pd.MultiIndex.from_product([(False, True)] * 2, names=["high", "has"])
    return pd.DataFrame(counts).reindex(every).fillna(0).astype(int)


_CORRUPTED = ((ROBUST, "corruption", "ratio"), (GROWTH, "growth", "growth"))
_CORRELATED_CLAIMS = ((SPURIOUS, "nuisance coefficient"), (ORGANISED, "organisation"), (NO_LONGER, "difference"))
_FROZEN, _FINE_TUNED = "RnC frozen, L1", "RnC fine-tuned, L1"
_UNDISTURBED: dict[str, Any] = dict.fromkeys(("holes", "wrong_targets", "spurious"))
_MOLECULES, _FACES = protocols.end_to_end("esol"), protocols.end_to_end("synthetic")

CHAPTER = Chapter(
    "robustness",
    tables=(
        "robustness-kinds", "robustness-ratio-molecules", "robustness-growth-molecules", "robustness-ratio-faces",
        "robustness-growth-faces", "robustness-holes", "robustness-holes-faces", "robustness-wrong-targets",
        "robustness-wrong-targets-faces", "robustness-spurious-molecules", "robustness-spurious-faces",
        "robustness-shift", "robustness-shift-faces", "robustness-verdicts", "robustness-machines",
    ),
    figures=(
        "robustness-errors-molecules", "robustness-examples", "robustness-errors-faces",
        "robustness-design-molecules", "robustness-design-faces", "robustness-organisation-molecules",
    ),
    experiments=(
        Experiment("robustness", grid, (*MOLECULES, *FACES), options={"data_dir": None}),
    ),
    claims=(
        *(
            Claim(
                text, PAPER, "robustness", "esol", "random", method, _MOLECULES, effect,
                f"robustness-{table}-molecules", figure="robustness-errors-molecules",
            )
            for text, effect, table in _CORRUPTED
            for method in (_FROZEN, _FINE_TUNED)
        ),
        *(
            Claim(
                text, PAPER, "robustness", "synthetic", "standard", _FROZEN, _FACES, effect,
                f"robustness-{table}-faces", figure="robustness-errors-faces",
            )
            for text, effect, table in _CORRUPTED
        ),
        *(
            Claim(UNSEEN, PAPER, "robustness", dataset, split, _FROZEN, baseline, "unseen", link, holes=holes)
            for dataset, split, baseline, link in (
                ("esol", "random", _MOLECULES, "robustness-holes"),
                ("synthetic", "standard", _FACES, "robustness-holes-faces"),
            )
            for holes in SEEN
        ),
        *(
            Claim(
                text, PAPER, "robustness", "esol", "random", _FROZEN, _MOLECULES, effect,
                "robustness-spurious-molecules", spurious="tied", figure="robustness-organisation-molecules",
            )
            for text, effect in _CORRELATED_CLAIMS
        ),
        *(
            Claim(UNLIKE, PAPER, "robustness", "esol", split, method, _MOLECULES, "difference", "robustness-shift")
            for split in SHIFTS["molecules"]
            for method in (_FROZEN, _FINE_TUNED)
        ),
        Claim(
            UNLIKE, PAPER, "robustness", "synthetic", "identity", _FROZEN, _FACES, "difference",
            "robustness-shift-faces",
        ),
    ),
    origins={
        **dict.fromkeys(
            ("robustness-kinds", "robustness-examples", "robustness-design-molecules", "robustness-design-faces")
        ),
        **{
            f"robustness-{table}-{data}": Origin(where={"corruptions": True})
            for table in ("errors", "ratio", "growth")
            for data in ("molecules", "faces")
        },
        **dict.fromkeys(("robustness-holes", "robustness-holes-faces"), Origin(where={"holes": True})),
        **dict.fromkeys(
            ("robustness-wrong-targets", "robustness-wrong-targets-faces"), Origin(where={"wrong_targets": True})
        ),
        "robustness-spurious-molecules": Origin(where={"spurious": True}),
        "robustness-organisation-molecules": Origin(where={"spurious": "tied", "seed": 0}),
        "robustness-spurious-faces": Origin(("face_sets",), where={"spurious": True}),
        "robustness-shift": Origin(where=_UNDISTURBED),
        "robustness-shift-faces": Origin(where=_UNDISTURBED | {"size": SMALL_FACES}),
        "robustness-verdicts": Origin(judged={"experiment": ("robustness", "face_sets"), "text": CLAIMED}),
    },
    smoke={"profile": "smoke", "molecules": "standin"},
)  # fmt: skip
