"""Figures of fits: each function draws what a fit holds onto axes, and returns these.

In: a `Fit`, or what functions of a fit return. Out: matplotlib's `Axes`. Read first: `panels`.
Nothing imports this room but those who ask for it: `import emjax.plot`, after
`pip install "emjax[plot]"`. Each file imports only those before it:
"""
