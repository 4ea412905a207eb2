"""Exponential families: log p(x | v) = Σ_i ⟨η_i(v), t_i(x)⟩ + log h(x), with −A(v) the last η,
whose t is 1; and priors that are conjugate to their arguments.

Each family states its natural parameters as functions *linear in the features* of each of its
arguments (`emjax.conjugate`), so that one derivative of ⟨η, expected statistics⟩ is the M-step's
data.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from emjax.families.conjugate import Conjugate


def _unchanged(x):
    return x


@dataclass(frozen=True)
class Patterns:
    """How events that lack coordinates are integrated out by patterns of what they lack.

    - `are_worth_it(num_rows, size)`: whether rows of so many coordinates are grouped at all.
    - `grouped(observed, x)`: arrays that are rows (row, coordinate) by patterns, by name.
    - `fit(groups)`: whether there was place for all patterns; None: there always is.
    - `marginal(*η, groups)`: the marginal, (value, row), of η (value, …).
    """

    are_worth_it: Callable
    grouped: Callable
    fit: Callable
    marginal: Callable


@dataclass(frozen=True)
class Family:
    """An exponential family: how log p(x | arguments) is read as Σ_i ⟨η_i, t_i(x)⟩ + log h(x).

    - `arguments`: the shape of each argument (`emjax.conjugate`), None where its maximizer has no
      closed form.
    - `naturals(**features)`: the η_i, given the features of each argument by its name (the argument
      itself where its shape is None); each is linear in the features of any one argument.
    - `statistics(x, **given)`: the t_i, one for each η_i.
    - `base(x, **given)`: log h(x) in nats, the logarithm of the base measure's density.
    - `event_dims`: how many last axes of each η_i and t_i are contracted.
    - `given`: arguments that must be free of parameters.
    - `lookup`: the statistic is the indicator of x, and log p is read from the table η instead.
      Such a family has one argument and one η.
    - `centered`: the argument that is a location. The first two statistics are then the first and
      the second power of x − origin, and the location's features are measured from the same origin,
      so that a mean much larger than the standard deviation does not cancel; the last one is the
      count, 1.
    - `transform`: the x that `statistics` and `base` take and that is centered, a function of the
      data.
    - `squares`: the numbers of statistics that are matrices x xᵀ, given as the vector x.
    - `total(**given)`: the n of families whose statistics are x and n − x.
    - `marginal(*η, x, observed)`: of a family whose events may lack coordinates,
      log ∫ exp(Σ ⟨η_i, t_i(x)⟩) dx over those that the given argument `observed` says are missing,
      in place of Σ ⟨η_i, t_i(x)⟩; its derivatives by the η_i are the expected statistics.
    - `patterns`: how its rows are grouped by what they lack, and that marginal of such groups; see
      `Patterns`.

    The Rayleigh distribution, x / σ² exp(−x² / 2σ²), which NumPyro lacks:

    ```python
    class Rayleigh(dist.Distribution):
        arg_constraints = {"scale": constraints.positive}
        support = constraints.positive

        def __init__(self, scale, *, validate_args=None):
            self.scale = scale
            super().__init__(jnp.shape(scale), (), validate_args=validate_args)

        def log_prob(self, x):
            return jnp.log(x) - 2 * jnp.log(self.scale) - x**2 / (2 * self.scale**2)

    rayleigh = Family(
        arguments={"scale": conjugate.SCALE},                  # features log σ and 1 / σ²
        naturals=lambda scale: (-scale[1] / 2, -2 * scale[0]),
        statistics=lambda x: (x**2, 1.0),
        base=lambda x: jnp.log(x),
        event_dims=(0, 0),
    )
    register(Rayleigh, rayleigh)
    ```
    """

    arguments: Mapping[str, Conjugate | None]
    naturals: Callable
    statistics: Callable
    base: Callable
    event_dims: tuple[int, ...]
    given: tuple[str, ...] = ()
    lookup: bool = False
    centered: str | None = None
    transform: Callable = _unchanged
    squares: tuple[int, ...] = ()
    total: Callable | None = None
    marginal: Callable | None = None
    patterns: Patterns | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        """The names of all arguments that must be available."""
        return (*self.arguments, *self.given)


@dataclass(frozen=True)
class Prior:
    """A conjugate prior: its log-density is linear in the features of one shape of argument.

    - `form`: the shape (`emjax.conjugate`) of the parameters that it is a prior of; None is
      conjugate to every shape (a flat prior).
    - `arguments`: the names of its own arguments.
    - `log_density(features, **arguments)`: in nats, up to what does not depend on the features.
    - `log_constant(**arguments)`: what `log_density` leaves out. Without one, NumPyro's own density
      is evaluated; with one, log_density + log_constant, where 0 · log 0 is 0 and not NaN.
    - `centered`: the argument from which a location's features are measured.

    The prior of a scale σ whose square is inverse gamma, 2 bᵃ / Γ(a) σ^(−2a − 1) exp(−b / σ²):

    ```python
    class InverseGammaSquare(dist.Distribution):
        arg_constraints = {"a": constraints.positive, "b": constraints.positive}
        support = constraints.positive

        def __init__(self, a, b, *, validate_args=None):
            self.a, self.b = a, b
            super().__init__(jnp.shape(a + b), (), validate_args=validate_args)

        def log_prob(self, sigma):
            inverse_gamma = dist.InverseGamma(self.a, self.b)
            return inverse_gamma.log_prob(sigma**2) + jnp.log(2 * sigma)

    prior = Prior(
        form=conjugate.SCALE,                           # features log σ and 1 / σ²
        arguments=("a", "b"),
        log_density=lambda f, a, b: -(2 * a + 1) * f[0] - b * f[1],
    )
    register(InverseGammaSquare, prior)
    ```
    """

    form: Conjugate | None
    arguments: tuple[str, ...]
    log_density: Callable
    log_constant: Callable | None = None
    centered: str | None = None


FAMILIES: dict[type, list[Family]] = {}
PRIORS: dict[type, Prior] = {}
# what has been registered, one after another: a program that was traced before may be another since
REGISTRATIONS: list[type] = []


def register(distribution: type, record: Family | Prior) -> None:
    """Teach emjax an exponential family or a conjugate prior.

    `distribution`: the NumPyro distribution class whose arguments the record names. A family
    replaces an earlier one with the same arguments; a prior replaces an earlier prior.
    """
    if not isinstance(distribution, type) or not isinstance(record, Family | Prior):
        raise ValueError(
            f"emjax.register takes a class of distributions and an emjax.Family or emjax.Prior, "
            f"not {distribution!r} and {record!r}."
        )
    REGISTRATIONS.append(distribution)
    if isinstance(record, Prior):
        PRIORS[distribution] = record
        return
    # one distribution may have a family for each parametrization
    families = FAMILIES.setdefault(distribution, [])
    # of the same arguments, the last one registered is meant: a user's replaces ours
    names = set(record.reads)
    families[:] = [family for family in families if set(family.reads) != names]
    families.append(record)


def lacks_coordinates(family: Family | None) -> bool:
    """Whether the events of a family may lack coordinates, over which it integrates."""
    return family is not None and family.marginal is not None


def registered_arguments(distribution: type) -> tuple[str, ...]:
    """Return the names of all arguments that a distribution's families and its prior read."""
    names: list[str] = []
    for family in FAMILIES.get(distribution, ()):
        names += family.reads
    if distribution in PRIORS:
        names += PRIORS[distribution].arguments
    # no set: outputs are numbered in this order, which is to be the same in every process
    return tuple(dict.fromkeys(names))


def family_of(distribution: type, available: Collection[str]) -> Family | None:
    """Return the first family of a distribution whose arguments are all available."""
    for family in FAMILIES.get(distribution, ()):
        if set(family.reads) <= set(available):
            return family
    return None


def prior_of(distribution: type) -> Prior | None:
    """Return the conjugate prior that a distribution is."""
    return PRIORS.get(distribution)
