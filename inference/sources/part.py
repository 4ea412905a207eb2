"""A part of the data: the program's own arguments on some of its rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
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


class Parts(ABC):
    """Data that come in parts, as often as they are asked for."""

    @abstractmethod
    def __iter__(self) -> Iterator[Part]:
        """Yield the parts, the same ones each time."""
