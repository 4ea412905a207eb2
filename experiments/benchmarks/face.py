"""How long do scikit-learn's face and the classes that it replaces take, compilation included?

`python -m experiments.benchmarks.face [--rows 150 10000] [--only …] [--write]` prints the table,
and writes docs/benchmarks_face.md. Each fit is made by a process of its own, which then makes it a
second time. Both classes start at the same parameters, and stop where a step gains at most TOL ·
(1 + |log-likelihood|) nats. The parameters of both are then put into the library's class, and
evaluated by its own `score`.
"""

import argparse
import importlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from experiments.benchmarks import machine
from experiments.benchmarks.face_tasks import BY_NAME, Task
from experiments.benchmarks.page import filled, markdown

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "benchmarks_face.md"
SIZES = (150, 10_000, 1_000_000)
TOL = 1e-8
PATIENCE = 900  # seconds for a process
PACKAGES = ("emjax", "jax", "numpyro", "numpy", "scipy", "scikit-learn", "hmmlearn")


# ── one process ───────────────────────────────────────────────────────────────────────────────────


def fit_twice(name: str, num_rows: int, is_ours: bool, threshold: float) -> dict:
    """Return seconds (wall, of the processor) of importing, of both fits, and what was found.

    `threshold`: in nats, where the library's fit is to stop.
    """
    task, start_of_import = BY_NAME[name], now()
    kind = getattr(importlib.import_module("emjax.sklearn" if is_ours else task.theirs), name)
    found: dict[str, Any] = {"import": since(start_of_import)}
    X, start, lengths = task.data(num_rows)
    tol = TOL if is_ours else threshold / (num_rows if name == "GaussianMixture" else 1)
    given = {} if lengths is None else {"lengths": lengths}
    for call in ("first", "second"):
        model = task.model(kind, start, tol, is_ours)
        began = now()
        model.fit(X, **given)
        found[call] = since(began)
    library = getattr(importlib.import_module(task.theirs), name)
    score = task.evaluated(library, model).score(X, **given)
    found["log_likelihood"] = score * (1 if lengths else num_rows)
    found["steps"] = int(model.monitor_.iter if lengths else model.n_iter_)
    return found


def now() -> tuple[float, float]:
    """Return the clock on the wall, and that of the processor."""
    return time.perf_counter(), time.process_time()


def since(start: tuple[float, float]) -> tuple[float, float]:
    """Return the seconds since `start`, by both clocks."""
    wall, processor = now()
    return wall - start[0], processor - start[1]


def in_a_process(task: Task, num_rows: int, is_ours: bool, threshold: float = 0.0) -> dict:
    """Return what `fit_twice` does, of a fresh process without a cache of what is compiled."""
    words = [task.name, str(num_rows), str(int(is_ours)), str(threshold)]
    command = [sys.executable, "-W", "ignore", "-m", "experiments.benchmarks.face", "--fit", *words]
    environment = {**os.environ, "JAX_ENABLE_COMPILATION_CACHE": "0"}
    environment.pop("XLA_FLAGS", None)
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=PATIENCE
    )
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


def compared(task: Task, num_rows: int) -> list[str]:
    """Return a line of the table."""
    ours = in_a_process(task, num_rows, True)
    height = ours["log_likelihood"]
    theirs = in_a_process(task, num_rows, False, TOL * (1 + abs(height)))
    cells = [task.title, f"{num_rows:,}"]
    for call in ("first", "second"):
        cells += [pair(ours[call]), pair(theirs[call])]
        cells += [numeral(ours[call][1] / theirs[call][1])]
    apart = (height - theirs["log_likelihood"]) / abs(height)
    cells += [f"{ours['steps']}, {theirs['steps']}", f"{apart:.0e}"]
    print(" | ".join(cells), file=sys.stderr, flush=True)
    return cells


# ── the page ──────────────────────────────────────────────────────────────────────────────────────

INTRODUCTION = """# How fast is the scikit-learn face?

What `emjax.sklearn` takes beside the classes that it replaces: seconds from data to a fitted
estimator, compilation included, on few rows, some, and many. This page is written by a program,
from one run on one machine:

```bash
pip install ".[benchmarks]"
{command}
```

Both classes get the same data and the same start, and stop where a step gains no more nats than
10⁻⁸ times one and the size of the log-likelihood. Priors and floors of the libraries are off;
hmmlearn's messages are those that it calls "scaling", the faster ones, and scikit-learn's factor
analysis takes exact singular values ("lapack"). At the end both sets of parameters are put into the
library's class, and its own `score` evaluates them: the last column is by how much emjax's
log-likelihood is higher, relative to its size. Rows of a chain are sequences of 1,000.

Each fit is the first of a fresh process, without a cache of what was compiled, and then the second
of the same process on the same data. Reported are seconds on the clock, and in brackets seconds of
the processor, all cores together; ratios are of the latter: above 1, emjax takes longer. Importing
comes before the clock starts: {imports}. Other work ran on the machine at the same time{quiet}.

**Machine.** {processor}; {memory} of memory.<br>
**Versions.** {versions}.
"""
COLUMNS = [
    "class", "rows", "emjax, first", "library, first", "ratio", "emjax, second",
    "library, second", "ratio", "steps", "Δ log-likelihood",
]  # fmt: skip


