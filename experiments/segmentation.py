"""Which pixels of a photograph are foreground, if only their colors are known?

A Gaussian mixture on the colors of every pixel, with M = 2 and M = 5 components. EM does not know
what a foreground is: components that are commoner in a box on the object than in a box on the
background are called foreground.
"""

from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from emjax import EM, compare_updates
from emjax.models import gaussian_mixture, k_means
from experiments import canvas, report

NUMS_COMPONENTS = (2, 5)
QUICK_EVERY = 6  # rows and columns are thinned
EM_SOFT = EM(
    gaussian_mixture.program, tol=1e-7, max_steps=300
)  # one for all: each size of picture compiles once
EM_HARD = EM(k_means.program, e_step="hard")


class Photograph(NamedTuple):
    """A photograph of scikit-learn, and two boxes that say what is the object.

    A box is (left, top, right, bottom) in pixels.
    """

    name: str
    finding: str
    foreground: tuple[int, int, int, int]
    background: tuple[int, int, int, int]

    def image(self, every: int = 1) -> np.ndarray:
        """Return the picture (row, column, RGB), integers from 0 to 255.

        `every` thins its rows and columns.
        """
        from sklearn.datasets import load_sample_image

        return load_sample_image(self.name)[::every, ::every]


PHOTOGRAPHS = (
    Photograph(
        "flower.jpg",
        "Colors alone find the flower; five components leave less of the leaves in it than two",
        (235, 140, 385, 300),
        (20, 10, 620, 60),
    ),
    Photograph(
        "china.jpg",
        "Colors alone part building and trees from sky and water",
        (115, 120, 310, 290),
        (380, 20, 600, 160),
    ),
)


class Segmentation(NamedTuple):
    """A fitted mixture, its components by falling weight.

    - `posterior`: p(component | color), (row, column, component).
    - `weights`, `colors`: of each component, (component,) and (component, RGB).
    - `is_foreground`: whether a component is commoner in the box of the object, (component,).
    - `num_steps`, `status`, `log_likelihood`: of EM, the last in nats, all pixels.
    """

    posterior: np.ndarray
    weights: np.ndarray
    colors: np.ndarray
    is_foreground: np.ndarray
    num_steps: int
    status: str
    log_likelihood: float

    @property
    def painted(self) -> np.ndarray:
        """Return the picture with every pixel in the mean color of its most probable component."""
        return self.colors[self.posterior.argmax(axis=-1)]

    @property
    def foreground(self) -> np.ndarray:
        """Return p(foreground | color) for every pixel."""
        return self.posterior[..., self.is_foreground].sum(axis=-1)


def pixels(image: np.ndarray) -> jax.Array:
    """Return the color of every pixel as (pixel, RGB) between 0 and 1.

    A level v stands for the interval [v, v + 1): each value is drawn uniformly from it. Else a
    component on saturated pixels, all of them 255, would have variance zero and the likelihood no
    bound.
    """
    levels = image.reshape(-1, 3)
    return jnp.asarray((levels + np.random.default_rng(0).random(levels.shape)) / 256)


def k_means_start(colors: jax.Array, num_components: int) -> dict:
    """Return a start for the mixture: means by hard EM on every seventh pixel.

    Each component has the spread of all pixels.
    """
    sample = colors[::7]
    hard = EM_HARD.run(jax.random.key(0), sample, num_components)
    spread = jnp.cov(colors, rowvar=False)
    return {
        "weights": jnp.full(num_components, 1 / num_components),
        "loc": jnp.asarray(hard.params["loc"]),
        "covariance": jnp.tile(spread / num_components, (num_components, 1, 1)),
    }


def segmentation(photograph: Photograph, num_components: int, every: int = 1) -> Segmentation:
    """Return the mixture that EM fits to the colors of the photograph."""
    image = photograph.image(every)
    colors = pixels(image)
    start = k_means_start(colors, num_components)
    result = EM_SOFT.run(jax.random.key(0), colors, num_components, init_params=start)
    of_pixels = EM_SOFT.posterior(result.params, colors, num_components)["component"]
    order = np.argsort(-np.asarray(result.params["weights"]))
    posterior = np.asarray(of_pixels).reshape(*image.shape[:2], -1)[..., order]
    share_inside = boxed(posterior, photograph.foreground, every).mean(axis=(0, 1))
    share_outside = boxed(posterior, photograph.background, every).mean(axis=(0, 1))
    return Segmentation(
        posterior,
        np.asarray(result.params["weights"])[order],
        np.asarray(result.params["loc"])[order],
        share_inside > share_outside,
        int(result.num_steps),
        report.outcome(result),
        float(result.log_likelihood),
    )


