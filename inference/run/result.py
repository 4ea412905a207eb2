"""What EM found."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float

from emjax.m_step.gap import Gap
from emjax.run.described import parameters_in_words
from emjax.run.endings import why_it_stopped
from emjax.run.findings import Finding
from emjax.run.restarts import Restarts
from emjax.run.state import Status


class EMResult(eqx.Module):
    """What EM found, and why it stopped.

    **Attributes:**

    - `params`: the estimate, constrained, keyed by site.
    - `log_likelihood`: log p(x | params) in nats, summed over the data.
    - `objective`: log p(x | θ_t) + log p(θ_t) in nats for t = 0 … num_steps; the last entry is at
      `params`. Where acceleration proposed a point that lies lower, the value before is repeated; a
      polish is one step.
    - `num_steps`: how many EM steps led to `params`.
    - `status`: why EM stopped (`Status`).
    - `findings`: what is wrong with the estimate, if anything (`Finding`): components that have
      collapsed, died or become copies, entries on a bound, priors without a mode, parameters that
      their maximizer has left where Q is not at its maximum, a saddle, a start that was a poor one.
    - `gaps`: of each parameter that is climbed to (neither in closed form nor held), how far from
      the maximum of Q it was left where EM's own gains are within tol (`Gap`); of several that are
      maximized together, all of them.
    - `restarts`: where each start came to (`Restarts`); None if there was one.
    - `online`: what was done with minibatches, before the first step on all data (`Online`); None
      without `batch_size`.
    """

    params: dict[str, Array]
    log_likelihood: Float[Array | np.ndarray, ""]
    objective: Float[np.ndarray, "step"]
    num_steps: int
    status: Status = eqx.field(static=True)
    findings: tuple[Finding, ...] = eqx.field(static=True, default=())
    gaps: dict[str, Gap] = eqx.field(default_factory=dict)
    restarts: Restarts | None = None
    online: Any = eqx.field(static=True, default=None)

    @property
    def warnings(self) -> tuple[str, ...]:
        """The findings in words, each with its remedy."""
        return tuple(map(str, self.findings))

    def __repr__(self) -> str:
        return "\n".join([self._name(), *(f"  {line}" for line in self._in_short())])

    def _name(self) -> str:
        """Return what it is a result of, in a line."""
        return type(self).__name__

    def _in_short(self) -> list[str]:
        found = parameters_in_words(self.params)
        if self.findings:
            number = len(self.findings)
            found += f"; {number} finding{'s' * (number > 1)}, in words in .warnings"
        end = f"{self.status} after {self.num_steps} steps"
        return [f"{end}, log-likelihood {float(self.log_likelihood):.6f} nats", found]

    def __str__(self) -> str:
        estimates = [
            f"{name} = {np.array2string(np.asarray(value), precision=4, threshold=20)}"
            for name, value in self.params.items()
        ]
        return "\n".join([*how_it_ended(self), *estimates, *warnings_of(self)])


def how_it_ended(result: EMResult) -> list[str]:
    """Return the lines on why EM stopped, and where."""
    return [
        f"{why_it_stopped(result.status.name, result.findings)} (after {result.num_steps} steps)",
        f"log-likelihood {float(result.log_likelihood):.6f} nats",
    ]


def warnings_of(result: EMResult) -> list[str]:
    """Return a line for each warning."""
    return [f"warning: {text}" for text in result.warnings]


def params_of(found):
    """Return the parameters of a result; what is none is taken for parameters."""
    return found.params if isinstance(found, EMResult) else found


def check_is_result(given: Any) -> None:
    """Raise `ValueError` for what is no result: parameters do not say how they were found."""
    if not isinstance(given, EMResult):
        raise ValueError(
            f"It takes a result, em.run(rng_key, ...), and not {type(given).__name__}; then the "
            "program's own arguments."
        )
