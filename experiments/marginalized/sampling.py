"""NUTS by both ways, measured in turn: others use the machine, too."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import NUTS, init_to_value

import emjax
from experiments.marginalized.programs import Case

ENUMERATED, MARGINALIZED = "NumPyro", "emjax"


class Draws(NamedTuple):
    """What one way to sum latents out draws.

    - `samples`: {parameter: (draw, entry)}.
    - `first`: seconds of CPU until the first draws are there: tracing, compiling, a chunk of
      the warm-up.
    - `seconds`: of CPU, for the draws that are kept.
    - `num_steps`: gradients, for the same.
    """

    samples: dict[str, np.ndarray]
    first: float
    seconds: float
    num_steps: int

    @property
    def effective(self) -> np.ndarray:
        """The effective number of draws of every entry that is no constant."""
        entries = np.concatenate(list(self.samples.values()), axis=1)
        return effective_sample_size(entries.T[:, None, :].transpose(1, 2, 0))

    @property
    def per_second(self) -> float:
        """Effective draws per second of CPU, of the entry that has the fewest."""
        return float(self.effective.min()) / self.seconds

    @property
    def means(self) -> np.ndarray:
        """The posterior mean of every entry."""
        return np.concatenate([draws.mean(0) for draws in self.samples.values()])

    @property
    def errors(self) -> np.ndarray:
        """Their Monte Carlo standard errors."""
        deviations = np.concatenate([draws.std(0) for draws in self.samples.values()])
        return deviations / np.sqrt(self.effective)


class Compared(NamedTuple):
    """A case, and the draws by each way."""

    case: Case
    draws: dict[str, Draws]

    def ratio(self, of: Callable[[Draws], float]) -> float:
        """Return of emjax's over that of NumPyro's."""
        return of(self.draws[MARGINALIZED]) / of(self.draws[ENUMERATED])

    @property
    def distance(self) -> float:
        """The largest difference of posterior means, in its Monte Carlo standard errors."""
        ours, theirs = self.draws[MARGINALIZED], self.draws[ENUMERATED]
        return float((abs(ours.means - theirs.means) / np.hypot(ours.errors, theirs.errors)).max())


def both(case: Case) -> Compared:
    """Return draws by both ways, from where EM ends."""
    fit = emjax.EM(case.program).run(jax.random.key(0), *case.data, init_params=case.start)
    models = {
        ENUMERATED: case.enumerated or (case.program, case.data),
        MARGINALIZED: (emjax.marginalized(case.program), case.data),
    }
    chains = {name: _Chain(*model, case, fit.params) for name, model in models.items()}
    for _ in range(case.num_warmup - 1):
        for chain in chains.values():
            chain.draw()
    kept: dict[str, list] = {name: [] for name in chains}
    for _ in range(case.num_rounds):
        for name, chain in chains.items():
            kept[name].append(chain.draw())
    return Compared(case, {name: chain.of(kept[name]) for name, chain in chains.items()})


class _Chain:
    """One chain of NUTS, by calls of a function that is compiled once."""

    def __init__(self, model: Callable, data: tuple, case: Case, start: dict[str, Any]):
        began = time.process_time()
        self._kernel = NUTS(
            model,
            init_strategy=init_to_value(values=start),
            max_tree_depth=case.max_tree_depth,
        )
        self._data = data
        warmup = case.chunk * case.num_warmup
        state = self._kernel.init(jax.random.key(1), warmup, None, data, {})

        def step(state, _):
            state = self._kernel.sample(state, data, {})
            return state, (state.z, state.num_steps)

        def chunk(state):
            return jax.lax.scan(step, state, length=case.chunk)

        self._chunk = jax.jit(chunk).lower(state).compile()
        self._state = state
        self.draw()
        self.first = time.process_time() - began

    def draw(self) -> tuple[Any, float]:
        """Return a chunk of draws, and the seconds of CPU that they took."""
        began = time.process_time()
        self._state, drawn = jax.block_until_ready(self._chunk(self._state))
        return jax.device_get(drawn), time.process_time() - began

    def of(self, kept: list) -> Draws:
        """Return what was kept of the draws, constrained."""
        z = jax.tree.map(lambda *leaves: np.concatenate(leaves), *(z for (z, _), _ in kept))
        constrained = jax.vmap(self._kernel.postprocess_fn(self._data, {}))(z)
        samples = {name: np.reshape(value, (len(value), -1)) for name, value in constrained.items()}
        seconds = sum(seconds for _, seconds in kept)
        num_steps = sum(int(steps.sum()) for (_, steps), _ in kept)
        return Draws(samples, self.first, seconds, num_steps)
