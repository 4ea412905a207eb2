"""A compiled program on data: its runs, and the answers to what is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Array
from threadpoolctl import threadpool_limits

from emjax.run import validation
from emjax.run.annotations import InitParams, Params
from emjax.run.batches import are_few
from emjax.run.compilation import is_traced
from emjax.run.compiled import CompiledProgram
from emjax.run.endings import UNBOUNDED_PRIOR
from emjax.run.findings import Finding
from emjax.run.precision import from_single, is_single
from emjax.run.pure import End, Start
from emjax.run.rerun import Rerun
from emjax.run.resolution import moves_of
from emjax.run.restarts import Restarts
from emjax.run.result import EMResult, params_of
from emjax.run.second_look import second_look
from emjax.run.settings import Settings
from emjax.run.shortcomings import collapsed, gaps_of, identical_starts, shortcomings
from emjax.run.state import RUNNING, LoopState, Status, has_settled

# how many steps are taken between two looks at the progress bar
CHUNK = 20


@dataclass(frozen=True, eq=False)
class Runner:
    """A compiled program on data.

    - `compiled`: its functions.
    - `data`: the arrays that it takes.
    - `elements`: {site: the shape of its elements} where they are not the program's, which is
      padded.
    - `ended`: (this, start, end) → the result of a run that is gone on with elsewhere; None: it has
      ended here.
    """

    compiled: CompiledProgram
    data: list[Any]
    settings: Settings
    elements: Mapping[str, tuple[int, ...]] | None = None
    ended: Callable[..., EMResult] | None = None

    def check_data(self, floor: float = 0.0) -> None:
        """Raise `ValueError` for data that cannot be.

        `floor`: the least multiplicity that a row is given.
        """
        violations = self.compiled.violations(self.data, floor)
        # under the user's own `jit` or `grad` there are no values to check
        if not is_traced(violations):
            validation.check_data(self.compiled.graph, violations)

    def constants(self, floor: float = 0.0) -> list[Any]:
        """Return what depends on the data alone; the data are checked."""
        self.check_data(floor)
        return self.compiled.prepare(self.data, floor)

    def checked(self, params: Params) -> dict[str, Array]:
        """Return a result's parameters, or parameters, checked to be all that the program has."""
        return validation.checked_params(
            self.compiled.graph, self._in_precision(params_of(params)), complete=True
        )

    def _in_precision(self, params: Any) -> Any:
        """Return parameters, in double precision where JAX has that."""
        validation.check_are_params(params)
        return params if is_single() else from_single(self.compiled.graph.parameters, params)

    # ── runs ──────────────────────────────────────────────────────────────────────────────────────

    def run(
        self, rng_key: Any, init_params: InitParams, own: Mapping[str, Any] | None = None
    ) -> EMResult:
        """Run EM to convergence; see `EM.run`.

        `own`: the program's own start, where it is another one than that which is compiled.
        """
        compiled, settings = self.compiled, self.settings
        some = self._in_precision({**(own or {}), **(init_params or {})})
        some_params = validation.checked_params(compiled.graph, some, complete=False)
        given = compiled.given(some_params)
        with one_blas_thread():
            if settings.num_restarts > 1:
                return self._run_several(rng_key, given)
            if not settings.progress_bar:
                start, end = compiled.run(rng_key, self.data, given)
                return self._ended(start, end, rng_key, is_own_start=not init_params)
            start, constants = compiled.start(rng_key, self.data, given)
            at = compiled.pure.loop.start(start.params)
            # where the data are bad, one step is enough for the checks
            is_bad = any(int(count) for count, _ in start.violations)
            at = self._with_progress(at, constants, 1 if is_bad else settings.max_steps + 1)
            return self._ended(start, compiled.end(at, constants, start.params))

    def _run_several(self, rng_key, given) -> EMResult:
        """Run all starts, short or to their end, and the best of them to its end."""
        compiled, settings = self.compiled, self.settings
        all_steps = settings.max_steps + 1
        num_steps = min(settings.short_steps or all_steps, all_steps)
        # with every parameter given there is one start, however many are asked for
        if _are_all(given):
            return self._run_in_turn(rng_key, given, all_steps)
        # a polish belongs to the end of the best run alone, and a bar shows no more than that
        is_plain = not settings.polish and not settings.progress_bar
        if is_plain and are_few(compiled.graph, settings.num_restarts):
            return self._run_in_turn(rng_key, given, num_steps)
        numbers = np.arange(settings.num_restarts)
        starts, ends, sharpness = compiled.short_runs(rng_key, numbers, self.data, given, num_steps)

        def continued(best: int):
            at = self._with_progress_of(ends, best) if settings.progress_bar else ends
            return self._ended(*compiled.continued(starts, at, best, self.data))

        alike = identical_starts(starts, settings.num_restarts, False)
        return self._best_of(self._restarts(ends, sharpness), continued, alike)

    def _run_in_turn(self, rng_key, given, num_steps: int) -> EMResult:
        """Run all starts one after another, and the best of them once more, to its end."""
        are_given, num_restarts = _are_all(given), self.settings.num_restarts
        keys = _split(rng_key, 1 if are_given else num_restarts)
        runs = []
        for number, key in enumerate(keys):
            runs.append(self.compiled.run(key, self.data, given, number, num_steps))
        ends = jax.device_get([end for _, end in runs])
        ends = jax.tree.map(lambda *leaves: np.stack(leaves), *ends)
        starts = jax.device_get([start.params for start, _ in runs])
        starts = jax.tree.map(lambda *leaves: np.stack(leaves), *starts)
        alike = identical_starts(starts, num_restarts, are_given)

        def continued(best: int):
            # a few steps are taken again: a function that goes on would have to be compiled
            start, end = runs[best]
            if ends.at.status[best] == RUNNING:
                start, end = self.compiled.run(keys[best], self.data, given, best)
            return self._ended(start, end, keys[best])

        return self._best_of(self._restarts(ends.at, ends.sharpness), continued, alike)

    def _best_of(
        self, restarts: Restarts, continued: Callable, alike: Sequence[Finding]
    ) -> EMResult:
        """Return the result of the best of several runs.

        `continued(number)`: the result of one of them, run to its end; `alike`: what is wrong if
        all start at one place.
        """
        if self.ended and not self.settings.short_steps:
            # all are to come to their end, and that is elsewhere
            good = np.flatnonzero(np.isfinite(restarts.objective) & ~restarts.degenerate).tolist()
            results = {number: continued(number) for number in good}
            restarts = _of_results(restarts, results)
            continued = _looked_up(results, continued)
        # it ends: each turn marks one more start, and a best one that is marked is returned
        while True:
            best = restarts.best
            result = continued(best)
            if not is_degenerate(result) or restarts.degenerate[best]:
                findings = (*result.findings, *alike)
                return replace(result, restarts=restarts, findings=findings)
            # it looked best after the short run only because it was collapsing
            restarts = restarts.with_degenerate(best)

    def _with_progress_of(self, ends: LoopState, number: int) -> LoopState:
        """Return where several runs stand after one of them has gone on to its end."""
        constants = self.compiled.prepare(self.data)
        at = jax.tree.map(lambda leaf: leaf[number], ends)
        at = self._with_progress(at, constants, self.settings.max_steps + 1)
        return jax.tree.map(lambda all_runs, one: all_runs.at[number].set(one), ends, at)

    def _with_progress(self, at: LoopState, constants, stop_at: int) -> LoopState:
        """Return where the loop stands after `stop_at` steps, or at its end; a bar shows it."""
        # whoever shows no bar does not wait for the import
        from tqdm.auto import tqdm

        with tqdm(total=self.settings.max_steps, desc="EM", unit="step") as bar:
            while int(at.status) < 0 and int(at.step) < stop_at:
                at = self.compiled.advance(at, constants, min(int(at.step) + CHUNK, stop_at))
                step = int(at.step)
                bar.update(step - bar.n)
                bar.set_postfix_str(f"objective {float(at.objective[max(step - 1, 0)]):.6g}")
        return at

    def _ended(
        self, start: Start, end: End, rng_key: Any = None, is_own_start: bool = False
    ) -> EMResult:
        """Return the result of a run, gone on with to its end. The rest: see `found`."""
        if self.ended:
            return self.ended(self, start, end)
        self.check(start, end)
        return self.found(start, end, rng_key, is_own_start)

    def result(self, start: Start, end: End) -> EMResult:
        """Return the result of a run as it has ended here.

        Errors: `ValueError` for data or a start that the program excludes.
        """
        self.check(start, end)
        return self.found(start, end)

    def check(self, start: Start, end: End) -> None:
        """Raise `ValueError` for data or a start that the program excludes.

        `end`: of the run, in which the objective was evaluated at the start.
        """
        compiled = self.compiled
        # first, since a start may be computed from the data
        validation.check_data(compiled.graph, start.violations)
        params = self.checked(start.params)
        validation.check_start(
            compiled.graph,
            params,
            jax.device_get(end.at.objective)[0],
            start.inspection,
            lambda params: compiled.inspection(params, compiled.prepare(self.data)),
            lambda params: compiled.most_favorable(params, compiled.prepare(self.data)),
            self.elements,
        )

    def found(
        self, start: Start, end: End, rng_key: Any = None, is_own_start: bool = False
    ) -> EMResult:
        """Return the result of a run whose start is checked.

        `rng_key`: of `compiled.run`, None where that has not been called: then nothing but its end
        is looked at; `is_own_start`: whether the program's own start was nobody's choice.
        """
        compiled, at = self.compiled, jax.device_get(end.at)
        num_steps, status = int(at.num_steps), Status(int(at.status))
        found = shortcomings(compiled, self.data, start, end, at)
        # where there is no maximum, none has been found
        if has_settled(status) and any(f.kind == "collapsed" for f in found):
            status = Status.COLLAPSED
        result = EMResult(
            dict(end.at.reported),
            end.log_likelihood,
            at.objective[: num_steps + 1],
            num_steps,
            status,
            tuple(found),
            gaps_of(compiled, at),
        )
        if rng_key is None:
            return result
        rerun = Rerun(compiled, self.data, rng_key, self._num_rows())
        seen = second_look(rerun, self.settings, result, at, is_own_start)
        return replace(result, findings=(*result.findings, *seen))

    def _num_rows(self) -> dict[int, int]:
        """Return {how many rows the data have: how many of these count}, where it is padded."""
        num_rows = {}
        for term in self.compiled.graph.terms:
            own = (self.elements or {}).get(term.site.name, term.elements)
            num_rows |= dict(zip(term.elements, own, strict=True))
        return num_rows

    def _restarts(self, ends: LoopState, sharpness) -> Restarts:
        """Return where several runs came to. `sharpness`: of their densities."""
        params = jax.device_put(dict(ends.reported))
        ends, sharpness = jax.device_get((ends, sharpness))
        # a run that goes on has not evaluated the objective where it stands
        last = ends.num_steps - (ends.status < 0)
        at_last = np.maximum(last, 0)[:, None]
        objective = np.take_along_axis(np.asarray(ends.objective), at_last, 1)[:, 0]
        # at −∞ the program excludes the start: nothing has collapsed
        degenerate = (ends.status == Status.NOT_FINITE) & (objective != -np.inf)
        leaves, tree = jax.tree.flatten((ends.reported, sharpness))
        moves = moves_of(self.data)
        for number, of_start in enumerate(zip(*leaves, strict=True)):
            there = jax.tree.unflatten(tree, of_start)
            degenerate[number] |= bool(collapsed(self.compiled, self.data, moves, *there))
        status, num_steps = np.asarray(ends.status), np.asarray(ends.num_steps)
        return Restarts(objective, status, num_steps, degenerate, params)

    def asked(self, question: Callable, params: Params, floor: float = 0.0) -> Any:
        """Return the answer to a question of the data, which are checked.

        `question`: a function of (pure program, params, constants) that has a name of its own: it
        is compiled once.
        """
        checked = self.checked(params)
        if is_traced((checked, self.data)):
            # data are checked apart from what is differentiated
            self.check_data(floor)
        answer, violations = self.compiled.asked(question, checked, self.data, floor)
        if not is_traced(violations):
            validation.check_data(self.compiled.graph, violations)
        return answer


