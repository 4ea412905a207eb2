"""Measure a row: one process for each implementation and precision, in turn.

Rounds alternate between them, so that a disturbance of the machine hits all alike.
"""

import json
import os
import select
import subprocess
import sys
import tempfile
import time
from collections import ChainMap
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from experiments.benchmarks import (
    data,
    data_gradients,
    data_linear,
    data_mixtures,
    likelihood,
    likelihood_linear,
    likelihood_mixtures,
)
from experiments.benchmarks.contestant import DIFFERENT
from experiments.benchmarks.row import Row, is_peer

LIKELIHOODS = likelihood, likelihood_linear, likelihood_mixtures
LOG_LIKELIHOODS = dict(ChainMap(*(module.LOG_LIKELIHOODS for module in LIKELIHOODS)))
DATA = data, data_linear, data_mixtures, data_gradients
GENERATORS = dict(ChainMap(*(module.GENERATORS for module in DATA)))
ROOT = Path(__file__).parent.parent.parent
PATIENCE = 300  # seconds for an answer
LEAST_ROUNDS = 3  # of ours, whatever the time
FAST = 3.0  # seconds of both runs: ours have all of their rounds
SLOW = 10.0  # seconds of both runs: a library that takes longer has one round


class Measurement(NamedTuple):
    """One implementation in one precision, at one row.

    - `seconds`: for each step, the median over all rounds.
    - `spread`: the quartiles of `seconds`.
    - `compiling`: seconds.
    - `memory`: bytes beyond the data in the implementation's own form, compiling included.
    - `log_likelihood`: in nats, after the long run.
    - `problem`: why there are no numbers, or what is odd about them.
    """

    implementation: str
    precision: str
    seconds: float = float("nan")
    spread: tuple[float, float] = (float("nan"), float("nan"))
    compiling: float = float("nan")
    memory: float = float("nan")
    log_likelihood: float = float("nan")
    problem: str = ""


class Failure(Exception):
    """What a worker says instead of an answer."""


class Worker:
    """The process of one implementation in one precision.

    - `module`: what it runs; it answers as `worker` does.
    - `settings`: what it finds in its environment beside ours.
    """

    def __init__(
        self,
        implementation: str,
        precision: str,
        module: str = "experiments.benchmarks.worker",
        settings: Mapping[str, str] = MappingProxyType({}),
    ):
        self.implementation, self.precision = implementation, precision
        self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115, `close` closes it
        environment = os.environ | {
            "JAX_ENABLE_X64": str(int(precision == "float64")),
            "JAX_PLATFORMS": "cpu",
            **settings,
        }
        self.process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
            cwd=ROOT,
            env=environment,
        )

    def ask(self, verb: str, **message) -> dict:
        """Return the worker's answer. Raises Failure if there is none."""
        self.process.stdin.write(json.dumps({"do": verb, **message}) + "\n")
        self.process.stdin.flush()
        ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
        line = self.process.stdout.readline() if ready else ""
        if not line:
            reason = "the process ended" if ready else f"more than {PATIENCE} s"
            raise Failure(f"no answer: {reason}")
        reply = json.loads(line)
        if reason := reply.get("left_out") or reply.get("failed"):
            raise Failure(reason)
        return reply

    def complaint(self) -> str:
        """Return the end of what it wrote to standard error."""
        self.errors.seek(0)
        return "".join(self.errors.readlines()[-12:])

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.communicate()
        self.errors.close()


