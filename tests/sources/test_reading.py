"""Chunks are read ahead by a thread, and from Parquet files; what goes wrong says where."""

import gc
import threading
import time

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

import emjax

X = np.arange(40.0).reshape(20, 2)


def threads():
    return [thread for thread in threading.enumerate() if thread.name == "emjax.Stream"]


def has_no_thread():
    deadline = time.monotonic() + 5
    while threads() and time.monotonic() < deadline:
        time.sleep(0.01)
    return not threads()


def rows(stream):
    return np.concatenate([part.args[0] for part in stream])


@pytest.mark.parametrize("read_ahead", [0, 1, 3])
def test_a_loader_may_fill_its_array_again(read_ahead):
    def chunks():
        buffer = np.empty((5, 2))
        for start in range(0, 20, 5):
            buffer[:] = X[start : start + 5]
            yield buffer

    seen = []
    for part in emjax.Stream(chunks, read_ahead=read_ahead):
        time.sleep(0.01)
        seen.append(part.args[0].copy())
    np.testing.assert_array_equal(np.concatenate(seen), X)
    assert has_no_thread()


def test_chunks_are_ready_before_they_are_asked_for():
    made = []

    def chunks():
        for number in range(10):
            made.append(number)
            yield X

    parts = iter(emjax.Stream(chunks, read_ahead=2))
    next(parts)
    deadline = time.monotonic() + 5
    # one that was taken, two that wait, one that has no room
    while len(made) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    assert made == [0, 1, 2, 3]
    # an iteration that is abandoned ends the thread
    del parts
    gc.collect()
    assert has_no_thread()


@pytest.mark.parametrize("read_ahead", [0, 1])
def test_an_error_of_the_iterator_names_its_chunk(read_ahead):
    def chunks():
        yield X
        yield X
        raise OSError("the disk is gone")

    stream = emjax.Stream(chunks, read_ahead=read_ahead)
    parts = iter(stream)
    assert len(next(parts).args[0]) == len(next(parts).args[0]) == 20
    with pytest.raises(OSError, match=r"(?s)the disk is gone.*Chunk 2 of the stream"):
        next(parts)
    assert has_no_thread()


def test_a_dataset_of_rows_is_read_in_batches():
    class Dataset:
        """As those of Hugging Face."""

        def with_format(self, kind):
            assert kind == "numpy"
            return self

        def iter(self, batch_size):
            for start in range(0, 20, batch_size):
                yield {"x": X[start : start + batch_size]}

    parts = list(emjax.Stream(Dataset(), rows=8))
    assert [len(part.kwargs["x"]) for part in parts] == [8, 8, 4]


# ── Parquet ───────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def path(tmp_path):
    """A file of groups of seven rows: reals, integers, both with missing values."""
    table = pa.table(
        {
            "a": X[:, 0],
            "b": X[:, 1].astype("f4"),
            "hole": [None if row == 11 else float(row) for row in range(20)],
            "count": np.arange(20),
            "few": [None if row == 11 else row for row in range(20)],
            "word": ["w"] * 20,
        }
    )
    pq.write_table(table, tmp_path / "table.parquet", row_group_size=7)
    return tmp_path / "table.parquet"


def test_columns_of_a_file_are_an_array(path):
    stream = emjax.Stream.parquet(path, ["a", "b"], rows=6)
    assert [part.args[0].shape for part in stream] == [(6, 2), (6, 2), (6, 2), (2, 2)]
    np.testing.assert_array_equal(rows(stream), X)
    assert rows(emjax.Stream.parquet(path, ["b"])).dtype == np.float32


def test_columns_of_a_file_are_named_arguments(path):
    stream = emjax.Stream.parquet(path, {"x": ["a", "count"], "hole": "hole", "count": "count"})
    (part,) = stream
    np.testing.assert_array_equal(part.kwargs["x"], np.stack([X[:, 0], np.arange(20)], 1))
    assert np.argwhere(np.isnan(part.kwargs["hole"])).tolist() == [[11]]
    assert part.kwargs["count"].dtype == np.int64


def test_a_dataset_may_be_filtered(path):
    dataset = pyarrow.dataset.dataset(path).filter(pyarrow.dataset.field("count") > 14)
    np.testing.assert_array_equal(rows(emjax.Stream.parquet(dataset, "count")), np.arange(15, 20))


def test_whole_numbers_of_which_some_are_missing_are_real(path):
    with pytest.raises(ValueError, match=r"Of column 'few' some are missing.*dtype=float"):
        rows(emjax.Stream.parquet(path, "few"))
    assert np.isnan(rows(emjax.Stream.parquet(path, "few", dtype=float))[11])


def test_columns_that_cannot_be_are_named(path):
    with pytest.raises(ValueError, match="Column 'word' is of type string, and EM takes numbers"):
        emjax.Stream.parquet(path)
    with pytest.raises(ValueError, match="no column 'c'; they have 'a', 'b'"):
        emjax.Stream.parquet(path, ["a", "c"])


def test_a_file_that_was_cut_short_is_named(path):
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"table.parquet cannot be read as Parquet.*cut short"):
        emjax.Stream.parquet(path, ["a"])


def test_a_file_that_vanishes_is_named(path):
    stream = emjax.Stream.parquet(path, ["a"])
    assert len(rows(stream)) == 20
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"(?s)table.parquet.*Chunk 0 of the stream"):
        rows(stream)
