"""What a notebook shows: numbered tables, figures, notices, and numbers that other pages quote.

Nothing here imports torch, and nothing heavier than the standard library is imported before it is used.

From the shell, ``python -m rnclib.report notebooks/esol.ipynb book/local/esol.ipynb -p profile quick`` runs
a notebook, cleans it and writes it to where the book reads it, see `rnclib.publishing`.
"""

from __future__ import annotations

import base64
import html
import math
import numbers
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure as MatplotlibFigure

__all__ = [
    "LEFT_OUT", "Download", "Figure", "Findings", "Notice", "Table", "data_notice", "glue", "listed", "literal",
    "p_value", "probability", "sets_notice", "short_training",
]  # fmt: skip


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
        ``jpeg`` for pictures; of a drawing, ``svg``, the book shows a second on a phone, ``png`` stays as it is.
    phone : matplotlib.figure.Figure, optional
        That second drawing; by default the first with its panels below each other, see `rnclib.drawings.stack`.
    """

    def __init__(
        self, figure: Any, caption: str, *, name: str, alt: str, format: str = "svg", phone: Any = None
    ) -> None:
        drawing: MatplotlibFigure = getattr(figure, "figure", figure)
        if not hasattr(drawing, "savefig"):
            raise ValueError(f"figure: got {type(figure).__name__}; allowed: a matplotlib figure or axes")
        if format not in ("svg", "png", "jpeg"):
            raise ValueError(f"format: got {format!r}; allowed: 'svg', 'png', 'jpeg'")
        self.caption = _one_line(caption, "caption")
        self.name = _label(name)
        self.alt = _one_line(alt, "alt")
        self.format = format
        import matplotlib.pyplot as plt

        from rnclib.drawings import PHONE, encoded, stack

        self.data = encoded(drawing, format, self.name)
        self.phone = ""
        if phone is None and format == "svg" and drawing.get_size_inches()[0] > PHONE:
            stack(drawing)
            phone = drawing
        if phone is not None:
            self.phone = encoded(phone, "svg", f"{self.name}-phone").decode()
            plt.close(phone)
        plt.close(drawing)

    def __repr__(self) -> str:
        return f"Figure {self.name}: {self.caption}"

    def to_html(self) -> str:
        """The drawing with its text alternative, for a place outside of its notebook."""
        image = f'<img alt="{html.escape(self.alt)}" src="{_data_url(self.data, self.format)}">'
        if not self.phone:
            return image
        source = _data_url(self.phone.encode(), "svg")
        return f'<picture><source media="(max-width: 600px)" srcset="{source}">{image}</picture>'

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict, dict]:
        mime, data = (
            ("image/svg+xml", self.data.decode())
            if self.format == "svg"
            else (f"image/{self.format}", base64.b64encode(self.data).decode())
        )
        # `clean` turns this into the cell metadata from which the book makes a numbered figure
        note = {"caption": self.caption, "name": self.name, "alt": self.alt, "phone": self.phone}
        return {"text/plain": repr(self), mime: data}, {"rnclib_figure": note}


def _data_url(data: bytes, format: str) -> str:
    kind = "svg+xml" if format == "svg" else format
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


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


class Download:
    """A table as a CSV file that the page itself carries.

    Parameters
    ----------
    frame : pandas.DataFrame
    file : str
        Its name.
    text : str
        Of the link.
    """

    def __init__(self, frame: pd.DataFrame, file: str, text: str) -> None:
        self.file, self.text = file, _one_line(text, "text")
        self.content = base64.b64encode(frame.to_csv(index=False).encode()).decode()

    def __repr__(self) -> str:
        return f"{self.text}: {self.file}"

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        href = f"data:text/csv;base64,{self.content}"
        link = (
            f'<p><a download="{html.escape(self.file)}" href="{href}">{html.escape(self.text)}</a> '
            f"({html.escape(self.file)}).</p>"
        )
        return {"text/plain": repr(self), "text/html": link}


class Findings:
    """Sentences that a cell builds from records: a list on the page, lines in a raw notebook.

    Parameters
    ----------
    *sentences : str, sequence of str or None
        Markdown, each an item of the list; of several, the others are a list below the first. Those that are None, for
        which there are no records, are left out.
    title : str, optional
        A line above the list, with a colon at its end.

    Examples
    --------
    >>> Findings("**Level**: {numref}`demo`.", None, "Nothing else.")
    - Level: demo.
    - Nothing else.
    """

    def __init__(self, *sentences: str | Sequence[str] | None, title: str | None = None) -> None:
        items = [[one] if isinstance(one, str) else one for one in sentences if one is not None]
        self.items = [[_one_line(line, "sentence") for line in item] for item in items]
        self.title = None if title is None else _one_line(title, "title")

    def __repr__(self) -> str:
        lines = [re.sub(r"<[^>]*>", "", _plain_html(line)) for line in self._lines()]
        return html.unescape("\n".join([*([] if self.title is None else [self.title]), *lines]))

    def _lines(self) -> list[str]:
        return [line for first, *more in self.items for line in (f"- {first}", *(f"  - {one}" for one in more))]

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        above = [] if self.title is None else [self.title, ""]
        return {
            "text/plain": repr(self),
            "text/html": "".join(f"<p>{_plain_html(line)}</p>" for line in above if line) + _nested(self.items),
            "text/markdown": "\n".join([*above, *self._lines()]),
        }


def _nested(items: Sequence[Sequence[str]]) -> str:
    """A list in HTML; what follows the first line of an item is a list within it."""
    inner = (_plain_html(first) + (_nested([[one] for one in more]) if more else "") for first, *more in items)
    return f"<ul>{''.join(f'<li>{item}</li>' for item in inner)}</ul>"


_LENGTHS = {
    "paper": "Training followed {training}.",
    "quick": "Training was shortened (profile `quick`): good for a first look, not for conclusions.",
    "smoke": "Training was cut to seconds (profile `smoke`): it shows that the code runs, nothing else.",
}


def data_notice(dataset: str, profile: str, *, detail: str = "") -> Notice:
    """Say on which data, and with which length of training, the numbers of a page were computed.

    Parameters
    ----------
    dataset : str
        A name of the catalogue; what is not measured is a warning.
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
    from rnclib.data import catalogue

    if profile not in _LENGTHS:
        raise ValueError(f"profile: got {profile!r}; allowed: {', '.join(map(repr, _LENGTHS))}")
    source = catalogue.source(dataset)
    text = " ".join(filter(None, [source.notice, _LENGTHS[profile].format(training=source.training), detail]))
    if not source.measured:
        return Notice(text, kind="warning", title="These are not measured data")
    if profile == "paper":
        return Notice(text, kind="note", title="Data")
    return Notice(text, kind="important", title="Data and short training")


