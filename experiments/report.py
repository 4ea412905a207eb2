"""How the experiments print: headings, remarks, tables."""

import textwrap
from collections.abc import Iterable

from emjax import EMResult

WIDTH = 100


def heading(text: str) -> None:
    """Print a heading with a rule under it."""
    print(f"\n{text}\n{'-' * len(text)}")


def remark(text: str) -> None:
    """Print a paragraph, wrapped, whatever the line breaks in the source."""
    print(textwrap.fill(" ".join(text.split()), WIDTH))


def table(columns: list[str], rows: list[list], caption: str = "") -> None:
    """Print rows under their columns: text to the left, numbers to the right.

    Numbers are already formatted.
    """
    cells = [list(map(str, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    numeric = [all(map(is_number, column)) for column in zip(*cells, strict=True)]
    if caption:
        remark(caption)
    print_row(columns, widths, numeric)
    print("  " + "  ".join("-" * width for width in widths))
    for row in cells:
        print_row(row, widths, numeric)
    print()


def print_row(cells: list[str], widths: list[int], numeric: list[bool]) -> None:
    """Print one row of a table."""
    aligned = (
        cell.rjust(width) if right else cell.ljust(width)
        for cell, width, right in zip(cells, widths, numeric, strict=True)
    )
    print(("  " + "  ".join(aligned)).rstrip())


def is_number(cell: str) -> bool:
    """Say whether a cell holds a number, a percentage, or a sign that stands for none."""
    try:
        float(cell.rstrip("%").replace(",", "").replace("∞", "inf").replace("−", "-"))
    except ValueError:
        return cell in {"", "–"}
    return True


def outcome(result: EMResult) -> str:
    """Return why EM stopped, in two words or three."""
    return result.status.name.lower().replace("_", " ")


def numbers(values: Iterable[float], digits: int = 3) -> str:
    """Return the values with so many decimals, separated by spaces."""
    return "  ".join(f"{float(value):.{digits}f}" for value in values)
