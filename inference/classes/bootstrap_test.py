"""The parametric bootstrap likelihood-ratio test of a number of classes against a larger one."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float

from emjax.classes.likelihood_ratio import (
    NEGLIGIBLE,
    Fitted,
    check_fits,
    findings_of,
    statistic_of,
)
from emjax.classes.replicates import PairOfPrograms
from emjax.run import verdicts
from emjax.run.annotations import Whole
from emjax.run.bound import Bound, checked_key
from emjax.run.columns import Column, Table, lines_of
from emjax.run.findings import Finding
from emjax.run.settings import is_whole_number

CALL = "emjax.bootstrap_likelihood_ratio(fit_of_2, fit_of_3, jax.random.key(0))"
QUANTILES = (0.5, 0.9, 0.95, 0.99)


class BootstrapLikelihoodRatio(eqx.Module, Table):
    """A likelihood ratio beside those of data that the smaller program draws; it prints as a table.

    **Attributes:**

    - `statistic`: LR = 2 (log p(x | larger) − log p(x | smaller)), in nats, of the data.
    - `replicates`: the same of each replicate; NaN where a fit failed or something has collapsed.
    - `num_unconverged`: in how many replicates a fit stopped before it had converged; these count.
    - `findings`: what is to be known of the fits and of the replicates.
    """

    statistic: float
    replicates: Float[np.ndarray, "replicate"]
    num_unconverged: int
    findings: tuple[Finding, ...] = eqx.field(static=True, default=())

    @property
    def num_failed(self) -> int:
        """In how many replicates there is no likelihood ratio; they are left out."""
        return int(np.isnan(self.replicates).sum())

    @property
    def num_negative(self) -> int:
        """In how many replicates the larger program came to no better optimum than the smaller."""
        return int((self.replicates < -NEGLIGIBLE).sum())

    @property
    def p_value(self) -> float:
        """(1 + #{LR* ≥ LR}) / (B + 1), of the B replicates that count."""
        num_counted = len(self.replicates) - self.num_failed
        return (1 + int((self.replicates >= self.statistic).sum())) / (num_counted + 1)

    @property
    def standard_error(self) -> float:
        """The Monte Carlo standard error of the p-value."""
        num_counted = len(self.replicates) - self.num_failed
        return float(np.sqrt(self.p_value * (1 - self.p_value) / (num_counted + 1)))

    def __str__(self) -> str:
        num_counted = len(self.replicates) - self.num_failed
        lines = [
            f"likelihood ratio {self.statistic:.4f}, p = {self.p_value:.4f} ± "
            f"{self.standard_error:.4f}, of {num_counted} replicates drawn by the smaller program",
            *(f"  {line}" for line in lines_of(self._columns())),
        ]
        return "\n".join([*lines, *map(str, self.findings)])

    def _columns(self) -> list[Column]:
        """Return a row for each quantile of the replicates."""
        # without a single one there is nothing to order
        quantiles = np.full(len(QUANTILES), np.nan)
        if self.num_failed < len(self.replicates):
            quantiles = np.nanquantile(self.replicates, QUANTILES)
        return [
            Column("quantile", QUANTILES, ".0%"),
            Column("likelihood_ratio", quantiles, ".4f"),
        ]


def bootstrap_likelihood_ratio(
    fit: Fitted,
    larger: Fitted,
    rng_key: Any,
    *,
    num_replicates: Whole = 100,
    num_starts: Whole | None = None,
) -> BootstrapLikelihoodRatio:
    """Return the parametric bootstrap likelihood-ratio test (BLRT) of two fits to the same data.

    Whether K classes are enough: `fit` is of K, `larger` of K + 1 (of any program that has more
    parameters). Data are drawn from the program of `fit` at its estimate, and both programs fitted
    to each replicate, all in one compiled function. The likelihood ratio has no χ² distribution
    here, since K + 1 classes are K where two are alike, or one is empty.

    On a replicate the smaller program starts at its estimate; the larger at its own and at
    `num_starts` others, drawn as its settings and the program say (default: as many as its
    `num_restarts`, or 8), of which the best after 20 steps goes on; both are accelerated (SQUAREM).
    What the programs take as arguments other than observations stays as it is. With
    `num_replicates` B, the least p-value that can be is 1 / (B + 1).

    Errors: `ValueError` for fits of different data or sites, for a hard E-step, for rows with
    multiplicities or sampling weights, and for labels and `numpyro.factor`, which are not drawn.

    In a simulation of two latent classes its p-values are uniform (docs/class_number.md). Source:
    McLachlan (1987), Applied Statistics 36; Nylund, Asparouhov & Muthén (2007), Structural
    Equation Modeling 14.

    ```python
    from functools import partial

    from emjax.models import latent_class

    says_yes = jnp.where(jnp.arange(60) < 30, 0.8, 0.3)[:, None]
    answers = jax.random.bernoulli(jax.random.key(1), says_yes, (60, 4)).astype(int)
    ems = [EM(partial(latent_class.program, num_classes=k)) for k in (1, 2)]
    fits = [em.run(jax.random.key(0), answers) for em in ems]
    print(emjax.bootstrap_likelihood_ratio(*fits, jax.random.key(0), num_replicates=20))
    ```
    """
    check_fits(CALL, fit, larger)
    for name, number in (("num_replicates", num_replicates), ("num_starts", num_starts)):
        if number is not None and not (is_whole_number(number) and number >= 1):
            raise ValueError(f"{name} must be a whole number of at least 1, not {number!r}.")
    key = checked_key(rng_key, f"rng_key is a random key: {CALL}.")
    keys = jax.random.split(key, int(num_replicates))

    def question(bound: Bound) -> BootstrapLikelihoodRatio:
        pair = PairOfPrograms.of(bound, fit, larger.on(), larger, keys, num_starts)
        replicates, num_unconverged = pair.likelihood_ratios(keys)
        found = findings_of(fit, larger)
        found += findings_of_replicates(replicates, num_unconverged)
        return BootstrapLikelihoodRatio(
            statistic_of(fit, larger), replicates, num_unconverged, tuple(found)
        )

    return fit.on().in_its_precision(question)


def findings_of_replicates(replicates: np.ndarray, num_unconverged: int) -> list[Finding]:
    """Return what is to be known of replicates: that some failed, or came to a poor optimum."""
    found, total = [], len(replicates)
    num_failed = int(np.isnan(replicates).sum())
    num_negative = int((replicates < -NEGLIGIBLE).sum())
    if num_failed:
        found.append(verdicts.failed_replicates(num_failed, total))
    if num_unconverged:
        found.append(verdicts.unconverged_replicates(num_unconverged, total))
    if num_negative:
        found.append(verdicts.negative_replicates(num_negative, total))
    return found
