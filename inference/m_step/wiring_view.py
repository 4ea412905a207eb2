"""Which parameters have a closed form: those whose entries are looked up by arguments that have
one.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from emjax.families.conjugate import Conjugate
from emjax.families.family import prior_of
from emjax.graph.factor_graph import FactorGraph
from emjax.graph.slots import Slot
from emjax.graph.terms import Term
from emjax.graph.wiring import NONE, Wire
from emjax.tables.named import Named


@dataclass(frozen=True, eq=False)
class Use:
    """Where a parameter enters: an argument of a term, by lookup.

    - `term`: the number of the term.
    - `argument`: its argument.
    - `conjugacy`: that of the argument.
    - `rows`: which entry of the parameter each cell of the argument's table reads; `NONE`: none.
    """

    term: int
    argument: str
    conjugacy: Conjugate
    rows: np.ndarray


class WiringView:
    """The wiring of a factor graph, seen from its parameters.

    `fixed`: those that are not estimated.
    """

    def __init__(self, graph: FactorGraph, fixed: Collection[str] = ()):
        self.graph, self.fixed = graph, frozenset(fixed)
        self.wires = graph.wires
        self.offsets = graph.offsets()

    def wire(self, table: Named) -> Wire:
        """Return what a table depends on."""
        if isinstance(table.array, Slot):
            return self.wires[table.array.number]
        return Wire(value=np.asarray(table.array))

    def reads(self, table: Named, name: str) -> bool:
        """Whether a table depends on a parameter."""
        return name in self.wire(table).parameters

    def terms_of(self, name: str) -> list[int]:
        """Return the numbers of the terms that depend on a parameter."""
        numbers = []
        for number, term in enumerate(self.graph.terms):
            if any(self.reads(table, name) for table in term.arguments.values()):
                numbers.append(number)
        return numbers

    def arguments(self, term: Term) -> list[tuple[Named, Conjugate | None]]:
        """Return the tables of a term's arguments, and their shapes."""
        if term.family is not None:
            return [(table, term.family.arguments[name]) for name, table in term.arguments.items()]
        prior = prior_of(term.site.distribution) if term.site.is_prior else None
        if prior is None or prior.form is None or not prior.form.is_location:
            # a density that is its own table: no argument of it is a location
            return [(table, None) for table in term.arguments.values()]
        shapes = {prior.centered: prior.form}
        return [(table, shapes.get(name)) for name, table in term.prior_arguments.items()]

    def prior_number(self, name: str) -> int | None:
        """Return the number of the term that is the prior of a parameter."""
        for number, term in enumerate(self.graph.terms):
            if _is_prior_of(term, name):
                return number
        return None

    def is_tabular(self, name: str) -> bool:
        """Whether every term that depends on a parameter is an exponential family or a prior."""
        terms = [self.graph.terms[number] for number in self.terms_of(name)]
        return all(term.family is not None or term.site.is_prior for term in terms)

    def uses(self, name: str) -> tuple[list[Use] | None, str]:
        """Return every use of a parameter with a closed form, or None and why it has none."""
        uses: list[Use] = []
        for number in self.terms_of(name):
            term = self.graph.terms[number]
            # its own prior is conjugate or not, which is asked below
            if _is_prior_of(term, name):
                continue
            use, reason = self._use(name, number, term)
            if use is None:
                return None, reason
            uses.append(use)
        if not uses:
            return None, "only its prior depends on it"
        # coefficients of different features do not add up
        names = sorted({use.conjugacy.name for use in uses})
        if len({use.conjugacy for use in uses}) > 1:
            return None, f"it is a {' and a '.join(names)} at once"
        conjugacy, constraint = uses[0].conjugacy, self.graph.parameters[name].constraint
        problem = self._prior_problem(name, conjugacy) or conjugacy.constraint_problem(constraint)
        return (None, problem) if problem else (uses, "")

    def _use(self, name: str, number: int, term: Term) -> tuple[Use | None, str]:
        """Return how a term uses a parameter, or None and why that is no lookup of a shape."""
        site, kind = term.site.name, term.site.distribution.__name__
        if term.family is None:
            for table, shape in self.arguments(term):
                if self.reads(table, name) and shape is not None:
                    return None, f"it enters the {shape.name} of '{site}', which is estimated"
            return None, (
                f"{kind} at '{site}' is not an exponential family that emjax knows with these "
                "arguments"
            )
        reading = [a for a, table in term.arguments.items() if self.reads(table, name)]
        if len(reading) > 1:
            return None, f"'{site}' reads it in {' and '.join(reading)} at once"
        (argument,) = reading
        # features of one argument are linear only while the others have closed forms, too
        for other, table in term.arguments.items():
            if term.family.arguments[other] is None and self.wire(table).parameters:
                too = "" if other == argument else f", and the {argument} goes with it"
                return None, f"the {other} of {kind} at '{site}' has no closed form{too}"
        conjugacy, wire = term.family.arguments[argument], self.wire(term.arguments[argument])
        assert conjugacy is not None  # the loop above has told of one that has no closed form
        if problem := self._joint_problem(term, argument, conjugacy):
            return None, problem
        if wire.entries is None:
            how = "affinely, through" if wire.affine else "through"
            return None, f"it enters the {argument} of '{site}' {how} '{wire.primitive}'"
        rows = self._rows(name, wire.entries, conjugacy)
        if rows is None:
            return None, f"the {argument} of '{site}' reads parts of its {conjugacy.name}"
        return Use(number, argument, conjugacy, rows), ""

    def _joint_problem(self, term: Term, argument: str, conjugacy: Conjugate) -> str:
        """Return why an argument is maximized together with others; empty if it is not.

        A location and the coefficients of Gaussian latents are, where both depend on parameters.
        """
        if not conjugacy.is_quadratic:
            return ""
        together = {conjugacy.name}
        for other, table in term.arguments.items():
            shape = term.family.arguments[other]
            is_other = other != argument and shape is not None and shape.is_quadratic
            if is_other and self.wire(table).parameters - self.fixed:
                together.add(shape.name)
        if len(together) > 1:
            names = " and ".join(sorted(together, reverse=True))
            return f"the {names} of '{term.site.name}' are estimated together"
        if conjugacy.maximize is None:
            return f"it is among the {conjugacy.name} of '{term.site.name}'"
        return ""

    def _rows(self, name: str, numbers: np.ndarray, conjugacy: Conjugate) -> np.ndarray | None:
        """Return which entry of a parameter each cell of a table reads, `NONE` where none.

        `numbers`: of the single numbers that are read, of all parameters. None: a cell reads parts
        of entries, or numbers in another order.
        """
        shape, event = self.graph.parameters[name].shape, conjugacy.event_dim
        event_shape = shape[len(shape) - event :]
        if event_shape != numbers.shape[numbers.ndim - event :]:
            return None
        size = math.prod(event_shape)
        local = numbers - self.offsets[name]
        local = np.where((local >= 0) & (local < math.prod(shape)), local, NONE)
        cells = local.reshape(local.shape[: local.ndim - event] + (size,))
        first = cells[..., :1]
        in_order = np.where(first != NONE, first + np.arange(size), NONE)
        starts_an_entry = (first[first != NONE] % size == 0).all()
        if not ((cells == in_order).all() and starts_an_entry):
            return None
        return np.asarray(np.where(first != NONE, first // size, NONE)[..., 0])

    def _prior_problem(self, name: str, conjugacy: Conjugate) -> str:
        """Return why a parameter's prior rules a closed form out; empty if it does not."""
        number = self.prior_number(name)
        if number is None:
            return ""
        term = self.graph.terms[number]
        prior, kind = prior_of(term.site.distribution), term.site.distribution.__name__
        is_conjugate = prior is not None and prior.form in (None, conjugacy)
        if not is_conjugate or set(prior.arguments) - set(term.prior_arguments):
            return f"its {kind} prior is not conjugate to a {conjugacy.name}"
        if term.latent_axes or term.site.outputs.masks:
            return f"its {kind} prior depends on a latent or a mask"
        if self.graph.is_unconstrained:
            return conjugacy.jacobian_problem(self.graph.parameters[name].constraint)
        return ""


def _is_prior_of(term: Term, name: str) -> bool:
    return term.site.is_prior and term.site.name == name
