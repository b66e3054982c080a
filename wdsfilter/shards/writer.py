"""Kept samples -> a tar that depends on nothing but their bytes: no clock, no owner, no mode of a source."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from wdsfilter.background import helper
from wdsfilter.samples import Member
from wdsfilter.shards import tar

_BLOCK_BYTES = 2 << 20
_LARGE = 256 << 10
_WAITING_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Written:
    """What was written: hexadecimal SHA-256 and size (bytes) of the whole file, number of samples."""

    sha256: str
    size: int
    samples: int


def stored(members: Iterable[Member]) -> Iterator[bytes | memoryview]:
    """One sample's bytes in an archive."""
    for member in members:
        if member.stored:
            yield member.stored
            continue
        size = len(member.data)
        yield tar.header(member.name, size)
        yield member.data
        if rest := tar.padding(size):
            yield rest


def end_after(size: int) -> bytes:
    """What ends an archive whose members take ``size`` bytes."""
    end = 2 * tar.BLOCK
    return bytes(end + -(size + end) % tar.RECORD)


def write_stream(samples: Iterable[Iterable[bytes | memoryview]], file: BinaryIO) -> None:
    """Write samples, as they are stored, as one archive, each as soon as it comes.

    Raises BrokenPipeError where nobody reads on.
    """
    size = 0
    for buffers in samples:
        for data in buffers:
            file.write(data)
            size += len(data)
        file.flush()
    file.write(end_after(size))
    file.flush()


class ShardWriter:
    """Writes members to ``path`` in blocks of 2 MB; 8 MB, or one sample where that is more, may wait for the disk.

    ``thread`` hashes and writes them, one after the other, while the caller goes on (one of its own does where none is
    given): an error of the disk is raised by a later call, by :meth:`close` at the latest. What is handed over must
    not change any more.
    """

    def __init__(self, path: Path, thread: Executor | None = None) -> None:
        self._file = path.open("xb", buffering=0)
        self._hash = hashlib.sha256()
        self._thread = thread or helper("write")
        self._is_own = thread is None
        self._block: list[bytes | memoryview] = []
        self._filled = 0
        self._waiting: deque[tuple[Future[None], int]] = deque()
        self._waiting_bytes = 0
        self._size = 0
        self._samples = 0

    def add(self, members: Iterable[Member]) -> None:
        """Append one sample."""
        self.add_stored(stored(members))

    def add_stored(self, buffers: Iterable[bytes | memoryview], samples: int = 1) -> None:
        """Append one sample, or so many, as :func:`stored` gives them."""
        for data in buffers:
            self._block.append(data)
            self._filled += len(data)
        self._samples += samples
        if self._filled >= _BLOCK_BYTES:
            self._hand_over()

    def close(self) -> Written:
        """End the archive, flush it to the disk, and say what was written. The thread itself may call it."""
        self._wait(0)
        end = end_after(self._size + self._filled)
        self._write([*self._block, end])
        os.fsync(self._file.fileno())
        self._release()
        return Written(self._hash.hexdigest(), self._size + self._filled + len(end), self._samples)

    def abandon(self) -> None:
        """Close without an end: the file is of no use and its owner removes it."""
        wait(future for future, _ in self._waiting)
        self._release()

    def _release(self) -> None:
        if self._is_own:
            self._thread.shutdown()
        self._file.close()

    def _hand_over(self) -> None:
        """Let the thread write the block, and begin another one. Raises what it raised before."""
        self._wait(_WAITING_BYTES)
        self._waiting.append((self._thread.submit(self._write, self._block), self._filled))
        self._waiting_bytes += self._filled
        self._size += self._filled
        self._block, self._filled = [], 0

    def _wait(self, most: int) -> None:
        """Until no more than so many bytes wait. Raises what the thread raised."""
        while self._waiting and (self._waiting_bytes > most or self._waiting[0][0].done()):
            future, size = self._waiting.popleft()
            future.result()
            self._waiting_bytes -= size

    def _write(self, block: Iterable[bytes | memoryview]) -> None:
        for data in _joined(block):
            self._hash.update(data)
            while data:  # the system may take less than it is given
                data = memoryview(data)[os.write(self._file.fileno(), data) :]


def _joined(buffers: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    """The same bytes in few pieces: for each the thread would have to wait for the interpreter again."""
    small: list[bytes | memoryview] = []
    for data in buffers:
        if len(data) < _LARGE:
            small.append(data)
            continue
        yield b"".join(small)
        yield data
        small = []
    yield b"".join(small)
