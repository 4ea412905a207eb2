"""Grades: one parameter, one latent, everything in closed form.

In a class the grades A, B and C have the probabilities

    p(A) = 1/2,   p(B) = 1/2 − θ,   p(C) = θ,       0 ≤ θ ≤ 1/2        θ = `theta`

(a) All grades are known: N_A, N_B, N_C = `counts`.

      θ ──▶ [grade]     plate "grades": one row for each grade, with its multiplicity

    log p = N_B log(1/2 − θ) + N_C log θ + constant,   hence   θ = N_C / (2 (N_B + N_C))         (1)

There is nothing latent: one M-step from anywhere is the answer.

(b) Only the number of C's is known: N_C = `num_c` of N = `num_total`. The latent is the grade, and
what is seen of it is a function of it, c = 1{grade = C}.

      θ ──▶ (grade) ──▶ [is_c]     plate "students": rows c = 0, 1 with multiplicities N − N_C, N_C

E-step. A student without a C has a B with probability (1/2 − θ) / (1/2 + 1/2 − θ), so the expected
number of B's is

    N_B = (N − N_C) (1/2 − θ) / (1 − θ)                                                          (2)

M-step. As if it had been counted:

    M(θ) = N_C / (2 (N_B + N_C))                                                                 (3)

Rate. Let f = N_C / N. The likelihood θ^N_C (1 − θ)^(N − N_C) is largest at θ̂ = min(f, 1/2). The
derivatives of (2) and (3) are

    dN_B/dθ = −(N − N_C) / (2 (1 − θ)²)
    M'(θ)   = N_C (N − N_C) / (4 (1 − θ)² (N_B + N_C)²)

and at θ̂

    f ≤ 1/2:   N_B + N_C = N/2,   M'(θ̂) = f / (1 − f)
    f ≥ 1/2:   N_B = 0,           M'(θ̂) = (1 − f) / f                                           (4)

Near θ̂ the error shrinks by this factor at each step, the share of the information that is missing:
linear convergence, slower the nearer f is to 1/2, and there sublinear.

Source: after A. Moore (2001), Carnegie Mellon University, tutorial "Clustering with Gaussian
Mixtures" (the grades of a class); rate: Dempster, Laird & Rubin (1977), section 3; the closed form
(4): ours.
"""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.typing import ArrayLike
from jaxtyping import Float, Real
from numpyro.distributions import constraints


def program(counts: Real[ArrayLike, "grade=3"]) -> None:
    """(a): how many A's, B's and C's there are. Nothing is latent.

    Parameters: `theta` () between 0 and 1/2.
    """
    theta = _theta()
    with numpyro.plate("grades", 3), numpyro.handlers.scale(scale=counts):
        numpyro.sample("grade", dist.Categorical(_probabilities(theta)), obs=jnp.arange(3))


def partial_program(num_c: Real[ArrayLike, ""], num_total: Real[ArrayLike, ""]) -> None:
    """(b): `num_c` of `num_total` students have a C; the others have an A or a B.

    Parameters: `theta` () between 0 and 1/2. The latent `grade` is 0 for A, 1 for B, 2 for C.
    """
    theta = _theta()
    multiplicity = jnp.stack([jnp.asarray(num_total - num_c), jnp.asarray(num_c)])
    with numpyro.plate("students", 2), numpyro.handlers.scale(scale=multiplicity):
        grade = numpyro.sample("grade", dist.Categorical(_probabilities(theta)))
        numpyro.sample("is_c", dist.Delta((grade == 2).astype(int)), obs=jnp.arange(2))


def _theta() -> Float[ArrayLike, ""]:
    """Declare θ, at the middle of its interval."""
    return numpyro.param("theta", jnp.array(0.25), constraint=constraints.interval(0.0, 0.5))


def _probabilities(theta: Float[ArrayLike, ""]) -> Float[ArrayLike, "grade"]:
    """Return p(A), p(B), p(C)."""
    return jnp.stack([jnp.full_like(theta, 0.5), 0.5 - theta, theta])


def hand_derived_step(
    params: Mapping[str, ArrayLike], counts: Real[ArrayLike, "grade=3"]
) -> dict[str, np.ndarray]:
    """Return θ after one step, by (1): the maximum, whatever θ was.

    Without any B or C, θ stays where it is.
    """
    _, num_b, num_c = np.asarray(counts, np.float64)
    return {"theta": _maximum(num_b, num_c, params)}


def partial_hand_derived_step(
    params: Mapping[str, ArrayLike], num_c: Real[ArrayLike, ""], num_total: Real[ArrayLike, ""]
) -> dict[str, np.ndarray]:
    """Return θ after one EM step, by (2) and (3).

    Where neither a B nor a C is expected, θ stays where it is.
    """
    theta = np.asarray(params["theta"], np.float64)
    expected_b = (num_total - num_c) * (0.5 - theta) / (1 - theta)  # (2)
    return {"theta": _maximum(expected_b, num_c, params)}


def _maximum(
    num_b: Real[ArrayLike, ""], num_c: Real[ArrayLike, ""], params: Mapping[str, ArrayLike]
) -> np.ndarray:
    """Return (1) or (3)."""
    total = num_b + num_c
    return np.asarray(num_c / (2 * total) if total > 0 else params["theta"], np.float64)


def convergence_rate(num_c: int | float, num_total: int | float) -> float:
    """Return lim |θ_{t+1} − θ̂| / |θ_t − θ̂| of EM on (b), by (4).

    It lies between 0 (one step) and 1 (sublinear).

    Raises ValueError unless 0 ≤ num_c ≤ num_total and num_total > 0.
    """
    if not (0 <= num_c <= num_total and num_total > 0):
        raise ValueError(
            f"num_c={num_c} must lie between 0 and num_total={num_total}, and num_total be "
            "positive."
        )
    return min(num_c, num_total - num_c) / max(num_c, num_total - num_c)
