"""Measure: a process for each piece of work and each implementation, again and again.

Rounds go through all of the table, so that a disturbance of the machine hits all alike.
"""

import sys
import tempfile
from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from experiments.benchmarks.latency.rows import Work
from experiments.benchmarks.measure import Failure, Worker

NO_CACHE = {"JAX_ENABLE_COMPILATION_CACHE": "0"}
# by default JAX keeps only what took a second or more to compile
CACHE_ALL = {
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}


class Latency(NamedTuple):
    """How long an implementation takes for each call of a piece of work.

    - `seconds`: the medians over all processes.
    - `compilations`: how many functions XLA compiled, the most in any process.
    - `problem`: why there are no numbers.
    """

    seconds: tuple[float, ...] = ()
    compilations: tuple[int, ...] = ()
    problem: str = ""


Latencies = dict[str, Latency]  # by implementation


def measured(works: Sequence[Work], num_processes: int, verbose: bool = False) -> list[Latencies]:
    """Return the latencies of each piece of work, emjax's first."""
    replies: dict[tuple[str, str], list[dict]] = {}
    for number in range(num_processes):
        for work in works:
            for implementation in filter(None, ("emjax", work.peer)):
                reply = answer(work, implementation, verbose)
                replies.setdefault((work.name, implementation), []).append(reply)
        print(f"  {number + 1} of {num_processes} processes", file=sys.stderr, flush=True)
    latencies: list[Latencies] = []
    for work in works:
        of_work = {
            implementation: collected(found)
            for (name, implementation), found in replies.items()
            if name == work.name
        }
        latencies.append(of_work)
    return latencies


def answer(work: Work, implementation: str, verbose: bool) -> dict:
    """Return what a fresh process answers; a problem, if it fails."""
    if not work.is_cached:
        return asked(work, implementation, NO_CACHE, verbose)
    with tempfile.TemporaryDirectory() as directory:
        environment = CACHE_ALL | {"JAX_COMPILATION_CACHE_DIR": directory}
        asked(work, implementation, environment, verbose)
        return asked(work, implementation, environment, verbose)


def asked(work: Work, implementation: str, environment: dict[str, str], verbose: bool) -> dict:
    """Return what a fresh process with such an environment answers; a problem, if it fails."""
    module = "experiments.benchmarks.latency.worker"
    process = Worker(implementation, "float64", module, environment)
    try:
        process.ask("start", work=work.name, implementation=implementation)
        return process.ask("measure")
    except (Failure, OSError) as failure:
        if verbose:
            print(process.complaint(), file=sys.stderr)
        return {"problem": str(failure)}
    finally:
        process.close()


def collected(replies: Sequence[dict]) -> Latency:
    """Return the medians over all processes, or the first problem."""
    for reply in replies:
        if "problem" in reply:
            return Latency(problem=reply["problem"])
    seconds = zip(*(reply["seconds"] for reply in replies), strict=True)
    compilations = zip(*(reply["compilations"] for reply in replies), strict=True)
    return Latency(tuple(map(median, seconds)), tuple(map(max, compilations)))
