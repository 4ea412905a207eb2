"""Latent class analysis: which kinds of respondents are there, and how does each kind answer?

A subject i is of one class, and given the class the answers to the items j are independent.

      w ──▶ (z_i) ──▶ [x_ij] ◀── p_kj
              └─────────┴── plate "subjects"

    z_i  ~ Categorical(w)                              latent `latent_class`
    x_ij ~ Bernoulli(p_{z_i j})                        `answers`, 0 or 1

with w = `weights` (class,) and p = `probs` (class, item). In long form each answer that was given
is a row n: subject `subject[n]` answered `answer[n]` to item `item[n]`. A missing answer is an
absent row.

      w ──▶ (z_i) ──▶ [x_n] ◀── p_kj          i = i_n and j = j_n: the subject and the item of row n
              │         └── plate "answers"
              └── plate "subjects"

    x_n ~ Bernoulli(p_{z_{i_n} j_n})                   `answer`

With C answers instead of two, each class has a distribution over them,

    x_n ~ Categorical(p_{z_{i_n} j_n})                 `answer`, 0 … C − 1

where p has the shape (class, item, answer). Two answers are the case C = 2: p_kj1 = p_kj and
p_kj0 = 1 − p_kj.

E-step, where the product is over the answers that subject i gave:

    r_ik = w_k Π_{n: i_n = i} p_{k j_n x_n} / Σ_l w_l Π_{n: i_n = i} p_{l j_n x_n}               (1)

M-step: expected counts, normalized, of I subjects.

    w_k   = Σ_i r_ik / I                                                                         (2)
    p_kjc = Σ_{n: j_n = j, x_n = c} r_{i_n k} / Σ_{n: j_n = j} r_{i_n k}                         (3)

Source: Lazarsfeld & Henry (1968), Latent Structure Analysis, for the model; Goodman (1974),
"Exploratory latent structure analysis using both identifiable and unidentifiable models",
Biometrika 61, for the iteration (1) to (3), which is EM.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.typing import ArrayLike
from jaxtyping import Float, Int
from numpyro.distributions import constraints


def program(answers: Int[ArrayLike, "subject item"], num_classes: int) -> None:
    """Every subject answers every item, with 0 or 1.

    Parameters: `weights` (class,) on the simplex and `probs` (class, item), each a probability. The
    start: the best of several short runs; with `init="program"` or parameters that are given, equal
    weights, and probabilities at random in [1/4, 3/4]: no answer tells the classes apart for
    certain.
    """
    weights, probs = _weights(num_classes), _probs(num_classes, answers.shape[1])
    with numpyro.plate("subjects", len(answers)):
        latent_class = numpyro.sample(
            "latent_class", dist.Categorical(weights), infer={"start": "short-runs"}
        )
        numpyro.sample("answers", dist.Bernoulli(probs[latent_class]).to_event(1), obs=answers)


def long_program(
    subject: Int[ArrayLike, "row"],
    item: Int[ArrayLike, "row"],
    answer: Int[ArrayLike, "row"],
    num_subjects: int,
    num_items: int,
    num_classes: int,
) -> None:
    """Row n says that `subject[n]` answered `answer[n]`, 0 or 1, to `item[n]`.

    Parameters and start as in `program`.
    """
    weights, probs = _weights(num_classes), _probs(num_classes, num_items)
    with numpyro.plate("subjects", num_subjects):
        latent_class = numpyro.sample(
            "latent_class", dist.Categorical(weights), infer={"start": "short-runs"}
        )
    with numpyro.plate("answers", len(answer)):
        numpyro.sample("answer", dist.Bernoulli(probs[latent_class[subject], item]), obs=answer)


def categorical_program(
    subject: Int[ArrayLike, "row"],
    item: Int[ArrayLike, "row"],
    answer: Int[ArrayLike, "row"],
    num_subjects: int,
    num_items: int,
    num_answers: int,
    num_classes: int,
) -> None:
    """Row n says that `subject[n]` answered `answer[n]`, from 0 on, to `item[n]`.

    Parameters: `weights` (class,) and each row of `probs` (class, item, answer) on the simplex. The
    start is that of `program`, where rows of `probs` are uniformly at random.
    """
    weights = _weights(num_classes)
    probs = numpyro.param(
        "probs",
        lambda rng_key: jax.random.dirichlet(
            rng_key, jnp.ones(num_answers), (num_classes, num_items)
        ),
        constraint=constraints.simplex,
    )
    with numpyro.plate("subjects", num_subjects):
        latent_class = numpyro.sample(
            "latent_class", dist.Categorical(weights), infer={"start": "short-runs"}
        )
    with numpyro.plate("answers", len(answer)):
        numpyro.sample("answer", dist.Categorical(probs[latent_class[subject], item]), obs=answer)


def _weights(num_classes: int) -> Float[ArrayLike, "class"]:
    """Declare w, equal."""
    return numpyro.param(
        "weights", jnp.full(num_classes, 1 / num_classes), constraint=constraints.simplex
    )


def _probs(num_classes: int, num_items: int) -> Float[ArrayLike, "class item"]:
    """Declare p of two answers, at random."""
    return numpyro.param(
        "probs",
        lambda rng_key: jax.random.uniform(
            rng_key, (num_classes, num_items), minval=0.25, maxval=0.75
        ),
        constraint=constraints.unit_interval,
    )


def hand_derived_step(
    params: Mapping[str, ArrayLike], answers: Int[ArrayLike, "subject item"], num_classes: int
) -> dict[str, np.ndarray]:
    """Return the parameters of `program` after one EM step.

    It is that of `long_program` on a row for each answer.
    """
    x = np.asarray(answers)
    subject, item = np.indices(x.shape).reshape(2, -1)
    return long_hand_derived_step(params, subject, item, x.reshape(-1), *x.shape, num_classes)


def long_hand_derived_step(
    params: Mapping[str, ArrayLike],
    subject: Int[ArrayLike, "row"],
    item: Int[ArrayLike, "row"],
    answer: Int[ArrayLike, "row"],
    num_subjects: int,
    num_items: int,
    num_classes: int,
) -> dict[str, np.ndarray]:
    """Return the parameters of `long_program` after one EM step.

    It is that of `categorical_program` with two answers.
    """
    ones = np.asarray(params["probs"], np.float64)
    both = {"weights": params["weights"], "probs": np.stack([1 - ones, ones], axis=-1)}
    after = categorical_hand_derived_step(
        both, subject, item, answer, num_subjects, num_items, 2, num_classes
    )
    return {"weights": after["weights"], "probs": after["probs"][..., 1]}


def categorical_hand_derived_step(
    params: Mapping[str, ArrayLike],
    subject: Int[ArrayLike, "row"],
    item: Int[ArrayLike, "row"],
    answer: Int[ArrayLike, "row"],
    num_subjects: int,
    num_items: int,
    num_answers: int,
    num_classes: int,
) -> dict[str, np.ndarray]:
    """Return the parameters of `categorical_program` after one EM step, by equations (1) to (3).

    A subject without answers has the weights for its posterior. Where no answer to an item is
    expected from a class, its `probs` stay.
    """
    subject, item, answer = (np.asarray(index) for index in (subject, item, answer))
    weights, probs = (np.asarray(params[name], np.float64) for name in ("weights", "probs"))

    # (1): a sum of logarithms over the answers of each subject; -inf where a class cannot give one.
    with np.errstate(divide="ignore"):
        log_joint = np.tile(np.log(weights), (num_subjects, 1))
        np.add.at(log_joint, subject, np.log(probs)[:, item, answer].T)
    r = np.exp(log_joint - np.logaddexp.reduce(log_joint, axis=1, keepdims=True))

    counts = np.zeros((num_items, num_answers, num_classes))
    np.add.at(counts, (item, answer), r[subject])
    counts = counts.transpose(2, 0, 1)  # (class, item, answer)
    totals = counts.sum(axis=2, keepdims=True)
    probs = np.divide(counts, totals, out=probs.copy(), where=totals > 0)  # (3)
    return {"weights": r.mean(axis=0), "probs": probs}  # (2)
