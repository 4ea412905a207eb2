"""Trace a NumPyro program once, abstractly, with symbols in place of its discrete latents.

The result is an ordinary jaxpr from parameters and data to everything that the likelihood needs: for each site the
arguments of its distribution, its value, its mask and its multiplicity. Nothing runs on the data.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax.extend.core import ClosedJaxpr
from jax.interpreters import partial_eval as pe
from numpyro.distributions import constraints
from numpyro.handlers import seed
from numpyro.primitives import Messenger

from emjax.arguments import split_arguments
from emjax.distributions import Select, feasible
from emjax.families import registered_arguments
from emjax.jaxprs import WITH_DERIVATIVES, inlined, pruned, rearranged
from emjax.latents import Latent, latent_of, latent_p, unwrapped
from emjax.numerics import as_float


@dataclass(frozen=True, eq=False)
class Parameter:
    """What EM estimates: a `numpyro.param` site, or an unobserved continuous `sample` site (`is_prior`)."""

    name: str
    shape: tuple[int, ...]
    dtype: Any
    constraint: Any
    is_prior: bool


@dataclass(frozen=True, eq=False)
class Site:
    """One term of the complete-data log-likelihood.

    `kind` is "observed", "latent" or "prior"; `elements` the shape of its independent elements (batch axes and those
    that `to_event` declared), `event` that of one element; `outputs` says where its arrays are among the jaxpr's.
    """

    name: str
    kind: str
    family: type
    elements: tuple[int, ...]
    event: tuple[int, ...]
    plates: tuple[str, ...]
    outputs: Mapping[str, Any]
    arg_constraints: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Program:
    """A traced program: `jaxpr` maps (parameters by sorted name, data) to the outputs that the sites point to."""

    jaxpr: ClosedJaxpr
    sites: tuple[Site, ...]
    latents: Mapping[str, Latent]
    parameters: Mapping[str, Parameter]
    num_data: int


class _Symbols(Messenger):
    """Give every unobserved site its value: a symbol if it is discrete, its parameter if it is continuous."""

    def __init__(self, model, params: Mapping[str, Any] | None, init: Callable | None = None):
        self.params, self.init = params, init
        self.latents: dict[str, Latent] = {}
        self.parameters: dict[str, Parameter] = {}
        self.records: list[tuple] = []
        self.values: dict[str, Any] = {}
        super().__init__(model)

    def process_message(self, msg):
        kind, name = msg["type"], msg.get("name")
        if kind == "control_flow":
            raise ValueError("The program has a NumPyro `scan` or `cond`; emjax sums out latents written one by one. Write the steps as a Python "
                             "loop: for t in range(T): z = numpyro.sample(f'z_{t}', ...).")
        if kind == "plate" and msg["value"] is None:
            raise ValueError(f"Plate '{name}' draws a random subsample, and EM would see only that. Remove `subsample_size`, or "
                             "pass the rows to fit as data.")
        if kind not in ("sample", "param"):
            return
        if name in self.values:
            raise ValueError(f"Two sites are called '{name}'. Site names must differ.")
        if kind == "param" and self.params is not None:
            msg["value"] = self.params[name]
        elif kind == "sample" and msg["value"] is None:
            self._unobserved(msg)
        elif kind == "sample" and not isinstance(msg["value"], np.ndarray | jax.Array):
            msg["value"] = jnp.asarray(msg["value"])
        self.values[name] = msg["value"]

    def _started(self, msg):
        """Record a parameter whose start the program has just given."""
        name, constraint = msg["name"], msg["kwargs"].get("constraint", constraints.real)
        if msg["value"] is None:
            raise ValueError(f"Parameter '{name}' has no initial value. Write numpyro.param('{name}', value, constraint=...).")
        msg["value"] = self.values[name] = value = as_float(msg["value"])
        self.parameters[name] = Parameter(name, value.shape, value.dtype, constraint, is_prior=False)

    def _unobserved(self, msg):
        name, fn = msg["name"], msg["fn"]
        shape = tuple(msg["kwargs"].get("sample_shape", ()))
        if shape:
            fn = msg["fn"] = fn.expand(shape + fn.batch_shape)
            msg["kwargs"]["sample_shape"] = ()
        if fn.support is not None and fn.support.is_discrete and self.params is None:
            return  # a start may depend on a draw of the latents: they are sampled as the program says
        if fn.support is not None and fn.support.is_discrete:
            self.latents[name] = latent = latent_of(name, fn, tuple(f.name for f in msg["cond_indep_stack"]))
            msg["value"] = latent_p.bind(name=name, shape=fn.batch_shape + fn.event_shape, dtype=latent.support.dtype)
        elif self.params is None:
            msg["kwargs"]["rng_key"] = numpyro.prng_key()
            msg["value"] = value = as_float(self.init(msg))
            self.parameters[name] = Parameter(name, value.shape, value.dtype, fn.support, is_prior=True)
        else:
            msg["value"] = self.params[name]

    def postprocess_message(self, msg):
        if msg["type"] == "param" and self.params is None:
            self._started(msg)
        if msg["type"] == "sample":
            self.records.append((msg["name"], msg["fn"], msg["value"], msg["scale"], bool(msg["is_observed"]),
                                 tuple(frame.name for frame in msg["cond_indep_stack"])))


def trace(model: Callable, parameters: Mapping[str, Parameter], args: tuple, kwargs: dict, concrete: bool = False) -> Program:
    """Trace a program on abstract parameters and data. Source: ours; the messenger protocol is NumPyro's."""
    leaves, rebuild = split_arguments(args, kwargs, concrete)
    names = sorted(parameters)
    state: dict = {}

    def flat(param_values, data_values):
        a, k = rebuild(data_values)
        symbols = _Symbols(model, dict(zip(names, param_values, strict=True)))
        with numpyro.validation_enabled(False):
            seed(symbols, jax.random.key(0))(*a, **k)
            outputs: list = []
            sites = [site for record in symbols.records for site in _sites(record, symbols, outputs)]
        state.update(sites=tuple(sites), latents=symbols.latents)
        return outputs

    abstract = [jax.ShapeDtypeStruct(parameters[name].shape, parameters[name].dtype) for name in names]
    closed = pruned(inlined(jax.make_jaxpr(flat)(abstract, leaves), kept=WITH_DERIVATIVES))
    return Program(closed, state["sites"], state["latents"], parameters, len(leaves))


