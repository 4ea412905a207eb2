"""A stream beside memory: `python -m experiments.benchmarks.streams`.

A Gaussian mixture in single precision, from a memory map and from a Parquet file, of which each
step reads all, beside the same steps on fewer rows in memory. Each is a process of its own, which
says how many seconds a step takes and how much memory it holds beyond what other processes could
take from it (VmRSS − RssFile: the page cache is not counted). Seconds
of all cores tell where other work on the machine spoils those on the wall.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

import emjax
from emjax.models import gaussian_mixture
from experiments.benchmarks.machine import processor

SOURCES = ("memory", "memory map", "parquet")
ROWS_WRITTEN = 1_000_000


def arguments(argv: list[str] | None) -> argparse.Namespace:
    """Return what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m experiments.benchmarks.streams")
    parser.add_argument("--rows", type=int, default=100_000_000, help="of the streams")
    parser.add_argument("--in-memory", type=int, default=10_000_000, help="rows in memory")
    parser.add_argument("--features", type=int, default=8)
    parser.add_argument("--components", type=int, default=16)
    parser.add_argument("--covariance", default="diagonal", choices=gaussian_mixture.COVARIANCES)
    parser.add_argument("--steps", type=int, default=3, help="that are timed")
    parser.add_argument("--chunk", type=int, help="rows of a chunk; else emjax's own choice")
    parser.add_argument("--only", nargs="+", default=SOURCES, choices=SOURCES)
    parser.add_argument("--folder", help="where the data are written; else a temporary one")
    parser.add_argument("--source", choices=SOURCES, help="measure it in this process")
    return parser.parse_args(argv)


# ── data ──────────────────────────────────────────────────────────────────────────────────────────


def write(folder: Path, rows: int, features: int, components: int) -> None:
    """Write points of overlapping clusters as a memory map and as a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(0)
    centers = rng.normal(size=(components, features)).astype(np.float32) * 1.5
    names = [f"x{number}" for number in range(features)]
    schema = pa.schema([(name, pa.float32()) for name in names])
    with (
        open(folder / "points.f4", "wb") as file,
        pq.ParquetWriter(folder / "points.parquet", schema, compression="none",
                         use_dictionary=False) as table,
    ):  # fmt: skip
        for start in range(0, rows, ROWS_WRITTEN):
            number = min(ROWS_WRITTEN, rows - start)
            points = rng.standard_normal((number, features), np.float32)
            points += centers[rng.integers(components, size=number)]
            points.tofile(file)
            columns = [pa.array(np.ascontiguousarray(column)) for column in points.T]
            table.write_table(pa.table(columns, schema=schema), row_group_size=ROWS_WRITTEN)


def source_of(name: str, folder: Path, options: argparse.Namespace) -> Any:
    """Return the data of a measurement: an array, or a stream."""
    if name == "parquet":
        return emjax.Stream.parquet(folder / "points.parquet", rows=options.chunk)
    points = np.memmap(folder / "points.f4", np.float32, "r").reshape(-1, options.features)
    if name == "memory":
        return np.array(points[: options.in_memory])
    return emjax.Stream.of(points, rows=options.chunk)


# ── measurements ──────────────────────────────────────────────────────────────────────────────────


def held() -> int:
    """Return the bytes that this process holds beside files that are mapped."""
    lines = Path("/proc/self/status").read_text().splitlines()
    kilobytes = {line.split(":")[0]: line.split()[1] for line in lines if line.endswith(" kB")}
    return 1024 * (int(kilobytes["VmRSS"]) - int(kilobytes["RssFile"]))


def with_peak(work: Callable[[], Any]) -> tuple[Any, int]:
    """Return what some work returns, and the most bytes that were held meanwhile."""
    peak, is_done = [held()], threading.Event()

    def watch():
        while not is_done.wait(0.05):
            peak.append(held())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        return work(), max(peak)
    finally:
        is_done.set()
        watcher.join()


def measured(options: argparse.Namespace) -> dict[str, float]:
    """Return, of a source, seconds a step; for 10⁶ rows on the wall and of all cores; bytes."""
    data = source_of(options.source, Path(options.folder), options)
    shape = options.components, options.features
    rng = np.random.default_rng(1)
    start = {
        "weights": np.full(options.components, 1 / options.components, np.float32),
        "loc": rng.normal(size=shape).astype(np.float32),
        "scale": np.ones(shape, np.float32),
    }

    def seconds(num_steps: int) -> np.ndarray:
        how = {"stop": "never", "max_steps": num_steps, "precision": "single"}
        em = emjax.EM(gaussian_mixture.program, **how)
        begin = end = np.zeros(2)
        # the first compiles
        for _ in range(2):
            begin = clocks()
            more = options.components, options.covariance
            fit = em.run(jax.random.key(0), data, *more, init_params=start)
            assert fit.num_steps == num_steps
            end = clocks()
        return end - begin

    def work():
        few, more = seconds(1), seconds(1 + options.steps)
        return (more - few) / options.steps

    (wall, cores), peak = with_peak(work)
    rows = options.in_memory if options.source == "memory" else options.rows
    return {"step": wall, "million": wall * 1e6 / rows, "cores": cores * 1e6 / rows, "bytes": peak}


def clocks() -> np.ndarray:
    """Return seconds on the wall, and those of all cores, which others' work hardly changes."""
    return np.array([time.perf_counter(), time.process_time()])


def main(argv: list[str] | None = None) -> None:
    """Write the data, measure each source, and print what was found."""
    options = arguments(argv)
    if options.source:
        print(json.dumps(measured(options)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.folder or temporary)
        if not (folder / "points.parquet").exists():
            write(folder, options.rows, options.features, options.components)
        given = [*(sys.argv[1:] if argv is None else argv), "--folder", str(folder)]
        print(processor())
        print(f"{'':12} {'s a step':>9} {'s / 10⁶':>9} {'cores':>9} {'× memory':>14} {'GiB':>6}")
        first = None
        for source in options.only:
            command = [sys.executable, "-m", "experiments.benchmarks.streams", *given]
            output = subprocess.run(
                [*command, "--source", source], check=True, stdout=subprocess.PIPE, text=True
            )
            found = json.loads(output.stdout.splitlines()[-1])
            first = first or found
            ratios = [found[name] / first[name] for name in ("million", "cores")]
            print(
                f"{source:12} {found['step']:9.3f} {found['million']:9.4f} {found['cores']:9.4f} "
                f"{ratios[0]:6.2f}, {ratios[1]:6.2f} {found['bytes'] / 2**30:6.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
