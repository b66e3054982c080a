"""How fast a run went, over time and by process, from its events: what is there of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

_BINS = 60


@dataclass(frozen=True, slots=True)
class Process:
    """One process's part: ``rank`` is its latest launch's, ``seconds`` from its start to its last shard."""

    name: str
    rank: int | None
    shards: int
    samples: int
    seconds: float

    @property
    def rate(self) -> float | None:
        """Samples a second."""
        return self.samples / self.seconds if self.seconds > 0 else None


@dataclass(frozen=True, slots=True)
class Speed:
    """``begun`` and ``ended`` in UTC; ``rates`` are samples a second of all processes, in equal spans of time."""

    begun: str = ""
    ended: str = ""
    seconds: float = 0.0
    rates: Sequence[float] = ()
    processes: Sequence[Process] = ()


def measure(events: Sequence[dict[str, Any]]) -> Speed:
    """Everything that can be told of ``events``, which are in order of time."""
    times = [float(event.get("time", 0)) for event in events]
    if not times:
        return Speed()
    commits = [
        (float(e.get("time", 0)), int(e.get("samples", 0))) for e in events if e["event"] == "committed"
    ]
    first, last = times[0], max([time for time, _ in commits] or times)
    rates = [0.0] * min(_BINS, len(commits))
    for time, samples in commits:
        place = min(int((time - first) / max(last - first, 1e-9) * len(rates)), len(rates) - 1)
        rates[place] += samples / max((last - first) / len(rates), 1e-3)
    names = sorted({str(event["process"]) for event in events})
    processes = [_process(name, [e for e in events if e["process"] == name]) for name in names]
    processes.sort(key=lambda process: (process.rank is None, process.rank, process.name))
    return Speed(_shown(times[0]), _shown(times[-1]), times[-1] - times[0], rates, processes)


def _process(name: str, events: Sequence[dict[str, Any]]) -> Process:
    places = [event.get("place", {}) for event in events if event["event"] == "started"]
    commits = [event for event in events if event["event"] == "committed"]
    samples = sum(int(event.get("samples", 0)) for event in commits)
    seconds = float(commits[-1].get("time", 0)) - float(events[0].get("time", 0)) if commits else 0.0
    return Process(name, places[-1].get("rank") if places else None, len(commits), samples, seconds)


def _shown(time: float) -> str:
    return datetime.fromtimestamp(time, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
