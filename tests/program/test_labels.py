"""Partial labels: some latents known, for certain or in part, against supervised maximum
likelihood, plain EM, and the joint table.
"""

import itertools

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

from emjax import EM, labeled

KEY = jax.random.key(0)
X = np.array([0.3, -1.2, 2.5, 0.9, 4.0, -0.4])
TRUTH = np.array([1, 0, 2, 1, 2, 0])
PARTIAL = np.where([True, False, True, False, False, True], TRUTH, -1)
PARAMS = {
    "pi": np.array([0.5, 0.2, 0.3]),
    "loc": np.array([-1.0, 0.5, 3.0]),
    "scale": np.array([1.0, 0.7, 2.0]),
}
EVIDENCE = np.array(
    [
        [0.2, 0.5, 0.3],
        [1.0, 1.0, 1.0],
        [0.0, 0.0, 2.0],
        [0.6, 0.4, 0.0],
        [0.1, 0.1, 0.1],
        [3.0, 0.5, 0.5],
    ]
)


def mixture(x, weight=1.0):
    pi = numpyro.param("pi", jnp.asarray(PARAMS["pi"]), constraint=constraints.simplex)
    loc = numpyro.param("loc", jnp.asarray(PARAMS["loc"]))
    scale = numpyro.param("scale", jnp.asarray(PARAMS["scale"]), constraint=constraints.positive)
    with numpyro.plate("samples", len(x)), handlers.scale(scale=weight):
        component = numpyro.sample("component", dist.Categorical(pi))
        numpyro.sample("x", dist.Normal(loc[component], scale[component]), obs=x)


def masked(labels, x):
    """The same program, labels given by NumPyro's own means."""
    pi = numpyro.param("pi", jnp.asarray(PARAMS["pi"]), constraint=constraints.simplex)
    loc = numpyro.param("loc", jnp.asarray(PARAMS["loc"]))
    scale = numpyro.param("scale", jnp.asarray(PARAMS["scale"]), constraint=constraints.positive)
    with numpyro.plate("samples", len(x)):
        component = numpyro.sample(
            "component", dist.Categorical(pi), obs=labels, obs_mask=labels >= 0
        )
        numpyro.sample("x", dist.Normal(loc[component], scale[component]), obs=x)


def log_joint(x=X):
    """log p(z = k) p(x | z = k), (sample, component)."""
    residual = (np.asarray(x)[:, None] - PARAMS["loc"]) / PARAMS["scale"]
    return (
        np.log(PARAMS["pi"]) - 0.5 * residual**2 - np.log(PARAMS["scale"]) - 0.5 * np.log(2 * np.pi)
    )


def supervised():
    """The maximum-likelihood estimate if every component is known."""
    groups = [X[k == TRUTH] for k in range(3)]
    return {
        "pi": np.array([len(g) for g in groups]) / len(X),
        "loc": np.array([g.mean() for g in groups]),
        "scale": np.array([g.std() for g in groups]),
    }


def steps(em, *args, num_steps=1):
    state, objectives, update = em.init(KEY, *args), [], jax.jit(em.update)
    for _ in range(num_steps):
        state, objective = update(state, *args)
        objectives.append(float(objective))
    return {name: np.asarray(value) for name, value in state.params.items()}, objectives


def close(found, expected, tolerance=1e-12):
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def all_close(found, expected, tolerance=1e-11):
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=tolerance, atol=tolerance)


@pytest.fixture(scope="module")
def hard():
    return EM(labeled(mixture, "component"))


@pytest.fixture(scope="module")
def soft():
    return EM(labeled(mixture, "component"))


# ── oracles ───────────────────────────────────────────────────────────────────────────────────────


def test_labels_for_all_are_supervised_maximum_likelihood_in_one_step(hard, soft):
    x = jnp.asarray(X)
    all_close(steps(hard, jnp.asarray(TRUTH), x)[0], supervised())
    all_close(steps(soft, jnp.eye(3)[TRUTH], x)[0], supervised())
    all_close(steps(EM(masked), jnp.asarray(TRUTH), x)[0], supervised())
    all_close(
        steps(EM(handlers.condition(mixture, {"component": jnp.asarray(TRUTH)})), x)[0],
        supervised(),
    )


def test_labels_for_none_are_plain_em(hard, soft):
    x = jnp.asarray(X)
    params, objectives = steps(EM(mixture), x, num_steps=6)
    for em, nothing in ((hard, jnp.full(6, -1)), (soft, jnp.ones((6, 3)))):
        found, own = steps(em, nothing, x, num_steps=6)
        all_close(found, params)
        close(own, objectives)


