"""Derivatives in the free coordinates, in closed form, are those of automatic differentiation."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import biject_to, constraints

from emjax import EM
from emjax.certificates.charts import bijection_chart, simplex_chart
from emjax.certificates.derivatives import slopes_along
from emjax.certificates.estimate import Estimate
from emjax.certificates.tangent_space import TangentSpace
from emjax.families.limits import is_simplex
from emjax.program.records import Parameter

pytestmark = pytest.mark.usefixtures("mostly_by_numpy")
MATRICES = np.array([[[2.0, 0.3, 0.1], [0.3, 1.0, -0.2], [0.1, -0.2, 0.5]], np.zeros((3, 3))])
CASES = {
    "real": (constraints.real, [[1.0, -2.0]], [[False, False]]),
    "positive": (constraints.positive, [0.0, 2.5], [True, False]),
    "above": (constraints.greater_than(0.1), [0.7, 3.0], [False, False]),
    "below": (constraints.less_than(2.0), [0.7, -3.0], [False, False]),
    "between": (constraints.interval(-1.0, 3.0), [0.7, 2.9, 3.0], [False, False, True]),
    "simplices": (
        constraints.simplex,
        [[0.2, 0.0, 0.5, 0.3], [0.0, 1.0, 0.0, 0.0], [0.1, 0.3, 0.2, 0.4]],
        [[False, True, False, False], [True] * 4, [False] * 4],
    ),
    "triangles": (
        constraints.lower_cholesky,
        np.linalg.cholesky(MATRICES[:1]),
        np.zeros((1, 3, 3), bool),
    ),
    "matrices": (
        constraints.positive_definite,
        MATRICES,
        np.array([np.zeros((3, 3)), np.ones((3, 3))], bool),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_closed_forms_are_the_derivatives(name):
    constraint, value, boundary = CASES[name]
    value, boundary = np.asarray(value, float), np.asarray(boundary)
    parameter = Parameter("a", value.shape, value.dtype, constraint, False)
    chart = (simplex_chart if is_simplex(parameter.constraint) else bijection_chart)(
        parameter, boundary
    )
    slope = np.random.default_rng(0).normal(size=value.shape)

    @jax.jit
    def found(value):
        vector = chart.to_vector(value)
        bend = jax.hessian(lambda vector: jnp.vdot(slope, chart.to_value(vector, value)))(vector)
        return jax.jacfwd(lambda vector: chart.to_value(vector, value))(vector), bend

    rows, bend = found(value)
    tangents = chart.tangents(value)
    assert len(tangents.rows) == len(chart.names) > 0
    np.testing.assert_allclose(tangents.rows, np.moveaxis(rows, -1, 0), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(tangents.bend(slope), bend, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("constraint", [constraints.lower_cholesky, constraints.positive_definite])
def test_coordinates_of_matrices_are_those_of_numpyro(constraint):
    # of four rows: up to three, the entries below the diagonal have one order by rows and columns
    value = np.tri(4)[None] + np.arange(16.0).reshape(1, 4, 4) * np.tri(4) / 10
    if constraint is constraints.positive_definite:
        value = value @ np.swapaxes(value, -2, -1)
    parameter = Parameter("a", value.shape, value.dtype, constraint, False)
    chart, bijection = (
        bijection_chart(parameter, np.zeros(value.shape, bool)),
        biject_to(constraint),
    )

    @jax.jit
    def found(value):
        own, numpyros = chart.to_vector(value), bijection.inv(value)
        return (
            own,
            numpyros.reshape(-1),
            chart.to_value(own + 0.1, value),
            bijection(numpyros + 0.1),
        )

    own, numpyros, moved, moved_by_numpyro = found(value)
    np.testing.assert_allclose(own, numpyros, rtol=1e-14)
    np.testing.assert_allclose(moved, moved_by_numpyro, rtol=1e-14)


def test_other_coordinates_are_differentiated_by_jax():
    def program(x):
        loc = numpyro.param("loc", jnp.array([0.0, 3.0]), constraint=constraints.ordered_vector)
        scale = numpyro.param("scale", jnp.ones(2), constraint=constraints.softplus_positive)
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("z", dist.Categorical(jnp.array([0.4, 0.6])))
            numpyro.sample("x", dist.Normal(loc[z], scale[z]), obs=x)

    params = {"loc": np.array([-0.2, 2.5]), "scale": np.array([0.8, 1.3])}
    estimate = Estimate.of(EM(program).on(np.array([-0.5, 0.3, 2.0, 2.9, 4.1])), params)
    assert all(chart.tangents is None for chart in estimate.chart.charts.values())
    space = TangentSpace.of(estimate)
    slopes = estimate.function("slopes", slopes_along)(space.directions(estimate.params))

    def both(around):
        def objective(vector):
            return around.objective(around.at(vector))

        return jax.grad(objective)(around.vector), jax.hessian(objective)(around.vector)

    gradient, hessian = estimate.function("both", both)()
    np.testing.assert_allclose(space.gradient(slopes.first), gradient, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(
        space.second(slopes.change, slopes.first), hessian, rtol=1e-10, atol=1e-12
    )
