"""What EM arrived at: a maximum, a saddle, a ridge or none of them, how fast, and which values of
its latents are of no use.
"""

from __future__ import annotations

from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from emjax.certificates.coordinates import Coordinates, coordinates, entry_names
from emjax.certificates.curvature import (
    STATIONARY,
    check_finite,
    described,
    increases_inward,
    largest_eigenvalues,
    objective_along,
    rows_of_derivative,
    scaled,
    smallest_resolved,
    units,
)
from emjax.certificates.em_map import (
    largest_multiplier,
    m_step_along,
    statistics_along,
)
from emjax.certificates.occupancy import duplicates, empty_values, expected_counts
from emjax.e_step.e_step import e_step
from emjax.e_step.instance import instance_of
from emjax.m_step.objective import expected_log_likelihood
from emjax.run import findings
from emjax.run.annotations import Params
from emjax.run.bound import Bound
from emjax.run.compiled import CompiledProgram
from emjax.run.findings import Finding

# coordinates up to which matrices of second derivatives are formed; beyond, products with them are
# all that is taken
LARGEST_DENSE = 200
NUM_PRODUCTS = 60


class Diagnosis(eqx.Module):
    """Certificates of what EM arrived at. Derivatives are in unconstrained coordinates, of what is
    free: entries on the boundary and parameters that are held stay.

    **Attributes:**

    - `verdict`: "local maximum", "saddle", "ridge", "not stationary", or "degenerate" where a scale
      has collapsed.
    - `reason`: what the verdict rests on, in words.
    - `objective`: log p(x | params) + log p(params) in nats.
    - `gradient_norm`: the largest derivative of the objective, in absolute value, in nats per unit
      of its coordinate.
    - `distance`: how far params are from the maximum, in standard errors: √(gᵀ I⁻¹ g) with I the
      observed information. Where this is no maximum, how far the next EM step goes, in standard
      errors of the complete data.
    - `fisher_residual`: max |∇ log p − ∇Q|, which is zero but for rounding (Fisher's identity): the
      E-step and the M-step are of one and the same likelihood.
    - `rate`: the largest eigenvalue of the EM map's derivative: the part of the distance to the
      maximum that a step leaves (NaN where a maximizer has no derivative). Dempster, Laird & Rubin
      (1977).
    - `eigenvalues`: of the objective's Hessian, ascending; where `is_dense` is false, those that
      Lanczos's method sees, of which the outermost are right.
    - `is_dense`: whether all second derivatives were formed (up to 200 coordinates). Otherwise
      nothing was found that contradicts the verdict.
    - `coordinates`: the names of the coordinates.
    - `counts`: {latent: the expected number of elements of each of its values}.
    - `empty`: {latent: values that explain less than one element}.
    - `duplicates`: {latent: pairs of values that give all that depends on them the same
      distribution}.
    - `on_boundary`: {parameter: which of its entries lie on the boundary of what its constraint
      allows}.
    - `inward`: {parameter: which of these the objective would increase from, were they moved
      inward}: EM never moves a probability of zero.
    """

    verdict: str = eqx.field(static=True)
    reason: str = eqx.field(static=True)
    objective: float
    gradient_norm: float
    distance: float
    fisher_residual: float
    rate: float
    eigenvalues: Float[np.ndarray, "eigenvalue"]
    is_dense: bool
    coordinates: tuple[str, ...] = eqx.field(static=True)
    counts: dict[str, Float[np.ndarray, "value"]]
    empty: dict[str, tuple[int, ...]]
    duplicates: dict[str, tuple[tuple[int, int], ...]]
    on_boundary: dict[str, Bool[np.ndarray, "..."]]
    inward: dict[str, Bool[np.ndarray, "..."]]

    @property
    def is_local_maximum(self) -> bool:
        """Whether the verdict is "local maximum"."""
        return self.verdict == "local maximum"

    def __str__(self) -> str:
        of_what = "standard errors from the maximum" if self.is_local_maximum else "standard errors"
        lines = [
            f"{self.verdict}: {self.reason}",
            f"  objective            {self.objective:.6f} nats",
            f"  gradient             at most {self.gradient_norm:.1e} nats per unit of "
            "a coordinate",
            f"  distance             {self.distance:.1e} {of_what}",
            f"  Fisher's identity    |∇ log p − ∇Q| at most {self.fisher_residual:.1e}",
            f"  rate of convergence  {self.rate:.4f}" + _in_words(self.rate),
        ]
        if len(self.eigenvalues):
            some = "" if self.is_dense else ", of those that Lanczos's method sees"
            lines.append(
                f"  Hessian              eigenvalues from {self.eigenvalues[0]:.3g} to "
                f"{self.eigenvalues[-1]:.3g} ({len(self.coordinates)} coordinates{some})"
            )
        for name, where in self.on_boundary.items():
            if where.any():
                lines.append(f"  on the boundary      {', '.join(_some(_chosen(name, where)))}")
            if self.inward[name].any():
                lines.append(
                    f"    the objective would increase inward from "
                    f"{', '.join(_some(_chosen(name, self.inward[name])))}: unless they are meant, "
                    "start inside"
                )
        for name, own in self.counts.items():
            lines.append(
                f"  {name}: expected counts "
                f"{np.array2string(own, precision=1, threshold=12, suppress_small=True)}"
            )
            if self.empty[name]:
                lines.append(
                    f"    empty (less than one element): "
                    f"{', '.join(_some(map(str, self.empty[name])))}"
                )
            if self.duplicates[name]:
                lines.append(
                    f"    duplicates: "
                    f"{', '.join(_some(f'{k} and {j}' for k, j in self.duplicates[name]))}"
                )
        return "\n".join(lines)


