"""Who errs how: the six models of annotation of NumPyro's `examples/annotation.py`.

They are those of Paun et al. (2018), figures 1 to 6, in the idioms of the example: sizes read off
the data, `dim=-2`, `Vindex`, `where` on a latent, `reparam`, padded logits. Source: Paun,
Carpenter, Chamberlain, Hovy, Kruschwitz & Poesio (2018), "Comparing Bayesian models of
annotation", TACL 6; Dawid & Skene (1979); Hovy et al. (2013), "Learning whom to trust with MACE".
"""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import nn
from numpyro import handlers
from numpyro.infer.reparam import LocScaleReparam
from numpyro.ops.indexing import Vindex


def num_classes_of(labels):
    return int(np.max(labels)) + 1


def pooled(labels):
    """One confusion matrix for everybody."""
    num_classes, (num_items, num_positions) = num_classes_of(labels), labels.shape
    with numpyro.plate("class", num_classes):
        confusion = numpyro.sample("confusion", dist.Dirichlet(jnp.ones(num_classes)))
    prevalence = numpyro.sample("prevalence", dist.Dirichlet(jnp.ones(num_classes)))
    with numpyro.plate("item", num_items, dim=-2):
        truth = numpyro.sample(
            "truth", dist.Categorical(prevalence), infer={"enumerate": "parallel"}
        )
        with numpyro.plate("position", num_positions):
            numpyro.sample("label", dist.Categorical(confusion[truth]), obs=labels)


def dawid_skene(annotator, labels):
    """A confusion matrix for each annotator."""
    num_annotators, num_classes = int(np.max(annotator)) + 1, num_classes_of(labels)
    with numpyro.plate("annotator", num_annotators, dim=-2), numpyro.plate("class", num_classes):
        confusion = numpyro.sample("confusion", dist.Dirichlet(jnp.ones(num_classes)))
    prevalence = numpyro.sample("prevalence", dist.Dirichlet(jnp.ones(num_classes)))
    with numpyro.plate("item", labels.shape[0], dim=-2):
        truth = numpyro.sample("truth", dist.Categorical(prevalence))
        with numpyro.plate("position", labels.shape[1]):
            numpyro.sample(
                "label", dist.Categorical(Vindex(confusion)[annotator, truth, :]), obs=labels
            )


def mace(annotator, labels):
    """An annotator reports the truth, or spams."""
    num_annotators, num_classes = int(np.max(annotator)) + 1, num_classes_of(labels)
    with numpyro.plate("annotator", num_annotators):
        spam = numpyro.sample("spam", dist.Dirichlet(jnp.full(num_classes, 10)))
        trust = numpyro.sample("trust", dist.Beta(0.5, 0.5))
    with numpyro.plate("item", labels.shape[0], dim=-2):
        truth = numpyro.sample("truth", dist.Categorical(logits=jnp.zeros(num_classes)))
        with numpyro.plate("position", labels.shape[1]):
            is_spam = numpyro.sample("is_spam", dist.Bernoulli(1 - trust[annotator]))
            probs = jnp.where(
                is_spam[..., None] == 0, nn.one_hot(truth, num_classes), spam[annotator]
            )
            numpyro.sample("label", dist.Categorical(probs), obs=labels)


def padded(logits):
    """Return logits whose last entry is 0: a constant added to all of them would change nothing."""
    return jnp.pad(logits, [(0, 0)] * (jnp.ndim(logits) - 1) + [(0, 1)])


def row_prior(kind, num_classes):
    return kind.expand([num_classes - 1]).to_event(1)


