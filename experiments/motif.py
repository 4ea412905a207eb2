"""Which short pattern do these DNA sequences share, and where does it begin in each of them?

A motif of ten letters is planted in random sequences. First in each of them: EM finds it, but from
most starts some letters early or late, until it is told to look there. Then in some of them.
"""

from collections import Counter
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from matplotlib.axes import Axes

from emjax import EM, compare_updates
from emjax.models import motif
from experiments import canvas, report
from experiments.iterates import Params, as_numpy
from experiments.logo import draw_logo, information

CONSENSUS = "CGATTACAGT"
CERTAINTY = np.array(
    [0.55, 0.8, 0.9, 0.85, 0.9, 0.95, 0.8, 0.85, 0.7, 0.55]
)  # of each letter of the consensus
WIDTH = len(CONSENSUS)
BACKGROUND = np.array([0.3, 0.2, 0.2, 0.3])
LENGTHS = (60, 100)  # of the shortest sequence and of the longest
SHARE = 0.6  # of the sequences that have an occurrence, where some have none
PURITY = 0.5  # of the letters of a word, in the motif that starts from it
TOLERANCE = 1e-7  # of the log-likelihood: a thousandth of a nat
SHOWN_SEQUENCES = 10
SHOWN_SHIFTS = 4


class Sequences(NamedTuple):
    """Letters (sequence, position), −1 past the end, and where each sequence's occurrence begins,
    −1 for nowhere.
    """

    letters: np.ndarray
    starts: np.ndarray

    @property
    def has_one(self) -> np.ndarray:
        """Return which sequences have an occurrence."""
        return self.starts >= 0


class End(NamedTuple):
    """Where EM ended: `starts` is p(start | letters), (sequence, start); `log_likelihood` in nats,
    all sequences.
    """

    params: Params
    starts: np.ndarray
    log_likelihood: float


def planted_motif() -> np.ndarray:
    """Return the motif (column, letter): the consensus, and the other three letters equally
    probable in its place.
    """
    is_consensus = np.array(list(CONSENSUS))[:, None] == np.array(list(motif.LETTERS))
    return np.where(is_consensus, CERTAINTY[:, None], (1 - CERTAINTY[:, None]) / 3)


def planted_sequences(seed: int, num_sequences: int, share: float = 1.0) -> Sequences:
    """Return sequences of background letters in which, with probability `share`, one occurrence of
    the motif stands.
    """
    rng = np.random.default_rng(seed)
    lengths = rng.integers(LENGTHS[0], LENGTHS[1] + 1, size=num_sequences)
    starts = np.where(
        rng.uniform(size=num_sequences) < share, rng.integers(lengths - WIDTH + 1), -1
    )
    letters = rng.choice(4, p=BACKGROUND, size=(num_sequences, LENGTHS[1]))
    for sequence, start in zip(letters, starts, strict=True):
        if start >= 0:
            sequence[start : start + WIDTH] = [
                rng.choice(4, p=column) for column in planted_motif()
            ]
    return Sequences(np.where(np.arange(LENGTHS[1]) < lengths[:, None], letters, -1), starts)


def exactly_one() -> EM:
    """Return EM where every sequence has one occurrence."""
    return EM(motif.program, tol=TOLERANCE)


def zero_or_one() -> EM:
    """Return EM where a sequence has zero occurrences or one."""
    return EM(motif.zoops_program, tol=TOLERANCE)


def end_of(em: EM, letters: np.ndarray, start: dict) -> End:
    """Return where EM ends; what the start leaves open is as in the program."""
    return end_at(em, letters, em.run(jax.random.key(0), letters, WIDTH, init_params=start).params)


def end_at(em: EM, letters: np.ndarray, params: dict) -> End:
    """Return the end of an EM that stops at these parameters."""
    starts = np.asarray(em.posterior(params, letters, WIDTH)["start"])
    return End(as_numpy(params), starts, float(em.log_likelihood(params, letters, WIDTH)))


