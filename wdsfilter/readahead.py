"""A stream over an object of a store, read ahead by a few ranges at once."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

from wdsfilter import retry
from wdsfilter.background import Later
from wdsfilter.remote import read_range, within

PARALLEL = 3
"""Requests for one object at a time."""
_FIRST_BLOCK = 1 << 20  # then twice as much each time: who looks at a shard's first samples only reads little
_BLOCK = 8 << 20
_SMALLEST = 64 << 10


class ReadAhead(io.RawIOBase):
    """All ``size`` bytes of ``file``, in order; ``check`` is called at the end and may raise.

    ``file`` is one that fsspec buffers, of which any range can be had at any time. Holds at most
    :data:`_BLOCK` bytes for each of its requests, and one more.
    """

    def __init__(self, file: Any, size: int, check: Callable[[], None]) -> None:
        self._file = file
        # Stores' files ask for the very object that they were opened as; the hub's would go on asking by itself.
        hub = "hf" in file.fs.protocol
        self._range = partial(read_range, file.fs, file.path) if hub else file._fetch_range
        self._size = size
        self._check = check
        self._checked = False
        self._pending: deque[Later[bytes]] = deque()
        self._asked = 0
        self._block = _FIRST_BLOCK
        self._here = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._here:
            self._ask()
            if not self._pending:
                if not self._checked:
                    self._check()
                    self._checked = True
                return 0
            self._here = memoryview(self._pending.popleft().result())
            self._ask()
        count = min(len(self._here), len(buffer))
        buffer[:count] = self._here[:count]
        self._here = self._here[count:]
        return count

    def close(self) -> None:
        if not self.closed:
            self._pending.clear()
            Later(self._file.close, "close")  # nobody waits for a store that hangs
        super().close()

    def _ask(self) -> None:
        while len(self._pending) < PARALLEL and self._asked < self._size:
            start, end = self._asked, min(self._asked + self._block, self._size)
            self._pending.append(Later(partial(self._fetch, start, end), "ahead"))
            self._asked = end
            self._block = min(2 * self._block, _BLOCK)

    def _fetch(self, start: int, end: int) -> bytes:
        """What fails is asked for again from the byte that it came to, in smaller pieces: so a connection
        that breaks after every few bytes, or is slow, still brings the object.
        """
        found = bytearray()
        piece, failures = end - start, 0
        while (at := start + len(found)) < end:
            wanted = min(piece, end - at)
            try:
                data = within(partial(self._range, at, at + wanted))
                if len(data) != wanted:  # what came may be something else, such as an error's page
                    raise EOFError(f"ended {wanted - len(data)} bytes before byte {at + wanted}")
            except Exception as error:
                failures += 1
                if self.closed or failures >= retry.ATTEMPTS or not retry.may_pass(error):
                    raise
                retry.pause(failures, error)
                piece = max(piece // 4, _SMALLEST)
                continue
            found += data
            failures = 0
        return bytes(found)
