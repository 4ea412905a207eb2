"""Gaussian latents integrated out of quadratic forms, the latest first.

What a latent is drawn from is a part of its form once all that is drawn from it is gone: so the
others go first. Then it is integrated out element by element, if each of its elements determines
the elements of all other latents that it meets. Where none can be, those that are coupled in time
are integrated out as one state.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from emjax.elimination.factors import Factor, Variable, settled
from emjax.elimination.gaussian.chains import chain_integrated
from emjax.elimination.gaussian.conditional import Conditional
from emjax.elimination.gaussian.coupled import coupled_as_whole, last_drawn
from emjax.elimination.gaussian.quadratic_form import QuadraticForm, quadratic_form
from emjax.elimination.gaussian.whitened import integrated_out


def integrated(
    pieces: Sequence[Factor],
    conditionals: Sequence[Conditional],
    variables: Mapping[Any, Variable],
    chains: str = "sequential",
) -> list[Factor]:
    """Return factors on the discrete latents alone: all Gaussian ones are integrated out.

    - `pieces`: terms of the exponent, linear in the latents or of second order, each with one axis
      over coordinates or two. Two that read the same element are symmetric.
    - `conditionals`: what the Gaussian latents are drawn from.
    - `variables`: all latents, discrete ones, too. The size of a Gaussian one is its number of
      coordinates.
    - `chains`: how latents that are coupled in time are integrated out (see `EM`).

    The gradient with respect to a piece is E[f_i 1{z}] or E[f_i g_j 1{z}].
    """
    factors = [settled(piece) for piece in pieces]
    conditionals, remaining = list(conditionals), dict(variables)
    while conditionals:
        form = _innermost(factors, conditionals, remaining)
        chain = None
        if form is not None:
            gone, messages = (form.variable.name,), integrated_out(form)
        else:
            chain = chain_integrated(factors, conditionals, remaining, chains)
            if chain is None:
                whole = coupled_as_whole(factors, conditionals, remaining)
                factors = [settled(whole.piece(factor, remaining)) for factor in factors]
                conditionals = whole.conditionals(conditionals, remaining)
                rest = {name: v for name, v in remaining.items() if name not in whole.members}
                remaining = rest | {whole.name: whole.variable}
                continue
            gone, messages = chain
        factors = [factor for factor in factors if not factor.reads_any(gone)]
        factors += [settled(message) for message in messages]
        conditionals = [c for c in conditionals if c.own.source not in gone]
        remaining = {name: v for name, v in remaining.items() if name not in gone}
    return factors


def _innermost(
    pieces: Sequence[Factor], conditionals: Sequence[Conditional], remaining: Mapping[Any, Variable]
) -> QuadraticForm | None:
    """Return the form of a latent that can be integrated out, the latest with the most elements."""
    variables = [remaining[name] for name in last_drawn(conditionals)]
    for variable in sorted(variables, key=lambda v: (v.count, v.order), reverse=True):
        name = variable.name
        form = quadratic_form(
            name,
            [piece for piece in pieces if piece.axes_of(name)],
            [conditional for conditional in conditionals if conditional.own.source == name],
            remaining,
        )
        met = (
            [] if form is None else [remaining[axis.source] for axis in form.others + form.parents]
        )
        if form is not None and not any(variable.encloses(other) for other in met):
            return form
    return None
