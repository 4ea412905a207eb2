"""The tables: the scores, where starts end, and how many images it takes."""

from collections import Counter

import numpy as np

from emjax import EM
from experiments import report
from experiments.annotators.scores import ALL_GOOD, SCORES, End, end_of, random_ends, start_from
from experiments.annotators.simulation import SIGMAS, images_needed, share_found


def print_scores(em: EM) -> None:
    """Print the data, and what EM makes of them from the lecture's start."""
    report.heading("Three images, five annotators; scores between 0 and 1")
    rows = []
    for image, scores in enumerate(SCORES):
        rows.append([str(image), *(f"{score:.2f}" for score in scores)])
    report.table(["image", *(f"annotator {a}" for a in ALL_GOOD)], rows)
    report.remark("""A good annotator's score is the image's value μ plus noise of standard
        deviation σ; a bad one's is a random number. π is the share of good annotators. The
        lecture's start takes everyone for good, and its answer is that 0, 1 and 3 are.""")
    end = end_of(em, start_from(ALL_GOOD))
    spread = f"σ = {end.sigma:.4f}, π = {end.pi:.3f}"
    print(f"\n  EM from the lecture's start ends with {end.name}: {spread},")
    print(f"  log-likelihood {end.log_likelihood:.3f} nats.\n")


def print_landscape(em: EM, ends: dict, num_random: int) -> None:
    """Print how many starts lead to which end."""
    report.heading("Where other starts end")
    scattered = random_ends(em, num_random)
    by_name = {end.name: end for end in [*scattered, *ends.values()]}
    systematic = Counter(end.name for end in ends.values())
    at_random = Counter(end.name for end in scattered)
    rows = [
        [end.name, *shown(end), str(systematic[end.name]), str(at_random[end.name])]
        for end in sorted(by_name.values(), key=lambda end: end.log_likelihood)
    ]
    columns = ["end", "σ", "π", "log-likelihood (nats)", "p(good) of annotators 0 … 4"]
    report.table(
        [*columns, "of 31 starts", f"of {num_random} random"],
        rows,
        caption="""The 31 starts take each set of annotators for good; the random ones draw μ, σ and
            π. Where one annotator is left to be good, μ repeats the scores, σ → 0, and the
            likelihood grows without bound: a maximum that says nothing. Where nobody is, π → 0 and
            every score has density 1: 0 nats.""",
    )


def shown(end: End) -> list[str]:
    """Return σ, π, the log-likelihood and the posterior as text."""
    if np.isinf(end.log_likelihood):
        return ["0", "–", "∞", "one annotator good"]
    return [
        f"{end.sigma:.4f}",
        f"{end.pi:.3f}",
        f"{end.log_likelihood:.3f}",
        report.numbers(end.posterior),
    ]


def print_simulated(posteriors: dict[int, np.ndarray]) -> None:
    """Print how often the good annotators are found, by the number of images."""
    report.heading("How many images does it take?")
    num_tables = next(iter(posteriors.values())).shape[1]
    rows = []
    for num, table_posteriors in posteriors.items():
        shares = share_found(table_posteriors)
        rows.append([str(num), *(f"{100 * share:.0f}%" for share in shares)])
    report.table(
        ["images", *(f"found, σ = {sigma:g}" for sigma in SIGMAS)],
        rows,
        caption=f"""Scores simulated by the program with annotators 2 and 4 random; how often EM
            from the lecture's start finds exactly 0, 1 and 3 good, in {num_tables} simulated
            tables. σ is the noise of a good annotator.""",
    )
    needed = [
        f"{images_needed(posteriors, noise)} images at σ = {sigma:g}"
        for noise, sigma in enumerate(SIGMAS)
    ]
    print(f"  To find them in 95% of the tables takes {', '.join(needed)}.")
