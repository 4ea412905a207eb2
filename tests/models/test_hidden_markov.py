"""Hidden Markov models: EM beside hmmlearn and beside the forward algorithm, on sequences of
several lengths.

hmmlearn adds priors by default. Its Dirichlet priors of one are none; its Gaussian ones are off
where `covars_prior` and `covars_weight` are zero. Its `GMMHMM` takes the new variances about the
*old* means, which maximizes nothing: they exceed ours by the square of what the mean moved.
"""

from dataclasses import dataclass, replace
from functools import cache, cached_property

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.distributions import biject_to, constraints

from emjax import EM
from emjax.models import hidden_markov, mixture_emission_hmm

hmm = pytest.importorskip("hmmlearn.hmm")

NUM_STEPS = 30
NUM_STATES = 3
LENGTHS = np.array([40, 25, 1, 33])
SHAPE = (max(LENGTHS), len(LENGTHS))
HMMLEARN_NAMES = {
    "initial": "startprob_",
    "transition": "transmat_",
    "emission": "emissionprob_",
    "rate": "lambdas_",
    "weights": "weights_",
    "loc": "means_",
    "scale": "covars_",
    "covariance": "covars_",
}


@pytest.fixture(autouse=True, scope="module")
def free_compiled_programs():
    yield
    jax.clear_caches()


def end_to_end(data):
    """Return the data as hmmlearn reads them: one sequence after the other, (row, feature)."""
    return np.concatenate([data[:length, n] for n, length in enumerate(LENGTHS)]).reshape(
        sum(LENGTHS), -1
    )


@dataclass(frozen=True, eq=False)
class Chain:
    """A program on four sequences, from one start, and hmmlearn's class for it."""

    program: object
    args: tuple
    start: dict
    library: object

    @cached_property
    def em(self):
        return EM(self.program)

    @property
    def params(self):
        return {name: jnp.asarray(value) for name, value in self.start.items()}

    @cached_property
    def rows(self):
        return end_to_end(self.args[0])

    def hmmlearn(self, params=None):
        """Return hmmlearn's model at these parameters, ours at the start if none are given."""
        model = self.library()
        for name, value in (self.start if params is None else params).items():
            value = np.array(value, float)
            value = value**2 if name == "scale" else value[:, None] if name == "rate" else value
            setattr(model, HMMLEARN_NAMES[name], value)
        model.n_features = 4 if "emission" in self.start else self.rows.shape[1]
        return model

    def in_our_words(self, model):
        """Return the parameters of hmmlearn's model in the words of ours."""
        found = {name: np.array(getattr(model, HMMLEARN_NAMES[name])) for name in self.start}
        if "scale" in found:
            variances = found["scale"]  # of a diagonal GaussianHMM as matrices
            diagonal = variances.ndim == self.start["scale"].ndim
            found["scale"] = np.sqrt(
                variances if diagonal else np.diagonal(variances, axis1=-2, axis2=-1)
            )
        if "rate" in found:
            found["rate"] = found["rate"][:, 0]
        return found


def trajectory(em, start, *args, num_steps=NUM_STEPS):
    """Return the parameters after each of the steps 1 … num_steps."""
    data, lengths, *sizes = args
    state = replace(
        em.init(jax.random.key(0), *args),
        params={name: jnp.asarray(value) for name, value in start.items()},
    )
    found = []
    for _ in range(num_steps):
        state = compiled_update(em, *sizes)(state, data, lengths)
        found.append({name: np.asarray(value) for name, value in state.params.items()})
    return found


@cache
def compiled_update(em, *sizes):
    """Return `em.update`, compiled once for all tests."""
    return jax.jit(lambda state, data, lengths: em.update(state, data, lengths, *sizes)[0])


def assert_close(actual, expected, tolerance=1e-8):
    assert set(actual) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(
            actual[name], value, rtol=tolerance, atol=tolerance, err_msg=name
        )


def states_drawn(rng, num_states=NUM_STATES):
    """Return states (time, sequence) that last about five steps."""
    return np.cumsum(rng.uniform(size=SHAPE) < 0.2, axis=0) % num_states


def start_of(rng, num_states=NUM_STATES):
    return {
        "initial": rng.dirichlet(np.ones(num_states)),
        "transition": rng.dirichlet(np.ones(num_states), size=num_states),
    }


def plain(library, **settings):
    """Return a constructor of hmmlearn's model: one step a fit, from the parameters that it has."""
    return lambda: library(NUM_STATES, n_iter=1, tol=-np.inf, init_params="", **settings)


