"""Compressed shards, recognised by their first bytes and never by their names."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
from typing import Any, BinaryIO, cast

_MAGIC: tuple[tuple[bytes, Any], ...] = (
    (b"\x1f\x8b", gzip.open),
    (b"BZh", bz2.open),
    (b"\xfd7zXZ\x00", lzma.open),
)

MAX_RATIO = 100
"""Images do not shrink: a stream that grows more than this is an attack or no shard."""
_FREE_BYTES = 64 << 20


def is_compressed(start: bytes) -> bool:
    """Whether a stream that begins like this is gzip, bzip2 or xz."""
    return start.startswith(tuple(magic for magic, _ in _MAGIC))


def decompressed(stream: BinaryIO) -> BinaryIO:
    """``stream`` itself, or its decompressed content when it begins like gzip, bzip2 or xz.

    A stream that cannot be decompressed, or grows beyond :data:`MAX_RATIO`, raises OSError,
    EOFError, zlib.error or lzma.LZMAError while it is read.
    """
    peeked = cast(io.BufferedReader, stream).peek(8)
    for magic, opener in _MAGIC:
        if peeked.startswith(magic):
            counted = _Counted(stream)
            inner = opener(io.BufferedReader(counted, 1 << 16), "rb")
            return cast(BinaryIO, io.BufferedReader(_Capped(inner, counted), 1 << 20))
    return stream


class _Counted(io.RawIOBase):
    """Counts what is read of a stream."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self.total = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        got = cast(io.BufferedReader, self._raw).readinto1(buffer)
        self.total += got
        return got


class _Capped(io.RawIOBase):
    """Refuses to hand out far more bytes than went in."""

    def __init__(self, inner: Any, source: _Counted) -> None:
        self._inner = inner
        self._source = source
        self._total = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._inner.read1(len(buffer))
        buffer[: len(data)] = data
        self._total += len(data)
        if self._total > _FREE_BYTES + MAX_RATIO * self._source.total:
            raise OSError(f"grows to more than {MAX_RATIO} times its size when decompressed")
        return len(data)
