"""A reservoir is a uniform sample of the rows of a stream, whatever its length."""

import numpy as np

from emjax.sources.part import Part
from emjax.sources.reservoir import Reservoir

# of each leaf, the axis of its rows
ALONG = [0, 1, None]


def sample(size, seed, lengths):
    reservoir, start = Reservoir(size, seed), 0
    for length in lengths:
        rows = np.arange(start, start + length)
        reservoir.add(Part((rows, 2.0 * rows[None], 7)), ALONG)
        # what a loader fills again is not what is kept
        rows[:] = -1
        start += length
    rows, doubled, number = reservoir.part.args
    np.testing.assert_array_equal(doubled, 2.0 * rows[None])
    assert number == 7
    return rows


def test_rows_that_all_have_room_are_kept_in_order():
    np.testing.assert_array_equal(sample(10, 0, [3, 4, 3]), np.arange(10))


def test_every_row_is_as_likely():
    count = np.zeros(40)
    for seed in range(2000):
        rows = sample(10, seed, [4, 13, 20, 3])
        assert len(set(rows.tolist())) == 10
        count[rows] += 1
    # 500 of each row are expected, with a standard deviation below 20
    assert np.abs(count - 500).max() < 90


def test_of_elements_that_are_counted_the_first_part_is_kept():
    reservoir = Reservoir(2, 0)
    for number in range(3):
        reservoir.add(Part((np.full(5, number),), {}, {"rows": 5}), [0])
    np.testing.assert_array_equal(reservoir.part.args[0], np.zeros(5))
