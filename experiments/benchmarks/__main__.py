"""Run the benchmarks: `python -m experiments.benchmarks [--quick] [--only ROW ...] [--write]`."""

import argparse
import os
import time

from experiments.benchmarks import page
from experiments.benchmarks.measure import ROOT, Effort, measure
from experiments.benchmarks.row import Row
from experiments.benchmarks.rows import ROWS, TABLE, named
from experiments.benchmarks.screen import print_row

PAGE = ROOT / "docs" / "benchmarks.md"


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks",
        description="Seconds for each EM step: emjax, hand-written code, and libraries. Without "
        "--only: " + ", ".join(row.name for row in TABLE),
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="sizes so small that all of it takes a minute or two; times mean nothing",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="ROW",
        choices=list(ROWS),
        help=f"one or more of: {', '.join(ROWS)}",
    )
    parser.add_argument(
        "--repeats",
        type=int,
        default=5,
        metavar="R",
        help="rounds, alternating between implementations (default: 5)",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=1.0,
        metavar="S",
        help="seconds of an implementation in a round, if it is that fast (default: 1)",
    )
    parser.add_argument(
        "--implementations", nargs="+", default=[], metavar="NAME", help="only these (default: all)"
    )
    parser.add_argument(
        "--write", action="store_true", help=f"write what was measured to {PAGE.relative_to(ROOT)}"
    )
    parser.add_argument(
        "--verbose",
        action="store_true",
        help="print the last lines of an implementation that fails",
    )
    chosen = parser.parse_args(argv)
    if chosen.quick and chosen.write:
        parser.error("--quick times nothing that is worth writing down")
    return chosen


def narrowed(row: Row, chosen: argparse.Namespace) -> Row:
    """Return the row with the implementations that are asked for.

    If quick, it is small, in one precision each, without goals.
    """
    contestants = {
        name: precisions[:1] if chosen.quick else precisions
        for name, precisions in row.contestants.items()
        if not chosen.implementations or name in chosen.implementations
    }
    if not chosen.quick:
        return row._replace(contestants=contestants)
    return row._replace(contestants=contestants, sizes=row.sizes | row.quick, goals=(), limits=None)


def main(argv: list[str] | None = None) -> None:
    """Measure the rows that the command line names."""
    chosen = arguments(argv)
    if chosen.quick:
        effort = Effort(1, 0.0, os.cpu_count() or 1, chosen.verbose)
    else:
        effort = Effort(chosen.repeats, chosen.seconds, 1, chosen.verbose)
    results = []
    for row in named(chosen.only):
        row = narrowed(row, chosen)
        start = time.perf_counter()
        measurements = measure(row, effort)
        print_row(row, measurements)
        print(f"  took {time.perf_counter() - start:.0f} s", flush=True)
        results.append((row, measurements))
    if chosen.write:
        page.write(PAGE, results, chosen.repeats)
        print(f"\n  page: {PAGE}")


if __name__ == "__main__":
    main()
