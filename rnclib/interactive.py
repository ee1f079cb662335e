"""Figures to explore: a drawing for every reader, and the data from which a script of the book makes it interactive."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from rnclib.report import Figure

__all__ = ["KINDS", "Interactive", "depiction", "molecule_map", "playground"]

#: What the scripts in ``book/_interactive`` can show.
KINDS = ("molecules", "playground")


class Interactive(Figure):
    """A figure that the page's script makes interactive; without it, in print and in Jupyter, it is the drawing.

    Parameters
    ----------
    figure, caption, name, alt, format, phone
        As in `rnclib.report.Figure`. The caption stands below both.
    kind : {"molecules", "playground"}
        What the script makes of the data.
    data : dict or None
        From `molecule_map` or `playground`. With None it is a `rnclib.report.Figure`.
    """

    def __init__(
        self, figure: Any, caption: str, *, name: str, alt: str, kind: str, data: Mapping[str, Any] | None,
        format: str = "svg", phone: Any = None,
    ) -> None:  # fmt: skip
        if kind not in KINDS:
            raise ValueError(f"kind: got {kind!r}; allowed: {', '.join(map(repr, KINDS))}")
        super().__init__(figure, caption, name=name, alt=alt, format=format, phone=phone)
        self.kind = kind
        self.content = None if data is None else _script_text(data)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> tuple[dict, dict]:
        bundle, note = super()._repr_mimebundle_(include, exclude)
        if self.content is None:
            return bundle, note
        page = (
            f'<div class="interactive" data-figure="{self.kind}">\n{self.to_html()}\n'
            f'<script type="application/json">{self.content}</script>\n</div>'
        )
        note["rnclib_figure"]["phone"] = ""  # stands in the page
        return {"text/plain": bundle["text/plain"], "text/html": page}, note


def _script_text(data: Mapping[str, Any]) -> str:
    """JSON in which no text can end the script that it stands in."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")


