"""Where EM starts: responsibilities drawn at random, and clusters of data about locations."""

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

from emjax import EM
from emjax.distributions import PartiallyObserved, Select
from emjax.models import dawid_skene, gaussian_mixture
from emjax.starts import clusters as of_clusters
from emjax.starts.locations import locations_of
from emjax.starts.points import points_of
from emjax.starts.seeding import FAR_APART, LLOYD, RANDOM, TIGHTEST, clusters, seeds, split
from emjax.starts.strategies import START_STRATEGIES

KEY = jax.random.key(7)
EXACT = {"rtol": 1e-12, "atol": 1e-14}  # sums of some ten terms in float64


class Starts:
    """The starts of a program on its data, compiled once for each strategy."""

    def __init__(self, model, *args):
        bound = EM(model).on(*args)
        self.compiled, self.data = bound.compiled, bound.data
        self.own = self.compiled.pure.initial_values(KEY, self.data)
        self.functions = {}

    def __call__(self, name, key=KEY, params=None, data=None):
        """Return the start, and as many as there are keys of an array of keys."""
        if name not in self.functions:
            graph, maximizers = self.compiled.graph, self.compiled.maximizers

            def one(key, params, data):
                return START_STRATEGIES[name](graph, maximizers, key, params, graph.prepare(data))

            self.functions[name] = jax.jit(one), jax.jit(jax.vmap(one, (0, None, None)))
        return self.functions[name][key.ndim](key, self.own | (params or {}), data or self.data)


def drawn(key, shape, number=0, of=1):
    """Responsibilities, Dirichlet(1, …, 1) over the last axis, as the starts draw them for latent
    `number` of `of`.
    """
    return np.array(jax.nn.softmax(-jax.random.gumbel(jax.random.split(key, of)[number], shape)))


# Responsibilities
# --------------------------------------------------------------------------------------------------


NUM_ROWS = 9
numbers = np.random.default_rng(0)
X, Y = (
    jnp.asarray(numbers.normal(size=(NUM_ROWS, 2))),
    jnp.asarray(numbers.lognormal(size=NUM_ROWS)),
)
COUNT = jnp.array([1.0, 2.0, 1.0, 0.0, 3.0, 1.0, 1.0, 2.0, 1.0])
SEEN = jnp.array([True] * 6 + [False] + [True] * 2)


def cloud(x, y, count, seen):
    """Two sites of one latent: a normal of two coordinates, and a LogNormal that is not always
    seen.
    """
    weights = numpyro.param("weights", jnp.array([0.2, 0.3, 0.5]), constraint=constraints.simplex)
    loc = numpyro.param("loc", jnp.arange(6.0).reshape(3, 2))
    scale = numpyro.param("scale", jnp.ones((3, 2)), constraint=constraints.positive)
    size = numpyro.param("size", jnp.arange(3.0))
    unread = numpyro.param("unread", jnp.array(2.5))
    del unread
    with numpyro.plate("rows", len(x)), handlers.scale(scale=count):
        kind = numpyro.sample("kind", dist.Categorical(weights))
        numpyro.sample("x", dist.Normal(loc[kind], scale[kind]).to_event(1), obs=x)
        with handlers.mask(mask=seen):
            numpyro.sample("y", dist.LogNormal(size[kind], 1.0), obs=y)


@pytest.fixture(scope="module")
def clouds():
    return Starts(cloud, X, Y, COUNT, SEEN)


def test_random_responsibilities_of_a_mixture_are_followed_by_an_m_step(clouds):
    start = clouds("responsibilities")
    counts = drawn(KEY, (NUM_ROWS, 3)) * np.asarray(COUNT)[:, None]
    total = counts.sum(0)
    loc = counts.T @ X / total[:, None]
    seen = counts * np.asarray(SEEN)[:, None]
    np.testing.assert_allclose(start["weights"], total / total.sum(), **EXACT)
    np.testing.assert_allclose(start["loc"], loc, **EXACT)
    np.testing.assert_allclose(
        start["scale"],
        np.sqrt((counts[..., None] * (np.asarray(X)[:, None] - loc) ** 2).sum(0) / total[:, None]),
        **EXACT,
    )
    np.testing.assert_allclose(start["size"], np.log(Y) @ seen / seen.sum(0), **EXACT)
    assert start["unread"] == 2.5


