"""What the factor graph reads of each site: its family, its outputs, and whether it matters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from emjax.families.family import Prior, prior_of
from emjax.program.latents import UnboundedLatent
from emjax.program.records import Site, family_for
from emjax.program.trace import Program
from emjax.tables.affine_values import AffineValue
from emjax.tables.lifting import lift
from emjax.tables.named import Named, full


def registered_prior(site: Site) -> Prior | None:
    """Return the prior that a site's distribution is registered as."""
    return prior_of(site.distribution) if site.is_prior else None


def written_prior(site: Site) -> Prior | None:
    """Return the prior whose density emjax writes itself: in NumPyro's, 0 · log 0 is NaN."""
    prior = registered_prior(site)
    if prior is None or prior.log_constant is None:
        return None
    return prior if set(prior.arguments) <= set(site.outputs.args) else None


def needed_outputs(program: Program, depends: Sequence[frozenset[str]]) -> set[int]:
    """Return which outputs of the traced program the factor graph reads."""
    needed: set = set()
    for site in program.sites:
        family, prior, outputs = family_for(site, depends), registered_prior(site), site.outputs
        arguments: tuple[str, ...] = ()
        if family is not None:
            arguments = (*family.arguments, *family.given)
        elif prior is not None:
            arguments = tuple(prior.arguments)
        needed.update(outputs.args[name] for name in arguments if name in outputs.args)
        needed.update([outputs.value, outputs.valid, outputs.multiplicity, *outputs.masks])
        needed.update([outputs.gate, outputs.unchosen])
        # else the program's own density is not read, and drops out of the trace
        if family is None:
            needed.add(outputs.log_prob)
    return needed - {None}


@dataclass(frozen=True, eq=False)
class Outputs:
    """A program's outputs.

    - `values`: as named values, None where nothing reads them.
    - `depends`: the parameters that each depends on.
    - `is_unconstrained`: whether densities of priors are those of unconstrained coordinates.
    """

    program: Program
    values: Sequence[Any]
    depends: Sequence[frozenset[str]]
    is_unconstrained: bool = False

    @property
    def at_zero(self) -> Outputs:
        """The outputs where all Gaussian latents are zero."""
        values = [v.constant if isinstance(v, AffineValue) else v for v in self.values]
        return replace(self, values=values)

    def read_by(self, site: Site) -> list[int]:
        """Return the outputs that a site's distribution consists of.

        They are its arguments or its log-density, its masks, and its gate.
        """
        outputs = site.outputs
        numbers = [*outputs.args.values(), outputs.log_prob, *outputs.masks, outputs.gate]
        given = [number for number in numbers if number is not None]
        return [number for number in given if self.values[number] is not None]

    def of(self, site: Site) -> list[int]:
        """Return all outputs that a site's contribution depends on."""
        numbers = [*self.read_by(site), site.outputs.value, site.outputs.multiplicity]
        return [number for number in numbers if number is not None]

    def sources(self, site: Site) -> set[str]:
        """Return the latents and parameters that a site's contribution depends on, itself aside."""
        sources: set = set()
        for number in self.of(site):
            sources.update(axis.source for axis in self.values[number].latent_axes)
            sources.update(self.depends[number])
        return sources - {site.name}

    def argument(self, site: Site, name: str, rank: int) -> Named:
        """Return an argument with its event axes at their full length."""
        event = site.arg_constraints[name].event_dim
        padded = self.values[site.outputs.args[name]].padded(rank + event)
        return replace(padded, array=full(padded, range(rank, rank + event)))

    def arguments(
        self, site: Site, names: Iterable[str], rank: int
    ) -> dict[str, tuple[Named, int]]:
        """Return arguments with the number of their event axes."""
        return {
            name: (self.argument(site, name, rank), site.arg_constraints[name].event_dim)
            for name in names
        }

    def prior_arguments(self, site: Site) -> dict[str, Named | None]:
        """Return the arguments of a prior that may be conjugate."""
        prior, numbers = registered_prior(site), site.outputs.args
        if prior is None:
            return {}
        return {name: self.values[numbers[name]] for name in prior.arguments if name in numbers}

    def all_of(self, numbers: Sequence[int], rank: int) -> Named | None:
        """Return where all of some outputs are true; None if there are none of them."""
        joint = None
        for number in numbers:
            value = self.values[number].padded(rank)
            if joint is None:
                joint = value
            else:
                shape = np.broadcast_shapes(joint.shape, value.shape)
                joint = lift(jnp.logical_and, [joint, value], shape)
        return joint

    def constant_mask(self, number: int) -> bool | None:
        """Return what a mask says of all elements, whatever the data; None if that is not one."""
        mask = self.values[number]
        if not mask.is_static or mask.latent_axes or mask.array.size == 0:
            return None
        if mask.array.all():
            return True
        return None if mask.array.any() else False

    def possible(self, site: Site, rank: int) -> Named | None:
        """Return where an observation is in the support, if parameters or latents decide that.

        None: it is, everywhere, as far as these are concerned. NumPyro's distributions evaluate
        their formula outside the support, too.
        """
        number = site.outputs.valid
        if number is None:
            return None
        value = self.values[number]
        is_decided = self.depends[number] or value.latent_axes or site.outputs.gate is not None
        return value.padded(rank) if is_decided else None


def present_sites(outputs: Outputs) -> list[Site]:
    """Return the sites with the masks that are no constants: what a constant excludes is not there.

    A latent is: where it is masked, it is uniform.
    """
    present = []
    for site in outputs.program.sites:
        constants = {number: outputs.constant_mask(number) for number in site.outputs.masks}
        if False in constants.values() and not site.is_drawn:
            continue
        masks = [number for number, is_open in constants.items() if is_open is not True]
        present.append(replace(site, outputs=replace(site.outputs, masks=masks)))
    return present


def relevant_sites(outputs: Outputs) -> tuple[list[Site], list[Site], tuple[str, ...]]:
    """Return the sites that matter, those that are predicted, and the names of the unused.

    Predicted are latents that no observation depends on, which sum or integrate to one; unused are
    such continuous ones that are not integrated, which do so, too.
    """
    program, present = outputs.program, present_sites(outputs)
    read: dict[str, set[str]] = {}
    for site in present:
        # several sites may have one name: components of a `Select`, stretches of a scan
        read.setdefault(site.name, set()).update(outputs.sources(site))
    # what no observation depends on teaches nothing
    needed = _reached({site.name for site in present if site.is_observed}, read)
    unused = {name for name, p in program.parameters.items() if p.is_prior and name not in needed}
    unbounded = {
        name: latent
        for name, latent in program.latents.items()
        if isinstance(latent, UnboundedLatent)
    }
    sites = [site for site in present if site.name not in unused and site.name not in unbounded]
    # harmless unless something that stays reads it
    read_by_others = set().union(*(read[site.name] for site in sites))
    for name in sorted(set(unbounded) & read_by_others):
        raise ValueError(unbounded[name].message)
    is_drawn = {site.name for site in sites if site.is_drawn}
    predicted = [site for site in sites if site.name in is_drawn - needed]
    return [site for site in sites if site not in predicted], predicted, tuple(sorted(unused))


def _reached(names: set[str], read: Mapping[str, set[str]]) -> set[str]:
    """Return the names, and all that these read, directly or not."""
    reached: set[str] = set()
    waiting = names
    while waiting:
        reached |= waiting
        waiting = set().union(*(read.get(name, set()) for name in waiting)) - reached
    return reached
