"""Which points of a cloud are together: pure geometry.

Those nearest to seeds, which are drawn at random or far from one another; k-means; or the cloud is
split.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

# a bound on Lloyd's iterations, which ties that rounding breaks might keep going
LLOYD_STEPS = 100


class Scheme(NamedTuple):
    """How points are clustered; numbers, which may be traced, so that all are one compiled program.

    - `power`: that of `seeds`.
    - `candidates`: of so many clusterings from other seeds the tightest is taken.
    - `lloyd_steps`: at most so many iterations lead from the seeds.
    """

    power: ArrayLike
    candidates: ArrayLike
    lloyd_steps: ArrayLike


RANDOM = Scheme(0, 1, 0)
FAR_APART = Scheme(1, 1, 0)
LLOYD = Scheme(1, 1, LLOYD_STEPS)
# One of five k-means++ seedings of iris leads elsewhere; of eight, the best one's spread is found.
TIGHTEST = Scheme(1, 8, LLOYD_STEPS)


def clusters(
    rng_key: Array,
    points: Float[Array, "sample feature"],
    weights: Float[Array, "sample"],
    num: int,
    scheme: Scheme,
) -> Int[Array, "sample"]:
    """Return the cluster of each point: whose seed, after Lloyd's iterations mean, is nearest.

    The tightest of several has the least Σ w ‖x − m‖². Source: Lloyd (1982); Arthur & Vassilvitskii
    (2007).
    """

    def candidate(number, best):
        key = jax.random.fold_in(rng_key, number)
        means = points[seeds(key, points, weights, num, scheme.power)]
        labels = _nearest(points, means, num)
        labels, means = _refitted(points, weights, labels, means, num, scheme.lloyd_steps)
        spread = (weights * ((points - means[labels]) ** 2).sum(-1)).sum()
        is_tighter = spread < best[1]
        return jnp.where(is_tighter, labels, best[0]), jnp.minimum(spread, best[1])

    none = jnp.zeros(len(points), jnp.int32), jnp.asarray(jnp.inf, points.dtype)
    return jax.lax.fori_loop(0, scheme.candidates, candidate, none)[0]


def seeds(
    rng_key: Array,
    points: Float[Array, "sample feature"],
    weights: Float[Array, "sample"],
    num: int,
    power: ArrayLike,
) -> Int[Array, "cluster"]:
    """Return the numbers of `num` distinct points drawn one after another.

    Each is drawn in proportion to weight × (squared distance to the nearest one before it)^power:
    at power 1 by k-means++, at 0 at random. A draw of proportions w alone where every point of
    positive weight is drawn already. Source: Arthur & Vassilvitskii (2007), section 2.2; Yellott
    (1977).
    """
    # all at once, by rows: those of data that are padded are the same
    noise = jax.random.gumbel(rng_key, (len(points), num), points.dtype)

    def step(nearest, noise):
        # before the first one, all points are as far
        distance = jnp.where(jnp.isinf(nearest), 1, nearest)
        mass = weights * jnp.where(distance > 0, distance**power, 0)
        mass = jnp.where((mass > 0).any(), mass, weights)
        # the largest of log w + Gumbel noise is a draw in proportion to w
        number = jnp.argmax(_log(mass) + noise)
        return jnp.minimum(nearest, ((points - points[number]) ** 2).sum(-1)), number

    nowhere = jnp.full(len(points), jnp.inf, points.dtype)
    return jax.lax.scan(step, nowhere, noise.T)[1]


def _log(mass):
    return jnp.where(mass > 0, jnp.log(jnp.where(mass > 0, mass, 1)), -jnp.inf)


def split(
    points: Float[Array, "sample feature"], weights: Float[Array, "sample"], num: int
) -> Int[Array, "sample"]:
    """Return the cluster of each point after splitting one cluster into two, then three, … `num`.

    The cluster with the largest leading eigenvalue of its scatter Σ w (x − m)(x − m)ᵀ is split at
    its mean m along that direction, and all are refitted by Lloyd's iterations. Deterministic.
    Takes `num`² eigendecompositions. Source: Linde, Buzo & Gray (1980), section III, with one split
    at a time; Lloyd (1982).
    """
    labels = jnp.zeros(len(points), jnp.int32)

    def step(number, labels):
        values, directions = jnp.linalg.eigh(_scatters(points, weights, labels, num))
        # clusters that are still to come lie below every eigenvalue, which is at least 0
        worst = jnp.argmax(jnp.where(jnp.arange(num) < number, values[:, -1], -1))
        direction = directions[worst, :, -1]
        # an eigenvector's sign is arbitrary: fixed, so that the split is the same on every machine
        direction = direction * jnp.sign(direction[jnp.argmax(jnp.abs(direction))])
        means = _means(points, weights, labels, jnp.zeros((num, points.shape[1]), points.dtype))
        is_beyond = (labels == worst) & ((points - means[worst]) @ direction > 0)
        labels = jnp.where(is_beyond, number, labels)
        means = means.at[number].set(means[worst])
        return _refitted(points, weights, labels, means, number + 1, LLOYD_STEPS)[0]

    return jax.lax.fori_loop(1, num, step, labels)


def _members(weights, labels, num: int):
    """Return (sample, cluster): the weight of each point in its cluster, 0 in the others."""
    return jnp.where(labels[:, None] == jnp.arange(num), weights[:, None], 0)


def _means(points, weights, labels, otherwise):
    """Return the mean of each cluster, `otherwise` where it is empty."""
    members = _members(weights, labels, len(otherwise))
    counts = members.sum(0)[:, None]
    return jnp.where(counts > 0, members.T @ points / jnp.where(counts > 0, counts, 1), otherwise)


def _scatters(points, weights, labels, num: int):
    """Return Σ w (x − m)(x − m)ᵀ of each cluster."""
    nowhere = jnp.zeros((num, points.shape[1]), points.dtype)
    deviations = points - _means(points, weights, labels, nowhere)[labels]

    def scatter(number):
        return (deviations * jnp.where(labels == number, weights, 0)[:, None]).T @ deviations

    # in turn: side by side they would take memory for cluster × sample × feature
    return jax.lax.map(scatter, jnp.arange(num))


def _nearest(points, means, count):
    """Return which of the first `count` means is nearest to each point."""
    # without ‖x‖², which no choice among means depends on
    distances = (means**2).sum(-1) - 2 * points @ means.T
    exists = jnp.arange(len(means)) < count
    return jnp.argmin(jnp.where(exists, distances, jnp.inf), axis=-1).astype(jnp.int32)


def _refitted(points, weights, labels, means, count, max_steps):
    """Return labels and means after Lloyd's iterations with the first `count` clusters.

    They go on until no label changes, or for `max_steps`. `means`: of clusters that are empty.
    """

    def step(carry):
        labels, means, number, _ = carry
        means = _means(points, weights, labels, means)
        after = _nearest(points, means, count)
        return after, means, number + 1, (after != labels).any()

    def goes_on(carry):
        _, _, number, has_changed = carry
        return has_changed & (number < max_steps)

    labels, means, *_ = jax.lax.while_loop(goes_on, step, (labels, means, 0, True))
    return labels, means
