"""The end of a run in double precision, where single precision tells gains from none no more.

The bulk of the work is done in single precision. A step of EM is right to its last digits there
long after the objective has lost the gain: of 200,000 rows, a nat is none. So the run goes on,
steps at a time, and each time the objective is looked at in double; where it gains no more, the
last steps are EM's own in double, and stop by its rule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from emjax.program.records import Parameter
from emjax.run.precision import double_precision, doubled, from_single, is_single, to_single
from emjax.run.pure import End, Start
from emjax.run.result import EMResult
from emjax.run.runner import Runner
from emjax.run.settings import Numbers
from emjax.run.state import Status, has_failed

# why a run in single precision is not gone on with
NOTHING_LEFT = (Status.CONVERGED, Status.MAX_STEPS, Status.INTERRUPTED)
# steps before the objective is looked at in double, which takes as long as a few: at first, and at
# most
FEW_STEPS, MANY_STEPS = 32, 128


@dataclass(frozen=True, eq=False)
class DoubleEnd:
    """What takes a run that was made in single precision to its end.

    - `in_double`: called with nothing where JAX has double precision, the same program on the same
      data; None where it cannot be traced so.
    """

    in_double: Callable[[], Runner | None]

    def __call__(
        self, single: Runner, start: Start, end: End, rng_key: Any, is_own_start: bool
    ) -> EMResult:
        """Return the result of a run in single precision, gone on with in double.

        As it is, if it had converged, or was cut off, or if there is no double precision. The rest:
        see `Runner.found`.
        """
        if int(end.at.status) not in NOTHING_LEFT:
            with double_precision():
                double = self.in_double()
                if double is not None:
                    double = replace(double, pauses=single.pauses)
                    result = _ended(single, double, start, end, is_own_start)
                    return in_single(result, double.compiled.graph.parameters)
        return single.found(start, end, rng_key, is_own_start)


def _ended(single: Runner, double: Runner, start: Start, end: End, is_own_start: bool) -> EMResult:
    """Return the result of a run that goes on in double."""
    params, history = _bulk(single, double, end)
    numbers = _numbers(double)
    numbers = replace(numbers, max_steps=numbers.max_steps - len(history))
    end = _run(double, numbers, params, is_whole=True)
    objective = np.concatenate([history, jax.device_get(end.at.objective)])
    objective = jax.device_put(objective)
    at = replace(end.at, objective=objective, step=end.at.step + len(history))
    params = jax.device_put(from_single(double.compiled.graph.parameters, start.params))
    start = replace(doubled(start), params=params)
    return double.found(start, replace(end, at=at), _key(), is_own_start)


def in_single(result: EMResult, parameters: Mapping[str, Parameter]) -> EMResult:
    """Return a result with parameters in single precision, and numbers that stay in double."""
    restarts = result.restarts
    if restarts is not None:
        restarts = replace(restarts, params=to_single(parameters, restarts.params))
    likelihood = np.asarray(result.log_likelihood)
    params = to_single(parameters, result.params)
    return replace(result, params=params, log_likelihood=likelihood, restarts=restarts)


def _bulk(single: Runner, double: Runner, end: End) -> tuple[dict[str, Any], np.ndarray]:
    """Return the parameters where single precision gains no more, and the objective until then."""
    at = jax.device_get(end.at)
    params, history = at.reported, at.objective[: at.num_steps]
    # leaps are judged by the objective, and an optimizer goes on from where it stands
    has_state = bool(jax.tree.leaves(at.current.optimizer)) or at.leap is not None
    is_plain = not has_state and not single.settings.polish
    if int(at.status) != Status.AT_RESOLUTION or not is_plain:
        return params, history
    numbers = _numbers(single)
    tol = max(numbers.tol, np.finfo(np.float64).eps)
    steps, height = FEW_STEPS, _height(double, params)
    interrupt = single.pauses.interrupt
    while (steps := min(steps, numbers.max_steps - len(history))) > 0:
        if interrupt.is_wanted:
            break
        blind = replace(numbers, may_settle=False, max_steps=steps)
        with jax.enable_x64(False):
            further = jax.device_get(_run(single, blind, params).at)
        higher = _height(double, further.reported)
        gain = higher - height
        if has_failed(further.status) or not gain > 0:
            break
        params, height = further.reported, higher
        history = np.concatenate([history, further.objective[: further.num_steps]])
        if gain <= steps * tol * (1 + abs(height)):
            break
        steps = min(2 * steps, MANY_STEPS)
    return params, history


def _height(double: Runner, params: Mapping[str, Any]) -> float:
    """Return the objective in double."""
    at = _run(double, replace(_numbers(double), max_steps=0), params).at
    return float(at.objective[0])


def _numbers(runner: Runner) -> Numbers:
    """Return the settings of a run that goes on."""
    # what was annealed is so already
    return replace(runner.compiled.pure.numbers, annealing=np.zeros(0))


def _run(
    runner: Runner, numbers: Numbers, params: Mapping[str, Any], is_whole: bool = False
) -> End:
    """Return the end of a run from given parameters, under other numbers among the settings.

    `is_whole`: see `Pieces.run`.
    """
    if not is_single():
        params = from_single(runner.compiled.graph.parameters, params)
    given = runner.compiled.given(params)
    return runner.pieces.at(numbers).run(_key(), given, is_whole=is_whole)[1]


def _key() -> Any:
    """Return a key for runs in which everything is given, which do not read it."""
    return jax.random.key(0)
