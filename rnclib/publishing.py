"""From a notebook to a page of the book: run it, clean it, and write it to where the book reads it."""

from __future__ import annotations

import argparse
import keyword
import os
import re
import sys
import time
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rnclib.files import whole

if TYPE_CHECKING:
    import nbformat

__all__ = ["clean", "main", "publish"]

_CELL_METADATA = ("tags", "mystnb", "rnclib", "jupyter", "editable", "slideshow")
_NOISE = {"application/vnd.jupyter.widget-view+json", "application/javascript"}


def clean(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Take off an executed notebook what differs from run to run or says something about the machine.

    That is widget state, timings, papermill's and the kernel's metadata, everything written to the error
    stream (progress bars), overwritten lines, memory addresses and the working directory's path; and the plain
    text of what Jupyter shows as HTML and the book as Markdown. A
    `rnclib.report.Figure` gets its caption and label (one in a cell). Running it twice changes nothing more.

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
            raise ValueError(f"cell: got several figures, {names}; allowed: one in a cell")
        for note in figures:
            settings = {
                **cell.metadata.get("mystnb", {}),
                "figure": {"caption": note["caption"], "name": note["name"]},
                "image": {"alt": note["alt"]},
            }
            cell.metadata["mystnb"] = _node(settings)
            if note["phone"]:
                cell.metadata["rnclib"] = _node({"phone": note["phone"]})
    return notebook


def _clean_output(output: Any) -> Any:
    if output.output_type == "stream":
        if output.name == "stderr":
            return None
        output.text = _steady("\n".join(line.rsplit("\r", 1)[-1] for line in output.text.split("\n")))
        return output if output.text.strip() else None
    data: MutableMapping[str, Any] = output.get("data", {})
    noise = _NOISE & data.keys()
    for mime in noise:
        del data[mime]
    if noise or {"text/html", "text/markdown"} <= data.keys():  # Jupyter shows the one, the book the other
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
        Handed to the notebook, which refuses those it does not know (`rnclib.parameters.check_parameters`).

    Returns
    -------
    pathlib.Path
        The page.

    Raises
    ------
    FileNotFoundError
        There is no such notebook.
    ValueError
        ``to`` is no other notebook, or a name of a parameter is none of a variable.
    RuntimeError
        A cell failed; the message ends with the cell's own error.
    """
    notebook, to = Path(notebook), Path(to)
    if not notebook.is_file():
        raise FileNotFoundError(f"notebook: got {str(notebook)!r}, which is no file; allowed: a notebook")
    if to.suffix != ".ipynb":
        raise ValueError(f"to: got {str(to)!r}; allowed: a path that ends in .ipynb")
    if to.exists() and to.resolve() == notebook.resolve():
        raise ValueError(f"to: got {str(to)!r}, the notebook itself; allowed: another file")
    if odd := [name for name in parameters if not name.isidentifier() or keyword.iskeyword(name)]:
        # papermill would write them into a cell as they are, and run it
        raise ValueError(f"parameters: got the names {odd}; allowed: those of variables")
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
    with whole(to) as draft:
        nbformat.write(executed, draft)
        draft.chmod(0o644)
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
