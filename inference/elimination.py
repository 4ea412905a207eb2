"""log Z: sum every latent out of a factor graph, plates and all.

A factor is an array over the elements of plates (first) and the values of latents (last). A latent can be summed out
once each of its elements determines which element of every other latent it meets: then all its factors add up to one
table over its elements, and log Σ exp of that table is a factor on the rest. Latents in inner plates go first; where
none qualifies (crossed plates), a small one is taken element by element. Everything enters with its multiplicity s,
so that a latent with s copies contributes s log Σ exp(φ / s). Source: Obermeyer et al. (2019), for trees of plates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from emjax.graph import identity
from emjax.lifting import check_memory
from emjax.lookup import affine
from emjax.named import Affine, Axis, Dense, Index, constant, in_order
from emjax.numerics import tempered_logsumexp

MOST_ELEMENTS_TAKEN_ONE_BY_ONE = 64
# entries of the smallest table for which a cheaper form is worth compiling two
FEWEST_CHEAPER = 2**14


@dataclass(frozen=True, eq=False)
class Factor:
    """A function of latents: `array` is (elements…, one axis for each of `axes`), element axes of length 1 where it does not vary.

    A total over the copies of its elements, or what one copy contributes (`per_copy`). With an `index`, an integer for each element,
    the array is not there yet: it is `table`[index].
    """

    axes: tuple[Axis, ...]
    shape: tuple[int, ...]
    table: Any
    per_copy: bool = False
    index: Any = None

    @property
    def array(self):
        return self.read(self.table)

    def read(self, table):
        """Return a function of the table's entries at every element."""
        return table if self.index is None else table.at[self.index].get(mode="promise_in_bounds", wrap_negative_indices=False)

    def replaced(self, array, axes: tuple[Axis, ...], shape: tuple[int, ...]) -> Factor:
        return Factor(axes, shape, array, self.per_copy)


@dataclass(frozen=True)
class Variable:
    """A latent to sum out: its number of values, its elements' shape, and their multiplicity (None: one).

    `copies`: what identifies its multiplicity; `plates` and `order`: where it stands in the program.
    """

    name: Any
    size: int
    shape: tuple[int, ...]
    scale: Any = None
    copies: Any = None
    plates: frozenset[str] = frozenset()
    order: int = 0

    def encloses(self, other: Variable) -> bool:
        """Whether another latent's copies are copies within each of this one's."""
        if self.copies == other.copies or other.scale is None:
            return False
        if self.scale is None or self.plates < other.plates:
            return True
        return not other.plates < self.plates and self.order < other.order


def log_partition(factors: Sequence[Factor], variables: Mapping[Any, Variable], temperature: float | int, margins: list | None = None):
    """Return log Z in nats; its gradient with respect to a factor's array is the posterior of its latents.

    `temperature`: 1 sums, 0 maximizes (hard E-step), between is tempered. `margins`: if given, cheaper forms
    may be taken that are right unless probabilities come near zero; each appends its margin, which is then near zero. Errors: `MemoryError` for a table that
    would not fit, `ValueError` for a coupling that no order of elimination resolves.
    """
    factors, remaining = [settled(f) for f in factors], dict(variables)
    while remaining:
        choices = {name: joined(factors, variable, remaining) for name, variable in remaining.items()}
        ready = {name: joint for name, joint in choices.items() if joint is not None and _innermost(joint, remaining[name], remaining)}
        if not ready:
            factors, remaining = _one_by_one(factors, remaining)
            continue
        name = min(ready, key=lambda n: _size(ready[n], remaining[n]))
        variable, joint = remaining.pop(name), ready[name]
        check_memory((*joint.axes, Axis(name, variable.size, identity(variable.shape))), (_size(joint, variable),))
        factors = [f for f in factors if all(axis.source != name for axis in f.axes)]
        summed = log_of_sums(joint, variable, margins) if margins is not None and temperature == 1 else None
        factors.append(settled(eliminated(joint, variable, temperature) if summed is None else summed))
    return sum((f.array.reshape(()) for f in factors), jnp.zeros(()))


def _innermost(joint: _Joint, variable: Variable, remaining: Mapping[Any, Variable]) -> bool:
    """Whether no latent that it meets has copies of its own: those are independent given this one, and go first."""
    return not any(variable.encloses(remaining[axis.source]) for axis in joint.axes)