def test_half_labeled_rows_are_the_joint_table(hard):
    joint, data = log_joint(), (jnp.asarray(PARTIAL), jnp.asarray(X))
    allowed = np.where((PARTIAL[:, None] < 0) | (PARTIAL[:, None] == np.arange(3)), joint, -np.inf)
    total = np.logaddexp.reduce(allowed, axis=1)
    close(hard.log_likelihood(PARAMS, *data), total.sum())
    close(hard.posterior(PARAMS, *data)["component"], np.exp(allowed - total[:, None]))
    np.testing.assert_array_equal(hard.decode(PARAMS, *data)["component"], allowed.argmax(1))


def test_labels_are_the_same_as_those_of_obs_mask(hard):
    data = jnp.asarray(PARTIAL), jnp.asarray(X)
    params, objectives = steps(hard, *data, num_steps=6)
    found, own = steps(EM(masked), *data, num_steps=6)
    all_close(found, params)
    close(own, objectives)


def test_soft_labels_are_the_joint_table(soft):
    joint, data = log_joint(), (jnp.asarray(EVIDENCE), jnp.asarray(X))
    with np.errstate(divide="ignore"):
        weighted_joint = joint + np.log(EVIDENCE)
    total = np.logaddexp.reduce(weighted_joint, axis=1)
    close(soft.log_likelihood(PARAMS, *data), total.sum())
    responsibilities = np.exp(weighted_joint - total[:, None])
    close(soft.posterior(PARAMS, *data)["component"], responsibilities)
    counts = responsibilities.sum(0)
    loc = responsibilities.T @ X / counts
    scale = np.sqrt((responsibilities * (X[:, None] - loc) ** 2).sum(0) / counts)
    all_close(steps(soft, *data)[0], {"pi": counts / 6, "loc": loc, "scale": scale})


def test_a_single_one_is_a_hard_label_and_equal_evidence_is_a_constant(hard, soft):
    one_hot = np.where(PARTIAL[:, None] < 0, 1.0, np.eye(3)[PARTIAL])
    params, objectives = steps(hard, jnp.asarray(PARTIAL), jnp.asarray(X), num_steps=3)
    found, own = steps(soft, jnp.asarray(one_hot), jnp.asarray(X), num_steps=3)
    all_close(found, params)
    close(own, objectives)
    found, own = steps(
        soft, jnp.asarray(one_hot / one_hot.sum(1, keepdims=True)), jnp.asarray(X), num_steps=3
    )
    all_close(found, params)
    close(own, np.array(objectives) - (PARTIAL < 0).sum() * np.log(3))


def test_a_weight_of_two_is_the_row_and_its_label_twice(hard, soft):
    weight = np.array([1, 2, 1, 2, 2, 1])
    rows = np.repeat(np.arange(6), weight)
    for em, labels in ((hard, PARTIAL), (soft, EVIDENCE)):
        found, own = steps(
            EM(labeled(mixture, "component")),
            jnp.asarray(labels),
            jnp.asarray(X),
            jnp.asarray(weight * 1.0),
        )
        expected, objectives = steps(em, jnp.asarray(labels[rows]), jnp.asarray(X[rows]))
        all_close(found, expected)
        close(own, objectives)


# ── which latents ─────────────────────────────────────────────────────────────────────────────────


def test_labels_are_values_of_a_latent_that_does_not_start_at_zero():
    def program(x):
        with numpyro.plate("rows", 3):
            z = numpyro.sample("z", dist.DiscreteUniform(4, 6))
            numpyro.sample("x", dist.Normal(1.0 * z, 1.0), obs=x)

    x = np.array([4.5, 5.5, 4.0])
    density = -0.5 * (x[:, None] - np.arange(4, 7)) ** 2 - 0.5 * np.log(2 * np.pi) - np.log(3)
    labels = np.array([6, -1, 4])
    expected = density[0, 2] + np.logaddexp.reduce(density[1]) + density[2, 0]
    close(
        EM(labeled(program, "z")).log_likelihood({}, jnp.asarray(labels), jnp.asarray(x)), expected
    )
    evidence = np.array([[0.0, 0.5, 0.5], [1.0, 1.0, 1.0], [0.2, 0.3, 0.5]])
    with np.errstate(divide="ignore"):
        expected = np.logaddexp.reduce(density + np.log(evidence), axis=1).sum()
    close(
        EM(labeled(program, "z")).log_likelihood({}, jnp.asarray(evidence), jnp.asarray(x)),
        expected,
    )


