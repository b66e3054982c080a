"""Facts about pairs that need no model, counted in bounded memory or, for what is distinct, eight bytes a thing."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from wdsfilter.bootstrap import Mean

SEGMENT = 1000
"""Words in a row whose type-token ratio is taken: the ratio of a whole text falls with its length."""

_WORD = re.compile(r"\w+(?:['\u2019]\w+)*")
_WAITING = 1 << 20


@dataclass(frozen=True, slots=True)
class Spread:
    """5 %, half and 95 % of all values are not above these."""

    low: int
    median: int
    high: int


@dataclass(slots=True)
class Values:
    """Whole numbers, counted."""

    counts: Counter[int] = field(default_factory=Counter)

    def add(self, value: int) -> None:
        self.counts[value] += 1

    def spread(self) -> Spread | None:
        """None without values."""
        values = sorted(self.counts)
        if not values:
            return None
        below = np.cumsum([self.counts[value] for value in values])
        places = np.searchsorted(below, np.array((0.05, 0.5, 0.95)) * below[-1])
        low, median, high = (values[place] for place in places)
        return Spread(low, median, high)


@dataclass(slots=True)
class Distinct:
    """How many different things there are among ``total``, by 64-bit hashes."""

    total: int = 0
    _known: npt.NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))
    _new: set[int] = field(default_factory=set)

    def add(self, hashed: int) -> None:
        """``hashed`` is below 2 ** 64."""
        self.total += 1
        self._new.add(hashed)
        if len(self._new) >= _WAITING:
            self._settle()

    @property
    def count(self) -> int:
        self._settle()
        return len(self._known)

    @property
    def repeated(self) -> int:
        """How many could go, so that each is there once."""
        return self.total - self.count

    def _settle(self) -> None:
        if self._new:
            new = np.fromiter(self._new, np.uint64, len(self._new))
            self._known = np.union1d(self._known, new)
            self._new.clear()


@dataclass(slots=True)
class Words:
    """The words of captions: how many, how many different ones, and how varied a thousand in a row are."""

    distinct: Distinct = field(default_factory=Distinct)
    variety: Mean = field(default_factory=Mean)
    _segment: list[str] = field(default_factory=list)

    def add(self, caption: str) -> None:
        for word in words(caption):
            self.distinct.add(hashed(word))
            self._segment.append(word)
            if len(self._segment) == SEGMENT:
                self.variety.add(len(set(self._segment)) / SEGMENT)
                self._segment.clear()

    @property
    def ratio(self) -> float | None:
        """Type-token ratio of all words together; None without words. Compare it between equal sizes only."""
        return self.distinct.count / self.distinct.total if self.distinct.total else None


def words(caption: str) -> Sequence[str]:
    """Runs of letters and digits, in lower case."""
    return _WORD.findall(caption.lower())


def hashed(text: str) -> int:
    """64 bits of a text."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")


def first_bits(hexadecimal: str | None) -> Iterable[int]:
    """The first 64 bits of a hash that a ledger row holds; nothing where it holds none."""
    return () if hexadecimal is None else (int(hexadecimal[:16], 16),)