def test_starts_of_many_keys_are_those_of_each(clouds):
    keys = jax.random.split(KEY, 3)
    for name in ("responsibilities", "k-means"):
        together = clouds(name, keys)
        for i, key in enumerate(keys):
            for site, value in clouds(name, key).items():
                np.testing.assert_allclose(together[site][i], value, rtol=1e-12)


def test_random_responsibilities_of_long_form_labels_leave_what_is_impossible_impossible():
    item, annotator, label = (
        jnp.array([0, 0, 1, 1, 2, 2, 2]),
        jnp.array([0, 1, 0, 1, 0, 1, 0]),
        jnp.array([0, 0, 1, 0, 1, 1, 1]),
    )
    confusion = np.array(
        [[[1.0, 0.0], [0.4, 0.6]], [[0.7, 0.3], [0.3, 0.7]]]
    )  # annotator 0 never gives label 1 to class 0
    start = Starts(dawid_skene.program, item, annotator, label, 3, 2, 2)(
        "responsibilities", params={"confusion": jnp.asarray(confusion)}
    )
    q = drawn(KEY, (3, 2))
    q[1:] = [0.0, 1.0]  # items 1 and 2 got label 1 of annotator 0
    counts = np.zeros((2, 2, 2))
    np.add.at(counts, (np.asarray(annotator), slice(None), np.asarray(label)), q[np.asarray(item)])
    np.testing.assert_allclose(start["prevalence"], q.mean(0), **EXACT)
    np.testing.assert_allclose(start["confusion"], counts / counts.sum(-1, keepdims=True), **EXACT)


def chain(x):
    first = numpyro.param("first", jnp.array([0.5, 0.3, 0.2]), constraint=constraints.simplex)
    transition = numpyro.param(
        "transition", jnp.full((3, 3), 1 / 3), constraint=constraints.simplex
    )
    loc = numpyro.param("loc", jnp.arange(3.0))

    def step(carry, x):
        before, t = carry
        state = numpyro.sample(
            "state", dist.Categorical(jnp.where(t == 0, first, transition[before]))
        )
        numpyro.sample("x", dist.Normal(loc[state], 1.0), obs=x)
        return (state, t + 1), None

    scan(step, (0, 0), x)


SERIES = jnp.array([0.1, 5.0, -2.0, 5.2, 0.3])


@pytest.fixture(scope="module")
def chains():
    return Starts(chain, SERIES)


def test_pairs_of_a_chain_are_products_of_neighbors(chains):
    start, q = chains("responsibilities"), drawn(KEY, (5, 3))
    pairs = np.einsum("ti,tj->ij", q[:-1], q[1:])
    np.testing.assert_allclose(start["first"], q[0], **EXACT)
    np.testing.assert_allclose(start["transition"], pairs / pairs.sum(1, keepdims=True), **EXACT)
    np.testing.assert_allclose(start["loc"], SERIES @ q / q.sum(0), **EXACT)


def test_random_responsibilities_take_the_possible_paths_alone(chains):
    forward = np.triu(np.full((3, 3), 1.0))
    start = chains(
        "responsibilities",
        params={"transition": jnp.asarray(forward / forward.sum(1, keepdims=True))},
    )
    q = drawn(KEY, (5, 3))
    paths = [path for path in itertools.product(range(3), repeat=5) if list(path) == sorted(path)]
    weights = np.array([np.prod([q[t, k] for t, k in enumerate(path)]) for path in paths])
    states = np.array(paths)[..., None] == np.arange(3)  # (path, time, state)
    weights = weights / weights.sum()
    pairs = np.einsum("p,pti,ptj->ij", weights, states[:, :-1], states[:, 1:])
    np.testing.assert_allclose(start["transition"], pairs / pairs.sum(1, keepdims=True), **EXACT)
    np.testing.assert_allclose(start["first"], np.einsum("p,pi->i", weights, states[:, 0]), **EXACT)


def test_densities_of_the_data_do_not_tilt_the_responsibilities():
    def program(x):
        share = numpyro.param("share", jnp.array(0.3), constraint=constraints.unit_interval)
        loc = numpyro.param("loc", jnp.array(0.0))
        with numpyro.plate("rows", len(x)):
            inlier = numpyro.sample("inlier", dist.Bernoulli(share))
            numpyro.sample(
                "x", Select(inlier, [dist.Uniform(-5.0, 5.0), dist.Normal(loc, 0.1)]), obs=x
            )

    x = jnp.array([0.0, 1.0, 9.0, -4.0])
    start, q = Starts(program, x)("responsibilities"), drawn(KEY, (4, 2))[:, 1]
    q[2] = 1.0  # no uniform number
    np.testing.assert_allclose(start["share"], q.mean(), **EXACT)
    np.testing.assert_allclose(start["loc"], q @ x / q.sum(), **EXACT)


