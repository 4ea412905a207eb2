"""Functions of arrays, traced by JAX and evaluated by NumPy: nothing is compiled.

To compile a program that is run once takes ten times as long as to run it. What is written here
knows nothing of XLA either, so that a table of brute force is evidence of its own. A primitive that
is not in the table is JAX's.
"""

from collections.abc import Callable
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Literal
from jax.lax import GatherScatterMode
from scipy import special

from emjax.run.compilation import SMALL, CompiledFunction, is_outermost, is_traced, work
from tests.oracles import threefry

# How often each equation may be evaluated on average before the whole is compiled: of the fit that
# was measured, a hundred times took twice as long as to compile it.
AS_LONG_AS_COMPILED = 30


class TooLong(Exception):
    """More was evaluated than it pays to."""


class Patience:
    """How many equations may still be evaluated."""

    def __init__(self, equations: float = float("inf")):
        self.left = equations

    def wait(self, equations: int) -> None:
        """Take so many equations off, where they are left."""
        self.left -= equations
        if self.left < 0:
            raise TooLong


def evaluated(function: Callable, *args: Any) -> Any:
    """Return function(*args), a tree of NumPy's arrays."""
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
    leaves = run(closed, *map(_known, jax.tree.leaves(args)))
    return jax.tree.unflatten(jax.tree.structure(shapes), leaves)


def run(closed: ClosedJaxpr, *args: Any, patience: Patience | None = None) -> list:
    """Return the outputs of a jaxpr; `TooLong` is raised where that takes more than patience."""
    before = PATIENCE[-1]
    with np.errstate(all="ignore"):
        PATIENCE.append(patience or before)
        try:
            return _run(closed, args)
        finally:
            PATIENCE.pop()


PATIENCE = [Patience()]


def _run(closed, args) -> list:
    jaxpr, consts = (
        (closed.jaxpr, closed.consts) if isinstance(closed, ClosedJaxpr) else (closed, ())
    )
    known = dict(zip(jaxpr.constvars, map(_known, consts), strict=True))
    known.update(zip(jaxpr.invars, args, strict=True))

    def read(atom):
        if isinstance(atom, Literal):
            return np.asarray(atom.val, atom.aval.dtype)
        return known[atom]

    PATIENCE[-1].wait(len(jaxpr.eqns))
    for eqn in jaxpr.eqns:
        rule = RULES.get(eqn.primitive.name, _by_jax)
        results = rule(eqn, *map(read, eqn.invars))
        if not isinstance(results, list):
            results = [results]
        for var, result in zip(eqn.outvars, results, strict=True):
            known[var] = _of_type(result, var.aval)
    return [read(atom) for atom in jaxpr.outvars]


def _known(value: Any) -> Any:
    is_key = hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
    return value if is_key else np.asarray(value)


def _of_type(result: Any, aval: Any) -> Any:
    if not isinstance(result, np.ndarray | np.generic):
        return result
    return np.asarray(result).astype(aval.dtype, copy=False)


def _by_jax(eqn, *args):
    params = eqn.primitive.get_bind_params(eqn.params)
    results = eqn.primitive.bind(*map(jnp.asarray, args), **params)
    return list(map(_known, results)) if eqn.primitive.multiple_results else _known(results)


# What runs a jaxpr
# --------------------------------------------------------------------------------------------------


def _call(key: str, eqn, *args):
    return _run(eqn.params[key], args)


def _cond(eqn, index, *args):
    branches = eqn.params["branches"]
    return _run(branches[min(max(int(index), 0), len(branches) - 1)], args)


def _while(eqn, *args):
    num_cond, num_body = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
    of_cond, of_body = args[:num_cond], args[num_cond : num_cond + num_body]
    carry = list(args[num_cond + num_body :])
    while (goes_on := _run(eqn.params["cond_jaxpr"], (*of_cond, *carry))[0]).any():
        after = _run(eqn.params["body_jaxpr"], (*of_body, *carry))
        if goes_on.ndim == 0:
            carry = list(after)
            continue
        # of several loops side by side, some are over before others
        carry = [
            np.where(goes_on.reshape(goes_on.shape + (1,) * (new.ndim - goes_on.ndim)), new, old)
            for new, old in zip(after, carry, strict=True)
        ]
    return carry