def boxed(picture: np.ndarray, box: tuple[int, int, int, int], every: int) -> np.ndarray:
    """Return the part of a picture inside a box."""
    left, top, right, bottom = (edge // every for edge in box)
    return picture[top:bottom, left:right]


def run(output: Path, quick: bool) -> None:
    """Print the tables, draw a figure for each photograph."""
    every = QUICK_EVERY if quick else 1
    for photograph in PHOTOGRAPHS:
        segmentations = {num: segmentation(photograph, num, every) for num in NUMS_COMPONENTS}
        print_segmentations(photograph, segmentations, every)
        draw(output / f"{Path(photograph.name).stem}.png", photograph, segmentations, every)
    report.heading("Generic EM against the update derived by hand (models/gaussian_mixture.py)")
    # thinned as in the quick form, which has compiled a start of this size
    colors = pixels(PHOTOGRAPHS[0].image(QUICK_EVERY))
    print(f"  on one in {QUICK_EVERY} rows and columns of the flower:")
    em, step = EM(gaussian_mixture.program), gaussian_mixture.hand_derived_step
    print(compare_updates(em, step, k_means_start(colors, 5), colors, 5))


def print_segmentations(
    photograph: Photograph, segmentations: dict[int, Segmentation], every: int
) -> None:
    """Print the components of each mixture."""
    height, width = segmentations[2].posterior.shape[:2]
    thinned = "" if every == 1 else f" (--quick: every row and column in {every})"
    report.heading(f"{photograph.name}: {height} × {width} = {height * width:,} pixels{thinned}")
    for num, result in segmentations.items():
        rows = []
        for k in range(num):
            share = f"{100 * result.weights[k]:.1f}%"
            color = "  ".join(f"{256 * c:3.0f}" for c in result.colors[k])
            side = "foreground" if result.is_foreground[k] else "background"
            rows.append([str(k), share, color, side])
        report.table(
            ["component", "share of pixels", "mean red, green, blue (0 … 255)", "is"],
            rows,
            caption=f"""M = {num}: {result.num_steps} steps ({result.status}); log-likelihood
                {result.log_likelihood / (height * width):.3f} nats for a pixel at the end;
                {100 * result.foreground.mean():.1f}% of the picture is foreground.""",
        )


def draw(
    path: Path, photograph: Photograph, segmentations: dict[int, Segmentation], every: int
) -> None:
    """Draw the picture, the segments and the foreground for each number of components."""
    num_pixels = segmentations[2].posterior[..., 0].size
    with canvas.figure(
        path,
        photograph.finding,
        f"""Gaussian mixtures on the colors of all {num_pixels:,} pixels. Components commoner in the
        solid box than in the dashed one are foreground. Middle: pixels in the mean color of their
        component. Right: posterior of the foreground.
        """,
        width=12,
        height=5.7,
    ) as figure:
        panels = figure.subplots(2, 3)
        draw_photograph(panels[0, 0], photograph, every)
        draw_components(panels[1, 0], segmentations[5])
        for row, (num, result) in zip(panels, segmentations.items(), strict=True):
            row[1].imshow(result.painted)
            heat = row[2].imshow(result.foreground, cmap=canvas.PROBABILITY, vmin=0, vmax=1)
            row[1].set_title(f"M = {num}: segments")
            row[2].set_title(f"M = {num}: p(foreground | color)")
            canvas.bare(row[1])
            canvas.bare(row[2])
        bar = figure.colorbar(heat, ax=panels[:, 2], ticks=[0, 0.5, 1], fraction=0.03, aspect=40)
        bar.outline.set_visible(False)


def draw_photograph(axes: Axes, photograph: Photograph, every: int) -> None:
    """Draw the picture with its two boxes."""
    axes.imshow(photograph.image(every))
    for box, line in ((photograph.foreground, "-"), (photograph.background, (0, (3, 2)))):
        left, top, right, bottom = (edge / every for edge in box)
        shape = (left, top), right - left, bottom - top
        # a dark line on a white one is seen on every picture
        axes.add_patch(Rectangle(*shape, fill=False, color="white", linewidth=3))
        dark = {"color": canvas.INK, "linewidth": 1.4, "linestyle": line}
        axes.add_patch(Rectangle(*shape, fill=False, **dark))
    axes.set_title(f"The photograph ({photograph.name})")
    canvas.bare(axes)


def draw_components(axes: Axes, result: Segmentation) -> None:
    """Draw a bar for each component, as long as its weight, in its mean color."""
    rows = np.arange(len(result.weights))[::-1]
    colors = np.clip(result.colors, 0, 1)
    axes.barh(rows, 100 * result.weights, color=colors, height=0.78, edgecolor=canvas.PALE)
    for row, weight, is_foreground in zip(rows, result.weights, result.is_foreground, strict=True):
        text = f"{100 * weight:.0f}%{'  foreground' if is_foreground else ''}"
        axes.text(100 * weight + 0.8, row, text, va="center", fontsize=9)
    axes.set(
        yticks=[],
        xticks=[],
        xlim=(0, 130 * result.weights.max()),
        title="M = 5: components, mean color and share of pixels",
    )
    axes.spines[:].set_visible(False)
