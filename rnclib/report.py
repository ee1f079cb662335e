"""What the notebooks need to become pages: parameter checks, tables, figures, notices, publishing.

Nothing here imports torch, and nothing heavier than the standard library is imported before it is used, so
a notebook can check its parameters in its second cell and fail within a second or two.

From the shell, ``python -m rnclib.report notebooks/esol.ipynb book/local/esol.ipynb -p profile quick`` runs
a notebook, cleans it and writes it to where the book reads it.
"""

from __future__ import annotations

import argparse
import ast
import base64
import difflib
import html
import io
import math
import numbers
import os
import re
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import nbformat
    import pandas as pd
    from matplotlib.figure import Figure as MatplotlibFigure

__all__ = [
    "DATA",
    "Figure",
    "Notice",
    "ParameterError",
    "Table",
    "check_parameters",
    "clean",
    "data_notice",
    "differences_table",
    "glue",
    "p_value",
    "publish",
]


# --- parameters -----------------------------------------------------------------------------------------


class ParameterError(ValueError):
    """A notebook was given a parameter it does not know, or a value it does not take."""

    def _render_traceback_(self) -> list[str]:
        """Tell IPython to show the one line that matters, not the frames that led to it."""
        return [f"{type(self).__name__}: {self}"]


def check_parameters(namespace: Mapping[str, Any], /, **allowed: Any) -> None:
    """End a notebook at once when a parameter is misspelt or has a value it does not take.

    Call it in the first cell after the one tagged ``parameters``, before any heavy import. papermill itself
    only warns about a name that the notebook does not know, runs to the end and exits 0.

    Parameters
    ----------
    namespace : mapping
        The notebook's ``globals()``.
    **allowed
        What each parameter may be:

        - a type, such as ``str``, ``bool`` or ``float`` (which takes integers too);
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
    rnclib.report.ParameterError: loss: got 'hubber' (did you mean 'huber'?); allowed: 'l1', 'l2' or 'huber'
    >>> check_parameters({"n_seeds": 0}, n_seeds=[None, (1, 100)])
    Traceback (most recent call last):
        ...
    rnclib.report.ParameterError: n_seeds: got 0; allowed: None or an integer from 1 to 100
    """
    problems = []
    for name in _injected_names(namespace):
        if name not in allowed:
            problems.append(f"unknown parameter {name!r}{_hint(name, allowed)}; allowed: {', '.join(allowed)}")
    for name, rule in allowed.items():
        if name not in namespace:
            problems.append(f"parameter {name!r} is not set in the cell tagged 'parameters'")
        elif not _fits(namespace[name], rule):
            value = namespace[name]
            problems.append(f"{name}: got {value!r}{_hint(value, rule)}; allowed: {_describe(rule)}")
    if problems:
        raise ParameterError(" | ".join(problems))


def _injected_names(namespace: Mapping[str, Any]) -> list[str]:
    """Names set by the cell papermill adds, found in IPython's history by its first line."""
    names: dict[str, None] = {}
    for source in namespace.get("In", ()):
        if isinstance(source, str) and source.startswith("# Parameters\n"):
            for node in ast.parse(source).body:
                if isinstance(node, ast.Assign):
                    names.update((target.id, None) for target in node.targets if isinstance(target, ast.Name))
    return list(names)


def _fits(value: Any, rule: Any) -> bool:
    if isinstance(rule, list):
        return any(_fits(value, one) for one in rule)
    if isinstance(rule, tuple):
        kind = numbers.Integral if all(isinstance(bound, int) for bound in rule) else numbers.Real
        return isinstance(value, kind) and not isinstance(value, bool) and rule[0] <= value <= rule[1]
    if isinstance(rule, type):
        if issubclass(rule, (int, float)) and isinstance(value, bool):
            return rule is bool
        if rule is float:
            return isinstance(value, numbers.Real) and math.isfinite(value)
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
        known = {str: "a text", bool: "True or False", int: "an integer", float: "a finite number"}
        return known.get(rule, f"a {rule.__name__}")
    return repr(rule)


