"""A thread before the one that judges: reading goes on while the model works."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from typing import Generic, TypeVar

from wdsfilter.background import start_thread

T = TypeVar("T")

_CHUNK = 32  # items that are handed over together
_PATIENCE = 1.0
_LOOK = 0.25


class Channel(Generic[T]):
    """Items in order from the thread that puts to the one that takes.

    At most about ``max_bytes`` of ``size_of`` wait in it, and ``max_items``; an item that is larger
    than all that is allowed passes alone.
    """

    def __init__(self, size_of: Callable[[T], int], max_bytes: int, max_items: int) -> None:
        self._size_of = size_of
        self._max_bytes = max_bytes
        self._max_items = max_items
        self._changed = threading.Condition()
        self._queue: deque[tuple[list[T], int]] = deque()
        self._waiting_bytes = self._waiting_items = 0
        self._left = self._ended = False
        self._error: BaseException | None = None
        self._chunk: list[T] = []
        self._chunk_bytes = 0

    def put(self, item: T) -> bool:
        """Hand over an item soon, when there is room. False when nobody takes any more."""
        self._chunk.append(item)
        self._chunk_bytes += self._size_of(item)
        if len(self._chunk) == _CHUNK or self._chunk_bytes * 8 >= self._max_bytes or not self._queue:
            self._hand_over()
        return not self._left

    def end(self, error: BaseException | None = None) -> None:
        """Nothing more comes; ``error`` is raised where the items are taken, after the last one."""
        self._hand_over()
        with self._changed:
            self._ended, self._error = True, error
            self._changed.notify_all()

    def taken(self, check: Callable[[], None] = lambda: None) -> Generator[T, None, None]:
        """The items; ``check`` is called now and then while there is none, and may raise."""
        while True:
            with self._changed:
                while not self._changed.wait_for(lambda: self._queue or self._ended, _LOOK):
                    check()
                if not self._queue:
                    break
                chunk, size = self._queue.popleft()
                self._waiting_bytes -= size
                self._waiting_items -= len(chunk)
                self._changed.notify_all()
            yield from chunk
        if self._error is not None:
            raise self._error

    def leave(self) -> None:
        """Nobody takes any more: whoever puts need not wait."""
        with self._changed:
            self._left = True
            self._changed.notify_all()

    def _hand_over(self) -> None:
        if not self._chunk:
            return
        chunk, size = self._chunk, self._chunk_bytes
        self._chunk, self._chunk_bytes = [], 0

        def has_room() -> bool:
            return (
                self._waiting_bytes + size <= self._max_bytes
                and self._waiting_items + len(chunk) <= self._max_items
            )

        with self._changed:
            self._changed.wait_for(lambda: self._left or not self._queue or has_room())
            self._queue.append((chunk, size))
            self._waiting_bytes += size
            self._waiting_items += len(chunk)
            self._changed.notify_all()


def prefetched(
    items: Iterator[T],
    *,
    size_of: Callable[[T], int],
    max_bytes: int,
    max_items: int,
    check: Callable[[], None] = lambda: None,
) -> Generator[T, None, None]:
    """The same items in the same order, pulled in a thread, so many ahead as a :class:`Channel` holds.

    No more of them than are asked for at a time: reading far ahead would claim small shards that others could work
    on. ``check`` is called now and then while there is nothing to hand out, and may raise. Exceptions of ``items``
    come out where they happened. ``items`` is closed when this generator is.
    """
    channel: Channel[T] = Channel(size_of, max_bytes, max_items)

    def read() -> None:
        try:
            for item in items:
                if not channel.put(item):
                    return
        except BaseException as error:  # handed over, raised there
            channel.end(error)
        else:
            channel.end()

    thread = start_thread(read, "read")
    try:
        yield from channel.taken(check)
    finally:
        channel.leave()
        thread.join(_PATIENCE)  # it may hang in a read; then it dies with the process
        close = getattr(items, "close", None)
        if close is not None and not thread.is_alive():
            close()
