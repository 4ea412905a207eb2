"""Which input, latent or known number says which entry is read along an axis of a table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.extend.core import Jaxpr, Literal, Var

from emjax.numerics.arrays import LARGEST_KNOWN
from emjax.numerics.guards import is_key
from emjax.numerics.primitives import Equation, Kind, traits
from emjax.program.latents import latent_p
from emjax.program.trace import Program
from emjax.tables.evaluation import evaluated


class Lookup(NamedTuple):
    """That a table is read along an axis where an array says.

    - `table`, `axis`: what is read.
    - `index`: the array that says which entry, of one entry for each that is read.
    """

    table: Var
    axis: int
    index: Any


class Makers:
    """Which equation makes each variable of a program, and the whole numbers that are known.

    - `made_by`: {variable: its equation}; an input has none.
    - `known`: {variable: its value}, of small ones that depend on nothing.
    """

    def __init__(self, program: Program):
        self.program, self.jaxpr = program, program.jaxpr.jaxpr
        self.made_by: dict[Var, Equation] = {}
        for eqn in self.jaxpr.eqns:
            self.made_by |= dict.fromkeys(eqn.outvars, eqn)
        self.known = _known(self.jaxpr, program.jaxpr.consts)

    def lookups(self) -> Iterator[Lookup]:
        """Yield every lookup, one for each axis along which a table is read."""
        for eqn in self.jaxpr.eqns:
            if traits(eqn).kind is Kind.GATHERS and isinstance(eqn.invars[0], Var):
                axes = eqn.params["dimension_numbers"].start_index_map
                parts = self._parts(eqn.invars[1], len(axes))
                for axis, part in zip(axes, parts, strict=False):
                    yield Lookup(eqn.invars[0], axis, part)

    def _parts(self, indices: Any, number: int) -> list[Any]:
        """Return the indices along each axis, which are side by side in an array of indices."""
        if number == 1:
            return [indices]
        maker = self.made_by.get(indices) if isinstance(indices, Var) else None
        is_joined = maker is not None and maker.primitive.name == "concatenate"
        return list(maker.invars) if is_joined and len(maker.invars) == number else []

    def source(self, atom: Any) -> Var | str | None:
        """Return the input, or the latent's name, whose numbers an array holds.

        They may be moved or masked, but not changed; None for others.
        """
        if isinstance(atom, Literal):
            return None
        if atom not in self.made_by:
            return atom
        eqn = self.made_by[atom]
        if eqn.primitive is latent_p:
            return eqn.params["name"]
        if eqn.primitive.name == "select_n":
            return self._chosen(eqn)
        if eqn.primitive.name == "clamp":
            return self.source(eqn.invars[1])
        if traits(eqn).copies and traits(eqn).kind in (Kind.MOVES, Kind.ELEMENTWISE, Kind.SPLITS):
            return self.source(eqn.invars[0])
        return None

    def _chosen(self, eqn: Equation) -> Var | str | None:
        """Return the source of the cases of a choice, if they are of one, or constants."""
        sources = set()
        for case in eqn.invars[1:]:
            maker = None if isinstance(case, Literal) else self.made_by.get(case)
            # an index that is negative is counted from the end: i < 0 ? i + n : i
            if maker is None or maker.primitive.name != "add":
                sources.add(self.source(case))
        sources.discard(None)
        return sources.pop() if len(sources) == 1 else None


def _known(jaxpr: Jaxpr, consts: Any) -> dict[Var, np.ndarray]:
    """Return the whole numbers that depend on no input, where they are few."""
    known: dict[Var, np.ndarray] = {}
    for var, value in zip(jaxpr.constvars, consts, strict=True):
        if np.size(value) <= LARGEST_KNOWN and not is_key(value) and _is_whole(var):
            known[var] = np.asarray(value)
    for eqn in jaxpr.eqns:
        are_known = all(isinstance(atom, Literal) or atom in known for atom in eqn.invars)
        results: list[Any] = eqn.outvars
        is_small = all(np.prod(var.aval.shape) <= LARGEST_KNOWN for var in results)
        if not are_known or not is_small or not all(map(_is_whole, results)):
            continue
        if eqn.primitive is latent_p:
            continue
        values = []
        for atom in eqn.invars:
            values.append(np.asarray(atom.val) if isinstance(atom, Literal) else known[atom])
        found = evaluated(eqn, *values)
        found = found if eqn.primitive.multiple_results else [found]
        for var, value in zip(results, found, strict=True):
            known[var] = np.asarray(value)
    return known


def _is_whole(var: Any) -> bool:
    return jnp.issubdtype(var.aval.dtype, jnp.integer) or var.aval.dtype == bool
