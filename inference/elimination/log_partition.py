"""log Z: sum every latent out of a factor graph, plates and all.

A factor is an array over the elements of plates (first) and the values of latents (last). A latent
can be summed out once each of its elements determines which element of every other latent it meets:
then all its factors add up to one table over its elements, and log Σ exp of that table is a factor
on the rest. Latents in inner plates go first; where none qualifies (crossed plates), a small one is
taken element by element. What it is to multiply factors and to sum a latent out is the algebra's:
the order here asks for its three methods alone. Source: Obermeyer et al. (2019), for trees of
plates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array

from emjax.elimination.algebra import TableAlgebra
from emjax.elimination.alignment import Joint, joined
from emjax.elimination.chains.layout import chain_among
from emjax.elimination.crossed import split_elements
from emjax.elimination.factors import Factor, Variable, settled
from emjax.tables.indices import Affine


def log_partition(
    factors: Sequence[Factor], variables: Mapping[Any, Variable], algebra: TableAlgebra
) -> Array:
    """Return log Z in nats: the total of all factors, every latent summed out.

    Its gradient with respect to a factor's values is the posterior of the factor's latents. Errors:
    `MemoryError` for a table that would not fit, `ValueError` for a coupling that no order of
    elimination resolves.
    """
    factors = [settled(factor) for factor in factors]
    remaining = dict(variables)
    # every round takes one latent or chain out, or makes a latent into its elements
    while remaining:
        joints = _ready(factors, remaining)
        orderly = {name: joint for name, joint in joints.items() if not _scatters_steps(joint)}
        # a chain goes before a latent that would couple its steps in no regular order
        chain = None if orderly else chain_among(factors, remaining)
        if chain is not None:
            gone = chain.names
            multiplicity = remaining[gone[0]].multiplicity
            message = algebra.chain_summed_out(
                chain, None if multiplicity is None else multiplicity[0]
            )
        elif joints:
            name = _cheapest(orderly or joints, remaining, algebra)
            gone = (name,)
            message = algebra.summed_out(joints[name], remaining[name])
        else:
            factors, remaining = split_elements(factors, remaining)
            continue
        factors = [factor for factor in factors if not factor.reads_any(gone)]
        factors.append(settled(message))
        remaining = {name: v for name, v in remaining.items() if name not in gone}
    return sum((factor.total for factor in factors), jnp.zeros(()))


def _ready(factors: Sequence[Factor], remaining: Mapping[Any, Variable]) -> dict[Any, Joint]:
    """Return the factors of each latent that can be summed out, laid out over its elements."""
    joints = {}
    for name, variable in remaining.items():
        joint = joined(factors, variable, remaining)
        if joint is not None and _is_innermost(joint, variable, remaining):
            joints[name] = joint
    return joints


def _is_innermost(joint: Joint, variable: Variable, remaining: Mapping[Any, Variable]) -> bool:
    """Whether no latent that it meets counts several times within each time that it counts."""
    # those are independent given this one, and go first
    return not any(variable.encloses(remaining[axis.source]) for axis in joint.axes)


def _scatters_steps(joint: Joint) -> bool:
    """Whether a latent meets several elements of another in no regular order.

    The other would then be a chain no more.
    """
    sources = [axis.source for axis in joint.axes]
    return any(
        sources.count(axis.source) > 1 and not isinstance(axis.index, Affine) for axis in joint.axes
    )


def _cheapest(joints: Mapping[Any, Joint], remaining: Mapping, algebra: TableAlgebra) -> Any:
    """Return the latent of which the product of all factors is the smallest."""
    return min(joints, key=lambda name: algebra.size(joints[name], remaining[name]))
