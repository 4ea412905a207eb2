"""Sums of exponentials over few values of many elements are those over any number of values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emjax.numerics.guards import FEW_VALUES, LOG_ZERO, MOST_BY_ITSELF, tempered_logsumexp


def log_densities(num_values: int) -> np.ndarray:
    """Return some, of more elements than XLA sums up by itself, also ones that are impossible."""
    rng = np.random.default_rng(5)
    table = rng.normal(scale=30, size=(MOST_BY_ITSELF // num_values + 3, num_values))
    table[rng.random(table.shape) < 0.2] = LOG_ZERO
    table[0] = LOG_ZERO
    return table


@pytest.mark.parametrize("num_values", [1, 3, FEW_VALUES])
def test_sum_over_few_values_and_its_derivatives_are_those_of_the_definition(num_values):
    table = log_densities(num_values)

    def total(table):
        return tempered_logsumexp(table, 1, 1).sum()

    value = np.asarray(tempered_logsumexp(jnp.asarray(table), 1, 1))
    expected = np.logaddexp.reduce(table, axis=-1)
    np.testing.assert_allclose(value, expected, rtol=1e-14)
    posterior = np.exp(table - table.max(-1, keepdims=True))
    posterior /= posterior.sum(-1, keepdims=True)
    along = np.linspace(-1, 1, table.size).reshape(table.shape)
    gradient, moved = jax.jvp(jax.grad(total), (jnp.asarray(table),), (jnp.asarray(along),))
    np.testing.assert_allclose(gradient, posterior, rtol=1e-12, atol=1e-300)
    mean = (posterior * along).sum(-1, keepdims=True)
    np.testing.assert_allclose(moved, posterior * (along - mean), rtol=1e-10, atol=1e-14)


def test_sum_over_few_values_is_left_to_the_loops_of_xla():
    if jax.default_backend() != "cpu":
        pytest.skip("the library is for CPUs")
    table = jnp.asarray(log_densities(3))
    compiled = jax.jit(lambda table: tempered_logsumexp(table, 1, 1)).lower(table).compile()
    assert "kind=kCustom" not in compiled.as_text()
