"""Resident memory of this process, now and at its peak. Nothing but the standard library is needed."""

from __future__ import annotations

import ctypes
import gc
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Peak", "peak", "resident"]


def resident() -> tuple[int, int]:
    """Resident memory now and at its peak, in bytes; where the system does not tell the first, the peak for both."""
    status = Path("/proc/self/status")
    if status.is_file():  # not getrusage, whose peak a process inherits from the one that started it
        found = dict(re.findall(r"^(VmRSS|VmHWM):\s*(\d+) kB$", status.read_text(), re.MULTILINE))
        return int(found["VmRSS"]) * 1024, int(found["VmHWM"]) * 1024
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return most, most


@dataclass
class Peak:
    """What `peak` has measured.

    Attributes
    ----------
    bytes : int or None
        None where it cannot be measured.
    """

    bytes: int | None = None


@contextmanager
def peak() -> Iterator[Peak]:
    """The most memory that a block takes, above what the process holds before it.

    What earlier work has freed is given back to the system first, so that it does not hide what the block takes. That
    needs Linux with its usual C library.
    """
    found, before = Peak(), _from_here_on()
    yield found
    if before is not None:
        found.bytes = max(0, resident()[1] - before)


def _from_here_on() -> int | None:
    """Start a new peak; resident memory now, or None where that cannot be done."""
    gc.collect()
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # which resets the peak
    except (OSError, AttributeError, TypeError):
        return None
    return resident()[0]
