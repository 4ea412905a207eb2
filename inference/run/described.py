"""A program, its data and its parameters in a few words: what `repr` says."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import numpy as np


def program_in_words(model: Any) -> str:
    """Return a program's name; of a `partial`, with what it was given."""
    if isinstance(model, partial):
        given = [short(value) for value in model.args]
        given += [f"{name}={short(value)}" for name, value in model.keywords.items()]
        return f"partial({', '.join([program_in_words(model.func), *given])})"
    return getattr(model, "__name__", type(model).__name__)


def data_in_words(model: Any, args: tuple, kwargs: Mapping[str, Any]) -> list[str]:
    """Return a program's arguments by name: the types and shapes of arrays, and all else."""
    try:
        named = inspect.signature(model).bind(*args, **kwargs).arguments
    # the program itself says what is wrong with them, or does not say what it takes
    except (TypeError, ValueError):
        return [short(value) for value in (*args, *kwargs.values())]
    return [f"{name}={short(value)}" for name, value in named.items()]


def short(value: Any) -> str:
    """Return what a value is in a word or two."""
    if isinstance(value, np.ndarray | jax.Array):
        return f"{value.dtype}{list(value.shape)}"
    if hasattr(value, "shape"):
        return f"{type(value).__name__}{list(value.shape)}"
    if callable(value):
        return getattr(value, "__name__", type(value).__name__)
    if isinstance(value, Mapping):
        return f"{{{', '.join(map(repr, value))}}}"
    words = repr(value)
    return words if len(words) <= 40 else type(value).__name__


def parameters_in_words(params: Mapping[str, Any]) -> str:
    """Return the names and shapes of parameters, those of numbers without."""
    words = []
    for name, value in params.items():
        shape = np.shape(value)
        words.append(f"{name} {' × '.join(map(str, shape))}" if shape else name)
    return ", ".join(words) or "no parameters"
