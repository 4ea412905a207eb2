"""Exponential families: log p(x | v) = Σ_i ⟨η_i(v), t_i(x)⟩ + log h(x), with −A(v) the last η,
whose t is 1.

Each family states its natural parameters as functions *linear in the features* of each of its
arguments (`emjax.conjugate`), so that one derivative of ⟨η, expected statistics⟩ is the M-step's
data.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import gammaln

from emjax.families.conjugate import (
    COVARIANCE,
    LOCATION,
    LOCATION_VECTOR,
    PRECISION,
    RATE,
    SCALE,
    SCALE_TRIL,
    SIMPLEX,
    SIMPLEX_LOGITS,
    UNIT_INTERVAL,
    UNIT_INTERVAL_LOGITS,
    Conjugate,
    inverse_of,
)
from emjax.families.distributions import PartiallyObserved
from emjax.families.missing import log_marginal
from emjax.numerics.guards import safe_log


@dataclass(frozen=True)
class Family:
    """An exponential family.

    `arguments`: the form of each argument, None where its maximizer has no closed form. `given`:
    arguments that must be free of parameters. `naturals(features by argument)` and `statistics(x,
    given by argument)` return the η_i and t_i, whose last `event_dims[i]` axes are contracted;
    `base(x, given)` is log h(x). `lookup`: the statistic is the indicator of x, and log p is read
    from the table instead. `centered`: statistics are taken of x − origin, and the location's
    features are measured from the same origin, so that mean ≫ sd does not cancel. `transform`: the
    x that is centered. `squares`: statistics that are matrices x xᵀ, given as the vector x.
    `total`: the n of families whose statistics are x and n − x, a function of the given arguments.
    `marginal`: of a family whose events may lack coordinates, `marginal(*η, x, observed)` is log ∫
    exp(Σ ⟨η_i, t_i(x)⟩) dx over those that the given argument `observed` says are missing, in place
    of Σ ⟨η_i, t_i(x)⟩; its derivatives with respect to the η_i are the expected statistics.
    """

    arguments: Mapping[str, Conjugate | None]
    naturals: Callable
    statistics: Callable
    base: Callable
    event_dims: tuple[int, ...]
    given: tuple[str, ...] = ()
    lookup: bool = False
    centered: str | None = None
    transform: Callable = field(default=lambda x: x)
    squares: tuple[int, ...] = ()
    total: Callable | None = None
    marginal: Callable | None = None


FAMILIES: dict[type, list[Family]] = {}


def register(distribution: type, family: Family) -> None:
    """Teach emjax an exponential family; it replaces an earlier entry with the same arguments.

    `distribution`: the NumPyro distribution class whose arguments the family's `arguments` and
    `given` name.
    """
    forms = FAMILIES.setdefault(distribution, [])
    names = set(family.arguments) | set(family.given)
    forms[:] = [form for form in forms if set(form.arguments) | set(form.given) != names]
    forms.append(family)


def registered_arguments(distribution: type) -> tuple[str, ...]:
    """Return the names of all arguments that a distribution's families and conjugate priors
    read.
    """
    names = [
        name
        for family in FAMILIES.get(distribution, ())
        for name in (*family.arguments, *family.given)
    ]
    names += PRIORS[distribution].arguments if distribution in PRIORS else ()
    return tuple(dict.fromkeys(names))


def family_of(distribution: type, available) -> Family | None:
    """Return the first form of a distribution whose arguments are all available."""
    for family in FAMILIES.get(distribution, ()):
        if all(name in available for name in (*family.arguments, *family.given)):
            return family
    return None


def _zero(x, **given):
    return jnp.zeros(())


def _two_outcomes(conjugate, name, **changes):
    """Families of successes and failures: a log p + b log(1 − p)."""
    return Family({name: conjugate}, naturals=lambda **f: f[name], event_dims=(0, 0), **changes)


for _name, _form in (("probs", UNIT_INTERVAL), ("logits", UNIT_INTERVAL_LOGITS)):
    register(
        getattr(dist, f"Bernoulli{_name.title()}"),
        _two_outcomes(_form, _name, statistics=lambda x: (x, 1 - x), base=_zero, total=lambda: 1.0),
    )
    register(
        getattr(dist, f"Binomial{_name.title()}"),
        _two_outcomes(
            _form,
            _name,
            given=("total_count",),
            statistics=lambda x, total_count: (x, total_count - x),
            total=lambda total_count: total_count,
            base=lambda x, total_count: (
                gammaln(total_count + 1.0) - gammaln(x + 1.0) - gammaln(total_count - x + 1.0)
            ),
        ),
    )
    register(
        getattr(dist, f"Geometric{_name.title()}"),
        _two_outcomes(_form, _name, statistics=lambda x: (jnp.ones_like(x), x), base=_zero),
    )
    # NumPyro counts successes (probability p) before total_count failures
    register(
        getattr(dist, f"NegativeBinomial{_name.title()}"),
        _two_outcomes(
            _form,
            _name,
            given=("total_count",),
            statistics=lambda x, total_count: (x, total_count * jnp.ones_like(x)),
            base=lambda x, total_count: (
                gammaln(x + total_count) - gammaln(x + 1.0) - gammaln(total_count * 1.0)
            ),
        ),
    )

for _name, _form in (("probs", SIMPLEX), ("logits", SIMPLEX_LOGITS)):
    register(
        getattr(dist, f"Categorical{_name.title()}"),
        Family(
            {_name: _form},
            naturals=lambda name=_name, **f: f[name],
            statistics=lambda x: (),
            base=_zero,
            event_dims=(1,),
            lookup=True,
        ),
    )
    register(
        getattr(dist, f"Multinomial{_name.title()}"),
        Family(
            {_name: _form},
            naturals=lambda name=_name, **f: f[name],
            statistics=lambda x, total_count: (x,),
            event_dims=(1,),
            given=("total_count",),
            base=lambda x, total_count: gammaln(total_count + 1.0) - gammaln(x + 1.0).sum(-1),
        ),
    )

register(
    dist.Poisson,
    Family(
        {"rate": RATE},
        naturals=lambda rate: (rate[0], -rate[1]),
        statistics=lambda x: (x, 1.0),
        base=lambda x: -gammaln(x + 1.0),
        event_dims=(0, 0),
    ),
)
register(
    dist.Exponential,
    Family(
        {"rate": RATE},
        naturals=lambda rate: (-rate[1], rate[0]),
        statistics=lambda x: (x, 1.0),
        base=_zero,
        event_dims=(0, 0),
    ),
)
register(
    dist.Gamma,
    Family(
        {"concentration": None, "rate": RATE},
        event_dims=(0, 0, 0),
        statistics=lambda x: (safe_log(x), x, 1.0),
        base=lambda x: -safe_log(x),
        naturals=lambda concentration, rate: (
            concentration,
            -rate[1],
            concentration * rate[0] - gammaln(concentration),
        ),
    ),
)
register(
    dist.Beta,
    Family(
        {"concentration1": None, "concentration0": None},
        event_dims=(0, 0, 0),
        statistics=lambda x: (safe_log(x), safe_log(1 - x), 1.0),
        base=lambda x: -safe_log(x) - safe_log(1 - x),
        naturals=lambda concentration1, concentration0: (
            concentration1,
            concentration0,
            gammaln(concentration1 + concentration0)
            - gammaln(concentration1)
            - gammaln(concentration0),
        ),
    ),
)
register(
    dist.Dirichlet,
    Family(
        {"concentration": None},
        event_dims=(1, 0),
        statistics=lambda x: (safe_log(x), 1.0),
        base=lambda x: -safe_log(x).sum(-1),
        naturals=lambda concentration: (
            concentration,
            gammaln(concentration.sum(-1)) - gammaln(concentration).sum(-1),
        ),
    ),
)

_LOG_2PI = 1.8378770664093453


def _normal(loc, scale):
    (first, second), (log_scale, precision) = loc, scale
    return first * precision, -0.5 * precision, -0.5 * second * precision - log_scale


register(
    dist.Normal,
    Family(
        {"loc": LOCATION, "scale": SCALE},
        naturals=_normal,
        statistics=lambda x: (x, x**2, 1.0),
        base=lambda x: -0.5 * _LOG_2PI * jnp.ones_like(x),
        event_dims=(0, 0, 0),
        centered="loc",
    ),
)
register(
    dist.LogNormal,
    Family(
        {"loc": LOCATION, "scale": SCALE},
        naturals=_normal,
        statistics=lambda x: (x, x**2, 1.0),
        base=lambda x: -0.5 * _LOG_2PI - x,
        event_dims=(0, 0, 0),
        centered="loc",
        transform=jnp.log,
    ),
)
register(
    dist.HalfNormal,
    Family(
        {"scale": SCALE},
        naturals=lambda scale: (-0.5 * scale[1], -scale[0]),
        statistics=lambda x: (x**2, 1.0),
        base=lambda x: 0.5 * (2 * 0.6931471805599453 - _LOG_2PI) * jnp.ones_like(x),
        event_dims=(0, 0),
    ),
)

for _name, _form in (
    ("covariance_matrix", COVARIANCE),
    ("precision_matrix", PRECISION),
    ("scale_tril", SCALE_TRIL),
):

    def _multivariate(loc, name=_name, **matrix):
        (first, second), (log_determinant, precision) = loc, matrix[name]
        linear = (precision @ first[..., None])[..., 0]
        return (
            linear,
            -0.5 * precision,
            -0.5 * (second * precision).sum((-2, -1)) - 0.5 * log_determinant,
        )

    register(
        dist.MultivariateNormal,
        Family(
            {"loc": LOCATION_VECTOR, _name: _form},
            naturals=_multivariate,
            statistics=lambda x: (x, x, 1.0),
            squares=(1,),
            event_dims=(1, 2, 0),
            base=lambda x: -0.5 * x.shape[-1] * _LOG_2PI * jnp.ones_like(x[..., 0]),
            centered="loc",
        ),
    )
    register(
        PartiallyObserved,
        Family(
            {"loc": LOCATION_VECTOR, _name: _form},
            naturals=_multivariate,
            given=("observed",),
            statistics=lambda x, observed: (x, x, 1.0),
            squares=(1,),
            event_dims=(1, 2, 0),
            base=lambda x, observed: -0.5 * _LOG_2PI * observed.sum(-1),
            centered="loc",
            marginal=log_marginal,
        ),
    )


@dataclass(frozen=True)
class Prior:
    """A prior whose log-density is linear in the features of a form of argument: a conjugate prior.

    `form`: None is conjugate to every form (a flat prior); `log_density(features, **arguments)` up
    to `log_constant(**arguments)`; without one, NumPyro's own density is evaluated (where 0 · log 0
    would be NaN, there is one); `centered`: the argument from which a location's features are
    measured.
    """

    form: Conjugate | None
    arguments: tuple[str, ...]
    log_density: Callable
    log_constant: Callable | None = None
    centered: str | None = None


def _flat(features, **arguments):
    return 0.0


PRIORS: dict[type, Prior] = {
    dist.Beta: Prior(
        UNIT_INTERVAL,
        ("concentration1", "concentration0"),
        lambda f, concentration1, concentration0: (
            (concentration1 - 1) * f[0] + (concentration0 - 1) * f[1]
        ),
        lambda concentration1, concentration0: (
            gammaln(concentration1 + concentration0)
            - gammaln(concentration1)
            - gammaln(concentration0)
        ),
    ),
    dist.Dirichlet: Prior(
        SIMPLEX,
        ("concentration",),
        lambda f, concentration: ((concentration - 1) * f[0]).sum(-1),
        lambda concentration: gammaln(concentration.sum(-1)) - gammaln(concentration).sum(-1),
    ),
    dist.Gamma: Prior(
        RATE,
        ("concentration", "rate"),
        lambda f, concentration, rate: (concentration - 1) * f[0] - rate * f[1],
        lambda concentration, rate: concentration * safe_log(rate) - gammaln(concentration),
    ),
    dist.Exponential: Prior(RATE, ("rate",), lambda f, rate: -rate * f[1]),
    dist.Normal: Prior(
        LOCATION, ("loc", "scale"), lambda f, loc, scale: -0.5 * f[1] / scale**2, centered="loc"
    ),
    dist.MultivariateNormal: Prior(
        LOCATION_VECTOR,
        ("loc", "scale_tril"),
        lambda f, loc, scale_tril: -0.5 * (f[1] * inverse_of(scale_tril)).sum((-2, -1)),
        centered="loc",
    ),
    dist.Uniform: Prior(None, (), _flat),
    dist.ImproperUniform: Prior(None, (), _flat),
}
