"""The Vuong–Lo–Mendell–Rubin test: sums of χ² by closed forms, Vuong's matrix by hand."""

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints
from scipy import stats

import emjax
from emjax import EM, weighted
from emjax.classes.weighted_chi_squares import tail_probability

KEY = jax.random.key(0)
X = np.random.default_rng(1).gamma(2.0, 1.0, 50) - 1.2


@pytest.mark.parametrize("degrees", [1, 2, 5, 20])
def test_equal_weights_are_a_chi_squared_distribution(degrees):
    for x in (1e-6, 0.1, 1.0, 5.0, 20.0, 200.0):
        found = tail_probability(np.full(degrees, 3.0), 3 * x)
        np.testing.assert_allclose(found, stats.chi2.sf(x, degrees), rtol=1e-12)


def test_pairs_of_weights_are_sums_of_exponentials():
    a, b = 2.0, 0.3
    for x in (0.1, 1.0, 10.0, 50.0):
        expected = (a * np.exp(-x / 2 / a) - b * np.exp(-x / 2 / b)) / (a - b)
        np.testing.assert_allclose(
            tail_probability(np.array([a, a, b, b]), x), expected, rtol=1e-12
        )
        # the difference of two equal exponentials is Laplace's distribution
        both = np.array([1.0, 1, -1, -1])
        np.testing.assert_allclose(tail_probability(both, x), np.exp(-x / 2) / 2, rtol=1e-12)
        np.testing.assert_allclose(tail_probability(both, -x), 1 - np.exp(-x / 2) / 2, rtol=1e-12)


def test_at_zero_it_is_the_distribution_of_a_ratio():
    found = tail_probability(np.array([1.0, -0.1]), 0.0)
    np.testing.assert_allclose(found, stats.f.sf(0.1, 1, 1), rtol=1e-10)
    assert tail_probability(np.array([1.0, 2.0]), 0.0) == 1
    assert tail_probability(np.array([-1.0]), 0.5) == 0
    with pytest.raises(ValueError, match="must be finite"):
        tail_probability(np.array([np.nan]), 1.0)


def normal(x):
    loc = numpyro.param("loc", 0.0)
    scale = numpyro.param("scale", 1.0, constraint=constraints.positive)
    with numpyro.plate("rows", len(x)):
        numpyro.sample("x", dist.Normal(loc, scale), obs=x)


def centered(x):
    scale = numpyro.param("scale", 1.0, constraint=constraints.positive)
    with numpyro.plate("rows", len(x)):
        numpyro.sample("x", dist.Normal(0.0, scale), obs=x)


def test_weights_are_the_eigenvalues_of_vuongs_matrix():
    fits = [EM(program).run(KEY, X) for program in (centered, normal)]
    found = emjax.vuong_lo_mendell_rubin(*fits)
    # scores and information of (μ, log σ), and of log σ alone, on paper
    n, mean, scale, of_zero = len(X), X.mean(), X.std(), np.sqrt(np.mean(X**2))
    f = np.stack([(X - mean) / scale**2, ((X - mean) / scale) ** 2 - 1])
    g = ((X / of_zero) ** 2 - 1)[None]
    inverse_f, inverse_g = np.diag([scale**2 / n, 1 / (2 * n)]), np.array([[1 / (2 * n)]])
    matrix = np.block(
        [
            [f @ f.T @ inverse_f, -f @ g.T @ inverse_g],
            [g @ f.T @ inverse_f, -g @ g.T @ inverse_g],
        ]
    )
    expected = np.sort(np.linalg.eigvals(matrix).real)
    np.testing.assert_allclose(found.weights, expected, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(found.statistic, 2 * n * np.log(of_zero / scale), rtol=1e-10)
    assert (found.num_samples, found.num_free_parameters) == (n, (1, 2))
    adjusted = found.statistic / (1 + 1 / np.log(n))
    np.testing.assert_allclose(found.adjusted_statistic, adjusted, rtol=1e-14)
    draws = np.random.default_rng(0).chisquare(1, (100_000, 3)) @ expected
    for p, statistic in ((found.p_value, found.statistic), (found.adjusted_p_value, adjusted)):
        np.testing.assert_allclose(p, np.mean(draws > statistic), atol=0.005)
    lines = str(found).splitlines()
    assert lines[0] == (
        "Vuong–Lo–Mendell–Rubin test, of 2 free parameters against 1 and 50 samples"
    )
    assert lines[2].split() == ["LR", f"{found.statistic:.4f}", f"{found.p_value:.4f}"]


def test_rows_with_weights_are_refused():
    data = np.arange(1.0, 51.0), X
    fits = [EM(weighted(program, "rows")).run(KEY, *data) for program in (centered, normal)]
    with pytest.raises(ValueError, match="Site 'x' has weights, and the test is of rows that"):
        emjax.vuong_lo_mendell_rubin(*fits)
