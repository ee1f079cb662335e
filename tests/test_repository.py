"""The house itself: which room may use which, what it needs to run, and what lies in the repository."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import rnclib
from rnclib.chapters import NAMES

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


# --- who imports whom -----------------------------------------------------------------------------------

# For each module: the modules of rnclib that it uses (exactly), and the packages it may use besides the
# standard library. A new arrow is a decision about the design, and is made here.
ROOMS: dict[str, tuple[set[str], set[str]]] = {
    "rnclib": ({"rnclib.estimator", "rnclib.loss"}, set()),
    "rnclib.across": ({"rnclib.paired", "rnclib.statistics"}, {"numpy", "pandas", "scipy", "statsmodels"}),
    "rnclib.benchmark": (
        {"rnclib.loss", "rnclib.memory", "rnclib.other_losses", "rnclib.regimes", "rnclib.results"},
        {"numpy", "pandas", "torch"},
    ),
    "rnclib.chapters": ({"rnclib.experiment"}, set()),
    "rnclib.chapters.__main__": ({"rnclib.chapters"}, set()),
    "rnclib.chapters.ablations": (
        {"rnclib.chapters.base", "rnclib.claims", "rnclib.experiment", "rnclib.recipe", "rnclib.statistics"},
        {"pandas"},
    ),
    "rnclib.chapters.agedb": (
        {"rnclib.chapters.base", "rnclib.claims", "rnclib.experiment", "rnclib.protocols", "rnclib.recipe"},
        {"numpy", "pandas"},
    ),
    "rnclib.chapters.aims": (
        {
            "rnclib.across",
            "rnclib.chapters.tasks",
            "rnclib.paired",
            "rnclib.protocols.concrete",
            "rnclib.protocols.tasks",
            "rnclib.statistics",
        },
        {"pandas"},
    ),
    "rnclib.chapters.base": (
        {
            "rnclib.claims",
            "rnclib.data.catalogue",
            "rnclib.experiment",
            "rnclib.protocols",
            "rnclib.recipe",
            "rnclib.results",
        },
        {"pandas"},
    ),
    "rnclib.chapters.benchmark": ({"rnclib.chapters.base"}, set()),
    "rnclib.chapters.claims": (
        {
            "rnclib.chapters",
            "rnclib.chapters.base",
            "rnclib.claims",
            "rnclib.experiment",
            "rnclib.protocols",
            "rnclib.protocols.search",
        },
        set(),
    ),
    "rnclib.chapters.data_efficiency": (
        {"rnclib.chapters.base", "rnclib.claims", "rnclib.experiment", "rnclib.protocols", "rnclib.protocols.search"},
        {"pandas"},
    ),
    "rnclib.chapters.esol": (
        {"rnclib.chapters.base", "rnclib.claims", "rnclib.experiment", "rnclib.protocols", "rnclib.recipe"},
        {"pandas"},
    ),
    "rnclib.chapters.loss": ({"rnclib.chapters.base"}, set()),
    "rnclib.chapters.methods": (
        {"rnclib.chapters.base", "rnclib.claims", "rnclib.experiment", "rnclib.protocols.search"},
        {"pandas"},
    ),
    "rnclib.chapters.robustness": (
        {
            "rnclib.chapters.base",
            "rnclib.claims",
            "rnclib.data.catalogue",
            "rnclib.data.shifts",
            "rnclib.experiment",
            "rnclib.protocols",
        },
        {"numpy", "pandas"},
    ),
    "rnclib.chapters.tasks": (
        {
            "rnclib.across",
            "rnclib.chapters.base",
            "rnclib.data.catalogue",
            "rnclib.experiment",
            "rnclib.protocols.concrete",
            "rnclib.protocols.settings",
            "rnclib.protocols.tasks",
            "rnclib.results",
        },
        {"numpy", "pandas", "scipy"},
    ),
    "rnclib.chapters.your_data": (
        {"rnclib.chapters.base", "rnclib.data", "rnclib.data.csv_files"},
        {"sklearn"},
    ),
    "rnclib.claims": ({"rnclib.paired", "rnclib.results", "rnclib.statistics"}, {"numpy", "pandas"}),
    "rnclib.cluster": (set(), {"distributed"}),
    "rnclib.comparison": (
        {
            "rnclib",
            "rnclib.data",
            "rnclib.estimator",
            "rnclib.files",
            "rnclib.fitting",
            "rnclib.held_out",
            "rnclib.paired",
            "rnclib.recipe",
        },
        {"numpy", "pandas", "sklearn", "torch", "tqdm"},
    ),
    "rnclib.data": (set(), {"numpy", "pooch"}),
    "rnclib.data.agedb": ({"rnclib.data", "rnclib.data.images"}, {"numpy", "pandas"}),
    "rnclib.data.augment": ({"rnclib.data.images"}, {"numpy", "torch"}),
    "rnclib.data.catalogue": ({"rnclib.data"}, set()),
    "rnclib.data.corruptions": ({"rnclib.data.molecules"}, {"PIL", "numpy", "scipy", "torch"}),
    "rnclib.data.earth": (
        {"rnclib.data", "rnclib.data.catalogue", "rnclib.data.images"},
        {"PIL", "numpy", "torch"},
    ),
    "rnclib.data.cleaning": ({"rnclib.data.csv_files", "rnclib.data.numerals"}, {"numpy", "pandas"}),
    "rnclib.data.csv_files": ({"rnclib.data.numerals", "rnclib.files"}, {"numpy", "pandas", "tqdm"}),
    "rnclib.data.esol": (
        {"rnclib.data", "rnclib.data.catalogue", "rnclib.data.molecules"},
        {"numpy", "pandas", "rdkit"},
    ),
    "rnclib.data.images": ({"rnclib.data", "rnclib.files"}, {"PIL", "numpy", "torch", "tqdm"}),
    "rnclib.data.large_tables": (
        {"rnclib.data.csv_files", "rnclib.data.numerals"},
        {"numpy", "pandas", "pyarrow", "tqdm"},
    ),
    "rnclib.data.molecules": ({"rnclib.data"}, {"numpy", "rdkit", "torch", "torch_geometric", "tqdm"}),
    "rnclib.data.numerals": (set(), {"numpy", "pandas"}),
    "rnclib.data.properties": (
        {"rnclib.data", "rnclib.data.catalogue", "rnclib.data.esol", "rnclib.data.molecules"},
        {"pandas"},
    ),
    "rnclib.data.shifts": ({"rnclib.data"}, {"numpy"}),
    "rnclib.data.synthetic": ({"rnclib.data", "rnclib.data.agedb", "rnclib.files"}, {"PIL", "numpy", "pandas", "tqdm"}),
    "rnclib.data.tables": (
        {"rnclib.data", "rnclib.data.catalogue"},
        {"numpy", "pandas", "scipy", "sklearn"},
    ),
    "rnclib.encoders": (set(), {"torch", "torch_geometric", "torchvision"}),
    "rnclib.estimator": (
        {
            "rnclib.data",
            "rnclib.fitting",
            "rnclib.held_out",
            "rnclib.inputs",
            "rnclib.networks",
            "rnclib.reading",
            "rnclib.recipe",
            "rnclib.regressors",
            "rnclib.saved",
            "rnclib.training",
            "rnclib.vectoriser",
        },
        {"numpy", "sklearn", "torch", "tqdm"},
    ),
    "rnclib.evaluation": (
        {
            "rnclib.data",
            "rnclib.data.corruptions",
            "rnclib.data.images",
            "rnclib.fitting",
            "rnclib.loss",
            "rnclib.metrics",
            "rnclib.recipe",
        },
        {"numpy", "sklearn", "torch"},
    ),
    "rnclib.experiment": (
        {
            "rnclib.data",
            "rnclib.data.catalogue",
            "rnclib.data.shifts",
            "rnclib.data.synthetic",
            "rnclib.evaluation",
            "rnclib.files",
            "rnclib.fitting",
            "rnclib.memory",
            "rnclib.provenance",
            "rnclib.recipe",
            "rnclib.results",
        },
        {"numpy", "torch"},
    ),
    "rnclib.files": (set(), set()),
    "rnclib.first_run": (
        {
            "rnclib.chapters",
            "rnclib.data.catalogue",
            "rnclib.experiment",
            "rnclib.notebook",
            "rnclib.results",
            "rnclib.statistics",
        },
        {"torch"},
    ),
    "rnclib.fitting": (
        {
            "rnclib.inputs",
            "rnclib.networks",
            "rnclib.other_packages",
            "rnclib.recipe",
            "rnclib.regressors",
            "rnclib.training",
        },
        {"numpy", "torch"},
    ),
    "rnclib.networks": (
        {"rnclib.encoders", "rnclib.inputs", "rnclib.recipe", "rnclib.regressors", "rnclib.training"},
        {"lightning_fabric", "numpy", "torch"},
    ),
    "rnclib.drawings": (set(), {"PIL", "matplotlib"}),
    "rnclib.forest": ({"rnclib.claims", "rnclib.drawings", "rnclib.plots"}, {"matplotlib", "pandas"}),
    "rnclib.grid": (
        {
            "rnclib.cluster",
            "rnclib.experiment",
            "rnclib.files",
            "rnclib.fitting",
            "rnclib.provenance",
            "rnclib.results",
        },
        {"joblib", "torch", "tqdm"},
    ),
    "rnclib.reading": (
        {"rnclib.data.images", "rnclib.data.molecules", "rnclib.vectoriser"},
        {"numpy", "pandas", "sklearn"},
    ),
    "rnclib.held_out": ({"rnclib.data.images", "rnclib.data.molecules"}, {"numpy", "pandas"}),
    "rnclib.inputs": (
        {"rnclib.data.augment", "rnclib.data.images", "rnclib.data.molecules", "rnclib.recipe", "rnclib.training"},
        {"numpy", "sklearn", "torch"},
    ),
    "rnclib.interactive": (
        {"rnclib.data.molecules", "rnclib.report"},
        {"matplotlib", "numpy", "pandas", "rdkit"},
    ),
    "rnclib.loss": ({"rnclib.loss.criterion", "rnclib.loss.labels"}, set()),
    "rnclib.loss.checks": (set(), {"torch"}),
    "rnclib.loss.criterion": (
        {"rnclib.loss.checks", "rnclib.loss.fast", "rnclib.loss.plain", "rnclib.loss.processes"},
        {"torch"},
    ),
    "rnclib.loss.fast": ({"rnclib.loss.checks", "rnclib.loss.labels", "rnclib.loss.plain"}, {"torch"}),
    "rnclib.loss.labels": ({"rnclib.loss.checks"}, {"numpy", "torch"}),
    "rnclib.loss.plain": ({"rnclib.loss.checks", "rnclib.loss.labels"}, {"torch"}),
    "rnclib.loss.processes": ({"rnclib.loss.checks"}, {"torch"}),
    "rnclib.memory": (set(), set()),
    "rnclib.metrics": (set(), {"numpy", "scipy"}),
    "rnclib.notebook": (
        {
            "rnclib.chapters",
            "rnclib.claims",
            "rnclib.data.catalogue",
            "rnclib.experiment",
            "rnclib.grid",
            "rnclib.plots",
            "rnclib.recipe",
            "rnclib.report",
            "rnclib.results",
        },
        {"IPython", "pandas"},
    ),
    "rnclib.other_losses": (set(), {"torch"}),
    "rnclib.other_packages": ({"rnclib.regressors"}, {"chemprop", "lightning", "numpy", "torch"}),
    "rnclib.origins": (
        {
            "rnclib.chapters",
            "rnclib.chapters.base",
            "rnclib.data.catalogue",
            "rnclib.experiment",
            "rnclib.files",
            "rnclib.records",
            "rnclib.results",
        },
        {"pandas"},
    ),
    "rnclib.paired": (set(), {"baycomp", "numpy", "scipy", "statsmodels"}),
    "rnclib.parameters": ({"rnclib.files"}, set()),
    "rnclib.plots": ({"rnclib.drawings", "rnclib.statistics"}, {"matplotlib", "numpy", "pandas", "seaborn"}),
    "rnclib.protocols": ({"rnclib.data.catalogue", "rnclib.recipe"}, set()),
    "rnclib.protocols.__main__": (
        {
            "rnclib.chapters",
            "rnclib.chapters.claims",
            "rnclib.experiment",
            "rnclib.fitting",
            "rnclib.grid",
            "rnclib.protocols.settings",
            "rnclib.protocols.tasks",
        },
        set(),
    ),
    "rnclib.protocols.concrete": ({"rnclib.experiment", "rnclib.recipe"}, {"pandas"}),
    "rnclib.protocols.settings": (
        {
            "rnclib.data",
            "rnclib.data.catalogue",
            "rnclib.fitting",
            "rnclib.protocols.tasks",
            "rnclib.provenance",
            "rnclib.results",
            "rnclib.tuning",
        },
        {"joblib", "numpy", "pandas", "torch", "tqdm"},
    ),
    "rnclib.protocols.tasks": ({"rnclib.data.catalogue", "rnclib.experiment", "rnclib.recipe"}, set()),
    "rnclib.protocols.search": ({"rnclib.recipe"}, set()),
    "rnclib.provenance": ({"rnclib.fitting", "rnclib.results"}, {"torch"}),
    "rnclib.publishing": ({"rnclib.files"}, {"nbformat", "papermill"}),
    "rnclib.recipe": (set(), set()),
    "rnclib.regimes": ({"rnclib.encoders", "rnclib.loss", "rnclib.protocols"}, {"torch"}),
    "rnclib.regressors": ({"rnclib.data.molecules"}, {"catboost", "numpy", "sklearn"}),
    "rnclib.report": (
        {"rnclib.data.catalogue", "rnclib.drawings", "rnclib.publishing"},
        {"IPython", "matplotlib", "pandas"},
    ),
    "rnclib.records": ({"rnclib.files"}, {"pandas"}),
    "rnclib.results": ({"rnclib.files", "rnclib.records"}, {"numpy", "pandas"}),
    "rnclib.simulation": ({"rnclib.claims", "rnclib.paired", "rnclib.results"}, {"numpy", "pandas"}),
    "rnclib.standings": ({"rnclib.plots"}, {"matplotlib", "numpy", "pandas"}),
    "rnclib.statistics": ({"rnclib.paired", "rnclib.results"}, {"numpy", "pandas", "scipy"}),
    "rnclib.tables": ({"rnclib.report", "rnclib.statistics"}, {"pandas"}),
    "rnclib.throughput": (
        {
            "rnclib.benchmark",
            "rnclib.data",
            "rnclib.data.augment",
            "rnclib.data.images",
            "rnclib.data.synthetic",
            "rnclib.encoders",
            "rnclib.protocols",
            "rnclib.recipe",
            "rnclib.results",
            "rnclib.training",
        },
        {"PIL", "lightning_fabric", "numpy", "pandas", "torch", "torchvision"},
    ),
    "rnclib.saved": (
        {
            "rnclib.data.molecules",
            "rnclib.files",
            "rnclib.inputs",
            "rnclib.networks",
            "rnclib.recipe",
            "rnclib.regressors",
            "rnclib.vectoriser",
        },
        {"numpy", "safetensors", "scipy", "torch"},
    ),
    "rnclib.vectoriser": (set(), {"numpy", "pandas", "skrub"}),
    "rnclib.your_data": (
        {
            "rnclib.comparison",
            "rnclib.data",
            "rnclib.data.cleaning",
            "rnclib.data.csv_files",
            "rnclib.data.images",
            "rnclib.data.large_tables",
            "rnclib.data.molecules",
            "rnclib.data.numerals",
            "rnclib.estimator",
            "rnclib.files",
        },
        {"numpy", "pandas"},
    ),
    "rnclib.__main__": (
        {
            "rnclib.comparison",
            "rnclib.data.csv_files",
            "rnclib.data.large_tables",
            "rnclib.estimator",
            "rnclib.recipe",
            "rnclib.your_data",
        },
        set(),
    ),
    # the search sees a training and a validation set: no way leads from it to a test set
    "rnclib.tuning": (
        {"rnclib.files", "rnclib.fitting", "rnclib.recipe", "rnclib.regressors", "rnclib.results"},
        {"numpy", "optuna"},
    ),
    "rnclib.training": (
        {"rnclib.files", "rnclib.loss", "rnclib.other_losses", "rnclib.recipe"},
        {"lightning_fabric", "numpy", "torch"},
    ),
}


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted((ROOT / "rnclib").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports_of(source: str, module: str, known: set[str], *, package: bool = False) -> set[str]:
    """Modules of `known`, and packages from elsewhere, that a source uses anywhere but for type checking."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = [ast.Pass()]

    def resolved(name: str) -> str:
        while name not in known and name.startswith("rnclib."):
            name = name.rpartition(".")[0]
        return name if name in known else name.partition(".")[0]

    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {resolved(alias.name) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[: len(module.split(".")) - node.level + package]
            start = ".".join([*above, *filter(None, [node.module])]) if node.level else node.module
            found |= {resolved(f"{start}.{alias.name}") for alias in node.names}
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            found |= {resolved(a.value) for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)}
    return found - {module}


