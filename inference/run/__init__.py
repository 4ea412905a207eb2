"""A run of EM: start, loop, stop, and an honest reason for stopping.

In: a program compiled for its arguments, a start, and the settings of `EM`.
Out: an `EMResult`: the estimate, why EM stopped, and what is wrong with it.
Read first: `state` and `loop`, then `pure` and `bound`. How it is compiled, in this order:
`compilation` (how well), `compiled` (the functions of a program), `padded` (data of other lengths),
`compiler` (all that is kept of a program), `runner` (a compiled program on data). What is wrong
with the end of a run is put together in `shortcomings`; what an error or a warning says is in
`findings` (data, starts), `endings` (of runs) and `verdicts`. Tables that print and become data
frames are made of `columns`. Where a run stands is kept by `checkpoints`. Each file imports only
those before it: columns, described, findings, endings, verdicts, acceleration, batches, boundary,
collapse, resolution, degeneracy, copies, polish, compilation, validation, precision, settings,
state, crawling, loop, restarts, result, annotations, archive, checkpoints, interrupts, pauses,
pure, compiled, pieces, rerun, row_clusters, unbounded, vanishing, far_from_zero, shortcomings,
second_look, padded, pickled, compiler, run_identity, runner, runs, double_end, on_data, bound,
part_rows, part_program, first_look, stream_loop, stream_programs, online, incremental, stream_run,
in_batches, streamed, sharded.
"""
