"""The joint density of a program that is linear and Gaussian given its discrete latents: the oracle
of what integrates Gaussian latents.

For every joint assignment z of the discrete latents, log p(x, z, f | params) is a quadratic
function of all the coordinates f of all the Gaussian latents. The program runs as it runs in
simulation, NumPyro's `log_prob` is summed over its sites, and the quadratic function is read off at
f = 0: its value c, its gradient h and its Hessian −J, by differences, which are exact of such a
function. Then

    log p(x, z)  = c + ½ hᵀ J⁻¹ h − ½ log |J / 2π|
    f | x, z     ~ Normal(J⁻¹ h, J⁻¹)

with one dense matrix for everything. Nothing of emjax is imported. What the words mean here is what
they mean in `brute_force.py`; a masked element of a Gaussian latent is Normal(0, I), so that it
integrates to one, as if it were not there.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import handlers
from numpyro.distributions import ExpandedDistribution, Independent, MaskedDistribution

from tests.oracles.brute_force import (
    Latent,
    Steps,
    first_of_support,
    joint_assignments,
    latent_log_prob,
    latent_sites,
    marginals,
    trace_of,
)
from tests.oracles.by_numpy import evaluated


@dataclass(frozen=True)
class GaussianJoint:
    """log p(x, z, f | params) as a normal density in f for each joint assignment z.

    - `latents`, `index`: the discrete latents, and their values in each assignment, as in
      `JointTable`.
    - `shapes`: the shape of each Gaussian latent, in program order, in which they follow each other
      among the coordinates.
    - `log_weight`: log p(x, z | params) of each assignment, in nats.
    - `mean`, `covariance`: of f given x and z, (assignment, coordinate[, coordinate]).
    - `log_prior`: the log density of continuous sites that are parameters.
    """

    latents: dict[str, Latent]
    index: dict[str, np.ndarray]
    shapes: dict[str, tuple[int, ...]]
    log_weight: np.ndarray
    mean: np.ndarray
    covariance: np.ndarray
    log_prior: float

    @cached_property
    def log_likelihood(self) -> float:
        """log p(x | params), in nats."""
        return float(np.logaddexp.reduce(self.log_weight))

    @property
    def objective(self) -> float:
        """log p(x | params) + log p(params), in nats."""
        return self.log_likelihood + self.log_prior

    @cached_property
    def probability(self) -> np.ndarray:
        """p(z | x, params) of each joint assignment."""
        return np.exp(self.log_weight - self.log_likelihood)

    @property
    def posterior(self) -> dict[str, np.ndarray]:
        """p(z_site = k | x, params) for each discrete element: (*shape, support size)."""
        return marginals(self.latents, self.index, self.probability)

    def moments(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """E[f | x] of a Gaussian latent, in its shape, and Cov[f | x] of all its coordinates."""
        mean, covariance = self.moments_under(name, self.probability)
        return mean.reshape(self.shapes[name]), covariance

    def moments_under(self, name: str, probability: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The mean and the covariance of all coordinates of a Gaussian latent, under a law of z."""
        sizes = [int(np.prod(shape)) for shape in self.shapes.values()]
        place = list(self.shapes).index(name)
        own = slice(sum(sizes[:place]), sum(sizes[: place + 1]))
        means = self.mean[:, own]
        mean = probability @ means
        within = np.tensordot(probability, self.covariance[:, own, own], 1)
        between = np.einsum("z,zi,zj->ij", probability, means - mean, means - mean)
        return mean, within + between

    def element_moments(
        self, name: str, is_vector: bool, labels: list[tuple[str, tuple[np.ndarray, ...]]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """The moments of each element given each value of its labels.

        `labels`: names of discrete latents, each with the index, of every axis of its elements,
        that an element of `name` reads. The mean is (*elements, *values, coordinates if a vector),
        the covariance (…, coordinates twice); NaN given what is impossible.
        """
        shape = self.shapes[name]
        elements, event = (shape[:-1], shape[-1:]) if is_vector else (shape, ())
        values = tuple(len(self.latents[label].support) for label, _ in labels)
        mean = np.full((*elements, *values, *event), np.nan)
        covariance = np.full((*elements, *values, *event, *event), np.nan)
        size = event[0] if event else 1
        for element in np.ndindex(*elements):
            flat = int(np.ravel_multi_index(element, elements)) if elements else 0
            own = slice(flat * size, (flat + 1) * size)
            for value in np.ndindex(*values):
                weight = self.probability.copy()
                for (label, index), chosen in zip(labels, value, strict=True):
                    at = tuple(np.asarray(axis)[element] for axis in index)
                    weight *= self.index[label][(slice(None), *at)] == chosen
                if weight.sum() > 0:
                    first, second = self.moments_under(name, weight / weight.sum())
                    mean[(*element, *value)] = first[own].reshape(event)
                    covariance[(*element, *value)] = second[own, own].reshape((*event, *event))
        return mean, covariance


def gaussian_joint(
    model: Callable, integrate: Collection[str], params: dict, *args, **kwargs
) -> GaussianJoint:
    """Return log p(x, z, f | params), where f are the latents of `integrate` and z all others.

    `params` holds the constrained value of each `numpyro.param` and each other continuous site.
    Errors: `ValueError` for a latent that is scaled, and for a density that is not quadratic in f.
    """
    if not jax.config.jax_enable_x64:
        raise ValueError("the oracle needs float64: jax.config.update('jax_enable_x64', True)")
    shapes = _shapes(model, integrate, params, *args, **kwargs)
    zeros = {name: jnp.zeros(shape) for name, shape in shapes.items()}
    latents = latent_sites(model, {**params, **zeros}, *args, **kwargs)
    index = joint_assignments(latents)
    values = {name: latent.support[index[name]] for name, latent in latents.items()}
    size = sum(int(np.prod(shape)) for shape in shapes.values())
    points = _points(size)

    def density(assignment, flat):
        gaussians, start = {}, 0
        for name, shape in shapes.items():
            stop = start + int(np.prod(shape))
            gaussians[name], start = flat[start:stop].reshape(shape), stop
        return complete_log_density(model, params, assignment, gaussians, *args, **kwargs)

    # every assignment at every point, in one call
    num_assignments = len(next(iter(values.values()))) if values else 1
    everything = {name: np.repeat(value, len(points), axis=0) for name, value in values.items()}
    height, log_prior = evaluated(
        jax.vmap(density), everything, np.tile(points, (num_assignments, 1))
    )
    constant, gradient, hessian = _quadratic(height.reshape(num_assignments, -1), points)
    covariance = np.linalg.inv(-hessian)
    mean = np.einsum("zij,zj->zi", covariance, gradient)
    log_det = np.linalg.slogdet(-hessian / (2 * np.pi))[1]
    log_weight = constant + 0.5 * (mean * gradient).sum(axis=-1) - 0.5 * log_det
    return GaussianJoint(latents, index, shapes, log_weight, mean, covariance, float(log_prior[0]))


STEP = 16.0
"""How far apart the points are. What rounding does to the constant is divided by its square."""


def _points(size: int) -> np.ndarray:
    """Return 0, ± each coordinate, the sum of each pair, and one point elsewhere."""
    unit = STEP * np.eye(size)
    first, second = np.triu_indices(size, 1)
    elsewhere = np.random.default_rng(0).normal(size=size)
    return np.concatenate(
        [np.zeros((1, size)), unit, -unit, unit[first] + unit[second], elsewhere[None]]
    )


def _quadratic(height: np.ndarray, points: np.ndarray) -> tuple:
    """Return the value, gradient and Hessian at 0 of a quadratic function, from its values."""
    size = points.shape[1]
    zero, ahead, behind = height[:, :1], height[:, 1 : size + 1], height[:, size + 1 : 2 * size + 1]
    gradient = (ahead - behind) / (2 * STEP)
    first, second = np.triu_indices(size, 1)
    hessian = np.zeros((len(height), size, size))
    mixed = height[:, 2 * size + 1 : -1] - ahead[:, first] - ahead[:, second] + zero
    hessian[:, first, second] = hessian[:, second, first] = mixed / STEP**2
    hessian[:, np.arange(size), np.arange(size)] = (ahead + behind - 2 * zero) / STEP**2
    there = points[-1]
    expected = zero[:, 0] + gradient @ there
    expected += 0.5 * np.einsum("i,zij,j->z", there, hessian, there)
    if not np.allclose(height[:, -1], expected, rtol=1e-9, atol=1e-9):
        raise ValueError("the density is not quadratic in the Gaussian latents")
    return zero[:, 0], gradient, hessian


def complete_log_density(model, params, discrete, gaussians, *args, **kwargs) -> tuple:
    """Return log p(x, z, f | params) and log p(params), in nats."""
    likelihood, prior = jnp.zeros(()), jnp.zeros(())
    values = {**params, **discrete, **gaussians}
    for name, site in trace_of(model, values, *args, **kwargs).items():
        if site["type"] != "sample":
            continue
        scale = 1.0 if site["scale"] is None else site["scale"]
        if name in discrete:
            likelihood += jnp.sum(latent_log_prob(site["fn"], site["value"]))
        elif name in gaussians:
            likelihood += jnp.sum(gaussian_log_prob(site["fn"], site["value"]))
        elif site["is_observed"]:
            likelihood += jnp.sum(scale * site["fn"].log_prob(site["value"]))
        else:
            prior += jnp.sum(scale * site["fn"].log_prob(site["value"]))
    return likelihood, prior


def gaussian_log_prob(law, value):
    """Return log p(value) of each batch element, a masked one Normal(0, I)."""
    if isinstance(law, ExpandedDistribution):
        return gaussian_log_prob(law.base_dist, value)
    if isinstance(law, Independent):
        inner = gaussian_log_prob(law.base_dist, value)
        return jnp.sum(inner, axis=tuple(range(-law.reinterpreted_batch_ndims, 0)))
    if isinstance(law, MaskedDistribution):
        unit = -0.5 * (value**2 + jnp.log(2 * jnp.pi))
        unit = unit.sum(axis=tuple(range(-len(law.event_shape), 0)))
        return jnp.where(law._mask, gaussian_log_prob(law.base_dist, value), unit)
    if isinstance(law, Steps):
        steps = [gaussian_log_prob(step, value[t]) for t, step in enumerate(law.laws)]
        return jnp.stack(steps)
    return law.log_prob(value)


def _shapes(model, integrate, params, *args, **kwargs) -> dict[str, tuple[int, ...]]:
    """Return the shape of each Gaussian latent, in program order."""
    shapes, scales = {}, {}

    def all_shapes():
        first = handlers.substitute(model, substitute_fn=first_of_support)
        for name, site in trace_of(first, params, *args, **kwargs).items():
            if name in integrate:
                shapes[name] = jnp.shape(site["value"])
                scales[name] = 1.0 if site["scale"] is None else site["scale"]
        return scales

    for name, scale in evaluated(all_shapes).items():
        if np.any(np.asarray(scale) != 1):
            raise ValueError(
                f"latent site {name!r} is scaled: its copies differ, so repeat the rows instead"
            )
    return shapes
