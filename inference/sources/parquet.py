"""Columns of Parquet files, or of any dataset of Arrow, as chunks of arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

Columns = str | Sequence[str] | Mapping[str, str | Sequence[str]] | None


def scanned(
    source: Any, columns: Columns, rows: int | None, numbers: int, dtype: Any
) -> Callable[[], Iterator[Any]]:
    """Return a function that returns an iterator over chunks of as many rows of some columns.

    - `source`: a path, a folder of files, several paths, or a dataset of pyarrow's.
    - `columns`: a name: an array of one column; several: an array (row, column); {argument: such}:
      named arguments; None: all columns.
    - `rows`: of each chunk; None: as many as have some `numbers`.
    - `dtype`: of all arrays; None: what the columns are of.

    Errors: `ImportError` without pyarrow; `ValueError` for a file that is none of Parquet, for a
    column that is not there or holds no numbers, and for integers of which some are missing.
    """
    dataset = _dataset(source)
    schema = dataset.schema
    columns = list(schema.names) if columns is None else columns
    arrays = dict(columns) if isinstance(columns, Mapping) else {"": columns}
    names = []
    for of_array in arrays.values():
        names += [of_array] if isinstance(of_array, str) else list(of_array)
    types = {name: _type_of(schema, name) for name in names}
    rows = rows or max(numbers // max(len(names), 1), 1)

    def chunk(batches: list[Any]) -> Any:
        found = {}
        for argument, of_array in arrays.items():
            found[argument] = _array(batches, of_array, types, dtype)
        return found if isinstance(columns, Mapping) else found[""]

    def chunks() -> Iterator[Any]:
        # a few batches ahead are enough, where the default is some million rows
        scanner = dataset.scanner(
            columns=list(dict.fromkeys(names)),
            batch_size=rows,
            batch_readahead=4,
            fragment_readahead=1,
        )
        for batches in _cut(scanner.to_batches(), rows):
            yield chunk(batches)

    return chunks


def _dataset(source: Any) -> Any:
    if hasattr(source, "scanner"):
        return source
    try:
        import pyarrow as pa
        from pyarrow import dataset
    except ImportError as error:
        raise ImportError(
            "emjax.Stream.parquet reads by pyarrow: pip install emjax[streams]."
        ) from error
    is_list = isinstance(source, list | tuple)
    paths = [str(path) for path in source] if is_list else str(source)
    # else all row groups to come are read ahead, and kept until they are asked for
    options = dataset.ParquetFragmentScanOptions(pre_buffer=False, use_buffered_stream=True)
    format = dataset.ParquetFileFormat(default_fragment_scan_options=options)
    try:
        return dataset.dataset(paths, format=format)
    except pa.ArrowInvalid as error:
        raise ValueError(
            f"{source} cannot be read as Parquet: {error} A file whose writing was cut short has "
            "no end, which says where everything is: write it again."
        ) from error


def _type_of(schema: Any, name: str) -> np.dtype:
    """Return the type of NumPy's that a column is of."""
    import pyarrow as pa

    if name not in schema.names:
        raise ValueError(
            f"The data have no column {name!r}; they have {', '.join(map(repr, schema.names))}."
        )
    found = schema.field(name).type
    is_number = pa.types.is_integer(found) or pa.types.is_floating(found)
    if is_number or pa.types.is_boolean(found):
        return np.dtype(found.to_pandas_dtype())
    raise ValueError(
        f"Column {name!r} is of type {found}, and EM takes numbers. Choose the columns that are, "
        f"emjax.Stream.parquet(path, columns=[...]), and number categories where the file is made."
    )


def _cut(batches: Iterator[Any], length: int) -> Iterator[list[Any]]:
    """Yield batches that have as many rows together, the last ones the rest; nothing is copied."""
    waiting, num_waiting = [], 0
    for batch in batches:
        start = 0
        while num_waiting + batch.num_rows - start >= length:
            needed = length - num_waiting
            yield [*waiting, batch.slice(start, needed)]
            waiting, num_waiting, start = [], 0, start + needed
        if start < batch.num_rows:
            waiting.append(batch.slice(start))
            num_waiting += batch.num_rows - start
    if waiting:
        yield waiting


def _array(
    batches: list[Any], columns: str | Sequence[str], types: Mapping[str, np.dtype], dtype: Any
) -> np.ndarray:
    """Return the values of columns: (row,), or (row, column) of several."""
    names = [columns] if isinstance(columns, str) else list(columns)
    if dtype is None:
        dtype = np.result_type(*[types[name] for name in names])
    filled = np.empty((sum(batch.num_rows for batch in batches), len(names)), dtype)
    start = 0
    for batch in batches:
        stop = start + batch.num_rows
        for number, name in enumerate(names):
            column = batch.column(name)
            if column.null_count and not np.issubdtype(dtype, np.inexact):
                raise ValueError(
                    f"Of column {name!r} some are missing, and {np.dtype(dtype)} has no NaN: "
                    "emjax.Stream.parquet(path, dtype=float)."
                )
            filled[start:stop, number] = _numbers(column)
        start = stop
    return filled[:, 0] if isinstance(columns, str) else filled


def _numbers(column: Any) -> np.ndarray:
    # truth values of which some are missing would be objects
    if column.null_count and str(column.type) == "bool":
        column = column.cast("uint8")
    return column.to_numpy(zero_copy_only=False)
