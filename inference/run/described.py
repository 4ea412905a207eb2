"""A program, its data and its parameters in a few words: what `repr` says."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import numpy as np

from emjax.program.handlers.labels import run_labeled
from emjax.program.handlers.weights import run_weighted

# what `labeled` and `weighted` return are partial: they are shown as they were written
AS_WRITTEN = {run_labeled: "labeled", run_weighted: "weighted"}


def program_in_words(model: Any) -> str:
    """Return a program's name; of a `partial`, with what it was given."""
    if isinstance(model, partial):
        given = [
            program_in_words(value) if callable(value) else short(value) for value in model.args
        ]
        given += [f"{name}={short(value)}" for name, value in model.keywords.items()]
        if model.func in AS_WRITTEN:
            return f"{AS_WRITTEN[model.func]}({', '.join(given)})"
        return f"partial({', '.join([program_in_words(model.func), *given])})"
    return getattr(model, "__name__", type(model).__name__)


def data_in_words(model: Any, args: tuple, kwargs: Mapping[str, Any]) -> list[str]:
    """Return a program's arguments by name: the types and shapes of arrays, and all else."""
    try:
        named = dict(inspect.signature(model).bind(*args, **kwargs).arguments)
    # the program itself says what is wrong with them, or does not say what it takes
    except (TypeError, ValueError):
        return [short(value) for value in (*args, *kwargs.values())]
    others = []
    if isinstance(model, partial) and model.func in AS_WRITTEN:
        program = model.args[0]
        others = data_in_words(program, named.pop("args", ()), named.pop("kwargs", {}))
    return [*(f"{name}={short(value)}" for name, value in named.items()), *others]


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
