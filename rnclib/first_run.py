"""What ``make report`` says: how long it will take and on which data, and in the end what it found.

``python -m rnclib.first_run`` says the one before the first chapter, and with ``found`` the other after the last.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from rnclib import results
from rnclib.chapters import NAMES, chapter, experiments
from rnclib.data import catalogue

__all__ = ["PASS", "found", "minutes", "outlook", "pace"]

PROFILE = "quick"
#: Seconds in which a processor passes a thousand samples through a network, by kind of inputs and side in pixels.
#: Means over the committed records, nearly all from processors (AMD EPYC) on which `pace` takes `_REFERENCE` seconds.
PASS = {("molecules", None): 0.08, ("images", 32): 0.13, ("images", 64): 0.50}
_TABLE = 0.01  # of a table, for its small networks
_REFERENCE = 0.13
_RUN = 0.6  # of a run beside its passes: taking the samples, fitting what stands on a network, predicting
# of a processor: starting a notebook and drawing its figures; chapters that measure or train without records; the book
_START, _OTHERS, _BOOK = 7.0, {"your_data": 25.0, "benchmark": 65.0}, 60.0
# face sets are trained by another chapter than the one that has them, these two by rnclib.protocols alone
_TRAINED_IN, _ELSEWHERE = {"face_sets": "robustness"}, ("control", "crossed")


def pace() -> float:
    """How long this machine takes for a training of a fraction of a second, in multiples of those that `PASS` is from.

    Other work on the machine counts: it slows down the chapters too.
    """
    import torch

    def train() -> float:
        layers = [torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 256), torch.nn.Linear(256, 1)]
        network = torch.nn.Sequential(*layers)
        optimiser = torch.optim.SGD(network.parameters(), lr=0.01)
        inputs, targets = torch.randn(256, 64), torch.randn(256, 1)
        started = time.perf_counter()
        for _ in range(100):
            optimiser.zero_grad()
            (network(inputs) - targets).abs().mean().backward()
            optimiser.step()
        return time.perf_counter() - started

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        train()  # the first one starts more than itself
        return sorted(train() for _ in range(5))[2] / _REFERENCE
    finally:
        torch.set_num_threads(threads)


def minutes(molecules: str, *, processors: int = 1, pace: float = 1.0) -> dict[str, float]:
    """Estimate how long the first run of each chapter takes, and ``book`` to build the book.

    Runs that the store holds cost nothing.

    Parameters
    ----------
    molecules : {'esol', 'standin'}
        Data set of the chapters that have molecules.
    processors : int
        Runs are shared out among them.
    pace : float
        See `pace`.
    """
    trained: dict[str, float] = dict.fromkeys(NAMES, 0.0)
    seen: set[object] = set()
    for name in NAMES:
        for experiment in chapter(name).experiments:
            if experiment.name not in _ELSEWHERE:
                trained[_TRAINED_IN.get(experiment.name, name)] += _seconds(name, experiment.name, molecules, seen)
    alone = {name: _OTHERS.get(name, _START) for name in NAMES}
    found = {name: pace * (alone[name] + trained[name] / processors) / 60 for name in NAMES}
    return found | {"book": pace * _BOOK / 60}


def _seconds(name: str, experiment: str, molecules: str, seen: set[object]) -> float:
    """What the runs of an experiment that the store lacks take on one processor.

    A network that several runs share is trained for the first of them; `seen` has those of earlier chapters.
    """
    from rnclib.experiment import shared, work

    quick = chapter(name).quick
    options = {"split": quick["split"]} if "split" in quick else {}
    total = 0.0
    for dataset in quick.get("tasks", "esol,synthetic").split(","):
        if dataset not in experiments()[experiment].datasets:
            continue
        source = catalogue.source(dataset)
        runs = experiments()[experiment].runs(dataset=dataset, profile=PROFILE, **options)
        took = _RUN * len(runs)
        for run in runs:
            network = dataset, run.data.n_samples, run.data.size, run.recipe.model, shared(run)
            if network not in seen:
                seen.add(network)
                size = 0.8 * (run.data.n_samples or source.n_samples or 0) / 1000
                took += work(run) * size * PASS.get((source.kind, run.data.size), _TABLE)
        own = molecules if dataset == "esol" and "tasks" not in quick else dataset  # the stand-in is of the same size
        stored = results.load(results.results_dir(), profile=PROFILE, experiment=experiment, dataset=own)
        total += took * max(0.0, 1 - len(stored) / len(runs))
    return total


def outlook() -> str:
    """On which data the chapters will be, and how long they will take on this machine."""
    molecules, said = "esol", f"{catalogue.source('esol').title}, measured"
    try:
        catalogue.load("esol")
    except FileNotFoundError as error:
        molecules = next(one.name for one in catalogue.SOURCES.values() if one.stands_in_for == "esol")
        said = f"generated ones, a stand-in for ESOL: errors on them say nothing about ESOL. {error}"
    processors, speed = os.cpu_count() or 1, pace()
    each = minutes(molecules, processors=processors, pace=speed)
    total = max(1, round(sum(each.values())))
    parts = ", ".join(f"{name} {m:.0f}" if m >= 1 else f"{name} <1" for name, m in each.items())
    on = "1 processor" if processors == 1 else f"{processors} processors"
    return "\n".join(
        [
            f'This machine now trains a short version of each chapter (profile "{PROFILE}"), then builds the book.',
            f"Molecules: {said}",
            "Faces: synthetic, not photographs.",
            f"Time: about {total} min on {on}. A short trial took {speed:.1f} times as long here and now as where the "
            "published runs were made.",
            f"In minutes: {parts}. Runs that are stored are not trained again.",
        ]
    )


def found(book: Path) -> str:
    """In three lines: errors on molecules in the short runs, what these are worth, and where the book is.

    Parameters
    ----------
    book : Path
        Its first page.
    """
    root = results.results_dir()
    at_hand = [
        one for one in ("esol", "standin") if results.exists(root, profile=PROFILE, experiment="esol", dataset=one)
    ]
    first = _errors(at_hand[0]) if at_hand else "No short runs on molecules are stored."
    worth = "Published numbers rest on the full ones." if at_hand else "Published numbers rest on full runs."
    return "\n".join(
        [
            first,
            f'These are short trainings on few splits (profile "{PROFILE}"), to try things out. {worth}',
            f"The book, with your numbers beside the published ones: {book}",
        ]
    )


def _errors(dataset: str) -> str:
    from rnclib.notebook import stored
    from rnclib.statistics import compare, summarise

    study = stored("esol", dataset, PROFILE, complete=False)
    study = study and study.where(split="random")
    baseline, ours = "L1 end to end", ("RnC frozen, L1", "RnC fine-tuned, L1")
    title = catalogue.source(dataset).title
    if study is None or not {baseline, *ours} <= set(study.methods):
        return f"{title}: not all short runs are stored."
    errors: Mapping[str, float] = summarise(study.frame, "test_mae")["mean"]
    differences = compare(study.frame, "test_mae", baseline, ours)
    said = [
        f"{errors[one]:.3f} {one} ({row['mean']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}])"
        for one, row in differences.iterrows()
    ]
    return (
        f"{title}, {study.n} random splits: test MAE {errors[baseline]:.3f} {baseline}, {', '.join(said)}, "
        "in standard deviations of the target (difference from end to end with its 95% interval)."
    )


if __name__ == "__main__":
    print(found(Path.cwd() / "_build" / "html" / "index.html") if sys.argv[1:] == ["found"] else outlook(), flush=True)
