"""What is taken out of a loop over blocks, and what a block adds to totals where they stand."""

import jax
import jax.numpy as jnp
import numpy as np

from emjax.numerics.arrays import rows_of
from emjax.numerics.in_place import added_to
from emjax.numerics.jaxprs import primitive_names, split_jaxpr

TABLE = np.arange(12.0).reshape(6, 2)
SHARED = np.array([0.5, -1.0])
INDEX = np.array([4, 0, 4])


def gradients(tables, index):
    """Return the gradients by a table that is looked up and by one that is not, and the value."""

    def value(tables):
        looked_up, shared = tables
        return (rows_of(looked_up, index) ** 2 * jnp.exp(shared)).sum()

    value_of, of_tables = jax.value_and_grad(value)(tables)
    return of_tables, value_of


def test_rows_are_added_to_totals_where_they_stand():
    tables = [jnp.asarray(TABLE), jnp.asarray(SHARED)]
    totals = [jnp.asarray(TABLE) + 100, jnp.asarray(SHARED) - 7]

    def added(totals, tables):
        return added_to(totals, gradients, tables, jnp.asarray(INDEX))

    (of_table, of_shared), value = added(totals, tables)
    weight = np.exp(SHARED)
    expected = TABLE + 100
    np.add.at(expected, INDEX, 2 * TABLE[INDEX] * weight)
    np.testing.assert_allclose(of_table, expected, rtol=1e-14)
    squares = (TABLE[INDEX] ** 2).sum(0) * weight
    np.testing.assert_allclose(of_shared, SHARED - 7 + squares, rtol=1e-14)
    np.testing.assert_allclose(value, squares.sum(), rtol=1e-14)
    # neither zeros of the table's shape nor a sum of two tables
    made = [
        eqn.primitive.name
        for eqn in jax.make_jaxpr(added)(totals, tables).eqns
        if eqn.outvars[0].aval.shape == TABLE.shape
    ]
    assert made == ["scatter-add"]


def test_many_rows_are_summed_up_before_so_that_none_is_lost_in_single_precision():
    table, index = jnp.zeros((2, 1), "float32"), jnp.zeros(100, int)

    def gradient(table):
        return [jax.grad(lambda table: rows_of(table, index).sum())(table)], ()

    # beside so large a number each single one is rounded away
    (total,), _ = added_to([table + 2.0**25], gradient, table)
    np.testing.assert_array_equal(total[:, 0], [2.0**25 + 100, 2.0**25])


def test_what_depends_on_the_known_alone_is_computed_once():
    def function(index, table):
        return rows_of(jnp.exp(table - table.max(1, keepdims=True)), index).sum()

    def is_cheap(eqn):
        return eqn.primitive.name == "broadcast_in_dim"

    closed = jax.make_jaxpr(function)(INDEX, TABLE)
    known, unknown = split_jaxpr(closed, 1, is_cheap)
    assert "exp" in primitive_names(known.eqns)
    assert not {"exp", "sub"} & primitive_names(unknown.eqns)
    (value,) = jax.core.eval_jaxpr(
        unknown.jaxpr, unknown.consts, INDEX, *jax.core.eval_jaxpr(known.jaxpr, known.consts, TABLE)
    )
    np.testing.assert_allclose(value, function(INDEX, jnp.asarray(TABLE)), rtol=1e-14)


def test_what_is_only_longer_than_what_it_is_made_of_is_made_again():
    def function(scale, row):
        longer = jnp.exp(jnp.broadcast_to(row, (1000, 2)) + 1)
        return (scale * longer).sum()

    def is_cheap(eqn):
        return eqn.primitive.name == "broadcast_in_dim"

    known, unknown = split_jaxpr(jax.make_jaxpr(function)(2.0, SHARED), 1, is_cheap)
    assert all(aval.size <= SHARED.size for aval in known.out_avals)
    assert "exp" in primitive_names(unknown.eqns)
