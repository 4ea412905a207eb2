"""Index and rearrange arrays; what is known before any data is seen stays known, a NumPy array."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from emjax.numerics.guards import is_key

# Entries of the largest array that is evaluated while a program is traced, 32 MB: what is larger
# is left to the compiled program, which evaluates it faster, and where it need not stay in memory.
LARGEST_KNOWN = 2**22
# Entries of the largest constant of a program whose values are looked at while it is traced. What
# is larger is traced as data are: nothing compares its entries, and no compiled program holds them.
LARGEST_KNOWN_CONSTANT = 2**12


def transposed(array: Any, axes: Sequence[int]) -> Any:
    """Return the array with its axes in another order; a known array stays known."""
    if list(axes) == list(range(array.ndim)):
        return array
    return _module(array).transpose(array, axes)


def broadcast(array: Any, shape: Sequence[int]) -> Any:
    """Return the array broadcast to a shape; a known array stays known."""
    if tuple(array.shape) == tuple(shape):
        return array
    return _module(array).broadcast_to(array, tuple(shape))


def tiled(array: Any, reps: Sequence[int]) -> Any:
    """Return copies of the array side by side; a known array stays known."""
    return _module(array).tile(array, tuple(reps))


def concatenated(arrays: Sequence, axis: int) -> Any:
    """Return the arrays joined along an axis; known arrays stay known."""
    return _module(*arrays).concatenate(arrays, axis=axis)


def _module(*arrays: Any) -> Any:
    """Return NumPy for known arrays, and JAX's for others."""
    return np if all(isinstance(array, np.ndarray) for array in arrays) else jnp


def evaluate(function: Callable, *arrays: Any) -> Any:
    """Return a function of arrays: at once where every array is known, else in the trace."""
    if all(isinstance(array, np.ndarray | np.generic) for array in arrays):
        # within a trace, JAX would record the equation instead
        with jax.ensure_compile_time_eval():
            return jax.tree.map(_as_known, function(*arrays))
    return function(*arrays)


def _as_known(array):
    return array if is_key(array) else np.asarray(array)


def in_order(array: Any, order: Sequence[int | None]) -> Any:
    """Return the array with its axes in this order, a new unit axis for None.

    For axes that have numbers; where they have labels, see `take` here, `spread` in `tables.named`
    for the named axes of a table, and `arranged` in `numerics.axes`. Axes that are left out must be
    units.
    """
    used = [d for d in order if d is not None]
    left_out = [d for d in range(array.ndim) if d not in used]
    array = transposed(array, used + left_out)
    sizes = iter(array.shape[: len(used)])
    return array.reshape([1 if d is None else next(sizes) for d in order])


def rows_of(table: Any, index: Any) -> Any:
    """Return table[index], of indices known to be in range; all of it where there is no index."""
    if index is None:
        return table
    # without these promises, XLA clips or fills what is never out of range
    return table.at[index].get(mode="promise_in_bounds", wrap_negative_indices=False)


def gated(gate: Any, array: Any, otherwise: Any, is_last: bool = False) -> Any:
    """Return an array (…, *more) where the gate (…) is open, another value elsewhere.

    Without a gate, that is the array itself. `is_last`: the array is (*more, …).
    """
    if gate is None:
        return array
    if not is_last:
        gate = gate.reshape(gate.shape + (1,) * (array.ndim - gate.ndim))
    return jnp.where(gate, array, otherwise)


def take(array: Any, labels: Sequence, picks: Mapping, out: Sequence) -> Any:
    """Return an array indexed by labels of its axes.

    - `labels`: of the array's axes.
    - `picks`: {label: (index array, its labels)}: what the axis of that label is read at. A label
      that an index array shares with the array runs along both (a diagonal).
    - `out`: the axes of the result, of length 1 where the label is gone.

    `confusion[annotator, :]` at 9 answers is

        take(confusion, ["annotator", "truth"], {"annotator": (index, ["answer"])},
             ["truth", "answer"])

    of shape (truths, 9).
    """
    # all index arrays are broadcast over their labels together, as NumPy broadcasts indices
    running = list(dict.fromkeys(label for _, used in picks.values() for label in used))
    picked = [label for label in labels if label in picks or label in running]
    rest = [label for label in labels if label not in picked]
    array = transposed(array, [labels.index(label) for label in picked + rest])
    sizes = dict(zip(picked, array.shape, strict=False))
    indices = []
    for label in picked:
        index, used = picks.get(label, (None, [label]))
        if index is None:
            # a diagonal: the axis runs along with an index
            index = np.arange(sizes[label], dtype=np.int32)
        indices.append(_placed(index, used, running))
    if indices:
        array = _at_leading(array, indices)
    return _placed(array, running + rest, out)


def _at_leading(array: Any, indices: Sequence) -> Any:
    """Return array[indices], of its leading axes; known arrays stay known."""
    if _module(array, *indices) is np:
        return array[tuple(indices)]
    # all in one index: XLA reads and adds up rows of a matrix faster than cells of a table
    shape = array.shape[: len(indices)]
    flat = sum(index * math.prod(shape[i + 1 :]) for i, index in enumerate(indices))
    matrix = jnp.asarray(array).reshape(-1, *array.shape[len(indices) :])
    return rows_of(matrix, jnp.asarray(flat))


def _placed(array: Any, labels: Sequence, out: Sequence) -> Any:
    """Return an array with its labeled axes in the order of `out`, of length 1 where absent."""
    order = [labels.index(label) for label in out if label in labels]
    shape = dict(zip(labels, array.shape, strict=True))
    return transposed(array, order).reshape([shape.get(label, 1) for label in out])