def arrows() -> dict[str, set[str]]:
    known = modules()
    return {
        name: imports_of(path.read_text(encoding="utf-8"), name, set(known), package=path.name == "__init__.py")
        for name, path in known.items()
    }


def faults(found: dict[str, set[str]], rooms: dict[str, tuple[set[str], set[str]]]) -> list[str]:
    """What a reader of `rooms` would be told wrongly."""
    told = [f"{name} has no room in ROOMS of tests/test_repository.py" for name in found.keys() - rooms.keys()]
    for name in found.keys() & rooms.keys():
        ours, others = rooms[name]
        inside = {used for used in found[name] if used.partition(".")[0] == "rnclib"}
        told += [f"{name} uses {used}" for used in inside - ours]
        told += [f"{name} no longer uses {used}" for used in ours - inside]
        told += [f"{name} uses {used}" for used in found[name] - inside - others - sys.stdlib_module_names]
    return sorted(told)


def reach(start: str, found: dict[str, set[str]]) -> set[str]:
    seen, waiting = set(), [start]
    while waiting:
        for used in found.get(waiting.pop(), set()) - seen:
            seen.add(used)
            waiting.append(used)
    return seen


def test_each_module_uses_what_its_room_allows():
    assert faults(arrows(), ROOMS) == []


def test_the_arrows_keep_the_principles_of_the_design():
    found = arrows()
    for name in found:
        assert name not in reach(name, found), f"{name} is in a circle of imports"
    without_torch = (
        "recipe",
        "results",
        "paired",
        "across",
        "statistics",
        "claims",
        "simulation",
        "tables",
        "metrics",
        "plots",
        "report",
        "parameters",
        "publishing",
    )
    for name in (*(f"rnclib.{one}" for one in without_torch), "rnclib.data.catalogue", "rnclib.protocols"):
        assert not reach(name, found) & {"torch", "torch_geometric", "lightning_fabric", "rnclib.training"}, name
    for name in found:
        if name.startswith("rnclib.data"):
            assert not reach(name, found) & {"rnclib.training", "rnclib.encoders", "rnclib.loss", "rnclib.recipe"}, name
    # a loss, a network or a fit can be had without the store, a test set or a chapter
    private = {"rnclib.results", "rnclib.experiment", "rnclib.grid", "rnclib.chapters", "rnclib.protocols"}
    private |= {"rnclib.report", "rnclib.data.catalogue", "rnclib.evaluation"}
    for name in ("loss", "recipe", "training", "encoders", "fitting"):
        assert not reach(f"rnclib.{name}", found) & private, name
    assert "rnclib.results" not in reach("rnclib.evaluation", found)
    assert "rnclib.grid" not in reach("rnclib.experiment", found)
    chapters = {f"rnclib.chapters.{name}" for name in NAMES}
    for name in chapters:
        assert not reach(name, found) & (chapters - {name}), f"{name} knows another chapter"


