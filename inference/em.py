"""What a user calls: a program's EM, its runs, and its posterior."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro.infer import init_to_sample
from threadpoolctl import threadpool_limits

from emjax import validation
from emjax.arguments import signature, split_arguments
from emjax.diagnosis import Diagnosis, diagnosis
from emjax.driver import Carry, Compiled, EMState, Start, Status, has_failed
from emjax.numerics import is_key
from emjax.plan import Plan, plan
from emjax.program import DependsOnData

LOOKS_AT_VALUES = (jax.errors.ConcretizationTypeError, jax.errors.TracerArrayConversionError, jax.errors.TracerIntegerConversionError,
                   jax.errors.TracerBoolConversionError, jax.errors.NonConcreteBooleanIndexError, DependsOnData)
LOOKS_AT_VALUES_MESSAGE = ("The program looks at the value of a latent or a parameter (or of data that are being traced) in Python: an `if`, an `int(...)`, "
                           "or a NumPy function. Write jnp.where(z == 0, a, b) for a choice, jnp for np, and pass sizes as Python numbers.")
TEMPERATURES = {"soft": 1.0, "hard": 0.0}
CHAINS = ("sequential", "checkpointed", "parallel")
CHUNK = 20


class EMResult(eqx.Module):
    """What EM found, and why it stopped.

    **Attributes:**

    - `params`: the estimate, constrained, keyed by site.
    - `log_likelihood`: log p(x | params) in nats, summed over the data.
    - `objective`: log p(x | θ_t) + log p(θ_t) in nats for t = 0 … num_steps; the last entry is at `params`.
    - `num_steps`: how many EM steps led to `params`.
    - `status`: why EM stopped (`Status`).
    """

    params: dict[str, Array]
    log_likelihood: Float[Array, ""]
    objective: Float[np.ndarray, "step"]
    num_steps: int
    status: Status = eqx.field(static=True)

    def __str__(self) -> str:
        lines = [f"{self.status.message} (after {self.num_steps} steps)", f"log-likelihood {float(self.log_likelihood):.6f} nats"]
        lines += [f"{name} = {np.array2string(np.asarray(value), precision=4, threshold=20)}" for name, value in self.params.items()]
        return "\n".join(lines)


class EM:
    """Exact expectation-maximization for a NumPyro program with discrete latents.

    Every unobserved discrete site of finite support is summed out; `numpyro.param` sites are estimated by maximum
    likelihood, unobserved continuous `sample` sites by MAP under the prior that they state.

    **Arguments:**

    - `model`: the NumPyro program.
    - `e_step`: "soft", "hard" (each latent takes its most probable value: k-means, Viterbi training), or a temperature
      between: the posterior is raised to the power 1 / temperature.
    - `m_step`: {parameter: an optax optimizer, or a function (value, objective) → new value} in place of the maximizer
      that `plan` shows; a proposal that decreases the objective is shortened or not taken.
    - `tol`: EM has converged when a step increases the objective by at most tol · (1 + |objective|); never less than
      what the precision resolves.
    - `max_steps`: the largest number of EM steps.
    - `num_restarts`: how many starts `run` tries, those that the program excludes aside; the one with the largest final objective is returned.
    - `init`: a NumPyro initialization strategy (`numpyro.infer.init_to_…`) for `sample` sites; `numpyro.param` sites start
      from the program's own values.
    - `chains`: how latents within a `scan` are summed out. "sequential": step by step. "checkpointed": likewise, in stretches of √T steps of which only the
      ends are kept, so that memory hardly grows with T; slower by a third to a half. "parallel": in log₂ T rounds, T · K³ operations in place of T · K², for an accelerator.
    - `progress_bar`: whether to show the objective and the steps while running.

    **Errors:** each names the site and the fix. `ValueError` for a program or data that EM cannot take, `MemoryError` for
    latents so coupled that their joint table would not fit.

    ```python
    em = EM(coins)
    result = em.run(jax.random.key(0), heads)
    ```
    """

    def __init__(self, model: Callable, *, e_step="soft", m_step=None, tol=1e-9, max_steps=1000, num_restarts=1, init: Callable | None = None,
                 chains: str = "sequential", progress_bar: bool = False):
        temperature = TEMPERATURES.get(e_step) if isinstance(e_step, str) else e_step
        if not _is_number(temperature) or not 0 <= temperature < float("inf"):
            raise ValueError(f"e_step must be 'soft', 'hard' or a temperature (0 is hard, 1 is soft), not {e_step!r}.")
        if not _is_number(tol) or not tol >= 0:
            raise ValueError(f"tol must be a number of at least 0, not {tol!r}.")
        for name, value, least in (("max_steps", max_steps, 0), ("num_restarts", num_restarts, 1)):
            if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < least:
                raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}.")
        if m_step is not None and not isinstance(m_step, Mapping):
            raise ValueError(f"m_step must be {{parameter: optax optimizer or function}}, not {m_step!r}.")
        if chains not in CHAINS:
            raise ValueError(f"chains must be one of {', '.join(map(repr, CHAINS))}, not {chains!r}.")
        self.chains = chains
        self.model, self.temperature = model, float(temperature)
        self.m_step, self.tol, self.max_steps = dict(m_step or {}), float(tol), int(max_steps)
        self.num_restarts, self.progress_bar = int(num_restarts), progress_bar
        self.init_strategy = init_to_sample() if init is None else init
        self._cache: dict = {}
        self._looks_at_values: set = set()

    def _compiled(self, args, kwargs) -> tuple[Compiled, list]:
        """Return the program compiled for these arguments, and the arrays among them."""
        key, concrete = signature(args, kwargs), False
        if key in self._looks_at_values:
            key, concrete = signature(args, kwargs, concrete=True), True
        if key not in self._cache:
            try:
                self._cache[key] = Compiled(self, args, kwargs, concrete)
            except LOOKS_AT_VALUES as error:
                if concrete or validation.is_traced((args, kwargs)):
                    raise ValueError(LOOKS_AT_VALUES_MESSAGE) from error
                self._looks_at_values.add(key)
                return self._compiled(args, kwargs)
        return self._cache[key], split_arguments(args, kwargs, concrete)[0]

    def init(self, rng_key, *args, **kwargs) -> EMState:
        """Return the state at the program's own start; pure, so that it can be jitted and vmapped over keys."""
        compiled, data = self._compiled(args, kwargs)
        return compiled.state(compiled.initial(_checked_key(rng_key), data))

    def update(self, state: EMState, *args, **kwargs) -> tuple[EMState, Float[Array, ""]]:
        """Return the state after one EM step, and the objective in nats at the parameters *entering* it; pure."""
        compiled, data = self._compiled(args, kwargs)
        return compiled.step(state, compiled.graph.prepare(data))

    def run(self, rng_key, *args, init_params: Mapping[str, Any] | None = None, **kwargs) -> EMResult:
        """Run EM to convergence and return an `EMResult`.

        `args`, `kwargs`: the model's own. `init_params`: {site: constrained start} for some or all parameters; the
        others start from the program's values. Errors: `ValueError` for data or a start that the program excludes (for all starts, of several).
        """
        rng_key = _checked_key(rng_key)
        compiled, data = self._compiled(args, kwargs)
        given = compiled.given(validation.checked_params(compiled.graph, init_params or {}, complete=False))
        keys = [rng_key] if self.num_restarts == 1 else jax.random.split(rng_key, self.num_restarts)
        results, errors = [], []
        for key in keys:
            try:
                results.append(self._run(compiled, key, data, given))
            except ValueError as error:  # another start may be a possible one
                errors.append(error)
        if not results:
            raise errors[0]
        return max(results, key=_rank)

    def _run(self, compiled: Compiled, rng_key, data, given) -> EMResult:
        with one_blas_thread():
            start, carry, log_likelihood = jax.block_until_ready(self._carried_out(compiled, rng_key, data, given))
        self._check(compiled, data, start, np.asarray(carry.objective)[0])
        status, step, objective = Status(int(carry.status)), int(carry.step), np.asarray(carry.objective)
        num_steps = max(step - has_failed(status), 0)
        return EMResult(dict(carry.previous), log_likelihood, objective[: num_steps + 1], num_steps, status)

    def _carried_out(self, compiled: Compiled, rng_key, data, given):
        """Return where a run starts, where it ends, and the log-likelihood there."""
        if not self.progress_bar:
            return compiled.run(rng_key, data, given)
        start, constants = compiled.start(rng_key, data, given)
        carry = self._with_progress(compiled, start, constants)
        return start, carry, compiled.final_likelihood(carry, constants)

    def _check(self, compiled: Compiled, data, start: Start, objective) -> None:
        """Raise `ValueError` for data or a start that the program excludes."""
        validation.check_data(compiled.graph, start.violations)
        params = validation.checked_params(compiled.graph, start.params, complete=True)
        validation.check_start(compiled.graph, params, objective, start.inspection, lambda p: compiled.inspection(p, compiled.prepare(data)),
                               lambda p: compiled.most_favorable(p, compiled.prepare(data)))

    def _with_progress(self, compiled: Compiled, start: Start, constants) -> Carry:
        from tqdm.auto import tqdm

        carry = compiled.carry(start.params)
        with tqdm(total=self.max_steps, desc="EM", unit="step") as bar:
            stop_at = 1 if any(int(count) for count, _ in start.violations) else self.max_steps + 1
            while int(carry.status) < 0 and int(carry.step) < stop_at:
                carry = compiled.advance(carry, constants, min(int(carry.step) + CHUNK, stop_at))
                bar.update(int(carry.step) - bar.n)
                bar.set_postfix_str(f"objective {float(carry.objective[max(int(carry.step) - 1, 0)]):.6g}")
        return carry

    def posterior(self, params, *args, **kwargs) -> dict[str, Array]:
        """Return p(latent | data, params) for every latent: its shape, then one axis over its support.

        Under a hard E-step these are indicators of the most probable joint assignment.
        """
        return self._posterior(params, args, kwargs, self.temperature)

    def pairwise_posterior(self, params, *args, **kwargs) -> dict[str, Array]:
        """Return p(latent at t, latent at t + 1 | data, params) for every latent within a `scan`: (time − 1, the shape of one step), then two axes
        over its support, that of the earlier step first. It is as large as that, whatever the recursion needs."""
        compiled, params, constants = self._at(params, args, kwargs, floor=1e-30)
        return compiled.pairwise_posterior(params, constants, temperature=self.temperature)

    def decode(self, params, *args, **kwargs) -> dict[str, Array]:
        """Return the most probable joint assignment of all latents, each of its site's shape."""
        compiled, _ = self._compiled(args, kwargs)
        modes = self._posterior(params, args, kwargs, 0.0)
        return {name: jnp.asarray(compiled.graph.latents[name].support)[jnp.argmax(mode, -1)] for name, mode in modes.items()}

    def log_likelihood(self, params, *args, **kwargs) -> Float[Array, ""]:
        """Return log p(data | params) in nats, summed over the data, every latent summed out."""
        compiled, params, constants = self._at(params, args, kwargs)
        return compiled.log_likelihood(params, constants)

    def plan(self, *args, **kwargs) -> Plan:
        """Return which latents are summed out and how each parameter is maximized, and why; it prints as a table."""
        compiled, _ = self._compiled(args, kwargs)
        return plan(compiled.graph, compiled.maximizers, self.temperature)

    def diagnose(self, result, *args, **kwargs) -> Diagnosis:
        """Return certificates of what EM arrived at: whether it is a local maximum, how fast EM came, which values of the latents are empty or duplicates.

        `result`: an `EMResult`, or parameters {site: value}. It prints as a table. Errors: `ValueError` for an E-step that is not soft.
        """
        compiled, params, constants = self._at(result.params if isinstance(result, EMResult) else result, args, kwargs)
        return diagnosis(compiled, params, constants)

    def _posterior(self, params, args, kwargs, temperature: float):
        # a row of multiplicity zero has a posterior too: the limit of a small one
        compiled, params, constants = self._at(params, args, kwargs, floor=1e-30)
        return compiled.posterior(params, constants, temperature=temperature)

    def _at(self, params, args, kwargs, floor: float = 0.0):
        compiled, data = self._compiled(args, kwargs)
        constants = compiled.prepare(data, floor)
        if not validation.is_traced(constants):
            validation.check_data(compiled.graph, compiled.violations(constants))
        params = validation.checked_params(compiled.graph, params, complete=True)
        return compiled, params, constants


def one_blas_thread():
    """Keep the BLAS library behind JAX's Cholesky factors and solves (OpenBLAS, SciPy's) to one thread while EM runs.

    Its threads spin for some 50 ms after each call, on the cores that the next E-step needs: in 64 dimensions a step takes twice as long.
    """
    return threadpool_limits(limits=1, user_api="blas")


def _is_number(value) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def _checked_key(rng_key):
    if isinstance(rng_key, jax.Array) and (is_key(rng_key) or rng_key.dtype == jnp.uint32):
        return rng_key
    raise ValueError("The first argument is a random key, the model's own arguments follow: em.run(jax.random.key(0), ...).")


def _rank(result: EMResult) -> float:
    if result.status == Status.NOT_FINITE or not len(result.objective):
        return -float("inf")
    return float(result.objective[-1])
