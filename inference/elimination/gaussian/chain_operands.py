"""What a Gaussian chain is made of, in time: pieces, and what its latents are drawn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax.numpy as jnp

from emjax.elimination.alignment import laid_out
from emjax.elimination.chains.in_time import operand_in_time
from emjax.elimination.chains.operands import Label, Operand
from emjax.elimination.factors import Cells, Factor, Variable, divisor_of
from emjax.elimination.gaussian.chain_groups import check_no_switching
from emjax.elimination.gaussian.conditional import Conditional
from emjax.tables.indices import Affine
from emjax.tables.named import Coordinates


class ConditionalInTime(NamedTuple):
    """What a latent of the chain is drawn from, in time: a `Conditional` of operands.

    - `name`: the latent's.
    - `mean`, `scale`: as operands.
    - `coefficients`: likewise, each with the label that it reads.
    """

    name: Any
    mean: Operand
    scale: Operand
    coefficients: tuple[tuple[Operand, Label], ...]


def operand_of(
    factor: Factor, names: tuple, variables: Mapping[Any, Variable], others: dict
) -> Operand | None:
    """Return a factor in time; the axes that it reads of latents outside are added to `others`."""
    check_no_switching(factor, names, variables)
    in_time = operand_in_time(factor, names, variables)
    if in_time is None:
        in_order = _in_order(factor, names, variables)
        in_time = None if in_order is None else operand_in_time(in_order, names, variables)
    if in_time is None:
        return None
    others |= {axis.key: axis for axis in in_time[1]}
    return in_time[0]


def _in_order(factor: Factor, names: tuple, variables: Mapping[Any, Variable]) -> Factor | None:
    """Return a quadratic form in elements read in any order, added up by the element."""
    inside = [i for i, axis in enumerate(factor.axes) if axis.source in names]
    if len(inside) != 2 or len({factor.axes[i].key for i in inside}) != 1:
        return None
    rank, second = len(factor.shape), inside[1]
    # one axis says which element it is; the other goes to the end meanwhile, without a name
    once = factor.mapped(
        lambda array: jnp.moveaxis(array, rank + second, -1),
        tuple(axis for i, axis in enumerate(factor.axes) if i != second),
        factor.shape,
    )
    variable = variables[factor.axes[second].source]
    laid = laid_out(once, variable, variables)
    if laid is None:
        return None
    return replace(laid, axes=(*laid.axes, *laid.axes_of(variable.name)))


def conditional_in_time(
    conditional: Conditional, names: tuple, variables: Mapping[Any, Variable], others: dict
) -> ConditionalInTime | None:
    """Return what a latent is drawn from, in time; None if it is not step by step."""
    if not isinstance(conditional.own.index, Affine):
        return None
    operands: list = []
    read: list = []
    for factor in (conditional.mean, conditional.scale, *conditional.coefficients):
        operand = operand_of(factor, names, variables, others)
        if operand is None:
            return None
        own = [axis.key for axis in factor.axes].index(conditional.own.key)
        # in a scan, nothing is drawn before what it reads
        if operand.labels[own].lag != 0:
            return None
        operands.append(operand)
        labels = []
        for axis, label in zip(factor.axes, operand.labels, strict=True):
            if isinstance(axis, Coordinates) and axis.key != conditional.own.key:
                labels.append(label)
        read.append(labels)
    coefficients = [
        (operand, labels[0]) for operand, labels in zip(operands[2:], read[2:], strict=True)
    ]
    return ConditionalInTime(conditional.own.source, operands[0], operands[1], tuple(coefficients))


def counted_once(operand: Operand, variable: Variable) -> Operand:
    """Return what each series contributes counted once, in place of a total."""
    if variable.multiplicity is None or operand.without_multiplicity:
        return operand
    divisor = jnp.broadcast_to(divisor_of(variable.multiplicity[0]), variable.shape[1:])
    array = operand.array / divisor.reshape((1, -1) + (1,) * len(operand.labels))
    return replace(operand, cells=Cells(array), without_multiplicity=True)


def in_order_of_drawing(names: tuple, drawn: Sequence[ConditionalInTime]) -> tuple:
    """Return latents in an order in which each comes after those of its own step that it reads."""
    reads: dict = {name: set() for name in names}
    for of_latent in drawn:
        reads[of_latent.name] |= {
            label.name for _, label in of_latent.coefficients if label.lag == 0
        }
    ordered: list = []
    while len(ordered) < len(names):
        ordered += [n for n in names if n not in ordered and reads[n] <= set(ordered)]
    return tuple(ordered)
