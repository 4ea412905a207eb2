"""Standard errors: from second derivatives of the log-likelihood, robust ones from single scores,
or from refits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm
from jaxtyping import Array, Bool, Float

from emjax.certificates.coordinates import Coordinates, coordinates, entry_names
from emjax.certificates.curvature import (
    gradient_and_hessian,
    inverse_information,
    objective_along,
)
from emjax.e_step.instance import instance_of
from emjax.em import EM
from emjax.program.handlers.plates import Units
from emjax.refits.bootstrap import Refits, redrawn, resampled
from emjax.refits.relabeling import Symmetry, aligned, symmetries
from emjax.refits.scores import check_independent, independent_units, scores_of
from emjax.run import findings
from emjax.run.annotations import Params, Real
from emjax.run.bound import Bound, checked_key
from emjax.run.compiled import CompiledProgram
from emjax.run.findings import Finding
from emjax.run.loop import has_failed
from emjax.run.result import EMResult

METHODS = ("information", "sandwich", "bootstrap", "parametric bootstrap")
LARGEST_INFORMATION = 3000
MOST_ROWS = 60


class StandardErrors(eqx.Module):
    """How precisely data determine the parameters.

    **Attributes:**

    - `params`: the estimate.
    - `standard_error`: {site: the standard error of each entry}; NaN for what has none: entries on
      the boundary, parameters that are held.
    - `covariance`: of the unconstrained coordinates, in the order of `coordinates`.
    - `coordinates`: their names: loc[0], log scale[1], log weights[0]/weights[2].
    - `on_boundary`: {site: whether each entry lies on the boundary of what its constraint allows}.
      The other entries' standard errors are those on the face that is left: the entries on the
      boundary are taken as known.
    - `limits`: {site: (low, high)}, between which single entries lie.
    - `method`: how they were found; `what`: the same in words, with all that went wrong.
    - `distance`: how far params are from the maximum, in standard errors: √(gᵀ I⁻¹ g), of refits
      NaN.
    - `draws`: {site: (draw, …)}: the refits of a bootstrap, with the labels of the estimate; those
      that failed are left out.
    - `num_failed`, `num_unconverged`: how many refits ended where the objective is not finite or
      decreased (left out), or at max_steps (kept).
    - `aligned`: the latents whose labels were aligned; `not_aligned`: those whose values no
      exchange of whole rows of parameters exchanges (the program treats them unequally): their
      labels are as each refit left them, which started at `params`.
    """

    params: dict[str, Array]
    standard_error: dict[str, Float[np.ndarray, "..."]]
    covariance: Float[np.ndarray, "coordinate coordinate"]
    coordinates: tuple[str, ...] = eqx.field(static=True)
    on_boundary: dict[str, Bool[np.ndarray, "..."]]
    limits: dict[str, tuple[np.ndarray, np.ndarray]]
    method: str = eqx.field(static=True)
    what: str = eqx.field(static=True)
    distance: float = float("nan")
    draws: dict[str, Float[np.ndarray, "draw ..."]] | None = None
    num_failed: int = 0
    num_unconverged: int = 0
    aligned: tuple[str, ...] = eqx.field(static=True, default=())
    not_aligned: tuple[str, ...] = eqx.field(static=True, default=())
    held: tuple[str, ...] = eqx.field(static=True, default=())

    def interval(self, level: Real = 0.95) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        """Return {site: (low, high)}, each of the site's shape; NaN where there is no standard
        error.

        From second derivatives: estimate ± z standard errors on the scale on which the entry has no
        bounds (logarithm, log-odds), mapped back, so that it stays within them; of an entry of a
        matrix, on its own scale. From refits: quantiles of the draws. Errors: `ValueError` for a
        level that is not between 0 and 1.
        """
        if not 0 < level < 1:
            raise ValueError(f"level must be between 0 and 1, such as 0.95, not {level!r}.")
        if self.draws is not None:
            known = {name: ~np.isnan(error) for name, error in self.standard_error.items()}
            ends = {
                name: np.quantile(value, [(1 - level) / 2, (1 + level) / 2], axis=0)
                for name, value in self.draws.items()
            }
            return {
                name: (np.where(known[name], low, np.nan), np.where(known[name], high, np.nan))
                for name, (low, high) in ends.items()
            }
        z = float(norm.ppf((1 + level) / 2))
        return {
            name: interval_within(np.asarray(self.params[name]), error, *self.limits[name], z)
            for name, error in self.standard_error.items()
        }

    def __str__(self) -> str:
        rows, intervals = [], self.interval()
        for name, error in self.standard_error.items():
            value, boundary, (low, high) = (
                np.asarray(self.params[name]),
                self.on_boundary[name],
                intervals[name],
            )
            for entry, *numbers, is_boundary in zip(
                entry_names(name, value.shape),
                *(np.ravel(a) for a in (value, error, low, high, boundary)),
                strict=True,
            ):
                rows.append(
                    (
                        entry,
                        *(f"{n:.5g}" for n in numbers),
                        "on the boundary"
                        if is_boundary
                        else "held"
                        if name in self.held
                        else "never moved"
                        if np.isnan(numbers[1])
                        else "",
                    )
                )
        shown = [
            ("parameter", "estimate", "standard error", "95 % from", "to", ""),
            *rows[:MOST_ROWS],
        ]
        widths = [max(len(row[i]) for row in shown) for i in range(5)]
        lines = [
            self.what,
            *(
                f"  {row[0]:<{widths[0]}}  "
                + "  ".join(f"{row[i]:>{widths[i]}}" for i in range(1, 5))
                + f"  {row[5]}"
                for row in shown
            ),
        ]
        lines = [line.rstrip() for line in lines]
        return "\n".join(
            lines + ([f"  and {len(rows) - MOST_ROWS} more"] if len(rows) > MOST_ROWS else [])
        )


def interval_within(value, error, low, high, z: float):
    """Return the ends of value ± z standard errors, taken on the scale g that has no bounds and
    mapped back: g = log, or log-odds; g' is the delta method's factor.
    """
    low, high, inside = (
        np.broadcast_to(low, value.shape),
        np.broadcast_to(high, value.shape),
        ~np.isnan(error),
    )
    ends = []
    for sign in (-1, 1):
        end = value + sign * z * error
        below, above = (
            np.where(inside & np.isfinite(low), value - low, 1),
            np.where(inside & np.isfinite(high), high - value, 1),
        )
        with np.errstate(over="ignore", invalid="ignore"):
            from_low, from_high = (
                low + below * np.exp(sign * z * error / below),
                high - above * np.exp(-sign * z * error / above),
            )
            odds = below / above * np.exp(sign * z * error * (1 / below + 1 / above))
            between = low + (high - low) * odds / (1 + odds)
        end = np.where(
            np.isfinite(low),
            np.where(np.isfinite(high), between, from_low),
            np.where(np.isfinite(high), from_high, end),
        )
        ends.append(np.where(inside, end, np.nan))
    return tuple(ends)


def standard_errors(
    em: EM,
    params: Params,
    *args: Any,
    method: str = "information",
    plate: str | None = None,
    rows: Mapping[str, Any] | None = None,
    num_draws: int = 200,
    rng_key: Any = None,
    **kwargs: Any,
) -> StandardErrors:
    """Return standard errors of an estimate; they print as a table.

    `params`: the estimate, or the result of a run; `args`, `kwargs`: the model's own. `method`:

    - "information": √diag of I⁻¹, where I = −∇² log p(x | θ) is the observed information, by exact
      second derivatives with every latent summed out. Where the program states priors, of log p(x |
      θ) + log p(θ): the standard deviations of Laplace's approximation of the posterior. Source:
      Efron & Hinkley (1978).
    - "sandwich": I⁻¹ (Σ_n s_n s_nᵀ) I⁻¹ with s_n the scores of the elements of a plate, which are
      right for data from outside the model. Source: White (1982).
    - "bootstrap": the standard deviation over refits to the elements of a plate, drawn with
      replacement. Source: Efron (1979).
    - "parametric bootstrap": over refits to data that the program draws at `params`. What it takes
      as arguments other than observations stays as it is.

    Derivatives are in unconstrained coordinates, the standard errors of the constrained entries
    follow by the delta method. Refits start at `params`, are compiled together, and their labels
    are brought to those of the estimate. `plate`: whose elements are independent (the only
    outermost one, if not given); `rows`: {another plate: which element of `plate` each of its
    elements belongs to}, for long-form data: `plate="items", rows={"labels": item}`. `num_draws`,
    `rng_key`: for a bootstrap.

    Errors: `ValueError` for params that are no maximum (a direction of increase, or one that is not
    determined, is named), too far from one, or on which nothing depends smoothly (hard E-step); for
    a plate that does not hold all data; for elements with multiplicities in a sandwich or
    bootstrap.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(map(repr, METHODS))}, not {method!r}.")
    if isinstance(params, EMResult) and has_failed(params.status):
        raise ValueError(f"There is no estimate to judge: {params.status.message}.")
    bound = em.on(*args, **kwargs)
    params, constants = bound.at(params)
    compiled = bound.compiled
    own = coordinates(compiled.graph, compiled.maximizers, params)
    common = {
        "params": params,
        "coordinates": own.names,
        "on_boundary": dict(own.on_boundary),
        "limits": dict(own.limits),
        "method": method,
        "held": own.held,
    }
    if method in ("information", "sandwich"):
        _check_smooth(compiled, own)
        units = None
        found = jax.device_get(_derivatives(compiled, own)(params, constants))
        covariance, distance = inverse_information(found["hessian"], found["gradient"], own)
        if method == "sandwich":
            units = independent_units(bound, plate, rows)
            scores = scores_of(bound, own, units, params)
            covariance = (
                covariance
                @ np.cov(scores, bias=True).reshape(covariance.shape)
                @ covariance
                * scores.shape[1]
            )
        errors = _delta(compiled, own, found["jacobian"], covariance)
        return StandardErrors(
            standard_error=errors,
            covariance=covariance,
            distance=distance,
            what=_in_words(compiled, units),
            **common,
        )
    if isinstance(num_draws, bool) or not isinstance(num_draws, int | np.integer) or num_draws < 2:
        raise ValueError(f"num_draws must be a whole number of at least 2, not {num_draws!r}.")
    if rng_key is None:
        raise ValueError("A bootstrap draws at random: pass rng_key=jax.random.key(0).")
    return _bootstrapped(
        bound,
        own,
        params,
        constants,
        method,
        (plate, rows),
        jax.random.split(checked_key(rng_key), num_draws),
        common,
    )


