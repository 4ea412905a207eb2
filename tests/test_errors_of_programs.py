"""Programs with indices out of range, loops, states that cannot be reached: an error says the
fix, or it works.
"""

import re

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import cond, scan
from numpyro.distributions import constraints

from emjax import EM, Status
from tests.oracles.brute_force import joint_table
from tests.programs import HALF, KEY, X, mixture, run

# ── indices ───────────────────────────────────────────────────────────────────────────────────────


def test_latent_with_more_values_than_the_table_has_rows_is_an_error():
    with pytest.raises(
        IndexError, match=r"latent 'z'.*takes values from 0 to 2.*there are 2 entries"
    ):
        run(mixture, X, jnp.full(3, 1 / 3))


def labels(item, y, num_items=3):
    confusion = numpyro.param(
        "confusion", jnp.array([[0.8, 0.2], [0.3, 0.7]]), constraint=constraints.simplex
    )
    with numpyro.plate("items", num_items):
        truth = numpyro.sample("truth", dist.Categorical(HALF))
    with numpyro.plate("labels", len(y)):
        numpyro.sample("y", dist.Categorical(confusion[truth[item]]), obs=y)


Y = jnp.array([0, 1, 1, 0])


@pytest.mark.parametrize("last", [3, -4])
def test_index_into_a_latent_out_of_range_is_an_error(last):
    with pytest.raises((IndexError, ValueError), match=r"'(truth|y)'.*out of range"):
        run(labels, jnp.array([0, 1, 2, last]), Y)


def test_constant_index_into_a_latent_out_of_range_is_an_error():
    with pytest.raises((IndexError, ValueError), match=r"'(truth|y)'"):
        run(lambda y: labels(np.array([0, 1, 2, 3]), y), Y)


def test_negative_index_counts_from_the_end():
    em, params = EM(labels), {"confusion": jnp.array([[0.8, 0.2], [0.3, 0.7]])}
    from_the_end = em.posterior(params, jnp.array([0, 1, 2, -1]), Y)["truth"]
    np.testing.assert_allclose(
        from_the_end, em.posterior(params, jnp.array([0, 1, 2, 2]), Y)["truth"], rtol=1e-14
    )


def test_two_lookups_of_one_latent_by_data_are_exact_or_a_clear_error():
    def program(left, right, x):
        loc = numpyro.param("loc", jnp.array([0.0, 1.5]))
        with numpyro.plate("items", 3):
            z = numpyro.sample("z", dist.Bernoulli(0.4))
        with numpyro.plate("pairs", len(x)):
            numpyro.sample("x", dist.Normal(loc[z[left]] - z[right], 1.0), obs=x)

    params, data = (
        {"loc": jnp.array([0.0, 1.5])},
        (jnp.array([0, 1, 2]), jnp.array([1, 2, 0]), X[:3]),
    )
    try:
        log_likelihood = EM(program).log_likelihood(params, *data)
    except ValueError as error:
        assert re.search("'z' are coupled", str(error))
    else:
        assert log_likelihood == pytest.approx(joint_table(program, params, *data).log_likelihood)


def test_index_into_a_parameter_out_of_range_is_an_error():
    def program(group, y):
        probs = numpyro.param(
            "probs", jnp.array([[0.8, 0.2], [0.3, 0.7]]), constraint=constraints.unit_interval
        )
        with numpyro.plate("rows", len(y)):
            z = numpyro.sample("z", dist.Categorical(HALF))
            numpyro.sample("y", dist.Bernoulli(probs[group, z]), obs=y)

    with pytest.raises((IndexError, ValueError), match=r"'y'.*out of range"):
        run(program, jnp.array([0, 1, 2, 0]), Y)


def added(i, j, x):
    a, b = (numpyro.param(name, jnp.zeros(10)) for name in "ab")
    with numpyro.plate("rows", len(x)):
        numpyro.sample("x", dist.Normal(a[i] + b[j], 1.0), obs=x)


def shifted(shift, x):
    loc = numpyro.param("loc", jnp.arange(3.0))
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Categorical(HALF))
        numpyro.sample("x", dist.Normal(loc[z + shift], 1.0), obs=x)


