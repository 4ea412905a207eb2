"""Programs as NumPyro's users write them for MCMC, with enumerated latents and priors inside
plates: EM fits them as MAP.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro.infer import init_to_median

from emjax import EM, Status
from tests.oracles.brute_force import joint_table
from tests.programs_of_others.annotation import (
    dawid_skene,
    hierarchical_dawid_skene,
    item_difficulty,
    logistic_random_effects,
    mace,
    pooled,
)
from tests.programs_of_others.mixtures import FIVE_POINTS, gaussian_mixture

TOLERANCE = {"rtol": 1e-10, "atol": 1e-10}


@pytest.fixture(autouse=True, scope="module")
def free_compiled_programs():
    yield
    jax.clear_caches()


# ---------------------------------------------------------------- the tests

ANNOTATOR = np.array([0, 0, 1, 2])
LABELS = np.array([[0, 0, 0, 1], [1, 1, 1, 1], [2, 2, 1, 2], [0, 1, 0, 0]])


@dataclass(frozen=True, eq=False)
class Published:
    """A program on data so few that the joint table of its latents can be written down."""

    program: Callable
    args: tuple
    start: dict = field(default_factory=dict)

    @cached_property
    def em(self):
        return EM(self.program, max_steps=8, tol=0.0, init=init_to_median(num_samples=1))

    @cached_property
    def result(self):
        return self.em.run(jax.random.key(1), *self.args, init_params=self.start)


PROGRAMS = {
    # Elsewhere a component may expect less than half a point, where Dirichlet(1/2) has no maximum.
    "Gaussian mixture": Published(
        gaussian_mixture, (FIVE_POINTS,), {"locs": np.array([1.0, 8.0]), "scale": 3.0}
    ),
    "pooled": Published(pooled, (LABELS,)),
    "Dawid-Skene": Published(dawid_skene, (ANNOTATOR, LABELS)),
    "MACE": Published(mace, (ANNOTATOR[1:3], LABELS[:, 1:3])),
    "hierarchical Dawid-Skene": Published(hierarchical_dawid_skene, (ANNOTATOR, LABELS)),
    "item difficulty": Published(item_difficulty, (LABELS,)),
    "logistic random effects": Published(logistic_random_effects, (ANNOTATOR, LABELS)),
}
# The annotators' own parameters are as many as these few labels; published data have more.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Continuous latent .* has as many values"),
    pytest.mark.usefixtures("mostly_by_numpy"),
]
every_program = pytest.mark.parametrize("published", PROGRAMS.values(), ids=PROGRAMS.keys())


@pytest.mark.sampled
@every_program
def test_the_program_runs_as_map_and_its_objective_never_decreases(published):
    result = published.result
    assert result.status in (Status.CONVERGED, Status.MAX_STEPS)
    assert len(result.objective) == result.num_steps + 1 > 1
    assert np.isfinite(result.objective).all()
    assert np.all(np.diff(result.objective) >= -1e-12 * np.abs(result.objective[:-1]))
    assert result.objective[-1] > result.objective[0] + 0.1
    assert all(np.isfinite(value).all() for value in result.params.values())


@pytest.mark.sampled
@every_program
def test_what_it_finds_is_judged_as_the_joint_table_judges(published):
    result, params = published.result, published.result.params
    if any(
        np.any(value == 0) for value in params.values()
    ):  # where NumPyro's Dirichlet(1) says 0 · log 0 = NaN
        on_simplex = {
            name for name, value in params.items() if value.ndim and np.allclose(value.sum(-1), 1)
        }
        params = {
            name: 0.9 * v + 0.1 / v.shape[-1] if name in on_simplex else v
            for name, v in params.items()
        }
    table = joint_table(published.program, params, *published.args)
    np.testing.assert_allclose(
        published.em.log_likelihood(params, *published.args), table.log_likelihood, **TOLERANCE
    )
    if params is result.params:
        np.testing.assert_allclose(result.log_likelihood, table.log_likelihood, **TOLERANCE)
        np.testing.assert_allclose(
            result.objective[-1], table.log_likelihood + table.log_prior, **TOLERANCE
        )
    posterior = published.em.posterior(params, *published.args)
    assert set(posterior) == set(table.posterior)
    for name, expected in table.posterior.items():
        np.testing.assert_allclose(posterior[name], expected, **TOLERANCE, err_msg=name)


@every_program
def test_every_parameter_is_maximized_under_its_prior(published):
    plan = published.em.plan(*published.args)
    assert all(parameter.is_prior for parameter in plan.parameters)
    assert {parameter.method for parameter in plan.parameters} <= {"closed form", "Newton"}


def test_the_confusion_matrices_of_dawid_and_skene_are_normalized_expected_counts():
    annotator, labels = ANNOTATOR, LABELS
    em = PROGRAMS["Dawid-Skene"].em
    plan = em.plan(annotator, labels)
    assert plan.method("confusion") == plan.method("prevalence") == "closed form"
    rng = np.random.default_rng(3)
    params = {
        "confusion": rng.dirichlet(np.ones(3), (3, 3)),
        "prevalence": rng.dirichlet(np.ones(3)),
    }
    params = {name: jnp.asarray(value) for name, value in params.items()}
    truth = np.asarray(em.posterior(params, annotator, labels)["truth"])[:, 0]
    state = replace(em.init(jax.random.key(0), annotator, labels), params=params)
    arrived = jax.jit(lambda state: em.update(state, annotator, labels)[0])(state).params
    counts = np.zeros((3, 3, 3))
    for item, position in np.ndindex(labels.shape):
        counts[annotator[position], :, labels[item, position]] += truth[item]
    np.testing.assert_allclose(
        arrived["confusion"], counts / counts.sum(-1, keepdims=True), rtol=1e-12
    )
    np.testing.assert_allclose(
        arrived["prevalence"], truth.mean(0), rtol=1e-12
    )  # Dirichlet(1) adds nothing