class Effort(NamedTuple):
    """How long to measure.

    - `rounds`: how many; of libraries, `library_rounds` of them.
    - `seconds`: so many or more for each implementation, in each round.
    - `at_once`: how many may compile at once.
    - `verbose`: whether to print the last lines of an implementation that fails.
    - `deadline`: on the monotonic clock; after it, what takes long has no more rounds.
    """

    rounds: int
    seconds: float
    at_once: int = 1
    verbose: bool = False
    library_rounds: int = 3
    deadline: float = float("inf")

    def takes_part(
        self, implementation: str, number: int, seconds: float, is_late: bool = False
    ) -> bool:
        """Say whether an implementation is in a round: ours always, libraries now and then.

        `seconds`: of both of its runs. After the deadline libraries have no more rounds, and ours
        have all of them if they are fast, else `LEAST_ROUNDS`.
        """
        if not is_peer(implementation):
            return not is_late or seconds < FAST or number < LEAST_ROUNDS
        if seconds > SLOW or is_late:
            return number == 0
        return number % -(-self.rounds // self.library_rounds) == 0


def measure(row: Row, effort: Effort) -> list[Measurement]:
    """Return the measurements of a row, in the order of its contestants.

    What fails is a measurement without numbers that says why.
    """
    pairs = []
    for name, precisions in row.contestants.items():
        pairs += [(name, precision) for precision in precisions]
    try:
        problem = GENERATORS[row.model](**row.sizes)
        with tempfile.TemporaryDirectory() as directory:
            save(problem, Path(directory))
            return raced(row, problem, Path(directory), pairs, effort)
    except Exception as error:
        return [Measurement(*pair, problem=f"{type(error).__name__}: {error}") for pair in pairs]


def save(problem: data.Problem, directory: Path) -> None:
    """Write every array to KIND.NAME.npy."""
    for kind, arrays in problem._asdict().items():
        for name, values in arrays.items():
            np.save(directory / f"{kind}.{name}.npy", values)


def raced(
    row: Row, problem: data.Problem, directory: Path, pairs: list[tuple[str, str]], effort: Effort
) -> list[Measurement]:
    """Start every worker in turn, run rounds that alternate between them, collect."""
    start = {
        "model": row.model,
        "directory": str(directory),
        "sizes": row.sizes,
    }
    workers = {pair: Worker(*pair) for pair in pairs}
    first, results = {}, {}
    seconds = {pair: [] for pair in pairs}

    def begin(pair: tuple[str, str]) -> None:
        with failing(pair, workers, results, effort.verbose):
            own = {"implementation": pair[0], "precision": pair[1], "steps": row.steps_of(pair[0])}
            workers[pair].ask("start", **own, **start)
            if effort.at_once > 1:
                first[pair] = workers[pair].ask("first")

    try:
        with ThreadPoolExecutor(max(effort.at_once, 2)) as pool:  # libraries are imported
            list(pool.map(begin, pairs))
        for pair in list(workers):
            with failing(pair, workers, results, effort.verbose):
                first[pair] = first.get(pair) or workers[pair].ask("first")
        for number in range(effort.rounds):
            for pair in list(workers):
                is_late = time.monotonic() > effort.deadline
                if not effort.takes_part(pair[0], number, first[pair]["seconds"], is_late):
                    continue
                with failing(pair, workers, results, effort.verbose):
                    seconds[pair] += workers[pair].ask("round", budget=effort.seconds)["seconds"]
        for pair in list(workers):
            with failing(pair, workers, results, effort.verbose):
                end = workers[pair].ask("finish")
                results[pair] = collected(row, problem, pair, first[pair], seconds[pair], end)
    finally:
        for worker in workers.values():
            worker.close()
    return [results[pair] for pair in pairs]


class failing:
    """A context in which a worker's failure ends that worker alone, and is its result."""

    def __init__(self, pair: tuple, workers: dict, results: dict, verbose: bool):
        self.pair, self.verbose = pair, verbose
        self.workers, self.results = workers, results

    def __enter__(self) -> None: ...

    def __exit__(self, kind, failure, trace) -> bool:
        if kind is None or not issubclass(kind, Exception):
            return False
        worker = self.workers.pop(self.pair)
        if self.verbose:
            print(worker.complaint(), file=sys.stderr)
        worker.close()
        reason = str(failure) if kind is Failure else f"{kind.__name__}: {failure}"
        self.results[self.pair] = Measurement(*self.pair, problem=reason)
        return True


def collected(
    row: Row, problem: data.Problem, pair: tuple, first: dict, seconds: list[float], end: dict
) -> Measurement:
    """Return the measurement of one worker; its log-likelihood is ours, at its parameters."""
    implementation, precision = pair
    value, odd = float("nan"), ""
    with np.load(end["params"]) as params:
        if implementation not in DIFFERENT or set(params) == set(problem.start):
            value = LOG_LIKELIHOODS[row.model](dict(params), problem.data)
    wanted = row.steps_of(implementation)[1]
    if end["num_steps"] != wanted:
        odd = f"stopped after {end['num_steps']} of {wanted} steps"
    quartiles = tuple(float(q) for q in np.quantile(seconds, (0.25, 0.75)))
    return Measurement(
        implementation,
        precision,
        median(seconds),
        quartiles,
        first["compile"],
        first["memory"],
        float(value),
        odd,
    )
