"""Why a run stopped, and what is wrong with where it ended: every sentence, and its remedy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from emjax.run.findings import Finding, plain

# the remedy of a collapsed scale, and of the infinite objective that it may end in
FLOOR = "state a floor (constraints.greater_than(...))"
UNBOUNDED_PRIOR = "unbounded prior"
# of an estimate on the boundary
CRAWLS = "EM crawls there: EM(model, acceleration='anderson') comes nearer in fewer steps."
# the remedy of a prior which is infinite at a bound
IN_COORDINATES = 'EM(model, map="unconstrained")'
# the remedy of an optimum that is not the best
SEVERAL_STARTS = "EM(model, num_restarts=10)"
# indices that a sentence lists: a large table may reach the boundary at thousands
SHOWN = 3
# by the names of `loop.Status`, which cannot be imported: `loop` imports this file
WHY_IT_STOPPED = {
    "CONVERGED": "converged: the objective's last increase was within tol",
    "AT_RESOLUTION": "stopped at the resolution of float32: a step gains less than that tells from "
    "none, though perhaps more than tol; let the run end in double, EM(model, precision='double'), "
    "or enable float64 (jax.config.update('jax_enable_x64', True))",
    "MAX_STEPS": "stopped at max_steps before convergence: raise max_steps, or start from "
    "result.params",
    "INTERRUPTED": "interrupted before convergence: go on from where it stands, em.run(..., "
    "init_params=result.params); with em.run(..., checkpoint='run.checkpoint'), the same call goes "
    "on as if nothing had happened",
    "OBJECTIVE_DECREASED": "the objective decreased by more than rounding: params are those before "
    "the decrease; enable float64 (jax.config.update('jax_enable_x64', True)) if it is off, or "
    "check a maximizer given in m_step",
    "NOT_FINITE": "the objective became infinite or NaN: params are the last finite ones; a scale "
    f"that shrinks to zero has no maximum, so {FLOOR} or a prior, or use fewer components (a prior "
    f"that is itself infinite at a bound has no mode there: {IN_COORDINATES})",
    "NOT_MAXIMIZED": "not converged: steps gain no more than tol, but a maximizer fails: it leaves "
    "parameters where Q is not at its maximum",
    "COLLAPSED": "not converged: the objective's last increase was within tol, but something has "
    "collapsed, and the likelihood has no maximum there",
}


def not_maximized(
    parameters: Sequence[str], method: str, reason: str, gain: float, slope: float
) -> Finding:
    """Return that a maximizer leaves parameters where Q is not at its maximum.

    `method`, `reason`: what it is, as `em.plan` says; `gain`: by how many nats Q is larger
    elsewhere; `slope`: the norm of its derivative, NaN where it is not finite.
    """
    names = ", ".join(f"'{name}'" for name in parameters)
    derivative = f"its derivative is {slope:.2g}" if np.isfinite(slope) else "it has no derivative"
    more = f"Q gains {gain:.2g} nats more elsewhere" if np.isfinite(gain) else "Q gains more"
    sentence = (
        f"{names} could not be improved by {method} ({reason}), though {more} and {derivative} "
        "there."
    )
    first = parameters[0]
    if method == "optax":
        remedy = "Raise its learning rate, or leave the parameter to emjax."
    elif method == "user":
        remedy = (
            "Return a value that does not decrease the objective, or leave the parameter to emjax."
        )
    else:
        remedy = (
            "Start elsewhere, write what the parameter enters without that step, or pass a "
            f"maximizer of your own:\n    EM(program, m_step={{'{first}': optax.adam(1e-2)}})"
        )
    return Finding("not maximized", first, names, sentence, remedy)


def why_it_stopped(status: str, found: Sequence[Finding]) -> str:
    """Return why a run of some findings stopped. `status`: the name of its status."""
    has_collapsed = any(finding.kind == "collapsed" for finding in found)
    if status == "OBJECTIVE_DECREASED" and has_collapsed:
        return (
            "the objective decreased by more than rounding, for something has collapsed, and with "
            "it the objective loses its digits: params are those before the decrease"
        )
    has_vanished = any(finding.kind == "variance of zero" for finding in found)
    if status == "OBJECTIVE_DECREASED" and has_vanished:
        return (
            "the objective decreased by more than rounding, for a variance goes to zero, and with "
            "it the objective loses its digits: params are those before the decrease"
        )
    return WHY_IT_STOPPED[status]


def collapsed(parameter: str, entry: str, owner: str, ratio: float, site: str) -> Finding:
    """Return that a scale has collapsed.

    `owner`: whose scale it is, in words; `ratio`: of its standard deviation to that of the data at
    `site`, NaN where it is no number.
    """
    how = f"has shrunk to {ratio:.1e} of the spread of '{site}'"
    if np.isnan(ratio):
        how = "is no number"
    return Finding(
        "collapsed",
        parameter,
        entry,
        f"{owner} collapses: '{parameter}'{entry} {how}.",
        f"The likelihood has no maximum there: {FLOOR}, or a prior, or use fewer components.",
    )


def collapsed_argument(
    argument: str, site: str, parameters: Sequence[str], owner: str, ratio: float
) -> Finding:
    """Return that a scale has collapsed which the program computes from parameters."""
    names = ", ".join(f"'{name}'" for name in parameters)
    how = "is no number" if np.isnan(ratio) else f"has shrunk to {ratio:.1e} of its spread"
    return Finding(
        "collapsed",
        ", ".join(parameters),
        owner,
        f"{owner} collapses: the {argument} of '{site}', computed from {names}, {how}.",
        f"The likelihood has no maximum there: {FLOOR}, or a prior, or use fewer components.",
    )


def collapsed_density(
    owner: str, site: str, element: tuple[int, ...], parameters: Sequence[str], nats: float | None
) -> Finding:
    """Return that a density resolves more than its data do.

    `nats`: by how much it falls at an element where the data are moved by a thousandth of their
    distance; None where there were none to move.
    """
    names = ", ".join(f"'{name}'" for name in parameters)
    how = f"is beyond all proportion to the spread of '{site}'"
    if nats is not None:
        # beyond all numbers, a density is none
        falls = f"falls by {nats:.1e} nats" if nats < 1e29 else "vanishes"
        how = f"at index {element} {falls} where that datum is moved by a thousandth of its "
        how += "distance from the next one"
    if nats == np.inf:
        how = f"at index {element} is infinite"
    return Finding(
        "collapsed",
        site,
        owner,
        f"{owner} collapses: its density of '{site}' {how}; it depends on {names}.",
        "The likelihood has no maximum there: bound what makes it so narrow "
        "(constraints.interval(...)), or state a prior, or use fewer components.",
    )


def constant(site: str, is_constant: np.ndarray) -> Finding:
    """Return that data have no spread, so that a density of them has no maximum.

    `is_constant`: which of their columns, all other axes being of length 1.
    """
    columns = list(np.argwhere(is_constant))
    varying = [d for d, size in enumerate(is_constant.shape) if size > 1]
    where = ", ".join(
        "[..., " + ", ".join(str(i) for i in c[varying]) + "]" for c in columns[:SHOWN]
    )
    what = f"'{site}' is one number for all data" if not varying else f"'{site}'{where} is constant"
    return Finding(
        "collapsed",
        site,
        where if varying else "",
        f"{what}: without a spread, its density has no maximum, whatever the components.",
        f"Leave it out, or {FLOOR} or a prior.",
    )


def not_a_number(parameter: str) -> Finding:
    """Return that a parameter has become NaN or infinite."""
    return Finding("not a number", parameter, "", f"'{parameter}' is not a number")


def dead(latent: str, value: Any, parameters: Sequence[str], probability: float) -> Finding:
    """Return that no parameter gives a value of a latent any probability."""
    # several, where the first step of a scan and the others have tables of their own
    names = ", ".join(f"'{name}'" for name in parameters)
    gives = "gives" if len(parameters) == 1 else "give"
    return Finding(
        "dead",
        latent,
        str(value),
        f"component {value} of '{latent}' has died: {names} {gives} it probability "
        f"{probability:.1e}, and no element belongs to it.",
        "Use fewer components, or start elsewhere.",
    )


def without_elements(latent: str, value: Any, count: float) -> Finding:
    """Return that no element belongs to a value of a latent. `count`: how many are expected to."""
    return Finding(
        "dead",
        latent,
        str(value),
        f"component {value} of '{latent}' has died: {count:.1e} elements are expected to belong to "
        "it.",
        "Use fewer components, or start elsewhere.",
    )


def copies_of(latent: str, pairs: Sequence[tuple[Any, Any]]) -> Finding:
    """Return that values of a latent are copies of each other. `pairs`: of these values."""
    where = ", ".join(f"{first} and {second}" for first, second in pairs[:SHOWN])
    where += f", … ({len(pairs)} pairs in all)" if len(pairs) > SHOWN else ""
    return Finding(
        "copies",
        latent,
        where,
        f"components {where} of '{latent}' are copies of each other: they give all data the same "
        "distribution, and EM does not part them.",
        "Start elsewhere (num_restarts=..., init_params={...}), or use fewer components; "
        "em.diagnose says whether it is a saddle.",
    )


def at_saddle(pairs: Mapping[str, tuple[Any, Any]], gain: float, num_steps: int) -> Finding:
    """Return that EM rests at a saddle.

    `pairs`: {latent: two of its values that hardly differ}; `gain`: by how many nats EM from beside
    it ends above it, after so many steps.
    """
    latent = next(iter(pairs), "")
    where = " and ".join(map(str, pairs.get(latent, ())))
    who = f", where components {where} of '{latent}' hardly differ" if latent else ""
    return Finding(
        "saddle",
        latent,
        where,
        f"the estimate is at a saddle{who}: from parameters beside it, EM gains {gain:.3g} nats "
        f"within {num_steps} steps.",
        f"Start elsewhere: {SEVERAL_STARTS}.",
    )


def no_effect(latent: str, coordinates: Sequence[int]) -> Finding:
    """Return that no data depend on some coordinates of a Gaussian latent, and EM leaves it so."""
    numbers = ", ".join(map(str, coordinates))
    return Finding(
        "saddle",
        latent,
        numbers,
        f"all coefficients of '{latent}' are zero (coordinate {numbers}), and EM never leaves "
        "these: nothing is known of it, so that the next coefficients are zero, too.",
        "Start elsewhere: EM(model, init='responsibilities').",
    )


def better_start(gain: float, num_steps: int) -> Finding:
    """Return that another start leads higher. `gain`: by how many nats, after so many steps."""
    return Finding(
        "better start",
        "",
        "",
        f"a start at clusters of the data leads higher: by {gain:.3g} nats after {num_steps} "
        "steps.",
        f"Try several starts: {SEVERAL_STARTS}.",
    )


def at_boundary(parameter: str, has_reached: np.ndarray) -> Finding:
    """Return that entries of a parameter have reached the boundary. `has_reached`: which ones."""
    where = _indices(has_reached)
    return Finding(
        "at the boundary",
        parameter,
        where,
        f"'{parameter}' has reached the boundary at {where}, and EM stays there: its data are "
        "without a single such case.",
        "If the program should think it possible, state a prior.",
    )


def on_bound(parameter: str, has_reached: np.ndarray, bound: np.ndarray) -> Finding:
    """Return that entries of a parameter have ended on a bound that the program states.

    `has_reached`: which ones; `bound`: of each entry.
    """
    where, bounds = _indices(has_reached), np.unique(bound[has_reached])
    numbers = ", ".join(f"{number:g}" for number in bounds[:SHOWN])
    numbers += ", …" if len(bounds) > SHOWN else ""
    return Finding(
        "at the boundary",
        parameter,
        where,
        f"'{parameter}' has ended on the bound of its constraint ({numbers}) at {where}: beyond "
        "it, the objective may be higher.",
        "If that bound is not meant, widen the constraint.",
    )


def no_variance(
    parameter: str,
    where: Sequence[tuple[int, ...]],
    sites: Sequence[str],
    latents: Sequence[str],
    gain: float,
    is_matrix: bool = False,
) -> Finding:
    """Return that a variance of Gaussian latents goes to zero.

    `where`: which entries of the parameter; `gain`: by how many nats the objective is higher where
    the standard deviation is a tenth; `is_matrix`: whether it is that in some direction.
    """
    names = ", ".join(f"'{site}'" for site in sites)
    goes = f"{'a covariance' if is_matrix else 'a variance'} of {names}, goes to zero"
    means = f"the data vary no more than they would without {names}"
    remedy = f"Leave {names} out"
    if is_matrix:
        goes += " in one direction"
        means = f"one coordinate of {names} follows from the others"
        remedy = f"Use fewer coordinates of {names}"
    means = f"it is an estimate on the boundary, and {means}"
    remedy = f"{remedy}, or state a prior that keeps away from zero"
    return _variance_of_zero(parameter, where, goes, gain, means, remedy)


def far_from_zero(latent: str, distance: float) -> Finding:
    """Return that a Gaussian latent is far from zero. `distance`: in standard deviations."""
    return Finding(
        "digits lost",
        latent,
        "",
        f"Gaussian latent '{latent}' is some {distance:.0e} standard deviations from zero, about "
        "which its moments are taken: digits of the log-likelihood, of its variance and of the "
        "estimates that follow from it are lost.",
        f"Draw it about zero, and add its mean where it is read: numpyro.sample('{latent}', "
        f"dist.Normal(0, scale)), then mean + {latent}; or measure the data from their mean.",
    )


def no_noise(
    parameter: str,
    where: Sequence[tuple[int, ...]],
    sites: Sequence[str],
    latents: Sequence[str],
    gain: float,
    is_matrix: bool = False,
) -> Finding:
    """Return that the noise of data under Gaussian latents goes to zero: a Heywood case.

    `where`, `gain`, `is_matrix`: as in `no_variance`.
    """
    names = ", ".join(f"'{site}'" for site in sites)
    explained = ", ".join(f"'{latent}'" for latent in latents)
    goes = f"noise of {names}, goes to zero{' in one direction' if is_matrix else ''}"
    means = f"{explained} explains these data without rest (a Heywood case)"
    remedy = f"Use fewer coordinates of {explained}, or {FLOOR}, or a prior"
    return _variance_of_zero(parameter, where, goes, gain, means, remedy)


def _variance_of_zero(
    parameter: str,
    where: Sequence[tuple[int, ...]],
    goes: str,
    gain: float,
    means: str,
    remedy: str,
) -> Finding:
    """Return that a variance goes to zero, where the likelihood is bounded; what that means."""
    entries = _entries(where)
    return Finding(
        "variance of zero",
        parameter,
        entries.strip(),
        f"'{parameter}'{entries}, {goes}: at a tenth of it the objective is {gain:.2g} nats "
        f"higher. The likelihood is bounded there: {means}.",
        f"{remedy}. {CRAWLS}",
    )


def _entries(where: Sequence[tuple[int, ...]]) -> str:
    """Return the indices of entries behind a parameter's name, the first of them."""
    if not where or not where[0]:
        return ""
    more = f", … ({len(where)} in all)" if len(where) > SHOWN else ""
    listed = ", ".join("[" + ", ".join(map(str, index)) + "]" for index in where[:SHOWN])
    return listed + more


