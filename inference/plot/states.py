"""A series with its decoded states, and how probable each state is over time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from emjax.fit import Fit
from emjax.naming.axes import program_axes
from emjax.plot.emissions import Emission, emissions_of
from emjax.plot.fits import AnyFit, bound_of, chosen, values_of
from emjax.plot.rows import observed_at
from emjax.plot.style import GREY, INK, colors, panel, panels, styled
from emjax.run.bound import Bound


@styled
def states(
    fit: AnyFit, latent: str | None = None, sequence: int = 0, ax: Any = None
) -> Axes | np.ndarray:
    """Draw a series with the states of its chain; return the axes.

    Of a discrete chain two panels: above, what was observed, on the colors of the most probable
    path of states, with the mean of each state where it is; below, the posterior of each state at
    each time. Of a chain of Gaussian states one: their mean and two standard deviations about it.

    `latent`: which chain; default: the first. `sequence`: which one, of several. `ax`: the axes to
    draw on, of a discrete chain two. Errors: `ValueError` for a program without a chain.
    """
    bound = bound_of(fit, "states")
    graph = bound.compiled.graph
    series = {**graph.latents, **graph.gaussians}
    name = chosen(
        "latent",
        latent,
        [name for name, each in series.items() if each.is_series],
        "emjax.plot.states draws the states of a chain, a latent within numpyro's scan, and the "
        "program has none.",
    )
    if name in graph.gaussians:
        return _draw_gaussian(fit, bound, name, sequence, panel(ax, 9.0, 3.2))
    axes = panels(ax, 2, 1, 9.0, 1.9, sharex=True, height_ratios=[2, 1]).ravel()
    _Decoded(fit, bound, name, sequence).draw(axes)
    return axes


class _Decoded:
    """One sequence of a discrete chain: its times, path, posterior, and what was observed."""

    def __init__(self, fit: Fit, bound: Bound, latent: str, sequence: int):
        posterior = np.asarray(fit.posterior()[latent], float)
        length, size = posterior.shape[0], posterior.shape[-1]
        by_sequence = posterior.reshape(length, -1, size)
        number = by_sequence.shape[1]
        if not -number <= sequence < number:
            raise ValueError(f"sequence={sequence}: there are {number}, counted from 0.")
        self.names, self.colors = values_of(bound, latent), colors(size)
        axis = program_axes(bound).of_elements(latent)[0]
        self.labels, self.time_name = axis.labels, axis.name or "time"
        emissions, _ = emissions_of(fit, bound, latent)
        number_of_steps = np.arange(length) * number + range(number)[sequence]
        self.observed = [_of_steps(each, latent, number_of_steps) for each in emissions]
        is_seen = np.zeros(length, bool)
        for _, values in self.observed:
            is_seen |= ~np.isnan(values).all(axis=1)
        # a shorter sequence ends before the others
        self.length = int(np.flatnonzero(is_seen).max()) + 1 if is_seen.any() else length
        path = np.asarray(fit.decode()[latent]).reshape(length, -1)[:, sequence]
        support = np.asarray(bound.compiled.graph.latents[latent].support)
        self.path = np.array([int(np.flatnonzero(support == one)[0]) for one in path])
        self.posterior, self.latent = by_sequence[:, sequence], latent

    def draw(self, axes: np.ndarray) -> None:
        """Draw both panels."""
        above, below = axes
        for start, stop, state in _stretches(self.path[: self.length]):
            shade = {"color": self.colors[state], "alpha": 0.16, "linewidth": 0}
            above.axvspan(start - 0.5, stop - 0.5, **shade)
        for emission, values in self.observed:
            self._draw_series(above, emission, values[: self.length])
        names = [name for emission, _ in self.observed for name in emission.features]
        above.set_ylabel(names[0] if len(names) == 1 else "")
        below.stackplot(
            # each time is as wide as any other
            np.repeat(np.arange(self.length + 1) - 0.5, 2)[1:-1],
            np.repeat(self.posterior[: self.length], 2, axis=0).T,
            colors=self.colors,
            labels=self.names,
            linewidth=0,
        )
        below.set(ylim=(0, 1), xlim=(-0.5, self.length - 0.5), xlabel=self.time_name)
        below.set_ylabel(f"p({self.latent})")
        below.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
        _name_times(below, self.labels[: self.length])

    def _draw_series(self, ax: Axes, emission: Emission, values: np.ndarray) -> None:
        """Draw what was observed, and the mean of the state that each time is in."""
        steps = np.arange(len(values))
        is_category = np.size(np.unique(values[~np.isnan(values)])) <= 12 and (
            emission.site.is_discrete
        )
        several = values.shape[1] > 1
        for number in range(values.shape[1]):
            color = [INK, GREY, "#A0A0A0"][number % 3] if several else INK
            style = {"marker": "o", "markersize": 2.5} if len(values) <= 300 else {}
            width = 0.0 if is_category else 0.9
            label = emission.features[number] if several else None
            ax.plot(steps, values[:, number], color=color, linewidth=width, label=label, **style)
        if several and values.shape[1] <= 6:
            ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
        if len(emission.latents) == 1 and not (is_category and _is_categorical(emission)):
            means = emission.mean[self.path[: self.length]]
            for number in range(values.shape[1]):
                for start, stop, state in _stretches(self.path[: self.length]):
                    height, color = means[start, number], self.colors[state]
                    ax.hlines(height, start - 0.5, stop - 0.5, color=color, linewidth=2)


def _is_categorical(emission: Emission) -> bool:
    """Whether what is observed are numbers of categories, which have no mean."""
    return emission.site.distribution.__name__.startswith("Categorical")


def _of_steps(emission: Emission, latent: str, elements: np.ndarray) -> tuple[Emission, np.ndarray]:
    """Return what was observed at each of some elements of a latent, (step, feature)."""
    values = np.full((len(elements), emission.num_features), np.nan)
    place = {int(element): step for step, element in enumerate(elements)}
    for element, row in zip(emission.elements[latent], emission.data, strict=True):
        if int(element) in place:
            values[place[int(element)]] = row
    return emission, values


def _stretches(path: np.ndarray) -> list[tuple[int, int, int]]:
    """Return where a path stays: (first step, the step after the last, state)."""
    changes = np.flatnonzero(np.diff(path)) + 1
    starts, stops = [0, *changes.tolist()], [*changes.tolist(), len(path)]
    return [(start, stop, int(path[start])) for start, stop in zip(starts, stops, strict=True)]


def _name_times(ax: Axes, labels: Sequence[Any]) -> None:
    """Write what the times are called, where they are not counted from zero."""
    if list(labels) == list(range(len(labels))):
        return
    places = list(range(0, len(labels), max(1, len(labels) // 8)))
    if all(isinstance(label, int) for label in labels):
        # round numbers, such as years
        round_ones = MaxNLocator(8, steps=[1, 2, 5, 10]).tick_values(labels[0], labels[-1])
        places = [place for place, label in enumerate(labels) if label in round_ones] or places
    ax.set_xticks(places, [str(labels[place]) for place in places])


def _draw_gaussian(fit: Fit, bound: Bound, latent: str, sequence: int, ax: Axes) -> Axes:
    """Draw the mean of Gaussian states, and two standard deviations about it."""
    moments, size = fit.posterior()[latent], bound.compiled.graph.gaussians[latent].size
    mean = np.asarray(moments["mean"], float)
    length = len(mean)
    mean = mean.reshape(length, -1, size)
    if not -mean.shape[1] <= sequence < mean.shape[1]:
        raise ValueError(f"sequence={sequence}: there are {mean.shape[1]}, counted from 0.")
    covariance = np.asarray(moments["covariance"], float).reshape(*mean.shape, size)
    spread = 2 * np.sqrt(np.diagonal(covariance, axis1=2, axis2=3))[:, sequence]
    mean, steps = mean[:, sequence], np.arange(length)
    if size == 1:
        _draw_observed(bound, latent, length, sequence, ax)
    for number, color in enumerate(colors(size)):
        name = f"{latent} {number}" if size > 1 else latent
        band = mean[:, number] - spread[:, number], mean[:, number] + spread[:, number]
        ax.fill_between(steps, *band, color=color, alpha=0.2, linewidth=0)
        ax.plot(steps, mean[:, number], color=color, label=name)
    ax.set(xlabel="time", ylabel=latent, xlim=(0, length - 1))
    ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
    return ax


def _draw_observed(bound: Bound, latent: str, length: int, sequence: int, ax: Axes) -> None:
    """Draw what is observed of a chain of single numbers, one number for each of its steps."""
    for term in bound.compiled.graph.terms:
        site = term.site
        is_read = site.is_observed and latent in [axis.source for axis in term.reads]
        if is_read and site.elements[:1] == (length,):
            values = observed_at(bound, site).reshape(length, -1)[:, sequence]
            style = {"color": GREY, "markersize": 3, "label": site.name}
            ax.plot(np.arange(length), values, "o", **style)
