"""From a configuration to a record: the only place that wires data, training and results together."""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
import math
import os
import platform
import queue
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from multiprocessing import Manager
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from joblib import Parallel, delayed
from lightning_fabric import Fabric
from torch import nn
from tqdm import tqdm

from rnclib import data, metrics, results
from rnclib.data import Dataset, Split, agedb, corruptions, esol, molecules, synthetic
from rnclib.data.augment import Views
from rnclib.data.images import Images
from rnclib.loss import rnc_loss, rnc_lower_bound
from rnclib.training import ENCODER_LOSSES, History, Stage, predict, train, write_state

__all__ = ["PROTOCOL", "Config", "check_device", "described", "key", "resolve_dataset", "run", "run_grid", "work"]

#: Raised when a change of code makes new runs differ from old ones of the same configuration.
PROTOCOL = 1

BASELINES = ("training mean", "Delaney's equation", "extra trees")
# what goes with what: the splits of each data set, and the models for it
_MOLECULES = (("random", "scaffold", "size"), ("gin", *BASELINES))
_FACES = (("standard", "identity"), ("resnet18", "resnet50", "small", "training mean"))
DATASETS = {"esol": _MOLECULES, "standin": _MOLECULES, "agedb": _FACES, "synthetic": _FACES}
VERSIONS_OF = (
    "torch", "torch-geometric", "torchvision", "numpy", "scipy", "scikit-learn", "rdkit", "pillow", "lightning-fabric",
)  # fmt: skip


@dataclass(frozen=True)
class Config:
    """One run, fully described.

    Attributes
    ----------
    experiment : str
        Chapter that it belongs to.
    dataset : {'esol', 'standin', 'agedb', 'synthetic'}
        The second of each pair is the stand-in for the first.
    profile : {'paper', 'quick', 'smoke'}
    split : {'random', 'scaffold', 'size'} for molecules, {'standard', 'identity'} for faces
    seed : int
        Chooses the split, the initial weights and the order of samples.
    method : str
        Name in tables.
    model : {'gin', 'training mean', "Delaney's equation", 'extra trees'} for molecules, \
{'resnet18', 'resnet50', 'small', 'training mean'} for faces
        The network, or a baseline that is not trained by `rnclib.training`.
    pretrain : Stage, optional
        Contrastive training of the encoder; None for end-to-end training.
    fit : Stage, optional
        Training of the regressor; None for a baseline, and for a linear one in closed form on a pretrained encoder.
    freeze : bool
        Train the linear head only.
    refit : {True}, optional
        After training, fit the linear head anew in closed form.
    target : {'raw'}, optional
        Unit in which the network learns to predict: that of the data set, or by default standard deviations of the
        training part, from its mean.
    size : int, optional
        Side of the images that the network sees, in pixels; for faces, where it must be given.
    n_samples : int, optional
        Number of drawn faces; for ``'synthetic'``, where it must be given.
    exclude : tuple of str, optional
        Images left out by file name; for ``'agedb'``.
    fraction : float, optional
        Train on this share of the training samples, see `rnclib.data.subsample`, in batches of at most as many.
    projection : int, optional
        Size of a projection head (two linear layers with a ReLU between) that the contrastive loss sees, and that is
        left out afterwards.
    holes : {'two peaks', 'three peaks', 'cut-out'}, optional
        Train and validate on ranges of the target only, see `rnclib.data.with_holes`.
    wrong_targets : float, optional
        Share of the training and validation targets that are wrong, see `rnclib.data.with_wrong_targets`.
    spurious : {'tied', 'untied'}, optional
        Tie a nuisance to the target in training and validation, and measure on test samples, where they are not tied,
        what it does; ``'untied'`` measures without the tie. Of molecules see `rnclib.data.spurious_split`, of drawn
        faces `rnclib.data.synthetic.make_faces`.
    corruptions : {True}, optional
        After training, predict the test part with its inputs corrupted too, see `rnclib.data.corruptions`.
    precision : {'bf16-mixed'}, optional
        Train with autocast to bfloat16; by default in float32.
    data_dir : str, optional
        Folder of AgeDB's images, see `rnclib.data.agedb.load_agedb`. It is no part of the run's key or record.
    """

    experiment: str
    dataset: str
    profile: str
    split: str
    seed: int
    method: str
    model: str
    pretrain: Stage | None = None
    fit: Stage | None = None
    freeze: bool = False
    target: str | None = None
    size: int | None = None
    n_samples: int | None = None
    exclude: tuple[str, ...] | None = None
    fraction: float | None = None
    refit: bool | None = None
    projection: int | None = None
    holes: str | None = None
    wrong_targets: float | None = None
    spurious: str | None = None
    corruptions: bool | None = None
    precision: str | None = None
    data_dir: str | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        splits, models = DATASETS.get(self.dataset, ((), ()))
        allowed = {
            "dataset": tuple(DATASETS),
            "profile": results.PROFILES,
            "split": splits,
            "model": models,
            "target": (None, "raw"),
            "holes": (None, *data.SEEN),
            "spurious": (None, "tied", "untied")
            if self.dataset != "agedb" and self.split in ("random", "standard")
            else (None,),
            "corruptions": (None, True),
            "refit": (None, True),
            "precision": (None, "bf16-mixed"),
        }
        for name, values in allowed.items():
            if getattr(self, name) not in values:
                raise ValueError(f"{name}: got {getattr(self, name)!r}; allowed: {', '.join(map(repr, values))}")
        for name, needed in (
            ("size", self.dataset in ("agedb", "synthetic")),
            ("n_samples", self.dataset == "synthetic"),
        ):
            if (getattr(self, name) is not None) != needed:
                where = "a number" if needed else "None"
                raise ValueError(f"{name}: got {getattr(self, name)!r} with dataset={self.dataset!r}; allowed: {where}")
        if self.fraction is not None and not 0 < self.fraction < 1:
            raise ValueError(f"fraction: got {self.fraction!r}; allowed: between 0 and 1, or None for all")
        if self.wrong_targets is not None and not 0 < self.wrong_targets < 1:
            raise ValueError(f"wrong_targets: got {self.wrong_targets!r}; allowed: between 0 and 1, or None for none")
        if self.exclude is not None and (self.dataset != "agedb" or not self.exclude):
            raise ValueError(f"exclude: got {self.exclude!r}; allowed: names of images, with dataset='agedb'")
        for name, least in (("size", 8), ("n_samples", synthetic.FEWEST)):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < least):
                raise ValueError(f"{name}: got {value!r}; allowed: an integer of at least {least}")
        if type(self.seed) is not int or self.seed < 0:
            raise ValueError(f"seed: got {self.seed!r}; allowed: a non-negative integer")
        closed_form = self.fit is None and self.pretrain is not None
        if (self.fit is None and not closed_form) != (self.model in BASELINES):
            raise ValueError(f"fit: got {self.fit!r} with model={self.model!r}; allowed: a Stage for a network only")
        if closed_form and not self.freeze:
            raise ValueError("freeze: got False with pretrain but without fit; allowed: True, for a closed form")
        if self.refit and self.fit is None:
            raise ValueError("refit: got True without fit; allowed: with a network that is trained to the target")
        if self.freeze and self.fit is not None and self.fit.regulariser is not None:
            raise ValueError(f"fit: got a regulariser ({self.fit.regulariser!r}) with freeze; allowed: without")
        if self.projection is not None and (self.pretrain is None or self.projection < 1):
            raise ValueError(f"projection: got {self.projection!r}; allowed: a positive size, with pretrain, or None")
        if self.pretrain is not None and (self.model in BASELINES or self.pretrain.loss not in ENCODER_LOSSES):
            losses = " or ".join(map(repr, ENCODER_LOSSES))
            raise ValueError(f"pretrain: got {self.pretrain!r}; allowed: a Stage with loss={losses}, for a network")
        if self.freeze and self.pretrain is None:
            raise ValueError("freeze: got True without pretrain; allowed: with a pretrained encoder only")


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, allow_nan=False).encode()).hexdigest()[:16]


