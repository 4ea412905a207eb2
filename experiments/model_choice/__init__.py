"""How many components? Is BIC bad, and cross-validation what one should use?

So says the lecture. Here AIC, BIC, ICL and 5-fold cross-validation choose the number of components:
of the chemistry of 178 wines, of earthquakes, and of counts whose truth is known, from 30 samples
to 10,000. Which is right depends on what one asks for: a good prediction (cross-validation), the
clusters (ICL), or the truth where it is among the models and the samples are many (BIC).
"""

from pathlib import Path

from experiments.model_choice import counts, earthquakes, figures, wines

SIZES = (30, 100, 300, 1_000, 3_000, 10_000)


def run(output: Path, quick: bool) -> None:
    """Print the tables, draw the figures."""
    choices = {"full": wines.chosen_mixture("full", *((1, 3), 5) if quick else ((1, 2, 3), 20))}
    if not quick:
        choices["diagonal"] = wines.chosen_mixture("diagonal", (3, 4, 5), 20)
    wines.print_wines(choices)
    figures.draw_wines(output / "wines.png", choices)
    if not quick:
        earthquakes.print_earthquakes()
    sizes = SIZES[:4:3] if quick else SIZES
    simulations = []
    for truth in counts.truths():
        simulations.append((truth, counts.simulated(truth, sizes, 8 if quick else 100)))
    for truth, scores in simulations:
        counts.print_simulated(truth, scores, sizes)
    figures.draw_choices(output / "choices.png", *simulations[0], sizes)
    figures.draw_losses(output / "losses.png", simulations, sizes)
