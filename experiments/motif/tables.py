"""The tables: where EM comes to rest, and what it finds."""

import numpy as np

from emjax import EM, compare_updates
from emjax.models import motif
from experiments import report
from experiments.logo import information
from experiments.motif.search import (
    End,
    Ends,
    by_shift,
    end_at,
    in_place,
    most_likely,
    places,
    word_starts,
)
from experiments.motif.sequences import LENGTHS, WIDTH, Sequences, planted_params


def shift_name(by: int | None) -> str:
    """Return a shift in words."""
    if by is None:
        return "elsewhere"
    letters = f"{abs(by)} letter{'s' * (abs(by) > 1)}"
    return "in place" if by == 0 else f"{letters} {'late' if by > 0 else 'early'}"


def print_ends(em: EM, sequences: Sequences, ends: Ends) -> None:
    """Print where EM comes to rest, and how often."""
    report.heading(
        f"One occurrence in each of {len(sequences.letters)} sequences of {LENGTHS[0]} to "
        f"{LENGTHS[1]} letters"
    )
    best = most_likely(ends.realigned)
    from_words, realigned = ends.shifts(sequences)
    rows = []
    for by, group in by_shift([*ends.words, *ends.realigned], sequences).items():
        below = best.log_likelihood - group[0].log_likelihood
        rows.append([shift_name(by), f"{below:.1f}", str(from_words[by]), str(realigned[by])])
    report.table(
        ["motif found", "nats below the best", "starts", "the same, realigned"],
        rows,
        caption=f"""Where EM comes to rest, from {len(ends.words)} words of the data. All but a few
            columns agree with the motif also where it is read some letters early or late, and each
            reading in the table is a local maximum. Realigned: where the likelihood is higher with
            all occurrences moved by some letters, EM goes on from there.""",
    )
    once = from_words[0] / len(ends.words)
    num_words = np.ceil(np.log(0.01) / np.log1p(-once))
    report.remark(f"""One word of the data as a start finds the motif in place with probability
        {once:.2f}; the best of k words with 1 − {1 - once:.2f}^k, which is 0.99 at k =
        {num_words:.0f}.""")
    truth = end_at(em, sequences.letters, planted_params())
    above = best.log_likelihood - truth.log_likelihood
    report.remark(f"""In the end the most probable start is the true one in
        {in_place(best, sequences):.0%} of the sequences; with the planted parameters themselves it
        would be in {in_place(truth, sequences):.0%}. The likelihood of the estimate is {above:.1f}
        nats above that of the planted parameters.""")


def print_occurrences(em: EM, sequences: Sequences, estimate: End, diluted: End) -> None:
    """Print what is found where some sequences have no occurrence."""
    share = sequences.has_one.mean()
    report.heading(
        f"An occurrence in {sequences.has_one.sum()} of {len(sequences.letters)} sequences, and in "
        "the others none"
    )
    truth = end_at(em, sequences.letters, planted_params(share))
    ends = {"planted parameters": truth, "zero or one": estimate, "exactly one": diluted}
    rows = []
    for name, end in ends.items():
        said_to_have_one = places(end, sequences.letters) >= 0
        rows.append(
            [
                name,
                f"{end.params['occurrence']:.2f}" if "occurrence" in end.params else "–",
                f"{information(end.params['motif']).sum():.1f}",
                f"{(said_to_have_one == sequences.has_one).mean():.0%}",
                f"{in_place(end, sequences):.0%}",
            ]
        )
    report.table(
        ["model", "γ", "bits in the motif", "told apart", "in place"],
        rows,
        caption="""Told apart: sequences that are rightly said to have an occurrence, or to have
            none. In place: occurrences whose most probable start is the true one. Who must find one
            in each sequence dilutes the motif; the likeliest motif of few occurrences has more bits
            than the planted one.""",
    )


def print_comparisons(oops: EM, zoops: EM, letters: np.ndarray, fewer: np.ndarray) -> None:
    """Print how far the generic updates are from those derived by hand.

    In `fewer`, some sequences have no occurrence.
    """
    report.heading(
        f"Generic EM against the updates derived by hand (models/motif.py), {len(letters)} "
        "sequences"
    )
    start = {"background": np.full(4, 0.25)} | word_starts(letters, 1)[0]
    print(compare_updates(oops, motif.hand_derived_step, start, letters, WIDTH))
    start = {"background": np.full(4, 0.25), "occurrence": 0.5} | word_starts(fewer, 1)[0]
    print(compare_updates(zoops, motif.zoops_hand_derived_step, start, fewer, WIDTH))
