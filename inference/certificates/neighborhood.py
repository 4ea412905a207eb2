"""A program around given parameters, as functions of those that are estimated, with derivatives.

They are the objective, the E-step and the M-step. The E-step is the plain one, in logarithms, which
has derivatives of every order. Derivatives are taken by the parameters themselves and brought to
the free coordinates afterwards: through the coordinates, each would be compiled with these.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from emjax.certificates.coordinates import Coordinates
from emjax.e_step.e_step import e_step, log_partition_of
from emjax.e_step.instance import instance_of
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

    @property
    def estimated(self) -> dict[str, Any]:
        """Those of `params` that have coordinates; what follows are functions of such."""
        return self._estimated(self.params)

    def at(self, vector: Any) -> dict[str, Any]:
        """Return the estimated parameters at coordinates."""
        return self._estimated(self.chart.unflatten(vector, self.params))

    def objective(self, estimated: Mapping) -> Float[Array, ""]:
        """Return log p(x | θ) + log p(θ) in nats, every latent summed out."""
        return log_partition_of(self.pure.graph, self._arrays(estimated))

    def tables(self, estimated: Mapping) -> list:
        """Return the natural-parameter tables of all terms."""
        return instance_of(self.pure.graph, self._arrays(estimated)).tables

    def statistics(self, tables: Sequence) -> list:
        """Return the expected statistics at natural-parameter tables."""
        arrays = self._arrays(self.estimated)
        # plain: fast E-steps promise no derivatives of higher order
        return e_step(self.pure.graph, arrays, tables=tables, plain=True).statistics

    def expected_log_likelihood(self, estimated: Mapping, statistics: Sequence) -> Float[Array, ""]:
        """Return Q(θ) in nats, up to what does not depend on θ."""
        params = {**self.params, **estimated}
        return expected_log_likelihood(self.pure.graph, params, self.constants, statistics)

    def slopes_of_q(self, estimated: Mapping, statistics: Sequence) -> dict[str, Any]:
        """Return the derivatives of Q by the estimated parameters, the statistics held."""
        return jax.grad(self.expected_log_likelihood)(estimated, statistics)

    def m_step(self, estimated: Mapping, statistics: Sequence) -> dict[str, Any]:
        """Return the estimated parameters after an M-step, every maximizer in turn."""
        params = {**self.params, **estimated}
        for maximizer in self.pure.maximizers:
            # differentiated as they are, iterations would have derivatives that the maximum has not
            if maximizer.is_iterated:
                values = self._maximum(maximizer, params, statistics)
            else:
                state = maximizer.init(params)
                values, _ = maximizer.update(params, state, self.constants, statistics)
            params = params | values
        return self._estimated(params)

    def step_along(self, statistics: Sequence) -> Callable:
        """Return the linear map of (a change of the parameters, of the statistics) that is how the
        coordinates after an M-step change.
        """
        after, along = jax.linearize(self.m_step, self.estimated, statistics)
        _, flat_along = jax.linearize(
            lambda there: self.chart.flatten({**self.params, **there}), after
        )
        return lambda *change: flat_along(along(*change))

    def em_step(self, estimated: Mapping) -> dict[str, Any]:
        """Return the estimated parameters after an EM step."""
        return self.m_step(estimated, self.statistics(self.tables(estimated)))

    def _arrays(self, estimated: Mapping) -> Any:
        """Return the arrays that the factor graph reads."""
        return self.pure.graph.arrays({**self.params, **estimated}, self.constants)

    def _estimated(self, params: Mapping) -> dict[str, Any]:
        return {name: params[name] for name in self.chart.charts}

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
            there = chart.unflatten(vector, params | maximum)
            return self.expected_log_likelihood(there, statistics)

        vector = jax.lax.stop_gradient(chart.flatten(maximum))
        hessian = jax.hessian(objective)(vector, held_params, held_statistics)
        curvature = jax.lax.stop_gradient(-hessian)
        slope = jax.grad(objective)(vector, params, statistics)
        # a pseudo-inverse, since along a ridge the curvature is zero, and no step is taken
        newton_step = jnp.linalg.pinv(curvature, hermitian=True) @ slope
        moved = chart.unflatten(vector + newton_step, params | maximum)
        return {name: moved[name] for name in maximizer.names}
