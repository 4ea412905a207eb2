"""What starting and tracing a program have in common: which statements EM can make sense of."""

from __future__ import annotations

import abc
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import jax
from jax.extend.core import get_opaque_trace_state
from numpyro.primitives import Messenger

from emjax.families.distributions import PartiallyObserved
from emjax.program.array_like import as_numbers, is_array, no_numbers
from emjax.program.event_masks import check_event_mask
from emjax.program.explanations import TRANSFORMED
from emjax.program.integrated import check_integrated
from emjax.program.latents import layers_of
from emjax.program.statements import has_run, is_scan


class SiteMessenger(Messenger, abc.ABC):
    """Decide the value of every parameter and of every site that is not observed.

    - `length`: the number of steps of the `scan` that the program is a step of; None outside.
    - `integrate`: the names of the continuous sites that are integrated out.
    - `named`: the names of the sites so far.
    - `drawn`: {id of a value: (the parameter or latent that it is, in words, the value)}.
    """

    def __init__(self, fn: Callable, length: int | None = None, integrate: Collection[str] = ()):
        self.length, self.integrate = length, integrate
        self.named: set[str] = set()
        self.drawn: dict[int, tuple[str, Any]] = {}
        self._around: Any = None
        super().__init__(fn)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the program."""
        self._around = get_opaque_trace_state("flax")
        return super().__call__(*args, **kwargs)

    @abc.abstractmethod
    def param(self, msg: dict[str, Any]) -> None:
        """Decide the value of a `numpyro.param`."""

    @abc.abstractmethod
    def discrete(self, msg: dict[str, Any]) -> None:
        """Decide the value of a discrete site that is not observed."""

    @abc.abstractmethod
    def gaussian(self, msg: dict[str, Any]) -> None:
        """Decide the value of a site that is integrated out."""

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
        if self._around != get_opaque_trace_state("flax"):
            what = "Parameter" if kind == "param" else "Site"
            raise ValueError(f"{what} '{name}' {TRANSFORMED}")
        if name in self.integrate:
            check_integrated(msg)
        if kind == "param":
            self.param(msg)
        elif msg["value"] is None:
            self._unobserved(msg)
        else:
            msg["value"] = _observed(msg)
            check_event_mask(msg)
        self.named.add(name)

    def postprocess_message(self, msg: dict[str, Any]) -> None:
        """Keep what a parameter or a latent is, to say so where the program looks at it."""
        kind = "parameter" if msg["type"] == "param" else "latent"
        if msg["type"] in ("sample", "param") and not msg.get("is_observed"):
            self.drawn[id(msg["value"])] = f"{kind} '{msg['name']}'", msg["value"]

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
        elif name in self.integrate:
            self.gaussian(msg)
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
        lengths = _num_steps(xs) if length is None else {int(length), *_num_steps(xs)}
        if len(lengths) != 1:
            found = " and ".join(map(str, sorted(lengths))) or "an unknown number of"
            raise ValueError(
                f"The program has a `scan` over {found} steps. Time is the first axis of all that "
                "it reads: pass arrays of as many steps, or length=... where it reads none."
            )
        (length,) = lengths
        if length == 0:
            raise ValueError(
                "The program has a `scan` of no steps. Pass data of at least one step."
            )
        return length


def _num_steps(xs: Any) -> set[int]:
    """Return of how many steps the arrays are that a scan reads."""
    for leaf in jax.tree.leaves(xs):
        if not is_array(leaf) or not leaf.ndim:
            reason = no_numbers("What the scan reads", leaf, "xs")
            raise ValueError(
                reason
                or f"The scan reads {leaf!r}, which has no steps. Pass an array whose first "
                "axis is time: np.asarray(xs)."
            )
    return {leaf.shape[0] for leaf in jax.tree.leaves(xs)}


def _observed(msg: Mapping[str, Any]) -> Any:
    """Return an observed value as an array, since what follows asks for a shape and a dtype.

    Errors: `ValueError` for what is none of numbers, or has events of another shape than its
    distribution.
    """
    name, fn = msg["name"], msg["fn"]
    value = as_numbers(f"Site '{name}': obs", msg["value"], "y")
    event = tuple(fn.event_shape)
    pairs = zip(reversed(value.shape), reversed(event), strict=False)
    if any(size != expected and 1 not in (size, expected) for size, expected in pairs):
        raise ValueError(
            f"Site '{name}': the value has shape {value.shape}, and its distribution is of events "
            f"of shape {event}, which are its last axes. Reshape the data, or correct the "
            "distribution."
        )
    return value
