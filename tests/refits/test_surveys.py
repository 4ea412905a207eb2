"""Samples of a survey: weights, strata and clusters, held to the formulas of textbooks.

The means, totals and ratios of sampling theory are maxima of a likelihood, so that what holds for
every program has to be what Cochran wrote down for these.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints
from scipy import stats

import emjax
from emjax import EM, standard_errors, weighted
from emjax.refits.students_t import quantile_of, two_sided

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
SIZES, WEIGHTS = np.array([6, 10, 14]), np.array([5.0, 3.0, 2.0])
STRATUM = np.repeat(["a", "b", "c"], SIZES)
NUMBER = np.repeat([0, 1, 2], SIZES)
W = WEIGHTS[NUMBER]
CLUSTER = np.arange(30) // 2
TIME = RNG.gamma(5.0, size=30)
COST = TIME * 2 + RNG.normal(NUMBER, 1 + NUMBER)


def ratio(cost, time):
    """A cost of `rate` per unit of time, which is Σ w cost / Σ w time; a mean, for times of one."""
    rate = numpyro.param("rate", 1.0)
    with numpyro.plate("rows", len(cost)):
        numpyro.sample("cost", dist.Normal(rate * time, jnp.sqrt(time)), obs=cost)


def mixture(x):
    loc = numpyro.param("loc", jnp.array([-1.0, 3.0]))
    weights = numpyro.param("weights", jnp.array([0.5, 0.5]), constraint=constraints.simplex)
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(loc[z], 1.0), obs=x)


EM_OF_RATIO = EM(weighted(ratio, "rows", kind="sampling"))
MEAN = {"rate": (W * COST).sum() / W.sum()}
RATIO = {"rate": (W * COST).sum() / (W * TIME).sum()}


def error_of_mean(weights=W, **design):
    errors = standard_errors(EM_OF_RATIO, MEAN, weights, COST, np.ones(30), **design)
    return errors, float(errors.standard_error["rate"])


def test_a_stratified_mean_has_its_textbook_standard_error_whatever_the_scale_of_the_weights():
    """Cochran (1977), Sampling Techniques, chapter 5: Σ_h W_h² (1 − f_h) s_h² / n_h."""
    shares = SIZES * WEIGHTS / (SIZES * WEIGHTS).sum()
    of_stratum = np.array([COST[h == STRATUM].var(ddof=1) for h in "abc"]) * shares**2 / SIZES
    found, error = error_of_mean(strata=STRATUM)
    assert found.method == "linearization" and found.degrees_of_freedom == 27
    np.testing.assert_allclose(error, np.sqrt(of_stratum.sum()), rtol=1e-9)
    low, high = found.interval()["rate"]
    np.testing.assert_allclose((high - low) / 2, stats.t.ppf(0.975, 27) * error, rtol=1e-9)
    population = {"a": 12, "b": 40}
    expected = np.sqrt((of_stratum * (1 - np.array([6 / 12, 10 / 40, 0]))).sum())
    for weights, method in ((100 * W, "linearization"), (W, "jackknife")):
        _, error = error_of_mean(weights, strata=STRATUM, population=population, method=method)
        np.testing.assert_allclose(error, expected, rtol=1e-9)


def test_a_ratio_of_clusters_has_its_textbook_standard_error():
    """Cochran (1977), chapters 6 and 11: residuals, summed in clusters, vary within strata."""
    residual = W * (COST - RATIO["rate"] * TIME)
    totals = residual.reshape(15, 2).sum(1)
    variance = 0.0
    for h in "abc":
        of_stratum = totals[STRATUM[::2] == h]
        variance += len(of_stratum) * of_stratum.var(ddof=1)
    design = {"strata": STRATUM, "clusters": CLUSTER}
    found = standard_errors(EM_OF_RATIO, RATIO, W, COST, TIME, **design)
    expected = np.sqrt(variance) / (W * TIME).sum()
    np.testing.assert_allclose(found.standard_error["rate"], expected, rtol=1e-9)
    assert "15 clusters in 3 strata, 12 degrees of freedom" in str(found)
    without = []
    for cluster in range(15):
        factor = {h: n / (n - 1) for h, n in zip("abc", SIZES // 2, strict=True)}
        is_near = STRATUM[2 * cluster] == STRATUM
        w = W * np.where(is_near, factor[STRATUM[2 * cluster]], 1) * (cluster != CLUSTER)
        without.append((w * COST).sum() / (w * TIME).sum())
    variance = 0.0
    for h, n in zip("abc", SIZES // 2, strict=True):
        of_stratum = np.array(without)[STRATUM[::2] == h]
        variance += (n - 1) / n * ((of_stratum - of_stratum.mean()) ** 2).sum()
    found = standard_errors(EM_OF_RATIO, RATIO, W, COST, TIME, method="jackknife", **design)
    np.testing.assert_allclose(found.standard_error["rate"], np.sqrt(variance), rtol=1e-9)
    assert found.draws is None


def test_students_t_without_end_is_the_normal():
    assert two_sided(np.array([0.7]), np.inf) == pytest.approx(2 * stats.norm.sf(0.7), rel=1e-12)
    assert quantile_of(0.975, np.inf) == pytest.approx(stats.norm.ppf(0.975), rel=1e-12)
    assert quantile_of(0.975, 7.0) == pytest.approx(stats.t.ppf(0.975, 7), rel=1e-12)
    assert np.isnan(quantile_of(0.975, 0.0)) and np.isnan(two_sided(np.ones(2), 0.0)).all()


def test_clusters_drawn_again_vary_as_they_should():
    _, expected = error_of_mean(strata=STRATUM, clusters=CLUSTER, population={"a": 6})
    found, error = error_of_mean(
        strata=STRATUM,
        clusters=CLUSTER,
        population={"a": 6},
        method="bootstrap",
        num_draws=1000,
        rng_key=KEY,
    )
    # of 1000 draws, a standard deviation is known to 2.2 %
    np.testing.assert_allclose(error, expected, rtol=0.08)
    np.testing.assert_allclose(found.draws["rate"].mean(), MEAN["rate"], atol=0.15 * expected)


X = np.concatenate([RNG.normal(-1, 1, 20), RNG.normal(3, 1, 20)])
MIXTURE = {"loc": np.array([-1.0, 3.0]), "weights": np.array([0.5, 0.5])}
PAIRS = np.arange(40) // 2


def test_a_program_with_latents_has_the_sandwich_of_its_clusters():
    em = EM(mixture, tol=1e-13)
    result = em.run(KEY, X)
    robust = standard_errors(em, result, X, method="sandwich")
    found = standard_errors(em, result, X, method="linearization")
    np.testing.assert_allclose(found.covariance, robust.covariance * 40 / 39, rtol=1e-6)
    jackknife = standard_errors(em, result, X, method="jackknife", clusters=PAIRS)
    linear = standard_errors(em, result, X, clusters=PAIRS)
    np.testing.assert_allclose(
        jackknife.standard_error["loc"], linear.standard_error["loc"], rtol=0.15
    )


def test_sampling_weights_are_no_numbers_of_samples():
    one = W.copy()
    one[3] = 0.0
    for weights in (one, 7 * one):
        found = emjax.criteria(EM_OF_RATIO, MEAN, weights, COST, np.ones(30))
        assert found.num_samples == 29 and found.findings[0].kind == "pseudo-likelihood"
        mean = (one * stats.norm.logpdf(COST, MEAN["rate"], 1)).sum() / one.sum()
        np.testing.assert_allclose(found.log_likelihood, 29 * mean, rtol=1e-12)
    # where a row is several samples beside, these count
    counted = EM(weighted(weighted(ratio, "rows"), "rows", kind="sampling"))
    count = np.where(np.arange(30) < 2, 3.0, 1.0)
    found = emjax.criteria(counted, MEAN, one, count, COST, np.ones(30))
    assert found.num_samples == 33
    with pytest.raises(ValueError, match="'cost' counts copies"):
        standard_errors(counted, MEAN, one, count, COST, np.ones(30))
    choice = emjax.choose({"one": EM_OF_RATIO}, KEY, one, COST, np.ones(30), num_folds=None)
    assert [finding.kind for finding in choice.findings] == ["pseudo-likelihood"]


def test_long_rows_are_weighed_with_their_elements():
    def labels_of(num_items):
        def program(truth_of, label):
            p = numpyro.param("p", jnp.array([0.2, 0.7]), constraint=constraints.unit_interval)
            with numpyro.plate("items", num_items):
                z = numpyro.sample("z", dist.Categorical(jnp.array([0.4, 0.6])))
            with numpyro.plate("labels", len(label)):
                numpyro.sample("label", dist.Bernoulli(p[z[truth_of]]), obs=label)

        return program

    item = np.repeat(np.arange(12), 4)
    label = np.array([0, 0, 0, 1] * 5 + [1, 1, 1, 0] * 5 + [0, 1, 1, 1] * 2)
    weights = np.where(np.arange(12) < 6, 1.0, 3.0)
    program = weighted(weighted(labels_of(12), "labels", kind="sampling"), "items", kind="sampling")
    em, data = EM(program, tol=1e-13), (weights, weights[item], item, label)
    result = em.run(KEY, *data)
    errors = {"plate": "items", "rows": {"labels": item}}
    found = standard_errors(em, result, *data, **errors)
    # a pseudo-likelihood's estimate is that of rows that are there w times, its spread is not
    repeated = np.repeat(np.arange(12), np.where(np.arange(12) < 6, 1, 3))
    label_of = label.reshape(12, 4)[repeated].ravel()
    plain = EM(labels_of(len(repeated)), tol=1e-13)
    rows = np.repeat(np.arange(len(repeated)), 4)
    errors["rows"] = {"labels": rows}
    twice = standard_errors(plain, result, rows, label_of, clusters=repeated, **errors)
    np.testing.assert_allclose(found.covariance, twice.covariance, rtol=1e-6)
    assert emjax.criteria(em, result, *data, plate="items").num_samples == 12


def test_what_a_design_does_not_say_is_an_error():
    one_of_c = np.where(np.arange(30) == 29, "d", STRATUM)
    with pytest.raises(ValueError, match=r"Stratum 'd' has one cluster.*np.where.*== 'd', 'a'"):
        error_of_mean(strata=one_of_c)
    assert error_of_mean(strata=one_of_c, population={"d": 1})[1] > 0
    with pytest.raises(ValueError, match="There is one cluster"):
        error_of_mean(clusters=np.zeros(30))
    with pytest.raises(
        ValueError, match=r"strata has shape \(29,\), and the plate has 30 elements"
    ):
        error_of_mean(strata=STRATUM[1:])
    with pytest.raises(ValueError, match=r"clusters has no label for 1 of 30 elements.*number 4"):
        error_of_mean(clusters=np.where(np.arange(30) == 4, np.nan, CLUSTER))
    with pytest.raises(ValueError, match="population says 5 clusters of stratum 'a', and the samp"):
        error_of_mean(strata=STRATUM, population={"a": 5})
    with pytest.raises(ValueError, match=r"its strata are \['a', 'b', 'c'\]: it has \['e'\]"):
        error_of_mean(strata=STRATUM, population={"e": 5})
    with pytest.raises(
        ValueError, match=r"population is \[9, 9, 9\]. Pass \{stratum: number of its"
    ):
        error_of_mean(strata=STRATUM, population=[9, 9, 9])


def test_methods_for_simple_random_samples_refuse_a_survey():
    for method in ("information", "sandwich", "parametric bootstrap"):
        with pytest.raises(ValueError, match=f"method='{method}' takes .* simple random sample"):
            error_of_mean(method=method)
    with pytest.raises(ValueError, match="method='information' takes"):
        standard_errors(EM(mixture), MIXTURE, X, method="information", clusters=PAIRS)
    with pytest.raises(ValueError, match="kind must be one of 'frequency', 'sampling', not 'prob'"):
        weighted(ratio, "rows", kind="prob")
