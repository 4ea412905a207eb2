"""A mixture of regressions, which no page of `emjax.models` is.

      w ──▶ (z_n) ──▶ [y_n] ◀── a_k, b_k, σ_k
              └─────────┴── plate "points", x_n given

    z_n ~ Categorical(w)                       latent `line`
    y_n ~ Normal(a_{z_n} + b_{z_n} x_n, σ_{z_n})

with a = `intercept`, b = `slope`, σ = `scale`. Source: Quandt & Ramsey (1978), Journal of the
American Statistical Association 73.
"""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax.typing import ArrayLike
from jaxtyping import Float
from numpyro.distributions import constraints


def lines(x: Float[ArrayLike, "point"], y: Float[ArrayLike, "point"], num_lines: int) -> None:
    """Points near several lines.

    The weights start equal, the scales at the spread of y; lines start level, each through a point
    drawn at random.
    """
    spread = jnp.std(y)
    weights = numpyro.param(
        "weights", jnp.full(num_lines, 1 / num_lines), constraint=constraints.simplex
    )
    intercept = numpyro.param(
        "intercept",
        lambda rng_key: jax.random.choice(rng_key, jnp.asarray(y), (num_lines,), replace=False),
    )
    slope = numpyro.param("slope", jnp.zeros(num_lines))
    scale = numpyro.param(
        "scale", lambda rng_key: jnp.full(num_lines, spread), constraint=constraints.positive
    )
    with numpyro.plate("points", len(x)):
        line = numpyro.sample("line", dist.Categorical(weights))
        numpyro.sample("y", dist.Normal(intercept[line] + slope[line] * x, scale[line]), obs=y)
