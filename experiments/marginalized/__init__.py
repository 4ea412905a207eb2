"""How much faster does NUTS draw where emjax, and not NumPyro, sums the latents out?

The same programs, the same kernel, the same starts: a chain of three states on a century of
earthquakes, and annotators who label items. The posterior must be the same. Read first:
`sampling.py`.
"""

from pathlib import Path

from experiments.marginalized import figures, programs, sampling, tables


def run(output: Path, quick: bool) -> None:
    """Print the tables, draw the figure."""
    chosen = [programs.earthquakes()]
    if not quick:
        chosen += [programs.annotations(), programs.long_chain()]
    compared = [sampling.both(case, num_rounds=3 if quick else case.num_rounds) for case in chosen]
    tables.print_speeds(compared)
    tables.print_posteriors(compared)
    figures.draw_speeds(output / "marginalized.png", compared)
