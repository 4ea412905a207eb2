"""When was the earth restless, if only the number of major earthquakes of each year is known?

107 yearly counts (1900–2006, magnitude 7 or greater), Poisson with a rate that a hidden state sets,
and a state that lasts. EM beside the textbook's figures, beside Viterbi training, which is the hard
E-step, and beside hmmlearn. Data and starts: Zucchini, MacDonald & Langrock (2016), Hidden Markov
Models for Time Series.
"""

from functools import cache
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from matplotlib.axes import Axes

from emjax import EM, compare_updates
from emjax.models import hidden_markov
from experiments import canvas, report
from experiments.iterates import Params, as_numpy

SERIES = Path(__file__).parent / "data" / "earthquakes.csv"
YEARS = np.arange(1900, 2007)
NUMS_STATES = (2, 3, 4)
NUM_STATES = 3  # of the model that is drawn
STATES = ("quiet", "middling", "busy")
COLORS = (canvas.BLUE, canvas.GREEN, canvas.VERMILLION)
SHOWN_STEPS = (0, 1, 2, 5, 10, 20)
SOFT, HARD = "soft EM", "Viterbi training"
RATES = {2: (10.0, 30.0), 3: (10.0, 20.0, 30.0)}  # where the book's EM starts


class Published(NamedTuple):
    """What the book prints of a model: rates in earthquakes a year, and the log-likelihood
    in nats.
    """

    rate: tuple[float, ...]
    log_likelihood: float


# Chapter 4, by EM; chapters 3 and 6, where the first year's state has the stationary distribution
# of `transition`.
BOOK = {
    2: Published((15.421, 26.018), -341.8787),
    3: Published((13.134, 19.713, 29.710), -328.5275),
}
BOOK_STATIONARY = {
    2: Published((15.472, 26.125), -342.3183),
    3: Published((13.146, 19.721, 29.714), -329.4603),
    4: Published((11.283, 13.853, 19.695, 29.700), -327.8316),
}


class Fit(NamedTuple):
    """Where EM ended, states in the order of their rates, and the objective in nats at steps 0 …
    the last.
    """

    params: Params
    log_likelihood: float
    objective: np.ndarray
    status: str


# Where the random starts end, the most likely first, by the number of states and the E-step.
Ends = dict[tuple[int, str], list[Fit]]


@cache
def counts() -> np.ndarray:
    """Return the number of major earthquakes in each of the years."""
    return np.loadtxt(SERIES, delimiter=",", skiprows=1, usecols=1, dtype=int)


def data() -> tuple[np.ndarray, np.ndarray]:
    """Return the counts as one sequence, (time, sequence), and its length."""
    return counts()[:, None], np.array([len(YEARS)])


def soft_em() -> EM:
    """Return EM on the counts: Baum-Welch."""
    return EM(hidden_markov.poisson_program, tol=1e-12, max_steps=10_000)


def hard_em() -> EM:
    """Return EM that takes the most probable path for the truth: Viterbi training."""
    return EM(hidden_markov.poisson_program, e_step="hard")


def start(num_states: int) -> Params:
    """Return the book's start with 2 or 3 states: any first state, and 0.1 for a move to each other
    state.
    """
    return {
        "initial": np.full(num_states, 1 / num_states),
        "transition": np.full((num_states, num_states), 0.1)
        + (1 - 0.1 * num_states) * np.eye(num_states),
        "rate": np.array(RATES[num_states]),
    }


def fit(em: EM, num_states: int, key: jax.Array | None = None) -> Fit:
    """Return where EM ends from `start`, or from the program's own random start if a key is
    given.
    """
    given = start(num_states) if key is None else None
    found = em.run(
        jax.random.key(0) if key is None else key, *data(), num_states, init_params=given
    )
    params = as_numpy(found.params)
    order = np.argsort(params["rate"])
    ordered = {
        "initial": params["initial"][order],
        "transition": params["transition"][np.ix_(order, order)],
        "rate": params["rate"][order],
    }
    return Fit(ordered, float(found.log_likelihood), found.objective, report.outcome(found))


