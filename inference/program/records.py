"""What a trace records: parameters, and sites whose arrays are outputs of the traced program."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from emjax.families.distributions import Select, feasible
from emjax.families.family import registered_arguments
from emjax.program.latents import layers_of


@dataclass(frozen=True, eq=False)
class Parameter:
    """What EM estimates: a `numpyro.param` site, or an unobserved continuous `sample` site
    (`is_prior`).
    """

    name: str
    shape: tuple[int, ...]
    dtype: Any
    constraint: Any
    is_prior: bool


class SiteOutputs(eqx.Module):
    """Where a site's arrays are among the outputs of the traced program; None: there is none.

    - `value`: what is observed or drawn; `valid`: where an observed value is in the support.
    - `multiplicity`: how often each element counts; `masks`: where the elements count at all.
    - `args`: the arguments that a family or a prior of the distribution reads, by name.
    - `log_prob`: the log-density of each element, where NumPyro has one.
    - `gate`: where this component of a `Select` is chosen; `unchosen`: where none of them is.
    """

    value: int
    multiplicity: int | None
    masks: list[int]
    gate: int | None
    unchosen: int | None
    args: dict[str, int]
    log_prob: int | None
    valid: int | None


@dataclass(frozen=True, eq=False)
class Site:
    """One term of the complete-data log-likelihood.

    `kind` is "observed", "latent" or "prior"; `elements` the shape of its independent elements
    (batch axes and those that `to_event` declared), `event` that of one element; `outputs` says
    where its arrays are among the jaxpr's.
    """

    name: str
    kind: str
    family: type
    elements: tuple[int, ...]
    event: tuple[int, ...]
    plates: tuple[str, ...]
    outputs: SiteOutputs
    arg_constraints: Mapping[str, Any]

    @property
    def is_observed(self) -> bool:
        return self.kind == "observed"

    @property
    def is_latent(self) -> bool:
        return self.kind == "latent"

    @property
    def is_prior(self) -> bool:
        return self.kind == "prior"

    @property
    def arrays(self) -> list[int]:
        """The numbers of all its arrays."""
        return jax.tree.leaves(self.outputs)

    def renumbered(self, number: Callable) -> Site:
        return replace(self, outputs=jax.tree.map(number, self.outputs))

    def ranks(self, rank: int) -> dict[int, int]:
        """Return the number of axes of each of its arrays, `rank` of them its elements'."""
        events = {
            self.outputs.args[name]: self.arg_constraints[name].event_dim
            for name in self.outputs.args
        }
        return {number: rank + events.get(number, 0) for number in self.arrays} | {
            self.outputs.value: rank + len(self.event)
        }


@dataclass(frozen=True, eq=False)
class Record:
    """A sample statement as it ran: `kind` is that of its site."""

    name: str
    kind: str
    fn: Any
    value: Any
    multiplicity: Any
    plates: tuple[str, ...]

    def sites(self, outputs: list) -> Iterator[Site]:
        """Add the statement's arrays to the outputs, and yield its site: one, or one for each
        component of a `Select`.
        """
        inner, masks, reinterpreted = layers_of(self.fn)
        batch = tuple(self.fn.batch_shape) + tuple(self.fn.event_shape)[:reinterpreted]
        is_select = isinstance(inner, Select)

        def emit(array, units: int = 0) -> int | None:
            """Add an output, with unit axes for what `to_event` declared inside."""
            if array is None:
                return None
            outputs.append(jnp.reshape(array, jnp.shape(array) + (1,) * units))
            return len(outputs) - 1

        for number, component in enumerate(inner.components if is_select else [inner]):
            core, own_masks, extra = layers_of(component)
            all_masks = [(mask, reinterpreted + extra - depth) for mask, depth in masks] + [
                (mask, extra - depth) for mask, depth in own_masks
            ]
            names = registered_arguments(type(core))
            available = core.get_args() if names else {}
            observed = self.kind == "observed"
            unchosen = None
            if is_select and number == 0:
                unchosen = emit((inner.index < 0) | (inner.index >= len(inner.components)), extra)
            feasible_value = self.value
            if observed:
                feasible_value = _feasible(core, self.value, all_masks)
            arrays = SiteOutputs(
                value=emit(self.value),
                multiplicity=emit(self.multiplicity, reinterpreted + extra),
                masks=[emit(mask, units) for mask, units in all_masks if mask is not True],
                gate=emit(inner.index == number, extra) if is_select else None,
                unchosen=unchosen,
                args={key: emit(available[key]) for key in names if key in available},
                log_prob=emit(_log_prob(core, feasible_value)),
                valid=emit(_valid(core, self.value)) if observed else None,
            )
            elements = batch + tuple(component.event_shape)[:extra]
            yield Site(
                self.name,
                self.kind,
                type(core),
                elements,
                tuple(core.event_shape),
                self.plates,
                arrays,
                dict(core.arg_constraints),
            )


def _feasible(core, value, masks):
    """Return an observed value with a feasible one where it is masked or outside the support."""
    counted = [
        jnp.reshape(mask, (*jnp.shape(mask), *(1,) * (units + len(core.event_shape))))
        for mask, units in masks
    ]
    try:
        return (
            value
            if core.support is None
            else feasible(core, value, functools.reduce(jnp.logical_and, counted, True))
        )
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
