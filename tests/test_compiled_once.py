"""What the tests compile once is the same to XLA, and nothing else is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src import compiler

from tests.compiled_once import KEPT

pytestmark = pytest.mark.skipif(
    not hasattr(compiler, "backend_compile_and_load"), reason="JAX has another name for it"
)
X = np.arange(7.0)


def times(factor):
    """Return a function made anew, and so compiled anew by JAX."""
    return jax.jit(lambda x: jnp.sin(x) * factor + 0.123)


def test_functions_of_one_text_are_compiled_once_and_others_anew():
    KEPT.clear()
    for factor, number in ((2.0, 1), (2.0, 1), (3.0, 2)):
        np.testing.assert_allclose(times(factor)(X), np.sin(X) * factor + 0.123, rtol=1e-14)
        assert len(KEPT) == number


def test_options_of_the_compiler_are_compiled_apart():
    KEPT.clear()
    for level in (0, 0, 1):
        options = {"xla_backend_optimization_level": level}
        jax.jit(lambda x: x + 0.456, compiler_options=options)(X)
    assert len(KEPT) == 2


def test_what_calls_python_is_compiled_each_time():
    KEPT.clear()
    for number in (1.0, 2.0):

        def called(x, number=number):
            return np.asarray(x) + number

        shape = jax.ShapeDtypeStruct(X.shape, X.dtype)
        call = jax.jit(lambda x, called=called, shape=shape: jax.pure_callback(called, shape, x))
        np.testing.assert_array_equal(call(X), X + number)
