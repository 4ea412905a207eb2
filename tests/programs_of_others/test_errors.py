"""What is said where a program of others cannot run as it stands, and where nothing is wrong."""

import warnings

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import pytest

from emjax import EM
from tests.programs_of_others import capture_recapture

KEY = jax.random.key(0)


def test_carry_of_another_type_is_named_with_what_to_write():
    captures, sex = capture_recapture.histories(4, 3, seed=0)
    message = (
        r"a carry\[1\] of dtype int32 and returns one of int64.*jnp\.zeros\(\(4,\), dtype=int\)"
    )
    with pytest.raises(ValueError, match=message):
        EM(capture_recapture.constant_survival).run(KEY, captures, sex, jnp.int32)


def test_loop_over_time_has_the_data_of_all_its_steps():
    def program(y):
        probs = numpyro.sample("probs", dist.Beta(2, 2).expand([2]).to_event(1))
        for t in range(3):
            z = numpyro.sample(f"z_{t}", dist.Bernoulli(0.4))
            with numpyro.plate("tones", 2):
                numpyro.sample(f"y_{t}", dist.Bernoulli(probs[z]), obs=y[t])

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        EM(program, max_steps=1).run(KEY, jnp.array([[0, 1], [1, 1], [0, 0]]))
