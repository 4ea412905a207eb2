"""What starting and tracing a program have in common: which statements EM can make sense of."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.primitives import Messenger

from emjax.families.distributions import PartiallyObserved
from emjax.program.event_masks import check_event_mask
from emjax.program.latents import layers_of
from emjax.program.statements import has_run, is_scan


class SiteMessenger(Messenger, abc.ABC):
    """Decide the value of every parameter and of every site that is not observed.

    - `length`: the number of steps of the `scan` that the program is a step of; None outside.
    - `named`: the names of the sites so far.
    """

    def __init__(self, fn: Callable, length: int | None = None):
        self.length = length
        self.named: set[str] = set()
        super().__init__(fn)

    @abc.abstractmethod
    def param(self, msg: dict[str, Any]) -> None:
        """Decide the value of a `numpyro.param`."""

    @abc.abstractmethod
    def discrete(self, msg: dict[str, Any]) -> None:
        """Decide the value of a discrete site that is not observed."""

    @abc.abstractmethod
    def continuous(self, msg: dict[str, Any]) -> None:
        """Decide the value of a continuous site that is not observed."""

    @abc.abstractmethod
    def scan(self, msg: dict[str, Any], length: int) -> None:
        """Decide what a `scan` of `length` steps returns."""

    def process_message(self, msg: dict[str, Any]) -> None:
        """Decide a statement's value. Errors: `ValueError` for what EM can make no sense of."""
        kind: str = msg["type"]
        name: Any = msg.get("name")
        if kind == "control_flow":
            self.scan(msg, self._checked_length(msg))
        if kind == "plate" and msg["value"] is None:
            raise ValueError(
                f"Plate '{name}' draws a random subsample, and EM would see only that. "
                "Remove `subsample_size`, or pass the rows to fit as data."
            )
        # the sites of a scan come again, stacked
        if kind not in ("sample", "param") or has_run(msg):
            return
        self.check_new([name])
        if kind == "param":
            self.param(msg)
        elif msg["value"] is None:
            self._unobserved(msg)
        else:
            is_array = isinstance(msg["value"], np.ndarray | jax.Array)
            # NumPyro takes numbers and lists; what follows asks for a shape and a dtype
            msg["value"] = msg["value"] if is_array else jnp.asarray(msg["value"])
            check_event_mask(msg)
        self.named.add(name)

    def check_new(self, names: Iterable[str]) -> None:
        """Raise `ValueError` for names that other sites have."""
        for name in sorted(names):
            if name in self.named:
                raise ValueError(f"Two sites are called '{name}'. Site names must differ.")

    def _unobserved(self, msg: dict[str, Any]) -> None:
        name, fn = msg["name"], msg["fn"]
        shape = tuple(msg["kwargs"].get("sample_shape", ()))
        # `sample_shape` is one more batch axis
        if shape:
            fn = msg["fn"] = fn.expand(shape + fn.batch_shape)
            msg["kwargs"]["sample_shape"] = ()
        if fn.support is not None and fn.support.is_discrete:
            self.discrete(msg)
        elif isinstance(layers_of(fn).core, PartiallyObserved):
            raise ValueError(
                f"Site '{name}' is PartiallyObserved and has no value. Give it its data, whose "
                "missing coordinates are not read: "
                f"numpyro.sample('{name}', PartiallyObserved(..., observed=~jnp.isnan(x)), obs=x)."
            )
        else:
            self.continuous(msg)

    def _checked_length(self, msg: dict[str, Any]) -> int:
        """Return the number of steps of a `scan`."""
        if not is_scan(msg):
            raise ValueError(
                "The program has a NumPyro `cond`, whose branches EM cannot look into. "
                "Write jnp.where(condition, a, b) for values, "
                "or emjax.distributions.Select for a choice of distributions."
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
        return length
