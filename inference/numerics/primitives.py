"""What a JAX primitive is to us: one table, which everything asks that walks a jaxpr.

A primitive that is not in the table is evaluated as it is, under `vmap` over the named axes of its
operands, as one that may mix any of their entries: right for all, but for no latent whose elements
it would mix. A line in the table says what may be done instead. (JAX holds its own rules in such
dictionaries, too: `jax.interpreters.batching.primitive_batchers` for one.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias

import jax
import numpy as np

# an equation of a jaxpr, of whose variables JAX's own type knows no shapes
Equation: TypeAlias = Any


class Kind(Enum):
    """What a primitive does to the axes of its operands."""

    ELEMENTWISE = "one entry of the result for one entry of each operand"
    MOVES = "rearranges the entries of one operand, by a rule in `tables.moves`"
    JOINS = "concatenates or stacks its operands"
    SPLITS = "cuts its operand into several, by a rule in `tables.moves`"
    PLACES = "puts entries of one operand at places of another"
    GATHERS = "reads a table at indices"
    SLICES = "reads a slice of a table at an index"
    CONTRACTS = "sums products of two operands"
    REDUCES = "reduces along axes, which are gone"
    MIXES = "mixes the entries along some axes, which stay"
    CALLS = "runs a jaxpr"
    BRANCHES = "runs one of several jaxprs"
    LOOPS = "runs a jaxpr for one entry of its operands after another"
    DERIVES = "runs a jaxpr that has derivatives of its own"
    SOLVES = "solves a linear system"
    OTHER = "may mix all entries of its operands"


class Linear(Enum):
    """Which operands a primitive is linear in, while the others are constants."""

    NONE = "none"
    ALL = "all of them jointly"
    ANY_ONE = "each of them by itself: a product"
    FIRST = "the first: a quotient, or a table that is read at indices"
    FIRST_TWO = "the first two: the second is put into the first where the others say"
    BUT_FIRST = "all but the first: cases that it chooses among, right sides that it solves for"
    BUT_SECOND = "the first and the third, which is put into the first where the second says"


@dataclass(frozen=True)
class Traits:
    """What is known of a primitive.

    - `kind`: what it does to the axes of its operands.
    - `linear`: which operands it is linear in.
    - `copies`: whether every entry of its result is an entry of an operand that it is linear in;
      its other operands then say which.
    - `is_cheap`: whether its result is cheaper to form again than to keep.
    - `by_numpy`: `by_numpy(eqn, *arrays)` is its result for known arrays, or None for those that
      NumPy cannot take. NumPy compiles nothing to learn that 2 < 0 is false.
    - `mixes`: of `Kind.MIXES`, `mixes(eqn)` are the axes along which it does.
    """

    kind: Kind = Kind.OTHER
    linear: Linear = Linear.NONE
    copies: bool = False
    is_cheap: bool = False
    by_numpy: Callable | None = None
    mixes: Callable[[Equation], list[int]] | None = None


def traits(eqn: Equation) -> Traits:
    """Return what is known of the primitive of an equation."""
    name = eqn.primitive.name
    # `x.at[i].apply(f)` is a scatter, too
    if name == "scatter" and eqn.params["update_jaxpr"] is not None:
        return Traits(Kind.PLACES)
    # numbers of another width are taken apart
    if name == "bitcast_convert_type" and eqn.invars[0].aval.shape != eqn.outvars[0].aval.shape:
        return UNKNOWN
    return TRAITS.get(name, UNKNOWN)


def _elementwise(function: Callable | None = None, **others) -> Traits:
    """Return the traits of a primitive that acts on entries; NumPy's `function` does the same."""

    def by_numpy(eqn, *arrays):
        return np.asarray(function(*arrays))

    return Traits(Kind.ELEMENTWISE, by_numpy=None if function is None else by_numpy, **others)


def _converted(eqn, array):
    return array.astype(eqn.params["new_dtype"])


def _selected(eqn, which, *cases):
    return np.where(which, cases[1], cases[0]) if len(cases) == 2 else None


def _joined(eqn, *arrays):
    return np.concatenate(arrays, axis=eqn.params["dimension"])


def _stacked(eqn, *arrays):
    return np.stack(arrays, axis=eqn.params["axis"])


