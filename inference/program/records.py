"""What a trace records: parameters, and sites whose arrays are outputs of the traced program."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from emjax.families.distributions import Select, feasible
from emjax.families.family import Family, family_of, registered_arguments
from emjax.program.latents import layers_of

# what a distribution of NumPyro raises that lacks a function, or whose parameters are arrays where
# it wants numbers
NOT_THERE = (NotImplementedError, AttributeError, TypeError)


@dataclass(frozen=True, eq=False)
class Parameter:
    """What EM estimates.

    `is_prior`: whether it is an unobserved continuous `sample` site, not a `numpyro.param`.
    """

    name: str
    shape: tuple[int, ...]
    dtype: Any
    constraint: Any
    is_prior: bool


class SiteOutputs(eqx.Module):
    """Where a site's arrays are among the outputs of the traced program; None: there is none.

    - `value`: what is observed or drawn.
    - `multiplicity`: how often each element counts.
    - `masks`: where the elements count at all.
    - `gate`: where this component of a `Select` is chosen.
    - `unchosen`: where none of its components is.
    - `args`: the arguments that a family or a prior of the distribution reads, by name.
    - `log_prob`: the log-density of each element, where NumPyro has one and it may be read.
    - `valid`: where an observed value is in the support.
    - `mean`: that of the distribution of a continuous latent, where NumPyro has one.
    - `sampling`: the part of the multiplicity that are sampling weights; the number of
      `multiplicity` itself where it is all of it.
    """

    value: int
    multiplicity: int | None
    masks: list[int]
    gate: int | None
    unchosen: int | None
    args: dict[str, int]
    log_prob: int | None
    valid: int | None
    mean: int | None = None
    sampling: int | None = None


@dataclass(frozen=True, eq=False)
class Site:
    """One term of the complete-data log-likelihood.

    - `kind`: "observed", "latent", "integrated" (a Gaussian latent) or "prior".
    - `distribution`: the class of its distribution.
    - `elements`: the shape of its independent elements: batch axes and those that `to_event`
      declared.
    - `event`: the shape of one element.
    - `plates`: the names of its plates, the innermost first.
    - `plate_axes`: which of the axes of its elements each plate is, counted from the right.
    - `outputs`: where its arrays are among the traced program's.
    - `arg_constraints`: of the arguments of its distribution.
    - `is_discrete`: whether its distribution has probabilities and no density.
    """

    name: str
    kind: str
    distribution: type
    elements: tuple[int, ...]
    event: tuple[int, ...]
    plates: tuple[str, ...]
    plate_axes: tuple[int, ...]
    outputs: SiteOutputs
    arg_constraints: Mapping[str, Any]
    is_discrete: bool

    @property
    def is_observed(self) -> bool:
        return self.kind == "observed"

    @property
    def is_latent(self) -> bool:
        return self.kind == "latent"

    @property
    def is_integrated(self) -> bool:
        return self.kind == "integrated"

    @property
    def is_drawn(self) -> bool:
        """Whether it is a latent's, to sum out or to integrate out."""
        return self.is_latent or self.is_integrated

    @property
    def is_prior(self) -> bool:
        return self.kind == "prior"

    @property
    def counts_copies(self) -> bool:
        """Whether its elements are several each: a multiplicity beside sampling weights."""
        return self.outputs.multiplicity != self.outputs.sampling

    @property
    def arrays(self) -> list[int]:
        """The numbers of all its arrays."""
        return jax.tree.leaves(self.outputs)

    def renumbered(self, number: Callable[[int], int]) -> Site:
        """Return the site of which array i is the output number(i)."""
        return replace(self, outputs=jax.tree.map(number, self.outputs))

    def ranks(self, rank: int) -> dict[int, int]:
        """Return the number of axes of each of its arrays, `rank` of them its elements'."""
        ranks = dict.fromkeys(self.arrays, rank)
        for name, number in self.outputs.args.items():
            ranks[number] = rank + self.arg_constraints[name].event_dim
        ranks[self.outputs.value] = rank + len(self.event)
        if self.outputs.mean is not None:
            ranks[self.outputs.mean] = rank + len(self.event)
        return ranks


def family_for(site: Site, depends: Sequence[frozenset[str]]) -> Family | None:
    """Return the exponential family that a site is read as; None: its log-density is evaluated."""
    family = family_of(site.distribution, site.outputs.args)
    if family is None or site.is_prior:
        return None
    # what statistics are computed of must not move with the parameters
    numbers = [site.outputs.value, *site.outputs.masks, site.outputs.gate]
    numbers += [site.outputs.args[name] for name in family.given]
    is_estimated = any(depends[number] for number in numbers if number is not None)
    return None if is_estimated else family


