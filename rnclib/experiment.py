"""From a run to its record: the only place that wires data, fitting and evaluation together."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from rnclib import data, evaluation, memory, provenance, results
from rnclib.data import Dataset, Split, catalogue, shifts, synthetic
from rnclib.evaluation import rounded
from rnclib.files import check_writable
from rnclib.fitting import (
    Diverged,
    Epoch,
    Execution,
    Fitted,
    FittedNetwork,
    Samples,
    TrainedStage,
    check_device,
    fit,
    scaler_of,
)
from rnclib.recipe import Recipe, given

__all__ = ["PROTOCOL", "Run", "Selection", "carry_out", "described", "key", "shared", "work"]

#: Raised when a change of code makes new runs differ from old ones of the same configuration.
PROTOCOL = 1


@dataclass(frozen=True)
class Selection:
    """The samples of a run.

    Attributes
    ----------
    dataset : str
        A name of the catalogue, see `rnclib.data.catalogue`.
    split : str
        One of its splits.
    size : int, optional
        Side of the images that the network sees, in pixels, where the data set needs it.
    n_samples : int, optional
        Number of samples, where the data set needs it.
    data_seed : int, optional
        Of data that are generated; 0 if not given.
    exclude : tuple of str, optional
        Images left out by file name, where the data set takes it.
    fraction : float, optional
        Train on this fraction of the training samples, see `rnclib.data.shifts.subsample`, in batches of at most as
        many.
    holes : {'two peaks', 'three peaks', 'cut-out'}, optional
        Train and validate on ranges of the target only, see `rnclib.data.shifts.with_unseen_ranges`.
    wrong_targets : float, optional
        Fraction of the training and validation targets that are wrong, see `rnclib.data.shifts.with_label_noise`; with
        1.0 inputs say nothing of them, for a negative control.
    spurious : {'tied', 'untied'}, optional
        ``'tied'``: a nuisance correlates with the target in training and validation; what it does is measured on test
        samples, where it does not. ``'untied'`` measures the same without the correlation.
    data_dir : str, optional
        Folder of the data, where the data set takes it. It is no part of the run's key or record.
    """

    dataset: str
    split: str
    size: int | None = None
    n_samples: int | None = None
    data_seed: int | None = None
    exclude: tuple[str, ...] | None = None
    fraction: float | None = None
    holes: str | None = None
    wrong_targets: float | None = None
    spurious: str | None = None
    data_dir: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        source = catalogue.source(self.dataset)
        self._check("split", self.split in source.splits, ", ".join(map(repr, source.splits)))
        self._check("holes", self.holes in (None, *shifts.SEEN), ", ".join(map(repr, (None, *shifts.SEEN))))
        ties = (None, "tied", "untied") if source.nuisance and self.split == source.splits[0] else (None,)
        self._check("spurious", self.spurious in ties, ", ".join(map(repr, ties)))
        needs = dict(source.needs)
        for name in ("size", "n_samples", "data_seed", "exclude", "data_dir"):
            value = getattr(self, name)
            if name in needs:
                allowed = f"an integer of at least {needs[name]} with dataset={self.dataset!r}"
                self._check(name, type(value) is int and value >= needs[name], allowed)
            elif name not in source.takes and name != "data_dir":  # a folder is for those that have one
                self._check(name, value is None, f"None with dataset={self.dataset!r}")
        seed = self.data_seed
        self._check("data_seed", seed is None or (type(seed) is int and seed >= 0), "a non-negative integer, or None")
        exclude = self.exclude
        self._check("exclude", exclude is None or (isinstance(exclude, tuple) and len(exclude) > 0), "names, or None")
        for name, most in (("fraction", "below 1"), ("wrong_targets", "at most 1")):
            value = getattr(self, name)
            fits = value is None or (isinstance(value, float) and 0 < value <= 1 and (value < 1 or most != "below 1"))
            self._check(name, fits, f"a float above 0, {most}, or None for all and for none")

    def _check(self, name: str, fits: bool, allowed: str) -> None:
        if not fits:
            raise ValueError(f"{name}: got {getattr(self, name)!r}; allowed: {allowed}")

    @property
    def source(self) -> catalogue.Source:
        """What the catalogue says of the data set."""
        return catalogue.source(self.dataset)

    @property
    def options(self) -> dict[str, Any]:
        """Options of the data set's loader."""
        options = {name: value for name in self.source.options if (value := getattr(self, name)) is not None}
        if self.source.nuisance == "drawn" and self.spurious == "tied":
            options["correlated"] = True
        return options