@pytest.mark.parametrize("inside", ["plates", "event"])
def test_latents_of_several_axes_take_labels_of_their_shape(inside):
    x = np.arange(6.0).reshape(2, 3) / 2

    def program(x):
        law = dist.Bernoulli(0.3)
        if inside == "plates":
            with numpyro.plate("columns", 3), numpyro.plate("rows", 2):
                z = numpyro.sample("z", law)
                numpyro.sample("x", dist.Normal(2.0 * z, 1.0), obs=x)
        else:
            with numpyro.plate("rows", 2):
                z = numpyro.sample("z", law.expand([3]).to_event(1))
                numpyro.sample("x", dist.Normal(2.0 * z, 1.0).to_event(1), obs=x)

    joint = (
        -0.5 * (x[..., None] - np.array([0.0, 2.0])) ** 2
        - 0.5 * np.log(2 * np.pi)
        + np.log([0.7, 0.3])
    )
    labels = np.array([[1, -1, 0], [-1, -1, 1]])
    allowed = np.where(
        (labels[..., None] < 0) | (labels[..., None] == np.arange(2)), joint, -np.inf
    )
    total = np.logaddexp.reduce(allowed, axis=-1)
    em, data = EM(labeled(program, "z")), (jnp.asarray(labels), jnp.asarray(x))
    close(em.log_likelihood({}, *data), total.sum())
    close(em.posterior({}, *data)["z"], np.exp(allowed - total[..., None]))


def test_two_latents_are_labeled_one_after_the_other():
    def program(x):
        with numpyro.plate("rows", 2):
            a, b = (
                numpyro.sample("a", dist.Bernoulli(0.3)),
                numpyro.sample("b", dist.Bernoulli(0.6)),
            )
            numpyro.sample("x", dist.Normal(a + 2.0 * b, 1.0), obs=x)

    both = EM(labeled(labeled(program, "a"), "b"))  # (labels of b, labels of a, x)
    found = both.posterior({}, jnp.array([1, -1]), jnp.array([-1, 0]), jnp.array([0.5, 0.5]))
    close(found["b"][0], [0, 1])
    close(found["a"][1], [1, 0])


def chain(x):
    transition = numpyro.param(
        "transition", jnp.array([[0.7, 0.3], [0.2, 0.8]]), constraint=constraints.simplex
    )

    def step(previous, x):
        state = numpyro.sample("state", dist.Categorical(transition[previous]))
        numpyro.sample("x", dist.Normal(2.0 * state, 1.0), obs=x)
        return state, None

    scan(step, 0, x)


@pytest.mark.parametrize(
    "labels",
    [np.array([-1, 1, -1, 0]), np.array([[0.5, 0.5], [0.1, 0.9], [1.0, 1.0], [2.0, 0.0]])],
    ids=["hard", "soft"],
)
def test_labels_of_the_states_of_a_chain_are_the_sum_over_its_paths(labels):
    x, transition = np.array([0.3, 1.1, 2.2, 0.9]), np.array([[0.7, 0.3], [0.2, 0.8]])
    evidence = labels if labels.ndim == 2 else np.where(labels[:, None] < 0, 1.0, np.eye(2)[labels])
    weight = evidence * np.exp(-0.5 * (x[:, None] - [0.0, 2.0]) ** 2) / np.sqrt(2 * np.pi)
    paths = list(itertools.product(range(2), repeat=4))
    mass = np.array(
        [
            np.prod(
                [
                    transition[k, j] * weight[t, j]
                    for t, (k, j) in enumerate(zip((0, *path), path, strict=False))
                ]
            )
            for path in paths
        ]
    )
    smoothed = (
        np.array(
            [[mass[[path[t] == k for path in paths]].sum() for k in range(2)] for t in range(4)]
        )
        / mass.sum()
    )
    em, data = EM(labeled(chain, "state")), (jnp.asarray(labels), jnp.asarray(x))
    params = {"transition": transition}
    close(em.log_likelihood(params, *data), np.log(mass.sum()))
    close(em.posterior(params, *data)["state"], smoothed, 1e-11)


def test_numpyro_runs_the_labeled_program():
    program, data = labeled(mixture, "component"), (jnp.asarray(PARTIAL), jnp.asarray(X))
    drawn = handlers.trace(handlers.seed(program, 0)).get_trace(*data)
    assert drawn["component_label"]["is_observed"]
    expected = log_joint()[np.arange(6), TRUTH].sum()
    close(log_density(program, data, {}, {"component": jnp.asarray(TRUTH)})[0], expected)
    assert (
        log_density(program, data, {}, {"component": jnp.asarray(TRUTH).at[0].set(2)})[0]
        == -jnp.inf
    )
    soft = log_density(
        program, (jnp.asarray(EVIDENCE), data[1]), {}, {"component": jnp.asarray(TRUTH)}
    )[0]
    close(soft, expected + np.log(EVIDENCE[np.arange(6), TRUTH]).sum())


