"""How fast a run's processes went, from its events, and what the whole of it would cost at that."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Rate:
    """``samples`` that processes committed in ``seconds`` of theirs, added up: loading is not among them."""

    samples: int
    seconds: float

    @property
    def per_second(self) -> float | None:
        """Samples a second of one process, and so of one GPU; None where there was too little to tell."""
        return self.samples / self.seconds if self.samples and self.seconds > 0 else None


@dataclass(frozen=True, slots=True)
class Cost:
    """``hours`` of one GPU (of one process), on the clock for ``gpus`` of them, and money where it has a price."""

    pairs_per_second: float
    gpu_hours: float
    gpus: int
    hours: float
    money: float | None


def rate(events: Iterable[dict[str, Any]]) -> Rate:
    """From when a process had its judges ready to its last shard, for all processes and launches.

    ``events`` are in order of time. A launch that committed nothing tells nothing.
    """
    since: dict[str, float] = {}
    samples, seconds = 0, 0.0
    for event in events:
        process, time = str(event["process"]), float(event.get("time", 0))
        if event["event"] == "opened":
            since[process] = time
        elif event["event"] == "committed" and process in since:
            samples += int(event.get("samples", 0))
            seconds += max(0.0, time - since[process])
            since[process] = time
    return Rate(samples, seconds)


def cost(found: Rate, samples: float, gpus: int, price: float | None) -> Cost | None:
    """Of judging so many samples; ``price`` is that of an hour of one GPU. None where the rate is not known."""
    speed = found.per_second
    if speed is None:
        return None
    hours = samples / speed / 3600
    return Cost(speed, hours, gpus, hours / gpus, None if price is None else hours * price)
