"""What a program is asked at an estimate, beside its posterior.

In: a `Bound`, and parameters. Out: what each unit contributes to log p, how the values of latents
can be exchanged, draws of latents. Nothing here knows of `EM` or of a fit, whose methods and
functions these answers are. Read first: `reweighted`. Each file imports only those before it:
reweighted, frames, relabeling, relabeled, exported, draws, forward, imputation,
plain_frames, recognized, saved, restored.
"""
