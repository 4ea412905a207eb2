"""What emjax makes of a program of others, and what SciPy does without it."""

import warnings
from dataclasses import dataclass

import jax
import numpy as np
from jax.flatten_util import ravel_pytree
from scipy.optimize import approx_fprime, minimize

from emjax import EM
from tests.programs_of_others.case import Case

NUM_STARTS = 8
KEY = jax.random.key(0)


@dataclass(frozen=True)
class Row:
    """A row of the table; all densities in nats, priors included.

    - `log_density`, `by_oracle`: at the case's point, by emjax and by its oracle.
    - `maximum`, `by_scipy`: where EM ends, and the best of SciPy's starts.
    - `findings`: of which kind, of the result.
    """

    source: str
    name: str
    oracle: str
    log_density: float
    by_oracle: float
    maximum: float
    by_scipy: float
    status: str
    num_steps: int
    findings: tuple[str, ...]


def measured(source: str, name: str, case: Case) -> Row:
    """Return a program's row: some seconds of compilation, and SciPy's starts."""
    em = EM(case.program, **case.settings)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log_density = log_density_of(case)
        result = em.run(KEY, *case.args, **case.kwargs)
    by_oracle, by_scipy = maximum_by_scipy(case)
    return Row(
        source=source,
        name=name,
        oracle=case.oracle,
        log_density=log_density,
        by_oracle=by_oracle,
        maximum=float(result.objective[-1]),
        by_scipy=by_scipy,
        status=str(result.status),
        num_steps=int(result.num_steps),
        findings=tuple(sorted({finding.kind for finding in result.findings})),
    )


def log_density_of(case: Case) -> float:
    """Return log p(x, params) in nats by emjax, at the case's point: where EM starts from it."""
    em = EM(case.program, max_steps=1)
    result = em.run(KEY, *case.args, init_params=case.point, **case.kwargs)
    return float(result.objective[0])


def maximum_by_scipy(case: Case) -> tuple[float, float]:
    """Return the oracle's density at the case's point, and its largest by L-BFGS-B, in nats."""
    log_density, (_, unravel) = case.log_density, ravel_pytree(case.drawn(0))
    in_logits = case.settings.get("map") == "unconstrained"

    def loss(flat):
        unconstrained = unravel(flat)
        density = log_density(case.constrained(unconstrained))
        jacobian = case.log_jacobian(unconstrained) if in_logits else 0.0
        return -density - jacobian, density

    value_and_grad = jax.jit(jax.value_and_grad(loss, has_aux=True))

    def finite(flat):
        (value, _), gradient = jax.device_get(value_and_grad(flat))
        # a line search that has gone too far comes back
        if not np.isfinite(value):
            return 1e10, np.zeros_like(flat)
        if not np.isfinite(gradient).all():
            # the oracle's derivative is NaN where an impossible value has probability zero
            gradient = approx_fprime(flat, lambda at: value_and_grad(at)[0][0])
        return value, gradient

    options = {"maxiter": 2000, "maxfun": 4000, "ftol": 1e-14, "gtol": 1e-8}
    ends = []
    for seed in range(NUM_STARTS):
        start = np.asarray(ravel_pytree(case.drawn(seed))[0])
        ends.append(minimize(finite, start, jac=True, method="L-BFGS-B", options=options).fun)
    point = ravel_pytree(case.drawn(case.SEED))[0]
    return float(value_and_grad(point)[0][1]), float(-min(ends))
