"""What a user calls: a program's EM, its runs, and its posterior."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from threadpoolctl import threadpool_limits

from emjax.certificates.diagnosis import Diagnosis, diagnosis
from emjax.numerics.guards import is_random_key
from emjax.plan import Plan, plan
from emjax.program.arguments import signature, split_arguments
from emjax.program.trace import DependsOnData
from emjax.run import validation
from emjax.run.compiled import Compiled, End, Start
from emjax.run.loop import EMState, LoopState, Status
from emjax.run.result import EMResult, params_of
from emjax.run.settings import Settings

LOOKS_AT_VALUES = (
    jax.errors.ConcretizationTypeError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.TracerBoolConversionError,
    jax.errors.NonConcreteBooleanIndexError,
    DependsOnData,
)
LOOKS_AT_VALUES_MESSAGE = (
    "The program looks at the value of a latent or a parameter (or of data that are being traced) "
    "in Python: an `if`, an `int(...)`, "
    "or a NumPy function. Write jnp.where(z == 0, a, b) for a choice, jnp for np, and pass sizes "
    "as Python numbers."
)
CHUNK = 20


class EM:
    """Exact expectation-maximization for a NumPyro program with discrete latents.

    Every unobserved discrete site of finite support is summed out; `numpyro.param` sites are
    estimated by maximum likelihood, unobserved continuous `sample` sites by MAP under the prior
    that they state.

    **Arguments:**

    - `model`: the NumPyro program.
    - `e_step`: "soft", "hard" (each latent takes its most probable value: k-means, Viterbi
      training), or a temperature between: the posterior is raised to the power 1 / temperature.
    - `m_step`: {parameter: an optax optimizer, or a function (value, objective) → new value} in
      place of the maximizer that `plan` shows; a proposal that decreases the objective is shortened
      or not taken.
    - `fixed`: the names of parameters that stay at their start.
    - `tol`: EM has converged when a step increases the objective by at most tol · (1 +
      |objective|); never less than what the precision resolves.
    - `stop`: "gain" compares with tol what the last step gained (the last four, if accelerated),
      "aitken" what the last gains say is still to gain.
    - `max_steps`: the largest number of EM steps (a polish and its confirmation take two more).
    - `acceleration`: "squarem" or "anderson": leaps ahead from EM's own steps, taken only where the
      objective does not decrease. Every E-step counts as a step.
    - `polish`: "newton" or "lbfgs": where EM ends, climb the exact objective by that method, and
      let EM's own rule confirm the end.
    - `num_restarts`: how many starts `run` tries, compiled together; the one with the largest final
      objective of those that are not degenerate is returned, and `result.restarts` says where each
      came to.
    - `short_steps`: of several starts, how many steps each takes before all but the best stop
      (emEM: Biernacki, Celeux & Govaert, 2003). None: all go on to their end, so that
      `result.restarts.optima()` lists every optimum.
    - `init`: where `run` starts. None: `numpyro.param` sites at the program's own values, `sample`
      sites drawn from their priors; if of several starts all would be the same, the others are
      drawn, as by "k-means++" where latents choose locations, else "responsibilities". A NumPyro
      strategy (`numpyro.infer.init_to_…`): for `sample` sites. Or by name, for all:
      "responsibilities", "data", "k-means++", "splitting" (`emjax.starts`).
    - `annealing`: temperatures of EM steps that lead from there to where EM proper starts, such as
      np.geomspace(2, 1, 50) (deterministic annealing). At high temperatures all components come to
      one place, and part again only below a critical one: start above it with time to part, or not
      far above it.
    - `chains`: how latents within a `scan` are summed out. "sequential": step by step.
      "checkpointed": likewise, in stretches of √T steps of which only the ends are kept, so that
      memory hardly grows with T; slower by a third to a half. "parallel": in log₂ T rounds, T · K³
      operations in place of T · K², for an accelerator.
    - `progress_bar`: whether to show the objective and the steps while running.

    **Errors:** each names the site and the fix. `ValueError` for a program or data that EM cannot
    take, `MemoryError` for latents so coupled that their joint table would not fit.

    ```python
    em = EM(coins)
    result = em.run(jax.random.key(0), heads)
    ```
    """

    def __init__(
        self,
        model: Callable,
        *,
        e_step="soft",
        m_step=None,
        fixed: Collection[str] = (),
        tol=1e-9,
        stop: str = "gain",
        max_steps=1000,
        acceleration: str | None = None,
        polish: str | None = None,
        num_restarts=1,
        short_steps=20,
        init: Callable | str | None = None,
        annealing=(),
        chains: str = "sequential",
        progress_bar: bool = False,
    ):
        self.model = model
        self.settings = Settings(
            e_step,
            m_step,
            fixed,
            tol,
            stop,
            max_steps,
            acceleration,
            polish,
            num_restarts,
            short_steps,
            init,
            annealing,
            chains,
            progress_bar,
        )
        self._cache: dict = {}
        self._looks_at_values: set = set()

    def _for(self, model: Callable, **changes) -> EM:
        """Return EM for another program, with the same settings but some changes."""
        other = copy.copy(self)
        other.model, other.settings, other._cache, other._looks_at_values = (
            model,
            replace(self.settings, **changes),
            {},
            set(),
        )
        return other

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
        """Return the state at the program's own start; pure, so that it can be jitted and vmapped
        over keys.
        """
        compiled, data = self._compiled(args, kwargs)
        return compiled.loop.state(compiled.initial(_checked_key(rng_key), data))

    def update(self, state: EMState, *args, **kwargs) -> tuple[EMState, Float[Array, ""]]:
        """Return the state after one EM step, and the objective in nats at the parameters
        *entering* it; pure.
        """
        compiled, data = self._compiled(args, kwargs)
        return compiled.update(state, data)

    def run(
        self, rng_key, *args, init_params: Mapping[str, Any] | None = None, **kwargs
    ) -> EMResult:
        """Run EM to convergence and return an `EMResult`.

        `args`, `kwargs`: the model's own. `init_params`: {site: constrained start} for some or all
        parameters; the others start from the program's values. Errors: `ValueError` for data or a
        start that the program excludes (for all starts, of several).
        """
        rng_key = _checked_key(rng_key)
        compiled, data = self._compiled(args, kwargs)
        given = compiled.given(
            validation.checked_params(compiled.graph, init_params or {}, complete=False)
        )
        with one_blas_thread():
            if self.settings.num_restarts > 1:
                return self._run_several(compiled, rng_key, data, given)
            if self.settings.progress_bar:
                start, constants = compiled.start(rng_key, data, given)
                carry = self._with_progress(
                    compiled, compiled.loop.start(start.params), constants, start.violations
                )
                return self._result(compiled, data, start, compiled.end(carry, constants))
            return self._result(compiled, data, *compiled.run(rng_key, data, given))

    def _run_several(self, compiled: Compiled, rng_key, data, given) -> EMResult:
        """Run all starts, short or to their end, and the best of them to its end."""
        steps = self.settings.max_steps + 1
        starts, carries, spreads = compiled.short_runs(
            jax.random.split(rng_key, self.settings.num_restarts),
            data,
            given,
            min(self.settings.short_steps or steps, steps),
        )
        restarts = compiled.restarts(carries, spreads)
        while True:
            params, carry = jax.tree.map(lambda x: x[restarts.best], (starts, carries))
            if self.settings.progress_bar:
                carry = self._with_progress(compiled, carry, compiled.prepare(data), ())
            start, end = compiled.continued(params, carry, data)
            result = self._result(compiled, data, start, end)
            if not compiled.is_degenerate(end) or restarts.degenerate[restarts.best]:
                return replace(result, restarts=restarts)
            restarts = restarts.with_degenerate(
                restarts.best
            )  # it looked best after the short run only because it was collapsing

    def _result(self, compiled: Compiled, data, start: Start, end: End) -> EMResult:
        """Return the result of a run, and raise `ValueError` for data or a start that the program
        excludes.
        """
        carry = jax.device_get(end.carry)
        validation.check_data(compiled.graph, start.violations)
        params = validation.checked_params(compiled.graph, start.params, complete=True)
        validation.check_start(
            compiled.graph,
            params,
            carry.objective[0],
            start.inspection,
            lambda p: compiled.inspection(p, compiled.prepare(data)),
            lambda p: compiled.most_favorable(p, compiled.prepare(data)),
        )
        warnings = compiled.warnings(start.params, end)
        num_steps = int(carry.num_steps)
        return EMResult(
            dict(end.carry.reported),
            end.log_likelihood,
            carry.objective[: num_steps + 1],
            num_steps,
            Status(int(carry.status)),
            warnings,
        )

    def _with_progress(
        self, compiled: Compiled, carry: LoopState, constants, violations
    ) -> LoopState:
        from tqdm.auto import tqdm

        with tqdm(total=self.settings.max_steps, desc="EM", unit="step") as bar:
            stop_at = (
                1 if any(int(count) for count, _ in violations) else self.settings.max_steps + 1
            )
            while int(carry.status) < 0 and int(carry.step) < stop_at:
                carry = compiled.advance(carry, constants, min(int(carry.step) + CHUNK, stop_at))
                bar.update(int(carry.step) - bar.n)
                bar.set_postfix_str(
                    f"objective {float(carry.objective[max(int(carry.step) - 1, 0)]):.6g}"
                )
        return carry

    def posterior(self, params, *args, **kwargs) -> dict[str, Array]:
        """Return p(latent | data, params) for every latent: its shape, then one axis over its
        support.

        Under a hard E-step these are indicators of the most probable joint assignment.
        """
        return self._posterior(params, args, kwargs, self.settings.temperature)

    def pairwise_posterior(self, params, *args, **kwargs) -> dict[str, Array]:
        """Return p(latent at t, latent at t + 1 | data, params) for every latent within a `scan`:
        (time − 1, the shape of one step), then two axes over its support, that of the earlier step
        first. It is as large as that, whatever the recursion needs.
        """
        compiled, params, constants = self._at(params, args, kwargs, floor=1e-30)
        return compiled.pairwise_posterior(params, constants, temperature=self.settings.temperature)

    def decode(self, params, *args, **kwargs) -> dict[str, Array]:
        """Return the most probable joint assignment of all latents, each of its site's shape."""
        compiled, _ = self._compiled(args, kwargs)
        modes = self._posterior(params, args, kwargs, 0.0)
        return {
            name: jnp.asarray(compiled.graph.latents[name].support)[jnp.argmax(mode, -1)]
            for name, mode in modes.items()
        }

    def log_likelihood(self, params, *args, **kwargs) -> Float[Array, ""]:
        """Return log p(data | params) in nats, summed over the data, every latent summed out."""
        compiled, params, constants = self._at(params, args, kwargs)
        return compiled.log_likelihood(params, constants)

    def plan(self, *args, **kwargs) -> Plan:
        """Return which latents are summed out and how each parameter is maximized, and why; it
        prints as a table.
        """
        compiled, _ = self._compiled(args, kwargs)
        return plan(compiled.graph, compiled.maximizers, self.settings.temperature)

    def diagnose(self, result, *args, **kwargs) -> Diagnosis:
        """Return certificates of what EM arrived at: whether it is a local maximum, how fast EM
        came, which values of the latents are empty or duplicates.

        `result`: an `EMResult`, or parameters {site: value}. It prints as a table. Errors:
        `ValueError` for an E-step that is not soft.
        """
        compiled, params, constants = self._at(result, args, kwargs)
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
        params = validation.checked_params(compiled.graph, params_of(params), complete=True)
        return compiled, params, constants


def one_blas_thread():
    """Keep the BLAS library behind JAX's Cholesky factors and solves (OpenBLAS, SciPy's) to one
    thread while EM runs.

    Its threads spin for some 50 ms after each call, on the cores that the next E-step needs: in 64
    dimensions a step takes twice as long.
    """
    return threadpool_limits(limits=1, user_api="blas")


def _checked_key(rng_key):
    if is_random_key(rng_key):
        return rng_key
    raise ValueError(
        "The first argument is a random key, the model's own arguments follow: "
        "em.run(jax.random.key(0), ...)."
    )