def initial_values(model, init: Callable, args, kwargs, concrete: bool = False) -> tuple[Callable, dict[str, Parameter]]:
    """Return a function of (rng_key, data) that gives every parameter its start, and the parameters."""
    leaves, rebuild = split_arguments(args, kwargs, concrete)
    state: dict = {}

    def flat(rng_key, data_values):
        a, k = rebuild(data_values)
        symbols = _Symbols(model, None, init)
        with numpyro.validation_enabled(False):
            seed(symbols, rng_key)(*a, **k)
        state["parameters"] = symbols.parameters
        bounds = [leaf for parameter in symbols.parameters.values() for leaf in jax.tree.leaves(parameter.constraint) if _is_traced(leaf)]
        return {name: symbols.values[name] for name in symbols.parameters}, bounds

    closed, (values, bounds) = jax.make_jaxpr(flat, return_shape=True)(jax.random.key(0), leaves)
    tree = jax.tree.structure(values)
    parameters = _with_known_constraints(closed, state["parameters"], tree.num_leaves, concrete) if bounds else state["parameters"]
    closed = pruned(ClosedJaxpr(rearranged(closed.jaxpr, outvars=closed.jaxpr.outvars[: tree.num_leaves]), closed.consts))

    def start(rng_key, data):
        flat_inputs = jax.tree.leaves((rng_key, data))
        return jax.tree.unflatten(tree, jax.core.eval_jaxpr(closed.jaxpr, closed.consts, *flat_inputs))

    return start, parameters


class DependsOnData(Exception):
    """What must be known before the loop depends on data: they have to be traced as constants."""


def _is_traced(leaf) -> bool:
    return isinstance(leaf, jax.core.Tracer)


