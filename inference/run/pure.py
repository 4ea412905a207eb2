"""A run as pure functions of arrays: where it starts, its steps, its end, and what can be asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from emjax.e_step.e_step import log_partition_of
from emjax.e_step.gaussian_marginals import gaussian_means, gaussian_posterior
from emjax.e_step.marginals import pairwise_posterior, posterior, posterior_means
from emjax.families.jacobians import allowed, inside
from emjax.graph.build import factor_graph
from emjax.graph.factor_graph import FactorGraph
from emjax.m_step.m_step import maximizers
from emjax.m_step.maximizer import Maximizer
from emjax.program.trace import Program
from emjax.run import validation
from emjax.run.acceleration import squarem
from emjax.run.batches import batch_size, in_batches
from emjax.run.degeneracy import DegeneracyWatch
from emjax.run.loop import Loop
from emjax.run.polish import polished
from emjax.run.resolution import moved_densities
from emjax.run.settings import Numbers, Settings
from emjax.run.state import EMState, LoopState, has_failed
from emjax.starts.strategies import (
    SEEDS_OF_SHORT_RUNS,
    SHORT_RUNS,
    START_STRATEGIES,
    stated_start,
    varies,
    various_start,
)


class Start(eqx.Module):
    """Where a run starts: the parameters, and what the checks of them and of the data look at."""

    params: dict[str, Array]
    violations: list
    inspection: dict


class End(eqx.Module):
    """Where a run ends.

    **Attributes:**

    - `at`: where the loop stands.
    - `log_likelihood`: log p(x | params) in nats, at the parameters reported.
    - `last`: the parameters at which the objective was evaluated last, though not reported.
    - `sharpness`: how sharp densities are there, and which of their data are constant (`collapse`).
    """

    at: LoopState
    log_likelihood: Float[Array, ""]
    last: dict[str, Array]
    sharpness: list


@dataclass(frozen=True, eq=False)
class PureProgram:
    """A program traced for arguments of given shapes, as pure functions of the arrays among these.

    - `numbers`: the settings that are numbers, which may be traced.
    - `initial_values`: (random key, data) → the program's own start.
    - `is_random`: whether that start depends on the key.
    - `stated`: the strategy that the program states for its start, if it is to be followed.
    - `watch`: what sees that a component degenerates.

    In every method, `data` are the arrays among the program's arguments, and `constants` what
    depends on these alone (`graph.prepare`).
    """

    settings: Settings
    numbers: Numbers
    initial_values: Callable
    is_random: bool
    stated: str | None
    graph: FactorGraph
    maximizers: Sequence[Maximizer]
    loop: Loop
    watch: DegeneracyWatch

    @classmethod
    def of(
        cls,
        program: Program,
        settings: Settings,
        start: Callable,
        is_random: bool,
        is_of_part: bool = False,
    ):
        """Return a traced program under settings.

        `start`: (random key, data) → its own start; `is_of_part`: see `factor_graph`.
        """
        graph = factor_graph(program, settings.map == "unconstrained", is_of_part)
        graph = replace(graph, chains=settings.chains)
        in_turn = maximizers(graph, settings.m_step or {}, settings.fixed)
        numbers = settings.numbers
        loop = Loop(graph, in_turn, settings, numbers, settings.accelerator)
        watch = DegeneracyWatch(graph, in_turn)
        # what the user holds is held beside the program's own values, not beside clusters
        is_followed = settings.init is None and not settings.fixed
        stated = stated_start(graph) if is_followed else None
        return cls(settings, numbers, start, is_random, stated, graph, in_turn, loop, watch)

    def at(self, numbers: Numbers) -> PureProgram:
        """Return the program with other numbers among its settings."""
        return replace(self, numbers=numbers, loop=replace(self.loop, numbers=numbers))

    @property
    def has_short_runs(self) -> bool:
        """Whether the start of one run is to be where the best of several short ones stands."""
        name = self.stated if self.settings.init is None else self.settings.init
        return name == SHORT_RUNS and self.settings.num_restarts == 1 and bool(self.graph.latents)

    # ── where a run starts ────────────────────────────────────────────────────────────────────────

    def initial(self, rng_key, data: Sequence) -> dict[str, Any]:
        """Return the parameters that a run without given values starts at."""
        constants = self.graph.prepare(data)
        own = self._own(rng_key, data)
        return self._annealed(self._drawn(rng_key, own, constants, 0, False), constants)

    def _own(self, rng_key, data: Sequence) -> dict[str, Any]:
        """Return the program's own start."""
        own = dict(self.initial_values(rng_key, data))
        if self.graph.is_unconstrained:
            # what is drawn from a sparse prior rounds to its bounds, where the density is zero
            for name, parameter in self.graph.parameters.items():
                if parameter.is_prior:
                    own[name] = inside(parameter.constraint, own[name])
        return own

    def first(self, rng_key, data, given, constants, number) -> dict[str, Any]:
        """Return the parameters that start `number` of several begins at: given, or the program's
        own, or by a strategy; annealed.
        """
        values = {name: value for name, (value, _) in given.items()}
        is_given = {name: flag for name, (_, flag) in given.items()}
        flags = jnp.asarray(list(is_given.values()), bool)
        is_any_given = jnp.any(flags)

        def with_given(params):
            return {name: jnp.where(is_given[name], values[name], params[name]) for name in values}

        def completed():
            # given values go in before the draw, which reads them, and after it, which may set all
            own = with_given(self._own(rng_key, data))
            return with_given(self._drawn(rng_key, own, constants, number, is_any_given))

        def as_given():
            return {name: jnp.asarray(value) for name, value in values.items()}

        # a program's own start may take long, or fail: it is not computed where nobody asks for it
        all_given = jnp.all(flags)
        return self._annealed(jax.lax.cond(all_given, as_given, completed), constants)

    def _drawn(self, rng_key, own, constants, number, is_any_given) -> dict[str, Any]:
        """Return start `number` by the strategy asked for, or that the program states.

        Where none is, the first is the program's own, and all others are by what serves it best.
        """
        settings, args = self.settings, (self.graph, self.maximizers, rng_key, own, constants)
        name = settings.init if settings.init in START_STRATEGIES else self.stated
        is_several = settings.num_restarts > 1
        if name == SHORT_RUNS:
            drawn = various_start(*args, number, SEEDS_OF_SHORT_RUNS)
        elif is_several and settings.init is None and (name is None or varies(name, self.graph)):
            # a program that draws its own start has starts that differ, if none is better
            has_latents = self.graph.latents or self.graph.gaussians
            if not has_latents or (self.is_random and not varies(None, self.graph)):
                return own
            drawn = various_start(*args, jnp.maximum(number - (name is None), 0))
        elif name is None:
            return own
        else:
            drawn = START_STRATEGIES[name](*args)
        # values that are given go with the program's own, unless a strategy is asked for
        is_own = settings.init is None and (number == 0) & (is_any_given | (name is None))
        start = {}
        for site, value in drawn.items():
            # an M-step may lead to a bound, at which a start is refused
            value = allowed(self.graph.parameters[site].constraint, value)
            # a strategy draws whatever it can; what the user holds stays as it is
            start[site] = jnp.where(is_own | (site in settings.fixed), own[site], value)
        return start

    def _annealed(self, params, constants) -> dict[str, Any]:
        """Return where EM steps at the temperatures of the annealing lead.

        Source: Ueda & Nakano (1998), Neural Networks 11(2).
        """
        temperatures = jnp.asarray(self.numbers.annealing, jnp.result_type(float))
        # a scan of no steps would be compiled all the same
        if not temperatures.size:
            return params

        def step(state, temperature):
            return self.loop.step(state, constants, temperature)[0], None

        return jax.lax.scan(step, self.loop.state(params), temperatures)[0].params

    def start(self, rng_key, data: Sequence, given: Mapping, number: Any = 0) -> tuple[Start, list]:
        """Return the start, and what is computed of data alone (`FactorGraph.without_data`)."""
        start, constants = self._started(rng_key, data, given, number)
        return start, self.graph.without_data(constants)

    def _started(self, rng_key, data, given, number) -> tuple[Start, list]:
        constants = self.graph.prepare(data)
        params = self.first(rng_key, data, given, constants, number)
        return self._checked(params, constants), constants

    def _checked(self, params, constants) -> Start:
        violations = validation.violations(self.graph, constants)
        return Start(params, violations, validation.inspection(self.graph, params, constants))

    # ── whole runs ────────────────────────────────────────────────────────────────────────────────

    def update(self, state: EMState, data: Sequence) -> tuple[EMState, Float[Array, ""]]:
        """Return the state after one EM step, and the objective that entered it."""
        return self.loop.step(state, self.graph.prepare(data))

    def run(
        self, rng_key, data: Sequence, given: Mapping, number: Any = 0, stop_at: Any = None
    ) -> tuple[Start, End]:
        """Return the start and the end of a whole run, or of its first `stop_at` steps.

        Nothing is run where the data are bad; the checks then say why. The data are no output: that
        would copy them.
        """
        stop_at = self.numbers.max_steps + 1 if stop_at is None else stop_at
        start, constants = self._started(rng_key, data, given, number)
        are_good = jnp.all(jnp.asarray([count == 0 for count, _ in start.violations], bool))
        stop_at = jnp.where(are_good, stop_at, 0)
        at = self.loop.advance(self.loop.start(start.params), constants, stop_at)
        return start, self.end(at, constants, start.params)

    def advance(self, at: LoopState, constants: Sequence, stop_at: Any) -> LoopState:
        """Return where the loop stands after `stop_at` steps, or at its end."""
        return self.loop.advance(at, constants, stop_at)

    @property
    def leaping(self) -> Loop:
        """The loop that leaps ahead, where EM crawls."""
        return replace(self.loop, accelerator=self.loop.accelerator or squarem())

    def leap_ahead(self, at: LoopState, constants: Sequence, stop_at: Any) -> LoopState:
        """Return where the loop that leaps stands after `stop_at` steps, or at its end."""
        return self.leaping.advance(at, constants, stop_at)

    def end(self, at: LoopState, constants: Sequence, start: Mapping) -> End:
        """Return the end of a run from a start: polished, if that was asked for."""
        if self.settings.polish:
            at = self._polished(at, constants, self.settings.polish)
        return self.unpolished_end(at, constants, start)

    def unpolished_end(self, at: LoopState, constants: Sequence, start: Mapping) -> End:
        """Return the end of a run from a start, as it stands."""
        # without priors the objective of a soft E-step is the log-likelihood
        if self.settings.temperature == 1 and not self.graph.has_priors:
            likelihood = at.objective[at.num_steps]
        else:
            likelihood = self.log_likelihood(at.reported, constants)
        last = at.last_evaluated
        return End(at, likelihood, last, self.watch.sharpness(last, start, constants))

    def moved_densities(self, params, data: Sequence, moved: Sequence) -> list:
        """Return densities where the data are moved (`resolution`), None in place of scales.

        A scale of data that depend on Gaussian latents has a density, too.
        """
        constants, after = self.graph.prepare(data), self.graph.prepare(moved)
        return [
            moved_densities(self.graph, watch, params, constants, after)
            if watch.is_integrated or not watch.argument
            else None
            for watch in self.watch.watched
        ]

    def _polished(self, at: LoopState, constants: Sequence, method: str) -> LoopState:
        """Return where a polish leads, and EM's own steps from there, until they confirm it."""
        max_steps = self.numbers.max_steps
        at, plain = replace(at, leap=None), replace(self.loop, accelerator=None)
        params = polished(self.graph, self.loop.estimated, at.reported, constants, method)
        again = replace(
            plain.start(params), objective=at.objective, step=at.step + 1, reported=at.reported
        )
        # after the last step there is room for two more: the polish, and EM's own that confirms it
        again = plain.advance(again, constants, max_steps + 3, limit=max_steps + 2)
        # a polish that EM cannot go on from is not taken
        failed = has_failed(at.status) | has_failed(again.status)
        return jax.tree.map(lambda before, after: jnp.where(failed, before, after), at, again)

    def short_runs(
        self, rng_key, numbers, data: Sequence, given: Mapping, num_steps: Any
    ) -> tuple[dict[str, Array], LoopState, list]:
        """Return where several runs start, where each is then, and how sharp its densities are.

        All have one more axis in front, over the runs. `numbers`: theirs, 0, 1, ….
        """
        constants = self.graph.prepare(data)

        def short_run(numbered_key):
            key, number = numbered_key
            params = self.first(key, data, given, constants, number)
            at = self.loop.advance(self.loop.start(params), constants, num_steps)
            return params, at, self.watch.sharpness(at.reported, params, constants)

        numbered_keys = (jax.random.split(rng_key, len(numbers)), numbers)
        return in_batches(short_run, numbered_keys, batch_size(self.graph))

    def continued(self, starts, ends: LoopState, number, data: Sequence) -> tuple[Start, End]:
        """Return what `run` does, of one of several runs that started and stand somewhere."""
        params, at = jax.tree.map(lambda leaf: leaf[number], (starts, ends))
        constants = self.graph.prepare(data)
        at = self.loop.advance(at, constants, self.numbers.max_steps + 1)
        return self._checked(params, constants), self.end(at, constants, params)

    # ── what can be asked ─────────────────────────────────────────────────────────────────────────

    def log_likelihood(
        self, params: Mapping, constants: Sequence, temperature: Any = 1.0
    ) -> Float[Array, ""]:
        """Return log p(x | params) in nats, priors left out.

        At temperature 0 it is max_z log p(x, z | params).
        """
        arrays = self.graph.arrays(params, constants)
        return log_partition_of(
            self.graph, arrays, lambda term: not term.site.is_prior, temperature
        )

    def objective(self, params: Mapping, constants: Sequence) -> Float[Array, ""]:
        """Return log p(x | params) + log p(params) in nats."""
        return log_partition_of(self.graph, self.graph.arrays(params, constants))

    def posterior(
        self, params: Mapping, constants: Sequence, temperature: Any = None
    ) -> dict[str, Any]:
        """Return p(latent | data) of every latent: its shape, then its support.

        Of a Gaussian one, its mean and its covariance. `temperature`: None for that of the E-step.
        """
        temperature = self.loop.temperature if temperature is None else temperature
        arrays = self.graph.arrays(params, constants)
        moments = gaussian_posterior(self.graph, arrays)
        return {**posterior(self.graph, arrays, temperature), **moments}

    def posterior_and_means(self, params: Mapping, constants: Sequence) -> dict[str, Any]:
        """Return the posterior of every latent, and the means of what no observation depends on."""
        arrays = self.graph.arrays(params, constants)
        means = posterior_means(self.graph, arrays, self.loop.temperature)
        return {**self.posterior(params, constants), **means}

    def modes(self, params: Mapping, constants: Sequence) -> dict[str, Array]:
        """Return the most probable joint assignment of all latents, each of its site's shape.

        Gaussian ones are integrated out of that, and have their mean given it.
        """
        arrays = self.graph.arrays(params, constants)
        values = gaussian_means(self.graph, arrays, 0.0)
        # at temperature zero all probability is at the mode
        for name, is_mode in posterior(self.graph, arrays, 0.0).items():
            support = jnp.asarray(self.graph.latents[name].support)
            values[name] = support[jnp.argmax(is_mode, -1)]
        return values

    def pairwise_posterior(self, params: Mapping, constants: Sequence) -> dict[str, Array]:
        """Return p(latent at t, latent at t + 1 | data) of every latent within a `scan`."""
        arrays = self.graph.arrays(params, constants)
        return pairwise_posterior(self.graph, arrays, self.loop.temperature)
