"""Near duplicates among millions of 64-bit hashes: which of them have a better one within N bits.

Hashes that differ in N bits or fewer agree in at least K of N + K blocks of their bits. So for each choice of K blocks
the hashes are sorted by the bits of these, and compared with those that have the same ones. More blocks are fewer
comparisons and more sorting; :func:`blocks_for` weighs them. A hash that has a better one near it is not asked about
again, so crowds of hashes that are near each other cost little.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from math import comb

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from wdsfilter.background import helper

Hashes = NDArray[np.uint64]
Flags = NDArray[np.bool_]
Places = NDArray[np.int64]

BITS = 64
BYTES = 9
"""Of memory, for each hash."""
BYTES_A_THREAD = 32
"""Of memory, for each hash and thread."""
_SORTING = 80
"""What it takes to sort a hash into its place, in comparisons of two."""
_MOST_ALIKE = 6
_PART = 1 << 14
_CHOICES = 16
_QUERIES = 1 << 12
_COMPARISONS = 1 << 17
_WIDEST = 1 << 10


@dataclass(frozen=True, slots=True)
class Blocks:
    """Bits cut into ``count`` blocks, of which hashes that are near each other have ``alike`` in common."""

    count: int
    alike: int

    @property
    def edges(self) -> Sequence[int]:
        return [BITS * number // self.count for number in range(self.count + 1)]

    def choices(self) -> Iterator[tuple[tuple[int, int], ...]]:
        """Each choice of so many blocks: the lowest bit of each, and the one above its highest."""
        return combinations(pairwise(self.edges), self.alike)


def blocks_for(hashes: Hashes, distance: int) -> Blocks:
    """The cheapest blocks for these hashes, by a part of them: those that the first few comparisons leave."""
    room = BITS - len(hashes).bit_length()  # bits and place of a hash are sorted as one number
    options = [Blocks(distance + alike, alike) for alike in range(1, _MOST_ALIKE + 1)]
    fitting = [b for b in options if b.alike * (BITS // b.count + 1) <= room]
    some = hashes[:: len(hashes) // _PART + 1]
    found = np.zeros(len(some), dtype=np.bool_)
    for choice in options[0].choices():
        _mark(some, distance, choice, found)
    left = some[~found]
    return min(fitting, key=lambda blocks: _cost(left, len(hashes) / max(len(some), 1), blocks))


def _cost(part: Hashes, times: float, blocks: Blocks) -> float:
    """Comparisons that ``times`` as many hashes as ``part`` take, with sorting; of a few choices for all."""
    choices = list(blocks.choices())
    tried = choices[:: len(choices) // _CHOICES + 1]
    compared = 0
    for choice in tried:
        mask = sum((1 << end) - (1 << begin) for begin, end in choice)
        _, counts = np.unique(part & np.uint64(mask), return_counts=True)
        compared += int((counts * (counts - 1) // 2).sum())
    return len(choices) * (_SORTING * times * len(part) + compared / len(tried) * times**2)


def chance(distance: int) -> float:
    """That two drawn hashes differ in ``distance`` bits or fewer."""
    return sum(comb(BITS, bits) for bits in range(distance + 1)) / (1 << BITS)


def with_better(hashes: Hashes, distance: int, threads: int = 1) -> Flags:
    """Which of different ``hashes``, the best first, have a better one within ``distance`` bits.

    Memory: :data:`BYTES` for each, and :data:`BYTES_A_THREAD`.
    """
    found = np.zeros(len(hashes), dtype=np.bool_)
    with helper("near", threads) as pool:
        # What one thread finds spares the others work, and changes nothing of what all find.
        for _ in pool.map(
            lambda blocks: _mark(hashes, distance, blocks, found), blocks_for(hashes, distance).choices()
        ):
            pass
    return found


def _mark(hashes: Hashes, distance: int, blocks: Sequence[tuple[int, int]], found: Flags) -> None:
    """Mark in ``found`` what has a better one near it among those that have the same bits in ``blocks``."""
    places, begins = _crowds(hashes, blocks)
    # In front, so that every window lies in the array.
    ordered = np.zeros(_WIDEST + len(hashes), dtype=np.uint64)
    np.take(hashes, places, out=ordered[_WIDEST:])
    asked = np.flatnonzero((begins < np.arange(len(hashes), dtype=begins.dtype)) & ~found[places])
    for first in range(0, len(asked), _QUERIES):
        some = asked[first : first + _QUERIES]
        near = _near(ordered, some, begins[some], distance)
        found[places[near]] = True


def _crowds(
    hashes: Hashes, blocks: Sequence[tuple[int, int]]
) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Places of ``hashes`` by their bits in ``blocks`` and then by place, and where each one's like begin."""
    number = np.uint64
    shift = len(hashes).bit_length()
    ordered = np.empty(len(hashes), dtype=number)
    for first in range(0, len(hashes), _COMPARISONS):
        some = hashes[first : first + _COMPARISONS]
        packed = np.arange(first, first + len(some), dtype=number)
        low = shift
        for begin, end in blocks:
            packed |= (some >> number(begin) & number((1 << end - begin) - 1)) << number(low)
            low += end - begin
        ordered[first : first + len(some)] = packed
    ordered.sort()
    places = (ordered & number((1 << shift) - 1)).astype(np.uint32)
    ordered >>= number(shift)
    begins = np.arange(len(hashes), dtype=np.uint32)
    begins[1:][ordered[1:] == ordered[:-1]] = 0
    np.maximum.accumulate(begins, out=begins)
    return places, begins


def _near(ordered: Hashes, asked: Places, begins: NDArray[np.uint32], distance: int) -> Places:
    """Those of ``asked`` that one of the hashes before them, down to ``begins``, is near to.

    Hash ``n`` lies at ``_WIDEST + n`` of ``ordered``.
    """
    found = []
    seen = 0
    while len(asked):
        width = min(max(8, _COMPARISONS // len(asked)), _WIDEST)
        windows = sliding_window_view(ordered, width)
        differing = windows[asked + (_WIDEST - seen - width)]
        differing ^= ordered[asked + _WIDEST][:, None]
        close = np.bitwise_count(differing) <= distance
        # The last one that is close is the likeliest to be one of its like at all.
        rows = np.flatnonzero(close.any(axis=1))
        back = seen + 1 + np.argmax(close[rows, ::-1], axis=1)
        near = rows[asked[rows] - back >= begins[rows]]
        found.append(asked[near])
        seen += width
        left = asked - seen > begins
        left[near] = False
        asked, begins = asked[left], begins[left]
    return np.concatenate(found) if found else asked
