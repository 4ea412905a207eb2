"""Samples assigned to classes, how often wrongly, and weights that make up for it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from emjax.classes.membership import Membership

KINDS = ("modal", "proportional")


@dataclass(frozen=True, eq=False)
class Assignment:
    """To which class each sample is assigned, after a measurement model alone.

    - `weights`: which part of each sample is assigned to each class, (sample, assigned).
    - `errors`: p(assigned | class), (class, assigned), as the measurement model expects them.

    Source: Bolck, Croon & Hagenaars (2004), Political Analysis 12; Vermunt (2010), Political
    Analysis 18, (5) and (6).
    """

    weights: np.ndarray
    errors: np.ndarray

    @staticmethod
    def of(membership: Membership, kind: str) -> Assignment:
        """Return the assignment to the most probable class, or to each as its probability is."""
        posterior = membership.posterior
        modal = np.eye(posterior.shape[1])[membership.modal]
        weights = modal if kind == "modal" else posterior
        counted = posterior * membership.multiplicity[:, None]
        by_class = counted.sum(0)
        if (by_class == 0).any():
            empty = membership.values[by_class == 0][0]
            raise ValueError(
                f"Nothing is of class {empty} of '{membership.latent}', so that nothing can be "
                "said of it. Fit fewer classes."
            )
        return Assignment(weights, counted.T @ weights / by_class[:, None])

    @property
    def corrected(self) -> np.ndarray:
        """Weights that are those of the classes on average, (sample, class); some are negative.

        Errors: `ValueError` where nothing is assigned to a class, whose error is not known then.
        """
        # assigned alike, classes cannot be told apart
        if np.linalg.matrix_rank(self.errors) < len(self.errors):
            raise ValueError(
                "Some classes are not told apart by the assignment (nothing is assigned to one of "
                "them). Pass assignment='proportional', or fit fewer classes."
            )
        return self.weights @ np.linalg.inv(self.errors)
