"""Things of one length together: batches without padding, in which nothing of a neighbour enters a number.

Matrix products take another kernel below four rows (seen with MKL), so smaller batches are filled up.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

_LEAST = 4  # rows


def in_groups(
    things: Sequence[T],
    length: Callable[[T], int],
    most: int,
    work: Callable[[Sequence[T]], Sequence[R]],
    threads: ThreadPoolExecutor,
) -> list[R]:
    """What ``work`` makes of ``things``, in their order; each call gets some of equal length, four or more.

    ``most`` is what the lengths in one call sum to at most, where four of them are no more than that.
    """
    by_length = defaultdict(list)
    for place, thing in enumerate(things):
        by_length[length(thing)].append(place)
    groups = [
        part for size, places in by_length.items() for part in _parts(places, max(_LEAST, most // size))
    ]

    def worked(places: Sequence[int]) -> Sequence[R]:
        wanted = [things[place] for place in places]
        return work(wanted + wanted[:1] * (_LEAST - len(wanted)))

    found: dict[int, R] = {}
    for places, results in zip(groups, threads.map(worked, groups), strict=True):
        found.update(zip(places, results, strict=False))
    return [found[place] for place in range(len(things))]


def _parts(places: Sequence[int], most: int) -> list[Sequence[int]]:
    """As few parts as can be, of about equal size."""
    count = math.ceil(len(places) / most)
    return [places[i * len(places) // count : (i + 1) * len(places) // count] for i in range(count)]
