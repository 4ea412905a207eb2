"""Information criteria: how well a model explains its data, at the price of its free parameters."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from emjax.answers.reweighted import Reweighted, plate_of, plates_of, reweighted, units_in
from emjax.certificates.coordinates import num_free_parameters as num_free
from emjax.em import EM, asked_of
from emjax.fit import Fit, of_a_fit
from emjax.refits.sample_counts import SampleCounts
from emjax.run import verdicts
from emjax.run.annotations import Params, ParamsOrNone
from emjax.run.bound import Bound
from emjax.run.columns import Column, Table, lines_of
from emjax.run.findings import Finding
from emjax.run.precision import in_double
from emjax.run.pure import PureProgram

# the criteria, by name, and what each is
FORMULAS = {
    "AIC": "−2 log p(x | θ) + 2 p",
    "BIC": "−2 log p(x | θ) + p log n",
    "ICL": "−2 log p(x, ẑ | θ) + p log n, ẑ the most probable latents",
}


def in_words(temperature: float) -> str:
    """Return what an E-step of a temperature is called: soft, hard, or tempered."""
    names = {1.0: "soft", 0.0: "hard"}
    return names.get(temperature, f"tempered ({temperature:g})")


class Criteria(eqx.Module, Table):
    """Information criteria of a model at its maximum-likelihood estimate, in nats.

    Of each criterion, the lower the better. With ℓ = log p(x | θ), p free parameters, n samples,
    and ẑ the most probable joint assignment of the latents,

        AIC = −2 ℓ + 2 p        BIC = −2 ℓ + p log n        ICL = −2 log p(x, ẑ | θ) + p log n

    **Attributes:**

    - `log_likelihood`: ℓ in nats, summed over the data.
    - `complete_log_likelihood`: log p(x, ẑ | θ) in nats, of the latents of what counts as a sample.
    - `num_free_parameters`: p, how many numbers the estimate is free to choose.
    - `num_samples`: n, multiplicities included; an element of which nothing is observed counts
      none. NaN where the program does not say what a sample is.
    - `plate`: the plate whose elements are the samples; empty if n was given.
    - `undefined`: why there is no n, and so neither BIC nor ICL; empty if there is.
    - `temperature`: of the E-step: 1 is soft, 0 is hard.

    Source: Akaike (1974); Schwarz (1978); Biernacki, Celeux & Govaert (2000), whose ICL takes the
    latents at their most probable values (McLachlan & Peel (2000) subtract the posterior's entropy
    instead).
    """

    log_likelihood: Float[Array, ""]
    complete_log_likelihood: Float[Array, ""]
    num_free_parameters: int
    num_samples: float
    plate: str
    undefined: str = eqx.field(static=True, default="")
    temperature: float = 1.0

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What is to be known of the estimate before its criteria are compared."""
        if self.temperature == 1:
            return ()
        return (verdicts.not_maximum_likelihood(in_words(self.temperature)),)

    @property
    def aic(self) -> float:
        """−2 log p(x | θ) + 2 p.

        It is an estimate of −2 × the held-out log-likelihood of as many new samples.
        """
        return -2 * float(self.log_likelihood) + 2 * self.num_free_parameters

    @property
    def bic(self) -> float:
        """−2 log p(x | θ) + p log n.

        It is Laplace's approximation of −2 log p(x), parameters integrated out, up to O(1). Errors:
        `ValueError` where the program does not say what a sample is.
        """
        return -2 * float(self.log_likelihood) + self._price_of_parameters

    @property
    def icl(self) -> float:
        """−2 log p(x, ẑ | θ) + p log n.

        It is BIC of data and latents together, which also asks that the latents be told apart.
        Errors: as those of `bic`.
        """
        return -2 * float(self.complete_log_likelihood) + self._price_of_parameters

    @property
    def _price_of_parameters(self) -> float:
        if self.undefined:
            raise ValueError(self.undefined)
        return self.num_free_parameters * math.log(self.num_samples)

    def __str__(self) -> str:
        samples = f"{self.num_samples:g} samples"
        if self.plate:
            samples += f" (the elements of plate '{self.plate}')"
        head = (
            f"log-likelihood {float(self.log_likelihood):.6f} nats, {self.num_free_parameters} "
            f"free parameters"
        )
        lines = [
            head if self.undefined else f"{head}, {samples}",
            "the lower the better:",
            *[f"  {line}" for line in lines_of(self._columns(), has_head=False)],
        ]
        if self.undefined:
            lines.append(f"  no BIC, no ICL: {self.undefined}")
        return "\n".join([*lines, *map(str, self.findings)])

    def _columns(self) -> list[Column]:
        """Return a row for each criterion that is defined."""
        names = [name for name in FORMULAS if name == "AIC" or not self.undefined]
        return [
            Column("criterion", names),
            Column("value", [getattr(self, name.lower()) for name in names], ".4f"),
            Column("formula", [FORMULAS[name] for name in names]),
        ]