def word_starts(letters: np.ndarray, how_many: int, seed: int = 1) -> list[dict]:
    """Return motifs made of words of the data: in each column the word's letter has the probability
    `PURITY`.
    """
    rng, starts = np.random.default_rng(seed), []
    for sequence in rng.integers(len(letters), size=how_many):
        first = rng.integers((letters[sequence] >= 0).sum() - WIDTH + 1)
        is_letter = letters[sequence, first : first + WIDTH, None] == np.arange(4)
        starts.append({"motif": np.where(is_letter, PURITY, (1 - PURITY) / 3)})
    return starts


def planted_params(share: float | None = None) -> dict:
    """Return the parameters that the sequences were drawn from."""
    params = {"background": BACKGROUND, "motif": planted_motif()}
    return params if share is None else params | {"occurrence": share}


# ---------------------------------------------------------------- where occurrences are read, and
# moving them


def places(end: End, letters: np.ndarray) -> np.ndarray:
    """Return the most probable start in each sequence, −1 where that is nowhere."""
    best = end.starts.argmax(axis=1)
    return np.where(best <= letters.shape[1] - WIDTH, best, -1)


def shift(end: End, sequences: Sequences) -> int | None:
    """Return by how many letters most occurrences are read late; None where not even a quarter
    agrees on a shift.
    """
    found = places(end, sequences.letters)
    late = (found - sequences.starts)[sequences.has_one & (found >= 0)]
    ((by, count),) = Counter(late.tolist()).most_common(1) or [(None, 0)]
    return by if count > sequences.has_one.sum() / 4 else None


def profile(end: End, letters: np.ndarray) -> np.ndarray:
    """Return how often each letter is expected, place by place along the occurrences and beside
    them.

    Shape (3 · WIDTH − 2, letter): the occurrences begin at row WIDTH − 1.
    """
    num_starts = letters.shape[1] - WIDTH + 1
    padded = np.pad(letters, ((0, 0), (WIDTH - 1, WIDTH - 1)), constant_values=-1)
    read = np.lib.stride_tricks.sliding_window_view(
        padded, num_starts, axis=1
    )  # (sequence, place, start)
    return np.stack(
        [np.einsum("ns,nps->p", end.starts[:, :num_starts], read == a) for a in range(4)], axis=1
    )


def moved(end: End, letters: np.ndarray) -> np.ndarray:
    """Return the motifs (move, column, letter) that are read where all occurrences are moved by 1 …
    WIDTH − 1 letters, to either side.

    One letter of the background is added to each column: EM never leaves a probability of zero.
    """
    rows = profile(end, letters) + end.params["background"]
    rows /= rows.sum(axis=1, keepdims=True)
    return np.stack(
        [rows[first : first + WIDTH] for first in range(2 * WIDTH - 1) if first != WIDTH - 1]
    )


def realigned(em: EM, letters: np.ndarray, end: End) -> End:
    """Return where EM ends if it goes on from the best of the moves, for as long as that is more
    likely.

    Source: Lawrence et al. (1993), "Detecting subtle sequence signals: a Gibbs sampling strategy
    for multiple alignment", Science 262, where such moves are proposed to a sampler; to take the
    best of them is ours.
    """

    def log_likelihood(moved_motif: jax.Array) -> jax.Array:
        return em.log_likelihood(end.params | {"motif": moved_motif}, letters, WIDTH)

    while True:
        motifs = moved(end, letters)
        heights = jax.vmap(log_likelihood)(motifs)
        if heights.max() <= end.log_likelihood:
            return end
        end = end_of(em, letters, end.params | {"motif": motifs[heights.argmax()]})


def best_of(em: EM, letters: np.ndarray, starts: list[dict]) -> End:
    """Return the most likely end from these starts, each realigned."""
    return most_likely([realigned(em, letters, end_of(em, letters, start)) for start in starts])


def most_likely(ends: list[End]) -> End:
    """Return the end of the highest likelihood."""
    return max(ends, key=lambda end: end.log_likelihood)


# ---------------------------------------------------------------- tables and figures


class Ends(NamedTuple):
    """Where EM ends from words of the data, and the same ends realigned."""

    words: list[End]
    realigned: list[End]


