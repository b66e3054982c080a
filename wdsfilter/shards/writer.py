"""Kept samples -> a tar that depends on nothing but their bytes: no clock, no owner, no mode of a source."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import BinaryIO

from wdsfilter.background import helper
from wdsfilter.samples import Member
from wdsfilter.shards import tar

_BLOCK_BYTES = 2 << 20


@dataclass(frozen=True, slots=True)
class Written:
    """What was written: hexadecimal SHA-256 and size (bytes) of the whole file, number of samples."""

    sha256: str
    size: int
    samples: int


def stored(members: Iterable[Member]) -> Iterator[bytes | memoryview]:
    """One sample's bytes in an archive."""
    for member in members:
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
    """Writes members to ``path`` in blocks; holds two of them (2 MB each), whatever the samples' sizes.

    A thread hashes and writes one block while the next one fills: an error of the disk is raised by a later
    call, by :meth:`close` at the latest. Every byte is copied once, into its block. That costs less than to hand
    the buffers over as they are: for each the thread would have to wait for the interpreter again.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb", buffering=0)
        self._hash = hashlib.sha256()
        self._writing = helper("write")
        self._under_way: Future[None] | None = None
        self._block, self._other = memoryview(bytearray(_BLOCK_BYTES)), memoryview(bytearray(_BLOCK_BYTES))
        self._filled = 0
        self._size = 0
        self._samples = 0

    def add(self, members: Iterable[Member]) -> None:
        """Append one sample."""
        self.add_stored(stored(members))

    def add_stored(self, buffers: Iterable[bytes | memoryview]) -> None:
        """Append one sample as :func:`stored` gives it."""
        for data in buffers:
            end = self._filled + len(data)
            if end <= _BLOCK_BYTES:
                self._block[self._filled : end] = data
                self._filled = end
            else:
                self._append_in_parts(memoryview(data))
        self._samples += 1

    def close(self) -> Written:
        """End the archive, flush it to the disk, and say what was written."""
        self._append_in_parts(memoryview(end_after(self._size + self._filled)))
        self._flush()
        self._wait()
        os.fsync(self._file.fileno())
        self._release()
        return Written(self._hash.hexdigest(), self._size, self._samples)

    def abandon(self) -> None:
        """Close without an end: the file is of no use and its owner removes it."""
        self._release()

    def _release(self) -> None:
        self._writing.shutdown()
        self._file.close()

    def _append_in_parts(self, data: memoryview) -> None:
        while data:
            part = data[: _BLOCK_BYTES - self._filled]
            self._block[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            data = data[len(part) :]
            if self._filled == _BLOCK_BYTES:
                self._flush()

    def _flush(self) -> None:
        """Hand the block over, and go on in the one that was handed over before."""
        self._wait()
        begun = Event()
        self._under_way = self._writing.submit(self._write, self._block[: self._filled], begun)
        begun.wait()  # without it the thread would only get hold of the interpreter some milliseconds later
        self._size += self._filled
        self._block, self._other, self._filled = self._other, self._block, 0

    def _wait(self) -> None:
        """For what was handed over. Raises what the thread raised."""
        if self._under_way is not None:
            self._under_way.result()

    def _write(self, data: memoryview, begun: Event) -> None:
        begun.set()
        self._hash.update(data)
        while data:  # the system may take less than it is given
            data = data[os.write(self._file.fileno(), data) :]
