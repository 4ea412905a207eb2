"""A fit with its picture for the page of each model: data, run, figure.

A docstring is the caption, and what follows it is what the page shows, without its last line, which
returns the fit.
"""

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from emjax import EM, Fit, plot


def annotators() -> Fit:
    """Of five annotators two drew their scores at random. EM learns of each image's value from the
    others.
    """
    from emjax.models import annotators

    rng = np.random.default_rng(0)
    truth = rng.uniform(0.2, 0.8, size=(20, 1))
    is_good = np.array([True, True, False, True, False])
    scores = np.where(is_good, rng.normal(truth, 0.08, (20, 5)), rng.uniform(size=(20, 5)))

    fit = EM(annotators.program).run(jax.random.key(0), scores.clip(0, 1))
    for column, probability in zip(scores.T, fit.posterior()["good"][:, 1], strict=True):
        plt.plot(fit.params["mu"], column, "o", label=f"p(good) = {probability:.2f}")
    plt.xlabel("value of the image that EM finds")
    plt.ylabel("score")
    plt.legend()
    return fit


def background_mixture() -> Fit:
    """Two clouds, and points that belong to neither."""
    from emjax.models import background_mixture

    rng = np.random.default_rng(0)
    clouds = rng.normal(size=(120, 2)) * 0.5 + np.repeat([[-1.5, 0.0], [1.5, 1.0]], 60, axis=0)
    x = np.concatenate([clouds, rng.uniform(-5, 5, size=(40, 2))])

    fit = EM(background_mixture.program).run(jax.random.key(0), x, 2)
    plot.clusters(fit)
    return fit


def coins() -> Fit:
    """Five sets of ten flips: the log-likelihood after each step."""
    from emjax.models import coins

    heads = np.array([5, 9, 8, 4, 7])

    fit = EM(coins.program, tol=1e-8).run(jax.random.key(0), heads)
    plot.objective(fit)
    return fit


def dawid_skene() -> Fit:
    """Confusion matrices of four annotators; the last one guesses."""
    from emjax.models import dawid_skene

    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, size=60)
    item, annotator = np.repeat(np.arange(60), 4), np.tile(np.arange(4), 60)
    is_right = rng.random(240) < np.array([0.9, 0.8, 0.7, 0.0])[annotator]
    label = np.where(is_right, truth[item], rng.integers(0, 3, size=240))

    fit = EM(dawid_skene.program).run(jax.random.key(0), item, annotator, label, 60, 4, 3)
    _, axes = plt.subplots(1, 4, figsize=(10, 2.6), sharey=True)
    for a, ax in enumerate(axes):
        ax.imshow(fit.params["confusion"][a], vmin=0, vmax=1, cmap="Blues")
        ax.set(title=f"annotator {a}", xlabel="label", xticks=range(3), yticks=range(3))
    axes[0].set_ylabel("class")
    return fit


def factor_analysis() -> Fit:
    """Loadings of six features on two factors."""
    from emjax.models import factor_analysis

    rng = np.random.default_rng(0)
    loadings = np.array([[2.0, 0], [1.5, 0], [1, 0.5], [0, 1], [0, 1.5], [-0.5, 2]])
    x = rng.normal(size=(150, 2)) @ loadings.T + 0.5 * rng.normal(size=(150, 6))

    em = EM(factor_analysis.program, integrate={"factor"}, acceleration="anderson")
    fit = em.run(jax.random.key(0), x, 2)
    plot.loadings(fit)
    return fit


def gaussian_mixture() -> Fit:
    """Three clouds; ellipses at one and two standard deviations."""
    from emjax.models import gaussian_mixture

    rng = np.random.default_rng(0)
    shapes = np.array([[[0.8, 0.0], [0.4, 0.4]], [[0.3, 0.0], [-0.6, 0.9]], [[0.9, 0.1], [0, 0.3]]])
    centers = np.array([[-2.0, 0.0], [1.0, -0.5], [1.0, 2.5]])
    kind = rng.integers(0, 3, size=180)
    x = centers[kind] + np.einsum("nij,nj->ni", shapes[kind], rng.normal(size=(180, 2)))

    fit = EM(gaussian_mixture.program).run(jax.random.key(0), x, 3)
    plot.clusters(fit)
    return fit


