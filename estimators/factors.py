"""Factor analysis in place of scikit-learn's, of data that may lack values."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Float
from numpyro.distributions import constraints
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state, check_scalar
from sklearn.utils.validation import check_is_fitted

import emjax
from emjax.models import factor_analysis
from emjax.sklearn.annotations import Name, Real, Switch, Whole
from emjax.sklearn.fits import Task
from emjax.sklearn.program_estimator import ProgramEstimator
from emjax.sklearn.rows import checked_weights

ROTATIONS = (None, "varimax", "quartimax")
# of a factor that explains nothing where EM starts, the share of the noise that it starts at: at
# zero EM would stay
LEAST_SHARE = 0.01


def with_missing(data: Float[jax.Array | np.ndarray, "sample feature"], num_factors: int) -> None:
    """The model of `emjax.models.factor_analysis`, where a value that is NaN is missing."""
    num_samples, num_features = data.shape
    observed = ~jnp.isnan(data)
    loc: Any = numpyro.param("loc", jnp.nanmean(data, axis=0))
    spread = jnp.nanstd(data, axis=0) / jnp.sqrt(2)

    def random_loadings(key):
        directions = jax.random.normal(key, (num_features, num_factors))
        return spread[:, None] * directions / jnp.sqrt(num_factors)

    loadings: Any = numpyro.param("loadings", random_loadings)
    scale = numpyro.param("scale", spread, constraint=constraints.positive)
    with numpyro.plate("samples", num_samples):
        factor = numpyro.sample("factor", dist.Normal(0, 1).expand([num_factors]).to_event(1))
        normal = dist.Normal(loc + factor @ loadings.T, scale).mask(observed)
        numpyro.sample("data", normal.to_event(1), obs=jnp.nan_to_num(data))


class FactorAnalysis(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ProgramEstimator):
    """Factor analysis by EM, in place of `sklearn.decomposition.FactorAnalysis`.

    A value of X may be NaN: it is integrated out. scikit-learn's `svd_method`, `iterated_power` and
    `copy` have no part here: a step takes sums over the data, and no singular values of them.

    **Arguments:**

    - `n_components`: how many factors; None: as many as features.
    - `tol`: EM has converged when steps increase the log-likelihood by at most tol · (1 +
      |log-likelihood|). scikit-learn compares the increase with its own: an absolute one.
    - `max_iter`: the largest number of EM steps.
    - `noise_variance_init`: (n_features,), where the noise starts, with the loadings that are best
      for it. None: at half of the variances.
    - `rotation`: None, "varimax" or "quartimax".
    - `random_state`: seeds `sample`.
    - `warm_start`: whether `fit` goes on from the last fit's parameters.
    - `verbose`: whether to show the log-likelihood and the steps.

    **Attributes:**

    - `components_`: (n_components, n_features), the loadings; unless rotated, such that factors
      given a sample are independent, those that explain most first. Their signs are such that the
      largest loading of each is positive.
    - `noise_variance_`, `mean_`: (n_features,).
    - `loglike_`: the log-likelihood in nats at the start and after each step.
    - `n_iter_`, `converged_`; `lower_bound_`: the log-likelihood per sample in nats.
    - `fit_`: the emjax `Fit`, whose loadings are as EM left them.

    Source: Rubin & Thayer (1982), "EM algorithms for ML factor analysis", Psychometrika 47.

    ```python
    from emjax.sklearn import FactorAnalysis

    rng = np.random.default_rng(0)
    X = rng.normal(size=(100, 1)) @ rng.normal(size=(1, 5)) + rng.normal(size=(100, 5))
    X[0, 1] = np.nan
    model = FactorAnalysis(1).fit(X)
    model.transform(X[:3])
    ```
    """

    n_init = 1
    allow_nan = True
    components_: np.ndarray
    noise_variance_: np.ndarray
    mean_: np.ndarray
    loglike_: list[float]

    def __init__(
        self,
        n_components: Whole | None = None,
        *,
        tol: Real = 1e-9,
        max_iter: Whole = 1000,
        noise_variance_init: Any = None,
        rotation: Name = None,
        random_state: Any = 0,
        warm_start: Switch = False,
        verbose: Whole = 0,
    ):
        self.n_components = n_components
        self.tol = tol
        self.max_iter = max_iter
        self.noise_variance_init = noise_variance_init
        self.rotation = rotation
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose

    def _check_numbers(self) -> None:
        super()._check_numbers()
        if self.n_components is not None:
            check_scalar(self.n_components, "n_components", int | np.integer, min_val=1)
        if self.rotation not in ROTATIONS:
            raise ValueError(f"rotation must be one of {ROTATIONS}, not {self.rotation!r}.")

    def _program(self) -> Callable:
        return with_missing if self._lacks_values else factor_analysis.program

    def _arguments(self) -> dict[str, Any]:
        return {"num_factors": self.n_components or self.n_features_in_}

    def _options(self) -> dict[str, Any]:
        # EM crawls where factors explain little, and these leaps take a tenth of its steps
        return {"integrate": {"factor"}, "acceleration": "anderson"}

    def _validated(self, X: Any, reset: bool) -> Any:
        X = super()._validated(X, reset)
        if reset:
            self._lacks_values = bool(np.isnan(X).any())
        return X

    def _starts(self, task: Task, rng: np.random.RandomState) -> list[dict[str, Any]]:
        """Return the start: the noise as it is asked for, and the loadings that are best for it."""
        num_factors = self._arguments()["num_factors"]
        mean, scatter = _moments(task)
        noise = (
            np.diag(scatter) / 2 if self.noise_variance_init is None else self.noise_variance_init
        )
        noise = np.asarray(noise, np.float64)
        if noise.shape != mean.shape:
            raise ValueError(
                f"noise_variance_init has shape {noise.shape}, and X {len(mean)} features."
            )
        values, vectors = np.linalg.eigh(scatter / np.sqrt(np.outer(noise, noise)))
        best = np.argsort(values)[::-1][:num_factors]
        explained = np.sqrt(np.maximum(values[best] - 1, LEAST_SHARE))
        loadings = np.zeros((len(mean), num_factors))
        loadings[:, : len(best)] = vectors[:, best] * explained * np.sqrt(noise)[:, None]
        return [{"loc": mean, "loadings": loadings, "scale": np.sqrt(noise)}]

    def _keep(self, fit: emjax.Fit) -> None:
        self.mean_ = np.asarray(fit.params["loc"])
        scale = np.asarray(fit.params["scale"])
        self.noise_variance_ = scale**2
        self.loglike_ = np.asarray(fit.objective).tolist()
        # of all rotations of the factors the one that leaves their posterior covariance diagonal
        _, values, vectors = np.linalg.svd(
            np.asarray(fit.params["loadings"]).T / scale, full_matrices=False
        )
        components = _with_signs(values[:, None] * vectors * scale)
        self.components_ = components
        if self.rotation is not None:
            self.components_ = _rotated(components, self.rotation)

    @property
    def _n_features_out(self) -> int:
        return len(self.components_)

    # ── what can be asked of new samples ──────────────────────────────────────────────────────────

    def _by_pattern(self, X: Any) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yield rows that lack the same values, which values they have, and these, centered."""
        observed = ~np.isnan(X)
        patterns, which = np.unique(observed, axis=0, return_inverse=True)
        for number, pattern in enumerate(patterns):
            rows = np.flatnonzero(which == number)
            yield rows, pattern, X[np.ix_(rows, pattern)] - self.mean_[pattern]

    def transform(self, X: Any) -> np.ndarray:
        """Return the mean of each sample's factors given its values: (n_samples, n_components)."""
        check_is_fitted(self, "components_")
        X = self._validated(X, reset=False)
        found = np.empty((len(X), len(self.components_)))
        for rows, pattern, deviations in self._by_pattern(X):
            weighted = self.components_[:, pattern] / self.noise_variance_[pattern]
            precision = weighted @ self.components_[:, pattern].T + np.eye(len(weighted))
            found[rows] = np.linalg.solve(precision, weighted @ deviations.T).T
        return found

    def score_samples(self, X: Any) -> np.ndarray:
        """Return log p(x_n) of each sample in nats: (n_samples,)."""
        check_is_fitted(self, "components_")
        X = self._validated(X, reset=False)
        covariance, found = self.get_covariance(), np.empty(len(X))
        for rows, pattern, deviations in self._by_pattern(X):
            # with Σ = L Lᵀ the quadratic form is ‖L⁻¹ (x − m)‖², and ½ log det Σ is Σ_d log L_dd
            factor = np.linalg.cholesky(covariance[np.ix_(pattern, pattern)])
            squares = (np.linalg.solve(factor, deviations.T) ** 2).sum(axis=0)
            log_scale = np.log(np.diagonal(factor)).sum()
            found[rows] = -0.5 * (squares + pattern.sum() * np.log(2 * np.pi)) - log_scale
        return found

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Return the mean log-likelihood of a sample in nats. `y`: ignored."""
        weights = None if sample_weight is None else checked_weights(sample_weight, X)
        return float(np.average(self.score_samples(X), weights=weights))

    def get_covariance(self) -> np.ndarray:
        """Return the covariance of samples, (n_features, n_features)."""
        check_is_fitted(self, "components_")
        return self.components_.T @ self.components_ + np.diag(self.noise_variance_)

    def get_precision(self) -> np.ndarray:
        """Return the inverse of the covariance of samples, (n_features, n_features)."""
        return np.linalg.inv(self.get_covariance())

    def sample(self, n_samples: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """Return new samples, (n_samples, n_features), and their factors."""
        check_is_fitted(self, "components_")
        rng = check_random_state(self.random_state)
        factors = rng.normal(size=(n_samples, len(self.components_)))
        noise = rng.normal(size=(n_samples, len(self.mean_))) * np.sqrt(self.noise_variance_)
        return self.mean_ + factors @ self.components_ + noise, factors


def _moments(task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean of samples, and their covariance, where the mean stands for what is missing.

    Both count samples by their weights.
    """
    weights = np.ones(len(task.X)) if task.weights is None else task.weights
    counts = np.where(np.isnan(task.X), 0, weights[:, None]).sum(axis=0)
    mean = weights @ np.nan_to_num(task.X) / counts
    deviations = np.nan_to_num(task.X - mean)
    return mean, (deviations.T * weights) @ deviations / task.num_samples


def _with_signs(components: np.ndarray) -> np.ndarray:
    """Return components of which the entry that is largest in size is positive."""
    largest = np.abs(components).argmax(axis=1)
    signs = np.sign(components[np.arange(len(components)), largest])
    return components * np.where(signs == 0, 1, signs)[:, None]


def _rotated(components: np.ndarray, kind: str) -> np.ndarray:
    """Return components rotated so that the variance of their squares is largest.

    Source: Kaiser (1958), "The varimax criterion for analytic rotation in factor analysis",
    Psychometrika 23; the iteration by singular values is that of scikit-learn.
    """
    loadings = components.T
    rotation, height = np.eye(len(components)), 0.0
    for _ in range(100):
        rotated = loadings @ rotation
        center = rotated * (rotated**2).mean(axis=0) if kind == "varimax" else 0
        left, values, right = np.linalg.svd(loadings.T @ (rotated**3 - center))
        rotation = left @ right
        if values.sum() < height * (1 + 1e-6):
            break
        height = values.sum()
    return (loadings @ rotation).T
