"""Data of other lengths in the same compiled code: padded to a few sizes, with multiplicity zero.

People fit small data, many times, of many lengths. Each compiled program serves a bucket of them:
the rows of outermost data plates are filled up with copies of the first, which count zero times.
Whether that is right is asked of the program at every new length (`program.padding`); where it is
not, or the data are large, a program runs at its own length.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from emjax.program.arguments import described
from emjax.program.handlers.plates import PlateRecorder, Plates
from emjax.program.handlers.weights import weighted
from emjax.program.padding import padding, start_reads_rows
from emjax.program.records import Parameter
from emjax.program.trace import InitialValues, Program, initial_values, trace
from emjax.run.compilation import CompiledFunction
from emjax.run.pure import PureProgram
from emjax.run.settings import Settings
from emjax.starts.strategies import START_STRATEGIES

# Of fewer rows all are of one size: what they waste is less than a call takes.
FEWEST_ROWS = 16
# Four sizes between a power of two and the next waste 25 % at most.
SIZES_PER_OCTAVE = 4
# Numbers in the data that are padded. A step on so many takes half a millisecond or so, of which a
# quarter is wasted at most: what a compilation takes is saved in thousands of steps.
LARGEST = 2**15


def padded_length(length: int) -> int:
    """Return how many rows there are after padding."""
    if length <= FEWEST_ROWS:
        return FEWEST_ROWS
    octave = 1 << (length - 1).bit_length()
    step = octave // (2 * SIZES_PER_OCTAVE)
    return -(-length // step) * step


class Lengths(NamedTuple):
    """Arguments, apart from how long their arrays are.

    - `pattern`: all that a trace depends on beside the lengths, and which of these are equal.
    - `lengths`: of the arrays' first axes, each once.
    - `sizes`: how many numbers the arrays of each length have together.
    """

    pattern: Hashable
    lengths: tuple[int, ...]
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, args: tuple, kwargs: Mapping[str, Any]) -> Lengths:
        """Return the lengths of arguments."""
        leaves, tree = jax.tree.flatten((args, kwargs))
        sizes: dict[int, int] = {}
        what: list[Hashable] = []
        for leaf in leaves:
            if not _has_rows(leaf):
                what.append(described(leaf))
                continue
            length, *others = leaf.shape
            sizes[length] = sizes.get(length, 0) + math.prod(leaf.shape)
            what.append((list(sizes).index(length), tuple(others), str(leaf.dtype)))
        pattern = tree, tuple(what), jnp.result_type(float)
        return cls(pattern, tuple(sizes), tuple(sizes.values()))


def _has_rows(leaf: Any) -> bool:
    return isinstance(leaf, np.ndarray | jax.Array) and leaf.ndim > 0


@dataclass(frozen=True, eq=False)
class Layout:
    """Which rows are padded.

    - `plates`: whose elements they are, by name.
    - `lengths`: {how many there are: how many after padding}, for each length.
    """

    plates: Mapping[str, int]
    lengths: Mapping[int, int]

    def program(self, model: Callable) -> Callable:
        """Return the program (a plate's weights …, *args, **kwargs)."""
        for plate in self.plates:
            model = weighted(model, plate)
        return model

    def weights(self, padded: bool) -> list[np.ndarray]:
        """Return the weights of the program's plates, in the order in which it takes them."""
        weights = []
        for length in self.plates.values():
            counts = np.zeros(self.lengths[length] if padded else length, jnp.result_type(float))
            counts[:length] = 1
            weights.append(counts)
        # the plate that was weighted last is the outermost program's
        return weights[::-1]

    def padded(self, tree: Any) -> Any:
        """Return arguments with as many rows as after padding: NumPy arrays."""
        return jax.tree.map(self._padded, tree)

    def _padded(self, leaf: Any) -> Any:
        if not _has_rows(leaf) or leaf.shape[0] not in self.lengths:
            return leaf
        rows = np.asarray(leaf)
        # a row that is good data: what it says counts nothing
        copies = np.broadcast_to(rows[:1], (self.lengths[len(rows)] - len(rows), *rows.shape[1:]))
        return np.concatenate([rows, copies])


class AtLength(NamedTuple):
    """What is a program's own at one length of its data: the shapes of latents and of sites.

    - `gaussians`: the shapes of the elements of those that are integrated out, whose values are of
      the shapes in `latents`.
    """

    latents: Mapping[str, tuple[int, ...]]
    gaussians: Mapping[str, tuple[int, ...]]
    elements: Mapping[str, tuple[int, ...]]


class OwnStart(NamedTuple):
    """How a run starts at one length of the data.

    - `is_padded`: whether as the padded program does.
    - `values`: else, (key, data) → the values of the parameters; None where the padded program
      draws from them.
    """

    is_padded: bool
    values: Callable | None


@dataclass(frozen=True, eq=False)
class Bucket:
    """A program that serves all lengths that are padded to the same.

    - `pure`: the weighted program, and `functions`, what is compiled of it.
    - `program`: its trace; `start`: where it starts.
    - `at_lengths`: what is known of the lengths seen so far; None where it may not be padded.
    - `starts`: how a run starts at those.
    """

    pure: PureProgram
    program: Program
    start: InitialValues
    functions: dict[Hashable, CompiledFunction] = field(default_factory=dict)
    at_lengths: dict[tuple[int, ...], AtLength | None] = field(default_factory=dict)
    starts: dict[tuple, OwnStart] = field(default_factory=dict)

    @property
    def most_values(self) -> int:
        """How many values the latent with most of them has."""
        return max((len(latent.support) for latent in self.program.latents.values()), default=0)


@dataclass(frozen=True, eq=False)
class Found:
    """The program for arguments, and how these are padded.

    - `lengths`: of the arguments.
    - `initial`: (model, settings, args, kwargs) → where the program starts at these.
    - `refuse`: called with nothing where it may not be padded after all.
    """

    bucket: Bucket
    layout: Layout
    at_length: AtLength
    lengths: tuple[int, ...]
    initial: Callable[..., InitialValues]
    refuse: Callable[[], None]

    def own_start(
        self,
        model: Callable,
        settings: Settings,
        args: tuple,
        kwargs: Mapping[str, Any],
        is_any_given: bool,
    ) -> OwnStart:
        """Return how a run starts at the arguments' own length.

        `is_any_given`: whether the user gives the values of parameters.
        """
        pure = self.bucket.pure
        is_stated = pure.stated is not None and not is_any_given
        starts, key = self.bucket.starts, (self.lengths, is_stated)
        if key not in starts:
            own = self.initial(model, settings, args, kwargs).start
            padded = self.bucket.start.start.jaxpr
            is_named = settings.init in START_STRATEGIES
            is_drawn = settings.num_restarts > 1 or is_named or is_stated
            # an M-step in closed form depends on no value before it
            is_forgotten = is_stated and all(maximizer.uses for maximizer in pure.maximizers)
            if is_forgotten or not start_reads_rows(own.jaxpr, padded, self.layout.lengths):
                # fewer points than values cannot be drawn, and no more of copies
                is_enough = min(self.layout.lengths) >= self.bucket.most_values
                starts[key] = OwnStart(is_enough or not is_drawn, None)
            # several starts, and those of a strategy, are drawn within the compiled program
            elif is_drawn:
                starts[key] = OwnStart(False, None)
            else:
                starts[key] = OwnStart(False, CompiledFunction(own))
        return starts[key]


@dataclass(frozen=True, eq=False)
class Buckets:
    """The padded programs of a program under settings of one structure.

    - `plates`: by pattern of the arguments, the plates that are padded, each with the number of its
      length; none where the program may not be.
    - `buckets`: by pattern and lengths after padding.
    - `starts`: where programs start whose plates were looked for, until somebody asks.
    - `parameters`: by pattern, those of the program at whichever length was traced last.
    """

    plates: dict[Hashable, Mapping[str, int]] = field(default_factory=dict)
    buckets: dict[Hashable, Bucket] = field(default_factory=dict)
    starts: dict[Lengths, InitialValues] = field(default_factory=dict)
    parameters: dict[Hashable, Mapping[str, Parameter]] = field(default_factory=dict)

    def refuse(self, pattern: Hashable) -> None:
        """Pad no data of this pattern from now on."""
        self.plates[pattern] = {}

    def found(
        self, model: Callable, settings: Settings, args: tuple, kwargs: Mapping[str, Any]
    ) -> Found | None:
        """Return the program for arguments, and how these are padded; None: they are not."""
        lengths = Lengths.of(args, kwargs)
        plates = self.plates.get(lengths.pattern)
        try:
            if plates is None:
                seen = Plates({}, {})
                self.starts[lengths] = _start(PlateRecorder(model, seen), settings, args, kwargs)
                plates = _plates_with_rows(seen, lengths.lengths)
                self.plates[lengths.pattern] = plates
            layout = _layout(plates, lengths)
            if layout is None:
                return None
            found = self._found(model, settings, args, kwargs, lengths, layout)
        # whatever is wrong: the program says so at its own length, if it is wrong there, too
        except Exception:
            found = None
        if found is None:
            self.refuse(lengths.pattern)
            return None
        self.parameters[lengths.pattern] = found.bucket.start.parameters
        return found

    def _found(self, model, settings, args, kwargs, lengths: Lengths, layout: Layout):
        sizes = tuple(layout.lengths.get(length, length) for length in lengths.lengths)
        key = lengths.pattern, sizes
        if key not in self.buckets:
            self.buckets[key] = _bucket(model, settings, args, kwargs, layout)
        bucket, own = self.buckets[key], lengths.lengths
        if own not in bucket.at_lengths:
            bucket.at_lengths[own] = _at_length(bucket, model, args, kwargs, layout)
        at_length = bucket.at_lengths[own]
        if at_length is None:
            return None
        initial, refuse = partial(self.start, lengths), partial(self.refuse, lengths.pattern)
        return Found(bucket, layout, at_length, own, initial, refuse)

    def start(
        self, lengths: Lengths, model: Callable, settings: Settings, args: tuple, kwargs: Mapping
    ) -> InitialValues:
        """Return where a program starts at arguments, traced already or now."""
        return self.starts.pop(lengths, None) or _start(model, settings, args, kwargs)


def _start(model, settings: Settings, args, kwargs) -> InitialValues:
    return initial_values(model, settings.strategy, args, kwargs, integrate=settings.integrate)


def _plates_with_rows(seen: Plates, lengths: tuple[int, ...]) -> dict[str, int]:
    """Return the plates of data that are as long as arrays, each with the number of its length.

    The outermost ones, where any is; columns seldom differ in number.
    """
    with_rows = [p for p in seen.plates.values() if p.has_data and p.size in lengths]
    outermost = [plate for plate in with_rows if not plate.around]
    return {plate.name: lengths.index(plate.size) for plate in outermost or with_rows}


def _layout(plates: Mapping[str, int], lengths: Lengths) -> Layout | None:
    """Return how arguments are padded; None: they are too large, or no rows of any plate."""
    numbers = set(plates.values())
    if not numbers or sum(lengths.sizes[number] for number in numbers) > LARGEST:
        return None
    of_plates = {name: lengths.lengths[number] for name, number in plates.items()}
    # JAX traces one row otherwise than several: it is not seen that the program is the same
    if min(of_plates.values()) < 2:
        return None
    return Layout(of_plates, {length: padded_length(length) for length in of_plates.values()})


def _bucket(model, settings: Settings, args, kwargs, layout: Layout) -> Bucket:
    """Return the program on padded arguments."""
    args, kwargs = layout.padded((args, kwargs))
    start = _start(model, settings, args, kwargs)
    weights = layout.weights(padded=True)
    arguments, integrate = (*weights, *args), settings.integrate
    program = trace(layout.program(model), start.parameters, arguments, kwargs, integrate=integrate)

    def own_start(rng_key, data):
        return start.start(rng_key, data[len(weights) :])

    pure = PureProgram.of(program, settings, own_start, start.is_random)
    return Bucket(pure, program, start)


def _at_length(bucket: Bucket, model, args, kwargs, layout: Layout) -> AtLength | None:
    """Return what is a program's own at the length of its arguments; None: it may not be padded."""
    weights = layout.weights(padded=False)
    # its parameters are those of the padded program: so no start is evaluated on few rows
    parameters = bucket.start.parameters
    arguments, integrate = (*weights, *args), tuple(bucket.program.gaussians)
    program = trace(layout.program(model), parameters, arguments, kwargs, integrate=integrate)
    if not padding(program, bucket.program, len(weights)).is_sound:
        return None
    everyone = {**program.latents, **program.gaussians}
    latents = {name: latent.shape for name, latent in everyone.items()}
    gaussians = {name: latent.elements for name, latent in program.gaussians.items()}
    elements = {site.name: site.elements for site in program.sites}
    return AtLength(latents, gaussians, elements)
