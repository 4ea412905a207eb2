"""What `em.plan` says: which latents are summed out, and how each parameter is maximized,
and why.
"""

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro.contrib.control_flow import scan
from numpyro.distributions import constraints

from emjax import EM
from emjax.models import (
    annotators,
    coins,
    dawid_skene,
    gaussian_mixture,
    grades,
    k_means,
    latent_class,
    motif,
    topics,
)

HEADS = jnp.array([5.0, 9.0, 8.0, 4.0, 7.0])
HALF = jnp.array([0.5, 0.5])
X = jnp.array([0.0, 0.5, 4.0, 5.0])
POINTS = jnp.arange(12.0).reshape(6, 2) ** 1.3
ROWS = (jnp.array([0, 0, 1]), jnp.array([0, 1, 1]), jnp.array([1, 0, 1]))
SEQUENCES = jnp.array([[0, 2, 1, 3], [3, 1, 0, -1]])
SCORES = jnp.array([[0.59, 0.52, 0.5], [0.88, 0.96, 0.88], [0.7, 0.71, 0.52]])

LECTURES = {
    "annotators": (annotators.program, (SCORES,), {"mu", "sigma", "pi"}),
    "coins": (coins.program, (HEADS,), {"bias"}),
    "weighted coins": (coins.weighted_program, (HEADS, 10, 3), {"bias", "weights"}),
    "Gaussian mixture, full": (
        gaussian_mixture.program,
        (POINTS, 2, "full"),
        {"weights", "loc", "covariance"},
    ),
    "Gaussian mixture, tied": (
        gaussian_mixture.program,
        (POINTS, 2, "tied"),
        {"weights", "loc", "covariance"},
    ),
    "Gaussian mixture, diagonal": (
        gaussian_mixture.program,
        (POINTS, 2, "diagonal", 0.1),
        {"weights", "loc", "scale"},
    ),
    "Gaussian mixture, spherical": (
        gaussian_mixture.program,
        (POINTS, 2, "spherical"),
        {"weights", "loc", "scale"},
    ),
    "Gaussian mixture, one dimension": (
        gaussian_mixture.program,
        (X, 2),
        {"weights", "loc", "scale"},
    ),
    "k-means": (k_means.program, (POINTS, 2), {"loc"}),
    "topics": (
        topics.mixture_program,
        (jnp.array([[1.0, 2.0], [3.0, 1.0]]), 2),
        {"weights", "words"},
    ),
    "pLSA": (
        topics.plsa_program,
        (jnp.array([0, 0, 1]), jnp.array([0, 1, 1]), jnp.array([1.0, 2.0, 3.0]), 2, 2, 2),
        {"theta", "words"},
    ),
    "topics on rows": (topics.sparse_mixture_program, (*ROWS, 2, 2, 2), {"weights", "words"}),
    "Dawid-Skene": (dawid_skene.program, (*ROWS, 2, 2, 2), {"prevalence", "confusion"}),
    "latent class": (
        latent_class.program,
        (jnp.array([[0, 1, 1], [1, 0, 1]]), 2),
        {"weights", "probs"},
    ),
    "latent class, long form": (latent_class.long_program, (*ROWS, 2, 2, 2), {"weights", "probs"}),
    "latent class, categorical": (
        latent_class.categorical_program,
        (*ROWS, 2, 2, 3, 2),
        {"weights", "probs"},
    ),
    "motif, one occurrence": (motif.program, (SEQUENCES, 2), {"background", "motif"}),
    "motif, zero or one": (
        motif.zoops_program,
        (SEQUENCES, 2),
        {"background", "motif", "occurrence"},
    ),
}


@pytest.mark.parametrize("name", LECTURES)
def test_every_parameter_of_a_lecture_has_a_closed_form(name):
    program, args, parameters = LECTURES[name]
    plan = EM(program).plan(*args)
    assert {p.name for p in plan.parameters} == parameters
    assert {p.method for p in plan.parameters} == {"closed form"}, str(plan)


@pytest.mark.parametrize(
    "program, args",
    [
        (grades.program, (jnp.array([3.0, 2.0, 5.0]),)),
        (grades.partial_program, (jnp.array(4.0), jnp.array(20.0))),
    ],
)
def test_grades_enter_affinely_and_go_to_newton(program, args):
    plan = EM(program).plan(*args)
    (theta,) = plan.parameters
    assert theta.method == "Newton"
    assert "affinely" in theta.reason and "'grade'" in theta.reason


def test_plan_prints_as_a_table():
    assert str(EM(coins.weighted_program).plan(HEADS, 10, 3)).splitlines() == [
        "E-step (soft): exact sums over",
        "  coin: 5 of 3 values",
        "M-step, in this order:",
        "  bias[coin]     closed form  expected successes / trials (probs of 'heads')",
        "  weights[coin]  closed form  normalized expected counts (probs of 'coin')",
    ]


