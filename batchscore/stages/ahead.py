"""Work on a second thread next to the caller's: read ahead and write behind, bounded."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

_POLL_SECONDS = 0.1


class _Done:
    """Ends a queue, with the error that ended it if there was one."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


def read_ahead(source: Iterator[T], depth: int) -> Generator[T, None, None]:
    """Yields what `source` yields, with up to `depth` items made beforehand on a thread.

    An error of the source is raised here, after the items before it. Closing the generator ends
    the thread.
    """
    items: queue.Queue[T | _Done] = queue.Queue(depth)
    stopped = threading.Event()
    thread = threading.Thread(target=_fill, args=(source, items, stopped), daemon=True)
    thread.start()
    try:
        while not isinstance(item := items.get(), _Done):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stopped.set()
        thread.join()


def _fill(source: Iterator[T], items: queue.Queue[T | _Done], stopped: threading.Event) -> None:
    end = _Done()
    try:
        for item in source:
            if not _put(items, item, stopped):
                return
    except BaseException as error:
        end = _Done(error)
    _put(items, end, stopped)


def _put(items: queue.Queue[T | _Done], item: T | _Done, stopped: threading.Event) -> bool:
    while not stopped.is_set():
        try:
            items.put(item, timeout=_POLL_SECONDS)
        except queue.Full:
            continue
        return True
    return False


class WriteBehind(Generic[T]):
    """Calls `work` on each item in order, on one thread, at most `depth` items behind.

    An error of the work is raised by the next `put` or by `close`; later items are dropped.
    """

    def __init__(self, work: Callable[[T], None], depth: int) -> None:
        self._work: Callable[[T], None] | None = work
        self._items: queue.Queue[T | _Done] = queue.Queue(depth)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._drain, daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        """Hands an item over; waits while `depth` items are pending; ValueError after `close`."""
        self._raise()
        if self._work is None:
            raise ValueError("an item came after the end, when there is no thread for it")
        self._items.put(item)

    def close(self) -> None:
        """Waits for all items and ends the thread; safe to call again."""
        if self._thread.is_alive():
            self._items.put(_Done())
            self._thread.join()
        # The owner's method holds the owner, and all it wrote, until a cycle is collected.
        self._work = None
        self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _drain(self) -> None:
        while not isinstance(item := self._items.get(), _Done):
            if self._error is not None or self._work is None:
                continue
            try:
                self._work(item)
            except BaseException as error:
                self._error = error