@dataclass(frozen=True, eq=False)
class _Joint:
    """All factors of one latent, aligned with its elements: `axes` are the other latents that it meets."""

    factors: tuple[Factor, ...]
    axes: tuple[Axis, ...]


def eliminated(joint: _Joint, variable: Variable, temperature) -> Factor:
    """Return the factor that is left when a latent is summed out of all its factors."""
    rank = len(variable.shape)
    # a latent whose own probability does not depend on its value (uniform) may touch no factor at all
    table = jnp.zeros((1,) * (rank + len(joint.axes)) + (variable.size,))
    scale = None if variable.scale is None else variable.scale.reshape(variable.scale.shape + (1,) * len(joint.axes))
    for factor in joint.factors:
        own = [axis.key for axis in factor.axes]
        order = [own.index(axis.key) for axis in joint.axes if axis.key in own]
        last = [i for i, axis in enumerate(factor.axes) if axis.source == variable.name]
        array = jnp.transpose(factor.array, [*range(rank), *(rank + i for i in order), rank + last[0]])
        sizes = [axis.size if axis.key in own else 1 for axis in joint.axes]
        array = array.reshape((*array.shape[:rank], *sizes, variable.size))
        table = table + (array if scale is None or factor.per_copy else array / jnp.where(scale == 0, 1, scale)[..., None])
    message = tempered_logsumexp(table, temperature, 1)
    message = message if scale is None else scale * message
    return Factor(joint.axes, variable.shape, message)


def log_of_sums(joint: _Joint, variable: Variable, margins: list) -> Factor | None:
    """Return what `eliminated` does, as log Σ_k Π_f p_f(k) of the factors' exponentials; None where these would be no fewer.

    A million rows that look up tables of a thousand cells need a thousand exponentials. Each cell's largest entry is divided out;
    the margin is the least sum, which may underflow.
    """
    entries = math.prod(variable.shape) * variable.size
    if entries < FEWEST_CHEAPER or joint.axes or not joint.factors or 2 * sum(factor.table.size for factor in joint.factors) > entries:
        return None
    if variable.scale is not None and not all(factor.per_copy for factor in joint.factors):
        return None
    product: Any = 1.0
    offset: Any = 0.0
    for factor in joint.factors:
        largest = jax.lax.stop_gradient(factor.table.max(-1, keepdims=True))
        product = product * factor.read(jnp.exp(factor.table - largest))
        offset = offset + factor.read(largest[..., 0])
    total = product.sum(-1)
    margins.append(jax.lax.stop_gradient(total).min())
    message = offset + jnp.log(total)
    return Factor((), variable.shape, message if variable.scale is None else variable.scale * message)


def settled(factor: Factor) -> Factor:
    """Sum a factor over the elements that none of its latents distinguishes."""
    rank = len(factor.shape)
    gone = [d for d in range(rank) if not any(axis.varies[d] for axis in factor.axes)]
    if not gone:
        return factor
    array = factor.array
    array = array.sum(axis=tuple(gone)) * math.prod(factor.shape[d] for d in gone if array.shape[d] == 1)
    kept = [d for d in range(rank) if d not in gone]
    axes = tuple(axis.placed(kept) for axis in factor.axes)
    return factor.replaced(array, axes, tuple(factor.shape[d] for d in kept))


def joined(factors: Sequence[Factor], variable: Variable, remaining: Mapping[Any, Variable]) -> _Joint | None:
    """Align every factor of a latent with its elements, or return None if that cannot be done yet."""
    aligned = []
    for factor in factors:
        own = [axis for axis in factor.axes if axis.source == variable.name]
        if not own:
            continue
        one = _aligned(factor, own[0], variable, remaining) if len(own) == 1 else None
        if one is None:
            return None
        aligned.append(one)
    axes = {axis.key: axis for factor in aligned for axis in factor.axes if axis.source != variable.name}
    return _Joint(tuple(aligned), tuple(axes.values()))


