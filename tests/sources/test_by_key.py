"""Rows that belong to items are cut so that all rows of an item are in one chunk."""

import gc
from pathlib import Path

import numpy as np
import pytest

import emjax
from emjax.sources import buckets

RNG = np.random.default_rng(0)
ITEM = np.repeat(np.arange(10, 70), RNG.integers(1, 6, 60))
LABEL = np.arange(len(ITEM))


def chunks_of(*arrays, length=7):
    return [
        tuple(array[start : start + length] for array in arrays)
        for start in range(0, len(arrays[0]), length)
    ]


def by_key(chunks, **options):
    options = {"key": 0, "items": "items", "rows": "labels"} | options
    return emjax.Stream.by_key(chunks, **options)


def rows_of(stream):
    """Return the key and the label of each real row, and check what is padded."""
    found, shapes = [], set()
    for keys, part in zip(stream.keys, stream, strict=True):
        local, label, num_items = part.args
        shapes.add((len(local), len(label), num_items))
        assert part.counts["items"] == len(keys) == len(set(keys)) <= num_items
        assert set(local[: part.counts["labels"]]) == set(range(len(keys)))
        assert (local[part.counts["labels"] :] == 0).all()
        number = part.counts["labels"]
        found += zip(keys[local[:number]].tolist(), label[:number].tolist(), strict=True)
    (shape,) = shapes
    assert shape[0] != shape[2]
    return found


@pytest.mark.parametrize("length", [1, 7, 1000])
@pytest.mark.parametrize("most_rows", [5, 20, 1000])
def test_items_are_whole_and_no_row_is_lost(length, most_rows):
    stream = by_key(chunks_of(ITEM, LABEL, length=length), most_rows=most_rows)
    assert rows_of(stream) == list(zip(ITEM.tolist(), LABEL.tolist(), strict=True))
    every = np.concatenate(list(stream.keys))
    np.testing.assert_array_equal(every, np.unique(ITEM))


def test_chunks_are_dictionaries_and_keys_strings():
    words = np.array(["w" * (key // 5) + f"{key}" for key in ITEM.tolist()], object)
    order = np.argsort(words.astype(str), kind="stable")
    chunks = [{"item": words[order][:50], "label": LABEL[order][:50]}]
    chunks += [{"item": words[order][50:], "label": LABEL[order][50:]}]
    stream = by_key(chunks, key="item", most_rows=30, most_items=8, num_items="number")
    parts = list(stream)
    assert {part.kwargs["number"] for part in parts} == {8}
    assert np.concatenate(list(stream.keys)).tolist() == sorted(set(words))


def test_rows_of_any_order_are_sorted_by_temporary_files(monkeypatch, tmp_path):
    monkeypatch.setattr(buckets.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(buckets, "NUM_BUCKETS", 3)
    order = np.random.default_rng(1).permutation(len(ITEM))
    stream = by_key(chunks_of(ITEM[order], LABEL[order]), most_rows=20, sort=True)
    for _ in range(2):
        found = rows_of(stream)
        assert sorted(found) == list(zip(ITEM.tolist(), LABEL.tolist(), strict=True))
    assert len(list(Path(tmp_path).iterdir())) == 1
    del stream
    gc.collect()
    assert list(Path(tmp_path).iterdir()) == []


def test_a_key_is_in_the_same_bucket_in_every_chunk():
    for keys in (np.arange(-50, 1000), np.arange(100).astype(str)):
        found = buckets.bucket_of(keys)
        np.testing.assert_array_equal(found[::-2], buckets.bucket_of(keys[::-2]))
        assert set(found) <= set(range(buckets.NUM_BUCKETS))
        assert len(np.unique(found)) > 30


def test_rows_that_are_not_sorted_are_named():
    within = (np.array([1, 2, 1]), LABEL[:3])
    with pytest.raises(
        ValueError, match=r"in chunk 0, row 2 is of item 1, after a row of 2"
    ) as one:
        list(by_key([within], most_rows=3))
    assert "emjax.Stream.by_key(..., sort=True)" in str(one.value)
    across = [(np.array([1, 2]), LABEL[:2]), (np.array([1]), LABEL[:1])]
    with pytest.raises(ValueError, match="in chunk 1, row 0 is of item 1, after a row of 2"):
        list(by_key(across, most_rows=3))


def test_an_item_that_has_no_room_is_named():
    with pytest.raises(ValueError, match=r"Item .*7.* has more rows than a part has room for, 2"):
        list(by_key([(np.full(3, 7), LABEL[:3])], most_rows=2))


def test_a_key_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="by argument 'item', and chunks have 2 positional"):
        list(by_key(chunks_of(ITEM, LABEL), key="item"))


def test_only_a_stream_that_is_cut_by_key_has_keys():
    with pytest.raises(ValueError, match="Only of a stream that is cut by key"):
        list(emjax.Stream.of(LABEL).keys)
