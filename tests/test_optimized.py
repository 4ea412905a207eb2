"""What the other tests compile quickly, compiled as it is for users: some of each kind, in a
process of its own.
"""

import os
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent
OF_EACH_KIND = (
    "models/test_models.py::test_em_is_the_update_derived_by_hand[annotators]",
    "models/test_models.py::test_em_is_the_update_derived_by_hand[mixture, full]",
    "models/test_models.py::test_em_is_the_update_derived_by_hand[hidden Markov, diagonal]",
    "elimination/test_chains.py::test_random_chain_is_brute_force[1]",
    "test_float32.py::test_k_means_far_from_the_origin_needs_no_float64",
)


def test_what_is_exact_stays_so_under_full_optimization():
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-o",
        "addopts=--import-mode=importlib",
        "-p",
        "no:cacheprovider",
        *(f"{TESTS}/{test}" for test in OF_EACH_KIND),
    ]
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")
    }
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=TESTS.parent,
        env=environment | {"XLA_FLAGS": "--xla_backend_optimization_level=3"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(OF_EACH_KIND) + 1} passed" in done.stdout, (
        done.stdout
    )  # one of them at two distances
