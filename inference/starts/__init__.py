"""Where EM starts: a posterior drawn at random, or locations chosen among the data.

In: a `FactorGraph`, its maximizers, a random key and the program's own values.
Out: {parameter: value}.
Read first: `posteriors`, then `strategies`. Each file imports only those before it: locations,
points, seeding, posteriors, responsibilities, subsets, clusters, strategies.
"""
