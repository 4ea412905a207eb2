"""The recursion over time: its two forms agree, one hands over to the other, and memory and
compilation do not grow as they should not.
"""

import itertools
import math
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.distributions import constraints
from numpyro.infer.util import log_density

from emjax import EM, marginalized
from emjax.e_step.fallback import value_and_gradient
from emjax.e_step.instance import instance_of
from emjax.e_step.term_factors import log_z
from emjax.elimination import algebra
from emjax.elimination.chains import messages, scaled, segments
from emjax.elimination.chains.layout import Chain
from emjax.elimination.chains.operands import Label
from emjax.numerics import fast_forms
from tests.oracles.by_numpy import evaluated

RANDOM = np.random.default_rng(20261121)
LENGTHS = jnp.array([7, 4, 1])


def simplex(*shape):
    return jnp.asarray(RANDOM.dirichlet(np.ones(shape[-1]), shape[:-1]))


def probabilities(name, value):
    return numpyro.param(name, value, constraint=constraints.simplex)


START, TRANSITION, SYMBOLS = simplex(3), simplex(3, 3), jnp.asarray(RANDOM.integers(0, 4, (7, 3)))
EMISSION, SECOND, BOTH = simplex(3, 4), simplex(3, 3, 3), simplex(3, 2, 2)
INPUTS, FLAGS = jnp.asarray(RANDOM.integers(0, 2, (7, 3))), jnp.arange(7) % 3 == 0
POINTS = jnp.asarray(RANDOM.normal(size=(7, 3)))


def plain(symbols):
    start, transition, emission = (
        probabilities("start", START),
        probabilities("transition", TRANSITION),
        probabilities("emission", EMISSION),
    )

    def step(carry, x):
        before, t = carry
        with numpyro.plate("sequences", 3):
            z = numpyro.sample("z", dist.Categorical(jnp.where(t == 0, start, transition[before])))
            numpyro.sample("x", dist.Categorical(emission[z]), obs=x)
        return (z, t + 1), None

    scan(step, (jnp.zeros(3, int), 0), symbols)


def masked(symbols):
    start, transition, emission = (
        probabilities("start", START),
        probabilities("transition", TRANSITION),
        probabilities("emission", EMISSION),
    )

    def step(carry, x):
        before, t = carry
        with numpyro.plate("sequences", 3), handlers.mask(mask=t < LENGTHS):
            z = numpyro.sample("z", dist.Categorical(jnp.where(t == 0, start, transition[before])))
            numpyro.sample("x", dist.Categorical(emission[z]), obs=x)
        return (z, t + 1), None

    scan(step, (jnp.zeros(3, int), 0), symbols)


def with_inputs(symbols):
    transition, emission = (
        probabilities("by_input", jnp.stack([TRANSITION, TRANSITION[::-1]])),
        probabilities("emission", EMISSION),
    )

    def step(before, now):
        which, x = now
        with numpyro.plate("sequences", 3):
            z = numpyro.sample("z", dist.Categorical(transition[which, before]))
            numpyro.sample("x", dist.Categorical(emission[z]), obs=x)
        return z, None

    scan(step, jnp.zeros(3, int), (INPUTS, symbols))


def second_order(symbols):
    transition, emission = probabilities("second", SECOND), probabilities("emission", EMISSION)

    def step(carry, x):
        older, old = carry
        with numpyro.plate("sequences", 3):
            z = numpyro.sample("z", dist.Categorical(transition[older, old]))
            numpyro.sample("x", dist.Categorical(emission[z]), obs=x)
        return (old, z), None

    scan(step, (jnp.zeros(3, int), jnp.zeros(3, int)), symbols)


def factorial(points):
    transition, flip = probabilities("transition", TRANSITION), probabilities("flip", simplex(2, 2))
    loc = numpyro.param("loc", jnp.array([[0.0, 1.0], [1.0, -1.0], [2.0, 0.5]]))

    def step(carry, x):
        first, second = carry
        with numpyro.plate("sequences", 3):
            first = numpyro.sample("first", dist.Categorical(transition[first]))
            second = numpyro.sample("second", dist.Categorical(flip[second]))
            numpyro.sample("x", dist.Normal(loc[first, second], 1.0), obs=x)
        return (first, second), None

    scan(step, (jnp.zeros(3, int), jnp.zeros(3, int)), points)