def _hint(given: Any, options: Any) -> str:
    if not isinstance(given, str) or not isinstance(options, (list, Mapping)):
        return ""
    close = difflib.get_close_matches(given, [one for one in options if isinstance(one, str)], n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


# --- what a notebook shows ------------------------------------------------------------------------------


class Table:
    """A numbered, captioned table: plain HTML in Jupyter, a native table in the book.

    Put it last in a cell, or hand it to ``display``. In the text, ``{numref}`` followed by its name refers to
    it.
    Numbers stand right-aligned, missing values are a dash, the same frame always gives the same text.

    Parameters
    ----------
    frame : pandas.DataFrame
        One row per line; the index is not shown (use ``reset_index``).
    caption : str
        One sentence or more, Markdown; say what the numbers are, their unit and how many runs they rest on.
    name : str
        Label for cross-references: lower-case letters, digits and hyphens, unique in the book.
    columns : mapping or list, optional
        Columns to show, in order; a mapping gives their headings, ``{"mae": "MAE"}``.
    format : str or mapping, optional
        A format specification such as ``".3f"`` for every float column, or a mapping from column to a
        specification or a function of the value. Floats are given three decimals without it.
    align : mapping, optional
        ``"left"`` or ``"right"`` by column; otherwise columns of numbers, those with a format of their own
        and those whose cells begin with a number are right-aligned.

    Examples
    --------
    >>> import pandas as pd
    >>> frame = pd.DataFrame({"method": ["L1", "RnC"], "mae": [0.25, None], "n": [20, 3]})
    >>> table = Table(frame, "Test error.", name="demo", columns={"method": "Method", "mae": "MAE"})
    >>> print(table.markdown())
    :::{table} Test error.
    :name: demo
    <BLANKLINE>
    | Method |   MAE |
    |:-------|------:|
    | L1     | 0.250 |
    | RnC    |     – |
    :::
    """

    def __init__(
        self,
        frame: pd.DataFrame,
        caption: str,
        *,
        name: str,
        columns: Mapping[str, str] | Sequence[str] | None = None,
        format: str | Mapping[str, str | Callable[[Any], str]] | None = None,
        align: Mapping[str, str] | None = None,
    ) -> None:
        if getattr(frame, "ndim", None) != 2 or not hasattr(frame, "columns"):
            raise ValueError(f"frame: got {type(frame).__name__}; allowed: a pandas.DataFrame")
        if frame.columns.nlevels > 1 or not frame.columns.is_unique:
            raise ValueError(
                f"frame: got columns {list(frame.columns)[:6]}; allowed: one level of distinct names "
                "(flatten them, or make one table of each group)"
            )
        self.caption = _one_line(caption, "caption")
        self.name = _label(name)
        if columns is None:
            headings = {column: str(column) for column in frame.columns}
        elif isinstance(columns, Mapping):
            headings = dict(columns)
        else:
            headings = {column: str(column) for column in columns}
        everywhere = format if isinstance(format, str) else ".3f"
        formats = dict(format) if isinstance(format, Mapping) else {}
        sides = dict(align or {})
        for argument, given in (("columns", headings), ("format", formats), ("align", sides)):
            missing = [column for column in given if column not in frame.columns]
            if missing:
                raise ValueError(f"{argument}: got {missing}; allowed: columns of frame, {list(frame.columns)}")
        for column, side in sides.items():
            if side not in ("left", "right"):
                raise ValueError(f"align[{column!r}]: got {side!r}; allowed: 'left', 'right'")
        self.headings = [_one_line(heading, "a column heading") for heading in headings.values()]
        shown = [
            [_cell(value, formats.get(column, everywhere), column) for value in frame[column]] for column in headings
        ]
        self.sides = [
            sides.get(column) or ("right" if column in formats or _are_numbers(frame[column], cells) else "left")
            for column, cells in zip(headings, shown, strict=True)
        ]
        self.rows = [list(row) for row in zip(*shown, strict=True)]

    def markdown(self) -> str:
        """Return the table as a MyST directive, as the book reads it."""
        head = [_pipes(heading) for heading in self.headings]
        body = [[_pipes(cell) for cell in row] for row in self.rows]
        widths = [max(3, *(len(row[i]) for row in [head, *body])) for i in range(len(head))]

        def line(cells: Sequence[str]) -> str:
            padded = (
                cell.rjust(width) if side == "right" else cell.ljust(width)
                for cell, width, side in zip(cells, widths, self.sides, strict=True)
            )
            return f"| {' | '.join(padded)} |"

        rule = "|".join(
            "-" * (width + 1) + ":" if side == "right" else ":" + "-" * (width + 1)
            for width, side in zip(widths, self.sides, strict=True)
        )
        lines = [line(head), f"|{rule}|", *(line(row) for row in body)]
        return "\n".join([f":::{{table}} {self.caption}", f":name: {self.name}", "", *lines, ":::"])

    def html(self) -> str:
        """Return the table as plain HTML, as Jupyter shows it."""

        def line(tag: str, cells: Sequence[str]) -> str:
            shown = (
                f'<{tag} style="text-align: {side}">{_plain_html(cell)}</{tag}>'
                for cell, side in zip(cells, self.sides, strict=True)
            )
            return f"<tr>{''.join(shown)}</tr>"

        body = "\n".join(line("td", row) for row in self.rows)
        return (
            f'<table>\n<caption style="text-align: left">{_plain_html(self.caption)}</caption>\n'
            f"<thead>{line('th', self.headings)}</thead>\n<tbody>\n{body}\n</tbody>\n</table>"
        )

    def __repr__(self) -> str:
        return f"{self.caption}\n\n" + "\n".join(self.markdown().splitlines()[3:-1])

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        return {"text/plain": repr(self), "text/html": self.html(), "text/markdown": self.markdown()}


def differences_table(
    comparison: pd.DataFrame,
    caption: str,
    *,
    name: str,
    labels: Mapping[str, str],
    runs: str,
    also: Collection[str] = (),
) -> Table:
    """A table of paired differences: mean, 95% interval, p value, and number of pairs.

    P values are corrected for all comparisons of the table, see `rnclib.results.holm`.

    Parameters
    ----------
    comparison : DataFrame
        Columns as from `rnclib.results.compare`.
    caption, name : str
        See `Table`.
    labels : mapping of str to str
        Columns that say what is compared, and their headings.
    runs : str
        What the pairs are, such as ``"splits"``.
    also : collection of {'better', 'diverged'}
        Whether to show the share of them on which the method is better, and how many runs diverged.
    """
    from rnclib.results import holm

    return Table(
        comparison.assign(corrected=holm(comparison["p"]).to_numpy()),
        caption,
        name=name,
        columns={
            **labels, "mean": "Difference", "low": "Low", "high": "High", "corrected": "p, corrected",
            **({"better": "Better on"} if "better" in also else {}), "n": runs.capitalize(),
            **({"diverged": "Diverged"} if "diverged" in also else {}),
        },
        format=dict.fromkeys(["mean", "low", "high"], "+.3f") | {"corrected": p_value, "better": ".0%"},
    )  # fmt: skip


class Figure:
    """A drawing with a number, a caption and a text alternative.

    Jupyter shows the drawing; the book numbers it and sets the caption below it.

    Parameters
    ----------
    figure : matplotlib.figure.Figure or object with a ``figure`` attribute
        The drawing, or the ``Axes`` or seaborn grid it was made with. It is closed, so that it shows once.
    caption : str
        One sentence or more, Markdown.
    name : str
        Label for cross-references: lower-case letters, digits and hyphens, unique in the book.
    alt : str
        What the drawing shows, for those who cannot see it.
    format : {"svg", "png", "jpeg"}, optional
        ``png`` for drawings of many thousand marks, ``jpeg`` for pictures.
    """

    def __init__(self, figure: Any, caption: str, *, name: str, alt: str, format: str = "svg") -> None:
        drawing: MatplotlibFigure = getattr(figure, "figure", figure)
        if not hasattr(drawing, "savefig"):
            raise ValueError(f"figure: got {type(figure).__name__}; allowed: a matplotlib figure or axes")
        if format not in ("svg", "png", "jpeg"):
            raise ValueError(f"format: got {format!r}; allowed: 'svg', 'png', 'jpeg'")
        self.caption = _one_line(caption, "caption")
        self.name = _label(name)
        self.alt = _one_line(alt, "alt")
        self.format = format
        import matplotlib as mpl
        import matplotlib.pyplot as plt

        # A fixed salt and no date: the same drawing gives the same bytes.
        stamp = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}, "jpeg": None}[format]
        buffer = io.BytesIO()
        with mpl.rc_context({"svg.hashsalt": self.name}):
            drawing.savefig(buffer, format=format, dpi=160, bbox_inches="tight", metadata=stamp)
        plt.close(drawing)
        self.data = buffer.getvalue()

    def __repr__(self) -> str:
        return f"Figure {self.name}: {self.caption}"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict, dict]:
        mime, data = (
            ("image/svg+xml", self.data.decode())
            if self.format == "svg"
            else (f"image/{self.format}", base64.b64encode(self.data).decode())
        )
        # `clean` turns this into the cell metadata from which the book makes a numbered figure.
        note = {"caption": self.caption, "name": self.name, "alt": self.alt}
        return {"text/plain": repr(self), mime: data}, {"rnclib_figure": note}