def _in_words(rate: float) -> str:
    return f": each step leaves {100 * rate:.3g} % of the distance" if 0 <= rate < 1 else ""


def _chosen(name: str, where: np.ndarray) -> list[str]:
    return [
        entry
        for entry, chosen in zip(entry_names(name, where.shape), where.ravel(), strict=True)
        if chosen
    ]


def _some(items, most: int = 8) -> list[str]:
    items = list(items)
    return items if len(items) <= most else [*items[:most], f"{len(items) - most} more"]


def diagnosis(bound: Bound, result: Params) -> Diagnosis:
    """Return what EM arrived at in a result, with all that says so.

    Up to 200 coordinates the matrices of second derivatives are formed; beyond, the eigenvalues are
    those of Lanczos's method and power iteration. Errors: `ValueError` for an E-step that is not
    soft (the maximum over the latents has no second derivatives), or an objective or a derivative
    that is not finite.
    """
    params, constants = bound.at(result)
    compiled = bound.compiled
    if bound.compiler.settings.temperature != 1:
        raise ValueError(
            "Certificates are about the likelihood, and a hard or tempered E-step climbs another "
            "objective, the hard one without second derivatives. "
            "Diagnose with the soft E-step: EM(model).diagnose(result, ...)."
        )
    own = coordinates(compiled.graph, compiled.maximizers, params)
    seen = jax.device_get(_all_seen(compiled, own)(params, constants))
    if not np.isfinite(seen["objective"]):
        raise ValueError(
            "The objective is not finite at these parameters: some datum is impossible there, or a "
            "density is infinite. Pass the result of a run that "
            "ended well, or state a floor or a prior."
        )
    is_dense = own.size <= LARGEST_DENSE
    if is_dense:
        found = _dense(own, seen)
    else:
        found = _by_products(compiled, own, params, constants, seen)
    none = {name: np.zeros_like(where) for name, where in own.on_boundary.items()}
    inward = (
        increases_inward(compiled, own, params, constants)
        if any(where.any() for where in own.on_boundary.values())
        else none
    )
    counts = {name: np.asarray(value, float) for name, value in seen["counts"].items()}
    collapsed = compiled.watch.collapsed(jax.device_get(compiled.variances(params, constants)))
    verdict = found.pop("verdict")
    if collapsed:
        verdict = findings.degenerate(collapsed)
    return Diagnosis(
        verdict=verdict.kind,
        reason=str(verdict),
        objective=float(seen["objective"]),
        gradient_norm=_largest(seen["gradient"]),
        is_dense=is_dense,
        coordinates=own.names,
        fisher_residual=_largest(seen["gradient"] - seen["gradient of Q"]),
        counts=counts,
        empty=empty_values(counts),
        duplicates=duplicates(compiled.graph, seen["tables"], seen["statistics"], counts),
        on_boundary=dict(own.on_boundary),
        inward=inward,
        **found,
    )


def _largest(vector) -> float:
    return float(np.max(np.abs(vector), initial=0.0))


def _all_seen(compiled: CompiledProgram, own: Coordinates):
    """Return the compiled function of (params, constants) that the diagnosis reads.

    The gradient along u is ∇₁Q(u; T(u)) (Fisher's identity), so that its derivative, the Hessian,
    and that of EM share the derivative of the E-step, dT.
    """
    graph, key = compiled.graph, ("diagnosis", own.key)

    def seen(params, constants) -> dict:
        arrays, vector = graph.arrays(params, constants), own.flatten(params)
        expected = e_step(graph, arrays)
        slope = jax.grad(
            lambda vector, statistics: expected_log_likelihood(
                graph, own.unflatten(vector, params), constants, statistics
            )
        )
        found = {
            "objective": expected.log_partition,
            "counts": expected_counts(graph, arrays, expected.statistics),
            "tables": instance_of(graph, arrays).tables,
            "statistics": expected.statistics,
            "gradient": jax.grad(objective_along(graph, own, params, constants))(vector),
            "gradient of Q": slope(vector, expected.statistics),
        }
        if own.size > LARGEST_DENSE:
            return found
        m_step = m_step_along(graph, compiled.maximizers, own, params, constants)
        plain, changes = jax.linearize(statistics_along(graph, own, params, constants), vector)

        def along(direction) -> dict:
            both = (direction, changes(direction))
            return {
                "hessian": jax.jvp(slope, (vector, plain), both)[1],
                "derivative of EM": jax.jvp(m_step, (vector, plain), both)[1],
                "hessian of Q": jax.jvp(
                    lambda vector: slope(vector, plain), (vector,), (direction,)
                )[1],
            }

        return found | rows_of_derivative(along, vector.size, vector.dtype)

    return compiled.function(key, lambda: seen)


