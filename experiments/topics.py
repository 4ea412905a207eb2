"""What are the sections of the Constitution about, and the modules of Python's standard library?

One topic a document (a mixture of multinomials), and one topic a word (pLSA), on word counts
without stop words. Words that nearly every document has, such as "shall", say nothing of its topic
and are left out too.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes

from emjax import EM, EMResult, compare_updates
from emjax.models import topics
from experiments import canvas, report
from experiments.corpora import WordCounts, constitution, standard_library, word_counts

NUM_TOPICS = 6  # of the Constitution
NUM_LIBRARY_TOPICS = 12
SHOWN_WORDS = 8
MIXTURE = """Mixture of multinomials, one topic a section (its likelihood has the multinomial
coefficients, that of pLSA has not)"""
TOLERANCE = 1e-6  # of the log-likelihood: the topics no longer change to the eye


class Topics(NamedTuple):
    """Fitted topics.

    - `words`: (topic, word), distributions over the words.
    - `shares`: (document, topic), distributions over the topics.
    - `log_likelihood`: in nats, all words.
    - `num_steps`, `status`: how many steps EM took, and why it stopped.
    """

    words: np.ndarray
    shares: np.ndarray
    log_likelihood: float
    num_steps: int
    status: str


def constitution_counts() -> WordCounts:
    """Return the words of the Constitution that tell its sections apart.

    Two sections or more hold them, and at most a quarter.
    """
    return word_counts(constitution(), min_documents=2, max_share=0.25)


def library_counts() -> WordCounts:
    """Return the words of docstrings that tell modules apart.

    Five modules or more have them, and at most three in ten.
    """
    return word_counts(standard_library(), min_documents=5, max_share=0.3)


def triplets(counts: np.ndarray) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Return document, word and count of every pair that occurs."""
    document, word = np.nonzero(counts)
    return jnp.asarray(document), jnp.asarray(word), jnp.asarray(counts[document, word], float)


def plsa_arguments(corpus: WordCounts, num_topics: int) -> tuple:
    """Return the arguments of `topics.plsa_program`."""
    return *triplets(corpus.counts), *corpus.counts.shape, num_topics


def mixture(corpus: WordCounts, num_topics: int, num_restarts: int) -> Topics:
    """Return the best mixture, one topic a document.

    `shares` is the posterior of each document's topic.
    """
    em = EM(topics.mixture_program, tol=TOLERANCE, num_restarts=num_restarts)
    arguments = jnp.asarray(corpus.counts, float), num_topics
    result = em.run(jax.random.key(0), *arguments)
    shares = em.posterior(result.params, *arguments)["topic"]
    return fitted(result, result.params["words"], shares)


def plsa(corpus: WordCounts, num_topics: int, num_restarts: int) -> Topics:
    """Return the best pLSA, one topic a word.

    `shares` are the proportions of the topics in each document.
    """
    em = EM(topics.plsa_program, tol=TOLERANCE, num_restarts=num_restarts)
    result = em.run(jax.random.key(0), *plsa_arguments(corpus, num_topics))
    return fitted(result, result.params["words"], result.params["theta"])


def fitted(result: EMResult, words: jax.Array, shares: jax.Array) -> Topics:
    """Return the topics as NumPy arrays, the commonest first."""
    words, shares = np.asarray(words), np.asarray(shares)
    order = np.argsort(-shares.sum(axis=0))
    return Topics(
        words[order],
        shares[:, order],
        float(result.log_likelihood),
        int(result.num_steps),
        report.outcome(result),
    )


def characteristic_words(
    corpus: WordCounts, words: np.ndarray, num: int = SHOWN_WORDS
) -> np.ndarray:
    """Return the indices (topic, num) of the words that tell a topic most.

    They are those of the largest p(w | topic) log [p(w | topic) / p(w)].
    """
    overall = corpus.counts.sum(axis=0) / corpus.counts.sum()
    # 0 log 0 = 0
    weight = np.where(words > 0, words * np.log(np.where(words > 0, words / overall, 1)), 0)
    return np.argsort(-weight, axis=1)[:, :num]


