"""Exponential families: what a distribution is to EM.

In: a NumPyro distribution class, and which of its arguments are available. Out: a `Family` (natural
parameters, statistics) whose arguments have a `Conjugate` shape, or a conjugate `Prior`. Read
first: `conjugate`. Each file imports only those before it: conjugate, distributions, missing,
families.
"""
