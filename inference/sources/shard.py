"""Data on several devices: each has a part of the rows, and computes with these alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import jax
import jax.core
import numpy as np
from jax.experimental import multihost_utils

from emjax.sources.by_key import ByKey, Room, made, starts_of
from emjax.sources.chunks import has_rows, length_of, part_of
from emjax.sources.part import Part, Parts
from emjax.sources.rechunked import rows_of


class Shards(Parts):
    """Data on several devices, for `em.run(key, shards)`: what `emjax.shard` returns.

    Iterated, it yields the part of each device of this process.

    - `parts`: of each device of this process, all of one shape.
    - `devices`: all devices, those of other processes included.
    - `keys`: of data that are cut by item, the items of all parts of this process, in their order.
    """

    def __init__(
        self, parts: Sequence[Part], devices: Sequence[Any], keys: np.ndarray | None = None
    ):
        self.parts: list[Part] = list(parts)
        self.devices: list[Any] = list(devices)
        self.keys: np.ndarray | None = keys

    def __iter__(self) -> Iterator[Part]:
        return iter(self.parts)

    def __repr__(self) -> str:
        return f"Shards({len(self.devices)} devices)"


def shard(
    *arrays: Any,
    devices: Sequence[Any] | None = None,
    key: int | str | None = None,
    items: str = "items",
    rows: str = "rows",
    num_items: str = "num_items",
    **named: Any,
) -> Shards:
    """Return data on several devices: `em.run(key, emjax.shard(x))` computes on all of them.

    Each device has as many rows as any other, of which the last may count nothing. A step ends with
    one sum over devices, of expected statistics. Where several processes run
    (`jax.distributed.initialize`), each passes its own rows, and all run the same program. Starts
    are made of up to 10,000 rows, or are those of `init_params`.

    - `arrays`, `named`: the program's arguments that have rows, one for each element of its
      outermost plate; what has none is a further argument: em.run(key, shards, shared).
    - `devices`: those to use; None: all.
    - `key`: where rows belong to items with latents (`truth[item]`), the argument that says of
      which item a row is: its place, or its name. All rows of an item are then on one device, items
      are numbered there from 0, and `shards.keys` says which they are; items without rows are left
      out.
    - `items`, `rows`: the names of the program's plates of both.
    - `num_items`: what the program calls the number of items, where arguments are named; else it is
      the last of `arrays`, and not passed here.

    Errors: `ValueError` for arrays of unequal length, or without rows.

    ```python
    import emjax, numpy as np

    shards = emjax.shard(np.zeros((1000, 8)))
    ```
    """
    devices = list(jax.devices() if devices is None else devices)
    local = [device for device in devices if device.process_index == jax.process_index()]
    whole = part_of(Part(arrays, named), 0)
    length = length_of(whole, 0)
    if key is not None:
        by = ByKey(key, items, rows, num_items, None, None)
        return _by_item(whole, by, devices, len(local))
    if length < len(local):
        raise ValueError(
            f"There are {length} rows for {len(local)} devices: pass fewer, "
            f"emjax.shard(..., devices=jax.devices()[:{length}])."
        )
    bounds = np.arange(len(local) + 1) * length // len(local)
    return Shards([rows_of(whole, *ends) for ends in pairwise(bounds.tolist())], devices)


def _by_item(whole: Part, by: ByKey, devices: Sequence[Any], number: int) -> Shards:
    """Return rows cut by item, about as many on each device of this process."""
    keys = whole.args[by.key] if isinstance(by.key, int) else whole.kwargs[by.key]
    order = np.argsort(keys, kind="stable")
    leaves, tree = jax.tree.flatten((keys, whole.args, dict(whole.kwargs)))
    leaves = [leaf[order] if has_rows(leaf) else leaf for leaf in leaves]
    bounds = np.append(starts_of(leaves[0]), len(order))
    ideal = np.arange(1, number) * len(order) / number
    if len(bounds) <= number:
        raise ValueError(
            f"There are {len(bounds) - 1} items for {number} devices: pass fewer, "
            f"emjax.shard(..., devices=jax.devices()[:{len(bounds) - 1}])."
        )
    # each device has an item at least
    inner = np.maximum(np.searchsorted(bounds, ideal), np.arange(1, number))
    inner = np.minimum(inner, len(bounds) - 1 - np.arange(number - 1, 0, -1))
    cuts = np.concatenate([[0], bounds[inner], [len(order)]])
    pieces = []
    for start, stop in pairwise(cuts.tolist()):
        pieces.append([leaf[start:stop] if has_rows(leaf) else leaf for leaf in leaves])
    most_items = most_of_processes(max(len(starts_of(piece[0])) for piece in pieces))
    most_rows = most_of_processes(max(len(piece[0]) for piece in pieces))
    room = Room(most_items, most_rows + (most_rows == most_items))
    found = [made(piece, tree, room, by) for piece in pieces]
    return Shards([one.part for one in found], devices, np.concatenate([one.keys for one in found]))


def most_of_processes(number: int) -> int:
    """Return the largest of a number over all processes."""
    if jax.process_count() == 1:
        return number
    return int(np.max(multihost_utils.process_allgather(np.asarray(number))))


def shards_of(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Shards | None:
    """Return the shards that arrays among arguments lie in already; None where they lie in none.

    That is so where a `NamedSharding` cuts some of them along one axis.
    """
    leaves, tree = jax.tree.flatten((args, kwargs))
    cut = [leaf for leaf in leaves if cut_axis(leaf) is not None]
    if not cut:
        return None
    devices = list(cut[0].sharding.mesh.devices.flat)
    by_leaf = []
    for leaf in leaves:
        is_array = isinstance(leaf, jax.Array)
        if is_array and len(leaf.sharding.device_set) > 1:
            if set(leaf.sharding.device_set) != set(devices):
                return None
            by_leaf.append({piece.device: piece.data for piece in leaf.addressable_shards})
        else:
            by_leaf.append(dict.fromkeys(devices, leaf))
    local = [device for device in devices if device.process_index == jax.process_index()]
    parts = []
    for device in local:
        parts.append(Part(*jax.tree.unflatten(tree, [pieces[device] for pieces in by_leaf])))
    return Shards(parts, devices)


def cut_axis(leaf: Any) -> int | None:
    """Return the axis along which an array is cut, another piece on each of a row of devices.

    None where it is not, or along several.
    """
    # of what is traced, nobody knows where it lies
    if not isinstance(leaf, jax.Array) or isinstance(leaf, jax.core.Tracer):
        return None
    if len(leaf.sharding.device_set) < 2:
        return None
    sharding = leaf.sharding
    if not isinstance(sharding, jax.sharding.NamedSharding) or len(sharding.mesh.axis_names) != 1:
        return None
    cut = [axis for axis, name in enumerate(sharding.spec) if name is not None]
    return cut[0] if len(cut) == 1 else None