def main_documents(corpus: WordCounts, shares: np.ndarray, num: int) -> list[list[str]]:
    """Return, for each topic, the documents with most words of it."""
    words_of = shares * corpus.counts.sum(axis=1, keepdims=True)
    main = np.argsort(-words_of, axis=0)[:num].T  # (topic, num)
    return np.array(corpus.documents)[main].tolist()


def run(output: Path, quick: bool) -> None:
    """Print the tables, draw the figures."""
    corpus = constitution_counts()
    report.remark("""A document is a bag of words: how often it holds each. Words of three letters
        or more count, without scikit-learn's English stop words, and without those that very many
        documents hold or very few.""")
    print_constitution(corpus, quick)
    proportions = plsa(corpus, NUM_TOPICS, num_restarts=5 if quick else 30)
    print_topics(corpus, proportions, "pLSA, one topic a word", num_documents=4)
    draw_constitution(output / "constitution.png", corpus, proportions)

    library = library_counts()
    report.heading(f"Docstrings of Python's standard library: {describe(library, 'modules')}")
    modules = plsa(library, NUM_LIBRARY_TOPICS, num_restarts=1 if quick else 5)
    print_topics(library, modules, "pLSA, one topic a word", num_documents=4)
    draw_library(output / "standard_library.png", library, modules)
    print_comparisons(corpus)


def print_constitution(corpus: WordCounts, quick: bool) -> None:
    """Print what is in the text, and its topics by section."""
    report.heading(
        f"The Constitution of the United States with its amendments: {describe(corpus, 'sections')}"
    )
    by_section = mixture(corpus, NUM_TOPICS, num_restarts=10 if quick else 100)
    print_topics(corpus, by_section, MIXTURE, num_documents=4)


def describe(corpus: WordCounts, kind: str) -> str:
    """Return the size of a corpus in words."""
    return (
        f"{len(corpus.documents)} {kind}, {len(corpus.words):,} different words, "
        f"{corpus.counts.sum():,} in all"
    )


def print_topics(corpus: WordCounts, fit: Topics, model: str, num_documents: int) -> None:
    """Print the words and documents of each topic."""
    words = characteristic_words(corpus, fit.words)
    documents = main_documents(corpus, fit.shares, num_documents)
    rows = []
    for k in range(len(words)):
        share = f"{100 * fit.shares[:, k].mean():.0f}%"
        characteristic = " ".join(corpus.words[w] for w in words[k])
        rows.append([share, characteristic, "; ".join(map(short_name, documents[k]))])
    report.table(
        ["share", "characteristic words", "documents with most words of it"],
        rows,
        caption=f"""{model}: the best of its starts took {fit.num_steps} steps ({fit.status});
            log-likelihood {fit.log_likelihood:,.0f} nats, all words. The share is averaged over
            documents.""",
    )


def print_comparisons(corpus: WordCounts) -> None:
    """Print how far the generic updates are from those derived by hand."""
    report.heading(
        "Generic EM against the updates derived by hand (models/topics.py), on the Constitution"
    )
    counts = jnp.asarray(corpus.counts, float)
    rng = np.random.default_rng(0)
    words = jnp.asarray(rng.dirichlet(np.ones(counts.shape[1]), NUM_TOPICS))
    theta = jnp.asarray(rng.dirichlet(np.ones(NUM_TOPICS), len(counts)))
    em, step = EM(topics.mixture_program), topics.mixture_hand_derived_step
    start = {"weights": jnp.full(NUM_TOPICS, 1 / NUM_TOPICS), "words": words}
    print(compare_updates(em, step, start, counts, NUM_TOPICS))
    em, step = EM(topics.plsa_program), topics.plsa_hand_derived_step
    start = {"theta": theta, "words": words}
    print(compare_updates(em, step, start, *plsa_arguments(corpus, NUM_TOPICS)))


