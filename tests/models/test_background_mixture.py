"""A mixture with a background: the update on paper, and what it is for."""

import jax
import numpy as np

import emjax
from emjax import EM
from emjax.models import background_mixture, gaussian_mixture

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
POINTS = np.concatenate(
    [RNG.normal(0, 1, (60, 2)), RNG.normal(6, 0.7, (40, 2)), RNG.uniform(-12, 15, (20, 2))]
)
TRUTH = np.repeat([0, 1, 2], [60, 40, 20])
START = {
    "weights": np.array([0.3, 0.4, 0.3]),
    "loc": np.array([[1.0, 0.0], [4.0, 5.0]]),
    "covariance": np.array([[[2.0, 0.3], [0.3, 1.0]], [[3.0, 0.0], [0.0, 2.0]]]),
}


def test_steps_are_those_on_paper():
    em, step = EM(background_mixture.program), background_mixture.hand_derived_step
    assert emjax.compare_updates(em, step, START, POINTS, 2, num_steps=10).largest <= 1e-10
    assert {parameter.method for parameter in em.plan(POINTS, 2).parameters} == {"closed form"}


def test_background_takes_what_no_cloud_explains():
    fit = EM(background_mixture.program).run(KEY, POINTS, 2)
    assert (fit.status, fit.findings) == (emjax.Status.CONVERGED, ())
    modal = np.asarray(fit.posterior()["component"]).argmax(1)
    assert (modal[TRUTH == 2] == 2).mean() >= 0.9
    for cloud in (0, 1):
        is_of_cloud = np.equal(TRUTH, cloud)
        numbers, counts = np.unique(modal[is_of_cloud], return_counts=True)
        assert numbers[counts.argmax()] != 2
        assert counts.max() >= 0.9 * is_of_cloud.sum()
    # without it, a cloud has to be as wide as the box
    plain = EM(gaussian_mixture.program).run(KEY, POINTS, 2)
    assert np.asarray(fit.params["covariance"]).max() < 2.5
    assert np.asarray(plain.params["covariance"]).max() > 20
