"""What NumPy makes of JAX's equations is what JAX makes of them, to the bit unless it rounds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.oracles import threefry
from tests.oracles.by_numpy import evaluated

KEY = jax.random.key(3)
ENTRIES = jnp.array([0, 3, 0, 2])
VALUES = jnp.array([2.0, -1.0, 7.0, 0.5])
OF_KEYS = {
    "64 bits": lambda key: jax.random.bits(key, (2, 3), "uint64"),
    "32 bits": lambda key: jax.random.bits(key, (5,), "uint32"),
    "8 bits": lambda key: jax.random.bits(key, (), "uint8"),
    "of keys": lambda key: jax.vmap(jax.random.uniform)(jax.random.split(key, 3)),
    "of a number": lambda key: jax.random.bits(jax.random.fold_in(key, 17)),
    "uniform": lambda key: jax.random.uniform(key, (4,), minval=-1.0),
    "of a permutation": lambda key: jax.random.permutation(key, 9),
}
OF_NUMBERS = {
    "top": lambda x: jax.lax.top_k(jnp.concatenate([x, x[::-1]]), 3),
    "max": lambda x: jnp.zeros(5).at[ENTRIES].max(x),
    "min": lambda x: jnp.zeros(5).at[ENTRIES].min(x),
    "product": lambda x: jnp.ones(5).at[ENTRIES].multiply(x),
    "bits": lambda x: jax.lax.bitcast_convert_type(x, jnp.int64) >> 3,
    "shifted": lambda x: jax.lax.shift_right_logical(jnp.int32(x), jnp.int32(4)),
    "barrier": lambda x: jax.lax.optimization_barrier((x, x + 1)),
}


def assert_same_bits(function, argument):
    actual, expected = evaluated(function, argument), jax.jit(function)(argument)
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


@pytest.mark.parametrize("name", OF_KEYS)
def test_what_is_drawn_is_what_jax_draws(name):
    assert threefry.is_drawn_so(KEY)
    assert_same_bits(OF_KEYS[name], KEY)


@pytest.mark.parametrize("name", OF_NUMBERS)
def test_what_is_moved_is_where_jax_moves_it(name):
    assert_same_bits(OF_NUMBERS[name], VALUES)


def test_a_normal_number_is_within_rounding():
    def drawn(key):
        return jax.random.normal(key, (50,))

    np.testing.assert_allclose(evaluated(drawn, KEY), jax.jit(drawn)(KEY), rtol=1e-12)
