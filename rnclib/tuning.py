"""A search for the settings of a method, on a training and a validation set; no test set is within reach."""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rnclib import results
from rnclib.files import alone, check_writable
from rnclib.fitting import Diverged, Epoch, Execution, Samples, fit
from rnclib.recipe import Recipe, Stage
from rnclib.regressors import best_regressor

if TYPE_CHECKING:
    import optuna

__all__ = ["Plan", "best_settings", "search", "typical_settings"]

_PRUNED_AT = (0.5, 0.75)  # of the epochs of a trial
_AT_RANDOM = 8  # trials before the search learns from them, and before it gives any up


@dataclass(frozen=True)
class Plan:
    """What is searched, and how a trial is judged.

    Attributes
    ----------
    searched : mapping
        By name of a setting: two ends of a range that is searched on a logarithmic scale, as a tuple, or a list of
        values.
    recipe_of : callable
        Makes a recipe without a head of settings.
    heads : sequence of str or None
        What predicts: the trained network itself, None, or regressors on its features. A trial is worth the lowest mean
        absolute error on the validation set among them.
    first : mapping, optional
        Settings of the first trial.
    seed : int
        Of the search, and of the training in every trial.
    """

    searched: Mapping[str, tuple[float, float] | list[Any]]
    recipe_of: Callable[[dict[str, Any]], Recipe]
    heads: Sequence[str | None]
    first: Mapping[str, Any] | None = None
    seed: int = 0


