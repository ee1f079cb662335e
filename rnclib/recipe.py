"""A method as data: what is trained, how, and what it is called on every page. Nothing here imports torch."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "BASELINES", "ENCODER_LOSSES", "FEATURISERS", "HEADS", "METHODS", "MODELS", "PACKAGES", "PEERS",
    "REGRESSION_LOSSES", "REGULARISERS", "Recipe", "Stage", "given",
]  # fmt: skip

#: Ways to train with the contrastive loss or without, see `Recipe.default`.
METHODS = ("rnc", "joint", "end_to_end")
#: Losses that compare predictions with targets, as labels name them.
REGRESSION_LOSSES = {"l1": "L1", "l2": "L2", "huber": "Huber"}
#: Losses that train an encoder, with the options that each needs.
ENCODER_LOSSES = {"rnc": ("temperature", "label_diff", "feature_sim"), "supcon": ("temperature", "n_bins")}
#: Terms that are added to a regression loss, as labels name them.
REGULARISERS = {"ordinal entropy": "Ordinal Entropy", "ranksim": "RankSim", "rnc": "RnC", "conr": "ConR"}
#: Networks, and the inputs that each takes; ``'own'`` is a module that is handed over, for any array.
MODELS = {
    "gin": "molecules", "gin and perceptron": "molecules", "resnet18": "images", "resnet50": "images",
    "small": "images", "residual": "images", "perceptron": "table", "own": "table",
}  # fmt: skip
_WITH_NUMBERS = ("perceptron", "gin and perceptron")  # networks, of numeric inputs or of both
#: Models that are no network of ours: they are fitted without stages.
BASELINES = ("training mean", "Delaney's equation", "extra trees")
#: Regressors on numeric inputs, each with a few settings to choose from, as labels name them.
PEERS = {
    "ridge": "ridge", "neighbours": "nearest neighbours", "gaussian process": "Gaussian process", "svr": "SVR",
    "boosting": "gradient boosting", "trees": "extra trees, chosen settings", "catboost": "CatBoost",
}  # fmt: skip
#: Models of other packages, with defaults of their own, and the inputs that each takes.
PACKAGES = {"chemprop": "molecules"}
#: What turns other inputs into numbers, and the inputs that each takes.
FEATURISERS = {"descriptors": "molecules", "colours": "images", "pixels": "images"}
#: Regressors on the features of a trained network, in place of its own linear layer, as labels name them.
HEADS = {"ridge": "closed form", "neighbours": "nearest neighbours", "gaussian process": "Gaussian process"}


def given(values: dict[str, Any]) -> dict[str, Any]:
    """The values without those that are None, in nested dictionaries too, and lists for tuples, as JSON has them.

    None stands for "not applied": it is left out of keys, records and checkpoints, so that a new option leaves old
    ones as they are.
    """
    return {
        name: given(value) if isinstance(value, dict) else list(value) if isinstance(value, tuple) else value
        for name, value in values.items()
        if value is not None
    }


@dataclass(frozen=True)
class Stage:
    """Hyperparameters of one training stage, in the words of the published tables.

    Attributes
    ----------
    loss : {'rnc', 'supcon', 'l1', 'l2', 'huber'}
        ``'rnc'`` and ``'supcon'`` (on binned targets) train an encoder; the others compare predictions with targets.
    epochs, batch_size : int
    learning_rate, weight_decay : float
        Of the optimiser; with ``schedule='one-cycle'`` the highest rate.
    lr_decay_rate : float
        r: the learning rate falls along a cosine to ``learning_rate · r³``.
    momentum : float
        Of stochastic gradient descent.
    drop_last : bool
        Leave out the incomplete last batch of an epoch.
    batch_norm : {'train', 'eval'}
        ``'eval'``: batch norm uses and keeps its running statistics.
    temperature : float, optional
        Of the losses that train an encoder, where it must be given.
    label_diff, feature_sim : str, optional
        Options of `rnclib.RnCLoss`; only with ``loss='rnc'``, where they must be given.
    ties : {'rounding'}, optional
        `rnclib.RnCLoss` takes label distances that differ by rounding alone for equal; by default it compares them
        exactly.
    n_bins : int, optional
        Of the target; only with ``loss='supcon'``, where it must be given.
    regulariser : {'ordinal entropy', 'ranksim', 'rnc', 'conr'}, optional
        Added to a regression loss, on the features that the model's last module is given: see `rnclib.other_losses`,
        or `rnclib.rnc_loss` with its defaults but for ``ties``.
    regulariser_weight : float, optional
        Given with a regulariser.
    window : float, optional
        Of ConR, in the unit in which the network learns to predict; given with it.
    unit_features : {True}, optional
        Scale features to length 1 before the loss; only with ``loss='rnc'``.
    n_views : int, optional
        Random views of each image in a batch; one if not given.
    augmentation : {'shifts'}, optional
        Views of images are shifted and mirrored only; by default their colours and size change too, as in the paper.
    optimizer : {'adamw'}, optional
        AdamW (Loshchilov and Hutter 2019); by default stochastic gradient descent with momentum.
    schedule : {'one-cycle'}, optional
        The learning rate rises and falls once, step by step (Smith and Topin 2019); by default the published cosine.
    average : float, optional
        Validate and keep an exponential moving average of the weights with this decay, from 0 to 1; early in training
        the decay is smaller, so that the initial weights are forgotten.
    keep : {'last'}, optional
        Keep the weights of the last epoch; by default those of the epoch with the lowest loss on the validation set,
        where the stage has one.
    input_noise : float, optional
        Standard deviation of normal noise that is added to numeric inputs in training.
    patience : int, optional
        End training once the loss on the validation set has not fallen for so many epochs; by default it goes on to its
        last epoch. An encoder, too, then keeps the weights of the epoch with the lowest contrastive loss there.
    """

    loss: str
    epochs: int
    batch_size: int
    learning_rate: float
    lr_decay_rate: float
    weight_decay: float
    momentum: float = 0.9
    drop_last: bool = False
    batch_norm: str = "train"
    temperature: float | None = None
    label_diff: str | None = None
    feature_sim: str | None = None
    ties: str | None = None
    unit_features: bool | None = None
    n_views: int | None = None
    augmentation: str | None = None
    n_bins: int | None = None
    regulariser: str | None = None
    regulariser_weight: float | None = None
    window: float | None = None
    optimizer: str | None = None
    schedule: str | None = None
    average: float | None = None
    keep: str | None = None
    input_noise: float | None = None
    patience: int | None = None

    def __post_init__(self) -> None:
        _one_of(self, "loss", (*ENCODER_LOSSES, *REGRESSION_LOSSES))
        for name in ("epochs", "batch_size"):
            _number(self, name, least=1, whole=True)
        for name in ("learning_rate", "lr_decay_rate", "weight_decay", "momentum"):
            _number(self, name, least=0)
        _one_of(self, "batch_norm", ("train", "eval"))
        _one_of(self, "optimizer", (None, "adamw"))
        _one_of(self, "keep", (None, "last"))
        _one_of(self, "augmentation", (None, "shifts"))
        _one_of(self, "schedule", (None, "one-cycle"))
        if self.schedule is not None and self.lr_decay_rate:
            _refuse(self, "lr_decay_rate", "0 with schedule='one-cycle', which has a floor of its own")
        _between(self, "average")
        _number(self, "patience", least=1, whole=True, optional=True)
        if self.patience is not None and (self.keep, self.schedule) != (None, None):
            _refuse(self, "patience", "None with keep='last' or schedule='one-cycle', which count on the last epochs")
        _one_of(self, "drop_last", (False, True))
        for name in ("input_noise", "regulariser_weight"):
            _number(self, name, least=0, optional=True)
        self._check_options_of_the_loss()

    def _check_options_of_the_loss(self) -> None:
        for name in ("temperature", "label_diff", "feature_sim", "n_bins"):
            losses = [loss for loss, options in ENCODER_LOSSES.items() if name in options]
            if (getattr(self, name) is None) == (self.loss in losses):
                _refuse(self, name, f"a value with loss={' or '.join(map(repr, losses))}, None with the others")
        _number(self, "temperature", least=0, optional=True)
        if self.temperature == 0:
            _refuse(self, "temperature", "a finite number above 0")
        _one_of(self, "label_diff", (None, "l1", "l2"))
        _one_of(self, "feature_sim", (None, "l1", "l2", "cosine"))
        _number(self, "n_bins", least=2, whole=True, optional=True)
        if self.regulariser is not None and (self.regulariser not in REGULARISERS or self.loss in ENCODER_LOSSES):
            _refuse(self, "regulariser", ", ".join(map(repr, REGULARISERS)) + " with a regression loss, or None")
        if (self.regulariser is None) != (self.regulariser_weight is None):
            _refuse(self, "regulariser_weight", "a number with a regulariser, None without")
        _number(self, "window", least=0, optional=True)
        if bool(self.window) != (self.regulariser == "conr"):
            _refuse(self, "window", "a number above 0 with regulariser='conr', None without")
        if self.ties not in (None, "rounding") or (self.ties and "rnc" not in (self.loss, self.regulariser)):
            _refuse(self, "ties", "'rounding' with loss='rnc' or regulariser='rnc', or None")
        if self.unit_features not in (None, True) or (self.unit_features and self.loss != "rnc"):
            _refuse(self, "unit_features", "True with loss='rnc', or None")
        _number(self, "n_views", least=1, whole=True, optional=True)


@dataclass(frozen=True)
class Recipe:
    """A method, fully described: nothing in it depends on a data set.

    Attributes
    ----------
    model : str
        A network of `MODELS`, see `rnclib.encoders`, one of the `BASELINES` or the `PEERS`, see `rnclib.regressors`, or
        one of the `PACKAGES`, see `rnclib.other_packages`.
    pretrain : Stage, optional
        Contrastive training of the encoder; None for end-to-end training.
    fit : Stage, optional
        Training of the regressor; None for a baseline, and for a `head` on a contrastively trained encoder.
    freeze : bool
        `fit` trains the linear layer only; the encoder stays as `pretrain` left it.
    head : {'ridge', 'neighbours', 'gaussian process'}, optional
        Regressor that is fitted to the features of the trained network and predicts in place of its own linear
        layer. The validation set chooses its settings. Without `fit`, by default ``'ridge'``.
    projection : int, optional
        Size of a projection head (two linear layers with a ReLU between) that the contrastive loss sees, and that is
        left out afterwards.
    target : {'raw'}, optional
        Unit in which the network learns to predict: that of the data set, or by default standard deviations of the
        training targets, from their mean.
    precision : {'bf16-mixed'}, optional
        Train with autocast to bfloat16; by default in float32.
    featuriser : {'descriptors', 'colours', 'pixels'}, optional
        Turn molecules into RDKit's descriptors, on a logarithmic scale; images into a histogram of their colours, or
        into their pixels, one after the other.
    scaling : {'standard', 'quantile', 'pieces'}, optional
        Scale numeric inputs by mean and standard deviation of the training set. Before that turn them into normal
        quantiles, or put 17 numbers in the place of each, of which a linear layer makes any function that is linear
        between 17 quantiles (a piecewise linear encoding, Gorishniy et al. 2022).
    widths : tuple of int, optional
        Layers of a perceptron, the last of which are its features.
    dropout : float, optional
        After a perceptron's layers but the last.
    ensemble : int, optional
        Train so many networks that differ in their seed, and average their predictions.
    notable : tuple of str
        What the label says besides: settings that are not the published ones, such as ``'fit.learning_rate'`` or
        ``'projection'``, and words such as ``'tuned'``. No part of a run's key.
    """

    model: str
    pretrain: Stage | None = None
    fit: Stage | None = None
    freeze: bool = False
    head: str | None = None
    projection: int | None = None
    target: str | None = None
    precision: str | None = None
    featuriser: str | None = None
    scaling: str | None = None
    widths: tuple[int, ...] | None = None
    dropout: float | None = None
    ensemble: int | None = None
    notable: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        _one_of(self, "model", (*MODELS, *BASELINES, *PEERS, *PACKAGES))
        if isinstance(self.widths, list):  # as JSON has it
            object.__setattr__(self, "widths", tuple(self.widths))
        _one_of(self, "freeze", (False, True))
        _one_of(self, "target", (None, "raw"))
        _one_of(self, "precision", (None, "bf16-mixed"))
        _one_of(self, "featuriser", (None, *FEATURISERS))
        _one_of(self, "scaling", (None, "standard", "quantile", "pieces"))
        _one_of(self, "head", (None, *HEADS))
        for name in ("pretrain", "fit"):
            if not isinstance(getattr(self, name), Stage | None):
                _refuse(self, name, "a Stage, or None")
        baseline = self.model not in MODELS
        if baseline and (self.fit is not None or self.pretrain is not None):
            stage = "fit" if self.pretrain is None else "pretrain"
            _refuse(self, stage, f"None with model={self.model!r}; a Stage is for a network")
        if not baseline and self.fit is None and self.pretrain is None:
            _refuse(self, "fit", f"a Stage with model={self.model!r} and no pretrain")
        if self.pretrain is not None and self.pretrain.loss not in ENCODER_LOSSES:
            _refuse(self, "pretrain", f"a Stage with loss={' or '.join(map(repr, ENCODER_LOSSES))}")
        if self.fit is not None and self.fit.loss in ENCODER_LOSSES:
            _refuse(self, "fit", f"a Stage with loss={' or '.join(map(repr, REGRESSION_LOSSES))}")
        self._check_what_goes_together(baseline)

    def _check_what_goes_together(self, baseline: bool) -> None:
        if self.fit is None and not baseline:
            if not self.freeze:
                _refuse(self, "freeze", "True where there is pretrain but no fit: the encoder stays as it is")
            if self.head is None:
                object.__setattr__(self, "head", "ridge")
        if self.head is not None and baseline:
            _refuse(self, "head", f"None with model={self.model!r}; a head sits on the features of a network")
        if self.freeze and self.pretrain is None:
            _refuse(self, "freeze", "False without pretrain; only a contrastively trained encoder can stay as it is")
        if self.freeze and self.fit is not None and self.fit.regulariser is not None:
            _refuse(self, "fit", "a Stage without regulariser with freeze=True: it would act on features that stay")
        _number(self, "projection", least=1, whole=True, optional=True)
        if self.projection is not None and self.pretrain is None:
            _refuse(self, "projection", "a positive size, with pretrain, or None")
        for name in ("pretrain", "fit"):
            for setting, kind in (("n_views", "images"), ("augmentation", "images"), ("input_noise", "table")):
                stage = getattr(self, name)
                fits = MODELS.get(self.model) == kind or (kind == "table" and self.model in _WITH_NUMBERS)
                if stage is not None and getattr(stage, setting) is not None and not fits:
                    value = getattr(stage, setting)
                    raise ValueError(
                        f"{name}: got {setting}={value!r} with model={self.model!r}; allowed: only with one for {kind}"
                    )
        for name in ("widths", "dropout"):
            if getattr(self, name) is not None and self.model not in _WITH_NUMBERS:
                _refuse(self, name, "None but with model='perceptron' or 'gin and perceptron'")
        widths = self.widths if isinstance(self.widths, tuple) else ()
        if self.model in _WITH_NUMBERS and not (widths and all(type(width) is int and width > 0 for width in widths)):
            _refuse(self, "widths", f"at least one positive integer with model={self.model!r}")
        _between(self, "dropout")
        for name in ("featuriser", "scaling"):
            if getattr(self, name) is not None and self.model not in (*_WITH_NUMBERS, *PEERS):
                _refuse(self, name, "None but with a model for numbers, such as 'perceptron'")
        if self.model == "gin and perceptron" and self.featuriser != "descriptors":
            _refuse(self, "featuriser", f"'descriptors' with model={self.model!r}")
        _number(self, "ensemble", least=2, whole=True, optional=True)
        if self.ensemble is not None and baseline:
            _refuse(self, "ensemble", f"None with model={self.model!r}")
        if not isinstance(self.notable, tuple):
            _refuse(self, "notable", "a tuple of str")

    @classmethod
    def default(cls, kind: str, method: str | None = None) -> Recipe:
        """A recipe to begin with, whose settings are typical of those that searches found on real tasks.

        ``book/comparing.md`` says how they are made; the chapter across tasks shows what searching for a task's own
        gains over them. Those for images come from one task, small pictures taken from above. Arrays have the settings
        with which a search begins.

        Parameters
        ----------
        kind : {'table', 'molecules', 'images', 'array'}
            Of the inputs; an ``'array'`` goes to a module of your own as it is.
        method : {'rnc', 'joint', 'end_to_end'}, optional
            The contrastive loss trains an encoder that then stays as it is, with a regressor on its features; or it is
            added to a regression loss on the features of the whole network; or there is that regression loss alone.
            By default the one that ranks first on the validation sets of those tasks, for arrays ``'rnc'``.

        Raises
        ------
        ValueError

        Examples
        --------
        >>> Recipe.default("table", "joint").label()
        'L1 + RnC end to end'
        """
        if kind not in _DEFAULTS:
            raise ValueError(f"kind: got {kind!r}; allowed: {', '.join(map(repr, _DEFAULTS))}")
        if method is not None and method not in _DEFAULTS[kind]:
            raise ValueError(f"method: got {method!r}; allowed: {', '.join(map(repr, METHODS))}")
        method = next(iter(_DEFAULTS[kind])) if method is None else method
        of_stage, of_network = dict(_DEFAULTS[kind][method]), dict(_OF_INPUTS[kind])
        of_network |= {name: of_stage.pop(name) for name in ("widths", "dropout", "scaling") if name in of_stage}
        if method == "rnc":
            return cls(pretrain=Stage(**_FIXED | _CONTRAST | of_stage), freeze=True, **of_network)
        if method == "joint":
            of_stage |= {"regulariser": "rnc", "ties": "rounding"}
        return cls(fit=Stage(**_FIXED | of_stage), **of_network)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Kinds of inputs that the model takes, of ``'molecules'``, ``'images'`` and ``'table'``."""
        if self.model == "training mean":
            return ("molecules", "images", "table")
        if self.featuriser is not None:
            return (FEATURISERS[self.featuriser],)
        if self.model in BASELINES:
            return ("molecules",)
        return ((MODELS | PACKAGES).get(self.model, "table"),)

    def described(self) -> dict[str, Any]:
        """The recipe as records hold it; see `given`."""
        values = given({name: vars(value) if isinstance(value, Stage) else value for name, value in vars(self).items()})
        del values["notable"]
        if values.get("head") == "ridge":  # how records have said it from the beginning
            del values["head"]
            if self.fit is not None:
                values["refit"] = True
        return values

    def label(self) -> str:
        """Name of the method on every page.

        Examples
        --------
        >>> stage = Stage("l1", epochs=2, batch_size=8, learning_rate=0.01, lr_decay_rate=0.1, weight_decay=0)
        >>> Recipe("gin", fit=stage, notable=("fit.learning_rate",)).label()
        'L1 end to end, lr 0.01'
        """
        if self.model not in MODELS:
            return ", ".join([PEERS.get(self.model, self.model), *(self._said(name) for name in self.notable)])
        fitted = None if self.fit is None else REGRESSION_LOSSES[self.fit.loss]
        if self.pretrain is None:
            assert self.fit is not None
            term = "" if self.fit.regulariser is None else f" + {REGULARISERS[self.fit.regulariser]}"
            words = [f"{fitted}{term} end to end"]
        else:
            method = "RnC" if self.pretrain.loss == "rnc" else "SupCon"
            words = [f"{method} {'frozen' if self.freeze else 'fine-tuned'}", *filter(None, [fitted])]
        if self.head is not None:
            words.append(HEADS[self.head])
        if self.ensemble is not None:
            words.append(f"ensemble of {self.ensemble}")
        return ", ".join([*words, *(self._said(name) for name in self.notable)])

    @property
    def reads_graph_or_pixels(self) -> bool:
        """Whether it predicts from what corruptions change, see `rnclib.data.corruptions`."""
        return self.model in MODELS and MODELS[self.model] != "table"

    def _said(self, name: str) -> str:
        stage, _, setting = name.rpartition(".")
        if setting not in _SAID:
            return name
        value = getattr(getattr(self, stage) if stage else self, setting)
        return _SAID[setting].format({"l1": "negative L1"}.get(value, value))


