"""Split a sequence by flags, and put it together again.

A loop takes what varies and leaves what does not, and its body needs both in their first order.
"""

from __future__ import annotations

from collections.abc import Sequence


def split(values: Sequence, flags: Sequence[bool]) -> tuple[list, list]:
    """Return the values whose flag is true, and the others."""
    flagged, others = [], []
    for value, flag in zip(values, flags, strict=True):
        (flagged if flag else others).append(value)
    return flagged, others


def merged(flagged: Sequence, others: Sequence, flags: Sequence[bool]) -> list:
    """Return what `split` was given: the inverse of it."""
    next_flagged, next_other = iter(flagged), iter(others)
    return [next(next_flagged if flag else next_other) for flag in flags]
