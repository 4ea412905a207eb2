"""Which of two coins was tossed, and how biased is each, if only the heads were written down?

Five sets of ten flips, each with one of two coins, A or B. Soft EM weighs the coins by their
posterior, hard EM picks the more probable one, and supervised maximum likelihood is told. Data and
start: Do & Batzoglou (2008), figure 1.
"""

from pathlib import Path

import jax
import numpy as np
from matplotlib.axes import Axes
from numpyro import handlers

from emjax import EM, EMResult, compare_updates
from emjax.models import coins
from experiments import canvas, report
from experiments.iterates import iterates

HEADS = np.array([5.0, 9.0, 8.0, 4.0, 7.0])  # of ten flips each
START = {"bias": np.array([0.6, 0.5])}
KNOWN_COINS = np.array([1, 0, 0, 1, 0])  # B A A B A, for the supervised estimate
NEW_SET = np.array([6.0])
SETS = [f"⟨{int(h)},{10 - int(h)}⟩" for h in HEADS]
OTHER_STARTS = ([0.3, 0.25], [0.9, 0.8], [0.35, 0.9], [0.25, 0.5], [0.93, 0.3], [0.6, 0.9])
SLIDE = {"bias": np.array([0.7, 0.5])}  # where a lecture's slide takes hard EM


def soft_em() -> EM:
    """Return EM on the coins, with a tolerance that shows four decimals."""
    return EM(coins.program, tol=1e-12)


def hard_em() -> EM:
    """Return EM that gives every set to its more probable coin."""
    return EM(coins.program, e_step="hard", tol=1e-12)


def biases(em: EM, start: dict, num_steps: int) -> np.ndarray:
    """Return the biases of A and B at steps 0 … num_steps, one row a step."""
    path, _ = iterates(em, start, HEADS, num_steps=num_steps)
    return np.array([params["bias"] for params in path])


def responsibilities(em: EM, params: dict, heads: np.ndarray = HEADS) -> np.ndarray:
    """Return p(coin A | heads) for each set."""
    return np.asarray(em.posterior(params, heads)["coin"])[:, 0]


def supervised() -> np.ndarray:
    """Return the maximum-likelihood biases where the coins are known.

    The program is the same, with its latent observed.
    """
    program = handlers.condition(coins.program, data={"coin": KNOWN_COINS})
    return np.asarray(EM(program).run(jax.random.key(0), HEADS).params["bias"])


def run(output: Path, quick: bool) -> None:
    """Print the tables, draw the figures."""
    soft, hard = soft_em(), hard_em()
    result = soft.run(jax.random.key(0), HEADS, init_params=START)
    report.remark("""A set ⟨h,t⟩ has h heads and t tails. Each set was tossed with coin A or coin B,
        either one half of the time. To be estimated: the probability of heads of each coin.""")
    print_soft(soft, result)
    print_hard(soft, hard)
    print_others(soft, result.params)
    draw_paths(output / "paths.png", soft, hard, result.params)
    draw_responsibilities(output / "responsibilities.png", soft, result.params)
    report.heading("Generic EM against the update derived by hand (models/coins.py)")
    print(compare_updates(soft, coins.hand_derived_step, START, HEADS))


def print_soft(soft: EM, result: EMResult) -> None:
    """Print the soft E-step at the start and at the end, and the biases step by step."""
    report.heading("Soft EM from (0.6, 0.5)")
    first, last = responsibilities(soft, START), responsibilities(soft, result.params)
    rows = [
        [name, f"{a:.2f}", f"{1 - a:.2f}", f"{b:.2f}"]
        for name, a, b in zip(SETS, first, last, strict=True)
    ]
    report.table(
        ["set", "p(A | set) at the start", "p(B | set) at the start", "p(A | set) at the end"], rows
    )
    path, objective = iterates(soft, START, HEADS, num_steps=11)
    rows = []
    for step in (0, 1, 2, 3, 5, 10):
        a, b = path[step]["bias"]
        rows.append([str(step), f"{a:.4f}", f"{b:.4f}", f"{objective[step]:.4f}"])
    report.table(
        ["step", "bias of A", "bias of B", "log-likelihood (nats)"],
        rows,
        caption="Biases before any step (0) and after each; the log-likelihood is that of the same "
        "row.",
    )
    a, b = result.params["bias"]
    print(
        f"  In the end, after {result.num_steps} steps ({report.outcome(result)}): A {a:.4f}, "
        f"B {b:.4f}, log-likelihood {result.log_likelihood:.4f} nats"
    )


def print_hard(soft: EM, hard: EM) -> None:
    """Print hard EM, and where a slide of a lecture goes instead."""
    report.heading("Hard EM from (0.6, 0.5)")
    rows = []
    for step, bias in enumerate(biases(hard, START, 3)):
        is_a = responsibilities(hard, {"bias": np.asarray(bias)}) > 0.5
        assigned = " ".join("BA"[int(a)] for a in is_a)
        rows.append([str(step), f"{bias[0]:.2f}", f"{bias[1]:.2f}", assigned])
    report.table(["step", "bias of A", "bias of B", f"coin of each set {' '.join(SETS)}"], rows)
    of_fourth = responsibilities(soft, {"bias": np.array([0.8, 0.45])})[3]
    a, b = biases(hard, SLIDE, 3)[-1]
    report.remark(f"""(0.80, 0.45) is the fixed point, reached in one step. The lecture's slide then
        gives set 4, {SETS[3]}, to coin A and goes on to (0.70, 0.50). By its own formula that set
        belongs to B: at (0.80, 0.45), p(A | {SETS[3]}) = {of_fourth:.2f}. From (0.70, 0.50) hard EM
        comes back to ({a:.2f}, {b:.2f}).""")


