"""What the tests share: a drawing backend without a window, and the measured data where a copy is at hand."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

os.environ.setdefault("MPLBACKEND", "Agg")
# the same examples on every machine, and no deadline: a loaded machine is slow, not wrong
settings.register_profile("rnclib", deadline=None, derandomize=True, database=None)
settings.load_profile("rnclib")

ESOL_FILE = "esol/raw/delaney-processed.csv"


@pytest.fixture(scope="session")
def esol():
    """The measured data set, which only a machine with a copy of it has."""
    root = os.environ.get("RNC_DATA")
    if not root:
        pytest.skip(f"RNC_DATA is unset: it should name a folder that holds {ESOL_FILE}")
    if not (Path(root) / ESOL_FILE).is_file():
        pytest.skip(f"RNC_DATA={root} does not hold {ESOL_FILE}")
    from rnclib.data.esol import load_esol

    return load_esol(urls=())
