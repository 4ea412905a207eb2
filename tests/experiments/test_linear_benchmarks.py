"""The steps written by hand in JAX, which emjax races, are those derived by hand."""

import numpy as np
import pytest

from emjax.models import factor_analysis, linear_gaussian_state_space, linear_mixed_model
from experiments.benchmarks import by_hand_linear, by_hand_states
from experiments.benchmarks.data_linear import GENERATORS
from experiments.benchmarks.likelihood_linear import LOG_LIKELIHOODS
from experiments.benchmarks.rows import ROWS


def derived(model, data, start, sizes):
    """One step by the NumPy of `emjax.models`."""
    if model == "factor_analysis":
        return factor_analysis.hand_derived_step(start, data["points"], sizes["num_factors"])
    if model == "counted_factor_analysis":
        rows = np.repeat(data["points"], data["count"].astype(int), axis=0)
        return factor_analysis.hand_derived_step(start, rows, sizes["num_factors"])
    if model == "linear_mixed_model":
        names = "response", "fixed_covariates", "random_covariates", "group"
        rows = [data[name] for name in names]
        return linear_mixed_model.hand_derived_step(start, *rows, sizes["num_groups"])
    points = data["points"][:, None]
    seen = np.ones(points.shape[:2], bool)
    return linear_gaussian_state_space.hand_derived_step(start, points, seen, sizes["num_states"])


@pytest.mark.parametrize(
    ("row", "implementation"),
    [
        ("factors", "hand-written JAX"),
        ("factors_counted", "hand-written JAX"),
        ("effects", "hand-written JAX"),
        ("effects", "hand-written JAX, by rows"),
        ("states", "hand-written JAX"),
    ],
)
def test_step_written_in_jax_is_the_one_derived(row, implementation):
    row = ROWS[row]
    sizes = row.sizes | row.quick
    data, start = GENERATORS[row.model](**sizes)
    setups = by_hand_linear.SETUPS[implementation] | by_hand_states.SETUPS.get(implementation, {})
    found = setups[row.model](dict(data), dict(start), sizes)(1).params
    expected = derived(row.model, data, start, sizes)
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-9, atol=1e-10, err_msg=name)
    log_likelihood = LOG_LIKELIHOODS[row.model]
    assert log_likelihood(found, data) > log_likelihood(start, data)