def _scan(eqn, *args):
    num_consts, num_carry = eqn.params["num_consts"], eqn.params["num_carry"]
    length = eqn.params["length"]
    consts, carry = args[:num_consts], list(args[num_consts : num_consts + num_carry])
    xs, ys = args[num_consts + num_carry :], [None] * length
    for t in reversed(range(length)) if eqn.params["reverse"] else range(length):
        outputs = _run(eqn.params["jaxpr"], (*consts, *carry, *(x[t] for x in xs)))
        carry, ys[t] = outputs[:num_carry], outputs[num_carry:]
    stacked = []
    for number, var in enumerate(eqn.outvars[num_carry:]):
        empty = np.zeros(var.aval.shape, var.aval.dtype)
        stacked.append(np.stack([y[number] for y in ys]) if length else empty)
    return carry + stacked


# Entries by entries
# --------------------------------------------------------------------------------------------------


def _div(x, y):
    if np.issubdtype(x.dtype, np.integer):
        return np.where(y == 0, -1, np.trunc(x / np.where(y == 0, 1, y)))
    return x / y


def _select(which, *cases):
    return np.choose(np.asarray(which, int), cases)


def _of_bits(x):
    return x.astype(f"u{x.dtype}") if np.issubdtype(x.dtype, np.signedinteger) else x


def _converted(eqn, x):
    dtype = eqn.params["new_dtype"]
    return (x != 0) if dtype == np.bool_ else x.astype(dtype)


def _rounded(eqn, x):
    if int(eqn.params["rounding_method"]) == 1:
        return np.round(x)
    return np.trunc(x + np.copysign(0.5, x))


def _logical(of_bools, of_integers, *args):
    return (of_bools if args[0].dtype == np.bool_ else of_integers)(*args)


# Movement
# --------------------------------------------------------------------------------------------------


def _shape(eqn) -> tuple[int, ...]:
    return tuple(map(int, eqn.outvars[0].aval.shape))


def _broadcast(eqn, x, *_):
    shape = [1] * len(_shape(eqn))
    for source, target in enumerate(eqn.params["broadcast_dimensions"]):
        shape[target] = x.shape[source]
    return np.broadcast_to(x.reshape(shape), _shape(eqn))


def _slice(eqn, x):
    starts, stops = eqn.params["start_indices"], eqn.params["limit_indices"]
    strides = eqn.params["strides"] or (1,) * x.ndim
    return x[tuple(map(slice, starts, stops, strides))]


def _pad(eqn, x, value):
    for axis, (_, _, interior) in enumerate(eqn.params["padding_config"]):
        if interior:
            shape = list(x.shape)
            shape[axis] = max(x.shape[axis] * (1 + interior) - interior, 0)
            apart = np.full(shape, value)
            apart[(slice(None),) * axis + (slice(None, None, 1 + interior),)] = x
            x = apart
    widths = [(max(low, 0), max(high, 0)) for low, high, _ in eqn.params["padding_config"]]
    x = np.pad(x, widths, constant_values=value)
    kept = []
    for size, (low, high, _) in zip(x.shape, eqn.params["padding_config"], strict=True):
        kept.append(slice(max(-low, 0), size - max(-high, 0)))
    return x[tuple(kept)]


def _split(eqn, x):
    ends = np.cumsum(eqn.params["sizes"])[:-1]
    return list(np.split(x, ends, axis=eqn.params["axis"]))


def _unstack(eqn, x):
    return list(np.moveaxis(x, eqn.params["axis"], 0))


def _iota(eqn):
    shape, axis = _shape(eqn), eqn.params["dimension"]
    numbers = np.arange(shape[axis]).reshape([-1 if d == axis else 1 for d in range(len(shape))])
    return np.broadcast_to(numbers, shape)


def _box(starts, shape, sizes) -> tuple[slice, ...]:
    box = []
    for start, length, size in zip(starts, shape, sizes, strict=True):
        first = min(max(int(start), 0), length - size)
        box.append(slice(first, first + size))
    return tuple(box)


def _dynamic_slice(eqn, x, *starts):
    return x[_box(starts, x.shape, eqn.params["slice_sizes"])]


def _dynamic_update_slice(eqn, x, update, *starts):
    x = x.copy()
    x[_box(starts, x.shape, update.shape)] = update
    return x


def _reverse(eqn, x):
    return np.flip(x, eqn.params["dimensions"])


def _bits_of(eqn, x):
    dtype = np.dtype(eqn.params["new_dtype"])
    return np.array(x).view(dtype) if x.itemsize == dtype.itemsize else _by_jax(eqn, x)


# Random numbers
# --------------------------------------------------------------------------------------------------


