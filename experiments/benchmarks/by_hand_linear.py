"""Models that are linear in Gaussian latents, by hand: moments of the latents, least squares."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.ops import segment_sum
from jaxtyping import Array, Float

from experiments.benchmarks.by_hand import blocks, runner
from experiments.benchmarks.contestant import Run


def factors_given(params: dict) -> tuple[Array, Array]:
    """Return Cov[f | x] and the matrix that takes x − loc to E[f | x], as (feature, factor)."""
    weighted = params["loadings"] / params["scale"][:, None] ** 2
    information = jnp.eye(weighted.shape[1]) + params["loadings"].T @ weighted
    covariance = jnp.linalg.inv(information)
    return covariance, weighted @ covariance


def least_squares(second: Array, crossed: Array, squares: Array, count: Array) -> dict:
    """Return the parameters at which x is best predicted by g = (f, 1).

    Sums over rows: `second` E[g gᵀ], `crossed` x E[g]ᵀ, `squares` x².
    """
    coefficients = jnp.linalg.solve(second, crossed.T).T
    variance = (squares - (coefficients * crossed).sum(1)) / count
    loadings, loc = coefficients[:, :-1], coefficients[:, -1]
    return {"loc": loc, "loadings": loadings, "scale": jnp.sqrt(variance)}


def gram_step(params: dict, gram: Float[Array, "column column"]) -> dict:
    """Return the parameters of factor analysis after one EM step, from Σ (x, 1)(x, 1)ᵀ."""
    covariance, gain = factors_given(params)
    count, num_factors = gram[-1, -1], gain.shape[1]
    moved = jnp.concatenate([gain, -(params["loc"] @ gain)[None]])
    to_g = jnp.concatenate([moved, jnp.zeros_like(moved[:, :1]).at[-1].set(1)], axis=1)
    crossed = gram @ to_g
    second = to_g.T @ crossed
    second = second.at[:num_factors, :num_factors].add(count * covariance)
    return least_squares(second, crossed[:-1], jnp.diag(gram)[:-1], count)


def factors_from_gram(data: dict, start: dict, sizes: dict) -> Run:
    """Return the run of factor analysis on second moments of the data."""
    points = data.pop("points")
    columns = np.concatenate([points, np.ones_like(points[:, :1])], axis=1)
    return runner(gram_step, start, jnp.asarray(columns.T @ columns))


def rows_step(params: dict, data: dict) -> dict:
    """Return the parameters of factor analysis after one EM step, from blocks of rows.

    `total` and `squares` of the rows are known; a block's rows count `count` times, or once.
    """
    covariance, gain = factors_given(params)
    num_factors = gain.shape[1]

    def add(sums, block):
        x = block["points"]
        f = (x - params["loc"]) @ gain
        counted = f * block["count"][:, None] if "count" in block else f
        return jax.tree.map(jnp.add, sums, (f.T @ counted, x.T @ counted, counted.sum(0))), None

    zero = jnp.zeros_like(covariance), jnp.zeros_like(gain), jnp.zeros_like(gain[0])
    (outer, crossed, f), _ = lax.scan(add, zero, data["blocks"])
    count = data["size"]
    second = jnp.zeros((num_factors + 1, num_factors + 1), f.dtype).at[-1, -1].set(count)
    second = second.at[:-1, :-1].set(outer + count * covariance)
    second = second.at[-1, :-1].set(f).at[:-1, -1].set(f)
    crossed = jnp.concatenate([crossed, data["total"][:, None]], axis=1)
    return least_squares(second, crossed, data["squares"], count)


def factors_by_rows(data: dict, start: dict, sizes: dict) -> Run:
    """Return the run of factor analysis on rows, in blocks that stay in the cache."""
    points, count = data.pop("points"), data.pop("count", None)
    weights = np.ones(len(points), points.dtype) if count is None else count
    width = points.shape[1] + 2 * sizes["num_factors"]
    rows = {"points": points} if count is None else {"points": points, "count": count}
    known = {"total": weights @ points, "squares": weights @ points**2, "size": weights.sum()}
    of_blocks = {name: blocks(values, width) for name, values in rows.items()}
    return runner(rows_step, start, known | {"blocks": of_blocks})


def effects_given(params: dict, second: Array, linear: Array) -> tuple[Array, Array]:
    """Return mean and covariance of each group's effects.

    `second`: Zᵀ Z of each group, `linear`: Zᵀ (y − X β).
    """
    variance = params["scale"] ** 2
    covariance = jnp.linalg.inv(jnp.linalg.inv(params["covariance"]) + second / variance)
    return jnp.einsum("gij,gj->gi", covariance, linear) / variance, covariance


def effect_rows_step(params: dict, data: dict) -> dict:
    """Return the parameters of the mixed model after one EM step, from its rows."""
    x, z, y, group = (data[name] for name in ("x", "z", "y", "group"))
    num_groups = data["second"].shape[0]
    residual = y - x @ params["fixed"]
    linear = segment_sum(z * residual[:, None], group, num_groups, indices_are_sorted=True)
    mean, covariance = effects_given(params, data["second"], linear)
    left = y - (z * mean[group]).sum(1)
    fixed = jnp.linalg.solve(data["gram"], x.T @ left)
    unknown = (covariance * data["second"]).sum()
    variance = (((left - x @ fixed) ** 2).sum() + unknown) / len(y)
    return after(fixed, mean, covariance, variance)


def effect_groups_step(params: dict, data: dict) -> dict:
    """Return the parameters of the mixed model after one EM step, from sums over each group.

    With W = (Z, X, y), `sums` are Zᵀ (X, y) and `moments` (X, y)ᵀ (X, y).
    """
    sums, moments = data["sums"], data["moments"]
    linear = sums[..., -1] - sums[..., :-1] @ params["fixed"]
    mean, covariance = effects_given(params, data["second"], linear)
    explained = jnp.einsum("gi,gij->j", mean, sums)  # (X, y)ᵀ Z b̄
    fixed = jnp.linalg.solve(moments[:-1, :-1], moments[:-1, -1] - explained[:-1])
    direction = jnp.append(-fixed, 1.0)
    squares = direction @ moments @ direction - 2 * direction @ explained
    outer = covariance + mean[:, :, None] * mean[:, None]
    variance = (squares + (outer * data["second"]).sum()) / data["size"]
    return after(fixed, mean, covariance, variance)


def after(fixed: Array, mean: Array, covariance: Array, variance: Array) -> dict:
    """Return the parameters of the mixed model that maximize the expected log-likelihood."""
    second = (covariance.sum(0) + mean.T @ mean) / len(mean)
    return {"fixed": fixed, "covariance": second, "scale": jnp.sqrt(variance)}


def effects(by_rows: bool) -> Callable[[dict, dict, dict], Run]:
    """Return the set-up of the mixed model on rows, or on what sums over each group leave."""

    def setup(data: dict, start: dict, sizes: dict) -> Run:
        names = "response", "fixed_covariates", "random_covariates", "group"
        y, x, z, group = (jnp.asarray(data.pop(name)) for name in names)

        def summed(rows):
            return segment_sum(rows, group, sizes["num_groups"], indices_are_sorted=True)

        second = summed(z[:, :, None] * z[:, None])
        if by_rows:
            rows = {"x": x, "y": y, "z": z, "group": group}
            return runner(effect_rows_step, start, rows | {"second": second, "gram": x.T @ x})
        columns = jnp.concatenate([x, y[:, None]], axis=1)
        sums = summed(z[:, :, None] * columns[:, None])
        known = {"second": second, "sums": sums, "moments": columns.T @ columns}
        return runner(effect_groups_step, start, known | {"size": float(len(y))})

    return setup


SETUPS = {
    "hand-written JAX": {
        "factor_analysis": factors_from_gram,
        "counted_factor_analysis": factors_by_rows,
        "linear_mixed_model": effects(by_rows=False),
    },
    "hand-written JAX, by rows": {
        "linear_mixed_model": effects(by_rows=True),
    },
}