@pytest.mark.parametrize(
    "line",
    [
        "from rnclib import results",
        "from rnclib.results import load",
        "import rnclib.results",
        "import rnclib.results as r",
        "from . import results",
        "from .results import load",
        "def later():\n    from rnclib import results",
        "import importlib\nimportlib.import_module('rnclib.results')",
        "try:\n    from rnclib import metrics, results\nexcept ImportError:\n    pass",
    ],
)
def test_a_forbidden_arrow_is_found(line):
    found = arrows()
    source = modules()["rnclib.training"].read_text(encoding="utf-8") + "\n" + line + "\n"
    found["rnclib.training"] = imports_of(source, "rnclib.training", set(found))
    assert "rnclib.training uses rnclib.results" in faults(found, ROOMS)
    assert "rnclib.results" in reach("rnclib.training", found)


def test_forbidden_packages_and_unknown_rooms_are_found():
    found = {name: ours | others for name, (ours, others) in ROOMS.items()}
    found["rnclib.results"] = found["rnclib.results"] | {"torch"}
    found["rnclib.drawer"] = {"rnclib.experiment"}
    found["rnclib.training"] = found["rnclib.training"] - {"rnclib.loss"}
    assert faults(found, ROOMS) == [
        "rnclib.drawer has no room in ROOMS of tests/test_repository.py",
        "rnclib.results uses torch",
        "rnclib.training no longer uses rnclib.loss",
    ]
    assert imports_of("if TYPE_CHECKING:\n    import torch\nimport os", "rnclib.results", set(ROOMS)) == {"os"}
    assert imports_of("from . import esol", "rnclib.data", set(found), package=True) == {"rnclib.data.esol"}