def one_for_all(which, x):
    loc = numpyro.param("loc", jnp.arange(3.0))
    with numpyro.plate("rows", len(x)):
        numpyro.sample("x", dist.Normal(loc[which], 1.0), obs=x)


def within_rows_of_a_latent(i, j, x):
    with numpyro.plate("columns", 3), numpyro.plate("lines", 2):
        z = numpyro.sample("z", dist.Bernoulli(0.3))
    with numpyro.plate("rows", len(x)):
        numpyro.sample("x", dist.Normal(z[i, j], 1.0), obs=x)


def of_covariates(i, x):
    slope = numpyro.param("slope", jnp.array(1.0))
    numpyro.sample("unread", dist.Normal(slope * x[i].sum(), 1.0))
    with numpyro.plate("rows", len(i)):
        numpyro.sample("x", dist.Normal(slope, 1.0), obs=x[i])


THREE = jnp.arange(3)


@pytest.mark.parametrize(
    "program, right, wrong, at",
    [
        (added, (THREE, THREE), (jnp.array([0, 1, 12]), THREE), "2,"),
        (added, (THREE, THREE), (THREE, jnp.array([0, -11, 0])), "1,"),
        (shifted, (jnp.array(1),), (jnp.array(7),), r"0,(?: 0)?"),
        (one_for_all, (jnp.array(2),), (jnp.array(7),), ""),
        (
            within_rows_of_a_latent,
            (jnp.array([0, 0, 1]), THREE),
            (jnp.array([0, 0, 1]), jnp.array([0, 3, 1])),
            "1,",
        ),
        (of_covariates, (THREE,), (jnp.array([0, 1, 3]),), "2,"),
    ],
)
def test_index_out_of_range_is_an_error_wherever_it_goes(program, right, wrong, at):
    run(program, *right, X[:3])
    with pytest.raises(ValueError, match=rf"Site 'x'.*out of range at position \({at}\)"):
        run(program, *wrong, X[:3])


# ── programs ──────────────────────────────────────────────────────────────────────────────────────


def test_two_sites_of_one_name_are_an_error():
    def program(x):
        mixture(x)
        numpyro.sample("z", dist.Bernoulli(0.3))

    with pytest.raises(ValueError, match="Two sites are called 'z'"):
        run(program, X)


def test_scan_whose_carry_accumulates_a_latent_is_an_error():
    def program(x):
        def step(count, x):
            z = numpyro.sample("z", dist.Bernoulli(0.3))
            numpyro.sample("x", dist.Normal(count, 1.0), obs=x)
            return count + z, None

        scan(step, 0, x)

    with pytest.raises(ValueError, match=r"accumulates latent 'z'(?s:.*)last steps alone"):
        run(program, X)


def test_scan_of_no_steps_is_an_error():
    def program(x):
        scan(lambda carry, x: (numpyro.sample("z", dist.Bernoulli(0.3)), None), 0, x)

    with pytest.raises(ValueError, match="`scan` of no steps"):
        run(program, X[:0])


def test_unknown_way_to_sum_out_chains_is_an_error():
    with pytest.raises(
        ValueError,
        match="chains must be one of 'sequential', 'checkpointed', 'parallel', not 'fast'",
    ):
        EM(mixture, chains="fast")


def test_cond_is_an_error():
    def program(x):
        cond(
            x[0] > 0,
            lambda _: numpyro.sample("a", dist.Bernoulli(0.5)),
            lambda _: numpyro.sample("a", dist.Bernoulli(0.2)),
            None,
        )

    with pytest.raises(ValueError, match="`cond`"):
        run(program, X)


def test_plate_with_a_random_subsample_is_an_error():
    def program(x):
        loc = numpyro.param("loc", 0.0)
        with numpyro.plate("rows", len(x), subsample_size=2) as rows:
            numpyro.sample("x", dist.Normal(loc, 1.0), obs=x[rows])

    with pytest.raises(
        ValueError, match=r"Plate 'rows' draws a random subsample.*Remove `subsample_size`"
    ):
        run(program, X)


def test_plate_used_as_an_index_is_none():
    def program(x):
        loc = numpyro.param("loc", 0.0)
        with numpyro.plate("rows", len(x)) as rows:
            numpyro.sample("x", dist.Normal(loc, 1.0), obs=x[rows])

    assert run(program, X).params["loc"] == pytest.approx(np.mean(X))