def from_random_starts(em: EM, num_states: int, num_starts: int) -> list[Fit]:
    """Return where EM ends from the program's random starts, the most likely first."""
    ends = [fit(em, num_states, key) for key in jax.random.split(jax.random.key(1), num_starts)]
    return sorted(ends, key=lambda end: -end.log_likelihood)


def maxima(ends: list[Fit]) -> list[tuple[Fit, int]]:
    """Return an end of each log-likelihood, and how many ends share it; a step of 0.01 nats parts
    two of them.
    """
    heights = np.array([end.log_likelihood for end in ends])
    firsts = np.flatnonzero(np.diff(heights, prepend=np.inf) < -0.01)
    return [
        (ends[i], int(count))
        for i, count in zip(firsts, np.diff(firsts, append=len(ends)), strict=True)
    ]


def path(em: EM, params: Params) -> np.ndarray:
    """Return the most probable path: the state of each year."""
    return np.asarray(em.decode(params, *data(), len(params["rate"]))["state"])[:, 0]


def smoothed(em: EM, params: Params) -> np.ndarray:
    """Return p(state | all counts), (year, state)."""
    return np.asarray(em.posterior(params, *data(), len(params["rate"]))["state"])[:, 0]


def spans(states: np.ndarray) -> list[tuple[int, int, int]]:
    """Return the first year, the last year and the state of each stretch in which the state
    stays.
    """
    grouped = [
        list(group)
        for _, group in groupby(zip(YEARS, states, strict=True), key=lambda pair: pair[1])
    ]
    return [(int(group[0][0]), int(group[-1][0]), int(group[0][1])) for group in grouped]


def criteria(log_likelihood: float, num_parameters: int) -> tuple[float, float]:
    """Return AIC and BIC, smaller is better."""
    return 2 * num_parameters - 2 * log_likelihood, num_parameters * np.log(
        len(YEARS)
    ) - 2 * log_likelihood


def hmmlearn_step(
    params: Params, sequence: np.ndarray, lengths: np.ndarray, num_states: int
) -> Params:
    """Return the parameters after one step of hmmlearn's `PoissonHMM`, whose default priors are
    none.
    """
    from hmmlearn.hmm import PoissonHMM

    model = PoissonHMM(num_states, n_iter=1, tol=-np.inf, init_params="")
    model.n_features = 1
    model.startprob_, model.transmat_ = params["initial"], params["transition"]
    model.lambdas_ = params["rate"][:, None]
    model.fit(sequence, lengths)
    return {
        "initial": model.startprob_,
        "transition": model.transmat_,
        "rate": model.lambdas_[:, 0],
    }


def run(figures: Path, quick: bool) -> None:
    """Print the tables, draw the figures."""
    soft, hard = soft_em(), hard_em()
    num_starts = 20 if quick else 200
    ends = {(n, SOFT): from_random_starts(soft, n, num_starts) for n in NUMS_STATES}
    ends |= {
        (n, HARD): from_random_starts(hard, n, num_starts)
        for n in ((NUM_STATES,) if quick else NUMS_STATES)
    }
    fits = {num_states: fit(soft, num_states) for num_states in RATES}
    found, trained = fits[NUM_STATES], fit(hard, NUM_STATES)

    print_fits(fits | {4: ends[4, SOFT][0]})
    print_steps(found)
    print_states(soft, found)
    print_soft_and_hard(soft, {SOFT: found, HARD: trained})
    print_ends(ends)
    draw_states(figures / "states.png", soft, found, trained)
    draw_ends(figures / "random_starts.png", ends, found)
    print_hmmlearn(soft)
    report.heading("Generic EM against the update derived by hand (models/hidden_markov.py)")
    step = hidden_markov.poisson_hand_derived_step
    print(compare_updates(soft, step, start(NUM_STATES), *data(), NUM_STATES))


