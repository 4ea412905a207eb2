"""Runs of a compiled program on data: one, or several of which the best goes on to its end."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import jax
import numpy as np
from jax import Array

from emjax.run.annotations import InitParams
from emjax.run.batches import are_few
from emjax.run.findings import Finding
from emjax.run.pure import End, Start
from emjax.run.resolution import moves_of
from emjax.run.restarts import Restarts
from emjax.run.result import EMResult
from emjax.run.runner import Runner, is_degenerate, one_blas_thread
from emjax.run.shortcomings import collapsed, identical_starts
from emjax.run.state import RUNNING, LoopState, Status

# Short runs from which one goes on: by the most values of all elements of latents, how many of them
# take how many steps, round by round, those of the rounds before among them. Optima that hardly
# differ do so late, and where a step is cheap many are taken.
ROUNDS = (
    (2**15, ((16, 3), (8, 13), (4, 73))),
    (2**20, ((16, 3), (6, 7), (2, 15))),
    (math.inf, ((4, 3), (2, 9))),
)


def run_starts(
    runner: Runner, rng_key: Any, init_params: InitParams, own: Mapping[str, Any] | None = None
) -> EMResult:
    """Run EM from one start or several, the best to its end; see `EM.run`.

    `own`: the program's own start, where it is another one than that which is compiled.
    """
    compiled, settings = runner.compiled, runner.settings
    some = {**(own or {}), **(init_params or {})}
    given = compiled.given(runner.checked(some, complete=False))
    with one_blas_thread():
        if settings.num_restarts > 1:
            return _run_several(runner, rng_key, given)
        # what is given goes with the program's own start, unless another one is asked for
        is_free = not some or (settings.init is not None and not _are_all(given))
        if compiled.pure.has_short_runs and is_free:
            return _run_best_of_short(runner, rng_key, given)
        start, end = runner.pieces.run(rng_key, given, is_whole=True)
        # nothing is compiled beside a run that a bar shows
        again = None if settings.progress_bar else rng_key
        return runner.result(start, end, again, is_own_start=not init_params)


def _run_several(runner: Runner, rng_key, given) -> EMResult:
    """Run all starts, short or to their end, and the best of them to its end."""
    compiled, settings = runner.compiled, runner.settings
    all_steps = settings.max_steps + 1
    num_steps = min(settings.short_steps or all_steps, all_steps)
    # with every parameter given there is one start, however many are asked for
    if _are_all(given):
        return _run_in_turn(runner, rng_key, given, all_steps)
    # a polish belongs to the end of the best run alone
    is_few = not settings.polish and are_few(compiled.graph, settings.num_restarts)
    if is_few or runner.pieces.are_needed:
        return _run_in_turn(runner, rng_key, given, num_steps)
    return _run_side_by_side(runner, rng_key, given, settings.num_restarts, num_steps)


def _run_side_by_side(runner: Runner, rng_key, given, number: int, num_steps: int) -> EMResult:
    """Run some starts in one loop, and the best of them on to its end."""
    compiled, settings, numbers = runner.compiled, runner.settings, np.arange(number)
    starts, ends, sharpness = compiled.short_runs(rng_key, numbers, runner.data, given, num_steps)

    def continued(best: int):
        at = _with_progress_of(runner, ends, best) if settings.progress_bar else ends
        return runner.result(*compiled.continued(starts, at, best, runner.data))

    alike: Sequence[Finding] = []
    # of one start that was asked for, nobody expects others
    if settings.num_restarts > 1:
        alike = identical_starts(compiled.graph, settings, starts, are_given=False)
    return _best_of(runner, restarts_of(runner, ends, sharpness), continued, alike)


def _run_in_turn(runner: Runner, rng_key, given, num_steps: int) -> EMResult:
    """Run all starts one after another, and the best of them once more, to its end."""
    are_given, settings = _are_all(given), runner.settings
    keys = split_key(rng_key, 1 if are_given else settings.num_restarts)
    runs = InTurn.of(runner, keys, range(len(keys)), given, num_steps)
    alike = identical_starts(runner.compiled.graph, settings, runs.starts, are_given)
    return _best_of(runner, runs.restarts, runs.continued, alike)


def _run_best_of_short(runner: Runner, rng_key, given) -> EMResult:
    """Run several starts for some steps, and the best of them to its end.

    In each of the rounds the best of the one before take more steps. Source: Biernacki, Celeux &
    Govaert (2003), em-EM; the rounds: Jamieson & Talwalkar (2016), successive halving.
    """
    latents = runner.compiled.graph.latents.values()
    num_values = sum(math.prod(latent.shape) * len(latent.support) for latent in latents)
    rounds = next(rounds for most, rounds in ROUNDS if num_values <= most)
    # a polish belongs to the end of the best run alone: all take as many steps, and that goes on
    if runner.settings.polish and not runner.pieces.are_needed:
        number, num_steps = rounds[0][0], min(rounds[1][1], runner.settings.max_steps + 1)
        return replace(_run_side_by_side(runner, rng_key, given, number, num_steps), restarts=None)
    keys = split_key(rng_key, rounds[0][0])
    numbers = list(range(len(keys)))
    for number, num_steps in rounds:
        if runner.pauses.interrupt.is_wanted:
            break
        numbers = numbers[:number]
        runs = InTurn.of(runner, keys, numbers, given, num_steps)
        numbers = [numbers[place] for place in runs.restarts.ranked]
    return replace(_best_of(runner, runs.restarts, runs.continued, []), restarts=None)


@dataclass(frozen=True, eq=False)
class InTurn:
    """Several runs that were made one after another, by one compiled function.

    - `keys`: theirs, and that of others; `numbers`: which they are of these.
    - `given`: as `CompiledProgram.run` takes it.
    - `ends`: where each stands.
    """

    runner: Runner
    keys: Sequence[Any]
    numbers: Sequence[int]
    given: Mapping[str, Any]
    ends: Sequence[tuple[Start, End]]

    @classmethod
    def of(
        cls, runner: Runner, keys: Sequence, numbers: Sequence[int], given: Mapping, num_steps: int
    ) -> InTurn:
        """Return the first `num_steps` steps of these runs."""
        ends = []
        for number in numbers:
            # one at least, since there is to be a result
            if ends and runner.pauses.interrupt.is_wanted:
                break
            ends.append(runner.pieces.run(keys[number], given, number, num_steps))
        return cls(runner, keys, numbers, given, ends)

    @property
    def starts(self) -> dict[str, np.ndarray]:
        """Where they started: {site: (run, *shape)}."""
        return stacked([start.params for start, _ in self.ends])

    @cached_property
    def restarts(self) -> Restarts:
        """Where they stand."""
        ends = stacked([end for _, end in self.ends])
        return restarts_of(self.runner, ends.at, ends.sharpness)

    def continued(self, place: int) -> EMResult:
        """Return the result of one of them, run to its end."""
        number, (start, end) = self.numbers[place], self.ends[place]
        key = self.keys[number]
        pieces, settings = self.runner.pieces, self.runner.settings
        is_running = self.restarts.status[place] == RUNNING
        if pieces.are_needed and (is_running or settings.polish):
            end = pieces.continued(start, end)
        elif is_running:
            # a few steps are taken again: a function that goes on would have to be compiled
            start, end = pieces.run(key, self.given, number, is_whole=True)
        return self.runner.result(start, end, key)


def stacked(trees: Sequence) -> Any:
    """Return trees of arrays as one, in the host's memory, with one more axis in front."""
    return jax.tree.map(lambda *leaves: np.stack(leaves), *jax.device_get(list(trees)))


