"""The check of notebook parameters: what passes, what ends a notebook, and how soon."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rnclib.parameters import ParameterError, check_parameters

ROOT = Path(__file__).resolve().parents[1]

RULES = {
    "loss": ["all", "l1", "l2"],
    "n_seeds": [None, (1, 100)],
    "temperature": (0.01, 100.0),
    "folder": [None, str],
    "refresh": bool,
    "rate": float,
}
GOOD = {"loss": "l1", "n_seeds": None, "temperature": 2, "folder": None, "refresh": False, "rate": 1}


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"n_seeds": 1},
        {"n_seeds": np.int64(100)},
        {"temperature": 0.01},
        {"folder": "here"},
        {"rate": 0.5},
        {"In": ["", "x = 1", '# Parameters\nloss = "l2"\n']},
        {"In": ["", "stray = 3"], "stray": 3},
        {"pd": pd, "_": 4},
    ],
)
def test_allowed_parameters_pass(change):
    assert check_parameters({**GOOD, **change}, **RULES) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": "l3"}, "loss: got 'l3'.*; allowed: 'all', 'l1' or 'l2'$"),
        ({"loss": 1}, "loss: got 1; allowed"),
        ({"n_seeds": 0}, "n_seeds: got 0; allowed: None or an integer from 1 to 100"),
        ({"n_seeds": 5.0}, "n_seeds: got 5.0"),
        ({"n_seeds": True}, "n_seeds: got True"),
        ({"n_seeds": "5"}, "n_seeds: got '5'"),
        ({"temperature": 0}, "temperature: got 0; allowed: a number from 0.01 to 100.0"),
        ({"temperature": float("nan")}, "temperature: got nan"),
        ({"folder": 3}, "folder: got 3; allowed: None or a text"),
        ({"refresh": "true"}, "refresh: got 'true'; allowed: True or False"),
        ({"refresh": 1}, "refresh: got 1"),
        ({"rate": float("inf")}, "rate: got inf; allowed: a finite number"),
        ({"rate": True}, "rate: got True"),
        (
            {"In": ["", "# Parameters\nlos = 'l2'\n"]},
            r"unknown parameter 'los' \(did you mean 'loss'\?\); allowed: loss",
        ),
        ({"loss": "huber"}, "loss: got 'huber'; allowed: 'all', 'l1' or 'l2'$"),  # nothing comes near
        ({"loss": "l3", "n_seeds": 0}, r"loss: got .* \| n_seeds: got"),
    ],
)
def test_other_parameters_end_the_notebook_with_one_line(change, message):
    with pytest.raises(ParameterError, match=message) as caught:
        check_parameters({**GOOD, **change}, **RULES)
    assert "\n" not in str(caught.value)
    assert all("; allowed: " in problem for problem in str(caught.value).split(" | "))
    assert caught.value._render_traceback_() == [f"ParameterError: {caught.value}"]


def test_a_parameter_without_a_default_is_named():
    with pytest.raises(ParameterError, match="parameter 'loss' is not set"):
        check_parameters({}, loss=str)


def test_the_check_waits_for_nothing_but_the_standard_library():
    code = """
import sys
import rnclib.parameters
print(sorted({name.partition(".")[0] for name in sys.modules} - sys.stdlib_module_names - {"__main__"}))
"""
    started = time.monotonic()
    run = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert run.stdout.strip() == "['rnclib']"
    assert time.monotonic() - started < 5


def test_the_package_still_offers_the_loss():
    import rnclib
    from rnclib.loss import RnCLoss

    assert rnclib.RnCLoss is RnCLoss
    assert set(rnclib.__all__) <= set(dir(rnclib))
    with pytest.raises(AttributeError, match="'rnclib' has no attribute 'RncLoss'"):
        _ = rnclib.RncLoss
