"""The rows of mixtures with several starts, of incomplete points, of motifs, and of streams."""

from collections.abc import Mapping

from experiments.benchmarks.row import BOTH, F32, F64, Row, Work
from experiments.benchmarks.work import gaussian_diagonal, gaussian_full

OURS = {"emjax": BOTH, "hand-written JAX": BOTH}
STARTS = {"emjax": F64, "hand-written JAX": F64, "scikit-learn": F64}
INCOMPLETE = {"num_samples": 20_000, "num_features": 8, "num_components": 4}
FEW_INCOMPLETE = {"num_samples": 600, "num_features": 3, "num_components": 2}


def restarts_work(sizes: Mapping) -> Work:
    """Return the work of one start as many times; the points are read once."""
    one, number = gaussian_full(sizes), sizes["num_starts"]
    return Work(number * one.multiply_adds, one.numbers, number * one.transcendentals)


def motif_work(sizes: Mapping) -> Work:
    """Return the work of a sum over the columns at each start, there and back."""
    num_starts = sizes["num_sequences"] * (7 * sizes["longest"] / 8 - sizes["width"])
    return Work(2 * num_starts * sizes["width"], transcendentals=num_starts)


def incomplete(name: str, title: str) -> Row:
    """Return a row of a mixture of incomplete points."""
    return Row(
        name,
        f"Gaussian mixture, full, {title}",
        name,
        INCOMPLETE,
        FEW_INCOMPLETE,
        (2, 12),
        OURS | {"NumPy, by pattern": F64},
        work=gaussian_full,
    )


TABLE = (
    Row(
        "restarts",
        "Gaussian mixture, full, twenty starts",
        "restarts",
        {"num_samples": 5_000, "num_features": 4, "num_components": 5, "num_starts": 20},
        {"num_samples": 300, "num_features": 2, "num_components": 2, "num_starts": 3},
        (2, 30),
        STARTS,
        own_steps={"scikit-learn": (2, 6)},
        work=restarts_work,
    ),
    Row(
        "restarts_few",
        "Gaussian mixture, full, twenty starts",
        "restarts",
        {"num_samples": 150, "num_features": 4, "num_components": 3, "num_starts": 20},
        {"num_samples": 100, "num_features": 2, "num_components": 2, "num_starts": 3},
        (2, 30),
        STARTS,
        work=restarts_work,
        note="emjax takes small runs in turn, each to its own end, in the one function that is "
        "compiled anyway: side by side a step of all is quicker, and the first answer later",
    ),
    incomplete("incomplete_at_random", "a tenth of the coordinates missing"),
    incomplete("incomplete_in_blocks", "four patterns of missing coordinates"),
    Row(
        "motif",
        "motif, one occurrence in each sequence",
        "motif",
        {"num_sequences": 1_000, "longest": 200, "width": 12},
        {"num_sequences": 20, "longest": 30, "width": 4},
        (2, 22),
        OURS | {"NumPy": F64},
        work=motif_work,
    ),
    Row(
        "stream",
        "Gaussian mixture, diagonal, on a memory map",
        "gaussian_stream",
        {"num_samples": 4_000_000, "num_features": 8, "num_components": 16, "single": True},
        {"num_samples": 5_000, "num_features": 2, "num_components": 3},
        (1, 4),
        {"emjax": F32, "emjax, in memory": F32, "hand-written JAX": F32},
        work=gaussian_diagonal,
    ),
)
