"""Weights for the elements of a plate: how often each counts, as data.

What depends on single samples is a derivative, or another value, of the weights: a sample's own log-likelihood is ∂ log p / ∂ weight;
folds of a cross-validation are weights of zeros and ones; a bootstrap's draws are multinomial weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro.handlers import seed
from numpyro.primitives import Messenger


class Weighted(Messenger):
    """Multiply the multiplicity of every site within a plate by the plate's weights, within a `scan` as well; `seen` collects the sizes of all plates."""

    def __init__(self, fn: Callable, plate: str | None, weights, seen: dict):
        self.plate, self.weights, self.seen = plate, weights, seen
        super().__init__(fn)

    def process_message(self, msg):
        if msg["type"] == "control_flow" and "history" in msg["kwargs"]:
            step, *others = msg["args"]
            msg["args"] = (Weighted(step, self.plate, self.weights, self.seen), *others)
        if msg["type"] != "sample" or msg.get("_control_flow_done"):
            return
        self.seen |= {frame.name: frame.size for frame in msg["cond_indep_stack"]}
        for frame in msg["cond_indep_stack"]:
            if frame.name == self.plate:
                if jnp.shape(self.weights) != (frame.size,):
                    raise ValueError(f"Plate '{self.plate}' has {frame.size} elements, its weights have shape {jnp.shape(self.weights)}. Pass one weight "
                                     "for each element.")
                along = jnp.reshape(self.weights, (frame.size,) + (1,) * (-frame.dim - 1))
                msg["scale"] = along if msg["scale"] is None else along * msg["scale"]


def weighted(model: Callable, plate: str) -> Callable:
    """Return the program (weights, *args, **kwargs) in which element n of a plate counts weights[n] times.

    `weights`: (elements of the plate,), at least 0. A weight of 2 is the row twice, a weight of 0 is no row: log p and every EM step are the same.
    Every site of the plate is weighted, latents included, so that a sample's weight is that of its latents and of all their observations. Rows of another
    plate that look up its elements (`truth[item]`) are not in the plate: weight theirs too (`weighted` can be applied twice).

    Errors: `ValueError` for a plate that the program does not have, or weights of another length.
    """
    def program(weights, *args, **kwargs):
        seen: dict = {}
        result = Weighted(model, plate, weights, seen)(*args, **kwargs)
        if plate not in seen:
            raise ValueError(f"The program has no plate '{plate}' with a sample site in it; its plates are {', '.join(map(repr, seen)) or 'none'}.")
        return result

    return program


def plate_sizes(model: Callable, args: tuple, kwargs: Mapping) -> dict[str, int]:
    """Return the number of elements of every plate of a program with a sample site in it; nothing runs."""
    seen: dict = {}

    def run(key):
        with numpyro.validation_enabled(False):
            seed(Weighted(model, None, None, seen), key)(*args, **kwargs)
        return key

    jax.eval_shape(run, jax.random.key(0))
    return seen


@dataclass(frozen=True, eq=False)
class Units:
    """The independent units of a program: the `size` elements of a `plate`, and with them the rows of other plates: `rows[name]` says to which unit each belongs."""

    plate: str
    size: int
    rows: Mapping[str, np.ndarray]

    @property
    def key(self) -> tuple:
        """What identifies them."""
        return ("units", self.plate, *((name, index.tobytes()) for name, index in self.rows.items()))

    def __str__(self) -> str:
        return f"plate '{self.plate}'" + "".join(f", with their rows of '{name}'" for name in self.rows)

    def weighted(self, model: Callable) -> Callable:
        """Return the program (weights, *args, **kwargs) in which unit n counts weights[n] times, with all its rows."""
        def program(weights, *args, **kwargs):
            own = model
            for name, index in self.rows.items():
                own = partial(weighted(own, name), weights[index])
            return weighted(own, self.plate)(weights, *args, **kwargs)

        return program
