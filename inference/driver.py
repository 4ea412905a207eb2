"""The compiled loop: E-step, M-step, stop — and an honest reason for stopping."""

from __future__ import annotations

from dataclasses import replace
from enum import IntEnum

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from emjax import validation
from emjax.closed_form import Maximizer
from emjax.e_step import (
    e_step,
    log_partition_of,
    pairwise_posterior,
    posterior,
    problem,
)
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
                               "no maximum, so state a floor (constraints.greater_than(...)) or a prior, or use fewer components (a Beta, Dirichlet or "
                               "Gamma prior with a concentration below 1 is itself infinite at the boundary)",
        }[self]


    def __str__(self) -> str:
        return self.name.lower().replace("_", " ")


def has_failed(status):
    """Whether a status (an integer or an array of them) says that the parameters before the last ones are to be reported."""
    return (status == Status.NOT_FINITE) | (status == Status.OBJECTIVE_DECREASED)


class EMState(eqx.Module):
    """Where EM stands.

    **Attributes:**

    - `params`: the estimate, constrained, keyed by site.
    - `optimizer`: the states of the optax optimizers given in `m_step`, by maximizer.
    """

    params: dict[str, Array]
    optimizer: tuple


class Start(eqx.Module):
    """Where a run starts: the parameters, and what the checks of them and of the data look at."""

    params: dict[str, Array]
    violations: list
    inspection: dict


class Compiled:
    """A program traced for arguments of given shapes, and its compiled functions."""

    def __init__(self, em, args, kwargs, concrete: bool):
        self.initial_values, parameters = initial_values(em.model, em.init_strategy, args, kwargs, concrete)
        self.graph: FactorGraph = replace(factor_graph(trace(em.model, parameters, args, kwargs, concrete)), chains=em.chains)
        self.maximizers: list[Maximizer] = maximizers(self.graph, em.m_step)
        self.temperature = em.temperature
        self.tol, self.max_steps = em.tol, em.max_steps
        # without priors the objective of a soft E-step is the log-likelihood
        self.is_likelihood = em.temperature == 1 and not any(term.site.kind == "prior" for term in self.graph.terms)
        self.initial = jax.jit(self.initial_values)
        self.run = jax.jit(self._run)
        self.start = jax.jit(self._start)
        self.advance = jax.jit(self._advance)
        self.prepare = jax.jit(self.graph.prepare)
        self.violations = jax.jit(lambda constants: validation.violations(self.graph, constants))
        self.inspection = jax.jit(lambda params, constants: validation.inspection(self.graph, params, constants))
        self.most_favorable = jax.jit(lambda params, constants: validation.most_favorable(self.graph, params, constants))
        self.final_likelihood = jax.jit(self._final_likelihood)
        self.log_likelihood = jax.jit(self._log_likelihood)
        self.posterior = jax.jit(self._posterior, static_argnames="temperature")
        self.pairwise_posterior = jax.jit(self._pairwise_posterior, static_argnames="temperature")

    def state(self, params) -> EMState:
        return EMState(params, tuple(m.init(params) for m in self.maximizers))

    def given(self, params) -> dict:
        """Return {name: (a value, whether it is given)} for every parameter, so that any choice of them is one signature."""
        return {name: (params.get(name, np.zeros(p.shape, p.dtype)), np.bool_(name in params)) for name, p in self.graph.parameters.items()}

    def _start(self, rng_key, data, given) -> tuple[Start, list]:
        """Return the start, and what depends on data alone."""
        values, is_given = ({name: pair[i] for name, pair in given.items()} for i in (0, 1))

        def completed():
            own = self.initial_values(rng_key, data)
            return {name: jnp.where(is_given[name], value, own[name]) for name, value in values.items()}

        all_given = jnp.all(jnp.asarray(list(is_given.values()), bool))
        params = jax.lax.cond(all_given, lambda: {name: jnp.asarray(value) for name, value in values.items()}, completed)
        constants = self.graph.prepare(data)
        return Start(params, validation.violations(self.graph, constants), validation.inspection(self.graph, params, constants)), constants

    def _run(self, rng_key, data, given):
        """Return the start, where EM ended, and the log-likelihood there: a whole run in one compiled function.

        Nothing is run where the data are bad; the checks then say why. The data are no output: that would copy them.
        """
        start, constants = self._start(rng_key, data, given)
        good = jnp.all(jnp.asarray([count == 0 for count, _ in start.violations], bool))
        carry = self._advance(self.carry(start.params), constants, jnp.where(good, self.max_steps + 1, 0))
        return start, carry, self._final_likelihood(carry, constants)

    def carry(self, params) -> Carry:
        zero = jnp.zeros((), jnp.int32)
        return Carry(self.state(params), dict(params), jnp.zeros(self.max_steps + 1, jnp.result_type(float)), zero, zero - 1)

    def _final_likelihood(self, carry: Carry, constants):
        """Return log p(x | params) at the end."""
        last = jnp.maximum(carry.step - has_failed(carry.status), 0)
        return carry.objective[last] if self.is_likelihood else self._log_likelihood(carry.previous, constants)

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
        history = carry.objective.at[carry.step].set(objective)
        after = jax.lax.cond(status < 0, lambda: self.m_step(carry.state, constants, statistics), lambda: carry.state)
        kept = jax.tree.map(lambda old, new: jnp.where(has_failed(status) & (carry.step > 0), old, new), carry.previous, carry.state.params)
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

    def _pairwise_posterior(self, params, constants, temperature):
        return pairwise_posterior(self.graph, self.graph.arrays(params, constants), temperature)


class Carry(eqx.Module):
    state: EMState
    previous: dict[str, Array]
    objective: Float[Array, "step"]
    step: Int[Array, ""]
    status: Int[Array, ""]
