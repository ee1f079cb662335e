"""What `rnclib.RnCRegressor` is given, checked and brought to what its network takes."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from sklearn.utils import check_X_y
from sklearn.utils.validation import validate_data

from rnclib.data.images import Images, decode
from rnclib.data.molecules import READABLE, Molecules, readable
from rnclib.vectoriser import is_frame

if TYPE_CHECKING:
    from rnclib.estimator import RnCRegressor

__all__ = ["FEWEST", "checked", "read"]

FEWEST = 4  # samples: at least one to learn from, to validate on, and to calibrate on
_TEXT = re.compile("could not convert string|arrays of bytes/strings")


def checked(model: RnCRegressor, X: Any, y: Any) -> tuple[Any, np.ndarray]:
    """Inputs and targets that fit together; a table of mixed columns as it is.

    Parameters
    ----------
    model : RnCRegressor
        It learns the names of features and how many there are.
    X, y
        As for its `fit`.

    Raises
    ------
    ValueError
    """
    shared = {"multi_output": True, "y_numeric": True, "ensure_min_samples": FEWEST}
    if not hasattr(X, "columns") and hasattr(model, "feature_names_in_"):
        del model.feature_names_in_  # of another table, before
    if model.inputs == "table" and model.encoder is None and not is_frame(X):
        X, y = _numeric(model, X, y, **shared)
        return np.asarray(X, float), np.asarray(y, float)
    if model.inputs == "table" and model.encoder is None:
        _check_names(X)
        validate_data(model, X, skip_check_array=True)
    else:
        X = read(model, X, reset=True)
    rows = np.arange(len(X))[:, None]  # as many as there are inputs
    _, y = check_X_y(rows, y, estimator="RnCRegressor", **shared)
    return X, np.asarray(y, float)


def _numeric(model: RnCRegressor, *given: Any, **options: Any) -> Any:
    """Numbers, NaN where one is missing, in an array or a table."""
    try:
        found = validate_data(model, *given, dtype="numeric", ensure_all_finite="allow-nan", **options)
        X = found[0] if isinstance(found, tuple) else found
        if X.dtype.kind not in "biuf":
            raise ValueError(f"X: got {X.dtype}; allowed: numbers")
        return found
    except np.exceptions.DTypePromotionError as error:
        raise ValueError(f"X: got {error}; allowed: numbers") from error
    except ValueError as error:
        if _TEXT.search(str(error)) is None:
            raise
        raise ValueError("X: got text in an array; allowed: numbers, or a DataFrame with columns of text") from error


def _check_names(X: pd.DataFrame) -> None:
    if not all(isinstance(name, str) for name in X.columns) or not X.columns.is_unique:
        raise ValueError(f"X: got columns {list(X.columns)[:20]}; allowed: names that are text and distinct")


def read(model: RnCRegressor, X: Any, reset: bool = False) -> Any:
    """Inputs as `rnclib.fitting.fit` takes them.

    Parameters
    ----------
    model : RnCRegressor
    X
        As for its `fit` and `predict`, or from its `inputs_of`.
    reset : bool
        For `fit`: the model learns what features there are.

    Raises
    ------
    ValueError
    """
    if isinstance(X, Images | Molecules) and not reset:  # from `inputs_of`
        return X
    if model.inputs == "smiles":
        smiles = _column(model, X, reset)
        if not (fine := readable(smiles)).all():
            row = int(np.flatnonzero(~fine)[0])
            raise ValueError(f"X: got {smiles[row][:100]!r} in row {row}; allowed: {READABLE}")
        return Molecules(tuple(smiles))
    if model.inputs == "images":
        paths = [Path(one) for one in _column(model, X, reset)]
        # only those of a training set are asked for again and again
        return decode(paths, model.image_size, progress=model.verbose, upright=True, keep=reset)[0]
    if model.encoder is not None:
        return _array(model, X, reset)
    if model._vectoriser is not None:
        if not isinstance(X, pd.DataFrame):
            raise ValueError(f"X: got {type(X).__name__}; allowed: a DataFrame, as in training")
        _check_names(X)
        validate_data(model, X, skip_check_array=True, reset=reset)
        return model._vectoriser(X)
    return np.asarray(_numeric(model, X, reset=reset), float)


def _array(model: RnCRegressor, X: Any, reset: bool) -> np.ndarray:
    """Entries for a network of one's own."""
    if hasattr(X, "columns"):
        validate_data(model, X, skip_check_array=True, reset=reset)
    numeric = isinstance(X, pd.DataFrame) and all(map(pd.api.types.is_numeric_dtype, X.dtypes))
    values = X.to_numpy(float, na_value=np.nan) if numeric else np.ascontiguousarray(X)
    if values.dtype.kind not in "biuf" or not values.size:
        raise ValueError(f"X: got an array of {values.dtype}, shape {values.shape}; allowed: n numeric entries")
    if not np.isfinite(values).all():
        raise ValueError("X: got NaN or infinite numbers; allowed: finite ones, with an encoder of your own")
    if reset:
        model.n_features_in_, model.entry_shape_ = math.prod(values.shape[1:]), values.shape[1:]
    elif values.shape[1:] != tuple(model.entry_shape_):
        raise ValueError(f"X: got shape {values.shape}; allowed: n entries of shape {tuple(model.entry_shape_)}")
    return values


def _column(model: RnCRegressor, X: Any, reset: bool) -> list[str]:
    """Texts of a sequence, or of a table of one column."""
    if hasattr(X, "columns"):
        validate_data(model, X, skip_check_array=True, reset=reset)
    values = np.asarray(X, dtype=object)
    values = values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values
    if values.ndim != 1 or not len(values):
        raise ValueError(f"X: got shape {values.shape}; allowed: (n,) or (n, 1) with inputs={model.inputs!r}")
    for row, value in enumerate(values):
        if not isinstance(value, str | Path):
            raise ValueError(f"X: got {value!r} in row {row}; allowed: text, with inputs={model.inputs!r}")
    model.n_features_in_ = 1
    return [str(value) for value in values]