@pytest.mark.parametrize(
    "e_step, printed", [("soft", "soft"), ("hard", "hard"), (2.5, "temperature 2.5")]
)
def test_plan_prints_the_temperature(e_step, printed):
    assert f"E-step ({printed})" in str(EM(coins.program, e_step=e_step).plan(HEADS))


def test_plan_lists_every_latent_with_its_elements_and_values():
    def program(x):
        with numpyro.plate("columns", 2, dim=-1):
            group = numpyro.sample("group", dist.Categorical(jnp.full(3, 1 / 3)))
            with numpyro.plate("rows", len(x), dim=-2):
                numpyro.sample(
                    "x",
                    dist.Normal(numpyro.sample("z", dist.Bernoulli(0.2 + 0.1 * group)), 1.0),
                    obs=x,
                )

    latents = EM(program).plan(jnp.zeros((4, 2))).latents
    assert [(latent.name, latent.shape, latent.num_values) for latent in latents] == [
        ("group", (2,), 3),
        ("z", (4, 2), 2),
    ]


def location(of, extra=None):
    """A mixture of two with locations of(θ, z), in which θ has two entries."""

    def program(x):
        theta = numpyro.param("theta", jnp.array([0.3, 0.9]))
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("z", dist.Categorical(HALF))
            numpyro.sample("x", dist.Normal(of(theta, z), 1.0), obs=x)

    return program


def test_location_that_is_affine_in_a_parameter_is_least_squares():
    covariate = jnp.array([1.0, 2.0, 3.0, 4.0])
    plan = EM(location(lambda theta, z: theta[z] * covariate)).plan(X)
    assert plan.method("theta") == "least squares"
    assert "'mul'" in plan.parameters[0].reason
    with pytest.raises(ValueError, match=r"no parameter 'eta' in the program; it has 'theta'"):
        plan.method("eta")


def test_location_that_also_scales_a_prior_is_no_least_squares():
    def program(x, is_scale):
        center = numpyro.sample("center", dist.Normal(0.0, 5.0))
        loc = numpyro.sample(
            "loc", dist.Normal(0.0 if is_scale else 2 * center, 1 + center**2 if is_scale else 0.8)
        )
        with numpyro.plate("rows", len(x)):
            numpyro.sample("x", dist.Normal(loc + center, 1.0), obs=x)

    assert EM(program).plan(X, False).method("center") == "least squares"
    assert EM(program).plan(X, True).method("center") == "Newton"


def test_location_that_is_bounded_is_no_least_squares():
    def program(x):
        slope = numpyro.param("slope", 1.0, constraint=constraints.positive)
        numpyro.sample("x", dist.Normal(slope * jnp.arange(1.0, 5.0), 1.0), obs=x)

    assert EM(program).plan(X).method("slope") == "Newton"


@pytest.mark.parametrize(
    "of, primitive",
    [
        (lambda theta, z: jnp.exp(theta)[z], "exp"),
        (lambda theta, z: jnp.cumsum(theta)[z], "cumsum"),
        (lambda theta, z: jnp.tanh(theta[z]), "tanh"),
    ],
)
def test_reason_names_the_primitive_that_stands_in_the_way(of, primitive):
    plan = EM(location(of)).plan(X)
    assert plan.method("theta") in ("Newton", "least squares")
    assert (
        f"'{primitive}'" in plan.parameters[0].reason and "loc of 'x'" in plan.parameters[0].reason
    )


def test_family_without_a_closed_form_names_its_argument():
    def program(x):
        shape = numpyro.param("shape", jnp.array([1.0, 3.0]), constraint=constraints.positive)
        rate = numpyro.param("rate", jnp.array([1.0, 2.0]), constraint=constraints.positive)
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("z", dist.Categorical(HALF))
            numpyro.sample("x", dist.Gamma(shape[z], rate[z]), obs=x)

    plan = EM(program).plan(X + 0.5)
    assert plan.method("rate") == plan.method("shape") == "Newton"  # together
    assert "concentration of Gamma at 'x' has no closed form, and the rate goes with it" in str(
        plan
    )


def test_distribution_outside_the_exponential_families_goes_to_lbfgs():
    def program(x):
        loc = numpyro.param("loc", jnp.array([0.0, 4.0]))
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("z", dist.Categorical(HALF))
            numpyro.sample("x", dist.StudentT(3.0, loc[z], 1.0), obs=x)

    plan = EM(program).plan(X)
    assert plan.method("loc") == "L-BFGS"
    assert "StudentT at 'x' is not an exponential family" in plan.parameters[0].reason


def test_optimizer_and_update_of_the_user_are_named():
    em = EM(location(lambda theta, z: theta[z]), m_step={"theta": optax.sgd(0.1)})
    assert em.plan(X).method("theta") == "optax"
    em = EM(location(lambda theta, z: theta[z]), m_step={"theta": lambda value, objective: value})
    assert em.plan(X).method("theta") == "user"