def grades() -> Fit:
    """40 of 100 students have a C: what each step leaves to gain."""
    from emjax.models import grades

    em = EM(grades.partial_program, tol=1e-10)

    fit = em.run(jax.random.key(0), jnp.array(40.0), jnp.array(100.0))
    plot.objective(fit, gap=True)
    return fit


def hidden_markov() -> Fit:
    """A series of counts from a quiet and a busy state, its most probable path, its posterior."""
    from emjax.models import hidden_markov

    rng = np.random.default_rng(0)
    state = np.repeat([0, 1, 0, 1, 0], [25, 15, 20, 25, 15])
    counts = rng.poisson(np.array([3.0, 9.0])[state])[:, None]

    fit = EM(hidden_markov.poisson_program).run(jax.random.key(0), counts, np.array([100]), 2)
    plot.states(fit)
    return fit


def k_means() -> Fit:
    """Three clusters, each point with its nearest mean."""
    from emjax.models import k_means

    rng = np.random.default_rng(0)
    centers = np.array([[-3.0, 0.0], [2.0, -2.0], [1.0, 3.0]])
    x = centers[rng.integers(0, 3, size=120)] + rng.normal(size=(120, 2))

    fit = EM(k_means.program, e_step="hard").run(jax.random.key(0), x, 3)
    plot.clusters(fit)
    return fit


def latent_class() -> Fit:
    """How probable a yes is to each of six items in each of two classes."""
    from emjax.models import latent_class

    rng = np.random.default_rng(0)
    yes = np.array([[0.9, 0.8, 0.9, 0.3, 0.2, 0.1], [0.2, 0.3, 0.1, 0.7, 0.8, 0.9]])
    answers = (rng.random((200, 6)) < yes[rng.integers(0, 2, size=200)]).astype(int)

    fit = EM(latent_class.program).run(jax.random.key(0), answers, 2)
    plot.profiles(fit)
    return fit


def linear_gaussian_state_space() -> Fit:
    """A random walk that is seen through noise."""
    from emjax.models import linear_gaussian_state_space

    rng = np.random.default_rng(0)
    level = np.cumsum(rng.normal(scale=0.4, size=80))
    x = level + rng.normal(scale=1.0, size=80)

    program = linear_gaussian_state_space.local_level_program
    fit = EM(program, integrate={"level"}, acceleration="anderson").run(jax.random.key(0), x)
    plot.states(fit)
    return fit


def linear_mixed_model() -> Fit:
    """Ten groups, each with a line of its own: data, and the lines that EM predicts."""
    from emjax.models import linear_mixed_model

    rng = np.random.default_rng(0)
    group, t = np.repeat(np.arange(10), 6), np.tile(np.arange(6.0), 10)
    lines = rng.multivariate_normal([5.0, 1.0], [[2.0, 0.3], [0.3, 0.3]], size=10)
    response = lines[group, 0] + lines[group, 1] * t + rng.normal(scale=0.7, size=60)
    x = np.column_stack([np.ones(60), t])

    em = EM(linear_mixed_model.program, integrate={"effect"}, acceleration="anderson")
    fit = em.run(jax.random.key(0), response, x, x, group, 10)
    predicted = fit.params["fixed"] + fit.posterior()["effect"]["mean"]
    for g, (intercept, slope) in enumerate(predicted):
        plt.plot(t[group == g], response[group == g], "o", color=f"C{g}", markersize=4)
        plt.plot(t[group == g], intercept + slope * t[group == g], color=f"C{g}")
    plt.xlabel("covariate")
    plt.ylabel("response")
    return fit