def _cut_out(eqn, array, *starts):
    """Return a slice; as JAX does, from so far in front that none of it is outside."""
    sizes = eqn.params["slice_sizes"]
    cut = []
    for start, size, length in zip(starts, sizes, array.shape, strict=True):
        first = min(max(int(start), 0), length - size)
        cut.append(slice(first, first + size))
    return array[tuple(cut)]


def _numbered(eqn):
    """Return 0, 1, … along one axis."""
    shape, dim = tuple(eqn.outvars[0].aval.shape), eqn.params["dimension"]
    numbers = np.arange(shape[dim], dtype=eqn.params["dtype"])
    along_dim = [-1 if d == dim else 1 for d in range(len(shape))]
    return np.broadcast_to(numbers.reshape(along_dim), shape)


def _platform(eqn):
    """Return the first of an equation's groups of platforms that has this one, or has all."""
    platform = jax.default_backend()
    names = {platform, {"gpu": "cuda"}.get(platform, platform)}
    for number, platforms in enumerate(eqn.params["platforms"]):
        if platforms is None or names & set(platforms):
            return np.asarray(number, np.int32)
    return None


def _last_axes(number: int) -> Callable:
    """Return the function that returns the last axes of an equation's first operand."""

    def last(eqn) -> list[int]:
        rank = len(eqn.invars[0].aval.shape)
        return list(range(rank - number, rank))

    return last


def _along_axis(eqn) -> list[int]:
    return [eqn.params["axis"]]


def _transformed(eqn) -> list[int]:
    return _last_axes(len(eqn.params["fft_lengths"]))(eqn)


def _along_dimension(eqn) -> list[int]:
    return [eqn.params["dimension"]]


def _each(names: str, traits: Traits) -> dict[str, Traits]:
    """Return the traits that several primitives have, by name."""
    return dict.fromkeys(names.split(), traits)


UNKNOWN = Traits()

