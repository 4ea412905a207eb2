"""Which of three Gaussians did each point come from, and where does k-means go wrong?

500 points of three Gaussians in the plane: EM's soft assignment, its way there, and its objective.
Then k-means, which is the hard E-step on a program of unit variances, on clusters that are wide,
narrow, and overlapping.
"""

from itertools import permutations
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.patches import Ellipse

from emjax import EM, compare_updates
from emjax.models import gaussian_mixture, k_means
from experiments import canvas, report
from experiments.iterates import Params, as_numpy, iterates

COLORS = np.array([to_rgb(color) for color in (canvas.BLUE, canvas.VERMILLION, canvas.GREEN)])
SHOWN_STEPS = (0, 1, 2, 5, 20)
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
        [[-2.2, 0.3], [0.6, -0.4], [1.4, 2.2]],
        [[[0.5, 0.35], [0.35, 0.9]], [[1.3, -0.7], [-0.7, 0.7]], [[0.9, 0.3], [0.3, 0.25]]],
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


class Fit(NamedTuple):
    """A clustering, its components in the order of the truth.

    - `responsibilities`: (sample, component).
    - `means`: (component, 2).
    - `params`: the estimate.
    - `accuracy`: the share of points given to the right component.
    """

    responsibilities: np.ndarray
    means: np.ndarray
    params: Params
    accuracy: float


