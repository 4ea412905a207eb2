"""Topics: what are the documents about? One topic for each document, or one for each word.

Mixture of multinomials: a document d has one topic, which chose all of its words.

      w ──▶ (z_d) ──▶ [n_d] ◀── φ_k
              └─────────┴── plate "documents"

    z_d ~ Categorical(w)                               latent `topic`
    n_d ~ Multinomial(Σ_v n_dv, φ_{z_d})               `counts`, a row of word counts

The same on rows, where most words do not occur in most documents: word `word[t]` occurs n_t =
`count[t]` times in document `document[t]`.

      w ──▶ (z_d) ──▶ [v_t] ◀── φ_k                    d = d_t, the document of row t
              │         └── plate "rows", with multiplicity n_t
              └── plate "documents"

    v_t ~ Categorical(φ_{z_{d_t}})                     `word`

Probabilistic latent semantic analysis (pLSA): each word has a topic, drawn from the proportions of
its document.

      θ_d ──▶ (z_t) ──▶ [v_t] ◀── φ_k                  d = d_t, the document of token t
                └─────────┴── plate "tokens", with multiplicity n_t

    z_t ~ Categorical(θ_{d_t})                         latent `topic`
    v_t ~ Categorical(φ_{z_t})                         `word`

with w = `weights`, φ = `words` (topic, word), θ = `theta` (document, topic). The tokens come as the
same triplets (`document`, `word`, `count`): n_t tokens of the same word in the same document share
one row.

E-step of the mixture (on counts the multinomial coefficient cancels; rows have none), and of pLSA:

    r_dk = w_k Π_v φ_kv^n_dv / Σ_j w_j Π_v φ_jv^n_dv,        n_dv = Σ_{t: d_t = d, v_t = v} n_t  (1)
    r_tk = θ_{d_t k} φ_{k v_t} / Σ_j θ_{d_t j} φ_{j v_t}                                         (2)

M-step: each probability is an expected count, normalized.

    mixture   w_k  = mean_d r_dk                                                                 (3)
              φ_kv ∝ Σ_d r_dk n_dv                                                               (4)
    pLSA      θ_dk ∝ Σ_{t: d_t = d} n_t r_tk                                                     (5)
              φ_kv ∝ Σ_{t: v_t = v} n_t r_tk                                                     (6)

Source: Nigam, McCallum, Thrun & Mitchell (2000), "Text classification from labeled and unlabeled
documents using EM", Machine Learning 39, without their prior; Hofmann (2001), "Unsupervised
learning by probabilistic latent semantic analysis", Machine Learning 42, in the asymmetric
parametrization.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.typing import ArrayLike
from jaxtyping import Float, Int, Real
from numpyro.distributions import constraints


def mixture_program(counts: Real[ArrayLike, "document vocabulary"], num_topics: int) -> None:
    """One topic for each document. `counts` are how often each word occurs in each document.

    Parameters: `weights` (topic,) and each row of `words` (topic, vocabulary) on the simplex. The
    weights start equal, the rows of `words` uniformly at random.
    """
    weights, words = _weights(num_topics), _words(num_topics, counts.shape[1])
    with numpyro.plate("documents", len(counts)):
        topic = numpyro.sample("topic", dist.Categorical(weights))
        numpyro.sample("counts", dist.Multinomial(counts.sum(-1), words[topic]), obs=counts)


def sparse_mixture_program(
    document: Int[ArrayLike, "row"],
    word: Int[ArrayLike, "row"],
    count: Real[ArrayLike, "row"],
    num_documents: int,
    num_words: int,
    num_topics: int,
) -> None:
    """One topic for each document; `word[t]` occurs `count[t]` times in `document[t]`.

    The log-likelihood is that of `mixture_program` less the logarithms of the multinomial
    coefficients. Parameters and start as there.
    """
    weights, words = _weights(num_topics), _words(num_topics, num_words)
    with numpyro.plate("documents", num_documents):
        topic = numpyro.sample("topic", dist.Categorical(weights))
    with numpyro.plate("rows", len(word)), numpyro.handlers.scale(scale=count):
        numpyro.sample("word", dist.Categorical(words[topic[document]]), obs=word)


def plsa_program(
    document: Int[ArrayLike, "row"],
    word: Int[ArrayLike, "row"],
    count: Real[ArrayLike, "row"],
    num_documents: int,
    num_words: int,
    num_topics: int,
) -> None:
    """One topic for each token; `word[t]` occurs `count[t]` times in `document[t]`.

    Parameters: each row of `theta` (document, topic) and of `words` (topic, word) on the simplex.
    The topic proportions start equal, the rows of `words` uniformly at random.
    """
    theta = numpyro.param(
        "theta",
        jnp.full((num_documents, num_topics), 1 / num_topics),
        constraint=constraints.simplex,
    )
    words = _words(num_topics, num_words)
    with numpyro.plate("tokens", len(word)), numpyro.handlers.scale(scale=count):
        topic = numpyro.sample("topic", dist.Categorical(theta[document]))
        numpyro.sample("word", dist.Categorical(words[topic]), obs=word)


def _weights(num_topics: int) -> Float[ArrayLike, "topic"]:
    """Declare w, equal."""
    return numpyro.param(
        "weights", jnp.full(num_topics, 1 / num_topics), constraint=constraints.simplex
    )


def _words(num_topics: int, num_words: int) -> Float[ArrayLike, "topic word"]:
    """Declare φ, a distribution over words for each topic, uniformly at random on the simplex."""
    return numpyro.param(
        "words",
        lambda rng_key: jax.random.dirichlet(rng_key, jnp.ones(num_words), (num_topics,)),
        constraint=constraints.simplex,
    )


def mixture_hand_derived_step(
    params: Mapping[str, ArrayLike], counts: Real[ArrayLike, "document vocabulary"], num_topics: int
) -> dict[str, np.ndarray]:
    """Return the parameters of `mixture_program` after one EM step, by (1), (3) and (4).

    A topic that no word is expected from keeps its row of `words`.
    """
    n = np.asarray(counts, np.float64)
    weights, words = (np.asarray(params[name], np.float64) for name in ("weights", "words"))

    # (1): log Π_v φ_kv^n_dv as a matrix product. There 0⁰ = 1, and a topic without a word that
    # occurs has -inf: 0 · log 0 would be NaN.
    log_words = np.log(words, where=words > 0, out=np.zeros_like(words))
    cannot = n @ (words == 0).T > 0
    with np.errstate(divide="ignore"):
        log_joint = np.log(weights) + np.where(cannot, -np.inf, n @ log_words.T)
    r = np.exp(log_joint - np.logaddexp.reduce(log_joint, axis=1, keepdims=True))

    return {"weights": r.mean(axis=0), "words": _normalized(r.T @ n, words)}  # (3), (4)


def sparse_mixture_hand_derived_step(
    params: Mapping[str, ArrayLike],
    document: Int[ArrayLike, "row"],
    word: Int[ArrayLike, "row"],
    count: Real[ArrayLike, "row"],
    num_documents: int,
    num_words: int,
    num_topics: int,
) -> dict[str, np.ndarray]:
    """Return the parameters of `sparse_mixture_program` after one EM step, by (1), (3), (4).

    Each is a sum over rows.

    A document without words has the weights for its posterior, and a topic that no word is expected
    from keeps its row of `words`.
    """
    d, v = np.asarray(document), np.asarray(word)
    n = np.asarray(count, np.float64)[:, None]
    weights, words = (np.asarray(params[name], np.float64) for name in ("weights", "words"))

    with np.errstate(divide="ignore"):
        log_joint = np.tile(np.log(weights), (num_documents, 1))
        log_words = np.log(words).T[v]  # (row, topic)
    np.add.at(log_joint, d, np.multiply(n, log_words, out=np.zeros_like(log_words), where=n > 0))
    r = np.exp(log_joint - np.logaddexp.reduce(log_joint, axis=1, keepdims=True))  # (1)

    word_topic = np.zeros((num_words, num_topics))
    np.add.at(word_topic, v, n * r[d])
    return {"weights": r.mean(axis=0), "words": _normalized(word_topic.T, words)}  # (3), (4)


def plsa_hand_derived_step(
    params: Mapping[str, ArrayLike],
    document: Int[ArrayLike, "row"],
    word: Int[ArrayLike, "row"],
    count: Real[ArrayLike, "row"],
    num_documents: int,
    num_words: int,
    num_topics: int,
) -> dict[str, np.ndarray]:
    """Return the parameters of `plsa_program` after one EM step, by (2), (5) and (6).

    A document without tokens keeps its row of `theta`, and a topic that no token is expected from
    its row of `words`.
    """
    d, v = np.asarray(document), np.asarray(word)
    n = np.asarray(count, np.float64)
    theta, words = (np.asarray(params[name], np.float64) for name in ("theta", "words"))

    with np.errstate(divide="ignore"):
        log_joint = np.log(theta)[d] + np.log(words).T[v]  # (row, topic)
    r = np.exp(log_joint - np.logaddexp.reduce(log_joint, axis=1, keepdims=True))  # (2)

    document_topic = np.zeros((num_documents, num_topics))
    word_topic = np.zeros((num_words, num_topics))
    np.add.at(document_topic, d, n[:, None] * r)  # (5)
    np.add.at(word_topic, v, n[:, None] * r)  # (6)
    return {"theta": _normalized(document_topic, theta), "words": _normalized(word_topic.T, words)}


def _normalized(
    expected_counts: Float[np.ndarray, "row value"], otherwise: Float[np.ndarray, "row value"]
) -> Float[np.ndarray, "row value"]:
    """Return each row divided by its sum; where nothing is expected, the row of `otherwise`."""
    totals = expected_counts.sum(axis=1, keepdims=True)
    return np.divide(expected_counts, totals, out=otherwise.copy(), where=totals > 0)
