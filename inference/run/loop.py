"""The loop: E-step, M-step, perhaps a leap ahead, stop — and an honest reason for stopping."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from emjax.e_step.e_step import e_step
from emjax.e_step.expected import Expected
from emjax.graph.factor_graph import FactorGraph
from emjax.m_step.gap import Gap
from emjax.m_step.m_step import estimated, gaps, m_step
from emjax.m_step.maximizer import Maximizer
from emjax.m_step.unconstrained import Unconstrained
from emjax.run.acceleration import Accelerator
from emjax.run.crawling import still_to_gain
from emjax.run.settings import Numbers, Settings
from emjax.run.state import RUNNING, EMState, Leap, LoopState, Status, has_failed, has_settled
from emjax.tables.named import Named

# so many numbers of a term's tables are handed on at the end
LARGEST_KEPT = 2**12
# a gain below so many units in the last place of the objective is no gain, a decrease beyond so
# many is more than rounding
ROUNDING_OF_A_GAIN = 4
ROUNDING_OF_A_SUM = 1000


EStep = Callable[..., Expected]


@dataclass(frozen=True, eq=False)
class Loop:
    """EM steps on a factor graph, and the rule by which they stop.

    - `e_step`: (graph, arrays, temperature, tables) → what an E-step yields of all data.
    - `resolution`: the ε of the sums that the objective is made of; None: its own.
    - `since`: the first step whose objective is compared with those after it: before, it was
      computed in another precision.
    """

    graph: FactorGraph
    maximizers: Sequence[Maximizer]
    settings: Settings
    numbers: Numbers
    accelerator: Accelerator | None
    e_step: EStep = e_step
    resolution: float | None = None
    since: Any = 0

    @property
    def temperature(self) -> Any:
        """The temperature of the E-step: traced, if it is neither soft nor hard."""
        return self.numbers.temperature if self.settings.is_tempered else self.settings.temperature

    def state(self, params: dict[str, Array]) -> EMState:
        """Return the state at the given parameters."""
        return EMState(params, tuple(maximizer.init(params) for maximizer in self.maximizers))

    def start(self, params: dict[str, Array]) -> LoopState:
        """Return where the loop stands before the first step."""
        state, zero = self.state(params), jnp.zeros((), jnp.int32)
        leap = None
        if self.accelerator is not None:
            vector, _ = self._unconstrained.around(params)
            leap = Leap(self.accelerator.init(vector), jnp.zeros((), bool), state)
        objective = jnp.zeros(self.settings.capacity, jnp.result_type(float))
        unknown = tuple(Gap.unknown() for maximizer in self.maximizers if maximizer.gap is not None)
        zeros = self._small([_zeros(term.naturals) for term in self.graph.terms])
        return LoopState(
            state, dict(params), objective, zero, zero + RUNNING, leap, unknown, zeros, zeros
        )

    @property
    def can_leap(self) -> bool:
        """Whether there is a space to leap in."""
        return self._unconstrained.exist

    def with_leaps(self, at: LoopState) -> LoopState:
        """Return the same, from where leaps begin: the accelerator has seen nothing yet."""
        own = at.current
        vector = jax.eval_shape(lambda params: self._unconstrained.around(params)[0], own.params)
        remembered = self.accelerator.init(jnp.zeros(vector.shape, vector.dtype))
        return replace(at, leap=Leap(remembered, jnp.zeros((), bool), own))

    def advance(
        self, at: LoopState, constants: Sequence, stop_at: Any, limit: Any = None
    ) -> LoopState:
        """Run steps until one of the reasons to stop, or until `stop_at` steps.

        `limit`: the most steps, if not `max_steps`.
        """
        most = self.numbers.max_steps if limit is None else limit

        # Natural-parameter tables go from one step to the next: computed within the step that reads
        # them, XLA would fuse them with their lookups, and take a logarithm for each row of data.
        def tables(at: LoopState) -> list:
            return self.graph.tables(at.current.params, constants)

        def goes_on(carried: tuple) -> Any:
            at, _, _ = carried
            return (at.status < 0) & (at.step < stop_at)

        def iterate(carried: tuple) -> tuple:
            at, own_tables, recent = carried
            arrays = self.graph.arrays(at.current.params, constants)
            expected = self.e_step(self.graph, arrays, self.temperature, own_tables)
            at, recent = self._after(at, recent, expected, constants, most)
            return at, tables(at), recent

        start = at, tables(at), self._recent(at)
        at, own_tables, _ = jax.lax.while_loop(goes_on, iterate, start)
        # whoever has stopped stays: these are the tables where the objective was evaluated last
        return replace(at, tables=self._small(own_tables))

    def step(
        self, state: EMState, constants: Sequence, temperature: Any = None
    ) -> tuple[EMState, Float[Array, ""]]:
        """Return the state after one EM step, and the objective that entered it."""
        temperature = self.temperature if temperature is None else temperature
        arrays = self.graph.arrays(state.params, constants)
        expected = self.e_step(self.graph, arrays, temperature, None)
        return self.m_step(state, constants, expected.statistics), expected.log_partition

    def m_step(self, state: EMState, constants: Sequence, statistics: Sequence) -> EMState:
        """Return the state after an M-step at expected statistics."""
        return EMState(
            *m_step(self.maximizers, state.params, state.optimizer, constants, statistics)
        )

    def after(
        self, at: LoopState, expected: Expected, tables: Sequence, constants: Sequence, limit: Any
    ) -> LoopState:
        """Return where the loop stands after an E-step at its current state.

        Has it stopped? M-step; perhaps a leap. `tables`: the natural parameters at that state.
        """
        at, _ = self._after(at, self._recent(at), expected, constants, limit)
        return replace(at, tables=self._small(tables))

    def _recent(self, at: LoopState) -> list[Array]:
        """Return the objectives of the steps before, the last one first, as many as are looked at.

        They go from step to step by themselves: were all of them both read and written in one step,
        XLA would copy them.
        """
        number = 2 if self.settings.stop == "aitken" else 1
        if self.accelerator is not None:
            number = max(number, self.accelerator.cycle)
        return [at.objective[at.step - 1 - back] for back in range(number)]

    def _after(
        self, at: LoopState, recent: list[Array], expected: Expected, constants, limit: Any
    ) -> tuple[LoopState, list[Array]]:
        """Return what `after` does but for the tables, which stay, and `_recent` of that."""
        state, step = at.current, at.step
        previous = jnp.where(step > self.since, recent[0], -jnp.inf)
        # a leap that came down counts as a step that gained nothing: EM goes on from its own image
        missed = jnp.zeros((), bool)
        if at.leap is not None:
            missed = at.leap.is_proposal & ~(expected.log_partition >= previous)
        objective = jnp.where(missed, previous, expected.log_partition)
        status = self._status(objective, recent, step, limit, missed)

        def go_on():
            after = self.m_step(state, constants, expected.statistics)
            return after, state.params, at.gaps

        def stay():
            # at a stop, `reported` is what is reported; while running, where the objective was
            # evaluated last
            keep = missed | (has_failed(status) & (step > 0))
            reported = _where(keep, at.reported, state.params)
            left = self._gaps(at, state, status, constants, expected.statistics)
            return state, reported, left

        # `reported` within the branches: outside, XLA would compile the rule by which to stop again
        # into the loop over each parameter
        after, reported, left = jax.lax.cond((status < 0) & ~missed, go_on, stay)
        status = self._status_with(left, status, objective)
        leap = None
        if at.leap is not None:
            after, leap = self._leapt(at.leap, state, after, missed, status)
        history, step = at.objective.at[step].set(objective), step + (status < 0)
        statistics = self._small(expected.statistics)
        after = LoopState(after, reported, history, step, status, leap, left, at.tables, statistics)
        return after, [objective, *recent[:-1]]

    def _small(self, by_term: Sequence[list]) -> list:
        """Return what is kept of the tables of each term at the end: those that are few numbers."""
        kept: list = []
        for term, arrays in zip(self.graph.terms, by_term, strict=True):
            size = sum(math.prod(table.array.shape) for table in term.naturals)
            kept.append(arrays if size <= LARGEST_KEPT else None)
        return kept

    def _gaps(self, at: LoopState, state: EMState, status, constants, statistics) -> tuple:
        """Return what Q still gains, where steps have come to gain no more than tol."""
        if not at.gaps:
            return at.gaps
        # a run that has stopped is asked once, though it waits for those at its side
        is_wanted = has_settled(status) & (at.status < 0)

        # a loop of one turn, and not a branch: runs side by side would all take both branches
        def ask(carried: tuple) -> tuple:
            left = gaps(self.maximizers, state.params, constants, statistics, is_wanted)
            return jnp.zeros((), bool), left

        return jax.lax.while_loop(lambda carried: carried[0], ask, (is_wanted, at.gaps))[1]

    def _status_with(self, gaps: Sequence[Gap], status, objective):
        """Return the status: a run has not converged where a maximizer leaves Q to gain."""
        allowed = jnp.maximum(self.numbers.tol * _size(objective), self._resolved(objective))
        for gap in gaps:
            # true of NaN, too
            is_left = ~(gap.gain <= allowed) & has_settled(status)
            status = jnp.where(is_left, Status.NOT_MAXIMIZED, status)
        return status.astype(jnp.int32)

    def _status(self, objective, recent: list[Array], step, limit, missed):
        """Return why to stop at an objective that was just evaluated, or `RUNNING`."""
        numbers, number = self.numbers, step - self.since
        gain = gained = jnp.where(number > 0, objective - recent[0], jnp.inf)
        if self.accelerator is not None:
            cycle = self.accelerator.cycle
            gained = jnp.where(number >= cycle, objective - recent[cycle - 1], jnp.inf)
        left = gained
        if self.settings.stop == "aitken":
            gain_before = recent[0] - recent[1]
            left = jnp.where(number > 1, still_to_gain(gain, gain_before), jnp.inf)
        allowed, resolved = numbers.tol * _size(objective), self._resolved(objective)
        has_settled = (left <= allowed) | (gained <= resolved)
        # in single precision gains that EM still makes are lost in rounding
        is_single = objective.dtype != jnp.float64 or self.resolution is not None
        end = jnp.where(is_single & (allowed < resolved), Status.AT_RESOLUTION, Status.CONVERGED)
        status = jnp.where(step >= limit, Status.MAX_STEPS, RUNNING)
        # where a leap has come down, the expected statistics are of no place that EM stays at
        status = jnp.where(has_settled & numbers.may_settle & ~missed, end, status)
        lost = ROUNDING_OF_A_SUM / ROUNDING_OF_A_GAIN * resolved
        status = jnp.where(gain < -lost, Status.OBJECTIVE_DECREASED, status)
        return jnp.where(jnp.isfinite(objective), status, Status.NOT_FINITE).astype(jnp.int32)

    def _resolved(self, objective):
        """Return the least gain that the precision tells from none."""
        eps = jnp.finfo(objective.dtype).eps if self.resolution is None else self.resolution
        return ROUNDING_OF_A_GAIN * eps * _size(objective)

    # ── acceleration ──────────────────────────────────────────────────────────────────────────────

    @property
    def estimated(self) -> list[str]:
        """The parameters that do not stay at their start."""
        return estimated(self.maximizers)

    @property
    def _unconstrained(self) -> Unconstrained:
        return Unconstrained(self.graph.parameters, self.estimated)

    def _leapt(
        self, leap: Leap, entered: EMState, image: EMState, missed, status
    ) -> tuple[EMState, Leap]:
        """Return the state to be evaluated next, and what to remember.

        The state is EM's image of the one that was `entered`, or a proposal beyond it.
        """
        image = _where(missed, leap.image, image)
        start, _ = self._unconstrained.around(entered.params)
        end, back = self._unconstrained.around(image.params)
        state, point, is_proposal = self.accelerator.propose(leap.state, start, end)
        state = _where(missed, self.accelerator.rejected(leap.state), state)
        is_proposal &= ~missed & (status < 0) & jnp.isfinite(point).all()
        beyond = back(jnp.where(is_proposal, point, end))
        # a leap may round to the boundary, from which there is no way back: that entry is not taken
        moved = {}
        for name, coordinate in self._unconstrained.inverse(beyond).items():
            is_inside = jnp.isfinite(coordinate).all()
            moved[name] = jnp.where(is_proposal & is_inside, beyond[name], image.params[name])
        return EMState({**image.params, **moved}, image.optimizer), Leap(state, is_proposal, image)


def _zeros(tables: Sequence[Named]) -> list[Array]:
    return [jnp.zeros(table.array.shape, table.array.dtype) for table in tables]


def _where(condition, first, second):
    """Return one of two trees of the same structure."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), first, second)


def _size(objective):
    """Return what gains are compared with."""
    return 1 + jnp.abs(objective)