def _best_of(
    runner: Runner, restarts: Restarts, continued: Callable, alike: Sequence[Finding]
) -> EMResult:
    """Return the result of the best of several runs.

    `continued(number)`: the result of one of them, run to its end; `alike`: what is wrong if
    all start at one place.
    """
    if (
        runner.end_elsewhere
        and runner.settings.num_restarts > 1
        and not runner.settings.short_steps
    ):
        # all are to come to their end, and that is elsewhere
        good = np.flatnonzero(np.isfinite(restarts.objective) & ~restarts.degenerate).tolist()
        results = {number: continued(number) for number in good}
        restarts = _of_results(restarts, results)
        continued = _looked_up(results, continued)
    # it ends: each turn marks one more start, and a best one that is marked is returned
    while True:
        best = restarts.best
        result = continued(best)
        if not is_degenerate(result) or restarts.degenerate[best]:
            findings = (*result.findings, *alike)
            return replace(result, restarts=restarts, findings=findings)
        # it looked best after the short run only because it was collapsing
        restarts = restarts.with_degenerate(best)


def _with_progress_of(runner: Runner, ends: LoopState, number: int) -> LoopState:
    """Return where several runs stand after one of them has gone on to its end."""
    constants = runner.compiled.prepare(runner.data)
    at = jax.tree.map(lambda leaf: leaf[number], ends)
    at = runner.pieces.advance(at, constants, runner.settings.max_steps + 1)
    return jax.tree.map(lambda all_runs, one: all_runs.at[number].set(one), ends, at)


