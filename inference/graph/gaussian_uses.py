"""Which uses of Gaussian latents have no exact integral, and what to write instead."""

from __future__ import annotations

from collections.abc import Sequence

from emjax.graph.outputs import Outputs
from emjax.program.integrated import INTEGRATED
from emjax.program.records import Site
from emjax.tables.affine import NotAffine, gaussians_of

AFFINE = (
    "There is an exact integral where the location of a Normal or MultivariateNormal is affine in "
    "the latent, such as mean + x @ {latent}, with coefficients free of such latents. Write it so, "
    "or leave '{latent}' out of EM(..., integrate=...): it is then a parameter, which is estimated "
    "by MAP."
)
PRIOR = (
    "It is a parameter, which is estimated by MAP: integrate it out, too, or leave '{latent}' out "
    "of EM(..., integrate=...)."
)
# what some sites that are no normals may be written as
WRITTEN = {
    "LogNormal": "Observe its logarithm, dist.Normal(loc, scale). ",
    "StudentT": "Write it as dist.Normal(loc, scale). ",
    "PartiallyObserved": "If its coordinates are independent given the latent, mask them: "
    "dist.Normal(loc, scale).mask(observed).to_event(1). ",
}


def check_gaussian_uses(outputs: Outputs, sites: Sequence[Site]) -> None:
    """Raise `ValueError` for the first site that reads Gaussian latents otherwise than it may."""
    for site in sites:
        for number in outputs.of(site):
            latents = gaussians_of(outputs.values[number])
            how = _misuse(outputs, site, number) if latents else ""
            if how:
                names = " and ".join(f"'{latent}'" for latent in latents)
                which = f"Gaussian latent{'s' * (len(latents) > 1)} {names}"
                remedy = _remedy(site).format(latent=latents[0])
                raise ValueError(f"Site '{site.name}' reads {which} {how}. {remedy}")


def _misuse(outputs: Outputs, site: Site, number: int) -> str:
    """Return how an output of a site reads Gaussian latents, if it must not do so."""
    value, numbers = outputs.values[number], site.outputs
    if site.is_prior or site.distribution not in INTEGRATED:
        return f"and is {site.distribution.__name__}"
    if number == numbers.value or number == numbers.args.get("loc"):
        if isinstance(value, NotAffine):
            return f"{value.how}, which is not affine"
        return "" if numbers.gate is None else "and is a component of a Select"
    names = {where: f"in its {name}" for name, where in numbers.args.items()}
    names |= dict.fromkeys(numbers.masks, "in its mask")
    return names.get(number, "in its multiplicity")


def _remedy(site: Site) -> str:
    if site.is_prior:
        return PRIOR
    return WRITTEN.get(site.distribution.__name__, "") + AFFINE
