"""The parametric bootstrap likelihood-ratio test of a number of classes against a larger one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float

from emjax.answers.reweighted import from_one_start
from emjax.classes.likelihood_ratio import (
    NEGLIGIBLE,
    Fitted,
    check_fits,
    check_rows_count_once,
    findings_of,
    statistic_of,
)
from emjax.graph.factor_graph import FactorGraph
from emjax.program.handlers.labels import Label, SoftLabel
from emjax.refits.bootstrap import observing, shapes_drawn, simulated
from emjax.run import verdicts
from emjax.run.annotations import Params, Whole
from emjax.run.batches import batch_size, in_batches
from emjax.run.bound import Bound, checked_key
from emjax.run.collapse import sharpest
from emjax.run.columns import Column, Table, lines_of
from emjax.run.compiled import CompiledProgram
from emjax.run.findings import Finding
from emjax.run.pure import End, PureProgram
from emjax.run.resolution import moves_of
from emjax.run.state import NOT_CONVERGED, RUNNING, has_failed

CALL = "emjax.bootstrap_likelihood_ratio(fit_of_2, fit_of_3, jax.random.key(0))"
# of each replicate, beside the larger program's estimate; the best of them goes on
NUM_STARTS = 8
STEPS_OF_A_START = 20
# replicates side by side: each waits for the slowest of them
MOST_AT_ONCE = 16
QUANTILES = (0.5, 0.9, 0.95, 0.99)


class BootstrapLikelihoodRatio(eqx.Module, Table):
    """A likelihood ratio beside those of data that the smaller program draws; it prints as a table.

    **Attributes:**

    - `statistic`: LR = 2 (log p(x | larger) − log p(x | smaller)), in nats, of the data.
    - `replicates`: the same of each replicate; NaN where a fit failed or something has collapsed.
    - `num_unconverged`: in how many replicates a fit stopped before it had converged; these count.
    - `findings`: what is to be known of the fits and of the replicates.
    """

    statistic: float
    replicates: Float[np.ndarray, "replicate"]
    num_unconverged: int
    findings: tuple[Finding, ...] = eqx.field(static=True, default=())

    @property
    def num_failed(self) -> int:
        """In how many replicates there is no likelihood ratio; they are left out."""
        return int(np.isnan(self.replicates).sum())

    @property
    def num_negative(self) -> int:
        """In how many replicates the larger program came to no better optimum than the smaller."""
        return int((self.replicates < -NEGLIGIBLE).sum())

    @property
    def p_value(self) -> float:
        """(1 + #{LR* ≥ LR}) / (B + 1), of the B replicates that count."""
        num_counted = len(self.replicates) - self.num_failed
        return (1 + int((self.replicates >= self.statistic).sum())) / (num_counted + 1)

    @property
    def standard_error(self) -> float:
        """The Monte Carlo standard error of the p-value."""
        num_counted = len(self.replicates) - self.num_failed
        return float(np.sqrt(self.p_value * (1 - self.p_value) / (num_counted + 1)))

    def __str__(self) -> str:
        num_counted = len(self.replicates) - self.num_failed
        lines = [
            f"likelihood ratio {self.statistic:.4f}, p = {self.p_value:.4f} ± "
            f"{self.standard_error:.4f}, of {num_counted} replicates drawn by the smaller program",
            *(f"  {line}" for line in lines_of(self._columns())),
        ]
        return "\n".join([*lines, *map(str, self.findings)])

    def _columns(self) -> list[Column]:
        """Return a row for each quantile of the replicates."""
        # without a single one there is nothing to order
        quantiles = np.full(len(QUANTILES), np.nan)
        if self.num_failed < len(self.replicates):
            quantiles = np.nanquantile(self.replicates, QUANTILES)
        return [
            Column("quantile", QUANTILES, ".0%"),
            Column("likelihood_ratio", quantiles, ".4f"),
        ]


def bootstrap_likelihood_ratio(
    fit: Fitted,
    larger: Fitted,
    rng_key: Any,
    *,
    num_replicates: Whole = 100,
    num_starts: Whole | None = None,
) -> BootstrapLikelihoodRatio:
    """Return the parametric bootstrap likelihood-ratio test (BLRT) of two fits to the same data.

    Whether K classes are enough: `fit` is of K, `larger` of K + 1 (of any program that has more
    parameters). Data are drawn from the program of `fit` at its estimate, and both programs fitted
    to each replicate, all in one compiled function. The likelihood ratio has no χ² distribution
    here, since K + 1 classes are K where two are alike, or one is empty.

    On a replicate the smaller program starts at its estimate; the larger at its own and at
    `num_starts` others, drawn as its settings and the program say (default: as many as its
    `num_restarts`, or 8), of which the best after 20 steps goes on; both are accelerated (SQUAREM).
    What the programs take as arguments other than observations stays as it is. With
    `num_replicates` B, the least p-value that can be is 1 / (B + 1).

    Errors: `ValueError` for fits of different data or sites, for a hard E-step, for rows with
    multiplicities or sampling weights, and for labels and `numpyro.factor`, which are not drawn.

    In a simulation of two latent classes its p-values are uniform (docs/class_number.md). Source:
    McLachlan (1987), Applied Statistics 36; Nylund, Asparouhov & Muthén (2007), Structural
    Equation Modeling 14.

    ```python
    from functools import partial

    from emjax.models import latent_class

    says_yes = jnp.where(jnp.arange(60) < 30, 0.8, 0.3)[:, None]
    answers = jax.random.bernoulli(jax.random.key(1), says_yes, (60, 4)).astype(int)
    ems = [EM(partial(latent_class.program, num_classes=k)) for k in (1, 2)]
    fits = [em.run(jax.random.key(0), answers) for em in ems]
    print(emjax.bootstrap_likelihood_ratio(*fits, jax.random.key(0), num_replicates=20))
    ```
    """
    check_fits(CALL, fit, larger)
    for name, number in (("num_replicates", num_replicates), ("num_starts", num_starts)):
        is_whole = isinstance(number, int | np.integer) and not isinstance(number, bool)
        if number is not None and not (is_whole and number >= 1):
            raise ValueError(f"{name} must be a whole number of at least 1, not {number!r}.")
    key = checked_key(rng_key, f"rng_key is a random key: {CALL}.")
    keys = jax.random.split(key, int(num_replicates))

    def question(bound: Bound) -> BootstrapLikelihoodRatio:
        pair = _Pair.of(bound, fit, larger.on(), larger, keys, num_starts)
        replicates, num_unconverged = pair.likelihood_ratios(keys)
        found = findings_of(fit, larger)
        found += findings_of_replicates(replicates, num_unconverged)
        return BootstrapLikelihoodRatio(
            statistic_of(fit, larger), replicates, num_unconverged, tuple(found)
        )

    return fit.on().in_its_precision(question)


def findings_of_replicates(replicates: np.ndarray, num_unconverged: int) -> list[Finding]:
    found, total = [], len(replicates)
    num_failed, num_negative = (
        int(np.isnan(replicates).sum()),
        int((replicates < -NEGLIGIBLE).sum()),
    )
    if num_failed:
        found.append(verdicts.failed_replicates(num_failed, total))
    if num_unconverged:
        found.append(verdicts.unconverged_replicates(num_unconverged, total))
    if num_negative:
        found.append(verdicts.negative_replicates(num_negative, total))
    return found


@dataclass(frozen=True, eq=False)
class _Pair:
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
    ) -> _Pair:
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
        return _Pair(smaller, several, params, rests, draw, sources, int(num_starts))

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
    """Return the settings that differ in replicates: leaps, where the user asked for none.

    Two classes that are one part slowly: plain EM takes a thousand steps, SQUAREM a tenth of them.
    """
    own = bound.compiler.settings.acceleration
    return {"acceleration": "squarem" if own is None else own}


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
