"""What every implementation of a model provides, and where each is written.

A set-up takes the data (float arrays already in the precision of the run; it may pop them, so that
one copy is held), the start, and the sizes of the row. It returns `run`: run(num_steps) does so
many EM steps from the start, and returns the parameters by the names of the start, as NumPy arrays,
and the number of steps that were really done. What is done once (copies, sorting, sparse matrices)
belongs in the set-up.
"""

import importlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Fit(NamedTuple):
    """Parameters after `num_steps` steps of EM."""

    params: dict[str, np.ndarray]
    num_steps: int


Run = Callable[[int], Fit]


class LeftOut(Exception):
    """An implementation that cannot take part, and why."""


MODULES = {
    "emjax": ["with_emjax", "with_emjax_linear", "with_emjax_mixtures", "with_gradients"],
    "emjax, in memory": ["with_emjax_mixtures"],
    "emjax, parallel": ["with_emjax_linear"],
    "emjax, compressed": ["with_emjax"],
    "hand-written JAX": [
        "by_hand_gaussian",
        "by_hand_discrete",
        "by_hand_chains",
        "by_hand_linear",
        "by_hand_states",
        "by_hand_incomplete",
        "by_hand_motif",
        "by_hand_restarts",
        "by_hand_streams",
        "with_gradients",
    ],
    "hand-written JAX, by rows": ["by_hand_linear"],
    "hand-written JAX, distinct rows": ["by_hand_discrete"],
    "matrix products alone": ["by_hand_gaussian"],
    "NumPy": ["with_numpy", "with_mixtures_by_numpy"],
    "NumPy, by pattern": ["with_mixtures_by_numpy"],
    "NumPyro, enumerated": ["with_gradients"],
    "NumPy, distinct rows": ["with_numpy"],
    "NumPy, dense": ["with_numpy"],
    "SciPy": ["with_numpy"],
    "scikit-learn": ["with_mixture_libraries"],
    "scikit-learn, lapack": ["with_linear_libraries"],
    "scikit-learn, randomized": ["with_linear_libraries"],
    "gmmx": ["with_mixture_libraries"],
    "pomegranate": ["with_mixture_libraries", "with_chain_libraries"],
    "StepMix": ["with_discrete_libraries"],
    "crowd-kit": ["with_discrete_libraries"],
    "enstop": ["with_discrete_libraries"],
    "scikit-learn NMF": ["with_discrete_libraries"],
    "tomotopy": ["with_discrete_libraries"],
    "dynamax": ["with_discrete_libraries", "with_chain_libraries", "with_linear_libraries"],
    "dynamax, fit_em": ["with_chain_libraries"],
    "hmmlearn, scaling": ["with_chain_libraries"],
    "hmmlearn, log": ["with_chain_libraries"],
}

# Where an implementation does something else than EM on this likelihood, and so must not agree.
DIFFERENT = {
    "matrix products alone": (
        "not EM: the products of features and responsibilities, the physical limit"
    ),
    "scikit-learn NMF": (
        "Kullback-Leibler NMF by multiplicative updates: shares first, then words at the new shares"
    ),
    "scikit-learn, lapack": (
        "not EM: a step finds the best loadings for the noise, by a singular value decomposition "
        "of all rows, and so takes fewer steps"
    ),
    "scikit-learn, randomized": "the same by a randomized decomposition, which is approximate",
    "tomotopy": (
        "latent Dirichlet allocation by collapsed Gibbs sampling; one step is one sweep, on one "
        "thread for each core"
    ),
}

