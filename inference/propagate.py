"""Walk a program's jaxpr with compact named values: which latents and rows does each value depend on?

Data-moving primitives act on a table and on the indices of its axes alike; a gather turns each piece of its
index into a named axis, so that `confusion[annotator, truth[item]]` stays the table `confusion` however many
rows there are. Elementwise primitives act on tables. Other primitives are evaluated under `vmap` over the
named axes. What comes out is exact: the value at every position, for every value of the latents that it reads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from emjax.jaxprs import rearranged
from emjax.named import Affine, Axis, Dense, Index, Named, Root, constant, evaluate, full, spread, take, union, without_rows


class MixedElements(Exception):
    """A primitive mixes the elements of a latent, so that no table over one element can hold its result."""

    def __init__(self, latent: str, primitive: str):
        self.latent = latent
        self.primitive = primitive
        super().__init__(f"'{primitive}' mixes the elements of the latent '{latent}'.")


@dataclass(frozen=True, eq=False)
class Joined:
    """A concatenation that has not been carried out: a gather reads its pieces one by one."""

    pieces: tuple[Named, ...]
    dim: int
    shape: tuple[int, ...]


CALLS = {"jit", "pjit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr",
         "remat", "remat2", "checkpoint", "custom_lin"}
REDUCTIONS = {"reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or", "reduce_xor", "argmax",
              "argmin"}
ALONG_ONE_AXIS = {"cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp"}
MATRIX = {"cholesky", "triangular_solve", "lu", "eigh", "eig", "svd", "qr", "householder_product", "geqrf", "lu_pivots_to_permutation"}
ELEMENTWISE = {
    "abs", "acos", "acosh", "add", "add_any", "and", "asin", "asinh", "atan", "atan2", "atanh", "bessel_i0e", "bessel_i1e", "cbrt",
    "ceil", "clamp", "convert_element_type", "copy", "copy_p", "cos", "cosh", "digamma", "div", "eq", "eq_to", "erf", "erf_inv", "erfc",
    "exp", "exp2", "expm1", "floor", "ge", "gt", "igamma", "igamma_grad_a", "igammac", "integer_pow", "is_finite", "le",
    "le_to", "lgamma", "log", "log1p", "logistic", "lt", "lt_to", "max", "min", "mul", "ne", "neg", "nextafter", "not", "or",
    "optimization_barrier", "polygamma", "population_count", "pow", "real", "imag", "reduce_precision", "regularized_incomplete_beta",
    "rem", "round", "rsqrt", "select_n", "shift_left", "shift_right_arithmetic", "shift_right_logical", "sign", "sin",
    "sinh", "sqrt", "square", "stop_gradient", "sub", "tan", "tanh", "xor", "zeta",
}  # fmt: skip


def propagate(jaxpr: Jaxpr, inputs: Sequence[Named]) -> list[Named]:
    """Return the named value of every output of a jaxpr (without constants) for named inputs.

    Equal expressions are computed once. Raises `MixedElements` where a table over single latent elements
    cannot hold a value.
    """
    return _Interpreter().run(jaxpr, list(inputs))


class _Interpreter:
    def __init__(self):
        self.seen: dict = {}
        self.alive: list = []

    def run(self, jaxpr: Jaxpr, inputs: list) -> list[Named]:
        known = dict(zip(jaxpr.invars, inputs, strict=True))

        def read(atom):
            return self.literal(atom) if isinstance(atom, Literal) else known[atom]

        for eqn in jaxpr.eqns:
            outputs = self.equation(eqn, [read(atom) for atom in eqn.invars])
            known.update(zip(eqn.outvars, outputs, strict=True))
        return [_carried_out(read(atom)) for atom in jaxpr.outvars]

    def literal(self, atom: Literal) -> Named:
        key = ("literal", str(atom.aval), np.asarray(atom.val).tobytes())
        if key not in self.seen:
            self.seen[key] = constant(np.asarray(atom.val, dtype=atom.aval.dtype))
        return self.seen[key]

    def equation(self, eqn, values: list) -> list:
        name = eqn.primitive.name
        if name in CALLS:
            inner = next(eqn.params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in eqn.params)
            if isinstance(inner, ClosedJaxpr):
                return self.run(_with_constants(inner), [constant(c) for c in inner.consts] + values)
            return self.run(inner, values)
        key = (name, str(sorted(eqn.params.items(), key=lambda item: item[0])), tuple(id(value) for value in values))
        if key not in self.seen:
            outputs = apply(eqn, values)
            self.seen[key] = list(outputs) if eqn.primitive.multiple_results else [outputs]
            self.alive.append(values)
        return self.seen[key]


def _with_constants(closed: ClosedJaxpr) -> Jaxpr:
    jaxpr = closed.jaxpr
    return rearranged(jaxpr, invars=[*jaxpr.constvars, *jaxpr.invars], constvars=[]) if jaxpr.constvars else jaxpr


def apply(eqn, values: list):
    """Apply one equation to named values."""
    name = eqn.primitive.name
    if name == "concatenate":
        return Joined(tuple(_carried_out(v) for v in values), eqn.params["dimension"], tuple(eqn.outvars[0].aval.shape))
    if name == "gather":
        return gather(eqn, values[0] if isinstance(values[0], Named) else _carried_out(values[0]), values[1])
    values = [_carried_out(value) for value in values]
    if name in MOVES:
        return move(eqn, values[0])
    if name in ELEMENTWISE:
        return elementwise(eqn, values)
    if name == "dot_general" and any(value.axes for value in values):
        return dot_general(eqn, values)
    if name in REDUCTIONS:
        return reduction(eqn, values[0])
    if name in ALONG_ONE_AXIS:
        return mapped(eqn, values, core=[eqn.params["axis"]])
    if name == "sort":
        return mapped(eqn, values, core=[eqn.params["dimension"]])
    if name in MATRIX:
        rank = len(values[0].shape)
        return mapped(eqn, values, core=[rank - 2, rank - 1])
    return mapped(eqn, values, core=None)


def bind(eqn, *arrays):
    return evaluate(lambda *a: eqn.primitive.bind(*map(jnp.asarray, a), **eqn.params), *arrays)


# ── elementwise ────────────────────────────────────────────────────────────────────────────────────────────────


def elementwise(eqn, values: Sequence[Named]) -> Named:
    shape = tuple(eqn.outvars[0].aval.shape)
    return lift(lambda *arrays: bind(eqn, *arrays), values, shape)


def lift(function, values: Sequence[Named], shape: tuple[int, ...]) -> Named:
    """Apply an elementwise function of equal-shaped arrays to named values that broadcast to `shape`."""
    values = [rank_padded(value, len(shape)) for value in settle_rows(values, shape)]
    axes = union(values)
    arrays = [spread(value, axes) for value in values]
    common = np.broadcast_shapes(*(array.shape for array in arrays))
    arrays = [array if array.shape == common else evaluate(jnp.broadcast_to, array, shape=common) for array in arrays]
    return Named(function(*arrays), shape, axes)


def rank_padded(value: Named, rank: int) -> Named:
    """Return the value with unit axes on the left, as NumPy broadcasting does."""
    extra = rank - len(value.shape)
    if extra == 0:
        return value
    array = value.array.reshape((*value.array.shape[: len(value.axes)], *(1,) * extra, *value.compact))
    axes = tuple(replace(axis, index=_unit_padded(axis.index, extra)) for axis in value.axes)
    return Named(array, (1,) * extra + value.shape, axes)


def _unit_padded(index: Index, extra: int) -> Index:
    if isinstance(index, Affine):
        return Affine(index.offset, (0,) * extra + index.strides)
    return Dense(index.array.reshape((1,) * extra + index.array.shape), index.root, index.taken)


def settle_rows(values: Sequence[Named], shape: tuple[int, ...]) -> list[Named]:
    """Keep row axes where the joint table is no larger than one entry for each position, else read them out."""
    axes = union(values)
    rows = [axis for axis in axes if not axis.is_latent]
    if not rows or len(values) == 1:
        return list(values)
    padded = [rank_padded(value, len(shape)) for value in values]
    compact = np.broadcast_shapes(*(value.compact for value in padded))
    kept = math.prod(axis.size for axis in rows) * math.prod(compact)
    varying = [any(axis.varies[d] for value in padded for axis in value.row_axes) for d in range(len(shape))]
    read_out = math.prod(shape[d] if varying[d] else compact[d] for d in range(len(shape)))
    return list(values) if kept <= read_out else [without_rows(value) for value in values]


# ── data movement ──────────────────────────────────────────────────────────────────────────────────────────────


def move(eqn, value: Named) -> Named:
    """Apply a data-moving primitive of one operand to a table and to the index of each of its axes."""
    shape = tuple(eqn.outvars[0].aval.shape)
    array_rule, affine_rule = MOVES[eqn.primitive.name]
    array = evaluate(lambda a: array_rule(a, len(value.axes), value.shape, shape, eqn.params), value.array)

    def unit_only(old, new) -> bool:
        return eqn.primitive.name != "transpose" and [n for n in old if n != 1] == [n for n in new if n != 1]

    def moved(index: Index) -> Index:
        if isinstance(index, Affine):
            strides = affine_rule(index, value.shape, shape, eqn.params)
            if strides is not None:
                return strides
            index = dense(index, value.shape)
        result = evaluate(lambda a: array_rule(a, 0, value.shape, shape, eqn.params), index.array)
        same = eqn.primitive.name != "rev" and unit_only(index.array.shape, result.shape)
        return Dense(result, index.root if same else Root(result), index.taken if same else None)

    same = eqn.primitive.name != "rev" and unit_only(value.array.shape, array.shape)
    return Named(array, shape, tuple(replace(axis, index=moved(axis.index)) for axis in value.axes), value.content if same else None)


def dense(index: Index, shape: Sequence[int]) -> Dense:
    if isinstance(index, Dense):
        return index
    array = index.dense(shape)
    return Dense(array, Root(array))


def _broadcast_array(array, lead, shape, new_shape, params):
    compact = [1] * len(new_shape)
    for source, target in enumerate(params["broadcast_dimensions"]):
        compact[target] = array.shape[lead + source]
    return array.reshape((*array.shape[:lead], *compact))


def _broadcast_affine(index, shape, new_shape, params):
    strides = [0] * len(new_shape)
    for source, target in enumerate(params["broadcast_dimensions"]):
        strides[target] = index.strides[source] if shape[source] == new_shape[target] else 0
    return Affine(index.offset, tuple(strides))


def _transpose_array(array, lead, shape, new_shape, params):
    return jnp.transpose(array, (*range(lead), *(lead + p for p in params["permutation"])))


def _transpose_affine(index, shape, new_shape, params):
    return Affine(index.offset, tuple(index.strides[p] for p in params["permutation"]))


def _squeeze_array(array, lead, shape, new_shape, params):
    return array.reshape([*array.shape[:lead], *(array.shape[lead + d] for d in range(len(shape)) if d not in params["dimensions"])])


def _squeeze_affine(index, shape, new_shape, params):
    return Affine(index.offset, tuple(s for d, s in enumerate(index.strides) if d not in params["dimensions"]))


def _slice_array(array, lead, shape, new_shape, params):
    strides = params["strides"] or (1,) * len(shape)
    slices = [slice(None) if array.shape[lead + d] == 1 else slice(start, limit, stride)
              for d, (start, limit, stride) in enumerate(zip(params["start_indices"], params["limit_indices"], strides, strict=True))]
    return array[(slice(None),) * lead + tuple(slices)]


def _slice_affine(index, shape, new_shape, params):
    steps = params["strides"] or (1,) * len(shape)
    offset = index.offset + sum(s * start for s, start in zip(index.strides, params["start_indices"], strict=True))
    return Affine(offset, tuple(s * step if size > 1 else 0 for s, step, size in zip(index.strides, steps, new_shape, strict=True)))


def _reverse_array(array, lead, shape, new_shape, params):
    return jnp.flip(array, [lead + d for d in params["dimensions"]])


def _reverse_affine(index, shape, new_shape, params):
    strides = tuple(-s if d in params["dimensions"] else s for d, s in enumerate(index.strides))
    ends = sum(s * (shape[d] - 1) for d, s in enumerate(index.strides) if d in params["dimensions"])
    return Affine(index.offset + ends, strides)


def _groups(shape, new_shape):
    """Yield the runs of axes (old, new) that a reshape turns into each other; unit axes stand alone."""
    i = j = 0
    while i < len(shape) or j < len(new_shape):
        old, new = [], []
        if i < len(shape) and shape[i] == 1:
            old, i = [i], i + 1
        elif j < len(new_shape) and new_shape[j] == 1:
            new, j = [j], j + 1
        else:
            old, new, i, j = [i], [j], i + 1, j + 1
            while (a := math.prod(shape[d] for d in old)) != (b := math.prod(new_shape[d] for d in new)):
                if a < b:
                    old, i = [*old, i], i + 1
                else:
                    new, j = [*new, j], j + 1
        yield old, new


def _reshape_array(array, lead, shape, new_shape, params):
    if math.prod(shape) == 0:
        return array.reshape((*array.shape[:lead], *new_shape))
    target, full_shape = [1] * len(new_shape), list(array.shape)
    for old, new in _groups(shape, new_shape):
        if any(array.shape[lead + d] > 1 for d in old):
            for d in old:
                full_shape[lead + d] = shape[d]
            for d in new:
                target[d] = new_shape[d]
    return jnp.broadcast_to(array, full_shape).reshape((*array.shape[:lead], *target))


def _reshape_affine(index, shape, new_shape, params):
    strides = [0] * len(new_shape)
    for old, new in _groups(shape, new_shape):
        old = [d for d in old if shape[d] > 1]
        if not old or all(index.strides[d] == 0 for d in old):
            continue
        for outer, inner in zip(old, old[1:], strict=False):
            if index.strides[outer] != index.strides[inner] * shape[inner]:
                return None
        step = index.strides[old[-1]]
        for d in reversed(new):
            strides[d], step = (step, step * new_shape[d]) if new_shape[d] > 1 else (0, step)
    return Affine(index.offset, tuple(strides))


MOVES = {
    "broadcast_in_dim": (_broadcast_array, _broadcast_affine),
    "transpose": (_transpose_array, _transpose_affine),
    "squeeze": (_squeeze_array, _squeeze_affine),
    "slice": (_slice_array, _slice_affine),
    "rev": (_reverse_array, _reverse_affine),
    "reshape": (_reshape_array, _reshape_affine),
}


def _carried_out(value) -> Named:
    """Return a concatenation as one named value."""
    if isinstance(value, Named):
        return value
    dim, shape = value.dim, value.shape
    pieces = [without_rows(piece) if any(axis.varies[dim] for axis in piece.row_axes) else piece for piece in value.pieces]
    bases = _aligned_by_source(pieces, dim)
    axes = tuple(_joined_axis(entries, pieces, dim) for entries in bases)
    compact = [max(piece.compact[d] for piece in pieces) for d in range(len(shape))]
    arrays = []
    for number, piece in enumerate(pieces):
        order = [piece.axes.index(entries[number]) if entries[number] is not None else None for entries in bases]
        array = evaluate(jnp.transpose, piece.array,
                         axes=[i for i in order if i is not None] + list(range(len(piece.axes), piece.array.ndim)))
        sizes = [1 if i is None else axis.size for i, axis in zip(order, axes, strict=True)]
        target = [axis.size for axis in axes] + [piece.shape[d] if d == dim else compact[d] for d in range(len(shape))]
        arrays.append(evaluate(jnp.broadcast_to, array.reshape((*sizes, *piece.compact)), shape=tuple(target)))
    joined = evaluate(lambda *a: jnp.concatenate(a, axis=len(axes) + dim), *arrays)
    return Named(joined, shape, axes)


def _aligned_by_source(pieces, dim) -> list[list[Axis | None]]:
    """Match the axes of the pieces: the n-th axis of a latent in one piece with the n-th in the next."""
    bases: dict = {}
    for number, piece in enumerate(pieces):
        count: dict = {}
        for axis in piece.axes:
            nth = count[axis.source] = count.get(axis.source, -1) + 1
            key = (axis.source, axis.size, nth) if axis.is_latent else axis.key
            bases.setdefault(key, [None] * len(pieces))[number] = axis
    return list(bases.values())


def _joined_axis(entries, pieces, dim) -> Axis:
    present = [axis for axis in entries if axis is not None]
    first = present[0]
    if not first.varies[dim] and all(axis.key == first.key for axis in present):
        return first
    arrays = []
    for axis, piece in zip(entries, pieces, strict=True):
        reference = axis or first
        index = reference.index.dense(piece.shape if axis else pieces[entries.index(first)].shape)
        if axis is None and index.shape[dim] > 1:
            index = index[(slice(None),) * dim + (slice(0, 1),)]
        arrays.append((index, piece.shape[dim]))
    common = np.broadcast_shapes(*(tuple(1 if d == dim else s for d, s in enumerate(index.shape)) for index, _ in arrays))
    arrays = [evaluate(jnp.broadcast_to, index, shape=(*common[:dim], size, *common[dim + 1:])) for index, size in arrays]
    joined = evaluate(lambda *a: jnp.concatenate(a, axis=dim), *arrays)
    return replace(first, index=Dense(joined, Root(joined)))


# ── lookups ────────────────────────────────────────────────────────────────────────────────────────────────────


def gather(eqn, operand: Named, indices) -> Named:
    """Look a table up: each piece of the index becomes a named axis of the result."""
    numbers, sizes = eqn.params["dimension_numbers"], eqn.params["slice_sizes"]
    looked_up = list(numbers.start_index_map)
    simple = all(sizes[d] == 1 if d in looked_up or d in numbers.operand_batching_dims else sizes[d] == operand.shape[d]
                 for d in range(len(operand.shape)))
    pieces = _pieces(indices, len(looked_up))
    latent_free = not operand.latent_axes and not any(piece.latent_axes for piece in pieces)
    if not simple:
        return mapped(eqn, [operand, _carried_out(indices)], core=None)
    if latent_free and operand.is_static and all(piece.is_static for piece in pieces):
        return mapped(eqn, [operand, _carried_out(indices)], core=None)
    return _lookup(operand, dict(zip(looked_up, pieces, strict=True)), numbers, tuple(eqn.outvars[0].aval.shape))


def _pieces(indices, number: int) -> list[Named]:
    """Return the columns of a gather's index array, each of the shape of the result's batch axes."""
    last = len(indices.shape) - 1
    if isinstance(indices, Joined) and indices.dim == last and all(piece.shape[last] == 1 for piece in indices.pieces):
        columns = indices.pieces
    else:
        indices = _carried_out(indices)
        columns = [_column(indices, i) for i in range(number)]
    return [_squeezed(column) for column in columns]


def _column(value: Named, i: int) -> Named:
    shape = (*value.shape[:-1], 1)
    params = {"start_indices": (0,) * (len(shape) - 1) + (i,), "limit_indices": (*value.shape[:-1], i + 1), "strides": None}
    if value.shape[-1] == 1:
        return value
    array = evaluate(lambda a: _slice_array(a, len(value.axes), value.shape, shape, params), value.array)
    axes = []
    for axis in value.axes:
        if isinstance(axis.index, Affine):
            axes.append(replace(axis, index=_slice_affine(axis.index, value.shape, shape, params)))
        else:
            index = evaluate(lambda a: _slice_array(a, 0, value.shape, shape, params), axis.index.array)  # noqa: B023
            axes.append(replace(axis, index=Dense(index, Root(index))))
    return Named(array, shape, tuple(axes))


def _squeezed(value: Named) -> Named:
    """Drop the trailing unit axis."""
    def index(index: Index) -> Index:
        if isinstance(index, Affine):
            return Affine(index.offset, index.strides[:-1])
        return Dense(index.array.reshape(index.array.shape[:-1]), index.root, index.taken)

    return Named(value.array.reshape(value.array.shape[:-1]), value.shape[:-1],
                 tuple(replace(axis, index=index(axis.index)) for axis in value.axes), value.content)


def _lookup(operand: Named, pieces: dict[int, Named], numbers, out_shape) -> Named:
    """Return operand[pieces] for a gather whose looked-up and batching axes have slices of length one."""
    rank = len(operand.shape)
    batch_out = [d for d in range(len(out_shape)) if d not in numbers.offset_dims]
    windows = [d for d in range(rank) if d not in numbers.collapsed_slice_dims and d not in numbers.operand_batching_dims]
    target = dict(zip(windows, numbers.offset_dims, strict=True))  # operand axis -> axis of the result
    for d, b in zip(numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True):
        target[d] = batch_out[b]
    placed = {d: _placed(piece, batch_out, len(out_shape)) for d, piece in pieces.items()}
    placed = {d: _row_axis(piece, operand.shape[d]) if operand.compact[d] > 1 else piece for d, piece in placed.items()}

    lead = [axis.key for axis in operand.axes]
    labels, keep = list(lead), []
    for d in range(rank):
        if operand.compact[d] == 1:
            continue
        keep.append(len(operand.axes) + d)
        labels.append(("operand", d) if d in placed else target[d])
    array = operand.array.reshape([*operand.array.shape[: len(lead)], *(operand.array.shape[k] for k in keep)])
    picks = {}
    for d, piece in placed.items():
        if ("operand", d) in labels:
            if not piece.latent_axes and not piece.axes and piece.is_static and not _in_range(piece, operand.shape[d]):
                raise IndexError(f"an index is out of range for an axis of length {operand.shape[d]}")
            picks[("operand", d)] = _labeled(piece)
    new_axes = [axis for d, piece in placed.items() if operand.compact[d] > 1 for axis in piece.axes]
    moved_axes = [replace(axis, index=_looked_up_index(axis, operand.shape, placed, target, len(out_shape), out_shape))
                  for axis in operand.axes]
    # an axis of the operand keeps its place in the table under its new index
    renamed = {old.key: new.key for old, new in zip(operand.axes, moved_axes, strict=True)}
    labels = [renamed.get(label, label) if not isinstance(label, int) else label for label in labels]
    axes = tuple({axis.key: axis for axis in [*new_axes, *moved_axes]}.values())
    labels, array = _merged(labels, array)
    out = [axis.key for axis in axes] + list(range(len(out_shape)))
    for key in [k for k, pick in picks.items() if _is_identity(pick, array.shape[labels.index(k)])]:
        label = picks[key][1][0]
        if label not in labels and not any(label in index_labels for k, (_, index_labels) in picks.items() if k != key):
            labels = [label if existing == key else existing for existing in labels]
            del picks[key]
    return Named(take(array, labels, picks, out), out_shape, axes)


def _merged(labels, array):
    """Two axes of a table that came to read the same element become one: the diagonal."""
    for label in dict.fromkeys(labels):
        while labels.count(label) > 1:
            i = labels.index(label)
            j = labels.index(label, i + 1)
            array = jnp.moveaxis(jnp.diagonal(array, axis1=i, axis2=j), -1, i)
            labels = labels[:j] + labels[j + 1:]
    return labels, array


def _is_identity(pick, size: int) -> bool:
    index, labels = pick
    return len(labels) == 1 and isinstance(index, np.ndarray) and index.size == size and bool((index.ravel() == np.arange(size)).all())


def _in_range(piece: Named, size: int) -> bool:
    return piece.array.size == 0 or (int(piece.array.min()) >= 0 and int(piece.array.max()) < size)


def _labeled(piece: Named):
    """Return a piece's index array without unit axes, and the labels of the rest."""
    labels = [label for label, size in zip(piece.labels, piece.array.shape, strict=True) if not (isinstance(label, int) and size == 1)]
    return piece.array.reshape([s for label, s in zip(piece.labels, piece.array.shape, strict=True)
                                if not (isinstance(label, int) and s == 1)]), labels


