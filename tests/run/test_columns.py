"""A table's columns: what prints, and the data frame of the same rows."""

import builtins

import numpy as np
import pytest

from emjax.run.columns import Column, Table, lines_of


class Sizes(Table):
    def _columns(self):
        return [
            Column("class", ["large", "small"]),
            Column("mean_size", np.array([10.25, np.nan]), ".3f"),
            Column("share", [0.75, 0.25], ["75 %*", "25 % "], "part"),
            Column("hidden", [True, False], is_printed=False),
        ]


def test_columns_print_as_lines_and_become_a_frame_of_all_of_them():
    columns = Sizes()._columns()
    lines = ["class  mean size   part", "large     10.250  75 %*", "small          –  25 %"]
    assert lines_of(columns) == lines
    assert lines_of(columns, most=1, has_head=False) == ["large  10.250  75 %*", "and 1 more"]
    frame = Sizes().to_frame()
    assert list(frame) == ["class", "mean_size", "share", "hidden"] and len(frame) == 2
    np.testing.assert_array_equal(frame["mean_size"], [10.25, np.nan])


def test_a_frame_without_pandas_is_an_error_that_installs_it(monkeypatch):
    original = builtins.__import__

    def without_pandas(name, *others):
        if name == "pandas":
            raise ImportError(name)
        return original(name, *others)

    monkeypatch.setattr(builtins, "__import__", without_pandas)
    with pytest.raises(ImportError, match="pip install pandas"):
        Sizes().to_frame()


def test_whole_numbers_beside_nothing_stay_whole():
    class Rows(Table):
        def _columns(self):
            return [Column("class", [1, None]), Column("item", ["tea", None])]

    frame = Rows().to_frame()
    assert frame["class"].dtype == "Int64" and frame["class"].isna().tolist() == [False, True]
