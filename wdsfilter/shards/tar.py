"""The tar format, strictly: a stream of bytes becomes members, or members and the damage after them.

Python's tarfile (and so every reader built on it) takes a stream that was cut at a member boundary,
cut inside a header, or that goes on with garbage for a finished archive. Here an archive has ended
only when its end-of-archive blocks were seen and nothing but padding came after them.

Format: POSIX.1-2017 pax (ustar and extended headers), and the GNU extensions for long names.
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator, Mapping
from lzma import LZMAError
from typing import BinaryIO, NamedTuple

from wdsfilter.samples import Damage

BLOCK = 512
ZERO_BLOCK = bytes(BLOCK)
RECORD = 20 * BLOCK

MAX_PADDING = 1 << 20
"""More zeros than this behind the archive's end are no padding but data that was never written."""

MAX_EXTENDED_HEADER = 1 << 20
MAX_HEADER_CHAIN = 8
_CHUNK = 1 << 20

_REGULAR = frozenset({b"0", b"\0", b"7"})
_WITHOUT_DATA = frozenset({b"1", b"2", b"3", b"4", b"5", b"6"})
_LONG_NAME, _LONG_LINK, _SPARSE = b"L", b"K", b"S"
_EXTENDED, _SOLARIS_EXTENDED, _GLOBAL = b"x", b"X", b"g"
_PREFIX_OF_SPARSE = "GNU.sparse."
_SPARSE_NAME = "GNU.sparse.name"


class Entry(NamedTuple):
    """A regular file of the archive. ``offset`` and ``end`` (bytes) hold its headers and padding.

    ``flaw`` names why its ``data`` could not be had although the archive goes on after it
    (``sparse``, ``too_large``); it is empty for a sound member.
    """

    name: str
    data: memoryview
    offset: int
    end: int
    flaw: str = ""


class _DamageError(Exception):
    """Internal: the stream cannot be followed any further."""

    def __init__(self, reason: str, detail: str, offset: int) -> None:
        super().__init__(reason)
        # A member's name may stand in it that is no UTF-8, and no ledger could hold.
        self.damage = Damage(reason, detail.encode("utf-8", "backslashreplace").decode(), offset)


class _Stream:
    """Counted reads that know how many bytes there should have been."""

    def __init__(self, raw: BinaryIO) -> None:
        self._raw = raw
        self.position = 0

    def take(self, size: int) -> memoryview:
        """Up to ``size`` bytes; fewer only at the end of the stream."""
        try:
            data = self._raw.read(size)
        except (EOFError, OSError, zlib.error, LZMAError) as error:
            # Transport errors arrive as ReadError; what is left comes from a decompressor.
            detail = f"{type(error).__name__}: {error}"
            raise _DamageError("bad_compression", detail, self.position) from error
        self.position += len(data)
        return memoryview(data)

    def skip(self, size: int) -> None:
        while size > 0:
            got = len(self.take(min(size, _CHUNK)))
            if not got:
                raise _DamageError("cut_in_member", f"{size} bytes of a member are missing", self.position)
            size -= got


def members(raw: BinaryIO, *, max_member: int) -> Iterator[Entry | Damage]:
    """All regular files of the archive in ``raw``; a :class:`Damage` comes last where there is one.

    Links, folders and devices are passed over, as webdataset does. A member of more than
    ``max_member`` bytes is read past and comes as an entry with a flaw, so memory stays bounded.
    """
    stream = _Stream(raw)
    try:
        yield from _entries(stream, max_member)
    except _DamageError as error:
        yield error.damage


