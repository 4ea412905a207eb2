"""Every record of the registries against NumPyro's own densities, at random arguments and data.

Nothing of EM runs here: a family, a shape of conjugacy or a prior that is wrong fails by its name.
What is registered later is tested without a change here, unless its shape is new.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax.scipy.special import logit
from numpyro.distributions import biject_to, constraints

from emjax import conjugate
from emjax.distributions import PartiallyObserved
from emjax.families.family import FAMILIES, PRIORS, Family, Prior
from tests.oracles.by_numpy import evaluated

KEY = jax.random.key(0)
ENTRIES, SIZE, DRAWS = 4, 3, 5
SHAPES = {
    name: shape for name, shape in vars(conjugate).items() if isinstance(shape, conjugate.Conjugate)
}


def random_values(constraint, event, seed: int) -> jax.Array:
    """Values that satisfy a constraint, one for each entry: (entry, *event)."""
    bijection = biject_to(constraint)
    numbers = np.random.default_rng(seed)
    shape = bijection.inverse_shape((ENTRIES, *event))
    return jnp.asarray(evaluated(bijection, numbers.normal(size=shape)))


def negative_definite(numbers: np.random.Generator) -> np.ndarray:
    root = numbers.normal(size=(ENTRIES, SIZE, SIZE))
    return -root @ root.swapaxes(-1, -2) - np.eye(SIZE)


def counts(numbers, *event):
    return numbers.gamma(3.0, size=(ENTRIES, *event))


def log_and_slope(numbers):
    return counts(numbers), -counts(numbers)


def two_counts(numbers):
    return counts(numbers), counts(numbers)


def one_count_each(numbers):
    return (counts(numbers, SIZE),)


def scatter(numbers):
    return -counts(numbers), negative_definite(numbers)


VECTOR, MATRIX = (SIZE,), (SIZE, SIZE)
# of each shape: what its values satisfy, the shape of one, and coefficients that have a maximum
PROBLEMS = {
    "UNIT_INTERVAL": (constraints.unit_interval, (), two_counts),
    "UNIT_INTERVAL_LOGITS": (constraints.real, (), two_counts),
    "SIMPLEX": (constraints.simplex, VECTOR, one_count_each),
    "SIMPLEX_LOGITS": (constraints.real_vector, VECTOR, one_count_each),
    "RATE": (constraints.positive, (), log_and_slope),
    "SCALE": (constraints.positive, (), lambda numbers: (-counts(numbers), -counts(numbers))),
    "LOCATION": (
        constraints.real,
        (),
        lambda numbers: (numbers.normal(size=ENTRIES), -counts(numbers)),
    ),
    "LOCATION_VECTOR": (
        constraints.real_vector,
        VECTOR,
        lambda numbers: (numbers.normal(size=(ENTRIES, SIZE)), negative_definite(numbers)),
    ),
    "COVARIANCE": (constraints.positive_definite, MATRIX, scatter),
    "PRECISION": (constraints.positive_definite, MATRIX, scatter),
    "SCALE_TRIL": (constraints.lower_cholesky, MATRIX, scatter),
}
NAMES = {shape: name for name, shape in SHAPES.items()}


def values_of_shape(shape: conjugate.Conjugate, seed: int) -> jax.Array:
    constraint, event, _ = PROBLEMS[NAMES[shape]]
    return random_values(constraint, event, seed)


def total(products) -> jax.Array:
    return sum(map(jnp.sum, products))


# ── families ──────────────────────────────────────────────────────────────────────────────────────

FORMS = []
for kind, families in FAMILIES.items():
    for family in families:
        arguments = "-".join(family.arguments)
        FORMS.append(pytest.param(kind, family, id=f"{kind.__name__}-{arguments}"))


def random_argument(kind: type, name: str, shape: conjugate.Conjugate | None, seed: int):
    if shape is not None:
        return values_of_shape(shape, seed)
    constraint = kind.arg_constraints[name]
    return random_values(constraint, (SIZE,) * constraint.event_dim, seed)


def random_arguments(kind: type, family: Family) -> dict[str, jax.Array]:
    arguments = {}
    for seed, (name, shape) in enumerate(family.arguments.items()):
        arguments[name] = random_argument(kind, name, shape, seed)
    for name in family.given:
        assert name in ("total_count", "observed"), f"give {name} a random value here"
    if "total_count" in family.given:
        arguments["total_count"] = jnp.array([1, 4, 9, 20])
    if "observed" in family.given:
        # a row of all, rows that lack one or two, a row of none
        arguments["observed"] = jnp.array([[1, 1, 1], [1, 0, 1], [0, 0, 1], [0, 0, 0]], bool)
    return arguments


def distribution_of(kind: type, arguments: dict) -> dist.Distribution:
    if kind is dist.NegativeBinomialProbs:
        # by its log-odds: NumPyro's density by probability reads JAX's betaln, right to 1e-7 only
        log_odds = logit(arguments["probs"])
        return dist.NegativeBinomialLogits(arguments["total_count"], log_odds)
    if kind is not PartiallyObserved:
        return kind(**arguments)
    normal = {name: value for name, value in arguments.items() if name != "observed"}
    return PartiallyObserved(dist.MultivariateNormal(**normal), observed=arguments["observed"])


def log_density_of_record(family: Family, arguments: dict, x, origin) -> jax.Array:
    """⟨η, t(x)⟩ + log h(x), (draw, entry), a location and its statistics measured from `origin`."""
    given = {name: arguments[name] for name in family.given}
    features = {}
    for name, shape in family.arguments.items():
        value = arguments[name]
        if shape is not None:
            value = shape.features(value, origin if name == family.centered else None)
        features[name] = value
    naturals = family.naturals(**features)
    moved = family.transform(x)
    base = family.base(moved, **given)
    if family.lookup:
        (table,) = naturals
        return base + jnp.take_along_axis(table[None], x[..., None], -1)[..., 0]
    if family.centered:
        moved = moved - origin
    if family.marginal is not None:
        # of one rank, and finite where nothing is observed
        naturals = [natural[None] for natural in naturals]
        observed = jnp.broadcast_to(arguments["observed"], moved.shape)
        return base + family.marginal(*naturals, jnp.where(observed, moved, 0), observed)
    statistics = list(family.statistics(moved, **given))
    for number in family.squares:
        vector = statistics[number]
        statistics[number] = vector[..., :, None] * vector[..., None, :]
    density = base
    for natural, statistic, event in zip(naturals, statistics, family.event_dims, strict=True):
        density = density + (natural * statistic).sum(range(-event, 0))
    return density


@pytest.mark.parametrize(("kind", "family"), FORMS)
def test_the_log_density_of_a_family_is_numpyros(kind, family):
    arguments = random_arguments(kind, family)
    distribution = distribution_of(kind, arguments)
    x = distribution.sample(KEY, (DRAWS,))
    if "observed" in arguments:
        x = jnp.where(arguments["observed"], x, jnp.nan)

    def densities(arguments, x):
        ours = [log_density_of_record(family, arguments, x, origin) for origin in (0.0, 0.7)]
        return distribution_of(kind, arguments).log_prob(x), ours

    expected, ours = evaluated(densities, arguments, x)
    assert expected.shape == (DRAWS, ENTRIES) and np.isfinite(expected).all()
    for actual in ours:
        np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("kind", "family"), FORMS)
def test_the_naturals_of_a_family_are_linear_in_the_features_of_each_argument(kind, family):
    arguments = random_arguments(kind, family)
    features = {}
    for name, shape in family.arguments.items():
        value = arguments[name]
        features[name] = value if shape is None else shape.features(value, 0.0)
    for name, shape in family.arguments.items():
        if shape is None:
            continue

        def naturals(features_of_argument, name=name):
            changed = {**features, name: features_of_argument}
            return tuple(map(jnp.asarray, family.naturals(**changed)))

        other = shape.features(values_of_shape(shape, 17), 0.0)
        halfway = tuple((a + b) / 2 for a, b in zip(features[name], other, strict=True))
        ends = zip(evaluated(naturals, features[name]), evaluated(naturals, other), strict=True)
        for actual, (first, second) in zip(evaluated(naturals, halfway), ends, strict=True):
            np.testing.assert_allclose(actual, (first + second) / 2, rtol=1e-12, atol=1e-12)


# ── shapes of conjugacy ───────────────────────────────────────────────────────────────────────────


def test_every_shape_has_a_problem():
    assert set(SHAPES) == set(PROBLEMS)
    for form in FORMS:
        _, family = form.values
        assert set(family.arguments.values()) - {None} <= set(SHAPES.values())


@pytest.mark.parametrize("name", SHAPES)
def test_the_maximizer_of_a_shape_is_where_the_gradient_is_zero(name):
    shape, (constraint, event, problem) = SHAPES[name], PROBLEMS[name]
    start = random_values(constraint, event, seed=1)
    coefficients = tuple(map(jnp.asarray, problem(np.random.default_rng(2))))
    bijection = biject_to(constraint)

    @jax.value_and_grad
    def objective(unconstrained):
        features = shape.features(bijection(unconstrained), start)
        return total(c * f for c, f in zip(coefficients, features, strict=True))

    maximum = shape.maximize(coefficients, start)
    assert constraint(maximum).all()
    at_maximum = bijection.inv(maximum)
    height, gradient = evaluated(objective, at_maximum)
    unit = np.abs(evaluated(objective, bijection.inv(start))[1]).max()
    assert unit > 0.1  # where it starts, it is not zero
    np.testing.assert_allclose(gradient / unit, 0, atol=1e-12)
    nudge = 1e-2 * np.random.default_rng(3).normal(size=at_maximum.shape)
    for sign in (-1, 1):
        assert evaluated(objective, at_maximum + sign * nudge)[0] < height


@pytest.mark.parametrize("name", SHAPES)
def test_an_entry_without_data_keeps_its_value_and_has_a_derivative(name):
    shape, (constraint, event, problem) = SHAPES[name], PROBLEMS[name]
    start = random_values(constraint, event, seed=1)
    coefficients = []
    for array in problem(np.random.default_rng(2)):
        array[1] = 0
        coefficients.append(jnp.asarray(array))
    maximum = shape.maximize(tuple(coefficients), start)
    np.testing.assert_array_equal(maximum[1], start[1])
    assert not np.isclose(maximum[0], start[0]).all()
    derivatives = evaluated(jax.jacrev(shape.maximize), tuple(coefficients), start)
    for derivative in derivatives:
        assert np.isfinite(derivative).all()


# ── priors ────────────────────────────────────────────────────────────────────────────────────────

PRIORS_OF_NO_SHAPE = {
    dist.Uniform: dist.Uniform(-1.0, 30.0),
    dist.ImproperUniform: dist.ImproperUniform(constraints.real, (), ()),
}


def instance_of_prior(kind: type, prior: Prior) -> dist.Distribution:
    arguments = {}
    for seed, name in enumerate(prior.arguments):
        constraint = kind.arg_constraints[name]
        # degrees of freedom, of which NumPyro says that their bound depends on something else
        if type(constraint) is type(constraints.dependent):
            constraint = constraints.greater_than(SIZE)
        arguments[name] = random_values(constraint, (SIZE,) * constraint.event_dim, seed)
    return kind(**arguments)


@pytest.mark.parametrize(
    ("kind", "prior"), [pytest.param(*item, id=item[0].__name__) for item in PRIORS.items()]
)
def test_the_log_density_of_a_prior_is_numpyros(kind, prior):
    """All of it where the record has a constant; else up to a number that no value changes."""
    if prior.form is None:
        log_prob = PRIORS_OF_NO_SHAPE[kind].log_prob
        assert log_prob(0.3) == log_prob(1.4)
        assert prior.log_density(()) == 0
        return
    distribution = instance_of_prior(kind, prior)
    arguments = {name: getattr(distribution, name) for name in prior.arguments}
    origin = arguments[prior.centered] if prior.centered else None
    log_density = partial(prior.log_density, **arguments)
    differences = []
    for seed in (5, 6):
        value = values_of_shape(prior.form, seed)
        density = log_density(prior.form.features(value, origin))
        differences.append(distribution.log_prob(value) - density)
    expected = differences[1]
    if prior.log_constant is not None:
        expected = prior.log_constant(**arguments)
    np.testing.assert_allclose(differences[0], expected, rtol=1e-12, atol=1e-12)