# ── bad input ─────────────────────────────────────────────────────────────────────────────────────


BAD = {
    "out of range": (
        np.where(np.arange(6) == 3, 3, PARTIAL),
        r"'component_label': the observed value at index \(3,\) lies outside the support of Label",
    ),
    "below −1": (
        np.where(np.arange(6) == 3, -2, PARTIAL),
        r"'component_label': the observed value at index \(3,\) lies outside the support of Label",
    ),
    "zeros": (
        EVIDENCE * (np.arange(6) != 2)[:, None],
        r"'component_label': the observed value at index \(2,\) lies outside the support "
        r"of SoftLabel",
    ),
    "negative": (
        EVIDENCE - 0.05,
        r"'component_label': .* at index \(2,\) lies outside the support of SoftLabel",
    ),
    "NaN": (
        np.where(EVIDENCE == 0.5, np.nan, EVIDENCE),
        r"'component_label': the observed value is NaN at index \(0,\)",
    ),
    "infinite": (
        np.where(EVIDENCE == 3.0, np.inf, EVIDENCE),
        r"'component_label': .* at index \(5,\) lies outside the support of SoftLabel",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_label_that_is_none_is_an_error(case, hard, soft):
    labels, message = BAD[case]
    with pytest.raises(ValueError, match=message):
        (hard if labels.ndim == 1 else soft).log_likelihood(
            PARAMS, jnp.asarray(labels), jnp.asarray(X)
        )


@pytest.mark.parametrize(
    "labels",
    [PARTIAL[:5], PARTIAL * 1.0, EVIDENCE[:, :2], np.eye(3, dtype=int)[TRUTH]],
    ids=["short", "floats", "narrow", "one-hot integers"],
)
def test_labels_of_another_shape_are_an_error(labels):
    with pytest.raises(
        ValueError,
        match=r"Latent 'component' has shape \(6,\) and 3 values, its labels have shape .*integers "
        r"of shape \(6,\), -1 .* \(6, 3\)",
    ):
        EM(labeled(mixture, "component")).run(KEY, jnp.asarray(labels), jnp.asarray(X))


def test_labels_of_a_chain_of_another_length_are_an_error():
    with pytest.raises(
        ValueError,
        match=r"Latent 'state' has shape \(4,\) and 2 values, its labels have shape \(3,\)",
    ):
        EM(labeled(chain, "state")).run(KEY, jnp.array([0, 1, -1]), jnp.zeros(4))


def test_only_discrete_latents_of_the_program_have_labels():
    with pytest.raises(ValueError, match="no discrete latent 'class' to label; it has 'component'"):
        EM(labeled(mixture, "class")).run(KEY, jnp.asarray(TRUTH), jnp.asarray(X))
    with pytest.raises(ValueError, match="no discrete latent 'x' to label"):
        EM(labeled(mixture, "x")).run(KEY, jnp.asarray(TRUTH), jnp.asarray(X))


class Even(dist.Bernoulli(0.5).__class__):
    """0 or 2."""

    def __init__(self):
        super().__init__(0.5)

    @property
    def support(self):
        return constraints.nonnegative_integer

    def enumerate_support(self, expand=True):
        return jnp.array([0, 2])


@pytest.mark.parametrize(
    ("law", "message"),
    [
        (dist.DiscreteUniform(-1, 1), "-1 is a value of latent 'z', and means unknown"),
        (Even(), "'z' takes values that are not consecutive integers"),
        (dist.Poisson(2.0), "Site 'z' is latent and Poisson: its support has no end"),
    ],
    ids=["minus one", "even", "unbounded"],
)
def test_a_latent_that_labels_cannot_name_is_an_error(law, message):
    def program(x):
        z = numpyro.sample("z", law)
        numpyro.sample("x", dist.Normal(1.0 * jnp.sum(z), 1.0), obs=x)

    with pytest.raises(ValueError, match=message):
        EM(labeled(program, "z")).run(KEY, jnp.array(0), jnp.array(0.5))


def test_a_label_that_the_parameters_exclude_is_zero_likelihood(hard):
    start = PARAMS | {"pi": np.array([0.6, 0.4, 0.0])}
    with pytest.raises(ValueError, match="zero likelihood"):
        hard.run(KEY, jnp.asarray(PARTIAL), jnp.asarray(X), init_params=start)
