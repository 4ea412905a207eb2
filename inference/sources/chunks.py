"""A chunk as users have it, as a part: an array, a tuple of arrays, a dictionary, a `Part`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from emjax.program.array_like import is_array, is_array_like, no_numbers, with_arrays
from emjax.sources.part import Part


def part_of(chunk: Any, number: int, key: int | str | None = None) -> Part:
    """Return a chunk as a part: its arrays are the program's arguments, in memory.

    An array is the first argument; what a tuple or a list holds are positional arguments, what a
    dictionary holds are named ones; data frames, series and tensors are arrays. `number`: the
    chunk's, for errors; `key`: an argument that may be strings, too. Errors: `ValueError` for what
    is no array of numbers.
    """
    if isinstance(chunk, Part):
        part = chunk
    elif isinstance(chunk, Mapping):
        part = Part((), dict(chunk))
    elif isinstance(chunk, tuple | list):
        part = Part(tuple(chunk))
    else:
        part = Part((chunk,))
    args, kwargs = with_arrays((part.args, dict(part.kwargs)))
    for name, leaf in named_leaves(Part(args, kwargs)).items():
        what = f"Chunk {number} of the stream: argument {name}"
        if (
            not is_shared(leaf)
            and name != repr(key)
            and (reason := no_numbers(what, leaf, "chunk"))
        ):
            raise ValueError(reason)
    args, kwargs = jax.tree.map(_on_host, (args, dict(kwargs)))
    return Part(args, kwargs, part.counts)


def is_shared(leaf: Any) -> bool:
    """Whether a leaf is a number, a truth value or a string, the same in all chunks."""
    return isinstance(leaf, bool | int | float | str)


def _on_host(leaf: Any) -> Any:
    if not is_array(leaf) and not is_array_like(leaf):
        return leaf
    array = np.asarray(leaf)
    # strings, which only a key may be
    return array.astype(str) if array.dtype.kind in "OT" else array


def named_leaves(part: Part) -> dict[str, Any]:
    """Return a part's leaves by name: of positional arguments the number, else what they say."""
    leaves = jax.tree.leaves_with_path((part.args, dict(part.kwargs)))
    named = {}
    for (_, argument, *rest), leaf in leaves:
        key = getattr(argument, "key", getattr(argument, "idx", None))
        named[f"{key!r}{jax.tree_util.keystr(tuple(rest))}"] = leaf
    return named


def has_rows(leaf: Any) -> bool:
    """Whether a leaf of a part has rows: an array that has an axis."""
    return is_array(leaf) and np.ndim(leaf) > 0


def length_of(part: Part, number: int) -> int:
    """Return how many rows a part has, whose elements are not counted.

    `number`: its chunk's. Errors: `ValueError` for arrays of unequal length.
    """
    lengths = {name: len(leaf) for name, leaf in named_leaves(part).items() if has_rows(leaf)}
    if not lengths:
        raise ValueError(
            f"Chunk {number} of the stream has no array with rows. A chunk is an array, a tuple "
            "of arrays or a dictionary of arrays, with a row for each element of a plate."
        )
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} ({length})" for name, length in lengths.items())
        raise ValueError(
            f"Chunk {number} of the stream has arguments of unequal length: {listed}. Where they "
            "belong to several plates, say how many elements of each are real: "
            "emjax.Part((x, y), {}, {'plate': len(x), ...}); what all chunks share is a further "
            "argument: em.run(key, stream, shared)."
        )
    return next(iter(lengths.values()))


class Form(NamedTuple):
    """What is the same in all chunks of a stream.

    - `leaves`: {argument: (its type, its shape without rows)}; of what is no array, its value.
    - `counted`: the plates whose elements are counted.
    """

    leaves: Mapping[str, Any]
    counted: tuple[str, ...]

    @classmethod
    def of(cls, part: Part) -> Form:
        """Return the form of a part."""
        leaves = {name: _described(leaf) for name, leaf in named_leaves(part).items()}
        return cls(leaves, tuple(sorted(part.counts)))

    def check(self, part: Part, number: int) -> None:
        """Raise `ValueError` for a part of another form. `number`: its chunk's."""
        form = Form.of(part)
        if form == self:
            return
        chunk = f"Chunk {number} of the stream"
        if form.leaves.keys() != self.leaves.keys():
            raise ValueError(
                f"{chunk} has the arguments {_listed(form.leaves)}, and chunk 0 has "
                f"{_listed(self.leaves)}: all chunks of a stream have the same."
            )
        for name, first in self.leaves.items():
            if form.leaves[name] != first:
                raise ValueError(f"{chunk}: {_difference(name, form.leaves[name], first)}")
        raise ValueError(
            f"{chunk} counts the elements of plates {_listed(form.counted)}, and chunk 0 of "
            f"{_listed(self.counted)}: all chunks of a stream count those of the same."
        )


def _described(leaf: Any) -> Any:
    if not is_array(leaf):
        return type(leaf).__name__, leaf
    # strings are as long as the longest of a chunk
    dtype = "str" if leaf.dtype.kind == "U" else str(leaf.dtype)
    return dtype, tuple(leaf.shape[1:]) if has_rows(leaf) else None


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "none"


def _difference(name: str, found: tuple, first: tuple) -> str:
    (dtype, shape), (first_dtype, first_shape) = found, first
    if dtype != first_dtype:
        return (
            f"argument {name} is of type {dtype}, and in chunk 0 of {first_dtype}. Let all chunks "
            f"be of one: chunk.astype({_wider(dtype, first_dtype)!r})."
        )
    if isinstance(shape, tuple) and isinstance(first_shape, tuple):
        return (
            f"a row of argument {name} has shape {shape}, and in chunk 0 {first_shape}. All chunks "
            "have the same columns."
        )
    return (
        f"argument {name} is {shape!r}, and in chunk 0 {first_shape!r}. What has no rows is the "
        "same in all chunks: pass it as a further argument, em.run(key, stream, shared)."
    )


def _wider(dtype: str, other: str) -> str:
    try:
        return str(np.promote_types(dtype, other))
    except TypeError:
        return other