def coupled(points):
    transition, flip = (
        probabilities("by_second", jnp.stack([TRANSITION, TRANSITION[::-1]])),
        probabilities("by_first", BOTH),
    )
    loc = numpyro.param("loc", jnp.array([0.0, 1.0, 2.0]))

    def step(carry, x):
        first, second = carry
        with numpyro.plate("sequences", 3):
            new = numpyro.sample("first", dist.Categorical(transition[second, first]))
            second = numpyro.sample("second", dist.Categorical(flip[first, second]))
            numpyro.sample("x", dist.Normal(loc[new] + second, 1.0), obs=x)
        return (new, second), None

    scan(step, (jnp.zeros(3, int), jnp.zeros(3, int)), points)


def clusters(points):
    share, transition = (
        probabilities("share", simplex(2)),
        probabilities("by_cluster", jnp.stack([TRANSITION, TRANSITION[::-1]])),
    )
    loc = numpyro.param("loc", jnp.array([0.0, 1.0, 2.0]))
    with numpyro.plate("sequences", 3):
        cluster = numpyro.sample("cluster", dist.Categorical(share))

    def step(before, x):
        with numpyro.plate("sequences", 3):
            z = numpyro.sample("z", dist.Categorical(transition[cluster, before]))
            numpyro.sample("x", dist.Normal(loc[z], 1.0), obs=x)
        return z, None

    scan(step, jnp.zeros(3, int), points)


def weighted(symbols):
    with handlers.scale(scale=jnp.array([1.0, 2.0, 0.5])):
        masked(symbols)


def backwards(symbols):
    transition, emission = (
        probabilities("transition", TRANSITION),
        probabilities("emission", EMISSION),
    )

    def step(before, x):
        with numpyro.plate("sequences", 3):
            z = numpyro.sample("z", dist.Categorical(transition[before]))
            numpyro.sample("x", dist.Categorical(emission[z]), obs=x)
        return z, None

    scan(step, jnp.zeros(3, int), symbols, reverse=True)


def restarted(symbols):
    """Several sequences end to end: where one starts, data choose the initial distribution."""
    start, transition, emission = (
        probabilities("start", START),
        probabilities("transition", TRANSITION),
        probabilities("emission", EMISSION),
    )

    def step(before, now):
        is_first, x = now
        z = numpyro.sample("z", dist.Categorical(jnp.where(is_first, start, transition[before])))
        numpyro.sample("x", dist.Categorical(emission[z]), obs=x)
        return z, None

    scan(step, 0, (FLAGS, symbols[:, 0]))


PROGRAMS = [
    (plain, SYMBOLS),
    (masked, SYMBOLS),
    (with_inputs, SYMBOLS),
    (second_order, SYMBOLS),
    (factorial, POINTS),
    (coupled, POINTS),
    (clusters, POINTS),
    (weighted, SYMBOLS),
    (backwards, SYMBOLS),
    (restarted, SYMBOLS),
]


def graph_and_arrays(program, *data):
    bound = EM(program).on(*data)
    compiled, graph = bound.compiled, bound.compiled.graph

    def arrays(key, data):
        return graph.arrays(compiled.pure.initial(key, data), graph.prepare(data))

    return graph, jax.tree.map(jnp.asarray, evaluated(arrays, jax.random.key(0), bound.data))


def plain_form(whole):
    return jax.value_and_grad(lambda tables: log_z(whole, tables))(whole.tables)


def scaled_form(whole):
    return value_and_gradient(lambda tables, fast: log_z(whole, tables, fast=fast), whole.tables)


def in_rounds_form(whole):
    with pytest.MonkeyPatch.context() as patch:
        # these chains are small, and some have more states
        patch.setattr(fast_forms, "FEWEST_FAST", 1e9)
        patch.setattr(algebra, "MOST_STATES", 100)

        def function(tables, fast):
            assert fast is None or fast.is_often
            return log_z(whole, tables, fast=fast)

        return value_and_gradient(function, whole.tables, is_often=True)


COMPILED = (plain, clusters)  # of the others, what is traced is evaluated by NumPy