@dataclass(frozen=True, eq=False)
class Record:
    """A sample statement as it ran.

    - `kind`: that of its site.
    - `plates`: the names of its plates, the innermost first.
    - `plate_dims`: which of the axes of its batch shape each plate is, counted from the right.
    - `has_density`: whether its site has its log-density though it may be read as a family.
    - `sampling`: the part of the multiplicity that are sampling weights, if any.
    """

    name: str
    kind: str
    fn: Any
    value: Any
    multiplicity: Any
    plates: tuple[str, ...]
    plate_dims: tuple[int, ...]
    has_density: bool
    sampling: Any = None

    def sites(self, outputs: list) -> Iterator[Site]:
        """Add the statement's arrays to the outputs, and yield its site.

        A `Select` is a site for each of its components.
        """
        select = layers_of(self.fn).core
        if not isinstance(select, Select):
            yield self._site(outputs, select)
            return
        unchosen = (select.index < 0) | (select.index >= len(select.components))
        # that none is chosen is checked once, with the first component
        for number, component in enumerate(select.components):
            gate = select.index == number
            yield self._site(outputs, component, gate, unchosen if number == 0 else None)

    def _site(
        self, outputs: list, distribution: Any, gate: Any = None, unchosen: Any = None
    ) -> Site:
        """Return the site of the statement's innermost distribution, or of one of its components.

        `gate`, `unchosen`: where the component is chosen, and where none of them is.
        """
        _, outer_masks, declared = layers_of(self.fn)
        core, inner_masks, inside = layers_of(distribution)
        batch = tuple(self.fn.batch_shape) + tuple(self.fn.event_shape)[:declared]
        # a mask has no axes for what `to_event` declared inside of it: they are added as unit axes
        masks = [(mask, declared + inside - depth) for mask, depth in outer_masks]
        masks += [(mask, inside - depth) for mask, depth in inner_masks]

        def emit(array, units: int = 0) -> Any:
            """Add an output, with unit axes for what `to_event` declared inside."""
            if array is None:
                return None
            outputs.append(jnp.reshape(array, jnp.shape(array) + (1,) * units))
            return len(outputs) - 1

        arguments = registered_arguments(type(core))
        available = core.get_args() if arguments else {}
        if self.kind == "prior" and isinstance(core, dist.TransformedDistribution):
            # such as an inverse Wishart: what is transformed has its arguments
            available = {name: getattr(core, name) for name in arguments}
        is_observed = self.kind == "observed"
        is_family = self.kind != "prior" and family_of(type(core), available) is not None
        density = None
        # NumPyro's densities take as long to trace as all the rest of a statement
        if self.has_density or not is_family:
            value = _feasible(core, self.value, masks) if is_observed else self.value
            density = _log_prob(core, value)
        units = declared + inside
        multiplicity = sampling = emit(self.multiplicity, units)
        if self.sampling is not self.multiplicity:
            sampling = emit(self.sampling, units)
        return Site(
            self.name,
            self.kind,
            type(core),
            batch + tuple(distribution.event_shape)[:inside],
            tuple(core.event_shape),
            self.plates,
            tuple(dim - declared - inside for dim in self.plate_dims),
            SiteOutputs(
                unchosen=emit(unchosen, inside),
                value=emit(self.value),
                multiplicity=multiplicity,
                sampling=sampling,
                masks=[emit(mask, units) for mask, units in masks if mask is not True],
                gate=emit(gate, inside),
                args={name: emit(available[name]) for name in arguments if name in available},
                log_prob=emit(density),
                valid=emit(_valid(core, self.value)) if is_observed else None,
                mean=emit(_mean(core)) if self.kind == "prior" else None,
            ),
            dict(core.arg_constraints),
            _is_discrete(core, self.value),
        )


def _is_discrete(core: Any, value: Any) -> bool:
    """Return whether a distribution is of discrete values, as far as it says."""
    try:
        return bool(core.support.is_discrete)
    except NOT_THERE:
        return not jnp.issubdtype(jnp.result_type(value), jnp.inexact)


def _feasible(core: Any, value: Any, masks: Sequence[tuple[Any, int]]) -> Any:
    """Return an observed value with a feasible one where it is masked or outside the support."""
    counted = True
    for mask, units in masks:
        over_events = (1,) * (units + len(core.event_shape))
        counted = jnp.logical_and(counted, jnp.reshape(mask, (*jnp.shape(mask), *over_events)))
    try:
        # a density outside its support may have a NaN gradient, which no mask removes
        return value if core.support is None else feasible(core, value, counted)
    except NOT_THERE:
        return value


def _log_prob(core: Any, value: Any) -> Any:
    try:
        return core.log_prob(value)
    # also where shapes do not broadcast: `elements_of` then says of which site
    except (*NOT_THERE, ValueError):
        return None


def _mean(core: Any) -> Any:
    try:
        mean = jnp.asarray(core.mean)
    except (*NOT_THERE, ValueError):
        return None
    return mean if mean.shape == tuple(core.shape()) else None


def _valid(core: Any, value: Any) -> Any:
    """Return whether each entry of an observed value lies in the distribution's support."""
    # a factor has no entries
    if 0 in core.event_shape:
        return None
    try:
        return None if core.support is None else core.support(value)
    except NOT_THERE:
        return None