def run(figures: Path, quick: bool) -> None:
    """Print the tables, draw the figures."""
    report.remark(f"""Letters are drawn at random, A and T more often than C and G, and {CONSENSUS}
        is planted with misprints: {information(planted_motif()).sum():.1f} bits in ten letters. EM
        is told how wide the motif is, but neither where it stands nor what it says.""")
    one, some = exactly_one(), zero_or_one()
    sequences = planted_sequences(0, 100)
    starts = word_starts(sequences.letters, 16 if quick else 100)
    words = [end_of(one, sequences.letters, start) for start in starts]
    ends = Ends(words, [realigned(one, sequences.letters, end) for end in words])
    print_ends(one, sequences, ends)
    draw_shifts(figures / "shifts.png", sequences, ends)

    fewer = planted_sequences(1, 100, SHARE)
    starts = word_starts(fewer.letters, 3 if quick else 20)
    found, diluted = best_of(some, fewer.letters, starts), best_of(one, fewer.letters, starts)
    print_occurrences(some, fewer, found, diluted)
    draw_occurrences(figures / "occurrences.png", fewer, found)
    print_comparisons(one, some, sequences.letters[:20], fewer.letters[:20])


def by_shift(ends: list[End], sequences: Sequences) -> dict[int | None, list[End]]:
    """Return the ends by their shift, the most likely shift first, and the most likely end first in
    each.
    """
    groups: dict[int | None, list[End]] = {}
    for end in sorted(ends, key=lambda end: -end.log_likelihood):
        groups.setdefault(shift(end, sequences), []).append(end)
    return groups


def shift_name(by: int | None) -> str:
    """Return a shift in words."""
    if by is None:
        return "elsewhere"
    letters = f"{abs(by)} letter{'s' * (abs(by) > 1)}"
    return "in place" if by == 0 else f"{letters} {'late' if by > 0 else 'early'}"


def in_place(end: End, sequences: Sequences) -> float:
    """Return the share of the planted occurrences whose most probable start is the true one."""
    return (places(end, sequences.letters) == sequences.starts)[sequences.has_one].mean()


def print_ends(em: EM, sequences: Sequences, ends: Ends) -> None:
    """Print where EM comes to rest, and how often."""
    report.heading(
        f"One occurrence in each of {len(sequences.letters)} sequences of {LENGTHS[0]} to "
        f"{LENGTHS[1]} letters"
    )
    best = most_likely(ends.realigned)
    shifts = [Counter(shift(end, sequences) for end in kind) for kind in ends]
    rows = [
        [
            shift_name(by),
            f"{best.log_likelihood - group[0].log_likelihood:.1f}",
            *(str(kind[by]) for kind in shifts),
        ]
        for by, group in by_shift([end for kind in ends for end in kind], sequences).items()
    ]
    report.table(
        ["motif found", "nats below the best", "starts", "the same, realigned"],
        rows,
        caption=f"""Where EM comes to rest, from {len(ends.words)} words of the data. All but a few
            columns agree with the motif also where it is read some letters early or late, and each
            reading in the table is a local maximum. Realigned: where the likelihood is higher with
            all occurrences moved by some letters, EM goes on from there.""",
    )
    once = shifts[0][0] / len(ends.words)
    report.remark(f"""One word of the data as a start finds the motif in place with probability
        {once:.2f}; the best of k words with 1 − {1 - once:.2f}^k, which is 0.99 at k =
        {np.ceil(np.log(0.01) / np.log1p(-once)):.0f}.""")
    truth = end_at(em, sequences.letters, planted_params())
    report.remark(f"""In the end the most probable start is the true one in
        {in_place(best, sequences):.0%} of the sequences; with the planted parameters themselves it
        would be in {in_place(truth, sequences):.0%}. The likelihood of the estimate is
        {best.log_likelihood - truth.log_likelihood:.1f} nats above that of the planted
        parameters.""")


