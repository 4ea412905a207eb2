"""Models that are linear in Gaussian latents by libraries: scikit-learn, dynamax."""

import warnings
from collections.abc import Callable

import numpy as np

from experiments.benchmarks.by_hand_states import repeated
from experiments.benchmarks.contestant import Fit, Run


def scikit_learn(svd_method: str) -> Callable[[dict, dict, dict], Run]:
    """Return the set-up of `sklearn.decomposition.FactorAnalysis`; its loadings have no start."""

    def setup(data: dict, start: dict, sizes: dict) -> Run:
        from sklearn.decomposition import FactorAnalysis
        from sklearn.exceptions import ConvergenceWarning

        warnings.simplefilter("ignore", ConvergenceWarning)
        points = data.pop("points")
        settings = {
            "tol": 0.0,
            "svd_method": svd_method,
            "noise_variance_init": start["scale"] ** 2,
        }

        def run(num_steps: int) -> Fit:
            model = FactorAnalysis(sizes["num_factors"], max_iter=num_steps, **settings)
            model.fit(points)
            scale = np.sqrt(model.noise_variance_)
            params = {"loc": model.mean_, "loadings": model.components_.T, "scale": scale}
            return Fit(params, model.n_iter_)

        return run

    return setup


def dynamax_model(start: dict) -> tuple:
    """Return dynamax's model without biases, its parameters at the start, and their properties."""
    import jax
    import jax.numpy as jnp
    from dynamax.linear_gaussian_ssm import LinearGaussianSSM

    num_features, num_states = start["emission"].shape
    model = LinearGaussianSSM(
        num_states, num_features, has_dynamics_bias=False, has_emissions_bias=False
    )
    given = {
        "initial_mean": start["initial_loc"],
        "initial_covariance": start["initial_covariance"],
        "dynamics_weights": start["transition"],
        "dynamics_covariance": start["transition_covariance"],
        "emission_weights": start["emission"],
        "emission_covariance": start["emission_covariance"],
    }
    given = {name: jnp.asarray(value) for name, value in given.items()}
    return model, *model.initialize(jax.random.key(0), **given)


def dynamax(data: dict, start: dict, sizes: dict) -> Run:
    """Return the run of dynamax's E-step and M-step in a compiled loop."""
    import jax
    import jax.numpy as jnp

    model, params, properties = dynamax_model(start)
    points = jnp.asarray(data.pop("points"))

    def step(params, points):
        statistics, _ = jax.vmap(lambda series: model.e_step(params, series))(points[None])
        nothing = model.initialize_m_step_state(params, properties)
        return model.m_step(params, properties, statistics, nothing)[0]

    @jax.jit
    def loop(params, points, num_steps):
        return jax.lax.fori_loop(0, num_steps, lambda _, params: step(params, points), params)

    def run(num_steps: int) -> Fit:
        found = loop(params, points, num_steps)
        after = {
            "initial_loc": found.initial.mean,
            "initial_covariance": found.initial.cov,
            "transition": found.dynamics.weights,
            "transition_covariance": found.dynamics.cov,
            "emission": found.emissions.weights,
            "emission_covariance": found.emissions.cov,
        }
        return Fit({name: np.asarray(value) for name, value in after.items()}, num_steps)

    return run


def dynamax_e_step(data: dict, start: dict, sizes: dict) -> Run:
    """Return the run of dynamax's filter and smoother."""
    import jax.numpy as jnp

    model, params, _ = dynamax_model(start)

    def e_step(params, points):
        found = model.smoother(params, points)
        moments = found.smoothed_means, found.smoothed_covariances, found.smoothed_cross_covariances
        return found.marginal_loglik, moments

    return repeated(e_step, params, jnp.asarray(data.pop("points")))


SETUPS = {
    "scikit-learn, lapack": {"factor_analysis": scikit_learn("lapack")},
    "scikit-learn, randomized": {"factor_analysis": scikit_learn("randomized")},
    "dynamax": {
        "linear_state_space": dynamax,
        "linear_state_space_e_step": dynamax_e_step,
    },
}
