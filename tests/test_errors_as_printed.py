"""What is printed where a program is given what it cannot take, word for word.

Each is an error of JAX, NumPy, NumPyro or Python within a line of the program, said in words that
name the site or the argument, the line, and the fix; the original error is its cause.
"""

import pathlib
import re
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan
from numpyro.distributions import constraints

from emjax import EM, criteria, labeled, summary, weighted
from tests.programs import HALF, KEY, LOCS, X, mixture

PANDAS = pytest.importorskip("pandas")
WORDS = ["a", "b", "a", "b"]


def observing(law):
    """Return a program that observes x under law(x)."""

    def program(x):
        with numpyro.plate("rows", 4):
            numpyro.sample("x", law(x), obs=x)

    return program


def components(x, K):
    weights = numpyro.param("weights", jnp.full(K, 1 / K), constraint=constraints.simplex)
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(z, 1.0), obs=x)


def rows_as_start(x, K):
    loc = numpyro.param("loc", lambda key: jax.random.choice(key, x, (K,), replace=False))
    mixture(x, loc=loc)


def grouped(x, group):
    loc = numpyro.param("loc", jnp.zeros(2))
    with numpyro.plate("rows", len(x)):
        numpyro.sample("x", dist.Normal(loc[group], 1.0), obs=x)


def chain(y, start=0):
    num_sequences = y.shape[1]
    _chain_of(y, num_sequences, start)


def unpacking_chain(y):
    _, num_sequences = y.shape
    _chain_of(y, num_sequences, 0)


def _chain_of(y, num_sequences, start):
    def step(state, y):
        with numpyro.plate("sequences", num_sequences):
            state = numpyro.sample("state", dist.Categorical(jnp.array([HALF, HALF])[state]))
            numpyro.sample("y", dist.Normal(LOCS[state], 1.0), obs=y)
        return state, None

    scan(step, jnp.full(num_sequences, start), y)


def latent_in(line):
    """Return a program that computes a location from a latent, by `line`."""

    def program(x):
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("coin", dist.Bernoulli(0.3))
            numpyro.sample("x", dist.Normal(line(z), 1.0), obs=x)

    return program


def covariates(features, x):
    slope = numpyro.param("slope", jnp.zeros(3))
    with numpyro.plate("rows", len(x)):
        numpyro.sample("x", dist.Normal(features @ slope, 1.0), obs=x)


def columns(x):
    loc = numpyro.param("loc", jnp.zeros((2, 3)))
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Categorical(HALF))
        numpyro.sample("x", dist.Normal(loc[z], 1.0), obs=x)


def within_jit(x):
    jax.jit(mixture)(x)


def shape_as_size(x):
    with numpyro.plate("rows", x.shape):
        numpyro.sample("x", dist.Normal(0.0, 1.0), obs=x)


def latent_as_size(x):
    size = numpyro.sample("count", dist.Bernoulli(0.3))
    with numpyro.plate("rows", size):
        numpyro.sample("x", dist.Normal(0.0, 1.0), obs=x)


def int_of_a_parameter(x):
    order = numpyro.param("order", 2.0)
    with numpyro.plate("rows", len(x)):
        numpyro.sample("x", dist.Normal(x ** int(order), 1.0), obs=x)


def with_param(*args, **kwargs):
    def program(x):
        numpyro.param("scale", *(args or (1.0,)), **kwargs)

    return program


def assigning(x):
    loc = jnp.zeros(4)
    loc[0] = 1.0
    mixture(x, loc=loc)


def one_result(y):
    scan(lambda carry, y: carry, 0, y)


def of_unequal_lengths(y):
    scan(lambda carry, y: (carry, None), 0, (y, y[:2]))