class Notice:
    """A short box of text in a notebook and on its page.

    Parameters
    ----------
    text : str
        Markdown.
    kind : {"note", "tip", "important", "warning"}, optional
        How loud it is.
    title : str, optional
        Heading of the box.
    """

    def __init__(self, text: str, *, kind: str = "note", title: str | None = None) -> None:
        if kind not in ("note", "tip", "important", "warning"):
            raise ValueError(f"kind: got {kind!r}; allowed: 'note', 'tip', 'important', 'warning'")
        self.text = _one_line(text, "text")
        self.kind = kind
        self.title = kind.capitalize() if title is None else _one_line(title, "title")

    def __repr__(self) -> str:
        return f"{self.title}: {self.text}"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        box = f":::{{admonition}} {self.title}\n:class: {self.kind}\n\n{self.text}\n:::"
        plain = f"<p><strong>{_plain_html(self.title)}.</strong> {_plain_html(self.text)}</p>"
        return {"text/plain": repr(self), "text/html": plain, "text/markdown": box}


class Data(NamedTuple):
    """What tables and captions call a data set, its usual split, its samples, and what a run is repeated over."""

    title: str
    split: str
    samples: str
    runs: str

    def source(self, profile: str) -> str:
        """Where numbers come from, as captions say it."""
        return f"{self.title}, {self.split} split, profile {profile}"