# settings of `Recipe.default`: what every method has, and by kind of inputs and method what is typical of the real
# tasks of that kind, by the rule of book/comparing.md; the first method is the one that ranks first on them
_FIXED: dict[str, Any] = {"lr_decay_rate": 0.0, "optimizer": "adamw", "schedule": "one-cycle", "keep": "last"}
_CONTRAST = {"loss": "rnc", "label_diff": "l1", "feature_sim": "l2", "ties": "rounding"}
# where no tasks tell: the first trial of every search
_FIRST = {"epochs": 100, "batch_size": 256, "learning_rate": 3e-3, "weight_decay": 0.1, "average": 0.99}
_FIRST_OF_METHOD: dict[str, dict[str, Any]] = {
    "rnc": _FIRST | {"temperature": 2.0},
    "joint": _FIRST | {"loss": "l1", "regulariser_weight": 0.3},
    "end_to_end": _FIRST | {"loss": "l1"},
}
_PICTURES = {"batch_size": 64, "average": 0.99, "epochs": 40, "augmentation": "shifts", "n_views": 2}
_DEFAULTS: dict[str, dict[str, dict[str, Any]]] = {
    "table": {
        "end_to_end": {
            "widths": (512, 512, 128), "dropout": 0.16, "scaling": "pieces", "learning_rate": 0.0027,
            "weight_decay": 0.04, "batch_size": 64, "epochs": 50, "input_noise": 0.031, "loss": "l1",
        },
        "joint": {
            "widths": (256, 256, 128), "dropout": 0.15, "scaling": "quantile", "learning_rate": 0.0029,
            "weight_decay": 0.17, "batch_size": 64, "average": 0.99, "epochs": 100, "input_noise": 0.021,
            "loss": "l1", "regulariser_weight": 0.057,
        },
        "rnc": {
            "widths": (128, 128, 128), "dropout": 0.082, "scaling": "quantile", "learning_rate": 0.0027,
            "weight_decay": 0.22, "batch_size": 64, "average": 0.99, "epochs": 100, "input_noise": 0.093,
            "temperature": 2.5,
        },
    },
    "molecules": {
        "rnc": {
            "widths": (128, 128, 128), "dropout": 0.065, "scaling": "standard", "learning_rate": 0.0021,
            "weight_decay": 0.15, "batch_size": 64, "epochs": 100, "input_noise": 0.096, "temperature": 0.87,
        },
        "joint": {
            "widths": (128, 128, 128), "dropout": 0.063, "scaling": "standard", "learning_rate": 0.0015,
            "weight_decay": 0.05, "batch_size": 64, "epochs": 100, "input_noise": 0.13, "loss": "l1",
            "regulariser_weight": 0.7,
        },
        "end_to_end": {
            "widths": (512, 512, 128), "dropout": 0.15, "scaling": "standard", "learning_rate": 0.0062,
            "weight_decay": 0.3, "batch_size": 64, "epochs": 100, "input_noise": 0.067, "loss": "l1",
        },
    },
    "images": {
        "joint": _PICTURES | {
            "learning_rate": 0.03, "weight_decay": 0.0036, "loss": "l2", "regulariser_weight": 0.39,
        },
        "end_to_end": _PICTURES | {"learning_rate": 0.029, "weight_decay": 0.0044, "loss": "l2"},
        "rnc": _PICTURES | {"learning_rate": 0.0038, "weight_decay": 0.89, "temperature": 2.5},
    },
    "array": _FIRST_OF_METHOD,
}  # fmt: skip
_OF_INPUTS: dict[str, dict[str, Any]] = {
    "table": {"model": "perceptron"},
    "molecules": {"model": "perceptron", "featuriser": "descriptors"},
    "images": {"model": "residual"},
    "array": {"model": "own"},
}

