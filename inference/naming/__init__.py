"""Names: what the axes of parameters are called, the positions along them, and single entries.

In: a program bound to data. Out: `Entries` of each parameter, `loc[component=0, petal_width]`,
which every table and every certificate prints. Read first: `entries`. Each file imports only those
before it: latent_axes, data_labels, axes, entries.
"""
