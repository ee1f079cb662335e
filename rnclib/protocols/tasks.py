"""The protocol of the comparison across tasks: which tasks, arms, peers and runs, and which settings are searched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from rnclib.data import catalogue
from rnclib.experiment import Run, Selection
from rnclib.recipe import Recipe, Stage

__all__ = [
    "ARMS", "ENSEMBLE", "EQUAL_TIME", "HEADS", "NETWORKS", "OF_KIND", "OTHERS", "TASKS", "WINNERS", "Task", "method",
    "parts_of", "peers", "recipe", "runs", "same_as", "space",
]  # fmt: skip

#: The same network trained in three ways.
ARMS = ("end to end", "RnC", "joint")
#: End to end again, with settings of a longer search.
EQUAL_TIME = "end to end, equal time"
#: Other methods, on some tasks, with half as many trials.
OTHERS = ("SupCon", "Ordinal Entropy", "RankSim", "ConR")
#: Regressors of each arm: the network's own linear layer, None, or one on its features. Validation chooses.
HEADS: dict[str, tuple[str | None, ...]] = {
    arm: (*(() if arm in ("RnC", "SupCon") else (None,)), "ridge", "neighbours", "gaussian process")
    for arm in (*ARMS, *OTHERS)
}
FEW_SPLITS = 10  # of networks beside the first
MEMBERS = 5  # networks of an ensemble
#: Network and arm that won on a task by validation, see `rnclib.chapters.aims.winner`; ensembles are made of them.
WINNERS: dict[str, tuple[str, str]] = {"concrete": ("numbers", "end to end"), "esol": ("both", "RnC")}
#: What the name of an arm says besides where five of its networks predict together.
ENSEMBLE = f"ensemble of {MEMBERS}"


@dataclass(frozen=True)
class Task:
    """A data set with one kind of split.

    Attributes
    ----------
    dataset, split : str
    n_splits : int
        Seeds 0, 1, … of the comparison.
    networks : tuple of str
        Keys of `NETWORKS`; what is said over tasks is about the first.
    others : bool
        Compare the other methods too, with the first network.
    packages : tuple of str
        Models of other packages that stand beside, see `rnclib.recipe.PACKAGES`.
    searched : str, optional
        Kind of the splits that are searched on, with seeds 0, 1 and 2, where it is not `split`.
    """

    dataset: str
    split: str
    n_splits: int
    networks: tuple[str, ...]
    others: bool = False
    packages: tuple[str, ...] = ()
    searched: str | None = None

    @property
    def source(self) -> catalogue.Source:
        """What the catalogue says of the data set."""
        return catalogue.source(self.dataset)


#: Networks, and how the inputs get to them.
NETWORKS: dict[str, dict[str, Any]] = {
    "descriptors": {"model": "perceptron", "featuriser": "descriptors"},
    "graphs": {"model": "gin"},
    "both": {"model": "gin and perceptron", "featuriser": "descriptors"},
    "numbers": {"model": "perceptron"},
    "pictures": {"model": "residual"},
}
#: The first network of each kind of inputs.
OF_KIND = {"molecules": "descriptors", "table": "numbers", "images": "pictures"}


def _task(dataset: str, n_splits: int, *more: str, **others: Any) -> Task:
    source = catalogue.source(dataset)
    return Task(dataset, source.splits[0], n_splits, (OF_KIND[source.kind], *more), **others)


#: Real tasks, and two simulated ones, which are outside every pooled estimate. Larger sets have fewer splits.
TASKS: dict[str, Task] = {
    task.dataset: task
    for task in (
        _task("esol", 20, "graphs", "both", others=True, packages=("chemprop",)),
        *(_task(name, 10) for name in ("freesolv", "logbb", "efflux", "lipophilicity")),
        _task("aqsoldb", 5),
        # searched on the folds of a published table, so that its test rows stay unseen
        _task("concrete", 10, others=True, searched="published"),
        *(_task(name, 10) for name in ("diabetes", "airfoil", "abalone")),
        *(_task(name, 5) for name in ("power-plant", "protein", "california", "bike")),
        _task("latitude", 10, others=True),
        *(_task(name, 5) for name in ("kin8nm", "naval")),
    )
}

# Settings: two ends of a range in which values are drawn log-uniformly, or a list.
_NETWORK: dict[str, tuple[float, float] | list[Any]] = {
    "learning_rate": (3e-4, 3e-2),
    "weight_decay": (1e-3, 3.0),
    "batch_size": [64, 256],
    "average": [None, 0.99],
}
_PERCEPTRON = _NETWORK | {
    "epochs": [50, 100, 200],
    "width": [128, 256, 512],
    "dropout": (0.02, 0.5),
    "input_noise": (0.01, 0.5),
}
_OF_NETWORK: dict[str, dict[str, tuple[float, float] | list[Any]]] = {
    "descriptors": _PERCEPTRON | {"scaling": ["standard", "quantile"]},
    "graphs": _NETWORK | {"epochs": [100, 200]},
    "both": _PERCEPTRON | {"scaling": ["standard", "quantile"]},
    "numbers": _PERCEPTRON | {"scaling": ["standard", "quantile", "pieces"]},
    "pictures": _NETWORK | {"epochs": [20, 40]},
}
_REGRESSION: dict[str, tuple[float, float] | list[Any]] = {"loss": ["l1", "huber", "l2"]}
_OF_ARM: dict[str, dict[str, tuple[float, float] | list[Any]]] = {
    "end to end": _REGRESSION,
    "RnC": {"temperature": (0.3, 10.0)},
    "joint": _REGRESSION | {"regulariser_weight": (0.01, 10.0)},
    "SupCon": {"temperature": (0.05, 1.0), "n_bins": [5, 10, 20]},
    "Ordinal Entropy": _REGRESSION | {"regulariser_weight": (0.001, 1.0)},
    "RankSim": _REGRESSION | {"regulariser_weight": (0.001, 10.0)},
    "ConR": _REGRESSION | {"regulariser_weight": (0.01, 10.0), "window": (0.02, 1.0)},
}
_TERMS = {"joint": "rnc", "Ordinal Entropy": "ordinal entropy", "RankSim": "ranksim", "ConR": "conr"}
_FIRST = {
    "learning_rate": 3e-3, "weight_decay": 0.1, "batch_size": 256, "average": 0.99, "epochs": 100, "width": 256,
    "dropout": 0.1, "input_noise": 0.1, "scaling": "quantile", "loss": "l1", "temperature": 2.0,
    "regulariser_weight": 0.3, "n_bins": 10, "window": 0.1,
}  # fmt: skip


def space(network: str, arm: str) -> tuple[dict[str, tuple[float, float] | list[Any]], dict[str, Any]]:
    """Settings that are searched, and those of the first trial.

    Parameters
    ----------
    network : str
        One of `NETWORKS`.
    arm : str
        One of `ARMS` or `OTHERS`.

    Returns
    -------
    searched : dict
        By name of the setting: two ends of a range that is searched on a logarithmic scale, or a list of values.
    first : dict
    """
    searched = _OF_NETWORK[network] | _OF_ARM[arm]
    first = {name: _FIRST[name] for name in searched}
    first |= {"epochs": 40} if network == "pictures" else {}
    return searched, first | ({"temperature": 0.1} if arm == "SupCon" else {})


def recipe(network: str, arm: str, settings: Mapping[str, Any], head: str | None = None) -> Recipe:
    """A method with given settings.

    Parameters
    ----------
    network, arm : str
        As for `space`.
    settings : mapping
        Of the names in `space`.
    head : str, optional
        One of the arm's `HEADS`; by default that of `rnclib.recipe.Recipe`.
    """
    of_network = dict(NETWORKS[network])
    of_stage = dict(settings)
    if "width" in settings:
        width = of_stage.pop("width")
        of_network |= {"widths": (width, width, 128)}
        of_network |= {name: of_stage.pop(name) for name in ("dropout", "scaling")}
    fixed: dict[str, Any] = {"lr_decay_rate": 0.0, "optimizer": "adamw", "schedule": "one-cycle", "keep": "last"}
    if network == "pictures":
        fixed |= {"augmentation": "shifts", "n_views": 2}
    if arm in _TERMS:
        fixed["regulariser"] = _TERMS[arm]
    if arm in ("RnC", "joint"):
        fixed["ties"] = "rounding"
    if arm == "RnC":
        fixed |= {"loss": "rnc", "label_diff": "l1", "feature_sim": "l2"}
    if arm == "SupCon":
        fixed["loss"] = "supcon"
    stage = Stage(**fixed | of_stage)
    of_network |= {"head": head, "notable": ("tuned",)}
    if arm in ("RnC", "SupCon"):
        return Recipe(pretrain=stage, freeze=True, **of_network)
    return Recipe(fit=stage, **of_network)


def peers(kind: str) -> dict[str, Recipe]:
    """Other regressors, each with a few settings of which validation chooses, by the name that records have for them.

    Parameters
    ----------
    kind : {'molecules', 'table', 'images'}
    """
    featuriser = {"molecules": "descriptors", "images": "colours"}.get(kind)
    names = ["ridge", "neighbours", "gaussian process", "svr", "boosting", "trees"]
    if kind != "images":
        names.append("catboost")
    found = {name: Recipe(name, featuriser=featuriser, scaling="standard") for name in names}
    found["training mean"] = Recipe("training mean")
    if kind == "images":
        found["ridge on pixels"] = Recipe("ridge", featuriser="pixels", scaling="standard", notable=("on pixels",))
    return found


def runs(
    dataset: str, settings: Mapping[str, Mapping[str, Mapping[str, Any]]], *, profile: str, n_splits: int | None = None
) -> list[Run]:
    """All runs of a task: each arm with each of its regressors, and the peers.

    Those of one split follow each other; regressors of one network share its training.

    Parameters
    ----------
    dataset : str
        One of `TASKS`.
    settings : mapping
        By network and arm, see `rnclib.protocols.settings.settings_of`. What has the settings of the arm that it is the
        `same_as` is left out: that arm's runs stand for it.
    profile : {'paper', 'quick', 'smoke'}
    n_splits : int, optional
        By default those of the task.
    """
    task = TASKS[dataset]
    winner, _ = WINNERS.get(dataset, (task.networks[0], ""))
    methods: dict[str, Recipe] = {}
    fewer: set[str] = set()
    for network, by_arm in settings.items():
        for arm, chosen in by_arm.items():
            if (same := same_as(arm)) is not None and chosen == by_arm.get(same):
                continue
            made = _with_every_head(dataset, network, arm, chosen)
            methods |= made
            fewer |= set() if network in (task.networks[0], winner) else set(made)
    methods |= _ensembles(dataset, settings)
    methods |= peers(task.source.kind) | {name: Recipe(name) for name in task.packages}
    if profile != "paper":  # these need packages that are not installed with the others
        for name in ("catboost", *task.packages):
            methods.pop(name, None)
    data_of_run = Selection(dataset, task.split)
    return [
        Run("tasks", profile, name, seed, data_of_run, one, on_pages=False)
        for seed in range(n_splits or task.n_splits)
        for name, one in methods.items()
        if seed < FEW_SPLITS or name not in fewer
    ]


def _with_every_head(
    dataset: str, network: str, arm: str, settings: Mapping[str, Any], ensemble: int | None = None
) -> dict[str, Recipe]:
    """Recipes of an arm by the name that records have for them."""
    trained, _, effort = arm.partition(", ")
    others = network != TASKS[dataset].networks[0]
    said = ("tuned", *([network] if others else []), *filter(None, [effort]))
    name = arm if ensemble is None else f"{arm}, {ENSEMBLE}"
    return {
        method(network, name, head): replace(recipe(network, trained, settings, head), notable=said, ensemble=ensemble)
        for head in HEADS[trained]
    }


def _ensembles(dataset: str, settings: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, Recipe]:
    """Ensembles of the winner and of end-to-end training of its network, where there is a winner."""
    if dataset not in WINNERS:
        return {}
    network, arm = WINNERS[dataset]
    of_network = settings.get(network, {})
    made: dict[str, Recipe] = {}
    for one in dict.fromkeys((arm, "end to end")):
        if one in of_network:
            made |= _with_every_head(dataset, network, one, of_network[one], MEMBERS)
    return made


def same_as(arm: str) -> str | None:
    """The arm whose runs stand for those of another effort, where that has found the same settings.

    Parameters
    ----------
    arm : str

    Examples
    --------
    >>> same_as("RnC, 15 trials"), same_as("RnC")
    ('RnC', None)
    """
    trained, comma, _ = arm.partition(",")
    return trained if comma else None


def method(network: str, arm: str, head: str | None) -> str:
    """Name in records, of which `parts_of` gives the parts again.

    Parameters
    ----------
    network, arm : str
    head : str, optional
    """
    return f"{network}: {arm}; {head or 'own layer'}"


def parts_of(name: str) -> tuple[str | None, str, str | None]:
    """Network, arm and regressor of a method; of a peer its name alone, as the arm.

    Parameters
    ----------
    name : str
        From `method`, or of a peer.

    Examples
    --------
    >>> parts_of("numbers: end to end, equal time; ridge"), parts_of("svr")
    (('numbers', 'end to end, equal time', 'ridge'), (None, 'svr', None))
    """
    network, colon, rest = name.partition(": ")
    if not colon:
        return None, name, None
    arm, _, head = rest.partition("; ")
    return network, arm, head
