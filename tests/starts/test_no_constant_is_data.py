"""What a start compiles holds no constant as long as the data: XLA would fold it, for seconds."""

import re

import jax
import jax.numpy as jnp
import pytest

from emjax import EM
from emjax.models import dawid_skene, gaussian_mixture

ROWS = 501


# all equal numbers are written once: `dense<0>`
OF_MANY_NUMBERS = re.compile(r'constant dense<["\[][^:]*: tensor<([^>]*)>')


def mixture():
    return gaussian_mixture.program, (jnp.linspace(0.0, 1.0, 2 * ROWS).reshape(ROWS, 2), 3)


def crowd():
    item = jnp.arange(ROWS)
    return dawid_skene.program, (item, item % 4, item % 3, ROWS, 4, 3)


@pytest.mark.parametrize("model", [mixture, crowd])
@pytest.mark.parametrize("num_restarts", [1, 2])
def test_no_constant_is_as_long_as_the_data(model, num_restarts):
    program, args = model()
    bound = EM(program, num_restarts=num_restarts).on(*args)
    compiled, given = bound.compiled, bound.compiled.given({})
    lowered = jax.jit(compiled.pure.run).lower(jax.random.key(0), bound.data, given, 1)
    shapes = OF_MANY_NUMBERS.findall(lowered.as_text())
    assert not [shape for shape in shapes if str(ROWS) in shape]
