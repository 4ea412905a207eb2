"""Exact expectation-maximization for NumPyro programs with discrete latent variables."""

from emjax import conjugate, distributions
from emjax.compare import Comparison, compare_updates
from emjax.driver import EMState, Status
from emjax.duplicates import Compressed, compress
from emjax.em import EM, EMResult
from emjax.families import Family, register
from emjax.labels import labeled
from emjax.plan import Plan
from emjax.weighting import weighted

__all__ = ["EM", "Comparison", "Compressed", "EMResult", "EMState", "Family", "Plan", "Status", "compare_updates", "compress", "conjugate",
           "distributions", "labeled", "register", "weighted"]