def described(config: Config) -> dict[str, Any]:
    """A configuration as its record holds it.

    Parameters
    ----------
    config : Config
    """

    # None stands for "not applied", so that a new option leaves the keys of old records as they are
    def given(values: dict[str, Any]) -> dict[str, Any]:
        return {
            name: given(value) if isinstance(value, dict) else value
            for name, value in values.items()
            if value is not None
        }

    return given(asdict(config) | {"data_dir": None})


def key(config: Config) -> str:
    """Name of a run: a digest of its configuration, the checksum of its data and the protocol number.

    Parameters
    ----------
    config : Config

    Returns
    -------
    str
        16 hexadecimal digits.
    """
    return _digest([described(config), _checksum(config), PROTOCOL])


@functools.lru_cache(maxsize=4)
def _dataset(
    name: str,
    size: int | None,
    n_samples: int | None,
    tied: bool,
    exclude: tuple[str, ...] | None,
    data_dir: str | None,
) -> Dataset:
    if name == "agedb":
        if data_dir is None:
            raise ValueError("data_dir: got None with dataset='agedb'; allowed: the folder that holds AgeDB's images")
        assert size is not None
        return agedb.load_agedb(data_dir, size=size, exclude=exclude or ())
    if name == "synthetic":
        assert size is not None and n_samples is not None
        return synthetic.load_faces(n_samples, size, tied=tied)
    return esol.load(name)


def _dataset_of(config: Config) -> Dataset:
    tied = config.dataset == "synthetic" and config.spurious == "tied"
    return _dataset(config.dataset, config.size, config.n_samples, tied, config.exclude, config.data_dir)


def _checksum(config: Config) -> str:
    if config.dataset == "esol":  # known without having the file
        return esol.SHA256
    if config.dataset == "synthetic":  # or without drawing them
        assert config.size is not None and config.n_samples is not None
        return synthetic.recipe(config.n_samples, config.size, tied=config.spurious == "tied")
    return _dataset_of(config).checksum


def resolve_dataset(dataset: str, profile: str, results_dir: str | os.PathLike | None = None) -> str:
    """The data set that ``'auto'`` stands for: ESOL if there are committed records of it or it can be had.

    Parameters
    ----------
    dataset : {'auto', 'esol', 'standin'}
        Anything but ``'auto'`` is given back.
    profile : str
        Published (``'paper'``) records of ESOL are readable without the data.
    results_dir : path, optional
        The store; by default `rnclib.results.results_dir`.

    Returns
    -------
    str
        ``'esol'`` or ``'standin'`` for ``'auto'``.
    """
    if dataset != "auto":
        return dataset
    root = results.results_dir() if results_dir is None else results_dir
    if profile == "paper" and results.load(root, profile="paper", experiment="esol", dataset="esol"):
        return "esol"
    return esol.load("auto").name


