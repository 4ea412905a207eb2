"""A compiled program on data: the results of its runs, and the answers to what is asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np
from jaxtyping import Array
from threadpoolctl import threadpool_limits

from emjax.run import validation
from emjax.run.annotations import Params
from emjax.run.compilation import is_traced
from emjax.run.compiled import CompiledProgram
from emjax.run.endings import UNBOUNDED_PRIOR
from emjax.run.pieces import Pauses, Pieces
from emjax.run.precision import from_single, is_single
from emjax.run.pure import End, Start
from emjax.run.rerun import Rerun
from emjax.run.result import EMResult, params_of
from emjax.run.second_look import second_look
from emjax.run.settings import Settings
from emjax.run.shortcomings import gaps_of, shortcomings
from emjax.run.state import Status, has_settled


@dataclass(frozen=True, eq=False)
class Runner:
    """A compiled program on data.

    - `compiled`: its functions.
    - `data`: the arrays that it takes.
    - `elements`: {site: the shape of its elements} where they are not the program's, which is
      padded.
    - `end_elsewhere`: (this, and what `found` takes) → the result of a run that is gone on with
      elsewhere; None: it has ended here.
    - `pauses`: what happens between pieces of its runs.
    """

    compiled: CompiledProgram
    data: list[Any]
    settings: Settings
    elements: Mapping[str, tuple[int, ...]] | None = None
    end_elsewhere: Callable[..., EMResult] | None = None
    pauses: Pauses = field(default_factory=Pauses)

    @property
    def pieces(self) -> Pieces:
        """Its runs, in pieces where that is needed."""
        may_leap = self.settings.leaps_where_it_crawls and self.compiled.pure.loop.can_leap
        return Pieces(self.compiled, self.data, self.pauses, self.settings.progress_bar, may_leap)

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

    def checked(self, params: Params, complete: bool = True) -> dict[str, Array]:
        """Return a result's parameters, or parameters, checked to be the program's.

        `complete`: whether they are to be all that it has.
        """
        return validation.checked_params(
            self.compiled.graph, self.in_precision(params_of(params)), complete=complete
        )

    def in_precision(self, params: Any) -> Any:
        """Return parameters, in double precision where JAX has that."""
        validation.check_are_params(params)
        if is_single() or is_traced(params):
            return params
        return from_single(self.compiled.graph.parameters, params)

    # ── the result of a run ───────────────────────────────────────────────────────────────────────

    def result(
        self, start: Start, end: End, rng_key: Any = None, is_own_start: bool = False
    ) -> EMResult:
        """Return the result of a run, gone on with elsewhere if that is so; see `found`.

        Errors: `ValueError` for data or a start that the program excludes.
        """
        self.check(start, end)
        if self.end_elsewhere:
            return self.end_elsewhere(self, start, end, rng_key, is_own_start)
        return self.found(start, end, rng_key, is_own_start)

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
        if rng_key is None or self.pauses.interrupt.is_wanted:
            return result
        pieces = Pieces(compiled, self.data, self.pauses.without_checkpoint, False)
        rerun = Rerun(pieces, rng_key, self._num_rows())
        seen = second_look(rerun, self.settings, result, at, is_own_start)
        return replace(result, findings=(*result.findings, *seen))

    def _num_rows(self) -> dict[int, int]:
        """Return {how many rows the data have: how many of these count}, where it is padded."""
        num_rows = {}
        for term in self.compiled.graph.terms:
            own = (self.elements or {}).get(term.site.name, term.elements)
            num_rows |= dict(zip(term.elements, own, strict=True))
        return num_rows

    def asked(self, question: Callable, params: Params, floor: float = 0.0, *more: Any) -> Any:
        """Return the answer to a question of the data, which are checked.

        `question`: a function of (pure program, params, constants, *more) that has a name of its
        own: it is compiled once.
        """
        checked = self.checked(params)
        if is_traced((checked, self.data)):
            # data are checked apart from what is differentiated
            self.check_data(floor)
        answer, violations = self.compiled.asked(question, checked, self.data, floor, *more)
        if not is_traced(violations):
            validation.check_data(self.compiled.graph, violations)
        return answer


def is_degenerate(result: EMResult) -> bool:
    """Whether a run ended where something has collapsed, or the objective has no bound."""
    kinds = {finding.kind for finding in result.findings}
    return result.status == Status.NOT_FINITE or bool(kinds & {"collapsed", UNBOUNDED_PRIOR})


@dataclass(frozen=True, eq=False)
class PaddedRunner:
    """A padded program on data, which answers as the program does at their own length.

    - `runner`: the padded program on padded data.
    - `latents`: {latent: its own shape}.
    - `gaussians`: {Gaussian latent: the shape of its elements}.
    - `refuse`: called with nothing where the program may not be padded after all.
    """

    runner: Runner
    latents: Mapping[str, tuple[int, ...]]
    gaussians: Mapping[str, tuple[int, ...]]
    refuse: Callable[[], None]

    def asked(self, question: Callable, params: Params, floor: float, *more: Any) -> Any:
        """Return the answer to a question of the data.

        Errors: `ValueError` where rows that were added may be why it is none.
        """
        answer = jax.device_get(self.runner.asked(question, params, floor, *more))
        if any(not np.isfinite(leaf).all() for leaf in jax.tree.leaves(answer)):
            raise ValueError("rows that were added may be why")
        return jax.device_put(answer)

    def of_latents(self, answer: Mapping[str, Any], num_lead: int = 0) -> dict[str, Any]:
        """Return values (elements of a latent …, more …) without those of rows that were added.

        `num_lead`: how many axes come before the elements.
        """
        values: dict[str, Any] = {}
        for name, value in answer.items():
            if isinstance(value, Mapping):
                # the moments of a Gaussian latent, element by element
                rows = _rows(self.gaussians[name], num_lead)
            else:
                # what is no latent has no rows (`program.padding`)
                rows = _rows(self.latents.get(name, np.shape(value)[num_lead:]), num_lead)
            # NumPy, which compiles nothing for each length
            cut = jax.tree.map(lambda array, rows=rows: np.asarray(array)[rows], value)
            values[name] = jax.device_put(cut)
        return values


def _rows(shape: tuple[int, ...], num_lead: int) -> tuple[slice, ...]:
    """Return what reads as many rows as a shape has, behind some axes."""
    return (*[slice(None)] * num_lead, *map(slice, shape))


def one_blas_thread() -> threadpool_limits:
    """Return a context in which BLAS has one thread: SciPy's OpenBLAS, for JAX's Cholesky factors.

    Its threads spin for some 50 ms after each call, on the cores that the next E-step needs: in 64
    dimensions a step takes twice as long.
    """
    return threadpool_limits(limits=1, user_api="blas")
