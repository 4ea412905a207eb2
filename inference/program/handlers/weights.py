"""Weights for the elements of a plate: how often each counts, as data.

What depends on single samples is a derivative, or another value, of the weights: a sample's own
log-likelihood is ∂ log p / ∂ weight; folds of a cross-validation are weights of zeros and ones; a
bootstrap's draws are multinomial weights.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from numpyro.primitives import Messenger

from emjax.program.array_like import as_numbers
from emjax.program.statements import has_run, is_scan


class Weighted(Messenger):
    """Multiply the multiplicity of every site within a plate by the plate's weights.

    It does so within a `scan` as well. `seen` collects the sizes of all plates.
    """

    def __init__(self, fn: Callable, plate: str, weights: Any, seen: dict[str, int]):
        self.plate, self.weights, self.seen = plate, weights, seen
        super().__init__(fn)

    def process_message(self, msg: dict[str, Any]) -> None:
        """Weight a statement."""
        # the step runs under `block`: handlers around the scan do not see its statements
        if is_scan(msg):
            step, *others = msg["args"]
            msg["args"] = (Weighted(step, self.plate, self.weights, self.seen), *others)
        if msg["type"] != "sample" or has_run(msg):
            return
        for frame in msg["cond_indep_stack"]:
            self.seen[frame.name] = frame.size
            if frame.name == self.plate:
                # a multiplicity that `handlers.scale` gave stays: weights multiply it
                along = self._along(frame)
                msg["scale"] = along if msg["scale"] is None else along * msg["scale"]

    def _along(self, frame: Any) -> Any:
        """Return the weights along the plate's axis."""
        if jnp.shape(self.weights) != (frame.size,):
            raise ValueError(
                f"Plate '{self.plate}' has {frame.size} elements, "
                f"its weights have shape {jnp.shape(self.weights)}. "
                "Pass one weight for each element."
            )
        # plates count from the right: unit axes stand for those within this one
        return jnp.reshape(self.weights, (frame.size,) + (1,) * (-frame.dim - 1))


def weighted(model: Callable, plate: str) -> Callable:
    """Return the program in which element n of a plate counts weights[n] times.

    It takes (weights, *args, **kwargs).

    `weights`: (elements of the plate,), at least 0. A weight of 2 is the row twice, a weight of 0
    is no row: log p and every EM step are the same. Every site of the plate is weighted, latents
    included, so that a sample's weight is that of its latents and of all their observations. Rows
    of another plate that look up its elements (`truth[item]`) are not in the plate: weight theirs
    too (`weighted` can be applied twice).

    Errors: `ValueError` for a plate that the program does not have, or weights of another length.
    """
    if not callable(model):
        raise ValueError(
            f"emjax.weighted takes the program first, not {model!r}: weighted(program, 'rows')."
        )

    def program(weights, *args, **kwargs):
        seen: dict[str, int] = {}
        weights = as_numbers(f"Plate '{plate}': weights", weights, "weights")
        result = Weighted(model, plate, weights, seen)(*args, **kwargs)
        if plate not in seen:
            raise ValueError(
                f"The program has no plate '{plate}' with a sample site in it; its plates are "
                f"{', '.join(map(repr, seen)) or 'none'}."
            )
        return result

    return program