def run(
    config: Config,
    *,
    device: str = "cpu",
    refresh: bool = False,
    keep_encoder: bool = False,
    on_progress: Callable[[float], None] | None = None,
) -> tuple[dict[str, Any], str | None]:
    """Carry out one run.

    A run that was killed goes on from its last checkpoint and ends with the same numbers; on a GPU, whose sums have no
    fixed order, to rounding. The test part is predicted once, at the very end, with the weights that the validation
    part chose.

    Processes that ``torchrun`` has started share the run: each takes its part of every batch, and losses and gradients
    are those of the whole batch. Batch norm sees the whole batch on GPUs, on CPUs each process's part.

    Parameters
    ----------
    config : Config
    device : str
        An accelerator of Lightning Fabric, such as ``'cpu'``, ``'cuda'`` or ``'auto'``.
    refresh : bool
        Take neither weights nor a checkpoint from the cache.
    keep_encoder : bool
        With `refresh`, still take the contrastively trained encoder from there.
    on_progress : callable, optional
        Called with the work newly done; over a run, it adds up to `work`.

    Returns
    -------
    record : dict
        See `rnclib.results`.
    view : str or None
        For the networks of seed 0 that are trained and tested on the data as they are, or with a spurious target: the
        two first principal components of every sample's features, and the training sample whose features are
        nearest, as CSV; for the latter also what the nuisance suggests.
    """
    began, started = time.monotonic(), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    check_device(device)
    results.commit()  # that of the code which is running, not of what is checked out after hours of training
    dataset = _dataset_of(config)
    split = dataset.splits[config.split](config.seed)
    n_pool, n_test_pool = len(split.train), len(split.test)
    if config.fraction is not None:
        split = data.subsample(split, config.fraction, config.seed)
    seen = None
    if config.holes is not None:
        seen = data.seen_ranges(split, dataset.targets, config.holes)
        split = data.with_holes(split, dataset.targets, config.holes, config.seed)
    if config.wrong_targets is not None:
        wrong = data.with_wrong_targets(split, dataset.targets, config.wrong_targets, config.seed)
        dataset = replace(dataset, targets=wrong)
    nuisance = None
    if config.spurious is not None:
        split, nuisance = _with_nuisance(config, dataset, split)
    mean, std = float(dataset.targets[split.train].mean()), float(dataset.targets[split.train].std())
    outcome = _Outcome()
    diverged = None
    try:
        if config.model in BASELINES:
            outcome.prediction = _baseline(config, dataset, split)
        else:
            scaler = (0.0, 1.0) if config.target == "raw" else (mean, std)
            way = _Way(_fabric(config, device), refresh, keep_encoder, on_progress)
            _network(config, dataset, split, scaler, outcome, way)
        if outcome.prediction is not None and not np.isfinite(outcome.prediction).all():
            raise FloatingPointError("predictions are not finite")
    except FloatingPointError as error:  # a result like any other: this method does not train here
        diverged, outcome.prediction, outcome.features = str(error), None, None

    errors: dict[str, dict] = {}
    if outcome.prediction is not None:
        for part, index in (("val", split.val), ("test", split.test)):
            raw = metrics.regression_errors(outcome.prediction[index], dataset.targets[index])
            scaled = metrics.regression_errors(
                (outcome.prediction[index] - mean) / std, (dataset.targets[index] - mean) / std
            )
            if outcome.features is not None and len(index) >= 3:
                scaled["rank_agreement"] = metrics.rank_agreement(outcome.features[index], dataset.targets[index])
                if nuisance is not None:
                    scaled["nuisance_agreement"] = metrics.rank_agreement(outcome.features[index], nuisance[index])
            if outcome.gap:
                scaled["rnc_gap"] = outcome.gap[part]
            errors[part] = {
                scale: {name: _rounded(value) for name, value in values.items()}
                for scale, values in (("standardised", scaled), ("raw", raw))
            }
    record = {
        "schema": results.SCHEMA,
        "experiment": config.experiment,
        "dataset": config.dataset,
        "profile": config.profile,
        "split": config.split,
        "method": config.method,
        "seed": config.seed,
        "key": key(config),
        "protocol": PROTOCOL,
        "config": described(config),
        "data": {
            "checksum": dataset.checksum,
            "synthetic": dataset.synthetic,
            "unit": dataset.unit,
            "n_train": len(split.train),
            "n_val": len(split.val),
            "n_test": len(split.test),
            **({} if len(split.train) == n_pool else {"n_pool": n_pool}),
            **({} if len(split.test) == n_test_pool else {"n_test_pool": n_test_pool}),
            **({} if seen is None else {"seen": [[_rounded(end) for end in ends] for ends in seen]}),
            "train_mean": _rounded(mean),
            "train_std": _rounded(std),
        },
        "metrics": errors,
        "diverged": diverged,
        "stages": outcome.stages,
        "run": _circumstances(device) | {"started": started, "wall_time": round(time.monotonic() - began, 1)},
        "test": {
            "index": split.test.tolist(),
            "target": [round(float(value), 4) for value in dataset.targets[split.test]],
            "prediction": []
            if outcome.prediction is None
            else [round(float(value), 4) for value in outcome.prediction[split.test]],
            **({} if nuisance is None else {"nuisance": [round(float(value), 4) for value in nuisance[split.test]]}),
        },
    }
    if outcome.corrupted is not None:
        record["corrupted"] = outcome.corrupted
    view = None
    plain = all(getattr(config, name) is None for name in (*results.CONDITIONS, "corruptions"))
    if outcome.features is not None and config.seed == 0 and (plain or config.spurious == "tied"):
        view = _view(outcome.features, split, dataset.targets, nuisance)
    return record, view


