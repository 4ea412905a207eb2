"""Which of millions of pairs of records are one person, if every field may err or be missing?

Comparisons are simulated, so that the truth is known, and written to a Parquet file; chunk by chunk
they become a table of patterns and counts (`emjax.compress`), and EM on the patterns finds how much
each level of agreement weighs. Beside it Splink, on the same comparisons if it is installed, and on
the FEBRL data as recorded. Read first: `fits.py`.

    python -m experiments linkage                          # 10 million comparisons
    python -m experiments.linkage --comparisons 100000000  # 100 million

Source: Fellegi & Sunter (1969), "A theory for record linkage", JASA 64; Linacre et al. (2022),
"Splink: free software for probabilistic record linkage at scale", IJPDS 7(3), for both charts.
"""

import tempfile
from pathlib import Path

from emjax import compare_updates
from emjax.models import record_linkage
from experiments import report
from experiments.linkage import febrl, figures, fits, tables
from experiments.linkage.simulation import NUM_LEVELS


def run(output: Path, quick: bool) -> None:
    """Print the tables, draw the figures."""
    link(output, 200_000 if quick else 10_000_000, all_checks=not quick)
    kinds = {febrl.LEVELS: "levels", febrl.SURNAMES: "and frequencies of surnames"}
    tables.print_febrl({febrl.LEVELS: "levels"} if quick else kinds)


def link(output: Path, num_comparisons: int, all_checks: bool = False) -> None:
    """Simulate comparisons and link them, from a file that is there for the while.

    `all_checks`: hold EM on patterns against EM on all comparisons, and against the update by hand.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "comparisons.parquet"
        linked = fits.linked(path, num_comparisons)
        truth = fits.with_truth(path)
        tables.print_stages(linked, path.stat().st_size)
        tables.print_weights(linked.fit)
        tables.print_accepted(linked.fit, truth)
        tables.print_splink(linked, path)
        if all_checks:
            tables.print_streamed(linked.fit, path)
    figures.draw_match_weights(output / "match_weights.png", linked.fit)
    figures.draw_waterfall(output / "waterfall.png", linked.fit)
    figures.draw_accepted(output / "precision_and_recall.png", linked.fit, truth)
    if all_checks:
        report.heading("Generic EM against the update derived by hand (models/record_linkage.py)")
        levels, count, _ = linked.patterns
        step = record_linkage.hand_derived_step
        em, start = fits.linkage_em(), fits.start_of(linked.patterns)
        print(compare_updates(em, step, start, levels, NUM_LEVELS, count))
