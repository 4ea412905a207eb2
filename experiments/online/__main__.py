"""Mixtures of so many rows: `python -m experiments.online --rows N [--output DIR]`."""

import argparse
from pathlib import Path

import jax

from experiments import online

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m experiments.online")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--output", type=Path, default=Path("figures/online"))
    chosen = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    online.race(chosen.output, chosen.rows)
