"""The work of the table by emjax.

A set-up does what comes before the work, and returns what is timed, call by call.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.typing import ArrayLike
from jaxtyping import Float

from emjax import EM, Fit, bootstrap_likelihood_ratio, choose, load, standard_errors, summary
from emjax.models import gaussian_mixture, hidden_markov, latent_class
from experiments.benchmarks.latency import data

Calls = list[Callable[[], Any]]
# JAX starts with it: who has imported it, and made a key, has not compiled anything yet
KEY = jax.random.key(0)


def mixture_of_regressions(x: Float[ArrayLike, "row"], y: Float[ArrayLike, "row"]) -> None:
    """Two lines; every parameter has a prior."""
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(2)))
    with numpyro.plate("lines", 2):
        intercept = numpyro.sample("intercept", dist.Normal(0, 10))
        slope = numpyro.sample("slope", dist.Normal(0, 10))
        scale = numpyro.sample("scale", dist.HalfNormal(5))
    with numpyro.plate("rows", len(x)):
        line = numpyro.sample("line", dist.Categorical(weights))
        loc = intercept[line] + slope[line] * x
        numpyro.sample("y", dist.Normal(loc, scale[line]), obs=y)


class Iris:
    """A mixture of Gaussians, and the irises."""

    def __init__(self):
        self.em, self.flowers = EM(gaussian_mixture.program), data.iris()

    def fit(self, em: EM | None = None, num_rows: int | None = None) -> Any:
        """Return what EM finds on the first rows."""
        em = self.em if em is None else em
        return em.run(KEY, self.flowers[:num_rows], data.NUM_CLUSTERS)


def first_fit() -> Calls:
    """Return the first fit of a process."""
    return [Iris().fit]


def third_fit() -> Calls:
    """Return the same fit after two others."""
    iris = Iris()
    iris.fit()
    iris.fit()
    return [iris.fit]


def other_rows() -> Calls:
    """Return fits to fewer rows, after one to all of them."""
    iris = Iris()
    iris.fit()
    return [partial(iris.fit, num_rows=number) for number in (149, 120, 90)]


def second_em() -> Calls:
    """Return fits by new `EM` objects, after one by another."""
    iris = Iris()
    iris.fit()
    return [
        lambda: iris.fit(EM(gaussian_mixture.program)),
        lambda: iris.fit(EM(gaussian_mixture.program, tol=1e-6)),
    ]


def new_rows() -> Calls:
    """Return posteriors of few rows, after a fit."""
    iris = Iris()
    params = iris.fit().params

    def posterior(number: int) -> dict:
        return iris.em.posterior(params, iris.flowers[:number], data.NUM_CLUSTERS)

    return [partial(posterior, number) for number in (10, 11, 12, 13)]


def asked_of_a_fit(question: Callable) -> Callable[[], Calls]:
    """Return the set-up of `question(em, result, *args)`, after a fit."""

    def setup() -> Calls:
        iris = Iris()
        result = iris.fit()
        return [lambda: question(iris.em, result, iris.flowers, data.NUM_CLUSTERS)]

    return setup


def draws_of(fit: Fit) -> Calls:
    """Return joint draws of a fit's latents, by two keys."""
    return [partial(fit.sample_posterior, key, num_samples=100) for key in jax.random.split(KEY)]


def draws() -> Calls:
    """Return draws of which cluster each row is in, after a fit."""
    return draws_of(Iris().fit())


def saved() -> Calls:
    """Return what is done with a file, after a fit."""
    iris = Iris()
    fit, path = iris.fit(), Path(tempfile.mkdtemp()) / "fit.emjax"
    return [
        lambda: fit.save(path),
        lambda: load(path, gaussian_mixture.program),
        lambda: load(path, gaussian_mixture.program).posterior(iris.flowers, data.NUM_CLUSTERS),
        fit.export,
    ]


def summaries() -> Calls:
    """Return the same table twice, after a fit."""
    fit = Iris().fit()
    return [lambda: str(summary(fit))] * 2


def chain_fit(em: EM, seen: np.ndarray) -> Any:
    """Return what EM finds on one sequence."""
    return em.run(KEY, seen[:, None, None], np.array([len(seen)]), data.NUM_STATES)


def first_chain() -> Calls:
    """Return the first fit of a process to a chain."""
    return [partial(chain_fit, EM(hidden_markov.gaussian_program), data.series())]


def shorter_chain() -> Calls:
    """Return a fit to a shorter chain, after one."""
    em, seen = EM(hidden_markov.gaussian_program), data.series()
    chain_fit(em, seen)
    return [partial(chain_fit, em, seen[:480])]


def chain_draws() -> Calls:
    """Return draws of the states of a chain, after a fit."""
    return draws_of(chain_fit(EM(hidden_markov.gaussian_program), data.series()))


def likelihood_ratio() -> Calls:
    """Return the test of one cluster against two, after both fits."""
    flowers = data.iris()
    fits = [EM(gaussian_mixture.program).run(KEY, flowers, number) for number in (1, 2)]
    return [partial(bootstrap_likelihood_ratio, *fits, KEY)] * 2


def choice() -> Calls:
    """Return the comparison of four numbers of classes."""
    candidates = {}
    for number in (1, 2, 3, 4):
        candidates[number] = EM(partial(latent_class.program, num_classes=number))
    return [partial(choose, candidates, KEY, data.answers(), num_folds=5)]


def regressions() -> Calls:
    """Return a fit from ten starts."""
    return [partial(EM(mixture_of_regressions, num_restarts=10).run, KEY, *data.two_lines())]


SETUPS = {
    "first": first_fit,
    "third": third_fit,
    "rows": other_rows,
    "second": second_em,
    "posterior": new_rows,
    "sample_posterior": draws,
    "saved": saved,
    "summary": summaries,
    "diagnose": asked_of_a_fit(EM.diagnose),
    "standard_errors": asked_of_a_fit(standard_errors),
    "chain": first_chain,
    "length": shorter_chain,
    "chain_draws": chain_draws,
    "likelihood_ratio": likelihood_ratio,
    "choose": choice,
    "regressions": regressions,
    "cache": first_fit,
}
