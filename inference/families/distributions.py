"""Distributions that NumPyro lacks and latent-variable programs want."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax import Array, lax
from jax.typing import ArrayLike
from numpyro.distributions import constraints


def feasible(distribution: dist.Distribution, value: ArrayLike, counted: ArrayLike = True) -> Array:
    """Return the value where it is in the support and `counted`, elsewhere one that is.

    The log-density at what does not count is thrown away, but if it is NaN or infinite, its
    gradient is not: 0 · ∞ is NaN.
    """
    inside = jnp.asarray(distribution.support(value))
    inside = inside.reshape(inside.shape + (1,) * distribution.support.event_dim)
    return jnp.where(inside & counted, value, distribution.support.feasible_like(value))


class Select(dist.Distribution):
    """A distribution that an index chooses among components: x | index ~ components[index].

    `index`: integers from 0, of any shape; `components`: distributions with the same event shape
    whose batch shapes broadcast with the index. Unlike a mixture, the index is a site of the
    program, so that other sites may share it; EM sums it out where it is latent, and maximizes each
    component's parameters in closed form where they have one.

    Errors: `ValueError` if components differ in event shape or if there is none.

    ```python
    good = numpyro.sample("good", dist.Bernoulli(pi))
    components = [dist.Uniform(0.0, 1.0), dist.Normal(mu, sigma)]
    numpyro.sample("score", Select(good, components), obs=score)
    ```
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    pytree_data_fields: ClassVar[tuple[str, ...]] = ("index", "components")
    index: Array | np.ndarray | int
    components: tuple[dist.Distribution, ...]

    def __init__(
        self,
        index: Array | np.ndarray | int,
        components: Sequence[dist.Distribution],
        *,
        validate_args: bool | None = None,
    ):
        components = tuple(components)
        if not components:
            raise ValueError("Select needs at least one component.")
        events = {component.event_shape for component in components}
        if len(events) > 1:
            raise ValueError(
                f"Select: components differ in event shape: {sorted(events)}. Align them with "
                "`.to_event(...)`."
            )
        self.index, self.components = index, components
        batch = lax.broadcast_shapes(
            jnp.shape(index), *(component.batch_shape for component in components)
        )
        super().__init__(batch, components[0].event_shape, validate_args=validate_args)

    @property
    def support(self) -> constraints.Constraint:
        supports: list[Any] = [component.support for component in self.components]
        first, *others = supports
        if all(type(other) is type(first) and other == first for other in others):
            return first
        # what one component excludes another may allow: `log_prob` is −∞ where it matters
        if not self.event_shape:
            return constraints.real
        return constraints.independent(constraints.real, len(self.event_shape))

    @property
    def mean(self) -> Array:
        """The mean of the component that each element's index chooses."""
        means = [component.expand(self.batch_shape).mean for component in self.components]
        return self._by_index(means, self.batch_shape, len(self.event_shape))

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Return draws: (*sample_shape, *batch_shape, *event_shape)."""
        keys = jax.random.split(key, len(self.components))
        draws = []
        for component, component_key in zip(self.components, keys, strict=True):
            draws.append(component.expand(self.batch_shape).sample(component_key, sample_shape))
        # components of integers and of reals may stand side by side
        dtype = jnp.result_type(*draws)
        draws = [draw.astype(dtype) for draw in draws]
        return self._by_index(draws, sample_shape + self.batch_shape, len(self.event_shape))

    def log_prob(self, value: ArrayLike) -> Array:
        """Return log p(value | index): the log-density of the component that the index chooses.

        It is -inf outside that component's support, and NaN if the index chooses none.
        """
        terms = [self._component_log_prob(component, value) for component in self.components]
        shape = lax.broadcast_shapes(*map(jnp.shape, terms), jnp.shape(self.index))
        density = self._by_index(terms, shape, 0)
        return jnp.where((self.index >= 0) & (self.index < len(terms)), density, jnp.nan)

    @staticmethod
    def _component_log_prob(component: dist.Distribution, value):
        density = component.log_prob(feasible(component, value))
        return jnp.where(component.support(value), density, -jnp.inf)

    def _by_index(self, values, shape, event_dim):
        """Return the value of the component that each element's index chooses."""
        index = jnp.broadcast_to(self.index, shape)
        index = index.reshape(index.shape + (1,) * event_dim)
        result = values[0]
        for number, value in enumerate(values[1:], start=1):
            result = jnp.where(index == number, value, result)
        return result