# Clusters
# --------------------------------------------------------------------------------------------------


BY_LOCATION = ("data", "k-means++", "k-means", "splitting")


def mixed(members):
    """Responsibilities of clusters: 99 % their members, 1 % of all, in proportion to their size."""
    share = np.maximum(members.sum(0), 1)
    share = share / share.sum()
    mixed = of_clusters.MIXED
    return members.sum(1, keepdims=True) * (
        (1 - mixed) * members / np.maximum(members.sum(1, keepdims=True), 1e-300) + mixed * share
    )


@pytest.mark.sampled
@pytest.mark.parametrize("name", BY_LOCATION)
def test_a_start_is_the_m_step_of_clusters_mixed_with_all_data(clouds, name):
    x = np.concatenate(
        [[[0.0, 1.0], [0.5, 1.5], [9.0, 9.0], [-20.0, 3.0]], [[9.5, 8.0], [0.0, 1.2], [10.0, 9.1]]]
    )
    x = np.concatenate([x, [[-20.0, 7.0], [-20.5, 7.0]]])
    planted = np.array([0, 0, 1, 2, 1, 0, 1, 2, 2])
    data = [jnp.asarray(x), jnp.ones(NUM_ROWS), COUNT, SEEN]
    starts = clouds(name, jax.random.split(KEY, 40), data=data)
    count = np.asarray(COUNT)
    members = mixed(np.where(planted[:, None] == np.arange(3), count[:, None], 0))
    total = members.sum(0)
    loc = members.T @ x / total[:, None]
    scale = np.sqrt((members[..., None] * (x[:, None] - loc) ** 2).sum(0) / total[:, None])
    hits = 0
    for number in range(40):
        start = {site: np.asarray(value)[number] for site, value in starts.items()}
        order = np.abs(start["loc"][:, :1] - loc[:, 0]).argmin(0)
        expected = {"weights": total / total.sum(), "loc": loc, "scale": scale, "size": np.zeros(3)}
        hits += all(
            np.allclose(start[site][order], value, rtol=1e-9, atol=1e-12)
            for site, value in expected.items()
        )
        assert start["unread"] == 2.5
    # seeds drawn at random may lie in one cluster
    assert hits == 40 if name in ("k-means", "splitting") else hits > 10


def test_the_m_step_of_k_means_is_that_of_scikit_learn(monkeypatch):
    sklearn = pytest.importorskip("sklearn.mixture")
    monkeypatch.setattr(of_clusters, "MIXED", 0.0)
    x = SCATTERED + np.random.default_rng(0).normal(0, 1, (60, 2))
    start = Starts(gaussian_mixture.program, jnp.asarray(x), 5)("k-means")
    distances = ((x[:, None] / x.std(0) - np.asarray(start["loc"]) / x.std(0)) ** 2).sum(-1)
    theirs = sklearn.GaussianMixture(5, reg_covar=0.0)
    theirs._initialize(x, np.eye(5)[distances.argmin(1)])
    np.testing.assert_allclose(start["weights"], theirs.weights_, rtol=1e-9)
    np.testing.assert_allclose(start["loc"], theirs.means_, rtol=1e-9)
    np.testing.assert_allclose(start["covariance"], theirs.covariances_, rtol=1e-9)


def test_a_zero_of_the_program_stays_and_no_other_comes_of_clusters(chains):
    forward = np.triu(np.full((3, 3), 1.0))
    for transition, zeros in ((np.full((3, 3), 1 / 3), 0), (forward / forward.sum(1)[:, None], 3)):
        start = chains("k-means", params={"transition": jnp.asarray(transition)})
        assert (np.asarray(start["transition"]) == 0).sum() == zeros
        assert (np.asarray(start["first"]) > 0).all()


