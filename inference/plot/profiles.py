"""What the values of a latent are like: a profile over items or features for each."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes

from emjax.families.limits import is_simplex, limits_of
from emjax.fit import Fit
from emjax.m_step.wiring_view import WiringView
from emjax.plot.fits import array_of, axes_of, bound_of, chosen
from emjax.plot.style import colors, grid, legible, panel, panels, styled
from emjax.refits.standard_errors import StandardErrors
from emjax.refits.uncertainty import standard_errors
from emjax.run.bound import Bound

# of more features than can be told apart along an axis, those with the largest values
MOST_FEATURES = 40
LARGEST = 12


@dataclass(frozen=True, eq=False)
class _Profiles:
    """A parameter as profiles.

    - `values`: (class, feature), or (class, feature, category).
    - `low`, `high`: the ends of the intervals, of the same shape; None without intervals.
    - `classes`, `features`, `categories`: what they are called.
    - `what`: the parameter; `is_probability`: whether it is between 0 and 1.
    """

    values: np.ndarray
    low: np.ndarray | None
    high: np.ndarray | None
    classes: tuple[str, ...]
    features: tuple[str, ...]
    categories: tuple[str, ...]
    what: str
    is_probability: bool


@styled
def profiles(
    fit: Fit, parameter: str | None = None, intervals: Any = None, ax: Any = None
) -> Axes | np.ndarray:
    """Draw a parameter that a latent chooses: a profile for each of its values; return the axes.

    A line for each value of the latent, over items or features; of answers of several categories, a
    panel for each value, whose bars are the probabilities of the categories; of very many features,
    the largest of each. `parameter`: which one; default: the first that an observed site reads.
    `intervals`: standard errors of the fit, `emjax.standard_errors(fit)`, whose 95 % intervals are
    drawn; True computes them. `ax`: the axes to draw on. Errors: `ValueError` for a program without
    such a parameter.
    """
    profile = _profiles(fit, parameter, intervals)
    if profile.categories:
        return _draw_categories(profile, ax)
    if len(profile.features) > MOST_FEATURES:
        return _draw_largest(profile, ax)
    if len(profile.features) == 1:
        return _draw_single(profile, ax)
    return _draw_lines(profile, ax)


def _profiles(fit: Fit, parameter: str | None, intervals: Any) -> _Profiles:
    """Return the profiles of a fit's parameter."""
    bound = bound_of(fit, "profiles", needs_data=False)
    name = chosen(
        "parameter",
        parameter,
        _chosen_by_latents(bound),
        "emjax.plot.profiles draws a parameter that a discrete latent chooses, such as probs in "
        "numpyro.sample('x', dist.Bernoulli(probs[z]).to_event(1), obs=x); there is none here.",
    )
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
    is_unit = limits is not None and str(limits) == "(0, 1)"
    return _Profiles(
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


# ── what is drawn ─────────────────────────────────────────────────────────────────────────────────


def _draw_lines(profile: _Profiles, ax: Any) -> Axes:
    """Draw a line over the features for each class."""
    number = len(profile.features)
    ax = panel(ax, min(11.0, max(4.5, 2.0 + 0.55 * number)), 3.8)
    places, shades = np.arange(number), colors(len(profile.classes))
    for k, (name, color) in enumerate(zip(profile.classes, shades, strict=True)):
        # beside one another, so that no interval hides another
        shift = 0.0 if profile.low is None else 0.12 * (k - (len(profile.classes) - 1) / 2)
        shift = shift / max(1, len(profile.classes) / 4)
        line = {"color": color, "marker": "o", "markersize": 5, "label": name}
        ax.plot(places + shift, profile.values[k], **line)
        _draw_interval(ax, places + shift, profile, k, color)
    _name_features(ax, profile.features)
    ax.set(ylabel=profile.what, xlim=(-0.4, number - 0.6))
    if profile.is_probability:
        ax.set_ylim(-0.03, 1.03)
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    grid(ax)
    return ax


def _draw_single(profile: _Profiles, ax: Any) -> Axes:
    """Draw the one number of each class."""
    number = len(profile.classes)
    ax = panel(ax, max(3.0, 1.2 + 0.8 * number), 3.2)
    for k, color in enumerate(colors(number)):
        ax.plot(k, profile.values[k, 0], "o", color=color, markersize=8)
        _draw_interval(ax, np.array([k]), profile, k, color)
    _name_features(ax, profile.classes)
    ax.set(ylabel=profile.what, xlim=(-0.5, number - 0.5))
    if profile.is_probability:
        ax.set_ylim(-0.03, 1.03)
    grid(ax)
    return ax


def _draw_interval(ax: Axes, places: Any, profile: _Profiles, k: int, color: str) -> None:
    if profile.low is not None and profile.high is not None:
        ends = profile.low[k], profile.high[k]
        ax.vlines(places, *ends, color=color, linewidth=1.4, alpha=0.8)


def _name_features(ax: Axes, names: Sequence[str]) -> None:
    longest = max(map(len, names))
    if longest * len(names) > 70:
        ax.set_xticks(range(len(names)), names, rotation=35, ha="right", rotation_mode="anchor")
    else:
        ax.set_xticks(range(len(names)), names)


def _draw_categories(profile: _Profiles, ax: Any) -> np.ndarray:
    """Draw a panel for each class: the probabilities of the categories, item by item."""
    number, height = len(profile.classes), max(1.8, 0.6 + 0.27 * len(profile.features))
    across = panels(ax, 1, number, 2.6, height, sharey=True)[0]
    shades = matplotlib.colormaps["cividis"](np.linspace(0.08, 0.95, len(profile.categories)))
    rows = np.arange(len(profile.features))
    for k, (one, color) in enumerate(zip(across, colors(number), strict=True)):
        ends = profile.values[k].cumsum(axis=1)
        for category, (name, shade) in enumerate(zip(profile.categories, shades, strict=True)):
            width = profile.values[k, :, category]
            start = ends[:, category] - width
            one.barh(rows, width, left=start, color=shade, height=0.8, label=name)
            _write_in_bars(one, rows, start, width, legible(shade))
        one.set_title(profile.classes[k], color=color, weight="bold")
        one.set(xlim=(0, 1), xlabel="probability")
        one.set_xticks([0, 0.5, 1], ["0", "½", "1"])
        one.tick_params(axis="y", length=0)
    across[0].set_yticks(rows, profile.features)
    across[0].invert_yaxis()
    across[-1].legend(title=profile.what, loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return across


def _write_in_bars(ax: Axes, rows: np.ndarray, start: Any, width: Any, color: str) -> None:
    """Write what a probability is into its bar, where it is wide enough."""
    for row, left, size in zip(rows, start, width, strict=True):
        if size >= 0.18:
            style = {"ha": "center", "va": "center", "fontsize": 7.5, "color": color}
            ax.text(left + size / 2, row, f"{size:.2f}".lstrip("0"), **style)


def _draw_largest(profile: _Profiles, ax: Any) -> np.ndarray:
    """Draw a panel for each class: its largest values, sorted."""
    number = len(profile.classes)
    columns = min(number, 4)
    rows = math.ceil(number / columns)
    axes = panels(ax, rows, columns, 2.4, 2.8, sharex=True)
    for k, one in enumerate(axes.flat):
        if k >= number:
            one.set_axis_off()
            continue
        order = np.argsort(-profile.values[k])[:LARGEST]
        one.barh(range(LARGEST), profile.values[k, order], color=colors(number)[k], height=0.75)
        one.set_yticks(range(LARGEST), [profile.features[i] for i in order])
        one.invert_yaxis()
        one.tick_params(axis="y", length=0)
        one.set_title(profile.classes[k], weight="bold")
        if k // columns == rows - 1:
            one.set_xlabel(profile.what)
    return axes[0] if rows == 1 else axes
