"""Exact expectation-maximization for NumPyro programs with discrete latent variables."""

from emjax import conjugate, distributions
from emjax.compare import Comparison, compare_updates
from emjax.cross_validation import CrossValidation, cross_validate
from emjax.diagnosis import Diagnosis
from emjax.duplicates import Compressed, compress
from emjax.em import EM
from emjax.families import Family, register
from emjax.inference_data import to_arviz
from emjax.information_criteria import Criteria, criteria
from emjax.labels import labeled
from emjax.loop import EMState, Status
from emjax.model_choice import Candidate, Choice, choose
from emjax.plan import Plan
from emjax.restarts import Optimum, Restarts
from emjax.result import EMResult
from emjax.reweighted import pointwise_log_likelihood
from emjax.summary_table import Summary, summary
from emjax.uncertainty import StandardErrors, standard_errors
from emjax.weighting import weighted

__all__ = ["EM", "Candidate", "Choice", "Comparison", "Compressed", "Criteria", "CrossValidation", "Diagnosis", "EMResult", "EMState", "Family",
           "Optimum", "Plan", "Restarts", "StandardErrors", "Status", "Summary", "choose", "compare_updates", "compress", "conjugate", "criteria",
           "cross_validate", "distributions", "labeled", "pointwise_log_likelihood", "register", "standard_errors", "summary", "to_arviz",
           "weighted"]