def short_training(profile: str) -> str:
    """What a caption says where training was not of full length; nothing where it was.

    Parameters
    ----------
    profile : {"paper", "quick", "smoke"}

    Examples
    --------
    >>> short_training("paper"), short_training("quick")
    ('', ' Short training (profile quick).')
    """
    return "" if profile == "paper" else f" Short training (profile {profile})."


def sets_notice(datasets: Sequence[str], profile: str) -> Notice:
    """As `data_notice`, for a page on several data sets.

    Parameters
    ----------
    datasets : sequence of str
        Names of the catalogue.
    profile : {"paper", "quick", "smoke"}

    Examples
    --------
    >>> sets_notice(["esol", "abalone", "naval"], "paper")
    Data: Measured: ESOL and Abalone. Not measured: Ship turbine (simulated). Training followed the full protocol.
    """
    from rnclib.data import catalogue

    sources = [catalogue.source(name) for name in datasets]
    parts = (("Measured", [of.title for of in sources if of.measured]),
             ("Not measured", [of.title for of in sources if not of.measured]))  # fmt: skip
    text = [f"{what}: {listed(titles)}." for what, titles in parts if titles]
    text.append(_LENGTHS[profile].format(training="the full protocol"))
    return Notice(" ".join(text), title="Data", kind="note" if profile == "paper" else "important")


