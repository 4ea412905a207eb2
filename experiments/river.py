"""Did the Nile change little by little, or all at once, when the first dam was built at Aswan?

The flow of each year from 1871 to 1970. In the local level model the river has a level that moves
on by chance from year to year and is seen through noise: EM with the Kalman smoother finds how much
is move and how much is noise. Let the level also jump, in a year that is given, and the rest of the
moves is not needed.

Data: Cobb (1978), Biometrika 65; estimates: Durbin & Koopman (2012), Time Series Analysis by State
Space Methods, chapter 2.
"""

from functools import cache
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.typing import ArrayLike
from jaxtyping import Bool, Float
from matplotlib.axes import Axes
from numpyro.contrib.control_flow import scan
from numpyro.distributions import constraints

from emjax import EM, EMResult, compare_updates
from emjax.models import linear_gaussian_state_space
from experiments import canvas, report

SERIES = Path(__file__).parent / "data" / "nile.csv"
START_SCALE = 1e5  # of the first level, in 10⁸ m³: nothing is known of it
BOOK = {"scale": 15099.0, "level_scale": 1469.1}  # variances that Durbin & Koopman print
DAM = 1899  # the first year of low flow: the dam was built from 1898 to 1902


class Smoothed(NamedTuple):
    """The level of each year, given all years, and its standard deviation, in 10⁸ m³."""

    mean: np.ndarray
    deviation: np.ndarray


@cache
def flow() -> tuple[np.ndarray, np.ndarray]:
    """Return the years, and the flow of each in 10⁸ m³."""
    years, volume = np.loadtxt(SERIES, delimiter=",", skiprows=1).T
    return years.astype(int), volume


def broken_level_program(
    data: Float[ArrayLike, "time"], is_after: Bool[ArrayLike, "time"], start_scale: float
) -> None:
    """The local level, and a jump of what is seen, from some year on.

    Parameters: `jump` (), and `level_scale` and `scale` as in `local_level_program`.
    """
    half = jnp.std(data) / jnp.sqrt(2)
    jump = numpyro.param("jump", jnp.zeros(()))
    level_scale = numpyro.param("level_scale", half / 3, constraint=constraints.positive)
    scale = numpyro.param("scale", half, constraint=constraints.positive)

    def step(previous: Float[ArrayLike, ""], now: tuple) -> tuple:
        t, x, after = now
        spread = jnp.where(t == 0, start_scale, level_scale)
        level = numpyro.sample("level", dist.Normal(jnp.where(t == 0, 0.0, previous), spread))
        numpyro.sample("data", dist.Normal(level + jump * after, scale), obs=x)
        return level, None

    scan(step, jnp.zeros(()), (jnp.arange(len(data)), data, jnp.asarray(is_after, float)))


def local_level_em() -> EM:
    """Return EM of the level that moves, and never jumps."""
    program = linear_gaussian_state_space.local_level_program
    return EM(program, integrate={"level"}, tol=1e-10, max_steps=5_000)


def broken_level_em() -> EM:
    """Return EM of the level that also jumps."""
    return EM(broken_level_program, integrate={"level"}, tol=1e-8, max_steps=5_000)


def fit_without_jump(em: EM) -> EMResult:
    """Return where EM ends."""
    return em.run(jax.random.key(0), flow()[1], START_SCALE)


def fit_with_jump(em: EM, year: int) -> EMResult:
    """Return where EM ends if the level may jump before the flow of a year."""
    years, volume = flow()
    return em.run(jax.random.key(0), volume, years >= year, START_SCALE)


def smoothed(em: EM, result: EMResult, *args: ArrayLike) -> Smoothed:
    """Return the level of each year, without the jump, given all years."""
    posterior = em.posterior(result.params, *args)["level"]
    return Smoothed(np.asarray(posterior["mean"]), np.sqrt(posterior["covariance"]))


def diffuse(log_likelihood: float) -> float:
    """Return the log-likelihood without the first year's density, which κ alone decides."""
    return float(log_likelihood) + 0.5 * np.log(2 * np.pi * START_SCALE**2)


def run(output: Path, quick: bool) -> None:
    """Print the tables, draw the figure."""
    years, volume = flow()
    moving, broken = local_level_em(), broken_level_em()
    smooth, jumping = fit_without_jump(moving), fit_with_jump(broken, DAM)
    tried = years[5:-5:10] if quick else years[5:-5]
    tried = np.union1d(tried, [DAM])
    gains = np.array(
        [fit_with_jump(broken, year).log_likelihood - smooth.log_likelihood for year in tried]
    )
    print_estimates(moving, smooth, jumping)
    print_years(tried, gains)
    level = smoothed(moving, smooth, volume, START_SCALE)
    around = smoothed(broken, jumping, volume, years >= DAM, START_SCALE)
    draw(output / "nile.png", level, around, float(jumping.params["jump"]), (tried, gains))
    report.heading("Generic EM against the update derived by hand (linear_gaussian_state_space.py)")
    step = linear_gaussian_state_space.local_level_hand_derived_step
    start = {"level_scale": np.array(40.0), "scale": np.array(120.0)}
    print(compare_updates(moving, step, start, volume, START_SCALE))


