"""A program bound to a stream: `em.on(stream)`, which runs, and is asked part by part."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar
from weakref import WeakKeyDictionary

import jax
import numpy as np
from jaxtyping import Float

from emjax.graph.factor_graph import FactorGraph
from emjax.run import validation
from emjax.run.annotations import Every, InitParams, Params, Path
from emjax.run.bound import LEAST_MULTIPLICITY, Bound, checked_key
from emjax.run.compiled import CompiledProgram
from emjax.run.compiler import Compiler
from emjax.run.described import program_in_words
from emjax.run.first_look import FirstLook
from emjax.run.part_program import PartProgram
from emjax.run.pauses import Pauses, paused
from emjax.run.precision import is_single
from emjax.run.pure import PureProgram
from emjax.run.result import EMResult, params_of
from emjax.run.run_identity import run_identity
from emjax.run.runner import one_blas_thread
from emjax.run.settings import Settings
from emjax.run.stream_programs import StreamPrograms
from emjax.run.stream_run import StreamRun
from emjax.run.validation import check_are_params

# by stream, as long as that is kept by others
KEPT: WeakKeyDictionary = WeakKeyDictionary()


class PartByPart(Iterator):
    """An answer for one part of a stream after another, each computed when it is asked for."""

    def __init__(self, answers: Iterator[dict[str, Any]]):
        self._answers = answers

    def __next__(self) -> dict[str, Any]:
        return next(self._answers)

    def __getitem__(self, name: Any) -> Any:
        raise ValueError(
            f"{name!r} is asked of a stream, which answers part by part: for answer in "
            f"fit.posterior(): answer[{name!r}]."
        )


@dataclass(frozen=True, eq=False, repr=False)
class Streamed:
    """A program bound to data that come in parts: what `EM.on(stream, *args)` returns.

    - `compiler`: the program and its settings.
    - `stream`: iterates the parts, as often as it is asked to.
    - `more`, `kwargs`: further arguments of the program, the same for all parts.
    - `make_result`: (this, a result) → what `run` returns; None: the result.
    """

    compiler: Compiler
    stream: Any
    more: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    make_result: Callable[[Any, EMResult], EMResult] | None = None

    # what is compiled, and a run of it
    programs_of: ClassVar[type[StreamPrograms]] = StreamPrograms
    run_of: ClassVar[type[StreamRun]] = StreamRun

    @property
    def args(self) -> tuple[Any, ...]:
        """The arguments of `EM.on`."""
        return (self.stream, *self.more)

    def __repr__(self) -> str:
        return f"Streamed{self.in_words}"

    @property
    def in_words(self) -> str:
        """The program and what it is bound to, in brackets."""
        model = self.compiler.model
        return f"({', '.join([program_in_words(model), repr(self.stream)])})"

    def __getattr__(self, name: str) -> Any:
        # what is no question that adds up, or is answered part by part
        if name.startswith("_") or not hasattr(Bound, name):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        raise AttributeError(
            "This is asked of data in memory, and these are a stream. Ask it of one part after "
            "another: for part in stream: em.on(*part.args, **part.kwargs)."
        )

    # ── what does not depend on how many data there are ───────────────────────────────────────────

    @cached_property
    def of_first(self) -> Bound:
        """The program bound to the first part of the stream alone."""
        part = next(iter(self.stream), None)
        if part is None:
            raise ValueError("The stream yields no data.")
        return Bound(self.compiler, (*part.args, *self.more), {**part.kwargs, **self.kwargs})

    @property
    def compiled(self) -> CompiledProgram:
        """The program's compiled functions for arguments such as the first part's."""
        return self.of_first.compiled

    @property
    def graph(self) -> FactorGraph:
        """The factor graph of the program on the first part."""
        return self.compiled.graph

    @property
    def arguments(self) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        """The arguments of the program for the first part."""
        return self.of_first.arguments

    @property
    def looks_at_values(self) -> bool:
        """Whether the program looks at the values of its arguments in Python."""
        return self.of_first.looks_at_values

    def in_its_precision(self, question: Callable[[Any], Any]) -> Any:
        """Return the answer to a question program → answer; see `Bound.in_its_precision`."""
        return question(self)

    def checked(self, params: Params, complete: bool = True) -> dict[str, Any]:
        """Return a result's parameters, or parameters, checked to be the program's."""
        return self.of_first.checked(params, complete)

    @property
    def _programs(self) -> StreamPrograms:
        key = self.compiler, tuple(map(id, jax.tree.leaves((self.more, self.kwargs)))), is_single()
        kept = KEPT.setdefault(self.stream, {})
        if key not in kept:
            kept[key] = self.programs_of(self.compiler, self.stream, self.more, self.kwargs)
        return kept[key]

    @property
    def look(self) -> FirstLook:
        """What a first pass over the stream has seen; it is made once."""
        return self._programs.look

    # ── runs ──────────────────────────────────────────────────────────────────────────────────────

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
        given = {} if init_params is None else params_of(init_params)
        check_are_params(given)

        def identity():
            more = {"stream": self._programs.fingerprint, "more": self.more, **self.kwargs}
            return run_identity(self.compiler, rng_key, given, more)

        with paused(checkpoint, every, identity) as pauses:
            result = pauses.noted(self.ran(rng_key, given, pauses))
        return result if self.make_result is None else self.make_result(self, result)

    def ran(self, rng_key: Any, given: Mapping[str, Any], pauses: Pauses) -> EMResult:
        """Return the result of a run from checked values; `pauses`: what happens in between."""
        _check_settings(self.compiler.settings)
        with one_blas_thread():
            return self.run_of(self._programs, rng_key, given, pauses).result()

    # ── what can be asked ─────────────────────────────────────────────────────────────────────────

    def posterior(self, params: Params) -> PartByPart:
        """Return p(latent | data, params) for every latent, part by part; see `EM.posterior`."""
        return self.of_latents(PureProgram.posterior_and_means, params)

    def decode(self, params: Params) -> PartByPart:
        """Return the most probable joint assignment of all latents, part by part."""
        return self.of_latents(PureProgram.modes, params)

    def of_latents(self, question: Callable, params: Params) -> PartByPart:
        """Return what is asked of latents, part by part; see `Bound.of_latents`."""
        return PartByPart(self._of_latents(question, params))

    def _of_latents(self, question: Callable, params: Params) -> Iterator[dict[str, Any]]:
        program = self._programs.of_parts
        self._check_apart()
        params = _checked(program, params)
        for part in self.stream:
            data = program.data(part)
            answer, _ = program.compiled.asked(question, params, data, LEAST_MULTIPLICITY)
            counts = program.rows.counts(part)
            graph, found = program.pure.graph, {}
            for name, value in answer.items():
                latent = {**graph.latents, **graph.gaussians}.get(name)
                rank = np.ndim(value) if latent is None else len(latent.shape)
                found[name] = program.rows.cut(name, value, counts, rank)
            yield found

    def _check_apart(self) -> None:
        """Raise `ValueError` where what is asked of one part depends on all others."""
        if bridges := self._programs.of_parts.division.bridges:
            names = ", ".join(map(repr, bridges))
            raise ValueError(
                f"All data depend on {names}, so that no part of a stream can be asked apart from "
                "the others. The fit and log p are exact; ask the rest of data in memory."
            )

    @property
    def bounds(self) -> Iterator[Bound]:
        """The program bound to one part after another, in memory: of its real elements alone."""
        self._check_apart()
        for part in self.stream:
            args, kwargs = (*part.args, *self.more), {**part.kwargs, **self.kwargs}
            if not part.counts:
                yield Bound(self.compiler, args, kwargs)
                continue
            rows = self._programs.of_parts.rows
            key = "parts", tuple(rows.plates)
            compiler = self.compiler.variant(key, rows.program(self.compiler.model))
            weights = rows.weights(rows.counts(part))
            yield Bound(compiler, (*weights, *args), kwargs)

    def shared_log_likelihood(self, params: Params) -> float:
        """Return log p in nats of what is observed outside of the parts: all share it."""
        programs = self._programs
        params = _checked(programs.of_parts, params)
        return programs.loop(programs.is_single).shared_log_likelihood(params)

    def log_likelihood(self, params: Params) -> Float[np.ndarray, ""]:
        """Return log p(data | params) in nats, summed over the data in double precision."""
        programs = self._programs
        params = _checked(programs.of_parts, params)
        return np.asarray(programs.loop(programs.is_single).log_likelihood(params))


def _check_settings(settings: Settings) -> None:
    if settings.polish:
        raise ValueError(
            f"polish={settings.polish!r} climbs the objective of data in memory, and these are a "
            "stream. Use acceleration='anderson', which takes few steps where EM is slow."
        )


def _checked(program: PartProgram, params: Params) -> dict[str, Any]:
    check_are_params(params_of(params))
    return validation.checked_params(program.pure.graph, params_of(params), complete=True)
