"""Compare EM with an update derived by hand, step by step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from emjax.em import EM, asked_of
from emjax.run.annotations import Params, Whole
from emjax.run.columns import Column, Table, lines_of
from emjax.run.result import params_of

SHOWN_STEPS = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500)


class Comparison(eqx.Module, Table):
    """How far two updates part from the same start.

    **Attributes:**

    - `differences`: {parameter: the largest absolute difference after each step 1 … num_steps}.
    - `params`: where EM ended.
    - `hand_derived`: where the update derived by hand ended.
    """

    differences: dict[str, Float[np.ndarray, "step"]]
    params: dict[str, Any]
    hand_derived: dict[str, Any]

    @property
    def largest(self) -> float:
        """The largest absolute difference of any parameter after any step (NaN if there is one)."""
        largest = [np.max(each, initial=0.0) for each in self.differences.values()]
        return float(np.max(largest, initial=0.0))

    @property
    def num_steps(self) -> int:
        """How many steps were compared."""
        return len(next(iter(self.differences.values()), ()))

    def __str__(self) -> str:
        shown = sorted({*SHOWN_STEPS, self.num_steps} & set(range(1, self.num_steps + 1)))
        lines = [f"  {line}" for line in lines_of(self._columns_at(shown))]
        head = "largest absolute difference between EM and the update derived by hand"
        return "\n".join([head, *lines, self._verdict()])

    def _columns(self) -> list[Column]:
        """Return a row for each step."""
        return self._columns_at(range(1, self.num_steps + 1))

    def _columns_at(self, steps: Sequence[int]) -> list[Column]:
        columns = [Column("step", list(steps))]
        for name, differences in self.differences.items():
            of_steps = [float(differences[step - 1]) for step in steps]
            columns.append(Column(name, of_steps, ".1e", title=name))
        return columns

    def _verdict(self) -> str:
        threshold = self._threshold()
        for step in range(self.num_steps):
            for name, differences in self.differences.items():
                scale = 1 + float(np.max(np.abs(np.asarray(self.hand_derived[name])), initial=0))
                # not "above": a NaN is a difference, too
                if not differences[step] <= threshold * scale:
                    return f"they part at step {step + 1}, in '{name}' (by {differences[step]:.1e})"
        return f"they agree: no difference above {threshold:g} relative to the parameters"

    def _threshold(self) -> float:
        """Return the largest difference, relative to parameters, that is rounding."""
        sizes = [np.asarray(value).dtype.itemsize for value in self.params.values()]
        is_double = max(sizes, default=np.dtype(float).itemsize) >= np.dtype(np.float64).itemsize
        return 1e-10 if is_double else 1e-4


def compare_updates(
    em: EM,
    hand_derived_step: Callable,
    params: Params,
    *args: Any,
    num_steps: Whole = 50,
    **kwargs: Any,
) -> Comparison:
    """Run EM and an update derived by hand from the same start, and return where they part.

    `hand_derived_step(params, *args, **kwargs)` takes and returns {parameter: array}; it gets the
    model's own arguments. Errors: `ValueError` if its parameters are not the program's.
    """
    if not isinstance(num_steps, int | np.integer):
        raise ValueError(f"num_steps must be a whole number, not {num_steps!r}.")
    bound = asked_of(em, params, args, kwargs)
    graph = bound.compiled.graph
    expected = set(graph.names)
    by_hand = {name: np.asarray(value) for name, value in params_of(params).items()}
    if set(by_hand) != expected:
        raise ValueError(
            f"params must have exactly the program's parameters {sorted(expected)}, not "
            f"{sorted(by_hand)}."
        )
    start = {name: jnp.asarray(by_hand[name], graph.parameters[name].dtype) for name in graph.names}
    state = bound.compiled.pure.loop.state(start)
    differences: dict[str, list[float]] = {name: [] for name in graph.names}
    # each goes on from its own: where they part, the distance may grow
    for _ in range(num_steps):
        state, _ = bound.update(state)
        by_hand = hand_derived_step(by_hand, *args, **kwargs)
        if not isinstance(by_hand, Mapping):
            raise ValueError(
                f"hand_derived_step must return {{parameter: array}}, not {by_hand!r}."
            )
        if set(by_hand) != expected:
            raise ValueError(
                f"hand_derived_step must return exactly {sorted(expected)}, not {sorted(by_hand)}."
            )
        for name in differences:
            apart = np.abs(np.asarray(state.params[name]) - np.asarray(by_hand[name]))
            differences[name].append(float(np.max(apart, initial=0)))
    return Comparison(
        {name: np.asarray(each) for name, each in differences.items()},
        {name: np.asarray(value) for name, value in state.params.items()},
        {name: np.asarray(value) for name, value in by_hand.items()},
    )
