"""How many steps, and how much time, do SQUAREM, Anderson's acceleration and a polish by Newton's
method save?

EM gains a constant factor a step: the more the latents hide, the slower. Three problems of growing
slowness, from one start each, by plain EM and by what goes beyond it. All must end at the same
optimum. And twelve data sets from the starts of several keys: do leaps lead elsewhere?
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from matplotlib.axes import Axes

from emjax import EM, EMResult
from emjax.models import gaussian_mixture, latent_class
from experiments import canvas, report
from experiments.hidden_markov import earthquakes
from experiments.starts import accelerated

PLAIN = "plain EM"
SQUAREM = "SQUAREM"
ANDERSON = "Anderson"
NEWTON = "EM, then Newton"
SETTINGS = {
    PLAIN: {"acceleration": None},
    SQUAREM: {"acceleration": "squarem"},
    ANDERSON: {"acceleration": "anderson"},
    NEWTON: {"acceleration": None, "tol": 1e-6, "polish": "newton"},
}
COLORS = {
    PLAIN: canvas.GREY,
    SQUAREM: canvas.BLUE,
    ANDERSON: canvas.VERMILLION,
    NEWTON: canvas.GREEN,
}
CHAIN = "earthquakes, 3 states"
TOLERANCE, MAX_STEPS = 1e-14, 20_000
NEAR = 1e-6  # nats: what nobody would see


class Problem(NamedTuple):
    """A program with its data, and where EM starts."""

    program: Callable
    args: tuple
    start: dict


class Race(NamedTuple):
    """How one method does on a problem.

    - `result`: what EM found.
    - `seconds`: of a run that is compiled already.
    """

    result: EMResult
    seconds: float


def problems(quick: bool) -> dict[str, Problem]:
    """Return the problems, the fastest first."""
    rng = np.random.default_rng(0)
    size = 500 if quick else 5000
    overlapping = np.concatenate([rng.normal(0.0, 1.0, size), rng.normal(2.2, 1.2, size)])
    is_first = rng.uniform(size=(size, 1)) < 0.5
    probs = np.where(is_first, [0.8, 0.7, 0.7, 0.6, 0.5], [0.4, 0.4, 0.3, 0.3, 0.35])
    answers = (rng.uniform(size=(size, 5)) < probs).astype(int)
    mixture = {
        "weights": np.array([0.3, 0.7]),
        "loc": np.array([-1.0, 1.0]),
        "scale": np.array([1.0, 1.0]),
    }
    classes = {"weights": np.array([0.5, 0.5]), "probs": np.array([[0.6] * 5, [0.4] * 5])}
    chain, counts = earthquakes.soft_em().model, (*earthquakes.data(), 3)
    of_classes = {"two latent classes": Problem(latent_class.program, (answers, 2), classes)}
    if quick:
        return of_classes
    return {
        CHAIN: Problem(chain, counts, earthquakes.start(3)),
        "overlapping Gaussians": Problem(gaussian_mixture.program, (overlapping, 2), mixture),
    } | of_classes


def races(problem: Problem) -> dict[str, Race]:
    """Return how each method does, from the same start; the time is the least of three runs."""
    by_method = {}
    for method, settings in SETTINGS.items():
        em = EM(problem.program, **{"tol": TOLERANCE, "max_steps": MAX_STEPS} | settings)
        seconds = []
        for _ in range(4):
            start = time.perf_counter()
            result = em.run(jax.random.key(0), *problem.args, init_params=problem.start)
            seconds.append(time.perf_counter() - start)
        by_method[method] = Race(result, min(seconds[1:]))  # the first run compiles
    return by_method


def optimum(by_method: dict[str, Race]) -> float:
    """Return the largest objective that a method reached, in nats."""
    return max(float(race.result.objective[-1]) for race in by_method.values())


def steps_to(race: Race, height: float) -> int:
    """Return the first step at which the objective is within `NEAR` of a height.

    Errors: `ValueError` where it never is: then there is no race to report.
    """
    near = np.flatnonzero(height - race.result.objective <= NEAR)
    if not len(near):
        raise ValueError(f"It ended more than {NEAR:g} nats below the best: {race.result.status}.")
    return int(near[0])


def run(output: Path, quick: bool) -> None:
    """Print the table, draw the figure."""
    by_problem = {name: races(problem) for name, problem in problems(quick).items()}
    print_races(by_problem)
    draw_steps(output / "steps.png", by_problem)
    accelerated.print_methods(quick)


def print_races(by_problem: dict[str, dict[str, Race]]) -> None:
    """Print steps, time and what is left to gain, method by method."""
    report.heading("From the same start to the same optimum")
    rows = []
    for name, by_method in by_problem.items():
        top, plain = optimum(by_method), by_method[PLAIN]
        for method, race in by_method.items():
            rows.append(
                [
                    name if method == PLAIN else "",
                    method,
                    str(steps_to(race, top)),
                    str(race.result.num_steps),
                    f"{plain.seconds / race.seconds:.1f}",
                    f"{top - float(race.result.objective[-1]):.0e}",
                    report.outcome(race.result),
                ]
            )
    columns = [
        "problem",
        "method",
        "steps to 1e-6 nats",
        "steps in all",
        "plain time / time",
        "nats below the best",
        "ended",
    ]
    report.table(
        columns,
        rows,
        "Every E-step counts as a step; so does each of Newton's polishes. Times are of compiled "
        "runs.",
    )
    report.remark(
        "The last step of plain EM gains less than rounding and yet leaves more to gain than that: "
        "a small gain is no small distance."
    )


def draw_steps(path: Path, by_problem: dict[str, dict[str, Race]]) -> None:
    """Draw how many steps each method takes: a row for each, the slower problems below."""
    steps = {
        name: {method: steps_to(race, optimum(by_method)) for method, race in by_method.items()}
        for name, by_method in by_problem.items()
    }
    slowest_last = sorted(steps, key=lambda name: steps[name][PLAIN])
    shares = [min(steps[name].values()) / steps[name][PLAIN] for name in slowest_last]
    least, most = (f"{100 * share:.0f}%" for share in (min(shares), max(shares)))
    span = least if least == most else f"{least} to {most}"
    with canvas.figure(
        path,
        f"The best way to the optimum takes {span} of the steps of plain EM",
        """E-steps from one start until less than a millionth of a nat is left to gain, on a
        logarithmic axis. Each of Newton's polishes is a step, too.""",
        height=0.5 + 1.0 * len(steps),
    ) as figure:
        panels = figure.subplots(len(steps), 1, sharex=True, squeeze=False)[:, 0]
        for axes, name in zip(panels, slowest_last, strict=True):
            draw_problem(axes, steps[name])
            axes.set_title(name)
        panels[-1].set_xlabel("steps")


def draw_problem(axes: Axes, steps: dict[str, int]) -> None:
    """Draw a dot for each method, and its number of steps beside it."""
    plain = steps[PLAIN]
    for row, (method, number) in enumerate(steps.items()):
        axes.plot([number, plain], [row, row], color=canvas.PALE, linewidth=3, zorder=1)
        axes.semilogx(number, row, "o", color=COLORS[method], markersize=7)
        canvas.label(axes, number, row, f"{number}   ", COLORS[method], ha="right", va="center")
    axes.set_yticks(range(len(steps)), list(steps))
    axes.set(ylim=(len(steps) - 0.4, -0.6), xlim=(3, None))
    axes.tick_params(axis="y", length=0)
    canvas.light_grid(axes, "x")
