"""Least squares: any number of unknowns in one step, group by group, each group exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

from emjax import EM
from emjax.m_step.coupling import coupled_entries
from emjax.m_step.quadratic import (
    AT_ONCE,
    ascent_step,
    batches_of,
    directions_at_once,
    quadratic_maximum,
)
from emjax.m_step.wiring_view import WiringView

ROWS, VALUES, OUTPUTS, REGRESSORS = 80, 2, 50, 3
NUMBERS = np.random.default_rng(3)
X = NUMBERS.normal(size=(ROWS, REGRESSORS))
DESIGN = np.column_stack([np.ones(ROWS), X])
Y = X @ NUMBERS.normal(size=(REGRESSORS, OUTPUTS)) + NUMBERS.normal(size=(ROWS, OUTPUTS))
START = {
    "mean": NUMBERS.normal(size=(VALUES, OUTPUTS)),
    "loadings": NUMBERS.normal(size=(VALUES, OUTPUTS, REGRESSORS)),
}
FEW = 4
MASK = NUMBERS.uniform(size=(FEW, REGRESSORS)) < 0.6
LOWER = np.tril_indices(FEW, 0, REGRESSORS)
COVARIANCE = np.eye(FEW) + 0.5


def after_a_step(program, *data):
    """Return the plan, the parameters at the start and those after one EM step."""
    em = EM(program)
    state = em.init(jax.random.key(0), *data)
    arrived, _ = jax.jit(lambda state: em.update(state, *data))(state)
    return em.plan(*data), state.params, arrived.params


def groups_of(program, data, names):
    graph = EM(program).on(*data).compiled.graph
    terms = [n for n, term in enumerate(graph.terms) if term.site.is_observed or term.site.is_prior]
    return coupled_entries(WiringView(graph), names, terms)


def regressions(y):
    """A mixture of regressions, each of 50 outputs: 400 unknowns, in groups of 4."""
    mean = numpyro.param("mean", jnp.asarray(START["mean"]))
    loadings = numpyro.param("loadings", jnp.asarray(START["loadings"]))
    one = jnp.ones((VALUES, OUTPUTS))
    noise = numpyro.param("noise", one, constraint=constraints.positive)
    with numpyro.plate("rows", ROWS):
        z = numpyro.sample("z", dist.Categorical(jnp.array([0.4, 0.6])))
        location = mean[z] + jnp.einsum("nr,nor->no", jnp.asarray(X), loadings[z])
        numpyro.sample("y", dist.Normal(location, noise[z]).to_event(1), obs=y)


def test_a_mixture_of_regressions_is_maximized_as_by_hand_however_many_unknowns_there_are():
    plan, start, arrived = after_a_step(regressions, jnp.asarray(Y))
    assert plan.method("mean") == plan.method("loadings") == "least squares"
    assert plan.method("noise") == "closed form"
    assert [p.name for p in plan.parameters][-1] == "noise"  # measured from the new locations
    responsibilities = np.asarray(EM(regressions).posterior(start, jnp.asarray(Y))["z"])
    for k, r in enumerate(responsibilities.T):
        weighted = DESIGN * r[:, None]
        by_hand = np.linalg.solve(DESIGN.T @ weighted, weighted.T @ Y).T
        np.testing.assert_allclose(arrived["mean"][k], by_hand[:, 0], rtol=1e-10)
        np.testing.assert_allclose(arrived["loadings"][k], by_hand[:, 1:], rtol=1e-10)
        squares = (Y - DESIGN @ by_hand.T) ** 2
        noise = np.sqrt(r @ squares / r.sum())
        np.testing.assert_allclose(arrived["noise"][k], noise, rtol=1e-10)


def test_entries_meet_that_one_location_depends_on():
    groups = groups_of(regressions, (jnp.asarray(Y),), ["loadings", "mean"])
    by_output = np.arange(VALUES * OUTPUTS).reshape(VALUES, OUTPUTS)
    expected = np.concatenate([np.repeat(by_output.ravel(), REGRESSORS), by_output.ravel()])
    # the same groups, whatever their numbers
    assert len(set(zip(groups, expected, strict=True))) == len(set(groups)) == VALUES * OUTPUTS


def masked(free):
    return free * MASK


def lower_triangular(free):
    return jnp.zeros((FEW, REGRESSORS)).at[LOWER].set(free)


def twice_the_same(free):
    return jnp.stack([free[:, 0] + free[:, 1], free[:, 2], jnp.zeros(FEW)], axis=1)


def running_sum(free):
    return jnp.cumsum(free, axis=1)


@pytest.mark.sampled
@pytest.mark.parametrize(
    ("build", "size", "groups", "law", "prior"),
    [
        (lower_triangular, (len(LOWER[0]),), [1, 2, 3, 3], "rows", None),
        (twice_the_same, (FEW, REGRESSORS), [3] * 4, "rows", None),
        (running_sum, (FEW, REGRESSORS), [3] * 4, "rows", (0.5, 2.0)),
        (masked, (FEW, REGRESSORS), [12], "vectors", (0.5, 2.0)),
    ],
    ids=["triangular", "collinear", "summed", "coupled"],
)
def test_loadings_that_the_program_builds_are_least_squares(build, size, groups, law, prior):
    """What nothing depends on, and differences of the same, stay as they are."""
    start = np.linspace(-1.0, 1.0, int(np.prod(size))).reshape(size)
    y = jnp.asarray(Y[:, :FEW])

    def program(y):
        if prior is None:
            free = numpyro.param("free", jnp.asarray(start))
        else:
            free = numpyro.sample("free", dist.Normal(*prior).expand(size).to_event())
        location = jnp.asarray(X) @ build(free).T
        with numpyro.plate("rows", ROWS):
            noise = dist.Normal(location, 0.7).to_event(1)
            if law == "vectors":
                noise = dist.MultivariateNormal(location, COVARIANCE)
            numpyro.sample("y", noise, obs=y)

    plan, before, arrived = after_a_step(program, y)
    assert plan.method("free") == "least squares"
    found = groups_of(program, (y,), ["free"])
    assert sorted(np.bincount(found)) == groups
    # one dense system, of which the shortest step leads to the maximum
    design = np.asarray(jax.jacobian(lambda free: X @ build(free).T)(jnp.asarray(start)))
    design = design.reshape(ROWS, FEW, -1)
    covariance = COVARIANCE if law == "vectors" else 0.49 * np.eye(FEW)
    weighted = np.einsum("ef,nfi->nei", np.linalg.inv(covariance), design)
    here = np.ravel(before["free"])
    curvature = np.einsum("nei,nej->ij", weighted, design)
    slope = np.einsum("nei,ne->i", weighted, np.asarray(y) - design @ here)
    if prior is not None:
        location, scale = prior
        curvature = curvature + np.eye(len(here)) / scale**2
        slope = slope + (location - here) / scale**2
    expected = here + np.linalg.pinv(curvature, hermitian=True) @ slope
    np.testing.assert_allclose(np.ravel(arrived["free"]), expected, rtol=1e-10, atol=1e-12)


def test_the_derivative_of_the_step_is_that_of_the_solution():
    root = NUMBERS.normal(size=(2, 3, 3))
    curvature, slope = root @ root.swapaxes(-1, -2), NUMBERS.normal(size=(2, 3))
    change = NUMBERS.normal(size=(2, 3, 3))
    change = change + change.swapaxes(-1, -2)
    step, along = jax.jvp(ascent_step, (curvature, slope), (change, slope))
    expected = np.linalg.solve(curvature, slope[..., None])[..., 0]
    np.testing.assert_allclose(step, expected, rtol=1e-10)
    of_curvature = np.linalg.solve(curvature, change @ expected[..., None])[..., 0]
    np.testing.assert_allclose(along, expected - of_curvature, rtol=1e-9)


@pytest.mark.parametrize("rank", [100, 99], ids=["regular", "singular"])
def test_a_large_group_is_solved_to_its_last_digits(rank):
    root = NUMBERS.normal(size=(100, rank)) * 10.0 ** NUMBERS.uniform(-3, 3, size=(100, 1))
    root[7] = 0
    curvature, expected = root @ root.T, root @ NUMBERS.normal(size=rank)
    step = ascent_step(jnp.asarray(curvature), jnp.asarray(curvature @ expected))
    assert step[7] == 0
    np.testing.assert_allclose(curvature @ step, curvature @ expected, rtol=1e-8)


def test_groups_of_several_sizes_are_solved_side_by_side():
    group_of = np.array([0, 1, 1, 1, 2])
    same = group_of[:, None] == group_of
    root = NUMBERS.normal(size=(5, 5)) * same
    curvature, slope = root @ root.T * same, NUMBERS.normal(size=5)
    assert len(batches_of(group_of)) == 2

    def objective(x):
        return slope @ x - x @ curvature @ x / 2

    start = jnp.asarray(NUMBERS.normal(size=5))
    arrived = quadratic_maximum(objective, start, batches_of(group_of))
    np.testing.assert_allclose(arrived, np.linalg.solve(curvature, slope), rtol=1e-8)


def test_directions_are_taken_in_turns_where_that_keeps_sums_small():
    # six directions of 1,250 numbers are more than XLA sums up by itself, three of them are not
    assert directions_at_once(6, [250, 1250]) == 3
    assert directions_at_once(5, [250, 800]) == AT_ONCE // 1050
    assert directions_at_once(7, [1250]) == AT_ONCE // 1250


def test_maximum_is_the_same_with_directions_in_turns():
    rng = np.random.default_rng(7)
    root, linear = rng.normal(size=(6, 9)), rng.normal(size=6)
    curvature = root @ root.T
    batches = batches_of(np.zeros(6, int))

    def objective(x):
        return linear @ x - x @ curvature @ x / 2

    assert directions_at_once(6, [1250]) == 3
    arrived = quadratic_maximum(objective, jnp.zeros(6), batches, [1250])
    np.testing.assert_allclose(arrived, np.linalg.solve(curvature, linear), rtol=1e-10)