@dataclass(frozen=True)
class Run:
    """One run, fully described.

    Attributes
    ----------
    experiment : str
        Chapter that it belongs to.
    profile : {'paper', 'quick', 'smoke'}
    method : str
        Name in the record; pages show the recipe's label.
    seed : int
        Chooses the split, and what is drawn from it.
    data : Selection
    recipe : Recipe
    weight_seed : int, optional
        Of initial weights and the order of samples; by default `seed`.
    corruptions : {True}, optional
        After training, predict the test set with its inputs corrupted too, see `rnclib.data.corruptions`.
    new_people : {True}, optional
        After training, predict the test set of the synthetic faces of the next `data_seed` too: faces of the same kind,
        none of whose people are in the training set.
    on_pages : bool
        Whether a view of the features may be kept, see `carry_out`, and 40 points of learning curves instead of 10. It
        is no part of the run's key or record.
    """

    experiment: str
    profile: str
    method: str
    seed: int
    data: Selection
    recipe: Recipe
    weight_seed: int | None = None
    corruptions: bool | None = None
    new_people: bool | None = None
    on_pages: bool = field(default=True, compare=False)

    def __post_init__(self) -> None:
        if self.profile not in results.PROFILES:
            raise ValueError(f"profile: got {self.profile!r}; allowed: {', '.join(map(repr, results.PROFILES))}")
        for name in ("seed", "weight_seed"):
            value = getattr(self, name)
            if not (value is None and name != "seed") and (type(value) is not int or value < 0):
                raise ValueError(f"{name}: got {value!r}; allowed: a non-negative integer")
        if self.corruptions not in (None, True) or (self.corruptions and not self.recipe.reads_graph_or_pixels):
            what = f"with model={self.recipe.model!r}"
            raise ValueError(f"corruptions: got {self.corruptions!r} {what}; allowed: None; True for graphs and images")
        generated = "data_seed" in self.data.source.options
        if self.new_people not in (None, True) or (self.new_people and not generated):
            what = f"with dataset={self.data.dataset!r}"
            raise ValueError(f"new_people: got {self.new_people!r} {what}; allowed: None; True for synthetic faces")
        if (kind := self.data.source.kind) not in self.recipe.inputs:
            raise ValueError(
                f"model: got {self.recipe.model!r} with dataset={self.data.dataset!r}; "
                f"allowed: one for {kind}, this one is for {' or '.join(self.recipe.inputs)}"
            )

    @property
    def label(self) -> str:
        """Name of the method on pages."""
        return self.recipe.label()

    def but(self, **changes: Any) -> Run:
        """The same run with other values of its fields, or of those of its data and recipe.

        Parameters
        ----------
        **changes
            Fields by name; none is of two parts.
        """
        parts: dict[str, dict[str, Any]] = {"data": {}, "recipe": {}}
        own = {}
        for name, value in changes.items():
            for part, of in (("data", Selection), ("recipe", Recipe)):
                if name in (one.name for one in fields(of)):
                    parts[part][name] = value
                    break
            else:
                own[name] = value
        if unknown := sorted(set(own) - {one.name for one in fields(Run)}):
            raise ValueError(f"changes: got {unknown}; allowed: fields of Run, Selection and Recipe")
        inner = {part: replace(getattr(self, part), **values) for part, values in parts.items() if values}
        return replace(self, **inner, **own)


