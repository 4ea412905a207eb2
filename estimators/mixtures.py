"""scikit-learn's `GaussianMixture`, fitted by emjax."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
from scipy.linalg import solve_triangular
from sklearn.utils import check_scalar

import emjax
from emjax.sklearn.annotations import Real, Switch, SwitchOrAuto, Whole, Word
from emjax.sklearn.batches import FitsInBatches
from emjax.sklearn.fits import Task
from emjax.sklearn.latents import OfDiscreteLatent
from emjax.sklearn.mixture_program import Priors, program
from emjax.sklearn.mixture_starts import METHODS, filled_in, maximum, responsibilities

COVARIANCE_TYPES = ("full", "tied", "diag", "spherical")
Fitted = TypeVar("Fitted", bound="GaussianMixture")
STARTS = ("weights_init", "means_init", "precisions_init")


class GaussianMixture(FitsInBatches, OfDiscreteLatent):
    """A mixture of normals, with the parameters and attributes of scikit-learn's.

    From the same start it comes to what `sklearn.mixture.GaussianMixture(reg_covar=0)` comes to. It
    also takes samples that lack values (NaN: they are integrated out, by maximum likelihood of what
    is observed), weights of samples, some labels, floors and priors.

    **Arguments:** those of scikit-learn's class, of which these differ:

    - `tol`: EM has converged when a step increases the objective by at most tol · (1 +
      |objective|), in nats over all samples. scikit-learn's, 1e-3, is of the gain of a sample on
      average.
    - `max_iter`: 1000 by default, as `tol` is smaller. Where EM has not converged, a
      `ConvergenceWarning` says why.
    - `reg_covar`: 0, and nothing else. What scikit-learn adds to the diagonal of each covariance
      after each step makes them no maximum of anything, so that the likelihood may decrease. A
      floor (`variance_floor`) and a prior (`covariance_prior`) are part of the model.
    - `init_params`: "kmeans", "k-means++", "random", "random_from_data": drawn as scikit-learn
      draws them, with the same seed. A component whose samples do not span the space starts with
      the covariance of all samples; missing values are at the mean of their column. Or a start of
      `EM(init=…)`, such as "short-runs".

    and these are added:

    - `variance_floor`: the least variance, of each feature ("diag") or component ("spherical"), in
      the square of the unit of the data.
    - `weight_concentration_prior`: α of a Dirichlet(α) prior of the weights, a number or
      (n_components,). The estimate is then MAP, as with
    - `covariance_prior`: Ψ of an inverse-Wishart prior with density ∝ |Σ|^(−(ν + D + 1) / 2)
      exp(−½ tr Ψ Σ⁻¹), (n_features, n_features), of each covariance; of variances, of
      InverseGamma(ν / 2, Ψ / 2), with Ψ of shape (n_features,) for "diag", a number for
      "spherical". In the square of the unit of the data, as if samples were there already.
    - `degrees_of_freedom_prior`: ν, more than n_features − 1. None: n_features + 2, of which the
      prior's mean is Ψ (Fraley & Raftery, 2007).
    - `semi_supervised`: "auto", True or False: whether y holds labels (see `fit`).

    **Attributes:**

    - `weights_` (n_components,), `means_` (n_components, n_features).
    - `covariances_`, `precisions_`, `precisions_cholesky_`: (n_components, n_features, n_features)
      if "full", (n_features, n_features) if "tied", (n_components, n_features) if "diag",
      (n_components,) if "spherical". A precision is U Uᵀ, U upper triangular (or diagonal).
    - `converged_`, `n_iter_`: of the best run.
    - `lower_bound_`: the objective per sample in nats, at the estimate: the log-likelihood, with
      log-densities of priors. scikit-learn's is that before the last step.
    - `fit_`: the emjax `Fit`, of which everything else can be asked.
    - `n_features_in_`, `feature_names_in_`.

    ```python
    from emjax.sklearn import GaussianMixture

    X = np.random.default_rng(0).normal([[0, 0], [4, 4]], size=(40, 2, 2)).reshape(-1, 2)
    X[3, 1] = np.nan
    GaussianMixture(2, random_state=0).fit(X).means_
    ```

    Source: Dempster, Laird & Rubin (1977); of missing values Ghahramani & Jordan (1994).
    """

    allow_nan = True
    weights_: np.ndarray
    means_: np.ndarray
    covariances_: np.ndarray
    precisions_: np.ndarray
    precisions_cholesky_: np.ndarray

    def __init__(
        self,
        n_components: Whole = 1,
        *,
        covariance_type: Word = "full",
        tol: Real = 1e-9,
        reg_covar: Real = 0.0,
        max_iter: Whole = 1000,
        n_init: Whole = 1,
        init_params: Word = "kmeans",
        weights_init: Any = None,
        means_init: Any = None,
        precisions_init: Any = None,
        random_state: Any = None,
        warm_start: Switch = False,
        verbose: Whole = 0,
        variance_floor: Real = 0.0,
        weight_concentration_prior: Any = None,
        degrees_of_freedom_prior: Any = None,
        covariance_prior: Any = None,
        semi_supervised: SwitchOrAuto = "auto",
    ):
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.tol = tol
        self.reg_covar = reg_covar
        self.max_iter = max_iter
        self.n_init = n_init
        self.init_params = init_params
        self.weights_init = weights_init
        self.means_init = means_init
        self.precisions_init = precisions_init
        self.random_state = random_state
        self.warm_start = warm_start
        self.verbose = verbose
        self.variance_floor = variance_floor
        self.weight_concentration_prior = weight_concentration_prior
        self.degrees_of_freedom_prior = degrees_of_freedom_prior
        self.covariance_prior = covariance_prior
        self.semi_supervised = semi_supervised

    # ── what is checked ───────────────────────────────────────────────────────────────────────────

    def _check_numbers(self) -> None:
        super()._check_numbers()
        check_scalar(self.n_components, "n_components", int | np.integer, min_val=1)
        check_scalar(self.variance_floor, "variance_floor", float | int | np.number, min_val=0)
        if self.covariance_type not in COVARIANCE_TYPES:
            raise ValueError(
                f"covariance_type must be one of {', '.join(map(repr, COVARIANCE_TYPES))}, not "
                f"{self.covariance_type!r}."
            )
        if self.variance_floor > 0 and self.covariance_type in ("full", "tied"):
            raise ValueError(
                f"variance_floor bounds variances, of covariance_type 'diag' or 'spherical'. Under "
                f"{self.covariance_type!r} state a prior: covariance_prior=…."
            )
        if self.reg_covar != 0:
            raise ValueError(
                f"reg_covar={self.reg_covar!r}: nothing is added to covariances after a "
                "step, since they would be no maximum then. State a floor, variance_floor=…, or a "
                "prior, covariance_prior=…, which are part of the model."
            )

    def _validated(self, X: Any, reset: bool) -> np.ndarray:
        X = super()._validated(X, reset)
        if reset and len(X) < self.n_components:
            raise ValueError(
                f"Expected n_samples >= n_components but got n_components = {self.n_components}, "
                f"n_samples = {len(X)}"
            )
        return X

    # ── the program ───────────────────────────────────────────────────────────────────────────────

    def _program(self) -> Callable:
        return program

    def _named(self, X: Any, data: Mapping[str, Any]) -> dict[str, Any]:
        named = {
            "num_components": int(self.n_components),
            "covariance_type": self.covariance_type,
            "variance_floor": float(self.variance_floor),
            "priors": self._priors(X.shape[1]),
            "has_missing": bool(np.isnan(X).any()),
        }
        return {**named, **data}

    def _priors(self, num_features: int) -> Priors:
        freedom = self.degrees_of_freedom_prior
        if self.covariance_prior is not None and freedom is None:
            freedom = num_features + 2
        alpha, covariance = self.weight_concentration_prior, self.covariance_prior
        if covariance is None and freedom is not None:
            raise ValueError(
                "degrees_of_freedom_prior is of a prior whose scale is missing: covariance_prior=…."
            )
        if covariance is not None and self.variance_floor > 0:
            raise ValueError("Either variance_floor or covariance_prior: a prior has no floor.")
        return Priors(
            None if alpha is None else np.asarray(alpha, float),
            None if freedom is None else float(freedom),
            None if covariance is None else np.asarray(covariance, float),
        )

    def _plate_name(self) -> str:
        return "samples"

    def _latent_name(self, X: Any, kwargs: Mapping[str, Any]) -> str:
        return "component"

    @property
    def _n_features_out(self) -> int:
        return self.n_components

    def partial_fit(
        self: Fitted, X: Any, y: Any = None, sample_weight: Any = None, **data: Any
    ) -> Fitted:
        """Take one more batch into account, by a step of online EM, and return the estimator.

        `X`: (n_samples, n_features), NaN where missing; `sample_weight`: (n_samples,).
        """
        # one program for all batches, whether or not values are missing in the first
        return super().partial_fit(X, y, sample_weight, **{"has_missing": True, **data})

    # ── starts ────────────────────────────────────────────────────────────────────────────────────

    def _options(self) -> dict[str, Any]:
        return {} if self.init_params in METHODS else {"init": self.init_params}

    def _starts(self, task: Task, rng: np.random.RandomState) -> list[dict[str, Any]]:
        given = {name: getattr(self, name) for name in STARTS}
        given = {name: np.asarray(v, float) for name, v in given.items() if v is not None}
        if self.init_params not in METHODS and len(given) < len(STARTS):
            return [self._as_program_has_them(self._given_start(given))]
        starts = []
        for _ in range(1 if len(given) == len(STARTS) else int(self.n_init)):
            start = {}
            if len(given) < len(STARTS):
                start = self._drawn_start(task, rng)
            starts.append(self._as_program_has_them({**start, **self._given_start(given)}))
        return starts

    def _drawn_start(self, task: Task, rng: np.random.RandomState) -> dict[str, np.ndarray]:
        X, number = filled_in(task.X), int(self.n_components)
        found = responsibilities(X, number, self.init_params, rng, task.weights, task.labels)
        return maximum(X, found, self.covariance_type, task.weights)

    def _given_start(self, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        start = {}
        for name in ("weights", "means"):
            if f"{name}_init" in given:
                start[name] = given[f"{name}_init"]
        if "precisions_init" in given:
            precisions = given["precisions_init"]
            is_matrix = self.covariance_type in ("full", "tied")
            start["covariances"] = np.linalg.inv(precisions) if is_matrix else 1 / precisions
        return start

    def _as_program_has_them(self, start: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return a start by the names of the program's parameters."""
        found = dict(start)
        if self.covariance_type in ("diag", "spherical") and "covariances" in found:
            variances = np.maximum(found.pop("covariances"), self.variance_floor)
            is_map = self.covariance_prior is not None
            found |= {"variances": variances} if is_map else {"scales": np.sqrt(variances)}
        return found

    # ── what was learned ──────────────────────────────────────────────────────────────────────────

    def _keep(self, fit: emjax.Fit) -> None:
        params = {name: np.asarray(value) for name, value in fit.params.items()}
        if "scales" in params:
            covariances = params["scales"] ** 2
        else:
            covariances = params["variances" if "variances" in params else "covariances"]
        try:
            self.precisions_cholesky_ = precisions_cholesky(covariances, self.covariance_type)
        except np.linalg.LinAlgError as error:
            raise ValueError(
                "A covariance is singular: the samples so far do not span the space. Begin with a "
                "larger batch, or state a prior, covariance_prior=…."
            ) from error
        self.weights_, self.means_ = params["weights"], params["means"]
        self.covariances_ = covariances
        self.precisions_ = precisions(self.precisions_cholesky_, self.covariance_type)


def precisions_cholesky(covariances: np.ndarray, covariance_type: str) -> np.ndarray:
    """Return U of each Σ⁻¹ = U Uᵀ, upper triangular; of variances, the roots of their inverses."""
    if covariance_type in ("diag", "spherical"):
        return 1 / np.sqrt(covariances)
    identity = np.eye(covariances.shape[-1])
    factors = np.linalg.cholesky(covariances)
    if factors.ndim == 2:
        return solve_triangular(factors, identity, lower=True).T
    return np.stack([solve_triangular(factor, identity, lower=True).T for factor in factors])


def precisions(cholesky: np.ndarray, covariance_type: str) -> np.ndarray:
    """Return the inverses of covariances, of these factors."""
    if covariance_type in ("diag", "spherical"):
        return cholesky**2
    return cholesky @ cholesky.swapaxes(-1, -2)