def _with_nuisance(config: Config, dataset: Dataset, split: Split) -> tuple[Split, np.ndarray]:
    """The split that ties the nuisance to the target or not, and the target that the nuisance suggests where it does.

    For a hue that is the age it stands for; for an attribute of molecules the mean target of the tied training samples
    that have it, or have it not.
    """
    if dataset.nuisance is None:
        raise ValueError(f"spurious: got {config.spurious!r} with dataset={config.dataset!r}, which has no nuisance")
    if config.size is not None:  # drawn with the tie or without; tested where the hue stands for an age
        stands_for_one = dataset.nuisance[split.test] <= synthetic.OLDEST
        return replace(split, test=split.test[stands_for_one]), dataset.nuisance
    has = dataset.nuisance > 0
    parts = {tied: data.spurious_split(split, dataset.targets, has, config.seed, tied=tied) for tied in (True, False)}
    train = parts[True].train
    means = [dataset.targets[train][has[train] == value].mean() for value in (False, True)]
    return parts[config.spurious == "tied"], np.where(has, means[1], means[0])


def _torchrun(variable: str, otherwise: int) -> int:
    """What ``torchrun`` tells its processes."""
    return int(os.environ[variable]) if "TORCHELASTIC_RUN_ID" in os.environ else otherwise


def check_device(device: str) -> None:
    """Refuse a GPU where there is none.

    Parameters
    ----------
    device : str
        See `run`.

    Raises
    ------
    ValueError
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device: got 'cuda', but torch finds no GPU; allowed here: 'cpu', 'auto'")


def _fabric(config: Config, device: str) -> Fabric:
    here = _torchrun("LOCAL_WORLD_SIZE", 1)
    fabric = Fabric(
        accelerator=device,
        devices=here,
        num_nodes=_torchrun("WORLD_SIZE", 1) // here,
        precision="32-true" if config.precision is None else "bf16-mixed",
    )
    fabric.launch()
    return fabric


@dataclass
class _Outcome:
    """What a model gives: predictions (raw units) and features of every sample; its errors on corrupted inputs of the
    test part, by kind and severity; how far its contrastive loss on each part is from its lower bound; what its
    training recorded."""

    prediction: np.ndarray | None = None
    features: np.ndarray | None = None
    corrupted: dict[str, list[float | None]] | None = None
    gap: dict[str, float] | None = None
    stages: list[dict[str, Any]] = field(default_factory=list)


def _rounded(value: float, digits: int = 7) -> float | None:
    """A number as records hold it: None where it is infinite or NaN."""
    return float(f"{value:.{digits}g}") if math.isfinite(value) else None


def _baseline(config: Config, dataset: Dataset, split: Split) -> np.ndarray:
    if config.model == "training mean":
        return np.full(len(dataset), dataset.targets[split.train].mean())
    if config.model == "Delaney's equation":
        if dataset.published_prediction is None:
            raise ValueError(f"model: got {config.model!r} with dataset={dataset.name!r}; allowed: with 'esol' only")
        return dataset.published_prediction
    from sklearn.ensemble import ExtraTreesRegressor
    from sklearn.impute import SimpleImputer
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(
        SimpleImputer(strategy="median", keep_empty_features=True),
        ExtraTreesRegressor(n_estimators=500, random_state=config.seed, n_jobs=1),
    )
    inputs = molecules.descriptors(dataset.smiles)
    return model.fit(inputs[split.train], dataset.targets[split.train]).predict(inputs)


@dataclass(frozen=True)
class _Way:
    """How a run is carried out, see `run`; nothing of it is part of the run's key."""

    fabric: Fabric
    refresh: bool
    keep_encoder: bool
    on_progress: Callable[[float], None] | None

    @property
    def environment(self) -> list[Any]:
        """What the same training may give somewhat other weights in."""
        fabric = self.fabric
        if fabric.world_size > 1:
            return [torch.__version__, fabric.device.type, fabric.world_size]
        return [torch.__version__, str(fabric.device), torch.get_num_threads()]

    def epochs_at(self, cost: float) -> Callable[[int], None] | None:
        """Reports epochs as work."""
        report = self.on_progress
        return None if report is None else lambda epochs: report(epochs * cost)


