"""Weights for the elements of a plate, as data: how often each counts, or for how many it stands.

What depends on single samples is a derivative, or another value, of the weights: a sample's own
log-likelihood is ∂ log p / ∂ weight; folds of a cross-validation are weights of zeros and ones; a
bootstrap's draws are multinomial weights.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import jax.numpy as jnp
from numpyro.primitives import Messenger

from emjax.program.array_like import as_numbers
from emjax.program.statements import SAMPLING_WEIGHT, SamplingWeight, has_run, is_scan

KINDS = ("frequency", "sampling")


class Weighted(Messenger):
    """Multiply the multiplicity of every site within a plate by the plate's weights.

    It does so within a `scan` as well. `seen` collects the sizes of all plates; `mean`: that of
    sampling weights, by which they are divided, whatever handlers within this one have divided
    theirs by; None for frequencies.
    """

    def __init__(self, fn: Callable, plate: str, weights: Any, seen: dict[str, int], mean: Any):
        self.plate, self.weights, self.seen, self.mean = plate, weights, seen, mean
        super().__init__(fn)

    def process_message(self, msg: dict[str, Any]) -> None:
        """Weight a statement."""
        # the step runs under `block`: handlers around the scan do not see its statements
        if is_scan(msg):
            step, *others = msg["args"]
            same = Weighted(step, self.plate, self.weights, self.seen, self.mean)
            msg["args"] = (same, *others)
        if msg["type"] != "sample" or has_run(msg):
            return
        along = None
        for frame in msg["cond_indep_stack"]:
            self.seen[frame.name] = frame.size
            if frame.name == self.plate:
                along = self._along(frame)
        if self.mean is not None:
            self._stand_for(msg, along)
        elif along is not None:
            # a multiplicity that `handlers.scale` gave stays: weights multiply it
            msg["scale"] = _product(along, msg["scale"])

    def _stand_for(self, msg: dict[str, Any], along: Any) -> None:
        """Give a statement sampling weights, and say which part of its multiplicity these are."""
        known = msg["infer"].get(SAMPLING_WEIGHT)
        if along is None and known is None:
            return
        factor = (1 if along is None else along) / self.mean
        if known is not None:
            factor = factor * known.mean
        # the same object where nothing else counts: so it is known that nothing does
        is_alone = msg["scale"] is (None if known is None else known.weight)
        msg["scale"] = _product(factor, msg["scale"])
        both = factor if known is None else factor * known.weight
        weight = SamplingWeight(msg["scale"] if is_alone else both, self.mean)
        msg["infer"] = {**msg["infer"], SAMPLING_WEIGHT: weight}

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


def _product(weights: Any, multiplicity: Any) -> Any:
    return weights if multiplicity is None else weights * multiplicity


def _mean(weights: Any) -> Any:
    """Return the mean of the weights of what is in the sample; 1 where nothing is."""
    weights = jnp.asarray(weights, jnp.result_type(float))
    is_sampled = weights > 0
    count = is_sampled.sum()
    # what is below zero, or no number, stays so beside a positive mean, and is refused
    mean = jnp.where(is_sampled, weights, 0).sum() / jnp.maximum(count, 1)
    return jnp.where(count > 0, mean, 1)


def weighted(model: Callable, plate: str, kind: str = "frequency") -> Callable:
    """Return the program in which element n of a plate counts weights[n] times.

    It takes `(weights, *args, **kwargs)`.

    `weights`: (elements of the plate,), at least 0. Every site of the plate is weighted, latents
    included, so that a sample's weight is that of its latents and of all their observations. Rows
    of another plate that look up its elements (`truth[item]`) are not in the plate: weight theirs
    too (`weighted` can be applied twice). `kind`: what a weight is,

    - "frequency": how many samples the row is. A weight of 2 is the row twice, a weight of 0 is no
      row: log p, every EM step and all that counts samples are the same.
    - "sampling": how many of the population the row stands for, one over its probability of being
      sampled. The row is one sample, whatever its weight, and log p is the pseudo-log-likelihood
      Σ_n w_n log p(x_n | θ) / w̄, with w̄ the mean of the weights that are not zero: no common factor
      of the weights changes anything. (Applied twice, w̄ is that of the weights that come first.)
      Standard errors are those of the sample's design (`standard_errors(…, strata=…,
      clusters=…)`), never the information's. Source: Skinner (1989), in Analysis of Complex
      Surveys.

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

    # not a function within this one, which could not be pickled
    return partial(run_weighted, model, plate, kind)


def run_weighted(model: Callable, plate: str, kind: str, weights: Any, *args, **kwargs) -> Any:
    seen: dict[str, int] = {}
    weights = as_numbers(f"Plate '{plate}': weights", weights, "weights")
    mean = _mean(weights) if kind == "sampling" else None
    result = Weighted(model, plate, weights, seen, mean)(*args, **kwargs)
    if plate not in seen:
        raise ValueError(
            f"The program has no plate '{plate}' with a sample site in it; its plates are "
            f"{', '.join(map(repr, seen)) or 'none'}."
        )
    return result
