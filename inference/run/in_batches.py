"""A program bound to data in memory, of which a run begins with minibatches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from emjax.run.bound import Bound
from emjax.run.compiler import Compiler
from emjax.run.pauses import Pauses
from emjax.run.precision import is_single, to_single
from emjax.run.result import EMResult
from emjax.run.stream_programs import StreamPrograms
from emjax.run.stream_run import StreamRun
from emjax.sources.batches import InMemory
from emjax.sources.part import Part


class InBatches(Bound):
    """A program bound to data in memory: runs begin with online EM, and go on from there."""

    def _run_in_its_precision(
        self, rng_key: Any, given: dict[str, Any], pauses: Pauses
    ) -> EMResult:
        args, kwargs = self._as_arrays
        source = InMemory(Part(args, kwargs))
        programs = StreamPrograms(self.compiler, source, (), {})
        run = StreamRun(programs, rng_key, given, pauses)
        (start,), online = run.after_batches(run.starts())
        if is_single():
            start = to_single(programs.of_parts.pure.graph.parameters, start)
        # of several starts, minibatches have chosen
        settings = replace(self.compiler.settings, num_restarts=1)
        bound = Bound(Compiler(self.compiler.model, settings), self.args, self.kwargs)
        result = bound._run_in_its_precision(rng_key, dict(start), pauses)
        return replace(result, online=online)