def search(
    plan: Plan,
    sets: Sequence[tuple[Samples, Samples]],
    *,
    n_trials: int,
    seconds: float = math.inf,
    path: Path | None = None,
    told: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """Search with Optuna's tree of Parzen estimators; a trial that lags behind the median of others is given up.

    What it is judged by on the way is the validation error of a ridge regression on the features, whatever is trained.

    Parameters
    ----------
    plan : Plan
    sets : sequence of tuple of Samples
        Training and validation set, as for `rnclib.fitting.fit`; of several, errors are averaged.
    n_trials : int
        In all, those of `path` counted.
    seconds : float
        Of processor time: no trial begins once those before have taken so long together.
    path : Path, optional
        JSON file of the trials, written after each; a search that was stopped goes on. Of several at once, each takes
        the trials of the others where they have got further.
    told : mapping, optional
        What that file says besides.

    Returns
    -------
    list of dict
        Of each trial ``settings``, ``state`` (``'complete'``, ``'pruned'``, ``'diverged'``), ``errors`` (validation
        MAE by head, the network itself as ``'own'``), ``seconds`` of processor time, and ``seen``, what it was judged
        by on the way.

    Warns
    -----
    UserWarning
        If the file cannot be read.
    """
    trials = _kept(path)
    if path is not None:
        check_writable(path.parent, "path", "trials")
    sizes = {"sets": [{"n_train": len(train.targets), "n_val": len(val.targets)} for train, val in sets]}
    while len(trials) < n_trials and sum(trial["seconds"] for trial in trials) < seconds:
        trials = [*trials, _trial(_study(plan, trials), plan, sets, trials)]
        if path is None:
            continue
        with alone(path.parent):
            if len(others := _kept(path)) >= len(trials):  # another search has got further meanwhile
                trials = others
                continue
            kept = {**(told or {}), **sizes, "searched": dict(plan.searched), "seed": plan.seed, "trials": trials}
            results.write_text(path, json.dumps(kept, indent=1) + "\n")
    return trials


def _kept(path: Path | None) -> list[dict[str, Any]]:
    """Trials of a file; one that holds none is named in a warning, and moved aside."""
    if path is None or not path.is_file():
        return []
    try:
        return list(json.loads(path.read_text(encoding="utf-8"))["trials"])
    except (ValueError, KeyError, TypeError) as error:
        aside = path.with_name(f"{path.name}.unreadable")
        path.replace(aside)
        warnings.warn(
            f"{path} holds no trials that can be read ({type(error).__name__}): it is now {aside.name}, and the search "
            "begins anew",
            stacklevel=3,
        )
        return []


def best_settings(trials: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Settings of the trial with the lowest validation error.

    Parameters
    ----------
    trials : sequence of mapping
        From `search`.

    Raises
    ------
    ValueError
        If none came to its end.
    """
    ended = [trial for trial in trials if trial["state"] == "complete"]
    if not ended:
        raise ValueError(f"trials: got {len(trials)}, none of them complete; allowed: at least one that is")
    return dict(min(ended, key=_worth)["settings"])


def typical_settings(found: Sequence[Mapping[str, Any]], searched: Mapping[str, Any]) -> dict[str, Any]:
    """One setting for several tasks, from those that a search found on each.

    Parameters
    ----------
    found : sequence of mapping
        Settings of each task, such as those of `best_settings`.
    searched : mapping
        As in `Plan`.

    Returns
    -------
    dict
        Where two ends of a range were searched the median on a logarithmic scale, with two digits; of a list the value
        that most tasks have, and of several of these the first in the list.

    Raises
    ------
    ValueError

    Examples
    --------
    >>> searched = {"learning_rate": (0.001, 0.1), "epochs": [50, 100]}
    >>> typical_settings([{"learning_rate": 0.002, "epochs": 100}, {"learning_rate": 0.02, "epochs": 50}], searched)
    {'learning_rate': 0.0063, 'epochs': 50}
    """
    if not found:
        raise ValueError("found: got no settings; allowed: those of at least one task")
    typical = {}
    for name, among in searched.items():
        values = [settings[name] for settings in found]
        if isinstance(among, tuple):
            typical[name] = float(f"{np.exp(np.median(np.log(values))):.1e}")
        else:
            typical[name] = max(among, key=values.count)
    return typical


def _worth(trial: Mapping[str, Any]) -> float:
    return min(trial["errors"].values())


def _distributions(searched: Mapping[str, Any]) -> dict[str, optuna.distributions.BaseDistribution]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    return {
        name: FloatDistribution(among[0], among[1], log=True)
        if isinstance(among, tuple)
        else CategoricalDistribution(among)
        for name, among in searched.items()
    }


def _study(plan: Plan, trials: Sequence[Mapping[str, Any]]) -> optuna.Study:
    """A study that knows the trials made; made anew for each, so that one that was stopped goes on as it would have."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        sampler=optuna.samplers.TPESampler(n_startup_trials=_AT_RANDOM, seed=plan.seed + 1000 * len(trials)),
    )
    states = {"complete": optuna.trial.TrialState.COMPLETE, "pruned": optuna.trial.TrialState.PRUNED}
    for trial in trials:
        state = states.get(trial["state"], optuna.trial.TrialState.FAIL)
        study.add_trial(
            optuna.trial.create_trial(
                params=dict(trial["settings"]),
                distributions=_distributions(plan.searched),
                value=_worth(trial) if trial["state"] == "complete" else None,
                intermediate_values={int(step): error for step, error in trial["seen"].items()},
                state=state,
            )
        )
    if not trials and plan.first is not None:
        study.enqueue_trial(dict(plan.first))
    return study


def _lags(error: float, step: str, trials: Sequence[Mapping[str, Any]]) -> bool:
    """Whether an error is above the median of the completed trials at the same step.

    Optuna's own pruner compares the lowest error up to that step, which on several sets would be that of the easiest.
    """
    others = [trial["seen"][step] for trial in trials if trial["state"] == "complete" and step in trial["seen"]]
    return len(others) >= _AT_RANDOM and error > float(np.median(others))


def _trial(
    study: optuna.Study,
    plan: Plan,
    sets: Sequence[tuple[Samples, Samples]],
    trials: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    from optuna import TrialPruned

    trial = study.ask(_distributions(plan.searched))
    settings = dict(trial.params)
    recipe = plan.recipe_of(settings)
    stage = recipe.pretrain or recipe.fit
    assert isinstance(stage, Stage)
    seen: dict[str, float] = {}

    def judge(epoch: Epoch, before: int) -> None:
        for rung, part in enumerate(_PRUNED_AT):
            if epoch.number == round(part * stage.epochs) and (error := epoch.ridge_error()) is not None:
                step = str(before + rung)
                seen[step] = error
                if _lags(error, step, trials):
                    raise TrialPruned

    began, state, found = time.process_time(), "complete", []
    try:
        for number, (train, val) in enumerate(sets):
            on_epoch = partial(judge, before=number * len(_PRUNED_AT))
            fitted = fit(recipe, train, val, seed=plan.seed, execution=Execution(), on_epoch=on_epoch)
            found.append(_errors(fitted, train, val, plan.heads))
    except TrialPruned:
        state = "pruned"
    except Diverged:
        state = "diverged"
    errors = {name: float(f"{np.mean([one[name] for one in found]):.6g}") for name in found[0]} if found else {}
    if state == "complete" and not all(map(math.isfinite, errors.values())):
        state = "diverged"
    seconds = round(time.process_time() - began, 1)
    errors = errors if state == "complete" else {}
    return {"settings": settings, "state": state, "errors": errors, "seconds": seconds, "seen": seen}


def _errors(fitted: Any, train: Samples, val: Samples, heads: Sequence[str | None]) -> dict[str, float]:
    """Validation error of each head; a regressor on features is fitted to the training set."""
    features, val_features = fitted.features(train.inputs), fitted.features(val.inputs)
    if not (np.isfinite(features).all() and np.isfinite(val_features).all()):
        raise Diverged("features are not finite", fitted.stages)
    found = {}
    for head in heads:
        if head is None:
            error = float(np.abs(fitted.predict(val.inputs) - val.targets).mean())
        else:
            _, error = best_regressor(head, features, train.targets, val_features, val.targets)
        found[head or "own"] = error
    return found