def _dense(own: Coordinates, seen: Mapping) -> dict:
    """Return the verdict from all second derivatives."""
    gradient, hessian = np.asarray(seen["gradient"], float), np.asarray(seen["hessian"], float)
    check_finite(hessian, gradient, own.names)
    hessian, step = (hessian + hessian.T) / 2, np.asarray(seen["derivative of EM"], float)
    rate = (
        float(np.max(np.abs(np.linalg.eigvals(step)), initial=0.0))
        if np.isfinite(step).all()
        else float("nan")
    )
    # in units of the complete data's standard errors, an eigenvalue is the part of the information
    # that the latents leave
    unit = units(np.diag(seen["hessian of Q"]))
    values, vectors = np.linalg.eigh(scaled(hessian, unit))
    ahead = float(np.linalg.norm(unit * gradient))
    resolved = smallest_resolved(seen["gradient"].dtype)
    top = values[-1] if len(values) else -1.0
    distance = (
        float(np.linalg.norm(vectors.T @ (unit * gradient) / np.sqrt(-values)))
        if top < -resolved
        else ahead
    )
    where = described(unit * vectors[:, -1], own.names) if len(values) else ""
    downward = "every second derivative negative"
    return {
        "verdict": _verdict(top, resolved, distance, where, own, downward),
        "distance": distance,
        "rate": rate,
        "eigenvalues": np.linalg.eigvalsh(hessian),
    }


def _by_products(
    compiled: CompiledProgram, own: Coordinates, params, constants, seen: Mapping
) -> dict:
    """Return the verdict from products with the second derivatives, which are never formed."""
    graph = compiled.graph

    def step(params, constants):
        m_step = m_step_along(graph, compiled.maximizers, own, params, constants)
        statistics = statistics_along(graph, own, params, constants)
        return lambda vector: m_step(vector, statistics(vector))

    def hessian_along(direction, params, constants):
        slope = jax.grad(objective_along(graph, own, params, constants))
        return jax.jvp(slope, (own.flatten(params),), (direction,))[1]

    def step_along(direction, params, constants):
        return jax.jvp(step(params, constants), (own.flatten(params),), (direction,))[1]

    def gain(params, constants):
        objective, vector = objective_along(graph, own, params, constants), own.flatten(params)
        return objective(step(params, constants)(vector)) - objective(vector)

    hessian_along, step_along, gain = (
        compiled.function((name, own.key), lambda function=function: function)
        for name, function in (
            ("Hessian along", hessian_along),
            ("step along", step_along),
            ("gain", gain),
        )
    )
    values, top = largest_eigenvalues(
        lambda v: hessian_along(jnp.asarray(v, seen["gradient"].dtype), params, constants),
        own.size,
        NUM_PRODUCTS,
    )
    rate = largest_multiplier(
        lambda v: step_along(v.astype(seen["gradient"].dtype), params, constants),
        own.size,
        NUM_PRODUCTS,
    )
    # along the slowest direction a step at rate r gains ½ d² (1 − r²) nats, d the distance in
    # standard errors
    distance = float(
        np.sqrt(
            2 * max(float(gain(params, constants)), 0.0) / max(1 - rate**2, np.finfo(float).eps)
        )
    )
    resolved = smallest_resolved(seen["gradient"].dtype) * float(np.abs(values).max())
    where, downward = described(top, own.names), "no direction of increase was found"
    return {
        "verdict": _verdict(values[-1], resolved, distance, where, own, downward),
        "distance": distance,
        "rate": rate,
        "eigenvalues": values,
    }


def _verdict(
    top, resolved: float, distance: float, where: str, own: Coordinates, downward: str
) -> Finding:
    """Return the verdict, and what it rests on.

    `top`: the largest eigenvalue of the Hessian, in the direction `where`; `downward`: what is
    known of a Hessian that has no eigenvalue above zero.
    """
    is_downward = top < -resolved
    if distance > STATIONARY:
        if is_downward:
            return findings.before_maximum(distance)
        return findings.still_moving(distance)
    if top > resolved:
        return findings.saddle(where)
    if not is_downward:
        return findings.ridge(where)
    num_on_boundary = sum(int(boundary.sum()) for boundary in own.on_boundary.values())
    return findings.local_maximum(downward, num_on_boundary)