def mixture_emission_hmm() -> Fit:
    """A state whose values have two modes, and one whose values have one."""
    from emjax.models import mixture_emission_hmm

    rng = np.random.default_rng(0)
    state = np.repeat([0, 1, 0, 1], [40, 30, 20, 30])
    modes = np.where(state == 0, rng.choice([-3.0, 3.0], size=120), 0.0)
    x = (modes + rng.normal(scale=0.5, size=120))[:, None, None]

    program, lengths = mixture_emission_hmm.program, np.array([120])
    fit = EM(program, num_restarts=10).run(jax.random.key(0), x, lengths, 2, 2)
    plot.states(fit)
    return fit


def mixture_of_factor_analyzers() -> Fit:
    """Two flat clouds in four dimensions, three of them shown."""
    from emjax.models import mixture_of_factor_analyzers

    rng = np.random.default_rng(0)
    kind = rng.integers(0, 2, size=160)
    directions = np.array([[1.0, 1.0, 0.0, 1.0], [1.0, -1.0, 1.0, 0.0]])[kind]
    centers = np.array([[0.0, 0.0, 0.0, 0.0], [2.0, 1.0, -1.0, 1.0]])[kind]
    x = centers + rng.normal(size=(160, 1)) * directions + 0.3 * rng.normal(size=(160, 4))

    em = EM(mixture_of_factor_analyzers.program, integrate={"factor"}, num_restarts=5)
    fit = em.run(jax.random.key(0), x, 2, 1)
    plot.loadings(fit)
    return fit


def motif() -> Fit:
    """The letters of the motif, as probable as they are high."""
    from emjax.models import motif

    rng = np.random.default_rng(0)
    letters = rng.integers(0, 4, size=(30, 40))
    for sequence, start in zip(letters, rng.integers(0, 35, size=30), strict=True):
        sequence[start : start + 6] = np.where(rng.random(6) < 0.9, [2, 0, 3, 3, 0, 1], 0)

    word = {"motif": np.where(np.arange(4) == np.array([[2, 0, 3, 3, 0, 1]]).T, 0.7, 0.1)}
    fit = EM(motif.program).run(jax.random.key(0), letters, 6, init_params=word)
    below = np.zeros(6)
    for letter, share in zip("ACGT", np.asarray(fit.params["motif"]).T, strict=True):
        plt.bar(range(6), share, bottom=below, label=letter)
        below += share
    plt.xlabel("place in the motif")
    plt.ylabel("p(letter)")
    plt.legend()
    return fit


def record_linkage() -> Fit:
    """What each level of agreement weighs, in bits."""
    from emjax.models import record_linkage

    rng = np.random.default_rng(0)
    match = (rng.random(2000) < 0.05).astype(int)
    of_others = {"name": [0.9, 0.08, 0.02], "birthday": [0.98, 0.02], "city": [0.8, 0.2]}
    of_matches = {"name": [0.1, 0.2, 0.7], "birthday": [0.05, 0.95], "city": [0.2, 0.8]}
    num_levels, levels = {}, {}
    for field, probs in of_others.items():
        num_levels[field] = len(probs)
        below = np.cumsum([probs, of_matches[field]], axis=1)[match]
        levels[field] = (rng.random(2000)[:, None] > below).sum(axis=1)

    fit = EM(record_linkage.program).run(jax.random.key(0), levels, num_levels)
    plot.match_weights(fit)
    return fit


def topics() -> Fit:
    """The words of two topics."""
    from emjax.models import topics

    rng = np.random.default_rng(0)
    words = np.array([[8.0, 6, 4, 1, 1, 0.5], [0.5, 1, 2, 4, 7, 6]])
    words /= words.sum(axis=1, keepdims=True)
    counts = rng.multinomial(30, words[rng.integers(0, 2, size=40)])

    fit = EM(topics.mixture_program).run(jax.random.key(0), counts, 2)
    plot.profiles(fit)
    return fit
