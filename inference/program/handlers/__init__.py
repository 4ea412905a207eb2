"""Effect handlers for users: how often elements count, what is known of a latent.

In: a NumPyro program. Out: another one, whose first argument holds weights (`weighted`) or labels
(`labeled`); `compress` makes equal rows one. Read first: `labels`. Each file imports only those
before it: compress, labels, weights, plates.
"""
