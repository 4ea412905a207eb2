"""Equal rows as one row with a multiplicity."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Int, Real, Shaped

from emjax.program.array_like import no_numbers


class Compressed(NamedTuple):
    """Distinct rows of data.

    - `arrays`: the distinct rows of each array, in the order in which they first appear.
    - `count`: how often each occurs (with weights: their sum), for
      `numpyro.handlers.scale(scale=count)`.
    - `rows`: which distinct row each row of the data is: `posterior[rows]` has one entry for each
      row of the data again.
    """

    arrays: tuple[Shaped[np.ndarray, "row ..."], ...]
    count: Real[np.ndarray, "row"]
    rows: Int[np.ndarray, "sample"]


def compress(
    *arrays: Shaped[ArrayLike, "..."], weight: Real[ArrayLike, "..."] | None = None
) -> Compressed:
    """Return the distinct rows of arrays (sample, …), side by side, and how often each occurs.

    A program whose plate carries the count as a multiplicity has the same likelihood and the same
    EM steps as on all rows:

    ```python
    import numpy as np, numpyro, numpyro.distributions as dist
    from emjax import compress

    # 2 distinct rows, count [2, 1], rows [0, 1, 0]
    (answers,), count, rows = compress(np.array([[1, 0], [1, 1], [1, 0]]))

    def program(answers, count):
        with numpyro.plate("subjects", len(answers)), numpyro.handlers.scale(scale=count):
            numpyro.sample("answer", dist.Bernoulli(0.5).expand([2]).to_event(1), obs=answers)
    ```

    `weight`: (sample,), the multiplicities that the rows already have. NaN equals NaN, and 0.0
    equals −0.0. Errors: `ValueError` for no array, an array without rows, or arrays and weights of
    unequal length.
    """
    data = [np.asarray(array) for array in arrays]
    if not data or any(array.ndim == 0 for array in data):
        raise ValueError(
            "compress takes one or more arrays whose first axis are the rows: "
            "compress(answers), compress(x, y)."
        )
    for number, array in enumerate(data):
        if array.dtype == object and (reason := no_numbers(f"Array {number}", array, "x")):
            raise ValueError(reason)
    lengths = [len(array) for array in data] + ([] if weight is None else [np.size(weight)])
    if len(set(lengths)) > 1:
        raise ValueError(
            f"compress takes arrays of as many rows as one another, and a weight for each row; "
            f"these have {', '.join(map(str, lengths))}."
        )
    _, first, inverse = np.unique(_as_bytes(data), return_index=True, return_inverse=True)
    # `np.unique` sorts rows by their bytes, an order without a meaning
    order = np.argsort(first)
    rows = np.empty_like(order)
    rows[order] = np.arange(len(order))
    rows = rows[inverse.reshape(-1)]
    count = np.bincount(
        rows, None if weight is None else np.asarray(weight).reshape(-1), minlength=len(order)
    )
    return Compressed(tuple(array[first[order]] for array in data), count, rows)


def _as_bytes(arrays) -> np.ndarray:
    """Return one opaque item for each row, equal where the rows are."""
    columns = []
    for array in arrays:
        flat = array.reshape(len(array), math.prod(array.shape[1:]))
        if np.issubdtype(flat.dtype, np.inexact):
            # NaN and zero have several bit patterns
            flat = np.where(np.isnan(flat), np.nan, flat + 0.0).astype(flat.dtype)
        bytes_of_rows = np.ascontiguousarray(flat).view(np.uint8)
        columns.append(bytes_of_rows.reshape(len(flat), flat.shape[1] * flat.itemsize))
    joint = np.ascontiguousarray(np.concatenate(columns, axis=1))
    width = joint.shape[1]
    # rows without columns are all equal
    if width == 0:
        return np.zeros(len(joint), np.uint8)
    return joint.view(np.dtype((np.void, width))).reshape(-1)
