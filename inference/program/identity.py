"""What a Python object is, as a value: two that have the same one are traced alike.

A program, or an argument that is no array, may be made anew for every call (a lambda, a `partial`,
a namespace of options) or changed in place. By `is` the former would never be the same, the latter
always.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import sys
import types
from collections import defaultdict
from collections.abc import Hashable, Mapping
from enum import Enum
from typing import Any, get_origin

import jax
import jax.core
import numpy as np

from emjax.numerics.guards import is_key

# what holds no state, or none that may change
CONSTANT = (np.ufunc, np.dtype, Enum)
NUMBERS = (type(None), bool, int, float, complex, str, bytes, range, type(...), np.generic)

# where packages are installed: what is in them stays what it was when it was imported
INSTALLED = ("site-packages", "dist-packages")


class _Plain:
    """An object all of whose state is in its `__dict__`."""


class Unidentified(Exception):
    """Of an object it cannot be said what it is: it has state that is not seen."""


def identity(value: Any, within: tuple[int, ...] = ()) -> Hashable:
    """Return what identifies a value: hashable, and equal for what a trace cannot tell apart.

    A function is its code, with all values that this reads: defaults, what it closes over, and the
    globals of its module, which a notebook may give other values; of a class, its functions and
    values. Of packages that are installed, modules and classes are themselves, and no globals are
    looked at.

    `within`: the `id`s of the objects that the value is part of. Errors: `Unidentified`.
    """
    if isinstance(value, float):
        # 0.0 equals −0.0, and NaN not even itself
        return type(value), value.hex()
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
    if isinstance(value, type):
        return value, None if is_installed(value.__module__) else _of_class(value, within)
    if isinstance(value, types.ModuleType):
        if not is_installed(value.__name__):
            # which of its values are read is not known
            raise Unidentified
        return value
    if isinstance(value, np.ndarray | jax.Array):
        return _of_array(value)
    if isinstance(value, types.FunctionType):
        return _of_function(value, within)
    if isinstance(value, types.MethodType):
        return "method", identity(value.__func__, within), identity(value.__self__, within)
    if isinstance(value, types.BuiltinFunctionType):
        return _of_builtin(value, within)
    if isinstance(value, slice):
        # before Python 3.12 it has no hash
        parts = (value.start, value.stop, value.step)
        return "slice", *(identity(part, within) for part in parts)
    if isinstance(value, functools.partial):
        parts = (value.func, value.args, value.keywords)
        return "partial", *(identity(part, within) for part in parts)
    if isinstance(value, tuple | list | set | frozenset | Mapping):
        return _of_collection(value, within)
    return _of_object(value, within)


def _of_array(array: Any) -> Hashable:
    """Return a digest, so that whoever keeps it keeps no copy of the data."""
    if isinstance(array, jax.core.Tracer | np.ma.MaskedArray) or array.dtype == object:
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


def _of_collection(value: Any, within: tuple) -> Hashable:
    kind = type(value)
    own = [base for base in kind.__mro__ if not is_installed(base.__module__)]
    if getattr(value, "__dict__", None) or any(vars(base).get("__slots__") for base in own):
        raise Unidentified
    # a class of one's own may read globals, as when a key is missing
    of_kind = identity(kind, within)
    if isinstance(value, set | frozenset):
        return of_kind, frozenset(identity(item, within) for item in value)
    if not isinstance(value, Mapping):
        return of_kind, *(identity(item, within) for item in value)
    if isinstance(value, defaultdict):
        return of_kind, identity(value.default_factory, within), _of_items(value, within)
    return of_kind, _of_items(value, within)


def _of_builtin(function: types.BuiltinFunctionType, within: tuple) -> Hashable:
    """Return a function of C, with the object whose method it is, if it is one."""
    owner = function.__self__
    if owner is None or isinstance(owner, types.ModuleType | type):
        return function
    return "method", function.__name__, identity(owner, within)


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
    if not is_installed(function.__module__):
        values |= _globals_read(function)
    read = [(name, identity(value, within)) for name, value in values.items()]
    return "function", function.__code__, tuple(read)


def _globals_read(function: types.FunctionType) -> dict[str, Any]:
    """Return the globals that a function names, and of modules that may change what it names."""
    names = sorted(_names_in(function.__code__))
    values: dict[str, Any] = {}
    for name in names:
        value = function.__globals__.get(name, values)
        if value is values:
            continue
        if isinstance(value, types.ModuleType) and not is_installed(value.__name__):
            for part in names:
                if part in vars(value):
                    values[f"{name}.{part}"] = vars(value)[part]
        else:
            values[name] = value
    return values


def is_installed(module: str | None) -> bool:
    """Whether a module is of Python, of emjax, or of a package that is installed."""
    root = str(module).partition(".")[0]
    if (root in sys.stdlib_module_names and root != "__main__") or root in ("emjax", "builtins"):
        return True
    file = getattr(sys.modules.get(root), "__file__", None) or ""
    return any(folder in file for folder in INSTALLED)


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
    state = {name: part for name, part in vars(value).items() if name != "__wrapped__"}
    return identity(kind, within), _of_items(state, within)


def _of_class(kind: type, within: tuple) -> Hashable:
    """Return what a class's functions and values are: they read globals, as a program does."""
    parts = []
    for base in kind.__mro__:
        if is_installed(base.__module__):
            continue
        for name, part in vars(base).items():
            part = getattr(part, "__func__", part)
            if isinstance(part, property):
                part = part.fget, part.fset
            # how the fields of a named tuple are read
            elif inspect.isdatadescriptor(part) and is_installed(type(part).__module__):
                continue
            # what Python itself keeps of a class, and its documentation, is no value of it
            if isinstance(part, types.FunctionType | tuple) or not name.startswith("_"):
                parts.append((base, name, identity(part, within)))
    return tuple(parts)
