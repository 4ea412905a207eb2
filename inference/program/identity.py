"""What a Python object is, as a value: two that have the same one are traced alike.

A program, or an argument that is no array, may be made anew for every call (a lambda, a `partial`,
a namespace of options) or changed in place. By `is` the former would never be the same, the latter
always.
"""

from __future__ import annotations

import functools
import hashlib
import types
from collections.abc import Hashable, Mapping
from enum import Enum
from typing import Any, get_origin

import jax
import jax.core
import numpy as np

from emjax.numerics.guards import is_key

# what holds no state, or none that may change
CONSTANT = (type, types.ModuleType, types.BuiltinFunctionType, np.ufunc, np.dtype, Enum)
NUMBERS = (type(None), bool, int, float, complex, str, bytes, range, slice, type(...), np.generic)

# packages whose classes are what they were when they were imported
IMPORTED = ("builtins", "emjax", "equinox", "jax", "numpyro", "optax", "types", "argparse")


class _Plain:
    """An object all of whose state is in its `__dict__`."""


class Unidentified(Exception):
    """Of an object it cannot be said what it is: it has state that is not seen."""


def identity(value: Any, within: tuple[int, ...] = ()) -> Hashable:
    """Return what identifies a value: hashable, and equal for what a trace cannot tell apart.

    A function is its code, with all values that this reads: defaults, what it closes over, and the
    globals of its module, which a notebook may give other values. Functions of other modules are
    themselves, as these are imported once.

    `within`: the `id`s of the objects that the value is part of. Errors: `Unidentified`.
    """
    if isinstance(value, NUMBERS):
        # 1, 1.0 and True are equal and hash alike, but are not traced alike
        return type(value), value
    if isinstance(value, CONSTANT):
        return value
    if get_origin(value) is not None:
        return _of_type(value)
    # what contains itself is said by how far out it stands
    if id(value) in within:
        return "within", within.index(id(value))
    within = (*within, id(value))
    if isinstance(value, np.ndarray | jax.Array):
        return _of_array(value)
    if isinstance(value, types.FunctionType):
        return _of_function(value, within)
    if isinstance(value, types.MethodType):
        return "method", identity(value.__func__, within), identity(value.__self__, within)
    if isinstance(value, functools.partial):
        parts = (value.func, value.args, value.keywords)
        return "partial", *(identity(part, within) for part in parts)
    if isinstance(value, tuple | list):
        return type(value), *(identity(item, within) for item in value)
    if isinstance(value, set | frozenset):
        return type(value), frozenset(identity(item, within) for item in value)
    if isinstance(value, Mapping):
        return type(value), _of_items(value, within)
    return _of_object(value, within)


def _of_array(array: Any) -> Hashable:
    """Return a digest, so that whoever keeps it keeps no copy of the data."""
    if isinstance(array, jax.core.Tracer) or array.dtype == object:
        raise Unidentified
    numbers = np.asarray(jax.random.key_data(array) if is_key(array) else array)
    content = hashlib.sha256(numbers.tobytes()).digest()
    return type(array), tuple(array.shape), str(array.dtype), content


def _of_type(annotation: Any) -> Hashable:
    """Return a type with arguments, such as a union: annotations within a program read it."""
    try:
        hash(annotation)
    except TypeError as error:
        # `Annotated` and `Literal` may hold anything
        raise Unidentified from error
    return annotation


def _of_items(items: Mapping, within: tuple) -> Hashable:
    # in their order, which a program that goes through them sees
    return tuple((identity(key, within), identity(value, within)) for key, value in items.items())


def _of_function(function: types.FunctionType, within: tuple) -> Hashable:
    values: dict[str, Any] = {"defaults": function.__defaults__, "named": function.__kwdefaults__}
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    for name, cell in cells:
        try:
            values[f"closed over: {name}"] = cell.cell_contents
        except ValueError as error:
            # not assigned yet
            raise Unidentified from error
    for name in sorted(_names_in(function.__code__)):
        if name in function.__globals__:
            values[f"global: {name}"] = function.__globals__[name]
    read = []
    for name, value in values.items():
        is_imported = isinstance(value, types.FunctionType) and (
            value.__globals__ is not function.__globals__
        )
        what = value if is_imported and name.startswith("global") else identity(value, within)
        read.append((name, what))
    return "function", function.__code__, tuple(read)


def _names_in(code: types.CodeType) -> set[str]:
    """Return the names that code looks up, and the functions within it."""
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _names_in(constant)
    return names


def _of_object(value: Any, within: tuple) -> Hashable:
    kind = type(value)
    has_other_state = kind.__basicsize__ != _Plain.__basicsize__ or not hasattr(value, "__dict__")
    # what `jax.jit` and its like return; a handler of NumPyro has state beside what it wraps
    if has_other_state and hasattr(value, "__wrapped__") and callable(value):
        return kind, identity(value.__wrapped__, within)
    if has_other_state:
        raise Unidentified
    return kind, _of_methods(kind, within), _of_items(vars(value), within)


def _of_methods(kind: type, within: tuple) -> Hashable:
    """Return what a class's functions are: they read globals, as a program does."""
    methods = []
    for base in kind.__mro__:
        if base.__module__.partition(".")[0] in IMPORTED:
            continue
        for name, method in vars(base).items():
            if isinstance(method, types.FunctionType):
                methods.append((base, name, identity(method, within)))
    return tuple(methods)
