"""What the values of a latent are like: a profile over items or features for each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes

from emjax.plot.fits import AnyFit
from emjax.plot.profile_values import Profiles, profiles_of
from emjax.plot.style import colors, grid, legible, panel, panels, styled

# of more features than can be told apart along an axis, those with the largest values
MOST_FEATURES = 40
LARGEST = 12


@styled
def profiles(
    fit: AnyFit, parameter: str | None = None, intervals: Any = None, ax: Any = None
) -> Axes | np.ndarray:
    """Draw what each value of a latent is like: a profile over items or features; return the axes.

    A line for each value of the latent, over items or features; of answers of several categories, a
    panel for each value, whose bars are the probabilities of the categories; of very many features,
    the largest of each. `parameter`: which one; default: the first that an observed site reads, or
    where a latent chooses several sites, the mean of each or the probabilities of its categories.
    `intervals`: standard errors of the fit, `emjax.standard_errors(fit)`, whose 95 % intervals are
    drawn; True computes them. `ax`: the axes to draw on. Errors: `ValueError` for a program without
    such a parameter, and for intervals of what is drawn as bars or of several sites.
    """
    profile = profiles_of(fit, parameter, intervals)
    lacks_lines = bool(profile.categories) or len(profile.features) > MOST_FEATURES
    if intervals is not None and intervals is not False and (lacks_lines or profile.low is None):
        raise ValueError(
            "Intervals are drawn of one parameter that has one number for each feature: name it, "
            "emjax.plot.profiles(fit, parameter=..., intervals=...). emjax.summary(fit) has all."
        )
    if profile.categories:
        return _draw_categories(profile, ax)
    if len(profile.features) > MOST_FEATURES:
        return _draw_largest(profile, ax)
    if len(profile.features) == 1:
        return _draw_single(profile, ax)
    return _draw_lines(profile, ax)


# ── what is drawn ─────────────────────────────────────────────────────────────────────────────────


def _draw_lines(profile: Profiles, ax: Any) -> Axes:
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


def _draw_single(profile: Profiles, ax: Any) -> Axes:
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


def _draw_interval(ax: Axes, places: Any, profile: Profiles, k: int, color: str) -> None:
    if profile.low is not None and profile.high is not None:
        ends = profile.low[k], profile.high[k]
        ax.vlines(places, *ends, color=color, linewidth=1.4, alpha=0.8)


def _name_features(ax: Axes, names: Sequence[str]) -> None:
    """Write names along an axis, slanting where they would not fit side by side."""
    # inches for each, less than those of the figure: there may be a legend beside
    room = 0.75 * ax.get_window_extent().width / ax.figure.dpi / len(names)
    if max(map(len, names)) * 0.075 > room:
        ax.set_xticks(range(len(names)), names, rotation=35, ha="right", rotation_mode="anchor")
    else:
        ax.set_xticks(range(len(names)), names)


def _draw_categories(profile: Profiles, ax: Any) -> np.ndarray:
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


def _draw_largest(profile: Profiles, ax: Any) -> np.ndarray:
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
