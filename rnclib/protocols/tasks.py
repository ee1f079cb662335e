"""The protocol of the comparison across tasks: which tasks, arms, settings that are searched, and how much of each."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from joblib import Parallel, delayed
from tqdm import tqdm

from rnclib import data, provenance, results
from rnclib.data import catalogue
from rnclib.experiment import Run, Selection
from rnclib.fitting import Samples
from rnclib.recipe import Recipe, Stage

__all__ = [
    "ARMS", "ENSEMBLE", "EQUAL_TIME", "HEADS", "NETWORKS", "OTHERS", "TASKS", "WINNERS", "Task", "default_settings",
    "method", "parts_of", "peers", "recipe", "runs", "same_as", "search_table", "search_task", "search_tasks",
    "searched_settings", "settings_of", "space",
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
N_TRIALS = 30  # of each arm
FEW_TRIALS = 15  # of each other method, which is compared with the arms after as many
MOST_TRIALS = 90  # of end-to-end training that may search for as long as Rank-N-Contrast
FEW_SPLITS = 10  # of networks beside the first
SEARCH_SPLITS = (100, 101, 102)  # seeds of splits that are never scored; a large task is searched on the first alone
MEMBERS = 5  # networks of an ensemble
#: Network and arm that won on a task by validation, see `rnclib.chapters.tasks.winner`; ensembles are made of them.
WINNERS: dict[str, tuple[str, str]] = {"concrete": ("numbers", "end to end")}
#: What the name of an arm says besides where five of its networks predict together.
ENSEMBLE = f"ensemble of {MEMBERS}"
SMALL = 1600  # samples of a task that is searched on all three
SEARCH_ROWS = 2000  # at most, of each training set


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
_OF_KIND = {"molecules": "descriptors", "table": "numbers", "images": "pictures"}


def _task(dataset: str, n_splits: int, *more: str, **others: Any) -> Task:
    source = catalogue.source(dataset)
    return Task(dataset, source.splits[0], n_splits, (_OF_KIND[source.kind], *more), **others)


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
        By network and arm, see `settings_of`. What has the settings of the arm that it is the `same_as` is left out:
        that arm's runs stand for it.
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
        Run("tasks", profile, name, seed, data_of_run, one, view=False)
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


def settings_of(dataset: str, profile: str, root: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Settings of a task's arms, by network and arm.

    Parameters
    ----------
    dataset : str
        One of `TASKS`.
    profile : {'paper', 'quick', 'smoke'}
        ``'paper'`` has what the search chose; the others have the first trial, with fewer epochs, on the first network.
    root : Path
        Folder of all records, those of the search among them.

    Returns
    -------
    dict
        Without the arms whose search has not come to its end.
    """
    networks = TASKS[dataset].networks
    if profile == "paper":
        found = {network: searched_settings(root, dataset, network) for network in networks}
        return {network: by_arm for network, by_arm in found.items() if by_arm}
    epochs = {"epochs": _SHORT_EPOCHS[profile]}
    return {networks[0]: {arm: space(networks[0], arm)[1] | epochs for arm in ARMS}}


_SHORT_EPOCHS = {"quick": 20, "smoke": 3}


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


# --- the search -------------------------------------------------------------------------------------------


def search_tasks(only: Sequence[str] = ()) -> None:
    """Search the settings of each arm on each task, or go on where a search was stopped.

    Trials lie in the store, see `rnclib.results.results_dir`.

    Parameters
    ----------
    only : sequence of str
        Data sets of `TASKS`; by default all.

    Raises
    ------
    ValueError
        If there is no such task.
    FileNotFoundError
        If its data cannot be had; the message says how to get them.
    """
    if unknown := sorted(set(only) - set(TASKS)):
        raise ValueError(f"only: got {unknown}; allowed: {', '.join(map(repr, TASKS))}")
    root = results.results_dir()
    tasks = [task for task in TASKS.values() if not only or task.dataset in only]
    # Rank-N-Contrast first: how long it takes says how long end-to-end training may go on
    for arms in (("RnC", "joint"), ("end to end",), OTHERS):
        studies = [
            (task.dataset, network, arm)
            for task in tasks
            if arms != OTHERS or task.others
            for network in (task.networks if arms != OTHERS else task.networks[:1])
            for arm in arms
        ]
        work = (delayed(_one_study)(*study, root) for study in studies)
        done = Parallel(n_jobs=os.cpu_count(), return_as="generator_unordered")(work)
        for said in tqdm(done, total=len(studies), desc=f"searches: {', '.join(arms)}"):
            tqdm.write(said)


def _one_study(dataset: str, network: str, arm: str, root: Path) -> str:
    torch.set_num_threads(1)
    few = arm in OTHERS or network != TASKS[dataset].networks[0]
    trials = search_task(dataset, network, arm, root, FEW_TRIALS if few else N_TRIALS)
    lowest = min((min(trial["errors"].values()) for trial in trials if trial["errors"]), default=float("nan"))
    return f"{dataset}, {network}, {arm}: {len(trials)} trials, lowest validation MAE {lowest:g}"