def writes(source: str, function: str = "write") -> bool:
    """Whether a source writes records: calls `results.write`, or takes `write` from the store."""
    return any(
        (isinstance(node, ast.Call) and re.fullmatch(rf"(\w+\.)*results\.{function}", ast.unparse(node.func)))
        or (
            isinstance(node, ast.ImportFrom)
            and (node.module or "").endswith("results")
            and any(alias.name == function for alias in node.names)
        )
        for node in ast.walk(ast.parse(source))
    )


def test_only_the_grid_writes_records():
    sources = {name: path.read_text(encoding="utf-8") for name, path in modules().items()}
    sources |= {path.name: path.read_text(encoding="utf-8") for path in (ROOT / "notebooks").glob("*.py")}
    assert {name for name, source in sources.items() if writes(source)} == {"rnclib.grid"}
    # measurements of the benchmark, simulations and searches are no runs, and lie in folders of their own
    others = {name for name, source in sources.items() if writes(source, "write_text")}
    assert others <= {"rnclib.grid", "rnclib.benchmark", "rnclib.simulation", "rnclib.tuning"}
    assert writes("from rnclib.results import write") and writes("import rnclib\nrnclib.results.write(1, 2)")
    assert not writes("from rnclib.results import load") and not writes("results.write_text(1, 2)")


