"""A program bound to data: `em.on(data)`, which runs, and of which everything else is asked."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from emjax.numerics.guards import is_random_key
from emjax.program.arguments import (
    first_nan,
    named_arguments,
    signature,
    split_arguments,
)
from emjax.run.annotations import Every, InitParams, Params, Path
from emjax.run.compilation import is_outermost, is_traced
from emjax.run.double_end import DoubleEnd, in_single
from emjax.run.on_data import ProgramOnData
from emjax.run.pauses import Pauses, paused
from emjax.run.precision import (
    double_precision,
    host_number,
    singled,
)
from emjax.run.pure import PureProgram
from emjax.run.result import EMResult, params_of
from emjax.run.run_identity import run_identity
from emjax.run.runner import PaddedRunner
from emjax.run.runs import run_starts
from emjax.run.state import EMState
from emjax.run.validation import BadArgument, check_are_params

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


class Bound(ProgramOnData):
    """A program compiled for data: what `EM.on(*args, **kwargs)` returns.

    It answers of these data what `EM` answers, but for `plan` and `diagnose`: `bound.run(key)`,
    `bound.posterior(params)`.

    - `compiler`: the program and its settings.
    - `args`, `kwargs`: the program's own arguments, as they were given.
    - `make_result`: (this, a result) → what `run` returns; None: the result.

    What is asked is compiled when it is asked for the first time.
    """

    def extended(self, key: Hashable, program: Callable, first: Any, **changes: Any) -> Bound:
        """Return `program(first, *args, **kwargs)`, bound to the same data.

        `first`, a tree of arrays, stays traced even where the program looks at the values of its
        other arguments; `bound.data` begins with its leaves. `key`: identifies the program among
        those made of this one; `changes`: the settings that differ. Errors: `ValueError` for a
        program that looks at the values of `first`, too.
        """
        if self.looks_at_values:
            args, kwargs = self.arguments
            key = (key, signature(args, kwargs, concrete=True))
            compiler = self.compiler.variant(
                key, lambda first: program(first, *args, **kwargs), **changes
            )
            bound = Bound(compiler, (first,), {})
        else:
            compiler = self.compiler.variant(key, program, **changes)
            args, kwargs = self.arguments
            bound = Bound(compiler, (first, *args), kwargs)
        if bound.looks_at_values:
            raise ValueError(
                "The program looks at the values of its data in Python, so that it cannot be "
                "refitted to other data. Pass sizes as Python numbers, or use "
                "method='information'."
            )
        return bound

    # ── what is checked ───────────────────────────────────────────────────────────────────────────

    def check_data(self) -> None:
        """Raise `ValueError` for data that cannot be."""
        self._runner.check_data()

    def constants(self, floor: float = 0.0) -> list[Any]:
        """Return what depends on the data alone; the data are checked.

        `floor`: the least multiplicity that a row is given.
        """
        return self._runner.constants(floor)

    def checked(self, params: Params, complete: bool = True) -> dict[str, Array]:
        """Return a result's parameters, or parameters, checked to be the program's.

        `complete`: whether they are to be all that it has.
        """
        return self._runner.checked(params, complete)

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
        if not isinstance(state, EMState):
            raise ValueError(
                f"The first argument is a state, not {type(state).__name__}: "
                "state = em.init(rng_key, ...), then state, objective = em.update(state, ...)."
            )
        return self.compiled.update(state, self.data)

    def run(
        self,
        rng_key: Any,
        *,
        init_params: InitParams = None,
        checkpoint: Path | None = None,
        every: Every = None,
    ) -> EMResult:
        """Run EM to convergence; see `EM.run`."""
        rng_key = checked_key(rng_key)
        if is_traced((rng_key, self._as_arrays, init_params)) or not is_outermost():
            raise ValueError(RUN_WITHIN_JIT)
        # what is no dictionary may have no truth value either
        given = {} if init_params is None else init_params
        check_are_params(given)

        def identity():
            data = named_arguments(self.compiler.model, *self._as_arrays)
            return run_identity(self.compiler, rng_key, given, data)

        with paused(checkpoint, every, identity) as pauses:
            result = pauses.noted(self._run_in_its_precision(rng_key, dict(given), pauses))
        return result if self.make_result is None else self.make_result(self, result)

    def _run_in_its_precision(
        self, rng_key: Any, given: dict[str, Any], pauses: Pauses
    ) -> EMResult:
        if self.is_done_in_double:
            with double_precision():
                doubled = self._doubled
                result = doubled._run(rng_key, given, pauses)
                traced = doubled._padded or doubled
                return in_single(result, traced.compiled.graph.parameters)
        if self._ends_in_double:
            end_elsewhere = DoubleEnd(self._doubled_runner)
            return self._run_at_own_length(rng_key, given, pauses, end_elsewhere)
        return self._run(rng_key, given, pauses)

    def _run(self, rng_key: Any, given: dict[str, Any], pauses: Pauses) -> EMResult:
        """Run EM in the precision that JAX has."""
        padded, own = self._padded_runner, None
        if self._padded is not None:
            start = self._padded.own_start(bool(given))
            if start.values is not None:
                data, _ = split_arguments(*self._as_arrays)
                own = start.values(rng_key, data)
            elif not start.is_padded:
                padded = None
        if padded is None:
            return self._run_at_own_length(rng_key, given, pauses)
        try:
            return run_starts(replace(padded.runner, pauses=pauses), rng_key, given, own)
        # at its own length the program says what is wrong, and where
        except ValueError:
            result = self._run_at_own_length(rng_key, given, pauses)
        # nothing is: rows that were added are
        padded.refuse()
        return result

    def _run_at_own_length(
        self,
        rng_key: Any,
        init_params: InitParams,
        pauses: Pauses,
        end_elsewhere: Callable | None = None,
    ) -> EMResult:
        """Run EM on data that are not padded. `end_elsewhere`: see `Runner`."""
        try:
            runner = replace(self._runner, end_elsewhere=end_elsewhere, pauses=pauses)
            return run_starts(runner, rng_key, init_params)
        except BadArgument as error:
            culprit = first_nan(named_arguments(self.compiler.model, *self._as_arrays))
            if not culprit:
                raise
            raise ValueError(f"{error} {culprit}") from error

    # ── what can be asked ─────────────────────────────────────────────────────────────────────────

    def posterior(self, params: Params) -> dict[str, Any]:
        """Return p(latent | data, params) for every latent; see `EM.posterior`."""
        return self.of_latents(PureProgram.posterior_and_means, params)

    def pairwise_posterior(self, params: Params) -> dict[str, Array]:
        """Return p(latent at t, latent at t + 1 | data, params); see `EM.pairwise_posterior`."""
        return self.of_latents(PureProgram.pairwise_posterior, params)

    def decode(self, params: Params) -> dict[str, Array]:
        """Return the most probable joint assignment of all latents; see `EM.decode`."""
        return self.of_latents(PureProgram.modes, params)

    def of_latents(self, question: Callable, params: Params) -> dict[str, Any]:
        """Return what is asked of latents: values of their shapes, and more axes.

        `question`: as in `asked`.
        """
        return self._answer(question, params, LEAST_MULTIPLICITY, PaddedRunner.of_latents)

    def draws_of_latents(self, question: Callable, params: Params, *more: Any) -> dict[str, Array]:
        """Return what is asked of every latent: (draw, *its shape).

        `question`: as in `asked`, a function of `more` arrays, too.
        """
        of_draws = partial(PaddedRunner.of_latents, num_lead=1)
        return self._answer(question, params, LEAST_MULTIPLICITY, of_draws, *more)

    def log_likelihood(self, params: Params) -> Float[Array, ""]:
        """Return log p(data | params) in nats, summed over the data, every latent summed out."""
        return self.asked(PureProgram.log_likelihood, params)

    def asked(self, question: Callable, params: Params) -> Any:
        """Return the answer to a question of all data together, which are checked.

        `question`: a function of (pure program, params, constants) that has a name of its own: it
        is compiled once.
        """
        return self._answer(question, params, 0.0, lambda padded, answer: answer)

    def in_its_precision(self, question: Callable[[Bound], Any]) -> Any:
        """Return the answer to a question (program bound to data) → answer of small or other work.

        It is asked in double precision where small work is done in that, and the answer is single.
        """
        if is_traced(self._as_arrays) or not is_outermost() or not self.is_done_in_double:
            return question(self)
        with double_precision():
            return singled(jax.tree.map(host_number, question(self._doubled)))

    def _answer(
        self,
        question: Callable,
        params: Params,
        floor: float,
        at_own_length: Callable,
        *more: Any,
    ) -> Any:
        """Return an answer of the padded program, where it can be looked at, or of the program.

        `at_own_length`: (padded program, its answer) → the answer without rows that were added;
        `more`: arrays that the question takes, too.
        """
        check_are_params(params_of(params))
        given = params_of(params), self._as_arrays, more
        is_looked_at = not is_traced(given) and is_outermost()
        if is_looked_at and self.is_done_in_double:
            with double_precision():
                doubled = self._doubled
                return singled(doubled._answer(question, params, floor, at_own_length, *more))
        padded = self._padded_runner if is_looked_at else None
        if padded is not None:
            try:
                return at_own_length(padded, padded.asked(question, params, floor, *more))
            except ValueError:
                # at its own length the program says what is wrong, if anything is
                pass
        return self._runner.asked(question, params, floor, *more)


def checked_key(rng_key: Any, usage: str = KEY_OF_RUN) -> Any:
    """Return a random key, of the new style. Errors: `ValueError` for what is none; see `usage`."""
    if not is_random_key(rng_key):
        raise ValueError(usage)
    if jnp.issubdtype(rng_key.dtype, jax.dtypes.prng_key):
        return rng_key
    return jax.random.wrap_key_data(rng_key)
