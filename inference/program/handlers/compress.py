"""Equal rows as one row with a multiplicity."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import ArrayLike, Int, Real, Shaped

from emjax.program.handlers.distinct_rows import distinct_rows
from emjax.program.handlers.merged_chunks import merged
from emjax.program.handlers.row_arrays import nested


class Compressed(NamedTuple):
    """Distinct rows of data.

    - `arrays`: the distinct rows of each array, or of those in each dictionary, in the order in
      which they first appear.
    - `count`: how often each occurs (with weights: their sum), for
      `numpyro.handlers.scale(scale=count)`.
    - `rows`: which distinct row each row of the data is: `posterior[rows]` has one entry for each
      row of the data again. None of chunks, whose rows need not fit in memory.
    """

    arrays: tuple[Any, ...]
    count: Real[np.ndarray, "row"]
    rows: Int[np.ndarray, "sample"] | None


def compress(
    *arrays: Shaped[ArrayLike, "..."] | Mapping[str, Any] | Iterable[Any],
    weight: Real[ArrayLike, "..."] | None = None,
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

    `arrays`: or dictionaries of arrays, columns by name. In place of all of them one `Stream`, or
    any other iterator over chunks, of which each is an array, a dictionary, or a tuple of these:
    only distinct rows are kept of each, so that data may be larger than memory. `weight`:
    (sample,), the multiplicities that the rows already have; chunks take none. NaN equals NaN, and
    0.0 equals −0.0. Small integers are counted rather than sorted, which is ten times as fast.

    Errors: `ValueError` for no array or no chunk, an array without rows, arrays and weights of
    unequal length, or a chunk unlike the first.
    """
    if len(arrays) == 1 and _are_chunks(arrays[0]):
        if weight is not None:
            raise ValueError(
                "compress takes no weight beside chunks: compress each of them with its own, then "
                "all distinct rows: compress(np.concatenate(rows), weight=np.concatenate(counts))."
            )
        data, count = merged(arrays[0])
        return Compressed(data.rebuilt(), count, None)
    data = nested(*arrays)
    num_rows = len(data.arrays[0])
    if weight is not None and np.size(weight) != num_rows:
        raise ValueError(
            f"compress takes a weight for each row: there are {num_rows}, {np.size(weight)}."
        )
    first, rows, count = distinct_rows(data.arrays)
    if weight is not None:
        count = np.bincount(rows, np.asarray(weight).reshape(-1), minlength=len(first))
    distinct = data._replace(arrays=[array[first] for array in data.arrays])
    return Compressed(distinct.rebuilt(), count, rows)


def _are_chunks(argument: Any) -> bool:
    """Say whether an argument is an iterator over data rather than data."""
    is_data = isinstance(argument, (Mapping, list, tuple)) or hasattr(argument, "__array__")
    return not is_data and hasattr(argument, "__iter__")