def described(run: Run) -> dict[str, Any]:
    """A run as its record holds it: one dictionary, without what does not apply.

    Parameters
    ----------
    run : Run
    """
    own = {name: value for name, value in vars(run).items() if name not in ("data", "recipe")}
    return given(own | vars(run.data) | {"data_dir": None, "on_pages": None}) | run.recipe.described()


def key(run: Run) -> str:
    """Name of a run: a digest of its description, the checksum of its data and the protocol number.

    Parameters
    ----------
    run : Run

    Returns
    -------
    str
        16 hexadecimal digits.
    """
    return _digest([described(run), _checksum(run), PROTOCOL])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()[:16]


def _checksum(run: Run) -> str:
    return catalogue.checksum(run.data.dataset, **run.data.options)


def shared(run: Run) -> Any:
    """What runs have in common that train the same network, or the same encoder first.

    Parameters
    ----------
    run : Run
    """
    trained = run.recipe.pretrain or run.recipe.fit or run.method
    condition = tuple(getattr(run.data, name) for name in results.CONDITIONS)
    return run.data.split, run.seed, run.weight_seed, condition, run.recipe.projection, trained


def work(run: Run) -> float:
    """What a run costs, in passes of the network over the whole training set: the unit of progress.

    Parameters
    ----------
    run : Run
    """
    costs = _costs(run)
    stages = {"encoder": run.recipe.pretrain, "regressor": run.recipe.fit}
    return sum(stage.epochs * costs[name] for name, stage in stages.items() if stage) * (run.recipe.ensemble or 1)


def _costs(run: Run) -> dict[str, float]:
    """What an epoch of each stage costs: passes over the whole training set, of which backward takes two."""
    pretrain, fraction = run.recipe.pretrain, run.data.fraction or 1.0
    views = 1 if pretrain is None else pretrain.n_views or 1
    # features of a frozen encoder are computed once, but anew for each random view of an image
    frozen = 1.0 if run.data.source.kind == "images" else 0.02
    regressor = (frozen if run.recipe.freeze else 3.0) * fraction
    return {"encoder": 3.0 * views * fraction, "regressor": regressor, "end-to-end": regressor}


def carry_out(
    run: Run,
    *,
    device: str = "cpu",
    refresh: bool = False,
    keep_encoder: bool = False,
    on_progress: Callable[[float], None] | None = None,
) -> tuple[dict[str, Any], str | None]:
    """Carry out one run: select the samples, fit, evaluate.

    The test set is predicted once, at the very end, with the weights that the validation set chose.

    Processes that ``torchrun`` has started share the run: each takes its part of every batch, and losses and gradients
    are those of the whole batch. Batch norm sees the whole batch on GPUs, on CPUs each process's part.

    Parameters
    ----------
    run : Run
    device : str
        See `rnclib.fitting.Execution`.
    refresh : bool
        Take neither weights nor a checkpoint from the cache.
    keep_encoder : bool
        With `refresh`, still take the contrastively trained encoder from there.
    on_progress : callable, optional
        Called with the work newly done; over a run, it adds up to `work`.

    Returns
    -------
    record : dict
        See `rnclib.records`.
    beside : str or None
        CSV of a file beside the record, for seed 0. Where records keep a part of the test set: ``index``, ``target``
        and ``prediction`` of all of it. Else, of networks that are trained and tested on the data as they are, or with
        a spurious correlation: see `rnclib.evaluation.view`.
    """
    began, started = time.monotonic(), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    check_device(device)
    commit, _ = results.commit()  # of the code that runs, not of what is checked out after hours of training
    chosen = _select(run)
    execution = Execution(device, _writable_cache(), _training_data(run), refresh, keep_encoder, commit)
    seed = run.seed if run.weight_seed is None else run.weight_seed
    outcome = _Outcome()
    with memory.peak() as peak:
        try:
            fitted = fit(
                run.recipe,
                chosen.samples("train"),
                chosen.samples("val"),
                seed=seed,
                execution=execution,
                on_epoch=None if on_progress is None else _progress(run, on_progress),
            )
            outcome.stages = fitted.stages
            _evaluate(run, fitted, chosen, outcome)
        except Diverged as error:  # a result like any other: this method does not train here
            outcome = _Outcome(stages=error.stages, diverged=str(error))
    record = _record(run, chosen, outcome, commit)
    record["run"] = provenance.circumstances(device) | {
        "started": started,
        "wall_time": round(time.monotonic() - began, 3),
        **({} if peak.bytes is None else {"peak_mb": round(peak.bytes / 1e6)}),
    }
    return record, _beside(run, chosen, outcome) if run.seed == 0 else None