def short_name(document: str) -> str:
    """Return `Art. I.8` for `Article I, Section 8`, `Am. XIV.2` for `Amendment XIV, Section 2`."""
    shorter = document.replace("Article", "Art.").replace("Amendment", "Am.")
    return shorter.replace(", Section ", ".")


def draw_constitution(path: Path, corpus: WordCounts, fit: Topics) -> None:
    """Draw the words of each topic, and the topics of each section."""
    with canvas.figure(
        path,
        "From its words alone: what each section of the Constitution is about",
        f"""pLSA with {NUM_TOPICS} topics on {describe(corpus, "sections")}. Above: the words that
        tell each topic most, with p(word | topic). Below: the share of each topic in each section,
        in the colors of the topics.
        """,
        width=13,
        height=6.4,
    ) as figure:
        above, below = figure.subfigures(2, 1, height_ratios=[1, 1.25])
        draw_words(above.subplots(1, NUM_TOPICS), corpus, fit, canvas.PALETTE)
        draw_shares(below.subplots(), corpus, fit)


def draw_words(panels: np.ndarray, corpus: WordCounts, fit: Topics, colors: Sequence[str]) -> None:
    """Draw a bar for each characteristic word of each topic."""
    characteristic = characteristic_words(corpus, fit.words)
    number = {"va": "center", "fontsize": 7.5, "color": canvas.GREY}
    for k, (axes, color) in enumerate(zip(panels, colors, strict=True)):
        words, probs = characteristic[k], fit.words[k, characteristic[k]]
        axes.barh(range(len(words)), probs, color=color, height=0.7)
        for row, prob in enumerate(probs):
            axes.text(prob, row, f" {100 * prob:.1f}%", **number)
        axes.set(yticks=range(len(words)), yticklabels=[corpus.words[w] for w in words])
        axes.set(ylim=(len(words) - 0.5, -0.5), xticks=[], xlim=(0, 1.3 * probs.max()))
        axes.spines[["bottom", "left"]].set_visible(False)
        axes.tick_params(axis="y", length=0, labelsize=9)


def draw_shares(axes: Axes, corpus: WordCounts, fit: Topics) -> None:
    """Draw a stacked bar for each document, in the order of the text."""
    bottom = np.zeros(len(fit.shares))
    for share, color in zip(fit.shares.T, canvas.PALETTE, strict=True):
        axes.bar(range(len(share)), share, bottom=bottom, color=color, width=0.86)
        bottom += share
    axes.set(
        xticks=range(len(bottom)),
        xlim=(-0.6, len(bottom) - 0.4),
        ylim=(0, 1),
        yticks=[0, 0.5, 1],
        yticklabels=["0", "½", "1"],
        ylabel="share of topic",
    )
    axes.set_xticklabels([short_name(name) for name in corpus.documents], rotation=90, fontsize=7)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def draw_library(path: Path, corpus: WordCounts, fit: Topics) -> None:
    """Draw the words of each topic of the standard library under its modules."""
    with canvas.figure(
        path,
        "From their docstrings alone, the modules of Python's standard library sort themselves by "
        "subject",
        f"""pLSA with {NUM_LIBRARY_TOPICS} topics on {describe(corpus, "modules")}. Bars: the words
        that tell a topic most, with p(word | topic); above them the modules with most words of it.
        """,
        width=13,
        height=7.2,
    ) as figure:
        panels = figure.subplots(3, NUM_LIBRARY_TOPICS // 3).ravel()
        draw_words(panels, corpus, fit, [canvas.BLUE] * NUM_LIBRARY_TOPICS)
        for axes, modules in zip(panels, main_documents(corpus, fit.shares, 3), strict=True):
            shown = modules if sum(map(len, modules)) < 34 else modules[:2]
            axes.set_title(", ".join(shown), fontsize=8.5, weight="bold")
