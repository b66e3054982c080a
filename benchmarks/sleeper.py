"""A judge that waits as for a GPU: its workers have real pictures to prepare, its model only sleeps."""

from __future__ import annotations

import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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


def shrink(pair: Pair) -> Prepared:
    """What a judge's CPU half does; only sends back when it began and ended, on the machine's monotonic clock."""
    began = time.monotonic()
    image = Image.open(io.BytesIO(bytes(pair.image))).convert("RGB")
    image.resize((280, 280), Image.Resampling.BICUBIC)
    return Prepared((began, time.monotonic()))
