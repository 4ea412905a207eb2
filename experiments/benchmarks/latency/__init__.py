"""How long until the answer is there? Everything that a fit takes, compilation included.

`python -m experiments.benchmarks.latency`; what is compared is in `rows`, how in `with_emjax` and
`with_libraries`.
"""