# {what is wrong: (program, its arguments)}
WRONG = {
    "strings": (grouped, X, np.array(WORDS)),
    "objects": (grouped, X, np.array(WORDS, object)),
    "a list of strings": (observing(lambda x: dist.Bernoulli(0.5)), WORDS),
    "a series of strings": (grouped, X, PANDAS.Series(WORDS)),
    "a series of strings that is observed": (mixture, PANDAS.Series(WORDS)),
    "a frame with strings": (covariates, PANDAS.DataFrame({"a": X, "b": WORDS}), X),
    "dates": (mixture, np.array(["2020-01-01", "2020-01-02"], "M8[D]")),
    "records": (mixture, np.array([(1.0, 2)], [("a", float), ("b", int)])),
    "numbers as objects": (mixture, np.array([1.0, 2.0], object)),
    "a masked array": (mixture, np.ma.array([1.0, 2.0], mask=[0, 1])),
    "rows of unequal length": (mixture, [[1.0, 2.0], [1.0]]),
    "a dictionary": (observing(lambda x: dist.Normal(0.0, 1.0)), {"x": 1.0}),
    "complex numbers": (mixture, np.array([1j, 2.0])),
    "no array": (mixture, 3.0),
    "None": (mixture, None),
    "a list as an index": (grouped, X, [0, 1, 0, 1]),
    "an index that is no whole number": (grouped, X, np.array([0.0, 1.0, 0.0, 1.0])),
    "a size that is a float": (components, X, 2.0),
    "a size that is a string": (components, X, "2"),
    "a size below zero": (components, X, -1),
    "no components": (components, X, 0),
    "a size that is an array": (rows_as_start, X, jnp.array(2)),
    "a plate whose size is a latent": (latent_as_size, X),
    "no rows": (mixture, np.zeros(0)),
    "no rows to start from": (rows_as_start, jnp.zeros(0), 2),
    "more components than rows": (rows_as_start, X, 5),
    "a plate whose size is a shape": (shape_as_size, X),
    "a series for a chain": (unpacking_chain, X),
    "an if on a latent": (latent_in(lambda z: 0.0 if z[0] == 0 else 1.0), X),
    "an if on a latent with plates": (latent_in(lambda z: 0.0 if z == 0 else 1.0), X),
    "an and of latents": (latent_in(lambda z: jnp.where(z and z, 0.0, 1.0)), X),
    "an index of a list": (latent_in(lambda z: [0.0, 1.0][z]), X),
    "a key of a dictionary": (latent_in(lambda z: {0: 0.0, 1: 1.0}[z]), X),
    "a NumPy function of a latent": (latent_in(lambda z: np.exp(z)), X),
    "rows that a latent picks": (latent_in(lambda z: jnp.sum(jnp.ones(4)[z == 0])), X),
    "an int of a parameter": (int_of_a_parameter, X),
    "features for another number of parameters": (covariates, jnp.zeros((4, 2)), X),
    "features of other rows": (covariates, jnp.zeros((5, 3)), X),
    "columns without to_event": (columns, jnp.zeros((4, 3))),
    "events of another size": (
        observing(lambda x: dist.MultivariateNormal(jnp.zeros(3), jnp.eye(3))),
        jnp.zeros((4, 2)),
    ),
    "no argument of a distribution": (observing(lambda x: dist.Categorical()), X),
    "no distribution": (observing(lambda x: dist.Normal), X),
    "no constraint": (with_param(constraint="positive"), X),
    "no initial number": (with_param("1"), X),
    "a column by name": (lambda x: mixture(x["a"]), X),
    "an attribute of frames": (lambda x: mixture(x.values), X),
    "assignment": (assigning, X),
    "a statement within jit": (jax.jit(mixture), X),
    "a statement within vmap": (lambda x: jax.vmap(mixture)(x[:, None]), X),
    "a carry of another type": (chain, X[:, None], jnp.int32(0)),
    "a step that returns the carry alone": (one_result, X),
    "a scan over unequal lengths": (of_unequal_lengths, X),
    "labels that are strings": (labeled(mixture, "z"), WORDS, X),
    "weights that are strings": (weighted(mixture, "rows"), WORDS, X),
}