def _aligned(factor: Factor, own: Axis, variable: Variable, remaining: Mapping[Any, Variable]) -> Factor | None:
    """Return the factor with its elements in the latent's own order, summed where several fall on one."""
    if isinstance(own.index, Dense) and isinstance(own.index.array, np.ndarray):
        found = affine(constant(own.index.array))
        own = replace(own, index=found) if found is not None else own
    order = _permutation(own.index, factor.shape, variable.shape)
    if order is not None:
        return _transposed(factor, order, variable)
    varies = own.varies
    if any(axis.varies[d] and not varies[d] for axis in factor.axes for d in range(len(factor.shape))):
        return None
    return _scattered(factor, own, variable, remaining)


def _permutation(index: Index, shape, target) -> list | None:
    """Return, for each axis of the latent, the factor's axis that runs along it, if they match one to one."""
    if not isinstance(index, Affine) or index.offset != 0:
        return None
    wanted = identity(target).strides
    order: list[int | None] = []
    for stride, size in zip(wanted, target, strict=True):
        matches = [d for d in range(len(shape)) if stride != 0 and index.strides[d] == stride and shape[d] == size and d not in order]
        if stride != 0 and not matches:
            return None
        order.append(matches[0] if matches else None)
    used = [d for d in order if d is not None]
    return order if all(d in used for d in range(len(shape))) else None


def _transposed(factor: Factor, order: Sequence[int | None], variable: Variable) -> Factor:
    if list(order) == list(range(len(variable.shape))):
        return factor
    lead = len(factor.shape)
    array = in_order(factor.array, [*order, *range(lead, lead + len(factor.axes))])
    return factor.replaced(array, tuple(axis.placed(order) for axis in factor.axes), variable.shape)


def _scattered(factor: Factor, own: Axis, variable: Variable, remaining: Mapping[Any, Variable]) -> Factor | None:
    """Add a factor's rows up by the element of the latent that each belongs to."""
    shape = factor.shape
    index = np.broadcast_to(own.index.dense(shape), shape) if _is_known(own.index) else jnp.broadcast_to(own.index.dense(shape), shape)
    parents = []
    for axis in factor.axes:
        if axis.source == own.source:
            parents.append(replace(axis, index=identity(variable.shape)))
            continue
        parent = _parent(axis, own, index, shape, variable, math.prod(remaining[axis.source].shape))
        if parent is None:
            return None
        parents.append(replace(axis, index=parent))
    rank = len(shape)
    array = factor.array
    values = jnp.broadcast_to(array, shape + array.shape[rank:]).reshape((-1,) + array.shape[rank:])
    zeros = jnp.zeros((math.prod(variable.shape),) + values.shape[1:], values.dtype)
    total = zeros.at[index.reshape(-1)].add(values, mode="promise_in_bounds", wrap_negative_indices=False)
    return factor.replaced(total.reshape(variable.shape + values.shape[1:]), tuple(parents), variable.shape)


def _is_known(index: Index) -> bool:
    return isinstance(index, Affine) or isinstance(index.array, np.ndarray)


def _parent(axis: Axis, own: Axis, index, shape, variable: Variable, num_parents: int) -> Index | None:
    """Return which of the `num_parents` elements of another latent each element of this one meets, if it is always the same.

    An element of this latent that no row reads may be given any parent: its own sum is a constant to the parent.
    """
    count = math.prod(variable.shape)
    if not any(axis.varies):
        return Affine(axis.index.dense(shape).item(), (0,) * len(variable.shape)) if _is_known(axis.index) else None
    if axis.index.key == own.index.key:
        return identity(variable.shape) if count <= num_parents else _on_elements(Dense.of(np.arange(num_parents)), variable.shape)
    if isinstance(axis.index, Dense) and isinstance(own.index, Dense) and (outer := axis.index.before(own.index)) is not None:
        return _on_elements(outer, variable.shape)
    if not (_is_known(axis.index) and isinstance(index, np.ndarray)):
        return None
    other = np.broadcast_to(axis.index.dense(shape), shape).reshape(-1)
    flat = index.reshape(-1)
    parent = np.zeros(count, np.int32)
    parent[flat] = other
    if not (parent[flat] == other).all():
        return None
    covered = np.zeros(count, bool)
    covered[flat] = True
    parent = parent.reshape(variable.shape)
    return _smooth(parent, covered.reshape(variable.shape))


