"""Ctrl-C during a run: it ends where it stands, with a result."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


@dataclass(eq=False)
class Interrupt:
    """Whether a run is to end where it stands."""

    is_wanted: bool = False


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Yield whether Ctrl-C was pressed, which raises nothing within; pressed again, it raises.

    Where Python's own handler is not in place, or this is not the main thread, to which signals
    go, nothing is changed.
    """
    interrupt = Interrupt()
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield interrupt
        return

    def once(number: int, frame: Any) -> None:
        interrupt.is_wanted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    signal.signal(signal.SIGINT, once)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
