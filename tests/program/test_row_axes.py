"""Where rows go in what JAX computes: each stays by itself, or the rules say that it does not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from emjax.program.lengths import Comparison
from emjax.program.row_axes import RowsMeet

N, LONGER = 4, 7
NUMBERS = np.random.default_rng(0).normal(size=(LONGER, 3))
TABLE = NUMBERS[:3] + 1
CHOSEN = jnp.array([2, 0])
LOWER = jnp.linalg.cholesky(TABLE @ TABLE.T + jnp.eye(3))


def solved(matrix, right, left_side):
    return lax.linalg.triangular_solve(matrix, right, left_side=left_side, lower=True)


def which(x):
    return (x[:, 0] > 0).astype(int)


def twice(x):
    return lax.fori_loop(0, 2, lambda i, carry: carry * x, x)


# functions of x (rows, 3)
APART = {
    "elementwise": lambda x: jnp.where(x > 0, jnp.exp(x), x**2),
    "broadcast": lambda x: x[:, None, :] - TABLE,
    "transposed": lambda x: x.T,
    "in the middle": lambda x: jnp.broadcast_to(x, (2, *x.shape)),
    "reshaped": lambda x: x.reshape(1, len(x), 3, 1),
    "flattened behind rows": lambda x: (x[:, :, None] * x[:, None, :]).reshape(len(x), 9),
    "reversed coordinates": lambda x: x[:, ::-1],
    "some coordinates": lambda x: x[:, 1:],
    "a coordinate that is computed": lambda x: lax.dynamic_index_in_dim(x, TABLE.size % 2, 1),
    "padded coordinates": lambda x: lax.pad(x, 0.0, [(0, 0, 0), (1, 1, 0)]),
    "joined coordinates": lambda x: jnp.concatenate([x, 2 * x], 1),
    "stacked in front": lambda x: jnp.stack([x, x]),
    "stacked behind": lambda x: jnp.stack([x, x], 1),
    "split coordinates": lambda x: jnp.split(x, [1], 1)[1],
    "reduced": lambda x: x.sum(1) + x.argmax(1) + jax.nn.logsumexp(x, 1),
    "reduced in front": lambda x: x.T.max(0),
    "cumulated coordinates": lambda x: jnp.cumsum(x, 1),
    "sorted coordinates": lambda x: jnp.sort(x),
    "times a matrix": lambda x: x @ TABLE,
    "a matrix times": lambda x: TABLE @ x.T,
    "a batch of products": lambda x: jnp.einsum("nd,nd->n", x, x),
    "a batch in the middle": lambda x: jnp.einsum("dn,ne->nde", x.T, x),
    "right sides": lambda x: solved(LOWER, x.T, True),
    "right sides in rows": lambda x: solved(LOWER, x, False),
    "a batch of factors": lambda x: jnp.linalg.cholesky(x[:, :, None] * x[:, None, :] + jnp.eye(3)),
    "read of a table": lambda x: jnp.asarray(TABLE)[which(x)],
    "read of each row": lambda x: jnp.take_along_axis(x, which(x)[:, None], 1),
    "coordinates at indices": lambda x: x[:, CHOSEN],
    "a loop": twice,
    "a scan beside rows": lambda x: lax.scan(lambda c, y: (c + y, c * y), x[:, 0], x.T)[1],
    "a branch": lambda x: lax.cond(TABLE.sum() > 0, lambda: 2 * x, lambda: x),
    "a function with its own derivative": jax.nn.relu,
    "kept from being moved": lambda x: lax.optimization_barrier((x, TABLE))[0],
}

MEET = {
    "reduced": lambda x: x - x.sum(0),
    "the largest": lambda x: x + x.argmax(0),
    "reversed": lambda x: x[::-1],
    "the last coordinates first": lambda x: x.T[:, ::-1],
    "every other": lambda x: x[::2],
    "one": lambda x: x + x[0],
    "all but the first": lambda x: x[1:],
    "a stretch at a computed place": lambda x: lax.dynamic_slice_in_dim(x, x.shape[1] % 2, 2, 0),
    "added rows": lambda x: lax.pad(x, 0.0, [(1, 1, 0), (0, 0, 0)]),
    "moved rows": lambda x: lax.pad(x, 0.0, [(1, -1, 0), (0, 0, 0)]),
    "joined": lambda x: jnp.concatenate([x, TABLE]),
    "rows in front of one": lambda x: jnp.concatenate([x, x]),
    "split": lambda x: jnp.split(x, [1])[0],
    "cumulated": lambda x: jnp.cumsum(x, 0),
    "sorted": lambda x: jnp.sort(x, 0),
    "products of rows": lambda x: x @ x.T,
    "sums of products": lambda x: x.T @ x,
    "coordinates that are rows": lambda x: solved(jnp.eye(len(x)), x, True),
    "rows in any order": lambda x: x.at[CHOSEN].get(mode="clip"),
    "rows that each row reads": lambda x: jnp.take(x, which(x), 0, mode="clip"),
    "in an order said to be sorted": lambda x: (
        jnp.asarray(TABLE).at[which(x)].get(indices_are_sorted=True)
    ),
    "folded": lambda x: x.reshape(-1),
    "folded in another order": lambda x: x.reshape(3, len(x)),
    "how many": lambda x: x / len(x),
    "as many entries of a table": lambda x: x[:, 0] + jnp.arange(9.0)[: len(x)],
    "as many entries, counted": lambda x: jnp.full(len(x), 1 / len(x)),
    "a scan over rows": lambda x: lax.scan(lambda c, y: (c + y, c), x[0], x)[1],
    "a loop that ends by rows": lambda x: lax.while_loop(
        lambda c: c.sum() < 5, lambda c: c + jnp.exp(x), x
    ),
    "a branch of rows": lambda x: lax.cond(x.sum() > 0, lambda: 2 * x, lambda: x),
    "by a rule for one length": lambda x: jnp.sin(x) if len(x) == N else jnp.cos(x),
    "in more steps": lambda x: jnp.sin(x) if len(x) == N else jnp.sin(jnp.sin(x)),
    "by a number for one length": lambda x: x + 1 if len(x) == N else x + x,
    "of another operand": lambda x: x - jnp.exp(x) if len(x) == N else jnp.exp(x) - x,
    "of another type": lambda x: x + jnp.ones(3, jnp.float32 if len(x) == N else jnp.float64),
    "in other branches": lambda x: lax.cond(
        TABLE.sum() > 0, jnp.sin, jnp.sin if len(x) == N else jnp.cos, x
    ),
    "of other numbers": lambda x: x + (TABLE[0] if len(x) == N else TABLE[1]),
    "in a transform": lambda x: jnp.fft.fft(x, axis=0),
    "without a rule": lambda x: jax.pure_callback(
        np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), x
    ),
}


def axis_of(function, x=NUMBERS):
    """Return the row axis of a function's result."""
    short, long = jax.make_jaxpr(function)(x[:N]), jax.make_jaxpr(function)(x)
    comparison = Comparison((N, LONGER), frozenset({(N, LONGER)}))
    (output,) = comparison.outputs(short, long, [False])
    return output.axis