def _indices(where: np.ndarray) -> str:
    """Return the indices of the entries that are true, in words: the first of them."""
    # a single number has no index to show
    if not where.ndim:
        return "its value"
    indices = np.argwhere(where)
    more = f", … ({len(indices)} in all)" if len(indices) > SHOWN else ""
    # these alone become words: there may be millions
    shown = [str(tuple(map(int, index))) for index in indices[:SHOWN]]
    return ", ".join(shown) + more


def unbounded_prior(
    parameter: str, family: str, is_infinite: np.ndarray, has_concentration: bool
) -> Finding:
    """Return that a prior has no finite mode. `is_infinite`: which elements go where it is so."""
    where = _indices(is_infinite) if is_infinite.ndim else ""
    bounded = "state concentrations of at least 1" if has_concentration else "another prior"
    return Finding(
        UNBOUNDED_PRIOR,
        parameter,
        where,
        f"'{parameter}' has no finite mode: the density of its {plain(family)} prior is infinite "
        f"at the bound to which EM goes{f' at {where}' if where else ''}.",
        f"Take the mode in unconstrained coordinates, {IN_COORDINATES}, or {bounded}.",
    )


def checkpoint_not_written(path: str, reason: str) -> Finding:
    """Return that where a run stands could not be kept. `reason`: the system's word."""
    return Finding(
        "not saved",
        path,
        "",
        f"The checkpoint '{path}' could not be written when it was last due ({reason}): the file "
        "is as it was before, and the run has gone on.",
        "Make room there, or pass another path: em.run(..., checkpoint='run.checkpoint').",
    )
