"""The numbers that the experiments print, and the command that runs them."""

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
import pytest

from emjax import EM, compare_updates, labeled
from experiments import (
    annotators,
    canvas,
    coins,
    corpora,
    gaussian_mixture,
    grades,
    hidden_markov,
    logo,
    model_choice,
    motif,
    report,
    restarts,
    segmentation,
    semi_supervised,
    styles,
    topics,
)
from experiments.__main__ import EXPERIMENTS, main
from experiments.iterates import iterates

ROOT = Path(__file__).parents[2]

# one EM for several tests: each compiles once
SOFT_COINS = coins.soft_em()
PARTIAL_GRADES = EM(grades.grades.partial_program)
ONE_MOTIF, ONE_MOTIF_OR_NONE = motif.search.exactly_one(), motif.search.zero_or_one()
METHODS = gaussian_mixture.methods(num_restarts=4)
BAUM_WELCH = hidden_markov.earthquakes.soft_em()


@cache
def earthquakes(num_states):
    """Where EM ends from the book's start."""
    return hidden_markov.earthquakes.fit(BAUM_WELCH, num_states)


def command(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "experiments", *arguments], cwd=ROOT, capture_output=True, text=True
    )


def test_list_names_every_experiment_and_its_question():
    lines = command("--list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(EXPERIMENTS)
    assert all(line.endswith("?") for line in lines)


def test_unknown_experiment_is_refused_with_the_names_that_exist():
    refused = command("coin")
    assert refused.returncode == 2
    assert "no experiment named coin; there are: coins, annotators" in refused.stderr


def test_experiment_prints_its_tables_and_writes_its_figures(tmp_path, capsys):
    before = dict(matplotlib.rcParams)
    main(["grades", "--quick", "--output", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "grades took" in printed
    assert printed.count("they agree") == 2
    figures = re.findall(r"figure: (.*\.png)", printed)
    assert figures and all(Path(figure).stat().st_size > 20_000 for figure in figures)
    assert dict(matplotlib.rcParams) == before


def test_coins_soft_em_gives_the_published_numbers():
    em = SOFT_COINS
    np.testing.assert_allclose(
        coins.responsibilities(em, coins.START), [0.45, 0.80, 0.73, 0.35, 0.65], atol=0.005
    )
    np.testing.assert_allclose(coins.biases(em, coins.START, 1)[1], [0.713, 0.581], atol=5e-4)
    found = em.run(jax.random.key(0), coins.HEADS, init_params=coins.START)
    np.testing.assert_allclose(found.params["bias"], [0.7968, 0.5196], atol=5e-5)


def test_coins_hard_em_stays_where_it_lands_and_comes_back_from_the_slide():
    em = coins.hard_em()
    np.testing.assert_allclose(coins.biases(em, coins.START, 3)[1:], [[0.80, 0.45]] * 3)
    np.testing.assert_allclose(coins.biases(em, coins.SLIDE, 3)[-1], [0.80, 0.45])


def test_coins_known_coins_and_a_new_set():
    np.testing.assert_allclose(coins.supervised(), [0.80, 0.45])
    found = SOFT_COINS.run(jax.random.key(0), coins.HEADS, init_params=coins.START)
    bias = np.array([0.7968, 0.5196])
    odds = bias**6 * (1 - bias) ** 4
    np.testing.assert_allclose(
        coins.responsibilities(SOFT_COINS, found.params, coins.NEW_SET),
        odds[0] / odds.sum(),
        atol=1e-4,
    )


def test_annotators_landscape_has_the_optima_of_the_lecture():
    em = annotators.scores.lecture_em()
    everyone = annotators.scores.end_of(
        em, annotators.scores.start_from(annotators.scores.ALL_GOOD)
    )
    assert (everyone.name, round(everyone.sigma, 4), round(everyone.log_likelihood, 3)) == (
        "all good",
        0.0947,
        14.074,
    )
    without_4 = annotators.scores.end_of(em, annotators.scores.start_from((0, 1, 2, 3)))
    assert (without_4.name, round(without_4.log_likelihood, 3)) == ("0, 1, 2, 3 good", 13.547)
    assert (
        annotators.scores.end_of(em, annotators.scores.start_from(annotators.scores.LECTURE)).name
        == "0, 1, 2, 3 good"
    )
    assert np.isinf(annotators.scores.end_of(em, annotators.scores.start_from((4,))).log_likelihood)


def test_annotators_likelihood_has_no_bound():
    heights = annotators.scores.along_sigma(
        annotators.scores.lecture_em(), (4,), np.array([1e-3, 1e-4, 1e-5])
    )
    np.testing.assert_allclose(
        np.diff(heights), 3 * np.log(10), rtol=1e-5
    )  # σ⁻³: a factor for each image


def test_starts_of_the_annotators_find_the_optima_of_the_lecture_and_those_without_bound():
    found = restarts.annotators.ends_of_starts(
        12, kinds=(restarts.landscape.OWN, restarts.landscape.RANDOM, restarts.landscape.PRIORS)
    )
    assert [found.total(kind) for kind in found.names] == [1, 12, 12]
    optima = {restarts.annotators.end_name(optimum): optimum for optimum in found.optima}
    for name, value in (("all good", 14.074), ("4 good", 13.547)):
        assert round(optima[name].objective, 3) == value
        assert found.counts(optima[name])[restarts.landscape.RANDOM] > 0
    assert optima["σ → 0"].degenerate and set(found.counts(optima["σ → 0"])) == {
        restarts.landscape.PRIORS
    }


def test_starts_needed_find_the_best_with_probability_95():
    assert [restarts.gaussians.starts_needed(share) for share in (0.0, 1.0, 0.5, 0.05)] == [
        "–",
        "1",
        "5",
        "59",
    ]


def test_annotators_are_found_with_enough_images():
    posteriors = annotators.simulation.simulated_posteriors(num_images=30, num_tables=20)
    assert posteriors.shape == (3, 20, 5)
    assert (annotators.simulation.share_found(posteriors)[:2] >= 0.95).all()
    assert (
        annotators.simulation.images_needed({3: np.zeros((3, 4, 5)), 30: posteriors}, noise=0)
        == "30"
    )


def test_simulated_scores_are_close_for_good_annotators_and_random_for_others():
    scores = np.asarray(annotators.simulation.simulated(jax.random.key(0), 500, 0.05))
    assert scores.shape == (500, 5)
    deviations = (
        scores - scores[:, list(annotators.scores.LECTURE)].mean(axis=1, keepdims=True)
    ).std(axis=0)
    assert (deviations[[0, 1, 3]] < 0.06).all()
    assert (deviations[[2, 4]] > 0.25).all()


def test_grades_take_one_step_where_nothing_is_latent():
    first, second = grades.from_all_grades()
    np.testing.assert_allclose([first, second], 20 / (2 * 48), rtol=1e-12)


@pytest.mark.parametrize("num_c", grades.NUMS_C)
def test_grades_converge_at_the_predicted_rate(num_c):
    thetas = grades.from_number_of_cs(PARTIAL_GRADES, num_c)
    share = num_c / grades.NUM_TOTAL
    np.testing.assert_allclose(grades.rate_seen(thetas, num_c), share / (1 - share), rtol=1e-3)


def test_gaussian_mixture_finds_the_three_gaussians():
    clusters = gaussian_mixture.three_gaussians()
    points = jnp.asarray(clusters.points)
    em = METHODS["EM"]
    path, objective = iterates(
        em, gaussian_mixture.three_gaussians_start(), points, 3, num_steps=20
    )
    assert len(points) == 500
    assert np.diff(objective).min() > 0
    labels = np.asarray(em.posterior(path[-1], points, 3)["component"]).argmax(axis=1)
    order = gaussian_mixture.match(labels, clusters.labels, 3)
    assert (np.argsort(order)[labels] == clusters.labels).mean() > 0.95


@pytest.mark.parametrize("name", ["wide", "narrow"])
def test_em_beats_k_means_where_hard_assignment_fails(name):
    case = gaussian_mixture.hard_cases()[name]
    results = {method: gaussian_mixture.fit(em, case) for method, em in METHODS.items()}
    assert results["EM"].accuracy > results["k-means"].accuracy + 0.1


def test_labels_are_drawn_evenly():
    truth = semi_supervised.split()[0].truth
    labels = semi_supervised.some_labels(truth, 80, seed=1)
    assert np.bincount(labels[labels >= 0], minlength=10).tolist() == [8] * 10
    np.testing.assert_array_equal(labels[labels >= 0], truth[labels >= 0])


def test_digits_without_labels_help_where_labels_are_few_and_mislead_naive_bayes_else():
    found = semi_supervised.accuracies(
        semi_supervised.semi_supervised_em(), 2, nums_labels=(20, 320), nums_styles=(1,)
    )
    assert semi_supervised.gain(found, 1, 20) > 0.03
    assert -0.05 < semi_supervised.gain(found, 1, 320) < -0.01
    assert semi_supervised.gain(found, 1, 20, "EM, a tenth") > 0.03
    assert abs(semi_supervised.gain(found, 1, 320, "EM, a tenth")) < 0.015


def test_labeled_classes_of_several_styles_follow_the_update_derived_by_hand():
    rng = np.random.default_rng(0)
    data = (
        rng.integers(0, 4, 12) - 1,
        rng.integers(0, 6, (12, 3)),
        rng.uniform(0.1, 1.0, 12),
        5,
        3,
        2,
    )
    comparison = compare_updates(
        EM(labeled(styles.program, "label")),
        styles.hand_derived_step,
        styles.start(jax.random.key(0), 3, 2, 3),
        *data,
        num_steps=10,
    )
    assert comparison.largest < 1e-12, str(comparison)


@pytest.mark.parametrize(
    "photograph", segmentation.PHOTOGRAPHS, ids=lambda photograph: photograph.name
)
def test_segmentation_tells_the_object_from_the_background(photograph):
    found = segmentation.segmentation(photograph, num_components=2, every=8)
    foreground, background = (
        segmentation.boxed(found.foreground, box, 8).mean()
        for box in (photograph.foreground, photograph.background)
    )
    assert foreground > 0.9
    assert background < 0.1
    assert found.painted.shape == photograph.image(8).shape


def test_constitution_has_every_section():
    sections = corpora.constitution()
    articles = {"I": 10, "II": 4, "III": 3, "IV": 4}
    expected = [
        "Preamble",
        *(f"Article {a}, Section {s}" for a, last in articles.items() for s in range(1, last + 1)),
        "Article V",
        "Article VI",
        "Article VII",
    ]
    assert list(sections)[:25] == expected
    sections_of = {"XIII": 2, "XIV": 5, "XV": 2, "XVIII": 3, "XX": 6, "XXI": 3, "XXII": 2}
    sections_of |= {"XXIII": 2, "XXIV": 2, "XXV": 4, "XXVI": 2}
    units = ["", "I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX"]
    numerals = [tens + unit for tens in ("", "X", "XX") for unit in units][1:28]
    expected = [
        name
        for a in numerals
        for name in (
            [f"Amendment {a}, Section {s}" for s in range(1, sections_of[a] + 1)]
            if a in sections_of
            else [f"Amendment {a}"]
        )
    ]
    assert list(sections)[25:] == expected
    assert sections["Preamble"].startswith(
        "We the People of the United States, in Order to form a more perfect Union"
    )
    assert sections["Amendment XXVII"].endswith(
        "an election of Representatives shall have intervened."
    )
    assert sum(len(text.split()) for text in sections.values()) == 7292


def test_standard_library_is_read_without_being_imported():
    corpus = corpora.standard_library()
    assert {"asyncio.events", "logging", "email.message", "tkinter"} <= set(corpus)
    assert not any(name.startswith(("test", "idlelib", "site-packages", "_")) for name in corpus)
    assert "turtle" in corpus
    assert "turtle" not in sys.modules


def test_word_counts_leave_out_stop_words_and_frequent_words():
    counted = corpora.word_counts(
        {"a": "the apple and the apple", "b": "an apple, a pear", "c": "it is"}, max_share=0.5
    )
    assert counted.documents == ["b"]
    assert counted.words == ["pear"]
    assert counted.counts.tolist() == [[1]]


def test_topics_of_the_constitution_are_distributions_that_tell_words_apart():
    corpus = topics.constitution_counts()
    found = topics.plsa(corpus, num_topics=3, num_restarts=1)
    assert found.shares.shape == (74, 3)
    np.testing.assert_allclose(found.shares.sum(axis=1), 1)
    np.testing.assert_allclose(found.words.sum(axis=1), 1)
    shown = topics.characteristic_words(corpus, found.words)
    assert any("president" in [corpus.words[w] for w in row] for row in shown)


def test_planted_sequences_hold_the_motif_where_they_say():
    sequences = motif.sequences.planted_sequences(0, 400)
    lengths = (sequences.letters >= 0).sum(axis=1)
    assert (lengths.min(), lengths.max()) == motif.sequences.LENGTHS
    assert (sequences.starts + motif.sequences.WIDTH <= lengths).all()
    read = np.take_along_axis(
        sequences.letters, sequences.starts[:, None] + np.arange(motif.sequences.WIDTH), axis=1
    )
    shares = (read[..., None] == np.arange(4)).mean(axis=0)
    np.testing.assert_allclose(
        shares, motif.sequences.planted_motif(), atol=0.08
    )  # three standard deviations
    assert abs(motif.sequences.planted_sequences(1, 400, 0.6).has_one.mean() - 0.6) < 0.08


def test_motif_is_read_early_or_late_until_it_is_realigned():
    sequences = motif.sequences.planted_sequences(0, 100)
    starts = motif.search.word_starts(sequences.letters, 4)
    ends = [motif.search.end_of(ONE_MOTIF, sequences.letters, start) for start in starts]
    assert {-1, 0} <= {motif.search.shift(end, sequences) for end in ends}
    realigned = [motif.search.realigned(ONE_MOTIF, sequences.letters, end) for end in ends]
    for before, after in zip(ends, realigned, strict=True):
        assert motif.search.shift(after, sequences) == 0
        assert (after.log_likelihood > before.log_likelihood + 10) == (
            motif.search.shift(before, sequences) != 0
        )
        assert motif.search.in_place(after, sequences) > 0.85
        np.testing.assert_allclose(
            after.params["motif"], motif.sequences.planted_motif(), atol=0.15
        )


def test_motif_is_found_where_some_sequences_have_none():
    sequences = motif.sequences.planted_sequences(1, 100, motif.sequences.SHARE)
    found = motif.search.best_of(
        ONE_MOTIF_OR_NONE, sequences.letters, motif.search.word_starts(sequences.letters, 2)
    )
    assert abs(found.params["occurrence"] - sequences.has_one.mean()) < 0.1
    assert ((motif.search.places(found, sequences.letters) >= 0) == sequences.has_one).mean() > 0.8
    consensus = "".join("ACGT"[letter] for letter in found.params["motif"].argmax(axis=1))
    assert consensus == motif.sequences.CONSENSUS


def test_moved_motifs_are_read_off_the_data():
    letters = np.full((1, 40), -1)
    letters[0, :36] = np.arange(36) % 4
    starts = np.zeros((1, 40 - motif.sequences.WIDTH + 1))
    starts[0, 13] = 1
    motifs = motif.search.moved(
        motif.search.End({"background": np.full(4, 0.25)}, starts, 0.0), letters
    )
    first = motifs[:, 0].argmax(axis=1)
    expected = [
        start % 4
        for start in range(13 - motif.sequences.WIDTH + 1, 13 + motif.sequences.WIDTH)
        if start != 13
    ]
    assert first.tolist() == expected
    np.testing.assert_allclose(motifs.max(axis=2), 1.25 / 2)
    assert (
        motif.search.profile(motif.search.End({}, starts, 0.0), letters).sum()
        == 3 * motif.sequences.WIDTH - 2
    )  # all inside


def test_logo_is_as_high_as_its_information():
    probs = np.array(
        [[1.0, 0, 0, 0], [0.25, 0.25, 0.25, 0.25], [0.5, 0.5, 0, 0], [0.1, 0.2, 0.6, 0.1]]
    )
    np.testing.assert_allclose(logo.information(probs)[:3], [2, 0, 1])
    axes = matplotlib.figure.Figure().subplots()
    axes.set(xlim=(0, 6), ylim=(0, 2))
    logo.draw_logo(axes, probs, first=2)
    to_data = axes.transData.inverted()
    boxes = [patch.get_window_extent().transformed(to_data) for patch in axes.patches]
    columns = [boxes[4 * i : 4 * i + 4] for i in range(4)]
    for place, column, bits in zip(range(2, 6), columns, logo.information(probs), strict=True):
        np.testing.assert_allclose([(box.x0 + box.x1) / 2 for box in column], place, atol=0.01)
        np.testing.assert_allclose(max(box.y1 for box in column), bits, atol=0.01)
    assert columns[3][-1].height == max(box.height for box in columns[3])  # the commonest on top


def test_earthquakes_are_the_series_of_the_book():
    years, counts = np.loadtxt(
        hidden_markov.earthquakes.SERIES, delimiter=",", skiprows=1, dtype=int, unpack=True
    )
    assert years.tolist() == hidden_markov.earthquakes.YEARS.tolist() == list(range(1900, 2007))
    assert counts.tolist() == hidden_markov.earthquakes.counts().tolist()
    assert (counts.sum(), counts.min(), counts.max()) == (2072, 6, 41)
    np.testing.assert_allclose([counts.mean(), counts.var(ddof=1)], [19.36, 51.57], atol=0.005)


@pytest.mark.parametrize(
    ("num_states", "first_steps"), [(2, [-413.27542, -343.76023]), (3, [-342.90781, -332.12143])]
)
def test_earthquakes_have_the_rates_and_the_likelihood_of_the_book(num_states, first_steps):
    found, book = earthquakes(num_states), hidden_markov.earthquakes.BOOK[num_states]
    np.testing.assert_allclose(found.params["rate"], book.rate, atol=6e-4)
    np.testing.assert_allclose(found.log_likelihood, book.log_likelihood, atol=6e-5)
    np.testing.assert_allclose(found.objective[:2], first_steps, atol=6e-6)
    assert found.status == "converged"


def test_earthquakes_have_the_criteria_of_the_book():
    stationary = {
        n: hidden_markov.earthquakes.criteria(
            hidden_markov.earthquakes.BOOK_STATIONARY[n].log_likelihood, n**2
        )
        for n in (2, 3, 4)
    }
    np.testing.assert_allclose(
        [stationary[n][0] for n in (2, 3, 4)], [692.6, 676.9, 687.7], atol=0.06
    )
    np.testing.assert_allclose(
        [stationary[n][1] for n in (2, 3, 4)], [703.3, 701.0, 730.4], atol=0.06
    )


def test_four_states_of_earthquakes_have_several_maxima_and_three_have_one():
    assert (
        len(
            hidden_markov.earthquakes.maxima(
                hidden_markov.earthquakes.from_random_starts(BAUM_WELCH, 3, 4)
            )
        )
        == 1
    )
    ends = hidden_markov.earthquakes.from_random_starts(BAUM_WELCH, 4, 12)
    found = hidden_markov.earthquakes.maxima(ends)
    heights = [end.log_likelihood for end, _ in found]
    assert len(found) > 2
    assert sum(count for _, count in found) == 12
    assert heights == sorted(heights, reverse=True)
    assert np.diff(heights).max() < -0.01
    assert earthquakes(3).log_likelihood < heights[-1] < heights[0] < -326.2
    assert heights[0] > hidden_markov.earthquakes.BOOK_STATIONARY[4].log_likelihood


def test_most_probable_path_of_the_earthquakes_is_the_best_of_its_neighbors():
    params, counts = earthquakes(3).params, hidden_markov.earthquakes.counts()
    decoded = hidden_markov.earthquakes.path(BAUM_WELCH, params)
    with np.errstate(divide="ignore"):
        initial, transition = np.log(params["initial"]), np.log(params["transition"])

    def log_joint(states):
        emissions = counts * np.log(params["rate"])[states] - params["rate"][states]
        return initial[states[0]] + transition[states[:-1], states[1:]].sum() + emissions.sum()

    stretches = [
        (first, length) for length in (1, 2, 3, 5) for first in range(len(decoded) - length + 1)
    ]
    for first, length in stretches:
        for state in range(3):
            other = decoded.copy()
            other[first : first + length] = state
            assert log_joint(other) <= log_joint(decoded)
    spans = hidden_markov.earthquakes.spans(decoded)
    assert [span for span in spans if span[2] == 2] == [
        (1905, 1910, 2),
        (1942, 1950, 2),
        (1968, 1970, 2),
    ]
    assert (
        np.concatenate([np.full(last - first + 1, state) for first, last, state in spans]).tolist()
        == decoded.tolist()
    )


def test_smoothed_probabilities_of_the_earthquakes_give_the_rates_back():
    params, counts = earthquakes(3).params, hidden_markov.earthquakes.counts()
    smoothed = hidden_markov.earthquakes.smoothed(BAUM_WELCH, params)
    np.testing.assert_allclose(smoothed.sum(axis=1), 1)
    np.testing.assert_allclose(
        smoothed.T @ counts / smoothed.sum(axis=0), params["rate"], rtol=1e-4
    )


def test_viterbi_training_ends_where_the_rates_are_those_of_its_own_path():
    hard = hidden_markov.earthquakes.fit(hidden_markov.earthquakes.hard_em(), 3)
    decoded, counts = (
        hidden_markov.earthquakes.path(BAUM_WELCH, hard.params),
        hidden_markov.earthquakes.counts(),
    )
    np.testing.assert_allclose([counts[decoded == k].mean() for k in range(3)], hard.params["rate"])
    np.testing.assert_allclose(hard.log_likelihood, -329.40206, atol=6e-6)
    assert hard.log_likelihood < earthquakes(3).log_likelihood


def test_a_step_of_hmmlearn_is_that_derived_by_hand():
    pytest.importorskip("hmmlearn")
    args = hidden_markov.earthquakes.start(3), *hidden_markov.earthquakes.data(), 3
    expected = hidden_markov.earthquakes.hidden_markov.poisson_hand_derived_step(*args)
    actual = hidden_markov.tables.hmmlearn_step(*args)
    assert set(actual) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, rtol=1e-10, err_msg=name)


def test_without_hmmlearn_the_experiment_says_so(monkeypatch, capsys):
    monkeypatch.setattr(hidden_markov.tables, "find_spec", lambda name: None)
    hidden_markov.tables.print_hmmlearn(BAUM_WELCH)
    assert "hmmlearn is not installed (pip install hmmlearn" in capsys.readouterr().out


def test_rates_of_the_earthquakes_are_printed_beside_those_of_the_book(capsys):
    hidden_markov.tables.print_fits({num_states: earthquakes(num_states) for num_states in (2, 3)})
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["3", "here", "13.134", "19.713", "29.710", "-328.5275", "679.1", "708.5"] in rows
    assert ["3", "book,", "EM", "13.134", "19.713", "29.710", "-328.5275", "679.1", "708.5"] in rows
    assert ["2", "here", "15.421", "26.018", "-341.8787", "693.8", "707.1"] in rows


def test_one_poisson_of_counts_is_the_one_of_their_mean():
    count = np.bincount([3, 5, 5, 9], minlength=len(model_choice.counts.VALUES)).astype(float)
    soft, hard = model_choice.counts.log_densities(1)(count)
    expected = np.log(model_choice.counts.poisson_probs(5.5))
    np.testing.assert_allclose(soft, expected, rtol=1e-10)
    np.testing.assert_allclose(hard, soft, rtol=1e-12)


def test_bic_is_right_where_the_truth_is_a_model_and_costs_where_none_is():
    among, none = model_choice.counts.truths()
    found = model_choice.counts.simulated(among, (30, 1_000), 10)
    mean = {name: found.regret(name).mean(axis=0) for name in model_choice.criteria.NAMES}
    assert mean["BIC"][0] > mean["CV"][0]  # few samples: too few components
    assert (found.chosen("BIC")[:, 1] == 3).all()
    assert mean["BIC"][1] < mean["CV"][1]
    assert model_choice.counts.verdict(found, (30, 1_000)).startswith(
        "BIC predicts worse than cross-validation only at 30 samples"
    )
    found = model_choice.counts.simulated(none, (30, 1_000), 10)
    mean = {name: found.regret(name).mean(axis=0) for name in model_choice.criteria.NAMES}
    assert (mean["BIC"] > mean["CV"]).all()
    assert "at every size" in model_choice.counts.verdict(found, (30, 1_000))
    assert (
        found.chosen("ICL")[:, 1].mean()
        < found.chosen("BIC")[:, 1].mean()
        < found.chosen("CV")[:, 1].mean()
    )


def test_short_names_of_sections():
    assert [
        topics.short_name(name)
        for name in ("Preamble", "Article I, Section 8", "Amendment XIV, Section 2")
    ] == ["Preamble", "Art. I.8", "Am. XIV.2"]


def test_table_puts_numbers_to_the_right_and_text_to_the_left(capsys):
    report.table(["name", "share"], [["a", "5%"], ["long", "∞"]])
    assert (
        capsys.readouterr().out == "  name  share\n  ----  -----\n  a        5%\n  long      ∞\n\n"
    )


def test_figure_is_saved_where_asked(tmp_path):
    with canvas.figure(tmp_path / "deep" / "f.png", "A finding", "What one sees.") as figure:
        figure.subplots().plot([0, 1])
    assert (tmp_path / "deep" / "f.png").exists()