def hierarchical_dawid_skene(annotator, labels):
    """Each annotator's logits scatter about everybody's."""
    num_annotators, num_classes = int(np.max(annotator)) + 1, num_classes_of(labels)
    with numpyro.plate("class", num_classes):
        center = numpyro.sample("center", row_prior(dist.Normal(0, 1), num_classes))
        spread = numpyro.sample("spread", row_prior(dist.HalfNormal(1), num_classes))
    with numpyro.plate("annotator", num_annotators, dim=-2), numpyro.plate("class", num_classes):
        with handlers.reparam(config={"logits": LocScaleReparam(0)}):
            logits = numpyro.sample("logits", dist.Normal(center, spread).to_event(1))
        logits = padded(logits)
    prevalence = numpyro.sample("prevalence", dist.Dirichlet(jnp.ones(num_classes)))
    with numpyro.plate("item", labels.shape[0], dim=-2):
        truth = numpyro.sample("truth", dist.Categorical(prevalence))
        with numpyro.plate("position", labels.shape[1]):
            numpyro.sample(
                "label", dist.Categorical(logits=Vindex(logits)[annotator, truth, :]), obs=labels
            )


def item_difficulty(labels):
    """Each item's logits scatter about those of its class."""
    num_classes = num_classes_of(labels)
    with numpyro.plate("class", num_classes):
        center = numpyro.sample("center", row_prior(dist.Normal(0, 1), num_classes))
        spread = numpyro.sample("spread", row_prior(dist.HalfNormal(1), num_classes))
    prevalence = numpyro.sample("prevalence", dist.Dirichlet(jnp.ones(num_classes)))
    with numpyro.plate("item", labels.shape[0], dim=-2):
        truth = numpyro.sample("truth", dist.Categorical(prevalence))
        with handlers.reparam(config={"logits": LocScaleReparam(0)}):
            logits = numpyro.sample("logits", dist.Normal(center[truth], spread[truth]).to_event(1))
            logits = padded(logits)
        with numpyro.plate("position", labels.shape[-1]):
            numpyro.sample("label", dist.Categorical(logits=logits), obs=labels)


def logistic_random_effects(annotator, labels):
    """Logits of the annotator less those of the item."""
    num_annotators, num_classes = int(np.max(annotator)) + 1, num_classes_of(labels)
    with numpyro.plate("class", num_classes):
        center = numpyro.sample("center", row_prior(dist.Normal(0, 1), num_classes))
        spread = numpyro.sample("spread", row_prior(dist.HalfNormal(1), num_classes))
        item_spread = numpyro.sample("item_spread", row_prior(dist.HalfNormal(1), num_classes))
    with (
        numpyro.plate("annotator", num_annotators, dim=-2),
        numpyro.plate("class", num_classes),
        handlers.reparam(config={"logits": LocScaleReparam(0)}),
    ):
        logits = numpyro.sample("logits", dist.Normal(center, spread).to_event(1))
        logits = padded(logits)
    prevalence = numpyro.sample("prevalence", dist.Dirichlet(jnp.ones(num_classes)))
    with numpyro.plate("item", labels.shape[0], dim=-2):
        truth = numpyro.sample("truth", dist.Categorical(prevalence))
        with handlers.reparam(config={"effect": LocScaleReparam(0)}):
            effect = numpyro.sample("effect", dist.Normal(0, item_spread[truth]).to_event(1))
            effect = padded(effect)
        with numpyro.plate("position", labels.shape[1]):
            numpyro.sample(
                "label",
                dist.Categorical(logits=Vindex(logits)[annotator, truth, :] - effect),
                obs=labels,
            )


def annotations(num_items, num_classes, seed):
    """Who annotates at each position (position,), and labels (item, position).

    The first annotator labels each item three times, as in the data of Dawid and Skene (1979).
    """
    rng = np.random.default_rng(seed)
    annotator = np.array([0, 0, 0, 1, 2, 3, 4])
    truth = rng.choice(num_classes, num_items, p=rng.dirichlet(np.full(num_classes, 3.0)))
    noise = rng.dirichlet(np.ones(num_classes), (5, num_classes))
    confusion = 0.75 * np.eye(num_classes) + 0.25 * noise
    labels = np.zeros((num_items, len(annotator)), int)
    for item, position in np.ndindex(labels.shape):
        labels[item, position] = rng.choice(
            num_classes, p=confusion[annotator[position], truth[item]]
        )
    return annotator, labels