def _are_all(given: Mapping[str, Any]) -> bool:
    """Whether every parameter is given. `given`: of `CompiledProgram.given`."""
    return all(is_given for _, is_given in given.values())


def _looked_up(results: Mapping[int, EMResult], otherwise: Callable) -> Callable:
    """Return the function that has these results, and others otherwise."""
    return lambda number: results[number] if number in results else otherwise(number)


def _of_results(restarts: Restarts, results: Mapping[int, EMResult]) -> Restarts:
    """Return several runs, some of which have gone on to these results."""
    objective = restarts.objective.astype(np.float64)
    status, num_steps = restarts.status.copy(), restarts.num_steps.copy()
    degenerate = restarts.degenerate.copy()
    params = {name: np.array(values) for name, values in restarts.params.items()}
    for number, result in results.items():
        objective[number] = result.objective[-1]
        status[number], num_steps[number] = result.status, result.num_steps
        degenerate[number] = is_degenerate(result)
        for name, values in params.items():
            values[number] = result.params[name]
    return Restarts(objective, status, num_steps, degenerate, jax.device_put(params))


def is_degenerate(result: EMResult) -> bool:
    """Whether a run ended where something has collapsed, or the objective has no bound."""
    kinds = {finding.kind for finding in result.findings}
    return result.status == Status.NOT_FINITE or bool(kinds & {"collapsed", UNBOUNDED_PRIOR})


