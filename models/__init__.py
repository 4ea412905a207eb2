"""Models as pages of a lecture, one a file: graph and formulas, program, update derived by hand.

`program(...)` is plain NumPyro, for `emjax.EM`. `hand_derived_step(params, ...)` takes the same
arguments after the parameters, and is one EM step in float64 with NumPy alone: evidence for the
engine, not a caller of it. Each page is read alone: what two of them need, such as `_normalized`
and `_log`, stands in both on purpose.

A docstring is what a terminal shows and what the site shows (`docs/model_pages.py`): its first line
is "title: question", and what is indented, the graph and the formulas in Unicode with their
numbers, is set as it stands.
"""
