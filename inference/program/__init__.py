"""Trace a NumPyro program once, abstractly, with symbols in place of its latents.

In: a model, its arguments, and the values that its parameters start at. Out: a `Program`: its
latents, its parameters, its sites, and one jaxpr that computes all that they need. Read first:
`trace`. Each file imports only those before it: identity, fingerprint, array_like, failures,
looked_at, explanations, arguments, statements, latents, integrated, records, steps, scans,
scanned_sites, event_masks, messenger, starter, tracer, trace, marginal, row_axes, lengths, padding.
"""