# --- what a module offers -------------------------------------------------------------------------------


def offered(source: str) -> set[str]:
    """Names in `__all__`."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


def taken_from(source: str, known: set[str]) -> set[tuple[str, str]]:
    """Modules of rnclib, and names that a source takes from them."""
    tree, alias, found = ast.parse(source), {}, set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rnclib"):
            for one in node.names:
                if f"{node.module}.{one.name}" in known:
                    alias[one.asname or one.name] = f"{node.module}.{one.name}"
                else:
                    found.add((node.module, one.name))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in alias:
            found.add((alias[node.value.id], node.attr))
    return found


def test_what_others_use_of_a_module_is_in_its_all():
    sources = {name: path.read_text(encoding="utf-8") for name, path in modules().items()}
    users = [*sources.values(), *(path.read_text(encoding="utf-8") for path in (ROOT / "notebooks").glob("*.py"))]
    used = {one for source in users for one in taken_from(source, set(sources))}
    # the constants of the published views are those of one module, and measured by another
    used = {(module, name) for module, name in used if not (module == "rnclib.data.augment" and name.isupper())}
    assert len(used) > 150
    assert {(module, name) for module, name in used if name not in offered(sources[module])} == set()
    example = "from rnclib import results\nfrom rnclib.results import load\nresults.view(1)"
    assert taken_from(example, set(sources)) == {("rnclib.results", "load"), ("rnclib.results", "view")}


# --- how long and how wide --------------------------------------------------------------------------------

# the public loss takes what the official one takes, and options of its own
MANY_PARAMETERS = {  # scikit-learn wants each setting of an estimator as a parameter
    "rnclib.estimator.RnCRegressor.__init__",
    "rnclib.loss.criterion.rnc_loss",
    "rnclib.loss.criterion.RnCLoss.__init__",
}


def functions(source: str, module: str) -> dict[str, tuple[int, int]]:
    """Lines of code and number of parameters of each function, inner ones counted with the outer."""
    found = {}

    def visit(node: ast.AST, name: str) -> None:
        for inner in ast.iter_child_nodes(node):
            if isinstance(inner, ast.FunctionDef | ast.ClassDef):
                its = f"{name}.{inner.name}"
                if isinstance(inner, ast.FunctionDef):
                    first = inner.body[0]
                    is_docstring = isinstance(first, ast.Expr) and isinstance(
                        getattr(first, "value", None), ast.Constant
                    )
                    told = first.end_lineno - first.lineno + 1 if is_docstring else 0
                    arguments = inner.args
                    given = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
                    n_parameters = len([one for one in given if one.arg not in ("self", "cls")])
                    found[its] = (inner.end_lineno - inner.lineno + 1 - told, n_parameters)
                visit(inner, its)

    visit(ast.parse(source), module)
    return found


def test_functions_are_short_and_take_few_parameters():
    found = {
        name: size
        for module, path in modules().items()
        for name, size in functions(path.read_text(encoding="utf-8"), module).items()
    }
    assert len(found) > 300
    assert {name: lines for name, (lines, _) in found.items() if lines > 60} == {}
    many = {name for name, (_, parameters) in found.items() if parameters > 8}
    assert many <= MANY_PARAMETERS, many
    long = 'def f(a, b, c, d, e, g, h, i, j):\n    """Told."""\n' + "    a += 1\n" * 60
    assert functions(long, "m") == {"m.f": (61, 9)}


def test_modules_are_of_a_size_to_read():
    lines = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in modules().items()}
    assert {name for name, n in lines.items() if n > 600} == set()


# --- what an import needs -------------------------------------------------------------------------------


def run_python(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_library_and_its_report_do_not_import_torch():
    program = """