def print_occurrences(em: EM, sequences: Sequences, found: End, diluted: End) -> None:
    """Print what is found where some sequences have no occurrence."""
    share = sequences.has_one.mean()
    report.heading(
        f"An occurrence in {sequences.has_one.sum()} of {len(sequences.letters)} sequences, and in "
        "the others none"
    )
    truth = end_at(em, sequences.letters, planted_params(share))
    rows = [
        [
            name,
            f"{end.params['occurrence']:.2f}" if "occurrence" in end.params else "–",
            f"{information(end.params['motif']).sum():.1f}",
            f"{((places(end, sequences.letters) >= 0) == sequences.has_one).mean():.0%}",
            f"{in_place(end, sequences):.0%}",
        ]
        for name, end in (
            ("planted parameters", truth),
            ("zero or one", found),
            ("exactly one", diluted),
        )
    ]
    report.table(
        ["model", "γ", "bits in the motif", "told apart", "in place"],
        rows,
        caption="""Told apart: sequences that are rightly said to have an occurrence, or to have
            none. In place: occurrences whose most probable start is the true one. Who must find one
            in each sequence dilutes the motif; the likeliest motif of few occurrences has more bits
            than the planted one.""",
    )


def print_comparisons(one: EM, some: EM, letters: np.ndarray, fewer: np.ndarray) -> None:
    """Print how far the generic updates are from those derived by hand."""
    report.heading(
        f"Generic EM against the updates derived by hand (models/motif.py), {len(letters)} "
        "sequences"
    )
    start = {"background": np.full(4, 0.25)} | word_starts(letters, 1)[0]
    print(compare_updates(one, motif.hand_derived_step, start, letters, WIDTH))
    start = {"background": np.full(4, 0.25), "occurrence": 0.5} | word_starts(fewer, 1)[0]
    print(compare_updates(some, motif.zoops_hand_derived_step, start, fewer, WIDTH))


def draw_shifts(path: Path, sequences: Sequences, ends: Ends) -> None:
    """Draw the motif as it is read in place, early and late, and how often EM ends so."""
    groups = by_shift(ends.words, sequences)
    shown = [by for by in groups if by is not None][:SHOWN_SHIFTS]
    with canvas.figure(
        path,
        f"""From {len(groups[0])} of {len(ends.words)} words EM finds the motif in place, else it
        reads it early or late""",
        """Left: the planted motif, and local maxima of the likelihood: the same motif read at
        another place, in which the columns that are lost at one end come in as background at the
        other. The height of a column is its information, at most 2 bits. Right: EM from words of
        the data, and after it is told to try its occurrences moved by some letters.
        """,
        width=10,
        height=4.9,
    ) as figure:
        left, right = figure.subfigures(1, 2, width_ratios=[1.15, 1])
        left.supylabel("information (bits)", fontsize=9.5)
        draw_alignment(
            left.subplots(len(shown) + 1, 1, sharex=True, sharey=True), ends, groups, shown
        )
        draw_counts(right.subplots(), sequences, ends)


def draw_alignment(panels: np.ndarray, ends: Ends, groups: dict, shown: list[int]) -> None:
    """Draw logos under one another, each where it is read."""
    best = most_likely(ends.realigned).log_likelihood
    draw_logo(panels[0], planted_motif())
    panels[0].set_title("planted")
    for axes, by in zip(panels[1:], shown, strict=True):
        draw_logo(axes, groups[by][0].params["motif"], by)
        below = best - groups[by][0].log_likelihood
        axes.set_title(f"found {shift_name(by)}" + f", {below:.0f} nats less likely" * (below > 1))
    for axes in panels:
        axes.axvspan(-0.5, WIDTH - 0.5, color=canvas.PALE, alpha=0.4, linewidth=0, zorder=0)
        axes.set(
            xlim=(min(shown) - 0.6, WIDTH + max(shown) - 0.4),
            ylim=(0, 2),
            yticks=[0, 1, 2],
            xticks=[],
        )
        axes.spines["bottom"].set_color(canvas.PALE)