# what a label says of a setting
_SAID = {
    "learning_rate": "lr {:g}", "temperature": "temperature {:g}", "feature_sim": "{} similarity",
    "batch_size": "batches of {}", "n_views": "{} view", "unit_features": "features of length 1",
    "ties": "ties up to {}", "projection": "projection head of {}",
}  # fmt: skip


def _refuse(owner: Any, name: str, allowed: str) -> None:
    raise ValueError(f"{name}: got {getattr(owner, name)!r}; allowed: {allowed}")


def _one_of(owner: Any, name: str, allowed: Iterable[Any]) -> None:
    if getattr(owner, name) not in allowed:
        _refuse(owner, name, ", ".join(map(repr, allowed)))


def _between(owner: Any, name: str) -> None:
    value = getattr(owner, name)
    if value is not None and not (isinstance(value, float) and 0 < value < 1):
        _refuse(owner, name, "a number between 0 and 1, or None")


def _number(owner: Any, name: str, *, least: int, whole: bool = False, optional: bool = False) -> None:
    value = getattr(owner, name)
    if value is None and optional:
        return
    fits = type(value) is int if whole else isinstance(value, (int, float)) and not isinstance(value, bool)
    if not fits or not least <= value < math.inf:
        kind = "an integer" if whole else "a finite number"
        _refuse(owner, name, f"{kind} of at least {least}" + (", or None" if optional else ""))
