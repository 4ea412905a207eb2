"""Which statistics are formed anew in every step: sums and products, whoever calls them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emjax.graph.recipes import Statistic, StatisticsRecipe, is_cheap
from emjax.tables.named import Named, constant

STATISTICS = {
    "product": (lambda x: x * x, True),
    "product under jit": (jax.jit(lambda x: x * x), True),
    "logarithm": (jnp.log, False),
    "logarithm under jit": (jax.jit(lambda x: jnp.log(x)), False),
    "root of a number that all share": (lambda x: jnp.sqrt(jnp.ones(1)) * x, True),
    "a maximum, which a block has none of": (lambda x: x - x.max(), False),
}


@pytest.mark.parametrize("name", STATISTICS)
def test_a_call_is_as_cheap_as_what_it_calls(name):
    function, expected = STATISTICS[name]

    def statistics(inputs, elements):
        return [Statistic(Named(function(jnp.asarray(inputs["x"].array)), (4,)))]

    recipe = StatisticsRecipe({"x": constant(np.arange(1.0, 5.0))}, statistics)
    assert is_cheap(recipe, (4,)) is expected
