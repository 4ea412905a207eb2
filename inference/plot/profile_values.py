"""What the values of a latent are like, as numbers: a profile over items or features for each."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from emjax.families.limits import is_simplex, limits_of
from emjax.fit import Fit
from emjax.m_step.wiring_view import WiringView
from emjax.plot.emissions import Emission, category_log_probs, emissions_of, names_of_joint
from emjax.plot.fits import AnyFit, array_of, axes_of, bound_of, chosen
from emjax.refits.standard_errors import StandardErrors
from emjax.refits.uncertainty import standard_errors
from emjax.run.bound import Bound


@dataclass(frozen=True, eq=False)
class Profiles:
    """What the values of a latent are like.

    - `values`: (class, feature), or (class, feature, category).
    - `low`, `high`: the ends of the intervals, of the same shape; None without intervals.
    - `classes`, `features`, `categories`: what they are called.
    - `what`: what is drawn; `is_probability`: whether it is between 0 and 1.
    """

    values: np.ndarray
    low: np.ndarray | None
    high: np.ndarray | None
    classes: tuple[str, ...]
    features: tuple[str, ...]
    categories: tuple[str, ...]
    what: str
    is_probability: bool


def profiles_of(fit: AnyFit, parameter: str | None, intervals: Any) -> Profiles:
    """Return the profiles of a fit: of a parameter, or where several sites are chosen, of these.

    Errors: `ValueError` where no latent chooses anything that is observed.
    """
    bound = bound_of(fit, "profiles", needs_data=False)
    names = _chosen_by_latents(bound)
    if parameter is None and (len(_sites(bound)) > 1 or not names):
        found = _of_sites(fit, bound)
        if found is not None:
            return found
    name = chosen(
        "parameter",
        parameter,
        names,
        "emjax.plot.profiles draws a parameter that a discrete latent chooses, such as probs in "
        "numpyro.sample('x', dist.Bernoulli(probs[z]).to_event(1), obs=x); there is none here.",
    )
    return _of_parameter(fit, bound, name, intervals)


def _of_parameter(fit: Fit, bound: Bound, name: str, intervals: Any) -> Profiles:
    """Return the profiles of a parameter, and their intervals."""
    graph, axes = bound.compiled.graph, axes_of(bound)[name]
    constraint = graph.parameters[name].constraint
    of_latents = [d for d, axis in enumerate(axes) if axis.name in graph.latents]
    others = [d for d in range(len(axes)) if d not in of_latents]
    # a distribution over categories beside features; of nothing else, these are the features
    has_categories = is_simplex(constraint) and len(others) > 1
    categories = tuple(map(str, axes[others.pop()].labels)) if has_categories else ()
    # categories are along the last axis
    order = [*of_latents, *others, *([len(axes) - 1] if has_categories else [])]
    shape = (math.prod(len(axes[d].labels) for d in of_latents), -1)
    shape += (len(categories),) if has_categories else ()

    def arranged(array: Any) -> np.ndarray:
        return np.asarray(array, float).transpose(order).reshape(shape)

    low, high = _interval(fit, name, intervals)
    limits = limits_of(constraint)
    is_unit = limits is not None and limits.equal(0, 1)
    return Profiles(
        arranged(array_of(fit, name)),
        None if low is None else arranged(low),
        None if high is None else arranged(high),
        _names([axes[d] for d in of_latents], has_axis_names=True),
        _names([axes[d] for d in others]) if others else (name,),
        categories,
        name,
        is_simplex(constraint) or is_unit,
    )


def _chosen_by_latents(bound: Bound) -> list[str]:
    """Return the parameters that observed sites read where a discrete latent says, but matrices."""
    graph, view, found = bound.compiled.graph, WiringView(bound.compiled.graph), []
    axes = axes_of(bound)
    for term in graph.terms:
        for table in term.arguments.values() if term.site.is_observed else ():
            for name in sorted(view.wire(table).parameters):
                names = [axis.name for axis in axes[name]]
                is_matrix = any(each.startswith("other_") for each in names)
                is_looked_up = any(each in graph.latents for each in names)
                if is_looked_up and not is_matrix and name not in found:
                    found.append(name)
    return found


def _interval(fit: Fit, name: str, intervals: Any) -> tuple[Any, Any]:
    """Return the ends of the intervals of a parameter; None, None without standard errors."""
    if intervals is None or intervals is False:
        return None, None
    if intervals is True:
        intervals = standard_errors(fit)
    if not isinstance(intervals, StandardErrors):
        raise ValueError(
            "intervals takes standard errors, emjax.standard_errors(fit), or True, and not "
            f"{type(intervals).__name__}."
        )
    return intervals.interval(intervals.level)[name]


def _names(axes: Sequence[Any], has_axis_names: bool = False) -> tuple[str, ...]:
    """Return what the entries along some axes are called."""
    labels = []
    for axis in axes:
        prefix = f"{axis.name} " if has_axis_names and axis.name else ""
        labels.append([f"{prefix}{label}" for label in axis.labels])
    return tuple(", ".join(each) for each in itertools.product(*labels))


# ── several sites ─────────────────────────────────────────────────────────────────────────────────


def _sites(bound: Bound) -> set[str]:
    """Return the observed sites that a discrete latent chooses."""
    terms = bound.compiled.graph.terms
    return {term.site.name for term in terms if term.site.is_observed and term.latent_axes}


def _of_sites(fit: Fit, bound: Bound) -> Profiles | None:
    """Return what each site is drawn from under each value of the latents, site by site.

    None where no site's distribution can be shown so.
    """
    for latent in bound.compiled.graph.latents:
        found, _ = emissions_of(fit, bound, latent)
        alike = [each for each in found if each.latents == found[0].latents]
        if not alike:
            continue
        categorical = [each for each in alike if _is_categorical(each)]
        if len(categorical) == len(alike):
            return _categories(bound, alike)
        return _means(bound, [each for each in alike if each not in categorical])
    return None


def _is_categorical(emission: Emission) -> bool:
    return emission.site.distribution.__name__.startswith("Categorical")


def _categories(bound: Bound, emissions: Sequence[Emission]) -> Profiles:
    """Return the probabilities of the categories of each site."""
    number = max(len(category_log_probs(each)) for each in emissions)
    values, features = [], []
    for each in emissions:
        probs = np.exp(category_log_probs(each))
        # one that has fewer categories has those of the others never
        probs = np.pad(probs, ((0, number - len(probs)), (0, 0), (0, 0)))
        values.append(probs.transpose(1, 2, 0))
        features += each.features
    classes, labels = names_of_joint(bound, emissions[0]), tuple(map(str, range(number)))
    values = np.concatenate(values, axis=1)
    return Profiles(values, None, None, tuple(classes), tuple(features), labels, "category", True)


def _means(bound: Bound, emissions: Sequence[Emission]) -> Profiles:
    """Return the mean of each site; where they have no one unit, in units of the data's spread."""
    mean = np.concatenate([each.mean for each in emissions], axis=1)
    features = tuple(name for each in emissions for name in each.features)
    classes, what = tuple(names_of_joint(bound, emissions[0])), "mean"
    are_answers = all(each.site.distribution.__name__.startswith("Bernoulli") for each in emissions)
    if are_answers:
        what = "probability"
    else:
        centers = np.concatenate([np.nanmean(each.data, axis=0) for each in emissions])
        spreads = np.concatenate([np.nanstd(each.data, axis=0) for each in emissions])
        mean = (mean - centers) / np.where(spreads > 0, spreads, 1)
        what = "mean (standard deviations from that of all)"
    return Profiles(mean, None, None, classes, features, (), what, are_answers)