def _with_known_constraints(closed: ClosedJaxpr, parameters: Mapping[str, Parameter], num_values: int, concrete: bool) -> dict[str, Parameter]:
    """Return the parameters with numbers in place of the bounds that the program computes, outputs of `closed` after its values.

    Errors: `DependsOnData` where data may be constants and are none yet; `ValueError` for a bound that is drawn or estimated.
    """
    if not concrete:
        raise DependsOnData
    jaxpr, used = pe.dce_jaxpr(closed.jaxpr, [i >= num_values for i in range(len(closed.jaxpr.outvars))])
    if any(used):
        names = ", ".join(f"'{name}'" for name, p in parameters.items() if any(map(_is_traced, jax.tree.leaves(p.constraint))))
        raise ValueError(f"The support of {names} depends on another parameter or a latent. Estimate a fraction of it: low + (high - low) * "
                         "numpyro.sample('fraction', dist.Uniform(0, 1)).")
    bounds = iter(jax.core.eval_jaxpr(jaxpr, closed.consts))

    def known(constraint):
        return jax.tree.map(lambda leaf: np.asarray(next(bounds)) if _is_traced(leaf) else leaf, constraint)

    return {name: replace(parameter, constraint=known(parameter.constraint)) for name, parameter in parameters.items()}


def _sites(record, symbols: _Symbols, outputs: list):
    """Yield the site of a record: one, or one for each component of a `Select`."""
    name, fn, value, scale, is_observed, plates = record
    inner, masks, reinterpreted = unwrapped(fn)
    kind = "observed" if is_observed else "latent" if name in symbols.latents else "prior" if name in (symbols.params or ()) else "observed"
    batch = tuple(fn.batch_shape) + tuple(fn.event_shape)[:reinterpreted]
    is_select = isinstance(inner, Select)

    def emit(array, units: int = 0) -> int | None:
        """Add an output, with unit axes for what `to_event` declared inside."""
        if array is None:
            return None
        outputs.append(jnp.reshape(array, jnp.shape(array) + (1,) * units))
        return len(outputs) - 1

    for number, component in enumerate(inner.components if is_select else [inner]):
        core, own_masks, extra = unwrapped(component)
        all_masks = [(mask, reinterpreted + extra - depth) for mask, depth in masks] + [(mask, extra - depth) for mask, depth in own_masks]
        names = registered_arguments(type(core))
        available = core.get_args() if names else {}
        arrays = {
            "value": emit(value),
            "scale": emit(scale, reinterpreted + extra),
            "masks": [emit(mask, units) for mask, units in all_masks if mask is not True],
            "gate": emit(inner.index == number, extra) if is_select else None,
            "unchosen": emit((inner.index < 0) | (inner.index >= len(inner.components)), extra) if is_select and number == 0 else None,
            "args": {key: emit(available[key]) for key in names if key in available},
            "log_prob": emit(_log_prob(core, _feasible(core, value, all_masks) if kind == "observed" else value)),
            "valid": emit(_valid(core, value)) if kind == "observed" else None,
        }
        elements = batch + tuple(component.event_shape)[:extra]
        yield Site(name, kind, type(core), elements, tuple(core.event_shape), plates, arrays, dict(core.arg_constraints))


def _feasible(core, value, masks):
    """Return an observed value with a feasible one where it is masked or outside the support."""
    counted = [jnp.reshape(mask, (*jnp.shape(mask), *(1,) * (units + len(core.event_shape)))) for mask, units in masks]
    try:
        return value if core.support is None else feasible(core, value, functools.reduce(jnp.logical_and, counted, True))
    except (NotImplementedError, AttributeError, TypeError):
        return value


def _log_prob(core, value):
    try:
        return core.log_prob(value)
    except (NotImplementedError, AttributeError, TypeError, ValueError):
        return None


def _valid(core, value):
    """Return whether each entry of an observed value lies in the distribution's support."""
    try:
        return None if core.support is None else core.support(value)
    except (NotImplementedError, AttributeError, TypeError):
        return None
