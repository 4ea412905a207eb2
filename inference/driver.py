"""The compiled loop: E-step, M-step, stop — and an honest reason for stopping."""

from __future__ import annotations

from enum import IntEnum

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from emjax import validation
from emjax.closed_form import Maximizer
from emjax.e_step import e_step, log_partition_of, posterior, problem
from emjax.graph import FactorGraph
from emjax.m_step import maximizers
from emjax.program import initial_values, trace
from emjax.terms import factor_graph


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
            Status.MAX_STEPS: "stopped at max_steps before convergence: raise max_steps, or start from result.params",
            Status.OBJECTIVE_DECREASED: "the objective decreased by more than rounding: params are those before the decrease; enable "
                                        "float64 (jax.config.update('jax_enable_x64', True)), or check a maximizer given in m_step",
            Status.NOT_FINITE: "the objective became infinite or NaN: params are the last finite ones; a scale that shrinks to zero has "
                               "no maximum, so state a floor (constraints.greater_than(...)) or a prior, or use fewer components (a Beta or Dirichlet "
                               "prior with a concentration below 1 is itself infinite at the boundary)",
        }[self]


    def __str__(self) -> str:
        return self.name.lower().replace("_", " ")


class EMState(eqx.Module):
    """Where EM stands.

    **Attributes:**

    - `params`: the estimate, constrained, keyed by site.
    - `optimizer`: the states of the optax optimizers given in `m_step`, by maximizer.
    """

    params: dict[str, Array]
    optimizer: tuple


class Compiled:
    """A program traced for arguments of given shapes, and its compiled functions."""

    def __init__(self, em, args, kwargs, concrete: bool):
        start, parameters = initial_values(em.model, em.init_strategy, args, kwargs, concrete)
        self.graph: FactorGraph = factor_graph(trace(em.model, parameters, args, kwargs, concrete))
        self.maximizers: list[Maximizer] = maximizers(self.graph, em.m_step)
        self.temperature = em.temperature
        self.tol, self.max_steps = em.tol, em.max_steps
        self.initial = jax.jit(start)
        self.violations = jax.jit(lambda constants: validation.violations(self.graph, constants))
        self.inspection = jax.jit(lambda params, constants: validation.inspection(self.graph, params, constants))
        self.most_favorable = jax.jit(lambda params, constants: validation.most_favorable(self.graph, params, constants))
        self.prepare = jax.jit(self.graph.prepare)
        self.advance = jax.jit(self._advance)
        self.log_likelihood = jax.jit(self._log_likelihood)
        self.posterior = jax.jit(self._posterior, static_argnames="temperature")

    def state(self, params) -> EMState:
        return EMState(params, tuple(m.init(params) for m in self.maximizers))

    def step(self, state: EMState, constants):
        """One EM step: E-step at the state's parameters, M-step; also the objective that entered."""
        objective, statistics = e_step(self.graph, self.graph.arrays(state.params, constants), self.temperature)
        return self.m_step(state, constants, statistics), objective

    def m_step(self, state: EMState, constants, statistics) -> EMState:
        params, optimizer = dict(state.params), []
        for maximizer, own in zip(self.maximizers, state.optimizer, strict=True):
            values, own = maximizer.update(params, own, constants, statistics)
            params |= values
            optimizer.append(own)
        return EMState(params, tuple(optimizer))

    def _advance(self, carry, constants, stop_at):
        """Run steps until one of the reasons to stop, or until `stop_at` steps.

        Natural-parameter tables go from one step to the next: computed within the step that reads them, XLA would fuse them with
        their lookups, and take a logarithm for each row of the data.
        """
        def tables(carry: Carry):
            return problem(self.graph, self.graph.arrays(carry.state.params, constants)).tables

        def iterate(both):
            carry = self._iterate(*both, constants)
            return carry, tables(carry)

        return jax.lax.while_loop(lambda both: (both[0].status < 0) & (both[0].step < stop_at), iterate, (carry, tables(carry)))[0]

    def _iterate(self, carry: Carry, tables, constants) -> Carry:
        objective, statistics = e_step(self.graph, self.graph.arrays(carry.state.params, constants), self.temperature, tables)
        previous = jnp.where(carry.step > 0, carry.objective[carry.step - 1], -jnp.inf)
        status = self._status(objective, previous, carry.step)
        failed = (status == Status.NOT_FINITE) | (status == Status.OBJECTIVE_DECREASED)
        history = carry.objective.at[carry.step].set(objective)
        after = jax.lax.cond(status < 0, lambda: self.m_step(carry.state, constants, statistics), lambda: carry.state)
        kept = jax.tree.map(lambda old, new: jnp.where(failed & (carry.step > 0), old, new), carry.previous, carry.state.params)
        # while running, `previous` is where the objective was just evaluated; at a stop, it is what is reported
        return Carry(after, kept, history, carry.step + (status < 0), status)

    def _status(self, objective, previous, step):
        eps = jnp.finfo(objective.dtype).eps
        size = 1 + jnp.abs(objective)
        gain = objective - previous
        status = jnp.where(gain <= max(self.tol, 4 * float(eps)) * size, Status.CONVERGED, -1)
        status = jnp.where(step >= self.max_steps, jnp.where(status == Status.CONVERGED, status, Status.MAX_STEPS), status)
        status = jnp.where(gain < -1000 * eps * size, Status.OBJECTIVE_DECREASED, status)
        return jnp.where(jnp.isfinite(objective), status, Status.NOT_FINITE).astype(jnp.int32)

    def _log_likelihood(self, params, constants):
        arrays = self.graph.arrays(params, constants)
        return log_partition_of(self.graph, arrays, lambda term: term.site.kind != "prior")

    def _posterior(self, params, constants, temperature):
        return posterior(self.graph, self.graph.arrays(params, constants), temperature)


class Carry(eqx.Module):
    state: EMState
    previous: dict[str, Array]
    objective: Float[Array, "step"]
    step: Int[Array, ""]
    status: Int[Array, ""]