def _placed(piece: Named, batch_out: list[int], rank: int) -> Named:
    """Put a piece's axes where the result has them."""
    def array(a, lead):
        shape = [1] * rank
        for source, axis in enumerate(batch_out):
            shape[axis] = a.shape[lead + source]
        return a.reshape((*a.shape[:lead], *shape))

    def index(index: Index, shape) -> Index:
        if isinstance(index, Affine):
            strides = [0] * rank
            for source, axis in enumerate(batch_out):
                strides[axis] = index.strides[source]
            return Affine(index.offset, tuple(strides))
        return Dense(array(index.array, 0), index.root, index.taken)

    shape = [1] * rank
    for source, axis in enumerate(batch_out):
        shape[axis] = piece.shape[source]
    return Named(array(piece.array, len(piece.axes)), tuple(shape),
                 tuple(replace(axis, index=index(axis.index, piece.shape)) for axis in piece.axes), piece.content)


def _row_axis(piece: Named, size: int) -> Named:
    """Turn an index given by data into a named axis of rows; an index that is known is left as positions."""
    if piece.latent_axes or piece.is_static:
        return piece
    piece = without_rows(piece)
    squeezed = tuple(s for s in piece.array.shape if s != 1)
    if not squeezed:
        return piece
    axis = Axis(None, size, Dense(piece.array, piece.content))
    return Named(np.arange(size, dtype=np.int32).reshape([-1] + [1] * len(piece.shape)), piece.shape, (axis,))


