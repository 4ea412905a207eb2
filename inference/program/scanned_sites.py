"""A scan and the handlers around it: what they say of its sites, and what its step is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.handlers import condition, substitute

from emjax.program.latents import layers_of
from emjax.program.records import Site
from emjax.program.scans import Scan


@dataclass(frozen=True, eq=False)
class ScannedSite:
    """A site of a scan, with a time axis in front.

    - `arrays`: its arrays, which its outputs number.
    - `start`: the step of its first element.
    - `length`: how many steps the scan has.
    - `batch`: the batch shape of its statement within a step.
    - `units`: how many axes of its elements `to_event` declared.
    """

    site: Site
    arrays: Sequence
    start: int
    length: int
    batch: tuple[int, ...]
    units: int

    def sites(self, outputs: list) -> Iterator[Site]:
        """Add the site's arrays to the outputs, and yield it."""
        offset = len(outputs)
        outputs.extend(self.arrays)
        yield self.site.renumbered(lambda number: number + offset)

    def under(self, fn: Any, scale: Any) -> ScannedSite:
        """Return the site under the handlers around the scan.

        They saw the message for all steps: `fn` has the masks and `scale` the multiplicity that
        they gave it.
        """
        outputs, arrays = self.site.outputs, list(self.arrays)
        masks = list(outputs.masks)
        for mask, _ in layers_of(fn).masks:
            if mask is not True:
                masks.append(len(arrays))
                arrays.append(self._aligned(mask))
        multiplicity = outputs.multiplicity
        if scale is not None:
            within_step = 1.0 if multiplicity is None else arrays[multiplicity]
            multiplicity = len(arrays)
            arrays.append(within_step * self._aligned(scale))
        outputs = replace(outputs, masks=masks, multiplicity=multiplicity)
        return replace(self, site=replace(self.site, outputs=outputs), arrays=arrays)

    def _aligned(self, array):
        """Return an array over (time, batch) as one over the elements of the site."""
        array, rank = jnp.asarray(array), 1 + len(self.batch)
        array = array.reshape((1,) * (rank - array.ndim) + array.shape)
        # of length 1, it is the same at all steps, and nothing is cut
        if array.shape[0] == self.length:
            stop = self.start + self.site.elements[0]
            array = jax.lax.slice_in_dim(array, self.start, stop)
        # its value may have more axes in front than its statement
        extra = len(self.site.elements) - rank - self.units
        steps, *batch = array.shape
        return array.reshape((steps, *(1,) * extra, *batch, *(1,) * self.units))


def scan_messages(scan: Scan, records: Sequence[Any], is_reversed: bool) -> dict[str, dict]:
    """Return a message for all steps, by name, for each statement of a scan's step.

    The handlers around the scan are to see it; `_scanned` holds the statement's sites.
    `is_reversed`: whether its steps run from the last of what it reads to the first.
    """
    batches = {record.name: tuple(record.fn.batch_shape) for record in records}
    # of a `Select`'s sites, the first
    elements = {site.name: site.elements for site in reversed(scan.step.sites)}
    sites: dict[str, list[ScannedSite]] = {name: [] for name in batches}
    for start, site, arrays in scan.sites():
        batch = batches[site.name]
        units = len(elements[site.name]) - len(batch)
        mean = site.outputs.mean
        # a mean is an answer: its steps are in the order of the data, whichever way they run
        is_flipped = is_reversed and mean is not None
        if is_flipped:
            arrays = [jnp.flip(a, 0) if i == mean else a for i, a in enumerate(arrays)]
        scanned = ScannedSite(site, arrays, start, scan.length, batch, units)
        sites[site.name].insert(0 if is_flipped else len(sites[site.name]), scanned)

    messages = {}
    for name, batch in batches.items():
        # handlers see the shape of all steps; the message itself adds nothing to the density
        fn = dist.Unit(jnp.zeros((scan.length, *batch)))
        messages[name] = {
            "type": "sample",
            "name": name,
            "fn": fn,
            "args": (),
            "kwargs": {"rng_key": None, "sample_shape": ()},
            "value": jnp.zeros(fn.shape()),
            "scale": None,
            "is_observed": True,
            "intermediates": [],
            "cond_indep_stack": [],
            "infer": {},
            "_control_flow_done": True,
            "_scanned": sites[name],
        }
    return messages