def _random(function: Callable, eqn, keys, *args):
    return function(eqn, keys, *args) if threefry.is_drawn_so(keys) else _by_jax(eqn, keys, *args)


def _random_bits(eqn, keys):
    return threefry.bits(keys, eqn.params["shape"], eqn.params["bit_width"])


def _random_split(eqn, keys):
    return threefry.split(keys, eqn.params["shape"])


def _random_fold_in(eqn, keys, numbers):
    return threefry.fold_in(keys, numbers)


# Lookups
# --------------------------------------------------------------------------------------------------


def _entries(operand, indices, windows, sizes, batching, columns, batch, rank, mode):
    """Return, for each axis of the operand, which entry each position reads, and which exist.

    - `windows`: the axis along which positions run through a slice, by axis of the operand.
    - `batching`: the axis of the indices that goes with an axis of the operand.
    - `columns`: the axis of the operand that each column of the indices is for.
    - `batch`: the axes of the positions that are those of the indices.
    """
    entries, exists = [], np.ones((1,) * rank, bool)
    for dim, length in enumerate(operand.shape):
        index = np.zeros((1,) * rank, int)
        if dim in columns:
            start = indices[..., columns.index(dim)].astype(int)
            last = length - sizes[dim]
            if mode != GatherScatterMode.FILL_OR_DROP:
                start = np.clip(start, 0, last)
            is_inside = (start >= 0) & (start <= last)
            exists = exists & _at(is_inside, batch, rank)
            index = index + _at(np.clip(start, 0, last), batch, rank)
        if dim in windows:
            index = index + _at(np.arange(sizes[dim]), [windows[dim]], rank)
        if dim in batching:
            index = index + _at(np.arange(length), [batch[batching[dim]]], rank)
        entries.append(index)
    return tuple(entries), exists


def _at(array, axes, rank):
    """Return the array with its axes at these places among `rank`."""
    shape = [1] * rank
    for axis, size in zip(axes, array.shape, strict=True):
        shape[axis] = size
    return array.reshape(shape)


def _gather(eqn, operand, indices):
    numbers, shape = eqn.params["dimension_numbers"], _shape(eqn)
    batch = [d for d in range(len(shape)) if d not in numbers.offset_dims]
    gone = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
    kept = [d for d in range(operand.ndim) if d not in gone]
    batching = zip(numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True)
    entries, exists = _entries(
        operand,
        indices,
        dict(zip(kept, numbers.offset_dims, strict=True)),
        eqn.params["slice_sizes"],
        dict(batching),
        list(numbers.start_index_map),
        batch,
        len(shape),
        eqn.params["mode"],
    )
    result = np.broadcast_to(operand[entries] if operand.size else 0, shape)
    return result if exists.all() else np.where(exists, result, _fill(eqn, operand.dtype))


def _fill(eqn, dtype):
    if eqn.params["fill_value"] is not None:
        return eqn.params["fill_value"]
    if np.issubdtype(dtype, np.inexact):
        return np.nan
    is_signed = np.issubdtype(dtype, np.signedinteger)
    return True if dtype == np.bool_ else np.iinfo(dtype).min if is_signed else np.iinfo(dtype).max


def _scatter(combine, eqn, operand, indices, updates):
    numbers = eqn.params["dimension_numbers"]
    if eqn.primitive.name == "scatter" and eqn.params["update_jaxpr"] is not None:
        return _by_jax(eqn, operand, indices, updates)
    gone = (*numbers.inserted_window_dims, *numbers.operand_batching_dims)
    kept = [d for d in range(operand.ndim) if d not in gone]
    windows = dict(zip(kept, numbers.update_window_dims, strict=True))
    sizes = [updates.shape[windows[d]] if d in windows else 1 for d in range(operand.ndim)]
    batching = zip(
        numbers.operand_batching_dims, numbers.scatter_indices_batching_dims, strict=True
    )
    batch = [d for d in range(updates.ndim) if d not in numbers.update_window_dims]
    entries, exists = _entries(
        operand,
        indices,
        windows,
        sizes,
        dict(batching),
        list(numbers.scatter_dims_to_operand_dims),
        batch,
        updates.ndim,
        eqn.params["mode"],
    )
    *entries, exists = np.broadcast_arrays(*entries, exists, updates)[:-1]
    # a number is an array of one
    result = operand.reshape(operand.shape or 1).copy()
    entries = tuple(entry[exists] for entry in entries) or (np.zeros(exists.sum(), int),)
    combine(result, entries, updates[exists])
    return result.reshape(operand.shape)


