"""The engine against the joint table, on random programs.

`HYPOTHESIS_PROFILE=thorough pytest tests/test_random_programs.py` draws 500 new programs; the
default, 18 fixed ones. `HYPOTHESIS_EXAMPLES=10000` is an evening's run: what is traced is evaluated
by NumPy, since to compile a program takes three times as long as to check it, and one in
`ONE_COMPILED_OF` is compiled. A profile's examples are shared out among the tests. A failure prints
the program, its parameters and its data.
"""

import itertools
import os
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from numpyro import handlers
from numpyro.distributions import constraints

from emjax import EM
from emjax.run.compilation import CompiledFunction
from tests.oracles.brute_force import JointTable, joint_table
from tests.oracles.by_numpy import evaluated, in_place_of_compilation
from tests.oracles.frequencies import assert_drawn_from
from tests.oracles.random_programs import (
    Array,
    Plate,
    Program,
    Site,
    aligned_shape,
    expanded,
    program_from_seed,
    programs,
)

SLOW = {"deadline": None, "suppress_health_check": list(HealthCheck), "print_blob": True}
GENERATE = (
    Phase.explicit,
    Phase.reuse,
    Phase.generate,
)  # a smaller failing program costs minutes of compilation
settings.register_profile("quick", max_examples=18, derandomize=True, phases=GENERATE, **SLOW)
settings.register_profile(
    "thorough", max_examples=int(os.environ.get("HYPOTHESIS_EXAMPLES", 500)), **SLOW
)
IS_THOROUGH = os.environ.get("HYPOTHESIS_PROFILE") == "thorough"
PROFILE = settings.get_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

TOLERANCE = {"rtol": 1e-10, "atol": 1e-10}


def examples(share: float):
    """The settings of a test that takes this share of the profile's examples."""
    return settings(PROFILE, max_examples=round(share * PROFILE.max_examples))


@pytest.fixture(autouse=True, scope="module")
def free_compiled_programs():
    yield
    CompiledFunction.__call__ = COMPILED
    jax.clear_caches()


checked = itertools.count(1)
COMPILED = CompiledFunction.__call__
ONE_COMPILED_OF = 10
turns = itertools.cycle([COMPILED] + [in_place_of_compilation] * (ONE_COMPILED_OF - 1))


def table_of(program: Program) -> JointTable:
    if next(checked) % 50 == 0:
        jax.clear_caches()
    return joint_table(program.model, program.params, program.data)


def em_of(program: Program) -> EM:
    """Return EM of a program, which is compiled when it is its turn."""
    CompiledFunction.__call__ = next(turns)
    return EM(program.model)


def assert_brute_force(program: Program):
    assert jnp.zeros(()).dtype == jnp.float64
    table = table_of(program)
    em = em_of(program)
    np.testing.assert_allclose(
        em.log_likelihood(program.params, program.data),
        table.log_likelihood,
        **TOLERANCE,
        err_msg="log_likelihood",
    )
    posterior = em.posterior(program.params, program.data)
    # a prior that no observation depends on has a mean, which is imputed
    assert set(posterior) - set(program.parameters) == set(table.latents)
    for name, expected in table.posterior.items():
        np.testing.assert_allclose(
            posterior[name], expected, **TOLERANCE, err_msg=f"posterior of {name}"
        )
    decoded = em.decode(program.params, program.data)
    assert set(decoded) == set(table.latents)
    np.testing.assert_allclose(
        table.complete_log_likelihood_at(decoded),
        table.mode_log_likelihood,
        **TOLERANCE,
        err_msg="decode",
    )
    # a compilation of its own: of the few programs that are compiled, of an evening's many
    if IS_THOROUGH and CompiledFunction.__call__ is COMPILED and table.latents:
        key = jax.random.key(next(checked))
        draws = em.sample_posterior(key, program.params, program.data, num_samples=3200)
        assert_drawn_from(table, {name: draws[name] for name in table.latents}, least=1e-7)


@examples(0.4)
@given(programs())
def test_random_program_is_brute_force(program):
    assert_brute_force(program)


@examples(0.16)
@given(programs(is_crossed=True, max_latents=2, max_assignments=256))
def test_crossed_plates_are_brute_force(program):
    assert_brute_force(program)