@dataclass
class _Outcome:
    """What came out: predictions and features of every sample, metrics by set and unit, errors on corrupted inputs."""

    prediction: np.ndarray | None = None
    features: np.ndarray | None = None
    metrics: dict[str, dict] = field(default_factory=dict)
    corrupted: dict[str, list[float | None]] | None = None
    new_people: dict[str, Any] | None = None
    stages: list[TrainedStage] = field(default_factory=list)
    diverged: str | None = None


# --- samples ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Chosen:
    """Data of a run: targets as training sees them, the three sets, and how many samples these were drawn from."""

    dataset: Dataset
    split: Split
    n_pool: int
    n_test_pool: int
    seen: list[tuple[float, float]] | None = None
    nuisance: np.ndarray | None = None

    @property
    def scaler(self) -> tuple[float, float]:
        """Mean and standard deviation of the training targets."""
        return scaler_of(self.dataset.targets[self.split.train])

    def samples(self, name: str) -> Samples:
        """One of the three sets, as inputs and targets of its own."""
        index = getattr(self.split, name)
        return Samples(data.take(self.dataset.inputs, index), self.dataset.targets[index])


def _select(run: Run) -> _Chosen:
    of = run.data
    dataset = catalogue.load(of.dataset, **of.options)
    if not np.isfinite(dataset.targets).all():
        raise ValueError(f"dataset: got {of.dataset!r} with targets that are NaN or infinite; allowed: finite numbers")
    split = dataset.splits[of.split](run.seed)
    n_pool, n_test_pool = len(split.train), len(split.test)
    if of.fraction is not None:
        split = shifts.subsample(split, of.fraction, run.seed)
    seen = nuisance = None
    if of.holes is not None:
        seen = shifts.seen_ranges(split, dataset.targets, of.holes)
        split = shifts.with_unseen_ranges(split, dataset.targets, of.holes, run.seed)
    if of.wrong_targets is not None:
        noisy = shifts.with_label_noise(split, dataset.targets, of.wrong_targets, run.seed)
        dataset = replace(dataset, targets=noisy)
    if of.spurious is not None:
        split, nuisance = _with_nuisance(run, dataset, split)
    return _Chosen(dataset, split, n_pool, n_test_pool, seen, nuisance)


def _with_nuisance(run: Run, dataset: Dataset, split: Split) -> tuple[Split, np.ndarray]:
    """The split on which the nuisance correlates with the target or not, and the target that the nuisance suggests.

    A hue suggests the age that it stands for; having an attribute or not, the mean target of those training samples
    that have it, or not, where the two correlate.
    """
    assert dataset.nuisance is not None
    if run.data.source.nuisance == "drawn":  # in the pictures; tested where the hue stands for an age
        stands_for_one = dataset.nuisance[split.test] <= synthetic.OLDEST
        return replace(split, test=split.test[stands_for_one]), dataset.nuisance
    has = dataset.nuisance > 0
    splits = {
        correlated: shifts.spurious_split(split, dataset.targets, has, run.seed, correlated=correlated)
        for correlated in (True, False)
    }
    train = splits[True].train
    means = [dataset.targets[train][has[train] == value].mean() for value in (False, True)]
    return splits[run.data.spurious == "tied"], np.where(has, means[1], means[0])


