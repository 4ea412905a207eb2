"""When EM crawls: its own steps give way to leaps, and leaps that lead nowhere to its own steps.

Which steps are taken depends on the work of a step and on the objectives so far, and on no clock:
the same run takes the same steps, however often it was stopped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from emjax.run.settings import Numbers
from emjax.run.state import LoopState

# EM's own steps between looks at them, and the fewest still to come that are worth a leap. The
# first so many are always EM's own: most runs have converged by then, and comparisons are of these.
LOOK = 64
# Gains of so many steps are compared with those of as many before: Aitken's rate, and no noise.
WINDOW = 8
# Leaps are looked at every so many steps, and have failed if more than this share gained nothing.
# Their looks are never at those of EM's own steps: who has failed does not try at once again.
TRIAL = 16
MOST_MISSED = 0.2


@dataclass(frozen=True)
class Turns:
    """Whose turn it is: that of EM's own steps, or that of leaps.

    - `work`: numbers times values that a step works on.
    - `worth`: the work from which on leaps save more than it takes to compile them.
    - `numbers`: the settings that are numbers.
    """

    work: int
    worth: int
    numbers: Numbers

    def next_look(self, at: LoopState) -> int:
        """Return the next step at which to look whose turn it is."""
        step = int(at.step)
        if at.leap is not None:
            return ((step + TRIAL // 2) // TRIAL) * TRIAL + TRIAL // 2
        return (step // LOOK + 1) * LOOK

    def is_over(self, at: LoopState) -> bool:
        """Whether it is the turn of the other kind of steps."""
        step = int(at.step)
        is_looked_at = step % LOOK == 0 if at.leap is None else step % TRIAL == TRIAL // 2
        if int(at.status) >= 0 or step < LOOK or not is_looked_at:
            return False
        # cut by NumPy: JAX would compile each length
        history = np.asarray(at.objective)[:step].astype(np.float64)
        has_missed = np.diff(history) <= 0
        if at.leap is not None:
            return bool(has_missed[-TRIAL:].mean() > MOST_MISSED)
        # who has failed since the last look waits for the next one
        if has_missed[-LOOK:].any():
            return False
        left = self._steps_left(history)
        return left >= LOOK and left * self.work > self.worth

    def _steps_left(self, history: np.ndarray) -> float:
        """Return how many of its own steps EM has before it; 0 where gains do not shrink.

        If they go on to shrink by the rate at which they do, so many until one gains no more than
        tol. Source: Aitken (1926), as in `still_to_gain`.
        """
        before, first, last = history[-1 - 2 * WINDOW], history[-1 - WINDOW], history[-1]
        gain, gain_before = last - first, first - before
        if not 0 < gain < gain_before:
            return 0.0
        allowed = WINDOW * max(self.numbers.tol, np.finfo(np.float64).eps) * (1 + abs(last))
        steps = WINDOW * np.log(allowed / gain) / np.log(gain / gain_before)
        return float(np.clip(steps, 0, self.numbers.max_steps - len(history)))


def still_to_gain(gain: Any, gain_before: Any) -> Any:
    """Return what is still to gain, in nats; infinite where gains do not shrink.

    If they go on to shrink by the last factor r = gain / gain_before, that is gain · r / (1 − r).
    Source: Aitken (1926); Böhning, Dietz, Schaub, Schlattmann & Lindsay (1994).
    """
    rate = gain / jnp.where(gain_before > 0, gain_before, 1)
    shrinks = (gain_before > 0) & (rate >= 0) & (rate < 1)
    return jnp.where(shrinks, gain * rate / jnp.where(shrinks, 1 - rate, 1), jnp.inf)
