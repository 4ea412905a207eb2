"""A model's own arguments: arrays, which are traced, and all else, on which a trace depends."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from emjax.program.array_like import is_array, no_numbers, with_arrays
from emjax.program.identity import Unidentified, identity


def split_arguments(
    args: tuple, kwargs: Mapping[str, Any], concrete: bool = False
) -> tuple[list[jax.Array], Callable]:
    """Return the arrays among arguments, and `rebuild(arrays) -> (args, kwargs)`.

    `concrete`: arrays are as they are, too, so that there are none to trace, for programs that look
    at their values (the number of classes is `int(labels.max()) + 1`, say).
    """
    leaves, tree = jax.tree.flatten((args, kwargs))
    is_array = [not concrete and isinstance(leaf, np.ndarray | jax.Array) for leaf in leaves]
    # For as long as a trace lives, JAX takes an array of NumPy that the trace holds for what it was
    # then, of that precision and with those values: a view is another one.
    leaves = [leaf.view() if isinstance(leaf, np.ndarray) else leaf for leaf in leaves]
    # a rebuilt argument must not keep the data alive
    others = [None if array else leaf for leaf, array in zip(leaves, is_array, strict=True)]
    arrays = [_on_device(leaf) for leaf, array in zip(leaves, is_array, strict=True) if array]

    def rebuild(values):
        remaining = iter(values)
        rebuilt = [
            next(remaining) if array else leaf for leaf, array in zip(others, is_array, strict=True)
        ]
        return jax.tree.unflatten(tree, rebuilt)

    return arrays, rebuild


def checked_arguments(model: Callable, args: tuple, kwargs: Mapping[str, Any]) -> tuple:
    """Return arguments with arrays in place of data frames, series and tensors of numbers.

    Errors: `TypeError` for arguments that the program does not take, `ValueError` for an array of
    strings or of anything else that is no number.
    """
    for name, leaf in named_arguments(model, args, kwargs).items():
        # what else is no array may be read as it is
        if isinstance(leaf, np.ndarray) and (
            reason := no_numbers(f"Argument '{name}'", leaf, name)
        ):
            raise ValueError(reason)
    return with_arrays((args, dict(kwargs)))


def named_arguments(model: Callable, args: tuple, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return arguments by the names that the program gives them, each leaf of a tree by its path.

    Errors: `TypeError` for arguments that the program does not take.
    """
    bound = _bound(model, args, kwargs)
    named = bound.arguments if bound else {"args": args, **kwargs}
    leaves = jax.tree.leaves_with_path(dict(named))
    return {f"{path[0].key}{jax.tree_util.keystr(path[1:])}": leaf for path, leaf in leaves}


def first_nan(named: Mapping[str, Any]) -> str:
    """Return which argument is NaN or infinite, and where, as a sentence; empty if none is."""
    for name, leaf in named.items():
        if is_array(leaf) and jnp.issubdtype(leaf.dtype, jnp.inexact):
            where = np.argwhere(~np.isfinite(np.asarray(leaf)))
            if len(where):
                index = tuple(map(int, where[0]))
                what = "NaN" if np.isnan(np.asarray(leaf)[index]) else "infinite"
                return (
                    f"Argument '{name}' is {what} at index {index}: leave out such rows, or fill "
                    "them in."
                )
    return ""


def _bound(model: Callable, args: tuple, kwargs: Mapping[str, Any]) -> Any:
    """Return arguments by name; None where a program does not say which it takes."""
    try:
        signature = inspect.signature(model)
    except (TypeError, ValueError):
        return None
    try:
        return signature.bind(*args, **kwargs)
    except TypeError as error:
        name = getattr(model, "__name__", type(model).__name__)
        raise TypeError(
            f"The program takes {name}{signature}: {error}. Of em.run, what follows the random key "
            "is the program's; of em.posterior and the like, what follows the parameters; of "
            "fit.posterior and the like, all."
        ) from error


def _on_device(leaf: Any) -> jax.Array:
    """Return an argument as JAX's array: a copy, since NumPy's may be changed in place."""
    # `jnp.asarray` would compile a program for each shape
    return leaf if isinstance(leaf, jax.Array) else jax.device_put(leaf, may_alias=False)


def signature(args: tuple, kwargs: Mapping[str, Any], concrete: bool = False) -> tuple:
    """Return what a trace depends on: shapes and types of arrays, and everything else.

    `concrete`: whether it depends on the content of the arrays, too.
    """
    leaves, tree = jax.tree.flatten((args, kwargs))
    each = tuple(described(leaf, concrete) for leaf in leaves)
    # double precision may be switched on between two runs
    return concrete, tree, each, jnp.result_type(float)


def described(leaf: Any, concrete: bool = False) -> Hashable:
    """Return what a trace depends on of one argument: all of it, unless it is a traced array."""
    if concrete or not isinstance(leaf, np.ndarray | jax.Array):
        return _identified(leaf)
    return tuple(leaf.shape), str(leaf.dtype)


def _identified(leaf: Any) -> Hashable:
    """Return what identifies an argument by its value, if it has one, else by its own `hash`."""
    try:
        return identity(leaf)
    except Unidentified:
        pass
    try:
        hash(leaf)
    except TypeError:
        # it may change: it is never the same
        return object()
    return type(leaf), leaf
