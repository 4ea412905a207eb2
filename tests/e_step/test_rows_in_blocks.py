"""Rows that are added up by the latent that they read are taken in blocks: the same numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

from emjax import EM
from emjax.elimination import factors
from emjax.models import topics
from emjax.numerics import row_sums

RNG = np.random.default_rng(19)
DOCUMENTS, WORDS, TOPICS = 6, 5, 3
DOCUMENT, WORD = RNG.integers(DOCUMENTS, size=67), RNG.integers(WORDS, size=67)
COUNT = RNG.integers(0, 4, size=67).astype(float)
START = {
    "weights": RNG.dirichlet(np.ones(TOPICS)),
    "words": RNG.dirichlet(np.ones(WORDS), TOPICS),
}
SIZES = (DOCUMENTS, WORDS, TOPICS)


@pytest.fixture
def num_rows_in_blocks(monkeypatch):
    """How many rows are taken in blocks of eight, one number each time: 67, or padded to 80."""
    numbers = []

    def recorded(table, weight, read, group, num_groups):
        numbers.append(len(read))
        return row_sums.sums_of_rows(table, weight, read, group, num_groups)

    monkeypatch.setattr(row_sums, "BLOCK_BYTES", 8 * TOPICS * 8)
    monkeypatch.setattr(factors, "sums_of_rows", recorded)
    return numbers


def masked(document, word, answered):
    """One topic for each document, some of whose words are missing."""
    weights = numpyro.param("weights", START["weights"], constraint=constraints.simplex)
    words = numpyro.param("words", START["words"], constraint=constraints.simplex)
    with numpyro.plate("documents", DOCUMENTS):
        topic = numpyro.sample("topic", dist.Categorical(weights))
    with numpyro.plate("rows", len(word)), numpyro.handlers.mask(mask=answered):
        numpyro.sample("word", dist.Categorical(words[topic[document]]), obs=word)


def counted(count):
    """Return the parameters after one step by hand, of rows that count so often."""
    return topics.sparse_mixture_hand_derived_step(START, DOCUMENT, WORD, count, *SIZES)


def test_words_with_counts_are_the_step_by_hand(num_rows_in_blocks):
    data = (DOCUMENT, WORD, COUNT)
    em = EM(topics.sparse_mixture_program, tol=0, max_steps=1)
    result = em.run(jax.random.key(0), *data, *SIZES, init_params=START)
    for name, expected in counted(COUNT).items():
        np.testing.assert_allclose(result.params[name], expected, rtol=1e-12)
    assert min(num_rows_in_blocks) >= 67


def test_masked_words_are_words_that_count_zero_times(num_rows_in_blocks):
    answered = COUNT > 1
    em = EM(masked, tol=0, max_steps=1)
    result = em.run(jax.random.key(0), DOCUMENT, WORD, answered, init_params=START)
    for name, expected in counted(answered.astype(float)).items():
        np.testing.assert_allclose(result.params[name], expected, rtol=1e-12)
    assert min(num_rows_in_blocks) >= 67


def test_sums_of_rows_and_their_derivatives_are_those_of_a_matrix(num_rows_in_blocks):
    """That is, of Σ_i weight_i 1{group_i = g} table[read_i], with respect to table and weights."""
    table, of_sums = RNG.normal(size=(WORDS, TOPICS)), RNG.normal(size=(DOCUMENTS, TOPICS))

    def total(table, weight):
        return (row_sums.sums_of_rows(table, weight, WORD, DOCUMENT, DOCUMENTS) * of_sums).sum()

    sums = row_sums.sums_of_rows(jnp.asarray(table), jnp.asarray(COUNT), WORD, DOCUMENT, DOCUMENTS)
    counts = np.zeros((DOCUMENTS, WORDS))
    np.add.at(counts, (DOCUMENT, WORD), COUNT)
    np.testing.assert_allclose(sums, counts @ table, rtol=1e-12)
    of_table, of_weight = jax.jit(jax.grad(total, (0, 1)))(table, COUNT)
    np.testing.assert_allclose(of_table, counts.T @ of_sums, rtol=1e-12)
    expected = (table[WORD] * of_sums[DOCUMENT]).sum(1)
    np.testing.assert_allclose(of_weight, expected, rtol=1e-12)
