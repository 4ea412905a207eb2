"""A program compiled for arguments of given shapes: where a run starts, the whole run, and what can
be asked of it.
"""

from __future__ import annotations

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from emjax.e_step.e_step import log_partition_of, pairwise_posterior, posterior
from emjax.graph.build import factor_graph
from emjax.graph.factor_graph import FactorGraph
from emjax.m_step.m_step import maximizers
from emjax.m_step.maximizer import Maximizer
from emjax.program.trace import initial_values, trace
from emjax.run import validation
from emjax.run.batches import batch_size, in_batches
from emjax.run.degeneracy import Watch
from emjax.run.loop import Loop, LoopState, Status, has_failed
from emjax.run.polish import polished
from emjax.run.restarts import Restarts
from emjax.run.settings import Settings
from emjax.starts.locations import locations_of
from emjax.starts.strategies import START_STRATEGIES


class Start(eqx.Module):
    """Where a run starts: the parameters, and what the checks of them and of the data look at."""

    params: dict[str, Array]
    violations: list
    inspection: dict


class End(eqx.Module):
    """Where a run ends: the loop's last carry, the log-likelihood at the parameters reported, and
    the spread of the data (`degeneracy`).
    """

    carry: LoopState
    log_likelihood: Float[Array, ""]
    spreads: dict


