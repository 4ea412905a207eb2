"""The E-step: log Z and its gradient, the expected statistics.

In: a `FactorGraph` with its arrays filled.
Out: log Z, the expected statistics of every term, posterior probabilities.
`log_partition` (in elimination) is log Z of factors, `log_z` the same as a function of an
instance's tables, `log_partition_of` that of a graph's arrays, with infinities.
Read first: `e_step`. Each file imports only those before it: expected, products,
lookups, instance, incomplete, interactions, cutting, term_factors, blocks, summed, fallback,
e_step, differentiable, marginals, gaussian_marginals, perturbed, draws, occupancy, parts.
"""