def categorical_chain():
    rng = np.random.default_rng(1)
    data = (states_drawn(rng) + (rng.uniform(size=SHAPE) < 0.3)) % 4
    start = start_of(rng) | {"emission": rng.dirichlet(np.ones(4), size=NUM_STATES)}
    library = plain(hmm.CategoricalHMM, n_features=4)
    return Chain(hidden_markov.categorical_program, (data, LENGTHS, NUM_STATES, 4), start, library)


def poisson_chain():
    rng = np.random.default_rng(2)
    data = rng.poisson(np.array([2.0, 6.0, 15.0])[states_drawn(rng)])
    start = start_of(rng) | {"rate": np.array([3.0, 5.0, 12.0])}
    return Chain(
        hidden_markov.poisson_program, (data, LENGTHS, NUM_STATES), start, plain(hmm.PoissonHMM)
    )


def gaussian_chain(covariance):
    rng = np.random.default_rng(3)
    centers = np.array([[-1.0, 0.5], [1.5, -0.7], [0.2, 2.0]])
    data = centers[states_drawn(rng)] + rng.normal(size=(*SHAPE, 2)) * [0.6, 0.9]
    root = rng.normal(size=(NUM_STATES, 2, 2))
    full = root @ root.swapaxes(-1, -2) + np.eye(2)
    spread = (
        {"covariance": full}
        if covariance == "full"
        else {"scale": rng.uniform(0.5, 2.0, size=(NUM_STATES, 2))}
    )
    start = start_of(rng) | {"loc": centers + rng.normal(size=(NUM_STATES, 2)), **spread}
    library = plain(
        hmm.GaussianHMM,
        covariance_type="full" if covariance == "full" else "diag",
        covars_prior=0,
        covars_weight=0,
    )
    return Chain(
        hidden_markov.gaussian_program, (data, LENGTHS, NUM_STATES, covariance), start, library
    )


CHAINS = {
    "categorical": categorical_chain(),
    "Poisson": poisson_chain(),
    "diagonal": gaussian_chain("diagonal"),
    "full": gaussian_chain("full"),
}
every_chain = pytest.mark.parametrize("chain", CHAINS.values(), ids=CHAINS.keys())


class StartedGMMHMM(hmm.GMMHMM):
    """hmmlearn's model with its default priors, which are none, and without its k-means."""

    def _init(self, X, lengths=None):
        self._init_covar_priors()
        self._fix_priors_shape()


def mixture_chain():
    rng = np.random.default_rng(4)
    state = states_drawn(rng, 2)
    centers = np.array([[[-2.0, 0.5], [2.5, -0.7]], [[0.2, 3.0], [-0.5, -3.0]]])
    data = centers[state, rng.integers(2, size=SHAPE)] + rng.normal(size=(*SHAPE, 2))
    start = start_of(rng, 2) | {
        "weights": rng.dirichlet(np.ones(2), size=2),
        "loc": centers + rng.normal(size=(2, 2, 2)),
        "scale": rng.uniform(1.0, 2.0, size=(2, 2, 2)),
    }

    def library():
        return StartedGMMHMM(2, 2, covariance_type="diag", n_iter=1, tol=-np.inf, init_params="")

    return Chain(mixture_emission_hmm.program, (data, LENGTHS, 2, 2), start, library)


MIXTURE = mixture_chain()


# ---------------------------------------------------------------- hmmlearn


@pytest.mark.sampled
@every_chain
def test_em_is_the_baum_welch_of_hmmlearn(chain):
    model = chain.hmmlearn()
    for found in trajectory(chain.em, chain.start, *chain.args):
        model.fit(chain.rows, LENGTHS)
        assert_close(found, chain.in_our_words(model))
    assert all(np.abs(found[name] - chain.start[name]).max() > 0.05 for name in found)


def test_em_with_mixture_emissions_is_that_of_hmmlearn_but_for_its_variances():
    before = MIXTURE.start
    for found in trajectory(MIXTURE.em, MIXTURE.start, *MIXTURE.args):
        expected = MIXTURE.in_our_words(MIXTURE.hmmlearn(before).fit(MIXTURE.rows, LENGTHS))
        about_the_old_mean = np.sqrt(found["scale"] ** 2 + (found["loc"] - before["loc"]) ** 2)
        assert_close(found | {"scale": about_the_old_mean}, expected)
        before = found
    assert all(np.abs(found[name] - MIXTURE.start[name]).max() > 0.05 for name in found)


EVERY = CHAINS | {"mixture": MIXTURE}


