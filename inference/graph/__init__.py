"""The factor graph: each site of a program as a term ⟨η(θ), t(x)⟩ over named tables.

In: a `Program`. Out: a `FactorGraph` whose arrays are slots; `prepare` fills those of data,
`arrays` those of parameters. Read first: `terms`, `factor_graph`, then `build`. Each file imports
only those before it: outputs, recipes, residuals, data_statistics, summary, symbols, wiring, terms,
by_element, condensed, slots, lookups, meeting_axes, shared_axes, factor_graph, multiplicity,
site_input, missing_patterns, known_coefficients, regressions, checks, gaussian_uses, term_builder,
interaction_builder, build.
"""
