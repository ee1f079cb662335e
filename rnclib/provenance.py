"""On what a run is made: processor, threads, versions and commit, as its record has them."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path
from typing import Any

import torch

from rnclib import results
from rnclib.fitting import processes

__all__ = ["circumstances", "here"]

_VERSIONS_OF = (
    "torch", "torch-geometric", "torchvision", "numpy", "scipy", "scikit-learn", "rdkit", "pillow", "lightning-fabric",
    "optuna", "catboost", "chemprop",
)  # fmt: skip


def circumstances(device: str) -> dict[str, Any]:
    """What a record says of the machine, the code and the packages that made it.

    Parameters
    ----------
    device : str
        See `rnclib.fitting.Execution`.
    """
    on_gpu = device in ("cuda", "auto") and torch.cuda.is_available()
    gpu = {"gpu": torch.cuda.get_device_name()} if on_gpu else {}
    commit, clean = results.commit()
    cpu = platform.machine()
    if (info := Path("/proc/cpuinfo")).is_file():
        models = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        cpu = models[0] if models else cpu
    versions = {"python": platform.python_version()}
    for package in _VERSIONS_OF:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "commit": commit, "clean": clean, "device": device, "cpu": cpu, **gpu,
        "threads": torch.get_num_threads(), "processes": processes()[0], "versions": versions,
    }  # fmt: skip


def here(device: str = "cpu") -> tuple[str, str]:
    """This machine, as `rnclib.results.machine` gives that of a record.

    Parameters
    ----------
    device : str
    """
    return results.machine({"run": circumstances(device)})
