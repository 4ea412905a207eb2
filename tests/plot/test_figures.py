"""What is drawn is what a fit holds: read off the artists. Fits are made of parameters at hand."""

import runpy
import sys
from functools import cache, partial

import jax
import jax.numpy as jnp
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
import pandas as pd
import pytest
from matplotlib.colors import to_hex, to_rgb
from matplotlib.patches import Ellipse

import emjax
import emjax.plot
from emjax import EM, Candidate, Choice, Criteria, EMResult, Fit, StandardErrors, Status
from emjax.distributions import Select
from emjax.models import (
    coins,
    hidden_markov,
    latent_class,
    mixture_of_factor_analyzers,
    record_linkage,
)
from emjax.plot.style import PALETTE
from emjax.run.restarts import Restarts

KEY = jax.random.key(0)


@pytest.fixture(autouse=True)
def closed_figures():
    with matplotlib.rc_context({"backend": "agg"}):
        yield
    plt.close("all")


def result(params, objective=(-3.0, -2.0), **fields):
    """An `EMResult` as if EM had ended at parameters."""
    found = {"log_likelihood": np.asarray(objective[-1]), "status": Status.CONVERGED}
    return EMResult(
        params={name: jnp.asarray(value) for name, value in params.items()},
        objective=np.asarray(objective),
        num_steps=len(objective) - 1,
        **found | fields,
    )


def fitted(em, params, *data):
    """A fit at parameters, without a run."""
    return Fit.of(em, em.on(*data), result(params))


# ── clusters ──────────────────────────────────────────────────────────────────────────────────────

MEANS = np.array([[0.0, 0.0, 1.0], [4.0, 1.0, -1.0]])
COVARIANCES = np.array(
    [
        [[2.0, 0.6, 0.1], [0.6, 0.5, 0.0], [0.1, 0.0, 1.0]],
        [[1.0, 0.0, 0.0], [0.0, 1.0, 0.3], [0.0, 0.3, 0.5]],
    ]
)
POINTS = pd.DataFrame(
    [[0.0, 0.0, 1.0], [1.0, 0.2, 2.0], [4.0, 1.0, -1.0], [5.0, 2.0, 0.0], [2.2, 0.6, 0.1]],
    columns=["length (cm)", "width (cm)", "height (cm)"],
)


def clouds(x):
    """Two clouds, in as many dimensions as the data."""
    size = x.shape[1]
    loc = numpyro.param("loc", jnp.zeros((2, size)))
    covariance = numpyro.param("covariance", jnp.tile(jnp.eye(size), (2, 1, 1)))
    with numpyro.plate("samples", len(x)):
        z = numpyro.sample("cloud", dist.Categorical(jnp.array([0.5, 0.5])))
        numpyro.sample("x", dist.MultivariateNormal(loc[z], covariance[z]), obs=x)


@cache
def of_clouds(size):
    params = {"loc": MEANS[:, :size], "covariance": COVARIANCES[:, :size, :size]}
    return fitted(EM(clouds), params, POINTS.iloc[:, :size])


def ellipses(ax):
    return [patch for patch in ax.patches if isinstance(patch, Ellipse)]


def test_ellipses_are_the_normals_and_points_the_data():
    fit = of_clouds(2)
    ax = emjax.plot.clusters(fit)
    (points,) = [each for each in ax.collections if len(each.get_offsets()) == len(POINTS)]
    np.testing.assert_allclose(points.get_offsets(), POINTS.iloc[:, :2])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("length (cm)", "width (cm)")
    drawn = ellipses(ax)
    assert len(drawn) == 4
    for number, (k, spread) in enumerate([(0, 1), (0, 2), (1, 1), (1, 2)]):
        one, covariance = drawn[number], COVARIANCES[k, :2, :2]
        np.testing.assert_allclose(one.center, MEANS[k, :2])
        assert to_hex(one.get_edgecolor()).upper() == PALETTE[k]
        axes = np.array([one.width, one.height]) / 2 / spread
        np.testing.assert_allclose(axes**2, np.linalg.eigvalsh(covariance)[::-1])
        # the longer axis lies along the first direction
        along = np.array([np.cos(np.radians(one.angle)), np.sin(np.radians(one.angle))])
        np.testing.assert_allclose(covariance @ along, axes[0] ** 2 * along, atol=1e-12)
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == ["cloud 0", "cloud 1"]


