"""EM on several devices: the whole loop on each, of its own part of the data, one sum a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from emjax.e_step.expected import Expected
from emjax.program.fingerprint import over_processes
from emjax.run.bound import Bound
from emjax.run.first_look import FirstLook
from emjax.run.part_program import PartProgram
from emjax.run.pauses import Pauses
from emjax.run.pieces import CHUNK, PIECE, has_ended, progress_bar
from emjax.run.precision import double_precision, from_single
from emjax.run.result import EMResult
from emjax.run.state import LoopState
from emjax.run.stream_loop import doubled_part
from emjax.run.stream_programs import StreamPrograms
from emjax.run.stream_run import StreamRun, StreamState, interrupted
from emjax.run.streamed import Streamed
from emjax.sources.shard import Shards, cut_axis, most_of_processes, shards_of

AXIS = "shard"


@dataclass(frozen=True, eq=False)
class ShardedLoop:
    """EM steps on several devices.

    - `program`: on the part of one device; `sums`: what all parts share.
    - `shards`: the parts of this process, and all devices.
    - `doubles`: whether parts of single precision are taken in double.
    """

    program: PartProgram
    sums: list[np.ndarray]
    shards: Shards
    doubles: bool

    @cached_property
    def mesh(self) -> Mesh:
        """All devices, in a row."""
        return Mesh(np.asarray(self.shards.devices), (AXIS,))

    @cached_property
    def data(self) -> list[Any]:
        """The arrays of all parts, (device, …), each on its device."""
        local = [d for d in self.shards.devices if d.process_index == jax.process_index()]
        by_part = []
        for part, device in zip(self.shards, local, strict=True):
            arrays = self.program.data(doubled_part(part) if self.doubles else part)
            by_part.append([jax.device_put(array[None], device) for array in arrays])
        sharding = NamedSharding(self.mesh, PartitionSpec(AXIS))
        number = len(self.shards.devices)
        data = []
        for pieces in zip(*by_part, strict=True):
            shape = (number, *pieces[0].shape[1:])
            data.append(jax.make_array_from_single_device_arrays(shape, sharding, list(pieces)))
        return data

    def advance(self, at: LoopState, stop_at: int, since: int) -> LoopState:
        """Return where the loop stands after `stop_at` steps, or at its end."""
        key = "sharded", tuple(device.id for device in self.shards.devices)
        function = self.program.compiled.function(key, lambda: self.function)
        # all devices have the same: one copy is enough
        return jax.device_put(jax.device_get(function(at, self.data, self.sums, stop_at, since)))

    @property
    def function(self) -> Any:
        """(where the loop stands, data, sums, stop_at, since) → where it stands then."""
        program = self.program
        graph, division = program.pure.graph, program.division

        def e_step(graph, arrays, temperature, tables) -> Expected:
            own = division.expected(graph, arrays, temperature, tables)
            # one vector: so it is one sum over devices
            vector, rebuilt = ravel_pytree(own)
            own = rebuilt(jax.lax.psum(vector, AXIS))
            return division.completed(graph, arrays, own, temperature)

        def of_device(at, data, sums, stop_at, since):
            loop = replace(program.loop, e_step=e_step, since=since)
            constants = graph.prepare([array[0] for array in data], sums=sums)
            return loop.advance(at, constants, stop_at)

        everywhere, cut = PartitionSpec(), PartitionSpec(AXIS)
        specs = (everywhere, cut, everywhere, everywhere, everywhere)
        return jax.shard_map(
            of_device, mesh=self.mesh, in_specs=specs, out_specs=everywhere, check_vma=False
        )


class ShardedPrograms(StreamPrograms):
    """What is compiled for shards, and what a first look at them has seen."""

    @cached_property
    def look(self) -> FirstLook:
        """What a first pass has seen; what one process refuses, all do."""
        error, found = None, None
        try:
            found = self.first_look()
        except ValueError as raised:
            error = raised
        if most_of_processes(int(error is not None)) and error is None:
            raise ValueError("The data of another process are bad: its error says how.")
        if error is not None:
            raise error
        assert found is not None
        return found

    @cached_property
    def of_parts(self) -> PartProgram:
        """The program of the E-step, of as much room as any part of any process needs."""
        program = super().of_parts
        room = tuple(map(most_of_processes, program.rows.room))
        if room == program.rows.room:
            return program
        with jax.enable_x64(not self.is_single):
            return self._program(self.look.first, replace(program.rows, room=room))

    @cached_property
    def fingerprint(self) -> str:
        """A digest of the data of all processes."""
        return over_processes(super().fingerprint)

    def over_all(self, array: Any) -> np.ndarray:
        """Return the sum of an array over all processes."""
        if jax.process_count() == 1:
            return np.asarray(array)
        return np.asarray(np.sum(multihost_utils.process_allgather(array), 0))

    @cached_property
    def in_single(self) -> ShardedLoop:
        """The loop whose E-steps are in single precision."""
        return ShardedLoop(self.of_parts, self.sums, self.parts, False)

    @cached_property
    def in_double(self) -> ShardedLoop:
        """The loop whose E-steps are in double."""
        return ShardedLoop(self.whole, self.sums, self.parts, self.is_single)


class ShardedRun(StreamRun):
    """A run of EM on several devices."""

    def _with_progress(self, state: StreamState, stop_at: int) -> StreamState:
        programs: Any = self.programs
        loop = programs.in_single if state.in_single else programs.in_double
        if not state.in_single:
            with double_precision():
                return replace(state, at=self._in_pieces(loop, state.at, stop_at, state.since))
        # in single precision the loop is a program of its own; what it is at is in double elsewhere
        start = _cast(state.at, np.float32)
        with jax.enable_x64(False):
            at = _cast(self._in_pieces(loop, jax.device_put(start), stop_at, 0), np.float64)
        with double_precision():
            return replace(state, at=self._restored(jax.device_put(at)))

    def _in_pieces(self, loop: ShardedLoop, at: LoopState, stop_at: int, since: int) -> LoopState:
        """Return where the loop stands after `stop_at` steps, at its end, or interrupted."""
        interrupt = self.pauses.interrupt
        place = self.pauses.place(f"to step {stop_at} from {since}")
        saved = place.saved(at)
        at = at if saved is None else saved
        interrupt.is_of_use = True
        with progress_bar(self.settings.max_steps, self.settings.progress_bar) as show:
            while not has_ended(at, stop_at):
                step = int(at.step)
                if interrupt.is_wanted and step > 0:
                    place.save(at)
                    return interrupted(at)
                piece = min(step + self._size, place.next_stop(step), stop_at)
                at = loop.advance(at, int(piece), since)
                if has_ended(at, stop_at) or place.is_due(int(at.step)):
                    place.save(at)
                show(at)
        return at

    @property
    def _size(self) -> int:
        """How many steps a piece has: the same for all processes."""
        if jax.process_count() > 1 or self.settings.progress_bar:
            return CHUNK
        latents = self.programs.whole.pure.graph.latents.values()
        most = max((len(latent.support) for latent in latents), default=1)
        return max(1, PIECE // max(1, self.programs.look.num_reals * most))

    def _restored(self, at: LoopState) -> LoopState:
        """Return where a loop stands with parameters that are what single precision stands for."""
        parameters = self.programs.whole.pure.graph.parameters

        def restored(params):
            return jax.device_put(from_single(parameters, _singled(params)))

        current = replace(at.current, params=restored(at.current.params))
        return replace(at, current=current, reported=restored(at.reported))

    def starts(self) -> list[dict[str, Any]]:
        """Return the starts, the same in all processes."""
        found = super().starts()
        if jax.process_count() == 1:
            return found
        with double_precision():
            return [multihost_utils.broadcast_one_to_all(start) for start in found]


def _cast(at: LoopState, dtype: Any) -> LoopState:
    """Return where a loop stands with real numbers of another precision, on the host."""

    def cast(leaf):
        return leaf.astype(dtype) if np.issubdtype(leaf.dtype, np.floating) else leaf

    return jax.tree.map(cast, jax.device_get(at))


def _singled(params: Mapping[str, Any]) -> dict[str, Any]:
    return {name: np.asarray(value, np.float32) for name, value in params.items()}


class Sharded(Streamed):
    """A program bound to shards: what `EM.on(emjax.shard(x))` returns.

    It answers as of data in memory: those of this process, in their order.
    """

    programs_of = ShardedPrograms
    run_of = ShardedRun

    def is_cut_along_rows(self, args: tuple, kwargs: Mapping[str, Any]) -> bool:
        """Return whether arrays that lie on several devices are cut along the rows of a sum."""
        try:
            rows = self._programs.of_parts.rows
        except ValueError:
            return False
        leaves = jax.tree.leaves((args, dict(kwargs)))
        for leaf, group, axis in zip(leaves, rows.groups, rows.along, strict=True):
            if cut_axis(leaf) not in (None, axis if group is not None else None):
                return False
        return True

    def posterior(self, params: Any) -> dict[str, Any]:
        """Return p(latent | data, params) for every latent; see `EM.posterior`."""
        return self._joined(super().posterior(params))

    def decode(self, params: Any) -> dict[str, Any]:
        """Return the most probable joint assignment of all latents."""
        return self._joined(super().decode(params))

    def _joined(self, answers: Any) -> dict[str, Any]:
        """Return the answers of all parts, one after another."""
        parts, program = list(answers), self._programs.of_parts
        graph, joined = program.pure.graph, {}
        for name, value in parts[0].items():
            latent = {**graph.latents, **graph.gaussians}.get(name)
            rank = np.ndim(value) if latent is None else len(latent.shape)
            # an element is in one plate of those that are cut
            along = [rank + axis for axis in program.rows.axes.get(name, {})]
            values = [part[name] for part in parts]
            if along:
                at = partial(np.concatenate, axis=along[0])
                joined[name] = jax.tree.map(lambda *arrays, at=at: at(arrays), *values)
            else:
                joined[name] = value
        return joined


class OnDevices(Bound):
    """A program bound to arrays that lie on several devices: runs are partitioned as they are."""

    def _run_in_its_precision(
        self, rng_key: Any, given: dict[str, Any], pauses: Pauses
    ) -> EMResult:
        settings = self.compiler.settings
        sharded = Sharded(self.compiler, shards_of(*self._as_arrays), (), {})
        # JAX partitions as it sees fit what is no sum over rows, or is cut along something else
        if settings.polish or not sharded.is_cut_along_rows(*self._as_arrays):
            return super()._run_in_its_precision(rng_key, given, pauses)
        return sharded.ran(rng_key, given, pauses)
