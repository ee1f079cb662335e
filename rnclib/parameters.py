"""The check of a notebook's parameters. It needs the standard library alone, so that a notebook fails in a second."""

from __future__ import annotations

import ast
import difflib
import math
import numbers
import reprlib
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rnclib.files import check_writable

__all__ = ["Folder", "ParameterError", "check_parameters", "in_one_line"]


class ParameterError(ValueError):
    """A notebook was given a parameter it does not know, or a value it does not take."""

    def _render_traceback_(self) -> list[str]:
        """Tell IPython to show the one line that matters, not the frames that led to it."""
        return [f"{type(self).__name__}: {self}"]


class Folder(str):
    """To `check_parameters`: a text that names a folder which can be written. It is made where there is none."""


def check_parameters(namespace: MutableMapping[str, Any], /, **allowed: Any) -> None:
    """End a notebook at once when a parameter is misspelt or has a value it does not take.

    Call it in the first cell after the one tagged ``parameters``, before any heavy import. papermill itself
    only warns about a name that the notebook does not know, runs to the end and exits 0.

    Parameters
    ----------
    namespace : mapping
        The notebook's ``globals()``. Where a parameter is True or False, the texts ``true`` and ``false`` are replaced
        by these, since papermill's ``-p refresh true`` sets a text.
    **allowed
        What each parameter may be:

        - a type, such as ``str``, ``bool``, ``float`` (which takes integers too) or `Folder`;
        - a tuple of two bounds, both included: ``(1, 100)`` for an integer, ``(0.01, 100.0)`` for any number;
        - a list of alternatives: values, types, bounds, such as ``["l1", "l2"]`` or ``[None, (1, 100)]``.

    Raises
    ------
    ParameterError
        With one line that says what came and what is allowed.

    Examples
    --------
    >>> loss, n_seeds = "l1", 5
    >>> check_parameters(globals(), loss=["all", "l1", "l2", "huber"], n_seeds=[None, (1, 100)])
    >>> check_parameters({"loss": "hubber"}, loss=["l1", "l2", "huber"])
    Traceback (most recent call last):
        ...
    rnclib.parameters.ParameterError: loss: got 'hubber' (did you mean 'huber'?); allowed: 'l1', 'l2' or 'huber'
    >>> check_parameters({"n_seeds": 0}, n_seeds=[None, (1, 100)])
    Traceback (most recent call last):
        ...
    rnclib.parameters.ParameterError: n_seeds: got 0; allowed: None or an integer from 1 to 100
    """
    for name, rule in allowed.items():
        if rule is bool and isinstance(text := namespace.get(name), str) and text.lower() in ("true", "false"):
            namespace[name] = text.lower() == "true"
    problems = []
    for name in _injected_names(namespace):
        if name not in allowed:
            problems.append(f"unknown parameter {_shown(name)}{_hint(name, allowed)}; allowed: {', '.join(allowed)}")
    for name, rule in allowed.items():
        if name not in namespace:
            problems.append(f"parameter {name!r} is not set in the cell tagged 'parameters'")
        elif not _fits(namespace[name], rule):
            value = namespace[name]
            problems.append(f"{name}: got {_shown(value)}{_hint(value, rule)}; allowed: {_describe(rule)}")
    if problems:
        raise ParameterError(" | ".join(problems))
    for name, rule in allowed.items():
        if namespace[name] is not None and Folder in (rule if isinstance(rule, list) else [rule]):
            with in_one_line():
                check_writable(Path(namespace[name]), name, "what the notebook writes")


@contextmanager
def in_one_line() -> Iterator[None]:
    """End a notebook with one line, where a file or a column that a parameter names is not as it should be.

    Raises
    ------
    ParameterError
        For a ValueError or OSError within.

    Examples
    --------
    >>> with in_one_line():
    ...     raise ValueError("target: got 'prise'; allowed: 'price'")
    Traceback (most recent call last):
        ...
    rnclib.parameters.ParameterError: target: got 'prise'; allowed: 'price'
    """
    try:
        yield
    except (OSError, ValueError) as error:
        raise ParameterError(str(error)) from None


def _injected_names(namespace: Mapping[str, Any]) -> list[str]:
    """Names set by the cell papermill adds, found in IPython's history by its first line."""
    names: dict[str, None] = {}
    history = namespace.get("In", [])
    if not isinstance(history, list):  # a parameter of that name has taken its place
        return ["In"]
    for source in history:
        if isinstance(source, str) and source.startswith("# Parameters\n"):
            try:
                body = ast.parse(source).body
            except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
                why = type(error).__name__
                raise ParameterError(f"parameters: got no Python ({why}); allowed: names and values") from None
            for node in body:
                if isinstance(node, ast.Assign):
                    names.update((target.id, None) for target in node.targets if isinstance(target, ast.Name))
    return list(names)


class _Short(reprlib.Repr):
    """On one line, and of a length to read."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = self.maxlong = 120

    def repr_int(self, x: int, level: int) -> str:
        return super().repr_int(x, level) if abs(x) < 10**200 else f"an integer of {x.bit_length()} bits"

    def repr_instance(self, x: Any, level: int) -> str:
        return " ".join(super().repr_instance(x, level).split())


_shown = _Short().repr


def _fits(value: Any, rule: Any) -> bool:
    if isinstance(rule, list):
        return any(_fits(value, one) for one in rule)
    if isinstance(rule, tuple):
        kind = numbers.Integral if all(isinstance(bound, int) for bound in rule) else numbers.Real
        return isinstance(value, kind) and not isinstance(value, bool) and rule[0] <= value <= rule[1]
    if isinstance(rule, type):
        if issubclass(rule, (int, float)) and isinstance(value, bool):
            return rule is bool
        if rule is Folder:
            return isinstance(value, str) and value != ""
        if rule is float:
            return isinstance(value, numbers.Real) and value == value and value not in (math.inf, -math.inf)
        return isinstance(value, rule)
    return type(value) is type(rule) and value == rule


def _describe(rule: Any) -> str:
    if isinstance(rule, list):
        words = [_describe(one) for one in rule]
        return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"
    if isinstance(rule, tuple):
        kind = "an integer" if all(isinstance(bound, int) for bound in rule) else "a number"
        return f"{kind} from {rule[0]} to {rule[1]}"
    if isinstance(rule, type):
        known = {str: "a text", bool: "True or False", int: "an integer", float: "a finite number", Folder: "a folder"}
        return known.get(rule, f"a {rule.__name__}")
    return repr(rule)


def _hint(given: Any, options: Any) -> str:
    if not isinstance(given, str) or not isinstance(options, (list, Mapping)):
        return ""
    close = difflib.get_close_matches(given, [one for one in options if isinstance(one, str)], n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
