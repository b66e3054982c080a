"""A judge that waits as for a GPU: its workers have real pictures to prepare, its model only sleeps."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from wdsfilter.samples import Numbers, Pair, Prepared


@dataclass(frozen=True, slots=True)
class Sleeper:
    """Prepares pictures in workers; its model takes ``seconds`` a pair and no CPU."""

    seconds: float
    window: int = 32
    batch_cost: int = 8
    inline: bool = False

    @property
    def prepare(self) -> Any:
        return shrink

    def score(self, batch: Sequence[Any]) -> Sequence[Numbers]:
        time.sleep(self.seconds * len(batch))
        return [{"grade": 10, "score": 10.0} for _ in batch]

    def check(self, first: Sequence[Any]) -> Mapping[str, Any]:
        return {}


@dataclass(frozen=True, slots=True)
class Ahead:
    """As :class:`Sleeper`, with a device that is given a batch ahead: ``host`` seconds a pair go by before it has one,
    and ``seconds`` until it is done."""

    seconds: float
    host: float
    ahead: int = 1
    window: int = 32
    batch_cost: int = 8
    inline: bool = False
    device: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1))

    @property
    def prepare(self) -> Any:
        return shrink

    def launch(self, batch: Sequence[Any]) -> Callable[[], Sequence[Numbers]]:
        time.sleep(self.host * len(batch))
        return self.device.submit(Sleeper(self.seconds).score, batch).result

    def score(self, batch: Sequence[Any]) -> Sequence[Numbers]:
        return self.launch(batch)()

    def check(self, first: Sequence[Any]) -> Mapping[str, Any]:
        return {}


def shrink(pair: Pair) -> Prepared:
    """What a judge's CPU half does; only sends back when it began and ended, on the machine's monotonic clock."""
    began = time.monotonic()
    image = Image.open(io.BytesIO(bytes(pair.image))).convert("RGB")
    image.resize((280, 280), Image.Resampling.BICUBIC)
    return Prepared((began, time.monotonic()))
