"""Where automatic differentiation has no second derivative, differences of the first have one."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints
from numpyro.distributions.util import clamp_probs

from emjax import EM, standard_errors

RNG = np.random.default_rng(0)
OCCUPIED = RNG.random(60) < 0.6
SEEN = ((RNG.random((60, 4)) < 0.4) & OCCUPIED[:, None]).astype(float)


def occupancy(seen, detected):
    """Sites that are occupied, or not, and detections: never where they are not."""
    psi = numpyro.param("psi", 0.5, constraint=constraints.unit_interval)
    rho = numpyro.param("rho", 0.5, constraint=constraints.unit_interval)
    with numpyro.plate("sites", len(seen), dim=-2):
        z = numpyro.sample("z", dist.Bernoulli(psi))
        with numpyro.plate("visits", 4, dim=-1):
            numpyro.sample("seen", dist.Bernoulli(detected(rho, z)), obs=seen)


def by_choice(rho, z):
    return jnp.where(z == 1, rho, 0.0)


def by_clamp(rho, z):
    # log p of the smallest p has a second derivative of minus infinity, and the clamp's is zero
    return clamp_probs(rho * z)


def test_a_clamp_at_its_bound_is_diagnosed_as_what_it_computes():
    exact, clamped = EM(occupancy), EM(occupancy)
    result = exact.run(jax.random.key(0), SEEN, by_choice)
    expected = exact.diagnose(result, SEEN, by_choice)
    found = clamped.diagnose(result.params, SEEN, by_clamp)
    assert found.is_local_maximum and expected.is_local_maximum
    np.testing.assert_allclose(found.objective, -99.0772, atol=1e-4)
    np.testing.assert_allclose(found.eigenvalues, expected.eigenvalues, rtol=1e-6)
    np.testing.assert_allclose(found.rate, expected.rate, atol=1e-4)
    errors = standard_errors(exact, result, SEEN, by_choice).standard_error
    for name, error in standard_errors(
        clamped, result.params, SEEN, by_clamp
    ).standard_error.items():
        np.testing.assert_allclose(error, errors[name], rtol=1e-6)
