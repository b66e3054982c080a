"""Members that lie in an archive the plainest way: a ustar header, before it perhaps one that only tells a time.

Nearly everything lies so that img2dataset, webdataset and tar write. Many are looked at together: what can be said
of headers is said of all of them at once, as rows of a matrix. They mean what :mod:`~wdsfilter.shards.archive`, which
reads everything else, would see in them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from wdsfilter.shards import tar
from wdsfilter.shards.tar import BLOCK

Bytes = NDArray[np.uint8]
Buffer: TypeAlias = "bytearray | memoryview"


class Plain(NamedTuple):
    """A member; where its first header begins, where its own, and where the next member's (bytes)."""

    name: str
    size: int
    begin: int
    header: int
    end: int


_NAME, _SIZE, _CHECKSUM, _MAGIC, _REST = (
    slice(*span) for span in ((0, 100), (124, 136), (148, 156), (257, 262), (345, 512))
)
_size_kind_prefix = Struct("124x 12s 20x c 188x c").unpack_from
_REGULAR, _EXTENDED = b"0", b"x"
_TIME = re.compile(rb"(\d\d) mtime=\d+(?:\.\d*)?\n")
_DIGITS = b"01234567"
_NAMELESS = np.frombuffer(tar.header("", 0), np.uint8).copy()
_USTAR = np.frombuffer(b"ustar", np.uint8)
_ZEROS = bytes(BLOCK)
_OCTAL_SHIFTS = np.arange(15, -1, -3)
_NAMELESS[_CHECKSUM] = ord(" ")  # as which a header's sum counts its own field


def plain_members(data: Buffer, begin: int, end: int, most: int) -> list[Plain]:
    """The members from ``begin`` on, up to the first that is not plain, not whole at ``end``, or larger than ``most``.

    ``begin`` is a multiple of 512. Each one's own header and what fills its last block become, in place, what
    :func:`~wdsfilter.shards.tar.header` and :func:`~wdsfilter.shards.tar.padding` make of it.
    """
    found = list(_walk(data, begin, end, most))
    if not found:
        return []
    blocks = np.frombuffer(data, np.uint8)[: len(data) // BLOCK * BLOCK].reshape(-1, BLOCK)
    places = np.array([header for _, _, header, _ in found]) // BLOCK
    heads = blocks[places]
    plain = _are_sound(heads) & (heads[:, _MAGIC] == _USTAR).all(axis=1) & ~heads[:, _REST].any(axis=1)
    with_time = [number for number, (_, first, header, _) in enumerate(found) if first != header]
    if with_time:
        plain[with_time] &= _are_sound(blocks[places[with_time] - 2])

    names = heads[:, _NAME].copy().view("S100").ravel().tolist()
    members = list(_named(found, plain.tolist(), names))
    count = len(members)
    blocks[places[:count]] = _as_written(heads[:count])
    for member in members:
        if rest := -member.size % BLOCK:
            data[member.end - rest : member.end] = _ZEROS[:rest]
    return members


def _walk(data: Buffer, at: int, end: int, most: int) -> Iterator[tuple[int, int, int, int]]:
    """Size, first header, own header and end of each member, as far as they lead from one to the next."""
    while at + BLOCK <= end:
        first = at
        size, kind, prefix = _size_kind_prefix(data, at)
        if kind == _EXTENDED:
            at += 2 * BLOCK
            if at + BLOCK > end or not _tells_a_time(data, first, size):
                return
            size, kind, prefix = _size_kind_prefix(data, at)
        if kind != _REGULAR or prefix != b"\0" or size[11] or size[:11].strip(_DIGITS):
            return
        length = int(size[:11], 8)
        after = at + BLOCK + length + -length % BLOCK
        if after > end or length > most:
            return
        yield length, first, at, after
        at = after


def _tells_a_time(data: Buffer, at: int, size: bytes) -> bool:
    """Whether an extended header's one block holds one record, of when the member was changed: nothing for us."""
    found = _TIME.match(data, at + BLOCK, at + 2 * BLOCK)
    return (
        found is not None and size == b"%011o\0" % int(found[1]) and found.end() == at + BLOCK + int(found[1])
    )


def _as_written(heads: Bytes) -> Bytes:
    """The headers that :func:`~wdsfilter.shards.tar.header` makes for these headers' names and sizes."""
    made = np.empty_like(heads)
    made[:] = _NAMELESS
    made[:, _NAME], made[:, _SIZE] = heads[:, _NAME], heads[:, _SIZE]
    made[:, _CHECKSUM] = _checksum(made.sum(axis=1, dtype=np.int32))
    return made


def _are_sound(heads: Bytes) -> NDArray[np.bool_]:
    """Which headers' sums are right."""
    fields = heads[:, _CHECKSUM]
    sums = heads.sum(axis=1, dtype=np.int32) - fields.sum(axis=1, dtype=np.int32) + 8 * ord(" ")
    right: NDArray[np.bool_] = (fields == _checksum(sums)).all(axis=1)
    return right


def _checksum(sums: NDArray[np.int32]) -> Bytes:
    """Sums as they stand in headers: six octal digits, NUL, blank."""
    field = np.empty((len(sums), 8), np.uint8)
    field[:, :6] = (sums[:, None] >> _OCTAL_SHIFTS & 7) + ord("0")
    field[:, 6:] = 0, ord(" ")
    return field


def _named(found: list[tuple[int, int, int, int]], plain: list[bool], names: list[bytes]) -> Iterator[Plain]:
    """The members up to the first that is not plain, or whose name is no text that ends at its first NUL."""
    for (size, begin, header, end), fine, raw in zip(found, plain, names, strict=True):
        if not fine or b"\0" in raw:
            return
        try:
            name = raw.decode()
        except UnicodeDecodeError:
            return
        yield Plain(name, size, begin, header, end)
