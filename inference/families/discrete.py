"""Families of counts and categories."""

from __future__ import annotations

import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import gammaln

from emjax.families.conjugate import (
    RATE,
    SIMPLEX,
    SIMPLEX_LOGITS,
    UNIT_INTERVAL,
    UNIT_INTERVAL_LOGITS,
    Conjugate,
)
from emjax.families.family import Family, register


def _zero(x, **given):
    return jnp.zeros(())


def _two_outcomes(conjugacy: Conjugate, name: str, **changes) -> Family:
    """Return a family of successes and failures: a log p + b log(1 − p)."""
    return Family({name: conjugacy}, naturals=lambda **f: f[name], event_dims=(0, 0), **changes)


def _log_binomial(x, total_count):
    return gammaln(total_count + 1.0) - gammaln(x + 1.0) - gammaln(total_count - x + 1.0)


def _log_negative_binomial(x, total_count):
    return gammaln(x + total_count) - gammaln(x + 1.0) - gammaln(total_count * 1.0)


def _register_two_outcomes(name: str, conjugacy: Conjugate) -> None:
    """Register the families of successes and failures, by probability or by log-odds."""
    suffix = name.title()
    register(
        getattr(dist, f"Bernoulli{suffix}"),
        # `total` spares an E-step the second column: n − x follows from x and n
        _two_outcomes(
            conjugacy, name, statistics=lambda x: (x, 1 - x), base=_zero, total=lambda: 1.0
        ),
    )
    register(
        getattr(dist, f"Binomial{suffix}"),
        _two_outcomes(
            conjugacy,
            name,
            given=("total_count",),
            statistics=lambda x, total_count: (x, total_count - x),
            total=lambda total_count: total_count,
            base=_log_binomial,
        ),
    )
    register(
        # NumPyro counts the failures before the one success
        getattr(dist, f"Geometric{suffix}"),
        _two_outcomes(conjugacy, name, statistics=lambda x: (jnp.ones_like(x), x), base=_zero),
    )
    # NumPyro counts successes (probability p) before total_count failures
    register(
        getattr(dist, f"NegativeBinomial{suffix}"),
        _two_outcomes(
            conjugacy,
            name,
            given=("total_count",),
            statistics=lambda x, total_count: (x, total_count * jnp.ones_like(x)),
            base=_log_negative_binomial,
        ),
    )


def _register_categories(name: str, conjugacy: Conjugate) -> None:
    """Register the families of categories and of counts of them."""
    suffix = name.title()
    register(
        getattr(dist, f"Categorical{suffix}"),
        Family(
            {name: conjugacy},
            naturals=lambda **f: f[name],
            # a lookup's statistics are the expected counts of its entries, not functions of x
            statistics=lambda x: (),
            base=_zero,
            event_dims=(1,),
            lookup=True,
        ),
    )
    register(
        getattr(dist, f"Multinomial{suffix}"),
        Family(
            {name: conjugacy},
            naturals=lambda **f: f[name],
            statistics=lambda x, total_count: (x,),
            event_dims=(1,),
            given=("total_count",),
            base=lambda x, total_count: gammaln(total_count + 1.0) - gammaln(x + 1.0).sum(-1),
        ),
    )


_register_two_outcomes("probs", UNIT_INTERVAL)
_register_two_outcomes("logits", UNIT_INTERVAL_LOGITS)
_register_categories("probs", SIMPLEX)
_register_categories("logits", SIMPLEX_LOGITS)
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
