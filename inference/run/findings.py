"""What is wrong with data, a start, or a result: every sentence that says so, and its remedy.

What is no start at all, a name or a shape that the program does not have, `validation` refuses.

A function for each kind of finding, in the order in which a run meets them. Errors, warnings and
verdicts are printed findings: whoever wants to change what one says changes it here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpyro.distributions.constraints import Constraint

# indices that a sentence lists: a large table may reach the boundary at thousands
SHOWN = 3


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with data, a start or a result; it prints as sentence and remedy.

    **Attributes:**

    - `kind`: "not a number", "out of range", "outside the support", "nothing observed" (data);
      "outside its constraint", "impossible", "equal values", "many values" (a start); "collapsed",
      "not a number", "dead", "at the boundary", "unbounded prior" (a result); a verdict of
      `em.diagnose`; what is to be known of refits.
    - `site`: the site, parameter or latent that it is about; empty if it is about all of them.
    - `where`: which entries, elements or values of it; empty if it is about all of them.
    - `sentence`: what is wrong.
    - `remedy`: what to do about it.
    """

    kind: str
    site: str
    where: str
    sentence: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.sentence} {self.remedy}".rstrip(" ")


def plain(family: str) -> str:
    """Return a distribution's name as users write it."""
    # NumPyro's classes say the parametrization, too: BernoulliProbs, BernoulliLogits
    return family.removesuffix("Probs").removesuffix("Logits")


# ── data ──────────────────────────────────────────────────────────────────────────────────────────


def missing_datum(site: str, where: tuple[int, ...], count: int, family: str) -> Finding:
    """Return that an observation is NaN. `count`: how many are."""
    sentence = f"Site '{site}': the observed value is NaN at index {where} ({count} in all)."
    return Finding("not a number", site, str(where), sentence, _declared_missing(site, family))


def _declared_missing(site: str, family: str) -> str:
    """Return how a program says that values of a site are missing."""
    if family == "PartiallyObserved":
        return "Its `observed` says that this coordinate is observed: pass observed=~jnp.isnan(x)."
    # NumPyro's masks are of whole events, and here one coordinate may be missing
    if family == "MultivariateNormal":
        return (
            "Missing coordinates are declared where the normal is:\n"
            f"    numpyro.sample('{site}', "
            "emjax.distributions.PartiallyObserved(dist.MultivariateNormal(...), "
            "observed=~jnp.isnan(x)), obs=x)"
        )
    return (
        f"Missing values are declared with a mask:\n    numpyro.sample('{site}', ..., "
        "obs=jnp.nan_to_num(value), obs_mask=~jnp.isnan(value))"
    )


def index_out_of_range(site: str, where: tuple[int, ...], count: int, what: str) -> Finding:
    """Return that an index which data give is out of range. `what`: of what."""
    return Finding(
        "out of range",
        site,
        str(where),
        f"Site '{site}': an index that it reads is out of range at position {where} "
        f"({count} in all): {what}.",
        "Indices run from 0: subtract 1 if yours begin at 1, or give the plate or table that it "
        "indexes more rows.",
    )


# what runs from 0 is often numbered from 1
NUMBERED = {
    "Categorical": "Categories are 0, 1, …: subtract 1 if yours begin at 1 (y - 1),",
    "Label": "Labels are values of the latent, or -1: subtract 1 if yours begin at 1,",
}


def outside_support(site: str, where: tuple[int, ...], count: int, family: str) -> Finding:
    """Return that an observation lies outside the support of its distribution."""
    return Finding(
        "outside the support",
        site,
        str(where),
        f"Site '{site}': the observed value at index {where} lies outside the support of "
        f"{plain(family)} ({count} in all).",
        f"{NUMBERED.get(plain(family), 'Correct the data,')} or exclude it: with "
        f"numpyro.handlers.mask(mask=valid): numpyro.sample('{site}', ...).",
    )


# ── a start ───────────────────────────────────────────────────────────────────────────────────────


def nan_value(what: str, site: str, where: tuple[int, ...], remedy: str) -> Finding:
    """Return that a value is NaN. `what`: which one, in words."""
    return Finding("not a number", site, str(where), f"{what} is NaN at index {where}.", remedy)


def outside_constraint(
    what: str,
    site: str,
    where: tuple[int, ...],
    value: Any,
    constraint: Constraint,
    remedy: str,
) -> Finding:
    """Return that a value violates its constraint."""
    sentence = (
        f"{what} must satisfy {constraint}, and does not at index {where} (value "
        f"{np.array2string(value, threshold=8)})."
    )
    return Finding("outside its constraint", site, str(where), sentence, remedy)


