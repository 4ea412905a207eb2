"""Scans over discrete latents against the joint table: random chains by seed, and the special cases
by name.

`HYPOTHESIS_PROFILE=thorough pytest tests/elimination/test_chains.py` runs 200 random chains; the
default, the first of them. A failure prints the program as a script.
"""

import itertools
import os

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.distributions import biject_to, constraints

from emjax import EM
from emjax.distributions import Select
from emjax.e_step.e_step import e_step
from emjax.e_step.instance import instance_of
from emjax.elimination import crossed
from emjax.elimination.algebra import TableAlgebra
from emjax.graph import symbols
from emjax.numerics import fast_forms
from tests.oracles.brute_force import JointTable, complete_log_likelihood, joint_table
from tests.oracles.by_numpy import evaluated
from tests.oracles.random_chains import CONSTRAINTS, Chain, chain_from_seed, repeated

NUM_CHAINS = 200 if os.environ.get("HYPOTHESIS_PROFILE") == "thorough" else 8
TOLERANCE = {"rtol": 1e-10, "atol": 1e-10}
CHAINS = ("sequential", "checkpointed", "parallel")
FORMS = (
    ("sequential", True),
    ("checkpointed", True),
    ("sequential", False),
    ("checkpointed", False),
    ("parallel", False),
)


pytestmark = pytest.mark.usefixtures("mostly_by_numpy")


def close(actual, expected, **options):
    np.testing.assert_allclose(actual, expected, **{**TOLERANCE, **options})


@pytest.fixture(autouse=True, scope="module")
def free_compiled_programs():
    yield
    jax.clear_caches()


compiled = itertools.count(1)


def chain_and_table(seed: int) -> tuple[Chain, JointTable, np.ndarray | None]:
    """A random chain, the joint table with its multiplicities written out, and which sequence each
    copy is of.
    """
    if next(compiled) % 25 == 0:
        jax.clear_caches()
    chain = chain_from_seed(seed)
    copies, origin = repeated(chain)
    return chain, joint_table(copies.model, copies.params, copies.data), origin


def of_copies(value, chain: Chain, name: str, origin) -> np.ndarray:
    """What is true of a latent's elements, for every copy of its sequence."""
    axis = chain.sequence_axis[name]
    value = np.asarray(value)
    return value if origin is None or axis is None else np.take(value, origin, axis)


def failing(program, what: str) -> dict:
    return {"err_msg": f"{what} of\n{program}"}


@pytest.mark.sampled
@pytest.mark.parametrize("seed", range(NUM_CHAINS))
def test_random_chain_is_brute_force(seed):
    chain, table, origin = chain_and_table(seed)
    em = EM(chain.model, chains=CHAINS[seed % 3])
    at = chain.params, chain.data
    close(em.log_likelihood(*at), table.log_likelihood, **failing(chain, "log_likelihood"))
    posterior, decoded = em.posterior(*at), em.decode(*at)
    assert set(posterior) == set(decoded) == set(table.latents)
    for name, expected in table.posterior.items():
        close(
            of_copies(posterior[name], chain, name, origin),
            expected,
            **failing(chain, f"posterior of {name}"),
        )
    mode = {name: of_copies(value, chain, name, origin) for name, value in decoded.items()}
    close(
        table.complete_log_likelihood_at(mode),
        table.mode_log_likelihood,
        **failing(chain, "decode"),
    )
    pairwise = em.pairwise_posterior(*at)
    assert set(pairwise) >= {name for name in chain.chained if len(posterior[name]) > 1}
    for name in pairwise:
        actual, expected = (
            of_copies(pairwise[name], chain, name, origin),
            table.pairwise_posterior(name),
        )
        close(actual, expected, **failing(chain, f"pairwise posterior of {name}"))


def log_likelihood_and_gradient(chain: Chain):
    """log p(x | params) by brute force, and its gradient in unconstrained coordinates."""
    copies, _ = repeated(chain)
    table = joint_table(copies.model, copies.params, copies.data)
    latents = {
        name: jnp.asarray(latent.support)[table.index[name]]
        for name, latent in table.latents.items()
    }

    def function(unconstrained):
        params = constrained(chain, unconstrained)
        at = jax.vmap(lambda z: complete_log_likelihood(copies.model, params, z, copies.data)[0])
        return jax.nn.logsumexp(at(latents))

    return evaluated(jax.value_and_grad(function), unconstrained(chain))


