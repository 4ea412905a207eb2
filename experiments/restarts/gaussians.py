"""Five Gaussians, 200 points: how many optima are there, and who finds the best?"""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from emjax import EM, Fit
from emjax.models import gaussian_mixture
from experiments import report
from experiments.restarts.landscape import (
    DATA,
    FAR,
    INIT,
    RANDOM,
    SPLIT,
    Landscape,
    first_only,
    joined,
    print_starts,
)

NUM_COMPONENTS = 5
CENTERS = np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0], [4.0, 4.0], [8.0, 2.0]])
SPREADS = (0.8, 0.8, 0.8, 0.8, 1.5)
POINTS_OF_EACH = 40
KINDS = (RANDOM, DATA, FAR, SPLIT)


def five_gaussians(seed: int) -> np.ndarray:
    """Return 200 points (sample, 2) of five round Gaussians, one of them wide."""
    rng = np.random.default_rng(seed)
    clouds = [
        rng.normal(center, spread, (POINTS_OF_EACH, 2))
        for center, spread in zip(CENTERS, SPREADS, strict=True)
    ]
    return np.concatenate(clouds)


def mixture_ems(num_starts: int, kinds: Sequence[str] = KINDS) -> dict[str, EM]:
    """Return EM with each kind of start.

    Splitting draws nothing, so that one start says it all: two are compiled, since of one alone
    there would be no `restarts`.
    """
    return {
        kind: EM(
            gaussian_mixture.program,
            init=INIT[kind],
            num_restarts=2 if kind == SPLIT else num_starts,
            short_steps=None,
        )
        for kind in kinds
    }


def ends_of_starts(ems: Mapping[str, EM], points: np.ndarray) -> Landscape:
    """Return where EM ends on these points from each kind of start."""
    restarts_of = {}
    for kind in ems:
        restarts = fit(ems, points, kind).restarts
        restarts_of[kind] = first_only(restarts) if kind == SPLIT else restarts
    return joined(restarts_of)


def fit(ems: Mapping[str, EM], points: np.ndarray, kind: str = SPLIT) -> Fit:
    """Return where EM ends on these points from one kind of start."""
    return ems[kind].run(jax.random.key(1), jnp.asarray(points), NUM_COMPONENTS, "diagonal")


def starts_needed(share: float) -> str:
    """Return how many starts find the best optimum with probability 95%.

    `share` is the probability that one of them does.
    """
    if share in (0.0, 1.0):
        return "1" if share else "–"
    return str(int(np.ceil(np.log(0.05) / np.log1p(-share))))


def print_optima(landscape: Landscape) -> None:
    """Print what the starts of each kind come to on one data set."""
    report.heading("Five Gaussians, 200 points: how many optima are there?")
    bounded = landscape.bounded
    best = bounded[0].objective
    print_starts(
        landscape,
        f"{len(bounded)} distinct optima of the likelihood were found; the best has log-likelihood "
        f"{best:.3f} nats. The starts:",
        {
            RANDOM: "drawn for each point, then one M-step",
            DATA: "five points at random are the means",
            FAR: "five points far from one another",
            SPLIT: "one cluster is split until there are five",
        },
    )
    columns = [
        "start",
        "starts",
        "optima found",
        "at the best",
        "starts for 95%",
        "median gap (nats)",
        "mean steps",
        "degenerate",
    ]
    report.table(
        columns,
        [optima_row(landscape, kind) for kind in landscape.names],
        caption="Gap: log-likelihood below the best. Starts for 95%: so many find the best one "
        "with that probability.",
    )


def optima_row(landscape: Landscape, kind: str) -> list[str]:
    """Return one line of the table: what the starts of a kind come to."""
    bounded, restarts = landscape.bounded, landscape.restarts
    of_kind = landscape.kinds == kind
    num_optima = sum(landscape.counts(optimum)[kind] > 0 for optimum in bounded)
    share = landscape.share(kind, bounded[:1])
    ends = restarts.objective[of_kind & ~restarts.degenerate]
    return [
        kind,
        str(of_kind.sum()),
        str(num_optima),
        f"{100 * share:.0f}%",
        starts_needed(share),
        f"{bounded[0].objective - np.median(ends):.2f}",
        f"{restarts.num_steps[of_kind].mean():.0f}",
        f"{100 * restarts.degenerate[of_kind].mean():.0f}%",
    ]


def shares_at_best(landscapes: list[Landscape]) -> dict[str, np.ndarray]:
    """Return, by kind, the share of starts at the best optimum of each data set, (data set,)."""
    best = [landscape.bounded[:1] for landscape in landscapes]
    shares = {}
    for kind in landscapes[0].names:
        of_kind = [pair[0].share(kind, pair[1]) for pair in zip(landscapes, best, strict=True)]
        shares[kind] = np.array(of_kind)
    return shares


def print_shares(shares: Mapping[str, np.ndarray]) -> None:
    """Print how often each kind of start finds the best optimum, over data sets."""
    number = len(next(iter(shares.values())))
    report.heading(f"{number} such data sets")
    rows = []
    for kind, share in shares.items():
        percentages = [f"{100 * value:.0f}%" for value in (share.mean(), share.min(), share.max())]
        rows.append([kind, *percentages, str((share > 0).sum())])
    report.table(
        ["start", "starts at the best, mean", "least", "most", "data sets where any is"],
        rows,
        caption="The best optimum of a data set is the best that any start of any kind found.",
    )
