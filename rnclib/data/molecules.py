"""Molecules as graphs, as groups for splitting, and as descriptors (RDKit, PyTorch Geometric)."""

from __future__ import annotations

import functools
import sqlite3
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from tqdm import tqdm

from rnclib.data import Split, cache_dir, group_split, sample_numbers

if TYPE_CHECKING:
    from torch_geometric.data import Data

__all__ = [
    "READABLE",
    "Graphs",
    "Molecules",
    "canonical_smiles",
    "descriptors",
    "graphs_from_smiles",
    "has_nitrogen",
    "inchi_skeletons",
    "murcko_scaffold",
    "n_heavy_atoms",
    "parse",
    "readable",
    "split",
]

# what descriptors take seconds for; the time that they take grows with the fourth power of the number of atoms
_MOST_ATOMS, _MOST_RINGS, _MOST_BONDS = 500, 40, 10
_LONGEST = 100  # characters of a SMILES in a message
#: What SMILES have to be.
READABLE = (
    f"SMILES that RDKit can read, of 1 to {_MOST_ATOMS} atoms with at most {_MOST_BONDS} bonds each, "
    f"and at most {_MOST_RINGS} rings"
)


@functools.cache
def _geometric() -> Any:
    """PyTorch Geometric, imported when the first graph is made."""
    with warnings.catch_warnings():  # torch-geometric 2.8 scripts helpers and asks for widgets at import time
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", FutureWarning)
        warnings.filterwarnings("ignore", "IProgress not found")
        import torch_geometric.data
        import torch_geometric.utils
    return torch_geometric


@dataclass(frozen=True)
class Graphs:
    """Molecular graphs laid end to end, so that a few index operations make a batch.

    Joining single graphs into a batch would take much of the time of a training step on the CPU.

    Attributes
    ----------
    x : Tensor, shape (n_atoms, 9), float32
        PyTorch Geometric's atom features of all molecules.
    edge_index : Tensor, shape (2, n_directed_bonds), int64
        Ends of each bond, both ways, counted from the molecule's first atom.
    node_start, edge_start : Tensor, shape (n_molecules + 1,), int64
        Where each molecule's atoms and bonds begin.
    smiles : tuple of str
        Each molecule as the source gives it.
    published : ndarray, shape (n_molecules,), or None
        Prediction of the target that the source itself publishes.
    """

    x: torch.Tensor
    edge_index: torch.Tensor
    node_start: torch.Tensor
    edge_start: torch.Tensor
    smiles: tuple[str, ...] = ()
    published: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.node_start) - 1

    def __getitem__(self, index: np.ndarray | Sequence[int]) -> Data:
        """Batch of the molecules `index`, in that order, as one disconnected graph."""
        wanted = torch.as_tensor(sample_numbers(index, len(self)), dtype=torch.int64, device=self.x.device)
        atoms, molecule = _ragged_take(self.node_start, wanted)
        bonds, molecule_of_bond = _ragged_take(self.edge_start, wanted)
        n_atoms = self.node_start[wanted + 1] - self.node_start[wanted]
        first_atom = torch.cumsum(n_atoms, 0) - n_atoms
        edge_index = self.edge_index[:, bonds] + first_atom[molecule_of_bond]
        return _geometric().data.Data(x=self.x[atoms], edge_index=edge_index, batch=molecule, batch_size=len(wanted))

    def to(self, device: torch.device | str) -> Graphs:
        """The same graphs on `device`."""
        tensors: dict[str, Any] = {
            name: value.to(device) for name, value in vars(self).items() if isinstance(value, torch.Tensor)
        }
        return replace(self, **tensors)

    def take(self, index: np.ndarray | Sequence[int]) -> Graphs:
        """The molecules `index`, in that order, as graphs of their own."""
        numbers = sample_numbers(index, len(self))
        wanted = torch.as_tensor(numbers, dtype=torch.int64, device=self.x.device)
        atoms, _ = _ragged_take(self.node_start, wanted)
        bonds, _ = _ragged_take(self.edge_start, wanted)

        def starts(start: torch.Tensor) -> torch.Tensor:
            return torch.cat([start.new_zeros(1), start.diff()[wanted].cumsum(0)])

        return Graphs(
            x=self.x[atoms],
            edge_index=self.edge_index[:, bonds],
            node_start=starts(self.node_start),
            edge_start=starts(self.edge_start),
            smiles=tuple(self.smiles[i] for i in numbers) if self.smiles else (),
            published=None if self.published is None else self.published[numbers],
        )