def test_support_that_depends_on_a_parameter_is_an_error():
    def program(x):
        width = numpyro.sample("width", dist.LogNormal(0.0, 1.0))
        loc = numpyro.sample("loc", dist.Uniform(0.0, width))
        numpyro.sample("x", dist.Normal(loc, 1.0).expand([4]), obs=x)

    with pytest.raises(
        ValueError, match=r"support of 'loc' depends on another parameter.*fraction"
    ):
        run(program, X)


def test_parameter_without_value_is_an_error():
    def program(x):
        numpyro.sample("x", dist.Normal(numpyro.param("loc"), 1.0).expand([4]), obs=x)

    with pytest.raises(
        ValueError, match=r"'loc' has no initial value.*numpyro.param\('loc', value"
    ):
        run(program, X)


class Frame:
    """What a data frame looks like to NumPy."""

    def __init__(self, values):
        self.values = np.asarray(values)

    def __len__(self):
        return len(self.values)

    def __array__(self, dtype=None, copy=None):
        return self.values


@pytest.mark.parametrize("data", [[0.0, 0.5, 4.0, 5.0], Frame(X)], ids=["list", "data frame"])
def test_observation_that_is_no_array_works(data):
    np.testing.assert_allclose(
        run(mixture, data).params["loc"], run(mixture, X).params["loc"], rtol=1e-14
    )


COUNTS = jnp.array([1, 2, 4, 5])
WHOLE_NUMBERS = {
    "rates": lambda z: [
        dist.Poisson(z + 1),
        dist.Poisson(jnp.array([1, 5])[z]),
        dist.Poisson(COUNTS),
        dist.Exponential(z + 1),
        dist.HalfNormal(z + 1),
    ],
    "concentrations": lambda z: [
        dist.Gamma(z + 1, 2),
        dist.Beta(z + 1, 2),
        dist.Beta(2, jnp.array([3, 1])[z]),
    ],
    "probabilities": lambda z: [dist.Categorical(jnp.array([[0, 1], [1, 0]])[z])],
    "locations": lambda z: [
        dist.Normal(z, 1),
        dist.StudentT(3, z, z + 1),
        dist.MultivariateNormal(jnp.stack([z, z], -1), jnp.eye(2, dtype=int)),
    ],
}


@pytest.mark.parametrize("laws", WHOLE_NUMBERS.values(), ids=WHOLE_NUMBERS)
def test_whole_numbers_are_numbers(laws):
    def value(law):
        if law.support.is_discrete:
            return COUNTS % 2 if law.support == constraints.integer_interval(0, 1) else COUNTS
        return jnp.ones((4, *law.event_shape)) * (COUNTS / 10.0).reshape(
            4, *(1,) * len(law.event_shape)
        )

    def program():
        weights = numpyro.param("weights", jnp.array([0.3, 0.7]), constraint=constraints.simplex)
        with numpyro.plate("rows", 4):
            z = numpyro.sample("z", dist.Categorical(weights))
            for i, law in enumerate(laws(z)):
                numpyro.sample(f"x{i}", law, obs=value(law))

    result = run(program, max_steps=1)
    expected = joint_table(program, {"weights": jnp.array([0.3, 0.7])})
    np.testing.assert_allclose(result.objective[0], expected.log_likelihood, rtol=1e-12)
    np.testing.assert_allclose(
        result.params["weights"], expected.posterior["z"].mean(0), rtol=1e-10
    )


def test_whole_part_of_a_parameter_is_computed():
    def program(x):
        rate = numpyro.param("rate", 5.1, constraint=constraints.positive)
        with numpyro.plate("rows", 4):
            numpyro.sample("x", dist.Poisson(rate.astype(int)), obs=x)

    result = run(
        program, jnp.array([10, 2, 4, 3])
    )  # the mean is 4.75, and 5 is likelier than its whole part
    assert result.status == Status.CONVERGED and int(result.params["rate"]) == 5


def test_list_that_the_program_makes_an_array_works():
    def program(x):
        mixture(jnp.array(x))

    np.testing.assert_allclose(
        run(program, [0.0, 0.5, 4.0, 5.0]).params["loc"], run(mixture, X).params["loc"]
    )