def test_points_have_the_color_of_their_most_probable_value_and_pale_where_that_is_unsure():
    fit = of_clouds(2)
    posterior = np.asarray(fit.posterior()["cloud"])
    (points, *_) = emjax.plot.clusters(fit).collections
    best = [PALETTE[k] for k in posterior.argmax(axis=1)]
    assert [to_hex(color).upper() for color in points.get_facecolors()] == best
    alpha = points.get_facecolors()[:, 3]
    assert alpha.argmin() == posterior.max(axis=1).argmin() == 4
    large = emjax.plot.clusters(fit, uncertainty="size").collections[0].get_sizes()
    assert large.argmax() == 4
    assert np.ptp(emjax.plot.clusters(fit, uncertainty=None).collections[0].get_sizes()) == 0


def test_more_dimensions_are_a_matrix_of_pairs():
    axes = emjax.plot.clusters(of_clouds(3))
    assert axes.shape == (3, 3)
    assert not axes[0, 2].axison
    inner = ellipses(axes[2, 1])[0]
    covariance = COVARIANCES[0][np.ix_([1, 2], [1, 2])]
    np.testing.assert_allclose(inner.center, MEANS[0, [1, 2]])
    squares = np.array([inner.width, inner.height]) ** 2 / 4
    np.testing.assert_allclose(squares, np.linalg.eigvalsh(covariance)[::-1])
    assert (axes[2, 0].get_xlabel(), axes[2, 0].get_ylabel()) == ("length (cm)", "height (cm)")
    # on the diagonal, each density times its share of the data
    line, share = axes[1, 1].lines[0], np.asarray(of_clouds(3).posterior()["cloud"]).mean(axis=0)[0]
    normal = dist.Normal(MEANS[0, 1], np.sqrt(COVARIANCES[0, 1, 1]))
    density = share * np.exp(normal.log_prob(line.get_xdata()))
    np.testing.assert_allclose(line.get_ydata(), density)


def test_axes_that_are_given_are_drawn_on_and_settings_stay():
    before = dict(matplotlib.rcParams)
    ax = plt.figure().add_subplot()
    assert emjax.plot.clusters(of_clouds(3), dims=["height (cm)", 0], ax=ax) is ax
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("height (cm)", "length (cm)")
    assert dict(matplotlib.rcParams) == before
    with pytest.raises(ValueError, match="3 × 3 panels"):
        emjax.plot.clusters(of_clouds(3), ax=ax)
    with pytest.raises(ValueError, match="ax takes matplotlib's Axes"):
        emjax.plot.clusters(of_clouds(2), ax=[ax])


def test_counts_are_drawn_with_the_probabilities_of_each_number():
    heads, bias = np.array([1, 2, 8, 9, 9]), np.array([0.2, 0.9])
    ax = emjax.plot.clusters(fitted(EM(coins.program), {"bias": bias}, heads))
    numbers = np.arange(1, 10)
    for line, p in zip(ax.lines, bias, strict=False):
        np.testing.assert_array_equal(line.get_xdata(), numbers)
        expected = np.exp(dist.Binomial(10, p).log_prob(numbers))
        ratio = line.get_ydata() / expected
        np.testing.assert_allclose(ratio, ratio[0])


def test_a_component_that_is_no_normal_has_points_and_no_ellipse():
    def with_background(x):
        loc = numpyro.param("loc", jnp.zeros(2))
        with numpyro.plate("samples", len(x)):
            z = numpyro.sample("kind", dist.Categorical(jnp.array([0.6, 0.4])))
            cloud = dist.Normal(loc, 0.5).to_event(1)
            anywhere = dist.Uniform(-9.0, 9.0).expand([2]).to_event(1)
            numpyro.sample("x", Select(z, [cloud, anywhere]), obs=x)

    fit = fitted(EM(with_background), {"loc": [1.0, 2.0]}, POINTS.to_numpy()[:, :2])
    drawn = ellipses(emjax.plot.clusters(fit))
    assert [each.center for each in drawn] == [(1.0, 2.0)] * 2
    assert drawn[0].width == pytest.approx(1.0)


@cache
def of_analyzers():
    """Two components with a factor each."""
    params = {
        "weights": [0.5, 0.5],
        "loc": MEANS,
        "loadings": [[[1.0], [0.5], [-2.0]], [[0.0], [1.0], [1.0]]],
        "scale": [0.5, 0.6, 0.7],
    }
    em = EM(mixture_of_factor_analyzers.program, integrate={"factor"})
    return fitted(em, params, POINTS, 2, 1)


def test_ellipses_have_what_gaussian_latents_add():
    fit = of_analyzers()
    one = ellipses(emjax.plot.clusters(fit, dims=[0, 2]))[0]
    loadings = np.asarray(fit.params["loadings"])[0, [0, 2]]
    covariance = loadings @ loadings.T + np.diag([0.5**2, 0.7**2])
    squares = np.array([one.width, one.height]) ** 2 / 4
    np.testing.assert_allclose(squares, np.linalg.eigvalsh(covariance)[::-1])


