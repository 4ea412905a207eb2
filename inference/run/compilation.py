"""Compile a function as its work deserves: small work quickly, large work well."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Hashable
from typing import Any

import jax
import jax.core
import numpy as np
from jax.extend.core import get_opaque_trace_state, jaxprs_in_params

# XLA without what takes most of its time: LLVM's optimizations, and the emitters that make one loop
# of several. It then takes a third of the time, and what it makes two to three times as long.
QUICKLY = {
    "xla_backend_optimization_level": 0,
    "xla_cpu_use_fusion_emitters": False,
    "xla_llvm_disable_expensive_passes": True,
}
# Work is small as long as equations write no more than so many numbers each, on average: XLA's time
# grows with their number, a step's with what they write. A wrong guess costs little: at the limit a
# compilation gains as much as one to five thousand steps lose (measured on mixtures, chains and
# regressions: 0.3 to 3 s, and 0.1 to 1 ms a step).
SMALL = 1000
# Of what is called once, as a rule, more is small: at the limit the call takes half a second longer
# than it would, and compiles in some seconds less.
SMALL_ONCE = 300 * SMALL


class CompiledFunction:
    """A pure function of arrays, compiled when it is first called for arrays of some shapes.

    How depends on its work alone, not on a clock, so that a run is the same bits each time. Within
    what JAX traces already, it is a part of that. `is_called_once`: whether there are no steps that
    a slower form would hold up.
    """

    def __init__(self, function: Callable, is_called_once: bool = False):
        self._small = SMALL_ONCE if is_called_once else SMALL
        self._function = function
        self._well = jax.jit(function)
        self._by_shapes: dict[Hashable, Callable] = {}

    def __call__(self, *args: Any) -> Any:
        """Return the function of the arguments: trees of arrays and numbers."""
        leaves, tree = jax.tree.flatten(args)
        if is_traced(leaves) or not is_outermost():
            return self._well(*args)
        shapes = (tree, tuple((np.shape(leaf), jax.typeof(leaf).dtype) for leaf in leaves))
        if shapes not in self._by_shapes:
            # the second function does not trace again: JAX keeps what it has traced
            written, equations = work(self._well.trace(*args).jaxpr.jaxpr)
            is_small = written <= self._small * equations
            self._by_shapes[shapes] = self._quickly if is_small and on_cpu() else self._well
        return self._by_shapes[shapes](*args)

    @functools.cached_property
    def _quickly(self) -> Callable:
        return jax.jit(self._function, compiler_options=known_options())


@functools.cache
def known_options() -> dict[str, bool | int]:
    """Return those of `QUICKLY` that this version of XLA knows: it refuses others, by name."""
    options: dict[str, bool | int] = dict(QUICKLY)
    while options:
        try:
            jax.jit(lambda: 0, compiler_options=options).lower().compile()
            break
        except jax.errors.JaxRuntimeError as error:
            unknown = {option for option in options if option in str(error)}
            if not unknown:
                raise
            options = {option: options[option] for option in options if option not in unknown}
    return options


def is_traced(values: Any) -> bool:
    """Whether values are being traced, so that nothing can be said of them."""
    return any(isinstance(value, jax.core.Tracer) for value in jax.tree.leaves(values))


def is_outermost() -> bool:
    """Whether JAX traces nothing around the caller."""
    with jax.core.eval_context():
        outside = get_opaque_trace_state("flax")
    return get_opaque_trace_state("flax") == outside


def on_cpu() -> bool:
    """Whether the options of XLA's compiler for the CPU are those that count."""
    return jax.default_backend() == "cpu"


def work(jaxpr: Any) -> tuple[int, int]:
    """Return how many numbers a jaxpr writes in one pass, and how many equations it has.

    A product of matrices counts every product of two numbers; a `scan` counts every step, a `while`
    one of them.
    """
    written, equations = 0, 0
    for eqn in jaxpr.eqns:
        inner = [work(callee) for callee in jaxprs_in_params(eqn.params)]
        if inner:
            written += eqn.params.get("length", 1) * sum(numbers for numbers, _ in inner)
            equations += sum(number for _, number in inner)
            continue
        size = sum(var.aval.size for var in eqn.outvars)
        if eqn.primitive.name == "dot_general":
            (contracted, _), _ = eqn.params["dimension_numbers"]
            size *= math.prod(eqn.invars[0].aval.shape[d] for d in contracted)
        written += size
        equations += 1
    return written, equations
