"""Gaussian latents whose elements meet several of one another, integrated out as vectors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emjax.elimination.factors import Variable
from emjax.elimination.gaussian import refusals
from emjax.tables.indices import Affine
from tests.elimination.quadratic_pieces import (
    assert_is_joint_normal,
    coordinates,
    drawn,
    factor,
    integrals_of,
    latent,
    log_z_of,
    numbers,
    precisions,
)
from tests.oracles.joint_normal import JointNormal


def rows_of(latents, count):
    """Return pieces of so many rows, each of which reads an element of every latent."""
    pieces = []
    for i, axis in enumerate(latents):
        pieces.append(factor([axis], (count,), numbers(count, axis.size)))
        pieces.append(factor([axis, axis], (count,), precisions(1, axis.size, axis.size)))
        for other in latents[:i]:
            small = 0.1 * numbers(count, axis.size, other.size)
            pieces.append(factor([axis, other], (count,), small))
    return pieces


def test_crossed_effects_are_the_joint_normal():
    """Of three sizes, under a common mean, with inner effects, in an order that is none."""
    of_a, of_b, of_c = [0, 1, 2, 2, 1, 0, 1], [0, 0, 1, 1, 0, 1, 1], [0, 1, 0, 1, 1, 0, 0]
    a, b, c = coordinates("a", 2, of_a), coordinates("b", 1, of_b), coordinates("c", 1, of_c)
    u = coordinates("u", 1, Affine.identity((7,)))
    variables = {
        "mean": Variable("mean", 1, ()),
        "a": Variable("a", 2, (3,), order=1),
        "b": Variable("b", 1, (2,), order=2),
        "c": Variable("c", 1, (2,), order=3),
        "u": Variable("u", 1, (7,), order=4),
    }
    mean, of_each = coordinates("mean", 1, Affine(0, ())), coordinates("mean", 1, Affine(0, (0,)))
    elements = {n: coordinates(n, v.size, Affine.identity(v.shape)) for n, v in variables.items()}
    pieces = rows_of([a, b, u], 7) + rows_of([c, u], 7)
    pieces.append(factor([elements["b"], of_each], (2,), np.zeros((2, 1, 1))))
    conditionals = [
        drawn(mean, (), mean=numbers(1)),
        drawn(elements["a"], (3,)),
        drawn(
            elements["b"], (2,), scale=numbers(2, 1, 1), coefficients=[(of_each, numbers(2, 1, 1))]
        ),
        drawn(elements["c"], (2,), mean=numbers(2, 1)),
        drawn(elements["u"], (7,), coefficients=[(b, numbers(1, 1, 1))]),
    ]
    assert_is_joint_normal(pieces, [], conditionals, variables)
    found = integrals_of(pieces, conditionals, variables)
    assert [tuple(integral) for integral in found] == [
        (("u",), "element by element", 7, 1),
        (("a",), "element by element", 3, 2),
        (("c",), "as one vector", 1, 2),
        (("b",), "as one vector", 1, 2),
        (("mean",), "element by element", 1, 1),
    ]


ELEMENTS_IN_SCHOOLS = [("a", 1, (2, 3)), ("b", 2, (2, 2))]


def test_effects_that_are_crossed_in_every_school_are_the_joint_normal():
    """Of two schools, each with a kind, so that there are as many vectors."""
    kind, each = latent("kind", 2, Affine(0, (1, 0, 0))), latent("kind", 2, Affine.identity((2,)))
    a, b = coordinates("a", 1, Affine(0, (3, 1, 0))), coordinates("b", 2, Affine(0, (1, 0, 2)))
    own_a, own_b = (coordinates(n, k, Affine.identity(s)) for n, k, s in ELEMENTS_IN_SCHOOLS)
    c, c_of_a = coordinates("c", 1, Affine(0, (1,))), coordinates("c", 1, Affine(0, (1, 0)))
    shape = (2, 3, 2)
    pieces = [
        factor([kind, a], shape, numbers(*shape, 2, 1)),
        factor([a, b], shape, 0.1 * numbers(*shape, 1, 2)),
        factor([b, b], shape, precisions(1, 1, 1, 2, 2)),
        factor([coordinates("b", 2, Affine(0, (1, 2)))], (2, 2), numbers(2, 2, 2)),
        factor([c], (2,), numbers(2, 1)),
    ]
    conditionals = [
        drawn(c, (2,)),
        drawn(own_a, (2, 3), [], coefficients=[(c_of_a, numbers(1, 1, 1, 1))]),
        drawn(own_b, (2, 2), [latent("kind", 2, Affine(0, (0, 1)))], numbers(1, 1, 2, 2)),
    ]
    variables = {
        "kind": Variable("kind", 2, (2,)),
        "c": Variable("c", 1, (2,), order=1),
        "a": Variable("a", 1, (2, 3), order=2),
        # the axes of its elements are in another order
        "b": Variable("b", 2, (2, 2), order=3),
    }
    factors = [factor([each], (2,), numbers(2, 2))]
    assert_is_joint_normal(pieces, factors, conditionals, variables)
    found = integrals_of(pieces, conditionals, variables)
    assert tuple(found[1]) == (("a",), "as one vector", 2, 3)


def test_elements_that_are_drawn_from_one_another_are_the_joint_normal():
    """Two latents in a loop, where no order of the latents is one of their elements."""
    z, f_first = latent("z", 2, Affine(0, (0,))), coordinates("f", 2, Affine(0, (0,)))
    f, g = coordinates("f", 2, [1, 2]), coordinates("g", 1, [0, 1, 2])
    pieces = [
        *rows_of([coordinates("f", 2, [2, 0, 1]), coordinates("g", 1, [0, 1, 2])], 3),
        factor([latent("z", 2, Affine(0, (0,))), g], (3,), numbers(3, 2, 1)),
        factor(
            [coordinates("f", 2, [0, 2]), coordinates("f", 2, [1, 0])], (2,), 0.1 * numbers(2, 2, 2)
        ),
    ]
    conditionals = [
        drawn(f_first, (1,), [z], mean=numbers(1, 2, 2)),
        drawn(f, (2,), coefficients=[(coordinates("g", 1, [1, 0]), numbers(2, 2, 1))]),
        drawn(g, (3,), [z], coefficients=[(coordinates("f", 2, [0, 0, 2]), numbers(1, 2, 1, 2))]),
    ]
    variables = {
        "z": Variable("z", 2, (1,)),
        "f": Variable("f", 2, (3,), order=1),
        "g": Variable("g", 1, (3,), order=2),
    }
    assert_is_joint_normal(pieces, [factor([z], (1,), numbers(1, 2))], conditionals, variables)


def test_differences_of_elements_are_the_joint_normal():
    a, b = coordinates("a", 1, [0, 1, 2, 2]), coordinates("a", 1, [1, 2, 0, 1])
    own = coordinates("a", 1, Affine.identity((3,)))
    variables = {"a": Variable("a", 1, (3,))}
    assert_is_joint_normal(rows_of([a, b], 4), [], [drawn(own, (3,))], variables)


def test_labels_of_crossed_effects_are_refused():
    a, b = coordinates("a", 1, [0, 1, 1]), coordinates("b", 1, [0, 0, 1])
    kind = latent("kind", 2, [0, 1, 1])
    pieces = [*rows_of([a, b], 3), factor([kind, a], (3,), numbers(3, 2, 1))]
    own = [drawn(coordinates(name, 1, Affine.identity((2,))), (2,)) for name in "ab"]
    variables = {
        "kind": Variable("kind", 2, (2,)),
        "a": Variable("a", 1, (2,), order=1),
        "b": Variable("b", 1, (2,), order=2),
    }
    with pytest.raises(ValueError, match="several elements of the discrete latent 'kind'"):
        integrals_of(pieces, own, variables)


def test_vectors_that_do_not_fit_are_an_error_that_names_them(monkeypatch):
    monkeypatch.setattr(refusals, "available_memory", lambda: 1e4)
    count, width = 40, 8
    a, b = coordinates("a", 1, np.arange(count)), coordinates("b", 1, np.arange(count) % width)
    pieces = rows_of([a, b], count) + rows_of([b, coordinates("a", 1, [0] * count)], count)
    own = [drawn(coordinates(n, 1, range(k)), (k,)) for n, k in (("a", count), ("b", width))]
    variables = {"a": Variable("a", 1, (count,)), "b": Variable("b", 1, (width,), order=1)}
    with pytest.raises(MemoryError, match=r"latents 'b', 'a' are crossed: .* need .* GiB"):
        integrals_of(pieces, own, variables)


def test_coupled_elements_that_count_differently_are_refused():
    a, b = coordinates("a", 1, [0, 1, 1]), coordinates("b", 1, [0, 0, 1])
    own = [drawn(coordinates(name, 1, Affine.identity((2,))), (2,)) for name in "ab"]
    counted = {"multiplicity": np.array([2.0, 3.0]), "multiplicity_key": ("key",)}
    variables = {name: Variable(name, 1, (2,), **counted) for name in "ab"}
    with pytest.raises(ValueError, match=r"'a' are coupled .* do not count equally often"):
        integrals_of(rows_of([a, b], 3), own, variables)


def test_crossed_effects_of_which_one_counts_several_times_are_as_many():
    """Each b_j counts twice, given all a."""
    a, b = coordinates("a", 1, [0, 1, 2] * 2), coordinates("b", 1, [0, 0, 0, 1, 1, 1])
    own = coordinates("a", 1, range(3)), coordinates("b", 1, range(2))
    pieces = rows_of([a, b], 6)
    conditionals = [drawn(own[0], (3,)), drawn(own[1], (2,))]
    variables = {"a": Variable("a", 1, (3,)), "b": Variable("b", 1, (2,), order=1)}
    several = Variable(
        "b", 1, (2,), jnp.asarray([2.0]), ("twice",), frozenset({"columns"}), order=1
    )
    arrays = [2 * piece.array for piece in pieces]
    counted = variables | {"b": several}
    found = jax.jit(lambda arrays: log_z_of(arrays, pieces, [], conditionals, counted))(arrays)
    columns = [np.concatenate([axis.index.dense((6,)), axis.index.dense((6,))]) for axis in (a, b)]
    columns[1] = columns[1] + np.repeat([0, 2], 6)
    copies = {"a": coordinates("a", 1, columns[0]), "b": coordinates("b", 1, columns[1])}
    twice = [
        factor([copies[axis.source] for axis in piece.axes], (12,), _twice(piece.array))
        for piece in pieces
    ]
    conditionals[1] = drawn(coordinates("b", 1, range(4)), (4,), scale=conditionals[1].scale.array)
    of_copies = variables | {"b": Variable("b", 1, (4,))}
    exact = JointNormal(twice, conditionals, of_copies).log_partition
    np.testing.assert_allclose(found, exact, rtol=1e-10)


def _twice(array):
    return jnp.concatenate([array, array]) if array.shape[0] > 1 else array
