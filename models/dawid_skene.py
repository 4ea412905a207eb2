"""Dawid–Skene: what is the truth, when every annotator errs in a way of their own?

Annotator a answers l for an item of class k with probability π_akl, their confusion matrix. The
labels come in long form, one row for each: annotator `annotator[n]` gave item `item[n]` the label
`label[n]`. Nobody labels every item, and an annotator may label an item twice.

      p ──▶ (z_i) ──▶ [l_n] ◀── π_a         i = i_n and a = a_n: the item and the annotator of row n
              │         └── plate "labels"
              └── plate "items"

    z_i ~ Categorical(p)                               latent `truth`
    l_n ~ Categorical(π_{a_n, z_{i_n}})                `label`

with p = `prevalence` (class,) and π = `confusion` (annotator, class, label).

E-step. The labels of an item are independent given its class:

    r_ik = p(z_i = k | l)
         = p_k Π_{n: i_n = i} π_{a_n k l_n} / Σ_j p_j Π_{n: i_n = i} π_{a_n j l_n}               (1)

M-step. As if r_ik items of class k had been counted, of I items:

    p_k   = Σ_i r_ik / I                                                                         (2)
    π_akl ∝ Σ_{n: a_n = a, l_n = l} r_{i_n k}           normalized over l                        (3)

Renumbering the classes renumbers the columns of r and nothing else: what ties class k to label k is
the start alone. There the classes are equally common and every annotator answers correctly half of
the time and at random in the other half, so that the first E-step is a soft majority vote: among K
classes, each label multiplies the odds of its class by K + 1.

Source: Dawid & Skene (1979), "Maximum likelihood estimation of observer error-rates using the EM
algorithm", Applied Statistics 28, (2.5), (2.4) and (2.3) for (1), (2) and (3); the start: ours
(theirs is the share of each label, section 3).
"""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.typing import ArrayLike
from jaxtyping import Int
from numpyro.distributions import constraints


def program(
    item: Int[ArrayLike, "row"],
    annotator: Int[ArrayLike, "row"],
    label: Int[ArrayLike, "row"],
    num_items: int,
    num_annotators: int,
    num_classes: int,
) -> None:
    """The generative program. Row n says that `annotator[n]` gave `item[n]` the label `label[n]`.

    Parameters: `prevalence` (class,) and each row of `confusion` (annotator, class, label) on the
    simplex. The start breaks the symmetry of the classes: every confusion matrix is half the
    identity and half uniform.
    """
    prevalence = numpyro.param(
        "prevalence", jnp.full(num_classes, 1 / num_classes), constraint=constraints.simplex
    )
    mostly_right = (jnp.eye(num_classes) + 1 / num_classes) / 2
    confusion = numpyro.param(
        "confusion", jnp.tile(mostly_right, (num_annotators, 1, 1)), constraint=constraints.simplex
    )
    with numpyro.plate("items", num_items):
        truth = numpyro.sample("truth", dist.Categorical(prevalence))
    with numpyro.plate("labels", len(label)):
        numpyro.sample("label", dist.Categorical(confusion[annotator, truth[item]]), obs=label)


def hand_derived_step(
    params: Mapping[str, ArrayLike],
    item: Int[ArrayLike, "row"],
    annotator: Int[ArrayLike, "row"],
    label: Int[ArrayLike, "row"],
    num_items: int,
    num_annotators: int,
    num_classes: int,
) -> dict[str, np.ndarray]:
    """Return the parameters after one EM step, by equations (1) to (3).

    An item without labels has the prevalence for its posterior. Where an annotator labeled nothing
    that could be of class k, row k of their `confusion` stays.
    """
    item, annotator, label = (np.asarray(index) for index in (item, annotator, label))
    prevalence, confusion = (
        np.asarray(params[name], np.float64) for name in ("prevalence", "confusion")
    )

    # (1): a sum of logarithms over the labels of each item; -inf where they rule a class out.
    with np.errstate(divide="ignore"):
        log_joint = np.tile(np.log(prevalence), (num_items, 1))
        np.add.at(log_joint, item, np.log(confusion)[annotator, :, label])
    r = np.exp(log_joint - np.logaddexp.reduce(log_joint, axis=1, keepdims=True))

    counts = np.zeros((num_annotators, num_classes, num_classes))  # (annotator, label, class)
    np.add.at(counts, (annotator, label), r[item])
    counts = counts.swapaxes(1, 2)
    totals = counts.sum(axis=2, keepdims=True)
    confusion = np.divide(counts, totals, out=confusion.copy(), where=totals > 0)  # (3)
    return {"prevalence": r.mean(axis=0), "confusion": confusion}  # (2)
