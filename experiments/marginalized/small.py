"""Four small programs, one of each kind of sum over latents; priors keep labels from switching."""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.ops.indexing import Vindex

from experiments.marginalized.programs import Case, annotator_priors

LENGTHS = np.array([12, 7, 9])
WARMUP, ROUNDS = 5, 10


def mixture_of_normals(x) -> None:
    """Points of three components."""
    weights = numpyro.sample("weights", dist.Dirichlet(2 * np.ones(3)))
    loc = numpyro.sample("loc", dist.Normal(np.array([-4.0, 0.0, 4.0]), 1.0).to_event(1))
    scale = numpyro.sample("scale", dist.Gamma(10.0, 10.0))
    with numpyro.plate("points", len(x)):
        z = numpyro.sample("z", dist.Categorical(weights), infer={"enumerate": "parallel"})
        numpyro.sample("x", dist.Normal(loc[z], scale), obs=x)


def labels_in_long_form(item, annotator, label) -> None:
    """Dawid & Skene's model, a row for each label: what NumPyro does not enumerate."""
    confusion, prevalence = annotator_priors(num_annotators=3, num_classes=2)
    with numpyro.plate("items", 12):
        truth = numpyro.sample("truth", dist.Categorical(prevalence))
    with numpyro.plate("labels", len(label)):
        numpyro.sample("label", dist.Categorical(confusion[annotator, truth[item]]), obs=label)


def labels_in_wide_form(label, is_there) -> None:
    """The same with labels (item, annotator), some of which are masked: this it does."""
    confusion, prevalence = annotator_priors(num_annotators=3, num_classes=2)
    with numpyro.plate("items", 12, dim=-2):
        truth = numpyro.sample(
            "truth", dist.Categorical(prevalence), infer={"enumerate": "parallel"}
        )
        with numpyro.plate("annotators", 3, dim=-1), handlers.mask(mask=is_there):
            probs = Vindex(confusion)[np.arange(3), truth, :]
            numpyro.sample("label", dist.Categorical(probs), obs=label)


def masked_chain(counts) -> None:
    """Counts (time, sequence), of which those past a sequence's end are masked."""
    transition = numpyro.sample("transition", dist.Dirichlet(1 + np.eye(2)).to_event(1))
    rate = numpyro.sample("rate", dist.Gamma(np.array([8.0, 30.0]), 2.0).to_event(1))

    def step(carry, count):
        before, time = carry
        with numpyro.plate("sequences", len(LENGTHS)):
            state = numpyro.sample(
                "state", dist.Categorical(transition[before]), infer={"enumerate": "parallel"}
            )
            with handlers.mask(mask=time < LENGTHS):
                numpyro.sample("count", dist.Poisson(rate[state]), obs=count)
        return (state, time + 1), None

    scan(step, (jnp.zeros(len(LENGTHS), int), 0), counts)


def factorial_chain(x) -> None:
    """Two chains, which one series depends on."""
    first = numpyro.sample("first", dist.Dirichlet(1.5 + np.eye(2)).to_event(1))
    second = numpyro.sample("second", dist.Dirichlet(1.5 + np.eye(2)).to_event(1))
    loc = numpyro.sample("loc", dist.Normal(np.array([[-6.0, -2.0], [2.0, 6.0]]), 1.0).to_event(2))

    def step(before, now):
        a = numpyro.sample("a", dist.Categorical(first[before[0]]), infer={"enumerate": "parallel"})
        b = numpyro.sample(
            "b", dist.Categorical(second[before[1]]), infer={"enumerate": "parallel"}
        )
        numpyro.sample("x", dist.Normal(loc[a, b], 1.0), obs=now)
        return (a, b), None

    scan(step, (0, 0), x)


def mixture() -> Case:
    """Return thirty points."""
    rng = np.random.default_rng(0)
    x = rng.normal(np.array([-4.0, 0.0, 4.0]).repeat(10))
    start = {"weights": np.full(3, 1 / 3), "loc": np.array([-4.0, 0.0, 4.0]), "scale": 1.0}
    return Case("mixture", mixture_of_normals, (x,), start, WARMUP, ROUNDS)


def long_form() -> Case:
    """Return thirty labels of twelve items, by three annotators."""
    rng = np.random.default_rng(1)
    pairs = np.sort(rng.permutation(36)[:30])
    item, annotator = pairs // 3, pairs % 3
    label = np.where(rng.random(30) < 0.8, item % 2, 1 - item % 2)
    wide, is_there = np.zeros((2, 36), int)
    wide[pairs], is_there[pairs] = label, 1
    enumerated = labels_in_wide_form, (wide.reshape(12, 3), is_there.reshape(12, 3) > 0)
    start = {"confusion": np.full((3, 2, 2), 0.2) + 0.6 * np.eye(2), "prevalence": np.full(2, 0.5)}
    data = item, annotator, label
    return Case(
        "labels, long form", labels_in_long_form, data, start, WARMUP, ROUNDS, enumerated=enumerated
    )


def with_masks() -> Case:
    """Return three sequences of 12, 7 and 9 counts."""
    rng = np.random.default_rng(2)
    states = (np.arange(12)[:, None] + np.arange(3)) // 4 % 2
    counts = rng.poisson(np.array([4.0, 15.0])[states])
    start = {"transition": (1 + np.eye(2)) / 3, "rate": np.array([4.0, 15.0])}
    return Case("chain with masks", masked_chain, (counts,), start, WARMUP, ROUNDS)


def factorial() -> Case:
    """Return a series of twelve."""
    rng = np.random.default_rng(3)
    steps = np.arange(12)
    loc = np.array([[-6.0, -2.0], [2.0, 6.0]])
    x = rng.normal(loc[steps // 3 % 2, steps // 2 % 2])
    stays = (1 + np.eye(2)) / 3
    start = {"first": stays, "second": stays, "loc": loc}
    return Case("factorial chain", factorial_chain, (x,), start, WARMUP, ROUNDS)
