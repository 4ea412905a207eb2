"""What people pass for arrays: data frames, series, tensors; and the fix for what is no numbers."""

from __future__ import annotations

import numbers
from copy import copy
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# kinds of NumPy's types, those of `ml_dtypes` aside
NUMERIC = "biufc"
IN_WORDS = {"U": "strings", "S": "bytes", "T": "strings", "M": "dates", "m": "durations"}


def is_array(value: Any) -> bool:
    """Whether a value is an array of NumPy's or JAX's."""
    return isinstance(value, np.ndarray | jax.Array)


def is_array_like(value: Any) -> bool:
    """Whether a value that is no array says which one it is: a data frame, a series, a tensor."""
    return hasattr(type(value), "__array__") and not isinstance(value, np.generic | np.ndarray)


def is_numeric(array: Any) -> bool:
    """Whether JAX takes an array."""
    if isinstance(array, jax.Array):
        return True
    if isinstance(array, np.ma.MaskedArray):
        return False
    # what `ml_dtypes` adds to NumPy's types; and those that are longer than JAX's
    if array.dtype.kind not in NUMERIC:
        return jnp.issubdtype(array.dtype, jnp.inexact)
    return array.dtype not in (np.longdouble, np.clongdouble)


def with_arrays(tree: Any) -> Any:
    """Return arguments with arrays in place of data frames, series and tensors of numbers.

    What is of anything else stays as it is: a program may read its columns. So does a tree without
    any of them.
    """
    leaves, structure = jax.tree.flatten(tree)
    arrays = [_array_of(leaf) if _is_foreign(leaf) else leaf for leaf in leaves]
    if all(array is leaf for array, leaf in zip(arrays, leaves, strict=True)):
        return tree
    return jax.tree.unflatten(structure, arrays)


def _is_foreign(leaf: Any) -> bool:
    return is_array_like(leaf) and not isinstance(leaf, jax.Array)


def _array_of(leaf: Any) -> Any:
    """Return the array of numbers that a leaf is, or the leaf."""
    try:
        codes = _codes(leaf)
        if codes is not None:
            return codes
        array = np.asarray(leaf)
        # a column of truth values beside one of numbers; whole numbers of which some are missing
        if array.dtype == object and all(map(_is_number, array.flat)):
            array = np.asarray(leaf, float)
    # a tensor elsewhere than in memory, or one that derivatives are taken of, says so
    except Exception:
        return leaf
    return array if array.dtype.kind in NUMERIC and is_numeric(array) else leaf


# ── categories ────────────────────────────────────────────────────────────────────────────────────


def categories_of(value: Any) -> Any:
    """Return the categories that the numbers of a value stand for; None where it has none.

    Those of a series, or of all columns of a data frame. Categories that are numbers themselves
    stand for themselves.
    """
    if getattr(value, "columns", None) is not None:
        each = [categories_of(column) for column in columns_of(value)]
        are_one = all(one is not None and list(one) == list(each[0]) for one in each)
        return each[0] if each and are_one else None
    categories = np.asarray(getattr(getattr(value, "dtype", None), "categories", None))
    # of polars, an Enum has its own; those of a Categorical are all that the process has met
    if categories.ndim != 1 or categories.dtype.kind in NUMERIC:
        return None
    return categories


def snapshot(value: Any) -> Any:
    """Return a data frame or series as it is now, of which a later change is none; else the value.

    Arrays are kept by reference: their shapes do not change, and they may be all that memory holds.
    """
    is_series = hasattr(value, "index") and hasattr(value, "to_numpy")
    is_table = hasattr(value, "columns") or is_series
    return copy(value) if is_table and hasattr(value, "__copy__") else value


def columns_of(frame: Any) -> list[Any]:
    """Return the columns of a data frame, of which several may have the same name."""
    if hasattr(frame, "iloc"):
        return [frame.iloc[:, place] for place in range(frame.shape[1])]
    return [frame[name] for name in frame.columns]


def _codes(value: Any) -> np.ndarray | None:
    """Return the numbers of the categories of a series, or of a data frame with such columns.

    None where there are none, or where some are missing.
    """
    if getattr(value, "columns", None) is not None:
        columns = columns_of(value)
        if all(categories_of(column) is None for column in columns):
            return None
        arrays = [np.asarray(_array_of(column)) for column in columns]
        are_numbers = all(array.dtype.kind in NUMERIC for array in arrays)
        return np.stack(arrays, axis=-1) if are_numbers else None
    if categories_of(value) is None:
        return None
    if hasattr(value, "to_physical"):
        codes = value.to_physical().fill_null(-1).cast(int).to_numpy()
    else:
        codes = np.asarray(value.cat.codes if hasattr(value, "cat") else value.codes)
    return None if (codes < 0).any() else codes.astype(np.int32)


def _is_number(item: Any) -> bool:
    # what pandas writes for a missing value is of no type that is at hand here
    return isinstance(item, numbers.Real) or type(item).__name__ == "NAType"


def as_numbers(what: str, value: Any, name: str) -> Any:
    """Return an array of numbers: of JAX's, unless it is one of NumPy's.

    `what`: the value in words; `name`: what a program calls it. Errors: `ValueError` for a value
    that is none.
    """
    value = with_arrays(value) if is_array_like(value) else value
    if reason := no_numbers(what, value, name):
        raise ValueError(reason)
    return value if is_array(value) else jnp.asarray(value)


# ── what is no array of numbers ───────────────────────────────────────────────────────────────────


