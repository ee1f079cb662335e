"""`RnCRegressor`: Rank-N-Contrast, joint and end-to-end training by scikit-learn's contract."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, RegressorMixin, TransformerMixin
from sklearn.neighbors import NearestNeighbors
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted
from torch import nn
from tqdm import tqdm

from rnclib.data import take
from rnclib.fitting import Epoch, Execution, FittedNetwork, Samples, fit
from rnclib.held_out import alike, numbered, together
from rnclib.inputs import Numbers
from rnclib.networks import DEVICES, fold
from rnclib.reading import FEWEST, checked, read
from rnclib.recipe import HEADS, METHODS, Recipe, Stage
from rnclib.regressors import best_regressor
from rnclib.training import FEWEST_STEPS
from rnclib.vectoriser import Vectoriser, is_frame

__all__ = ["RnCRegressor"]

_KINDS = {"table": "table", "smiles": "molecules", "images": "images"}
_PAIRS = 3  # samples that the contrastive loss needs: that of two is 0
_SETTINGS = ("epochs", "batch_size", "learning_rate", "weight_decay")


class RnCRegressor(ClassNamePrefixFeaturesOutMixin, TransformerMixin, RegressorMixin, BaseEstimator):
    """A network for regression on tables, molecules, images or arrays, trained with Rank-N-Contrast or without.

    Some samples are held out as a validation set, which chooses the regressor on the features; those with equal inputs
    together, unless few differ. What is not set here has the value of `rnclib.recipe.Recipe.default`.

    Parameters
    ----------
    method : {'rnc', 'joint', 'end_to_end'}
        The contrastive loss trains an encoder that then stays as it is; or it is added to a regression loss (L1); or
        there is that regression loss alone.
    inputs : {'table', 'smiles', 'images'}
        What `X` is: numbers, shape (n, n_features), NaN where one is missing, or a DataFrame that may have columns of
        text, dates and truth values too (``skrub`` makes numbers of them); SMILES of molecules; or paths of images.
    encoder : Module, optional
        A network of your own, which takes a batch of `X`, float32, and gives features, shape (n, feat_dim). `X` may
        then be any array of n finite entries, and gets to it as it is. A copy of it is trained, from the weights that
        it has.
    head : {'auto', 'linear', 'ridge', 'neighbours', 'gaussian process'}
        What predicts from the features: the network's own linear layer (ridge regression with ``method='rnc'``, which
        trains none), or a regressor fitted to them. ``'auto'``: that of the first three which has the lowest mean
        absolute error on the validation set.
    epochs, batch_size : int, optional
    learning_rate, weight_decay : float, optional
        Of AdamW. The rate is the highest of a one-cycle schedule.
    temperature : float, optional
        Of the contrastive loss, with ``method='rnc'``.
    contrastive_weight : float, optional
        Of the contrastive loss, with ``method='joint'``.
    early_stopping : bool
        Train at a constant `learning_rate`, by default a third of the recipe's, until the loss on the validation set
        has not fallen for `n_iter_no_change` epochs, and keep the weights of the epoch where it was lowest. Otherwise
        all epochs are trained, and the last is kept.
    n_iter_no_change : int
    validation_fraction : float
        Of the samples, between 0 and 1.
    calibration_fraction : float
        Of the samples, at least 0, which are left out of all training; intervals of predictions need them. They are
        chosen at random, by groups where there are some.
    image_size : int
        Side to which images are scaled and cropped, in pixels.
    random_state : int, RandomState or None
        Of the parts of the samples, initial weights, the order of samples, and all else that is random.
    device : {'cpu', 'cuda', 'auto'}
    verbose : bool
        Show a bar with the time left.

    Attributes
    ----------
    n_features_in_ : int
    feature_names_in_ : ndarray of str
        Where `X` has names.
    recipe_ : Recipe
        What was trained.
    head_ : str
        The regressor that was chosen.
    validation_error_ : float
        Its mean absolute error on the validation set, in the unit of the targets, averaged over several. That set has
        chosen the regressor, so the error of new samples is likely to be larger.
    n_iter_ : int
        Epochs that were trained.
    loss_curve_ : list of float
        Training loss of each.
    training_, validation_, calibration_ : ndarray of int
        Which rows of `X` were used for what.
    notes_ : dict
        Empty; whatever you put there, of the kinds that JSON has, is saved with the model.

    Notes
    -----
    Samples are visited in mini-batches. So a sample of weight 2 is not the same as that sample twice: the two would be
    in different batches, or seen as a pair by the contrastive loss. Samples of weight 0 are left out of all but
    `kneighbors`. Intervals have no weights.

    Features are computed in float64 for tables and molecules. Those of images, and of a network of your own, are in
    float32; there a prediction differs by rounding with what is predicted beside it.

    Examples
    --------
    >>> x = np.random.default_rng(0).normal(size=(80, 3))
    >>> model = RnCRegressor(epochs=20, random_state=0).fit(x, x[:, 0] + x[:, 1] ** 2)
    >>> model.predict(x[:2]).shape, model.transform(x[:2]).shape
    ((2,), (2, 128))
    """

    def __init__(
        self,
        method: str = "rnc",
        *,
        inputs: str = "table",
        encoder: Any = None,
        head: str = "auto",
        epochs: int | None = None,
        batch_size: int | None = None,
        learning_rate: float | None = None,
        weight_decay: float | None = None,
        temperature: float | None = None,
        contrastive_weight: float | None = None,
        early_stopping: bool = False,
        n_iter_no_change: int = 20,
        validation_fraction: float = 0.1,
        calibration_fraction: float = 0.0,
        image_size: int = 64,
        random_state: Any = None,
        device: str = "cpu",
        verbose: bool = False,
    ) -> None:
        self.method = method
        self.inputs = inputs
        self.encoder = encoder
        self.head = head
        self.epochs = epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.temperature = temperature
        self.contrastive_weight = contrastive_weight
        self.early_stopping = early_stopping
        self.n_iter_no_change = n_iter_no_change
        self.validation_fraction = validation_fraction
        self.calibration_fraction = calibration_fraction
        self.image_size = image_size
        self.random_state = random_state
        self.device = device
        self.verbose = verbose

    # --- scikit-learn's contract ------------------------------------------------------------------------------

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = self.inputs == "table" and self.encoder is None
        tags.input_tags.string = self.inputs != "table"
        tags.input_tags.three_d_array = self.encoder is not None
        tags.target_tags.multi_output = True
        return tags

    @property
    def _n_features_out(self) -> int:
        return self._features.shape[1]

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> RnCRegressor:
        """Train the network, and choose the regressor on its features.

        Parameters
        ----------
        X : array-like, DataFrame or sequence of str
            See `inputs`.
        y : array-like, shape (n,) or (n, n_targets)
        sample_weight : array-like, shape (n,), optional
            At least 0. With weights the regressor is the linear layer or ridge regression.
        groups : array-like, shape (n,), optional
            Such as patients: samples held out to validate or calibrate are of other groups than those of training.

        Returns
        -------
        RnCRegressor

        Raises
        ------
        ValueError
            If a setting, `X` or `y` is not as it should be.
        FloatingPointError
            If training diverges.
        """
        recipe = self._recipe(weighted=sample_weight is not None)
        X, y = checked(self, X, y)
        weights = None if sample_weight is None else _check_sample_weight(sample_weight, y, dtype=float)
        used = np.arange(len(y)) if weights is None else np.flatnonzero(_not_negative(weights))
        if len(used) < FEWEST:
            raise ValueError(f"sample_weight: got {len(used)} samples above 0; allowed: at least {FEWEST}")
        if weights is not None:
            weights = weights / weights[used].mean()  # ridge regression has a penalty beside them
        seed = self._seed()
        belongs = numbered(alike(X) if groups is None else groups, len(y))
        training, validation, calibration = self._parts(used, belongs, groups is not None, seed, recipe)
        # nothing is known of the samples that calibrate, as of new ones
        vectoriser = Vectoriser.of(X.iloc[training]) if is_frame(X) else None
        X = vectoriser(X) if vectoriser else X
        single, y = y.ndim == 1, y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
        train, val = (
            Samples(take(X, part), y[part], None if weights is None else weights[part])
            for part in (training, validation)
        )
        with self._bar(recipe) as on_epoch:
            given = {"seed": seed, "execution": Execution(device=self.device), "encoder": self.encoder}
            fitted = fit(recipe, train, val, on_epoch=on_epoch, **given)
        assert isinstance(fitted, FittedNetwork)
        self._network, self._vectoriser, self._single, self.recipe_ = fitted, vectoriser, single, recipe
        self.training_, self.validation_, self.calibration_ = training, validation, calibration
        self.notes_: dict[str, Any] = {}
        self.loss_curve_ = [loss for stage in fitted.stages for loss in stage.history.train_loss]
        self.n_iter_ = len(self.loss_curve_)
        if isinstance(fitted.prepare, Numbers):
            _in_float64(fitted)
        self._choose_head(train, val)
        self._features, self._targets = fitted.features(X), self._scaled(y)
        held_out = take(X, calibration) if len(calibration) else None
        self._residuals = None if held_out is None else np.abs(fitted.predict(held_out) - y[calibration])
        return self

    def predict(self, X: Any, return_interval: bool = False, level: float = 0.9) -> Any:
        """Predictions, in the unit of the targets.

        Parameters
        ----------
        X : array-like, DataFrame or sequence of str
        return_interval : bool
            With intervals too, which need samples held out by `calibration_fraction`. They are those of split conformal
            prediction (Lei et al. 2018), of one width for all: over training sets and new samples that come from where
            the held-out ones come from, they cover at least a fraction `level`, for each target by itself.
        level : float

        Returns
        -------
        predictions : ndarray, shape (n,) or (n, n_targets)
        low, high : ndarray
            Of the same shape, with `return_interval`.
        """
        check_is_fitted(self, "_network")
        found = self._network.predict(read(self, X))
        found = found if self._single or found.ndim == 2 else found[:, None]
        if not return_interval:
            return found
        width = self._width(level)
        return found, found - width, found + width

    def transform(self, X: Any) -> np.ndarray:
        """Features of the encoder.

        Parameters
        ----------
        X : array-like, DataFrame or sequence of str

        Returns
        -------
        ndarray, shape (n, feat_dim)
        """
        check_is_fitted(self, "_network")
        return self._network.features(read(self, X))

    def inputs_of(self, X: Any) -> Any:
        """What the network is given of `X`, as `rnclib.fitting.fit` takes inputs: numbers, molecules or images.

        `predict`, `transform` and `kneighbors` take these molecules or images too, which then are read once. Images
        that `fit` has not seen are not kept.

        Parameters
        ----------
        X : array-like, DataFrame or sequence of str
        """
        check_is_fitted(self, "_network")
        return read(self, X)

    def kneighbors(
        self, X: Any = None, n_neighbors: int = 5, return_distance: bool = True
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """The samples given to `fit` whose features are nearest, nearest first.

        Parameters
        ----------
        X : array-like, DataFrame or sequence of str, optional
            By default the samples given to `fit`, none of which is its own neighbour.
        n_neighbors : int
        return_distance : bool

        Returns
        -------
        distances : ndarray, shape (n, n_neighbors)
            Euclidean, with `return_distance`.
        rows : ndarray of int, shape (n, n_neighbors)
            Of the `X` given to `fit`.
        """
        check_is_fitted(self, "_network")
        index = NearestNeighbors(n_neighbors=n_neighbors).fit(self._features)
        return index.kneighbors(None if X is None else self.transform(X), return_distance=return_distance)

    def save(self, path: str | Path) -> None:
        """Write the fitted model to one file, in the format of safetensors, with no code in it.

        Parameters
        ----------
        path : path
            An encoder of your own is saved by its weights alone, and wanted again by `load`. Features and targets of
            all samples are in the file, and of columns of text some values, or all categories.

        Raises
        ------
        ValueError
            If something of the model cannot be saved.
        OSError
            If the file cannot be written.
        """
        from rnclib.saved import write

        check_is_fitted(self, "_network")
        write(self, Path(path))

    @classmethod
    def load(cls, path: str | Path, *, encoder: Any = None, device: str = "cpu") -> RnCRegressor:
        """A model that `save` has written.

        Parameters
        ----------
        path : path
        encoder : Module, optional
            Where the model has been trained with a network of your own: a module of the same shapes.
        device : {'cpu', 'cuda', 'auto'}

        Raises
        ------
        ValueError
            If the file is no such model, or of a later version.
        OSError
            If there is no such file, or it cannot be read.
        """
        from rnclib.saved import read

        return read(cls(device=device, encoder=encoder), Path(path))

    # --- what comes in ----------------------------------------------------------------------------------------

    def _recipe(self, weighted: bool) -> Recipe:
        """The default recipe with the settings that are given, or an error that names a wrong one."""
        heads = ("auto", "linear", *HEADS)
        for name, allowed in (("method", METHODS), ("inputs", tuple(_KINDS)), ("head", heads), ("device", DEVICES)):
            if not isinstance(value := getattr(self, name), str) or value not in allowed:
                raise ValueError(f"{name}: got {value!r}; allowed: {', '.join(map(repr, allowed))}")
        for name in ("early_stopping", "verbose"):
            if type(value := _plain(getattr(self, name))) is not bool:
                raise ValueError(f"{name}: got {value!r}; allowed: True or False")
        if type(size := _plain(self.image_size)) is not int or size < 1:
            raise ValueError(f"image_size: got {size!r}; allowed: an integer of at least 1")
        if weighted and self.head not in (allowed := ("auto", "linear", "ridge")):
            raise ValueError(f"head: got {self.head!r} with sample_weight; allowed: {', '.join(map(repr, allowed))}")
        self._check_encoder()
        recipe = Recipe.default("array" if self.encoder is not None else _KINDS[self.inputs], self.method)
        stage = recipe.pretrain or recipe.fit
        assert stage is not None
        given = {name: value for name in _SETTINGS if (value := _plain(getattr(self, name))) is not None}
        for name, setting, method in (
            ("temperature", "temperature", "rnc"),
            ("contrastive_weight", "regulariser_weight", "joint"),
        ):
            if (value := _plain(getattr(self, name))) is not None:
                if self.method != method:
                    raise ValueError(f"{name}: got {value!r} with method={self.method!r}; allowed: with {method!r}")
                given[setting] = value
        if self.method != "end_to_end" and isinstance(size := given.get("batch_size"), int) and size < _PAIRS:
            raise ValueError(f"batch_size: got {size}; allowed: at least {_PAIRS}, since the loss compares pairs")
        if self.early_stopping:
            # a constant rate, by default a third of the highest of the schedule whose place it takes
            given.setdefault("learning_rate", stage.learning_rate / 3)
            patience = _plain(self.n_iter_no_change)
            if type(patience) is not int or patience < 1:
                raise ValueError(f"n_iter_no_change: got {patience!r}; allowed: an integer of at least 1")
            given |= {"schedule": None, "lr_decay_rate": 1.0, "keep": None, "patience": patience}
        try:
            stage = replace(stage, **given)
        except ValueError as error:
            raise ValueError(str(error).replace("regulariser_weight: got", "contrastive_weight: got")) from None
        return replace(recipe, pretrain=stage) if recipe.pretrain else replace(recipe, fit=stage)

    def _check_encoder(self) -> None:
        if self.encoder is None:
            return
        if self.inputs != "table":
            raise ValueError(f"encoder: got a module with inputs={self.inputs!r}; allowed: with inputs='table'")
        if not isinstance(self.encoder, nn.Module):
            raise ValueError(f"encoder: got {type(self.encoder).__name__}; allowed: an instance of torch.nn.Module")
        if hasattr(self.encoder, "_orig_mod"):
            raise ValueError("encoder: got a module from torch.compile; allowed: the module itself")
        if not any(parameter.requires_grad for parameter in self.encoder.parameters()):
            raise ValueError("encoder: got a module without parameters to train; allowed: one with some")

    def _seed(self) -> int:
        if isinstance(self.random_state, int | np.integer) and self.random_state >= 0:
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _parts(
        self, used: np.ndarray, belongs: np.ndarray, strict: bool, seed: int, recipe: Recipe
    ) -> tuple[np.ndarray, ...]:
        """Rows for training, validation and calibration, each ascending, of other groups if `strict`."""
        for name, least in (("validation_fraction", "above 0"), ("calibration_fraction", "of at least 0")):
            value = _plain(getattr(self, name))
            if not isinstance(value, int | float) or not 0 <= value < 1 or (value == 0 and least == "above 0"):
                raise ValueError(f"{name}: got {value!r}; allowed: a number {least} and below 1")
        n_val = max(1, round(self.validation_fraction * len(used)))
        n_cal = max(1, round(self.calibration_fraction * len(used))) if self.calibration_fraction else 0
        order, stage = np.random.default_rng(seed).permutation(used), recipe.pretrain or recipe.fit
        assert stage is not None
        batch = stage.batch_size if stage.schedule is None else None  # batch norm needs a last batch of two
        drawn = 0 if strict else n_cal  # without groups intervals need a plain random sample, equal inputs or not
        order, calibration = np.split(order, [len(order) - drawn])
        part = together(belongs[order], n_val, n_cal - drawn, batch, strict)
        held_out = np.concatenate([order[part == 2], calibration])
        parts = tuple(np.sort(rows) for rows in (order[part == 0], order[part == 1], held_out))
        self._check_sizes(len(parts[0]), len(parts[1]), len(used), stage)
        return parts

    def _check_sizes(self, n_train: int, n_val: int, n: int, stage: Stage) -> None:
        needed = 2 if self.method == "end_to_end" else _PAIRS
        if n_train < needed:
            raise ValueError(
                f"validation_fraction: got {self.validation_fraction} and calibration_fraction "
                f"{self.calibration_fraction} of {n} samples; allowed: such as leave {needed} to learn from"
            )
        if self.method == "rnc" and self.early_stopping and n_val < _PAIRS:
            raise ValueError(
                f"validation_fraction: got {self.validation_fraction}, {n_val} of {n} samples, with "
                f"early_stopping; allowed: at least {_PAIRS}, since the loss compares pairs"
            )
        n_steps = stage.epochs * math.ceil(n_train / stage.batch_size)
        if stage.schedule is not None and n_steps < FEWEST_STEPS:
            raise ValueError(
                f"epochs: got {stage.epochs}, which are {n_steps} batches; allowed: at least {FEWEST_STEPS} in all"
            )

    # --- what is made of it -----------------------------------------------------------------------------------

    @contextmanager
    def _bar(self, recipe: Recipe) -> Iterator[Callable[[Epoch], None] | None]:
        """What shows the epochs done and the time left."""
        if not self.verbose:
            yield None
            return
        stage = recipe.pretrain or recipe.fit
        assert isinstance(stage, Stage)
        with tqdm(total=stage.epochs, desc=recipe.label(), unit="epoch") as bar:
            yield lambda epoch: bar.update(epoch.number - bar.n)

    def _choose_head(self, train: Samples, val: Samples) -> None:
        """Of the regressors on the features keep the one with the lowest error on the validation set."""
        network = self._network
        names = ["linear" if self.head == self.recipe_.head else self.head]
        if self.head == "auto":
            names = ["linear", "ridge", "neighbours"][: 3 if train.weights is None else 2]
            names = [name for name in names if name != self.recipe_.head]
        features = network.features(train.inputs), network.features(val.inputs)
        if not all(np.isfinite(one).all() for one in features):
            raise FloatingPointError("features are not finite: training diverged; a lower learning_rate may help")
        fits = features[0], self._scaled(train.targets), features[1], self._scaled(val.targets)
        weights = None if train.weights is None else (train.weights, val.weights)
        found: dict[str, tuple[Any, float]] = {}
        for name in names:
            if name == "linear":
                found[name] = None, _error(network.predict(val.inputs), val, network.scaler[1])
            else:
                found[name] = best_regressor(name, *fits, weights=weights)
        best = min(found, key=lambda name: found[name][1])
        self.head_ = self.recipe_.head or best if best == "linear" else best
        if best == "ridge":
            fold(found[best][0], network.linear)
        elif best != "linear":
            network.regressor = found[best][0]
        self.validation_error_ = _error(network.predict(val.inputs), val)

    def _scaled(self, targets: np.ndarray) -> np.ndarray:
        mean, std = self._network.scaler
        return (targets - mean) / std

    def _width(self, level: float) -> np.ndarray:
        """Half the width of intervals, of each target: the least that holds enough of the held-out residuals."""
        if not (isinstance(level := _plain(level), float) and 0 < level < 1):
            raise ValueError(f"level: got {level!r}; allowed: a number between 0 and 1")
        if self._residuals is None:
            raise ValueError("return_interval: got True; allowed: after fit with a calibration_fraction above 0")
        n, exact = len(self._residuals), Fraction(str(float(level)))
        rank = math.ceil((n + 1) * exact)
        if rank > n:
            needed = math.ceil(exact / (1 - exact))
            raise ValueError(f"level: got {level} with {n} samples to calibrate; allowed: with at least {needed}")
        return np.sort(self._residuals, axis=0)[rank - 1]


def _error(predicted: np.ndarray, samples: Samples, unit: Any = 1.0) -> float:
    """Mean absolute error, each sample with its weight."""
    off = np.abs(predicted - samples.targets) / unit
    return float(np.average(off.reshape(len(off), -1).mean(axis=1), weights=samples.weights))


def _plain(value: Any) -> Any:
    """A number of NumPy as Python has it."""
    return value.item() if isinstance(value, np.generic) else value


def _in_float64(network: FittedNetwork) -> None:
    """Let a network of numbers compute in float64, so that a prediction does not depend on which others are with it."""
    assert isinstance(network.prepare, Numbers)
    network.encoder.double()
    network.linear.double()
    network.prepare = replace(network.prepare, dtype=torch.float64)


def _not_negative(weights: np.ndarray) -> np.ndarray:
    if (weights < 0).any():
        raise ValueError("sample_weight: got a negative weight; allowed: numbers of at least 0")
    return weights
