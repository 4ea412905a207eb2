"""emjax behind scikit-learn's interface, `import emjax.sklearn`: estimators with `fit`, `predict`,
`score` and `get_params`, of the programs in `emjax.models` and of any other.

They use emjax as anybody does, by its public names. `pip install "emjax[sklearn]"`.
"""

try:
    import sklearn as _sklearn  # noqa: F401
except ImportError as error:
    raise ImportError('emjax.sklearn needs scikit-learn: pip install "emjax[sklearn]".') from error

from emjax.sklearn.annotators import DawidSkene
from emjax.sklearn.estimator import EMEstimator
from emjax.sklearn.factors import FactorAnalysis
from emjax.sklearn.hidden_markov import CategoricalHMM, GaussianHMM, PoissonHMM
from emjax.sklearn.latent_class import LatentClass
from emjax.sklearn.mixtures import GaussianMixture

__all__ = [
    "CategoricalHMM",
    "DawidSkene",
    "EMEstimator",
    "FactorAnalysis",
    "GaussianHMM",
    "GaussianMixture",
    "LatentClass",
    "PoissonHMM",
]
