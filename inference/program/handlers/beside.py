"""Sites that stand beside a program's own: what it computes, and what its data lack.

A site that no observation depends on takes nothing from the likelihood, and EM says what is
expected of it. So anything that a program computes is asked for by stating a site for it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from numpyro.primitives import Messenger

from emjax.families.distributions import PartiallyObserved, Select
from emjax.program.handlers.labels import Label, SoftLabel
from emjax.program.latents import layers_of
from emjax.program.statements import has_run, is_scan

# what is put behind the name of the site that another one stands beside
BESIDE = "__beside"
# what NumPyro puts behind the name of a site that has an `obs_mask`
OBSERVED, UNOBSERVED = "_observed", "_unobserved"

Stated = Callable[[Mapping[str, Any]], dist.Distribution | None]


def beside(model: Callable, stated: Stated) -> Callable:
    """Return the program with one more site, '<name>__beside', for statements.

    `stated`: (NumPyro's message of a statement) → the distribution of its site; None: it has none.
    The sites are stated at the end, of a step of a `scan` as well, outside of all plates and masks.
    """

    def program(*args, **kwargs):
        statements = Statements(model, stated)
        result = statements(*args, **kwargs)
        for name, distribution in statements.found.items():
            numpyro.sample(name + BESIDE, distribution)
        return result

    return program


class Statements(Messenger):
    """Collect what stands beside a program's statements.

    - `found`: {name: the distribution}.
    - `drawn`: the names of the `sample` sites so far.
    """

    def __init__(self, fn: Callable, stated: Stated):
        self.stated = stated
        self.drawn: set[str] = set()
        self.found: dict[str, dist.Distribution] = {}
        super().__init__(fn)

    def process_message(self, msg: dict[str, Any]) -> None:
        """Have the statements of a step stated within it."""
        if is_scan(msg):
            step, *others = msg["args"]
            msg["args"] = (beside(step, self.stated), *others)

    def postprocess_message(self, msg: dict[str, Any]) -> None:
        """Keep what is stated beside a statement."""
        if msg["type"] not in ("sample", "deterministic") or has_run(msg):
            return
        if msg["type"] == "sample":
            self.drawn.add(msg["name"])
        # NumPyro computes a site with an `obs_mask` of what is observed and of what is not
        elif msg["name"] + UNOBSERVED in self.drawn:
            return
        distribution = self.stated(msg)
        if distribution is not None:
            self.found[msg["name"]] = distribution


# ── what is computed ──────────────────────────────────────────────────────────────────────────────


def computed(msg: Mapping[str, Any]) -> dist.Distribution | None:
    """Return a distribution whose mean is what a `numpyro.deterministic` computes."""
    return of_mean(msg["value"]) if msg["type"] == "deterministic" else None


def of_mean(value: Any) -> dist.Distribution:
    """Return a distribution whose mean is an array."""
    value = jnp.asarray(value) * 1.0
    return dist.Normal(value, 1.0).to_event(value.ndim)


# ── what data lack ────────────────────────────────────────────────────────────────────────────────


def completion(msg: Mapping[str, Any]) -> dist.Distribution | None:
    """Return the distribution of what an observation lacks, given its latents; else None.

    Of independent entries: that of the site, without its masks. Of a multivariate normal: one with
    the mean of what is missing, given what is observed.
    """
    if missing(msg) is None:
        return None
    core, whole = layers_of(msg["fn"]).core, unmasked(msg["fn"])
    if isinstance(core, PartiallyObserved):
        return of_mean(core.completed(core.loc, msg["value"]))
    if isinstance(core, Select) or (whole.support.is_discrete and not core.has_enumerate_support):
        return of_mean(whole.mean)
    return whole.to_event(len(whole.batch_shape))


def missing(msg: Mapping[str, Any]) -> Any:
    """Return where an observation lacks entries, to be broadcast with it; None: nowhere."""
    if msg["type"] != "sample" or not msg["is_observed"]:
        return None
    core, masks, declared = layers_of(msg["fn"])
    # a label that is masked is one of a latent, which has a posterior
    if isinstance(core, Label | SoftLabel):
        return None
    lacks = []
    if isinstance(core, PartiallyObserved):
        lacks.append(~jnp.asarray(core.observed))
    for mask, outside in masks:
        if mask is not True:
            lack = ~jnp.asarray(mask, bool)
            # a mask says nothing of axes that are declared inside of it
            inside = declared - outside + len(core.event_shape)
            lacks.append(lack.reshape(lack.shape + (1,) * inside))
    return functools.reduce(jnp.logical_or, lacks) if lacks else None


def unmasked(fn: Any) -> Any:
    """Return a distribution without its masks."""
    if isinstance(fn, dist.MaskedDistribution | dist.ExpandedDistribution):
        return unmasked(fn.base_dist).expand(fn.batch_shape)
    if isinstance(fn, dist.Independent):
        return unmasked(fn.base_dist).to_event(fn.reinterpreted_batch_ndims)
    return fn
