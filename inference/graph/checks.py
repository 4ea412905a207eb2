"""What must not be: raised where the program alone tells, recorded for later where data decide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal, Var

from emjax.graph.factor_graph import Check
from emjax.graph.sites import Outputs
from emjax.numerics.arrays import evaluate
from emjax.numerics.jaxprs import dependencies
from emjax.program.records import Site
from emjax.tables.lifting import lift
from emjax.tables.lookup import MixedElements, Reach
from emjax.tables.named import Named, without_rows


def check_plates(outputs: Outputs, site: Site, value: Named, elements: tuple[int, ...]) -> None:
    """Raise `ValueError` where an observation has more rows than the latents that its distribution
    reads.
    """
    latents = [
        axis.source
        for number in outputs.read_by(site)
        for axis in outputs.values[number].latent_axes
    ]
    if site.is_observed and latents and elements != site.elements:
        own = (0,) * (len(elements) - len(site.elements)) + site.elements
        missing = [size for size, known in zip(elements, own, strict=True) if size != known]
        raise ValueError(
            f"Site '{site.name}': the observed value has shape {value.shape}, its distribution "
            f"{site.elements + site.event}, so that one latent "
            f"'{latents[0]}' would serve every row. A plate is missing: put '{latents[0]}' and "
            f"'{site.name}' inside\n"
            f"    with numpyro.plate('rows', {missing[0]}):"
        )


def check_elements(site: Site, rank: int, values: Sequence[Named]) -> None:
    """Raise `MixedElements` where one event reads several elements of a latent."""
    for axis in (axis for value in values for axis in value.latent_axes):
        if any(axis.varies[rank:]):
            raise MixedElements(axis.source, site.name)


def index_checks(
    outputs: Outputs, sites: Sequence[Site], reached: Mapping[Var, Sequence[Reach]]
) -> list[Check]:
    """Return where indices that data give are out of range, under the first site that reads what
    they look up.
    """
    program, jaxpr = outputs.program, outputs.program.jaxpr.jaxpr
    parameters = dependencies(
        jaxpr, dict(zip(jaxpr.invars, sorted(program.parameters), strict=False))
    )
    lookups = dependencies(jaxpr, {var: var for var in reached})
    seen: set = set()
    checks = []
    for site in sites:
        atoms = [jaxpr.outvars[number] for number in outputs.of(site)]
        read = set().union(
            *(lookups.get(atom, ()) for atom in atoms if not isinstance(atom, Literal))
        )
        for found in [
            found
            for var, several in reached.items()
            if var in read
            for found in several
            if found not in seen
        ]:
            seen.add(found)
            if not any(
                parameters.get(index) for index in found.indices if not isinstance(index, Literal)
            ):
                checks.append(Check("index", site.name, found.what, found.bad))
    return checks


def observation_checks(
    outputs: Outputs, site: Site, value: Named, mask: Named | None, observed: Named | None
) -> list[Check]:
    """Return where an observation is NaN or outside the support. `observed`: which of its
    coordinates are read (None: all).
    """
    number, event = site.outputs.valid, len(site.event)
    if not site.is_observed or outputs.depends[site.outputs.value] or value.latent_axes:
        return []
    if observed is not None and observed.latent_axes:
        raise ValueError(
            f"Site '{site.name}': which coordinates are observed depends on latent "
            f"'{observed.latent_axes[0].source}'. It must be known: pass "
            "observed=~jnp.isnan(x), or write what may be missing under which latent as "
            "emjax.distributions.Select(z, [...])."
        )
    found = []
    if jnp.issubdtype(value.array.dtype, jnp.inexact):
        nan = evaluate(jnp.isnan, without_rows(value).array)
        nan = nan if observed is None else jnp.logical_and(nan, without_rows(observed).array)
        nan = evaluate(lambda a: a.any(axis=tuple(range(a.ndim - event, a.ndim))), nan)
        found.append(("nan", Named(nan, value.shape[: len(value.shape) - event])))
    if number is not None and outputs.possible(site, len(outputs.values[number].shape)) is None:
        valid = without_rows(outputs.values[number])
        found.append(("support", replace(valid, array=evaluate(jnp.logical_not, valid.array))))
    return [
        Check(kind, site.name, site.family.__name__, _unmasked(bad, mask)) for kind, bad in found
    ]


def choice_checks(outputs: Outputs, site: Site, rank: int) -> list[Check]:
    """Return where data choose none of the components of a `Select`; raise `ValueError` where its
    index does so whatever the data.
    """
    number = site.outputs.unchosen
    if number is None or outputs.depends[number]:
        return []
    bad = without_rows(outputs.values[number])
    latents = ", ".join(f"'{axis.source}'" for axis in bad.axes)
    mask = outputs.all_of(site.outputs.masks, rank)
    bad = Named(bad.array.any(axis=tuple(range(len(bad.axes)))), bad.shape)
    bad = _unmasked(bad, mask if mask is None or not mask.latent_axes else None)
    if not bad.is_static:
        return [Check("index", site.name, "it chooses none of the components of Select", bad)]
    if bad.array.any():
        raise ValueError(
            f"Site '{site.name}': the index of Select{f', latent {latents},' if latents else ''} "
            "takes values that choose none of its components. "
            "Indices run from 0: give Select a component for every value."
        )
    return []


def _unmasked(bad: Named, mask: Named | None) -> Named:
    """Return what is bad and not masked."""
    if mask is None:
        return bad
    rank = max(len(bad.shape), len(mask.shape))
    bad, own = bad.padded(rank), without_rows(mask).padded(rank)
    return lift(jnp.logical_and, [bad, own], np.broadcast_shapes(bad.shape, own.shape))
