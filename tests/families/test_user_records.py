"""What a user teaches emjax from outside: a family, a shape of conjugacy, a prior.

Each is held to the update derived by hand, and to an objective that never decreases.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

from emjax import EM, Family, Prior, conjugate, register
from emjax.families import family as registry

KEY = jax.random.key(0)
RNG = np.random.default_rng(3)
WEIGHTS = np.array([0.4, 0.6])


@pytest.fixture(autouse=True)
def registered_records():
    """Forget after each test what it has registered."""
    families = {kind: list(forms) for kind, forms in registry.FAMILIES.items()}
    priors = dict(registry.PRIORS)
    yield
    for records, before in ((registry.FAMILIES, families), (registry.PRIORS, priors)):
        records.clear()
        records.update(before)


def mixture_of(component, name, constraint):
    """Two components of one parameter, whose proportions are known."""

    def program(x, start):
        value = numpyro.param(name, jnp.asarray(start), constraint=constraint)
        with numpyro.plate("samples", len(x)):
            z = numpyro.sample("z", dist.Categorical(jnp.asarray(WEIGHTS)))
            numpyro.sample("x", component(value[z]), obs=x)

    return program


def responsibilities(log_densities):
    """(sample, component), from log p(x | component)."""
    joint = np.log(WEIGHTS) + log_densities
    joint = np.exp(joint - joint.max(-1, keepdims=True))
    return joint / joint.sum(-1, keepdims=True)


def check(program, name, x, start, by_hand, *, rtol=1e-10):
    """Hold the closed form to the update by hand for three steps, and EM to monotonicity."""
    em = EM(program)
    assert em.plan(x, start).method(name) == "closed form", str(em.plan(x, start))
    state = em.init(KEY, x, start)
    expected = np.asarray(start)
    for _ in range(3):
        state, _ = em.update(state, x, start)
        expected = by_hand(expected)
        np.testing.assert_allclose(state.params[name], expected, rtol=rtol)
    result = em.run(KEY, x, start)
    objective = np.asarray(result.objective)
    assert result.num_steps > 3
    assert (np.diff(objective) >= -1e-10 * np.abs(objective[1:])).all()
    return em, result


# ── a family of a known shape ─────────────────────────────────────────────────────────────────────


class Rayleigh(dist.Distribution):
    """p(x) = x / σ² exp(−x² / 2σ²)."""

    arg_constraints = {"scale": constraints.positive}  # noqa: RUF012 (NumPyro's way)
    support = constraints.positive

    def __init__(self, scale, *, validate_args=None):
        self.scale = scale
        super().__init__(jnp.shape(scale), (), validate_args=validate_args)

    def log_prob(self, x):
        return jnp.log(x) - 2 * jnp.log(self.scale) - x**2 / (2 * self.scale**2)


RAYLEIGH = Family(
    arguments={"scale": conjugate.SCALE},
    naturals=lambda scale: (-scale[1] / 2, -2 * scale[0]),
    statistics=lambda x: (x**2, 1.0),
    base=lambda x: jnp.log(x),
    event_dims=(0, 0),
)


def test_a_family_of_a_known_shape_is_maximized_in_closed_form():
    register(Rayleigh, RAYLEIGH)
    x = np.concatenate([RNG.rayleigh(1.0, 40), RNG.rayleigh(4.0, 60)])

    def by_hand(scale):
        square = x[:, None] ** 2
        r = responsibilities(np.log(x)[:, None] - 2 * np.log(scale) - square / (2 * scale**2))
        return np.sqrt((r * square).sum(0) / (2 * r.sum(0)))

    program = mixture_of(Rayleigh, "scale", constraints.positive)
    _, result = check(program, "scale", x, [0.5, 3.0], by_hand)
    assert result.findings == ()


def test_without_the_record_there_is_no_closed_form():
    x = RNG.rayleigh(1.0, 10)
    program = mixture_of(Rayleigh, "scale", constraints.positive)
    plan = EM(program).plan(x, [0.5, 3.0])
    assert plan.method("scale") == "L-BFGS"
    assert "Rayleigh at 'x' is not an exponential family" in str(plan)


# ── shapes ────────────────────────────────────────────────────────────────────────────────────────

ABSOLUTE_SCALE = conjugate.Conjugate(
    name="scale",
    features=lambda b, origin=None: (jnp.log(b), 1 / b),
    maximize=lambda c, b: jnp.where(c[0] != 0, c[1] / jnp.where(c[0] != 0, c[0], 1), b),
    solution="expected absolute deviation",
    least_variance=lambda b, unit: (b / unit) ** 2,
)
LAPLACE = Family(
    arguments={"scale": ABSOLUTE_SCALE},
    given=("loc",),
    naturals=lambda scale: (-scale[1], -scale[0]),
    statistics=lambda x, loc: (jnp.abs(x - loc), 1.0),
    base=lambda x, loc: -jnp.log(2.0) * jnp.ones_like(x),
    event_dims=(0, 0),
)


def laplace(scale):
    return dist.Laplace(0.0, scale)


def test_a_shape_of_ones_own_is_a_closed_form_a_unit_and_a_scale_that_is_watched():
    register(dist.Laplace, LAPLACE)
    x = np.concatenate([RNG.laplace(0, 0.2, 60), RNG.laplace(0, 5.0, 60)])

    def by_hand(scale):
        deviation = np.abs(x)[:, None]
        r = responsibilities(-np.log(2 * scale) - deviation / scale)
        return (r * deviation).sum(0) / r.sum(0)

    program = mixture_of(laplace, "scale", constraints.positive)
    em, result = check(program, "scale", x, [0.5, 2.0], by_hand)
    assert "expected absolute deviation" in str(em.plan(x, [0.5, 2.0]))
    assert result.findings == ()
    # equal data: one component collapses onto them, and its scale is told in their unit
    x = np.concatenate([np.zeros(30), x]) * 1e-6
    collapsed = EM(program).run(KEY, x, [1e-8, 2e-6])
    assert [finding.kind for finding in collapsed.findings] == ["collapsed"]
    assert collapsed.warnings[0].startswith("component 0 of 'z' collapses: 'scale'[0]")


def test_a_floor_clips_a_shape_of_ones_own():
    register(dist.Laplace, LAPLACE)
    x = np.concatenate([RNG.laplace(0, 0.2, 60), RNG.laplace(0, 5.0, 60)])
    program = mixture_of(laplace, "scale", constraints.greater_than(1.0))
    result = EM(program).run(KEY, x, [1.5, 2.0])
    assert result.params["scale"][0] == 1.0 and result.params["scale"][1] > 2


class Independent(dist.Distribution):
    """A vector of independent normals about zero, whose scales are one argument."""

    arg_constraints = {"scales": constraints.independent(constraints.positive, 1)}  # noqa: RUF012
    support = constraints.real_vector

    def __init__(self, scales, *, validate_args=None):
        self.scales = scales
        shape = jnp.shape(scales)
        super().__init__(shape[:-1], shape[-1:], validate_args=validate_args)

    def log_prob(self, x):
        return dist.Normal(0.0, self.scales).log_prob(x).sum(-1)


SCALES = conjugate.Conjugate(
    name="vector of scales",
    features=lambda s, origin=None: (jnp.log(s), s**-2.0),
    maximize=lambda c, s: jnp.where(
        c[0] != 0, jnp.sqrt(2 * c[1] / jnp.where(c[0] != 0, c[0], 1)), s
    ),
    event_dim=1,
    solution="roots of the expected mean squares",
    constraints=(constraints.positive,),
    least_variance=lambda s, unit: ((s / unit) ** 2).min(-1),
)
INDEPENDENT = Family(
    arguments={"scales": SCALES},
    naturals=lambda scales: (-scales[1] / 2, -scales[0].sum(-1)),
    statistics=lambda x: (x**2, 1.0),
    base=lambda x: -0.5 * x.shape[-1] * jnp.log(2 * jnp.pi) * jnp.ones_like(x[..., 0]),
    event_dims=(1, 0),
)
VECTORS = RNG.normal(size=(80, 3)) * np.where(np.arange(80)[:, None] < 30, [1, 5, 2], [6, 1, 1])


@pytest.mark.parametrize(
    "constraint", [constraints.positive, constraints.independent(constraints.positive, 1)]
)
def test_a_shape_whose_entries_are_vectors(constraint):
    register(Independent, INDEPENDENT)

    def by_hand(scales):
        square = VECTORS[:, None] ** 2
        r = responsibilities((-np.log(scales) - square / (2 * scales**2)).sum(-1))
        return np.sqrt((r[..., None] * square).sum(0) / r.sum(0)[:, None])

    start = [[1.0, 3.0, 1.0], [3.0, 1.0, 1.0]]
    program = mixture_of(Independent, "scales", constraint)
    em, result = check(program, "scales", VECTORS, start, by_hand)
    assert result.findings == ()
    collapsed = em.run(KEY, VECTORS * [1, 1, 0], start)
    assert "collapsed" in {finding.kind for finding in collapsed.findings}


class Isotropic(dist.Distribution):
    """A normal vector of independent coordinates of one scale."""

    arg_constraints = {"loc": constraints.real_vector, "scale": constraints.positive}  # noqa: RUF012
    support = constraints.real_vector

    def __init__(self, loc, scale, *, validate_args=None):
        self.loc, self.scale = loc, scale
        batch = jnp.broadcast_shapes(jnp.shape(loc)[:-1], jnp.shape(scale))
        super().__init__(batch, jnp.shape(loc)[-1:], validate_args=validate_args)

    def log_prob(self, x):
        return dist.Normal(self.loc, jnp.expand_dims(self.scale, -1)).log_prob(x).sum(-1)


def squared_length(vector):
    return (vector**2).sum(-1)


# the location of an isotropic normal: m and ‖m‖² in place of m and m mᵀ
LOCATION = conjugate.Conjugate(
    name="isotropic location",
    features=lambda m, origin: (m - origin, squared_length(m - origin)),
    maximize=lambda c, m: (
        m + jnp.where(c[1] != 0, 1, 0)[:, None] * c[0] / jnp.where(c[1] != 0, -2 * c[1], 1)[:, None]
    ),
    event_dim=1,
    solution="expected mean",
    moved=lambda before, step: (
        before[0] + step[0],
        before[1] + 2 * (before[0] * step[0]).sum(-1) + step[1],
    ),
)
DIMENSION = 3
ISOTROPIC = Family(
    arguments={"loc": LOCATION, "scale": conjugate.SCALE},
    naturals=lambda loc, scale: (
        loc[0] * scale[1][..., None],
        -0.5 * scale[1],
        -0.5 * loc[1] * scale[1] - DIMENSION * scale[0],
    ),
    statistics=lambda x: (x, squared_length(x), 1.0),
    base=lambda x: -0.5 * DIMENSION * jnp.log(2 * jnp.pi) * jnp.ones_like(x[..., 0]),
    event_dims=(1, 0, 0),
    centered="loc",
)


def test_a_location_that_is_alike_in_all_coordinates():
    register(Isotropic, ISOTROPIC)
    x = RNG.normal(size=(60, DIMENSION)) + np.where(np.arange(60)[:, None] < 25, -2.0, 2.0)

    def program(x, start):
        loc = numpyro.param("loc", jnp.asarray(start))
        scale = numpyro.param("scale", jnp.ones(2), constraint=constraints.positive)
        with numpyro.plate("samples", len(x)):
            z = numpyro.sample("z", dist.Categorical(jnp.asarray(WEIGHTS)))
            numpyro.sample("x", Isotropic(loc[z], scale[z]), obs=x)

    start = np.array([[-1.0, 0.0, 0.0], [1.0, 0.5, 0.0]])
    em = EM(program)
    assert em.plan(x, start).method("loc") == em.plan(x, start).method("scale") == "closed form"
    state = em.init(KEY, x, start)
    loc, scale = start, np.ones(2)
    for _ in range(3):
        state, _ = em.update(state, x, start)
        square = squared_length(x[:, None] - loc)
        r = responsibilities(-DIMENSION * np.log(scale) - square / (2 * scale**2))
        loc = r.T @ x / r.sum(0)[:, None]
        square = squared_length(x[:, None] - loc)
        scale = np.sqrt((r * square).sum(0) / (DIMENSION * r.sum(0)))
        np.testing.assert_allclose(state.params["loc"], loc, rtol=1e-10)
        np.testing.assert_allclose(state.params["scale"], scale, rtol=1e-10)
    result = em.run(KEY, x, start)
    assert result.status == 0 and result.findings == ()
    # one scale for all coordinates is held against the one of all data's that spreads most
    bound = em.on(x, start)
    sharpness = bound.compiled.watch.sharpness(result.params, result.params, bound.constants())
    expected = np.log(x.std(0).max() / result.params["scale"])
    np.testing.assert_allclose(sharpness[0][0], expected, rtol=1e-10)


class AboutZero(dist.Distribution):
    """A multivariate normal about zero."""

    arg_constraints = {"matrix": constraints.positive_definite}  # noqa: RUF012
    support = constraints.real_vector

    def __init__(self, matrix, *, validate_args=None):
        self.matrix = matrix
        shape = jnp.shape(matrix)
        super().__init__(shape[:-2], shape[-1:], validate_args=validate_args)

    def log_prob(self, x):
        return dist.MultivariateNormal(covariance_matrix=self.matrix).log_prob(x)


def second_moment(coefficients, value):
    n, s = coefficients
    used = n != 0
    matrix = (s + s.mT) / 2 / jnp.where(used, n, 1)[..., None, None]
    return jnp.where(used[..., None, None], matrix, value)


SECOND_MOMENT = conjugate.Conjugate(
    name="second moment",
    features=lambda m, origin=None: (jnp.linalg.slogdet(m)[1], jnp.linalg.inv(m)),
    maximize=second_moment,
    event_dim=2,
    solution="expected second moment",
    constraints=(constraints.positive_definite,),
    least_variance=lambda m, unit: jnp.linalg.eigvalsh(
        m / (unit[..., :, None] * unit[..., None, :])
    )[..., 0],
)
ABOUT_ZERO = Family(
    arguments={"matrix": SECOND_MOMENT},
    naturals=lambda matrix: (-matrix[1] / 2, -matrix[0] / 2),
    statistics=lambda x: (x[..., :, None] * x[..., None, :], 1.0),
    base=lambda x: -0.5 * x.shape[-1] * jnp.log(2 * jnp.pi) * jnp.ones_like(x[..., 0]),
    event_dims=(2, 0),
)
MATRICES = np.stack([np.diag([1.0, 9.0, 2.0]), np.diag([9.0, 1.0, 1.0])])


def test_a_shape_whose_entries_are_matrices_under_a_constraint():
    register(AboutZero, ABOUT_ZERO)
    outer = VECTORS[:, None, :, None] * VECTORS[:, None, None, :]

    def by_hand(matrix):
        form = (outer * np.linalg.inv(matrix)).sum((-2, -1))
        r = responsibilities(-0.5 * (np.linalg.slogdet(matrix)[1] + form))
        return (r[..., None, None] * outer).sum(0) / r.sum(0)[:, None, None]

    program = mixture_of(AboutZero, "matrix", constraints.positive_definite)
    _, result = check(program, "matrix", VECTORS, MATRICES, by_hand)
    assert result.findings == ()
    flat = VECTORS * [1, 1, 1e-9]
    collapsed = EM(program, max_steps=20).run(KEY, flat, MATRICES)
    assert "collapsed" not in {finding.kind for finding in collapsed.findings}  # it is in its unit


def test_a_constraint_that_may_exclude_the_maximizer_of_ones_own_shape_is_named():
    register(AboutZero, ABOUT_ZERO)
    program = mixture_of(AboutZero, "matrix", constraints.corr_matrix)
    plan = EM(program).plan(VECTORS, np.stack([np.eye(3)] * 2))
    assert plan.method("matrix") == "Newton"
    assert "may exclude the maximizer" in str(plan)


# ── priors ────────────────────────────────────────────────────────────────────────────────────────


class InverseGammaSquare(dist.Distribution):
    """The prior of σ under which σ² is inverse gamma: ∝ σ^(−2a − 1) exp(−b / σ²)."""

    arg_constraints = {"a": constraints.positive, "b": constraints.positive}  # noqa: RUF012
    support = constraints.positive

    def __init__(self, a, b, *, validate_args=None):
        self.a, self.b = jnp.asarray(a), jnp.asarray(b)
        super().__init__(jnp.shape(self.a + self.b), (), validate_args=validate_args)

    def sample(self, key, sample_shape=()):
        return jnp.sqrt(dist.InverseGamma(self.a, self.b).sample(key, sample_shape))

    def log_prob(self, sigma):
        return dist.InverseGamma(self.a, self.b).log_prob(sigma**2) + jnp.log(2 * sigma)


def log_density(f, a, b):
    return -(2 * a + 1) * f[0] - b * f[1]


def log_constant(a, b):
    return jnp.log(2.0) + a * jnp.log(b) - jax.scipy.special.gammaln(a)


@pytest.mark.parametrize("constant", [None, log_constant])
def test_a_prior_of_ones_own_is_part_of_the_closed_form(constant):
    register(InverseGammaSquare, Prior(conjugate.SCALE, ("a", "b"), log_density, constant))
    x = np.concatenate([RNG.normal(0, 0.5, 30), RNG.normal(0, 4.0, 50)])
    a, b = 3.0, 0.7

    def program(x, start):
        with numpyro.plate("components", 2):
            scale = numpyro.sample("scale", InverseGammaSquare(a, b))
        with numpyro.plate("samples", len(x)):
            z = numpyro.sample("z", dist.Categorical(jnp.asarray(WEIGHTS)))
            numpyro.sample("x", dist.Normal(0.0, scale[z]), obs=x)

    def by_hand(scale):
        square = x[:, None] ** 2
        r = responsibilities(-np.log(scale) - square / (2 * scale**2))
        return np.sqrt(((r * square).sum(0) + 2 * b) / (r.sum(0) + 2 * a + 1))

    start = {"scale": jnp.array([1.0, 2.0])}
    em = EM(program)
    plan = em.plan(x, None)
    assert plan.method("scale") == "closed form"
    assert "with its InverseGammaSquare prior" in str(plan)
    expected = np.asarray(start["scale"])
    for steps in (1, 2, 3):
        expected = by_hand(expected)
        found = EM(program, max_steps=steps).run(KEY, x, None, init_params=start)
        np.testing.assert_allclose(found.params["scale"], expected, rtol=1e-10)
    result = em.run(KEY, x, None, init_params=start)
    objective = np.asarray(result.objective)
    assert (np.diff(objective) >= -1e-10 * np.abs(objective[1:])).all()
    likelihood = em.log_likelihood(result, x, None)
    log_prior = InverseGammaSquare(a, b).log_prob(result.params["scale"]).sum()
    np.testing.assert_allclose(objective[-1], likelihood + log_prior, rtol=1e-12)


def test_a_prior_that_is_not_registered_is_not_conjugate():
    def program(x):
        scale = numpyro.sample("scale", InverseGammaSquare(3.0, 0.7))
        with numpyro.plate("samples", len(x)):
            numpyro.sample("x", dist.Normal(0.0, scale), obs=x)

    plan = EM(program).plan(RNG.normal(size=5))
    assert plan.method("scale") == "Newton"
    assert "its InverseGammaSquare prior is not conjugate to a scale" in str(plan)
