"""Which of three Gaussians did each point come from, and where does k-means go wrong?

500 points of three Gaussians in the plane: EM's soft assignment, its way there, and its objective.
Then k-means, which is the hard E-step on a program of unit variances, on clusters that are wide,
narrow, and overlapping.
"""

from dataclasses import replace
from itertools import permutations
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes

import emjax
from emjax import EM, compare_updates, plot
from emjax.models import gaussian_mixture, k_means
from emjax.plot.clusters import ellipse
from experiments import canvas, report
from experiments.iterates import Params, iterates

COLORS = np.array(canvas.PALETTE)
SHOWN_STEPS = (0, 1, 5, 10, 15, 20)
# of the three Gaussians
MEANS = ((-2.2, 0.3), (0.6, -0.4), (1.4, 2.2))
COVARIANCES = (((0.5, 0.35), (0.35, 0.9)), ((1.3, -0.7), (-0.7, 0.7)), ((0.9, 0.3), (0.3, 0.25)))
NUM_STEPS = 40


class Clusters(NamedTuple):
    """Points (sample, 2), and the Gaussian that each came from."""

    points: np.ndarray
    labels: np.ndarray

    @property
    def num_components(self) -> int:
        """Return how many Gaussians there are."""
        return int(self.labels.max()) + 1


def drawn(seed: int, sizes: list[int], means: list, covariances: list) -> Clusters:
    """Return points drawn from Gaussians of given sizes."""
    rng = np.random.default_rng(seed)
    points = [
        rng.multivariate_normal(mean, cov, size)
        for size, mean, cov in zip(sizes, means, covariances, strict=True)
    ]
    return Clusters(np.concatenate(points), np.repeat(np.arange(len(sizes)), sizes))


def three_gaussians() -> Clusters:
    """Return 500 points of three Gaussians of different size and shape."""
    return drawn(
        0,
        [150, 200, 150],
        MEANS,
        COVARIANCES,
    )


def hard_cases() -> dict[str, Clusters]:
    """Return clusters on which hard assignment fails, by what is special about them."""
    return {
        "wide": drawn(
            1,
            [300, 100, 100],
            [[0, 0], [3.2, 1.6], [3.2, -1.6]],
            [np.eye(2) * 2.6, np.eye(2) * 0.06, np.eye(2) * 0.06],
        ),
        "narrow": drawn(2, [170, 170, 160], [[0, -1], [0, 0], [0, 1]], [np.diag([4.0, 0.03])] * 3),
        "overlapping": drawn(
            3, [250, 250], [[0, 0], [0, 0]], [np.diag([3.0, 0.08]), np.diag([0.08, 3.0])]
        ),
    }


def three_gaussians_start() -> Params:
    """Return a poor start: means near one another, and round covariances."""
    means = jnp.array([[-1.0, -1.5], [0.0, -1.5], [1.0, -1.5]])
    return {
        "weights": jnp.full(3, 1 / 3),
        "loc": means,
        "covariance": jnp.tile(0.5 * jnp.eye(2), (3, 1, 1)),
    }


def match(labels: np.ndarray, truth: np.ndarray, num_components: int) -> np.ndarray:
    """Return the order of components in which most labels agree with the truth.

    Component `order[k]` is called k.
    """
    counts = np.zeros((num_components, num_components), int)  # (component, true label)
    np.add.at(counts, (labels, truth), 1)

    def agreement(order: tuple[int, ...]) -> int:
        return counts[list(order), range(num_components)].sum()

    return np.array(max(permutations(range(num_components)), key=agreement))


class Clustering(NamedTuple):
    """A clustering, its components in the order of the truth.

    - `fit`: of EM.
    - `labels`: the most probable component of each point, (sample,).
    - `accuracy`: the share of points given to the right component.
    """

    fit: emjax.Fit
    labels: np.ndarray
    accuracy: float


def fit(em: EM, clusters: Clusters) -> Clustering:
    """Return the best of the restarts of EM on these clusters."""
    found = em.run(jax.random.key(0), jnp.asarray(clusters.points), clusters.num_components)
    labels = np.asarray(found.posterior()["component"]).argmax(axis=1)
    order = match(labels, clusters.labels, clusters.num_components)
    labels = np.argsort(order)[labels]
    return Clustering(found.relabel(order), labels, (labels == clusters.labels).mean())


def in_order(params: Params, order: np.ndarray) -> Params:
    """Return the parameters with their components in this order."""
    return {name: value[order] for name, value in params.items()}


