"""The E-step: log Z and its gradient, the expected statistics.

In: a `FactorGraph` with its arrays filled.
Out: log Z, the expected statistics of every term, posterior probabilities.
Read first: `e_step`. Each file imports only those before it: expected, products,
instance, cutting, term_factors, blocks, summed, fallback, e_step, marginals.
"""
