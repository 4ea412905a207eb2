"""The parameters that EM passes through."""

from collections.abc import Mapping

import jax
import numpy as np

from emjax import EM

Params = dict[str, np.ndarray]


def iterates(em: EM, start: Mapping, *args, num_steps: int) -> tuple[list[Params], np.ndarray]:
    """Return θ_0 = `start`, θ_1, …, θ_num_steps, and the objective in nats at all of them but the last."""
    state = em.init(jax.random.key(0), *args, init_params=start)
    path, objectives = [as_numpy(state.params)], []
    for _ in range(num_steps):
        state, objective = em.update(state, *args)
        path.append(as_numpy(state.params))
        objectives.append(float(objective))
    return path, np.array(objectives)


def as_numpy(params: Mapping) -> Params:
    """Return the parameters as NumPy arrays."""
    return {name: np.asarray(value) for name, value in params.items()}