@of_a_fit
@in_double
def criteria(
    em: EM | Fit,
    params: ParamsOrNone = None,
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

    `plate`: the plate whose elements are the n samples, those of which anything is observed;
    default: the only outermost one. `num_samples`, `num_free_parameters`: n and p in place of what
    is counted. Errors: `ValueError` for a plate that the program does not have, and for a
    constraint whose dimension is not known. Of several outermost plates or none, only BIC and ICL
    are errors.

    ```python
    em = EM(coins)
    print(emjax.criteria(em, em.run(jax.random.key(0), heads).params, heads))
    ```
    """
    for name, value in (("num_samples", num_samples), ("num_free_parameters", num_free_parameters)):
        if value is not None and not 0 <= value < math.inf:
            raise ValueError(f"{name} must be a number of at least 0, not {value!r}.")
    bound = asked_of(em, params, args, kwargs)
    plate_of_samples, counts, undefined = _samples(bound, plate)
    n = math.nan if counts is None else float(counts.sum())
    if num_samples is not None:
        plate_of_samples, n, undefined = "", float(num_samples), ""
    # log n is not defined
    if not n:
        raise ValueError(
            "There are no samples, so that the criteria are not defined. Pass data, or "
            "num_samples=..."
        )
    soft, hard = bound.asked(_log_likelihoods, params)
    if counts is not None and (counts == 0).any():
        hard = _complete(bound, params, plate, counts)
    compiled = bound.compiled
    # not before it is needed: a constraint may have no dimension that is known
    p = num_free_parameters
    if p is None:
        p = num_free(compiled.graph, compiled.maximizers)
    temperature = float(compiled.pure.settings.temperature)
    return Criteria(soft, hard, int(p), n, plate_of_samples, undefined, temperature)


def _samples(bound: Bound, plate: str | None) -> tuple[str, np.ndarray | None, str]:
    """Return the plate of the samples, how many each element counts as, or why nobody knows.

    Errors: `ValueError` for a plate that the program does not have.
    """
    try:
        samples = plate_of(bound, plate)
        return samples.name, SampleCounts.of(bound, samples).multiplicities, ""
    # AIC is defined all the same
    except ValueError as error:
        if plate is not None and plate not in plates_of(bound).plates:
            raise
        return "", None, str(error)


def _log_likelihoods(pure: PureProgram, params: Any, constants: Any) -> list:
    """Return log Z at temperature one, and at zero, where the latents are the most probable."""
    return [pure.log_likelihood(params, constants, temperature) for temperature in (1.0, 0.0)]


def _complete(bound: Bound, params: Params, plate: str | None, counts: np.ndarray) -> Any:
    """Return log p(x, ẑ | θ) of the elements that count.

    A latent that no datum depends on has a most probable value, too, which explains nothing.
    """
    weighted = reweighted(bound, units_in(bound, plate, None))
    of_weights = weighted.function("complete", partial(Reweighted.log_likelihood, temperature=0.0))
    return of_weights(bound.checked(params), (counts > 0).astype(jnp.result_type(float)))