def draw_counts(axes: Axes, sequences: Sequences, ends: Ends) -> None:
    """Draw how many starts end at each shift, before they are realigned and after."""
    counts = [Counter(shift(end, sequences) for end in kind) for kind in ends]
    known = {by for count in counts for by in count if by is not None}
    shifts = [
        *range(min(known), max(known) + 1),
        *([None] if any(None in count for count in counts) else []),
    ]
    for count, color, side in zip(counts, (canvas.GREY, canvas.BLUE), (-0.2, 0.2), strict=True):
        heights = [count[by] for by in shifts]
        axes.bar(np.arange(len(shifts)) + side, heights, color=color, width=0.4)
        for place, height in enumerate(heights):
            if height:
                axes.text(
                    place + side,
                    height,
                    str(height),
                    ha="center",
                    va="bottom",
                    fontsize=8.5,
                    color=color,
                )
    axes.set(
        xticks=range(len(shifts)),
        xticklabels=[
            "else-\nwhere" if by is None else f"{by:+d}".replace("-", "−") if by else "0"
            for by in shifts
        ],
        xlabel="letters by which the motif is read late",
        ylabel="starts",
        title="Where EM comes to rest",
    )
    in_place, top = shifts.index(0), counts[1][0]
    canvas.label(axes, in_place + 0.5, 0.97 * top, "realigned", canvas.BLUE, va="top")
    canvas.label(
        axes, in_place - 0.5, 0.97 * counts[0][0], "EM alone", canvas.GREY, ha="right", va="top"
    )


def draw_occurrences(path: Path, sequences: Sequences, end: End) -> None:
    """Draw the motif under what was planted, and where it is found in some sequences."""
    with canvas.figure(
        path,
        f"""Planted in {sequences.has_one.sum()} of {len(sequences.letters)} sequences, a motif is
        found, and where it stands""",
        f"""Zero or one occurrence in each sequence. Left: the letters of the motif, a column as
        high as its information. Right: how probable it is that the occurrence begins there, in the
        first {SHOWN_SEQUENCES} sequences; a triangle is where it was planted.
        """,
        width=10,
        height=4.6,
    ) as figure:
        left, right = figure.subfigures(1, 2, width_ratios=[1, 1.35])
        draw_both_logos(left.subplots(2, 1, sharex=True, sharey=True), end)
        draw_posterior(right.subplots(), sequences, end)


def draw_both_logos(panels: np.ndarray, end: End) -> None:
    """Draw the planted motif above the one found."""
    for axes, probs, name in zip(
        panels, (planted_motif(), end.params["motif"]), ("planted", "found"), strict=True
    ):
        draw_logo(axes, probs, first=1)
        axes.set(
            xlim=(0.4, WIDTH + 0.6), ylim=(0, 2), yticks=[0, 1, 2], ylabel="information (bits)"
        )
        axes.set(xticks=range(1, WIDTH + 1), title=f"{name}, {information(probs).sum():.1f} bits")
        axes.tick_params(axis="x", length=0)


def draw_posterior(axes: Axes, sequences: Sequences, end: End) -> None:
    """Draw p(start | letters) over each sequence, and beside it the probability that there
    is none.
    """
    longest = sequences.letters.shape[1]
    for row, (letters, true_start, probability) in enumerate(
        zip(sequences.letters[:SHOWN_SEQUENCES], sequences.starts, end.starts, strict=False)
    ):
        somewhere, nowhere = (
            probability[: longest - WIDTH + 1],
            probability[longest - WIDTH + 1 :].sum(),
        )
        axes.plot([0, (letters >= 0).sum()], [row, row], color=canvas.PALE, linewidth=1.5, zorder=1)
        axes.bar(
            np.arange(len(somewhere)),
            -0.72 * somewhere,
            bottom=row,
            width=1.4,
            color=canvas.BLUE,
            zorder=2,
        )
        if true_start >= 0:
            axes.plot(true_start, row + 0.15, "^", color=canvas.VERMILLION, markersize=5)
        axes.text(longest + 9, row, f"{nowhere:.2f}", ha="right", va="center", color=canvas.INK)
    axes.text(longest + 9, -1.0, "p(none)", ha="right", va="center", weight="bold")
    axes.set(
        xlim=(-1, longest + 10),
        ylim=(SHOWN_SEQUENCES - 0.5, -1.3),
        yticks=range(SHOWN_SEQUENCES),
        yticklabels=range(1, SHOWN_SEQUENCES + 1),
        xlabel="position in the sequence",
        ylabel="sequence",
    )
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
