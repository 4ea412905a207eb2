"""The tables: EM beside the book, beside Viterbi training and beside hmmlearn."""

from importlib.util import find_spec

import numpy as np

from emjax import EM, compare_updates
from experiments import report
from experiments.hidden_markov.earthquakes import (
    BOOK,
    BOOK_STATIONARY,
    HARD,
    NUM_STATES,
    RATES,
    SOFT,
    STATES,
    YEARS,
    Ends,
    Fit,
    Published,
    counts,
    criteria,
    data,
    maxima,
    path,
    smoothed,
    spans,
    start,
)
from experiments.iterates import Params

SHOWN_STEPS = (0, 1, 2, 5, 10, 20)


def print_fits(fits: dict[int, Fit]) -> None:
    """Print rates and log-likelihoods, and the book's beside them."""
    report.heading(f"{len(YEARS)} years, {counts().sum()} major earthquakes: 2, 3 and 4 states")
    rows = []
    for num_states, ours in fits.items():
        free, stationary = num_states**2 + num_states - 1, num_states**2
        here = Published(tuple(ours.params["rate"]), ours.log_likelihood)
        rows.append([num_states, "here", *figures_of(here, free)])
        if num_states in BOOK:
            rows.append([num_states, "book, EM", *figures_of(BOOK[num_states], free)])
        cells = figures_of(BOOK_STATIONARY[num_states], stationary)
        rows.append([num_states, "book, stationary", *cells])
    report.table(
        ["states", "fit", "rates (earthquakes a year)", "log-likelihood (nats)", "AIC", "BIC"],
        rows,
        caption="""Here and in the book's EM the first year's distribution is free; in its other
            fits it is the stationary one, a maximum over fewer programs and so never higher. With 2
            and 3 states EM starts where the book's does; with 4, where the book shows no EM, this
            is the best of the random starts below.""",
    )


def figures_of(fit: Published, num_parameters: int) -> list[str]:
    """Return rates, log-likelihood, AIC and BIC as text."""
    scores = [f"{score:.1f}" for score in criteria(fit.log_likelihood, num_parameters)]
    return [report.numbers(fit.rate), f"{fit.log_likelihood:.4f}", *scores]


def print_steps(fit: Fit) -> None:
    """Print the log-likelihood step by step."""
    steps = [*SHOWN_STEPS, len(fit.objective) - 1]
    report.table(
        ["step", "log-likelihood (nats)"],
        [[step, f"{fit.objective[step]:.5f}"] for step in steps],
        caption=f"""{NUM_STATES} states from rates {report.numbers(RATES[NUM_STATES], 0)},
            {fit.status}. The book has -342.90781 at the start, -332.12143 after one step, and
            -328.52748 in the end.""",
    )


def print_states(em: EM, fit: Fit) -> None:
    """Print what the three states are, and when each ruled."""
    report.heading(f"The {NUM_STATES} states, and when each ruled")
    rate, transition = fit.params["rate"], fit.params["transition"]
    decoded = path(em, fit.params)
    rows = []
    for k, name in enumerate(STATES):
        next_state = [f"{probability:.3f}" for probability in transition[k]]
        lasts, num_years = 1 / (1 - transition[k, k]), int((decoded == k).sum())
        rows.append([name, f"{rate[k]:.1f}", *next_state, f"{lasts:.0f}", num_years])
    then = [f"then {name}" for name in STATES]
    report.table(
        ["state", "rate (a year)", *then, "lasts (years)", "years decoded"],
        rows,
        caption="""Rate, probabilities of the next year's state, how long the state lasts on
            average, and how many years it has on the most probable path.""",
    )
    ruled = (f"{first}–{last} {STATES[state]}" for first, last, state in spans(decoded))
    report.remark(f"The most probable path: {', '.join(ruled)}.")


def print_soft_and_hard(em: EM, fits: dict[str, Fit]) -> None:
    """Print soft EM and Viterbi training from the same start."""
    report.heading("Soft EM and Viterbi training from the same start")
    rows = [
        [
            name,
            len(fit.objective) - 1,
            report.numbers(fit.params["rate"], 2),
            report.numbers(np.diagonal(fit.params["transition"])),
            f"{fit.log_likelihood:.4f}",
        ]
        for name, fit in fits.items()
    ]
    report.table(
        ["", "steps", "rates (a year)", "stays in its state", "log-likelihood (nats)"], rows
    )
    differ = YEARS[path(em, fits[SOFT].params) != path(em, fits[HARD].params)]
    in_doubt = (smoothed(em, fits[SOFT].params).max(axis=1) < 0.9).sum()
    report.remark(f"""Viterbi training counts one path as if it were known: its states lie further
        apart and last longer, and it stops sooner, below the maximum. The two decode {len(differ)}
        years differently ({", ".join(map(str, differ))}). Soft EM leaves {in_doubt} of the
        {len(YEARS)} years in doubt (no smoothed probability over 0.9); a path does not say so.""")


def print_ends(ends: Ends) -> None:
    """Print where random starts end, with the soft and with the hard E-step."""
    num_starts = len(ends[NUM_STATES, SOFT])
    report.heading(f"From {num_starts} random starts")
    rows = []
    for num_states, name in sorted(ends, key=lambda key: key[0]):
        fits = ends[num_states, name]
        heights = [f"{fits[i].log_likelihood:.3f}" for i in (0, num_starts // 2, -1)]
        _, num_best = maxima(fits)[0]
        share = f"{100 * num_best / num_starts:.1f}%"
        rows.append([num_states, name, len(maxima(fits)), share, *heights])
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
            [f"{end.log_likelihood:.3f}", count, report.numbers(end.params["rate"], 2)]
            for end, count in maxima(ends[4, SOFT])[:4]
        ],
        caption="The best ends of soft EM with 4 states.",
    )


def hmmlearn_step(
    params: Params, sequence: np.ndarray, lengths: np.ndarray, num_states: int
) -> Params:
    """Return the parameters after one step of hmmlearn's `PoissonHMM`, which has no priors."""
    from hmmlearn.hmm import PoissonHMM

    model = PoissonHMM(num_states, n_iter=1, tol=-np.inf, init_params="")
    model.n_features = 1
    model.startprob_, model.transmat_ = params["initial"], params["transition"]
    model.lambdas_ = params["rate"][:, None]
    model.fit(sequence, lengths)
    after = {"initial": model.startprob_, "transition": model.transmat_}
    return after | {"rate": model.lambdas_[:, 0]}


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
    rows = []
    for name, difference in compared.differences.items():
        rows.append([name, *(f"{difference[step - 1]:.1e}" for step in shown)])
    report.table(
        ["parameter", *(f"step {step}" for step in shown)],
        rows,
        caption="Largest absolute difference of each parameter after so many steps.",
    )
