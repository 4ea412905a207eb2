"""The M-step: maximize Q(θ) = ⟨expected statistics, η(θ)⟩, one maximizer after another.

In: a `FactorGraph`, and the expected statistics of its terms. Out: `Maximizer`s, each of which
takes some parameters to where Q is larger. Read first: `m_step`. Each file imports only those
before it: ascent, closed_form, newton, unconstrained, m_step.
"""
