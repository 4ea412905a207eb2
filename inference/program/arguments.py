"""A model's own arguments: arrays, which are traced, and everything else, on which a trace
depends.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from emjax.numerics.guards import is_key


def split_arguments(args, kwargs, concrete: bool = False):
    """Split a model's arguments into arrays, which are traced, and everything else, which is as it
    is.

    `concrete`: arrays are as they are, too, for programs that look at their values (the number of
    classes is `int(labels.max()) + 1`, say).
    """
    leaves, tree = jax.tree.flatten((args, kwargs))
    is_array = [not concrete and isinstance(leaf, np.ndarray | jax.Array) for leaf in leaves]
    static = [None if array else leaf for leaf, array in zip(leaves, is_array, strict=True)]
    arrays = [jnp.asarray(leaf) for leaf, array in zip(leaves, is_array, strict=True) if array]

    def rebuild(values):
        values = iter(values)
        return jax.tree.unflatten(
            tree,
            [next(values) if array else leaf for leaf, array in zip(static, is_array, strict=True)],
        )

    return arrays, rebuild


def signature(args, kwargs, concrete: bool = False):
    """Return what a trace depends on: the shapes of the arrays among the arguments (their content,
    if `concrete`), and everything else.
    """
    leaves, tree = jax.tree.flatten((args, kwargs))

    def part(leaf):
        if not isinstance(leaf, np.ndarray | jax.Array):
            return type(leaf), _hashable(leaf)
        content = jax.random.key_data(leaf) if is_key(leaf) and concrete else leaf
        return (
            tuple(leaf.shape),
            str(leaf.dtype),
            np.asarray(content).tobytes() if concrete else None,
        )

    return concrete, tree, tuple(map(part, leaves)), jax.config.jax_enable_x64


def _hashable(leaf):
    """Return what identifies an argument that is no array; one that cannot be hashed may change,
    and is never the same.
    """
    try:
        hash(leaf)
        return leaf
    except TypeError:
        return object()
