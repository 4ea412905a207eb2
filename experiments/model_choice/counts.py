"""Counts whose truth is known: what each criterion chooses, and what that costs."""

from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import logsumexp
from numpyro.distributions import constraints
from numpyro.handlers import scale

from emjax import EM, EMState
from experiments import report
from experiments.model_choice.criteria import NAMES, NUM_FOLDS

VALUES = np.arange(80)  # counts beyond have a probability below 1e-9 in every truth
LARGEST = 6
NUM_STEPS = 400


class Truth(NamedTuple):
    """Where counts come from.

    - `name`: in words.
    - `probs`: the probability of each of `VALUES`.
    - `num_clusters`: how many clusters there are.
    """

    name: str
    probs: np.ndarray
    num_clusters: int


def poisson_probs(rate: float) -> np.ndarray:
    """Return the probability of each value."""
    return np.exp(np.asarray(dist.Poisson(rate).log_prob(VALUES)))


def spread_probs(mean: float, concentration: float) -> np.ndarray:
    """Return the probability of each value if rates vary within the cluster.

    This is a negative binomial.
    """
    return np.exp(np.asarray(dist.NegativeBinomial2(mean, concentration).log_prob(VALUES)))


def truths() -> tuple[Truth, Truth]:
    """Return a truth that is among the models, and one that is not.

    The clusters of the second are wider than a Poisson's.
    """
    poisson = 0.4 * poisson_probs(3.0) + 0.35 * poisson_probs(9.0) + 0.25 * poisson_probs(18.0)
    spread = 0.6 * spread_probs(3.0, 8.0) + 0.4 * spread_probs(26.0, 40.0)
    return (
        Truth("three Poissons", poisson / poisson.sum(), 3),
        Truth("two clusters that are no Poissons", spread / spread.sum(), 2),
    )


def poisson_mixture(values: np.ndarray, count: np.ndarray, num_components: int) -> None:
    """A mixture of Poissons of a histogram: `values[i]` was seen `count[i]` times.

    Rates start at its quantiles.
    """
    levels = (jnp.arange(num_components) + 0.5) / num_components
    share = jnp.cumsum(count) / jnp.sum(count)
    quantiles = jnp.interp(levels, share, jnp.asarray(values, float))
    # above zero, and apart where quantiles coincide: equal components stay equal
    start = quantiles + 0.1 + 0.01 * jnp.arange(num_components)
    weights = numpyro.param(
        "weights", jnp.full(num_components, 1 / num_components), constraint=constraints.simplex
    )
    rate = numpyro.param("rate", start, constraint=constraints.positive)
    with numpyro.plate("values", len(values)), scale(scale=count):
        component = numpyro.sample("component", dist.Categorical(weights))
        numpyro.sample("value", dist.Poisson(rate[component]), obs=values)


@cache
def log_densities(num_components: int) -> Callable:
    """Return a function that fits histograms (…, value) by EM.

    It returns log p(value) and max_z log p(value, z) of each.
    """
    em = EM(partial(poisson_mixture, num_components=num_components))

    def fitted(count: jax.Array) -> tuple[jax.Array, jax.Array]:
        state = em.init(jax.random.key(0), VALUES, count)

        def step(state: EMState, _: None) -> tuple[EMState, jax.Array]:
            return em.update(state, VALUES, count)

        state, _ = jax.lax.scan(step, state, length=NUM_STEPS)
        weights, rate = state.params["weights"], state.params["rate"]
        joint = jnp.log(weights) + dist.Poisson(rate).log_prob(VALUES[:, None])
        return logsumexp(joint, axis=1), joint.max(axis=1)

    return jax.jit(jnp.vectorize(fitted, signature="(v)->(v),(v)"))


class Scores(NamedTuple):
    """What each criterion says of each model, and how well each predicts.

    - `losses`: by criterion, (data set, size, model), the lower the better.
    - `prediction`: the log-likelihood that new samples truly have, in nats a sample, (data set,
      size, model).
    """

    losses: dict[str, np.ndarray]
    prediction: np.ndarray

    def chosen(self, name: str) -> np.ndarray:
        """Return how many components a criterion chooses, (data set, size)."""
        return self.losses[name].argmin(axis=-1) + 1

    def regret(self, name: str) -> np.ndarray:
        """Return what a choice loses to the best model, in nats a sample, (data set, size)."""
        model = self.chosen(name)[..., None] - 1
        of_chosen = np.take_along_axis(self.prediction, model, axis=-1)[..., 0]
        return self.prediction.max(axis=-1) - of_chosen