#: By name of the data set in the records.
DATA: dict[str, Data] = {
    "esol": Data("ESOL", "random", "molecules", "splits"),
    "standin": Data("Synthetic stand-in", "random", "molecules", "splits"),
    "agedb": Data("AgeDB", "standard", "faces", "seeds"),
    "synthetic": Data("Synthetic drawn faces", "standard", "faces", "seeds"),
}


def data_notice(dataset: str, profile: str, *, detail: str = "") -> Notice:
    """Say on which data, and with which length of training, the numbers of a page were computed.

    Parameters
    ----------
    dataset : str
        As in the records: ``"esol"``, ``"standin"``, ...; anything that is not measured data is a warning.
    profile : {"paper", "quick", "smoke"}
        As in the records.
    detail : str, optional
        A sentence to add, such as how many splits there are.

    Examples
    --------
    >>> data_notice("standin", "quick")
    These are not measured data: Synthetic stand-in, with targets from a published equation instead of \
measurements. Training was shortened (profile `quick`): good for a first look, not for conclusions.
    """
    data = {
        "esol": "ESOL: 1128 molecules with measured solubility in water.",
        "agedb": "AgeDB: face images with the age of the person shown.",
        "standin": "Synthetic stand-in, with targets from a published equation instead of measurements.",
        "synthetic": "Synthetic stand-in: drawn faces that grow old, not photographs.",
    }
    lengths = {
        "paper": "Training followed the full protocol (profile `paper`).",
        "quick": "Training was shortened (profile `quick`): good for a first look, not for conclusions.",
        "smoke": "Training was cut to seconds (profile `smoke`): it shows that the code runs, nothing else.",
    }
    if profile not in lengths:
        raise ValueError(f"profile: got {profile!r}; allowed: {', '.join(map(repr, lengths))}")
    if dataset == "synthetic":
        lengths["paper"] = "Training followed the protocol, sized down for a CPU (profile `paper`)."
    measured = dataset in ("esol", "agedb")
    text = " ".join(filter(None, [data.get(dataset, f"Data set `{dataset}`."), lengths[profile], detail]))
    if measured:
        kind, title = ("note", "Data") if profile == "paper" else ("important", "Data and short training")
    else:
        kind, title = "warning", "These are not measured data"
    return Notice(text, kind=kind, title=title)


def glue(**values: Any) -> None:
    """Record numbers of a notebook under names by which any page of the book can quote them.

    A page writes the notebook's path, the name and the format, which it must give:
    ``{glue:text}`` followed by ```chapters/esol.ipynb::esol_mae:.3f```.

    Parameters
    ----------
    **values : float, int or str
        The numbers by name. A name can be used once in a notebook.
    """
    from IPython.display import display

    for name, value in values.items():
        if not isinstance(value, (numbers.Real, str)) or _is_missing(value):
            raise ValueError(f"{name}: got {value!r}; allowed: a number that is not missing, or a text")
        plain = repr(value) if isinstance(value, str) else repr(getattr(value, "item", lambda v=value: v)())
        prefix = "application/papermill.record/"  # what myst-nb looks for; Jupyter shows nothing
        display(
            {f"{prefix}text/plain": plain},
            raw=True,
            metadata={"scrapbook": {"name": name, "mime_prefix": prefix}},
        )


