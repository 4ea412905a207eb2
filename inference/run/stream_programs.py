"""What is compiled for a stream, and what a first pass over it has seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any
from weakref import ref

import jax
import numpy as np

from emjax.program.fingerprint import fingerprint, fingerprints
from emjax.run.compiler import Compiler
from emjax.run.first_look import FirstLook, first_look
from emjax.run.part_program import PartProgram, part_program
from emjax.run.part_rows import PartRows
from emjax.run.precision import double_precision, in_precision, is_single
from emjax.run.stream_loop import StreamLoop, doubled_part
from emjax.sources.part import Part


class StreamPrograms:
    """What is compiled for a stream, and what a first pass over it has seen."""

    def __init__(self, compiler: Compiler, stream: Any, more: tuple, kwargs: Mapping[str, Any]):
        self.compiler, self.more, self.kwargs = compiler, more, kwargs
        self.is_single = is_single()
        self._of_batches: dict[int, PartProgram] = {}
        # the key under which this is kept must not be kept by it
        self._stream = ref(stream)

    @property
    def parts(self) -> Any:
        return self._stream()

    @cached_property
    def look(self) -> FirstLook:
        """What a first pass has seen."""
        return self.first_look()

    def first_look(self) -> FirstLook:
        """Return what a first pass sees."""
        with jax.enable_x64(not self.is_single):
            return first_look(self.compiler, self.parts, self.more, self.kwargs)

    @cached_property
    def fingerprint(self) -> str:
        """A digest of the data, for which they are read once more."""
        # first, so that what is wrong with them is said as it always is
        numbers, words = self.look.num_rows, []
        for part in self.parts:
            leaves = jax.tree.leaves((part.args, dict(part.kwargs)))
            words.append([fingerprints({str(n): leaf}) for n, leaf in enumerate(leaves)])
        return fingerprint((numbers, words))

    @cached_property
    def of_parts(self) -> PartProgram:
        """The program of the E-step, in JAX's precision."""
        program = self.look.program
        if program.own_tables:
            raise ValueError(
                f"Site {program.own_tables}: what it depends on differs from row to row, so that "
                "an M-step needs all rows at once, and these come in parts. Fit it to data in "
                "memory, without batch_size; equal rows may be one (emjax.compress)."
            )
        return program

    @cached_property
    def whole(self) -> PartProgram:
        """The program of the M-step and of the rule by which to stop, in double."""
        if not self.is_single:
            return self.of_parts
        with double_precision():
            return self._program(self._first, self.of_parts.rows)

    @property
    def _first(self) -> Part:
        """The first part as `whole` takes it."""
        return doubled_part(self.look.first) if self.is_single else self.look.first

    @cached_property
    def rounded(self) -> PartProgram:
        """The same, where the objective is a sum of single precision."""
        return self.whole.with_resolution(float(np.finfo(np.float32).eps))

    def of_batches(self, batch: Part, size: int) -> PartProgram:
        """Return the program on batches of a size, in JAX's precision."""
        if size not in self._of_batches:
            rows = self.of_parts.rows
            room = rows.room if batch.counts else (size,) * len(rows.room)
            self._of_batches[size] = self._program(batch, replace(rows, room=room))
        return self._of_batches[size]

    @cached_property
    def of_reservoir(self) -> PartProgram:
        """The program on rows that stand for all, in double: small work is done in that."""
        with double_precision():
            return self._program(self.reservoir)

    @cached_property
    def reservoir(self) -> Part:
        """Rows that stand for all, in double."""
        return doubled_part(self.look.reservoir)

    def _program(self, part: Part, rows: PartRows | None = None) -> PartProgram:
        compiler = self.compiler
        more, kwargs = in_precision((self.more, dict(self.kwargs)))
        return part_program(compiler.model, compiler.settings, part, more, kwargs, rows)

    @cached_property
    def sums(self) -> list[np.ndarray]:
        """What all parts share: means, the very same in either precision."""
        dtype = np.float32 if self.is_single else np.float64
        found = [self.over_all(each) for each in self.look.sums]
        return self.of_parts.pure.graph.summary.means(found, dtype)

    def over_all(self, array: Any) -> np.ndarray:
        """Return the sum of an array over all processes: here there is one."""
        return np.asarray(array)

    def loop(self, in_single: bool) -> StreamLoop:
        """Return the loop whose E-steps are in single precision, or in double."""
        program, whole = (self.of_parts, self.rounded) if in_single else (self.whole, self.whole)
        return StreamLoop(
            self.parts,
            program,
            whole,
            self.sums,
            self._first,
            is_single=in_single,
            doubles=self.is_single and not in_single,
            over_all=self.over_all,
        )
