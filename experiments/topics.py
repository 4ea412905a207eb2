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


def plsa(corpus: WordCounts, num_topics: int, num_restarts: int, tol: float = TOLERANCE) -> Topics:
    """Return the best pLSA, one topic a word.

    `shares` are the proportions of the topics in each document.
    """
    em = EM(topics.plsa_program, tol=tol, num_restarts=num_restarts)
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
    proportions = plsa(corpus, NUM_TOPICS, num_restarts=2 if quick else 30)
    print_topics(corpus, proportions, "pLSA, one topic a word", num_documents=4)
    draw_words(output / "constitution_words.png", corpus, proportions)
    draw_sections(output / "constitution.png", corpus, proportions)

    library = library_counts()
    report.heading(f"Docstrings of Python's standard library: {describe(library, 'modules')}")
    of_library = (1, 1e-4) if quick else (5, TOLERANCE)
    modules = plsa(library, NUM_LIBRARY_TOPICS, *of_library)
    print_topics(library, modules, "pLSA, one topic a word", num_documents=4)
    draw_library(output / "standard_library.png", library, modules)
    print_comparisons(corpus)


def print_constitution(corpus: WordCounts, quick: bool) -> None:
    """Print what is in the text, and its topics by section."""
    report.heading(
        f"The Constitution of the United States with its amendments: {describe(corpus, 'sections')}"
    )
    by_section = mixture(corpus, NUM_TOPICS, num_restarts=3 if quick else 100)
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


def draw_words(path: Path, corpus: WordCounts, fit: Topics) -> None:
    """Draw a bar for each characteristic word of each topic."""
    with canvas.figure(
        path,
        "The topics of the Constitution, by the words that tell them most",
        f"""pLSA with {NUM_TOPICS} topics on {describe(corpus, "sections")}. The {SHOWN_WORDS} words
        that tell each topic most, by p(word | topic). The first topic has the largest share.""",
        width=11,
        height=2.3,
    ) as figure:
        panels = figure.subplots(1, NUM_TOPICS, sharex=True)
        characteristic = characteristic_words(corpus, fit.words)
        for k, (axes, color) in enumerate(zip(panels, canvas.PALETTE, strict=True)):
            shown = sorted(characteristic[k], key=lambda w: -fit.words[k, w])
            rows, probs = np.arange(len(shown)), fit.words[k, shown]
            axes.barh(rows, 100 * probs, color=color, height=0.7)
            axes.set_yticks(rows, [corpus.words[w] for w in shown])
            axes.set_title(f"topic {k + 1}")
            axes.tick_params(axis="y", length=0)
            axes.invert_yaxis()
            canvas.light_grid(axes, "x")
        figure.supxlabel("p(word | topic), %", fontsize=9.5)


def draw_sections(path: Path, corpus: WordCounts, fit: Topics) -> None:
    """Draw the topics of each section, those of one main topic together."""
    main, largest = fit.shares.argmax(axis=1), fit.shares.max(axis=1)
    words = characteristic_words(corpus, fit.words, 3)
    order = np.lexsort((-largest, main))
    columns = np.array_split(order, 2)
    with canvas.figure(
        path,
        f"{(largest > 0.5).sum()} of the {len(order)} sections of the Constitution are mostly "
        "about one topic",
        f"""The share of each of {NUM_TOPICS} topics in each section (pLSA on words alone). Sections
        come by their main topic, on the left the first half; "Art. I.8" is article I, section 8,
        and "Am." an amendment.""",
        height=7.0,
    ) as figure:
        panels = figure.subplots(1, 2)
        for axes, sections in zip(panels, columns, strict=True):
            names = [short_name(corpus.documents[section]) for section in sections]
            draw_shares(axes, fit.shares[sections], names)
        for k, color in enumerate(canvas.PALETTE):
            name = f"{k + 1}: {', '.join(corpus.words[w] for w in words[k])}"
            panels[0].barh(0, 0, color=color, label=name)
        handles = panels[0].get_legend_handles_labels()
        figure.legend(*handles, loc="outside lower center", ncols=3, title="topic")


def draw_shares(axes: Axes, shares: np.ndarray, names: Sequence[str]) -> None:
    """Draw a bar for each document, its topics side by side."""
    rows, left = np.arange(len(shares)), np.zeros(len(shares))
    for share, color in zip(shares.T, canvas.PALETTE, strict=True):
        axes.barh(rows, share, left=left, color=color, height=0.8)
        left += share
    axes.set_yticks(rows, names)
    axes.set_xticks([0, 0.5, 1], ["0%", "50%", "100%"])
    axes.set(xlim=(0, 1), ylim=(len(rows) - 0.4, -0.6), xlabel="share of topic")
    axes.spines[:].set_visible(False)
    axes.tick_params(axis="y", length=0)


def draw_library(path: Path, corpus: WordCounts, fit: Topics) -> None:
    """Draw how large each topic of the standard library is, with its modules and its words."""
    characteristic = characteristic_words(corpus, fit.words, 6)
    modules = main_documents(corpus, fit.shares, 3)
    sizes = 100 * fit.shares.mean(axis=0)
    with canvas.figure(
        path,
        "From their docstrings alone, the modules of Python's standard library sort themselves by "
        "subject",
        f"""pLSA with {NUM_LIBRARY_TOPICS} topics on {describe(corpus, "modules")}. Left: the
        modules with most words of a topic. Bars: the share of the topic, averaged over modules.
        Right: the words that tell it most.""",
        width=11,
        height=4.4,
    ) as figure:
        axes = figure.subplots()
        rows = np.arange(len(sizes))
        axes.barh(rows, sizes, color=canvas.BLUE, height=0.7)
        for row, size in zip(rows, sizes, strict=True):
            words = ", ".join(corpus.words[w] for w in characteristic[row])
            axes.text(size + 0.15, row, words, va="center", color=canvas.INK)
        axes.set_yticks(rows, [", ".join(names) for names in modules])
        axes.set(xlim=(0, 2.1 * sizes.max()), ylim=(len(rows) - 0.4, -0.6))
        axes.set_xlabel("share of topic, %", loc="left")
        axes.set_xticks(np.arange(0, sizes.max(), 5))
        axes.spines["bottom"].set_visible(False)
        axes.tick_params(axis="y", length=0)
