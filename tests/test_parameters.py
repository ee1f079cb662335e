"""The check of notebook parameters: what passes, what ends a notebook, and how soon."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from rnclib.parameters import Folder, ParameterError, check_parameters

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
        ({"refresh": "tru"}, "refresh: got 'tru'; allowed: True or False"),
        ({"refresh": "yes"}, "refresh: got 'yes'; allowed: True or False"),
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


@pytest.mark.parametrize(("text", "meant"), [("true", True), ("True", True), ("false", False), ("FALSE", False)])
def test_true_and_false_as_the_shell_has_them_become_what_they_mean(text, meant):
    given = {**GOOD, "refresh": text, "folder": text}
    check_parameters(given, **RULES)
    assert given["refresh"] is meant
    assert given["folder"] == text  # a text where a text is asked for


def test_a_folder_is_made_or_refused_with_the_name_of_the_parameter(tmp_path):
    rule = {"results_dir": [None, Folder]}
    check_parameters({"results_dir": None}, **rule)
    check_parameters({"results_dir": str(tmp_path / "a" / "b")}, **rule)
    assert (tmp_path / "a" / "b").is_dir() and not list((tmp_path / "a" / "b").iterdir())
    (tmp_path / "file").write_text("kept")
    for place in (
        tmp_path / "file",
        tmp_path / "file" / "below",
        Path("/proc"),
        Path("/proc/store"),
        "a\0b",
        "x" * 300,
    ):
        with pytest.raises(
            ParameterError, match=r"^results_dir: got .*, which cannot be written .*; allowed: a folder"
        ):
            check_parameters({"results_dir": str(place)}, **rule)
    assert (tmp_path / "file").read_text() == "kept"
    for value in ("", 3, True):
        with pytest.raises(ParameterError, match=rf"^results_dir: got {value!r}; allowed: None or a folder$"):
            check_parameters({"results_dir": value}, **rule)


def test_no_folder_is_made_for_parameters_that_are_refused(tmp_path):
    with pytest.raises(ParameterError, match=r"^loss: got"):
        check_parameters({"place": str(tmp_path / "new"), "loss": "l3"}, place=Folder, loss=["l1"])
    assert not (tmp_path / "new").exists()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(ParameterError, match=r"^place: got .*Permission denied"):
            check_parameters({"place": str(tmp_path / "new")}, place=Folder)
    finally:
        tmp_path.chmod(0o700)


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
