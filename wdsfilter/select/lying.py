"""Samples that lie side by side as they are stored: which bytes of them are to be written, without reading them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from wdsfilter.shards.plain import Buffer, Plain, plain_members
from wdsfilter.shards.reader import RESERVED, is_safe, split_name
from wdsfilter.shards.tar import BLOCK


class Lying(NamedTuple):
    """A sample's members' extensions, and where its bytes begin and end, piece by piece."""

    extensions: set[str]
    pieces: list[tuple[int, int]]


def lying_samples(data: Buffer, samples: Sequence[tuple[str, int]]) -> Iterator[Lying | None]:
    """How each of ``samples`` (key, length) lies in ``data``, one behind the other.

    Headers become the writer's, in place, and the pieces are what :func:`~wdsfilter.shards.writer.stored` makes of
    the sample. None where it lies there in any way but the plainest, or is not the sound sample of that key: then it
    has to be read by :func:`~wdsfilter.shards.reader.read_samples`, which sees the same as before.
    """
    end = sum(length for _, length in samples)
    members = plain_members(data, 0, end, end)
    begin = number = 0
    for key, length in samples:
        after = begin + length
        first = number
        while number < len(members) and members[number].end <= after:
            number += 1
        lying = _lying(key, members[first:number], begin, after)
        if lying is None and (number == len(members) or members[number].begin != after):
            members = plain_members(data, after, end, end) if not after % BLOCK else []
            number = 0
        yield lying
        begin = after


def _lying(key: str, members: Sequence[Plain], begin: int, end: int) -> Lying | None:
    if not members or members[0].begin != begin or members[-1].end != end or not is_safe(key):
        return None
    extensions: set[str] = set()
    pieces: list[tuple[int, int]] = []
    for member in members:
        split = split_name(member.name)
        if split is None or split[0] != key or split[1] in RESERVED or split[1] in extensions:
            return None
        extensions.add(split[1])
        if pieces and pieces[-1][1] == member.header:
            pieces[-1] = (pieces[-1][0], member.end)
        else:
            pieces.append((member.header, member.end))
    return Lying(extensions, pieces)