def no_numbers(what: str, value: Any, name: str) -> str | None:
    """Return why a value is no array of numbers, and the fix; None where it is one.

    `what`: the value in words; `name`: what a program calls it.
    """
    if isinstance(value, np.ma.MaskedArray):
        return (
            f"{what} is a masked array, which JAX does not take. Pass {name}.filled(0), and its "
            f"mask to the site: numpyro.sample(..., obs=..., obs_mask=~{name}.mask)."
        )
    if isinstance(value, jax.Array | numbers.Number | np.generic):
        return None
    if isinstance(value, np.ndarray):
        return None if is_numeric(value) else _not_numeric(what, value, name)
    if hasattr(value, "toarray"):
        return f"{what} is a sparse matrix. Pass an array: {name}.toarray()."
    if hasattr(value, "columns"):
        return _frame(what, value, name)
    if is_array_like(value):
        return _of_array_like(what, value, name)
    if isinstance(value, list | tuple | range):
        return _of_list(what, value, name)
    if hasattr(value, "numpy"):
        return f"{what} is {with_article(kind_of(value))}. Pass its array: {name}.numpy()."
    shown = repr(value) if value is None or isinstance(value, str) else with_article(kind_of(value))
    return f"{what} is {shown}, and EM takes numbers: an array, such as np.array(...)."


def kind_of(value: Any) -> str:
    """Return the name of a value's type."""
    return type(value).__name__


def with_article(kind: str) -> str:
    """Return the name of a type, after "a" or "an"."""
    return f"an {kind}" if kind[:1] in "aeiouAEIO" else f"a {kind}"


def _not_numeric(what: str, array: np.ndarray, name: str, kind: str = "") -> str:
    """Return what an array of strings, of Python objects, … is, and how to make it one of numbers.

    `kind`: what holds it, if not the array.
    """
    held = f"{what} is {with_article(kind)} of" if kind else f"{what} is an array of"
    letter = array.dtype.kind
    if letter in "mM":
        return (
            f"{held} {IN_WORDS[letter]}, and EM takes numbers. Pass, say, days: "
            f"({name} - {name}.min()) / np.timedelta64(1, 'D')."
        )
    if array.dtype.names:
        fields = array.dtype.names
        return f"{held} records. Pass its fields as arrays: {name}['{fields[0]}'], ...."
    if letter in "fc":
        return f"{held} {array.dtype}, which JAX does not take. Pass {name}.astype(float)."
    objects = IN_WORDS.get(letter, "Python objects")
    if letter == "O" and array.size and all(isinstance(item, str) for item in array.flat):
        objects = "strings"
    if letter == "O" and array.size and all(map(is_array, array.flat)):
        return f"{held} arrays, of unequal shapes. {_padded(name)}"
    if letter == "O" and array.size and all(map(_is_number, array.flat)):
        return f"{held} Python's numbers. Pass {name}.astype(float)."
    return (
        f"{held} {objects}, and EM takes numbers. Number its categories:\n"
        f"    categories, {name} = np.unique({name}, return_inverse=True)"
    )


def _frame(what: str, frame: Any, name: str) -> str:
    """Return which column of a data frame holds no numbers, and how to number its categories."""
    kind = kind_of(frame)
    for column, series in zip(frame.columns, columns_of(frame), strict=True):
        array = np.asarray(series)
        if not is_numeric(array):
            return (
                f"{what} is a {kind} whose column {column!r} holds no numbers ({array.dtype}). "
                f"Pass the columns that do, and number categories:\n"
                f"    {name}.drop(columns={column!r}), pandas.factorize({name}[{column!r}])[0]"
            )
    return f"{what} is a {kind}. Pass its array: {name}.to_numpy()."


def _of_array_like(what: str, value: Any, name: str) -> str:
    kind = kind_of(value)
    if categories_of(value) is not None:
        return (
            f"{what} is a {kind} in which categories are missing. Leave out such rows, "
            f"{name}.dropna(), or make them a category of their own:\n"
            f"    {name} = {name}.cat.add_categories('missing').fillna('missing')"
        )
    try:
        array = np.asarray(value)
    except Exception as error:
        return (
            f"{what} is {with_article(kind)} that NumPy cannot read ({error}). Pass an array, "
            f"such as {name}.detach().cpu().numpy()."
        )
    if array.dtype.kind in "OUST" and kind != "ndarray":
        return (
            f"{what} is {with_article(kind)} of categories that are no numbers ({array.dtype}). "
            f"Number them:\n    {name}, categories = pandas.factorize({name})"
        )
    if not is_numeric(array):
        return _not_numeric(what, array, name, kind)
    return f"{what} is {with_article(kind)}. Pass its array: np.asarray({name})."


def _of_list(what: str, value: Any, name: str) -> str | None:
    kind = kind_of(value)
    try:
        array = np.asarray(value)
    # rows of unequal length
    except ValueError:
        return f"{what} is a {kind} whose rows are of unequal length. {_padded(name)}"
    return None if is_numeric(array) else _not_numeric(what, array, name, kind)


def _padded(name: str) -> str:
    return (
        "Pad them to one shape, and mask what was added:\n"
        f"    length = np.array([len(row) for row in {name}])\n"
        f"    {name} = np.array([np.pad(row, (0, length.max() - len(row))) for row in {name}])\n"
        "    with numpyro.handlers.mask(mask=np.arange(length.max()) < length[:, None]): ..."
    )
