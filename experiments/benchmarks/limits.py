"""Physical limits: what this machine can do in a second, and so the least time of a step.

`python -m experiments.benchmarks.limits` measures the rates, in some twenty seconds: products of
matrices by XLA and by the BLAS of NumPy, of which the faster counts; memory as STREAM's triad
a ← b + s c has it, and as a sum that reads it; exponentials and logarithms of numbers that stay in
the cache, by XLA and by NumPy. All cores take part.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np

from experiments.benchmarks.row import Work

SIZE = {"float64": 8, "float32": 4}  # bytes of a number
ROOT = Path(__file__).parent.parent.parent
PRODUCTS, MEMORY, FUNCTIONS = "matrix products", "memory", "exponentials and logarithms"


class Rates(NamedTuple):
    """What the machine does in a second, in one precision, on all cores.

    - `multiply_adds`: of matrix products.
    - `bytes`: read from memory, or written.
    - `transcendentals`: exponentials and logarithms.
    - `cache`: bytes of the largest cache; what fits into it need not come from memory.
    """

    multiply_adds: float
    bytes: float
    transcendentals: float
    cache: float


class Bound(NamedTuple):
    """The least time of a step in seconds, and what takes it."""

    seconds: float
    what: str


def reading(work: Work, rates: Rates, precision: str) -> float:
    """Return the seconds that it takes to read the data once; 0 if they stay in the cache."""
    size = SIZE[precision] * work.numbers + 4 * work.indices
    return size / rates.bytes if size > rates.cache else 0.0


def bound(work: Work, rates: Rates, precision: str) -> Bound:
    """Return the largest of the three times: others might be hidden behind it."""
    seconds = {
        PRODUCTS: work.multiply_adds / rates.multiply_adds,
        MEMORY: reading(work, rates, precision),
        FUNCTIONS: work.transcendentals / rates.transcendentals,
    }
    what = max(seconds, key=lambda name: seconds[name])
    return Bound(seconds[what], what)


# ── rates ─────────────────────────────────────────────────────────────────────────────────────────


def shortest(call: Callable[[], object], seconds: float) -> float:
    """Return the shortest time of a call, of as many as `seconds` has room for; three or more."""
    call()  # compiles
    times, end = [], time.perf_counter() + seconds
    while len(times) < 3 or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def multiply_adds(precision: str, seconds: float, size: int = 2048) -> float:
    """Return the rate of products of square matrices, of the faster library."""
    import jax
    import jax.numpy as jnp

    matrix = np.random.default_rng(0).normal(size=(size, size)).astype(precision)
    ours, product = jnp.asarray(matrix), jax.jit(jnp.matmul)
    calls = [lambda: product(ours, ours).block_until_ready(), lambda: matrix @ matrix]
    return size**3 / min(shortest(call, seconds) for call in calls)


def bandwidth(precision: str, seconds: float, size: int = 2**28) -> float:
    """Return bytes a second of arrays of `size` bytes: of the triad, or of a sum if that is more.

    As in STREAM, what is written counts once, though a cache may read it before.
    """
    import jax
    import jax.numpy as jnp

    length = size // SIZE[precision]
    triad = jax.jit(lambda a, b, c: b + 3 * c, donate_argnums=0, keep_unused=True)
    total = jax.jit(jnp.sum)
    b, c = jnp.ones(length, precision), jnp.full(length, 2, precision)
    arrays = [jnp.zeros(length, precision)]

    def write():
        arrays.append(triad(arrays.pop(), b, c).block_until_ready())

    def read():
        total(b).block_until_ready()

    return max(3 * size / shortest(write, seconds), size / shortest(read, seconds))


def transcendentals(precision: str, seconds: float, length: int = 2**14) -> float:
    """Return exponentials and logarithms a second, half of each, by the faster library of each.

    Every core has numbers of its own, which stay in its cache.
    """
    import jax
    import jax.numpy as jnp

    repeats, cores = 400, num_cores()
    numbers = [np.linspace(0.5, 1.5, length, dtype=precision) for _ in range(cores)]

    def compiled(function):
        def again(_, x):  # what is added keeps XLA from moving it out of the loop
            return 0.5 + 1e-3 * function(x)

        loop = jax.jit(lambda x: jax.lax.fori_loop(0, repeats, again, x))
        return lambda x: loop(x).block_until_ready()

    def in_place(function):
        def repeated(x):
            out = np.empty_like(x)
            for _ in range(repeats):
                function(x, out=out)

        return repeated

    with ThreadPoolExecutor(cores) as pool:

        def fastest(*loops):
            calls = [lambda loop=loop: list(pool.map(loop, numbers)) for loop in loops]
            return min(shortest(call, seconds / 2) for call in calls)

        exponentials = fastest(compiled(jnp.exp), in_place(np.exp))
        logarithms = fastest(compiled(jnp.log), in_place(np.log))
    return 2 * length * repeats * cores / (exponentials + logarithms)


def num_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cache() -> float:
    """Return the bytes of the largest cache; 0 where the system does not say."""
    sizes = [0.0]
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text().strip()
        units = {"K": 2**10, "M": 2**20, "G": 2**30}
        sizes.append(float(text.rstrip("KMG")) * units.get(text[-1:], 1))
    return max(sizes)


def rates(precision: str, seconds: float, small: bool = False) -> Rates:
    """Return the rates of one precision; this process must be able to compute in it.

    `small` arrays are for trying whether it works.
    """
    matrix, memory = (128, 2**20) if small else (2048, 2**28)
    return Rates(
        multiply_adds(precision, seconds, matrix),
        bandwidth(precision, seconds, memory),
        transcendentals(precision, seconds),
        cache(),
    )


def measured(seconds: float = 1.0, small: bool = False) -> dict[str, Rates]:
    """Return the rates in both precisions, measured in a process of their own."""
    environment = os.environ | {"JAX_ENABLE_X64": "1", "JAX_PLATFORMS": "cpu"}
    words = [str(seconds), *(["small"] if small else [])]
    done = subprocess.run(
        [sys.executable, "-m", "experiments.benchmarks.limits", *words],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=300,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    return {precision: Rates(**values) for precision, values in found.items()}


def faster(one: Mapping[str, Rates], other: Mapping[str, Rates]) -> dict[str, Rates]:
    """Return the higher of two measurements of each rate: a limit is what was once possible."""
    found = {}
    for precision, rates in {**one, **other}.items():
        pair = one.get(precision, rates), other.get(precision, rates)
        found[precision] = Rates(*map(max, *pair))
    return found


def in_words(found: Mapping[str, Rates]) -> str:
    """Return the rates in words, as the page and the screen have them."""
    if not found:
        return "not measured"
    parts = []
    for name, attribute, unit in (
        ("matrix products", "multiply_adds", "multiply-adds"),
        ("memory", "bytes", "bytes"),
        ("exponentials and logarithms", "transcendentals", "of them"),
    ):
        values = " and ".join(
            f"{getattr(found[precision], attribute) / 1e9:.3g}" for precision in SIZE
        )
        parts.append(f"{name} {values} 10⁹ {unit} a second")
    return "; ".join(parts) + " (float64 and float32)"


if __name__ == "__main__":
    given = float(sys.argv[1]) if len(sys.argv) > 1 else 1.0
    is_small = len(sys.argv) > 2
    print(json.dumps({name: rates(name, given, is_small)._asdict() for name in SIZE}))