def _network(
    config: Config, dataset: Dataset, split: Split, scaler: tuple[float, float], outcome: _Outcome, way: _Way
) -> None:
    """Train the network of `config` and fill in `outcome`."""
    from rnclib.encoders import GIN, ImageEncoder

    cache, fabric = _writable_cache(), way.fabric
    inputs = dataset.inputs.to(fabric.device)
    everything = np.arange(len(dataset))
    with torch.random.fork_rng():
        torch.manual_seed(config.seed)
        encoder = GIN() if config.model == "gin" else ImageEncoder(config.model)
        head = _Float32Linear(encoder.out_features, 1)
    if fabric.world_size > 1 and fabric.device.type == "cuda":
        encoder = nn.SyncBatchNorm.convert_sync_batchnorm(encoder)
    encoder, head = encoder.to(fabric.device), head.to(fabric.device)
    mean, std = scaler
    target = torch.tensor((dataset.targets - mean) / std, dtype=torch.float32, device=fabric.device)

    name = _digest([_trained(config), _checksum(config), PROTOCOL, *way.environment])
    weights = cache / "models" / f"{name}.pt"
    if way.refresh:
        weights.unlink(missing_ok=True)
    if (state := _read_weights(weights, fabric)) is not None:  # another run has trained just this
        encoder.load_state_dict(state["encoder"])
        head.load_state_dict(state["head"])
        outcome.stages += state["stages"]
        if way.on_progress:
            way.on_progress(work(config))
    else:
        _train_network(config, encoder, head, inputs, target, split, outcome.stages, way)
        state = {"encoder": encoder.state_dict(), "head": head.state_dict(), "stages": outcome.stages}
        _write_weights(weights, state, fabric)
    features = predict(encoder, inputs, everything)
    if config.refit:
        _fit_in_closed_form(head, features[split.train], features[split.val], target, split)
    outcome.prediction = predict(head, features, everything).reshape(-1).double().cpu().numpy() * std + mean
    outcome.features = features.double().cpu().numpy()
    if config.fit is None and config.projection is None:  # the loss saw the head's features, which are gone
        outcome.gap = {part: _gap(config, features[index], target[index]) for part, index in vars(split).items()}
    if config.corruptions:

        def error(corrupted: Any, index: np.ndarray) -> float | None:
            predicted = predict(nn.Sequential(encoder, head), corrupted.to(fabric.device), index).reshape(-1)
            off = predicted.double().cpu().numpy() * std + mean - dataset.targets[split.test]
            return _rounded(float(np.abs(off).mean()), 5)

        outcome.corrupted = _errors_on_corrupted(dataset.inputs, split.test, config.seed, error)


def _gap(config: Config, features: torch.Tensor, labels: torch.Tensor) -> float:
    """How far the contrastive loss that trained an encoder is from its lower bound, on features of one view."""
    stage = config.pretrain
    if stage is None or stage.loss != "rnc":
        return math.nan
    assert stage.temperature is not None and stage.label_diff is not None and stage.feature_sim is not None
    if stage.unit_features:
        features = nn.functional.normalize(features, dim=1)
    loss = rnc_loss(
        features, labels, temperature=stage.temperature, label_diff=stage.label_diff, feature_sim=stage.feature_sim
    )
    return float(loss) - rnc_lower_bound(labels, label_diff=stage.label_diff)


def _errors_on_corrupted(
    inputs: Any, test: np.ndarray, seed: int, error: Callable[[Any, np.ndarray], float | None]
) -> dict[str, list[float | None]]:
    """Errors on the samples `test`, for each kind of corruption and severity."""
    kinds = corruptions.MOLECULE_CORRUPTIONS
    if isinstance(inputs, Images):
        kinds, seen = corruptions.IMAGE_CORRUPTIONS, inputs.cropped(test).cpu().numpy()
    errors: dict[str, list[float | None]] = {}
    for kind in kinds:
        errors[kind] = []
        for severity in corruptions.SEVERITIES:
            if isinstance(inputs, Images):
                pixels = torch.from_numpy(corruptions.corrupt_images(seen, kind, severity, seed))
                errors[kind].append(error(Images(pixels, inputs.size), np.arange(len(test))))
            else:
                errors[kind].append(error(corruptions.corrupt_graphs(inputs, kind, severity, seed), test))
    return errors


# fields of a configuration that its trained weights do not depend on
_NOT_TRAINING = ("experiment", "profile", "method", "refit", "corruptions")


def _trained(config: Config) -> dict[str, Any]:
    """What the trained weights of a run depend on."""
    fields = {name: value for name, value in described(config).items() if name not in _NOT_TRAINING}
    if config.spurious == "untied" and config.size is not None:  # faces as they are
        del fields["spurious"]
    return fields


def _train_network(
    config: Config,
    encoder: nn.Module,
    head: nn.Linear,
    inputs: Any,
    target: torch.Tensor,
    split: Split,
    stages: list[dict[str, Any]],
    way: _Way,
) -> None:
    """Train `encoder` and `head` in place, and note in `stages` what the record says of each that was trained."""
    if config.pretrain is not None:
        stages.append(_pretrained(config, encoder, inputs, target, split, way))
    if config.fit is None:
        features, val_features = (predict(encoder, inputs, index) for index in (split.train, split.val))
        _fit_in_closed_form(head, features, val_features, target, split)
        return
    model: nn.Module = head if config.freeze else nn.Sequential(encoder, head)
    train_inputs: Any = _training_inputs(inputs, split.train, config.seed, config.fit)
    val_inputs: Any = _Subset(inputs, split.val)
    if config.freeze:
        train_inputs = _frozen(encoder, train_inputs)
        val_inputs = predict(encoder, inputs, split.val)
    run_name = _digest([key(config), *way.environment[:2]])
    checkpoint = data.cache_dir() / "checkpoints" / f"{run_name}.pt"
    if way.refresh:
        checkpoint.unlink(missing_ok=True)
    history = train(
        model,
        _fitting(config.fit, split),
        train_inputs,
        target[split.train],
        val_inputs,
        target[split.val],
        seed=config.seed,
        fabric=way.fabric,
        checkpoint=checkpoint,
        on_epoch=way.epochs_at(_costs(config)[1]),
    )
    checkpoint.unlink(missing_ok=True)
    name = "regressor" if config.pretrain else "end-to-end"
    stages.append(_stage_record(name, history, results.commit()[0]))