def _on_elements(outer: Dense, shape: Sequence[int]) -> Dense:
    """Lay an index of one axis out over a latent's elements; those beyond its end are read by no row, and get 0."""
    count = math.prod(shape)
    array = outer.array[:count]
    array = (np if isinstance(array, np.ndarray) else jnp).pad(array, (0, count - array.size))
    return replace(outer, array=array.reshape(shape))


def _smooth(parent: np.ndarray, covered: np.ndarray) -> Index:
    """Return an index that agrees with `parent` on the covered elements, constant along axes where it can be."""
    array = parent
    for d in range(array.ndim):
        filled = np.where(covered, array, -1)
        top = filled.max(axis=d, keepdims=True)
        if (np.where(covered, array == top, True)).all():
            array, covered = np.maximum(top, 0), covered.any(axis=d, keepdims=True)
    found = affine(constant(array))
    return found if found is not None and covered.all() else Dense.of(array)


def _size(joint: _Joint, variable: Variable) -> int:
    return math.prod(variable.shape) * variable.size * math.prod(axis.size for axis in joint.axes)


def _one_by_one(factors: list[Factor], remaining: dict) -> tuple[list[Factor], dict]:
    """Take the smallest coupled latent element by element: its elements become latents of their own."""
    candidates = sorted((math.prod(v.shape), str(name)) for name, v in remaining.items() if not isinstance(name, tuple))
    names = {str(name): name for name in remaining}
    for count, text in candidates:
        name = names[text]
        known = all(_is_known(axis.index) for f in factors for axis in f.axes if axis.source == name)
        if known and count <= MOST_ELEMENTS_TAKEN_ONE_BY_ONE:
            return _taken_apart(factors, remaining, name)
    coupled = ", ".join(f"'{name}'" for name in remaining)
    raise ValueError(
        f"Latents {coupled} are coupled in a loop: one element of each meets several elements of another, and no order of elimination "
        "keeps the table small. Exact EM needs a tree: observe one of them, or let each row depend on one of them.")


def _taken_apart(factors, remaining, name):
    variable = remaining.pop(name)
    count = math.prod(variable.shape)
    for element in range(count):
        scale = None if variable.scale is None else jnp.broadcast_to(variable.scale, variable.shape).reshape(-1)[element].reshape(())
        remaining[(name, element)] = Variable((name, element), variable.size, (), scale, variable.copies, variable.plates, variable.order)
    return [piece for factor in factors for piece in _pieces(factor, name)], remaining


def _pieces(factor: Factor, name) -> list[Factor]:
    """Cut a factor by the element of a latent that it touches."""
    position = next((i for i, axis in enumerate(factor.axes) if axis.source == name), None)
    if position is None:
        return [factor]
    axis, shape, rank = factor.axes[position], factor.shape, len(factor.shape)
    flat = np.broadcast_to(axis.index.dense(shape), shape).reshape(-1)
    array = factor.array
    values = jnp.broadcast_to(array, shape + array.shape[rank:]).reshape((-1,) + array.shape[rank:])
    pieces = []
    for element in np.unique(flat):
        rows = np.flatnonzero(flat == element)
        axes = []
        for i, other in enumerate(factor.axes):
            if i == position:
                axes.append(Axis((name, int(element)), axis.size, Affine(0, (0,))))
            else:
                dense = other.index.dense(shape)
                dense = (np if isinstance(dense, np.ndarray) else jnp).broadcast_to(dense, shape).reshape(-1)[rows]
                found = affine(constant(dense)) if isinstance(dense, np.ndarray) else None
                axes.append(replace(other, index=found or Dense.of(dense)))
        piece = settled(factor.replaced(values[rows], tuple(axes), (len(rows),)))
        pieces.extend(_pieces(_without_repeats(piece), name))
    return pieces


def _without_repeats(factor: Factor) -> Factor:
    """Two axes of a factor that read the same element become one."""
    keys = [axis.key for axis in factor.axes]
    for i, key in enumerate(keys):
        if key in keys[:i]:
            rank = len(factor.shape)
            first = keys.index(key)
            array = jnp.moveaxis(jnp.diagonal(factor.array, axis1=rank + first, axis2=rank + i), -1, rank + first)
            return _without_repeats(factor.replaced(array, factor.axes[:i] + factor.axes[i + 1:], factor.shape))
    return factor
