"""Topics of simulated documents: mixtures of multinomials by EM, and scikit-learn's LDA."""

import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.distributions import constraints
from scipy.sparse import csr_array
from sklearn.decomposition import LatentDirichletAllocation

from emjax import EM

NUM_TOPICS, NUM_WORDS, LENGTH = 20, 1000, 60
BATCH_SIZE = 256
# how much a topic is told before it has seen a word: a word that did not occur is not impossible
PRIOR = 0.1
# of the topics of a document: the smaller, the fewer has each
CONCENTRATIONS = {"of one topic": 0.001, "of several topics": 0.1}
PASSES = (1, 2, 4, 8, 16)

BATCH = "mixture, EM"
ONLINE = "mixture, online EM"
LDA = "LDA online, scikit-learn"


class Corpus(NamedTuple):
    """Word counts, (document, word) each.

    - `train`: of the documents that topics are learned from.
    - `given`, `held_out`: of others, two halves of each.
    """

    train: np.ndarray
    given: np.ndarray
    held_out: np.ndarray


class Point(NamedTuple):
    """The perplexity of words held out, after so many seconds; `effort` is what was done."""

    effort: str
    seconds: float
    perplexity: float


def corpus(name: str, quick: bool) -> Corpus:
    """Return documents of some topics each."""
    num_documents, num_words = (1000, 200) if quick else (20_000, NUM_WORDS)
    rng = np.random.default_rng(0)
    words = rng.dirichlet(np.full(num_words, 0.05), NUM_TOPICS)

    def counts(number: int) -> np.ndarray:
        # a gamma of so small a shape may round to zero in all of its topics: take one of them
        shares = rng.dirichlet(np.full(NUM_TOPICS, CONCENTRATIONS[name]), number)
        shares = np.where(np.isnan(shares), 1 / NUM_TOPICS, shares)
        shares /= shares.sum(1, keepdims=True)
        return rng.multinomial(LENGTH, shares @ words).astype(np.float32)

    train, tested = counts(num_documents), counts(num_documents // 10)
    given = rng.binomial(tested.astype(int), 0.5).astype(np.float32)
    return Corpus(train, given, tested - given)


def program(counts):
    """One topic a document, as `emjax.models.topics`, and a prior of the words of each."""
    num_words = counts.shape[1]
    weights = numpyro.param(
        "weights", jnp.full(NUM_TOPICS, 1 / NUM_TOPICS), constraint=constraints.simplex
    )
    with numpyro.plate("topics", NUM_TOPICS):
        words = numpyro.sample("words", dist.Dirichlet(jnp.full(num_words, 1 + PRIOR)))
    with numpyro.plate("documents", len(counts)):
        topic = numpyro.sample("topic", dist.Categorical(weights))
        numpyro.sample("counts", dist.Multinomial(counts.sum(-1), words[topic]), obs=counts)


def curves(documents: Corpus, quick: bool) -> dict[str, list[Point]]:
    """Return what each method has come to after some work."""
    efforts = {ONLINE: ({"batch_size": BATCH_SIZE}, (0, 3, 10))}
    if not quick:
        efforts[BATCH] = {}, (3, 10, 30, 100)
    found = {}
    for method, (settings, steps) in efforts.items():
        of_method = steps[:1] if quick else steps
        found[method] = [of_mixture(documents, num, settings) for num in of_method]
    found[LDA] = of_lda(documents, PASSES[:1] if quick else PASSES)
    return found


def of_mixture(documents: Corpus, max_steps: int, settings: dict) -> Point:
    """Return what EM has come to after so many steps on all data."""
    em = EM(program, max_steps=max_steps, tol=1e-7, **settings)
    result, seconds = timed(lambda: em.run(jax.random.key(0), documents.train))
    weights, words = (np.asarray(result.params[name]) for name in ("weights", "words"))
    with np.errstate(divide="ignore"):
        log_joint = np.log(weights) + documents.given @ np.log(words).T
    shares = np.exp(log_joint - log_joint.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    num_passes = result.online.num_passes if result.online else 0
    effort = f"{num_passes} online passes, {result.num_steps} steps"
    return Point(effort, seconds, perplexity(shares @ words, documents.held_out))


def of_lda(documents: Corpus, passes: tuple[int, ...]) -> list[Point]:
    """Return what scikit-learn's online LDA has come to after so many passes."""
    points = []
    train, given = csr_array(documents.train), csr_array(documents.given)
    for number in passes:
        lda = LatentDirichletAllocation(
            NUM_TOPICS,
            learning_method="online",
            batch_size=BATCH_SIZE,
            max_iter=number,
            random_state=0,
            topic_word_prior=PRIOR,
        )
        _, seconds = timed(lambda lda=lda: lda.fit(train))
        words = lda.components_ / lda.components_.sum(1, keepdims=True)
        found = perplexity(lda.transform(given) @ words, documents.held_out)
        points.append(Point(f"{number} passes", seconds, found))
    return points


def timed(function: Callable) -> tuple:
    """Return what a function returns, and how many seconds it took."""
    begin = time.perf_counter()
    return function(), time.perf_counter() - begin


def perplexity(predicted: np.ndarray, counts: np.ndarray) -> float:
    """Return the exponential of the mean −log p of a word. `predicted`: p(word | document)."""
    log_p = np.log(np.where(counts > 0, predicted, 1))
    return float(np.exp(-(counts * log_p).sum() / counts.sum()))
