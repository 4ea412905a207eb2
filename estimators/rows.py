"""Samples as a program takes them: their weights, and as many as a compiled program is for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.utils.validation import check_array, check_consistent_length

# Of so many rows a program runs at their own length: what rows that are added would take is then
# more than a compilation is worth.
LARGEST = 2**14
# one row is traced otherwise than several
FEWEST = 16


def checked_weights(sample_weight: Any, X: Any) -> np.ndarray:
    """Return sample weights, (n_samples,): how many samples each row counts as.

    Errors: `ValueError` for weights that are negative, all zero, or not one for each sample.
    """
    weights = check_array(
        sample_weight, ensure_2d=False, allow_nd=True, dtype=np.float64, input_name="sample_weight"
    )
    if weights.ndim != 1:
        raise ValueError(f"Sample weights must be 1D array or scalar, not {weights.ndim}D.")
    check_consistent_length(weights, X)
    if (weights < 0).any():
        raise ValueError("Negative values in data passed to `sample_weight`.")
    if not weights.any():
        raise ValueError("All of `sample_weight` is zero: no sample counts.")
    return weights


def is_pandas(X: Any) -> bool:
    """Whether samples are a data frame of pandas, which need not be installed."""
    return type(X).__module__.partition(".")[0] == "pandas" and hasattr(X, "columns")


def filled_up(X: Any, data: Mapping[str, Any]) -> tuple[np.ndarray, dict[str, Any]]:
    """Return samples, and what is known of each, with copies of the first behind them.

    There are then as many as a power of two, so that few lengths are compiled. `data`: {argument:
    value}; those as long as X have a row for each sample.
    """
    size = len(X)
    if size > LARGEST:
        return X, dict(data)
    num_copies = max(FEWEST, 1 << (size - 1).bit_length()) - size

    def with_copies(value: Any) -> Any:
        if np.ndim(value) == 0 or len(value) != size:
            return value
        rows = np.asarray(value)
        return np.concatenate([rows, np.repeat(rows[:1], num_copies, axis=0)])

    return with_copies(X), {name: with_copies(value) for name, value in data.items()}
