"""How statistics are formed: what a term keeps of its data, and what every step makes of that.

Statistics that are sums over the data are computed once. Those that are as long as the data and
larger (x and x² of x, the matrix x xᵀ of a vector x) are formed in the step, block by block, from
the data themselves: memory is dearer than products.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from string import ascii_letters

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Jaxpr, jaxprs_in_params

from emjax.numerics.arrays import evaluate
from emjax.numerics.primitives import traits
from emjax.tables.named import Named, constant


@dataclass(frozen=True, eq=False)
class Statistic:
    """A sufficient statistic t.

    - `value`: its named value; of a `square`, x of the matrix x xᵀ, which is not formed.
    - `total`: the constant n, where t is n minus the statistic before it.
    - `indicator`: whether t is 0 or 1, whether an element counts.
    """

    value: Named
    square: bool = False
    total: Named | None = None
    indicator: bool = False

    @property
    def size(self) -> int:
        return math.prod(self.value.array.shape)


@dataclass(frozen=True, eq=False)
class StatisticsRecipe:
    """The statistics of a term as a function of what it keeps of the data.

    - `inputs`: what is kept, by name.
    - `function`: `function(inputs, elements)` are the statistics.
    """

    inputs: Mapping[str, Named]
    function: Callable[[Mapping[str, Named], tuple[int, ...]], list[Statistic]]

    def formed(self, elements: tuple[int, ...]) -> list[Statistic]:
        """Return the statistics."""
        return self.function(self.inputs, elements)


def precomputed(statistics: Sequence[Statistic]) -> StatisticsRecipe:
    """Return the recipe that keeps the statistics themselves."""
    # their arrays are the inputs: of the rest nothing is kept but what kind they are
    empty = constant(np.zeros(()))
    kinds = [replace(statistic, value=empty, total=None) for statistic in statistics]

    def function(inputs, elements):
        pairs = zip(inputs.values(), kinds, strict=True)
        return [replace(kind, value=value) for value, kind in pairs]

    values = {f"statistic {i}": statistic.value for i, statistic in enumerate(statistics)}
    return StatisticsRecipe(values, function)


def is_cheap(recipe: StatisticsRecipe, elements: tuple[int, ...]) -> bool:
    """Whether statistics take nothing but sums and products of what is kept."""
    # what is kept must be data as they are, of which blocks can be cut
    if any(value.axes for value in recipe.inputs.values()):
        return False

    def arrays(*values):
        pairs = zip(recipe.inputs.items(), values, strict=True)
        inputs = {name: replace(value, array=array) for (name, value), array in pairs}
        statistics = recipe.function(inputs, elements)
        return [jnp.asarray(statistic.value.array) for statistic in statistics]

    kept = [value.array for value in recipe.inputs.values()]
    abstract = [jax.ShapeDtypeStruct(array.shape, array.dtype) for array in kept]
    jaxpr = jax.make_jaxpr(arrays)(*abstract).jaxpr
    return _takes_cheap_steps(jaxpr, math.prod(elements))


def _takes_cheap_steps(jaxpr: Jaxpr, num_elements: int) -> bool:
    """Whether every equation of a jaxpr, and of what it calls, is cheaper to do than to keep."""
    for eqn in jaxpr.eqns:
        # what many elements share costs each of them nothing, such as the root of one multiplicity
        atoms = [*eqn.invars, *eqn.outvars]
        if all(math.prod(atom.aval.shape) < num_elements for atom in atoms):
            continue
        if not traits(eqn).is_cheap:
            return False
        # a call is as cheap as what it calls: a logarithm under `jit` is a logarithm
        if not all(_takes_cheap_steps(each, num_elements) for each in jaxprs_in_params(eqn.params)):
            return False
    return True


# ── sums ──────────────────────────────────────────────────────────────────────────────────────────


def summed_dims(statistic: Statistic, natural: Named, kept: Sequence[int], rank: int) -> list[int]:
    """Return the axes of a term's elements along which a statistic may be summed.

    Along these neither the latents, which vary along `kept`, nor its natural parameter vary.
    """
    rows = [axis.varies for axis in (*natural.row_axes, *statistic.value.row_axes)]
    dims = []
    for d in range(rank):
        # rows that data pick differ from position to position: their statistics do not add up
        moves = any(varies[d] for varies in rows)
        if d not in kept and natural.compact[d] == 1 and not moves:
            dims.append(d)
    return dims


def summed(statistic: Statistic, dims: Sequence[int]) -> Statistic:
    """Return a statistic summed along axes, which stay with length 1."""
    if statistic.square:
        return _summed_squares(statistic.value, dims)
    total = None if statistic.total is None else _summed(statistic.total, dims)
    value = _summed(statistic.value, dims)
    # a sum of zeros and ones is neither
    is_same = value.array is statistic.value.array
    return Statistic(value, False, total, statistic.indicator and is_same)


def _summed(value: Named, dims: Sequence[int]) -> Named:
    repeats, over, shape = _what_is_summed(value, dims)
    if not over and repeats == 1:
        return replace(value, shape=shape)

    def total(array):
        once = array.sum(axis=over, keepdims=True)
        return once if repeats == 1 else once * repeats

    return replace(value, array=evaluate(total, value.array), shape=shape)


def _summed_squares(value: Named, dims: Sequence[int]) -> Statistic:
    """Return Σ x xᵀ along axes, which stay with length 1: one matrix product."""
    repeats, over, shape = _what_is_summed(value, dims)
    if not over and repeats == 1:
        return Statistic(replace(value, shape=shape), True)
    *lead, row = ascii_letters[: value.array.ndim]
    column = ascii_letters[value.array.ndim]
    out = [letter for d, letter in enumerate(lead) if d not in over]
    spec = f"{''.join(lead)}{row},{''.join(lead)}{column}->{''.join(out)}{row}{column}"
    sizes = [1 if d in over else size for d, size in enumerate(value.array.shape[:-1])]

    def squares(x):
        products = jnp.einsum(spec, x, x, precision="highest")
        return repeats * products.reshape(*sizes, *shape[-1:] * 2)

    return Statistic(Named(evaluate(squares, value.array), shape + shape[-1:], value.axes))


def _what_is_summed(value: Named, dims: Sequence[int]) -> tuple[int, tuple[int, ...], tuple]:
    """Return what a sum along axes takes: (repeats, the array's axes to sum, the shape after it).

    Along axes that it does not vary along, a value counts as often as it is repeated.
    """
    repeats = math.prod(value.shape[d] for d in dims if value.compact[d] == 1)
    over = tuple(len(value.axes) + d for d in dims if value.compact[d] > 1)
    return repeats, over, tuple(1 if d in dims else s for d, s in enumerate(value.shape))
