"""Hidden Markov models in place of hmmlearn's: categorical, Gaussian and Poisson emissions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.utils import Tags
from sklearn.utils.validation import check_is_fitted

import emjax
from emjax.sklearn import chains
from emjax.sklearn.annotations import Real, Whole, Word
from emjax.sklearn.sequences import HiddenMarkovModel

COVARIANCE_TYPES = ("spherical", "diag", "full", "tied")


class GaussianHMM(HiddenMarkovModel):
    """A hidden Markov model of points, in place of `hmmlearn.hmm.GaussianHMM`.

    Maximum likelihood: hmmlearn's default prior on covariances, and its floor under them, are not
    added. A state that collapses onto few rows is said in a `ConvergenceWarning`.

    **Arguments:**

    - `n_components`: how many states.
    - `covariance_type`: "diag", "spherical", "full", or "tied": one full matrix for all states.
    - `algorithm`: by which `predict` decodes, "viterbi" or "map".
    - `random_state`: seeds the starts, and `sample`.
    - `n_init`: how many starts are tried; the best is kept.
    - `n_iter`: the largest number of EM steps.
    - `tol`: EM has converged when a step increases the log-likelihood by at most tol · (1 +
      |log-likelihood|). hmmlearn compares the increase with its own: an absolute one.
    - `verbose`: whether to show the log-likelihood and the steps.
    - `params`: which parameters are estimated: "s" for `startprob_`, "t" for `transmat_`, "m" for
      `means_`, "c" for `covars_`.
    - `init_params`: which of them the model starts by itself; the others start from the attribute,
      if it was set. All by themselves start at the best of several short runs.

    **Attributes:**

    - `startprob_`: (n_components,); `transmat_`: (n_components, n_components).
    - `means_`: (n_components, n_features).
    - `covars_`: (n_components, n_features, n_features), whatever the type; is set in the shape of
      the type: (n_components,), (n_components, n_features), (n_components, n_features, n_features),
      or (n_features, n_features) of "tied".
    - `monitor_`: `history`, `iter`, `converged`. `converged_`, `n_iter_`.
    - `fit_`: the emjax `Fit`. Its rows are those of X, and masked ones behind them.

    Source: Rabiner (1989), "A tutorial on hidden Markov models", Proceedings of the IEEE 77.

    ```python
    from emjax.sklearn import GaussianHMM

    X = np.random.default_rng(0).normal(np.repeat([0.0, 3.0, 0.0], 20))[:, None]
    model = GaussianHMM(2, random_state=0).fit(X, lengths=[30, 30])
    log_prob, states = model.decode(X, lengths=[30, 30])
    ```
    """

    means_: np.ndarray
    _covars_: np.ndarray

    def __init__(
        self,
        n_components: Whole = 1,
        covariance_type: Word = "diag",
        *,
        algorithm: Word = "viterbi",
        random_state: Any = None,
        n_init: Whole = 1,
        n_iter: Whole = 1000,
        tol: Real = 1e-9,
        verbose: Whole = False,
        params: Word = "stmc",
        init_params: Word = "stmc",
    ):
        self.n_components = n_components
        self.covariance_type = covariance_type
        self.algorithm = algorithm
        self.random_state = random_state
        self.n_init = n_init
        self.n_iter = n_iter
        self.tol = tol
        self.verbose = verbose
        self.params = params
        self.init_params = init_params

    def _program(self) -> Callable:
        return chains.gaussian_program

    def _arguments(self) -> dict[str, Any]:
        return {"num_states": self.n_components, "covariance_type": self.covariance_type}

    def _check_settings(self) -> None:
        if self.covariance_type not in COVARIANCE_TYPES:
            raise ValueError(
                f"covariance_type must be one of {', '.join(COVARIANCE_TYPES)}, not "
                f"{self.covariance_type!r}."
            )
        super()._check_settings()

    @property
    def _is_matrix(self) -> bool:
        """Whether a covariance is given as a matrix, and not as standard deviations."""
        return self.covariance_type in ("full", "tied")

    @property
    def covars_(self) -> np.ndarray:
        """Covariances of all states: (n_components, n_features, n_features)."""
        check_is_fitted(self, "_covars_")
        num_states, num_features = np.shape(self.means_)
        shape = (num_states, num_features, num_features)
        if self._is_matrix:
            return np.array(np.broadcast_to(self._covars_, shape))
        variances = self._covars_[:, None] if self._covars_.ndim == 1 else self._covars_
        return np.broadcast_to(variances, shape[:2])[..., None] * np.eye(num_features)

    @covars_.setter
    def covars_(self, covars: Any) -> None:
        self._covars_ = np.array(covars, np.float64)

    def _emission_params(self) -> dict[str, tuple[str, Any]]:
        spread = getattr(self, "_covars_", None)
        name = "covariance" if self._is_matrix else "scale"
        if spread is not None and not self._is_matrix:
            spread = np.sqrt(spread)
        return {"m": ("loc", getattr(self, "means_", None)), "c": (name, spread)}

    def _keep(self, fit: emjax.Fit) -> None:
        super()._keep(fit)
        self.means_ = np.asarray(fit.params["loc"])
        if self._is_matrix:
            self._covars_ = np.asarray(fit.params["covariance"])
        else:
            self._covars_ = np.asarray(fit.params["scale"]) ** 2

    def _num_free(self) -> int:
        num_states, num_features = np.shape(self.means_)
        of_a_matrix = num_features * (num_features + 1) // 2
        of_spread = {
            "spherical": num_states,
            "diag": num_states * num_features,
            "full": num_states * of_a_matrix,
            "tied": of_a_matrix,
        }
        return num_states * num_features + of_spread[self.covariance_type]

    def _draw(self, state: int, random_state: np.random.RandomState) -> np.ndarray:
        return random_state.multivariate_normal(self.means_[state], self.covars_[state])


class PoissonHMM(HiddenMarkovModel):
    """A hidden Markov model of counts, in place of `hmmlearn.hmm.PoissonHMM`.

    **Arguments:** as those of `GaussianHMM`. `params` and `init_params`: "s", "t", and "l" for
    `lambdas_`. Rates start at random between one half and three halves of the mean.

    **Attributes:** `startprob_`, `transmat_`, `monitor_`, `fit_` as in `GaussianHMM`, and

    - `lambdas_`: (n_components, n_features), events per row.

    Source: Zucchini, MacDonald & Langrock (2016), Hidden Markov Models for Time Series.
    """

    lambdas_: np.ndarray

    def __init__(
        self,
        n_components: Whole = 1,
        *,
        algorithm: Word = "viterbi",
        random_state: Any = None,
        n_init: Whole = 1,
        n_iter: Whole = 1000,
        tol: Real = 1e-9,
        verbose: Whole = False,
        params: Word = "stl",
        init_params: Word = "stl",
    ):
        self.n_components = n_components
        self.algorithm = algorithm
        self.random_state = random_state
        self.n_init = n_init
        self.n_iter = n_iter
        self.tol = tol
        self.verbose = verbose
        self.params = params
        self.init_params = init_params

    def _program(self) -> Callable:
        return chains.poisson_program

    def _arguments(self) -> dict[str, Any]:
        return {"num_states": self.n_components}

    def _validated(self, X: Any, reset: bool) -> Any:
        X = super()._validated(X, reset)
        _check_counts(X, type(self).__name__, "counts")
        return X

    def __sklearn_tags__(self) -> Tags:
        return _of_counts(super().__sklearn_tags__())

    def _emission_params(self) -> dict[str, tuple[str, Any]]:
        return {"l": ("rate", getattr(self, "lambdas_", None))}

    def _keep(self, fit: emjax.Fit) -> None:
        super()._keep(fit)
        self.lambdas_ = np.asarray(fit.params["rate"])

    def _num_free(self) -> int:
        return np.size(self.lambdas_)

    def _draw(self, state: int, random_state: np.random.RandomState) -> np.ndarray:
        return random_state.poisson(self.lambdas_[state])


class CategoricalHMM(HiddenMarkovModel):
    """A hidden Markov model of symbols, in place of `hmmlearn.hmm.CategoricalHMM`.

    **Arguments:** as those of `GaussianHMM`. `params` and `init_params`: "s", "t", and "e" for
    `emissionprob_`, which starts uniformly at random.

    - `n_features`: how many symbols there are, 0 … n_features − 1. None: as many as X has.

    X has a column, as in hmmlearn, or several: features that are independent given the state.

    **Attributes:** `startprob_`, `transmat_`, `monitor_`, `fit_` as in `GaussianHMM`, and

    - `emissionprob_`: (n_components, n_features); of several columns, (n_components, column,
      n_features).

    Source: Rabiner (1989), "A tutorial on hidden Markov models", Proceedings of the IEEE 77.
    """

    emissionprob_: np.ndarray

    def __init__(
        self,
        n_components: Whole = 1,
        *,
        n_features: Whole | None = None,
        algorithm: Word = "viterbi",
        random_state: Any = None,
        n_init: Whole = 1,
        n_iter: Whole = 1000,
        tol: Real = 1e-9,
        verbose: Whole = False,
        params: Word = "ste",
        init_params: Word = "ste",
    ):
        self.n_components = n_components
        self.n_features = n_features
        self.algorithm = algorithm
        self.random_state = random_state
        self.n_init = n_init
        self.n_iter = n_iter
        self.tol = tol
        self.verbose = verbose
        self.params = params
        self.init_params = init_params

    def _program(self) -> Callable:
        return chains.categorical_program

    def _arguments(self) -> dict[str, Any]:
        return {"num_states": self.n_components, "num_symbols": self._num_symbols}

    def _validated(self, X: Any, reset: bool) -> Any:
        X = super()._validated(X, reset)
        _check_counts(X, type(self).__name__, "symbols, 0, 1, 2, …")
        largest = int(np.nanmax(X, initial=0))
        self._num_symbols = self._symbols(largest, reset)
        if largest >= self._num_symbols:
            raise ValueError(
                f"X has the symbol {largest}, and the model those up to {self._num_symbols - 1}: "
                f"fit it with n_features={largest + 1}."
            )
        return X

    def _symbols(self, largest: int, is_fit: bool) -> int:
        """Return how many symbols there are: as given, as in a start that is given, as in X."""
        if is_fit and self.n_features is not None:
            return self.n_features
        is_given = hasattr(self, "emissionprob_") and "e" not in self.init_params
        if is_given or not is_fit:
            return np.shape(self.emissionprob_)[-1]
        return largest + 1

    def __sklearn_tags__(self) -> Tags:
        return _of_counts(super().__sklearn_tags__())

    def _emission_params(self) -> dict[str, tuple[str, Any]]:
        found = getattr(self, "emissionprob_", None)
        if found is not None and np.ndim(found) == 2:
            # one column
            found = np.asarray(found)[:, None]
        return {"e": ("emission", found)}

    def _keep(self, fit: emjax.Fit) -> None:
        super()._keep(fit)
        found = np.asarray(fit.params["emission"])
        self.emissionprob_ = found[:, 0] if found.shape[1] == 1 else found

    def _num_free(self) -> int:
        shape = np.shape(self.emissionprob_)
        return int(np.prod(shape[:-1])) * (shape[-1] - 1)

    def _draw(self, state: int, random_state: np.random.RandomState) -> list[int]:
        rows = np.atleast_2d(np.asarray(self.emissionprob_)[state])
        return [int((np.cumsum(row) > random_state.rand()).argmax()) for row in rows]


def _of_counts(tags: Tags) -> Tags:
    """Return the tags of an estimator of whole numbers from zero on."""
    tags.input_tags.positive_only = True
    tags.input_tags.categorical = True
    return tags


def _check_counts(X: np.ndarray, name: str, what: str) -> None:
    """Raise `ValueError` for what is no whole number from zero on."""
    observed = X[~np.isnan(X)]
    if (observed < 0).any():
        raise ValueError(f"Negative values in data passed to {name}: it takes {what}.")
    if (observed != np.floor(observed)).any():
        raise ValueError(f"{name} takes {what}: whole numbers, or NaN where one is missing.")
