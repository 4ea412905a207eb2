"""How well the classes can be told apart: entropy, and posteriors by the most probable class."""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Float

from emjax.classes.membership import Membership
from emjax.em import EM, asked_of
from emjax.fit import Fit, of_a_fit
from emjax.run.annotations import ParamsOrNone
from emjax.run.columns import Column, Table, lines_of
from emjax.run.precision import in_double


class Classification(eqx.Module, Table):
    """How surely each sample is of its most probable class; it prints as a table.

    With r_nk = p(z_n = k | x, θ), m_n how often sample n counts, and c_n = argmax_k r_nk its modal
    class,

        counts[c, k]     = Σ_{n: c_n = c} m_n r_nk
        entropy          = −Σ_nk m_n r_nk log r_nk, in nats
        relative entropy = 1 − entropy / (N log K),  N = Σ_n m_n

    A relative entropy of 1 says that every sample is surely of one class, of 0 that nothing is
    known of any.

    **Attributes:**

    - `latent`: the latent whose values are the classes.
    - `values`: its values.
    - `counts`: the expected number of samples by modal and true class.
    - `entropy`: of the classification, in nats, summed over samples.

    Source: Ramaswamy, DeSarbo, Reibstein & Robinson (1993), Marketing Science 12, for the relative
    entropy; Celeux & Soromenho (1996); Bolck, Croon & Hagenaars (2004), Political Analysis 12, for
    the table.
    """

    latent: str = eqx.field(static=True)
    values: np.ndarray
    counts: Float[np.ndarray, "modal class"]
    entropy: float

    @property
    def num_samples(self) -> float:
        """N, multiplicities counted."""
        return float(self.counts.sum())

    @property
    def relative_entropy(self) -> float:
        """1 − entropy / (N log K); NaN where there is one class."""
        num_classes = len(self.values)
        if num_classes == 1:
            return math.nan
        return 1 - self.entropy / (self.num_samples * math.log(num_classes))

    @property
    def average_posterior(self) -> Float[np.ndarray, "modal class"]:
        """The mean posterior of the samples of each modal class; NaN where there are none.

        Its diagonal says how surely they are of it.
        """
        return _rows_of_shares(self.counts)

    @property
    def modal_given_class(self) -> Float[np.ndarray, "class modal"]:
        """p(modal class | class): how probable it is that a sample of a class is taken for each."""
        return _rows_of_shares(self.counts.T)

    @property
    def error(self) -> float:
        """The expected share of samples whose modal class is not theirs."""
        return 1 - float(np.trace(self.counts)) / self.num_samples

    @property
    def odds_of_correct_classification(self) -> Float[np.ndarray, "class"]:
        """The odds of the diagonal of `average_posterior`, over those of the class's share.

        Above 5 for all classes is taken for good. Source: Nagin (2005), section 5.4.
        """
        right, share = np.diag(self.average_posterior), self.counts.sum(0) / self.num_samples
        # infinite where every sample of a class is surely of it
        with np.errstate(divide="ignore", invalid="ignore"):
            return right / (1 - right) / (share / (1 - share))

    def __str__(self) -> str:
        lines = [
            f"classification by '{self.latent}' of {self.num_samples:g} samples: entropy "
            f"{self.entropy:.4f} nats, relative entropy {self.relative_entropy:.4f}, expected "
            f"error {self.error:.4f}",
            "mean posterior of each class by modal class",
        ]
        return "\n".join([*lines, *(f"  {line}" for line in lines_of(self._columns()))])

    def _columns(self) -> list[Column]:
        """Return a row for each modal class, a column for each class."""
        names, average = [str(value) for value in self.values], self.average_posterior
        columns = [Column("modal", names), Column("samples", self.counts.sum(1), "g")]
        for k, name in enumerate(names):
            columns.append(Column(name, average[:, k], ".4f"))
        return columns


def _rows_of_shares(counts: np.ndarray) -> np.ndarray:
    """Return each row as shares of its sum, NaN where that is zero."""
    totals = counts.sum(1, keepdims=True)
    nothing = np.full(counts.shape, np.nan)
    return np.divide(counts, totals, out=nothing, where=totals > 0)


@of_a_fit
@in_double
def classification(
    em: EM | Fit,
    params: ParamsOrNone = None,
    *args: Any,
    latent: str | None = None,
    **kwargs: Any,
) -> Classification:
    """Return how well the classes can be told apart, at an estimate.

    `em`, `params`: an EM and an estimate, or a fit alone; `args`, `kwargs`: the model's own.
    `latent`: the latent whose values are the classes; default: the only one. Under a hard E-step
    its entropy is zero. Errors: `ValueError` where that is not one number for each element of one
    plate.

    ```python
    table = emjax.classification(EM(coins).run(jax.random.key(0), heads))
    print(table, table.relative_entropy)
    ```
    """
    membership = Membership.of(asked_of(em, params, args, kwargs), params, latent)
    entropies = membership.multiplicity @ _entropies(membership.posterior)
    table = membership.by_modal
    return Classification(membership.latent, membership.values, table, float(entropies))


def _entropies(probabilities: np.ndarray) -> np.ndarray:
    """Return the entropy of each row in nats, 0 log 0 being 0."""
    logarithms = np.zeros(probabilities.shape)
    np.log(probabilities, out=logarithms, where=probabilities > 0)
    return -(probabilities * logarithms).sum(1)
