"""A process compiles nothing that another has left in JAX's persistent cache."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
# A key of the cache is a digest of the program that is compiled: one that went through a set of
# names, or held an address or a random name, would never be found again.
SCRIPT = """
import json
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from emjax import EM
from emjax.models import hidden_markov

events = Counter()
jax.monitoring.register_event_listener(lambda name, **about: events.update([name]))
jax.monitoring.register_event_duration_secs_listener(lambda name, _, **about: events.update([name]))


def two_lines(x, y):
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(2)))
    with numpyro.plate("lines", 2):
        intercept = numpyro.sample("intercept", dist.Normal(0, 10))
        slope = numpyro.sample("slope", dist.Normal(0, 10))
        scale = numpyro.sample("scale", dist.HalfNormal(5))
    with numpyro.plate("rows", len(x)):
        line = numpyro.sample("line", dist.Categorical(weights))
        loc = intercept[line] + slope[line] * x
        numpyro.sample("y", dist.Normal(loc, scale[line]), obs=y)


key, x = jax.random.key(0), np.linspace(-1, 1, 8)
y = np.where(x * 10 % 2 < 1, 1 + 2 * x, -x)
em = EM(two_lines, max_steps=5)
result = em.run(key, x, y)
em.posterior(result, x, y)
em.on(x, y).decode(result)
symbols, lengths = np.array([[0], [1], [1], [0]]), np.array([4])
EM(hidden_markov.categorical_program, max_steps=5).run(key, symbols, lengths, 2, 2)
print(json.dumps([
    events["/jax/core/compile/backend_compile_duration"],
    events["/jax/compilation_cache/cache_hits"],
]))
"""


def asked_and_found(directory, seed):
    """Return how many functions a process asks for, and how many of them it finds."""
    environment = {
        "PYTHONHASHSEED": str(seed),
        "JAX_ENABLE_X64": "1",
        "JAX_COMPILATION_CACHE_DIR": str(directory),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=os.environ | environment,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_second_process_finds_all_that_the_first_has_compiled(tmp_path):
    asked, found = asked_and_found(tmp_path, seed=1)
    assert asked > found
    # strings have other hashes in it, so that sets of names are in another order
    assert asked_and_found(tmp_path, seed=2) == [asked, asked]
