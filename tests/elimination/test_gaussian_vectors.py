"""Gaussian latents whose elements meet several of one another, integrated out as vectors."""

import numpy as np
import pytest

from emjax.elimination.factors import Variable
from emjax.elimination.gaussian.integrated import integrals
from emjax.tables.indices import Affine
from tests.elimination.quadratic_pieces import (
    assert_is_joint_normal,
    coordinates,
    drawn,
    factor,
    latent,
    numbers,
    precisions,
)


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
    found = integrals(pieces, conditionals, variables)
    assert [tuple(integral) for integral in found] == [
        (("u",), "element by element", 7, 1),
        (("a",), "element by element", 3, 2),
        (("c",), "as one vector", 1, 2),
        (("b",), "as one vector", 1, 2),
        (("mean",), "element by element", 1, 1),
    ]


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
        integrals(pieces, own, variables)
