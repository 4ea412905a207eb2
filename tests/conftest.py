"""Tests run in float64 unless they ask for float32, and compile quickly rather than well
(`test_optimized.py` says which do not).
"""

import functools
import inspect
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


if "--xla_backend_optimization_level" not in os.environ.get(
    "XLA_FLAGS", ""
):  # a level that is asked for stays; the workers inherit ours
    choices = (f"{os.environ.get('XLA_FLAGS', '')} {fast}".strip() for fast in FAST_COMPILATION)
    os.environ["XLA_FLAGS"] = next(filter(is_accepted, choices), os.environ.get("XLA_FLAGS", ""))

import jax  # noqa: E402
import jaxtyping  # noqa: E402

jax.config.update("jax_enable_x64", True)


def not_of_closures(jaxtyped):
    """Return jaxtyping's decorator for all but closures: it takes milliseconds, and half of the
    time to trace a program where it is done at every call.
    """

    def decorated(fn=None, **options):
        if fn is None:
            return functools.partial(decorated, **options)
        return (
            fn
            if inspect.isfunction(fn) and "<locals>" in fn.__qualname__
            else jaxtyped(fn, **options)
        )

    return decorated


if os.environ.get("HYPOTHESIS_PROFILE") != "thorough":
    jaxtyping.jaxtyped = not_of_closures(
        jaxtyping.jaxtyped
    )  # the import hook of `--jaxtyping-packages` looks it up here
