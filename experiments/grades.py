"""What share of a class gets a C, if all the grades are known, and if only the C's were counted?

P(A) = 1/2, P(B) = 1/2 − θ, P(C) = θ. With all grades known there is nothing latent, and one M-step
is the answer. With only the C's known, EM shrinks its error by the same factor in every step: the
share of the information that is missing.
"""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes

from emjax import EM, compare_updates
from emjax.models import grades
from experiments import canvas, report
from experiments.iterates import iterates

COUNTS = np.array([52.0, 28.0, 20.0])  # A's, B's, C's
NUM_TOTAL = 100.0
NUMS_C = (10.0, 20.0, 30.0, 40.0, 45.0)  # one class of 100 students each
START = {"theta": np.array(0.02)}
DRAWN = 40.0  # the class whose path is drawn
ROUNDING = 1e-12  # below this error, float64 rounds


def from_all_grades(start: dict = START) -> tuple[float, float]:
    """Return θ after the first and after the second step of EM from all three counts."""
    path, _ = iterates(EM(grades.program), start, COUNTS, num_steps=2)
    return float(path[1]["theta"]), float(path[2]["theta"])


def from_number_of_cs(em: EM, num_c: float, num_steps: int = 60) -> np.ndarray:
    """Return θ at steps 0 … num_steps of EM from N_C and N alone."""
    path, _ = iterates(em, START, np.array(num_c), np.array(NUM_TOTAL), num_steps=num_steps)
    return np.array([params["theta"] for params in path])


def errors(thetas: np.ndarray, num_c: float) -> np.ndarray:
    """Return |θ_t − N_C/N| for each step."""
    return np.abs(thetas - num_c / NUM_TOTAL)


def rate_seen(thetas: np.ndarray, num_c: float) -> float:
    """Return the factor by which the last step that is above rounding shrank the error."""
    error = errors(thetas, num_c)
    last = np.flatnonzero(error > 1e5 * ROUNDING)[-1]
    return error[last] / error[last - 1]


def run(output: Path, quick: bool) -> None:
    """Print the tables, draw the figures."""
    print_all_grades()
    em = EM(grades.partial_program)
    paths = {num_c: from_number_of_cs(em, num_c) for num_c in NUMS_C}
    print_number_of_cs(paths)
    draw_stairs(output / "stairs.png", paths[DRAWN])
    draw_convergence(output / "convergence.png", paths)
    report.heading("Generic EM against the updates derived by hand (models/grades.py)")
    print(compare_updates(EM(grades.program), grades.hand_derived_step, START, COUNTS, num_steps=5))
    counts = np.array(DRAWN), np.array(NUM_TOTAL)
    print(compare_updates(em, grades.partial_hand_derived_step, START, *counts))


def print_all_grades() -> None:
    """Print the estimate from N_A, N_B and N_C, and what EM plans to do."""
    report.heading("All grades known: N_A = 52, N_B = 28, N_C = 20")
    print(EM(grades.program).plan(COUNTS))
    first, second = from_all_grades()
    formula = COUNTS[2] / (2 * (COUNTS[1] + COUNTS[2]))
    print(f"\n  From θ = {START['theta']:.2f}: {first:.6f} after one step, {second:.6f} after two.")
    print(f"  By the formula N_C / 2(N_B + N_C): {formula:.6f}\n")


def print_number_of_cs(paths: dict[float, np.ndarray]) -> None:
    """Print the estimates from N_C and N, and how fast EM finds them."""
    report.heading("Only the number of C's known, of N = 100 students")
    rows = [
        [
            f"{num_c:.0f}",
            f"{thetas[1]:.4f}",
            f"{thetas[5]:.4f}",
            f"{thetas[-1]:.4f}",
            f"{rate_seen(thetas, num_c):.4f}",
            f"{grades.convergence_rate(num_c, NUM_TOTAL):.4f}",
            str(steps_to(thetas, num_c, 1e-6)),
        ]
        for num_c, thetas in paths.items()
    ]
    steps = ("θ, step 1", "θ, step 5", "θ, step 60")
    report.table(
        ["N_C", *steps, "rate seen", "rate predicted", "steps to 1e-6"],
        rows,
        caption="""θ is a probability; EM starts at θ = 0.02 and goes to N_C / N. The rate is the
            factor by which a step shrinks the error |θ − N_C / N|: seen over the last step above
            rounding, and predicted, f / (1 − f) with f = N_C / N.""",
    )
    report.remark("""In the class of 20 C's, the estimate 0.2 differs from the 0.2083 above since
        the B's, which are informative, are not seen. The nearer N_C is to N / 2, the slower EM is:
        a student without a C is then all but surely an A, and the B's that are missing carry the
        information.""")