import sys
import rnclib, rnclib.report
assert "torch" not in sys.modules and "numpy" not in sys.modules, "import rnclib, rnclib.report"
import rnclib.results, rnclib.metrics, rnclib.plots, rnclib.recipe, rnclib.data.catalogue, rnclib.protocols
assert "torch" not in sys.modules, "import rnclib.results, rnclib.metrics, rnclib.plots, …"
assert set(rnclib.__all__) <= set(dir(rnclib))
from rnclib import RnCLoss
assert "torch" in sys.modules
print(RnCLoss.__module__)
from rnclib import RnCRegressor
assert "lightning_fabric" not in sys.modules, "predicting does not train"
"""
    assert run_python(program).strip() == "rnclib.loss.criterion"


def test_the_loss_uses_numpy_and_torch_alone():
    program = """
import sys
import numpy, torch
before = set(sys.modules)
import rnclib, rnclib.loss
from rnclib import RnCLoss
RnCLoss()(torch.rand(200, 2, 3, requires_grad=True), torch.rand(200)).backward()
print(*sorted(set(sys.modules) - before))
"""
    loaded = [name for name in run_python(program).split() if name.partition(".")[0] not in sys.stdlib_module_names]
    ours = {name for name in loaded if name.partition(".")[0] not in ("numpy", "torch")}
    assert "rnclib.loss" in ours and ours <= {name for name in modules() if name.startswith("rnclib.loss")} | {"rnclib"}
    assert {r.name for r in requirements("dependencies")} == {"numpy", "torch"}


def test_training_imports_what_the_extra_train_installs():
    others = {
        "forest",
        "notebook",
        "plots",
        "standings",
        "comparison",
        "estimator",
        "held_out",
        "reading",
        "saved",
        "vectoriser",
        "your_data",
    }  # figures, RnCRegressor
    names = sorted(name for name in modules() if name.split(".")[-1] not in others and "__main__" not in name)
    program = f"""
