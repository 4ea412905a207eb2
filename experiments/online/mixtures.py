"""Mixtures of Gaussians on which plain EM is slow, by plain EM, accelerated EM and online EM."""

import time
from typing import NamedTuple

import jax
import numpy as np

from emjax import EM
from emjax.models import gaussian_mixture
from experiments import report

NUM_COMPONENTS, NUM_FEATURES = 16, 8
BATCH_SIZE = 1000
NEAR = 1e-3  # nats a row
TOLERANCE, MAX_STEPS = 1e-8, 300

PLAIN = "plain EM"
ANDERSON = "Anderson"
ONLINE = "online, then plain EM"
BOTH = "online, then Anderson"
SETTINGS = {
    PLAIN: {},
    ANDERSON: {"acceleration": "anderson"},
    ONLINE: {"batch_size": BATCH_SIZE},
    BOTH: {"batch_size": BATCH_SIZE, "acceleration": "anderson"},
}


class Kind(NamedTuple):
    """How data are made.

    - `spread`: of the components' means, in standard deviations within a component.
    - `ratio`: of the weight of each component to that of the one before.
    - `is_sorted`: whether rows come component by component.
    - `seed`: of the data and of the start.
    """

    name: str
    spread: float
    ratio: float = 1.0
    is_sorted: bool = False
    seed: int = 0


KINDS = (
    Kind("overlapping", 1.2, seed=1),
    Kind("further apart", 2.0),
    Kind("common and rare", 1.6, ratio=0.75),
    Kind("sorted", 1.6, is_sorted=True),
)


class Race(NamedTuple):
    """How one method does on some data.

    - `batched`: the log-likelihood of each online pass, every batch at the estimate that it found.
    - `objective`: before every step on all data, and at the end. Both in nats a row.
    - `seconds`: with compilation.
    - `outcome`: why it ended.
    """

    batched: np.ndarray
    objective: np.ndarray
    seconds: float
    outcome: str

    @property
    def num_batched(self) -> int:
        """How many online passes there were."""
        return len(self.batched)

    def passes_to(self, gap: float) -> int:
        """Return after how many passes it is known to be so near to its own end."""
        return self.num_batched + 1 + int(np.argmax(self.objective >= self.objective[-1] - gap))


def data(kind: Kind, num_rows: int) -> np.ndarray:
    """Return rows of single precision: (num_rows, NUM_FEATURES)."""
    rng = np.random.default_rng(kind.seed)
    shape = NUM_COMPONENTS, NUM_FEATURES
    means, scales = kind.spread * rng.normal(size=shape), rng.uniform(0.6, 1.4, shape)
    weights = kind.ratio ** np.arange(NUM_COMPONENTS)
    component = rng.choice(NUM_COMPONENTS, num_rows, p=weights / weights.sum())
    if kind.is_sorted:
        component.sort()
    noise = rng.normal(size=(num_rows, NUM_FEATURES))
    return (means[component] + scales[component] * noise).astype(np.float32)


def start(kind: Kind, x: np.ndarray) -> dict[str, np.ndarray]:
    """Return a poor start: means at random rows, the spread of all data."""
    rows = np.random.default_rng(kind.seed + 77).choice(len(x), NUM_COMPONENTS, replace=False)
    return {
        "weights": np.full(NUM_COMPONENTS, 1 / NUM_COMPONENTS),
        "loc": x[rows].astype(float),
        "scale": np.tile(x.std(0), (NUM_COMPONENTS, 1)).astype(float),
    }


def races(
    num_rows: int, kinds: tuple[Kind, ...], methods: tuple[str, ...]
) -> dict[str, dict[str, Race]]:
    """Return how some methods do on each kind of data, from one start."""
    by_kind = {}
    for kind in kinds:
        x = data(kind, num_rows)
        by_kind[kind.name] = {method: race(kind, x, SETTINGS[method]) for method in methods}
    return by_kind


def race(kind: Kind, x: np.ndarray, settings: dict) -> Race:
    """Return how a method does on data."""
    em = EM(gaussian_mixture.program, tol=TOLERANCE, max_steps=MAX_STEPS, **settings)
    key, given = jax.random.key(kind.seed), start(kind, x)
    begin = time.perf_counter()
    result = em.run(key, x, NUM_COMPONENTS, "diagonal", init_params=given)
    seconds = time.perf_counter() - begin
    batched = result.online.log_likelihood if result.online else ()
    per_row = np.asarray(batched) / len(x), np.asarray(result.objective) / len(x)
    return Race(*per_row, seconds, report.outcome(result))