def p_value(p: float) -> str:
    """A p value as a table shows it.

    Examples
    --------
    >>> p_value(0.0321), p_value(0.00002)
    ('0.032', '<0.001')
    """
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def _one_line(text: Any, what: str) -> str:
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{what}: got {text!r}; allowed: a text that is not empty")
    return " ".join(text.split())


def _label(name: Any) -> str:
    if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise ValueError(f"name: got {name!r}; allowed: lower-case letters, digits and single hyphens")
    return name


def _are_numbers(column: pd.Series, cells: Sequence[str]) -> bool:
    """Whether a column reads as numbers: "0.25", "−3", "0.25 [0.24, 0.26]"."""
    if column.dtype.kind in "iuf":
        return True
    present = [cell for cell in cells if cell != "–"]
    return bool(present) and all(re.match(r"[−+-]?\.?\d", cell) for cell in present)


def _is_missing(value: Any) -> bool:
    # None, NaN and pandas.NA, without importing pandas: the last two do not equal themselves.
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, numbers.Real) and math.isnan(value)


def _cell(value: Any, how: str | Callable[[Any], str], column: Any) -> str:
    if _is_missing(value):
        return "–"
    try:
        if callable(how):
            text = how(value)
        elif isinstance(value, numbers.Real) and not isinstance(value, (bool, numbers.Integral)):
            text = format(float(value), how)
        else:
            text = str(value)
    except ValueError as error:
        raise ValueError(f"format[{column!r}]: got {how!r}; allowed: one that takes {value!r} ({error})") from None
    # A true minus sign for numbers, and never a negative zero.
    if re.fullmatch(r"-0(\.0*)?", text):
        text = text[1:]
    return "−" + text[1:] if re.match(r"-[\d.]", text) else " ".join(text.split())


def _pipes(text: str) -> str:
    return re.sub(r"(?<!\\)\|", r"\\|", text)


def _plain_html(text: str) -> str:
    """Take MyST's marks off a line: Jupyter shows them as they are."""
    text = re.sub(r"\{[\w:]+\}`(?:([^`<]+?)\s*<[^`>]*>|([^`]*))`", lambda m: m[1] or m[2], text)
    text = html.escape(text, quote=False)
    text = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", text)
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", text)


# --- from a notebook to a page --------------------------------------------------------------------------

_CELL_METADATA = ("tags", "mystnb", "jupyter", "editable", "slideshow")
_NOISE = {"application/vnd.jupyter.widget-view+json", "application/javascript"}