def _put(result, entries, values):
    result[entries] = values


def _top(eqn, x):
    k, axis = eqn.params["k"], eqn.params["axis"]
    if axis % x.ndim != x.ndim - 1 or not np.issubdtype(x.dtype, np.number) or np.isnan(x).any():
        return _by_jax(eqn, x)
    # of equal ones, the first
    largest = x.shape[-1] - 1 - np.argsort(x[..., ::-1], -1, kind="stable")[..., ::-1][..., :k]
    return [np.take_along_axis(x, largest, -1), largest]


# What mixes entries
# --------------------------------------------------------------------------------------------------


def _reduced(function, eqn, x):
    return function(x, axis=tuple(eqn.params["axes"]))


def _argument(function, eqn, x):
    return function(x, axis=eqn.params["axes"][0])


def _accumulated(function, eqn, x):
    axis = eqn.params["axis"]
    if not eqn.params["reverse"]:
        return function(x, axis)
    return np.flip(function(np.flip(x, axis), axis), axis)


def _sorted(eqn, *arrays):
    if len(arrays) > 1:
        return _by_jax(eqn, *arrays)
    return [np.sort(arrays[0], axis=eqn.params["dimension"], kind="stable")]


def _dot(eqn, x, y):
    (of_x, of_y), (batch_x, batch_y) = eqn.params["dimension_numbers"]
    labels_x, labels_y = list(range(x.ndim)), [x.ndim + d for d in range(y.ndim)]
    for d, e in [*zip(of_x, of_y, strict=True), *zip(batch_x, batch_y, strict=True)]:
        labels_y[e] = labels_x[d]
    out = [labels_x[d] for d in batch_x]
    out += [labels_x[d] for d in range(x.ndim) if d not in (*of_x, *batch_x)]
    out += [labels_y[d] for d in range(y.ndim) if d not in (*of_y, *batch_y)]
    return np.einsum(x, labels_x, y, labels_y, out)


def _cholesky(eqn, x):
    try:
        return np.linalg.cholesky(x)
    except np.linalg.LinAlgError:
        return _by_jax(eqn, x)


def _triangular_solve(eqn, a, b):
    params = eqn.params
    a = np.tril(a) if params["lower"] else np.triu(a)
    if params["unit_diagonal"] or np.iscomplexobj(a):
        return _by_jax(eqn, a, b)
    a = np.swapaxes(a, -1, -2) if params["transpose_a"] else a
    if params["left_side"]:
        return np.linalg.solve(a, b)
    return np.swapaxes(np.linalg.solve(np.swapaxes(a, -1, -2), np.swapaxes(b, -1, -2)), -1, -2)


def _entrywise(function: Callable) -> Callable:
    return lambda eqn, *args: function(*args)


ENTRYWISE = {
    "add": np.add,
    "add_any": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": _div,
    "neg": np.negative,
    "abs": np.abs,
    "sign": np.sign,
    "floor": np.floor,
    "ceil": np.ceil,
    "exp": np.exp,
    "exp2": np.exp2,
    "expm1": np.expm1,
    "log": np.log,
    "log1p": np.log1p,
    "logistic": special.expit,
    "tanh": np.tanh,
    "sin": np.sin,
    "cos": np.cos,
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "square": np.square,
    "pow": lambda x, y: np.power(x, y),
    "erf": special.erf,
    "erfc": special.erfc,
    "lgamma": special.gammaln,
    "digamma": special.digamma,
    "max": np.maximum,
    "min": np.minimum,
    "rem": np.fmod,
    "and": partial(_logical, np.logical_and, np.bitwise_and),
    "or": partial(_logical, np.logical_or, np.bitwise_or),
    "xor": partial(_logical, np.logical_xor, np.bitwise_xor),
    "not": partial(_logical, np.logical_not, np.bitwise_not),
    "eq": np.equal,
    "ne": np.not_equal,
    "lt": np.less,
    "le": np.less_equal,
    "gt": np.greater,
    "ge": np.greater_equal,
    "is_finite": np.isfinite,
    "select_n": _select,
    "clamp": lambda low, x, high: np.minimum(np.maximum(x, low), high),
    "cbrt": np.cbrt,
    "erf_inv": special.erfinv,
    "shift_left": np.left_shift,
    "shift_right_logical": lambda x, y: _of_bits(x) >> _of_bits(y),
    "stop_gradient": np.asarray,
    "copy": np.asarray,
    "copy_p": np.asarray,
}