def pair(seconds: list[float]) -> str:
    """Return seconds on the clock, and of the processor."""
    return f"{numeral(seconds[0])} ({numeral(seconds[1])})"


def numeral(number: float) -> str:
    """Return a number with two digits that count."""
    return f"{number:.0f}" if number >= 10 else f"{number:.2g}"


def write(path: Path, command: str, table: list[list[str]], imports: str) -> None:
    """Write the page."""
    load = os.getloadavg()[0]
    facts = {
        "command": command,
        "imports": imports,
        "quiet": f" (load {load:.0f})",
        "processor": machine.processor(),
        "memory": machine.memory(),
        "versions": machine.versions(PACKAGES),
    }
    page = INTRODUCTION.format(**facts) + "\n" + markdown(COLUMNS, table, len(COLUMNS) - 1)
    path.write_text(filled(page + "\n" + VERDICT), encoding="utf-8")


VERDICT = """On few rows emjax loses by far: a program is traced and compiled for seconds, and a
library's loop is done in less than one. Compiled once, as the second fit is, it still loses to
hmmlearn on few rows; to factor analysis it loses on few and wins on many, since a step takes sums
that were added up once. With JAX's persistent cache a second process does not compile, it traces.
What the libraries' classes do not have is another matter: values that are missing, weights, labels,
restarts, standard errors, and any other program behind the same interface.

`check_estimator` of scikit-learn is run by `python -m experiments.benchmarks.face --checks`, which
says of each check that is expected to fail why it does not apply.
"""


def main(argv: list[str] | None = None) -> None:
    """Measure, print, and write the page if asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--only", nargs="+", choices=list(BY_NAME), default=list(BY_NAME))
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.relative_to(ROOT)}")
    parser.add_argument("--fit", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--checks", action="store_true", help="what check_estimator says of each")
    chosen = parser.parse_args(argv)
    if chosen.checks:
        checked()
        return
    if chosen.fit:
        name, num_rows, is_ours, threshold = chosen.fit
        found = fit_twice(name, int(num_rows), is_ours == "1", float(threshold))
        print(json.dumps(found))
        return
    table = []
    for name in chosen.only:
        for num_rows in chosen.rows:
            table.append(compared(BY_NAME[name], num_rows))
    print(markdown(COLUMNS, table, len(COLUMNS) - 1))
    if chosen.write:
        words = [f"--rows {' '.join(map(str, chosen.rows))}"] if chosen.rows != list(SIZES) else []
        command = " ".join(["python -m experiments.benchmarks.face", *words, "--write"])
        write(PAGE, command, table, importing())


# what scikit-learn's checks cannot know, and why
IN_TIME = {
    "check_methods_subset_invariance": "a row is explained by its neighbors, too",
    "check_methods_sample_order_invariance": "rows are in time",
}
EXPECTED = {
    "FactorAnalysis": {"check_sample_weight_equivalence_on_dense_data": "a Heywood case"},
    "LatentClass": {
        "check_sample_weight_equivalence_on_dense_data": "its data are no whole numbers"
    },
    "GaussianHMM": IN_TIME,
    "CategoricalHMM": IN_TIME,
    "PoissonHMM": IN_TIME,
}


def checked() -> None:
    """Print how many of scikit-learn's checks each estimator passes; several minutes."""
    from sklearn.utils.estimator_checks import check_estimator

    import emjax.sklearn as face

    for name in ("FactorAnalysis", "LatentClass", "GaussianHMM", "CategoricalHMM", "PoissonHMM"):
        expected = EXPECTED.get(name, {})
        found = check_estimator(
            getattr(face, name)(2), expected_failed_checks=expected, on_fail=None
        )
        counts = Counter(each["status"] for each in found)
        print(name, *(f"{number} {status}" for status, number in counts.items()), flush=True)
        for each in found:
            if each["status"] != "passed":
                print(f"  {each['check_name']}: {each['exception']}", flush=True)


def importing() -> str:
    """Return how long a process takes to import each module, in words."""
    words = []
    for module in ("emjax.sklearn", "hmmlearn.hmm", "sklearn.mixture"):
        start = now()
        subprocess.run([sys.executable, "-c", f"import {module}"], check=True)
        words.append(f"`{module}` {numeral(now()[0] - start[0])} s")
    return ", ".join(words)


if __name__ == "__main__":
    main()
