"""The log-likelihood of single samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxtyping import Array, Float

from emjax.answers.reweighted import pointwise
from emjax.em import EM, asked_of
from emjax.fit import Fit, of_a_fit
from emjax.run.annotations import ParamsOrNone
from emjax.run.precision import in_double


@of_a_fit
@in_double
def pointwise_log_likelihood(
    em: EM | Fit,
    params: ParamsOrNone = None,
    *args: Any,
    plate: str | None = None,
    rows: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> Float[Array, "element"]:
    """Return log p(x_n | params) in nats of each element n of a plate, its latents summed out.

    They add up to `em.log_likelihood(params, …)` (plus what stands outside the plate), and an
    element of multiplicity s has s times its own. It is ∂ log p / ∂ weight, so one reverse pass
    finds all of them.

    `plate`: default the only outermost one. `rows`: {another plate: which element of `plate` each
    of its elements belongs to}, for long-form data: `plate="items", rows={"labels": item}`. Errors:
    `ValueError` for a plate that the program does not have, and where elements are not independent
    given the parameters.
    """
    return pointwise(asked_of(em, params, args, kwargs), params, plate, rows)
