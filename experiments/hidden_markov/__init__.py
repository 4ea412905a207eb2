"""When was the earth restless, if only the number of major earthquakes of each year is known?

107 yearly counts (1900–2006, magnitude 7 or greater), Poisson with a rate that a hidden state sets,
and a state that lasts. EM beside the textbook's figures, beside Viterbi training, which is the hard
E-step, and beside hmmlearn. Read first: `earthquakes.py`.

Data and starts: Zucchini, MacDonald & Langrock (2016), Hidden Markov Models for Time Series.
"""

from pathlib import Path

from emjax import compare_updates
from emjax.models import hidden_markov
from experiments import report
from experiments.hidden_markov import earthquakes, figures, tables
from experiments.hidden_markov.earthquakes import (
    HARD,
    NUM_STATES,
    NUMS_STATES,
    RATES,
    SOFT,
    fit,
    from_random_starts,
    start,
)


def run(output: Path, quick: bool) -> None:
    """Print the tables, draw the figures."""
    soft, hard = earthquakes.soft_em(), earthquakes.hard_em()
    num_starts = 10 if quick else 200
    ends = {}
    for num_states in NUMS_STATES:
        ends[num_states, SOFT] = from_random_starts(soft, num_states, num_starts)
    for num_states in (NUM_STATES,) if quick else NUMS_STATES:
        ends[num_states, HARD] = from_random_starts(hard, num_states, num_starts)
    fits = {num_states: fit(soft, num_states) for num_states in RATES}
    three, trained = fits[NUM_STATES], fit(hard, NUM_STATES)

    tables.print_fits(fits | {4: ends[4, SOFT][0]})
    tables.print_steps(three)
    tables.print_states(soft, three)
    tables.print_soft_and_hard(soft, {SOFT: three, HARD: trained})
    tables.print_ends(ends)
    figures.draw_states(output / "states.png", earthquakes.run(soft, NUM_STATES).relabel("rate"))
    figures.draw_ends(output / "random_starts.png", ends)
    figures.draw_four_states(output / "four_states.png", ends[4, SOFT], three)
    tables.print_hmmlearn(soft)
    report.heading("Generic EM against the update derived by hand (models/hidden_markov.py)")
    step, data = hidden_markov.poisson_hand_derived_step, earthquakes.data()
    print(compare_updates(soft, step, start(NUM_STATES), *data, NUM_STATES))
