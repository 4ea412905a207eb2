"""The same start, the same parameters: EM beside scikit-learn on the data that it ships.

scikit-learn's `spherical` variance is the mean of a component's variances over features, as in
`gaussian_mixture` (9). Its `reg_covar` is added to every variance, so that the result maximizes no
likelihood; here it is 0 throughout, and a floor of the program is one that is stated and never
reached.
"""

import warnings
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.datasets import load_digits, load_iris
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from emjax import EM
from emjax.models import gaussian_mixture, k_means

STEPS = (1, 5, 20)
SKLEARN_NAME = {"full": "full", "tied": "tied", "diagonal": "diag", "spherical": "spherical"}


@pytest.fixture(autouse=True, scope="module")
def free_compiled_programs():
    yield
    jax.clear_caches()


def iris():
    return load_iris().data


def dithered_digits():
    """Return the digits, each pixel drawn uniformly from the interval that was rounded to it.

    Many pixels are constant within a digit, where no variance is positive and scikit-learn stops
    with an error.
    """
    data = load_digits().data
    return data + np.random.default_rng(30).uniform(-0.5, 0.5, data.shape)


def start_of(data, num_components, covariance):
    """Return equal weights, means at rows of the data, and everyone's spread."""
    shared = np.cov(data, rowvar=False, bias=True)
    spread = {
        "full": ("covariance", np.tile(shared, (num_components, 1, 1))),
        "tied": ("covariance", shared),
        "diagonal": ("scale", np.tile(data.std(axis=0), (num_components, 1))),
        "spherical": ("scale", np.full(num_components, np.sqrt(data.var(axis=0).mean()))),
    }
    rows = np.linspace(0, len(data) - 1, num_components).astype(int)
    name, value = spread[covariance]
    return {"weights": np.full(num_components, 1 / num_components), "loc": data[rows], name: value}


def trajectory(em, params, *args):
    """Return the parameters after each of the steps 1 … 20."""
    state = em.init(jax.random.key(0), *args)
    state = replace(state, params={name: jnp.asarray(value) for name, value in params.items()})
    update = jax.jit(lambda state: em.update(state, *args)[0])
    found = []
    for _ in range(max(STEPS)):
        state = update(state)
        found.append({name: np.asarray(value) for name, value in state.params.items()})
    return found


def sklearn_mixture(data, start, covariance, num_steps):
    """Return scikit-learn's parameters after so many steps, in the words of `gaussian_mixture`."""
    precisions = (
        np.linalg.inv(start["covariance"]) if "covariance" in start else start["scale"] ** -2.0
    )
    mixture = GaussianMixture(
        len(start["loc"]),
        covariance_type=SKLEARN_NAME[covariance],
        reg_covar=0.0,
        tol=0.0,
        max_iter=num_steps,
        weights_init=start["weights"],
        means_init=start["loc"],
        precisions_init=precisions,
        init_params="random",
        random_state=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # as asked for
        mixture.fit(data)
    spread = (
        {"covariance": mixture.covariances_}
        if "covariance" in start
        else {"scale": np.sqrt(mixture.covariances_)}
    )
    return {"weights": mixture.weights_, "loc": mixture.means_, **spread}


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("load", "num_components", "covariance", "scale_floor"),
    [
        (iris, 3, "full", 0.0),
        (iris, 3, "tied", 0.0),
        (iris, 3, "diagonal", 0.0),
        (iris, 3, "spherical", 0.0),
        (dithered_digits, 10, "diagonal", 0.05),
    ],
)
def test_a_gaussian_mixture_is_that_of_scikit_learn(load, num_components, covariance, scale_floor):
    data = load()
    start = start_of(data, num_components, covariance)
    found = trajectory(
        EM(gaussian_mixture.program), start, data, num_components, covariance, scale_floor
    )
    for num_steps in STEPS:
        expected = sklearn_mixture(data, start, covariance, num_steps)
        for name, value in expected.items():
            np.testing.assert_allclose(
                found[num_steps - 1][name],
                value,
                rtol=1e-8,
                atol=1e-8,
                err_msg=f"{name}, {num_steps}",
            )
        if scale_floor:
            assert expected["scale"].min() > scale_floor
    assert max(np.abs(found[-1]["loc"] - start["loc"]).max() for _ in STEPS) > 0.1


@pytest.mark.parametrize(
    ("load", "num_components"),
    [(iris, 3), (lambda: load_digits().data, 10)],
    ids=["iris", "digits"],
)
def test_hard_em_is_scikit_learns_k_means(load, num_components):
    data = load()
    start = {"loc": data[np.linspace(0, len(data) - 1, num_components).astype(int)]}
    em = EM(k_means.program, e_step="hard")
    found = trajectory(em, start, data, num_components)
    for num_steps in STEPS:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            clusters = KMeans(
                num_components,
                init=start["loc"],
                n_init=1,
                max_iter=num_steps,
                tol=0.0,
                algorithm="lloyd",
            ).fit(data)
        np.testing.assert_allclose(
            found[num_steps - 1]["loc"], clusters.cluster_centers_, rtol=1e-8, atol=1e-8
        )
    labels = em.decode({"loc": jnp.asarray(clusters.cluster_centers_)}, data, num_components)[
        "component"
    ]
    np.testing.assert_array_equal(labels, clusters.labels_)
