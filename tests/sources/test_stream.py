"""A stream yields the same parts each time, and says of a chunk that does not fit which it is."""

import numpy as np
import pytest

import emjax

X = np.arange(20.0).reshape(10, 2)


def rows(stream):
    return [part.args[0] for part in stream]


@pytest.mark.parametrize("again", [1, 2])
def test_a_stream_is_read_as_often_as_wanted(again):
    def chunks():
        yield X[:4]
        yield X[4:]

    stream = emjax.Stream(chunks)
    for _ in range(again):
        first, second = rows(stream)
        np.testing.assert_array_equal(first, X[:4])
        np.testing.assert_array_equal(second, X[4:])
    assert repr(stream) == "Stream(function, 2 chunks, 10 rows)"


def test_chunks_are_arguments_of_the_program():
    (part,) = emjax.Stream([(X, X[:, 0], 3)])
    assert len(part.args) == 3 and part.args[2] == 3
    (part,) = emjax.Stream([{"x": X}])
    assert part.args == () and list(part.kwargs) == ["x"]
    (part,) = emjax.Stream([emjax.Part((X, X[:3]), {}, {"rows": 9, "items": 2})])
    assert part.counts == {"rows": 9, "items": 2}


def test_arrays_are_cut_into_views():
    stream = emjax.Stream.of(X, X[:, 0], rows=4)
    parts = list(stream)
    assert [len(part.args[0]) for part in parts] == [4, 4, 2]
    assert all(np.shares_memory(part.args[1], X) for part in parts)


@pytest.mark.parametrize("length", [1, 3, 4, 10, 11])
def test_chunks_of_one_length_are_made_of_any(length):
    stream = emjax.Stream([X[:1], X[1:1], X[1:6], X[6:]], rows=length)
    chunks = rows(stream)
    assert {len(chunk) for chunk in chunks[:-1]} <= {length}
    np.testing.assert_array_equal(np.concatenate(chunks), X)


WRONG = {
    "nothing": (lambda: iter(()), "yields no data"),
    "dtype": ([X, X.astype("f4")], r"Chunk 1 .* argument 0 is of type float32, .*'float64'"),
    "columns": ([X, X, X[:, :1]], r"Chunk 2 .* has shape \(1,\), and in chunk 0 \(2,\)"),
    "names": ([{"x": X}, {"y": X}], r"Chunk 1 .* has the arguments 'y', and chunk 0 has 'x'"),
    "no rows": ([X, X[:0]], "Chunk 1 of the stream has no rows"),
    "unequal": ([(X, X[:3])], r"Chunk 0 .* unequal length: 0 \(10\), 1 \(3\)"),
    "objects": ([X, X.astype(object)], "Chunk 1 of the stream: argument 0 is an array of Py"),
    "strings": ([X.astype(str)], "Chunk 0 .* argument 0 is an array of strings"),
    "shared": ([(X, 3), (X, 4)], "Chunk 1 .* argument 1 is 4, and in chunk 0 3"),
    "number": ([3], "Chunk 0 of the stream has no array"),
    "no iterator": (lambda: 3, "returned a int"),
    "counts": (
        [emjax.Part((X,), {}, {"a": 1}), emjax.Part((X,))],
        "Chunk 1 of the stream counts the elements of plates none",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_chunk_that_does_not_fit_is_named(wrong):
    chunks, message = WRONG[wrong]
    with pytest.raises(ValueError, match=message):
        list(emjax.Stream(chunks))


@pytest.mark.parametrize("chunks", [iter([X]), (chunk for chunk in [X])], ids=["list", "generator"])
def test_an_iterator_that_is_read_once_is_refused(chunks):
    with pytest.raises(ValueError, match=r"can be read once.*\n?.*emjax.Stream\(lambda: chunks"):
        emjax.Stream(chunks)


@pytest.mark.parametrize("chunks", [X, {"x": X}, 3], ids=["array", "dictionary", "number"])
def test_what_are_no_chunks_is_refused(chunks):
    with pytest.raises(ValueError, match=r"emjax.Stream takes chunks"):
        emjax.Stream(chunks)


@pytest.mark.parametrize("later", [[], [X[:9]], [X, X]], ids=["none", "fewer", "more"])
def test_a_second_pass_has_the_same_rows(later):
    passes = iter([[X], later])
    stream = emjax.Stream(lambda: next(passes))
    list(stream)
    number = sum(map(len, later))
    with pytest.raises(ValueError, match=f"had 10 rows when it was first read, and {number} "):
        list(stream)