def negative_probability(what: str, site: str, where: tuple[int, ...], value: float) -> Finding:
    """Return that a probability is negative."""
    sentence = f"{what} must be probabilities; at index {where} it is {value:g}."
    remedy = "Make it non-negative."
    return Finding("outside its constraint", site, str(where), sentence, remedy)


def sum_is_not_one(what: str, site: str, where: tuple[int, ...], total: float) -> Finding:
    """Return that probabilities do not sum to one."""
    sentence = f"{what} must be probabilities that sum to one; they sum to {total:g}."
    remedy = "Divide by the sum: probs / probs.sum(-1, keepdims=True)."
    return Finding("outside its constraint", site, str(where), sentence, remedy)


def impossible_datum(site: str, index: str, value: str) -> Finding:
    """Return that a datum is impossible under every value of its latents. `value`: in words."""
    return Finding(
        "impossible",
        site,
        index,
        f"The start has zero likelihood: site '{site}' at index ({index}){value} is impossible "
        "under every value of its latents.",
        "Start elsewhere, em.run(..., init_params={...}), or check that datum.",
    )


def impossible_prior(site: str) -> Finding:
    """Return that a start is where its own prior has no density."""
    return Finding(
        "impossible",
        site,
        "",
        f"The start has zero density under the prior of '{site}'.",
        "Start elsewhere: em.run(..., init_params={...}).",
    )


def impossible_jointly() -> Finding:
    """Return that some datum is impossible, though no site alone says so."""
    return Finding(
        "impossible",
        "",
        "",
        "The start has zero likelihood: some datum is impossible under every joint value of its "
        "latents, though each site alone is possible.",
        "Start elsewhere: em.run(..., init_params={...}).",
    )


def nothing_observed(sites: Sequence[str]) -> Finding:
    """Return that no site of the program is observed. `sites`: those that it draws."""
    names = ", ".join(f"'{name}'" for name in sites) or "nothing"
    sentence = f"No site of the program is observed, and the likelihood is 1; it draws {names}."
    site = sites[-1] if sites else "x"
    remedy = f"Is obs= missing? numpyro.sample('{site}', ..., obs=x)"
    return Finding("nothing observed", "", "", sentence, remedy)


def equal_values(latent: str, num_distinct: int, num_values: int) -> Finding:
    """Return that EM cannot part some values of a latent."""
    return Finding(
        "equal values",
        latent,
        "",
        f"Latent '{latent}': at the start only {num_distinct} of its {num_values} values give the "
        "data different distributions, and EM can never part equal ones.",
        "Start from different values: em.run(..., init_params={...}), or "
        "numpyro.param(name, lambda key: ...).",
    )


def many_values(parameter: str, size: int, sites: Sequence[str]) -> Finding:
    """Return that a continuous latent has as many values as there are data."""
    names = ", ".join(f"'{site}'" for site in sites)
    readers = f"site {names} has" if len(sites) == 1 else f"sites {names} have"
    return Finding(
        "many values",
        parameter,
        "",
        f"Continuous latent '{parameter}' has as many values ({size}) as {readers} data.",
        "EM estimates each by MAP, not by integrating it out: estimates of other parameters may be "
        "biased.",
    )


# ── the end of a run ──────────────────────────────────────────────────────────────────────────────

