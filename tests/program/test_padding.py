"""Which programs may run on more rows than their data have, and that these give the same answer."""

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints
from numpyro.infer import init_to_median

import emjax
from emjax.program.padding import padding, start_reads_rows
from emjax.program.trace import initial_values, trace
from tests.oracles.random_programs import program_from_seed
from tests.oracles.row_programs import ALLOWED, PADDED, REFUSED, K, N


def data_of(length: int) -> tuple:
    """Return x (rows, 2), y (rows,) in 0 … 2 and item (rows,) in 0 … 3."""
    numbers = np.random.default_rng(0)
    x = numbers.normal(size=(50, 2))
    return x[:length], numbers.integers(0, K, 50)[:length], numbers.integers(0, 4, 50)[:length]


def padded_to(length: int, arrays: tuple) -> tuple:
    """Return arrays with copies of their first row behind their rows."""

    def one(array):
        copies = np.broadcast_to(array[:1], (length - len(array), *array.shape[1:]))
        return np.concatenate([array, copies])

    return tuple(one(array) for array in arrays)


def traced(model: Callable, length: int, plates: tuple[str, ...] = ("n",)):
    """Return the trace of a model, each of whose plates is weighted."""
    for plate in plates:
        model = emjax.weighted(model, plate)
    args = (*[jnp.ones(length)] * len(plates), *map(jnp.asarray, data_of(length)))
    parameters = initial_values(model, init_to_median, args, {}).parameters
    return trace(model, parameters, args, {})


def answer(model: Callable, length: int, **plates):
    return padding(traced(model, length, **plates), traced(model, PADDED, **plates))


# ── what is answered ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ALLOWED)
def test_programs_of_independent_rows_may_be_padded(name):
    assert answer(ALLOWED[name], N).reason is None


@pytest.mark.parametrize("name", REFUSED)
def test_what_mixes_or_counts_rows_is_refused(name):
    model, reason = REFUSED[name]
    given = answer(model, N).reason
    assert given is not None
    assert reason in given


def step_of(model: Callable, *args):
    """Return the objective at the program's own start, the parameters after a step, a posterior."""
    em = emjax.EM(model)
    state, objective = em.update(em.init(jax.random.key(0), *args), *args)
    return objective, state.params, em.posterior(state.params, *args)


def padded_step(model: Callable):
    """Return the same of a program on padded rows, of which those of N are kept."""
    weights = jnp.asarray(np.arange(PADDED) < N, float)
    data = map(jnp.asarray, padded_to(PADDED, data_of(N)))
    return step_of(emjax.weighted(model, "n"), weights, *data)


def same_answers(model: Callable) -> bool:
    plain = jax.tree.leaves(step_of(model, *map(jnp.asarray, data_of(N))))
    padded = jax.tree.leaves(padded_step(model))

    def is_same(array, other):
        common = other[tuple(slice(size) for size in array.shape)]
        return np.allclose(array, common, rtol=1e-12, atol=1e-12)

    return all(map(is_same, plain, padded))


# some that differ in what they ask of an E-step: each costs seconds of compilation
COMPARED = (
    "mixture_of_one_covariance",
    "independent_coordinates_masked_and_scaled",
    "missing_coordinates",
    "labels_with_a_latent_each",
    "coordinates_in_an_outer_plate",
    "sequences_side_by_side",
    "a_choice_of_distributions",
    "constants_of_rows",
)
# which row is first, and which is next, stays with rows behind them; sums over rows do not
SEES_ADDED_ROWS = ("mean", "reversed", "rows_outside_of_the_plate")


@pytest.mark.sampled
@pytest.mark.parametrize("name", COMPARED)
def test_a_padded_program_gives_the_same_answer(name):
    assert same_answers(ALLOWED[name])


@pytest.mark.parametrize("name", SEES_ADDED_ROWS)
def test_what_is_refused_would_give_another_answer(name):
    assert not same_answers(REFUSED[name][0])


