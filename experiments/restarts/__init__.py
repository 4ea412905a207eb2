"""Which optima do two hundred starts find, how often, and does it matter how one starts?

The annotators' table of three images, whose likelihood has several optima and no bound, and five
Gaussians in the plane, whose likelihood has dozens. From each kind of start: how many starts end
where. Read first: `landscape.py`, what is known of many starts.
"""

from pathlib import Path

from experiments.restarts import annotators, figures, gaussians
from experiments.restarts.landscape import FAR, INIT, OWN, PRIORS, RANDOM, SPLIT

QUICK_KINDS = (OWN, RANDOM, SPLIT, PRIORS)  # each kind is compiled on its own
QUICK_MIXTURE_KINDS = (RANDOM, FAR, SPLIT)


def run(output: Path, quick: bool) -> None:
    """Print the tables, draw the figures."""
    num_starts, num_data_sets = (20, 2) if quick else (200, 6)
    landscape = annotators.ends_of_starts(num_starts, QUICK_KINDS if quick else tuple(INIT))
    annotators.print_ends(landscape)
    figures.draw_annotators(output / "annotators.png", landscape)

    kinds = QUICK_MIXTURE_KINDS if quick else gaussians.KINDS
    ems = gaussians.mixture_ems(num_starts, kinds)
    data = [gaussians.five_gaussians(seed) for seed in range(num_data_sets)]
    landscapes = [gaussians.ends_of_starts(ems, points) for points in data]
    shares = gaussians.shares_at_best(landscapes)
    gaussians.print_optima(landscapes[0])
    gaussians.print_shares(shares)
    figures.draw_optima_by_start(output / "optima_by_start.png", landscapes[0])
    figures.draw_best_by_start(output / "best_by_start.png", shares)
    figures.draw_optima(output / "optima.png", gaussians.fit(ems, data[0]), landscapes[0])
