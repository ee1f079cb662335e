"""Files that are written whole or not at all, and folders that one process changes at a time."""

from __future__ import annotations

import json
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

__all__ = ["alone", "check_writable", "finite_json", "whole"]


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A draft to write to, which takes the place of a file at the end: nobody ever sees a part of it.

    Where that fails, the file stays as it was, and the error names it.

    Parameters
    ----------
    path : Path
        Of the file; its folder is there.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.tmp")
    try:
        yield draft
        os.replace(draft, path)
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(draft)):  # a full disk names no file
            raise OSError(error.errno, error.strerror, str(path)) from error
        raise
    finally:
        with suppress(OSError):
            draft.unlink()


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Keep other processes that ask for the same out of a folder; a process that is killed asks no longer.

    Parameters
    ----------
    folder : Path
        It is there.
    """
    try:
        import fcntl
    except ModuleNotFoundError:  # on Windows
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def check_writable(folder: Path, name: str, what: str) -> None:
    """Find a folder writable, and make it where there is none, before hours of work rather than after.

    Parameters
    ----------
    folder : Path
    name : str
        Of the setting that it comes from.
    what : str
        It is for.

    Raises
    ------
    OSError
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except (OSError, ValueError) as error:  # the latter for a name that no folder can have
        why = getattr(error, "strerror", None) or error
        got = str(folder)[:200]
        raise OSError(f"{name}: got {got}, which cannot be written ({why}); allowed: a folder for {what}") from None


def finite_json(text: str) -> Any:
    """What a text says in JSON, where the names of numbers that are not finite are none.

    Parameters
    ----------
    text : str

    Raises
    ------
    ValueError
    """

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no finite number")

    return json.loads(text, parse_constant=refuse)
