"""Cheaper forms of log Z that need probabilities away from zero, and what says if they were right.

A form that is taken reports a margin; where one is near zero, the plain form is computed instead.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
from jax import Array

# Entries of the smallest array for which a fast form is worth compiling beside the plain one: each
# is one more branch of the E-step to compile.
FEWEST_FAST = 2**14
# … where log Z is asked for once, and a second of compilation is a second.
FEWEST_FAST_ONCE = 2**22
# What one turn of a loop costs the plain form, in entries.
ENTRIES_OF_TURN = 2**7


@dataclass(eq=False)
class FastForms:
    """Leave to take forms that need probabilities away from zero, and what says if that was right.

    - `epsilon`: a zero that a form may add to its probabilities: what it loses is at most the
      smallest number times the derivative with respect to it. None: no form may do so.
    - `margins`: what is near zero where a form that was taken is wrong.
    - `is_perturbed`: whether a form has added `epsilon`.
    - `is_often`: whether log Z is asked for so often that small work may take longer to compile.
    - `is_once`: whether it is asked for once, and not in every step.
    - `num_blocks`: how many blocks there are like the one that the form is for, which share what
      depends on the parameters alone.
    """

    is_often: bool = False
    is_once: bool = False
    num_blocks: int = 1
    epsilon: Any = None
    margins: list = field(default_factory=list)
    is_perturbed: bool = False

    def are_worth(self, entries: int, turns: int = 0) -> bool:
        """Whether so many entries are worth a fast form beside the plain one, a loop of `turns`."""
        if self.is_once:
            return entries + turns * ENTRIES_OF_TURN >= FEWEST_FAST_ONCE
        return entries >= FEWEST_FAST

    def perturbed(self) -> Any:
        """Return the zero to add."""
        self.is_perturbed = True
        return self.epsilon

    @property
    def is_taken(self) -> bool:
        """Whether any form was taken."""
        return bool(self.margins) or self.is_perturbed

    @property
    def margin(self) -> Array:
        """The least margin, infinite where there is none."""
        return jnp.min(jnp.stack(self.margins)) if self.margins else jnp.full((), jnp.inf)