class PartiallyObserved(dist.Distribution):
    """A multivariate normal of which some coordinates are observed.

    log p(x) is the marginal log-density of these.

    `base`: a `MultivariateNormal`, or one that is expanded; `observed`: booleans (…, D) whose
    leading axes broadcast with its batch shape. What x holds where it is not observed is not read,
    and may be NaN. EM integrates the missing coordinates out exactly, and the parameters keep their
    closed forms (full-information maximum likelihood): right where what is missing depends on
    nothing but what is observed (missing at random). A row of which nothing is observed adds
    nothing to the likelihood. `sample` draws all coordinates.

    Errors: `ValueError` for another distribution, or for an `observed` that is not boolean or has
    another number of coordinates.

    ```python
    def program(x):                                              # (sample, 2), NaN where missing
        loc = numpyro.param("loc", jnp.zeros(2))
        matrices = constraints.positive_definite
        covariance = numpyro.param("covariance", jnp.eye(2), constraint=matrices)
        with numpyro.plate("samples", len(x)):
            complete = dist.MultivariateNormal(loc, covariance_matrix=covariance)
            numpyro.sample("x", PartiallyObserved(complete, observed=~jnp.isnan(x)), obs=x)

    x = jnp.array([[1.0, 2.0], [jnp.nan, 1.0], [0.0, jnp.nan], [3.0, 3.5]])
    EM(program).run(jax.random.key(0), x).params["covariance"]
    ```

    Source: Little & Rubin (2019), Statistical Analysis with Missing Data, section 11.2.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {
        **dist.MultivariateNormal.arg_constraints,
        "observed": constraints.independent(constraints.boolean, 1),
    }
    pytree_data_fields: ClassVar[tuple[str, ...]] = ("base", "observed")
    base: Any  # a MultivariateNormal, of whose arguments NumPyro's annotations know nothing
    observed: Array | np.ndarray

    def __init__(
        self,
        base: dist.Distribution,
        observed: Array | np.ndarray,
        *,
        validate_args: bool | None = None,
    ):
        # a plate, or `expand`, wraps the normal: its arguments are those of what is inside
        inner = base.base_dist if isinstance(base, dist.ExpandedDistribution) else base
        if not isinstance(inner, dist.MultivariateNormal):
            raise ValueError(
                f"PartiallyObserved takes a MultivariateNormal, not {type(inner).__name__}. Where "
                "coordinates are independent, mask them: "
                "dist.Normal(loc, scale).mask(observed).to_event(1)."
            )
        if jnp.result_type(observed) != jnp.bool_ or jnp.shape(observed)[-1:] != inner.event_shape:
            raise ValueError(
                f"PartiallyObserved: `observed` must be booleans, one for each of "
                f"{inner.event_shape[0]} coordinates; it is {jnp.result_type(observed)} "
                f"of shape {jnp.shape(observed)}. Pass observed=~jnp.isnan(x)."
            )
        self.base, self.observed = inner, observed
        batch = lax.broadcast_shapes(base.batch_shape, jnp.shape(observed)[:-1])
        super().__init__(batch, inner.event_shape, validate_args=validate_args)

    @property
    def loc(self) -> Array:
        return self.base.loc

    @property
    def covariance_matrix(self) -> Array:
        return self.base.covariance_matrix

    @property
    def precision_matrix(self) -> Array:
        return self.base.precision_matrix

    @property
    def scale_tril(self) -> Array:
        return self.base.scale_tril

    def get_args(self) -> dict[str, ArrayLike]:
        """Return the arguments of the normal, and which coordinates are observed."""
        return {**self.base.get_args(), "observed": self.observed}

    @property
    def support(self) -> constraints.Constraint:
        return _RealWhereObserved(self.observed)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Return draws of all coordinates: (*sample_shape, *batch_shape, D)."""
        return self.base.expand(self.batch_shape).sample(key, sample_shape)

    def completed(self, start: ArrayLike, value: ArrayLike) -> Array:
        """Return what start + Σ_·o Σ_oo⁻¹ (value − start)_o is, o the observed coordinates.

        They are those of `value`. From `loc`, the others are their means given these; from a draw
        of all coordinates, a draw of them given these. Source: Hoffman & Ribak (1991).
        """
        both = self.observed[..., :, None] & self.observed[..., None, :]
        cholesky = self.base.scale_tril
        covariance = jnp.matmul(cholesky, cholesky.mT, precision="highest")
        among_observed = jnp.where(both, covariance, jnp.eye(cholesky.shape[-1]))
        residual = jnp.where(self.observed, jnp.where(self.observed, value, 0) - start, 0)
        weights = jnp.linalg.solve(among_observed, residual[..., None])
        shift = jnp.matmul(covariance, weights, precision="highest")[..., 0]
        return jnp.where(self.observed, value, start + shift)

    def log_prob(self, value: ArrayLike) -> Array:
        """Return the log-density of the observed coordinates in nats.

        It is that of N(0, Σ) with the identity, and a residual of zero, where one is missing.
        """
        both = self.observed[..., :, None] & self.observed[..., None, :]
        cholesky = self.base.scale_tril
        # the covariance of some coordinates is a part of Σ; its Cholesky factor is no part of L
        covariance = jnp.matmul(cholesky, cholesky.mT, precision="highest")
        covariance = jnp.where(both, covariance, jnp.eye(cholesky.shape[-1]))
        residual = jnp.where(self.observed, jnp.where(self.observed, value, 0) - self.base.loc, 0)
        density = dist.MultivariateNormal(covariance_matrix=covariance).log_prob(residual)
        # each missing coordinate counted as a standard normal at zero
        return density + 0.5 * jnp.log(2 * jnp.pi) * (~self.observed).sum(-1)


class _RealWhereObserved(constraints.Constraint):
    """Real numbers where a coordinate is observed, anything elsewhere."""

    event_dim = 1

    def __init__(self, observed):
        self.observed = observed

    def __call__(self, x):
        return (jnp.isfinite(x) | ~self.observed).all(-1)

    def feasible_like(self, prototype):
        return jnp.zeros_like(prototype)

    def tree_flatten(self):
        return (self.observed,), (("observed",), {})
