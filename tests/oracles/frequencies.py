"""How often each joint assignment of latents is drawn, against the joint table."""

from collections.abc import Callable, Mapping

import numpy as np
from scipy import stats

from tests.oracles.brute_force import JointTable


def numbered(values, supports):
    """Return a number for each joint assignment of (assignment, …) places of latents."""
    number = 0
    for name, support in supports.items():
        for place in values[name].reshape(len(values[name]), -1).T:
            number = number * len(support) + place
    return number


def assert_drawn_from(
    table: JointTable,
    values: Mapping,
    which: Callable = lambda name, index: index,
    least: float = 1e-3,
) -> None:
    """Check that draws {latent: (draw, *its shape)} are of a table's distribution, all jointly.

    Of the joint assignments that are possible, how often each is drawn is compared by the
    chi-square statistic, whose p-value is at least `least`; seldom ones are counted together.
    `which`: of the elements of a latent in the table, those that are drawn.
    """
    number = len(next(iter(values.values())))
    supports = {name: latent.support for name, latent in table.latents.items()}
    drawn = {}
    for name, support in supports.items():
        drawn[name] = np.searchsorted(support, values[name])
        assert (support[drawn[name]] == values[name]).all()
    index = {name: which(name, index) for name, index in table.index.items()}
    assert {n: v.shape[1:] for n, v in drawn.items()} == {n: v.shape[1:] for n, v in index.items()}
    numbers, assignment = np.unique(numbered(index, supports), return_inverse=True)
    expected = number * np.bincount(assignment, table.probability)
    found = np.searchsorted(numbers, numbered(drawn, supports))
    count = np.bincount(found, minlength=len(expected))
    assert count.sum() == number and not count[expected == 0].any()
    order = np.argsort(-expected)
    often = (expected >= 8).sum()
    count, expected = (
        np.append(each[order[:often]], each[order[often:]].sum()) for each in (count, expected)
    )
    degrees = (expected > 1e-6).sum() - 1
    statistic = ((count - expected) ** 2 / np.maximum(expected, 1e-6)).sum()
    if degrees > 0:
        assert stats.chi2.sf(statistic, degrees) >= least, (statistic, degrees)