def test_parameter_that_nothing_observed_depends_on_is_held():
    def program(x):
        numpyro.param("unused", 2.0)
        location(lambda theta, z: theta[z])(x)

    plan = EM(program).plan(X)
    assert plan.method("unused") == "held"
    assert "'x'" not in next(p.reason for p in plan.parameters if p.name == "unused")
    assert "stays where it is" in str(plan)


def test_shared_scale_is_maximized_after_the_location():
    order = [p.name for p in EM(gaussian_mixture.program).plan(X, 2).parameters]
    assert order.index("loc") < order.index("scale")


def test_mean_shared_by_components_of_unequal_scale_is_maximized_in_turn():
    def program(x):
        loc = numpyro.param("loc", 1.0)
        scale = numpyro.param("scale", jnp.array([1.0, 3.0]), constraint=constraints.positive)
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("z", dist.Categorical(HALF))
            numpyro.sample("x", dist.Normal(loc, scale[z]), obs=x)

    plan = EM(program).plan(X)
    assert plan.method("loc") == plan.method("scale") == "closed form"
    assert "in turn" in next(p.reason for p in plan.parameters if p.name == "loc")


def test_bound_of_a_constraint_is_printed():
    assert "within [0.1, inf]" in str(EM(gaussian_mixture.program).plan(POINTS, 2, "diagonal", 0.1))


def test_priors_are_map_in_closed_form_where_they_are_conjugate():
    def program(x):
        weights = numpyro.sample("weights", dist.Dirichlet(2 * jnp.ones(2)))
        with numpyro.plate("components", 2):
            loc = numpyro.sample("loc", dist.Normal(0.0, 10.0))
            scale = numpyro.sample("scale", dist.LogNormal(0.0, 1.0))
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("z", dist.Categorical(weights))
            numpyro.sample("x", dist.Normal(loc[z], scale[z]), obs=x)

    plan = EM(program).plan(X)
    assert all(p.is_prior for p in plan.parameters)
    assert plan.method("weights") == plan.method("loc") == "closed form"
    assert plan.method("scale") not in ("closed form", "held")
    reason = {p.name: p.reason for p in plan.parameters}
    assert "Dirichlet prior" in reason["weights"] and "Normal prior" in reason["loc"]
    assert "LogNormal prior is not conjugate" in reason["scale"]
    assert str(plan).count("  MAP  ") == 3


def test_plan_of_a_program_without_latent_and_without_parameter():
    plan = EM(lambda x: numpyro.sample("x", dist.Normal(0.0, 1.0).expand([4]), obs=x)).plan(X)
    assert str(plan).splitlines()[1:] == [
        "  no latent",
        "M-step, in this order:",
        "  no parameter: nothing to maximize",
    ]


def test_each_reason_is_said_once():
    """Parameters that are maximized together have each its own reason, and alike ones one."""

    def program(x, y):
        slope = numpyro.param("slope", 0.0)
        offset = numpyro.param("offset", 0.0)
        shape = numpyro.param("shape", 1.0, constraint=constraints.positive)
        numpyro.sample("x", dist.Gamma(shape, 1.0), obs=x)
        numpyro.sample("y", dist.Poisson(jnp.exp(offset + slope * x)), obs=y)

    plan = EM(program).plan(1.5, 2)
    assert str(plan).splitlines()[3:] == [
        "  offset  Newton  it enters the rate of 'y' through 'mul'",
        "  shape   Newton  the concentration of Gamma at 'x' has no closed form",
        "  slope   Newton  as 'offset'",
    ]
    assert plan.parameters[2].reason == plan.parameters[0].reason


def test_plan_says_how_gaussian_latents_are_integrated_out():
    def program(x, row, column):
        def step(level, _):
            level = numpyro.sample("level", dist.Normal(level, 1.0))
            return level, level

        _, level = scan(step, 0.0, None, length=len(x))
        with numpyro.plate("rows", 4):
            a = numpyro.sample("a", dist.Normal(0.0, 1.0).expand([4, 2]).to_event(1))
        with numpyro.plate("columns", 6):
            b = numpyro.sample("b", dist.Normal(0.0, 2.0))
        with numpyro.plate("observations", len(x)):
            numpyro.sample("x", dist.Normal(a[row, 0] + b[column], 1.0), obs=x)
            numpyro.sample("y", dist.Normal(level, 1.0), obs=x)

    x, row = jnp.arange(12.0), np.arange(12) % 4
    plan = EM(program, integrate={"a", "b", "level"}).plan(x, row, np.arange(12) // 2)
    assert str(plan).splitlines()[:4] == [
        "E-step (soft): exact integrals over",
        "  level: 12 of 1 coordinate, in time",
        "  a: 4 of 2 coordinates, element by element",
        "  b: 6 of 1 coordinate, as one vector of 6 coordinates",
    ]
    assert [(latent.shape, latent.size) for latent in plan.integrated][1] == ((4,), 2)
