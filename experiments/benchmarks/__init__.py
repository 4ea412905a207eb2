"""How fast is emjax beside the libraries and the hand-written code that one would use instead?

`python -m experiments.benchmarks`; the peers are the extra `emjax[benchmarks]`.
"""
