"""The tar format's headers, read strictly and written: pure functions of bytes.

Format: POSIX.1-2017 pax (ustar and extended headers), and the GNU extensions for long names.
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Mapping
from typing import NamedTuple

from wdsfilter.samples import Damage

BLOCK = 512
ZERO_BLOCK = bytes(BLOCK)
RECORD = 20 * BLOCK

REGULAR = frozenset({b"0", b"\0", b"7"})
WITHOUT_DATA = frozenset({b"1", b"2", b"3", b"4", b"5", b"6"})
LONG_NAME, LONG_LINK, SPARSE = b"L", b"K", b"S"
EXTENDED, SOLARIS_EXTENDED, GLOBAL = b"x", b"X", b"g"
ABOUT_THE_NEXT = frozenset({LONG_NAME, LONG_LINK, EXTENDED, SOLARIS_EXTENDED, GLOBAL})
"""Headers that speak of the members after them, and are none themselves."""

PREFIX_OF_SPARSE = "GNU.sparse."
SPARSE_NAME = "GNU.sparse.name"


class DamageError(Exception):
    """The archive cannot be followed any further; stays inside this package."""

    def __init__(self, reason: str, detail: str, offset: int) -> None:
        super().__init__(reason)
        # A member's name may stand in it that is no UTF-8, and no ledger could hold.
        self.damage = Damage(reason, detail.encode("utf-8", "backslashreplace").decode(), offset)


class Header(NamedTuple):
    """What one header block says: the member's name, its size (bytes) and its type flag."""

    name: str
    size: int
    kind: bytes


def is_checksum_right(raw: bytes) -> bool:
    """Whether a header block's sum is the one that stands in it."""
    stored = _number(raw[148:156])
    # The checksum counts its own field as eight spaces; some old tars summed signed bytes.
    total = _sum(raw[:256]) + _sum(raw[256:]) - _sum(raw[148:156]) + 8 * 0x20
    return stored == total or stored == total - 256 * sum(b > 127 for b in raw[:148] + raw[156:])


def _sum(data: bytes) -> int:
    """The sum of up to 256 bytes: Adler-32 keeps it, plus one, in its low half (RFC 1950), and is in C."""
    return (zlib.adler32(data) & 0xFFFF) - 1


def parse(raw: bytes, at: int) -> Header:
    """The header in the block ``raw``, which begins at byte ``at``. Raises DamageError."""
    if not is_checksum_right(raw):
        what = "not a tar archive" if at == 0 else "wrong header checksum"
        raise DamageError("bad_header", what, at)
    size = _number(raw[124:136])
    if size is None or size < 0:
        raise DamageError("bad_header", f"impossible member size {raw[124:136]!r}", at)
    name = text(raw[:100])
    if raw[257:263] == b"ustar\0" and raw[345]:
        name = f"{text(raw[345:500])}/{name}"
    return Header(name, size, raw[156:157])


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


def text(field: bytes | memoryview) -> str:
    """A header's text up to its NUL; what is no UTF-8 becomes surrogate escapes."""
    return bytes(field).split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def pax_records(payload: memoryview, at: int) -> dict[str, str]:
    """What matters here of the records ``"%d %s=%s\\n"`` of a pax header: names and sizes.

    A sparse file's map is there or not; its records are not kept. Raises DamageError where the records
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
            raise DamageError("bad_header", "malformed pax records", at)
        name = keyword.decode("utf-8", "replace")
        if name in ("path", "size", SPARSE_NAME):
            records[name] = value[:-1].decode("utf-8", "surrogateescape")
            if name == "path":
                records[name] = records[name].rstrip("/")  # as tarfile does
        if name.startswith(PREFIX_OF_SPARSE):
            records[PREFIX_OF_SPARSE] = ""
        position = end
    return records


def member_size(records: Mapping[str, str], header: Header, at: int) -> int:
    """The size (bytes) of the member that pax ``records`` and ``header`` describe. Raises DamageError."""
    text = records.get("size")
    if text is None or header.kind in WITHOUT_DATA:
        return header.size
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise DamageError("bad_header", f"impossible member size {text[:40]!r}", at)
    return int(text)


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
    total = _sum(before) + 8 * 0x20 + _AFTER_CHECKSUM_SUM
    return b"%b%06o\0 %b" % (before, total, _AFTER_CHECKSUM)


_AFTER_CHECKSUM = (b"0" + bytes(100) + b"ustar\x0000").ljust(BLOCK - 156, b"\0")
_AFTER_CHECKSUM_SUM = sum(_AFTER_CHECKSUM)


def padding(size: int) -> bytes:
    """The zeros between a member's last byte and its next block."""
    return bytes(-size % BLOCK)
