"""Refits of a program to data that were drawn again, all compiled together.

Drawn are rows, with replacement, or the program's own data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array
from numpyro import handlers
from numpyro.primitives import Messenger

from emjax.answers.reweighted import Reweighted, from_one_start
from emjax.certificates.estimate import Estimate
from emjax.e_step.marginals import posterior
from emjax.graph.factor_graph import FactorGraph
from emjax.program.arguments import split_arguments
from emjax.program.handlers.labels import Label, SoftLabel
from emjax.program.latents import layers_of
from emjax.run.batches import batch_size, in_batches
from emjax.run.bound import Bound
from emjax.run.compiled import CompiledProgram
from emjax.run.resolution import moves_of
from emjax.run.state import NOT_CONVERGED, Status, has_failed

# refits side by side: each waits for the slowest, and this many fill the machine
MOST_AT_ONCE = 64


@dataclass(frozen=True, eq=False)
class Refits:
    """Parameters fitted to data drawn again.

    - `draws`: {site: (draw, …)}.
    - `status`: why each fit stopped, (draw,).
    - `agreement`: {latent: (draw, value of the estimate, value of the draw)}, as
      `with_labels_of_estimate` takes it.
    """

    draws: Mapping[str, np.ndarray]
    status: np.ndarray
    agreement: Mapping[str, np.ndarray]

    @property
    def has_failed(self) -> np.ndarray:
        """Which of them have no estimate, (draw,): what has collapsed has none, either."""
        return np.asarray(has_failed(self.status)) | (self.status == Status.COLLAPSED)

    @property
    def num_unconverged(self) -> int:
        """How many stopped before they had converged."""
        return int(np.isin(self.status, NOT_CONVERGED).sum())


@dataclass(frozen=True, eq=False)
class Redrawing:
    """How data are drawn again, and the program that is fitted to them.

    - `compiled`: the program of (what is drawn, the rest of the data).
    - `draw`: (one of the keys, *`sources`) → what is drawn, a tree of arrays; pure.
    - `sources`: what is drawn from, trees of arrays.
    - `rest`: the data that stay as they are.
    - `name`: tells it from others of the same program.
    """

    compiled: CompiledProgram
    draw: Callable
    sources: tuple
    rest: list
    name: str = ""


def refits(redrawing: Redrawing, estimate: Estimate, keys: Any, latents: Sequence[str]) -> Refits:
    """Return a program refitted to the data drawn with each key, from the estimate.

    All are runs of one compiled function. `keys`: random keys, or whatever tells one draw from
    another. `latents`: those whose posteriors are compared with the
    estimate's, on the data as they are.
    """
    compiled, draw, graph = redrawing.compiled, redrawing.draw, estimate.graph

    def all_refitted(keys, data, params, own_data):
        sources, rest = data
        constants = graph.prepare(own_data)
        at_estimate = _posteriors(graph, params, constants, latents)

        def refitted(key):
            drawn = jax.tree.leaves(draw(key, *sources))
            # every parameter is given: nothing is drawn for the start
            _, end = compiled.pure.run(jax.random.key(0), [*drawn, *rest], compiled.given(params))
            at_draw = _posteriors(graph, end.at.reported, constants, latents)
            # a small table: the posteriors of a draw are as large as the data
            agreement = {name: at_estimate[name].T @ at_draw[name] for name in latents}
            return dict(end.at.reported), end.at.status, agreement, end.sharpness

        # side by side they advance in step, at the pace of the slowest: many at once are no gain
        return in_batches(refitted, keys, min(MOST_AT_ONCE, batch_size(compiled.graph)))

    name = ("refits", redrawing.name, tuple(latents))
    refit = compiled.function(name, lambda: all_refitted)
    data = (redrawing.sources, redrawing.rest)
    outcomes = refit(keys, data, estimate.params, estimate.bound.data)
    draws, status, agreement, sharpness = jax.device_get(outcomes)
    # a component that is alone with copies of one row collapses, and its objective is finite
    has_collapsed = _have_collapsed(redrawing, keys, draws, sharpness)
    status = np.where(has_collapsed & ~has_failed(status), Status.COLLAPSED, status)
    return Refits(draws, status, agreement)


def _have_collapsed(redrawing: Redrawing, keys: Any, draws: Mapping, sharpness) -> np.ndarray:
    """Return in which refits something has collapsed, (draw,). `sharpness`: of their densities."""
    compiled = redrawing.compiled
    leaves, tree = jax.tree.flatten((draws, sharpness))
    have = np.zeros(len(keys), bool)
    for number, of_draw in enumerate(zip(*leaves, strict=True)):
        params, sharp = jax.tree.unflatten(tree, of_draw)

        # asked for only where sharpness does not tell
        def falls(number=number, params=params):
            drawn = jax.tree.leaves(redrawing.draw(keys[number], *redrawing.sources))
            data = [*drawn, *redrawing.rest]
            return compiled.falls(params, data, moves_of(data))

        have[number] = bool(compiled.watch.collapsed(sharp, falls))
    return have


def _posteriors(graph: FactorGraph, params, constants, latents: Sequence[str]) -> dict:
    """Return the posteriors of some latents, (elements, values) each."""
    # the E-step that compares labels is spared where no label can be exchanged
    if not latents:
        return {}
    posteriors = posterior(graph, graph.arrays(params, constants))
    return {name: posteriors[name].reshape(-1, posteriors[name].shape[-1]) for name in latents}


# ── rows with replacement ─────────────────────────────────────────────────────────────────────────


def resampled(
    weighted: Reweighted,
    estimate: Estimate,
    keys: Any,
    latents: Sequence[str],
    has_data: np.ndarray,
) -> Refits:
    """Return a program refitted to its units drawn with replacement. Source: Efron (1979).

    `has_data`: whether anything is observed of each unit.
    """
    size, observed = weighted.units.size, np.flatnonzero(has_data)

    def counts(key, observed):
        # of rows that are masked there is nothing to draw
        drawn = observed[jax.random.randint(key, observed.shape, 0, len(observed))]
        return jnp.bincount(drawn, length=size).astype(jnp.result_type(float))

    # a draw with replacement is the same data with other counts, so that shapes stay
    redrawing = Redrawing(weighted.compiled, counts, (observed,), weighted.data)
    return refits(redrawing, estimate, keys, latents)


# ── the program's own draws ───────────────────────────────────────────────────────────────────────


class Simulated(Messenger):
    """Draw every observed site from its distribution, within a `scan` as well.

    - `params`: the parameters to draw at.
    - `observed`: collects the names of the sites.
    """

    def __init__(self, fn: Callable, params: Mapping[str, Any], observed: set):
        self.params, self.observed = params, observed
        super().__init__(fn)

    def process_message(self, msg: dict[str, Any]) -> None:
        """Replace what the program observes, and its parameters."""
        if msg["type"] == "control_flow" and "history" in msg["kwargs"]:
            step, *others = msg["args"]
            msg["args"] = (Simulated(step, self.params, self.observed), *others)
        if msg["type"] == "param":
            msg["value"] = self.params[msg["name"]]
        # the sites of a `scan` are seen again when it is done
        if msg["type"] == "sample" and msg["is_observed"] and not msg.get("_control_flow_done"):
            _check_can_be_drawn(msg["name"], msg["fn"])
            self.observed.add(msg["name"])
            msg["value"], msg["is_observed"] = None, False


def _check_can_be_drawn(name: str, distribution: Any) -> None:
    core = layers_of(distribution).core
    if isinstance(core, dist.Unit):
        raise ValueError(
            f"Site '{name}' is a numpyro.factor, from which no data can be drawn. "
            "Use method='bootstrap' or 'information'."
        )
    if isinstance(core, Label | SoftLabel):
        raise ValueError(
            f"Site '{name}' holds labels: which rows have one is not drawn. Use "
            "method='bootstrap' or 'information'."
        )


def simulated(bound: Bound) -> Callable:
    """Return a function of (key, params, data) that draws the observed sites: {site: value}.

    `data`: the arrays among the program's arguments (`bound.data`).
    """
    _, rebuild = split_arguments(*bound.arguments, bound.looks_at_values)
    model, parameters = bound.compiler.model, bound.compiled.graph.parameters

    def draw(key, params, data) -> dict:
        estimated = {name: params[name] for name, p in parameters.items() if p.is_prior}
        observed: set = set()
        drawing = Simulated(model, params, observed)
        program = handlers.seed(handlers.substitute(drawing, data=estimated), key)
        args, kwargs = rebuild(data)
        # what is drawn is valid, and traced: nothing could be validated
        with numpyro.validation_enabled(False):
            trace = handlers.trace(program).get_trace(*args, **kwargs)
        return {name: trace[name]["value"] for name in sorted(observed)}

    return draw


def redrawn(estimate: Estimate, keys: Array, latents: Sequence[str]) -> Refits:
    """Return a program refitted to data that it draws itself at an estimate."""
    bound = estimate.bound
    _check_no_copies(estimate.graph)

    draw, sources = simulated(bound), (estimate.params, bound.data)
    changes = from_one_start(bound.compiler.settings)
    compiled, rest = observing(bound, shapes_drawn(draw, keys, sources), **changes)
    return refits(Redrawing(compiled, draw, sources, rest), estimate, keys, latents)


def shapes_drawn(draw: Callable, keys: Array, sources: tuple) -> dict:
    """Return data of the shapes that are drawn, whatever their values: {site: array}."""
    shapes = jax.eval_shape(lambda keys: draw(keys[0], *sources), keys)
    return jax.tree.map(lambda array: np.zeros(array.shape, array.dtype), shapes)


def observing(
    bound: Bound, example: Mapping[str, Any], **changes: Any
) -> tuple[CompiledProgram, list]:
    """Return the program of (what its sites observe, the rest of its data), and that rest.

    `example`: {site: data of the shape that it observes}; `changes`: the settings that differ.
    """

    def program(observed, *args, **kwargs):
        return handlers.condition(bound.compiler.model, data=observed)(*args, **kwargs)

    conditioned = bound.extended(("observing", *example), program, dict(example), **changes)
    return conditioned.compiled, conditioned.data[len(example) :]


def _check_no_copies(graph: FactorGraph) -> None:
    for term in graph.terms:
        if term.site.outputs.sampling is not None:
            raise ValueError(
                f"Site '{term.site.name}' has sampling weights, and the program draws no sample of "
                "a population. Use method='linearization', 'jackknife' or 'bootstrap'."
            )
        if term.site.outputs.multiplicity is not None:
            raise ValueError(
                f"Site '{term.site.name}' counts copies (handlers.scale), "
                "and the program draws one datum for all copies of a row. "
                "Pass the rows one by one, np.repeat(rows, count), or use method='information'."
            )
