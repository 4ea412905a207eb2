"""Trace a NumPyro program once, abstractly, with symbols in place of its discrete latents.

The result is an ordinary jaxpr from parameters and data to everything that the likelihood needs:
for each site the arguments of its distribution, its value, its mask and its multiplicity. Nothing
runs on the data.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace

import jax
import numpy as np
import numpyro
from jax.extend.core import ClosedJaxpr
from jax.interpreters import partial_eval as pe
from numpyro.handlers import seed

from emjax.numerics.jaxprs import inlined, pruned, rearranged
from emjax.program.arguments import split_arguments
from emjax.program.latents import Latent
from emjax.program.messenger import Tracer, event_mask_message
from emjax.program.records import Parameter, Site


@dataclass(frozen=True, eq=False)
class Program:
    """A traced program: `jaxpr` maps (parameters by sorted name, data) to the outputs that the
    sites point to.
    """

    jaxpr: ClosedJaxpr
    sites: tuple[Site, ...]
    latents: Mapping[str, Latent]
    parameters: Mapping[str, Parameter]
    num_data: int


def trace(
    model: Callable,
    parameters: Mapping[str, Parameter],
    args: tuple,
    kwargs: dict,
    concrete: bool = False,
) -> Program:
    """Trace a program on abstract parameters and data. Source: ours; the messenger protocol is
    NumPyro's.
    """
    leaves, rebuild = split_arguments(args, kwargs, concrete)
    names = sorted(parameters)
    state: dict = {}

    def flat(param_values, data_values):
        a, k = rebuild(data_values)
        tracer = Tracer(model, dict(zip(names, param_values, strict=True)))
        with numpyro.validation_enabled(False), event_masks_explained():
            seed(tracer, jax.random.key(0))(*a, **k)
            outputs: list = []
            sites = tuple(tracer.sites(outputs))
        state.update(sites=sites, latents=tracer.latents)
        return outputs

    abstract = [
        jax.ShapeDtypeStruct(parameters[name].shape, parameters[name].dtype) for name in names
    ]
    closed = pruned(inlined(jax.make_jaxpr(flat)(abstract, leaves), keep_derivatives=True))
    return Program(closed, state["sites"], state["latents"], parameters, len(leaves))


def initial_values(
    model, init: Callable, args, kwargs, concrete: bool = False
) -> tuple[Callable, dict[str, Parameter], bool]:
    """Return a function of (rng_key, data) that gives every parameter its start, the parameters,
    and whether a start depends on the key.
    """
    leaves, rebuild = split_arguments(args, kwargs, concrete)
    state: dict = {}

    def flat(rng_key, data_values):
        a, k = rebuild(data_values)
        tracer = Tracer(model, None, init)
        with numpyro.validation_enabled(False), event_masks_explained():
            seed(tracer, rng_key)(*a, **k)
        state["parameters"] = tracer.parameters
        bounds = [
            leaf
            for parameter in tracer.parameters.values()
            for leaf in jax.tree.leaves(parameter.constraint)
            if _is_traced(leaf)
        ]
        return {name: tracer.starts[name] for name in tracer.parameters}, bounds

    closed, (values, bounds) = jax.make_jaxpr(flat, return_shape=True)(jax.random.key(0), leaves)
    tree = jax.tree.structure(values)
    parameters = (
        _with_known_constraints(closed, state["parameters"], tree.num_leaves, concrete)
        if bounds
        else state["parameters"]
    )
    closed = pruned(
        ClosedJaxpr(
            rearranged(closed.jaxpr, outvars=closed.jaxpr.outvars[: tree.num_leaves]), closed.consts
        )
    )

    def start(rng_key, data):
        flat_inputs = jax.tree.leaves((rng_key, data))
        return jax.tree.unflatten(
            tree, jax.core.eval_jaxpr(closed.jaxpr, closed.consts, *flat_inputs)
        )

    key = closed.jaxpr.invars[0]
    is_random = any(key is var for eqn in closed.jaxpr.eqns for var in eqn.invars)
    return start, parameters, is_random


@contextmanager
def event_masks_explained() -> Iterator[None]:
    """Raise a `ValueError` that names the site where `obs_mask` says which coordinates of an event
    are observed, in place of NumPyro's, whose shapes do not broadcast.
    """
    try:
        yield
    except (ValueError, TypeError) as error:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            if frame.f_code.co_name != "_masked_observe" or {"name", "fn", "obs_mask"} - set(
                frame.f_locals
            ):
                continue
            name, fn, shape = (
                frame.f_locals["name"],
                frame.f_locals["fn"],
                np.shape(frame.f_locals["obs_mask"]),
            )
            if (
                fn.event_dim
                and len(shape) > len(fn.batch_shape)
                and shape[len(shape) - fn.event_dim :] == tuple(fn.event_shape)
            ):
                raise ValueError(event_mask_message(name, shape, fn.event_shape)) from error
        raise


class DependsOnData(Exception):
    """What must be known before the loop depends on data: they have to be traced as constants."""


def _is_traced(leaf) -> bool:
    return isinstance(leaf, jax.core.Tracer)


def _with_known_constraints(
    closed: ClosedJaxpr, parameters: Mapping[str, Parameter], num_values: int, concrete: bool
) -> dict[str, Parameter]:
    """Return the parameters with numbers in place of the bounds that the program computes, outputs
    of `closed` after its values.

    Errors: `DependsOnData` where data may be constants and are none yet; `ValueError` for a bound
    that is drawn or estimated.
    """
    if not concrete:
        raise DependsOnData
    jaxpr, used = pe.dce_jaxpr(
        closed.jaxpr, [i >= num_values for i in range(len(closed.jaxpr.outvars))]
    )
    if any(used):
        names = ", ".join(
            f"'{name}'"
            for name, p in parameters.items()
            if any(map(_is_traced, jax.tree.leaves(p.constraint)))
        )
        raise ValueError(
            f"The support of {names} depends on another parameter or a latent. Estimate a fraction "
            "of it: low + (high - low) * "
            "numpyro.sample('fraction', dist.Uniform(0, 1))."
        )
    bounds = iter(jax.core.eval_jaxpr(jaxpr, closed.consts))

    def known(constraint):
        return jax.tree.map(
            lambda leaf: np.asarray(next(bounds)) if _is_traced(leaf) else leaf, constraint
        )

    return {
        name: replace(parameter, constraint=known(parameter.constraint))
        for name, parameter in parameters.items()
    }
