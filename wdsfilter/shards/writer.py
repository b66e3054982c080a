"""Kept samples -> a tar that depends on nothing but their bytes: no clock, no owner, no mode of a source."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from wdsfilter.background import helper
from wdsfilter.samples import Member
from wdsfilter.shards import tar

_FLUSH_BYTES = 4 << 20
_FLUSH_BUFFERS = 512  # below every system's limit for one gathered write (IOV_MAX is at least 1024)


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
    """Writes members to ``path`` with gathered writes; holds at most two flushes (4 MB each) and two samples.

    One thread writes and one hashes what was added before, while more is added: an error of the disk is raised
    by a later call, by :meth:`close` at the latest.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("xb", buffering=0)
        self._hash = hashlib.sha256()
        self._hashing = helper("hash")
        self._writing = helper("write")
        self._under_way: list[Future[None]] = []
        self._buffers: list[bytes | memoryview] = []
        self._pending = 0
        self._size = 0
        self._samples = 0

    def add(self, members: Iterable[Member]) -> None:
        """Append one sample."""
        self.add_stored(stored(members))

    def add_stored(self, buffers: Iterable[bytes | memoryview]) -> None:
        """Append one sample as :func:`stored` gives it; nobody may change its bytes any more."""
        for data in buffers:
            self._append(data)
        self._samples += 1

    def close(self) -> Written:
        """End the archive, flush it to the disk, and say what was written."""
        self._append(end_after(self._size + self._pending))
        self._flush()
        self._wait()
        os.fsync(self._file.fileno())
        self._release()
        return Written(self._hash.hexdigest(), self._size, self._samples)

    def abandon(self) -> None:
        """Close without an end: the file is of no use and its owner removes it."""
        self._release()

    def _release(self) -> None:
        self._hashing.shutdown()
        self._writing.shutdown()
        self._file.close()

    def _append(self, data: bytes | memoryview) -> None:
        if not len(data):
            return
        self._buffers.append(data)
        self._pending += len(data)
        if self._pending >= _FLUSH_BYTES or len(self._buffers) >= _FLUSH_BUFFERS:
            self._flush()

    def _flush(self) -> None:
        self._wait()
        self._under_way = [
            self._hashing.submit(self._update, self._buffers),
            self._writing.submit(self._write, self._buffers),
        ]
        self._size += self._pending
        self._buffers, self._pending = [], 0

    def _wait(self) -> None:
        """For what was handed to the threads. Raises what they raised."""
        for done in self._under_way:
            done.result()

    def _update(self, buffers: Iterable[bytes | memoryview]) -> None:
        for data in buffers:
            self._hash.update(data)

    def _write(self, buffers: Sequence[bytes | memoryview]) -> None:
        while buffers:  # the system may take less than it is given
            written = os.writev(self._file.fileno(), buffers)
            buffers = list(_after(written, buffers))


def _after(written: int, buffers: Iterable[bytes | memoryview]) -> Iterator[bytes | memoryview]:
    """What is left of ``buffers`` when so many bytes of them are gone."""
    for data in buffers:
        if written < len(data):
            yield memoryview(data)[written:]
        written = max(written - len(data), 0)