def simulated(truth: Truth, sizes: tuple[int, ...], num_data_sets: int) -> Scores:
    """Return the scores of mixtures of 1 … LARGEST Poissons on data sets of each size.

    A data set is a histogram, and so is what is left of it without a fold: all fits of a model are
    one call.
    """
    folds = drawn_folds(truth, sizes, num_data_sets)
    data_sets = folds.sum(axis=2, keepdims=True)
    histograms = jnp.asarray(np.concatenate([data_sets, data_sets - folds], axis=2))
    count = data_sets[:, :, 0]
    log_size = np.log(count.sum(axis=-1))
    losses: dict[str, list] = {name: [] for name in NAMES}
    prediction = []
    for num_components in range(1, LARGEST + 1):
        soft, hard = (np.asarray(table) for table in log_densities(num_components)(histograms))
        num_parameters = 2 * num_components - 1
        deviance = -2 * (count * soft[:, :, 0]).sum(axis=-1)
        complete_deviance = -2 * (count * hard[:, :, 0]).sum(axis=-1)
        losses["AIC"].append(deviance + 2 * num_parameters)
        losses["BIC"].append(deviance + num_parameters * log_size)
        losses["ICL"].append(complete_deviance + num_parameters * log_size)
        losses["CV"].append(-2 * (folds * soft[:, :, 1:]).sum(axis=(-2, -1)))
        prediction.append((truth.probs * soft[:, :, 0]).sum(axis=-1))
    by_criterion = {name: np.stack(by_model, axis=-1) for name, by_model in losses.items()}
    return Scores(by_criterion, np.stack(prediction, axis=-1))


def drawn_folds(truth: Truth, sizes: tuple[int, ...], num_data_sets: int) -> np.ndarray:
    """Return histograms of the folds of data sets of each size, (data set, size, fold, value)."""
    rng = np.random.default_rng(0)
    folds = np.empty((num_data_sets, len(sizes), NUM_FOLDS, len(VALUES)))
    for data_set in range(num_data_sets):
        for i, n in enumerate(sizes):
            folds[data_set, i] = rng.multinomial(n // NUM_FOLDS, truth.probs, size=NUM_FOLDS)
    return folds


def print_simulated(truth: Truth, scores: Scores, sizes: tuple[int, ...]) -> None:
    """Print what each criterion chooses and loses, by the number of samples."""
    report.heading(f"Counts of {truth.name}: what is chosen, and what it costs")
    rows = []
    for i, n in enumerate(sizes):
        best = scores.prediction[:, i].argmax(axis=-1) + 1
        chosen = [f"{scores.chosen(name)[:, i].mean():.2f}" for name in NAMES]
        regrets = [f"{1000 * scores.regret(name)[:, i].mean():.2f}" for name in NAMES]
        rows.append([f"{n:,}", f"{best.mean():.2f}", *chosen, *regrets])
    report.table(
        ["samples", "predicts best", *NAMES, *(f"{name} loses" for name in NAMES)],
        rows,
        caption=f"""Mixtures of 1 to {LARGEST} Poissons, {len(scores.prediction)} data sets of each
            size, {truth.num_clusters} clusters in truth. The mean number of components that
            predicts new samples best, that each criterion chooses, and what its choice loses to the
            best, in nats for 1,000 new samples.""",
    )
    report.remark(verdict(scores, sizes))


def is_bic_worse(scores: Scores) -> np.ndarray:
    """Return whether BIC's choice loses more than that of cross-validation on average, (size,)."""
    bic, cv = (scores.regret(name).mean(axis=0) for name in ("BIC", "CV"))
    return bic > cv


def verdict(scores: Scores, sizes: tuple[int, ...]) -> str:
    """Return at which sizes BIC's choice predicts worse than that of cross-validation."""
    worse = [f"{sizes[i]:,}" for i in np.flatnonzero(is_bic_worse(scores))]
    if len(worse) == len(sizes):
        return (
            "BIC predicts worse than cross-validation at every size: it stops before the density "
            "is right."
        )
    if not worse:
        return "BIC predicts at least as well as cross-validation at every size."
    return (
        f"BIC predicts worse than cross-validation only at {', '.join(worse)} samples, where it "
        "stops too early."
    )
