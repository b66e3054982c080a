"""Pull an iterator in a thread, so that reading goes on while the model works."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import TypeVar

from wdsfilter.background import start_thread

T = TypeVar("T")

_CHUNK = 32
_PATIENCE = 1.0
_LOOK = 0.25


def prefetched(
    items: Iterator[T],
    *,
    size_of: Callable[[T], int],
    max_bytes: int,
    max_items: int = 2 * _CHUNK,
    check: Callable[[], None] = lambda: None,
) -> Generator[T, None, None]:
    """The same items in the same order, read ahead by at most about ``max_bytes`` of ``size_of``.

    And by ``max_items``: reading far ahead would claim small shards that others could work on.
    ``check`` is called now and then while there is nothing to hand out, and may raise.
    Exceptions of ``items`` come out where they happened. ``items`` is closed when this generator is.
    """
    queue: deque[list[T]] = deque()
    changed = threading.Condition()
    waiting_bytes = waiting_items = 0
    closed = False
    finished: list[BaseException | None] = []

    def put(chunk: list[T], size: int) -> bool:
        nonlocal waiting_bytes, waiting_items

        def has_room() -> bool:
            return waiting_bytes + size <= max_bytes and waiting_items + len(chunk) <= max_items

        with changed:
            changed.wait_for(lambda: closed or not queue or has_room())
            queue.append(chunk)
            waiting_bytes += size
            waiting_items += len(chunk)
            changed.notify_all()
            return not closed

    def read() -> None:
        error: BaseException | None = None
        try:
            chunk: list[T] = []
            size = 0
            for item in items:
                chunk.append(item)
                size += size_of(item)
                if len(chunk) == _CHUNK or size * 8 >= max_bytes or not queue:
                    if not put(chunk, size):
                        return
                    chunk, size = [], 0
            put(chunk, size)
        except BaseException as caught:  # handed over, raised there
            put(chunk, size)
            error = caught
        finally:
            with changed:
                finished.append(error)
                changed.notify_all()

    thread = start_thread(read, "read")
    try:
        while True:
            with changed:
                while not changed.wait_for(lambda: queue or finished, _LOOK):
                    check()
                if not queue:
                    break
                chunk = queue.popleft()
                waiting_bytes -= sum(map(size_of, chunk))
                waiting_items -= len(chunk)
                changed.notify_all()
            yield from chunk
        if finished[0] is not None:
            raise finished[0]
    finally:
        with changed:
            closed = True
            changed.notify_all()
        thread.join(_PATIENCE)  # it may hang in a read; then it dies with the process
        close = getattr(items, "close", None)
        if close is not None and not thread.is_alive():
            close()
