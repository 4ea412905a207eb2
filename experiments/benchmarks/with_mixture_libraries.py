"""Gaussian mixtures by libraries: scikit-learn, gmmx, pomegranate.

Priors and floors are off, and the start is given.
"""

import warnings
from collections.abc import Callable

import numpy as np

from experiments.benchmarks.contestant import Fit, LeftOut, Run
from experiments.benchmarks.likelihood import gaussian


def scikit_learn(covariance: str) -> Callable[[dict, dict, dict], Run]:
    """Return the set-up of `sklearn.mixture.GaussianMixture`; points on the line are a column."""

    def setup(data: dict, start: dict, sizes: dict) -> Run:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture

        warnings.simplefilter("ignore", ConvergenceWarning)
        points = data.pop("points")
        column = points.reshape(len(points), -1)
        if covariance == "full":
            precisions = np.linalg.inv(start["covariance"])
        else:
            precisions = 1 / start["scale"] ** 2
        settings = {
            "n_components": sizes["num_components"],
            "covariance_type": covariance,
            "tol": 0.0,
            "reg_covar": 0.0,
            "weights_init": start["weights"] / start["weights"].sum(),
            "means_init": start["loc"].reshape(len(start["loc"]), -1),
            "precisions_init": precisions,
        }

        def run(num_steps: int) -> Fit:
            fitted = GaussianMixture(max_iter=num_steps, **settings).fit(column)
            loc = fitted.means_.reshape(start["loc"].shape)
            spread = fitted.covariances_ if covariance == "full" else np.sqrt(fitted.covariances_)
            name = "covariance" if covariance == "full" else "scale"
            return Fit({"weights": fitted.weights_, "loc": loc, name: spread}, fitted.n_iter_)

        return run

    return setup


def scikit_learn_restarts(data: dict, start: dict, sizes: dict) -> Run:
    """Return the run of the same from several starts, one after another, as its `n_init` does."""
    runs = []
    for loc in start["loc"]:
        runs.append(scikit_learn("full")(dict(data), start | {"loc": loc}, sizes))

    def run(num_steps: int) -> Fit:
        fits = [of_start(num_steps) for of_start in runs]
        heights = [gaussian(fit.params, data) for fit in fits] if num_steps else [0.0]
        return fits[int(np.argmax(heights))]

    return run


def gmmx(covariance: str) -> Callable[[dict, dict, dict], Run]:
    """Return the set-up of `gmmx.EMFitter`.

    Points on the line have a full covariance of size one.
    """

    def setup(data: dict, start: dict, sizes: dict) -> Run:
        import jax.numpy as jnp
        from gmmx import EMFitter, GaussianMixtureModelJax

        points = data.pop("points")
        column = jnp.asarray(points.reshape(len(points), -1))
        spread = start["covariance"] if covariance == "full" else start["scale"] ** 2
        mixture = GaussianMixtureModelJax.from_squeezed(
            means=jnp.asarray(start["loc"].reshape(len(start["loc"]), -1)),
            covariances=jnp.asarray(
                spread.reshape(len(spread), -1) if covariance == "diag" else spread
            ),
            weights=jnp.asarray(start["weights"]),
            covariance_type=covariance,
        )

        def run(num_steps: int) -> Fit:
            fitted = EMFitter(max_iter=num_steps, tol=0.0, reg_covar=0.0).fit(column, mixture)
            params = {
                "weights": fitted.gmm.weights_numpy,
                "loc": fitted.gmm.means_numpy.reshape(start["loc"].shape),
            }
            values = fitted.gmm.covariances.values_numpy
            if covariance == "full":
                return Fit(params | {"covariance": values}, int(fitted.n_iter))
            return Fit(
                params | {"scale": np.sqrt(values).reshape(start["scale"].shape)},
                int(fitted.n_iter),
            )

        return run

    return setup


def pomegranate(covariance: str) -> Callable[[dict, dict, dict], Run]:
    """Return the set-up of `pomegranate.gmm.GeneralMixtureModel`, float32.

    On the line a full covariance of size one is its fastest.
    """

    def setup(data: dict, start: dict, sizes: dict) -> Run:
        import torch
        from pomegranate.distributions import Normal
        from pomegranate.gmm import GeneralMixtureModel

        points = data.pop("points")
        if points.dtype != np.float32:
            raise LeftOut("pomegranate casts its weights to float32")
        column = torch.from_numpy(points.reshape(len(points), -1))
        loc = start["loc"].reshape(len(start["loc"]), -1)
        spread = (
            start["covariance"] if "covariance" in start else start["scale"].reshape(loc.shape) ** 2
        )
        spread = spread[:, :, None] if points.ndim == 1 else spread

        def run(num_steps: int) -> Fit:
            components = [
                Normal(m.copy(), s.copy(), covariance_type=covariance, check_data=False)
                for m, s in zip(loc, spread, strict=True)
            ]
            mixture = GeneralMixtureModel(
                components,
                priors=start["weights"].copy(),
                max_iter=num_steps,
                tol=-np.inf,
                check_data=False,
            ).fit(column)
            params = {"weights": mixture.priors.numpy()}
            params["loc"] = np.stack([d.means.numpy() for d in components]).reshape(
                start["loc"].shape
            )
            values = np.stack([d.covs.numpy() for d in components])
            if "covariance" in start:
                return Fit(params | {"covariance": values}, num_steps)
            return Fit(params | {"scale": np.sqrt(values).reshape(start["scale"].shape)}, num_steps)

        return run

    return setup


SETUPS = {
    "scikit-learn": {
        "gaussian_full": scikit_learn("full"),
        "gaussian_diagonal": scikit_learn("diag"),
        "gaussian_1d": scikit_learn("spherical"),
        "restarts": scikit_learn_restarts,
    },
    "gmmx": {
        "gaussian_full": gmmx("full"),
        "gaussian_diagonal": gmmx("diag"),
        "gaussian_1d": gmmx("diag"),
    },
    "pomegranate": {
        "gaussian_full": pomegranate("full"),
        "gaussian_diagonal": pomegranate("diag"),
        "gaussian_1d": pomegranate("full"),
    },
}
