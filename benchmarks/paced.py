"""A judge with a clock for a GPU: its batches are packed, queue up for the device, and take their time."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from wdsfilter.engine.prepare import Ready
from wdsfilter.judges import Prepare
from wdsfilter.samples import Numbers, Pair, Prepared

WORK = 2e-3  # seconds of a worker for a pair


@dataclass(frozen=True, slots=True)
class Sleep:
    """A worker's half: sleeps, and sends the same prepared pair back, whatever it was given."""

    ready: Ready

    def __call__(self, pair: Pair) -> Prepared:
        time.sleep(WORK)
        return Prepared(self.ready, cost=len(self.ready.ids))


@dataclass(slots=True)
class Paced:
    """Gives every batch to ``pack``, and then waits until a device would be done that takes ``seconds`` a pair.

    Batches queue up for it; ``free`` is when it will have done what it was given.
    """

    prepare: Prepare
    pack: Callable[[Sequence[Any]], object]
    batch_cost: int
    seconds: float
    free: float = 0.0
    window: int = 256
    inline: bool = False
    ahead: int = 1

    def launch(self, batch: Sequence[Any]) -> Callable[[], Sequence[Numbers]]:
        self.pack(batch)
        self.free = max(self.free, time.perf_counter()) + len(batch) * self.seconds
        return partial(_numbers, len(batch), self.free)

    def score(self, batch: Sequence[Any]) -> Sequence[Numbers]:
        return self.launch(batch)()

    def check(self, first: Sequence[Any]) -> Mapping[str, Any]:
        return {}


def _numbers(pairs: int, done: float) -> Sequence[Numbers]:
    time.sleep(max(0.0, done - time.perf_counter()))
    return [{"grade": 10, "score": 9.5}] * pairs