def test_clusters_says_what_is_missing():
    answers = np.array([[0, 1, 1], [1, 1, 0], [0, 0, 0]])
    params = {"weights": [0.5, 0.5], "probs": np.full((2, 3), 0.3)}
    fit = fitted(EM(partial(latent_class.program, num_classes=2)), params, answers)
    with pytest.raises(ValueError, match="these data are whole numbers"):
        emjax.plot.clusters(fit)
    with pytest.raises(ValueError, match="draws a fit"):
        emjax.plot.clusters(result({"loc": 1.0}))
    with pytest.raises(ValueError, match="latent='component' cannot be drawn so"):
        emjax.plot.clusters(of_clouds(2), latent="component")
    with pytest.raises(ValueError, match="there is no 'depth'"):
        emjax.plot.clusters(of_clouds(2), dims=["depth"])

    def regressions(y, x):
        slope = numpyro.param("slope", jnp.array([1.0, 2.0]))
        with numpyro.plate("rows", len(y)):
            z = numpyro.sample("z", dist.Bernoulli(0.5))
            numpyro.sample("y", dist.Normal(slope[z] * x, 1.0), obs=y)

    fit = fitted(EM(regressions), {"slope": [1.0, 2.0]}, np.arange(3.0), np.arange(3.0))
    with pytest.raises(ValueError, match="the loc of 'y' differs from row to row"):
        emjax.plot.clusters(fit)


# ── profiles ──────────────────────────────────────────────────────────────────────────────────────

PROBS = np.array([[0.9, 0.8, 0.3], [0.2, 0.1, 0.4]])


@cache
def of_classes():
    answers = pd.DataFrame(
        np.random.default_rng(0).integers(0, 2, (30, 3)), columns=["walks", "reads", "sings"]
    )
    em = EM(partial(latent_class.program, num_classes=2))
    return fitted(em, {"weights": [0.6, 0.4], "probs": PROBS}, answers)


def test_profiles_are_lines_over_named_items_with_intervals():
    fit = of_classes()
    errors = StandardErrors(
        params={"probs": jnp.asarray(PROBS)},
        standard_error={"probs": np.full(PROBS.shape, 0.05)},
        covariance=np.eye(6),
        coordinates=(),
        on_boundary={"probs": np.zeros(PROBS.shape, bool)},
        limits={"probs": (np.zeros(()), np.ones(()))},
        method="information",
        what="",
    )
    ax = emjax.plot.profiles(fit, intervals=errors)
    for k, line in enumerate(ax.lines):
        np.testing.assert_allclose(line.get_ydata(), PROBS[k])
        assert to_hex(line.get_color()).upper() == PALETTE[k]
    assert [text.get_text() for text in ax.get_xticklabels()] == ["walks", "reads", "sings"]
    assert ax.get_ylabel() == "probs"
    low, high = errors.interval()["probs"]
    ends = np.array([[path[:, 1] for path in each.get_segments()] for each in ax.collections])
    np.testing.assert_allclose(ends, np.stack([low, high], axis=-1))
    with pytest.raises(ValueError, match="intervals takes standard errors"):
        emjax.plot.profiles(fit, intervals=[0.1])
    with pytest.raises(ValueError, match="what can be: 'probs'"):
        emjax.plot.profiles(fit, parameter="weights")


def test_profiles_of_several_categories_are_a_panel_for_each_class():
    probs = np.array([[[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]], [[0.3, 0.3, 0.4], [0.5, 0.5, 0.0]]])
    subject, item = np.repeat(np.arange(4), 2), np.tile(np.arange(2), 4)
    data = (subject, item, np.array([0, 1, 2, 0, 1, 1, 0, 2]), 4, 2, 3, 2)
    fit = fitted(
        EM(latent_class.categorical_program), {"weights": [0.5, 0.5], "probs": probs}, *data
    )
    axes = emjax.plot.profiles(fit)
    assert [ax.get_title(loc="left") for ax in axes] == ["latent_class 0", "latent_class 1"]
    widths = [[bar.get_width() for bar in of_category] for of_category in axes[1].containers]
    np.testing.assert_allclose(np.transpose(widths), probs[1])


# ── records of one person ─────────────────────────────────────────────────────────────────────────

LEVELS = {"forename": np.array([0, 2, -1]), "town": np.array([1, 0, 1])}
LINKAGE = {
    "match_rate": 0.2,
    "m_forename": [0.05, 0.15, 0.8],
    "u_forename": [0.7, 0.2, 0.1],
    "m_town": [0.1, 0.9],
    "u_town": [0.6, 0.4],
}


