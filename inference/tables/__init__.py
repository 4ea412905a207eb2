"""Compact named values: a table, and which latents or rows its axes stand for.

In: a jaxpr, and `Named` values of its inputs. Out: `Named` values of its outputs: elementwise
functions act on tables, data movement on indices. Read first: `named`. Each file imports only
those before it: indices, named, lifting, affine_values, moves, joined, evaluation, lookup, choices,
windows, placing, reach, mixing, affine, propagate.
"""
