"""Samples that lie in a shard the plainest way, a ustar header before each member: copied without taking them apart.

Many at once: what can be said of headers is said of all of them together, as rows of a matrix.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

from wdsfilter.shards import tar
from wdsfilter.shards.reader import RESERVED, is_safe, split_name
from wdsfilter.shards.tar import BLOCK

Bytes = NDArray[np.uint8]
Member = tuple[int, int]
"""Where a member's header begins, and the member's size (bytes)."""

_NAME, _SIZE, _CHECKSUM, _KIND, _MAGIC, _REST = (
    slice(*span) for span in ((0, 100), (124, 136), (148, 156), (156, 157), (257, 262), (345, 512))
)
_NAMELESS = np.frombuffer(tar.header("", 0), np.uint8).copy()
_NAMELESS[_CHECKSUM] = ord(" ")  # as which a header's sum counts its own field


def normalise(data: memoryview, samples: Sequence[tuple[str, int]]) -> list[set[str] | None]:
    """Make samples' bytes in shards, in place, what :func:`~wdsfilter.shards.writer.stored` makes of them.

    ``samples`` lie side by side in ``data``: each one's key and length (bytes). Returns each one's members'
    extensions. None where it lies there in any other way, or is not the sound sample of that key: then it has to
    be read by :func:`~wdsfilter.shards.reader.read_samples`, which is as right as before.
    """
    spans = list(pairwise(accumulate((length for _, length in samples), initial=0)))
    members = [_members(data, begin, end) for begin, end in spans]
    blocks = np.frombuffer(data, np.uint8)[: len(data) // BLOCK * BLOCK].reshape(-1, BLOCK)
    places = np.array([at // BLOCK for found in members for at, _ in found], np.intp)
    there = blocks[places]
    written = _as_written(there)
    plain = _are_plain(there, written)
    names = there[:, _NAME].tobytes()

    extensions: list[set[str] | None] = []
    copied = np.zeros(len(places), bool)
    first = 0
    for (key, _), (_, end), found in zip(samples, spans, members, strict=True):
        last = first + len(found)
        named = None
        if found and plain[first:last].all():
            named = _extensions(key, (names[100 * n : 100 * n + 100] for n in range(first, last)))
        if named is not None:
            copied[first:last] = True
            _clear_padding(data, found, end)
        extensions.append(named)
        first = last
    blocks[places[copied]] = written[copied]
    return extensions


def _members(data: memoryview, begin: int, end: int) -> list[Member]:
    """The members that ``data`` holds from ``begin`` to ``end``; none where sizes do not lead to the end."""
    found: list[Member] = []
    at = begin
    while at < end:
        digits = bytes(data[at + 124 : at + 135])
        if not digits.isdigit():
            return []
        try:
            size = int(digits, 8)
        except ValueError:
            return []
        found.append((at, size))
        at += BLOCK + size + -size % BLOCK
    return found if at == end and not begin % BLOCK else []


def _as_written(there: Bytes) -> Bytes:
    """The headers that :func:`~wdsfilter.shards.tar.header` makes for these headers' names and sizes."""
    made = np.repeat(_NAMELESS[None], len(there), axis=0)
    made[:, _NAME], made[:, _SIZE] = there[:, _NAME], there[:, _SIZE]
    made[:, _CHECKSUM] = _checksum(made.sum(axis=1, dtype=np.int64))
    return made


def _are_plain(there: Bytes, written: Bytes) -> NDArray[np.bool_]:
    """Which headers are sound, and differ in nothing but mode, owner, time, link and what kind of ustar they are."""
    fields = there[:, _CHECKSUM]
    sums = there.sum(axis=1, dtype=np.int64) - fields.sum(axis=1, dtype=np.int64) + 8 * ord(" ")
    fine: NDArray[np.bool_] = (fields == _checksum(sums)).all(axis=1) & (there[:, 135] == 0)
    for same in (_KIND, _MAGIC, _REST):
        fine &= (there[:, same] == written[:, same]).all(axis=1)
    return fine


def _checksum(sums: NDArray[np.int64]) -> Bytes:
    """Sums as they stand in headers: six octal digits, NUL, blank."""
    digits = (sums[:, None] >> np.arange(15, -1, -3)) % 8 + ord("0")
    return np.hstack([digits, np.tile([0, ord(" ")], (len(sums), 1))]).astype(np.uint8)


def _extensions(key: str, names: Iterator[bytes]) -> set[str] | None:
    """Of the members that have these names; None where they are not all of the sample ``key``, or may not be."""
    found: set[str] = set()
    if not is_safe(key):
        return None
    for raw in names:
        try:
            name = raw.rstrip(b"\0").decode()
        except ValueError:
            return None
        split = split_name(name) if "\0" not in name else None
        if split is None or split[0] != key or split[1] in RESERVED or split[1] in found:
            return None
        found.add(split[1])
    return found


def _clear_padding(data: memoryview, members: Sequence[Member], end: int) -> None:
    """Make zeros of what stands between each member and the next one's header, or the sample's ``end``."""
    for (at, size), after in zip(members, [*(at for at, _ in members[1:]), end], strict=True):
        begin = at + BLOCK + size
        data[begin:after] = bytes(after - begin)
