"""The search for the best optima: hundreds of starts of every kind, on every data set.

`python -m experiments.starts.search --starts 400` writes `experiments/data/best_known_optima.json`:
for each data set the best regular optimum that was found, and how. A start that comes to a better
one later is a failing test (`tests/experiments/test_best_known_optima.py`).
"""

import argparse
import datetime
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from emjax import EM, Status
from experiments.starts.best_known import FILE, best_known, write
from experiments.starts.data_sets import DataSet, data_sets
from experiments.starts.ends import DEFAULT, DEFAULT_TEN, STARTS, em_of, resolved, serves

DIGITS = 10  # of each parameter: at an optimum the height is that of all digits


class Candidate(NamedTuple):
    """An end of the search.

    - `height`: its log-likelihood in nats.
    - `start`: from which kind of start EM came there.
    - `params`: the estimate.
    """

    height: float
    start: str
    params: Mapping[str, np.ndarray]


def candidates(data_set: DataSet, start: str, seeds: Sequence[int]) -> list[Candidate]:
    """Return the regular ends of many starts of a kind; none if it does not serve."""
    em = em_of(data_set, start)
    if not serves(em, data_set.data):
        return []
    found = []
    for seed in seeds:
        result = em.run(jax.random.key(seed), *data_set.data)
        params = {name: np.asarray(value) for name, value in result.params.items()}
        if result.status == Status.CONVERGED and data_set.is_regular(params):
            found.append(Candidate(float(result.log_likelihood), start, params))
    return found


def polished(data_set: DataSet, found: Candidate) -> Candidate:
    """Return the same optimum to the last digit."""
    em = EM(data_set.program, tol=0.0, max_steps=200_000)
    result = em.run(jax.random.key(0), *data_set.data, init_params=dict(found.params))
    params = {name: np.asarray(value) for name, value in result.params.items()}
    return found._replace(height=float(result.log_likelihood), params=params)


def entry(data_set: DataSet, num_starts: int, seed: int) -> dict[str, Any]:
    """Return what the file says of a data set."""
    kinds = [name for name in STARTS if name not in (DEFAULT, DEFAULT_TEN)]
    seeds = range(seed, seed + num_starts)
    ends = [end for kind in kinds for end in candidates(data_set, kind, seeds)]
    kinds = list(dict.fromkeys(end.start for end in ends))
    ends.sort(key=lambda end: -end.height)
    best = polished(data_set, ends[0])
    lower = [end.height for end in ends if end.height < best.height - resolved(best.height)]
    at_best = [end.start for end in ends if end.height >= best.height - resolved(best.height)]
    return {
        "log_likelihood": round(best.height, 8),
        "next_optimum": round(lower[0], 6) if lower else None,
        "found_from": {kind: at_best.count(kind) for kind in kinds},
        "starts_of_each": num_starts,
        "program": data_set.meaning,
        "date": datetime.date.today().isoformat(),
        "params": {name: rounded(value) for name, value in best.params.items()},
    }


def rounded(value: np.ndarray) -> Any:
    """Return an array as lists of numbers of so many digits."""
    return np.vectorize(lambda number: float(f"{number:.{DIGITS}g}"))(value).tolist()


def main() -> None:
    """Search, and write down what is better than what is known."""
    parser = argparse.ArgumentParser(prog="python -m experiments.starts.search")
    parser.add_argument("names", nargs="*", help="data sets (default: all)")
    parser.add_argument("--starts", type=int, default=400, help="of each kind")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    jax.config.update("jax_enable_x64", True)
    known = best_known() if FILE.exists() else {}
    for name in chosen.names or data_sets():
        data_set = data_sets()[name]
        found = entry(data_set, chosen.starts, chosen.seed)
        before = known.get(name, {"log_likelihood": -np.inf})["log_likelihood"]
        height = found["log_likelihood"]
        print(f"{name}: {height:.6f} (known: {before:.6f}), from {found['found_from']}", flush=True)
        if height > before + 1e-7 * (1 + abs(height)):
            known[name] = found
            ordered = {key: known[key] for key in data_sets() if key in known}
            write(ordered)


if __name__ == "__main__":
    main()
