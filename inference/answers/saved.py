"""A fit as numbers and words: what is saved of it.

No code is saved. Of the program there are the names, shapes and constraints of its parameters and
its latents, by which another one is recognized; of the data their shapes, or the data themselves.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from typing import Any

import jax
import numpy as np

from emjax.answers.plain_frames import is_of_pandas, plain_frame
from emjax.answers.recognized import described
from emjax.run.archive import NotPlain, encoded, is_plain_array, versions_of
from emjax.run.bound import Bound
from emjax.run.result import EMResult
from emjax.run.settings import Settings

PACKAGES = ("emjax", "jax", "numpyro", "numpy")
# an array of which shape and type are saved, and what is neither number nor word
SPECIFICATION = "__specification__"
OTHER = "__other__"


def content_of(
    model: Callable, settings: Settings, bound: Bound | None, result: EMResult, has_data: bool
) -> dict[str, Any]:
    """Return what is saved of a result: numbers, words and arrays.

    `bound`: the program on its data, None where these are not known; `has_data`: whether the data
    are saved. Errors: `ValueError` for data that are no arrays, numbers or words.
    """
    plain, others = _split_settings(settings)
    return {
        "versions": {"python": platform.python_version(), **versions_of(PACKAGES)},
        "program": {"name": _name_of(model), **_program(bound, result)},
        "settings": plain,
        "other_settings": others,
        "data": _data(bound, has_data),
        "result": _result(result),
    }


def _name_of(model: Callable) -> str:
    if isinstance(model, partial):
        # that of a handler holds the program that it changes
        programs = [part for part in (model.func, *model.args) if callable(part)]
        return _name_of(programs[-1])
    return getattr(model, "__name__", type(model).__name__)


def _split_settings(settings: Settings) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the settings that are numbers and words, and what the others are, in words."""
    plain: dict[str, Any] = {}
    others: dict[str, str] = {}
    for field in fields(settings):
        value = getattr(settings, field.name)
        if field.name in ("fixed", "integrate"):
            value = sorted(value)
        elif field.name == "annealing":
            value = np.asarray(value, float)
        try:
            encoded(value, [])
        except NotPlain:
            is_mapping = isinstance(value, Mapping)
            others[field.name] = ", ".join(value) if is_mapping else type(value).__name__
        else:
            plain[field.name] = value
    return plain, others


def _program(bound: Bound | None, result: EMResult) -> dict[str, Any]:
    """Return by what a program is recognized."""
    if bound is not None:
        return described(bound.in_its_precision(lambda bound: bound.graph))
    shapes = {name: list(np.shape(value)) for name, value in result.params.items()}
    return {"parameters": {name: {"shape": shape} for name, shape in shapes.items()}}


def _data(bound: Bound | None, is_whole: bool) -> dict[str, Any] | None:
    """Return the data, or their shapes and types; None where they are not known."""
    if bound is None:
        if is_whole:
            raise ValueError("This fit was loaded without its data, which cannot be saved with it.")
        return None
    # whole frames have names of columns, though the program may take arrays of them
    args, kwargs = (bound.args, bound.kwargs) if is_whole else bound.arguments
    # of a program that has its data in it, or makes them
    is_whole |= all(isinstance(leaf, int | float | str) for leaf in jax.tree.leaves((args, kwargs)))
    each = [_argument(value, is_whole) for value in args]
    named = {name: _argument(value, is_whole) for name, value in kwargs.items()}
    return {"is_whole": is_whole, "args": each, "kwargs": named}


def _argument(value: Any, is_whole: bool) -> Any:
    """Return an argument of the program, or what is known of it without its arrays."""

    def part(leaf):
        if is_plain_array(leaf):
            specification = {"shape": list(leaf.shape), "dtype": str(leaf.dtype)}
            return leaf if is_whole else {SPECIFICATION: specification}
        frame = plain_frame(leaf) if is_whole and is_of_pandas(leaf) else None
        if frame is not None:
            return frame
        try:
            encoded(leaf, [])
        except NotPlain as error:
            if not is_whole:
                return {OTHER: type(leaf).__name__}
            raise ValueError(
                "data=True saves arrays, numbers, words, and data frames of numbers and "
                f"categories, and not this {error}. Pass arrays to the program, or save the fit "
                "without its data: fit.save(path)."
            ) from error
        return leaf

    parts = jax.tree.map(part, value)
    try:
        encoded(parts, [])
    except NotPlain as error:
        # a collection of a class of its own
        if not is_whole:
            return {OTHER: type(value).__name__}
        raise ValueError(
            f"data=True saves lists, tuples and dictionaries of data, and no {error}. Save the "
            "fit without its data: fit.save(path)."
        ) from error
    return parts


def _result(result: EMResult) -> dict[str, Any]:
    restarts = result.restarts
    return {
        "params": dict(result.params),
        "log_likelihood": np.asarray(result.log_likelihood),
        "objective": result.objective,
        "num_steps": result.num_steps,
        "status": result.status.name,
        "findings": [_fields(finding) for finding in result.findings],
        "gaps": {name: _fields(gap) for name, gap in result.gaps.items()},
        "restarts": None if restarts is None else _fields(restarts),
    }


def _fields(record: Any) -> dict[str, Any]:
    return {field.name: getattr(record, field.name) for field in fields(record)}