def fit(em: EM, clusters: Clusters) -> Fit:
    """Return the best of the restarts of EM on these clusters."""
    num_components = clusters.num_components
    points = jnp.asarray(clusters.points)
    params = em.run(jax.random.key(0), points, num_components).params
    responsibilities = np.asarray(em.posterior(params, points, num_components)["component"])
    order = match(responsibilities.argmax(axis=1), clusters.labels, num_components)
    params = in_order(as_numpy(params), order)
    right = responsibilities[:, order].argmax(axis=1) == clusters.labels
    return Fit(responsibilities[:, order], params["loc"], params, right.mean())


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
    em = both["EM"]
    points = jnp.asarray(clusters.points)
    path, objective = iterates(em, three_gaussians_start(), points, 3, num_steps=NUM_STEPS)
    posterior = [np.asarray(em.posterior(path[t], points, 3)["component"]) for t in SHOWN_STEPS]
    order = match(posterior[-1].argmax(axis=1), clusters.labels, 3)
    posterior = [responsibilities[:, order] for responsibilities in posterior]
    path = [in_order(params, order) for params in path]

    print_path(clusters, path, objective, posterior[-1])
    draw_three_views(output / "three_views.png", clusters, posterior[-1])
    draw_path(output / "path.png", clusters, path, posterior)
    draw_objective(output / "objective.png", objective)
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
    clusters: Clusters, path: list[Params], objective: np.ndarray, responsibilities: np.ndarray
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
    right = (responsibilities.argmax(axis=1) == clusters.labels).mean()
    unsure = (responsibilities.max(axis=1) < 0.9).mean()
    report.remark(f"""After {SHOWN_STEPS[-1]} steps {100 * right:.1f}% of the points are given to
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


def blended(responsibilities: np.ndarray) -> np.ndarray:
    """Return a color for each point, the components' colors mixed by the responsibilities."""
    return responsibilities @ COLORS[: responsibilities.shape[1]]


def scatter(axes: Axes, points: np.ndarray, colors: np.ndarray | str, size: float = 9) -> None:
    """Draw the points without a frame."""
    axes.scatter(*points.T, s=size, c=colors, linewidths=0)
    axes.set_aspect("equal")
    canvas.bare(axes)


def draw_ellipses(axes: Axes, params: Params) -> None:
    """Draw the ellipse of two standard deviations of each component, and its mean."""
    for mean, covariance, color in zip(params["loc"], params["covariance"], COLORS, strict=False):
        variances, directions = np.linalg.eigh(covariance)
        angle = np.degrees(np.arctan2(*directions[::-1, 1]))
        sizes = 4 * np.sqrt(variances[::-1])  # two standard deviations to either side
        axes.add_patch(Ellipse(mean, *sizes, angle=angle, fill=False, color=color, linewidth=2))
        axes.plot(*mean, "+", color=color, markersize=9, markeredgewidth=2)


def draw_three_views(path: Path, clusters: Clusters, responsibilities: np.ndarray) -> None:
    """Draw the points unlabeled, in their true colors, and as their responsibilities mix them."""
    right = (responsibilities.argmax(axis=1) == clusters.labels).mean()
    with canvas.figure(
        path,
        f"Without any label, EM gives {100 * right:.0f}% of the points to the right Gaussian",
        """500 points of three Gaussians. On the right, a point's color mixes those of the three by
        its responsibilities: between the clouds EM stays in doubt.
        """,
        height=2.7,
    ) as figure:
        views = {
            "What EM sees": canvas.GREY,
            "The truth": COLORS[clusters.labels],
            "Responsibilities": blended(responsibilities),
        }
        for axes, (title, colors) in zip(figure.subplots(1, 3), views.items(), strict=True):
            scatter(axes, clusters.points, colors)
            axes.set_title(title)


def draw_path(
    path: Path, clusters: Clusters, params: list[Params], posterior: list[np.ndarray]
) -> None:
    """Draw the components' ellipses and the responsibilities at a few steps."""
    with canvas.figure(
        path,
        "From three round clouds in the wrong place to the right ellipses",
        """Ellipses are two standard deviations of each component; a point's color mixes theirs by
        its responsibilities.""",
        width=11.5,
        height=2.4,
    ) as figure:
        panels = figure.subplots(1, len(SHOWN_STEPS), sharex=True, sharey=True)
        for axes, step, responsibilities in zip(panels, SHOWN_STEPS, posterior, strict=True):
            scatter(axes, clusters.points, blended(responsibilities), size=5)
            draw_ellipses(axes, params[step])
            axes.set_title("start" if step == 0 else f"step {step}")


def draw_objective(path: Path, objective: np.ndarray) -> None:
    """Draw the objective at each step, and what each step gains."""
    gains = np.diff(objective)
    with canvas.figure(
        path,
        "The objective never falls; it can rest on a plateau and rise again",
        "Log-likelihood of the 500 points after each step (dots: steps 1, 2, 5, 20), and what each "
        "step gains.",
        height=3.2,
    ) as figure:
        left, right = figure.subplots(1, 2)
        left.plot(objective, color=canvas.BLUE)
        left.plot(SHOWN_STEPS, objective[list(SHOWN_STEPS)], "o", color=canvas.BLUE, markersize=5)
        # the start lies so far below that nothing else would be seen
        floor, gain = objective[1], objective[-1] - objective[1]
        left.set(ylim=(floor - 0.25 * gain, objective[-1] + 0.1 * gain))
        left.set(xlabel="step", ylabel="log-likelihood, nats", title="Objective")
        text = f"start: {objective[0]:.0f}"
        canvas.label(left, 2, floor - 0.1 * gain, text, canvas.GREY, va="center")
        right.semilogy(np.arange(1, len(objective)), gains, "o-", color=canvas.BLUE, markersize=3.5)
        right.set(xlabel="step", ylabel="gain, nats", title="Gain of each step")
        for axes in (left, right):
            canvas.light_grid(axes)


def draw_cases(path: Path, cases: dict) -> None:
    """Draw truth, k-means and EM, a row for each hard case."""
    with canvas.figure(
        path,
        "k-means cuts halfway between the means; EM learns each cluster's shape",
        """Colors: the truth, k-means' assignment, and EM's responsibilities, with its ellipses of
        two standard deviations. Percentages: points given to the right cluster. Both are the best
        of several random starts.
        """,
        width=9,
        height=7.0,
    ) as figure:
        rows = figure.subplots(3, 3, height_ratios=[1, 0.42, 1])
        for row, (name, (clusters, fits)) in zip(rows, cases.items(), strict=True):
            draw_case(row, name, clusters, fits["k-means"], fits["EM"])


def draw_case(row: np.ndarray, name: str, clusters: Clusters, hard: Fit, soft: Fit) -> None:
    """Draw the truth, k-means and EM side by side."""
    views = {
        f"{name}: the truth": COLORS[clusters.labels],
        f"k-means: {100 * hard.accuracy:.0f}%": COLORS[hard.responsibilities.argmax(axis=1)],
        f"EM: {100 * soft.accuracy:.0f}%": blended(soft.responsibilities),
    }
    for axes, (title, colors) in zip(row, views.items(), strict=True):
        scatter(axes, clusters.points, colors, size=6)
        axes.set_title(title)
    row[1].plot(*hard.means.T, "+", color=canvas.INK, markersize=11, markeredgewidth=2)
    draw_ellipses(row[2], soft.params)
