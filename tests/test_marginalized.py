"""A program whose latents are summed out, as NumPyro's own algorithms see it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.contrib.funsor import config_enumerate, enum
from numpyro.contrib.funsor import log_density as log_density_by_enumeration
from numpyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO, init_to_value
from numpyro.infer.autoguide import AutoLaplaceApproximation, AutoMultivariateNormal, AutoNormal
from numpyro.infer.reparam import LocScaleReparam
from numpyro.infer.util import log_density, potential_energy
from numpyro.ops.indexing import Vindex
from scipy.stats import multivariate_normal

from emjax import EM, labeled, marginalized, weighted
from emjax.distributions import PartiallyObserved
from tests.oracles.brute_force import joint_table

RANDOM = np.random.default_rng(20261129)
FACTOR = "marginal_log_likelihood"


def simplex(name, *shape):
    prior = dist.Dirichlet(jnp.ones(shape[-1])).expand(shape[:-1])
    return numpyro.sample(name, prior.to_event(len(shape) - 1))


def mixture(x):
    weights, scale = simplex("weights", 3), numpyro.sample("scale", dist.LogNormal(0, 1))
    numpyro.deterministic("precision", scale**-2)
    with numpyro.plate("kinds", 3):
        loc = numpyro.sample("loc", dist.Normal(0, 5))
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Categorical(weights), infer={"enumerate": "parallel"})
        mean = numpyro.deterministic("mean", loc[z])
        numpyro.sample("x", dist.Normal(mean, scale), obs=x)


def dawid_skene(item, annotator, label):
    prevalence, confusion = simplex("prevalence", 3), simplex("confusion", 4, 3, 3)
    with numpyro.plate("items", 5):
        truth = numpyro.sample(
            "truth", dist.Categorical(prevalence), infer={"enumerate": "parallel"}
        )
    with numpyro.plate("labels", len(label)):
        numpyro.sample("label", dist.Categorical(confusion[annotator, truth[item]]), obs=label)


def hidden_markov(x):
    transition, rate = simplex("transition", 2, 2), numpyro.sample("rate", PRIOR_OF_RATES)

    def step(carry, now):
        before, time = carry
        with numpyro.plate("sequences", 3):
            z = numpyro.sample(
                "z", dist.Categorical(transition[before]), infer={"enumerate": "parallel"}
            )
            with handlers.mask(mask=time < jnp.array([4, 2, 3])):
                numpyro.sample("x", dist.Poisson(rate[z]), obs=now)
        return (z, time + 1), None

    scan(step, (jnp.zeros(3, int), 0), x)


def factorial(x):
    first, second = simplex("first", 2, 2), simplex("second", 2, 2)
    loc = numpyro.sample("loc", dist.Normal(0, 5).expand([2, 2]).to_event(2))

    def step(carry, now):
        a = numpyro.sample("a", dist.Categorical(first[carry[0]]), infer={"enumerate": "parallel"})
        b = numpyro.sample("b", dist.Categorical(second[carry[1]]), infer={"enumerate": "parallel"})
        numpyro.sample("x", dist.Normal(loc[a, b], 1.0), obs=now)
        return (a, b), None

    scan(step, (0, 0), x)


PRIOR_OF_RATES = dist.Gamma(2.0, 0.1).expand([2]).to_event(1)
POINTS = jnp.asarray(RANDOM.normal(size=8) + np.repeat([-3.0, 3.0], 4))
COUNTS = jnp.asarray(RANDOM.poisson(8, size=(6, 3)))
SEQUENCES = COUNTS[:4]
ITEM, ANNOTATOR = jnp.arange(20) % 5, jnp.arange(20) // 5
LABELS = jnp.asarray(RANDOM.integers(0, 3, 20))


kept = functools.cache(marginalized)  # a program is traced once, for whatever tests have it


@functools.partial(jax.jit, static_argnums=0)
def drawn(program, *data):
    """Parameters drawn from the priors, and the same without constraints."""
    params, unconstrained = {}, {}
    for name, site in handlers.trace(handlers.seed(program, 1)).get_trace(*data).items():
        if site["type"] == "sample" and not (site["is_observed"] or site["fn"].is_discrete):
            params[name] = site["value"]
            unconstrained[name] = dist.biject_to(site["fn"].support).inv(site["value"])
    return params, unconstrained


def density(model, data, params):
    """Its log density, compiled: op by op it would take seconds."""
    return jax.jit(lambda params: log_density(model, data, {}, params)[0])(params)


def in_wide_form(label, is_seen):
    """The labels' program as enumeration takes it: by (item, annotator)."""
    prevalence, confusion = simplex("prevalence", 3), simplex("confusion", 4, 3, 3)
    with numpyro.plate("items", 5, dim=-2):
        truth = numpyro.sample(
            "truth", dist.Categorical(prevalence), infer={"enumerate": "parallel"}
        )
        with numpyro.plate("annotators", 4, dim=-1), handlers.mask(mask=is_seen):
            probs = Vindex(confusion)[jnp.arange(4), truth, :]
            numpyro.sample("label", dist.Categorical(probs), obs=label)