def print_fits(fits: dict[int, Fit]) -> None:
    """Print rates and log-likelihoods, and the book's beside them."""
    report.heading(f"{len(YEARS)} years, {counts().sum()} major earthquakes: 2, 3 and 4 states")
    rows = []
    for num_states, found in fits.items():
        free, stationary = num_states**2 + num_states - 1, num_states**2
        models = [("here", Published(tuple(found.params["rate"]), found.log_likelihood), free)]
        models += [("book, EM", BOOK[num_states], free)] if num_states in BOOK else []
        models += [("book, stationary", BOOK_STATIONARY[num_states], stationary)]
        for name, (rate, log_likelihood), num_parameters in models:
            scores = (f"{score:.1f}" for score in criteria(log_likelihood, num_parameters))
            rows.append([num_states, name, report.numbers(rate), f"{log_likelihood:.4f}", *scores])
    report.table(
        ["states", "fit", "rates (earthquakes a year)", "log-likelihood (nats)", "AIC", "BIC"],
        rows,
        caption="""Here and in the book's EM the first year's distribution is free; in its other
            fits it is the stationary one, a maximum over fewer programs and so never higher. With 2
            and 3 states EM starts where the book's does; with 4, where the book shows no EM, this
            is the best of the random starts below.""",
    )


def print_steps(found: Fit) -> None:
    """Print the log-likelihood step by step."""
    steps = [*SHOWN_STEPS, len(found.objective) - 1]
    report.table(
        ["step", "log-likelihood (nats)"],
        [[step, f"{found.objective[step]:.5f}"] for step in steps],
        caption=f"""{NUM_STATES} states from rates {report.numbers(RATES[NUM_STATES], 0)},
            {found.status}. The book has -342.90781 at the start, -332.12143 after one step, and
            -328.52748 in the end.""",
    )


def print_states(em: EM, found: Fit) -> None:
    """Print what the three states are, and when each ruled."""
    report.heading(f"The {NUM_STATES} states, and when each ruled")
    stays = np.diagonal(found.params["transition"])
    decoded = path(em, found.params)
    rows = [
        [
            name,
            f"{found.params['rate'][k]:.1f}",
            *(f"{probability:.3f}" for probability in found.params["transition"][k]),
            f"{1 / (1 - stays[k]):.0f}",
            int((decoded == k).sum()),
        ]
        for k, name in enumerate(STATES)
    ]
    report.table(
        [
            "state",
            "rate (a year)",
            *(f"then {name}" for name in STATES),
            "lasts (years)",
            "years decoded",
        ],
        rows,
        caption="""Rate, probabilities of the next year's state, how long the state lasts on
            average, and how many years it has on the most probable path.""",
    )
    ruled = (f"{first}–{last} {STATES[state]}" for first, last, state in spans(decoded))
    report.remark(f"The most probable path: {', '.join(ruled)}.")


def print_soft_and_hard(em: EM, fits: dict[str, Fit]) -> None:
    """Print soft EM and Viterbi training from the same start."""
    report.heading("Soft EM and Viterbi training from the same start")
    paths = {name: path(em, found.params) for name, found in fits.items()}
    rows = [
        [
            name,
            len(found.objective) - 1,
            report.numbers(found.params["rate"], 2),
            report.numbers(np.diagonal(found.params["transition"])),
            f"{found.log_likelihood:.4f}",
        ]
        for name, found in fits.items()
    ]
    report.table(
        ["", "steps", "rates (a year)", "stays in its state", "log-likelihood (nats)"], rows
    )
    differ = YEARS[paths[SOFT] != paths[HARD]]
    probability = smoothed(em, fits[SOFT].params).max(axis=1)
    report.remark(f"""Viterbi training counts one path as if it were known: its states lie further
        apart and last longer, and it stops sooner, below the maximum. The two decode {len(differ)}
        years differently ({", ".join(map(str, differ))}). Soft EM leaves
        {(probability < 0.9).sum()} of the {len(YEARS)} years in doubt (no smoothed probability over
        0.9); a path does not say so.""")


