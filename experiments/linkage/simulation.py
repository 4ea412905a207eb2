"""Comparisons of records whose truth is known, written to a Parquet file chunk by chunk."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from emjax import Stream

Columns = dict[str, np.ndarray]
CHUNK = 1_000_000  # comparisons that are in memory at once
MATCH_RATE = 0.004


class Field(NamedTuple):
    """How a field agrees.

    - `levels`: what each level is called, from 0 up.
    - `m`, `u`: how probable each level is in a match, and in another pair.
    - `missing`: how often either record lacks the field.
    """

    levels: tuple[str, ...]
    m: tuple[float, ...]
    u: tuple[float, ...]
    missing: float


NAME_LEVELS = ("other", "similar", "one letter off", "same")
FIELDS = {
    "forename": Field(NAME_LEVELS, (0.07, 0.05, 0.08, 0.80), (0.975, 0.014, 0.003, 0.008), 0.02),
    "surname": Field(NAME_LEVELS, (0.09, 0.04, 0.07, 0.80), (0.985, 0.010, 0.002, 0.003), 0.01),
    "birth": Field(
        ("other", "same year", "one digit off", "same"),
        (0.02, 0.02, 0.06, 0.90),
        (0.975, 0.0195, 0.005, 0.0005),
        0.05,
    ),
    "street": Field(("other", "similar", "same"), (0.30, 0.15, 0.55), (0.989, 0.009, 0.002), 0.08),
    "town": Field(("other", "same"), (0.25, 0.75), (0.96, 0.04), 0.03),
    "email": Field(("other", "same user", "same"), (0.25, 0.05, 0.70), (0.9988, 1e-3, 2e-4), 0.40),
}
NUM_LEVELS = {name: len(field.levels) for name, field in FIELDS.items()}


def true_params() -> dict[str, np.ndarray]:
    """Return what the comparisons are drawn from, as parameters of `record_linkage.program`."""
    params = {"match_rate": np.asarray(MATCH_RATE)}
    for name, field in FIELDS.items():
        params |= {f"m_{name}": np.array(field.m), f"u_{name}": np.array(field.u)}
    return params


def drawn(rng: np.random.Generator, num_comparisons: int) -> Columns:
    """Return the levels of all fields, −1 where they are missing, and `match`: whether it is one.

    Fields agree independently, given whether the pair is a match.
    """
    match = rng.random(num_comparisons) < MATCH_RATE
    where = np.flatnonzero(match)
    columns: Columns = {}
    for name, field in FIELDS.items():
        level = levels_of(rng.random(num_comparisons, np.float32), field.u)
        level[where] = levels_of(rng.random(len(where), np.float32), field.m)
        level[rng.random(num_comparisons, np.float32) < field.missing] = -1
        columns[name] = level
    return columns | {"match": match.view(np.int8)}


def levels_of(uniform: np.ndarray, probs: tuple[float, ...]) -> np.ndarray:
    """Return a level for each uniform number."""
    level = np.zeros(len(uniform), np.int8)
    for threshold in np.cumsum(probs[:-1]):
        level += uniform > threshold
    return level


def write(path: Path, num_comparisons: int, seed: int = 0) -> None:
    """Write comparisons to a Parquet file, of which one chunk at a time is in memory."""
    rng = np.random.default_rng(seed)
    schema = pa.schema([(name, pa.int8()) for name in (*FIELDS, "match")])
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, num_comparisons, CHUNK):
            columns = drawn(rng, min(CHUNK, num_comparisons - start))
            writer.write_table(pa.table(columns, schema))


def read(path: Path, names: tuple[str, ...]) -> Stream:
    """Return the columns of these names, as one argument, chunk by chunk."""

    def chunks() -> Iterator[tuple[Columns]]:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(CHUNK, columns=list(names)):
                yield ({name: batch.column(name).to_numpy() for name in names},)

    return Stream(chunks)