@dataclass(frozen=True)
class Molecules:
    """Molecules as their source writes them: graphs are made of those that a network sees as graphs.

    Attributes
    ----------
    smiles : tuple of str
    """

    smiles: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.smiles)

    def take(self, index: np.ndarray | Sequence[int]) -> Molecules:
        """The molecules `index`, in that order."""
        return Molecules(tuple(self.smiles[i] for i in sample_numbers(index, len(self))))

    def graphs(self) -> Graphs:
        """The same molecules as graphs, see `graphs_from_smiles`."""
        return graphs_from_smiles(self.smiles)


def _ragged_take(start: torch.Tensor, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Positions of all atoms (or bonds) of the molecules `index`, and to which of these molecules each one belongs."""
    length = start[index + 1] - start[index]
    molecule = torch.repeat_interleave(length)
    before = torch.cumsum(length, 0) - length
    return torch.arange(len(molecule), device=molecule.device) + (start[index] - before)[molecule], molecule


def graphs_from_smiles(smiles: Sequence[str]) -> Graphs:
    """Parse SMILES into graphs with PyTorch Geometric's nine atom features, as floats.

    Parameters
    ----------
    smiles : sequence of str

    Raises
    ------
    ValueError
        If RDKit cannot parse one of them, or an atom has a feature that these do not count up to.
    """
    canonical_smiles(smiles)  # refuses what cannot be parsed
    graphs = [_graph(s) for s in smiles]

    def starts(lengths: list[int]) -> torch.Tensor:
        return torch.tensor(np.concatenate([[0], np.cumsum(lengths)]))

    return Graphs(
        x=torch.cat([graph.x for graph in graphs]).float(),
        edge_index=torch.cat([graph.edge_index for graph in graphs], dim=1),
        node_start=starts([graph.num_nodes for graph in graphs]),
        edge_start=starts([graph.num_edges for graph in graphs]),
        smiles=tuple(smiles),
    )


def _graph(smiles: str) -> Data:
    try:
        return _geometric().utils.from_smiles(smiles)
    except ValueError as error:  # such as a charge of 9
        why = f"{smiles[:_LONGEST]!r}, whose atoms are no graph's ({error})"
        raise ValueError(f"smiles: got {why}; allowed: atoms with features of PyTorch Geometric") from None


def parse(smiles: Sequence[str]) -> list:
    """RDKit's molecules.

    Parameters
    ----------
    smiles : sequence of str

    Raises
    ------
    ValueError
        If one of them is not `READABLE`.
    """
    molecules = _molecules(smiles)
    if bad := [s for s, molecule in zip(smiles, molecules, strict=True) if molecule is None]:
        shown = ", ".join(repr(s[:_LONGEST]) for s in bad[:5]) + (", …" if len(bad) > 5 else "")
        raise ValueError(f"smiles: got {len(bad)} that cannot be read ({shown}); allowed: {READABLE}")
    return molecules


def readable(smiles: Sequence[str]) -> np.ndarray:
    """Which SMILES are `READABLE`; a loader leaves out the others.

    Parameters
    ----------
    smiles : sequence of str

    Examples
    --------
    >>> readable(["CCO", "C1CC", ""]).tolist()
    [True, False, False]
    """
    return np.array([molecule is not None for molecule in _molecules(smiles)], dtype=bool)


def _molecules(smiles: Sequence[str]) -> list:
    """RDKit's molecules; None for one that is not `READABLE`."""
    from rdkit import rdBase

    with rdBase.BlockLogs():
        return [_molecule(s) for s in smiles]


def _molecule(smiles: str) -> Any:
    from rdkit import Chem

    if len(smiles) > 20 * _MOST_ATOMS:
        return None
    try:
        drawn = Chem.MolFromSmiles(smiles, sanitize=False)
    except UnicodeEncodeError:
        return None
    if drawn is None or not 0 < (n := drawn.GetNumAtoms()) <= _MOST_ATOMS:
        return None
    if drawn.GetNumBonds() - n + len(Chem.GetMolFrags(drawn)) > _MOST_RINGS:  # before RDKit looks for them
        return None
    molecule = Chem.MolFromSmiles(smiles)
    fits = molecule is not None and all(atom.GetDegree() <= _MOST_BONDS for atom in molecule.GetAtoms())
    return molecule if fits else None


def canonical_smiles(smiles: Sequence[str]) -> list[str]:
    """RDKit's canonical SMILES of each molecule.

    Parameters
    ----------
    smiles : sequence of str

    Examples
    --------
    >>> canonical_smiles(["OCC", "C(O)C"])
    ['CCO', 'CCO']
    """
    from rdkit import Chem

    return [Chem.MolToSmiles(molecule) for molecule in parse(smiles)]


def murcko_scaffold(smiles: Sequence[str]) -> list[str]:
    """Bemis–Murcko scaffold of each molecule as SMILES; the empty string for a molecule without a ring.

    Parameters
    ----------
    smiles : sequence of str

    Examples
    --------
    >>> murcko_scaffold(["Cc1ccccc1", "CCO"])
    ['c1ccccc1', '']
    """
    from rdkit.Chem.Scaffolds import MurckoScaffold

    return [MurckoScaffold.MurckoScaffoldSmiles(mol=molecule) for molecule in parse(smiles)]


def inchi_skeletons(smiles: Sequence[str]) -> list[str]:
    """First block of each molecule's InChIKey: equal where atoms are joined alike, whatever their arrangement in space.

    Parameters
    ----------
    smiles : sequence of str

    Examples
    --------
    >>> first, mirrored, other = inchi_skeletons(["C[C@H](O)CC", "C[C@@H](O)CC", "CCO"])
    >>> first == mirrored, first == other
    (True, False)
    """
    from rdkit import Chem, rdBase

    with rdBase.BlockLogs():
        return [Chem.MolToInchiKey(molecule)[:14] for molecule in parse(smiles)]


def n_heavy_atoms(smiles: Sequence[str]) -> np.ndarray:
    """Number of atoms other than hydrogen of each molecule.

    Parameters
    ----------
    smiles : sequence of str

    Examples
    --------
    >>> n_heavy_atoms(["CCO", "c1ccccc1"]).tolist()
    [3, 6]
    """
    return np.array([molecule.GetNumHeavyAtoms() for molecule in parse(smiles)])


def has_nitrogen(smiles: Sequence[str]) -> np.ndarray:
    """Which molecules have a nitrogen atom.

    Parameters
    ----------
    smiles : sequence of str

    Examples
    --------
    >>> has_nitrogen(["CCN", "CCO"]).tolist()
    [True, False]
    """
    return np.array([any(atom.GetAtomicNum() == 7 for atom in molecule.GetAtoms()) for molecule in parse(smiles)])


def split(smiles: Sequence[str], kind: str, seed: int) -> Split:
    """Split molecules 80:10:10; equal molecules always stay in one set.

    Parameters
    ----------
    smiles : sequence of str
    kind : {'random', 'scaffold', 'size'}
        ``'random'`` draws molecules (by canonical SMILES). ``'scaffold'`` draws Bemis–Murcko scaffolds; one with more
        molecules than half a test set always goes to the training set. ``'size'`` tests the molecules with the most
        heavy atoms: that test set is the same for every seed; the seed draws the validation set.
    seed : int

    Raises
    ------
    ValueError
        If `kind` is unknown.
    """
    if kind == "random":
        return group_split(_cached(canonical_smiles, tuple(smiles)), seed)
    if kind == "scaffold":
        return group_split(_cached(murcko_scaffold, tuple(smiles)), seed, largest=round(0.1 * len(smiles)) / 2)
    if kind == "size":
        size = _cached(n_heavy_atoms, tuple(smiles))
        # at most a tenth of all: of molecules of the same size, all or none are tested
        largest = size > np.sort(size)[-1 - round(0.1 * len(size))]
        others, test = np.flatnonzero(~largest), np.flatnonzero(largest)
        names = np.array(_cached(canonical_smiles, tuple(smiles)))
        drawn = group_split(names[others].tolist(), seed, fractions=(7 / 9, 1 / 9, 1 / 9))
        return Split(train=others[np.sort(np.concatenate([drawn.train, drawn.test]))], val=others[drawn.val], test=test)
    raise ValueError(f"kind: got {kind!r}; allowed: 'random', 'scaffold', 'size'")


def descriptors(smiles: Sequence[str], *, progress: bool = False) -> np.ndarray:
    """All of RDKit's molecular descriptors, shape (n, n_descriptors), float32; NaN where one is undefined.

    They take some milliseconds a molecule, and are kept in the cache (`rnclib.data.cache_dir`) where it can be written.

    Parameters
    ----------
    smiles : sequence of str
    progress : bool
        Show a bar.

    Raises
    ------
    ValueError
        If one of them is not `READABLE`.
    """
    if missing := [one for one in dict.fromkeys(smiles) if one not in _DESCRIBED]:
        parse([one for one in missing if not one.isascii()])  # the cache may not take them
        with closing(_kept()) as kept:
            for some in tqdm(list(_chunks(missing, 100)), desc="describing molecules", disable=not progress):
                _DESCRIBED.update(_described(some, kept))
    return np.stack([_DESCRIBED[one] for one in smiles])


_DESCRIBED: dict[str, np.ndarray] = {}  # of this process


def _chunks(values: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    return (values[start : start + size] for start in range(0, len(values), size))


def _kept() -> sqlite3.Connection:
    """Descriptors that this or another process has computed with this version of RDKit."""
    from rdkit import rdBase

    create = "CREATE TABLE IF NOT EXISTS descriptors (smiles TEXT PRIMARY KEY, numbers BLOB) WITHOUT ROWID"
    with suppress(OSError, sqlite3.Error):
        folder = cache_dir() / "descriptors"
        folder.mkdir(parents=True, exist_ok=True)
        kept = sqlite3.connect(folder / f"rdkit-{rdBase.rdkitVersion}.sqlite", timeout=60)
        try:
            kept.execute(create)
            return kept
        except sqlite3.Error:
            kept.close()
    kept = sqlite3.connect(":memory:")  # nothing is kept
    kept.execute(create)
    return kept


def _described(smiles: Sequence[str], kept: sqlite3.Connection) -> dict[str, np.ndarray]:
    marks, found = ", ".join("?" * len(smiles)), {}
    with suppress(sqlite3.Error):  # of a damaged file nothing is taken
        rows = kept.execute(f"SELECT smiles, numbers FROM descriptors WHERE smiles IN ({marks})", smiles).fetchall()
        found = {one: np.frombuffer(numbers, np.float32) for one, numbers in rows}
    if new := {one: _describe(one) for one in smiles if one not in found}:
        kept_rows = [(one, numbers.tobytes()) for one, numbers in new.items()]
        with suppress(sqlite3.Error), kept:  # in one step; not at all where the file cannot be written
            kept.executemany("INSERT OR IGNORE INTO descriptors VALUES (?, ?)", kept_rows)
    return found | new


def _describe(smiles: str) -> np.ndarray:
    from rdkit.Chem import Descriptors

    (molecule,) = parse([smiles])
    with np.errstate(all="ignore"):  # what is too large for a number counts as undefined
        values = np.array(list(Descriptors.CalcMolDescriptors(molecule, missingVal=np.nan).values()), dtype=np.float64)
    values[np.abs(values) > np.finfo(np.float32).max] = np.nan
    return values.astype(np.float32)


@functools.lru_cache(maxsize=16)
def _cached(function, smiles: tuple[str, ...]):
    return function(smiles)
