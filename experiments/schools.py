"""How much of what differs from school to school, or child to child, is more than chance?

Three classical tables of groups whose effects are drawn from one normal law. EM finds its spread;
each group's effect is then pulled toward the mean, the more so the less its own data say. Eight
schools whose estimates all could be one number; six batches of dyestuff of which half is noise; and
27 children, each of whom grows along a line of its own.

Data: Rubin (1981), Journal of Educational Statistics 6; Davies (1947); Potthoff & Roy (1964),
Biometrika 51. Published fits: lme4's `Dyestuff`; Jennrich & Schluchter (1986), Biometrics 42.
"""

from collections.abc import Iterable
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.typing import ArrayLike
from jaxtyping import Float
from matplotlib.axes import Axes
from numpyro.distributions import constraints

from emjax import EM, EMResult, compare_updates
from emjax.models import linear_mixed_model
from experiments import canvas, report
from experiments.iterates import as_numpy

DATA = Path(__file__).parent / "data"
# what coaching added to the scores in each school, and the standard error of that
EFFECTS = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERRORS = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
SCHOOLS = "ABCDEFGH"
AGES = (8, 10, 12, 14)
LME4 = 327.3271, 1527.5, 37.260, 49.510  # −2 log L, the mean, and both standard deviations
JENNRICH = 427.806  # −2 log L of the children's lines


def schools_program(effect: Float[ArrayLike, "school"], error: Float[ArrayLike, "school"]) -> None:
    """Effects of schools about one mean, each measured with an error that is known.

    Parameters: `mean` () and `spread` (), positive, in points of the test.
    """
    mean = numpyro.param("mean", jnp.mean(effect))
    spread = numpyro.param("spread", jnp.std(effect), constraint=constraints.positive)
    with numpyro.plate("schools", len(effect)):
        true = numpyro.sample("true", dist.Normal(mean, spread))
        numpyro.sample("effect", dist.Normal(true, error), obs=effect)


def height_of(spread: np.ndarray) -> np.ndarray:
    """Return the log-likelihood at each spread between schools, in nats, at the best mean."""
    variance = spread[:, None] ** 2 + ERRORS**2
    mean = (EFFECTS / variance).sum(axis=1) / (1 / variance).sum(axis=1)
    square = (EFFECTS - mean[:, None]) ** 2 / variance
    return -0.5 * (square + np.log(2 * np.pi * variance)).sum(axis=1)


@cache
def dyestuff() -> tuple:
    """Return the arguments of the mixed model of the dyestuff, batches A to F."""
    rows = np.loadtxt(DATA / "dyestuff.csv", delimiter=",", skiprows=1, dtype=str)
    ones = np.ones((len(rows), 1))
    return rows[:, 1].astype(float), ones, ones, np.unique(rows[:, 0], return_inverse=True)[1], 6


@cache
def growth() -> tuple:
    """Return the arguments of the mixed model of the children: a line of each sex and each child.

    Ages are measured from 11 years.
    """
    rows = np.loadtxt(DATA / "growth.csv", delimiter=",", skiprows=1, dtype=str)
    child, age = rows[:, 0].astype(int) - 1, rows[:, 2].astype(float) - 11
    is_boy = (rows[:, 1] == "boy").astype(float)
    line = np.column_stack([np.ones(len(rows)), age])
    fixed = np.column_stack([line, line * is_boy[:, None]])
    return rows[:, 3].astype(float), fixed, line, child, int(child.max()) + 1


def mixed_em() -> EM:
    """Return EM of the linear mixed model."""
    return EM(linear_mixed_model.program, integrate={"effect"}, tol=1e-12, max_steps=5_000)


def schools_em() -> EM:
    """Return EM of the schools, accelerated: to a spread of zero it crawls."""
    return EM(schools_program, integrate={"true"}, acceleration="anderson", tol=1e-12)


def fit(em: EM, *args: ArrayLike) -> EMResult:
    """Return where EM ends."""
    return em.run(jax.random.key(0), *args)


def effects(em: EM, result: EMResult, *args: ArrayLike) -> np.ndarray:
    """Return the mean of each group's effects given the data, (group, effect)."""
    return np.asarray(em.posterior(result.params, *args)["effect"]["mean"])