class Compiled:
    """A program traced for arguments of given shapes, and its compiled functions."""

    def __init__(self, em, args, kwargs, concrete: bool):
        settings: Settings = em.settings
        self.settings = settings
        self.initial_values, parameters, self.is_random = initial_values(
            em.model, settings.strategy, args, kwargs, concrete
        )
        self.graph: FactorGraph = replace(
            factor_graph(trace(em.model, parameters, args, kwargs, concrete)),
            chains=settings.chains,
        )
        self.maximizers: list[Maximizer] = maximizers(
            self.graph, settings.m_step or {}, settings.fixed
        )
        self.temperature = settings.temperature
        self.loop = Loop(
            self.graph,
            self.maximizers,
            settings.temperature,
            settings.tol,
            settings.stop,
            settings.max_steps,
            settings.acceleration,
        )
        self.watch = Watch(self.graph, self.maximizers)
        # without priors the objective of a soft E-step is the log-likelihood
        self.is_likelihood = settings.temperature == 1 and not any(
            term.site.is_prior for term in self.graph.terms
        )
        self.initial = jax.jit(self._initial)
        self.update = jax.jit(lambda state, data: self.loop.step(state, self.graph.prepare(data)))
        self.run, self.short_runs, self.continued = (
            jax.jit(self._run),
            jax.jit(self._short_runs),
            jax.jit(self._continued),
        )
        self.start, self.advance, self.end = (
            jax.jit(self._start),
            jax.jit(self.loop.advance),
            jax.jit(self._end),
        )
        self.prepare = jax.jit(self.graph.prepare)
        self.violations = jax.jit(lambda constants: validation.violations(self.graph, constants))
        self.inspection = jax.jit(
            lambda params, constants: validation.inspection(self.graph, params, constants)
        )
        self.most_favorable = jax.jit(
            lambda params, constants: validation.most_favorable(self.graph, params, constants)
        )
        self.spreads = jax.jit(self.watch.spreads)
        self.log_likelihood = jax.jit(self._log_likelihood)
        self.posterior = jax.jit(self._posterior, static_argnames="temperature")
        self.pairwise_posterior = jax.jit(self._pairwise_posterior, static_argnames="temperature")

    def given(self, params) -> dict:
        """Return {name: (a value, whether it is given)} for every parameter, so that any choice of
        them is one signature.
        """
        return {
            name: (params.get(name, np.zeros(p.shape, p.dtype)), np.bool_(name in params))
            for name, p in self.graph.parameters.items()
        }

    # ── where a run starts ────────────────────────────────────────────────────────────────────────

    def _initial(self, rng_key, data):
        constants = self.graph.prepare(data)
        return self._annealed(
            self._drawn(rng_key, self.initial_values(rng_key, data), constants, 0), constants
        )

    def _first(self, rng_key, data, given, constants, number):
        """Return the parameters that start `number` of several begins at: given, or the program's
        own, or by a strategy; annealed.
        """
        values, is_given = ({name: pair[i] for name, pair in given.items()} for i in (0, 1))

        def completed():
            def with_given(params):
                return {
                    name: jnp.where(is_given[name], value, params[name])
                    for name, value in values.items()
                }

            return with_given(
                self._drawn(
                    rng_key, with_given(self.initial_values(rng_key, data)), constants, number
                )
            )

        all_given = jnp.all(jnp.asarray(list(is_given.values()), bool))
        return self._annealed(
            jax.lax.cond(
                all_given,
                lambda: {name: jnp.asarray(value) for name, value in values.items()},
                completed,
            ),
            constants,
        )

    def _drawn(self, rng_key, own, constants, number):
        """Return a start by the strategy asked for. Where none is, and all starts would be the
        program's own, all but the first are drawn: k-means++ seeds, if latents choose locations,
        else random responsibilities.
        """
        settings = self.settings
        strategy = settings.init if isinstance(settings.init, str) else None
        if strategy is None and (
            settings.num_restarts == 1
            or settings.init is not None
            or self.is_random
            or not self.graph.latents
        ):
            return own
        drawn = START_STRATEGIES[
            strategy or ("k-means++" if locations_of(self.graph)[0] else "responsibilities")
        ](self.graph, self.maximizers, rng_key, own, constants)
        is_own = (strategy is None) & (number == 0)
        return {
            name: jnp.where(is_own | (name in settings.fixed), own[name], value)
            for name, value in drawn.items()
        }

    def _annealed(self, params, constants):
        """Return where EM steps at the temperatures of the annealing lead. Source: Ueda & Nakano
        (1998), Neural Networks 11(2).
        """
        temperatures = jnp.asarray(self.settings.annealing, jnp.result_type(float))
        if not temperatures.size:
            return params
        return jax.lax.scan(
            lambda state, t: (self.loop.step(state, constants, t)[0], None),
            self.loop.state(params),
            temperatures,
        )[0].params

    def _start(self, rng_key, data, given, number=0) -> tuple[Start, list]:
        """Return the start, and what depends on data alone."""
        constants = self.graph.prepare(data)
        return self._checked(
            self._first(rng_key, data, given, constants, number), constants
        ), constants

    def _checked(self, params, constants) -> Start:
        return Start(
            params,
            validation.violations(self.graph, constants),
            validation.inspection(self.graph, params, constants),
        )

    # ── whole runs ────────────────────────────────────────────────────────────────────────────────

    def _run(self, rng_key, data, given, number=0) -> tuple[Start, End]:
        """Return the start and the end of a whole run in one compiled function.

        Nothing is run where the data are bad; the checks then say why. The data are no output: that
        would copy them.
        """
        start, constants = self._start(rng_key, data, given, number)
        good = jnp.all(jnp.asarray([count == 0 for count, _ in start.violations], bool))
        carry = self.loop.advance(
            self.loop.start(start.params),
            constants,
            jnp.where(good, self.settings.max_steps + 1, 0),
        )
        return start, self._end(carry, constants)

    def _end(self, carry: LoopState, constants) -> End:
        """Return the end of a run: polished, if asked for, and followed by EM's own steps until
        they confirm it.
        """
        if self.settings.polish:
            carry, plain = replace(carry, leap=None), replace(self.loop, acceleration=None)
            params = polished(
                self.graph, self.loop.estimated, carry.reported, constants, self.settings.polish
            )
            again = replace(
                plain.start(params),
                objective=carry.objective,
                step=carry.step + 1,
                reported=carry.reported,
            )
            again = plain.advance(
                again, constants, self.settings.max_steps + 3, limit=self.settings.max_steps + 2
            )
            failed = has_failed(carry.status) | has_failed(again.status)
            carry = jax.tree.map(
                lambda before, after: jnp.where(failed, before, after), carry, again
            )
        likelihood = (
            carry.objective[carry.num_steps]
            if self.is_likelihood
            else self._log_likelihood(carry.reported, constants)
        )
        return End(carry, likelihood, self.watch.spreads(constants))

    def _short_runs(self, keys, data, given, num_steps):
        """Return where several runs start, and where each is after some steps, or at its end."""
        constants = self.graph.prepare(data)

        def one(pair):
            params = self._first(pair[0], data, given, constants, pair[1])
            return params, self.loop.advance(self.loop.start(params), constants, num_steps)

        starts, carries = in_batches(one, (keys, jnp.arange(len(keys))), batch_size(self.graph))
        return starts, carries, self.watch.spreads(constants)

    def _continued(self, params, carry: LoopState, data) -> tuple[Start, End]:
        """Return what `_run` does, of a run that started at params and stands at a carry."""
        constants = self.graph.prepare(data)
        return self._checked(params, constants), self._end(
            self.loop.advance(carry, constants, self.settings.max_steps + 1), constants
        )

    # ── what is said of a run ─────────────────────────────────────────────────────────────────────

    def warnings(self, before, end: End) -> tuple[str, ...]:
        """Return what to warn of after a run that started at `before`."""
        return self.watch.sentences(before, end.carry.reported, self._last(end), end.spreads)

    def is_degenerate(self, end: End) -> bool:
        """Whether a run ended where a scale has collapsed, or the objective is not finite."""
        return int(end.carry.status) == Status.NOT_FINITE or bool(
            self.watch.collapsed(self._last(end), end.spreads)
        )

    def _last(self, end: End):
        """Return the parameters at which the objective was evaluated last, though it was not
        finite.
        """
        return (
            end.carry.state.params
            if int(end.carry.status) == Status.NOT_FINITE
            else end.carry.reported
        )

    def restarts(self, carries: LoopState, spreads) -> Restarts:
        """Return where several runs came to."""
        params, (carries, spreads) = (
            dict(carries.reported),
            jax.tree.map(np.asarray, (carries, spreads)),
        )
        last = carries.num_steps - (carries.status < 0)
        objective = np.take_along_axis(carries.objective, np.maximum(last, 0)[:, None], 1)[:, 0]
        collapsed = [
            bool(
                self.watch.collapsed(
                    {name: value[i] for name, value in carries.reported.items()}, spreads
                )
            )
            for i in range(len(last))
        ]
        degenerate = np.asarray(collapsed) | (
            (carries.status == Status.NOT_FINITE) & (objective != -np.inf)
        )
        return Restarts(objective, carries.status, carries.num_steps, degenerate, params)

    # ── what can be asked ─────────────────────────────────────────────────────────────────────────

    def _log_likelihood(self, params, constants):
        arrays = self.graph.arrays(params, constants)
        return log_partition_of(self.graph, arrays, lambda term: not term.site.is_prior)

    def _posterior(self, params, constants, temperature):
        return posterior(self.graph, self.graph.arrays(params, constants), temperature)

    def _pairwise_posterior(self, params, constants, temperature):
        return pairwise_posterior(self.graph, self.graph.arrays(params, constants), temperature)
