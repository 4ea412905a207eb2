"""Where a run stands, and why it stopped."""

from __future__ import annotations

from dataclasses import replace
from enum import IntEnum
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from emjax.m_step.gap import Gap
from emjax.run.endings import WHY_IT_STOPPED


class Status(IntEnum):
    """Why EM stopped."""

    CONVERGED = 0
    MAX_STEPS = 1
    OBJECTIVE_DECREASED = 2
    NOT_FINITE = 3
    NOT_MAXIMIZED = 4
    COLLAPSED = 5
    AT_RESOLUTION = 6
    INTERRUPTED = 7

    @property
    def message(self) -> str:
        """What happened, and the remedy."""
        return WHY_IT_STOPPED[self.name]

    def __str__(self) -> str:
        return self.name.lower().replace("_", " ")


# the status of a run that has not stopped
RUNNING = -1
# of runs that stopped at parameters that count, though at no maximum
NOT_CONVERGED = (Status.MAX_STEPS, Status.NOT_MAXIMIZED, Status.INTERRUPTED)


def has_settled(status: Any) -> Any:
    """Return whether steps gain no more, as far as the precision tells.

    `status`: an integer, or an array of them.
    """
    return (status == Status.CONVERGED) | (status == Status.AT_RESOLUTION)


def has_failed(status: Any) -> Any:
    """Return whether the parameters before the last ones are to be reported.

    `status`: an integer, or an array of them.
    """
    return (status == Status.NOT_FINITE) | (status == Status.OBJECTIVE_DECREASED)


class EMState(eqx.Module):
    """Where EM stands.

    **Attributes:**

    - `params`: the estimate, constrained, keyed by site.
    - `optimizer`: the states of the optax optimizers given in `m_step`, by maximizer.
    """

    params: dict[str, Array]
    optimizer: tuple[Any, ...]


class Leap(eqx.Module):
    """What acceleration remembers.

    **Attributes:**

    - `state`: the accelerator's own.
    - `is_proposal`: whether the point to be evaluated next is a proposal.
    - `image`: EM's own next state, where it goes on if the proposal is no good.
    """

    state: Any
    is_proposal: Bool[Array, ""]
    image: EMState


class LoopState(eqx.Module):
    """All that a run is at a step: from it, the run goes on to the same end.

    **Attributes:**

    - `current`: the state to be evaluated next.
    - `reported`: the parameters of the last value of the objective that counts.
    - `objective`: in nats, at every step so far; zero beyond.
    - `step`: how many steps were taken.
    - `status`: why the run stopped (`Status`), or `RUNNING`.
    - `leap`: None without acceleration.
    - `tables`, `statistics`: the natural-parameter tables of each small term at `reported`, and
      their expected statistics, where the run has stopped; until then, those at hand. None for
      large ones.
    - `gaps`: of the maximizers that may leave one, what Q still gains at `reported` where EM's own
      gains are within tol (`Gap`); NaN until then.
    """

    current: EMState
    reported: dict[str, Array]
    objective: Float[Array, "step"]
    step: Int[Array, ""]
    status: Int[Array, ""]
    leap: Leap | None
    gaps: tuple[Gap, ...]
    tables: list
    statistics: list

    @property
    def without_leaps(self) -> LoopState:
        """The same in the host's hands, from where EM goes on by its own steps."""
        if self.leap is None:
            return self
        is_pending = bool(self.leap.is_proposal) and int(self.status) < 0
        return replace(self, current=self.leap.image if is_pending else self.current, leap=None)

    @property
    def num_steps(self) -> Any:
        """How many EM steps led to `reported`."""
        return self.step - (has_failed(self.status) & (self.step > 0))

    @property
    def last_evaluated(self) -> dict[str, Array]:
        """The parameters at which the objective was evaluated last, though not reported."""
        failed = has_failed(self.status)
        return {
            name: jnp.where(failed, self.current.params[name], reported)
            for name, reported in self.reported.items()
        }
