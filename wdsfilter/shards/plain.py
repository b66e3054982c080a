"""Members that lie in an archive the plainest way: a ustar header, before it perhaps one that only tells a time.

Nearly everything lies so that img2dataset, webdataset and tar write. Many are looked at together: what can be said
of headers is said of all of them at once, as rows of a matrix. They mean what :mod:`~wdsfilter.shards.archive`, which
reads everything else, would see in them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
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


_HEADERS = re.compile(
    rb"""(?xs)
    (?: .{124} ([0-7]{11})\0 .{20} x .{188}\0.{166}           # an extended header: size, kind, no prefix
        (?= (\d\d) [ ]mtime=\d+(?:\.\d*)? (\n) ) .{512} )?   # its one record: its length, its keyword, its end
    .{124} ([0-7]{11})\0 .{20} 0 .{100} ustar .{83}\0{167}    # the member's own header: size, kind, no prefix
    """
)
"""What a plain member begins with."""

_NAME, _SIZE, _CHECKSUM = (slice(*span) for span in ((0, 100), (124, 136), (148, 156)))
_NAMELESS = np.frombuffer(tar.header("", 0), np.uint8).copy()
_NAMELESS[_CHECKSUM] = ord(" ")  # as which a header's sum counts its own field
_ZEROS = bytes(BLOCK)
_OCTAL_SHIFTS = np.arange(15, -1, -3)


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
    sound = _are_sound(heads)
    with_time = [number for number, (_, first, header, _) in enumerate(found) if first != header]
    if with_time:
        sound[with_time] &= _are_sound(blocks[places[with_time] - 2])

    names = _texts(heads[sound.cumprod(dtype=bool)])
    count = len(names)
    blocks[places[:count]] = _as_written(heads[:count])
    members = []
    for name, (size, first, header, after) in zip(names, found, strict=False):
        members.append(Plain(name, size, first, header, after))
        if rest := -size % BLOCK:
            data[after - rest : after] = _ZEROS[:rest]
    return members


def _walk(data: Buffer, at: int, end: int, most: int) -> Iterator[tuple[int, int, int, int]]:
    """Size, first header, own header and end of what may be plain members, as far as they lead to one another."""
    while headers := _HEADERS.match(data, at, end):
        told, length, _, octal = headers.groups()
        if told is not None and not int(told, 8) == int(length) == headers.end(3) - (at + BLOCK):
            return
        size = int(octal, 8)
        after = headers.end() + size + -size % BLOCK
        if after > end or size > most:
            return
        yield size, at, headers.end() - BLOCK, after
        at = after


def _texts(heads: Bytes) -> list[str]:
    """The headers' names, up to the first that is no text that ends at its first NUL."""
    texts: list[str] = []
    for raw in heads[:, _NAME].copy().view("S100").ravel().tolist():
        if b"\0" in raw:
            break
        try:
            texts.append(raw.decode())
        except UnicodeDecodeError:
            break
    return texts


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