def valued(form, chains, graph, arrays, is_compiled):
    def function(arrays):
        return form(replace(instance_of(graph, arrays), chains=chains))

    if is_compiled:
        quickly = {"xla_backend_optimization_level": 0}
        return jax.jit(function, compiler_options=quickly)(arrays)
    return evaluated(function, arrays)


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("program", "data"), PROGRAMS, ids=lambda value: getattr(value, "__name__", "")
)
def test_every_way_to_sum_out_gives_the_log_likelihood_and_gradient_of_logarithms(
    program, data, monkeypatch
):
    """Step by step and in stretches, in both forms; in rounds; in segments; the batch first and
    last. What the scaled form says is taken whatever its epsilon.
    """
    monkeypatch.setattr(fast_forms, "FEWEST_FAST", 1)
    monkeypatch.setattr(jax.lax, "cond", lambda condition, first, second: first())
    problem = *graph_and_arrays(program, data), program in COMPILED
    value, gradient = valued(plain_form, "sequential", *problem)
    ways = [
        (scaled_form, "sequential", 1, "first"),
        (scaled_form, "sequential", 3, "first"),
        (scaled_form, "sequential", 3, "last"),
        (scaled_form, "checkpointed", 1, "last"),
        (plain_form, "checkpointed", 1, "first"),
        (plain_form, "parallel", 1, "first"),
        (in_rounds_form, "sequential", 1, "first"),
    ]
    for form, chains, count, batch in ways:
        monkeypatch.setattr(
            scaled, "number_of_segments", lambda chain, steps, n=count: n if steps >= n else 1
        )
        monkeypatch.setattr(messages, "MANY", 0 if batch == "last" else 1e9)
        way = f"{form.__name__}, {chains}, {count}, batch {batch}"
        found, found_gradient = valued(form, chains, *problem)
        np.testing.assert_allclose(found, value, rtol=1e-13, err_msg=way)
        for own, wanted in zip(
            jax.tree.leaves(found_gradient), jax.tree.leaves(gradient), strict=True
        ):
            np.testing.assert_allclose(own, wanted, rtol=1e-10, atol=1e-13, err_msg=way)


