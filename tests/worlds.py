"""Small runs and data that the tests of several modules share."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from rnclib import training
from rnclib.chapters import experiments
from rnclib.data import Dataset, catalogue, esol
from rnclib.experiment import Run
from rnclib.recipe import Stage
from rnclib.training import Samples


@functools.lru_cache
def molecules() -> Dataset:
    """A stand-in of 120 molecules."""
    return esol.load_standin(120)


def put(monkeypatch: pytest.MonkeyPatch, name: str, loader: Callable[..., Dataset]) -> None:
    """Let a data set of the catalogue come from another loader, in this process."""
    monkeypatch.setitem(catalogue.SOURCES, name, replace(catalogue.SOURCES[name], loader=loader))


def molecule_runs(*methods: str, **changes: Any) -> list[Run]:
    """Runs on the stand-in by the names that records have for methods, with stages of three epochs."""
    names = {run.method: run for run in experiments()["esol"].runs(dataset="standin", profile="smoke", split="random")}
    found = []
    for method in methods:
        run = names[method]
        stages = {
            name: replace(stage, batch_size=32, epochs=3)
            for name in ("pretrain", "fit")
            if (stage := getattr(run.recipe, name)) is not None
        }
        found.append(run.but(**stages, **changes))
    return found


def face_runs(*methods: str, **changes: Any) -> list[Run]:
    """Runs on 120 synthetic faces of 16 pixels, with stages of one epoch; of all methods, if none is named."""
    names = {run.method: run for run in experiments()["agedb"].runs(dataset="synthetic", profile="smoke")}
    return [names[method].but(**changes) for method in methods or names]


def without_circumstances(record: dict[str, Any]) -> dict[str, Any]:
    """What must be equal in records of runs that are equal."""
    record = json.loads(json.dumps(record))
    del record["run"]
    for stage in record["stages"]:
        del stage["wall_time"]
    return record


def watch_training(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What each call of `train` by `fit` is given, as it happens."""
    from rnclib import networks

    seen: list[dict[str, Any]] = []

    def watched(model: Any, stage: Stage, samples: Samples, validation: Samples | None = None, **options: Any) -> Any:
        seen.append({"model": model, "stage": stage, "training": samples, "validation": validation} | options)
        return training.train(model, stage, samples, validation, **options)

    monkeypatch.setattr(networks, "train", watched)
    return seen


def forbid_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail if `fit` trains."""
    from rnclib import networks

    monkeypatch.setattr(networks, "train", lambda *_, **__: pytest.fail("it trained"))


def table(n: int = 60, seed: int = 0) -> Samples:
    """Numbers with targets around 50 that a small perceptron learns in a few epochs."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 4)).astype(np.float32)
    return Samples(x, 50 + 10 * (x @ np.array([1.0, -2.0, 0.5, 0.0]) + 0.3 * np.sin(2 * x[:, 3])))


def breaks_at_the_end(model, stage, *rest, **options):
    """Training of an encoder whose weights end as NaN, though its loss was finite; of other stages as it is."""
    history = training.train(model, stage, *rest, **options)
    if stage.loss == "rnc":
        with torch.no_grad():
            next(model.parameters()).fill_(torch.nan)
    return history


def check_public_file(monkeypatch: pytest.MonkeyPatch, module: Any, name: str) -> None:
    """A loader of a module asks for a file of a fixed commit with the checksum of the catalogue."""
    asked: list[Any] = []

    def ask(file, urls, sha256):
        asked.append((file, urls, sha256))
        raise FileNotFoundError("asked")

    monkeypatch.setattr(module, "public_file", ask)
    with pytest.raises(FileNotFoundError, match="asked"):
        catalogue.load(name)
    ((file, urls, sha256),) = asked
    assert sha256 == catalogue.SOURCES[name].sha256 and len(sha256) == 64 and file.count("/") == 1
    for url in urls:
        assert re.fullmatch(r"https://raw\.githubusercontent\.com/[\w-]+/[\w-]+/[0-9a-f]{40}/[\w./-]+", url)
        assert url.endswith(file.partition("/")[2])
