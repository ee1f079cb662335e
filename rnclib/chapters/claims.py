"""The verdict page: the primary comparisons, the runs made for them, and what all chapters claim."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rnclib import protocols
from rnclib.chapters.base import MOLECULES, Chapter, Experiment, Origin, Scope, compared, of_faces, of_molecules
from rnclib.claims import (
    BEATS,
    COURSE,
    GROWTH,
    LESS,
    NO_LONGER,
    ORDER,
    ORGANISED,
    PAPER,
    ROBUST,
    SPURIOUS,
    UNLIKE,
    UNSEEN,
    Claim,
)
from rnclib.experiment import Run
from rnclib.protocols.search import SEARCHES, TUNED, with_settings

__all__ = ["CHAPTER", "CONTROLS", "PRIMARY", "steps"]

# --- faces, a set of its own for each seed ----------------------------------------------------------------

_LONGER = 2.5  # epochs of the end-to-end run that is given as much time as Rank-N-Contrast takes
_WORD_FOR_LONGER = f"{_LONGER:g} × the epochs"
_SOME = (0.1, 0.4)  # fractions of the training set, beside all of it


def _arms(scope: Scope) -> tuple[list[Run], list[Run]]:
    """The two methods of the primary comparisons, and the others that stand beside them."""
    recipes = protocols.faces(scope.dataset, scope.profile)
    end_to_end, published, frozen = (recipes[name] for name in ("L1 (lr 0.01)", "L1", "RnC(L1)"))
    assert end_to_end.fit is not None and scope.n_seeds is not None
    more = replace(end_to_end.fit, epochs=round(_LONGER * end_to_end.fit.epochs))
    longer = replace(end_to_end, fit=more, head="ridge", notable=(*end_to_end.notable, _WORD_FOR_LONGER))
    settings = SEARCHES["images"]["RnC"].trials()[TUNED["synthetic"]["RnC"]]
    pair = {
        "L1 closed form": replace(end_to_end, head="ridge"),
        "RnC tuned closed form": with_settings("RnC", settings, published, frozen),
    }
    others = {
        "L1": end_to_end,
        "L1 longer closed form": longer,
        "L1 published": published,
        "RnC": frozen,
        "RnC closed form": replace(frozen, fit=None, head="ridge"),
    }
    seeds = range(1, scope.n_seeds + 1)
    every = of_faces(scope, "face_sets", pair | others, seeds, small=True)
    every = [run.but(data_seed=run.seed) for run in every]
    return [run for run in every if run.method in pair], [run for run in every if run.method in others]


def face_sets(scope: Scope) -> list[Run]:
    """Seed s = 1, 2, … has the synthetic faces of data seed s; set 0, on which settings were searched, is left out.

    All methods are tested on corrupted faces and on new people. The two of the primary comparisons also train on
    fractions of the faces, with unseen target ranges, and with a spurious correlation.

    Parameters
    ----------
    scope : Scope
    """
    pair, others = _arms(scope)
    correlated = [run.but(spurious=kind) for kind in ("tied", "untied") for run in pair]
    if scope.choice == "spurious":
        return correlated
    changes: list[dict[str, Any]] = [{"holes": "two peaks"}, *({"fraction": fraction} for fraction in _SOME)]
    return [
        *(run.but(corruptions=True, new_people=True) for run in (*pair, *others)),
        *correlated,
        *(run.but(**change) for change in changes for run in pair),
    ]


# --- what verdicts must not find, and where differences come from -----------------------------------------


def control(scope: Scope) -> list[Run]:
    """A negative control: training and validation targets in random order, so that there is nothing to learn.

    Parameters
    ----------
    scope : Scope
    """
    assert scope.n_seeds is not None
    mean = {"training mean": protocols.molecules(scope.profile)["training mean"]}
    baseline = of_molecules(scope, "control", "random", mean, range(scope.n_seeds))
    return [run.but(wrong_targets=1.0) for run in (*compared(scope, "control"), *baseline)]


_WEIGHTS = {"paper": 4, "quick": 2, "smoke": 1}


def crossed(scope: Scope) -> list[Run]:
    """Every split with each of several seeds of initial weights: how much of the variance is whose?

    Parameters
    ----------
    scope : Scope
    """
    runs = [run for run in compared(scope, "crossed") if run.recipe.freeze or run.recipe.pretrain is None]
    return [run.but(weight_seed=weights) for run in runs for weights in range(_WEIGHTS[scope.profile])]


# --- the primary comparisons ------------------------------------------------------------------------------

_FROZEN, _END_TO_END = "RnC frozen, L1", protocols.end_to_end("esol")
_TUNED, _CLOSED = "RnC frozen, closed form, tuned", "L1 end to end, closed form, lr 0.01"


def _on_molecules(text: str, source: str, experiment: str, effect: str, n: int, link: str, **others: Any) -> Claim:
    claim = Claim(text, source, experiment, "esol", "random", _FROZEN, _END_TO_END, effect, link)
    return replace(claim, n_seeds=n, primary=True, **others)


def _on_faces(text: str, effect: str, **others: Any) -> Claim:
    claim = Claim(text, PAPER, "face_sets", "synthetic", "standard", _TUNED, _CLOSED, effect, "claims-faces")
    return replace(claim, n_seeds=16, primary=True, **others)


#: What the verdicts are about in the first place: each claim on molecules and on synthetic faces, against the best
#: end-to-end training at hand. The page "How we decide" lists them; it was committed before their runs were made.
PRIMARY: tuple[Claim, ...] = (
    _on_molecules(BEATS, COURSE, "esol", "difference", 20, "esol-differences-slower", figure="esol-differences-figure"),
    _on_molecules(
        BEATS, COURSE, "esol", "difference", 20, "esol-differences-slower", figure="esol-differences-figure",
        method="RnC fine-tuned, L1",
    ),
    _on_faces(BEATS, "difference"),
    _on_faces(BEATS, "difference", baseline=f"{_CLOSED}, {_WORD_FOR_LONGER}"),
    _on_molecules(ORDER, PAPER, "esol", "agreement", 20, "esol-rank-agreement", figure="esol-representations"),
    _on_faces(ORDER, "agreement"),
    _on_molecules(
        LESS, PAPER, "data_efficiency", "data", 22, "efficiency-ratio", figure="efficiency-errors",
        method="RnC frozen, closed form", baseline="L1 end to end, closed form, lr 0.001",
    ),
    _on_faces(LESS, "data", link="claims-faces-less"),
    _on_molecules(
        ROBUST, PAPER, "robustness", "corruption", 10, "robustness-ratio-molecules",
        figure="robustness-errors-molecules",
    ),
    _on_faces(ROBUST, "corruption"),
    _on_molecules(UNSEEN, PAPER, "robustness", "unseen", 20, "robustness-holes", holes="two peaks"),
    _on_faces(UNSEEN, "unseen", holes="two peaks", link="claims-faces-less"),
    _on_molecules(
        SPURIOUS, PAPER, "robustness", "nuisance coefficient", 20, "robustness-spurious-molecules", spurious="tied",
        figure="robustness-organisation-molecules",
    ),
    _on_faces(SPURIOUS, "nuisance coefficient", spurious="tied", link="robustness-spurious-faces"),
)  # fmt: skip

#: On the same faces, beside the primary ones.
_BESIDE = tuple(
    Claim(
        text, PAPER, "face_sets", "synthetic", "standard", method, baseline, effect,
        "robustness-spurious-faces" if text in (ORGANISED, NO_LONGER) else "claims-faces",
        spurious="tied" if text in (ORGANISED, NO_LONGER) else None, n_seeds=16,
    )
    for text, effect, method, baseline in (
        (BEATS, "difference", _FROZEN, "L1 end to end"),
        (BEATS, "difference", _FROZEN, protocols.end_to_end("synthetic")),
        (GROWTH, "growth", _TUNED, _CLOSED),
        (ORGANISED, "organisation", _TUNED, _CLOSED),
        (NO_LONGER, "difference", _TUNED, _CLOSED),
        (UNLIKE, "new people", _TUNED, _CLOSED),
    )
)  # fmt: skip


def steps(profile: str = "paper") -> dict[str, list[Run]]:
    """The runs that verdicts rest on, in the order in which they are made, by what they are for.

    Those of one seed follow each other, so that a session that ends early leaves whole pairs. Each step is made on one
    machine, so runs that are compared with each other are in one step.

    Parameters
    ----------
    profile : {'paper', 'quick', 'smoke'}
    """
    from rnclib.chapters import experiments, runs_of

    def of(experiment: str, dataset: str, n_seeds: int | None = None) -> list[Run]:
        return experiments()[experiment].runs(dataset=dataset, profile=profile, n_seeds=n_seeds)

    def needed(*experiments: str, dataset: str) -> list[Run]:
        claims = [claim for claim in PRIMARY if claim.experiment in experiments and claim.dataset == dataset]
        return list(dict.fromkeys(run for claim in claims for run in runs_of(claim, profile)))

    faces = needed("face_sets", dataset="synthetic")
    whole = [run for run in faces if run.data.fraction is None and run.data.holes is None]
    primary = set(faces)
    every = {
        "ESOL": needed("esol", dataset="esol"),
        "faces": [run for run in whole if run.data.spurious != "untied"],
        "faces without a spurious correlation": whole,  # with networks that are trained by then
        "faces, fewer": faces,
        "ESOL, shifts": needed("robustness", dataset="esol"),
        "faces, other settings": [run for run in of("face_sets", "synthetic") if run not in primary],
        "ESOL, fewer": of("data_efficiency", "esol", n_seeds=22 if profile == "paper" else None),
        "negative control": of("control", "esol"),
        "crossed": of("crossed", "esol"),
        "ESOL, all methods": of("esol", "esol"),
    }
    return {name: sorted(runs, key=lambda run: run.seed) for name, runs in every.items()}


#: What must not hold: there is nothing to learn.
CONTROLS: tuple[Claim, ...] = tuple(
    Claim("lower error than the other, with nothing to learn", "nobody", "control", "esol", "random", method, baseline,
          "difference", "claims-control")
    for method, baseline in (
        *((method, "training mean") for method in (_END_TO_END, _FROZEN, "RnC fine-tuned, L1")),
        (_FROZEN, _END_TO_END), ("RnC fine-tuned, L1", _END_TO_END),
    )
)  # fmt: skip

_EXPERIMENTS = (
    Experiment(
        "face_sets", face_sets, ("synthetic",), n_seeds={"images": {"paper": 16, "quick": 2, "smoke": 1}},
        options={"choice": ("all", "spurious")},
    ),
    Experiment("control", control, MOLECULES, n_seeds={"molecules": {"paper": 10, "quick": 2, "smoke": 1}}),
    Experiment("crossed", crossed, MOLECULES, n_seeds={"molecules": {"paper": 5, "quick": 2, "smoke": 1}}),
)  # fmt: skip

CHAPTER = Chapter(
    "claims",
    tables=(
        "claims-esol", "claims-synthetic", "claims-power", "claims-faces", "claims-faces-less", "claims-all",
        "claims-errors-one", "claims-errors-family", "claims-control", "claims-variance", "claims-machines",
    ),
    figures=("claims-forest",), experiments=_EXPERIMENTS,
    claims=(*PRIMARY, *_BESIDE),
    origins={
        "claims-forest": Origin(judged={"primary": (True,)}),
        "claims-esol": Origin(judged={"primary": (True,), "dataset": ("esol",)}),
        "claims-synthetic": Origin(judged={"primary": (True,), "dataset": ("synthetic",)}),
        **dict.fromkeys(("claims-power", "claims-all"), Origin(judged={})),
        "claims-faces": Origin(("face_sets",), where={"corruptions": True}),
        "claims-faces-less": Origin(judged={"text": (LESS, UNSEEN), "dataset": ("synthetic",), "primary": (True,)}),
        **dict.fromkeys(("claims-errors-one", "claims-errors-family"), Origin(measured="simulation")),
        "claims-control": Origin(("control",)),
        "claims-variance": Origin(("crossed",)),
        "claims-machines": Origin(("esol",), archived=True),
    },
)  # fmt: skip
