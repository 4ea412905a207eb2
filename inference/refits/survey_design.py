"""How the samples of a survey were drawn: strata, clusters within them, and out of how many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int


@dataclass(frozen=True, eq=False)
class SurveyDesign:
    """Which units were drawn together, out of which part of the population.

    - `cluster`: the number of each unit's cluster (primary sampling unit); clusters are numbered
      stratum by stratum.
    - `stratum`: that of each cluster.
    - `sizes`: how many clusters of each stratum are in the sample.
    - `fractions`: which part of the stratum's clusters that is; 0 where it is not known.
    - `strata`, `clusters`: how the user calls them.
    - `num_counted`: how many clusters, and how many strata, anything is observed of.
    """

    cluster: Int[np.ndarray, "unit"]
    stratum: Int[np.ndarray, "cluster"]
    sizes: Int[np.ndarray, "stratum"]
    fractions: Float[np.ndarray, "stratum"]
    strata: Sequence[Any]
    clusters: Sequence[Any]
    num_counted: tuple[int, int]

    @property
    def degrees_of_freedom(self) -> int:
        """Clusters less strata, of those that anything is observed of."""
        num_clusters, num_strata = self.num_counted
        return num_clusters - num_strata

    @property
    def factors(self) -> Float[np.ndarray, "stratum"]:
        """(1 − f) n / (n − 1) of each stratum; 0 for a cluster that was certain to be drawn."""
        sizes = self.sizes
        is_one = sizes == 1
        return np.where(is_one, 0, (1 - self.fractions) * sizes / np.where(is_one, 1, sizes - 1))

    def variance_of_total(
        self, of_units: Float[np.ndarray, "coordinate unit"]
    ) -> Float[np.ndarray, "coordinate coordinate"]:
        """Return the variance of a sum over units, as clusters vary within strata.

        Σ_h (1 − f_h) n_h / (n_h − 1) Σ_i (t_hi − t̄_h)(t_hi − t̄_h)ᵀ, with t_hi the sum over cluster
        i of stratum h. Source: Binder (1983), International Statistical Review 51.
        """
        totals = summed(of_units.T, self.cluster, len(self.stratum))
        means = summed(totals, self.stratum, len(self.sizes)) / self.sizes[:, None]
        deviations = totals - means[self.stratum]
        return (deviations.T * self.factors[self.stratum]) @ deviations

    def jackknife_deviations(
        self, without: Float[np.ndarray, "cluster ..."]
    ) -> Float[np.ndarray, "cluster ..."]:
        """Return deviations of estimates without each cluster, from their mean in the stratum.

        Their squares add up to the variance: each has √((1 − f_h) (n_h − 1) / n_h) in front.
        """
        flat = without.reshape(len(without), -1)
        means = summed(flat, self.stratum, len(self.sizes)) / self.sizes[:, None]
        factors = (1 - self.fractions) * (self.sizes - 1) / self.sizes
        deviations = np.sqrt(factors[self.stratum])[:, None] * (flat - means[self.stratum])
        return deviations.reshape(without.shape)

    def __str__(self) -> str:
        num_clusters, num_strata = len(self.stratum), len(self.sizes)
        words = f"{num_clusters} {'clusters' if num_clusters < len(self.cluster) else 'elements'}"
        if num_strata > 1:
            words += f" in {num_strata} strata"
        if self.fractions.any():
            words += ", of a finite population"
        return f"{words}, {self.degrees_of_freedom} degrees of freedom"


def summed(
    values: Float[np.ndarray, "element value"], group: Int[np.ndarray, "element"], size: int
) -> Float[np.ndarray, "group value"]:
    """Return the sum over the elements of each group."""
    sums = np.zeros((size, values.shape[1]))
    np.add.at(sums, group, values)
    return sums


def survey_design(
    size: int,
    has_data: Bool[np.ndarray, "unit"],
    strata: Any = None,
    clusters: Any = None,
    population: Any = None,
) -> SurveyDesign:
    """Return how `size` units were drawn.

    `strata`, `clusters`: a label for each unit; None: one stratum, each unit by itself. A cluster
    is in one stratum: equal labels in two strata are two clusters. `population`: of how many
    clusters each stratum's were drawn without replacement, {stratum: number}, or one number for
    all; a stratum that is left out is large. `has_data`: whether anything is observed of each unit.

    Errors: `ValueError` for labels of another number or that are missing, for a stratum of one
    cluster, and for a population that is smaller than its sample.
    """
    stratum_of_unit, names = _numbered("strata", strata, size, np.zeros(size, int))
    label_of_unit, labels = _numbered("clusters", clusters, size, np.arange(size))
    pairs = np.stack([stratum_of_unit, label_of_unit], axis=1)
    distinct, cluster = np.unique(pairs, axis=0, return_inverse=True)
    cluster = cluster.reshape(-1)
    stratum = distinct[:, 0]
    sizes = np.bincount(stratum, minlength=len(names))
    design = SurveyDesign(
        cluster,
        stratum,
        sizes,
        _fractions(population, names, sizes, strata is not None),
        names,
        [labels[number] for number in distinct[:, 1]],
        (len(np.unique(cluster[has_data])), len(np.unique(stratum_of_unit[has_data]))),
    )
    _check_several(design, strata is not None)
    return design


def _numbered(argument: str, labels: Any, size: int, otherwise: Any) -> tuple[np.ndarray, list]:
    """Return the number of each unit's label, and the labels in order."""
    array = otherwise if labels is None else np.asarray(labels)
    if array.shape != (size,):
        raise ValueError(
            f"{argument} has shape {array.shape}, and the plate has {size} elements. Pass a label "
            "for each element: a column of the data."
        )
    is_missing = missing_in(array)
    if is_missing.any():
        raise ValueError(
            f"{argument} has no label for {is_missing.sum()} of {size} elements, the first of them "
            f"number {is_missing.argmax()}. Give each its own, or leave these elements out."
        )
    if array.dtype == object:
        # of labels of several types there is no order
        array = array.astype(str)
    distinct, number = np.unique(array, return_inverse=True)
    return number.reshape(-1), distinct.tolist()