@pytest.mark.sampled
@pytest.mark.parametrize("name", BY_LOCATION)
@pytest.mark.parametrize(
    ("unit", "shift"), [(1e-9, 0.0), (1e-6, 0.0), (1e6, 0.0), (1.0, 1e6)], ids=str
)
def test_starts_are_equivariant_under_units_and_shifts(clouds, name, unit, shift):
    units = unit * np.array([1.0, 7.0])
    moved = [jnp.asarray((np.asarray(X) + shift) * units), Y, COUNT, SEEN]
    start, there = clouds(name), clouds(name, data=moved)
    rtol = 1e-8 if shift else 1e-10
    np.testing.assert_allclose(there["weights"], start["weights"], rtol=rtol)
    np.testing.assert_allclose(there["scale"], start["scale"] * units, rtol=rtol)
    # locations are found as differences from the program's own, which are as large as 5
    moved_loc = (start["loc"] + shift) * units
    np.testing.assert_allclose(there["loc"], moved_loc, rtol=rtol, atol=1e-14)


def test_each_joint_value_of_several_latents_gets_a_data_point():
    def program(x):
        loc = numpyro.param("loc", jnp.zeros((2, 3)))
        with numpyro.plate("rows", len(x)):
            first = numpyro.sample("first", dist.Categorical(jnp.full(2, 0.5)))
            second = numpyro.sample("second", dist.Categorical(jnp.full(3, 1 / 3)))
            numpyro.sample("x", dist.Normal(loc[first, second], 1.0), obs=x)

    x = jnp.array([0.1, 0.0, 20.0, 20.1, 40.0, 40.1, 60.0, 60.1, 80.0, 80.1, 99.0, 99.1])
    starts = Starts(program, x)
    for name in BY_LOCATION:
        loc = np.asarray(starts(name)["loc"]).ravel()
        assert len(set(loc)) == 6
        if name in ("k-means", "splitting"):
            assert set(np.round(loc / 20)) == set(range(6))


def test_components_of_a_select_get_a_data_point_each():
    def program(x):
        single, pair = numpyro.param("single", jnp.array(0.0)), numpyro.param("pair", jnp.zeros(2))
        with numpyro.plate("rows", len(x)):
            kind = numpyro.sample("kind", dist.Categorical(jnp.full(4, 0.25)))
            components = [
                dist.Uniform(-100.0, 100.0),
                dist.Normal(single, 1.0),
                dist.Normal(pair[jnp.maximum(kind - 2, 0)], 2.0),
            ]
            numpyro.sample("x", Select(jnp.minimum(kind, 2), components), obs=x)

    x = np.array([0.0, 0.1, 20.0, 20.1, 40.0, 40.1, 60.0, 60.1])
    starts = Starts(program, jnp.asarray(x))
    found = starts("splitting")
    loc = [float(found["single"]), *map(float, found["pair"])]
    assert len({int(20 * np.round(value / 20)) for value in loc}) == 3


def test_rows_of_a_subject_are_one_point():
    subject, item = jnp.array([0, 0, 1, 1, 2, 3, 3, 3]), jnp.array([0, 1, 0, 1, 0, 0, 1, 1])
    x = jnp.array([1.0, 2.0, 5.0, 6.0, 50.0, -3.0, 7.0, 9.0])

    def program(x):
        loc = numpyro.param("loc", jnp.zeros((2, 2)))
        with numpyro.plate("subjects", 4):
            kind = numpyro.sample("kind", dist.Categorical(jnp.full(2, 0.5)))
        with numpyro.plate("rows", len(x)):
            numpyro.sample("x", dist.Normal(loc[kind[subject], item], 1.0), obs=x)

    # repeated answers: their mean; no answer: all subjects' mean
    points = np.array([[1.0, 2.0], [5.0, 6.0], [50.0, (2 + 6 + 8) / 3], [-3.0, 8.0]])
    bound = EM(program).on(x)
    graph, constants = bound.compiled.graph, bound.compiled.prepare(bound.data)
    own = bound.compiled.pure.initial_values(KEY, bound.data)
    (locations,), _ = locations_of(graph)
    of_subjects = points_of(locations, graph, graph.arrays(own, constants))
    np.testing.assert_allclose(of_subjects.values, points, rtol=1e-14)
    # subject 2, the outlier, against all others: each counts once, however many rows it has
    members = mixed(np.eye(2)[[0, 0, 1, 0]])
    each = members[np.asarray(subject)]
    at_item = each[:, :, None] * np.eye(2)[np.asarray(item)][:, None]
    loc = np.einsum("nkj,n->kj", at_item, x) / at_item.sum(0)
    found = np.asarray(Starts(program, x)("k-means")["loc"])
    np.testing.assert_allclose(found[np.argsort(found[:, 0])], loc, rtol=1e-10)