def steps_to(thetas: np.ndarray, num_c: float, error: float) -> int:
    """Return the first step whose error is below `error`; the last step if none is."""
    below = np.flatnonzero(errors(thetas, num_c) < error)
    return int(below[0]) if below.size else len(thetas) - 1


def draw_stairs(path: Path, thetas: np.ndarray) -> None:
    """Draw the EM map with the stairs of EM."""
    with canvas.figure(
        path,
        "A step of EM takes θ to M(θ), until these are equal",
        f"""A class of 100 students of whom only the number of C's is known, {DRAWN:.0f}. One EM
        step takes θ, the probability of a C, to M(θ); dotted, where it would stay.""",
        width=6,
        height=4.0,
    ) as figure:
        draw_map(figure.subplots(), thetas)


def draw_convergence(path: Path, paths: dict[float, np.ndarray]) -> None:
    """Draw the errors with the predicted slopes."""
    with canvas.figure(
        path,
        "EM shrinks the error by the same factor at every step, as predicted",
        """The error of θ in five classes of 100 students of whom only the number of C's is known:
        dots are EM, lines fall by the predicted rate.""",
        width=8.5,
        height=4.0,
    ) as figure:
        draw_errors(figure.subplots(), paths)


def draw_map(axes: Axes, thetas: np.ndarray) -> None:
    """Draw M(θ), the diagonal, and the path of EM between them."""
    grid = np.linspace(0, 0.499, 200)
    steps = [grades.partial_hand_derived_step({"theta": t}, DRAWN, NUM_TOTAL) for t in grid]
    axes.plot([0, 0.5], [0, 0.5], color=canvas.GREY, linewidth=0.9, linestyle=":")
    axes.plot(grid, [params["theta"] for params in steps], color=canvas.INK)
    stairs = np.repeat(thetas[:25], 2)
    axes.plot(stairs[:-1], stairs[1:], color=canvas.BLUE, linewidth=1.3)
    axes.plot(0.4, 0.4, "o", color=canvas.VERMILLION, markersize=7)
    canvas.label(axes, 0.41, 0.365, "$N_C / N$ = 0.4", canvas.VERMILLION)
    canvas.label(axes, 0.13, 0.325, "M(θ)", ha="right")
    canvas.label(axes, 0.03, 0.21, "EM", canvas.BLUE)
    axes.set(
        xlabel="θ before the step",
        ylabel="θ after the step",
        xlim=(0, 0.56),
        ylim=(0, 0.5),
    )


def draw_errors(axes: Axes, paths: dict[float, np.ndarray]) -> None:
    """Draw the error of each step on a logarithmic axis.

    A line of the predicted slope goes through the last one.
    """
    for (num_c, thetas), color in zip(paths.items(), canvas.PALETTE, strict=False):
        rate = grades.convergence_rate(num_c, NUM_TOTAL)
        error = errors(thetas, num_c)[:36]
        shown = np.flatnonzero(error > ROUNDING)
        last = shown[-1]
        axes.semilogy(shown, error[last] * rate ** (shown - last), color=color, linewidth=1.2)
        axes.semilogy(shown, error[shown], "o", color=color, markersize=3.5)
        side, shift = ("right", -0.8) if num_c == min(paths) else ("left", 0.8)
        text = f"$N_C$ = {num_c:.0f}\nrate {rate:.2f}"
        canvas.label(axes, last + shift, error[last], text, color, va="center", ha=side)
    axes.set(
        xlabel="step",
        ylabel="error of θ, |θ − $N_C$ / N|",
        xlim=(-0.5, 44),
    )
    canvas.light_grid(axes)