# what is printed, under the same names
PRINTED = pathlib.Path(__file__).with_name("errors_as_printed.txt").read_text(encoding="utf-8")
SAID = dict(section.split("\n", 1) for section in PRINTED.strip().split("\n\n## ")[1:])


def as_printed(error):
    """Return a message without the number of the line, which moves with the file."""
    return re.sub(r"\w+\.py, line \d+", "FILE, line N", str(error))


@pytest.fixture(autouse=True, scope="module")
def without_tensorflow_probability():
    # where it is installed, NumPyro imports it to name what is no distribution, and it warns
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "tensorflow_probability", None)
        yield


@pytest.mark.parametrize("what", WRONG)
def test_error_is_printed_word_for_word(what):
    program, *args = WRONG[what]
    with pytest.raises(ValueError) as raised:
        EM(program).run(KEY, *args)
    assert as_printed(raised.value) == SAID[what]


def test_every_error_that_is_printed_is_made():
    assert list(SAID) == list(WRONG)


def test_original_error_is_the_cause():
    with pytest.raises(ValueError) as raised:
        EM(components).run(KEY, X, 2.0)
    assert "Shapes must be 1D sequences" in str(raised.value.__cause__)


class OwnError(Exception):
    """An error of the program's own."""


def raising(x):
    raise OwnError("x is what it should not be")


def raising_value_error(x):
    raise ValueError("x is what it should not be")


@pytest.mark.parametrize(
    "program, error",
    [
        (raising, OwnError),
        (raising_value_error, ValueError),
        (lambda x: {}["key"], KeyError),
        (lambda x: len(3), TypeError),
    ],
)
def test_error_of_the_program_itself_stays_as_it_is(program, error):
    with pytest.raises(error) as raised:
        EM(program).run(KEY, X)
    assert raised.value.__cause__ is None
    assert "line" not in str(raised.value)


# ── data frames ───────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def of_arrays():
    return EM(mixture, max_steps=3).run(KEY, np.asarray(X)).params


@pytest.mark.parametrize(
    "data",
    [
        PANDAS.Series(np.asarray(X)),
        PANDAS.Series(np.asarray(X), index=[3, 1, 2, 0]),
        PANDAS.Series([0.0, 0.5, 4.0, 5.0], dtype="Float64"),
        PANDAS.Series([0, 0.5, 4, 5], dtype=object),
    ],
    ids=["numbers", "index", "nullable", "objects"],
)
def test_series_of_numbers_is_its_array(data, of_arrays):
    em = EM(mixture, max_steps=3)
    result = em.run(KEY, data)
    np.testing.assert_array_equal(result.params["loc"], of_arrays["loc"])
    assert not em.on(data).looks_at_values
    assert em.posterior(result, data)["z"].shape == (4, 2)


def of_columns(frame):
    mixture(frame["x"].to_numpy(), loc=jnp.array(frame["x"].quantile([0.1, 0.9])))


@pytest.mark.parametrize("columns", [{}, {"names": WORDS}], ids=["numbers", "and strings"])
def test_program_may_read_the_columns_of_a_data_frame(columns):
    frame = PANDAS.DataFrame({"x": np.asarray(X), **columns})
    start = jnp.array(frame["x"].quantile([0.1, 0.9]))
    expected = EM(mixture, max_steps=3).run(KEY, X, init_params={"loc": start}).params["loc"]
    result = EM(of_columns, max_steps=3).run(KEY, frame)
    np.testing.assert_allclose(result.params["loc"], expected, rtol=1e-12)


def test_categories_may_be_whole_numbers_that_are_floats():
    def program(y):
        probs = numpyro.param("probs", jnp.ones(3) / 3, constraint=constraints.simplex)
        with numpyro.plate("rows", len(y)):
            numpyro.sample("y", dist.Categorical(probs), obs=y)

    result = EM(program).run(KEY, jnp.array([0.0, 2.0, 2.0, 1.0]))
    np.testing.assert_allclose(result.params["probs"], [0.25, 0.25, 0.5], rtol=1e-12)
    with pytest.raises(ValueError, match=r"index \(1,\) lies outside the support of Categorical"):
        EM(program).run(KEY, jnp.array([0.0, 1.5, 2.0, 1.0]))