def expected_statistics_times_tables(chain: Chain, chains: str, is_compiled: bool):
    """log p(x | params) by an E-step, and the gradient of what its expected statistics make of the
    tables: Fisher's identity.
    """
    bound = EM(chain.model, chains=chains).on(chain.data)
    compiled, (params, constants) = bound.compiled, bound.at(chain.params)
    graph = compiled.graph

    def expected(unconstrained):
        in_step = e_step(graph, graph.arrays(params, constants))
        tables = instance_of(
            graph, graph.arrays(constrained(chain, unconstrained), constants)
        ).tables
        products = jax.tree.map(
            lambda t, table: jnp.sum(jax.lax.stop_gradient(t) * table), in_step.statistics, tables
        )
        # constant masks may leave no term at all
        return sum(jax.tree.leaves(products), jnp.zeros(())), in_step.log_partition

    function = jax.grad(expected, has_aux=True)
    at = unconstrained(chain)
    gradient, log_z = jax.jit(function)(at) if is_compiled else evaluated(function, at)
    return log_z, gradient


def transform(chain: Chain, name: str):
    return biject_to(eval(CONSTRAINTS[chain.constraint[name]], {"constraints": constraints}))


def unconstrained(chain: Chain) -> dict:
    return {name: transform(chain, name).inv(value) for name, value in chain.params.items()}


def constrained(chain: Chain, values: dict) -> dict:
    return {name: transform(chain, name)(value) for name, value in values.items()}


