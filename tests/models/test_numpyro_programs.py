"""Programs as NumPyro's users write them for MCMC, with enumerated latents and priors inside
plates: EM fits them as MAP.

The mixture is that of Pyro's tutorial; the models of annotation are those of Paun et al. (2018),
figures 1 to 6, in the idioms of NumPyro's example: sizes read off the data, `dim=-2`, `Vindex`,
`where` on a latent, `reparam`, padded logits. Source: Paun, Carpenter, Chamberlain, Hovy,
Kruschwitz & Poesio (2018), "Comparing Bayesian models of annotation", TACL 6; Dawid & Skene (1979);
Hovy et al. (2013), "Learning whom to trust with MACE".
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax import nn
from numpyro import handlers
from numpyro.infer import init_to_median
from numpyro.infer.reparam import LocScaleReparam
from numpyro.ops.indexing import Vindex

from emjax import EM, Status
from tests.oracles.brute_force import joint_table

TOLERANCE = {"rtol": 1e-10, "atol": 1e-10}


@pytest.fixture(autouse=True, scope="module")
def free_compiled_programs():
    yield
    jax.clear_caches()


# ---------------------------------------------------------------- the programs


def gaussian_mixture(data, num_components=2):
    """One scale for all components; every parameter under a prior."""
    weights = numpyro.sample("weights", dist.Dirichlet(0.5 * jnp.ones(num_components)))
    scale = numpyro.sample("scale", dist.LogNormal(0.0, 2.0))
    with numpyro.plate("components", num_components):
        locs = numpyro.sample("locs", dist.Normal(0.0, 10.0))
    with numpyro.plate("data", len(data)):
        assignment = numpyro.sample(
            "assignment", dist.Categorical(weights), infer={"enumerate": "parallel"}
        )
        numpyro.sample("obs", dist.Normal(locs[assignment], scale), obs=data)


def num_classes_of(labels):
    return int(np.max(labels)) + 1


def pooled(labels):
    """One confusion matrix for everybody."""
    num_classes, (num_items, num_positions) = num_classes_of(labels), labels.shape
    with numpyro.plate("class", num_classes):
        confusion = numpyro.sample("confusion", dist.Dirichlet(jnp.ones(num_classes)))
    prevalence = numpyro.sample("prevalence", dist.Dirichlet(jnp.ones(num_classes)))
    with numpyro.plate("item", num_items, dim=-2):
        truth = numpyro.sample(
            "truth", dist.Categorical(prevalence), infer={"enumerate": "parallel"}
        )
        with numpyro.plate("position", num_positions):
            numpyro.sample("label", dist.Categorical(confusion[truth]), obs=labels)


def dawid_skene(annotator, labels):
    """A confusion matrix for each annotator."""
    num_annotators, num_classes = int(np.max(annotator)) + 1, num_classes_of(labels)
    with numpyro.plate("annotator", num_annotators, dim=-2), numpyro.plate("class", num_classes):
        confusion = numpyro.sample("confusion", dist.Dirichlet(jnp.ones(num_classes)))
    prevalence = numpyro.sample("prevalence", dist.Dirichlet(jnp.ones(num_classes)))
    with numpyro.plate("item", labels.shape[0], dim=-2):
        truth = numpyro.sample("truth", dist.Categorical(prevalence))
        with numpyro.plate("position", labels.shape[1]):
            numpyro.sample(
                "label", dist.Categorical(Vindex(confusion)[annotator, truth, :]), obs=labels
            )


def mace(annotator, labels):
    """An annotator reports the truth, or spams."""
    num_annotators, num_classes = int(np.max(annotator)) + 1, num_classes_of(labels)
    with numpyro.plate("annotator", num_annotators):
        spam = numpyro.sample("spam", dist.Dirichlet(jnp.full(num_classes, 10)))
        trust = numpyro.sample("trust", dist.Beta(0.5, 0.5))
    with numpyro.plate("item", labels.shape[0], dim=-2):
        truth = numpyro.sample("truth", dist.Categorical(logits=jnp.zeros(num_classes)))
        with numpyro.plate("position", labels.shape[1]):
            is_spam = numpyro.sample("is_spam", dist.Bernoulli(1 - trust[annotator]))
            probs = jnp.where(
                is_spam[..., None] == 0, nn.one_hot(truth, num_classes), spam[annotator]
            )
            numpyro.sample("label", dist.Categorical(probs), obs=labels)


def padded(logits):
    """Return logits whose last entry is 0: a constant added to all of them would change nothing."""
    return jnp.pad(logits, [(0, 0)] * (jnp.ndim(logits) - 1) + [(0, 1)])


def row_prior(kind, num_classes):
    return kind.expand([num_classes - 1]).to_event(1)


def hierarchical_dawid_skene(annotator, labels):
    """Each annotator's logits scatter about everybody's."""
    num_annotators, num_classes = int(np.max(annotator)) + 1, num_classes_of(labels)
    with numpyro.plate("class", num_classes):
        center = numpyro.sample("center", row_prior(dist.Normal(0, 1), num_classes))
        spread = numpyro.sample("spread", row_prior(dist.HalfNormal(1), num_classes))
    with numpyro.plate("annotator", num_annotators, dim=-2), numpyro.plate("class", num_classes):
        with handlers.reparam(config={"logits": LocScaleReparam(0)}):
            logits = numpyro.sample("logits", dist.Normal(center, spread).to_event(1))
        logits = padded(logits)
    prevalence = numpyro.sample("prevalence", dist.Dirichlet(jnp.ones(num_classes)))
    with numpyro.plate("item", labels.shape[0], dim=-2):
        truth = numpyro.sample("truth", dist.Categorical(prevalence))
        with numpyro.plate("position", labels.shape[1]):
            numpyro.sample(
                "label", dist.Categorical(logits=Vindex(logits)[annotator, truth, :]), obs=labels
            )


def item_difficulty(labels):
    """Each item's logits scatter about those of its class."""
    num_classes = num_classes_of(labels)
    with numpyro.plate("class", num_classes):
        center = numpyro.sample("center", row_prior(dist.Normal(0, 1), num_classes))
        spread = numpyro.sample("spread", row_prior(dist.HalfNormal(1), num_classes))
    prevalence = numpyro.sample("prevalence", dist.Dirichlet(jnp.ones(num_classes)))
    with numpyro.plate("item", labels.shape[0], dim=-2):
        truth = numpyro.sample("truth", dist.Categorical(prevalence))
        with handlers.reparam(config={"logits": LocScaleReparam(0)}):
            logits = numpyro.sample("logits", dist.Normal(center[truth], spread[truth]).to_event(1))
            logits = padded(logits)
        with numpyro.plate("position", labels.shape[-1]):
            numpyro.sample("label", dist.Categorical(logits=logits), obs=labels)


