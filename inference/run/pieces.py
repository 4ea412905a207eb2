"""A run in pieces: between two of them it is saved, it is shown, and it may be interrupted.

Where pieces end does not change the bits of a run: each goes on from all that the run is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp

from emjax.run.batches import num_cells
from emjax.run.compiled import CompiledProgram
from emjax.run.crawling import Turns
from emjax.run.pauses import Pauses
from emjax.run.precision import num_reals
from emjax.run.pure import End, Start
from emjax.run.settings import Numbers
from emjax.run.state import LoopState, Status

# how many steps are taken between two looks at the progress bar
CHUNK = 20
# Numbers times values of the latents that a piece works on: one or two seconds. A run that may take
# some times as many is in pieces, so that it can be interrupted. Each computes once more what does
# not change from step to step (measured: of 10 million labels, a third of a step).
PIECE, MANY_PIECES = 2**28, 2
# Leaps are a function of their own, which takes some seconds to compile: they begin where so many
# times as many are still to come, some twenty seconds.
LEAPS_PAY = 4


@dataclass(frozen=True, eq=False)
class Pieces:
    """Runs of a compiled program, in pieces where that is needed.

    - `compiled`: its functions; `data`: the arrays that it takes.
    - `pauses`: what happens between pieces.
    - `shows_a_bar`: whether a bar shows the run whose end is asked for.
    - `may_leap`: whether leaps take turns with EM's own steps in the run whose end is asked for.
    """

    compiled: CompiledProgram
    data: Sequence[Any]
    pauses: Pauses
    shows_a_bar: bool
    may_leap: bool = False

    def at(self, numbers: Numbers) -> Pieces:
        """Return the runs under other numbers among the settings."""
        return replace(self, compiled=self.compiled.at(numbers))

    @property
    def are_needed(self) -> bool:
        """Whether the run is kept in a file, or so long that it may be interrupted."""
        if self.pauses.are_asked_for:
            return True
        return self._work * int(self.compiled.pure.numbers.max_steps) > _long()

    @property
    def _work(self) -> int:
        """Numbers times values that a step works on."""
        graph = self.compiled.graph
        if graph.condensed.stands_for_all(graph.terms):
            tables = [math.prod(t.array.shape) for term in graph.terms for t in term.naturals]
            return num_cells(graph.condensed.terms.values()) + sum(tables)
        most = max((len(latent.support) for latent in graph.latents.values()), default=1)
        return num_cells(graph.terms) + num_reals(list(self.data)) * most

    @property
    def _all_steps(self) -> int:
        # the step that says that there are no more
        return int(self.compiled.pure.numbers.max_steps) + 1

    def run(
        self,
        rng_key: Any,
        given: Mapping[str, Any],
        number: int = 0,
        stop_at: int | None = None,
        is_whole: bool = False,
    ) -> tuple[Start, End]:
        """Return what `PureProgram.run` does.

        `is_whole`: whether this is the run whose end is asked for: then a bar shows it, if one is
        to be shown, and it is polished, if it is to be.
        """
        compiled, data = self.compiled, self.data
        if not self.are_needed and not (is_whole and self.shows_a_bar):
            return compiled.run(rng_key, data, given, number, stop_at)
        start, constants = compiled.start(rng_key, data, given, number)
        at = compiled.pure.loop.start(start.params)
        # where the data are bad, one step is enough for the checks
        is_bad = any(int(count) for count, _ in start.violations)
        stop_at = self._all_steps if stop_at is None else stop_at
        return start, self._end(start, at, constants, 1 if is_bad else stop_at, is_whole)

    def continued(self, start: Start, end: End) -> End:
        """Return the end of a run that stands somewhere: the one that is asked for."""
        constants = self.compiled.prepare(self.data)
        return self._end(start, end.at, constants, self._all_steps, True)

    def _end(self, start: Start, at: LoopState, constants, stop_at: int, is_whole: bool) -> End:
        at = self.advance(at, constants, stop_at, is_whole)
        is_polished = is_whole and int(at.status) != Status.INTERRUPTED
        end = self.compiled.end if is_polished else self.compiled.unpolished_end
        return end(at, constants, start.params)

    def advance(
        self, at: LoopState, constants: Sequence, stop_at: int, is_whole: bool = True
    ) -> LoopState:
        """Return where the loop stands after `stop_at` steps, at its end, or interrupted.

        `is_whole`: see `run`.
        """
        numbers, turns = self.compiled.pure.numbers, None
        if is_whole and self.may_leap:
            turns = Turns(self._work, LEAPS_PAY * _long(), numbers)
        with progress_bar(int(numbers.max_steps), is_whole and self.shows_a_bar) as show:
            at = self._stretch(at, constants, stop_at, show, turns)
            while turns and turns.is_over(at):
                is_own = at.leap is None
                at = self.compiled.pure.leaping.with_leaps(at) if is_own else at.without_leaps
                at = self._stretch(at, constants, stop_at, show, turns)
        return at.without_leaps if turns else at

    def _stretch(
        self, at: LoopState, constants, stop_at: int, show: Callable, turns: Turns | None
    ) -> LoopState:
        """Return where steps of one kind lead: leaps, where the loop stands before one."""
        interrupt, place = self.pauses.interrupt, self.pauses.place(f"to step {stop_at}")
        saved = place.saved(at)
        at = at if saved is None else saved
        interrupt.is_of_use = True
        step = int(at.step)
        while int(at.status) < 0 and step < stop_at and not (turns and turns.is_over(at)):
            # what was interrupted before it began has no objective yet
            if interrupt.is_wanted and step > 0:
                place.save(at)
                return self._interrupted(at, constants)
            piece = min(step + self._size(show is not _hidden), place.next_stop(step), stop_at)
            piece = min(piece, turns.next_look(at)) if turns else piece
            at = self._advanced(at, constants, int(piece))
            step = int(at.step)
            is_over = bool(turns and turns.is_over(at))
            if has_ended(at, stop_at) or is_over or place.is_due(step):
                place.save(at)
            show(at)
        return at

    def _advanced(self, at: LoopState, constants, stop_at: int) -> LoopState:
        """Return where steps of the kind whose turn it is lead."""
        is_own = at.leap is None or self.compiled.pure.settings.accelerator is not None
        advance = self.compiled.advance if is_own else self.compiled.leap_ahead
        return advance(at, constants, stop_at)

    def _size(self, is_shown: bool) -> int:
        """Return how many steps a piece has; it depends on the work, not on a clock."""
        size = max(1, PIECE // max(1, self._work))
        return min(size, CHUNK) if is_shown else size

    def _interrupted(self, at: LoopState, constants: Sequence) -> LoopState:
        """Return where the loop stands, with the objective there, as if this were all steps."""
        step = int(at.step)
        numbers = replace(self.compiled.pure.numbers, max_steps=step)
        at = self.at(numbers)._advanced(at, constants, step + 1)
        if int(at.status) != Status.MAX_STEPS:
            return at
        return replace(at, status=jnp.full_like(at.status, Status.INTERRUPTED))


def _long() -> int:
    """Return the work of a run that is in pieces: some seconds."""
    return MANY_PIECES * PIECE


def _hidden(at: LoopState) -> None:
    """Show nothing of where a loop stands."""


def has_ended(at: LoopState, stop_at: int) -> bool:
    """Whether a loop has stopped, or has taken so many steps."""
    return int(at.status) >= 0 or int(at.step) >= stop_at


@contextmanager
def progress_bar(max_steps: int, is_shown: bool) -> Iterator[Callable[[LoopState], None]]:
    """Yield what shows where a loop of `max_steps` steps at most stands."""
    if not is_shown:
        yield _hidden
        return
    # whoever shows no bar does not wait for the import
    from tqdm.auto import tqdm

    with tqdm(total=max_steps, desc="EM", unit="step") as bar:

        def show(at: LoopState) -> None:
            step = int(at.step)
            bar.update(step - bar.n)
            bar.set_postfix_str(f"objective {float(at.objective[max(step - 1, 0)]):.6g}")

        yield show