def own_lines(fixed: np.ndarray) -> np.ndarray:
    """Return each child's line by least squares on its own four points, less that of its sex."""
    response, covariates, line, child, num_children = growth()
    residual = response - covariates @ fixed
    own = [child == number for number in range(num_children)]
    return np.array([np.linalg.lstsq(line[rows], residual[rows])[0] for rows in own])


def run(output: Path, quick: bool) -> None:
    """Print the tables, draw the figures."""
    mixed, schools = mixed_em(), schools_em()
    coached = fit(schools, EFFECTS, ERRORS)
    batches, children = fit(mixed, *dyestuff()), fit(mixed, *growth())
    print_schools(schools, coached)
    print_dyestuff(batches)
    print_growth(mixed, children)
    shrunk = effects(mixed, batches, *dyestuff())[:, 0], effects(mixed, children, *growth())
    draw_spread(output / "spread.png")
    lines = own_lines(as_numpy(children.params)["fixed"]), shrunk[1]
    draw_shrinkage(output / "shrinkage.png", float(batches.params["fixed"][0]), shrunk[0], lines)
    report.heading("Generic EM against the update derived by hand (models/linear_mixed_model.py)")
    start = {"fixed": np.zeros(4), "covariance": np.eye(2), "scale": np.array(2.0)}
    print(compare_updates(mixed, linear_mixed_model.hand_derived_step, start, *growth()))


def print_schools(em: EM, found: EMResult) -> None:
    """Print the estimate from the eight schools, and how little they say of the spread."""
    report.heading("Eight schools")
    print(em.plan(EFFECTS, ERRORS))
    print(f"\n{found}\n")
    spreads = np.array([0.0, 2.0, 5.0, 10.0, 15.0, 20.0])
    below = height_of(np.zeros(1)) - height_of(spreads)
    rows = [[f"{spread:.0f}", f"{loss:.2f}"] for spread, loss in zip(spreads, below, strict=True)]
    report.table(
        ["spread", "below the best"],
        rows,
        caption="""The spread between schools, in points, and by how many nats the log-likelihood at
            the best mean is below that without any.""",
    )
    report.remark("""The most likely spread is zero: all that differs between these schools may be
        chance. But a spread of 10 points is only 1.2 nats below it: that the estimate is zero is no
        finding that schools are alike.""")


def print_dyestuff(found: EMResult) -> None:
    """Print the estimate from the batches beside lme4's."""
    report.heading("Six batches of dyestuff, five preparations of each")
    params = as_numpy(found.params)
    spread = float(np.sqrt(params["covariance"][0, 0]))
    ours = -2 * float(found.log_likelihood), float(params["fixed"][0]), spread, params["scale"]
    rows = [
        [
            name,
            *(
                f"{float(value):.{digits}f}"
                for value, digits in zip(values, (4, 2, 3, 3), strict=True)
            ),
        ]
        for name, values in (("emjax", ours), ("lme4", LME4))
    ]
    columns = ["", "−2 log-likelihood", "mean", "between batches", "within"]
    report.table(columns, rows, caption="Mean and standard deviations in grams of standard color.")


def print_growth(em: EM, found: EMResult) -> None:
    """Print the estimate from the children."""
    report.heading("27 children at four ages")
    print(em.plan(*growth()))
    params = as_numpy(found.params)
    girl, boy = params["fixed"][:2], params["fixed"][:2] + params["fixed"][2:]
    spread = np.sqrt(np.diagonal(params["covariance"]))
    rows = [
        ["girls", f"{girl[0]:.2f}", f"{girl[1]:.3f}"],
        ["boys", f"{boy[0]:.2f}", f"{boy[1]:.3f}"],
        ["between children", f"{spread[0]:.2f}", f"{spread[1]:.3f}"],
    ]
    print()
    report.table(
        ["", "mm at 11 years", "mm a year"],
        rows,
        caption="Mean lines of girls and boys, and the standard deviation of children about them.",
    )
    report.remark(f"""−2 log-likelihood: {-2 * float(found.log_likelihood):.3f}; Jennrich and
        Schluchter print {JENNRICH:.3f}. About its line a measurement varies by
        {float(params["scale"]):.2f} mm.""")


