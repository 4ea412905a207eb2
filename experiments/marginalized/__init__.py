"""How much faster does NUTS draw where emjax, and not NumPyro, sums the latents out?

The same programs, the same kernel, the same starts: four small programs, a chain of three states on
a century of earthquakes, annotators who label items, and a long chain. The posterior must be the
same. Read first: `sampling.py`.
"""

from pathlib import Path

from experiments.marginalized import figures, programs, sampling, small, tables


def run(output: Path, quick: bool) -> None:
    """Print the tables, draw the figure."""
    chosen = [small.mixture()]
    if not quick:
        chosen += [small.long_form(), small.with_masks(), small.factorial()]
        chosen += [programs.earthquakes(), programs.annotations(), programs.long_chain()]
    compared = [sampling.both(case) for case in chosen]
    tables.print_speeds(compared)
    tables.print_posteriors(compared)
    figures.draw_speeds(output / "marginalized.png", compared)
