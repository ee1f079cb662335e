"""What people try with such a book without reading how: parameters, folders, a build at the root, a page to print."""

from __future__ import annotations

from pathlib import Path

import pytest

from rnclib.chapters import NAMES
from rnclib.parameters import ParameterError

ROOT = Path(__file__).resolve().parents[1]

nbformat = pytest.importorskip("nbformat")


# --- parameters of every notebook -----------------------------------------------------------------------


def guarded(name: str, **given: object) -> dict[str, object]:
    """The parameters of a notebook after its guard, which comes before anything heavy."""
    cells = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4).cells
    (position,) = [i for i, cell in enumerate(cells) if "parameters" in cell.metadata.get("tags", [])]
    guard = next(cell for cell in cells[position + 1 :] if cell.cell_type == "code")
    names: dict[str, object] = {}
    exec(compile(cells[position].source, name, "exec", dont_inherit=True), names)
    assert set(given) <= set(names)
    names |= given
    exec(guard.source, names)
    return names


def parameters_of(name: str) -> dict[str, object]:
    return guarded(name)["__annotations__"]


SWITCHES = [(name, switch) for name in NAMES for switch, kind in parameters_of(name).items() if kind is bool]
STORES = [(name, of) for name in NAMES for of in parameters_of(name) if of in ("results_dir", "out")]


def test_the_notebooks_that_train_have_a_switch_and_a_store():
    assert {name for name, _ in STORES} == {*NAMES} - {"loss"}
    assert ("esol", "refresh") in SWITCHES and len(SWITCHES) >= 8


@pytest.mark.parametrize(("name", "switch"), SWITCHES)
def test_switches_read_what_the_shell_says(name, switch):
    # papermill's -p gives True, and the texts true and false; -r gives a text for each
    for text, meant in ((True, True), ("true", True), ("True", True), ("false", False)):
        assert guarded(name, **{switch: text})[switch] is meant
    with pytest.raises(ParameterError, match=rf"^{switch}: got 'tru'; allowed: True or False$"):
        guarded(name, **{switch: "tru"})


@pytest.mark.parametrize(("name", "store"), STORES)
def test_a_store_that_cannot_be_written_is_refused_at_once(name, store, tmp_path):
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(ParameterError, match=rf"^{store}: got {place}, which cannot be written .*; allowed: "):
            guarded(name, **{store: str(place)})
