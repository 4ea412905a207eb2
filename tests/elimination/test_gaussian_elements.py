"""Gaussian latents that are integrated out element by element."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emjax.elimination.factors import Variable
from emjax.elimination.gaussian.integrated import integrated
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


def test_factors_of_a_mixture_are_the_joint_normal():
    z = latent("z", 2, Affine.identity((3,)))
    f = coordinates("f", 2, Affine.identity((3,)))
    pieces = [
        factor([z, f], (3,), numbers(3, 2, 2)),
        factor([z, f, f], (3,), precisions(1, 2, 2, 2)),
        # a handle: its derivative is E[f fᵀ]
        factor([f, f], (3,), np.zeros((1, 2, 2))),
    ]
    prior = drawn(f, (3,), [z], mean=numbers(1, 2, 2), scale=numbers(1, 2, 2, 2))
    variables = {"z": Variable("z", 2, (3,)), "f": Variable("f", 2, (3,), order=1)}
    assert_is_joint_normal(pieces, [factor([z], (3,), numbers(1, 2))], [prior], variables)


def test_nested_effects_of_labeled_groups_are_the_joint_normal():
    group = np.array([1, 0, 1, 1, 0])
    variables = {
        "kind": Variable("kind", 2, (2,)),
        "b": Variable("b", 2, (2,), order=1),
        "u": Variable("u", 1, (5,), order=2),
    }
    row, kinds = Affine.identity((5,)), latent("kind", 2, Affine.identity((2,)))
    b, u = coordinates("b", 2, Affine.identity((2,))), coordinates("u", 1, row)
    b_of_row, kind_of_row = coordinates("b", 2, group), latent("kind", 2, group)
    measured = np.repeat(np.arange(5), 2)
    u_of_measure, b_of_measure = coordinates("u", 1, measured), coordinates("b", 2, group[measured])
    pieces = [
        factor([u_of_measure], (10,), numbers(10, 1)),
        factor([u_of_measure, u_of_measure], (10,), precisions(1, 1, 1)),
        factor([u_of_measure, b_of_measure], (10,), 0.1 * numbers(10, 1, 2)),
        factor([b_of_measure], (10,), numbers(1, 2)),
        factor([kinds, b, b], (2,), precisions(2, 2, 2, 2) - np.eye(2)),
        # handles of the latent's own site
        factor([kind_of_row, u, b_of_row], (5,), np.zeros((5, 2, 1, 2))),
        factor([u, u], (5,), np.zeros((1, 1, 1))),
    ]
    conditionals = [
        drawn(b, (2,), [kinds], mean=numbers(1, 2, 2)),
        drawn(u, (5,), [kind_of_row], coefficients=[(b_of_row, numbers(1, 2, 1, 2))]),
    ]
    assert_is_joint_normal(pieces, [factor([kinds], (2,), numbers(2, 2))], conditionals, variables)


def test_steps_that_are_drawn_apart_are_the_joint_normal():
    z_first, z_later = latent("z", 2, Affine(0, (0,))), latent("z", 2, Affine(1, (1,)))
    first, later = coordinates("f", 1, Affine(0, (0,))), coordinates("f", 1, Affine(1, (1,)))
    pieces = [
        factor([z_first, first], (1,), numbers(1, 2, 1)),
        factor([z_later, later], (2,), numbers(2, 2, 1)),
        factor([later, later], (2,), precisions(1, 1, 1)),
    ]
    conditionals = [
        drawn(first, (1,), [z_first], mean=numbers(1, 2, 1)),
        drawn(later, (2,), [z_later], scale=numbers(1, 2, 1, 1)),
    ]
    variables = {"z": Variable("z", 2, (3,)), "f": Variable("f", 1, (3,), order=1)}
    z = latent("z", 2, Affine.identity((3,)))
    transition = factor([latent("z", 2, Affine(0, (1,))), z_later], (2,), numbers(1, 2, 2))
    factors = [factor([z], (3,), numbers(3, 2)), transition]
    assert_is_joint_normal(pieces, factors, conditionals, variables)
    # a step meets one element of z, its own
    read = []

    def messages():
        for message in integrated(pieces, conditionals, variables):
            read.append([axis.source for axis in message.axes])

    jax.eval_shape(messages)
    assert [sources for sources in read if sources] == [["z"]] * 2


@pytest.mark.parametrize("is_total", [True, False])
def test_an_element_with_a_multiplicity_is_as_many_elements(is_total):
    """Two of the first element, three of the second."""
    times = np.array([2, 3])
    of = np.repeat([0, 1], times)

    def latents(index, count):
        return coordinates("f", 2, index), coordinates("g", 1, [0] * count)

    linear, square, coefficients = numbers(2, 2), precisions(1, 2, 2), numbers(2, 2, 1)
    scale = numbers(1, 2, 2)

    def parts(count, index, share):
        f, g = latents(Affine.identity((count,)), count)
        total = share if is_total else np.ones_like(share)
        pieces = [
            factor([f], (count,), linear[index] * total[:, None]),
            factor([f, f], (count,), square * total[:, None, None]),
        ]
        pieces = [replace(piece, without_multiplicity=not is_total) for piece in pieces]
        own = drawn(f, (count,), scale=scale, coefficients=[(g, coefficients[index])])
        return pieces, [drawn(coordinates("g", 1, Affine(0, ())), (), scale=np.ones((1, 1))), own]

    copies = {"g": Variable("g", 1, ()), "f": Variable("f", 2, (5,), order=1)}
    exact = JointNormal(*parts(5, of, np.ones(5)), copies).log_partition
    multiplicity = jnp.asarray(times, float)
    counted = Variable("f", 2, (2,), multiplicity, ("key",), frozenset({"rows"}), 1)
    pieces, conditionals = parts(2, [0, 1], times)
    variables = {"g": Variable("g", 1, ()), "f": counted}
    arrays = [piece.array for piece in pieces]
    found = jax.jit(lambda arrays: log_z_of(arrays, pieces, [], conditionals, variables))(arrays)
    np.testing.assert_allclose(found, exact, rtol=1e-10)


def test_a_group_whose_rows_have_labels_is_refused():
    b = coordinates("b", 1, np.array([0, 0, 1]))
    z = latent("kind", 2, Affine.identity((3,)))
    own = drawn(coordinates("b", 1, Affine.identity((2,))), (2,))
    piece = factor([z, b], (3,), numbers(3, 2, 1))
    variables = {"kind": Variable("kind", 2, (3,)), "b": Variable("b", 1, (2,), order=1)}
    with pytest.raises(ValueError, match=r"'b' .* discrete latent 'kind'.*(?s:.*)`kind\[group\]`"):
        integrals_of([piece], [own], variables)