def print_estimates(em: EM, smooth: EMResult, jumping: EMResult) -> None:
    """Print what EM plans, and the variances with and without a jump, beside the book's."""
    report.heading("The level of the Nile")
    print(em.plan(flow()[1], START_SCALE))
    rows = []
    for name, result in (("no jump", smooth), (f"a jump in {DAM}", jumping)):
        variances = [float(result.params[key]) ** 2 for key in ("scale", "level_scale")]
        jump = f"{float(result.params['jump']):.1f}" if "jump" in result.params else ""
        height = f"{diffuse(result.log_likelihood):.2f}"
        rows.append([name, f"{variances[0]:.0f}", f"{variances[1]:.1f}", jump, height])
    rows.append(["the book, no jump", f"{BOOK['scale']:.0f}", f"{BOOK['level_scale']:.1f}", "", ""])
    print()
    report.table(
        ["model", "variance of noise", "of a year's move", "jump", "log-likelihood"],
        rows,
        caption="""Variances in (10⁸ m³)², the jump in 10⁸ m³, the log-likelihood in nats, without
            the density of the first level, of which nothing is known (a standard deviation of
            10⁵).""",
    )
    report.remark("""With the jump, hardly any of the year's moves is left: before and after the
        dam the river is the same every year, but for noise.""")


def print_years(tried: np.ndarray, gains: np.ndarray) -> None:
    """Print in which years a jump explains most."""
    report.heading("When did it jump?")
    best = np.argsort(-gains)[:5]
    rows = [[str(tried[i]), f"{gains[i]:.2f}"] for i in best]
    report.table(
        ["year", "gain"],
        rows,
        caption="The gain in log-likelihood, in nats, if the level may jump before that year.",
    )


def draw(
    path: Path, level: Smoothed, around: Smoothed, jump: float, gains: tuple[np.ndarray, np.ndarray]
) -> None:
    """Draw the flow with both levels, and the gain of a jump in each year."""
    with canvas.figure(
        path,
        f"The Nile fell once, in {DAM}: a jump explains what a wandering level follows",
        """The yearly flow at Aswan. Top: dots are the years; lines are the level given all years,
        in bands of two standard deviations. Blue moves a little each year and never jumps; red may
        also jump in 1899, and then all but stands still. Bottom: how much the log-likelihood gains
        if the level may jump before that year.""",
        height=5.2,
    ) as figure:
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[2.6, 1])
        draw_levels(top, level, around, jump)
        draw_gains(bottom, *gains)
        figure.align_ylabels([top, bottom])


def draw_levels(axes: Axes, level: Smoothed, around: Smoothed, jump: float) -> None:
    """Draw the flow, and the level of both models with its band."""
    years, volume = flow()
    axes.plot(years, volume, "o", color=canvas.GREY, markersize=3.2, zorder=3)
    draw_band(axes, years, level, canvas.BLUE)
    shifted = Smoothed(around.mean + jump * (years >= DAM), around.deviation)
    for part in (years < DAM, years >= DAM):
        stretch = Smoothed(shifted.mean[part], shifted.deviation[part])
        draw_band(axes, years[part], stretch, canvas.VERMILLION)
    canvas.label(axes, 1972, level.mean[-1] - 50, "level that moves", canvas.BLUE, va="center")
    canvas.label(axes, 1972, shifted.mean[-1] + 25, "level that jumps", canvas.VERMILLION)
    axes.set(ylabel="flow, 10⁸ m³", xlim=(1868, 1990), ylim=(420, 1400))
    canvas.light_grid(axes)


def draw_band(axes: Axes, years: np.ndarray, level: Smoothed, color: str) -> None:
    """Draw a level, in a band of two standard deviations."""
    low, high = level.mean - 2 * level.deviation, level.mean + 2 * level.deviation
    axes.fill_between(years, low, high, color=color, alpha=0.18, linewidth=0)
    axes.plot(years, level.mean, color=color)


def draw_gains(axes: Axes, tried: np.ndarray, gains: np.ndarray) -> None:
    """Draw the gain of a jump in each year, with the year of the dam."""
    axes.plot(tried, gains, color=canvas.INK, linewidth=1.3)
    dam = gains[tried == DAM]
    axes.plot([DAM], dam, "o", color=canvas.VERMILLION, markersize=6)
    canvas.label(axes, DAM + 2, dam[0], f"{DAM}: the dam", canvas.VERMILLION, va="center")
    axes.set(xlabel="year of the jump", ylabel="gain, nats", ylim=(-0.4, dam[0] * 1.15))
    canvas.light_grid(axes)