def _looked_up_index(axis: Axis, shape, placed, target, rank, out_shape) -> Index:
    """Return the index of an operand's axis after the lookup: index[pieces]."""
    index = axis.index
    varying = [d for d in placed if axis.varies[d]]
    if isinstance(index, Affine) and all(placed[d].is_static and _affine(placed[d]) is not None for d in varying):
        offset, strides = index.offset, [0] * rank
        for d, axis_out in target.items():
            if d not in placed:
                strides[axis_out] += index.strides[d]
        for d in varying:
            inner = _affine(placed[d])
            offset += index.strides[d] * inner.offset
            strides = [s + index.strides[d] * t for s, t in zip(strides, inner.strides, strict=True)]
        return Affine(offset, tuple(strides))
    for d in varying:
        if placed[d].latent_axes:
            raise MixedElements(axis.source, "gather")
    index_array = index.dense(shape)
    labels = [("operand", d) if d in placed else target.get(d, ("gone", d)) for d in range(len(shape))]
    keep = [d for d in range(len(shape)) if index_array.shape[d] > 1]
    picks = {("operand", d): _labeled(without_rows(placed[d])) for d in varying}
    picked = take(index_array.reshape([index_array.shape[d] for d in keep]), [labels[d] for d in keep], picks, list(range(rank)))
    single = len(varying) == 1 and len(keep) == 1
    inner = placed[varying[0]] if varying else None
    identity = single and isinstance(index, Affine) and index.offset == 0 and index.strides[varying[0]] == 1
    if not varying:
        return Dense(picked, index.root)
    inner_root = _inner_root(inner)
    if identity and inner_root is not None:  # element number = index
        return Dense(picked, inner_root)
    taken = (index, inner_root) if single and inner_root is not None else None
    return Dense(picked, ("taken", index.key, inner_root) if taken else Root(picked), taken)