@cache
def of_linkage():
    em = EM(record_linkage.program)
    return fitted(em, LINKAGE, LEVELS, {"forename": 3, "town": 2})


def test_match_weights_are_the_logarithms_of_the_ratios():
    ax = emjax.plot.match_weights(of_linkage(), levels={"town": ["differs", "agrees"]})
    weights = record_linkage.match_weights(LINKAGE)
    drawn = [bar.get_width() for bar in ax.patches]
    np.testing.assert_allclose(drawn, [*weights["forename"][::-1], *weights["town"][::-1]])
    names = [text.get_text() for text in ax.get_yticklabels()]
    assert names == ["forename  2", "1", "0", "town  agrees", "differs"]
    with pytest.raises(ValueError, match="'town' has 2 levels, and not 1"):
        emjax.plot.match_weights(of_linkage(), levels={"town": ["differs"]})


def test_the_waterfall_of_a_row_ends_at_its_posterior():
    ax = emjax.plot.match_weights(of_linkage(), row=2)
    weights, prior = record_linkage.match_weights(LINKAGE), record_linkage.prior_weight(LINKAGE)
    steps = [bar.get_height() for bar in ax.patches]
    np.testing.assert_allclose(steps[:3], [prior, 0.0, weights["town"][1]], atol=1e-9)
    match = np.asarray(of_linkage().posterior()["match"])[2]
    assert steps[3] == pytest.approx(np.log2(match[1] / match[0]))
    names = [text.get_text() for text in ax.get_xticklabels()]
    assert names == ["before\ncomparing", "forename\nmissing", "town\n1", "in all"]
    with pytest.raises(ValueError, match="row=3: there are 3"):
        emjax.plot.match_weights(of_linkage(), row=3)
    with pytest.raises(ValueError, match="a latent of two values chooses"):
        emjax.plot.match_weights(of_clouds(2))


def test_profiles_of_several_sites_have_one_item_for_each():
    axes = emjax.plot.profiles(of_linkage())
    widths = [[bar.get_width() for bar in of_level] for of_level in axes[1].containers]
    # a field of two levels has the third one never
    expected = [LINKAGE["m_forename"], [*LINKAGE["m_town"], 0.0]]
    np.testing.assert_allclose(np.transpose(widths), expected, atol=1e-12)
    assert [text.get_text() for text in axes[0].get_yticklabels()] == ["forename", "town"]


# ── chains ────────────────────────────────────────────────────────────────────────────────────────


@cache
def of_chain():
    """Two sequences, the second of three steps."""
    data = np.array([[0.1, 4.1], [0.2, 3.8], [3.9, 0.1], [4.2, 9.0]])[..., None]
    params = {
        "initial": [0.5, 0.5],
        "transition": [[0.8, 0.2], [0.3, 0.7]],
        "loc": [[0.0], [4.0]],
        "scale": [[1.0], [1.0]],
    }
    em = EM(partial(hidden_markov.gaussian_program, num_states=2))
    return fitted(em, params, data, np.array([4, 3]))


def test_states_are_the_path_on_the_series_and_their_posterior():
    above, below = emjax.plot.states(of_chain(), sequence=1)
    np.testing.assert_allclose(above.lines[0].get_ydata(), [4.1, 3.8, 0.1])
    # the most probable path: two steps of state 1, one of state 0
    assert [(each.get_x(), each.get_width()) for each in above.patches] == [(-0.5, 2.0), (1.5, 1.0)]
    assert [to_hex(p.get_facecolor()).upper() for p in above.patches] == [PALETTE[1], PALETTE[0]]
    means = [segment[0, 1] for each in above.collections for segment in each.get_segments()]
    assert means == [4.0, 0.0]
    posterior = np.asarray(of_chain().posterior()["state"])[:3, 1, 0]
    edge = below.collections[0].get_paths()[0].vertices
    middle = edge[np.isclose(edge[:, 0], 0.5) & (edge[:, 1] > 0)]
    assert {round(y, 9) for y in middle[:, 1]} == {round(y, 9) for y in posterior[:2]}
    assert below.get_xlim() == (-0.5, 2.5)
    with pytest.raises(ValueError, match="sequence=2: there are 2"):
        emjax.plot.states(of_chain(), sequence=2)
    with pytest.raises(ValueError, match="draws the states of a chain"):
        emjax.plot.states(of_clouds(2))


