"""Distinct rows: by a table of counts, by sorting numbers or bytes; of chunks as of the whole."""

import jax
import numpy as np
import pytest

from emjax import compress
from emjax.program.handlers import distinct_rows
from emjax.sources.part import Part

RNG = np.random.default_rng(3)
LEVELS = RNG.integers(-1, 3, size=(700, 3)).astype(np.int8)
TABLES = {
    "counted": (LEVELS, RNG.uniform(size=700) < 0.3),
    "numbers that wrap around": (RNG.choice(np.array([2**64 - 9, 2**64 - 1], np.uint64), 700),),
    "from the lowest to the highest": (RNG.choice(np.array([-128, 127], np.int8), (700, 2)),),
    "sorted, since few of many codes occur": (RNG.integers(4, size=(700, 30)) // 3,),
    "sorted bytes, since codes are too long": (RNG.choice([-(2**62), 0, 2**62], (700, 2)),),
    "sorted bytes, since columns are too many": (RNG.integers(2, size=(700, 2)).repeat(40, 1),),
    "sorted bytes of other numbers": (LEVELS[:, 0], LEVELS[:, 1] / 2),
    "no columns": (LEVELS[:, :0],),
}


@pytest.mark.parametrize("arrays", TABLES.values(), ids=TABLES.keys())
def test_rows_are_equal_where_all_their_numbers_are(arrays):
    seen, rows = {}, []
    for row in zip(*(array.reshape(700, -1).tolist() for array in arrays), strict=True):
        rows.append(seen.setdefault(str(row), len(seen)))
    found = distinct_rows.distinct_rows(arrays)
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_array_equal(found.first, [rows.index(k) for k in range(len(seen))])
    np.testing.assert_array_equal(found.count, np.bincount(rows))


def test_blocks_of_rows_are_counted_as_the_whole_is(monkeypatch):
    whole = distinct_rows.distinct_rows([LEVELS])
    monkeypatch.setattr(distinct_rows, "BLOCK", 64)
    for of_blocks, of_whole in zip(distinct_rows.distinct_rows([LEVELS]), whole, strict=True):
        np.testing.assert_array_equal(of_blocks, of_whole)


def test_columns_by_name_keep_their_names():
    columns = {"surname": LEVELS[:, 1], "forename": LEVELS[:, 0]}
    (rows, score), count, _ = compress(columns, LEVELS[:, 2])
    (whole,), expected, _ = compress(LEVELS)
    assert list(rows) == ["forename", "surname"]
    found = np.stack([rows["forename"], rows["surname"], score], axis=1)
    np.testing.assert_array_equal(found, whole)
    np.testing.assert_array_equal(count, expected)


# Chunks of the same rows, each time in other words: as they are, in a tuple, by name, as parts
# whose last rows are padding.
CHUNKS = {
    "arrays": lambda rows: rows,
    "tuples": lambda rows: (rows[:, 0], rows[:, 1:]),
    "columns": lambda rows: dict(zip("abc", rows.T, strict=True)),
    "parts": lambda rows: Part((rows[:, 0], rows[:, 1]), {"c": rows[:, 2]}),
    "padded parts": lambda rows: Part((np.concatenate([rows, LEVELS[:5]]),), {}, {"n": len(rows)}),
}


@pytest.mark.parametrize("chunk", CHUNKS.values(), ids=CHUNKS.keys())
def test_chunks_have_the_distinct_rows_and_counts_of_the_whole(chunk):
    pieces = [LEVELS[start : start + 10 + start // 10] for start in range(0, 600, 60)]
    pieces.append(LEVELS[600:601])  # fewer rows than are merged at once
    arrays, count, rows = compress(chunk(piece) for piece in pieces)
    whole = compress(np.concatenate(pieces))
    columns = [column.reshape(len(count), -1) for column in jax.tree.leaves(arrays)]
    found = np.concatenate(columns, axis=1)
    np.testing.assert_array_equal(found, whole.arrays[0])
    assert found.dtype == np.int8 and count.dtype == np.int64 and rows is None
    np.testing.assert_array_equal(count, whole.count)


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        ([], "no chunk: the iterator yields nothing"),
        ([LEVELS, LEVELS.astype(float)], r"Chunk 1 .* float64 \(rows, 3\), .* int8 \(rows, 3\)"),
        ([LEVELS, LEVELS[:, :2]], r"Chunk 1 .* int8 \(rows, 2\), .* int8 \(rows, 3\)"),
        ([LEVELS, np.array(3)], "chunk 1 of compress takes one or more arrays"),
        ([(LEVELS, LEVELS[:3])], "chunk 0 of compress takes arrays of as many rows"),
    ],
)
def test_chunks_that_are_no_table_are_an_error(chunks, message):
    with pytest.raises(ValueError, match=message):
        compress(iter(chunks))


def test_chunks_take_no_weight():
    with pytest.raises(ValueError, match="no weight beside chunks"):
        compress(iter([LEVELS]), weight=np.ones(700))
