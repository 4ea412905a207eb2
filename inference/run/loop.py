"""The loop: E-step, M-step, perhaps a leap ahead, stop — and an honest reason for stopping."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from emjax.e_step.e_step import e_step, instance_of
from emjax.graph.factor_graph import FactorGraph
from emjax.m_step.m_step import estimated, m_step
from emjax.m_step.maximizer import Maximizer
from emjax.m_step.unconstrained import Unconstrained
from emjax.run.acceleration import ACCELERATORS, Accelerator


class Status(IntEnum):
    """Why EM stopped."""

    CONVERGED = 0
    MAX_STEPS = 1
    OBJECTIVE_DECREASED = 2
    NOT_FINITE = 3

    @property
    def message(self) -> str:
        """What happened, and the remedy."""
        return {
            Status.CONVERGED: "converged: the objective's last increase was within tol",
            Status.MAX_STEPS: "stopped at max_steps before convergence: raise max_steps, or start "
            "from result.params",
            Status.OBJECTIVE_DECREASED: "the objective decreased by more than rounding: params are "
            "those before the decrease; enable "
            "float64 (jax.config.update('jax_enable_x64', True)), or check a maximizer given "
            "in m_step",
            Status.NOT_FINITE: "the objective became infinite or NaN: params are the last finite "
            "ones; a scale that shrinks to zero has "
            "no maximum, so state a floor (constraints.greater_than(...)) or a prior, or use fewer "
            "components (a Beta, Dirichlet or "
            "Gamma prior with a concentration below 1 is itself infinite at the boundary)",
        }[self]

    def __str__(self) -> str:
        return self.name.lower().replace("_", " ")


RUNNING = -1
# accelerated, EM has converged when as many steps as a cycle has together gain nothing: those
# between two leaps gain little
CYCLE = 4


def has_failed(status):
    """Whether a status (an integer or an array of them) says that the parameters before the last
    ones are to be reported.
    """
    return (status == Status.NOT_FINITE) | (status == Status.OBJECTIVE_DECREASED)


class EMState(eqx.Module):
    """Where EM stands.

    **Attributes:**

    - `params`: the estimate, constrained, keyed by site.
    - `optimizer`: the states of the optax optimizers given in `m_step`, by maximizer.
    """

    params: dict[str, Array]
    optimizer: tuple


class Leap(eqx.Module):
    """What acceleration remembers: its own state, whether the point to be evaluated is a proposal,
    and EM's own next state, where it goes on if that is none.
    """

    state: Any
    is_proposal: Bool[Array, ""]
    image: EMState


class LoopState(eqx.Module):
    """Where the loop stands: the `state` to be evaluated next; `reported`, the parameters of the
    last value of the objective that counts; the objective at every step so far; and `leap`, None
    without acceleration.
    """

    state: EMState
    reported: dict[str, Array]
    objective: Float[Array, "step"]
    step: Int[Array, ""]
    status: Int[Array, ""]
    leap: Leap | None

    @property
    def num_steps(self):
        """How many EM steps led to `reported`."""
        return self.step - (has_failed(self.status) & (self.step > 0))


@dataclass(frozen=True, eq=False)
class Loop:
    """EM steps on a factor graph, and the rule by which they stop."""

    graph: FactorGraph
    maximizers: Sequence[Maximizer]
    temperature: Any
    tol: Any
    stop: str
    max_steps: Any
    acceleration: str | None

    def state(self, params) -> EMState:
        return EMState(params, tuple(m.init(params) for m in self.maximizers))

    def start(self, params) -> LoopState:
        """Return the carry before the first step. (The objective has room for the steps that follow
        a polish.)
        """
        zero, state = jnp.zeros((), jnp.int32), self.state(params)
        leap = (
            None
            if self._accelerator is None
            else Leap(
                self._accelerator.init(self._unconstrained.around(params)[0]),
                jnp.zeros((), bool),
                state,
            )
        )
        return LoopState(
            state,
            dict(params),
            jnp.zeros(self.max_steps + 3, jnp.result_type(float)),
            zero,
            zero + RUNNING,
            leap,
        )

    def advance(self, carry: LoopState, constants, stop_at, limit: int | None = None) -> LoopState:
        """Run steps until one of the reasons to stop, or until `stop_at` steps. `limit`: the most
        steps, if not `max_steps`.

        Natural-parameter tables go from one step to the next: computed within the step that reads
        them, XLA would fuse them with their lookups, and take a logarithm for each row of the data.
        """

        def tables(carry: LoopState):
            return instance_of(self.graph, self.graph.arrays(carry.state.params, constants)).tables

        def iterate(both):
            carry = self._iterate(*both, constants, self.max_steps if limit is None else limit)
            return carry, tables(carry)

        return jax.lax.while_loop(
            lambda both: (both[0].status < 0) & (both[0].step < stop_at),
            iterate,
            (carry, tables(carry)),
        )[0]

    def step(self, state: EMState, constants, temperature=None) -> tuple[EMState, Float[Array, ""]]:
        """Return the state after one EM step, and the objective that entered it."""
        arrays = self.graph.arrays(state.params, constants)
        objective, statistics = e_step(
            self.graph, arrays, self.temperature if temperature is None else temperature
        )
        return self._m_step(state, constants, statistics), objective

    def _m_step(self, state: EMState, constants, statistics) -> EMState:
        return EMState(
            *m_step(self.maximizers, state.params, state.optimizer, constants, statistics)
        )

    def _iterate(self, carry: LoopState, tables, constants, limit: int) -> LoopState:
        """E-step; has it stopped? M-step; perhaps a leap."""
        state, step = carry.state, carry.step
        objective, statistics = e_step(
            self.graph, self.graph.arrays(state.params, constants), self.temperature, tables
        )
        previous = jnp.where(step > 0, carry.objective[step - 1], -jnp.inf)
        # a leap that came down counts as a step that gained nothing, and EM goes on from its own
        # image
        missed = (
            jnp.zeros((), bool)
            if carry.leap is None
            else carry.leap.is_proposal & ~(objective >= previous)
        )
        objective = jnp.where(missed, previous, objective)
        status = self._status(objective, carry, limit)
        history = carry.objective.at[step].set(objective)
        after = jax.lax.cond(
            (status < 0) & ~missed,
            lambda: self._m_step(state, constants, statistics),
            lambda: state,
        )
        keep = missed | (has_failed(status) & (step > 0))
        # while running, `reported` is where the objective was last evaluated; at a stop, it is what
        # is reported
        reported = jax.tree.map(
            lambda old, new: jnp.where(keep, old, new), carry.reported, state.params
        )
        leap = None
        if carry.leap is not None:
            after, leap = self._leapt(carry.leap, state, after, missed, status)
        return LoopState(after, reported, history, step + (status < 0), status, leap)

    def _status(self, objective, carry: LoopState, limit: int):
        eps, step = jnp.finfo(objective.dtype).eps, carry.step
        size = 1 + jnp.abs(objective)
        gain, before = (
            objective - carry.objective[step - 1],
            carry.objective[step - 1] - carry.objective[step - 2],
        )
        gain = recent = jnp.where(step > 0, gain, jnp.inf)
        if self.acceleration is not None:
            recent = jnp.where(step >= CYCLE, objective - carry.objective[step - CYCLE], jnp.inf)
        left = (
            recent
            if self.stop == "gain"
            else jnp.where(step > 1, still_to_gain(gain, before), jnp.inf)
        )
        is_converged = (left <= self.tol * size) | (recent <= 4 * float(eps) * size)
        status = jnp.where(
            is_converged, Status.CONVERGED, jnp.where(step >= limit, Status.MAX_STEPS, RUNNING)
        )
        status = jnp.where(gain < -1000 * eps * size, Status.OBJECTIVE_DECREASED, status)
        return jnp.where(jnp.isfinite(objective), status, Status.NOT_FINITE).astype(jnp.int32)

    # ── acceleration ──────────────────────────────────────────────────────────────────────────────

    @property
    def estimated(self) -> list[str]:
        """The parameters that do not stay at their start."""
        return estimated(self.maximizers)

    @property
    def _accelerator(self) -> Accelerator | None:
        return ACCELERATORS[self.acceleration]() if self.acceleration else None

    @property
    def _unconstrained(self) -> Unconstrained:
        return Unconstrained(self.graph.parameters, self.estimated)

    def _leapt(
        self, leap: Leap, entered: EMState, image: EMState, missed, status
    ) -> tuple[EMState, Leap]:
        """Return the state to be evaluated next, EM's image or a proposal beyond it, and what to
        remember.
        """
        image = jax.tree.map(lambda old, new: jnp.where(missed, old, new), leap.image, image)
        (start, _), (end, back) = (
            self._unconstrained.around(entered.params),
            self._unconstrained.around(image.params),
        )
        state, point, is_proposal = self._accelerator.propose(leap.state, start, end)
        state = jax.tree.map(
            lambda a, b: jnp.where(missed, a, b), self._accelerator.rejected(leap.state), state
        )
        is_proposal &= ~missed & (status < 0) & jnp.isfinite(point).all()
        beyond = back(jnp.where(is_proposal, point, end))
        inside = {
            name: jnp.isfinite(u).all() for name, u in self._unconstrained.inverse(beyond).items()
        }
        moved = {
            name: jnp.where(is_proposal & inside[name], value, image.params[name])
            for name, value in beyond.items()
        }
        return EMState({**image.params, **moved}, image.optimizer), Leap(state, is_proposal, image)


def still_to_gain(gain, gain_before):
    """Return what is still to gain if gains go on to shrink by the last factor r = gain /
    gain_before: gain · r / (1 − r).

    Infinite where they do not shrink. Source: Aitken (1926); Böhning, Dietz, Schaub, Schlattmann &
    Lindsay (1994).
    """
    rate = gain / jnp.where(gain_before > 0, gain_before, 1)
    shrinks = (gain_before > 0) & (rate >= 0) & (rate < 1)
    return jnp.where(shrinks, gain * rate / jnp.where(shrinks, 1 - rate, 1), jnp.inf)