_ENCODER_DEPENDS_ON = (
    "dataset", "split", "seed", "model", "pretrain", "target", "size", "exclude", "projection", *results.CONDITIONS,
    "precision",
)  # fmt: skip


def _encoder(config: Config) -> list[Any]:
    """What the contrastively trained weights of a run depend on, but for where they are trained."""
    fields = _trained(config)
    return [{part: fields[part] for part in _ENCODER_DEPENDS_ON if part in fields}, _checksum(config), PROTOCOL]


def _fit_in_closed_form(
    head: nn.Linear, train_features: torch.Tensor, val_features: torch.Tensor, target: torch.Tensor, split: Split
) -> None:
    """Give `head` the weights of a ridge regression; the validation part chooses its penalty."""
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, x_val = (features.double().cpu().numpy() for features in (train_features, val_features))
    if not (np.isfinite(x).all() and np.isfinite(x_val).all()):
        raise FloatingPointError("features are not finite")
    y, y_val = (target[index].double().cpu().numpy() for index in (split.train, split.val))
    fits = [make_pipeline(StandardScaler(), Ridge(alpha)).fit(x, y) for alpha in np.logspace(-3, 4, 15)]
    best = min(fits, key=lambda fit: np.abs(fit.predict(x_val) - y_val).mean())
    slope = best[1].coef_ / best[0].scale_
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(slope)[None])
        head.bias.fill_(float(best[1].intercept_ - slope @ best[0].mean_))


def _fitting(stage: Stage, split: Split) -> Stage:
    """The stage with batches that the training part can fill."""
    return replace(stage, batch_size=min(stage.batch_size, len(split.train)))


def _read_weights(path: Path, fabric: Fabric) -> dict[str, Any] | None:
    """What `_write_weights` has left there, or None; a file that cannot be read counts for nothing."""
    state = None
    if fabric.is_global_zero:
        try:
            state = torch.load(path, weights_only=True, map_location="cpu")
        except FileNotFoundError:
            pass
        except Exception as error:
            warnings.warn(
                f"weights {path} cannot be read ({type(error).__name__}): they are trained again", stacklevel=2
            )
    return fabric.broadcast(state)


def _write_weights(path: Path, state: dict[str, Any], fabric: Fabric) -> None:
    if fabric.is_global_zero:
        write_state(path, state)


