"""Comparisons of the FEBRL data, and what Splink found in them."""

import json
from functools import cache
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from emjax import EM, compress
from emjax.models import record_linkage
from experiments.iterates import Params
from experiments.linkage.fits import Patterns
from experiments.linkage.simulation import Columns

DATA = Path(__file__).parents[1] / "data"
# in the order of the file; levels by Jaro-Winkler similarity, dates by one edit
NUM_LEVELS = {
    "given_name": 4,
    "surname": 4,
    "date_of_birth": 3,
    "street_number": 2,
    "address_1": 3,
    "suburb": 3,
}


class Febrl(NamedTuple):
    """Pairs of records with one postcode, and Splink's estimates.

    - `patterns`: of levels, and of how frequent the surname is that both records have.
    - `value`: which surname that is, by pattern; surnames of one frequency share their first.
    - `frequencies`: how many records have each surname.
    - `u`: as Splink found them from random pairs of records; for term frequencies that of equal
      surnames is Σ φ².
    - `splink`: {kind: estimates of match_rate and m}, after `num_steps` steps of its EM.
    """

    patterns: Patterns
    value: Columns
    frequencies: Columns
    u: dict[str, Params]
    splink: dict[str, Params]
    num_steps: int


LEVELS, SURNAMES = "levels", "levels_and_surnames"


@cache
def febrl() -> Febrl:
    """Return the data and Splink's numbers."""
    table = np.loadtxt(DATA / "febrl_comparisons.csv", delimiter=",", skiprows=1, dtype=int).T
    *levels, num_records, count, matches = table
    recorded = json.loads((DATA / "febrl_splink.json").read_text())
    sizes = [int(size) for size in recorded["surnames"]]
    frequency = np.repeat(sizes, list(recorded["surnames"].values()))
    first = {int(size): int(np.argmax(frequency == size)) for size in sizes}
    u = as_arrays(recorded["u"])
    return Febrl(
        Patterns(dict(zip(NUM_LEVELS, levels, strict=True)), count, matches),
        {"surname": np.array([first.get(int(size), -1) for size in num_records])},
        {"surname": frequency},
        {LEVELS: u, SURNAMES: u | {"u_surname": np.array(recorded["surname_u"])}},
        {kind: as_arrays(recorded[kind]) for kind in (LEVELS, SURNAMES)},
        recorded["num_steps"],
    )


def as_arrays(params: dict) -> Params:
    return {name: np.asarray(value) for name, value in params.items()}


def fitted(kind: str) -> tuple[Params, np.ndarray]:
    """Return the estimates after as many steps as Splink made, and p(match) of each pattern.

    u is held, and m starts where it did in Splink: at the program's own values.
    """
    data = febrl()
    levels, count, _ = data.patterns
    settings = {"fixed": set(data.u[kind]), "max_steps": data.num_steps, "tol": 0}
    if kind == SURNAMES:
        em = EM(record_linkage.frequency_program, **settings)
        args = (levels, data.value, NUM_LEVELS, data.frequencies, count)
        fit = em.run(jax.random.key(0), *args, init_params=data.u[kind])
        return dict(fit.params), np.asarray(fit.posterior()["match"])[:, 1]
    (levels,), count, rows = compress(levels, weight=count)
    em = EM(record_linkage.program, **settings)
    fit = em.run(jax.random.key(0), levels, NUM_LEVELS, count, init_params=data.u[kind])
    return dict(fit.params), np.asarray(fit.posterior()["match"])[rows, 1]


def farthest(params: Params, kind: str) -> float:
    """Return the largest difference between the estimates and Splink's."""
    splink = febrl().splink[kind]
    return max(np.abs(np.asarray(params[name]) - splink[name]).max() for name in splink)