LONG = (ITEM[:17], ANNOTATOR[:17], LABELS[:17])  # three items lack the last annotator's label
WIDE = (LABELS.reshape(4, 5).T, jnp.arange(20).reshape(4, 5).T < 17)


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("program", "data", "as_enumerated", "enumerated_data", "dim"),
    [
        (mixture, (POINTS,), mixture, (POINTS,), -2),
        (dawid_skene, LONG, in_wide_form, WIDE, -3),
        (hidden_markov, (SEQUENCES,), hidden_markov, (SEQUENCES,), -2),
        (factorial, (POINTS[2:6],), factorial, (POINTS[2:6],), -1),
    ],
    ids=["mixture", "labels in long form", "chain with masks", "factorial chain"],
)
def test_the_potential_and_its_gradient_are_those_of_enumeration(
    program, data, as_enumerated, enumerated_data, dim
):
    """In NumPyro's unconstrained coordinates, whose log |dv/du| it adds itself."""
    _, unconstrained = drawn(program, *data)
    ours = kept(program)
    enumerated = enum(config_enumerate(as_enumerated), first_available_dim=dim)

    def both(u):
        own = jax.value_and_grad(lambda u: potential_energy(ours, data, {}, u))
        theirs = jax.value_and_grad(
            lambda u: potential_energy(enumerated, enumerated_data, {}, u, enum=True)
        )
        return own(u), theirs(u)

    (potential, slopes), (expected, expected_slopes) = jax.jit(both)(unconstrained)
    np.testing.assert_allclose(potential, expected, rtol=1e-12)
    for name, slope in slopes.items():
        np.testing.assert_allclose(slope, expected_slopes[name], rtol=1e-10, atol=1e-11)


# ---------------------------------------------------------------- where enumeration is wrong


def masked_latents(x):
    weights, rate = simplex("weights", 2), numpyro.sample("rate", PRIOR_OF_RATES)
    with numpyro.plate("rows", 6), handlers.mask(mask=jnp.arange(6) % 3 > 0):
        z = numpyro.sample("z", dist.Categorical(weights), infer={"enumerate": "parallel"})
        numpyro.sample("x", dist.Poisson(rate[z]), obs=x)


def from_one(x):
    rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0))
    with numpyro.plate("rows", 6):
        z = numpyro.sample("z", dist.DiscreteUniform(1, 3), infer={"enumerate": "parallel"})
        numpyro.sample("x", dist.Poisson(rate * z), obs=x)


def scan_without_plate(x):
    transition, rate = simplex("transition", 2, 2), numpyro.sample("rate", PRIOR_OF_RATES)

    def step(before, now):
        probs = transition[before]
        z = numpyro.sample("z", dist.Categorical(probs), infer={"enumerate": "parallel"})
        numpyro.sample("x", dist.Poisson(rate[z]), obs=now)
        return z, None

    scan(step, jnp.zeros(2, int), x)


@pytest.mark.filterwarnings("ignore:Out-of-support values")
@pytest.mark.parametrize(
    ("program", "x", "dim"),
    [
        (masked_latents, COUNTS[:, 0], -2),
        (from_one, COUNTS[:, 0], -2),
        (scan_without_plate, COUNTS[:3, :2], -1),
    ],
)
def test_where_enumeration_is_silently_wrong_it_is_the_joint_table(program, x, dim):
    """Enumeration counts a masked latent's values once each, takes 0 for the first of three, and a
    batch without a plate for the values of the latent.
    """
    params, _ = drawn(program, x)
    table = joint_table(program, params, x)
    ours = kept(program)
    enumerated = enum(config_enumerate(program), first_available_dim=dim)

    @jax.jit
    def both(params):
        wrong, _ = log_density_by_enumeration(enumerated, (x,), {}, params)
        return log_density(ours, (x,), {}, params)[0], wrong

    found, wrong = both(params)
    expected = table.log_likelihood + table.log_prior
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert abs(wrong - expected) > 0.1