def conditioned(f: Callable, stack: Sequence, length: int, time: Any) -> Callable:
    """Return a scan's step as the `condition` and `substitute` handlers around the scan want it.

    `stack`: (kind of a handler, its data), which hold for a statement the values of all steps, of
    which the step at `time` gets its own.
    """
    for kind, data in stack:
        if kind == "condition":
            f = condition(f, condition_fn=_given(data, length, time))
        elif kind == "substitute":
            f = substitute(f, substitute_fn=_given(data, length, time))
        else:
            raise ValueError(
                f"EM cannot look through handlers.{kind} around a scan. Apply it within the step."
            )
    return f


def _given(data: Any, length: int, time: Any) -> Callable:
    """Return the function of a message that says which value a handler gives its statement."""

    def value(msg):
        if msg["type"] != "sample":
            return None
        values: Any = data(msg) if callable(data) else data.get(msg["name"])
        if values is None:
            return None
        rank = len(msg["kwargs"]["sample_shape"]) + len(msg["fn"].shape())
        # one value for all steps
        if jnp.ndim(values) == rank:
            return values
        if jnp.ndim(values) != rank + 1 or jnp.shape(values)[0] != length:
            raise ValueError(
                f"Site '{msg['name']}' is in a scan of {length} steps and is given values of "
                f"shape {jnp.shape(values)}. Give it one value for "
                "every step."
            )
        return jnp.asarray(values)[time]

    return value


def carry_and_result(returned: Any) -> tuple[Any, Any]:
    """Return what a step returns: the carry, and what is stacked.

    Errors: `ValueError` for anything but a pair.
    """
    if not isinstance(returned, tuple | list) or len(returned) != 2:
        raise ValueError(
            "The step of a scan must return two values, the carry and what is stacked, and "
            f"returns {_in_words(returned)}. Write return z, None."
        )
    return returned[0], returned[1]


def _in_words(returned: Any) -> str:
    if isinstance(returned, tuple | list):
        return f"{len(returned)} values"
    return "None" if returned is None else "one"


def check_carry(before: Any, after: Any) -> None:
    """Raise `ValueError` for a step that returns another kind of carry than it takes."""
    taken, returned = jax.tree.structure(before), jax.tree.structure(after)
    if taken != returned:
        raise ValueError(
            f"The step of a scan must return a carry like the one that it takes: it takes "
            f"{taken} and returns {returned}."
        )
    for leaf, leaf_after in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        if jnp.shape(leaf) != jnp.shape(leaf_after):
            raise ValueError(
                f"The step of a scan takes a carry of shape {jnp.shape(leaf)} and returns one of "
                f"shape {jnp.shape(leaf_after)}. Give the initial carry "
                f"its full shape: jnp.zeros({jnp.shape(leaf_after)}, ...)."
            )


def check_initial_carry(init: Any, after: Any) -> None:
    """Raise `ValueError` for an initial carry of another type than a step returns: as JAX does."""
    for (path, leaf), leaf_after in zip(
        jax.tree.leaves_with_path(init), jax.tree.leaves(after), strict=True
    ):
        # a carry of one array has no path
        which = f"carry{jax.tree_util.keystr(path)}"
        dtype, dtype_after = jnp.result_type(leaf), jnp.result_type(leaf_after)
        # JAX makes Python's numbers, and what is made of them alone, real where a step does
        is_weak = jax.typeof(leaf).weak_type
        is_promoted = is_weak and jnp.promote_types(dtype, dtype_after) == dtype_after
        if dtype != dtype_after and not is_promoted:
            raise ValueError(
                f"The step of a scan takes a {which} of dtype {dtype} and returns one of "
                f"{dtype_after}. Give the initial carry the dtype that it has after a step: "
                f"{_initial(jnp.shape(leaf_after), dtype_after)}."
            )


def _initial(shape: tuple[int, ...], dtype: Any) -> str:
    # latents are of the integers that JAX takes by default, in double precision and in single
    kind = {jnp.result_type(int): "int", jnp.result_type(float): "float"}.get(dtype, f"'{dtype}'")
    return f"jnp.zeros({shape}, dtype={kind})"
