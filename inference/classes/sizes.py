"""How large the classes are: expected, and by the most probable class of each sample."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Float

from emjax.classes.membership import Membership
from emjax.em import EM, asked_of
from emjax.run.annotations import Params
from emjax.run.columns import in_columns
from emjax.run.precision import in_double


class ClassSizes(eqx.Module):
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
        rows = [[self.latent, "expected", "share", "modal", "share"]]
        shares = zip(self.proportions, self.modal_proportions, strict=True)
        for k, (expected, modal) in enumerate(shares):
            sizes = [f"{self.expected[k]:.2f}", f"{expected:.4f}"]
            rows.append([str(self.values[k]), *sizes, f"{self.modal[k]:g}", f"{modal:.4f}"])
        lines = [f"sizes of the classes, of {self.num_samples:g} samples"]
        return "\n".join([*lines, *(f"  {line}" for line in in_columns(rows, "lrrrr"))])


@in_double
def class_sizes(
    em: EM, params: Params, *args: Any, latent: str | None = None, **kwargs: Any
) -> ClassSizes:
    """Return how many samples are of each class, at an estimate.

    `params`: the estimate, or the result of a run; `args`, `kwargs`: the model's own. `latent`: the
    latent whose values are the classes; default: the only one. Under a hard E-step expected sizes
    are modal ones. Errors: `ValueError` where that is not one number for each element of one plate.

    ```python
    em = EM(coins)
    print(emjax.class_sizes(em, em.run(jax.random.key(0), heads), heads))
    ```
    """
    membership = Membership.of(asked_of(em, params, args, kwargs), params, latent)
    expected = membership.multiplicity @ membership.posterior
    return ClassSizes(membership.latent, membership.values, expected, membership.modal_sizes)
