"""Arrays and jaxprs: what JAX and NumPy lack, and what knows nothing of probability.

In: arrays that may hold −∞, jaxprs, arrays that are known while a program is traced. Out:
logarithms of zero with derivatives, tempered sums of exponentials; jaxprs inlined, pruned and
split. Read first: `guards`. Each file imports only those before it: guards, fast_forms,
primitives, jaxprs, in_place, arrays, row_sums, axes, matrices.
"""
