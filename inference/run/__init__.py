"""A run of EM: start, loop, stop, and an honest reason for stopping.

In: a program compiled for its arguments, a start, and the settings of `EM`.
Out: an `EMResult`: the estimate, why EM stopped, and what is wrong with it.
Read first: `loop`, then `pure` and `bound`. What a warning or an error about data says is in
`findings`. Each file imports only those before it:
findings, acceleration, batches, degeneracy, polish, compilation, validation, settings, loop,
restarts, result, annotations, pure, compiled, padded, compiler, runner, bound.
"""
