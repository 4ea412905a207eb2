"""Which annotators scored the images, and which drew random numbers?

Three images scored by five annotators are too few: EM ends with all five good, other starts end
elsewhere, and the likelihood has no bound. Then scores are simulated, with annotators 2 and 4
random, to see how many images it takes. Read first: `scores.py`.
"""

from pathlib import Path

from emjax import compare_updates
from emjax.models import annotators
from experiments import report
from experiments.annotators import figures, scores, simulation, tables

NUMS_IMAGES = (3, 5, 8, 10, 15, 20, 30, 50)


def run(output: Path, quick: bool) -> None:
    """Print the tables, draw the figures."""
    em = scores.lecture_em()
    tables.print_scores(em)
    ends = scores.subset_ends(em)
    tables.print_landscape(em, ends, num_random=10 if quick else 200)
    figures.draw_ends(output / "ends.png", ends)
    figures.draw_slices(output / "unbounded.png", em, ends)

    nums_images, num_tables = ((3, 20), 40) if quick else (NUMS_IMAGES, 200)
    posteriors = {num: simulation.simulated_posteriors(num, num_tables) for num in nums_images}
    tables.print_simulated(posteriors)
    figures.draw_images_needed(output / "images_needed.png", posteriors)
    figures.draw_random_annotators(output / "random_annotators.png", posteriors)

    report.heading("Generic EM against the update derived by hand (models/annotators.py)")
    start = scores.start_from(scores.LECTURE)
    print(compare_updates(em, annotators.hand_derived_step, start, scores.SCORES))