@pytest.mark.sampled
@pytest.mark.parametrize("chain", EVERY.values(), ids=EVERY.keys())
def test_likelihood_posterior_and_best_path_are_those_of_hmmlearn(chain):
    model = chain.hmmlearn()
    np.testing.assert_allclose(
        chain.em.log_likelihood(chain.params, *chain.args),
        model.score(chain.rows, LENGTHS),
        rtol=1e-12,
    )
    posterior = np.asarray(chain.em.posterior(chain.params, *chain.args)["state"])
    assert posterior.shape == (*SHAPE, len(chain.start["initial"]))
    np.testing.assert_allclose(
        end_to_end(posterior), model.predict_proba(chain.rows, LENGTHS), rtol=1e-9, atol=1e-12
    )


@every_chain
def test_decoding_is_the_viterbi_path_of_hmmlearn(chain):
    decoded = np.asarray(chain.em.decode(chain.params, *chain.args)["state"])
    assert decoded.shape == SHAPE
    np.testing.assert_array_equal(
        end_to_end(decoded)[:, 0], chain.hmmlearn().decode(chain.rows, LENGTHS)[1]
    )


def test_hard_em_is_viterbi_training():
    chain = CHAINS["Poisson"]
    data, rate = chain.rows[:, 0], dict(chain.start)
    firsts = np.concatenate([[0], np.cumsum(LENGTHS)[:-1]])
    inside = np.setdiff1d(np.arange(len(data)), firsts)
    params = chain.start
    for found in trajectory(
        EM(chain.program, e_step="hard"), chain.start, *chain.args, num_steps=10
    ):
        _, path = chain.hmmlearn(params).decode(chain.rows, LENGTHS)
        moves = np.zeros((NUM_STATES, NUM_STATES))
        np.add.at(moves, (path[inside - 1], path[inside]), 1)
        assert moves.sum(axis=1).all()
        params = {
            "initial": np.bincount(path[firsts], minlength=NUM_STATES) / len(firsts),
            "transition": moves / moves.sum(axis=1, keepdims=True),
            "rate": np.array([data[path == k].mean() for k in range(NUM_STATES)]),
        }
        assert_close(found, params, 1e-12)
    assert np.abs(params["rate"] - rate["rate"]).max() > 0.5


# ---------------------------------------------------------------- the definition


def forward_log_likelihood(params, data, lengths):
    """Return log p(x | params) by the forward algorithm in JAX."""

    def of_one(x, length):
        def step(before, now):
            t, log_b = now
            moved = (
                jax.scipy.special.logsumexp(before[:, None] + jnp.log(params["transition"]), axis=0)
                + log_b
            )
            return jnp.where(t < length, moved, before), None

        log_b = jax.vmap(lambda x: log_density(params, x))(x)
        first = jnp.log(params["initial"]) + log_b[0]
        return jax.scipy.special.logsumexp(
            jax.lax.scan(step, first, (jnp.arange(1, len(x)), log_b[1:]))[0]
        )

    return jax.vmap(of_one, in_axes=(1, 0))(data, lengths).sum()


def log_density(params, x):
    """Return log p(x | state) for every state."""
    match params:
        case {"emission": emission}:
            return jnp.log(emission[:, x])
        case {"covariance": covariance, "loc": loc}:
            return jax.scipy.stats.multivariate_normal.logpdf(x, loc, covariance)
        case {"weights": weights, "loc": loc, "scale": scale}:
            components = jax.scipy.stats.norm.logpdf(x, loc, scale).sum(-1)
            return jax.scipy.special.logsumexp(jnp.log(weights) + components, axis=-1)


LAWS = {
    "initial": constraints.simplex,
    "transition": constraints.simplex,
    "emission": constraints.simplex,
    "weights": constraints.simplex,
    "loc": constraints.real,
    "scale": constraints.positive,
    "covariance": constraints.positive_definite,
}


@pytest.mark.sampled
@pytest.mark.parametrize(
    "chain",
    [CHAINS["categorical"], CHAINS["full"], MIXTURE],
    ids=["categorical", "full", "mixture"],
)
def test_the_likelihood_and_its_slope_are_those_of_the_forward_algorithm(chain):
    bijections = {name: biject_to(LAWS[name]) for name in chain.start}
    rng = np.random.default_rng(5)
    point = jax.jit(
        lambda params: {name: bijections[name].inv(value) for name, value in params.items()}
    )(chain.params)
    point = {
        name: np.asarray(value) + 0.3 * rng.normal(size=value.shape)
        for name, value in point.items()
    }

    @jax.jit
    def constrained(unconstrained):
        return {name: bijections[name](value) for name, value in unconstrained.items()}

    actual, slope = jax.value_and_grad(
        lambda u: chain.em.log_likelihood(constrained(u), *chain.args)
    )(point)
    data, lengths = map(jnp.asarray, chain.args[:2])
    expected, forward = jax.jit(
        jax.value_and_grad(lambda u: forward_log_likelihood(constrained(u), data, lengths))
    )(point)
    np.testing.assert_allclose(actual, expected, rtol=1e-12)
    for name, value in forward.items():
        np.testing.assert_allclose(slope[name], value, rtol=1e-9, atol=1e-9, err_msg=name)