@pytest.mark.sampled
@pytest.mark.parametrize("seed", range(NUM_CHAINS // 2))
def test_expected_statistics_of_a_random_chain_are_brute_force(seed, monkeypatch):
    chains, has_probabilities = FORMS[seed % len(FORMS)]
    monkeypatch.setattr(fast_forms, "FEWEST_FAST", 1 if has_probabilities else 2**60)
    if next(compiled) % 25 == 0:
        jax.clear_caches()
    chain = chain_from_seed(1000 + seed)
    expected, expected_gradient = log_likelihood_and_gradient(chain)
    # of the default's four, one in each form of the reverse pass
    is_compiled = seed % 4 in (1, 2)
    actual, gradient = expected_statistics_times_tables(chain, chains, is_compiled)
    close(actual, expected, **failing(chain, "log_likelihood"))
    for name, value in expected_gradient.items():
        close(gradient[name], value, **failing(chain, f"gradient of {name}"))


# What a chain costs
# --------------------------------------------------------------------------------------------------


@pytest.fixture
def orders(monkeypatch) -> list[int]:
    """The orders of the chains that are summed out over time. What is exact only for few elements
    is refused.
    """
    monkeypatch.setattr(symbols, "LARGEST_JOINT", 0)
    monkeypatch.setattr(crossed, "MOST_SPLIT_ELEMENTS", 0)
    found = []

    def chain_summed_out(algebra, chain, multiplicity):
        found.append(chain.order)
        return original(algebra, chain, multiplicity)

    original = TableAlgebra.chain_summed_out
    monkeypatch.setattr(TableAlgebra, "chain_summed_out", chain_summed_out)
    return found


def trace_log_likelihood(model, params, *args):
    """Trace log Z without compiling it."""
    bound = EM(model).on(*args)
    compiled, data = bound.compiled, bound.data
    constants = jax.eval_shape(compiled.graph.prepare, data)
    jax.eval_shape(compiled.pure.log_likelihood, params, constants)


@pytest.mark.sampled
@pytest.mark.parametrize("seed", range(2 * NUM_CHAINS))
def test_random_chain_is_summed_out_over_time(seed, orders):
    chain = chain_from_seed(seed)
    try:
        trace_log_likelihood(chain.model, chain.params, chain.data)
    except (MemoryError, ValueError) as error:
        raise AssertionError(f"enumerated element by element:\n{chain}") from error
    assert max(orders, default=0) <= 2, f"of a higher order than the program:\n{chain}"


def test_a_single_sequence_is_summed_out_over_time(orders):
    def model(x):
        def step(previous, value):
            z = numpyro.sample("z", dist.Categorical(jnp.array([[0.9, 0.1], [0.3, 0.7]])[previous]))
            numpyro.sample("x", dist.Normal(1.0 * z, 1.0), obs=value)
            return z, None

        scan(step, 0, x)

    trace_log_likelihood(model, {}, jnp.zeros(1000))
    assert orders == [1]


def test_a_latent_between_two_steps_is_summed_out_over_time(orders):
    """A latent of a step, in one observation together with the state before."""

    def model(x):
        table, loc = jnp.array([[0.9, 0.1], [0.3, 0.7]]), jnp.array([[0.9, 0.1], [1.3, 0.7]])

        def step(previous, value):
            z = numpyro.sample("z", dist.Categorical(table[previous]))
            w = numpyro.sample("w", dist.Categorical(table[z]))
            numpyro.sample("x", dist.Normal(loc[w, previous], 1.0), obs=value)
            return z, None

        scan(step, jnp.zeros(1, int), x)

    trace_log_likelihood(model, {}, jnp.zeros((100, 1)))
    assert orders == [1]


def test_a_chain_that_goes_on_in_a_second_scan_is_summed_out_over_time(orders):
    def model(x):
        def steps(first, x, suffix):
            def step(previous, value):
                row = jnp.array([[0.9, 0.1], [0.3, 0.7]])[previous]
                z = numpyro.sample(f"z{suffix}", dist.Categorical(row))
                numpyro.sample(f"x{suffix}", dist.Normal(1.0 * z, 1.0), obs=value)
                return z, None

            return scan(step, first, x)[0]

        steps(steps(jnp.zeros(1, int), x[:50], "_early"), x[50:], "_late")

    trace_log_likelihood(model, {}, jnp.zeros((100, 1)))
    assert orders == [1, 1]


# Special cases
# --------------------------------------------------------------------------------------------------

INITIAL = np.array([0.6, 0.1, 0.3])
TRANSITION = np.array([[0.7, 0.2, 0.1], [0.1, 0.5, 0.4], [0.25, 0.0, 0.75]])
EMISSION = np.array([[0.8, 0.2], [0.5, 0.5], [0.1, 0.9]])
SYMBOLS = np.array([[0, 1, 1, 0, 1], [1, 1, 0, 0, 0]]).T  # (time, sequence)
HMM_PARAMS = {
    "initial": jnp.array(INITIAL),
    "transition": jnp.array(TRANSITION),
    "emission": jnp.array(EMISSION),
}


def tables():
    initial = numpyro.param("initial", INITIAL, constraint=constraints.simplex)
    transition = numpyro.param("transition", TRANSITION, constraint=constraints.simplex)
    emission = numpyro.param("emission", EMISSION, constraint=constraints.simplex)
    return initial, transition, emission


def hmm(symbols, seen=None, reverse=False):
    """Sequences side by side in a plate; `seen`: (time, sequence), where they are masked."""
    initial, transition, emission = tables()
    num_steps, num_sequences = symbols.shape

    def step(previous, inputs):
        time, symbol, is_seen = inputs
        first = num_steps - 1 if reverse else 0
        with numpyro.plate("sequences", num_sequences), handlers.mask(mask=is_seen):
            row = jnp.where(time == first, initial, transition[previous])
            state = numpyro.sample("state", dist.Categorical(row))
            numpyro.sample("symbol", dist.Categorical(emission[state]), obs=symbol)
        return state, None

    seen = jnp.ones(symbols.shape, bool) if seen is None else seen
    inputs = jnp.arange(num_steps), jnp.asarray(symbols), seen
    scan(step, jnp.zeros(num_sequences, int), inputs, reverse=reverse)


def forward_backward(symbols):
    """log p(symbols), p(state_t | symbols), p(state_t, state_t+1 | symbols) of one sequence, by
    matrix products.
    """
    forward, backward = [INITIAL * EMISSION[:, symbols[0]]], [np.ones(3)]
    for symbol in symbols[1:]:
        forward.append(forward[-1] @ TRANSITION * EMISSION[:, symbol])
    for symbol in symbols[:0:-1]:
        backward.insert(0, TRANSITION @ (EMISSION[:, symbol] * backward[0]))
    total = forward[-1].sum()
    pairs = [
        forward[t][:, None] * TRANSITION * (EMISSION[:, symbols[t + 1]] * backward[t + 1]) / total
        for t in range(len(symbols) - 1)
    ]
    return (
        np.log(total),
        np.array(forward) * np.array(backward) / total,
        np.reshape(pairs, (-1, 3, 3)),
    )


def assert_brute_force(model, params, *args):
    """The engine's log-likelihood, posterior and mode are those of the joint table; return the
    table.
    """
    table = joint_table(model, params, *args)
    em = EM(model)
    close(em.log_likelihood(params, *args), table.log_likelihood)
    posterior = em.posterior(params, *args)
    assert set(posterior) == set(table.latents)
    for name, expected in table.posterior.items():
        close(posterior[name], expected, err_msg=name)
    close(table.complete_log_likelihood_at(em.decode(params, *args)), table.mode_log_likelihood)
    return table


@pytest.mark.parametrize("num_steps", [1, 2, 5])
def test_hmm_is_its_matrix_products(num_steps):
    symbols = SYMBOLS[:num_steps]
    em = EM(hmm)
    by_hand = [forward_backward(sequence) for sequence in symbols.T]
    close(
        em.log_likelihood(HMM_PARAMS, symbols),
        sum(log_likelihood for log_likelihood, *_ in by_hand),
    )
    close(
        em.posterior(HMM_PARAMS, symbols)["state"],
        np.stack([posterior for _, posterior, _ in by_hand], 1),
    )
    if num_steps > 1:
        close(
            em.pairwise_posterior(HMM_PARAMS, symbols)["state"],
            np.stack([pairs for *_, pairs in by_hand], 1),
        )


def test_an_em_step_of_an_hmm_is_baum_welch():
    by_hand = [forward_backward(sequence) for sequence in SYMBOLS.T]
    posterior, pairs = (
        np.stack([p for _, p, _ in by_hand], 1),
        np.stack([p for *_, p in by_hand], 1).sum((0, 1)),
    )
    emitted = np.stack([posterior[symbol == SYMBOLS].sum(0) for symbol in range(2)], 1)
    em = EM(hmm)
    state, _ = jax.jit(em.update)(em.init(jax.random.key(0), SYMBOLS), SYMBOLS)
    close(state.params["initial"], posterior[0].mean(0))
    close(state.params["transition"], pairs / pairs.sum(1, keepdims=True))
    close(state.params["emission"], emitted / emitted.sum(1, keepdims=True))
    assert state.params["transition"][2, 1] == 0  # a structural zero stays one


def test_masked_steps_change_nothing():
    length = np.array([5, 2])
    seen = np.arange(5)[:, None] < length
    em = EM(hmm)
    short = forward_backward(SYMBOLS[:2, 1])
    close(
        em.log_likelihood(HMM_PARAMS, SYMBOLS, seen), forward_backward(SYMBOLS[:, 0])[0] + short[0]
    )
    posterior = em.posterior(HMM_PARAMS, SYMBOLS, seen)["state"]
    close(posterior[:2, 1], short[1])
    close(posterior[2:, 1], np.full((3, 3), 1 / 3))
    other = np.where(seen, SYMBOLS, 1 - SYMBOLS)
    update = jax.jit(em.update)
    step = [
        update(em.init(jax.random.key(0), x, seen), x, seen)[0].params for x in (SYMBOLS, other)
    ]
    for name in step[0]:
        close(step[0][name], step[1][name])


def test_a_reversed_scan_is_a_scan_of_reversed_data():
    em = EM(hmm)
    forth = em.posterior(HMM_PARAMS, SYMBOLS)["state"]
    back = EM(lambda symbols: hmm(symbols, reverse=True)).posterior(HMM_PARAMS, SYMBOLS[::-1])[
        "state"
    ]
    close(back, forth[::-1])


def test_sequences_without_a_plate_are_those_of_a_plate():
    def bare(symbols):
        initial, transition, emission = tables()

        def step(previous, inputs):
            time, symbol = inputs
            state = numpyro.sample(
                "state", dist.Categorical(jnp.where(time == 0, initial, transition[previous]))
            )
            numpyro.sample("symbol", dist.Categorical(emission[state]), obs=symbol)
            return state, None

        scan(step, jnp.zeros(symbols.shape[1], int), (jnp.arange(len(symbols)), symbols))

    close(EM(bare).log_likelihood(HMM_PARAMS, SYMBOLS), EM(hmm).log_likelihood(HMM_PARAMS, SYMBOLS))
    close(
        EM(bare).posterior(HMM_PARAMS, SYMBOLS)["state"],
        EM(hmm).posterior(HMM_PARAMS, SYMBOLS)["state"],
    )


def test_a_long_chain_with_an_outlier_is_exact():
    """Scaling by the largest emission loses the only state that can explain the next step: a
    left-to-right chain.
    """
    num_states, num_steps = 12, 300
    transition = 0.9 * np.eye(num_states) + 0.1 * np.eye(num_states, k=1)
    transition[-1, -1] = 1.0
    loc = np.arange(num_states) * 40.0
    x = np.repeat(loc, num_steps // num_states)
    x[100], x[200] = 400.0, -300.0

    def model(x):
        loc_ = numpyro.param("loc", loc)

        def step(previous, inputs):
            time, value = inputs
            first = jnp.where(jnp.arange(num_states) == 0, 1.0, 0.0)
            row = jnp.where(time == 0, first, jnp.array(transition)[previous])
            state = numpyro.sample("state", dist.Categorical(row))
            numpyro.sample("x", dist.Normal(loc_[state], 1.0), obs=value)
            return state, None

        scan(step, 0, (jnp.arange(len(x)), x))

    def forward(density):
        log_transition = np.log(
            np.where(transition > 0, transition, 1e-320) * (transition > 0) + 0.0
        )
        message = np.where(np.arange(num_states) == 0, 0.0, -np.inf) + density[0]
        for own in density[1:]:
            message = np.logaddexp.reduce(message[:, None] + log_transition, 0) + own
        return np.logaddexp.reduce(message)

    density = -0.5 * (x[:, None] - loc) ** 2 - 0.5 * np.log(2 * np.pi)
    em = EM(model)
    with np.errstate(divide="ignore"):
        expected = forward(density)
    close(em.log_likelihood({"loc": loc}, x), expected)
    state, objective = jax.jit(em.update)(em.init(jax.random.key(0), x), x)
    close(objective, expected)
    posterior = em.posterior({"loc": loc}, x)["state"]
    close(state.params["loc"], posterior.T @ x / posterior.sum(0))


@pytest.mark.parametrize("temperature", [0.5, 3.0])
def test_a_tempered_posterior_is_the_joint_table_raised_to_a_power(temperature):
    symbols = SYMBOLS[:3]
    table = joint_table(hmm, HMM_PARAMS, symbols)
    power = table.complete_log_likelihood / temperature
    weight = np.exp(power - np.logaddexp.reduce(power))
    expected = np.stack([np.tensordot(weight, table.index["state"] == k, 1) for k in range(3)], -1)
    close(EM(hmm, e_step=temperature).posterior(HMM_PARAMS, symbols)["state"], expected)


def test_a_mask_around_a_scan_is_a_mask_of_every_step():
    kept = jnp.array([True, False])

    def model(symbols):
        with handlers.mask(mask=kept):
            hmm(symbols)

    table = assert_brute_force(model, HMM_PARAMS, SYMBOLS[:3])
    close(table.log_likelihood, forward_backward(SYMBOLS[:3, 0])[0])


def test_a_mask_around_a_scan_may_vary_in_time():
    seen = jnp.array([[True, True], [True, False], [False, True]])

    def model(symbols):
        with handlers.mask(mask=seen):
            hmm(symbols)

    assert_brute_force(model, HMM_PARAMS, SYMBOLS[:3])


def factorial(x):
    """Two chains, and a latent of every step that reads both."""
    slow, fast = jnp.array([[0.9, 0.1], [0.2, 0.8]]), jnp.array([[0.3, 0.7], [0.6, 0.4]])
    either = jnp.array([[[0.5, 0.5], [0.9, 0.1]], [[0.2, 0.8], [0.4, 0.6]]])

    def step(carry, value):
        a = numpyro.sample("a", dist.Categorical(slow[carry[0]]))
        b = numpyro.sample("b", dist.Categorical(fast[carry[1]]))
        c = numpyro.sample("c", dist.Bernoulli(either[a, b][..., 1]))
        numpyro.sample("x", dist.Normal(a - 0.5 * b + 2.0 * c, 0.7), obs=value)
        return (a, b), None

    scan(step, (0, 0), x)


@pytest.mark.parametrize("given", [("a",), ("b",), ("c",), ("a", "c"), ("a", "b", "c")])
def test_conditioning_on_part_of_a_chain_is_observing_it(given):
    values = {
        "a": jnp.array([0, 1, 1, 0]),
        "b": jnp.array([1, 1, 0, 0]),
        "c": jnp.array([0, 0, 1, 1]),
    }
    x = jnp.array([0.3, 1.2, 2.0, -0.4])
    model = handlers.condition(factorial, {name: values[name] for name in given})
    table = assert_brute_force(model, {}, x)
    assert set(table.latents) == {"a", "b", "c"} - set(given)


def test_states_known_at_some_steps():
    labels, known = jnp.array([2, 0, 0, 1, 0]), jnp.array([True, False, False, True, False])

    def model(symbols):
        _, transition, emission = tables()

        def step(previous, inputs):
            symbol, label, is_known = inputs
            state = numpyro.sample(
                "state", dist.Categorical(transition[previous]), obs=label, obs_mask=is_known
            )
            numpyro.sample("symbol", dist.Categorical(emission[state]), obs=symbol)
            return state, None

        scan(step, 0, (symbols, labels, known))

    assert_brute_force(model, HMM_PARAMS, SYMBOLS[:, 0])


def test_a_scan_without_a_carry_is_a_plate():
    x = jnp.array([0.3, -1.2, 2.5])

    def with_scan(x):
        loc = numpyro.param("loc", jnp.array([-1.0, 1.0]))

        def step(carry, value):
            z = numpyro.sample("z", dist.Categorical(jnp.array([0.3, 0.7])))
            numpyro.sample("x", dist.Normal(loc[z], 1.0), obs=value)
            return carry, None

        scan(step, None, x)

    def with_plate(x):
        loc = numpyro.param("loc", jnp.array([-1.0, 1.0]))
        with numpyro.plate("rows", 3):
            z = numpyro.sample("z", dist.Categorical(jnp.array([0.3, 0.7])))
            numpyro.sample("x", dist.Normal(loc[z], 1.0), obs=x)

    updated = [
        jax.jit(em.update)(em.init(jax.random.key(0), x), x)
        for em in (EM(with_scan), EM(with_plate))
    ]
    close(updated[0][1], updated[1][1])
    close(updated[0][0].params["loc"], updated[1][0].params["loc"])


def test_a_chain_that_goes_on_in_a_second_scan():
    def model(symbols):
        _, transition, emission = tables()

        def steps(first, symbols, suffix):
            def step(previous, symbol):
                state = numpyro.sample(f"state{suffix}", dist.Categorical(transition[previous]))
                numpyro.sample(f"symbol{suffix}", dist.Categorical(emission[state]), obs=symbol)
                return state, state

            return scan(step, first, symbols)

        last, _ = steps(0, symbols[:2], "_early")
        steps(last, symbols[2:], "_late")

    assert_brute_force(model, HMM_PARAMS, SYMBOLS[:, 0])


def test_a_scan_over_the_states_of_another():
    def model(symbols):
        _, transition, emission = tables()
        slow = jnp.array(
            [[[0.9, 0.1], [0.5, 0.5], [0.3, 0.7]], [[0.2, 0.8], [0.6, 0.4], [0.1, 0.9]]]
        )

        def below(previous, _):
            state = numpyro.sample("state", dist.Categorical(transition[previous]))
            return state, state

        def above(previous, inputs):
            state, symbol = inputs
            phase = numpyro.sample("phase", dist.Categorical(slow[previous, state]))
            numpyro.sample("symbol", dist.Categorical(emission[phase]), obs=symbol)
            return phase, None

        _, states = scan(below, 0, None, length=len(symbols))
        scan(above, 0, (states, symbols))

    assert_brute_force(model, HMM_PARAMS, SYMBOLS[:4, 0])


def test_a_latent_that_the_carry_hands_on_unchanged():
    def model(x):
        table = jnp.array([[[0.9, 0.1], [0.2, 0.8]], [[0.5, 0.5], [0.6, 0.4]]])
        with numpyro.plate("sequences", 2):
            kind = numpyro.sample("kind", dist.Categorical(jnp.array([0.3, 0.7])))

        def step(carry, value):
            kind, previous = carry
            with numpyro.plate("sequences", 2):
                z = numpyro.sample("z", dist.Categorical(table[kind, previous]))
                numpyro.sample("x", dist.Normal(2.0 * z, 1.0), obs=value)
            return (kind, z), None

        scan(step, (kind, jnp.zeros(2, int)), x)

    assert_brute_force(model, {}, jnp.array([[0.3, 1.0], [1.2, 0.1], [2.0, -0.4]]))


def test_a_moving_average_in_the_carry_that_a_parameter_drives():
    def model(x):
        rate = numpyro.param("rate", 0.4, constraint=constraints.unit_interval)
        loc = numpyro.param("loc", jnp.array([-1.0, 1.0]))

        def step(carry, value):
            previous, average = carry
            z = numpyro.sample("z", dist.Categorical(jnp.array([[0.8, 0.2], [0.3, 0.7]])[previous]))
            numpyro.sample("x", dist.Normal(loc[z] + average, 1.0), obs=value)
            return (z, rate * average + (1 - rate) * value), None

        (last, average), _ = scan(step, (0, 0.0), x)
        numpyro.sample("end", dist.Normal(loc[last] + average, 1.0), obs=0.7)

    x = jnp.array([0.3, 1.2, 2.0, -0.4])
    params = {"rate": jnp.array(0.3), "loc": jnp.array([-0.5, 1.5])}
    assert_brute_force(model, params, x)
    objective = EM(model).run(jax.random.key(0), x).objective
    assert (np.diff(objective) > -1e-12).all()


def test_a_continuous_latent_of_every_step_is_estimated_under_its_prior():
    def model(x):
        def step(carry, value):
            previous, level = carry
            z = numpyro.sample("z", dist.Categorical(jnp.array([[0.8, 0.2], [0.3, 0.7]])[previous]))
            level = numpyro.sample("level", dist.Normal(level, 0.5))
            numpyro.sample("x", dist.Normal(level + 2.0 * z, 1.0), obs=value)
            return (z, level), None

        scan(step, (0, 0.0), x)

    x = jnp.array([0.3, 1.2, 2.0, -0.4])
    params = {"level": jnp.array([0.1, -0.3, 0.4, 0.2])}
    table = assert_brute_force(model, params, x)
    em = EM(model)
    start = em.init(jax.random.key(0), x)
    assert start.params["level"].shape == (4,)
    state = type(start)(params, start.optimizer)
    close(jax.jit(em.update)(state, x)[1], table.log_likelihood + table.log_prior)
    with pytest.warns(UserWarning, match="'level' has as many values"):
        result = em.run(jax.random.key(0), x)
    best = joint_table(model, result.params, x)
    close(result.objective[-1], best.log_likelihood + best.log_prior)
    assert (np.diff(result.objective) > -1e-12).all()


def test_a_latent_of_every_word_of_every_step():
    """Chains of documents; within a step each word has a topic of its own."""
    words = jnp.array(
        [[[0, 1], [2, 2]], [[1, 1], [0, 2]], [[2, 0], [0, 0]]]
    )  # (time, document, word)

    def model(words):
        theme_table = jnp.array([[0.9, 0.1], [0.2, 0.8]])
        topic_table = jnp.array([[0.7, 0.3], [0.1, 0.9]])
        word_table = numpyro.param("word", jnp.full((2, 3), 1 / 3), constraint=constraints.simplex)

        def step(previous, words):
            with numpyro.plate("documents", words.shape[0], dim=-2):
                theme = numpyro.sample("theme", dist.Categorical(theme_table[previous]))
                with numpyro.plate("words", words.shape[1], dim=-1):
                    topic = numpyro.sample("topic", dist.Categorical(topic_table[theme]))
                    numpyro.sample("word_", dist.Categorical(word_table[topic]), obs=words)
            return theme, None

        scan(step, jnp.zeros((words.shape[1], 1), int), words)

    params = {"word": jnp.array([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]])}
    assert_brute_force(model, params, words[:2])


def test_chains_that_read_a_chain_shared_by_all():
    """A state of the market, and one of each stock that reads it."""
    x = jnp.array([[0.3, 1.0], [1.2, 0.1], [2.0, -0.4]])

    def model(x):
        market_table = jnp.array([[0.9, 0.1], [0.2, 0.8]])
        stock_table = jnp.array([[[0.7, 0.3], [0.4, 0.6]], [[0.5, 0.5], [0.1, 0.9]]])

        def step(carry, value):
            market, stock = carry
            market = numpyro.sample("market", dist.Categorical(market_table[market]))
            with numpyro.plate("stocks", 2):
                stock = numpyro.sample("stock", dist.Categorical(stock_table[market, stock]))
                numpyro.sample("x", dist.Normal(1.5 * stock, 1.0), obs=value)
            return (market, stock), None

        scan(step, (0, jnp.zeros(2, int)), x)

    assert_brute_force(model, {}, x)


def test_a_third_order_chain():
    rows = np.random.default_rng(0).dirichlet(np.ones(2), size=(2, 2, 2)).round(3)

    def model(x):
        def step(carry, value):
            one, two, three = carry
            z = numpyro.sample("z", dist.Bernoulli(jnp.array(rows)[one, two, three, 0]))
            numpyro.sample("x", dist.Normal(z + 0.5 * two, 0.6), obs=value)
            return (z, one, two), None

        scan(step, (0, 0, 0), x)

    for length in (2, 5):
        assert_brute_force(model, {}, jnp.array([0.3, 1.0, 1.2, 0.1, 2.0, -0.4])[:length])


def test_a_distribution_that_the_state_selects():
    def model(x):
        rate = numpyro.param("rate", 1.0, constraint=constraints.positive)

        def step(previous, value):
            z = numpyro.sample("z", dist.Categorical(jnp.array([[0.8, 0.2], [0.3, 0.7]])[previous]))
            law = Select(z, [dist.Exponential(rate), dist.Gamma(3.0, 2.0)])
            numpyro.sample("x", law, obs=value)
            return z, None

        scan(step, 0, x)

    assert_brute_force(model, {"rate": jnp.array(0.8)}, jnp.array([0.3, 1.0, 1.2, 0.1]))


def test_a_parameter_declared_in_a_step():
    def model(x):
        def step(previous, value):
            loc = numpyro.param("loc", jnp.array([-1.0, 1.0]))
            z = numpyro.sample("z", dist.Categorical(jnp.array([[0.8, 0.2], [0.3, 0.7]])[previous]))
            numpyro.sample("x", dist.Normal(loc[z], 1.0), obs=value)
            return z, None

        scan(step, 0, x)

    assert_brute_force(model, {"loc": jnp.array([-0.5, 0.8])}, jnp.array([0.3, 1.0, 1.2]))


@pytest.mark.parametrize("chains", CHAINS)
def test_an_emission_that_an_input_picks(chains):
    def model(x, kind):
        loc = numpyro.param("loc", jnp.zeros((2, 2)))

        def step(previous, inputs):
            value, kind = inputs
            with numpyro.plate("sequences", 2):
                z = numpyro.sample(
                    "z", dist.Categorical(jnp.array([[0.9, 0.1], [0.3, 0.7]])[previous])
                )
                numpyro.sample("x", dist.Normal(loc[z, kind], 1.0), obs=value)
            return z, None

        scan(step, jnp.zeros(2, int), (x, kind))

    at = (
        {"loc": jnp.array([[-1.0, 1.3], [0.2, 0.3]])},
        jnp.array([[0.3, 1.0], [1.2, 0.1], [2.0, -0.4]]),
        jnp.array([[1, 0], [1, 1], [0, 1]]),
    )
    close(EM(model, chains=chains).log_likelihood(*at), joint_table(model, *at).log_likelihood)


@pytest.mark.parametrize("chains", CHAINS)
def test_copies_of_one_sequence(chains):
    def model(x, counts):
        loc = numpyro.param("loc", jnp.zeros(2))

        def step(previous, value):
            with numpyro.plate("sequences", x.shape[1]), handlers.scale(scale=counts):
                z = numpyro.sample(
                    "z", dist.Categorical(jnp.array([[0.9, 0.1], [0.3, 0.7]])[previous])
                )
                numpyro.sample("x", dist.Normal(loc[z], 1.0), obs=value)
            return z, None

        scan(step, jnp.zeros(x.shape[1], int), x)

    params, x = {"loc": jnp.array([-1.0, 1.3])}, jnp.array([[0.3], [1.2], [2.0]])
    once = joint_table(model, params, x, jnp.ones(1)).log_likelihood
    close(EM(model, chains=chains).log_likelihood(params, x, jnp.array([3.0])), 3 * once)


def test_an_observation_of_the_first_and_the_last_state():
    def model(x, y):
        def step(previous, value):
            with numpyro.plate("sequences", 2):
                z = numpyro.sample(
                    "z", dist.Categorical(jnp.array([[0.9, 0.1], [0.3, 0.7]])[previous])
                )
                numpyro.sample("x", dist.Normal(1.0 * z, 1.0), obs=value)
            return z, z

        last, states = scan(step, jnp.zeros(2, int), x)
        with numpyro.plate("sequences", 2):
            numpyro.sample("y", dist.Normal(2.0 * states[0] * last, 1.0), obs=y)

    x = jnp.array([[0.3, 1.0], [1.2, 0.1], [2.0, -0.4], [0.2, 0.9]])
    assert_brute_force(model, {}, x, jnp.array([1.7, 0.3]))


# Errors
# --------------------------------------------------------------------------------------------------


def test_a_carry_that_accumulates_a_latent_is_refused():
    def model(x):
        def step(count, value):
            z = numpyro.sample("z", dist.Bernoulli(0.4))
            numpyro.sample("x", dist.Normal(count + z, 1.0), obs=value)
            return count + z, None

        scan(step, 0, x)

    with pytest.raises(ValueError, match="accumulates latent 'z'"):
        EM(model).log_likelihood({}, jnp.array([0.1, 1.3]))


def test_data_of_unequal_lengths_are_refused():
    def model(x, y):
        def step(previous, inputs):
            z = numpyro.sample("z", dist.Bernoulli(jnp.array([0.2, 0.7])[previous]))
            numpyro.sample("x", dist.Normal(z + inputs[1], 1.0), obs=inputs[0])
            return z, None

        scan(step, 0, (x, y))

    with pytest.raises(ValueError):
        EM(model).log_likelihood({}, jnp.zeros(3), jnp.zeros(5))
    with pytest.raises(ValueError):
        EM(model).log_likelihood({}, jnp.zeros(5), jnp.zeros(3))


def test_a_missing_plate_is_named():
    def model(x):
        def step(previous, value):
            z = numpyro.sample("z", dist.Bernoulli(jnp.array([0.2, 0.7])[previous]))
            numpyro.sample("x", dist.Normal(z, 1.0), obs=value)
            return z, None

        scan(step, 0, x)

    message = (
        r"Site 'x': .* A plate is missing: put 'z' and 'x' inside\n    with "
        r"numpyro.plate\('rows', 2\)"
    )
    with pytest.raises(ValueError, match=message):
        EM(model).log_likelihood({}, jnp.zeros((3, 2)))


def test_a_carry_of_another_shape_is_refused():
    def model(x):
        def step(previous, value):
            z = numpyro.sample("z", dist.Bernoulli(jnp.array([0.2, 0.7])[previous]).expand([2]))
            numpyro.sample("x", dist.Normal(z, 1.0), obs=value)
            return z, None

        scan(step, 0, x)

    with pytest.raises(ValueError, match=r"carry of shape \(\) and returns one of shape \(2,\)"):
        EM(model).log_likelihood({}, jnp.zeros((3, 2)))
