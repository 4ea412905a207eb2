"""Chains: latents coupled in time, summed out by a recursion of T · K² operations.

In: the factors that read a latent at several of its elements, laid out in time. Out: log Z of the
chain, a factor on what remains; in logarithms, or as probabilities with a written-out reverse pass.
Read first: `layout`. Each file imports only those before it: operands, in_time, layout, steps,
in_logarithms, segments, messages, scaled, in_rounds.
"""
