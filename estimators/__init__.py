"""emjax behind scikit-learn's interface, `import emjax.sklearn`: estimators with `fit`, `predict`,
`score` and `get_params`, of the programs in `emjax.models` and of any other.

They use emjax as anybody does, by its public names. `pip install "emjax[sklearn]"`.
"""
