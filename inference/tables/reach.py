"""Where lookups whose indices only data decide are out of range."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jax.lax import GatherScatterMode

from emjax.numerics.primitives import Equation
from emjax.tables.joined import Joined, carried_out
from emjax.tables.lifting import lift
from emjax.tables.lookup import as_lookup, index_columns
from emjax.tables.named import Axis, Named, without_rows


@dataclass(frozen=True, eq=False)
class Reach:
    """Where indices reach beyond a table or a latent.

    - `bad`: true where they do.
    - `what`: how long the table is.
    - `indices`: the jaxpr's.
    """

    bad: Named
    what: str
    indices: tuple


def reach(eqn: Equation, operand: Named | Joined, indices: Sequence[Named | Joined]) -> list[Reach]:
    """Return, for every index of a lookup that only data decide, where it is out of range."""
    shape = operand.shape
    if eqn.primitive.name == "dynamic_slice":
        # of length one, it is how JAX looks up one entry
        pieces, lengths = dict(enumerate(map(carried_out, indices))), eqn.params["slice_sizes"]
    else:
        found = as_lookup(eqn, shape)
        if found is None or eqn.params["mode"] == GatherScatterMode.CLIP:
            return []
        pieces, lengths = index_columns(indices[0], found[1]), [1] * len(shape)
    axes = operand.axes if isinstance(operand, Named) else ()
    reaches = []
    for d, piece in pieces.items():
        if not piece.is_static:
            bad = _beyond(piece, shape[d] - lengths[d])
            reaches.append(Reach(bad, _length(axes, d, shape[d]), tuple(eqn.invars[1:])))
    return reaches


def _beyond(piece: Named, last: int) -> Named:
    """Return where an index is not in 0 … last, for some value of the latents that it reads."""
    piece = without_rows(piece)
    bad = lift(lambda i: (i < 0) | (i > last), [piece], piece.shape)
    return Named(bad.array.any(axis=tuple(range(len(bad.axes)))), bad.shape)


def _length(axes: Sequence[Axis], dim: int, size: int) -> str:
    latents = [axis.source for axis in axes if axis.is_latent and axis.varies[dim]]
    return f"latent '{latents[0]}' has {size} elements" if latents else f"the table has {size} rows"
