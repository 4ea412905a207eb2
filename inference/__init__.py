"""Exact expectation-maximization for NumPyro programs with discrete latent variables."""

from emjax import conjugate, distributions
from emjax.compare import Comparison, compare_updates
from emjax.diagnosis import Diagnosis
from emjax.duplicates import Compressed, compress
from emjax.em import EM
from emjax.families import Family, register
from emjax.loop import EMState, Status
from emjax.plan import Plan
from emjax.restarts import Restarts
from emjax.result import EMResult
from emjax.uncertainty import StandardErrors, standard_errors
from emjax.weighting import weighted

__all__ = ["EM", "Comparison", "Compressed", "Diagnosis", "EMResult", "EMState", "Family", "Plan", "Restarts", "StandardErrors", "Status",
           "compare_updates", "compress", "conjugate", "distributions", "register", "standard_errors", "weighted"]