@examples(0.2)
@given(programs(has_multiplicities=True))
def test_multiplicity_is_repeated_rows(program):
    copies = expanded(program)
    table = table_of(copies)
    em = em_of(program)
    np.testing.assert_allclose(
        em.log_likelihood(program.params, program.data),
        table.log_likelihood,
        **TOLERANCE,
        err_msg="log_likelihood",
    )
    posterior = em.posterior(program.params, program.data)
    decoded = em.decode(program.params, program.data)
    mode = {}
    for site in program.latents:
        name, origin = site.latent_name, copies.origin[site.name].values
        is_copy = np.broadcast_to(origin >= 0, table.latents[name].shape)
        origin = np.broadcast_to(origin, table.latents[name].shape)
        assert posterior[name].shape == program.shape(site.plates) + (len(site.support),)
        of_copies = np.asarray(posterior[name]).reshape(-1, len(site.support))[origin]
        np.testing.assert_allclose(
            of_copies[is_copy],
            table.posterior[name][is_copy],
            **TOLERANCE,
            err_msg=f"posterior of {name}",
        )
        mode[name] = np.where(is_copy, np.asarray(decoded[name]).ravel()[origin], site.support[0])
    np.testing.assert_allclose(
        table.complete_log_likelihood_at(mode),
        table.mode_log_likelihood,
        **TOLERANCE,
        err_msg="decode",
    )


@examples(0.12)
@given(programs(is_rooted=True, max_latents=2))
def test_duplicated_data_double_the_log_likelihood(program):
    table = table_of(program)
    twice = duplicated(program)
    em = em_of(twice)
    np.testing.assert_allclose(
        em.log_likelihood(twice.params, twice.data), 2 * table.log_likelihood, **TOLERANCE
    )
    posterior = em.posterior(twice.params, twice.data)
    for site in program.latents:
        axis = program.plates["rows"].dim - 1
        expected = np.concatenate([table.posterior[site.latent_name]] * 2, axis)
        np.testing.assert_allclose(posterior[site.latent_name], expected, **TOLERANCE)
    plan = em.plan(twice.data).parameters
    if all(
        p.method in ("closed form", "held") and not p.is_prior for p in plan
    ):  # others stop within a tolerance
        once_updated = updated(EM(program.model), program)
        for name, value in updated(em, twice).items():
            # the spread around a single datum is rounding
            np.testing.assert_allclose(
                value, once_updated[name], rtol=1e-8, atol=1e-14, err_msg=f"update of {name}"
            )


def updated(em: EM, program: Program) -> dict:
    """Return the parameters after one EM step from the program's own."""
    state = replace(em.init(jax.random.key(0), program.data), params=program.params)
    return evaluated(em.update, state, program.data)[0].params


@examples(0.12)
@given(programs(max_latents=2))
def test_an_em_step_never_decreases_the_objective(program):
    def objective(params):
        table = joint_table(program.model, params, program.data)
        return table.log_likelihood + table.log_prior

    em = em_of(program)
    before, after = objective(program.params), objective(updated(em, program))
    assert not after < before - 1e-9 * (
        1 + abs(before)
    )  # a likelihood without a maximum may end in NaN


def duplicated(program: Program) -> Program:
    """Return the program with each row followed, after all the rows, by its copy."""
    plate = program.plates["rows"]
    arrays = {}
    for name, array in program.arrays.items():
        if "rows" in array.plates:
            array = replace(
                array, values=np.concatenate([array.values] * 2, plate.dim - array.event_ndim)
            )
        arrays[name] = array
    return replace(
        program,
        arrays=arrays,
        plates=program.plates | {"rows": replace(plate, size=2 * plate.size)},
    )


# Programs that random ones found: each was wrong, or refused, once
# ---------------------------------------------------


def test_multiplicity_of_a_plate_of_one_row():
    def model(counts):
        z = numpyro.sample("z", dist.Categorical(jnp.array([0.2, 0.3, 0.5])))
        with numpyro.plate("rows", 1), handlers.scale(scale=counts):
            numpyro.sample("w", dist.Bernoulli(probs=jnp.array([0.2, 0.4, 0.9])[z]))

    np.testing.assert_allclose(
        EM(model).log_likelihood({}, jnp.array([2.0])), 0.0, **TOLERANCE
    )  # nothing is observed


def test_copies_declared_before_what_they_are_copies_within():
    weights, chance = np.array([0.3, 0.7]), np.array([[0.2, 0.6], [0.9, 0.5]])

    def model(counts, x):
        with numpyro.plate("rows", 1), handlers.scale(scale=counts):
            w = numpyro.sample("w", dist.Bernoulli(0.4))
        z = numpyro.sample("z", dist.Categorical(jnp.array(weights)))
        with numpyro.plate("rows", 1), handlers.scale(scale=counts):
            numpyro.sample("x", dist.Bernoulli(jnp.array(chance)[z, w]), obs=x)

    expected = np.log(weights @ (chance @ [0.6, 0.4]) ** 2)  # two copies of w and x for one z
    np.testing.assert_allclose(
        EM(model).log_likelihood({}, jnp.array([2.0]), jnp.array([1])), expected, **TOLERANCE
    )