def _inner_root(piece: Named):
    if len(piece.axes) == 1 and not piece.latent_axes and isinstance(piece.axes[0].index, Dense):
        return piece.axes[0].index.root
    return piece.content if not piece.axes else None


def _affine(piece: Named) -> Affine | None:
    """Return a known index as an affine one, if it is."""
    if piece.axes or piece.array.size == 0:
        return None
    array = np.asarray(piece.array)
    offset, strides = int(array.ravel()[0]), []
    for d, size in enumerate(array.shape):
        first = array[tuple(slice(0, 2) if i == d else 0 for i in range(array.ndim))]
        strides.append(int(first[1] - first[0]) if size > 1 else 0)
    affine = Affine(offset, tuple(strides))
    return affine if (affine.dense(array.shape) == array).all() else None


# ── everything else ────────────────────────────────────────────────────────────────────────────────────────────


def reduction(eqn, value: Named) -> Named:
    dims = eqn.params["axes"]
    if eqn.primitive.name == "reduce_sum" and all(value.compact[d] == 1 for d in dims) \
            and not any(axis.varies[d] for axis in value.axes for d in dims):
        count = math.prod(value.shape[d] for d in dims)
        scaled = evaluate(lambda a: (a.sum(tuple(len(value.axes) + d for d in dims)) * count).astype(a.dtype), value.array)
        return Named(scaled, tuple(eqn.outvars[0].aval.shape), _without(value.axes, dims))
    return mapped(eqn, [value], core=list(dims), dropped=list(dims))


