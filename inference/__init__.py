"""Exact expectation-maximization for NumPyro programs with discrete and Gaussian latents."""

from importlib.metadata import version

from emjax import conjugate, distributions
from emjax.certificates.diagnosis import Diagnosis
from emjax.classes.associations import ThreeStep
from emjax.classes.bootstrap_test import BootstrapLikelihoodRatio, bootstrap_likelihood_ratio
from emjax.classes.classification import Classification, classification
from emjax.classes.sizes import ClassSizes, class_sizes
from emjax.classes.three_step import three_step
from emjax.classes.vuong_test import VuongLoMendellRubin, vuong_lo_mendell_rubin
from emjax.compare import Comparison, compare_updates
from emjax.em import EM
from emjax.families.family import Family, Prior, register
from emjax.fit import Fit
from emjax.loading import load
from emjax.m_step.gap import Gap
from emjax.marginalized import marginalized
from emjax.plan import Plan
from emjax.program.handlers.compress import Compressed, compress
from emjax.program.handlers.labels import labeled
from emjax.program.handlers.weights import weighted
from emjax.refits.cross_validation import CrossValidation, cross_validate
from emjax.refits.information_criteria import Criteria, criteria
from emjax.refits.model_choice import Candidate, Choice, choose
from emjax.refits.pointwise import pointwise_log_likelihood
from emjax.refits.standard_errors import StandardErrors
from emjax.refits.uncertainty import standard_errors
from emjax.report.inference_data import to_arviz
from emjax.report.summary_table import Summary, summary
from emjax.run.acceleration import Accelerator
from emjax.run.bound import Bound
from emjax.run.findings import Finding
from emjax.run.incremental import OnlineState
from emjax.run.restarts import Optimum, Restarts
from emjax.run.result import EMResult
from emjax.run.state import EMState, Status
from emjax.sources.part import Part
from emjax.sources.shard import Shards, shard
from emjax.sources.stream import Stream

__all__ = [
    "EM",
    "Accelerator",
    "BootstrapLikelihoodRatio",
    "Bound",
    "Candidate",
    "Choice",
    "ClassSizes",
    "Classification",
    "Comparison",
    "Compressed",
    "Criteria",
    "CrossValidation",
    "Diagnosis",
    "EMResult",
    "EMState",
    "Family",
    "Finding",
    "Fit",
    "Gap",
    "OnlineState",
    "Optimum",
    "Part",
    "Plan",
    "Prior",
    "Restarts",
    "Shards",
    "StandardErrors",
    "Status",
    "Stream",
    "Summary",
    "ThreeStep",
    "VuongLoMendellRubin",
    "bootstrap_likelihood_ratio",
    "choose",
    "class_sizes",
    "classification",
    "compare_updates",
    "compress",
    "conjugate",
    "criteria",
    "cross_validate",
    "distributions",
    "labeled",
    "load",
    "marginalized",
    "pointwise_log_likelihood",
    "register",
    "shard",
    "standard_errors",
    "summary",
    "three_step",
    "to_arviz",
    "vuong_lo_mendell_rubin",
    "weighted",
]


__version__: str


def __getattr__(name: str) -> str:
    """Return the version that is installed: looked up when it is asked for, not at import."""
    if name == "__version__":
        return version("emjax")
    raise AttributeError(f"module 'emjax' has no attribute '{name}'")