# ── what is asked ─────────────────────────────────────────────────────────────────────────────────


def called_wrongly(ask):
    em = EM(mixture)
    params = {"loc": LOCS, "scale": 1.0}
    return {
        "no data": lambda: em.run(KEY),
        "another name": lambda: em.run(KEY, X, weight=HALF),
        "too many": lambda: em.run(KEY, X, HALF, LOCS, 3),
        "no parameters": lambda: em.posterior(X),
        "swapped": lambda: em.posterior(X, params),
        "a start that is no dictionary": lambda: em.run(KEY, X, init_params=[1.0]),
        "a call": lambda: EM(None),
    }[ask]()


@pytest.mark.parametrize(
    "ask, error, message",
    [
        ("no data", TypeError, r"takes mixture\(x, .*\): missing a required argument: 'x'"),
        ("another name", TypeError, "got an unexpected keyword argument 'weight'"),
        ("too many", TypeError, r"too many positional arguments\. Of em\.run, what follows"),
        ("no parameters", ValueError, r"such as result\.params, not ArrayImpl\. They come first"),
        ("swapped", ValueError, r"such as result\.params, not ArrayImpl\. They come first"),
        ("a start that is no dictionary", ValueError, r"\{site: value\}.*not list"),
        ("a call", ValueError, r"not None.*: EM\(program\), not EM\(program\(x\)\)"),
    ],
)
def test_wrong_call_says_what_to_call(ask, error, message):
    with pytest.raises(error, match=message):
        called_wrongly(ask)


def test_parameters_come_before_data_wherever_something_is_asked():
    em, params = EM(mixture), {"loc": LOCS, "scale": 1.0}
    with pytest.raises(ValueError, match=r"takes a result, em\.run\(rng_key, .*not dict"):
        summary(em, params, X)
    for ask in (em.posterior, em.diagnose, partial(criteria, em)):
        with pytest.raises(ValueError, match=r"such as result\.params, not ArrayImpl\. They come"):
            ask(X, params)


def test_covariate_that_is_not_a_number_is_named():
    features = jnp.ones((4, 3)).at[2, 1].set(jnp.nan)
    with pytest.raises(
        ValueError,
        match=r"loc of Normal is NaN at index \(2,\).*'features' is NaN at index \(2, 1\): leave",
    ):
        EM(covariates).run(KEY, features, X)


@pytest.mark.parametrize(
    "function, message",
    [
        (lambda value: value, r"m_step\['loc'\]: Python says: .*takes 1 positional argument but 2"),
        (lambda value, objective: value[0], r"array of shape \(\), and 'loc' has shape \(2,\)"),
        (
            lambda value, objective: value if value[0] > 0 else -value,
            r"m_step\['loc'\] looks at the value of .*jnp\.where\(value\[0\] > 0, a, b\)",
        ),
        (lambda value, objective: np.sort(value), r"m_step\['loc'\] looks .*Write jnp for np"),
    ],
    ids=["arguments", "shape", "if", "NumPy"],
)
def test_maximizer_of_the_user_that_fails_is_named(function, message):
    with pytest.raises(ValueError, match=message):
        EM(mixture, m_step={"loc": function}).run(KEY, X)


@pytest.mark.parametrize(
    "setting, message",
    [
        ({"fixed": None}, r"fixed must be a set of parameter names.*not None"),
        ({"init": {"loc": LOCS}}, r"init must be one of .*em\.run\(\.\.\., init_params"),
    ],
)
def test_setting_of_another_type_is_an_error(setting, message):
    with pytest.raises(ValueError, match=message):
        EM(mixture, **setting)
