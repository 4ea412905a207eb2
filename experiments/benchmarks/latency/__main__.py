"""Measure how long answers take: `python -m experiments.benchmarks.latency [--quick] [--write]`."""

import argparse

from experiments.benchmarks.latency import page
from experiments.benchmarks.latency.measure import measured
from experiments.benchmarks.latency.rows import TABLE, WORKS
from experiments.benchmarks.measure import ROOT

PAGE = ROOT / "docs" / "latency.md"


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.benchmarks.latency",
        description="Seconds from data to answer, compilation included, by emjax and libraries.",
    )
    parser.add_argument(
        "--quick", action="store_true", help="one process for each, to see that it works"
    )
    parser.add_argument(
        "--only",
        nargs="+",
        default=list(WORKS),
        metavar="WORK",
        choices=list(WORKS),
        help=f"one or more of: {', '.join(WORKS)}",
    )
    parser.add_argument(
        "--processes",
        type=int,
        default=5,
        metavar="P",
        help="how many processes are asked, one after the other (default: 5)",
    )
    parser.add_argument(
        "--write", action="store_true", help=f"write what was measured to {PAGE.relative_to(ROOT)}"
    )
    parser.add_argument(
        "--verbose", action="store_true", help="print the last lines of a process that fails"
    )
    chosen = parser.parse_args(argv)
    if chosen.quick and chosen.write:
        parser.error("--quick times nothing that is worth writing down")
    return chosen


def main(argv: list[str] | None = None) -> None:
    """Measure what the command line names."""
    chosen = arguments(argv)
    works = [work for work in TABLE if work.name in chosen.only]
    num_processes = 1 if chosen.quick else chosen.processes
    latencies = measured(works, num_processes, chosen.verbose)
    print(page.table(works, latencies))
    for problem in page.problems(works, latencies):
        print(f"  {problem}")
    if chosen.write:
        page.write(PAGE, works, latencies, num_processes)
        print(f"  page: {PAGE}")


if __name__ == "__main__":
    main()