def restarts_of(runner: Runner, ends: LoopState, sharpness) -> Restarts:
    """Return where several runs came to. `sharpness`: of their densities."""
    params = jax.device_put(dict(ends.reported))
    ends, sharpness = jax.device_get((ends, sharpness))
    # a run that goes on has not evaluated the objective where it stands
    last = ends.num_steps - (ends.status < 0)
    at_last = np.maximum(last, 0)[:, None]
    objective = np.take_along_axis(np.asarray(ends.objective), at_last, 1)[:, 0]
    # at −∞ the program excludes the start: nothing has collapsed
    degenerate = (ends.status == Status.NOT_FINITE) & (objective != -np.inf)
    leaves, tree = jax.tree.flatten((ends.reported, sharpness))
    moves = moves_of(runner.data)
    for number, of_start in enumerate(zip(*leaves, strict=True)):
        there = jax.tree.unflatten(tree, of_start)
        degenerate[number] |= bool(collapsed(runner.compiled, runner.data, moves, *there))
    status, num_steps = np.asarray(ends.status), np.asarray(ends.num_steps)
    return Restarts(objective, status, num_steps, degenerate, params)


def _are_all(given: Mapping[str, Any]) -> bool:
    """Whether every parameter is given. `given`: of `CompiledProgram.given`."""
    return all(is_given for _, is_given in given.values())


def _looked_up(results: Mapping[int, EMResult], otherwise: Callable) -> Callable:
    """Return the function that has these results, and others otherwise."""
    return lambda number: results[number] if number in results else otherwise(number)


def _of_results(restarts: Restarts, results: Mapping[int, EMResult]) -> Restarts:
    """Return several runs, some of which have gone on to these results."""
    objective = restarts.objective.astype(np.float64)
    status, num_steps = restarts.status.copy(), restarts.num_steps.copy()
    degenerate = restarts.degenerate.copy()
    params = {name: np.array(values) for name, values in restarts.params.items()}
    for number, result in results.items():
        objective[number] = result.objective[-1]
        status[number], num_steps[number] = result.status, result.num_steps
        degenerate[number] = is_degenerate(result)
        for name, values in params.items():
            values[number] = result.params[name]
    return Restarts(objective, status, num_steps, degenerate, jax.device_put(params))


def split_key(rng_key: Any, number: int) -> list:
    """Return several keys. Taken from an array of keys, each would be compiled."""
    split = np.asarray(_split_bits(rng_key, number))
    return [jax.random.wrap_key_data(bits, impl=jax.random.key_impl(rng_key)) for bits in split]


@partial(jax.jit, static_argnums=1)
def _split_bits(rng_key, number: int) -> Array:
    return jax.random.key_data(jax.random.split(rng_key, number))