def test_transposed_table_beside_another_is_no_loop():
    loc, scale = (
        jnp.array([[1.0, 2.0, 3.0], [0.5, 1.0, 1.0]]),
        jnp.array([[1.0, 2.0, 3.0], [0.5, 1.5, 1.0]]),
    )

    def model(item, x):
        scales = numpyro.param("scales", jnp.ones((2, 3)), constraint=constraints.positive)
        with numpyro.plate("items", 2, dim=-2):
            z = numpyro.sample("z", dist.Categorical(jnp.array([0.3, 0.7])))
        with numpyro.plate("labels", 2, dim=-2):
            z = z[item]
            law = dist.Normal(loc[z], jnp.moveaxis(scales.T[:, z], 0, -1)).to_event(1)
            numpyro.sample("x", law, obs=x)

    data = jnp.array([1, 1]), jnp.array([[[1.0, 0.2, 0.4]], [[0.3, 2.0, 1.5]]])
    table = joint_table(model, {"scales": scale}, *data)
    np.testing.assert_allclose(
        EM(model).log_likelihood({"scales": scale}, *data), table.log_likelihood, **TOLERANCE
    )


# The generator itself: no engine below this line
# ---------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
def test_random_program_samples_and_its_table_is_complete(seed):
    program = program_from_seed(seed)
    unobserved = program.data | {site.name: None for site in program.sites if site.support is None}
    model = handlers.seed(
        handlers.substitute(program.model, data=program.params), jax.random.key(seed)
    )
    trace = handlers.trace(model)
    sampled = jax.jit(
        lambda: {name: site["value"] for name, site in trace.get_trace(unobserved).items()}
    )()
    table = table_of(program)
    assert np.isfinite(table.log_likelihood)
    assert len(table.complete_log_likelihood) == program.num_assignments
    assert list(table.latents) == [site.latent_name for site in program.latents]
    for site in program.latents:
        latent = table.latents[site.latent_name]
        assert tuple(latent.support) == site.support
        assert latent.shape == program.shape(site.plates) == sampled[site.name].shape


def test_a_seed_is_a_program():
    assert repr(program_from_seed(4)) == repr(program_from_seed(4))


def test_no_repetition_changes_nothing():
    program = program_from_seed(1, has_multiplicities=True)
    arrays = dict(program.arrays)
    for key in program.counts.values():
        arrays[key] = replace(arrays[key], values=np.ones(arrays[key].values.shape))
    copies = expanded(replace(program, arrays=arrays))
    plain = replace(program, counts={})
    np.testing.assert_allclose(
        table_of(copies).log_likelihood, table_of(plain).log_likelihood, rtol=1e-12
    )


def test_repeated_words_of_repeated_documents_are_powers():
    documents, words = Plate("documents", 2, -2), Plate("words", 2, -1, parent="documents")
    both = ("documents", "words")
    theme, topic = np.array([0.3, 0.7]), np.array([[0.9, 0.1], [0.2, 0.8]])
    word = np.array([[0.5, 0.2, 0.3], [0.1, 0.6, 0.3]])
    seen = np.array([[0, 2], [1, 1]])
    document_counts, word_counts = np.array([[2.0], [1.0]]), np.array([[1.0, 2.0], [3.0, 1.0]])
    program = Program(
        plates={"documents": documents, "words": words},
        sites=(
            Site("theme", ("documents",), "dist.Categorical(probs=theme_table)", (0, 1)),
            Site("topic", both, "dist.Categorical(probs=topic_table[theme])", (0, 1)),
            Site("word", both, "dist.Categorical(probs=word_table[topic])"),
        ),
        parameters={},
        constants={"theme_table": theme, "topic_table": topic, "word_table": word},
        arrays={
            "word": Array(seen, both),
            "document_counts": Array(document_counts, ("documents",)),
            "word_counts": Array(word_counts, both),
        },
        counts={"documents": "document_counts", "words": "word_counts"},
    )
    mixed = np.einsum("ht,tdw->hdw", topic, word[:, seen])  # p(word | theme)
    of_document = theme @ np.prod(mixed**word_counts, -1)
    copies = expanded(program)
    assert aligned_shape([copies.plates["documents"], copies.plates["words"]]) == (3, 4)
    table = table_of(copies)
    np.testing.assert_allclose(
        table.log_likelihood, np.log(of_document) @ document_counts[:, 0], rtol=1e-12
    )
    np.testing.assert_array_equal(copies.origin["theme"].values.ravel(), [0, 0, 1])
    np.testing.assert_array_equal(
        copies.origin["topic"].values, [[0, 1, 1, -1]] * 2 + [[2, 2, 2, 3]]
    )
