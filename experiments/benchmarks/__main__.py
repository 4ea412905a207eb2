"""Run the benchmarks: `python -m experiments.benchmarks [--quick] [--only ROW ...] [--write]`."""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from experiments.benchmarks import kept, limits, written
from experiments.benchmarks.measure import Effort, measure
from experiments.benchmarks.row import Row
from experiments.benchmarks.rows import ROWS, named
from experiments.benchmarks.screen import print_row


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks",
        description="Seconds for each EM step: emjax, hand-written code, and libraries.",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="sizes so small that a row takes seconds; times mean nothing",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="ROW",
        choices=list(ROWS),
        help=f"one or more of: {', '.join(ROWS)} (default: all)",
    )
    parser.add_argument(
        "--repeats",
        type=int,
        default=7,
        metavar="R",
        help="rounds, alternating between implementations; libraries have three (default: 7)",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=0.5,
        metavar="S",
        help="seconds of an implementation in a round, if it is that fast (default: 0.5)",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        default=float("inf"),
        metavar="M",
        help="what all rows are to take, each its share of what is left; where rounds take longer, "
        "libraries have one, and what is slow three",
    )
    parser.add_argument(
        "--implementations", nargs="+", default=[], metavar="NAME", help="only these (default: all)"
    )
    parser.add_argument(
        "--keep", type=Path, metavar="FOLDER", help="keep each row there as soon as it is measured"
    )
    parser.add_argument(
        "--from",
        dest="source",
        type=Path,
        metavar="FOLDER",
        help="measure nothing: take what was kept there",
    )
    parser.add_argument(
        "--write",
        action="store_true",
        help="write docs/benchmarks.md, its picture, and the numbers of README.md",
    )
    parser.add_argument(
        "--device",
        action="store_true",
        help="check and time the accelerator instead, if there is one; with --write, the page says "
        "so",
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


def effort_of(chosen: argparse.Namespace, deadline: float) -> Effort:
    """Return how long to measure a row."""
    if chosen.quick:
        return Effort(1, 0.0, os.cpu_count() or 1, chosen.verbose)
    return Effort(chosen.repeats, chosen.seconds, 1, chosen.verbose, deadline=deadline)


def measured(chosen: argparse.Namespace) -> tuple[kept.Facts, kept.Results]:
    """Return what was measured now; each row is kept as it comes, and shares the time left."""
    start, rows = time.monotonic(), named(chosen.only)
    end = start + 60 * chosen.minutes
    facts = with_rates(kept.facts(options(chosen)), chosen)
    results = []
    for number, row in enumerate(rows):
        began = time.monotonic()
        row = narrowed(row, chosen)
        share = (end - began) / (len(rows) - number)
        measurements = measure(row, effort_of(chosen, began + share))
        print_row(row, measurements, facts.rates, with_goals=not chosen.quick)
        if chosen.keep:
            kept.keep(chosen.keep, row, measurements)
        now = time.monotonic()
        left = f", {(end - now) / 60:.1f} left" if chosen.minutes < float("inf") else ""
        print(
            f"  row {number + 1} of {len(rows)} took {now - began:.0f} s; "
            f"{(now - start) / 60:.1f} minutes so far{left}",
            flush=True,
        )
        results.append((row, measurements))
    if not chosen.quick:  # the machine may have been slower at first
        facts = with_rates(facts, chosen)
    print(f"\n  limits: {limits.in_words(facts.rates)}")
    return facts, results


def with_rates(facts: kept.Facts, chosen: argparse.Namespace) -> kept.Facts:
    """Return the facts with the machine's rates as they are now, or were before if higher."""
    try:
        found = limits.measured(0.1, small=True) if chosen.quick else limits.measured(1.0)
    except (OSError, ValueError, subprocess.SubprocessError) as error:  # rows are worth more
        print(f"  limits are not known: {error}", flush=True)
        found = {}
    facts = facts._replace(rates=limits.faster(facts.rates, found))
    return kept.keep_facts(chosen.keep, facts) if chosen.keep else facts


def options(chosen: argparse.Namespace) -> str:
    """Return what was asked for beside the defaults, but for rows and folders."""
    words = [f"--repeats {chosen.repeats}"] if chosen.repeats != 7 else []
    words += [f"--seconds {chosen.seconds:g}"] if chosen.seconds != 0.5 else []
    words += [f"--minutes {chosen.minutes:g}"] if chosen.minutes < float("inf") else []
    return " ".join(words)


def main(argv: list[str] | None = None) -> None:
    """Measure the rows that the command line names, or take those that were kept."""
    chosen = arguments(argv)
    if chosen.device:
        from experiments.benchmarks import device  # which starts JAX in this process

        sys.exit(device.main(written.PAGE if chosen.write else None))
    if chosen.source:
        facts, results = kept.read_facts(chosen.source), kept.read(chosen.source)
        for row, measurements in results:
            print_row(row, measurements, facts.rates)
    else:
        facts, results = measured(chosen)
    if chosen.write and kept.is_small(results):
        sys.exit("some of these rows were measured at other sizes: nothing is written")
    if chosen.write:
        written.write(facts, results)


if __name__ == "__main__":
    main()