# What had to be set for the likelihoods to agree, or what a library does beside EM.
REMARKS = {
    "scikit-learn": (
        "reg_covar=0; the last E-step, one more than steps, cancels in the difference of two runs"
    ),
    "gmmx": "reg_covar=0",
    "pomegranate": "float32 only: it casts its weights to float32",
    "StepMix": "its start is set by overriding `_initialize_parameters`",
    "crowd-kit": "clips probabilities at 1e-10; computes the evidence lower bound in every step",
    "enstop": (
        "float32 only, numba on all cores; `plsa_fit`, since its class `PLSA` needs a NumPy below "
        "1.24"
    ),
    "dynamax": (
        "one chain of all documents, transitions and initial state tied to the weights (a chain "
        "for each document takes 20 times as long, and 3 GB); Dirichlet concentration 1 + 1e-9, "
        "since its M-step is NaN at 1"
    ),
}

# The same where the model is a hidden Markov model.
CHAIN_REMARKS = {
    "emjax": (
        "the programs of `emjax.models.hidden_markov`, whose mask stays although all sequences "
        "have one length"
    ),
    "hmmlearn, scaling": (
        "one thread; covars_prior=0 and covars_weight=0 where emissions are Gaussian"
    ),
    "hmmlearn, log": "as scaling",
    "dynamax": (
        "its `e_step`, for all sequences at once, and its `m_step`, in one compiled loop; "
        "Dirichlet concentration 1 + 1e-9, since its M-step is NaN at 1, and "
        "emission_prior_concentration=-1.5 where emissions are Gaussian, which is no prior"
    ),
    "dynamax, fit_em": "its `fit_em`, compiled once for each number of steps; priors off as above",
    "pomegranate": (
        "float32 only: it casts its weights to float32; probabilities of ending are held at one, "
        "and by overriding `from_summaries` nothing is counted as an ending"
    ),
}

# The same where latents are Gaussian.
LINEAR_REMARKS = {
    "dynamax": "one series, without biases; it adds 1e-9 to the diagonal of what it inverts",
    "emjax, parallel": '`chains="parallel"`, which is made for accelerators',
}


MISSING_REMARKS = {
    "emjax": "`PartiallyObserved` around the normal of a mixture",
    "hand-written JAX": "rows sorted by pattern; one inverse for each pattern and component",
    "NumPy, by pattern": (
        "no library for Python that was found takes EM steps on such data: it is written by hand"
    ),
}

# The same where something is asked of the rows that libraries seldom are, by the model's name.
MODEL_REMARKS = {
    "restarts": {
        "emjax": "`num_restarts`, all starts to their end; its last steps are those of the best",
        "hand-written JAX": "the step of one start under `vmap`",
        "scikit-learn": "a fit for each start, in turn, as `n_init` does; reg_covar=0",
    },
    "motif": {"NumPy": "written by hand: MEME itself is no library for Python"},
    "gaussian_stream": {
        "emjax": "`Stream.of` a memory map, in its own chunks",
        "hand-written JAX": "a compiled sum over a chunk of as many rows, in a loop over chunks",
    },
    "incomplete_at_random": MISSING_REMARKS,
    "incomplete_in_blocks": MISSING_REMARKS,
    "chain_gradient": {
        "emjax": "`log_density` of `emjax.marginalized(program)`, and its gradient",
        "NumPyro, enumerated": "`log_density` of the same program under `config_enumerate`",
    },
}
MODEL_REMARKS["mixture_gradient"] = MODEL_REMARKS["chain_gradient"]


def remark(implementation: str, model: str) -> str | None:
    """Return what a reader must know of an implementation of a model, if anything."""
    if model in MODEL_REMARKS:
        return MODEL_REMARKS[model].get(implementation)
    if model.startswith("hmm_"):
        return CHAIN_REMARKS.get(implementation)
    return (LINEAR_REMARKS if model.startswith("linear_") else REMARKS).get(implementation)


def setup(implementation: str, model: str) -> Callable[[dict, dict, dict], Run]:
    """Return the set-up of a model in an implementation; only now is its library imported."""
    for name in MODULES[implementation]:
        setups = importlib.import_module(f"experiments.benchmarks.{name}").SETUPS[implementation]
        if model in setups:
            return setups[model]
    raise KeyError(f"{implementation} has no {model}")