def _training_data(run: Run) -> str:
    """What tells the training and validation samples of a run from others in the cache."""
    of = given(vars(run.data) | {"data_dir": None})
    if of.get("spurious") == "untied" and run.data.source.nuisance == "drawn":  # pictures as they are
        del of["spurious"]
    return _digest([of, run.seed, _checksum(run), PROTOCOL])


# --- evaluation -------------------------------------------------------------------------------------------


def _evaluate(run: Run, fitted: Fitted, chosen: _Chosen, outcome: _Outcome) -> None:
    """Fill in what the fitted model is worth, on validation and test set."""
    dataset, split, pretrain = chosen.dataset, chosen.split, run.recipe.pretrain
    prediction, features = fitted.predict(dataset.inputs), fitted.features(dataset.inputs)
    if not np.isfinite(prediction).all():
        raise Diverged("predictions are not finite", fitted.stages)
    # with a projection head the loss saw that head's features, and a second stage may have changed the encoder
    has_gap = pretrain is not None and run.recipe.fit is None and run.recipe.projection is None
    found = {}
    for name in ("val", "test"):
        index = getattr(split, name)
        errors = evaluation.errors(prediction[index], dataset.targets[index], chosen.scaler)
        if features is not None:
            nuisance = None if chosen.nuisance is None else chosen.nuisance[index]
            errors["standardised"] |= evaluation.order(features[index], dataset.targets[index], nuisance)
            if has_gap and isinstance(fitted, FittedNetwork):
                assert pretrain is not None
                labels = fitted.scaled(dataset.targets[index])
                errors["standardised"]["rnc_gap"] = evaluation.loss_gap(pretrain, features[index], labels)
        found[name] = {
            scale: {measure: rounded(value) for measure, value in values.items()} for scale, values in errors.items()
        }
    outcome.prediction, outcome.features, outcome.metrics = prediction, features, found
    if run.corruptions:
        targets = dataset.targets[split.test]
        outcome.corrupted = evaluation.corrupted_errors(fitted, dataset.inputs, targets, split.test, run.seed)
    if run.new_people:
        outcome.new_people = _on_new_people(run, fitted)


def _on_new_people(run: Run, fitted: Fitted) -> dict[str, Any]:
    """Errors on the test set of other synthetic faces, in years."""
    data_seed = (run.data.data_seed or 0) + 1
    others = catalogue.load(run.data.dataset, **(run.data.options | {"data_seed": data_seed}))
    test = others.splits[run.data.split](run.seed).test
    off = fitted.predict(data.take(others.inputs, test)) - others.targets[test]
    mae, rmse = float(np.abs(off).mean()), float(np.sqrt((off**2).mean()))
    return {"data_seed": data_seed, "n_test": len(test), "mae": rounded(mae), "rmse": rounded(rmse)}


# --- the record -------------------------------------------------------------------------------------------


