"""The annotators' table of three images: where do starts of each kind end?"""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import numpy as np
import numpyro.distributions as dist
from numpyro import handlers

from emjax import EM, Optimum
from emjax.models import annotators
from experiments import report
from experiments.annotators.scores import NUM_ANNOTATORS, SCORES
from experiments.restarts.landscape import (
    DATA,
    FAR,
    INIT,
    OWN,
    PRIORS,
    RANDOM,
    SPLIT,
    Landscape,
    first_only,
    joined,
    print_starts,
)

DETERMINISTIC = (OWN, SPLIT)  # one start says it all
SIGMA_MAX = 0.5


def with_priors() -> Callable:
    """Return the program with a flat prior on each parameter, from which starts are drawn.

    μ and π are uniform on [0, 1], σ on [0, SIGMA_MAX]; the objective is the log-likelihood plus log
    1 / SIGMA_MAX.
    """
    flat = {
        "mu": dist.Uniform(0.0, 1.0).expand([len(SCORES)]).to_event(1),
        "sigma": dist.Uniform(0.0, SIGMA_MAX),
        "pi": dist.Uniform(0.0, 1.0),
    }
    return handlers.lift(annotators.program, prior=flat)


def ends_of_starts(num_starts: int, kinds: Sequence[str] = tuple(INIT)) -> Landscape:
    """Return where EM ends from `num_starts` starts of each kind; `PRIORS` is one of them."""
    restarts_of = {}
    for kind in kinds:
        is_deterministic = kind in DETERMINISTIC
        em = EM(
            with_priors() if kind == PRIORS else annotators.program,
            init=INIT[kind],
            # of one start alone there would be no `restarts`
            num_restarts=2 if is_deterministic else num_starts,
            short_steps=None,
            tol=1e-10,
            max_steps=2000,
        )
        restarts = em.run(jax.random.key(0), SCORES).restarts
        restarts_of[kind] = first_only(restarts) if is_deterministic else restarts
    # without the flat priors, the objective is the log-likelihood, as it is of other kinds
    drawn = restarts_of[PRIORS]
    restarts_of[PRIORS] = eqx.tree_at(
        lambda restarts: restarts.objective, drawn, drawn.objective + np.log(SIGMA_MAX)
    )
    return joined(restarts_of)


def end_name(optimum: Optimum) -> str:
    """Return an optimum of the annotators' table in words."""
    if optimum.degenerate:
        return "σ → 0"
    share = optimum.params["pi"]
    if share > 1 - 1e-6:
        return "all good"
    if share < 1e-6:
        return "none good"
    return f"{share * NUM_ANNOTATORS:.0f} good"


def height_name(optimum: Optimum) -> str:
    """Return the log-likelihood of an optimum, ∞ where it has no bound."""
    return "∞" if optimum.degenerate else f"{optimum.objective:.3f}"


def print_ends(landscape: Landscape) -> None:
    """Print how many starts of each kind end where."""
    report.heading("Three images, five annotators: where do starts end?")
    print_starts(
        landscape,
        """The parameters are the images' values μ, the noise σ of a good annotator, and the share π
            of good ones. The starts:""",
        {
            OWN: "everyone is good",
            RANDOM: "each annotator is good with a probability drawn at random, then one M-step",
            DATA: "μ repeats the scores of one annotator, σ and π are the program's own",
            FAR: "likewise, of one of two annotators far apart",
            SPLIT: "the annotators in two clusters",
            PRIORS: "μ, σ and π are uniform",
        },
    )
    optima = landscape.optima
    rows = []
    for kind in landscape.names:
        counts = [str(landscape.counts(optimum)[kind] or "–") for optimum in optima]
        rows.append([kind, str(landscape.total(kind)), *counts])
    report.table(
        ["start", "starts", *(f"{end_name(end)} ({height_name(end)})" for end in optima)],
        rows,
        caption="Columns: where they end (log-likelihood in nats).",
    )
    print(f"  {conclusion(landscape)}\n")


def conclusion(landscape: Landscape) -> str:
    """Return what the table says of degenerate ends."""
    shares = {kind: degenerate_share(landscape, kind) for kind in landscape.names}
    others = max(share for kind, share in shares.items() if kind != PRIORS)
    return (
        f"Starts drawn from priors end without a bound in {100 * shares[PRIORS]:.0f}% of the "
        f"cases; starts that look at the data, in {100 * others:.0f}%."
    )


def degenerate_share(landscape: Landscape, kind: str) -> float:
    """Return the share of the starts of a kind that end where the likelihood has no bound."""
    degenerate = [optimum for optimum in landscape.optima if optimum.degenerate]
    return landscape.share(kind, degenerate)
