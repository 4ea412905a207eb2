"""Totals to which rows are added where they stand, without an array of zeros for each addition."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.core import eval_jaxpr
from jax.extend.core import ClosedJaxpr, Literal

from emjax.numerics.jaxprs import bind, inlined, pruned, rearranged
from emjax.numerics.primitives import Equation

# Where each number of a total would be added to more often at once, rows are summed up before:
# beside that, zeros and a sum of two totals cost little, and in single precision a total is soon so
# large that a row that is added to it is lost.
MOST_ADDITIONS = 16


def added_to(totals: Sequence, function: Callable, *arguments: Any) -> tuple[list, Any]:
    """Return totals + terms, and what else `function(*arguments)` = (terms, others) returns.

    The derivative of a lookup is an array of zeros with some rows added to it. Where a term is
    one, and rows are few, they are added to the total: neither zeros nor a sum of two whole tables
    is made.
    """
    closed, shapes = jax.make_jaxpr(function, return_shape=True)(*arguments)
    closed = inlined(closed, keep_derivatives=True)
    jaxpr = closed.jaxpr
    producers = {var: eqn for eqn in jaxpr.eqns for var in eqn.outvars}
    terms, others = jaxpr.outvars[: len(totals)], jaxpr.outvars[len(totals) :]
    additions = [_row_additions(term, producers) for term in terms]
    operands: list = []
    for term, addition in zip(terms, additions, strict=True):
        operands += [term] if addition is None else addition.invars[1:]
    rest = pruned(ClosedJaxpr(rearranged(jaxpr, outvars=[*operands, *others]), closed.consts))
    values = iter(eval_jaxpr(rest.jaxpr, rest.consts, *jax.tree.leaves(arguments)))
    after = []
    for total, addition in zip(totals, additions, strict=True):
        if addition is None:
            after.append(total + next(values))
        else:
            after.append(bind(addition, total, next(values), next(values)))
    return after, jax.tree.unflatten(jax.tree.structure(shapes[1]), list(values))


def _row_additions(term: Any, producers: dict) -> Equation | None:
    """Return the equation that adds few rows to zeros, if a term is what it makes."""
    addition = None if isinstance(term, Literal) else producers.get(term)
    if addition is None or addition.primitive.name != "scatter-add":
        return None
    total, _, rows = addition.invars
    if rows.aval.size > MOST_ADDITIONS * total.aval.size:
        return None
    zeros = producers.get(total)
    if zeros is None or zeros.primitive.name != "broadcast_in_dim":
        return None
    is_zero = isinstance(zeros.invars[0], Literal) and zeros.invars[0].val == 0
    return addition if is_zero else None
