"""Entries put at places of an array (`pad`, `x.at[i].set(y)`): concatenations, or lookups.

What is put into a box whose place is known is concatenated with what is around it. Anything else
is read, at the numbers of the entries that the primitive makes of numbers, from all entries of its
operands in a row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax import lax

from emjax.numerics.arrays import evaluate
from emjax.numerics.primitives import Equation
from emjax.tables.joined import Joined, carried_out
from emjax.tables.lifting import lift
from emjax.tables.lookup import Lookup, look_up
from emjax.tables.moves import reshaped, sliced
from emjax.tables.named import Named, full, without_rows


def placed(eqn: Equation, values: Sequence[Named]) -> Named | None:
    """Return the operand with entries of another put at places of it.

    None where these places depend on latents, or where several entries meet at one of them.
    """
    name = eqn.primitive.name
    if name == "pad":
        return _padded(eqn, *values)
    if name == "dynamic_update_slice":
        return _updated(eqn, *values)
    return _scattered(eqn, *values)


def _padded(eqn: Equation, value: Named, padding: Named) -> Named:
    shape = tuple(map(int, eqn.outvars[0].aval.shape))
    padding = padding.placed([None] * len(shape))
    starts = []
    for dim, config in enumerate(eqn.params["padding_config"]):
        low, high, interior = map(int, config)
        if interior:
            value = _dilated(value, padding, dim, interior)
        # a negative padding cuts off
        value = sliced(value, dim, max(-low, 0), value.shape[dim] - max(-high, 0))
        starts.append(max(low, 0))
    return _boxed(_filled(padding, shape), value, starts)


def _filled(padding: Named, shape: Sequence[int]) -> Named:
    """Return a value of unit axes at every position of a shape."""
    return Named(padding.array, tuple(shape), padding.axes, padding.content)


def _dilated(value: Named, padding: Named, dim: int, interior: int) -> Named:
    """Return the value with so many entries of padding between its own along an axis."""
    shape = list(value.shape)
    apart = value.placed([*range(dim + 1), None, *range(dim + 1, len(shape))])
    between = (*shape[: dim + 1], interior, *shape[dim + 1 :])
    side_by_side = _joined(
        [apart, _filled(padding.placed([None] * len(between)), between)], dim + 1
    )
    shape[dim] *= 1 + interior
    # none after the last
    return sliced(reshaped(side_by_side, tuple(shape)), dim, 0, max(shape[dim] - interior, 0))


def _updated(eqn: Equation, operand: Named, update: Named, *starts: Named) -> Named | None:
    if all(start.is_static and not start.axes for start in starts):
        room = zip(starts, operand.shape, update.shape, strict=True)
        # as JAX does, from so far in front that none of it is outside
        fitting = [min(max(int(s.array), 0), size - part) for s, size, part in room]
        return _boxed(operand, update, fitting)
    return _collected(eqn, [operand, update], [without_rows(start) for start in starts])


def _boxed(operand: Named, update: Named, starts: Sequence[int], dim: int = 0) -> Named:
    """Return the operand with an update in place of a box of it."""
    if dim == len(operand.shape):
        return update
    start, stop = starts[dim], starts[dim] + update.shape[dim]
    inner = _boxed(sliced(operand, dim, start, stop), update, starts, dim + 1)
    around = [
        sliced(operand, dim, 0, start),
        inner,
        sliced(operand, dim, stop, operand.shape[dim]),
    ]
    pieces = [piece for piece in around if piece.shape[dim]]
    # an update without entries is no piece
    if len(pieces) < 2:
        return pieces[0] if pieces else inner
    return _joined(pieces, dim)


def _joined(pieces: Sequence[Named], dim: int) -> Named:
    shape = list(pieces[0].shape)
    shape[dim] = sum(piece.shape[dim] for piece in pieces)
    return carried_out(Joined(tuple(pieces), dim, tuple(shape)))


# ── places in any order ───────────────────────────────────────────────────────────────────────────


def _scattered(eqn: Equation, operand: Named, indices: Named, update: Named) -> Named | None:
    indices = without_rows(indices)
    if indices.axes:
        return None
    # JAX counts as many as there are, also where all are one number
    indices = replace(indices, array=full(indices))
    boxed = _one_box(eqn, operand, indices, update)
    if boxed is not None:
        return boxed
    if eqn.params["update_jaxpr"] is not None:
        if not _is_one_to_one(eqn, indices):
            return None
        update = _combined(eqn, operand, indices, update)
    return _collected(eqn, [operand, update], [indices])


def _one_box(eqn: Equation, operand: Named, indices: Named, update: Named) -> Named | None:
    """Return the operand with a box of it replaced; None if its place is not known, or not one."""
    numbers = eqn.params["dimension_numbers"]
    if not indices.is_static or len(indices.shape) != 1 or numbers.operand_batching_dims:
        return None
    starts = [0] * len(operand.shape)
    for dim, start in zip(numbers.scatter_dims_to_operand_dims, indices.array, strict=True):
        starts[dim] = int(start)
    remaining, inserted = iter(range(len(update.shape))), numbers.inserted_window_dims
    order = [None if dim in inserted else next(remaining) for dim in range(len(operand.shape))]
    box = update.placed(order)
    room = zip(starts, box.shape, operand.shape, strict=True)
    # what is not inside is dropped, or moved
    if not all(0 <= start <= size - part for start, part, size in room):
        return None
    if eqn.params["update_jaxpr"] is not None:
        old = operand
        for dim, (start, part) in enumerate(zip(starts, box.shape, strict=True)):
            old = sliced(old, dim, start, start + part)
        box = _changed(eqn, old, box)
    return _boxed(operand, box, starts)


def _combined(eqn: Equation, operand: Named, indices: Named, update: Named) -> Named:
    """Return what each entry of an update and the entry of the operand where it goes become."""
    count, more = math.prod(operand.shape), math.prod(update.shape)

    def places(numbers):
        # entries of the operand that stay are put beyond the end
        which = jnp.where(numbers >= count, numbers - count, more).ravel()
        zeros = jnp.zeros(more + 1, jnp.int32)
        return zeros.at[which].set(jnp.arange(count, dtype=jnp.int32))[:more]

    where = evaluate(places, _numbers(eqn, [operand, update], [indices]))
    old = _read(reshaped(operand, (count,)), where.reshape(update.shape))
    return _changed(eqn, old, update)


def _changed(eqn: Equation, old: Named, new: Named) -> Named:
    """Return what entries of the operand and of an update of equal shape become."""
    function, consts = eqn.params["update_jaxpr"], eqn.params["update_consts"]

    def changed(old, new):
        one_by_one = jax.vmap(lambda *pair: jax.core.eval_jaxpr(function, consts, *pair)[0])
        return one_by_one(jnp.ravel(old), jnp.ravel(new)).reshape(old.shape)

    return lift(changed, [old, new], old.shape)


def _collected(eqn: Equation, values: Sequence[Named], where: Sequence[Named]) -> Named | None:
    """Return what a primitive puts together of entries of two values.

    `where`: the operands that say where. None where latents do.
    """
    if any(value.axes for value in where):
        return None
    numbers, shape = _numbers(eqn, values, where), values[0].shape
    in_a_row = [reshaped(value, (math.prod(value.shape),)) for value in values]
    return _read(_joined(in_a_row, 0), numbers.reshape(shape))


def _read(in_a_row: Named, numbers: Any) -> Named:
    """Return the entries of these numbers."""
    shape = tuple(numbers.shape)
    lookup = Lookup({}, range(len(shape)), len(shape))
    return look_up(in_a_row, {0: Named(numbers, shape)}, lookup, shape)


def _numbers(eqn: Equation, values: Sequence[Named], where: Sequence[Named]) -> Any:
    """Return the number of the entry of two values, in a row, that each entry of the result is."""
    count, more = (math.prod(value.shape) for value in values)
    first = np.arange(count, dtype=np.int32).reshape(values[0].shape)
    second = np.arange(count, count + more, dtype=np.int32).reshape(values[1].shape)
    return evaluate(
        lambda *arrays: _put(eqn, first, second, *arrays), *(value.array for value in where)
    )


def _put(eqn: Equation, first: Any, second: Any, *where: Any) -> Any:
    """Return the first array with the second in place of some of its entries."""
    if eqn.primitive.name == "dynamic_update_slice":
        return lax.dynamic_update_slice(first, second, where)
    return lax.scatter(first, where[0], second, **_scatter_params(eqn))


def _is_one_to_one(eqn: Equation, indices: Named) -> bool:
    """Whether no two entries are known to be put at one place."""
    if eqn.params["unique_indices"]:
        return True
    if not indices.is_static:
        return False
    operand, _, update = (var.aval.shape for var in eqn.invars)

    def count(indices):
        zeros, ones = jnp.zeros(operand, jnp.int32), jnp.ones(update, jnp.int32)
        return lax.scatter_add(zeros, indices, ones, **_scatter_params(eqn))

    return int(np.max(evaluate(count, indices.array), initial=0)) <= 1


def _scatter_params(eqn: Equation) -> dict[str, Any]:
    names = ("dimension_numbers", "indices_are_sorted", "unique_indices", "mode")
    return {name: eqn.params[name] for name in names}
