"""What is read off a fit before it is drawn: its program, latents, parameters, their names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from emjax.fit import Fit
from emjax.naming.axes import Axis, program_axes, support_values
from emjax.run.bound import Bound
from emjax.run.streamed import Streamed

if TYPE_CHECKING:
    AnyFit = Fit
else:
    # what is none reaches our own error
    AnyFit = Any


def bound_of(fit: Any, what: str, needs_data: bool = True) -> Bound:
    """Return the program of a fit, bound to its data; of a stream, to the first of its parts.

    `what`: the function that draws. Errors: `ValueError` for what is no fit, and for a stream where
    the data themselves are drawn.
    """
    if not isinstance(fit, Fit):
        raise ValueError(
            f"emjax.plot.{what} draws a fit, what em.run(rng_key, ...) returns, and not "
            f"{type(fit).__name__}."
        )
    bound = fit.on()
    if isinstance(bound, Streamed):
        if needs_data:
            raise ValueError(
                f"emjax.plot.{what} draws each datum, and a stream is not in memory. Draw some of "
                f"it: Fit.of(fit.em, fit.em.on(x), fit), with rows x of the stream."
            )
        return bound.of_first
    return bound


def values_of(bound: Bound, latent: str) -> list[str]:
    """Return what the values of a latent are called: component 0, component 1, …."""
    values = support_values(bound.compiled.graph, latent)
    return [f"{latent} {value}" for value in values.tolist()]


def axes_of(bound: Bound) -> dict[str, tuple[Axis, ...]]:
    """Return the axes of each parameter: what they are called, and the positions along them."""
    return program_axes(bound).of_parameters


def chosen(kind: str, name: str | None, names: Sequence[str], missing: str) -> str:
    """Return the one that is meant: `name`, or the first of `names`, those that can be drawn.

    Errors: `ValueError` where there is none, saying what is `missing`, or another is named.
    """
    if not names:
        raise ValueError(missing)
    if name is None:
        return names[0]
    if name not in names:
        raise ValueError(
            f"{kind}={name!r} cannot be drawn so; what can be: {', '.join(map(repr, names))}."
        )
    return name


def array_of(fit: Fit, name: str) -> np.ndarray:
    """Return a parameter of a fit."""
    return np.asarray(fit.params[name])


def titled(names: Sequence[Any]) -> list[str]:
    """Return labels of positions as words: underscores are spaces."""
    return [str(name).replace("_", " ") for name in names]
