"""Estimators that learn from one batch after another."""

from __future__ import annotations

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.utils import check_random_state

import emjax
from emjax.sklearn.fits import LARGEST_SEED, Task
from emjax.sklearn.precision import in_double
from emjax.sklearn.program_estimator import ProgramEstimator

Fitted = TypeVar("Fitted", bound="FitsInBatches")


class FitsInBatches(ProgramEstimator):
    """An estimator with `partial_fit`: a step of online EM for each batch."""

    def partial_fit(
        self: Fitted, X: Any, y: Any = None, sample_weight: Any = None, **data: Any
    ) -> Fitted:
        """Take one step of online EM on a batch of samples, and return the estimator.

        All samples so far count alike, until there are 40 for each parameter: so many are then
        remembered, the latest most (`EM.update_online`). It begins at the last fit, or where `fit`
        on the first batch would. An estimate from batches is near an optimum, and not at it:
        `converged_` is False, `n_iter_` the number of batches, `lower_bound_` the log-likelihood
        of a sample of the last batch in nats, and `fit_` has no log-likelihood of its own.

        `y`, `sample_weight`, `data`: as in `fit`. Whether there are labels, the first batch says;
        in others, −1 is unknown. Errors: `ValueError` as of `fit`, for labels that begin later, and
        where the likelihood is not finite.
        """
        self._check_numbers()
        online = vars(self).get("_online")
        # a fit before says what the columns are, too
        X = self._validated(X, reset=online is None and not hasattr(self, "fit_"))
        labels = self._labels(X, y)
        if online is not None:
            labels = _labels_as_before(labels, is_labeled=online[2], size=len(X))
        weights = np.ones(len(X)) if sample_weight is None else sample_weight
        with in_double():
            task = self._task(X, labels, weights, data)
            if online is None:
                online = self._begun(task)
            em, before, is_labeled = online
            state = em.update_online(before, *task.args, **task.kwargs)
            unknown = jnp.full((), jnp.nan)
            not_converged = emjax.Status.MAX_STEPS
            fit = emjax.Fit(
                state.params, unknown, np.full(1, np.nan), state.num_batches, not_converged, em=em
            )
            # a batch that is refused here has not been: nothing of it is kept
            self._keep(fit)
            self._note(task)
            self.fit_, self._online = fit, (em, state, is_labeled)
            self.converged_, self.n_iter_ = False, state.num_batches
            self.lower_bound_ = float(state.log_likelihood) / task.num_samples
        return self

    def _begun(self, task: Task) -> tuple[emjax.EM, emjax.OnlineState, bool]:
        """Return the EM, its state before the first batch, and whether there are labels."""
        rng = check_random_state(self.random_state)
        start = dict(self.fit_.params) if hasattr(self, "fit_") else self._starts(task, rng)[0]
        em, key = self._em(task.program), jax.random.key(rng.randint(LARGEST_SEED))
        state = em.init_online(key, *task.args, init_params=start or None, **task.kwargs)
        return em, state, task.labels is not None

    def _conclude(self, task: Task) -> None:
        # batches that come now begin anew
        if hasattr(self, "_online"):
            del self._online
        super()._conclude(task)


def _labels_as_before(labels: Any, is_labeled: bool, size: int) -> Any:
    """Return the labels of a batch for the program of the batches before it."""
    if labels is not None and not is_labeled:
        raise ValueError("The first batch had no labels: pass y from there on, −1 where unknown.")
    return np.full(size, -1) if labels is None and is_labeled else labels
