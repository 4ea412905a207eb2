"""What an estimator says of the latents of samples."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_consistent_length, column_or_1d

from emjax.sklearn.precision import in_double
from emjax.sklearn.program_estimator import ProgramEstimator

# what scikit-learn takes for unlabeled
UNKNOWN = -1


class OfDiscreteLatent(ClassNamePrefixFeaturesOutMixin, TransformerMixin, ProgramEstimator):
    """An estimator each of whose samples has a discrete latent: its cluster, class or state.

    `fit(X, y)` is semi-supervised where y holds labels: the known values of the latent, 0 … K − 1,
    and −1 where it is unknown, as for scikit-learn's semi-supervised estimators. An estimator of a
    model states a parameter `semi_supervised`:

    - "auto": y holds labels if it is of integers with a −1 among them. Any other y is ignored, as
      scikit-learn's mixtures ignore it: a grid search that scores clusters against y is not to
      fit them to y.
    - True: y holds labels. False: y is ignored.
    """

    semi_supervised: bool | str
    n_values_: int

    def predict(self, X: Any, **data: Any) -> np.ndarray:
        """Return the most probable value of each sample's latent: integers, (n_samples,).

        `data`: as in `fit`.
        """
        return self.predict_proba(X, **data).argmax(axis=-1)

    def predict_proba(self, X: Any, **data: Any) -> np.ndarray:
        """Return p(value | sample) for each value of the latent: (n_samples, n_values)."""
        fit, X, kwargs = self._asked(X, data)
        with in_double():
            return self._responsibilities(fit.posterior(X, **kwargs), len(X))

    def fit_predict(
        self, X: Any, y: Any = None, sample_weight: Any = None, **data: Any
    ) -> np.ndarray:
        """Fit to X, and return the most probable value of each sample's latent: (n_samples,)."""
        return self.fit(X, y, sample_weight=sample_weight, **data).predict(X, **data)

    def transform(self, X: Any, **data: Any) -> Any:
        """Return what `predict_proba` does: features for what follows in a pipeline."""
        return self.predict_proba(X, **data)

    def _labels(self, X: Any, y: Any) -> np.ndarray | None:
        mode = self.semi_supervised
        if mode not in (True, False, "auto"):
            raise ValueError(f"semi_supervised must be True, False or 'auto', not {mode!r}.")
        if y is None or not mode:
            return None
        labels = np.asarray(y)
        is_whole = np.issubdtype(labels.dtype, np.integer)
        if mode == "auto" and not (is_whole and (labels == UNKNOWN).any()):
            return None
        labels = column_or_1d(labels)
        check_consistent_length(X, labels)
        if not is_whole:
            raise ValueError(
                f"y holds labels: whole numbers, the values of the latent, and {UNKNOWN} where it "
                f"is unknown; not {labels.dtype}. To ignore y, pass semi_supervised=False."
            )
        return labels

    def _responsibilities(self, posterior: Mapping[str, Any], num_samples: int) -> np.ndarray:
        """Return the posterior of the latent of samples."""
        return np.asarray(posterior[self._latent_name(None, {})])

    def _drawn(self, latents: dict[str, np.ndarray]) -> Any:
        return latents[self._latent_name(None, {})]

    @property
    def _n_features_out(self) -> int:
        """How many columns `transform` returns, by which they are named."""
        return self.n_values_
