"""Trace a NumPyro program once, abstractly, with symbols in place of its latents.

The result is an ordinary jaxpr from parameters and data to everything that the likelihood needs:
for each site the arguments of its distribution, its value, its mask and its multiplicity. Nothing
runs on the data.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.core
import numpy as np
import numpyro
from jax.extend.core import ClosedJaxpr
from jax.interpreters import partial_eval as pe
from numpyro.handlers import seed

from emjax.numerics.jaxprs import inlined, output_dependencies, pruned, rearranged
from emjax.program.arguments import split_arguments
from emjax.program.event_masks import event_masks_explained
from emjax.program.explanations import failures_explained
from emjax.program.failures import DependsOnData
from emjax.program.integrated import check_are_sites
from emjax.program.latents import GaussianLatent, Latent
from emjax.program.records import Parameter, Site, family_for
from emjax.program.starter import Starter
from emjax.program.tracer import Tracer


@dataclass(frozen=True, eq=False)
class Program:
    """A traced program.

    - `jaxpr`: (parameters by sorted name, data) → the outputs that the sites point to.
    - `latents`, `parameters`: the discrete latents and the parameters, by name.
    - `num_data`: how many arrays of data there are.
    - `gaussians`: the latents that are integrated out, by name.
    """

    jaxpr: ClosedJaxpr
    sites: tuple[Site, ...]
    latents: Mapping[str, Latent]
    parameters: Mapping[str, Parameter]
    num_data: int
    gaussians: Mapping[str, GaussianLatent] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """The parameters, in the order in which the jaxpr takes them."""
        return tuple(sorted(self.parameters))


def trace(
    model: Callable,
    parameters: Mapping[str, Parameter],
    args: tuple,
    kwargs: Mapping[str, Any],
    concrete: bool = False,
    integrate: Collection[str] = (),
) -> Program:
    """Return a program traced on abstract parameters and data.

    `concrete`: whether it looks at its data in Python; `integrate`: the names of the sites that are
    integrated out. Source: ours; the messenger protocol is NumPyro's.
    """
    traced = partial(_traced, model, parameters, args, kwargs, concrete, frozenset(integrate))
    program = traced(has_densities=False)
    depends = depends_on_parameters(program)
    for site in program.sites:
        # the data of a family move with the parameters, which is seldom: its density is read
        if site.outputs.log_prob is None and family_for(site, depends) is None:
            return traced(has_densities=True)
    return program


def depends_on_parameters(program: Program) -> list[frozenset[str]]:
    """Return, for each output of the traced program, the parameters that it depends on."""
    jaxpr = program.jaxpr.jaxpr
    return output_dependencies(jaxpr, dict(zip(jaxpr.invars, program.names, strict=False)))


def _traced(
    model: Callable,
    parameters: Mapping[str, Parameter],
    args: tuple,
    kwargs: Mapping[str, Any],
    concrete: bool,
    integrate: frozenset[str],
    has_densities: bool,
) -> Program:
    """Return a traced program. `has_densities`: of sites that may be read as families, too."""
    leaves, rebuild = split_arguments(args, kwargs, concrete)
    names = sorted(parameters)
    state: dict = {}

    def flat(param_values, data_values):
        args, kwargs = rebuild(data_values)
        params = dict(zip(names, param_values, strict=True))
        tracer = Tracer(model, params, has_densities=has_densities, integrate=integrate)
        # NumPyro's checks of values need values
        with numpyro.validation_enabled(False), failures_explained(), event_masks_explained():
            seed(tracer, jax.random.key(0))(*args, **kwargs)
            check_are_sites(integrate, tracer.named)
            outputs: list = []
            sites = tuple(tracer.sites(outputs))
        state.update(sites=sites, latents=tracer.latents, gaussians=tracer.gaussians)
        return outputs

    abstract = [
        jax.ShapeDtypeStruct(parameters[name].shape, parameters[name].dtype) for name in names
    ]
    closed = pruned(inlined(jax.make_jaxpr(flat)(abstract, leaves), keep_derivatives=True))
    latents, gaussians = state["latents"], state["gaussians"]
    return Program(closed, state["sites"], latents, parameters, len(leaves), gaussians)


@dataclass(frozen=True, eq=False)
class StartProgram:
    """The function (random key, data) → the value of each parameter, by name.

    - `jaxpr`: of what it computes.
    - `tree`: of its values.
    """

    jaxpr: ClosedJaxpr
    tree: Any

    def __call__(self, rng_key: Any, data: Any) -> dict[str, Any]:
        """Return the value of each parameter."""
        inputs = jax.tree.leaves((rng_key, data))
        values = jax.core.eval_jaxpr(self.jaxpr.jaxpr, self.jaxpr.consts, *inputs)
        return jax.tree.unflatten(self.tree, values)


class InitialValues(NamedTuple):
    """Where a program's parameters start.

    - `start`: `start(rng_key, data)` is the value of each parameter, by name.
    - `parameters`: by name.
    - `is_random`: whether the start depends on the key.
    """

    start: StartProgram
    parameters: dict[str, Parameter]
    is_random: bool


def initial_values(
    model: Callable,
    init: Callable,
    args: tuple,
    kwargs: Mapping[str, Any],
    concrete: bool = False,
    integrate: Collection[str] = (),
) -> InitialValues:
    """Return where the parameters of a program start.

    `init`: the strategy of NumPyro that gives continuous latents their start, but for those of
    `integrate`, which are no parameters.
    """
    leaves, rebuild = split_arguments(args, kwargs, concrete)
    state: dict = {}

    def flat(rng_key, data_values):
        args, kwargs = rebuild(data_values)
        starter = Starter(model, init, integrate=frozenset(integrate))
        with numpyro.validation_enabled(False), failures_explained(), event_masks_explained():
            seed(starter, rng_key)(*args, **kwargs)
            check_are_sites(integrate, starter.named)
        state["parameters"] = parameters = starter.parameters
        constraints = [parameter.constraint for parameter in parameters.values()]
        # bounds that the program computes are tracers, which leave the trace as outputs
        bounds = [leaf for leaf in jax.tree.leaves(constraints) if _is_traced(leaf)]
        return {name: starter.starts[name] for name in parameters}, bounds

    closed, (values, bounds) = jax.make_jaxpr(flat, return_shape=True)(jax.random.key(0), leaves)
    tree = jax.tree.structure(values)
    parameters = state["parameters"]
    if bounds:
        parameters = _with_known_constraints(closed, parameters, tree.num_leaves, concrete)
    jaxpr = rearranged(closed.jaxpr, outvars=closed.jaxpr.outvars[: tree.num_leaves])
    closed = pruned(ClosedJaxpr(jaxpr, closed.consts))
    # a start that never reads the key is the same for every key
    key = closed.jaxpr.invars[0]
    is_random = any(key is var for eqn in closed.jaxpr.eqns for var in eqn.invars)
    return InitialValues(StartProgram(closed, tree), parameters, is_random)


def _is_traced(leaf: Any) -> bool:
    return isinstance(leaf, jax.core.Tracer)


def _with_known_constraints(
    closed: ClosedJaxpr, parameters: Mapping[str, Parameter], num_values: int, concrete: bool
) -> dict[str, Parameter]:
    """Return the parameters with numbers in place of the bounds that the program computes.

    The bounds are the outputs of `closed` after its `num_values` values. Errors: `DependsOnData`
    where data may be constants and are none yet; `ValueError` for a bound that is drawn or
    estimated.
    """
    if not concrete:
        raise DependsOnData
    is_bound = [i >= num_values for i in range(len(closed.jaxpr.outvars))]
    jaxpr, is_read = pe.dce_jaxpr(closed.jaxpr, is_bound)
    # data are constants by now: the one input left is the key, so that the bound is drawn
    if any(is_read):
        names = [
            f"'{name}'"
            for name, parameter in parameters.items()
            if any(map(_is_traced, jax.tree.leaves(parameter.constraint)))
        ]
        raise ValueError(
            f"The support of {', '.join(names)} depends on another parameter or a latent. "
            "Estimate a fraction of it: "
            "low + (high - low) * numpyro.sample('fraction', dist.Uniform(0, 1))."
        )
    bounds = iter(jax.core.eval_jaxpr(jaxpr, closed.consts))

    def known(leaf):
        return np.asarray(next(bounds)) if _is_traced(leaf) else leaf

    return {
        name: replace(parameter, constraint=jax.tree.map(known, parameter.constraint))
        for name, parameter in parameters.items()
    }