def test_transitions_are_cells_with_their_numbers():
    ax = emjax.plot.transitions(of_chain())
    np.testing.assert_allclose(ax.images[0].get_array(), of_chain().params["transition"])
    written = [text.get_text() for text in ax.texts]
    assert written == ["0.80", "0.20", "0.30", "0.70"]
    assert (ax.get_ylabel(), ax.get_xlabel()) == ("from state", "to state")
    with pytest.raises(ValueError, match="no parameter is one"):
        emjax.plot.transitions(of_clouds(2))


def test_loadings_are_cells_of_named_variables_in_one_panel_for_each_component():
    axes = emjax.plot.loadings(of_analyzers())
    drawn = [ax.images[0].get_array() for ax in axes]
    np.testing.assert_allclose(drawn, of_analyzers().params["loadings"])
    assert [text.get_text() for text in axes[0].get_yticklabels()] == list(POINTS)
    assert [ax.get_title(loc="left") for ax in axes] == ["component 0", "component 1"]
    with pytest.raises(ValueError, match="multiplies a Gaussian latent"):
        emjax.plot.loadings(of_clouds(2))


# ── runs ──────────────────────────────────────────────────────────────────────────────────────────

RESTARTS = Restarts(
    objective=np.array([-2.0, -2.0, -5.0, 90.0, -4.0]),
    status=np.array([0, 0, 0, 0, Status.MAX_STEPS]),
    num_steps=np.array([3, 4, 5, 6, 7]),
    degenerate=np.array([False, False, False, True, False]),
    params={"loc": jnp.zeros(5)},
)


def test_objective_has_every_step_and_every_end():
    run = result({}, (-9.0, -4.0, -2.0), restarts=RESTARTS)
    ax = emjax.plot.objective({"one": run, "other": result({}, (-3.0, -1.0))})
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [-9.0, -4.0, -2.0])
    ends = [np.asarray(each.get_offsets()).tolist() for each in ax.collections]
    assert ends == [[[3, -2.0], [4, -2.0], [5, -5.0]], [[7, -4.0]], [[6, 90.0]]]
    assert ax.get_ylabel() == "log-likelihood (nats)"
    gaps = emjax.plot.objective(run, result({}, (-3.0, -1.0)), gap=True)
    np.testing.assert_allclose(gaps.lines[0].get_ydata(), [8.0, 3.0, 1.0])
    assert np.isnan(gaps.lines[1].get_ydata()[-1])
    with pytest.raises(ValueError, match=r"draws what em.run\(rng_key, ...\) returns"):
        emjax.plot.objective([1.0, 2.0])


def test_optima_are_bars_of_how_many_starts_came_there_and_degenerate_ones_are_marked():
    ax = emjax.plot.optima(result({}, restarts=RESTARTS))
    assert [bar.get_width() for bar in ax.patches] == [2, 1, 1]
    names = [text.get_text() for text in ax.get_yticklabels()]
    assert names == ["−2.00", "−3", "degenerate"]
    assert [bar.get_hatch() for bar in ax.patches] == [None, None, "///"]
    with pytest.raises(ValueError, match="num_restarts=20"):
        emjax.plot.optima(result({}))


def test_criteria_are_differences_to_the_lowest_on_one_scale():
    candidates = {}
    for label, log_likelihood, p in ((1, -100.0, 2), (2, -70.0, 5), (3, -69.0, 8)):
        each = np.asarray(log_likelihood), np.asarray(log_likelihood - 4.0 * label)
        of_candidate = Criteria(*each, p, 50.0, "samples")
        candidates[label] = Candidate(result({}), of_candidate, None)
    choice = Choice(candidates)
    axes = emjax.plot.criteria(choice)
    assert [ax.get_title(loc="left") for ax in axes] == ["AIC", "BIC", "ICL"]
    for ax, name in zip(axes, ("aic", "bic", "icl"), strict=True):
        values = np.array([getattr(each.criteria, name) for each in candidates.values()])
        np.testing.assert_allclose(ax.lines[0].get_ydata(), values - values.min())
        assert ax.lines[1].get_xdata() == [values.argmin()]
        assert ax.get_ylim() == axes[0].get_ylim()
    with pytest.raises(ValueError, match="No candidate has CV"):
        emjax.plot.criteria(choice, names=["AIC", "CV"])
    with pytest.raises(ValueError, match=r"what emjax.choose"):
        emjax.plot.criteria(candidates)


def test_without_matplotlib_the_import_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"matplotlib: pip install 'emjax\[plot\]'"):
        runpy.run_path(emjax.plot.__file__)


def test_values_beyond_the_palette_have_colors_of_their_own():
    assert len({to_rgb(color) for color in emjax.plot.style.colors(9)}) == 9
