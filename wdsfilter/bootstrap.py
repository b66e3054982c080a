"""Confidence intervals by the bootstrap: what a figure would be on other data of the same kind.

Source: Efron and Tibshirani, An Introduction to the Bootstrap, 1993 (percentile intervals). Seeded: the same
values give the same interval.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

DRAWS = 1000
_TAILS = (0.025, 0.975)
_GROUPS = 4096


@dataclass(frozen=True, slots=True)
class Interval:
    """Covers 95 %."""

    low: float
    high: float


def resampled(count: int, seed: int = 0) -> Floats:
    """How often each of ``count`` things is drawn when as many are drawn with replacement [draws, count]."""
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=DRAWS)
    return drawn.astype(np.float64)


def interval(values: Floats) -> Interval:
    """Of a figure's values on all resampled data [draws]."""
    low, high = np.quantile(values, _TAILS)
    return Interval(float(low), float(high))


@dataclass(slots=True)
class Mean:
    """A mean over values that come one by one, with its interval, in bounded memory.

    Past some thousand values, adjacent ones are drawn together, in groups of equal size: that leaves the
    interval as it is for independent values, and honest for neighbours that are alike.
    """

    count: int = 0
    total: float = 0.0
    _size: int = 1
    _filled: int = 0
    _open: float = 0.0
    _sums: list[float] = field(default_factory=list)

    def add(self, value: float) -> None:
        self.count += 1
        self.total += value
        self._open += value
        self._filled += 1
        if self._filled == self._size:
            self._sums.append(self._open)
            self._open, self._filled = 0.0, 0
            if len(self._sums) == 2 * _GROUPS:
                self._sums = [a + b for a, b in zip(self._sums[::2], self._sums[1::2], strict=True)]
                self._size *= 2

    @property
    def value(self) -> float | None:
        """None without values."""
        return self.total / self.count if self.count else None

    def interval(self) -> Interval | None:
        """None below two values."""
        sums, sizes = list(self._sums), [self._size] * len(self._sums)
        if self._filled:
            sums, sizes = [*sums, self._open], [*sizes, self._filled]
        if self.count < 2:
            return None
        weights = resampled(len(sums))
        return interval((weights @ np.array(sums)) / (weights @ np.array(sizes, np.float64)))
