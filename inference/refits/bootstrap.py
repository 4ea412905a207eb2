"""Refits of a program to data that were drawn again: rows with replacement, or the program's own
draws; all compiled together.
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
from numpyro import handlers
from numpyro.primitives import Messenger

from emjax.e_step.e_step import posterior
from emjax.em import EM
from emjax.program.arguments import split_arguments
from emjax.program.handlers.labels import Label, SoftLabel
from emjax.program.handlers.weights import Units
from emjax.program.latents import layers_of
from emjax.run.batches import batch_size, in_batches
from emjax.run.compiled import Compiled
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


def compiled_with(
    em: EM, key: Any, program: Callable, first: Any, args, kwargs
) -> tuple[Compiled, list]:
    """Return program(first, *args, **kwargs) compiled with the settings of an EM, and the arrays
    among `args` and `kwargs`. `first` stays traced even where the program looks at the values of
    its other arguments. `key` identifies the program among those made of the EM's own.

    Errors: `ValueError` for a program that looks at the values of `first`, too.
    """
    count = len(jax.tree.leaves(first))
    if key not in em._cache:
        em._cache[key] = _variant(em, program)
    compiled, data = em._cache[key]._compiled((first, *args), kwargs)
    if len(data) < count:
        compiled, data = _variant(em, lambda first: program(first, *args, **kwargs))._compiled(
            (first,), {}
        )
    if len(data) < count:
        raise ValueError(
            "The program looks at the values of its data in Python, so that it cannot be refitted "
            "to other data. Pass sizes as Python numbers, or "
            "use method='information'."
        )
    return compiled, data[count:]


def _variant(em: EM, program: Callable) -> EM:
    """Return EM with the same settings for another program, from one start."""
    return em._for(
        program,
        init=None if isinstance(em.settings.init, str) else em.settings.init,
        num_restarts=1,
        annealing=(),
    )


def refits(
    compiled: Compiled,
    first_of: Callable,
    given: tuple,
    base: Compiled,
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

    def posteriors(params, constants) -> dict:
        found = posterior(base.graph, base.graph.arrays(params, constants)) if latents else {}
        return {name: found[name].reshape(-1, found[name].shape[-1]) for name in latents}

    def all_refitted(keys, given, constants, params):
        here = posteriors(params, constants)

        def refitted(key):
            first = jax.tree.leaves(first_of(key, *given))
            _, end = compiled._run(key, [*first, *given[-1]], compiled.given(params))
            own = posteriors(end.carry.reported, constants)
            return (
                dict(end.carry.reported),
                end.carry.status,
                {name: here[name].T @ own[name] for name in latents},
            )

        # side by side they advance in step, at the pace of the slowest: many at once are no gain
        return in_batches(refitted, keys, min(MOST_AT_ONCE, batch_size(compiled.graph)))

    key = ("refits", tuple(latents))
    if key not in compiled.graph.cache:
        compiled.graph.cache[key] = jax.jit(all_refitted)
    draws, status, agreement = jax.tree.map(
        np.asarray, compiled.graph.cache[key](keys, given, constants, params)
    )
    return Refits(draws, status, agreement)


# ── rows with replacement ─────────────────────────────────────────────────────────────────────────


def resampled(
    em: EM, base: Compiled, units: Units, params, constants, keys, latents, args, kwargs
) -> Refits:
    """Return the program refitted to its units drawn with replacement. Source: Efron (1979)."""
    size = units.size
    compiled, data = compiled_with(
        em, units.key, units.weighted(em.model), jnp.ones(size), args, kwargs
    )

    def counts(key, data):
        return jnp.bincount(jax.random.randint(key, (size,), 0, size), length=size).astype(
            jnp.result_type(float)
        )

    return refits(compiled, counts, (data,), base, constants, params, keys, latents)


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


def simulated(em: EM, compiled: Compiled, args, kwargs, concrete: bool) -> tuple[Callable, list]:
    """Return a function of (key, params, data) that draws the observed sites of a program, {site:
    value}, and the data: the arrays among its arguments.
    """
    data, rebuild = split_arguments(args, kwargs, concrete)

    def draw(key, params, data) -> dict:
        estimated = {
            name: params[name]
            for name, parameter in compiled.graph.parameters.items()
            if parameter.is_prior
        }
        observed: set = set()
        program = handlers.substitute(Simulated(em.model, params, observed), data=estimated)
        own_args, own_kwargs = rebuild(data)
        with numpyro.validation_enabled(False):
            trace = handlers.trace(handlers.seed(program, key)).get_trace(*own_args, **own_kwargs)
        return {name: trace[name]["value"] for name in sorted(observed)}

    return draw, data


def redrawn(em: EM, base: Compiled, params, constants, keys, latents, args, kwargs) -> Refits:
    """Return the program refitted to data that it draws itself at `params`."""
    for term in base.graph.terms:
        if term.site.outputs.multiplicity is not None:
            raise ValueError(
                f"Site '{term.site.name}' counts copies (handlers.scale), and the program draws "
                "one datum for all copies of a row. Pass the rows one by one, "
                "np.repeat(rows, count), or use method='information'."
            )

    def program(first, *args, **kwargs):
        return handlers.condition(em.model, data=first)(*args, **kwargs)

    draw, data = simulated(em, base, args, kwargs, concrete=not em._compiled(args, kwargs)[1])
    example = jax.tree.map(
        lambda array: np.zeros(array.shape, array.dtype),
        jax.eval_shape(draw, keys[0], params, data),
    )
    compiled, rest = compiled_with(em, "redrawn", program, example, args, kwargs)
    return refits(
        compiled,
        lambda key, params, data, rest: draw(key, params, data),
        (params, data, rest),
        base,
        constants,
        params,
        keys,
        latents,
    )
