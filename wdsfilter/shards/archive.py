"""An archive, strictly: a stream of bytes becomes members, or members and the damage after them.

Python's tarfile (and so every reader built on it) takes a stream that was cut at a member boundary,
cut inside a header, or that goes on with garbage for a finished archive. Here an archive has ended
only when its end-of-archive blocks were seen and nothing but padding came after them.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from lzma import LZMAError
from typing import BinaryIO, NamedTuple, cast

from wdsfilter.samples import Damage
from wdsfilter.shards import tar
from wdsfilter.shards.plain import plain_members
from wdsfilter.shards.tar import BLOCK, DamageError

MAX_PADDING = 1 << 20
"""More zeros than this behind the archive's end are no padding but data that was never written."""

MAX_EXTENDED_HEADER = 1 << 20
MAX_HEADER_CHAIN = 8
_BLOCK_BYTES = 2 << 20


class Entry(NamedTuple):
    """A regular file of the archive. ``offset`` and ``end`` (bytes) hold its headers and padding.

    ``stored`` is what the writer makes of it, where that is known already (:class:`~wdsfilter.samples.Member`).
    ``flaw`` names why its ``data`` could not be had although the archive goes on after it
    (``sparse``, ``too_large``); it is empty for a sound member.
    """

    name: str
    data: memoryview
    offset: int
    end: int
    stored: bytes = b""
    flaw: str = ""


class _Stream:
    """An archive's bytes in order, read a block ahead. What is handed out stays as it is."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = cast(io.BufferedReader, raw)
        self._block = bytearray(_BLOCK_BYTES)
        self._view = memoryview(self._block)
        self._begin = self._end = 0  # of what was read and not taken
        self._at_end = False
        self._trouble: Exception | None = None
        self.position = 0

    def take(self, size: int) -> memoryview:
        """Up to ``size`` bytes; fewer only at the end of the stream. Raises DamageError."""
        if size > self._end - self._begin:
            self._fill()
        data = self._view[self._begin : min(self._begin + size, self._end)]
        self._begin += len(data)
        taken = memoryview(bytes(data)) if size <= _BLOCK_BYTES else self._larger(size, data)
        if len(taken) < size and self._trouble is not None:
            # Transport errors arrive as ReadError; what is left comes from a decompressor.
            detail = f"{type(self._trouble).__name__}: {self._trouble}"
            raise DamageError("bad_compression", detail, self.position) from self._trouble
        self.position += len(taken)
        return taken

    def skip(self, size: int) -> None:
        while size > 0:
            got = len(self.take(min(size, _BLOCK_BYTES)))
            if not got:
                raise DamageError("cut_in_member", f"{size} bytes of a member are missing", self.position)
            size -= got

    def plain(self, most: int) -> Iterator[Entry]:
        """The plain members that come next, of what is read. To be used up before anything else is taken."""
        if self._end - self._begin < _BLOCK_BYTES // 2:
            self._fill()
        begin, base = self._begin, self.position - self._begin
        found = plain_members(self._block, begin, self._end, most)
        if found:
            self._begin = found[-1].end
            self.position += self._begin - begin
        for name, size, first, header, end in found:
            stored = bytes(self._view[header:end])
            yield Entry(name, memoryview(stored)[BLOCK : BLOCK + size], base + first, base + end, stored)

    def _fill(self) -> None:
        """Read until the block is full, or nothing more comes."""
        self._end -= self._begin
        self._view[: self._end] = self._view[self._begin : self._begin + self._end]
        self._begin = 0
        self._end += self._read(self._view[self._end :])

    def _larger(self, size: int, begun: memoryview) -> memoryview:
        """``begun``, and what follows it, up to ``size`` bytes."""
        data = memoryview(bytearray(size))
        data[: len(begun)] = begun
        return data[: len(begun) + self._read(data[len(begun) :])]

    def _read(self, into: memoryview) -> int:
        """How many bytes were read; fewer than there is room for only at the end of what can be read."""
        done = 0
        while done < len(into) and not self._at_end and self._trouble is None:
            try:
                got = self._raw.readinto1(into[done:])
            except (EOFError, OSError, zlib.error, LZMAError) as error:
                self._trouble = error
            else:
                self._at_end = not got
                done += got
        return done


def members(raw: BinaryIO, *, max_member: int) -> Iterator[Entry | Damage]:
    """All regular files of the archive in ``raw``; a :class:`Damage` comes last where there is one.

    Links, folders and devices are passed over, as webdataset does. A member of more than
    ``max_member`` bytes is read past and comes as an entry with a flaw, so memory stays bounded.
    """
    stream = _Stream(raw)
    try:
        yield from _entries(stream, max_member)
    except DamageError as error:
        yield error.damage


def _entries(stream: _Stream, max_member: int) -> Iterator[Entry]:
    defaults: dict[str, str] = {}
    while True:
        if not defaults:
            yield from stream.plain(max_member)
        start = stream.position
        block = stream.take(BLOCK)
        overrides: dict[str, str] = {}
        expects_member = False
        for _ in range(MAX_HEADER_CHAIN):
            header = _header(block, stream)
            if header is None:
                if expects_member:
                    raise DamageError("cut_in_header", "an extended header without its member", start)
                return
            if header.kind not in tar.ABOUT_THE_NEXT:
                break
            payload = _extended_payload(header, stream)
            block = stream.take(BLOCK)
            expects_member |= header.kind != tar.GLOBAL
            if header.kind == tar.GLOBAL:
                defaults.update(tar.pax_records(payload, start))
            elif header.kind == tar.LONG_NAME:
                overrides.setdefault("path", tar.text(payload))
            elif header.kind != tar.LONG_LINK:
                # Where headers repeat, the first one wins, as in tarfile.
                overrides = {**tar.pax_records(payload, start), **overrides}
        else:
            raise DamageError("bad_header", f"more than {MAX_HEADER_CHAIN} extended headers in a row", start)

        name, size, sparse = header.name, header.size, header.kind == tar.SPARSE
        if defaults or overrides:
            merged = {**defaults, **overrides}
            name = overrides.get(tar.SPARSE_NAME) or merged.get("path", name)
            size = tar.member_size(merged, header, start)
            sparse |= tar.PREFIX_OF_SPARSE in overrides
        if header.kind == tar.SPARSE:
            _skip_sparse_map(block, stream)
        if header.kind in tar.WITHOUT_DATA or (header.kind == b"\0" and name.endswith("/")):
            continue

        padded = -(-size // BLOCK) * BLOCK
        wanted = header.kind in tar.REGULAR or header.kind == tar.SPARSE
        if wanted and not sparse and size <= max_member:
            got = stream.take(padded)
            if len(got) < padded:
                missing = max(size - len(got), 0)
                detail = f"{name}: {missing} bytes missing" if missing else f"{name}: padding missing"
                raise DamageError("cut_in_member", detail, stream.position)
            yield Entry(name, got[:size], start, stream.position)
        else:
            stream.skip(padded)
            if wanted:
                flaw = "sparse" if sparse else "too_large"
                yield Entry(name, memoryview(b""), start, stream.position, flaw=flaw)


def _header(block: memoryview, stream: _Stream) -> tar.Header | None:
    """The header in ``block``; None at the archive's proper end. Raises DamageError."""
    at = stream.position - len(block)
    if len(block) < BLOCK:
        if at == 0 and not block:
            raise DamageError("empty_file", "zero bytes, not even an empty archive", at)
        if block:
            raise DamageError("cut_in_header", f"{len(block)} of {BLOCK} header bytes", at)
        raise DamageError("no_end_of_archive", "the stream ends without end-of-archive blocks", at)
    raw = bytes(block)
    if raw == tar.ZERO_BLOCK:
        _finish(stream, at)
        return None
    return tar.parse(raw, at)


