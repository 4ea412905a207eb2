"""Information criteria: how well a model explains its data, at the price of its free parameters."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from emjax.answers.reweighted import Reweighted, plate_of, plates_of, reweighted, units_in
from emjax.certificates.bases import bases_at
from emjax.certificates.coordinates import num_free_parameters as num_free
from emjax.certificates.estimate import Estimate
from emjax.em import EM, asked_of
from emjax.fit import Fit, of_a_fit
from emjax.refits.sample_counts import SampleCounts, has_sampling_weights
from emjax.run import verdicts
from emjax.run.annotations import Params, ParamsOrNone
from emjax.run.bound import Bound
from emjax.run.columns import Column, Table, lines_of
from emjax.run.findings import Finding
from emjax.run.precision import in_double
from emjax.run.pure import PureProgram
from emjax.run.streamed import Streamed

# their formulas; all but the first ask what a sample is
FORMULAS = {
    "AIC": "−2 log p(x | θ) + 2 p",
    "BIC": "−2 log p(x | θ) + p log n",
    "SABIC": "−2 log p(x | θ) + p log((n + 2) / 24)",
    "CAIC": "−2 log p(x | θ) + p (log n + 1)",
    "ICL": "−2 log p(x, ẑ | θ) + p log n, ẑ the most probable latents",
    "AWE": "−2 log p(x, ẑ | θ) + 2 p (log n + 3/2)",
}
INFORMATION = tuple(FORMULAS)


def in_words(temperature: float) -> str:
    """Return what an E-step of a temperature is called: soft, hard, or tempered."""
    names = {1.0: "soft", 0.0: "hard"}
    return names.get(temperature, f"tempered ({temperature:g})")


class Criteria(eqx.Module, Table):
    """Information criteria of a model at its maximum-likelihood estimate, in nats.

    Of each criterion, the lower the better. With ℓ = log p(x | θ), p free parameters, n samples,
    and ẑ the most probable joint assignment of the latents,

        AIC   = −2 ℓ + 2 p               BIC  = −2 ℓ + p log n
        SABIC = −2 ℓ + p log((n + 2) / 24)
        CAIC  = −2 ℓ + p (log n + 1)
        ICL   = −2 log p(x, ẑ | θ) + p log n
        AWE   = −2 log p(x, ẑ | θ) + 2 p (log n + 3/2)

    **Attributes:**

    - `log_likelihood`: ℓ in nats, summed over the data.
    - `complete_log_likelihood`: log p(x, ẑ | θ) in nats, of the latents of what counts as a sample.
    - `num_free_parameters`: p, how many numbers the estimate is free to choose.
    - `num_samples`: n, multiplicities included; an element of which nothing is observed counts
      none. NaN where the program does not say what a sample is.
    - `plate`: the plate whose elements are the samples; empty if n was given.
    - `undefined`: why there is no n, and so nothing but AIC; empty if there is.
    - `temperature`: of the E-step: 1 is soft, 0 is hard.
    - `is_pseudo`: whether the samples have sampling weights (`weighted(kind="sampling")`). log p is
      then a pseudo-log-likelihood.

    Source: Akaike (1974); Schwarz (1978); Biernacki, Celeux & Govaert (2000), whose ICL takes the
    latents at their most probable values (McLachlan & Peel (2000) subtract the posterior's entropy
    instead); Sclove (1987), Psychometrika 52, for SABIC, the BIC adjusted for sample size; Bozdogan
    (1987), Psychometrika 52, for CAIC, the consistent AIC; Banfield & Raftery (1993), Biometrics
    49, for AWE, the approximate weight of evidence (Masyn, 2013, takes ℓ and half that price).
    """

    log_likelihood: Float[Array | np.ndarray, ""]
    complete_log_likelihood: Float[Array | np.ndarray, ""]
    num_free_parameters: int
    num_samples: float
    plate: str
    undefined: str = eqx.field(static=True, default="")
    temperature: float = 1.0
    is_pseudo: bool = False

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What is to be known of the estimate before its criteria are compared."""
        found: tuple[Finding, ...] = ()
        if self.temperature != 1:
            found += (verdicts.not_maximum_likelihood(in_words(self.temperature)),)
        if self.is_pseudo:
            found += (verdicts.pseudo_likelihood(),)
        return found

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
    def sabic(self) -> float:
        """−2 log p(x | θ) + p log((n + 2) / 24).

        It asks less of a parameter than BIC where samples are few. Errors: as those of `bic`.
        """
        price = math.log((self._num_samples + 2) / 24)
        return -2 * float(self.log_likelihood) + self.num_free_parameters * price

    @property
    def caic(self) -> float:
        """−2 log p(x | θ) + p (log n + 1). Errors: as those of `bic`."""
        return self.bic + self.num_free_parameters

    @property
    def awe(self) -> float:
        """−2 log p(x, ẑ | θ) + 2 p (log n + 3/2).

        It asks more of a parameter than any other. Errors: as those of `bic`.
        """
        price = 2 * self._price_of_parameters + 3 * self.num_free_parameters
        return -2 * float(self.complete_log_likelihood) + price

    @property
    def _num_samples(self) -> float:
        if self.undefined:
            raise ValueError(self.undefined)
        return self.num_samples

    @property
    def _price_of_parameters(self) -> float:
        return self.num_free_parameters * math.log(self._num_samples)

    @property
    def by_name(self) -> dict[str, float]:
        """{name: each criterion that is defined}, the lower the better."""
        names = INFORMATION[:1] if self.undefined else INFORMATION
        return {name: getattr(self, name.lower()) for name in names}

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
            lines.append(f"  no other: {self.undefined}")
        return "\n".join([*lines, *map(str, self.findings)])

    def _columns(self) -> list[Column]:
        """Return a row for each criterion that is defined."""
        by_name = self.by_name
        return [
            Column("criterion", list(by_name)),
            Column("value", list(by_name.values()), ".4f"),
            Column("formula", [FORMULAS[name] for name in by_name]),
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
    often it is looked up; one that stays where it is counts none, nor does a basis of Gaussian
    latents that the likelihood does not depend on: of q factors, q (q − 1) / 2 rotations.

    `plate`: the plate whose elements are the n samples, those of which anything is observed;
    default: the only outermost one. `num_samples`, `num_free_parameters`: n and p in place of what
    is counted. Errors: `ValueError` for a plate that the program does not have, and for a
    constraint whose dimension is not known. Of several outermost plates or none, only AIC is
    defined.

    ```python
    em = EM(coins)
    print(emjax.criteria(em, em.run(jax.random.key(0), heads).params, heads))
    ```
    """
    for name, value in (("num_samples", num_samples), ("num_free_parameters", num_free_parameters)):
        if value is not None and not 0 <= value < math.inf:
            raise ValueError(f"{name} must be a number of at least 0, not {value!r}.")
    bound = asked_of(em, params, args, kwargs)
    samples, n, undefined, soft, hard = _counted(bound, params, plate)
    if num_samples is not None:
        samples, n, undefined = "", float(num_samples), ""
    # log n is not defined
    if not n:
        raise ValueError(
            "There are no samples, so that the criteria are not defined. Pass data, or "
            "num_samples=..."
        )
    compiled = bound.compiled
    # not before it is needed: a constraint may have no dimension that is known
    p = num_free_parameters
    if p is None:
        p = num_free(compiled.graph, compiled.maximizers)
        if compiled.graph.gaussians:
            of_some = bound.of_first if isinstance(bound, Streamed) else bound
            p -= bases_at(Estimate.of(of_some, params)).count
    temperature = float(compiled.pure.settings.temperature)
    is_pseudo = has_sampling_weights(bound)
    return Criteria(soft, hard, int(p), n, samples, undefined, temperature, is_pseudo)


class _Counted(NamedTuple):
    """What a program's data say at an estimate, as in `Criteria`."""

    plate: str
    num_samples: float
    undefined: str
    log_likelihood: Any
    complete_log_likelihood: Any


def _counted(bound: Bound | Streamed, params: Params, plate: str | None) -> _Counted:
    """Return what the data say; of a stream, the sum over its parts."""
    if isinstance(bound, Bound):
        name, counts, undefined = _samples(bound, plate)
        soft, hard = bound.asked(_log_likelihoods, params)
        if counts is not None and (counts == 0).any():
            hard = _complete(bound, params, plate, counts)
        n = math.nan if counts is None else float(counts.sum())
        return _Counted(name, n, undefined, soft, hard)
    parts = [_counted(part, params, plate) for part in bound.bounds]
    # what is observed outside of the parts counts once
    again = (len(parts) - 1) * bound.shared_log_likelihood(params)
    soft = sum(float(part.log_likelihood) for part in parts) - again
    hard = sum(float(part.complete_log_likelihood) for part in parts) - again
    return parts[0]._replace(
        num_samples=sum(part.num_samples for part in parts),
        log_likelihood=np.asarray(soft),
        complete_log_likelihood=np.asarray(hard),
    )


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
