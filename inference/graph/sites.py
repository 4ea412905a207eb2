"""What the factor graph reads of each site: its family, its prior, its outputs, and whether it
matters at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import jax.numpy as jnp
import numpy as np

from emjax.families.family import Family, Prior, family_of, prior_of
from emjax.numerics.jaxprs import output_dependencies
from emjax.program.latents import UnboundedLatent
from emjax.program.records import Site
from emjax.program.trace import Program
from emjax.tables.lifting import lift
from emjax.tables.named import Named, full


def depends_on_parameters(program: Program) -> list[frozenset[str]]:
    """Return, for each output of the traced program, the parameters that it depends on."""
    jaxpr = program.jaxpr.jaxpr
    names = sorted(program.parameters)
    return output_dependencies(jaxpr, dict(zip(jaxpr.invars, names, strict=False)))


def family_for(site: Site, depends: Sequence[frozenset[str]]) -> Family | None:
    """Return the exponential family that a site is read as; None if its log-density is evaluated
    instead.
    """
    family = family_of(site.family, site.outputs.args)
    if family is None or site.is_prior:
        return None
    # what statistics are computed of must not move with the parameters
    fixed = [
        site.outputs.value,
        *site.outputs.masks,
        site.outputs.gate,
        *(site.outputs.args[name] for name in family.given),
    ]
    return None if any(depends[number] for number in fixed if number is not None) else family


def registered_prior(site: Site) -> Prior | None:
    """Return the prior that a site's distribution is registered as."""
    return prior_of(site.family) if site.is_prior else None


def written_prior(site: Site) -> Prior | None:
    """Return the prior whose density emjax writes itself: 0 · log 0 is 0 in it, and NaN in
    NumPyro's.
    """
    prior = registered_prior(site)
    return (
        prior
        if prior is not None
        and prior.log_constant is not None
        and set(prior.arguments) <= set(site.outputs.args)
        else None
    )


def needed_outputs(program: Program, depends: Sequence[frozenset[str]]) -> set[int]:
    """Return which outputs of the traced program the factor graph reads."""
    needed: set = set()
    for site in program.sites:
        family, prior, outputs = family_for(site, depends), registered_prior(site), site.outputs
        names = (
            (*family.arguments, *family.given)
            if family is not None
            else prior.arguments
            if prior is not None
            else ()
        )
        needed |= {outputs.args[name] for name in names if name in outputs.args}
        needed |= {
            outputs.value,
            *outputs.masks,
            outputs.multiplicity,
            outputs.gate,
            outputs.unchosen,
            outputs.valid,
        }
        needed |= {outputs.log_prob} if family is None else set()
    return needed - {None}


@dataclass(frozen=True, eq=False)
class Outputs:
    """A program's outputs as named values (None where nothing reads them), and the parameters that
    each depends on.
    """

    program: Program
    values: Sequence[Named | None]
    depends: Sequence[frozenset[str]]

    def read_by(self, site: Site) -> list[int]:
        """Return the outputs that a site's distribution consists of: its arguments or its
        log-density, its masks, its gate.
        """
        numbers = [
            *site.outputs.args.values(),
            site.outputs.log_prob,
            *site.outputs.masks,
            site.outputs.gate,
        ]
        return [
            number for number in numbers if number is not None and self.values[number] is not None
        ]

    def of(self, site: Site) -> list[int]:
        """Return all outputs that a site's contribution depends on."""
        return [
            *self.read_by(site),
            site.outputs.value,
            *([] if site.outputs.multiplicity is None else [site.outputs.multiplicity]),
        ]

    def sources(self, site: Site) -> set[str]:
        """Return the latents and parameters that a site's contribution depends on, itself aside."""
        numbers = self.of(site)
        latents = {axis.source for number in numbers for axis in self.values[number].latent_axes}
        return latents.union(*(self.depends[number] for number in numbers)) - {site.name}

    def argument(self, site: Site, name: str, rank: int) -> Named:
        """Return an argument with its event axes at their full length."""
        event = site.arg_constraints[name].event_dim
        padded = self.values[site.outputs.args[name]].padded(rank + event)
        return replace(padded, array=full(padded, range(rank, rank + event)))

    def arguments(
        self, site: Site, names: Sequence[str], rank: int
    ) -> dict[str, tuple[Named, int]]:
        """Return arguments with the number of their event axes."""
        return {
            name: (self.argument(site, name, rank), site.arg_constraints[name].event_dim)
            for name in names
        }

    def prior_arguments(self, site: Site) -> dict[str, Named]:
        """Return the arguments of a prior that may be conjugate."""
        prior, numbers = registered_prior(site), site.outputs.args
        return {
            name: self.values[numbers[name]]
            for name in (prior.arguments if prior else ())
            if name in numbers
        }

    def all_of(self, numbers: Sequence[int], rank: int) -> Named | None:
        """Return where all of some outputs are true; None if there are none of them."""
        joint = None
        for one in (self.values[number].padded(rank) for number in numbers):
            joint = (
                one
                if joint is None
                else lift(
                    jnp.logical_and, [joint, one], np.broadcast_shapes(joint.shape, one.shape)
                )
            )
        return joint

    def possible(self, site: Site, rank: int) -> Named | None:
        """Return where an observation is in the support, if that depends on parameters or on
        latents (None: everywhere).

        NumPyro's distributions evaluate their formula outside the support, too.
        """
        number = site.outputs.valid
        if number is None or not (
            self.depends[number] or self.values[number].latent_axes or site.outputs.gate is not None
        ):
            return None
        return self.values[number].padded(rank)


def relevant_sites(outputs: Outputs) -> tuple[list[Site], list[Site], tuple[str, ...]]:
    """Return the sites that matter, those of the discrete latents that no observation depends on,
    which sum to one, and the names of the continuous ones, which integrate to one.
    """
    program = outputs.program
    read: dict[str, set[str]] = {}
    for site in program.sites:
        read.setdefault(site.name, set()).update(outputs.sources(site))
    needed, new = set(), {site.name for site in program.sites if site.is_observed}
    while new:
        needed |= new
        new = set().union(*(read[name] for name in new if name in read)) - needed
    unused = {name for name, p in program.parameters.items() if p.is_prior and name not in needed}
    unbounded = {
        name: latent
        for name, latent in program.latents.items()
        if isinstance(latent, UnboundedLatent)
    }
    sites = [
        site for site in program.sites if site.name not in unused and site.name not in unbounded
    ]
    for name in sorted(set(unbounded) & set().union(*(read[site.name] for site in sites))):
        raise ValueError(unbounded[name].message)
    predicted = [site for site in sites if site.is_latent and site.name not in needed]
    return [site for site in sites if site not in predicted], predicted, tuple(sorted(unused))
