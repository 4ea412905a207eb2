"""M-steps of programs that are linear in Gaussian latents: what the plan says, and that Q has its
maximum there.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan
from numpyro.distributions import constraints

from emjax import EM
from emjax.e_step.e_step import e_step
from emjax.m_step.objective import expected_log_likelihood

ROWS, COLUMNS = 24, 4
NUMBERS = np.random.default_rng(8)
X = jnp.asarray(NUMBERS.normal(size=(ROWS, 1)) + NUMBERS.normal(size=(ROWS, COLUMNS)))
LOWER = np.tril_indices(COLUMNS, 0, 2)
POSITIVE = constraints.positive


def triangular_factors(x):
    """Factors of each component; the loadings are lower-triangular, with a prior on each."""
    with numpyro.plate("components", 2):
        law = dist.Normal(jnp.array([0.5, -0.5])[:, None], jnp.ones(len(LOWER[0]))).to_event(1)
        free = numpyro.sample("free", law)
    loadings = jnp.zeros((2, COLUMNS, 2)).at[:, LOWER[0], LOWER[1]].set(free)
    mean = numpyro.param("mean", jnp.zeros((2, COLUMNS)).at[1].set(1.0))
    noise = numpyro.param("noise", jnp.ones((2, COLUMNS)), constraint=POSITIVE)
    with numpyro.plate("rows", ROWS):
        z = numpyro.sample("z", dist.Categorical(jnp.array([0.4, 0.6])))
        factor = numpyro.sample("factor", dist.Normal(0, 1).expand([2]).to_event(1))
        location = mean[z] + (loadings[z] * factor[:, None]).sum(-1)
        numpyro.sample("x", dist.Normal(location, noise[z]).to_event(1), obs=x)


def state_space(x):
    """The same matrix moves states and is seen in the data; its first row is known."""
    free = numpyro.param("free", jnp.array([0.1, 0.5]))
    matrix = jnp.array([[0.8, 0.1], [0.0, 0.0]]).at[1].set(free)
    shift = numpyro.param("shift", jnp.zeros(2))
    moves = numpyro.param("moves", jnp.ones(2), constraint=POSITIVE)
    noise = numpyro.param("noise", 1.0, constraint=POSITIVE)
    first = numpyro.param("first", jnp.zeros(2))
    state = numpyro.sample("state", dist.Normal(first, 1.0).to_event(1))

    def step(state, row):
        state = numpyro.sample("states", dist.Normal(matrix @ state, moves).to_event(1))
        law = dist.Normal(matrix @ state + shift, noise).to_event(1)
        numpyro.sample("x", law, obs=row)
        return state, None

    scan(step, state, x[:, :2])


FACTORS, STATES = {"factor"}, {"state", "states"}
CASES = [
    (triangular_factors, FACTORS, (), {"free", "mean"}, {"noise"}),
    (triangular_factors, FACTORS, ("free",), set(), {"mean", "noise"}),
    (state_space, STATES, (), {"free", "shift"}, {"first", "moves", "noise"}),
]


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("program", "latents", "fixed", "jointly", "closed"),
    CASES,
    ids=[
        f"{program.__name__}, {', '.join(fixed) or 'none'} fixed" for program, _, fixed, *_ in CASES
    ],
)
def test_an_m_step_goes_to_the_maximum_of_q(program, latents, fixed, jointly, closed):
    em = EM(program, integrate=latents, fixed=fixed)
    plan = em.plan(X)
    methods = {p.name: p.method for p in plan.parameters}
    expected = dict.fromkeys(jointly, "least squares") | dict.fromkeys(closed, "closed form")
    assert methods == expected | dict.fromkeys(fixed, "held")
    compiled = em.on(X).compiled
    graph, maximizers = compiled.graph, compiled.maximizers

    params = em.init(jax.random.key(0), X).params
    constants = graph.prepare([X])
    expected = jax.jit(lambda params: e_step(graph, graph.arrays(params, constants)).statistics)
    statistics = expected(params)

    @jax.jit
    def slope_of_q(params):
        return jax.grad(expected_log_likelihood, 1)(graph, params, constants, statistics)

    for maximizer in maximizers:
        update, before = jax.jit(maximizer.update), slope_of_q(params)
        values, _ = update(params, maximizer.init(params), constants, statistics)
        params = params | values
        after = slope_of_q(params)
        for name in set(maximizer.names) - set(fixed):
            assert np.abs(before[name]).max() > 1e-3
            np.testing.assert_allclose(after[name], 0, atol=1e-9)