import importlib, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {{"papermill", "jupytext", "seaborn", "matplotlib", "ipykernel", "nbformat",
                                     "IPython", "jupyter_book", "sphinx", "torch_geometric", "rdkit", "torchvision",
                                     "PIL", "skrub", "safetensors", "distributed"}}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
for name in {names!r}:
    importlib.import_module(name)
try:
    import matplotlib
except ModuleNotFoundError:
    print("absent")
"""
    assert run_python(program).strip() == "absent"


def test_an_unknown_name_of_the_package_is_an_attribute_error():
    with pytest.raises(AttributeError, match="RnCLos"):
        _ = rnclib.RnCLos


# --- the environment ------------------------------------------------------------------------------------


def requirements(*names: str) -> list[Requirement]:
    """What the package or some of its extras ask of others; other methods' own packages are not pinned."""
    listed = {"dependencies": PYPROJECT["project"]["dependencies"], **PYPROJECT["project"]["optional-dependencies"]}
    found = [Requirement(line) for name in names or set(listed) - {"peers"} for line in listed[name]]
    return [r for r in found if canonicalize_name(r.name) != "rnclib"]


def pins(text: str) -> dict[str, str]:
    found = {}
    for line in text.splitlines():
        line = line.partition("#")[0].strip()
        if line:
            assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+_-]+", line), f".constraints.txt: {line}"
            name, _, version = line.partition("==")
            assert canonicalize_name(name) not in found, f".constraints.txt: {name} twice"
            found[canonicalize_name(name)] = version
    return found


def unmet(requirements: list[Requirement], pinned: dict[str, str]) -> list[str]:
    told = []
    for requirement in requirements:
        version = pinned.get(canonicalize_name(requirement.name))
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            told.append(f"{requirement}: pinned is {version}")
    return told


def test_every_direct_dependency_is_pinned_at_a_version_that_will_do():
    pinned = pins((ROOT / ".constraints.txt").read_text(encoding="utf-8"))
    assert len(requirements()) > 15
    assert unmet(requirements(), pinned) == []
    wrong = [Requirement("torch>=99"), Requirement("no-such-package"), Requirement("numpy")]
    assert unmet(wrong, pinned) == [f"torch>=99: pinned is {pinned['torch']}", "no-such-package: pinned is None"]


def test_no_dependency_names_an_address():
    assert not [str(r) for r in requirements() if r.url]


def test_conda_sets_up_what_make_sets_up():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))
    assert environment["name"] == "rnclib"
    *conda, pip = environment["dependencies"]
    assert "python=3.11" in conda and "pip" in conda
    assert [line.partition("=")[0] for line in conda if line.partition("=")[0] not in ("python", "pip")] == []
    # nothing but this checkout with its extras, at the pinned versions
    installed = [line for line in pip["pip"] if line != "-c .constraints.txt"]
    assert len(pip["pip"]) - len(installed) == 1 and len(installed) == 1
    extras = re.fullmatch(r"-e \.\[([a-z,]+)\]", installed[0])
    assert extras, installed
    named = set(extras[1].split(","))
    made = re.search(r"install .*-c \.constraints\.txt -e '\.\[([a-z,]+)\]'", (ROOT / "Makefile").read_text())
    assert made, "the Makefile installs something else"
    assert named == set(made[1].split(","))
    # all but other methods' own packages, which are large
    assert reached_extras(named) | {"peers"} == set(PYPROJECT["project"]["optional-dependencies"])


