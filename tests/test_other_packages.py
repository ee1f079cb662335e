"""Models of other packages: that they learn, repeat themselves, and leave everything else as it was."""

from __future__ import annotations

import logging
import os
import random
import sys
import warnings

import numpy as np
import pytest
import torch
from worlds import molecules

from rnclib import other_packages, recipe
from rnclib.data.molecules import Molecules
from rnclib.fitting import Samples, fit
from rnclib.recipe import Recipe

DATA = molecules()
TRAIN, VAL = (Samples(DATA.inputs.take(range(*ends)), DATA.targets[slice(*ends)]) for ends in ((0, 64), (64, 88)))


def test_every_package_of_a_recipe_can_be_fitted():
    assert tuple(other_packages.PACKAGES) == tuple(recipe.PACKAGES)


def circumstances() -> list:
    loggers = [(name, logging.getLogger(name).level) for name in ("lightning.pytorch", "lightning.fabric", "chemprop")]
    return [
        torch.get_rng_state().tolist(), torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(),
        torch.is_grad_enabled(), torch.get_default_dtype(), random.getstate(),
        str(np.random.get_state()),  # noqa: NPY002
        list(warnings.filters), loggers, dict(os.environ),
    ]  # fmt: skip


@pytest.mark.slow
def test_chemprop_learns_repeats_itself_and_leaves_nothing_behind(monkeypatch, tmp_path, capfd, caplog):
    pytest.importorskip("chemprop")
    import lightning.pytorch  # noqa: F401  (what an import changes is not what training changes)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(os, "cpu_count", lambda: 16)  # where Lightning would ask for more processes
    caplog.set_level(logging.INFO)
    before = circumstances()
    first = fit(Recipe("chemprop"), TRAIN, VAL, seed=3)
    predicted = first.predict(DATA.inputs.take(range(65)))  # in batches of 64
    assert circumstances() == before and not list(tmp_path.iterdir())
    assert capfd.readouterr() == ("", "") and not caplog.records
    assert predicted.shape == (65,) and predicted.dtype == np.float64
    errors, spread = np.abs(predicted[:64] - TRAIN.targets), np.abs(TRAIN.targets - TRAIN.targets.mean())
    assert errors.mean() < 0.8 * spread.mean()
    assert [stage.name for stage in first.stages] == ["chemprop"] and first.stages[0].history.wall_time > 0
    assert first.features(TRAIN.inputs) is None
    torch.manual_seed(7)
    again = fit(Recipe("chemprop"), Samples(Molecules(TRAIN.inputs.smiles), TRAIN.targets), VAL, seed=3)
    np.testing.assert_array_equal(again.predict(TRAIN.inputs), predicted[:64])


def test_what_the_missing_package_would_do_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "chemprop", None)
    with pytest.raises(ModuleNotFoundError, match=r"^model: got 'chemprop'; allowed: with the package, pip install"):
        fit(Recipe("chemprop"), TRAIN, VAL, seed=0)
