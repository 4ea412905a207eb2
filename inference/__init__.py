"""Exact expectation-maximization for NumPyro programs with discrete latent variables."""

from emjax import conjugate, distributions
from emjax.compare import Comparison, compare_updates
from emjax.diagnosis import Diagnosis
from emjax.driver import EMState, Status
from emjax.duplicates import Compressed, compress
from emjax.em import EM, EMResult
from emjax.families import Family, register
from emjax.plan import Plan
from emjax.uncertainty import StandardErrors, standard_errors
from emjax.weighting import weighted

__all__ = ["EM", "Comparison", "Compressed", "Diagnosis", "EMResult", "EMState", "Family", "Plan", "StandardErrors", "Status", "compare_updates", "compress",
           "conjugate", "distributions", "register", "standard_errors", "weighted"]