def methods(num_restarts: int) -> dict[str, EM]:
    """Return k-means and soft EM, with as many starts.

    k-means is EM with the hard E-step on unit variances.
    """
    return {
        "k-means": EM(k_means.program, e_step="hard", num_restarts=num_restarts),
        "EM": EM(gaussian_mixture.program, tol=1e-8, num_restarts=num_restarts),
    }


def run(output: Path, quick: bool) -> None:
    """Print the tables, draw the figures."""
    clusters, both = three_gaussians(), methods(num_restarts=4 if quick else 20)
    em, points = both["EM"], jnp.asarray(clusters.points)
    path, objective = iterates(em, three_gaussians_start(), points, 3, num_steps=NUM_STEPS)
    found = em.run(jax.random.key(0), points, 3)
    last = replace(found, params=path[-1])
    labels = np.asarray(last.posterior()["component"]).argmax(axis=1)
    order = match(labels, clusters.labels, 3)
    fits = [replace(found, params=in_order(params, order)) for params in path]

    print_path(clusters, [at.params for at in fits], objective, fits[-1])
    draw_truth_and_em(output / "truth_and_em.png", clusters, fits[-1])
    draw_path(output / "path.png", [fits[step] for step in SHOWN_STEPS])
    draw_objective(output / "objective.png", replace(found, objective=objective, restarts=None))
    cases = {}
    for name, case in hard_cases().items():
        cases[name] = case, {method: fit(em, case) for method, em in both.items()}
    print_cases(cases)
    draw_cases(output / "k_means.png", cases)
    report.heading(
        "Generic EM against the updates derived by hand (models/gaussian_mixture.py, "
        "models/k_means.py)"
    )
    start = three_gaussians_start()
    print(compare_updates(em, gaussian_mixture.hand_derived_step, start, points, 3))
    means, hard = {"loc": start["loc"]}, both["k-means"]
    print(compare_updates(hard, k_means.hand_derived_step, means, points, 3, num_steps=20))


def print_path(
    clusters: Clusters, path: list[Params], objective: np.ndarray, fit: emjax.Fit
) -> None:
    """Print the way of EM, and how many points it puts right."""
    report.heading("500 points of three Gaussians")
    rows = []
    for step in SHOWN_STEPS:
        total, params = objective[step], path[step]
        means = "  ".join(f"({x:.2f}, {y:.2f})" for x, y in params["loc"])
        weights = report.numbers(params["weights"])
        rows.append([str(step), f"{total:.2f}", f"{total / 500:.4f}", weights, means])
    report.table(
        ["step", "log-likelihood (nats, all points)", "mean of a point", "weights", "means"],
        rows,
        caption="Each row is at the parameters after so many steps; step 0 is the start.",
    )
    responsibilities = np.asarray(fit.posterior()["component"])
    right = (responsibilities.argmax(axis=1) == clusters.labels).mean()
    unsure = (responsibilities.max(axis=1) < 0.9).mean()
    report.remark(f"""After {NUM_STEPS} steps {100 * right:.1f}% of the points are given to
        the right Gaussian; {100 * unsure:.1f}% are left in doubt (no posterior over 0.9).""")


def print_cases(cases: dict) -> None:
    """Print how many points k-means and EM put right."""
    report.heading("k-means and EM where hard assignment fails")
    rows = []
    for name, (_, fits) in cases.items():
        hard, soft = 100 * fits["k-means"].accuracy, 100 * fits["EM"].accuracy
        rows.append([name, f"{hard:.1f}%", f"{soft:.1f}%"])
    report.table(
        ["clusters", "k-means", "EM"],
        rows,
        caption="""Points given to the right cluster; each is the best of the same number of random
            starts. k-means is the same engine: EM with the hard E-step, on a program of unit
            variances and equal weights.""",
    )


def scatter(axes: Axes, points: np.ndarray, labels: np.ndarray) -> None:
    """Draw the points in the colors of their labels."""
    axes.scatter(*points.T, s=12, c=COLORS[labels], alpha=0.8, linewidths=0)
    axes.set(xlabel="x₁", ylabel="x₂", aspect="equal")


def draw_fit(axes: Axes, fit: emjax.Fit) -> None:
    """Draw the points of a fit and its components, without a legend."""
    plot.clusters(fit, ax=axes)
    axes.get_legend().remove()
    axes.set(xlabel="x₁", ylabel="x₂", aspect="equal")


