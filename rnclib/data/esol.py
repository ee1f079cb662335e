"""ESOL (Delaney 2004), measured solubility of 1128 molecules in water, and a synthetic stand-in for it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd

from rnclib.data import Dataset, public_file
from rnclib.data.catalogue import SOURCES
from rnclib.data.molecules import canonical_smiles, graphs_from_smiles, has_nitrogen, split

__all__ = ["URLS", "delaney_equation", "load_esol", "load_standin", "read_table"]

URLS = (
    "https://deepchemdata.s3-us-west-1.amazonaws.com/datasets/delaney-processed.csv",
    "https://raw.githubusercontent.com/deepchem/deepchem/master/datasets/delaney-processed.csv",
)
FILE = "esol/raw/delaney-processed.csv"


def read_table(*, urls: Sequence[str] = URLS, sha256: str | None = None) -> pd.DataFrame:
    """ESOL's molecules as MoleculeNet distributes them, in the file's own order.

    The file is read from ``$RNC_DATA/esol/raw/delaney-processed.csv`` if that exists, else from the cache,
    else downloaded there; its SHA-256 is verified every time.

    Parameters
    ----------
    urls : sequence of str
        Tried in order.
    sha256 : str, optional
        Checksum that the file must have; by default that of the catalogue.

    Returns
    -------
    DataFrame
        Columns ``name``, ``smiles``, ``target`` (measured) and ``published`` (by Delaney's equation), both in log
        mol/L.

    Raises
    ------
    FileNotFoundError
        If the file is nowhere and cannot be downloaded, or is not the file it should be. The message
        says how to get it.
    """
    table = pd.read_csv(public_file(FILE, urls, str(SOURCES["esol"].sha256) if sha256 is None else sha256))
    return pd.DataFrame(
        {
            "name": table["Compound ID"].str.strip(),
            "smiles": table["smiles"].str.strip(),
            "target": table["measured log solubility in mols per litre"].astype(float),
            "published": table["ESOL predicted log solubility in mols per litre"].astype(float),
        }
    )


def load_esol(*, urls: Sequence[str] = URLS, sha256: str | None = None) -> Dataset:
    """The molecules of `read_table` as graphs.

    Parameters
    ----------
    urls, sha256
        As in `read_table`.

    Raises
    ------
    FileNotFoundError
        As in `read_table`.
    """
    sha256 = sha256 or str(SOURCES["esol"].sha256)
    table = read_table(urls=urls, sha256=sha256)
    smiles = tuple(table["smiles"])
    return Dataset(
        inputs=replace(graphs_from_smiles(smiles), published=table["published"].to_numpy()),
        targets=table["target"].to_numpy(),
        checksum=sha256,
        splits={kind: partial(split, smiles, kind) for kind in SOURCES["esol"].splits},
        nuisance=has_nitrogen(smiles).astype(float),
    )


def delaney_equation(smiles: Sequence[str]) -> np.ndarray:
    """Solubility by Delaney's published equation on RDKit's descriptors, in log mol/L.

    logS = 0.16 − 0.63 cLogP − 0.0062 MW + 0.066 RB − 0.74 AP, with the octanol–water partition
    coefficient cLogP (here Crippen's), the molecular weight MW, the number of rotatable bonds RB and the
    fraction of heavy atoms that are aromatic, AP (Delaney 2004, table 3).

    Parameters
    ----------
    smiles : sequence of str

    Examples
    --------
    >>> float(delaney_equation(["CCO"])[0].round(3))
    -0.125
    """
    from rdkit.Chem import Crippen, Descriptors, rdMolDescriptors

    from rnclib.data.molecules import parse

    def log_solubility(molecule) -> float:
        aromatic = sum(atom.GetIsAromatic() for atom in molecule.GetAtoms()) / molecule.GetNumHeavyAtoms()
        return (
            0.16
            - 0.63 * Crippen.MolLogP(molecule)  # type: ignore[attr-defined]
            - 0.0062 * Descriptors.MolWt(molecule)  # type: ignore[attr-defined]
            + 0.066 * rdMolDescriptors.CalcNumRotatableBonds(molecule)
            - 0.74 * aromatic
        )

    return np.array([log_solubility(molecule) for molecule in parse(smiles)])


CORES = (
    "",
    "c1ccc(*)cc1",
    "c1cc(*)ccc1",
    "C1CCC(*)CC1",
    "c1ccc2cc(*)ccc2c1",
    "c1cnc(*)nc1",
    "C1CC(*)OC1",
    "c1csc(*)c1",
)
LINKS = ("", "C", "CC", "CCC", "CCCC", "C(C)C", "CO", "COC", "CN(C)C", "C=C", "CCCCC", "C(=O)C")
ENDS = (
    "",
    "O",
    "N",
    "Cl",
    "Br",
    "F",
    "C#N",
    "C(=O)O",
    "C(=O)N",
    "OC",
    "C(C)(C)C",
    "S(C)(=O)=O",
    "[N+](=O)[O-]",
    "C(Cl)Cl",
)
# a second ring at the end of a chain: molecules with two rings have enough different scaffolds for a scaffold split
RINGS = ("c3ccccc3", "C3CCCC3", "c3cccnc3", "C3CCOCC3", "c3ccco3")


def load_standin(n: int = 1128, seed: int = 0) -> Dataset:
    """Generated molecules whose target is Delaney's equation: a stand-in where ESOL cannot be had.

    Each molecule is a ring or none, with one or two chains that end in functional groups or another ring. The
    target has no measurement error, so errors on it say nothing about ESOL.

    Parameters
    ----------
    n : int
        Number of molecules, all different; from 10 to 5000.
    seed : int
    """
    if not 10 <= n <= 5000:
        raise ValueError(f"n: got {n!r}; allowed: 10 to 5000")
    rng = np.random.default_rng(seed)
    smiles: dict[str, None] = {}
    while len(smiles) < n:
        smiles.update(dict.fromkeys(canonical_smiles([_random_smiles(rng) for _ in range(n)])))
    chosen = tuple(smiles)[:n]
    targets = delaney_equation(chosen).round(4)
    source = "".join(f"{s},{t:.4f}\n" for s, t in zip(chosen, targets, strict=True))
    return Dataset(
        inputs=graphs_from_smiles(chosen),
        targets=targets,
        checksum=hashlib.sha256(source.encode()).hexdigest(),
        splits={kind: partial(split, chosen, kind) for kind in SOURCES["standin"].splits},
        nuisance=has_nitrogen(chosen).astype(float),
    )


def _random_smiles(rng: np.random.Generator) -> str:
    def chain() -> str:
        return "C" + "".join(rng.choice(LINKS, size=rng.integers(1, 4)))

    tail = chain() + str(rng.choice(ENDS if rng.random() < 0.5 else RINGS))
    core = str(rng.choice(CORES))
    head = chain() if rng.random() < 0.5 or not core else ""
    return head + (core.replace("*", tail) if core else tail)
