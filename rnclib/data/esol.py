"""ESOL (Delaney 2004), measured aqueous solubility of 1128 molecules, and a labelled stand-in for it."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from functools import partial

import numpy as np
import pandas as pd

from rnclib.data import Dataset, public_file
from rnclib.data.molecules import canonical_smiles, graphs_from_smiles, has_nitrogen, split

__all__ = ["SHA256", "URLS", "delaney_equation", "load", "load_esol", "load_standin"]

SHA256 = "8c06a76f0c6487d29ab0f903e6a7a7139f189ab3c1178f159c8be8964602f189"
URLS = (
    "https://deepchemdata.s3-us-west-1.amazonaws.com/datasets/delaney-processed.csv",
    "https://raw.githubusercontent.com/deepchem/deepchem/master/datasets/delaney-processed.csv",
)
UNIT = "log mol/L"
SPLITS = ("random", "scaffold", "size")
FILE = "esol/raw/delaney-processed.csv"


def load(dataset: str = "auto", *, urls: Sequence[str] = URLS) -> Dataset:
    """ESOL, or its stand-in.

    Parameters
    ----------
    dataset : {'auto', 'esol', 'standin'}
        ``'esol'`` is an error where the file cannot be had; ``'auto'`` falls back to the stand-in there,
        which the returned `name` tells.
    urls : sequence of str
        Where to download ESOL from, tried in order.

    Raises
    ------
    ValueError
        If `dataset` is none of the three.
    FileNotFoundError
        If ``'esol'`` is asked for and cannot be had.

    Warns
    -----
    UserWarning
        If ``'auto'`` falls back to the stand-in, with the reason.
    """
    if dataset not in ("auto", "esol", "standin"):
        raise ValueError(f"dataset: got {dataset!r}; allowed: 'auto', 'esol', 'standin'")
    if dataset != "standin":
        try:
            return load_esol(urls=urls)
        except FileNotFoundError as error:
            if dataset == "esol":
                raise
            warnings.warn(f"using the stand-in. {error}", stacklevel=2)
    return load_standin()


def load_esol(*, urls: Sequence[str] = URLS, sha256: str = SHA256) -> Dataset:
    """ESOL as MoleculeNet distributes it, in the file's own order.

    The file is read from ``$RNC_DATA/esol/raw/delaney-processed.csv`` if that exists, else from the cache,
    else downloaded there; its SHA-256 is verified every time.

    Parameters
    ----------
    urls : sequence of str
        Tried in order.
    sha256 : str
        Checksum that the file must have.

    Raises
    ------
    FileNotFoundError
        If the file is nowhere and cannot be downloaded, or is not the file it should be. The message
        says how to get it.
    """
    table = pd.read_csv(public_file(FILE, urls, sha256))
    smiles = tuple(table["smiles"].str.strip())
    return Dataset(
        name="esol",
        inputs=graphs_from_smiles(smiles),
        targets=table["measured log solubility in mols per litre"].to_numpy(float),
        unit=UNIT,
        checksum=sha256,
        provenance="ESOL (Delaney 2004) as distributed by MoleculeNet/DeepChem under the MIT licence",
        synthetic=False,
        smiles=smiles,
        splits={kind: partial(split, smiles, kind) for kind in SPLITS},
        nuisance=has_nitrogen(smiles).astype(float),
        published_prediction=table["ESOL predicted log solubility in mols per litre"].to_numpy(float),
    )


def delaney_equation(smiles: Sequence[str]) -> np.ndarray:
    """Solubility by Delaney's published equation on RDKit's descriptors, in log mol/L.

    logS = 0.16 − 0.63 cLogP − 0.0062 MW + 0.066 RB − 0.74 AP, with the octanol–water partition
    coefficient cLogP (here Crippen's), the molecular weight MW, the number of rotatable bonds RB and the
    aromatic share of the heavy atoms AP (Delaney 2004, table 3).

    Parameters
    ----------
    smiles : sequence of str

    Examples
    --------
    >>> float(delaney_equation(["CCO"])[0].round(3))
    -0.125
    """
    from rdkit.Chem import Crippen, Descriptors, rdMolDescriptors

    from rnclib.data.molecules import _parse

    def log_solubility(molecule) -> float:
        aromatic = sum(atom.GetIsAromatic() for atom in molecule.GetAtoms()) / molecule.GetNumHeavyAtoms()
        return (
            0.16
            - 0.63 * Crippen.MolLogP(molecule)  # type: ignore[attr-defined]
            - 0.0062 * Descriptors.MolWt(molecule)  # type: ignore[attr-defined]
            + 0.066 * rdMolDescriptors.CalcNumRotatableBonds(molecule)
            - 0.74 * aromatic
        )

    return np.array([log_solubility(molecule) for molecule in _parse(smiles)])


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
# a second ring: with the chain between, it makes scaffolds enough for a scaffold split
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
        name="standin",
        inputs=graphs_from_smiles(chosen),
        targets=targets,
        unit=UNIT,
        checksum=hashlib.sha256(source.encode()).hexdigest(),
        provenance="synthetic stand-in: generated molecules with targets from Delaney's equation, not measured",
        synthetic=True,
        smiles=chosen,
        splits={kind: partial(split, chosen, kind) for kind in SPLITS},
        nuisance=has_nitrogen(chosen).astype(float),
    )


def _random_smiles(rng: np.random.Generator) -> str:
    def chain() -> str:
        return "C" + "".join(rng.choice(LINKS, size=rng.integers(1, 4)))

    tail = chain() + str(rng.choice(ENDS if rng.random() < 0.5 else RINGS))
    core = str(rng.choice(CORES))
    head = chain() if rng.random() < 0.5 or not core else ""
    return head + (core.replace("*", tail) if core else tail)
