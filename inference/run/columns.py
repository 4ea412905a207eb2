"""Tables: the columns of a record, which print as lines and become a data frame."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# what is printed of a number that there is none of
NO_NUMBER = "–"


@dataclass(frozen=True)
class Column:
    """A column of a table: one value for each row.

    - `name`: what it is called in a data frame; in print blanks stand for underscores.
    - `values`: numbers, NaN where there is none, or words.
    - `written`: how a number is printed, ".5g"; or what is printed of each row in its place.
    - `title`: what it is called in print, if not by its name.
    - `is_printed`: whether it is; a data frame has all.
    - `side`: on which side its cells are flush, "l" or "r"; None: words left, numbers right.
    """

    name: str
    values: Sequence[Any] | np.ndarray
    written: str | Sequence[str] = ""
    title: str | None = None
    is_printed: bool = True
    side: str | None = None

    @property
    def head(self) -> str:
        """What stands above it in print."""
        return self.name.replace("_", " ") if self.title is None else self.title

    def cell(self, row: int) -> str:
        """Return what is printed of a row."""
        if not isinstance(self.written, str):
            return self.written[row]
        value = self.values[row]
        is_missing = isinstance(value, float | np.floating) and np.isnan(value)
        return NO_NUMBER if is_missing else format(value, self.written)


class Table:
    """What has rows: it prints as lines, and becomes a data frame, of the same columns.

    A record that is one says `_columns()`, and prints `lines_of` them, with whatever it has to say
    above and below.
    """

    def _columns(self) -> Sequence[Column]:
        """Return the columns, all of one length."""
        raise NotImplementedError

    def to_frame(self) -> Any:
        """Return the table as a pandas data frame, all of its rows. Errors: `ImportError`."""
        return frame_of(self._columns())


def lines_of(
    columns: Sequence[Column], most: int | None = None, has_head: bool = True
) -> list[str]:
    """Return a line for each row, and one above with what the columns are called.

    `most`: how many rows are printed; a last line counts the others. `has_head`: whether there is a
    line above.
    """
    printed = [column for column in columns if column.is_printed]
    num_rows = len(printed[0].values)
    num_shown = num_rows if most is None else min(num_rows, most)
    rows = [[column.head for column in printed]] if has_head else []
    for row in range(num_shown):
        rows.append([column.cell(row) for column in printed])
    lines = in_columns(rows, "".join(map(_side, printed)))
    if num_shown < num_rows:
        lines.append(f"and {num_rows - num_shown} more")
    return lines


def _side(column: Column) -> str:
    are_words = not column.written and all(isinstance(value, str) for value in column.values)
    return column.side or ("l" if are_words else "r")


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


def frame_of(columns: Sequence[Column]) -> Any:
    """Return columns as a pandas data frame. Errors: `ImportError` without pandas."""
    pd, series = pandas(), {}
    for column in columns:
        values = list(column.values)
        # whole numbers beside nothing stay whole
        name = column.name
        # a latent may be called as a column of ours is
        while name in series:
            name += "_"
        series[name] = pd.array(values) if None in values else values
    return pd.DataFrame(series)


def pandas() -> Any:
    """Return the module pandas, which is imported when it is asked for."""
    try:
        import pandas
    except ImportError as error:
        raise ImportError("A data frame needs pandas: pip install pandas") from error
    return pandas