def missing_in(values: np.ndarray) -> np.ndarray:
    """Return where values are missing: None, NaN, or what pandas has for them."""
    is_missing = np.zeros(values.shape, bool)
    if values.dtype != object:
        return np.isnan(values) if values.dtype.kind == "f" else is_missing
    for place, value in np.ndenumerate(values):
        # of what is missing to pandas nothing is true, not even that it equals itself
        try:
            is_missing[place] = value is None or bool(value != value)
        except TypeError:
            is_missing[place] = True
    return is_missing


def _fractions(population: Any, names: list, sizes: np.ndarray, has_strata: bool) -> np.ndarray:
    """Return which part of each stratum's clusters is in the sample."""
    if population is None:
        return np.zeros(len(sizes))
    if isinstance(population, Mapping):
        numbers = {str(name): number for name, number in population.items()}
        unknown = set(numbers) - set(map(str, names))
        if unknown or not has_strata:
            known = f"its strata are {names}" if has_strata else "there are no strata=..."
            raise ValueError(
                f"population counts the clusters of each stratum, and {known}: it has "
                f"{sorted(unknown) or sorted(numbers)}."
            )
        totals = np.array([numbers.get(str(name), np.inf) for name in names], float)
    elif np.ndim(population) or np.asarray(population).dtype.kind not in "iuf":
        raise ValueError(
            f"population is {population!r}. Pass {{stratum: number of its clusters}}, or one "
            "number for all strata."
        )
    else:
        totals = np.full(len(sizes), float(population))
    for name, total, size in zip(names, totals, sizes, strict=True):
        # written so that NaN is none, either
        if not total >= size:
            raise ValueError(
                f"population says {total:g} clusters"
                + (f" of stratum {name!r}" if has_strata else "")
                + f", and the sample has {size}. It is how many there are in all (elements, where "
                "there are no clusters); where that is not known, leave it out."
            )
    return sizes / totals


def _check_several(design: SurveyDesign, has_strata: bool) -> None:
    """Raise `ValueError` for a stratum of one cluster, unless it was certain to be drawn."""
    is_single = (design.sizes == 1) & (design.fractions < 1)
    if not is_single.any():
        return
    if not has_strata:
        raise ValueError(
            "There is one cluster, and nothing says how clusters vary. Pass clusters=... with a "
            "label for each element, two or more different ones."
        )
    number = int(np.argmax(is_single))
    name, others = (
        design.strata[number],
        [other for other in design.strata if other != design.strata[number]],
    )
    neighbor = others[0] if others else "another"
    raise ValueError(
        f"Stratum {name!r} has one cluster, and nothing says how its clusters vary. Merge it with "
        f"a stratum like it, np.where(strata == {name!r}, {neighbor!r}, strata); or, if it was "
        f"certain to be drawn, say so: population={{{name!r}: 1}}."
    )
