"""Who survives, and who is seen: the five models of NumPyro's `examples/capture_recapture.py`.

An animal that is alive is captured with probability rho, and survives from one year to the next
with probability phi. What is before its first capture is masked.

Two things are not as NumPyro's example has them. Its carry is int32, which fails in double
precision, here and in NumPyro: `dtype=int` is right in either. And what the five have in common
stands once, in `year`.
"""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import expit, logit
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.distributions.util import clamp_probs
from numpyro.infer.reparam import LocScaleReparam


def year(carry, captured, survival, recapture):
    """One year of all animals: who is alive, and who of them is captured."""
    is_known, alive = carry
    with (
        numpyro.plate("animals", len(captured), dim=-1),
        handlers.mask(mask=is_known),
    ):
        probs = is_known * survival * alive + (1 - is_known)
        alive = numpyro.sample(
            "z", dist.Bernoulli(clamp_probs(probs)), infer={"enumerate": "parallel"}
        )
        numpyro.sample("y", dist.Bernoulli(clamp_probs(recapture * alive)), obs=captured)
    return (is_known | captured.astype(bool), alive), None


def all_years(step, captures, dtype):
    """Scan from the first year, in which all are alive."""
    start = captures[:, 0].astype(bool), jnp.ones(len(captures), dtype=dtype)
    scan(step, start, jnp.swapaxes(captures[:, 1:], 0, 1))


def constant_survival(captures, sex, dtype=int):
    """Model 1: one probability of survival, one of recapture."""
    phi = numpyro.sample("phi", dist.Uniform(0.0, 1.0))
    rho = numpyro.sample("rho", dist.Uniform(0.0, 1.0))
    all_years(lambda carry, captured: year(carry, captured, phi, rho), captures, dtype)


def constant_survival_as_meant(captures, sex, dtype=int):
    """Model 1, of which only the observations are masked: who is first captured is alive."""
    phi = numpyro.sample("phi", dist.Uniform(0.0, 1.0))
    rho = numpyro.sample("rho", dist.Uniform(0.0, 1.0))

    def step(carry, captured):
        is_known, alive = carry
        with numpyro.plate("animals", len(captured), dim=-1):
            probs = is_known * phi * alive + (1 - is_known)
            alive = numpyro.sample(
                "z", dist.Bernoulli(clamp_probs(probs)), infer={"enumerate": "parallel"}
            )
            with handlers.mask(mask=is_known):
                numpyro.sample("y", dist.Bernoulli(clamp_probs(rho * alive)), obs=captured)
        return (is_known | captured.astype(bool), alive), None

    all_years(step, captures, dtype)


def survival_of_each_year(captures, sex, dtype=int):
    """Model 2: survival is a site inside the scan, outside the plate."""
    rho = numpyro.sample("rho", dist.Uniform(0.0, 1.0))

    def step(carry, captured):
        phi = numpyro.sample("phi", dist.Uniform(0.0, 1.0))
        return year(carry, captured, phi, rho)

    all_years(step, captures, dtype)


def random_survival_of_each_year(captures, sex, dtype=int):
    """Model 3: the log-odds of survival scatter about a mean; the scatter is not centered."""
    center = logit(numpyro.sample("phi_mean", dist.Uniform(0.0, 1.0)))
    spread = numpyro.sample("phi_sigma", dist.Uniform(0.0, 10.0))
    rho = numpyro.sample("rho", dist.Uniform(0.0, 1.0))

    def step(carry, captured):
        with handlers.reparam(config={"phi_logit": LocScaleReparam(0)}):
            log_odds = numpyro.sample("phi_logit", dist.Normal(center, spread))
        return year(carry, captured, expit(log_odds), rho)

    all_years(step, captures, dtype)


def survival_of_each_sex(captures, sex, dtype=int):
    """Model 4: survival differs between the sexes."""
    male = numpyro.sample("phi_male", dist.Uniform(0.0, 1.0))
    female = numpyro.sample("phi_female", dist.Uniform(0.0, 1.0))
    phi = sex * male + (1.0 - sex) * female
    rho = numpyro.sample("rho", dist.Uniform(0.0, 1.0))
    all_years(lambda carry, captured: year(carry, captured, phi, rho), captures, dtype)


def survival_of_each_sex_and_year(captures, sex, dtype=int):
    """Model 5: an effect of sex and one of the year, added in log-odds."""
    beta = sex * numpyro.sample("phi_beta", dist.Normal(0.0, 10.0))
    rho = numpyro.sample("rho", dist.Uniform(0.0, 1.0))

    def step(carry, captured):
        gamma = numpyro.sample("phi_gamma", dist.Normal(0.0, 10.0))
        return year(carry, captured, expit(beta + gamma), rho)

    all_years(step, captures, dtype)


def occupancy(y, clamp=clamp_probs):
    """Sites that a species occupies or not, each visited several times."""
    psi = numpyro.sample("psi", dist.Uniform(0.0, 1.0))
    rho = numpyro.sample("rho", dist.Uniform(0.0, 1.0))
    with numpyro.plate("sites", y.shape[0], dim=-2):
        z = numpyro.sample("z", dist.Bernoulli(clamp(psi)), infer={"enumerate": "parallel"})
        with numpyro.plate("visits", y.shape[1], dim=-1):
            numpyro.sample("y", dist.Bernoulli(clamp(rho * z)), obs=y)


def histories(num_animals, num_years, seed):
    """Captures (animal, year) in {0, 1} and sex (animal,): what the dipper's data look like.

    Survival is 0.55 of females and 0.7 of males, recapture 0.8.
    """
    rng = np.random.default_rng(seed)
    sex = rng.integers(0, 2, num_animals)
    first = rng.integers(0, num_years - 1, num_animals)
    captures = np.zeros((num_animals, num_years), int)
    for animal in range(num_animals):
        captures[animal, first[animal]] = 1
        for t in range(first[animal] + 1, num_years):
            if rng.random() > 0.55 + 0.15 * sex[animal]:
                break
            captures[animal, t] = rng.random() < 0.8
    return captures, sex


def visits():
    """Detections at 60 sites of 4 visits each; 0.6 of the sites are occupied."""
    rng = np.random.default_rng(0)
    occupied = rng.random(60) < 0.6
    return ((rng.random((60, 4)) < 0.4) & occupied[:, None]).astype(int)
