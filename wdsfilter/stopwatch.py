"""Where the time of a line of stages goes."""

from __future__ import annotations

import time
from collections.abc import Generator
from dataclasses import dataclass, field
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class Stopwatch:
    """Seconds that were spent in each stage of a line whose stages pull from one another, in one thread."""

    _spent: dict[str, float] = field(default_factory=dict)
    _further_up: float = 0.0

    def timed(self, name: str, items: Generator[T, Any, Any]) -> Generator[T, None, None]:
        """The same items; what stages further up the line take of the time is theirs."""
        try:
            while True:
                begun, outer = time.perf_counter(), self._further_up
                self._further_up = 0.0
                try:
                    item = next(items)
                except StopIteration:
                    return
                finally:
                    taken = time.perf_counter() - begun
                    self._spent[name] = self._spent.get(name, 0.0) + taken - self._further_up
                    self._further_up = outer + taken
                yield item
        finally:
            items.close()

    def spent(self) -> dict[str, float]:
        """Seconds by stage, so far."""
        return {name: round(seconds, 3) for name, seconds in list(self._spent.items())}