def _finish(stream: _Stream, at: int) -> None:
    """After the first zero block: one more, then padding and nothing else."""
    second = stream.take(BLOCK)
    if len(second) < BLOCK:
        raise DamageError("no_end_of_archive", "only one end-of-archive block", at)
    padding = 0
    while chunk := second or stream.take(_BLOCK_BYTES):
        second = memoryview(b"")
        if bytes(chunk).strip(b"\0"):
            raise DamageError("data_after_end", "data after the end-of-archive blocks", at)
        padding += len(chunk)
        if padding > MAX_PADDING:
            raise DamageError("zeros_after_end", f"more than {MAX_PADDING} zero bytes after the end", at)


def _extended_payload(header: tar.Header, stream: _Stream) -> memoryview:
    if header.size > MAX_EXTENDED_HEADER:
        detail = f"an extended header of {header.size} bytes"
        raise DamageError("bad_header", detail, stream.position - BLOCK)
    start = stream.position
    padded = -(-header.size // BLOCK) * BLOCK
    got = stream.take(padded)
    if len(got) < padded:
        raise DamageError("cut_in_header", "inside an extended header", stream.position)
    if header.kind in (tar.LONG_NAME, tar.LONG_LINK) and bytes(got[header.size :]).strip(b"\0"):
        # tarfile would take the name as it stands there: no telling who is right
        raise DamageError("bad_header", f"a long name that goes on behind its {header.size} bytes", start)
    return got[: header.size]


def _skip_sparse_map(block: memoryview, stream: _Stream) -> None:
    """GNU's old sparse format may go on in further blocks, before the data."""
    extended = block[482]
    while extended:
        more = stream.take(BLOCK)
        if len(more) < BLOCK:
            raise DamageError("cut_in_header", "inside a sparse map", stream.position)
        extended = more[504]