def draw_true_ellipses(axes: Axes) -> None:
    """Draw, dashed, where each of the three Gaussians is two standard deviations away."""
    for mean, covariance in zip(MEANS, COVARIANCES, strict=True):
        outline = ellipse(np.array(mean), np.array(covariance), 2.0, canvas.INK)
        outline.set_linestyle((0, (4, 3)))
        axes.add_patch(outline)


def draw_truth_and_em(path: Path, clusters: Clusters, fit: emjax.Fit) -> None:
    """Draw the points in their true colors, and as EM clusters them."""
    labels = np.asarray(fit.posterior()["component"]).argmax(axis=1)
    is_wrong = labels != clusters.labels
    with canvas.figure(
        path,
        f"Without any label, EM gives {100 * (~is_wrong).mean():.0f}% of the points to the right "
        "Gaussian",
        f"""500 points of three Gaussians. Ellipses are one and two standard deviations of each
        component that EM found; the paler a point, the more EM is in doubt. Rings: the
        {is_wrong.sum()} points that it gives to another Gaussian.""",
        height=3.9,
    ) as figure:
        left, right = figure.subplots(1, 2, sharex=True, sharey=True)
        scatter(left, clusters.points, clusters.labels)
        draw_fit(right, fit)
        for axes, title in ((left, "The truth"), (right, "EM")):
            ring = {"facecolors": "none", "edgecolors": canvas.INK, "linewidths": 0.8}
            axes.scatter(*clusters.points[is_wrong].T, s=42, **ring)
            axes.set_title(title)


def draw_path(path: Path, fits: list[emjax.Fit]) -> None:
    """Draw the components and the points at a few steps."""
    with canvas.figure(
        path,
        f"From three round clouds in the wrong place, EM comes near the truth in {SHOWN_STEPS[-1]} "
        "steps",
        """Ellipses: one and two standard deviations of each component; dashed, two of the Gaussians
        that the points were drawn from. A point has the color of its most probable component, the
        paler, the more EM is in doubt.""",
        height=5.2,
    ) as figure:
        panels = figure.subplots(2, 3, sharex=True, sharey=True)
        for axes, step, fit in zip(panels.flat, SHOWN_STEPS, fits, strict=True):
            draw_fit(axes, fit)
            draw_true_ellipses(axes)
            axes.set_title("start" if step == 0 else f"step {step}")
            axes.label_outer()


def draw_objective(path: Path, fit: emjax.Fit) -> None:
    """Draw the objective at each step but the start."""
    objective = np.asarray(fit.objective)
    slowest = int(np.diff(objective[:12]).argmin())
    gains = np.diff(objective)[[slowest, slowest + 8]]
    with canvas.figure(
        path,
        f"A step that gains {gains[0]:.0f} nats is not the end: eight steps later one gains "
        f"{gains[1]:.0f}",
        f"""Log-likelihood of the 500 points at each step. The start, at
        {str(round(objective[0])).replace("-", "−")} nats, lies far below.""",
        width=8.5,
        height=3.4,
    ) as figure:
        axes = plot.objective(fit, ax=figure.subplots())
        # the start lies so far below that nothing else would be seen
        lowest, highest = objective[1], objective[-1]
        margin = 0.08 * (highest - lowest)
        axes.set(ylim=(lowest - margin, highest + margin), xlim=(0, len(objective)))


def draw_cases(path: Path, cases: dict) -> None:
    """Draw truth, k-means and EM, a row for each hard case."""
    with canvas.figure(
        path,
        "k-means cuts halfway between the means; EM learns each cluster's shape",
        """Colors: the truth, k-means' assignment, with its means, and that of EM, with its ellipses
        of one and two standard deviations. Percentages: points given to the right cluster. Both are
        the best of several random starts.
        """,
        width=9,
        height=7.4,
    ) as figure:
        rows = figure.subplots(3, 3, height_ratios=[1, 0.42, 1], sharex="row", sharey="row")
        for row, (name, (clusters, found)) in zip(rows, cases.items(), strict=True):
            hard, soft = found["k-means"], found["EM"]
            scatter(row[0], clusters.points, clusters.labels)
            scatter(row[1], clusters.points, hard.labels)
            means = np.asarray(hard.fit.params["loc"])
            row[1].plot(*means.T, "+", color=canvas.INK, markersize=11, markeredgewidth=2)
            draw_fit(row[2], soft.fit)
            row[0].set_title(f"{name}: the truth")
            row[1].set_title(f"k-means: {100 * hard.accuracy:.0f}%")
            row[2].set_title(f"EM: {100 * soft.accuracy:.0f}%")
            for axes in row[1:]:
                axes.set_ylabel("")
