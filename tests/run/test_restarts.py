"""Several starts compiled together; the optima that they find; what collapses, dies or is fixed."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.distributions import constraints

from emjax import EM, Restarts, Status
from emjax.models import annotators
from emjax.run import batches, loop

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
X = np.concatenate([RNG.normal(-2, 1, 20), RNG.normal(2, 1, 20)])
SCORES = np.array(
    [[0.59, 0.52, 0.50, 0.39, 0.65], [0.88, 0.96, 0.88, 0.94, 0.69], [0.70, 0.71, 0.52, 0.65, 0.46]]
)  # image, annotator


def mixture(x, floor=0.0):
    """A mixture whose start is random: its means are data, its proportions too."""
    loc = numpyro.param("loc", lambda key: jax.random.choice(key, x, (2,), replace=False))
    scale = numpyro.param(
        "scale", jnp.array([1.0, 1.0]), constraint=constraints.greater_than(floor)
    )
    weights = numpyro.param("weights", jnp.array([0.5, 0.5]), constraint=constraints.simplex)
    with numpyro.plate("samples", len(x)):
        component = numpyro.sample("component", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(loc[component], scale[component]), obs=x)


# ── restarts ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("batch", [1000, 2], ids=["together", "in batches"])
def test_starts_compiled_together_are_the_runs_one_by_one(batch, monkeypatch):
    monkeypatch.setattr(
        batches, "BATCH_BYTES", batch * 16 * len(X) * 4
    )  # two terms, of two values each
    found = EM(mixture, init="program", num_restarts=5, short_steps=None).run(KEY, X)
    alone = EM(mixture)
    each = [alone.run(key, X) for key in jax.random.split(KEY, 5)]
    np.testing.assert_allclose(
        found.restarts.objective, [r.objective[-1] for r in each], rtol=1e-13
    )
    np.testing.assert_array_equal(found.restarts.num_steps, [r.num_steps for r in each])
    np.testing.assert_array_equal(found.restarts.status, [r.status for r in each])
    for site in found.params:
        np.testing.assert_allclose(
            found.restarts.params[site], np.stack([r.params[site] for r in each]), rtol=1e-9
        )
    best = each[found.restarts.best]
    assert (
        found.num_steps == best.num_steps and found.objective[-1] == found.restarts.objective.max()
    )
    np.testing.assert_allclose(found.objective, best.objective, rtol=1e-13)


@pytest.mark.parametrize("max_steps", [3, 200])
def test_runs_side_by_side_are_asked_what_q_gains_only_where_one_has_converged(
    max_steps, monkeypatch
):
    asked, gaps = [], loop.gaps

    def counted(*args):
        jax.debug.callback(lambda: asked.append(True))
        return gaps(*args)

    monkeypatch.setattr(loop, "gaps", counted)
    monkeypatch.setattr(batches, "FEW_CELLS", 0)

    def two_rates(counts):
        level = numpyro.param("level", lambda key: jax.random.normal(key, (2,)))
        with numpyro.plate("samples", len(counts)):
            z = numpyro.sample("z", dist.Bernoulli(0.5))
            numpyro.sample("counts", dist.Poisson(jnp.exp(level[z])), obs=counts)

    em = EM(two_rates, num_restarts=3, short_steps=None, max_steps=max_steps)
    found = em.run(KEY, jnp.array([0, 1, 3, 0, 9, 11, 8, 2, 1, 12]))
    jax.effects_barrier()
    expected = Status.MAX_STEPS if max_steps == 3 else Status.CONVERGED
    assert (found.restarts.status == expected).all()
    # all together, once for each that converges
    assert len(asked) <= (0 if max_steps == 3 else 3) and bool(asked) == (max_steps > 3)
    assert max_steps == 3 or found.gaps["level"].gain == 0


def test_after_a_short_run_of_all_the_best_goes_on_to_its_end():
    found = EM(mixture, init="program", num_restarts=6, short_steps=3).run(KEY, X)
    short = found.restarts
    assert (short.status == -1).all() and (short.num_steps == 3).all()
    assert found.status == Status.CONVERGED and found.num_steps > 3
    # what a short run reports is the objective where it was evaluated last, before its third M-step
    np.testing.assert_allclose(found.objective[2], short.objective.max(), rtol=1e-13)
    assert "6 not converged" in str(short)


def test_starts_that_would_all_be_the_programs_own_are_drawn_from_the_second_on():
    def program(x):
        loc = numpyro.param("loc", jnp.array([-1.0, 1.0]))
        with numpyro.plate("samples", len(x)):
            component = numpyro.sample("component", dist.Categorical(jnp.array([0.5, 0.5])))
            numpyro.sample("x", dist.Normal(loc[component], 1.0), obs=x)

    found = EM(program, num_restarts=3, max_steps=0).run(KEY, X).restarts.params["loc"]
    np.testing.assert_array_equal(found[0], [-1, 1])
    assert len(np.unique(found)) > 2


@pytest.mark.parametrize("few", [2**30, 0], ids=["in turn", "together"])
def test_starts_that_are_all_the_same_are_a_finding(few, monkeypatch):
    monkeypatch.setattr(batches, "FEW_CELLS", few)

    def rate(x):
        value = numpyro.param("rate", 2.0, constraint=constraints.positive)
        numpyro.sample("x", dist.Poisson(value), obs=x)

    # nothing is latent whose start could be drawn
    found = EM(rate, num_restarts=3).run(KEY, jnp.array(4.0))
    assert [finding.kind for finding in found.findings] == ["identical starts"]
    assert "All 3 starts are the same: nothing of them is drawn" in found.warnings[0]
    given = {
        "loc": jnp.array([-1.0, 1.0]),
        "scale": jnp.array([1.0, 2.0]),
        "weights": jnp.array([0.4, 0.6]),
    }
    found = EM(mixture, num_restarts=3, short_steps=2).run(KEY, X, init_params=given)
    # one is enough
    alone = EM(mixture).run(KEY, X, init_params=given)
    np.testing.assert_allclose(found.objective, alone.objective, rtol=1e-12)
    assert len(found.restarts.objective) == 1
    assert "init_params gives every parameter" in found.warnings[0]
    some = {"weights": given["weights"]}
    assert EM(mixture, num_restarts=3).run(KEY, X, init_params=some).findings == ()
    # two far clusters are the same ones from every key, and of two locations one is given
    far, some = jnp.repeat(jnp.array([-9.0, 9.0]), 5), given | {"loc": jnp.array([-9.0, 9.0])}
    del some["weights"]
    found = EM(mixture, init="k-means", num_restarts=3).run(KEY, far, 0.5, init_params=some)
    assert "identical starts" not in [finding.kind for finding in found.findings]


def test_restarts_of_the_annotators_table_find_its_optima_and_flag_the_singular_ones():
    def program(scores):
        """The annotators' program, with the experiment's random starts."""
        mu = numpyro.param("values", lambda key: jax.random.uniform(key, (3,)))
        sigma = numpyro.param(
            "noise",
            lambda key: jnp.exp(
                jax.random.uniform(key, (), minval=jnp.log(0.02), maxval=jnp.log(0.5))
            ),
            constraint=constraints.positive,
        )
        pi = numpyro.param(
            "share", lambda key: jax.random.uniform(key), constraint=constraints.unit_interval
        )
        handlers.substitute(annotators.program, data={"mu": mu, "sigma": sigma, "pi": pi})(scores)

    restarts = (
        EM(
            program,
            init="program",
            num_restarts=200,
            short_steps=None,
            tol=1e-10,
            max_steps=2000,
        )
        .run(KEY, SCORES)
        .restarts
    )
    optima = restarts.optima()
    regular = [optimum for optimum in optima if not optimum.degenerate]
    np.testing.assert_allclose(
        [o.objective for o in regular][:2], [14.073847, 13.546857], atol=1e-6
    )
    assert optima[-1].degenerate and len(optima[-1].starts) > 10
    assert "degenerate" in str(restarts)


def test_all_starts_given_equal_are_one_optimum():
    restarts = (
        EM(mixture, num_restarts=4, short_steps=None)
        .run(KEY, X, init_params={"loc": jnp.array([-1.0, 1.0])})
        .restarts
    )
    (optimum,) = restarts.optima()
    assert len(optimum.starts) == 4 and not optimum.degenerate


def test_optima_are_told_apart_by_their_objectives_and_degenerate_ones_come_last():
    status = np.array(
        [Status.CONVERGED] * 3
        + [Status.MAX_STEPS, Status.NOT_FINITE, Status.CONVERGED, Status.NOT_FINITE]
    )
    objective = np.array([-10.0, -10.0 + 1e-9, -12.0, -9.0, 50.0, -12.0, -np.inf])
    restarts = Restarts(
        objective,
        status,
        np.arange(7),
        np.array([False, False, False, False, True, False, False]),
        {"a": jnp.arange(7.0)},
    )
    found = restarts.optima()
    assert [list(o.starts) for o in found] == [[1, 0], [2, 5], [4]]
    assert [o.degenerate for o in found] == [False, False, True] and found[0].params["a"] == 1
    assert restarts.best == 3
    text = str(restarts)
    assert (
        "1 not converged" in text and "1 excluded by the program" in text and "degenerate" in text
    )


def test_when_the_program_excludes_every_start_the_error_says_why():
    def program(x):
        low = numpyro.param("low", lambda key: jax.random.uniform(key) + 5)
        with numpyro.plate("samples", len(x)):
            component = numpyro.sample("component", dist.Categorical(jnp.array([0.5, 0.5])))
            numpyro.sample("x", dist.Uniform(low + component, low + 9), obs=x)

    with pytest.raises(ValueError, match="start has zero likelihood: site 'x'"):
        EM(program, num_restarts=3).run(KEY, X)


# ── degeneracy ────────────────────────────────────────────────────────────────────────────────────


COLLAPSING = {"loc": jnp.array([-1.0, X[7]]), "scale": jnp.array([2.0, 1e-3])}


def test_a_component_that_collapses_onto_a_point_is_named_with_the_remedies():
    found = EM(mixture).run(KEY, X, init_params=COLLAPSING)
    assert found.status == Status.NOT_FINITE
    (warning,) = found.warnings
    assert warning.startswith("component 1 of 'component' collapses: 'scale'[1] has shrunk to")
    assert "constraints.greater_than" in warning and "warning: component 1" in str(found)
    assert all(np.isfinite(value).all() for value in found.params.values())


def test_a_floor_that_the_program_states_is_respected_and_is_all_that_is_warned_of():
    found = EM(mixture).run(
        KEY, X, floor=0.05, init_params=COLLAPSING | {"scale": jnp.array([2.0, 0.06])}
    )
    assert found.status == Status.CONVERGED and found.params["scale"].min() >= 0.05
    (finding,) = found.findings
    assert (finding.kind, finding.site, finding.where) == ("at the boundary", "scale", "(1,)")


def test_a_floor_holds_where_a_cluster_has_no_extent_at_all():
    data = np.concatenate([np.zeros(30), np.random.default_rng(5).normal(3, 1, 60)])
    found = EM(mixture).run(KEY, data, floor=0.05, init_params={"loc": jnp.array([0.0, 3.0])})
    assert found.status == Status.CONVERGED and found.params["scale"].min() == 0.05
    (finding,) = found.findings
    assert (finding.kind, finding.site, finding.where) == ("at the boundary", "scale", "(0,)")


def test_an_estimate_at_its_floor_is_one_in_single_precision_too():
    with jax.enable_x64(False):
        data = np.concatenate(
            [
                5 + 1e-3 * np.random.default_rng(5).normal(size=30),
                np.random.default_rng(6).normal(-2, 1, 60),
            ]
        ).astype(np.float32)
        em = EM(mixture)
        found = em.run(KEY, data, floor=0.01, init_params={"loc": np.array([5.0, -2.0])})
        assert found.status == Status.CONVERGED and found.params["scale"].min() == np.float32(0.01)
        assert np.isfinite(em.log_likelihood(found, data, floor=0.01))


def test_small_numbers_are_no_collapse_and_what_is_masked_is_no_data():
    def regression(x, y, seen):
        slope = numpyro.param("slope", 1e-6)
        scale = numpyro.param("scale", 1e-6, constraint=constraints.positive)
        with numpyro.plate("samples", len(y)), handlers.mask(mask=seen):
            numpyro.sample("y", dist.Normal(slope * x, scale), obs=y)

    def level(y, seen):
        loc = numpyro.param("loc", 0.0)
        scale = numpyro.param("scale", 1.0, constraint=constraints.positive)
        with numpyro.plate("samples", len(y)), handlers.mask(mask=seen):
            numpyro.sample("y", dist.Normal(loc, scale), obs=y)

    x, seen = np.linspace(0, 1, 50), np.arange(50) % 5 > 0
    assert (
        EM(regression).run(KEY, x, (2 * x + RNG.normal(size=50)) * 1e-6, np.ones(50, bool)).warnings
        == ()
    )
    assert EM(level).run(KEY, np.where(seen, RNG.normal(size=50), 1e9), seen).warnings == ()


def test_where_the_best_short_run_collapses_the_next_one_goes_on():
    def program(x):
        loc = numpyro.param(
            "loc",
            lambda key: jnp.where(
                jax.random.uniform(key) < 0.5, jnp.array([0.0, x[-1]]), jnp.array([-2.0, 2.0])
            ),
        )
        scale = numpyro.param(
            "scale", lambda key: jnp.array([3.0, 1.0]), constraint=constraints.positive
        )
        with numpyro.plate("samples", len(x)):
            component = numpyro.sample("component", dist.Categorical(jnp.array([0.97, 0.03])))
            numpyro.sample("x", dist.Normal(loc[component], scale[component]), obs=x)

    found = EM(program, num_restarts=6, short_steps=2).run(KEY, np.append(X, 30.0))
    assert found.status == Status.CONVERGED and found.warnings == ()
    assert found.restarts.degenerate.any() and not found.restarts.degenerate[found.restarts.best]


def test_a_start_is_drawn_at_the_values_that_are_given():
    found = EM(mixture, init="responsibilities", fixed={"loc"}, max_steps=0).run(
        KEY, X + 1000, init_params={"loc": jnp.array([998.0, 1002.0])}
    )
    np.testing.assert_array_equal(found.params["loc"], [998, 1002])
    assert (found.params["scale"] < 5).all()


def test_a_covariance_without_extent_in_one_direction_is_named():
    def program(x):
        loc = numpyro.param("loc", jnp.array([[0.0, 0.0], [9.0, 9.0]]))
        covariance = numpyro.param(
            "covariance", jnp.stack([jnp.eye(2)] * 2), constraint=constraints.positive_definite
        )
        with numpyro.plate("samples", len(x)):
            component = numpyro.sample("component", dist.Categorical(jnp.array([0.9, 0.1])))
            numpyro.sample(
                "x",
                dist.MultivariateNormal(loc[component], covariance_matrix=covariance[component]),
                obs=x,
            )

    points = np.concatenate(
        [RNG.normal(size=(20, 2)), [[9.0, 9.0], [9.5, 9.2]]]
    )  # two points have a line
    found = EM(program).run(KEY, points)
    assert any(
        text.startswith("component 1 of 'component' collapses: 'covariance'[1]")
        for text in found.warnings
    )


def test_a_component_that_dies_and_probabilities_that_reach_zero_are_named():
    found = EM(mixture, max_steps=5).run(
        KEY, X, init_params={"loc": jnp.array([0.0, 500.0]), "scale": jnp.array([2.0, 1.0])}
    )
    assert any(
        text.startswith(
            "component 1 of 'component' has died: 'weights' gives it probability 0.0e+00"
        )
        for text in found.warnings
    )
    assert any(
        text.startswith("'weights' has reached the boundary at (1,)") for text in found.warnings
    )


def test_zeros_that_the_start_states_are_structural_and_stay_without_a_warning():
    found = EM(mixture, max_steps=5).run(KEY, X, init_params={"weights": jnp.array([0.0, 1.0])})
    assert found.params["weights"][0] == 0
    assert not any("boundary" in text for text in found.warnings)


# ── fixed parameters ──────────────────────────────────────────────────────────────────────────────


def test_a_fixed_parameter_stays_and_the_others_are_maximized_as_by_hand():
    start = {"loc": jnp.array([-1.0, 1.0])}
    em = EM(mixture, fixed={"scale"}, max_steps=1)
    found = em.run(KEY, X, init_params=start)
    r = np.exp(-0.5 * (X[:, None] - np.array([-1.0, 1.0])) ** 2)
    r /= r.sum(1, keepdims=True)
    np.testing.assert_allclose(found.params["loc"], r.T @ X / r.sum(0), rtol=1e-12)
    np.testing.assert_allclose(found.params["weights"], r.mean(0), rtol=1e-12)
    np.testing.assert_array_equal(found.params["scale"], [1, 1])
    assert em.plan(X).method("scale") == "held" and "fixed" in str(em.plan(X))
    by_handler = EM(
        handlers.substitute(mixture, data={"scale": jnp.array([1.0, 1.0])}), max_steps=1
    ).run(KEY, X, init_params=start)
    np.testing.assert_allclose(by_handler.objective, found.objective, rtol=1e-13)
    assert "scale" not in by_handler.params


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"fixed": {"sigma"}},
            "fixed names 'sigma', but the program's parameters are 'loc', 'scale', 'weights'",
        ),
        (
            {"fixed": {"scale"}, "m_step": {"scale": lambda value, objective: value}},
            "'scale' cannot be both fixed and maximized",
        ),
    ],
)
def test_fixed_must_name_parameters_that_are_not_maximized(settings, message):
    with pytest.raises(ValueError, match=message):
        EM(mixture, **settings).plan(X)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"fixed": "scale"},
            r"fixed must be a set of parameter names, such as fixed=\{'scale'\}, not 'scale'",
        ),
        ({"short_steps": 0}, "short_steps must be a whole number of at least 1, not 0"),
        (
            {"init": "random"},
            "init must be one of 'program', 'responsibilities', 'subsets', 'short-runs', 'data', "
            "'k-means\\+\\+', 'k-means', 'splitting', or a NumPyro strategy",
        ),
    ],
)
def test_settings_of_starts_that_make_no_sense_are_errors(settings, message):
    with pytest.raises(ValueError, match=message):
        EM(mixture, **settings)


def test_a_start_by_name_is_that_of_the_strategy():
    found = EM(mixture, init="data", max_steps=0).run(KEY, X)
    loc = np.asarray(found.params["loc"])
    nearest = np.abs(np.asarray(X)[:, None] - loc).argmin(1)
    # a hundredth is of all data
    counts = np.bincount(nearest, minlength=2) / len(X)
    np.testing.assert_allclose(found.params["weights"], counts, rtol=1e-12)
