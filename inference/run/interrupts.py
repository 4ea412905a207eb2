"""Ctrl-C during a run: it ends where it stands, with a result."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax


@dataclass(eq=False)
class Interrupt:
    """Whether a run is to end where it stands.

    - `is_of_use`: whether it has come to where it can; until then, Ctrl-C raises as it always does.
    """

    is_wanted: bool = False
    is_of_use: bool = False


class Interrupted(Exception):
    """A pass over data was broken off."""


@dataclass(frozen=True, eq=False)
class UntilInterrupted:
    """Items that can be iterated again and again, until a run is interrupted.

    Errors: `Interrupted`.
    """

    items: Iterable
    interrupt: Interrupt

    def __iter__(self) -> Iterator[Any]:
        for item in self.items:
            if self.interrupt.is_wanted:
                raise Interrupted
            yield item


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Yield whether Ctrl-C was pressed, which raises nothing within; pressed again, it raises.

    Where Python's own handler is not in place, or this is not the main thread, to which signals
    go, nothing is changed.
    """
    interrupt = Interrupt()
    is_main = threading.current_thread() is threading.main_thread()
    # of several processes all are to stop, or none
    is_main &= jax.process_count() == 1
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield interrupt
        return

    def first(number: int, frame: Any) -> None:
        if interrupt.is_wanted or not interrupt.is_of_use:
            signal.default_int_handler(number, frame)
        interrupt.is_wanted = True

    signal.signal(signal.SIGINT, first)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
