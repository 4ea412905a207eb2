"""A model's own arguments: arrays, which are traced, and all else, on which a trace depends."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from emjax.numerics.guards import is_key


def split_arguments(
    args: tuple, kwargs: Mapping[str, Any], concrete: bool = False
) -> tuple[list[jax.Array], Callable]:
    """Return the arrays among arguments, and `rebuild(arrays) -> (args, kwargs)`.

    `concrete`: arrays are as they are, too, so that there are none to trace, for programs that look
    at their values (the number of classes is `int(labels.max()) + 1`, say).
    """
    leaves, tree = jax.tree.flatten((args, kwargs))
    is_array = [not concrete and isinstance(leaf, np.ndarray | jax.Array) for leaf in leaves]
    # a rebuilt argument must not keep the data alive
    others = [None if array else leaf for leaf, array in zip(leaves, is_array, strict=True)]
    arrays = [jnp.asarray(leaf) for leaf, array in zip(leaves, is_array, strict=True) if array]

    def rebuild(values):
        remaining = iter(values)
        rebuilt = [
            next(remaining) if array else leaf for leaf, array in zip(others, is_array, strict=True)
        ]
        return jax.tree.unflatten(tree, rebuilt)

    return arrays, rebuild


def signature(args: tuple, kwargs: Mapping[str, Any], concrete: bool = False) -> tuple:
    """Return what a trace depends on: shapes and types of arrays, and everything else.

    `concrete`: whether it depends on the content of the arrays, too.
    """
    leaves, tree = jax.tree.flatten((args, kwargs))
    described = tuple(_described(leaf, concrete) for leaf in leaves)
    # double precision may be switched on between two runs
    return concrete, tree, described, jnp.result_type(float)


def _described(leaf: Any, concrete: bool) -> tuple:
    if not isinstance(leaf, np.ndarray | jax.Array):
        # 1, 1.0 and True are equal and hash alike, but are not traced alike
        return type(leaf), _hashable(leaf)
    content = None
    if concrete:
        numbers = jax.random.key_data(leaf) if is_key(leaf) else leaf
        # keys are kept as long as programs are: a digest, so that they keep no copy of the data
        content = hashlib.sha256(np.asarray(numbers).tobytes()).digest()
    return tuple(leaf.shape), str(leaf.dtype), content


def _hashable(leaf: Any) -> Any:
    """Return what identifies an argument that is no array."""
    try:
        hash(leaf)
    except TypeError:
        return object()  # it may change: it is never the same
    return leaf
