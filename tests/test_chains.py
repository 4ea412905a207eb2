"""Scans over discrete latents against the joint table: random chains by seed, and the special cases by name.

`HYPOTHESIS_PROFILE=thorough pytest tests/test_chains.py` runs 200 random chains; the default, the first of them. A failure
prints the program as a script.
"""

import itertools
import os

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from brute_force import JointTable, complete_log_likelihood, joint_table
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.distributions import biject_to, constraints
from random_chains import CONSTRAINTS, Chain, chain_from_seed, repeated

from emjax import EM

NUM_CHAINS = 200 if os.environ.get("HYPOTHESIS_PROFILE") == "thorough" else 12
TOLERANCE = dict(rtol=1e-10, atol=1e-10)


def close(actual, expected, **options):
    np.testing.assert_allclose(actual, expected, **{**TOLERANCE, **options})


@pytest.fixture(autouse=True, scope="module")
def free_compiled_programs():
    yield
    jax.clear_caches()


compiled = itertools.count(1)


def chain_and_table(seed: int) -> tuple[Chain, JointTable, np.ndarray | None]:
    """A random chain, the joint table with its multiplicities written out, and which sequence each copy is of."""
    if next(compiled) % 25 == 0:
        jax.clear_caches()
    chain = chain_from_seed(seed)
    copies, origin = repeated(chain)
    return chain, joint_table(copies.model, copies.params, copies.data), origin


def of_copies(value, chain: Chain, name: str, origin) -> np.ndarray:
    """What is true of a latent's elements, for every copy of its sequence."""
    axis = chain.sequence_axis[name]
    value = np.asarray(value)
    return value if origin is None or axis is None else np.take(value, origin, axis)


def failing(program, what: str) -> dict:
    return dict(err_msg=f"{what} of\n{program}")


@pytest.mark.parametrize("seed", range(NUM_CHAINS))
def test_random_chain_is_brute_force(seed):
    chain, table, origin = chain_and_table(seed)
    em = EM(chain.model)
    at = chain.params, chain.data
    close(em.log_likelihood(*at), table.log_likelihood, **failing(chain, "log_likelihood"))
    posterior, decoded = em.posterior(*at), em.decode(*at)
    assert set(posterior) == set(decoded) == set(table.latents)
    for name, expected in table.posterior.items():
        close(of_copies(posterior[name], chain, name, origin), expected, **failing(chain, f"posterior of {name}"))
    mode = {name: of_copies(value, chain, name, origin) for name, value in decoded.items()}
    close(table.complete_log_likelihood_at(mode), table.mode_log_likelihood, **failing(chain, "decode"))
    if hasattr(em, "pairwise_posterior"):
        pairwise = em.pairwise_posterior(*at)
        assert set(pairwise) >= set(chain.chained)
        for name in pairwise:
            actual, expected = of_copies(pairwise[name], chain, name, origin), table.pairwise_posterior(name)
            close(actual, expected, **failing(chain, f"pairwise posterior of {name}"))
