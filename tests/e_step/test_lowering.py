"""What an E-step is lowered to: the same numbers in cheaper forms, no large intermediates, one
compilation.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.flatten_util import ravel_pytree
from numpyro.distributions import constraints

from emjax import EM
from emjax.e_step import blocks, e_step
from emjax.models import gaussian_mixture
from emjax.numerics import fast_forms

RNG = np.random.default_rng(5)
DOCUMENT, WORD, COUNT = (
    RNG.integers(3, size=60),
    RNG.integers(4, size=60),
    RNG.integers(1, 4, size=60).astype(float),
)
ANSWERS = RNG.integers(2, size=(40, 5))
SIMPLEX, UNIT = constraints.simplex, constraints.unit_interval


def topics_of_words(document, word, count):
    share = numpyro.param("share", jnp.full((3, 2), 0.5), constraint=SIMPLEX)
    topic = numpyro.param("topic", jnp.full((2, 4), 0.25), constraint=SIMPLEX)
    with numpyro.plate("rows", len(word)), numpyro.handlers.scale(scale=count):
        z = numpyro.sample("z", dist.Categorical(share[document]))
        numpyro.sample("word", dist.Categorical(topic[z]), obs=word)


def binary_items(answers):
    weights = numpyro.param("weights", jnp.array([0.3, 0.7]), constraint=SIMPLEX)
    probs = numpyro.param("probs", jnp.full((2, 5), 0.5), constraint=UNIT)
    with numpyro.plate("subjects", len(answers)):
        z = numpyro.sample("z", dist.Categorical(weights))
        numpyro.sample("answer", dist.Bernoulli(probs[z]).to_event(1), obs=answers)


def counted_items(answers):
    probs = numpyro.param("probs", jnp.full((2, 5), 0.5), constraint=UNIT)
    with numpyro.plate("subjects", len(answers)):
        z = numpyro.sample("z", dist.Categorical(jnp.array([0.3, 0.7])))
        numpyro.sample("answer", dist.Binomial(3, probs[z]).to_event(1), obs=answers)


SHARE, TOPIC = RNG.dirichlet(np.ones(2), 3), RNG.dirichlet(np.ones(4), 2)
PROBS = RNG.uniform(0.1, 0.9, (2, 5))
LAST = np.where(np.arange(5) == 4, 1.0, PROBS)  # item 4: always yes, in both classes
CASES = {
    "topics": (topics_of_words, (DOCUMENT, WORD, COUNT), {"share": SHARE, "topic": TOPIC}, True),
    # the second document has the topic that the second word has not: their product underflows
    "topics, near zero": (
        topics_of_words,
        (DOCUMENT % 2, WORD % 2, COUNT),
        {
            "share": np.array([[1, 1e-300], [1e-300, 1], [0.5, 0.5]]),
            "topic": np.array([[0.5, 0.5, 0, 0], [1, 1e-300, 0, 0]]),
        },
        False,
    ),
    "binary items": (
        binary_items,
        (ANSWERS,),
        {"weights": np.array([0.3, 0.7]), "probs": PROBS},
        True,
    ),
    "binary items, one of them certain": (
        binary_items,
        (np.where(np.arange(5) == 4, 1, ANSWERS),),
        {"weights": np.array([0.3, 0.7]), "probs": LAST},
        False,
    ),
    "binary items, one of them impossible": (
        binary_items,
        (np.where(np.arange(5) == 4, 0, ANSWERS),),
        {"weights": np.array([0.3, 0.7]), "probs": 1 - LAST},
        True,
    ),
    "counted items": (counted_items, (ANSWERS + 1,), {"probs": PROBS}, True),
}


def margins_seen(monkeypatch) -> list:
    """Record whether the cheaper forms were good enough, at each E-step that tried them."""
    seen: list = []
    original = jax.lax.cond

    def cond(predicate, *branches):
        jax.debug.callback(lambda good: seen.append(bool(good)), predicate)
        return original(predicate, *branches)

    monkeypatch.setattr(jax.lax, "cond", cond)
    return seen


@pytest.mark.sampled
@pytest.mark.parametrize("name", CASES)
def test_cheaper_forms_give_the_same_posterior_expectations(name, monkeypatch):
    program, args, params, is_good = CASES[name]
    args = tuple(map(jnp.asarray, args))
    compiled = EM(program).on(*args).compiled
    params = {key: jnp.asarray(value) for key, value in params.items()}
    constants = compiled.prepare(list(args))

    def evaluated():
        expected = jax.jit(
            lambda params, constants: e_step.e_step(
                compiled.graph, compiled.graph.arrays(params, constants)
            )
        )(params, constants)
        return expected.log_partition, expected.statistics

    plain, of_plain = evaluated()
    monkeypatch.setattr(fast_forms, "FEWEST_FAST", 1)
    seen = margins_seen(monkeypatch)
    value, statistics = evaluated()
    jax.effects_barrier()
    assert seen == [is_good]
    np.testing.assert_allclose(value, plain, rtol=1e-13)
    np.testing.assert_allclose(
        ravel_pytree(statistics)[0], ravel_pytree(of_plain)[0], rtol=1e-10, atol=1e-11
    )


def test_a_uniform_latent_in_several_copies_sums_to_one():
    def program(count):
        with numpyro.plate("rows", 3), numpyro.handlers.scale(scale=count):
            numpyro.sample(
                "z", dist.DiscreteUniform(1, 2)
            )  # its probability is a constant, and no table
            numpyro.sample("x", dist.Normal(0.0, 1.0), obs=jnp.zeros(3))

    count = jnp.array([2.0, 1.0, 2.0])
    np.testing.assert_allclose(
        EM(program).log_likelihood({}, count), -2.5 * np.log(2 * np.pi), rtol=1e-12
    )


def sizes(jaxpr) -> list[int]:
    """Return the sizes of all arrays in a jaxpr and the jaxprs inside it."""
    found = [int(np.prod(var.aval.shape)) for eqn in jaxpr.eqns for var in eqn.outvars]
    for eqn in jaxpr.eqns:
        for inner in jax.tree.leaves(
            list(eqn.params.values()), is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")
        ):
            inner = getattr(inner, "jaxpr", inner)
            found += sizes(inner) if hasattr(inner, "eqns") else []
    return found


def largest_in_a_step(program, args, monkeypatch=None) -> int:
    compiled = EM(program).on(*args).compiled
    constants = jax.eval_shape(compiled.graph.prepare, list(args))
    state = jax.eval_shape(
        lambda key: compiled.pure.loop.state(compiled.initial(key, list(args))), jax.random.key(0)
    )
    return max(sizes(jax.make_jaxpr(compiled.pure.loop.step)(state, constants).jaxpr))


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
def test_no_array_holds_samples_times_components_times_features(covariance):
    data = jnp.asarray(RNG.normal(size=(500, 8)))
    largest = largest_in_a_step(
        lambda data: gaussian_mixture.program(data, 10, covariance), (data,)
    )
    assert largest <= 500 * (8 * 9 // 2 + 8 + 1)  # the statistics: products, values, ones


def test_blocks_bound_every_array_of_a_step(monkeypatch):
    data = jnp.asarray(RNG.normal(size=(5000, 2)))
    monkeypatch.setattr(blocks, "BLOCK_BYTES", {"cpu": 2**15})
    monkeypatch.setattr(blocks, "BLOCK_TABLES", 0)
    largest = largest_in_a_step(
        lambda data: gaussian_mixture.program(data, 10, "diagonal"), (data,)
    )
    assert largest <= 5000 * 2  # the data themselves


def test_rows_cost_one_entry_for_each_value():
    items, annotators, labels = (jnp.asarray(RNG.integers(n, size=1000)) for n in (50, 20, 6))

    def program(item, annotator, label):
        confusion = numpyro.param("confusion", jnp.full((20, 4, 6), 1 / 6), constraint=SIMPLEX)
        with numpyro.plate("items", 50):
            truth = numpyro.sample("truth", dist.Categorical(jnp.full(4, 0.25)))
        with numpyro.plate("labels", 1000):
            numpyro.sample("label", dist.Categorical(confusion[annotator, truth[item]]), obs=label)

    assert (
        largest_in_a_step(program, (items, annotators, labels)) <= 1000 * 4
    )  # rows × classes, never × labels


def test_a_run_compiles_once_and_a_second_one_not_at_all():
    compiled: list = []

    def listen(event, duration, **kwargs):
        if (
            event.endswith("backend_compile_duration") and kwargs.get("fun_name") != "jit(stage)"
        ):  # how JAX itself places a constant, once in a process
            compiled.append(kwargs)

    jax.monitoring.register_event_duration_secs_listener(listen)
    heads, key = jnp.array([5.0, 9.0, 8.0, 4.0, 7.0]), jax.random.key(0)
    others, start = jnp.array([5.0, 9.0, 8.0, 4.0, 6.0]), jnp.array([0.3, 0.5])

    def coins(heads):
        bias = numpyro.param("bias", jnp.array([0.6, 0.5]), constraint=UNIT)
        with numpyro.plate("sets", 5):
            coin = numpyro.sample("coin", dist.Categorical(jnp.array([0.5, 0.5])))
            numpyro.sample("heads", dist.Binomial(10, bias[coin]), obs=heads)

    em = EM(coins)
    compiled.clear()
    em.run(key, heads)
    assert len(compiled) <= 1, compiled  # 0 where JAX's own cache has the program
    compiled.clear()
    em.run(key, others)
    em.run(key, others, init_params={"bias": start})
    assert compiled == []


def test_tables_that_many_blocks_look_up_are_exponentiated_once(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_BYTES", {"cpu": 2**10})
    monkeypatch.setattr(fast_forms, "FEWEST_FAST", 1)
    args = tuple(map(jnp.asarray, (DOCUMENT, WORD, COUNT)))
    compiled = EM(topics_of_words).on(*args).compiled
    params = {"share": jnp.asarray(SHARE), "topic": jnp.asarray(TOPIC)}
    arrays = compiled.graph.arrays(params, compiled.prepare(list(args)))
    instance = e_step.instance_of(compiled.graph, arrays)
    cut = blocks.blocks_of(instance)
    assert cut is not None and cut.size >= 4 * cut.rows
    margins = margins_seen(monkeypatch)
    expected = e_step.expected_of(instance)
    plain = e_step.expected_of(instance, plain=True)
    jax.effects_barrier()
    assert margins
    np.testing.assert_allclose(expected.log_partition, plain.log_partition, rtol=1e-13)
    np.testing.assert_allclose(
        ravel_pytree(expected.statistics)[0], ravel_pytree(plain.statistics)[0], rtol=1e-10
    )


def test_statistics_of_one_number_are_one_after_another_in_memory():
    points, weights = RNG.normal(size=50), np.array([0.4, 0.6])
    loc, scale = np.array([-1.0, 0.5]), np.array([0.7, 1.3])

    def program(points):
        params = numpyro.param("loc", jnp.asarray(loc)), numpyro.param("scale", jnp.asarray(scale))
        with numpyro.plate("rows", len(points)):
            z = numpyro.sample("z", dist.Categorical(jnp.asarray(weights)))
            numpyro.sample("x", dist.Normal(*(param[z] for param in params)), obs=points)

    compiled = EM(program).on(jnp.asarray(points)).compiled
    constants = compiled.prepare([jnp.asarray(points)])
    arrays = compiled.graph.arrays({"loc": loc, "scale": scale}, constants)
    closed = jax.make_jaxpr(lambda: e_step.e_step(compiled.graph, arrays, plain=True))()
    products = [eqn for eqn in closed.jaxpr.eqns if eqn.primitive.name == "dot_general"]
    shapes = [tuple(var.aval.shape for var in eqn.invars) for eqn in products]
    assert ((2, 50), (2, 2)) in shapes  # x and x², times their natural parameters
    densities = weights / scale * np.exp(-((points[:, None] - loc) ** 2) / (2 * scale**2))
    log_z = np.log(densities.sum(1) / np.sqrt(2 * np.pi)).sum()
    np.testing.assert_allclose(e_step.e_step(compiled.graph, arrays).log_partition, log_z, 1e-12)
