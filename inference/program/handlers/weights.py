"""Weights for the elements of a plate, as data: how often each counts, or for how many it stands.

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
from emjax.program.statements import SAMPLING_WEIGHT, has_run, is_scan

KINDS = ("frequency", "sampling")


class Weighted(Messenger):
    """Multiply the multiplicity of every site within a plate by the plate's weights.

    It does so within a `scan` as well. `seen` collects the sizes of all plates; `is_sampling`: a
    statement is told which part of its multiplicity are sampling weights.
    """

    def __init__(
        self, fn: Callable, plate: str, weights: Any, seen: dict[str, int], is_sampling: bool
    ):
        self.plate, self.weights, self.seen = plate, weights, seen
        self.is_sampling = is_sampling
        super().__init__(fn)

    def process_message(self, msg: dict[str, Any]) -> None:
        """Weight a statement."""
        # the step runs under `block`: handlers around the scan do not see its statements
        if is_scan(msg):
            step, *others = msg["args"]
            same = Weighted(step, self.plate, self.weights, self.seen, self.is_sampling)
            msg["args"] = (same, *others)
        if msg["type"] != "sample" or has_run(msg):
            return
        for frame in msg["cond_indep_stack"]:
            self.seen[frame.name] = frame.size
            if frame.name == self.plate:
                self._weight(msg, self._along(frame))

    def _weight(self, msg: dict[str, Any], along: Any) -> None:
        # a multiplicity that `handlers.scale` gave stays: weights multiply it
        scale, sampling = msg["scale"], msg["infer"].get(SAMPLING_WEIGHT)
        msg["scale"] = along if scale is None else along * scale
        if self.is_sampling:
            # the same object where nothing else counts: so it is known that nothing does
            is_alone = scale is sampling
            both = along if sampling is None else along * sampling
            sampling = msg["scale"] if is_alone else both
            msg["infer"] = {**msg["infer"], SAMPLING_WEIGHT: sampling}

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


def weighted(model: Callable, plate: str, kind: str = "frequency") -> Callable:
    """Return the program in which element n of a plate counts weights[n] times.

    It takes (weights, *args, **kwargs).

    `weights`: (elements of the plate,), at least 0. Every site of the plate is weighted, latents
    included, so that a sample's weight is that of its latents and of all their observations. Rows
    of another plate that look up its elements (`truth[item]`) are not in the plate: weight theirs
    too (`weighted` can be applied twice). `kind`: what a weight is,

    - "frequency": how many samples the row is. A weight of 2 is the row twice, a weight of 0 is no
      row: log p, every EM step and all that counts samples are the same.
    - "sampling": how many of the population the row stands for, one over its probability of being
      sampled. The row is one sample, whatever its weight, and log p is the pseudo-log-likelihood
      Σ_n w_n log p(x_n | θ), whose maximum no common factor of the weights changes (a prior counts
      against Σ w: give weights with a mean of one then). Standard errors are those of the sample's
      design (`standard_errors(…, strata=…, clusters=…)`), never the information's; criteria take
      weights with a mean of one. Source: Skinner (1989), in Analysis of Complex Surveys.

    Errors: `ValueError` for a plate that the program does not have, weights of another length, or
    another kind.
    """
    if not callable(model):
        raise ValueError(
            f"emjax.weighted takes the program first, not {model!r}: weighted(program, 'rows')."
        )
    if kind not in KINDS:
        raise ValueError(
            f"kind must be one of {', '.join(map(repr, KINDS))}, not {kind!r}: how often a row "
            "occurs, or for how many of the population it stands."
        )

    def program(weights, *args, **kwargs):
        seen: dict[str, int] = {}
        weights = as_numbers(f"Plate '{plate}': weights", weights, "weights")
        result = Weighted(model, plate, weights, seen, kind == "sampling")(*args, **kwargs)
        if plate not in seen:
            raise ValueError(
                f"The program has no plate '{plate}' with a sample site in it; its plates are "
                f"{', '.join(map(repr, seen)) or 'none'}."
            )
        return result

    return program