def test_locations_of_each_group_are_clusters_of_that_group():
    x = jnp.array([[0.0, 0.1, 9.0, 9.1], [100.0, 100.1, 100.2, 150.0]])

    def program(x):
        loc = numpyro.param("loc", jnp.zeros((2, 2)))
        with numpyro.plate("groups", 2, dim=-2), numpyro.plate("rows", 4, dim=-1):
            kind = numpyro.sample("kind", dist.Categorical(jnp.full(2, 0.5)))
            numpyro.sample("x", dist.Normal(loc[jnp.arange(2)[:, None], kind], 1.0), obs=x)

    starts = Starts(program, x)
    centers = np.array([[0.05, 9.05], [100.1, 150.0]])
    mean = x.mean(1, keepdims=True)
    expected = centers + of_clusters.MIXED * (mean - centers)
    np.testing.assert_allclose(np.sort(starts("splitting")["loc"]), expected, rtol=1e-12)


# Seeds
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("power", [0, 1])
def test_seeds_are_drawn_in_proportion_to_a_power_of_squared_distance(power):
    points, weights = jnp.array([[0.0], [1.0], [3.0], [3.0]]), jnp.array([1.0, 2.0, 1.0, 0.0])
    pairs = jax.jit(jax.vmap(lambda key: seeds(key, points, weights, 2, power)))(
        jax.random.split(KEY, 20_000)
    )
    squares = (np.asarray(points) - np.asarray(points).T) ** 2
    mass = np.asarray(weights) * np.where(squares > 0, squares**power, 0)
    expected = np.asarray(weights)[:, None] / 4 * mass / mass.sum(1, keepdims=True)
    found = np.zeros((4, 4))
    np.add.at(found, tuple(np.asarray(pairs).T), 1 / 20_000)
    np.testing.assert_allclose(found, expected, atol=4 * np.sqrt(0.25 / 20_000))


def test_more_seeds_than_distinct_points_are_drawn_all_the_same():
    points, weights = jnp.array([[2.0], [2.0], [5.0]]), jnp.array([0.0, 1.0, 1.0])
    assert set(np.asarray(seeds(KEY, points, weights, 4, 1))) == {1, 2}  # two, and again these two


@pytest.mark.parametrize("scheme", [RANDOM, FAR_APART], ids=["random", "far apart"])
def test_each_point_is_of_its_nearest_seed(scheme):
    points, weights = jnp.asarray(SCATTERED), jnp.ones(60)
    key = jax.random.fold_in(KEY, 0)
    of_seeds = SCATTERED[np.asarray(seeds(key, points, weights, 5, scheme.power))]
    expected = ((SCATTERED[:, None] - of_seeds) ** 2).sum(-1).argmin(1)
    np.testing.assert_array_equal(clusters(KEY, points, weights, 5, scheme), expected)


@pytest.mark.parametrize("weights", [np.ones(60), np.arange(60.0) % 3], ids=["once", "weighted"])
def test_k_means_rests_at_its_means_and_the_tightest_is_no_wider(weights):
    points = SCATTERED + np.random.default_rng(1).normal(0, 1, (60, 2))
    spreads = []
    for scheme in (LLOYD, TIGHTEST):
        labels = np.asarray(clusters(KEY, jnp.asarray(points), jnp.asarray(weights), 5, scheme))
        means = np.array(
            [
                np.average(points[labels == k], axis=0, weights=weights[labels == k])
                for k in range(5)
            ]
        )
        squares = ((points[:, None] - means) ** 2).sum(-1)
        np.testing.assert_array_equal(labels, squares.argmin(1))
        spreads.append(weights @ squares.min(1))
    assert spreads[1] <= spreads[0]


# Splitting
# --------------------------------------------------------------------------------------------------

CENTERS = np.array([[0.0, 0.0], [8.0, 0.0], [0.0, 8.0], [30.0, 30.0], [38.0, 30.0]])
PLANTED = np.repeat(np.arange(5), 12)
SCATTERED = CENTERS[PLANTED] + np.random.default_rng(3).normal(0, 0.4, (60, 2))


def test_splitting_finds_planted_clusters():
    labels = np.asarray(split(jnp.asarray(SCATTERED), jnp.ones(60), 5))
    assert len(set(zip(labels, PLANTED, strict=True))) == 5


