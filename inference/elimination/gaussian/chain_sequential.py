"""Steps of a Gaussian chain integrated out one after the other, the latest first."""

from __future__ import annotations

import jax

from emjax.elimination.flags import merged, split
from emjax.elimination.gaussian.chain_steps import Message, Steps, no_message, step_integrated


def integrated_in_sequence(steps: Steps, length: int, outside: int) -> Message:
    """Return the message on the state before some steps, if nothing comes after them.

    - `steps`: of (time, batch, *discrete, …).
    - `outside`: the number of coordinates of a state that do not vary in time.
    """
    moves = [array.shape[0] != 1 for array in steps]
    moving, constant = split(list(steps), moves)
    constant = [array[0] for array in constant]

    def body(message, now):
        return step_integrated(message, Steps(*merged(now, constant, moves)), outside)[0], None

    start = no_message(Steps(*(array[0] for array in steps)))
    last, _ = jax.lax.scan(body, start, moving, length=length, reverse=True)
    return last