def glue(**values: Any) -> None:
    """Record numbers and figures of a notebook under names by which any page of the book can show them.

    A page writes the notebook's path, the name and, for numbers, the format, which it must give:
    ``{glue:text}`` followed by ```chapters/esol.ipynb::esol_mae:.3f```, or ``{glue:}`` for a figure.

    Parameters
    ----------
    **values : float, int, str or Figure
        The numbers and figures by name. A name can be used once in a notebook.
    """
    from IPython.display import display

    for name, value in values.items():
        if isinstance(value, Figure):
            _record(name, "text/html", value.to_html(), display)
            continue
        if not isinstance(value, (numbers.Real, str)) or _is_missing(value):
            raise ValueError(f"{name}: got {value!r}; allowed: a number that is not missing, a text or a Figure")
        plain = repr(value) if isinstance(value, str) else repr(getattr(value, "item", lambda v=value: v)())
        _record(name, "text/plain", plain, display)


def _record(name: str, mime: str, content: str, display: Any) -> None:
    prefix = "application/papermill.record/"  # what myst-nb looks for; Jupyter shows nothing
    metadata = {"scrapbook": {"name": name, "mime_prefix": prefix}}
    display({f"{prefix}{mime}": content}, raw=True, metadata=metadata)


def listed(texts: Sequence[str]) -> str:
    """Several texts in a sentence, told apart by semicolons where one of them has a comma itself.

    Examples
    --------
    >>> listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])
    ('a', 'a and b', 'a, b and c')
    >>> listed(["a", "b, c", "d"])
    'a; b, c; and d'
    """
    if len(texts) > 1 and any("," in text for text in texts):
        return "; ".join([*texts[:-1], f"and {texts[-1]}"])
    return " and ".join(filter(None, [", ".join(texts[:-1]), *texts[-1:]]))


def literal(text: str) -> str:
    """Text from data or files as Markdown that shows it as it is: none of its signs marks anything up.

    Parameters
    ----------
    text : str

    Examples
    --------
    >>> print(literal("<b> *x* $y$"))
    \\<b\\> \\*x\\* \\$y\\$
    """
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return re.sub(r"^[!-/:-@]|[\\`*_{}\[\]<>$|&~^]", r"\\\g<0>", text)


def p_value(p: float) -> str:
    """A p value as a table shows it.

    Examples
    --------
    >>> p_value(0.0321), p_value(0.00002)
    ('0.032', '<0.001')
    """
    return "<0.001" if p < 0.001 else f"{p:.3f}"


def probability(p: float) -> str:
    """A probability as a page shows it: never as certain.

    Examples
    --------
    >>> probability(0.274), probability(0.00002), probability(0.9999)
    ('0.27', '<0.01', '>0.99')
    """
    if p < 0.005:
        return "<0.01"
    return ">0.99" if p > 0.995 else f"{p:.2f}"


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
    held = 0xE000  # of the private use of Unicode: signs that `literal` has marked as no marks
    sought = r"(\$(?:\\.|[^$\\])*\$|`[^`]*`)|\\([!-/:-@\[-`{-~])"  # a formula, code, or such a sign
    text = re.sub(sought, lambda m: m[1] or chr(held + ord(m[2])), text)
    text = re.sub(r"\{[\w:]+\}`(?:([^`<]+?)\s*<[^`>]*>|([^`]*))`", lambda m: m[1] or m[2], text)
    text = html.escape(text, quote=False)
    text = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", text)
    text = re.sub(r"\*(\w[^*]*)\*", r"<em>\1</em>", text)
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", text)
    return re.sub("[\ue021-\ue07e]", lambda m: html.escape(chr(ord(m[0]) - held), quote=False), text)


#: What stands in place of a table of data that the parameters leave out.
LEFT_OUT = Notice("These parameters leave out this data set.")


if __name__ == "__main__":
    from rnclib.publishing import main

    raise SystemExit(main())
