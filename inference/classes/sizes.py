"""How large the classes are: expected, and by the most probable class of each sample."""

from __future__ import annotations

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


class ClassSizes(eqx.Module, Table):
    """How many samples are of each class; it prints as a table.

    **Attributes:**

    - `latent`: the latent whose values are the classes.
    - `values`: its values.
    - `expected`: Σ_n m_n p(z_n = k | x, θ), with m_n how often sample n counts.
    - `modal`: how many samples are most probably of each class, multiplicities counted.

    Samples of which nothing is observed do not count.
    """

    latent: str = eqx.field(static=True)
    values: np.ndarray
    expected: Float[np.ndarray, "class"]
    modal: Float[np.ndarray, "class"]

    @property
    def num_samples(self) -> float:
        """How many samples there are, multiplicities counted."""
        return float(self.modal.sum())

    @property
    def proportions(self) -> Float[np.ndarray, "class"]:
        """The expected sizes as shares of all."""
        return self.expected / self.num_samples

    @property
    def modal_proportions(self) -> Float[np.ndarray, "class"]:
        """The modal sizes as shares of all."""
        return self.modal / self.num_samples

    def __str__(self) -> str:
        head = f"sizes of the classes, of {self.num_samples:g} samples"
        return "\n".join([head, *(f"  {line}" for line in lines_of(self._columns()))])

    def _columns(self) -> list[Column]:
        return [
            Column("class", [str(value) for value in self.values], title=self.latent),
            Column("expected", self.expected, ".2f"),
            Column("share", self.proportions, ".4f"),
            Column("modal", self.modal, "g"),
            Column("modal_share", self.modal_proportions, ".4f", "share"),
        ]


@of_a_fit
@in_double
def class_sizes(
    em: EM | Fit,
    params: ParamsOrNone = None,
    *args: Any,
    latent: str | None = None,
    **kwargs: Any,
) -> ClassSizes:
    """Return how many samples are of each class, at an estimate.

    `em`, `params`: an EM and an estimate, or a fit alone; `args`, `kwargs`: the model's own.
    `latent`: the latent whose values are the classes; default: the only one. Under a hard E-step
    expected sizes are modal ones. Errors: `ValueError` where that is not one number for each
    element of one plate.

    ```python
    print(emjax.class_sizes(EM(coins).run(jax.random.key(0), heads)))
    ```
    """
    membership = Membership.of(asked_of(em, params, args, kwargs), params, latent)
    expected = membership.multiplicity @ membership.posterior
    return ClassSizes(membership.latent, membership.values, expected, membership.modal_sizes)
