"""How many samples the elements of a plate count as: one of which nothing is observed is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.core
import numpy as np
from jax.extend.core import ClosedJaxpr

from emjax.answers.reweighted import plates_of
from emjax.families.family import family_of, lacks_coordinates
from emjax.graph.slots import Slot, filled_axes
from emjax.graph.terms import Term
from emjax.numerics.jaxprs import output_dependencies, pruned, rearranged
from emjax.program.handlers.labels import UNKNOWN, Label, SoftLabel
from emjax.program.handlers.plates import Plate
from emjax.program.latents import latent_p
from emjax.program.records import Parameter, Site
from emjax.program.trace import Program, trace
from emjax.run.bound import Bound
from emjax.run.compiled import CompiledProgram
from emjax.tables.indices import Dense


def has_sampling_weights(bound: Bound) -> bool:
    """Whether elements of a program stand for others of a population."""
    terms = bound.compiled.graph.terms
    return any(term.site.outputs.sampling is not None for term in terms)


@dataclass(frozen=True, eq=False)
class SampleCounts:
    """What a program's data say of the elements of a plate.

    - `program`: traced for the data.
    - `values`: its outputs that say what counts, {number: array}; those that latents or parameters
      choose are absent.
    """

    bound: Bound
    plate: Plate
    program: Program
    values: Mapping[int, np.ndarray]

    @staticmethod
    def of(bound: Bound, plate: Plate) -> SampleCounts:
        """Return what the data that a program is bound to say of the elements of a plate."""
        parameters = bound.compiled.graph.parameters
        args, kwargs = bound.arguments
        model, integrate = bound.compiler.model, bound.compiler.settings.integrate
        program = trace(model, parameters, args, kwargs, bound.looks_at_values, integrate)
        numbers = [number for site in program.sites for number in _saying_what_counts(site)]
        inputs = [*_any_values(parameters), *bound.data]
        values = _evaluated(bound.compiled, "what counts", program.jaxpr, numbers, inputs)
        return SampleCounts(bound, plate, program, values)

    @property
    def multiplicities(self) -> np.ndarray:
        """How many samples each element counts as, (element,): 0 where nothing of it is observed.

        Else as many as its latents, or its observations if it has none, count as. Errors:
        `ValueError` where the sums of these differ.
        """
        inside = [site for site in self.program.sites if self.plate.name in site.plates]
        sites = [site for site in inside if site.is_latent]
        sites = sites or [site for site in inside if site.is_observed]
        # a plate that holds priors alone has no site that counts
        if not sites:
            return np.ones(self.plate.size)
        has_data = self.has_data
        found = {site.name: self._multiplicity(site) * has_data for site in sites}
        totals = {name: float(counts.sum()) for name, counts in found.items()}
        if len(set(totals.values())) > 1:
            listed = ", ".join(f"'{name}' {total:g}" for name, total in totals.items())
            raise ValueError(
                f"The sites of plate '{self.plate.name}' count different numbers of samples: "
                f"{listed}. Pass num_samples=..."
            )
        return next(iter(found.values()))

    def of_site(self, name: str) -> np.ndarray:
        """Return how often each element counts at a site, (element,): 0 if nothing is observed.

        Sampling weights count.
        """
        site = next(site for site in self.program.sites if site.name == name)
        return self._mean_along(site, site.outputs.multiplicity) * self.has_data

    def _multiplicity(self, site: Site) -> np.ndarray:
        """Return how often each element of the plate counts at a site, (element,)."""
        multiplicity = self._mean_along(site, site.outputs.multiplicity)
        if site.outputs.sampling is None:
            return multiplicity
        # a sampling weight is no number of samples
        weight = self._mean_along(site, site.outputs.sampling)
        return np.divide(multiplicity, weight, out=np.zeros_like(weight), where=weight > 0)

    def _mean_along(self, site: Site, number: int | None) -> np.ndarray:
        """Return an output along the plate, (element,); ones where there is none."""
        value = np.broadcast_to(self._value(number, 1.0), site.elements)
        # a site may have several elements for one of the plate
        return self._along_plate(site, value).mean(1)

    def _along_plate(self, site: Site, array: np.ndarray) -> np.ndarray:
        """Return an array over a site's elements, (element of the plate, others)."""
        axes = plates_of(self.bound).axes[site.name]
        (axis,) = [d for d, name in axes.items() if name == self.plate.name]
        # counted from the right of a value, whose event is no axis of its elements
        return np.moveaxis(array, axis + len(site.event), 0).reshape(self.plate.size, -1)

    @property
    def has_data(self) -> np.ndarray:
        """Whether anything is observed of each element, (element,), in the plate or elsewhere."""
        has_data = np.zeros(self.plate.size, bool)
        are_all_inside = True
        for site in self.program.sites:
            if site.is_observed and self.plate.name in site.plates:
                has_data |= self._along_plate(site, self._counted(site)).any(1)
            elif site.is_observed:
                are_all_inside = False
        return has_data if has_data.all() or are_all_inside else has_data | self._is_read

    def _counted(self, site: Site) -> np.ndarray:
        """Return where the data of an observed site count, over its elements."""
        conditions = [self._value(number, True) for number in site.outputs.masks]
        conditions.append(self._value(site.outputs.multiplicity, 1.0) > 0)
        if _may_lack_coordinates(site):
            conditions.append(self._value(site.outputs.args["observed"], np.ones(1, bool)).any(-1))
        value = self._value(site.outputs.value, None)
        if site.distribution is Label and value is not None:
            conditions.append(value != UNKNOWN)
        # equal evidence for all values says nothing
        if site.distribution is SoftLabel and value is not None:
            conditions.append((value != value[..., :1]).any(-1))
        counted = np.ones(site.elements, bool)
        for condition in conditions:
            counted = counted & condition
        return counted

    def _value(self, number: int | None, otherwise: Any) -> Any:
        return otherwise if number is None else self.values.get(number, otherwise)

    # ── data outside the plate, which look up latents within it ───────────────────────────────────

    @property
    def _is_read(self) -> np.ndarray:
        """Whether data depend on a latent of each element, (element,), through others or not."""
        latents = self.bound.compiled.graph.latents
        is_read = {name: np.zeros(each.shape, bool).ravel() for name, each in latents.items()}
        # what depends on a latent comes after it, so that it is known to be read by then
        for term, numbers in reversed(self._readers):
            name = term.site.name
            if term.site.is_observed:
                counted = self._counted(term.site)
            else:
                own = next(each for source, each in numbers if source == name)
                counted = is_read[name][own]
            for source, each in numbers:
                read, counts = np.broadcast_arrays(each, counted)
                # which element parameters choose may be any
                is_known = read.dtype != object
                is_read[source][read[counts] if is_known else slice(None)] = True
        of_plate = np.zeros(self.plate.size, bool)
        for site in self.program.sites:
            if site.is_latent and self.plate.name in site.plates:
                latent = is_read[site.name].reshape(latents[site.name].shape)
                of_plate |= self._along_plate(site, latent).any(1)
        return of_plate

    @property
    def _readers(self) -> list[tuple[Term, list[tuple[Any, np.ndarray]]]]:
        """The terms that read latents, and which elements of which they read: (latent, numbers)."""
        graph = self.bound.compiled.graph
        terms = [term for term in graph.terms if term.latent_axes]
        slots = set()
        for term in terms:
            for axis in term.latent_axes:
                if isinstance(axis.index, Dense) and isinstance(axis.index.array, Slot):
                    slots.add(axis.index.array.number)
        # the least multiplicity is an input, too, before the data
        inputs = [*_any_values(graph.parameters), np.zeros(()), *self.bound.data]
        compiled = self.bound.compiled
        values = _evaluated(compiled, "what is read", graph.full_jaxpr, sorted(slots), inputs)
        arrays = [values.get(number) for number in range(len(graph.full_jaxpr.jaxpr.outvars))]
        readers = []
        for term in terms:
            numbers = []
            for axis in filled_axes(term.latent_axes, arrays):
                numbers.append((axis.source, np.asarray(axis.index.dense(term.elements))))
            readers.append((term, numbers))
        return readers


