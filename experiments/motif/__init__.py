"""Which short pattern do these DNA sequences share, and where does it begin in each of them?

A motif of ten letters is planted in random sequences. First in each of them: EM finds it, but from
most starts some letters early or late, until it is told to look there. Then in some of them. Read
first: `sequences.py`, then `search.py`.
"""

from pathlib import Path

from experiments import report
from experiments.logo import information
from experiments.motif import figures, search, tables
from experiments.motif.sequences import CONSENSUS, SHARE, planted_motif, planted_sequences


def run(output: Path, quick: bool) -> None:
    """Print the tables, draw the figures."""
    num_bits = information(planted_motif()).sum()
    report.remark(f"""Letters are drawn at random, A and T more often than C and G, and {CONSENSUS}
        is planted with misprints: {num_bits:.1f} bits in ten letters. EM is told how wide the motif
        is, but neither where it stands nor what it says.""")
    oops, zoops = search.exactly_one(), search.zero_or_one()
    sequences = planted_sequences(0, 100)
    starts = search.word_starts(sequences.letters, 8 if quick else 100)
    from_words = [search.end_of(oops, sequences.letters, start) for start in starts]
    realigned = [search.realigned(oops, sequences.letters, end) for end in from_words]
    ends = search.Ends(from_words, realigned)
    tables.print_ends(oops, sequences, ends)
    figures.draw_shifts(output / "shifts.png", sequences, ends)
    figures.draw_realigned(output / "realigned.png", sequences, ends)

    fewer = planted_sequences(1, 100, SHARE)
    starts = search.word_starts(fewer.letters, 2 if quick else 20)
    estimate = search.best_of(zoops, fewer.letters, starts)
    diluted = search.best_of(oops, fewer.letters, starts)
    tables.print_occurrences(zoops, fewer, estimate, diluted)
    figures.draw_found(output / "found.png", fewer, estimate)
    figures.draw_occurrences(output / "occurrences.png", fewer, estimate)
    tables.print_comparisons(oops, zoops, sequences.letters[:20], fewer.letters[:20])