def _without(axes: Sequence[Axis], dims: Sequence[int]) -> tuple[Axis, ...]:
    def index(index: Index) -> Index:
        if isinstance(index, Affine):
            return Affine(index.offset, tuple(s for d, s in enumerate(index.strides) if d not in dims))
        return Dense(index.array.reshape([s for d, s in enumerate(index.array.shape) if d not in dims]), index.root, index.taken)

    return tuple(replace(axis, index=index(axis.index)) for axis in axes)


def mapped(eqn, values: Sequence[Named], core: list[int] | None, dropped: Sequence[int] = ()):
    """Evaluate any primitive exactly: under `vmap` over the named axes.

    `core` are the axes that the primitive mixes (None: all of them), `dropped` those that its result lacks. A
    latent whose elements lie along a core axis cannot be kept as a table over one element.
    """
    def mixes(axis: Axis, value: Named) -> bool:
        return any(axis.varies[d] for d in range(len(value.shape)) if core is None or d in core)

    values = [without_rows(value, [a for a in value.row_axes if mixes(a, value)]) for value in values]
    for value in values:
        for axis in value.latent_axes:
            if mixes(axis, value):
                raise MixedElements(axis.source, eqn.primitive.name)
    if core is None:
        values = [without_rows(value) for value in values]
    axes = union(values)
    if core is None or any(value.shape[:-2] != values[0].shape[:-2] for value in values):
        arrays = [full(value) for value in values]
    else:
        compact = np.broadcast_shapes(*(tuple(1 if d in core else s for d, s in enumerate(value.compact)) for value in values))
        arrays = []
        for value in values:
            shape = tuple(value.shape[d] if d in core else compact[d] for d in range(len(value.shape)))
            arrays.append(evaluate(jnp.broadcast_to, value.array, shape=value.array.shape[: len(value.axes)] + shape))

    function = lambda *a: eqn.primitive.bind(*map(jnp.asarray, a), **eqn.params)  # noqa: E731
    for axis in reversed(axes):
        in_axes = [0 if any(a.key == axis.key for a in value.axes) else None for value in values]
        function = jax.vmap(function, in_axes=in_axes)
    arrays = [spread_in_order(value, array, axes) for value, array in zip(values, arrays, strict=True)]
    results = evaluate(function, *arrays)
    out_axes = _without(axes, dropped) if dropped else axes
    shapes = [tuple(var.aval.shape) for var in eqn.outvars]
    if eqn.primitive.multiple_results:
        return [Named(result, shape, _fit(out_axes, len(shape))) for result, shape in zip(results, shapes, strict=True)]
    return Named(results, shapes[0], _fit(out_axes, len(shapes[0])))


