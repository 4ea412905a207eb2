"""A program bound to data: `em.on(data)`, which runs, and of which everything else is asked."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float
from threadpoolctl import threadpool_limits

from emjax.numerics.guards import is_random_key
from emjax.program.arguments import signature
from emjax.run import validation
from emjax.run.annotations import Params
from emjax.run.compilation import is_outermost, is_traced
from emjax.run.compiled import CompiledProgram, Compiler
from emjax.run.loop import EMState, LoopState, Status
from emjax.run.pure import End, PureProgram, Start
from emjax.run.restarts import Restarts
from emjax.run.result import EMResult, params_of

# how many steps are taken between two looks at the progress bar
CHUNK = 20
# A row of multiplicity zero has a posterior, too: the limit of a small multiplicity. So small a one
# that an impossible row cannot swallow the others.
LEAST_MULTIPLICITY = 1e-30
# what a key is mistaken for, as a rule: the first of the model's own arguments
KEY_OF_RUN = (
    "The first argument is a random key, the model's own arguments follow: "
    "em.run(jax.random.key(0), ...)."
)

# a run has checks, warnings and findings, which need values
RUN_WITHIN_JIT = (
    "`run` cannot be part of a function that JAX traces (jit, grad, vmap, scan): it looks at the "
    "values of data and parameters, to check them. Call it outside; within, take steps: "
    "state = em.init(rng_key, ...), then state, objective = em.update(state, ...) in a "
    "jax.lax.scan."
)


@dataclass(frozen=True, eq=False)
class Bound:
    """A program compiled for data: what `EM.on(*args, **kwargs)` returns.

    It answers of these data what `EM` answers, but for `plan` and `diagnose`: `bound.run(key)`,
    `bound.posterior(params)`.

    - `compiler`: the program and its settings.
    - `compiled`: its compiled functions for arguments of these shapes.
    - `data`: the arrays among the arguments.
    - `args`, `kwargs`: the program's own arguments.
    - `looks_at_values`: whether the program looks at the values of its arguments in Python; then
      all of them are constants of the trace, and `data` is empty.
    """

    compiler: Compiler
    compiled: CompiledProgram
    data: list[Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    looks_at_values: bool

    @classmethod
    def of(cls, compiler: Compiler, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Bound:
        """Return a program bound to arguments."""
        compiled, data, looks_at_values = compiler.compiled(args, kwargs)
        return cls(compiler, compiled, data, args, kwargs, looks_at_values)

    def extended(self, key: Hashable, program: Callable, first: Any, **changes: Any) -> Bound:
        """Return `program(first, *args, **kwargs)`, bound to the same data.

        `first`, a tree of arrays, stays traced even where the program looks at the values of its
        other arguments; `bound.data` begins with its leaves. `key`: identifies the program among
        those made of this one; `changes`: the settings that differ. Errors: `ValueError` for a
        program that looks at the values of `first`, too.
        """
        if self.looks_at_values:
            args, kwargs = self.args, self.kwargs
            key = (key, signature(args, kwargs, concrete=True))
            compiler = self.compiler.variant(
                key, lambda first: program(first, *args, **kwargs), **changes
            )
            bound = Bound.of(compiler, (first,), {})
        else:
            compiler = self.compiler.variant(key, program, **changes)
            bound = Bound.of(compiler, (first, *self.args), self.kwargs)
        if bound.looks_at_values:
            raise ValueError(
                "The program looks at the values of its data in Python, so that it cannot be "
                "refitted to other data. Pass sizes as Python numbers, or use "
                "method='information'."
            )
        return bound

    # ── what is checked ───────────────────────────────────────────────────────────────────────────

    def constants(self, floor: float = 0.0) -> list[Any]:
        """Return what depends on the data alone; the data are checked.

        `floor`: the least multiplicity that a row is given.
        """
        constants = self.compiled.prepare(self.data, floor)
        # under the user's own `jit` or `grad` there are no values to check
        if not is_traced(constants):
            validation.check_data(self.compiled.graph, self.compiled.violations(constants))
        return constants

    def checked(self, params: Params) -> dict[str, Array]:
        """Return a result's parameters, or parameters, checked to be all that the program has."""
        return validation.checked_params(self.compiled.graph, params_of(params), complete=True)

    def at(self, params: Params, floor: float = 0.0) -> tuple[dict[str, Array], list[Any]]:
        """Return what compiled functions take: the parameters, and what depends on data alone."""
        constants = self.constants(floor)
        return self.checked(params), constants

    # ── runs ──────────────────────────────────────────────────────────────────────────────────────

    def init(self, rng_key: Any) -> EMState:
        """Return the state at the program's own start; pure."""
        params = self.compiled.initial(checked_key(rng_key), self.data)
        return self.compiled.pure.loop.state(params)

    def update(self, state: EMState) -> tuple[EMState, Float[Array, ""]]:
        """Return the state after one EM step, and the objective *entering* it, in nats; pure."""
        return self.compiled.update(state, self.data)

    def run(self, rng_key: Any, *, init_params: Mapping[str, Any] | None = None) -> EMResult:
        """Run EM to convergence; see `EM.run`."""
        rng_key = checked_key(rng_key)
        if is_traced((rng_key, self.data, init_params)) or not is_outermost():
            raise ValueError(RUN_WITHIN_JIT)
        compiled, settings = self.compiled, self.compiler.settings
        some_params = validation.checked_params(compiled.graph, init_params or {}, complete=False)
        given = compiled.given(some_params)
        with one_blas_thread():
            if settings.num_restarts > 1:
                return self._run_several(rng_key, given)
            if not settings.progress_bar:
                return self._result(*compiled.run(rng_key, self.data, given))
            start, constants = compiled.start(rng_key, self.data, given)
            at = compiled.pure.loop.start(start.params)
            # where the data are bad, one step is enough for the checks
            is_bad = any(int(count) for count, _ in start.violations)
            at = self._with_progress(at, constants, 1 if is_bad else settings.max_steps + 1)
            return self._result(start, compiled.end(at, constants))

    def _run_several(self, rng_key, given) -> EMResult:
        """Run all starts, short or to their end, and the best of them to its end."""
        compiled, settings = self.compiled, self.compiler.settings
        all_steps = settings.max_steps + 1
        numbers = np.arange(settings.num_restarts)
        num_steps = min(settings.short_steps or all_steps, all_steps)
        starts, ends, variances = compiled.short_runs(rng_key, numbers, self.data, given, num_steps)
        restarts = self._restarts(ends, variances)
        # it ends: each turn marks one more start, and a best one that is marked is returned
        while True:
            best = restarts.best
            if settings.progress_bar:
                ends = self._with_progress_of(ends, best)
            start, end = compiled.continued(starts, ends, best, self.data)
            result = self._result(start, end)
            if not self._is_degenerate(end) or restarts.degenerate[best]:
                return replace(result, restarts=restarts)
            # it looked best after the short run only because it was collapsing
            restarts = restarts.with_degenerate(best)

    def _with_progress_of(self, ends: LoopState, number: int) -> LoopState:
        """Return where several runs stand after one of them has gone on to its end."""
        constants = self.compiled.prepare(self.data)
        at = jax.tree.map(lambda leaf: leaf[number], ends)
        at = self._with_progress(at, constants, self.compiler.settings.max_steps + 1)
        return jax.tree.map(lambda all_runs, one: all_runs.at[number].set(one), ends, at)

    def _with_progress(self, at: LoopState, constants, stop_at: int) -> LoopState:
        """Return where the loop stands after `stop_at` steps, or at its end; a bar shows it."""
        # whoever shows no bar does not wait for the import
        from tqdm.auto import tqdm

        with tqdm(total=self.compiler.settings.max_steps, desc="EM", unit="step") as bar:
            while int(at.status) < 0 and int(at.step) < stop_at:
                at = self.compiled.advance(at, constants, min(int(at.step) + CHUNK, stop_at))
                step = int(at.step)
                bar.update(step - bar.n)
                bar.set_postfix_str(f"objective {float(at.objective[max(step - 1, 0)]):.6g}")
        return at

    def _result(self, start: Start, end: End) -> EMResult:
        """Return the result of a run.

        Errors: `ValueError` for data or a start that the program excludes.
        """
        compiled, at = self.compiled, jax.device_get(end.at)
        # first, since a start may be computed from the data
        validation.check_data(compiled.graph, start.violations)
        params = self.checked(start.params)
        validation.check_start(
            compiled.graph,
            params,
            at.objective[0],
            start.inspection,
            lambda params: compiled.inspection(params, compiled.prepare(self.data)),
            lambda params: compiled.most_favorable(params, compiled.prepare(self.data)),
        )
        findings = compiled.watch.findings(start.params, end.at.reported, end.last, end.variances)
        num_steps = int(at.num_steps)
        return EMResult(
            dict(end.at.reported),
            end.log_likelihood,
            at.objective[: num_steps + 1],
            num_steps,
            Status(int(at.status)),
            findings,
        )

    def _is_degenerate(self, end: End) -> bool:
        """Whether a run ended where a scale has collapsed, or the objective is not finite."""
        if int(end.at.status) == Status.NOT_FINITE:
            return True
        return bool(self.compiled.watch.is_collapsed(jax.device_get(end.variances)))

    def _restarts(self, ends: LoopState, variances) -> Restarts:
        """Return where several runs came to. `variances`: of their scales."""
        params = dict(ends.reported)
        ends, variances = jax.device_get((ends, variances))
        # a run that goes on has not evaluated the objective where it stands
        last = ends.num_steps - (ends.status < 0)
        at_last = np.maximum(last, 0)[:, None]
        objective = np.take_along_axis(np.asarray(ends.objective), at_last, 1)[:, 0]
        # at −∞ the program excludes the start: nothing has collapsed
        degenerate = (ends.status == Status.NOT_FINITE) & (objective != -np.inf)
        degenerate |= self.compiled.watch.is_collapsed(variances)
        status, num_steps = np.asarray(ends.status), np.asarray(ends.num_steps)
        return Restarts(objective, status, num_steps, degenerate, params)

    # ── what can be asked ─────────────────────────────────────────────────────────────────────────

    def posterior(self, params: Params) -> dict[str, Array]:
        """Return p(latent | data, params) for every latent; see `EM.posterior`."""
        return self.asked(PureProgram.posterior, params, LEAST_MULTIPLICITY)

    def pairwise_posterior(self, params: Params) -> dict[str, Array]:
        """Return p(latent at t, latent at t + 1 | data, params); see `EM.pairwise_posterior`."""
        return self.asked(PureProgram.pairwise_posterior, params, LEAST_MULTIPLICITY)

    def decode(self, params: Params) -> dict[str, Array]:
        """Return the most probable joint assignment of all latents; see `EM.decode`."""
        return self.asked(PureProgram.modes, params, LEAST_MULTIPLICITY)

    def log_likelihood(self, params: Params) -> Float[Array, ""]:
        """Return log p(data | params) in nats, summed over the data, every latent summed out."""
        return self.asked(PureProgram.log_likelihood, params)

    def asked(self, question: Callable, params: Params, floor: float = 0.0) -> Any:
        """Return the answer to a question of the data, which are checked.

        `question`: a function of (pure program, params, constants) that has a name of its own: it
        is compiled once.
        """
        checked = self.checked(params)
        if is_traced((checked, self.data)):
            # data are checked apart from what is differentiated
            self.constants(floor)
        answer, violations = self.compiled.asked(question, checked, self.data, floor)
        if not is_traced(violations):
            validation.check_data(self.compiled.graph, violations)
        return answer


def one_blas_thread() -> threadpool_limits:
    """Return a context in which BLAS has one thread: SciPy's OpenBLAS, for JAX's Cholesky factors.

    Its threads spin for some 50 ms after each call, on the cores that the next E-step needs: in 64
    dimensions a step takes twice as long.
    """
    return threadpool_limits(limits=1, user_api="blas")


def checked_key(rng_key: Any, usage: str = KEY_OF_RUN) -> Any:
    """Return a random key. Errors: `ValueError` for anything else; it says the `usage`."""
    if is_random_key(rng_key):
        return rng_key
    raise ValueError(usage)
