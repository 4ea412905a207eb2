"""Refits of a program to data that were drawn again: rows with replacement, or the program's own
draws; all compiled together.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.primitives import Messenger

from emjax.e_step.marginals import posterior
from emjax.program.arguments import split_arguments
from emjax.program.handlers.labels import Label, SoftLabel
from emjax.program.handlers.plates import Units
from emjax.program.latents import layers_of
from emjax.run.batches import batch_size, in_batches
from emjax.run.bound import Bound
from emjax.run.loop import Status, has_failed

MOST_AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class Refits:
    """Parameters fitted to data drawn again: `draws` {site: (draw, …)}, `status` (draw,),
    `agreement` as in `aligned`.
    """

    draws: Mapping[str, np.ndarray]
    status: np.ndarray
    agreement: Mapping[str, np.ndarray]

    @property
    def has_failed(self) -> np.ndarray:
        return np.asarray(has_failed(self.status))

    @property
    def num_unconverged(self) -> int:
        return int((self.status == Status.MAX_STEPS).sum())


def for_refits(bound: Bound, key: Hashable, program: Callable, first: Any) -> Bound:
    """Return program(first, *args, **kwargs) bound to the same data, to be run from one start.

    `key` identifies the program among those made of the bound one.
    """
    init = bound.compiler.settings.init
    return bound.extended(
        ("refits", key),
        program,
        first,
        init=None if isinstance(init, str) else init,
        num_restarts=1,
        annealing=(),
    )


def refits(
    bound: Bound,
    first_of: Callable,
    given: tuple,
    base: Bound,
    constants,
    params,
    keys,
    latents: Sequence[str],
) -> Refits:
    """Return the program refitted to the data (first_of(key, *given), *rest) for each key, from
    `params`; all in one compiled function.

    `given`: what the data are drawn from, and the rest of the data; `base`, `constants`: the
    program on the data as they are, at which the posteriors of `latents` are compared.
    """
    compiled, graph = bound.compiled, base.compiled.graph

    def posteriors(params, constants) -> dict:
        found = posterior(graph, graph.arrays(params, constants)) if latents else {}
        return {name: found[name].reshape(-1, found[name].shape[-1]) for name in latents}

    def all_refitted(keys, given, constants, params):
        here = posteriors(params, constants)

        def refitted(key):
            first = jax.tree.leaves(first_of(key, *given))
            _, end = compiled.pure.run(key, [*first, *given[-1]], compiled.given(params))
            own = posteriors(end.at.reported, constants)
            return (
                dict(end.at.reported),
                end.at.status,
                {name: here[name].T @ own[name] for name in latents},
            )

        # side by side they advance in step, at the pace of the slowest: many at once are no gain
        return in_batches(refitted, keys, min(MOST_AT_ONCE, batch_size(compiled.graph)))

    refit = compiled.function(("refits", tuple(latents)), lambda: all_refitted)
    draws, status, agreement = jax.tree.map(np.asarray, refit(keys, given, constants, params))
    return Refits(draws, status, agreement)


# ── rows with replacement ─────────────────────────────────────────────────────────────────────────


def resampled(bound: Bound, units: Units, params, constants, keys, latents) -> Refits:
    """Return the program refitted to its units drawn with replacement. Source: Efron (1979)."""
    size = units.size
    weighted = for_refits(bound, units.key, units.weighted(bound.compiler.model), jnp.ones(size))

    def counts(key, data):
        return jnp.bincount(jax.random.randint(key, (size,), 0, size), length=size).astype(
            jnp.result_type(float)
        )

    return refits(weighted, counts, (weighted.data[1:],), bound, constants, params, keys, latents)


# ── the program's own draws ───────────────────────────────────────────────────────────────────────


class Simulated(Messenger):
    """Draw every observed site from its distribution, within a `scan` as well; `observed` collects
    their names.
    """

    def __init__(self, fn: Callable, params: Mapping[str, Any], observed: set):
        self.params, self.observed = params, observed
        super().__init__(fn)

    def process_message(self, msg):
        if msg["type"] == "control_flow" and "history" in msg["kwargs"]:
            step, *others = msg["args"]
            msg["args"] = (Simulated(step, self.params, self.observed), *others)
        if msg["type"] == "param":
            msg["value"] = self.params[msg["name"]]
        if msg["type"] == "sample" and msg["is_observed"] and not msg.get("_control_flow_done"):
            if isinstance(layers_of(msg["fn"]).core, dist.Unit):
                raise ValueError(
                    f"Site '{msg['name']}' is a numpyro.factor, from which no data can be drawn. "
                    "Use method='bootstrap' or 'information'."
                )
            if isinstance(layers_of(msg["fn"]).core, Label | SoftLabel):
                raise ValueError(
                    f"Site '{msg['name']}' holds labels: which rows have one is not drawn. Use "
                    "method='bootstrap' or 'information'."
                )
            self.observed.add(msg["name"])
            msg["value"], msg["is_observed"] = None, False


def simulated(bound: Bound) -> Callable:
    """Return a function of (key, params, data) that draws the observed sites: {site: value}.

    `data`: the arrays among the program's arguments (`bound.data`).
    """
    _, rebuild = split_arguments(bound.args, bound.kwargs, bound.looks_at_values)
    model, parameters = bound.compiler.model, bound.compiled.graph.parameters

    def draw(key, params, data) -> dict:
        estimated = {name: params[name] for name, p in parameters.items() if p.is_prior}
        observed: set = set()
        drawing = Simulated(model, params, observed)
        program = handlers.seed(handlers.substitute(drawing, data=estimated), key)
        args, kwargs = rebuild(data)
        with numpyro.validation_enabled(False):
            trace = handlers.trace(program).get_trace(*args, **kwargs)
        return {name: trace[name]["value"] for name in sorted(observed)}

    return draw


def redrawn(bound: Bound, params, constants, keys, latents) -> Refits:
    """Return the program refitted to data that it draws itself at `params`."""
    for term in bound.compiled.graph.terms:
        if term.site.outputs.multiplicity is not None:
            raise ValueError(
                f"Site '{term.site.name}' counts copies (handlers.scale), and the program draws "
                "one datum for all copies of a row. Pass the rows one by one, "
                "np.repeat(rows, count), or use method='information'."
            )

    def program(first, *args, **kwargs):
        return handlers.condition(bound.compiler.model, data=first)(*args, **kwargs)

    draw = simulated(bound)
    shapes = jax.eval_shape(draw, keys[0], params, bound.data)
    example = jax.tree.map(lambda array: np.zeros(array.shape, array.dtype), shapes)
    conditioned = for_refits(bound, "redrawn", program, example)
    rest = conditioned.data[len(example) :]

    def first_of(key, params, data, rest):
        return draw(key, params, data)

    given = (params, bound.data, rest)
    return refits(conditioned, first_of, given, bound, constants, params, keys, latents)
