"""Who belongs to which class: the posterior of a latent that each sample has one value of."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from emjax.answers.reweighted import plates_of
from emjax.program.latents import Latent
from emjax.refits.sample_counts import SampleCounts
from emjax.run.annotations import Params
from emjax.run.bound import Bound


@dataclass(frozen=True, eq=False)
class Membership:
    """The classes of samples: the values of a latent of which each sample has one.

    - `latent`: its name.
    - `values`: its values, (class,).
    - `posterior`: p(class | data, params), (sample, class).
    - `multiplicity`: how often each sample counts, (sample,); 0 where nothing is observed of it.
    """

    latent: str
    values: np.ndarray
    posterior: np.ndarray
    multiplicity: np.ndarray

    @staticmethod
    def of(bound: Bound, params: Params, latent: str | None) -> Membership:
        """Return who belongs to which class at an estimate.

        `latent`: which one; None: the only one. Errors: `ValueError` where that is not one value
        for each element of a plate.
        """
        chosen = latent_of_classes(bound, latent)
        plate = plates_of(bound).plates[chosen.plates[0]]
        posterior = np.asarray(bound.posterior(params)[chosen.name], float)
        counts = SampleCounts.of(bound, plate).of_site(chosen.name)
        values = np.asarray(chosen.support)
        return Membership(chosen.name, values, posterior.reshape(plate.size, len(values)), counts)

    @property
    def modal(self) -> np.ndarray:
        """The number of the most probable class of each sample, (sample,), of equals the first."""
        return self.posterior.argmax(1)

    @property
    def modal_sizes(self) -> np.ndarray:
        """How many samples have each class as their modal one, (class,)."""
        return np.bincount(self.modal, self.multiplicity, len(self.values))

    @property
    def by_modal(self) -> np.ndarray:
        """Sums of the posterior over the samples of each modal class, (modal, class)."""
        is_modal = np.eye(len(self.values))[self.modal]
        return (is_modal * self.multiplicity[:, None]).T @ self.posterior


def latent_of_classes(bound: Bound, name: str | None) -> Latent:
    """Return the latent whose values are the classes.

    Errors: `ValueError` where there is none, or several, or it has several values for a sample.
    """
    latents = bound.compiled.graph.latents
    if not latents:
        raise ValueError(
            "The program has no discrete latent, and so no classes: numpyro.sample('z', "
            "dist.Categorical(weights)) within the plate of the samples."
        )
    names = ", ".join(map(repr, latents))
    if name is None and len(latents) > 1:
        first = next(iter(latents))
        raise ValueError(
            f"The program has several discrete latents, {names}: name the one whose values are "
            f"the classes, latent='{first}'."
        )
    chosen = latents.get(next(iter(latents)) if name is None else name)
    if chosen is None:
        raise ValueError(f"latent={name!r} is no discrete latent of the program; it has {names}.")
    sizes = [plates_of(bound).plates[plate].size for plate in chosen.plates]
    if chosen.support.ndim != 1 or len(sizes) != 1 or math.prod(chosen.shape) != sizes[0]:
        shape = " × ".join(map(str, chosen.shape)) or "one"
        raise ValueError(
            f"Latent '{chosen.name}' ({shape} of them) is not one number for each element of one "
            f"plate, and so no class of a sample. em.posterior(params, ...)['{chosen.name}'] has "
            "the probabilities of all its values."
        )
    return chosen