@partial(jax.jit, static_argnums=1)
def _split(rng_key, number: int) -> list:
    """Return several keys, by one compiled function: taken from an array, each would be its own."""
    return list(jax.random.split(rng_key, number))


@dataclass(frozen=True, eq=False)
class PaddedRunner:
    """A padded program on data, which answers as the program does at their own length.

    - `runner`: the padded program on padded data.
    - `latents`: {latent: its own shape}.
    - `refuse`: called with nothing where the program may not be padded after all.
    """

    runner: Runner
    latents: Mapping[str, tuple[int, ...]]
    refuse: Callable[[], None]

    def asked(self, question: Callable, params: Params, floor: float) -> Any:
        """Return the answer to a question of the data.

        Errors: `ValueError` where rows that were added may be why it is none.
        """
        answer = jax.device_get(self.runner.asked(question, params, floor))
        if any(not np.isfinite(leaf).all() for leaf in jax.tree.leaves(answer)):
            raise ValueError("rows that were added may be why")
        return jax.device_put(answer)

    def of_latents(self, answer: Mapping[str, Array]) -> dict[str, Array]:
        """Return values (elements of a latent …, more …) without those of rows that were added."""
        values = {}
        for name, value in answer.items():
            # what is no latent has no rows (`program.padding`)
            shape = self.latents.get(name, np.shape(value))
            # NumPy, which compiles nothing for each length
            values[name] = jax.device_put(np.asarray(value)[tuple(map(slice, shape))])
        return values


def one_blas_thread() -> threadpool_limits:
    """Return a context in which BLAS has one thread: SciPy's OpenBLAS, for JAX's Cholesky factors.

    Its threads spin for some 50 ms after each call, on the cores that the next E-step needs: in 64
    dimensions a step takes twice as long.
    """
    return threadpool_limits(limits=1, user_api="blas")
