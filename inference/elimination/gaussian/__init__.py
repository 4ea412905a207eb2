"""Gaussian latents integrated out of quadratic forms, before the discrete ones are summed out.

In: *pieces*, factors of which one axis or two run over the coordinates of Gaussian latents, what
each Gaussian latent is drawn from, and all latents as `Variable`s. Out: factors on discrete latents
alone, differentiable. Read first: `integrated`. Each file imports only those before it:
conditional, meeting, quadratic_form, posterior, whitened, grid, refusals, chain_groups,
chain_operands, chain_steps, chain_layout, chain_states, chain_sequential, chain_parallel,
chain_passes, chains, stacked, whole, coupled, integrated.
"""
