"""What `import emjax` does not wait for."""

import subprocess
import sys

# Each takes from a twentieth of a second to two; what NumPyro itself imports (`tqdm`) is not here.
LATE = (
    "arviz",
    "matplotlib",
    "numpyro.contrib.control_flow",
    "optax",
    "pandas",
    "scipy.optimize",
    "scipy.stats",
    "sklearn",
    "xarray",
)
PROGRAM = f"""
import sys
import emjax
import emjax.conjugate
import emjax.distributions
early = sorted(set({LATE}) & set(sys.modules))
assert not early, early
# a constant of `jax.numpy` in a module would look for devices
from jax._src import xla_bridge
assert not xla_bridge._backends
"""


def test_import_waits_for_no_module_that_few_need():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
