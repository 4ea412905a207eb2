"""Results for people: a table that prints, and inference data with named dimensions.

In: an `EMResult`, its EM and its data. Out: `Summary`, which prints; ArviZ inference data. Read
first: `summary_table`. Each file imports only those before it: summary_table, inference_data.
"""
