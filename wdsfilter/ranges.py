"""Reading byte ranges of objects that lie somewhere, many at once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate, groupby, pairwise

from wdsfilter import remote, storage
from wdsfilter.errors import ReadError

_AT_ONCE = 16  # requests to a store
_GAP = 64 << 10  # bytes that are cheaper to bring along than to ask again behind them
_WASTE = 4  # of what is wanted together a quarter is brought along at most, or one such gap
_MOST = 8 << 20  # bytes for which one request may ask


@dataclass(frozen=True, slots=True)
class Range:
    """``length`` bytes of an object, from ``offset`` on."""

    location: str
    offset: int
    length: int

    @property
    def end(self) -> int:
        """The first byte after it."""
        return self.offset + self.length


def read_ranges(ranges: Sequence[Range]) -> list[bytes]:
    """The bytes of each range, in the same order; a store is asked for many at once.

    Raises ReadError where they cannot be had, or an object ends before a range of it does.
    """
    found: list[bytes] = [b""] * len(ranges)
    by_scheme: dict[str | None, list[int]] = {}
    for number, wanted in enumerate(ranges):
        by_scheme.setdefault(storage.protocol(wanted.location), []).append(number)
    for scheme, numbers in by_scheme.items():
        chosen = [ranges[number] for number in numbers]
        data = _remote_ranges(chosen) if scheme is not None else _local_ranges(chosen)
        for number, piece in zip(numbers, data, strict=True):
            wanted = ranges[number]
            if len(piece) != wanted.length:
                raise ReadError(f"{storage.shown(wanted.location)}: ended before byte {wanted.end}")
            found[number] = piece
    return found


def read_into(block: memoryview, ranges: Sequence[Range]) -> None:
    """Fill ``block`` with the bytes of ``ranges``, side by side. Raises what :func:`read_ranges` does."""
    if all(storage.protocol(location) is None for location in {wanted.location for wanted in ranges}):
        _read_local(block, ranges)
        return
    begin = 0
    for data in read_ranges(ranges):
        block[begin : begin + len(data)] = data
        begin += len(data)


def _local_ranges(ranges: Sequence[Range]) -> list[bytes]:
    block = memoryview(bytearray(sum(wanted.length for wanted in ranges)))
    _read_local(block, ranges)
    ends = accumulate(wanted.length for wanted in ranges)
    return [bytes(block[end - wanted.length : end]) for wanted, end in zip(ranges, ends, strict=True)]


def _read_local(block: memoryview, ranges: Iterable[Range]) -> None:
    for location, group in groupby(ranges, key=lambda wanted: wanted.location):
        with remote.transport(location):
            descriptor = os.open(location, os.O_RDONLY)
        try:
            for wanted in _joined(group):
                piece, block = block[: wanted.length], block[wanted.length :]
                with remote.transport(location):
                    _pread(descriptor, piece, wanted)
        finally:
            os.close(descriptor)


def _joined(ranges: Iterable[Range]) -> Iterator[Range]:
    """Ranges of one object; those that follow one another without a gap are one."""
    whole: Range | None = None
    for wanted in ranges:
        if whole is not None and whole.end == wanted.offset:
            whole = Range(whole.location, whole.offset, whole.length + wanted.length)
            continue
        if whole is not None:
            yield whole
        whole = wanted
    if whole is not None:
        yield whole


def _pread(descriptor: int, piece: memoryview, wanted: Range) -> None:
    """Like os.preadv, which may give less than there is."""
    done = 0
    while done < wanted.length:
        got = os.preadv(descriptor, [piece[done:]], wanted.offset + done)
        if not got:
            raise ReadError(f"{storage.shown(wanted.location)}: ended before byte {wanted.end}")
        done += got


def _remote_ranges(ranges: Sequence[Range]) -> list[bytes]:
    """Ranges that lie close together come with one request."""
    found: list[bytes] = [b""] * len(ranges)

    def fetch(numbers: list[int]) -> None:
        location, start = ranges[numbers[0]].location, ranges[numbers[0]].offset
        end = max(ranges[number].end for number in numbers)
        data = remote.asked(location, lambda store, path: remote.read_range(store, path, start, end))
        if len(data) > end - start:
            raise ReadError(f"{storage.shown(location)}: its server gives no parts of a file, only all of it")
        for number in numbers:
            wanted = ranges[number]
            found[number] = data[wanted.offset - start : wanted.end - start]

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for _ in pool.map(fetch, _neighbours(ranges)):
            pass
    return found


def _neighbours(ranges: Sequence[Range]) -> Iterator[list[int]]:
    """Positions of ranges, grouped by what one request is to bring."""
    order = sorted(range(len(ranges)), key=lambda n: (ranges[n].location, ranges[n].offset))
    widest = _widest_gap([ranges[number] for number in order])
    group: list[int] = []
    end = 0
    for number in order:
        wanted = ranges[number]
        if group:
            first = ranges[group[0]]
            apart = wanted.location != first.location or wanted.offset > end + widest
            if apart or max(end, wanted.end) - first.offset > _MOST:
                yield group
                group, end = [], 0
        group.append(number)
        end = max(end, wanted.end)
    if group:
        yield group


def _widest_gap(ordered: Sequence[Range]) -> int:
    """Up to which width gaps are brought along: the smallest ones, as far as their share of bytes goes."""
    left = max(sum(wanted.length for wanted in ordered) // _WASTE, _GAP)
    gaps = [
        after.offset - before.end
        for before, after in pairwise(ordered)
        if after.location == before.location and after.offset <= before.end + _GAP
    ]
    widest = 0
    for gap, alike in groupby(sorted(max(gap, 0) for gap in gaps)):
        left -= sum(1 for _ in alike) * gap
        if left < 0:
            break
        widest = gap
    return widest
