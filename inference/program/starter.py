"""Run a NumPyro program as it is, and take down where its parameters start."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
from numpyro.distributions import constraints
from numpyro.distributions.constraints import Constraint
from numpyro.handlers import block, seed, substitute

from emjax.numerics.guards import as_parameter
from emjax.program.array_like import as_numbers
from emjax.program.messenger import SiteMessenger
from emjax.program.records import Parameter
from emjax.program.scanned_sites import (
    carry_and_result,
    check_carry,
    check_initial_carry,
    conditioned,
)


class Starter(SiteMessenger):
    """Give every parameter its start.

    - `init`: the strategy of NumPyro that gives continuous latents theirs.
    - `parameters`, `starts`: what was found, by name; in a step of a `scan`, a continuous latent
      has one value for each step.
    - `fixed`: parameters to which a handler gave a value, so that they are not estimated.
    """

    def __init__(
        self,
        fn: Callable,
        init: Callable,
        length: int | None = None,
        integrate: Collection[str] = (),
    ):
        self.init = init
        self.parameters: dict[str, Parameter] = {}
        self.starts: dict[str, Any] = {}
        self.fixed: set[str] = set()
        super().__init__(fn, length, integrate)

    def param(self, msg: dict[str, Any]) -> None:
        # a value this early is a handler's: the program gives its own when the statement runs
        if msg["value"] is not None and msg["name"] not in self.starts:
            self.fixed.add(msg["name"])

    def discrete(self, msg: dict[str, Any]) -> None:
        """Leave it to be drawn as the program says: a start may depend on a draw of the latents."""

    def gaussian(self, msg: dict[str, Any]) -> None:
        """Leave it to be drawn as the program says, as a discrete one is."""

    def continuous(self, msg: dict[str, Any]) -> None:
        name, fn = msg["name"], msg["fn"]
        # `seed` is around this handler, and has not given the statement its key yet
        msg["kwargs"]["rng_key"] = numpyro.prng_key()
        if self.length is None:
            msg["value"] = start = as_parameter(self.init(msg))
        else:
            over_time = fn.expand((self.length, *fn.batch_shape))
            start = as_parameter(self.init({**msg, "fn": over_time}))
            msg["value"] = start[0]
        self.starts[name] = start
        self.parameters[name] = Parameter(name, start.shape, start.dtype, fn.support, is_prior=True)

    def postprocess_message(self, msg: dict[str, Any]) -> None:
        # the program has given its start by now; those of a scan come again, stacked
        if msg["type"] == "param" and msg["name"] not in {*self.starts, *self.fixed}:
            self._started(msg)
        super().postprocess_message(msg)

    def _started(self, msg: dict[str, Any]) -> None:
        name, constraint = msg["name"], msg["kwargs"].get("constraint", constraints.real)
        if msg["value"] is None:
            raise ValueError(
                f"Parameter '{name}' has no initial value. Write numpyro.param('{name}', value, "
                "constraint=...)."
            )
        if not isinstance(constraint, Constraint):
            raise ValueError(
                f"Parameter '{name}': its constraint is {constraint!r}. Pass one of NumPyro's: "
                f"numpyro.param('{name}', value, constraint=constraints.positive)."
            )
        start = as_numbers(f"Parameter '{name}': its initial value", msg["value"], "value")
        msg["value"] = self.starts[name] = value = as_parameter(start)
        self.parameters[name] = Parameter(
            name, value.shape, value.dtype, constraint, is_prior=False
        )

    def scan(self, msg: dict[str, Any], length: int) -> None:
        """Take down the starts of the parameters in a step; NumPyro then runs the scan at them."""
        f, init, xs, _, reverse = msg["args"]
        stack = msg["kwargs"]["substitute_stack"]
        inner = Starter(conditioned(f, stack, length, 0), self.init, length, self.integrate)
        first = jax.tree.map(lambda x: jnp.asarray(x)[0], xs)
        # a run for the step's parameters alone: other handlers see NumPyro's run of all steps
        with block():
            seeded: Any = seed(inner, numpyro.prng_key())
            after, _ = carry_and_result(seeded(init, first))
        check_carry(init, after)
        check_initial_carry(init, after)
        self.parameters |= inner.parameters
        self.starts |= inner.starts
        self.named |= inner.named
        # a `sample` in a step is drawn anew in each, a `param` is one for all
        in_each_step, in_all_steps = {}, {}
        for name, value in inner.starts.items():
            starts = in_each_step if inner.parameters[name].is_prior else in_all_steps
            starts[name] = value
        msg["args"] = (substitute(f, data=in_all_steps), init, xs, length, reverse)
        stack.append(("substitute", in_each_step))