def _colours() -> list[str]:
    """Viridis in 17 steps, as in the drawings."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colormaps["viridis"](step)) for step in np.linspace(0, 1, 17)]


# --- the loss -------------------------------------------------------------------------------------------


def playground(points: Any, labels: Sequence[float], temperature: float) -> dict[str, Any]:
    """What the playground of the loss begins with.

    Parameters
    ----------
    points : array, shape (n, 2)
        Embeddings, n from 3 to 8.
    labels : sequence of float, shape (n,)
        From 0 to 100.
    temperature : float

    Raises
    ------
    ValueError
        For other shapes or labels.
    """
    places, values = np.asarray(points, dtype=float), np.asarray(labels, dtype=float)
    if places.ndim != 2 or places.shape[1] != 2 or not 3 <= len(places) <= 8:
        raise ValueError(f"points: got shape {places.shape}; allowed: (n, 2), n from 3 to 8")
    if values.shape != (len(places),) or not ((values >= 0) & (values <= 100)).all():
        raise ValueError(f"labels: got {values.tolist()}; allowed: {len(places)} numbers from 0 to 100")
    return {
        "points": places.tolist(), "labels": values.tolist(), "temperature": float(temperature), "colours": _colours(),
    }  # fmt: skip


# --- molecules ------------------------------------------------------------------------------------------


def molecule_map(
    views: Mapping[str, pd.DataFrame], predictions: pd.DataFrame, table: pd.DataFrame, unit: str
) -> dict[str, Any]:
    """Molecules, where networks place them, and what the networks predict.

    Parameters
    ----------
    views : mapping
        Name of each network to a frame as `rnclib.results.view` gives it; all of one split.
    predictions : DataFrame
        Columns ``method``, ``index`` and ``prediction``, of that split; a molecule may have none.
    table : DataFrame
        Columns ``name``, ``smiles`` and ``target``, a row for each ``index``.
    unit : str
        Of target and prediction.

    Returns
    -------
    dict
        For the page's script: a list per property, an entry for each molecule.

    Raises
    ------
    ValueError
        If there is no view, or one is not of these molecules or not of the same split.
    """
    if not views:
        raise ValueError("views: got none; allowed: at least one")
    first = next(iter(views.values())).sort_values("index", ignore_index=True)
    networks = []
    for name, view in views.items():
        view = view.sort_values("index", ignore_index=True)
        if not (view["index"].equals(first["index"]) and view["part"].equals(first["part"])):
            raise ValueError(f"views[{name!r}]: got another split than the first; allowed: views of one split")
        place = {int(index): row for row, index in enumerate(view["index"])}
        its = predictions[(predictions["method"] == name) & predictions["index"].isin(place)]
        values = zip(its["index"], its["prediction"], strict=True)
        networks.append({
            "name": name, "x": view["pc1"].round(3).tolist(), "y": view["pc2"].round(3).tolist(),
            "predicted": {str(place[int(index)]): round(float(value), 3) for index, value in values},
        })  # fmt: skip
    if first["index"].max() >= len(table):
        raise ValueError(f"table: got {len(table)} rows; allowed: one for each index to {first['index'].max()}")
    shown = table.iloc[first["index"].to_numpy()]
    if not np.allclose(shown["target"], first["target"], rtol=0, atol=1e-3):
        raise ValueError("table: got other targets than the views; allowed: the molecules of the views")
    return {
        "unit": unit, "colours": _colours(), "networks": networks, "names": shown["name"].tolist(),
        "measured": shown["target"].round(3).tolist(), "set": first["part"].tolist(),
        "drawings": [depiction(smiles) for smiles in shown["smiles"]],
    }  # fmt: skip


UNIT = 40  # of a drawing: fortieths of an ångström; a bond is 60 long


def depiction(smiles: str) -> list[list]:
    """A molecule as a chemist draws it, in numbers.

    Parameters
    ----------
    smiles : str

    Returns
    -------
    list of three lists
        Two whole numbers for each atom, to the right and downwards. Three for each bond: its atoms, and what it is:
        1, 2 or 3 lines; 4 and 5, two lines of which the second lies to the left or to the right, as one goes from the
        first atom to the second. Three entries for each atom with a text: the atom, the text, and whether its symbol
        begins the text (1), ends it (-1) or is all of it (0). Configurations in space are not shown.

    Examples
    --------
    >>> depiction("CO")
    [[-30, 0, 30, 0], [0, 1, 1], [1, 'OH', 1]]
    """
    from rdkit import Chem
    from rdkit.Chem import rdDepictor
    from rdkit.Chem.Draw import rdMolDraw2D

    from rnclib.data.molecules import parse

    (molecule,) = parse([smiles])
    rdDepictor.Compute2DCoords(molecule)
    rdDepictor.StraightenDepiction(molecule)
    drawn = rdMolDraw2D.PrepareMolForDrawing(molecule, kekulize=True, addChiralHs=False, wedgeBonds=False)
    places = drawn.GetConformer().GetPositions()[:, :2] * (1, -1)
    bonds: list[int] = []
    for bond in drawn.GetBonds():
        kind = {Chem.BondType.DOUBLE: 2, Chem.BondType.TRIPLE: 3}.get(bond.GetBondType(), 1)
        kind = _double(bond, places) if kind == 2 else kind
        bonds += [bond.GetBeginAtomIdx(), bond.GetEndAtomIdx(), kind]
    texts: list = []
    for atom in drawn.GetAtoms():
        if text := _atom_text(atom, places):
            texts += [atom.GetIdx(), *text]
    return [np.rint(places * UNIT).astype(int).ravel().tolist(), bonds, texts]


def _double(bond: Any, places: np.ndarray) -> int:
    """On which side of a double bond its second line lies: towards the ring, or where more neighbours are."""
    ends = bond.GetBeginAtom(), bond.GetEndAtom()
    if min(end.GetDegree() for end in ends) == 1:
        return 2
    ring = min((r for r in bond.GetOwningMol().GetRingInfo().BondRings() if bond.GetIdx() in r), key=len, default=None)
    if ring is None:
        others = {n.GetIdx() for end in ends for n in end.GetNeighbors()}
    else:
        inside = [bond.GetOwningMol().GetBondWithIdx(i) for i in ring]
        others = {i for one in inside for i in (one.GetBeginAtomIdx(), one.GetEndAtomIdx())}
    begin, end = (places[one.GetIdx()] for one in ends)
    (dx, dy), away = end - begin, places[sorted(others - {one.GetIdx() for one in ends})] - begin
    side = float(np.sign((dx * away[:, 1] - dy * away[:, 0]).round(3)).sum())
    return 2 if side == 0 else 5 if side > 0 else 4  # y grows downwards


def _atom_text(atom: Any, places: np.ndarray) -> tuple[str, int] | None:
    """What stands at an atom, and on which side of its symbol the rest does; None for a carbon between bonds."""
    charge, hydrogens = atom.GetFormalCharge(), atom.GetTotalNumHs()
    if atom.GetSymbol() == "C" and atom.GetDegree() and not charge:
        return None
    small = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
    h = "" if not hydrogens else "H" if hydrogens == 1 else f"H{hydrogens}".translate(small)
    sign = "" if not charge else ("⁺" if charge > 0 else "⁻") * abs(charge)
    around = [places[n.GetIdx()][0] - places[atom.GetIdx()][0] for n in atom.GetNeighbors()]
    if h and sum(around) > 0.1:  # its bonds go to the right
        return f"{h}{atom.GetSymbol()}{sign}", -1
    rest = f"{h}{sign}"
    return f"{atom.GetSymbol()}{rest}", 1 if rest else 0