def _saying_what_counts(site: Site) -> list[int]:
    """Return the numbers of a site's outputs that say how often its elements count."""
    outputs = site.outputs
    weights = (outputs.multiplicity, outputs.sampling)
    numbers = [number for number in weights if number is not None]
    if site.is_observed:
        numbers += outputs.masks
    if _may_lack_coordinates(site):
        numbers.append(outputs.args["observed"])
    if site.distribution in (Label, SoftLabel):
        numbers.append(outputs.value)
    return numbers


def _may_lack_coordinates(site: Site) -> bool:
    family = family_of(site.distribution, site.outputs.args)
    return site.is_observed and lacks_coordinates(family)


def _any_values(parameters: Mapping[str, Parameter]) -> list:
    """Return values of a program's parameters, for outputs that read none, as it takes them."""
    return [np.zeros(parameters[name].shape, parameters[name].dtype) for name in sorted(parameters)]


def _evaluated(
    compiled: CompiledProgram, key: str, closed: ClosedJaxpr, numbers: list[int], inputs: list
) -> dict[int, np.ndarray]:
    """Return the outputs of a jaxpr that neither latents nor parameters choose, {number: array}.

    `key`: what identifies the jaxpr among those of the program; `inputs`: parameters come first.
    """
    jaxpr, num_params = closed.jaxpr, len(compiled.graph.parameters)
    symbols = [eqn.outvars[0] for eqn in jaxpr.eqns if eqn.primitive is latent_p]
    choosing = dict.fromkeys([*jaxpr.invars[:num_params], *symbols], "chosen")
    chosen = output_dependencies(jaxpr, choosing)
    numbers = [number for number in numbers if not chosen[number]]
    # of a program without masks there is nothing to compile
    if not numbers:
        return {}
    jaxpr = rearranged(jaxpr, outvars=[jaxpr.outvars[number] for number in numbers])
    closed = pruned(ClosedJaxpr(jaxpr, closed.consts))

    def outputs(*inputs):
        return jax.core.eval_jaxpr(closed.jaxpr, closed.consts, *inputs)

    arrays = compiled.function(key, lambda: outputs, is_called_once=True)(*inputs)
    return dict(zip(numbers, jax.device_get(arrays), strict=True))