def test_segments_stay_in_the_cache(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")

    def number(num_states):
        state = Label("state", 0)
        chain = Chain(("state",), (state,), (), {state: num_states}, (), (1,), 1_000_000)
        return segments.number_of_segments(chain, 1_000_000)

    assert [number(num_states) for num_states in (2, 8, 16, 64)] == [1000, 500, 250, 1]


def test_segments_leave_few_steps_over():
    assert segments._nearly_a_divisor(10_000, 100) == 100
    for steps in (9_999, 99_999, 999_999):
        number = segments._nearly_a_divisor(steps, math.isqrt(steps))
        assert steps % number == 0 and 0.6 < number / steps**0.5 < 1.6
    # a prime number of steps
    fewest = min(999_983 % number for number in range(700, 1_400))
    assert 999_983 % segments._nearly_a_divisor(999_983, 999) == fewest


def test_what_is_asked_for_once_has_no_second_form_unless_it_is_large():
    once, in_steps = fast_forms.FastForms(is_once=True), fast_forms.FastForms()
    assert in_steps.are_worth(2**14) and not in_steps.are_worth(2**14 - 1, turns=10_000)
    assert once.are_worth(2**22) and not once.are_worth(2**20)
    # a loop over a million steps takes seconds, whatever is in it
    assert once.are_worth(2**20, turns=1_000_000)


# ---------------------------------------------------------------- where probabilities are lost


def left_to_right(points):
    """States are visited in order; the fourth cannot be reached for three steps."""
    loc = numpyro.param("loc", jnp.array([0.0, 50.0, 100.0, 150.0]))
    stays = jnp.triu(jnp.tril(jnp.full((4, 4), 0.5), 1)).at[-1, -1].set(1.0)
    transition = probabilities("transition", stays)

    def step(carry, x):
        before, t = carry
        z = numpyro.sample(
            "z",
            dist.Categorical(
                jnp.where(t == 0, jnp.array([1.0, 0.0, 0.0, 0.0]), transition[before])
            ),
        )
        numpyro.sample("x", dist.Normal(loc[z], 1.0), obs=x)
        return (z, t + 1), None

    scan(step, (0, 0), points)


OUTLIER = np.array(
    [0.0, 1.0, -1.0, 149.0, 0.0, 1.0, 48.0, 51.0, 99.0]
)  # the fourth is far from all states that can be reached


def every_path(points):
    """log p(points, path) for every path of `left_to_right`, and the paths."""
    paths = np.array(list(itertools.product(range(4), repeat=len(points))))
    stays = np.triu(np.tril(np.full((4, 4), 0.5), 1))
    stays[-1, -1] = 1
    with np.errstate(divide="ignore"):
        moves = np.log(stays)[paths[:, :-1], paths[:, 1:]].sum(1) + np.where(
            paths[:, 0] == 0, 0, -np.inf
        )
    return moves + dist.Normal(50.0 * paths, 1.0).log_prob(points).sum(1), paths


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_outlier_that_no_reachable_state_explains_is_finite_and_right(dtype, monkeypatch):
    monkeypatch.setattr(fast_forms, "FEWEST_FAST", 1)
    log_joint, paths = every_path(OUTLIER)
    expected = np.logaddexp.reduce(log_joint)
    weight = np.exp(log_joint - expected)
    posterior = np.stack([(weight[:, None] * (paths == k)).sum(0) for k in range(4)], axis=1)
    tolerance = {"float32": 1e-5, "float64": 1e-12}[dtype]
    with jax.enable_x64(dtype == "float64"):
        em, points = EM(left_to_right), jnp.asarray(OUTLIER, dtype)
        state = em.init(jax.random.key(0), points)
        after, objective = jax.jit(em.update)(state, points)
        np.testing.assert_allclose(objective, expected, rtol=tolerance)
        np.testing.assert_allclose(
            em.posterior(state.params, points)["z"], posterior, atol=tolerance
        )
        loc = (posterior * OUTLIER[:, None]).sum(0)[:3] / posterior.sum(0)[:3]
        np.testing.assert_allclose(after.params["loc"][:3], loc, rtol=tolerance)


def absorbing(points):
    """Two states that are never left: what the first points all but rule out, the last ones
    need.
    """

    def step(carry, x):
        before, t = carry
        z = numpyro.sample(
            "z", dist.Categorical(jnp.where(t == 0, jnp.array([0.5, 0.5]), jnp.eye(2)[before]))
        )
        numpyro.sample(
            "x",
            dist.Normal(
                jnp.array([0.0, 60.0])[z],
                numpyro.param("scale", 1.0, constraint=constraints.positive),
            ),
            obs=x,
        )
        return (z, t + 1), None

    scan(step, (0, 0), points)


def test_what_underflows_and_counts_later_is_not_lost(monkeypatch):
    monkeypatch.setattr(fast_forms, "FEWEST_FAST", 1)
    points = jnp.array(
        [0.0, 0.0, 61.0, 62.0, 59.0]
    )  # exp(-1800) after the second, and yet the better state in the end
    each = dist.Normal(jnp.array([0.0, 60.0]), 1.0).log_prob(points[:, None]).sum(0)
    em = EM(absorbing)
    _, objective = jax.jit(em.update)(em.init(jax.random.key(0), points), points)
    np.testing.assert_allclose(objective, np.logaddexp.reduce(each) + np.log(0.5), rtol=1e-14)


def test_what_a_product_of_two_steps_loses_is_not_lost():
    """In rounds, too: the plain form takes over where all of a product underflows, or what counts
    later does; in a batch, for all of it.
    """
    apart = jnp.array([0.0, 0.0, 61.0, 62.0, 59.0])
    batch = jnp.stack([jnp.zeros(5), apart])
    each = dist.Normal(jnp.array([0.0, 60.0]), 1.0).log_prob(batch[..., None]).sum(1)
    expected = np.logaddexp.reduce(each, 1) + np.log(0.5)
    model = marginalized(absorbing)

    def log_density_of(scale, points):
        return log_density(model, (points,), {}, {"scale": scale})[0]

    values = jax.vmap(jax.value_and_grad(log_density_of), (None, 0))
    found, slopes = jax.jit(values)(1.0, batch)
    np.testing.assert_allclose(found, expected, rtol=1e-14)
    # both have all their points in one state
    squares = ((batch - jnp.array([[0.0], [60.0]])) ** 2).sum(1)
    np.testing.assert_allclose(slopes, squares - 5, rtol=1e-12)


# ---------------------------------------------------------------- what it costs


def equations(jaxpr):
    for eqn in jaxpr.eqns:
        yield eqn
        for value in eqn.params.values():
            for inner in value if isinstance(value, (tuple, list)) else [value]:
                if hasattr(inner, "eqns") or hasattr(inner, "jaxpr"):
                    yield from equations(getattr(inner, "jaxpr", inner))


@pytest.mark.parametrize("program", [plain, masked])
def test_no_array_is_as_large_as_steps_by_states_by_states(program, monkeypatch):
    monkeypatch.setattr(fast_forms, "FEWEST_FAST", 1)
    whole = instance_of(*graph_and_arrays(program, SYMBOLS))
    jaxpr = jax.make_jaxpr(partial(scaled_form, whole))().jaxpr
    assert max(var.aval.size for eqn in equations(jaxpr) for var in eqn.outvars) < 6 * 3 * 3 * 3


def test_compilation_does_not_grow_with_the_number_of_steps(monkeypatch):
    monkeypatch.setattr(fast_forms, "FEWEST_FAST", 1)

    def count(steps):
        whole = instance_of(*graph_and_arrays(plain, jnp.zeros((steps, 3), int)))
        return sum(1 for _ in equations(jax.make_jaxpr(partial(scaled_form, whole))().jaxpr))

    assert count(10) == count(1000)
