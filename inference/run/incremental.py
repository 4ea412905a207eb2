"""Online EM a batch at a time: for data that are not there yet when it begins.

A run with `batch_size=` goes through data that it has; here the caller brings each batch, and the
number of rows, N, grows. With s the expected statistics as if of all N rows so far, N′ of which
were there before, a batch of B rows yields

    s ← (1 − γ) (N / N′) s + γ (N / B) · E[statistics of the batch | θ],      θ ← the M-step at s,

so that a prior counts once, against N rows. Source: Cappé & Moulines (2009), J. R. Stat. Soc. B 71.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from emjax.program.arguments import checked_arguments
from emjax.run import validation
from emjax.run.bound import Bound
from emjax.run.compiler import Compiler
from emjax.run.online import (
    LARGEST_STEP,
    ROWS_FOR_EACH_PARAMETER,
    OnlineSteps,
    Running,
    check_apart,
    num_parameters,
)
from emjax.run.padded import Lengths
from emjax.run.part_program import PartProgram, part_program
from emjax.sources.part import Part


class OnlineState(eqx.Module):
    """Where online EM stands.

    **Attributes:**

    - `params`: the estimate, constrained, keyed by site: the M-step at the average of statistics.
    - `num_rows`: N, how many rows there were, each as often as it came.
    - `num_batches`: how many batches.
    - `step_size`: γ of the last one; 1 before the first.
    - `log_likelihood`: log p of the last batch in nats, at the estimate that it found; NaN before
      the first.
    - `origins`: means of the first batch, about which the statistics of all are taken.
    - `running`: the average of statistics, and the estimate at which the next batch is looked at.
    """

    params: dict[str, Any]
    num_rows: int
    num_batches: int
    step_size: float
    log_likelihood: Any
    origins: list[Any]
    running: Running


class Incremental:
    """The steps of a program's online EM on batches that come one after another.

    - `programs`: what is compiled for batches, by all of their arguments' shapes but the rows.
    """

    def __init__(self, compiler: Compiler):
        self.compiler = compiler
        self.programs: dict[Hashable, PartProgram] = {}

    def init(self, rng_key: Any, args: tuple, kwargs: Mapping[str, Any], given: Any) -> OnlineState:
        """Return where online EM stands before the first batch, which is given for its start."""
        settings = replace(self.compiler.settings, max_steps=0, batch_size=None, step_size=None)
        bound = Bound(Compiler(self.compiler.model, settings), args, kwargs)
        start = bound.run(rng_key, init_params=given).params
        program, data, sums, _ = self._looked_at(args, kwargs)
        dtype = jnp.result_type(float)
        origins = program.pure.graph.summary.means(sums, dtype)
        params = {name: np.asarray(value, dtype) for name, value in start.items()}
        running = OnlineSteps(program, origins).start(params, data)
        nothing = jnp.full((), jnp.nan)
        return OnlineState(dict(running.state.params), 0, 0, 1.0, nothing, origins, running)

    def update(
        self, state: OnlineState, args: tuple, kwargs: Mapping[str, Any], step_size: Any
    ) -> OnlineState:
        """Return where online EM stands after one more batch. `step_size`: γ; None: see `EM`."""
        program, data, _, size = self._looked_at(args, kwargs)
        num_rows = state.num_rows + size
        gamma, moves = _step(program, state, size, step_size)
        running = state.running
        # what was as if of the rows before is as if of these
        growth = num_rows / max(state.num_rows, 1)
        own = jax.tree.map(lambda each: (each * growth).astype(each.dtype), running.own)
        nothing = jax.tree.map(jnp.zeros_like, own)
        running = replace(running, own=own, total=nothing, log_likelihood=jnp.zeros(()))
        steps = OnlineSteps(program, state.origins)
        running = steps.step(running, data, gamma, num_rows / size, moves)
        params = running.state.params if moves else steps.averaged(running, data, 1)
        _check_finite(params, running.log_likelihood)
        return OnlineState(
            dict(params),
            num_rows,
            state.num_batches + 1,
            float(gamma),
            running.log_likelihood,
            state.origins,
            running,
        )

    def _looked_at(
        self, args: tuple, kwargs: Mapping[str, Any]
    ) -> tuple[PartProgram, list, list, int]:
        """Return the program for a batch, its arrays, their sums, and how many rows it has.

        The data are checked.
        """
        args, kwargs = checked_arguments(self.compiler.model, args, kwargs)
        part = Part(args, kwargs)
        program = self._program(part)
        data, (size, *_) = program.data(part), program.rows.counts(part)
        sums, violations = jax.device_get(program.looked_at(data))
        validation.check_data(program.pure.graph, violations)
        return program, data, [np.asarray(one, np.float64) for one in sums], size

    def _program(self, part: Part) -> PartProgram:
        """Return the program for a batch: that of a larger one, if there was any."""
        pattern = Lengths.of(part.args, part.kwargs).pattern
        known, rows = self.programs.get(pattern), None
        if known is not None:
            rows = known.rows.widened(part)
            if rows.room == known.rows.room:
                return known
        program = part_program(self.compiler.model, self.compiler.settings, part, (), {}, rows)
        check_apart(program)
        if program.own_tables:
            raise ValueError(
                f"Site {program.own_tables}: what it depends on differs from row to row, so that "
                "an M-step needs all rows at once, and a batch has some. Use em.run."
            )
        self.programs[pattern] = program
        return program


def _step(
    program: PartProgram, state: OnlineState, size: int, step_size: Any
) -> tuple[float, bool]:
    """Return γ of a batch of a size, and whether the estimate moves.

    A batch counts B / N, so that all rows so far count alike, until they are as many as the average
    is to remember; before, no batch is looked at by what few rows say. `step_size` is that of a run
    with `batch_size=`.
    """
    count, num_rows = state.num_batches, state.num_rows + size
    if step_size is not None:
        first = float(step_size(0) if callable(step_size) else step_size)
        num_gathered = int(np.ceil(1 / max(first, 1e-12)))
        gamma = float(step_size(count) if callable(step_size) else step_size)
        is_gathered = count < num_gathered
        return (size / num_rows if is_gathered else gamma), count + 1 >= num_gathered
    window = ROWS_FOR_EACH_PARAMETER * max(num_parameters(program), 1)
    if num_rows <= window:
        return size / num_rows, num_rows == window
    return max(size / num_rows, min(size / window, LARGEST_STEP)), True


def _check_finite(params: Mapping[str, Any], log_likelihood: Any) -> None:
    values = jax.device_get([log_likelihood, *params.values()])
    if not all(np.isfinite(value).all() for value in values):
        raise ValueError(
            "Online EM came to a likelihood that is not finite: a component has collapsed on the "
            "rows of few batches, or a row is impossible. The state before is as it was: go on "
            "from it with a smaller step_size or larger batches, or state a floor or a prior."
        )