class _Float32Linear(nn.Linear):
    """Stays in float32 under autocast: bfloat16 would round ages to quarters and halves."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.float())


def _writable_cache() -> Path:
    """The cache, found usable before hours of training rather than after."""
    cache = data.cache_dir()
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=cache):
            return cache
    except OSError as error:
        raise OSError(
            f"RNC_CACHE: got {cache}, which cannot be written ({error.strerror}); "
            "allowed: a folder for checkpoints and trained encoders"
        ) from None


@dataclass(frozen=True)
class _Subset:
    """The samples `index` of `inputs`, numbered anew from 0."""

    inputs: Any
    index: np.ndarray

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: np.ndarray) -> Any:
        return self.inputs[self.index[index]]


@dataclass(frozen=True)
class _FrozenViews:
    """Features of random views from an encoder that stays as it is, made once for an epoch."""

    encoder: nn.Module
    views: Views

    def at_epoch(self, epoch: int) -> torch.Tensor:
        return predict(self.encoder, self.views.at_epoch(epoch), np.arange(len(self.views)))


def _training_inputs(inputs: Any, index: np.ndarray, seed: int, stage: Stage) -> Views | _Subset:
    return Views(inputs, index, seed, stage.n_views or 1) if isinstance(inputs, Images) else _Subset(inputs, index)


def _frozen(encoder: nn.Module, inputs: Views | _Subset) -> _FrozenViews | torch.Tensor:
    if isinstance(inputs, Views):
        return _FrozenViews(encoder, inputs)
    return predict(encoder, inputs, np.arange(len(inputs)))


def _pretrained(
    config: Config, encoder: nn.Module, inputs: Any, target: torch.Tensor, split: Split, way: _Way
) -> dict[str, Any]:
    """Give `encoder` its contrastively trained weights, from the cache if another run has made them.

    Returns what the record says of the stage.
    """
    assert config.pretrain is not None
    name = _digest([*_encoder(config), *way.environment])
    stage, on_epoch = _fitting(config.pretrain, split), way.epochs_at(_costs(config)[0])
    cached = data.cache_dir() / "encoders" / f"{name}.pt"
    checkpoint = data.cache_dir() / "checkpoints" / f"encoder-{name}.pt"
    if way.refresh and not way.keep_encoder:
        cached.unlink(missing_ok=True)
        checkpoint.unlink(missing_ok=True)
    if (state := _read_weights(cached, way.fabric)) is not None:
        encoder.load_state_dict(state["encoder"])
        if on_epoch:
            on_epoch(stage.epochs)
        return _stage_record("encoder", History(**state["history"]), state.get("commit"))
    trained = encoder
    if config.projection is not None:
        with torch.random.fork_rng():
            torch.manual_seed(config.seed)
            width = cast(int, encoder.out_features)
            layers = (nn.Linear(width, width), nn.ReLU(), nn.Linear(width, config.projection))
        trained = nn.Sequential(encoder, *layers).to(way.fabric.device)
    history = train(
        trained,
        stage,
        _training_inputs(inputs, split.train, config.seed, config.pretrain),
        target[split.train],
        seed=config.seed,
        fabric=way.fabric,
        checkpoint=checkpoint,
        on_epoch=on_epoch,
    )
    commit = results.commit()[0]
    state = {"encoder": encoder.state_dict(), "history": asdict(history), "commit": commit}
    _write_weights(cached, state, way.fabric)
    checkpoint.unlink(missing_ok=True)
    return _stage_record("encoder", history, commit)


def _stage_record(name: str, history: History, commit: str | None, points: int = 40) -> dict[str, Any]:
    """What a record says of a stage; `commit` trained it, which may be an earlier one than that of the run."""
    n = len(history.train_loss)
    kept = sorted({round(epoch) for epoch in np.linspace(1, n, min(n, points))})
    curve: dict[str, list] = {"epoch": kept}
    for part in ("train_loss", "val_loss"):
        if values := getattr(history, part):
            curve[part] = [_rounded(values[epoch - 1], 5) for epoch in kept]
    return {
        "name": name,
        "epochs": n,
        "best_epoch": history.best_epoch,
        "wall_time": round(history.wall_time, 1),
        "commit": commit,
        "curve": curve,
    }


def _view(features: np.ndarray, split: Split, targets: np.ndarray, nuisance: np.ndarray | None = None) -> str:
    """Of every sample two principal components, found on the training part, and its nearest training sample; as CSV."""
    from sklearn.decomposition import PCA
    from sklearn.neighbors import NearestNeighbors

    components = PCA(n_components=2, svd_solver="full").fit(features[split.train]).transform(features)
    components /= components[split.train, 0].std() or 1.0
    # the sign of a component means nothing: let the target grow to the right, the extreme point be on top
    if np.corrcoef(components[split.train, 0], targets[split.train])[0, 1] < 0:
        components[:, 0] *= -1
    if components[np.abs(components[:, 1]).argmax(), 1] < 0:
        components[:, 1] *= -1
    part = np.full(len(targets), None, dtype=object)
    for name in data.PARTS:
        part[getattr(split, name)] = name
    two = split.train[NearestNeighbors(n_neighbors=2).fit(features[split.train]).kneighbors(features)[1]]
    nearest = np.where(two[:, 0] == np.arange(len(targets)), two[:, 1], two[:, 0])  # other than itself
    columns = ["index", "part", "target", "pc1", "pc2", "nearest", *([] if nuisance is None else ["nuisance"])]
    suggested = np.full(len(targets), "") if nuisance is None else np.char.mod(",%.3f", nuisance)
    rows = [
        f"{i},{part[i]},{targets[i]:.3f},{x:.3f},{y:.3f},{nearest[i]}{suggested[i]}"
        for i, (x, y) in enumerate(components)
        if part[i] is not None
    ]
    return "\n".join([",".join(columns), *rows]) + "\n"


def _circumstances(device: str) -> dict[str, Any]:
    on_gpu = device in ("cuda", "auto") and torch.cuda.is_available()
    gpu = {"gpu": torch.cuda.get_device_name()} if on_gpu else {}
    commit, clean = results.commit()
    cpu = platform.machine()
    if (info := Path("/proc/cpuinfo")).is_file():
        models = [line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line]
        cpu = models[0] if models else cpu
    versions = {"python": platform.python_version()}
    for package in VERSIONS_OF:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "commit": commit, "clean": clean, "device": device, "cpu": cpu, **gpu,
        "threads": torch.get_num_threads(), "processes": _torchrun("WORLD_SIZE", 1), "versions": versions,
    }  # fmt: skip


@dataclass
class Grid:
    """Records of a grid of configurations, in its order.

    Attributes
    ----------
    records : list of dict
    loaded, trained : list of Config
        Which runs the store held, and which were carried out now.
    """

    records: list[dict[str, Any]] = field(default_factory=list)
    loaded: list[Config] = field(default_factory=list)
    trained: list[Config] = field(default_factory=list)

    def __str__(self) -> str:
        def listed(configs: list[Config]) -> str:
            counts = Counter(config.method for config in configs)
            return f" ({', '.join(f'{n} × {method}' for method, n in counts.items())})" if counts else ""

        return (
            f"{len(self.loaded)} runs loaded from the store{listed(self.loaded)}; "
            f"{len(self.trained)} trained now{listed(self.trained)}"
        )


def run_grid(
    configs: Sequence[Config],
    *,
    results_dir: str | os.PathLike | None = None,
    refresh: bool = False,
    device: str = "cpu",
    n_jobs: int | None = None,
    progress: bool = True,
) -> Grid:
    """Records of all `configs`: loaded where the store holds them, made and stored where it does not.

    Parameters
    ----------
    configs : sequence of Config
        Of one experiment and profile.
    results_dir : path, optional
        The store; by default `rnclib.results.results_dir`.
    refresh : bool
        Carry out every run anew.
    device : str
        See `run`.
    n_jobs : int, optional
        Processes, with one thread each; by default one per processor, but one for short work or an accelerator. A
        single run, or several that share an encoder, use the threads that torch is set to.
    progress : bool
        Show a bar with the time left.
    """
    root = Path(results.results_dir() if results_dir is None else results_dir)
    kinds = {(config.experiment, config.profile) for config in configs}
    if len(kinds) != 1:
        raise ValueError(
            f"configs: got {sorted(kinds)}; allowed: one experiment and profile, at least one configuration"
        )
    ((experiment, profile),) = kinds
    stored = {record["key"]: record for record in results.load(root, profile=profile, experiment=experiment)}
    if _torchrun("WORLD_SIZE", 1) > 1:  # what is missing is for one process to say
        stored = _fabric(configs[0], device).broadcast(stored)
    keys = [key(config) for config in configs]
    missing = [c for c, k in zip(configs, keys, strict=True) if refresh or k not in stored]

    if missing:
        # runs that share what is trained go to one process, the first of them trains it
        bundles: dict[Any, list[Config]] = {}
        for config in missing:
            encoder = config.pretrain or config.fit or config.method
            condition = tuple(getattr(config, name) for name in (*results.CONDITIONS, "projection"))
            bundles.setdefault((config.split, config.seed, condition, encoder), []).append(config)
        epochs = sum(map(_epochs, missing))
        # a second process takes as long to start as some dozens of epochs take
        jobs = n_jobs or ((os.cpu_count() or 1) if device == "cpu" and epochs > 100 else 1)
        if _torchrun("WORLD_SIZE", 1) > 1:  # the processes work on one run together
            jobs = 1
        for record in _carry_out(list(bundles.values()), root, device, refresh, min(jobs, len(bundles)), progress):
            stored[record["key"]] = record
    redone = set(map(key, missing))
    return Grid(
        records=[stored[k] for k in keys],
        loaded=[c for c, k in zip(configs, keys, strict=True) if k not in redone],
        trained=missing,
    )


def _carry_out(
    bundles: list[list[Config]],
    root: Path,
    device: str,
    refresh: bool,
    jobs: int,
    progress: bool,
) -> Iterable[dict[str, Any]]:
    total = sum(work(config) for bundle in bundles for config in bundle)
    bar = tqdm(
        total=total or None,
        bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed} passed, {remaining} left",
        disable=not progress or _torchrun("RANK", 0) > 0,
        desc=f"{sum(map(len, bundles))} runs",
        mininterval=1,
    )
    with bar:
        if jobs == 1:
            threads = torch.get_num_threads()
            if len(bundles) > 1:  # short work: more threads than one would mostly wait for each other
                torch.set_num_threads(1)
            try:
                for bundle in bundles:
                    yield from _run_bundle(bundle, root, device, refresh, bar.update)
            finally:
                torch.set_num_threads(threads)
            return
        with Manager() as manager:
            done = manager.Queue()
            finished = threading.Event()

            def watch() -> None:
                while not (finished.is_set() and done.empty()):
                    try:
                        bar.update(done.get(timeout=0.5))
                    except queue.Empty:
                        continue

            watcher = threading.Thread(target=watch)
            watcher.start()
            try:
                tasks = (delayed(_worker)(bundle, root, device, refresh, done) for bundle in bundles)
                for records in Parallel(n_jobs=jobs, return_as="generator_unordered")(tasks):
                    yield from records
            finally:
                finished.set()
                watcher.join()


def _epochs(config: Config) -> int:
    return sum(stage.epochs for stage in (config.pretrain, config.fit) if stage is not None)


def _costs(config: Config) -> tuple[float, float]:
    """What an epoch of the two stages costs: passes over the whole training part, of which backward takes two."""
    views = 1 if config.pretrain is None else config.pretrain.n_views or 1
    frozen = 0.02 if config.size is None else 1.0  # features of graphs are computed once, of images for each view
    share = config.fraction or 1.0
    return 3.0 * views * share, (frozen if config.freeze else 3.0) * share


def work(config: Config) -> float:
    """What a run costs, in passes of the network over the training part: the unit of progress."""
    stages = zip((config.pretrain, config.fit), _costs(config), strict=True)
    return sum(stage.epochs * cost for stage, cost in stages if stage is not None)


def _worker(bundle: list[Config], root: Path, device: str, refresh: bool, done: Any) -> list[dict[str, Any]]:
    torch.set_num_threads(1)
    since, waiting = time.monotonic(), 0.0

    def on_progress(amount: float) -> None:
        nonlocal since, waiting
        waiting += amount
        if time.monotonic() - since > 1:
            done.put(waiting)
            since, waiting = time.monotonic(), 0.0

    records = _run_bundle(bundle, root, device, refresh, on_progress)
    done.put(waiting)
    return records


def _run_bundle(
    bundle: list[Config], root: Path, device: str, refresh: bool, on_progress: Callable[[float], None]
) -> list[dict[str, Any]]:
    records, encoders, networks = [], set(), set()
    for config in bundle:  # what one of its runs has trained anew is for the others too
        network, encoder = _digest([_trained(config), _checksum(config)]), _digest(_encoder(config))
        record, view = run(
            config,
            device=device,
            refresh=refresh and network not in networks,
            keep_encoder=encoder in encoders,
            on_progress=on_progress,
        )
        encoders.add(encoder)
        networks.add(network)
        if _torchrun("RANK", 0) == 0:
            path = results.write(record, root)
            if view is not None:
                results.write_text(path.with_suffix(".csv"), view)
        records.append(record)
    return records
