"""A program of somebody else's on data, its density by an oracle, and where its maximum is.

The oracles are NumPyro's own enumeration by funsor, and the joint table (`tests/oracles`). They
differ where a latent is masked: to funsor its density is 1 at every value, so that it counts
`size of its support` times; to us it is as if it were not there. And where a latent is scaled:
`scale` of a latent is copies of its rows to both.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from numpyro.distributions import biject_to, constraints

from tests.oracles.brute_force import complete_log_likelihood, joint_table


@dataclass(frozen=True, eq=False)
class Case:
    """A program on data.

    - `oracle`: "funsor"; "ELBO", which is NumPyro's TraceEnum_ELBO, where latents are scaled;
      "joint table" where there are few latents and NumPyro does not enumerate them.
    - `num_masked`: how many latents are masked, by the size of their support.
    - `settings`: of `EM`.
    """

    program: Callable
    args: tuple = ()
    kwargs: dict = field(default_factory=dict)
    oracle: str = "funsor"
    num_masked: dict[int, int] = field(default_factory=dict)
    settings: dict = field(default_factory=dict)

    SEED: ClassVar[int] = 1  # of the point

    def sites(self) -> dict[str, tuple]:
        """Return each parameter's bijection and shape: a `param`, or an unobserved continuous site.

        A bijection may hold arrays of the trace that this is called in.
        """
        seeded = handlers.seed(self.program, jax.random.key(0))
        found = {}
        for name, site in handlers.trace(seeded).get_trace(*self.args, **self.kwargs).items():
            if site["type"] == "param":
                constraint = site["kwargs"].get("constraint", constraints.real)
            elif site["type"] != "sample" or site["is_observed"] or site["fn"].support.is_discrete:
                continue
            else:
                constraint = site["fn"].support
            found[name] = biject_to(constraint), np.shape(site["value"])
        return found

    @cached_property
    def unconstrained_shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each parameter in unconstrained coordinates."""
        found = {}

        def traced():
            for name, (transform, shape) in self.sites().items():
                found[name] = transform.inverse_shape(shape)

        jax.eval_shape(traced)
        return found

    @cached_property
    def priors(self) -> set[str]:
        """The names of the parameters that are `sample` sites."""
        found = set()

        def traced():
            seeded = handlers.seed(self.program, jax.random.key(0))
            trace = handlers.trace(seeded).get_trace(*self.args, **self.kwargs)
            found.update(name for name in self.sites() if trace[name]["type"] == "sample")

        jax.eval_shape(traced)
        return found

    def drawn(self, seed: int, spread: float = 0.7) -> dict:
        """Return unconstrained parameters, normal about zero."""
        rng = np.random.default_rng(seed)
        shapes = self.unconstrained_shapes.items()
        return {name: spread * rng.normal(size=shape) for name, shape in shapes}

    def constrained(self, unconstrained: dict) -> dict:
        """Return parameters by name, each on its constraint."""
        sites = self.sites().items()
        return {name: transform(unconstrained[name]) for name, (transform, _) in sites}

    @cached_property
    def point(self) -> dict:
        """Parameters that are neither a start nor an optimum."""
        return jax.jit(lambda: self.constrained(self.drawn(self.SEED)))()

    @cached_property
    def log_density(self) -> Callable:
        """The function log p(x, params) in nats, latents summed out; differentiable.

        Ask for it outside of `jit`: the joint table is made first.
        """
        if self.oracle == "joint table":
            table = joint_table(self.program, self.point, *self.args, **self.kwargs)
            return partial(self._by_joint_table, table)
        return {"funsor": self._by_funsor, "ELBO": self._by_elbo}[self.oracle]

    def log_prior(self, params: dict):
        """Return the log-density of the `sample` sites among the parameters, in nats."""
        seeded = handlers.seed(handlers.substitute(self.program, params), jax.random.key(0))
        trace = handlers.trace(seeded).get_trace(*self.args, **self.kwargs)
        return sum(jnp.sum(trace[name]["fn"].log_prob(params[name])) for name in self.priors)

    def log_jacobian(self, unconstrained: dict):
        """Return log |dθ/du| in nats of the `sample` sites, which their mode in u includes."""
        total = 0.0
        for name, (transform, _) in self.sites().items():
            if name in self.priors:
                u = unconstrained[name]
                total += jnp.sum(transform.log_abs_det_jacobian(u, transform(u)))
        return total

    def _by_funsor(self, params):
        from numpyro.contrib.funsor import config_enumerate, enum, log_density

        enumerated = enum(config_enumerate(self.program), first_available_dim=-4)
        total = log_density(enumerated, self.args, self.kwargs, params)[0]
        counted = sum(count * np.log(size) for size, count in self.num_masked.items())
        return total - counted

    def _by_elbo(self, params):
        from numpyro.contrib.funsor import config_enumerate
        from numpyro.infer import TraceEnum_ELBO

        def guide(*args, **kwargs):
            pass

        enumerated = config_enumerate(self.program)
        key = jax.random.key(0)
        return -TraceEnum_ELBO().loss(key, params, enumerated, guide, *self.args, **self.kwargs)

    def _by_joint_table(self, table, params):
        values = {
            name: jnp.asarray(latent.support)[table.index[name]]
            for name, latent in table.latents.items()
        }

        def at(assignment):
            return complete_log_likelihood(
                self.program, params, assignment, *self.args, **self.kwargs
            )

        log_likelihood, log_prior = jax.vmap(at)(values)
        return jax.scipy.special.logsumexp(log_likelihood) + log_prior[0]
