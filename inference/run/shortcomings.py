"""What is wrong with where a run has ended: every finding of a result."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax

from emjax.graph.factor_graph import FactorGraph
from emjax.m_step.gap import Gap
from emjax.m_step.maximizer import Maximizer
from emjax.run import findings, validation
from emjax.run.compiled import CompiledProgram
from emjax.run.copies import copies_at_end
from emjax.run.endings import not_maximized
from emjax.run.far_from_zero import far_from_zero
from emjax.run.findings import Finding
from emjax.run.pure import End, Start
from emjax.run.resolution import moves_of
from emjax.run.settings import Settings
from emjax.run.state import LoopState, Status, has_settled
from emjax.run.unbounded import unbounded_priors
from emjax.run.vanishing import vanished
from emjax.starts.strategies import START_STRATEGIES


def shortcomings(
    compiled: CompiledProgram, data: Sequence, start: Start, end: End, at: LoopState
) -> list[Finding]:
    """Return what is wrong with the end of a run, what explains the rest first.

    `at`: that of `end`, in the host's memory.
    """
    graph, watch = compiled.graph, compiled.watch
    unbounded = unbounded_priors(compiled, start.params, end.last, data)
    explained = {finding.site for finding in unbounded}
    sharpness = jax.device_get(end.sharpness)
    fallen = collapsed(compiled, data, moves_of(data), end.at.reported, sharpness)
    found = watch.findings(start.params, end.at.reported, end.last, fallen)
    found = [finding for finding in found if finding.site not in explained]
    # what an estimate on the boundary means is said once
    at_zero = []
    if not fallen:
        at_zero = vanished(compiled, data, start.params, end.at.reported, sharpness)
    on_bounds = {finding.site for finding in at_zero}
    found = [f for f in found if f.kind != "at the boundary" or f.site not in on_bounds]
    found += [*at_zero, *validation.unobserved(graph)]
    if has_settled(int(at.status)):

        def inspected(params):
            return compiled.inspection(params, compiled.prepare(data))

        found += copies_at_end(graph, at.reported, at.tables, at.statistics, inspected)
        found += watch.without_elements(at.statistics, found)
    found += far_from_zero(graph, at.statistics)
    return [*unbounded, *found, *_not_maximized(compiled, at)]


def collapsed(
    compiled: CompiledProgram,
    data: Sequence,
    moves: Callable,
    params: Mapping[str, Any],
    sharpness: Any,
) -> list[Finding]:
    """Return what has collapsed at parameters of some sharpness. `moves`: of the data."""
    return compiled.watch.collapsed(sharpness, partial(compiled.falls, params, data, moves))


def identical_starts(
    graph: FactorGraph, settings: Settings, starts: Mapping[str, Any], are_given: bool
) -> list[Finding]:
    """Return whether the starts that were run of several that were asked for are all the same.

    `starts`: {site: (start, *shape)}; `are_given`: whether every parameter was given.
    """
    # clusters that were drawn may be the same each time, which speaks for them
    is_drawn = settings.init in START_STRATEGIES and settings.init != "splitting"
    if is_drawn and (graph.latents or graph.gaussians) and not are_given:
        return []
    starts = jax.device_get(dict(starts))
    if not all((value == value[:1]).all() for value in starts.values()):
        return []
    return [findings.identical_starts(settings.num_restarts, are_given)]


def gaps_of(compiled: CompiledProgram, at: LoopState) -> dict[str, Gap]:
    """Return the optimality gap of each parameter that is climbed to."""
    gaps = {}
    for maximizer, gap in zip(_climbing(compiled), at.gaps, strict=True):
        gaps |= dict.fromkeys(maximizer.names, gap)
    return gaps


def _not_maximized(compiled: CompiledProgram, at: LoopState) -> list[Finding]:
    """Return which maximizers left Q to gain where the run stopped."""
    if int(at.status) != Status.NOT_MAXIMIZED:
        return []
    return [
        not_maximized(m.names, m.method, m.reason, float(gap.gain), float(gap.slope))
        for m, gap in zip(_climbing(compiled), at.gaps, strict=True)
        if not gap.gain <= 0
    ]


def _climbing(compiled: CompiledProgram) -> list[Maximizer]:
    """Return the maximizers that may leave a gap, in the order of `LoopState.gaps`."""
    return [m for m in compiled.maximizers if m.gap is not None]
