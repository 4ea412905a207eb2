"""The M-step: maximize Q(θ) = ⟨expected statistics, η(θ)⟩, one maximizer after another.

In: a `FactorGraph`, and the expected statistics of its terms. Out: `Maximizer`s, each of which
takes some parameters to where Q is larger. To add a kind of maximizer, write a function like
`closed_form.in_closed_form` and list it in `m_step.KINDS`. Read first: `maximizer`, then `m_step`.
Each file imports only those before it:
promise, search, ascent, newton, quadratic, unconstrained, objective, gap, wiring_view, coupling,
maximizer, closed_form, computed, least_squares, asked_for, m_step.
"""
