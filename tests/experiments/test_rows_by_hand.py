"""What is written by hand in JAX takes the EM steps of what is written by hand in NumPy."""

import numpy as np
import pytest

from experiments.benchmarks.contestant import setup
from experiments.benchmarks.measure import GENERATORS, LOG_LIKELIHOODS
from experiments.benchmarks.rows import ROWS


@pytest.mark.parametrize(
    ("row", "numpy"),
    [
        ("dawid_skene", "NumPy"),
        ("multinomials", "SciPy"),
        ("motif", "NumPy"),
        ("incomplete_at_random", "NumPy, by pattern"),
        ("line", "scikit-learn"),
    ],
)
def test_step_written_in_jax_is_the_one_in_numpy(row, numpy):
    row = ROWS[row]
    sizes = row.sizes | row.quick
    problem = GENERATORS[row.model](**sizes)
    after = {}
    for implementation in (numpy, "hand-written JAX"):
        data, start = ({name: array.copy() for name, array in arrays.items()} for arrays in problem)
        after[implementation] = setup(implementation, row.model)(data, start, sizes)(2).params
    for name, value in after[numpy].items():
        found = after["hand-written JAX"][name]
        np.testing.assert_allclose(found, value, rtol=1e-9, atol=1e-12, err_msg=name)
    log_likelihood = LOG_LIKELIHOODS[row.model]
    assert log_likelihood(after[numpy], problem.data) > log_likelihood(problem.start, problem.data)