# the remedy of a collapsed scale, and of the infinite objective that it may end in
FLOOR = "state a floor (constraints.greater_than(...))"
UNBOUNDED_PRIOR = "unbounded prior"
# the remedy of a prior which is infinite at a bound
IN_COORDINATES = 'EM(model, map="unconstrained")'
# by the names of `loop.Status`, which cannot be imported: `loop` imports this file
WHY_IT_STOPPED = {
    "CONVERGED": "converged: the objective's last increase was within tol",
    "MAX_STEPS": "stopped at max_steps before convergence: raise max_steps, or start from "
    "result.params",
    "OBJECTIVE_DECREASED": "the objective decreased by more than rounding: params are those before "
    "the decrease; enable float64 (jax.config.update('jax_enable_x64', True)) if it is off, or "
    "check a maximizer given in m_step",
    "NOT_FINITE": "the objective became infinite or NaN: params are the last finite ones; a scale "
    f"that shrinks to zero has no maximum, so {FLOOR} or a prior, or use fewer components (a prior "
    f"that is itself infinite at a bound has no mode there: {IN_COORDINATES})",
    "NOT_MAXIMIZED": "not converged: steps gain no more than tol, but a maximizer fails: it leaves "
    "parameters where Q is not at its maximum",
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
        how = f"at index {element} falls by {nats:.1e} nats where that datum is moved by a "
        how += "thousandth of its distance from the next one"
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


def _indices(where: np.ndarray) -> str:
    """Return the indices of the entries that are true, in words: the first of them."""
    # a single number has no index to show
    if not where.ndim:
        return "its value"
    indices = [str(tuple(map(int, index))) for index in np.argwhere(where)]
    more = f", … ({len(indices)} in all)" if len(indices) > SHOWN else ""
    return ", ".join(indices[:SHOWN]) + more


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


# ── what EM arrived at ────────────────────────────────────────────────────────────────────────────

RUN_ON = "Run on from here: em.run(key, ..., init_params=params)"


def _verdict(verdict: str, sentence: str, remedy: str = "", where: str = "") -> Finding:
    return Finding(verdict, "", where, sentence, remedy)


def degenerate(scales: Sequence[Finding]) -> Finding:
    """Return that scales have collapsed, so that there is no maximum to speak of."""
    return _verdict("degenerate", " ".join(map(str, scales)).rstrip("."))


def before_maximum(distance: float) -> Finding:
    """Return that there is a maximum near by, so many standard errors away."""
    sentence = f"the maximum is {distance:.2g} standard errors away."
    return _verdict("not stationary", sentence, f"{RUN_ON}, or with a smaller tol")


def still_moving(distance: float) -> Finding:
    """Return that EM still moves, by so many standard errors of the complete data a step."""
    step = f"by {distance:.2g} standard errors of the complete data a step"
    return _verdict("not stationary", f"EM is still moving, {step}.", RUN_ON)


def saddle(direction: str) -> Finding:
    """Return that the objective increases along a direction, which the latents' symmetry hides.

    `direction`: in words, from `certificates.curvature.described`; likewise for `ridge`.
    """
    sentence = f"the objective increases along {direction}, and EM stays only for the symmetry."
    return _verdict("saddle", sentence, "Start from elsewhere", direction)


def ridge(direction: str, parameters: Sequence[str], num_directions: int) -> Finding:
    """Return that the objective is flat along some directions, of which one is named.

    `parameters`: those that they leave open.
    """
    names = ", ".join(f"'{name}'" for name in parameters)
    along = (
        direction if num_directions == 1 else f"{num_directions} directions, such as {direction}"
    )
    sentence = f"the objective is flat along {along}: the data do not determine {names}."
    held = "".join(repr(name) for name in parameters[:1])
    which = "it" if len(parameters) == 1 else "one of them"
    remedy = f"Hold {which}, EM(model, fixed={{{held}}}), or state a prior"
    return _verdict("ridge", sentence, remedy, direction)


def local_maximum(downward: str, num_on_boundary: int) -> Finding:
    """Return that nothing is wrong. `downward`: what is known of the second derivatives."""
    sentence = f"the gradient is zero and {downward}"
    if num_on_boundary:
        entries = "entry" if num_on_boundary == 1 else "entries"
        sentence += f", in what is free: {num_on_boundary} {entries} on the boundary"
    return _verdict("local maximum", sentence)


def no_derivative(parameter: str, coordinate: str, how: str) -> Finding:
    """Return that the objective has no finite derivatives by a parameter.

    `coordinate`: along which one; `how`: how the parameter is maximized, in words.
    """
    return Finding(
        "no derivative",
        parameter,
        coordinate,
        f"The derivatives of the objective are not finite along {coordinate}{how and f' ({how})'}.",
        "At this value a step of the program has none, such as a clamp at its bound, a root or "
        "logarithm of 0, or a `where` whose other branch is NaN. Write it so that it has one, "
        f"start elsewhere, or hold the parameter: EM(model, fixed={{'{parameter}'}}).",
    )


# ── refits ────────────────────────────────────────────────────────────────────────────────────────


def failed_refits(count: int) -> Finding:
    """Return that some refits failed."""
    return Finding("failed refits", "", "", f"{count} of them failed and are left out")


def unconverged_refits(count: int) -> Finding:
    """Return that some refits stopped before they had converged."""
    sentence = f"{count} did not converge"
    return Finding("unconverged refits", "", "", sentence)


def labels_aligned(latents: Sequence[str]) -> Finding:
    """Return whose labels in the refits are those of the estimate."""
    names = ", ".join(latents)
    return Finding("labels aligned", names, "", f"labels of {names} aligned")


def labels_not_aligned(latents: Sequence[str]) -> Finding:
    """Return whose labels in the refits may be others than those of the estimate."""
    names = ", ".join(latents)
    return Finding(
        "labels not aligned",
        names,
        "",
        f"no exchange of parameters exchanges the values of {names}, whose labels are as each "
        "refit left them",
    )


def never_moved(parameters: Sequence[str]) -> Finding:
    """Return which parameters are the same in all refits."""
    names = ", ".join(parameters)
    return Finding(
        "never moved",
        names,
        "",
        f"{names} never moved: the estimate is a saddle, or a component is dead",
        "(em.diagnose says more)",
    )
