"""Exponential families: what a distribution is to EM.

In: a NumPyro distribution class, and which of its arguments are available. Out: a `Family` (natural
parameters, statistics) whose arguments have a `Conjugate` shape, or a conjugate `Prior`. To add
one, write its record in `discrete`, `continuous` or `priors`, which fill the registry. Read first:
`conjugate`, then `family`. Each file imports only those before it:
limits, jacobians, conjugate, distributions, missing, family, patterns, discrete, continuous,
priors.
"""

# whoever reads the registry finds it filled
from emjax.families import continuous, discrete, priors

__all__ = ["continuous", "discrete", "priors"]
