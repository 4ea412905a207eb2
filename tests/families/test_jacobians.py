"""log |dθ/du| of unconstrained coordinates is that of NumPyro's bijections."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.distributions import biject_to, constraints

from emjax import conjugate
from emjax.families.jacobians import log_jacobian
from emjax.numerics.guards import LOG_ZERO

CONSTRAINTS = {
    "positive": constraints.positive,
    "unit interval": constraints.unit_interval,
    "interval": constraints.interval(-2.0, 5.0),
    "bounds by entry": constraints.interval(np.array([-1.0, 0.0, 2.0]), np.array([1.0, 5.0, 9.0])),
    "greater than": constraints.greater_than(3.0),
    "less than": constraints.less_than(-1.0),
    "softplus": constraints.softplus_positive,
    "simplex": constraints.simplex,
    "ordered": constraints.ordered_vector,
    "covariance": constraints.positive_definite,
    "Cholesky factor": constraints.lower_cholesky,
    "correlation": constraints.corr_cholesky,
}


@pytest.mark.sampled
@pytest.mark.parametrize("name", CONSTRAINTS)
def test_log_jacobian_is_that_of_the_bijection(name):
    bijection = biject_to(CONSTRAINTS[name])
    u = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3)))
    value = bijection(u)
    event = value.ndim - bijection.log_abs_det_jacobian(u, value).ndim
    np.testing.assert_allclose(
        log_jacobian(CONSTRAINTS[name], value, event),
        bijection.log_abs_det_jacobian(u, value),
        rtol=1e-12,
    )


def test_log_jacobian_is_zero_probability_at_a_bound():
    value = jnp.array([0.0, 0.5, 1.0])
    at_bounds = log_jacobian(constraints.unit_interval, value, 0)
    np.testing.assert_allclose(at_bounds, [LOG_ZERO, np.log(0.25), LOG_ZERO])
    assert log_jacobian(constraints.simplex, value[:2], 1) <= LOG_ZERO


SHAPES = [
    (conjugate.UNIT_INTERVAL, constraints.unit_interval),
    (conjugate.UNIT_INTERVAL, constraints.interval(0.0, 1.0)),
    (conjugate.SIMPLEX, constraints.simplex),
    (conjugate.RATE, constraints.positive),
    (conjugate.SCALE, constraints.nonnegative),
    (conjugate.LOCATION, constraints.real),
]


@pytest.mark.parametrize(("shape", "constraint"), SHAPES)
def test_jacobian_of_a_shape_is_linear_in_its_features(shape, constraint):
    assert shape.jacobian_problem(constraint) == ""
    if shape.jacobian is not None:
        u = jax.random.normal(jax.random.key(0), (4, 2))
        value = biject_to(constraint)(u)
        along = shape.jacobian.along(shape.features(value))
        # up to a constant
        difference = along - log_jacobian(constraint, value, shape.event_dim)
        np.testing.assert_allclose(difference, difference.ravel()[0], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("shape", "constraint"),
    [
        (conjugate.RATE, constraints.softplus_positive),
        (conjugate.UNIT_INTERVAL, constraints.interval(0.0, 0.5)),
        (conjugate.LOCATION, constraints.interval(0.0, 1.0)),
        (conjugate.COVARIANCE, constraints.positive_definite),
    ],
)
def test_jacobian_of_another_constraint_leaves_no_closed_form(shape, constraint):
    assert f"is not linear in a {shape.name}" in shape.jacobian_problem(constraint)
