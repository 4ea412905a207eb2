"""Double precision where JAX computes in single: values taken there and back."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import constraints

from emjax.families.jacobians import inside, is_elementary
from emjax.families.limits import entry_constraint, entry_limits, is_simplex
from emjax.program.records import Parameter

# Numbers in the data up to which a run in single precision ends in double, unless that is asked
# for: with a copy in double they take a gigabyte and a half.
LARGEST = 2**27
# whether double precision was switched on here, for a program of a user who has it off
IS_OURS: ContextVar[bool] = ContextVar("IS_OURS", default=False)
Value = TypeVar("Value")
# what single precision leaves of a sum of 1, at most
ROUNDING = 1e-5


def is_single() -> bool:
    """Whether JAX computes in single precision here."""
    return jnp.result_type(float) == np.float32


class CachedInPrecision(Generic[Value]):
    """A property that is computed once in single and once in double precision.

    Double precision may be switched on between two questions.
    """

    def __init__(self, function: Callable[[Any], Value]):
        self.function, self.__doc__ = function, function.__doc__

    def __get__(self, instance: Any, owner: Any = None) -> Value:
        if instance is None:
            on_class: Any = self
            return on_class
        key = f"{self.function.__name__} in {jnp.result_type(float)}"
        kept = vars(instance)
        if key not in kept:
            kept[key] = self.function(instance)
        return kept[key]


@contextmanager
def double_precision() -> Iterator[None]:
    """Return a context in which JAX has double precision, and programs are bound to data in it."""
    token = IS_OURS.set(True)
    try:
        with jax.enable_x64(True):
            yield
    finally:
        IS_OURS.reset(token)


def in_precision(data: Any) -> Any:
    """Return data as a program is bound to them here: in double within `double_precision`."""
    return doubled(data) if IS_OURS.get() else data


def in_double(function: Callable) -> Callable:
    """Return a public function (em, …, *args, **kwargs) that does small work in double precision.

    `args`, `kwargs`: the program's own arguments.
    """
    parameters = inspect.signature(function).parameters
    kinds = [parameter.kind for parameter in parameters.values()]
    # beside the first
    num_leading = kinds.count(inspect.Parameter.POSITIONAL_OR_KEYWORD) - 1

    @wraps(function)
    def in_its_precision(em: Any, *args: Any, **kwargs: Any) -> Any:
        data = args[num_leading:]
        named = {name: value for name, value in kwargs.items() if name not in parameters}
        if not _is_done_in_double(em, data, named):
            return function(em, *args, **kwargs)
        with double_precision():
            found = function(em, *args, **kwargs)
            # one number, such as a log-likelihood, keeps its digits: NumPy's
            return singled(jax.tree.map(host_number, found))

    return in_its_precision


def host_number(leaf: Any) -> Any:
    """Return a leaf, one number as NumPy's, which keeps its digits where others are singled."""
    return np.asarray(leaf) if isinstance(leaf, jax.Array) and leaf.ndim == 0 else leaf


def _is_done_in_double(em: Any, args: tuple, kwargs: Mapping[str, Any]) -> bool:
    if not is_single():
        return False
    try:
        return em.on(*args, **kwargs).is_done_in_double
    # the function says what is wrong with its arguments
    except Exception:
        return False


def doubled(tree: Any) -> Any:
    """Return a tree with its arrays of single precision in double, where JAX has that."""
    return jax.tree.map(lambda leaf: _cast(leaf, np.float32, np.float64), tree)


def from_single(parameters: Mapping[str, Parameter], params: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters with those of single precision in double, where JAX has that.

    What rounding has taken off a constraint is put back: probabilities that add up to 1 + 1e-7 are
    worth a nat in ten million data, which the first step would lose.
    """
    return {name: _restored(parameters.get(name), value) for name, value in params.items()}


def _restored(parameter: Parameter | None, value: Any) -> Any:
    is_array = isinstance(value, np.ndarray | jax.Array)
    if parameter is None or not is_array or value.dtype != np.float32:
        return value
    exact = np.asarray(value).astype(np.float64)
    if is_simplex(parameter.constraint):
        total = exact.sum(-1, keepdims=True)
        return np.where(abs(total - 1) < ROUNDING, exact / total, exact)
    if type(parameter.constraint) is type(constraints.positive_definite):
        other = exact.swapaxes(-1, -2)
        return np.where(abs(exact - other) < ROUNDING * abs(exact), (exact + other) / 2, exact)
    low, high = entry_limits(parameter.constraint, exact.shape)
    # what is on a bound would be beyond it, where that was rounded up or down
    for bound in (low, high):
        exact = np.where(value == bound.astype(np.float32), bound, exact)
    return exact


def singled(tree: Any) -> Any:
    """Return a tree with JAX's arrays of double precision in single."""

    def cast(leaf):
        return _cast(leaf, np.float64, np.float32) if isinstance(leaf, jax.Array) else leaf

    return jax.tree.map(cast, tree)


def to_single(parameters: Mapping[str, Parameter], params: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters in single precision.

    One that rounds to a bound which its constraint excludes, such as a rate of 1e-99, is next to
    it: it is to be one that can be asked of.
    """
    return {name: _rounded(parameters[name], value) for name, value in params.items()}


def _rounded(parameter: Parameter, value: Any) -> Any:
    rounded, constraint = singled(value), parameter.constraint
    if not is_elementary(constraint):
        return rounded
    exact, single = np.asarray(value), np.asarray(rounded)
    low, high = entry_limits(constraint, exact.shape)
    is_allowed = np.asarray(entry_constraint(constraint)(single))
    is_lost = (low < exact) & (exact < high) & ~is_allowed
    if not is_lost.any():
        return rounded
    return jax.device_put(np.where(is_lost, inside(constraint, rounded), single))


def _cast(leaf: Any, before: Any, after: Any) -> Any:
    if not isinstance(leaf, np.ndarray | jax.Array) or leaf.dtype != before:
        return leaf
    if isinstance(leaf, np.ndarray):
        return leaf.astype(after)
    # what lies on several devices stays there
    if len(leaf.sharding.device_set) > 1:
        return leaf.astype(after)
    # by NumPy, which compiles nothing for each shape
    return jax.device_put(np.asarray(leaf).astype(after))


def num_reals(leaves: Sequence) -> int:
    """Return how many real numbers the arrays among leaves have together."""
    arrays = [leaf for leaf in leaves if isinstance(leaf, np.ndarray | jax.Array)]
    return sum(array.size for array in arrays if jnp.issubdtype(array.dtype, jnp.floating))