@pytest.mark.parametrize("chain", EVERY.values(), ids=EVERY.keys())
def test_every_parameter_has_a_closed_form(chain):
    plan = chain.em.plan(*chain.args)
    assert all(plan.method(name) == "closed form" for name in chain.start), str(plan)


# ---------------------------------------------------------------- several lengths


@pytest.mark.parametrize("chain", EVERY.values(), ids=EVERY.keys())
def test_what_stands_beyond_the_end_of_a_sequence_counts_nothing(chain):
    data, lengths, *sizes = chain.args
    beyond = np.arange(len(data))[:, None] >= lengths
    other = np.where(beyond.reshape(*SHAPE, *[1] * (data.ndim - 2)), np.roll(data, 1, axis=1), data)
    assert (other != data).any()
    (expected,) = trajectory(chain.em, chain.start, *chain.args, num_steps=1)
    (actual,) = trajectory(chain.em, chain.start, other, lengths, *sizes, num_steps=1)
    assert_close(actual, expected, 1e-11)


def test_steps_that_no_sequence_has_count_nothing():
    chain = CHAINS["categorical"]
    data, lengths, *sizes = chain.args
    (expected,) = trajectory(chain.em, chain.start, *chain.args, num_steps=1)
    (actual,) = trajectory(
        chain.em, chain.start, np.concatenate([data, data[:3]]), lengths, *sizes, num_steps=1
    )
    assert_close(actual, expected, 1e-11)


def test_sequences_are_independent():
    chain = CHAINS["Poisson"]
    data, lengths, *sizes = chain.args
    together = chain.em.log_likelihood(chain.params, *chain.args)
    shown = [
        1 if length == 1 else len(data) for length in lengths
    ]  # one without any move; the others to the longest's end
    apart = [
        chain.em.log_likelihood(chain.params, data[: shown[n], [n]], lengths[[n]], *sizes)
        for n in range(len(lengths))
    ]
    np.testing.assert_allclose(together, sum(apart), rtol=1e-13)


def long_sequence():
    """Return 5000 counts, enough for the E-step to take probabilities in place of logarithms."""
    rng = np.random.default_rng(6)
    return rng.poisson(
        np.array([2.0, 6.0, 15.0])[np.cumsum(rng.uniform(size=(5000, 1)) < 0.1, axis=0) % 3]
    )


def test_a_long_sequence_neither_underflows_nor_takes_its_square_in_memory():
    chain, data = CHAINS["Poisson"], long_sequence()
    expected = chain.hmmlearn().score(data)
    assert expected < -10_000
    np.testing.assert_allclose(
        chain.em.log_likelihood(chain.params, data, np.array([5000]), NUM_STATES),
        expected,
        rtol=1e-11,
    )


def test_em_on_a_long_sequence_is_the_baum_welch_of_hmmlearn():
    chain, data = CHAINS["Poisson"], long_sequence()
    model = chain.hmmlearn()
    for found in trajectory(chain.em, chain.start, data, np.array([5000]), NUM_STATES, num_steps=5):
        assert_close(found, chain.in_our_words(model.fit(data)))


# ---------------------------------------------------------------- where the programs start


@pytest.mark.parametrize(
    "name", ["Poisson", "diagonal", "full", "mixture"]
)  # symbols start without a look at the data
def test_the_start_reads_no_step_beyond_the_end_of_a_sequence(name):
    chain = EVERY[name]
    data, lengths, *_ = chain.args
    beyond = (np.arange(len(data))[:, None] >= lengths).reshape(*SHAPE, *[1] * (data.ndim - 2))
    expected = chain.em.init(jax.random.key(1), *chain.args).params
    if data.dtype.kind == "f":
        own = EM(chain.program, init="program").init(jax.random.key(1), *chain.args).params
        inside = {tuple(row) for row in chain.rows}
        assert all(tuple(row) in inside for row in np.asarray(own["loc"]).reshape(-1, 2))
    actual = chain.em.init(
        jax.random.key(1),
        np.where(beyond, data + 1 if data.dtype.kind == "f" else 0, data),
        *chain.args[1:],
    ).params
    assert_close(actual, expected, 1e-12)


def test_from_the_start_of_the_program_em_finds_the_states():
    chain = CHAINS["Poisson"]
    found = EM(chain.program, num_restarts=3).run(jax.random.key(0), *chain.args)
    np.testing.assert_allclose(np.sort(found.params["rate"]), [2.0, 6.0, 15.0], rtol=0.2)