def print_ends(ends: Ends) -> None:
    """Print where random starts end, with the soft and with the hard E-step."""
    num_starts = len(ends[NUM_STATES, SOFT])
    report.heading(f"From {num_starts} random starts")
    rows = [
        [
            num_states,
            name,
            len(maxima(found)),
            f"{100 * maxima(found)[0][1] / num_starts:.1f}%",
            *(f"{end.log_likelihood:.3f}" for end in (found[0], found[num_starts // 2], found[-1])),
        ]
        for (num_states, name), found in sorted(ends.items(), key=lambda item: item[0][0])
    ]
    report.table(
        ["states", "", "different ends", "reach the best", "best", "median", "worst"],
        rows,
        caption="""Log-likelihoods at the ends, in nats; ends that are 0.01 nats apart count as
            different. Viterbi training is judged by the log-likelihood too, every path summed
            out.""",
    )
    report.table(
        ["log-likelihood (nats)", "starts", "rates (a year)"],
        [
            [f"{found.log_likelihood:.3f}", count, report.numbers(found.params["rate"], 2)]
            for found, count in maxima(ends[4, SOFT])[:4]
        ],
        caption="The best ends of soft EM with 4 states.",
    )


def print_hmmlearn(em: EM) -> None:
    """Print how far hmmlearn's steps are from ours, if it is installed."""
    report.heading("hmmlearn's PoissonHMM from the same start, step by step")
    if find_spec("hmmlearn") is None:
        report.remark(
            "hmmlearn is not installed (pip install hmmlearn, where it has wheels): left out."
        )
        return
    compared = compare_updates(em, hmmlearn_step, start(NUM_STATES), *data(), NUM_STATES)
    shown = (1, 10, 50)
    report.table(
        ["parameter", *(f"step {step}" for step in shown)],
        [
            [name, *(f"{d[step - 1]:.1e}" for step in shown)]
            for name, d in compared.differences.items()
        ],
        caption="Largest absolute difference of each parameter after so many steps.",
    )


def draw_states(file: Path, em: EM, found: Fit, trained: Fit) -> None:
    """Draw the series, the decoded states under it, and the smoothed probabilities."""
    busy = [
        f"{first}–{last}"
        for first, last, state in spans(path(em, found.params))
        if state == NUM_STATES - 1
    ]
    with canvas.figure(
        file,
        f"The earth was busiest in {', '.join(busy[:-1])} and {busy[-1]}",
        """Earthquakes of magnitude 7 or greater in each year. Top: the counts and, as bars, the
        rate of the state on the most probable path. Middle: that path, and the one that Viterbi
        training learns. Bottom: the probability of each state given the whole series; where colors
        share a year, EM is in doubt.""",
        height=5.6,
    ) as figure:
        top, middle, bottom = figure.subplots(3, 1, sharex=True, height_ratios=[3.2, 0.75, 1.3])
        draw_series(top, found.params["rate"], path(em, found.params))
        draw_paths(middle, {SOFT: path(em, found.params), HARD: path(em, trained.params)})
        draw_smoothed(bottom, smoothed(em, found.params))
        figure.align_ylabels([top, bottom])


def draw_series(axes: Axes, rate: np.ndarray, decoded: np.ndarray) -> None:
    """Draw the counts, colored by the decoded state, on bars at its rate."""
    axes.plot(YEARS, counts(), color=canvas.GREY, linewidth=0.8, zorder=1)
    axes.scatter(YEARS, counts(), s=16, c=[COLORS[k] for k in decoded], linewidths=0, zorder=3)
    bar = {"linewidth": 6, "alpha": 0.3, "solid_capstyle": "butt"}
    for first, last, state in spans(decoded):
        axes.plot(
            [first - 0.5, last + 0.5], [rate[state]] * 2, color=COLORS[state], zorder=2, **bar
        )
    for name, value, color in zip(STATES, rate, COLORS, strict=True):
        canvas.label(axes, YEARS[-1] + 2, value, f"{name}\n{value:.1f} a year", color, va="center")
    axes.set(ylabel="earthquakes in the year", ylim=(0, 44), xlim=(YEARS[0] - 1, YEARS[-1] + 1))
    axes.tick_params(axis="x", length=0)
    canvas.light_grid(axes)


def draw_paths(axes: Axes, paths: dict[str, np.ndarray]) -> None:
    """Draw each path as a strip of colors."""
    for row, states in enumerate(paths.values()):
        for first, last, state in spans(states):
            axes.broken_barh(
                [(first - 0.5, last - first + 1)], (row - 0.38, 0.76), facecolor=COLORS[state]
            )
    axes.set(yticks=range(len(paths)), yticklabels=list(paths), ylim=(len(paths) - 0.5, -0.5))
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def draw_smoothed(axes: Axes, probability: np.ndarray) -> None:
    """Draw the probability of each state, one on the other, a bar a year."""
    below = np.zeros(len(YEARS))
    for k, color in enumerate(COLORS):
        axes.bar(YEARS, probability[:, k], width=1, bottom=below, color=color)
        below = below + probability[:, k]
    axes.set(xlabel="year", ylabel="probability", ylim=(0, 1), yticks=[0, 0.5, 1])


def draw_ends(file: Path, ends: Ends, three: Fit) -> None:
    """Draw where the random starts end, and the rates of the maxima with four states."""
    num_starts = len(ends[NUM_STATES, SOFT])
    with canvas.figure(
        file,
        "With 2 or 3 states soft EM always ends in one place; Viterbi training does not",
        f"""{num_starts} random starts. Left: the log-likelihood at the end, a dot a start. Right:
        the rates where soft EM ends with 4 states, the most likely on top, and how many starts lead
        there; lines are the rates with 3 states. The fourth state has no work of its own: it splits
        one or another of the three.""",
        height=3.9,
    ) as figure:
        left, right = figure.subplots(1, 2)
        draw_heights(left, ends)
        draw_maxima(right, maxima(ends[4, SOFT]), three.params["rate"])


def draw_heights(axes: Axes, ends: Ends) -> None:
    """Draw the log-likelihood of each end, two columns for each number of states."""
    rng = np.random.default_rng(0)
    for (num_states, name), found in ends.items():
        color, shift = (canvas.BLUE, -0.2) if name == SOFT else (canvas.VERMILLION, 0.2)
        across = num_states + shift + rng.uniform(-0.14, 0.14, len(found))
        heights = [end.log_likelihood for end in found]
        axes.plot(across, heights, "o", color=color, markersize=4, alpha=0.5, markeredgewidth=0)
    for name, color, height in ((SOFT, canvas.BLUE, 0.3), (HARD, canvas.VERMILLION, 0.23)):
        canvas.label(axes, 0.66, height, name, color, transform=axes.transAxes)
    axes.set(
        xticks=NUMS_STATES,
        xticklabels=[f"{num_states} states" for num_states in NUMS_STATES],
        xlim=(NUMS_STATES[0] - 0.5, NUMS_STATES[-1] + 0.5),
        ylabel="log-likelihood at the end, nats",
        title="Where the starts end",
    )
    axes.tick_params(axis="x", length=0)
    canvas.light_grid(axes)


def draw_maxima(axes: Axes, found: list[tuple[Fit, int]], three: np.ndarray) -> None:
    """Draw the rates of each maximum in a row, on lines at the rates of three states."""
    for rate in three:
        axes.axvline(rate, color=canvas.PALE, linewidth=1.2, zorder=0)
    for row, (end, _) in enumerate(found):
        axes.plot(end.params["rate"], [row] * 4, "o", color=canvas.BLUE, markersize=6)
    axes.set(
        yticks=range(len(found)),
        yticklabels=[f"−{-end.log_likelihood:.2f} nats, {count}×" for end, count in found],
        ylim=(len(found) - 0.5, -0.5),
        xticks=[10, 15, 20, 25, 30],
        xlabel="rates of the four states, earthquakes a year",
        title="Four states: where soft EM ends",
    )
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