def reached_extras(named: set[str]) -> set[str]:
    """The extras named, and those that they contain in turn."""
    declared = PYPROJECT["project"]["optional-dependencies"]
    inner = {
        extra
        for name in named
        for requirement in map(Requirement, declared[name])
        if canonicalize_name(requirement.name) == "rnclib"
        for extra in requirement.extras
    }
    return named if inner <= named else reached_extras(named | inner)


def test_python_3_11_is_enough():
    from packaging.specifiers import SpecifierSet

    assert SpecifierSet(PYPROJECT["project"]["requires-python"]).contains("3.11.0")


def test_there_is_one_version_and_the_type_marker_is_shipped():
    assert rnclib.__version__ == PYPROJECT["project"]["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation.get("version", rnclib.__version__) == rnclib.__version__
    assert (ROOT / "rnclib" / "py.typed").is_file()
    assert "py.typed" in PYPROJECT["tool"]["setuptools"]["package-data"]["rnclib"]


def test_the_wheel_and_the_sdist_hold_the_library_alone(tmp_path):
    left_out = shutil.ignore_patterns(".*", "_build", "build", "dist", "results", "local", "__pycache__", "*.egg-info")
    shutil.copytree(ROOT, tmp_path / "copy", ignore=left_out)
    # the wheel is made from the sdist
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", "dist", "copy"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (wheel,), (sdist,) = (list((tmp_path / "dist").glob(f"*.{kind}")) for kind in ("whl", "tar.gz"))
    ours = {path.relative_to(ROOT).as_posix() for path in modules().values()} | {"rnclib/py.typed"}
    assert {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name} == ours
    with tarfile.open(sdist) as file:
        names = {member.name.partition("/")[2] for member in file if member.isfile()}
    named = {"LICENSE", "MANIFEST.in", "PKG-INFO", "README.md", "pyproject.toml", "setup.cfg"}
    assert {name for name in names if "egg-info/" not in name} == ours | named


# --- what lies in the repository ------------------------------------------------------------------------

TOP_LEVEL = {
    "book", "notebooks", "rnclib", "tests",
    "_config.yml", "_toc.yml", "environment.yml", "pyproject.toml", "MANIFEST.in", "Makefile",
    "README.md", "CHANGELOG.md", "CITATION.cff", "LICENSE",
}  # fmt: skip

# of package registries; put together here so that this file does not name one
HOSTS = [
    "py" + "pi.org", "python" + "hosted.org", "py" + "pi.python", "ana" + "conda.org", "ana" + "conda.com",
    "download.py" + "torch.org", "py" + "torch.org/whl", "pypi." + "nvidia", "npm" + "js.org", "np" + "mjs.com",
]  # fmt: skip


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    try:
        listed = subprocess.run(
            ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True, timeout=60
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        pytest.skip(f"not a git checkout: {error}")
    return [name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def named_hosts(text: str) -> list[str]:
    return [host for host in HOSTS if host in text.lower()]


def test_no_file_names_a_package_registry(tracked):
    told = {}
    for name in tracked:
        content = (ROOT / name).read_bytes()
        if b"\0" not in content and (hosts := named_hosts(content.decode("utf-8", errors="replace"))):
            told[name] = hosts
    assert told == {}
    for host in HOSTS:
        assert named_hosts(f"see https://{host.upper()}/simple") != []


def test_the_top_level_holds_what_it_should(tracked):
    names = {name.partition("/")[0] for name in tracked}
    assert {name for name in names if not name.startswith(".")} <= TOP_LEVEL
    assert {"LICENSE", "Makefile", "environment.yml", "pyproject.toml", "rnclib", "tests"} <= names


def test_nothing_that_a_machine_makes_is_tracked(tracked):
    made = re.compile(
        r"(^|/)(\.venv|_build|__pycache__|\.ipynb_checkpoints|[^/]*\.egg-info)/"
        r"|\.(tmp|pt|pyc)$|^book/(local|results/(quick|smoke))/|(^|/)delaney[^/]*\.csv$"
    )
    assert [name for name in tracked if made.search(name)] == []


def test_the_own_runs_of_a_machine_are_ignored_and_published_ones_are_not(tracked):
    def ignored(name):
        return subprocess.run(["git", "check-ignore", "-q", name], cwd=ROOT, timeout=60).returncode == 0

    for name in ("book/results/quick/esol/a.json", "book/results/smoke/esol/a.json", "book/local/esol.ipynb",
                 "_build/html/index.html", ".venv/bin/python"):  # fmt: skip
        assert ignored(name), name
    for name in ("book/results/paper/esol/a.json", "book/chapters/esol.ipynb", "rnclib/new.py"):
        assert not ignored(name), name
