"""Online EM: an M-step after each minibatch, at running averages of expected statistics.

With s the expected statistics as if of all data, and γ the step size, a batch of B of N rows yields

    s ← (1 − γ) s + γ · (N / B) · E[statistics of the batch | θ],      θ ← the M-step at s.

It is soon near an optimum, and never there: so it is a start, from which EM on all data goes on.
Source: Cappé & Moulines (2009), J. R. Stat. Soc. B 71; averages of s over a pass: Polyak & Juditsky
(1992).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from emjax.e_step.expected import Expected
from emjax.run.part_program import PartProgram
from emjax.run.pauses import Pauses
from emjax.run.settings import Settings
from emjax.run.state import EMState
from emjax.run.stream_programs import StreamPrograms
from emjax.sources.batches import batches

# Rows that the running average remembers, in units of the number of parameters: the estimate is
# then as good as that from so many rows, some thousandths of a nat from the optimum for each. From
# a quarter of them, components of a mixture collapse on the few rows that each has.
ROWS_FOR_EACH_PARAMETER = 40
# It remembers at most such a part of the data, and at least two batches.
LARGEST_WINDOW, LARGEST_STEP = 1 / 4, 0.5
# a pass gains less than the noise of the estimate sooner, as a rule
MOST_PASSES = 12
# where a component collapsed nevertheless, all begins again with a longer memory
SLOWER = (1, 4, 16)


class Online(NamedTuple):
    """What the online phase of a run did.

    - `batch_size`, `step_size`: of the batches, and γ of the last one.
    - `log_likelihood`: for each pass over the data, the sum over its batches of log p in nats at
      the estimate that each batch found.
    - `num_failed`: how often it began again with a quarter of the step size, since a
      log-likelihood was not finite: where a component collapsed on the rows of few batches.
    """

    batch_size: int
    step_size: float
    log_likelihood: tuple[float, ...]
    num_failed: int = 0

    @property
    def height(self) -> float:
        """The log-likelihood of the last pass; −∞ where none came to its end."""
        return self.log_likelihood[-1] if self.log_likelihood else -np.inf

    @property
    def num_passes(self) -> int:
        """How many passes over the data it took."""
        return len(self.log_likelihood)


class Running(eqx.Module):
    """Where online EM stands.

    **Attributes:**

    - `state`: the estimate, and the states of optax optimizers.
    - `tables`: the natural parameters there.
    - `own`: the running average of what parts yield, as if of all data.
    - `total`: the sum of these averages over the batches of this pass.
    - `log_likelihood`: the sum over its batches of log p in nats.
    """

    state: EMState
    tables: list
    own: Expected
    total: Expected
    log_likelihood: Any


class Passes(NamedTuple):
    """Where online EM stands between two passes over the data.

    - `at`: its state; `params`: the estimate, averaged over the last pass.
    - `log_likelihood`: in nats, of each pass so far; zero beyond.
    - `number`: how many passes there were; `count`: how many batches.
    - `gamma`: the step size of the last one.
    """

    at: Running
    params: dict[str, Any]
    log_likelihood: np.ndarray
    number: int
    count: int
    gamma: float

    @property
    def is_finite(self) -> bool:
        """Whether all passes were."""
        return bool(np.isfinite(self.log_likelihood).all())


@dataclass(frozen=True, eq=False)
class OnlineSteps:
    """The steps of online EM, each compiled once.

    - `program`: on a batch; `sums`: what all batches share.
    """

    program: PartProgram
    sums: list[np.ndarray]

    def start(self, params: Mapping[str, Any], data: Sequence) -> Running:
        """Return where online EM stands before the first batch. `data`: of any batch."""
        program = self.program
        graph, loop = program.pure.graph, program.loop

        def start(params, data, sums):
            nothing = program.division.nothing(graph)
            state, tables = loop.state(params), graph.tables(params, graph.prepare(data, sums=sums))
            return Running(state, tables, nothing, nothing, jnp.zeros(()))

        return program.compiled.function("online start", lambda: start)(params, data, self.sums)

    def step(self, at: Running, data: Sequence, gamma: float, scale: float, moves: bool) -> Running:
        """Return where online EM stands after a batch.

        `gamma`: the step size; `scale`: N / B; `moves`: whether an M-step follows.
        """
        program = self.program
        graph, division, loop = program.pure.graph, program.division, program.loop

        def step(at, data, sums, gamma, scale, moves):
            constants = graph.prepare(data, sums=sums)
            arrays = graph.arrays(at.state.params, constants)
            found = division.expected(graph, arrays, loop.temperature, at.tables)

            def mixed(before, of_batch):
                after = (1 - gamma) * before + gamma * scale * of_batch
                return after.astype(before.dtype)

            own = jax.tree.map(mixed, at.own, found)

            def maximized():
                expected = division.completed(graph, arrays, own, loop.temperature)
                state = loop.m_step(at.state, constants, expected.statistics)
                return state, graph.tables(state.params, constants)

            state, tables = jax.lax.cond(moves, maximized, lambda: (at.state, at.tables))
            likelihood = at.log_likelihood + found.log_partition
            return Running(state, tables, own, at.total + own, likelihood)

        function = program.compiled.function("online step", lambda: step)
        return function(at, data, self.sums, np.float64(gamma), np.float64(scale), moves)

    def averaged(self, at: Running, data: Sequence, number: int) -> dict[str, Any]:
        """Return the estimate at the average of the averages of `number` batches."""
        program = self.program
        graph, division, loop = program.pure.graph, program.division, program.loop

        def averaged(at, data, sums, number):
            constants = graph.prepare(data, sums=sums)
            arrays = graph.arrays(at.state.params, constants)
            own = jax.tree.map(lambda total: (total / number).astype(total.dtype), at.total)
            expected = division.completed(graph, arrays, own, loop.temperature)
            return loop.m_step(at.state, constants, expected.statistics).params

        function = program.compiled.function("online average", lambda: averaged)
        return function(at, data, self.sums, np.float64(number))


@dataclass(frozen=True, eq=False)
class OnlineRun:
    """The online phase of a run over data that come in parts.

    - `programs`: what is compiled for these.
    - `seed`: of the order in which rows are batched.
    - `pauses`: what happens between passes.
    """

    programs: StreamPrograms
    seed: int
    pauses: Pauses

    @property
    def settings(self) -> Settings:
        return self.programs.compiler.settings

    def run(self, start: Mapping[str, Any]) -> tuple[dict[str, Any], Online]:
        """Return the estimate after some passes over the data, and what was done."""
        with jax.enable_x64(not self.programs.is_single):
            return self._run(start)

    def _run(self, start: Mapping[str, Any]) -> tuple[dict[str, Any], Online]:
        size = self._batch_size
        first, _ = next(self._batches(size, np.random.default_rng(0)))
        program = self.programs.of_batches(first, size)
        check_apart(program)
        steps, data = OnlineSteps(program, self.programs.sums), program.data(first)
        dtype = jnp.result_type(float)
        at = steps.start({name: np.asarray(v, dtype) for name, v in start.items()}, data)
        schedule = self._schedule(program, size)
        # a schedule of the user's is kept to
        slower = SLOWER if self.settings.step_size is None else SLOWER[:1]
        for num_failed, factor in enumerate(slower):
            found = self._passes(steps, at, lambda count, factor=factor: schedule(count) / factor)
            if found is not None:
                history = tuple(found.log_likelihood[: found.number].tolist())
                return dict(found.params), Online(size, found.gamma, history, num_failed)
        return dict(at.state.params), Online(size, schedule(0) / slower[-1], (), len(slower))

    def _passes(
        self, steps: OnlineSteps, at: Running, schedule: Callable[[int], float]
    ) -> Passes | None:
        """Return where it stands after the last pass; None: one was not finite."""
        stands = Passes(at, dict(at.state.params), np.zeros(MOST_PASSES), 0, 0, 1.0)
        place = self.pauses.place("minibatches")
        saved = place.saved(stands)
        stands = stands if saved is None else saved
        while not self._has_ended(stands, steps.program):
            after = self._after_pass(stands, steps, schedule)
            if after is None:
                break
            stands, self.pauses.interrupt.is_of_use = after, True
            if place.is_due(stands.number) or self._has_ended(stands, steps.program):
                place.save(stands)
        return stands if stands.is_finite else None

    def _has_ended(self, stands: Passes, program: PartProgram) -> bool:
        """Whether the last pass was not finite, or has gained less than the noise of batches."""
        if not stands.is_finite or stands.number >= MOST_PASSES:
            return True
        if stands.number < 2:
            return False
        gain = stands.log_likelihood[stands.number - 1] - stands.log_likelihood[stands.number - 2]
        return bool(gain < self._noise(program, self._batch_size, stands.gamma))

    def _after_pass(
        self, stands: Passes, steps: OnlineSteps, schedule: Callable[[int], float]
    ) -> Passes | None:
        """Return where it stands after one more pass; None where that is interrupted."""
        size, count, gamma = self._batch_size, stands.count, stands.gamma
        # so many batches are gathered before the first M-step as the average is to remember
        num_gathered = int(np.ceil(1 / max(schedule(0), 1e-12)))
        at, number, data = stands.at, 0, []
        at = replace(at, total=jax.tree.map(jnp.zeros_like, at.own), log_likelihood=jnp.zeros(()))
        # an order for each pass, so that a run goes on from the end of any
        rng = np.random.default_rng((self.seed, stands.number))
        for batch, length in self._batches(size, rng):
            if self.pauses.interrupt.is_wanted and stands.number > 0:
                return None
            is_gathered = count < num_gathered
            gamma = 1 / (count + 1) if is_gathered else schedule(count) * length / size
            moves = count + 1 >= num_gathered
            data = steps.program.data(batch)
            at = steps.step(at, data, gamma, self._num_rows / length, moves)
            count, number = count + 1, number + 1
        history = stands.log_likelihood.copy()
        history[stands.number] = float(at.log_likelihood)
        params = steps.averaged(at, data, number)
        return Passes(at, params, history, stands.number + 1, count, float(gamma))

    @property
    def _num_rows(self) -> int:
        return self.programs.look.num_rows[0]

    @property
    def _batch_size(self) -> int:
        return min(int(self.settings.batch_size), self._num_rows)

    def _batches(self, size: int, rng: np.random.Generator) -> Iterator[tuple[Any, int]]:
        rows = self.programs.of_parts.rows
        pairs = zip(rows.groups, rows.along, strict=True)
        along = [None if group is None else axis for group, axis in pairs]
        for part in self.programs.parts:
            yield from batches(part, along, size, rng)

    def _schedule(self, program: PartProgram, size: int) -> Callable[[int], float]:
        """Return the step size of each batch."""
        given = self.settings.step_size
        if callable(given):
            return lambda count: float(given(count))
        if given is not None:
            return lambda count: float(given)
        window = ROWS_FOR_EACH_PARAMETER * num_parameters(program)
        window = min(window, LARGEST_WINDOW * self._num_rows)
        gamma = min(size / max(window, 1), LARGEST_STEP)
        return lambda count: gamma

    def _noise(self, program: PartProgram, size: int, gamma: float) -> float:
        """Return how far from the optimum the noise of batches keeps the estimate, in nats."""
        return num_parameters(program) * gamma / (4 * size) * self._num_rows


def num_parameters(program: PartProgram) -> int:
    """Return how many numbers are estimated."""
    parameters = program.pure.graph.parameters
    return sum(int(np.prod(parameters[name].shape)) for name in program.loop.estimated)


def check_apart(program: PartProgram) -> None:
    """Raise `ValueError` for a program of which minibatches say too little."""
    if bridges := program.division.bridges:
        names = ", ".join(map(repr, bridges))
        raise ValueError(
            f"All data depend on {names}, of which a minibatch says little: leave out batch_size."
        )
