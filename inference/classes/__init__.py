"""Mixtures and latent classes: how large classes are, how well they are told apart, how many.

In: an `EM`, an estimate, and its data; each sample has one value of a discrete latent, its class.
Out: records that print as tables. Read first: `membership`. Each file imports only those before it:
membership, sizes, classification, likelihood_ratio, replicates, bootstrap_test,
weighted_chi_squares, vuong_test, assignment, external, weighted_step, likelihood_step,
associations, three_step.
"""