def clean(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Take off an executed notebook what differs from run to run or says something about the machine.

    That is widget state, timings, papermill's and the kernel's metadata, everything written to the error
    stream (progress bars), overwritten lines, memory addresses and the working directory's path. A
    :class:`Figure` gets its caption and label (one in a cell). Running it twice changes nothing more.

    Parameters
    ----------
    notebook : nbformat.NotebookNode
        Changed in place and returned.
    """
    notebook.metadata = _node(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python", "pygments_lexer": "ipython3"},
        }
    )
    count = 0
    for number, cell in enumerate(notebook.cells):
        tags = cell.metadata.get("tags", [])
        cell.metadata = _node({key: cell.metadata[key] for key in _CELL_METADATA if cell.metadata.get(key)})
        if "injected-parameters" in tags:  # papermill draws a new id each time
            cell.id = f"injected-parameters-{number}"
        if cell.cell_type != "code":
            continue
        if cell.source.strip():
            count += 1
        cell.execution_count = count if cell.source.strip() else None
        cell.outputs = [kept for output in cell.outputs if (kept := _clean_output(output)) is not None]
        cell.outputs = _joined_streams(cell.outputs)
        figures = []
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = count
            if "rnclib_figure" in output.get("metadata", {}):
                figures.append(output.metadata.pop("rnclib_figure"))
        if len(figures) > 1:
            names = ", ".join(note["name"] for note in figures)
            raise ValueError(f"a cell can show one Figure, this one shows {names}: give each its own cell")
        for note in figures:
            settings = {
                **cell.metadata.get("mystnb", {}),
                "figure": {"caption": note["caption"], "name": note["name"]},
                "image": {"alt": note["alt"]},
            }
            cell.metadata["mystnb"] = _node(settings)
    return notebook


def _clean_output(output: Any) -> Any:
    if output.output_type == "stream":
        if output.name == "stderr":
            return None
        output.text = _steady("\n".join(line.rsplit("\r", 1)[-1] for line in output.text.split("\n")))
        return output if output.text.strip() else None
    data: MutableMapping[str, Any] = output.get("data", {})
    for mime in _NOISE & set(data):
        del data[mime]
        data.pop("text/plain", None)
    if "text/plain" in data:
        data["text/plain"] = _steady(data["text/plain"])
    return output if data or output.output_type == "error" else None


def _joined_streams(outputs: list[Any]) -> list[Any]:
    joined: list[Any] = []
    for output in outputs:
        if joined and output.output_type == joined[-1].output_type == "stream":
            joined[-1].text += output.text
        else:
            joined.append(output)
    return joined


def _steady(text: str) -> str:
    here = str(Path.cwd())
    if len(here) > 1:
        text = text.replace(here + os.sep, "").replace(here, ".")
    return re.sub(r"\b0x[0-9a-f]{6,}\b", "0x…", text)


def _node(mapping: dict[str, Any]) -> Any:
    from nbformat import from_dict

    return from_dict(mapping)


def publish(notebook: str | Path, to: str | Path, /, **parameters: Any) -> Path:
    """Run a notebook with papermill, clean it, and write it to where the book reads it.

    What the notebook prints, progress bars included, is shown while it runs. When a cell fails, ``to`` stays
    as it was.

    Parameters
    ----------
    notebook : str or pathlib.Path
        The notebook as it is in ``notebooks/``.
    to : str or pathlib.Path
        The page, ``book/chapters/esol.ipynb`` say; folders are made.
    **parameters
        Handed to the notebook, which refuses those it does not know (:func:`check_parameters`).

    Returns
    -------
    pathlib.Path
        The page.

    Raises
    ------
    FileNotFoundError
        There is no such notebook.
    RuntimeError
        A cell failed; the message ends with the cell's own error.
    """
    notebook, to = Path(notebook), Path(to)
    if not notebook.is_file():
        raise FileNotFoundError(f"no notebook {notebook}")
    if to.suffix != ".ipynb":
        raise ValueError(f"to: got {str(to)!r}; allowed: a path that ends in .ipynb")
    if to.exists() and to.resolve() == notebook.resolve():
        raise ValueError(f"to: got {str(to)!r}, the notebook itself; allowed: another file")
    import nbformat
    import papermill

    given = ", ".join(f"{name}={value}" for name, value in parameters.items())
    print(f"running {notebook}{f' with {given}' if given else ''}", file=sys.stderr, flush=True)
    started = time.monotonic()
    try:
        executed = papermill.execute_notebook(
            str(notebook),
            None,
            parameters=parameters,
            progress_bar=False,
            stdout_file=sys.stderr,
            stderr_file=sys.stderr,
            # none of its remarks on how it is reached or stopped; a cell that fails raises
            extra_arguments=["--IPKernelApp.log_level=CRITICAL"],
        )
    except papermill.PapermillExecutionError as error:
        shown = re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(error.traceback)).strip()
        raise RuntimeError(f"{notebook} failed in cell {error.exec_count}:\n{shown}") from None
    clean(executed)
    to.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(dir=to.parent, prefix=f".{to.stem}-", suffix=".tmp")
    try:
        with open(handle, "w", encoding="utf-8") as file:
            nbformat.write(executed, file)
        os.chmod(draft, 0o644)
        os.replace(draft, to)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
    print(f"wrote {to} after {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    return to


def main(arguments: Sequence[str] | None = None) -> int:
    """Publish one notebook from the shell; the exit status is 1 when a cell fails."""
    parser = argparse.ArgumentParser(
        prog="python -m rnclib.report",
        description="Run a notebook, clean it, and write it to where the book reads it.",
    )
    parser.add_argument("notebook", help="for example notebooks/esol.ipynb")
    parser.add_argument("to", help="for example book/local/esol.ipynb")
    parser.add_argument(
        "-p",
        nargs=2,
        metavar=("NAME", "VALUE"),
        action="append",
        default=[],
        dest="parameters",
        help="a parameter of the notebook; may be given several times",
    )
    options = parser.parse_args(arguments)
    try:
        publish(options.notebook, options.to, **{name: _literal(value) for name, value in options.parameters})
    except (RuntimeError, OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _literal(text: str) -> Any:
    """Read a value as papermill's own ``-p`` does: a number, True, False, None, else the text itself."""
    words = {"True": True, "False": False, "None": None}
    if text in words:
        return words[text]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


if __name__ == "__main__":
    raise SystemExit(main())
