"""What is wrong with data, or a start: every sentence that says so, and its remedy.

What is no start at all, a name or a shape that the program does not have, `validation` refuses.
Those on how a run ended are in `endings`, those on an estimate and its refits in `verdicts`.

A function for each kind of finding, in the order in which a run meets them. Errors, warnings and
verdicts are printed findings: whoever wants to change what one says changes it in these files.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpyro.distributions.constraints import Constraint


@dataclass(frozen=True)
class Finding:
    """Something that is wrong with data, a start or a result; it prints as sentence and remedy.

    **Attributes:**

    - `kind`: "not a number", "out of range", "outside the support", "nothing observed" (data);
      "outside its constraint", "impossible", "identical starts", "equal values", "many values" (a
      start); "collapsed", "not a number", "dead", "copies", "at the boundary", "unbounded prior",
      "not maximized", "saddle", "better start" (a result); a verdict of `em.diagnose`; what is to
      be known of refits.
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


def identical_starts(number: int, are_given: bool) -> Finding:
    """Return that several starts are one. `are_given`: whether every parameter was given."""
    why = "init_params gives every parameter" if are_given else "nothing of them is drawn at random"
    return Finding(
        "identical starts",
        "",
        "",
        f"All {number} starts are the same: {why}. They end alike, and tell no other optimum.",
        "Give init_params for some parameters alone, ask for a start that is drawn, EM(model, "
        "init='subsets') or numpyro.param(name, lambda key: ...), or for one start.",
    )


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


def many_values(
    parameter: str, size: int, sites: Sequence[str], is_normal: bool = False
) -> Finding:
    """Return that a continuous latent has as many values as there are data.

    `is_normal`: whether it and all that read it are normal, so that it may be integrated out.
    """
    names = ", ".join(f"'{site}'" for site in sites)
    readers = f"site {names} has" if len(sites) == 1 else f"sites {names} have"
    return Finding(
        "many values",
        parameter,
        "",
        f"Continuous latent '{parameter}' has as many values ({size}) as {readers} data.",
        "EM estimates each by MAP, not by integrating it out: estimates of other parameters may be "
        "biased." + (f" Integrate it out: EM(..., integrate={{'{parameter}'}})." * is_normal),
    )
