"""Two programs fitted to data that one of them draws again and again, all in one function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array

from emjax.answers.reweighted import from_one_start
from emjax.classes.likelihood_ratio import check_rows_count_once
from emjax.graph.factor_graph import FactorGraph
from emjax.program.handlers.labels import Label, SoftLabel
from emjax.refits.bootstrap import observing, shapes_drawn, simulated
from emjax.run.annotations import Params
from emjax.run.batches import batch_size, in_batches
from emjax.run.bound import Bound
from emjax.run.collapse import sharpest
from emjax.run.compiled import CompiledProgram
from emjax.run.pure import End, PureProgram
from emjax.run.resolution import moves_of
from emjax.run.state import NOT_CONVERGED, RUNNING, has_failed

# of each replicate, beside the larger program's estimate; the best of them goes on
NUM_STARTS = 8
STEPS_OF_A_START = 20
# replicates side by side: each waits for the slowest of them
MOST_AT_ONCE = 16


@dataclass(frozen=True, eq=False)
class PairOfPrograms:
    """Two programs of what is drawn and of the rest of their data.

    - `smaller`, `larger`: the programs; `params`, `rest`: the estimate and the rest of each.
    - `draw`, `sources`: (random key, *sources) → what is drawn.
    - `num_starts`: of the larger program on a replicate, beside its estimate.
    """

    smaller: CompiledProgram
    larger: CompiledProgram
    params: tuple[Mapping[str, Array], Mapping[str, Array]]
    rest: tuple[list, list]
    draw: Callable
    sources: tuple
    num_starts: int

    @staticmethod
    def of(
        bound: Bound, fit: Params, of_larger: Bound, larger: Params, keys: Array, num_starts: Any
    ) -> PairOfPrograms:
        """Return the programs of two fits, to be fitted to what that of `fit` draws."""
        _check_can_be_drawn(bound.compiled.graph)
        params = bound.checked(fit), of_larger.checked(larger)
        draw, sources = simulated(bound), (params[0], bound.data)
        example = shapes_drawn(draw, keys, sources)
        _check_same_sites(example, of_larger.compiled.graph)
        settings = of_larger.compiler.settings
        if num_starts is None:
            num_starts = settings.num_restarts if settings.num_restarts > 1 else NUM_STARTS
        one_start = from_one_start(bound.compiler.settings) | _accelerated(bound)
        smaller, rest = observing(bound, example, **one_start)
        several = {"num_restarts": max(2, int(num_starts))} | _accelerated(of_larger)
        several, rest_of_larger = observing(of_larger, example, **several)
        rests = rest, rest_of_larger
        return PairOfPrograms(smaller, several, params, rests, draw, sources, int(num_starts))

    def likelihood_ratios(self, keys: Array) -> tuple[np.ndarray, int]:
        """Return the likelihood ratio of each replicate, and in how many a fit did not converge."""
        pure, of_larger, draw = self.smaller.pure, self.larger.pure, self.draw
        num_starts = self.num_starts

        def all_refitted(keys, sources, rests, params):
            def refitted(key):
                of_draw, of_starts = jax.random.split(key)
                drawn = jax.tree.leaves(draw(of_draw, *sources))
                _, end = pure.run(of_draw, [*drawn, *rests[0]], self.smaller.given(params[0]))
                data = [*drawn, *rests[1]]
                end_of_larger = _best_of_several(of_larger, of_starts, data, params[1], num_starts)
                return _told(end), _told(end_of_larger)

            lanes = min(MOST_AT_ONCE, batch_size(of_larger.graph))
            return in_batches(refitted, keys, lanes)

        # what is compiled depends on both programs
        key = ("likelihood ratio", self.larger, num_starts)
        refit = self.smaller.function(key, lambda: all_refitted, is_called_once=True)
        ends = jax.device_get(refit(keys, self.sources, self.rest, self.params))
        failed = np.zeros(len(keys), bool)
        for compiled, rest, end in zip((self.smaller, self.larger), self.rest, ends, strict=True):
            failed |= self._have_failed(compiled, keys, rest, end)
        likelihoods = [np.asarray(end["log_likelihood"], float) for end in ends]
        ratios = np.where(failed, np.nan, 2 * (likelihoods[1] - likelihoods[0]))
        unconverged = np.any([np.isin(end["status"], NOT_CONVERGED) for end in ends], axis=0)
        return ratios, int((unconverged & ~failed).sum())

    def _have_failed(
        self, compiled: CompiledProgram, keys: Array, rest: list, ends: Mapping[str, Any]
    ) -> np.ndarray:
        """Return which fits have no maximum, (replicate,)."""
        failed = has_failed(ends["status"]) | ~np.isfinite(ends["log_likelihood"])
        leaves, tree = jax.tree.flatten((ends["params"], ends["sharpness"]))
        for number, of_replicate in enumerate(zip(*leaves, strict=True)):
            params, sharpness = jax.tree.unflatten(tree, of_replicate)

            # asked for only where sharpness does not tell
            def falls(number=number, params=params):
                of_draw, _ = jax.random.split(keys[number])
                data = [*jax.tree.leaves(self.draw(of_draw, *self.sources)), *rest]
                return compiled.falls(params, data, moves_of(data))

            failed[number] |= bool(compiled.watch.collapsed(sharpness, falls))
        return failed


def _accelerated(bound: Bound) -> dict[str, Any]:
    """Return the settings that differ in replicates: leaps from the first step, where the user
    says nothing of them.

    Two classes that are one part slowly: plain EM takes a thousand steps, SQUAREM a tenth of them.
    """
    settings = bound.compiler.settings
    may_leap = settings.leaps_where_it_crawls
    return {"acceleration": "squarem" if may_leap else settings.acceleration}


def _told(end: End) -> dict[str, Any]:
    """Return what is to be known of the end of a fit."""
    return {
        "log_likelihood": end.log_likelihood,
        "status": end.at.status,
        "params": dict(end.at.reported),
        "sharpness": end.sharpness,
    }


def _best_of_several(
    pure: PureProgram, rng_key: Array, data: list, estimate: Mapping, num_starts: int
) -> End:
    """Return the end of the best of several starts, one of which is an estimate; pure.

    Short runs, and the one that goes on from the best of them, are turns of one loop: its steps are
    compiled once.
    """
    keys = jax.random.split(rng_key, num_starts + 1)
    # a last turn, which starts nowhere
    turns = jnp.arange(num_starts + 2), jnp.concatenate([keys, keys[:1]])
    constants, all_steps = pure.graph.prepare(data), pure.numbers.max_steps + 1

    def turn(best, numbered_key):
        number, key = numbered_key
        given = {name: (value, number == num_starts) for name, value in estimate.items()}
        params = pure.first(key, data, given, constants, number)
        is_last = number > num_starts
        fresh = params, pure.loop.start(params)
        first, at = jax.tree.map(lambda *two: jnp.where(is_last, *two), best[:2], fresh)
        stop_at = jnp.where(is_last, all_steps, jnp.minimum(STEPS_OF_A_START, all_steps))
        at = pure.advance(at, constants, stop_at)
        sharpness = pure.watch.sharpness(at.reported, first, constants)
        # the likelihood has no bound where something collapses: such a start is the last choice
        rank = jnp.stack([~_is_sharp(sharpness), _height(at)])
        is_better = (
            is_last | (rank[0] > best[2][0]) | ((rank[0] == best[2][0]) & (rank[1] > best[2][1]))
        )
        return jax.tree.map(lambda *two: jnp.where(is_better, *two), (first, at, rank), best), None

    params = {name: jnp.asarray(value) for name, value in estimate.items()}
    worst = params, pure.loop.start(params), jnp.asarray([-1.0, -jnp.inf])
    (first, at, _), _ = jax.lax.scan(turn, worst, turns)
    return pure.end(at, constants, first)


def _height(at: Any) -> Array:
    """Return the last objective of a run, −∞ where it failed."""
    # a run that goes on has not evaluated the objective where it stands
    last = jnp.maximum(at.num_steps - (at.status == RUNNING), 0)
    height = at.objective[last]
    return jnp.where(has_failed(at.status) | jnp.isnan(height), -jnp.inf, height)


def _is_sharp(sharpness: list) -> Array:
    """Whether a density is as sharp as one that has collapsed."""
    are_sharp = [jnp.any(~(sharp <= sharpest(sharp.dtype))) for sharp, _ in sharpness]
    return jnp.any(jnp.asarray(are_sharp, bool))


# ── what cannot be drawn ──────────────────────────────────────────────────────────────────────────


def _check_can_be_drawn(graph: FactorGraph) -> None:
    """Raise `ValueError` for a program that cannot draw its own data."""
    check_rows_count_once(graph)
    for term in graph.terms:
        site = term.site
        if site.distribution in (Label, SoftLabel):
            raise ValueError(
                f"Site '{site.name}' holds labels, and which rows have one is not drawn. Fit "
                "without them."
            )
        if site.is_observed and site.distribution is dist.Unit:
            raise ValueError(
                f"Site '{site.name}' is a numpyro.factor, from which no data can be drawn. "
                "State the distribution: numpyro.sample(..., obs=x)."
            )


def _check_same_sites(example: Mapping, graph: FactorGraph) -> None:
    observed = {term.site.name for term in graph.terms if term.site.is_observed}
    if observed != set(example):
        first, second = (", ".join(map(repr, sorted(names))) for names in (example, observed))
        raise ValueError(
            f"The two programs observe different sites, {first} and {second}, so that what one "
            "draws is no data of the other."
        )
