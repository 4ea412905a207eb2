"""Where estimators compute: in double precision, one thread at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import jax

# NumPyro's handlers are one stack for the whole process: a program that is traced in one thread
# would meet the sites of another's
ONE_AT_A_TIME = threading.RLock()


@contextmanager
def in_double() -> Iterator[None]:
    """Return a context in which JAX is in double precision, and no other estimator is at work."""
    with ONE_AT_A_TIME, jax.enable_x64(True):
        yield
