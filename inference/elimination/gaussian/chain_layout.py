"""Gaussian chains laid out in time, as one state.

Factors of a chain are laid out as those of discrete ones (`chains.layout`): the time of an entry is
the last step that it reads, and its axes are labeled by a latent and a *lag*. A latent that does
not vary in time is read along: a discrete one is one more axis of the batch, a Gaussian one a part
of the state. From some step on, every step is made alike; those before it stand alone.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
from jax import Array

from emjax.elimination.chains.operands import Label, Operand
from emjax.elimination.factors import Factor, Variable
from emjax.elimination.gaussian.chain_operands import (
    ConditionalInTime,
    conditional_in_time,
    counted_once,
    in_order_of_drawing,
    operand_of,
)
from emjax.elimination.gaussian.chain_steps import Steps, applied, padded, product
from emjax.elimination.gaussian.conditional import Conditional
from emjax.numerics.axes import arranged
from emjax.tables.named import Axis, Coordinates


@dataclass(frozen=True, eq=False)
class GaussianChain:
    """Gaussian latents coupled in time, as one state.

    - `names`: the latents that it consists of, in the order in which a step draws them.
    - `discrete`, `outside`: other latents that it meets, none of which varies in time.
    - `num_late`: how many of `outside`, the first ones, regular steps read.
    - `batch`: the shape of the elements of one step.
    - `first`: the steps before the regular ones, in order, each (1, batch, …).
    - `regular`: all others; None: there are none.
    - `length`: how many these are.
    """

    names: tuple
    discrete: tuple[Axis, ...]
    outside: tuple[Coordinates, ...]
    num_late: int
    batch: tuple[int, ...]
    first: tuple[Steps, ...]
    regular: Steps | None
    length: int

    @property
    def size_outside(self) -> int:
        """How many coordinates of a state do not vary in time."""
        return sum(axis.size for axis in self.outside)

    @property
    def size_late(self) -> int:
        """How many of these regular steps read."""
        return sum(axis.size for axis in self.outside[: self.num_late])


def chain_of(
    names: tuple,
    pieces: Sequence[Factor],
    conditionals: Sequence[Conditional],
    variables: Mapping[Any, Variable],
) -> GaussianChain | None:
    """Return the chain that some latents form with all that reads them; None if they form none.

    Errors: `ValueError` for a discrete latent that varies in time along with it.
    """
    variable = variables[names[0]]
    kinds = {(variables[name].shape, variables[name].multiplicity_key) for name in names}
    # latents of different shapes or multiplicities have no common steps
    if len(kinds) > 1 or not variable.shape:
        return None
    if variable.multiplicity is not None and variable.multiplicity.shape[0] != 1:
        raise ValueError(
            f"Latent '{names[0]}' is in a scan, and its multiplicity varies in time. Give "
            "`handlers.scale` one number for each sequence."
        )
    others: dict = {}
    operands, drawn = [], []
    for piece in pieces:
        if piece.reads_any(names):
            operands.append(operand_of(piece, names, variables, others))
    for conditional in conditionals:
        if conditional.own.source in names:
            drawn.append(conditional_in_time(conditional, names, variables, others))
    if None in operands or None in drawn:
        return None
    operands = [counted_once(operand, variable) for operand in operands]
    return _Layout.of(names, operands, drawn, others, variables).chain()


# ── tables of steps ───────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, eq=False)
class _Layout:
    """Everything that is laid out in w = (g, f, earlier steps).

    - `outside`: what g consists of.
    - `order`: how many earlier steps there are.
    """

    names: tuple
    variables: Mapping[Any, Variable]
    operands: Sequence[Operand]
    drawn: Sequence[ConditionalInTime]
    discrete: tuple[Axis, ...]
    outside: tuple[Coordinates, ...]
    order: int

    @staticmethod
    def of(
        names: tuple,
        operands: Sequence[Operand],
        drawn: Sequence[ConditionalInTime],
        others: Mapping[Any, Axis],
        variables: Mapping[Any, Variable],
    ) -> _Layout:
        """Return the layout in which a step draws latents in an order that it can."""
        names = in_order_of_drawing(names, drawn)
        discrete = tuple(axis for axis in others.values() if not isinstance(axis, Coordinates))
        outside = tuple(axis for axis in others.values() if isinstance(axis, Coordinates))
        lags = [operand.lag for operand in operands]
        for of_latent in drawn:
            lags += [operand.lag for operand, _ in of_latent.coefficients]
        return _Layout(names, variables, operands, drawn, discrete, outside, max(lags))

    @functools.cached_property
    def places(self) -> dict[Label, tuple[int, int]]:
        """The first coordinate in w, and the size, of each label."""
        sizes = {Label(axis.key, None): axis.size for axis in self.outside}
        for lag in range(self.order + 1):
            sizes |= {Label(name, lag): self.variables[name].size for name in self.names}
        places, start = {}, 0
        for label, size in sizes.items():
            places[label] = start, size
            start += size
        return places

    @property
    def width(self) -> int:
        """The number of coordinates of w."""
        return sum(size for _, size in self.places.values())

    @property
    def here(self) -> slice:
        """The coordinates of f in w."""
        start = sum(axis.size for axis in self.outside)
        return slice(start, start + sum(self.variables[name].size for name in self.names))

    def chain(self) -> GaussianChain | None:
        """Return the chain; None if some step of a latent is drawn from nothing."""
        shape = self.variables[self.names[0]].shape
        length = shape[0]
        regular = self.order
        for name in self.names:
            last = [d.mean for d in self.drawn if d.name == name and d.mean.stop == length]
            if not last:
                return None
            regular = max(regular, min(operand.start for operand in last))
        regular = min(regular, length)
        # what the first steps alone read, such as a state before them, is no part of the others
        inside, late = [], []
        for axis in self.outside:
            (late if self._is_read(Label(axis.key, None), regular) else inside).append(axis)
        whole = replace(self, outside=(*late, *inside))
        first = [whole._steps(time, time + 1) for time in range(regular)]
        after = None
        if regular < length:
            after = replace(self, outside=tuple(late))._steps(regular, length)
        if None in first or (after is None and regular < length):
            return None
        return GaussianChain(
            self.names,
            self.discrete,
            whole.outside,
            len(late),
            shape[1:],
            tuple(first),
            after,
            length - regular,
        )

    def _is_read(self, label: Label, start: int) -> bool:
        """Whether some step from `start` on reads a latent outside of the chain."""
        coefficients = [operand for d in self.drawn for operand, _ in d.coefficients]
        read = [operand for operand in [*self.operands, *coefficients] if operand.stop > start]
        return any(label in operand.labels for operand in read)

    def _steps(self, start: int, stop: int) -> Steps | None:
        """Return the steps start … stop − 1, of which each is drawn from one conditional."""
        drawn = self._drawn_at(start, stop)
        if drawn is None:
            return None
        # nothing is known of steps that are masked
        nothing = jnp.zeros((1,) * (3 + len(self.discrete)), drawn[0].dtype)
        linear = padded(nothing, [(0, self.width - 1)])
        square = padded(nothing[..., None], [(0, self.width - 1)] * 2)
        for operand in self.operands:
            if operand.stop <= start or stop <= operand.start:
                continue
            array, labels = self._arranged(operand.spread(start, stop).between(start, stop))
            widths = [self._around(label) for label in labels]
            if len(labels) == 1:
                linear = linear + padded(array, widths)
            else:
                square = square + padded(array, widths)
        return Steps(linear, -(square + square.mT), *drawn)

    def _drawn_at(self, start: int, stop: int) -> tuple[Array, Array, Array] | None:
        """Return m, R and L of all latents that are drawn at some steps, as one."""
        means, scales, rows = [], [], []
        for name in self.names:
            of_name = [d for d in self.drawn if d.name == name]
            covering = [d for d in of_name if d.mean.start <= start and stop <= d.mean.stop]
            if not covering:
                return None
            first, size = self.places[Label(name, 0)]
            first -= self.here.start
            around = (first, self.here.stop - self.here.start - first - size)
            mean, _ = self._arranged(covering[0].mean.between(start, stop))
            means.append(padded(mean, [around]))
            scale, _ = self._arranged(covering[0].scale.between(start, stop), 1)
            scales.append(padded(scale, [around, around]))
            for operand, label in covering[0].coefficients:
                array, labels = self._arranged(operand.between(start, stop))
                array = array if labels[-1] == label else array.mT
                rows.append(padded(array, [around, self._around(label)]))
        mean, scale = sum(means[1:], means[0]), sum(scales[1:], scales[0])
        nothing = padded(jnp.zeros_like(scale[..., :1]), [(0, self.width - 1)])
        gain = sum(rows, nothing[:1, :1])
        return _solved_for_f(mean, gain, scale, self.here, len(self.names))

    def _around(self, label: Label) -> tuple[int, int]:
        """Return how many coordinates of w are before and behind those of a label."""
        start, size = self.places[label]
        return start, self.width - start - size

    def _arranged(self, operand: Operand, unnamed: int = 0) -> tuple[Array, list[Label]]:
        """Return (time, batch, *discrete, *coordinates) of an operand, and the latter's labels.

        `unnamed`: how many axes without a name there are at the end.
        """
        values = [Label(axis.key, None) for axis in self.discrete]
        coordinates = [i for i, label in enumerate(operand.labels) if label not in values]
        labels: list = [i if i in coordinates else label for i, label in enumerate(operand.labels)]
        ends = [f"unnamed {i}" for i in range(unnamed)]
        order = [*values, *coordinates, *ends]
        array = arranged(operand.array, [*labels, *ends], order, 2)
        return array, [operand.labels[i] for i in coordinates]


def _solved_for_f(mean, gain, scale, here: slice, num_latents: int):
    """Return m, R and L of f = m + R s + L ε, of f = m + B w + L ε.

    Latents that are drawn at one step may read those drawn before: B is of lower triangular form.
    """
    within = gain[..., here]
    before = jnp.concatenate([gain[..., : here.start], gain[..., here.stop :]], -1)
    # (I − B)⁻¹ = I + B (I + B (…)), which ends, since no latent reads itself
    solved = mean, before, scale
    for _ in range(num_latents - 1):
        solved = (
            mean + applied(within, solved[0]),
            before + product(within, solved[1]),
            scale + product(within, solved[2]),
        )
    return solved
