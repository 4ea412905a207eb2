"""Points, the components that explain them, and how certain each point's component is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Ellipse
from numpyro import distributions as dist

from emjax.families.distributions import PartiallyObserved
from emjax.fit import Fit
from emjax.plot.emissions import Emission, emissions_of, posterior_of
from emjax.plot.fits import AnyFit, bound_of, chosen, values_of
from emjax.plot.style import INK, colors, panel, panels, styled
from emjax.run.bound import Bound

NORMALS = (dist.Normal, dist.MultivariateNormal, PartiallyObserved)
# of so many dimensions a matrix of pairs is still read
MOST_DIMS = 5
# how many standard deviations away the ellipses are drawn
SPREADS = (1.0, 2.0)


@styled
def clusters(
    fit: AnyFit,
    latent: str | None = None,
    dims: Sequence[Any] | None = None,
    uncertainty: str | None = "alpha",
    ax: Any = None,
) -> Axes | np.ndarray:
    """Draw the data by the latent that chose their distribution; return the axes.

    Of one dimension, a histogram with the density of each component times its share; of two, points
    and the ellipses at one and two standard deviations; of more, a matrix of pairs. The color of a
    point is that of its most probable value; `uncertainty` shows how probable: "alpha" makes
    uncertain points pale, "size" large, None neither.

    `latent`: which one; default: the first that chooses a distribution. `dims`: which of the data's
    coordinates, by name or number; default: all, of more than five those that differ most from
    value to value. `ax`: the axes to draw on, of more than two dimensions (d, d) of them. Errors:
    `ValueError` where no latent chooses the distribution of the data.
    """
    if uncertainty not in ("alpha", "size", None):
        raise ValueError(f"uncertainty must be 'alpha', 'size' or None, not {uncertainty!r}.")
    drawing = _Clusters(fit, latent, dims, uncertainty)
    number = len(drawing.dims)
    if number == 1:
        return drawing.histogram(panel(ax), 0)
    if number == 2:
        return drawing.points(panel(ax, 6.0, 4.6), 0, 1, has_legend=True)
    axes = panels(ax, number, number, 1.9, 1.7)
    for row in range(number):
        for column in range(number):
            drawing.pair(axes[row, column], row, column)
    drawing.legend(axes[0, -1])
    return axes


class _Clusters:
    """The data, (row, feature), and the components, (joint value, feature), that are drawn."""

    def __init__(self, fit: AnyFit, latent: str | None, dims: Any, uncertainty: str | None):
        bound = bound_of(fit, "clusters")
        self.latent, emissions = _chosen_by(fit, bound, latent)
        self.uncertainty = uncertainty
        self.names = values_of(bound, self.latent)
        self.colors = colors(len(self.names))
        posterior = posterior_of(fit, self.latent)
        # whole numbers beside measurements are no coordinates of points
        measured = [each for each in emissions if not each.site.is_discrete]
        emissions = measured or emissions
        first = emissions[0]
        # sites of other rows would be other points
        alike = [each for each in emissions if len(each.data) == len(first.data)]
        self.emissions = [each for each in alike if each.latents == first.latents]
        self.data = np.concatenate([each.data for each in self.emissions], axis=1)
        self.features = [name for each in self.emissions for name in each.features]
        self.probability = posterior[first.elements[self.latent]]
        is_seen = ~np.isnan(self.data).all(axis=1)
        self.data, self.probability = self.data[is_seen], self.probability[is_seen]
        self.value_of_joint = first.values[:, first.latents.index(self.latent)]
        self.is_chosen = ~np.isnan(self.mean).any(axis=1)
        self.share = self._shares(fit, first)
        self.dims = self._dims(dims)
        if any(each.site.is_discrete for each in self.emissions) and len(self.dims) > 1:
            raise ValueError(
                "emjax.plot.clusters draws points, and these data are whole numbers: "
                "emjax.plot.profiles(fit) draws what each value is like; dims=[0] draws one of "
                "their dimensions."
            )

    def _shares(self, fit: Fit, emission: Emission) -> np.ndarray:
        """Return which share of the data each joint value explains."""
        shares = np.ones(len(emission.values))
        # of several latents, as if they were independent given the first: only heights of curves
        for number, latent in enumerate(emission.latents):
            mean = posterior_of(fit, latent)[emission.elements[latent]].mean(axis=0)
            shares *= mean[emission.values[:, number]]
        return shares / shares.sum()

    @property
    def mean(self) -> np.ndarray:
        return np.concatenate([each.mean for each in self.emissions], axis=1)

    @property
    def covariance(self) -> np.ndarray:
        """The covariances of the sites side by side, (joint value, feature, feature)."""
        size, start = self.data.shape[1], 0
        matrix = np.zeros((len(self.value_of_joint), size, size))
        for each in self.emissions:
            stop = start + each.num_features
            matrix[:, start:stop, start:stop] = each.covariance
            start = stop
        return matrix

    def _dims(self, dims: Any) -> list[int]:
        """Return the numbers of the features that are drawn."""
        if dims is None:
            number = self.data.shape[1]
            if number <= MOST_DIMS:
                return list(range(number))
            apart = np.nanvar(self.mean[self.is_chosen], axis=0) / np.nanvar(self.data, axis=0)
            return sorted(np.argsort(-apart)[:MOST_DIMS].tolist())
        numbers = []
        for dim in [dims] if isinstance(dims, str | int) else dims:
            if dim in self.features:
                numbers.append(self.features.index(dim))
            elif isinstance(dim, int | np.integer) and -len(self.features) <= dim:
                numbers.append(range(len(self.features))[dim])
            else:
                raise ValueError(f"dims: there is no {dim!r} among {self.features}.")
        return numbers

    # ── what is drawn ─────────────────────────────────────────────────────────────────────────────

    def pair(self, ax: Axes, row: int, column: int) -> None:
        """Draw one panel of the matrix of pairs."""
        last = len(self.dims) - 1
        if column > row:
            ax.set_axis_off()
            return
        if row == column:
            self.histogram(ax, row, is_small=True)
        else:
            self.points(ax, column, row)
        ax.set_xlabel(self.features[self.dims[column]] if row == last else "")
        ax.set_ylabel(self.features[self.dims[row]] if column == 0 else "")
        ax.tick_params(labelbottom=row == last, labelleft=column == 0 and row > 0)

    def points(self, ax: Axes, x: int, y: int, has_legend: bool = False) -> Axes:
        """Draw two dimensions: the points, and an ellipse for each component."""
        pair = [self.dims[x], self.dims[y]]
        best = self.probability.argmax(axis=1)
        # the points of all values in one call: none lies on top by its number
        face = np.array([to_rgb(self.colors[k]) for k in best])
        size, alpha = self._sizes(len(best))
        ax.scatter(*self.data[:, pair].T, c=face, s=size, alpha=alpha, linewidths=0)
        means, covariances = self.mean[:, pair], self.covariance[:, pair][:, :, pair]
        for joint in np.flatnonzero(self.is_chosen):
            color = self.colors[self.value_of_joint[joint]]
            for spread in SPREADS:
                ax.add_patch(ellipse(means[joint], covariances[joint], spread, color))
        ax.set(xlabel=self.features[pair[0]], ylabel=self.features[pair[1]])
        if has_legend:
            self.legend(ax)
        return ax

    def _sizes(self, number: int) -> tuple[Any, Any]:
        """Return the size and the alpha of each point."""
        usual = 26.0 if number < 400 else 12.0
        least = 1 / len(self.names)
        certainty = (self.probability.max(axis=1) - least) / (1 - least)
        if self.uncertainty == "alpha":
            return usual, 0.2 + 0.6 * certainty
        if self.uncertainty == "size":
            return usual * (0.5 + 3.5 * (1 - certainty)), 0.6
        return usual, 0.6

    def histogram(self, ax: Axes, x: int, is_small: bool = False) -> Axes:
        """Draw one dimension: a histogram, and the density of each component times its share."""
        dim = self.dims[x]
        values = self.data[:, dim]
        seen = ~np.isnan(values)
        bins, grid_of_x = bins_and_grid(values[seen])
        ax.hist(values[seen], bins, density=True, color="#E4E4E4", edgecolor="white", linewidth=0.4)
        densities = self.share[:, None] * self._densities(dim, grid_of_x)
        dots = {"marker": "o", "markersize": 3.5} if self.emissions[0].site.is_discrete else {}
        for joint in np.flatnonzero(self.is_chosen):
            color = self.colors[self.value_of_joint[joint]]
            ax.plot(grid_of_x, densities[joint], color=color, linewidth=1.6, **dots)
        if self.is_chosen.sum() > 1 and not is_small:
            total = densities[self.is_chosen].sum(axis=0)
            ax.plot(grid_of_x, total, color=INK, linewidth=0.9, linestyle=":")
        ax.set(xlabel=self.features[dim], ylim=(0, None))
        if not is_small:
            ax.set_ylabel("share" if dots else "density")
            self.legend(ax)
        return ax

    def _densities(self, dim: int, values: np.ndarray) -> np.ndarray:
        """Return the density of one feature under each joint value, (joint, number)."""
        first = self.emissions[0]
        if not issubclass(first.site.distribution, NORMALS) and len(self.emissions) == 1:
            distribution = first.distribution
            along = values.reshape(-1, *(1,) * len(distribution.batch_shape))
            densities = np.exp(np.asarray(distribution.log_prob(along)))
            densities = densities.reshape(len(values), len(self.share), -1)
            return densities[:, :, dim if densities.shape[2] > 1 else 0].T
        mean = self.mean[:, dim, None]
        variance = self.covariance[:, dim, dim, None]
        squares = (values - mean) ** 2 / variance
        return np.exp(-squares / 2) / np.sqrt(2 * np.pi * variance)

    def legend(self, ax: Axes) -> None:
        """Draw what the colors are."""
        handles = []
        for name, color in zip(self.names, self.colors, strict=True):
            handles.append(ax.scatter([], [], color=color, s=26, label=name))
        ax.legend(handles=handles, loc="best", handletextpad=0.2)


def _chosen_by(fit: Fit, bound: Bound, latent: str | None) -> tuple[str, list[Emission]]:
    """Return the latent, and the sites that it chooses."""
    by_latent: dict[str, list[Emission]] = {}
    reasons: list[str] = []
    for name in bound.compiled.graph.latents:
        found, why = emissions_of(fit, bound, name)
        reasons += why
        if found:
            by_latent[name] = found
    because = f" ({'; '.join(dict.fromkeys(reasons))})" if reasons else ""
    name = chosen(
        "latent",
        latent,
        list(by_latent),
        "emjax.plot.clusters draws data whose distribution a discrete latent chooses, such as "
        f"numpyro.sample('x', dist.Normal(loc[z], scale), obs=x); there are none here{because}.",
    )
    return name, by_latent[name]


def ellipse(mean: np.ndarray, covariance: np.ndarray, spread: float, color: str) -> Ellipse:
    """Return where a bivariate normal is `spread` standard deviations from its mean."""
    variances, directions = np.linalg.eigh(covariance)
    widths = 2 * spread * np.sqrt(np.maximum(variances, 0))
    angle = np.degrees(np.arctan2(directions[1, 1], directions[0, 1]))
    return Ellipse(
        (float(mean[0]), float(mean[1])),
        widths[1],
        widths[0],
        angle=angle,
        facecolor="none",
        edgecolor=color,
        linewidth=1.6 if spread == SPREADS[0] else 0.9,
    )


def bins_and_grid(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the edges of a histogram, and a grid on which densities are drawn."""
    low, high = values.min(), values.max()
    is_whole = (values == np.round(values)).all() and high - low <= 60
    if is_whole:
        return np.arange(low - 0.5, high + 1.5), np.arange(low, high + 1)
    margin = 0.05 * (high - low)
    edges = np.histogram_bin_edges(values, min(50, max(12, int(1.5 * len(values) ** 0.5))))
    return edges, np.linspace(low - margin, high + margin, 300)
