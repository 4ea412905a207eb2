"""Have XLA compile quickly rather than well: what fits little data waits for compilation. So do the
quick forms of the experiments, the pages of the site, and the tests. JAX is not imported before.
"""

import gc
import os
import subprocess
import sys

LITTLE_OPTIMIZATION = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
# with the first, XLA takes less than a third of the time that it takes by default; with the second,
# three quarters
FAST_COMPILATION = (
    f"{LITTLE_OPTIMIZATION} --xla_cpu_use_fusion_emitters=false "
    "--xla_cpu_parallel_codegen_split_count=1",
    LITTLE_OPTIMIZATION,
)


def is_accepted(flags: str) -> bool:
    """Whether this version of XLA knows all flags: it aborts at one that it does not."""
    read = [sys.executable, "-c", "import jaxlib.xla_client as xla; xla.CompileOptions()"]
    return (
        subprocess.run(read, env=os.environ | {"XLA_FLAGS": flags}, capture_output=True).returncode
        == 0
    )


def ask_for_it() -> None:
    """Set XLA's flags for this process, and for those that it starts. A level of optimization that
    is asked for stays.
    """
    given = os.environ.get("XLA_FLAGS", "")
    if "--xla_backend_optimization_level" not in given:
        choices = (f"{given} {fast}".strip() for fast in FAST_COMPILATION)
        os.environ["XLA_FLAGS"] = next(filter(is_accepted, choices), given)


def leave_imports_alone() -> None:
    """Leave what was imported to itself: JAX and NumPyro are a million objects, which would be
    searched for garbage again and again while programs are traced.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)
