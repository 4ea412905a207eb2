"""Each update derived by hand is held against the definition of EM: brute force over every latent,
no engine.

A case states log p(x_row, z_row) in `scipy.stats` terms, apart from the module that it tests. Rows
are independent given the parameters, so the joint over all of z is a sum over one entry for each
row, and `itertools.product` lists every z. A row of multiplicity 2 is listed as two rows. A row of
a hidden Markov model is a sequence, and its z a path.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro.infer.util import log_density

from emjax.models import (
    annotators,
    coins,
    dawid_skene,
    gaussian_mixture,
    grades,
    hidden_markov,
    k_means,
    latent_class,
    mixture_emission_hmm,
    motif,
    topics,
)
from tests.models.cases_by_hand import (
    CASES,
    HEADS,
    directions_from,
    every_case,
    expected_log_likelihood,
    log_likelihood,
    moved,
    posterior_at,
    two_clouds,
)
from tests.oracles.by_numpy import evaluated

# ---------------------------------------------------------------- what holds for every model


@pytest.mark.sampled
@every_case
def test_the_step_never_decreases_the_brute_force_log_likelihood(case):
    params, trajectory = case.start, [log_likelihood(case, case.start)]
    for _ in range(50):
        params = case.next(params)
        trajectory.append(log_likelihood(case, params))
    # Rounding of a sum of about 100 terms of size |log p|.
    assert np.all(np.diff(trajectory) >= -1e-13 * np.abs(trajectory[:-1]))
    assert trajectory[-1] > trajectory[0]


INTERIOR = {name: case for name, case in CASES.items() if name != "weighted coins, hard"}


"""All but the case of a coin that nobody chooses: its weight is 0, at the edge of the simplex."""


@pytest.mark.sampled
@pytest.mark.parametrize("case", INTERIOR.values(), ids=INTERIOR.keys())
def test_the_expected_log_likelihood_is_flat_and_largest_where_the_step_arrives(case):
    arrived, posterior = case.next(case.start), posterior_at(case, case.start)
    largest = expected_log_likelihood(case, arrived, posterior)

    def along(directions, size):
        return expected_log_likelihood(case, moved(case, arrived, directions, size), posterior)

    for directions in directions_from(9, arrived, 6):
        ahead, behind, twice_ahead, twice_behind = (
            along(directions, size) for size in (1e-4, -1e-4, 2e-4, -2e-4)
        )
        # Five-point derivative: rounding of 1e-13 / 1e-4, and a fifth derivative (up to 1e7 here)
        # times 1e-16 / 30.
        assert abs(8 * (ahead - behind) - (twice_ahead - twice_behind)) / 12e-4 < 1e-8
        assert max(along(directions, 0.1), along(directions, -0.1)) < largest


@every_case
def test_the_program_has_the_density_of_the_formulas(case):
    table = np.asarray(case.log_joint(case.start))
    multiplicity = np.ones(len(table)) if case.multiplicity is None else case.multiplicity
    z = np.where(
        np.isfinite(table), np.random.default_rng(10).uniform(size=table.shape), -1
    ).argmax(axis=1)
    expected = multiplicity @ table[np.arange(len(table)), z]
    values = case.latents(z) if case.latents else {} if case.latent is None else {case.latent: z}
    with jax.enable_x64(True):
        actual = evaluated(
            lambda at: log_density(case.program, case.args, {}, at)[0],
            jax.tree.map(jnp.asarray, case.start | values),
        )
    np.testing.assert_allclose(actual, expected, rtol=1e-12)


@pytest.mark.sampled
@every_case
def test_the_program_runs_forward_and_starts_inside_its_constraints(case):
    def forward():
        """Return the parameters, whether each is inside its constraint, and the log-density of what
        was drawn.
        """
        seeded = numpyro.handlers.seed(numpyro.handlers.uncondition(case.program), 11)
        trace = numpyro.handlers.trace(seeded).get_trace(*case.args)
        sites = {name: site for name, site in trace.items() if site["type"] == "param"}
        params = {name: site["value"] for name, site in sites.items()}
        constraint = {
            name: site["kwargs"].get("constraint", numpyro.distributions.constraints.real)
            for name, site in sites.items()
        }
        observed = trace[case.observed]
        return (
            params,
            {name: constraint[name](value) for name, value in params.items()},
            observed["fn"].log_prob(observed["value"]),
        )

    is_drawn_in_numbers = case.module is motif  # a multinomial of computed totals
    params, is_inside, log_prob = forward() if is_drawn_in_numbers else evaluated(forward)
    assert {name: value.shape for name, value in params.items()} == {
        name: value.shape for name, value in case.start.items()
    }
    assert all(np.all(inside) for inside in is_inside.values())
    assert np.all(np.isfinite(log_prob))
    arrived = case.next(params)
    assert all(np.all(np.isfinite(value)) for value in arrived.values())


@every_case
def test_the_step_uses_numpy_alone_in_float64_and_leaves_its_arguments_as_they_were(
    case, monkeypatch
):
    entering = {name: value.copy() for name, value in case.start.items()}
    for name in ("jax", "jnp", "numpyro", "dist", "constraints", "scan"):
        monkeypatch.setattr(case.module, name, None, raising=False)
    arrived = case.next(case.start)
    assert list(arrived) == list(case.start)
    for name, value in arrived.items():
        assert (
            isinstance(value, np.ndarray)
            and value.dtype == np.float64
            and value.shape == entering[name].shape
        )
        assert np.array_equal(case.start[name], entering[name])


# ---------------------------------------------------------------- what is particular to one


def test_an_annotator_outside_the_interval_is_good_for_certain():
    scores = np.array([[0.2, 0.9, 1.5], [0.3, 0.1, 0.4]])
    arrived = annotators.hand_derived_step({"mu": np.zeros(2), "sigma": 0.01, "pi": 0.5}, scores)
    # Columns 0 and 1 lie 20 sd and more from mu on some image: bad. Column 2 is impossible for a
    # bad annotator.
    np.testing.assert_allclose(arrived["mu"], scores[:, 2], rtol=1e-12)
    np.testing.assert_allclose(arrived["pi"], 1 / 3, rtol=1e-12)


def test_when_nobody_is_good_the_images_stay_where_they_are():
    entering = {"mu": np.array([0.1, 0.2]), "sigma": np.array(0.3), "pi": np.array(0.0)}
    arrived = annotators.hand_derived_step(entering, np.array([[0.1, 0.9], [0.3, 0.1]]))
    assert all(np.array_equal(arrived[name], entering[name]) for name in entering)


def test_coins_follow_the_published_figure():
    params = {"bias": np.array([0.6, 0.5])}
    heads = np.array([5, 9, 8, 4, 7])
    first = coins.hand_derived_step(params, heads)
    np.testing.assert_array_equal(first["bias"].round(2), [0.71, 0.58])
    for _ in range(10):
        params = coins.hand_derived_step(params, heads)
    np.testing.assert_array_equal(params["bias"].round(2), [0.80, 0.52])


def test_coins_that_never_show_heads_and_long_sets_do_not_underflow():
    arrived = coins.hand_derived_step(
        {"bias": np.array([0.0, 0.5])}, np.array([0, 50_000]), 100_000
    )
    np.testing.assert_allclose(arrived["bias"], [0.0, 0.5], rtol=1e-12)


def test_hard_assignments_give_ties_to_the_first():
    arrived = coins.hand_derived_step({"bias": np.array([0.5, 0.5])}, np.array([3, 4]), hard=True)
    np.testing.assert_allclose(arrived["bias"], [0.35, 0.5], rtol=1e-15)
    arrived = k_means.hand_derived_step(
        {"loc": np.array([[-1.0], [1.0]])}, np.array([[0.0], [3.0]]), 2
    )
    np.testing.assert_array_equal(arrived["loc"], [[0.0], [3.0]])


def test_a_coin_that_is_never_picked_stays_where_it_is():
    entering = {"weights": np.array([1.0, 0.0]), "bias": np.array([0.4, 0.9])}
    arrived = coins.weighted_hand_derived_step(entering, HEADS, 10, 2)
    np.testing.assert_allclose(arrived["bias"], [HEADS.mean() / 10, 0.9], rtol=1e-14)
    np.testing.assert_array_equal(arrived["weights"], [1.0, 0.0])


@pytest.mark.parametrize("covariance", gaussian_mixture.COVARIANCES)
def test_a_component_without_responsibility_stays_where_it_is(covariance):
    case = CASES[f"mixture, {covariance}"]
    entering = case.start | {"weights": np.array([1.0, 0.0])}
    arrived = case.next(entering)
    np.testing.assert_array_equal(arrived["weights"], [1.0, 0.0])
    np.testing.assert_array_equal(arrived["loc"][1], entering["loc"][1])
    data = case.args[0]
    if covariance == "tied":
        np.testing.assert_allclose(arrived["covariance"], np.cov(data.T, bias=True), rtol=1e-12)
    else:
        name = "covariance" if covariance == "full" else "scale"
        np.testing.assert_allclose(arrived[name][1], entering[name][1], rtol=1e-15)


def test_a_single_component_is_the_sample_mean_and_covariance_even_far_from_zero():
    data = two_clouds(2) + 1e6
    entering = {"weights": np.ones(1), "loc": data[:1], "covariance": np.eye(2)[None]}
    arrived = gaussian_mixture.hand_derived_step(entering, data, 1)
    # The data themselves are rounded to 1e6 · 1e-16, so their squares about the mean to about
    # 1e-10.
    np.testing.assert_allclose(arrived["covariance"][0], np.cov(data.T, bias=True), rtol=1e-9)


def test_one_dimension_is_the_diagonal_mixture_of_one_column():
    case = CASES["mixture, one-dimensional"]
    column = {
        name: value if name == "weights" else value[:, None] for name, value in case.start.items()
    }
    arrived = gaussian_mixture.hand_derived_step(column, case.args[0][:, None], 2, "diagonal")
    for name, value in case.next(case.start).items():
        np.testing.assert_allclose(value, arrived[name].reshape(value.shape), rtol=1e-14)


@pytest.mark.parametrize("covariance", ["spherical", "diagonal"])
def test_under_a_floor_no_scale_allowed_is_better(covariance):
    case = CASES[f"mixture, {covariance}"]
    free = case.next(case.start)
    floor = np.median(free["scale"])
    arrived = gaussian_mixture.hand_derived_step(case.start, *case.args, floor)
    assert arrived["scale"].min() == floor and arrived["scale"].max() > floor
    posterior = posterior_at(case, case.start)
    largest = expected_log_likelihood(case, arrived, posterior)
    for directions in directions_from(12, arrived, 20):
        other = moved(case, arrived, directions, 0.02)
        other["scale"] = np.maximum(other["scale"], floor)
        assert expected_log_likelihood(case, other, posterior) < largest


def test_the_floor_keeps_a_component_on_a_single_point():
    data = np.array([0.0, 1.0, 2.0, 50.0])
    params = {"weights": np.full(2, 0.5), "loc": np.array([1.0, 50.0]), "scale": np.ones(2)}
    for _ in range(20):
        params = gaussian_mixture.hand_derived_step(params, data, 2, scale_floor=0.1)
    np.testing.assert_allclose(params["loc"], [1.0, 50.0], rtol=1e-12)
    np.testing.assert_allclose(params["scale"], [np.sqrt(2 / 3), 0.1], rtol=1e-12)
    program = numpyro.handlers.seed(gaussian_mixture.program, 0)
    constraint = numpyro.handlers.trace(program).get_trace(data, 2, scale_floor=0.1)["scale"][
        "kwargs"
    ]["constraint"]
    assert constraint.lower_bound == 0.1


@pytest.mark.parametrize(
    "step", [gaussian_mixture.hand_derived_step, None], ids=["by hand", "program"]
)
def test_mixtures_refuse_what_they_cannot_do(step):
    def attempt(*args):
        return step({}, *args) if step else gaussian_mixture.program(*args)

    with pytest.raises(
        ValueError, match=r"covariance='round' is unknown: choose one of spherical, diagonal"
    ):
        attempt(np.zeros((3, 2)), 2, "round")
    with pytest.raises(
        ValueError, match=r"scale_floor bounds a `scale`, and covariance='full' has none"
    ):
        attempt(np.zeros((3, 2)), 2, "full", 0.1)
    with pytest.raises(ValueError, match=r"data have 3 dimensions"):
        attempt(np.zeros((3, 2, 2)), 2)


def test_a_cluster_that_no_point_chose_stays_where_it_is():
    entering = {"loc": np.array([[0.0, 0.0], [100.0, 100.0]])}
    arrived = k_means.hand_derived_step(entering, np.array([[1.0, 2.0], [3.0, 4.0]]), 2)
    np.testing.assert_array_equal(arrived["loc"], [[2.0, 3.0], [100.0, 100.0]])


def test_a_topic_that_lacks_a_word_cannot_have_written_it_and_stays():
    words = np.array([[0.5, 0.5, 0.0], [0.2, 0.3, 0.5], [1.0, 0.0, 0.0]])
    entering = {"weights": np.array([0.5, 0.5, 0.0]), "words": words}
    counts = np.array([[0, 1, 3], [2, 2, 1]])
    arrived = topics.mixture_hand_derived_step(entering, counts, 3)
    np.testing.assert_array_equal(arrived["weights"], [0.0, 1.0, 0.0])
    np.testing.assert_allclose(
        arrived["words"], [words[0], [2 / 9, 3 / 9, 4 / 9], words[2]], rtol=1e-15
    )


def test_topics_on_rows_are_topics_on_counts_by_hand():
    words = np.array([[0.5, 0.5, 0.0], [0.2, 0.3, 0.5], [1.0, 0.0, 0.0]])
    entering = {"weights": np.array([0.5, 0.3, 0.2]), "words": words}
    counts = np.array([[0, 1, 3], [2, 2, 0], [0, 0, 0]])
    expected = topics.mixture_hand_derived_step(entering, counts, 3)
    document, word = np.nonzero(counts)
    every = tuple(
        np.indices(counts.shape).reshape(2, -1)
    )  # a count of 0 of a word that a topic lacks
    for rows in ((document, word), every):
        arrived = topics.sparse_mixture_hand_derived_step(
            entering, *rows, counts[rows], *counts.shape, 3
        )
        for name, value in expected.items():
            np.testing.assert_allclose(arrived[name], value, rtol=1e-14, atol=1e-15)


def test_an_item_that_is_known_and_an_annotator_who_never_saw_its_class():
    item, annotator, label = np.array([0, 1, 1]), np.array([0, 0, 1]), np.array([0, 1, 1])
    confusion = np.array([[[0.9, 0.1], [0.0, 1.0]], [[0.6, 0.4], [0.3, 0.7]]])
    entering = {"prevalence": np.array([0.5, 0.5]), "confusion": confusion}
    arrived = dawid_skene.hand_derived_step(entering, item, annotator, label, 2, 2, 2)
    # Annotator 0 says 0 of class 0 alone, so item 0 is of class 0; item 1 is of class 1 with odds
    # of 0.7 to 0.1 · 0.4.
    p = 0.7 / 0.74
    np.testing.assert_allclose(arrived["prevalence"], [(2 - p) / 2, p / 2], rtol=1e-14)
    np.testing.assert_allclose(
        arrived["confusion"][0], [[1 / (2 - p), (1 - p) / (2 - p)], [0, 1]], rtol=1e-14
    )
    np.testing.assert_allclose(arrived["confusion"][1], [[0, 1], [0, 1]], rtol=1e-14)
    certain = {"prevalence": np.array([1.0, 0.0]), "confusion": confusion}
    arrived = dawid_skene.hand_derived_step(certain, item[:1], annotator[:1], label[:1], 1, 2, 2)
    np.testing.assert_array_equal(arrived["confusion"], [[[1, 0], confusion[0, 1]], confusion[1]])


def test_a_class_that_never_answers_so_is_ruled_out():
    entering = {
        "weights": np.array([0.5, 0.3, 0.2]),
        "probs": np.array([[0.0, 0.5], [0.5, 0.5], [0.5, 1.0]]),
    }
    arrived = latent_class.hand_derived_step(entering, np.array([[1, 0]]), 3)
    np.testing.assert_array_equal(arrived["weights"], [0, 1, 0])
    np.testing.assert_array_equal(
        arrived["probs"], [[0.0, 0.5], [1.0, 0.0], [0.5, 1.0]]
    )  # only class 1 could have


def test_a_document_without_tokens_and_a_topic_without_words_stay():
    entering = {
        "theta": np.array([[1.0, 0.0], [0.3, 0.7]]),
        "words": np.array([[0.5, 0.5], [0.9, 0.1]]),
    }
    zeros = np.zeros(2, int)
    arrived = topics.plsa_hand_derived_step(
        entering, zeros, np.array([0, 1]), np.array([1, 3]), 2, 2, 2
    )
    np.testing.assert_array_equal(arrived["theta"], entering["theta"])
    np.testing.assert_allclose(arrived["words"], [[0.25, 0.75], [0.9, 0.1]], rtol=1e-15)


def test_a_letter_that_the_background_lacks_is_the_motif():
    entering = {"background": np.array([0.5, 0.5, 0.0, 0.0]), "motif": np.full((1, 4), 0.25)}
    letters = np.array([[0, 1, 2, 0], [3, 0, 1, -1]])
    arrived = motif.hand_derived_step(entering, letters, 1)
    np.testing.assert_allclose(arrived["background"], [0.6, 0.4, 0, 0], rtol=1e-15)
    np.testing.assert_allclose(arrived["motif"], [[0, 0, 0.5, 0.5]], rtol=1e-15)
    assert (
        motif.zoops_hand_derived_step(entering | {"occurrence": 0.1}, letters, 1)["occurrence"] == 1
    )


def test_sequences_as_long_as_the_motif_leave_the_background_alone():
    entering = {"background": np.array([0.1, 0.2, 0.3, 0.4]), "motif": np.full((3, 4), 0.25)}
    arrived = motif.hand_derived_step(entering, np.array([[0, 1, 3], [0, 2, 3]]), 3)
    np.testing.assert_array_equal(arrived["background"], entering["background"])
    np.testing.assert_allclose(
        arrived["motif"], [[1, 0, 0, 0], [0, 0.5, 0.5, 0], [0, 0, 0, 1]], rtol=1e-15
    )


def test_grades_that_are_known_take_one_step():
    arrived = grades.hand_derived_step({"theta": 0.25}, np.array([14, 6, 4]))
    np.testing.assert_allclose(arrived["theta"], 4 / 20, rtol=1e-15)
    assert grades.hand_derived_step({"theta": 0.2}, np.array([14, 0, 0]))["theta"] == 0.2


@pytest.mark.parametrize("num_c", [0, 10, 30, 70, 100])
def test_partial_grades_converge_to_the_closed_form_at_the_predicted_rate(num_c):
    best, params, errors = min(num_c / 100, 0.5), {"theta": np.array(0.25)}, []
    for _ in range(200):
        params = grades.partial_hand_derived_step(params, num_c, 100)
        errors.append(abs(params["theta"] - best))
    np.testing.assert_allclose(params["theta"], best, rtol=1e-14)
    # The ratio approaches the rate as the error vanishes: read it where the error is still far
    # above rounding.
    small = [i for i in range(199) if 1e-10 < errors[i] < 1e-7]
    for i in small:
        np.testing.assert_allclose(
            errors[i + 1] / errors[i], grades.convergence_rate(num_c, 100), rtol=1e-4
        )
    assert small or num_c in (0, 100)


def test_the_rate_is_the_derivative_of_the_step_at_the_maximum():
    ahead, behind = (
        grades.partial_hand_derived_step({"theta": 0.2 + size}, 20, 100)["theta"]
        for size in (1e-6, -1e-6)
    )
    np.testing.assert_allclose((ahead - behind) / 2e-6, grades.convergence_rate(20, 100), rtol=1e-8)
    assert grades.convergence_rate(50, 100) == 1.0
    with pytest.raises(ValueError, match=r"num_c=3 must lie between 0 and num_total=2"):
        grades.convergence_rate(3, 2)


def test_states_that_are_seen_are_counted():
    data, lengths = np.array([[0, 1], [0, 0], [1, 9], [1, 9]]), np.array([4, 2])
    entering = {
        "initial": np.full(2, 0.5),
        "transition": np.array([[0.5, 0.5], [0.2, 0.8]]),
        "emission": np.eye(2, 10),
    }
    arrived = hidden_markov.categorical_hand_derived_step(entering, data, lengths, 2, 10)
    np.testing.assert_allclose(arrived["initial"], [1 / 2, 1 / 2], rtol=1e-15)
    np.testing.assert_allclose(
        arrived["transition"], [[1 / 2, 1 / 2], [1 / 2, 1 / 2]], rtol=1e-15
    )  # 00 01 11, and 10
    np.testing.assert_array_equal(arrived["emission"], entering["emission"])


@pytest.mark.parametrize("name", ["categorical", "diagonal", "full", "Poisson", "mixture"])
def test_a_state_that_is_never_reached_stays(name):
    case = CASES[f"hidden Markov, {name}"]
    entering = case.start | {
        "initial": np.array([1.0, 0.0]),
        "transition": np.array([[1.0, 0.0], [0.3, 0.7]]),
    }
    arrived = case.next(entering)
    for parameter in ("initial", "transition"):
        np.testing.assert_array_equal(arrived[parameter], entering[parameter])
    for parameter in arrived.keys() - {"initial", "transition"}:
        np.testing.assert_allclose(arrived[parameter][1], entering[parameter][1], rtol=1e-15)
        assert not np.allclose(arrived[parameter][0], entering[parameter][0])


def test_a_state_that_is_never_left_keeps_its_row():
    entering = {
        "initial": np.array([0.4, 0.6]),
        "transition": np.array([[0.5, 0.5], [0.2, 0.8]]),
        "rate": np.array([1.0, 2.0]),
    }
    arrived = hidden_markov.poisson_hand_derived_step(
        entering, np.array([[3, 0, 1]]), np.array([1, 1, 1]), 2
    )
    np.testing.assert_array_equal(arrived["transition"], entering["transition"])
    assert arrived["initial"].sum() == 1 and arrived["rate"][1] > arrived["rate"][0]


def test_a_rate_of_zero_explains_nothing_else():
    entering = {
        "initial": np.array([0.5, 0.5]),
        "transition": np.full((2, 2), 0.5),
        "rate": np.array([0.0, 2.0]),
    }
    arrived = hidden_markov.poisson_hand_derived_step(
        entering, np.array([[0], [3]]), np.array([2]), 2
    )
    p = 1 / (1 + np.exp(-2.0))  # no event at a rate of zero, or of two
    np.testing.assert_allclose(arrived["initial"], [p, 1 - p], rtol=1e-14)
    np.testing.assert_allclose(arrived["rate"], [0, 3 / (2 - p)], rtol=1e-14)


def test_one_component_of_a_mixture_is_the_gaussian_itself():
    data, lengths, *_ = CASES["hidden Markov, diagonal"].args
    plain = CASES["hidden Markov, diagonal"].start
    mixed = plain | {
        "weights": np.ones((2, 1)),
        "loc": plain["loc"][:, None],
        "scale": plain["scale"][:, None],
    }
    for _ in range(20):
        plain = hidden_markov.gaussian_hand_derived_step(plain, data, lengths, 2)
        mixed = mixture_emission_hmm.hand_derived_step(mixed, data, lengths, 2, 1)
        for name, value in plain.items():
            np.testing.assert_allclose(
                mixed[name].reshape(value.shape), value, rtol=1e-11, atol=1e-13
            )


@pytest.mark.parametrize(
    "step", [hidden_markov.gaussian_hand_derived_step, None], ids=["by hand", "program"]
)
def test_a_hidden_markov_model_refuses_an_unknown_covariance(step):
    args = np.zeros((3, 1, 2)), np.array([3]), 2, "tied"
    with pytest.raises(
        ValueError, match=r"covariance='tied' is unknown: choose one of diagonal, full"
    ):
        step({}, *args) if step else hidden_markov.gaussian_program(*args)
