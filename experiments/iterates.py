"""The parameters that EM passes through."""

import dataclasses
from collections.abc import Callable, Mapping
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from emjax import EM, EMState

Params = dict[str, np.ndarray]


def iterates(em: EM, start: Mapping, *args, num_steps: int) -> tuple[list[Params], np.ndarray]:
    """Return θ_0 = `start`, θ_1, …, θ_num_steps, and the objective in nats at all but the last."""
    params = {name: jnp.asarray(value) for name, value in start.items()}
    state = dataclasses.replace(em.init(jax.random.key(0), *args), params=params)
    sizes = tuple(arg if isinstance(arg, int) else None for arg in args)
    data = [arg for arg in args if not isinstance(arg, int)]
    path, objectives = [as_numpy(state.params)], []
    for _ in range(num_steps):
        state, objective = compiled_update(em, sizes)(state, *data)
        path.append(as_numpy(state.params))
        objectives.append(float(objective))
    return path, np.array(objectives)


@cache
def compiled_update(em: EM, sizes: tuple[int | None, ...]) -> Callable:
    """Return `em.update`, compiled once.

    `sizes` are its whole-number arguments, and None where data go.
    """

    def update(state: EMState, *data: jax.Array) -> tuple[EMState, jax.Array]:
        rest = iter(data)
        return em.update(state, *(next(rest) if size is None else size for size in sizes))

    return jax.jit(update)


def as_numpy(params: Mapping) -> Params:
    """Return the parameters as NumPy arrays."""
    return {name: np.asarray(value) for name, value in params.items()}
