"""Run a NumPyro program with symbols in place of its discrete latents, and record its sites."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints
from numpyro.handlers import block, condition, seed, substitute
from numpyro.ops.pytree import PytreeTrace
from numpyro.primitives import Messenger

from emjax.families.distributions import PartiallyObserved
from emjax.numerics.guards import as_float
from emjax.program.latents import Latent, latent_of, latent_p, layers_of
from emjax.program.records import Parameter, Record, Site
from emjax.program.scans import Scan, Step


class Tracer(Messenger):
    """Give every unobserved site its value: a symbol if it is discrete, its parameter if it is
    continuous.

    `records` then say what ran: statements, and the sites of a scan. Without `params`, discrete
    latents are sampled, and parameters get their start by `init`.
    """

    def __init__(
        self,
        model,
        params: Mapping[str, Any] | None,
        init: Callable | None = None,
        step: Any = None,
        length: int | None = None,
    ):
        self.params, self.init = params, init
        self.step, self.length = step, length
        self.latents: dict[str, Latent] = {}
        self.parameters: dict[str, Parameter] = {}
        self.records: list[Record | ScannedSite] = []
        self.values: dict[str, Any] = {}
        self.starts: dict[str, Any] = {}
        self.fixed: set[str] = set()
        super().__init__(model)

    def sites(self, outputs: list) -> Iterator[Site]:
        """Add the arrays of all sites to the outputs, and yield the sites."""
        for record in self.records:
            yield from record.sites(outputs)

    def process_message(self, msg):
        kind, name = msg["type"], msg.get("name")
        if kind == "control_flow":
            self._control_flow(msg)
        if kind == "plate" and msg["value"] is None:
            raise ValueError(
                f"Plate '{name}' draws a random subsample, and EM would see only that. Remove "
                "`subsample_size`, or "
                "pass the rows to fit as data."
            )
        if kind not in ("sample", "param") or msg.get("_control_flow_done"):
            return
        if name in self.values:
            raise ValueError(f"Two sites are called '{name}'. Site names must differ.")
        if (
            kind == "param"
            and self.params is None
            and msg["value"] is not None
            and name not in self.starts
        ):
            self.fixed.add(name)  # by `handlers.substitute`: not estimated
        elif kind == "param" and self.params is not None:
            msg["value"] = self.params.get(name, msg["value"])
        elif kind == "sample" and msg["value"] is None:
            self._unobserved(msg)
        elif kind == "sample":
            msg["value"] = (
                msg["value"]
                if isinstance(msg["value"], np.ndarray | jax.Array)
                else jnp.asarray(msg["value"])
            )
            self._check_event_mask(msg)
        self.values[name] = msg["value"]

    def _started(self, msg):
        """Record a parameter whose start the program has just given."""
        name, constraint = msg["name"], msg["kwargs"].get("constraint", constraints.real)
        if msg["value"] is None:
            raise ValueError(
                f"Parameter '{name}' has no initial value. Write numpyro.param('{name}', value, "
                "constraint=...)."
            )
        msg["value"] = self.starts[name] = value = as_float(msg["value"])
        self.parameters[name] = Parameter(
            name, value.shape, value.dtype, constraint, is_prior=False
        )

    def _unobserved(self, msg):
        name, fn = msg["name"], msg["fn"]
        shape = tuple(msg["kwargs"].get("sample_shape", ()))
        if shape:
            fn = msg["fn"] = fn.expand(shape + fn.batch_shape)
            msg["kwargs"]["sample_shape"] = ()
        if fn.support is not None and fn.support.is_discrete and self.params is None:
            # a start may depend on a draw of the latents: they are sampled as the program says
            return
        if fn.support is not None and fn.support.is_discrete:
            self.latents[name] = latent = latent_of(
                name, fn, tuple(f.name for f in msg["cond_indep_stack"])
            )
            msg["value"] = latent_p.bind(
                name=name, shape=fn.batch_shape + fn.event_shape, dtype=latent.support.dtype
            )
        elif isinstance(layers_of(fn).core, PartiallyObserved):
            raise ValueError(
                f"Site '{name}' is PartiallyObserved and has no value. Give it its data, whose "
                "missing coordinates are not read: "
                f"numpyro.sample('{name}', PartiallyObserved(..., observed=~jnp.isnan(x)), obs=x)."
            )
        elif self.params is None:
            msg["kwargs"]["rng_key"] = numpyro.prng_key()
            drawn = (
                msg
                if self.length is None
                else {**msg, "fn": fn.expand((self.length, *fn.batch_shape))}
            )
            value = as_float(self.init(drawn))
            msg["value"] = value if self.length is None else value[0]
            self.starts[name] = value
            self.parameters[name] = Parameter(
                name, value.shape, value.dtype, fn.support, is_prior=True
            )
        else:
            msg["value"] = (
                self.params[name] if self.length is None else self.params[name][self.step]
            )

    def postprocess_message(self, msg):
        if (
            msg["type"] == "param"
            and self.params is None
            and msg["name"] not in {*self.starts, *self.fixed}
        ):  # those of a scan come again, stacked
            self._started(msg)
        if msg["type"] == "sample" and msg.get("_control_flow_done"):
            self.records += [
                scanned.under(msg["fn"], msg["scale"]) for scanned in msg.get("_scanned", ())
            ]
        elif msg["type"] == "sample":
            self.records.append(
                Record(
                    msg["name"],
                    self._kind(msg),
                    msg["fn"],
                    msg["value"],
                    msg["scale"],
                    tuple(frame.name for frame in msg["cond_indep_stack"]),
                )
            )

    def _kind(self, msg) -> str:
        if msg["is_observed"]:
            return "observed"
        return (
            "latent"
            if msg["name"] in self.latents
            else "prior"
            if msg["name"] in (self.params or ())
            else "observed"
        )

    def _check_event_mask(self, msg) -> None:
        """Raise `ValueError` for an `obs_mask` of single coordinates that NumPyro broadcasts: there
        are as many events as coordinates.
        """
        fn, shape = msg["fn"], jnp.shape(msg["value"])
        is_split = msg["name"].endswith("_observed") and fn.event_dim > 0
        if is_split and any(
            mask is not True and jnp.shape(mask) == shape for mask, _ in layers_of(fn).masks
        ):
            raise ValueError(
                event_mask_message(msg["name"].removesuffix("_observed"), shape, fn.event_shape)
            )

    # ── scans ─────────────────────────────────────────────────────────────────────────────────────

    def _control_flow(self, msg):
        if "history" not in msg["kwargs"]:
            raise ValueError(
                "The program has a NumPyro `cond`, whose branches EM cannot look into. Write "
                "jnp.where(condition, a, b) for values, or "
                "emjax.distributions.Select for a choice of distributions."
            )
        if self.length is not None:
            raise ValueError(
                "The program has a `scan` within a `scan`, which NumPyro does not support. Write "
                "the inner one as a Python loop."
            )
        _, _, xs, length, _ = msg["args"]
        length = jax.tree.leaves(xs)[0].shape[0] if length is None else int(length)
        if length == 0:
            raise ValueError(
                "The program has a `scan` of no steps. Pass data of at least one step."
            )
        if self.params is None:
            self._started_scan(msg, length)
        else:
            msg["value"] = self._written_out(msg, length)

    def _started_scan(self, msg, length: int) -> None:
        """Record the starts of the parameters in a scan's step; NumPyro then runs the scan
        at them.
        """
        f, init, xs, _, reverse = msg["args"]
        inner = Tracer(
            conditioned(f, msg["kwargs"]["substitute_stack"], length, 0),
            None,
            self.init,
            length=length,
        )
        with block():
            after, _ = seed(inner, numpyro.prng_key())(
                init, jax.tree.map(lambda x: jnp.asarray(x)[0], xs)
            )
        _check_carry(init, after)
        self.parameters |= inner.parameters
        self.starts |= inner.starts
        self.values |= inner.values
        series = {
            name: value for name, value in inner.starts.items() if inner.parameters[name].is_prior
        }
        single = {name: value for name, value in inner.starts.items() if name not in series}
        msg["args"] = (substitute(f, data=single), init, xs, length, reverse)
        msg["kwargs"]["substitute_stack"].append(("substitute", series))

    def _written_out(self, msg, length: int):
        """Return what NumPyro's scan returns: the carry after the last step, messages of its sites,
        and the stacked second outputs.
        """
        f, init, xs, _, reverse = msg["args"]
        stack, state = msg["kwargs"]["substitute_stack"], {}
        x_leaves, x_tree = jax.tree.flatten(xs)
        start, carry_tree = jax.tree.flatten(init)
        start = [jnp.asarray(leaf) for leaf in start]

        def one_step(time, x, carry):
            inner, arrays = (
                Tracer(conditioned(f, stack, length, time), self.params, step=time, length=length),
                [],
            )
            with block():
                after, ys = seed(inner, jax.random.key(0))(
                    jax.tree.unflatten(carry_tree, carry), jax.tree.unflatten(x_tree, x)
                )
            sites = list(inner.sites(arrays))
            _check_carry(jax.tree.unflatten(carry_tree, carry), after)
            state.update(inner=inner, y_tree=jax.tree.structure(ys))
            return jax.tree.leaves(after), jax.tree.leaves(ys), arrays, inner.latents, sites

        def in_order(array):
            return jnp.flip(array, 0) if reverse else array

        xs = [in_order(jnp.asarray(leaf)) for leaf in x_leaves]
        step = Step.traced(one_step, [x[0] for x in xs], start)
        if any(
            var.aval.dtype != value.dtype for var, value in zip(step.carry_out, start, strict=True)
        ):
            start = [
                value.astype(var.aval.dtype)
                for var, value in zip(step.carry_out, start, strict=True)
            ]
            step = Step.traced(one_step, [x[0] for x in xs], start)
        inner = state["inner"]
        for name in sorted(set(inner.values) & set(self.values)):
            raise ValueError(f"Two sites are called '{name}'. Site names must differ.")
        self.values |= inner.values
        latents = [
            replace(latent, shape=(length, *latent.shape), is_series=True)
            for latent in step.latents
        ]
        self.latents |= {latent.name: latent for latent in latents}
        symbols = [
            in_order(
                latent_p.bind(
                    name=latent.name,
                    shape=latent.shape + latent.support.shape[1:],
                    dtype=latent.support.dtype,
                )
            )
            for latent in latents
        ]
        scan = Scan.of(step, start, xs, length, symbols)
        carry = jax.tree.unflatten(carry_tree, [scan.last(leaf) for leaf in range(len(start))])
        ys = jax.tree.unflatten(
            state["y_tree"], [in_order(scan.stacked(len(start) + i)) for i in range(step.num_ys)]
        )
        return (length, None, carry), (PytreeTrace(_messages(scan, inner.records)), ys)


def event_mask_message(name: str, shape: tuple[int, ...], event: tuple[int, ...]) -> str:
    """Return what is wrong with an `obs_mask` that has one entry for each coordinate of an event,
    and what to write instead.
    """
    return (
        f"Site '{name}': obs_mask has shape {shape}, one entry for each coordinate, and NumPyro "
        f"takes one for each event {tuple(event)}. Where single "
        f"coordinates are missing, write\n    numpyro.sample('{name}', "
        "emjax.distributions.PartiallyObserved(dist.MultivariateNormal(...), observed=obs_mask), "
        f"obs=x)\nand where coordinates are independent,\n    numpyro.sample('{name}', "
        "dist.Normal(loc, scale).mask(obs_mask).to_event(1), obs=x)"
    )


def _check_carry(before, after) -> None:
    """Raise `ValueError` for a step that returns another kind of carry than it takes."""
    trees = jax.tree.structure(before), jax.tree.structure(after)
    if trees[0] != trees[1]:
        raise ValueError(
            f"The step of a scan must return a carry like the one that it takes: it takes "
            f"{trees[0]} and returns {trees[1]}."
        )
    for one, other in zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        if jnp.shape(one) != jnp.shape(other):
            raise ValueError(
                f"The step of a scan takes a carry of shape {jnp.shape(one)} and returns one of "
                f"shape {jnp.shape(other)}. Give the initial carry "
                f"its full shape: jnp.zeros({jnp.shape(other)}, ...)."
            )


@dataclass(frozen=True, eq=False)
class ScannedSite:
    """A site of a scan from its step `start` on, with a time axis in front; `batch`: the batch
    shape of its statement within a step.
    """

    site: Site
    arrays: Sequence
    start: int
    length: int
    batch: tuple[int, ...]
    units: int

    def sites(self, outputs: list) -> Iterator[Site]:
        offset = len(outputs)
        outputs.extend(self.arrays)
        yield self.site.renumbered(lambda number: number + offset)

    def under(self, fn, scale) -> ScannedSite:
        """Return the site under the handlers around the scan: those that gave a message for all
        steps its masks and its scale.
        """
        masks = [self._aligned(mask) for mask, _ in layers_of(fn).masks if mask is not True]
        arrays, outputs = [*self.arrays, *masks], self.site.outputs
        masks_of_site = [*outputs.masks, *range(len(self.arrays), len(arrays))]
        multiplicity = outputs.multiplicity
        if scale is not None:
            inner = 1.0 if multiplicity is None else arrays[multiplicity]
            multiplicity = len(arrays)
            arrays.append(inner * self._aligned(scale))
        outputs = replace(outputs, masks=masks_of_site, multiplicity=multiplicity)
        return replace(self, site=replace(self.site, outputs=outputs), arrays=arrays)

    def _aligned(self, array):
        """Return an array over (time, batch) as one over the elements of the site."""
        array, lead = jnp.asarray(array), 1 + len(self.batch)
        array = array.reshape((1,) * (lead - array.ndim) + array.shape)
        steps = self.site.elements[0]
        array = (
            jax.lax.slice_in_dim(array, self.start, self.start + steps)
            if array.shape[0] == self.length
            else array
        )
        extra = len(self.site.elements) - lead - self.units
        return array.reshape((array.shape[0], *(1,) * extra, *array.shape[1:], *(1,) * self.units))


def _messages(scan: Scan, records: Sequence[Record]) -> dict:
    """Return, for each statement of a scan's step, a message for all steps, which the handlers
    around the scan are to see.
    """
    batches = {record.name: tuple(record.fn.batch_shape) for record in records}
    sites: dict[str, list[ScannedSite]] = {name: [] for name in batches}
    events = {
        record.name: len(
            next(site for site in scan.step.sites if site.name == record.name).elements
        )
        - len(batches[record.name])
        for record in records
    }
    for start, site, arrays in scan.sites():
        sites[site.name].append(
            ScannedSite(site, arrays, start, scan.length, batches[site.name], events[site.name])
        )

    def message(name: str) -> dict:
        fn = dist.Unit(jnp.zeros((scan.length, *batches[name])))
        return {
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

    return {name: message(name) for name in batches}


def conditioned(f: Callable, stack: Sequence, length: int, time) -> Callable:
    """Return a scan's step under the `condition` and `substitute` handlers around the scan, at one
    time.
    """
    for kind, data in stack:

        def value(msg, data=data):
            found = (
                None
                if msg["type"] != "sample"
                else data(msg)
                if callable(data)
                else data.get(msg["name"])
            )
            rank = (
                len(tuple(msg["kwargs"]["sample_shape"]) + msg["fn"].shape())
                if found is not None
                else 0
            )
            if found is None or jnp.ndim(found) == rank:
                return found
            if jnp.ndim(found) != rank + 1 or jnp.shape(found)[0] != length:
                raise ValueError(
                    f"Site '{msg['name']}' is in a scan of {length} steps and is given values of "
                    f"shape {jnp.shape(found)}. Give it one value for "
                    "every step."
                )
            return jnp.asarray(found)[time]

        if kind not in ("condition", "substitute"):
            raise ValueError(
                f"EM cannot look through handlers.{kind} around a scan. Apply it within the step."
            )
        f = (
            condition(f, condition_fn=value)
            if kind == "condition"
            else substitute(f, substitute_fn=value)
        )
    return f