def test_lengths_of_one_bucket_share_a_padded_program():
    padded = traced(ALLOWED["mixture"], PADDED)
    for length in (N, N + 1, PADDED):
        assert padding(traced(ALLOWED["mixture"], length), padded).reason is None


def test_two_groups_of_rows_have_lengths_of_their_own():
    """Items, and labels that point to them: both are weighted, and padded."""

    def model(item, label, is_item):
        confusion = numpyro.param("c", jnp.full((K, K), 1 / K), constraint=constraints.simplex)
        with numpyro.plate("items", len(is_item)):
            numpyro.sample("known", dist.Normal(0, 1), obs=is_item)
        with numpyro.plate("labels", len(label)):
            numpyro.sample("label", dist.Categorical(confusion[item]), obs=label)

    def at(num_labels, num_items):
        weighted = emjax.weighted(emjax.weighted(model, "labels"), "items")
        arrays = [jnp.zeros(num_labels, int)] * 2 + [jnp.zeros(num_items)]
        args = (jnp.ones(num_items), jnp.ones(num_labels), *arrays)
        parameters = initial_values(weighted, init_to_median, args, {}).parameters
        return trace(weighted, parameters, args, {})

    for shorter in ((5, 3), (8, 3), (5, 4), (5, 5)):
        assert padding(at(*shorter), at(8, 4 if shorter != (5, 5) else 8), 2).reason is None
    # with weights of the labels alone, the items' rows would count
    assert padding(at(5, 3), at(8, 4), 1).reason is not None


def test_rows_along_another_axis_than_the_first_are_not_padded():
    """The first axis of each array is the one that is padded."""

    def model(columns):
        with numpyro.plate("n", columns.shape[1]):
            numpyro.sample("x", dist.Normal(0, 1).expand([2]).to_event(1), obs=columns.T)

    def at(length):
        args = (jnp.ones(length), jnp.ones((2, length)))
        return trace(emjax.weighted(model, "n"), {}, args, {})

    assert padding(at(N), at(PADDED)).reason == "rows are not in front"


@pytest.mark.parametrize("seed", [3, 6, 10])
def test_random_programs_of_independent_rows_may_be_padded(seed):
    program = program_from_seed(seed, is_rooted=True)
    rows = program.plates["rows"]

    def at(length):
        # as in `padded_to`, with rows along the axis of the plate
        def resized(array):
            axis = rows.dim - array.event_ndim
            return replace(array, values=np.repeat(array.values.take([0], axis), length, axis))

        arrays = {name: resized(array) for name, array in program.arrays.items()}
        plates = program.plates | {"rows": replace(rows, size=length)}
        resized_program = replace(program, plates=plates, arrays=arrays)
        args = (jnp.ones(length), resized_program.data)
        model = emjax.weighted(resized_program.model, "rows")
        return trace(model, initial_values(model, init_to_median, args, {}).parameters, args, {})

    assert padding(at(N), at(PADDED)).reason is None


@pytest.mark.parametrize(
    ("start", "reads_rows"),
    [
        (lambda x: jnp.ones(2), False),
        (lambda x: jnp.zeros(x.shape[1]), False),
        (lambda x: x.mean(0), True),
        (lambda x: jnp.zeros((len(x), 2)), True),
        (lambda x: x[0], True),
        (lambda x: jnp.ones(2) / len(x), True),
        (lambda x: jax.random.normal(jax.random.key(0), (2,)), False),
        (lambda x: jax.random.normal(jax.random.key(0), x.shape)[0], True),
        (lambda x: jnp.ones(2) * (len(x) > 6), True),
    ],
)
def test_a_start_that_reads_rows_is_found(start, reads_rows):
    def model(x):
        loc = numpyro.param("loc", start(x))
        with numpyro.plate("n", len(x)):
            numpyro.sample("x", dist.Normal(loc, 1.0).to_event(1), obs=x)

    def at(length):
        return initial_values(model, init_to_median, (jnp.zeros((length, 2)),), {}).start.jaxpr

    assert start_reads_rows(at(N), at(PADDED), {N: PADDED}) == reads_rows