def draw_spread(path: Path) -> None:
    """Draw the log-likelihood of the spread between schools."""
    spreads = np.linspace(0, 20, 200)
    height = height_of(spreads) - height_of(np.zeros(1))
    of_ten = float(height_of(np.zeros(1))[0] - height_of(np.array([10.0]))[0])
    with canvas.figure(
        path,
        f"The likeliest spread between eight schools is none, and 10 points is {of_ten:.1f} nats "
        "less likely",
        """The log-likelihood of each spread between schools at the best mean, below its
        highest.""",
        width=6.5,
        height=3.2,
    ) as figure:
        axes = figure.subplots()
        axes.plot(spreads, height, color=canvas.INK)
        axes.plot(0, 0, "o", color=canvas.VERMILLION, markersize=7, clip_on=False, zorder=5)
        canvas.label(axes, 0.6, 0.12, "EM: no spread", canvas.VERMILLION, va="center")
        axes.set(xlabel="spread between schools, points", ylabel="log-likelihood, nats")
        axes.set(xlim=(0, 20), ylim=(-3.2, 0.3))
        canvas.light_grid(axes)


def draw_shrinkage(path: Path, mean: float, of_batches: np.ndarray, lines: tuple) -> None:
    """Draw how each table's groups are pulled toward their mean.

    `lines`: of each child its own and that given all children, each (child, effect).
    """
    with canvas.figure(
        path,
        "Given all groups, each group's own mean moves toward that of all",
        """Blue: from the group's own data. Red: given all groups. Left: the means of six batches
        of dyestuff, the lowest first, beside their preparations (gray). Right: the lines of 27
        children, as differences from the mean line of their sex.""",
        height=3.9,
    ) as figure:
        left, right = figure.subplots(1, 2, width_ratios=[1.15, 1.25])
        draw_batches(left, mean, of_batches)
        draw_lines(right, *lines)


def draw_batches(axes: Axes, mean: float, effect: np.ndarray) -> None:
    """Draw the preparations of each batch, their mean, and the mean given all batches."""
    response, _, _, group, num_groups = dyestuff()
    own = np.array([response[group == number].mean() for number in range(num_groups)])
    order = np.argsort(own)
    axes.axhline(mean, color=canvas.PALE, linewidth=1.2, zorder=0)
    for place, number in enumerate(order):
        yields = response[group == number]
        axes.plot([place - 0.2] * len(yields), yields, "o", color=canvas.GREY, markersize=3.2)
        draw_pulled(axes, (place + 0.1, own[number]), (place + 0.1, mean + effect[number]))
    canvas.label(axes, 5.5, mean, "mean", canvas.GREY, va="bottom", ha="right")
    axes.set(
        xticks=range(num_groups),
        xticklabels=["ABCDEF"[number] for number in order],
        xlabel="batch",
        ylabel="yield, grams of standard color",
        xlim=(-0.5, 5.6),
        title="Batches of dyestuff",
    )
    axes.tick_params(axis="x", length=0)


def draw_lines(axes: Axes, own: np.ndarray, shrunk: np.ndarray) -> None:
    """Draw the line of each child as a point, its own and that given all children."""
    axes.axhline(0, color=canvas.PALE, linewidth=0.8, zorder=0)
    axes.axvline(0, color=canvas.PALE, linewidth=0.8, zorder=0)
    for before, after in zip(own, shrunk, strict=True):
        draw_pulled(axes, before, after)
    axes.set(
        xlabel="distance at 11 years, mm",
        ylabel="growth, mm a year",
        title="Children: differences from their sex",
    )


def draw_pulled(axes: Axes, own: Iterable[float], pulled: Iterable[float]) -> None:
    """Draw a group's own estimate, and the one given all groups, joined by a line."""
    axes.plot(*zip(own, pulled, strict=True), color=canvas.PALE, linewidth=1.5, zorder=1)
    axes.plot(*own, "o", color=canvas.BLUE, markersize=4.5, markeredgewidth=0)
    axes.plot(*pulled, "o", color=canvas.VERMILLION, markersize=4.5, markeredgewidth=0)
