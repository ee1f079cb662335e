"""`RnCRegressor`: Rank-N-Contrast, joint and end-to-end training by scikit-learn's contract."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, RegressorMixin, TransformerMixin
from sklearn.neighbors import NearestNeighbors
from sklearn.utils import Tags, check_random_state
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data
from tqdm import tqdm

from rnclib.data import take
from rnclib.data.images import decode
from rnclib.data.molecules import Molecules, readable
from rnclib.fitting import Epoch, Execution, FittedNetwork, Samples, fit
from rnclib.inputs import Numbers
from rnclib.networks import fold
from rnclib.recipe import HEADS, Recipe, Stage
from rnclib.regressors import best_regressor
from rnclib.vectoriser import Vectoriser, is_frame

__all__ = ["RnCRegressor"]

_KINDS = {"table": "table", "smiles": "molecules", "images": "images"}
_FEWEST = 4  # samples: at least one to learn from, to validate on, and to calibrate on
_SETTINGS = {"epochs": "epochs", "batch_size": "batch_size", "learning_rate": "learning_rate",
             "weight_decay": "weight_decay"}  # fmt: skip


class RnCRegressor(ClassNamePrefixFeaturesOutMixin, TransformerMixin, RegressorMixin, BaseEstimator):
    """A network for regression on tables, molecules, images or arrays, trained with Rank-N-Contrast or without.

    A part of the samples is held out as a validation set, which chooses the regressor on the features. What is not
    set here has the value of `rnclib.recipe.Recipe.default`.

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
        Of AdamW; the rate is the highest of a one-cycle schedule.
    temperature : float, optional
        Of the contrastive loss, with ``method='rnc'``.
    contrastive_weight : float, optional
        Of the contrastive loss, with ``method='joint'``.
    early_stopping : bool
        Train at a constant rate until the loss on the validation set has not fallen for `n_iter_no_change` epochs, and
        keep the weights of the epoch where it was lowest. By default all epochs are trained, and the last is kept.
    n_iter_no_change : int
    validation_fraction : float
        Of the samples, between 0 and 1.
    calibration_fraction : float
        Of the samples, at least 0, which are left out of all training; intervals of predictions need them.
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
        Its mean absolute error on the validation set, in the unit of the targets.
    n_iter_ : int
        Epochs that were trained.
    loss_curve_ : list of float
        Training loss of each.
    training_, validation_, calibration_ : ndarray of int
        Which rows of `X` were used for what.

    Notes
    -----
    Samples are visited in mini-batches. So a sample of weight 2 is not the same as that sample twice: the two would be
    in different batches, or seen as a pair by the contrastive loss. Samples of weight 0 are left out.

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

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> RnCRegressor:
        """Train the network, and choose the regressor on its features.

        Parameters
        ----------
        X : array-like, DataFrame or sequence of str
            See `inputs`.
        y : array-like, shape (n,) or (n, n_targets)
        sample_weight : array-like, shape (n,), optional
            At least 0. With weights the regressor is the linear layer or ridge regression.

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
        recipe = self._recipe()
        X, y = self._validated(X, y)
        weights = None if sample_weight is None else _check_sample_weight(sample_weight, X, dtype=float)
        used = np.arange(len(y)) if weights is None else np.flatnonzero(_not_negative(weights))
        if len(used) < _FEWEST:
            raise ValueError(f"sample_weight: got {len(used)} samples above 0; allowed: at least {_FEWEST}")
        if weights is not None:
            weights = weights / weights[used].mean()  # ridge regression has a penalty beside them
        seed = self._seed()
        self.training_, self.validation_, self.calibration_ = self._parts(used, seed)
        self._single = y.ndim == 1
        y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
        train, val = (self._samples(X, y, weights, part) for part in (self.training_, self.validation_))
        with self._bar(recipe) as on_epoch:
            execution = Execution(device=self.device)
            fitted = fit(
                recipe, train, val, seed=seed, execution=execution, on_epoch=on_epoch, encoder=self.encoder
            )  # fmt: skip
        assert isinstance(fitted, FittedNetwork)
        self._network, self.recipe_ = fitted, recipe
        self.loss_curve_ = [loss for stage in fitted.stages for loss in stage.history.train_loss]
        self.n_iter_ = len(self.loss_curve_)
        if self.inputs == "table" and self.encoder is None:
            _in_float64(self._network)
        self._choose_head(train, val)
        self._features = self._network.features(X)
        self._targets = self._scaled(y)
        held_out = take(X, self.calibration_) if len(self.calibration_) else None
        self._residuals = None if held_out is None else np.abs(self._network.predict(held_out) - y[self.calibration_])
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
        found = self._network.predict(self._read(X))
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
        return self._network.features(self._read(X))

    def inputs_of(self, X: Any) -> Any:
        """What the network is given of `X`, as `rnclib.fitting.fit` takes inputs: numbers, molecules or images.

        Parameters
        ----------
        X : array-like, DataFrame or sequence of str
        """
        check_is_fitted(self, "_network")
        return self._read(X)

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
            An encoder of your own is saved by its weights alone, and wanted again by `load`.

        Raises
        ------
        ValueError
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
        """
        from rnclib.saved import read

        return read(cls(device=device, encoder=encoder), Path(path))

    # --- what comes in ----------------------------------------------------------------------------------------

    def _recipe(self) -> Recipe:
        """The default recipe with the settings that are given, or an error that names a wrong one."""
        if self.inputs not in _KINDS:
            raise ValueError(f"inputs: got {self.inputs!r}; allowed: {', '.join(map(repr, _KINDS))}")
        if self.encoder is not None and self.inputs != "table":
            raise ValueError(f"encoder: got a module with inputs={self.inputs!r}; allowed: with inputs='table'")
        if self.head not in ("auto", "linear", *HEADS):
            raise ValueError(f"head: got {self.head!r}; allowed: {', '.join(map(repr, ('auto', 'linear', *HEADS)))}")
        recipe = Recipe.default("array" if self.encoder is not None else _KINDS[self.inputs], self.method)
        stage = recipe.pretrain or recipe.fit
        assert stage is not None
        given = {name: value for name in _SETTINGS if (value := getattr(self, name)) is not None}
        for name, setting, method in (
            ("temperature", "temperature", "rnc"),
            ("contrastive_weight", "regulariser_weight", "joint"),
        ):
            if (value := getattr(self, name)) is not None:
                if self.method != method:
                    raise ValueError(f"{name}: got {value!r} with method={self.method!r}; allowed: with {method!r}")
                given[setting] = value
        if self.early_stopping:
            # a constant rate, a third of the highest of the schedule whose place it takes
            rate = given.pop("learning_rate", None) or stage.learning_rate / 3
            steady = {"schedule": None, "lr_decay_rate": 1.0, "keep": None, "patience": self.n_iter_no_change}
            given |= steady | {"learning_rate": rate}
        stage = replace(stage, **given)
        return replace(recipe, pretrain=stage) if recipe.pretrain else replace(recipe, fit=stage)

    def _validated(self, X: Any, y: Any) -> tuple[Any, np.ndarray]:
        """Inputs as `rnclib.fitting.fit` takes them, and targets."""
        shared = {"multi_output": True, "y_numeric": True, "ensure_min_samples": _FEWEST}
        self._vectoriser = None
        if self.inputs == "table" and self.encoder is None and not is_frame(X):
            X, y = validate_data(self, X, y, dtype="numeric", ensure_all_finite="allow-nan", **shared)
            return np.asarray(X, float), np.asarray(y, float)
        if self.inputs == "table" and self.encoder is None:
            validate_data(self, X, skip_check_array=True)
            self._vectoriser = Vectoriser.of(X)
        inputs = self._read(X, reset=True)
        rows = np.arange(len(inputs))[:, None]  # as many as there are inputs
        _, y = validate_data(_Nothing(), rows, y, **shared)
        return inputs, np.asarray(y, float)

    def _read(self, X: Any, reset: bool = False) -> Any:
        """Inputs as `rnclib.fitting.fit` takes them, of what `fit` or `predict` is given."""
        if self.inputs == "smiles":
            smiles = self._column(X, reset)
            if not (fine := readable(smiles)).all():
                row = int(np.flatnonzero(~fine)[0])
                raise ValueError(f"X: got {smiles[row]!r} in row {row}; allowed: SMILES that RDKit can read")
            return Molecules(tuple(smiles))
        if self.inputs == "images":
            paths = [Path(one) for one in self._column(X, reset)]
            return decode(paths, self.image_size, progress=self.verbose, upright=True)[0]
        if self.encoder is not None:
            values = np.asarray(X)
            if values.dtype.kind not in "biuf" or not values.ndim:
                raise ValueError(f"X: got an array of {values.dtype}, shape {values.shape}; allowed: n numeric entries")
            if reset:
                self.n_features_in_ = math.prod(values.shape[1:])
            elif math.prod(values.shape[1:]) != self.n_features_in_:
                raise ValueError(f"X: got shape {values.shape}; allowed: n entries of {self.n_features_in_} numbers")
            return values
        if self._vectoriser is not None:
            validate_data(self, X, skip_check_array=True, reset=reset)
            return self._vectoriser(X)
        return np.asarray(validate_data(self, X, reset=reset, dtype="numeric", ensure_all_finite="allow-nan"), float)

    def _column(self, X: Any, reset: bool) -> list[str]:
        """Texts of a sequence, or of a table of one column."""
        if hasattr(X, "columns"):
            validate_data(self, X, skip_check_array=True, reset=reset)
        values = np.asarray(X, dtype=object)
        values = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
        if values.ndim != 1 or not len(values):
            raise ValueError(f"X: got shape {values.shape}; allowed: (n,) or (n, 1) with inputs={self.inputs!r}")
        for row, value in enumerate(values):
            if not isinstance(value, str | Path):
                raise ValueError(f"X: got {value!r} in row {row}; allowed: text, with inputs={self.inputs!r}")
        self.n_features_in_ = 1
        return [str(value) for value in values]

    def _seed(self) -> int:
        if isinstance(self.random_state, int | np.integer) and self.random_state >= 0:
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def _parts(self, used: np.ndarray, seed: int) -> tuple[np.ndarray, ...]:
        """Rows for training, validation and calibration, each ascending."""
        for name, low in (("validation_fraction", 0.0), ("calibration_fraction", -1e-300)):
            value = getattr(self, name)
            if not (isinstance(value, int | float) and low < value < 1):
                least = "above 0" if low == 0 else "of at least 0"
                raise ValueError(f"{name}: got {value!r}; allowed: a number {least} and below 1")
        n_val = max(1, round(self.validation_fraction * len(used)))
        n_cal = max(1, round(self.calibration_fraction * len(used))) if self.calibration_fraction else 0
        if len(used) - n_val - n_cal < 2:
            raise ValueError(
                f"validation_fraction: got {self.validation_fraction} and calibration_fraction "
                f"{self.calibration_fraction} of {len(used)} samples; allowed: fractions that leave two to learn from"
            )
        order = np.random.default_rng(seed).permutation(used)
        return tuple(np.sort(part) for part in np.split(order[::-1], [len(used) - n_val - n_cal, len(used) - n_cal]))

    def _samples(self, X: Any, y: np.ndarray, weights: np.ndarray | None, part: np.ndarray) -> Samples:
        return Samples(take(X, part), y[part], None if weights is None else weights[part])

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
        if self.head == "auto":
            names = [
                "linear",
                *(() if self.recipe_.head else ("ridge",)),
                *(() if train.weights is not None else ("neighbours",)),
            ]
        else:
            names = ["linear" if self.head == self.recipe_.head else self.head]
        if train.weights is not None and names[-1] not in ("linear", "ridge"):
            raise ValueError(f"head: got {self.head!r} with sample_weight; allowed: 'auto', 'linear', 'ridge'")
        features = network.features(train.inputs), network.features(val.inputs)
        if not all(np.isfinite(one).all() for one in features):
            raise FloatingPointError("features are not finite: training diverged; a lower learning_rate may help")
        targets = self._scaled(train.targets), self._scaled(val.targets)
        found: dict[str, tuple[Any, float]] = {}
        for name in names:
            if name == "linear":
                off = np.abs(network.predict(val.inputs) - val.targets) / network.scaler[1]
                each = off.reshape(len(off), -1).mean(axis=1)
                found[name] = None, float(np.average(each, weights=val.weights))
            else:
                weights = None if train.weights is None else (train.weights, val.weights)
                fits = features[0], targets[0], features[1], targets[1]
                found[name] = best_regressor(name, *fits, weights=weights)
        best = min(found, key=lambda name: found[name][1])
        regressor, error = found[best]
        self.head_ = self.recipe_.head or best if best == "linear" else best
        self.validation_error_ = error * float(np.mean(network.scaler[1]))
        if best == "ridge":
            fold(regressor, network.linear)
        elif best != "linear":
            network.regressor = regressor

    def _scaled(self, targets: np.ndarray) -> np.ndarray:
        mean, std = self._network.scaler
        return (targets - mean) / std

    def _width(self, level: float) -> np.ndarray:
        """Half the width of intervals, of each target: the least that holds enough of the held-out residuals."""
        if not (isinstance(level, float) and 0 < level < 1):
            raise ValueError(f"level: got {level!r}; allowed: a number between 0 and 1")
        if self._residuals is None:
            raise ValueError("return_interval: got True; allowed: after fit with a calibration_fraction above 0")
        n = len(self._residuals)
        part = math.ceil((n + 1) * level) / n
        if part > 1:
            needed = math.ceil(level / (1 - level))
            raise ValueError(f"level: got {level} with {n} samples to calibrate; allowed: with at least {needed}")
        return np.quantile(self._residuals, part, axis=0, method="inverted_cdf")


def _in_float64(network: FittedNetwork) -> None:
    """Let a network of numbers compute in float64, so that a prediction does not depend on which others are with it."""
    assert isinstance(network.prepare, Numbers)
    network.encoder.double()
    network.linear.double()
    network.prepare = replace(network.prepare, dtype=torch.float64)


class _Nothing(BaseEstimator):
    """An estimator without attributes, for checks that would set some."""


def _not_negative(weights: np.ndarray) -> np.ndarray:
    if (weights < 0).any():
        raise ValueError("sample_weight: got a negative weight; allowed: numbers of at least 0")
    return weights
