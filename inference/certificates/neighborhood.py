"""A program around given parameters, as functions of the free coordinates, with derivatives.

They are the objective, the E-step and the M-step. The E-step is the plain one, in logarithms, which
has derivatives of every order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from emjax.certificates.coordinates import Coordinates
from emjax.e_step.e_step import e_step, log_partition_of
from emjax.m_step.maximizer import Maximizer
from emjax.m_step.objective import expected_log_likelihood
from emjax.run.pure import PureProgram


@dataclass(frozen=True, eq=False)
class Neighborhood:
    """A program around given parameters; its methods are pure.

    - `pure`: the program.
    - `chart`: the free coordinates.
    - `params`: the parameters; what is not free stays as it is there.
    - `constants`: what depends on the data alone.
    """

    pure: PureProgram
    chart: Coordinates
    params: Mapping[str, Any]
    constants: Sequence

    @property
    def vector(self) -> Float[Array, "coordinate"]:
        """The coordinates of `params`."""
        return self.chart.flatten(self.params)

    def arrays(self, vector: Any) -> Any:
        """Return the arrays that the factor graph reads at coordinates."""
        params = self.chart.unflatten(vector, self.params)
        return self.pure.graph.arrays(params, self.constants)

    def objective(self, vector: Any) -> Float[Array, ""]:
        """Return log p(x | θ) + log p(θ) in nats, every latent summed out."""
        return log_partition_of(self.pure.graph, self.arrays(vector))

    def statistics(self, vector: Any) -> list:
        """Return the expected statistics."""
        # plain: fast E-steps promise no derivatives of higher order
        return e_step(self.pure.graph, self.arrays(vector), plain=True).statistics

    def expected_log_likelihood(self, vector: Any, statistics: Sequence) -> Float[Array, ""]:
        """Return Q(θ) in nats, up to what does not depend on θ."""
        params = self.chart.unflatten(vector, self.params)
        return expected_log_likelihood(self.pure.graph, params, self.constants, statistics)

    def m_step(self, vector: Any, statistics: Sequence) -> Float[Array, "coordinate"]:
        """Return the coordinates after an M-step, every maximizer in turn."""
        params = self.chart.unflatten(vector, self.params)
        for maximizer in self.pure.maximizers:
            # differentiated as they are, iterations would have derivatives that the maximum has not
            if maximizer.is_iterated:
                values = self._maximum(maximizer, params, statistics)
            else:
                state = maximizer.init(params)
                values, _ = maximizer.update(params, state, self.constants, statistics)
            params = params | values
        return self.chart.flatten(params)

    def em_step(self, vector: Any) -> Float[Array, "coordinate"]:
        """Return the coordinates after an EM step."""
        return self.m_step(vector, self.statistics(vector))

    def _maximum(self, maximizer: Maximizer, params: dict, statistics: Sequence) -> dict:
        """Return what an iterated maximizer does, differentiated as the maximum that it reaches.

        The way there has derivatives, too, but not those of the maximum. Where ∇Q(u; s) = 0, the
        implicit function theorem says du = (−∇²Q)⁻¹ d∇Q(u; s): the derivative of one Newton step
        from the maximum.
        """
        held_params, held_statistics = jax.lax.stop_gradient((params, statistics))
        state = maximizer.init(held_params)
        maximum, _ = maximizer.update(held_params, state, self.constants, held_statistics)
        chart = self.chart.only(maximizer.names)

        def objective(vector, params, statistics):
            here = replace(self, chart=chart, params=params | maximum)
            return here.expected_log_likelihood(vector, statistics)

        vector = jax.lax.stop_gradient(chart.flatten(maximum))
        hessian = jax.hessian(objective)(vector, held_params, held_statistics)
        curvature = jax.lax.stop_gradient(-hessian)
        slope = jax.grad(objective)(vector, params, statistics)
        # a pseudo-inverse, since along a ridge the curvature is zero, and no step is taken
        newton_step = jnp.linalg.pinv(curvature, hermitian=True) @ slope
        moved = chart.unflatten(vector + newton_step, params | maximum)
        return {name: moved[name] for name in maximizer.names}
