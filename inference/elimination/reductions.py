"""How a latent is summed out of a table of log-densities: softly, or by a draw of its value.

Elimination and its reverse pass are the same for all of them; what comes out differs. With the soft
sum, gradients of log Z are posteriors; with the maximum, which is the limit of temperature zero,
indicators of the mode; with `Drawn`, whose values are those of the soft sum, indicators of a draw.
"""

from __future__ import annotations

import abc
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from emjax.numerics import guards


class Reduction(abc.ABC):
    """How values are summed out of tables."""

    @property
    @abc.abstractmethod
    def is_soft(self) -> bool:
        """Whether it is known to be log Σ exp, whose gradients are posteriors."""

    @abc.abstractmethod
    def at(self, step: Any) -> Reduction:
        """Return the reduction in one step of a loop: a draw is another in every step."""

    @abc.abstractmethod
    def over(self, table: Any, num_values: int, num_elements: int) -> Array:
        """Return a table (elements…, others…, values…) summed over the values of a latent.

        `num_values`, `num_elements`: how many axes these have; of the others, which are values of
        other latents, a reverse pass meets one entry for each element.
        """


@dataclass(frozen=True)
class Tempered(Reduction):
    """τ log Σ exp(· / τ): `temperature` 1 sums, 0 maximizes (hard E-step)."""

    temperature: ArrayLike = 1.0

    @property
    def is_soft(self) -> bool:
        return guards.is_soft(self.temperature)

    def at(self, step: Any) -> Tempered:
        """Return itself: it is the same in every step."""
        return self

    def over(self, table: Any, num_values: int, num_elements: int) -> Array:
        """Return the table summed over its last axes."""
        return guards.tempered_logsumexp(table, self.temperature, num_values)


@dataclass(frozen=True, eq=False)
class Drawn(Reduction):
    """log Σ exp, whose gradient is the indicator of one value, drawn with probability ∝ exp.

    The reverse pass visits latents in the opposite order: at each, the values of those that were
    summed out after it are drawn already, and its cotangent says which they are. It draws this one
    given them; gradients of log Z are indicators of one draw from the joint posterior. In a chain
    that is backward sampling. Source: Corro & Titov (2019), section 4, for sequences and trees;
    Rush (2020), section 5.

    - `key`: the random key, of the new style.
    - `step`: the step of the loop that it is in; None outside.
    - `numbers`: tells one reduction of a trace from the next, so that each draws for itself.
    """

    key: Array
    step: Any = None
    numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def is_soft(self) -> bool:
        return False

    def at(self, step: Any) -> Drawn:
        """Return what draws in one step of a loop."""
        return replace(self, step=step)

    def over(self, table: Any, num_values: int, num_elements: int) -> Array:
        """Return the table summed over its last axes."""
        if num_values == 0:
            return table
        flat = table.reshape(*table.shape[: table.ndim - num_values], -1)
        key = jax.random.key_data(self.key)
        return _drawn_logsumexp(num_elements, next(self.numbers), flat, key, self.step)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _drawn_logsumexp(num_elements: int, number: int, table: Any, key: Any, step: Any) -> Array:
    return guards.tempered_logsumexp(table, 1, 1)


def _forward(num_elements: int, number: int, table: Any, key: Any, step: Any) -> tuple:
    # what depends on the key is left to the reverse pass: many draws share one pass forward
    return guards.tempered_logsumexp(table, 1, 1), (table, key, step)


def _backward(num_elements: int, number: int, residuals: tuple, cotangent: Any) -> tuple:
    table, key, step = residuals
    elements = table.shape[:num_elements]
    # one row of an element is met: that of the values of others which are drawn already
    others = tuple(range(num_elements, table.ndim - 1))
    is_met = (cotangent != 0).astype(table.dtype)[..., None]
    limits = (_limits(table) * is_met).sum(others)
    key = jax.random.fold_in(jax.random.wrap_key_data(key), number)
    if step is not None:
        key = jax.random.fold_in(key, step)
    uniform = jax.random.uniform(key, elements, table.dtype)
    drawn = jnp.argmax(limits > uniform[..., None], -1)
    indicator = jax.nn.one_hot(drawn, table.shape[-1], dtype=table.dtype)
    indicator = indicator.reshape(*elements, *(1 for _ in others), table.shape[-1])
    return cotangent[..., None] * indicator, None, None


_drawn_logsumexp.defvjp(_forward, _backward)


def _limits(table: Any) -> Array:
    """Return, of each value, the end of its part of [0, 1), by which a uniform number chooses.

    It is −1 for a value of probability zero, which rounding may not choose.
    """
    probability = jnp.exp(table - table.max(-1, keepdims=True))
    limits = jnp.where(probability > 0, jnp.cumsum(probability, -1), -1)
    # relative to the largest, which is one then, whatever the order of the sum
    return jnp.where(limits < 0, -1, limits / limits.max(-1, keepdims=True))
