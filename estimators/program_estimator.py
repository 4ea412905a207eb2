"""What every estimator here is: a program with a plate of samples, fitted by EM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from sklearn.base import DensityMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

import emjax
from emjax.sklearn.fits import LARGEST_SEED, FittedByEM
from emjax.sklearn.precision import in_double
from emjax.sklearn.rows import checked_weights, filled_up
from emjax.sklearn.sites import observed_sites


class ProgramEstimator(DensityMixin, FittedByEM):
    """A program with a plate of samples behind scikit-learn's interface: see `FittedByEM`."""

    def _asked(self, X: Any, data: Mapping[str, Any]) -> tuple[emjax.Fit, Any, dict[str, Any]]:
        """Return the fit of the program without weights and labels, and its arguments.

        These are X, checked, and those that have names.
        """
        check_is_fitted(self, "fit_")
        X = self._validated(X, reset=False)
        fit = emjax.Fit.of(self._em(self._program()), None, self.fit_)
        return fit, X, self._named(X, data)

    def score_samples(self, X: Any, **data: Any) -> np.ndarray:
        """Return log p(x_n) of each sample in nats: (n_samples,). `data`: as in `fit`."""
        fit, X, kwargs = self._asked(X, data)
        rows, of_rows = filled_up(X, data)
        # other arguments are as long as they are, be it by chance as long as X
        named = {**kwargs, **of_rows}
        with in_double():
            found = fit.pointwise_log_likelihood(rows, plate=self._plate_name(), **named)
        return np.asarray(found)[: len(X)]

    def score(self, X: Any, y: Any = None, sample_weight: Any = None, **data: Any) -> float:
        """Return the mean log-likelihood of a sample in nats.

        `y`: ignored; `sample_weight`: (n_samples,), how often each sample counts.
        """
        if sample_weight is not None:
            weights = checked_weights(sample_weight, X)
            return float(np.average(self.score_samples(X, **data), weights=weights))
        fit, X, kwargs = self._asked(X, data)
        with in_double():
            return float(fit.log_likelihood_of(X, **kwargs)) / len(X)

    def aic(self, X: Any, **data: Any) -> float:
        """Return −2 log p(X) + 2 p, with p free parameters; the lower the better."""
        return self._criteria(X, data).aic

    def bic(self, X: Any, **data: Any) -> float:
        """Return −2 log p(X) + p log n, with p free parameters; the lower the better."""
        return self._criteria(X, data).bic

    def _criteria(self, X: Any, data: Mapping[str, Any]) -> emjax.Criteria:
        fit, X, kwargs = self._asked(X, data)
        with in_double():
            return emjax.criteria(fit.em, fit.params, X, plate=self._plate_name(), **kwargs)

    def sample(self, n_samples: int = 1, **data: Any) -> tuple[Any, Any]:
        """Return new samples, and the values of the latent that they were drawn with.

        They are (n_samples, …), or {site: values} where the program observes several; and
        (n_samples, …), or {latent: values} where there is not one latent alone. `data`: further
        arguments of the program, of so many samples. Errors: `ValueError` for a number below 1.
        """
        check_is_fitted(self, "fit_")
        if n_samples < 1:
            raise ValueError(
                f"Invalid value for 'n_samples': {n_samples}. The sampling requires at least one "
                "sample."
            )
        X = self._blank(n_samples)
        kwargs = self._named(X, data)
        fit = emjax.Fit.of(self._em(self._program()), None, self.fit_)
        rng = check_random_state(self.random_state)
        with in_double():
            key = jax.random.key(rng.randint(LARGEST_SEED))
            found = jax.tree.map(np.asarray, fit.sample(key, None, X, **kwargs))
            observed = observed_sites(self._program(), (X,), kwargs)
        drawn = {name: found.pop(name) for name in observed}
        return drawn if len(drawn) > 1 else drawn[observed[0]], self._drawn(found)

    def _drawn(self, latents: dict[str, np.ndarray]) -> Any:
        return latents

    def _blank(self, n_samples: int) -> Any:
        """Return samples of the shape that the program was fitted to, for `sample`."""
        return np.zeros((n_samples, self.n_features_in_))
