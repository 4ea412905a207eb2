"""The rows of many short chains, and of log-likelihoods that are differentiated."""

from collections.abc import Mapping

from experiments.benchmarks.row import BOTH, F32, F64, Row, Work
from experiments.benchmarks.work import gaussian_diagonal, hmm_categorical

OURS = {"emjax": BOTH, "hand-written JAX": BOTH}
SHORT = {"num_sequences": 100_000, "sequence_length": 15, "num_states": 4}
FEW = {"num_sequences": 200, "sequence_length": 6, "num_states": 3}
DIFFERENTIATED = dict.fromkeys(("emjax", "hand-written JAX", "NumPyro, enumerated"), F32)


def chain_gradient(sizes: Mapping) -> Work:
    """Return the work of a chain of counts, whose densities are exponentials."""
    chain = hmm_categorical(sizes)
    return chain._replace(transcendentals=chain.transcendentals * (sizes["num_states"] + 1))


TABLE = (
    Row(
        "hmm_short",
        "hidden Markov model, categorical, many short sequences",
        "hmm_categorical",
        SHORT | {"num_symbols": 8},
        FEW | {"num_symbols": 4},
        (1, 5),
        OURS | {"hmmlearn, scaling": F64, "dynamax": F64, "pomegranate": F32},
        own_steps={"hmmlearn, scaling": (1, 2)},
    ),
    Row(
        "hmm_short_gaussian",
        "hidden Markov model, Gaussian, many short sequences",
        "hmm_gaussian",
        SHORT | {"num_features": 2},
        FEW | {"num_features": 2},
        (1, 5),
        OURS | {"dynamax": F64, "pomegranate": F32},
        note="hmmlearn is left out: it takes sequences one by one, as of symbols",
    ),
    Row(
        "chain_gradient",
        "log-likelihood of a chain and its gradient",
        "chain_gradient",
        {"num_sequences": 8, "sequence_length": 500, "num_states": 16},
        {"num_sequences": 2, "sequence_length": 20, "num_states": 3},
        (2, 42),
        DIFFERENTIATED,
        own_steps={"NumPyro, enumerated": (1, 6)},
        work=chain_gradient,
    ),
    Row(
        "mixture_gradient",
        "log-likelihood of a mixture and its gradient",
        "mixture_gradient",
        {"num_samples": 50_000, "num_features": 8, "num_components": 8},
        {"num_samples": 500, "num_features": 2, "num_components": 3},
        (2, 22),
        DIFFERENTIATED,
        work=gaussian_diagonal,
    ),
)