TRAITS: dict[str, Traits] = {
    # elementwise: linear
    "add": _elementwise(np.add, linear=Linear.ALL, is_cheap=True),
    "add_any": _elementwise(linear=Linear.ALL),
    "sub": _elementwise(np.subtract, linear=Linear.ALL, is_cheap=True),
    "neg": _elementwise(np.negative, linear=Linear.ALL, is_cheap=True),
    "mul": _elementwise(np.multiply, linear=Linear.ANY_ONE, is_cheap=True),
    "div": _elementwise(linear=Linear.FIRST),
    # elementwise: entries of operands
    # what a copy or a conversion holds is still the entry of a parameter
    "copy": _elementwise(np.asarray, linear=Linear.ALL, copies=True, is_cheap=True),
    "copy_p": _elementwise(np.asarray, linear=Linear.ALL, copies=True),
    "convert_element_type": Traits(Kind.ELEMENTWISE, Linear.ALL, True, True, _converted),
    "select_n": Traits(Kind.ELEMENTWISE, Linear.BUT_FIRST, True, True, _selected),
    # elementwise: cheap
    "max": _elementwise(np.maximum, is_cheap=True),
    "min": _elementwise(np.minimum, is_cheap=True),
    "and": _elementwise(np.bitwise_and, is_cheap=True),
    "or": _elementwise(np.bitwise_or, is_cheap=True),
    "not": _elementwise(np.bitwise_not, is_cheap=True),
    "eq": _elementwise(np.equal, is_cheap=True),
    "ne": _elementwise(np.not_equal, is_cheap=True),
    "lt": _elementwise(np.less, is_cheap=True),
    "le": _elementwise(np.less_equal, is_cheap=True),
    "gt": _elementwise(np.greater, is_cheap=True),
    "ge": _elementwise(np.greater_equal, is_cheap=True),
    # powers that are products
    "integer_pow": _elementwise(is_cheap=True),
    "square": _elementwise(is_cheap=True),
    # elementwise: all others
    **_each(
        "abs acos acosh asin asinh atan atan2 atanh bessel_i0e bessel_i1e bitcast_convert_type "
        "cbrt ceil clamp clz complex conj cos cosh digamma eq_to erf erf_inv erfc exp exp2 "
        "expm1 floor igamma igamma_grad_a igammac imag is_finite le_to lgamma log log1p "
        "logistic lt_to mulhi nextafter optimization_barrier polygamma population_count pow "
        "real reduce_precision regularized_incomplete_beta rem round rsqrt shift_left "
        "shift_right_arithmetic shift_right_logical sign sin sinh sqrt stop_gradient tan tanh "
        "xor zeta",
        _elementwise(),
    ),
    # movement and lookups
    "broadcast_in_dim": Traits(Kind.MOVES, Linear.ALL, copies=True, is_cheap=True),
    "reshape": Traits(Kind.MOVES, Linear.ALL, copies=True, is_cheap=True),
    "rev": Traits(Kind.MOVES, Linear.ALL, copies=True),
    "slice": Traits(Kind.MOVES, Linear.ALL, copies=True),
    "squeeze": Traits(Kind.MOVES, Linear.ALL, copies=True, is_cheap=True),
    "tile": Traits(Kind.MOVES, Linear.ALL, copies=True),
    "transpose": Traits(Kind.MOVES, Linear.ALL, copies=True, is_cheap=True),
    **_each("split unstack", Traits(Kind.SPLITS, Linear.ALL, copies=True)),
    "concatenate": Traits(Kind.JOINS, Linear.ALL, copies=True, by_numpy=_joined),
    "stack": Traits(Kind.JOINS, Linear.ALL, copies=True, by_numpy=_stacked),
    "pad": Traits(Kind.PLACES, Linear.ALL, copies=True),
    "dynamic_update_slice": Traits(Kind.PLACES, Linear.FIRST_TWO, copies=True),
    "scatter": Traits(Kind.PLACES, Linear.BUT_SECOND, copies=True),
    **_each("scatter-add scatter-sub", Traits(Kind.PLACES, Linear.BUT_SECOND)),
    **_each("scatter-max scatter-min scatter-mul", Traits(Kind.PLACES)),
    "gather": Traits(Kind.GATHERS, Linear.FIRST, copies=True),
    "dynamic_slice": Traits(Kind.SLICES, Linear.FIRST, copies=True, by_numpy=_cut_out),
    "iota": Traits(by_numpy=_numbered),
    "platform_index": Traits(by_numpy=_platform),
    # what mixes entries
    "dot_general": Traits(Kind.CONTRACTS, Linear.ANY_ONE, is_cheap=True),
    "conv_general_dilated": Traits(linear=Linear.ANY_ONE),
    "reduce_sum": Traits(Kind.REDUCES, Linear.ALL, is_cheap=True),
    **_each(
        "reduce_max reduce_min reduce_prod reduce_and reduce_or reduce_xor argmax argmin",
        Traits(Kind.REDUCES),
    ),
    "cumsum": Traits(Kind.MIXES, Linear.ALL, mixes=_along_axis),
    **_each("cumprod cummax cummin cumlogsumexp", Traits(Kind.MIXES, mixes=_along_axis)),
    "sort": Traits(Kind.MIXES, mixes=_along_dimension),
    "top_k": Traits(Kind.MIXES, mixes=_along_axis),
    "fft": Traits(Kind.MIXES, mixes=_transformed),
    # the axes along which matrices and vectors lie
    "lu_pivots_to_permutation": Traits(Kind.MIXES, mixes=_last_axes(1)),
    **_each(
        "cholesky tridiagonal_solve lu eigh eig svd qr householder_product geqrf",
        Traits(Kind.MIXES, mixes=_last_axes(2)),
    ),
    "triangular_solve": Traits(Kind.MIXES, Linear.BUT_FIRST, mixes=_last_axes(2)),
    # what runs a jaxpr
    "jit": Traits(Kind.CALLS, is_cheap=True),
    **_each(
        "pjit closed_call core_call remat remat2 checkpoint custom_lin",
        Traits(Kind.CALLS),
    ),
    "custom_jvp_call": Traits(Kind.DERIVES),
    "custom_vjp_call": Traits(Kind.DERIVES),
    "custom_linear_solve": Traits(Kind.SOLVES),
    "cond": Traits(Kind.BRANCHES),
    "scan": Traits(Kind.LOOPS),
}
