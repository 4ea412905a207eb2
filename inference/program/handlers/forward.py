"""A program run forward at given values, as NumPyro runs it in simulation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro
from numpyro import handlers
from numpyro.ops.pytree import PytreeTrace
from numpyro.primitives import Messenger

from emjax.program.scanned_sites import carry_and_result, conditioned
from emjax.program.statements import has_run, is_scan

Kept = Callable[[Mapping[str, Any]], Any]


def run_forward(
    model: Callable,
    params: Mapping[str, Any],
    latents: Mapping[str, Any],
    kept: Kept,
    is_new: bool,
    key: Any,
    args: tuple,
    kwargs: Mapping[str, Any],
) -> dict[str, Any]:
    """Return what is kept of each statement of a program, run at given values, by name.

    - `params`, `latents`: values; what has none is drawn.
    - `kept`: (NumPyro's message of a statement) → arrays; None: nothing. Those of the steps of a
      `scan` are stacked, in the order of what it reads.
    - `is_new`: whether observations are drawn, too.
    """
    forward = Forward(model, Values(params, latents), kept, is_new)
    with numpyro.validation_enabled(False):
        handlers.seed(forward, key)(*args, **kwargs)
    return forward.found


class Values(NamedTuple):
    """The values of a program's parameters and latents, by name."""

    params: Mapping[str, Any]
    latents: Mapping[str, Any]


class ScanStep(NamedTuple):
    """Which step of a `scan` a program is.

    - `time`: that of what it reads.
    - `count`: how many steps have run before it, which is another where time runs backward.
    """

    time: Any
    count: Any


class Forward(Messenger):
    """Give statements their values, and keep what is asked of them; see `run_forward`.

    - `step`: the step of a `scan` that the program is; None outside.
    - `found`: {name: what is kept}.
    """

    def __init__(
        self, fn: Callable, values: Values, kept: Kept, is_new: bool, step: ScanStep | None = None
    ):
        self.values, self.kept, self.is_new, self.step = values, kept, is_new, step
        self.found: dict[str, Any] = {}
        super().__init__(fn)

    def process_message(self, msg: dict[str, Any]) -> None:
        """Decide a statement's value, if it is not to be drawn."""
        if is_scan(msg):
            self._scan(msg)
        if msg["type"] not in ("sample", "param") or has_run(msg):
            return
        if msg["type"] == "sample" and msg["is_observed"]:
            if self.is_new:
                msg.update(fn=_of_all_rows(msg), value=None, is_observed=False)
        elif msg["name"] in self.values.latents:
            value = self.values.latents[msg["name"]]
            msg["value"] = value if self.step is None else value[self.step.time]
        elif msg["name"] in self.values.params:
            value = self.values.params[msg["name"]]
            # a `param` is one for all steps; a `sample` site has one in each, as they run
            in_step = msg["type"] == "sample" and self.step is not None
            msg["value"] = value[self.step.count] if in_step else value

    def postprocess_message(self, msg: dict[str, Any]) -> None:
        """Keep what is asked of a statement."""
        if msg["type"] in ("sample", "deterministic") and not has_run(msg):
            kept = self.kept(msg)
            if kept is not None:
                self.found[msg["name"]] = kept

    def _scan(self, msg: dict[str, Any]) -> None:
        """Run a scan, and return what NumPyro's would, but for messages of its sites."""
        f, init, xs, length, reverse = msg["args"]
        stack = msg["kwargs"]["substitute_stack"]
        length = jnp.shape(jax.tree.leaves(xs)[0])[0] if length is None else int(length)

        def step(carry, taken):
            time, key, x = taken
            now = ScanStep(time, length - 1 - time if reverse else time)
            program = conditioned(f, stack, length, now.count)
            inner = Forward(program, self.values, self.kept, self.is_new, now)
            # the step's statements are not the program's
            with handlers.block():
                after, ys = carry_and_result(handlers.seed(inner, key)(carry, x))
            return after, (ys, inner.found)

        taken = jnp.arange(length), jax.random.split(numpyro.prng_key(), length), xs
        first = jax.tree.map(lambda array: jnp.asarray(array)[0], taken)
        after, _ = jax.eval_shape(step, init, first)
        # an integer that a step makes a real number starts as one
        start = jax.tree.map(lambda leaf, to: jnp.asarray(leaf).astype(to.dtype), init, after)
        last, (ys, found) = jax.lax.scan(step, start, taken, reverse=bool(reverse))
        self.found |= found
        msg["value"] = (length, None, last), (PytreeTrace({}), ys)


def _of_all_rows(msg: Mapping[str, Any]) -> Any:
    """Return the distribution of an observation, which may have more rows than that."""
    fn = msg["fn"]
    rows = jnp.shape(msg["value"])[: jnp.ndim(msg["value"]) - fn.event_dim]
    return fn.expand(jnp.broadcast_shapes(rows, fn.batch_shape))
