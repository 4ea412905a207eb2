"""Link simulated records: `python -m experiments.linkage [--comparisons N] [--output DIR]`."""

import argparse
from pathlib import Path


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m experiments.linkage")
    parser.add_argument(
        "--comparisons", type=int, default=100_000_000, metavar="N", help="default: 100 million"
    )
    parser.add_argument("--output", type=Path, default=Path("figures/linkage"), metavar="DIR")
    chosen = parser.parse_args()
    import jax

    jax.config.update("jax_enable_x64", True)
    from experiments.linkage import link

    link(chosen.output, chosen.comparisons)


if __name__ == "__main__":
    main()
