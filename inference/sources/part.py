"""A part of the data: the program's own arguments on some of its rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class Part(NamedTuple):
    """Arguments of a program on a part of its data.

    - `args`, `kwargs`: the program's own.
    - `counts`: {plate: how many of its elements are real}: those after them are there for a common
      shape, and count zero times. Without any, all rows are real.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = {}
    counts: Mapping[str, int] = {}