def print_others(soft: EM, params: dict) -> None:
    """Print the supervised estimate and the classification of a new set."""
    report.heading("With the coins known, and a new set")
    bias = supervised()
    print(f"  Supervised maximum likelihood (coins B A A B A): A {bias[0]:.2f}, B {bias[1]:.2f}")
    new = responsibilities(soft, params, NEW_SET)[0]
    coin = "A" if new > 0.5 else "B"
    print(
        f"  New set ⟨6,4⟩ under the soft estimate: p(A) = {new:.2f}, p(B) = {1 - new:.2f}, so "
        f"coin {coin}\n"
    )


def draw_paths(path: Path, soft: EM, hard: EM, params: dict) -> None:
    """Draw the paths of soft and of hard EM on the log-likelihood."""
    a, b = params["bias"]
    with canvas.figure(
        path,
        f"Soft EM climbs to ({a:.2f}, {b:.2f}); hard EM jumps to (0.80, 0.45) and stays",
        """Five sets of ten flips, two coins. The log-likelihood (darker is higher) has two equal
        maxima, since the names A and B could be swapped (dotted). Thin lines: soft EM from other
        starts.""",
        width=7.2,
        height=4.6,
    ) as figure:
        draw_landscape(figure.subplots(), soft, hard)


def draw_landscape(axes: Axes, soft: EM, hard: EM) -> None:
    """Draw contours of the log-likelihood over both biases, and paths on it."""
    grid = np.linspace(0.2, 0.95, 151)
    surface = log_likelihood_surface(grid)
    heights = surface.max() - np.array([14, 10, 7, 5, 3.5, 2.2, 1.4, 0.8, 0.4, 0.1])
    greys = [str(grey) for grey in np.linspace(1, 0.74, 11)]
    axes.contourf(grid, grid, surface.T, levels=heights, extend="both", colors=greys)
    axes.plot([0.2, 0.95], [0.2, 0.95], color=canvas.GREY, linewidth=0.8, linestyle=":")
    thin = {"color": canvas.SKY, "linewidth": 1, "marker": "o", "markersize": 2}
    for start in OTHER_STARTS:
        axes.plot(*biases(soft, {"bias": np.array(start)}, 30).T, **thin)
    axes.plot(*biases(soft, START, 30).T, color=canvas.BLUE, marker="o", markersize=4)
    axes.plot(*biases(hard, START, 1).T, color=canvas.VERMILLION, marker="s", markersize=5)
    axes.plot(*START["bias"], "o", color=canvas.INK, markersize=6)
    canvas.label(axes, 0.588, 0.485, "start", ha="right", va="top")
    canvas.label(axes, 0.815, 0.535, "soft", canvas.BLUE)
    canvas.label(axes, 0.79, 0.405, "hard", canvas.VERMILLION)
    axes.set(
        xlabel="probability of heads, coin A",
        ylabel="probability of heads, coin B",
        aspect="equal",
    )


def log_likelihood_surface(grid: np.ndarray) -> np.ndarray:
    """Return log p(heads | bias) in nats for every pair of biases, (bias A, bias B).

    The binomial coefficients are left out.
    """
    heads = np.asarray(HEADS)
    log_set = np.log(grid)[:, None] * heads + np.log1p(-grid)[:, None] * (10 - heads)  # (bias, set)
    return (np.logaddexp(log_set[:, None], log_set[None]) + np.log(0.5)).sum(axis=-1)


def draw_responsibilities(path: Path, soft: EM, params: dict) -> None:
    """Draw p(A | set) at the start and at the end, a row for each set."""
    first, last = responsibilities(soft, START), responsibilities(soft, params)
    surer = np.abs(last - 0.5) > np.abs(first - 0.5)
    with canvas.figure(
        path,
        f"Of {surer.sum()} of {len(SETS)} sets EM grows surer which coin tossed them",
        """The posterior that a set of ten flips was tossed with coin A, at the start and at the end
        of soft EM; sets by their number of heads.""",
        width=6.5,
        height=2.8,
    ) as figure:
        axes = figure.subplots()
        order = np.argsort(-HEADS)
        axes.axvline(0.5, color=canvas.PALE, linewidth=1)
        for row, (before, after) in enumerate(zip(first[order], last[order], strict=True)):
            axes.plot([before, after], [row, row], color=canvas.PALE, linewidth=3, zorder=1)
            places = ((before, canvas.GREY, "start", 0.52), (after, canvas.BLUE, "end", -0.26))
            for value, color, name, aside in places:
                axes.plot(value, row, "o", color=color, markersize=8)
                text = f"{name} {value:.2f}" if row == 0 else f"{value:.2f}"
                canvas.label(axes, value, row + aside, text, color, ha="center")
        axes.set_yticks(range(len(order)), [SETS[k] for k in order])
        axes.set_xticks([0, 0.5, 1], ["0\nsurely B", "0.5", "1\nsurely A"])
        axes.set(ylabel="⟨heads, tails⟩", xlim=(-0.02, 1.04), ylim=(len(order) - 0.3, -0.7))
        axes.tick_params(axis="y", length=0)
