"""Effect handlers for users: how often elements count, what is known of a latent.

In: a NumPyro program. Out: another one, whose first argument holds weights (`weighted`) or labels
(`labeled`); `compress` makes equal rows one. Inside emjax: a program's plates, and the units that
the elements of one are, which refits weigh; sites beside a program's own; a run at given values.
Read first: `labels`. Each file imports only those before it: distinct_rows,
row_arrays, merged_chunks, compress, labels, weights, plates, units, beside, forward.
"""
