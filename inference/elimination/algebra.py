"""Tables of log-densities: what it is to multiply factors, and to sum a latent out of the product.

A product is a sum of tables, and a latent, which takes one of a few values, is summed out by
log Σ exp.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from emjax.elimination.alignment import Joint
from emjax.elimination.chains.in_logarithms import log_sum, log_sum_in_parallel
from emjax.elimination.chains.in_rounds import MOST_STATES, log_sum_in_rounds
from emjax.elimination.chains.layout import Chain
from emjax.elimination.chains.scaled import scaled_log_sum
from emjax.elimination.factors import Cells, Factor, Variable, divisor_of
from emjax.elimination.reductions import Reduction
from emjax.numerics.axes import arranged
from emjax.numerics.fast_forms import FastForms
from emjax.tables.indices import Affine
from emjax.tables.lifting import check_memory
from emjax.tables.named import Axis


@dataclass(frozen=True, eq=False)
class TableAlgebra:
    """Tables of log-densities, summed over the values of latents.

    Where an element has the multiplicity s, and φ is the total of all s, it contributes

        s log Σ exp(φ / s).

    - `reduction`: how values are summed out.
    - `fast`: leave to take forms that need probabilities away from zero; None: no such form.
    - `chains`: how chains are summed out (see `EM`).
    """

    reduction: Reduction
    fast: FastForms | None = None
    chains: str = "sequential"

    def size(self, joint: Joint, variable: Variable) -> int:
        """Return how many entries the product of a latent's factors has."""
        return variable.count * variable.size * math.prod(axis.size for axis in joint.axes)

    def summed_out(self, joint: Joint, variable: Variable) -> Factor:
        """Return the factor that is left when a latent is summed out of all its factors."""
        # before the table is made: an error is worth more than a machine out of memory
        latent = Axis(variable.name, variable.size, Affine.identity(variable.shape))
        check_memory((*joint.axes, latent), (self.size(joint, variable),))
        if self._may_be_fast and _is_cheaper_as_products(joint, variable, self.fast):
            message, margin = _log_of_sums(joint)
            self.fast.margins.append(margin)
        else:
            table = _log_product(joint, variable)
            message = self.reduction.over(table, 1, len(variable.shape))
        if variable.multiplicity is not None:
            message = _over_values(variable.multiplicity, len(joint.axes)) * message
        return Factor(joint.axes, variable.shape, Cells(message))

    def chain_summed_out(self, chain: Chain, multiplicity: Any) -> Factor:
        """Return the factor that is left when a chain is summed out over time.

        `multiplicity`: that of each element of a step, (batch…); None: one.
        """
        if multiplicity is not None:
            chain = chain.without_multiplicity(multiplicity)
        message = self._log_sum(chain).reshape(
            chain.batch + tuple(axis.size for axis in chain.others)
        )
        if multiplicity is not None:
            message = _over_values(multiplicity, len(chain.others)) * message
        return Factor(chain.others, chain.batch, Cells(message))

    def _log_sum(self, chain: Chain):
        if self.chains == "parallel":
            return log_sum_in_parallel(chain, self.reduction)
        checkpointed = self.chains == "checkpointed"
        # the scaled form is compiled beside the plain one, which small chains are not worth
        work = chain.length * chain.count * chain.num_states * max(chain.sizes.values())
        may_be_scaled = self._may_be_fast and self.fast.epsilon is not None
        if may_be_scaled and chain.length > chain.order:
            if self.fast.are_worth(work, chain.length):
                return scaled_log_sum(chain, self.fast.perturbed(), checkpointed)
            if self.fast.is_often and chain.num_states <= MOST_STATES:
                return log_sum_in_rounds(chain, self.fast.perturbed())
        return log_sum(chain, self.reduction, checkpointed)

    @property
    def _may_be_fast(self) -> bool:
        return self.fast is not None and self.reduction.is_soft


def _over_values(multiplicity, num_axes: int):
    """Return a multiplicity (elements…) with an axis for the values of each of some latents."""
    return multiplicity.reshape(multiplicity.shape + (1,) * num_axes)


def _log_product(joint: Joint, variable: Variable):
    """Return the product of a latent's factors: (elements…, values of `joint.axes`, its values).

    A total is divided by the multiplicity: the product is that of one element counted once.
    """
    rank = len(variable.shape)
    order = [*(axis.key for axis in joint.axes), variable.name]
    parts: list = []
    divisor: Any = 1
    if variable.multiplicity is not None:
        divisor = _over_values(divisor_of(variable.multiplicity), len(joint.axes) + 1)
    for factor in joint.factors:
        labels = [
            variable.name if axis.source == variable.name else axis.key for axis in factor.axes
        ]
        array = arranged(factor.array, labels, order, rank)
        is_total = variable.multiplicity is not None and not factor.without_multiplicity
        parts.append(array / divisor if is_total else array)
    # a latent whose own probability does not depend on its value (uniform) may touch no factor
    table = sum(parts[1:], parts[0]) if parts else jnp.zeros((1,) * (rank + len(order)))
    return jnp.broadcast_to(table, (*table.shape[:-1], variable.size))


def _is_cheaper_as_products(joint: Joint, variable: Variable, fast: FastForms) -> bool:
    """Whether the factors' tables have far fewer entries than their product, each counted once."""
    entries = variable.count * variable.size
    if not fast.are_worth(entries * fast.num_blocks) or joint.axes or not joint.factors:
        return False
    in_tables = 0
    for factor in joint.factors:
        # what all blocks look up is there once
        is_shared = factor.cells.index is not None
        in_tables += factor.cells.table.size / (fast.num_blocks if is_shared else 1)
    # by less than half, the exponentials that are saved would not be worth a second form
    if 2 * in_tables > entries:
        return False
    return variable.multiplicity is None or all(f.without_multiplicity for f in joint.factors)


def _log_of_sums(joint: Joint):
    """Return log Σ_k Π_f p_f(k) of the factors' exponentials, (elements…), and its margin.

    A million rows that look up tables of a thousand cells need a thousand exponentials. Each cell's
    largest entry is divided out; the margin is the least sum, which may underflow.
    """
    product: Any = 1.0
    offset: Any = 0.0
    for factor in joint.factors:
        cells = factor.cells
        # a constant to derivatives: what is divided out is multiplied in again
        largest = jax.lax.stop_gradient(cells.table.max(-1, keepdims=True))
        product = product * cells.gated(cells.read(jnp.exp(cells.table - largest)), 1)
        offset = offset + cells.gated(cells.read(largest[..., 0]), 0)
    total = product.sum(-1)
    return offset + jnp.log(total), jax.lax.stop_gradient(total).min()