def _fit(axes, rank):
    """Give the axes indices of the result's rank; what is cut off or added does not vary."""
    def index(index: Index) -> Index:
        if isinstance(index, Affine):
            return Affine(index.offset, (tuple(index.strides) + (0,) * rank)[:rank])
        shape = (tuple(index.array.shape) + (1,) * rank)[:rank]
        return Dense(index.array.reshape(shape), index.root, index.taken)

    return tuple(replace(axis, index=index(axis.index)) for axis in axes)


def spread_in_order(value: Named, array, axes: Sequence[Axis]):
    """Return the table with its named axes in the order of `axes`; absent ones are left out."""
    keys = [axis.key for axis in value.axes]
    order = [keys.index(axis.key) for axis in axes if axis.key in keys]
    return evaluate(jnp.transpose, array, axes=order + list(range(len(keys), array.ndim)))


def dot_general(eqn, values: Sequence[Named]) -> Named:
    """Contract two named values; their latents may vary along batch and free axes, not along contracted ones."""
    left, right = (without_rows(value) for value in values)
    (left_contract, right_contract), (left_batch, right_batch) = eqn.params["dimension_numbers"]
    shape = tuple(eqn.outvars[0].aval.shape)
    operands = []
    free_start = len(left_batch)
    for value, contract, batch in ((left, left_contract, left_batch), (right, right_contract, right_batch)):
        free = [d for d in range(len(value.shape)) if d not in contract and d not in batch]
        target = {d: i for i, d in enumerate(batch)} | {d: free_start + i for i, d in enumerate(free)}
        free_start += len(free)
        for axis in value.latent_axes:
            if any(axis.varies[d] for d in contract):
                raise MixedElements(axis.source, "dot_general")
        operands.append((value, contract, target))
    sizes = [values[0].shape[d] for d in left_contract]
    pieces = []
    for value, contract, target in operands:
        lead = len(value.axes)
        array = full(value, contract)
        order = [*range(lead), *(lead + d for d in sorted(target, key=target.get)), *(lead + d for d in contract)]
        array = jnp.transpose(array, order)
        compact = [1] * len(shape)
        for d, t in target.items():
            compact[t] = value.compact[d]
        axes = []
        for axis in value.axes:
            if isinstance(axis.index, Affine):
                strides = [0] * len(shape)
                for d, t in target.items():
                    strides[t] = axis.index.strides[d]
                axes.append(replace(axis, index=Affine(axis.index.offset, tuple(strides))))
            else:
                index = axis.index.array
                index = jnp.transpose(index, [*sorted(target, key=target.get), *contract]) if not isinstance(index, np.ndarray) \
                    else np.transpose(index, [*sorted(target, key=target.get), *contract])
                dims = [1] * len(shape)
                for d, t in target.items():
                    dims[t] = axis.index.array.shape[d]
                axes.append(replace(axis, index=Dense(index.reshape(dims), Root(index))))
        pieces.append((Named(array.reshape((*array.shape[:lead], *compact, *sizes)), (*shape, *sizes), tuple(
            replace(axis, index=_fit([axis], len(shape) + len(sizes))[0].index) for axis in axes))))
    axes = union(pieces)
    first, second = (spread(piece, axes) for piece in pieces)
    total = jnp.einsum("...,...->...", first, second) if not sizes else _contracted(first, second, len(sizes))
    return Named(total, shape, _without(axes, range(len(shape), len(shape) + len(sizes))))


def _contracted(first, second, number: int):
    """Sum the product of two broadcastable arrays over their last `number` axes, as a matrix product where one is."""
    rank = first.ndim
    letters = [chr(97 + i) for i in range(rank)]
    def spec(array):
        return "".join(letter for i, letter in enumerate(letters) if i >= rank - number or array.shape[i] > 1)
    def squeezed(array):
        return array.reshape([s for i, s in enumerate(array.shape) if i >= rank - number or s > 1])
    out = np.broadcast_shapes(first.shape[: rank - number], second.shape[: rank - number])
    letters_out = "".join(letter for i, letter in enumerate(letters[: rank - number]) if out[i] > 1)
    return jnp.einsum(f"{spec(first)},{spec(second)}->{letters_out}", squeezed(first), squeezed(second)).reshape(out)
