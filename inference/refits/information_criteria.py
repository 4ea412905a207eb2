"""Information criteria: how well a model explains its data, at the price of its free parameters."""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
from jaxtyping import Array, Float

from emjax.certificates.coordinates import num_free_parameters as num_free
from emjax.em import EM, asked_of
from emjax.refits.reweighted import num_samples_of, plate_of
from emjax.run.annotations import Params
from emjax.run.pure import PureProgram


class Criteria(eqx.Module):
    """Information criteria of a model at its maximum-likelihood estimate, in nats.

    Of each criterion, the lower the better. With ℓ = log p(x | θ), p free parameters, n samples,
    and ẑ the most probable joint assignment of the latents,

        AIC = −2 ℓ + 2 p        BIC = −2 ℓ + p log n        ICL = −2 log p(x, ẑ | θ) + p log n

    **Attributes:**

    - `log_likelihood`: ℓ in nats, summed over the data.
    - `complete_log_likelihood`: log p(x, ẑ | θ) in nats.
    - `num_free_parameters`: p, how many numbers the estimate is free to choose.
    - `num_samples`: n, multiplicities included.
    - `plate`: the plate whose elements are the samples; empty if n was given.

    Source: Akaike (1974); Schwarz (1978); Biernacki, Celeux & Govaert (2000), whose ICL takes the
    latents at their most probable values (McLachlan & Peel (2000) subtract the posterior's entropy
    instead).
    """

    log_likelihood: Float[Array, ""]
    complete_log_likelihood: Float[Array, ""]
    num_free_parameters: int
    num_samples: float
    plate: str

    @property
    def aic(self) -> float:
        """−2 log p(x | θ) + 2 p.

        It is an estimate of −2 × the held-out log-likelihood of as many new samples.
        """
        return -2 * float(self.log_likelihood) + 2 * self.num_free_parameters

    @property
    def bic(self) -> float:
        """−2 log p(x | θ) + p log n.

        It is Laplace's approximation of −2 log p(x), parameters integrated out, up to O(1).
        """
        return -2 * float(self.log_likelihood) + self._price_of_parameters

    @property
    def icl(self) -> float:
        """−2 log p(x, ẑ | θ) + p log n.

        It is BIC of data and latents together, which also asks that the latents be told apart.
        """
        return -2 * float(self.complete_log_likelihood) + self._price_of_parameters

    @property
    def _price_of_parameters(self) -> float:
        return self.num_free_parameters * math.log(self.num_samples)

    def __str__(self) -> str:
        samples = f"{self.num_samples:g} samples"
        if self.plate:
            samples += f" (the elements of plate '{self.plate}')"
        lines = [
            f"log-likelihood {float(self.log_likelihood):.6f} nats, {self.num_free_parameters} "
            f"free parameters, {samples}",
            "the lower the better:",
            f"  AIC {self.aic:14.4f}   −2 log p(x | θ) + 2 p",
            f"  BIC {self.bic:14.4f}   −2 log p(x | θ) + p log n",
            f"  ICL {self.icl:14.4f}   −2 log p(x, ẑ | θ) + p log n, ẑ the most probable latents",
        ]
        return "\n".join(lines)


def criteria(
    em: EM,
    params: Params,
    *args: Any,
    plate: str | None = None,
    num_samples: float | int | None = None,
    num_free_parameters: int | None = None,
    **kwargs: Any,
) -> Criteria:
    """Return the information criteria of the program at `params`.

    Those of an estimate are meant, such as `result.params`.

    Priors do not enter: the criteria are those of log p(x | θ). A parameter counts as many numbers
    as its constraint leaves free (K − 1 of a simplex, D (D + 1) / 2 of a covariance), once, however
    often it is looked up; one that stays where it is counts none.

    `plate`: the plate whose elements are the n samples, masked ones too; default: the only
    outermost one. `num_samples`, `num_free_parameters`: n and p in place of what is counted.
    Errors: `ValueError` for several outermost plates or none, and for a constraint whose dimension
    is not known.

    ```python
    em = EM(coins)
    print(emjax.criteria(em, em.run(jax.random.key(0), heads).params, heads))
    ```
    """
    for name, value in (("num_samples", num_samples), ("num_free_parameters", num_free_parameters)):
        if value is not None and not 0 <= value < math.inf:
            raise ValueError(f"{name} must be a number of at least 0, not {value!r}.")
    bound = asked_of(em, params, args, kwargs)
    # plates are looked for only where n is not given: there may be none, or several
    plate_of_samples, n = "", num_samples
    if n is None:
        samples = plate_of(bound, plate)
        plate_of_samples, n = samples.name, num_samples_of(bound, samples)
    # log n is not defined
    if not n:
        raise ValueError(
            "There are no samples, so that the criteria are not defined. Pass data, or "
            "num_samples=..."
        )
    soft, hard = bound.asked(_log_likelihoods, params)
    compiled = bound.compiled
    # likewise: a constraint may have no dimension that is known
    p = num_free_parameters
    if p is None:
        p = num_free(compiled.graph, compiled.maximizers)
    return Criteria(soft, hard, int(p), float(n), plate_of_samples)


def _log_likelihoods(pure: PureProgram, params: Any, constants: Any) -> list:
    """Return log Z at temperature one, and at zero, where the latents are the most probable."""
    return [pure.log_likelihood(params, constants, temperature) for temperature in (1.0, 0.0)]
