"""Processes to be killed, disks to be filled, and the runs of a fraction of a second that they are at."""

from __future__ import annotations

import builtins
import errno
import gc
import io
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from worlds import table

from rnclib import training
from rnclib.data import Dataset, Split, catalogue
from rnclib.experiment import Run, Selection
from rnclib.grid import Grid, run_grid
from rnclib.recipe import Recipe, Stage

STAGE = Stage("l1", epochs=6, batch_size=16, learning_rate=0.05, lr_decay_rate=0.1, weight_decay=0.0)


def load_numbers() -> Dataset:
    samples = table(60)
    split = Split(train=np.arange(40), val=np.arange(40, 50), test=np.arange(50, 60))
    return Dataset(samples.inputs, samples.targets, "abc", {"random": lambda seed: split})


NUMBERS = catalogue.Source(
    "numbers", "Numbers", "table", "rows", "kWh", ("random",), True, "Numbers.", "none", load_numbers
)  # fmt: skip


def number_runs(n: int = 3, **stage: Any) -> list[Run]:
    recipe = Recipe("perceptron", fit=replace(STAGE, **stage), widths=(8,))
    return [Run("numbers", "smoke", "L1", seed, Selection("numbers", "random"), recipe) for seed in range(n)]


def carry(runs: list[Run], root: Path, **options: Any) -> Grid:
    return run_grid(runs, results_dir=root, **{"progress": False} | options)


def in_store(root: Path) -> dict[str, bytes]:
    """What is there, but for drafts of those that were killed."""
    return {path.name: path.read_bytes() for path in root.rglob("*") if path.is_file() and path.suffix != ".tmp"}


# --- processes -----


def soon(found: Callable[[], Any], seconds: float = 120) -> Any:
    """What a function finds, as soon as that is true."""
    until = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < until, "it has not come"
        time.sleep(0.01)
    return value


def in_child(do: Callable[..., None], given: tuple[Any, ...], cache: Path, said: Path) -> None:
    os.setsid()
    with said.open("w") as file:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
    os.environ["RNC_CACHE"] = str(cache)
    os.environ.pop("RNC_ENGINE", None)
    torch.set_num_threads(1)
    gc.freeze()
    catalogue.SOURCES["numbers"] = NUMBERS
    do(*given)


class Child:
    """A process that does something in a session of its own."""

    def __init__(self, process: Any, said: Path) -> None:
        self.process, self.where = process, said

    @property
    def said(self) -> str:
        return self.where.read_text()

    def session(self) -> list[int]:
        """All processes of its session."""
        found = []
        for name in filter(str.isdecimal, os.listdir("/proc")):
            with suppress(OSError):
                if (
                    os.getsid(int(name)) == self.process.pid
                    and "(zombie)" not in Path(f"/proc/{name}/status").read_text()
                ):
                    found.append(int(name))
        return found

    def end(self) -> int:
        self.process.join(120)
        assert self.process.exitcode is not None, f"it goes on: {self.said}"
        return self.process.exitcode


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_within(name: str, end: str) -> None:
    """Be killed when a method of Path has written half of a file whose name has a certain end."""
    write = getattr(Path, name)

    def half(path, content, **options):
        if f"{end}." not in path.name:
            return write(path, content, **options)
        write(path, content[: len(content) // 2], **options)
        die()

    setattr(Path, name, half)


def die_before_replacing(end: str) -> None:
    move = os.replace
    os.replace = lambda one, other: die() if str(other).endswith(end) else move(one, other)


def die_in_epoch(number: int) -> None:
    inner = training._Loop.run_epoch
    training._Loop.run_epoch = lambda loop, epoch: die() if epoch == number else inner(loop, epoch)


# --- disks ----


def no_space(*names: Path) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *map(str, names))


class Disk:
    """A small disk, or a folder that behaves like one."""

    def __init__(self, folder: Path, mounted: bool, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.mounted, self.patch = folder, mounted, patch

    @contextmanager
    def full(self) -> Iterator[None]:
        if self.mounted:
            ballast = self.folder / "ballast"
            with ballast.open("wb", buffering=0) as file, suppress(OSError):
                while file.write(bytes(4096)) == 4096:
                    pass
            yield
            ballast.unlink()
            return
        real = io.open

        def opened(file, mode="r", *rest, **options):
            inside = isinstance(file, str | os.PathLike) and Path(file).is_relative_to(self.folder)
            return real("/dev/full" if inside and set(mode) & set("wax+") else file, mode, *rest, **options)

        with self.patch.context() as patch:
            for module in (io, builtins):
                patch.setattr(module, "open", opened)
            yield
