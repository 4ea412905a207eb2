"""A density that has shrunk onto data is seen in any family, however it is computed."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

from emjax import EM, Status
from emjax.run.resolution import moved, moves_of

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
# ten of a hundred are equal: a component alone with them collapses
X = np.concatenate([RNG.gamma(4.0, 0.5, 90), np.full(10, 1.5)])
POSITIVE = constraints.positive


def found_at(program, params, *data):
    """Return whether the data had to be moved at parameters, and what has collapsed."""
    bound = EM(program).on(*data)
    compiled = bound.compiled
    params = {name: np.asarray(value, float) for name, value in params.items()}
    sharpness = jax.jit(lambda p, constants: compiled.watch.sharpness(p, p, constants))
    sharp = jax.device_get(sharpness(params, bound.constants()))
    asked = []

    def falls():
        asked.append(True)
        return compiled.falls(params, bound.data, moves_of(bound.data))

    found = compiled.watch.collapsed(sharp, falls)
    return bool(asked), found


def mixture_of(density, names):
    """Return two components of a density whose arguments are positive."""

    def program(x):
        arguments = [numpyro.param(name, jnp.ones(2), constraint=POSITIVE) for name in names]
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("z", dist.Categorical(jnp.array([0.8, 0.2])))
            numpyro.sample("x", density(*(value[z] for value in arguments)), obs=x)

    return program


def mean_and(density):
    """Return a density given its mean, and a number that is large where it is narrow."""
    return lambda shape, mean: density(shape, shape / mean)


NARROW = {
    "StudentT": (lambda s, m: dist.StudentT(3.0, m, 1 / s), 1e8),
    "Laplace": (lambda s, m: dist.Laplace(m, 1 / s), 1e8),
    "Gamma": (mean_and(dist.Gamma), 1e16),
    "Weibull": (lambda s, m: dist.Weibull(m, s), 1e10),
    "computed normal": (lambda s, m: dist.Normal(m, jnp.exp(-jnp.log(s))), 1e8),
}
WIDE = [2.0, 2.0]


@pytest.mark.sampled
@pytest.mark.parametrize("name", NARROW)
@pytest.mark.parametrize("unit", [1.0, 1e6])
def test_a_narrow_component_on_equal_data_has_collapsed_in_any_family_and_unit(name, unit):
    density, narrow = NARROW[name]
    has_unit = name not in ("Gamma", "Weibull")
    program = mixture_of(density, ["narrowness", "mean"])
    inverse = 1 / unit if has_unit else 1.0
    params = {"narrowness": np.array([2.0, narrow]) * inverse, "mean": np.array([2.0, 1.5]) * unit}
    _, found = found_at(program, params, X * unit)
    (finding,) = found
    assert finding.kind == "collapsed"
    assert finding.sentence.startswith("component 1 of 'z' collapses: ")
    assert "'x'" in finding.sentence and "'narrowness'" in finding.sentence
    params["narrowness"][1] = 50 * inverse
    assert found_at(program, params, X * unit) == (False, [])


def test_a_density_with_a_pole_and_data_near_it_is_regular():
    """It is as high as one likes near zero, and no higher than data are close to each other."""
    x = np.random.default_rng(1).gamma(0.1, 1.0, 60)
    assert x.min() < 1e-12
    program = mixture_of(dist.Gamma, ["shape", "rate"])
    params = {"shape": [0.1, 2.0], "rate": [1.0, 1.0]}
    assert found_at(program, params, x) == (True, [])


def test_data_that_cannot_be_moved_are_judged_by_their_spread():
    """Whole numbers have none between them, and what a program holds is no argument of it."""
    program = mixture_of(NARROW["StudentT"][0], ["narrowness", "mean"])
    x = np.concatenate([RNG.integers(1, 100, 30), np.full(10, 8)])
    wide, narrow = {"narrowness": [0.1, 0.1], "mean": [50.0, 8.0]}, {"mean": [50.0, 8.0]}
    narrow["narrowness"] = [0.1, 1e8]
    for held in (False, True):
        model, data = (lambda: program(x * 1.0), ()) if held else (program, (x,))
        (finding,) = found_at(model, narrow, *data)[1]
        assert finding.sentence.startswith("component 1 of 'z' collapses: its density of 'x' is")
        assert found_at(model, wide, *data) == (False, [])


class ZeroOrPositive(dist.Distribution):
    """Zero with some probability, else exponential: what it says of zero is no density."""

    arg_constraints = {"zero": constraints.unit_interval, "size": POSITIVE}  # noqa: RUF012
    support = constraints.nonnegative

    def __init__(self, zero, mean, *, validate_args=None):
        self.zero, self.size = zero, mean
        batch = jnp.broadcast_shapes(jnp.shape(zero), jnp.shape(mean))
        super().__init__(batch, validate_args=validate_args)

    def log_prob(self, x):
        density = jnp.log1p(-self.zero) - jnp.log(self.size) - x / self.size
        return jnp.where(x == 0, jnp.log(self.zero), density)


def test_a_probability_of_zero_is_no_density_whatever_the_unit_of_the_rest():
    x = np.concatenate([np.zeros(30), RNG.exponential(1e7, 30)])
    program = mixture_of(lambda zero, mean: ZeroOrPositive(zero / (1 + zero), mean), ["odds", "m"])
    assert found_at(program, {"odds": [1.0, 2.0], "m": [1e7, 2e7]}, x) == (True, [])


def test_what_is_masked_is_no_datum_to_collapse_onto():
    seen = np.arange(len(X)) < 90

    def program(x, seen):
        s = numpyro.param("s", jnp.ones(2), constraint=POSITIVE)
        with numpyro.plate("rows", len(x)), numpyro.handlers.mask(mask=seen):
            z = numpyro.sample("z", dist.Categorical(jnp.array([0.8, 0.2])))
            numpyro.sample("x", dist.StudentT(3.0, jnp.array([2.0, 1.5])[z], s[z]), obs=x)

    assert found_at(program, {"s": [1.0, 1e-8]}, X, seen) == (False, [])
    assert found_at(program, {"s": [1.0, 1e-8]}, np.where(seen, X, np.nan), seen) == (False, [])


# ── two right-censored Weibulls, of which one may shrink onto the ten that are equal ──────────────

TIMES = np.repeat([2.0, 8.0, 9.0, 20.0, 20.0], [1, 9, 5, 10, 75])
IS_EVENT = np.arange(100) < 25


def censored(times, is_event):
    weights = numpyro.param("weights", jnp.full(2, 0.5), constraint=constraints.simplex)
    spread = [lambda key: jnp.exp(jax.random.normal(key, (2,)))] * 2
    shape = numpyro.param("shape", spread[0], constraint=POSITIVE)
    scale = numpyro.param("scale", lambda key: 20 * spread[1](key), constraint=POSITIVE)
    with numpyro.plate("rows", len(times)):
        z = numpyro.sample("z", dist.Categorical(weights))
        weibull = dist.Weibull(scale[z], shape[z])
        survives = -((times / scale[z]) ** shape[z])
        numpyro.factor("time", jnp.where(is_event, weibull.log_prob(times), survives))


INTERIOR = -108.835439  # SciPy's maximum from the start below, and of most starts of `censored`


def test_an_unbounded_likelihood_of_censored_times_says_so_and_restarts_take_the_interior():
    em = EM(censored, max_steps=200)
    start = {"shape": [1.0, 2.0], "scale": [10.0, 20.0]}
    found = em.run(KEY, TIMES, IS_EVENT, init_params=start)
    assert found.status == Status.COLLAPSED
    (finding,) = [f for f in found.findings if f.kind == "collapsed"]
    assert finding.sentence.startswith("component 1 of 'z' collapses: its density of 'time'")
    assert finding.sentence.endswith("it depends on 'scale', 'shape'.")
    inside = em.run(KEY, TIMES, IS_EVENT, init_params={"shape": [4.0, 9.0], "scale": [30.0, 9.0]})
    assert inside.status == Status.CONVERGED and inside.findings == ()
    np.testing.assert_allclose(inside.log_likelihood, INTERIOR, rtol=1e-7)
    several = EM(censored, max_steps=200, num_restarts=10)
    best = several.run(jax.random.key(1), TIMES, IS_EVENT)
    assert best.findings == () and best.restarts.degenerate.any()
    np.testing.assert_allclose(best.log_likelihood, INTERIOR, rtol=1e-7)


def test_a_column_that_is_constant_is_said_once_and_not_of_each_component():
    def program(x):
        loc = numpyro.param("loc", jnp.array([[-1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]))
        scale = numpyro.param("scale", jnp.ones((2, 3)), constraint=POSITIVE)
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("z", dist.Categorical(jnp.array([0.5, 0.5])))
            numpyro.sample("x", dist.Normal(loc[z], scale[z]).to_event(1), obs=x)

    x = np.random.default_rng(2).normal(size=(40, 3))
    x[:, 2] = 0.1
    (finding,) = EM(program).run(KEY, x).findings
    assert (finding.kind, finding.site, finding.where) == ("collapsed", "x", "[..., 2]")
    assert finding.sentence.startswith("'x'[..., 2] is constant")


def test_of_data_some_of_which_have_no_columns_the_others_are_moved():
    up, down = moved([np.zeros((3, 0)), np.array([1.0, 2.0, 4.0])], False)
    assert up[0].shape == down[0].shape == (3, 0)
    np.testing.assert_allclose(np.abs(up[1] - down[1]), [2e-3, 2e-3, 4e-3])