def search_task(dataset: str, network: str, arm: str, root: Path, n_trials: int = N_TRIALS) -> list[dict[str, Any]]:
    """Search the settings of an arm on a task, or go on where a search was stopped.

    End-to-end training goes on searching after that until it has taken as long as the search of Rank-N-Contrast, if
    that has been made.

    Parameters
    ----------
    dataset : str
        One of `TASKS`.
    network : str
        One of the task's.
    arm : str
        One of `ARMS` or `OTHERS`.
    root : Path
        Folder of all records, see `rnclib.results.results_dir`.
    n_trials : int

    Returns
    -------
    list of dict
        See `rnclib.tuning.search`.
    """
    from rnclib.tuning import Plan, search

    searched, first = space(network, arm)
    heads = tuple(head for head in HEADS[arm] if head != "gaussian process")  # which takes too long
    plan = Plan(searched, partial(recipe, network, arm), heads, first)
    told = {"dataset": dataset, "network": network, "arm": arm}
    go_on = partial(
        search, plan, _seen_by_search(dataset), path=_study(root, dataset, network, arm),
        told=told | provenance.circumstances("cpu"),
    )  # fmt: skip
    trials = go_on(n_trials=n_trials)
    contrastive = _trials(root, dataset, network, "RnC")
    if arm == "end to end" and network == TASKS[dataset].networks[0] and len(contrastive) >= N_TRIALS:
        trials = go_on(n_trials=MOST_TRIALS, seconds=_seconds(contrastive))
    return trials


def searched_settings(root: Path, dataset: str, network: str) -> dict[str, dict[str, Any]]:
    """What the search chose: settings by arm, for end-to-end training with equal time as well.

    Where other losses are compared, each arm stands there with what its first 15 trials found too.

    Parameters
    ----------
    root : Path
        Folder of all records.
    dataset, network : str

    Returns
    -------
    dict
        Without the arms whose search has not come to its end.
    """
    from rnclib.tuning import best_settings

    first = network == TASKS[dataset].networks[0]
    n_trials = {arm: N_TRIALS if first and arm in ARMS else FEW_TRIALS for arm in (*ARMS, *OTHERS)}
    every = {arm: _trials(root, dataset, network, arm) for arm in n_trials}
    found = {arm: trials for arm, trials in every.items() if len(trials) >= n_trials[arm]}
    chosen = {arm: best_settings(trials[: n_trials[arm]]) for arm, trials in found.items()}
    if first and {"RnC", "end to end"} <= found.keys():
        longer = found["end to end"]
        if len(longer) >= MOST_TRIALS or _seconds(longer) >= _seconds(found["RnC"]):
            chosen[EQUAL_TIME] = best_settings(longer)
    if first and TASKS[dataset].others:
        few = {f"{arm}, {FEW_TRIALS} trials": found[arm][:FEW_TRIALS] for arm in ARMS if arm in found}
        chosen |= {arm: best_settings(trials) for arm, trials in few.items()}
    return chosen


def default_settings(root: Path, kind: str) -> dict[str, dict[str, Any]]:
    """Settings of `rnclib.recipe.Recipe.default`: what is typical of the real tasks of a kind.

    Parameters
    ----------
    root : Path
        Folder of all records.
    kind : {'table', 'molecules', 'images'}

    Returns
    -------
    dict
        By arm; see `rnclib.tuning.typical_settings`. Without an arm that has a task whose search has not come to its
        end.
    """
    from rnclib.tuning import typical_settings

    network = _OF_KIND[kind]
    tasks = [name for name, task in TASKS.items() if task.source.kind == kind and task.source.measured]
    found = [searched_settings(root, name, network) for name in tasks]
    return {
        arm: typical_settings([settings[arm] for settings in found], space(network, arm)[0])
        for arm in ARMS
        if all(arm in settings for settings in found)
    }


def _seconds(trials: Sequence[Mapping[str, Any]]) -> float:
    return sum(trial["seconds"] for trial in trials)


def search_table(root: Path) -> pd.DataFrame:
    """What was searched and found: a row for each task, network and arm that has been searched.

    Parameters
    ----------
    root : Path
        Folder of all records.

    Returns
    -------
    DataFrame
        Columns ``dataset``, ``network``, ``arm``, ``trials``, ``pruned``, ``diverged``, ``hours``, ``first`` and
        ``best`` (validation MAE of the first trial and of the best among `N_TRIALS`), and the settings of the latter.
    """
    from rnclib.tuning import best_settings

    rows = []
    for dataset, task in TASKS.items():
        for network in task.networks:
            for arm in (*ARMS, *OTHERS):
                if not (trials := _trials(root, dataset, network, arm)):
                    continue
                states = Counter(trial["state"] for trial in trials)
                errors = [min(trial["errors"].values(), default=math.nan) for trial in trials[:N_TRIALS]]
                rows.append(
                    {
                        "dataset": dataset, "network": network, "arm": arm, "trials": len(trials),
                        "pruned": states["pruned"], "diverged": states["diverged"],
                        "hours": _seconds(trials) / 3600, "first": errors[0],
                        "best": np.nanmin(errors), **best_settings(trials[:N_TRIALS]),
                    }
                )  # fmt: skip
    return pd.DataFrame(rows)


def _study(root: Path, dataset: str, network: str, arm: str) -> Path:
    return results.folder(root, "paper", "search") / f"{dataset}-{network}-{arm.lower().replace(' ', '-')}.json"


def _trials(root: Path, dataset: str, network: str, arm: str) -> Sequence[dict[str, Any]]:
    path = _study(root, dataset, network, arm)
    return json.loads(path.read_text(encoding="utf-8"))["trials"] if path.is_file() else []


def _seen_by_search(dataset: str) -> list[tuple[Samples, Samples]]:
    """Training set, or a part of it, and validation set of the splits that are never scored."""
    task = TASKS[dataset]
    of = catalogue.load(dataset)
    seeds = range(len(SEARCH_SPLITS)) if task.searched is not None else SEARCH_SPLITS
    found = []
    for seed in seeds[: len(seeds) if len(of) <= SMALL else 1]:
        split = of.splits[task.searched or task.split](seed)
        train = split.train
        if len(train) > SEARCH_ROWS:
            train = np.sort(np.random.default_rng(0).choice(train, SEARCH_ROWS, replace=False))
        sets = [Samples(data.take(of.inputs, index), of.targets[index]) for index in (train, split.val)]
        found.append((sets[0], sets[1]))
    return found
