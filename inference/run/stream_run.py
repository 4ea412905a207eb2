"""A run of EM over a stream: its starts are made in memory, its steps are passes over the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from emjax.run import validation
from emjax.run.double_end import in_single
from emjax.run.interrupts import Interrupted, UntilInterrupted
from emjax.run.online import Online, OnlineRun
from emjax.run.pauses import Pauses
from emjax.run.pieces import has_ended, progress_bar
from emjax.run.precision import double_precision, from_single
from emjax.run.pure import End, Start
from emjax.run.restarts import Restarts
from emjax.run.result import EMResult
from emjax.run.runner import Runner
from emjax.run.runs import restarts_of, run_starts, split_key, stacked
from emjax.run.settings import Settings
from emjax.run.state import RUNNING, LoopState, Status
from emjax.run.stream_programs import StreamPrograms


@dataclass(frozen=True, eq=False)
class StreamState:
    """Where a run over a stream stands.

    - `at`: where its loop does.
    - `since`: the first step whose E-step was in the precision that it is in now.
    - `in_single`: whether that is single precision.
    """

    at: LoopState
    since: int
    in_single: bool


@dataclass(frozen=True, eq=False)
class StreamRun:
    """A run of EM over a stream.

    - `programs`: what is compiled for it.
    - `given`: the values of parameters that the user gives.
    - `pauses`: what happens between its steps.
    """

    programs: StreamPrograms
    rng_key: Any
    given: Mapping[str, Any]
    pauses: Pauses

    @property
    def settings(self) -> Settings:
        return self.programs.compiler.settings

    def result(self) -> EMResult:
        """Return what EM found."""
        settings, restarts = self.settings, None
        all_steps = num_steps = settings.max_steps + 1
        starts, online = self.after_batches(self.starts())
        if len(starts) > 1:
            num_steps = min(settings.short_steps or all_steps, all_steps)
        runs: list[StreamState] = []
        for start in starts:
            # one at least, since there is to be a result
            if runs and self.pauses.interrupt.is_wanted:
                break
            runs.append(self._advanced(self._started(start), num_steps))
        best = 0
        if len(starts) > 1:
            restarts = self._restarts(starts[: len(runs)], [run.at for run in runs])
            best = restarts.best
        at = self._advanced(runs[best], all_steps).at
        return replace(self._found(starts[best], at), restarts=restarts, online=online)

    def after_batches(
        self, starts: Sequence[Mapping[str, Any]]
    ) -> tuple[Sequence[Mapping[str, Any]], Online | None]:
        """Return the starts of EM on all data, and what was done with minibatches.

        Of several starts it is where the one that minibatches lead highest comes to.
        """
        if self.settings.batch_size is None:
            return starts, None
        seed = int(np.asarray(jax.random.key_data(self.rng_key)).ravel()[-1])
        found = [OnlineRun(self.programs, seed, self.pauses).run(start) for start in starts]
        best = max(found, key=lambda each: each[1].height)
        parameters = self.programs.whole.pure.graph.parameters
        with double_precision():
            start = jax.device_put(from_single(parameters, jax.device_get(best[0])))
        return [start], best[1]

    def starts(self) -> list[dict[str, Any]]:
        """Return the starts: of given values, or made in memory of rows of the stream."""
        settings, programs = self.settings, self.programs
        program = programs.of_reservoir
        with double_precision():
            parameters = program.pure.graph.parameters
            given = validation.checked_params(
                program.pure.graph, from_single(parameters, self.given), complete=False
            )
            are_all = set(given) == set(parameters)
            data, flags = program.data(programs.reservoir), program.compiled.given(given)
            is_free = not given or (settings.init is not None and not are_all)
            if program.pure.has_short_runs and is_free:
                return [run_starts(self._runner, self.rng_key, given).params]
            if settings.num_restarts == 1 or are_all:
                return [program.first(self.rng_key, data, flags, 0)]
            keys = split_key(self.rng_key, settings.num_restarts)
            return [program.first(key, data, flags, number) for number, key in enumerate(keys)]

    @property
    def _runner(self) -> Runner:
        """The program on rows of the stream that stand for all; in double."""
        program = self.programs.of_reservoir
        return Runner(program.compiled, program.data(self.programs.reservoir), self.settings)

    def _started(self, start: Mapping[str, Any]) -> StreamState:
        whole = self.programs.whole
        with double_precision():
            return StreamState(whole.start(start), 0, self.programs.is_single)

    def _advanced(self, state: StreamState, stop_at: int) -> StreamState:
        """Return where a run stands after `stop_at` steps, or at its end."""
        state = self._with_progress(state, stop_at)
        ends_in_double = self.settings.ends_in_double(self.programs.look.num_reals)
        if not (state.in_single and ends_in_double):
            return state
        if int(state.at.status) != Status.AT_RESOLUTION:
            return state
        at = replace(state.at, status=jnp.int32(RUNNING))
        return self._with_progress(StreamState(at, int(at.step), False), stop_at)

    def _with_progress(self, state: StreamState, stop_at: int) -> StreamState:
        """Return where a run stands after `stop_at` steps, at its end, or interrupted."""
        interrupt, at = self.pauses.interrupt, state.at
        place = self.pauses.place(f"to step {stop_at} from {state.since}")
        with double_precision():
            saved = place.saved(at)
        at = at if saved is None else saved
        # the first step is not broken off: it says what the objective is at the start
        first = self.programs.loop(state.in_single)
        further = replace(first, parts=UntilInterrupted(first.parts, interrupt))
        interrupt.is_of_use = True
        with progress_bar(self.settings.max_steps, self.settings.progress_bar) as show:
            while int(at.status) < 0 and int(at.step) < stop_at:
                loop = further if int(at.step) > 0 else first
                try:
                    at = loop.step(at, state.since)
                except Interrupted:
                    place.save(at)
                    return replace(state, at=interrupted(at))
                if has_ended(at, stop_at) or place.is_due(int(at.step)):
                    place.save(at)
                show(at)
        return replace(state, at=at)

    # ── the result ────────────────────────────────────────────────────────────────────────────────

    def _found(self, start: Mapping[str, Any], at: LoopState) -> EMResult:
        """Return the result of a run that stands somewhere."""
        with double_precision():
            runner, last = self._runner, at.last_evaluated
            compiled = runner.compiled
            # all data were found to be good
            violations = compiled.violations(runner.data)
            inspection = compiled.inspection(start, compiled.prepare(runner.data))
            sharpness = self.programs.of_reservoir.sharpness(last, start, runner.data)
            end = End(at, self._log_likelihood(at), last, sharpness)
            result = runner.result(Start(dict(start), violations, inspection), end)
        if self.programs.is_single:
            return in_single(result, runner.compiled.graph.parameters)
        return result

    def _log_likelihood(self, at: LoopState) -> Any:
        graph = self.programs.whole.pure.graph
        # without priors the objective of a soft E-step is the log-likelihood
        if self.settings.temperature == 1 and not graph.has_priors:
            return at.objective[at.num_steps]
        return jnp.asarray(self.programs.loop(False).log_likelihood(dict(at.reported)))

    def _restarts(self, starts: Sequence[Mapping], ends: Sequence[LoopState]) -> Restarts:
        with double_precision():
            runner, sharpness = self._runner, []
            for start, at in zip(starts, ends, strict=True):
                found = self.programs.of_reservoir.sharpness(at.reported, start, runner.data)
                sharpness.append(found)
            return restarts_of(runner, stacked(ends), stacked(sharpness))


def interrupted(at: LoopState) -> LoopState:
    """Return where a loop stands that is to end at the parameters of the last objective."""
    status = jnp.full_like(at.status, Status.INTERRUPTED)
    return replace(at, step=jnp.asarray(at.step - 1), status=status)
