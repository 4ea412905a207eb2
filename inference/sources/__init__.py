"""Data in parts: chunks of a stream, shards on devices.

In: what a user has: an iterator of arrays, a file, arrays that do not fit a device.
Out: a `Part` for each chunk or shard: the program's own arguments on some of the data.
Read first: `part`. Each file imports only those before it: part, batches, reservoir, chunks,
rechunked, restarts, read_ahead, parquet, by_key, buckets, stream, shard.
"""
