"""A program whose discrete latents are summed out, for whatever takes a NumPyro program."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import jax
import jax.core
import numpyro
import numpyro.distributions as dist
from numpyro import primitives

from emjax.e_step.differentiable import differentiable_log_z
from emjax.em import EM
from emjax.graph.terms import Term
from emjax.program.marginal import Marginal, Roles, roles_of
from emjax.run.annotations import Names, Program
from emjax.run.bound import Bound
from emjax.run.compilation import is_traced
from emjax.run.pure import PureProgram

# the one factor, unless the program has a site of that name
FACTOR = "marginal_log_likelihood"


def marginalized(
    model: Program, *, chains: str = "sequential", integrate: Names = ()
) -> Callable[..., None]:
    """Return a NumPyro program of the same arguments in which every discrete latent is summed out.

    Its statements are the parameters of `model`: `numpyro.param` sites, and continuous `sample`
    sites with the priors that they state. What is observed is one `numpyro.factor`,

        log Σ_z p(x, z | θ),

    computed as the E-step is, whose gradient is one E-step, and which has derivatives of every
    order. So it is for NUTS, SVI with any guide, Laplace, `log_density`; EM's estimate is a start:

    ```python
    from numpyro.infer import NUTS, init_to_value

    fit = EM(coins).run(jax.random.key(0), heads)
    kernel = NUTS(emjax.marginalized(coins), init_strategy=init_to_value(values=fit.params))
    ```

    - A `numpyro.param` has no prior. SVI maximizes over it, NUTS leaves it at its start: give it a
      prior by `numpyro.handlers.lift(emjax.marginalized(model), {"rate": dist.Gamma(2, 1)})`.
    - A continuous site whose prior reads a latent has its density in the factor, and an
      `ImproperUniform` over its support in place of the prior. So has one within a `scan`, of all
      steps. One that reads a latent, and that no observation depends on (`x_unobserved` of an
      `obs_mask`), is left out.
    - Deterministic sites that no latent takes part in stay, so that `Predictive` has them, and
      those within a `scan` are left out. The program returns None.
    - Without any observation (`model(None)`), it is `model` itself, whose latents are drawn:
      `Predictive(emjax.marginalized(model), samples)(key, None)` are new data.
    - Handlers that say what is observed, or how much it counts, go inside:
      `marginalized(condition(model, data))`; those of parameters (`reparam`, `lift`) on either
      side.

    - `chains`: how latents within a `scan` are summed out; see `EM`.
    - `integrate`: the names of Normal and MultivariateNormal sites that are integrated out; see
      `EM`.

    Errors: as of `EM`.
    """
    return _SummedOut(EM(model, chains=chains, integrate=integrate))


class _SummedOut:
    """A program whose latents are summed out, under its own name: an object, which is pickled."""

    def __init__(self, em: EM):
        self._em = em
        self._kept: WeakKeyDictionary[PureProgram, _Marginalized] = WeakKeyDictionary()
        functools.update_wrapper(self, em.model, updated=())

    def __reduce__(self) -> tuple:
        # what is traced is made again
        return _SummedOut, (self._em,)

    def __call__(self, *args: Any, **kwargs: Any) -> None:
        # the handlers around are for the parameters; what is traced here is `model` by itself
        with _no_handlers():
            bound = self._em.on(*args, **kwargs)
            pure = bound.compiled.pure
            if pure not in self._kept:
                self._kept[pure] = _Marginalized.of(bound)
        self._kept[pure].run(bound)


@contextmanager
def _no_handlers() -> Iterator[None]:
    stack = list(primitives._PYRO_STACK)
    primitives._PYRO_STACK.clear()
    try:
        yield
    finally:
        primitives._PYRO_STACK[:] = stack


@dataclass(frozen=True, eq=False)
class _Marginalized:
    """What is known of a program for arguments of given shapes.

    - `roles`: None where nothing is observed.
    - `log_z`: of its parameters and of what depends on data alone.
    """

    roles: Roles | None
    log_z: Callable

    @staticmethod
    def of(bound: Bound) -> _Marginalized:
        """Return it for the arguments of a bound program."""
        graph, model = bound.compiled.graph, bound.compiler.model
        if not any(map(_is_observation, graph.terms)):
            return _Marginalized(None, _nothing)
        args, kwargs = bound.arguments
        concrete, integrate = bound.looks_at_values, bound.compiler.settings.integrate
        roles = roles_of(model, graph.parameters, graph.unused, args, kwargs, concrete, integrate)

        def is_in_factor(term: Term) -> bool:
            return not term.site.is_prior or term.site.name in roles.joined

        of_arrays = differentiable_log_z(graph, is_in_factor)

        def log_z(params, constants):
            return of_arrays(graph.arrays(params, constants))

        return _Marginalized(roles, bound.compiled.function(FACTOR, lambda: log_z))

    def run(self, bound: Bound) -> None:
        """Run the program in front of the handlers around."""
        model, (args, kwargs) = bound.compiler.model, bound.arguments
        if self.roles is None:
            model(*args, **kwargs)
            return
        pure = bound.compiled.pure

        def starts():
            key = numpyro.prng_key()
            return pure.initial_values(jax.random.key(0) if key is None else key, bound.data)

        integrate = bound.compiler.settings.integrate
        marginal = Marginal(model, pure.graph.parameters, self.roles, starts, integrate)
        marginal(*args, **kwargs)
        numpyro.factor(_free_name(self.roles), self.log_z(marginal.values, _constants(bound)))


def _nothing(params: Any, constants: Any) -> float:
    return 0.0


def _is_observation(term: Term) -> bool:
    # a `numpyro.factor` of the program observes nothing
    return term.site.is_observed and not issubclass(term.site.distribution, dist.Unit)


def _constants(bound: Bound) -> list[Any]:
    """Return what depends on the data alone, which are checked; known, where the data are."""
    if is_traced(bound.data):
        return bound.constants()
    # within a function that JAX traces they would be computed again at every step
    with jax.core.eval_context():
        return bound.constants()


def _free_name(roles: Roles) -> str:
    name = FACTOR
    while name in roles.names:
        name += "_"
    return name
