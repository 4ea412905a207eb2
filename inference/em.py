"""What a user calls: a program's EM, its runs, and its posterior."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Array, Float

from emjax.answers.draws import sample_posterior
from emjax.certificates.diagnose import diagnose
from emjax.certificates.diagnosis import Diagnosis
from emjax.fit import Fit
from emjax.plan import Plan, plan
from emjax.program.array_like import snapshot, with_article
from emjax.run.annotations import (
    Acceleration,
    Every,
    InitParams,
    Names,
    OwnMaximizers,
    Params,
    Path,
    Program,
    Real,
    StepSize,
    Strategy,
    Whole,
)
from emjax.run.bound import Bound
from emjax.run.compiler import Compiler
from emjax.run.described import program_in_words, short
from emjax.run.in_batches import InBatches
from emjax.run.incremental import Incremental, OnlineState
from emjax.run.precision import in_double, in_precision
from emjax.run.result import params_of
from emjax.run.settings import AUTO, Settings
from emjax.run.sharded import OnDevices, Sharded
from emjax.run.state import EMState
from emjax.run.streamed import PartByPart, Streamed
from emjax.run.validation import check_are_params
from emjax.sources.part import Parts
from emjax.sources.shard import Shards, shards_of


class EM:
    """Exact expectation-maximization for a NumPyro program with latents.

    Every unobserved discrete site of finite support is summed out, the normal ones of `integrate`
    are integrated out; `numpyro.param` sites are estimated by maximum likelihood, other unobserved
    continuous `sample` sites by MAP under the prior that they state.

    **Arguments:**

    - `model`: the NumPyro program.
    - `e_step`: "soft", "hard" (each latent takes its most probable value: k-means, Viterbi
      training), or a temperature between: the posterior is raised to the power 1 / temperature.
    - `m_step`: {parameter: an optax optimizer, or a function (value, objective) → new value} in
      place of the maximizer that `plan` shows; a proposal that decreases the objective is shortened
      or not taken.
    - `fixed`: the names of parameters that stay at their start.
    - `integrate`: the names of unobserved Normal or MultivariateNormal sites that are latents, and
      integrated out exactly: factors, random effects, states. What reads them is Normal or
      MultivariateNormal, and its location affine in them: `mean + loadings @ factor`,
      `x @ slopes[group]`, the state before, with coefficients of parameters, data and discrete
      latents.
    - `tol`: EM has converged when a step increases the objective by at most tol · (1 +
      |objective|); never less than what the precision resolves.
    - `stop`: "gain" compares with tol what the last step gained (the last four, if it leaps),
      "aitken" what the last gains say is still to gain. "never": a run takes `max_steps` steps,
      unless the objective decreases or is no number, and has not converged.
    - `max_steps`: the largest number of EM steps (a polish and its confirmation take two more).
    - `acceleration`: leaps ahead from EM's own steps, taken only where the objective does not
      decrease. Every E-step counts as a step. "auto": where EM crawls, SQUAREM leaps, and where
      leaps fail, EM goes on by itself: in a soft E-step in double precision on data in memory,
      after 64 steps of EM's own, if some twenty seconds of them are still to come; not where
      several starts are run to their end, and never with an `m_step`, a `polish` or
      `stop="aitken"`. None: never. "squarem", "anderson", or an `Accelerator` of your own: from
      the first step.
      With Gaussian latents, of which EM is slow, "anderson" takes the fewest steps as a rule; most
      of all where a variance goes to zero.
    - `polish`: "newton" or "lbfgs": where EM ends, climb the exact objective by that method, and
      let EM's own rule confirm the end.
    - `num_restarts`: how many starts `run` tries, compiled once; the one with the largest final
      objective of those that are not degenerate is returned, and `result.restarts` says where each
      came to.
    - `short_steps`: of several starts, how many steps each takes before all but the best stop
      (emEM: Biernacki, Celeux & Govaert, 2003). None: all go on to their end, so that
      `result.restarts.optima()` lists every optimum.
    - `init`: where `run` starts. None: as the program states, `numpyro.sample("z", …,
      infer={"start": "k-means"})`, where no parameter is fixed or given; else at its own values:
      `numpyro.param` sites at theirs, `sample` sites drawn from their priors. Of several starts,
      these are the first; the others are drawn, where latents choose locations, from clusters of
      the data, else by "subsets" unless the program draws its own. "program": the program's own
      values, whatever it states. A NumPyro strategy (`numpyro.infer.init_to_…`): for `sample`
      sites. Or by name, for all: "responsibilities", "subsets" (a few elements for each value) and
      "short-runs" (of up to 16 runs from clusters or subsets the best goes on), for every program;
      where latents choose locations, `Normal(loc[z], …)`, "k-means", "k-means++", "data" (random
      points), "splitting": clusters of standardized data and one M-step, the same from the same key
      under shifts and units.
    - `annealing`: temperatures of EM steps that lead from there to where EM proper starts, such as
      np.geomspace(2, 1, 50) (deterministic annealing). At high temperatures all components come to
      one place, and part again only below a critical one: start above it with time to part, or not
      far above it.
    - `chains`: how latents within a `scan` are summed out. "sequential": step by step.
      "checkpointed": likewise, in stretches of √T steps of which only the ends are kept, so that
      memory hardly grows with T; slower by a third to a half. "parallel": in log₂ T rounds, T · K³
      operations in place of T · K², for an accelerator.
    - `map`: in which coordinates the estimate of `sample` sites is a mode. "constrained": of the
      density that the program states. "unconstrained": of that density in the coordinates of
      NumPyro's bijections (log-odds of a probability, logarithm of a rate), which takes α where the
      other takes α − 1: a Beta or Dirichlet prior with a concentration below 1 has no finite mode
      otherwise (MacKay, 1998). The objective then includes log |dθ/du| of each such site.
    - `precision`: where JAX computes in single precision, its default, "double" lets a run end in
      double: small work is done in it, large work goes on in it when single precision tells gains
      from none no more. Parameters are single again then, the objective stays double. "single": all
      of it is, and a run may stop `AT_RESOLUTION`. None: "double" on a CPU for data of up to 2²⁷
      numbers, else "single".
    - `batch_size`: how many rows (elements of the outermost plate) a minibatch has. A run then
      begins with online EM: passes over the data in a random order, with an M-step after each batch
      at running averages of expected statistics, until a pass gains no more than their noise; EM on
      all data goes on from there, and says where the objective is (`result.online`). Worth it where
      rows are many: some 1,000 × the parameters.
    - `step_size`: γ of these averages, a number or an optax schedule (of the number of batches);
      None: such that the average remembers 40 rows for each parameter.
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
        model: Program,
        *,
        e_step: str | Real = "soft",
        m_step: OwnMaximizers = None,
        fixed: Names = (),
        integrate: Names = (),
        tol: Real = 1e-9,
        stop: str = "gain",
        max_steps: Whole = 1000,
        acceleration: Acceleration = AUTO,
        polish: str | None = None,
        num_restarts: Whole = 1,
        short_steps: Whole | None = 200,
        init: Strategy = None,
        annealing: Any = (),
        chains: str = "sequential",
        map: str = "constrained",
        precision: str | None = None,
        progress_bar: bool = False,
        batch_size: Whole | None = None,
        step_size: StepSize = None,
    ):
        if not callable(model):
            raise ValueError(
                f"EM takes the program itself, a function, not {_in_words(model)}: EM(program), "
                "not EM(program(x)). Data follow when something is asked: em.run(key, x)."
            )
        self.model: Program = model
        self.settings: Settings = Settings(
            e_step=e_step,
            m_step=m_step,
            fixed=fixed,
            integrate=integrate,
            tol=tol,
            stop=stop,
            max_steps=max_steps,
            acceleration=acceleration,
            polish=polish,
            num_restarts=num_restarts,
            short_steps=short_steps,
            init=init,
            annealing=annealing,
            chains=chains,
            map=map,
            precision=precision,
            progress_bar=progress_bar,
            batch_size=batch_size,
            step_size=step_size,
        )
        self._compiler = Compiler(model, self.settings)
        self._incremental = Incremental(self._compiler)

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled: the program and the settings; what is compiled is made again."""
        return {"compiler": self._compiler}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        self._compiler = state["compiler"]
        self.model, self.settings = self._compiler.model, self._compiler.settings
        self._incremental = Incremental(self._compiler)

    def __repr__(self) -> str:
        words = [program_in_words(self.model)]
        for name, parameter in inspect.signature(EM).parameters.items():
            if name == "model":
                continue
            value = getattr(self.settings, name)
            # of arrays, such as temperatures, there is no single truth value
            if not np.array_equal(value, parameter.default):
                words.append(f"{name}={short(value)}")
        return f"EM({', '.join(words)})"

    def on(self, *args: Any, **kwargs: Any) -> Any:
        """Return the program bound to data, of which all that follows is asked.

        A `Bound`, or a `Streamed` where the first argument is a `Stream`.

        `em.posterior(params, x)` is `em.on(x).posterior(params)`: for several questions of the same
        data, `on` saves writing them again. Data of the same shapes share what is compiled.
        """
        make_result = partial(Fit.of, self)
        if args and isinstance(args[0], Parts):
            of_parts = Sharded if isinstance(args[0], Shards) else Streamed
            return of_parts(self._compiler, args[0], args[1:], kwargs, make_result)
        args, kwargs = in_precision((args, kwargs))
        kind = Bound
        if self.settings.batch_size is not None:
            kind = InBatches
        elif shards_of(args, kwargs) is not None:
            kind = OnDevices
        return kind(self._compiler, args, kwargs, make_result)

    def init(self, rng_key: Any, *args: Any, **kwargs: Any) -> EMState:
        """Return the state at the program's own start.

        Pure, so that it can be jitted, and vmapped over keys.
        """
        return self.on(*args, **kwargs).init(rng_key)

    def update(self, state: EMState, *args: Any, **kwargs: Any) -> tuple[EMState, Float[Array, ""]]:
        """Return the state after one EM step, and the objective in nats at the parameters
        entering it; pure.
        """
        return self.on(*args, **kwargs).update(state)

    def run(
        self,
        rng_key: Any,
        *args: Any,
        init_params: InitParams = None,
        checkpoint: Path | None = None,
        every: Every = None,
        **kwargs: Any,
    ) -> Fit:
        """Run EM to convergence and return a `Fit`: what was found, which can be asked.

        `args`, `kwargs`: the model's own. `init_params`: {site: constrained start} for some or all
        parameters; the others start from the program's values.

        `checkpoint`: a file that keeps where the run stands. Whatever ends it, `kill -9` and a
        failing machine included, the same call goes on from there, to the same bits; once the run
        has ended, it returns the result at once. `every`: so many steps, or a
        `datetime.timedelta`; a minute if nothing else is said. Delete the file to start anew.

        Ctrl-C ends a run that takes longer than some seconds, or is shown or kept, where it stands:
        the result so far is returned, its status is INTERRUPTED. A second Ctrl-C raises.

        Errors: `ValueError` for data or a start that the program excludes (for all starts, of
        several), and for a checkpoint of another program, data, settings, key or versions, or a
        damaged one; `OSError` where no checkpoint can be written.
        """
        # the fit keeps its data, and whoever adds a column to a frame asks it of these
        now = {name: snapshot(value) for name, value in kwargs.items()}
        bound = self.on(*map(snapshot, args), **now)
        found = bound.run(rng_key, init_params=init_params, checkpoint=checkpoint, every=every)
        assert isinstance(found, Fit)
        return found

    def init_online(
        self, rng_key: Any, *args: Any, init_params: InitParams = None, **kwargs: Any
    ) -> OnlineState:
        """Return the state of online EM before its first batch, which is given for its start.

        That is where `run` on this batch starts. Then, for this batch and each that follows:
        `state = em.update_online(state, *batch)`; `state.params` is the estimate. Errors:
        `ValueError` for data that cannot be, and a program that is no sum over rows.
        """
        return self._incremental.init(rng_key, args, kwargs, init_params)

    def update_online(
        self, state: OnlineState, *args: Any, step_size: StepSize = None, **kwargs: Any
    ) -> OnlineState:
        """Return the state of online EM after one more batch: E-step on it, M-step at averages.

        `step_size`: γ, how much this batch counts in the average of expected statistics, a number
        or an optax schedule (of the number of batches). None: B / N, of B rows among N so far, so
        that all count alike, and never less than B / M: the average then remembers M rows, 40 for
        each parameter. The estimate at which batches are looked at moves once there are so many
        rows, or 1 / γ batches; until then `params` is that of one EM step from the start on all
        rows so far. Batches of any sizes: smaller ones share what is compiled for larger. Errors:
        `ValueError` for data that cannot be, and where the likelihood is not finite.
        """
        return self._incremental.update(state, args, kwargs, step_size)

    def posterior(self, params: Params, *args: Any, **kwargs: Any) -> dict[str, Any] | PartByPart:
        """Return p(latent | data, params) for every latent: its shape, then its support.

        Under a hard E-step these are indicators of the most probable joint assignment. A continuous
        site that no observation depends on, such as the `x_unobserved` of an `obs_mask`, is
        imputed by its mean, E[x_unobserved | data, params], of its shape.
        """
        return self.on(*args, **kwargs).posterior(params)

    def pairwise_posterior(self, params: Params, *args: Any, **kwargs: Any) -> dict[str, Array]:
        """Return p(latent at t, latent at t + 1 | data, params) for every latent within a `scan`.

        Its shape is (time − 1, the shape of one step), then two axes over its support, that of the
        earlier step first. It is as large as that, whatever the recursion needs.
        """
        return self.on(*args, **kwargs).pairwise_posterior(params)

    def decode(self, params: Params, *args: Any, **kwargs: Any) -> dict[str, Array] | PartByPart:
        """Return the most probable joint assignment of all latents, each of its site's shape.

        Discrete latents are at their mode with the Gaussian ones integrated out, and these at their
        mean given that mode.
        """
        return self.on(*args, **kwargs).decode(params)

    def sample_posterior(
        self, rng_key: Any, params: Params, *args: Any, num_samples: Whole = 1, **kwargs: Any
    ) -> dict[str, Array]:
        """Return joint draws of all latents from p(latents | data, params).

        {latent: (draw, *its shape)}, its values. They are exact, whatever the E-step is: trees are
        drawn from the top down, chains backward in time. From one key, draw i is the same for every
        `num_samples`. Errors: `ValueError` for what is no random key.
        """
        return sample_posterior(self.on(*args, **kwargs), params, rng_key, num_samples)

    def log_likelihood(
        self, params: Params, *args: Any, **kwargs: Any
    ) -> Float[Array, ""] | Float[np.ndarray, ""]:
        """Return log p(data | params) in nats, summed over the data, every latent summed out."""
        return self.on(*args, **kwargs).log_likelihood(params)

    def plan(self, *args: Any, **kwargs: Any) -> Plan:
        """Return which latents are summed out, how each parameter is maximized, and why.

        It prints as a table.
        """
        bound = self.on(*args, **kwargs)
        return plan(bound.of_first if isinstance(bound, Streamed) else bound)

    @in_double
    def diagnose(self, result: Params, *args: Any, **kwargs: Any) -> Diagnosis:
        """Return certificates of what EM arrived at.

        Is it a local maximum, how fast did EM come, which values of the latents are empty or
        duplicates? It prints as a table. `result`: an `EMResult`, or parameters {site: value}.
        Errors: `ValueError` for an E-step that is not soft.
        """
        return diagnose(asked_of(self, result, args, kwargs), result)


def asked_of(em: Any, params: Any, args: tuple, kwargs: Mapping[str, Any]) -> Bound:
    """Return a program bound to data, of which something is asked at an estimate.

    Errors: `ValueError` for what is no `EM`, and what are no parameters.
    """
    bound = bound_to(em, args, kwargs)
    check_are_params(params_of(params))
    return bound


def bound_to(em: Any, args: tuple, kwargs: Mapping[str, Any]) -> Bound:
    """Return a program bound to data. Errors: `ValueError` for what is no `EM`."""
    if not isinstance(em, EM):
        raise ValueError(
            f"The first argument is an EM, and not {_in_words(em)}: em = emjax.EM(program), then "
            "em, result and the program's own arguments."
        )
    return em.on(*args, **kwargs)


def _in_words(model: Any) -> str:
    if model is None:
        return "None, which is what a program returns"
    if isinstance(model, str):
        return repr(model)
    return with_article(type(model).__name__)
