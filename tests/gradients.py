"""Whether runs that say that they have converged have: the derivative of Q where they ended.

By Fisher's identity it is that of the objective. It is taken of all parameters together, those with
a closed form, too, and in coordinates of NumPyro's, so that no maximizer is asked what it did.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from numpyro.distributions import biject_to

from emjax.e_step.e_step import e_step
from emjax.m_step.m_step import estimated
from emjax.m_step.objective import expected_log_likelihood
from emjax.run.runner import Runner
from emjax.run.state import Status

# a step along the derivative may gain this many times what the tolerance allows: EM's own steps
# look in other directions
SLACK = 100.0
# what is lost in the sums of an objective, in units in its last place
ROUNDING = 1000.0


class Ended:
    """Runs that said that they have converged, each asked once."""

    def __init__(self):
        self.kept, self.runs, self.functions = Runner._result, [], {}

    def watch(self, patch):
        """Remember the runs from here on."""

        def result(runner, start, end):
            found = self.kept(runner, start, end)
            if found.status == Status.CONVERGED:
                self.runs.append((runner, found))
            return found

        patch.setattr(Runner, "_result", result)

    def check(self) -> int:
        """Raise `AssertionError` for a run that had more to gain; return how many had not."""
        for runner, found in self.runs:
            gained, size = self._gain(runner, found)
            allowed = SLACK * float(runner.settings.tol) + ROUNDING * np.finfo(size.dtype).eps
            assert gained <= allowed * size, (
                f"'converged', and a step along the derivative gains {gained:.3g} nats of an "
                f"objective of {size:.6g}: {runner.compiled.graph.names}"
            )
        return len(self.runs)

    def _gain(self, runner, found):
        pure = runner.compiled.pure
        constants = runner.compiled.prepare(runner.data)
        function = self.functions.setdefault(id(pure), (jax.jit(partial(_gain, pure)), pure))[0]
        params = {name: jnp.asarray(value) for name, value in found.params.items()}
        gained, q = jax.device_get(function(params, constants))
        return gained, 1 + np.maximum(np.abs(found.objective[-1]), np.abs(q))


def _gain(pure, params, constants):
    """Return what a step along the derivative of one parameter gains at most, and Q."""
    graph = pure.graph
    statistics = e_step(graph, graph.arrays(params, constants), pure.loop.temperature).statistics

    def q(values):
        return expected_log_likelihood(graph, {**params, **values}, constants, statistics)

    gains = [jnp.zeros(())]
    for name in estimated(pure.maximizers):
        bijection = biject_to(graph.parameters[name].constraint)
        start = bijection.inv(params[name])
        flat, unflatten = ravel_pytree(start)

        def along(vector, name=name, unflatten=unflatten, bijection=bijection):
            return q({name: bijection(unflatten(vector)).astype(params[name].dtype)})

        gradient = jax.grad(along)(flat)
        # a second derivative along it by differences, since a loop has none
        width = 1e-5 * (1 + jnp.abs(flat).max()) / jnp.maximum(jnp.linalg.norm(gradient), 1e-30)
        ahead, behind = (along(flat + sign * width * gradient) for sign in (1, -1))
        curvature = (2 * along(flat) - ahead - behind) / width**2
        length = gradient @ gradient / jnp.maximum(jnp.abs(curvature), 1e-30)
        # the gain that is promised is not had at a kink, nor a derivative that is not finite asked
        for part in (1.0, 0.3, 0.1, 0.01):
            gain = along(flat + part * length * gradient) - along(flat)
            gains.append(jnp.where(jnp.isfinite(gain), gain, 0))
    return jnp.stack(gains).max(), q({})