def needs_a_number(x):
    mixture(x, loc=jnp.array([0.0, float(x.max())]))


def needs_numpy(x):
    mixture(x, loc=np.quantile(x, [0.1, 0.9]))


def branches(x):
    if (x > 0).all():
        raise AssertionError
    mixture(x)


def drops_rows(x):
    mixture(x[x > 0])


def branches_on_a_latent(x):
    with numpyro.plate("rows", 1):
        z = numpyro.sample("z", dist.Bernoulli(0.3))
    numpyro.sample("x", dist.Normal(0.0 if z[0] == 0 else 1.0, 1.0).expand([4]), obs=x)


@pytest.mark.parametrize("program", [needs_a_number, needs_numpy, branches, drops_rows])
def test_program_that_needs_concrete_data_works_or_is_a_clear_error(program):
    try:
        result = run(program, X)
    except (ValueError, TypeError) as error:
        assert re.search("looks at the value of", str(error)), error
        assert re.search("partial|jnp|Python number", str(error)), error
    else:
        assert np.isfinite(result.log_likelihood)


def test_program_that_branches_on_a_latent_is_a_clear_error():
    with pytest.raises((ValueError, TypeError), match=r"jnp\.where"):
        run(branches_on_a_latent, X)


def test_plate_of_another_size_than_the_data_is_an_error():
    def program(x):
        loc = numpyro.param("loc", 0.0)
        with numpyro.plate("rows", 3):
            numpyro.sample("x", dist.Normal(loc, 1.0), obs=x)

    with pytest.raises(ValueError, match="'x'"):
        run(program, X)


# ── states that cannot be reached ─────────────────────────────────────────────────────────────────


def test_zero_in_a_simplex_stays_zero_and_leaves_everything_finite():
    def program(counts):
        weights = numpyro.param(
            "weights", jnp.array([0.6, 0.4, 0.0]), constraint=constraints.simplex
        )
        words = numpyro.param(
            "words",
            jnp.array([[0.5, 0.5, 0.0], [0.2, 0.3, 0.5], [0.1, 0.1, 0.8]]),
            constraint=constraints.simplex,
        )
        with numpyro.plate("documents", len(counts)):
            topic = numpyro.sample("topic", dist.Categorical(weights))
            numpyro.sample("counts", dist.Multinomial(10, words[topic]), obs=counts)

    counts = jnp.array([[5, 5, 0], [2, 3, 5], [4, 6, 0]])
    em = EM(program, max_steps=5)
    result = em.run(KEY, counts)
    posterior = em.posterior(result.params, counts)["topic"]
    assert all(np.isfinite(value).all() for value in result.params.values())
    assert result.params["weights"][2] == 0 and result.params["words"][0, 2] == 0
    np.testing.assert_array_equal(posterior[:, 2], 0)
    np.testing.assert_array_equal(posterior[1, 0], 0)
    np.testing.assert_allclose(posterior.sum(-1), 1, rtol=1e-14)
    np.testing.assert_array_equal(
        result.params["words"][2], [0.1, 0.1, 0.8]
    )  # nothing is expected of it


def test_transition_that_is_impossible_leaves_everything_finite():
    transition = jnp.array([[0.7, 0.3, 0.0], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0]])

    def program(x):
        table = numpyro.param("transition", transition, constraint=constraints.simplex)
        loc = numpyro.param("loc", jnp.array([0.0, 2.0, 4.0]))
        z = numpyro.sample("z0", dist.Categorical(jnp.array([1.0, 0.0, 0.0])))
        for t in range(3):
            if t:
                z = numpyro.sample(f"z{t}", dist.Categorical(table[z]))
            numpyro.sample(f"x{t}", dist.Normal(loc[z], 1.0), obs=x[t])

    x = jnp.array([0.3, 2.2, 3.9])
    result = run(program, x)
    assert all(np.isfinite(value).all() for value in result.params.values())
    np.testing.assert_array_equal(result.params["transition"][transition == 0], 0)
    table = joint_table(program, result.params, x)
    for name, posterior in EM(program).posterior(result.params, x).items():
        np.testing.assert_allclose(posterior, table.posterior[name], atol=1e-12)
