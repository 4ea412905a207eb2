"""Compare EM with an update derived by hand, step by step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from emjax.em import EM


class Comparison(eqx.Module):
    """How far two updates part from the same start.

    **Attributes:**

    - `differences`: {parameter: the largest absolute difference after each step 1 … num_steps}.
    - `params`, `hand_derived`: where each ended.
    """

    differences: dict[str, Float[np.ndarray, "step"]]
    params: dict[str, Any]
    hand_derived: dict[str, Any]

    @property
    def largest(self) -> float:
        """The largest absolute difference of any parameter after any step (NaN if there is one)."""
        return float(
            np.max([np.max(d, initial=0.0) for d in self.differences.values()], initial=0.0)
        )

    def __str__(self) -> str:
        names = list(self.differences)
        num_steps = len(next(iter(self.differences.values()), ()))
        shown = sorted(
            {1, 2, 3, 5, 10, 20, 50, 100, 200, 500, num_steps} & set(range(1, num_steps + 1))
        )
        width = [max(len(name), 9) for name in names]
        lines = [
            "largest absolute difference between EM and the update derived by hand",
            "  step  " + "  ".join(f"{name:>{w}}" for name, w in zip(names, width, strict=True)),
        ]
        for step in shown:
            cells = (
                f"{self.differences[name][step - 1]:>{w}.1e}"
                for name, w in zip(names, width, strict=True)
            )
            lines.append(f"{step:>6}  " + "  ".join(cells))
        return "\n".join([*lines, self._verdict()])

    def _verdict(self) -> str:
        scale = {
            name: 1 + float(np.max(np.abs(np.asarray(v)), initial=0))
            for name, v in self.hand_derived.items()
        }
        dtype = max(
            (np.asarray(v).dtype for v in self.params.values()),
            key=lambda d: d.itemsize,
            default=np.dtype(float),
        )
        threshold = 1e-10 if dtype.itemsize >= 8 else 1e-4
        for step in range(len(next(iter(self.differences.values()), ()))):
            for name, d in self.differences.items():
                if not d[step] <= threshold * scale[name]:
                    return f"they part at step {step + 1}, in '{name}' (by {d[step]:.1e})"
        return f"they agree: no difference above {threshold:g} relative to the parameters"


def compare_updates(
    em: EM,
    hand_derived_step: Callable,
    params: Mapping[str, Any],
    *args: Any,
    num_steps: int = 50,
    **kwargs: Any,
) -> Comparison:
    """Run EM and an update derived by hand from the same start, and return where they part.

    `hand_derived_step(params, *args, **kwargs)` takes and returns {parameter: array}; it gets the
    model's own arguments. Errors: `ValueError` if its parameters are not the program's.
    """
    bound = em.on(*args, **kwargs)
    compiled = bound.compiled
    expected = set(compiled.graph.names)
    by_hand = {name: np.asarray(value) for name, value in params.items()}
    if set(by_hand) != expected:
        raise ValueError(
            f"params must have exactly the program's parameters {sorted(expected)}, not "
            f"{sorted(by_hand)}."
        )
    state = compiled.pure.loop.state(
        {
            name: jnp.asarray(by_hand[name], compiled.graph.parameters[name].dtype)
            for name in compiled.graph.names
        }
    )
    differences: dict[str, list[float]] = {name: [] for name in compiled.graph.names}
    for _ in range(num_steps):
        state, _ = bound.update(state)
        by_hand = hand_derived_step(by_hand, *args, **kwargs)
        if set(by_hand) != expected:
            raise ValueError(
                f"hand_derived_step must return exactly {sorted(expected)}, not {sorted(by_hand)}."
            )
        for name in differences:
            differences[name].append(
                float(
                    np.max(
                        np.abs(np.asarray(state.params[name]) - np.asarray(by_hand[name])),
                        initial=0,
                    )
                )
            )
    return Comparison(
        {name: np.asarray(d) for name, d in differences.items()},
        {name: np.asarray(v) for name, v in state.params.items()},
        {name: np.asarray(v) for name, v in by_hand.items()},
    )
