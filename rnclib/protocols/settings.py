"""Settings of the comparison across tasks: how they are searched, and what was found."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
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
from rnclib.fitting import Samples
from rnclib.protocols.tasks import ARMS, EQUAL_TIME, HEADS, OF_KIND, OTHERS, TASKS, recipe, space
from rnclib.tuning import Plan, best_settings, search, typical_settings

__all__ = [
    "default_settings", "search_table", "search_task", "search_tasks", "searched_settings", "settings_of",
    "try_default",
]  # fmt: skip

N_TRIALS = 30  # of each arm
FEW_TRIALS = 15  # of each other method, which is compared with the arms after as many
MOST_TRIALS = 90  # of end-to-end training that may search for as long as Rank-N-Contrast
SEARCH_SPLITS = (100, 101, 102)  # seeds of splits that are never scored; a large task is searched on the first alone
SMALL = 1600  # samples of a task that is searched on all three
SEARCH_ROWS = 2000  # at most, of each training set
_OF_OTHERS = "typical of others"  # in the name of the file with their one trial
_SHORT_EPOCHS = {"quick": 20, "smoke": 3}  # of profiles that have no search


def search_tasks(only: Sequence[str] = ()) -> None:
    """Search the settings of each arm on each task, or go on where a search was stopped.

    Then see what the settings typical of other tasks are worth there, see `try_default`. Trials lie in the store, see
    `rnclib.results.results_dir`.

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
        _carry_out(_one_study, [(*study, root) for study in studies], f"searches: {', '.join(arms)}")
    tried = [(task.dataset, arm, root) for task in tasks if task.source.measured for arm in ARMS]
    _carry_out(_one_default, tried, "defaults")


def _carry_out(one: Callable[..., str], work: Sequence[tuple[Any, ...]], what: str) -> None:
    done = Parallel(n_jobs=os.cpu_count(), return_as="generator_unordered")(delayed(one)(*each) for each in work)
    for said in tqdm(done, total=len(work), desc=what):
        tqdm.write(said)


def _one_study(dataset: str, network: str, arm: str, root: Path) -> str:
    torch.set_num_threads(1)
    few = arm in OTHERS or network != TASKS[dataset].networks[0]
    trials = search_task(dataset, network, arm, root, FEW_TRIALS if few else N_TRIALS)
    lowest = min((_lowest(trial) for trial in trials if trial["errors"]), default=math.nan)
    return f"{dataset}, {network}, {arm}: {len(trials)} trials, lowest validation MAE {lowest:g}"


def _one_default(dataset: str, arm: str, root: Path) -> str:
    torch.set_num_threads(1)
    errors = try_default(dataset, arm, root)
    said = f"validation MAE {min(errors.values()):g}" if errors else "no validation error"
    return f"{dataset}, {arm}, settings {_OF_OTHERS}: {said}"


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
    go_on = partial(
        search, _plan(network, arm), _seen_by_search(dataset), path=_study(root, dataset, network, arm),
        told=_told(dataset, network, arm),
    )  # fmt: skip
    trials = go_on(n_trials=n_trials)
    contrastive = _trials(root, dataset, network, "RnC")
    if arm == "end to end" and network == TASKS[dataset].networks[0] and len(contrastive) >= N_TRIALS:
        trials = go_on(n_trials=MOST_TRIALS, seconds=_seconds(contrastive))
    return trials


def try_default(dataset: str, arm: str, root: Path) -> dict[str, float]:
    """Validation error of the settings that are typical of the other real tasks of the same kind.

    It says what `default_settings` are worth on a task that they were not made from.

    Parameters
    ----------
    dataset : str
        A real one of `TASKS`.
    arm : str
        One of `ARMS`.
    root : Path
        Folder of all records.

    Returns
    -------
    dict
        MAE by head, as in `rnclib.tuning.search`. Empty where training diverges, where there is no other such task,
        and where one of them has not been searched to its end.
    """
    network = TASKS[dataset].networks[0]
    found = default_settings(root, TASKS[dataset].source.kind, without=dataset).get(arm)
    if found is None:
        return {}
    path = _study(root, dataset, network, f"{arm} {_OF_OTHERS}")
    if (kept := _trials(root, dataset, network, f"{arm} {_OF_OTHERS}")) and kept[0]["settings"] != found:
        path.unlink()  # another task has been searched since
    told = _told(dataset, network, arm)
    (trial,) = search(_plan(network, arm, found), _seen_by_search(dataset), n_trials=1, path=path, told=told)
    return dict(trial["errors"])


def _plan(network: str, arm: str, first: Mapping[str, Any] | None = None) -> Plan:
    searched, usual = space(network, arm)
    heads = tuple(head for head in HEADS[arm] if head != "gaussian process")  # which takes too long
    return Plan(searched, partial(recipe, network, arm), heads, usual if first is None else first)


def _told(dataset: str, network: str, arm: str) -> dict[str, Any]:
    return {"dataset": dataset, "network": network, "arm": arm, **provenance.circumstances("cpu")}


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


def default_settings(root: Path, kind: str, without: str | None = None) -> dict[str, dict[str, Any]]:
    """Settings of `rnclib.recipe.Recipe.default`: what is typical of the real tasks of a kind.

    Parameters
    ----------
    root : Path
        Folder of all records.
    kind : {'table', 'molecules', 'images'}
    without : str, optional
        A task that is left out.

    Returns
    -------
    dict
        By arm; see `rnclib.tuning.typical_settings`. Without an arm that has a task whose search has not come to its
        end.
    """
    network = OF_KIND[kind]
    real = {name: task for name, task in TASKS.items() if task.source.measured and name != without}
    tasks = [name for name, task in real.items() if task.source.kind == kind]
    found = [searched_settings(root, name, network) for name in tasks]
    return {
        arm: typical_settings([settings[arm] for settings in found], space(network, arm)[0])
        for arm in ARMS
        if found and all(arm in settings for settings in found)
    }


def _lowest(trial: Mapping[str, Any]) -> float:
    return min(trial["errors"].values(), default=math.nan)


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
        Columns ``dataset``, ``network``, ``arm``, ``trials``, ``pruned``, ``diverged``, ``hours``, ``first``,
        ``typical`` and ``best`` (validation MAE of the first trial, of `try_default` and of the best among
        `N_TRIALS`), and the settings of the latter.
    """
    rows = []
    for dataset, task in TASKS.items():
        for network in task.networks:
            for arm in (*ARMS, *OTHERS):
                if not (trials := _trials(root, dataset, network, arm)):
                    continue
                states = Counter(trial["state"] for trial in trials)
                errors = [_lowest(trial) for trial in trials[:N_TRIALS]]
                typical = _trials(root, dataset, network, f"{arm} {_OF_OTHERS}")
                rows.append(
                    {
                        "dataset": dataset, "network": network, "arm": arm, "trials": len(trials),
                        "pruned": states["pruned"], "diverged": states["diverged"],
                        "hours": _seconds(trials) / 3600, "first": errors[0],
                        "typical": _lowest(typical[0]) if typical else math.nan,
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
