"""Run a NumPyro program with symbols in place of its latents, and record its sites."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from numpyro.handlers import block, seed
from numpyro.ops.pytree import PytreeTrace

from emjax.program.latents import (
    GaussianLatent,
    Latent,
    gaussian_latent_of,
    latent_of,
    latent_p,
)
from emjax.program.messenger import SiteMessenger
from emjax.program.records import Record, Site
from emjax.program.scanned_sites import (
    ScannedSite,
    carry_and_result,
    check_carry,
    conditioned,
    scan_messages,
)
from emjax.program.scans import Scan
from emjax.program.statements import SAMPLING_WEIGHT, has_run
from emjax.program.steps import Step


class Tracer(SiteMessenger):
    """Give every parameter its value, and every latent a symbol.

    - `params`: the values of the parameters, by name.
    - `time`, `length`: which step of a `scan` of how many steps the program is; None outside.
    - `has_densities`: whether sites have their log-density though they may be read as families.
    - `latents`, `gaussians`: the discrete latents and those that are integrated out, by name.
    - `records`: what ran, statements and the sites of scans.
    """

    def __init__(
        self,
        fn: Callable,
        params: Mapping[str, Any],
        time: Any = None,
        length: int | None = None,
        has_densities: bool = False,
        integrate: Collection[str] = (),
    ):
        self.params, self.time, self.has_densities = params, time, has_densities
        self.latents: dict[str, Latent] = {}
        self.gaussians: dict[str, GaussianLatent] = {}
        self.records: list[Record | ScannedSite] = []
        super().__init__(fn, length, integrate)

    def sites(self, outputs: list) -> Iterator[Site]:
        """Add the arrays of all sites to the outputs, and yield the sites."""
        for record in self.records:
            yield from record.sites(outputs)

    def param(self, msg: dict[str, Any]) -> None:
        msg["value"] = self.params.get(msg["name"], msg["value"])

    def discrete(self, msg: dict[str, Any]) -> None:
        name = msg["name"]
        latent = latent_of(name, msg["fn"], _plates(msg))
        latent = replace(latent, start=msg["infer"].get("start"))
        self.latents[name] = latent
        msg["value"] = self.symbol(latent)

    def gaussian(self, msg: dict[str, Any]) -> None:
        name = msg["name"]
        latent = gaussian_latent_of(name, msg["fn"], _plates(msg))
        self.gaussians[name] = latent
        msg["value"] = self.symbol(latent)

    def symbol(self, latent: Latent | GaussianLatent) -> Any:
        """Return what stands for a latent in the program."""
        return latent_p.bind(name=latent.name, shape=latent.value_shape, dtype=latent.dtype)

    def continuous(self, msg: dict[str, Any]) -> None:
        # a continuous latent of a step has one value for each step
        value = self.params[msg["name"]]
        msg["value"] = value if self.length is None else value[self.time]

    def postprocess_message(self, msg: dict[str, Any]) -> None:
        super().postprocess_message(msg)
        if msg["type"] != "sample":
            return
        if has_run(msg):
            scanned = msg.get("_scanned", ())
            self.records += [site.under(msg["fn"], msg["scale"]) for site in scanned]
        else:
            sampling = msg["infer"].get(SAMPLING_WEIGHT)
            self.records.append(
                Record(
                    msg["name"],
                    self._kind(msg),
                    msg["fn"],
                    msg["value"],
                    msg["scale"],
                    _plates(msg),
                    tuple(frame.dim for frame in msg["cond_indep_stack"]),
                    self.has_densities,
                    sampling.weight if sampling else None,
                )
            )

    def _kind(self, msg: dict[str, Any]) -> str:
        if msg["is_observed"]:
            return "observed"
        if msg["name"] in self.latents:
            return "latent"
        if msg["name"] in self.gaussians:
            return "integrated"
        # what a handler has given a value to is observed
        return "prior" if msg["name"] in self.params else "observed"

    def scan(self, msg: dict[str, Any], length: int) -> None:
        """Write a scan out over time, and return what NumPyro's would return.

        That is the carry after the last step, messages of its sites, and its stacked results.
        """
        _, init, xs, _, reverse = msg["args"]

        def in_order(array):
            return jnp.flip(array, 0) if reverse else array

        xs = jax.tree.map(lambda x: in_order(jnp.asarray(x)), xs)
        start, carry_tree = jax.tree.flatten(init)
        step, start, inner, y_tree = self._traced_step(msg, length, xs, start)
        self.check_new(inner.named)
        self.named |= inner.named
        symbols = []
        for latent in step.latents:
            series = latent.over_time(length)
            if isinstance(series, GaussianLatent):
                self.gaussians[series.name] = series
            else:
                self.latents[series.name] = series
            symbols.append(in_order(self.symbol(series)))
        scan = Scan.of(step, start, jax.tree.leaves(xs), length, symbols)
        carry = jax.tree.unflatten(carry_tree, scan.last_carry())
        ys = jax.tree.unflatten(y_tree, [in_order(y) for y in scan.ys()])
        messages = PytreeTrace(scan_messages(scan, inner.records, bool(reverse)))
        msg["value"] = (length, None, carry), (messages, ys)

    def _traced_step(self, msg: dict[str, Any], length: int, xs: Any, start: list):
        """Return a scan's step, the carry that it starts at, its tracer, and the tree of its ys."""
        f, init, *_ = msg["args"]
        stack = msg["kwargs"]["substitute_stack"]
        x_leaves, x_tree = jax.tree.flatten(xs)
        carry_tree = jax.tree.structure(init)
        state: dict = {}

        def one_step(time, x, carry):
            program = conditioned(f, stack, length, time)
            inner = Tracer(program, self.params, time, length, self.has_densities, self.integrate)
            arrays: list = []
            before, x = jax.tree.unflatten(carry_tree, carry), jax.tree.unflatten(x_tree, x)
            seeded: Any = seed(inner, jax.random.key(0))
            # the step's statements are not the program's: they come back written out
            with block():
                after, ys = carry_and_result(seeded(before, x))
            sites = list(inner.sites(arrays))
            check_carry(before, after)
            # what is no array leaves the trace this way
            state.update(inner=inner, y_tree=jax.tree.structure(ys))
            latents = inner.latents | inner.gaussians
            return jax.tree.leaves(after), jax.tree.leaves(ys), arrays, latents, sites

        start = [jnp.asarray(leaf) for leaf in start]
        first = [x[0] for x in x_leaves]
        step = Step.traced(one_step, first, start)
        after = [var.aval.dtype for var in step.jaxpr.jaxpr.outvars[: len(start)]]
        if any(leaf.dtype != dtype for leaf, dtype in zip(start, after, strict=True)):
            # an integer that a step makes a real number starts as one
            start = [leaf.astype(dtype) for leaf, dtype in zip(start, after, strict=True)]
            step = Step.traced(one_step, first, start)
        return step, start, state["inner"], state["y_tree"]


def _plates(msg: dict[str, Any]) -> tuple[str, ...]:
    return tuple(frame.name for frame in msg["cond_indep_stack"])
