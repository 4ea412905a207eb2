"""A second look at where a run has converged: do other short runs say that it is no maximum?

A saddle is one if EM leaves it from parameters beside it. A start was a poor one if EM from another
is soon above its end. Both take steps of the run that is compiled already (`rerun`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from emjax.e_step.occupancy import counts_at_hand, nearest_values
from emjax.families.limits import entry_constraint, is_simplex, limits_of
from emjax.graph.factor_graph import FactorGraph
from emjax.run import endings
from emjax.run.findings import Finding
from emjax.run.loop import ROUNDING_OF_A_SUM
from emjax.run.rerun import Reached, Rerun
from emjax.run.resolution import moves_of
from emjax.run.result import EMResult
from emjax.run.row_clusters import fitted_to_clusters
from emjax.run.settings import Settings
from emjax.run.shortcomings import collapsed
from emjax.run.state import LoopState, has_failed, has_settled

# Values of a latent whose distributions are apart by less than this (Jeffreys's divergence, in nats
# for each element; of two normals, a fifth of a standard deviation) may be where EM cannot tell
# them apart. Of 30 ends at a maximum, the nearest had 0.08; of runs at rest at a saddle, 1e-4.
NEAR = 0.05
# where tables are too large to be at hand, whoever has converged in so few steps may rest there
FEW_STEPS = 10
# Beside an estimate: each entry goes a part of the way that it goes in an EM step on so few rows,
# drawn so often. That is by about a third of a standard deviation of the data, and entries part: of
# ten saddles at which runs rested, four nudges found ten (five, if all entries follow one draw).
ROWS_OF_A_DRAW, NUM_DRAWS, NUM_NUDGES = 8, 3, 4
STEPS_OF_A_NUDGE = 20
# beyond these, steps of the best nudge, if it promises something
STEPS_BEYOND = 200
# a saddle that is worth less, in nats, is none that anybody would leave
LEAST_GAIN = 1.0
# A better end is worth a finding if it is so many nats higher: by Akaike's criterion, two
# parameters' worth.
LEAST_BETTER = 2.0
STEPS_FROM_CLUSTERS = 20
# What clusters may cost: steps that touch so many numbers together, or a tenth of the run's own.
FEW_TOUCHED = 2**18


def second_look(
    rerun: Rerun, settings: Settings, result: EMResult, at: LoopState, is_own_start: bool
) -> list[Finding]:
    """Return what other short runs say of the end of a run.

    `at`: where that stands, in the host's memory; `is_own_start`: whether it started at the
    program's own values, which nobody chose for these data.
    """
    # data that are no arguments are constants of what is compiled: there is nothing to vary
    has_ended = has_settled(result.status) and rerun.rows > 1
    if has_ended and (unread := _without_effect(rerun.compiled.graph, at.tables)):
        return [endings.no_effect(*each) for each in unread.items()]
    if not has_ended or not _is_plain(settings) or not _has_choice(rerun):
        return []
    found = _saddle(rerun, settings, result, at)
    # whoever leaves a saddle has chosen another start already
    if not found and is_own_start and settings.init is None and settings.num_restarts == 1:
        found = _better_start(rerun, settings, result)
    return found


def _is_plain(settings: Settings) -> bool:
    """Whether a run is plain EM from where it starts, and has compiled what is called again."""
    is_soft = settings.temperature == 1
    return is_soft and not (settings.polish or settings.progress_bar or len(settings.annealing))


def _has_choice(rerun: Rerun) -> bool:
    return any(latent.support.shape[0] > 1 for latent in rerun.compiled.graph.latents.values())


def _without_effect(graph: FactorGraph, tables: Sequence) -> dict[str, tuple[int, ...]]:
    """Return {Gaussian latent: its coordinates of which all coefficients are zero}.

    Nothing is known of such a coordinate but what it is drawn from, of mean zero as a rule: so that
    the next coefficients are zero, too. `tables`: natural parameters; None where they are large.
    """
    has_effect: dict[str, Any] = {}
    for term, naturals in zip(graph.terms, tables, strict=True):
        if not term.site.is_observed or not term.reads:
            continue
        if naturals is None:
            return {}
        for product, table in zip(term.products, naturals, strict=True):
            if len(product.reads) != 1 or not product.has_data:
                continue
            name, table = str(term.reads[product.reads[0]].source), np.asarray(table)
            # coefficients that are data are no table
            is_read = (table != 0).reshape(-1, table.shape[-1]).any(0) if table.ndim else True
            is_read = True if product.known else is_read
            has_effect[name] = has_effect.get(name, False) | is_read
    unread = {name: np.nonzero(~np.atleast_1d(is_read))[0] for name, is_read in has_effect.items()}
    return {name: tuple(map(int, where)) for name, where in unread.items() if len(where)}


# ── saddles ───────────────────────────────────────────────────────────────────────────────────────


def _saddle(rerun: Rerun, settings: Settings, result: EMResult, at: LoopState) -> list[Finding]:
    """Return that the estimate is a saddle, if it may be and EM leaves it."""
    graph = rerun.compiled.graph
    nearest = nearest_values(graph, at.tables, at.statistics)
    near = {name: pair for name, (apart, pair) in nearest.items() if apart < NEAR}
    are_known = set(graph.latents) <= set(counts_at_hand(graph, at.statistics))
    if not near and (are_known or result.num_steps > FEW_STEPS):
        return []
    # where nothing is known to be near, a single look has to do
    num_nudges = NUM_NUDGES if near else 1
    gain = _gain_beside(rerun, settings, result, num_nudges)
    if gain is None:
        return []
    pairs = {}
    for name, pair in near.items():
        support = graph.latents[name].support
        pairs[name] = tuple(support[value] for value in pair)
    return [endings.at_saddle(pairs, gain, STEPS_OF_A_NUDGE + STEPS_BEYOND)]


def _gain_beside(
    rerun: Rerun, settings: Settings, result: EMResult, num_nudges: int
) -> float | None:
    """Return by how much EM from beside an estimate ends above it.

    None where that is no more than if every step gained what the last one of a run may.
    """
    here = float(result.objective[-1])
    size = 1 + abs(here)
    rounding = ROUNDING_OF_A_SUM * float(np.finfo(result.objective.dtype).eps) * size

    def is_enough(reached: Reached, num_steps: int) -> bool:
        allowed = LEAST_GAIN + rounding + num_steps * float(settings.tol) * size
        return reached.objective[-1] - here > allowed

    best = None
    for seed in range(num_nudges):
        reached = rerun.steps(nudged(rerun, result.params, seed), STEPS_OF_A_NUDGE)
        if has_failed(int(reached.end.at.status)) or not np.isfinite(reached.objective[-1]):
            continue
        if best is None or reached.objective[-1] > best.objective[-1]:
            best = reached
        if is_enough(best, STEPS_OF_A_NUDGE):
            break
    if best is None or best.objective[-1] <= here + rounding:
        return None
    beyond = rerun.steps(best.params, STEPS_BEYOND)
    is_saddle = is_enough(beyond, STEPS_OF_A_NUDGE + STEPS_BEYOND)
    return float(beyond.objective[-1]) - here if is_saddle else None


def nudged(rerun: Rerun, params: Mapping[str, Any], seed: int) -> dict[str, np.ndarray]:
    """Return parameters beside an estimate, where no two values of a latent are alike.

    Each entry is between the estimate and where an EM step leads it on a few rows: so units and
    families make no difference. Matrices stay, whose constraints tie their entries.
    """
    rng = np.random.default_rng(seed)
    draws = [rerun.drawn(rng, ROWS_OF_A_DRAW) for _ in range(NUM_DRAWS)]
    ends = [rerun.steps(params, 1, data=data).params for data in draws]
    beside = {}
    for name, parameter in rerun.compiled.graph.parameters.items():
        here, constraint = np.asarray(params[name]), entry_constraint(parameter.constraint)
        beside[name] = here
        is_tied = not is_simplex(constraint) and limits_of(constraint) is None
        if is_tied or name in rerun.held:
            continue
        by_entry = here.shape[: here.ndim - constraint.event_dim] + (1,) * constraint.event_dim
        number = np.broadcast_to(rng.integers(0, NUM_DRAWS, by_entry), here.shape)
        there, part = np.choose(number, [end[name] for end in ends]), rng.uniform(0.5, 1, by_entry)
        # so few rows may lead anywhere: from what is no number, no step leads on
        with np.errstate(all="ignore"):
            between = here + part * (there - here)
        # of single numbers NumPy makes no arrays
        beside[name] = np.asarray(between, here.dtype)
    return beside


# ── other starts ──────────────────────────────────────────────────────────────────────────────────


def _better_start(rerun: Rerun, settings: Settings, result: EMResult) -> list[Finding]:
    """Return that EM from clusters of rows is soon above the estimate, if it is."""
    graph = rerun.compiled.graph
    number = max(latent.support.shape[0] for latent in graph.latents.values())
    num_steps = number + STEPS_FROM_CLUSTERS
    touched = num_steps * number * sum(array.size for array in rerun.arrays)
    if touched > FEW_TOUCHED and 10 * num_steps > result.num_steps:
        return []
    start = fitted_to_clusters(rerun, result.params, 0)
    if start is None:
        return []
    reached = rerun.steps(start, STEPS_FROM_CLUSTERS, may_settle=True)
    more = float(reached.objective[-1] - result.objective[-1])
    # false of NaN, too
    if not LEAST_BETTER < more < np.inf or _is_degenerate(rerun, reached):
        return []
    return [endings.better_start(more, STEPS_FROM_CLUSTERS)]


def _is_degenerate(rerun: Rerun, reached: Reached) -> bool:
    """Whether an end is higher only because a component has collapsed."""
    at, moves = reached.end.at, moves_of(rerun.data)
    if has_failed(int(at.status)):
        return True
    return bool(collapsed(rerun.compiled, rerun.data, moves, at.reported, reached.end.sharpness))