def logistic_random_effects(annotator, labels):
    """Logits of the annotator less those of the item."""
    num_annotators, num_classes = int(np.max(annotator)) + 1, num_classes_of(labels)
    with numpyro.plate("class", num_classes):
        center = numpyro.sample("center", row_prior(dist.Normal(0, 1), num_classes))
        spread = numpyro.sample("spread", row_prior(dist.HalfNormal(1), num_classes))
        item_spread = numpyro.sample("item_spread", row_prior(dist.HalfNormal(1), num_classes))
    with (
        numpyro.plate("annotator", num_annotators, dim=-2),
        numpyro.plate("class", num_classes),
        handlers.reparam(config={"logits": LocScaleReparam(0)}),
    ):
        logits = numpyro.sample("logits", dist.Normal(center, spread).to_event(1))
        logits = padded(logits)
    prevalence = numpyro.sample("prevalence", dist.Dirichlet(jnp.ones(num_classes)))
    with numpyro.plate("item", labels.shape[0], dim=-2):
        truth = numpyro.sample("truth", dist.Categorical(prevalence))
        with handlers.reparam(config={"effect": LocScaleReparam(0)}):
            effect = numpyro.sample("effect", dist.Normal(0, item_spread[truth]).to_event(1))
            effect = padded(effect)
        with numpyro.plate("position", labels.shape[1]):
            numpyro.sample(
                "label",
                dist.Categorical(logits=Vindex(logits)[annotator, truth, :] - effect),
                obs=labels,
            )


# ---------------------------------------------------------------- the tests

FIVE_POINTS = np.array([0.0, 1.0, 10.0, 11.0, 12.0])
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
pytestmark = pytest.mark.filterwarnings("ignore:Continuous latent .* has as many values")
every_program = pytest.mark.parametrize("published", PROGRAMS.values(), ids=PROGRAMS.keys())


@every_program
def test_the_program_runs_as_map_and_its_objective_never_decreases(published):
    result = published.result
    assert result.status in (Status.CONVERGED, Status.MAX_STEPS)
    assert len(result.objective) == result.num_steps + 1 > 1
    assert np.isfinite(result.objective).all()
    assert np.all(np.diff(result.objective) >= -1e-12 * np.abs(result.objective[:-1]))
    assert result.objective[-1] > result.objective[0] + 0.1
    assert all(np.isfinite(value).all() for value in result.params.values())


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
