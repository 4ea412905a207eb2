"""Gaussian latents integrated out of quadratic forms, the latest first.

What a latent is drawn from is a part of its form once all that is drawn from it is gone: so the
others go first. Then it is integrated out element by element, if each of its elements determines
the elements of all other latents that it meets. Where none can be, those that are coupled in time
are integrated out as one state; where there are none, all elements of a latent, or of some, become
the coordinates of one vector.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from emjax.elimination.factors import Factor, Variable, settled
from emjax.elimination.gaussian.chains import chain_integrated
from emjax.elimination.gaussian.conditional import Conditional
from emjax.elimination.gaussian.coupled import coupled_as_whole, last_drawn
from emjax.elimination.gaussian.quadratic_form import QuadraticForm, quadratic_form
from emjax.elimination.gaussian.whitened import integrated_out


class Integral(NamedTuple):
    """How latents are integrated out together.

    - `names`: the latents.
    - `form`: "element by element", "in time", or "as one vector".
    - `count`: how many integrals that are.
    - `size`: over how many coordinates each is; in time, those of one step.
    """

    names: tuple
    form: str
    count: int
    size: int


def integrated(
    pieces: Sequence[Factor],
    conditionals: Sequence[Conditional],
    variables: Mapping[Any, Variable],
    chains: str = "sequential",
    seen: Callable[[Integral], Any] = lambda integral: None,
) -> list[Factor]:
    """Return factors on the discrete latents alone: all Gaussian ones are integrated out.

    - `pieces`: terms of the exponent, linear in the latents or of second order, each with one axis
      over coordinates or two. Two that read the same element are symmetric.
    - `conditionals`: what the Gaussian latents are drawn from.
    - `variables`: all latents, discrete ones, too. The size of a Gaussian one is its number of
      coordinates.
    - `chains`: how latents that are coupled in time are integrated out (see `EM`).
    - `seen`: is told of each integral, in order.

    The gradient with respect to a piece is E[f_i 1{z}] or E[f_i g_j 1{z}]. Errors: `ValueError`
    where an element meets several elements of a discrete latent, `MemoryError` where a vector of
    coupled elements would not fit.
    """
    factors = [settled(piece) for piece in pieces]
    conditionals, remaining = list(conditionals), dict(variables)
    members: dict = {}
    while conditionals:
        form = _innermost(factors, conditionals, remaining)
        if form is None:
            # what is known to be zero is of no use to other forms
            conditionals = [conditional.as_arrays() for conditional in conditionals]
        chain = None if form else chain_integrated(factors, conditionals, remaining, chains)
        if form is not None:
            name = form.variable.name
            gone, messages = (name,), integrated_out(form)
            how = "as one vector" if name in members else "element by element"
            names = members.get(name, gone)
            seen(Integral(names, how, form.variable.count, form.variable.size))
        elif chain is not None:
            gone, messages = chain
            states = [remaining[name] for name in gone]
            count = math.prod(states[0].shape[1:])
            seen(Integral(gone, "in time", count, sum(state.size for state in states)))
        else:
            whole = coupled_as_whole(factors, conditionals, remaining)
            members[whole.name] = tuple(whole.members)
            factors = [settled(whole.piece(factor, remaining)) for factor in factors]
            conditionals = whole.conditionals(conditionals, remaining)
            remaining |= {whole.name: whole.variable}
            continue
        factors = [factor for factor in factors if not factor.reads_any(gone)]
        factors += [settled(message) for message in messages]
        conditionals = [c for c in conditionals if c.own.source not in gone]
    return factors


def _innermost(
    pieces: Sequence[Factor], conditionals: Sequence[Conditional], remaining: Mapping[Any, Variable]
) -> QuadraticForm | None:
    """Return the form of a latent that can be integrated out, the latest with the most elements."""
    variables = [remaining[name] for name in last_drawn(conditionals)]
    variables.sort(key=lambda v: (-v.count, -v.order, v.name))
    for variable in variables:
        name = variable.name
        form = quadratic_form(
            name,
            [piece for piece in pieces if piece.axes_of(name)],
            [conditional for conditional in conditionals if conditional.own.source == name],
            remaining,
        )
        if form is None:
            continue
        met = [remaining[axis.source] for axis in (*form.discrete, *form.parents)]
        # what counts several times within each time that this one counts goes first
        if not any(variable.encloses(other) for other in met):
            return form
    return None
