"""Rows of text as columns."""

from __future__ import annotations

from collections.abc import Sequence


def in_columns(rows: Sequence[Sequence[str]], sides: str) -> list[str]:
    """Return a line for each row, two blanks between columns.

    `sides`: "l" for each column that is flush left, "r" for one that is flush right.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = []
        for cell, side, width in zip(row, sides, widths, strict=True):
            cells.append(cell.ljust(width) if side == "l" else cell.rjust(width))
        # an empty last cell would leave blanks at the end of the line
        lines.append("  ".join(cells).rstrip())
    return lines
