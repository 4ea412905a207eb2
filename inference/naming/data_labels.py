"""What data frames and series say of their axes: columns, rows, categories."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from emjax.program.arguments import named_arguments
from emjax.program.array_like import categories_of, columns_of, is_array, is_array_like
from emjax.run.bound import Bound


class Labels(NamedTuple):
    """What the positions along an axis are called.

    - `name`: of the axis; empty if it has none.
    - `values`: one for each position: words or whole numbers of columns, of rows as they are.
    """

    name: str
    values: tuple[Any, ...]


class DataLabels(NamedTuple):
    """What an argument says of its axes; None: nothing.

    - `rows`, `columns`: of a data frame, whose rows a series has, too.
    - `categories`: what its numbers stand for.
    """

    rows: Labels | None
    columns: Labels | None
    categories: Labels | None


def data_labels(bound: Bound) -> list[DataLabels | None]:
    """Return what each of the arrays that a program takes says of its axes."""
    args, kwargs = bound.arguments
    given = named_arguments(bound.compiler.model, bound.args, bound.kwargs)
    names = [name if _has_columns(leaf) else "" for name, leaf in given.items()]
    are_several = sum(map(bool, names)) > 1
    # the leaves of named arguments may be in another order than those of the call
    leaves = jax.tree.leaves((bound.args, bound.kwargs))
    called = {id(leaf): name for name, leaf in zip(names, given.values(), strict=True)}
    labels = []
    for leaf, array in zip(leaves, jax.tree.leaves((args, kwargs)), strict=True):
        if is_array(array):
            name = called.get(id(leaf), "")
            labels.append(_labels_of(leaf, array, f"{name}_column" if are_several else "column"))
    return labels


def check_labels(fitted: Bound, other: Bound) -> None:
    """Raise `ValueError` where other data have other columns, or categories, than the fitted.

    Both are read by their places, so that the answer would be one about something else. A program
    that reads columns by their names takes them as they are.
    """
    if other.arguments[0] is other.args:
        return
    model = fitted.compiler.model
    known = named_arguments(model, fitted.args, fitted.kwargs)
    for name, leaf in named_arguments(model, other.args, other.kwargs).items():
        before = known.get(name)
        if not (_is_labeled(leaf) and _is_labeled(before)):
            continue
        if _has_columns(leaf) and _has_columns(before):
            _check_columns(name, before, leaf)
            pairs = zip(columns_of(before), columns_of(leaf), strict=False)
        else:
            pairs = iter([(before, leaf)])
        for one, another in pairs:
            _check_categories(name, one, another)


def _check_columns(name: str, before: Any, frame: Any) -> None:
    fitted, given = list(before.columns), list(frame.columns)
    are_counted = _is_counted(before.columns) or _is_counted(frame.columns)
    if not are_counted and fitted != given:
        raise ValueError(
            f"'{name}' has the columns {given}, and those that were fitted are {fitted}, in that "
            f"order. Pass {name}[{fitted}]."
        )


def _check_categories(name: str, before: Any, column: Any) -> None:
    fitted, given = categories_of(before), categories_of(column)
    if fitted is None or given is None or list(fitted) == list(given):
        return
    raise ValueError(
        f"'{name}' has the categories {given.tolist()}, and those that were fitted are "
        f"{fitted.tolist()}: the same number would stand for another. Pass a column of these, "
        f"{name}.cat.set_categories({fitted.tolist()})."
    )


def _has_columns(leaf: Any) -> bool:
    return _is_labeled(leaf) and getattr(leaf, "columns", None) is not None


def _is_labeled(leaf: Any) -> bool:
    return is_array_like(leaf) and not isinstance(leaf, jax.Array)


def _labels_of(leaf: Any, array: Any, default: str) -> DataLabels | None:
    """Return what an argument says of the axes of the array that it is read as."""
    if not _is_labeled(leaf):
        return None
    index, columns = getattr(leaf, "index", None), getattr(leaf, "columns", None)
    rows = along = None
    # `index` of what is no pandas may be a method; 0, 1, … are no names
    if index is not None and not callable(index) and not _is_counted(index):
        rows = _labels(index, tuple(index), "", array.shape[:1])
    if columns is not None:
        along = _labels(columns, _words(columns), default, array.shape[1:2])
    categories = categories_of(leaf)
    of_values = None if categories is None else Labels("category", _words(categories))
    return DataLabels(rows, along, of_values)


def _is_counted(index: Any) -> bool:
    return (getattr(index, "start", None), getattr(index, "step", None)) == (0, 1)


def _labels(
    index: Any, values: tuple[Any, ...], default: str, length: tuple[int, ...]
) -> Labels | None:
    if (len(values),) != length:
        return None
    name = getattr(index, "name", None)
    return Labels(default if name is None else str(name), values)


def _words(index: Sequence[Any]) -> tuple[Any, ...]:
    """Return labels as words or whole numbers."""
    words = []
    for label in index:
        if isinstance(label, tuple):
            words.append(" ".join(map(str, label)))
        else:
            words.append(label if isinstance(label, int) else str(label))
    return tuple(words)