@pytest.mark.parametrize(
    ("points", "weights", "clusters"),
    [
        ([0.0, 4.0, 10.0], [1.0, 1.0, 1.0], [0, 0, 1]),
        ([0.0, 4.0, 10.0], [1.0, 1.0, 0.01], [0, 1, 1]),
        ([0.0, 4.0, 99.0], [1.0, 1.0, 0.0], [0, 1, 1]),
        ([0.0, 0.1, 10.0, 14.0, 14.1], [1.0] * 5, [0, 0, 1, 2, 2]),
    ],
)
def test_the_widest_cluster_is_split_at_its_weighted_mean(points, weights, clusters):
    labels = np.asarray(split(jnp.array(points)[:, None], jnp.array(weights), max(clusters) + 1))
    np.testing.assert_array_equal(labels[:, None] == labels, np.equal.outer(clusters, clusters))


# Errors
# --------------------------------------------------------------------------------------------------


def coins(heads):
    bias = numpyro.param("bias", jnp.array([0.6, 0.5]), constraint=constraints.unit_interval)
    with numpyro.plate("sets", len(heads)):
        coin = numpyro.sample("coin", dist.Categorical(jnp.array([0.5, 0.5])))
        numpyro.sample("heads", dist.Binomial(10, bias[coin]), obs=heads)


def steps(x):
    gap = numpyro.param("gap", jnp.array([0.0, 1.0, 2.0]))
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Categorical(jnp.full(3, 1 / 3)))
        numpyro.sample("x", dist.Normal(jnp.cumsum(gap)[z], 1.0), obs=x)


@pytest.mark.parametrize("name", BY_LOCATION)
def test_program_without_locations_is_told_what_to_use(name):
    starts = Starts(coins, jnp.array([5.0, 9.0, 8.0]))
    with pytest.raises(
        ValueError,
        match=r"looked up by a latent, loc\[z\], and this program has none. Use "
        r"init='responsibilities'",
    ) as error:
        starts(name)
    assert f"init='{name}'" in str(error.value)


def test_location_that_cannot_be_set_is_named():
    with pytest.raises(
        ValueError, match="the loc of 'x': it enters the loc of 'x' affinely, through 'cumsum'"
    ):
        Starts(steps, jnp.arange(5.0))("data")


def test_fewer_elements_than_values_are_an_error():
    with pytest.raises(
        ValueError, match="the loc of 'x': latent 'kind' has 2 elements for 3 values"
    ):
        Starts(lambda x: cloud(x, jnp.ones(2), jnp.ones(2), jnp.ones(2, bool)), X[:2])("data")


# Missing coordinates
# -------------------------------------------------------------------------------------------------


def incomplete(x):
    loc = numpyro.param("loc", jnp.array([[0.0, 1.0], [2.0, -1.0]]))
    covariance = numpyro.param(
        "covariance",
        jnp.array([[[1.0, 0.5], [0.5, 2.0]], [[1.5, -0.3], [-0.3, 1.0]]]),
        constraint=constraints.positive_definite,
    )
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Categorical(jnp.array([0.5, 0.5])))
        complete = dist.MultivariateNormal(loc[z], covariance_matrix=covariance[z])
        numpyro.sample("x", PartiallyObserved(complete, observed=~jnp.isnan(x)), obs=x)


def test_missing_coordinates_are_expected_at_the_programs_own_values():
    x = np.array(X)
    x[[1, 4], [0, 1]] = np.nan
    starts = Starts(incomplete, jnp.asarray(x))
    q, own = drawn(KEY, (NUM_ROWS, 2)), jax.tree.map(np.asarray, starts.own)
    expected = np.zeros((NUM_ROWS, 2, 2))  # E[x_n | what is seen, z_n = k]
    for n, k in itertools.product(range(NUM_ROWS), range(2)):
        seen, loc, covariance = ~np.isnan(x[n]), own["loc"][k], own["covariance"][k]
        expected[n, k] = np.where(
            seen,
            x[n],
            loc
            + covariance[:, seen]
            @ np.linalg.solve(covariance[np.ix_(seen, seen)], (x[n] - loc)[seen]),
        )
    found = starts("responsibilities")
    np.testing.assert_allclose(
        found["loc"], np.einsum("nk,nkd->kd", q, expected) / q.sum(0)[:, None], rtol=1e-11
    )
    for name in BY_LOCATION:
        assert all(np.isfinite(value).all() for value in starts(name).values())