@pytest.mark.parametrize("name", APART)
def test_rows_stay_by_themselves(name):
    function, x, other = APART[name], NUMBERS, NUMBERS.copy()
    other[1] += 0.5
    result, changed = (np.moveaxis(function(a), axis_of(function), 0) for a in (x, other))
    assert result.shape[0] == LONGER
    # a row that changes changes its own result alone
    np.testing.assert_array_equal(np.delete(result, 1, 0), np.delete(changed, 1, 0))


@pytest.mark.parametrize("name", MEET)
def test_rows_that_meet_are_found(name):
    with pytest.raises(RowsMeet):
        axis_of(MEET[name])


def test_data_of_another_type_make_another_program():
    jaxprs = [jax.make_jaxpr(jnp.sin)(x) for x in (NUMBERS[:N].astype(np.float32), NUMBERS)]
    comparison = Comparison((N, LONGER), frozenset({(N, LONGER)}))
    with pytest.raises(RowsMeet, match="types differ"):
        comparison.outputs(*jaxprs, [False])


def test_two_groups_are_not_taken_for_each_other():
    """Twice as many rows of one may be as many as there are of the other."""
    lengths = frozenset({(N, LONGER), (2 * N, 2 * LONGER)})
    jaxprs = [jax.make_jaxpr(lambda x: jnp.concatenate([x, x]))(x) for x in (NUMBERS[:N], NUMBERS)]
    for rows in lengths:
        with pytest.raises(RowsMeet):
            Comparison(rows, lengths).outputs(*jaxprs, [False])