def _record(run: Run, chosen: _Chosen, outcome: _Outcome, commit: str | None) -> dict[str, Any]:
    """All that is known of a run, but for its circumstances."""
    dataset, split, source = chosen.dataset, chosen.split, run.data.source
    n_train, n_val, n_test = (len(index) for index in (split.train, split.val, split.test))
    mean, std = chosen.scaler

    kept = _kept(split.test, len(dataset), source.keeps)

    def listed(values: np.ndarray | None) -> list[float]:
        decimals = 4 if std > 0.1 else 7
        return [] if values is None else [round(float(value), decimals) for value in values[kept]]

    record = {
        "schema": results.SCHEMA,
        "experiment": run.experiment,
        "dataset": run.data.dataset,
        "profile": run.profile,
        "split": run.data.split,
        "method": run.method,
        "seed": run.seed,
        "key": key(run),
        "protocol": PROTOCOL,
        "config": described(run),
        "data": {
            "checksum": dataset.checksum,
            "synthetic": not source.measured,
            "unit": source.unit,
            "n_train": n_train,
            "n_val": n_val,
            "n_test": n_test,
            **({} if n_train == chosen.n_pool else {"n_pool": chosen.n_pool}),
            **({} if n_test == chosen.n_test_pool else {"n_test_pool": chosen.n_test_pool}),
            **({} if chosen.seen is None else {"seen": [[rounded(end) for end in ends] for ends in chosen.seen]}),
            "train_mean": rounded(mean),
            "train_std": rounded(std),
        },
        "metrics": outcome.metrics,
        "diverged": outcome.diverged,
        "stages": [_stage_record(stage, 40 if run.on_pages else 10, commit) for stage in outcome.stages],
        "run": {},
        "test": {
            "index": kept.tolist(),
            "target": listed(dataset.targets),
            "prediction": listed(outcome.prediction),
            **({} if chosen.nuisance is None else {"nuisance": listed(chosen.nuisance)}),
        },
    }
    measured: dict[str, Any] = {name: getattr(outcome, name) for name in ("corrupted", "new_people")}
    if len(kept) < n_test and outcome.prediction is not None:
        off = np.abs(outcome.prediction - dataset.targets)[split.test]
        parts = (0.05, 0.25, 0.5, 0.75, 0.95)
        measured["error_quantiles"] = {f"{part:g}": rounded(float(np.quantile(off, part)), 5) for part in parts}
    return record | {name: value for name, value in measured.items() if value is not None}


def _beside(run: Run, chosen: _Chosen, outcome: _Outcome) -> str | None:
    """What is kept beside the record of seed 0, see `carry_out`."""
    dataset, test = chosen.dataset, chosen.split.test
    if len(_kept(test, len(dataset), run.data.source.keeps)) < len(test):
        if outcome.prediction is None:
            return None
        rows = zip(test, dataset.targets[test], outcome.prediction[test], strict=True)
        return "index,target,prediction\n" + "".join(f"{i},{y:.6g},{predicted:.6g}\n" for i, y, predicted in rows)
    plain = all(getattr(run.data, name) is None for name in results.CONDITIONS) and not run.corruptions
    if outcome.features is None or not run.on_pages or not (plain or run.data.spurious == "tied"):
        return None
    return evaluation.view(outcome.features, chosen.split, dataset.targets, chosen.nuisance)


def _kept(test: np.ndarray, n: int, about: int | None) -> np.ndarray:
    """Test samples that a record keeps: those that lie in one part of the data set, the same for every split."""
    if about is None or len(test) <= about:
        return test
    chosen = np.random.default_rng(0).random(n) < about / len(test)
    return test[chosen[test]]


def _stage_record(stage: TrainedStage, points: int, commit: str | None) -> dict[str, Any]:
    """What a record says of a stage: its commit only where it is not that of the run; None is one that is not known."""
    history = stage.history
    n = len(history.train_loss)
    kept = sorted({round(epoch) for epoch in np.linspace(1, n, min(n, points))})
    curve: dict[str, list] = {"epoch": kept}
    for part in ("train_loss", "val_loss"):
        if values := getattr(history, part):
            curve[part] = [rounded(values[epoch - 1], 5) for epoch in kept]
    return {
        "name": stage.name,
        "epochs": n,
        "best_epoch": history.best_epoch,
        "wall_time": round(history.wall_time, 3),
        **({} if stage.commit == commit else {"commit": stage.commit}),
        "curve": curve,
    }


# --- carrying out -----------------------------------------------------------------------------------------


def _progress(run: Run, on_progress: Callable[[float], None]) -> Callable[[Epoch], None]:
    """Reports epochs as work."""
    costs, done = _costs(run), dict[tuple[int, str], int]()

    def on_epoch(epoch: Epoch) -> None:
        which = (epoch.member, epoch.stage)
        on_progress((epoch.number - done.get(which, 0)) * costs[epoch.stage])
        done[which] = epoch.number

    return on_epoch


def _writable_cache() -> Path:
    """The cache, found usable before hours of training rather than after."""
    cache = data.cache_dir()
    check_writable(cache, "RNC_CACHE", "checkpoints and trained encoders")
    return cache
