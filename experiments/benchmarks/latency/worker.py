"""One piece of work in a process of its own: answers as `experiments.benchmarks.worker` does.

    {"do": "start", ...}   import, and do what comes before the work   → {}
    {"do": "measure"}      call by call   → seconds, and how much was compiled

JAX's precision, and its cache, are in the environment before this module is imported.
"""

import importlib
import sys
import time
from collections.abc import Callable
from typing import Any

from experiments.benchmarks import worker

COMPILED = "/jax/core/compile/backend_compile_duration"
FOUND = "/jax/compilation_cache/cache_hits"


class Visit:
    """A set-up piece of work."""

    def __init__(self, work: str, implementation: str):
        if implementation == "emjax":
            setups = importlib.import_module("experiments.benchmarks.latency.with_emjax").SETUPS
        else:
            libraries = importlib.import_module("experiments.benchmarks.latency.with_libraries")
            setups = libraries.SETUPS[implementation]
        self.calls: list[Callable[[], Any]] = setups[work]()
        worker.settle()

    def measure(self) -> dict:
        """Return the seconds of each call, and how many functions XLA compiled in it.

        What is found in the persistent cache is not compiled.
        """
        events: list[str] = []
        if "jax" in sys.modules:
            listen_to_jax(events)
        seconds, compilations = [], []
        for call in self.calls:
            events.clear()
            start = time.perf_counter()
            # kept, so that nothing of it is freed while the clock runs
            answer = call()
            worker.settle()
            seconds.append(time.perf_counter() - start)
            compilations.append(events.count(COMPILED) - events.count(FOUND))
            del answer
        return {"seconds": seconds, "compilations": compilations}


def listen_to_jax(events: list[str]) -> None:
    """Let JAX append the names of all that it does."""
    from jax import monitoring

    monitoring.register_event_listener(lambda name, **_: events.append(name))
    monitoring.register_event_duration_secs_listener(lambda name, *_, **__: events.append(name))


if __name__ == "__main__":
    worker.serve(Visit)
