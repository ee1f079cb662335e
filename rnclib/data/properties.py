"""Measured properties of molecules, from public files; ESOL is in `rnclib.data.esol`."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from rnclib.data import Dataset, group_split, public_file
from rnclib.data.catalogue import SOURCES
from rnclib.data.esol import load_esol
from rnclib.data.molecules import Molecules, inchi_skeletons, readable

__all__ = ["freesolv_file", "load_aqsoldb", "load_efflux", "load_freesolv", "load_lipophilicity", "load_logbb"]

_GITHUB = "https://raw.githubusercontent.com/"


def _molecules(name: str, smiles: pd.Series, targets: pd.Series, skeletons: Sequence[str]) -> Dataset:
    """The data set `name` of the catalogue; its random splits keep in one set what differs in stereochemistry alone."""
    splits = {"random": partial(group_split, list(skeletons))}
    return Dataset(Molecules(tuple(smiles)), targets.to_numpy(float), str(SOURCES[name].sha256), splits)


def load_aqsoldb() -> Dataset:
    """AqSolDB (Sorkun et al. 2019), solubility in water, log mol/L, without the molecules of ESOL.

    Molecules are compared by the first block of the InChIKey; two that RDKit cannot read are left out too.
    """
    url = f"{_GITHUB}mcsorkun/AqSolDB/8e02b548fd9a78778ff89a5aa9a460d1a289cc3a/results/data_curated.csv"
    table = pd.read_csv(public_file("aqsoldb/data_curated.csv", [url], str(SOURCES["aqsoldb"].sha256)))
    skeletons = table["InChIKey"].str[:14]
    in_esol = skeletons.isin(inchi_skeletons(load_esol().inputs.smiles))
    chosen = ~in_esol & readable(table["SMILES"])
    return _molecules("aqsoldb", table["SMILES"][chosen], table["Solubility"][chosen], skeletons[chosen].tolist())


def load_lipophilicity() -> Dataset:
    """Lipophilicity (ChEMBL, as MoleculeNet has it): distribution of molecules between octanol and water, log D."""
    url = f"{_GITHUB}LCY02/ABT-MPNN/63ee5fcdb23747ffe9a2c377b148aafef53192d1/data/Lipophilicity.csv"
    return _file("lipophilicity", "lipophilicity/Lipophilicity.csv", url, "smiles", "exp")


_FREESOLV = (
    "freesolv/database.txt",
    f"{_GITHUB}MobleyLab/FreeSolv/ff0961a3177863c8002e8487ff9718c513974138/database.txt",
)


def freesolv_file() -> Path:
    """The file that `load_freesolv` reads."""
    file, url = _FREESOLV
    return public_file(file, [url], str(SOURCES["freesolv"].sha256))


def load_freesolv() -> Dataset:
    """FreeSolv (Mobley and Guthrie 2014): free energy of hydration of small molecules, kcal/mol."""
    # no comment sign is named: SMILES have it for a triple bond
    read: dict[str, Any] = {"sep": r";\s*", "engine": "python", "skiprows": 3, "header": None}
    return _file("freesolv", *_FREESOLV, 1, 3, **read)


def load_efflux() -> Dataset:
    """Efflux of molecules from MDCK cells (Fang et al. 2023): ratio of two directions, logarithm to base 10."""
    home = f"{_GITHUB}molecularinformatics/Computational-ADME/b00df003de117ce9e5b381afd886095c5f2af2d5/"
    target = "LOG MDR1-MDCK ER (B-A/A-B)"
    return _file("efflux", "biogen/ADME_public_set_3521.csv", f"{home}ADME_public_set_3521.csv", "SMILES", target)


def load_logbb() -> Dataset:
    """B3DB (Meng et al. 2021): ratio of concentrations in brain and blood, logarithm to base 10."""
    url = f"{_GITHUB}theochem/B3DB/75dab1cc607bb7a03f3de5c576cffd223e767844/B3DB/B3DB_regression.tsv"
    return _file("logbb", "b3db/B3DB_regression.tsv", url, "SMILES", "logBB", sep="\t")


def _file(name: str, file: str, url: str, smiles: Hashable, target: Hashable, **read: Any) -> Dataset:
    """The data set `name` of the catalogue from a file, without the molecules that have no target in it."""
    table = pd.read_csv(public_file(file, [url], str(SOURCES[name].sha256)), **read)
    table = table[table[target].notna()]
    molecules = table[smiles].str.strip()
    return _molecules(name, molecules, table[target], inchi_skeletons(molecules))
