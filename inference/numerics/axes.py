"""Arrays whose axes have labels: arrange them, and contract them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array

from emjax.numerics.arrays import transposed


def arranged(
    array: Any, labels: Sequence[Hashable], order: Sequence[Hashable], num_lead: int = 0
) -> Array:
    """Return the array with its labeled axes in this order, of length 1 where absent.

    Labels that are not in `order` are summed over (`take` in `numerics.arrays` is for tables that
    are read at indices). The first `num_lead` axes have no label and stay in front.
    """
    gone = tuple(num_lead + i for i, label in enumerate(labels) if label not in order)
    if gone:
        array = array.sum(gone)
        labels = [label for label in labels if label in order]
    present = [label for label in order if label in labels]
    places = [num_lead + labels.index(label) for label in present]
    array = transposed(array, [*range(num_lead), *places])
    sizes = dict(zip(present, array.shape[num_lead:], strict=True))
    return array.reshape(array.shape[:num_lead] + tuple(sizes.get(label, 1) for label in order))


def contracted(
    arrays: Sequence, labels: Sequence[Sequence[Hashable]], order: Sequence[Hashable]
) -> Array:
    """Return a product of arrays, summed over all labels but those in `order`: a contraction.

    Its axes are those of `order`, of length 1 where no array varies. An axis of length 1 stands
    for any length.
    """
    numbers: dict = {}
    sizes: dict = {}
    operands: list = []
    for array, its_labels in zip(arrays, labels, strict=True):
        varying = [i for i, size in enumerate(array.shape) if size != 1]
        for i in varying:
            sizes[its_labels[i]] = array.shape[i]
        names = [numbers.setdefault(its_labels[i], len(numbers)) for i in varying]
        operands += [array.reshape([array.shape[i] for i in varying]), names]
    present = [label for label in order if label in sizes]
    out = [numbers[label] for label in present]
    return jnp.einsum(*operands, out, precision="highest").reshape(
        [sizes.get(label, 1) for label in order]
    )
