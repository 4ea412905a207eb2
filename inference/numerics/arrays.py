"""Index and rearrange arrays; what is known before any data is seen stays known, a NumPy array."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

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


def transposed(array, axes: Sequence[int]):
    """Return the array with its axes in another order; a known array stays known."""
    if list(axes) == list(range(array.ndim)):
        return array
    return (np if isinstance(array, np.ndarray) else jnp).transpose(array, axes)


def broadcast(array, shape: Sequence[int]):
    """Return the array broadcast to a shape; a known array stays known."""
    if tuple(array.shape) == tuple(shape):
        return array
    return (np if isinstance(array, np.ndarray) else jnp).broadcast_to(array, tuple(shape))


def concatenated(arrays: Sequence, axis: int):
    """Return the arrays joined along an axis; known arrays stay known."""
    return (np if all(isinstance(array, np.ndarray) for array in arrays) else jnp).concatenate(
        arrays, axis=axis
    )


def evaluate(function: Callable, *arrays, **settings):
    """Apply a JAX function at once where every array is known, else as part of the trace."""
    if all(isinstance(array, np.ndarray | np.generic) for array in arrays):
        with jax.ensure_compile_time_eval():
            return jax.tree.map(_as_known, function(*arrays, **settings))
    return function(*arrays, **settings)


def _as_known(array):
    return array if is_key(array) else np.asarray(array)


def in_order(array, order: Sequence[int | None]):
    """Return the array with its axes in this order: None is a new unit axis; axes left out are
    units.
    """
    used = [d for d in order if d is not None]
    rest = [d for d in range(array.ndim) if d not in used]
    if used + rest != list(range(array.ndim)):
        array = transposed(array, used + rest)
    sizes = iter(array.shape[: len(used)])
    return array.reshape([1 if d is None else next(sizes) for d in order])


def rows_of(table, index):
    """Return table[index], whose indices are known to be in range; the table itself where there is
    no index.
    """
    return (
        table
        if index is None
        else table.at[index].get(mode="promise_in_bounds", wrap_negative_indices=False)
    )


def gated(gate, array, otherwise):
    """Return an array (…, *more) where the gate (…) is open, another value elsewhere; the array
    itself where there is no gate.
    """
    return (
        array
        if gate is None
        else jnp.where(gate.reshape(gate.shape + (1,) * (array.ndim - gate.ndim)), array, otherwise)
    )


def take(array, labels: list, picks: dict, out: list):
    """Index an array by labeled axes: axis `l` in `picks` is read at `picks[l] = (index array, its
    labels)`.

    A label that an index array shares with the array runs along both (a diagonal). The result has
    the axes `out`, of length 1 where the label is gone.
    """
    running = list(
        dict.fromkeys(label for _, index_labels in picks.values() for label in index_labels)
    )
    picked = [label for label in labels if label in picks or label in running]
    rest = [label for label in labels if label not in picked]
    sizes: dict = {}
    for index, index_labels in picks.values():
        for label, size in zip(index_labels, index.shape, strict=True):
            sizes[label] = max(sizes.get(label, 1), size)
    for label in picked:
        if label in running:
            sizes[label] = max(sizes[label], array.shape[labels.index(label)])

    def place(index, index_labels):
        order = sorted(range(len(index_labels)), key=lambda i: running.index(index_labels[i]))
        index = transposed(index, order)
        shape = dict(zip((index_labels[i] for i in order), index.shape, strict=True))
        return index.reshape([shape.get(label, 1) for label in running])

    indices = []
    for label in picked:
        if label in picks:
            indices.append(place(*picks[label]))
        else:
            size = array.shape[labels.index(label)]
            indices.append(
                place(
                    np.arange(size, dtype=np.int32) if size > 1 else np.zeros(1, np.int32), [label]
                )
            )
    array = transposed(array, [labels.index(label) for label in picked + rest])
    if indices and all(isinstance(a, np.ndarray) for a in (array, *indices)):
        array = array[tuple(indices)]
    elif (
        indices
    ):  # all in one index: XLA reads and adds up rows of a matrix faster than cells of a table
        sizes = array.shape[: len(indices)]
        flat = sum(index * math.prod(sizes[i + 1 :]) for i, index in enumerate(indices))
        array = jnp.asarray(array).reshape(-1, *array.shape[len(indices) :])
        array = rows_of(array, jnp.asarray(flat))
    current = running + rest
    order = [current.index(label) for label in out if label in current]
    shape = dict(zip(current, array.shape, strict=True))
    array = transposed(array, order)
    return array.reshape([shape.get(label, 1) for label in out])