# ---------------------------------------------------------------- what takes it


def flipped(x):
    """One parameter, so that its posterior is known by quadrature: a tenth of signs are flipped."""
    share = numpyro.sample("share", dist.Beta(2.0, 2.0))
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Bernoulli(share))
        numpyro.sample("x", dist.Bernoulli(jnp.where(z == 1, 0.9, 0.1)), obs=x)


SIGNS = jnp.arange(20) % 4 > 0


def posterior_of_share():
    """Its logit's grid, and the density there."""
    logit = np.linspace(-8, 8, 4001)
    share = 1 / (1 + np.exp(-logit))
    yes = 0.9 * share + 0.1 * (1 - share)
    # Beta(2, 2), and |d share / d logit|
    log_density = 15 * np.log(yes) + 5 * np.log(1 - yes) + 2 * np.log(share * (1 - share))
    density = np.exp(log_density - log_density.max())
    return logit, share, density / density.sum(), log_density


def test_vectorized_chains_of_nuts_from_the_estimate_of_em_sample_the_posterior():
    result = EM(flipped, map="unconstrained").run(jax.random.key(0), SIGNS)
    kernel = NUTS(kept(flipped), init_strategy=init_to_value(values=result.params))
    mcmc = MCMC(
        kernel,
        num_warmup=100,
        num_samples=500,
        num_chains=2,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(jax.random.key(1), SIGNS)
    _, share, density, _ = posterior_of_share()
    mean = (share * density).sum()
    deviation = np.sqrt(((share - mean) ** 2 * density).sum())
    # some 400 effective draws
    assert abs(mcmc.get_samples()["share"].mean() - mean) < 4 * deviation / np.sqrt(400)


@pytest.mark.sampled
@pytest.mark.parametrize("guide", [AutoLaplaceApproximation, AutoNormal, AutoMultivariateNormal])
def test_guides_approach_the_posterior(guide):
    """Laplace's by a Hessian, forward over reverse."""
    model = kept(flipped)
    guide = guide(model)
    svi = SVI(model, guide, numpyro.optim.Adam(0.05), Trace_ELBO(num_particles=4))
    found = svi.run(jax.random.key(0), 500, SIGNS, progress_bar=False).params
    logit, _, density, log_density = posterior_of_share()
    quantiles = np.asarray(jax.jit(guide.quantiles)(found, jnp.array([0.5, 0.975]))["share"])
    low, high = np.log(quantiles / (1 - quantiles))
    if isinstance(guide, AutoLaplaceApproximation):
        best = log_density.argmax()
        curvature = np.diff(log_density[best - 1 : best + 2], 2)[0] / (logit[1] - logit[0]) ** 2
        mean, deviation, tolerance = logit[best], (-curvature) ** -0.5, 0.02
    else:
        mean = (logit * density).sum()
        deviation, tolerance = np.sqrt(((logit - mean) ** 2 * density).sum()), 0.2
    np.testing.assert_allclose(low, mean, atol=tolerance)
    np.testing.assert_allclose((high - low) / 1.96, deviation, rtol=tolerance)


def test_second_derivatives_are_those_of_the_log_likelihood():
    params, _ = drawn(hidden_markov, SEQUENCES)
    em, model = EM(hidden_markov), kept(hidden_markov)

    def ours(rate):
        return log_density(model, (SEQUENCES,), {}, params | {"rate": rate})[0]

    def expected(rate):
        likelihood = em.log_likelihood(params | {"rate": rate}, SEQUENCES)
        return likelihood + PRIOR_OF_RATES.log_prob(rate)

    found, wanted = jax.jit(lambda rate: (jax.hessian(ours)(rate), jax.hessian(expected)(rate)))(
        params["rate"]
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-9)


# ---------------------------------------------------------------- which statements it has


def statements(model, *data, **params):
    names = set()

    def run(params):
        given = handlers.substitute(handlers.seed(model, 0), data=params)
        sites = handlers.trace(given).get_trace(*data)
        names.update(name for name, site in sites.items() if site["type"] != "plate")

    jax.eval_shape(run, params)  # op by op it would take seconds
    return names


def everything(x):
    """One statement of each role."""
    loc = numpyro.param("loc", jnp.array([-1.0, 1.0]))
    spread = numpyro.sample("spread", dist.Gamma(2.0, 1.0))
    kind = numpyro.sample("kind", dist.Categorical(jnp.array([0.3, 0.7])))
    level = numpyro.sample("level", dist.Normal(loc[kind], spread))
    numpyro.sample("unread", dist.Normal(loc[kind], 1.0))
    numpyro.sample("unread of no latent", dist.Normal(spread, 1.0))
    numpyro.deterministic("spread squared", spread**2)
    numpyro.deterministic("doubled kind", 2 * kind)
    numpyro.factor(FACTOR, -spread)

    def step(before, now):
        pull = numpyro.param("pull", 0.5)
        shift = numpyro.sample("shift", dist.Normal(0.0, 1.0))
        z = numpyro.sample("z", dist.Categorical(jnp.array([[0.9, 0.1], [0.2, 0.8]])[before]))
        numpyro.sample("x", dist.Normal(level + pull * z + shift, 1.0), obs=now)
        return z, None

    scan(step, 0, x)


def test_parameters_are_shown_and_what_reads_a_latent_is_in_the_factor():
    model, x = marginalized(everything), POINTS[:3]
    shown = {"loc", "spread", "level", "unread of no latent", "spread squared", "shift", "pull"}
    params = {
        "loc": jnp.array([-1.0, 2.0]),
        "spread": jnp.array(0.7),
        "level": jnp.array(0.4),
        "unread of no latent": jnp.array(1.0),
        "shift": jnp.array([0.3, -0.2, 0.5]),
        "pull": jnp.array(0.8),
    }
    assert statements(model, x, **params) == shown | {FACTOR + "_"}
    first, stays = np.array([0.3, 0.7]), np.array([[0.9, 0.1], [0.2, 0.8]])
    message = stays[0]
    for t, point in enumerate(x):
        mean = 0.4 + 0.8 * np.arange(2) + params["shift"][t]
        message = message * np.exp(dist.Normal(mean, 1.0).log_prob(point))
        message = message @ stays if t < 2 else message
    level = (first * np.exp(dist.Normal(params["loc"], 0.7).log_prob(0.4))).sum()
    priors = dist.Gamma(2.0, 1.0).log_prob(0.7) + dist.Normal(0.7, 1.0).log_prob(1.0)
    shifts = dist.Normal(0.0, 1.0).log_prob(params["shift"]).sum()
    expected = np.log(message.sum()) + np.log(level) + priors + shifts - 0.7
    np.testing.assert_allclose(density(model, (x,), params), expected, rtol=1e-12)


def test_handlers_of_parameters_are_inside_or_outside_of_it():
    x = POINTS

    def program(x):
        rate = numpyro.param("rate", 1.0, constraint=dist.constraints.positive)
        loc = numpyro.sample("loc", dist.Normal(0.0, rate))
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("z", dist.Bernoulli(0.4))
            numpyro.sample("x", dist.Normal(loc + z, 1.0), obs=x)

    prior = {"rate": dist.Gamma(2.0, 1.0)}
    model = marginalized(program)
    params = {"rate": jnp.array(0.6), "loc": jnp.array(0.2)}
    plain = density(model, (x,), params)
    expected = plain + prior["rate"].log_prob(0.6)
    for lifted in (handlers.lift(model, prior), marginalized(handlers.lift(program, prior))):
        np.testing.assert_allclose(density(lifted, (x,), params), expected, rtol=1e-12)
    config = {"loc": LocScaleReparam(0)}
    params = {"rate": jnp.array(0.6), "loc_decentered": jnp.array(0.2 / 0.6)}
    # the density of what is decentered, not of what is made of it
    expected = plain + jnp.log(0.6)
    inside = marginalized(handlers.reparam(program, config=config))
    for centered in (handlers.reparam(model, config=config), inside):
        np.testing.assert_allclose(density(centered, (x,), params), expected, rtol=1e-12)


def test_two_of_them_are_parts_of_one_program():
    params = {"share": jnp.array(0.3)}
    alone, _ = log_density(marginalized(flipped), (SIGNS,), {}, params)

    def both(x):
        for prefix in "ab":
            handlers.scope(marginalized(flipped), prefix=prefix)(x)

    named = {f"{prefix}/share": params["share"] for prefix in "ab"}
    np.testing.assert_allclose(log_density(both, (SIGNS,), {}, named)[0], 2 * alone, rtol=1e-14)


def test_what_is_missing_is_no_parameter():
    def program(x, is_seen):
        loc = numpyro.param("loc", jnp.array([-1.0, 1.0]))
        with numpyro.plate("rows", 8):
            z = numpyro.sample("z", dist.Bernoulli(0.4))
            numpyro.sample("x", dist.Normal(loc[z], 1.0), obs=x, obs_mask=is_seen)

    is_seen = jnp.arange(8) % 3 > 0
    model = marginalized(program)
    assert statements(model, POINTS, is_seen) == {"loc", FACTOR}
    params = {"loc": jnp.array([-2.0, 2.5])}
    found = density(model, (POINTS, is_seen), params)
    each = dist.Normal(params["loc"], 1.0).log_prob(POINTS[:, None]) + np.log([0.6, 0.4])
    np.testing.assert_allclose(found, jnp.logaddexp(*each[is_seen].T).sum(), rtol=1e-12)


def test_rows_with_weights_labels_and_missing_coordinates_are_those_of_the_formula():
    def pairs(x):
        loc = numpyro.param("loc", jnp.array([-1.0, 1.0]))
        with numpyro.plate("rows", 4):
            z = numpyro.sample("z", dist.Bernoulli(0.4))
            covariance = jnp.array([[1.0, 0.5], [0.5, 2.0]])
            complete = dist.MultivariateNormal(jnp.stack([loc[z], -loc[z]], -1), covariance)
            numpyro.sample("x", PartiallyObserved(complete, observed=~jnp.isnan(x)), obs=x)

    x = np.array(POINTS).reshape(4, 2)
    x[0, 0] = x[2, 1] = np.nan
    weights, labels, loc = np.array([1.0, 2.5, 0.0, 3.0]), np.array([-1, -1, 1, 1]), [-0.7, 2.0]
    each = np.empty((4, 2))
    for (n, z), _ in np.ndenumerate(each):
        seen = ~np.isnan(x[n])
        mean, covariance = np.array([loc[z], -loc[z]]), np.array([[1.0, 0.5], [0.5, 2.0]])
        normal = multivariate_normal(mean[seen], covariance[np.ix_(seen, seen)])
        each[n, z] = np.log([0.6, 0.4][z]) + normal.logpdf(x[n, seen])
    rows = np.where(labels < 0, np.logaddexp(*each.T), each[:, 1])
    model = marginalized(weighted(labeled(pairs, "z"), "rows"))
    found = density(model, (weights, labels, x), {"loc": jnp.array(loc)})
    np.testing.assert_allclose(found, weights @ rows, rtol=1e-12)


def test_without_data_it_draws_data_and_with_them_what_is_computed_of_parameters():
    def program(x=None):
        share = numpyro.sample("share", dist.Beta(2.0, 2.0))
        numpyro.deterministic("odds", share / (1 - share))
        with numpyro.plate("rows", 5):
            z = numpyro.sample("z", dist.Bernoulli(share))
            numpyro.sample("x", dist.Normal(z, 0.01), obs=x)

    model, samples = marginalized(program), {"share": jnp.array([1e-9, 1 - 1e-9])}
    new = Predictive(model, samples)(jax.random.key(0))
    np.testing.assert_array_equal(new["z"], [[0] * 5, [1] * 5])
    np.testing.assert_allclose(new["x"], new["z"], atol=0.05)
    given = Predictive(model, samples)(jax.random.key(0), POINTS[:5])
    assert set(given) == {"odds", FACTOR}
    np.testing.assert_allclose(given["odds"], samples["share"] / (1 - samples["share"]))


def test_bad_data_are_an_error_that_names_the_site():
    params, _ = drawn(mixture, POINTS)
    with pytest.raises(ValueError, match="Site 'x'"):
        log_density(kept(mixture), (POINTS.at[2].set(jnp.nan),), {}, params)