RULES: dict[str, Callable] = {
    **{name: _entrywise(function) for name, function in ENTRYWISE.items()},
    "integer_pow": lambda eqn, x: (
        x ** np.asarray(eqn.params["y"], x.dtype)
        if eqn.params["y"] >= 0
        else 1 / x ** -eqn.params["y"]
    ),
    "convert_element_type": _converted,
    "round": _rounded,
    "jit": partial(_call, "jaxpr"),
    "pjit": partial(_call, "jaxpr"),
    "closed_call": partial(_call, "call_jaxpr"),
    "checkpoint": partial(_call, "jaxpr"),
    "remat2": partial(_call, "jaxpr"),
    "custom_jvp_call": partial(_call, "call_jaxpr"),
    "custom_vjp_call": partial(_call, "call_jaxpr"),
    "cond": _cond,
    "while": _while,
    "scan": _scan,
    "broadcast_in_dim": _broadcast,
    "bitcast_convert_type": _bits_of,
    "device_put": lambda eqn, *xs: list(xs),
    "optimization_barrier": lambda eqn, *xs: list(xs),
    "reshape": lambda eqn, x: x.reshape(_shape(eqn)),
    "squeeze": lambda eqn, x: x.reshape(_shape(eqn)),
    "transpose": lambda eqn, x: x.transpose(eqn.params["permutation"]),
    "slice": _slice,
    "rev": _reverse,
    "pad": _pad,
    "split": _split,
    "unstack": _unstack,
    "iota": _iota,
    "tile": lambda eqn, x: np.tile(x, eqn.params["reps"]),
    "concatenate": lambda eqn, *xs: np.concatenate(xs, eqn.params["dimension"]),
    "stack": lambda eqn, *xs: np.stack(xs, eqn.params["axis"]),
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update_slice,
    "gather": _gather,
    "scatter": partial(_scatter, _put),
    "scatter-add": partial(_scatter, np.add.at),
    "scatter-mul": partial(_scatter, np.multiply.at),
    "scatter-max": partial(_scatter, np.maximum.at),
    "scatter-min": partial(_scatter, np.minimum.at),
    "reduce_sum": partial(_reduced, np.sum),
    "reduce_prod": partial(_reduced, np.prod),
    "reduce_max": partial(_reduced, np.max),
    "reduce_min": partial(_reduced, np.min),
    "reduce_and": partial(_reduced, np.all),
    "reduce_or": partial(_reduced, np.any),
    "argmax": partial(_argument, np.argmax),
    "argmin": partial(_argument, np.argmin),
    "cumsum": partial(_accumulated, np.cumsum),
    "cumprod": partial(_accumulated, np.cumprod),
    "cummax": partial(_accumulated, np.maximum.accumulate),
    "sort": _sorted,
    "top_k": _top,
    "random_bits": partial(_random, _random_bits),
    "random_split": partial(_random, _random_split),
    "random_fold_in": partial(_random, _random_fold_in),
    "dot_general": _dot,
    "cholesky": _cholesky,
    "triangular_solve": _triangular_solve,
}


# What emjax compiles
# --------------------------------------------------------------------------------------------------


def in_place_of_compilation(function: CompiledFunction, *args: Any) -> Any:
    """Return what a function that emjax would compile makes of arrays.

    It is compiled after all once that would have taken less time than to evaluate it.
    """
    leaves = jax.tree.leaves(args)
    if is_traced(leaves) or not is_outermost():
        return function._well(*args)
    traced = function._well.trace(*args)
    seen, jaxpr = PATIENCES.setdefault(function, {}), traced.jaxpr.jaxpr
    if jaxpr not in seen:
        written, equations = work(jaxpr)
        is_small = written <= SMALL * equations
        seen[jaxpr] = Patience(AS_LONG_AS_COMPILED * equations if is_small else -1)
    patience = seen[jaxpr]
    if patience.left < 0:
        return COMPILED(function, *args)
    try:
        results = run(traced.jaxpr, *map(_known, leaves), patience=patience)
    except TooLong:
        return COMPILED(function, *args)
    return jax.tree.unflatten(jax.tree.structure(traced.out_info), map(jnp.asarray, results))


COMPILED = CompiledFunction.__call__
PATIENCES: WeakKeyDictionary[CompiledFunction, dict[Any, Patience]] = WeakKeyDictionary()
