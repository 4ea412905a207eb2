"""Data frames and series of pandas as arrays and words, and back: names, labels, categories."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from emjax.program.array_like import NUMERIC, categories_of, columns_of
from emjax.run.columns import pandas

FRAME = "__frame__"


def is_of_pandas(value: Any) -> bool:
    """Whether a value is a data frame or a series of pandas."""
    return type(value).__module__.partition(".")[0] == "pandas" and hasattr(value, "to_numpy")


def plain_frame(value: Any) -> dict[str, Any] | None:
    """Return a data frame or a series of pandas as arrays and words.

    None for one with columns of neither numbers nor categories in words, or whose names are neither
    words nor whole numbers (nor levels of these).
    """
    rows = {"rows": _labels(value.index), "name_of_rows": _name(value.index.name)}
    columns = getattr(value, "columns", None)
    if columns is None:
        plain = _plain_column(value)
        return plain and {FRAME: {"series": plain, "name": _name(value.name), **rows}}
    names = [
        tuple(map(_name, name)) if isinstance(name, tuple) else _name(name) for name in columns
    ]
    if names != list(columns):
        return None
    each = [_plain_column(column) for column in columns_of(value)]
    if None in each:
        return None
    levels = [_name(name) for name in columns.names]
    return {FRAME: {"columns": each, "names": names, "levels": levels, **rows}}


def _name(name: Any) -> Any:
    """Return a name that is a word or a whole number; None for others."""
    return name if isinstance(name, str | int | np.integer) else None


def _plain_column(column: Any) -> dict[str, Any] | None:
    """Return a series as arrays and words; None where it is of other things."""
    categories = categories_of(column)
    if categories is None:
        array = np.asarray(column)
        return {"values": array} if array.dtype.kind in NUMERIC else None
    words = list(categories)
    if not all(isinstance(word, str) for word in words):
        return None
    codes, is_ordered = np.asarray(column.cat.codes), bool(column.cat.ordered)
    return {"codes": codes, "categories": words, "is_ordered": is_ordered}


def _labels(index: Any) -> Any:
    """Return the labels of rows; None where they are numbered, or neither numbers nor words."""
    labels = list(index)
    if labels == list(range(len(labels))):
        return None
    if all(isinstance(label, str) for label in labels):
        return labels
    array = np.asarray(index)
    return array if array.ndim == 1 and array.dtype.kind in NUMERIC else None


def is_plain_frame(value: Mapping) -> bool:
    """Whether a value is what `plain_frame` returns."""
    return list(value) == [FRAME]


def frame_of(plain: Mapping[str, Any]) -> Any:
    """Return the data frame, or series, of which `plain_frame` was made.

    Errors: `ImportError` without pandas.
    """
    saved, frames = plain[FRAME], pandas()

    def column(part):
        if "values" in part:
            return part["values"]
        categories, is_ordered = part["categories"], part["is_ordered"]
        return frames.Categorical.from_codes(part["codes"], categories, ordered=is_ordered)

    if "series" in saved:
        found = frames.Series(column(saved["series"]), index=saved["rows"], name=saved["name"])
    else:
        # several may have the same name
        columns = dict(enumerate(map(column, saved["columns"])))
        found = frames.DataFrame(columns, index=saved["rows"])
        found.columns = _columns(frames, saved["names"], saved["levels"])
    found.index.name = saved["name_of_rows"]
    return found


def _columns(frames: Any, names: list, levels: list) -> Any:
    if len(levels) > 1:
        return frames.MultiIndex.from_tuples(names, names=levels)
    return frames.Index(names, name=levels[0], tupleize_cols=False)