def _entries(stream: _Stream, max_member: int) -> Iterator[Entry]:
    defaults: dict[str, str] = {}
    block = stream.take(BLOCK)
    while True:
        start = start_of(block, stream)
        overrides: dict[str, str] = {}
        expects_member = False
        for _ in range(MAX_HEADER_CHAIN):
            header = _header(block, stream)
            if header is None:
                if expects_member:
                    raise _DamageError("cut_in_header", "an extended header without its member", start)
                return
            if header.kind not in (_LONG_NAME, _LONG_LINK, _EXTENDED, _SOLARIS_EXTENDED, _GLOBAL):
                break
            payload, block = _extended_payload(header, stream)
            expects_member |= header.kind != _GLOBAL
            if header.kind == _GLOBAL:
                defaults.update(_pax_records(payload, start))
            elif header.kind == _LONG_NAME:
                overrides.setdefault("path", _text(payload))
            elif header.kind != _LONG_LINK:
                # Where headers repeat, the first one wins, as in tarfile.
                overrides = {**_pax_records(payload, start), **overrides}
        else:
            raise _DamageError("bad_header", f"more than {MAX_HEADER_CHAIN} extended headers in a row", start)

        merged = {**defaults, **overrides}
        name = overrides.get(_SPARSE_NAME) or merged.get("path", header.name)
        size = _size_override(merged, header, start)
        sparse = header.kind == _SPARSE or _PREFIX_OF_SPARSE in overrides
        if header.kind == _SPARSE:
            _skip_sparse_map(block, stream)
        if header.kind in _WITHOUT_DATA or (header.kind == b"\0" and name.endswith("/")):
            block = stream.take(BLOCK)
            continue

        padded = -(-size // BLOCK) * BLOCK
        wanted = header.kind in _REGULAR or header.kind == _SPARSE
        if wanted and not sparse and size <= max_member:
            # One read brings the member, its padding and the header after it.
            got = stream.take(padded + BLOCK)
            if len(got) < padded:
                missing = max(size - len(got), 0)
                detail = f"{name}: {missing} bytes missing" if missing else f"{name}: padding missing"
                raise _DamageError("cut_in_member", detail, stream.position)
            block = got[padded:]
            yield Entry(name, got[:size], start, start_of(block, stream))
        else:
            stream.skip(padded)
            block = stream.take(BLOCK)
            if wanted:
                flaw = "sparse" if sparse else "too_large"
                yield Entry(name, memoryview(b""), start, start_of(block, stream), flaw)


def start_of(block: memoryview, stream: _Stream) -> int:
    """Where the block that was read last begins (bytes)."""
    return stream.position - len(block)


class _Header(NamedTuple):
    name: str
    size: int
    kind: bytes


def _header(block: memoryview, stream: _Stream) -> _Header | None:
    """The header in ``block``; None at the archive's proper end. Raises _DamageError."""
    at = start_of(block, stream)
    if len(block) < BLOCK:
        if at == 0 and not block:
            raise _DamageError("empty_file", "zero bytes, not even an empty archive", at)
        if block:
            raise _DamageError("cut_in_header", f"{len(block)} of {BLOCK} header bytes", at)
        raise _DamageError("no_end_of_archive", "the stream ends without end-of-archive blocks", at)
    raw = bytes(block)
    if raw == ZERO_BLOCK:
        _finish(stream, at)
        return None
    stored = _number(raw[148:156])
    # The checksum counts its own field as eight spaces; some old tars summed signed bytes. Most of a
    # header is zeros, without which it sums up several times faster.
    total = sum(raw.translate(None, b"\0")) - sum(raw[148:156]) + 8 * 0x20
    if stored != total and stored != total - 256 * sum(b > 127 for b in raw[:148] + raw[156:]):
        what = "not a tar archive" if at == 0 else "wrong header checksum"
        raise _DamageError("bad_header", what, at)
    size = _number(raw[124:136])
    if size is None or size < 0:
        raise _DamageError("bad_header", f"impossible member size {raw[124:136]!r}", at)
    name = _text(raw[:100])
    if raw[257:263] == b"ustar\0" and raw[345]:
        name = f"{_text(raw[345:500])}/{name}"
    return _Header(name, size, raw[156:157])


def _finish(stream: _Stream, at: int) -> None:
    """After the first zero block: one more, then padding and nothing else."""
    second = stream.take(BLOCK)
    if len(second) < BLOCK:
        raise _DamageError("no_end_of_archive", "only one end-of-archive block", at)
    padding = 0
    while chunk := second or stream.take(_CHUNK):
        second = memoryview(b"")
        if bytes(chunk).strip(b"\0"):
            raise _DamageError("data_after_end", "data after the end-of-archive blocks", at)
        padding += len(chunk)
        if padding > MAX_PADDING:
            raise _DamageError("zeros_after_end", f"more than {MAX_PADDING} zero bytes after the end", at)


def _number(field: bytes) -> int | None:
    """A header's number: octal text, or base 256 when the first bit is set; None if it is neither."""
    if field[0] == 0xFF:
        return int.from_bytes(field, "big", signed=True)
    if field[0] & 0x80:
        return int.from_bytes(field, "big") - (1 << (8 * len(field) - 1))
    text = field.split(b"\0", 1)[0].strip()
    if text.strip(b"01234567"):
        return None
    return int(text or b"0", 8)


def _text(field: bytes | memoryview) -> str:
    return bytes(field).split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _extended_payload(header: _Header, stream: _Stream) -> tuple[memoryview, memoryview]:
    if header.size > MAX_EXTENDED_HEADER:
        detail = f"an extended header of {header.size} bytes"
        raise _DamageError("bad_header", detail, stream.position - BLOCK)
    padded = -(-header.size // BLOCK) * BLOCK
    got = stream.take(padded + BLOCK)
    if len(got) < padded:
        raise _DamageError("cut_in_header", "inside an extended header", stream.position)
    if header.kind in (_LONG_NAME, _LONG_LINK) and bytes(got[header.size : padded]).strip(b"\0"):
        # tarfile would take the name as it stands there: no telling who is right
        detail = f"a long name that goes on behind its {header.size} bytes"
        raise _DamageError("bad_header", detail, stream.position - len(got))
    return got[: header.size], got[padded:]


def _pax_records(payload: memoryview, at: int) -> dict[str, str]:
    """What matters here of the records ``"%d %s=%s\\n"`` of a pax header: names and sizes.

    A sparse file's map is there or not; its records are not kept. Raises _DamageError where the records
    do not add up.
    """
    records: dict[str, str] = {}
    text = bytes(payload).rstrip(b"\0")
    position = 0
    while position < len(text):
        blank = text.find(b" ", position, position + 8)
        digits = text[position:blank] if blank > 0 else b""
        end = position + int(digits) if digits.isdigit() else 0
        keyword, equals, value = text[blank + 1 : end].partition(b"=")
        if not equals or not value.endswith(b"\n") or end > len(text):
            raise _DamageError("bad_header", "malformed pax records", at)
        name = keyword.decode("utf-8", "replace")
        if name in ("path", "size", _SPARSE_NAME):
            records[name] = value[:-1].decode("utf-8", "surrogateescape")
        if name.startswith(_PREFIX_OF_SPARSE):
            records[_PREFIX_OF_SPARSE] = ""
        position = end
    return records


def _size_override(records: Mapping[str, str], header: _Header, at: int) -> int:
    text = records.get("size")
    if text is None or header.kind in _WITHOUT_DATA:
        return header.size
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise _DamageError("bad_header", f"impossible member size {text[:40]!r}", at)
    return int(text)


def _skip_sparse_map(block: memoryview, stream: _Stream) -> None:
    """GNU's old sparse format may go on in further blocks, before the data."""
    extended = block[482]
    while extended:
        more = stream.take(BLOCK)
        if len(more) < BLOCK:
            raise _DamageError("cut_in_header", "inside a sparse map", stream.position)
        extended = more[504]


def header(name: str, size: int) -> bytes:
    """The header blocks of a regular file: no owner, mode 0644, time 0, so that bytes depend on nothing else.

    ustar where the name fits, GNU long names otherwise; ``name`` may hold surrogate escapes.
    """
    raw = name.encode("utf-8", "surrogateescape")
    if len(raw) > 100 or size >= 1 << 33:
        info = tarfile.TarInfo(name)
        info.size, info.mode = size, 0o644
        return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
    before = raw.ljust(100, b"\0") + b"0000644\x000000000\x000000000\0%011o\x0000000000000\0" % size
    total = sum(before) + 8 * 0x20 + _AFTER_CHECKSUM_SUM
    return b"%b%06o\0 %b" % (before, total, _AFTER_CHECKSUM)


_AFTER_CHECKSUM = (b"0" + bytes(100) + b"ustar\x0000").ljust(BLOCK - 156, b"\0")
_AFTER_CHECKSUM_SUM = sum(_AFTER_CHECKSUM)


def padding(size: int) -> bytes:
    """The zeros between a member's last byte and its next block."""
    return bytes(-size % BLOCK)
