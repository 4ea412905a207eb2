"""The next items of an iterator are made by a thread while one is worked with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from queue import Empty, Full, Queue
from threading import Event, Thread
from typing import Any

# seconds between two looks at whether anybody still waits
SECONDS = 0.05


class _End:
    """What a thread puts last: the error that ended it, or None."""

    def __init__(self, error: BaseException | None):
        self.error = error


def read_ahead(items: Callable[[], Iterator[Any]], number: int) -> Iterator[Any]:
    """Yield items, of which a thread has up to `number` ready.

    `items`: called in the thread. An error there is raised where its item would be yielded. The
    thread ends with the iteration, also where that is abandoned, after the item that it is making.
    """
    ready: Queue = Queue(number)
    is_over = Event()
    # a thread that is stuck in a read does not keep the process
    thread = Thread(target=_fill, args=(items, ready, is_over), daemon=True, name="emjax.Stream")
    thread.start()
    try:
        while True:
            item = _next_of(ready)
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item
    finally:
        is_over.set()


def _fill(items: Callable[[], Iterator[Any]], ready: Queue, is_over: Event) -> None:
    try:
        for item in items():
            if not _put(ready, item, is_over):
                return
    # whatever it is, it is raised where the item is asked for
    except BaseException as error:
        _put(ready, _End(error), is_over)
    else:
        _put(ready, _End(None), is_over)


def _put(ready: Queue, item: Any, is_over: Event) -> bool:
    """Put an item as soon as there is room for it; return whether anybody waits for it."""
    while not is_over.is_set():
        try:
            ready.put(item, timeout=SECONDS)
            return True
        except Full:
            continue
    return False


def _next_of(ready: Queue) -> Any:
    # a wait without end would not notice Ctrl-C on every system
    while True:
        try:
            return ready.get(timeout=1)
        except Empty:
            continue