# ── second derivatives ────────────────────────────────────────────────────────────────────────────


def _check_smooth(compiled: CompiledProgram, own: Coordinates) -> None:
    if compiled.pure.settings.temperature != 1:
        raise ValueError(
            "Second derivatives are those of the likelihood, which a hard or tempered E-step does "
            "not climb. Use EM(model), the soft E-step, or "
            "method='bootstrap'."
        )
    if own.size > LARGEST_INFORMATION:
        raise ValueError(
            f"The information matrix of {own.size} coordinates takes {8 * own.size**2 / 2**20:.0f} "
            "MB and as many passes over the data as it has rows. "
            "Use method='bootstrap', or hold what is known."
        )


def _derivatives(compiled: CompiledProgram, own: Coordinates):
    """Return the compiled function of (params, constants) that gives the gradient, the Hessian, and
    the Jacobian of the constrained values.
    """
    graph, key = compiled.graph, ("derivatives", own.key)

    def derivatives(params, constants) -> dict:
        gradient, hessian = gradient_and_hessian(
            objective_along(graph, own, params, constants), own.flatten(params)
        )
        return {"gradient": gradient, "hessian": hessian, "jacobian": own.jacobian(params)}

    return compiled.function(key, lambda: derivatives)


def _delta(
    compiled: CompiledProgram, own: Coordinates, jacobian: Mapping, covariance: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the standard errors of constrained entries, NaN on the boundary and where a parameter
    is held.
    """
    found = {}
    for name in compiled.graph.names:
        rows = np.asarray(
            jacobian.get(name, np.full((*compiled.graph.parameters[name].shape, own.size), np.nan)),
            float,
        )
        variance = (
            np.einsum("...i,ij,...j->...", rows, covariance, rows)
            if name in jacobian
            else np.full(rows.shape[:-1], np.nan)
        )
        found[name] = np.where(own.on_boundary[name], np.nan, np.sqrt(variance))
    return found


def _in_words(compiled: CompiledProgram, units: Units | None) -> str:
    if units is not None:
        return (
            f"standard errors from the sandwich of the observed information and the scores of "
            f"the elements of {units}"
        )
    is_map = compiled.graph.has_priors
    return (
        "standard deviations of Laplace's approximation of the posterior"
        if is_map
        else "standard errors from the observed information"
    )


# ── refits ────────────────────────────────────────────────────────────────────────────────────────


def _bootstrapped(
    bound: Bound,
    own: Coordinates,
    params,
    constants,
    method,
    chosen,
    keys,
    common,
) -> StandardErrors:
    compiled = bound.compiled
    found = _symmetries(compiled, own, params, constants)
    latents = tuple(name for symmetry in found for name in symmetry.latents)
    if method == "bootstrap":
        units = independent_units(bound, *chosen)
        check_independent(bound, units, params)
        refitted = resampled(bound, units, params, constants, keys, latents)
        what = (
            f"standard errors from {len(keys)} refits to the elements of {units}, drawn with "
            "replacement"
        )
    else:
        refitted = redrawn(bound, params, constants, keys, latents)
        what = (
            f"standard errors from {len(keys)} refits to data drawn by the program at the estimate"
        )
    good = ~refitted.has_failed
    if good.sum() < 2:
        raise ValueError(
            f"{len(keys) - int(good.sum())} of {len(keys)} refits failed: their objective became "
            "infinite or decreased. State a floor or a prior, or use fewer "
            "values of the latent."
        )
    draws = {
        name: value[good]
        for name, value in aligned(found, refitted.draws, refitted.agreement).items()
    }
    not_aligned = tuple(name for name in compiled.graph.latents if name not in latents)
    caveats = _caveats(refitted, not_aligned, latents)
    errors = {name: np.std(value, axis=0, ddof=1) for name, value in draws.items()}
    known = {name: own.on_boundary[name] | (name in own.held) for name in draws}
    still = [name for name, error in errors.items() if ((error == 0) & ~known[name]).any()]
    if still:
        caveats.append(findings.never_moved(still))
    errors = {
        name: np.where(known[name] | (error == 0), np.nan, error) for name, error in errors.items()
    }
    return StandardErrors(
        standard_error=errors,
        covariance=_sample_covariance(own, draws, params),
        what="; ".join([what, *map(str, caveats)]),
        draws=draws,
        num_failed=int((~good).sum()),
        num_unconverged=refitted.num_unconverged,
        aligned=latents,
        not_aligned=not_aligned,
        **common,
    )


def _caveats(
    refitted: Refits, not_aligned: tuple[str, ...], aligned: tuple[str, ...]
) -> list[Finding]:
    """Return what has to be known of refits to judge their spread."""
    caveats = []
    num_failed = int(refitted.has_failed.sum())
    if num_failed:
        caveats.append(findings.failed_refits(num_failed))
    if refitted.num_unconverged:
        caveats.append(findings.unconverged_refits(int(refitted.num_unconverged)))
    if aligned:
        caveats.append(findings.labels_aligned(aligned))
    if not_aligned:
        caveats.append(findings.labels_not_aligned(not_aligned))
    return caveats


def _symmetries(compiled: CompiledProgram, own: Coordinates, params, constants) -> list[Symmetry]:
    """Return how the values of the program's latents can be exchanged."""
    graph = compiled.graph

    def tables(params, constants):
        return instance_of(graph, graph.arrays(params, constants)).tables

    tables_at = compiled.function("tables", lambda: tables)
    return symmetries(
        graph, own, params, lambda params: jax.device_get(tables_at(params, constants))
    )


def _sample_covariance(own: Coordinates, draws: Mapping, params) -> np.ndarray:
    """Return the covariance of draws in unconstrained coordinates, NaN for one that is infinite in
    some draw.
    """
    vectors = np.asarray(jax.vmap(own.flatten)(jax.tree.map(jnp.asarray, draws)), float)
    finite = np.isfinite(vectors).all(axis=0)
    covariance = np.cov(np.where(finite, vectors, 0), rowvar=False).reshape(own.size, own.size)
    return np.where(np.outer(finite, finite), covariance, np.nan)
