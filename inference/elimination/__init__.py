"""log Z: every latent summed out of factors, plates and all.

In: `Factor`s, functions of latents' elements, and the latents as `Variable`s. Out: log Z in nats,
soft, hard or tempered, differentiable with respect to every factor. Read first: `log_partition`.
Each file imports only those before it: reductions, factors, flags, alignment,
crossed, algebra, log_partition.
"""
