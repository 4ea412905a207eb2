"""Exact expectation-maximization for NumPyro programs with discrete latent variables."""

from emjax import conjugate, distributions
from emjax.compare import Comparison, compare_updates
from emjax.cross_validation import CrossValidation, cross_validate
from emjax.driver import EMState, Status
from emjax.duplicates import Compressed, compress
from emjax.em import EM, EMResult
from emjax.families import Family, register
from emjax.inference_data import to_arviz
from emjax.information_criteria import Criteria, criteria
from emjax.model_choice import Candidate, Choice, choose
from emjax.plan import Plan
from emjax.reweighted import pointwise_log_likelihood
from emjax.summary_table import Summary, summary
from emjax.weighting import weighted

__all__ = ["EM", "Candidate", "Choice", "Comparison", "Compressed", "Criteria", "CrossValidation", "EMResult", "EMState", "Family", "Plan", "Status", "Summary",
           "choose", "compare_updates", "compress", "conjugate", "criteria", "cross_validate", "distributions", "pointwise_log_likelihood", "register", "summary",
           "to_arviz", "weighted"]
