"""Which sites may be integrated out, and what is wrong with asking for others."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpyro.distributions as dist

from emjax.program.latents import layers_of

INTEGRATED = (dist.Normal, dist.MultivariateNormal)
# what else is normal, or nearly so, and how it is written
WRITTEN = {
    "LowRankMultivariateNormal": "as dist.MultivariateNormal(loc, covariance_matrix=...)",
    "GaussianRandomWalk": "as dist.Normal(previous, scale) within a `scan`",
}


def can_be_integrated(fn: Any) -> bool:
    """Whether a distribution, in whatever `to_event`, `expand` and masks, is a normal one."""
    # a subclass may have another density
    return type(layers_of(fn).core) in INTEGRATED


def check_integrated(msg: Mapping[str, Any]) -> None:
    """Raise `ValueError` for a statement whose value cannot be integrated out, though it is asked.

    That is a parameter, and a site that is observed, discrete or not normal.
    """
    name, fn = msg["name"], msg["fn"]
    remove = f"Remove '{name}' from EM(..., integrate=...)"
    if msg["type"] == "param":
        raise ValueError(
            f"'{name}' is a numpyro.param, which has no distribution to be integrated over. "
            f"{remove}, or draw it: numpyro.sample('{name}', dist.Normal(0, 1))."
        )
    if msg["value"] is not None:
        raise ValueError(f"Site '{name}' has a value: nothing is to be integrated out. {remove}.")
    if fn.support is not None and fn.support.is_discrete:
        raise ValueError(
            f"Site '{name}' is discrete, and is summed out whatever is asked for. {remove}."
        )
    if not can_be_integrated(fn):
        kind = type(layers_of(fn).core).__name__
        normal = WRITTEN.get(kind, "as dist.Normal(...)")
        raise ValueError(
            f"Site '{name}' is {kind}, which has no exact integral: integrate= takes Normal and "
            f"MultivariateNormal. {remove}, and it is a parameter that is estimated by MAP, or "
            f"write it {normal}."
        )


def check_are_sites(integrate: Collection[str], sites: Collection[str]) -> None:
    """Raise `ValueError` for names to be integrated out that are no sites of the program."""
    for name in sorted(set(integrate) - set(sites)):
        known = ", ".join(f"'{site}'" for site in sorted(sites)) or "none"
        raise ValueError(f"integrate names '{name}', which is no site. The program has: {known}.")
