"""Reading byte ranges of objects that lie somewhere, many at once."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from wdsfilter import storage
from wdsfilter.errors import ReadError
from wdsfilter.retry import persist


@dataclass(frozen=True, slots=True)
class Range:
    """``length`` bytes of an object, from ``offset`` on."""

    location: str
    offset: int
    length: int


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
        data = _local_ranges(chosen) if scheme is None else _remote_ranges(chosen)
        for number, piece in zip(numbers, data, strict=True):
            wanted = ranges[number]
            if len(piece) != wanted.length:
                end = wanted.offset + wanted.length
                raise ReadError(f"{storage.shown(wanted.location)}: ended before byte {end}")
            found[number] = piece
    return found


def _local_ranges(ranges: Sequence[Range]) -> Iterator[bytes]:
    for location, group in groupby(ranges, key=lambda wanted: wanted.location):
        with storage.transport(location):
            descriptor = os.open(location, os.O_RDONLY)
        try:
            for wanted in group:
                with storage.transport(location):
                    yield _pread(descriptor, wanted.length, wanted.offset)
        finally:
            os.close(descriptor)


def _pread(descriptor: int, length: int, offset: int) -> bytes:
    """Like os.pread, which may give less than there is."""
    data = os.pread(descriptor, length, offset)
    while len(data) < length and (more := os.pread(descriptor, length - len(data), offset + len(data))):
        data += more
    return data


def _remote_ranges(ranges: Sequence[Range]) -> Sequence[bytes]:
    with storage.transport(ranges[0].location):
        filesystem, _ = storage.remote(ranges[0].location)
        paths = [storage.remote(wanted.location)[1] for wanted in ranges]
        starts = [wanted.offset for wanted in ranges]
        ends = [wanted.offset + wanted.length for wanted in ranges]
        data: Sequence[bytes] = persist(lambda: filesystem.cat_ranges(paths, starts, ends, on_error="raise"))
        return data
