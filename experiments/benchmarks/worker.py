"""One implementation in a process of its own: answers the parent's JSON lines, one for one.

    {"do": "start", ...}          load the data, set up            → {}
    {"do": "first"}               both runs, compiling as they go  → seconds to compile, memory, …
    {"do": "round", "budget": s}  both runs again, for s seconds   → seconds for each step
    {"do": "finish"}              save the parameters              → steps done

JAX's precision is in the environment before this module is imported.
"""

import gc
import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np

from experiments.benchmarks.contestant import Fit, LeftOut, Run, setup


class Contestant:
    """A set-up implementation, and what its long run found last."""

    def __init__(
        self,
        model: str,
        implementation: str,
        precision: str,
        directory: str,
        sizes: dict,
        steps: list[int],
    ):
        data, start = (loaded(Path(directory), kind, precision) for kind in ("data", "start"))
        self.run: Run = setup(implementation, model)(data, start, sizes)
        self.directory, self.short, self.long = Path(directory), *steps
        self.fit: Fit | None = None

    def first(self) -> dict:
        """Run both lengths for the first time.

        Return how long compiling took, how much memory was taken beyond the data, and about how
        long both runs take.
        """
        before = reset_peak()
        first, _ = self.timed(self.short)
        long, self.fit = self.timed(self.long)
        memory = peak() - before
        later, _ = self.timed(self.short)
        compiling = max(first - later, 0.0)
        # emjax compiles the long run, too
        seconds = later + max(long - compiling, later)
        return {"compile": compiling, "memory": memory, "seconds": seconds}

    def round(self, budget: float) -> dict:
        """Time both lengths until `budget` seconds are over.

        A pair gives the seconds for each step.
        """
        seconds, end = [], time.perf_counter() + budget
        while not seconds or time.perf_counter() < end:
            short, fewer = self.timed(self.short)
            long, self.fit = self.timed(self.long)
            seconds.append((long - short) / max(self.fit.num_steps - fewer.num_steps, 1))
        return {"seconds": seconds}

    def finish(self) -> dict:
        """Save the parameters after the long run."""
        assert self.fit is not None
        params = {name: np.asarray(value, np.float64) for name, value in self.fit.params.items()}
        path = self.directory / f"found_{os.getpid()}.npz"
        np.savez(path, **params)
        return {"params": str(path), "num_steps": int(self.fit.num_steps)}

    def timed(self, num_steps: int) -> tuple[float, Fit]:
        """Return the seconds that a run took, and what it found."""
        start = time.perf_counter()
        fit = self.run(num_steps)
        return time.perf_counter() - start, fit


def loaded(directory: Path, kind: str, precision: str) -> dict[str, np.ndarray]:
    """Return the arrays saved as KIND.NAME.npy, numbers in this precision."""
    arrays = {
        path.stem.split(".")[1]: np.load(path) for path in sorted(directory.glob(f"{kind}.*.npy"))
    }
    for name in arrays:
        if arrays[name].dtype.kind == "f":
            arrays[name] = arrays[name].astype(precision, copy=False)
    return arrays


def reset_peak() -> int:
    """Let the peak start at what is held now, where Linux lets us; return that, in bytes."""
    settle()
    gc.collect()
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return status("VmRSS")
    except OSError:
        return peak()


def settle() -> None:
    """Wait for what JAX computes and copies in the background."""
    if "jax" in sys.modules:
        sys.modules["jax"].block_until_ready(sys.modules["jax"].live_arrays())


def peak() -> int:
    """Return the largest resident memory since `reset_peak`, in bytes."""
    try:
        return status("VmHWM")
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def status(name: str) -> int:
    """Return a memory entry of /proc/self/status, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))


def serve(kind: Callable) -> None:
    """Answer until the parent closes the pipe; whatever libraries print goes to standard error.

    `kind(**message)` is what starts; the other verbs are its methods.
    """
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    contestant = None
    for line in sys.stdin:
        message = json.loads(line)
        verb = message.pop("do")
        try:
            if verb == "start":
                contestant, reply = kind(**message), {}
            else:
                reply = getattr(contestant, verb)(**message)
        except (LeftOut, ImportError) as reason:
            reply = {"left_out": str(reason)}
        except Exception as error:
            traceback.print_exc()
            sentence = str(error).splitlines()[0] if str(error) else ""
            reply = {"failed": f"{type(error).__name__}: {sentence}"}
        replies.write(json.dumps(reply) + "\n")
        replies.flush()


if __name__ == "__main__":
    serve(Contestant)
