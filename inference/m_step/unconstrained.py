"""Parameters as one vector of unconstrained coordinates, by NumPyro's bijections.

Maximizers climb in them, and so do the leaps and the polish of `run/`. A value on the boundary has
none and stays; `certificates/coordinates.py` parts what is free from what is on the boundary, entry
by entry, which takes values that are known and not traced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array
from jax.flatten_util import ravel_pytree
from numpyro.distributions import biject_to

from emjax.program.records import Parameter


@dataclass(frozen=True, eq=False)
class Unconstrained:
    """The unconstrained coordinates of some parameters, in the order of `names`."""

    parameters: Mapping[str, Parameter]
    names: Sequence[str]

    @property
    def exist(self) -> bool:
        """Whether there are any: NumPyro has no bijection for a user's own constraint."""
        try:
            return all(self._bijection(name) is not None for name in self.names)
        except NotImplementedError:
            return False

    def inverse(self, params: Mapping[str, Any]) -> dict[str, Array]:
        """Return the coordinates by parameter; those of a value on the boundary are not finite."""
        return {name: self._bijection(name).inv(params[name]) for name in self.names}

    # traced: whether a value is on the boundary is not known when the program is compiled
    def around(self, params: Mapping[str, Any]) -> tuple[Array, Callable]:
        """Return the vector at params, and the way back: vector → {name: value}.

        A parameter with coordinates that are not finite has zeros in the vector, and stays where it
        is on the way back.
        """
        coordinates = self.inverse(params)
        is_inside = {name: jnp.isfinite(u).all() for name, u in coordinates.items()}
        flat, unflatten = ravel_pytree(
            {name: jnp.where(is_inside[name], u, 0) for name, u in coordinates.items()}
        )

        def back(vector):
            values = {}
            for name, u in unflatten(vector).items():
                value = self._bijection(name)(u).astype(params[name].dtype)
                values[name] = jnp.where(is_inside[name], value, params[name])
            return {name: values[name] for name in self.names}

        return flat, back

    def _bijection(self, name: str):
        return biject_to(self.parameters[name].constraint)
