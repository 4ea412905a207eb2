"""What must not be: raised where the program alone tells, recorded for later where data decide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal, Var

from emjax.graph.factor_graph import Check
from emjax.graph.outputs import Outputs
from emjax.numerics.arrays import evaluate
from emjax.numerics.jaxprs import dependencies
from emjax.program.records import Site
from emjax.tables.lifting import lift
from emjax.tables.named import MixedElements, Named, without_rows
from emjax.tables.reach import Reach


def check_plates(outputs: Outputs, site: Site, value: Named, elements: tuple[int, ...]) -> None:
    """Raise `ValueError` where an observation has more rows than the latents that it reads."""
    if not site.is_observed or elements == site.elements:
        return
    read = [outputs.values[number] for number in outputs.read_by(site)]
    latents = [axis.source for named in read for axis in named.latent_axes]
    # without latents, more rows than the distribution has are NumPyro's broadcasting
    if not latents:
        return
    # axes that the distribution lacks are missing, too
    sizes = (0,) * (len(elements) - len(site.elements)) + site.elements
    missing = [size for size, known in zip(elements, sizes, strict=True) if size != known]
    raise ValueError(
        f"Site '{site.name}': the observed value has shape {value.shape}, "
        f"its distribution {site.elements + site.event}, "
        f"so that one latent '{latents[0]}' would serve every row. "
        f"A plate is missing: put '{latents[0]}' and '{site.name}' inside\n"
        f"    with numpyro.plate('rows', {missing[0]}):"
    )


def check_elements(site: Site, rank: int, values: Sequence[Named]) -> None:
    """Raise `MixedElements` where one event reads several elements of a latent."""
    for value in values:
        for axis in value.latent_axes:
            if any(axis.varies[rank:]):
                raise MixedElements(axis.source, site.name)


def index_checks(
    outputs: Outputs, sites: Sequence[Site], reached: Mapping[Var, Sequence[Reach]]
) -> list[Check]:
    """Return where indices that data give are out of range.

    Each stands under the first site that reads what it looks up.
    """
    program, jaxpr = outputs.program, outputs.program.jaxpr.jaxpr
    parameters = dependencies(jaxpr, dict(zip(jaxpr.invars, program.names, strict=False)))
    # a lookup is checked where it matters: under a site that reads its result
    lookups = dependencies(jaxpr, {var: var for var in reached})
    seen: set = set()
    checks = []
    for site in sites:
        read: set = set()
        for number in outputs.of(site):
            atom = jaxpr.outvars[number]
            read.update(() if isinstance(atom, Literal) else lookups.get(atom, ()))
        reaches = [reach for var, several in reached.items() if var in read for reach in several]
        for reach in reaches:
            variables = [index for index in reach.indices if not isinstance(index, Literal)]
            is_estimated = any(parameters.get(index) for index in variables)
            if reach not in seen and not is_estimated:
                checks.append(Check("index", site.name, reach.what, reach.bad))
            seen.add(reach)
    return checks


def observation_checks(
    outputs: Outputs, site: Site, value: Named, mask: Named | None, observed: Named | None
) -> list[Check]:
    """Return where an observation is NaN or outside the support.

    `observed`: which of its coordinates are read (None: all).
    """
    number, event = site.outputs.valid, len(site.event)
    # what is estimated, or chosen by latents, has no one value to check
    if not site.is_observed or outputs.depends[site.outputs.value] or value.latent_axes:
        return []
    if observed is not None and observed.latent_axes:
        raise ValueError(
            f"Site '{site.name}': which coordinates are observed depends on "
            f"latent '{observed.latent_axes[0].source}'. "
            "It must be known: pass observed=~jnp.isnan(x), "
            "or write what may be missing under which latent as "
            "emjax.distributions.Select(z, [...])."
        )
    wrong = []
    if jnp.issubdtype(value.array.dtype, jnp.inexact):
        nan = evaluate(jnp.isnan, without_rows(value).array)
        if observed is not None:
            nan = jnp.logical_and(nan, without_rows(observed).array)
        nan = evaluate(lambda a: a.any(axis=tuple(range(a.ndim - event, a.ndim))), nan)
        wrong.append(("nan", Named(nan, value.shape[: len(value.shape) - event])))
    # where parameters or latents decide, a value is impossible under some of them, not wrong
    if number is not None and outputs.possible(site, len(outputs.values[number].shape)) is None:
        valid = without_rows(outputs.values[number])
        wrong.append(("support", replace(valid, array=evaluate(jnp.logical_not, valid.array))))
    return [
        Check(kind, site.name, site.distribution.__name__, _unmasked(bad, mask))
        for kind, bad in wrong
    ]


def choice_checks(outputs: Outputs, site: Site, rank: int) -> list[Check]:
    """Return where data choose none of the components of a `Select`.

    Errors: `ValueError` where its index does so whatever the data.
    """
    number = site.outputs.unchosen
    if number is None or outputs.depends[number]:
        return []
    unchosen = without_rows(outputs.values[number])
    latents = ", ".join(f"'{axis.source}'" for axis in unchosen.axes)
    # wrong for one value of the latents is wrong
    for_any_value = unchosen.array.any(axis=tuple(range(len(unchosen.axes))))
    mask = outputs.all_of(site.outputs.masks, rank)
    if mask is not None and mask.latent_axes:
        mask = None
    bad = _unmasked(Named(for_any_value, unchosen.shape), mask)
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
    bad, mask = bad.padded(rank), without_rows(mask).padded(rank)
    return lift(jnp.logical_and, [bad, mask], np.broadcast_shapes(bad.shape, mask.shape))
