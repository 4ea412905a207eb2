"""Gaussian latents far from zero, where digits are lost: said, and not where none are."""

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import constraints

from emjax import EM

GROUP = np.repeat(np.arange(4), 3)
Y = np.array([0.4, 1.2, 0.9, -0.5, -1.4, 0.1, 0.3, 2.1, 0.8, -0.2, 0.6, -1.9])


def groups(y, is_centered):
    mean = numpyro.param("mean", y.mean())
    spread, noise = (
        numpyro.param(name, 1.0, constraint=constraints.positive) for name in ("spread", "noise")
    )
    with numpyro.plate("groups", 4):
        level = numpyro.sample("level", dist.Normal(0.0 if is_centered else mean, spread))
    with numpyro.plate("rows", len(y)):
        location = level[GROUP] + (mean if is_centered else 0.0)
        numpyro.sample("y", dist.Normal(location, noise), obs=y)


@pytest.mark.parametrize("is_centered", [False, True])
def test_a_latent_far_from_zero_is_named(is_centered):
    em = EM(groups, integrate={"level"}, max_steps=20)
    result = em.run(jax.random.key(0), Y + 1e6, is_centered)
    said = [finding.site for finding in result.findings if finding.kind == "digits lost"]
    assert said == ([] if is_centered else ["level"])
